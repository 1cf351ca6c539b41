#include "data/pack/pack.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

#include "data/pack/outdir.h"
#include "base/sha256.h"

enum { MAX_SHARDS = 99999 };

// One split. Its finished shards wait under temporary names for their headers, which need facts of
// the whole data set.
typedef struct SplitPack {
    ShardHeader *headers; // (shards) finished
    int shards, capacity;
    int64_t n; // images so far, in finished shards and the open one

    int fd;             // of the open shard, -1 if there is none
    ShardHeader header; // laid out for as many images as may come
    uint16_t *labels;
    uint64_t *counts;
    uint32_t *sums;
    int64_t image_bytes; // written or in `block`
    uint8_t *block;      // the last block, image_bytes % SHARD_BLOCK bytes of it
} SplitPack;

struct Packer {
    PackConfig config;
    Outdir outdir;
    char *names; // of the classes, each ended by a zero byte
    size_t names_bytes;
    int64_t image_bytes, images_per_shard;
    SplitPack splits[2];
    int64_t bytes;                   // of all finished shards
    uint64_t sum[3], sum_squares[3]; // of the train split's pixels
};

// '#' stands for a digit.
static bool matches(const char *name, const char *pattern)
{
    for (; *pattern; name++, pattern++)
        if (*pattern == '#' ? *name < '0' || *name > '9' : *name != *pattern) return false;
    return *name == '\0';
}

