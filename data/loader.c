#include "data/loader.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "data/order.h"

enum { SLOTS = 4, SLOTS_OF_IDS = 64, ALIGN = 4096 };

typedef struct Slot {
    Batch batch; // points into the buffers below
    uint8_t *images;
    int32_t *labels;
    uint32_t *ids;
} Slot;

// Slots are a ring: the thread fills slot `filled % slot_count`, the caller holds slot
// `taken % slot_count`.
struct Loader {
    const Dataset *dataset;
    LoaderConfig config;
    int64_t batches; // in an epoch

    pthread_t thread;
    bool started;
    pthread_mutex_t mutex; // for what follows
    pthread_cond_t changed;
    Slot slots[SLOTS_OF_IDS];
    int slot_count;
    int64_t filled, taken; // slots since the start; taken counts those given back
    bool holding;          // the caller has slot `taken`
    bool ended, stop;
    int status; // of the thread, with its error
    Error error;
};

// ---- the prefetching thread ---------------------------------------------------------------------

// Asks for the blocks of a window of the order to be read from the disk.
static void prefetch_window(const Loader *l, const Order *order, int64_t window)
{
    if (order->blocks.n == 0) return;
    for (int64_t at = window * order->window; at < order->n && at < (window + 1) * order->window;
         at += order->block)
        dataset_prefetch(l->dataset, l->config.split, order_block(order, at), order->block);
}

static int fill_slot(const Loader *l, Slot *s, const Order *order, int64_t epoch, int64_t index,
                     Error *e)
{
    const LoaderConfig *c = &l->config;
    const int64_t first = index * c->batch;
    const int64_t end = first + c->batch < order->n ? first + c->batch : order->n;
    // The first position at or after `first` that is this process's.
    const int64_t skip = (c->rank - first % c->ranks + c->ranks) % c->ranks;
    const int64_t n = (end - first - skip + c->ranks - 1) / c->ranks;
    order_fill(order, first + skip, c->ranks, n, s->ids);
    s->batch = (Batch){s->images, s->labels, s->ids, n, epoch, index};
    if (c->ids_only) return dataset_touch(l->dataset, c->split, s->ids, n, e);
    // One window ahead, so that its blocks are in memory when their images are asked for.
    const bool start = index == 0 || (epoch == c->first_epoch && index == c->first_batch);
    const int64_t window = first / order->window, next = end / order->window;
    if (start) prefetch_window(l, order, window);
    if (start || next != window) prefetch_window(l, order, next + 1);
    return dataset_gather(l->dataset, c->split, s->ids, n, s->images, s->labels, e);
}

// Waits for a slot that the caller does not need any more; NULL when the loader is closing.
static Slot *free_slot(Loader *l)
{
    pthread_mutex_lock(&l->mutex);
    while (!l->stop && l->filled - l->taken == l->slot_count)
        pthread_cond_wait(&l->changed, &l->mutex);
    Slot *s = l->stop ? NULL : &l->slots[l->filled % l->slot_count];
    pthread_mutex_unlock(&l->mutex);
    return s;
}

