// Convolution, NHWC, forward and data gradient: both slide a kernel over a map.
//
//   For a unit (a few images, or a strip of one), which one thread does from its start to its end:
//     copy it with its zeros around it into scratch memory (L2)
//     for each panel of GEMM_NR output channels:
//       block (pixels,GEMM_NR) = windows x packed weights   gemm_*.c; a window is `kernel` runs of
//                                                           kernel * c values, so nothing is copied
//       pool, bias, statistics, activation on the block, then store it
//
// Data gradient: the same with flipped weights over dy, spread out where the stride was 2, or put
// back at the maxima of the pooling windows.
// Where winograd_wins() says so, Winograd's way takes the place of both (winograd.h); where
// conv_slide_amx() does, in bf16, AMX's (conv2d_amx_bf16.c).
// Floor: 2 n oh ow cout kernel^2 cin FLOP over the rate of multiply-adds. Measured: 78 to 92%
// of it on the 3x3 layers of the CIFAR network (bench/conv 100 1).
#include "kernels/cpu/conv2d.h"

#include <omp.h>
#include <string.h>

#include "kernels/cpu/norm.h"
#include "kernels/cpu/winograd.h"

enum {
    STRIP_PIXELS = 1024,        // of a unit of large images: what the L2 cache holds
    FEWEST_UNITS = 16,          // to share out among threads,
    FEWEST_PIXELS = 48,         // but none smaller than this
    MOST_SUMS = 8 * 1024 * 1024 // floats of all parts of a weight gradient
};

