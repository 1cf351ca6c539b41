#include "pages/report_page.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/timing_rows.h"
#include "pages/chart.h"
#include "pages/members.h"

enum { REFRESH_SECONDS = 5, CURVES_MAX = 12, ROWS_SHOWN = 100 };

// ---- the summary --------------------------------------------------------------------------------

// A result with its name, and as people read it: `format` of `shown`.
static void result(Html *h, const char *name, double value, const char *format, double shown)
{
    html_raw(h, "<div>");
    html_element(h, "dt", "%s", name);
    html_raw(h, "<dd>");
    html_data(h, value, format, shown);
    html_raw(h, "</dd></div>\n");
}

// Whether the network knows classes: else no accuracy is written anywhere.
static bool has_classes(const ReportPage *p)
{
    return json_get(p->facts->summary, "test_accuracy");
}

static void results(Html *h, const ReportPage *p)
{
    const JsonNode *s = p->facts->summary;
    const double accuracy = member_number(s, "test_accuracy"),
                 best = member_number(s, "best_test_accuracy");
    const double seconds = member_number(s, "train_seconds"),
                 speed = member_number(s, "images_per_s");
    const double weights = member_number(s, "parameters"),
                 flop = member_number(s, "flop_per_image");
    html_raw(h, "<dl class=\"results\">\n");
    if (has_classes(p)) result(h, "Test accuracy", accuracy, "%.2f%%", 100 * accuracy);
    result(h, "Test loss", member_number(s, "test_loss"), "%.4f", member_number(s, "test_loss"));
    if (isfinite(best)) result(h, "Best epoch's accuracy", best, "%.2f%%", 100 * best);
    result(h, "Training time", seconds, "%.1f s", seconds);
    result(h, "Images a second", speed, "%.0f", speed);
    result(h, "Parameters", weights, "%.3g M", weights / 1e6);
    result(h, "FLOP to train an image", flop, "%.3g M", flop / 1e6);
    html_raw(h, "</dl>\n");
}

static void head(Html *h, const ReportPage *p)
{
    const ReportFacts *f = p->facts;
    char time[OS_TIMESTAMP_SIZE];
    os_timestamp(time);
    html_raw(h, "<p><strong>");
    html_text(h, "%s", f->state);
    html_raw(h, "</strong>%s</p>\n",
             f->live ? ". The page is loaded again every few seconds until the run ends." : "");
    html_note(h, "%s, %d classes, %lld + %lld images of %dx%dx%d; %s, %s. Written %s.",
              f->embedded ? "Embedded drawings" : f->source, f->classes, (long long)f->train,
              (long long)f->test, f->h, f->w, f->c, member_text(f->summary, "device"),
              member_text(f->summary, "dtype"), time);
    results(h, p);
}

// ---- curves -------------------------------------------------------------------------------------

// A member of the log's records of a kind over the epochs.
static Series curve(const ReportPage *p, const char *name, const char *kind, const char *key)
{
    size_t n;
    Series s = {.name = name};
    s.x = saved_log_column(p->log, kind, "epoch", &n);
    s.y = saved_log_column(p->log, kind, key, &n);
    s.count = s.x && s.y ? n : 0;
    return s;
}

static void evaluations(Html *h, const ReportPage *p)
{
    const bool classes = has_classes(p);
    const char *const columns[] = {"epoch", "step", "test loss", classes ? "test accuracy" : NULL,
                                   NULL};
    const Series loss = curve(p, "", "test_loss", "test_loss");
    const Series accuracy = curve(p, "", "test_loss", "test_accuracy");
    const Series step = curve(p, "", "test_loss", "step");
    const size_t n = loss.count && accuracy.count && step.count ? loss.count : 0;
    html_raw(h, "<details><summary>Evaluations as numbers</summary>\n");
    html_table(h, "Evaluations", "", columns);
    for (size_t i = n > ROWS_SHOWN ? n - ROWS_SHOWN : 0; i < n; i++) {
        char epoch[32];
        snprintf(epoch, sizeof epoch, "%.4g", loss.x[i]);
        html_row(h, epoch);
        html_number(h, "%.0f", step.y[i]);
        html_data_cell(h, loss.y[i], "%.4f", loss.y[i]);
        if (classes) html_data_cell(h, accuracy.y[i], "%.2f%%", 100 * accuracy.y[i]);
    }
    html_end_table(h);
    html_raw(h, "</details>\n");
}

