// Times the operations of a device on the shapes of the two trainers, beside what the device can do
// at most: plain C, for a machine that has only a compiler. scripts/gpu_check.sh makes a report of
// its lines, which are separated by tabs:
//
//     ceiling  copy    GB/s of a long copy, reading and writing
//     ceiling  matmul  TFLOP/s of a large square product in the dtype
//     time     OPERATION  SHAPE  MICROSECONDS  GB/s  TFLOP/s  FRACTION
//
// FRACTION is the time that the call's bytes or FLOP (kernels/cost.h) would take at the ceiling,
// the longer of the two, over the time it took. Maps that fit into the cache may exceed 1.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "base/philox.h"
#include "base/os.h"

enum { CLASSES = 10, PICTURES = 10000 }; // of the set that gather reads

// Device tensors that the calls share; each is as large as the largest use.
typedef struct Memory {
    void *x, *y, *z, *w; // elements
    float *fx, *fy, *fz; // as many floats as the largest weights have
    float *channel[10];
    uint8_t *bytes; // pictures, and argmax
    int32_t *labels, *labels_out;
    uint32_t *ids;
} Memory;

static const Kernels *k; // the device, or the planning table
static Memory m;

// ---- the calls ---------------------------------------------------------------------------------

static MapDims map_of(ConvDims d)
{
    return (MapDims){d.n * d.h * d.w, d.cout};
}

static Norm norm_of(void)
{
    return (Norm){m.channel[0], m.channel[1], m.channel[2], m.channel[3], NULL,
                  m.channel[4], NULL,         m.channel[5], 1e-5f,        0.4f};
}

static Param param_of(ConvDims d, bool second)
{
    const int64_t n = (int64_t)d.cout * d.kernel * d.kernel * d.cin;
    return (Param){m.w, m.fx, m.fy, m.fz, second ? (float *)m.z : NULL, n, d.cout, 0, 0};
}

static void gather(ConvDims d)
{
    const GatherDims g = {d.n, d.h, d.w, d.cin, {0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}};
    const Augment a = {.flip = FLIP_ALTERNATE, .translate = 2};
    k->gather(m.x, m.labels_out, m.bytes, m.labels, m.ids, m.ids, g, a);
}

static void conv_forward(ConvDims d)
{
    k->conv2d_forward(m.y, NULL, m.channel[0], m.x, m.w, NULL, ACT_NONE, d);
}

static void conv_gelu(ConvDims d)
{
    k->conv2d_forward(m.y, m.z, NULL, m.x, m.w, m.channel[4], ACT_GELU, d);
}

static void conv_pool_forward(ConvDims d)
{
    k->conv2d_pool_forward(m.y, m.bytes, m.channel[0], m.x, m.w, NULL, ACT_NONE, d);
}

static void conv_data(ConvDims d)
{
    k->conv2d_backward_data(m.x, m.y, m.w, d);
}

static void conv_weight(ConvDims d)
{
    k->conv2d_backward_weight(m.fy, m.y, m.x, SET, d);
}

static void conv_pool_data(ConvDims d)
{
    k->conv2d_pool_backward_data(m.x, m.y, m.bytes, m.w, d);
}

static void conv_pool_weight(ConvDims d)
{
    k->conv2d_pool_backward_weight(m.fy, m.y, m.bytes, m.x, SET, d);
}

static void conv_norm_data(ConvDims d)
{
    const Norm n = norm_of();
    k->conv2d_norm_backward_data(m.x, &n, m.y, m.w, m.z, ACT_GELU, d);
}

static void conv_pool_norm_data(ConvDims d)
{
    const Norm n = norm_of();
    k->conv2d_pool_norm_backward_data(m.x, &n, m.y, m.bytes, m.w, m.z, ACT_GELU, d);
}

static void conv_norm_inference(ConvDims d)
{
    const Norm n = norm_of();
    k->conv2d_norm_inference(m.y, &n, m.x, m.w, ACT_GELU, d);
}

static void conv_pool_norm_inference(ConvDims d)
{
    const Norm n = norm_of();
    k->conv2d_pool_norm_inference(m.y, &n, m.x, m.w, ACT_GELU, d);
}

