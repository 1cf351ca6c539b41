// What a run tells about itself: the banner, run.json, summary.json and the result.
#ifndef RUNTIME_SUMMARY_H
#define RUNTIME_SUMMARY_H

#include "runtime/run.h"

void print_banner(const Run *r);
void print_result(const Run *r, int64_t step, const char *model);

int write_start(const Run *r, Error *e); // run.json

// What summary.json holds after `step` steps, as a finished object.
int run_summary(const Run *r, int64_t step, Json *j, Error *e);

#endif
