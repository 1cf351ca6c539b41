#include "pages/chart.h"

#include <stdbool.h>
#include <stdio.h>

#include "base/utf8.h"

enum { COLORS = 6, POINTS_MAX = 1000, DOTS_MAX = 40, TICKS_MAX = 20 };
enum { WIDTH = 420, HEIGHT = 240, LEFT = 52, RIGHT = 10, TOP = 10, BOTTOM = 36 }; // of line charts
enum { BAR_STEP = 24, BAR_HEIGHT = 14, NAME_LETTERS = 20, VALUE_WIDTH = 70 };
enum { NAME_BYTES = 4 * NAME_LETTERS + 1 };
static const double LETTER =
    7.2; // about a letter's width on a phone, where the style has larger ones

// Every sixth curve has its colour again, with other dashes.
static const char *const DASHES[] = {"", "6 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2"};

typedef struct Axis {
    double min, max, tick; // of a logarithmic one their logarithms, and the tick is 1
    bool log;
} Axis;

double chart_tick(double range, int most)
{
    const double rough = range / most, power = pow(10, floor(log10(rough)));
    const double factors[] = {1, 2, 5};
    for (int i = 0; i < 3; i++)
        if (factors[i] * power >= rough * (1 - 1e-9)) return factors[i] * power;
    return 10 * power;
}

// The smallest whole number of ticks around min .. max.
static Axis axis_around(double min, double max, int ticks)
{
    const double room = fmax(fabs(min), fabs(max)) * 1e-3;
    if (max - min < 1e-3 * room || max == min) {
        min -= room > 0 ? room : 1;
        max += room > 0 ? room : 1;
    }
    const double tick = chart_tick(max - min, ticks);
    return (Axis){floor(min / tick + 1e-9) * tick, ceil(max / tick - 1e-9) * tick, tick, false};
}

// Whole powers of ten around min .. max.
static Axis log_axis_around(double min, double max)
{
    const double first = floor(log10(min) + 1e-9), last = ceil(log10(max) - 1e-9);
    return (Axis){first, fmax(last, first + 1), ceil((last - first) / 6) + (last == first), true};
}

static void format_tick(char text[static 32], double value, double tick)
{
    const char *const suffixes[] = {"", "k", "M", "G"};
    int suffix = 0;
    for (; suffix < 3 && tick >= 1000 && fabs(value) > 0; suffix++) value /= 1000, tick /= 1000;
    const int decimals = tick < 1 ? (int)ceil(-log10(tick) - 1e-9) : 0;
    if (decimals > 4)
        snprintf(text, 32, "%.2g", fabs(value) < tick / 2 ? 0.0 : value);
    else
        snprintf(text, 32, "%.*f%s", decimals, value, suffixes[suffix]);
}

// Numbers come from files: beyond these, no arithmetic on them could overflow or lose an axis.
static bool plausible(double value)
{
    return value == 0 || (fabs(value) >= 1e-30 && fabs(value) <= 1e30);
}

static bool shown(const Series *s, size_t i, bool log_y)
{
    return plausible(s->x[i]) && plausible(s->y[i]) && (!log_y || s->y[i] > 0);
}

static size_t series_stride(const Series *s)
{
    return (s->count + POINTS_MAX - 1) / POINTS_MAX;
}

// The points' extent; false without any.
static bool extent(const LineChart *c, Axis *x, Axis *y)
{
    *x = *y = (Axis){.min = INFINITY, .max = -INFINITY};
    for (size_t s = 0; s < c->count; s++)
        for (size_t i = 0; i < c->series[s].count; i++) {
            if (!shown(&c->series[s], i, c->log_y)) continue;
            x->min = fmin(x->min, c->series[s].x[i]), x->max = fmax(x->max, c->series[s].x[i]);
            y->min = fmin(y->min, c->series[s].y[i]), y->max = fmax(y->max, c->series[s].y[i]);
        }
    if (!(x->min <= x->max)) return false;
    x->min = fmin(x->min, 0); // a run starts at 0
    y->min = fmin(y->min, c->y_min), y->max = fmax(y->max, c->y_max);
    return true;
}

