// Every operation of kernels.h in fp64, written as plainly as possible: the specification by code.
// Each backend is compared with it (kernels/check.h) and its backward passes with central
// differences (tests/test_reference.c). Arguments are those of kernels.h; what is an element or a
// float there is a double here, and host memory.
#ifndef KERNELS_REFERENCE_H
#define KERNELS_REFERENCE_H

#include "kernels/kernels.h"

typedef struct RefNorm {
    double *stats, *sums, *running_mean, *running_var;
    const double *weight, *bias;
    double *dweight, *dbias;
    double eps, momentum;
} RefNorm;

// As Param; the working copy follows from master.
typedef struct RefParam {
    double *master, *grad, *state1, *state2;
    int64_t n, rows;
    int lr;
    double decay;
} RefParam;

void ref_gather(double *x, int32_t *labels_out, const uint8_t *images, const int32_t *labels,
                const uint32_t *ids, const uint32_t *rows, GatherDims d, Augment a,
                const StepValues *values);

void ref_linear_forward(double *y, double *z, const double *x, const double *w, const double *bias,
                        Activation act, LinearDims d);
void ref_linear_backward_data(double *dx, const double *dy, const double *w, const double *saved,
                              Activation act, LinearDims d);
void ref_linear_backward_weight(double *dw, double *dbias, const double *dy, const double *x,
                                GradMode mode, LinearDims d);

void ref_conv2d_forward(double *y, double *z, double *stats, const double *x, const double *w,
                        const double *bias, Activation act, ConvDims d);
void ref_conv2d_pool_forward(double *y, uint8_t *argmax, double *stats, const double *x,
                             const double *w, const double *bias, Activation act, ConvDims d);
void ref_conv2d_backward_data(double *dx, const double *dy, const double *w, ConvDims d);
void ref_conv2d_backward_weight(double *dw, const double *dy, const double *x, GradMode mode,
                                ConvDims d);
void ref_conv2d_pool_backward_data(double *dx, const double *dy, const uint8_t *argmax,
                                   const double *w, ConvDims d);
void ref_conv2d_pool_backward_weight(double *dw, const double *dy, const uint8_t *argmax,
                                     const double *x, GradMode mode, ConvDims d);

// An activation at x, and what bounds the error of a device that computes it.
typedef struct RefActivation {
    double y, derivative; // act(x), act'(x)
    double max_slope;     // of |act'| everywhere
    double max_curvature; // of |act''| everywhere but at a kink
    double kink;          // at x = 0 act' jumps by this; act'(0) is that of x < 0
    bool exact;           // fp32 gives act(x) and act'(x) without rounding
    bool from_y;          // y is what is saved for the backward pass, and act'(y) = act'(x)
} RefActivation;
RefActivation ref_activation(Activation act, double x);

double ref_act(double x, Activation act);
double ref_act_grad(double saved, Activation act); // act'(saved), saved as activation_backward's
void ref_activation_forward(double *y, const double *x, Activation act, int64_t n);
void ref_activation_backward(double *dx, const double *dy, const double *saved, Activation act,
                             int64_t n);
void ref_bias_act_backward(double *dz, double *dbias, const double *dy, const double *saved,
                           Activation act, GradMode mode, MapDims d);

void ref_norm_stats(double *stats, const double *x, MapDims d);
void ref_norm_merge(double *stats, const double *all, int parts, int channels);
void ref_norm_act_forward(double *y, const RefNorm *n, const double *x, Activation act, MapDims d);
void ref_norm_act_inference(double *y, const RefNorm *n, const double *x, Activation act,
                            MapDims d);
void ref_norm_act_backward_sums(const RefNorm *n, const double *dy, const double *x, Activation act,
                                MapDims d);
void ref_norm_act_backward(double *dx, const RefNorm *n, const double *dy, const double *x,
                           Activation act, GradMode mode, MapDims d);

void ref_conv2d_norm_backward_data(double *dz, const RefNorm *n, const double *dy, const double *w,
                                   const double *x, Activation act, ConvDims d);
void ref_conv2d_pool_norm_backward_data(double *dz, const RefNorm *n, const double *dy,
                                        const uint8_t *argmax, const double *w, const double *x,
                                        Activation act, ConvDims d);
void ref_conv2d_norm_inference(double *y, const RefNorm *n, const double *x, const double *w,
                               Activation act, ConvDims d);
void ref_conv2d_pool_norm_inference(double *y, const RefNorm *n, const double *x, const double *w,
                                    Activation act, ConvDims d);

void ref_maxpool_forward(double *y, uint8_t *argmax, const double *x, PoolDims d);
void ref_maxpool_backward(double *dx, const double *dy, const uint8_t *argmax, PoolDims d);
void ref_avgpool_forward(double *y, const double *x, PoolDims d);
void ref_avgpool_backward(double *dx, const double *dy, PoolDims d);

void ref_dropout(double *y, const double *x, const uint32_t *ids, float rate, int layer, int64_t n,
                 int64_t per_sample, const StepValues *values);
void ref_add(double *y, const double *a, const double *b, int64_t n);

void ref_softmax_cross_entropy(double *metrics, double *dlogits, const double *logits,
                               const int32_t *labels, LossDims d);
void ref_mean_squared_error(double *metrics, double *dy, const double *y, const double *target,
                            double grad_scale, MapDims d);

void ref_sgd_update(const RefParam *p, int count, Sgd c, const StepValues *values);
void ref_adamw_update(const RefParam *p, int count, AdamW c, const StepValues *values);
void ref_muon_update(const RefParam *p, int count, Muon c, const StepValues *values);
void ref_clip_gradients(double *norm, const RefParam *p, int count, double max_norm);
void ref_ema_update(double *ema, const double *x, double decay, int64_t n);

// `a` is a * hyper[s] here.
void ref_axpy(double *y, double a, const double *x, int64_t n);
void ref_scale(double *y, double a, const double *x, int64_t n);
void ref_multiply(double *y, const double *a, const double *b, int64_t n);
void ref_sqrt_divide(double *y, const double *a, const double *b, double eps, int64_t n);
void ref_dot(double *result, const double *a, const double *b, int64_t n);

#endif