ConvUnits conv_units(const ConvMap *map, int64_t n, int rows, int width, int kernel, int stride,
                     bool pool, int unit_pixels, int64_t elements, bool strips)
{
    ConvUnits u = {.n = n,
                   .rows = rows,
                   .width = width,
                   .pool = pool,
                   .strips = 1,
                   .images = 1,
                   .kernel = kernel,
                   .stride = stride};
    if (pool) u.rows = rows / 2 * 2, u.width = width / 2 * 2;
    const int64_t pixels = (int64_t)u.rows * u.width,
                  image_size = ((int64_t)rows * stride + kernel) * map->width * map->c;
    if (strips) {
        const int needed = max_int(div_up(pixels, STRIP_PIXELS), div_up(image_size, elements)),
                  wanted = min_int(div_up(FEWEST_UNITS, n), pixels / FEWEST_PIXELS);
        u.strips = max_int(1, min_int(max_int(needed, wanted), u.rows >> pool));
    }
    if (u.strips == 1 && pixels > 0) {
        const int least = min_int(div_up(FEWEST_PIXELS, pixels), n),
                  most = min_int(unit_pixels / pixels, elements / image_size);
        u.images = max_int(least, min_int(most, n / FEWEST_UNITS));
    }
    const int64_t groups = div_up(n, u.images);
    u.images = (int)div_up(n, groups);
    u.count = groups * u.strips;
    u.unit_rows = (int)div_up(u.rows >> pool, u.strips) << pool;
    u.padded_rows = (u.unit_rows - 1) * stride + kernel;
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

// Windows first..end-1 of the block become their maxima, from the block's front on; one vector of
// channels.
static void pool_rows(const ConvTarget *t, float *c, int channel, int first, int end)
{
    typedef uint8_t Bytes __attribute__((vector_size(VEC)));
    const int64_t channels = t->o->channels, window = t->pixel ? 1 : 4,
                  pixel = t->pixel ? t->pixel : 1;
    const size_t count = (size_t)min_int(channels - channel, VEC);
    for (int i = first; i < end; i++) {
        const float *const from = c + i * window * GEMM_NR;
        Vec best = vec_load(from);
        VecInt at = {0};
        for (int j = 1; j < 4; j++) {
            const Vec v = vec_load(from + j * pixel * GEMM_NR);
            const VecInt larger = ((v > best) | (v != v)) & (best == best); // as in pool.c
            best = vec_select(larger, v, best);
            at = (larger & j) | (~larger & at);
        }
        vec_store(c + i * GEMM_NR, best);
        if (!t->o->argmax) continue;
        const Bytes bytes = __builtin_convertvector(at, Bytes);
        uint8_t *const to =
            t->o->argmax + (t->row + (t->place ? t->place[i] : i)) * channels + channel;
        if (count == VEC)
            memcpy(to, &bytes, VEC);
        else
            memcpy(to, &bytes, count);
    }
}

// Rows first..end-1, where y is the values themselves; VEC + `second` channels, or fewer than VEC.
INLINE void store_plain_rows(const ConvTarget *t, float *c, int first, int end, const int second)
{
    const ConvOutput o = *t->o;
    const bool two = second > 0;
    const int one = two ? VEC : VEC + second;
    const float *const b = o.bias ? o.bias + t->channel : NULL;
    const Vec bias0 = b ? vec_load_up_to(b, one) : (Vec){0},
              bias1 = b && two ? vec_load_up_to(b + VEC, second) : (Vec){0};
    for (int i = first; i < end; i++) {
        float *const row = c + i * GEMM_NR;
        const Vec v0 = vec_load(row) + bias0, v1 = vec_load(row + VEC) + bias1;
        Element *const to = o.y + (t->row + (t->place ? t->place[i] : i)) * o.channels + t->channel;
        if (o.stats && b) vec_store(row, v0), vec_store(row + VEC, v1);
        elem_store_up_to(to, v0, one);
        if (two) elem_store_up_to(to + VEC, v1, second);
    }
}

// One vector of channels of these rows, with any output there is.
static void store_rows(const ConvTarget *t, float *c, int channel, int first, int end)
{
    const ConvOutput o = *t->o;
    const int count = o.channels - channel;
    const Vec bias = o.bias ? vec_load_up_to(o.bias + channel, count) : (Vec){0},
              mean = o.mean ? vec_load_up_to(o.mean + channel, count) : (Vec){0},
              scale = o.mean ? vec_load_up_to(o.scale + channel, count) : vec_set(1.0f);
    for (int i = first; i < end; i++) {
        const Vec v = (vec_load(c + i * GEMM_NR) - mean) * scale + bias;
        const int64_t to = (t->row + (t->place ? t->place[i] : i)) * o.channels + channel;
        if (o.stats) vec_store(c + i * GEMM_NR, v);
        if (o.z) elem_store_up_to(o.z + to, v, count);
        elem_store_up_to(o.y + to, vec_act(o.act, v), count);
    }
}

void conv_finish(void *context, float *c, int first, int end)
{
    const ConvTarget t = *(const ConvTarget *)context; // copies stay in registers
    const ConvOutput *const o = t.o;
    const int channels = min_int(o->channels - t.channel, GEMM_NR);
    if (o->pool) {
        first /= 4, end /= 4; // the windows that are complete now
        for (int j = 0; j < channels; j += VEC) pool_rows(&t, c + j, t.channel + j, first, end);
    }
    const bool plain = !o->z && !o->mean && o->act == ACT_NONE;
    if (plain && channels == GEMM_NR)
        store_plain_rows(&t, c, first, end, VEC);
    else if (plain)
        store_plain_rows(&t, c, first, end, channels - VEC);
    for (int j = 0; j < channels && !plain; j += VEC)
        store_rows(&t, c + j, t.channel + j, first, end);
}

// Chan's formula for one vector of channels: m2 are sums of squared deviations from the mean.
INLINE void merge_stats(Vec *mean, Vec *m2, int64_t count, Vec more_mean, Vec more_m2, int64_t more)
{
    const Vec delta = more_mean - *mean;
    const float all = (float)(count + more);
    *mean += delta * ((float)more / all);
    *m2 += more_m2 + delta * delta * ((float)count * (float)more / all);
}

// In two passes since the block is in the cache. CHAINS sums run side by side because one waits for
// its last addition.
void conv_add_stats(float *mean, float *m2, int64_t count, const float *c, int rows)
{
    enum { CHAINS = 4 };
    Vec sum[2][CHAINS] = {0}, square[2][CHAINS] = {0}, average[2];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < 2; j++) sum[j][i % CHAINS] += vec_load(c + i * GEMM_NR + j * VEC);
    for (int j = 0; j < 2; j++)
        average[j] = ((sum[j][0] + sum[j][1]) + (sum[j][2] + sum[j][3])) / (float)rows;
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < 2; j++) {
            const Vec delta = vec_load(c + i * GEMM_NR + j * VEC) - average[j];
            square[j][i % CHAINS] += delta * delta;
        }
    }
    for (int j = 0; j < 2; j++, mean += VEC, m2 += VEC) {
        Vec all = count ? vec_load(mean) : (Vec){0}, squares = count ? vec_load(m2) : all;
        merge_stats(&all, &squares, count, average[j],
                    (square[j][0] + square[j][1]) + (square[j][2] + square[j][3]), rows);
        vec_store(mean, all);
        vec_store(m2, squares);
    }
}

