// Two sides of timing reports (bench.json) against each other: docs/timing.md.
#ifndef PAGES_TIMING_COMPARISON_H
#define PAGES_TIMING_COMPARISON_H

#include <stdbool.h>

#include "base/json.h"
#include "base/timing_rows.h"

enum { A, B, SIDES };
enum {
    PROCESSES_MAX = 64, // a side
    PROCESSES_MIN = 5,  // of a verdict
};

typedef struct Side {
    const char *names[PROCESSES_MAX];
    JsonDocument reports[PROCESSES_MAX]; // one a process
    int count;
} Side;

// Reads a report and adds it to the side. STATUS_DATA if it is none.
int side_read(Side *s, const char *path, Error *e);
void side_free(Side *s);

typedef enum Verdict {
    NO_VERDICT, // fewer than PROCESSES_MIN processes a side, or a void comparison
    EQUIVALENT, // the interval lies within the margin
    SLOWER,     // B is: the interval leaves 1 out, and the ratio is beyond the margin
    FASTER,
    TOO_NOISY, // the interval is wider than the margin on both sides
    UNDECIDED,
} Verdict;
extern const char *const verdict_names[];

typedef struct ComparedRow {
    Row row;             // of the first report: name, unit, kind
    double value[SIDES]; // geometric means over processes
    double ratio;        // B to A
    double low, high;    // simultaneous 95% interval of the ratio; NAN without one
    Verdict verdict;
} ComparedRow;

// A part of the difference in the mean time of a step, in ms.
typedef struct Part {
    const char *name;
    double ms;
} Part;
enum { PARTS = 6 };

typedef struct Comparison {
    ComparedRow rows[ROWS_MAX];
    int count;
    int processes[SIDES];
    char invalid[1024];   // why the comparison is void; empty: it is not
    Verdict verdict;      // of training: of the macro rows together
    double step[SIDES];   // mean ms of a step
    Part parts[PARTS];    // their sum is step[B] - step[A]
    const Part *cause;    // the largest, in the difference's direction; NULL: no difference
    double others[SIDES]; // processors used by other programs while steps were timed
} Comparison;

// `commits`: two builds are compared, whose hashes and losses may differ. STATUS_DATA if the
// reports have no rows in common.
int comparison_make(Comparison *c, const Side sides[static SIDES], bool commits, Error *e);

void comparison_print(const Comparison *c); // to stdout
int comparison_page(const Comparison *c, const Side sides[static SIDES], const char *path,
                    Error *e); // self-contained HTML

// One sentence each: what follows, and where the difference in step time comes from.
void comparison_conclusion(const Comparison *c, char text[static 256]);
void comparison_explanation(const Comparison *c, char text[static 512]);

#endif
