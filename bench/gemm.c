// Speed of the CPU's matrix products against cblas_sgemm, in turn in one process:
//     bench/gemm [threads]
// The products are those of a linear layer: forward x w^T, data dy w, weight dy^T x. OpenBLAS runs
// as fast as it can only with OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE unset.
#include <cblas.h>

#include "bench/bench.h"

enum { FORWARD, DATA, WEIGHT, OPERATIONS };
static const char *const operation_name[] = {"forward", "data", "weight"};

static const LinearDims shapes[] = {
    {512, 512, 512}, {1024, 1024, 1024}, {128, 784, 512}, {128, 512, 512}, {128, 512, 10},
};

typedef struct Tensors {
    float *x, *w, *y, *dx, *dw;
} Tensors;

static void ours(const Kernels *k, int operation, const Tensors *t, LinearDims d)
{
    if (operation == FORWARD)
        k->linear_forward(t->y, NULL, t->x, t->w, NULL, ACT_NONE, d);
    else if (operation == DATA)
        k->linear_backward_data(t->dx, t->y, t->w, NULL, ACT_NONE, d);
    else
        k->linear_backward_weight(t->dw, NULL, t->y, t->x, SET, d);
}

static void blas(int operation, const Tensors *t, LinearDims d)
{
    const int rows = (int)d.rows, in = (int)d.in, out = (int)d.out;
    if (operation == FORWARD)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, out, in, 1, t->x, in, t->w, in,
                    0, t->y, out);
    else if (operation == DATA)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, in, out, 1, t->y, out, t->w,
                    in, 0, t->dx, in);
    else
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, out, in, rows, 1, t->y, out, t->x, in,
                    0, t->dw, in);
}

static double rate(const Kernels *k, bool is_ours, int operation, const Tensors *t, LinearDims d)
{
    const double flop = 2.0 * (double)d.rows * (double)d.in * (double)d.out;
    const int repeats = 1 + (int)(5e8 / flop);
    double start = 0;
    bench_rest();
    for (int i = -1; i < repeats; i++) { // call -1 wakes the threads
        if (i == 0) start = bench_seconds();
        if (is_ours)
            ours(k, operation, t, d);
        else
            blas(operation, t, d);
    }
    return flop * repeats / (bench_seconds() - start);
}

static void measure(const Kernels *k, LinearDims d, int operation, const Tensors *t, int threads)
{
    double peak = 0, our_rate = 0, blas_rate = 0;
    for (int i = 0; i < BENCH_ROUNDS; i++) {
        peak = bench_larger(peak, bench_peak(threads));
        our_rate = bench_larger(our_rate, rate(k, true, operation, t, d));
        blas_rate = bench_larger(blas_rate, rate(k, false, operation, t, d));
    }
    printf("%5lld %5lld %5lld  %-8s %7.1f  %7.1f  %5.2f  %4.0f%%\n", (long long)d.rows,
           (long long)d.in, (long long)d.out, operation_name[operation], 1e-9 * our_rate,
           1e-9 * blas_rate, our_rate / blas_rate, 100 * our_rate / peak);
}

int main(int argc, char **argv)
{
    const KernelsConfig config = {"cpu", "fp32", argc > 1 ? atoi(argv[1]) : 0};
    const Kernels *k;
    Error e = {0};
    char note[256];
    if (kernels_open(&k, &config, note, &e)) return fprintf(stderr, "%s\n", e.message), e.status;
    const int threads = config.threads ? config.threads : os_cpu_count();
    openblas_set_num_threads(threads);
    printf("%d threads, peak %.0f GFLOP/s, OpenBLAS %s\n", threads, 1e-9 * bench_peak(threads),
           openblas_get_corename());
    printf(" rows    in   out              ours  OpenBLAS  ratio  of peak\n");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const LinearDims d = shapes[i];
        const Tensors t = {bench_values(k, d.rows * d.in), bench_values(k, d.out * d.in),
                           bench_values(k, d.rows * d.out), bench_values(k, d.rows * d.in),
                           bench_values(k, d.out * d.in)};
        for (int operation = 0; operation < OPERATIONS; operation++)
            measure(k, d, operation, &t, threads);
        float *const all[] = {t.x, t.w, t.y, t.dx, t.dw};
        for (int j = 0; j < 5; j++) k->release(all[j]);
    }
    k->close();
    return 0;
}
