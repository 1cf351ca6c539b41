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

#include "kernels/kernels.h"
#include "base/os.h"

enum { BENCH_ROUNDS = 15 };

static inline double bench_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// FLOP of independent multiply-adds on vectors of `bytes` with the instructions `isa`.
#define BENCH_FMA(name, bytes, chains, isa)                                                        \
    isa __attribute__((noinline)) static double name(void)                                         \
    {                                                                                              \
        enum { PASSES = 40000 };                                                                   \
        typedef float Vector __attribute__((vector_size(bytes)));                                  \
        Vector acc[chains] = {0}, x = {0}, y = {0};                                                \
        __asm__ volatile("" : "+v"(x), "+v"(y));                                                   \
        for (int pass = 0; pass < PASSES; pass++) {                                                \
            _Pragma("GCC unroll 24") for (int i = 0; i < (chains); i++)                            \
            {                                                                                      \
                acc[i] += x * y;                                                                   \
                __asm__ volatile("" : "+v"(acc[i]));                                               \
            }                                                                                      \
        }                                                                                          \
        return 2.0 * (bytes) / 4 * (chains)*PASSES;                                                \
    }
BENCH_FMA(bench_fma512, 64, 24, __attribute__((target("avx512f"))))
BENCH_FMA(bench_fma256, 32, 12, __attribute__((target("avx2,fma"))))
BENCH_FMA(bench_fma128, 16, 12, )

// What `threads` threads at once do in a second, each by its own clock: work() returns how much.
static inline double bench_rate(int threads, double (*work)(void))
{
    double rate = 0;
#pragma omp parallel num_threads(threads) reduction(+ : rate)
    {
        const double start = bench_seconds(), done = work();
        rate += done / (bench_seconds() - start);
    }
    return rate;
}

// FLOP/s of multiply-adds in fp32, from about half a millisecond.
static inline double bench_peak(int threads)
{
    return bench_rate(threads, __builtin_cpu_supports("avx512f") ? bench_fma512
                               : __builtin_cpu_supports("fma")   ? bench_fma256
                                                                 : bench_fma128);
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
