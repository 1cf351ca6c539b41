// The batch cut into units, their zero padded copies, and the weights as panels.
#include "kernels/cpu/conv2d_units.h"

#include <string.h>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/integer.h"

enum {
    STRIP_PIXELS = 1024,        // of a unit of large images: what the L2 cache holds
    FEWEST_UNITS = 16,          // to share out among threads,
    FEWEST_PIXELS = 48,         // but none smaller than this
    MOST_SUMS = 8 * 1024 * 1024 // floats of all parts of a weight gradient
};

ConvMap conv_map(const Element *x, ConvDims d)
{
    return (ConvMap){.x = x,
                     .h = d.h,
                     .w = d.w,
                     .c = d.cin,
                     .dilation = 1,
                     .before = d.pad,
                     .width = d.w + 2 * d.pad};
}

ConvWindows conv_windows(ConvDims d, bool pool)
{
    return (ConvWindows){.n = d.n,
                         .rows = conv_out(d.h, d.kernel, d.stride, d.pad),
                         .width = conv_out(d.w, d.kernel, d.stride, d.pad),
                         .kernel = d.kernel,
                         .stride = d.stride,
                         .pool = pool};
}

ConvUnits conv_units(const ConvMap *map, ConvWindows w, ConvUnitSize size)
{
    ConvUnits u = {.n = w.n,
                   .rows = w.pool ? w.rows / 2 * 2 : w.rows,
                   .width = w.pool ? w.width / 2 * 2 : w.width,
                   .pool = w.pool,
                   .strips = 1,
                   .images = 1,
                   .kernel = w.kernel,
                   .stride = w.stride};
    const int64_t pixels = (int64_t)u.rows * u.width,
                  image_size = ((int64_t)w.rows * w.stride + w.kernel) * map->width * map->c;
    if (!size.whole_images) {
        const int needed = max_int(div_up(pixels, STRIP_PIXELS), div_up(image_size, size.elements)),
                  wanted = min_int(div_up(FEWEST_UNITS, w.n), pixels / FEWEST_PIXELS);
        u.strips = max_int(1, min_int(max_int(needed, wanted), u.rows >> w.pool));
    }
    if (u.strips == 1 && pixels > 0) {
        const int least = min_int(div_up(FEWEST_PIXELS, pixels), w.n),
                  most = min_int(size.pixels / pixels, size.elements / image_size);
        u.images = max_int(least, min_int(most, w.n / FEWEST_UNITS));
    }
    const int64_t groups = div_up(w.n, u.images);
    u.images = (int)div_up(w.n, groups);
    u.count = groups * u.strips;
    u.unit_rows = (int)div_up(u.rows >> w.pool, u.strips) << w.pool;
    u.padded_rows = (u.unit_rows - 1) * w.stride + w.kernel;
    u.max_pixels = u.images * u.unit_rows * u.width;
    return u;
}

ConvUnit conv_unit(const ConvUnits *u, int64_t index)
{
    const int64_t group = index / u->strips, groups = u->count / u->strips,
                  strip = index % u->strips;
    ConvUnit unit = {.image = part_start(u->n, group, groups)};
    unit.images = (int)(part_start(u->n, group + 1, groups) - unit.image);
    unit.row = (int)part_start(u->rows >> u->pool, strip, u->strips) << u->pool;
    unit.rows = ((int)part_start(u->rows >> u->pool, strip + 1, u->strips) << u->pool) - unit.row;
    unit.pixels = unit.images * unit.rows * u->width;
    unit.pixel = (unit.image * u->rows + unit.row) * u->width;
    return unit;
}

static int64_t zeros_behind(const ConvMap *map)
{
    return map->c + 32;
}

int64_t conv_padded_size(const ConvUnits *u, const ConvMap *map)
{
    return (int64_t)u->images * u->padded_rows * map->width * map->c + zeros_behind(map);
}

int64_t conv_parts(int64_t items, int64_t units, int64_t chunks, int64_t size)
{
    int64_t parts = div_up(items, chunks);
    if (parts > MOST_SUMS / size) parts = MOST_SUMS / size;
    if (parts > units / 2) parts = units / 2;
    return parts > 1 ? parts : 1;
}

