#include "data/dataset.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/sha256.h"
#include "data/synth.h"
#include "runtime/os.h"

// One split. Images come from shards, or are drawn if there are none.
struct DatasetStorage {
    Shard *shards; // (shard_count), by number
    int64_t shard_count;
    int64_t image_bytes;
    bool small;            // shuffled as a whole; never decided by the machine
    bool cached;           // the split stays in memory
    pthread_mutex_t mutex; // held while the cache is filled
    uint8_t *cache;        // (n, H, W, C), allocated at the first touch
    atomic_uchar *drawn;   // (n) of the embedded set: 1 once the image is in the cache
};

static DatasetStorage *storage_new(void)
{
    DatasetStorage *s = calloc(1, sizeof *s);
    if (s) pthread_mutex_init(&s->mutex, NULL);
    return s;
}

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
    return &d->storage[SPLIT_TRAIN]->shards[0];
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
    const Shard *s = &d->storage[split]->shards[i];
    const ShardHeader *h = &s->header;
    if (h->split != (uint32_t)split || h->shard != i || h->shards != shards)
        return fail(e, STATUS_DATA,
                    "%s: says it is %s shard %u of %u; it was renamed or copied over another",
                    s->path, split_names[h->split], h->shard, h->shards);
    if (h->first_index != (uint64_t)first)
        return fail(e, STATUS_DATA, "%s: first_index is %" PRIu64 ", expected %" PRId64, s->path,
                    h->first_index, first);
    if (h->dataset_n != d->storage[split]->shards[0].header.dataset_n)
        return fail(e, STATUS_DATA, "%s: dataset_n is %" PRIu64 ", expected %" PRIu64, s->path,
                    h->dataset_n, d->storage[split]->shards[0].header.dataset_n);
    return check_same_set(d, s, e);
}

static int open_split(Dataset *d, Split split, Error *e)
{
    uint32_t shards = 0;
    int status = find_shards(d->source, split, &shards, e);
    if (status) return status;
    assert(shards > 0);
    DatasetStorage *storage = d->storage[split] = storage_new();
    if (storage) storage->shards = calloc(shards, sizeof *storage->shards);
    if (!storage || !storage->shards)
        return fail(e, STATUS_IO, "%s: no memory for %u shards", d->source, shards);
    for (uint32_t i = 0; i < shards; i++) {
        char path[sizeof d->source + 64];
        snprintf(path, sizeof path, "%s/x-%s-%05u-of-%05u.nns", d->source, split_names[split], i,
                 shards);
        Shard *s = &storage->shards[i];
        status = shard_open(s, path, e);
        if (status) return status;
        storage->shard_count++;
        status = check_place(d, split, i, shards, d->n[split], e);
        if (status) return status;
        d->n[split] += (int64_t)s->header.n;
    }
    storage->image_bytes = storage->shards[0].header.stride;
    storage->small = d->n[split] <= DATASET_CACHE_BYTES / storage->image_bytes;
    storage->cached = storage->small && d->n[split] <= os_memory_total() / 4 / storage->image_bytes;
    if ((uint64_t)d->n[split] == storage->shards[0].header.dataset_n) return 0;
    return fail(e, STATUS_DATA, "%s: the %s shards hold %" PRId64 " images, expected %" PRIu64,
                d->source, split_names[split], d->n[split], storage->shards[0].header.dataset_n);
}

static int verify_split(const Dataset *d, Split split, Error *e);

int dataset_open(Dataset *d, const char *dir, bool verify, Error *e)
{
    *d = (Dataset){0};
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

void dataset_open_embedded(Dataset *d, int h, int w, int c, int64_t n_train, int64_t n_test,
                           uint64_t seed)
{
    assert(h >= SYNTH_MIN_SIZE && h <= SYNTH_MAX_SIZE && w >= SYNTH_MIN_SIZE &&
           w <= SYNTH_MAX_SIZE && (c == 1 || c == 3) && n_train > 0 && n_test > 0);
    *d = (Dataset){.source = "embedded",
                   .embedded = true,
                   .seed = seed,
                   .n = {n_train, n_test},
                   .h = h,
                   .w = w,
                   .c = c,
                   .classes = SYNTH_CLASSES,
                   .std = {1, 1, 1, 1},
                   .class_names = (char **)synth_class_names};
    synth_mean_std(c, d->mean, d->std);
    for (int split = 0; split < 2; split++) {
        d->storage[split] = storage_new();
        if (!d->storage[split]) continue; // reading says so
        d->storage[split]->image_bytes = (int64_t)h * w * c;
        d->storage[split]->small = d->storage[split]->cached = true;
    }
    char text[256];
    const int length = snprintf(
        text, sizeof text, "embedded %dx%dx%d train %" PRId64 " test %" PRId64 " seed %" PRIu64, h,
        w, c, n_train, n_test, seed);
    Sha256 sum;
    sha256_init(&sum);
    sha256_add(&sum, text, (size_t)length);
    sha256_finish(&sum, d->id);
}

void dataset_close(Dataset *d)
{
    for (int split = 0; split < 2; split++) {
        DatasetStorage *s = d->storage[split];
        if (!s) continue;
        for (int64_t i = 0; i < s->shard_count; i++) shard_close(&s->shards[i]);
        pthread_mutex_destroy(&s->mutex);
        free(s->shards);
        free(s->cache);
        free(s->drawn);
        free(s);
    }
    *d = (Dataset){0};
}

// ---- reading ------------------------------------------------------------------------------------

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

// The shard that holds image `index`: the last one whose first_index is not above it.
static const Shard *shard_of(const DatasetStorage *s, int64_t index)
{
    int64_t low = 0, high = s->shard_count;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if ((int64_t)s->shards[middle].header.first_index <= index)
            low = middle;
        else
            high = middle;
    }
    return &s->shards[low];
}