static double place(const Axis *a, double value, double first, double last)
{
    return first + (last - first) * (value - a->min) / (a->max - a->min);
}

static double place_x(const Axis *a, double value)
{
    return place(a, value, LEFT, WIDTH - RIGHT);
}

static double place_y(const Axis *a, double value)
{
    return place(a, a->log ? log10(value) : value, HEIGHT - BOTTOM, TOP);
}

static void title_and_description(Html *h, const LineChart *c)
{
    html_element(h, "title", "%s", c->title);
    html_raw(h, "<desc>");
    for (size_t s = 0; s < c->count; s++) {
        const Series *v = &c->series[s];
        double first = NAN, last = NAN, low = INFINITY, high = -INFINITY;
        for (size_t i = 0; i < v->count; i++) {
            if (!shown(v, i, c->log_y)) continue;
            if (isnan(first)) first = v->y[i];
            last = v->y[i];
            low = fmin(low, last), high = fmax(high, last);
        }
        if (!isnan(first))
            html_text(h, "%s: first %.4g, last %.4g, lowest %.4g, highest %.4g. ", v->name, first,
                      last, low, high);
    }
    html_raw(h, "</desc>\n");
}

static void draw_axes(Html *h, const Axis *x, const Axis *y, const char *x_label)
{
    char text[32];
    for (int i = 0; i < TICKS_MAX && y->min + i * y->tick <= y->max + y->tick / 2; i++) {
        const double tick = y->min + i * y->tick, value = y->log ? pow(10, tick) : tick;
        const double at = place_y(y, value);
        format_tick(text, value, y->log ? value : y->tick);
        html_raw(h, "<path class=\"axis\" d=\"M%d %.1fH%d\"/>", LEFT, at, WIDTH - RIGHT);
        html_raw(h, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", LEFT - 6, at + 4,
                 text);
    }
    for (int i = 0; i < TICKS_MAX && x->min + i * x->tick <= x->max * (1 + 1e-9); i++) {
        const double value = x->min + i * x->tick;
        format_tick(text, value, x->tick);
        html_raw(h, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
                 place_x(x, value), HEIGHT - BOTTOM + 16, text);
    }
    html_raw(h, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", (LEFT + WIDTH - RIGHT) / 2,
             HEIGHT - 4);
    html_text(h, "%s", x_label);
    html_raw(h, "</text>\n");
}

// The start of a path, up to where it goes.
static void begin_curve(Html *h, size_t number)
{
    html_raw(h, "<path class=\"curve\" stroke=\"var(--c%zu)\" stroke-dasharray=\"%s\" d=\"",
             number % COLORS, DASHES[(number + number / COLORS) % COLORS]);
}

void chart_key(Html *h, size_t number)
{
    html_raw(h, "<svg class=\"key\" viewBox=\"0 0 28 10\" aria-hidden=\"true\">");
    begin_curve(h, number);
    html_raw(h, "M0 5H28\"/></svg>");
}

static void draw_curve(Html *h, const Series *s, size_t number, const Axis *x, const Axis *y)
{
    const size_t stride = series_stride(s);
    bool pen = false;
    begin_curve(h, number);
    for (size_t i = 0; i < s->count; i++) {
        if (i % stride != 0 && i + 1 != s->count) continue;
        const bool point = shown(s, i, y->log);
        if (point)
            html_raw(h, "%c%.1f %.1f", pen ? 'L' : 'M', place_x(x, s->x[i]), place_y(y, s->y[i]));
        pen = point;
    }
    html_raw(h, "\"/>\n");
    if (s->count > DOTS_MAX) return;
    for (size_t i = 0; i < s->count; i++) {
        if (!shown(s, i, y->log)) continue;
        html_raw(h, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"var(--c%zu)\"><title>",
                 place_x(x, s->x[i]), place_y(y, s->y[i]), number % COLORS);
        html_text(h, "%s: %.5g at %.4g", s->name, s->y[i], s->x[i]);
        html_raw(h, "</title></circle>\n");
    }
}

