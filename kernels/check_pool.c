// Checks of pooling.
#include <math.h>

#include "kernels/check_case.h"
#include "kernels/reference.h"

#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

// n, h, w, c, kernel_h, kernel_w, stride
static const PoolDims pools[] = {
    {2, 7, 6, 8, 2, 2, 2},      {1, 9, 8, 5, 3, 3, 2},     {2, 3, 3, 33, 3, 3, 3},
    {1, 31, 31, 24, 2, 2, 2},   {1, 1, 1, 1, 1, 1, 1},     {3, 5, 7, 3, 2, 3, 1},
    {2, 16, 16, 16, 16, 16, 1}, {1, 15, 20, 64, 15, 5, 5}, {1, 4, 4, 1, 4, 4, 4},
    {2, 8, 9, 17, 1, 2, 2},     {1, 10, 10, 8, 3, 3, 1},   {5, 4, 2, 256, 2, 2, 2},
    {2, 17, 18, 9, 17, 18, 1}, // of averages alone: more places than a maximum may have
};

static int64_t pooled(PoolDims d)
{
    return d.n * ((d.h - d.kernel_h) / d.stride + 1) * ((d.w - d.kernel_w) / d.stride + 1) * d.c;
}

static int64_t unpooled(PoolDims d)
{
    return d.n * d.h * d.w * d.c;
}

static PoolDims begin_pool(Case *c, int i)
{
    const PoolDims d = pools[i % COUNT(pools)];
    case_begin(c, "%d x %dx%d, %d channels, window %dx%d, stride %d%s", (int)d.n, d.h, d.w, d.c,
               d.kernel_h, d.kernel_w, d.stride, i >= COUNT(pools) ? ", ties and NaN" : "");
    return d;
}

static int maxpool_cases(const Case *c)
{
    return c->full ? COUNT(pools) - 1 : 3;
}

static int avgpool_cases(const Case *c)
{
    return c->full ? COUNT(pools) : 3;
}

void check_maxpool_forward(Case *c)
{
    for (int i = 0; i < maxpool_cases(c) * 2; i++) {
        const bool ties = i % 2;
        const PoolDims d = begin_pool(c, i / 2 + (ties ? COUNT(pools) : 0));
        Tensor *x =
            ties ? case_integer(c, ELEMENT, unpooled(d)) : case_random(c, ELEMENT, unpooled(d));
        if (ties) case_nan(c, x, 29);
        Tensor *y = case_output(c, ELEMENT, pooled(d)), *argmax = case_output(c, BYTE, pooled(d));
        c->k->maxpool_forward(dev(y), dev(argmax), dev(x), d);
        ref_maxpool_forward(val(y), argmax->raw, val(x), d);
        case_expect(c, y, "y");
        case_expect(c, argmax, "argmax");
        case_end(c);
    }
}

// A place of x takes part in at most (kernel_h)(kernel_w) windows.
static void pool_tolerance(const Case *c, Tensor *t, PoolDims d)
{
    for (int64_t i = 0; i < t->n; i++)
        t->tol[i] = sum_error(d.kernel_h * d.kernel_w, t->tol[i]) + c->unit * fabs(t->value[i]);
}

void check_maxpool_backward(Case *c)
{
    for (int i = 0; i < maxpool_cases(c); i++) {
        const PoolDims d = begin_pool(c, i);
        Tensor *dy = case_random(c, ELEMENT, pooled(d)), *dx = case_output(c, ELEMENT, unpooled(d));
        Tensor *argmax = case_uniform(c, BYTE, pooled(d), d.kernel_h * d.kernel_w);
        c->k->maxpool_backward(dev(dx), dev(dy), dev(argmax), d);
        ref_maxpool_backward(dx->tol, case_abs(c, dy), argmax->raw, d);
        ref_maxpool_backward(val(dx), val(dy), argmax->raw, d);
        pool_tolerance(c, dx, d);
        case_expect(c, dx, "dx");
        case_end(c);
    }
}

void check_avgpool_forward(Case *c)
{
    for (int i = 0; i < avgpool_cases(c); i++) {
        const PoolDims d = begin_pool(c, i);
        Tensor *x = case_random(c, ELEMENT, unpooled(d)), *y = case_output(c, ELEMENT, pooled(d));
        c->k->avgpool_forward(dev(y), dev(x), d);
        ref_avgpool_forward(y->tol, case_abs(c, x), d);
        ref_avgpool_forward(val(y), val(x), d);
        pool_tolerance(c, y, d);
        case_expect(c, y, "y");
        case_end(c);
    }
}

void check_avgpool_backward(Case *c)
{
    for (int i = 0; i < avgpool_cases(c); i++) {
        const PoolDims d = begin_pool(c, i);
        Tensor *dy = case_random(c, ELEMENT, pooled(d)), *dx = case_output(c, ELEMENT, unpooled(d));
        c->k->avgpool_backward(dev(dx), dev(dy), d);
        ref_avgpool_backward(dx->tol, case_abs(c, dy), d);
        ref_avgpool_backward(val(dx), val(dy), d);
        pool_tolerance(c, dx, d);
        case_expect(c, dx, "dx");
        case_end(c);
    }
}
