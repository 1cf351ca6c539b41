// kernels/reference.h: every backward pass against central differences of its forward pass, in
// fp64, and what has no backward pass against values worked out by hand.
//
// The loss is sum(r * y) of the outputs y with fixed r. (L(x+h) - L(x-h)) / 2h is off by h^2 L'''/6
// and by 1e-16 L/h, about 1e-10 with h = 1e-5; the inputs keep away from the kinks of ReLU and max.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "kernels/reference.h"

#include <cmocka.h> // last: it defines a macro fail()

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))
enum { SIZE = 4096 }; // of every tensor here, at most

// The tensors of the operation under test; u is what an activation made x from.
static double x[SIZE], w[SIZE], bias[SIZE], y[SIZE], r[SIZE], u[SIZE];
static double dx[SIZE], dw[SIZE], dbias[SIZE], dy[SIZE], stats[SIZE], sums[SIZE], running[SIZE];
static uint8_t argmax[SIZE];
static Activation act;
static ConvDims conv;
static LinearDims linear;
static MapDims map;
static PoolDims pool;
static LossDims loss_dims;
static int32_t labels[SIZE];

// Uniform in -1 .. 1, but for 0.01 around the kink at 0.
static void fill(double *p, uint64_t seed)
{
    for (uint64_t i = 0; i < SIZE; i++) {
        const double value = 2 * (double)philox_unit(philox(seed, STREAM_TEST, i, 0).v[0]) - 1;
        p[i] = fabs(value) < 0.01 ? 0.02 : value;
    }
}

static int setup(void **state)
{
    (void)state;
    double *const all[] = {x, w, bias, r, u};
    for (int i = 0; i < COUNT(all); i++) fill(all[i], (uint64_t)i + 1);
    memset(y, 0, sizeof y);
    return 0;
}

static double weighted(int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += r[i] * y[i];
    return sum;
}

static void assert_gradient(double *p, const double *gradient, int64_t n, double (*loss)(void))
{
    const double h = 1e-5;
    for (int64_t i = 0; i < n; i++) {
        const double middle = p[i];
        p[i] = middle + h;
        const double above = loss();
        p[i] = middle - h;
        const double below = loss();
        p[i] = middle;
        const double expected = (above - below) / (2 * h);
        if (fabs(gradient[i] - expected) > 1e-6 * fmax(1e-2, fabs(expected)))
            fail_msg("gradient[%d] = %.12g, central difference %.12g", (int)i, gradient[i],
                     expected);
    }
}

// ---- linear ------------------------------------------------------------------------------------

static double linear_loss(void)
{
    ref_linear_forward(y, NULL, x, w, bias, ACT_NONE, linear);
    return weighted(linear.rows * linear.out);
}

// Through the activation that made x from u.
static double linear_loss_of_u(void)
{
    ref_activation_forward(x, u, act, linear.rows * linear.in);
    return linear_loss();
}

static void linear_backward(void **state)
{
    (void)state;
    linear = (LinearDims){5, 7, 4};
    ref_linear_backward_weight(dw, dbias, r, x, SET, linear);
    assert_gradient(w, dw, linear.in * linear.out, linear_loss);
    assert_gradient(bias, dbias, linear.out, linear_loss);
    ref_linear_backward_data(dx, r, w, NULL, ACT_NONE, linear);
    assert_gradient(x, dx, linear.rows * linear.in, linear_loss);
    for (act = ACT_NONE + 1; act < ACTIVATIONS; act++) {
        linear_loss_of_u();
        ref_linear_backward_data(dx, r, w, ref_activation(act, 0).from_y ? x : u, act, linear);
        assert_gradient(u, dx, linear.rows * linear.in, linear_loss_of_u);
    }
}

// ---- convolution -------------------------------------------------------------------------------

static int64_t conv_outputs(int window)
{
    return conv.n * (conv_out(conv.h, conv.kernel, conv.stride, conv.pad) / window) *
           (conv_out(conv.w, conv.kernel, conv.stride, conv.pad) / window) * conv.cout;
}

static double conv_loss(void)
{
    ref_conv2d_forward(y, NULL, NULL, x, w, NULL, ACT_NONE, conv);
    return weighted(conv_outputs(1));
}

