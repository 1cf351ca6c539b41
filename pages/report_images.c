#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "pages/chart.h"
#include "pages/pictures.h"
#include "pages/report_page.h"

enum { MATRIX_CLASSES = 20, WIDE_MATRIX = 13, CONFUSIONS = 20, BARS_MAX = 40 };
enum { INPUT_COLUMNS = 8, FILTER_COLUMNS = 8 };

// ---- the test images ----------------------------------------------------------------------------

static void matrix_row(Html *h, const ReportFacts *f, const int64_t *row, int class)
{
    int64_t sum = 0;
    for (int i = 0; i < f->classes; i++) sum += row[i];
    html_row(h, f->class_names[class]);
    for (int i = 0; i < f->classes; i++) {
        const double share = sum > 0 ? (double)row[i] / (double)sum : 0;
        if (row[i] > 0)
            html_raw(h, "<td style=\"--share:%.3f\">%lld</td>", sqrt(share), (long long)row[i]);
        else
            html_raw(h, "<td></td>");
    }
}

static void matrix(Html *h, const ReportFacts *f)
{
    int64_t confusion[MATRIX_CLASSES][MATRIX_CLASSES] = {0};
    const char *columns[MATRIX_CLASSES + 2] = {"is / taken for"};
    for (int i = 0; i < f->classes; i++) columns[i + 1] = f->class_names[i];
    for (int64_t i = 0; i < f->tested; i++) confusion[f->label[i]][f->predicted[i]]++;
    html_table(h, "Confusion: images of a row's class taken for a column's",
               f->classes >= WIDE_MATRIX ? "matrix wide" : "matrix", columns);
    for (int i = 0; i < f->classes; i++) matrix_row(h, f, confusion[i], i);
    html_end_table(h);
}

typedef struct Confusion {
    uint16_t is, taken_for;
    int64_t count;
} Confusion;

static int by_classes(const void *a, const void *b)
{
    const Confusion *x = a, *y = b;
    return x->is != y->is ? x->is - y->is : x->taken_for - y->taken_for;
}

// The most frequent ones, where a matrix has no room.
static void confusions(Html *h, const ReportFacts *f)
{
    const char *const columns[] = {"is", "taken for", "images", NULL};
    Confusion *all = calloc((size_t)f->tested, sizeof *all), top[CONFUSIONS + 1];
    size_t wrong = 0;
    int n = 0;
    for (int64_t i = 0; all && i < f->tested; i++)
        if (f->label[i] != f->predicted[i])
            all[wrong++] = (Confusion){f->label[i], f->predicted[i], 1};
    if (wrong > 0) qsort(all, wrong, sizeof *all, by_classes);
    for (size_t i = 0, next; i < wrong; i = next) {
        for (next = i + 1; next < wrong && by_classes(&all[i], &all[next]) == 0;) next++;
        all[i].count = (int64_t)(next - i);
        int place = n;
        for (; place > 0 && top[place - 1].count < all[i].count; place--)
            top[place] = top[place - 1];
        top[place] = all[i];
        if (n < CONFUSIONS) n++;
    }
    html_table(h, "Most frequent confusions", "", columns);
    for (int i = 0; i < n; i++) {
        html_row(h, f->class_names[top[i].is]);
        html_cell(h, "%s", f->class_names[top[i].taken_for]);
        html_number(h, "%lld", (long long)top[i].count);
    }
    html_end_table(h);
    free(all);
}

static int by_value(const void *a, const void *b)
{
    const double x = ((const Bar *)a)->value, y = ((const Bar *)b)->value;
    return (x > y) - (x < y);
}

// Per class; of many classes the worst.
static void class_accuracies(Html *h, const ReportFacts *f)
{
    const size_t classes = (size_t)f->classes;
    Bar *bars = calloc(classes, sizeof *bars);
    int64_t *images = calloc(classes, sizeof *images);
    for (int64_t i = 0; bars && images && i < f->tested; i++) {
        images[f->label[i]]++;
        bars[f->label[i]].value += f->label[i] == f->predicted[i];
    }
    for (size_t i = 0; bars && images && i < classes; i++) {
        bars[i].name = f->class_names[i];
        bars[i].value = images[i] > 0 ? 100 * bars[i].value / (double)images[i] : NAN;
    }
    if (bars && images) {
        const bool many = classes > BARS_MAX;
        if (many) qsort(bars, classes, sizeof *bars, by_value);
        chart_bars(h, &(BarChart){many ? "Accuracy of the worst classes" : "Accuracy of each class",
                                  "%", bars, many ? BARS_MAX : classes, 100});
    }
    free(images);
    free(bars);
}

