// Gradients are summed in buckets, cut from the end of their arena, where the backward pass begins.
// A bucket starts when its tensors were written as often as the planned step does it.
#include "kernels/distributed.h"

#include <assert.h>
#include <stdlib.h>

#include "base/os.h"

enum { GRADIENTS_MAX = 256, BUCKET = 1 << 18 }; // floats: 1 MiB

typedef struct Bucket {
    float *x;
    int64_t n;
    int first, last;  // gradients
    int writes, done; // of a step; so far
    bool started;
    CommSpan span;
    double began, ended; // sums over the traced steps, from the step's start
} Bucket;

typedef struct Gradient {
    float *x;
    int64_t n;
    int bucket;
    int writes, done; // as above
} Gradient;

static const Kernels *device;
static struct {
    Distributed with;
    Kernels table;
    bool planning, in_step, summed;
    Gradient gradients[GRADIENTS_MAX];
    int count;
    Bucket buckets[GRADIENTS_MAX];
    int bucket_count;
    int channels;    // of the widest norm
    float *gathered; // (ranks,3,channels)
    float *total;    // (channels) a norm's gradient over all ranks
    float *total_weight;
} all;

// Seconds of the traced steps, each from its start.
static struct {
    int64_t begun; // steps; the first is forgotten
    double start, step, backward, wait, norm;
    int64_t norms;
} trace;

// ---- gradients ----------------------------------------------------------------------------------

static Gradient *find(const float *x)
{
    for (int i = 0; i < all.count; i++)
        if (all.gradients[i].x == x) return &all.gradients[i];
    return NULL;
}

static bool is_gradient(const void *p)
{
    if (all.count == 0) return false;
    const Gradient *last = &all.gradients[all.count - 1];
    return (const float *)p >= all.gradients[0].x && (const float *)p < last->x + last->n;
}

static void start(Bucket *b)
{
    for (int i = b->first; i <= b->last; i++)
        if (all.gradients[i].done == 0)
            device->zero(all.gradients[i].x, (size_t)all.gradients[i].n * sizeof(float));
    b->started = true;
    all.with.collectives->all_reduce_start(b->x, b->n, all.with.trace ? &b->span : NULL);
}

// After each operation that writes a gradient; NULL: it did not.
static void written(const float *x)
{
    Gradient *g = x ? find(x) : NULL;
    if (!g) return;
    if (all.planning) {
        g->writes++;
        return;
    }
    if (!all.in_step) return;
    Bucket *b = &all.buckets[g->bucket];
    assert(!b->started && "a gradient is written oftener than planned, or after it was read");
    g->done++;
    if (++b->done == b->writes) start(b);
}

// Before what reads gradients.
static void sum_all(void)
{
    if (!all.in_step || all.planning || all.summed) return;
    const double begun = os_seconds();
    for (int i = 0; i < all.bucket_count; i++)
        if (!all.buckets[i].started) start(&all.buckets[i]);
    all.with.collectives->all_reduce_wait();
    all.summed = true;
    if (!all.with.trace) return;
    device->synchronize();
    trace.backward += begun - trace.start;
    trace.wait += os_seconds() - begun;
}

static void cut_buckets(void)
{
    Bucket *b = NULL;
    all.bucket_count = 0;
    for (int i = all.count - 1; i >= 0; i--) {
        Gradient *g = &all.gradients[i];
        if (!b || b->n >= BUCKET) {
            const float *end = b ? b->x : g->x + g->n;
            b = &all.buckets[all.bucket_count++];
            *b = (Bucket){.n = end - g->x, .last = i};
        } else {
            b->n += b->x - g->x;
        }
        b->x = g->x;
        b->first = i;
        b->writes += g->writes;
        g->bucket = all.bucket_count - 1;
    }
}

void kernels_distributed_gradients(const Param *p, int count)
{
    assert(count <= GRADIENTS_MAX);
    for (int i = 0; i < count; i++) {
        assert(i == 0 || p[i].grad >= p[i - 1].grad + p[i - 1].n);
        all.gradients[i] = (Gradient){.x = p[i].grad, .n = p[i].n};
    }
    all.count = count;
}

