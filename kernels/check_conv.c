// Checks of the linear and convolution operations.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/check_parts.h"

// The first QUICK of each list are those of the quick check, with one activation each.
enum { QUICK = ACTIVATIONS };
#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

static int shape_count(const Case *c, int all)
{
    return c->full ? all : QUICK;
}

// ---- linear ------------------------------------------------------------------------------------

// The last five: the most tiles and terms that kernels/cuda/linear_small.cu takes where there are 3
// multiprocessors, and more.
static const LinearDims linears[] = {
    {7, 33, 24},     {64, 64, 10},    {1, 5, 3},      {1, 1, 1},      {2, 784, 10},
    {33, 17, 64},    {65, 31, 129},   {16, 16, 16},   {3, 256, 10},   {5, 300, 48},
    {200, 100, 1},   {130, 513, 70},  {523, 70, 50},  {20, 1100, 40}, {1030, 3, 2},
    {192, 1024, 10}, {16, 190, 1024}, {1024, 129, 9}, {1025, 16, 1},  {193, 8, 5},
};

static void begin_linear(Case *c, LinearDims d, Activation act, const char *options)
{
    case_begin(c, "rows %d, %d > %d, %s%s", (int)d.rows, (int)d.in, (int)d.out, act_name(act),
               options);
}

void check_linear_forward(Case *c)
{
    for (int i = 0; i < shape_count(c, COUNT(linears)) * (c->full ? ACTIVATIONS : 1); i++) {
        const LinearDims d = linears[i % COUNT(linears)];
        const Activation act = case_act(i, COUNT(linears));
        const int64_t n = d.rows * d.out;
        const bool with_bias = i % 3 != 2, with_z = i % 2;
        begin_linear(c, d, act, with_bias ? ", bias" : "");
        Tensor *x = case_random(c, ELEMENT, d.rows * d.in);
        Tensor *w = case_random(c, ELEMENT, d.out * d.in);
        Tensor *bias = with_bias ? case_random(c, FLOAT, d.out) : NULL;
        Tensor *y = case_output(c, ELEMENT, n), *z = with_z ? case_output(c, ELEMENT, n) : NULL;
        c->k->linear_forward(dev(y), dev(z), dev(x), dev(w), dev(bias), act, d);
        double *sum = case_array(c, n), *size = case_array(c, n);
        ref_linear_forward(size, NULL, case_abs(c, x), case_abs(c, w), case_abs(c, bias), ACT_NONE,
                           d);
        ref_linear_forward(val(y), sum, val(x), val(w), val(bias), act, d);
        for (int64_t j = 0; j < n; j++) {
            const double off = sum_error((double)d.in, size[j]) + c->unit * fabs(sum[j]);
            y->tol[j] = act_error(act, sum[j], off) + c->unit * fabs(y->value[j]);
            if (!z) continue;
            z->value[j] = sum[j];
            z->tol[j] = off;
        }
        case_expect(c, y, "y");
        if (z) case_expect(c, z, "z");
        case_end(c);
    }
}

void check_linear_forward_f32(Case *c)
{
    for (int i = 0; i < shape_count(c, COUNT(linears)) * 2; i++) {
        const LinearDims d = linears[i / 2];
        begin_linear(c, d, ACT_NONE, i % 2 ? ", bias" : "");
        Tensor *x = case_random(c, ELEMENT, d.rows * d.in);
        Tensor *w = case_random(c, ELEMENT, d.out * d.in);
        Tensor *bias = i % 2 ? case_random(c, FLOAT, d.out) : NULL;
        Tensor *y = case_output(c, FLOAT, d.rows * d.out);
        c->k->linear_forward_f32(dev(y), dev(x), dev(w), dev(bias), d);
        ref_linear_forward(y->tol, NULL, case_abs(c, x), case_abs(c, w), case_abs(c, bias),
                           ACT_NONE, d);
        ref_linear_forward(val(y), NULL, val(x), val(w), val(bias), ACT_NONE, d);
        for (int64_t j = 0; j < y->n; j++) y->tol[j] = sum_error((double)d.in, y->tol[j]);
        case_expect(c, y, "y");
        case_end(c);
    }
}

