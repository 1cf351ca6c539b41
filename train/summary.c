#include "train/summary.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

void run_print_banner(const Run *r)
{
    const Setup *s = r->s;
    const Options *o = s->options;
    const Dataset *d = &s->data;
    const Kernels *k = s->kernels;
    if (s->note[0]) printf("note     %s\n", s->note);
    printf("network  %s: %.3g M parameters, %.3g MFLOP an image\n", s->net.name,
           (double)tensors_parameter_count(&s->net.tensors) / 1e6,
           s->net.plan.flop / (double)s->batch / 1e6);
    printf("data     %s: %d classes, %lld + %lld images of %dx%dx%d\n",
           d->embedded ? "embedded drawings" : d->source, d->classes, (long long)d->n[SPLIT_TRAIN],
           (long long)d->n[SPLIT_TEST], d->h, d->w, d->c);
    if (d->embedded)
        printf("         (for real ones: make data/prepare && ./data/prepare --help)\n");
    printf("device   %s, %s, %.0f MB\n", k->description, kernels_dtype(k),
           network_bytes(&s->net, k) / 1e6);
    if (s->comm.ranks > 1)
        printf("ranks    %d of %lld images a step, %d on this machine\n", s->comm.ranks,
               (long long)s->batch, s->comm.local_ranks);
    printf("run      %s: %lld steps of %lld images, %.4g epochs, %s\n", rundir_name(r->dir),
           (long long)s->steps, (long long)o->batch_size, s->epochs, optimizer_name(o));
    if (o->report) printf("report   %s/report.html, as it goes\n", rundir_name(r->dir));
    if (o->resume) printf("resume   after step %lld\n", (long long)r->first_step);
}

// ---- chance -------------------------------------------------------------------------------------

// The share of the most frequent class of the test images: right so often is who always says that.
static double chance_accuracy(const Dataset *d)
{
    Error e;
    enum { CHUNK = 4096 };
    static uint16_t labels[CHUNK];
    int64_t *count = calloc((size_t)d->classes, sizeof *count), most = 0;
    if (!count) die(STATUS_IO, "out of memory");
    for (int64_t i = 0; i < d->n[SPLIT_TEST]; i += CHUNK) {
        const int64_t n = d->n[SPLIT_TEST] - i < CHUNK ? d->n[SPLIT_TEST] - i : CHUNK;
        check(dataset_read(d, SPLIT_TEST, i, n, NULL, labels, &e), &e);
        for (int64_t j = 0; j < n; j++)
            if (++count[labels[j]] > most) most = count[labels[j]];
    }
    free(count);
    return (double)most / (double)d->n[SPLIT_TEST];
}

// Whether the accuracy lies within two standard deviations of that, or below.
static bool by_chance(const Dataset *d, double accuracy, double chance)
{
    return accuracy <= chance + 2 * sqrt(chance * (1 - chance) / (double)d->n[SPLIT_TEST]);
}

// ---- run.json and summary.json ------------------------------------------------------------------

int run_about(const Setup *s, Json *j, Error *e)
{
    json_object(j, NULL);
    json_string(j, "trainer", s->trainer->name);
    json_string(j, "network", s->net.name);
    json_int(j, "parameters", tensors_parameter_count(&s->net.tensors));
    json_rounded(j, "flop_per_image", s->net.plan.flop / (double)s->batch, 6);
    json_int(j, "seed", s->options->seed);
    json_string(j, "device", s->kernels->description);
    json_string(j, "device_kind", s->kernels->device);
    json_string(j, "dtype", kernels_dtype(s->kernels));
    json_string(j, "platform", os_platform());
    json_string(j, "compiler", __VERSION__);
    json_int(j, "ranks", s->comm.ranks);
    json_object(j, "options");
    args_json(s->line.table, s->line.count, j);
    json_end(j);
    json_end(j);
    return json_finish(j, e);
}

int run_write_start(const Run *r, Error *e)
{
    const Setup *s = r->s;
    Json j = {0};
    char started[OS_TIMESTAMP_SIZE];
    os_timestamp(started);
    json_object(&j, NULL);
    json_string(&j, "started", started);
    json_int(&j, "planned_steps", s->steps);
    json_rounded(&j, "planned_epochs", s->epochs, 6);
    json_string(&j, "data", s->data.source);
    json_members(&j, &r->texts.about);
    json_end(&j);
    int status = json_finish(&j, e);
    if (status == STATUS_OK) status = rundir_write(r->dir, "run.json", &j, e);
    json_free(&j);
    return status;
}

