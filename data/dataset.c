#include "data/dataset.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "data/storage.h"

int storage_new(Dataset *d, Split split, size_t bytes, Error *e)
{
    DatasetStorage *s = calloc(1, sizeof *s);
    void *state = calloc(1, bytes);
    if (!s || !state) {
        free(s);
        free(state);
        return fail(e, STATUS_IO, "%s: no memory for the %s split", d->source, split_names[split]);
    }
    s->state = state;
    pthread_mutex_init(&s->mutex, NULL);
    d->storage[split] = s;
    return 0;
}

void dataset_close(Dataset *d)
{
    for (int split = 0; split < 2; split++) {
        DatasetStorage *s = d->storage[split];
        if (!s) continue;
        if (d->reader->close) d->reader->close(s);
        pthread_mutex_destroy(&s->mutex);
        free(s->cache);
        free(s->state);
        free(s);
    }
    *d = (Dataset){0};
}

int dataset_cache(const Dataset *d, Split split, const uint8_t **images, Error *e)
{
    DatasetStorage *s = d->storage[split];
    *images = NULL;
    if (!s->cached) return 0;
    const size_t bytes = (size_t)(d->n[split] * d->image_bytes);
    pthread_mutex_lock(&s->mutex);
    if (!s->cache) s->cache = malloc(bytes); // not touched here: pages appear as images arrive
    *images = s->cache;
    pthread_mutex_unlock(&s->mutex);
    if (*images) return 0;
    return fail(e, STATUS_IO, "%s: no memory for %lld %s images (%zu bytes)", d->source,
                (long long)d->n[split], split_names[split], bytes);
}

int dataset_touch(const Dataset *d, Split split, const uint32_t *indices, int64_t count, Error *e)
{
    const uint8_t *images;
    int status = dataset_cache(d, split, &images, e);
    if (status || !images) return status;
    DatasetStorage *s = d->storage[split];
    for (int64_t i = 0; i < count && !status; i++) {
        if (d->reader->in_cache(d, split, indices[i])) continue;
        pthread_mutex_lock(&s->mutex);
        status = d->reader->fill(d, split, indices[i], 1, e);
        pthread_mutex_unlock(&s->mutex);
    }
    return status;
}

int dataset_read(const Dataset *d, Split split, int64_t first, int64_t count, uint8_t *images,
                 uint16_t *labels, Error *e)
{
    assert(first >= 0 && count >= 0 && count <= d->n[split] - first);
    DatasetStorage *s = d->storage[split];
    const uint8_t *cache;
    for (int64_t i = 0; i < count && labels; i++) labels[i] = d->reader->label(d, split, first + i);
    if (!images || count == 0) return 0;
    int status = dataset_cache(d, split, &cache, e);
    if (status) return status;
    if (!cache) return d->reader->read(d, split, first, count, images, e);
    pthread_mutex_lock(&s->mutex);
    status = d->reader->fill(d, split, first, count, e);
    pthread_mutex_unlock(&s->mutex);
    if (!status) memcpy(images, cache + first * d->image_bytes, (size_t)(count * d->image_bytes));
    return status;
}

int dataset_gather(const Dataset *d, Split split, const uint32_t *indices, int64_t count,
                   uint8_t *images, int32_t *labels, Error *e)
{
    const DatasetStorage *s = d->storage[split];
    int status = dataset_touch(d, split, indices, count, e);
    for (int64_t i = 0; i < count && !status; i++) {
        uint8_t *image = images + i * d->image_bytes;
        labels[i] = d->reader->label(d, split, indices[i]);
        if (s->cached)
            memcpy(image, s->cache + indices[i] * d->image_bytes, (size_t)d->image_bytes);
        else
            status = d->reader->read(d, split, indices[i], 1, image, e);
    }
    return status;
}

int64_t dataset_shuffle_block(const Dataset *d, Split split)
{
    if (d->storage[split]->small) return 0;
    return d->image_bytes < DATASET_SHUFFLE_BYTES ? DATASET_SHUFFLE_BYTES / d->image_bytes : 1;
}

void dataset_prefetch(const Dataset *d, Split split, int64_t first, int64_t count)
{
    if (!d->storage[split]->cached) d->reader->prefetch(d, split, first, count);
}
