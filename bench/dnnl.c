// Speed of the CPU's convolutions on the layers of the CIFAR network against oneDNN's, in turn in
// one process: bench/dnnl [batch [threads [fp32|bf16]]]. Version 2 of oneDNN's interface.
//
// oneDNN chooses its own layouts and pays no reorders; of its direct and Winograd algorithms the
// faster one counts. Ours is what the trainer calls: where a layer pools, pooling and its backward
// pass are in our time only, outputs that no window reads in oneDNN's only.
#include <dnnl.h>

#include "bench/layers.h"

#define CHECK(call)                                                                                \
    do {                                                                                           \
        if ((call) != dnnl_success)                                                                \
            fprintf(stderr, "dnnl.c:%d: %s failed\n", __LINE__, #call), exit(STATUS_FAILED);       \
    } while (0)

static dnnl_engine_t engine;
static dnnl_stream_t stream;

// One operation of oneDNN, ready to run.
typedef struct Primitive {
    dnnl_primitive_t primitive; // NULL: not offered
    dnnl_memory_t memory[3];
    dnnl_exec_arg_t arguments[3];
} Primitive;

static dnnl_memory_desc_t any_layout(int ndims, const dnnl_dims_t dims, dnnl_data_type_t type)
{
    dnnl_memory_desc_t d;
    CHECK(dnnl_memory_desc_init_by_tag(&d, ndims, dims, type, dnnl_format_tag_any));
    return d;
}

static dnnl_status_t describe(dnnl_convolution_desc_t *c, int operation, dnnl_alg_kind_t algorithm,
                              ConvDims d, dnnl_data_type_t type)
{
    const int oh = conv_out(d.h, d.kernel, d.stride, d.pad),
              ow = conv_out(d.w, d.kernel, d.stride, d.pad);
    const dnnl_memory_desc_t x = any_layout(4, (dnnl_dims_t){d.n, d.cin, d.h, d.w}, type),
                             w = any_layout(4, (dnnl_dims_t){d.cout, d.cin, d.kernel, d.kernel},
                                            type),
                             y = any_layout(4, (dnnl_dims_t){d.n, d.cout, oh, ow}, type);
    const dnnl_dims_t strides = {d.stride, d.stride}, pad = {d.pad, d.pad};
    if (operation == FORWARD)
        return dnnl_convolution_forward_desc_init(c, dnnl_forward_training, algorithm, &x, &w, NULL,
                                                  &y, strides, pad, pad);
    if (operation == DATA)
        return dnnl_convolution_backward_data_desc_init(c, algorithm, &x, &w, &y, strides, pad,
                                                        pad);
    return dnnl_convolution_backward_weights_desc_init(c, algorithm, &x, &w, NULL, &y, strides, pad,
                                                       pad);
}

// A memory full of ones, or nearly, in either type: 0x3f80 is bf16's one.
static dnnl_memory_t make_memory(const dnnl_memory_desc_t *d)
{
    dnnl_memory_t m;
    void *data;
    CHECK(dnnl_memory_create(&m, d, engine, DNNL_MEMORY_ALLOCATE));
    CHECK(dnnl_memory_get_data_handle(m, &data));
    const size_t n = dnnl_memory_desc_get_size(d) / sizeof(uint16_t);
    for (size_t i = 0; i < n; i++) ((uint16_t *)data)[i] = 0x3f80;
    return m;
}

static Primitive make_primitive(int operation, dnnl_alg_kind_t algorithm, ConvDims d,
                                dnnl_data_type_t type)
{
    static const struct {
        dnnl_query_t query;
        int argument;
    } operands[OPERATIONS][3] = {
        {{dnnl_query_src_md, DNNL_ARG_SRC},
         {dnnl_query_weights_md, DNNL_ARG_WEIGHTS},
         {dnnl_query_dst_md, DNNL_ARG_DST}},
        {{dnnl_query_diff_src_md, DNNL_ARG_DIFF_SRC},
         {dnnl_query_weights_md, DNNL_ARG_WEIGHTS},
         {dnnl_query_diff_dst_md, DNNL_ARG_DIFF_DST}},
        {{dnnl_query_src_md, DNNL_ARG_SRC},
         {dnnl_query_diff_weights_md, DNNL_ARG_DIFF_WEIGHTS},
         {dnnl_query_diff_dst_md, DNNL_ARG_DIFF_DST}},
    };
    Primitive p = {0};
    dnnl_convolution_desc_t forward, c;
    dnnl_primitive_desc_t hint, pd;
    if (describe(&forward, FORWARD, algorithm, d, type) ||
        dnnl_primitive_desc_create(&hint, &forward, NULL, engine, NULL))
        return p;
    if (!describe(&c, operation, algorithm, d, type) &&
        !dnnl_primitive_desc_create(&pd, &c, NULL, engine, hint)) {
        CHECK(dnnl_primitive_create(&p.primitive, pd));
        for (int i = 0; i < 3; i++) {
            p.memory[i] =
                make_memory(dnnl_primitive_desc_query_md(pd, operands[operation][i].query, 0));
            p.arguments[i] = (dnnl_exec_arg_t){operands[operation][i].argument, p.memory[i]};
        }
        CHECK(dnnl_primitive_desc_destroy(pd));
    }
    CHECK(dnnl_primitive_desc_destroy(hint));
    return p;
}

static void release_primitive(Primitive *p)
{
    if (!p->primitive) return;
    for (int i = 0; i < 3; i++) CHECK(dnnl_memory_destroy(p->memory[i]));
    CHECK(dnnl_primitive_destroy(p->primitive));
}

static double run(const Primitive *p)
{
    const double start = bench_seconds();
    CHECK(dnnl_primitive_execute(p->primitive, stream, 3, p->arguments));
    CHECK(dnnl_stream_wait(stream));
    return bench_seconds() - start;
}

// Prints ours and oneDNN's best milliseconds and the ratio; adds them to total.
static void measure(const Kernels *k, const Layer *layer, int64_t batch, dnnl_data_type_t type,
                    double total[2])
{
    static const dnnl_alg_kind_t algorithms[] = {dnnl_convolution_direct,
                                                 dnnl_convolution_winograd};
    ConvDims d = layer->d;
    d.n = batch;
    const LayerTensors t = layer_tensors(k, d);
    printf("%-18s", layer->name);
    for (int operation = 0; operation < OPERATIONS; operation++) {
        double ours = 1e30, theirs[2] = {1e30, 1e30};
        Primitive p[2];
        for (int i = 0; i < 2; i++) p[i] = make_primitive(operation, algorithms[i], d, type);
        for (int round = -1; round < BENCH_ROUNDS; round++) { // round -1 warms up
            bench_rest();
            const double start = bench_seconds();
            layer_call(k, operation, layer->pool, &t, d);
            const double seconds = bench_seconds() - start;
            if (round >= 0 && seconds < ours) ours = seconds;
            for (int i = 0; i < 2; i++) {
                if (!p[i].primitive) continue;
                bench_rest();
                const double other = run(&p[i]);
                if (round >= 0 && other < theirs[i]) theirs[i] = other;
            }
        }
        const bool winograd = theirs[1] < theirs[0];
        const double best = theirs[winograd];
        printf("  %8.3f %8.3f%c %5.2f", 1e3 * ours, 1e3 * best, winograd ? 'w' : ' ', best / ours);
        total[0] += ours, total[1] += best;
        for (int i = 0; i < 2; i++) release_primitive(&p[i]);
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
    CHECK(dnnl_engine_create(&engine, dnnl_cpu, 0));
    CHECK(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    const dnnl_version_t *v = dnnl_version();
    double total[2] = {0};
    printf("batch %lld, %s, oneDNN %d.%d; milliseconds of ours and oneDNN (w: Winograd), ratio\n",
           (long long)batch, k->description, v->major, v->minor);
    printf("%-18s  %-24s  %-24s  %-24s\n", "layer", "forward", "data", "weight");
    for (int i = 0; i < LAYERS; i++)
        measure(k, &layers[i], batch, k->element == BF16 ? dnnl_bf16 : dnnl_f32, total);
    printf("sum: %.2f ms and %.2f ms, ratio %.2f\n", 1e3 * total[0], 1e3 * total[1],
           total[1] / total[0]);
    CHECK(dnnl_stream_destroy(stream));
    CHECK(dnnl_engine_destroy(engine));
    k->close();
    return 0;
}
