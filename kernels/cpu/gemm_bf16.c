// C = A B of bfloat16 in tiles of registers, sums in fp32. What gemm_f32.c says of the order of the
// loops holds here too. B is packed in pairs of rows, since the instructions sum two neighbouring
// products into one float:
//
//   a panel of B             columns 0 .. VEC-1                         VEC .. GEMM_NR-1
//     rows 2i, 2i+1 as     | b[2i][0] b[2i+1][0] b[2i][1] b[2i+1][1] ... | ...
//
//   AMX       a tile register is 16 rows of 64 bytes; 2 x 2 of them hold 32 x 32 sums. A step loads
//             two tiles of A (32 values of 16 rows at equal distances), two of B (16 pairs of
//             rows), and multiplies each with each, in as many cycles as A has rows.
//   AVX-512   as in gemm_f32.c: a pair of A is broadcast, 32 products an instruction
//   others    a pair is taken apart into two floats: correct, and no faster than fp32
#include "kernels/cpu/gemm.h"

#include <assert.h>
#if defined(__AMX_BF16__)
#include <cpuid.h>
#endif

#include "kernels/cpu/amx.h"
#include "kernels/cpu/integer.h"
#include "kernels/cpu/transpose.h"
#include "base/os.h"

enum {
    KC = 2304, // rows of B in one block: the whole sum of 256 channels, from the L2 cache
    PAIRS = GEMM_STEP / 2
};

// One product of blocks: rows of A start at a + offset[i] or at a + i * lda.
typedef struct Product {
    float *c;
    int64_t ldc;
    bool add;
    const Element *a;
    GemmAxis axis;
    const Element *b;
    int64_t ldb;
    int vecs; // columns, in vectors: 1 or 2
} Product;

// VEC pairs of elements.
typedef Vec PairsU __attribute__((aligned(2), may_alias));

INLINE Vec load_pairs(const Element *p)
{
    return *(const PairsU *)p;
}

INLINE void store_pairs(Element *p, Vec pairs)
{
    *(PairsU *)p = pairs;
}

// ---- vectors -----------------------------------------------------------------------------------

INLINE Vec add_pair_product(Vec sum, const Element *a, Vec b)
{
#if defined(__AVX512BF16__)
    int32_t pair;
    memcpy(&pair, a, sizeof pair);
    return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)b);
#else
    sum += elem_get(a[0]) * (Vec)((VecBits)b << 16);
    return sum + elem_get(a[1]) * (Vec)((VecBits)b & 0xffff0000);
#endif
}

