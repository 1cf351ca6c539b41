#include "train/setup.h"

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"
#include "kernels/distributed.h"
#include "train/model_file.h"
#include "base/mounts.h"
#include "base/os.h"
#include "train/profile.h"
#include "kernels/launch_counts.h"

// A default batch leaves at least 25 steps an epoch; one that was asked for is not changed.
static void fit_batch_size(Setup *s)
{
    enum { STEPS_AN_EPOCH = 25, SMALLEST = 16 };
    Options *o = s->options;
    const int64_t n = s->data.n[SPLIT_TRAIN];
    if (!options_given(&s->line, &o->batch_size) && o->batch_size > n / STEPS_AN_EPOCH) {
        o->batch_size = n / STEPS_AN_EPOCH;
        if (o->batch_size < SMALLEST) o->batch_size = n < SMALLEST ? n : SMALLEST;
    }
    if (o->batch_size > n && !o->eval_only)
        die(STATUS_USAGE, "--batch-size %lld is more than the %lld training images of %s; try %lld",
            (long long)o->batch_size, (long long)n, s->data.source,
            (long long)(n < 32 ? n : n / 8));
}

static void share_batch(Setup *s)
{
    const int64_t batch = s->options->batch_size, ranks = s->comm.ranks;
    const int64_t below = batch / ranks * ranks, above = below + ranks;
    s->batch = batch / ranks;
    if (batch % ranks == 0) return;
    if (below == 0)
        die(STATUS_USAGE, "--batch-size %lld cannot be divided among %lld processes; try %lld",
            (long long)batch, (long long)ranks, (long long)above);
    die(STATUS_USAGE, "--batch-size %lld cannot be divided among %lld processes; try %lld or %lld",
        (long long)batch, (long long)ranks, (long long)below, (long long)above);
}

static void open_embedded(Setup *s)
{
    Error e;
    const Trainer *t = s->trainer;
    check(dataset_open_embedded(&s->data, t->embedded.h, t->embedded.w, t->embedded.c,
                                t->embedded.train, t->embedded.test, 1, &e),
          &e);
}

// --help shows the defaults for the data that are named, if they can be had.
static void open_data(Setup *s)
{
    const Options *o = s->options;
    Error e;
    if (s->line.help) {
        if (o->data && dataset_open(&s->data, o->data, false, &e) == STATUS_OK) return;
        dataset_close(&s->data);
        open_embedded(s);
        return;
    }
    if (o->data && on_windows_drive(o->data))
        warn("%s is on a Windows drive, where reading is slow: cp -r '%s' ~/", o->data, o->data);
    if (o->data)
        check(dataset_open(&s->data, o->data, o->verify, &e), &e);
    else if (o->predict)
        s->data = s->line.model.data;
    else
        open_embedded(s);
    check(model_info_apply(&s->line.model, &s->data, &e), &e);
    if (o->eval_only || o->predict) check(model_info_same_input(&s->line.model, &s->data, &e), &e);
}

// Before the device is: the decoder forks. The batch size is set so that the last batch, which is
// as large as the others, has few rows to spare.
static void open_pictures(Setup *s)
{
    enum { BATCH_MAX = 128 };
    Error e;
    Options *o = s->options;
    NamedPictures *p = &s->pictures;
    const int workers = o->threads ? (int)o->threads : os_cpu_count();
    check(named_open(p, o->pictures.item, o->pictures.count, &s->data, workers, &e), &e);
    if (p->decoder.notice) warn("%s", p->decoder.notice);
    const int64_t batches = (p->list.n + BATCH_MAX - 1) / BATCH_MAX;
    if (!options_given(&s->line, &o->batch_size))
        o->batch_size = (p->list.n + batches - 1) / batches;
}

static void set_batch(Setup *s)
{
    Error e;
    const Options *o = s->options;
    if (o->predict)
        open_pictures(s);
    else
        fit_batch_size(s);
    share_batch(s);
    check(options_augment(&s->augment, o->augment, s->data.c, &e), &e);
}

