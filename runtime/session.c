#include "runtime/session.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"
#include "kernels/distributed.h"
#include "runtime/diverged.h"
#include "runtime/model_file.h"
#include "runtime/mounts.h"
#include "runtime/os.h"
#include "runtime/predict.h"
#include "runtime/report.h"
#include "runtime/resume.h"
#include "timing/count.h"
#include "timing/report.h"

// ---- opening ------------------------------------------------------------------------------------

// A default batch leaves at least 25 steps an epoch; one that was asked for is not changed.
static void fit_batch_size(Session *s)
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

static void share_batch(Session *s)
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

static void open_data(Session *s)
{
    const Options *o = s->options;
    const Program *p = s->program;
    Error e;
    if (o->data && on_windows_drive(o->data))
        warn("%s is on a Windows drive, where reading is slow: cp -r '%s' ~/", o->data, o->data);
    if (o->data)
        check(dataset_open(&s->data, o->data, o->verify, &e), &e);
    else if (o->predict)
        s->data = s->line.model.data;
    else
        dataset_open_embedded(&s->data, p->h, p->w, p->c, p->n_train, p->n_test, 1);
    check(model_info_apply(&s->line.model, &s->data, &e), &e);
    if (o->predict)
        predict_open(s);
    else
        fit_batch_size(s);
    share_batch(s);
    check(options_augment(&s->augment, o->augment, s->data.c, &e), &e);
}

static void set_length(Session *s)
{
    const Options *o = s->options;
    s->steps_per_epoch =
        s->data.n[SPLIT_TRAIN] / o->batch_size; // the last partial batch is dropped
    // 0.07 * 100 is a little more than 7.
    const double steps = ceil(o->epochs * (double)s->steps_per_epoch * (1 - 1e-12));
    s->steps = o->steps > 0 ? o->steps : (int64_t)steps;
    s->epochs = (double)s->steps / (double)s->steps_per_epoch;
    s->step = -1;
    s->saved_step = -1;
    s->best_accuracy = -1;
}

static void declare_feed(Session *s)
{
    const int64_t batch = s->batch;
    Tensors *t = &s->tensors;
    s->feed.images =
        workspace(t, SHAPE(batch, s->data.h, s->data.w, s->data.c), sizeof(uint8_t), "feed.images");
    s->feed.labels = workspace(t, SHAPE(batch), sizeof(int32_t), "feed.labels");
    s->feed.ids = workspace(t, SHAPE(batch), sizeof(uint32_t), "feed.ids");
    s->feed.n = batch;
    s->metrics = workspace(t, SHAPE(METRICS), sizeof(float), "loss.metrics");
    s->grad_norm = workspace(t, SHAPE(1), sizeof(float), "update.grad_norm");
}

// Finite differences need fp32: the self-test checks the operations of another type, and goes on in
// fp32.
static void open_kernels(Session *s)
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
static void compare_ranks(const Session *s)
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

static void join_ranks(Session *s)
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

void session_open(Session *s, const Program *p, const Arg *own, size_t own_count, int argc,
                  char **argv)
{
    Error e;
    os_open_streams();
    os_limit_spinning(argv);
    s->started = os_seconds();
    check(comm_open(&s->comm, &e), &e);
    s->line.rank = s->comm.rank;
    s->line.trainer = p->name;
    s->program = p;
    s->trained_groups = ALL_GROUPS;
    s->options = &s->line.options;
    options_parse(&s->line, own, own_count, p->usage, p->defaults, argc, argv);
    const Options *o = s->options;
    if ((o->selftest || o->bench || o->predict || o->speedrun) && s->comm.ranks > 1)
        die(STATUS_USAGE, "%s needs one process; leave out the launcher",
            o->selftest  ? "--selftest"
            : o->bench   ? "--bench"
            : o->predict ? "--predict"
                         : "--speedrun");
    open_data(s);
    set_length(s);
    if (s->options->resume) resume_check(s);
    open_kernels(s);
    if (s->options->profile) s->kernels = kernels_profile(s->kernels, tensors_layer, &s->tensors);
    if (s->options->bench) s->kernels = timing_count(s->kernels);
    if (s->comm.ranks > 1) join_ranks(s);
    declare_feed(s);
}

