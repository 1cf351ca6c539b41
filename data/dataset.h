// A data set: a train and a test split, from a directory of shards or drawn by the program itself.
//
// Images are uint8 and channel-last. A split of up to DATASET_CACHE_BYTES and a quarter of the
// memory stays there once it was read or drawn; larger ones are read again from the files (and the
// system's cache). Any number of threads may read at once.
#ifndef DATA_DATASET_H
#define DATA_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "data/shard.h"
#include "base/error.h"

// Part of what decides the order of an epoch, so no property of the machine may change them.
#define DATASET_CACHE_BYTES (2LL << 30)
#define DATASET_SHUFFLE_BYTES (8LL << 20) // a block that changes places as a whole
#define DATASET_SHUFFLE_WINDOW 32         // blocks among which images change places

typedef struct DatasetStorage DatasetStorage;
typedef struct DatasetReader DatasetReader; // data/storage.h

typedef struct Dataset {
    char source[4096]; // the directory, or "embedded"
    bool embedded;
    int64_t n[2]; // images of each Split, at most 2^32 - 1
    int h, w, c, classes;
    int64_t image_bytes;   // h * w * c
    float mean[4], std[4]; // of x/255 per channel of the train split; 0 and 1 past the last channel
    char **class_names;    // (classes)
    bool crop;             // how pictures of another shape were made to fit: cut, else stretched
    uint8_t id[32];        // equal only for equal data
    const DatasetReader *reader; // where its images come from
    DatasetStorage *storage[2];  // of each Split
} Dataset;

// Opens the shards x-train-*-of-*.nns and x-test-*-of-*.nns of a directory and checks everything
// but the images' sums; these too if `verify`, else each when its block is first read. Fails with
// STATUS_DATA when a shard is damaged, missing or from another data set.
int dataset_open(Dataset *d, const char *dir, bool verify, Error *e);

// The set that needs no files. Test image i is drawn as image n_train + i. h, w: 16..96; c: 1 or 3.
// STATUS_IO if memory is short.
int dataset_open_embedded(Dataset *d, int h, int w, int c, int64_t n_train, int64_t n_test,
                          uint64_t seed, Error *e);

// Sets images (count, H, W, C) and labels (count) from `first` on, in stored order. Either may be
// NULL.
int dataset_read(const Dataset *d, Split split, int64_t first, int64_t count, uint8_t *images,
                 uint16_t *labels, Error *e);

// Sets images (count, H, W, C) and labels (count) to those with the given indices.
int dataset_gather(const Dataset *d, Split split, const uint32_t *indices, int64_t count,
                   uint8_t *images, int32_t *labels, Error *e);

// Sets *images (n, H, W, C) to where the split stays in memory, NULL for one that does not. What
// dataset_touch() was asked for can be read there until dataset_close().
int dataset_cache(const Dataset *d, Split split, const uint8_t **images, Error *e);

// Brings the images with the given indices into the cache, if the split has one.
int dataset_touch(const Dataset *d, Split split, const uint32_t *indices, int64_t count, Error *e);

// Images in a block that is moved as a whole by shuffling: 0 for a split that fits in memory.
int64_t dataset_shuffle_block(const Dataset *d, Split split);

// Asks the system to read images first .. first+count-1 ahead (taken modulo n), if they come from
// files each time.
void dataset_prefetch(const Dataset *d, Split split, int64_t first, int64_t count);

void dataset_close(Dataset *d); // also after a failed open

#endif
