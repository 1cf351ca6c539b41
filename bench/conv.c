// Speed of the CPU's convolutions on the layers of the CIFAR network, against the rate of
// multiply-adds measured beside each: bench/conv [batch [threads]].
// FLOP are those of a direct convolution, without outputs that no pooling window reads.
#include "bench/bench.h"

typedef struct Layer {
    const char *name;
    bool pool;
    ConvDims d;
} Layer;

static const Layer layers[] = {
    {"whiten 3->24 @32", false, {0, 32, 32, 3, 24, 2, 1, 0}},
    {"24->64 @31 pool", true, {0, 31, 31, 24, 64, 3, 1, 1}},
    {"64->64 @15", false, {0, 15, 15, 64, 64, 3, 1, 1}},
    {"64->256 @15 pool", true, {0, 15, 15, 64, 256, 3, 1, 1}},
    {"256->256 @7", false, {0, 7, 7, 256, 256, 3, 1, 1}},
    {"256->256 @7 pool", true, {0, 7, 7, 256, 256, 3, 1, 1}},
    {"256->256 @3", false, {0, 3, 3, 256, 256, 3, 1, 1}},
};
enum { LAYERS = sizeof layers / sizeof *layers, FORWARD = 0, DATA, WEIGHT, OPERATIONS };

typedef struct Tensors {
    float *x, *w, *y, *dx, *dw, *stats;
    uint8_t *argmax;
} Tensors;

static void call(const Kernels *k, int operation, bool pool, const Tensors *t, ConvDims d)
{
    if (operation == FORWARD && pool)
        k->conv2d_pool_forward(t->y, t->argmax, t->stats, t->x, t->w, NULL, ACT_NONE, d);
    else if (operation == FORWARD)
        k->conv2d_forward(t->y, NULL, t->stats, t->x, t->w, NULL, ACT_NONE, d);
    else if (operation == DATA && pool)
        k->conv2d_pool_backward_data(t->dx, t->y, t->argmax, t->w, d);
    else if (operation == DATA)
        k->conv2d_backward_data(t->dx, t->y, t->w, d);
    else if (pool)
        k->conv2d_pool_backward_weight(t->dw, t->y, t->argmax, t->x, SET, d);
    else
        k->conv2d_backward_weight(t->dw, t->y, t->x, SET, d);
}

static double flop(bool pool, ConvDims d)
{
    int h = conv_out(d.h, d.kernel, d.stride, d.pad), w = conv_out(d.w, d.kernel, d.stride, d.pad);
    if (pool) h = h / 2 * 2, w = w / 2 * 2;
    return 2.0 * (double)d.n * h * w * d.cout * d.kernel * d.kernel * d.cin;
}

// Prints one layer's row; adds the seconds of its operations to total.
static void measure(const Kernels *k, const Layer *layer, int64_t batch, int threads,
                    double total[OPERATIONS])
{
    ConvDims d = layer->d;
    d.n = batch;
    const int64_t x = d.n * d.h * d.w * d.cin, y = d.n * (d.h + 2) * (d.w + 2) * d.cout,
                  w = (int64_t)d.cout * d.kernel * d.kernel * d.cin;
    const Tensors t = {bench_values(k, x), bench_values(k, w), bench_values(k, y),
                       bench_values(k, x), bench_values(k, w), bench_values(k, 3 * d.cout),
                       k->alloc((size_t)y)};
    printf("%-18s", layer->name);
    for (int operation = 0; operation < OPERATIONS; operation++) {
        double peak = 0, rate = 0;
        call(k, operation, layer->pool, &t, d);
        for (int i = 0; i < BENCH_ROUNDS; i++) {
            peak = bench_larger(peak, bench_peak(threads));
            const double start = bench_seconds();
            call(k, operation, layer->pool, &t, d);
            rate = bench_larger(rate, flop(layer->pool, d) / (bench_seconds() - start));
        }
        total[operation] += flop(layer->pool, d) / rate;
        printf("  %7.1f %4.0f%%", 1e-9 * rate, 100 * rate / peak);
    }
    printf("\n");
    float *const all[] = {t.x, t.w, t.y, t.dx, t.dw, t.stats};
    for (int i = 0; i < 6; i++) k->release(all[i]);
    k->release(t.argmax);
}

int main(int argc, char **argv)
{
    const int64_t batch = argc > 1 ? atoi(argv[1]) : 100;
    const KernelsConfig config = {"cpu", "fp32", argc > 2 ? atoi(argv[2]) : 0};
    const Kernels *k;
    Error e = {0};
    char note[256];
    if (kernels_open(&k, &config, note, &e)) return fprintf(stderr, "%s\n", e.message), e.status;
    const int threads = config.threads ? config.threads : os_cpu_count();
    double total[OPERATIONS] = {0};
    printf("batch %lld, %d threads, peak %.0f GFLOP/s; GFLOP/s and fraction of the peak\n",
           (long long)batch, threads, 1e-9 * bench_peak(threads));
    printf("%-18s  %13s  %13s  %13s\n", "layer", "forward", "data", "weight");
    for (int i = 0; i < LAYERS; i++) measure(k, &layers[i], batch, threads, total);
    printf("%-18s  %10.2f ms  %10.2f ms  %10.2f ms\n", "sum", 1e3 * total[FORWARD],
           1e3 * total[DATA], 1e3 * total[WEIGHT]);
    k->close();
    return 0;
}