static void set_length(Setup *s)
{
    const Options *o = s->options;
    s->steps_per_epoch =
        s->data.n[SPLIT_TRAIN] / o->batch_size; // the last partial batch is dropped
    // 0.07 * 100 is a little more than 7.
    const double steps = ceil(o->epochs * (double)s->steps_per_epoch * (1 - 1e-12));
    s->steps = o->steps > 0 ? o->steps : (int64_t)steps;
    s->epochs = (double)s->steps / (double)s->steps_per_epoch;
}

// Finite differences need fp32: the self-test checks the operations of another type, and goes on in
// fp32.
static void open_kernels(Setup *s)
{
    Error e;
    KernelsConfig config = {
        .device = s->options->device,
        .dtype = dtype_names[s->options->dtype],
        .threads = (int)s->options->threads,
        .no_graph = !s->options->graph,
        .local_rank = s->comm.local_rank,
    };
    if (s->comm.ranks > 1) { // all ranks ask
        const int threads = comm_threads(&s->comm);
        if (config.threads == 0) config.threads = threads;
    }
    check(kernels_open(&s->kernels, &config, s->note, &e), &e);
    const char *const dtype = kernels_dtype(s->kernels);
    if (!s->options->selftest || strcmp(dtype, "fp32") == 0) return;
    printf("the operations in %s\n", dtype);
    s->failed_operations = kernels_check(s->kernels, false, stdout, NULL);
    printf("the operations and the gradients in fp32\n");
    s->kernels->close();
    config.dtype = "fp32";
    check(kernels_open(&s->kernels, &config, s->note, &e), &e);
}

// All processes must have what one of them would: else they would train something else together.
static void compare_ranks(const Setup *s)
{
    typedef struct Start {
        uint8_t data[sizeof s->data.id];
        int64_t batch, steps, from;
        uint32_t options;
        char device[8], dtype[8];
    } Start;
    const Options *o = s->options;
    Start own, *all = calloc((size_t)s->comm.ranks, sizeof *all);
    if (!all) die(STATUS_IO, "out of memory");
    memset(&own, 0, sizeof own);
    memcpy(own.data, s->data.id, sizeof own.data);
    own.batch = o->batch_size;
    own.steps = s->steps;
    own.from = o->resume ? s->line.checkpoint.step : 0;
    own.options = options_checksum(&s->line);
    snprintf(own.device, sizeof own.device, "%.4s", s->kernels->device);
    snprintf(own.dtype, sizeof own.dtype, "%s", kernels_dtype(s->kernels));
    s->comm.all_gather(all, &own, sizeof own);
    for (int r = 1; r < s->comm.ranks; r++)
        if (memcmp(&all[0], &all[r], sizeof own) != 0)
            die(STATUS_DATA, "rank %d has other data, options, device or checkpoint than rank 0",
                r);
    free(all);
}

static void join_ranks(Setup *s)
{
    Error e;
    Distributed d = {
        .collectives = s->comm.collectives,
        .ranks = s->comm.ranks,
        .sync_norm = s->options->bn == BN_SYNC,
        .trace = s->options->profile,
    };
    compare_ranks(s);
    if (s->kernels->open_collectives)
        check(s->kernels->open_collectives(&d.collectives, &s->comm, &e), &e);
    s->kernels = kernels_distributed(s->kernels, &d);
}

// The feed and the network know what is open by now.
static void declare(Setup *s)
{
    s->feed = (Feed){
        .options = s->options,
        .comm = &s->comm,
        .data = &s->data,
        .kernels = s->kernels,
        .steps_per_epoch = s->steps_per_epoch,
    };
    s->net.average = s->options->ema;
    feed_declare(&s->feed, &s->net.tensors, s->batch);
    network_declare(&s->net);
}

