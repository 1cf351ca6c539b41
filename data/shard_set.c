// A data set as a directory of shards.
#include "data/dataset.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "data/storage.h"
#include "base/os.h"

// What a split has in DatasetStorage.state.
typedef struct Shards {
    int64_t count;
    Shard list[]; // by number
} Shards;

// ---- reading ------------------------------------------------------------------------------------

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

// The shard that holds image `index`: the last one whose first_index is not above it.
static const Shard *shard_of(const Dataset *d, Split split, int64_t index)
{
    const Shards *all = d->storage[split]->state;
    int64_t low = 0, high = all->count;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if ((int64_t)all->list[middle].header.first_index <= index)
            low = middle;
        else
            high = middle;
    }
    return &all->list[low];
}

static uint16_t label(const Dataset *d, Split split, int64_t index)
{
    const Shard *shard = shard_of(d, split, index);
    return shard->labels[index - (int64_t)shard->header.first_index];
}

static bool in_cache(const Dataset *d, Split split, int64_t index)
{
    const Shard *shard = shard_of(d, split, index);
    const int64_t from = (index - (int64_t)shard->header.first_index) * d->image_bytes;
    for (int64_t b = from / SHARD_BLOCK; b <= (from + d->image_bytes - 1) / SHARD_BLOCK; b++)
        if (!atomic_load_explicit(&shard->checked[b], memory_order_acquire)) return false;
    return true;
}

static int fill(const Dataset *d, Split split, int64_t first, int64_t count, Error *e)
{
    for (int64_t i = first; i < first + count;) {
        const Shard *shard = shard_of(d, split, i);
        const int64_t base = (int64_t)shard->header.first_index, n = (int64_t)shard->header.n;
        const int64_t end = min64(first + count, base + n);
        const int64_t last_block = ((end - base) * d->image_bytes - 1) / SHARD_BLOCK;
        for (int64_t b = (i - base) * d->image_bytes / SHARD_BLOCK; b <= last_block; b++) {
            if (shard->checked[b]) continue; // in the cache, which is what reads a block first
            uint8_t *to = d->storage[split]->cache + base * d->image_bytes + b * SHARD_BLOCK;
            const int status = shard_read_block(shard, b, to, e);
            if (status) return status;
        }
        i = end;
    }
    return 0;
}

static int read_images(const Dataset *d, Split split, int64_t first, int64_t count, uint8_t *images,
                       Error *e)
{
    for (int64_t i = first; i < first + count;) {
        const Shard *shard = shard_of(d, split, i);
        const int64_t inside = i - (int64_t)shard->header.first_index;
        const int64_t part = min64(first + count - i, (int64_t)shard->header.n - inside);
        const int status =
            shard_read(shard, inside, part, images + (i - first) * d->image_bytes, e);
        if (status) return status;
        i += part;
    }
    return 0;
}

static void prefetch(const Dataset *d, Split split, int64_t first, int64_t count)
{
    for (int64_t i = first; i < first + count;) {
        const int64_t index = i % d->n[split];
        const Shard *shard = shard_of(d, split, index);
        const int64_t inside = index - (int64_t)shard->header.first_index;
        const int64_t part = min64(first + count - i, (int64_t)shard->header.n - inside);
        posix_fadvise(shard->fd, (off_t)shard->header.images.offset + inside * d->image_bytes,
                      part * d->image_bytes, POSIX_FADV_WILLNEED);
        i += part;
    }
}

static void close_shards(const DatasetStorage *s)
{
    Shards *all = s->state;
    for (int64_t i = 0; i < all->count; i++) shard_close(&all->list[i]);
}

static const DatasetReader reader = {
    .label = label,
    .in_cache = in_cache,
    .fill = fill,
    .read = read_images,
    .prefetch = prefetch,
    .close = close_shards,
};

// ---- opening ------------------------------------------------------------------------------------

// Parses x-SPLIT-NNNNN-of-NNNNN.nns.
static bool parse_name(const char *name, Split split, uint32_t *shard, uint32_t *shards)
{
    char expected[64];
    const size_t prefix = 3 + strlen(split_names[split]);
    if (strlen(name) < prefix + 5) return false;
    if (sscanf(name + prefix, "%5" SCNu32 "-of-%5" SCNu32, shard, shards) != 2) return false;
    snprintf(expected, sizeof expected, "x-%s-%05" PRIu32 "-of-%05" PRIu32 ".nns",
             split_names[split], *shard, *shards);
    return strcmp(name, expected) == 0;
}

// Counts the shards of a split in the directory and finds how many there should be.
static int find_shards(const char *dir, Split split, uint32_t *shards, Error *e)
{
    DIR *list = opendir(dir);
    if (!list)
        return fail_errno(e, open_status(errno), "%s: cannot open the data set's directory", dir);
    uint32_t found = 0, shard, of = 0;
    int status = 0;
    for (struct dirent *entry; !status && (entry = readdir(list));) {
        uint32_t this_of;
        if (!parse_name(entry->d_name, split, &shard, &this_of)) continue;
        if (found++ && this_of != of)
            status = fail(e, STATUS_DATA,
                          "%s: has shards of two data sets: %s files of %u and of %u; keep one set",
                          dir, split_names[split], of, this_of);
        of = this_of;
    }
    closedir(list);
    if (status) return status;
    if (found == 0)
        return fail(e, STATUS_DATA,
                    "%s: no x-%s-*-of-*.nns here; make a data set with data/prepare", dir,
                    split_names[split]);
    if (found != of)
        return fail(e, STATUS_DATA, "%s: has %u %s shards, expected %u; copy the missing files",
                    dir, found, split_names[split], of);
    *shards = of;
    return 0;
}