void check_linear_backward_data(Case *c)
{
    for (int i = 0; i < shape_count(c, COUNT(linears)) * (c->full ? ACTIVATIONS : 1); i++) {
        const LinearDims d = linears[i % COUNT(linears)];
        const Activation act = case_act(i, COUNT(linears));
        begin_linear(c, d, act, "");
        Tensor *dy = case_random(c, ELEMENT, d.rows * d.out);
        Tensor *w = case_random(c, ELEMENT, d.out * d.in);
        Tensor *saved = act ? case_random(c, ELEMENT, d.rows * d.in) : NULL;
        Tensor *dx = case_output(c, ELEMENT, d.rows * d.in);
        c->k->linear_backward_data(dev(dx), dev(dy), dev(w), dev(saved), act, d);
        double *sum = case_array(c, dx->n), *size = case_array(c, dx->n);
        ref_linear_backward_data(size, case_abs(c, dy), case_abs(c, w), NULL, ACT_NONE, d);
        ref_linear_backward_data(sum, val(dy), val(w), NULL, ACT_NONE, d);
        ref_linear_backward_data(val(dx), val(dy), val(w), val(saved), act, d);
        for (int64_t j = 0; j < dx->n; j++) {
            const double grad = act ? fabs(ref_act_grad(saved->value[j], act)) : 1;
            const double off = act ? act_grad_error(act, saved->value[j], 0) : 0;
            dx->tol[j] = sum_error((double)d.out, size[j]) * grad + fabs(sum[j]) * off +
                         2 * c->unit * fabs(dx->value[j]);
        }
        case_expect(c, dx, "dx");
        case_end(c);
    }
}

void check_linear_backward_weight(Case *c)
{
    for (int i = 0; i < shape_count(c, COUNT(linears)) * 2; i++) {
        const LinearDims d = linears[i / 2];
        const GradMode mode = i % 2 ? ADD : SET;
        begin_linear(c, d, ACT_NONE, mode == ADD ? ", ADD twice" : ", SET");
        Tensor *dy = case_random(c, ELEMENT, d.rows * d.out);
        Tensor *x = case_random(c, ELEMENT, d.rows * d.in);
        Tensor *dw = case_gradient(c, d.out * d.in, mode);
        Tensor *dbias = i % 3 == 2 ? NULL : case_gradient(c, d.out, mode);
        double *abs_dy = case_abs(c, dy), *abs_x = case_abs(c, x);
        if (mode == ADD) memcpy(dw->tol, case_abs(c, dw), (size_t)dw->n * sizeof *dw->tol);
        if (mode == ADD && dbias)
            memcpy(dbias->tol, case_abs(c, dbias), (size_t)dbias->n * sizeof *dbias->tol);
        for (int call = 0; call <= (mode == ADD); call++) {
            c->k->linear_backward_weight(dev(dw), dev(dbias), dev(dy), dev(x), mode, d);
            ref_linear_backward_weight(dw->tol, dbias ? dbias->tol : NULL, abs_dy, abs_x, mode, d);
            ref_linear_backward_weight(val(dw), val(dbias), val(dy), val(x), mode, d);
        }
        for (int64_t j = 0; j < dw->n; j++) dw->tol[j] = sum_error((double)d.rows, dw->tol[j]);
        for (int64_t j = 0; dbias && j < dbias->n; j++)
            dbias->tol[j] = sum_error((double)d.rows, dbias->tol[j]);
        case_expect(c, dw, "dw");
        if (dbias) case_expect(c, dbias, "dbias");
        case_end(c);
    }
}

// ---- convolution -------------------------------------------------------------------------------

