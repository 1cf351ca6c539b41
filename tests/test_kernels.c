// The CPU backend in fp32 and bf16: right for any number of threads, the same bits for all of them,
// and planned without touching memory.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"
#include "kernels/kernels.h"
#include "base/philox.h"

#include <cmocka.h> // last: it defines a macro fail()

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

enum { DTYPES = 2 };
static const char *const dtypes[DTYPES] = {"fp32", "bf16"};

static const Kernels *open_cpu(int threads, const char *dtype)
{
    const Kernels *kernels = NULL;
    const KernelsConfig config = {.device = "cpu", .dtype = dtype, .threads = threads};
    char note[256];
    Error e;
    if (kernels_open(&kernels, &config, note, &e)) fail_msg("%s", e.message);
    return kernels;
}

// ---- against the reference ---------------------------------------------------------------------

static void matches_reference(void **state)
{
    (void)state;
    for (int i = 0; i < DTYPES * 2; i++) {
        const Kernels *kernels = open_cpu(i % 2 ? 3 : 1, dtypes[i / 2]);
        assert_int_equal(kernels->element, i / 2 == 0 ? F32 : BF16);
        assert_int_equal(kernels_check(kernels, true, stdout, NULL), 0);
        kernels->close();
    }
}

// ---- the same bits for any number of threads ---------------------------------------------------

enum { FLOATS = 1 << 18, INPUTS = 5, OUTPUTS = 5 };
static const Kernels *k;
static float *in[INPUTS], *out[OUTPUTS]; // of FLOATS each; in[4] from 1.5 to 2.5
static void *element[INPUTS];            // the inputs in the element type
static uint8_t *places;                  // below 4
static int32_t *labels;                  // below 4: labels, ids and rows
static int shape;                        // which of the sizes below

enum { SHAPES = 3 };
static const ConvDims convs[SHAPES] = {
    {24, 12, 15, 24, 48, 3, 1, 1}, {1, 96, 64, 3, 24, 2, 1, 0}, {50, 6, 7, 24, 64, 3, 2, 1}};
static const LinearDims linears[SHAPES] = {{300, 260, 130}, {1, 3000, 70}, {2000, 17, 10}};
static const MapDims maps[SHAPES] = {{4000, 64}, {7, 1000}, {80000, 3}};
static const PoolDims pools[SHAPES] = {
    {40, 16, 16, 24, 2, 2, 2}, {1, 64, 64, 17, 3, 3, 2}, {100, 3, 3, 256, 3, 3, 3}};
static const LossDims losses[SHAPES] = {
    {2000, 10, 0.2f, 0.5f, 1}, {3, 4000, 0.1f, 1, 1}, {30001, 4, 0, 1, 1}};
static const int64_t lengths[SHAPES] = {200003, 70000, 500};
static const GatherDims gathers[SHAPES] = {{80, 32, 32, 3, {0.4f}, {1, 1, 1, 1}},
                                           {3, 200, 100, 1, {0.4f}, {1}},
                                           {60, 5, 6, 4, {0.4f}, {1, 1, 1, 1}}};
static const Augment augment = {FLIP_ALTERNATE, 2, 4, 0.1f, 0.1f, 0, 0, false};

// A part of a tensor: allowed here, where no device but the CPU is.
static float *part(float *tensor, int64_t offset)
{
    return tensor ? tensor + offset : NULL;
}

// Two parameters of (rows, columns), the second with a working copy.
static const Param *params(void)
{
    static const int64_t sizes[SHAPES][2][2] = {
        {{64, 576}, {10, 256}}, {{256, 36}, {1, 7}}, {{16, 27}, {150, 784}}};
    static Param list[2];
    for (int i = 0; i < 2; i++) {
        const int64_t rows = sizes[shape][i][0], n = rows * sizes[shape][i][1], at = i * FLOATS / 2;
        list[i] = (Param){.value = i ? out[4] : NULL,
                          .master = part(out[0], at),
                          .grad = part(out[1], at),
                          .state1 = part(out[2], at),
                          .state2 = part(out[3], at),
                          .n = n,
                          .rows = rows,
                          .lr = 1,
                          .decay = 0.01f};
    }
    return list;
}

static const Norm *norm(void)
{
    static Norm n;
    n = (Norm){in[4], out[1], out[2], part(out[2], 4096), in[1], in[2], out[3], part(out[3], 4096),
               1e-5f, 0.4f};
    return &n;
}

#define RUN(name, ...)                                                                             \
    static void run_##name(void)                                                                   \
    {                                                                                              \
        k->name(__VA_ARGS__);                                                                      \
    }
RUN(from_f32, out[0], in[0], lengths[shape])
RUN(to_f32, out[0], element[0], lengths[shape])
RUN(gather, out[0], (int32_t *)out[1], (uint8_t *)in[0], labels, (uint32_t *)labels,
    (uint32_t *)labels, gathers[shape], augment)
