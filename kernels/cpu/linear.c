// Fully connected layers: y = x w^T, dx = dy w, dw = dy^T x, and what surrounds them.
// Floor: 2 rows in out FLOP over the rate of multiply-adds. Measured: 76 to 90% of it at 128
// rows and more, 0.93 to 1.18 of OpenBLAS (bench/gemm 1).
#include "kernels/cpu/gemm.h"

#include <omp.h>

#include "kernels/cpu/activation.h"

enum {
    ROWS = 192,  // rows of A in a work unit: 512 columns of them are 400 KB of the L2 cache
    TERMS = 256, // terms of a weight gradient's sum in one pass: as many rows of x
    A_WIDTH = (GEMM_MR + VEC - 1) / VEC * VEC, // of a weight gradient's packed columns of dy
    FEWEST_UNITS = 8 // pieces of work to share out, where the matrix is large enough
};

// What is done to finished values on their way to memory, in this order.
typedef struct Epilogue {
    const float *bias;  // (n) or NULL
    float *z;           // (m,n) or NULL
    Activation act;     // y = act(z)
    const float *saved; // (m,n) or NULL: y = z * act_of_saved'(saved)
    Activation act_of_saved;
} Epilogue;

typedef struct Target {
    float *y; // (m,n)
    const Epilogue *e;
    int64_t row, column, n; // where the block lies in y
} Target;

static void store_rows(void *context, float *c, int first, int end)
{
    const Target t = *(const Target *)context; // copies stay in registers
    const Epilogue e = *t.e;
    for (int64_t j = t.column; j < t.column + GEMM_NR && j < t.n; j += VEC, c += VEC) {
        const int64_t count = t.n - j;
        const Vec bias = e.bias ? vec_load_up_to(e.bias + j, count) : (Vec){0};
        const bool plain = count >= VEC && !e.z && !e.saved && e.act == ACT_NONE;
        for (int i = first; i < end && plain; i++)
            vec_store(t.y + (t.row + i) * t.n + j, vec_load(c + i * GEMM_NR) + bias);
        for (int i = first; i < end && !plain; i++) {
            const int64_t at = (t.row + i) * t.n + j;
            Vec v = vec_load(c + i * GEMM_NR) + bias;
            if (e.z) vec_store_up_to(e.z + at, v, count);
            if (e.saved) v *= vec_act_grad(e.act_of_saved, vec_load_up_to(e.saved + at, count));
            vec_store_up_to(t.y + at, vec_act(e.act, v), count);
        }
    }
}

typedef void Pack(float *panel, const float *b, int64_t ldb, int64_t k, int n);

// One factor and how to get panels of it: panel p is packed from b + p * step.
typedef struct Factor {
    const float *b;
    Pack *pack;
    int64_t ldb, step;
} Factor;

static void pack_panel(float *panel, const Factor *f, int64_t p, int64_t k, int64_t n)
{
    const int64_t left = n - p * GEMM_NR;
    f->pack(panel, f->b + p * f->step, f->ldb, k, left < GEMM_NR ? (int)left : GEMM_NR);
}

// y (m,n) = epilogue(A B), A (m,k). Where the rows of A are one block, each panel of B is needed
// once: it is packed into a buffer that stays in the cache. Otherwise all are packed first.
static void multiply(float *y, const float *a, const Factor *f, int64_t m, int64_t k, int64_t n,
                     const Epilogue *e)
{
    const int64_t panels = div_up(n, GEMM_NR), panel_size = k * GEMM_NR;
    int64_t blocks = div_up(m, ROWS);
    if (ROWS * k > INT32_MAX) blocks = m; // offsets of rows in a block are 32 bits
    if (blocks * panels < FEWEST_UNITS && m >= 4 * GEMM_MR) {
        const int64_t most = m / (2 * GEMM_MR), wanted = div_up(FEWEST_UNITS, panels);
        blocks = wanted < most ? wanted : most;
    }
    const bool ahead = blocks > 1;
    const int64_t own_size = ROWS * GEMM_NR + (ahead ? 0 : panel_size);
    float *scratch = cpu_scratch(
        (size_t)(carved(ahead ? panels * panel_size : 0) + cpu_threads * own_size) * sizeof(float));
    if (!scratch) return;
    float *const packed = carve(&scratch, ahead ? panels * panel_size : 0);

#pragma omp parallel num_threads(cpu_threads)
    {
        float *const c = scratch + omp_get_thread_num() * own_size;
        int32_t row[ROWS];
        for (int i = 0; i < ROWS && i * k <= INT32_MAX; i++) row[i] = (int32_t)(i * k);
        if (ahead) {
#pragma omp for schedule(static)
            for (int64_t p = 0; p < panels; p++) pack_panel(packed + p * panel_size, f, p, k, n);
        }
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < blocks * panels; unit++) {
            const int64_t block = unit / panels, p = unit % panels, left = n - p * GEMM_NR,
                          first = part_start(m, block, blocks),
                          end = part_start(m, block + 1, blocks);
            float *const panel = ahead ? packed + p * panel_size : c + ROWS * GEMM_NR;
            if (!ahead) pack_panel(panel, f, p, k, n);
            Target target = {y, e, first, p * GEMM_NR, n};
            gemm_block(c, (int)(end - first), left < GEMM_NR ? (int)left : GEMM_NR, a + first * k,
                       row, (GemmAxis){1, k, 0}, panel, store_rows, &target);
        }
    }
}

