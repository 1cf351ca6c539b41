#include "train/evaluate.h"

#include <math.h>
#include <stdlib.h>

#include "base/os.h"

enum { READ_EVERY = 64 }; // batches: fp32 counts stay exact

typedef struct TestPass {
    Setup *s;
    Loader *loader;
    int64_t batches;       // loaded so far
    float before[METRICS]; // the metrics of training steps that are not logged yet
    double sums[METRICS];
    double began;
} TestPass;

// Batch norm of each rank's own rows leaves each rank running statistics of its own: rank 0's hold.
static void share_buffers(const Setup *s)
{
    const Tensors *all = &s->net.tensors;
    for (const Tensor *t = all->list; t < all->list + all->count; t++) {
        if (t->kind != BUFFER) continue;
        const size_t bytes = (size_t)t->n * sizeof(float);
        float *host = malloc(bytes);
        if (!host) die(STATUS_IO, "out of memory for %s", t->name);
        s->kernels->download(host, t->master, bytes);
        s->comm.broadcast(host, bytes);
        tensor_upload(t, s->kernels, host);
        free(host);
    }
}

static TestPass begin(Setup *s)
{
    TestPass t = {.s = s, .began = os_seconds()};
    network_use_average(&s->net, s->kernels);
    if (s->comm.ranks > 1 && s->options->bn == BN_LOCAL) share_buffers(s);
    s->kernels->download(t.before, s->net.metrics->value, sizeof t.before);
    s->kernels->zero(s->net.metrics->value, sizeof t.before);
    if (s->predictions && !os_stop_signal()) s->predictions->done = 0; // else the last ones stay
    t.loader = feed_test_batches(&s->feed);
    return t;
}

static void read_sums(TestPass *t)
{
    float m[METRICS];
    const Kernels *k = t->s->kernels;
    k->download(m, t->s->net.metrics->value, sizeof m);
    k->zero(t->s->net.metrics->value, sizeof m);
    for (int i = 0; i < METRICS; i++) t->sums[i] += (double)m[i];
}

static void take_predictions(const Setup *s)
{
    const Network *n = &s->net;
    Predictions *p = s->predictions;
    const int64_t count = s->feed.n * s->data.classes;
    s->kernels->synchronize(); // so that the network's own time is not counted
    const double began = os_seconds();
    s->kernels->download(p->logits, n->logits->value, (size_t)count * sizeof(float));
    predictions_add(p, p->logits, s->feed.n, n->logit_scale);
    p->seconds += os_seconds() - began;
}

// Brings the next batch to the device. False after the last one, or when a signal asks to stop.
static bool next(TestPass *t)
{
    Error e;
    Batch b = {0};
    if (t->batches > 0 && t->s->predictions) take_predictions(t->s);
    if (t->batches > 0 && t->batches % READ_EVERY == 0) read_sums(t);
    while (!os_stop_signal()) {
        check(loader_next(t->loader, &b, &e), &e);
        if (b.index < 0) return false;
        t->batches++;
        if (b.n == 0) continue; // other ranks have the last images
        feed_load(&t->s->feed, SPLIT_TEST, &b);
        return true;
    }
    return false;
}

static Evaluation end(TestPass *t)
{
    Setup *s = t->s;
    struct {
        double sums[METRICS];
        int stop;
    } own = {0}, all[s->comm.ranks];
    read_sums(t);
    loader_close(t->loader);
    s->kernels->upload(s->net.metrics->value, t->before, sizeof t->before);
    network_use_weights(&s->net, s->kernels);
    for (int i = 0; i < METRICS; i++) own.sums[i] = t->sums[i];
    own.stop = os_stop_signal();
    s->comm.all_gather(all, &own, sizeof own);
    double loss = 0, correct = 0;
    for (int r = 0; r < s->comm.ranks; r++) {
        loss += all[r].sums[METRIC_LOSS];
        correct += all[r].sums[METRIC_CORRECT];
        if (all[r].stop) s->comm.stop = all[r].stop;
    }
    const double n = (double)s->data.n[SPLIT_TEST], seconds = os_seconds() - t->began;
    if (s->comm.stop) return (Evaluation){NAN, NAN, false, seconds};
    return (Evaluation){loss / n, network_accuracy(&s->net, correct, n), true, seconds};
}

Evaluation evaluate(Setup *s, Infer *infer, Views views)
{
    TestPass t = begin(s);
    while (next(&t)) (*infer)(views);
    return end(&t);
}
