// Pictures are built as a painter would: a background gradient, clutter, the object's shadow, the
// object, then grain. Every shape is a signed distance function, so its edge is anti-aliased by
// turning distance into coverage, at any size and rotation.
//
// The same bytes on every machine: only + - * / and sqrtf, which IEEE 754 rounds exactly, and no
// fused multiply-add, which would round differently where the CPU has one.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off", "no-math-errno", "no-trapping-math")
#endif

#include "data/synth.h"

#include "kernels/philox.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

const char *const synth_class_names[SYNTH_CLASSES] = {
    "circle", "ring", "triangle", "square", "cross", "star", "heart", "moon", "arrow", "spiral",
};

// ---- shapes: signed distance from (x, y) to the outline, negative inside -------------------------
// The shape fills about the unit disc, y points up. `t` in [0, 1] varies its proportions.

static inline float min(float a, float b)
{
    return a < b ? a : b;
}

static inline float max(float a, float b)
{
    return a > b ? a : b;
}

static inline float length(float x, float y)
{
    return sqrtf(x * x + y * y);
}

static float circle(float x, float y, float t)
{
    return length(x, y) - (0.8f + 0.1f * t);
}

static float ring(float x, float y, float t)
{
    const float half_width = 0.12f + 0.12f * t;
    return fabsf(length(x, y) - (0.9f - half_width)) - half_width;
}

// The three half-planes of an isosceles triangle, two of them by symmetry in x.
static float triangle(float x, float y, float t)
{
    const float floor = 0.5f + 0.1f * t;
    return max(-y - floor, 0.8660254f * fabsf(x) + 0.5f * y - 0.5f);
}

static float square(float x, float y, float t)
{
    return max(fabsf(x), fabsf(y)) - (0.68f + 0.08f * t);
}

// Two bars: the nearer one is the one along the larger coordinate.
static float cross(float x, float y, float t)
{
    const float along = max(fabsf(x), fabsf(y)), across = min(fabsf(x), fabsf(y));
    return max(along - 0.9f, across - (0.17f + 0.13f * t));
}

// Reflections fold the plane into one tenth: the half arm right of the y axis, 36 degrees wide.
// What is left is one edge, from the tip (0, 1) to the notch at `inner` on the 36 degree line.
static float star(float x, float y, float t)
{
    const float s36 = 0.58778525f, c36 = 0.80901699f;
    x = fabsf(x);
    float beyond = max(c36 * x - s36 * y, 0); // over the line at 36 degrees
    x -= 2 * c36 * beyond;
    y += 2 * s36 * beyond;
    beyond = max(-c36 * x - s36 * y, 0); // over its mirror image
    x += 2 * c36 * beyond;
    y += 2 * s36 * beyond;
    x = fabsf(x);
    const float inner = 0.4f + 0.12f * t;
    const float ex = s36 * inner, ey = c36 * inner - 1; // the edge, tip to notch
    return (ex * (y - 1) - ey * x) / length(ex, ey);
}

// A square on its corner and a disc on each of its upper sides.
static float heart(float x, float y, float t)
{
    const float half = 0.5f + 0.04f * t, middle = half * 0.70710678f;
    x = fabsf(x);
    y += 0.1f;
    return min((x + fabsf(y)) * 0.70710678f - half, length(x - middle, y - middle) - half);
}

// A disc less another one, shifted along x. Both circles meet on the line x = horn, and the moon lies
// left of it; without the third term the soft shadow would follow the circles beyond the horns.
static float moon(float x, float y, float t)
{
    const float outer = 0.9f, bite = 0.75f, shift = 0.5f - 0.12f * t;
    const float horn = (outer * outer - bite * bite + shift * shift) / (2 * shift);
    x += 0.15f;
    return max(max(length(x, y) - outer, bite - length(x - shift, y)), x - horn);
}

static float arrow(float x, float y, float t)
{
    y = fabsf(y);
    const float shaft = max(fabsf(x + 0.35f) - 0.6f, y - (0.13f + 0.12f * t));
    const float head = max(-x, 0.70710678f * (x + y - 0.95f));
    return min(shaft, head);
}

