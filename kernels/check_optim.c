// Checks of the optimizers and of the fp32 vector operations.
#include <math.h>
#include <string.h>

#include "kernels/check_case.h"
#include "kernels/reference.h"

#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

enum { PARAMS = 5, PARAMS_MAX = 38 }; // the most, for muon_update alone
static const int64_t param_rows[PARAMS] = {3, 24, 1, 64, 10};
static const int64_t param_columns[PARAMS] = {7, 12, 1, 575, 431};

// A list of parameters on both sides: every second has a working copy.
typedef struct ParamList {
    int count;
    Tensor *value[PARAMS_MAX], *master[PARAMS_MAX], *grad[PARAMS_MAX];
    Tensor *state1[PARAMS_MAX], *state2[PARAMS_MAX];
    Param device[PARAMS_MAX];
    RefParam host[PARAMS_MAX];
} ParamList;

static void add_param(Case *c, ParamList *l, int64_t rows, int64_t columns, bool second)
{
    const int i = l->count++;
    const int64_t n = rows * columns;
    const float decay = 0.02f * (float)i;
    l->value[i] = i % 2 ? case_output(c, ELEMENT, n) : NULL;
    l->master[i] = case_random(c, FLOAT, n);
    l->grad[i] = case_random(c, FLOAT, n);
    l->state1[i] = case_random(c, FLOAT, n);
    l->state2[i] = second ? case_random(c, FLOAT, n) : NULL;
    for (int64_t j = 0; second && j < n; j++) l->state2[i]->value[j] = fabs(l->state2[i]->value[j]);
    if (second) case_upload(c, l->state2[i]);
    l->device[i] = (Param){dev(l->value[i]),
                           dev(l->master[i]),
                           dev(l->grad[i]),
                           dev(l->state1[i]),
                           dev(l->state2[i]),
                           n,
                           rows,
                           1 + i % 3,
                           decay};
    l->host[i] = (RefParam){
        val(l->master[i]), val(l->grad[i]), val(l->state1[i]), val(l->state2[i]), n, rows,
        1 + i % 3,         (double)decay};
}

static ParamList param_list(Case *c, int count, bool second)
{
    ParamList l = {0};
    for (int i = 0; i < count; i++) add_param(c, &l, param_rows[i], param_columns[i], second);
    return l;
}

// What the update made, and the working copy, which is the device's own master, rounded.
static void expect_params(Case *c, ParamList *l)
{
    for (int i = 0; i < l->count; i++) {
        if (l->value[i]) {
            memcpy(l->value[i]->value, case_download(c, l->master[i]),
                   (size_t)l->master[i]->n * sizeof(double));
            for (int64_t j = 0; j < l->value[i]->n; j++)
                l->value[i]->value[j] = case_round(c, ELEMENT, l->value[i]->value[j]);
            case_expect(c, l->value[i], "value");
        }
        case_expect(c, l->master[i], "master");
        case_expect(c, l->state1[i], "state1");
        if (l->state2[i]) case_expect(c, l->state2[i], "state2");
    }
}

static StepValues step_values(uint32_t step)
{
    return (StepValues){.seed = 0x123456789abcdef0,
                        .step = step,
                        .epoch = 3,
                        .hyper = {1, 0.1f, 0.03f, -0.5f, 0.9f}};
}

static int param_count(const Case *c, int i)
{
    return c->full ? 1 + i % PARAMS : 2;
}

void check_sgd_update(Case *c)
{
    for (int i = 0; i < (c->full ? 10 : 2); i++) {
        const Sgd sgd = {i % 3 == 2 ? 0 : 0.85f, i % 2};
        const StepValues values = step_values(7);
        case_begin(c, "%d tensors, momentum %g%s", param_count(c, i), (double)sgd.momentum,
                   sgd.nesterov ? ", nesterov" : "");
        ParamList l = param_list(c, param_count(c, i), false);
        case_step(c, &values);
        c->k->sgd_update(l.device, l.count, sgd);
        for (int p = 0; p < l.count; p++) { // at most five roundings of the sum of sizes
            const double lr = fabs((double)values.hyper[l.host[p].lr]);
            for (int64_t j = 0; j < l.host[p].n; j++) {
                const double w = fabs(l.host[p].master[j]);
                const double v = (double)sgd.momentum * fabs(l.host[p].state1[j]) +
                                 fabs(l.host[p].grad[j]) + l.host[p].decay * w;
                l.state1[p]->tol[j] = 4 * U32 * v;
                l.master[p]->tol[j] = 10 * U32 * lr * v + 2 * U32 * w;
            }
        }
        ref_sgd_update(l.host, l.count, sgd, &values);
        expect_params(c, &l);
        case_end(c);
    }
}

