// Convolution and batch norm of the reference.
#include "kernels/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/reference_parts.h"

// ---- convolution -------------------------------------------------------------------------------

static int conv_height(ConvDims d)
{
    return conv_out(d.h, d.kernel, d.stride, d.pad);
}

static int conv_width(ConvDims d)
{
    return conv_out(d.w, d.kernel, d.stride, d.pad);
}

// Where tap (r,s) of output (n,i,j) reads x: the index of its channel 0, or -1 in the padding.
static int64_t conv_input(int64_t n, int i, int j, int r, int s, ConvDims d)
{
    const int row = i * d.stride + r - d.pad, col = j * d.stride + s - d.pad;
    if (row < 0 || row >= d.h || col < 0 || col >= d.w) return -1;
    return ((n * d.h + row) * d.w + col) * d.cin;
}

static int64_t conv_weight(int o, int r, int s, ConvDims d)
{
    return (((int64_t)o * d.kernel + r) * d.kernel + s) * d.cin;
}

static double conv_at(const double *x, const double *w, int64_t n, int i, int j, int o, ConvDims d)
{
    double sum = 0;
    for (int r = 0; r < d.kernel; r++) {
        for (int s = 0; s < d.kernel; s++) {
            const int64_t from = conv_input(n, i, j, r, s, d), tap = conv_weight(o, r, s, d);
            for (int c = 0; from >= 0 && c < d.cin; c++) sum += x[from + c] * w[tap + c];
        }
    }
    return sum;
}

void ref_conv2d_forward(double *y, double *z, double *stats, const double *x, const double *w,
                        const double *bias, Activation act, ConvDims d)
{
    const int oh = conv_height(d), ow = conv_width(d);
    const MapDims map = {d.n * oh * ow, d.cout};
    double *out = y;
    for (int64_t n = 0; n < d.n; n++)
        for (int i = 0; i < oh; i++)
            for (int j = 0; j < ow; j++)
                for (int o = 0; o < d.cout; o++)
                    *out++ = conv_at(x, w, n, i, j, o, d) + (bias ? bias[o] : 0);
    if (stats) ref_norm_stats(stats, y, map);
    if (z) memcpy(z, y, (size_t)(map.rows * map.channels) * sizeof *z);
    ref_activation_forward(y, y, act, map.rows * map.channels);
}

void ref_conv2d_pool_forward(double *y, uint8_t *argmax, double *stats, const double *x,
                             const double *w, const double *bias, Activation act, ConvDims d)
{
    const PoolDims pool = {d.n, conv_height(d), conv_width(d), d.cout, 2, 2, 2};
    const MapDims map = {d.n * (pool.h / 2) * (pool.w / 2), d.cout};
    double *full = new_doubles(d.n * pool.h * pool.w * d.cout);
    ref_conv2d_forward(full, NULL, NULL, x, w, NULL, ACT_NONE, d);
    ref_maxpool_forward(y, argmax, full, pool);
    for (int64_t i = 0; bias && i < map.rows * map.channels; i++) y[i] += bias[i % d.cout];
    if (stats) ref_norm_stats(stats, y, map);
    ref_activation_forward(y, y, act, map.rows * map.channels);
    free(full);
}

void ref_conv2d_backward_data(double *dx, const double *dy, const double *w, ConvDims d)
{
    memset(dx, 0, (size_t)(d.n * d.h * d.w * d.cin) * sizeof *dx);
    for (int64_t n = 0; n < d.n; n++)
        for (int i = 0; i < conv_height(d); i++)
            for (int j = 0; j < conv_width(d); j++)
                for (int o = 0; o < d.cout; o++, dy++)
                    for (int r = 0; r < d.kernel; r++)
                        for (int s = 0; s < d.kernel; s++) {
                            const int64_t to = conv_input(n, i, j, r, s, d);
                            const int64_t tap = conv_weight(o, r, s, d);
                            for (int c = 0; to >= 0 && c < d.cin; c++)
                                dx[to + c] += *dy * w[tap + c];
                        }
}

