#include "train/run.h"

#include <math.h>
#include <stdio.h>

#include "kernels/distributed.h"
#include "base/os.h"
#include "train/profile.h"
#include "train/report.h"
#include "train/resume.h"
#include "train/summary.h"

// ---- beginning ----------------------------------------------------------------------------------

static void open_directory(Run *r)
{
    Error e;
    const Options *o = r->s->options;
    if (r->s->comm.rank > 0) return;
    if (o->resume) {
        check(rundir_reopen(&r->dir, o->resume, r->s->line.lock, r->first_step, r->evaluated,
                            o->quiet, &e),
              &e);
        checkpoint_clean(o->resume, r->first_step);
    } else {
        check(rundir_open(&r->dir, o->out, r->s->trainer->name, o->quiet, &e), &e);
        check(run_write_start(r, &e), &e);
    }
}

static void restore(const Run *r)
{
    const Network *n = &r->s->net;
    snapshot_restore(&r->snapshot, &n->tensors, r->s->kernels, n->ema);
}

// Takes the start as the first snapshot.
static void begin_new(Run *r)
{
    Error e;
    const Network *n = &r->s->net;
    const Kernels *k = r->s->kernels;
    k->zero(n->metrics->value, METRICS * sizeof(float));
    check(snapshot_allocate(&r->snapshot, &n->tensors, n->ema != NULL, &e), &e);
    snapshot_take(&r->snapshot, &n->tensors, k, n->ema);
}

// Rank 0's state to all: initial weights may differ in their last bits where processors differ.
static void share_state(const Run *r)
{
    const Comm *c = &r->s->comm;
    const size_t bytes = r->s->net.tensors.parameter_bytes;
    c->broadcast(r->snapshot.master, bytes);
    c->broadcast(r->snapshot.state1, bytes);
    c->broadcast(r->snapshot.state2, bytes);
    if (r->snapshot.ema) c->broadcast(r->snapshot.ema, bytes);
    restore(r);
}

static void make_texts(RunTexts *x, const Setup *s)
{
    Error e;
    check(options_network_json(&s->line, &x->model.options, &e), &e);
    check(model_text_make(&x->model, s->trainer->name, s->net.name, &s->data, &e), &e);
    check(run_about(s, &x->about, &e), &e);
    check(resume_data_json(&s->data, &x->data, &e), &e);
}

static Progress unknown_progress(const Run *r)
{
    return (Progress){
        .step = r->first_step,
        .steps = r->s->steps,
        .epoch = epochs_done(r->s, r->first_step),
        .epochs = r->s->epochs,
        .loss = NAN,
        .train_accuracy = NAN,
        .images_per_s = NAN,
        .data_wait = NAN,
        .seconds_left = NAN,
        .memory_bytes = NAN,
    };
}

void run_open(Run *r, Setup *s, RunKind kind)
{
    *r = (Run){
        .s = s,
        .kind = kind,
        .saved_step = -1,
        .best = {.loss = NAN, .accuracy = NAN},
        .last = {.loss = NAN, .accuracy = NAN},
    };
    if (kind == RUN_TIMED) s->options->report = false; // nothing else may run meanwhile
    if (s->options->resume)
        resume_load(r);
    else
        begin_new(r);
    if (s->comm.ranks > 1) share_state(r); // all have read the checkpoint, too
    make_texts(&r->texts, s);
    feed_load_sets(&s->feed);
    feed_seek(&s->feed, r->first_step);
    open_directory(r);
    if (r->dir && !s->options->quiet) run_print_banner(r);
    fflush(stdout);
    os_catch_stop_signals();
    r->device_bytes = network_bytes(&s->net, s->kernels);
    r->progress = unknown_progress(r);
    report_open(r);
    r->times.reported = report_seconds(r);
    rundir_begin(r->dir, &r->progress);
    r->times.resumed = r->times.train;
    r->times.start = os_seconds() - s->started;
    r->times.log_at += os_seconds(); // since the last log before the checkpoint
}

void run_forget(Run *r)
{
    restore(r);
    tensors_fill_buffers(&r->s->net.tensors, r->s->kernels);
}

// The step of the snapshot.
static int64_t restart_step(const Run *r)
{
    return r->saved_step > 0 ? r->saved_step : 0;
}

int64_t run_begin(Run *r)
{
    const int64_t step = restart_step(r);
    feed_seek(&r->s->feed, step);
    r->times.log_wait = r->s->feed.wait_seconds;
    return step;
}

// ---- a step -------------------------------------------------------------------------------------

// Every step of a short run, about 500 lines of a long one: reading the loss waits for the device.
static bool log_due(const Setup *s, int64_t step)
{
    const int64_t every = s->steps / 500 > 1 ? s->steps / 500 : 1;
    return step % every == 0 || epoch_ends(s, step);
}

