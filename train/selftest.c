#include "train/selftest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/check.h"
#include "base/philox.h"

// A step moves a tensor by a share of its norm. Central differences carry an error from curvature
// and from the kinks of ReLU and max-pooling, which grows with the step, and one from the rounding
// of the fp32 loss, which shrinks with it. How large each is depends on the network and the data,
// so several steps are tried: a right gradient agrees with one of them. One with a missing part, a
// wrong sign or a wrong factor is far off at all. Random directions need larger steps, since the
// loss changes less along them by sqrt(n).
static const double STEP_ALONG_GRADIENT = 0.001, STEP_ALONG_RANDOM = 0.002;
static const double STEP_FACTORS[] = {1, 0.25, 4, 1.0 / 16, 16};
static const double ALONG_GRADIENT = 0.03, ALONG_RANDOM = 0.3; // relative tolerances
enum { RANDOM_DIRECTIONS = 8, STEPS = sizeof STEP_FACTORS / sizeof *STEP_FACTORS };

typedef struct Check {
    Setup *s;
    const Tensor *tensor;
    float *weight, *grad, *direction, *moved; // host copies, (n)
} Check;

static double norm(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

static double loss_at(const Check *c, double distance)
{
    const Kernels *k = c->s->kernels;
    const Tensor *t = c->tensor;
    for (int64_t i = 0; i < t->n; i++)
        c->moved[i] = (float)((double)c->weight[i] + distance * (double)c->direction[i]);
    tensor_upload(t, k, c->moved);
    float metrics[METRICS];
    k->zero(c->s->net.metrics->value, sizeof metrics);
    c->s->trainer->loss();
    k->download(metrics, c->s->net.metrics->value, sizeof metrics);
    return (double)c->s->net.grad_scale * (double)metrics[METRIC_LOSS];
}

// The slope of the loss along the direction (a unit vector): measured, and what the gradient says.
static void slopes(const Check *c, double step, double *measured, double *claimed)
{
    const double size = norm(c->weight, c->tensor->n);
    const double h = step * (size > 0 ? size : sqrt((double)c->tensor->n));
    *measured = (loss_at(c, h) - loss_at(c, -h)) / (2 * h);
    *claimed = 0;
    for (int64_t i = 0; i < c->tensor->n; i++)
        *claimed += (double)c->grad[i] * (double)c->direction[i];
}

static double error_along_gradient(const Check *c, double gradient_norm, double step)
{
    const int64_t n = c->tensor->n;
    if (!(gradient_norm > 0)) return INFINITY; // also NaN
    for (int64_t i = 0; i < n; i++) c->direction[i] = (float)((double)c->grad[i] / gradient_norm);
    double measured, claimed;
    slopes(c, step, &measured, &claimed);
    return fabs(measured - claimed) / claimed;
}

// Random signs, over all directions together: the root of the summed squares of the differences,
// relative to that of the slopes.
static double error_along_random(const Check *c, double step)
{
    const int64_t n = c->tensor->n;
    double differences = 0, squares = 0;
    for (uint32_t d = 0; d < RANDOM_DIRECTIONS; d++) {
        for (int64_t i = 0; i < n; i++) {
            const Philox r = philox(1, STREAM_TEST, (uint64_t)i, d);
            c->direction[i] = (float)((r.v[0] & 1 ? 1.0 : -1.0) / sqrt((double)n));
        }
        double measured, claimed;
        slopes(c, step, &measured, &claimed);
        differences += (measured - claimed) * (measured - claimed);
        squares += 0.5 * (measured * measured + claimed * claimed);
    }
    return sqrt(differences / squares);
}

static bool check_tensor(Check *c)
{
    const Kernels *k = c->s->kernels;
    const Tensor *t = c->tensor;
    const size_t bytes = (size_t)t->n * sizeof(float);
    float *memory = malloc(4 * bytes);
    if (!memory) die(STATUS_IO, "out of memory for --selftest");
    c->weight = memory;
    c->grad = memory + t->n;
    c->direction = memory + 2 * t->n;
    c->moved = memory + 3 * t->n;
    k->download(c->weight, t->master, bytes);
    k->download(c->grad, t->grad, bytes);

    const double gradient_norm = norm(c->grad, t->n);
    double along = INFINITY, random = INFINITY;
    for (int i = 0; i < STEPS; i++) {
        if (along > ALONG_GRADIENT)
            along = error_along_gradient(c, gradient_norm, STEP_FACTORS[i] * STEP_ALONG_GRADIENT);
        if (random > ALONG_RANDOM)
            random = error_along_random(c, STEP_FACTORS[i] * STEP_ALONG_RANDOM);
    }
    const bool ok = along <= ALONG_GRADIENT && random <= ALONG_RANDOM;
    printf("%-4s %-28s |gradient| %-10.3g error %.2f%% along it, %.1f%% along random ones\n",
           ok ? "ok" : "FAIL", t->name, gradient_norm, 100 * along, 100 * random);
    tensor_upload(t, k, c->weight);
    free(memory);
    return ok;
}

int selftest(Setup *s)
{
    int failed = s->failed_operations + kernels_check(s->kernels, false, stdout, NULL);
    const int64_t n = s->options->batch_size < 64 ? s->options->batch_size : 64;
    feed_load_sets(&s->feed);
    feed_fixed(&s->feed, n);
    s->trainer->gradient();
    Check c = {.s = s};
    int tensors = 0;
    for (int i = 0; i < s->net.tensors.count; i++) {
        if (s->net.tensors.list[i].kind != PARAMETER) continue;
        c.tensor = &s->net.tensors.list[i];
        tensors++;
        if (!check_tensor(&c)) {
            failed++;
            fprintf(stderr,
                    "error: the gradient of %s is not the derivative of the loss; look at "
                    "its backward line\n",
                    c.tensor->name);
        }
    }
    if (failed == 0) printf("selftest passed: the operations, and %d gradients\n", tensors);
    return failed ? STATUS_FAILED : STATUS_OK;
}
