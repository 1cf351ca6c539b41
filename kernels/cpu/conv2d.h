// Convolution and its data gradient, by the way that is fastest for the shape.
#ifndef KERNELS_CPU_CONV2D_H
#define KERNELS_CPU_CONV2D_H

#include "kernels/cpu/conv2d_output.h"

// x (n,h,w,cin), w (cout,kernel,kernel,cin)
void conv_forward(const ConvOutput *o, const Element *x, const Element *w, ConvDims d);
// Without argmax, dy is the gradient of the convolution's output; with it, of the pooled map.
void conv_backward_data(Element *dx, const Element *dy, const uint8_t *argmax, const Element *w,
                        ConvDims d);

#endif
