#include "runtime/diverged.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/report.h"

// Sign, exponent and fraction: NaN and infinities have all bits of the exponent set.
static bool finite_f32(const void *values, int64_t n)
{
    const uint32_t *bits = values;
    for (int64_t i = 0; i < n; i++)
        if ((bits[i] & 0x7f800000) == 0x7f800000) return false;
    return true;
}

static bool finite_bf16(const void *values, int64_t n)
{
    const uint16_t *bits = values;
    for (int64_t i = 0; i < n; i++)
        if ((bits[i] & 0x7f80) == 0x7f80) return false;
    return true;
}

static bool is_finite(const Session *s, const void *device, int64_t n, size_t bytes_each)
{
    const size_t bytes = (size_t)n * bytes_each;
    void *host = malloc(bytes);
    if (!host) return true; // as far as one can tell
    s->kernels->download(host, device, bytes);
    const bool finite = bytes_each == 2 ? finite_bf16(host, n) : finite_f32(host, n);
    free(host);
    return finite;
}

static bool is_master_finite(const Session *s, const Tensor *t)
{
    const bool weight = t->kind == PARAMETER || t->kind == BUFFER;
    return !weight || is_finite(s, t->master, t->n, sizeof(float));
}

static const Tensor *first_weight(const Session *s)
{
    for (const Tensor *t = s->tensors.list; t < s->tensors.list + s->tensors.count; t++)
        if (!is_master_finite(s, t)) return t;
    return NULL;
}

bool diverged_weights(const Session *s)
{
    return first_weight(s) != NULL;
}

// The backward pass goes from the last tensor to the first.
static const Tensor *first_gradient(const Session *s)
{
    for (const Tensor *t = s->tensors.list + s->tensors.count; t-- > s->tensors.list;)
        if (t->kind == PARAMETER && !is_finite(s, t->grad, t->n, sizeof(float))) return t;
    return NULL;
}

// Maps and vectors of the batch that hold numbers. Statistics follow from them.
static bool is_map(const Session *s, const Tensor *t)
{
    return t->kind == ACTIVATION && t->bytes_each > 1 && t->shape[0] == s->batch;
}

static const Tensor *first_activation(const Session *s)
{
    const Tensor *end = s->tensors.list + s->tensors.count;
    for (const Tensor *t = s->grad_norm + 1; t < end; t++) // the model's own
        if (is_map(s, t) && !is_finite(s, t->value, t->n, t->bytes_each)) return t;
    return NULL;
}

enum { PLACE_TEXT = 256 };

static void describe_activation(const Tensor *t, char text[static PLACE_TEXT])
{
    char layer[TENSOR_NAME_MAX], shape[64] = "";
    for (int i = 0; i < t->rank; i++) {
        const size_t used = strlen(shape);
        snprintf(shape + used, sizeof shape - used, i ? ",%lld" : "%lld", (long long)t->shape[i]);
    }
    tensor_layer(t, layer);
    snprintf(text, PLACE_TEXT, "layer %s, activation %s (%s)", layer, t->name, shape);
}

static void describe(const Tensor *t, const char *what, char text[static PLACE_TEXT])
{
    char layer[TENSOR_NAME_MAX];
    tensor_layer(t, layer);
    snprintf(text, PLACE_TEXT, "layer %s, %s %s", layer, what, t->name);
}

// In the order of a step: forward, backward, update.
typedef enum { NOWHERE, LOSS, TENSOR } Found;
static Found find_first(const Session *s, double loss, char text[static PLACE_TEXT])
{
    const Tensor *t;
    if (!isfinite(loss)) {
        if ((t = first_activation(s)))
            describe_activation(t, text);
        else
            snprintf(text, PLACE_TEXT, "the loss itself");
        return t ? TENSOR : LOSS;
    }
    if ((t = first_gradient(s)))
        describe(t, "the gradient of", text);
    else if ((t = first_weight(s)))
        describe(t, "the update of", text);
    return t ? TENSOR : NOWHERE;
}

// The rank whose images led to the place that is known best; -1: no rank has found one.
static int best_found(const Session *s, Found own)
{
    Found all[s->comm.ranks];
    int best = -1;
    s->comm.all_gather(all, &own, sizeof own);
    for (int r = 0; r < s->comm.ranks; r++)
        if (all[r] > (best < 0 ? NOWHERE : all[best])) best = r;
    return best;
}

// Ends the program with the message, which the report has too.
__attribute__((format(printf, 2, 3))) static _Noreturn void end(Session *s, const char *format, ...)
{
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    rundir_clear(s->run);
    report_finish(s, NULL, message);
    die(STATUS_DIVERGED, "%s", message);
}

void diverged(Session *s, const char *what)
{
    const int64_t done = s->step + 1, start = s->saved_step > 0 ? s->saved_step : 0;
    rundir_clear(s->run);
    if (s->search_end)
        end(s, "%s after step %lld; try a smaller --lr or --clip-norm 1", what, (long long)done);
    if (!s->options->quiet)
        printf("%s after step %lld; repeating from step %lld to find where that began\n", what,
               (long long)done, (long long)start);
    fflush(stdout);
    s->search_end = done;
    s->step = start - 1;
    snapshot_restore(&s->snapshot, &s->tensors, s->kernels, s->ema);
    s->kernels->zero(s->tensors.activations, s->tensors.activation_bytes); // and the metrics
    session_open_loader(s);
}

void diverged_look(Session *s)
{
    double m[METRICS];
    char place[PLACE_TEXT];
    session_metrics(s, m);
    const int64_t done = s->step + 1;
    const int rank = best_found(s, find_first(s, m[METRIC_LOSS], place));
    if (rank == s->comm.rank)
        end(s,
            "the loss diverged: not finite first in step %lld, %s; try a smaller --lr or "
            "--clip-norm 1",
            (long long)done, place);
    if (rank >= 0) s->comm.barrier(); // until that one ends all
    if (done >= s->search_end) diverged(s, "the loss is not finite");
}

void diverged_evaluation(Session *s, double loss)
{
    char place[PLACE_TEXT] = "no weight";
    const Tensor *t = first_weight(s);
    if (t) describe(t, "the weights", place);
    end(s, "the test loss is %g after step %lld; not finite: %s; try a smaller --lr", loss,
        (long long)s->step + 1, place);
}
