// Weight gradient of the convolution in bfloat16: dw = sum over pixels of dy^T (windows of x).
//
//   For a unit of the batch, pixels are numbered along the zero padded copy of x, row after row:
//     dy  at the places of its windows' first values, zeros between, transposed: (cout,places)
//     x   in pairs of neighbouring places, for each of them: (places,cin,2)
//   Then the sum for one row of the kernel is one product (gemm_pairs):
//     dw[:, row] (cout,kernel*cin) = dy (cout,places) times x from place row*width on
//   The places between a row's last window and the next row's first are multiplied as zeros: width
//   against ow, 17 for 15 pixels.
//
//   A work item is a slice of x's channels and a part of the batch, whose units it goes through in
//   order; its sums stay in the L2 cache. The items follow from the shape, so that the sums do not
//   depend on the number of threads.
// conv2d_weight_amx_bf16.c takes its place wherever it can.
// Floor: 2 n oh ow cout kernel^2 cin FLOP over the rate of the bf16 products.
#include "kernels/cpu/conv2d_weight.h"

#include <omp.h>
#include <string.h>

#include "kernels/cpu/conv2d_amx.h"
#include "kernels/cpu/conv2d_units.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/memory.h"

enum {
    UNIT_PIXELS = 416,
    ITEM_FLOATS = 160 * 1024, // of an item's sums
    ITEMS = 16                // to share out, as far as the batch goes
};

typedef struct Work {
    ConvMap x, dy;
    ConvUnits units;
    ConvDims d;
    int64_t slice, slices; // channels of x in an item, and how many of them
    int64_t ldc, size;     // a row of sums, and all of an item
    int64_t kernel_row;    // from the sums of a row of the kernel to the next
    int64_t parts;         // of the units
    int64_t places;        // of a unit at most, a multiple of GEMM_STEP
    float *sums;           // (parts,slices) of (kernel,cout,ldc)
} Work;

typedef struct Buffers {
    Element *padded; // of x, then of dy: one after the other
    Element *dy;     // (cout,places)
    Element *pairs;
} Buffers;

// The slice's channels of a unit's padded x in pairs, and zeros up to where the last sum reads.
static void make_pairs(Element *pairs, const Work *work, const Element *padded, int64_t places,
                       int64_t channel, int64_t channels)
{
    const int64_t cin = work->d.cin, behind = GEMM_STEP + work->d.kernel;
    if (channels == cin) {
        gemm_pair_rows(pairs, padded, padded + cin, places * cin);
    } else {
        for (int64_t i = 0; i < places; i++)
            gemm_pair_rows(pairs + 2 * i * channels, padded + i * cin + channel,
                           padded + (i + 1) * cin + channel, channels);
    }
    memset(pairs + 2 * places * channels, 0, (size_t)(2 * behind * channels) * sizeof *pairs);
}

static int64_t pairs_size(const Work *work)
{
    const int64_t places = conv_padded_size(&work->units, &work->x) / work->d.cin + GEMM_STEP + 8;
    return 2 * places * work->slice + 4 * VEC;
}

static void add_unit(const Work *work, float *sums, bool add, const ConvUnit *unit, int64_t channel,
                     int64_t channels, Buffers b)
{
    const int64_t kernel = work->d.kernel, cout = work->d.cout, width = work->x.width,
                  rows = ((int64_t)unit->images - 1) * work->units.padded_rows +
                         (unit->rows - 1) * work->d.stride + 1,
                  k = rows * width;
    conv_pad(b.padded, &work->units, unit, &work->x);
    make_pairs(b.pairs, work, b.padded, (rows + kernel - 1) * width, channel, channels);
    conv_pad(b.padded, &work->units, unit, &work->dy);
    gemm_transpose(b.dy, work->places, b.padded, cout, k, cout);
    for (int64_t r = 0; r < kernel; r++)
        gemm_pairs(&(GemmPairs){.c = sums + r * work->kernel_row,
                                .ldc = work->ldc,
                                .add = add,
                                .m = cout,
                                .n = kernel * channels,
                                .k = gemm_padded(k),
                                .a = b.dy,
                                .lda = work->places,
                                .b = b.pairs + r * width * 2 * channels,
                                .ldb = 4 * channels});
}

