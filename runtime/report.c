#include "runtime/report.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/os.h"
#include "tools/report_page.h"

enum { INPUTS = 24, FILTERS_MAX = 64 };
static const double SHARE_OF_TIME = 0.01; // of the run's, at most
static const double UPDATE_SECONDS = 5;   // between pages where nothing was evaluated

struct Report {
    Predictions predictions;
    float *logits; // (batch,classes)
    Pictures inputs, filters;
    const Tensor *first; // layer with weights that can be shown; NULL: none
    double seconds;      // spent so far
    double page_seconds; // by the last page
    double written_at;   // os_seconds() of the last page
    char path[PATH_MAX];
};

static void release(Session *s)
{
    Report *r = s->report;
    if (!r) return;
    predictions_close(&r->predictions);
    pictures_free(&r->inputs);
    pictures_free(&r->filters);
    free(r->logits);
    free(r);
    s->report = NULL;
}

static void give_up(Session *s, const Error *e)
{
    warn("no report.html: %s; training goes on", e->message);
    release(s);
}

double report_seconds(const Session *s)
{
    return s->report ? s->report->seconds : 0;
}

// ---- what is shown ------------------------------------------------------------------------------

// The first tensor that looks at the image's channels, as filters (out,h,w,c).
static const Tensor *first_layer(const Session *s)
{
    for (const Tensor *t = s->tensors.list; t < s->tensors.list + s->tensors.count; t++)
        if ((t->kind == PARAMETER || t->kind == BUFFER) && t->rank == 4)
            return t->shape[3] == s->data.c ? t : NULL;
    return NULL;
}

static int allocate(Report *r, const Session *s, Error *e)
{
    const int64_t batch = s->options->batch_size;
    const Dataset *d = &s->data;
    const int inputs = s->input ? (int)(batch < INPUTS ? batch : INPUTS) : 0;
    if (pictures_allocate(&r->inputs, inputs, d->h, d->w, d->c, e)) return e->status;
    r->inputs.count = 0; // until a step was made
    r->first = first_layer(s);
    if (r->first) {
        const int64_t *shape = r->first->shape;
        const int filters = (int)(shape[0] < FILTERS_MAX ? shape[0] : FILTERS_MAX);
        if (pictures_allocate(&r->filters, filters, (int)shape[1], (int)shape[2], (int)shape[3], e))
            return e->status;
    }
    if (!s->logits || s->comm.ranks > 1) return STATUS_OK; // a rank evaluates its share alone
    r->logits = malloc((size_t)s->logits->n * sizeof(float));
    if (!r->logits) return fail(e, STATUS_IO, "not enough memory for the logits");
    return predictions_open(&r->predictions, d, e);
}

