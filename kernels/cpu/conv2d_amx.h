// Convolution by the matrix unit, for bfloat16. Each returns false where the shape or the processor
// is not for this way, and has then done nothing.
#ifndef KERNELS_CPU_CONV2D_AMX_H
#define KERNELS_CPU_CONV2D_AMX_H

#include "kernels/cpu/conv2d_output.h"
#include "kernels/cpu/conv2d_units.h"

// conv2d_amx_bf16.c
bool conv_slide_amx(const ConvOutput *o, const ConvSlide *slide);
// conv2d_weight_amx_bf16.c: conv_backward_weight().
bool conv_backward_weight_amx(float *dw, const Element *dy, const uint8_t *argmax, const Element *x,
                              GradMode mode, ConvDims d);

#endif