static void linear_backward_weight(float *dw, float *dbias, const void *dy, const void *x,
                                   GradMode mode, LinearDims d)
{
    device->linear_backward_weight(dw, dbias, dy, x, mode, d);
    written(dw);
    written(dbias);
}

static void conv2d_backward_weight(float *dw, const void *dy, const void *x, GradMode mode,
                                   ConvDims d)
{
    device->conv2d_backward_weight(dw, dy, x, mode, d);
    written(dw);
}

static void conv2d_pool_backward_weight(float *dw, const void *dy, const uint8_t *argmax,
                                        const void *x, GradMode mode, ConvDims d)
{
    device->conv2d_pool_backward_weight(dw, dy, argmax, x, mode, d);
    written(dw);
}

static void bias_act_backward(void *dz, float *dbias, const void *dy, const void *saved,
                              Activation act, GradMode mode, MapDims d)
{
    device->bias_act_backward(dz, dbias, dy, saved, act, mode, d);
    written(dbias);
}

// ---- batch norm ---------------------------------------------------------------------------------

static bool syncs(int channels)
{
    if (all.planning && channels > all.channels) all.channels = channels;
    return all.with.sync_norm && !all.planning;
}

static double norm_begin(void)
{
    if (!all.with.trace) return 0;
    device->synchronize();
    return os_seconds();
}

static void norm_end(double begun)
{
    if (!all.with.trace) return;
    device->synchronize();
    trace.norm += os_seconds() - begun;
    trace.norms++;
}

static void norm_act_forward(void *y, const Norm *n, const void *x, Activation act, MapDims d)
{
    if (syncs(d.channels)) {
        const double begun = norm_begin();
        all.with.collectives->all_gather(all.gathered, n->stats, 3 * (int64_t)d.channels);
        device->norm_merge(n->stats, all.gathered, all.with.ranks, d.channels);
        norm_end(begun);
    }
    device->norm_act_forward(y, n, x, act, d);
}

// n.sums become those of all ranks.
static void sum_norm(const Norm *n, int channels)
{
    if (!syncs(channels)) return;
    const double begun = norm_begin();
    all.with.collectives->all_reduce(n->sums, 2 * (int64_t)channels);
    norm_end(begun);
}

static void norm_act_backward_sums(const Norm *n, const void *dy, const void *x, Activation act,
                                   MapDims d)
{
    device->norm_act_backward_sums(n, dy, x, act, d);
    sum_norm(n, d.channels);
}

static void conv2d_norm_backward_data(void *dz, const Norm *n, const void *dy, const void *w,
                                      const void *x, Activation act, ConvDims d)
{
    device->conv2d_norm_backward_data(dz, n, dy, w, x, act, d);
    sum_norm(n, d.cin);
}

static void conv2d_pool_norm_backward_data(void *dz, const Norm *n, const void *dy,
                                           const uint8_t *argmax, const void *w, const void *x,
                                           Activation act, ConvDims d)
{
    device->conv2d_pool_norm_backward_data(dz, n, dy, argmax, w, x, act, d);
    sum_norm(n, d.cin);
}

// This rank's share of a gradient that is of all ranks already: it will be summed like the others.
static void share(float *gradient, const float *total, GradMode mode, int channels)
{
    const float part = 1.0f / (float)all.with.ranks;
    if (mode == SET)
        device->scale(gradient, part, HYPER_ONE, total, channels);
    else
        device->axpy(gradient, part, HYPER_ONE, total, channels);
}

static void norm_act_backward(void *dx, const Norm *n, const void *dy, const void *x,
                              Activation act, GradMode mode, MapDims d)
{
    if (syncs(d.channels)) {
        Norm of_all = *n;
        of_all.dbias = all.total;
        of_all.dweight = n->dweight ? all.total_weight : NULL;
        device->norm_act_backward(dx, &of_all, dy, x, act, SET, d);
        share(n->dbias, all.total, mode, d.channels);
        if (n->dweight) share(n->dweight, all.total_weight, mode, d.channels);
    } else {
        device->norm_act_backward(dx, n, dy, x, act, mode, d);
    }
    written(n->dbias);
    written(n->dweight);
}