static const Shard *first_shard(const Dataset *d)
{
    const Shards *train = d->storage[SPLIT_TRAIN]->state;
    return &train->list[0];
}

// Every shard must describe the same data set as the first of the train split.
static int check_same_set(const Dataset *d, const Shard *s, Error *e)
{
    const ShardHeader *a = &first_shard(d)->header, *b = &s->header;
    const char *other = first_shard(d)->path;
    if (memcmp(a->id, b->id, sizeof a->id) != 0)
        return fail(e, STATUS_DATA, "%s: is of another data set than %s (their ids differ)",
                    s->path, other);
    if (a->h != b->h || a->w != b->w || a->c != b->c)
        return fail(e, STATUS_DATA, "%s: images are %ux%ux%u, expected %ux%ux%u as in %s", s->path,
                    b->h, b->w, b->c, a->h, a->w, a->c, other);
    if (a->classes != b->classes)
        return fail(e, STATUS_DATA, "%s: has %u classes, expected %u as in %s", s->path, b->classes,
                    a->classes, other);
    for (uint32_t k = 0; k < a->classes; k++)
        if (strcmp(first_shard(d)->names[k], s->names[k]) != 0)
            return fail(e, STATUS_DATA, "%s: class %u is \"%s\", expected \"%s\" as in %s", s->path,
                        k, s->names[k], first_shard(d)->names[k], other);
    if (memcmp(a->mean, b->mean, sizeof a->mean) != 0 || memcmp(a->std, b->std, sizeof a->std) != 0)
        return fail(e, STATUS_DATA, "%s: mean and std differ from those of %s", s->path, other);
    return 0;
}

static int check_place(const Dataset *d, Split split, uint32_t i, uint32_t shards, int64_t first,
                       Error *e)
{
    const Shards *all = d->storage[split]->state;
    const Shard *s = &all->list[i];
    const ShardHeader *h = &s->header;
    if (h->split != (uint32_t)split || h->shard != i || h->shards != shards)
        return fail(e, STATUS_DATA,
                    "%s: says it is %s shard %u of %u; it was renamed or copied over another",
                    s->path, split_names[h->split], h->shard, h->shards);
    if (h->first_index != (uint64_t)first)
        return fail(e, STATUS_DATA, "%s: first_index is %" PRIu64 ", expected %" PRId64, s->path,
                    h->first_index, first);
    if (h->dataset_n != all->list[0].header.dataset_n)
        return fail(e, STATUS_DATA, "%s: dataset_n is %" PRIu64 ", expected %" PRIu64, s->path,
                    h->dataset_n, all->list[0].header.dataset_n);
    return check_same_set(d, s, e);
}

static int open_split(Dataset *d, Split split, Error *e)
{
    uint32_t shards = 0;
    int status = find_shards(d->source, split, &shards, e);
    if (status) return status;
    assert(shards > 0);
    status = storage_new(d, split, sizeof(Shards) + shards * sizeof(Shard), e);
    if (status) return status;
    DatasetStorage *storage = d->storage[split];
    Shards *all = storage->state;
    for (uint32_t i = 0; i < shards; i++) {
        char path[sizeof d->source + 64];
        snprintf(path, sizeof path, "%s/x-%s-%05u-of-%05u.nns", d->source, split_names[split], i,
                 shards);
        Shard *s = &all->list[i];
        status = shard_open(s, path, e);
        if (status) return status;
        all->count++;
        status = check_place(d, split, i, shards, d->n[split], e);
        if (status) return status;
        d->n[split] += (int64_t)s->header.n;
    }
    d->image_bytes = all->list[0].header.stride;
    storage->small = d->n[split] <= DATASET_CACHE_BYTES / d->image_bytes;
    storage->cached = storage->small && d->n[split] <= os_memory_total() / 4 / d->image_bytes;
    if ((uint64_t)d->n[split] == all->list[0].header.dataset_n) return 0;
    return fail(e, STATUS_DATA, "%s: the %s shards hold %" PRId64 " images, expected %" PRIu64,
                d->source, split_names[split], d->n[split], all->list[0].header.dataset_n);
}

// Checks the sum of every block, which brings a cached split into memory.
static int verify_split(const Dataset *d, Split split, Error *e)
{
    const Shards *all = d->storage[split]->state;
    const uint8_t *cache;
    int status = dataset_cache(d, split, &cache, e);
    if (!status && cache) return fill(d, split, 0, d->n[split], e);
    for (int64_t i = 0; i < all->count && !status; i++) status = shard_verify(&all->list[i], e);
    return status;
}

int dataset_open(Dataset *d, const char *dir, bool verify, Error *e)
{
    *d = (Dataset){.reader = &reader};
    if ((size_t)snprintf(d->source, sizeof d->source, "%s", dir) >= sizeof d->source)
        return fail(e, STATUS_USAGE, "the name of the data set's directory is too long");
    for (int split = 0; split < 2; split++) {
        int status = open_split(d, (Split)split, e);
        if (!status && verify) status = verify_split(d, (Split)split, e);
        if (!status) continue;
        dataset_close(d);
        return status;
    }
    const ShardHeader *h = &first_shard(d)->header;
    d->h = (int)h->h;
    d->w = (int)h->w;
    d->c = (int)h->c;
    d->classes = (int)h->classes;
    d->class_names = first_shard(d)->names;
    d->crop = h->flags & SHARD_CROPPED;
    memcpy(d->mean, h->mean, sizeof d->mean);
    memcpy(d->std, h->std, sizeof d->std);
    memcpy(d->id, h->id, sizeof d->id);
    return 0;
}