static void bias_gelu_backward(ConvDims d)
{
    k->bias_act_backward(NULL, m.channel[5], m.y, m.x, ACT_GELU, SET, map_of(d));
}

static void activation(ConvDims d)
{
    k->activation_forward(m.y, m.x, ACT_GELU, d.n * d.h * d.w * d.cout);
}

static void norm_stats(ConvDims d)
{
    k->norm_stats(m.channel[6], m.x, map_of(d));
}

static void norm_forward(ConvDims d)
{
    const Norm n = norm_of();
    k->norm_act_forward(m.y, &n, m.x, ACT_GELU, map_of(d));
}

static void norm_sums(ConvDims d)
{
    const Norm n = norm_of();
    k->norm_act_backward_sums(&n, m.y, m.x, ACT_GELU, map_of(d));
}

static void norm_backward(ConvDims d)
{
    const Norm n = norm_of();
    k->norm_act_backward(m.z, &n, m.y, m.x, ACT_GELU, SET, map_of(d));
}

static void maxpool(ConvDims d)
{
    k->maxpool_forward(m.y, m.bytes, m.x, (PoolDims){d.n, d.h, d.w, d.cout, d.h, d.w, 1});
}

static void maxpool_backward(ConvDims d)
{
    k->maxpool_backward(m.x, m.y, m.bytes, (PoolDims){d.n, d.h, d.w, d.cout, d.h, d.w, 1});
}

static void add(ConvDims d)
{
    k->add(m.z, m.x, m.y, d.n * d.h * d.w * d.cout);
}

static void dropout(ConvDims d)
{
    k->dropout(m.y, m.x, m.ids, 0.5f, 0, d.n, (int64_t)d.h * d.w * d.cout);
}

static void softmax(ConvDims d)
{
    k->softmax_cross_entropy(m.channel[7], m.y, m.fx, m.labels,
                             (LossDims){d.n, CLASSES, 0.2f, 1, 1});
}

static void squared_error(ConvDims d)
{
    k->mean_squared_error(m.channel[7], m.y, m.fx, m.x, 1, map_of(d));
}

static void linear_relu(ConvDims d)
{
    k->linear_forward(m.y, NULL, m.x, m.w, m.channel[4], ACT_RELU,
                      (LinearDims){d.n, d.cin, d.cout});
}

// Without what CUDA's library leaves to our kernels.
static void product(ConvDims d)
{
    k->linear_forward(m.y, NULL, m.x, m.w, NULL, ACT_NONE, (LinearDims){d.n, d.cin, d.cout});
}

static void linear_data(ConvDims d)
{
    k->linear_backward_data(m.z, m.y, m.w, m.x, ACT_RELU, (LinearDims){d.n, d.cin, d.cout});
}

static void linear_weight(ConvDims d)
{
    k->linear_backward_weight(m.fy, m.channel[5], m.y, m.x, SET, (LinearDims){d.n, d.cin, d.cout});
}

static void sgd(ConvDims d)
{
    const Param p = param_of(d, false);
    k->sgd_update(&p, 1, (Sgd){0.85f, true});
}

static void adamw(ConvDims d)
{
    const Param p = param_of(d, true);
    k->adamw_update(&p, 1, (AdamW){0.9f, 0.999f, 1e-8f});
}

static void muon(ConvDims d)
{
    const Param p = param_of(d, false);
    k->muon_update(&p, 1, (Muon){0.6f, 3, 3.4445f, -4.775f, 2.0315f, true});
}

// ---- the table ---------------------------------------------------------------------------------

