// Runs on disk, as scripts/runs.sh shows them; docs/runs.md has the files they come from.
#ifndef PAGES_RUNS_H
#define PAGES_RUNS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/json.h"
#include "pages/log_file.h"

typedef enum RunState {
    RUN_FINISHED,
    RUN_RUNNING,
    RUN_STOPPED, // by a signal, after saving
    RUN_CUT_OFF, // killed, or ended by an error
} RunState;
extern const char *const run_state_names[];

typedef struct SavedRun {
    char path[PATH_MAX]; // its directory
    const char *name;    // the path, or what follows runs/ in it
    RunState state;
    JsonDocument start;   // run.json; an older run has none: root is NULL
    JsonDocument summary; // summary.json, if it is about the whole log; root is NULL otherwise
    LogFile log;
} SavedRun;

// Whether the directory has the log of a run; a timing report's (--bench) is none, nor a
// speedrun's.
bool saved_run_is(const char *dir);

// Reads the run in `dir`, or in runs/`dir`; the log of a finished one only `with_log`. STATUS_DATA
// if that is none.
int saved_run_open(SavedRun *r, const char *dir, bool with_log, Error *e);
void saved_run_close(SavedRun *r);

// Reads a file of the run; one that is missing leaves d->root NULL.
int saved_run_json(JsonDocument *d, const char *dir, const char *name, Error *e);

// What the run knows of itself: a member of summary.json or else of run.json; NULL: nothing.
const JsonNode *saved_run_get(const SavedRun *r, const char *key);

// When it began, as "2026-11-20-235901"; without run.json, when its log was last written.
enum { RUN_DATE_SIZE = 18 };
void saved_run_date(const SavedRun *r, char date[static RUN_DATE_SIZE]);

// The final "test_accuracy" or "test_loss"; of a run without, that of its last evaluation. NAN:
// none.
double saved_run_result(const SavedRun *r, const char *key);

// Seconds of training up to each record that has the member `kind`, as log_file_column() has it.
double *saved_run_seconds(const SavedRun *r, const char *kind, size_t *count);

// Prints a line for each run in the directories, the oldest first; names are cut to `columns`.
// STATUS_DATA if there is none.
int runs_list(char *const *dirs, size_t count, int columns, Error *e);

// Writes the run's own page, report.html in its directory; sets where. STATUS_DATA where its
// process left no facts for that.
int runs_report(const SavedRun *r, char path[static PATH_MAX], Error *e);

// Writes the page that compares them.
enum { RUNS_COMPARED_MAX = 8 };
int runs_page(const SavedRun *runs, size_t count, const char *path, Error *e);

// Prints the log as CSV (RFC 4180): a row for each record, a column for each name that occurs.
int runs_csv(const SavedRun *r, Error *e);

#endif
