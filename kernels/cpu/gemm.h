// Matrix multiplication on blocks that fit the caches; linear.c and conv2d.c are built on it.
#ifndef KERNELS_CPU_GEMM_H
#define KERNELS_CPU_GEMM_H

#include <stdbool.h>

#include "kernels/cpu/element.h"

// A block of C has GEMM_NR columns.
enum { GEMM_NR = 2 * VEC };

// The common axis of A and B as A stores it: `segments` runs of `length` values, `step` apart.
typedef struct GemmAxis {
    int segments;
    int64_t length, step;
} GemmAxis;

// Row i of A starts at a + offset[i]. Matrix units want rows at equal distances: rows i,
// i + interleave, i + 2 * interleave, ..., run[i] of them, are, as gemm_runs() found.
typedef struct GemmRows {
    const int32_t *offset, *run;
    int count, interleave;
} GemmRows;
void gemm_runs(int32_t *run, const int32_t *offset, int count, int interleave);

// Called when rows first..end-1 of C are final, while the tile is still in the L1 cache, and their
// stores can hide behind the next tile's arithmetic.
typedef void GemmFinish(void *context, float *c, int first, int end);

// C (rows,GEMM_NR) = A B, all of GEMM_NR columns set of which the first n are wanted.
//   A   the values of a row's segments, and as many readable, finite ones after each segment as
//       gemm_padded() says
//   B   a packed panel of gemm_panel_size() elements
void gemm_block(float *c, int n, const Element *a, GemmRows rows, GemmAxis axis, const Element *b,
                GemmFinish *finish, void *context);

// Asks the system for the processor's matrix unit. False: there is none for this element type.
bool gemm_open_matrix_unit(void);

// Rows of A that should lie at equal distances, one after the other, for gemm_block to be fast.
int gemm_best_run(void);

// Rows of a panel that one segment takes, `length` and then zeros: a multiple of GEMM_STEP.
enum { GEMM_STEP = CPU_BF16 ? 32 : 1 };
static inline int64_t gemm_padded(int64_t length)
{
    return (length + GEMM_STEP - 1) / GEMM_STEP * GEMM_STEP;
}

static inline int64_t gemm_panel_size(GemmAxis axis)
{
    return axis.segments * gemm_padded(axis.length) * GEMM_NR;
}

// Rows first..first+k-1 of a segment's part of a panel from n columns of B (k,ldb); columns beyond
// n, and rows up to the next multiple of GEMM_STEP, are zeros.
void gemm_pack(Element *panel, int64_t first, const Element *b, int64_t ldb, int64_t k, int n);
// All k rows of a segment's part from B^T, where B is (n,ldb).
void gemm_pack_transposed(Element *panel, const Element *b, int64_t ldb, int64_t k, int n);

// ---- sums over rows of both matrices (weight gradients), by element type -----------------------

// fp32, gemm_f32.c: C (m,n) = or += A^T B for m <= GEMM_MR, row i of C at c + i * ldc. A has k rows
// of m values, row i at a + row[i]; it prefetches GEMM_AHEAD rows ahead, so that row[] has as many
// readable entries past its end. Columns up to the next multiple of VEC are read and set too.
#if defined(__AVX512F__)
enum { GEMM_MR = 12 };
#else
enum { GEMM_MR = 6 };
#endif
enum { GEMM_AHEAD = 6 };
void gemm_tile_transposed(float *c, int64_t ldc, bool add, int m, int n, const float *a,
                          const int32_t *row, int64_t k, const float *b);

// bf16, gemm_bf16.c: C (m,n) = or += A B, row i of C at c + i * ldc. A is (m,lda) with the sum
// along its rows: k values, a multiple of GEMM_STEP. B (k/2,ldb) holds pairs: rows 2i and 2i+1 of
// column j side by side at b + i * ldb + 2 * j. Columns up to the next multiple of VEC are read and
// set too.
typedef struct GemmPairs {
    float *c;
    int64_t ldc;
    bool add;
    int64_t m, n, k;
    const Element *a;
    int64_t lda;
    const Element *b;
    int64_t ldb;
} GemmPairs;
void gemm_pairs(const GemmPairs *p);
// A (n,lda) for gemm_pairs from the transposed matrix x (k,ldx): k padded with zeros to a multiple
// of GEMM_STEP.
void gemm_transpose(Element *a, int64_t lda, const Element *x, int64_t ldx, int64_t k, int64_t n);
// One row of pairs (n,2) from two rows, n rounded up to a multiple of VEC; y NULL: zeros.
void gemm_pair_rows(Element *pairs, const Element *x, const Element *y, int64_t n);

#endif