static int allocate_norms(Error *e)
{
    const size_t channels = (size_t)all.channels * sizeof(float);
    if (!all.with.sync_norm || all.gathered || channels == 0) return STATUS_OK;
    all.gathered = device->alloc((size_t)all.with.ranks * 3 * channels);
    all.total = device->alloc(channels);
    all.total_weight = device->alloc(channels);
    if (all.gathered && all.total && all.total_weight) return STATUS_OK;
    return fail(e, STATUS_IO, "no memory for the statistics of %d processes", all.with.ranks);
}

// ---- what reads gradients -----------------------------------------------------------------------

static void sgd_update(const Param *p, int count, Sgd c)
{
    sum_all();
    device->sgd_update(p, count, c);
}

static void adamw_update(const Param *p, int count, AdamW c)
{
    sum_all();
    device->adamw_update(p, count, c);
}

static void muon_update(const Param *p, int count, Muon c)
{
    sum_all();
    device->muon_update(p, count, c);
}

static void clip_gradients(float *norm, const Param *p, int count, float max_norm)
{
    sum_all();
    device->clip_gradients(norm, p, count, max_norm);
}

static void copy(void *dst, const void *src, size_t bytes)
{
    if (is_gradient(dst) || is_gradient(src)) sum_all();
    device->copy(dst, src, bytes);
}

static void axpy(float *y, float a, int s, const float *x, int64_t n)
{
    if (is_gradient(y) || is_gradient(x)) sum_all();
    device->axpy(y, a, s, x, n);
}

static void scale(float *y, float a, int s, const float *x, int64_t n)
{
    if (is_gradient(y) || is_gradient(x)) sum_all();
    device->scale(y, a, s, x, n);
}

static void multiply(float *y, const float *a, const float *b, int64_t n)
{
    if (is_gradient(y) || is_gradient(a) || is_gradient(b)) sum_all();
    device->multiply(y, a, b, n);
}

static void sqrt_divide(float *y, const float *a, const float *b, float eps, int64_t n)
{
    if (is_gradient(y) || is_gradient(a) || is_gradient(b)) sum_all();
    device->sqrt_divide(y, a, b, eps, n);
}

static void dot(float *result, const float *a, const float *b, int64_t n)
{
    if (is_gradient(a) || is_gradient(b)) sum_all();
    device->dot(result, a, b, n);
}

// ---- control ------------------------------------------------------------------------------------

static int planning(bool on, Error *e)
{
    all.planning = on;
    if (on)
        for (int i = 0; i < all.count; i++) all.gradients[i].writes = 0;
    else
        cut_buckets();
    const int status = device->planning(on, e);
    return status || on ? status : allocate_norms(e);
}

static bool step_begin(int variant, const StepValues *values)
{
    for (int i = 0; i < all.count; i++) all.gradients[i].done = 0;
    for (int i = 0; i < all.bucket_count; i++) {
        all.buckets[i].done = 0;
        all.buckets[i].started = false;
    }
    all.summed = false;
    trace.start = os_seconds();
    return all.in_step = device->step_begin(all.with.trace ? -1 : variant, values);
}

// Not passed on: the sum over the ranks is still to come.
static void update_may_begin(const float *grad)
{
    (void)grad;
}

static void trace_step(void)
{
    trace.step += os_seconds() - trace.start;
    for (int i = 0; i < all.bucket_count; i++) {
        all.buckets[i].began += all.buckets[i].span.began - trace.start;
        all.buckets[i].ended += all.buckets[i].span.ended - trace.start;
    }
    if (trace.begun++ > 0) return;
    trace.step = trace.backward = trace.wait = trace.norm = 0;
    trace.norms = 0;
    for (int i = 0; i < all.bucket_count; i++) all.buckets[i].began = all.buckets[i].ended = 0;
}

static void step_end(void)
{
    sum_all();
    all.in_step = false;
    device->step_end();
    if (all.with.trace) trace_step();
}