static void mistake(Html *h, const ReportFacts *f, const Pictures *pictures, int i)
{
    char alt[256];
    const uint32_t id = f->mistake[i];
    const char *is = f->class_names[f->label[id]];
    const char *taken_for = f->class_names[f->predicted[id]];
    snprintf(alt, sizeof alt, "test image %u: %.100s", id, is);
    html_raw(h, "<figure>");
    picture_write(h, pictures, i, alt);
    html_raw(h, "<figcaption>");
    html_text(h, "%s", is);
    html_element(h, "small", "taken for %s, %.0f%%", taken_for, 100 * (double)f->probability[id]);
    html_raw(h, "</figcaption></figure>\n");
}

static void mistakes(Html *h, const ReportFacts *f)
{
    Pictures pictures = pictures_of(f->mistake_pixels, f->mistakes, f->h, f->w, f->c);
    html_section(h, "Worst mistakes");
    if (f->mistakes == 0)
        html_note(h, "None: every test image was recognised.");
    else
        html_note(h, "The %d with the highest loss first, and the probability they were given.",
                  f->mistakes);
    html_raw(h, "<div class=\"pictures wide\">\n");
    for (int i = 0; i < pictures.count; i++) mistake(h, f, &pictures, i);
    html_raw(h, "</div>\n");
    pictures_free(&pictures);
}

void report_test_images(Html *h, const ReportFacts *f)
{
    if (f->tested == 0) return;
    html_section(h, "Test images");
    if (f->tested < f->test)
        html_note(h, "The run was stopped in an evaluation: these are %lld of %lld images.",
                  (long long)f->tested, (long long)f->test);
    if (f->classes <= MATRIX_CLASSES)
        matrix(h, f);
    else
        confusions(h, f);
    class_accuracies(h, f);
    mistakes(h, f);
}

// ---- inputs and filters -------------------------------------------------------------------------

// Each filter around grey, up to its largest weight.
static Pictures filters_of(const ReportFacts *f)
{
    Pictures p = {0};
    const size_t each = (size_t)f->filter_h * (size_t)f->filter_w * (size_t)f->filter_c;
    uint8_t *const bytes = malloc((size_t)f->filters * each);
    for (int i = 0; bytes && i < f->filters; i++) {
        const float *w = f->filter_weights + (size_t)i * each;
        float largest = 1e-30f;
        for (size_t j = 0; j < each; j++) largest = fmaxf(largest, fabsf(w[j]));
        for (size_t j = 0; j < each; j++) {
            const float grey = 127.5f + 127.4f * w[j] / largest;
            // of a run that diverged
            bytes[(size_t)i * each + j] = (uint8_t)(isfinite(grey) ? grey : 127.5f);
        }
    }
    if (bytes) p = pictures_of(bytes, f->filters, f->filter_h, f->filter_w, f->filter_c);
    free(bytes);
    return p;
}

static void sheet(Html *h, const char *caption, const char *note, Pictures p, int columns)
{
    if (p.count > 0) {
        html_figure(h, caption, "pictures");
        pictures_write(h, &p, columns, caption);
        html_note(h, "%s", note);
        html_end_figure(h);
    }
    pictures_free(&p);
}

void report_inputs(Html *h, const ReportFacts *f)
{
    char note[256];
    if (f->inputs + f->filters == 0) return;
    snprintf(note, sizeof note, "%s, each scaled to its own largest weight; grey is 0.",
             f->first_layer);
    html_section(h, "What the network sees");
    sheet(h, "Training images as they go in",
          "Of the last batch: moved, mirrored, cut as --augment says, normalised and back.",
          pictures_of(f->input_pixels, f->inputs, f->h, f->w, f->c), INPUT_COLUMNS);
    if (f->filters > 0) sheet(h, "First layer's filters", note, filters_of(f), FILTER_COLUMNS);
}
