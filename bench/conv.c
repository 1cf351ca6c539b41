// Speed of the CPU's convolutions on the layers of the CIFAR network, against the rate of
// multiply-adds measured beside each: bench/conv [batch [threads [dtype]]].
// FLOP are those of a direct convolution, without outputs that no pooling window reads.
#include "bench/layers.h"

// Prints one layer's row; adds the seconds of its operations to total.
static void measure(const Kernels *k, const Layer *layer, int64_t batch, int threads,
                    double total[OPERATIONS])
{
    ConvDims d = layer->d;
    d.n = batch;
    const LayerTensors t = layer_tensors(k, d);
    printf("%-18s", layer->name);
    for (int operation = 0; operation < OPERATIONS; operation++) {
        double peak = 0, rate = 0;
        layer_call(k, operation, layer->pool, &t, d);
        for (int i = 0; i < BENCH_ROUNDS; i++) {
            peak = bench_larger(peak, bench_peak(threads));
            const double start = bench_seconds();
            layer_call(k, operation, layer->pool, &t, d);
            rate = bench_larger(rate, layer_flop(layer->pool, d) / (bench_seconds() - start));
        }
        total[operation] += layer_flop(layer->pool, d) / rate;
        printf("  %7.1f %4.0f%%", 1e-9 * rate, 100 * rate / peak);
    }
    printf("\n");
    layer_release(k, &t);
}

int main(int argc, char **argv)
{
    const int64_t batch = argc > 1 ? atoi(argv[1]) : 100;
    const KernelsConfig config = {"cpu", argc > 3 ? argv[3] : "fp32", argc > 2 ? atoi(argv[2]) : 0};
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
