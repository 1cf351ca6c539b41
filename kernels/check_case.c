#include "kernels/check_case.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "kernels/reference.h"

enum { GUARD = 64 }; // bytes behind the end of a tensor that nobody may write

static size_t kind_size(const Case *c, Kind kind)
{
    return kind == ELEMENT ? c->k->element_size : kind == BYTE ? 1 : 4;
}

static size_t tensor_bytes(const Case *c, const Tensor *t)
{
    return (size_t)t->n * kind_size(c, t->kind) + GUARD;
}

static bool is_bf16(const Case *c, Kind kind)
{
    return kind == ELEMENT && c->k->element == BF16;
}

// Round to nearest, ties to even; the fp32 sum carries into the exponent as it should.
static uint16_t to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (isnan(x)) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

double case_round(const Case *c, Kind kind, double x)
{
    return is_bf16(c, kind) ? (double)from_bf16(to_bf16((float)x)) : (double)(float)x;
}

static double decode(const Case *c, Kind kind, const void *raw, int64_t i)
{
    switch (kind) {
    case INT32:
        return ((const int32_t *)raw)[i];
    case BYTE:
        return ((const uint8_t *)raw)[i];
    default:
        return is_bf16(c, kind) ? (double)from_bf16(((const uint16_t *)raw)[i])
                                : (double)((const float *)raw)[i];
    }
}

// ---- the case ----------------------------------------------------------------------------------

void case_begin(Case *c, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(c->shape, sizeof c->shape, format, list);
    va_end(list);
    c->failed = false;
    c->cases++;
}

void case_fail(Case *c, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fprintf(c->report, "FAIL %s (%s): ", c->operation, c->shape);
    vfprintf(c->report, format, list);
    fprintf(c->report, "\n");
    va_end(list);
    c->failed = true;
}

static void *download(const Case *c, const Tensor *t)
{
    void *raw = malloc(tensor_bytes(c, t));
    assert(raw != NULL);
    c->k->download(raw, t->device, tensor_bytes(c, t));
    return raw;
}

void case_end(Case *c)
{
    for (int i = 0; i < c->tensor_count; i++) {
        Tensor *t = &c->tensors[i];
        if (!t->expected) {
            void *now = download(c, t);
            if (memcmp(now, t->raw, tensor_bytes(c, t)) != 0)
                case_fail(c, "input %d was changed", i);
            free(now);
        }
        c->k->release(t->device);
        free(t->raw);
    }
    for (int i = 0; i < c->array_count; i++) free(c->arrays[i]);
    c->tensor_count = c->array_count = 0;
    c->failures += c->failed;
}

void case_step(const Case *c, const StepValues *values)
{
    c->k->step_begin(-1, values); // no variant: nothing to capture or to replay
    c->k->step_end();
}

double *case_array(Case *c, int64_t n)
{
    assert(c->array_count < 4 * CASE_TENSORS);
    double *array = calloc((size_t)n + 1, sizeof *array);
    assert(array != NULL);
    return c->arrays[c->array_count++] = array;
}

double *case_abs(Case *c, const Tensor *t)
{
    if (!t) return NULL;
    double *array = case_array(c, t->n);
    for (int64_t i = 0; i < t->n; i++) array[i] = fabs(t->value[i]);
    return array;
}

// ---- tensors -----------------------------------------------------------------------------------

static Tensor *new_tensor(Case *c, Kind kind, int64_t n)
{
    assert(c->tensor_count < CASE_TENSORS);
    Tensor *t = &c->tensors[c->tensor_count++];
    *t = (Tensor){.kind = kind, .n = n};
    t->device = c->k->alloc(tensor_bytes(c, t));
    t->raw = malloc(tensor_bytes(c, t));
    assert(t->device != NULL && t->raw != NULL);
    memset(t->raw, 0xff, tensor_bytes(c, t));
    if (kind == INT32 || kind == BYTE) return t;
    t->value = case_array(c, n);
    t->tol = case_array(c, n);
    return t;
}

void case_upload(Case *c, Tensor *t)
{
    for (int64_t i = 0; t->value && i < t->n; i++) {
        t->value[i] = case_round(c, t->kind, t->value[i]);
        if (is_bf16(c, t->kind))
            ((uint16_t *)t->raw)[i] = to_bf16((float)t->value[i]);
        else
            ((float *)t->raw)[i] = (float)t->value[i];
    }
    c->k->upload(t->device, t->raw, tensor_bytes(c, t));
}

Tensor *case_random(Case *c, Kind kind, int64_t n)
{
    Tensor *t = new_tensor(c, kind, n);
    const bool tf32 = kind == ELEMENT && c->k->tf32;
    for (int64_t i = 0; i < n; i++) {
        const Philox p = philox(1, STREAM_TEST, c->draw++, 0);
        const double sum = (double)p.v[0] + p.v[1] + p.v[2] + p.v[3]; // variance 4/12 of 2^64
        t->value[i] = (sum * 0x1p-32 - 2) * sqrt(3);
        // what every factor of a product holds exactly: 9 bits behind the point, below 4
        if (tf32) t->value[i] = nearbyint(t->value[i] * 512) / 512;
    }
    case_upload(c, t);
    return t;
}