void conv_offsets(int32_t *offset, const ConvUnits *u, const ConvMap *map)
{
    const int image_pixels = u->unit_rows * u->width;
    for (int i = 0; i < u->max_pixels; i++) {
        const int image = i / image_pixels, at = i % image_pixels;
        int row = at / u->width, column = at % u->width;
        if (u->pool) {
            const int window = at / 4, per_row = u->width / 2;
            row = window / per_row * 2 + at % 4 / 2;
            column = window % per_row * 2 + at % 2;
        }
        offset[i] =
            ((image * u->padded_rows + row * u->stride) * map->width + column * u->stride) * map->c;
    }
}

static void zero(Element *to, int64_t n)
{
    memset(to, 0, (size_t)n * sizeof *to);
}

// One row (w,c) of a map into the padded row, `step` elements from a pixel to the next.
static void spread_row(Element *to, const Element *x, int64_t step, int w, int c)
{
    for (int j = 0; j < w; j++) memcpy(to + j * step, x + j * c, (size_t)c * sizeof *to);
}

// The same of the upper (odd 0) or lower row of the windows that a pooled row came from.
static void unpool_row(Element *to, const Element *x, const uint8_t *argmax, int odd, int64_t step,
                       int w, int c)
{
    for (int j = 0; j < w; j++, to += 2 * step, x += c, argmax += c) {
        for (int i = 0; i < c; i++) to[i] = argmax[i] == 2 * odd ? x[i] : 0;
        for (int i = 0; i < c; i++) to[step + i] = argmax[i] == 2 * odd + 1 ? x[i] : 0;
    }
}

void conv_pad_row(Element *to, const ConvMap *m, int64_t image, int row)
{
    const int c = m->c, from = row - m->before, scale = m->argmax ? 2 : 1,
              i = from / m->dilation; // row of the map
    if (from < 0 || from % m->dilation || i >= m->h * scale) {
        zero(to, (int64_t)m->width * c);
        return;
    }
    const int64_t source = (image * m->h + i / scale) * m->w * c, step = (int64_t)m->dilation * c;
    const int end = m->dilation > 1 ? 0 : m->before + m->w * scale;
    zero(to, (int64_t)m->before * c);
    zero(to + end * c, (int64_t)(m->width - end) * c); // all of the row when it is dilated
    to += m->before * c;
    if (m->argmax)
        unpool_row(to, m->x + source, m->argmax + source, i % 2, step, m->w, c);
    else if (m->dilation > 1)
        spread_row(to, m->x + source, step, m->w, c);
    else
        memcpy(to, m->x + source, (size_t)(m->w * c) * sizeof *to);
}

void conv_pad(Element *padded, const ConvUnits *u, const ConvUnit *unit, const ConvMap *map)
{
    const int rows = (unit->rows - 1) * u->stride + u->kernel;
    const int64_t row_size = (int64_t)map->width * map->c;
    for (int i = 0; i < unit->images; i++) {
        for (int r = 0; r < rows; r++)
            conv_pad_row(padded + (i * u->padded_rows + r) * row_size, map, unit->image + i,
                         unit->row * u->stride + r);
    }
    zero(padded + ((int64_t)(unit->images - 1) * u->padded_rows + rows) * row_size,
         zeros_behind(map));
}

void conv_pack_weights(Element *panel, const ConvSlide *s, int segments, int channel)
{
    const ConvDims d = s->d;
    const Element *const w = s->w;
    const bool flipped = s->flipped;
    const int left = (flipped ? d.cin : d.cout) - channel, n = left < GEMM_NR ? left : GEMM_NR,
              taps = d.kernel * d.kernel, each = taps / segments; // taps of a segment
    const int64_t k = (int64_t)taps * d.cin, length = (int64_t)each * d.cin,
                  segment = gemm_padded((int64_t)each * (flipped ? d.cout : d.cin)) * GEMM_NR;
    for (int i = 0; i < segments && !flipped; i++)
        gemm_pack_transposed(panel + i * segment, w + channel * k + i * length, k, length, n);
    for (int t = 0; t < taps && flipped; t++)
        gemm_pack(panel + t / each * segment, (int64_t)(t % each) * d.cout,
                  w + (taps - 1 - t) * d.cin + channel, k, d.cout, n);
}
