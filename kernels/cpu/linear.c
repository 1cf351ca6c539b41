// Fully connected layers: y = x w^T, dx = dy w, and what surrounds them.
// Floor: 2 rows in out FLOP over the rate of multiply-adds. Measured: 76 to 90% of it at 128
// rows and more, 0.93 to 1.18 of OpenBLAS (bench/gemm 1).
#include "kernels/cpu/linear.h"

#include <omp.h>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/memory.h"

enum {
    ROWS = 192,      // rows of A in a work unit: 512 columns of them are 400 KB of the L2 cache
    FEWEST_UNITS = 8 // pieces of work to share out, where the matrix is large enough
};

// What is done to finished values on their way to memory, in this order.
typedef struct Epilogue {
    const float *bias;    // (n) or NULL
    Element *z;           // (m,n) or NULL
    Activation act;       // y = act(z)
    const Element *saved; // (m,n) or NULL: y = z * act_of_saved'(saved)
    Activation act_of_saved;
    float *f32; // (m,n) or NULL: y goes here
} Epilogue;

typedef struct Target {
    Element *y; // (m,n)
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
        const bool plain = count >= VEC && !e.z && !e.saved && !e.f32 && e.act == ACT_NONE;
        for (int i = first; i < end && plain; i++)
            elem_store(t.y + (t.row + i) * t.n + j, vec_load(c + i * GEMM_NR) + bias);
        for (int i = first; i < end && !plain; i++) {
            const int64_t at = (t.row + i) * t.n + j;
            Vec v = vec_load(c + i * GEMM_NR) + bias;
            if (e.z) elem_store_up_to(e.z + at, v, count);
            if (e.saved) v *= vec_act_grad(e.act_of_saved, elem_load_up_to(e.saved + at, count));
            if (e.f32)
                vec_store_up_to(e.f32 + at, v, count);
            else
                elem_store_up_to(t.y + at, vec_act(e.act, v), count);
        }
    }
}

// One factor, by panels: B (k,n) itself, or its transpose (n,k).
typedef struct Factor {
    const Element *b;
    bool transposed;
    int64_t k, n;
} Factor;

static void pack_panel(Element *panel, const Factor *f, int64_t p)
{
    const int64_t column = p * GEMM_NR, left = f->n - column;
    const int n = left < GEMM_NR ? (int)left : GEMM_NR;
    if (f->transposed)
        gemm_pack_transposed(panel, f->b + column * f->k, f->k, f->k, n);
    else
        gemm_pack(panel, 0, f->b + column, f->n, f->k, n);
}

// Rows of A as gemm_block wants them: `to` (rows,padded) if k is not padded already.
static const Element *padded_rows(Element *to, const Element *a, int64_t rows, int64_t k)
{
    const int64_t padded = gemm_padded(k);
    if (padded == k) return a;
    for (int64_t i = 0; i < rows; i++) {
        memcpy(to + i * padded, a + i * k, (size_t)k * sizeof *to);
        memset(to + i * padded + k, 0, (size_t)(padded - k) * sizeof *to);
    }
    return to;
}

// y (m,n) = epilogue(A B), A (m,k). Where the rows of A are one block, each panel of B is needed
// once: it is packed into a buffer that stays in the cache. Otherwise all are packed first.
static void multiply(Element *y, const Element *a, Factor f, int64_t m, const Epilogue *e)
{
    const GemmAxis axis = {1, f.k, 0};
    const int64_t padded = gemm_padded(f.k), panels = div_up(f.n, GEMM_NR),
                  panel_size = carved_elements(gemm_panel_size(axis)),
                  rows_size = padded == f.k ? 0 : carved_elements(ROWS * padded);
    int64_t blocks = div_up(m, ROWS);
    if (ROWS * padded > INT32_MAX) blocks = m; // offsets of rows in a block are 32 bits
    if (blocks * panels < FEWEST_UNITS && m >= 4 * GEMM_MR) {
        const int64_t most = m / (2 * GEMM_MR), wanted = div_up(FEWEST_UNITS, panels);
        blocks = wanted < most ? wanted : most;
    }
    const bool ahead = blocks > 1;
    const int64_t own_size = ROWS * GEMM_NR + rows_size + (ahead ? 0 : panel_size);
    float *scratch = cpu_scratch(
        (size_t)(carved(ahead ? panels * panel_size : 0) + cpu_threads * own_size) * sizeof(float));
    if (!scratch) return;
    float *const packed = carve(&scratch, ahead ? panels * panel_size : 0);

#pragma omp parallel num_threads(cpu_threads)
    {
        float *const c = scratch + omp_get_thread_num() * own_size;
        Element *const own_rows = (Element *)(c + ROWS * GEMM_NR);
        int64_t copied = -1; // the block whose rows are there
        int32_t row[ROWS], run[ROWS];
        for (int i = 0; i < ROWS && i * padded <= INT32_MAX; i++)
            row[i] = (int32_t)(i * padded), run[i] = ROWS - i;
        if (ahead) {
#pragma omp for schedule(static)
            for (int64_t p = 0; p < panels; p++)
                pack_panel((Element *)(packed + p * panel_size), &f, p);
        }
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < blocks * panels; unit++) {
            const int64_t block = unit / panels, p = unit % panels, left = f.n - p * GEMM_NR,
                          first = part_start(m, block, blocks),
                          end = part_start(m, block + 1, blocks);
            Element *const panel =
                (Element *)(ahead ? packed + p * panel_size : c + ROWS * GEMM_NR + rows_size);
            if (!ahead) pack_panel(panel, &f, p);
            const Element *const own_a =
                copied == block && rows_size
                    ? own_rows
                    : padded_rows(own_rows, a + first * f.k, end - first, f.k);
            copied = block;
            Target target = {y, e, first, p * GEMM_NR, f.n};
            gemm_block(c, left < GEMM_NR ? (int)left : GEMM_NR, own_a,
                       (GemmRows){row, run, (int)(end - first), 1}, axis, panel, store_rows,
                       &target);
        }
    }
}

static void linear_forward(void *y, void *z, const void *x, const void *w, const float *bias,
                           Activation act, LinearDims d)
{
    const Epilogue e = {.bias = bias, .z = z, .act = act};
    multiply(y, x, (Factor){w, true, d.in, d.out}, d.rows, &e);
}

static void linear_forward_f32(float *y, const void *x, const void *w, const float *bias,
                               LinearDims d)
{
    const Epilogue e = {.bias = bias, .f32 = y};
    multiply(NULL, x, (Factor){w, true, d.in, d.out}, d.rows, &e);
}

static void linear_backward_data(void *dx, const void *dy, const void *w, const void *saved,
                                 Activation act, LinearDims d)
{
    const Epilogue e = {.saved = act == ACT_NONE ? NULL : saved, .act_of_saved = act};
    multiply(dx, dy, (Factor){w, false, d.out, d.in}, d.rows, &e);
}

void cpu_linear_ops(Kernels *k)
{
    k->linear_forward = linear_forward;
    k->linear_forward_f32 = linear_forward_f32;
    k->linear_backward_data = linear_backward_data;
    k->linear_backward_weight = cpu_linear_backward_weight;
}
