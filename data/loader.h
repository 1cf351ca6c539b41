// Batches in the order of training, prepared ahead by one thread.
//     Loader *l;
//     check(loader_open(&l, &dataset, &config, &e), &e);
//     for (Batch b; loader_next(l, &b, &e) == 0 && b.n > 0;) train(&b);
//
// Which image is at which place depends on (seed, epoch) alone: not on threads, processes or where
// a run was resumed.
#ifndef DATA_LOADER_H
#define DATA_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "data/dataset.h"
#include "base/error.h"

typedef struct LoaderConfig {
    Split split;
    int64_t batch;  // images of all processes together
    bool shuffle;   // stored order otherwise
    bool drop_last; // leave out an epoch's last batch if it is not full
    bool repeat;    // the next epoch follows; else the batches end with the epoch
    bool ids_only;  // leave out images and labels; images of a split that the data set keeps in
                    // memory are there when their ids come
    uint64_t seed;
    int64_t first_epoch, first_batch; // where to start
    int rank, ranks; // this process takes the positions p of an epoch with p % ranks == rank
} LoaderConfig;

typedef struct Batch {
    const uint8_t *images; // (n, H, W, C); NULL with ids_only
    const int32_t *labels; // (n); NULL with ids_only
    const uint32_t *ids;   // (n) index in the split: the key of every random decision on the image
    int64_t n;             // images of this process
    int64_t epoch, index;  // index of the batch inside its epoch; -1 after the last batch
} Batch;

typedef struct Loader Loader;

// `d` must stay open until loader_close(). Fails with STATUS_USAGE if the configuration gives no
// batch.
int loader_open(Loader **l, const Dataset *d, const LoaderConfig *c, Error *e);

// Waits for the next batch, which stays valid until the next call. At the end n is 0 and index -1.
// (In an incomplete last batch a process may have no image, too: then n is 0 and index is not -1.)
// An error of the reading thread, as a damaged shard, is returned in place of the batch it hit.
int loader_next(Loader *l, Batch *b, Error *e);

void loader_close(Loader *l); // NULL is allowed

#endif