// A convolution's dims name every shape: a map is (n,h,w,cout), a linear layer (n,cin) to cout.
// n 0: the batch.
static const struct {
    const char *name;
    void (*call)(ConvDims d);
    ConvDims d;
} calls[] = {
    {"gather", gather, {0, 32, 32, 3, 24, 1, 1, 0}},
    {"conv2d_forward gelu", conv_gelu, {0, 32, 32, 3, 24, 2, 1, 0}},
    {"conv2d_pool_forward", conv_pool_forward, {0, 31, 31, 24, 64, 3, 1, 1}},
    {"conv2d_pool_forward", conv_pool_forward, {0, 15, 15, 64, 256, 3, 1, 1}},
    {"conv2d_pool_forward", conv_pool_forward, {0, 7, 7, 256, 256, 3, 1, 1}},
    {"conv2d_forward", conv_forward, {0, 15, 15, 64, 64, 3, 1, 1}},
    {"conv2d_forward", conv_forward, {0, 7, 7, 256, 256, 3, 1, 1}},
    {"conv2d_forward", conv_forward, {0, 3, 3, 256, 256, 3, 1, 1}},
    {"conv2d_backward_data", conv_data, {0, 15, 15, 64, 64, 3, 1, 1}},
    {"conv2d_backward_data", conv_data, {0, 7, 7, 256, 256, 3, 1, 1}},
    {"conv2d_backward_data", conv_data, {0, 3, 3, 256, 256, 3, 1, 1}},
    {"conv2d_backward_weight", conv_weight, {0, 15, 15, 64, 64, 3, 1, 1}},
    {"conv2d_backward_weight", conv_weight, {0, 7, 7, 256, 256, 3, 1, 1}},
    {"conv2d_backward_weight", conv_weight, {0, 3, 3, 256, 256, 3, 1, 1}},
    {"conv2d_pool_backward_data", conv_pool_data, {0, 31, 31, 24, 64, 3, 1, 1}},
    {"conv2d_pool_backward_data", conv_pool_data, {0, 15, 15, 64, 256, 3, 1, 1}},
    {"conv2d_pool_backward_data", conv_pool_data, {0, 7, 7, 256, 256, 3, 1, 1}},
    {"conv2d_pool_backward_weight", conv_pool_weight, {0, 31, 31, 24, 64, 3, 1, 1}},
    {"conv2d_pool_backward_weight", conv_pool_weight, {0, 15, 15, 64, 256, 3, 1, 1}},
    {"conv2d_pool_backward_weight", conv_pool_weight, {0, 7, 7, 256, 256, 3, 1, 1}},
    {"conv2d_norm_backward_data gelu", conv_norm_data, {0, 15, 15, 64, 64, 3, 1, 1}},
    {"conv2d_norm_backward_data gelu", conv_norm_data, {0, 7, 7, 256, 256, 3, 1, 1}},
    {"conv2d_norm_backward_data gelu", conv_norm_data, {0, 3, 3, 256, 256, 3, 1, 1}},
    {"conv2d_pool_norm_backward_data gelu", conv_pool_norm_data, {0, 15, 15, 64, 256, 3, 1, 1}},
    {"conv2d_pool_norm_backward_data gelu", conv_pool_norm_data, {0, 7, 7, 256, 256, 3, 1, 1}},
    {"conv2d_norm_inference gelu", conv_norm_inference, {0, 15, 15, 64, 64, 3, 1, 1}},
    {"conv2d_norm_inference gelu", conv_norm_inference, {0, 7, 7, 256, 256, 3, 1, 1}},
    {"conv2d_norm_inference gelu", conv_norm_inference, {0, 3, 3, 256, 256, 3, 1, 1}},
    {"conv2d_pool_norm_inference gelu", conv_pool_norm_inference, {0, 31, 31, 24, 64, 3, 1, 1}},
    {"conv2d_pool_norm_inference gelu", conv_pool_norm_inference, {0, 15, 15, 64, 256, 3, 1, 1}},
    {"conv2d_pool_norm_inference gelu", conv_pool_norm_inference, {0, 7, 7, 256, 256, 3, 1, 1}},
    {"bias_act_backward gelu", bias_gelu_backward, {0, 31, 31, 3, 24, 1, 1, 0}},
    {"activation_forward gelu", activation, {0, 31, 31, 3, 24, 1, 1, 0}},
    {"norm_stats", norm_stats, {0, 15, 15, 64, 64, 1, 1, 0}},
    {"norm_act_forward gelu", norm_forward, {0, 15, 15, 64, 64, 1, 1, 0}},
    {"norm_act_backward_sums gelu", norm_sums, {0, 15, 15, 64, 64, 1, 1, 0}},
    {"norm_act_backward gelu", norm_backward, {0, 15, 15, 64, 64, 1, 1, 0}},
    {"maxpool_forward", maxpool, {0, 3, 3, 256, 256, 1, 1, 0}},
    {"maxpool_backward", maxpool_backward, {0, 3, 3, 256, 256, 1, 1, 0}},
    {"add", add, {0, 31, 31, 3, 24, 1, 1, 0}},
    {"dropout", dropout, {0, 31, 31, 3, 24, 1, 1, 0}},
    {"softmax_cross_entropy", softmax, {0, 1, 1, 256, CLASSES, 1, 1, 0}},
    {"mean_squared_error", squared_error, {128, 1, 1, 784, 784, 1, 1, 0}},
    {"linear_forward relu", linear_relu, {128, 1, 1, 784, 512, 1, 1, 0}},
    {"linear_forward relu", linear_relu, {8192, 1, 1, 784, 512, 1, 1, 0}},
    {"linear_forward relu", linear_relu, {8192, 1, 1, 512, 512, 1, 1, 0}},
    {"linear_backward_data relu", linear_data, {8192, 1, 1, 512, 512, 1, 1, 0}},
    {"linear_backward_weight", linear_weight, {8192, 1, 1, 512, 512, 1, 1, 0}},
    {"sgd_update", sgd, {1, 1, 1, 256, 256, 3, 1, 1}},
    {"adamw_update", adamw, {1, 1, 1, 256, 256, 3, 1, 1}},
    {"muon_update", muon, {1, 1, 1, 256, 256, 3, 1, 1}},
};
enum { CALLS = sizeof calls / sizeof *calls };

