// 3x3 convolution of maps with one channel, followed by 2x2 pooling: the first layer for grey
// pictures, forward and weight gradient. There is no run of input channels to vectorise over, so a
// vector is VEC output channels.
//
// Forward: a window's four outputs are 36 multiply-adds of nine vectors of weights, which stay in
// registers, with single values of x; two windows side by side keep eight sums going. Floor: these
// multiply-adds. The sums run in the order that the general way has.
//
// Weight gradient: a window's input, 4x4 values, is one vector too:
//
//     x 4x4      channel o's maximum is at place argmax[o] of the window's 2x2 outputs. Its kernel
//   0  1  2  3   saw what starts at start[o] = 0, 1, 4 or 5, tap (i,j) at 4 i + j further:
//   4  5  6  7     dw[tap][o] += dy[o] * x[start[o] + 4 i + j]
//   8  9 10 11   so that a tap of all channels is one permutation of x and one multiply-add.
//  12 13 14 15
//
// Floor: 9 permutations and 9 multiply-adds for each window and vector of channels. Measured, 28x28
// to 16 channels, one thread: 190 GFLOP/s of a dense gradient.
#include "kernels/cpu/conv2d_pool.h"

#include <omp.h>
#include <string.h>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/memory.h"

#if defined(__AVX512F__) // 4x4 floats are a vector

enum {
    TAPS = 9,
    PARTS = 32 // of the batch, as far as it goes: each has its own sums, added in order
};

// A padded image, behind which VEC floats can be read.
typedef struct Padded {
    const float *x;                         // (n,h,w)
    int h, w, before, width, rows, windows; // width: padded; rows, windows: of the pooled map
    int64_t size;
} Padded;

static bool suits(ConvDims d)
{
    return d.cin == 1 && d.kernel == 3 && d.stride == 1;
}

static Padded padded_of(const float *x, ConvDims d)
{
    Padded p = {.x = x, .h = d.h, .w = d.w, .before = d.pad, .width = d.w + 2 * d.pad};
    p.rows = conv_out(d.h, 3, 1, d.pad) / 2;
    p.windows = conv_out(d.w, 3, 1, d.pad) / 2;
    p.size = carved((int64_t)(d.h + 2 * d.pad) * p.width + VEC);
    return p;
}

// Into `to`, whose border is zero.
static void copy_image(float *to, const Padded *p, int64_t image)
{
    for (int i = 0; i < p->h; i++)
        memcpy(to + (i + p->before) * p->width + p->before, p->x + (image * p->h + i) * p->w,
               (size_t)p->w * sizeof *to);
}

// ---- forward ------------------------------------------------------------------------------------

// VEC output channels from `channel` on.
typedef struct Filters {
    Vec weights[TAPS], bias;
    int channel, count;
} Filters;

// `count` windows side by side, 1 or 2, the first with its input from `x` on, rows of `row` apart,
// to element `at` of the output.
static inline __attribute__((always_inline)) void
pool_windows(const ConvOutput *o, const Filters *f, int count, const float *x, int row, int64_t at)
{
    typedef uint8_t Bytes __attribute__((vector_size(VEC)));
    Vec sum[8] = {0};
#pragma GCC unroll 9
    for (int t = 0; t < TAPS; t++) {
#pragma GCC unroll 8
        for (int p = 0; p < 4 * count; p++) // place p % 4 of window p / 4
            sum[p] += f->weights[t] * x[(p % 4 / 2 + t / 3) * row + p / 4 * 2 + p % 2 + t % 3];
    }
#pragma GCC unroll 2
    for (int i = 0; i < count; i++, at += o->channels) {
        Vec best = sum[4 * i];
        VecInt place = {0};
        for (int p = 1; p < 4; p++) {
            const Vec v = sum[4 * i + p];
            const VecInt larger = ((v > best) | (v != v)) & (best == best); // as in pool.c
            best = vec_select(larger, v, best);
            place = (larger & p) | (~larger & place);
        }
        vec_store_up_to(o->y + at, vec_act(o->act, best + f->bias), f->count);
        const Bytes bytes = __builtin_convertvector(place, Bytes);
        memcpy(o->argmax + at, &bytes, (size_t)(f->count < VEC ? f->count : VEC));
    }
}

static Filters filters_at(const float *w, const ConvOutput *o, int channel)
{
    Filters f = {.channel = channel, .count = o->channels - channel};
    if (f.count > VEC) f.count = VEC;
    for (int t = 0; t < TAPS; t++)
        for (int j = 0; j < f.count; j++) f.weights[t][j] = w[(channel + j) * TAPS + t];
    if (o->bias) f.bias = vec_load_up_to(o->bias + channel, f.count);
    return f;
}

static void pool_image(const ConvOutput *o, const Filters *filters, const Padded *p, int64_t image,
                       const float *padded)
{
    const Filters f = *filters; // registers
    const ConvOutput out = *o;
    for (int i = 0; i < p->rows; i++) {
        const float *x = padded + (int64_t)2 * i * p->width;
        int64_t at = (image * p->rows + i) * p->windows * out.channels + f.channel;
        int j = 0;
        for (; j + 2 <= p->windows; j += 2, x += 4, at += 2 * out.channels)
            pool_windows(&out, &f, 2, x, p->width, at);
        if (j < p->windows) pool_windows(&out, &f, 1, x, p->width, at);
    }
}

