// What the two versions of the fully connected layer's weight gradient share.
#ifndef KERNELS_CPU_LINEAR_H
#define KERNELS_CPU_LINEAR_H

#include "kernels/cpu/element.h"
#include "kernels/cpu/gemm.h"
#include "kernels/kernels.h"

// linear_weight_f32.c, linear_weight_bf16.c
void cpu_linear_backward_weight(float *dw, float *dbias, const void *dy, const void *x,
                                GradMode mode, LinearDims d);

// dbias (out) = or += the sums of `rows` rows of dy, for one vector of columns.
static inline void linear_sum_columns(float *dbias, bool add, const Element *dy, int64_t rows,
                                      int64_t out, int64_t column)
{
    const int64_t count = out - column;
    Vec sum = {0};
    for (int64_t i = 0; i < rows; i++) sum += elem_load_up_to(dy + i * out + column, count);
    if (add) sum += vec_load_up_to(dbias + column, count);
    vec_store_up_to(dbias + column, sum, count);
}

// dw (rows,columns) of (out,in) = or += a block of sums (rows,GEMM_NR).
static inline void linear_store_gradient(float *dw, const float *c, bool add, int rows,
                                         int64_t columns, int64_t in)
{
    for (int i = 0; i < rows; i++) {
        for (int half = 0; half < GEMM_NR && half < columns; half += VEC) {
            float *const to = dw + i * in + half;
            Vec v = vec_load(c + i * GEMM_NR + half);
            if (add) v += vec_load_up_to(to, columns - half);
            vec_store_up_to(to, v, columns - half);
        }
    }
}

#endif
