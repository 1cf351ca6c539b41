// --speedrun: the same training from N seeds, and its time by two clocks (docs/runs.md says what
// each of them includes).
#ifndef TRAIN_SPEEDRUN_H
#define TRAIN_SPEEDRUN_H

#include "train/setup.h"

// Trains with the seed of --seed as the process starts, which is the cold start and warms the
// device up, then again with that seed and the --seeds - 1 that follow. Writes speedrun.json after
// each run. Returns the exit status.
int speedrun(Setup *s);

#endif