static void close_distributed(void)
{
    if (all.gathered) {
        device->release(all.gathered);
        device->release(all.total);
        device->release(all.total_weight);
    }
    all.with.collectives->close();
    device->close();
}

const Kernels *kernels_distributed(const Kernels *k, const Distributed *d)
{
    device = k;
    all.with = *d;
    all.table = *k;
    all.table.planning = planning;
    all.table.step_begin = step_begin;
    all.table.step_end = step_end;
    all.table.update_may_begin = update_may_begin;
    all.table.close = close_distributed;
    all.table.copy = copy;
    all.table.linear_backward_weight = linear_backward_weight;
    all.table.conv2d_backward_weight = conv2d_backward_weight;
    all.table.conv2d_pool_backward_weight = conv2d_pool_backward_weight;
    all.table.bias_act_backward = bias_act_backward;
    all.table.norm_act_forward = norm_act_forward;
    all.table.norm_act_backward_sums = norm_act_backward_sums;
    all.table.norm_act_backward = norm_act_backward;
    all.table.conv2d_norm_backward_data = conv2d_norm_backward_data;
    all.table.conv2d_pool_norm_backward_data = conv2d_pool_norm_backward_data;
    all.table.sgd_update = sgd_update;
    all.table.adamw_update = adamw_update;
    all.table.muon_update = muon_update;
    all.table.clip_gradients = clip_gradients;
    all.table.axpy = axpy;
    all.table.scale = scale;
    all.table.multiply = multiply;
    all.table.sqrt_divide = sqrt_divide;
    all.table.dot = dot;
    return &all.table;
}

// ---- the trace ----------------------------------------------------------------------------------

// The fastest of some times that `exchange` takes alone.
static double alone(void (*exchange)(void))
{
    double least = 1e30;
    for (int i = 0; i < 20; i++) {
        device->synchronize();
        const double begun = os_seconds();
        exchange();
        device->synchronize();
        const double seconds = os_seconds() - begun;
        if (seconds < least) least = seconds;
    }
    return least;
}

static void last_bucket(void)
{
    const Bucket *b = &all.buckets[all.bucket_count - 1];
    all.with.collectives->all_reduce_start(b->x, b->n, NULL);
    all.with.collectives->all_reduce_wait();
}

static void one_norm(void)
{
    all.with.collectives->all_reduce(all.total, all.channels);
}

void kernels_distributed_print(FILE *f)
{
    if (trace.begun < 2) return;
    const double steps = (double)(trace.begun - 1), ms = 1e3 / steps;
    const double floor_gradients = 1e3 * alone(last_bucket);
    const double norms = (double)trace.norms / steps;
    const double floor_norms = norms > 0 ? 1e3 * norms * alone(one_norm) : 0;
    const double step = ms * trace.step, exposed = ms * (trace.wait + trace.norm);
    fprintf(f, "exchange between %d processes, ms from the start of a step of %.4f ms\n",
            all.with.ranks, step);
    fprintf(f, "%-27s %9s %9s %9s\n", "gradients", "MB", "begins", "ends");
    for (int i = 0; i < all.bucket_count; i++) {
        const Bucket *b = &all.buckets[i];
        fprintf(f, "bucket %-20d %9.3f %9.4f %9.4f\n", i + 1, (double)b->n * 4e-6, ms * b->began,
                ms * b->ended);
    }
    fprintf(f, "%-27s %9s %9s %9.4f\n", "backward pass", "", "", ms * trace.backward);
    fprintf(f, "%-27s %9s %9s %9s\n", "waits", "calls", "ms/step", "floor");
    fprintf(f, "%-27s %9d %9.4f %9.4f\n", "for gradients", 1, ms * trace.wait, floor_gradients);
    fprintf(f, "%-27s %9.3g %9.4f %9.4f\n", "for batch norm", norms, ms * trace.norm, floor_norms);
    fprintf(f, "exposed  %.2f%% of the step, floor %.2f%%\n", 100 * exposed / step,
            100 * (floor_gradients + floor_norms) / step);
}