// m and v are sums of two products. 1 - beta^t carries the rounding of beta^t, which at step 1 is
// of size beta / (1 - beta) to the difference: at most 1000 U32 for 0.999, half of it after sqrt.
void check_adamw_update(Case *c)
{
    for (int i = 0; i < (c->full ? 12 : 2); i++) {
        const AdamW adam = {0.9f, 0.999f, i % 2 ? 1e-8f : 1e-3f};
        const uint32_t steps[] = {0, 999, 1, 100000};
        const StepValues values = step_values(steps[i % 4]);
        case_begin(c, "%d tensors, step %u", param_count(c, i), values.step + 1);
        ParamList l = param_list(c, param_count(c, i), true);
        case_step(c, &values);
        c->k->adamw_update(l.device, l.count, adam);
        for (int p = 0; p < l.count; p++) {
            const double lr = fabs((double)values.hyper[l.host[p].lr]), t = values.step + 1.0;
            const double b1 = 1 - pow((double)adam.beta1, t), b2 = 1 - pow((double)adam.beta2, t);
            for (int64_t j = 0; j < l.host[p].n; j++) {
                const double w = fabs(l.host[p].master[j]), g = fabs(l.host[p].grad[j]);
                const double m = 0.9 * fabs(l.host[p].state1[j]) + 0.1 * g;
                const double v = 0.999 * l.host[p].state2[j] + 0.001 * g * g;
                const double step = lr * m / b1 / (sqrt(v / b2) + (double)adam.eps);
                l.state1[p]->tol[j] = 4 * U32 * m;
                l.state2[p]->tol[j] = 4 * U32 * v;
                l.master[p]->tol[j] = (16 + 4 / b1 + 1 / b2) * U32 * step + 4 * U32 * w;
            }
        }
        ref_adamw_update(l.host, l.count, adam, &values);
        expect_params(c, &l);
        case_end(c);
    }
}

// The largest slope of s -> as + bs^3 + cs^5 on the singular values 0 to 1.2.
static double muon_slope(Muon m)
{
    double slope = 0;
    for (double s = 0; s <= 1.2; s += 0.01)
        slope =
            fmax(slope, fabs((double)m.a + 3 * (double)m.b * s * s + 5 * (double)m.c * pow(s, 4)));
    return slope;
}

// An error in X grows by the slope an iteration; what an iteration adds is that of sums of K
// products, relative to the size of a typical element: |X|_F <= 1.2 sqrt(smaller side), spread
// over rows * columns. A device may hold X in its element type, or round it in products (TF32).
static double muon_tolerance(const Case *c, Muon m, int64_t rows, int64_t columns)
{
    const double smaller = (double)(rows < columns ? rows : columns);
    const double larger = (double)(rows < columns ? columns : rows);
    const double typical = 1.2 * sqrt(smaller / (smaller * larger));
    const double unit = c->k->tf32 ? 0x1p-11 : c->unit;
    double growth = 1;
    for (int i = 0; i < m.iterations; i++) growth = growth * fmax(1, muon_slope(m)) + 1;
    return growth * (sum_error(larger, 1) + 4 * (unit - U32)) * typical;
}

// Doubles the gradients of all parameters but the first on the device, and, if `each`, says that
// each is complete: their updates may begin before muon_update() is called, but not before this.
static void complete_gradients(const Case *c, ParamList *l, bool each)
{
    for (int p = 1; p < l->count; p++) {
        c->k->scale(l->device[p].grad, 2, HYPER_ONE, l->device[p].grad, l->host[p].n);
        if (each) c->k->update_may_begin(l->device[p].grad);
        for (int64_t j = 0; j < l->host[p].n; j++) l->host[p].grad[j] *= 2;
    }
}

