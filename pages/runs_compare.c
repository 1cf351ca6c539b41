// The page of runs compared: results, what differs, and their curves over each other.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "pages/chart.h"
#include "pages/html.h"
#include "pages/members.h"
#include "pages/runs.h"

enum { DIFFERING_MAX = 64, POINTS_MAX = 100 };

// From this ratio on, a linear axis would not show the lowest losses.
static const double LOG_AXIS_RATIO = 1000;

// ---- results ------------------------------------------------------------------------------------

// A row's name with the key of the run's curves.
static void begin_row(Html *h, const SavedRun *runs, size_t i)
{
    html_begin_row(h);
    html_raw(h, "<th scope=\"row\">");
    chart_key(h, i);
    html_text(h, "%s", runs[i].name);
    html_raw(h, "</th>");
}

static void member_cell(Html *h, const SavedRun *r, const char *key, const char *format)
{
    const double value = json_number(saved_run_get(r, key));
    html_data_cell(h, value, format, value);
}

static void state_cell(Html *h, const SavedRun *r)
{
    const char *state = run_state_names[r->state];
    const double planned = json_number(saved_run_get(r, "planned_epochs"));
    const JsonNode *last = saved_log_last(&r->log, "epoch");
    if (r->state == RUN_FINISHED || !last || isnan(planned))
        html_cell(h, "%s", state);
    else
        html_cell(h, "%s, epoch %.3g of %.4g", state, member_number(last, "epoch"), planned);
}

static void results(Html *h, const SavedRun *runs, size_t count)
{
    html_table(h, "Results", "wide",
               (const char *[]){"run", "test accuracy", "test loss", "best epoch's accuracy",
                                "seconds of training", "images a second", "parameters", "state",
                                NULL});
    for (size_t i = 0; i < count; i++) {
        const SavedRun *r = &runs[i];
        const double accuracy = saved_run_result(r, "test_accuracy");
        const double loss = saved_run_result(r, "test_loss");
        const double best = json_number(saved_run_get(r, "best_test_accuracy"));
        begin_row(h, runs, i);
        html_data_cell(h, accuracy, "%.2f%%", 100 * accuracy);
        html_data_cell(h, loss, "%.4f", loss);
        html_data_cell(h, best, "%.2f%%", 100 * best);
        member_cell(h, r, "train_seconds", "%.1f");
        member_cell(h, r, "images_per_s", "%.0f");
        member_cell(h, r, "parameters", "%.0f");
        state_cell(h, r);
    }
    html_end_table(h);
}

// ---- what differs -------------------------------------------------------------------------------

// What a run tells beside its options.
static const char *const FACTS[] = {"network", "data", "device", "dtype", "platform", "compiler"};
enum { FACTS_COUNT = sizeof FACTS / sizeof *FACTS };

