// What the files of the reference share.
#ifndef KERNELS_REFERENCE_PARTS_H
#define KERNELS_REFERENCE_PARTS_H

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

// Zeros; the caller frees them.
static inline double *new_doubles(int64_t n)
{
    double *p = calloc((size_t)n + 1, sizeof *p);
    assert(p != NULL);
    return p;
}

static inline void start_gradient(double *gradient, GradMode mode, int64_t n)
{
    if (mode == SET) memset(gradient, 0, (size_t)n * sizeof *gradient);
}

#endif
