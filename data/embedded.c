// The data set that the program draws.
#include "data/dataset.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/sha256.h"
#include "data/storage.h"
#include "data/synth.h"

// What a split has in DatasetStorage.state.
typedef struct Drawings {
    uint64_t seed;
    int64_t first;        // drawing that is its image 0
    atomic_uchar drawn[]; // (n) 1 once the image is in the cache
} Drawings;

static uint16_t label(const Dataset *d, Split split, int64_t index)
{
    const Drawings *x = d->storage[split]->state;
    return (uint16_t)synth_label(x->seed, x->first + index);
}

static bool in_cache(const Dataset *d, Split split, int64_t index)
{
    const Drawings *x = d->storage[split]->state;
    return atomic_load_explicit(&x->drawn[index], memory_order_acquire);
}

static int fill(const Dataset *d, Split split, int64_t first, int64_t count, Error *e)
{
    (void)e;
    uint8_t *const cache = d->storage[split]->cache;
    Drawings *x = d->storage[split]->state;
#pragma omp parallel for if (count > 64)
    for (int64_t i = first; i < first + count; i++) {
        if (x->drawn[i]) continue;
        synth_image(cache + i * d->image_bytes, x->seed, x->first + i, d->h, d->w, d->c);
        atomic_store_explicit(&x->drawn[i], 1, memory_order_release);
    }
    return 0;
}

static const DatasetReader reader = {.label = label, .in_cache = in_cache, .fill = fill};

static void set_id(Dataset *d, uint64_t seed)
{
    char text[256];
    const int length = snprintf(
        text, sizeof text, "embedded %dx%dx%d train %" PRId64 " test %" PRId64 " seed %" PRIu64,
        d->h, d->w, d->c, d->n[SPLIT_TRAIN], d->n[SPLIT_TEST], seed);
    Sha256 sum;
    sha256_init(&sum);
    sha256_add(&sum, text, (size_t)length);
    sha256_finish(&sum, d->id);
}

int dataset_open_embedded(Dataset *d, int h, int w, int c, int64_t n_train, int64_t n_test,
                          uint64_t seed, Error *e)
{
    assert(h >= SYNTH_MIN_SIZE && h <= SYNTH_MAX_SIZE && w >= SYNTH_MIN_SIZE &&
           w <= SYNTH_MAX_SIZE && (c == 1 || c == 3) && n_train > 0 && n_test > 0);
    *d = (Dataset){.source = "embedded",
                   .embedded = true,
                   .reader = &reader,
                   .n = {n_train, n_test},
                   .h = h,
                   .w = w,
                   .c = c,
                   .image_bytes = (int64_t)h * w * c,
                   .classes = SYNTH_CLASSES,
                   .std = {1, 1, 1, 1},
                   .class_names = (char **)synth_class_names};
    synth_mean_std(c, d->mean, d->std);
    set_id(d, seed);
    for (int split = 0; split < 2; split++) {
        if (storage_new(d, (Split)split, sizeof(Drawings) + (size_t)d->n[split], e)) {
            dataset_close(d);
            return e->status;
        }
        d->storage[split]->small = d->storage[split]->cached = true;
        Drawings *x = d->storage[split]->state;
        x->seed = seed;
        x->first = split == SPLIT_TEST ? n_train : 0;
    }
    return 0;
}
