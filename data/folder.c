// A folder of images, one directory a class. Files that cannot be used are left out and listed;
// the run fails if they are more than one in a hundred. This process reads the files; what looks at
// their contents are the processes of data/sandbox.h.
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/image.h"
#include "data/sandbox.h"
#include "data/scan.h"
#include "data/source.h"

// For one image; the largest pictures need a few.
enum { CPU_SECONDS = 30, STALL_SECONDS = 10 };

// What the decoding processes make of an image.
typedef struct Wanted {
    int h, w, c; // h = 0: its size is asked for, no pixels
    bool crop;
    bool exact; // no other size will do
} Wanted;

typedef struct Folder {
    FolderOptions options;
    Scan scan;
    int64_t bad; // of what was left out, the files that look like images by their name

    const char *first_path; // of the image that gave the size
    Wanted wanted;
    Sandbox *sandbox;
    int64_t put[2], taken[2]; // images that went into the sandbox, and came out
} Folder;

// ---- decoding -----------------------------------------------------------------------------------

static void full_path(const Folder *f, const ScanImage *entry, char path[8192])
{
    snprintf(path, 8192, "%s/%s", f->scan.dir, entry->path);
}

// In a decoding process.
static void decode(const void *context, const uint8_t *bytes, size_t size, uint8_t *image,
                   SandboxResult *r)
{
    const Wanted *want = context;
    Error e = {0};
    int h = 0, w = 0;
    r->status = image_info(bytes, size, &h, &w, &e);
    if (!r->status) {
        r->h = h;
        r->w = w;
        if (want->exact && (h != want->h || w != want->w))
            r->status = fail(&e, STATUS_DATA, "%dx%d", h, w);
        else if (want->h)
            r->status =
                image_decode(image, want->h, want->w, want->c, want->crop, bytes, size, h, w, &e);
    }
    snprintf(r->reason, sizeof r->reason, "%.199s", r->status ? e.message : "");
}

static int open_sandbox(Source *s, Folder *f, int64_t images, Error *e)
{
    int workers = f->options.workers;
    if (images < 64 * (int64_t)workers) workers = (int)(images / 64) + 1;
    const SandboxConfig config = {
        .work = decode,
        .context = &f->wanted,
        .out_bytes = (size_t)f->wanted.h * (size_t)f->wanted.w * (size_t)f->wanted.c,
        .max_input = IMAGE_MAX_BYTES,
        .workers = workers,
        .cpu_seconds = CPU_SECONDS,
        .stall_seconds = STALL_SECONDS,
    };
    const int status = sandbox_open(&f->sandbox, &config, e);
    if (!status && !sandbox_strict(f->sandbox))
        s->notice = "this system has no seccomp: images are decoded with limits on memory and time "
                    "alone";
    return status;
}

// Reads files into the sandbox until it is full or the split ends.
static int feed(Folder *f, Split split, Error *e)
{
    const ScanList *l = &f->scan.images[split];
    uint8_t *input;
    while (f->put[split] < l->n && (input = sandbox_input(f->sandbox))) {
        ScanImage *entry = &l->list[f->put[split]];
        char path[8192];
        size_t size;
        Error bad;
        full_path(f, entry, path);
        free(entry->bad); // from finding the size
        entry->bad = NULL;
        const int status = image_read(path, input, &size, &bad);
        if (status == STATUS_IO) return fail(e, STATUS_IO, "%s: %s", path, bad.message);
        if (!status)
            sandbox_put(f->sandbox, size);
        else if (!(entry->bad = strdup(bad.message)))
            return fail(e, STATUS_IO, "no memory");
        f->put[split]++;
    }
    return 0;
}

// The next image's entry and what became of it; *entry is NULL after the last one.
static int take(Folder *f, Split split, ScanImage **entry, const uint8_t **image, SandboxResult *r,
                Error *e)
{
    *entry = NULL;
    int status = feed(f, split, e);
    if (status || f->taken[split] == f->scan.images[split].n) return status;
    *entry = &f->scan.images[split].list[f->taken[split]++];
    if (!(*entry)->bad) return sandbox_take(f->sandbox, image, r, e);
    *r = (SandboxResult){.status = STATUS_DATA};
    snprintf(r->reason, sizeof r->reason, "%s", (*entry)->bad);
    return 0;
}

// The size of all images, if none was asked for: that of the first one that is good.
static int find_size(Source *s, Folder *f, Error *e)
{
    int status = open_sandbox(s, f, 1, e);
    while (!status && s->h == 0) {
        const uint8_t *image;
        ScanImage *entry;
        SandboxResult r;
        status = take(f, SPLIT_TRAIN, &entry, &image, &r, e);
        if (!status && !entry)
            status = fail(e, STATUS_DATA, "%s: not one image can be read", f->scan.dir);
        // A decoding process is not to be believed.
        if (status || r.status || r.h < 1 || r.w < 1 || r.h > SHARD_MAX_SIDE ||
            r.w > SHARD_MAX_SIDE)
            continue;
        s->h = r.h;
        s->w = r.w;
        f->first_path = entry->path;
    }
    sandbox_close(f->sandbox);
    f->sandbox = NULL;
    f->put[SPLIT_TRAIN] = f->taken[SPLIT_TRAIN] = 0;
    return status;
}

static int report_bad(const Source *s, Folder *f, const ScanImage *entry, const SandboxResult *r,
                      Error *e)
{
    if (f->wanted.exact && r->h && (r->h != s->h || r->w != s->w))
        return fail(e, STATUS_DATA,
                    "images differ in size: %s is %dx%d, %s is %dx%d; give --size %dx%d or another",
                    entry->path, r->h, r->w, f->first_path, s->h, s->w, s->h, s->w);
    const int64_t total = s->count[0] + s->count[1];
    if (++f->bad * 100 > total)
        return fail(e, STATUS_DATA,
                    "%s: more than 1%% of the %" PRId64 " images cannot be used; the last one is "
                    "%s: %s",
                    f->scan.dir, total, entry->path, r->reason);
    return scan_leave_out(&f->scan, entry->path, r->reason, e);
}

static int folder_next(Source *s, Split split, uint8_t *image, int *label, Error *e)
{
    Folder *f = s->state;
    *label = -1;
    for (;;) {
        const uint8_t *pixels = NULL;
        ScanImage *entry;
        SandboxResult r;
        int status = take(f, split, &entry, &pixels, &r, e);
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
    sandbox_close(f->sandbox);
    free(f);
    s->state = NULL;
}

static int open_folder(Source *s, Folder *f, const char *dir, Error *e)
{
    int status = scan_open(&f->scan, dir, f->options.test_fraction, e);
    s->h = f->options.h;
    s->w = f->options.w;
    if (!status && s->h == 0) status = find_size(s, f, e);
    if (status) return status;
    for (int i = 0; i < 2; i++) s->count[i] = f->scan.images[i].n;
    s->classes = f->scan.class_count;
    s->class_names = f->scan.classes;
    f->wanted = (Wanted){s->h, s->w, s->c, f->options.crop, f->options.h == 0};
    return open_sandbox(s, f, s->count[0] + s->count[1], e);
}

int folder_open(Source *s, const char *dir, const FolderOptions *o, Error *e)
{
    *s = (Source){
        .c = o->c, .next = folder_next, .left_out = folder_left_out, .close = folder_close};
    Folder *f = s->state = calloc(1, sizeof *f);
    if (!f) return fail(e, STATUS_IO, "no memory");
    f->options = *o;
    const int status = open_folder(s, f, dir, e);
    if (status) folder_close(s);
    return status;
}
