// Checks a device's sums over processes, under mpirun or alone: plain C, for a machine that has
// only a compiler. Exit status 0: all are right.
//   mpirun -np 3 check_collectives cuda
// The numbers are small integers, whose sums are exact in any order.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "base/comm.h"

static Comm comm;
static const Kernels *k;
static const Collectives *sums;
static int failures;

static void expect(bool right, const char *what)
{
    if (right)
        printf("ok     %s, %d ranks\n", what, comm.ranks); // rank 0's alone is seen
    else
        fprintf(stderr, "FAILED %s, rank %d of %d\n", what, comm.rank, comm.ranks);
    failures += !right;
}

// ---- values -------------------------------------------------------------------------------------

static float *tensor(int64_t n)
{
    float *x = k->alloc((size_t)n * sizeof *x);
    if (!x) die(STATUS_DEVICE, "no memory for %lld floats", (long long)n);
    return x;
}

static float value(int rank, int64_t i, int step)
{
    return (float)((rank + 1) * (i % 1013 + 1) + step);
}

static float sum_of_values(int64_t i, int step)
{
    float sum = 0;
    for (int r = 0; r < comm.ranks; r++) sum += value(r, i, step);
    return sum;
}

static float *host_values(int64_t n)
{
    float *x = malloc((size_t)n * sizeof *x);
    if (!x) die(STATUS_IO, "no memory for %lld floats", (long long)n);
    return x;
}

static void set_values(float *x, int64_t n, int step)
{
    float *host = host_values(n);
    for (int64_t i = 0; i < n; i++) host[i] = value(comm.rank, i, step);
    k->upload(x, host, (size_t)n * sizeof *x);
    free(host);
}

// x[i] = factor * the sum over the ranks
static bool is_sum(const float *x, int64_t n, int step, float factor)
{
    float *host = host_values(n);
    k->download(host, x, (size_t)n * sizeof *x);
    int64_t right = 0;
    while (right < n && host[right] == factor * sum_of_values(right, step)) right++;
    if (right < n)
        fprintf(stderr, "[%lld] is %g for %g\n", (long long)right, (double)host[right],
                (double)(factor * sum_of_values(right, step)));
    free(host);
    return right == n;
}

static bool is_gathered(const float *all, int64_t n, int step)
{
    float *host = host_values(n * comm.ranks);
    bool right = true;
    k->download(host, all, (size_t)(n * comm.ranks) * sizeof *all);
    for (int64_t i = 0; i < n * comm.ranks; i++)
        right = right && host[i] == value((int)(i / n), i % n, step);
    free(host);
    return right;
}

// ---- checks -------------------------------------------------------------------------------------

static void check_sizes(void)
{
    for (int64_t n = 1; n < 1000000; n = n * 9 + 1) {
        float *x = tensor(n), *all = tensor(n * comm.ranks);
        char what[64];
        set_values(x, n, 0);
        sums->all_gather(all, x, n);
        sums->all_reduce(x, n);
        snprintf(what, sizeof what, "a sum and all parts of %lld", (long long)n);
        const bool gathered = is_gathered(all, n, 0);
        expect(is_sum(x, n, 0, 1) && gathered, what);
        k->release(x);
        k->release(all);
    }
}

// What a training step does: sums on their way while operations and other sums run; the operations
// before a sum make its values, and those after the wait use it.
enum { LARGE = 300007, SMALL = 77 };
typedef struct Step {
    float *source;                       // (LARGE)
    float *first, *second, *side, *part; // (LARGE), (SMALL), (SMALL), (SMALL)
    float *parts;                        // (ranks,SMALL)
    CommSpan span;
} Step;

static void run_step(Step *s)
{
    k->scale(s->first, 2, HYPER_ONE, s->source, LARGE);
    sums->all_reduce_start(s->first, LARGE, &s->span);
    k->scale(s->part, 1, HYPER_ONE, s->source, SMALL);
    sums->all_gather(s->parts, s->part, SMALL);
    k->scale(s->second, 3, HYPER_ONE, s->part, SMALL);
    sums->all_reduce_start(s->second, SMALL, NULL);
    k->scale(s->side, 5, HYPER_ONE, s->part, SMALL);
    sums->all_reduce(s->side, SMALL);
    sums->all_reduce_wait();
    k->scale(s->first, 0.5f, HYPER_ONE, s->first, LARGE);
    k->scale(s->second, 2, HYPER_ONE, s->second, SMALL);
}

static void check_steps(int variant, const char *what)
{
    Step s = {.source = tensor(LARGE),
              .first = tensor(LARGE),
              .second = tensor(SMALL),
              .side = tensor(SMALL),
              .part = tensor(SMALL),
              .parts = tensor((int64_t)SMALL * comm.ranks)};
    bool right = true;
    for (int step = 0; step < 4; step++) {
        const StepValues values = {.step = (uint32_t)step};
        s.span = (CommSpan){0};
        set_values(s.source, LARGE, step);
        if (k->step_begin(variant, &values)) run_step(&s);
        k->step_end();
        right = is_sum(s.first, LARGE, step, 1) && right;
        right = is_sum(s.second, SMALL, step, 6) && is_sum(s.side, SMALL, step, 5) && right;
        right = is_gathered(s.parts, SMALL, step) && right;
        right = s.span.began > 0 && s.span.ended >= s.span.began && right;
    }
    expect(right, what);
    float *const used[] = {s.source, s.first, s.second, s.side, s.part, s.parts};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++) k->release(used[i]);
}

int main(int count, char **arguments)
{
    if (count != 2) {
        fprintf(stderr, "usage: check_collectives DEVICE\n");
        return STATUS_USAGE;
    }
    Error e;
    check(comm_open(&comm, &e), &e);
    const KernelsConfig config = {
        .device = arguments[1], .dtype = "fp32", .threads = 1, .local_rank = comm.local_rank};
    char note[256];
    check(kernels_open(&k, &config, note, &e), &e);
    sums = comm.collectives;
    if (k->open_collectives) check(k->open_collectives(&sums, &comm, &e), &e);
    if (!sums) die(STATUS_USAGE, "one process alone has nothing to check on %s", k->device);
    check_sizes();
    check_steps(-1, "a step");
    check_steps(1, "a step that is captured and replayed");
    sums->close();
    k->close();
    comm_close(&comm);
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
