// Weight gradient of the convolution: dw = sum over pixels of dy^T (windows of x).
//
//   The matrix dw^T (kernel^2 cin, cout) is cut into tiles of GEMM_MR x GEMM_NR, which stay in
//   registers while the pixels of a unit run by: GEMM_MR values of x, one after the other in a row
//   of the window, are broadcast and multiplied with two vectors of dy. x is the zero padded copy,
//   so that no window is copied; dy is packed into a panel of GEMM_NR channels.
//
//   A work item is a panel, a range of its tiles and, where those are few, a part of the batch: it
//   goes through its units in order. The items follow from the shape, so that the sums do not
//   depend on the number of threads.
// Floor: 2 n oh ow cout kernel^2 cin FLOP over the rate of multiply-adds.
#include "kernels/cpu/conv2d.h"

#include <omp.h>
#include <string.h>

enum {
    BLOCK_PIXELS = 256, // of a panel of dy, 32 KB of the L1 cache
    ITEM_TILES = 48,
    FEWEST_ITEMS = 16
};

typedef struct Work {
    const float *dy; // (n,oh,ow,cout) or, with argmax, (n,oh/2,ow/2,cout)
    const uint8_t *argmax;
    ConvMap map;
    ConvUnits units;
    ConvDims d;
    int64_t panels, tiles; // tiles of a panel
    int64_t row_tiles;     // tiles of a kernel row: their heights are nearly equal
    int64_t chunks, parts; // of a panel's tiles, of the units
    const int32_t *offset;
    float *sums; // (parts,panels,tiles,GEMM_MR,GEMM_NR)
} Work;

static float *sums_of(const Work *work, int64_t part, int64_t panel, int64_t tile)
{
    return work->sums + ((part * work->panels + panel) * work->tiles + tile) * GEMM_MR * GEMM_NR;
}

// The first of the tile's values in its kernel row.
static int tile_start(const Work *work, int64_t i)
{
    return (int)part_start((int64_t)work->d.kernel * work->d.cin, i, work->row_tiles);
}

// The panel (pixels,GEMM_NR) of a unit's dy, channels from `channel` on, each pooled value at its
// place of the four.
static void pack_dy(float *panel, const Work *work, const ConvUnit *unit, int channel)
{
    const int cout = work->d.cout, left = cout - channel, n = left < GEMM_NR ? left : GEMM_NR;
    if (!work->argmax) {
        gemm_pack(panel, work->dy + unit->pixel * cout + channel, cout, unit->pixels, n);
        return;
    }
    const int64_t first = unit->pixel / 4 * cout + channel;
    if (n < GEMM_NR) memset(panel, 0, (size_t)unit->pixels * GEMM_NR * sizeof(float));
    for (int i = 0; i < unit->pixels / 4; i++) {
        const float *const dy = work->dy + first + (int64_t)i * cout;
        const uint8_t *const argmax = work->argmax + first + (int64_t)i * cout;
        for (int q = 0; q < 4; q++) {
            float *const to = panel + (4 * i + q) * GEMM_NR;
            for (int j = 0; j < n; j++) to[j] = argmax[j] == q ? dy[j] : 0.0f;
        }
    }
}

static void work_item(const Work *work, int64_t item, float *padded, float *panel)
{
    const int64_t chunk = item % work->chunks, p = item / work->chunks % work->panels,
                  part = item / work->chunks / work->panels;
    const int64_t first_unit = part_start(work->units.count, part, work->parts);
    const int channel = (int)p * GEMM_NR, left = work->d.cout - channel;
    for (int64_t u = first_unit; u < part_start(work->units.count, part + 1, work->parts); u++) {
        const ConvUnit unit = conv_unit(&work->units, u);
        conv_pad(padded, &work->units, &unit, &work->map);
        pack_dy(panel, work, &unit, channel);
        const int64_t blocks = div_up(unit.pixels, BLOCK_PIXELS);
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t from = part_start(unit.pixels, b, blocks),
                          to = part_start(unit.pixels, b + 1, blocks);
            for (int64_t t = part_start(work->tiles, chunk, work->chunks);
                 t < part_start(work->tiles, chunk + 1, work->chunks); t++) {
                const int64_t row = t / work->row_tiles, i = t % work->row_tiles;
                const int start = tile_start(work, i), end = tile_start(work, i + 1);
                gemm_tile_transposed(sums_of(work, part, p, t), u > first_unit || b > 0,
                                     end - start, left,
                                     padded + row * work->map.width * work->map.c + start,
                                     work->offset + from, to - from, panel + from * GEMM_NR);
            }
        }
    }
}

