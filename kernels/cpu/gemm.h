// Matrix multiplication on blocks that fit the caches; linear.c and conv2d.c are built on it.
#ifndef KERNELS_CPU_GEMM_H
#define KERNELS_CPU_GEMM_H

#include "kernels/cpu/cpu.h"

// A tile of C is GEMM_MR rows of GEMM_NR values, all of it in registers.
#if defined(__AVX512F__)
enum { GEMM_MR = 12 };
#else
enum { GEMM_MR = 6 };
#endif
enum { GEMM_NR = 2 * VEC };

// The common axis of A and B as A stores it: `segments` runs of `length` values, `step` apart.
typedef struct GemmAxis {
    int segments;
    int64_t length, step;
} GemmAxis;

// Called when rows first..end-1 of C are final, while the tile is still in the L1 cache, and their
// stores can hide behind the next tile's arithmetic.
typedef void GemmFinish(void *context, float *c, int first, int end);

// C (m,GEMM_NR) = A B, all of GEMM_NR columns set of which the first n are wanted.
//   A   row i starts at a + row[i]
//   B   a packed panel: (k,GEMM_NR)
void gemm_block(float *c, int m, int n, const float *a, const int32_t *row, GemmAxis axis,
                const float *b, GemmFinish *finish, void *context);

// C (m,GEMM_NR) = or += A^T B for m <= GEMM_MR: A has k rows of m values, row i at a + row[i]. It
// prefetches GEMM_AHEAD rows ahead, so that row[] has as many readable entries past its end.
enum { GEMM_AHEAD = 6 };
void gemm_tile_transposed(float *c, bool add, int m, int n, const float *a, const int32_t *row,
                          int64_t k, const float *b);

// The panel (k,GEMM_NR) of n columns, padded with zeros, of B (k,ldb).
void gemm_pack(float *panel, const float *b, int64_t ldb, int64_t k, int n);
// The same of B^T where B is (n,ldb).
void gemm_pack_transposed(float *panel, const float *b, int64_t ldb, int64_t k, int n);

static inline int64_t div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

// Where part `i` of `parts` nearly equal ones of 0..n starts.
static inline int64_t part_start(int64_t n, int64_t i, int64_t parts)
{
    return n * i / parts;
}

// Cuts n floats off the scratch memory at *p, in multiples of a cache line.
static inline int64_t carved(int64_t n)
{
    return div_up(n, 16) * 16;
}

static inline float *carve(float **p, int64_t n)
{
    float *start = *p;
    *p += carved(n);
    return start;
}

#endif
