#include <string.h>

#include "pages/chart.h"
#include "pages/members.h"
#include "pages/report_page.h"

enum { LAYERS_MAX = 512 };

// In the order in which a step first comes to them.
static void layers(Html *h, const JsonNode *profile, const JsonNode *operations)
{
    Bar bars[LAYERS_MAX + 1];
    double between = member_number(profile, "step_ms");
    size_t count = 0;
    const JsonNode *o = json_first(operations);
    for (size_t i = 0; i < operations->count; i++, o = json_next(o)) {
        const char *layer = member_text(o, "layer");
        size_t at = 0;
        while (at < count && strcmp(bars[at].name, layer) != 0) at++;
        if (at == LAYERS_MAX) continue;
        if (at == count) bars[count++] = (Bar){.name = layer};
        bars[at].value += member_number(o, "ms");
        between -= member_number(o, "ms");
    }
    bars[count] = (Bar){.name = "between", .value = between > 0 ? between : 0, .color = 1};
    chart_bars(h, &(BarChart){"Time of a step by layer", " ms", bars, count + 1, NAN});
}

static void operation(Html *h, const JsonNode *o)
{
    html_row(h, member_text(o, "operation"));
    html_cell(h, "%s", member_text(o, "layer"));
    html_cell(h, "%s", member_text(o, "shape"));
    html_number(h, "%.3g", member_number(o, "calls"));
    html_number(h, "%.3f", member_number(o, "ms"));
    html_number(h, "%.1f%%", 100 * member_number(o, "share"));
    if (member_number(o, "flop") > 0)
        html_number(h, "%.1f", member_number(o, "gflop_per_s"));
    else
        html_number(h, "–");
    html_number(h, "%.2f", member_number(o, "gb_per_s"));
    html_number(h, "%.0f%%", 100 * member_number(o, "of_ceiling"));
}

void report_profile(Html *h, const JsonNode *profile)
{
    static const char *const columns[] = {"operation", "layer",   "shape", "calls",      "ms",
                                          "share",     "GFLOP/s", "GB/s",  "of ceiling", NULL};
    const JsonNode *operations = json_get(profile, "operations");
    if (!operations || operations->type != JSON_ARRAY) return;
    html_section(h, "Where a step goes");
    html_note(h,
              "%.0f steps of %.4g ms, each call timed. The ceiling is that of what bounds a call: "
              "a matrix product reached %.4g GFLOP/s, products of vectors the bandwidth of their "
              "size. Winograd's algorithm and gradients that are known to be zero can be above it.",
              member_number(profile, "steps"), member_number(profile, "step_ms"),
              member_number(json_get(profile, "ceilings"), "gflop_per_s"));
    layers(h, profile, operations);
    html_raw(h, "<details><summary>Operations as numbers</summary>\n");
    html_table(h, "Operations in the order of a step", "", columns);
    const JsonNode *o = json_first(operations);
    for (size_t i = 0; i < operations->count; i++, o = json_next(o)) operation(h, o);
    html_end_table(h);
    html_raw(h, "</details>\n");
}
