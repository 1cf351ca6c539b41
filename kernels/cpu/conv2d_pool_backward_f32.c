// Gradients of a convolution followed by 2x2 pooling. Only one place in four of a window's
// gradient is not zero, and which one differs between channels; with a 3x3 kernel, going to these
// places alone beats multiplying by the zeros.
//
//   A block is VEC channels of a unit's padded x (or dx): (rows,width,VEC), in the L1 cache. For
//   one output channel o and one block, the nine vectors of dw (or w) stay in registers while the
//   windows run by; the maximum of window i lies at block + offset[i][o]:
//     dw[o][tap] += dy[i][o] * x[offset[i][o] + tap]        nine loads of the L1 cache a window
//     dx[offset[i][o] + tap] += dy[i][o] * w[o][tap]        nine loads and nine stores
//
// Floor: 2 n (oh/2) (ow/2) cout 9 cin FLOP, a quarter of what a dense gradient takes; half the rate
// of multiply-adds for dx because of its stores. Measured: as fast as a dense gradient at 116 to
// 155% of the rate of multiply-adds would be for dw, at 97 to 120% for dx (bench/conv 100 1).
#include <omp.h>
#include <string.h>

#include "kernels/cpu/conv2d.h"
#include "kernels/cpu/conv2d_pool.h"
#include "kernels/cpu/conv2d_units.h"
#include "kernels/cpu/conv2d_weight.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/winograd.h"

enum {
    TAPS = 9,
    BLOCK_FLOATS = 5 * 1024,  // 20 KB of a 48 KB L1 cache; the windows' list takes about as much
    ITEM_FLOATS = 192 * 1024, // of the sums of an item of dw
    ITEMS = 32                // to share out, as far as the batch goes
};

typedef struct Work {
    const float *dy;
    const uint8_t *argmax;
    const float *w;
    float *dx;
    ConvMap map; // of x, with c = VEC: one block
    ConvUnits units;
    ConvDims d;
    int64_t panels, blocks, block_size;
    int64_t chunks, parts; // of the blocks, of the units
    const int32_t *offset; // (4 * windows): of each place of each window
    float *sums;           // (parts,blocks,cout,TAPS,VEC)
} Work;

// One panel of output channels: where each window's maximum lies, and its gradient.
typedef struct List {
    int32_t *offset; // (windows,GEMM_NR)
    float *dy;       // (windows,GEMM_NR)
} List;

static void fill_list(List list, const Work *work, const ConvUnit *unit, int channel)
{
    const int cout = work->d.cout;
    for (int i = 0; i < unit->pixels / 4; i++) {
        const int32_t *const place = work->offset + 4 * i;
        const int right = place[1] - place[0], below = place[2] - place[0];
        for (int half = 0; half < GEMM_NR && channel + half < cout; half += VEC) {
            const int64_t count = cout - channel - half,
                          at = (unit->pixel / 4 + i) * cout + channel + half;
            const VecInt argmax = vec_load_bytes_up_to(work->argmax + at, count);
            const VecInt to = place[0] + (argmax & 1) * right + (argmax >> 1) * below;
            memcpy(list.offset + i * GEMM_NR + half, &to, sizeof to);
            vec_store(list.dy + i * GEMM_NR + half, vec_load_up_to(work->dy + at, count));
        }
    }
}

// Blocks first..end-1 of a unit's padded x.
static void fill_blocks(float *blocks, const Work *work, const ConvUnit *unit, const float *x,
                        int64_t first, int64_t end)
{
    const ConvUnits *const u = &work->units;
    const ConvMap *const m = &work->map;
    const int64_t c = work->d.cin, count = end - first;
    memset(blocks, 0, (size_t)(count * work->block_size) * sizeof(float));
    for (int i = 0; i < unit->images; i++) {
        for (int r = 0; r < (unit->rows - 1) * u->stride + u->kernel; r++) {
            const int row = unit->row * u->stride + r - m->before;
            if (row < 0 || row >= m->h) continue;
            const float *from = x + ((unit->image + i) * m->h + row) * m->w * c + first * VEC;
            float *to = blocks + ((i * u->padded_rows + r) * m->width + m->before) * VEC;
            for (int j = 0; j < m->w; j++, from += c, to += VEC) {
                for (int64_t b = 0; b < count; b++)
                    vec_store(to + b * work->block_size,
                              vec_load_up_to(from + b * VEC, c - (first + b) * VEC));
            }
        }
    }
}

// The blocks' rows without their padding into dx: a block at a time.
static void store_block(const Work *work, const ConvUnit *unit, const float *block, int64_t b)
{
    const ConvMap *const m = &work->map;
    const int64_t c = work->d.cin;
    for (int i = 0; i < unit->images; i++) {
        for (int r = 0; r < m->h; r++) {
            const float *from =
                block +
                ((i * work->units.padded_rows + r + m->before) * m->width + m->before) * VEC;
            float *to = work->dx + ((unit->image + i) * m->h + r) * m->w * c + b * VEC;
            for (int j = 0; j < m->w; j++, from += VEC, to += c)
                vec_store_up_to(to, vec_load(from), c - b * VEC);
        }
    }
}