// `rows` rows of C, row i of A at a + offset[i]; rows and vecs are constants of the caller.
INLINE void vector_tile(const Product *o, int first, const int32_t *offset, const int rows,
                        const int vecs)
{
    Vec acc[GEMM_MR][2];
    const Element *p[GEMM_MR];
    float *const c = o->c + first * o->ldc;
    const bool add = o->add;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        p[i] = o->a + offset[i];
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++)
            acc[i][v] = add ? vec_load(c + i * o->ldc + v * VEC) : (Vec){0};
    }
    const int64_t length = o->axis.length, ldb = o->ldb;
    for (int s = 0; s < o->axis.segments; s++) {
        const Element *b = o->b + s * gemm_padded(length) / 2 * ldb;
        const int64_t start = s * o->axis.step;
#pragma GCC unroll 1
        for (int64_t k = start; k < start + length; k += 2, b += ldb) {
            Vec bv[2];
#pragma GCC unroll 2
            for (int v = 0; v < vecs; v++) bv[v] = load_pairs(b + v * 2 * VEC);
#pragma GCC unroll 16
            for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
                for (int v = 0; v < vecs; v++)
                    acc[i][v] = add_pair_product(acc[i][v], p[i] + k, bv[v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) vec_store(c + i * o->ldc + v * VEC, acc[i][v]);
    }
}

typedef void VectorTile(const Product *o, int first, const int32_t *offset);

#define TILES(rows, vecs)                                                                          \
    static void vector_tile_##rows##_##vecs(const Product *o, int first, const int32_t *offset)    \
    {                                                                                              \
        vector_tile(o, first, offset, rows, vecs);                                                 \
    }
#if defined(__AVX512F__)
#define EACH_ROWS(F, v)                                                                            \
    F(1, v)                                                                                        \
    F(2, v) F(3, v) F(4, v) F(5, v) F(6, v) F(7, v) F(8, v) F(9, v) F(10, v) F(11, v) F(12, v)
#else
#define EACH_ROWS(F, v) F(1, v) F(2, v) F(3, v) F(4, v) F(5, v) F(6, v)
#endif
#define TILE_NAME(rows, vecs) vector_tile_##rows##_##vecs,

EACH_ROWS(TILES, 1)
EACH_ROWS(TILES, 2)
static VectorTile *const vector_tiles[2][GEMM_MR] = {{EACH_ROWS(TILE_NAME, 1)},
                                                     {EACH_ROWS(TILE_NAME, 2)}};

static void vector_rows(const Product *o, GemmRows rows, GemmFinish *finish, void *context)
{
    const int m = rows.count, count = (int)div_up(m, GEMM_MR);
    for (int t = 0, start = 0; t < count; t++) {
        const int end = (int)part_start(m, t + 1, count);
        vector_tiles[o->vecs - 1][end - start - 1](o, start, rows.offset + start);
        if (finish) finish(context, o->c, start, end);
        start = end;
    }
}

// ---- AMX ---------------------------------------------------------------------------------------

static bool amx;

#if defined(__AMX_BF16__)

bool gemm_open_matrix_unit(void)
{
    const unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24;
    unsigned a, b, c, d = 0;
    amx = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & amx_bf16) && (d & amx_tile) &&
          os_allow_amx();
    return amx;
}

// Up to 16 rows of A at equal distances, and where their sums go.
typedef struct Run {
    int first, count;
    int64_t distance; // in A
    int final;        // rows before this one are complete with this run; 0: no more than before
} Run;

// Goes through the rows of A in runs; rows that interleave come one set after the other: start,
// start + interleave, ..., `length` of them, then those from start + 1 on, ...
typedef struct Walk {
    GemmRows rows;
    int start, length, set;
} Walk;

static bool next_run(Walk *w, Run *run)
{
    const int step = w->rows.interleave;
    if (w->set == step || w->length == 0) {
        w->start += w->length * step;
        if (w->start >= w->rows.count) return false;
        const int left = (w->rows.count - w->start) / step, alike = w->rows.run[w->start],
                  most = left < AMX_ROWS ? left : AMX_ROWS;
        w->length = alike < most ? alike : most;
        w->set = 0;
    }
    run->first = w->start + w->set++;
    run->count = w->length;
    run->final = w->set == step ? w->start + w->length * step : 0;
    run->distance =
        w->length > 1 ? w->rows.offset[run->first + step] - w->rows.offset[run->first] : 0;
    return true;
}

// The rows of tiles 0, 1, 4 and of 2, 3, 5, as they are set now.
typedef struct TileRows {
    int first, second;
} TileRows;

static void set_tile_rows(TileRows *now, int first, int second)
{
    if (now->first == first && now->second == second) return;
    *now = (TileRows){first, second};
    if (second == 0) second = AMX_ROWS;
    amx_set_rows((int[AMX_TILES]){first, first, second, second, first, second, AMX_ROWS, AMX_ROWS});
}

