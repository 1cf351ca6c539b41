// What a device does, asked through its table: the same rows on each.
#include <stdio.h>
#include <stdlib.h>

#include "train/bench_micro.h"

typedef struct Device {
    const Kernels *k;
    void *host, *a, *b, *c;
    size_t bytes; // of a transfer
    LinearDims dims;
} Device;

static void operation(void *context)
{
    const Device *d = context;
    d->k->scale(d->a, 1.0f, HYPER_ONE, d->b, 1);
}

static void wait(void *context)
{
    ((const Device *)context)->k->synchronize();
}

static void operation_and_wait(void *context)
{
    operation(context);
    wait(context);
}

static void upload(void *context)
{
    const Device *d = context;
    d->k->upload(d->a, d->host, d->bytes);
}

static void download(void *context)
{
    const Device *d = context;
    d->k->download(d->host, d->a, d->bytes);
}

static void copy(void *context)
{
    const Device *d = context;
    d->k->copy(d->b, d->a, d->bytes);
}

static void product(void *context)
{
    const Device *d = context;
    d->k->linear_forward_f32(d->c, d->a, d->b, NULL, d->dims);
}

static void allocate(void *context)
{
    const Device *d = context;
    void *p = d->k->alloc(d->bytes);
    if (p) d->k->release(p);
}

static Row named(RowKind kind, const char *unit, const char *prefix, const char *size)
{
    Row row = {.kind = kind};
    snprintf(row.unit, sizeof row.unit, "%s", unit);
    snprintf(row.name, sizeof row.name, "%s%s", prefix, size);
    return row;
}

static void measure_transfers(Rows *r, Device *d, size_t largest)
{
    static const char *const sizes[] = {"4b", "1kb", "16kb", "256kb", "4mb", "64mb"};
    d->bytes = 4;
    for (int i = 0; i < 6 && d->bytes <= largest; i++) {
        const bool rate = d->bytes >= 256 << 10;
        const double amount = rate ? 1e-9 * (double)d->bytes : 0;
        const char *unit = rate ? "GB/s" : "us";
        rows_measure(r, named(ROW_MICRO, unit, "upload_", sizes[i]), amount, upload, wait, d);
        rows_measure(r, named(ROW_MICRO, unit, "download_", sizes[i]), amount, download, wait, d);
        d->bytes *= i == 0 ? 256 : 16;
    }
}

static int measure(Rows *r, Device *d, size_t bytes, Error *e)
{
    enum { SIDE = 1024 };
    const Kernels *k = d->k;
    const StepValues values = {0};
    k->step_begin(-1, &values);
    k->step_end();
    rows_measure(r, named(ROW_MICRO, "us", "operation", ""), 0, operation, wait, d);
    rows_measure(r, named(ROW_MICRO, "us", "operation_wait", ""), 0, operation_and_wait, NULL, d);
    rows_measure(r, named(ROW_MICRO, "us", "wait_idle", ""), 0, wait, NULL, d);
    measure_transfers(r, d, bytes);
    d->bytes = bytes;
    rows_measure(r, named(ROW_CONTROL, "GB/s", "device_copy", ""), 2e-9 * (double)bytes, copy, wait,
                 d);
    d->bytes = 1 << 20;
    rows_measure(r, named(ROW_MICRO, "us", "alloc_1mb", ""), 0, allocate, NULL, d);
    d->dims = (LinearDims){.rows = SIDE, .in = SIDE, .out = SIDE};
    const Kernels *plan = kernels_plan_begin(k);
    plan->linear_forward_f32(NULL, NULL, NULL, NULL, d->dims);
    Plan ignored;
    if (kernels_plan_end(&ignored, e)) return e->status;
    rows_measure(r, named(ROW_CONTROL, "GFLOP/s", "gemm", ""), 2e-9 * SIDE * SIDE * SIDE, product,
                 wait, d);
    return STATUS_OK;
}

static void backend_row(void *context, const char *name, const char *unit, bool higher_is_better,
                        double *values, int count)
{
    Row row = named(ROW_MICRO, unit, name, "");
    row.higher_is_better = higher_is_better;
    rows_add(context, row, values, count);
}

int bench_device(Rows *r, const Kernels *k, Error *e)
{
    const size_t bytes = 64 << 20;
    Device d = {.k = k, .host = calloc(1, bytes)};
    d.a = k->alloc(bytes), d.b = k->alloc(bytes), d.c = k->alloc(bytes);
    int status = STATUS_OK;
    if (!d.host || !d.a || !d.b || !d.c)
        status = fail(e, STATUS_IO, "not enough memory to time the device");
    if (status == STATUS_OK) status = measure(r, &d, bytes, e);
    if (status == STATUS_OK && k->micro) k->micro(backend_row, r, r->batches);
    free(d.host);
    if (d.a) k->release(d.a);
    if (d.b) k->release(d.b);
    if (d.c) k->release(d.c);
    return status;
}
