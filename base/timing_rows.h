// The rows of a timing report: what was measured how often, as percentiles.
#ifndef BASE_TIMING_ROWS_H
#define BASE_TIMING_ROWS_H

#include <stdbool.h>

#include "base/json.h"

typedef enum RowKind {
    ROW_MICRO,   // one property of the machine or of the device
    ROW_CONTROL, // the same, of what two systems on the same hardware must agree on
    ROW_MACRO,   // training
} RowKind;

extern const char *const row_kinds[]; // their names, ending with NULL

enum { ROWS_MAX = 96, ROW_NAME = 32, ROW_UNIT = 12 };
typedef struct Row {
    char name[ROW_NAME], unit[ROW_UNIT];
    RowKind kind;
    bool higher_is_better; // a rate; else a time or a share of lost time
    int samples;
    double median, p10, p90, p99, max;
} Row;

typedef struct Rows {
    Row rows[ROWS_MAX];
    int count;
    int batches;           // of timed calls that a row is made from
    double batch_seconds;  // that one of them lasts at least
    double row_seconds;    // a row that takes longer is made from fewer, 3 at least
    double warmup_seconds; // of calls before them, besides the first WARMUP_CALLS
} Rows;
enum { WARMUP_CALLS = 200 };

int ascending_doubles(const void *a, const void *b); // for qsort()

// What a row says of values that were measured elsewhere; sorts them.
void rows_add(Rows *r, Row row, double *values, int count);

// Times calls of work() one batch after another. The row's value is the time of one call in its
// unit (ns, us or ms) or, with `amount`, amount divided by the seconds of one call. `after` is
// called at the end of each batch, within its time; NULL: nothing.
void rows_measure(Rows *r, Row row, double amount, void (*work)(void *), void (*after)(void *),
                  void *context);

double rows_median(const Rows *r, const char *name); // NAN: there is none

void rows_json(const Rows *r, Json *j); // adds an array "rows" to the open object
void rows_print(const Rows *r);         // a table for a person, to stdout

#endif