// Tiles 0 to 3 hold C, 4 and 5 A, 6 and 7 B.
INLINE void amx_runs(const Product *o, const Run *r0, const Run *r1, const GemmRows *rows,
                     const bool two_runs, const bool two_vecs)
{
    const int64_t step = rows->interleave, a_bytes0 = r0->distance * (int64_t)sizeof(Element),
                  a_bytes1 = two_runs ? r1->distance * (int64_t)sizeof(Element) : 0,
                  b_bytes = o->ldb * (int64_t)sizeof(Element),
                  c_bytes = step * o->ldc * (int64_t)sizeof(float);
    float *const c0 = o->c + r0->first * o->ldc, *const c1 =
                                                     two_runs ? o->c + r1->first * o->ldc : c0;
    const Element *const a0 = o->a + rows->offset[r0->first], *const a1 =
                                                                  two_runs
                                                                      ? o->a +
                                                                            rows->offset[r1->first]
                                                                      : a0;
    AMX_MEMORY_IS_READ;
    if (o->add) {
        _tile_loadd(0, c0, c_bytes);
        if (two_vecs) _tile_loadd(1, c0 + VEC, c_bytes);
        if (two_runs) _tile_loadd(2, c1, c_bytes);
        if (two_runs && two_vecs) _tile_loadd(3, c1 + VEC, c_bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    const Element *b = o->b;
    Vec awake = {0};
    for (int s = 0; s < o->axis.segments; s++) {
        const int64_t start = s * o->axis.step, end = start + o->axis.length;
#pragma GCC unroll 1
        for (int64_t k = start; k < end; k += GEMM_STEP, b += PAIRS * o->ldb) {
            AMX_KEEP_AWAKE(awake);
            _tile_loadd(4, a0 + k, a_bytes0);
            _tile_loadd(6, b, b_bytes);
            if (two_vecs) _tile_loadd(7, b + 2 * VEC, b_bytes);
            _tile_dpbf16ps(0, 4, 6);
            if (two_vecs) _tile_dpbf16ps(1, 4, 7);
            if (two_runs) {
                _tile_loadd(5, a1 + k, a_bytes1);
                _tile_dpbf16ps(2, 5, 6);
                if (two_vecs) _tile_dpbf16ps(3, 5, 7);
            }
        }
    }
    _tile_stored(0, c0, c_bytes);
    if (two_vecs) _tile_stored(1, c0 + VEC, c_bytes);
    if (two_runs) _tile_stored(2, c1, c_bytes);
    if (two_runs && two_vecs) _tile_stored(3, c1 + VEC, c_bytes);
}

static void amx_product(const Product *o, const Run runs[2], bool two, const GemmRows *rows)
{
    if (two && o->vecs == 2)
        amx_runs(o, &runs[0], &runs[1], rows, true, true);
    else if (two)
        amx_runs(o, &runs[0], &runs[1], rows, true, false);
    else if (o->vecs == 2)
        amx_runs(o, &runs[0], NULL, rows, false, true);
    else
        amx_runs(o, &runs[0], NULL, rows, false, false);
}

static void amx_rows(TileRows *now, const Product *o, GemmRows rows, GemmFinish *finish,
                     void *context)
{
    Walk walk = {.rows = rows};
    Run runs[2];
    int final = 0;
    for (bool more = next_run(&walk, &runs[0]); more;) {
        const bool two = next_run(&walk, &runs[1]);
        set_tile_rows(now, runs[0].count, two ? runs[1].count : 0);
        amx_product(o, runs, two, &rows);
        const int end = two ? runs[1].final : runs[0].final;
        if (finish && end) {
            finish(context, o->c, final, end);
            final = end;
        }
        more = two && next_run(&walk, &runs[0]);
    }
}

static void release_tiles(void)
{
    _tile_release();
}

#else

typedef struct TileRows {
    int first, second;
} TileRows;

bool gemm_open_matrix_unit(void)
{
    return false;
}

static void amx_rows(TileRows *now, const Product *o, GemmRows rows, GemmFinish *finish,
                     void *context)
{
    (void)now, (void)o, (void)rows, (void)finish, (void)context;
}

static void release_tiles(void)
{
}

#endif

void gemm_runs(int32_t *run, const int32_t *offset, int count, int interleave)
{
    for (int i = count - 1; i >= 0; i--) {
        const int next = i + interleave, after = next + interleave;
        run[i] = next < count ? 2 : 1;
        if (after < count && offset[after] - offset[next] == offset[next] - offset[i])
            run[i] = run[next] + 1;
    }
}

int gemm_best_run(void)
{
    return amx ? 16 : 1;
}

static void product_rows(TileRows *now, const Product *o, GemmRows rows, GemmFinish *finish,
                         void *context)
{
    if (amx)
        amx_rows(now, o, rows, finish, context);
    else
        vector_rows(o, rows, finish, context);
}

// ---- blocks ------------------------------------------------------------------------------------

void gemm_block(float *c, int n, const Element *a, GemmRows rows, GemmAxis axis, const Element *b,
                GemmFinish *finish, void *context)
{
    TileRows now = {0};
    Product o = {.c = c, .ldc = GEMM_NR, .ldb = 2 * GEMM_NR, .vecs = n > VEC ? 2 : 1};
    const int64_t length = gemm_padded(axis.length), parts = div_up(length, KC),
                  blocks = parts > 1 ? axis.segments * parts : div_up(axis.segments * length, KC);
    for (int64_t i = 0; i < blocks; i++) {
        int64_t k = 0;
        if (parts > 1) { // blocks within a segment
            const int64_t segment = i / parts, part = i % parts,
                          first = part_start(length / GEMM_STEP, part, parts) * GEMM_STEP,
                          end = part_start(length / GEMM_STEP, part + 1, parts) * GEMM_STEP;
            o.axis = (GemmAxis){1, end < axis.length ? end - first : axis.length - first, 0};
            o.a = a + segment * axis.step + first;
            k = segment * length + first;
        } else { // of whole segments
            const int64_t first = part_start(axis.segments, i, blocks);
            o.axis = (GemmAxis){(int)(part_start(axis.segments, i + 1, blocks) - first),
                                axis.length, axis.step};
            o.a = a + first * axis.step;
            k = first * length;
        }
        o.b = b + k * GEMM_NR;
        o.add = i > 0;
        product_rows(&now, &o, rows, i == blocks - 1 ? finish : NULL, context);
    }
    if (amx) release_tiles();
}

void gemm_pairs(const GemmPairs *p)
{
    enum { ROWS = 32 };
    TileRows now = {0};
    int32_t offset[ROWS], run[ROWS];
    for (int i = 0; i < ROWS; i++) offset[i] = (int32_t)(i * p->lda), run[i] = ROWS - i;
    for (int64_t i = 0; i < p->m; i += ROWS) {
        const GemmRows rows = {offset, run, min_int(p->m - i, ROWS), 1};
        for (int64_t j = 0; j < p->n; j += GEMM_NR) {
            const Product o = {.c = p->c + i * p->ldc + j,
                               .ldc = p->ldc,
                               .add = p->add,
                               .a = p->a + i * p->lda,
                               .axis = {1, p->k, 0},
                               .b = p->b + 2 * j,
                               .ldb = p->ldb,
                               .vecs = p->n - j > VEC ? 2 : 1};
            product_rows(&now, &o, rows, NULL, NULL);
        }
    }
    if (amx) release_tiles();
}

// ---- packing -----------------------------------------------------------------------------------

INLINE Vec make_pairs(VecHalf x, VecHalf y)
{
    return (Vec)(__builtin_convertvector(x, VecBits) | __builtin_convertvector(y, VecBits) << 16);
}

static VecHalf load_half(const Element *p, int64_t count)
{
    VecHalf v = {0};
    if (p && count > 0) memcpy(&v, p, (size_t)(count < VEC ? count : VEC) * sizeof *p);
    return v;
}

void gemm_pair_rows(Element *pairs, const Element *x, const Element *y, int64_t n)
{
    int64_t j = 0;
    for (; y && j + VEC <= n; j += VEC)
        store_pairs(pairs + 2 * j,
                    make_pairs(*(const VecHalfU *)(x + j), *(const VecHalfU *)(y + j)));
    for (; j < n; j += VEC)
        store_pairs(pairs + 2 * j,
                    make_pairs(load_half(x + j, n - j), load_half(y ? y + j : NULL, n - j)));
}

void gemm_pack(Element *panel, int64_t first, const Element *b, int64_t ldb, int64_t k, int n)
{
    if (n > GEMM_NR) n = GEMM_NR;
    const int64_t end = first + k;
    int64_t i = first;
    if (i % 2) { // the second half of a pair
        for (int j = 0; j < n; j++) panel[(i - 1) * GEMM_NR + 2 * j + 1] = b[j];
        i++;
    }
    for (; i < end; i += 2) {
        const Element *const x = b + (i - first) * ldb;
        Element *const to = panel + i * GEMM_NR;
        gemm_pair_rows(to, x, i + 1 < end ? x + ldb : NULL, n);
        if (n <= VEC) memset(to + 2 * VEC, 0, 2 * VEC * sizeof *to);
    }
    if (i < gemm_padded(end))
        memset(panel + i * GEMM_NR, 0, (size_t)((gemm_padded(end) - i) * GEMM_NR) * sizeof *panel);
}

// One square of VEC rows of VEC pairs, transposed: to[i] is `distance` elements after to[i - 1].
INLINE void transpose_pairs(Element *to, int64_t distance, Vec v[VEC])
{
    vec_transpose(v);
    for (int i = 0; i < VEC; i++) store_pairs(to + i * distance, v[i]);
}

// 2 * VEC elements, the first `count` of p.
static Vec load_row(const Element *p, int64_t count)
{
    if (count >= 2 * VEC) return load_pairs(p);
    Vec v = {0};
    if (count > 0) memcpy(&v, p, (size_t)count * sizeof *p);
    return v;
}

void gemm_pack_transposed(Element *panel, const Element *b, int64_t ldb, int64_t k, int n)
{
    for (int64_t i = 0; i < gemm_padded(k); i += 2 * VEC) {
        for (int half = 0; half < GEMM_NR; half += VEC) {
            Vec v[VEC];
            for (int j = 0; j < VEC; j++)
                v[j] = half + j < n ? load_row(b + (half + j) * ldb + i, k - i) : (Vec){0};
            transpose_pairs(panel + i * GEMM_NR + 2 * half, 2 * GEMM_NR, v);
        }
    }
}

// 2 * VEC rows of VEC columns, of which `rows` and `columns` exist: v[r] is rows 2r and 2r + 1.
INLINE void load_square(Vec v[VEC], const Element *x, int64_t ldx, int64_t rows, int64_t columns)
{
    const bool whole = rows >= 2 * VEC && columns >= VEC;
    for (int r = 0; r < VEC; r++, x += 2 * ldx) {
        VecHalf even = {0}, odd = {0};
        if (whole) {
            even = *(const VecHalfU *)x;
            odd = *(const VecHalfU *)(x + ldx);
        } else {
            if (2 * r < rows) even = load_half(x, columns);
            if (2 * r + 1 < rows) odd = load_half(x + ldx, columns);
        }
        v[r] = (Vec)(__builtin_convertvector(even, VecBits) | __builtin_convertvector(odd, VecBits)
                                                                  << 16);
    }
}

void gemm_transpose(Element *a, int64_t lda, const Element *x, int64_t ldx, int64_t k, int64_t n)
{
    for (int64_t i = 0; i < gemm_padded(k); i += 2 * VEC) {
        for (int64_t j = 0; j < n; j += VEC) {
            Vec v[VEC];
            load_square(v, x + i * ldx + j, ldx, k - i, n - j);
            vec_transpose(v);
            for (int64_t r = 0; r < VEC && j + r < n; r++) store_pairs(a + (j + r) * lda + i, v[r]);
        }
    }
}
