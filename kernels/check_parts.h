// What the checks of convolutions next to batch norms take from those of both.
#ifndef KERNELS_CHECK_PARTS_H
#define KERNELS_CHECK_PARTS_H

#include "kernels/check_case.h"
#include "kernels/reference.h"

// ---- convolutions (check_conv.c) ---------------------------------------------------------------

// Of the whole list, or of the first few in the quick check.
int conv_shape_count(const Case *c);
ConvDims conv_shape(int i);
int64_t conv_inputs(ConvDims d); // values of x, y, the pooled y and w
int64_t conv_outputs(ConvDims d);
int64_t conv_pooled_outputs(ConvDims d);
int64_t conv_weights(ConvDims d);
void begin_conv(Case *c, ConvDims d, Activation act, const char *options);
Tensor *random_argmax(Case *c, ConvDims d);
// The bounds tol[n] of sums of `terms` products of magnitudes tol[n].
void conv_error(double *tol, int64_t n, double terms, ConvDims d);

// ---- norms (check_map.c) -----------------------------------------------------------------------

typedef struct NormTensors {
    Tensor *x, *dy, *stats, *sums, *running_mean, *running_var, *weight, *bias, *dweight, *dbias;
    Norm device;
    RefNorm host;
} NormTensors;

// Everything of a norm: the statistics those of x, the sums those of a backward pass or any.
NormTensors new_norm(Case *c, MapDims d, bool weight, GradMode mode, double eps);
// z = (x - mean) / sigma * weight + bias of channel c, and its error.
double norm_z(const RefNorm *n, double x, double mean, double var, int c, double *dz);
double batch_z(const RefNorm *n, double x, int c, int channels, double *dz);
// Of value i of t->x; *scale = 1 / sigma.
double norm_xhat(const NormTensors *t, int64_t i, int channels, double *scale);

#endif
