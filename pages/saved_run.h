// A run on disk, also one that lives: docs/runs.md has the files that are read here.
#ifndef PAGES_SAVED_RUN_H
#define PAGES_SAVED_RUN_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/json.h"

// ---- log.jsonl ----------------------------------------------------------------------------------

typedef struct SavedLog {
    JsonDocument *records;
    size_t count;
    bool damaged;              // a line that is none follows, other than an unfinished last one
    struct LogColumn *columns; // that were asked for
} SavedLog;

// Takes the whole records up to the first damaged or unfinished one. STATUS_DATA if the file is
// missing, STATUS_IO if it cannot be read; there is nothing to free then.
int saved_log_read(SavedLog *l, const char *path, Error *e);
void saved_log_free(SavedLog *l);

// The records that have a member `kind` ("loss": steps; "test_loss": evaluations; "weight_norm":
// norms): of each the number `key` in the object `kind`, or else in the record; NAN where there is
// none. Sets *count. The caller may change the values; they are freed with the log. NULL and a
// count of 0 if memory is short.
double *saved_log_column(SavedLog *l, const char *kind, const char *key, size_t *count);

// Of the same records the seconds of training until then.
double *saved_log_seconds(SavedLog *l, const char *kind, size_t *count);

// The last record that has a member `kind`, or NULL.
const JsonNode *saved_log_last(const SavedLog *l, const char *kind);

// ---- the run ------------------------------------------------------------------------------------

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
    SavedLog log;
} SavedRun;

// Whether the directory has the log of a run; a timing report's (--bench) is none, nor a
// speedrun's.
bool saved_run_is(const char *dir);

// Reads the run in `dir`, or in runs/`dir`; the log of a finished one only `with_log`. STATUS_DATA
// if that is none.
int saved_run_open(SavedRun *r, const char *dir, bool with_log, Error *e);
void saved_run_close(SavedRun *r);

// The path of a file of the run; false if it is too long, which it is not in a run that is open.
bool saved_run_file(char path[static PATH_MAX], const char *dir, const char *name);

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

#endif