static Plan plan_one(Session *s, const Kernels **k, ModelFunction function, void *model, int64_t n)
{
    Error e;
    Plan plan;
    s->feed.n = n;
    *k = kernels_plan_begin(s->kernels);
    function(model);
    check(kernels_plan_end(&plan, &e), &e);
    *k = s->kernels;
    return plan;
}

// What a run takes of the device's memory beside its tensors, in arenas of parameters: averages,
// and the snapshot of a CPU's run.
static int more_arenas(const Session *s)
{
    const Options *o = s->options;
    const bool snapshot = !s->kernels->own_memory && !o->selftest && !o->eval_only && !o->predict;
    return (o->ema ? 2 : 0) + (snapshot ? 3 + o->ema : 0);
}

void session_plan(Session *s, const Kernels **k, ModelFunction gradient, ModelFunction step,
                  ModelFunction infer, void *model)
{
    Error e;
    const int64_t batch = s->batch, ranks = s->comm.ranks;
    const int64_t last = s->data.n[SPLIT_TEST] % s->options->batch_size;
    s->infer = infer;
    s->model = model;
    s->plan = plan_one(s, k, gradient, model, batch);
    s->operations = plan_one(s, k, step, model, batch).calls;
    for (int i = 0; s->options->bench && i < TIMING_BATCHES; i++)
        if (timing_batches[i] < batch) plan_one(s, k, step, model, timing_batches[i]);
    plan_one(s, k, infer, model, batch);
    if (last >= ranks) plan_one(s, k, infer, model, last / ranks);
    if (last % ranks > 0) plan_one(s, k, infer, model, last / ranks + 1);
    check(tensors_allocate(&s->tensors, s->kernels, s->options->batch_size, more_arenas(s), &e),
          &e);
    if (s->options->ema) {
        s->ema = s->kernels->alloc(s->tensors.parameter_bytes);
        s->ema_backup = s->kernels->alloc(s->tensors.parameter_bytes);
        if (!s->ema || !s->ema_backup)
            die(s->kernels->own_memory ? STATUS_DEVICE : STATUS_IO, "%s: out of memory for --ema",
                s->kernels->device);
    }
    tensors_fill_buffers(&s->tensors, s->kernels);
    if (ranks == 1) return;
    Param all[TENSORS_MAX];
    kernels_distributed_gradients(all, tensors_params(&s->tensors, ALL_GROUPS, NULL, all));
    plan_one(s, k, gradient, model, batch);
}

// ---- batches ------------------------------------------------------------------------------------

void feed_gather(const Feed *f, const Kernels *k, const Dataset *d, const Tensor *x,
                 const Tensor *labels, Augment augment)
{
    GatherDims dims = {.n = f->n, .h = d->h, .w = d->w, .c = d->c};
    memcpy(dims.mean, d->mean, sizeof dims.mean);
    memcpy(dims.std, d->std, sizeof dims.std);
    if (f->set)
        k->gather(x->value, labels->value, f->set->images, f->set->labels, f->ids->value,
                  f->ids->value, dims, augment);
    else
        k->gather(x->value, labels->value, f->images->value, f->labels->value, f->ids->value, NULL,
                  dims, augment);
}

// Whether the device reads the split where it stays. It is brought there when first asked for.
static bool on_device(Session *s, Split split)
{
    Error e;
    if (!s->options->resident) return false;
    check(device_data_load(&s->sets[split], s->kernels, &s->data, split, &e), &e);
    return s->sets[split].images != NULL;
}

void feed_load(Session *s, Split split, const Batch *b)
{
    const Kernels *k = s->kernels;
    const size_t stride = (size_t)s->data.h * (size_t)s->data.w * (size_t)s->data.c;
    s->feed.n = b->n;
    s->feed.set = b->images ? NULL : &s->sets[split];
    if (b->images) {
        k->upload(s->feed.images->value, b->images, (size_t)b->n * stride);
        k->step_upload(s->feed.labels->value, b->labels, (size_t)b->n * sizeof(int32_t));
    }
    k->step_upload(s->feed.ids->value, b->ids, (size_t)b->n * sizeof(uint32_t));
}

