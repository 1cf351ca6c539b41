// Charts as inline SVG in a page of pages/html.h. Each is a figure with its caption, a legend and
// a description for who cannot see it; it scales with the page. Curves differ in colour and in
// dashes, so that neither is needed alone.
#ifndef PAGES_CHART_H
#define PAGES_CHART_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#include "pages/html.h"

typedef struct Series {
    const char *name;
    const double *x, *y; // (count), x ascending; where y is not finite the curve has a gap
    size_t count;        // of more than 1,000 points only every k-th is drawn, and the last
} Series;

typedef struct LineChart {
    const char *title, *x_label;
    const Series *series;
    size_t count;
    double y_min, y_max; // the axis holds at least these; NAN: as the curves need
    bool log_y;          // a logarithmic axis; what is not above 0 is a gap
} LineChart;

// The stretch of line that stands for the series of that number in a legend; for a table beside it.
void chart_key(Html *h, size_t number);

// Without any finite point it says "no data yet".
void chart_lines(Html *h, const LineChart *c);

typedef struct Bar {
    const char *name;
    double value;     // from 0 up; NAN: none
    double low, high; // an interval around it, drawn where low < high
    int color;        // 0 to 5, as the series of a line chart have in order
} Bar;

typedef struct BarChart {
    const char *title;
    const char *unit; // after each value: " ms"
    const Bar *bars;
    size_t count;
    double max; // where the axis ends at least; NAN: as the bars need
} BarChart;

// Horizontal bars with their values.
void chart_bars(Html *h, const BarChart *c);

// The distance of an axis' ticks, 1, 2 or 5 times a power of ten, of which `range` holds at most
// `most`.
double chart_tick(double range, int most);

#endif
