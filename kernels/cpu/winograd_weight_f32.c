// Winograd's weight gradient: dw = A' [sum over tiles of (B' x B) . (G dy G')] A.
//
//   A work item is a range of panels of GEMM_NR output channels and a part of the batch, whose
//   units, some rows of tiles each, it goes through in order:
//     v (36,tiles,cin), e (36,panels,tiles,GEMM_NR) = transformed x and dy
//     sums (36,panels,cin,GEMM_NR) += v^T e          for each point
//   and at last dw = transformed sums. The items follow from the shape, so that the sums do not
//   depend on the number of threads.
// Floor: 2 * 36 tiles cin cout FLOP over the rate of multiply-adds. Measured, in FLOP of a direct
// convolution: 1.4 to 2.1 times its rate; the table is at winograd_wins().
#include <omp.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/winograd.h"
#include "kernels/cpu/winograd_tile.h"

enum {
    UNIT_TILES = 64,           // with 240 tiles, 64 channels were 0.8 times as fast
    ITEM_FLOATS = 1280 * 1024, // of an item's sums
    DW_BLOCK = GEMM_NR,
    ITEMS = 32 // to share out, as far as the batch goes
};

typedef struct Work {
    ConvMap x, dy;
    WinoTiles tiles;
    ConvDims d;
    int64_t panels, total, units; // total: rows of tiles of the batch
    int64_t chunks, parts;        // of the panels, of the units
    int64_t v_row, v_point;       // floats from a tile to the next, from a point to the next
    int64_t e_panel, e_point;     // from a panel, from a point to the next
    int64_t sum_point, sum_part;  // from a point, from a part to the next
    float *sums;
    const int32_t *row;
} Work;

// What one thread works with.
typedef struct Own {
    float *strip, *v, *e;
} Own;

// Row of tiles `i` of the batch, the one at `tile` of its unit; panels first..end-1 of dy.
static void transform_row(const Work *work, Own own, int64_t i, int64_t tile, int64_t first,
                          int64_t end)
{
    const int64_t cin = work->d.cin, cout = work->d.cout, x_row = work->x.width * cin,
                  dy_row = work->dy.width * cout,
                  stop = end * GEMM_NR < cout ? end * GEMM_NR : cout;
    wino_strip(own.strip, &work->x, &work->tiles, i, WINO_TILE);
    for (int j = 0; j < work->tiles.tile_cols; j++) {
        float *const v = own.v + (tile + j) * work->v_row;
        for (int64_t k = 0; k < cin; k += VEC)
            wino_input_tile(v + k, work->v_point, own.strip + j * WINO_OUT * cin + k, x_row, cin);
    }
    wino_strip(own.strip, &work->dy, &work->tiles, i, WINO_OUT);
    for (int j = 0; j < work->tiles.tile_cols; j++) {
        for (int64_t k = first * GEMM_NR; k < stop; k += VEC) {
            const float *const dy = own.strip + j * WINO_OUT * cout + k;
            Vec g[WINO_OUT * WINO_OUT];
#pragma GCC unroll 16
            for (int t = 0; t < WINO_OUT * WINO_OUT; t++)
                g[t] = vec_load(dy + t / WINO_OUT * dy_row + t % WINO_OUT * cout);
            wino_kernel_tile(own.e + (k / GEMM_NR - first) * work->e_panel + (tile + j) * GEMM_NR +
                                 k % GEMM_NR,
                             work->e_point, g, WINO_OUT);
        }
    }
}

// Panels first..end-1 of a part's sums take in a unit.
static void add_unit(const Work *work, Own own, int64_t part, int64_t first, int64_t end,
                     int64_t tiles, bool add)
{
    const int64_t cin = work->d.cin, heights = div_up(cin, GEMM_MR);
    for (int64_t q = 0; q < WINO_POINTS; q++) {
        for (int64_t p = first; p < end; p++) {
            float *const sums =
                work->sums + part * work->sum_part + q * work->sum_point + p * cin * GEMM_NR;
            for (int64_t t = 0; t < heights; t++) {
                const int64_t from = part_start(cin, t, heights),
                              to = part_start(cin, t + 1, heights);
                gemm_tile_transposed(sums + from * GEMM_NR, GEMM_NR, add, (int)(to - from),
                                     (int)(work->d.cout - p * GEMM_NR),
                                     own.v + q * work->v_point + from, work->row, tiles,
                                     own.e + q * work->e_point + (p - first) * work->e_panel);
            }
        }
    }
}

static void work_item(const Work *work, Own own, int64_t item)
{
    const int64_t chunk = item % work->chunks, part = item / work->chunks,
                  first = part_start(work->panels, chunk, work->chunks),
                  end = part_start(work->panels, chunk + 1, work->chunks),
                  first_unit = part_start(work->units, part, work->parts),
                  end_unit = part_start(work->units, part + 1, work->parts);
    const int cols = work->tiles.tile_cols;
    for (int64_t u = first_unit; u < end_unit; u++) {
        const int64_t start = part_start(work->total, u, work->units),
                      stop = part_start(work->total, u + 1, work->units);
        for (int64_t i = start; i < stop; i++)
            transform_row(work, own, i, (i - start) * cols, first, end);
        add_unit(work, own, part, first, end, (stop - start) * cols, u > first_unit);
    }
}