static int allocate_cache(const Dataset *d, Split split, Error *e)
{
    DatasetStorage *s = d->storage[split];
    if (s->cache) return 0;
    const size_t n = (size_t)d->n[split];
    if (d->embedded) s->drawn = calloc(n, sizeof *s->drawn);
    // Not touched here: pages appear as images arrive.
    s->cache = malloc(n * (size_t)s->image_bytes);
    if (s->cache && (s->drawn || !d->embedded)) return 0;
    return fail(e, STATUS_IO, "%s: no memory for %zu %s images (%zu bytes)", d->source, n,
                split_names[split], n * (size_t)s->image_bytes);
}

static void draw_image(const Dataset *d, Split split, int64_t index)
{
    DatasetStorage *s = d->storage[split];
    if (s->drawn[index]) return;
    const int64_t number = split == SPLIT_TEST ? d->n[SPLIT_TRAIN] + index : index;
    synth_image(s->cache + index * s->image_bytes, d->seed, number, d->h, d->w, d->c);
    atomic_store_explicit(&s->drawn[index], 1, memory_order_release);
}

// Brings images first .. first+count-1 into the cache; the mutex is held.
static int fill_cache(const Dataset *d, Split split, int64_t first, int64_t count, Error *e)
{
    DatasetStorage *s = d->storage[split];
    int status = allocate_cache(d, split, e);
    if (status) return status;
    if (d->embedded) {
#pragma omp parallel for if (count > 64)
        for (int64_t i = first; i < first + count; i++) draw_image(d, split, i);
        return 0;
    }
    for (int64_t i = first; i < first + count;) {
        const Shard *shard = shard_of(s, i);
        const int64_t base = (int64_t)shard->header.first_index, n = (int64_t)shard->header.n;
        const int64_t end = min64(first + count, base + n);
        const int64_t last_block = ((end - base) * s->image_bytes - 1) / SHARD_BLOCK;
        for (int64_t b = (i - base) * s->image_bytes / SHARD_BLOCK; b <= last_block; b++) {
            if (shard->checked[b]) continue; // in the cache, which is what reads a block first
            uint8_t *to = s->cache + base * s->image_bytes + b * SHARD_BLOCK;
            status = shard_read_block(shard, b, to, e);
            if (status) return status;
        }
        i = end;
    }
    return 0;
}

// Whether one image is in the cache already.
static bool image_cached(const Dataset *d, const DatasetStorage *s, int64_t index)
{
    if (d->embedded) return atomic_load_explicit(&s->drawn[index], memory_order_acquire);
    const Shard *shard = shard_of(s, index);
    const int64_t from = (index - (int64_t)shard->header.first_index) * s->image_bytes;
    for (int64_t b = from / SHARD_BLOCK; b <= (from + s->image_bytes - 1) / SHARD_BLOCK; b++)
        if (!atomic_load_explicit(&shard->checked[b], memory_order_acquire)) return false;
    return true;
}

// Images first .. first+count-1 of a split that is not cached.
static int read_shards(const DatasetStorage *s, int64_t first, int64_t count, uint8_t *images,
                       Error *e)
{
    for (int64_t i = first; i < first + count;) {
        const Shard *shard = shard_of(s, i);
        const int64_t inside = i - (int64_t)shard->header.first_index;
        const int64_t part = min64(first + count - i, (int64_t)shard->header.n - inside);
        const int status =
            shard_read(shard, inside, part, images + (i - first) * s->image_bytes, e);
        if (status) return status;
        i += part;
    }
    return 0;
}

