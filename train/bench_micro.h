// Rows about the machine (bench_host.c) and about the device, through its table (bench_device.c).
#ifndef TRAIN_BENCH_MICRO_H
#define TRAIN_BENCH_MICRO_H

#include "kernels/kernels.h"
#include "base/timing_rows.h"

// `file`: one that may be made, read and removed, where the run's directory is. `threads`: of the
// rows "_nt".
int bench_host(Rows *r, const char *file, int threads, Error *e);
int bench_device(Rows *r, const Kernels *k, Error *e);

#endif
