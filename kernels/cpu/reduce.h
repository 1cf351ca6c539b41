// Sums over long vectors: blocks of a fixed size in double, then the blocks in order.
#ifndef KERNELS_CPU_REDUCE_H
#define KERNELS_CPU_REDUCE_H

#include "kernels/cpu/cpu.h"

enum { REDUCE_BLOCK = 16384 };

static inline int64_t reduce_blocks(int64_t n)
{
    return (n + REDUCE_BLOCK - 1) / REDUCE_BLOCK;
}

// Block `block` of a (n) times b (n).
static inline double reduce_dot_block(const float *a, const float *b, int64_t n, int64_t block)
{
    const int64_t first = block * REDUCE_BLOCK;
    const int64_t last = first + REDUCE_BLOCK < n ? first + REDUCE_BLOCK : n;
    double lanes[16] = {0}, sum = 0;
    int64_t i = first;
    for (; i + 16 <= last; i += 16) {
        __builtin_prefetch(a + i + 1024);
        __builtin_prefetch(b + i + 1024);
        for (int j = 0; j < 16; j++) lanes[j] += (double)a[i + j] * (double)b[i + j];
    }
    for (int j = 0; i + j < last; j++) lanes[j] += (double)a[i + j] * (double)b[i + j];
    for (int j = 0; j < 16; j++) sum += lanes[j];
    return sum;
}

// partial: reduce_blocks(n) doubles to work in.
static inline double reduce_dot(double *partial, const float *a, const float *b, int64_t n)
{
    const int64_t blocks = reduce_blocks(n);
#pragma omp parallel for schedule(static) num_threads(cpu_threads) if (blocks > 1)
    for (int64_t i = 0; i < blocks; i++) partial[i] = reduce_dot_block(a, b, n, i);
    double sum = 0;
    for (int64_t i = 0; i < blocks; i++) sum += partial[i];
    return sum;
}

#endif