void check_muon_update(Case *c)
{
    static const int64_t sizes[][2] = {{24, 12}, {16, 72}, {64, 577},  {10, 431}, {70, 9},
                                       {1, 5},   {6, 1},   {131, 140}, {97, 33}};
    for (int i = 0; i < (c->full ? 18 : 3); i++) {
        const Muon muon = {
            i % 5 ? 0.6f : 0, (const int[]){1, 3, 5}[i % 3], 3.4445f, -4.7750f, 2.0315f, i % 2};
        const StepValues values = step_values(7);
        const bool many = i == 17, together = i % 8 > 3; // many: more than one launch takes
        const int count = many ? PARAMS_MAX : c->full ? 1 + i % 4 : 1 + i % 2;
        case_begin(c, "%d tensors%s, %d iterations%s", count, together ? " together" : "",
                   muon.iterations, muon.renormalize ? ", renormalize" : "");
        ParamList l = {0};
        for (int p = 0; p < count; p++) {
            const int64_t *const size = sizes[(i + p) % COUNT(sizes)];
            add_param(c, &l, many ? 1 + p % 5 : size[0], many ? 1 + p % 9 : size[1], false);
        }
        case_step(c, &values);
        complete_gradients(c, &l, !together && !many);
        c->k->muon_update(l.device, l.count, muon);
        for (int p = 1; p < l.count; p++) case_expect(c, l.grad[p], "grad");
        for (int p = 0; p < l.count; p++)
            for (int64_t j = 0; j < l.host[p].n; j++)
                l.state1[p]->tol[j] =
                    2 * U32 *
                    ((double)muon.momentum * fabs(l.host[p].state1[j]) + fabs(l.host[p].grad[j]));
        ref_muon_update(l.host, l.count, muon, &values);
        for (int p = 0; p < l.count; p++) {
            const double lr = fabs((double)values.hyper[l.host[p].lr]), n = (double)l.host[p].n;
            const double off =
                lr * muon_tolerance(c, muon, l.host[p].rows, l.host[p].n / l.host[p].rows);
            for (int64_t j = 0; j < l.host[p].n; j++)
                l.master[p]->tol[j] = off + sum_error(n, fabs(l.host[p].master[j]));
        }
        expect_params(c, &l);
        case_end(c);
    }
}

void check_clip_gradients(Case *c)
{
    for (int i = 0; i < (c->full ? 10 : 4); i++) {
        const float limit = (const float[]){1, 1e6f, 1, 1000}[i % 4];
        const bool zero = i % 4 == 2; // gradients of 0 have no direction
        case_begin(c, "%d tensors, limit %g%s", param_count(c, i), (double)limit,
                   zero ? ", zeros" : "");
        ParamList l = param_list(c, param_count(c, i), false);
        Tensor *norm = case_output(c, FLOAT, 1);
        double n = 0;
        for (int p = 0; p < l.count; p++) {
            for (int64_t j = 0; j < l.host[p].n; j++) l.host[p].grad[j] *= zero ? 0 : 1;
            case_upload(c, l.grad[p]);
            n += (double)l.host[p].n;
        }
        c->k->clip_gradients(dev(norm), l.device, l.count, limit);
        ref_clip_gradients(val(norm), l.host, l.count, (double)limit);
        norm->tol[0] = sum_error(n, norm->value[0]);
        const bool active = norm->value[0] > (double)limit;
        const double relative = active ? sum_error(n, 1) + 4 * U32 : 0;
        for (int p = 0; p < l.count; p++) {
            for (int64_t j = 0; j < l.host[p].n; j++)
                l.grad[p]->tol[j] = relative * fabs(l.host[p].grad[j]);
            case_expect(c, l.grad[p], "grad");
            if (l.value[p]) l.value[p]->expected = true; // still NaN: nobody set it
        }
        case_expect(c, norm, "norm");
        case_end(c);
    }
}

// ---- vectors -----------------------------------------------------------------------------------

static const int64_t lengths[] = {1, 1000, 7, 16, 17, 100003};

static int vector_cases(const Case *c)
{
    return c->full ? COUNT(lengths) * 3 : 2;
}

