// What linear.cu and the check at start ask of linear_small.cu.
#ifndef KERNELS_CUDA_LINEAR_CUH
#define KERNELS_CUDA_LINEAR_CUH

#include "kernels/cuda/cuda.h"

// The operations of kernels.h in one launch each, on tensor cores, of any shape whose sides and
// terms are below 2^24; which of them are done so says linear.cu.
//   y_is_float: y is fp32 whatever the element type
void linear_small_forward(void *y, void *z, const void *x, const void *w, const float *bias,
                          Activation act, bool y_is_float, LinearDims d);
void linear_small_backward_data(void *dx, const void *dy, const void *w, const void *saved,
                                Activation act, LinearDims d);
void linear_small_backward_weight(float *dw, float *dbias, const void *dy, const void *x,
                                  GradMode mode, LinearDims d);

// How many tiles of 64x64 a product (rows,columns) has, the larger of the two tiles.
int64_t linear_small_tiles(int64_t rows, int64_t columns);

#endif