static double conv_pool_loss(void)
{
    ref_conv2d_pool_forward(y, argmax, NULL, x, w, bias, ACT_NONE, conv);
    return weighted(conv_outputs(2));
}

static void conv2d_backward(void **state)
{
    (void)state;
    const ConvDims shapes[] = {{2, 5, 4, 3, 2, 3, 1, 1}, {1, 6, 7, 2, 3, 2, 1, 0},
                               {1, 7, 6, 2, 2, 3, 2, 1}, {1, 5, 5, 1, 2, 5, 1, 2},
                               {2, 3, 3, 2, 4, 1, 1, 0}, {1, 6, 6, 2, 1, 4, 2, 3}};
    for (int i = 0; i < COUNT(shapes); i++) {
        conv = shapes[i];
        const int64_t inputs = conv.n * conv.h * conv.w * conv.cin;
        const int64_t weights = (int64_t)conv.cout * conv.kernel * conv.kernel * conv.cin;
        ref_conv2d_backward_data(dx, r, w, conv);
        ref_conv2d_backward_weight(dw, r, x, SET, conv);
        assert_gradient(x, dx, inputs, conv_loss);
        assert_gradient(w, dw, weights, conv_loss);
        conv_pool_loss();
        uint8_t places[SIZE];
        memcpy(places, argmax, sizeof places);
        ref_conv2d_pool_backward_data(dx, r, places, w, conv);
        ref_conv2d_pool_backward_weight(dw, r, places, x, SET, conv);
        assert_gradient(x, dx, inputs, conv_pool_loss);
        assert_gradient(w, dw, weights, conv_pool_loss);
    }
}

// 3x3, pad 1, of ones: the number of taps inside; and the outputs' statistics.
static void conv2d_forward_by_hand(void **state)
{
    (void)state;
    conv = (ConvDims){1, 3, 3, 1, 1, 3, 1, 1};
    const double expected[] = {4, 6, 4, 6, 9, 6, 4, 6, 4}, half = 0.5;
    double z[9], pooled, s[3];
    for (int i = 0; i < 9; i++) x[i] = w[i] = 1;
    ref_conv2d_forward(y, z, s, x, w, &half, ACT_RELU, conv);
    for (int i = 0; i < 9; i++) assert_true(y[i] == expected[i] + 0.5 && z[i] == y[i]);
    assert_true(s[0] == 9 && fabs(s[1] - (49.0 / 9 + 0.5)) < 1e-12);
    assert_true(fabs(s[2] - (289 - 49.0 * 49 / 9)) < 1e-12);
    ref_conv2d_pool_forward(&pooled, argmax, NULL, x, w, NULL, ACT_NONE, conv);
    assert_true(pooled == 9 && argmax[0] == 3);
}

// ---- activation, norm, pooling, loss -----------------------------------------------------------

static double bias_act_loss(void)
{
    for (int64_t i = 0; i < map.rows * map.channels; i++)
        y[i] = ref_act(x[i] + bias[i % map.channels], act);
    return weighted(map.rows * map.channels);
}

static void activation_backward(void **state)
{
    (void)state;
    map = (MapDims){40, 5};
    const int64_t n = map.rows * map.channels;
    memset(bias, 0, sizeof bias);
    for (int64_t i = 0; i < n; i++) x[i] *= 4;
    for (act = ACT_NONE; act < ACTIVATIONS; act++) {
        bias_act_loss();
        const double *saved = ref_activation(act, 0).from_y ? y : x;
        ref_activation_backward(dx, r, saved, act, n);
        ref_bias_act_backward(dy, dbias, r, saved, act, SET, map);
        assert_memory_equal(dx, dy, (size_t)n * sizeof *dx);
        ref_bias_act_backward(NULL, dbias, r, saved, act, ADD, map);
        for (int c = 0; c < map.channels; c++) dbias[c] /= 2;
        assert_gradient(x, dx, n, bias_act_loss);
        assert_gradient(bias, dbias, map.channels, bias_act_loss);
    }
}

