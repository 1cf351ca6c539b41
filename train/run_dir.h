// A run: its directory, its log and what the user sees while it trains.
//
// The directory holds log.jsonl (appended, one write a line), run.json, summary.json and whatever
// the trainer puts there; all but the log appear whole or not at all. A line is printed for each
// evaluation, and without a terminal for each epoch.
#ifndef TRAIN_RUN_DIR_H
#define TRAIN_RUN_DIR_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"

typedef struct RunDir RunDir;

// Creates the directory, takes its lock and starts the log; call it just before step 0. `dir` NULL
// gives runs/<time>-<trainer>, with -2, -3 ... if that is taken. A directory that holds a log.jsonl
// is refused with STATUS_USAGE; one that cannot be made, written or locked with STATUS_IO. `quiet`
// prints nothing.
int rundir_open(RunDir **r, const char *dir, const char *trainer, bool quiet, Error *e);

// Takes up a run that was stopped after `step`: keeps the lock that the caller has (0: takes it)
// and cuts the log back to that step, without an evaluation there unless the checkpoint came after
// it (`evaluated`). STATUS_IO, as when another process has the lock.
int rundir_reopen(RunDir **r, const char *dir, int lock, int64_t step, bool evaluated, bool quiet,
                  Error *e);

const char *rundir_name(const RunDir *r);
void rundir_path(const RunDir *r, const char *name, char path[static PATH_MAX]); // DIR/name

// Writes the finished object as DIR/name, with a newline. STATUS_IO.
int rundir_write(const RunDir *r, const char *name, Json *j, Error *e);

// A record of log.jsonl: what is written to the object between the two calls. A full disk does not
// stop a run: the first failure is a warning.
Json *rundir_log_begin(RunDir *r, int64_t step, double epoch);
void rundir_log_end(RunDir *r);

// Prints the line of an evaluation, with what rundir_progress() was told last.
void rundir_show_test(RunDir *r, double loss, double accuracy);

// The next four do nothing where r is NULL: a process that has no run of its own.

// Makes the log so far survive a power loss, as far as the file system can.
void rundir_sync(RunDir *r);

// Where the run begins: what an evaluation before the first step is shown with.
void rundir_begin(RunDir *r, const Progress *p);

// Call it once a step. The test's values are filled in.
void rundir_progress(RunDir *r, const Progress *p);

// Prints what waits and removes the panel, so that the caller may print.
void rundir_clear(RunDir *r);

// Removes the panel, closes the log and writes summary.json from the finished object `summary`.
// Frees r, whatever it returns.
int rundir_finish(RunDir *r, Json *summary, Error *e);

#endif