static Loader *open_loader(Session *s, LoaderConfig c)
{
    Error e;
    Loader *l;
    c.seed = (uint64_t)s->options->seed;
    c.rank = s->comm.rank;
    c.ranks = s->comm.ranks;
    c.ids_only = on_device(s, c.split);
    check(loader_open(&l, &s->data, &c, &e), &e);
    return l;
}

void session_load_fixed(Session *s, int64_t n)
{
    Error e;
    Batch b;
    Loader *l = open_loader(s, (LoaderConfig){.split = SPLIT_TRAIN, .batch = n});
    check(loader_next(l, &b, &e), &e);
    feed_load(s, SPLIT_TRAIN, &b);
    loader_close(l);
}

void session_open_loader(Session *s)
{
    Error e;
    const Options *o = s->options;
    const int64_t done = s->step + 1;
    const LoaderConfig c = {
        .split = SPLIT_TRAIN,
        .batch = o->batch_size,
        .shuffle = o->shuffle,
        .drop_last = true,
        .repeat = true,
        .first_epoch = done / s->steps_per_epoch,
        .first_batch = done % s->steps_per_epoch,
    };
    loader_close(s->loader);
    s->loader = open_loader(s, c);
    check(loader_next(s->loader, &s->first, &e), &e);
    s->wait_at_log = loader_wait_seconds(s->loader);
}

static bool save_is_due(const Session *s)
{
    const int64_t done = s->step + 1, every = s->options->save_every;
    if (done == s->saved_step || s->search_end || s->options->bench) return false;
    return s->stop || done == s->steps || (done > 0 && every > 0 && done % every == 0) ||
           (done > 0 && every == 0 && session_epoch_done(s));
}

void session_metrics(const Session *s, double m[static METRICS])
{
    float own[METRICS], all[s->comm.ranks][METRICS];
    s->kernels->download(own, s->metrics->value, sizeof own);
    s->comm.all_gather(all, own, sizeof own);
    for (int i = 0; i < METRICS; i++) m[i] = 0;
    for (int r = 0; r < s->comm.ranks; r++)
        for (int i = 0; i < METRICS; i++) m[i] += (double)all[r][i];
}

// Statistics of --bn local, and memory that is short, are a rank's own.
static bool one_rank_has(const Session *s, bool own)
{
    bool all[s->comm.ranks], any = false;
    s->comm.all_gather(all, &own, sizeof own);
    for (int r = 0; r < s->comm.ranks; r++) any |= all[r];
    return any;
}

// Only a finite state replaces an older one.
static void save(Session *s)
{
    double m[METRICS];
    session_metrics(s, m);
    if (!isfinite(m[METRIC_LOSS]))
        diverged(s, "the loss is not finite");
    else if (one_rank_has(s, diverged_weights(s)))
        diverged(s, "a weight is not finite");
    else
        resume_save(s, m);
}

bool session_next(Session *s)
{
    const int voted = s->comm.vote(os_stop_signal());
    if (!s->stop) s->stop = voted; // an evaluation may have agreed on it before
    if (save_is_due(s)) save(s);
    if (s->stop && s->search_end) diverged(s, "the loss is not finite");
    if (s->step + 1 >= s->steps || s->stop) return false;
    Error e;
    Batch b = s->first;
    s->first.n = 0;
    if (b.n == 0) check(loader_next(s->loader, &b, &e), &e);
    feed_load(s, SPLIT_TRAIN, &b);
    s->step++;
    s->evaluated = false;
    return true;
}

// ---- the run ------------------------------------------------------------------------------------

// Of the arenas.
static double device_bytes(const Session *s)
{
    const int averages = s->options->ema ? 2 : 0;
    return (double)tensors_bytes(&s->tensors, s->kernels, averages);
}