void ref_conv2d_backward_weight(double *dw, const double *dy, const double *x, GradMode mode,
                                ConvDims d)
{
    start_gradient(dw, mode, (int64_t)d.cout * d.kernel * d.kernel * d.cin);
    for (int64_t n = 0; n < d.n; n++)
        for (int i = 0; i < conv_height(d); i++)
            for (int j = 0; j < conv_width(d); j++)
                for (int o = 0; o < d.cout; o++, dy++)
                    for (int r = 0; r < d.kernel; r++)
                        for (int s = 0; s < d.kernel; s++) {
                            const int64_t from = conv_input(n, i, j, r, s, d);
                            const int64_t tap = conv_weight(o, r, s, d);
                            for (int c = 0; from >= 0 && c < d.cin; c++)
                                dw[tap + c] += *dy * x[from + c];
                        }
}

// dy of the whole convolution from that of its pooled map.
static double *unpooled(const double *dy, const uint8_t *argmax, ConvDims d)
{
    const PoolDims pool = {d.n, conv_height(d), conv_width(d), d.cout, 2, 2, 2};
    double *full = new_doubles(d.n * pool.h * pool.w * d.cout);
    ref_maxpool_backward(full, dy, argmax, pool);
    return full;
}

void ref_conv2d_pool_backward_data(double *dx, const double *dy, const uint8_t *argmax,
                                   const double *w, ConvDims d)
{
    double *full = unpooled(dy, argmax, d);
    ref_conv2d_backward_data(dx, full, w, d);
    free(full);
}

void ref_conv2d_pool_backward_weight(double *dw, const double *dy, const uint8_t *argmax,
                                     const double *x, GradMode mode, ConvDims d)
{
    double *full = unpooled(dy, argmax, d);
    ref_conv2d_backward_weight(dw, full, x, mode, d);
    free(full);
}

// ---- batch norm --------------------------------------------------------------------------------

void ref_norm_stats(double *stats, const double *x, MapDims d)
{
    for (int c = 0; c < d.channels; c++) {
        double mean = 0, m2 = 0;
        for (int64_t r = 0; r < d.rows; r++) mean += x[r * d.channels + c] / (double)d.rows;
        for (int64_t r = 0; r < d.rows; r++) m2 += pow(x[r * d.channels + c] - mean, 2);
        stats[c] = (double)d.rows;
        stats[d.channels + c] = mean;
        stats[2 * d.channels + c] = m2;
    }
}

void ref_norm_merge(double *stats, const double *all, int parts, int channels)
{
    for (int c = 0; c < channels; c++) {
        double count = 0, mean = 0, m2 = 0;
        for (int p = 0; p < parts; p++) count += all[3 * p * channels + c];
        for (int p = 0; p < parts; p++)
            mean += all[3 * p * channels + c] * all[(3 * p + 1) * channels + c] / count;
        for (int p = 0; p < parts; p++)
            m2 += all[(3 * p + 2) * channels + c] +
                  all[3 * p * channels + c] * pow(all[(3 * p + 1) * channels + c] - mean, 2);
        stats[c] = count;
        stats[channels + c] = mean;
        stats[2 * channels + c] = m2;
    }
}

// y = act((x - mean) / sigma * weight + bias) of channel c.
static void norm_channel(double *y, const RefNorm *n, const double *x, double mean, double var,
                         Activation act, int c, MapDims d)
{
    const double weight = n->weight ? n->weight[c] : 1;
    for (int64_t i = c; i < d.rows * d.channels; i += d.channels)
        y[i] = ref_act((x[i] - mean) / sqrt(var + n->eps) * weight + n->bias[c], act);
}

void ref_norm_act_forward(double *y, const RefNorm *n, const double *x, Activation act, MapDims d)
{
    for (int c = 0; c < d.channels; c++) {
        const double count = n->stats[c], mean = n->stats[d.channels + c];
        const double m2 = n->stats[2 * d.channels + c];
        norm_channel(y, n, x, mean, m2 / count, act, c, d);
        n->running_mean[c] += n->momentum * (mean - n->running_mean[c]);
        n->running_var[c] += n->momentum * (m2 / fmax(count - 1, 1) - n->running_var[c]);
    }
}

void ref_norm_act_inference(double *y, const RefNorm *n, const double *x, Activation act, MapDims d)
{
    for (int c = 0; c < d.channels; c++)
        norm_channel(y, n, x, n->running_mean[c], n->running_var[c], act, c, d);
}

static double norm_sigma(const RefNorm *n, int c, MapDims d)
{
    return sqrt(n->stats[2 * d.channels + c] / n->stats[c] + n->eps);
}

