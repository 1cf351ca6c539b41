// Several processes, each with its share of every batch, as one: a table around a device's.
#ifndef KERNELS_DISTRIBUTED_H
#define KERNELS_DISTRIBUTED_H

#include <stdio.h>

#include "kernels/kernels.h"
#include "base/comm.h"

typedef struct Distributed {
    const Collectives *collectives;
    int ranks;
    bool sync_norm; // batch norm over the rows of all ranks, not of each
    bool trace;     // for kernels_distributed_print()
} Distributed;

// A table that does what `k` does and, between step_begin() and step_end(),
// - sums each gradient over the ranks, from when the backward pass has written it to when an
//   optimizer reads it; a gradient that the step does not write counts as 0,
// - merges the statistics and sums of batch norm, if asked to.
// A trainer's gradients are those of a loss divided by the images of all ranks, so that sums are
// what one process would have. One table a process; *k must outlive it.
const Kernels *kernels_distributed(const Kernels *k, const Distributed *d);

// Where the gradients are: those of p lie in this order in one arena. What is planned next tells
// when each is complete. Call it before the first step.
void kernels_distributed_gradients(const Param *p, int count);

// What was exchanged when, on average over the steps but the first, with the part that the step had
// to wait for beside its floor: the exchanges that nothing can hide, measured alone. All ranks call
// it; gradients are lost.
void kernels_distributed_print(FILE *f);

#endif
