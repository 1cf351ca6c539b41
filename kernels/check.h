// Compares every operation of a device's table with the fp64 reference (kernels/reference.h). It
// uses nothing but the table, so it runs the same on any device.
#ifndef KERNELS_CHECK_H
#define KERNELS_CHECK_H

#include <stdio.h>

#include "kernels/kernels.h"

// Returns the number of operations that failed. `full`: every shape, else a subset that takes less
// than half a second. `only`: a part of the names of the operations to check; NULL: all.
// A line for each operation goes to `report`, and one for each tensor that is wrong.
int kernels_check(const Kernels *k, bool full, FILE *report, const char *only);

#endif