static void print_banner(const Session *s)
{
    const Dataset *d = &s->data;
    const Kernels *k = s->kernels;
    if (s->note[0]) printf("note     %s\n", s->note);
    printf("network  %s: %.3g M parameters, %.3g MFLOP an image\n", s->network,
           (double)tensors_parameter_count(&s->tensors) / 1e6,
           s->plan.flop / (double)s->batch / 1e6);
    printf("data     %s: %d classes, %lld + %lld images of %dx%dx%d\n",
           d->embedded ? "embedded drawings" : d->source, d->classes, (long long)d->n[SPLIT_TRAIN],
           (long long)d->n[SPLIT_TEST], d->h, d->w, d->c);
    if (d->embedded)
        printf("         (for real ones: make data/prepare && ./data/prepare --help)\n");
    printf("device   %s, %s, %.0f MB\n", k->description, kernels_dtype(k), device_bytes(s) / 1e6);
    if (s->comm.ranks > 1)
        printf("ranks    %d of %lld images a step, %d on this machine\n", s->comm.ranks,
               (long long)s->batch, s->comm.local_ranks);
    printf("run      %s: %lld steps of %lld images, %.4g epochs\n", rundir_name(s->run),
           (long long)s->steps, (long long)s->options->batch_size, s->epochs);
    if (s->options->report) printf("report   %s/report.html, as it goes\n", rundir_name(s->run));
    if (s->options->resume) printf("resume   after step %lld\n", (long long)s->step + 1);
}

// What run.json and summary.json both say.
static void write_network(const Session *s, Json *j)
{
    json_string(j, "trainer", s->program->name);
    json_string(j, "network", s->network);
    json_int(j, "parameters", tensors_parameter_count(&s->tensors));
    json_rounded(j, "flop_per_image", s->plan.flop / (double)s->batch, 6);
}

static void write_setup(const Session *s, Json *j)
{
    json_int(j, "seed", s->options->seed);
    json_string(j, "device", s->kernels->description);
    json_string(j, "device_kind", s->kernels->device);
    json_string(j, "dtype", kernels_dtype(s->kernels));
    json_string(j, "platform", os_platform());
    json_string(j, "data", s->data.source);
    json_string(j, "compiler", __VERSION__);
    json_int(j, "ranks", s->comm.ranks);
}

static void write_options(const Session *s, Json *j)
{
    json_object(j, "options");
    args_json(s->line.table, s->line.count, j);
    json_end(j);
}

static int write_start(const Session *s, Error *e)
{
    Json j = {0};
    char started[OS_TIMESTAMP_SIZE];
    os_timestamp(started);
    json_object(&j, NULL);
    json_string(&j, "started", started);
    write_network(s, &j);
    json_int(&j, "planned_steps", s->steps);
    json_rounded(&j, "planned_epochs", s->epochs, 6);
    write_setup(s, &j);
    write_options(s, &j);
    json_end(&j);
    int status = json_finish(&j, e);
    if (status == STATUS_OK) status = rundir_write(s->run, "run.json", &j, e);
    json_free(&j);
    return status;
}

static void open_run(Session *s)
{
    Error e;
    const Options *o = s->options;
    if (s->comm.rank > 0) return;
    if (o->resume) {
        check(rundir_reopen(&s->run, o->resume, s->step + 1, s->evaluated, o->quiet, &e), &e);
        checkpoint_clean(o->resume, s->step + 1);
    } else {
        check(rundir_open(&s->run, o->out, s->program->name, o->quiet, &e), &e);
        check(write_start(s, &e), &e);
    }
}

static void begin_new(Session *s)
{
    Error e;
    if (s->ema) s->kernels->copy(s->ema, s->tensors.master, s->tensors.parameter_bytes);
    s->kernels->zero(s->metrics->value, METRICS * sizeof(float));
    check(snapshot_allocate(&s->snapshot, &s->tensors, s->ema != NULL, &e), &e);
    snapshot_take(&s->snapshot, &s->tensors, s->kernels, s->ema);
}

// Rank 0's state to all: initial weights may differ in their last bits where processors differ.
static void share_state(const Session *s)
{
    const size_t bytes = s->tensors.parameter_bytes;
    s->comm.broadcast(s->snapshot.master, bytes);
    s->comm.broadcast(s->snapshot.state1, bytes);
    s->comm.broadcast(s->snapshot.state2, bytes);
    if (s->ema) s->comm.broadcast(s->snapshot.ema, bytes);
    snapshot_restore(&s->snapshot, &s->tensors, s->kernels, s->ema);
}