// ---- memory ------------------------------------------------------------------------------------

// Largest: map of an image, product, weights that are updated, channels.
enum { MAP = 31 * 31 * 24, PRODUCT = 4096 * 4096, WEIGHTS = 1 << 20, CHANNEL = 4096 };

static void *need(size_t bytes)
{
    void *p = k->alloc(bytes);
    if (!p) die(STATUS_DEVICE, "no %zu bytes on the device: give a smaller batch", bytes);
    return p;
}

static void fill(float *floats, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        floats[i] = 2 * philox_unit(philox(1, STREAM_TEST, (uint64_t)i, 0).v[0]) - 1;
}

static void allocate(int64_t batch)
{
    const int64_t map = batch * MAP > PRODUCT ? batch * MAP : PRODUCT;
    float *host = malloc((size_t)map * sizeof *host), *floats = need((size_t)map * sizeof *floats);
    if (!host) die(STATUS_IO, "no memory for %lld floats", (long long)map);
    fill(host, map);
    k->upload(floats, host, (size_t)map * sizeof *host);
    void **const maps[] = {&m.x, &m.y, &m.z, &m.w};
    for (int i = 0; i < 4; i++) {
        const int64_t n = i < 3 ? map : PRODUCT;
        *maps[i] = need((size_t)n * k->element_size);
        k->from_f32(*maps[i], floats, n);
    }
    float **const vectors[] = {&m.fx, &m.fy, &m.fz};
    for (int i = 0; i < 3; i++) {
        *vectors[i] = need(WEIGHTS * sizeof(float));
        k->copy(*vectors[i], floats, WEIGHTS * sizeof(float));
    }
    for (int i = 0; i < 10; i++) {
        m.channel[i] = need(CHANNEL * sizeof(float));
        k->copy(m.channel[i], floats, CHANNEL * sizeof(float));
    }
    const size_t pictures = (size_t)PICTURES * 32 * 32 * 3, places = (size_t)batch * MAP;
    m.bytes = need(pictures > places ? pictures : places);
    m.labels = need((size_t)(batch > PICTURES ? batch : PICTURES) * sizeof(int32_t));
    m.labels_out = need((size_t)batch * sizeof(int32_t));
    m.ids = need((size_t)batch * sizeof(uint32_t));
    uint32_t *ids = (uint32_t *)(void *)host;
    for (int64_t i = 0; i < batch; i++) ids[i] = (uint32_t)(i * 7919 % PICTURES);
    k->upload(m.ids, ids, (size_t)batch * sizeof *ids);
    k->synchronize();
    k->release(floats);
    free(host);
}

