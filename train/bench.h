// --bench: the timing report of a trainer (docs/timing.md), as a table and as bench.json in the
// run's directory.
#ifndef TRAIN_BENCH_H
#define TRAIN_BENCH_H

#include "train/setup.h"

// Measures and writes. Returns the exit status.
int bench(Setup *s);

#endif