// What the checks of devices take for true of an activation: from -20 to 20 in steps of h.
static void activation_bounds(void **state)
{
    (void)state;
    const double h = 1e-3;
    for (act = ACT_NONE; act < ACTIVATIONS; act++) {
        for (int i = -20000; i < 20000; i++) {
            const RefActivation a = ref_activation(act, i * h), b = ref_activation(act, i * h + h);
            const double jump = i == 0 ? a.kink : 0;
            assert_true(fabs(a.derivative) <= a.max_slope);
            assert_true(fabs(b.derivative - a.derivative) <= a.max_curvature * h + jump + 1e-12);
            if (a.from_y) assert_true(ref_act_grad(a.y, act) == a.derivative);
        }
    }
}

static RefNorm norm_of(double *dweight)
{
    return (RefNorm){stats, sums,    running, running + 64, dweight ? w : NULL,
                     bias,  dweight, dbias,   1e-3,         0.4};
}

static double norm_loss(void)
{
    const RefNorm n = norm_of(dw);
    ref_norm_stats(stats, x, map);
    ref_norm_act_forward(y, &n, x, act, map);
    return weighted(map.rows * map.channels);
}

// ReLU's kink: bias and weight put every z away from 0 or the difference would show it.
static void norm_backward(void **state)
{
    (void)state;
    map = (MapDims){17, 3};
    const int64_t n = map.rows * map.channels;
    const RefNorm norm = norm_of(dw);
    for (act = ACT_NONE; act < ACTIVATIONS; act++) {
        norm_loss();
        ref_norm_act_backward_sums(&norm, r, x, act, map);
        ref_norm_act_backward(dx, &norm, r, x, act, SET, map);
        assert_gradient(x, dx, n, norm_loss);
        assert_gradient(w, dw, map.channels, norm_loss);
        assert_gradient(bias, dbias, map.channels, norm_loss);
    }
}

static void norm_running_statistics(void **state)
{
    (void)state;
    map = (MapDims){4, 1};
    const double values[] = {1, 2, 3, 6}; // mean 3, M2 14
    const RefNorm norm = norm_of(NULL);
    memcpy(x, values, sizeof values);
    running[0] = 10;
    running[64] = 1;
    bias[0] = 0;
    ref_norm_stats(stats, x, map);
    ref_norm_act_forward(y, &norm, x, ACT_NONE, map);
    assert_true(fabs(running[0] - (0.6 * 10 + 0.4 * 3)) < 1e-12);
    assert_true(fabs(running[64] - (0.6 * 1 + 0.4 * 14 / 3)) < 1e-12);
    assert_true(fabs(y[0] - (1 - 3) / sqrt(14.0 / 4 + 1e-3)) < 1e-12);
    ref_norm_act_inference(y, &norm, x, ACT_NONE, map);
    assert_true(fabs(y[0] - (1 - running[0]) / sqrt(running[64] + 1e-3)) < 1e-12);
}

static int64_t pool_outputs(void)
{
    return pool.n * conv_out(pool.h, pool.kernel_h, pool.stride, 0) *
           conv_out(pool.w, pool.kernel_w, pool.stride, 0) * pool.c;
}

static double maxpool_loss(void)
{
    ref_maxpool_forward(y, argmax, x, pool);
    return weighted(pool_outputs());
}

static double avgpool_loss(void)
{
    ref_avgpool_forward(y, x, pool);
    return weighted(pool_outputs());
}

static void pool_backward(void **state)
{
    (void)state;
    const PoolDims shapes[] = {{2, 5, 7, 3, 2, 2, 2}, {1, 7, 6, 2, 3, 2, 1}, {2, 4, 4, 5, 4, 4, 4}};
    for (int i = 0; i < SIZE; i++) x[i] = 0.01 * (i * 1021 % SIZE); // all different
    for (int i = 0; i < COUNT(shapes); i++) {
        pool = shapes[i];
        const int64_t n = pool.n * pool.h * pool.w * pool.c;
        maxpool_loss();
        ref_maxpool_backward(dx, r, argmax, pool);
        assert_gradient(x, dx, n, maxpool_loss);
        ref_avgpool_backward(dx, r, pool);
        assert_gradient(x, dx, n, avgpool_loss);
    }
}

static double softmax_loss(void)
{
    double metrics[METRICS] = {0};
    ref_softmax_cross_entropy(metrics, NULL, x, labels, loss_dims);
    return metrics[METRIC_LOSS];
}

