// Integer arithmetic of sizes, and of their parts.
#ifndef KERNELS_CPU_INTEGER_H
#define KERNELS_CPU_INTEGER_H

#include <stdint.h>

static inline int64_t min_int64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int min_int(int64_t a, int64_t b)
{
    return (int)(a < b ? a : b);
}

static inline int max_int(int64_t a, int64_t b)
{
    return (int)(a > b ? a : b);
}

static inline int64_t div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

// Where part `i` of `parts` nearly equal ones of 0..n starts.
static inline int64_t part_start(int64_t n, int64_t i, int64_t parts)
{
    return n * i / parts;
}

#endif