static void linear_forward(void *y, void *z, const void *x, const void *w, const float *bias,
                           Activation act, LinearDims d)
{
    const Epilogue e = {.bias = bias, .z = z, .act = act};
    const Factor transposed = {w, gemm_pack_transposed, d.in, GEMM_NR * d.in};
    multiply(y, x, &transposed, d.rows, d.in, d.out, &e);
}

static void linear_forward_f32(float *y, const void *x, const void *w, const float *bias,
                               LinearDims d)
{
    linear_forward(y, NULL, x, w, bias, ACT_NONE, d);
}

static void linear_backward_data(void *dx, const void *dy, const void *w, const void *saved,
                                 Activation act, LinearDims d)
{
    const Epilogue e = {.saved = act == ACT_NONE ? NULL : saved, .act_of_saved = act};
    const Factor plain = {w, gemm_pack, d.in, GEMM_NR};
    multiply(dx, dy, &plain, d.rows, d.out, d.in, &e);
}

// Columns of dy from `column` on as (rows,A_WIDTH): one tile's A^T.
static void pack_columns(float *packed, const float *dy, int64_t rows, int64_t out, int64_t column)
{
    for (int j = 0; j < A_WIDTH && column + j < out; j += VEC) {
        const int64_t count = out - column - j;
        for (int64_t i = 0; i < rows; i++)
            vec_store(packed + i * A_WIDTH + j, vec_load_up_to(dy + i * out + column + j, count));
    }
}

// dbias (out) = or += the sums of `rows` rows of dy, for one vector of columns.
static void sum_columns(float *dbias, bool add, const float *dy, int64_t rows, int64_t out,
                        int64_t column)
{
    const int64_t count = out - column;
    Vec sum = {0};
    for (int64_t i = 0; i < rows; i++) sum += vec_load_up_to(dy + i * out + column, count);
    if (add) sum += vec_load_up_to(dbias + column, count);
    vec_store_up_to(dbias + column, sum, count);
}

static void store_gradient(float *dw, const float *c, bool add, int rows, int64_t columns,
                           int64_t in)
{
    for (int i = 0; i < rows; i++) {
        for (int half = 0; half < GEMM_NR && half < columns; half += VEC) {
            float *const to = dw + i * in + half;
            Vec v = vec_load(c + i * GEMM_NR + half);
            if (add) v += vec_load_up_to(to, columns - half);
            vec_store_up_to(to, v, columns - half);
        }
    }
}

static void linear_backward_weight(float *dw, float *dbias, const void *dy_, const void *x_,
                                   GradMode mode, LinearDims d)
{
    const float *const dy = dy_, *const x = x_;
    const int64_t panels = div_up(d.in, GEMM_NR), tiles = div_up(d.out, GEMM_MR),
                  groups = panels < 4 * FEWEST_UNITS && tiles >= 8 ? 2 : 1,
                  a_size = TERMS * A_WIDTH, panel_size = TERMS * GEMM_NR;
    float *scratch =
        cpu_scratch((size_t)(carved(tiles * a_size) + cpu_threads * panel_size) * sizeof(float));
    if (!scratch) return;
    float *const a = carve(&scratch, tiles * a_size);
    int32_t row[TERMS + GEMM_AHEAD];
    for (int i = 0; i < TERMS + GEMM_AHEAD; i++) row[i] = i * A_WIDTH;

#pragma omp parallel num_threads(cpu_threads)
    for (int64_t k = 0; k < d.rows; k += TERMS) {
        const int64_t terms = d.rows - k < TERMS ? d.rows - k : TERMS;
        const bool add = mode == ADD || k > 0;
        float *const panel = scratch + omp_get_thread_num() * panel_size;
        _Alignas(64) float c[GEMM_MR * GEMM_NR];
#pragma omp for schedule(static) nowait
        for (int64_t j = 0; j < (dbias ? d.out : 0); j += VEC)
            sum_columns(dbias, add, dy + k * d.out, terms, d.out, j);
#pragma omp for schedule(static)
        for (int64_t t = 0; t < tiles; t++)
            pack_columns(a + t * a_size, dy + k * d.out, terms, d.out, part_start(d.out, t, tiles));
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < panels * groups; unit++) {
            const int64_t column = unit / groups * GEMM_NR, group = unit % groups,
                          left = d.in - column;
            const int n = left < GEMM_NR ? (int)left : GEMM_NR;
            gemm_pack(panel, x + k * d.in + column, d.in, terms, n);
            for (int64_t t = part_start(tiles, group, groups);
                 t < part_start(tiles, group + 1, groups); t++) {
                const int64_t first = part_start(d.out, t, tiles);
                const int m = (int)(part_start(d.out, t + 1, tiles) - first);
                gemm_tile_transposed(c, false, m, n, a + t * a_size, row, terms, panel);
                store_gradient(dw + first * d.in + column, c, add, m, left, d.in);
            }
        }
    }
}

void cpu_linear_ops(Kernels *k)
{
    k->linear_forward = linear_forward;
    k->linear_forward_f32 = linear_forward_f32;
    k->linear_backward_data = linear_backward_data;
    k->linear_backward_weight = linear_backward_weight;
}
