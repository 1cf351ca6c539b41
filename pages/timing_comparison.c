#include "pages/timing_comparison.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "base/os.h"
#include "base/utf8.h"
#include "pages/members.h"

static const double EQUIVALENCE_MARGIN = 0.05; // of a ratio
static const double CONTROL_TOLERANCE = 0.10;  // of the controls' ratios
static const double OTHERS_MAX = 0.2;          // processors that others may use meanwhile
const char *const verdict_names[] = {"-",      "equivalent",     "slower",
                                     "faster", "too noisy here", "undecided"};

enum { RESAMPLES = 2000 };
static const double CONFIDENCE = 0.95;

// ---- reading ------------------------------------------------------------------------------------

int side_read(Side *s, const char *path, Error *e)
{
    JsonDocument *d = &s->reports[s->count];
    if (s->count == PROCESSES_MAX)
        return fail(e, STATUS_USAGE, "more than %d reports on one side", PROCESSES_MAX);
    if (json_file_read(d, path, e)) return e->status;
    const JsonNode *rows = json_get(d->root, "rows");
    if (strcmp(member_text(d->root, "format"), "nn.c timing 2") != 0 || !rows ||
        rows->type != JSON_ARRAY) {
        json_document_free(d);
        return fail(e, STATUS_DATA, "%s is no bench.json of this version: make one with --bench",
                    path);
    }
    s->names[s->count++] = path;
    return STATUS_OK;
}

void side_free(Side *s)
{
    for (int i = 0; i < s->count; i++) json_document_free(&s->reports[i]);
    s->count = 0;
}

static const JsonNode *find_row(const JsonDocument *d, const char *name)
{
    const JsonNode *rows = json_get(d->root, "rows"), *row = json_first(rows);
    for (size_t i = 0; i < rows->count; i++, row = json_next(row))
        if (strcmp(member_text(row, "name"), name) == 0) return row;
    return NULL;
}

// A member of an object in the report, or of the report itself for "". NULL: there is none.
static const JsonNode *member(const JsonDocument *d, const char *object, const char *key)
{
    return json_get(*object ? json_get(d->root, object) : d->root, key);
}

// ---- what makes a comparison void ---------------------------------------------------------------