// Statistics of a batch: what the calls leave there would make later ones divide by 0.
static void reset_norm(ConvDims d)
{
    float stats[3 * 1024];
    const int channels = d.cout < 1024 ? d.cout : 1024;
    for (int c = 0; c < channels; c++) {
        stats[c] = (float)(d.n * d.h * d.w);
        stats[channels + c] = 0;
        stats[2 * channels + c] = stats[c];
    }
    k->upload(m.channel[0], stats, (size_t)(3 * channels) * sizeof *stats);
    k->upload(m.channel[3], stats, (size_t)channels * sizeof *stats); // running variances
}

// ---- timing ------------------------------------------------------------------------------------

// Seconds of one call among as many as take a tenth of a second, without waiting between them.
static double seconds_of(void (*call)(ConvDims d), ConvDims d)
{
    int64_t count = 1;
    for (;;) {
        const double start = os_seconds();
        for (int64_t i = 0; i < count; i++) call(d);
        k->synchronize();
        const double seconds = os_seconds() - start;
        if (seconds > 0.1) return seconds / (double)count;
        const double more = 0.15 / (seconds > 1e-6 ? seconds : 1e-6) * (double)count;
        count = more > 1000 * (double)count ? 1000 * count : (int64_t)more + 1;
    }
}

static void copy_map(ConvDims d)
{
    k->copy(m.y, m.x, (size_t)d.n * MAP * k->element_size);
}

static Plan plan_call(void (*call)(ConvDims d), ConvDims d)
{
    const Kernels *const device = k;
    Plan plan;
    Error e;
    k = kernels_plan_begin(device);
    call(d);
    check(kernels_plan_end(&plan, &e), &e);
    k = device;
    return plan;
}

static double matmul_rate(int64_t batch)
{
    ConvDims d = {.n = 1024, .h = 1, .w = 1, .cin = 4096, .cout = 4096, .kernel = 1, .stride = 1};
    while (d.n * 2 * d.cin <= batch * MAP && d.n < 16384) d.n *= 2;
    return plan_call(product, d).flop / seconds_of(product, d);
}

static void time_call(int i, int64_t batch, double copy_rate, double flop_rate)
{
    ConvDims d = calls[i].d;
    if (d.n == 0) d.n = batch;
    const Plan plan = plan_call(calls[i].call, d);
    reset_norm(d);
    const double seconds = seconds_of(calls[i].call, d);
    const double least = fmax(plan.bytes / copy_rate, plan.flop / flop_rate);
    printf("time\t%s\t%lldx%dx%dx%d to %d\t%.2f\t%.0f\t%.2f\t%.3f\n", calls[i].name, (long long)d.n,
           d.h, d.w, d.cin, d.cout, 1e6 * seconds, 1e-9 * plan.bytes / seconds,
           1e-12 * plan.flop / seconds, least / seconds);
    fflush(stdout);
}

int main(int count, char **arguments)
{
    const int64_t batch = count > 3 ? atoll(arguments[3]) : 2000;
    if (count < 3 || count > 4 || batch < 1) {
        fprintf(stderr, "usage: time_kernels DEVICE DTYPE [BATCH]\n");
        return STATUS_USAGE;
    }
    const KernelsConfig config = {.device = arguments[1], .dtype = arguments[2]};
    char note[256];
    Error e;
    check(kernels_open(&k, &config, note, &e), &e);
    allocate(batch);
    const ConvDims whole = {.n = batch};
    const double copy_rate =
        2 * (double)batch * MAP * (double)k->element_size / seconds_of(copy_map, whole);
    const double flop_rate = matmul_rate(batch);
    printf("device\t%s\t%s\n", k->description, arguments[2]);
    printf("ceiling\tcopy\t%.0f\nceiling\tmatmul\t%.2f\n", 1e-9 * copy_rate, 1e-12 * flop_rate);
    for (int i = 0; i < CALLS; i++) time_call(i, batch, copy_rate, flop_rate);
    k->close();
    return STATUS_OK;
}
