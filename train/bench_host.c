// What the processor, its memory, the clock and the file system do, without a device.
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "train/bench_micro.h"

static void read_clock(void *context)
{
    *(double *)context = os_seconds();
}

// Multiply-adds of one thread, with the instructions that this build uses: 2 * 8 * 12 * PASSES.
#ifdef __AVX__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
enum { CHAINS = 12, PASSES = 20000 };
typedef float Vector __attribute__((vector_size(4 * LANES)));
static const double FMA_FLOP = 2.0 * LANES * CHAINS * PASSES;

static void multiply_add(void *context)
{
    (void)context;
    Vector sums[CHAINS] = {0}, x = {0}, y = {0};
    __asm__ volatile("" : "+m"(x), "+m"(y));
    for (int pass = 0; pass < PASSES; pass++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) {
            sums[i] += x * y;
            __asm__ volatile("" : "+x"(sums[i]));
        }
}

static void multiply_add_all(void *threads)
{
#pragma omp parallel num_threads(*(int *)threads)
    multiply_add(NULL);
}

static void fork_join(void *threads)
{
#pragma omp parallel num_threads(*(int *)threads)
    __asm__ volatile("" ::: "memory");
}

// a = b + 3c: two reads and a write, of arrays that no cache holds.
typedef struct Triad {
    float *a, *b, *c;
    int64_t n;
    int threads;
} Triad;

static void triad(void *context)
{
    const Triad t = *(const Triad *)context;
#pragma omp parallel for simd num_threads(t.threads)
    for (int64_t i = 0; i < t.n; i++) t.a[i] = t.b[i] + 3.0f * t.c[i];
}

static void touch_pages(void *context)
{
    enum { BYTES = 1 << 20 };
    (void)context;
    char *p = malloc(BYTES);
    if (p) memset(p, 1, BYTES);
    __asm__ volatile("" : : "r"(p) : "memory");
    free(p);
}

static void read_file(void *context)
{
    void *data;
    size_t size;
    Error ignored; // it was written just now
    if (os_read_file(context, &data, &size, &ignored) == STATUS_OK) free(data);
}

// How late the clock's reader is now and then: the longest pause between two readings of 1 ms.
static void measure_jitter(Rows *r)
{
    enum { WINDOWS = 100 };
    double longest[WINDOWS];
    for (int i = 0; i < WINDOWS; i++) {
        const double end = os_seconds() + 1e-3;
        double before = os_seconds(), now = before;
        longest[i] = 0;
        while (now < end) {
            now = os_seconds();
            if (now - before > longest[i]) longest[i] = now - before;
            before = now;
        }
        longest[i] *= 1e6;
    }
    rows_add(r, (Row){.name = "timer_jitter", .unit = "us", .kind = ROW_MICRO}, longest, WINDOWS);
}

static int measure_memory(Rows *r, int threads, Error *e)
{
    const size_t floats = 16 << 20;
    Triad t = {.n = (int64_t)floats, .threads = 1};
    t.a = calloc(3 * floats, sizeof(float));
    if (!t.a) return fail(e, STATUS_IO, "not enough memory to measure its bandwidth");
    t.b = t.a + floats, t.c = t.b + floats;
    memset(t.a, 0, 3 * floats * sizeof(float));
    const double gigabytes = 1e-9 * (double)(3 * floats * sizeof(float));
    rows_measure(r, (Row){.name = "memory_1t", .unit = "GB/s", .kind = ROW_MICRO}, gigabytes, triad,
                 NULL, &t);
    t.threads = threads;
    rows_measure(r, (Row){.name = "memory_nt", .unit = "GB/s", .kind = ROW_CONTROL}, gigabytes,
                 triad, NULL, &t);
    free(t.a);
    return STATUS_OK;
}

static int measure_file(Rows *r, const char *file, Error *e)
{
    enum { SMALL = 4096, LARGE = 32 << 20 };
    char *bytes = calloc(1, LARGE);
    if (!bytes) return fail(e, STATUS_IO, "not enough memory to measure files");
    int status = os_write_atomic(file, bytes, SMALL, e);
    if (status == STATUS_OK)
        rows_measure(r, (Row){.name = "file_small", .unit = "us", .kind = ROW_MICRO}, 0, read_file,
                     NULL, (void *)file);
    if (status == STATUS_OK) status = os_write_atomic(file, bytes, LARGE, e);
    if (status == STATUS_OK)
        rows_measure(r, (Row){.name = "file_read", .unit = "GB/s", .kind = ROW_MICRO}, 1e-9 * LARGE,
                     read_file, NULL, (void *)file);
    free(bytes);
    os_remove(file);
    return status;
}

int bench_host(Rows *r, const char *file, int threads, Error *e)
{
    double now;
    rows_measure(r, (Row){.name = "clock_read", .unit = "ns", .kind = ROW_MICRO}, 0, read_clock,
                 NULL, &now);
    measure_jitter(r);
    rows_measure(r, (Row){.name = "fork_join", .unit = "us", .kind = ROW_MICRO}, 0, fork_join, NULL,
                 &threads);
    rows_measure(r, (Row){.name = "page_faults_1mb", .unit = "us", .kind = ROW_MICRO}, 0,
                 touch_pages, NULL, NULL);
    rows_measure(r, (Row){.name = "cpu_1t", .unit = "GFLOP/s", .kind = ROW_CONTROL},
                 1e-9 * FMA_FLOP, multiply_add, NULL, NULL);
    rows_measure(r, (Row){.name = "cpu_nt", .unit = "GFLOP/s", .kind = ROW_CONTROL},
                 1e-9 * FMA_FLOP * threads, multiply_add_all, NULL, &threads);
    if (measure_memory(r, threads, e)) return e->status;
    return measure_file(r, file, e);
}
