// The page of runs compared: results, what differs, and their curves over each other.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/chart.h"
#include "runtime/html.h"
#include "tools/runs.h"

enum { DIFFERING_MAX = 64 };

// A spread of losses that a linear axis would not show.
static const double LOG_AXIS_RATIO = 1000;

// ---- results ------------------------------------------------------------------------------------

// `shown` is the value in the unit for people.
static void number_cell(Html *h, double value, const char *format, double shown)
{
    html_raw(h, "<td class=\"number\"><data value=\"%.9g\">", value);
    html_raw(h, isfinite(value) ? format : "–", shown);
    html_raw(h, "</data></td>");
}

static void member_cell(Html *h, const SavedRun *r, const char *key, const char *format)
{
    const double value = json_number(saved_run_get(r, key));
    number_cell(h, value, format, value);
}

static void state_cell(Html *h, const SavedRun *r)
{
    const char *state = run_state_names[r->state];
    const double planned = json_number(saved_run_get(r, "planned_epochs"));
    const JsonNode *last = log_file_last(&r->log, "epoch");
    if (r->state == RUN_FINISHED || !last || isnan(planned))
        html_cell(h, "%s", state);
    else
        html_cell(h, "%s, epoch %.3g of %.4g", state, json_number(json_get(last, "epoch")),
                  planned);
}

static void results(Html *h, const SavedRun *runs, size_t count)
{
    html_section(h, "Results");
    html_raw(h, "<div class=\"wide\">\n");
    html_table(h, "What became of them",
               (const char *[]){"run", "state", "test accuracy", "test loss", "best epoch's",
                                "training, s", "images a second", "parameters", "data", "device",
                                NULL});
    for (const SavedRun *r = runs; r < runs + count; r++) {
        const double accuracy = saved_run_accuracy(r);
        const double best = json_number(saved_run_get(r, "best_test_accuracy"));
        html_row(h, r->name);
        state_cell(h, r);
        number_cell(h, accuracy, "%.2f%%", 100 * accuracy);
        member_cell(h, r, "test_loss", "%.4f");
        number_cell(h, best, "%.2f%%", 100 * best);
        member_cell(h, r, "train_seconds", "%.1f");
        member_cell(h, r, "images_per_s", "%.0f");
        member_cell(h, r, "parameters", "%.0f");
        html_cell(h, "%s", json_text(saved_run_get(r, "data")));
        html_cell(h, "%s, %s", json_text(saved_run_get(r, "device")),
                  json_text(saved_run_get(r, "dtype")));
        html_end_row(h);
    }
    html_end_table(h);
    html_raw(h, "</div>\n");
    html_end_section(h);
}

// ---- options ------------------------------------------------------------------------------------

static bool same_value(const JsonNode *a, const JsonNode *b)
{
    if (!a || !b) return a == b;
    if (a->type == JSON_BOOL && b->type == JSON_BOOL) return a->boolean == b->boolean;
    if (a->type == JSON_STRING || b->type == JSON_STRING)
        return a->type == b->type && strcmp(a->string, b->string) == 0;
    return a->type == b->type ? a->type == JSON_NULL || json_number(a) == json_number(b)
                              : json_number(a) == json_number(b);
}

static const JsonNode *option(const SavedRun *r, const char *name)
{
    return json_get(saved_run_get(r, "options"), name);
}

// Where a run is written to always differs, and says nothing.
static bool differs(const SavedRun *runs, size_t count, const char *name)
{
    if (strcmp(name, "out") == 0 || strcmp(name, "resume") == 0) return false;
    for (size_t i = 1; i < count; i++)
        if (!same_value(option(&runs[0], name), option(&runs[i], name))) return true;
    return false;
}