RUN(linear_forward, out[0], out[1], element[0], element[1], in[2], ACT_GELU, linears[shape])
RUN(linear_forward_f32, out[0], element[0], element[1], in[2], linears[shape])
RUN(linear_backward_data, out[0], element[0], element[1], element[2], ACT_GELU, linears[shape])
RUN(linear_backward_weight, out[0], out[1], element[0], element[1], ADD, linears[shape])
RUN(conv2d_forward, out[0], out[1], out[2], element[0], element[1], in[2], ACT_SILU, convs[shape])
RUN(conv2d_pool_forward, out[0], (uint8_t *)out[1], out[2], element[0], element[1], in[2], ACT_GELU,
    convs[shape])
RUN(conv2d_backward_data, out[0], element[0], element[1], convs[shape])
RUN(conv2d_backward_weight, out[0], element[0], element[1], ADD, convs[shape])
RUN(conv2d_pool_backward_data, out[0], element[0], places, element[1], convs[shape])
RUN(conv2d_pool_backward_weight, out[0], element[0], places, element[1], ADD, convs[shape])
RUN(conv2d_norm_backward_data, out[0], norm(), element[0], element[1], element[2], ACT_GELU,
    convs[shape])
RUN(conv2d_pool_norm_backward_data, out[0], norm(), element[0], places, element[1], element[2],
    ACT_SILU, convs[shape])
RUN(conv2d_norm_inference, out[0], norm(), element[0], element[1], ACT_GELU, convs[shape])
RUN(conv2d_pool_norm_inference, out[0], norm(), element[0], element[1], ACT_SILU, convs[shape])
RUN(activation_forward, out[0], element[0], ACT_GELU, lengths[shape])
RUN(activation_backward, out[0], element[0], element[1], ACT_SILU, lengths[shape])
RUN(bias_act_backward, out[0], out[1], element[0], element[1], ACT_GELU, ADD, maps[shape])
RUN(norm_stats, out[0], element[0], maps[shape])
RUN(norm_merge, out[0], in[4], 4, maps[shape].channels)
RUN(norm_act_forward, out[0], norm(), element[0], ACT_GELU, maps[shape])
RUN(norm_act_inference, out[0], norm(), element[0], ACT_GELU, maps[shape])
RUN(norm_act_backward_sums, norm(), element[0], element[3], ACT_GELU, maps[shape])
RUN(norm_act_backward, out[0], norm(), element[0], element[3], ACT_GELU, ADD, maps[shape])
RUN(maxpool_forward, out[0], (uint8_t *)out[1], element[0], pools[shape])
RUN(maxpool_backward, out[0], element[0], places, pools[shape])
RUN(avgpool_forward, out[0], element[0], pools[shape])
RUN(avgpool_backward, out[0], element[0], pools[shape])
RUN(dropout, out[0], element[0], (uint32_t *)labels, 0.3f, 1, 100, lengths[shape] / 100)
RUN(add, out[0], element[0], element[1], lengths[shape])
RUN(softmax_cross_entropy, out[0], out[1], in[0], labels, losses[shape])
RUN(mean_squared_error, out[0], out[1], in[0], element[1], 0.5f, maps[shape])
RUN(sgd_update, params(), 2, (Sgd){0.9f, true})
RUN(adamw_update, params(), 2, (AdamW){0.9f, 0.999f, 1e-8f})
RUN(muon_update, params(), 2, (Muon){0.6f, 3, 3.4445f, -4.775f, 2.0315f, true})
RUN(clip_gradients, out[4], params(), 2, 1)
RUN(ema_update, out[0], in[0], 1, lengths[shape])
RUN(axpy, out[0], 2, 1, in[0], lengths[shape])
RUN(scale, out[0], 2, 1, in[0], lengths[shape])
RUN(multiply, out[0], in[0], in[1], lengths[shape])
RUN(sqrt_divide, out[0], in[0], in[4], 1e-8f, lengths[shape])
RUN(dot, out[0], in[0], in[1], lengths[shape])

// All of the table: one without a RUN above does not compile.
#define OPERATION(name, ...) {#name, run_##name},
#define SCRATCH_OPERATION OPERATION
static const struct {
    const char *name;
    void (*run)(void);
} operations[] = {
#include "kernels/operations.h"
};

static void *new_bytes(size_t bytes)
{
    void *p = aligned_alloc(256, (bytes + 255) / 256 * 256);
    assert_non_null(p);
    return p;
}

static int allocate(void **state)
{
    (void)state;
    places = new_bytes(FLOATS);
    labels = new_bytes(FLOATS * sizeof *labels);
    for (int j = 0; j < OUTPUTS; j++) out[j] = new_bytes(FLOATS * sizeof **out);
    for (int j = 0; j < INPUTS; j++) {
        in[j] = new_bytes(FLOATS * sizeof **in);
        element[j] = new_bytes(FLOATS * sizeof **in);
    }
    for (uint32_t i = 0; i < FLOATS; i++) {
        const Philox p = philox(1, STREAM_TEST, i, 0), q = philox(1, STREAM_TEST, i, 1);
        for (int j = 0; j < 4; j++) in[j][i] = philox_unit(p.v[j]) - 0.5f;
        in[4][i] = philox_unit(q.v[0]) + 1.5f;
        places[i] = (uint8_t)philox_below(q.v[1], 4);
        labels[i] = (int32_t)philox_below(q.v[2], 4);
    }
    return 0;
}

