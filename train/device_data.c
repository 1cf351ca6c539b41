#include "train/device_data.h"

#include <stdlib.h>

enum { PIECE = 4 << 20 }; // bytes of images read at a time

// All images to device memory, by way of the host's.
static int send_images(uint8_t *to, const Kernels *k, const Dataset *d, Split split, Error *e)
{
    const int64_t each = PIECE / d->image_bytes + 1;
    uint8_t *images = malloc((size_t)(each * d->image_bytes));
    int status = STATUS_OK;
    if (!images) status = fail(e, STATUS_IO, "no memory to read %lld images", (long long)each);
    for (int64_t first = 0; !status && first < d->n[split]; first += each) {
        const int64_t rest = d->n[split] - first, count = rest < each ? rest : each;
        status = dataset_read(d, split, first, count, images, NULL, e);
        if (status) break;
        k->upload(to + first * d->image_bytes, images, (size_t)(count * d->image_bytes));
    }
    free(images);
    return status;
}

static int send_labels(int32_t *to, const Kernels *k, const Dataset *d, Split split, Error *e)
{
    const size_t n = (size_t)d->n[split];
    uint16_t *stored = malloc(n * sizeof *stored);
    int32_t *labels = malloc(n * sizeof *labels);
    int status = STATUS_OK;
    if (!stored || !labels)
        status = fail(e, STATUS_IO, "no memory to read %zu labels", n);
    else
        status = dataset_read(d, split, 0, d->n[split], NULL, stored, e);
    if (!status) {
        for (size_t i = 0; i < n; i++) labels[i] = stored[i];
        k->upload(to, labels, n * sizeof *labels);
    }
    free(stored);
    free(labels);
    return status;
}

static int load_own(DeviceData *s, const Kernels *k, const Dataset *d, Split split, Error *e)
{
    const size_t n = (size_t)d->n[split], image = (size_t)d->image_bytes;
    const size_t bytes = n * (image + sizeof *s->labels);
    if (bytes > k->memory_free() / 2) return STATUS_OK;
    uint8_t *images = k->alloc(n * image);
    s->labels = k->alloc(n * sizeof *s->labels);
    s->images = images;
    s->own = true;
    if (!images || !s->labels) {
        device_data_release(s, k); // then batches are sent
        return STATUS_OK;
    }
    const int status = send_images(images, k, d, split, e);
    return status ? status : send_labels(s->labels, k, d, split, e);
}

static int share_cache(DeviceData *s, const Kernels *k, const Dataset *d, Split split, Error *e)
{
    const int status = dataset_cache(d, split, &s->images, e);
    if (status || !s->images) return status;
    s->labels = k->alloc((size_t)d->n[split] * sizeof *s->labels);
    if (s->labels) return send_labels(s->labels, k, d, split, e);
    device_data_release(s, k);
    return STATUS_OK;
}

int device_data_load(DeviceData *s, const Kernels *k, const Dataset *d, Split split, Error *e)
{
    if (s->images) return STATUS_OK;
    return k->own_memory ? load_own(s, k, d, split, e) : share_cache(s, k, d, split, e);
}

void device_data_release(DeviceData *s, const Kernels *k)
{
    if (s->images && s->own) k->release((void *)(uintptr_t)s->images);
    if (s->labels) k->release(s->labels);
    *s = (DeviceData){0};
}
