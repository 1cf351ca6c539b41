#include "tools/profile_page.h"

#include "runtime/chart.h"

static void layers(Html *h, const ProfileReport *r)
{
    LayerTime times[PROFILE_ENTRIES_MAX];
    Bar bars[PROFILE_ENTRIES_MAX + 1];
    double between = r->profile.step_seconds;
    const int count = profile_layers(r, times);
    for (int i = 0; i < count; i++) {
        bars[i] = (Bar){.name = times[i].layer, .value = 1e3 * times[i].seconds};
        between -= times[i].seconds;
    }
    bars[count] = (Bar){.name = "between", .value = between > 0 ? 1e3 * between : 0, .color = 1};
    chart_bars(h, &(BarChart){"Time of a step by layer", " ms", bars, (size_t)count + 1, NAN});
}

static void operation(Html *h, const ProfileReport *r, const ProfileEntry *e)
{
    bool arithmetic;
    const double steps = (double)r->profile.steps, mean = e->seconds / (double)e->calls;
    const double least = profile_floor(r, e, &arithmetic);
    html_row(h, e->operation);
    html_cell(h, "%s", e->layer);
    html_cell(h, "%s", e->shape);
    html_number(h, "%.3g", (double)e->calls / steps);
    html_number(h, "%.3f", 1e3 * e->seconds / steps);
    html_number(h, "%.1f%%", 100 * e->seconds / steps / r->profile.step_seconds);
    if (e->flop > 0)
        html_number(h, "%.1f", 1e-9 * e->flop / mean);
    else
        html_number(h, "–");
    html_number(h, "%.2f", 1e-9 * e->bytes / mean);
    html_number(h, "%.0f%%", 100 * least / mean);
    html_end_row(h);
}

void profile_page(Html *h, const ProfileReport *r)
{
    static const char *const columns[] = {"operation", "layer",   "shape", "calls",      "ms",
                                          "share",     "GFLOP/s", "GB/s",  "of ceiling", NULL};
    const Profile *p = &r->profile;
    if (p->steps == 0) return;
    html_section(h, "Where a step goes");
    html_note(h,
              "%lld steps of %.4g ms, each call timed. The ceiling is that of what bounds a call: "
              "a matrix product reached %.4g GFLOP/s, products of vectors the bandwidth of their "
              "size. Winograd's algorithm and gradients that are known to be zero can be above it.",
              (long long)p->steps, 1e3 * p->step_seconds, 1e-9 * r->ceilings.flop);
    layers(h, r);
    html_raw(h, "<details><summary>Operations as numbers</summary>\n");
    html_table(h, "Operations in the order of a step", columns);
    for (int i = 0; i < p->count; i++) operation(h, r, &p->entries[i]);
    html_end_table(h);
    html_raw(h, "</details>\n");
    html_end_section(h);
}
