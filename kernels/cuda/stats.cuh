// Count, mean and M2 = sum (x - mean)^2 of a sample, and their merging (Chan, Golub, LeVeque 1979).
#ifndef KERNELS_CUDA_STATS_CUH
#define KERNELS_CUDA_STATS_CUH

#include "kernels/cuda/common.cuh"

struct Stats {
    float count, mean, m2;
};

// Counts are whole and below 2^24, so fp32 holds them; more values round, as Norm.stats does.
__device__ __forceinline__ void stats_merge(Stats *a, Stats b)
{
    if (b.count == 0) return;
    const float count = a->count + b.count, share = b.count / count, delta = b.mean - a->mean;
    a->m2 += b.m2 + delta * delta * (a->count * share);
    a->mean += delta * share;
    a->count = count;
}

// Of `count` values whose differences to `shift`, one of them, have this sum and sum of squares.
// The shift is a value of the sample: at worst (it alone lies far off) the difference of the two
// sums loses log2(count) bits, however large the mean is.
__device__ __forceinline__ Stats stats_of_sums(float count, float shift, float sum, float squares)
{
    const float mean = count > 0 ? sum / count : 0.0f, m2 = squares - sum * mean;
    return {count, shift + mean, m2 < 0 ? 0.0f : m2};
}

#endif
