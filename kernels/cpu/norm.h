// What the convolutions need of batch norm (norm.c).
#ifndef KERNELS_CPU_NORM_H
#define KERNELS_CPU_NORM_H

#include "kernels/cpu/element.h"
#include "kernels/kernels.h"

// scale (channels) = weight / sqrt(running_var + eps).
void norm_running_scale(float *scale, const Norm *n, int channels);
// dz = dy * act'(z), and n->sums of it as it is stored; dz may be dy. dz NULL: only the sums.
void norm_backward_dz(Element *dz, const Norm *n, const Element *dy, const Element *x,
                      Activation act, MapDims d);

#endif