// dw (TAPS,VEC) of one output channel and one block.
static void gather(float *dw, bool add, const float *block, List list, int windows, int64_t row)
{
    Vec sum[TAPS];
#pragma GCC unroll 9
    for (int t = 0; t < TAPS; t++) sum[t] = add ? vec_load(dw + t * VEC) : (Vec){0};
    for (int64_t i = 0; i < windows; i++) {
        const float *const x = block + list.offset[i * GEMM_NR];
        const float dy = list.dy[i * GEMM_NR];
#pragma GCC unroll 9
        for (int t = 0; t < TAPS; t++) sum[t] += dy * vec_load(x + t / 3 * row + t % 3 * VEC);
    }
#pragma GCC unroll 9
    for (int t = 0; t < TAPS; t++) vec_store(dw + t * VEC, sum[t]);
}

// Adds to a block of dx what one output channel gives. Neighbouring windows overlap, and an
// addition would wait for the one before: hence two passes over every other window.
static void scatter(float *block, const float *w, int64_t cin, int64_t count, List list,
                    int windows, int64_t row)
{
    Vec weight[TAPS];
#pragma GCC unroll 9
    for (int t = 0; t < TAPS; t++) weight[t] = vec_load_up_to(w + t * cin, count);
    for (int odd = 0; odd < 2; odd++) {
        for (int64_t i = odd; i < windows; i += 2) {
            float *const dx = block + list.offset[i * GEMM_NR];
            const float dy = list.dy[i * GEMM_NR];
#pragma GCC unroll 9
            for (int t = 0; t < TAPS; t++) {
                float *const to = dx + t / 3 * row + t % 3 * VEC;
                vec_store(to, vec_load(to) + dy * weight[t]);
            }
        }
    }
}

static float *sums_of(const Work *work, int64_t part, int64_t block)
{
    return work->sums + (part * work->blocks + block) * work->d.cout * TAPS * VEC;
}

// One part of the batch and one chunk of the blocks of dw.
static void weight_item(const Work *work, int64_t item, const float *x, float *blocks, List list)
{
    const int64_t chunk = item % work->chunks, part = item / work->chunks,
                  first = part_start(work->blocks, chunk, work->chunks),
                  end = part_start(work->blocks, chunk + 1, work->chunks),
                  first_unit = part_start(work->units.count, part, work->parts),
                  end_unit = part_start(work->units.count, part + 1, work->parts);
    for (int64_t u = first_unit; u < end_unit; u++) {
        const ConvUnit unit = conv_unit(&work->units, u);
        fill_blocks(blocks, work, &unit, x, first, end);
        for (int channel = 0; channel < work->d.cout; channel += GEMM_NR) {
            fill_list(list, work, &unit, channel);
            const int left = work->d.cout - channel, n = left < GEMM_NR ? left : GEMM_NR;
            for (int64_t b = first; b < end; b++) {
                float *const sum = sums_of(work, part, b) + channel * TAPS * VEC;
                for (int o = 0; o < n; o++)
                    gather(sum + o * TAPS * VEC, u > first_unit,
                           blocks + (b - first) * work->block_size,
                           (List){list.offset + o, list.dy + o}, unit.pixels / 4,
                           (int64_t)work->map.width * VEC);
            }
        }
    }
}

// dw (cout,TAPS,cin), one output channel of it, from the parts' sums.
static void store_weight(float *dw, const Work *work, int64_t channel, bool add)
{
    const int64_t cin = work->d.cin;
    for (int64_t b = 0; b < work->blocks; b++) {
        for (int t = 0; t < TAPS; t++) {
            const int64_t at = (channel * TAPS + t) * VEC, count = cin - b * VEC;
            float *const to = dw + (channel * TAPS + t) * cin + b * VEC;
            Vec sum = vec_load(sums_of(work, 0, b) + at);
            for (int64_t part = 1; part < work->parts; part++)
                sum += vec_load(sums_of(work, part, b) + at);
            vec_store_up_to(to, add ? vec_load_up_to(to, count) + sum : sum, count);
        }
    }
}

static Work new_work(const float *dy, const uint8_t *argmax, ConvDims d, bool whole_images)
{
    Work work = {.dy = dy, .argmax = argmax, .d = d};
    work.map = (ConvMap){
        .h = d.h, .w = d.w, .c = VEC, .dilation = 1, .before = d.pad, .width = d.w + 2 * d.pad};
    work.units = conv_units(&work.map, conv_windows(d, true),
                            (ConvUnitSize){.pixels = CONV_PIXELS,
                                           .elements = BLOCK_FLOATS,
                                           .whole_images = whole_images});
    if (whole_images) work.units.padded_rows = d.h + 2 * d.pad; // a whole image of dx
    work.panels = div_up(d.cout, GEMM_NR);
    work.blocks = div_up(d.cin, VEC);
    work.block_size = conv_padded_size(&work.units, &work.map);
    return work;
}

