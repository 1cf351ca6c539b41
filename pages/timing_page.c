// compare.html: the comparison as a page.
#include <math.h>
#include <string.h>

#include "pages/chart.h"
#include "pages/timing_comparison.h"
#include "pages/members.h"

static const char *const SIDE_NAMES[SIDES] = {"A", "B"};

enum { PERCENT_MAX = 250 }; // of a bar

// The first row about the device: train/bench_device.c.
static int first_of_device(const Comparison *c)
{
    int i = 0;
    while (i < c->count && strcmp(c->rows[i].row.name, "operation") != 0) i++;
    return i;
}

// B in percent of A, with intervals, for the rows of one kind among [from, to).
static void ratio_chart(Html *h, const Comparison *c, RowKind kind, int from, int to,
                        const char *title)
{
    Bar bars[ROWS_MAX];
    size_t count = 0;
    for (int i = from; i < to; i++) {
        const ComparedRow *r = &c->rows[i];
        if (r->row.kind != kind) continue;
        const bool differs = r->verdict == SLOWER || r->verdict == FASTER;
        bars[count++] = (Bar){
            .name = r->row.name,
            .value = fmin(100 * r->ratio, PERCENT_MAX),
            .low = isnan(r->low) ? 0 : 100 * r->low,
            .high = isnan(r->low) ? 0 : fmin(100 * r->high, PERCENT_MAX),
            .color = differs                    ? 1
                     : r->verdict == EQUIVALENT ? 2
                                                : 0,
        };
    }
    if (count == 0) return;
    chart_bars(h,
               &(BarChart){.title = title, .unit = "%", .bars = bars, .count = count, .max = 120});
}

static void step_chart(Html *h, const Comparison *c)
{
    Bar bars[SIDES];
    for (int side = A; side < SIDES; side++)
        bars[side] = (Bar){.name = SIDE_NAMES[side], .value = c->step[side], .color = side};
    chart_bars(h, &(BarChart){.title = "A step, on average",
                              .unit = " ms",
                              .bars = bars,
                              .count = SIDES,
                              .max = NAN});
}

static void parts_table(Html *h, const Comparison *c)
{
    html_table(h, "Where the difference of a step comes from", "",
               (const char *[]){"part", "B - A, ms", NULL});
    for (int i = 0; i < PARTS; i++) {
        html_row(h, c->parts[i].name);
        html_number(h, "%+.4f", c->parts[i].ms);
    }
    html_end_table(h);
}

static void rows_table(Html *h, const Comparison *c)
{
    html_table(
        h, "Every row", "wide",
        (const char *[]){"row", "kind", "unit", "A", "B", "B / A", "from", "to", "B is", NULL});
    for (int i = 0; i < c->count; i++) {
        const ComparedRow *r = &c->rows[i];
        html_row(h, r->row.name);
        html_cell(h, "%s", row_kinds[r->row.kind]);
        html_cell(h, "%s", r->row.unit);
        html_number(h, "%.5g", r->value[A]);
        html_number(h, "%.5g", r->value[B]);
        html_number(h, "%.3f", r->ratio);
        html_number(h, isnan(r->low) ? "-" : "%.3f", r->low);
        html_number(h, isnan(r->low) ? "-" : "%.3f", r->high);
        html_cell(h, "%s", verdict_names[r->verdict]);
    }
    html_end_table(h);
}

static void environment_table(Html *h, const Side *sides)
{
    static const char *const keys[] = {"platform", "device",       "cpu",      "kernel",
                                       "driver",   "clock_source", "governor", "load"};
    html_table(h, "The machines", "wide", (const char *[]){"", "A", "B", NULL});
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        html_row(h, keys[i]);
        for (int side = A; side < SIDES; side++) {
            const JsonNode *all = json_get(sides[side].reports[0].root, "environment");
            html_cell(h, "%s", member_text(all, keys[i]));
        }
    }
    html_end_table(h);
}

int comparison_page(const Comparison *c, const Side sides[static SIDES], const char *path, Error *e)
{
    Html h;
    char text[512];
    if (html_open(&h, "nn.c: two sides compared", 0, e)) return e->status;
    html_section(&h, "Conclusion");
    comparison_conclusion(c, text);
    html_raw(&h, "<p>");
    html_element(&h, "strong", "%s", text);
    html_raw(&h, "</p>\n");
    if (c->invalid[0]) html_note(&h, "Void: %s.", c->invalid);
    comparison_explanation(c, text);
    html_note(&h, "%s.", text);
    html_note(&h,
              "%d processes in A, %d in B. A row is equivalent if its interval lies within "
              "5%% of 1. All intervals hold together with 95%% confidence.",
              c->processes[A], c->processes[B]);
    step_chart(&h, c);
    parts_table(&h, c);
    html_section(&h, "B in percent of A");
    html_note(&h, "Green: equivalent. Orange: slower or faster. Blue: undecided, too noisy, or no "
                  "verdict. 100%% is no difference; thin lines are the intervals; what is beyond "
                  "250%% ends there.");
    const int device = first_of_device(c);
    ratio_chart(&h, c, ROW_MACRO, 0, c->count, "Training");
    ratio_chart(&h, c, ROW_CONTROL, 0, c->count, "Controls, which must agree");
    ratio_chart(&h, c, ROW_MICRO, 0, device, "Machine");
    ratio_chart(&h, c, ROW_MICRO, device, c->count, "Device");
    html_section(&h, "Figures");
    rows_table(&h, c);
    html_section(&h, "Environment");
    environment_table(&h, sides);
    return html_save(&h, path, e);
}