// n, h, w, cin, cout, kernel, stride, pad
static const ConvDims convs[] = {
    {2, 9, 8, 8, 16, 3, 1, 1},
    {3, 9, 10, 1, 24, 3, 1, 1},
    {1, 10, 11, 3, 24, 2, 1, 0},
    {3, 7, 7, 5, 33, 3, 2, 1},
    {1, 31, 31, 24, 64, 3, 1, 1},
    {1, 1, 1, 1, 1, 1, 1, 0},
    {1, 3, 3, 1, 1, 3, 1, 1},
    {2, 32, 32, 3, 24, 2, 1, 0},
    {2, 5, 7, 3, 5, 3, 1, 1},
    {3, 7, 7, 16, 33, 3, 1, 1},
    {1, 15, 15, 64, 64, 3, 1, 1},
    {2, 8, 9, 5, 8, 1, 1, 0},
    {2, 11, 10, 3, 16, 5, 2, 2},
    {1, 13, 12, 3, 8, 7, 2, 3},
    {2, 6, 6, 33, 5, 4, 2, 1},
    {1, 16, 16, 64, 24, 1, 2, 0},
    {1, 7, 7, 3, 16, 7, 1, 6},
    {2, 7, 6, 8, 3, 6, 1, 0},
    {1, 2, 2, 5, 8, 3, 1, 1},
    {1, 2, 3, 16, 16, 5, 1, 2},
    {5, 3, 3, 64, 33, 3, 1, 1},
    {1, 9, 9, 1, 3, 2, 2, 1},
    {1, 6, 70, 3, 8, 3, 1, 1},
    {1, 3, 3, 256, 72, 3, 1, 1},
    {9, 4, 4, 24, 17, 3, 1, 0},
    {1, 28, 28, 1, 16, 5, 1, 2},
    {2, 14, 14, 16, 40, 3, 2, 1},
    {40, 7, 7, 8, 16, 3, 1, 1},
    {40, 12, 7, 1, 17, 3, 1, 0},
    {2, 6, 8, 1, 5, 3, 1, 2},
    {1, 97, 64, 3, 24, 2, 1, 0},
    {1, 100, 91, 8, 16, 3, 1, 1},
    {33, 5, 5, 16, 32, 3, 1, 1},
    {2, 41, 120, 4, 8, 3, 2, 1},
    {3, 12, 13, 8, 72, 3, 1, 1},
    {4, 11, 12, 72, 16, 3, 1, 1},
    // Enough pixels for Winograd's way on the CPU, most of them ragged.
    {3, 31, 30, 24, 40, 3, 1, 1},
    {14, 15, 15, 33, 24, 3, 1, 1},
    {60, 7, 7, 17, 50, 3, 1, 1},
    {20, 14, 15, 16, 24, 3, 1, 0},
    {16, 12, 13, 20, 16, 3, 1, 2},
    {1, 9, 210, 16, 16, 3, 1, 1},
    // AMX: groups of images, channels in 32s
    {35, 7, 8, 30, 50, 3, 1, 1},
    {70, 3, 3, 64, 33, 3, 1, 1},
    {17, 9, 13, 32, 40, 2, 1, 1},
    {8, 12, 11, 27, 20, 5, 1, 2},
    {40, 5, 6, 32, 64, 1, 1, 0},
    {9, 20, 21, 24, 40, 3, 1, 1},
    {8, 7, 5, 64, 24, 3, 1, 2},
    // Enough images for the weight gradient through the CPU's matrix unit.
    {70, 3, 3, 20, 24, 5, 1, 2},
    {13, 9, 11, 24, 40, 2, 2, 0},
    {12, 9, 90, 17, 17, 2, 1, 1},
    {12, 2, 2, 180, 130, 3, 1, 1},
    {34, 5, 4, 20, 9, 4, 1, 2},
    // Weight gradients by wgmma: several parts of pixels, tiles of 64 and 128 channels and of 192
    // and 256 places, all of them ragged.
    {12, 10, 9, 16, 72, 3, 1, 1},
    {9, 6, 7, 24, 72, 5, 1, 2},
    {4, 9, 10, 72, 136, 2, 1, 0},
    // Data gradients by wgmma: tiles of 64 and 256 channels, spread from pooled maps, in stages of
    // one tap.
    {1, 7, 6, 40, 16, 5, 1, 2},
    {2, 5, 7, 136, 128, 3, 1, 1},
};

int conv_shape_count(const Case *c)
{
    return shape_count(c, COUNT(convs));
}

ConvDims conv_shape(int i)
{
    return convs[i % COUNT(convs)];
}

int64_t conv_outputs(ConvDims d)
{
    return d.n * conv_out(d.h, d.kernel, d.stride, d.pad) *
           conv_out(d.w, d.kernel, d.stride, d.pad) * d.cout;
}

int64_t conv_pooled_outputs(ConvDims d)
{
    return d.n * (conv_out(d.h, d.kernel, d.stride, d.pad) / 2) *
           (conv_out(d.w, d.kernel, d.stride, d.pad) / 2) * d.cout;
}

int64_t conv_inputs(ConvDims d)
{
    return d.n * d.h * d.w * d.cin;
}

int64_t conv_weights(ConvDims d)
{
    return (int64_t)d.cout * d.kernel * d.kernel * d.cin;
}

void begin_conv(Case *c, ConvDims d, Activation act, const char *options)
{
    case_begin(c, "%d x %dx%d, %d > %d, kernel %d, stride %d, pad %d, %s%s", (int)d.n, d.h, d.w,
               d.cin, d.cout, d.kernel, d.stride, d.pad, act_name(act), options);
}