// Time of a step. A process that was stopped for a while would leave nothing to see of the others.
static void step_times(Html *h, const ReportPage *p)
{
    size_t n, left_out = 0;
    double *ms = saved_log_column(p->log, "loss", "step_ms", &n);
    double *sorted = saved_log_column(p->log, "loss", "step_ms", &n);
    Series time[] = {
        curve(p, "step", "loss", "step_ms"),
        curve(p, "of it waiting for data", "loss", "data_wait_ms"),
    };
    if (ms && sorted && n > 0) {
        qsort(sorted, n, sizeof *sorted, ascending_doubles);
        const double most = 4 * sorted[n / 2];
        for (size_t i = 0; i < n; i++)
            if (ms[i] > most) ms[i] = NAN, left_out++;
        time[0].y = ms;
    }
    chart_lines(
        h, &(LineChart){left_out ? "Time of a step, ms, without the slowest" : "Time of a step, ms",
                        "epoch", time, 2, 0, NAN, false});
}

static void curves(Html *h, const ReportPage *p)
{
    const Series loss[] = {
        curve(p, "train", "loss", "loss"),
        curve(p, "test", "test_loss", "test_loss"),
    };
    const Series accuracy[] = {
        curve(p, "train", "loss", "train_accuracy"),
        curve(p, "test", "test_accuracy", "test_accuracy"),
    };
    const Series rate = curve(p, "learning rate", "loss", "lr");
    const double smoothing =
        member_number(json_get(p->facts->summary, "options"), "label_smoothing");
    html_section(h, "Learning");
    if (smoothing > 0)
        html_note(h, "The train loss has label smoothing of %g, the test loss has none.",
                  smoothing);
    chart_lines(h, &(LineChart){"Loss, mean per image", "epoch", loss, 2, NAN, NAN, false});
    const LineChart accuracies = {
        "Accuracy, share of the images", "epoch", accuracy, 2, NAN, 1, false};
    if (has_classes(p)) chart_lines(h, &accuracies);
    chart_lines(h, &(LineChart){"Learning rate", "epoch", &rate, 1, 0, NAN, false});
    step_times(h, p);
    evaluations(h, p);
}

static void times(Html *h, const ReportPage *p)
{
    const JsonNode *seconds = json_get(p->facts->summary, "seconds");
    static const struct {
        const char *key, *name;
    } parts[] = {
        {"start", "starting"},      {"compute", "training"}, {"data_wait", "waiting for data"},
        {"evaluate", "evaluating"}, {"save", "saving"},      {"report", "this page"}};
    enum { PARTS = sizeof parts / sizeof *parts };
    Bar bars[PARTS];
    for (int i = 0; i < PARTS; i++)
        bars[i] = (Bar){.name = parts[i].name, .value = member_number(seconds, parts[i].key)};
    html_section(h, "Time and machine");
    chart_bars(h, &(BarChart){"Where the time went", " s", bars, PARTS, NAN});
}

// ---- norms --------------------------------------------------------------------------------------

// One curve for each member of the log's last object `kind` that belongs to a matrix, not a bias.
static void norm_chart(Html *h, const ReportPage *p, const char *title, const char *kind)
{
    Series series[CURVES_MAX];
    size_t n = 0;
    const JsonNode *norms = json_get(saved_log_last(p->log, "weight_norm"), kind);
    if (!norms || norms->type != JSON_OBJECT) return;
    const JsonNode *v = json_first(norms);
    for (size_t i = 0; i < norms->count && n < CURVES_MAX; i++, v = json_next(v))
        if (strstr(v->key, ".weight")) series[n++] = curve(p, v->key, kind, v->key);
    chart_lines(h, &(LineChart){title, "epoch", series, n, NAN, NAN, true});
}

