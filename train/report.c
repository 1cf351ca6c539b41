#include "train/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/safetensors.h"
#include "train/summary.h"

enum { INPUTS = 24, FILTERS = 64, MISTAKES = 50 };
static const double SHARE_OF_TIME = 0.01; // of the run's, at most
static const double UPDATE_SECONDS = 5;   // between pages where nothing was evaluated
static const double PATIENCE = 30;        // seconds that the end of a run waits for a page

struct Report {
    Predictions predictions;
    uint8_t *mistakes, *inputs; // (MISTAKES,h,w,c), (INPUTS,h,w,c)
    float *filters;             // (filter_count,h,w,c)
    int64_t input_count, filter_count;
    const Tensor *first;      // layer with weights that can be shown; NULL: none
    double seconds;           // of this process, so far, without those of the predictions
    double drawing_seconds;   // processors' time of all drawing, so far
    double last_page_seconds; // of both for the last page
    double written_at;        // os_seconds() of its facts
    int64_t drawing;          // the process that draws; 0: none
    bool due;                 // an evaluation came while it drew
    bool cannot_draw;         // and the user knows
    char facts[PATH_MAX], program[PATH_MAX + 16];
};

static void release(Run *run)
{
    Report *r = run->report;
    if (!r) return;
    run->s->predictions = NULL;
    predictions_close(&r->predictions);
    free(r->mistakes);
    free(r->inputs);
    free(r->filters);
    free(r);
    run->report = NULL;
}

double report_seconds(const Run *run)
{
    return run->report ? run->report->seconds + run->report->predictions.seconds : 0;
}

// ---- what is collected --------------------------------------------------------------------------

// The first tensor that looks at the image's channels, as filters (out,h,w,c).
static const Tensor *first_layer(const Setup *s)
{
    const Tensors *all = &s->net.tensors;
    for (const Tensor *t = all->list; t < all->list + all->count; t++)
        if ((t->kind == PARAMETER || t->kind == BUFFER) && t->rank == 4)
            return t->shape[3] == s->data.c ? t : NULL;
    return NULL;
}

static int allocate(Report *r, Setup *s, Error *e)
{
    const size_t image = (size_t)s->data.image_bytes;
    const int64_t filters = (r->first = first_layer(s)) ? r->first->shape[0] : 0;
    r->filter_count = filters < FILTERS ? filters : FILTERS;
    const int64_t weights = filters > 0 ? r->filter_count * (r->first->n / filters) : 0;
    r->inputs = malloc(INPUTS * image);
    r->filters = malloc((size_t)weights * sizeof(float) + 1);
    if (!r->inputs || !r->filters) return fail(e, STATUS_IO, "not enough memory for pictures");
    if (!s->net.logits || s->comm.ranks > 1) return STATUS_OK; // a rank evaluates its share alone
    r->mistakes = malloc(MISTAKES * image);
    if (!r->mistakes) return fail(e, STATUS_IO, "not enough memory for pictures");
    if (predictions_open(&r->predictions, &s->data, s->batch, e)) return e->status;
    s->predictions = &r->predictions;
    return STATUS_OK;
}

// The first inputs of the batch that is on the device, back from normalised to bytes.
static int take_inputs(const Setup *s, Report *r, Error *e)
{
    const Dataset *d = &s->data;
    if (!s->net.input) return STATUS_OK;
    const int64_t count = s->feed.n < INPUTS ? s->feed.n : INPUTS;
    const size_t all = (size_t)(count * d->image_bytes);
    const bool wide = s->kernels->element == F32;
    void *raw = malloc(all * s->kernels->element_size);
    if (!raw) return fail(e, STATUS_IO, "not enough memory for pictures");
    s->kernels->download(raw, s->net.input->value, all * s->kernels->element_size);
    for (size_t i = 0; i < all; i++) {
        float x = wide ? ((float *)raw)[i] : 0;
        if (!wide) { // bf16 is the upper half
            const uint32_t bits = (uint32_t)((uint16_t *)raw)[i] << 16;
            memcpy(&x, &bits, sizeof x);
        }
        const size_t c = i % (size_t)d->c;
        const float shown = 255 * (x * d->std[c] + d->mean[c]) + 0.5f;
        r->inputs[i] = (uint8_t)fmaxf(0, fminf(shown, 255));
    }
    free(raw);
    r->input_count = count;
    return STATUS_OK;
}