bool conv_pool_forward_grey(const ConvOutput *o, const float *x, const float *w, ConvDims d)
{
    if (!suits(d) || o->stats) return false;
    const Padded p = padded_of(x, d);
    const int vectors = (int)div_up(d.cout, VEC);
    const int64_t filters_size = carved(vectors * (int64_t)(sizeof(Filters) / sizeof(float)));
    float *scratch = cpu_scratch((size_t)(filters_size + cpu_threads * p.size) * sizeof(float));
    if (!scratch) return true;
    Filters *const filters = (Filters *)carve(&scratch, filters_size);
    for (int v = 0; v < vectors; v++) filters[v] = filters_at(w, o, v * VEC);
#pragma omp parallel num_threads(cpu_threads)
    {
        float *const padded = scratch + omp_get_thread_num() * p.size;
        memset(padded, 0, (size_t)p.size * sizeof *padded);
#pragma omp for schedule(static)
        for (int64_t image = 0; image < d.n; image++) {
            copy_image(padded, &p, image);
            for (int v = 0; v < vectors; v++) pool_image(o, filters + v, &p, image, padded);
        }
    }
    return true;
}

// ---- weight gradient ----------------------------------------------------------------------------

typedef struct Work {
    const float *dy;       // (n,rows,windows,cout)
    const uint8_t *argmax; // the same shape
    Padded map;            // x
    int cout;
} Work;

// The 4x4 values from `x` on, of rows `row` apart; 16 are read of each.
static inline Vec load_window(const float *x, int64_t row)
{
    const VecInt fours = {0, 1, 2, 3, 16, 17, 18, 19},
                 eights = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23};
    const Vec top = __builtin_shuffle(vec_load(x), vec_load(x + row), fours);
    const Vec bottom = __builtin_shuffle(vec_load(x + 2 * row), vec_load(x + 3 * row), fours);
    return __builtin_shuffle(top, bottom, eights);
}

// sum (TAPS) of `count` channels from `channel` on += what one image gives.
static void add_image(Vec sum[TAPS], const Work *work, int64_t image, int channel, int64_t count,
                      const float *padded)
{
    Vec s[TAPS]; // registers
    memcpy(s, sum, sizeof s);
    for (int i = 0; i < work->map.rows; i++) {
        const float *x = padded + (int64_t)2 * i * work->map.width;
        int64_t at = (image * work->map.rows + i) * work->map.windows * work->cout + channel;
        for (int j = 0; j < work->map.windows; j++, x += 2, at += work->cout) {
            const VecInt argmax = vec_load_bytes_up_to(work->argmax + at, count);
            const VecInt start = argmax + (argmax & 2);
            const Vec dy = vec_load_up_to(work->dy + at, count);
            const Vec window = load_window(x, work->map.width);
#pragma GCC unroll 9
            for (int t = 0; t < TAPS; t++)
                s[t] += dy * __builtin_shuffle(window, start + (4 * (t / 3) + t % 3));
        }
    }
    memcpy(sum, s, sizeof s);
}

// Images first..end-1. sums: (channels in vectors,TAPS), set.
static void add_part(Vec *sums, const Work *work, int64_t first, int64_t end, float *padded)
{
    memset(sums, 0, (size_t)div_up(work->cout, VEC) * TAPS * sizeof *sums);
    memset(padded, 0, (size_t)work->map.size * sizeof *padded);
    for (int64_t image = first; image < end; image++) {
        copy_image(padded, &work->map, image);
        for (int c = 0; c < work->cout; c += VEC)
            add_image(sums + c / VEC * TAPS, work, image, c, work->cout - c, padded);
    }
}

bool conv_pool_backward_weight_grey(float *dw, const float *dy, const uint8_t *argmax,
                                    const float *x, GradMode mode, ConvDims d)
{
    if (!suits(d)) return false;
    const Work work = {dy, argmax, padded_of(x, d), d.cout};
    const int64_t parts = d.n < PARTS ? d.n : PARTS, vectors = div_up(d.cout, VEC) * TAPS;
    float *scratch =
        cpu_scratch((size_t)(parts * vectors * VEC + cpu_threads * work.map.size) * sizeof(float));
    if (!scratch) return true;
    Vec *const sums = (Vec *)carve(&scratch, parts * vectors * VEC);
#pragma omp parallel for schedule(dynamic) num_threads(cpu_threads)
    for (int64_t p = 0; p < parts; p++)
        add_part(sums + p * vectors, &work, part_start(d.n, p, parts),
                 part_start(d.n, p + 1, parts), scratch + omp_get_thread_num() * work.map.size);
    for (int o = 0; o < d.cout; o++) {
        for (int t = 0; t < TAPS; t++) {
            float sum = mode == ADD ? dw[o * TAPS + t] : 0.0f;
            for (int64_t p = 0; p < parts; p++)
                sum += sums[p * vectors + o / VEC * TAPS + t][o % VEC];
            dw[o * TAPS + t] = sum;
        }
    }
    return true;
}

#else

bool conv_pool_forward_grey(const ConvOutput *o, const float *x, const float *w, ConvDims d)
{
    (void)o, (void)x, (void)w, (void)d;
    return false;
}

bool conv_pool_backward_weight_grey(float *dw, const float *dy, const uint8_t *argmax,
                                    const float *x, GradMode mode, ConvDims d)
{
    (void)dw, (void)dy, (void)argmax, (void)x, (void)mode, (void)d;
    return false;
}

#endif
