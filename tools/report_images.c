#include "tools/report_images.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/chart.h"

enum { MISTAKES = 50, MATRIX_CLASSES = 20, WIDE_MATRIX = 13, CONFUSIONS = 20, BARS_MAX = 40 };
enum { INPUT_COLUMNS = 8, FILTER_COLUMNS = 8 };

// ---- the test images ----------------------------------------------------------------------------

static void matrix_row(Html *h, const ReportPage *p, const int64_t *row, int class)
{
    int64_t sum = 0;
    for (int i = 0; i < p->data->classes; i++) sum += row[i];
    html_row(h, p->data->class_names[class]);
    for (int i = 0; i < p->data->classes; i++) {
        const double share = sum > 0 ? (double)row[i] / (double)sum : 0;
        if (row[i] > 0)
            html_raw(h, "<td style=\"--share:%.3f\">%lld</td>", sqrt(share), (long long)row[i]);
        else
            html_raw(h, "<td></td>");
    }
    html_end_row(h);
}

static void matrix(Html *h, const ReportPage *p, const int64_t *confusion)
{
    const char *columns[MATRIX_CLASSES + 2] = {"is / taken for"};
    for (int i = 0; i < p->data->classes; i++) columns[i + 1] = p->data->class_names[i];
    html_raw(h, "<div class=\"matrix%s\">\n", p->data->classes >= WIDE_MATRIX ? " wide" : "");
    html_table(h, "Confusion: images of a row's class taken for a column's", columns);
    for (int i = 0; i < p->data->classes; i++)
        matrix_row(h, p, confusion + (ptrdiff_t)i * p->data->classes, i);
    html_end_table(h);
    html_raw(h, "</div>\n");
}

typedef struct Confusion {
    int is, taken_for;
    int64_t count;
} Confusion;

// The most frequent ones, where a matrix has no room.
static void confusions(Html *h, const ReportPage *p, const int64_t *confusion)
{
    const int classes = p->data->classes;
    const char *const columns[] = {"is", "taken for", "images", NULL};
    Confusion top[CONFUSIONS + 1];
    int n = 0;
    for (int i = 0; i < classes * classes; i++) {
        const Confusion c = {i / classes, i % classes, confusion[i]};
        if (c.is == c.taken_for || c.count == 0) continue;
        int place = n;
        for (; place > 0 && top[place - 1].count < c.count; place--) top[place] = top[place - 1];
        top[place] = c;
        if (n < CONFUSIONS) n++;
    }
    html_table(h, "Most frequent confusions", columns);
    for (int i = 0; i < n; i++) {
        html_row(h, p->data->class_names[top[i].is]);
        html_cell(h, "%s", p->data->class_names[top[i].taken_for]);
        html_number(h, "%lld", (long long)top[i].count);
        html_end_row(h);
    }
    html_end_table(h);
}

static int by_value(const void *a, const void *b)
{
    const double x = ((const Bar *)a)->value, y = ((const Bar *)b)->value;
    return (x > y) - (x < y);
}

// Per class; of many classes the worst.
static void class_accuracies(Html *h, const ReportPage *p, const int64_t *confusion)
{
    const int classes = p->data->classes;
    Bar *bars = calloc((size_t)classes, sizeof *bars);
    if (!bars) return;
    for (int i = 0; i < classes; i++) {
        int64_t sum = 0;
        for (int j = 0; j < classes; j++) sum += confusion[i * classes + j];
        const double right = (double)confusion[i * classes + i];
        bars[i].name = p->data->class_names[i];
        bars[i].value = sum > 0 ? 100 * right / (double)sum : NAN;
    }
    if (classes > BARS_MAX) qsort(bars, (size_t)classes, sizeof *bars, by_value);
    const size_t n = (size_t)(classes > BARS_MAX ? BARS_MAX : classes);
    chart_bars(h, &(BarChart){classes > BARS_MAX ? "Accuracy of the worst classes"
                                                 : "Accuracy of each class",
                              "%", bars, n, 100});
    free(bars);
}

