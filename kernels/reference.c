#include "kernels/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/random.h"
#include "kernels/reference_parts.h"

// ---- input, dropout ----------------------------------------------------------------------------

// Where `i` lies in 0 .. size-1 when the border is a mirror: 2 1 0 1 2 1 0 1 ...
static int reflect(int i, int size)
{
    while (size > 1 && (i < 0 || i >= size)) i = i < 0 ? -i : 2 * (size - 1) - i;
    return size > 1 ? i : 0;
}

static double gathered_pixel(const uint8_t *image, int row, int col, int channel, GatherDims d,
                             Augment a, AugmentDraw draw)
{
    const bool inside_square = row >= draw.cut_y && row < draw.cut_y + a.cutout &&
                               col >= draw.cut_x && col < draw.cut_x + a.cutout;
    if (inside_square) return 0;
    const int y = reflect(row + draw.dy, d.h);
    const int x = reflect((draw.mirror ? d.w - 1 - col : col) + draw.dx, d.w);
    const double value = image[(y * d.w + x) * d.c + channel] / 255.0;
    const double changed = (value + (double)draw.offset) * (double)draw.factor;
    return (changed - (double)d.mean[channel]) / (double)d.std[channel];
}

void ref_gather(double *x, int32_t *labels_out, const uint8_t *images, const int32_t *labels,
                const uint32_t *ids, const uint32_t *rows, GatherDims d, Augment a,
                const StepValues *values)
{
    for (int64_t n = 0; n < d.n; n++) {
        const int64_t from = rows ? rows[n] : n;
        const uint8_t *image = images + from * d.h * d.w * d.c;
        const AugmentDraw draw = draw_augment(a, d.h, d.w, values->seed, values->epoch, ids[n]);
        labels_out[n] = labels[from];
        for (int row = 0; row < d.h; row++)
            for (int col = 0; col < d.w; col++)
                for (int c = 0; c < d.c; c++) *x++ = gathered_pixel(image, row, col, c, d, a, draw);
    }
}

void ref_dropout(double *y, const double *x, const uint32_t *ids, float rate, int layer, int64_t n,
                 int64_t per_sample, const StepValues *values)
{
    for (int64_t i = 0; i < n * per_sample; i++) {
        const uint32_t id = ids[i / per_sample], element = (uint32_t)(i % per_sample);
        const Philox p = draw_dropout(values->seed, values->epoch, id, layer, element / 4);
        y[i] = philox_unit(p.v[element % 4]) >= rate ? x[i] / (1 - (double)rate) : 0;
    }
}

// ---- activation and bias -----------------------------------------------------------------------

RefActivation ref_activation(Activation act, double x)
{
    const double normal = 0.5 * erfc(-x / sqrt(2)), sigmoid = 1 / (1 + exp(-x));
    switch (act) {
    case ACT_NONE:
        break;
    case ACT_RELU: // a NaN stays
        return (RefActivation){.y = x < 0 ? 0 : x,
                               .derivative = x > 0 ? 1 : 0,
                               .max_slope = 1,
                               .kink = 1,
                               .exact = true,
                               .from_y = true};
    case ACT_GELU:
        return (RefActivation){.y = x * normal,
                               .derivative = normal + x * exp(-x * x / 2) / sqrt(2 * M_PI),
                               .max_slope = 1.13,
                               .max_curvature = 0.8};
    case ACT_SILU:
        return (RefActivation){.y = x * sigmoid,
                               .derivative = sigmoid * (1 + x * (1 - sigmoid)),
                               .max_slope = 1.1,
                               .max_curvature = 0.5};
    }
    return (RefActivation){.y = x, .derivative = 1, .max_slope = 1, .exact = true};
}

double ref_act(double x, Activation act)
{
    return ref_activation(act, x).y;
}

double ref_act_grad(double saved, Activation act)
{
    return ref_activation(act, saved).derivative;
}