void session_begin(Session *s)
{
    session_open_loader(s);
    if (!s->options->resume) begin_new(s);
    if (s->comm.ranks > 1) share_state(s); // all have read the checkpoint, too
    open_run(s);
    if (s->run && !s->options->quiet) print_banner(s);
    fflush(stdout);
    os_catch_stop_signals();
    report_open(s);
    s->resumed_seconds = s->train_seconds;
    s->start_seconds = os_seconds() - s->started;
    s->first_step = s->step + 1;
    s->progress = (Progress){
        .step = s->step + 1,
        .steps = s->steps,
        .epoch = session_epoch(s),
        .epochs = s->epochs,
        .loss = NAN,
        .train_accuracy = NAN,
        .images_per_s = NAN,
        .data_wait = NAN,
        .seconds_left = NAN,
        .memory_bytes = NAN,
    };
    rundir_begin(s->run, &s->progress);
    s->log_time += os_seconds(); // since the last log before the checkpoint
    const bool stopped_before = s->step >= 0 && session_epoch_done(s) && !s->evaluated;
    if (stopped_before) session_test(s, s->infer, s->model);
}

StepValues session_values(const Session *s)
{
    StepValues v = {
        .seed = (uint64_t)s->options->seed,
        .step = (uint32_t)s->step,
        .epoch = (uint32_t)(s->step / s->steps_per_epoch),
    };
    v.hyper[HYPER_ONE] = 1.0f;
    // A window of the last 5% of the run, shorter at the start.
    const double window = fmin(1.0 + 0.05 * (double)s->steps, (1.0 + (double)s->step) / 9.0 + 1.0);
    v.hyper[EMA_SLOT] = (float)(1.0 - 1.0 / window);
    return v;
}

void session_ema(const Session *s, const Kernels *k)
{
    if (s->options->ema)
        k->ema_update(s->ema, s->tensors.master, EMA_SLOT, s->tensors.arena_floats);
}

// Every step of a short run, about 500 lines of a long one: reading the loss waits for the device.
static bool logs_now(const Session *s)
{
    const int64_t every = s->steps / 500 > 1 ? s->steps / 500 : 1;
    return (s->step + 1) % every == 0 || session_epoch_done(s);
}

static void read_metrics(Session *s, double *loss, double *accuracy, int64_t images)
{
    double m[METRICS];
    session_metrics(s, m);
    s->kernels->zero(s->metrics->value, METRICS * sizeof(float));
    *loss = m[METRIC_LOSS] / (double)images;
    *accuracy = m[METRIC_CORRECT] / (double)images;
}

// With the loss and the rates of the last line of the log.
static void show_progress(Session *s)
{
    Progress *p = &s->progress;
    const double seconds = os_seconds() - s->started - s->start_seconds;
    p->step = s->step + 1;
    p->epoch = session_epoch(s);
    p->seconds_left = seconds / (double)(p->step - s->first_step) * (double)(s->steps - p->step);
    p->memory_bytes = s->kernels->own_memory ? device_bytes(s) : (double)os_memory_peak();
    rundir_progress(s->run, p);
}

void session_step_done(Session *s, double lr)
{
    if (s->search_end) {
        diverged_look(s);
        return;
    }
    s->images_since_log += s->options->batch_size;
    if (s->first_step_seconds == 0) {
        s->kernels->synchronize();
        s->first_step_seconds = os_seconds() - s->started;
    }
    if (!logs_now(s)) {
        show_progress(s);
        return;
    }
    double loss;
    read_metrics(s, &loss, &s->progress.train_accuracy, s->images_since_log);
    const int64_t done = s->step + 1;
    if (!isfinite(loss)) {
        diverged(s, "the loss is not finite");
        return;
    }
    const double seconds = os_seconds() - s->log_time;
    const int64_t steps = s->images_since_log / s->options->batch_size;
    s->train_seconds += seconds;
    s->progress.images_per_s = (double)s->images_since_log / seconds;
    const double wait = loader_wait_seconds(s->loader) - s->wait_at_log;
    const StepLog log = {
        .step = done,
        .epoch = session_epoch(s),
        .loss = loss,
        .lr = lr,
        .train_accuracy = s->progress.train_accuracy,
        .step_ms = 1e3 * seconds / (double)steps,
        .images_per_s = s->progress.images_per_s,
        .data_wait_ms = 1e3 * wait / (double)steps,
    };
    rundir_log_step(s->run, &log);
    s->progress.loss = loss;
    s->progress.data_wait = wait / seconds;
    show_progress(s);
    report_update(s, false);
    s->images_since_log = 0;
    s->wait_at_log = loader_wait_seconds(s->loader);
    s->log_time = os_seconds();
}

