// The convolutions of the CIFAR network, for the benchmarks: shapes, and calls of the table.
#ifndef BENCH_LAYERS_H
#define BENCH_LAYERS_H

#include "bench/bench.h"

typedef struct Layer {
    const char *name;
    bool pool;
    ConvDims d;
} Layer;

static const Layer layers[] = {
    {"whiten 3->24 @32", false, {0, 32, 32, 3, 24, 2, 1, 0}},
    {"24->64 @31 pool", true, {0, 31, 31, 24, 64, 3, 1, 1}},
    {"64->64 @15", false, {0, 15, 15, 64, 64, 3, 1, 1}},
    {"64->256 @15 pool", true, {0, 15, 15, 64, 256, 3, 1, 1}},
    {"256->256 @7", false, {0, 7, 7, 256, 256, 3, 1, 1}},
    {"256->256 @7 pool", true, {0, 7, 7, 256, 256, 3, 1, 1}},
    {"256->256 @3", false, {0, 3, 3, 256, 256, 3, 1, 1}},
};
enum { LAYERS = sizeof layers / sizeof *layers, FORWARD = 0, DATA, WEIGHT, OPERATIONS };

typedef struct LayerTensors {
    void *x, *w, *y, *dx; // y large enough for the convolution's output, pooled or not
    float *dw, *stats;
    uint8_t *argmax;
} LayerTensors;

// Elements in [-1, 1).
static inline void *layer_elements(const Kernels *k, int64_t n)
{
    float *values = bench_values(k, n);
    void *elements = bench_values(k, n);
    k->from_f32(elements, values, n);
    k->release(values);
    return elements;
}

static inline LayerTensors layer_tensors(const Kernels *k, ConvDims d)
{
    const int64_t x = d.n * d.h * d.w * d.cin, y = d.n * (d.h + 2) * (d.w + 2) * d.cout,
                  w = (int64_t)d.cout * d.kernel * d.kernel * d.cin;
    return (LayerTensors){layer_elements(k, x), layer_elements(k, w), layer_elements(k, y),
                          layer_elements(k, x), bench_values(k, w),   bench_values(k, 3 * d.cout),
                          k->alloc((size_t)y)};
}

static inline void layer_release(const Kernels *k, const LayerTensors *t)
{
    void *const all[] = {t->x, t->w, t->y, t->dx, t->dw, t->stats, t->argmax};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) k->release(all[i]);
}

static inline void layer_call(const Kernels *k, int operation, bool pool, const LayerTensors *t,
                              ConvDims d)
{
    if (operation == FORWARD && pool)
        k->conv2d_pool_forward(t->y, t->argmax, t->stats, t->x, t->w, NULL, ACT_NONE, d);
    else if (operation == FORWARD)
        k->conv2d_forward(t->y, NULL, t->stats, t->x, t->w, NULL, ACT_NONE, d);
    else if (operation == DATA && pool)
        k->conv2d_pool_backward_data(t->dx, t->y, t->argmax, t->w, d);
    else if (operation == DATA)
        k->conv2d_backward_data(t->dx, t->y, t->w, d);
    else if (pool)
        k->conv2d_pool_backward_weight(t->dw, t->y, t->argmax, t->x, SET, d);
    else
        k->conv2d_backward_weight(t->dw, t->y, t->x, SET, d);
}

static inline double layer_flop(bool pool, ConvDims d)
{
    int h = conv_out(d.h, d.kernel, d.stride, d.pad), w = conv_out(d.w, d.kernel, d.stride, d.pad);
    if (pool) h = h / 2 * 2, w = w / 2 * 2;
    return 2.0 * (double)d.n * h * w * d.cout * d.kernel * d.kernel * d.cin;
}

#endif
