#include "base/timing_rows.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

const char *const row_kinds[] = {"micro", "control", "macro", NULL};

enum { BATCHES_MIN = 3, BATCHES_MAX = 200 };

int ascending_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Of sorted values, between the two nearest ranks.
static double percentile(const double *sorted, int count, double share)
{
    const double at = share * (count - 1);
    const int below = (int)at;
    const double above = sorted[below + 1 < count ? below + 1 : below];
    return sorted[below] + (at - below) * (above - sorted[below]);
}

void rows_add(Rows *r, Row row, double *values, int count)
{
    assert(r->count < ROWS_MAX && count > 0);
    qsort(values, (size_t)count, sizeof *values, ascending_doubles);
    row.samples = count;
    row.median = percentile(values, count, 0.5);
    row.p10 = percentile(values, count, 0.1);
    row.p90 = percentile(values, count, 0.9);
    row.p99 = percentile(values, count, 0.99);
    row.max = values[count - 1];
    r->rows[r->count++] = row;
}

static double units_a_second(const char *unit)
{
    return strcmp(unit, "ns") == 0 ? 1e9 : strcmp(unit, "us") == 0 ? 1e6 : 1e3;
}

static double time_calls(int calls, void (*work)(void *), void (*after)(void *), void *context)
{
    const double began = os_seconds();
    for (int i = 0; i < calls; i++) work(context);
    if (after) after(context);
    return os_seconds() - began;
}

void rows_measure(Rows *r, Row row, double amount, void (*work)(void *), void (*after)(void *),
                  void *context)
{
    const double began = os_seconds();
    int calls = 1, warm = 0;
    double seconds = 0, values[BATCHES_MAX];
    // Warm-up, which also finds how many calls fill a batch.
    while (seconds < r->batch_seconds ||
           (warm < WARMUP_CALLS && os_seconds() - began < r->warmup_seconds)) {
        seconds = time_calls(calls, work, after, context);
        warm += calls;
        if (seconds < r->batch_seconds) calls *= 2;
    }
    int count = 0;
    do {
        const double one = time_calls(calls, work, after, context) / calls;
        values[count++] = amount > 0 ? amount / one : one * units_a_second(row.unit);
    } while (count < r->batches && (count < BATCHES_MIN || os_seconds() - began < r->row_seconds));
    row.higher_is_better = amount > 0;
    rows_add(r, row, values, count);
}

double rows_median(const Rows *r, const char *name)
{
    for (int i = 0; i < r->count; i++)
        if (strcmp(r->rows[i].name, name) == 0) return r->rows[i].median;
    return NAN;
}

void rows_json(const Rows *r, Json *j)
{
    json_array(j, "rows");
    for (int i = 0; i < r->count; i++) {
        const Row *row = &r->rows[i];
        json_object(j, NULL);
        json_string(j, "name", row->name);
        json_string(j, "kind", row_kinds[row->kind]);
        json_string(j, "unit", row->unit);
        json_string(j, "better", row->higher_is_better ? "higher" : "lower");
        json_int(j, "samples", row->samples);
        json_rounded(j, "median", row->median, 6);
        json_rounded(j, "p10", row->p10, 6);
        json_rounded(j, "p90", row->p90, 6);
        json_rounded(j, "p99", row->p99, 6);
        json_rounded(j, "max", row->max, 6);
        json_end(j);
    }
    json_end(j);
}

void rows_print(const Rows *r)
{
    printf("%-8s %-28s %-10s %10s %10s %10s %10s\n", "", "", "unit", "median", "p10", "p90", "max");
    for (int kind = ROW_MICRO; kind <= ROW_MACRO; kind++)
        for (int i = 0; i < r->count; i++) {
            const Row *row = &r->rows[i];
            if ((int)row->kind != kind) continue;
            printf("%-8s %-28s %-10s %10.5g %10.4g %10.4g %10.4g\n", row_kinds[kind], row->name,
                   row->unit, row->median, row->p10, row->p90, row->max);
        }
}