double session_epoch(const Session *s)
{
    return (double)(s->step + 1) / (double)s->steps_per_epoch;
}

bool session_epoch_done(const Session *s)
{
    return (s->step + 1) % s->steps_per_epoch == 0 || s->step + 1 == s->steps;
}

// ---- evaluation ---------------------------------------------------------------------------------

static void use_average(Session *s)
{
    const Kernels *k = s->kernels;
    k->copy(s->ema_backup, s->tensors.master, s->tensors.parameter_bytes);
    k->copy(s->tensors.master, s->ema, s->tensors.parameter_bytes);
    tensors_refresh(&s->tensors, k);
}

static void use_weights(Session *s)
{
    s->kernels->copy(s->tensors.master, s->ema_backup, s->tensors.parameter_bytes);
    tensors_refresh(&s->tensors, s->kernels);
}

// This rank's images; NAN as the loss after a signal to stop.
static void evaluate_share(Session *s, ModelFunction infer, void *model,
                           double sums[static METRICS])
{
    enum { READ_EVERY = 64 }; // batches: fp32 counts stay exact
    Error e;
    Batch b;
    report_test_begins(s);
    Loader *l =
        open_loader(s, (LoaderConfig){.split = SPLIT_TEST, .batch = s->options->batch_size});
    for (int64_t i = 0; !os_stop_signal(); i++) {
        check(loader_next(l, &b, &e), &e);
        if (b.n > 0) {
            feed_load(s, SPLIT_TEST, &b);
            infer(model);
            report_test_batch(s, b.n);
        }
        if (b.index >= 0 && (i + 1) % READ_EVERY != 0) continue;
        float m[METRICS];
        s->kernels->download(m, s->metrics->value, sizeof m);
        s->kernels->zero(s->metrics->value, sizeof m);
        for (int j = 0; j < METRICS; j++) sums[j] += (double)m[j];
        if (b.index < 0) break;
    }
    loader_close(l);
    if (os_stop_signal()) sums[METRIC_LOSS] = (double)NAN;
}

// Batch norm of each rank's own rows leaves each rank running statistics of its own: rank 0's hold.
static void share_buffers(const Session *s)
{
    for (int i = 0; i < s->tensors.count; i++) {
        const Tensor *t = &s->tensors.list[i];
        if (t->kind != BUFFER) continue;
        float *host = malloc((size_t)t->n * sizeof *host);
        if (!host) die(STATUS_IO, "out of memory for %s", t->name);
        tensor_download(t, s->kernels, host);
        s->comm.broadcast(host, (size_t)t->n * sizeof *host);
        tensor_upload(t, s->kernels, host);
        free(host);
    }
}

Evaluation session_evaluate(Session *s, ModelFunction infer, void *model)
{
    float before[METRICS]; // of the training steps not yet logged
    struct {
        double sums[METRICS];
        int stop;
    } own = {0}, all[s->comm.ranks];
    if (s->comm.ranks > 1 && s->options->bn == BN_LOCAL) share_buffers(s);
    s->kernels->download(before, s->metrics->value, sizeof before);
    s->kernels->zero(s->metrics->value, sizeof before);
    evaluate_share(s, infer, model, own.sums);
    s->kernels->upload(s->metrics->value, before, sizeof before);
    own.stop = os_stop_signal();
    s->comm.all_gather(all, &own, sizeof own);
    double loss = 0, correct = 0;
    for (int r = 0; r < s->comm.ranks; r++) {
        loss += all[r].sums[METRIC_LOSS];
        correct += all[r].sums[METRIC_CORRECT];
        if (all[r].stop) s->stop = all[r].stop;
    }
    if (s->stop) return (Evaluation){NAN, NAN};
    const double n = (double)s->data.n[SPLIT_TEST];
    return (Evaluation){loss / n, correct / n};
}

