// C = A B in tiles of registers.
//
//              B: a packed panel, one block of KC rows in the L1 cache
//              <- GEMM_NR ->
//            + +-----------+     A tile: GEMM_MR x 2 vectors of C stay in registers while k runs
//            | |           |     over a block. Each k loads two vectors of B and multiplies them
//         KC | |           |     by GEMM_MR values of A, each broadcast from memory.
//            | |           |
//            + +-----------+     A needs no packing: its rows may lie anywhere (a convolution's
//              |    ...    |     rows are windows of the picture), as one offset a row.
//
//     KC       +-----------+
//   +-----+    |    C      |     Order of the loops: block of k (B's part stays in L1), tile of
//   |  A  | MR | registers |     rows (A's part comes from L2), k.
//   +-----+    +-----------+
//   | ... |    |    ...    |
//
// Floor: 2*VEC FLOP a vector multiply-add, two of them a cycle with AVX-512. Measured with blocks
// that lie in the L2 cache: 92 to 95% of it, transposed 87%.
#include "kernels/cpu/gemm.h"

#include <assert.h>

#include "kernels/cpu/integer.h"
#include "kernels/cpu/transpose.h"

// Rows of B in one block: KC * GEMM_NR floats are 2/3 of a 48 KB L1 cache.
enum { KC = VEC == 16 ? 256 : 320 };

// In both kernels the number of rows and of vectors are constants of the caller, so that every loop
// over them is unrolled and the array `acc` is registers.
INLINE void tile_load(Vec acc[GEMM_MR][2], const float *c, int64_t ldc, bool add, const int rows,
                      const int vecs)
{
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) acc[i][v] = add ? vec_load(c + i * ldc + v * VEC) : (Vec){0};
    }
}

INLINE void tile_store(float *c, int64_t ldc, Vec acc[GEMM_MR][2], const int rows, const int vecs)
{
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) vec_store(c + i * ldc + v * VEC, acc[i][v]);
    }
}

INLINE void tile(float *c, bool add, const float *a, const int32_t *row, GemmAxis axis,
                 const float *b, const int rows, const int vecs)
{
    Vec acc[GEMM_MR][2];
    const float *p[GEMM_MR];
    tile_load(acc, c, GEMM_NR, add, rows, vecs);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) p[i] = a + row[i];
    int64_t k = 0;
    for (int s = 0; s < axis.segments; s++, k += axis.step - axis.length) {
#pragma GCC unroll 1
        for (const int64_t end = k + axis.length; k < end; k++, b += GEMM_NR) {
            Vec bv[2];
#pragma GCC unroll 2
            for (int v = 0; v < vecs; v++) bv[v] = vec_load(b + v * VEC);
#pragma GCC unroll 16
            for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
                for (int v = 0; v < vecs; v++) acc[i][v] += p[i][k] * bv[v];
            }
        }
    }
    tile_store(c, GEMM_NR, acc, rows, vecs);
}

INLINE void tile_t(float *c, int64_t ldc, bool add, const float *a, const int32_t *row, int64_t k,
                   const float *b, const int rows, const int vecs)
{
    Vec acc[GEMM_MR][2];
    tile_load(acc, c, ldc, add, rows, vecs);
#pragma GCC unroll 1
    for (int64_t j = 0; j < k; j++, b += GEMM_NR) {
        const float *p = a + row[j];
        __builtin_prefetch(a + row[j + GEMM_AHEAD]);
        Vec bv[2];
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) bv[v] = vec_load(b + v * VEC);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
            for (int v = 0; v < vecs; v++) acc[i][v] += p[i] * bv[v];
        }
    }
    tile_store(c, ldc, acc, rows, vecs);
}

// One function for each shape of tile, and the tables to find it.
typedef void Tile(float *c, bool add, const float *a, const int32_t *row, GemmAxis axis,
                  const float *b);
typedef void TileT(float *c, int64_t ldc, bool add, const float *a, const int32_t *row, int64_t k,
                   const float *b);

#define TILES(rows, vecs)                                                                          \
    static void tile_##rows##_##vecs(float *c, bool add, const float *a, const int32_t *row,       \
                                     GemmAxis axis, const float *b)                                \
    {                                                                                              \
        tile(c, add, a, row, axis, b, rows, vecs);                                                 \
    }                                                                                              \
    static void tile_t_##rows##_##vecs(float *c, int64_t ldc, bool add, const float *a,            \
                                       const int32_t *row, int64_t k, const float *b)              \
    {                                                                                              \
        tile_t(c, ldc, add, a, row, k, b, rows, vecs);                                             \
    }

#if defined(__AVX512F__)
#define EACH_ROWS(F, v)                                                                            \
    F(1, v)                                                                                        \
    F(2, v) F(3, v) F(4, v) F(5, v) F(6, v) F(7, v) F(8, v) F(9, v) F(10, v) F(11, v) F(12, v)
