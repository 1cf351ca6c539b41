// Convolution followed by 2x2 pooling, where it has a way of its own.
#ifndef KERNELS_CPU_CONV2D_POOL_H
#define KERNELS_CPU_CONV2D_POOL_H

#include "kernels/cpu/conv2d_output.h"
#include "kernels/kernels.h"

// conv2d_pool_backward_f32.c, conv2d_pool_backward_bf16.c
void conv_pool_backward_data(void *dx, const void *dy, const uint8_t *argmax, const void *w,
                             ConvDims d);

// conv2d_pool_grey_f32.c: fp32 where x has one channel. False: not for this shape or processor.
bool conv_pool_forward_grey(const ConvOutput *o, const float *x, const float *w, ConvDims d);
bool conv_pool_backward_weight_grey(float *dw, const float *dy, const uint8_t *argmax,
                                    const float *x, GradMode mode, ConvDims d);

#endif
