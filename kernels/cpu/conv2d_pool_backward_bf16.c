// Gradients of a convolution followed by 2x2 pooling in bfloat16: the dense ones, on the gradient
// spread out to its places. The matrix unit is so fast that going to the places alone does not pay.
#include "kernels/cpu/conv2d.h"
#include "kernels/cpu/conv2d_pool.h"
#include "kernels/cpu/conv2d_weight.h"
#include "kernels/cpu/cpu.h"

void conv_pool_backward_data(void *dx, const void *dy, const uint8_t *argmax, const void *w,
                             ConvDims d)
{
    conv_backward_data(dx, dy, argmax, w, d);
}

static void conv2d_pool_backward_weight(float *dw, const void *dy, const uint8_t *argmax,
                                        const void *x, GradMode mode, ConvDims d)
{
    conv_backward_weight(dw, dy, argmax, x, mode, d);
}

void cpu_conv2d_pool_backward_ops(Kernels *k)
{
    k->conv2d_pool_backward_data = conv_pool_backward_data;
    k->conv2d_pool_backward_weight = conv2d_pool_backward_weight;
}
