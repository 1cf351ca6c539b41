// Winograd's convolution, forward and data gradient.
//
//   For a unit (some rows of tiles), which one thread does from its start to its end:
//     v (36,tiles,c) = transformed input (L2)
//     for each panel of GEMM_NR output channels:
//       for each point: m (tiles,GEMM_NR) = v x transformed weights      gemm_f32.c
//       block (pixels,GEMM_NR) = transformed m, and conv_finish()
//
// Floor: 2 * 36 tiles cin cout FLOP over the rate of multiply-adds. Measured, in FLOP of a direct
// convolution: 1.2 to 2.3 times its rate; the table is at winograd_wins().
#include "kernels/cpu/winograd.h"

#include <omp.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/winograd_tile.h"

enum {
    UNIT_TILES = 48,   // v of a unit of 64 channels is 440 KB: it and a panel's weights fit in L2
    FEWEST_UNITS = 16, // to share out among threads
    WEIGHT_BLOCK = VEC
};

typedef struct Work {
    const ConvOutput *o;
    ConvMap map;
    WinoTiles tiles;
    int pool; // 0 or 1
    ConvDims d;
    const float *w;
    bool flipped;
    int64_t total, units; // rows of tiles: of the batch; units they are cut into
    int64_t panels, u_size;
    int64_t v_row, v_point, m_point; // floats from a tile to the next, from a point to the next
    float *u;                        // (panels,36,c,GEMM_NR)
    const int32_t *row;
    int32_t *counts;   // (units) of the statistics
    float *unit_stats; // (units,2,panels*GEMM_NR), NULL: none
} Work;

// What one thread works with.
typedef struct Own {
    float *strip, *v, *m, *block;
} Own;

// WEIGHT_BLOCK input channels from c on of the panel `p` of transformed weights. Flipped, w has the
// panel's channels side by side; otherwise the input's, and the result is transposed.
static void transform_weights(const Work *work, int64_t p, int c)
{
    const ConvDims d = work->d;
    const int channel = (int)p * GEMM_NR, left = work->o->channels - channel,
              n = min_int(left, GEMM_NR), count = min_int(work->map.c - c, WEIGHT_BLOCK);
    const int64_t point = (int64_t)work->map.c * GEMM_NR;
    float *const panel = work->u + p * work->u_size + c * GEMM_NR;
    Vec g[9];
    for (int i = 0; i < count && work->flipped; i++) {
        for (int j = 0; j < n; j += VEC) {
            const float *const w = work->w + (int64_t)(c + i) * 9 * d.cin + channel + j;
            for (int t = 0; t < 9; t++) g[t] = vec_load_up_to(w + (8 - t) * d.cin, n - j);
            wino_kernel_tile(panel + i * GEMM_NR + j, point, g, 3);
        }
    }
    if (work->flipped) return;
    float points[WINO_POINTS * GEMM_NR * WEIGHT_BLOCK];
    for (int j = 0; j < n; j++) {
        const float *const w = work->w + (int64_t)(channel + j) * 9 * d.cin + c;
        for (int t = 0; t < 9; t++) g[t] = vec_load_up_to(w + t * d.cin, count);
        wino_kernel_tile(points + j * WEIGHT_BLOCK, GEMM_NR * WEIGHT_BLOCK, g, 3);
    }
    for (int q = 0; q < WINO_POINTS; q++)
        gemm_pack_transposed(panel + q * point, points + q * GEMM_NR * WEIGHT_BLOCK, WEIGHT_BLOCK,
                             count, n);
}

// Channels are read in whole vectors: what lies behind the last one is transformed for nothing.
static void transform_input(const Work *work, Own own, int64_t first, int64_t end)
{
    const int64_t c = work->map.c, row = work->map.width * c;
    float *v = own.v;
    for (int64_t i = first; i < end; i++) {
        wino_strip(own.strip, &work->map, &work->tiles, i, WINO_TILE);
        for (int j = 0; j < work->tiles.tile_cols; j++, v += work->v_row) {
            for (int64_t k = 0; k < c; k += VEC)
                wino_input_tile(v + k, work->v_point, own.strip + j * WINO_OUT * c + k, row, c);
        }
    }
}

