// The weight gradient of the convolution, conv2d_weight_f32.c and conv2d_weight_bf16.c.
#ifndef KERNELS_CPU_CONV2D_WEIGHT_H
#define KERNELS_CPU_CONV2D_WEIGHT_H

#include "kernels/cpu/element.h"
#include "kernels/kernels.h"

// Without argmax, dy is the gradient of the convolution's output; with it, of the pooled map.
void conv_backward_weight(float *dw, const Element *dy, const uint8_t *argmax, const Element *x,
                          GradMode mode, ConvDims d);

#endif
