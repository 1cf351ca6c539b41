// Checks of what works on maps: activation, bias, batch norm, addition, loss.
#include <math.h>
#include <string.h>

#include "kernels/check_parts.h"
#include "kernels/reference.h"

#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

// ---- activation and bias -----------------------------------------------------------------------

static const int64_t lengths[] = {1, 7, 1000, 15, 16, 17, 64, 4097, 70001};
static const double extremes[] = {0, -0.0, 1e-30, 20, -20, 100, -100, 1e30, -1e30, 1e-3, -1e-3};

static Tensor *with_extremes(Case *c, int64_t n)
{
    Tensor *x = case_random(c, ELEMENT, n);
    for (int64_t i = 0; i < n && i < COUNT(extremes); i++) x->value[n - 1 - i] = extremes[i];
    case_upload(c, x);
    return x;
}

void check_activation_forward(Case *c)
{
    for (int i = 0; i < (c->full ? COUNT(lengths) : 3) * ACTIVATIONS; i++) {
        const int64_t n = lengths[i / ACTIVATIONS];
        const Activation act = (Activation)(i % ACTIVATIONS);
        const bool in_place = i / ACTIVATIONS % 2;
        case_begin(c, "%d, %s%s", (int)n, act_name(act), in_place ? ", in place" : "");
        Tensor *x = with_extremes(c, n), *y = in_place ? x : case_output(c, ELEMENT, n);
        c->k->activation_forward(dev(y), dev(x), act, n);
        for (int64_t j = 0; j < n; j++) y->tol[j] = act_error(act, x->value[j], 0);
        ref_activation_forward(val(y), val(x), act, n);
        for (int64_t j = 0; j < n; j++) y->tol[j] += c->unit * fabs(y->value[j]);
        case_expect(c, y, "y");
        case_end(c);
    }
}

// What was saved for the backward pass: x or y.
static Tensor *saved_map(Case *c, Activation act, int64_t n)
{
    Tensor *saved = with_extremes(c, n);
    for (int64_t i = 0; i < n; i++) {
        const RefActivation a = ref_activation(act, saved->value[i]);
        if (a.from_y) saved->value[i] = a.y;
    }
    case_upload(c, saved);
    return saved;
}

static double dz_error(const Case *c, double dy, double saved, Activation act)
{
    const double dz = dy * (act ? ref_act_grad(saved, act) : 1);
    return fabs(dy) * (act ? act_grad_error(act, saved, 0) : 0) + (c->unit + U32) * fabs(dz);
}

void check_activation_backward(Case *c)
{
    for (int i = 0; i < (c->full ? COUNT(lengths) : 3) * ACTIVATIONS; i++) {
        const int64_t n = lengths[i / ACTIVATIONS];
        const Activation act = (Activation)(i % ACTIVATIONS);
        const bool in_place = i / ACTIVATIONS % 2;
        case_begin(c, "%d, %s%s", (int)n, act_name(act), in_place ? ", in place" : "");
        Tensor *dy = case_random(c, ELEMENT, n), *saved = saved_map(c, act, n);
        Tensor *dx = in_place ? dy : case_output(c, ELEMENT, n);
        c->k->activation_backward(dev(dx), dev(dy), dev(saved), act, n);
        for (int64_t j = 0; j < n; j++)
            dx->tol[j] = dz_error(c, dy->value[j], saved->value[j], act);
        ref_activation_backward(val(dx), val(dy), val(saved), act, n);
        case_expect(c, dx, "dx");
        case_end(c);
    }
}

static const MapDims maps[] = {
    {18, 24}, {225, 3}, {50, 64}, {2, 1},    {3, 5},    {64, 16},   {9, 1030},
    {1, 5},   {961, 8}, {7, 33},  {49, 256}, {5000, 4}, {20000, 1}, {301, 130},
};

static void fill_abs(double *tol, const Tensor *t)
{
    for (int64_t i = 0; i < t->n; i++) tol[i] = fabs(t->value[i]);
}