#else
#define EACH_ROWS(F, v) F(1, v) F(2, v) F(3, v) F(4, v) F(5, v) F(6, v)
#endif
#define TILE_NAME(rows, vecs) tile_##rows##_##vecs,
#define TILE_T_NAME(rows, vecs) tile_t_##rows##_##vecs,

EACH_ROWS(TILES, 1)
EACH_ROWS(TILES, 2)
static Tile *const tiles[2][GEMM_MR] = {{EACH_ROWS(TILE_NAME, 1)}, {EACH_ROWS(TILE_NAME, 2)}};
static TileT *const tiles_t[2][GEMM_MR] = {{EACH_ROWS(TILE_T_NAME, 1)},
                                           {EACH_ROWS(TILE_T_NAME, 2)}};

typedef struct Block {
    float *c;
    int n;
    const float *a;
    GemmRows rows;
    GemmFinish *finish;
    void *context;
} Block;

// One block of k for all rows, in tiles of nearly equal height.
static void block_rows(const Block *o, bool first, bool last, int64_t k, GemmAxis axis,
                       const float *b)
{
    Tile *const *const of_height = tiles[o->n > VEC];
    const int m = o->rows.count, count = (int)div_up(m, GEMM_MR);
    for (int t = 0, start = 0; t < count; t++) {
        const int end = (int)part_start(m, t + 1, count);
        of_height[end - start - 1](o->c + start * GEMM_NR, !first, o->a + k, o->rows.offset + start,
                                   axis, b);
        if (last) o->finish(o->context, o->c, start, end);
        start = end;
    }
}

void gemm_block(float *c, int n, const float *a, GemmRows rows, GemmAxis axis, const float *b,
                GemmFinish *finish, void *context)
{
    const Block block = {c, n, a, rows, finish, context};
    if (axis.length <= KC) { // blocks of whole segments
        const int64_t count = div_up(axis.segments * axis.length, KC);
        for (int64_t i = 0; i < count; i++) {
            const int64_t start = part_start(axis.segments, i, count),
                          end = part_start(axis.segments, i + 1, count);
            block_rows(&block, i == 0, i == count - 1, start * axis.step,
                       (GemmAxis){(int)(end - start), axis.length, axis.step},
                       b + start * axis.length * GEMM_NR);
        }
        return;
    }
    const int64_t parts = div_up(axis.length, KC), count = axis.segments * parts;
    for (int64_t i = 0; i < count; i++) { // blocks within a segment
        const int64_t segment = i / parts, start = part_start(axis.length, i % parts, parts),
                      end = part_start(axis.length, i % parts + 1, parts);
        block_rows(&block, i == 0, i == count - 1, segment * axis.step + start,
                   (GemmAxis){1, end - start, 0}, b + (segment * axis.length + start) * GEMM_NR);
    }
}

bool gemm_open_matrix_unit(void)
{
    return false;
}

int gemm_best_run(void)
{
    return 1;
}

void gemm_runs(int32_t *run, const int32_t *offset, int count, int interleave)
{
    (void)run, (void)offset, (void)count, (void)interleave;
}

void gemm_tile_transposed(float *c, int64_t ldc, bool add, int m, int n, const float *a,
                          const int32_t *row, int64_t k, const float *b)
{
    assert(m >= 1 && m <= GEMM_MR);
    tiles_t[n > VEC][m - 1](c, ldc, add, a, row, k, b);
}

void gemm_pack(float *panel, int64_t first, const float *b, int64_t ldb, int64_t k, int n)
{
    panel += first * GEMM_NR;
    if (n >= GEMM_NR) {
        for (int64_t i = 0; i < k; i++) {
            vec_store(panel + i * GEMM_NR, vec_load(b + i * ldb));
            vec_store(panel + i * GEMM_NR + VEC, vec_load(b + i * ldb + VEC));
        }
        return;
    }
    for (int64_t i = 0; i < k; i++) {
        float *const to = panel + i * GEMM_NR;
        for (int j = 0; j < GEMM_NR; j++) to[j] = j < n ? b[i * ldb + j] : 0.0f;
    }
}

void gemm_pack_transposed(float *panel, const float *b, int64_t ldb, int64_t k, int n)
{
    const int64_t whole = k - k % VEC;
    for (int half = 0; half < GEMM_NR; half += VEC) {
        const int valid = n - half < VEC ? n - half : VEC;
        for (int64_t j = 0; j < whole; j += VEC) {
            Vec v[VEC];
            for (int i = 0; i < VEC; i++)
                v[i] = i < valid ? vec_load(b + (half + i) * ldb + j) : (Vec){0};
            vec_transpose(v);
            for (int i = 0; i < VEC; i++) vec_store(panel + (j + i) * GEMM_NR + half, v[i]);
        }
        for (int64_t j = whole; j < k; j++) {
            for (int i = 0; i < VEC; i++)
                panel[j * GEMM_NR + half + i] = i < valid ? b[(half + i) * ldb + j] : 0.0f;
        }
    }
}