// Shows the loss and the rates of the last line of the log.
static void show_progress(Run *r, int64_t step)
{
    const Setup *s = r->s;
    Progress *p = &r->progress;
    const double seconds = os_seconds() - s->started - r->times.start;
    p->step = step;
    p->epoch = epochs_done(s, step);
    p->seconds_left = seconds / (double)(step - r->first_step) * (double)(s->steps - step);
    p->memory_bytes = s->kernels->own_memory ? r->device_bytes : (double)os_memory_peak();
    rundir_progress(r->dir, p);
}

static void note_divergence(Run *r, int64_t step, const char *what)
{
    r->diverged = (Divergence){.step = step};
    snprintf(r->diverged.what, sizeof r->diverged.what, "%s after step %lld", what,
             (long long)step);
}

// False: the loss is not finite.
static bool log_step(Run *r, int64_t step, double lr)
{
    const Setup *s = r->s;
    Progress *p = &r->progress;
    RunTimes *t = &r->times;
    double m[METRICS];
    network_metrics(&s->net, s->kernels, &s->comm, m); // waits for the device
    s->kernels->zero(s->net.metrics->value, METRICS * sizeof(float));
    p->loss = m[METRIC_LOSS] / (double)r->images_since_log;
    p->train_accuracy = network_accuracy(&s->net, m[METRIC_CORRECT], (double)r->images_since_log);
    if (!isfinite(p->loss)) {
        note_divergence(r, step, "the loss is not finite");
        return false;
    }
    const double seconds = os_seconds() - t->log_at;
    const int64_t steps = r->images_since_log / s->options->batch_size;
    const double wait = s->feed.wait_seconds - t->log_wait;
    t->train += seconds;
    p->images_per_s = (double)r->images_since_log / seconds;
    p->data_wait = wait / seconds;
    if (!r->dir) return true;
    Json *j = rundir_log_begin(r->dir, step, epochs_done(s, step));
    json_double(j, "loss", p->loss);
    json_double(j, "lr", lr);
    if (s->net.logits) json_rounded(j, "train_accuracy", p->train_accuracy, 9);
    json_rounded(j, "step_ms", 1e3 * seconds / (double)steps, 6);
    json_rounded(j, "images_per_s", p->images_per_s, 6);
    json_rounded(j, "data_wait_ms", 1e3 * wait / (double)steps, 6);
    rundir_log_end(r->dir);
    return true;
}

bool run_step_done(Run *r, int64_t step, double lr)
{
    const Setup *s = r->s;
    if (r->kind == RUN_TIMED) return true;
    if (r->kind == RUN_SEARCH) return diverged_look(&r->diverged, s, step);
    r->images_since_log += s->options->batch_size;
    r->evaluated = false;
    if (r->times.first_step == 0) {
        s->kernels->synchronize();
        r->times.first_step = os_seconds() - s->started;
    }
    const bool due = log_due(s, step);
    if (due && !log_step(r, step, lr)) return false;
    show_progress(r, step);
    if (!due) return true;
    report_update(r, step, false);
    if (run_test_due(r, step)) report_step(r, step);
    r->times.reported = report_seconds(r);
    r->images_since_log = 0;
    r->times.log_wait = s->feed.wait_seconds;
    r->times.log_at = os_seconds();
    return true;
}

// ---- tests --------------------------------------------------------------------------------------

bool run_test_due(const Run *r, int64_t step)
{
    return r->kind == RUN_TRAINING && epoch_ends(r->s, step) && !r->evaluated;
}

// With what a reader needs to know of the weights, as docs/runs.md describes.
static int save_model(const Run *r, const char *path, Error *e)
{
    return model_save(&r->s->net.tensors, r->s->kernels, path, r->texts.model.metadata,
                      MODEL_METADATA, e);
}

// What the best weights have most of.
static double score(Evaluation test)
{
    return isnan(test.accuracy) ? -test.loss : test.accuracy;
}

static void keep_best(Run *r, int64_t step, Evaluation test)
{
    Error e;
    char path[PATH_MAX];
    const Setup *s = r->s;
    if (!isfinite(test.loss)) return;
    if (r->best_step > 0 && !(score(test) > score(r->best))) return;
    if (r->dir) {
        rundir_path(r->dir, "best.safetensors", path);
        network_use_average(&s->net, s->kernels);
        check(save_model(r, path, &e), &e);
        network_use_weights(&s->net, s->kernels);
    }
    r->best = test;
    r->best_step = step;
}

void run_log_test(Run *r, int64_t step, Evaluation test)
{
    const double began = os_seconds();
    keep_best(r, step, test);
    r->evaluated = test.complete;
    if (test.complete && r->dir) {
        Json *j = rundir_log_begin(r->dir, step, epochs_done(r->s, step));
        json_double(j, "test_loss", test.loss);
        if (r->s->net.logits) json_double(j, "test_accuracy", test.accuracy);
        rundir_log_end(r->dir);
        rundir_show_test(r->dir, test.loss, test.accuracy);
    }
    report_update(r, step, true);
    const double seconds = test.seconds + os_seconds() - began;
    r->times.evaluate += seconds - (report_seconds(r) - r->times.reported);
    r->times.reported = report_seconds(r);
    r->times.log_at += seconds; // training time leaves evaluation out
}

