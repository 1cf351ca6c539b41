// What a call of each operation costs, for kernels/plan.c and kernels/operation_times.c:
// arithmetic, memory traffic, and its shape in words. A file that includes this first declares
// `static const Kernels *device`, whose elements are counted.
//
// FLOP are those of matrix products and convolutions, which can be compared with what a device's
// matrix units do; the element-wise rest is bounded by its bytes. Products with the zeros of a
// padded border count, convolution outputs that no pooling window reads do not. A faster algorithm
// (Winograd's) is counted as the direct one. Bytes are each operand read or written once.
#ifndef KERNELS_COST_H
#define KERNELS_COST_H

#include <assert.h>
#include <stdio.h>

#include "kernels/kernels.h"

// ---- arithmetic and bytes ----------------------------------------------------------------------

// Bytes of n elements; of n floats where the factor is written out.
static inline double elements(double n)
{
    return n * (double)device->element_size;
}

static inline double linear_flop(LinearDims d)
{
    return 2.0 * (double)d.rows * (double)d.in * (double)d.out;
}

static inline double linear_bytes(LinearDims d)
{
    const double x = (double)(d.rows * d.in), y = (double)(d.rows * d.out);
    return elements(x + y) + elements((double)(d.in * d.out));
}

static inline double linear_weight_bytes(LinearDims d)
{
    return elements((double)(d.rows * (d.in + d.out))) + 4.0 * (double)(d.in * d.out);
}

// Outputs of the convolution, an even number of rows and columns when they are pooled.
static inline double conv_outputs(ConvDims d, bool pooled)
{
    assert(d.kernel >= 1 && d.kernel <= 7 && d.stride >= 1 && d.stride <= 2);
    assert(d.pad >= 0 && d.pad < d.kernel);
    int h = conv_out(d.h, d.kernel, d.stride, d.pad), w = conv_out(d.w, d.kernel, d.stride, d.pad);
    if (pooled) {
        h &= ~1;
        w &= ~1;
    }
    return (double)d.n * h * w * d.cout;
}

static inline double conv_inputs(ConvDims d)
{
    return (double)d.n * d.h * d.w * d.cin;
}

static inline double conv_weights(ConvDims d)
{
    return (double)d.cout * d.kernel * d.kernel * d.cin;
}

static inline double conv_flop(ConvDims d, bool pooled)
{
    return 2.0 * conv_outputs(d, pooled) * d.kernel * d.kernel * d.cin;
}

// Input and output maps; a pooled output is a quarter and has one more byte of argmax.
static inline double conv_bytes(ConvDims d, bool pooled)
{
    const double y = conv_outputs(d, pooled);
    return elements(conv_inputs(d)) + (pooled ? elements(y / 4) + y / 4 : elements(y));
}

static inline double map_bytes(MapDims d, int maps)
{
    return maps * elements((double)d.rows * d.channels);
}

static inline double pool_inputs(PoolDims d)
{
    assert(d.stride >= 1 && d.kernel_h >= 1 && d.kernel_w >= 1);
    return (double)d.n * d.h * d.w * d.c;
}

// An argmax is a byte.
static inline double maxpool_inputs(PoolDims d)
{
    assert(d.kernel_h * d.kernel_w <= 256);
    return pool_inputs(d);
}

static inline double pool_outputs(PoolDims d)
{
    return (double)d.n * conv_out(d.h, d.kernel_h, d.stride, 0) *
           conv_out(d.w, d.kernel_w, d.stride, 0) * d.c;
}

static inline double optimizer_bytes(const Param *p, int count, int floats)
{
    double bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += (double)p[i].n * 4 * floats + (p[i].value ? elements((double)p[i].n) : 0);
    return bytes;
}

static inline double muon_flop(const Param *p, int count, int iterations)
{
    double flop = 0;
    for (int i = 0; i < count; i++) {
        const double rows = (double)p[i].rows, columns = (double)p[i].n / rows;
        const double small = rows < columns ? rows : columns;
        flop +=
            iterations * (4 * small * small * (rows + columns - small) + 2 * small * small * small);
    }
    return flop;
}

// ---- shapes in words, without blanks ------------------------------------------------------------

typedef struct CallShape {
    char text[40];
} CallShape;

#define CALL_SHAPE(...)                                                                            \
    __extension__({                                                                                \
        CallShape shape_;                                                                          \
        snprintf(shape_.text, sizeof shape_.text, __VA_ARGS__);                                    \
        shape_;                                                                                    \
    })

static inline const char *shape_act(Activation act)
{
#define COMMA_AND_NAME(act, name, with) "," name,
    static const char *const names[] = {EACH_ACTIVATION(COMMA_AND_NAME, )};
    return act == ACT_NONE ? "" : names[act];
}

static inline CallShape shape_vector(int64_t n)
{
    return CALL_SHAPE("%lld", (long long)n);
}

static inline CallShape shape_activation(int64_t n, Activation act)
{
    return CALL_SHAPE("%lld%s", (long long)n, shape_act(act));
}

static inline CallShape shape_gather(GatherDims d)
{
    return CALL_SHAPE("%lldx%dx%dx%d", (long long)d.n, d.h, d.w, d.c);
}

static inline CallShape shape_linear(LinearDims d, Activation act)
{
    return CALL_SHAPE("%lldx%lld->%lld%s", (long long)d.rows, (long long)d.in, (long long)d.out,
                      shape_act(act));
}

static inline CallShape shape_conv(ConvDims d, Activation act)
{
    return CALL_SHAPE("%lldx%dx%dx%d->%d,k%d%s%s", (long long)d.n, d.h, d.w, d.cin, d.cout,
                      d.kernel, d.stride == 2 ? "s2" : "", shape_act(act));
}

static inline CallShape shape_map(MapDims d, Activation act)
{
    return CALL_SHAPE("%lldx%d%s", (long long)d.rows, d.channels, shape_act(act));
}

static inline CallShape shape_pool(PoolDims d)
{
    return CALL_SHAPE("%lldx%dx%dx%d,k%dx%d", (long long)d.n, d.h, d.w, d.c, d.kernel_h,
                      d.kernel_w);
}

static inline CallShape shape_params(const Param *p, int count)
{
    int64_t n = 0;
    for (int i = 0; i < count; i++) n += p[i].n;
    return CALL_SHAPE("%lld", (long long)n);
}

#endif