// Checks the sum of every block, which brings a cached split into memory.
static int verify_split(const Dataset *d, Split split, Error *e)
{
    const DatasetStorage *s = d->storage[split];
    if (s->cached) return fill_cache(d, split, 0, d->n[split], e);
    int status = 0;
    for (int64_t i = 0; i < s->shard_count && !status; i++) status = shard_verify(&s->shards[i], e);
    return status;
}

static uint16_t label_of(const Dataset *d, Split split, int64_t index)
{
    if (d->embedded) {
        const int64_t number = split == SPLIT_TEST ? d->n[SPLIT_TRAIN] + index : index;
        return (uint16_t)synth_label(d->seed, number);
    }
    const Shard *shard = shard_of(d->storage[split], index);
    return shard->labels[index - (int64_t)shard->header.first_index];
}

static int check_storage(const Dataset *d, Split split, Error *e)
{
    if (d->storage[split]) return 0;
    return fail(e, STATUS_IO, "%s: no memory for the %s split", d->source, split_names[split]);
}

int dataset_read(const Dataset *d, Split split, int64_t first, int64_t count, uint8_t *images,
                 uint16_t *labels, Error *e)
{
    assert(first >= 0 && count >= 0 && count <= d->n[split] - first);
    DatasetStorage *s = d->storage[split];
    int status = check_storage(d, split, e);
    if (status) return status;
    for (int64_t i = 0; i < count && labels; i++) labels[i] = label_of(d, split, first + i);
    if (!images || count == 0) return 0;
    if (!s->cached) return read_shards(s, first, count, images, e);
    pthread_mutex_lock(&s->mutex);
    status = fill_cache(d, split, first, count, e);
    pthread_mutex_unlock(&s->mutex);
    if (!status)
        memcpy(images, s->cache + first * s->image_bytes, (size_t)(count * s->image_bytes));
    return status;
}

int dataset_cache(const Dataset *d, Split split, const uint8_t **images, Error *e)
{
    DatasetStorage *s = d->storage[split];
    *images = NULL;
    int status = check_storage(d, split, e);
    if (status || !s->cached) return status;
    pthread_mutex_lock(&s->mutex);
    status = allocate_cache(d, split, e);
    pthread_mutex_unlock(&s->mutex);
    if (!status) *images = s->cache;
    return status;
}

int dataset_touch(const Dataset *d, Split split, const uint32_t *indices, int64_t count, Error *e)
{
    const uint8_t *images;
    int status = dataset_cache(d, split, &images, e);
    if (status || !images) return status;
    DatasetStorage *s = d->storage[split];
    for (int64_t i = 0; i < count && !status; i++) {
        if (image_cached(d, s, indices[i])) continue;
        pthread_mutex_lock(&s->mutex);
        status = fill_cache(d, split, indices[i], 1, e);
        pthread_mutex_unlock(&s->mutex);
    }
    return status;
}

int dataset_gather(const Dataset *d, Split split, const uint32_t *indices, int64_t count,
                   uint8_t *images, int32_t *labels, Error *e)
{
    int status = dataset_touch(d, split, indices, count, e);
    for (int64_t i = 0; i < count && !status; i++) {
        const DatasetStorage *s = d->storage[split];
        uint8_t *image = images + i * s->image_bytes;
        labels[i] = label_of(d, split, indices[i]);
        if (s->cached)
            memcpy(image, s->cache + (int64_t)indices[i] * s->image_bytes, (size_t)s->image_bytes);
        else
            status = read_shards(s, indices[i], 1, image, e);
    }
    return status;
}

int64_t dataset_shuffle_block(const Dataset *d, Split split)
{
    const DatasetStorage *s = d->storage[split];
    if (!s || s->small) return 0;
    return s->image_bytes < DATASET_SHUFFLE_BYTES ? DATASET_SHUFFLE_BYTES / s->image_bytes : 1;
}

void dataset_prefetch(const Dataset *d, Split split, int64_t first, int64_t count)
{
    const DatasetStorage *s = d->storage[split];
    if (!s || s->cached) return;
    for (int64_t i = first; i < first + count;) {
        const int64_t index = i % d->n[split];
        const Shard *shard = shard_of(s, index);
        const int64_t inside = index - (int64_t)shard->header.first_index;
        const int64_t part = min64(first + count - i, (int64_t)shard->header.n - inside);
        posix_fadvise(shard->fd, (off_t)shard->header.images.offset + inside * s->image_bytes,
                      part * s->image_bytes, POSIX_FADV_WILLNEED);
        i += part;
    }
}
