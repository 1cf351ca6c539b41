// Pooling, NHWC. Floor: the bytes of the maps. A thread has whole images; within one, vectors run
// over the channels.
#include <math.h>

#include "kernels/cpu/activation.h"

typedef uint8_t VecByte __attribute__((vector_size(VEC)));

typedef struct Windows {
    int oh, ow;
    int64_t image, pooled; // floats of an image of the map and of its pooled map
} Windows;

static Windows windows_of(PoolDims d)
{
    const int oh = conv_out(d.h, d.kernel_h, d.stride, 0),
              ow = conv_out(d.w, d.kernel_w, d.stride, 0);
    return (Windows){oh, ow, (int64_t)d.h * d.w * d.c, (int64_t)oh * ow * d.c};
}

// Where window `o` = row * ow + column of an image starts, in floats.
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

static inline VecInt load_places(const uint8_t *argmax, int64_t count)
{
    VecByte bytes = {0};
    memcpy(&bytes, argmax, count < VEC ? (size_t)count : (size_t)VEC);
    return __builtin_convertvector(bytes, VecInt);
}

// A NaN is the largest of all, so that it is seen further on.
static void maxpool_window(float *y, uint8_t *argmax, const float *x, PoolDims d)
{
    for (int c = 0; c < d.c; c += VEC) {
        Vec largest = vec_load_up_to(x + c, d.c - c);
        VecInt place = {0};
        for (int p = 1; p < d.kernel_h * d.kernel_w; p++) {
            const Vec v = vec_load_up_to(x + c + place_offset(d, p), d.c - c);
            const VecInt better = ((v > largest) | (v != v)) & (largest == largest);
            largest = vec_select(better, v, largest);
            place = (better & p) | (~better & place);
        }
        vec_store_up_to(y + c, largest, d.c - c);
        store_places(argmax + c, place, d.c - c);
    }
}

static void maxpool_forward(void *y_, uint8_t *argmax, const void *x_, PoolDims d)
{
    const Windows w = windows_of(d);
#pragma omp parallel for schedule(static) num_threads(cpu_threads)
    for (int64_t n = 0; n < d.n; n++) {
        const float *x = (const float *)x_ + n * w.image;
        float *y = (float *)y_ + n * w.pooled;
        for (int o = 0; o < w.oh * w.ow; o++)
            maxpool_window(y + o * d.c, argmax + n * w.pooled + o * d.c, x + window_start(d, w, o),
                           d);
    }
}

// Windows may overlap, so every place of a window is added to.
static void maxpool_backward(void *dx_, const void *dy_, const uint8_t *argmax, PoolDims d)
{
    const Windows w = windows_of(d);
#pragma omp parallel for schedule(static) num_threads(cpu_threads)
    for (int64_t n = 0; n < d.n; n++) {
        float *dx = (float *)dx_ + n * w.image;
        memset(dx, 0, (size_t)w.image * sizeof *dx);
        for (int o = 0; o < w.oh * w.ow; o++) {
            const int64_t from = n * w.pooled + (int64_t)o * d.c, start = window_start(d, w, o);
            for (int c = 0; c < d.c; c += VEC) {
                const int64_t count = d.c - c;
                const Vec dy = vec_load_up_to((const float *)dy_ + from + c, count);
                const VecInt place = load_places(argmax + from + c, count);
                for (int p = 0; p < d.kernel_h * d.kernel_w; p++) {
                    float *to = dx + start + c + place_offset(d, p);
                    const Vec own = vec_select(place == p, dy, vec_set(0.0f));
                    vec_store_up_to(to, vec_load_up_to(to, count) + own, count);
                }
            }
        }
    }
}

static void avgpool_forward(void *y_, const void *x_, PoolDims d)
{
    const Windows w = windows_of(d);
    const int places = d.kernel_h * d.kernel_w;
#pragma omp parallel for schedule(static) num_threads(cpu_threads)
    for (int64_t n = 0; n < d.n; n++) {
        for (int o = 0; o < w.oh * w.ow; o++) {
            const float *x = (const float *)x_ + n * w.image + window_start(d, w, o);
            float *y = (float *)y_ + n * w.pooled + (int64_t)o * d.c;
            for (int c = 0; c < d.c; c += VEC) {
                Vec sum = {0};
                for (int p = 0; p < places; p++)
                    sum += vec_load_up_to(x + c + place_offset(d, p), d.c - c);
                vec_store_up_to(y + c, sum / (float)places, d.c - c);
            }
        }
    }
}

static void avgpool_backward(void *dx_, const void *dy_, PoolDims d)
{
    const Windows w = windows_of(d);
    const int places = d.kernel_h * d.kernel_w;
#pragma omp parallel for schedule(static) num_threads(cpu_threads)
    for (int64_t n = 0; n < d.n; n++) {
        float *dx = (float *)dx_ + n * w.image;
        memset(dx, 0, (size_t)w.image * sizeof *dx);
        for (int o = 0; o < w.oh * w.ow; o++) {
            const float *dy = (const float *)dy_ + n * w.pooled + (int64_t)o * d.c;
            for (int p = 0; p < places; p++) {
                float *to = dx + window_start(d, w, o) + place_offset(d, p);
                for (int c = 0; c < d.c; c++) to[c] += dy[c] / (float)places;
            }
        }
    }
}

void cpu_pool_ops(Kernels *k)
{
    k->maxpool_forward = maxpool_forward;
    k->maxpool_backward = maxpool_backward;
    k->avgpool_forward = avgpool_forward;
    k->avgpool_backward = avgpool_backward;
}