void check_bias_act_backward(Case *c)
{
    for (int i = 0; i < (c->full ? COUNT(maps) : 1) * ACTIVATIONS; i++) {
        const MapDims d = maps[i % COUNT(maps)];
        const int64_t n = d.rows * d.channels;
        const Activation act = case_act(i, COUNT(maps));
        const GradMode mode = i / 2 % 2 ? ADD : SET;
        const int where = i % 3; // a new tensor, in place, not stored
        case_begin(c, "%d rows, %d channels, %s, %s%s", (int)d.rows, d.channels, act_name(act),
                   mode == ADD ? "ADD" : "SET",
                   (const char *[]){"", ", in place", ", dz NULL"}[where]);
        Tensor *dy = case_random(c, ELEMENT, n), *saved = saved_map(c, act, n);
        Tensor *dz = where == 0 ? case_output(c, ELEMENT, n) : where == 1 ? dy : NULL;
        Tensor *dbias = case_gradient(c, d.channels, mode);
        if (mode == ADD) fill_abs(dbias->tol, dbias);
        c->k->bias_act_backward(dev(dz), dev(dbias), dev(dy), dev(saved), act, mode, d);
        double *size = dbias->tol;
        for (int64_t j = 0; j < n; j++) {
            const double error = dz_error(c, dy->value[j], saved->value[j], act);
            size[j % d.channels] += fabs(dy->value[j]) * act_max_slope(act);
            if (dz) dz->tol[j] = error;
        }
        ref_bias_act_backward(val(dz), val(dbias), val(dy), val(saved), act, mode, d);
        // the sum's bound covers a few U32 a term; a stored bf16 dz may be what is summed
        for (int j = 0; j < d.channels; j++)
            size[j] = sum_error((double)d.rows, size[j]) + (c->unit + 8 * U32) * size[j];
        if (dz) case_expect(c, dz, "dz");
        case_expect(c, dbias, "dbias");
        case_end(c);
    }
}

// ---- batch norm --------------------------------------------------------------------------------

// Channels in turn: sigma 1, mean 100 sigma, constant, small.
static Tensor *norm_input(Case *c, MapDims d)
{
    Tensor *x = case_random(c, ELEMENT, d.rows * d.channels);
    for (int64_t i = 0; i < x->n; i++) {
        const int64_t channel = i % d.channels;
        const double sigma[] = {1, 1, 0, 1e-3}, mean[] = {0.5, 100, 3.7, 1e-3};
        x->value[i] = mean[channel % 4] + sigma[channel % 4] * x->value[i];
    }
    case_upload(c, x);
    return x;
}

NormTensors new_norm(Case *c, MapDims d, bool weight, GradMode mode, double eps)
{
    const int ch = d.channels;
    NormTensors t = {.x = norm_input(c, d)};
    t.dy = case_random(c, ELEMENT, d.rows * ch);
    t.stats = case_random(c, FLOAT, 3 * ch);
    ref_norm_stats(t.stats->value, t.x->value, d);
    case_upload(c, t.stats);
    t.sums = case_random(c, FLOAT, 2 * ch);
    t.running_mean = case_random(c, FLOAT, ch);
    t.running_var = case_random(c, FLOAT, ch);
    for (int i = 0; i < ch; i++) t.running_var->value[i] = fabs(t.running_var->value[i]);
    case_upload(c, t.running_var);
    t.weight = weight ? case_random(c, FLOAT, ch) : NULL;
    t.bias = case_random(c, FLOAT, ch);
    t.dweight = weight ? case_gradient(c, ch, mode) : NULL;
    t.dbias = case_gradient(c, ch, mode);
    t.device =
        (Norm){dev(t.stats), dev(t.sums),    dev(t.running_mean), dev(t.running_var), dev(t.weight),
               dev(t.bias),  dev(t.dweight), dev(t.dbias),        (float)eps,         0.4f};
    t.host = (RefNorm){val(t.stats),       val(t.sums), val(t.running_mean), val(t.running_var),
                       val(t.weight),      val(t.bias), val(t.dweight),      val(t.dbias),
                       (double)(float)eps, (double)0.4f};
    return t;
}

// Four operations of U32 each way.
double norm_z(const RefNorm *n, double x, double mean, double var, int c, double *dz)
{
    const double part = (x - mean) / sqrt(var + n->eps) * (n->weight ? n->weight[c] : 1);
    *dz = 8 * U32 * (fabs(part) + fabs(n->bias[c]));
    return part + n->bias[c];
}