// Half circles around two centres, one spacing of radius apart: above the x axis around the origin
// with radii 1/2 and 3/2 spacings, below it around (1/2, 0) with radii 1 and 2; they join into one
// line of two turns.
static float spiral(float x, float y, float t)
{
    const float spacing = 0.42f;
    const float inner = y > 0 ? 0.5f * spacing : spacing;
    const float r = length(y > 0 ? x : x - 0.5f * spacing, y);
    return min(fabsf(r - inner), fabsf(r - inner - spacing)) - (0.08f + 0.05f * t);
}

// Clutter: endless along x.
static float stripe(float x, float y, float t)
{
    (void)x;
    return fabsf(y) - (0.05f + 0.15f * t);
}

// A shape's distances along a row of n points: a loop the compiler vectorises.
#define ROW_OF(shape)                                                                              \
    static void shape##_row(float *distance, const float *x, const float *y, float t, int n)       \
    {                                                                                              \
        for (int i = 0; i < n; i++) distance[i] = shape(x[i], y[i], t);                            \
    }
ROW_OF(circle)
ROW_OF(ring)
ROW_OF(triangle)
ROW_OF(square)
ROW_OF(cross)
ROW_OF(star)
ROW_OF(heart)
ROW_OF(moon)
ROW_OF(arrow)
ROW_OF(spiral)
ROW_OF(stripe)

typedef void DistanceRow(float *distance, const float *x, const float *y, float t, int n);

static DistanceRow *const class_rows[SYNTH_CLASSES] = {
    circle_row, ring_row,  triangle_row, square_row, cross_row,
    star_row,   heart_row, moon_row,     arrow_row,  spiral_row,
};

// ---- random draws ---------------------------------------------------------------------------------

// Counter word b of philox(seed, STREAM_SYNTH, a, b).
enum { DRAW_LABEL = 0, DRAW_SCENE = 1, DRAW_GRAIN = 1 << 16 };

typedef struct Draws {
    uint64_t seed, i;
    uint32_t used; // words taken so far
    Philox words;
} Draws;

static float uniform(Draws *d, float low, float high)
{
    if (d->used % 4 == 0) {
        d->words = philox(d->seed, STREAM_SYNTH, d->i, DRAW_SCENE + d->used / 4);
    }
    return low + (high - low) * philox_unit(d->words.v[d->used++ % 4]);
}

int synth_label(uint64_t seed, int64_t i)
{
    // k -> a k + b mod 10 permutes ten images' classes when a has no factor in common with 10
    static const uint32_t steps[4] = {1, 3, 7, 9};
    const Philox r = philox(seed, STREAM_SYNTH, (uint64_t)i / SYNTH_CLASSES, DRAW_LABEL);
    const uint32_t k = (uint32_t)((uint64_t)i % SYNTH_CLASSES);
    return (int)((steps[r.v[0] >> 30] * k + philox_below(r.v[1], SYNTH_CLASSES)) % SYNTH_CLASSES);
}

// ---- colour ---------------------------------------------------------------------------------------

typedef struct Colour {
    float v[3]; // RGB in 0..1; with one channel v[0] is the luminance
} Colour;

// The colour of a hue (0..6: red, yellow, green, cyan, blue, magenta, red) and saturation that has
// exactly this luminance: darkened towards black or lightened towards white.
static Colour colour(float luminance, float hue, float saturation, int channels)
{
    if (channels == 1) return (Colour){{luminance, 0, 0}};
    Colour rgb = {{min(max(fabsf(hue - 3) - 1, 0), 1), min(max(2 - fabsf(hue - 2), 0), 1),
                   min(max(2 - fabsf(hue - 4), 0), 1)}};
    const float own = 0.299f * rgb.v[0] + 0.587f * rgb.v[1] + 0.114f * rgb.v[2];
    for (int k = 0; k < 3; k++) {
        const float pure = luminance < own ? rgb.v[k] * (luminance / own)
                                           : 1 - (1 - rgb.v[k]) * ((1 - luminance) / (1 - own));
        rgb.v[k] = luminance + saturation * (pure - luminance);
    }
    return rgb;
}

// ---- scene ----------------------------------------------------------------------------------------

// One thing to paint. Pixel (px, py) is the point (x, y) of the shape's own plane:
//   x = xx (px - cx) + xy (py - cy), y = yx (px - cx) + yy (py - cy).
typedef struct Piece {
    DistanceRow *distance;
    float proportion;
    float cx, cy, xx, xy, yx, yy;
    float reach;     // pixels from the centre beyond which nothing is painted
    float sharpness; // coverage lost per unit of distance
    float opacity;
    Colour low, high; // the fill's gradient, at y = -1 and y = 1
} Piece;

