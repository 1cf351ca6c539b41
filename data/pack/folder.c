// A folder of images, one directory a class. Files that cannot be used are left out and listed.
// The run fails at its end if they are more than one in a hundred: then the list is complete.
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/decode/decoder.h"
#include "data/decode/image.h"
#include "data/pack/source.h"

typedef struct Folder {
    FolderOptions options;
    Scan scan;
    int64_t bad;        // of what was left out, the files that look like images by their name
    char last_bad[600]; // its path and the reason
    char missing[1024];

    const char *first_path; // of the image that gave the size
    Decoder decoder;
    DecoderQueue queue[2]; // of each split
} Folder;

// ---- decoding -----------------------------------------------------------------------------------

static void start_queues(Folder *f)
{
    for (int i = 0; i < 2; i++)
        f->queue[i] = (DecoderQueue){.dir = f->scan.dir, .list = &f->scan.images[i]};
}

static int open_decoder(Source *s, Folder *f, const Wanted *wanted, int64_t images, Error *e)
{
    const int status = decoder_open(&f->decoder, wanted, images, f->options.workers, e);
    s->notice = f->decoder.notice;
    return status;
}

static int leave_out(Folder *f, const ScanImage *entry, const char *reason, Error *e)
{
    f->bad++;
    snprintf(f->last_bad, sizeof f->last_bad, "%.300s: %.250s", entry->path, reason);
    return scan_leave_out(&f->scan, entry->path, reason, e);
}

static int not_one_is_good(Folder *f, Error *e)
{
    const ScanList *l = &f->scan.images[SPLIT_TRAIN];
    int status = 0;
    for (int64_t i = 0; i < l->n && !status; i++)
        status = leave_out(f, &l->list[i], l->list[i].bad ? l->list[i].bad : "no size", e);
    if (status) return status;
    return fail(e, STATUS_DATA, "%s: not one image can be read, as %s", f->scan.dir, f->last_bad);
}

// The size of all images, if none was asked for: that of the first one that is good.
static int find_size(Source *s, Folder *f, Error *e)
{
    const Wanted size_alone = {.as_stored = f->options.as_stored};
    int status = open_decoder(s, f, &size_alone, 1, e);
    start_queues(f);
    while (!status && s->h == 0) {
        const uint8_t *image;
        ScanImage *entry;
        SandboxResult r;
        status = decoder_next(&f->decoder, &f->queue[SPLIT_TRAIN], &entry, &image, &r, e);
        if (status) continue;
        if (!entry) {
            status = not_one_is_good(f, e);
            break;
        }
        if (r.status && !entry->bad && !(entry->bad = strdup(r.reason)))
            status = fail(e, STATUS_IO, "no memory");
        // A decoding process is not to be believed.
        if (status || r.status || r.h < 1 || r.w < 1 || r.h > SHARD_MAX_SIDE ||
            r.w > SHARD_MAX_SIDE || (int64_t)r.h * r.w > IMAGE_MAX_PIXELS)
            continue;
        s->h = r.h;
        s->w = r.w;
        f->first_path = entry->path;
    }
    decoder_close(&f->decoder);
    return status;
}

static int report_bad(const Source *s, Folder *f, const ScanImage *entry, const SandboxResult *r,
                      Error *e)
{
    if (f->decoder.wanted.exact && r->h && (r->h != s->h || r->w != s->w))
        return fail(e, STATUS_DATA,
                    "images differ in size: %s is %dx%d, %s is %dx%d; give --size %dx%d or another",
                    entry->path, r->h, r->w, f->first_path, s->h, s->w, s->h, s->w);
    return leave_out(f, entry, r->reason, e);
}

static int check_share_of_bad(const Source *s, const Folder *f, Error *e)
{
    const int64_t total = s->count[0] + s->count[1];
    if (f->options.skip_bad || f->bad * 100 <= total) return 0;
    return fail(e, STATUS_DATA,
                "%s: %" PRId64 " of the %" PRId64
                " images cannot be used, as %s; --skip-bad makes the data set without them",
                f->scan.dir, f->bad, total, f->last_bad);
}

static int folder_next(Source *s, Split split, uint8_t *image, int *label, Error *e)
{
    Folder *f = s->state;
    *label = -1;
    for (;;) {
        const uint8_t *pixels = NULL;
        ScanImage *entry;
        SandboxResult r;
        int status = decoder_next(&f->decoder, &f->queue[split], &entry, &pixels, &r, e);
        if (!status && !entry && split == SPLIT_TEST) return check_share_of_bad(s, f, e);
        if (status || !entry) return status;
        if (r.status == 0) {
            assert(pixels);
            memcpy(image, pixels, (size_t)s->h * (size_t)s->w * (size_t)s->c);
            *label = entry->label;
            return 0;
        }
        status = report_bad(s, f, entry, &r, e);
        if (status) return status;
    }
}

static char *folder_left_out(Source *s, int64_t *files, Error *e)
{
    Folder *f = s->state;
    *files = f->scan.left_out_count;
    return scan_left_out(&f->scan, e);
}

static void folder_close(Source *s)
{
    Folder *f = s->state;
    if (!f) return;
    scan_close(&f->scan);
    decoder_close(&f->decoder);
    free(f);
    s->state = NULL;
}

// A class that is a link, or pictures a level too deep, would be missed much later.
static void tell_missing(Source *s, Folder *f)
{
    const LeftOut *first;
    const int64_t folders = scan_folders_left_out(&f->scan, &first);
    if (folders == 0) return;
    const int n = snprintf(f->missing, sizeof f->missing, "%s/%.500s is left out: %s", f->scan.dir,
                           first->path, first->reason);
    if (folders > 1 && n < (int)sizeof f->missing)
        snprintf(f->missing + n, sizeof f->missing - (size_t)n,
                 "; %" PRId64 " more folders in bad_files.tsv", folders - 1);
    s->missing = f->missing;
}

static int open_folder(Source *s, Folder *f, const char *dir, Error *e)
{
    int status = scan_open(&f->scan, dir, f->options.test_fraction, e);
    if (!status) tell_missing(s, f);
    s->h = f->options.h;
    s->w = f->options.w;
    if (!status && s->h == 0) status = find_size(s, f, e);
    if (status) return status;
    for (int i = 0; i < 2; i++) s->count[i] = f->scan.images[i].n;
    s->classes = f->scan.class_count;
    s->class_names = f->scan.classes;
    const Wanted wanted = {.h = s->h,
                           .w = s->w,
                           .c = s->c,
                           .crop = f->options.crop,
                           .exact = f->options.h == 0,
                           .as_stored = f->options.as_stored};
    start_queues(f);
    return open_decoder(s, f, &wanted, s->count[0] + s->count[1], e);
}

int folder_open(Source *s, const char *dir, const FolderOptions *o, Error *e)
{
    *s = (Source){
        .c = o->c, .next = folder_next, .left_out = folder_left_out, .close = folder_close};
    Folder *f = s->state = calloc(1, sizeof *f);
    if (!f) return fail(e, STATUS_IO, "no memory");
    f->options = *o;
    return open_folder(s, f, dir, e);
}