static void work_item(const Work *work, int64_t item, Buffers buffers)
{
    const int64_t s = item % work->slices, part = item / work->slices, channel = s * work->slice,
                  left = work->d.cin - channel,
                  first = part_start(work->units.count, part, work->parts),
                  end = part_start(work->units.count, part + 1, work->parts);
    for (int64_t u = first; u < end; u++) {
        const ConvUnit unit = conv_unit(&work->units, u);
        add_unit(work, work->sums + item * work->size, u > first, &unit, channel,
                 left < work->slice ? left : work->slice, buffers);
    }
}

// dw (cout,kernel,kernel,cin), one channel and row of the kernel, from the parts' sums.
static void store_row(float *dw, const Work *work, int64_t channel, int64_t r, bool add)
{
    const int64_t kernel = work->d.kernel, cin = work->d.cin;
    float *const to = dw + (channel * kernel + r) * kernel * cin;
    for (int64_t s = 0; s < work->slices; s++) {
        const int64_t left = cin - s * work->slice,
                      channels = left < work->slice ? left : work->slice;
        for (int64_t t = 0; t < kernel; t++) {
            for (int64_t i = 0; i < channels; i += VEC) {
                float *const at = to + t * cin + s * work->slice + i;
                const int64_t count = channels - i;
                Vec sum = add ? vec_load_up_to(at, count) : (Vec){0};
                for (int64_t part = 0; part < work->parts; part++)
                    sum += vec_load_up_to(work->sums + (part * work->slices + s) * work->size +
                                              channel * work->ldc + r * work->kernel_row +
                                              t * channels + i,
                                          count);
                vec_store_up_to(at, sum, count);
            }
        }
    }
}

static Work new_work(const Element *dy, const uint8_t *argmax, const Element *x, ConvDims d)
{
    const int oh = conv_out(d.h, d.kernel, d.stride, d.pad),
              ow = conv_out(d.w, d.kernel, d.stride, d.pad);
    Work work = {.x = conv_map(x, d), .d = d};
    work.dy = (ConvMap){.x = dy,
                        .argmax = argmax,
                        .h = argmax ? oh / 2 : oh,
                        .w = argmax ? ow / 2 : ow,
                        .c = d.cout,
                        .dilation = d.stride,
                        .width = work.x.width};
    work.units = conv_units(&work.x, conv_windows(d, argmax != NULL),
                            (ConvUnitSize){.pixels = UNIT_PIXELS, .elements = CONV_L2_ELEMENTS});
    const int64_t taps = (int64_t)d.kernel * d.kernel;
    work.slice = ITEM_FLOATS / (d.cout * taps) / GEMM_NR * GEMM_NR;
    if (work.slice < GEMM_NR) work.slice = GEMM_NR;
    if (work.slice >= d.cin) work.slice = d.cin;
    work.slices = div_up(d.cin, work.slice);
    work.ldc = div_up(d.kernel * work.slice, VEC) * VEC;
    work.kernel_row = d.cout * work.ldc;
    work.size = d.kernel * work.kernel_row;
    work.parts = conv_parts(ITEMS, work.units.count, work.slices, work.slices * work.size);
    work.places = gemm_padded((int64_t)work.units.images * work.units.padded_rows * work.x.width);
    if (work.places % 512 == 0) work.places += GEMM_STEP; // or 16 rows would share a cache set
    return work;
}

void conv_backward_weight(float *dw, const Element *dy, const uint8_t *argmax, const Element *x,
                          GradMode mode, ConvDims d)
{
    if (conv_backward_weight_amx(dw, dy, argmax, x, mode, d)) return;
    Work work = new_work(dy, argmax, x, d);
    const int64_t x_size = conv_padded_size(&work.units, &work.x),
                  dy_size = conv_padded_size(&work.units, &work.dy),
                  padded = carved_elements(x_size > dy_size ? x_size : dy_size),
                  transposed = carved_elements(d.cout * work.places),
                  pairs = carved_elements(pairs_size(&work)), own = padded + transposed + pairs,
                  sums = carved(work.parts * work.slices * work.size);
    float *scratch = cpu_scratch((size_t)(sums + cpu_threads * own) * sizeof(float));
    if (!scratch) return;
    work.sums = carve(&scratch, sums);

#pragma omp parallel num_threads(cpu_threads)
    {
        float *const mine = scratch + omp_get_thread_num() * own;
        const Buffers buffers = {(Element *)mine, (Element *)(mine + padded),
                                 (Element *)(mine + padded + transposed)};
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < work.parts * work.slices; i++) work_item(&work, i, buffers);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < (int64_t)d.cout * d.kernel; i++)
            store_row(dw, &work, i / d.kernel, i % d.kernel, mode == ADD);
    }
}