static double images_a_second(const Run *r, int64_t step)
{
    return (double)(step * r->s->options->batch_size) / r->times.train;
}

int run_summary(const Run *r, int64_t step, double report_seconds, Json *j, Error *e)
{
    const Setup *s = r->s;
    const RunTimes *t = &r->times;
    const double wait = s->feed.wait_seconds;
    json_object(j, NULL);
    if (s->net.logits) json_rounded(j, "test_accuracy", r->last.accuracy, 6);
    json_rounded(j, "test_loss", r->last.loss, 6);
    if (s->net.logits) json_rounded(j, "chance_accuracy", chance_accuracy(&s->data), 6);
    if (r->best_step > 0) {
        if (s->net.logits)
            json_rounded(j, "best_test_accuracy", r->best.accuracy, 6);
        else
            json_rounded(j, "best_test_loss", r->best.loss, 6);
        json_int(j, "best_step", r->best_step);
    }
    json_int(j, "steps", step);
    json_rounded(j, "epochs", epochs_done(s, step), 6);
    json_rounded(j, "train_seconds", t->train, 6);
    json_rounded(j, "total_seconds", os_seconds() - s->started, 6);
    json_rounded(j, "first_step_seconds", t->first_step, 6);
    json_rounded(j, "images_per_s", images_a_second(r, step), 6);
    json_rounded(j, "loader_wait_seconds", wait, 6);
    json_object(j, "seconds"); // of this process: a run that was continued began in another one
    json_rounded(j, "start", t->start, 6);
    json_rounded(j, "compute", fmax(t->train - t->resumed - wait, 0), 6);
    json_rounded(j, "data_wait", wait, 6);
    json_rounded(j, "evaluate", t->evaluate, 6);
    json_rounded(j, "save", t->save, 6);
    json_rounded(j, "report", report_seconds, 6);
    json_end(j);
    json_int(j, "peak_memory_bytes", os_memory_peak());
    if (s->comm.stop) json_int(j, "stopped_by_signal", s->comm.stop);
    json_string(j, "data", s->data.source);
    json_members(j, &r->texts.about);
    json_end(j);
    return json_finish(j, e);
}

// ---- the result ---------------------------------------------------------------------------------

// Commands for what one wants next.
static void print_next(const Run *r, int64_t step)
{
    const char *dir = rundir_name(r->dir);
    if (r->report) printf("look     scripts/open_report.sh %s\n", dir);
    if (r->s->net.logits) printf("predict  ./predict %s PICTURE...\n", dir);
    if (strncmp(dir, "runs/", 5) == 0) printf("all runs scripts/runs.sh\n");
    if (step < r->s->steps || r->s->comm.stop) // of the final test, say
        printf("go on    ./%s --resume %s\n", r->s->trainer->name, dir);
}

// "accuracy 98.10%", "accuracy 10.00%, no better than chance (10.00%)", "loss 0.0123"
static void format_test(const Run *r, char text[static 96])
{
    const Setup *s = r->s;
    if (!s->net.logits) {
        snprintf(text, 96, "loss %.4f", r->last.loss);
        return;
    }
    const double share = chance_accuracy(&s->data);
    const int n = snprintf(text, 96, "accuracy %.2f%%", 100.0 * r->last.accuracy);
    if (by_chance(&s->data, r->last.accuracy, share))
        snprintf(text + n, 96 - (size_t)n, ", no better than chance (%.2f%%)", 100.0 * share);
}

void run_print_result(const Run *r, int64_t step, const char *model)
{
    const Setup *s = r->s;
    char test[96];
    format_test(r, test);
    if (s->comm.stop)
        printf("stopped by signal %d after step %lld of %lld\n", s->comm.stop, (long long)step,
               (long long)s->steps);
    else
        printf("result   test %s, trained in %.1f s at %.0f img/s\n", test, r->times.train,
               images_a_second(r, step));
    printf("weights  %s\n", model);
    if (!s->options->quiet) print_next(r, step);
    fflush(stdout);
}