// A row of tiles to `rows` rows of the block.
static void transform_output(float *block, const Work *work, const float *m, int rows, int n)
{
    const int width = work->tiles.width;
    for (int tile = 0; tile < work->tiles.tile_cols; tile++, m += GEMM_NR) {
        const int left = tile * WINO_OUT, columns = min_int(width - left, WINO_OUT);
        for (int k = 0; k < n; k += VEC) {
            Vec y[WINO_OUT * WINO_OUT];
            wino_output_tile(y, m + k, work->m_point, WINO_OUT);
            for (int i = 0; i < rows; i++) {
                for (int j = 0; j < columns; j++) {
                    const int column = left + j, at = work->pool
                                                          ? (i / 2 * width + column / 2 * 2) * 2 +
                                                                i % 2 * 2 + column % 2
                                                          : i * width + column;
                    vec_store(block + at * GEMM_NR + k, y[i * WINO_OUT + j]);
                }
            }
        }
    }
}

// Where y will be written, to bring into the cache during the products: the stores come in a burst
// and would wait for memory. It made a layer of 64 channels 1.3 times as fast.
typedef struct Ahead {
    const float *y;
    int64_t channels;
    int count, rows; // of y, of the product
} Ahead;

static void fetch_output(void *context, float *c, int first, int end)
{
    const Ahead *const a = context;
    const int64_t stop = part_start(a->count, end, a->rows);
    (void)c;
    for (int64_t i = part_start(a->count, first, a->rows); i < stop; i++)
        for (int j = 0; j < GEMM_NR; j += 16) __builtin_prefetch(a->y + i * a->channels + j, 1, 2);
}

// The products of panel `p` for a unit whose rows of y start at `from`, `count` of them.
static void multiply(const Work *work, Own own, int64_t p, int tiles, int64_t from, int count)
{
    const int64_t c = work->map.c;
    const int n = min_int(work->o->channels - p * GEMM_NR, GEMM_NR);
    for (int q = 0; q < WINO_POINTS; q++) {
        const int64_t start = part_start(count, q, WINO_POINTS);
        Ahead ahead = {work->o->y + (from + start) * work->o->channels + p * GEMM_NR,
                       work->o->channels, (int)(part_start(count, q + 1, WINO_POINTS) - start),
                       tiles};
        gemm_block(own.m + q * work->m_point, n, own.v + q * work->v_point,
                   (GemmRows){work->row, NULL, tiles, 1}, (GemmAxis){1, c, 0},
                   work->u + p * work->u_size + q * c * GEMM_NR, fetch_output, &ahead);
    }
}

// The first pixel of a row of tiles, counted through the batch.
static int64_t first_pixel(const WinoTiles *t, int64_t i)
{
    return (i / t->tile_rows * t->rows + i % t->tile_rows * WINO_OUT) * t->width;
}

static void slide_unit(const Work *work, Own own, int64_t unit)
{
    const WinoTiles *const t = &work->tiles;
    const int64_t first = part_start(work->total, unit, work->units),
                  end = part_start(work->total, unit + 1, work->units),
                  pixel = first_pixel(t, first), from = pixel >> 2 * work->pool;
    const int count = (int)((first_pixel(t, end) - pixel) >> 2 * work->pool);
    transform_input(work, own, first, end);
    for (int64_t p = 0; p < work->panels; p++) {
        multiply(work, own, p, (int)(end - first) * t->tile_cols, from, count);
        ConvTarget target = {.o = work->o, .row = from, .channel = (int)p * GEMM_NR};
        const float *m = own.m;
        int done = 0;
        for (int64_t i = first; i < end; i++, m += t->tile_cols * GEMM_NR) {
            const int rows = min_int(t->rows - i % t->tile_rows * WINO_OUT, WINO_OUT);
            transform_output(own.block + done * GEMM_NR, work, m, rows,
                             min_int(work->o->channels - target.channel, GEMM_NR));
            conv_finish(&target, own.block, done, done + rows * t->width);
            done += rows * t->width;
        }
        work->counts[unit] = count;
        if (!work->unit_stats) continue;
        float *const stats = work->unit_stats + (2 * unit * work->panels + p) * GEMM_NR;
        conv_add_stats(stats, stats + work->panels * GEMM_NR, 0, own.block, count);
    }
}

static WinoTiles tiles_of(ConvWindows w)
{
    return w.pool ? wino_tiles(w.rows / 2 * 2, w.width / 2 * 2) : wino_tiles(w.rows, w.width);
}

