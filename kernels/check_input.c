// Checks of the operations that make random decisions: gather, dropout.
#include <math.h>
#include <string.h>

#include "kernels/check_case.h"
#include "kernels/reference.h"

#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

// Global sample numbers, the last of 32 bits.
static Tensor *sample_ids(Case *c, int64_t n)
{
    Tensor *ids = case_uniform(c, INT32, n, 1 << 30);
    ((uint32_t *)ids->raw)[n - 1] = 0xfffffffe;
    case_upload(c, ids);
    return ids;
}

static StepValues step_of_epoch(uint32_t epoch)
{
    return (StepValues){.seed = 0xfedcba9876543210, .step = 11, .epoch = epoch, .hyper = {1}};
}

// ---- gather ------------------------------------------------------------------------------------

#define MEAN                                                                                       \
    {                                                                                              \
        0.49f, 0.48f, 0.45f, 0.5f                                                                  \
    }
#define STD                                                                                        \
    {                                                                                              \
        0.25f, 0.24f, 0.26f, 1                                                                     \
    }

static const struct {
    GatherDims d;
    Augment a;
} gathers[] = {
    {{9, 32, 32, 3, MEAN, STD},
     {FLIP_ALTERNATE, 2, 12, 0.14f, 0.13f, .dy = 1, .dx = -1, .mirror = true}},
    {{5, 28, 28, 1, MEAN, STD}, {.flip = FLIP_RANDOM}},
    {{7, 9, 6, 3, MEAN, STD}, {.flip = FLIP_ALTERNATE, .translate = 1}},
    {{1, 1, 1, 1, MEAN, STD}, {.flip = FLIP_NONE}},
    {{17, 5, 7, 4, MEAN, STD}, {.flip = FLIP_RANDOM, .translate = 4, .mirror = true}},
    {{33, 8, 8, 3, MEAN, STD}, {.translate = 7, .cutout = 3}}, // reflects over the whole image
    {{33, 8, 9, 2, MEAN, STD}, {.cutout = 8}},
    {{12, 16, 16, 3, MEAN, STD}, {.brightness = 0.3f, .contrast = 0.2f}},
    {{64, 6, 5, 1, MEAN, STD}, {.flip = FLIP_RANDOM, .translate = 2, .cutout = 1}},
    {{3, 32, 32, 3, MEAN, STD}, {.dy = -2, .dx = 2}},
    {{200, 10, 13, 3, MEAN, STD}, {.flip = FLIP_ALTERNATE, .translate = 3, .cutout = 5}},
};

static void check_gather_case(Case *c, int i, uint32_t epoch, bool with_rows)
{
    const GatherDims d = gathers[i].d;
    const Augment a = gathers[i].a;
    const StepValues values = step_of_epoch(epoch);
    const int64_t pixels = (int64_t)d.h * d.w * d.c, set = with_rows ? 3 * d.n : d.n;
    case_begin(c, "%d x %dx%dx%d, flip %d, translate %d, cutout %d, epoch %u%s", (int)d.n, d.h, d.w,
               d.c, a.flip, a.translate, a.cutout, epoch, with_rows ? ", rows" : "");
    Tensor *images = case_uniform(c, BYTE, set * pixels, 256);
    Tensor *labels = case_uniform(c, INT32, set, 1000), *ids = sample_ids(c, d.n);
    Tensor *rows = with_rows ? case_uniform(c, INT32, d.n, set) : NULL;
    Tensor *x = case_output(c, ELEMENT, d.n * pixels), *out = case_output(c, INT32, d.n);
    case_step(c, &values);
    c->k->gather(dev(x), dev(out), dev(images), dev(labels), dev(ids), dev(rows), d, a);
    ref_gather(val(x), out->raw, images->raw, labels->raw, ids->raw, rows ? rows->raw : NULL, d, a,
               &values);
    for (int64_t j = 0; j < x->n; j++) { // the parts of (p/255 + u1) * u2 - mean are below 2
        const double size = 2 / (double)d.std[j % d.c];
        x->tol[j] = 8 * U32 * size + c->unit * fabs(x->value[j]);
    }
    case_expect(c, x, "x");
    case_expect(c, out, "labels");
    case_end(c);
}

void check_gather(Case *c)
{
    for (int i = 0; i < (c->full ? COUNT(gathers) : 3); i++)
        for (uint32_t epoch = 0; epoch < 3; epoch++)
            check_gather_case(c, i, epoch, (i + (int)epoch) % 2);
}

// ---- dropout -----------------------------------------------------------------------------------

static const struct {
    int64_t n, per_sample;
    float rate;
} dropouts[] = {{5, 512, 0.5f},  {3, 7, 0.2f},     {1, 1, 0.5f},   {64, 64, 0},
                {9, 1001, 0.9f}, {2, 70000, 0.1f}, {130, 17, 0.3f}};

static double count_zeros(const double *x, int64_t n)
{
    double zeros = 0;
    for (int64_t i = 0; i < n; i++) zeros += x[i] == 0;
    return zeros;
}

// The share of new zeros is the rate, within five sigma of a binomial.
static void expect_rate(Case *c, const Tensor *y, double input_zeros, double rate)
{
    const double n = (double)y->n - input_zeros;
    const double zeros = count_zeros(case_download(c, y), y->n) - input_zeros;
    if (fabs(zeros - n * rate) > 5 * sqrt(n * rate * (1 - rate)) + 0.5)
        case_fail(c, "%g of %g elements are 0, expected %g", zeros, n, n * rate);
}

void check_dropout(Case *c)
{
    for (int i = 0; i < (c->full ? COUNT(dropouts) * 2 : 3); i++) {
        const int64_t n = dropouts[i % COUNT(dropouts)].n;
        const int64_t per_sample = dropouts[i % COUNT(dropouts)].per_sample;
        const float rate = dropouts[i % COUNT(dropouts)].rate;
        const StepValues values = step_of_epoch((uint32_t)i);
        case_begin(c, "%d x %d, rate %g, layer %d%s", (int)n, (int)per_sample, (double)rate, i * 19,
                   i % 2 ? ", in place" : "");
        Tensor *ids = sample_ids(c, n), *x = case_random(c, ELEMENT, n * per_sample);
        Tensor *y = i % 2 ? x : case_output(c, ELEMENT, n * per_sample);
        case_step(c, &values);
        const double input_zeros = count_zeros(val(x), x->n);
        c->k->dropout(dev(y), dev(x), dev(ids), rate, i * 19, n, per_sample);
        ref_dropout(val(y), val(x), ids->raw, rate, i * 19, n, per_sample, &values);
        for (int64_t j = 0; j < y->n; j++) y->tol[j] = (c->unit + 4 * U32) * fabs(y->value[j]);
        case_expect(c, y, "y");
        expect_rate(c, y, input_zeros, (double)rate);
        case_end(c);
    }
}