static void invalid(Comparison *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void invalid(Comparison *c, const char *format, ...)
{
    va_list args;
    const size_t used = strlen(c->invalid);
    if (used > 0 && used + 2 < sizeof c->invalid) strcat(c->invalid, "; ");
    va_start(args, format);
    vsnprintf(c->invalid + strlen(c->invalid), sizeof c->invalid - strlen(c->invalid), format,
              args);
    va_end(args);
}

static void value_text(const JsonNode *n, char text[static 48])
{
    if (n && n->type == JSON_STRING)
        snprintf(text, 48, "%.40s", n->string);
    else if (n && n->type == JSON_BOOL)
        strcpy(text, n->boolean ? "true" : "false");
    else
        snprintf(text, 48, "%.9g", json_number(n));
}

// All reports must agree with the first one.
static void check_equal(Comparison *c, const Side *sides, const char *object, const char *key,
                        const char *meaning)
{
    char first[48], other[48];
    for (int side = A; side < SIDES; side++)
        for (int i = 0; i < sides[side].count; i++) {
            value_text(member(&sides[A].reports[0], object, key), first);
            value_text(member(&sides[side].reports[i], object, key), other);
            if (strcmp(first, other) == 0) continue;
            invalid(c, "not the same %s: %s, and %s in %.80s", meaning, first, other,
                    sides[side].names[i]);
            return;
        }
}

static void check_comparable(Comparison *c, const Side *sides, bool commits)
{
    check_equal(c, sides, "", "trainer", "trainer");
    check_equal(c, sides, "", "quick", "length (--quick)");
    check_equal(c, sides, "work", "network", "network");
    check_equal(c, sides, "work", "data", "data");
    check_equal(c, sides, "work", "batch_size", "batch size");
    check_equal(c, sides, "work", "graph", "use of graphs");
    check_equal(c, sides, "environment", "device", "device");
    check_equal(c, sides, "environment", "cpu", "processor");
    check_equal(c, sides, "environment", "dtype", "element type");
    check_equal(c, sides, "environment", "threads", "number of threads");
    if (commits) return;
    check_equal(c, sides, "environment", "binary_sha256", "program (--commits allows it)");
    check_equal(c, sides, "work", "loss", "loss");
}

// What other programs did is not what is compared.
static void check_quiet(Comparison *c, const Side *sides)
{
    for (int side = A; side < SIDES; side++)
        for (int i = 0; i < sides[side].count; i++) {
            const double others = member_number(sides[side].reports[i].root, "others");
            if (others > OTHERS_MAX)
                invalid(c, "other programs used %.2f processors during %.80s of %c", others,
                        sides[side].names[i], "AB"[side]);
        }
}

// With intervals a control must lie wholly beyond the tolerance.
static void check_controls(Comparison *c)
{
    const double tolerance = log1p(CONTROL_TOLERANCE);
    for (int i = 0; i < c->count; i++) {
        const ComparedRow *r = &c->rows[i];
        const bool one = isnan(r->low);
        const double low = log(one ? r->ratio : r->low), high = log(one ? r->ratio : r->high);
        if (r->row.kind == ROW_CONTROL && (low > tolerance || high < -tolerance))
            invalid(c, "the control %s differs by %+.0f%%", r->row.name, 100 * (r->ratio - 1));
    }
}

// ---- rows ---------------------------------------------------------------------------------------

// Logarithms of each process' medians: [row][process].
typedef double Logs[ROWS_MAX][PROCESSES_MAX];

static bool read_logs(const Side *s, const char *name, double *logs)
{
    for (int i = 0; i < s->count; i++) {
        const double median = member_number(find_row(&s->reports[i], name), "median");
        if (!(median > 0)) return false;
        logs[i] = log(median);
    }
    return true;
}

static double mean(const double *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return sum / n;
}

static RowKind kind_of(const char *name)
{
    for (int k = 0; row_kinds[k]; k++)
        if (strcmp(name, row_kinds[k]) == 0) return (RowKind)k;
    return ROW_MICRO;
}

// The rows that every report has, in the order of the first.
static void collect_rows(Comparison *c, const Side *sides, Logs logs[static SIDES])
{
    const JsonNode *rows = json_get(sides[A].reports[0].root, "rows"), *row = json_first(rows);
    for (size_t i = 0; i < rows->count && c->count < ROWS_MAX; i++, row = json_next(row)) {
        const char *name = member_text(row, "name");
        ComparedRow *r = &c->rows[c->count];
        if (!read_logs(&sides[A], name, logs[A][c->count]) ||
            !read_logs(&sides[B], name, logs[B][c->count]))
            continue;
        *r =
            (ComparedRow){.row.kind = kind_of(member_text(row, "kind")),
                          .row.higher_is_better = strcmp(member_text(row, "better"), "higher") == 0,
                          .low = NAN,
                          .high = NAN};
        snprintf(r->row.name, sizeof r->row.name, "%s", name);
        snprintf(r->row.unit, sizeof r->row.unit, "%s", member_text(row, "unit"));
        for (int side = A; side < SIDES; side++)
            r->value[side] = exp(mean(logs[side][c->count], sides[side].count));
        r->ratio = r->value[B] / r->value[A];
        c->count++;
    }
}

// ---- intervals ----------------------------------------------------------------------------------

// One resample of the processes, the same for all rows, so that what rows have in common stays.
static void resample(double *difference, const Comparison *c, Logs logs[static SIDES],
                     uint32_t number)
{
    int chosen[SIDES][PROCESSES_MAX];
    for (int side = A; side < SIDES; side++)
        for (int i = 0; i < c->processes[side]; i++)
            chosen[side][i] = (int)philox_below(
                philox(1, (uint32_t)side, number, (uint32_t)i).v[0], // seed 1: reproducible
                (uint32_t)c->processes[side]);
    for (int row = 0; row < c->count; row++) {
        double sum[SIDES] = {0};
        for (int side = A; side < SIDES; side++)
            for (int i = 0; i < c->processes[side]; i++)
                sum[side] += logs[side][row][chosen[side][i]];
        difference[row] = sum[B] / c->processes[B] - sum[A] / c->processes[A];
    }
}

// A normal quantile as one of Student's t with `freedom` degrees (Cornish and Fisher's expansion).
static double student(double z, double freedom)
{
    const double z2 = z * z;
    return z + z * (z2 + 1) / (4 * freedom) +
           z * (5 * z2 * z2 + 16 * z2 + 3) / (96 * freedom * freedom);
}

static Verdict judge(const ComparedRow *r)
{
    const double margin = log1p(EQUIVALENCE_MARGIN);
    const double low = log(r->low), high = log(r->high), at = log(r->ratio);
    if (low > -margin && high < margin) return EQUIVALENT;
    if ((low > 0 || high < 0) && fabs(at) > margin)
        return (at > 0) == r->row.higher_is_better ? FASTER : SLOWER;
    return high - low > 2 * margin ? TOO_NOISY : UNDECIDED;
}

// Intervals ratio * exp(+- q s): s is the bootstrap's standard error of each row, q the quantile of
// the largest |deviation| / s over all rows, widened as Student's t for few processes.
static int make_intervals(Comparison *c, Logs logs[static SIDES], Error *e)
{
    double(*draws)[ROWS_MAX] = malloc(RESAMPLES * sizeof *draws);
    double *largest = calloc(RESAMPLES, sizeof *largest), error[ROWS_MAX] = {0};
    if (!draws || !largest) {
        free(draws);
        free(largest);
        return fail(e, STATUS_IO, "not enough memory for the bootstrap");
    }
    for (uint32_t i = 0; i < RESAMPLES; i++) resample(draws[i], c, logs, i);
    for (int row = 0; row < c->count; row++) {
        const double at = log(c->rows[row].ratio);
        for (int i = 0; i < RESAMPLES; i++)
            error[row] += (draws[i][row] - at) * (draws[i][row] - at) / RESAMPLES;
        error[row] = sqrt(error[row]);
        for (int i = 0; i < RESAMPLES && error[row] > 0; i++)
            largest[i] = fmax(largest[i], fabs(draws[i][row] - at) / error[row]);
    }
    qsort(largest, RESAMPLES, sizeof *largest, ascending_doubles);
    const int fewest = c->processes[A] < c->processes[B] ? c->processes[A] : c->processes[B];
    const double q =
        student(largest[(int)(CONFIDENCE * RESAMPLES)], c->processes[A] + c->processes[B] - SIDES) *
        sqrt((double)fewest / (fewest - 1));
    for (int row = 0; row < c->count; row++) {
        ComparedRow *r = &c->rows[row];
        r->low = r->ratio * exp(-q * error[row]);
        r->high = r->ratio * exp(q * error[row]);
        r->verdict = judge(r);
    }
    free(draws);
    free(largest);
    return STATUS_OK;
}

// Of training: as the fastest steps are, if they differ; else as the rows about it that do, unless
// these contradict each other; equivalent if none differs and the fastest steps are equivalent.
static Verdict judge_all(const Comparison *c)
{
    Verdict step = UNDECIDED;
    bool slower = false, faster = false;
    for (int i = 0; i < c->count; i++) {
        const Verdict v = c->rows[i].verdict;
        if (strcmp(c->rows[i].row.name, "step_fastest") == 0) step = v;
        if (c->rows[i].row.kind != ROW_MACRO) continue;
        slower = slower || v == SLOWER;
        faster = faster || v == FASTER;
    }
    if (step == SLOWER || step == FASTER) return step;
    if (slower && faster) return UNDECIDED;
    if (slower || faster) return slower ? SLOWER : FASTER;
    return step == EQUIVALENT ? EQUIVALENT : UNDECIDED;
}

// ---- the difference in step time ----------------------------------------------------------------

static double mean_of(const Side *s, const char *object, const char *key)
{
    double sum = 0;
    for (int i = 0; i < s->count; i++) sum += json_number(member(&s->reports[i], object, key));
    return sum / s->count;
}

static double value_of(const Comparison *c, int side, const char *name, const char *otherwise)
{
    for (const char *n = name; n; n = n == name ? otherwise : NULL)
        for (int i = 0; i < c->count; i++)
            if (strcmp(c->rows[i].row.name, n) == 0) return c->rows[i].value[side];
    return 0;
}

// ms of a step by cause: launches, waits, bytes, the loader, idling otherwise.
static void model_step(const Comparison *c, const Side *s, int side, double ms[static PARTS])
{
    const bool device =
        strncmp(json_text(member(&s->reports[0], "environment", "device_kind")), "cuda", 4) == 0;
    const double rate = value_of(c, side, "h2d_pinned_262144", "upload_256kb"); // GB/s
    ms[0] = 1e-3 * mean_of(s, "step", "launches") * value_of(c, side, "launch_async", "fork_join");
    ms[1] = 1e-3 * mean_of(s, "step", "waits") * value_of(c, side, "stream_sync_idle", "wait_idle");
    ms[2] = rate > 0 ? 1e-6 * mean_of(s, "step", "uploaded_bytes") / rate : 0;
    ms[3] = mean_of(s, "step", "loader_wait_ms");
    // On a GPU the host idles while the device computes, which says nothing.
    ms[4] = device ? 0 : fmax(0, mean_of(s, "step", "idle_ms") - ms[3]);
}

static void explain(Comparison *c, const Side *sides)
{
    static const char *const names[PARTS] = {"launches",
                                             "waits for the device",
                                             "bytes to the device",
                                             "waiting for data",
                                             "waiting: a sleep, a lock, another program",
                                             "computing and the rest"};
    double ms[SIDES][PARTS] = {{0}};
    for (int side = A; side < SIDES; side++) {
        c->step[side] = mean_of(&sides[side], "step", "mean_ms");
        model_step(c, &sides[side], side, ms[side]);
    }
    const double whole = c->step[B] - c->step[A];
    double rest = whole;
    for (int i = 0; i < PARTS; i++) {
        c->parts[i] = (Part){names[i], i == PARTS - 1 ? rest : ms[B][i] - ms[A][i]};
        rest -= c->parts[i].ms;
        if (c->parts[i].ms * whole > 0 && (!c->cause || fabs(c->parts[i].ms) > fabs(c->cause->ms)))
            c->cause = &c->parts[i];
    }
}

int comparison_make(Comparison *c, const Side sides[static SIDES], bool commits, Error *e)
{
    static Logs logs[SIDES];
    *c = (Comparison){.processes = {sides[A].count, sides[B].count}};
    collect_rows(c, sides, logs);
    if (c->count == 0) return fail(e, STATUS_DATA, "the reports have no row in common");
    for (int side = A; side < SIDES; side++) c->others[side] = mean_of(&sides[side], "", "others");
    check_comparable(c, sides, commits);
    check_quiet(c, sides);
    explain(c, sides);
    const bool enough = c->processes[A] >= PROCESSES_MIN && c->processes[B] >= PROCESSES_MIN;
    if (enough && make_intervals(c, logs, e)) return e->status;
    check_controls(c);
    if (!enough) return STATUS_OK;
    for (int i = 0; c->invalid[0] && i < c->count; i++) c->rows[i].verdict = NO_VERDICT;
    if (!c->invalid[0]) c->verdict = judge_all(c);
    return STATUS_OK;
}

// ---- text ---------------------------------------------------------------------------------------

void comparison_conclusion(const Comparison *c, char text[static 256])
{
    int of[UNDECIDED + 1] = {0};
    for (int i = 0; i < c->count; i++) of[c->rows[i].verdict]++;
    if (c->invalid[0])
        snprintf(text, 256, "void: see why below");
    else if (c->verdict == NO_VERDICT)
        snprintf(text, 256, "no verdict: it needs %d processes a side, there are %d and %d",
                 PROCESSES_MIN, c->processes[A], c->processes[B]);
    else
        snprintf(text, 256,
                 "training is %s%s (of all rows %d equivalent, %d slower, %d faster, %d undecided, "
                 "%d too noisy)",
                 verdict_names[c->verdict],
                 c->verdict == SLOWER || c->verdict == FASTER ? " in B" : "", of[EQUIVALENT],
                 of[SLOWER], of[FASTER], of[UNDECIDED], of[TOO_NOISY]);
}

void comparison_explanation(const Comparison *c, char text[static 512])
{
    const double whole = c->step[B] - c->step[A];
    if (fabs(whole) < EQUIVALENCE_MARGIN * c->step[A] || !c->cause) {
        snprintf(text, 512, "a step takes %.4g ms in A and %.4g ms in B: within the margin",
                 c->step[A], c->step[B]);
        return;
    }
    const int used = snprintf(
        text, 512, "a step takes %.3g ms %s in B (%.4g after %.4g); most of it is %s (%+.3g ms)",
        fabs(whole), whole > 0 ? "longer" : "less", c->step[B], c->step[A], c->cause->name,
        c->cause->ms);
    if (fabs(c->others[B] - c->others[A]) > 0.25)
        snprintf(text + used, 512 - (size_t)used,
                 "; other programs used %.2f processors beside A, %.2f beside B", c->others[A],
                 c->others[B]);
}

enum { ESCAPED = 4 }; // bytes that utf8_escape() makes of one, at most

static void print_row(const ComparedRow *r)
{
    char name[ESCAPED * ROW_NAME], unit[ESCAPED * ROW_UNIT], interval[32] = "";
    utf8_escape(name, sizeof name, r->row.name, 0);
    utf8_escape(unit, sizeof unit, r->row.unit, 0);
    if (!isnan(r->low)) snprintf(interval, sizeof interval, "%.3f to %.3f", r->low, r->high);
    printf("%-8s %-26s %-8s %10.5g %10.5g %7.3f  %-16s %s\n", row_kinds[r->row.kind], name, unit,
           r->value[A], r->value[B], r->ratio, interval, verdict_names[r->verdict]);
}

void comparison_print(const Comparison *c)
{
    char text[512];
    printf("%-8s %-26s %-8s %10s %10s %7s  %-16s\n", "", "", "unit", "A", "B", "B/A",
           "simultaneous 95%");
    for (int kind = ROW_MICRO; kind <= ROW_MACRO; kind++)
        for (int i = 0; i < c->count; i++)
            if ((int)c->rows[i].row.kind == kind) print_row(&c->rows[i]);
    comparison_explanation(c, text);
    printf("\nstep       %s\n", text);
    for (int i = 0; i < PARTS; i++)
        printf("           %+9.4f ms  %s\n", c->parts[i].ms, c->parts[i].name);
    comparison_conclusion(c, text);
    printf("conclusion %s\n", text);
    if (!c->invalid[0]) return;
    char invalid_text[ESCAPED * sizeof c->invalid];
    utf8_escape(invalid_text, sizeof invalid_text, c->invalid, 0);
    printf("void       %s\n", invalid_text);
}
