#include "train/diverged.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// NaN and infinities have all bits of the exponent set. bf16 is the upper half of fp32, and that
// half, the last one in memory, has the exponent.
static bool is_finite(const Setup *s, const void *device, int64_t n, size_t bytes_each)
{
    const size_t bytes = (size_t)n * bytes_each, halves = bytes_each / sizeof(uint16_t);
    uint16_t *host = malloc(bytes);
    if (!host) return true; // as far as one can tell
    s->kernels->download(host, device, bytes);
    bool finite = true;
    for (size_t last = halves - 1; last < (size_t)n * halves && finite; last += halves)
        finite = (host[last] & 0x7f80) != 0x7f80;
    free(host);
    return finite;
}

static bool is_master_finite(const Setup *s, const Tensor *t)
{
    const bool weight = t->kind == PARAMETER || t->kind == BUFFER;
    return !weight || is_finite(s, t->master, t->n, sizeof(float));
}

static const Tensor *first_weight(const Setup *s)
{
    for (const Tensor *t = s->net.tensors.list; t < s->net.tensors.list + s->net.tensors.count; t++)
        if (!is_master_finite(s, t)) return t;
    return NULL;
}

bool diverged_weights(const Setup *s)
{
    const bool own = first_weight(s) != NULL;
    bool all[s->comm.ranks], any = false;
    s->comm.all_gather(all, &own, sizeof own);
    for (int r = 0; r < s->comm.ranks; r++) any |= all[r];
    return any;
}

// The backward pass goes from the last tensor to the first.
static const Tensor *first_gradient(const Setup *s)
{
    for (const Tensor *t = s->net.tensors.list + s->net.tensors.count; t-- > s->net.tensors.list;)
        if (t->kind == PARAMETER && !is_finite(s, t->grad, t->n, sizeof(float))) return t;
    return NULL;
}

// Maps and vectors of the batch that hold numbers. Statistics follow from them.
static bool is_map(const Setup *s, const Tensor *t)
{
    const Network *n = &s->net;
    return t->kind == ACTIVATION && t->bytes_each > 1 && t->shape[0] == s->batch &&
           t != n->metrics && t != n->grad_norm;
}

static const Tensor *first_activation(const Setup *s)
{
    const Tensor *end = s->net.tensors.list + s->net.tensors.count;
    for (const Tensor *t = s->net.tensors.list; t < end; t++)
        if (is_map(s, t) && !is_finite(s, t->value, t->n, t->bytes_each)) return t;
    return NULL;
}

enum { PLACE_TEXT = 256 };

static void describe(const Tensor *t, const char *what, char text[static PLACE_TEXT])
{
    char layer[TENSOR_NAME_MAX], shape[64] = "";
    for (int i = 0; i < t->rank && t->kind == ACTIVATION; i++) {
        const size_t used = strlen(shape);
        snprintf(shape + used, sizeof shape - used, "%s%lld", i ? "," : " (",
                 (long long)t->shape[i]);
    }
    tensor_layer(t, layer);
    snprintf(text, PLACE_TEXT, "layer %s, %s %s%s%s", layer, what, t->name, shape,
             *shape ? ")" : "");
}

// In the order of a step: forward, backward, update.
typedef enum { NOWHERE, LOSS, TENSOR } Found;
static Found find_first(const Setup *s, double loss, char text[static PLACE_TEXT])
{
    const Tensor *t;
    if (!isfinite(loss)) {
        if ((t = first_activation(s)))
            describe(t, "activation", text);
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

typedef struct Place {
    Found found;
    char text[PLACE_TEXT];
} Place;

// Of the places that the ranks found by their images, the one that is known best.
static Place best_place(const Comm *c, const Place *own)
{
    Place all[c->ranks];
    c->all_gather(all, own, sizeof *own);
    const Place *best = all;
    for (const Place *p = all; p < all + c->ranks; p++)
        if (p->found > best->found) best = p;
    return *best;
}

bool diverged_look(Divergence *d, const Setup *s, int64_t step)
{
    double m[METRICS];
    Place place = {0};
    network_metrics(&s->net, s->kernels, &s->comm, m);
    place.found = find_first(s, m[METRIC_LOSS], place.text);
    place = best_place(&s->comm, &place);
    if (place.found == NOWHERE) return step < d->step;
    *d = (Divergence){.step = step};
    snprintf(d->what, sizeof d->what, "the loss diverged: not finite first in step %lld, %s",
             (long long)step, place.text);
    return false;
}

void diverged_evaluation(Divergence *d, const Setup *s, double loss)
{
    char place[PLACE_TEXT] = "no weight";
    network_use_average(&s->net, s->kernels); // which is what was evaluated
    const Tensor *t = first_weight(s);
    if (t) describe(t, "the weights", place);
    *d = (Divergence){.step = s->steps};
    snprintf(d->what, sizeof d->what, "the test loss is %g after step %lld; not finite: %s", loss,
             (long long)s->steps, place);
}
