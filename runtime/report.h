// What the page of a run is drawn from, report.safetensors, and when: docs/runs.md. tools/runs
// draws it in the background. What goes wrong is a warning, after which the run goes on without; it
// takes less than 1% of the run's time, for it is left alone when the last page was too dear.
#ifndef RUNTIME_REPORT_H
#define RUNTIME_REPORT_H

#include "data/loader.h"
#include "runtime/session.h"

// Begins the first page; call it when the run's directory is there. Without --report the functions
// below do nothing.
void report_open(Session *s);

// Before an evaluation that follows a training step: logs the norms of weights and gradients, and
// keeps some of the step's inputs.
void report_step(Session *s);

// In an evaluation: forgets the last one's predictions, which a stopped run keeps; takes those of a
// batch.
void report_test_begins(Session *s);
void report_test_batch(Session *s, int64_t n);

// After an evaluation, or where the page may be some seconds old: has it drawn if there is time and
// the one before is done.
void report_update(Session *s, bool evaluated);

// Seconds that this process has spent on it so far.
double report_seconds(const Session *s);

// Waits for the last page, from the finished object `summary` or, if that is NULL, what it would
// hold now; `state` says how the run ended. Frees all.
void report_finish(Session *s, const Json *summary, const char *state);

#endif