void ref_activation_forward(double *y, const double *x, Activation act, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = ref_act(x[i], act);
}

void ref_activation_backward(double *dx, const double *dy, const double *saved, Activation act,
                             int64_t n)
{
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * (act ? ref_act_grad(saved[i], act) : 1);
}

void ref_bias_act_backward(double *dz, double *dbias, const double *dy, const double *saved,
                           Activation act, GradMode mode, MapDims d)
{
    start_gradient(dbias, mode, d.channels);
    for (int64_t i = 0; i < d.rows * d.channels; i++) {
        const double g = dy[i] * (act ? ref_act_grad(saved[i], act) : 1);
        dbias[i % d.channels] += g;
        if (dz) dz[i] = g;
    }
}

// ---- linear ------------------------------------------------------------------------------------

void ref_linear_forward(double *y, double *z, const double *x, const double *w, const double *bias,
                        Activation act, LinearDims d)
{
    for (int64_t r = 0; r < d.rows; r++) {
        for (int64_t o = 0; o < d.out; o++) {
            double sum = bias ? bias[o] : 0;
            for (int64_t i = 0; i < d.in; i++) sum += x[r * d.in + i] * w[o * d.in + i];
            if (z) z[r * d.out + o] = sum;
            y[r * d.out + o] = ref_act(sum, act);
        }
    }
}

void ref_linear_backward_data(double *dx, const double *dy, const double *w, const double *saved,
                              Activation act, LinearDims d)
{
    for (int64_t r = 0; r < d.rows; r++) {
        for (int64_t i = 0; i < d.in; i++) {
            double sum = 0;
            for (int64_t o = 0; o < d.out; o++) sum += dy[r * d.out + o] * w[o * d.in + i];
            dx[r * d.in + i] = sum * (act ? ref_act_grad(saved[r * d.in + i], act) : 1);
        }
    }
}

void ref_linear_backward_weight(double *dw, double *dbias, const double *dy, const double *x,
                                GradMode mode, LinearDims d)
{
    start_gradient(dw, mode, d.out * d.in);
    if (dbias) start_gradient(dbias, mode, d.out);
    for (int64_t r = 0; r < d.rows; r++) {
        for (int64_t o = 0; o < d.out; o++) {
            const double g = dy[r * d.out + o];
            for (int64_t i = 0; i < d.in; i++) dw[o * d.in + i] += g * x[r * d.in + i];
            if (dbias) dbias[o] += g;
        }
    }
}

// ---- pooling -----------------------------------------------------------------------------------

static int pool_height(PoolDims d)
{
    return (d.h - d.kernel_h) / d.stride + 1;
}

static int pool_width(PoolDims d)
{
    return (d.w - d.kernel_w) / d.stride + 1;
}

// The index in x of place (r,s) of the window of output element `out`.
static int64_t pool_input(int64_t out, int r, int s, PoolDims d)
{
    const int pw = pool_width(d), ph = pool_height(d);
    const int64_t c = out % d.c, j = out / d.c % pw, i = out / d.c / pw % ph,
                  n = out / d.c / pw / ph;
    return ((n * d.h + i * d.stride + r) * d.w + j * d.stride + s) * d.c + c;
}

static int64_t pool_outputs(PoolDims d)
{
    return d.n * pool_height(d) * pool_width(d) * d.c;
}

void ref_maxpool_forward(double *y, uint8_t *argmax, const double *x, PoolDims d)
{
    for (int64_t o = 0; o < pool_outputs(d); o++) {
        y[o] = -INFINITY;
        for (int r = 0; r < d.kernel_h; r++) {
            for (int s = 0; s < d.kernel_w; s++) {
                const double value = x[pool_input(o, r, s, d)];
                if (value > y[o] || (isnan(value) && !isnan(y[o]))) {
                    y[o] = value;
                    argmax[o] = (uint8_t)(r * d.kernel_w + s);
                }
            }
        }
    }
}

