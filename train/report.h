// Writes the facts of a run for its page, report.safetensors, and starts pages/runs, which draws it
// in the background: docs/runs.md. What goes wrong is a warning, after which the run goes on
// without; it takes less than 1% of the run's time, for it is left alone when the last page was too
// dear.
#ifndef TRAIN_REPORT_H
#define TRAIN_REPORT_H

#include "train/run_state.h"

// Begins the first page; call it when the run's directory is there. Without --report the functions
// below do nothing.
void report_open(Run *r);

// After a training step that an evaluation follows: logs the norms of weights and gradients, and
// keeps some of the step's inputs.
void report_step(Run *r, int64_t step);

// After an evaluation, or where the page may be some seconds old: has it drawn if there is time and
// the one before is done.
void report_update(Run *r, int64_t step, bool evaluated);

// Seconds that this process has spent on it so far.
double report_seconds(const Run *r);

// Waits for the last page, after `step` steps; `state` says how the run ended. Frees all.
void report_finish(Run *r, int64_t step, const char *state);

#endif
