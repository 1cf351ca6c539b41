// What the files of the check share. A case is one call of one operation: its tensors, what the
// reference says, how far a device may be off, and the verdict.
//
// A device tensor starts as a NaN everywhere where it is an output, and has a guard behind its
// end; case_end() also verifies that inputs are what they were.
//
// Tolerances are bounds on rounding, from the unit roundoff of fp32 (U32) and of the element type
// (Case.unit), for inputs that the element type, and TF32 where products round to it, hold exactly:
//   sum of K products   |error| <= 4 (sqrt(K) + 2) U32 sum|x||w|, in any order of summation, but
//                       for one case in 1e14 (Higham & Mary 2019, theorem 2.4, lambda = 4; twice
//                       the terms: the product rounds too)
//   storing y           Case.unit |y|, twice where a fused operation may round in between
//   elementary function 8 U32 of its scale
// and through y = f(x): |f'| times the error of x.
#ifndef KERNELS_CHECK_CASE_H
#define KERNELS_CHECK_CASE_H

#include <stdio.h>

#include "kernels/kernels.h"

#define U32 0x1p-24 // unit roundoff of fp32

typedef enum { ELEMENT, FLOAT, INT32, BYTE } Kind;

typedef struct Tensor {
    Kind kind;
    int64_t n;
    void *device;
    void *raw;     // what was uploaded; INT32 and BYTE: also what the reference reads and writes
    double *value; // ELEMENT and FLOAT: what the reference reads and writes
    double *tol;   // allowed difference of each value; starts at 0
    bool expected; // an output that was compared
} Tensor;

enum { CASE_TENSORS = 160 };
typedef struct Case {
    const Kernels *k;
    bool full;
    FILE *report;
    const char *operation;
    double unit; // unit roundoff of the element type
    char shape[160];
    bool failed;
    int cases, failures; // of this operation
    uint64_t draw;       // random numbers used
    Tensor tensors[CASE_TENSORS];
    double *arrays[4 * CASE_TENSORS];
    int tensor_count, array_count;
} Case;

void case_begin(Case *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void case_end(Case *c);
void case_fail(Case *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

// The values a step gives to operations, set for what follows.
void case_step(const Case *c, const StepValues *values);

Tensor *case_random(Case *c, Kind kind, int64_t n);  // bell-shaped, mean 0, sigma 1, |x| < 3.5
Tensor *case_integer(Case *c, Kind kind, int64_t n); // -1, 0 and 1: sums are exact, with many ties
void case_nan(Case *c, Tensor *t, int64_t every);    // sets every so many values of it to NaN
Tensor *case_uniform(Case *c, Kind kind, int64_t n, int64_t below); // INT32 or BYTE
Tensor *case_output(Case *c, Kind kind, int64_t n);                 // NaN or -1
// FLOAT: an output or, for ADD, values to add to.
Tensor *case_gradient(Case *c, int64_t n, GradMode mode);
// Uploads value (rounded to the type first) or raw.
void case_upload(Case *c, Tensor *t);
// Downloads into doubles that the case owns.
double *case_download(Case *c, const Tensor *t);
// Compares the device's tensor with value and tol, or raw.
void case_expect(Case *c, Tensor *t, const char *name);

double *case_array(Case *c, int64_t n);                // zeroed
double *case_abs(Case *c, const Tensor *t);            // NULL: NULL
double case_round(const Case *c, Kind kind, double x); // to the nearest value of the type

static inline void *dev(const Tensor *t)
{
    return t ? t->device : NULL;
}

static inline double *val(const Tensor *t)
{
    return t ? t->value : NULL;
}

const char *act_name(Activation act);

// The activation of case i over so many shapes: in each round over them, each meets the next.
static inline Activation case_act(int i, int shapes)
{
    return (Activation)((i % shapes + i / shapes) % ACTIVATIONS);
}

// The bounds above. `dx` is the error of x.
double sum_error(double terms, double magnitude);
double act_max_slope(Activation act);
double act_error(Activation act, double x, double dx);
double act_grad_error(Activation act, double x, double dx);
// stats (3,channels) of values z that are off by up to dz each.
void stats_tolerance(double *tol, const double *z, const double *dz, MapDims d);

// One for each operation of the table, in the file that holds its family.
typedef void CheckFunction(Case *c);
CheckFunction check_memory, check_conversion, check_gather, check_dropout, check_add, check_softmax;
CheckFunction check_mean_squared_error;
CheckFunction check_activation_forward, check_activation_backward, check_bias_act_backward;
CheckFunction check_norm_stats, check_norm_merge;
CheckFunction check_norm_act_forward, check_norm_act_inference;
CheckFunction check_norm_act_backward_sums, check_norm_act_backward;
CheckFunction check_maxpool_forward, check_maxpool_backward;
CheckFunction check_avgpool_forward, check_avgpool_backward;
CheckFunction check_linear_forward, check_linear_forward_f32, check_linear_backward_data;
CheckFunction check_linear_backward_weight;
CheckFunction check_conv2d_forward, check_conv2d_pool_forward, check_conv2d_backward_data;
CheckFunction check_conv2d_backward_weight, check_conv2d_pool_backward_data;
CheckFunction check_conv2d_pool_backward_weight;
CheckFunction check_conv2d_norm_backward_data, check_conv2d_pool_norm_backward_data;
CheckFunction check_conv2d_norm_inference, check_conv2d_pool_norm_inference;
CheckFunction check_sgd_update, check_adamw_update, check_muon_update, check_clip_gradients;
CheckFunction check_ema_update, check_axpy, check_scale, check_multiply, check_sqrt_divide;
CheckFunction check_dot;

#endif