// ---- checkpoints --------------------------------------------------------------------------------

bool run_save_due(const Run *r, int64_t step)
{
    const int64_t every = r->s->options->save_every;
    if (r->kind != RUN_TRAINING || step == r->saved_step) return false;
    return step == r->s->steps || (every > 0 ? step % every == 0 : epoch_ends(r->s, step));
}

bool run_save(Run *r, int64_t step)
{
    const Setup *s = r->s;
    double m[METRICS];
    network_metrics(&s->net, s->kernels, &s->comm, m);
    if (!isfinite(m[METRIC_LOSS]))
        note_divergence(r, step, "the loss is not finite");
    else if (diverged_weights(s))
        note_divergence(r, step, "a weight is not finite");
    else
        resume_save(r, step, m);
    return r->diverged.step == 0;
}

// ---- after the loop -----------------------------------------------------------------------------

void run_begin_search(Run *r)
{
    const Setup *s = r->s;
    rundir_clear(r->dir);
    if (!s->options->quiet)
        printf("%s; repeating from step %lld to find where that began\n", r->diverged.what,
               (long long)restart_step(r));
    fflush(stdout);
    r->kind = RUN_SEARCH;
    restore(r);
    s->kernels->zero(s->net.tensors.activations, s->net.tensors.activation_bytes); // and metrics
}

_Noreturn void run_end_diverged(Run *r)
{
    const Divergence *d = &r->diverged;
    char message[sizeof d->what + 64];
    snprintf(message, sizeof message, "%s; try a smaller --lr or --clip-norm 1", d->what);
    if (r->s->comm.rank > 0) r->s->comm.barrier(); // until rank 0, which has the page, ends all
    rundir_clear(r->dir);
    report_finish(r, d->step, message);
    die(STATUS_DIVERGED, "%s", message);
}

// The table has the terminal's width; in a file, all columns.
static void finish_profile(const Run *r)
{
    enum { STDOUT = 1, ALL_COLUMNS = 1000 };
    Error e;
    char path[PATH_MAX];
    static ProfileReport profile;
    check(profile_report(&profile, r->s->kernels, &e), &e);
    profile_print(&profile, stdout,
                  os_is_terminal(STDOUT) ? os_terminal_width(STDOUT) : ALL_COLUMNS);
    rundir_path(r->dir, "profile.json", path);
    if (profile.profile.steps > 0) check(profile_write(&profile, path, &e), &e);
}

static void write_results(Run *r, int64_t step)
{
    Error e;
    Json summary = {0};
    char path[PATH_MAX], state[64] = "Finished";
    rundir_path(r->dir, "model.safetensors", path);
    network_use_average(&r->s->net, r->s->kernels); // from here on
    check(save_model(r, path, &e), &e);
    rundir_clear(r->dir);
    run_print_result(r, step, path);
    if (r->s->options->profile) finish_profile(r);
    check(run_summary(r, step, report_seconds(r), &summary, &e), &e);
    if (r->s->comm.stop) snprintf(state, sizeof state, "Stopped by signal %d", r->s->comm.stop);
    report_finish(r, step, state);
    check(rundir_finish(r->dir, &summary, &e), &e);
    r->dir = NULL;
    json_free(&summary);
}

static void end(Run *r, int64_t step)
{
    const Setup *s = r->s;
    if (s->comm.ranks > 1 && s->options->profile) { // before the table is planned for anything else
        rundir_clear(r->dir);
        kernels_distributed_print(stdout);
    }
    if (r->dir) write_results(r, step);
}

int run_stopped(Run *r, int64_t step)
{
    if (step != r->saved_step && !run_save(r, step)) run_end_diverged(r);
    end(r, step);
    return 128 + r->s->comm.stop;
}

int run_finish(Run *r, Evaluation test)
{
    const Setup *s = r->s;
    r->last = test;
    r->times.evaluate += test.seconds - (report_seconds(r) - r->times.reported);
    if (test.complete && !isfinite(test.loss)) {
        diverged_evaluation(&r->diverged, s, test.loss);
        run_end_diverged(r);
    }
    end(r, s->steps);
    if (s->comm.stop) return 128 + s->comm.stop;
    return meets_target(s, test.accuracy);
}

int meets_target(const Setup *s, double accuracy)
{
    const double target = s->options->target_accuracy;
    if (!(accuracy < target)) return STATUS_OK; // also NAN: there is no target
    if (s->comm.rank == 0)
        report_error("test accuracy %.4f is below --target-accuracy %g", accuracy, target);
    return STATUS_FAILED;
}

void run_close(Run *r)
{
    snapshot_free(&r->snapshot);
    model_text_free(&r->texts.model);
    json_free(&r->texts.about);
    json_free(&r->texts.data);
}
