// A table that does what `k` does and counts what crosses the contract in training steps. It also
// lets a timing run choose how steps are submitted. One table a process.
#ifndef KERNELS_LAUNCH_COUNTS_H
#define KERNELS_LAUNCH_COUNTS_H

#include "kernels/kernels.h"

typedef struct Counts {
    int64_t launches; // of kernels and graphs; 0 on a device that does not count them
    int64_t uploaded; // bytes
} Counts;

const Kernels *launch_counter(const Kernels *k);
Counts launch_counts(void); // so far

// From the next step on: steps are captured and replayed under variants of their own, or never
// captured. -1: never; 0 .. 7: another set of graphs each.
void launch_graphs(int set);

#endif