static bool is_listed(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

static const JsonNode *setting(const SavedRun *r, const char *name)
{
    if (is_listed(FACTS, FACTS_COUNT, name)) return saved_run_get(r, name);
    return json_get(saved_run_get(r, "options"), name);
}

static bool same_value(const JsonNode *a, const JsonNode *b)
{
    if (!a || !b) return a == b;
    if (a->type == JSON_STRING && b->type == JSON_STRING) return strcmp(a->string, b->string) == 0;
    if (a->type == JSON_BOOL && b->type == JSON_BOOL) return a->boolean == b->boolean;
    if (a->type == JSON_NULL || b->type == JSON_NULL) return a->type == b->type;
    return json_number(a) == json_number(b);
}

// Where a run is written to always differs, and says nothing.
static bool differs(const SavedRun *runs, size_t count, const char *name)
{
    if (strcmp(name, "out") == 0 || strcmp(name, "resume") == 0) return false;
    for (size_t i = 1; i < count; i++)
        if (!same_value(setting(&runs[0], name), setting(&runs[i], name))) return true;
    return false;
}

// Facts first, then options of all runs: trainers have some of their own.
static size_t find_differing(const SavedRun *runs, size_t count, const char **names)
{
    size_t found = 0;
    for (size_t i = 0; i < FACTS_COUNT; i++)
        if (differs(runs, count, FACTS[i])) names[found++] = FACTS[i];
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

static void equal_facts(Html *h, const SavedRun *runs, size_t count)
{
    html_raw(h, "<p class=\"note\">");
    const char *before = count > 1 ? "All have " : "";
    for (size_t i = 0; i < FACTS_COUNT; i++) {
        if (!setting(&runs[0], FACTS[i]) || differs(runs, count, FACTS[i])) continue;
        html_text(h, "%s%s ", before, FACTS[i]);
        html_value(h, setting(&runs[0], FACTS[i]));
        before = "; ";
    }
    html_raw(h, "</p>\n");
}

static void differences(Html *h, const SavedRun *runs, size_t count)
{
    const char *names[DIFFERING_MAX], *columns[DIFFERING_MAX + 2] = {"run"};
    const size_t found = find_differing(runs, count, names);
    if (count > 1 && found == 0) html_note(h, "They have the same options.");
    if (found == 0) return;
    memcpy(columns + 1, names, found * sizeof *names);
    html_table(h, "What differs", "wide", columns);
    for (size_t i = 0; i < count; i++) {
        begin_row(h, runs, i);
        for (size_t c = 0; c < found; c++) {
            html_raw(h, "<td>");
            html_value(h, setting(&runs[i], names[c]));
            html_raw(h, "</td>");
        }
    }
    html_end_table(h);
}

// ---- curves -------------------------------------------------------------------------------------

static bool is_wide(const Series *series, size_t count)
{
    double low = INFINITY, high = 0;
    for (const Series *s = series; s < series + count; s++)
        for (size_t i = 0; i < s->count; i++)
            if (s->y[i] > 0) low = fmin(low, s->y[i]), high = fmax(high, s->y[i]);
    return high > LOG_AXIS_RATIO * low;
}

// Means of neighbours, so that at most POINTS_MAX are left: of several noisy curves the last would
// hide the others. Each stands where its last one does. Returns how many.
static size_t take_means(double *steps, double *seconds, double *values, size_t n)
{
    const size_t group = (n + POINTS_MAX - 1) / POINTS_MAX;
    size_t left = 0;
    for (size_t first = 0; first < n; first += group, left++) {
        const size_t end = first + group < n ? first + group : n;
        double sum = 0;
        for (size_t i = first; i < end; i++) sum += values[i];
        values[left] = sum / (double)(end - first);
        steps[left] = steps[end - 1];
        seconds[left] = seconds[end - 1];
    }
    return left;
}

// `key` of the records that have it, of all runs: over steps, and over seconds of training.
static void curves(Html *h, SavedRun *runs, size_t count, const char *name, const char *key,
                   bool loss)
{
    Series over_steps[RUNS_COMPARED_MAX], over_seconds[RUNS_COMPARED_MAX];
    char title[128];
    size_t points = 0;
    for (size_t i = 0; i < count; i++) {
        size_t n;
        double *steps = saved_log_column(&runs[i].log, key, "step", &n);
        double *seconds = saved_log_seconds(&runs[i].log, key, &n);
        double *values = saved_log_column(&runs[i].log, key, key, &n);
        n = steps && seconds && values ? take_means(steps, seconds, values, n) : 0;
        points += n;
        over_steps[i] = (Series){.name = runs[i].name, .x = steps, .y = values, .count = n};
        over_seconds[i] = (Series){.name = runs[i].name, .x = seconds, .y = values, .count = n};
    }
    if (!loss && points == 0) return; // networks that know no classes, or no test yet
    const bool log_y = loss && is_wide(over_steps, count);
    snprintf(title, sizeof title, "%s over steps", name);
    chart_lines(h, &(LineChart){title, "step", over_steps, count, NAN, NAN, log_y});
    snprintf(title, sizeof title, "%s over time", name);
    chart_lines(h,
                &(LineChart){title, "seconds of training", over_seconds, count, NAN, NAN, log_y});
}

int runs_compare(SavedRun *runs, size_t count, const char *path, Error *e)
{
    Html h;
    if (html_open(&h, "Runs compared", 0, e)) return e->status;
    html_section(&h, "Runs");
    equal_facts(&h, runs, count);
    results(&h, runs, count);
    differences(&h, runs, count);
    html_section(&h, "Curves");
    html_note(
        &h,
        "Training loss has label smoothing, test loss has none; evaluations are without "
        "test-time views. Of more than %d points, means of neighbours are drawn. Time is that "
        "of training steps with their loading, without evaluation.",
        POINTS_MAX);
    curves(&h, runs, count, "Training loss", "loss", true);
    curves(&h, runs, count, "Test loss", "test_loss", true);
    curves(&h, runs, count, "Test accuracy", "test_accuracy", false);
    return html_save(&h, path, e);
}
