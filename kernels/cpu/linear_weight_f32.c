// Weight gradient of the fully connected layer, dw = dy^T x.
// Floor: 2 rows in out FLOP over the rate of multiply-adds.
#include "kernels/cpu/linear.h"

#include <omp.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/memory.h"

enum {
    TERMS = 256,                               // terms of a sum in one pass: as many rows of x
    A_WIDTH = (GEMM_MR + VEC - 1) / VEC * VEC, // of the packed columns of dy
    FEWEST_UNITS = 8 // pieces of work to share out, where the matrix is large enough
};

// Columns of dy from `column` on as (rows,A_WIDTH): one tile's A^T.
static void pack_columns(float *packed, const float *dy, int64_t rows, int64_t out, int64_t column)
{
    for (int j = 0; j < A_WIDTH && column + j < out; j += VEC) {
        const int64_t count = out - column - j;
        for (int64_t i = 0; i < rows; i++)
            vec_store(packed + i * A_WIDTH + j, vec_load_up_to(dy + i * out + column + j, count));
    }
}

void cpu_linear_backward_weight(float *dw, float *dbias, const void *dy_, const void *x_,
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
            linear_sum_columns(dbias, add, dy + k * d.out, terms, d.out, j);
#pragma omp for schedule(static)
        for (int64_t t = 0; t < tiles; t++)
            pack_columns(a + t * a_size, dy + k * d.out, terms, d.out, part_start(d.out, t, tiles));
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < panels * groups; unit++) {
            const int64_t column = unit / groups * GEMM_NR, group = unit % groups,
                          left = d.in - column;
            const int n = left < GEMM_NR ? (int)left : GEMM_NR;
            gemm_pack(panel, 0, x + k * d.in + column, d.in, terms, n);
            for (int64_t t = part_start(tiles, group, groups);
                 t < part_start(tiles, group + 1, groups); t++) {
                const int64_t first = part_start(d.out, t, tiles);
                const int m = (int)(part_start(d.out, t + 1, tiles) - first);
                float *const to = dw + first * d.in + column;
                if (n % VEC == 0) {
                    gemm_tile_transposed(to, d.in, add, m, n, a + t * a_size, row, terms, panel);
                    continue;
                }
                gemm_tile_transposed(c, GEMM_NR, false, m, n, a + t * a_size, row, terms, panel);
                linear_store_gradient(to, c, add, m, left, d.in);
            }
        }
    }
}