// Some biases put the mean of a channel 100 sigma from 0.
static Tensor *conv_bias(Case *c, ConvDims d)
{
    Tensor *bias = case_random(c, FLOAT, d.cout);
    for (int o = 0; o < d.cout; o += 7)
        bias->value[o] = 100 * sqrt((double)d.cin * d.kernel * d.kernel);
    case_upload(c, bias);
    return bias;
}

// The bounds tol[n] of sums of `terms` products of magnitudes tol[n].
//
// A device may take Winograd's F(4x4,3x3) for 3x3 kernels, stride 1 and 16 channels or more. An
// output y = A' M A is then a sum over 36 points M = (G g G') . (B' d B), each of which rounds in
// proportion to its size. For independent values of equal size, the rounding of y grows against
// that of the direct sum by the square (two dimensions) of
//   max_i sqrt(sum_p A_pi^2 |G_p|^2 |B_p|^2 / 3) = 2.86      (the points 0, +-5/8, +-3/2, infinity)
// with |G_p| the norm of row p and 3 taps; 2.56 in weight gradients. It is in proportion to the
// values of the whole tile: for windows that reach over the map's border, to the largest magnitude.
enum { WINOGRAD_CHANNELS = 16 };
#define WINOGRAD_GROWTH (2.86 * 2.86)

static bool may_be_winograd(ConvDims d)
{
    return d.kernel == 3 && d.stride == 1 && d.cin >= WINOGRAD_CHANNELS &&
           d.cout >= WINOGRAD_CHANNELS;
}

void conv_error(double *tol, int64_t n, double terms, ConvDims d)
{
    double largest = 0;
    for (int64_t j = 0; j < n; j++) largest = fmax(largest, tol[j]);
    for (int64_t j = 0; j < n; j++)
        tol[j] = may_be_winograd(d) ? WINOGRAD_GROWTH * sum_error(terms, largest)
                                    : sum_error(terms, tol[j]);
}

void check_conv2d_forward(Case *c)
{
    for (int i = 0; i < conv_shape_count(c) * (c->full ? 2 : 1); i++) {
        const ConvDims d = convs[i % COUNT(convs)];
        const Activation act = case_act(i, COUNT(convs));
        const int64_t n = conv_outputs(d);
        begin_conv(c, d, act, i % 3 == 1 ? "" : ", bias");
        Tensor *x = case_random(c, ELEMENT, conv_inputs(d)),
               *w = case_random(c, ELEMENT, conv_weights(d));
        Tensor *bias = i % 3 == 1 ? NULL : conv_bias(c, d);
        Tensor *y = case_output(c, ELEMENT, n), *z = i % 2 ? case_output(c, ELEMENT, n) : NULL;
        Tensor *stats = i % 4 < 3 ? case_output(c, FLOAT, 3 * d.cout) : NULL;
        c->k->conv2d_forward(dev(y), dev(z), dev(stats), dev(x), dev(w), dev(bias), act, d);
        double *sum = case_array(c, n), *off = case_array(c, n);
        ref_conv2d_forward(off, NULL, NULL, case_abs(c, x), case_abs(c, w), case_abs(c, bias),
                           ACT_NONE, d);
        ref_conv2d_forward(val(y), sum, val(stats), val(x), val(w), val(bias), act, d);
        conv_error(off, n, d.cin * d.kernel * d.kernel, d);
        for (int64_t j = 0; j < n; j++) {
            off[j] += c->unit * fabs(sum[j]);
            y->tol[j] = act_error(act, sum[j], off[j]) + c->unit * fabs(y->value[j]);
        }
        case_expect(c, y, "y");
        if (stats) {
            stats_tolerance(stats->tol, sum, off, (MapDims){n / d.cout, d.cout});
            case_expect(c, stats, "stats");
        }
        if (z) {
            memcpy(z->value, sum, (size_t)n * sizeof *sum);
            memcpy(z->tol, off, (size_t)n * sizeof *off);
            case_expect(c, z, "z");
        }
        case_end(c);
    }
}

// Where rounding decides, any place whose value is as large as the largest within both errors is
// right. `full` and `off`: the map before pooling and its errors.
static void expect_argmax(Case *c, Tensor *argmax, const double *full, const double *off,
                          ConvDims d)
{
    const int h = conv_out(d.h, d.kernel, d.stride, d.pad);
    const int w = conv_out(d.w, d.kernel, d.stride, d.pad);
    const double *got = case_download(c, argmax);
    uint8_t *want = argmax->raw;
    for (int64_t i = 0; i < argmax->n; i++) {
        const int64_t o = i % d.cout, col = i / d.cout % (w / 2), row = i / d.cout / (w / 2);
        const int64_t image = row / (h / 2), top = image * h + row % (h / 2) * 2;
        if (!(got[i] >= 0 && got[i] < 4)) continue;
        const int place = (int)got[i];
        const int64_t a = ((top + place / 2) * w + col * 2 + place % 2) * d.cout + o;
        const int64_t b = ((top + want[i] / 2) * w + col * 2 + want[i] % 2) * d.cout + o;
        if (full[b] - full[a] < off[a] + off[b]) want[i] = (uint8_t)place;
    }
    case_expect(c, argmax, "argmax");
}