static bool is_listed(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

// Their names, of all runs: trainers have options of their own.
static size_t find_differing(const SavedRun *runs, size_t count, const char **names)
{
    size_t found = 0;
    for (const SavedRun *r = runs; r < runs + count; r++) {
        const JsonNode *all = saved_run_get(r, "options");
        if (!all || all->type != JSON_OBJECT) continue;
        const JsonNode *v = json_first(all);
        for (size_t i = 0; i < all->count && found < DIFFERING_MAX; i++, v = json_next(v))
            if (differs(runs, count, v->key) && !is_listed(names, found, v->key))
                names[found++] = v->key;
    }
    return found;
}

static void options(Html *h, const SavedRun *runs, size_t count)
{
    const char *names[DIFFERING_MAX], *columns[DIFFERING_MAX + 3] = {"run", "network"};
    const size_t found = find_differing(runs, count, names);
    for (size_t i = 0; i < found; i++) columns[i + 2] = names[i];
    html_section(h, "Options that differ");
    if (found == 0) html_note(h, "None: all have the same options.");
    html_raw(h, "<div class=\"wide\">\n");
    html_table(h, "Networks and options", columns);
    for (const SavedRun *r = runs; r < runs + count; r++) {
        html_row(h, r->name);
        html_cell(h, "%s", json_text(saved_run_get(r, "network")));
        for (size_t i = 0; i < found; i++) {
            html_raw(h, "<td>");
            html_value(h, option(r, names[i]));
            html_raw(h, "</td>");
        }
        html_end_row(h);
    }
    html_end_table(h);
    html_raw(h, "</div>\n");
    html_end_section(h);
}

// ---- curves -------------------------------------------------------------------------------------

// A logarithmic axis is for losses of which some went astray.
static bool is_wide(const Series *series, size_t count)
{
    double low = INFINITY, high = 0;
    for (const Series *s = series; s < series + count; s++)
        for (size_t i = 0; i < s->count; i++)
            if (s->y[i] > 0) low = fmin(low, s->y[i]), high = fmax(high, s->y[i]);
    return high > LOG_AXIS_RATIO * low;
}

// `key` of the records that have it, of all runs: over steps, and over seconds of training.
static void curves(Html *h, const SavedRun *runs, size_t count, const char *name, const char *key,
                   bool loss)
{
    double *columns[RUNS_COMPARED_MAX][3];
    Series over_steps[RUNS_COMPARED_MAX], over_seconds[RUNS_COMPARED_MAX];
    char title[128];
    for (size_t i = 0; i < count; i++) {
        size_t n;
        double **c = columns[i];
        c[0] = log_file_column(&runs[i].log, key, false, "step", &n);
        c[1] = saved_run_seconds(&runs[i], key, &n);
        c[2] = log_file_column(&runs[i].log, key, false, key, &n);
        if (!c[0] || !c[1] || !c[2]) n = 0;
        over_steps[i] = (Series){.name = runs[i].name, .x = c[0], .y = c[2], .count = n};
        over_seconds[i] = (Series){.name = runs[i].name, .x = c[1], .y = c[2], .count = n};
    }
    const bool log_y = loss && is_wide(over_steps, count);
    snprintf(title, sizeof title, "%s over steps", name);
    chart_lines(h, &(LineChart){title, "step", over_steps, count, NAN, NAN, log_y});
    snprintf(title, sizeof title, "%s over time", name);
    chart_lines(h,
                &(LineChart){title, "seconds of training", over_seconds, count, NAN, NAN, log_y});
    for (size_t i = 0; i < count; i++)
        for (int c = 0; c < 3; c++) free(columns[i][c]);
}

int runs_page(const SavedRun *runs, size_t count, const char *path, Error *e)
{
    Html h;
    if (html_open(&h, "Runs compared", 0, e)) return e->status;
    results(&h, runs, count);
    options(&h, runs, count);
    html_section(&h, "Curves");
    html_note(&h, "Training loss: mean per image over the steps since the last point, with label "
                  "smoothing, which the test loss has none of. Evaluations are without test-time "
                  "views. Seconds are of training steps with their loading, without evaluation.");
    curves(&h, runs, count, "Training loss", "loss", true);
    curves(&h, runs, count, "Test loss", "test_loss", true);
    curves(&h, runs, count, "Test accuracy", "test_accuracy", false);
    html_end_section(&h);
    return html_save(&h, path, e);
}