void conv_merge_stats(const ConvOutput *o, int64_t units, const int32_t *counts,
                      const float *unit_stats)
{
    const int64_t padded = div_up(o->channels, GEMM_NR) * GEMM_NR;
#pragma omp for schedule(static)
    for (int j = 0; j < o->channels; j += VEC) {
        Vec mean = {0}, m2 = {0};
        int64_t count = 0;
        for (int64_t i = 0; i < units; i++) { // in their order
            merge_stats(&mean, &m2, count, vec_load(unit_stats + 2 * i * padded + j),
                        vec_load(unit_stats + (2 * i + 1) * padded + j), counts[i]);
            count += counts[i];
        }
        const int left = o->channels - j;
        vec_store_up_to(o->stats + j, vec_set((float)count), left);
        vec_store_up_to(o->stats + o->channels + j, mean, left);
        vec_store_up_to(o->stats + 2 * o->channels + j, m2, left);
    }
}

void conv_pack_weights(Element *panel, const Element *w, bool flipped, ConvDims d, int segments,
                       int channel)
{
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

// Slides the kernel with `stride` over `map`, for rows x width outputs an image.
static void slide(const ConvOutput *o, const ConvMap *map, const Element *w, bool flipped,
                  int stride, int rows, int width, bool pool, ConvDims d)
{
    if (!CPU_BF16 && winograd_wins(WINO_SLIDE, d.kernel, stride, d.n, map->c, o->channels,
                                   pool ? rows / 2 * 2 : rows, pool ? width / 2 * 2 : width)) {
        winograd_slide(o, map, w, flipped, rows, width, pool, d);
        return;
    }
    if (CPU_BF16 && conv_slide_amx(o, map, w, flipped, stride, rows, width, pool, d)) return;
    const ConvUnits u = conv_units(map, d.n, rows, width, d.kernel, stride, pool, CONV_PIXELS,
                                   CONV_L2_ELEMENTS, true);
    const GemmAxis windows = {d.kernel, (int64_t)d.kernel * map->c, (int64_t)map->width * map->c};
    const int64_t panels = div_up(o->channels, GEMM_NR),
                  panel_size = carved_elements(gemm_panel_size(windows)),
                  stats_size = o->stats ? 2 * panels * GEMM_NR : 0,
                  block_size = (int64_t)u.max_pixels * GEMM_NR,
                  own_size = block_size + carved_elements(conv_padded_size(&u, map));
    float *scratch =
        cpu_scratch((size_t)(panels * panel_size + 2 * carved(u.max_pixels) + carved(u.count) +
                             carved(u.count * stats_size) + cpu_threads * own_size) *
                    sizeof(float));
    if (!scratch) return;
    float *const weights = carve(&scratch, panels * panel_size);
    float *const unit_stats = carve(&scratch, u.count * stats_size);
    int32_t *const counts = (int32_t *)carve(&scratch, u.count); // of the statistics
    int32_t *const offset = (int32_t *)carve(&scratch, u.max_pixels);
    int32_t *const run = (int32_t *)carve(&scratch, u.max_pixels);
    const int interleave = pool ? 4 : 1;
    conv_offsets(offset, &u, map);
    gemm_runs(run, offset, u.max_pixels, interleave);

#pragma omp parallel num_threads(cpu_threads)
    {
        float *const block = scratch + omp_get_thread_num() * own_size;
        Element *const padded = (Element *)(block + block_size);
#pragma omp for schedule(static)
        for (int64_t p = 0; p < panels; p++)
            conv_pack_weights((Element *)(weights + p * panel_size), w, flipped, d, d.kernel,
                              (int)p * GEMM_NR);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < u.count; i++) {
            const ConvUnit unit = conv_unit(&u, i);
            const GemmRows unit_rows = {offset, run, unit.pixels, interleave};
            counts[i] = unit.pixels >> 2 * pool;
            conv_pad(padded, &u, &unit, map);
            for (int64_t p = 0; p < panels; p++) {
                const int channel = (int)p * GEMM_NR;
                ConvTarget target = {.o = o, .row = unit.pixel >> 2 * pool, .channel = channel};
                gemm_block(block, min_int(o->channels - channel, GEMM_NR), padded, unit_rows,
                           windows, (const Element *)(weights + p * panel_size), conv_finish,
                           &target);
                if (o->stats) {
                    float *const stats = unit_stats + i * stats_size + channel;
                    conv_add_stats(stats, stats + panels * GEMM_NR, 0, block, counts[i]);
                }
            }
        }
        if (o->stats) conv_merge_stats(o, u.count, counts, unit_stats);
    }
}

static void forward(const ConvOutput *o, const Element *x, const Element *w, ConvDims d)
{
    const ConvMap map = {.x = x,
                         .h = d.h,
                         .w = d.w,
                         .c = d.cin,
                         .dilation = 1,
                         .before = d.pad,
                         .width = d.w + 2 * d.pad};
    slide(o, &map, w, false, d.stride, conv_out(d.h, d.kernel, d.stride, d.pad),
          conv_out(d.w, d.kernel, d.stride, d.pad), o->pool, d);
}

