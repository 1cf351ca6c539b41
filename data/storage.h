// What data/dataset.c shares with the two ways to get at images: data/shard_set.c reads shards,
// data/embedded.c draws.
#ifndef DATA_STORAGE_H
#define DATA_STORAGE_H

#include <pthread.h>

#include "data/shard.h"

typedef struct Dataset Dataset; // data/dataset.h
typedef struct DatasetStorage DatasetStorage;

// One split.
struct DatasetStorage {
    bool small;            // shuffled as a whole; never decided by the machine
    bool cached;           // the split stays in memory
    pthread_mutex_t mutex; // held while the cache is filled
    uint8_t *cache;        // (n, H, W, C), allocated at the first touch
    void *state;           // the reader's own, to be freed
};

// Images are counted in stored order inside the split.
struct DatasetReader {
    uint16_t (*label)(const Dataset *d, Split split, int64_t index);

    // Of a split that stays in memory: whether an image is in the cache, to which the caller may
    // then look, and brings images first .. first+count-1 there; one thread at a time does that.
    bool (*in_cache)(const Dataset *d, Split split, int64_t index);
    int (*fill)(const Dataset *d, Split split, int64_t first, int64_t count, Error *e);

    // Of any other split, NULL where there is none: sets images (count, H, W, C), and what
    // dataset_prefetch() does.
    int (*read)(const Dataset *d, Split split, int64_t first, int64_t count, uint8_t *images,
                Error *e);
    void (*prefetch)(const Dataset *d, Split split, int64_t first, int64_t count);

    void (*close)(const DatasetStorage *s); // all that `state` has open; NULL: nothing
};

// Gives a split its storage with `bytes` zeros as the reader's state. STATUS_IO.
int storage_new(Dataset *d, Split split, size_t bytes, Error *e);

#endif
