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

#include "base/philox.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

// The classes, in the order of their labels. A new one is a name here and a function below.
#define CLASSES(F)                                                                                 \
    F(circle) F(ring) F(triangle) F(square) F(cross) F(star) F(heart) F(moon) F(arrow) F(spiral)

// Shapes: the signed distance from (x, y) to the outline, negative inside. A shape about fills the
// unit disc, y points up, and t in [0, 1] varies its proportions.

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

// A disc less another one, shifted along x. The circles meet on the line x = horn, and the moon
// lies left of it; without the third term the shadow would follow the circles beyond the horns.
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

// Half circles around two centres, half a spacing apart: below the x axis around the origin with
// radii of 1 and 2 spacings, above it around (-1/2, 0) with 1/2 and 3/2; they join into one line.
static float spiral(float x, float y, float t)
{
    const float spacing = 0.43f;
    const float inner = y > 0 ? 0.5f * spacing : spacing;
    const float r = length(y > 0 ? x + 0.5f * spacing : x, y);
    return min(fabsf(r - inner), fabsf(r - inner - spacing)) - (0.08f + 0.05f * t);
}

// Clutter: endless along x.
static float stripe(float x, float y, float t)
{
    (void)x;
    return fabsf(y) - (0.05f + 0.15f * t);
}

typedef void DistanceRow(float *distance, const float *x, const float *y, float t, int n);

// A shape's distances at a row of n points: a loop the compiler vectorises.
#define ROW(shape)                                                                                 \
    static void shape##_row(float *distance, const float *x, const float *y, float t, int n)       \
    {                                                                                              \
        for (int i = 0; i < n; i++) distance[i] = shape(x[i], y[i], t);                            \
    }
CLASSES(ROW)
ROW(stripe)

#define NAME(shape) #shape,
#define ROW_NAME(shape) shape##_row,
const char *const synth_class_names[SYNTH_CLASSES] = {CLASSES(NAME)};
static DistanceRow *const class_rows[SYNTH_CLASSES] = {CLASSES(ROW_NAME)};

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

typedef struct Colour {
    float v[3]; // RGB in 0..1; with one channel v[0] is the luminance
} Colour;

// The colour of a hue (0..6: red, yellow, green, cyan, blue, magenta, red) and saturation that has
// exactly this luminance: darkened towards black or lightened towards white.
static Colour colour(float luminance, float hue, float saturation, int channels)
{
    luminance = min(max(luminance, 0), 1);
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

enum { CLUTTER = 3, SHADOW = CLUTTER, OBJECT, PIECES };

typedef struct Scene {
    Colour origin, across, down; // the background at the top left, its change over width and height
    Piece piece[PIECES];         // painted in this order
    float grain;                 // of the noise: 1 is a standard deviation of 6.5 of 255
} Scene;

// Turns by up to 2 atan(turn) either way: the rational points of the circle need no sine. `radius`
// is the shape's and `softness` the width of its edge, both in pixels.
static void place(Piece *p, Draws *d, float cx, float cy, float radius, float turn, float softness)
{
    const float s = uniform(d, -turn, turn);
    const float cosine = (1 - s * s) / (1 + s * s), sine = 2 * s / (1 + s * s);
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

static void compose_background(Scene *scene, Draws *d, float base, int h, int w, int c)
{
    const float hue = uniform(d, 0, 6);
    Colour *const corners[3] = {&scene->origin, &scene->across, &scene->down};
    for (int k = 0; k < 3; k++) {
        const float luminance = base + uniform(d, -0.12f, 0.12f);
        *corners[k] = colour(luminance, hue, uniform(d, 0.1f, 0.6f), c);
    }
    for (int k = 0; k < c; k++) {
        scene->across.v[k] -= scene->origin.v[k];
        scene->down.v[k] -= scene->origin.v[k];
    }
    for (Piece *p = scene->piece; p < scene->piece + CLUTTER; p++) {
        const float cx = uniform(d, 0, (float)w), cy = uniform(d, 0, (float)h);
        place(p, d, cx, cy, 0.5f * (float)(h < w ? h : w), 1, 1.5f);
        p->distance = stripe_row;
        p->reach = 2 * SYNTH_MAX_SIZE; // everywhere
        p->opacity = uniform(d, 0.3f, 0.9f);
        const float luminance = base + uniform(d, -0.25f, 0.25f);
        p->low = p->high = colour(luminance, uniform(d, 0, 6), 0.4f, c);
    }
}

static void compose_object(Scene *scene, Draws *d, int label, float light, int h, int w, int c)
{
    Piece *const object = &scene->piece[OBJECT], *const shadow = &scene->piece[SHADOW];
    const float size = (float)(h < w ? h : w), radius = size * uniform(d, 0.26f, 0.44f);
    const float room = 0.39f * size - 0.75f * radius;
    const float cx = 0.5f * (float)w + uniform(d, -room, room);
    const float cy = 0.5f * (float)h + uniform(d, -room, room);
    place(object, d, cx, cy, radius, 0.4f, uniform(d, 1, 1.6f));
    object->distance = class_rows[label];
    const float hue = uniform(d, 0, 6), saturation = uniform(d, 0.6f, 1);
    object->low = colour(light - 0.1f, hue, saturation, c);
    object->high = colour(light + 0.1f, hue, saturation, c);

    *shadow = *object;
    shadow->cx += 0.06f * size;
    shadow->cy += 0.06f * size;
    shadow->sharpness = radius / (0.14f * size);
    shadow->reach += 0.1f * size;
    shadow->opacity = 0.45f;
    shadow->low = shadow->high = (Colour){{0, 0, 0}};
}

// How hard the pictures are for a network without convolutions is set by the contrast, by the share
// of objects brighter than their background, and by compose_object's sizes, room to move and turn.
static void compose(Scene *scene, Draws *d, int label, int h, int w, int c)
{
    const float contrast = uniform(d, 0.28f, 0.6f); // in luminance
    const int bright = uniform(d, 0, 1) < 0.875f;
    const float dark = uniform(d, 0.1f, 0.9f - contrast);
    compose_background(scene, d, bright ? dark : dark + contrast, h, w, c);
    compose_object(scene, d, label, bright ? dark + contrast : dark, h, w, c);
    scene->grain = uniform(d, 0.3f, 1.5f);
}

typedef float Row[3][SYNTH_MAX_SIZE]; // one plane a channel, in 0..1

static void paint_background(Row row, const Scene *scene, float v, int w, int c)
{
    for (int k = 0; k < c; k++) {
        const float left = scene->origin.v[k] + v * scene->down.v[k];
        const float slope = scene->across.v[k] / (float)w;
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

// Noise for n <= 3 SYNTH_MAX_SIZE bytes of picture row `y`: a random byte's two digits in base 16
// add up to a triangular distribution, with mean 15 (taken off) and variance 42.5.
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
    Scene scene;
    compose(&scene, &draws, synth_label(seed, i), h, w, c);
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
                out[(ptrdiff_t)j * c] = (uint8_t)(int)min(max(value, 0), 255);
            }
        }
    }
}

void synth_mean_std(int c, float mean[4], float std[4])
{
    static const float means[2][3] = {{0.390f}, {0.394f, 0.388f, 0.397f}};
    static const float stds[2][3] = {{0.229f}, {0.255f, 0.251f, 0.258f}};
    for (int k = 0; k < c; k++) {
        mean[k] = means[c == 3][k];
        std[k] = stds[c == 3][k];
    }
}