double batch_z(const RefNorm *n, double x, int c, int channels, double *dz)
{
    const double var = n->stats[2 * channels + c] / n->stats[c];
    return norm_z(n, x, n->stats[channels + c], var, c, dz);
}

void check_norm_stats(Case *c)
{
    for (int i = 0; i < (c->full ? COUNT(maps) : 3); i++) {
        const MapDims d = maps[i];
        case_begin(c, "%d rows, %d channels", (int)d.rows, d.channels);
        Tensor *x = norm_input(c, d), *stats = case_output(c, FLOAT, 3 * d.channels);
        c->k->norm_stats(dev(stats), dev(x), d);
        ref_norm_stats(val(stats), val(x), d);
        stats_tolerance(stats->tol, val(x), NULL, d);
        case_expect(c, stats, "stats");
        case_end(c);
    }
}

// all (parts,3,channels): each channel's parts have nearly its mean, or exactly where M2 is 0.
static Tensor *norm_parts(Case *c, int parts, int channels)
{
    Tensor *all = case_random(c, FLOAT, 3 * parts * channels);
    for (int i = 0; i < parts * channels; i++) {
        const int channel = i % channels;
        double *part = all->value + i / channels * 3 * channels + channel;
        const double rows = 1 + i / channels % 3 * 500, sigma = channel % 4 == 2 ? 0 : 1;
        part[0] = rows;
        part[channels] = (channel % 4 == 1 ? 100 : 3.5) + sigma * part[channels];
        part[2 * channels] = rows * sigma * fabs(part[2 * channels]);
    }
    case_upload(c, all);
    return all;
}

// Of fp32 merging: each part moves mean and M2 by a few roundings, those of the mean times the
// distance to it.
static void merge_tolerance(double *tol, const double *stats, const double *all, int parts,
                            int channels)
{
    for (int i = 0; i < parts * channels; i++) {
        const int ch = i % channels;
        const double *part = all + i / channels * 3 * channels + ch;
        const double mean = stats[channels + ch], off = fabs(part[channels] - mean);
        const double rounding = 4 * U32 * fmax(fabs(part[channels]), fabs(mean));
        tol[channels + ch] += rounding;
        tol[2 * channels + ch] += 8 * U32 * stats[2 * channels + ch] +
                                  parts * part[0] * rounding * (2 * off + parts * rounding);
    }
}

void check_norm_merge(Case *c)
{
    static const int counts[] = {1, 2, 3, 4, 8, 257}, widths[] = {1, 24, 130};
    for (int i = 0; i < (c->full ? COUNT(counts) * COUNT(widths) : 3); i++) {
        const int parts = counts[i % COUNT(counts)], channels = widths[i / 2 % COUNT(widths)];
        case_begin(c, "%d parts, %d channels", parts, channels);
        Tensor *all = norm_parts(c, parts, channels), *stats = case_output(c, FLOAT, 3 * channels);
        c->k->norm_merge(dev(stats), dev(all), parts, channels);
        ref_norm_merge(val(stats), val(all), parts, channels);
        merge_tolerance(stats->tol, val(stats), val(all), parts, channels);
        case_expect(c, stats, "stats");
        case_end(c);
    }
}

static int norm_cases(const Case *c)
{
    return (c->full ? COUNT(maps) : 1) * ACTIVATIONS;
}

static NormTensors begin_norm(Case *c, int i, MapDims *d, Activation *act, GradMode *mode)
{
    *d = maps[i % COUNT(maps)];
    *act = case_act(i, COUNT(maps));
    *mode = i % 2 ? ADD : SET;
    const bool weight = i % 3 != 1;
    const double eps = i % 2 ? 1e-12 : 1e-5;
    case_begin(c, "%d rows, %d channels, %s, %s%s, eps %g", (int)d->rows, d->channels,
               act_name(*act), weight ? "weight, " : "", *mode == ADD ? "ADD" : "SET", eps);
    return new_norm(c, *d, weight, *mode, eps);
}

