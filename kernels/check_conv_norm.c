// Checks of the convolutions next to a batch norm.
#include <math.h>
#include <string.h>

#include "kernels/check_parts.h"

// Of the next case of an operation; weights and eps of the norms go through theirs with the shapes.
static Activation next_act(const Case *c)
{
    return (Activation)(c->cases % ACTIVATIONS);
}

static NormTensors begin(Case *c, int i, Activation act, ConvDims d, MapDims map)
{
    const bool weight = i % 3 != 1;
    begin_conv(c, d, act, weight ? ", weight" : "");
    return new_norm(c, map, weight, SET, i % 2 ? 1e-12 : 1e-5);
}

// Of all shapes every other one is enough: how windows are found has checks of its own.
static void check_shapes(Case *c, void (*run)(Case *c, int i, bool pool), bool pool)
{
    for (int i = c->full && pool; i < conv_shape_count(c); i += 1 + c->full)
        if (!pool || conv_pooled_outputs(conv_shape(i)) > 0) run(c, i, pool);
}

// ---- backward ----------------------------------------------------------------------------------

// The sums of dz as the device stored it.
static void expect_sums(Case *c, NormTensors *t, const Tensor *dz, MapDims d)
{
    const double *stored = case_download(c, dz);
    memset(t->sums->value, 0, 2 * (size_t)d.channels * sizeof(double));
    memset(t->sums->tol, 0, 2 * (size_t)d.channels * sizeof(double));
    for (int64_t j = 0; j < dz->n; j++) {
        const int64_t ch = j % d.channels;
        double scale;
        const double xhat = norm_xhat(t, j, d.channels, &scale);
        const double off = sum_error((double)d.rows, fabs(stored[j]));
        t->sums->value[ch] += stored[j];
        t->sums->value[d.channels + ch] += stored[j] * xhat;
        t->sums->tol[ch] += off;
        t->sums->tol[d.channels + ch] += off * fabs(xhat);
    }
    case_expect(c, t->sums, "sums");
}

static void check_backward(Case *c, int i, bool pool)
{
    const ConvDims d = conv_shape(i);
    const MapDims map = {d.n * d.h * d.w, d.cin};
    const Activation act = next_act(c);
    NormTensors t = begin(c, i, act, d, map);
    Tensor *dy = case_random(c, ELEMENT, pool ? conv_pooled_outputs(d) : conv_outputs(d));
    Tensor *w = case_random(c, ELEMENT, conv_weights(d)), *dz = case_output(c, ELEMENT, t.x->n);
    double *g = case_array(c, dz->n), *off = case_array(c, dz->n);
    if (pool) {
        Tensor *argmax = random_argmax(c, d);
        c->k->conv2d_pool_norm_backward_data(dev(dz), &t.device, dev(dy), dev(argmax), dev(w),
                                             dev(t.x), act, d);
        ref_conv2d_pool_backward_data(off, case_abs(c, dy), argmax->raw, case_abs(c, w), d);
        ref_conv2d_pool_backward_data(g, val(dy), argmax->raw, val(w), d);
        ref_conv2d_pool_norm_backward_data(val(dz), &t.host, val(dy), argmax->raw, val(w), val(t.x),
                                           act, d);
    } else {
        c->k->conv2d_norm_backward_data(dev(dz), &t.device, dev(dy), dev(w), dev(t.x), act, d);
        ref_conv2d_backward_data(off, case_abs(c, dy), case_abs(c, w), d);
        ref_conv2d_backward_data(g, val(dy), val(w), d);
        ref_conv2d_norm_backward_data(val(dz), &t.host, val(dy), val(w), val(t.x), act, d);
    }
    conv_error(off, dz->n, d.cout * d.kernel * d.kernel, d);
    for (int64_t j = 0; j < dz->n; j++) {
        double z_off;
        const double z = batch_z(&t.host, t.x->value[j], (int)(j % d.cin), d.cin, &z_off);
        off[j] += c->unit * fabs(g[j]);
        dz->tol[j] = off[j] * fabs(ref_act_grad(z, act)) +
                     (fabs(g[j]) + off[j]) * (act_grad_error(act, z, z_off) + 2 * U32) +
                     c->unit * fabs(dz->value[j]);
    }
    case_expect(c, dz, "dz");
    expect_sums(c, &t, dz, map);
    case_end(c);
}

