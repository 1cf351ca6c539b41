// The fingerprint of a timing report: what must be equal for a comparison, and what may explain a
// difference.
#ifndef TRAIN_BENCH_ENVIRONMENT_H
#define TRAIN_BENCH_ENVIRONMENT_H

#include "kernels/kernels.h"
#include "base/json.h"

// Adds an object "environment" to the open one. The programs' hashes are of the files as they are
// now; STATUS_IO if they cannot be read.
int bench_environment(Json *j, const Kernels *k, int threads, Error *e);

// 32 bytes as hexadecimal digits.
void bench_hex(const uint8_t bytes[static 32], char text[static 65]);

// How busy the machine was between two points.
typedef struct Busy {
    double seconds;      // os_seconds()
    double own, machine; // processor seconds used by this process, and by all
    double stolen;       // processor seconds taken by a hypervisor's other guests
} Busy;
Busy bench_busy(void);

// Processors used by others since `from`: programs beside this one and other guests; >= 0.
double bench_others(const Busy *from);

#endif