Tensor *case_integer(Case *c, Kind kind, int64_t n)
{
    Tensor *t = new_tensor(c, kind, n);
    for (int64_t i = 0; i < n; i++)
        t->value[i] = (double)philox_below(philox(1, STREAM_TEST, c->draw++, 0).v[0], 3) - 1;
    case_upload(c, t);
    return t;
}

void case_nan(Case *c, Tensor *t, int64_t every)
{
    for (int64_t i = every / 2; i < t->n; i += every) t->value[i] = NAN;
    case_upload(c, t);
}

Tensor *case_uniform(Case *c, Kind kind, int64_t n, int64_t below)
{
    Tensor *t = new_tensor(c, kind, n);
    for (int64_t i = 0; i < n; i++) {
        const uint32_t word = philox(1, STREAM_TEST, c->draw++, 0).v[0];
        const uint32_t value = philox_below(word, (uint32_t)below);
        if (kind == BYTE)
            ((uint8_t *)t->raw)[i] = (uint8_t)value;
        else
            ((int32_t *)t->raw)[i] = (int32_t)value;
    }
    case_upload(c, t);
    return t;
}

Tensor *case_output(Case *c, Kind kind, int64_t n)
{
    Tensor *t = new_tensor(c, kind, n);
    c->k->upload(t->device, t->raw, tensor_bytes(c, t));
    return t;
}

Tensor *case_gradient(Case *c, int64_t n, GradMode mode)
{
    return mode == ADD ? case_random(c, FLOAT, n) : case_output(c, FLOAT, n);
}

double *case_download(Case *c, const Tensor *t)
{
    double *array = case_array(c, t->n);
    void *raw = download(c, t);
    for (int64_t i = 0; i < t->n; i++) array[i] = decode(c, t->kind, raw, i);
    free(raw);
    return array;
}

void case_expect(Case *c, Tensor *t, const char *name)
{
    int64_t wrong = 0, first = 0;
    void *raw = download(c, t);
    for (int64_t i = 0; i < t->n; i++) {
        const double got = decode(c, t->kind, raw, i);
        const double want = t->value ? t->value[i] : decode(c, t->kind, t->raw, i);
        const bool same = got == want || (isnan(got) && isnan(want));
        if (same || fabs(got - want) <= (t->tol ? t->tol[i] : 0)) continue;
        if (wrong++ == 0) first = i;
    }
    if (wrong)
        case_fail(c, "%s[%lld] = %.9g, expected %.9g within %.2g; %lld of %lld wrong", name,
                  (long long)first, decode(c, t->kind, raw, first),
                  t->value ? t->value[first] : decode(c, t->kind, t->raw, first),
                  t->tol ? t->tol[first] : 0, (long long)wrong, (long long)t->n);
    const size_t end = tensor_bytes(c, t) - GUARD;
    if (memcmp((char *)raw + end, (char *)t->raw + end, GUARD) != 0)
        case_fail(c, "%s: written beyond its %lld values", name, (long long)t->n);
    free(raw);
    t->expected = true;
}

// ---- bounds ------------------------------------------------------------------------------------

const char *act_name(Activation act)
{
#define NAME(act, name, with) name,
    static const char *const names[] = {EACH_ACTIVATION(NAME, )};
    return names[act];
}

double sum_error(double terms, double magnitude)
{
    return 4 * (sqrt(terms) + 2) * U32 * magnitude;
}

double act_max_slope(Activation act)
{
    return ref_activation(act, 0).max_slope;
}

double act_error(Activation act, double x, double dx)
{
    const RefActivation a = ref_activation(act, x);
    return a.max_slope * dx + (a.exact ? 0 : 8 * U32 * fabs(x));
}

// At a kink within dx either derivative is right.
double act_grad_error(Activation act, double x, double dx)
{
    const RefActivation a = ref_activation(act, x);
    return a.max_curvature * dx + (a.exact ? 0 : 8 * U32) + (fabs(x) < dx ? a.kink : 0);
}

// The mean is a sum. M2 moves by 2 |z - mean| dz + dz^2 a value, and merging parts loses
// sqrt(1 + (mean/sigma)^2) U32 of it a step (Chan, Golub, LeVeque 1983, table 1), which sums of
// squares, losing the square of that, do not meet; and rows * (error of the mean)^2.
void stats_tolerance(double *tol, const double *z, const double *dz, MapDims d)
{
    const double rows = (double)d.rows;
    double *stats = calloc(3 * (size_t)d.channels, sizeof *stats);
    assert(stats != NULL);
    ref_norm_stats(stats, z, d);
    for (int c = 0; c < d.channels; c++) {
        const double mean = stats[d.channels + c], m2 = stats[2 * d.channels + c];
        double off = 0, spread = 0, magnitude = 0;
        for (int64_t i = c; i < d.rows * d.channels; i += d.channels) {
            const double e = dz ? dz[i] : 0;
            off += e / rows;
            spread += 2 * fabs(z[i] - mean) * e + e * e;
            magnitude += fabs(z[i]) / rows;
        }
        const double mean_error = sum_error(rows, magnitude);
        tol[c] = 0;
        tol[d.channels + c] = off + mean_error;
        tol[2 * d.channels + c] = spread +
                                  sum_error(rows, sqrt(m2 * m2 + m2 * rows * mean * mean)) +
                                  rows * mean_error * mean_error;
    }
    free(stats);
}
