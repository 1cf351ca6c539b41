// Philox4x32-10, the counter-based random number generator of Salmon, Moraes, Dror and Shaw,
// "Parallel random numbers: as easy as 1, 2, 3" (SC11).
//
// A random decision here is a pure function of (seed, stream, a, b): the same on every backend, for
// every number of threads, workers and processes, and at any point of a resumed run. `a` and `b`
// are what the decision belongs to: a sample index and an epoch, say.
#ifndef BASE_PHILOX_H
#define BASE_PHILOX_H

#include <stdint.h>

// What a number is drawn for; no two uses share a stream.
enum {
    STREAM_ORDER = 1,   // the order of the samples in an epoch
    STREAM_AUGMENT = 2, // flips, shifts, cutout, colour; a = sample, b = epoch
    STREAM_FLIP = 3,    // alternating flip's first side; a = sample, b = 0
    STREAM_INIT = 4,    // weights; a = element / 4, b = tensor number
    STREAM_DROPOUT = 5, // masks: draws.h
    STREAM_SYNTH = 6,   // the embedded data set
    STREAM_TEST = 7,    // tests and self-checks
};

typedef struct Philox {
    uint32_t v[4];
} Philox;

// NN_INLINE: also callable from CUDA kernels.
#if defined(__CUDACC__)
#define NN_INLINE static inline __host__ __device__
#else
#define NN_INLINE static inline
#endif

NN_INLINE Philox philox4(uint32_t key0, uint32_t key1, uint32_t c0, uint32_t c1, uint32_t c2,
                         uint32_t c3)
{
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ key0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ key1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    Philox r = {{c0, c1, c2, c3}};
    return r;
}

// Four random words for (seed, stream, a, b).
NN_INLINE Philox philox(uint64_t seed, uint32_t stream, uint64_t a, uint32_t b)
{
    return philox4((uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)a, (uint32_t)(a >> 32), b,
                   stream);
}

// [0, 1) with 24 bits, exact in fp32.
NN_INLINE float philox_unit(uint32_t word)
{
    return (float)(word >> 8) * (1.0f / 16777216.0f);
}

// 0 .. n-1; the bias is below n / 2^32.
NN_INLINE uint32_t philox_below(uint32_t word, uint32_t n)
{
    return (uint32_t)(((uint64_t)word * n) >> 32);
}

#endif