static float bf16_to_float(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

// The first inputs of the batch that is on the device, back from normalised to bytes.
static int take_inputs(Session *s, Error *e)
{
    const Dataset *d = &s->data;
    const int64_t n = s->feed.n < INPUTS ? s->feed.n : INPUTS;
    const size_t each = (size_t)d->h * (size_t)d->w * (size_t)d->c, all = (size_t)n * each;
    const bool wide = s->kernels->element == F32;
    void *raw = malloc(all * s->kernels->element_size);
    uint8_t *bytes = malloc(all);
    if (!s->input || !raw || !bytes) {
        free(raw);
        free(bytes);
        return s->input ? fail(e, STATUS_IO, "not enough memory for pictures") : STATUS_OK;
    }
    s->kernels->download(raw, s->input->value, all * s->kernels->element_size);
    for (size_t i = 0; i < all; i++) {
        const float x = wide ? ((float *)raw)[i] : bf16_to_float(((uint16_t *)raw)[i]);
        const size_t c = i % (size_t)d->c;
        const float shown = 255 * (x * d->std[c] + d->mean[c]) + 0.5f;
        bytes[i] = (uint8_t)fmaxf(0, fminf(shown, 255));
    }
    s->report->inputs.count = (int)n;
    for (int i = 0; i < n; i++) pictures_set(&s->report->inputs, i, bytes + (size_t)i * each);
    free(raw);
    free(bytes);
    return STATUS_OK;
}

// Each filter around grey, up to its largest weight.
static int take_filters(Session *s, Error *e)
{
    const Tensor *t = s->report->first;
    if (!t) return STATUS_OK;
    const size_t each = (size_t)(t->n / t->shape[0]);
    const size_t all = each * (size_t)s->report->filters.count;
    float *weights = malloc(all * sizeof *weights);
    uint8_t *bytes = malloc(each);
    if (weights && bytes) {
        s->kernels->download(weights, t->master, all * sizeof *weights);
        for (int i = 0; i < s->report->filters.count; i++) {
            const float *w = weights + (size_t)i * each;
            float largest = 1e-30f;
            for (size_t j = 0; j < each; j++) largest = fmaxf(largest, fabsf(w[j]));
            for (size_t j = 0; j < each; j++) {
                const float grey = 127.5f + 127.4f * w[j] / largest;
                bytes[j] = (uint8_t)(isfinite(grey) ? grey : 127.5f); // of a run that diverged
            }
            pictures_set(&s->report->filters, i, bytes);
        }
    } else {
        fail(e, STATUS_IO, "not enough memory for filters");
    }
    const int status = weights && bytes ? STATUS_OK : e->status;
    free(weights);
    free(bytes);
    return status;
}

// The norm of `n` numbers on the device; `host` has room for them.
static double norm(const Session *s, const float *device, float *host, int64_t n)
{
    double sum = 0;
    s->kernels->download(host, device, (size_t)n * sizeof *host);
    for (int64_t i = 0; i < n; i++) sum += (double)host[i] * (double)host[i];
    return sqrt(sum);
}

static void norms_json(const Session *s, Json *j, bool gradients, float *host)
{
    json_object(j, gradients ? "grad_norm" : "weight_norm");
    for (const Tensor *t = s->tensors.list; t < s->tensors.list + s->tensors.count; t++)
        if (t->kind == PARAMETER && (!gradients || s->trained_groups >> t->group & 1))
            json_rounded(j, t->name, norm(s, gradients ? t->grad : t->master, host, t->n), 6);
    json_end(j);
}

static int log_norms(Session *s, Error *e)
{
    int64_t largest = 0;
    for (const Tensor *t = s->tensors.list; t < s->tensors.list + s->tensors.count; t++)
        if (t->kind == PARAMETER && t->n > largest) largest = t->n;
    float *host = malloc((size_t)largest * sizeof *host + 1);
    if (!host) return fail(e, STATUS_IO, "not enough memory for norms");
    Json *j = run_log_begin(s->run, s->step + 1, session_epoch(s));
    norms_json(s, j, false, host);
    norms_json(s, j, true, host);
    run_log_end(s->run);
    free(host);
    return STATUS_OK;
}

// ---- the page -----------------------------------------------------------------------------------

static int write_page(Session *s, const Json *summary, const char *state, bool live, Error *e)
{
    Report *r = s->report;
    JsonDocument document;
    LogFile log;
    char log_path[PATH_MAX];
    const double began = os_seconds();
    run_path(s->run, "log.jsonl", log_path);
    if (json_parse(&document, summary->text, summary->size, e)) return e->status;
    int status = log_file_read(&log, log_path, e);
    if (status == STATUS_OK) {
        const ReportPage page = {
            .path = r->path,
            .state = state,
            .live = live,
            .log = &log,
            .summary = document.root,
            .data = &s->data,
            .predictions = r->logits ? &r->predictions : NULL,
            .inputs = &r->inputs,
            .filters = &r->filters,
            .profile = &s->profile,
            .filters_name = r->first ? r->first->name : "",
        };
        status = take_filters(s, e);
        if (status == STATUS_OK) status = report_page_write(&page, e);
        log_file_free(&log);
    }
    json_document_free(&document);
    r->written_at = os_seconds();
    r->page_seconds = r->written_at - began;
    return status;
}

static int write_page_now(Session *s, const char *state, bool live, Error *e)
{
    Json summary = {0};
    int status = session_summary(s, &summary, e);
    if (status == STATUS_OK) status = write_page(s, &summary, state, live, e);
    json_free(&summary);
    return status;
}

static int write_live_page(Session *s, Error *e)
{
    char state[128];
    snprintf(state, sizeof state, "Running: step %lld of %lld, epoch %.3g of %.4g",
             (long long)s->step + 1, (long long)s->steps, session_epoch(s), s->epochs);
    return write_page_now(s, state, true, e);
}

void report_open(Session *s)
{
    Error e;
    const double began = os_seconds();
    if (!s->options->report || !s->run) return;
    s->report = calloc(1, sizeof *s->report);
    int status = s->report ? STATUS_OK : fail(&e, STATUS_IO, "not enough memory");
    if (status == STATUS_OK) status = allocate(s->report, s, &e);
    if (status == STATUS_OK) {
        run_path(s->run, "report.html", s->report->path);
        status = write_live_page(s, &e);
    }
    if (status)
        give_up(s, &e);
    else
        s->report->seconds = os_seconds() - began;
}

void report_step(Session *s)
{
    Error e;
    const double began = os_seconds();
    if (!s->report) return;
    int status = take_inputs(s, &e);
    if (status == STATUS_OK) status = log_norms(s, &e);
    if (status)
        give_up(s, &e);
    else
        s->report->seconds += os_seconds() - began;
}

void report_test_begins(Session *s)
{
    if (s->report && !os_stop_signal()) s->report->predictions.done = 0;
}

void report_test_batch(Session *s, int64_t n)
{
    Report *r = s->report;
    if (!r || !r->logits) return;
    s->kernels->synchronize(); // so that the network's own time is not counted
    const double began = os_seconds();
    s->kernels->download(r->logits, s->logits->value,
                         (size_t)(n * s->data.classes) * sizeof(float));
    predictions_add(&r->predictions, r->logits, n, s->logit_scale);
    r->seconds += os_seconds() - began;
}

void report_update(Session *s, bool evaluated)
{
    Error e;
    Report *r = s->report;
    if (!r) return;
    const double now = os_seconds();
    if (!evaluated && now - r->written_at < UPDATE_SECONDS) return;
    if (r->seconds + r->page_seconds > SHARE_OF_TIME * (now - s->started)) return;
    if (write_live_page(s, &e))
        give_up(s, &e);
    else
        r->seconds += os_seconds() - now;
}

void report_finish(Session *s, const Json *summary, const char *state)
{
    Error e;
    if (!s->report) return;
    const int status =
        summary ? write_page(s, summary, state, false, &e) : write_page_now(s, state, false, &e);
    if (status)
        give_up(s, &e);
    else
        release(s);
}