static void mistake(Html *h, const ReportPage *p, const Pictures *pictures, int i, uint32_t id)
{
    char alt[256];
    const Prediction *image = &p->predictions->image[id];
    const char *is = p->data->class_names[image->label];
    const char *taken_for = p->data->class_names[image->predicted];
    snprintf(alt, sizeof alt, "test image %u: %.100s", id, is);
    html_raw(h, "<figure>");
    picture_write(h, pictures, i, alt);
    html_raw(h, "<figcaption>");
    html_text(h, "%s", is);
    html_raw(h, "<small>");
    html_text(h, "taken for %s, %.0f%%", taken_for, 100 * (double)image->probability);
    html_raw(h, "</small></figcaption></figure>\n");
}

// The pixels of the worst mistakes; returns how many could be read.
static int read_mistakes(const ReportPage *p, const uint32_t *ids, int n, Pictures *pictures)
{
    Error e;
    const Dataset *d = p->data;
    const size_t bytes = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    int32_t labels[MISTAKES];
    uint8_t *images = malloc(bytes * (size_t)n + 1);
    if (!images || pictures_allocate(pictures, n, d->h, d->w, d->c, &e)) {
        free(images);
        return 0;
    }
    const int status = dataset_gather(d, SPLIT_TEST, ids, n, images, labels, &e);
    for (int i = 0; status == STATUS_OK && i < n; i++)
        pictures_set(pictures, i, images + (size_t)i * bytes);
    free(images);
    return status == STATUS_OK ? n : 0;
}

static void mistakes(Html *h, const ReportPage *p)
{
    uint32_t ids[MISTAKES];
    Pictures pictures = {0};
    int n = predictions_worst(p->predictions, ids, MISTAKES);
    html_section(h, "Worst mistakes");
    if (n == 0)
        html_note(h, "None: every test image was recognised.");
    else
        html_note(h, "The %d with the highest loss first, and the probability they were given.", n);
    n = read_mistakes(p, ids, n, &pictures);
    html_raw(h, "<div class=\"pictures wide\">\n");
    for (int i = 0; i < n; i++) mistake(h, p, &pictures, i, ids[i]);
    html_raw(h, "</div>\n");
    html_end_section(h);
    pictures_free(&pictures);
}

void report_test_images(Html *h, const ReportPage *p)
{
    const int classes = p->data->classes;
    if (!p->predictions || p->predictions->done == 0) return;
    int64_t *confusion = calloc((size_t)classes * (size_t)classes, sizeof *confusion);
    if (!confusion) return;
    predictions_confusion(p->predictions, confusion);
    html_section(h, "Test images");
    if (p->predictions->done < p->predictions->n)
        html_note(h, "The run was stopped in an evaluation: these are %lld of %lld images.",
                  (long long)p->predictions->done, (long long)p->predictions->n);
    if (classes <= MATRIX_CLASSES)
        matrix(h, p, confusion);
    else
        confusions(h, p, confusion);
    class_accuracies(h, p, confusion);
    html_end_section(h);
    free(confusion);
    mistakes(h, p);
}

// ---- inputs and filters -------------------------------------------------------------------------

static void sheet(Html *h, const char *caption, const char *note, const Pictures *p, int columns)
{
    if (p->count == 0) return;
    html_figure(h, caption, "pictures");
    pictures_write(h, p, columns, caption);
    html_note(h, "%s", note);
    html_end_figure(h);
}

void report_inputs(Html *h, const ReportPage *p)
{
    char filters[256];
    if (p->inputs->count + p->filters->count == 0) return;
    snprintf(filters, sizeof filters, "%s, each scaled to its own largest weight; grey is 0.",
             p->filters_name);
    html_section(h, "What the network sees");
    sheet(h, "Training images as they go in",
          "Of the last batch: moved, mirrored, cut as "
          "--augment says, normalised and back.",
          p->inputs, INPUT_COLUMNS);
    sheet(h, "First layer's filters", filters, p->filters, FILTER_COLUMNS);
    html_end_section(h);
}
