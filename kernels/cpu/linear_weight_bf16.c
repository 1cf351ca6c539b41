// Weight gradient of the fully connected layer in bfloat16, dw = dy^T x: dy is transposed and x
// stored in pairs of rows, TERMS rows at a time (gemm_pairs). Sums over more rows are added up in
// dw, in fp32.
// Floor: 2 rows in out FLOP over the rate of the bf16 products.
#include "kernels/cpu/linear.h"

#include <omp.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/memory.h"

enum { TERMS = 512, ROWS = 32 };

void cpu_linear_backward_weight(float *dw, float *dbias, const void *dy_, const void *x_,
                                GradMode mode, LinearDims d)
{
    const Element *const dy = dy_, *const x = x_;
    const int64_t most = gemm_padded(d.rows < TERMS ? d.rows : TERMS),
                  width = div_up(d.in, GEMM_NR) * GEMM_NR, panels = div_up(d.in, GEMM_NR),
                  tiles = div_up(d.out, ROWS);
    float *scratch =
        cpu_scratch((size_t)(carved_elements(tiles * ROWS * most) + carved_elements(most * width)) *
                    sizeof(float));
    if (!scratch) return;
    Element *const a = (Element *)carve(&scratch, carved_elements(tiles * ROWS * most)),
                   *const pairs = (Element *)scratch; // (most/2,width,2)

#pragma omp parallel num_threads(cpu_threads)
    for (int64_t first = 0; first < d.rows; first += TERMS) {
        const int64_t terms = d.rows - first < TERMS ? d.rows - first : TERMS,
                      k = gemm_padded(terms);
        const Element *const dy0 = dy + first * d.out, *const x0 = x + first * d.in;
        const bool add = mode == ADD || first > 0;
        _Alignas(64) float c[ROWS * GEMM_NR];
#pragma omp for schedule(static) nowait
        for (int64_t j = 0; j < (dbias ? d.out : 0); j += VEC)
            linear_sum_columns(dbias, add, dy0, terms, d.out, j);
#pragma omp for schedule(static) nowait
        for (int64_t t = 0; t < tiles; t++) {
            const int64_t left = d.out - t * ROWS;
            gemm_transpose(a + t * ROWS * most, most, dy0 + t * ROWS, d.out, terms,
                           left < ROWS ? left : ROWS);
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < k; i += 2) {
            Element *const to = pairs + i * width;
            if (i < terms)
                gemm_pair_rows(to, x0 + i * d.in, i + 1 < terms ? x0 + (i + 1) * d.in : NULL, d.in);
            else
                memset(to, 0, (size_t)(2 * width) * sizeof *to);
        }
#pragma omp for schedule(dynamic, 4)
        for (int64_t unit = 0; unit < tiles * panels; unit++) {
            const int64_t row = unit / panels * ROWS, column = unit % panels * GEMM_NR,
                          m = d.out - row < ROWS ? d.out - row : ROWS,
                          n = d.in - column < GEMM_NR ? d.in - column : GEMM_NR;
            gemm_pairs(&(GemmPairs){.c = c,
                                    .ldc = GEMM_NR,
                                    .m = m,
                                    .n = n,
                                    .k = k,
                                    .a = a + row * most,
                                    .lda = most,
                                    .b = pairs + 2 * column,
                                    .ldb = 2 * width});
            linear_store_gradient(dw + row * d.in + column, c, add, (int)m, n, d.in);
        }
    }
}
