// Plan mode: the trainer's own step, run once with operations that only record.
//
// FLOP are those of matrix products and convolutions, which can be compared with what a device's
// matrix units do; the element-wise rest is bounded by its bytes. Products with the zeros of a
// padded border count, convolution outputs that no pooling window reads do not.
#include "kernels/kernels.h"

// What is only recorded does not look at its pointers.
#pragma GCC diagnostic ignored "-Wunused-parameter"

static const Kernels *device;
static Plan plan;

static void record(double flop, double bytes)
{
    plan.flop += flop;
    plan.bytes += bytes;
    plan.calls++;
}

// Bytes of n elements; of n floats where the factor is written out.
static double elements(double n)
{
    return n * (double)device->element_size;
}

static double linear_flop(LinearDims d)
{
    return 2.0 * (double)d.rows * (double)d.in * (double)d.out;
}

static double linear_bytes(LinearDims d)
{
    const double x = (double)(d.rows * d.in), y = (double)(d.rows * d.out);
    return elements(x + y) + elements((double)(d.in * d.out));
}

static double linear_weight_bytes(LinearDims d)
{
    return elements((double)(d.rows * (d.in + d.out))) + 4.0 * (double)(d.in * d.out);
}

// Outputs of the convolution, an even number of rows and columns when they are pooled.
static double conv_outputs(ConvDims d, bool pooled)
{
    int h = conv_out(d.h, d.kernel, d.stride, d.pad), w = conv_out(d.w, d.kernel, d.stride, d.pad);
    if (pooled) {
        h &= ~1;
        w &= ~1;
    }
    return (double)d.n * h * w * d.cout;
}

static double conv_weights(ConvDims d)
{
    return (double)d.cout * d.kernel * d.kernel * d.cin;
}

static double conv_flop(ConvDims d, bool pooled)
{
    return 2.0 * conv_outputs(d, pooled) * d.kernel * d.kernel * d.cin;
}

// Input and output maps; a pooled output is a quarter and has one more byte of argmax.
static double conv_bytes(ConvDims d, bool pooled)
{
    const double y = conv_outputs(d, pooled), x = (double)d.n * d.h * d.w * d.cin;
    return elements(x) + (pooled ? elements(y / 4) + y / 4 : elements(y));
}

static double map_bytes(MapDims d, int maps)
{
    return maps * elements((double)d.rows * d.channels);
}

static double pool_inputs(PoolDims d)
{
    return (double)d.n * d.h * d.w * d.c;
}

static double pool_outputs(PoolDims d)
{
    return (double)d.n * conv_out(d.h, d.kernel_h, d.stride, 0) *
           conv_out(d.w, d.kernel_w, d.stride, 0) * d.c;
}

static double optimizer_bytes(const Param *p, int count, int floats)
{
    double bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += (double)p[i].n * 4 * floats + (p[i].value ? elements((double)p[i].n) : 0);
    return bytes;
}

static double muon_flop(const Param *p, int count, int iterations)
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

// RECORD: an operation that no backend needs scratch memory for. THROUGH: the backend is asked as
// well; it is planning, asks for its scratch memory and returns.
#define RECORD(name, parameters, arguments, flop, bytes)                                           \
    static void plan_##name parameters                                                             \
    {                                                                                              \
        record(flop, bytes);                                                                       \
    }
#define THROUGH(name, parameters, arguments, flop, bytes)                                          \
    static void plan_##name parameters                                                             \
    {                                                                                              \
        record(flop, bytes);                                                                       \
        device->name arguments;                                                                    \
    }

// clang-format off
RECORD(from_f32, (void *y, const float *x, int64_t n), (y, x, n),
       0, (double)n * 4 + elements((double)n))
RECORD(to_f32, (float *y, const void *x, int64_t n), (y, x, n),
       0, (double)n * 4 + elements((double)n))
THROUGH(gather, (void *x, int32_t *labels_out, const uint8_t *images, const int32_t *labels,
                const uint32_t *ids, const uint32_t *rows, GatherDims d, Augment a),
       (x, labels_out, images, labels, ids, rows, d, a),
       0, (double)d.n * d.h * d.w * d.c + elements((double)d.n * d.h * d.w * d.c))

THROUGH(linear_forward, (void *y, void *z, const void *x, const void *w, const float *bias,
                         Activation act, LinearDims d),
        (y, z, x, w, bias, act, d),
        linear_flop(d), linear_bytes(d) + (z ? elements((double)(d.rows * d.out)) : 0))
