// Times each operation of training steps.
#ifndef KERNELS_PROFILE_H
#define KERNELS_PROFILE_H

#include <stdio.h>

#include "kernels/kernels.h"

// A table that does what `k` does and, between step_begin() and step_end(), notes how long each
// call takes until the device has finished it. The first step is not counted: it warms up. Steps
// are never captured. One table a process; *k must outlive it.
const Kernels *kernels_profile(const Kernels *k);

// Prints a line for each operation and shape, in the order of a step: calls and milliseconds a
// step, the sum of the fastest calls, share of the step, GFLOP/s and GB/s (kernels/cost.h). The
// last line is what a step spends outside of the operations: loading, logging, the trainer.
// Evaluations are left out. bench/roofline.c reads these lines.
void kernels_profile_print(FILE *f);

#endif