static void check_norm_forward(Case *c, int i, bool inference)
{
    MapDims d;
    Activation act;
    GradMode mode;
    NormTensors t = begin_norm(c, i, &d, &act, &mode);
    Tensor *y = inference && i % 2 ? t.x : case_output(c, ELEMENT, t.x->n);
    if (inference)
        c->k->norm_act_inference(dev(y), &t.device, dev(t.x), act, d);
    else
        c->k->norm_act_forward(dev(y), &t.device, dev(t.x), act, d);
    double *off = case_array(c, y->n);
    for (int64_t j = 0; j < y->n; j++) {
        const int ch = (int)(j % d.channels);
        double dz;
        const double z = inference ? norm_z(&t.host, t.x->value[j], t.running_mean->value[ch],
                                            t.running_var->value[ch], ch, &dz)
                                   : batch_z(&t.host, t.x->value[j], ch, d.channels, &dz);
        off[j] = act_error(act, z, dz);
    }
    for (int j = 0; j < d.channels; j++) { // moved by momentum * (batch - running)
        t.running_mean->tol[j] =
            fabs(t.running_mean->value[j]) + fabs(t.stats->value[d.channels + j]);
        t.running_var->tol[j] = t.running_var->value[j] +
                                t.stats->value[2 * d.channels + j] / fmax(t.stats->value[j] - 1, 1);
        t.running_mean->tol[j] *= inference ? 0 : 4 * U32;
        t.running_var->tol[j] *= inference ? 0 : 4 * U32;
    }
    if (inference)
        ref_norm_act_inference(val(y), &t.host, val(t.x), act, d);
    else
        ref_norm_act_forward(val(y), &t.host, val(t.x), act, d);
    for (int64_t j = 0; j < y->n; j++) y->tol[j] = off[j] + c->unit * fabs(y->value[j]);
    case_expect(c, y, "y");
    case_expect(c, t.running_mean, "running_mean");
    case_expect(c, t.running_var, "running_var");
    case_end(c);
}

void check_norm_act_forward(Case *c)
{
    for (int i = 0; i < norm_cases(c); i++) check_norm_forward(c, i, false);
}

void check_norm_act_inference(Case *c)
{
    for (int i = 0; i < norm_cases(c); i++) check_norm_forward(c, i, true);
}

// The error of dz = dy * act'(z).
static double norm_dz_error(const NormTensors *t, int64_t i, Activation act, int channels)
{
    double off;
    const double z = batch_z(&t->host, t->x->value[i], (int)(i % channels), channels, &off);
    return fabs(t->dy->value[i]) * (act_grad_error(act, z, off) + 2 * U32);
}

double norm_xhat(const NormTensors *t, int64_t i, int channels, double *scale)
{
    const int64_t ch = i % channels;
    const double *stats = t->stats->value;
    *scale = 1 / sqrt(stats[2 * channels + ch] / stats[ch] + t->host.eps);
    return (t->x->value[i] - stats[channels + ch]) * *scale;
}

void check_norm_act_backward_sums(Case *c)
{
    for (int i = 0; i < norm_cases(c); i++) {
        MapDims d;
        Activation act;
        GradMode mode;
        NormTensors t = begin_norm(c, i, &d, &act, &mode);
        c->k->norm_act_backward_sums(&t.device, dev(t.dy), dev(t.x), act, d);
        ref_norm_act_backward_sums(&t.host, val(t.dy), val(t.x), act, d);
        memset(t.sums->tol, 0, 2 * (size_t)d.channels * sizeof(double));
        for (int64_t j = 0; j < t.x->n; j++) {
            double scale;
            const double xhat = fabs(norm_xhat(&t, j, d.channels, &scale));
            const double dz = act_max_slope(act) * fabs(t.dy->value[j]);
            const double size = sum_error((double)d.rows, dz);
            const double off = norm_dz_error(&t, j, act, d.channels) + size;
            t.sums->tol[j % d.channels] += off;
            t.sums->tol[d.channels + j % d.channels] += xhat * (off + size);
        }
        case_expect(c, t.sums, "sums");
        case_end(c);
    }
}

