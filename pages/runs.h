// What scripts/runs.sh does with runs: docs/runs.md.
#ifndef PAGES_RUNS_H
#define PAGES_RUNS_H

#include "pages/saved_run.h"

// Prints a line for each run in the directories, the oldest first; names are cut to `columns`.
// STATUS_DATA if there is none.
int runs_list(char *const *dirs, size_t count, int columns, Error *e);

// Writes the page that compares them.
enum { RUNS_COMPARED_MAX = 8 };
int runs_compare(SavedRun *runs, size_t count, const char *path, Error *e);

// Prints the log as CSV (RFC 4180): a row for each record, a column for each name that occurs.
int runs_csv(const SavedRun *r, Error *e);

#endif