static int release(void **state)
{
    (void)state;
    free(places);
    free(labels);
    for (int j = 0; j < OUTPUTS; j++) free(out[j]);
    for (int j = 0; j < INPUTS; j++) free(in[j]);
    for (int j = 0; j < INPUTS; j++) free(element[j]);
    memset(out, 0, sizeof out);
    memset(in, 0, sizeof in);
    memset(element, 0, sizeof element);
    places = NULL;
    labels = NULL;
    return 0;
}

// The outputs begin as what is positive, so that sums are added to and variances have roots.
static void run_with(int threads, const char *dtype, void (*run)(void))
{
    const StepValues values = {.seed = 7, .step = 3, .epoch = 1, .hyper = {1, 0.1f}};
    for (int j = 0; j < OUTPUTS; j++) memcpy(out[j], in[4], FLOATS * sizeof **out);
    k = open_cpu(threads, dtype);
    k->step_begin(0, &values);
    run();
    k->step_end();
    k->synchronize();
    k->close();
}

// Operation i of the present shape, with several numbers of threads: how many outputs differ.
static int different_bits(int i, const char *dtype, float *one[OUTPUTS])
{
    static const int counts[] = {2, 3, 5};
    int different = 0;
    run_with(1, dtype, operations[i].run);
    for (int j = 0; j < OUTPUTS; j++) memcpy(one[j], out[j], FLOATS * sizeof **out);
    for (int t = 0; t < COUNT(counts); t++) {
        run_with(counts[t], dtype, operations[i].run);
        for (int j = 0; j < OUTPUTS; j++) {
            if (memcmp(one[j], out[j], FLOATS * sizeof **out) == 0) continue;
            print_error("%s %s, shape %d, output %d: %d threads differ from 1\n",
                        operations[i].name, dtype, shape, j, counts[t]);
            different++;
        }
    }
    return different;
}

static void gives_the_same_bits(void **state)
{
    (void)state;
    float *one[OUTPUTS];
    for (int j = 0; j < OUTPUTS; j++) one[j] = new_bytes(FLOATS * sizeof **one);
    int different = 0;
    for (int t = 0; t < DTYPES; t++) {
        k = open_cpu(1, dtypes[t]);
        for (int j = 0; j < INPUTS; j++) k->from_f32(element[j], in[j], FLOATS);
        k->close();
        for (int i = 0; i < COUNT(operations); i++)
            for (shape = 0; shape < SHAPES; shape++) different += different_bits(i, dtypes[t], one);
    }
    for (int j = 0; j < OUTPUTS; j++) free(one[j]);
    assert_int_equal(different, 0);
}

// ---- plan mode ---------------------------------------------------------------------------------

static void plans_without_memory(void **state)
{
    (void)state;
    for (int t = 0; t < DTYPES; t++) {
        const Kernels *cpu = open_cpu(2, dtypes[t]);
        Plan plan;
        Error e;
        k = kernels_plan_begin(cpu); // every pointer is NULL
        for (int i = 0; i < COUNT(operations); i++)
            for (shape = 0; shape < SHAPES; shape++) operations[i].run();
        assert_int_equal(kernels_plan_end(&plan, &e), 0);
        assert_int_equal(plan.calls, SHAPES * COUNT(operations));
        cpu->close();
    }
}

static void counts_arithmetic(void **state)
{
    (void)state;
    const ConvDims conv = {2, 9, 8, 3, 16, 3, 1, 1};
    const LinearDims linear = {5, 7, 11};
    const double conv_flop = 2.0 * (2 * 9 * 8 * 16) * 27, linear_flop = 2.0 * 5 * 7 * 11;
    const double conv_bytes = 4.0 * (2 * 9 * 8 * (3 + 16) + 16 * 27);
    const Kernels *cpu = open_cpu(1, "fp32");
    Plan plan;
    Error e;
    k = kernels_plan_begin(cpu);
    k->conv2d_forward(NULL, NULL, NULL, NULL, NULL, NULL, ACT_NONE, conv);
    assert_int_equal(kernels_plan_end(&plan, &e), 0);
    assert_true(plan.calls == 1 && plan.flop == conv_flop && plan.bytes == conv_bytes);
    k = kernels_plan_begin(cpu); // starts from 0 again; the ninth row is not pooled
    k->conv2d_pool_forward(NULL, NULL, NULL, NULL, NULL, NULL, ACT_NONE, conv);
    k->conv2d_backward_data(NULL, NULL, NULL, conv);
    k->conv2d_pool_backward_weight(NULL, NULL, NULL, NULL, SET, conv);
    k->linear_forward_f32(NULL, NULL, NULL, NULL, linear);
    assert_int_equal(kernels_plan_end(&plan, &e), 0);
    assert_int_equal(plan.calls, 4);
    assert_true(plan.flop == conv_flop * (1 + 2 * 8.0 / 9) + linear_flop);
    cpu->close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_reference),
        cmocka_unit_test_setup_teardown(gives_the_same_bits, allocate, release),
        cmocka_unit_test(plans_without_memory),
        cmocka_unit_test(counts_arithmetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
