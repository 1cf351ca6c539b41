// A page of HTML that needs nothing but itself: no script, nothing from elsewhere (its content
// security policy says so). It follows the reader's light or dark setting and fits a phone.
//     Html h;
//     check(html_open(&h, "Two runs", 0, &e), &e);
//     html_section(&h, "Accuracy");
//     chart_lines(&h, &chart);              // pages/chart.h
//     check(html_save(&h, "compare.html", &e), &e);
#ifndef PAGES_HTML_H
#define PAGES_HTML_H

#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"
#include "base/json.h"

typedef struct Html {
    FILE *out; // collects what is written in `text`; a failure shows in html_save()
    char *text;
    size_t size;
    bool in_section, in_row;
} Html;

// Starts a page with its title as heading. A browser loads it again every `refresh_seconds`; 0: no.
// STATUS_IO if memory is short; there is nothing to close then.
int html_open(Html *h, const char *title, int refresh_seconds, Error *e);

// Ends the last section and the page, and writes it to `path`, whole or not at all. Frees h,
// whatever it returns.
int html_save(Html *h, const char *path, Error *e);

// As printf: markup as it stands, and text whose special characters are escaped. What a user or a
// file has named always goes through html_text() or a function below, which all escape.
void html_raw(Html *h, const char *format, ...) __attribute__((format(printf, 2, 3)));
void html_text(Html *h, const char *format, ...) __attribute__((format(printf, 2, 3)));

// <tag>text</tag> with such text. The tag may have attributes.
void html_element(Html *h, const char *tag, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// A value of an option: on or off, "–" for none.
void html_value(Html *h, const JsonNode *value);

// A number for people, `format` of `shown`, with its exact value for programs; "–" if that is not
// finite.
void html_data(Html *h, double value, const char *format, double shown);

// Begins a section with its heading and ends the one before. Figures in it (class "wide": in the
// whole width) stand side by side where there is room.
void html_section(Html *h, const char *title);

// A paragraph of explanation, escaped.
#define html_note(h, ...) (html_element(h, "p class=\"note\"", __VA_ARGS__), html_raw(h, "\n"))

// A figure with its caption; what it shows goes in between.
void html_figure(Html *h, const char *caption, const char *class);
void html_end_figure(Html *h);

// A table in a figure, which scrolls sideways where it must. `columns` ends with NULL. Each row has
// a name, then one cell a column but the first; it ends the row before.
//     html_table(&h, "Runs", "", (const char *[]){"run", "device", "accuracy", NULL});
//     html_row(&h, "mine");
//     html_cell(&h, "cpu");
//     html_number(&h, "%.2f%%", 93.96);     // to the right
//     html_end_table(&h);
void html_table(Html *h, const char *caption, const char *class, const char *const *columns);
void html_row(Html *h, const char *name);
void html_begin_row(Html *h); // <tr> alone; its name is still to come
#define html_cell(h, ...) html_element(h, "td", __VA_ARGS__)
#define html_number(h, ...) html_element(h, "td class=\"number\"", __VA_ARGS__)
void html_data_cell(Html *h, double value, const char *format, double shown);
void html_end_table(Html *h);

#endif