void ref_maxpool_backward(double *dx, const double *dy, const uint8_t *argmax, PoolDims d)
{
    memset(dx, 0, (size_t)(d.n * d.h * d.w * d.c) * sizeof *dx);
    for (int64_t o = 0; o < pool_outputs(d); o++)
        dx[pool_input(o, argmax[o] / d.kernel_w, argmax[o] % d.kernel_w, d)] += dy[o];
}

void ref_avgpool_forward(double *y, const double *x, PoolDims d)
{
    for (int64_t o = 0; o < pool_outputs(d); o++) {
        y[o] = 0;
        for (int r = 0; r < d.kernel_h; r++)
            for (int s = 0; s < d.kernel_w; s++)
                y[o] += x[pool_input(o, r, s, d)] / (d.kernel_h * d.kernel_w);
    }
}

void ref_avgpool_backward(double *dx, const double *dy, PoolDims d)
{
    memset(dx, 0, (size_t)(d.n * d.h * d.w * d.c) * sizeof *dx);
    for (int64_t o = 0; o < pool_outputs(d); o++)
        for (int r = 0; r < d.kernel_h; r++)
            for (int s = 0; s < d.kernel_w; s++)
                dx[pool_input(o, r, s, d)] += dy[o] / (d.kernel_h * d.kernel_w);
}

// ---- residual, loss ----------------------------------------------------------------------------