void check_norm_act_backward(Case *c)
{
    for (int i = 0; i < norm_cases(c); i++) {
        MapDims d;
        Activation act;
        GradMode mode;
        NormTensors t = begin_norm(c, i, &d, &act, &mode);
        Tensor *dx = i % 4 >= 2 ? t.dy : case_output(c, ELEMENT, t.x->n);
        c->k->norm_act_backward(dev(dx), &t.device, dev(t.dy), dev(t.x), act, mode, d);
        double *off = case_array(c, dx->n);
        for (int64_t j = 0; j < dx->n; j++) {
            const int64_t ch = j % d.channels;
            double scale;
            const double xhat = fabs(norm_xhat(&t, j, d.channels, &scale));
            const double sums =
                fabs(t.sums->value[ch]) + xhat * fabs(t.sums->value[d.channels + ch]);
            const double dz = act_max_slope(act) * fabs(t.dy->value[j]);
            const double size = dz + sums / (double)d.rows;
            off[j] = scale * fabs(t.weight ? t.weight->value[ch] : 1) *
                     (norm_dz_error(&t, j, act, d.channels) + 8 * U32 * size);
        }
        for (int j = 0; j < d.channels; j++) { // SET copies, ADD adds two numbers
            t.dbias->tol[j] = U32 * (fabs(t.dbias->value[j]) + fabs(t.sums->value[j]));
            if (t.dweight)
                t.dweight->tol[j] =
                    U32 * (fabs(t.dweight->value[j]) + fabs(t.sums->value[d.channels + j]));
        }
        ref_norm_act_backward(val(dx), &t.host, val(t.dy), val(t.x), act, mode, d);
        for (int64_t j = 0; j < dx->n; j++) dx->tol[j] = off[j] + c->unit * fabs(dx->value[j]);
        case_expect(c, dx, "dx");
        case_expect(c, t.dbias, "dbias");
        if (t.dweight) case_expect(c, t.dweight, "dweight");
        case_end(c);
    }
}

// ---- addition, loss ----------------------------------------------------------------------------

void check_add(Case *c)
{
    for (int i = 0; i < (c->full ? COUNT(lengths) : 3); i++) {
        const int64_t n = lengths[i];
        case_begin(c, "%d%s", (int)n, i % 2 ? ", in place" : "");
        Tensor *a = case_random(c, ELEMENT, n), *b = case_random(c, ELEMENT, n);
        Tensor *y = i % 2 ? a : case_output(c, ELEMENT, n);
        c->k->add(dev(y), dev(a), dev(b), n);
        ref_add(val(y), val(a), val(b), n);
        for (int64_t j = 0; j < n; j++) y->tol[j] = (c->unit + U32) * fabs(y->value[j]);
        case_expect(c, y, "y");
        case_end(c);
    }
}

// rows, classes, smoothing, logit_scale, grad_scale
static const LossDims losses[] = {
    {128, 10, 0.2f, 1.0f / 9, 1},
    {7, 100, 0, 1, 1.0f / 7},
    {3, 10, 0.09f, 1.0f / 256, 1},
    {1, 2, 0.1f, 1, 1},
    {5, 1, 0, 1, 1},
    {33, 3, 0, 2, 0.5f},
    {1000, 10, 0.2f, 1.0f / 9, 1},
    {9, 1000, 0.1f, 1, 1},
    {257, 17, 0.3f, 0.5f, 1.0f / 257},
};

// Logits up to `spread`; the label of the first rows is the first or the last class, and in every
// third row the label's logit is the largest.
static void loss_inputs(Tensor *logits, Tensor *labels, double spread, LossDims d)
{
    for (int64_t r = 0; r < d.rows; r++) {
        int32_t *label = (int32_t *)labels->raw + r;
        if (r < 4) *label = r % 2 ? d.classes - 1 : 0;
        for (int i = 0; i < d.classes; i++) logits->value[r * d.classes + i] *= spread;
        if (r % 3 == 0) logits->value[r * d.classes + *label] = 4 * spread;
    }
}

