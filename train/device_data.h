// A split of a data set that stays where the device can read it, so that a step needs only the
// indices of its images.
#ifndef TRAIN_DEVICE_DATA_H
#define TRAIN_DEVICE_DATA_H

#include "data/dataset.h"
#include "kernels/kernels.h"

typedef struct DeviceData {
    const uint8_t *images; // (n,H,W,C), NULL: not loaded
    int32_t *labels;       // (n)
    bool own;              // the images are on the device, not in the data set's cache
} DeviceData;

// Loads the split if it takes at most half of the memory that is free on the device. Where the
// memory is the host's, `images` is the data set's cache, which a Loader fills. A split that is too
// large leaves it NULL. What is loaded already is kept.
int device_data_load(DeviceData *s, const Kernels *k, const Dataset *d, Split split, Error *e);
void device_data_release(DeviceData *s, const Kernels *k);

#endif