static void conv2d_forward(void *y, void *z, float *stats, const void *x, const void *w,
                           const float *bias, Activation act, ConvDims d)
{
    const ConvOutput o = {
        .y = y, .z = z, .stats = stats, .bias = bias, .act = act, .channels = d.cout};
    forward(&o, x, w, d);
}

static void conv2d_pool_forward(void *y, uint8_t *argmax, float *stats, const void *x,
                                const void *w, const float *bias, Activation act, ConvDims d)
{
    const ConvOutput o = {.y = y,
                          .pool = true,
                          .argmax = argmax,
                          .stats = stats,
                          .bias = bias,
                          .act = act,
                          .channels = d.cout};
    if (!CPU_BF16 && conv_pool_forward_grey(&o, (const float *)x, (const float *)w, d)) return;
    forward(&o, x, w, d);
}

static void norm_inference(void *y, const Norm *n, const void *x, const void *w, bool pool,
                           Activation act, ConvDims d)
{
    cpu_nested(true); // beside the convolution's
    float *const scale = cpu_scratch((size_t)d.cout * sizeof *scale);
    cpu_nested(false);
    if (scale) norm_running_scale(scale, n, d.cout);
    const ConvOutput o = {.y = y,
                          .pool = pool,
                          .mean = n->running_mean,
                          .scale = scale,
                          .bias = n->bias,
                          .act = act,
                          .channels = d.cout};
    forward(&o, x, w, d);
}

static void conv2d_norm_inference(void *y, const Norm *n, const void *x, const void *w,
                                  Activation act, ConvDims d)
{
    norm_inference(y, n, x, w, false, act, d);
}

static void conv2d_pool_norm_inference(void *y, const Norm *n, const void *x, const void *w,
                                       Activation act, ConvDims d)
{
    norm_inference(y, n, x, w, true, act, d);
}

void conv_backward_data(Element *dx, const Element *dy, const uint8_t *argmax, const Element *w,
                        ConvDims d)
{
    const int oh = conv_out(d.h, d.kernel, d.stride, d.pad),
              ow = conv_out(d.w, d.kernel, d.stride, d.pad);
    const ConvMap map = {.x = dy,
                         .argmax = argmax,
                         .h = argmax ? oh / 2 : oh,
                         .w = argmax ? ow / 2 : ow,
                         .c = d.cout,
                         .dilation = d.stride,
                         .before = d.kernel - 1 - d.pad,
                         .width = d.w + d.kernel - 1};
    const ConvOutput o = {.y = dx, .channels = d.cin};
    slide(&o, &map, w, true, 1, d.h, d.w, false, d);
}

static void conv2d_backward_data(void *dx, const void *dy, const void *w, ConvDims d)
{
    conv_backward_data(dx, dy, NULL, w, d);
}

// The convolution's gradient goes through memory: most ways to compute it finish in other orders
// than the sums are made in.
static void conv2d_norm_backward_data(void *dz, const Norm *n, const void *dy, const void *w,
                                      const void *x, Activation act, ConvDims d)
{
    conv_backward_data(dz, dy, NULL, w, d);
    norm_backward_dz(dz, n, dz, x, act, (MapDims){d.n * d.h * d.w, d.cin});
}

static void conv2d_pool_norm_backward_data(void *dz, const Norm *n, const void *dy,
                                           const uint8_t *argmax, const void *w, const void *x,
                                           Activation act, ConvDims d)
{
    conv_pool_backward_data(dz, dy, argmax, w, d);
    norm_backward_dz(dz, n, dz, x, act, (MapDims){d.n * d.h * d.w, d.cin});
}

static void conv2d_backward_weight(float *dw, const void *dy, const void *x, GradMode mode,
                                   ConvDims d)
{
    conv_backward_weight(dw, dy, NULL, x, mode, d);
}

void cpu_conv2d_ops(Kernels *k)
{
    k->conv2d_forward = conv2d_forward;
    k->conv2d_pool_forward = conv2d_pool_forward;
    k->conv2d_backward_data = conv2d_backward_data;
    k->conv2d_backward_weight = conv2d_backward_weight;
    k->conv2d_norm_backward_data = conv2d_norm_backward_data;
    k->conv2d_pool_norm_backward_data = conv2d_pool_norm_backward_data;
    k->conv2d_norm_inference = conv2d_norm_inference;
    k->conv2d_pool_norm_inference = conv2d_pool_norm_inference;
}