static void draw_legend(Html *h, const LineChart *c)
{
    html_raw(h, "<ul class=\"legend\">");
    for (size_t i = 0; i < c->count; i++) {
        html_raw(h, "<li>");
        chart_key(h, i);
        html_text(h, "%s", c->series[i].name);
        html_raw(h, "</li>");
    }
    html_raw(h, "</ul>\n");
}

void chart_lines(Html *h, const LineChart *c)
{
    Axis x, y;
    html_figure(h, c->title, "");
    if (!extent(c, &x, &y)) {
        html_note(h, "no data yet");
        html_end_figure(h);
        return;
    }
    y = c->log_y ? log_axis_around(y.min, y.max) : axis_around(y.min, y.max, 5);
    x.tick = x.max > x.min ? chart_tick(x.max - x.min, 8) : 1;
    if (!(x.max > x.min)) x.max = x.min + 1;
    if (c->count > 1) draw_legend(h, c);
    html_raw(h, "<svg class=\"chart\" viewBox=\"0 0 %d %d\" role=\"img\">", WIDTH, HEIGHT);
    title_and_description(h, c);
    draw_axes(h, &x, &y, c->x_label);
    for (size_t s = 0; s < c->count; s++) draw_curve(h, &c->series[s], s, &x, &y);
    html_raw(h, "</svg>\n");
    html_end_figure(h);
}

static void draw_bar(Html *h, const BarChart *c, const Bar *b, size_t row, double left, double max)
{
    char name[NAME_BYTES];
    const double scale = (WIDTH - VALUE_WIDTH - left) / max,
                 middle = ((double)row + 0.5) * BAR_STEP;
    utf8_shorten(name, sizeof name, b->name, NAME_LETTERS);
    html_raw(h, "<g><title>");
    html_text(h, "%s: %.4g%s", b->name, b->value, c->unit);
    if (b->low < b->high) html_text(h, " (%.4g to %.4g)", b->low, b->high);
    html_raw(h, "</title><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", left - 6, middle + 4);
    html_text(h, "%s", name);
    html_raw(h, "</text>");
    if (isfinite(b->value)) {
        const bool interval = b->low < b->high;
        const double end = left + scale * (interval ? fmax(b->value, b->high) : b->value);
        html_raw(h,
                 "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" rx=\"2\" "
                 "fill=\"var(--c%d)\"/>",
                 left, middle - BAR_HEIGHT / 2.0, fmax(scale * b->value, 0.5), BAR_HEIGHT,
                 b->color % COLORS);
        if (interval)
            html_raw(h, "<path class=\"interval\" d=\"M%.1f %.1fH%.1fm0 -4v8M%.1f %.1fv8\"/>",
                     left + scale * b->low, middle, left + scale * b->high, left + scale * b->low,
                     middle - 4);
        html_raw(h, "<text class=\"value\" x=\"%.1f\" y=\"%.1f\">", end + 6, middle + 4);
        html_text(h, b->value < 100 ? "%.3g%s" : "%.0f%s", b->value, c->unit);
        html_raw(h, "</text>");
    }
    html_raw(h, "</g>\n");
}

void chart_bars(Html *h, const BarChart *c)
{
    double max = isfinite(c->max) ? c->max : 0, longest = 0;
    for (size_t i = 0; i < c->count; i++) {
        char name[NAME_BYTES];
        const Bar *b = &c->bars[i];
        max = fmax(max, b->low < b->high ? fmax(b->value, b->high) : b->value);
        longest = fmax(longest, (double)utf8_shorten(name, sizeof name, b->name, NAME_LETTERS));
    }
    html_figure(h, c->title, "");
    html_raw(h, "<svg class=\"chart\" viewBox=\"0 0 %d %zu\" role=\"group\" aria-label=\"", WIDTH,
             c->count * BAR_STEP);
    html_text(h, "%s", c->title);
    html_raw(h, "\">\n");
    for (size_t i = 0; i < c->count; i++)
        draw_bar(h, c, &c->bars[i], i, longest * LETTER + 12, max > 0 ? max : 1);
    html_raw(h, "</svg>\n");
    html_end_figure(h);
}