// The norm of each parameter of the `groups`: of its weights or its gradient, as `arena` has them
// on the device. `host` has room for any.
static void norms_json(const Setup *s, Json *j, const char *key, const float *arena,
                       unsigned groups, float *host)
{
    const Tensors *all = &s->net.tensors;
    json_object(j, key);
    for (const Tensor *t = all->list; t < all->list + all->count; t++) {
        if (t->kind != PARAMETER || !(groups >> t->group & 1)) continue;
        double sum = 0;
        s->kernels->download(host, arena + (t->master - all->master), (size_t)t->n * sizeof *host);
        for (int64_t i = 0; i < t->n; i++) sum += (double)host[i] * (double)host[i];
        json_rounded(j, t->name, sqrt(sum), 6);
    }
    json_end(j);
}

static int log_norms(const Run *run, int64_t step, Error *e)
{
    const Setup *s = run->s;
    const Tensors *all = &s->net.tensors;
    float *host = malloc(all->parameter_bytes);
    if (!host) return fail(e, STATUS_IO, "not enough memory for norms");
    Json *j = rundir_log_begin(run->dir, step, epochs_done(s, step));
    norms_json(s, j, "weight_norm", all->master, ALL_GROUPS, host);
    norms_json(s, j, "grad_norm", all->grad, s->net.trained_groups, host);
    rundir_log_end(run->dir);
    free(host);
    return STATUS_OK;
}

// ---- the facts ----------------------------------------------------------------------------------

static int run_json(const Run *run, const char *state, bool live, Json *j, Error *e)
{
    const Dataset *d = &run->s->data;
    const Tensor *first = run->report->first;
    json_object(j, NULL);
    json_string(j, "state", state);
    json_bool(j, "live", live);
    json_string(j, "first_layer", first ? first->name : NULL);
    json_object(j, "data");
    json_string(j, "source", d->source);
    json_bool(j, "embedded", d->embedded);
    json_int(j, "train", d->n[SPLIT_TRAIN]);
    json_int(j, "test", d->n[SPLIT_TEST]);
    json_int(j, "height", d->h);
    json_int(j, "width", d->w);
    json_int(j, "channels", d->c);
    json_array(j, "classes");
    for (int i = 0; i < d->classes; i++) json_string(j, NULL, d->class_names[i]);
    json_end(j);
    json_end(j);
    json_end(j);
    return json_finish(j, e);
}

// docs/runs.md has the file; pages/report_facts.h reads it.
static int write_tensors(const Setup *s, Report *r, const Json *summary, const Json *run, Error *e)
{
    const Predictions *p = &r->predictions;
    const Dataset *d = &s->data;
    const int64_t none[4] = {0}, *filter = r->first ? r->first->shape : none;
    const int64_t filters = r->filter_count, n = p->done, h = d->h, w = d->w, c = d->c;
    uint32_t ids[MISTAKES];
    int32_t labels[MISTAKES];
    const int mistakes = predictions_worst(p, ids, MISTAKES);
    if (mistakes > 0 &&
        dataset_gather(d, SPLIT_TEST, ids, mistakes, r->mistakes, labels, e) != STATUS_OK)
        return e->status;
    if (r->first)
        s->kernels->download(r->filters, r->first->master,
                             (size_t)(filters * filter[1] * filter[2] * filter[3]) * sizeof(float));
    const SafeTensor tensors[] = {
        {"summary", "U8", 1, {(int64_t)summary->size}, summary->text, 0},
        {"run", "U8", 1, {(int64_t)run->size}, run->text, 0},
        {"test.label", "U16", 1, {n}, p->label, 0},
        {"test.predicted", "U16", 1, {n}, p->predicted, 0},
        {"test.probability", "F32", 1, {n}, p->probability, 0},
        {"test.loss", "F32", 1, {n}, p->loss, 0},
        {"mistakes.image", "U32", 1, {mistakes}, ids, 0},
        {"mistakes.pixels", "U8", 4, {mistakes, h, w, c}, r->mistakes, 0},
        {"inputs", "U8", 4, {r->input_count, h, w, c}, r->inputs, 0},
        {"filters", "F32", 4, {filters, filter[1], filter[2], filter[3]}, r->filters, 0},
    };
    return safetensors_write(r->facts, tensors, sizeof tensors / sizeof *tensors, NULL, 0, e);
}