void ref_add(double *y, const double *a, const double *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

void ref_softmax_cross_entropy(double *metrics, double *dlogits, const double *logits,
                               const int32_t *labels, LossDims d)
{
    const double smooth = d.smoothing / (double)d.classes;
    for (int64_t r = 0; r < d.rows; r++) {
        const double *row = logits + r * d.classes;
        int largest = 0;
        for (int c = 1; c < d.classes; c++)
            if (row[c] > row[largest]) largest = c;
        const double top = (double)d.logit_scale * row[largest];
        double sum = 0;
        for (int c = 0; c < d.classes; c++) sum += exp((double)d.logit_scale * row[c] - top);
        for (int c = 0; c < d.classes; c++) {
            const double target = smooth + (c == labels[r] ? 1 - (double)d.smoothing : 0);
            const double log_p = (double)d.logit_scale * row[c] - top - log(sum);
            metrics[METRIC_LOSS] -= target * log_p;
            if (dlogits)
                dlogits[r * d.classes + c] =
                    (double)d.grad_scale * (double)d.logit_scale * (exp(log_p) - target);
        }
        metrics[METRIC_CORRECT] += largest == labels[r];
    }
}

void ref_mean_squared_error(double *metrics, double *dy, const double *y, const double *target,
                            double grad_scale, MapDims d)
{
    for (int64_t i = 0; i < d.rows * d.channels; i++) {
        const double difference = y[i] - target[i];
        metrics[METRIC_LOSS] += difference * difference / d.channels;
        if (dy) dy[i] = grad_scale * 2 / d.channels * difference;
    }
}

// ---- optimizers and vectors --------------------------------------------------------------------

void ref_sgd_update(const RefParam *p, int count, Sgd c, const StepValues *values)
{
    for (; count > 0; count--, p++) {
        for (int64_t i = 0; i < p->n; i++) {
            const double g = p->grad[i] + p->decay * p->master[i];
            p->state1[i] = (double)c.momentum * p->state1[i] + g;
            const double step = c.nesterov ? g + (double)c.momentum * p->state1[i] : p->state1[i];
            p->master[i] -= (double)values->hyper[p->lr] * step;
        }
    }
}

void ref_adamw_update(const RefParam *p, int count, AdamW c, const StepValues *values)
{
    const double b1 = c.beta1, b2 = c.beta2, t = values->step + 1.0;
    for (; count > 0; count--, p++) {
        const double lr = values->hyper[p->lr];
        for (int64_t i = 0; i < p->n; i++) {
            const double g = p->grad[i];
            p->state1[i] = b1 * p->state1[i] + (1 - b1) * g;
            p->state2[i] = b2 * p->state2[i] + (1 - b2) * g * g;
            const double mhat = p->state1[i] / (1 - pow(b1, t));
            const double vhat = p->state2[i] / (1 - pow(b2, t));
            p->master[i] -= lr * p->decay * p->master[i];
            p->master[i] -= lr * mhat / (sqrt(vhat) + (double)c.eps);
        }
    }
}

static double frobenius(const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

void ref_clip_gradients(double *norm, const RefParam *p, int count, double max_norm)
{
    double sum = 0;
    for (int j = 0; j < count; j++) sum += pow(frobenius(p[j].grad, p[j].n), 2);
    *norm = sqrt(sum);
    for (int j = 0; j<count && * norm> max_norm; j++)
        ref_scale(p[j].grad, max_norm / *norm, p[j].grad, p[j].n);
}

// a (r,r) = x x', x (r,c)
static void gram(double *a, const double *x, int64_t r, int64_t c)
{
    for (int64_t i = 0; i < r; i++)
        for (int64_t j = 0; j < r; j++) ref_dot(&a[i * r + j], x + i * c, x + j * c, c);
}

// y (r,c) += factor * a (r,r) x (r,c)
static void add_product(double *y, double factor, const double *a, const double *x, int64_t r,
                        int64_t c)
{
    for (int64_t i = 0; i < r; i++)
        for (int64_t j = 0; j < r; j++) ref_axpy(y + i * c, factor * a[i * r + j], x + j * c, c);
}

// X = aX + bAX + cAAX, A = XX'
static void orthogonalize(double *x, int64_t r, int64_t c, Muon m)
{
    double *a = new_doubles(r * r), *ax = new_doubles(r * c), *next = new_doubles(r * c);
    for (int k = 0; k < m.iterations; k++) {
        gram(a, x, r, c);
        memset(ax, 0, (size_t)(r * c) * sizeof *ax);
        add_product(ax, 1, a, x, r, c);
        ref_scale(next, (double)m.a, x, r * c);
        ref_axpy(next, (double)m.b, ax, r * c);
        add_product(next, (double)m.c, a, ax, r, c);
        memcpy(x, next, (size_t)(r * c) * sizeof *x);
    }
    free(a);
    free(ax);
    free(next);
}

void ref_muon_update(const RefParam *p, int count, Muon c, const StepValues *values)
{
    for (; count > 0; count--, p++) {
        const double lr = values->hyper[p->lr], momentum = c.momentum;
        double *x = new_doubles(p->n);
        for (int64_t i = 0; i < p->n; i++) {
            p->state1[i] = momentum * p->state1[i] + p->grad[i];
            x[i] = p->grad[i] + momentum * p->state1[i];
        }
        ref_scale(x, 1 / (frobenius(x, p->n) + 1e-7), x, p->n);
        orthogonalize(x, p->rows, p->n / p->rows, c);
        if (c.renormalize)
            ref_scale(p->master, sqrt((double)p->rows) / frobenius(p->master, p->n), p->master,
                      p->n);
        for (int64_t i = 0; i < p->n; i++) p->master[i] -= lr * (x[i] + p->decay * p->master[i]);
        free(x);
    }
}

void ref_ema_update(double *ema, const double *x, double decay, int64_t n)
{
    for (int64_t i = 0; i < n; i++) ema[i] = decay * ema[i] + (1 - decay) * x[i];
}

void ref_axpy(double *y, double a, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

void ref_scale(double *y, double a, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = a * x[i];
}

void ref_multiply(double *y, const double *a, const double *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = a[i] * b[i];
}

void ref_sqrt_divide(double *y, const double *a, const double *b, double eps, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = a[i] / (sqrt(b[i]) + eps);
}

void ref_dot(double *result, const double *a, const double *b, int64_t n)
{
    *result = 0;
    for (int64_t i = 0; i < n; i++) *result += a[i] * b[i];
}
