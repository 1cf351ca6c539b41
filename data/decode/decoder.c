#include "data/decode/decoder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/decode/image.h"

// For one image; the largest pictures need a few.
enum { CPU_SECONDS = 30, STALL_SECONDS = 10 };

// In a decoding process.
static void decode(const void *context, const uint8_t *bytes, size_t size, uint8_t *image,
                   SandboxResult *r)
{
    const Wanted *want = context;
    Error e = {0};
    ImageInfo i;
    r->status = image_info(bytes, size, !want->as_stored, &i, &e);
    if (!r->status) {
        r->h = i.h;
        r->w = i.w;
        if (want->exact && (i.h != want->h || i.w != want->w))
            r->status = fail(&e, STATUS_DATA, "%dx%d", i.h, i.w);
        else if (want->h)
            r->status =
                image_decode(image, want->h, want->w, want->c, want->crop, bytes, size, &i, &e);
    }
    snprintf(r->reason, sizeof r->reason, "%.199s", r->status ? e.message : "");
}

int decoder_open(Decoder *d, const Wanted *wanted, int64_t images, int workers, Error *e)
{
    *d = (Decoder){.wanted = *wanted};
    if (images < 64 * (int64_t)workers) workers = (int)(images / 64) + 1;
    const SandboxConfig config = {
        .work = decode,
        .context = &d->wanted,
        .out_bytes = (size_t)wanted->h * (size_t)wanted->w * (size_t)wanted->c,
        .max_input = IMAGE_MAX_BYTES,
        .workers = workers,
        .cpu_seconds = CPU_SECONDS,
        .stall_seconds = STALL_SECONDS,
    };
    const int status = sandbox_open(&d->sandbox, &config, e);
    if (!status && !sandbox_strict(d->sandbox))
        d->notice = "this system has no seccomp: images are decoded with limits on memory and time "
                    "alone";
    return status;
}

static int read_picture(const DecoderQueue *q, const ScanImage *entry, uint8_t *bytes, size_t *size,
                        Error *e)
{
    char path[8192];
    if (!q->dir) return image_read_named(entry->path, bytes, size, e);
    snprintf(path, sizeof path, "%s/%s", q->dir, entry->path);
    return image_read(path, bytes, size, e);
}

// Reads files into the sandbox until it is full or the list ends.
static int feed(Decoder *d, DecoderQueue *q, Error *e)
{
    uint8_t *input;
    while (q->put < q->list->n && (input = sandbox_input(d->sandbox))) {
        ScanImage *entry = &q->list->list[q->put];
        size_t size;
        Error bad;
        free(entry->bad); // from another time through the list
        entry->bad = NULL;
        const int status = read_picture(q, entry, input, &size, &bad);
        if (status == STATUS_IO)
            return fail(e, STATUS_IO, "%s%s%s: %s", q->dir ? q->dir : "", q->dir ? "/" : "",
                        entry->path, bad.message);
        if (!status)
            sandbox_put(d->sandbox, size);
        else if (!(entry->bad = strdup(bad.message)))
            return fail(e, STATUS_IO, "no memory");
        q->put++;
    }
    return 0;
}

int decoder_next(Decoder *d, DecoderQueue *q, ScanImage **entry, const uint8_t **image,
                 SandboxResult *r, Error *e)
{
    *entry = NULL;
    const int status = feed(d, q, e);
    if (status || q->taken == q->list->n) return status;
    *entry = &q->list->list[q->taken++];
    if (!(*entry)->bad) return sandbox_take(d->sandbox, image, r, e);
    *r = (SandboxResult){.status = STATUS_DATA};
    snprintf(r->reason, sizeof r->reason, "%s", (*entry)->bad);
    return 0;
}

void decoder_close(Decoder *d)
{
    sandbox_close(d->sandbox);
    d->sandbox = NULL;
}
