// Times each operation of training steps.
#ifndef KERNELS_OPERATION_TIMES_H
#define KERNELS_OPERATION_TIMES_H

#include "kernels/kernels.h"

enum { PROFILE_LAYER_MAX = 64, PROFILE_SHAPE_MAX = 40, PROFILE_ENTRIES_MAX = 512 };

// The layer that a device tensor belongs to, as a user would name it; "update" for NULL.
typedef void ProfileLayer(const void *context, const void *tensor,
                          char layer[static PROFILE_LAYER_MAX]);

// Calls of one operation on one shape in one layer, in all steps.
typedef struct ProfileEntry {
    const char *operation;
    char layer[PROFILE_LAYER_MAX], shape[PROFILE_SHAPE_MAX];
    double flop, bytes; // of one call (kernels/cost.h)
    int64_t calls;
    double seconds, fastest; // of all calls; of one
} ProfileEntry;

typedef struct Profile {
    int64_t steps;
    double step_seconds;         // of one step and what is between steps, without evaluations
    const ProfileEntry *entries; // in the order of a step
    int count;
} Profile;

// A table that does what `k` does and, between step_begin() and step_end(), takes the device's time
// of each call; step_end() waits for the device. Steps are never captured. One table a process;
// *k and *context must outlive it.
const Kernels *kernels_profile(const Kernels *k, ProfileLayer *layer, const void *context);

// What was recorded. The first step is not counted: it warms up. `entries` stay valid.
Profile kernels_profile_read(void);

#endif
