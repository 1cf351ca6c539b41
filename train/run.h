// A run: a training from its first step to its result, with its directory, log, tests, checkpoints
// and what the user sees. The loop over its steps is the trainer's:
//
//     int64_t step = run_begin(run);
//     if (run_test_due(run, step)) run_log_test(run, step, evaluate(&s, infer, PLAIN));
//     while (step < s.steps && !comm_stop_agreed(&s.comm)) {
//         feed_next(&s.feed);
//         const double lr = train_step(step);
//         step++;
//         if (!run_step_done(run, step, lr)) break;                    // it diverged
//         if (run_test_due(run, step)) run_log_test(run, step, evaluate(&s, infer, PLAIN));
//         if (run_save_due(run, step) && !run_save(run, step)) break;  // it diverged
//     }
//
// Everywhere `step` counts the steps that are done. All ranks make the same calls.
#ifndef TRAIN_RUN_H
#define TRAIN_RUN_H

#include "train/run_state.h"

// Begins a run, or takes up that of --resume: reads the first batch, creates or opens the run's
// directory and prints the banner. RUN_TIMED has no report.
void run_open(Run *r, Setup *s, RunKind kind);

// Clears the optimizer's state and all buffers, for a training from another seed: the trainer's
// init() comes next.
void run_forget(Run *r);

// Returns the steps that are done, and makes the next batch the one that follows them.
int64_t run_begin(Run *r);

// After each step: shows how far it is, and logs the loss every few steps with `lr` as the learning
// rate in force, with the norms that the report shows where a test follows. Returns false if the
// loss is not finite; in RUN_SEARCH, if any value is not, and after the last step of the search.
bool run_step_done(Run *r, int64_t step, double lr);

// True at the end of an epoch and of the run, unless the network was tested there before a stop.
bool run_test_due(const Run *r, int64_t step);

// Logs the evaluation and keeps the best weights so far as best.safetensors.
void run_log_test(Run *r, int64_t step, Evaluation test);

// True every --save-every steps, or without that at the end of an epoch, and at that of the run.
bool run_save_due(const Run *r, int64_t step);

// Writes a checkpoint. False: the loss or a weight is not finite, and nothing was written.
bool run_save(Run *r, int64_t step);

// After the loop, if it ended early since something was not finite: makes the run begin again at
// the last checkpoint, or at the start, with RUN_SEARCH. Then the same steps give the same bits,
// and the loop ends where a value first is not finite.
void run_begin_search(Run *r);

// Ends the program with STATUS_DIVERGED, naming step and tensor if the search has found them.
_Noreturn void run_end_diverged(Run *r);

// The end of a run that a signal stopped: writes a checkpoint of `step` unless there is one, the
// model file and the summary. Ends the program if something is not finite. Returns the exit status.
int run_stopped(Run *r, int64_t step);

// The end of a run whose steps are all done, with its final evaluation: writes the model file and
// the summary. Returns the exit status, which --target-accuracy decides.
int run_finish(Run *r, Evaluation test);

// Whether an evaluation meets --target-accuracy, as an exit status; says so if it does not.
int meets_target(const Setup *s, double accuracy);

void run_close(Run *r);

#endif
