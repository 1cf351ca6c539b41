// The table around a device's that sums gradients (kernels/distributed.c), with collectives that
// note what they are asked for: two ranks whose values are equal, so that a sum doubles them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/distributed.h"

#include <cmocka.h>

enum { RANKS = 2, ROWS = 4, WIDTH = 600, LAYERS = 3 }; // a layer's gradient is over 1 MiB

static struct {
    float *x;
    int64_t n;
} started[8];
static int starts, waits;

static void all_reduce(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] *= RANKS;
}

static void all_gather(float *all, const float *x, int64_t n)
{
    for (int r = 0; r < RANKS; r++) memcpy(all + r * n, x, (size_t)n * sizeof *x);
}

static void all_reduce_start(float *x, int64_t n, CommSpan *span)
{
    assert_null(span);
    started[starts].x = x;
    started[starts++].n = n;
}

static void all_reduce_wait(void)
{
    for (int i = 0; i < starts; i++) all_reduce(started[i].x, started[i].n);
    waits++;
}

static void nothing(void)
{
}

static const Collectives collectives = {all_reduce, all_gather, all_reduce_start, all_reduce_wait,
                                        nothing};
static const Kernels *k;
static float *x, *y, *gradients; // (LAYERS,WIDTH,WIDTH)
static Param params[LAYERS];
static const LinearDims dims = {ROWS, WIDTH, WIDTH};

static void backward(const Kernels *table, int layer)
{
    table->linear_backward_weight(params[layer].grad, NULL, y, x, SET, dims);
}

static int open_table(void **state)
{
    (void)state;
    Error e;
    Plan plan;
    char note[256];
    const KernelsConfig config = {.device = "cpu", .dtype = "fp32", .threads = 1};
    const Distributed d = {.collectives = &collectives, .ranks = RANKS, .sync_norm = true};
    assert_int_equal(kernels_open(&k, &config, note, &e), 0);
    k = kernels_distributed(k, &d);
    x = k->alloc(ROWS * WIDTH * sizeof *x);
    y = k->alloc(ROWS * WIDTH * sizeof *y);
    gradients = k->alloc(LAYERS * WIDTH * WIDTH * sizeof *gradients);
    for (int i = 0; i < ROWS * WIDTH; i++) x[i] = y[i] = (float)(i % 7);
    for (int i = 0; i < LAYERS; i++)
        params[i] = (Param){.grad = gradients + i * WIDTH * WIDTH, .n = WIDTH * WIDTH};
    kernels_distributed_gradients(params, LAYERS);
    const Norm norm = {0};
    const Kernels *planning = kernels_plan_begin(k);
    for (int i = LAYERS - 1; i >= 0; i--) backward(planning, i);
    planning->norm_act_forward(NULL, &norm, NULL, ACT_NONE, (MapDims){ROWS, WIDTH});
    assert_int_equal(kernels_plan_end(&plan, &e), 0);
    return 0;
}

static int close_table(void **state)
{
    (void)state;
    k->release(x);
    k->release(y);
    k->release(gradients);
    k->close();
    return 0;
}

static void begin_step(void)
{
    const StepValues values = {.hyper = {1}};
    starts = waits = 0;
    k->step_begin(0, &values);
}

static void each_bucket_starts_when_it_is_written(void **state)
{
    (void)state;
    begin_step();
    for (int i = LAYERS - 1; i >= 0; i--) {
        backward(k, i);
        assert_int_equal(starts, LAYERS - i);
        assert_ptr_equal(started[starts - 1].x, params[i].grad);
    }
    assert_int_equal(waits, 0);
    const float own = gradients[WIDTH + 1];
    k->axpy(y, 0, HYPER_ONE, y, 1); // does not read them
    assert_int_equal(waits, 0);
    k->scale(x + 1, 1, HYPER_ONE, gradients, 1); // does
    assert_int_equal(waits, 1);
    k->step_end();
    assert_int_equal(waits, 1);
    assert_true(gradients[WIDTH + 1] == RANKS * own && own > 0);
}

static void what_is_not_written_counts_as_zero(void **state)
{
    (void)state;
    for (int i = 0; i < LAYERS * WIDTH * WIDTH; i++) gradients[i] = 5;
    begin_step();
    backward(k, 2);
    backward(k, 0);
    assert_int_equal(starts, 2);
    k->step_end();
    assert_int_equal(starts, LAYERS);
    assert_true(params[1].grad[0] == 0 && params[1].grad[WIDTH * WIDTH - 1] == 0);
    assert_true(params[2].grad[WIDTH + 1] > 0);
}

static void norms_are_of_all_rows(void **state)
{
    (void)state;
    float stats[3] = {ROWS, 2, 5}, sums[2] = {3, 4}, running[2] = {0, 0}, bias = 0, dbias = 0;
    const Norm norm = {.stats = stats,
                       .sums = sums,
                       .running_mean = &running[0],
                       .running_var = &running[1],
                       .bias = &bias,
                       .dbias = &dbias,
                       .eps = 1e-5f,
                       .momentum = 0.5f};
    const MapDims d = {ROWS, 1};
    begin_step();
    k->norm_act_forward(y, &norm, x, ACT_NONE, d);
    assert_true(stats[0] == 2 * ROWS && stats[1] == 2 && stats[2] == 10);
    k->norm_act_backward_sums(&norm, y, x, ACT_NONE, d);
    const float all = sums[0]; // of both ranks
    k->norm_act_backward(y, &norm, y, x, ACT_NONE, SET, d);
    assert_true(dbias == all / RANKS);
    k->norm_act_backward(y, &norm, y, x, ACT_NONE, ADD, d);
    assert_true(dbias == 2 * (all / RANKS));
    const ConvDims conv = {ROWS, 1, 1, 1, 1, 1, 1, 0}; // g = dy w
    const float w = 1;
    k->conv2d_norm_backward_data(y, &norm, x, &w, x, ACT_NONE, conv);
    const float of_data = sums[0];
    k->norm_act_backward_sums(&norm, x, x, ACT_NONE, d);
    assert_true(of_data == sums[0] && of_data != 0);
    k->step_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_bucket_starts_when_it_is_written),
        cmocka_unit_test(what_is_not_written_counts_as_zero),
        cmocka_unit_test(norms_are_of_all_rows),
    };
    return cmocka_run_group_tests(tests, open_table, close_table);
}