// Three vectors of one length; every second call is in place.
typedef struct Vectors {
    Tensor *y, *a, *b;
    int64_t n;
    int slot;
    double factor; // 1.5 * hyper[slot]
} Vectors;

static Vectors begin_vectors(Case *c, int i)
{
    const StepValues values = step_values(0);
    Vectors v = {.n = lengths[i % COUNT(lengths)], .slot = i % 4};
    case_begin(c, "%d, slot %d%s", (int)v.n, v.slot, i % 2 ? ", in place" : "");
    case_step(c, &values);
    v.factor = 1.5 * (double)values.hyper[v.slot];
    v.a = case_random(c, FLOAT, v.n);
    v.b = case_random(c, FLOAT, v.n);
    v.y = i % 2 ? v.a : case_output(c, FLOAT, v.n);
    return v;
}

static void end_vectors(Case *c, Vectors *v, double roundings)
{
    for (int64_t j = 0; j < v->n; j++) v->y->tol[j] += roundings * U32 * fabs(v->y->value[j]);
    case_expect(c, v->y, "y");
    case_end(c);
}

void check_axpy(Case *c)
{
    for (int i = 0; i < vector_cases(c); i++) {
        Vectors v = begin_vectors(c, i | 1);
        c->k->axpy(dev(v.y), 1.5f, v.slot, dev(v.b), v.n);
        for (int64_t j = 0; j < v.n; j++) v.y->tol[j] = 2 * U32 * fabs(v.factor * v.b->value[j]);
        ref_axpy(val(v.y), v.factor, val(v.b), v.n);
        end_vectors(c, &v, 1);
    }
}

void check_scale(Case *c)
{
    for (int i = 0; i < vector_cases(c); i++) {
        Vectors v = begin_vectors(c, i);
        c->k->scale(dev(v.y), 1.5f, v.slot, dev(v.a), v.n);
        ref_scale(val(v.y), v.factor, val(v.a), v.n);
        end_vectors(c, &v, 2);
    }
}

void check_multiply(Case *c)
{
    for (int i = 0; i < vector_cases(c); i++) {
        Vectors v = begin_vectors(c, i);
        c->k->multiply(dev(v.y), dev(v.a), dev(v.b), v.n);
        ref_multiply(val(v.y), val(v.a), val(v.b), v.n);
        end_vectors(c, &v, 1);
    }
}

void check_sqrt_divide(Case *c)
{
    for (int i = 0; i < vector_cases(c); i++) {
        Vectors v = begin_vectors(c, i);
        const float eps = i % 3 ? 1e-8f : 0.1f;
        for (int64_t j = 0; j < v.n; j++) v.b->value[j] = fabs(v.b->value[j]);
        case_upload(c, v.b);
        c->k->sqrt_divide(dev(v.y), dev(v.a), dev(v.b), eps, v.n);
        ref_sqrt_divide(val(v.y), val(v.a), val(v.b), (double)eps, v.n);
        end_vectors(c, &v, 4);
    }
}

void check_dot(Case *c)
{
    for (int i = 0; i < vector_cases(c); i++) {
        Vectors v = begin_vectors(c, i | 1);
        Tensor *result = case_output(c, FLOAT, 1);
        c->k->dot(dev(result), dev(v.a), dev(v.b), v.n);
        ref_dot(result->tol, case_abs(c, v.a), case_abs(c, v.b), v.n);
        ref_dot(val(result), val(v.a), val(v.b), v.n);
        result->tol[0] = sum_error((double)v.n, result->tol[0]);
        case_expect(c, result, "result");
        case_end(c);
    }
}

void check_ema_update(Case *c)
{
    for (int i = 0; i < vector_cases(c); i++) {
        Vectors v = begin_vectors(c, i | 1);
        c->k->ema_update(dev(v.y), dev(v.b), 4, v.n);
        const double decay = (double)step_values(0).hyper[4];
        for (int64_t j = 0; j < v.n; j++) // however d*ema + (1-d)*x is rearranged
            v.y->tol[j] = 4 * U32 * (fabs(v.y->value[j]) + fabs(v.b->value[j]));
        ref_ema_update(val(v.y), val(v.b), decay, v.n);
        end_vectors(c, &v, 0);
    }
}