static void norms(Html *h, const ReportPage *p)
{
    const JsonNode *record = saved_log_last(p->log, "weight_norm");
    const JsonNode *weights = json_get(record, "weight_norm");
    const char *const columns[] = {"tensor", "weights", "gradient", NULL};
    if (!weights || weights->type != JSON_OBJECT) return;
    html_section(h, "Weights and gradients");
    norm_chart(h, p, "Norm of the weights", "weight_norm");
    norm_chart(h, p, "Norm of the last gradient", "grad_norm");
    html_raw(h, "<details><summary>Norms of all tensors now</summary>\n");
    html_table(h, "Norms", "", columns);
    const JsonNode *v = json_first(weights);
    for (size_t i = 0; i < weights->count; i++, v = json_next(v)) {
        html_row(h, v->key);
        html_number(h, "%.4g", member_number(weights, v->key));
        const JsonNode *gradients = json_get(record, "grad_norm");
        if (json_get(gradients, v->key))
            html_number(h, "%.4g", member_number(gradients, v->key));
        else
            html_number(h, "frozen");
    }
    html_end_table(h);
    html_raw(h, "</details>\n");
}

// ---- how it was run -----------------------------------------------------------------------------

static const char *platform_name(const char *platform)
{
    if (strcmp(platform, "wsl2") == 0) return "WSL 2";
    if (strcmp(platform, "wsl1") == 0) return "WSL 1";
    return strcmp(platform, "container") == 0 ? "container on Linux" : "native Linux";
}

static void machine(Html *h, const ReportPage *p)
{
    const JsonNode *s = p->facts->summary;
    html_table(h, "Environment", "", (const char *[]){"what", "value", NULL});
    html_row(h, "Device");
    html_cell(h, "%s", member_text(s, "device"));
    html_row(h, "Type of numbers");
    html_cell(h, "%s", member_text(s, "dtype"));
    html_row(h, "Platform");
    html_cell(h, "%s", platform_name(member_text(s, "platform")));
    html_row(h, "Compiler");
    html_cell(h, "%s", member_text(s, "compiler"));
    html_row(h, "Data");
    html_cell(h, "%s", member_text(s, "data"));
    html_row(h, "Memory, at most");
    html_cell(h, "%.0f MB", member_number(s, "peak_memory_bytes") / 1e6);
    html_row(h, "First step done after");
    html_cell(h, "%.2f s", member_number(s, "first_step_seconds"));
    html_end_table(h);
}

static void options(Html *h, const ReportPage *p)
{
    const JsonNode *all = json_get(p->facts->summary, "options");
    if (!all || all->type != JSON_OBJECT) return;
    html_section(h, "Options");
    html_raw(h, "<dl class=\"options\">\n");
    const JsonNode *v = json_first(all);
    for (size_t i = 0; i < all->count; i++, v = json_next(v)) {
        html_raw(h, "<div><dt>--");
        for (const char *letter = v->key; *letter; letter++)
            html_text(h, "%c", *letter == '_' ? '-' : *letter);
        html_raw(h, "</dt><dd>");
        html_value(h, v);
        html_raw(h, "</dd></div>\n");
    }
    html_raw(h, "</dl>\n");
}

int report_page_write(const ReportPage *p, const char *path, Error *e)
{
    Html h;
    char title[256];
    snprintf(title, sizeof title, "%s: %s", member_text(p->facts->summary, "trainer"),
             member_text(p->facts->summary, "network"));
    if (html_open(&h, title, p->facts->live ? REFRESH_SECONDS : 0, e)) return e->status;
    head(&h, p);
    curves(&h, p);
    report_test_images(&h, p->facts);
    report_inputs(&h, p->facts);
    norms(&h, p);
    report_profile(&h, p->profile);
    times(&h, p);
    machine(&h, p);
    options(&h, p);
    return html_save(&h, path, e);
}

// ---- what it is drawn from ----------------------------------------------------------------------

// A run that was continued can have the profile of the process before: it counts once that of this
// one is written.
static bool has_profile(const ReportFacts *f)
{
    return !f->live && member_is_true(json_get(f->summary, "options"), "profile");
}

int report_page_draw(SavedRun *r, char path[static PATH_MAX], Error *e)
{
    ReportFacts facts;
    JsonDocument profile = {0};
    int status = STATUS_OK;
    saved_run_file(path, r->path, "report.safetensors");
    if (report_facts_read(&facts, path, e)) return e->status;
    saved_run_file(path, r->path, "report.html");
    if (has_profile(&facts)) status = saved_run_json(&profile, r->path, "profile.json", e);
    if (status == STATUS_OK)
        status = report_page_write(&(ReportPage){&facts, &r->log, profile.root}, path, e);
    json_document_free(&profile);
    report_facts_free(&facts);
    return status;
}