typedef enum { RANDOM, INTEGERS, WITH_NAN, VALUES } Values;

// Whether a NaN reaches its own windows alone: Winograd's tiles spread it further, as does a
// product in bf16 that fills up a group of channels with neighbours, times 0.
static bool keeps_nan_apart(const Case *c, ConvDims d)
{
    return !may_be_winograd(d) && (c->k->element == F32 || d.cin % 8 == 0);
}

// Expects a NaN wherever there is one, of any place: that none is missing is still seen.
static void accept_nan(Case *c, Tensor *y, Tensor *argmax)
{
    const double *got = case_download(c, y), *place = case_download(c, argmax);
    for (int64_t j = 0; j < y->n; j++) {
        if (!isnan(got[j])) continue;
        y->value[j] = NAN;
        ((uint8_t *)argmax->raw)[j] = (uint8_t)place[j];
    }
}

static void check_conv_pool(Case *c, int i, Values values)
{
    const bool ties = values != RANDOM;
    const ConvDims d = conv_shape(i);
    const Activation act = case_act(i, COUNT(convs));
    const int64_t n = conv_pooled_outputs(d);
    Tensor *(*make)(Case *, Kind, int64_t) = ties ? case_integer : case_random;
    begin_conv(c, d, act,
               values == WITH_NAN   ? ", integers and NaN"
               : values == INTEGERS ? ", integers"
               : i % 3 == 1         ? ""
                                    : ", bias");
    Tensor *x = make(c, ELEMENT, conv_inputs(d)), *w = make(c, ELEMENT, conv_weights(d));
    if (values == WITH_NAN) case_nan(c, x, (5 * d.w + 3) * d.cin + 1);
    Tensor *bias = i % 3 == 1 ? NULL : conv_bias(c, d);
    Tensor *y = case_output(c, ELEMENT, n), *argmax = case_output(c, BYTE, n);
    const bool spread = values == WITH_NAN && !keeps_nan_apart(c, d);
    Tensor *stats = spread || (i + (int)values) % 2 ? NULL : case_output(c, FLOAT, 3 * d.cout);
    c->k->conv2d_pool_forward(dev(y), dev(argmax), dev(stats), dev(x), dev(w), dev(bias), act, d);

    const double terms = d.cin * d.kernel * d.kernel;
    double *full = case_array(c, conv_outputs(d)), *full_off = case_array(c, conv_outputs(d));
    double *sum = case_array(c, n), *off = case_array(c, n);
    uint8_t *place = argmax->raw;
    ref_conv2d_forward(full, NULL, NULL, val(x), val(w), NULL, ACT_NONE, d);
    ref_conv2d_forward(full_off, NULL, NULL, case_abs(c, x), case_abs(c, w), NULL, ACT_NONE, d);
    ref_conv2d_pool_forward(sum, place, NULL, val(x), val(w), val(bias), ACT_NONE, d);
    ref_conv2d_pool_forward(val(y), place, val(stats), val(x), val(w), val(bias), act, d);
    conv_error(full_off, conv_outputs(d), terms, d);
    double largest = 0; // of the map's errors: the maximum of values is off by no more
    for (int64_t j = 0; j < conv_outputs(d); j++) {
        full_off[j] += c->unit * fabs(full[j]);
        if (ties && !may_be_winograd(d)) full_off[j] = 0; // sums of integers are exact
        largest = fmax(largest, full_off[j]);
    }
    for (int64_t j = 0; j < n; j++) {
        off[j] = largest + 2 * c->unit * fabs(sum[j]);
        y->tol[j] = act_error(act, sum[j], off[j]) + c->unit * fabs(y->value[j]);
    }
    if (spread) accept_nan(c, y, argmax);
    case_expect(c, y, "y");
    expect_argmax(c, argmax, full, full_off, d);
    if (stats) {
        stats_tolerance(stats->tol, sum, off, (MapDims){n / d.cout, d.cout});
        case_expect(c, stats, "stats");
    }
    case_end(c);
}