static double norm_xhat(const RefNorm *n, double x, int c, MapDims d)
{
    return (x - n->stats[d.channels + c]) / norm_sigma(n, c, d);
}

// dz = dy * act'(z). ReLU's derivative at z is that at y.
static double norm_dz(const RefNorm *n, double dy, double x, Activation act, int c, MapDims d)
{
    const double weight = n->weight ? n->weight[c] : 1;
    return dy * ref_act_grad(norm_xhat(n, x, c, d) * weight + n->bias[c], act);
}

void ref_norm_act_backward_sums(const RefNorm *n, const double *dy, const double *x, Activation act,
                                MapDims d)
{
    for (int c = 0; c < d.channels; c++) {
        double sum = 0, sum_xhat = 0;
        for (int64_t i = c; i < d.rows * d.channels; i += d.channels) {
            const double dz = norm_dz(n, dy[i], x[i], act, c, d);
            sum += dz;
            sum_xhat += dz * norm_xhat(n, x[i], c, d);
        }
        n->sums[c] = sum;
        n->sums[d.channels + c] = sum_xhat;
    }
}

void ref_norm_act_backward(double *dx, const RefNorm *n, const double *dy, const double *x,
                           Activation act, GradMode mode, MapDims d)
{
    if (n->dweight) start_gradient(n->dweight, mode, d.channels);
    start_gradient(n->dbias, mode, d.channels);
    for (int c = 0; c < d.channels; c++) {
        const double sum = n->sums[c], sum_xhat = n->sums[d.channels + c], count = n->stats[c];
        const double weight = n->weight ? n->weight[c] : 1;
        for (int64_t i = c; i < d.rows * d.channels; i += d.channels) {
            const double dz = norm_dz(n, dy[i], x[i], act, c, d);
            const double xhat = norm_xhat(n, x[i], c, d);
            dx[i] = weight / norm_sigma(n, c, d) * (dz - sum / count - xhat * sum_xhat / count);
        }
        n->dbias[c] += sum;
        if (n->dweight) n->dweight[c] += sum_xhat;
    }
}

// ---- convolution next to a batch norm ----------------------------------------------------------

// g becomes dz.
static void norm_sums_of(double *g, const RefNorm *n, const double *x, Activation act, MapDims d)
{
    ref_norm_act_backward_sums(n, g, x, act, d);
    for (int64_t i = 0; i < d.rows * d.channels; i++)
        g[i] = norm_dz(n, g[i], x[i], act, (int)(i % d.channels), d);
}

static MapDims conv_input_map(ConvDims d)
{
    return (MapDims){d.n * d.h * d.w, d.cin};
}

void ref_conv2d_norm_backward_data(double *dz, const RefNorm *n, const double *dy, const double *w,
                                   const double *x, Activation act, ConvDims d)
{
    ref_conv2d_backward_data(dz, dy, w, d);
    norm_sums_of(dz, n, x, act, conv_input_map(d));
}

void ref_conv2d_pool_norm_backward_data(double *dz, const RefNorm *n, const double *dy,
                                        const uint8_t *argmax, const double *w, const double *x,
                                        Activation act, ConvDims d)
{
    ref_conv2d_pool_backward_data(dz, dy, argmax, w, d);
    norm_sums_of(dz, n, x, act, conv_input_map(d));
}

void ref_conv2d_norm_inference(double *y, const RefNorm *n, const double *x, const double *w,
                               Activation act, ConvDims d)
{
    const MapDims map = {d.n * conv_height(d) * conv_width(d), d.cout};
    ref_conv2d_forward(y, NULL, NULL, x, w, NULL, ACT_NONE, d);
    ref_norm_act_inference(y, n, y, act, map);
}

void ref_conv2d_pool_norm_inference(double *y, const RefNorm *n, const double *x, const double *w,
                                    Activation act, ConvDims d)
{
    const MapDims map = {d.n * (conv_height(d) / 2) * (conv_width(d) / 2), d.cout};
    uint8_t *argmax = calloc((size_t)(map.rows * map.channels) + 1, 1);
    assert(argmax != NULL);
    ref_conv2d_pool_forward(y, argmax, NULL, x, w, NULL, ACT_NONE, d);
    ref_norm_act_inference(y, n, y, act, map);
    free(argmax);
}
