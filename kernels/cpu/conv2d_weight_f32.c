// Weight gradient of the convolution: dw = sum over pixels of dy^T (windows of x).
//
//   The matrix dw^T (kernel^2 cin, cout) is cut into tiles of GEMM_MR x GEMM_NR, which stay in
//   registers while the pixels of a unit run by: GEMM_MR values of x, one after the other in a row
//   of the window, are broadcast and multiplied with two vectors of dy. x is the zero padded copy,
//   so that no window is copied; dy is packed into a panel of GEMM_NR channels.
//
//   A work item is a range of tiles, for all channels of dy, and a part of the batch, whose units
//   it goes through in order; its sums stay in the L2 cache. The items follow from the shape, so
//   that the sums do not depend on the number of threads.
// Floor: 2 n oh ow cout kernel^2 cin FLOP over the rate of multiply-adds. Measured: 70 to 76%
// of it, 58% on 3x3 maps (bench/conv 100 1).
#include "kernels/cpu/conv2d_weight.h"

#include <omp.h>
#include <string.h>

#include "kernels/cpu/conv2d_units.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/winograd.h"

enum {
    BLOCK_PIXELS = 256,      // of a panel of dy, 32 KB of the L1 cache
    ITEM_FLOATS = 96 * 1024, // of an item's sums
    ITEMS = 32               // to share out, as far as the batch goes
};

typedef struct Work {
    const float *dy; // (n,oh,ow,cout) or, with argmax, (n,oh/2,ow/2,cout)
    const uint8_t *argmax;
    ConvMap map;
    ConvUnits units;
    ConvDims d;
    int64_t panels, tiles; // tiles of a panel
    int64_t row_tiles;     // tiles of a kernel row: their heights are nearly equal
    int64_t chunks, parts; // of the tiles, of the units
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
        gemm_pack(panel, 0, work->dy + unit->pixel * cout + channel, cout, unit->pixels, n);
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

// Tiles first..end-1 of a panel take in a unit's pixels.
static void add_panel(const Work *work, int64_t part, int64_t p, int64_t first, int64_t end,
                      bool add, const float *padded, const float *panel, int pixels)
{
    const int n = (int)(work->d.cout - p * GEMM_NR);
    const int64_t blocks = div_up(pixels, BLOCK_PIXELS);
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t from = part_start(pixels, b, blocks), to = part_start(pixels, b + 1, blocks);
        for (int64_t t = first; t < end; t++) {
            const int64_t row = t / work->row_tiles, i = t % work->row_tiles;
            const int start = tile_start(work, i);
            gemm_tile_transposed(sums_of(work, part, p, t), GEMM_NR, add || b > 0,
                                 tile_start(work, i + 1) - start, n,
                                 padded + row * work->map.width * work->map.c + start,
                                 work->offset + from, to - from, panel + from * GEMM_NR);
        }
    }
}

static void work_item(const Work *work, int64_t item, float *padded, float *panel)
{
    const int64_t chunk = item % work->chunks, part = item / work->chunks,
                  first_tile = part_start(work->tiles, chunk, work->chunks),
                  end_tile = part_start(work->tiles, chunk + 1, work->chunks),
                  first_unit = part_start(work->units.count, part, work->parts),
                  end_unit = part_start(work->units.count, part + 1, work->parts);
    for (int64_t u = first_unit; u < end_unit; u++) {
        const ConvUnit unit = conv_unit(&work->units, u);
        conv_pad(padded, &work->units, &unit, &work->map);
        for (int64_t p = 0; p < work->panels; p++) {
            pack_dy(panel, work, &unit, (int)p * GEMM_NR);
            add_panel(work, part, p, first_tile, end_tile, u > first_unit, padded, panel,
                      unit.pixels);
        }
    }
}

// dw (cout,kernel^2 cin) from the parts' sums of one tile.
static void store_tile(float *dw, const Work *work, int64_t p, int64_t t, bool add)
{
    const int64_t length = (int64_t)work->d.kernel * work->d.cin, k = work->d.kernel * length;
    const int channel = (int)p * GEMM_NR, left = work->d.cout - channel,
              n = left < GEMM_NR ? left : GEMM_NR, start = tile_start(work, t % work->row_tiles),
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

void conv_backward_weight(float *dw, const float *dy, const uint8_t *argmax, const float *x,
                          GradMode mode, ConvDims d)
{
    const ConvWindows windows = conv_windows(d, argmax != NULL);
    if (!argmax && winograd_wins(WINO_WEIGHT, windows, d.cin, d.cout)) {
        winograd_backward_weight(dw, dy, x, mode, d);
        return;
    }
    Work work = {.dy = dy, .argmax = argmax, .map = conv_map(x, d), .d = d};
    work.units = conv_units(&work.map, windows,
                            (ConvUnitSize){.pixels = CONV_PIXELS, .elements = CONV_L2_ELEMENTS});
    work.panels = div_up(d.cout, GEMM_NR);
    work.row_tiles = div_up((int64_t)d.kernel * d.cin, GEMM_MR);
    work.tiles = d.kernel * work.row_tiles;
    const int64_t size = work.panels * work.tiles * GEMM_MR * GEMM_NR; // of a part's sums
    work.chunks = div_up(size, ITEM_FLOATS);
    if (work.chunks > work.tiles) work.chunks = work.tiles;
    work.parts = conv_parts(ITEMS, work.units.count, work.chunks, size);

    const int64_t sums = work.parts * size,
                  padded = div_up(conv_padded_size(&work.units, &work.map), 16) * 16,
                  panel = (int64_t)work.units.max_pixels * GEMM_NR;
    float *scratch =
        cpu_scratch((size_t)(carved(sums) + carved(work.units.max_pixels + GEMM_AHEAD) +
                             cpu_threads * (padded + panel)) *
                    sizeof(float));
    if (!scratch) return;
    work.sums = carve(&scratch, sums);
    int32_t *const offset = (int32_t *)carve(&scratch, work.units.max_pixels + GEMM_AHEAD);
    memset(offset + work.units.max_pixels, 0, GEMM_AHEAD * sizeof *offset);
    conv_offsets(offset, &work.units, &work.map);
    work.offset = offset;

#pragma omp parallel num_threads(cpu_threads)
    {
        float *const own = scratch + omp_get_thread_num() * (padded + panel);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < work.parts * work.chunks; i++)
            work_item(&work, i, own, own + padded);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < work.panels * work.tiles; i++)
            store_tile(dw, &work, i / work.tiles, i % work.tiles, mode == ADD);
    }
}