void check_conv2d_norm_backward_data(Case *c)
{
    check_shapes(c, check_backward, false);
}

void check_conv2d_pool_norm_backward_data(Case *c)
{
    check_shapes(c, check_backward, true);
}

// ---- inference ---------------------------------------------------------------------------------

// v (n) and its errors: the convolution, or the maxima of its map, which are off by no more than
// the most of all.
static void reference(Case *c, double *v, double *off, const Tensor *x, const Tensor *w, bool pool,
                      ConvDims d)
{
    const int64_t all = conv_outputs(d);
    double *full = pool ? case_array(c, all) : v, *full_off = pool ? case_array(c, all) : off;
    ref_conv2d_forward(full, NULL, NULL, val(x), val(w), NULL, ACT_NONE, d);
    ref_conv2d_forward(full_off, NULL, NULL, case_abs(c, x), case_abs(c, w), NULL, ACT_NONE, d);
    conv_error(full_off, all, d.cin * d.kernel * d.kernel, d);
    if (!pool) return;
    const int64_t n = conv_pooled_outputs(d);
    double largest = 0;
    for (int64_t j = 0; j < all; j++) largest = fmax(largest, full_off[j]);
    for (int64_t j = 0; j < n; j++) off[j] = largest;
    Tensor *argmax = case_output(c, BYTE, n);
    ref_conv2d_pool_forward(v, argmax->raw, NULL, val(x), val(w), NULL, ACT_NONE, d);
    argmax->expected = true; // the reference's own
}

static void check_inference(Case *c, int i, bool pool)
{
    const ConvDims d = conv_shape(i);
    const int64_t n = pool ? conv_pooled_outputs(d) : conv_outputs(d);
    const Activation act = next_act(c);
    NormTensors t = begin(c, i, act, d, (MapDims){1, d.cout}); // a row: only the running statistics
    Tensor *x = case_random(c, ELEMENT, conv_inputs(d));
    Tensor *w = case_random(c, ELEMENT, conv_weights(d)), *y = case_output(c, ELEMENT, n);
    double *v = case_array(c, n), *off = case_array(c, n);
    reference(c, v, off, x, w, pool, d);
    if (pool) {
        c->k->conv2d_pool_norm_inference(dev(y), &t.device, dev(x), dev(w), act, d);
        ref_conv2d_pool_norm_inference(val(y), &t.host, val(x), val(w), act, d);
    } else {
        c->k->conv2d_norm_inference(dev(y), &t.device, dev(x), dev(w), act, d);
        ref_conv2d_norm_inference(val(y), &t.host, val(x), val(w), act, d);
    }
    for (int64_t j = 0; j < n; j++) {
        const int ch = (int)(j % d.cout);
        const double var = t.running_var->value[ch], weight = t.weight ? t.weight->value[ch] : 1;
        double z_off;
        const double z = norm_z(&t.host, v[j], t.running_mean->value[ch], var, ch, &z_off);
        z_off += (off[j] + c->unit * fabs(v[j])) * fabs(weight) / sqrt(var + t.host.eps);
        y->tol[j] = act_error(act, z, z_off) + c->unit * fabs(y->value[j]);
    }
    case_expect(c, y, "y");
    case_end(c);
}

void check_conv2d_norm_inference(Case *c)
{
    check_shapes(c, check_inference, false);
}

void check_conv2d_pool_norm_inference(Case *c)
{
    check_shapes(c, check_inference, true);
}
