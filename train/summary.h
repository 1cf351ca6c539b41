// Writes run.json and summary.json of a run, and prints its banner and result in the terminal.
#ifndef TRAIN_SUMMARY_H
#define TRAIN_SUMMARY_H

#include "train/run_state.h"

void run_print_banner(const Run *r);
void run_print_result(const Run *r, int64_t step, const char *model);

// Writes what run.json, summary.json and checkpoints all say of the program, its network and
// options, as a finished object.
int run_about(const Setup *s, Json *j, Error *e);

int run_write_start(const Run *r, Error *e); // run.json

// Writes what summary.json holds after `step` steps, of which the report took so many seconds, as a
// finished object.
int run_summary(const Run *r, int64_t step, double report_seconds, Json *j, Error *e);

#endif
