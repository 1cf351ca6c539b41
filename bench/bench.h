// What the benchmarks of bench/ share: a clock and the rate of multiply-adds.
// A machine's speed moves while others use it: what is compared runs in turn, and each figure is
// the best of BENCH_ROUNDS.
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cpu/cpu.h"

enum { BENCH_ROUNDS = 15 };

static inline double bench_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// FLOP/s of independent multiply-adds on `threads` threads, from about half a millisecond.
static inline double bench_peak(int threads)
{
    enum { CHAINS = VEC == 16 ? 24 : 12, PASSES = 40000 };
    const double start = bench_seconds();
#pragma omp parallel num_threads(threads)
    {
        Vec acc[CHAINS] = {0}, x = {0}, y = {0};
        __asm__ volatile("" : "+x"(x), "+x"(y));
        for (int pass = 0; pass < PASSES; pass++) {
#pragma GCC unroll 24
            for (int i = 0; i < CHAINS; i++) {
                acc[i] += x * y;
                __asm__ volatile("" : "+x"(acc[i]));
            }
        }
    }
    return 2.0 * VEC * CHAINS * PASSES * threads / (bench_seconds() - start);
}

// Idle threads of one library spin for about a millisecond and would slow the next one down.
static inline void bench_rest(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

static inline double bench_larger(double a, double b)
{
    return a > b ? a : b;
}

// A tensor of n values in [-1, 1).
static inline float *bench_values(const Kernels *k, int64_t n)
{
    float *v = k->alloc((size_t)n * sizeof *v);
    uint32_t state = 1;
    for (int64_t i = 0; i < n && v; i++) {
        state = state * 1664525u + 1013904223u;
        v[i] = (float)(state >> 8) / (1 << 23) - 1.0f;
    }
    if (!v) fprintf(stderr, "bench: no memory for %lld floats\n", (long long)n), exit(STATUS_IO);
    return v;
}

#endif