THROUGH(linear_forward_f32,
        (float *y, const void *x, const void *w, const float *bias, LinearDims d),
        (y, x, w, bias, d), linear_flop(d), linear_bytes(d))
THROUGH(linear_backward_data, (void *dx, const void *dy, const void *w, const void *saved,
                               Activation act, LinearDims d),
        (dx, dy, w, saved, act, d),
        linear_flop(d), linear_bytes(d) + (act ? elements((double)(d.rows * d.in)) : 0))
THROUGH(linear_backward_weight, (float *dw, float *dbias, const void *dy, const void *x,
                                 GradMode mode, LinearDims d),
        (dw, dbias, dy, x, mode, d),
        linear_flop(d), linear_weight_bytes(d))

THROUGH(conv2d_forward, (void *y, void *z, float *stats, const void *x, const void *w,
                         const float *bias, Activation act, ConvDims d),
        (y, z, stats, x, w, bias, act, d),
        conv_flop(d, false), conv_bytes(d, false) + elements(conv_weights(d)) +
                             (z ? elements(conv_outputs(d, false)) : 0))
THROUGH(conv2d_pool_forward, (void *y, uint8_t *argmax, float *stats, const void *x, const void *w,
                              const float *bias, Activation act, ConvDims d),
        (y, argmax, stats, x, w, bias, act, d),
        conv_flop(d, true), conv_bytes(d, true) + elements(conv_weights(d)))
THROUGH(conv2d_backward_data, (void *dx, const void *dy, const void *w, ConvDims d), (dx, dy, w, d),
        conv_flop(d, false), conv_bytes(d, false) + elements(conv_weights(d)))
THROUGH(conv2d_backward_weight, (float *dw, const void *dy, const void *x, GradMode mode,
                                 ConvDims d),
        (dw, dy, x, mode, d),
        conv_flop(d, false), conv_bytes(d, false) + 4 * conv_weights(d))
THROUGH(conv2d_pool_backward_data, (void *dx, const void *dy, const uint8_t *argmax, const void *w,
                                    ConvDims d),
        (dx, dy, argmax, w, d),
        conv_flop(d, true), conv_bytes(d, true) + elements(conv_weights(d)))
THROUGH(conv2d_pool_backward_weight, (float *dw, const void *dy, const uint8_t *argmax,
                                      const void *x, GradMode mode, ConvDims d),
        (dw, dy, argmax, x, mode, d),
        conv_flop(d, true), conv_bytes(d, true) + 4 * conv_weights(d))

RECORD(activation_forward, (void *y, const void *x, Activation act, int64_t n), (y, x, act, n),
       0, elements(2.0 * (double)n))
RECORD(activation_backward, (void *dx, const void *dy, const void *saved, Activation act,
                             int64_t n),
       (dx, dy, saved, act, n),
       0, elements(3.0 * (double)n))
THROUGH(bias_act_backward, (void *dz, float *dbias, const void *dy, const void *saved,
                            Activation act, GradMode mode, MapDims d),
        (dz, dbias, dy, saved, act, mode, d),
        0, map_bytes(d, 1 + (act != ACT_NONE) + (dz != NULL)))

THROUGH(norm_stats, (float *stats, const void *x, MapDims d), (stats, x, d), 0, map_bytes(d, 1))
THROUGH(norm_act_forward, (void *y, const Norm *n, const void *x, Activation act, MapDims d),
        (y, n, x, act, d),
        0, map_bytes(d, 2))
THROUGH(norm_act_inference, (void *y, const Norm *n, const void *x, Activation act, MapDims d),
        (y, n, x, act, d),
        0, map_bytes(d, 2))
THROUGH(norm_act_backward_sums, (const Norm *n, const void *dy, const void *x, Activation act,
                                 MapDims d),
        (n, dy, x, act, d),
        0, map_bytes(d, 2))
THROUGH(norm_act_backward, (void *dx, const Norm *n, const void *dy, const void *x, Activation act,
                            GradMode mode, MapDims d),
        (dx, n, dy, x, act, mode, d),
        0, map_bytes(d, 3))

RECORD(maxpool_forward, (void *y, uint8_t *argmax, const void *x, PoolDims d), (y, argmax, x, d),
       0, elements(pool_inputs(d) + pool_outputs(d)) + pool_outputs(d))
RECORD(maxpool_backward, (void *dx, const void *dy, const uint8_t *argmax, PoolDims d),
       (dx, dy, argmax, d),
       0, elements(pool_inputs(d) + pool_outputs(d)) + pool_outputs(d))