// While the average is in use.
static void keep_best(Session *s, Evaluation result)
{
    Error e;
    char path[PATH_MAX];
    if (!isfinite(result.loss) || !(result.accuracy > s->best_accuracy)) return;
    if (s->run) {
        rundir_path(s->run, "best.safetensors", path);
        check(session_save_model(s, path, &e), &e);
    }
    s->best_accuracy = result.accuracy;
    s->best_step = s->step + 1;
}

void session_test(Session *s, ModelFunction infer, void *model)
{
    if (s->search_end) return;
    const double began = os_seconds(), report = report_seconds(s);
    if (s->step >= s->first_step) report_step(s); // not where a stopped run only evaluates now
    if (s->ema) use_average(s);
    const Evaluation result = session_evaluate(s, infer, model);
    keep_best(s, result);
    if (s->ema) use_weights(s);
    const EvalLog log = {
        .step = s->step + 1,
        .epoch = session_epoch(s),
        .test_loss = result.loss,
        .test_accuracy = result.accuracy,
    };
    s->evaluated = !isnan(result.loss) || !s->stop;
    if (s->evaluated) rundir_log_eval(s->run, &log);
    report_update(s, true);
    s->evaluate_seconds += os_seconds() - began - (report_seconds(s) - report);
    s->log_time += os_seconds() - began; // training time leaves evaluation out
}

// ---- the end ------------------------------------------------------------------------------------

int session_save_model(Session *s, const char *path, Error *e)
{
    Json options = {0};
    const ModelSave save = {
        .trainer = s->program->name,
        .network = s->network,
        .options = &options,
        .data = &s->data,
    };
    int status = options_network_json(&s->line, &options, e);
    if (status == STATUS_OK) status = model_info_save(&save, &s->tensors, s->kernels, path, e);
    json_free(&options);
    return status;
}

// Of this process: a run that was continued began in another one.
static void write_seconds(const Session *s, Json *j)
{
    const double wait = loader_wait_seconds(s->loader);
    json_object(j, "seconds");
    json_rounded(j, "start", s->start_seconds, 6);
    json_rounded(j, "compute", fmax(s->train_seconds - s->resumed_seconds - wait, 0), 6);
    json_rounded(j, "data_wait", wait, 6);
    json_rounded(j, "evaluate", s->evaluate_seconds, 6);
    json_rounded(j, "save", s->save_seconds, 6);
    json_rounded(j, "report", report_seconds(s), 6);
    json_end(j);
}

int session_summary(const Session *s, Json *j, Error *e)
{
    json_object(j, NULL);
    write_network(s, j);
    json_rounded(j, "test_accuracy", s->last.accuracy, 6);
    json_rounded(j, "test_loss", s->last.loss, 6);
    if (s->best_accuracy >= 0) {
        json_rounded(j, "best_test_accuracy", s->best_accuracy, 6);
        json_int(j, "best_step", s->best_step);
    }
    json_int(j, "steps", s->step + 1);
    json_rounded(j, "epochs", session_epoch(s), 6);
    json_rounded(j, "train_seconds", s->train_seconds, 6);
    json_rounded(j, "total_seconds", os_seconds() - s->started, 6);
    json_rounded(j, "first_step_seconds", s->first_step_seconds, 6);
    json_rounded(j, "images_per_s",
                 (double)((s->step + 1) * s->options->batch_size) / s->train_seconds, 6);
    json_rounded(j, "loader_wait_seconds", loader_wait_seconds(s->loader), 6);
    write_seconds(s, j);
    json_int(j, "peak_memory_bytes", os_memory_peak());
    write_setup(s, j);
    if (s->stop) json_int(j, "stopped_by_signal", s->stop);
    write_options(s, j);
    json_end(j);
    return json_finish(j, e);
}

static int finish_run(Session *s, Error *e)
{
    Json summary = {0};
    char state[64] = "Finished";
    if (s->stop) snprintf(state, sizeof state, "Stopped by signal %d", s->stop);
    const int status = session_summary(s, &summary, e);
    if (status) return status;
    report_finish(s, &summary, state);
    const int finished = rundir_finish(s->run, &summary, e);
    json_free(&summary);
    return finished;
}