void check_conv2d_pool_forward(Case *c)
{
    for (int i = 0; i < conv_shape_count(c) * VALUES; i++)
        if (conv_pooled_outputs(convs[i / VALUES]) > 0)
            check_conv_pool(c, i / VALUES, (Values)(i % VALUES));
}

Tensor *random_argmax(Case *c, ConvDims d)
{
    return case_uniform(c, BYTE, conv_pooled_outputs(d), 4);
}

static void check_conv_data(Case *c, ConvDims d, bool pool)
{
    begin_conv(c, d, ACT_NONE, "");
    Tensor *dy = case_random(c, ELEMENT, pool ? conv_pooled_outputs(d) : conv_outputs(d));
    Tensor *w = case_random(c, ELEMENT, conv_weights(d)),
           *dx = case_output(c, ELEMENT, conv_inputs(d));
    if (pool) {
        Tensor *argmax = random_argmax(c, d);
        c->k->conv2d_pool_backward_data(dev(dx), dev(dy), dev(argmax), dev(w), d);
        ref_conv2d_pool_backward_data(dx->tol, case_abs(c, dy), argmax->raw, case_abs(c, w), d);
        ref_conv2d_pool_backward_data(val(dx), val(dy), argmax->raw, val(w), d);
    } else {
        c->k->conv2d_backward_data(dev(dx), dev(dy), dev(w), d);
        ref_conv2d_backward_data(dx->tol, case_abs(c, dy), case_abs(c, w), d);
        ref_conv2d_backward_data(val(dx), val(dy), val(w), d);
    }
    conv_error(dx->tol, dx->n, d.cout * d.kernel * d.kernel, d);
    for (int64_t j = 0; j < dx->n; j++) dx->tol[j] += 2 * c->unit * fabs(dx->value[j]);
    case_expect(c, dx, "dx");
    case_end(c);
}

void check_conv2d_backward_data(Case *c)
{
    for (int i = 0; i < conv_shape_count(c); i++) check_conv_data(c, convs[i], false);
}

void check_conv2d_pool_backward_data(Case *c)
{
    for (int i = 0; i < conv_shape_count(c); i++)
        if (conv_pooled_outputs(convs[i]) > 0) check_conv_data(c, convs[i], true);
}

static void check_conv_weight(Case *c, ConvDims d, bool pool, GradMode mode)
{
    begin_conv(c, d, ACT_NONE, mode == ADD ? ", ADD twice" : ", SET");
    Tensor *dy = case_random(c, ELEMENT, pool ? conv_pooled_outputs(d) : conv_outputs(d));
    Tensor *x = case_random(c, ELEMENT, conv_inputs(d)),
           *dw = case_gradient(c, conv_weights(d), mode);
    Tensor *argmax = pool ? random_argmax(c, d) : NULL;
    double *abs_dy = case_abs(c, dy), *abs_x = case_abs(c, x);
    if (mode == ADD) memcpy(dw->tol, case_abs(c, dw), (size_t)dw->n * sizeof *dw->tol);
    for (int call = 0; call <= (mode == ADD); call++) {
        if (pool) {
            c->k->conv2d_pool_backward_weight(dev(dw), dev(dy), dev(argmax), dev(x), mode, d);
            ref_conv2d_pool_backward_weight(dw->tol, abs_dy, argmax->raw, abs_x, mode, d);
            ref_conv2d_pool_backward_weight(val(dw), val(dy), argmax->raw, val(x), mode, d);
        } else {
            c->k->conv2d_backward_weight(dev(dw), dev(dy), dev(x), mode, d);
            ref_conv2d_backward_weight(dw->tol, abs_dy, abs_x, mode, d);
            ref_conv2d_backward_weight(val(dw), val(dy), val(x), mode, d);
        }
    }
    conv_error(dw->tol, dw->n, (double)dy->n / d.cout, d);
    case_expect(c, dw, "dw");
    case_end(c);
}

void check_conv2d_backward_weight(Case *c)
{
    for (int i = 0; i < conv_shape_count(c) * 2; i++)
        check_conv_weight(c, convs[i / 2], false, i % 2 ? ADD : SET);
}

void check_conv2d_pool_backward_weight(Case *c)
{
    for (int i = 0; i < conv_shape_count(c) * 2; i++)
        if (conv_pooled_outputs(convs[i / 2]) > 0)
            check_conv_weight(c, convs[i / 2], true, i % 2 ? ADD : SET);
}