enum { CLUTTER = 3, PIECES = CLUTTER + 2 };

typedef struct Scene {
    Colour
        corner[3]; // the background at the top left, and its change over the width and the height
    Piece piece[PIECES];
    float grain; // of the noise: 1 is a standard deviation of 6.5 of 255
} Scene;

// `radius` is the shape's, in pixels; `softness` the width of its edge, in pixels.
static void place(Piece *p, Draws *d, float cx, float cy, float radius, float turn, float softness)
{
    // the rational points of the circle, (1 - s^2, 2 s) / (1 + s^2), are an angle of 2 atan(s)
    const float s = uniform(d, -turn, turn), n = 1 / (1 + s * s);
    const float cosine = (1 - s * s) * n, sine = 2 * s * n;
    const float aspect = uniform(d, 0.85f, 1.15f);
    p->proportion = uniform(d, 0, 1);
    p->cx = cx;
    p->cy = cy;
    p->xx = cosine / radius * aspect;
    p->xy = sine / radius * aspect;
    p->yx = sine / radius / aspect;
    p->yy = -cosine / radius / aspect;
    p->reach = 1.3f * radius + softness;
    p->sharpness = radius / softness;
    p->opacity = 1;
}

static Scene compose(Draws *d, int label, int h, int w, int c)
{
    Scene scene;
    const float size = (float)(h < w ? h : w);
    // the object differs from the background by at least 0.3 in luminance
    const float contrast = uniform(d, 0.3f, 0.6f);
    const int bright = uniform(d, 0, 1) < 0.5f;
    const float base =
        bright ? uniform(d, 0.1f, 0.9f - contrast) : uniform(d, 0.1f + contrast, 0.9f);
    const float light = bright ? base + contrast : base - contrast;
    const float hue = uniform(d, 0, 6);

    for (int k = 0; k < 3; k++) {
        const float l = min(max(base + uniform(d, -0.12f, 0.12f), 0), 1);
        scene.corner[k] = colour(l, hue, uniform(d, 0.1f, 0.6f), c);
    }
    for (int k = 0; k < 3; k++) {
        scene.corner[1].v[k] -= scene.corner[0].v[k];
        scene.corner[2].v[k] -= scene.corner[0].v[k];
    }
    for (int k = 0; k < CLUTTER; k++) {
        Piece *p = &scene.piece[k];
        p->distance = stripe_row;
        place(p, d, uniform(d, 0, (float)w), uniform(d, 0, (float)h), 0.5f * size, 1, 1.5f);
        p->reach = 2 * SYNTH_MAX_SIZE;
        const float l = min(max(base + uniform(d, -0.2f, 0.2f), 0), 1);
        p->low = p->high = colour(l, uniform(d, 0, 6), 0.4f, c);
        p->opacity = uniform(d, 0.3f, 0.9f);
    }
    Piece *object = &scene.piece[PIECES - 1], *shadow = object - 1;
    const float radius = size * uniform(d, 0.26f, 0.44f), slack = 0.52f * size - radius;
    object->distance = class_rows[label];
    place(object, d, 0.5f * (float)w + slack * uniform(d, -1, 1),
          0.5f * (float)h + slack * uniform(d, -1, 1), radius, 0.4f, uniform(d, 1, 1.6f));
    const float object_hue = uniform(d, 0, 6), saturation = uniform(d, 0.6f, 1);
    object->low = colour(max(light - 0.1f, 0), object_hue, saturation, c);
    object->high = colour(min(light + 0.1f, 1), object_hue, saturation, c);

    *shadow = *object;
    shadow->cx += 0.06f * size;
    shadow->cy += 0.06f * size;
    shadow->sharpness = radius / (0.14f * size);
    shadow->reach += 0.1f * size;
    shadow->opacity = 0.45f;
    shadow->low = shadow->high = (Colour){{0, 0, 0}};
    scene.grain = uniform(d, 0.3f, 1.5f);
    return scene;
}

// ---- painting, a row at a time --------------------------------------------------------------------