static int meets_target(const Session *s)
{
    const double target = s->options->target_accuracy;
    if (s->last.accuracy >= target) return STATUS_OK;
    if (s->comm.rank == 0)
        report_error("test accuracy %.4f is below --target-accuracy %g", s->last.accuracy, target);
    return STATUS_FAILED;
}

// Commands for what one wants next.
static void print_next(const Session *s)
{
    const char *dir = rundir_name(s->run);
    if (s->report) printf("look     scripts/open_report.sh %s\n", dir);
    printf("predict  ./predict %s PICTURE...\n", dir);
    if (strncmp(dir, "runs/", 5) == 0) printf("all runs scripts/runs.sh\n");
    if (s->step + 1 < s->steps) printf("go on    ./%s --resume %s\n", s->program->name, dir);
}

static void print_result(const Session *s, const char *path)
{
    if (s->stop)
        printf("stopped by signal %d after step %lld of %lld\n", s->stop, (long long)s->step + 1,
               (long long)s->steps);
    else
        printf("result   test accuracy %.2f%%, trained in %.1f s at %.0f img/s\n",
               100.0 * s->last.accuracy, s->train_seconds,
               (double)((s->step + 1) * s->options->batch_size) / s->train_seconds);
    printf("weights  %s\n", path);
    if (!s->options->quiet) print_next(s);
    fflush(stdout);
}

// The table has the terminal's width; in a file, all columns.
static void finish_profile(Session *s)
{
    enum { STDOUT = 1, ALL_COLUMNS = 1000 };
    Error e;
    char path[PATH_MAX];
    check(profile_report(&s->profile, s->kernels, &e), &e);
    profile_print(&s->profile, stdout,
                  os_is_terminal(STDOUT) ? os_terminal_width(STDOUT) : ALL_COLUMNS);
    rundir_path(s->run, "profile.json", path);
    if (s->profile.profile.steps > 0) check(profile_write(&s->profile, path, &e), &e);
}

static void write_results(Session *s)
{
    Error e;
    char path[PATH_MAX];
    rundir_path(s->run, "model.safetensors", path);
    check(session_save_model(s, path, &e), &e);
    rundir_clear(s->run);
    print_result(s, path);
    if (s->options->profile) finish_profile(s);
    check(finish_run(s, &e), &e);
}

int session_end(Session *s, ModelFunction infer, void *model)
{
    const double began = os_seconds(), report = report_seconds(s);
    if (s->ema) use_average(s);
    s->last = session_evaluate(s, infer, model); // a signal to stop ends it at once
    s->evaluate_seconds += os_seconds() - began - (report_seconds(s) - report);
    if (!s->stop && !isfinite(s->last.loss)) diverged_evaluation(s, s->last.loss);
    if (s->comm.ranks > 1 && s->options->profile) { // before the table is planned for anything else
        rundir_clear(s->run);
        kernels_distributed_print(stdout);
    }
    if (s->run) write_results(s);
    return s->stop ? 128 + s->stop : meets_target(s);
}

void session_load_init(Session *s)
{
    Error e;
    const Options *o = s->options;
    if (o->init) check(model_load(&s->tensors, s->kernels, o->init, &e), &e);
    if (o->resume) resume_load(s);
}

int session_eval_only(Session *s, ModelFunction infer, void *model)
{
    s->last = session_evaluate(s, infer, model);
    if (!isfinite(s->last.loss))
        die(STATUS_DIVERGED, "the test loss of %s is %g", s->options->init, s->last.loss);
    printf("test accuracy %.2f%%, loss %.4f, %s on %s\n", 100.0 * s->last.accuracy, s->last.loss,
           s->options->init, s->data.source);
    return meets_target(s);
}

void session_close(Session *s)
{
    if (s->loader) loader_close(s->loader);
    predict_close(s);
    snapshot_free(&s->snapshot);
    checkpoint_close(&s->line.checkpoint);
    if (s->ema) s->kernels->release(s->ema);
    if (s->ema_backup) s->kernels->release(s->ema_backup);
    for (int i = 0; i < 2; i++) device_data_release(&s->sets[i], s->kernels);
    tensors_release(&s->tensors, s->kernels);
    dataset_close(&s->data);
    model_info_free(&s->line.model);
    s->kernels->close();
    comm_close(&s->comm);
}
