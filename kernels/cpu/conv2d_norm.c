// Convolution next to batch norm: inference through both, and the data gradient through the norm
// and activation of the convolution's input.
#include "kernels/cpu/conv2d.h"
#include "kernels/cpu/conv2d_pool.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/norm.h"

static void norm_inference(void *y, const Norm *n, const void *x, const void *w, bool pool,
                           Activation act, ConvDims d)
{
    cpu_nested(true); // beside the convolution's
    float *const scale = cpu_scratch((size_t)d.cout * sizeof *scale);
    cpu_nested(false);
    if (scale) norm_running_scale(scale, n, d.cout);
    const ConvOutput o = {.y = y,
                          .pool = pool,
                          .mean = n->running_mean,
                          .scale = scale,
                          .bias = n->bias,
                          .act = act,
                          .channels = d.cout};
    conv_forward(&o, x, w, d);
}

static void conv2d_norm_inference(void *y, const Norm *n, const void *x, const void *w,
                                  Activation act, ConvDims d)
{
    norm_inference(y, n, x, w, false, act, d);
}

static void conv2d_pool_norm_inference(void *y, const Norm *n, const void *x, const void *w,
                                       Activation act, ConvDims d)
{
    norm_inference(y, n, x, w, true, act, d);
}

// The convolution's gradient goes through memory: most ways to compute it finish in other orders
// than the sums are made in.
static void conv2d_norm_backward_data(void *dz, const Norm *n, const void *dy, const void *w,
                                      const void *x, Activation act, ConvDims d)
{
    conv_backward_data(dz, dy, NULL, w, d);
    norm_backward_dz(dz, n, dz, x, act, (MapDims){d.n * d.h * d.w, d.cin});
}

static void conv2d_pool_norm_backward_data(void *dz, const Norm *n, const void *dy,
                                           const uint8_t *argmax, const void *w, const void *x,
                                           Activation act, ConvDims d)
{
    conv_pool_backward_data(dz, dy, argmax, w, d);
    norm_backward_dz(dz, n, dz, x, act, (MapDims){d.n * d.h * d.w, d.cin});
}

void cpu_conv2d_norm_ops(Kernels *k)
{
    k->conv2d_norm_inference = conv2d_norm_inference;
    k->conv2d_pool_norm_inference = conv2d_pool_norm_inference;
    k->conv2d_norm_backward_data = conv2d_norm_backward_data;
    k->conv2d_pool_norm_backward_data = conv2d_pool_norm_backward_data;
}