static void softmax_cross_entropy_backward(void **state)
{
    (void)state;
    loss_dims = (LossDims){9, 6, 0.2f, 3.0f, 1};
    double metrics[METRICS] = {0};
    for (int i = 0; i < 9; i++) labels[i] = i * 5 % 6;
    ref_softmax_cross_entropy(metrics, dx, x, labels, loss_dims);
    assert_gradient(x, dx, 9 * 6, softmax_loss);
    const double even[] = {5, 5, 5, 5}; // log 4 whatever the label; a tie is the first class
    loss_dims = (LossDims){1, 4, 0.1f, 2, 1};
    memset(metrics, 0, sizeof metrics);
    labels[0] = 0;
    ref_softmax_cross_entropy(metrics, NULL, even, labels, loss_dims);
    assert_true(fabs(metrics[METRIC_LOSS] - log(4)) < 1e-7 && metrics[METRIC_CORRECT] == 1);
}

static double squared_loss(void)
{
    double metrics[METRICS] = {0};
    ref_mean_squared_error(metrics, NULL, x, u, 1, map);
    return metrics[METRIC_LOSS];
}

static void mean_squared_error_backward(void **state)
{
    (void)state;
    double metrics[METRICS] = {0};
    map = (MapDims){9, 6};
    ref_mean_squared_error(metrics, dx, x, u, 1, map);
    assert_gradient(x, dx, 9 * 6, squared_loss);
    const double values[] = {1, 2, 3, 4}, targets[] = {1, 1, 1, 1}; // (0 + 1) / 2 + (4 + 9) / 2
    memset(metrics, 0, sizeof metrics);
    ref_mean_squared_error(metrics, dx, values, targets, 0.5, (MapDims){2, 2});
    assert_true(metrics[METRIC_LOSS] == 7 && metrics[METRIC_CORRECT] == 0 && dx[3] == 1.5);
}

// ---- optimizers, input -------------------------------------------------------------------------

static const StepValues values = {.seed = 3, .hyper = {1, 0.5f}};

static void optimizers_by_hand(void **state)
{
    (void)state;
    double master = 2, grad = 3, first = 1, second = 0, norm;
    const RefParam p = {&master, &grad, &first, &second, 1, 1, 1, 0.5};
    ref_sgd_update(&p, 1, (Sgd){0.25f, false}, &values); // g = 3 + 1, v = 0.25 + 4
    assert_true(first == 4.25 && master == 2 - 0.5 * 4.25);
    master = 2, first = 1;
    ref_sgd_update(&p, 1, (Sgd){0.25f, true}, &values);
    assert_true(master == 2 - 0.5 * (4 + 0.25 * 4.25));
    master = 2, first = 0; // a first step of AdamW is lr * sign(g)
    ref_adamw_update(&p, 1, (AdamW){0.9f, 0.999f, 0}, &values);
    assert_true(fabs(master - (2 - 0.5 * 0.5 * 2 - 0.5)) < 1e-12);
    assert_true(fabs(second - 0.009) < 1e-6);
    ref_clip_gradients(&norm, &p, 1, 1.5);
    assert_true(norm == 3 && grad == 1.5);
    ref_clip_gradients(&norm, &p, 1, 1.5);
    assert_true(norm == 1.5 && grad == 1.5);
}

// The cubic iteration 1.5 X - 0.5 XX'X converges to the nearest orthogonal matrix: of a diagonal
// one with positive entries that is the identity.
static void muon_orthogonalizes(void **state)
{
    (void)state;
    const int64_t shapes[][2] = {{3, 5}, {5, 3}, {4, 4}};
    for (int i = 0; i < 3; i++) {
        const int64_t rows = shapes[i][0], columns = shapes[i][1];
        double master[25] = {0}, grad[25] = {0}, state1[25] = {0};
        for (int64_t j = 0; j < rows && j < columns; j++) grad[j * columns + j] = 1 + (double)j;
        const RefParam p = {master, grad, state1, NULL, rows * columns, rows, 1, 0};
        ref_muon_update(&p, 1, (Muon){0.6f, 30, 1.5f, -0.5f, 0, false}, &values);
        for (int64_t j = 0; j < rows * columns; j++)
            assert_true(fabs(master[j] + 0.5 * (j / columns == j % columns)) < 1e-12);
    }
}

