// --bench: the timing report of a trainer (docs/timing.md), as a table and as bench.json in the
// run's directory.
#ifndef TRAIN_BENCH_H
#define TRAIN_BENCH_H

#include "train/setup.h"

// Batch sizes whose steps are timed, besides --batch-size, where they are smaller.
enum { TIMING_BATCHES = 3 };
extern const int64_t timing_batches[TIMING_BATCHES];

// Measures and writes. Returns the exit status.
int timing_report(Setup *s);

#endif
