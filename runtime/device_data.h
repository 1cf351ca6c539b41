// A split of a data set that stays on the device, so that a step needs only the indices of its
// images. For devices with memory of their own (Kernels.own_memory).
#ifndef RUNTIME_DEVICE_DATA_H
#define RUNTIME_DEVICE_DATA_H

#include "data/dataset.h"
#include "kernels/kernels.h"

typedef struct DeviceData {
    uint8_t *images; // (n,H,W,C), NULL: not loaded
    int32_t *labels; // (n)
} DeviceData;

// Loads the split if it takes at most half of the memory that is free on the device; else, and
// where the memory is the host's, leaves `images` NULL. What is loaded already is kept.
int device_data_load(DeviceData *s, const Kernels *k, const Dataset *d, Split split, Error *e);
void device_data_release(DeviceData *s, const Kernels *k);

#endif