// log p = s - log sum exp(s), s = scale * logit: off by 8 U32 of the largest |s|, and of 1 + sqrt K
// for the sum.
static void loss_tolerance(const Case *c, Tensor *metrics, Tensor *dlogits, const Tensor *logits,
                           LossDims d)
{
    double losses_error = 0;
    for (int64_t r = 0; r < d.rows; r++) {
        double largest = 0;
        for (int i = 0; i < d.classes; i++)
            largest = fmax(largest, fabs((double)d.logit_scale * logits->value[r * d.classes + i]));
        const double off = 8 * U32 * (1 + sqrt(d.classes) + 2 * largest);
        losses_error += off;
        for (int i = 0; dlogits && i < d.classes; i++) {
            const double g = (double)d.grad_scale * (double)d.logit_scale;
            const double dl = dlogits->value[r * d.classes + i];
            dlogits->tol[r * d.classes + i] = off * (fabs(dl) + g) + c->unit * fabs(dl);
        }
    }
    metrics->tol[METRIC_LOSS] =
        losses_error + sum_error((double)d.rows, metrics->value[METRIC_LOSS]);
}

void check_softmax(Case *c)
{
    for (int i = 0; i < (c->full ? COUNT(losses) * 3 : 3); i++) {
        const LossDims d = losses[i % COUNT(losses)];
        const double spread = (const double[]){1, 30, 1e4}[i / COUNT(losses)];
        case_begin(c, "%d rows, %d classes, smoothing %g, logits to %g%s", (int)d.rows, d.classes,
                   (double)d.smoothing, spread, i % 4 == 1 ? ", dlogits NULL" : "");
        Tensor *logits = case_random(c, FLOAT, d.rows * d.classes);
        Tensor *labels = case_uniform(c, INT32, d.rows, d.classes);
        Tensor *metrics = case_random(c, FLOAT, METRICS);
        Tensor *dlogits = i % 4 == 1 ? NULL : case_output(c, ELEMENT, logits->n);
        loss_inputs(logits, labels, spread, d);
        for (int j = 0; j < METRICS; j++) metrics->value[j] = 3 + j;
        case_upload(c, logits);
        case_upload(c, labels);
        case_upload(c, metrics);
        for (int call = 0; call < 2; call++) { // metrics add up
            c->k->softmax_cross_entropy(dev(metrics), dev(dlogits), dev(logits), dev(labels), d);
            ref_softmax_cross_entropy(val(metrics), val(dlogits), val(logits), labels->raw, d);
        }
        loss_tolerance(c, metrics, dlogits, logits, d);
        metrics->tol[METRIC_LOSS] *= 2;
        case_expect(c, metrics, "metrics");
        if (dlogits) case_expect(c, dlogits, "dlogits");
        case_end(c);
    }
}

void check_mean_squared_error(Case *c)
{
    const MapDims dims[] = {{128, 784}, {7, 10}, {1, 1}, {1, 4099}, {5, 3}, {33, 3072}, {1000, 17}};
    for (int i = 0; i < (c->full ? COUNT(dims) : 3); i++) {
        const MapDims d = dims[i];
        const double grad_scale = i % 2 ? 1.0 : 1.0 / 128;
        case_begin(c, "%d rows of %d%s", (int)d.rows, d.channels, i % 4 == 2 ? ", dy NULL" : "");
        Tensor *y = case_random(c, FLOAT, d.rows * d.channels);
        Tensor *target = case_random(c, ELEMENT, y->n), *metrics = case_random(c, FLOAT, METRICS);
        Tensor *dy = i % 4 == 2 ? NULL : case_output(c, ELEMENT, y->n);
        for (int j = 0; j < METRICS; j++) metrics->value[j] = 3 + j;
        case_upload(c, metrics);
        for (int call = 0; call < 2; call++) { // metrics add up
            c->k->mean_squared_error(dev(metrics), dev(dy), dev(y), dev(target), (float)grad_scale,
                                     d);
            ref_mean_squared_error(val(metrics), val(dy), val(y), val(target), grad_scale, d);
        }
        // A square is off by 3 U32 of it, a gradient by 4.
        metrics->tol[METRIC_LOSS] =
            2 * sum_error((double)y->n, metrics->value[METRIC_LOSS]) + 3 * U32 * metrics->value[0];
        for (int64_t j = 0; dy && j < dy->n; j++)
            dy->tol[j] = (c->unit + 4 * U32) * fabs(dy->value[j]);
        case_expect(c, metrics, "metrics");
        if (dy) case_expect(c, dy, "dy");
        case_end(c);
    }
}
