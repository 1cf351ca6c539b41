// Pooling, NHWC. Floor: the bytes of the maps. A thread has whole images; within one, vectors run
// over the channels.
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/element.h"

typedef uint8_t VecByte __attribute__((vector_size(VEC)));

typedef struct Windows {
    int oh, ow;
    int64_t image, pooled; // elements of an image of the map and of its pooled map
} Windows;

static Windows windows_of(PoolDims d)
{
    const int oh = conv_out(d.h, d.kernel_h, d.stride, 0),
              ow = conv_out(d.w, d.kernel_w, d.stride, 0);
    return (Windows){oh, ow, (int64_t)d.h * d.w * d.c, (int64_t)oh * ow * d.c};
}

// Where window `o` = row * ow + column of an image starts, in elements.
static inline int64_t window_start(PoolDims d, Windows w, int o)
{
    return ((int64_t)(o / w.ow) * d.stride * d.w + (int64_t)(o % w.ow) * d.stride) * d.c;
}

// Where place `p` of a window lies from its start.
static inline int64_t place_offset(PoolDims d, int p)
{
    return ((int64_t)(p / d.kernel_w) * d.w + p % d.kernel_w) * d.c;
}

static inline void store_places(uint8_t *argmax, VecInt places, int64_t count)
{
    const VecByte bytes = __builtin_convertvector(places, VecByte);
    memcpy(argmax, &bytes, count < VEC ? (size_t)count : (size_t)VEC);
}

// A NaN is the largest of all, so that it is seen further on.
static void maxpool_window(Element *y, uint8_t *argmax, const Element *x, PoolDims d)
{
    for (int c = 0; c < d.c; c += VEC) {
        Vec largest = elem_load_up_to(x + c, d.c - c);
        VecInt place = {0};
        for (int p = 1; p < d.kernel_h * d.kernel_w; p++) {
            const Vec v = elem_load_up_to(x + c + place_offset(d, p), d.c - c);
            const VecInt better = ((v > largest) | (v != v)) & (largest == largest);
            largest = vec_select(better, v, largest);
            place = (better & p) | (~better & place);
        }
        elem_store_up_to(y + c, largest, d.c - c);
        store_places(argmax + c, place, d.c - c);
    }
}

static void maxpool_forward(void *y_, uint8_t *argmax, const void *x_, PoolDims d)
{
    const Windows w = windows_of(d);
#pragma omp parallel for schedule(static) num_threads(cpu_threads)
    for (int64_t n = 0; n < d.n; n++) {
        const Element *x = (const Element *)x_ + n * w.image;
        Element *y = (Element *)y_ + n * w.pooled;
        for (int o = 0; o < w.oh * w.ow; o++)
            maxpool_window(y + o * d.c, argmax + n * w.pooled + o * d.c, x + window_start(d, w, o),
                           d);
    }
}

static void avgpool_forward(void *y_, const void *x_, PoolDims d)
{
    const Windows w = windows_of(d);
    const int places = d.kernel_h * d.kernel_w;
#pragma omp parallel for schedule(static) num_threads(cpu_threads)
    for (int64_t n = 0; n < d.n; n++) {
        for (int o = 0; o < w.oh * w.ow; o++) {
            const Element *x = (const Element *)x_ + n * w.image + window_start(d, w, o);
            Element *y = (Element *)y_ + n * w.pooled + (int64_t)o * d.c;
            for (int c = 0; c < d.c; c += VEC) {
                Vec sum = {0};
                for (int p = 0; p < places; p++)
                    sum += elem_load_up_to(x + c + place_offset(d, p), d.c - c);
                elem_store_up_to(y + c, sum / (float)places, d.c - c);
            }
        }
    }
}

// ---- backward ----------------------------------------------------------------------------------

// The windows first .. last of a row (or column) of windows that hold row (column) i of the map.
typedef struct Range {
    int first, last;
} Range;

static inline Range windows_over(int i, int kernel, int stride, int count)
{
    const int first = i < kernel ? 0 : (i - kernel) / stride + 1, last = i / stride;
    return (Range){first, last < count ? last : count - 1};
}

// dx of one place (row, column) of the map: the sum over the windows that hold it, in order, which
// is rounded once. argmax NULL: each window gives its mean's share.
INLINE void place_backward(Element *dx, const Element *dy, const uint8_t *argmax, PoolDims d,
                           Windows w, int row, int column)
{
    const Range down = windows_over(row, d.kernel_h, d.stride, w.oh);
    const Range across = windows_over(column, d.kernel_w, d.stride, w.ow);
    for (int c = 0; c < d.c; c += VEC) {
        const int64_t count = d.c - c;
        Vec sum = {0};
        for (int i = down.first; i <= down.last; i++) {
            for (int j = across.first; j <= across.last; j++) {
                const int64_t from = (int64_t)(i * w.ow + j) * d.c + c;
                const Vec v = elem_load_up_to(dy + from, count);
                const int p = (row - i * d.stride) * d.kernel_w + column - j * d.stride;
                if (argmax)
                    sum += vec_select(vec_load_bytes_up_to(argmax + from, count) == p, v,
                                      vec_set(0.0f));
                else
                    sum += v / (float)(d.kernel_h * d.kernel_w);
            }
        }
        elem_store_up_to(dx + c, sum, count);
    }
}

INLINE void pool_backward(Element *dx, const Element *dy, const uint8_t *argmax, PoolDims d)
{
    const Windows w = windows_of(d);
#pragma omp parallel for schedule(static) num_threads(cpu_threads)
    for (int64_t n = 0; n < d.n; n++)
        for (int i = 0; i < d.h; i++)
            for (int j = 0; j < d.w; j++)
                place_backward(dx + n * w.image + ((int64_t)i * d.w + j) * d.c, dy + n * w.pooled,
                               argmax ? argmax + n * w.pooled : NULL, d, w, i, j);
}

static void maxpool_backward(void *dx, const void *dy, const uint8_t *argmax, PoolDims d)
{
    pool_backward(dx, dy, argmax, d);
}

static void avgpool_backward(void *dx, const void *dy, PoolDims d)
{
    pool_backward(dx, dy, NULL, d);
}

void cpu_pool_ops(Kernels *k)
{
    k->maxpool_forward = maxpool_forward;
    k->maxpool_backward = maxpool_backward;
    k->avgpool_forward = avgpool_forward;
    k->avgpool_backward = avgpool_backward;
}
