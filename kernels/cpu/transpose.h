// Transposition of a square of vectors in registers.
#ifndef KERNELS_CPU_TRANSPOSE_H
#define KERNELS_CPU_TRANSPOSE_H

#include "kernels/cpu/vec.h"

// v[i][j] becomes v[j][i]: log2(VEC) times, rows i and i + VEC/2 are interleaved into rows 2i and
// 2i + 1.
static inline __attribute__((always_inline)) void vec_transpose(Vec v[VEC])
{
#if defined(__AVX512F__)
    const VecInt low = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
#elif defined(__AVX__)
    const VecInt low = {0, 8, 1, 9, 2, 10, 3, 11};
#else
    const VecInt low = {0, 4, 1, 5};
#endif
    const VecInt high = low + VEC / 2;
#pragma GCC unroll 4
    for (int stage = 1; stage < VEC; stage *= 2) {
        Vec w[VEC];
#pragma GCC unroll 8
        for (int i = 0; i < VEC / 2; i++) {
            w[2 * i] = __builtin_shuffle(v[i], v[i + VEC / 2], low);
            w[2 * i + 1] = __builtin_shuffle(v[i], v[i + VEC / 2], high);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VEC; i++) v[i] = w[i];
    }
}

#endif
