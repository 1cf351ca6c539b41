// What a run tells about itself: the banner, run.json, summary.json and the result.
#ifndef RUNTIME_SUMMARY_H
#define RUNTIME_SUMMARY_H

#include "runtime/run.h"

void print_banner(const Run *r);
void print_result(const Run *r, int64_t step, const char *model);

// What run.json, summary.json and checkpoints all say of the program, its network and options, as a
// finished object.
int about_json(const Setup *s, Json *j, Error *e);

int write_start(const Run *r, Error *e); // run.json

// What summary.json holds after `step` steps, as a finished object.
int run_summary(const Run *r, int64_t step, Json *j, Error *e);

#endif