// The points of one vector of sums, from all parts.
static void merge_parts(const Work *work, float *sums)
{
    for (int64_t part = 1; part < work->parts; part++) {
        for (int q = 0; q < WINO_POINTS; q++) {
            float *const to = sums + q * work->sum_point;
            vec_store(to, vec_load(to) + vec_load(to + part * work->sum_part));
        }
    }
}

// DW_BLOCK input channels from `c` on of panel `p`: dw (cout,3,3,cin) from the sums.
static void store_block(float *dw, const Work *work, int64_t p, int c, bool add)
{
    const ConvDims d = work->d;
    const int count = d.cin - c < DW_BLOCK ? d.cin - c : DW_BLOCK, channel = (int)p * GEMM_NR,
              n = d.cout - channel < GEMM_NR ? d.cout - channel : GEMM_NR;
    float taps[9][DW_BLOCK * GEMM_NR], turned[GEMM_NR * GEMM_NR];
    for (int i = 0; i < count; i++) {
        for (int j = 0; j < n; j += VEC) {
            Vec y[9];
            float *const sums = work->sums + (p * d.cin + c + i) * GEMM_NR + j;
            merge_parts(work, sums);
            wino_output_tile(y, sums, work->sum_point, 3);
            for (int t = 0; t < 9; t++) vec_store(taps[t] + i * GEMM_NR + j, y[t]);
        }
    }
    for (int t = 0; t < 9; t++) {
        gemm_pack_transposed(turned, taps[t], GEMM_NR, n, count);
        for (int j = 0; j < n; j++) {
            for (int i = 0; i < count; i += VEC) {
                float *const to = dw + ((int64_t)(channel + j) * 9 + t) * d.cin + c + i;
                const Vec value = vec_load(turned + j * GEMM_NR + i);
                vec_store_up_to(to, add ? vec_load_up_to(to, count - i) + value : value, count - i);
            }
        }
    }
}

static ConvMap tile_map(const float *x, int h, int w, int c, int before, int reach)
{
    const int width = before + w;
    return (ConvMap){.x = x,
                     .h = h,
                     .w = w,
                     .c = c,
                     .dilation = 1,
                     .before = before,
                     .width = width > reach ? width : reach};
}

void winograd_backward_weight(float *dw, const float *dy, const float *x, GradMode mode, ConvDims d)
{
    const int oh = conv_out(d.h, 3, 1, d.pad), ow = conv_out(d.w, 3, 1, d.pad);
    Work work = {.tiles = wino_tiles(oh, ow), .d = d, .panels = div_up(d.cout, GEMM_NR)};
    const int cols = work.tiles.tile_cols;
    work.x = tile_map(x, d.h, d.w, d.cin, d.pad, cols * WINO_OUT + 2);
    work.dy = tile_map(dy, oh, ow, d.cout, 0, cols * WINO_OUT);
    work.total = d.n * work.tiles.tile_rows;
    work.units = div_up(work.total, cols < UNIT_TILES ? UNIT_TILES / cols : 1);
    // Odd numbers of cache lines, so that neighbours do not share a set of the cache.
    work.sum_point = work.panels * d.cin * GEMM_NR + 16;
    work.sum_part = carved(WINO_POINTS * work.sum_point);
    work.chunks = div_up(work.sum_part, ITEM_FLOATS);
    if (work.chunks > work.panels) work.chunks = work.panels;
    work.parts = conv_parts(ITEMS, work.units, work.chunks, work.sum_part);
    const int64_t tiles = div_up(work.total, work.units) * cols; // of a unit
    work.v_row = div_up(d.cin, 32) * 32 + 16;
    work.v_point = tiles * work.v_row + 16;
    work.e_panel = tiles * GEMM_NR;
    work.e_point = div_up(work.panels, work.chunks) * work.e_panel + 16;
    const int64_t x_strip = WINO_TILE * (int64_t)work.x.width * d.cin,
                  dy_strip = WINO_OUT * (int64_t)work.dy.width * d.cout,
                  strip = carved((x_strip > dy_strip ? x_strip : dy_strip) + VEC),
                  v_size = carved(WINO_POINTS * work.v_point),
                  own_size = strip + v_size + carved(WINO_POINTS * work.e_point);
    float *scratch = cpu_scratch(
        (size_t)(work.parts * work.sum_part + carved(tiles + GEMM_AHEAD) + cpu_threads * own_size) *
        sizeof(float));
    if (!scratch) return;
    work.sums = carve(&scratch, work.parts * work.sum_part);
    int32_t *const row = (int32_t *)carve(&scratch, tiles + GEMM_AHEAD);
    for (int i = 0; i < tiles + GEMM_AHEAD; i++)
        row[i] = (int32_t)((i < tiles ? i : 0) * work.v_row);
    work.row = row;

#pragma omp parallel num_threads(cpu_threads)
    {
        float *const mine = scratch + omp_get_thread_num() * own_size;
        const Own own = {mine, mine + strip, mine + strip + v_size};
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < work.parts * work.chunks; i++) work_item(&work, own, i);
#pragma omp for schedule(static) collapse(2)
        for (int64_t p = 0; p < work.panels; p++)
            for (int c = 0; c < d.cin; c += DW_BLOCK) store_block(dw, &work, p, c, mode == ADD);
    }
}