// Costs in multiply-adds of a direct convolution for each pair of channels: 9 an output, or less
// where a pooled gradient's zeros are skipped; here 50 a tile and 6500 to transform a weight, which
// a weight gradient does not. Measured, GFLOP/s (of a direct convolution) of one thread of a Xeon
// with AVX-512, direct or as before > this way:
//   layer            batch   forward     data        weight
//   64>64 @15            2   208 > 260   219 > 305   187 > 426
//                        8   217 > 395   223 > 442   205 > 433
//                      250   189 > 418   197 > 460   187 > 321
//   256>256 @7           8   191 >  70   192 >  75   159 > 295
//                       32   198 > 236   201 > 263   170 > 351
//                      250   203 > 362   203 > 379   180 > 303
//   256>256 @3          32   185 >  52   189 >  56   155 > 226
//                      250   200 > 217   202 > 233   169 > 245
//   16>16 @15          250   135 > 175   153 > 213   154 > 209
//   24>64 @31 pool     250   199 > 336   144 > 297
//   64>256 @15 pool    250   217 > 424   282 > 334
//   256>256 @7 pool     64   203 > 219   273 > 231
//                      250   203 > 296   246 > 291
bool winograd_wins(WinoUse use, ConvWindows windows, int from, int to)
{
    if (windows.kernel != 3 || windows.stride != 1 || from < 16 || to < 16) return false;
    const WinoTiles t = tiles_of(windows);
    const double n = (double)windows.n, tiles = n * t.tile_rows * t.tile_cols,
                 outputs = n * t.rows * t.width;
    switch (use) {
    case WINO_SLIDE:
        return 50 * tiles + 6500 < 9 * outputs;
    case WINO_POOL_DATA:
        return 50 * tiles + 6500 < 0.65 * 9 * outputs;
    case WINO_WEIGHT:
        return 50 * tiles + 400 < 9 * outputs;
    }
    return false;
}

void winograd_slide(const ConvOutput *o, const ConvSlide *slide)
{
    Work work = {.o = o,
                 .map = slide->map,
                 .tiles = tiles_of(slide->windows),
                 .pool = slide->windows.pool,
                 .d = slide->d,
                 .w = slide->w,
                 .flipped = slide->flipped};
    const int cols = work.tiles.tile_cols, reach = cols * WINO_OUT + 2;
    if (work.map.width < reach) work.map.width = reach;
    work.total = slide->windows.n * work.tiles.tile_rows;
    int64_t unit_rows = min_int(UNIT_TILES / cols, work.total / FEWEST_UNITS);
    if (unit_rows < 1) unit_rows = 1;
    work.units = div_up(work.total, unit_rows);
    const int64_t c = work.map.c, tiles = unit_rows * cols;
    work.panels = div_up(o->channels, GEMM_NR);
    work.u_size = WINO_POINTS * c * GEMM_NR;
    work.v_row = div_up(c, VEC) * VEC;
    // An odd number of cache lines, so that the points of a tile do not share a set of the cache.
    work.v_point = tiles * work.v_row + 16;
    work.m_point = tiles * GEMM_NR + 16;
    const int64_t strip_size = carved(WINO_TILE * work.map.width * c + VEC),
                  v_size = carved(WINO_POINTS * work.v_point),
                  m_size = carved(WINO_POINTS * work.m_point),
                  block_size = carved(unit_rows * WINO_OUT * work.tiles.width * GEMM_NR),
                  own_size = strip_size + v_size + m_size + block_size,
                  stats_size = o->stats ? 2 * work.units * work.panels * GEMM_NR : 0;
    float *scratch =
        cpu_scratch((size_t)(carved(work.panels * work.u_size) + carved(work.units) +
                             carved(tiles) + carved(stats_size) + cpu_threads * own_size) *
                    sizeof(float));
    if (!scratch) return;
    work.u = carve(&scratch, work.panels * work.u_size);
    work.counts = (int32_t *)carve(&scratch, work.units);
    int32_t *const row = (int32_t *)carve(&scratch, tiles);
    for (int i = 0; i < tiles; i++) row[i] = (int32_t)(i * work.v_row);
    work.row = row;
    float *const unit_stats = carve(&scratch, stats_size);
    if (o->stats) work.unit_stats = unit_stats;

#pragma omp parallel num_threads(cpu_threads)
    {
        float *own_scratch = scratch + omp_get_thread_num() * own_size;
        Own own = {.strip = carve(&own_scratch, strip_size), .v = carve(&own_scratch, v_size)};
        own.m = carve(&own_scratch, m_size);
        own.block = own_scratch;
#pragma omp for schedule(static) collapse(2)
        for (int64_t p = 0; p < work.panels; p++)
            for (int i = 0; i < (int)c; i += WEIGHT_BLOCK) transform_weights(&work, p, i);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < work.units; i++) slide_unit(&work, own, i);
        if (o->stats) conv_merge_stats(o, work.units, work.counts, unit_stats);
    }
}