void setup_open(Setup *s, const Trainer *t, const Arg *own, size_t own_count, int argc, char **argv)
{
    Error e;
    os_open_streams();
    os_limit_spinning(argv);
    s->started = os_seconds();
    check(comm_open(&s->comm, &e), &e);
    s->line.rank = s->comm.rank;
    s->line.trainer = t->name;
    s->trainer = t;
    s->options = &s->line.options;
    options_parse(&s->line, own, own_count, argc, argv);
    const Options *o = s->options;
    if (!s->line.help && (o->selftest || o->bench || o->predict || o->speedrun) &&
        s->comm.ranks > 1)
        die(STATUS_USAGE, "%s needs one process; leave out the launcher",
            o->selftest  ? "--selftest"
            : o->bench   ? "--bench"
            : o->predict ? "--predict"
                         : "--speedrun");
    open_data(s);
    t->defaults(&s->line);
    if (s->line.help) options_help(&s->line, t->usage);
    set_batch(s);
    set_length(s);
    open_kernels(s);
    if (o->profile) s->kernels = kernels_profile(s->kernels, tensors_layer, &s->net.tensors);
    if (o->bench) s->kernels = launch_counter(s->kernels);
    if (s->comm.ranks > 1) join_ranks(s);
    declare(s);
}

// ---- planning -----------------------------------------------------------------------------------

const int64_t bench_batches[BENCH_BATCHES] = {32, 128, 512};

typedef enum { GRADIENT, STEP, INFERENCE } Planned;

// Records memory and work of one call of the trainer for `n` images. A function that the trainer
// lacks counts as nothing.
static Plan plan_call(Setup *s, const Kernels **k, Planned what, int64_t n)
{
    Error e;
    Plan plan = {0};
    const Trainer *t = s->trainer;
    s->feed.n = n;
    *k = kernels_plan_begin(s->kernels);
    if (what == GRADIENT && t->gradient) t->gradient();
    if (what == STEP && t->step) t->step(0);
    if (what == INFERENCE && t->infer) t->infer(PLAIN);
    check(kernels_plan_end(&plan, &e), &e);
    *k = s->kernels;
    return plan;
}

// Arenas of parameters beside those of the tensors: averages, and the snapshot of a CPU's run.
static int more_arenas(const Setup *s)
{
    const Options *o = s->options;
    const bool snapshot = !s->kernels->own_memory && !o->selftest && !o->eval_only && !o->predict;
    return (o->ema ? 2 : 0) + (snapshot ? 3 + o->ema : 0);
}

static void allocate(Setup *s)
{
    Error e;
    Network *n = &s->net;
    const Kernels *k = s->kernels;
    check(tensors_allocate(&n->tensors, k, s->options->batch_size, more_arenas(s), &e), &e);
    tensors_fill_buffers(&n->tensors, k);
    if (!s->options->ema) return;
    n->ema = k->alloc(n->tensors.parameter_bytes);
    n->ema_backup = k->alloc(n->tensors.parameter_bytes);
    if (!n->ema || !n->ema_backup)
        die(k->own_memory ? STATUS_DEVICE : STATUS_IO, "%s: out of memory for --ema", k->device);
}

static void check_classes(const Setup *s)
{
    const Options *o = s->options;
    const char *const needs = o->predict               ? "--predict"
                              : o->target_accuracy > 0 ? "--target-accuracy"
                              : o->label_smoothing > 0 ? "--label-smoothing"
                                                       : NULL;
    if (!s->net.logits && needs)
        die(STATUS_USAGE, "%s has no %s: its network knows no classes", s->trainer->name, needs);
}