// dw (cout,kernel^2 cin) from the parts' sums of one panel.
static void store_panel(float *dw, const Work *work, int64_t p, bool add)
{
    const int64_t length = (int64_t)work->d.kernel * work->d.cin, k = work->d.kernel * length;
    const int channel = (int)p * GEMM_NR, left = work->d.cout - channel,
              n = left < GEMM_NR ? left : GEMM_NR;
    for (int64_t t = 0; t < work->tiles; t++) {
        const int start = tile_start(work, t % work->row_tiles),
                  rows = tile_start(work, t % work->row_tiles + 1) - start;
        float *const sum = sums_of(work, 0, p, t);
        for (int64_t part = 1; part < work->parts; part++) {
            const float *const more = sums_of(work, part, p, t);
            for (int i = 0; i < rows * GEMM_NR; i++) sum[i] += more[i];
        }
        float *const to = dw + channel * k + t / work->row_tiles * length + start;
        for (int j = 0; j < n; j++) {
            for (int i = 0; i < rows; i++) {
                const float value = sum[i * GEMM_NR + j];
                to[j * k + i] = add ? to[j * k + i] + value : value;
            }
        }
    }
}

static void backward_weight(float *dw, const float *dy, const uint8_t *argmax, const float *x,
                            GradMode mode, ConvDims d)
{
    Work work = {.dy = dy, .argmax = argmax, .d = d};
    work.map = (ConvMap){.x = x,
                         .h = d.h,
                         .w = d.w,
                         .c = d.cin,
                         .dilation = 1,
                         .before = d.pad,
                         .width = d.w + 2 * d.pad};
    work.units =
        conv_units(&work.map, d.n, conv_out(d.h, d.kernel, d.stride, d.pad),
                   conv_out(d.w, d.kernel, d.stride, d.pad), d.kernel, d.stride, argmax != NULL);
    work.panels = div_up(d.cout, GEMM_NR);
    work.row_tiles = div_up((int64_t)d.kernel * d.cin, GEMM_MR);
    work.tiles = d.kernel * work.row_tiles;
    work.chunks = div_up(work.tiles, ITEM_TILES);
    work.parts = div_up(FEWEST_ITEMS, work.panels * work.chunks);
    if (work.parts > work.units.count) work.parts = work.units.count;

    const int64_t sums = work.parts * work.panels * work.tiles * GEMM_MR * GEMM_NR,
                  padded = div_up(conv_padded_size(&work.units, &work.map), 16) * 16,
                  panel = (int64_t)work.units.max_pixels * GEMM_NR;
    float *scratch = cpu_scratch(
        (size_t)(sums + div_up(work.units.max_pixels, 16) * 16 + cpu_threads * (padded + panel)) *
        sizeof(float));
    if (!scratch) return;
    work.sums = carve(&scratch, sums);
    int32_t *const offset = (int32_t *)carve(&scratch, work.units.max_pixels);
    conv_offsets(offset, &work.units, &work.map);
    work.offset = offset;

#pragma omp parallel num_threads(cpu_threads)
    {
        float *const own = scratch + omp_get_thread_num() * (padded + panel);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < work.parts * work.panels * work.chunks; i++)
            work_item(&work, i, own, own + padded);
#pragma omp for schedule(static)
        for (int64_t p = 0; p < work.panels; p++) store_panel(dw, &work, p, mode == ADD);
    }
}

static void conv2d_backward_weight(float *dw, const void *dy, const void *x, GradMode mode,
                                   ConvDims d)
{
    backward_weight(dw, dy, NULL, x, mode, d);
}

static void conv2d_pool_backward_weight(float *dw, const void *dy, const uint8_t *argmax,
                                        const void *x, GradMode mode, ConvDims d)
{
    backward_weight(dw, dy, argmax, x, mode, d);
}

void cpu_conv2d_weight_ops(Kernels *k)
{
    k->conv2d_backward_weight = conv2d_backward_weight;
    k->conv2d_pool_backward_weight = conv2d_pool_backward_weight;
}
