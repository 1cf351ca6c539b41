// The batches of a program on their way to the device: training batches in the order of the seed,
// test batches, or pictures that somebody else has read.
#ifndef TRAIN_FEED_H
#define TRAIN_FEED_H

#include "data/loader.h"
#include "base/comm.h"
#include "train/device_data.h"
#include "train/options.h"
#include "train/tensor.h"

typedef struct Feed {
    const Options *options;
    const Comm *comm;
    const Dataset *data;
    const Kernels *kernels;
    int64_t steps_per_epoch;

    const DeviceData *set;         // the split whose rows `ids` are; NULL: the images lie here
    Tensor *images, *labels, *ids; // (batch,H,W,C) uint8, (batch) int32, (batch) uint32
    int64_t n;                     // images in it now, of this rank

    DeviceData sets[2];  // the splits that the device reads where they stay
    Loader *loader;      // of training batches; NULL before feed_seek()
    Batch first;         // of the loader, read when it is opened; n is 0 once it was used
    int64_t step, seed;  // the step whose batch feed_next() brings, and the seed of the order
    double wait_seconds; // spent on waiting for training batches since the loader was opened
} Feed;

// Declares the feed's tensors for `batch` images of this rank.
void feed_declare(Feed *f, Tensors *t, int64_t batch);

// Brings the splits to where the device reads them in place, if --resident says so and they fit:
// batches are then only indices. Without this call images come with each batch.
void feed_load_sets(Feed *f);

// Makes the batch of training step `step` (0 is the first) the next one. Reads it, so that data
// which cannot be read end the program here.
void feed_seek(Feed *f, int64_t step);

// Brings the next training batch to the device.
void feed_next(Feed *f);

// The test batches from the first on; close it with loader_close().
Loader *feed_test_batches(Feed *f);

// Brings the first `n` training images in stored order to the device: for --selftest.
void feed_fixed(Feed *f, int64_t n);

// Brings a batch of the split to the device; One that carries its images may come
// from anywhere.
void feed_load(Feed *f, Split split, const Batch *b);

// The current batch as the network's input: x (n,h,w,c) element and labels (n).
void feed_gather(const Feed *f, const Kernels *k, const Tensor *x, const Tensor *labels,
                 Augment augment);

void feed_close(Feed *f);

#endif
