#include "runtime/device_data.h"

#include <stdlib.h>

enum { PIECE = 4 << 20 }; // bytes of images read at a time

static size_t image_bytes(const Dataset *d)
{
    return (size_t)d->h * (size_t)d->w * (size_t)d->c;
}

// Images first .. first+count-1 by way of host memory.
static int send(const DeviceData *s, const Kernels *k, const Dataset *d, Split split, int64_t first,
                int64_t count, uint8_t *images, uint16_t *labels, Error *e)
{
    const int status = dataset_read(d, split, first, count, images, labels, e);
    if (status) return status;
    k->upload(s->images + (size_t)first * image_bytes(d), images, (size_t)count * image_bytes(d));
    int32_t *wide = (int32_t *)(void *)images; // its images are on their way
    for (int64_t done = 0, n; done < count; done += n) {
        n = PIECE / (int64_t)sizeof *wide;
        if (n > count - done) n = count - done;
        for (int64_t i = 0; i < n; i++) wide[i] = labels[done + i];
        k->upload(s->labels + first + done, wide, (size_t)n * sizeof *wide);
    }
    return STATUS_OK;
}

static int send_all(const DeviceData *s, const Kernels *k, const Dataset *d, Split split, Error *e)
{
    const int64_t each = PIECE / (int64_t)image_bytes(d) + 1;
    const size_t bytes = (size_t)each * image_bytes(d);
    uint8_t *images = malloc(bytes > PIECE ? bytes : PIECE);
    uint16_t *labels = malloc((size_t)each * sizeof *labels);
    int status = STATUS_OK;
    if (!images || !labels)
        status = fail(e, STATUS_IO, "no memory to read %lld images", (long long)each);
    for (int64_t first = 0; !status && first < d->n[split]; first += each) {
        const int64_t rest = d->n[split] - first;
        status = send(s, k, d, split, first, rest < each ? rest : each, images, labels, e);
    }
    free(images);
    free(labels);
    return status;
}

int device_data_load(DeviceData *s, const Kernels *k, const Dataset *d, Split split, Error *e)
{
    const size_t n = (size_t)d->n[split], bytes = n * (image_bytes(d) + sizeof(int32_t));
    if (s->images || !k->own_memory || bytes > k->memory_free() / 2) return STATUS_OK;
    s->images = k->alloc(n * image_bytes(d));
    s->labels = k->alloc(n * sizeof *s->labels);
    if (s->images && s->labels) return send_all(s, k, d, split, e);
    device_data_release(s, k); // then batches are sent
    return STATUS_OK;
}

void device_data_release(DeviceData *s, const Kernels *k)
{
    if (s->images) k->release(s->images);
    if (s->labels) k->release(s->labels);
    *s = (DeviceData){0};
}