static void conv2d_pool_backward_weight(float *dw, const void *dy, const uint8_t *argmax,
                                        const void *x, GradMode mode, ConvDims d)
{
    if (conv_pool_backward_weight_grey(dw, dy, argmax, x, mode, d)) return;
    if (d.kernel != 3 || d.cin < VEC / 2) {
        conv_backward_weight(dw, dy, argmax, x, mode, d);
        return;
    }
    Work work = new_work(dy, argmax, d, false);
    const int64_t size = work.blocks * d.cout * TAPS * VEC;
    work.chunks = div_up(size, ITEM_FLOATS);
    if (work.chunks > work.blocks) work.chunks = work.blocks;
    work.parts = conv_parts(ITEMS, work.units.count, work.chunks, size);
    const int64_t list_size = div_up(work.units.max_pixels, 4) * GEMM_NR,
                  own_size = div_up(work.blocks, work.chunks) * work.block_size + 2 * list_size;
    float *scratch = cpu_scratch((size_t)(carved(work.parts * size) +
                                          carved(work.units.max_pixels) + cpu_threads * own_size) *
                                 sizeof(float));
    if (!scratch) return;
    work.sums = carve(&scratch, work.parts * size);
    int32_t *const offset = (int32_t *)carve(&scratch, work.units.max_pixels);
    conv_offsets(offset, &work.units, &work.map);
    work.offset = offset;

#pragma omp parallel num_threads(cpu_threads)
    {
        float *const own = scratch + omp_get_thread_num() * own_size;
        const List list = {(int32_t *)own, own + list_size};
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < work.parts * work.chunks; i++)
            weight_item(&work, i, x, own + 2 * list_size, list);
#pragma omp for schedule(static)
        for (int64_t o = 0; o < d.cout; o++) store_weight(dw, &work, o, mode == ADD);
    }
}

// dx of one unit. lists (panels) are filled and then used for every block.
static void data_unit(const Work *work, int64_t index, float *block, List lists, int64_t list_size)
{
    const ConvUnit unit = conv_unit(&work->units, index);
    for (int64_t p = 0; p < work->panels; p++)
        fill_list((List){lists.offset + p * list_size, lists.dy + p * list_size}, work, &unit,
                  (int)p * GEMM_NR);
    for (int64_t b = 0; b < work->blocks; b++) {
        memset(block, 0, (size_t)work->block_size * sizeof(float));
        for (int o = 0; o < work->d.cout; o++) {
            const int64_t at = o / GEMM_NR * list_size + o % GEMM_NR;
            scatter(block, work->w + (int64_t)o * TAPS * work->d.cin + b * VEC, work->d.cin,
                    work->d.cin - b * VEC, (List){lists.offset + at, lists.dy + at},
                    unit.pixels / 4, (int64_t)work->map.width * VEC);
        }
        store_block(work, &unit, block, b);
    }
}

void conv_pool_backward_data(void *dx, const void *dy, const uint8_t *argmax, const void *w,
                             ConvDims d)
{
    const int64_t image = (int64_t)(d.h + 2 * d.pad) * (d.w + 2 * d.pad) * VEC;
    const ConvWindows outputs = {
        .n = d.n, .rows = d.h, .width = d.w, .kernel = d.kernel, .stride = d.stride};
    if (d.kernel != 3 || d.cin < VEC / 2 || image > BLOCK_FLOATS ||
        winograd_wins(WINO_POOL_DATA, outputs, d.cout, d.cin)) {
        conv_backward_data(dx, dy, argmax, w, d);
        return;
    }
    Work work = new_work(dy, argmax, d, true);
    work.w = w;
    work.dx = dx;
    const int64_t list_size = div_up(work.units.max_pixels, 4) * GEMM_NR,
                  own_size = work.block_size + 2 * work.panels * list_size;
    float *scratch = cpu_scratch((size_t)(carved(work.units.max_pixels) + cpu_threads * own_size) *
                                 sizeof(float));
    if (!scratch) return;
    int32_t *const offset = (int32_t *)carve(&scratch, work.units.max_pixels);
    conv_offsets(offset, &work.units, &work.map);
    work.offset = offset;

#pragma omp parallel num_threads(cpu_threads)
    {
        float *const own = scratch + omp_get_thread_num() * own_size;
        const List lists = {(int32_t *)own, own + work.panels * list_size};
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < work.units.count; i++)
            data_unit(&work, i, own + 2 * work.panels * list_size, lists, list_size);
    }
}

void cpu_conv2d_pool_backward_ops(Kernels *k)
{
    k->conv2d_pool_backward_data = conv_pool_backward_data;
    k->conv2d_pool_backward_weight = conv2d_pool_backward_weight;
}