static void publish(Loader *l, bool slot, bool ended, int status, const Error *e)
{
    pthread_mutex_lock(&l->mutex);
    if (slot) l->filled++;
    l->ended = ended;
    l->status = status;
    if (status) l->error = *e;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

static void *prefetch(void *argument)
{
    Loader *l = argument;
    const LoaderConfig *c = &l->config;
    Error e = {0};
    const int64_t n = l->dataset->n[c->split], block = dataset_shuffle_block(l->dataset, c->split);
    int64_t batch = c->first_batch;
    for (int64_t epoch = c->first_epoch;; epoch++) {
        Order order;
        order_init(&order, n, c->shuffle, block, DATASET_SHUFFLE_WINDOW, c->seed, epoch);
        for (; batch < l->batches; batch++) {
            Slot *slot = free_slot(l);
            if (!slot) return NULL;
            const int status = fill_slot(l, slot, &order, epoch, batch, &e);
            publish(l, !status, false, status, &e);
            if (status) return NULL;
        }
        batch = 0;
        if (!c->repeat) break;
    }
    publish(l, false, true, 0, NULL);
    return NULL;
}

// ---- the caller ---------------------------------------------------------------------------------

static int check_config(const Dataset *d, const LoaderConfig *c, int64_t batches, Error *e)
{
    const int64_t n = d->n[c->split];
    assert(c->ranks >= 1 && c->rank >= 0 && c->rank < c->ranks);
    assert(c->first_epoch >= 0 && c->first_batch >= 0);
    if (c->batch < c->ranks)
        return fail(e, STATUS_USAGE,
                    "batch size %" PRId64 " is too small for %d processes: take --batch-size %d or "
                    "more",
                    c->batch, c->ranks, c->ranks);
    if (batches == 0)
        return fail(e, STATUS_USAGE,
                    "batch size %" PRId64 " is larger than the %s split with its %" PRId64
                    " images: take --batch-size %" PRId64 " or less",
                    c->batch, split_names[c->split], n, n);
    if (c->first_batch > batches)
        return fail(e, STATUS_USAGE,
                    "cannot start at batch %" PRId64 " of an epoch of %" PRId64 " batches",
                    c->first_batch, batches);
    return 0;
}

static int allocate_slots(Loader *l, Error *e)
{
    const Dataset *d = l->dataset;
    const int64_t most =
        l->config.batch < d->n[l->config.split] ? l->config.batch : d->n[l->config.split];
    const size_t n = (size_t)((most + l->config.ranks - 1) / l->config.ranks);
    size_t bytes, rounded;
    if (__builtin_mul_overflow(n, (size_t)d->image_bytes, &bytes) ||
        __builtin_add_overflow(bytes, ALIGN - 1, &rounded))
        return fail(e, STATUS_USAGE, "batch size %" PRId64 " is too large", l->config.batch);
    rounded = rounded / ALIGN * ALIGN;
    l->slot_count = l->config.ids_only ? SLOTS_OF_IDS : SLOTS;
    for (int i = 0; i < l->slot_count; i++) {
        Slot *s = &l->slots[i];
        s->ids = malloc(n * sizeof *s->ids);
        if (!l->config.ids_only) {
            s->images = aligned_alloc(ALIGN, rounded);
            s->labels = malloc(n * sizeof *s->labels);
        }
        if (!s->ids || (!l->config.ids_only && (!s->images || !s->labels)))
            return fail(e, STATUS_IO, "no memory for %d batches of %zu images (%zu bytes each)",
                        l->slot_count, n, rounded);
    }
    return 0;
}

static int start_thread(Loader *l, Error *e)
{
    // Signals are the main thread's: it saves and stops.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int code = pthread_create(&l->thread, NULL, prefetch, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code) return fail(e, STATUS_IO, "cannot start the loading thread (error %d)", code);
    l->started = true;
    return 0;
}

int loader_open(Loader **out, const Dataset *d, const LoaderConfig *c, Error *e)
{
    *out = NULL;
    const int64_t n = d->n[c->split], batch = c->batch > 0 ? c->batch : 1;
    const int64_t batches = n / batch + (!c->drop_last && n % batch ? 1 : 0);
    int status = check_config(d, c, batches, e);
    if (status) return status;
    Loader *l = calloc(1, sizeof *l);
    if (!l) return fail(e, STATUS_IO, "no memory for the loader");
    l->dataset = d;
    l->config = *c;
    l->batches = batches;
    if (l->config.repeat && l->config.first_batch == batches) {
        l->config.first_epoch++;
        l->config.first_batch = 0;
    }
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->changed, NULL);
    status = allocate_slots(l, e);
    if (!status) status = start_thread(l, e);
    if (status)
        loader_close(l);
    else
        *out = l;
    return status;
}

int loader_next(Loader *l, Batch *b, Error *e)
{
    *b = (Batch){.index = -1};
    pthread_mutex_lock(&l->mutex);
    if (l->holding) {
        l->taken++;
        l->holding = false;
        // The thread sleeps when all slots are filled. It is woken when half are free: each waking
        // takes a processor from the threads that train.
        if (l->filled - l->taken <= l->slot_count / 2) pthread_cond_broadcast(&l->changed);
    }
    while (l->filled == l->taken && !l->ended && !l->status)
        pthread_cond_wait(&l->changed, &l->mutex);
    int status = 0;
    if (l->filled > l->taken) {
        *b = l->slots[l->taken % l->slot_count].batch;
        l->holding = true;
    } else if (l->status) {
        status = l->status;
        *e = l->error;
    }
    pthread_mutex_unlock(&l->mutex);
    return status;
}

void loader_close(Loader *l)
{
    if (!l) return;
    if (l->started) {
        pthread_mutex_lock(&l->mutex);
        l->stop = true;
        pthread_cond_broadcast(&l->changed);
        pthread_mutex_unlock(&l->mutex);
        pthread_join(l->thread, NULL);
    }
    for (int i = 0; i < l->slot_count; i++) {
        free(l->slots[i].images);
        free(l->slots[i].labels);
        free(l->slots[i].ids);
    }
    pthread_mutex_destroy(&l->mutex);
    pthread_cond_destroy(&l->changed);
    free(l);
}
