#include "train/feed.h"

#include <string.h>

#include "base/os.h"

void feed_declare(Feed *f, Tensors *t, int64_t batch)
{
    const Dataset *d = f->data;
    f->images = workspace(t, SHAPE(batch, d->h, d->w, d->c), sizeof(uint8_t), "feed.images");
    f->labels = workspace(t, SHAPE(batch), sizeof(int32_t), "feed.labels");
    f->ids = workspace(t, SHAPE(batch), sizeof(uint32_t), "feed.ids");
    f->n = batch;
}

void feed_load_sets(Feed *f)
{
    Error e;
    if (!f->options->resident) return;
    for (int split = 0; split < 2; split++)
        check(device_data_load(&f->sets[split], f->kernels, f->data, (Split)split, &e), &e);
}

static Loader *open_loader(Feed *f, LoaderConfig c)
{
    Error e;
    Loader *l;
    c.seed = (uint64_t)f->options->seed;
    c.rank = f->comm->rank;
    c.ranks = f->comm->ranks;
    c.ids_only = f->sets[c.split].images != NULL;
    check(loader_open(&l, f->data, &c, &e), &e);
    return l;
}

void feed_seek(Feed *f, int64_t step)
{
    Error e;
    if (f->loader && f->first.n > 0 && f->step == step && f->seed == f->options->seed) return;
    const LoaderConfig c = {
        .split = SPLIT_TRAIN,
        .batch = f->options->batch_size,
        .shuffle = f->options->shuffle,
        .drop_last = true,
        .repeat = true,
        .first_epoch = step / f->steps_per_epoch,
        .first_batch = step % f->steps_per_epoch,
    };
    loader_close(f->loader);
    f->loader = open_loader(f, c);
    f->step = step;
    f->seed = f->options->seed;
    const double began = os_seconds();
    check(loader_next(f->loader, &f->first, &e), &e);
    f->wait_seconds = os_seconds() - began;
}

void feed_next(Feed *f)
{
    Error e;
    Batch b = f->first;
    const double began = os_seconds();
    f->first.n = 0;
    if (b.n == 0) check(loader_next(f->loader, &b, &e), &e);
    f->wait_seconds += os_seconds() - began;
    feed_load(f, SPLIT_TRAIN, &b);
    f->step++;
}

Loader *feed_test_batches(Feed *f)
{
    return open_loader(f, (LoaderConfig){.split = SPLIT_TEST, .batch = f->options->batch_size});
}

void feed_fixed(Feed *f, int64_t n)
{
    Error e;
    Batch b;
    Loader *l = open_loader(f, (LoaderConfig){.split = SPLIT_TRAIN, .batch = n});
    check(loader_next(l, &b, &e), &e);
    feed_load(f, SPLIT_TRAIN, &b);
    loader_close(l);
}

void feed_load(Feed *f, Split split, const Batch *b)
{
    const Kernels *k = f->kernels;
    f->n = b->n;
    f->set = b->images ? NULL : &f->sets[split];
    if (b->images) {
        k->upload(f->images->value, b->images, (size_t)(b->n * f->data->image_bytes));
        k->step_upload(f->labels->value, b->labels, (size_t)b->n * sizeof(int32_t));
    }
    k->step_upload(f->ids->value, b->ids, (size_t)b->n * sizeof(uint32_t));
}

void feed_gather(const Feed *f, const Kernels *k, const Tensor *x, const Tensor *labels,
                 Augment augment)
{
    const Dataset *d = f->data;
    GatherDims dims = {.n = f->n, .h = d->h, .w = d->w, .c = d->c};
    memcpy(dims.mean, d->mean, sizeof dims.mean);
    memcpy(dims.std, d->std, sizeof dims.std);
    if (f->set)
        k->gather(x->value, labels->value, f->set->images, f->set->labels, f->ids->value,
                  f->ids->value, dims, augment);
    else
        k->gather(x->value, labels->value, f->images->value, f->labels->value, f->ids->value, NULL,
                  dims, augment);
}

void feed_close(Feed *f)
{
    loader_close(f->loader);
    for (int i = 0; i < 2; i++) device_data_release(&f->sets[i], f->kernels);
}