void setup_plan(Setup *s, const Kernels **k)
{
    Network *n = &s->net;
    const int64_t batch = s->batch, ranks = s->comm.ranks;
    const int64_t last = s->data.n[SPLIT_TEST] % s->options->batch_size;
    const bool trains = !s->options->eval_only && !s->options->predict;
    Error e;
    check_classes(s);
    if (s->options->init) check(model_check(&n->tensors, s->options->init, &e), &e);
    if (trains) n->plan = plan_call(s, k, GRADIENT, batch);
    if (trains) n->operations = plan_call(s, k, STEP, batch).calls;
    for (int i = 0; s->options->bench && i < BENCH_BATCHES; i++)
        if (bench_batches[i] < batch) plan_call(s, k, STEP, bench_batches[i]);
    plan_call(s, k, INFERENCE, batch);
    if (last >= ranks) plan_call(s, k, INFERENCE, last / ranks);
    if (last % ranks > 0) plan_call(s, k, INFERENCE, last / ranks + 1);
    allocate(s);
    if (ranks == 1 || !trains) return;
    Param all[TENSORS_MAX];
    kernels_distributed_gradients(all, tensors_params(&n->tensors, ALL_GROUPS, NULL, all));
    plan_call(s, k, GRADIENT, batch);
}

void setup_weights(Setup *s)
{
    Error e;
    if (s->options->init) check(model_load(&s->net.tensors, s->kernels, s->options->init, &e), &e);
    network_start_average(&s->net, s->kernels);
}

void setup_check_size(const Setup *s, int least, int most)
{
    const Dataset *d = &s->data;
    if (d->h >= least && d->w >= least && d->h <= most && d->w <= most) return;
    die(STATUS_DATA,
        "%s holds images of %dx%d; %s takes %dx%d to %dx%d: prepare them with --size %dx%d",
        d->source, d->h, d->w, s->trainer->name, least, least, most, most, 32, 32);
}

void setup_close(Setup *s)
{
    named_close(&s->pictures);
    checkpoint_close(&s->line.checkpoint);
    if (s->net.ema) s->kernels->release(s->net.ema);
    if (s->net.ema_backup) s->kernels->release(s->net.ema_backup);
    feed_close(&s->feed);
    tensors_release(&s->net.tensors, s->kernels);
    dataset_close(&s->data);
    model_info_free(&s->line.model);
    s->kernels->close();
    comm_close(&s->comm);
}

// ---- steps and epochs ---------------------------------------------------------------------------

StepValues setup_step_values(const Setup *s, int64_t step)
{
    StepValues v = {
        .seed = (uint64_t)s->options->seed,
        .step = (uint32_t)step,
        .epoch = (uint32_t)(step / s->steps_per_epoch),
    };
    v.hyper[HYPER_ONE] = 1.0f;
    // A window of the last 5% of the run, shorter at the start.
    const double window = fmin(1.0 + 0.05 * (double)s->steps, (1.0 + (double)step) / 9.0 + 1.0);
    v.hyper[EMA_SLOT] = (float)(1.0 - 1.0 / window);
    return v;
}

double epochs_done(const Setup *s, int64_t steps)
{
    return (double)steps / (double)s->steps_per_epoch;
}

bool epoch_ends(const Setup *s, int64_t steps)
{
    return steps > 0 && (steps % s->steps_per_epoch == 0 || steps == s->steps);
}

void cross_entropy(const Setup *s, const Kernels *k, const Tensor *logits, const Tensor *labels,
                   const Tensor *dlogits, double smoothing)
{
    const Network *n = &s->net;
    const LossDims d = {s->feed.n, s->data.classes, (float)smoothing, n->logit_scale,
                        n->grad_scale};
    k->softmax_cross_entropy(n->metrics->value, dlogits ? dlogits->value : NULL, logits->value,
                             labels->value, d);
}

void mean_squared_error(const Setup *s, const Kernels *k, const Tensor *y, const Tensor *target,
                        const Tensor *dy)
{
    const Network *n = &s->net;
    const int64_t width = y->n / y->shape[0];
    assert(target->n / target->shape[0] == width && width <= INT_MAX);
    k->mean_squared_error(n->metrics->value, dy ? dy->value : NULL, y->value, target->value,
                          n->grad_scale, (MapDims){s->feed.n, (int)width});
}