typedef float Row[3][SYNTH_MAX_SIZE]; // one plane a channel, in 0..1

static void paint_background(Row row, const Scene *scene, float v, int w, int c)
{
    for (int k = 0; k < c; k++) {
        const float left = scene->corner[0].v[k] + v * scene->corner[2].v[k];
        const float slope = scene->corner[1].v[k] / (float)w;
        for (int i = 0; i < w; i++) row[k][i] = left + slope * ((float)i + 0.5f);
    }
}

static void paint_piece(Row row, const Piece *p, float py, int w, int c)
{
    const float dy = py - p->cy;
    if (fabsf(dy) > p->reach) return;
    const int begin = (int)max(p->cx - p->reach, 0), end = (int)min(p->cx + p->reach, (float)w);
    const int n = end - begin;
    float x[SYNTH_MAX_SIZE], y[SYNTH_MAX_SIZE], distance[SYNTH_MAX_SIZE];
    for (int i = 0; i < n; i++) {
        const float dx = (float)(begin + i) + 0.5f - p->cx;
        x[i] = p->xx * dx + p->xy * dy;
        y[i] = p->yx * dx + p->yy * dy;
    }
    p->distance(distance, x, y, p->proportion, n);
    for (int k = 0; k < c; k++) {
        const float middle = 0.5f * (p->low.v[k] + p->high.v[k]);
        const float slope = 0.5f * (p->high.v[k] - p->low.v[k]);
        float *const out = row[k] + begin;
        for (int i = 0; i < n; i++) {
            const float coverage = min(max(0.5f - p->sharpness * distance[i], 0), 1);
            const float fill = middle + slope * min(max(y[i], -1), 1);
            out[i] += p->opacity * coverage * (fill - out[i]);
        }
    }
}

// Noise for n <= 3 SYNTH_MAX_SIZE bytes of picture row `y`: a random byte's two digits in base 16 add
// up to a triangular distribution, with mean 15 (taken off) and variance 42.5.
static void draw_grain(float *grain, const Draws *d, int y, int n)
{
    enum { BLOCKS = 3 * SYNTH_MAX_SIZE / 16 }; // 16 bytes each
    for (int b = 0; b < (n + 15) / 16; b++) {
        const Philox r =
            philox(d->seed, STREAM_SYNTH, d->i, DRAW_GRAIN + (uint32_t)(y * BLOCKS + b));
        for (int i = 0; i < 16; i++) {
            const int byte = (int)(r.v[i / 4] >> (8 * (i % 4)) & 255);
            grain[16 * b + i] = (float)((byte >> 4) + (byte & 15) - 15);
        }
    }
}

void synth_image(uint8_t *image, uint64_t seed, int64_t i, int h, int w, int c)
{
    assert(h >= SYNTH_MIN_SIZE && h <= SYNTH_MAX_SIZE && w >= SYNTH_MIN_SIZE &&
           w <= SYNTH_MAX_SIZE && (c == 1 || c == 3));
    Draws draws = {.seed = seed, .i = (uint64_t)i};
    const Scene scene = compose(&draws, synth_label(seed, i), h, w, c);
    Row row;
    float grain[3 * SYNTH_MAX_SIZE];
    for (int y = 0; y < h; y++) {
        const float py = (float)y + 0.5f;
        paint_background(row, &scene, py / (float)h, w, c);
        for (int k = 0; k < PIECES; k++) paint_piece(row, &scene.piece[k], py, w, c);
        draw_grain(grain, &draws, y, w * c);
        for (int k = 0; k < c; k++) {
            uint8_t *const out = image + ((ptrdiff_t)y * w * c + k);
            for (int j = 0; j < w; j++) {
                const float value = 255 * row[k][j] + scene.grain * grain[k * w + j] + 0.5f;
                out[j * c] = (uint8_t)(int)min(max(value, 0), 255);
            }
        }
    }
}

void synth_mean_std(int c, float mean[4], float std[4])
{
    static const float rgb_mean[3] = {0.48f, 0.48f, 0.48f}, rgb_std[3] = {0.22f, 0.22f, 0.22f};
    for (int k = 0; k < c; k++) {
        mean[k] = c == 1 ? 0.48f : rgb_mean[k];
        std[k] = c == 1 ? 0.22f : rgb_std[k];
    }
}