// Weights of 2 in a (2,2) matrix have norm 4, and become sqrt(2)/2 first.
static void muon_renormalizes(void **state)
{
    (void)state;
    double master[] = {2, 2, 2, 2}, grad[4] = {0}, state1[4] = {0};
    const RefParam p = {master, grad, state1, NULL, 4, 2, 1, 0};
    ref_muon_update(&p, 1, (Muon){0.6f, 3, 3.4445f, -4.775f, 2.0315f, true}, &values);
    for (int i = 0; i < 4; i++) assert_true(fabs(master[i] - sqrt(0.5)) < 1e-12);
}

// A picture of 2 x 3 that is moved by (1,1) and mirrored, without any randomness.
static void gather_moves_and_mirrors(void **state)
{
    (void)state;
    const uint8_t images[] = {9, 9, 9, 9, 9, 9, 0, 51, 102, 153, 204, 255};
    const int32_t set_labels[] = {7, 8};
    const uint32_t ids[] = {5}, rows[] = {1};
    const GatherDims d = {.n = 1, .h = 2, .w = 3, .c = 1, .mean = {0.2f}, .std = {0.5f}};
    const Augment plain = {.flip = FLIP_NONE}, moved = {.dy = 1, .dx = 1, .mirror = true};
    const double straight[] = {0, 0.2, 0.4, 0.6, 0.8, 1}, other[] = {0.8, 1, 0.8, 0.2, 0.4, 0.2};
    int32_t label;
    ref_gather(y, &label, images, set_labels, ids, rows, d, plain, &values);
    for (int i = 0; i < 6; i++) assert_true(fabs(y[i] - (straight[i] - 0.2) / 0.5) < 1e-7);
    assert_int_equal(label, 8);
    // rows 1 0 (reflected), columns 3 2 1 of the mirror image = 1 2 1
    ref_gather(y, &label, images, set_labels, ids, rows, d, moved, &values);
    for (int i = 0; i < 6; i++) assert_true(fabs(y[i] - (other[i] - 0.2) / 0.5) < 1e-7);
    const Augment covered = {.cutout = 6}; // a square over everything, wherever its centre is
    ref_gather(y, &label, images, set_labels, ids, rows, d, covered, &values);
    for (int i = 0; i < 6; i++) assert_true(y[i] == 0);
}

// Masks differ by layer and sample, keep their sample when it moves, and keep the mean.
static void dropout_masks(void **state)
{
    (void)state;
    const uint32_t ids[] = {4, 9}, turned[] = {9, 4};
    double other[SIZE], sum = 0;
    for (int i = 0; i < SIZE; i++) x[i] = 1;
    ref_dropout(y, x, ids, 0.25f, 1, 2, SIZE / 2, &values);
    ref_dropout(other, x, turned, 0.25f, 1, 2, SIZE / 2, &values);
    assert_memory_equal(y, other + SIZE / 2, sizeof y / 2);
    assert_memory_equal(y + SIZE / 2, other, sizeof y / 2);
    assert_memory_not_equal(y, y + SIZE / 2, sizeof y / 2);
    ref_dropout(other, x, ids, 0.25f, 2, 2, SIZE / 2, &values);
    assert_memory_not_equal(y, other, sizeof y);
    for (int i = 0; i < SIZE; i++) sum += y[i];
    assert_true(fabs(sum / SIZE - 1) < 4 * sqrt(0.25 / 0.75 / SIZE)); // four sigma
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(linear_backward, setup),
        cmocka_unit_test_setup(conv2d_backward, setup),
        cmocka_unit_test_setup(conv2d_forward_by_hand, setup),
        cmocka_unit_test_setup(activation_backward, setup),
        cmocka_unit_test_setup(activation_bounds, setup),
        cmocka_unit_test_setup(norm_backward, setup),
        cmocka_unit_test_setup(norm_running_statistics, setup),
        cmocka_unit_test_setup(pool_backward, setup),
        cmocka_unit_test_setup(softmax_cross_entropy_backward, setup),
        cmocka_unit_test_setup(mean_squared_error_backward, setup),
        cmocka_unit_test_setup(optimizers_by_hand, setup),
        cmocka_unit_test_setup(muon_orthogonalizes, setup),
        cmocka_unit_test_setup(muon_renormalizes, setup),
        cmocka_unit_test_setup(gather_moves_and_mirrors, setup),
        cmocka_unit_test_setup(dropout_masks, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