RECORD(avgpool_forward, (void *y, const void *x, PoolDims d), (y, x, d),
       0, elements(pool_inputs(d) + pool_outputs(d)))
RECORD(avgpool_backward, (void *dx, const void *dy, PoolDims d), (dx, dy, d),
       0, elements(pool_inputs(d) + pool_outputs(d)))

RECORD(dropout, (void *y, const void *x, const uint32_t *ids, float rate, int layer, int64_t n,
                 int64_t per_sample),
       (y, x, ids, rate, layer, n, per_sample),
       0, elements(2.0 * (double)(n * per_sample)))
RECORD(add, (void *y, const void *a, const void *b, int64_t n), (y, a, b, n),
       0, elements(3.0 * (double)n))
THROUGH(softmax_cross_entropy, (float *metrics, void *dlogits, const float *logits,
                                const int32_t *labels, LossDims d),
        (metrics, dlogits, logits, labels, d),
        0, (double)d.rows * d.classes * 4 + (dlogits ? elements((double)d.rows * d.classes) : 0))

RECORD(sgd_update, (const Param *p, int count, Sgd c), (p, count, c),
       0, optimizer_bytes(p, count, 5))
RECORD(adamw_update, (const Param *p, int count, AdamW c), (p, count, c),
       0, optimizer_bytes(p, count, 7))
THROUGH(muon_update, (const Param *p, int count, Muon c), (p, count, c),
        muon_flop(p, count, c.iterations), optimizer_bytes(p, count, 5))
THROUGH(clip_gradients, (float *norm, const Param *p, int count, float max_norm),
        (norm, p, count, max_norm),
        0, optimizer_bytes(p, count, 3))
RECORD(ema_update, (float *ema, const float *x, int decay_slot, int64_t n), (ema, x, decay_slot, n),
       0, 12.0 * (double)n)
RECORD(axpy, (float *y, float a, int s, const float *x, int64_t n), (y, a, s, x, n),
       0, 12.0 * (double)n)
RECORD(scale, (float *y, float a, int s, const float *x, int64_t n), (y, a, s, x, n),
       0, 8.0 * (double)n)
RECORD(multiply, (float *y, const float *a, const float *b, int64_t n), (y, a, b, n),
       0, 12.0 * (double)n)
RECORD(sqrt_divide, (float *y, const float *a, const float *b, float eps, int64_t n),
       (y, a, b, eps, n),
       0, 12.0 * (double)n)
THROUGH(dot, (float *result, const float *a, const float *b, int64_t n), (result, a, b, n),
        0, 8.0 * (double)n)
// clang-format on

static void skip_transfer(void *dst, const void *src, size_t bytes)
{
}

static void skip_zero(void *p, size_t bytes)
{
}

static bool skip_begin(int variant, const StepValues *values)
{
    return true;
}

static void skip(void)
{
}

// clang-format off
#define OPERATIONS(X)                                                                              \
    X(from_f32) X(to_f32) X(gather)                                                                \
    X(linear_forward) X(linear_forward_f32) X(linear_backward_data) X(linear_backward_weight)      \
    X(conv2d_forward) X(conv2d_pool_forward) X(conv2d_backward_data) X(conv2d_backward_weight)     \
    X(conv2d_pool_backward_data) X(conv2d_pool_backward_weight)                                    \
    X(activation_forward) X(activation_backward) X(bias_act_backward)                              \
    X(norm_stats) X(norm_act_forward) X(norm_act_inference) X(norm_act_backward_sums)              \
    X(norm_act_backward) X(maxpool_forward) X(maxpool_backward) X(avgpool_forward)                 \
    X(avgpool_backward) X(dropout) X(add) X(softmax_cross_entropy)                                 \
    X(sgd_update) X(adamw_update) X(muon_update) X(clip_gradients) X(ema_update)                   \
    X(axpy) X(scale) X(multiply) X(sqrt_divide) X(dot)
// clang-format on

const Kernels *kernels_plan_begin(const Kernels *k)
{
    static Kernels table;
    Error ignored; // only turning it off allocates, and can fail
    device = k;
    plan = (Plan){0};
    table = *k;
    table.upload = table.download = table.copy = skip_transfer;
    table.zero = skip_zero;
    table.synchronize = table.step_end = skip;
    table.step_begin = skip_begin;
#define SET_OPERATION(name) table.name = plan_##name;
    OPERATIONS(SET_OPERATION)
    k->planning(true, &ignored);
    return &table;
}

int kernels_plan_end(Plan *result, Error *e)
{
    *result = plan;
    return device->planning(false, e);
}
