// Sums over the ranks that go on beside the trainer: libnn_mpi.so's own.
#ifndef BASE_MPI_REDUCE_H
#define BASE_MPI_REDUCE_H

#include <mpi.h>
#include <stdbool.h>

#include "base/comm.h"

// sum (n) = parts[0] + parts[1] + ... in this order. `sum` may be one of the parts.
void add_parts(float *sum, const float *const *parts, int count, int64_t n);

// Of the trainer: x (n) += those of the other ranks. At most REDUCTIONS at a time.
enum { REDUCTIONS = 512 };
void reduce_post(float *x, int64_t n, CommSpan *span);
bool reduce_finished(void); // all that were posted

// Of the thread of MPI. progress() starts and tests; true: there is something to go on with.
int reduce_open(Error *e); // STATUS_IO
bool reduce_progress(void);
void reduce_close(void);

#endif