static int write_facts(Run *run, int64_t step, const char *state, bool live, Error *e)
{
    Json summary = {0}, facts = {0};
    Report *r = run->report;
    const double began = os_seconds();
    int status = run_summary(run, step, report_seconds(run), &summary, e);
    if (status == STATUS_OK) status = run_json(run, state, live, &facts, e);
    if (status == STATUS_OK) status = write_tensors(run->s, r, &summary, &facts, e);
    json_free(&summary);
    json_free(&facts);
    r->written_at = os_seconds();
    r->last_page_seconds = r->written_at - began;
    return status;
}

// ---- the page -----------------------------------------------------------------------------------

static void cannot_draw(Report *r, const char *why)
{
    if (!r->cannot_draw) warn("no new report.html: %s; training goes on", why);
    r->cannot_draw = true;
}

// Whether no page is being drawn; takes note of the last one's end.
static bool page_is_drawn(Report *r)
{
    Error e;
    double seconds;
    int status;
    if (!r->drawing) return true;
    if (!os_ended(r->drawing, &status, &seconds)) return false;
    r->drawing = 0;
    r->drawing_seconds += seconds;
    r->last_page_seconds += seconds;
    if (status) {
        fail(&e, status, "%s has ended with status %d", r->program, status);
        cannot_draw(r, e.message);
    }
    return true;
}

static void wait_for_page(Report *r)
{
    const double began = os_seconds();
    while (!r->cannot_draw && !page_is_drawn(r) && os_seconds() - began < PATIENCE) os_sleep(0.001);
    if (r->drawing) cannot_draw(r, "the program that draws it does not end");
}

static void draw(const Run *run)
{
    Report *r = run->report;
    Error e;
    char path[PATH_MAX + 2];
    const char *const dir = rundir_name(run->dir);
    const char *const arguments[] = {r->program, "page", path, NULL};
    snprintf(path, sizeof path, "%s%s", dir[0] == '-' ? "./" : "", dir); // or it were an option
    if (!r->cannot_draw && os_start(&r->drawing, arguments, &e)) cannot_draw(r, e.message);
}

static int begin_live_page(Run *run, int64_t step, Error *e)
{
    char state[128];
    const Setup *s = run->s;
    snprintf(state, sizeof state, "Running: step %lld of %lld, epoch %.3g of %.4g", (long long)step,
             (long long)s->steps, epochs_done(s, step), s->epochs);
    if (write_facts(run, step, state, true, e)) return e->status;
    draw(run);
    return STATUS_OK;
}

void report_open(Run *run)
{
    Error e;
    const double began = os_seconds();
    if (!run->s->options->report || !run->dir) return;
    Report *r = run->report = calloc(1, sizeof *r);
    int status = r ? STATUS_OK : fail(&e, STATUS_IO, "not enough memory");
    if (status == STATUS_OK) status = allocate(r, run->s, &e);
    if (status == STATUS_OK) {
        rundir_path(run->dir, "report.safetensors", r->facts);
        os_program(r->program);
        strcpy(strrchr(r->program, '/'), "/pages/runs");
        status = begin_live_page(run, run->first_step, &e);
    }
    if (status) {
        warn("no report.html: %s; training goes on", e.message);
        release(run);
    } else {
        r->seconds = os_seconds() - began;
    }
}

void report_step(Run *run, int64_t step)
{
    Error e;
    const double began = os_seconds();
    Report *r = run->report;
    if (!r) return;
    if (take_inputs(run->s, r, &e) || log_norms(run, step, &e)) cannot_draw(r, e.message);
    r->seconds += os_seconds() - began;
}

void report_update(Run *run, int64_t step, bool evaluated)
{
    Error e;
    Report *r = run->report;
    if (!r) return;
    const double now = os_seconds();
    r->due |= evaluated;
    if (!page_is_drawn(r)) return;
    const bool due = r->due;
    r->due = false;
    if (!due && now - r->written_at < UPDATE_SECONDS) return;
    const double spent = report_seconds(run) + r->drawing_seconds;
    if (spent + r->last_page_seconds > SHARE_OF_TIME * (now - run->s->started)) return;
    if (begin_live_page(run, step, &e)) cannot_draw(r, e.message);
    r->seconds += os_seconds() - now;
}

void report_finish(Run *run, int64_t step, const char *state)
{
    Error e;
    if (!run->report) return;
    wait_for_page(run->report); // or it could come after the last one
    if (write_facts(run, step, state, false, &e))
        cannot_draw(run->report, e.message);
    else
        draw(run);
    wait_for_page(run->report);
    release(run);
}
