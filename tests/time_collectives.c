// How long sums and gathers over processes take, by size.
//     mpirun -np 2 build/native/time_collectives cpu
// A line for each size: floats, microseconds of an all-reduce and of an all-gather, and the sum's
// rate: bytes of the tensor over the time. The fastest of ROUNDS, as seen by rank 0.
#include <stdio.h>
#include <stdlib.h>

#include "kernels/kernels.h"
#include "base/comm.h"
#include "base/os.h"

enum { ROUNDS = 15 };

static const Kernels *k;

static double fastest(void (*call)(float *, const float *, int64_t), float *to, const float *from,
                      int64_t n)
{
    double least = 1e30;
    for (int i = 0; i < ROUNDS; i++) {
        k->synchronize();
        const double start = os_seconds();
        call(to, from, n);
        k->synchronize();
        const double seconds = os_seconds() - start;
        if (seconds < least) least = seconds;
    }
    return least;
}

static const Collectives *sums;

static void sum(float *to, const float *from, int64_t n)
{
    (void)from;
    sums->all_reduce_start(to, n, NULL);
    sums->all_reduce_wait();
}

static void gather(float *to, const float *from, int64_t n)
{
    sums->all_gather(to, from, n);
}

int main(int count, char **arguments)
{
    Comm comm;
    Error e;
    char note[256];
    check(comm_open(&comm, &e), &e);
    if (count != 2 || comm.ranks < 2)
        die(STATUS_USAGE, "usage: mpirun -np N time_collectives DEVICE, with N above 1");
    const KernelsConfig config = {
        .device = arguments[1], .dtype = "fp32", .threads = 1, .local_rank = comm.local_rank};
    check(kernels_open(&k, &config, note, &e), &e);
    sums = comm.collectives;
    if (k->open_collectives) check(k->open_collectives(&sums, &comm, &e), &e);
    const int64_t most = 1 << 24;
    float *x = k->alloc((size_t)most * sizeof *x);
    float *all = k->alloc((size_t)most / 64 * sizeof *all * (size_t)comm.ranks);
    if (!x || !all) die(STATUS_DEVICE, "no memory for %lld floats", (long long)most);
    printf("%d ranks on %s\n%10s %12s %12s %10s\n", comm.ranks, k->device, "floats", "sum us",
           "gather us", "sum GB/s");
    for (int64_t n = 16; n <= most; n *= 4) {
        const double summed = fastest(sum, x, NULL, n);
        const double gathered = n <= most / 64 ? fastest(gather, all, x, n) : 0;
        printf("%10lld %12.1f %12.1f %10.3f\n", (long long)n, 1e6 * summed, 1e6 * gathered,
               (double)n * sizeof *x / summed * 1e-9);
    }
    k->release(x);
    k->release(all);
    sums->close();
    k->close();
    comm_close(&comm);
    return EXIT_SUCCESS;
}