static bool is_data_set_file(const char *name)
{
    static const char *const patterns[] = {"x-train-#####-of-#####.nns",
                                           "x-test-#####-of-#####.nns", "x-train-#####.part",
                                           "x-test-#####.part", "bad_files.tsv"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        if (matches(name, patterns[i])) return true;
    return false;
}

static int write_exactly(int fd, const void *bytes, size_t size, uint64_t offset, Error *e)
{
    size_t done = 0;
    while (done < size) {
        const ssize_t n =
            pwrite(fd, (const char *)bytes + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return fail_errno(e, STATUS_IO, "cannot write %zu bytes at %" PRIu64 " of a shard",
                              size, offset);
        done += (size_t)n;
    }
    return 0;
}

static int join_names(Packer *p, Error *e)
{
    for (int k = 0; k < p->config.classes; k++)
        p->names_bytes += strlen(p->config.class_names[k]) + 1;
    p->names = malloc(p->names_bytes);
    if (!p->names) return fail(e, STATUS_IO, "no memory for the class names");
    char *next = p->names;
    for (int k = 0; k < p->config.classes; k++) next = stpcpy(next, p->config.class_names[k]) + 1;
    return 0;
}

int packer_open(Packer **out, const char *dir, const PackConfig *c, Error *e)
{
    *out = NULL;
    Packer *p = calloc(1, sizeof *p);
    if (!p) return fail(e, STATUS_IO, "no memory");
    p->config = *c;
    p->image_bytes = (int64_t)c->h * c->w * c->c;
    p->images_per_shard = c->shard_bytes < p->image_bytes ? 1 : c->shard_bytes / p->image_bytes;
    if (p->images_per_shard > SHARD_MAX_IMAGES) p->images_per_shard = SHARD_MAX_IMAGES;
    p->outdir.fd = -1;
    p->splits[0].fd = p->splits[1].fd = -1;
    int status = 0;
    for (int s = 0; s < 2 && !status; s++) {
        if (c->most[s] > UINT32_MAX || c->most[s] / p->images_per_shard >= MAX_SHARDS)
            status = fail(e, STATUS_USAGE,
                          "%" PRId64 " %s images need more than %d shards: take a larger "
                          "--shard-bytes",
                          c->most[s], split_names[s], MAX_SHARDS);
    }
    if (!status) status = join_names(p, e);
    if (!status) status = outdir_open(&p->outdir, dir, is_data_set_file, c->force, e);
    if (status)
        packer_close(p);
    else
        *out = p;
    return status;
}

static void free_open_shard(SplitPack *s)
{
    if (s->fd >= 0) close(s->fd);
    free(s->labels);
    free(s->counts);
    free(s->sums);
    free(s->block);
    s->fd = -1;
    s->labels = NULL;
    s->counts = NULL;
    s->sums = NULL;
    s->block = NULL;
    s->image_bytes = 0;
}

static void temporary_name(char name[64], Split split, int shard)
{
    snprintf(name, 64, "x-%s-%05d.part", split_names[split], shard);
}

static int start_shard(Packer *p, Split split, Error *e)
{
    SplitPack *s = &p->splits[split];
    if (s->shards == s->capacity) {
        s->capacity = 2 * s->capacity + 4;
        ShardHeader *grown = realloc(s->headers, (size_t)s->capacity * sizeof *grown);
        if (!grown) return fail(e, STATUS_IO, "no memory for %d shards", s->capacity);
        s->headers = grown;
    }
    const int64_t left = p->config.most[split] - s->n;
    const int64_t n = left < p->images_per_shard ? left : p->images_per_shard;
    s->header = shard_header();
    s->header.flags = p->config.crop ? SHARD_CROPPED : 0;
    s->header.h = (uint32_t)p->config.h;
    s->header.w = (uint32_t)p->config.w;
    s->header.c = (uint32_t)p->config.c;
    s->header.classes = (uint32_t)p->config.classes;
    s->header.split = (uint32_t)split;
    s->header.first_index = (uint64_t)s->n;
    shard_layout(&s->header, n, p->names_bytes);
    s->header.n = 0;

    s->labels = malloc(s->header.labels.bytes);
    s->counts = calloc(1, s->header.counts.bytes);
    s->sums = malloc(s->header.sums.bytes);
    s->block = malloc(SHARD_BLOCK);
    if (!s->labels || !s->counts || !s->sums || !s->block)
        return fail(e, STATUS_IO, "no memory for a shard of %" PRId64 " images", n);
    char name[64];
    temporary_name(name, split, s->shards);
    s->fd = outdir_create(&p->outdir, name, e);
    return s->fd < 0 ? e->status : 0;
}

// Writes the last block, which is full or the shard's end.
static int flush_block(SplitPack *s, size_t size, Error *e)
{
    const int64_t block = (s->image_bytes - 1) / SHARD_BLOCK;
    s->sums[block] = (uint32_t)crc32_z(0, s->block, size);
    return write_exactly(s->fd, s->block, size,
                         s->header.images.offset + (uint64_t)block * SHARD_BLOCK, e);
}

static int append_image(SplitPack *s, const uint8_t *image, size_t size, Error *e)
{
    while (size > 0) {
        const size_t used = (size_t)(s->image_bytes % SHARD_BLOCK), room = SHARD_BLOCK - used;
        const size_t part = size < room ? size : room;
        memcpy(s->block + used, image, part);
        s->image_bytes += (int64_t)part;
        image += part;
        size -= part;
        if (part == room) {
            const int status = flush_block(s, SHARD_BLOCK, e);
            if (status) return status;
        }
    }
    return 0;
}

// Writes labels, names, counts and sums. The layout had room for as many images as might come.
static int finish_shard(Packer *p, SplitPack *s, Error *e)
{
    ShardHeader *h = &s->header;
    const size_t rest = (size_t)(s->image_bytes % SHARD_BLOCK);
    int status = rest ? flush_block(s, rest, e) : 0;
    h->images.bytes = (uint64_t)s->image_bytes;
    h->labels.bytes = h->n * sizeof *s->labels;
    h->sums.bytes = (h->images.bytes + SHARD_BLOCK - 1) / SHARD_BLOCK * sizeof *s->sums;
    h->file_bytes = h->images.offset + h->images.bytes;
    const void *const parts[] = {s->labels, p->names, s->counts, s->sums};
    uint32_t crc = 0;
    for (int i = 0; i < SECTION_IMAGES && !status; i++) {
        const ShardSection *section = shard_section(h, i);
        crc = (uint32_t)crc32_z(crc, parts[i], section->bytes);
        status = write_exactly(s->fd, parts[i], section->bytes, section->offset, e);
    }
    if (!status && fsync(s->fd)) status = fail_errno(e, STATUS_IO, "cannot sync a shard");
    if (status) return status;
    h->sections_crc = crc;
    p->bytes += (int64_t)h->file_bytes;
    s->headers[s->shards++] = *h;
    free_open_shard(s);
    return 0;
}

// A row's sums fit in 32 bits: 16384 * 255^2 < 2^32.
static void add_statistics(Packer *p, const uint8_t *image)
{
    const int c = p->config.c, row = p->config.w * c;
    for (int y = 0; y < p->config.h; y++)
        for (int k = 0; k < c; k++) {
            const uint8_t *x = image + (size_t)y * (size_t)row;
            uint32_t sum = 0, squares = 0;
            for (int i = k; i < row; i += c) {
                sum += x[i];
                squares += (uint32_t)x[i] * x[i];
            }
            p->sum[k] += sum;
            p->sum_squares[k] += squares;
        }
}

int packer_add(Packer *p, Split split, const uint8_t *image, int label, Error *e)
{
    SplitPack *s = &p->splits[split];
    int status = s->fd < 0 ? start_shard(p, split, e) : 0;
    if (!status) status = append_image(s, image, (size_t)p->image_bytes, e);
    if (status) return status;
    s->labels[s->header.n++] = (uint16_t)label;
    s->counts[label]++;
    s->n++;
    if (split == SPLIT_TRAIN) add_statistics(p, image);
    return (int64_t)s->header.n == p->images_per_shard ? finish_shard(p, s, e) : 0;
}

int packer_add_file(Packer *p, const char *name, const char *text, size_t size, Error *e)
{
    const int fd = outdir_create(&p->outdir, name, e);
    if (fd < 0) return e->status;
    int status = write_exactly(fd, text, size, 0, e);
    if (!status && fsync(fd)) status = fail_errno(e, STATUS_IO, "%s: cannot sync", name);
    close(fd);
    return status;
}

// std^2 = (n sum(x^2) - sum(x)^2) / n^2, exact in 128 bits until the division.
static void compute_statistics(const Packer *p, PackSummary *s)
{
    const uint64_t n = (uint64_t)s->n[SPLIT_TRAIN] * (uint64_t)p->config.h * (uint64_t)p->config.w;
    for (int k = 0; k < 4; k++) {
        s->mean[k] = 0;
        s->std[k] = 1;
        if (k >= p->config.c) continue;
        const unsigned __int128 sum = p->sum[k];
        const unsigned __int128 spread = n * (unsigned __int128)p->sum_squares[k] - sum * sum;
        s->mean[k] = (float)((double)p->sum[k] / (255.0 * (double)n));
        // A channel of one value everywhere keeps 1: nothing to scale, and no division by zero.
        if (spread > 0) s->std[k] = (float)(sqrt((double)spread) / (255.0 * (double)n));
    }
}

// SHA-256 of the options, the class names and, shard by shard, what stands for its contents: split,
// number of images and the crc over labels, counts and the sums of all image blocks.
static void compute_id(const Packer *p, uint8_t id[32])
{
    Sha256 sum;
    sha256_init(&sum);
    sha256_add(&sum, p->config.options, strlen(p->config.options) + 1);
    sha256_add(&sum, p->names, p->names_bytes);
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < p->splits[s].shards; i++) {
            const ShardHeader *h = &p->splits[s].headers[i];
            sha256_add(&sum, &h->split, sizeof h->split);
            sha256_add(&sum, &h->n, sizeof h->n);
            sha256_add(&sum, &h->sections_crc, sizeof h->sections_crc);
        }
    sha256_finish(&sum, id);
}

// Completes a finished shard's header and gives it its name.
static int seal_shard(const Packer *p, Split split, int shard, const PackSummary *summary,
                      const uint8_t id[32], Error *e)
{
    const SplitPack *s = &p->splits[split];
    ShardHeader *h = &s->headers[shard];
    h->dataset_n = (uint64_t)s->n;
    h->shard = (uint32_t)shard;
    h->shards = (uint32_t)s->shards;
    memcpy(h->mean, summary->mean, sizeof h->mean);
    memcpy(h->std, summary->std, sizeof h->std);
    memcpy(h->id, id, sizeof h->id);
    h->header_crc = (uint32_t)crc32_z(0, (const void *)h, sizeof *h - 4);

    char name[64], path[64];
    temporary_name(name, split, shard);
    snprintf(path, sizeof path, "x-%s-%05d-of-%05d.nns", split_names[split], shard, s->shards);
    const int fd = outdir_reopen(&p->outdir, name, e);
    if (fd < 0) return e->status;
    int status = write_exactly(fd, h, sizeof *h, 0, e);
    if (!status && fsync(fd)) status = fail_errno(e, STATUS_IO, "%s: cannot sync", path);
    close(fd);
    return status ? status : outdir_rename(&p->outdir, name, path, e);
}

int packer_commit(Packer *p, PackSummary *summary, Error *e)
{
    *summary = (PackSummary){0};
    int status = 0;
    for (int s = 0; s < 2 && !status; s++) {
        SplitPack *split = &p->splits[s];
        if (split->fd >= 0) status = finish_shard(p, split, e);
        if (!status && split->n == 0)
            status = fail(e, STATUS_DATA, "the %s split has no images", split_names[s]);
        summary->n[s] = split->n;
        summary->shards += split->shards;
    }
    if (status) return status;
    uint8_t id[32];
    compute_statistics(p, summary);
    compute_id(p, id);
    summary->bytes = p->bytes;
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < p->splits[s].shards && !status; i++)
            status = seal_shard(p, (Split)s, i, summary, id, e);
    return status ? status : outdir_commit(&p->outdir, e);
}

void packer_close(Packer *p)
{
    if (!p) return;
    for (int s = 0; s < 2; s++) {
        free_open_shard(&p->splits[s]);
        free(p->splits[s].headers);
    }
    outdir_close(&p->outdir);
    free(p->names);
    free(p);
}
