// The rows of --bench that only CUDA has (docs/timing.md): launches, graphs, waits, copies, short
// kernels and allocation. With memory, events and a stream of their own, all released at the end.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/cuda/cuda.h"

enum { SAMPLES_MAX = 200 };

typedef struct Micro {
    MicroRow *row;
    void *context;
    int samples;
    float *memory; // (64) of the device, for kernels that compute
} Micro;

static double now()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void wait()
{
    CUDA_CHECK(cudaStreamSynchronize(cuda_stream));
}

static __global__ void empty_kernel()
{
}

// A chain of dependent multiply-adds in one warp: its time is proportional to `rounds`.
static __global__ void chain_kernel(float *y, int rounds)
{
    float x = y[threadIdx.x];
    for (int i = 0; i < rounds; i++) x = x * 0.999f + 0.001f;
    y[threadIdx.x] = x;
}

static void launch_empty(int count)
{
    for (int i = 0; i < count; i++) nn_launch(empty_kernel, dim3(1), dim3(32), 0, cuda_stream);
}

static void launch_chain(const Micro *m, int count, int rounds)
{
    for (int i = 0; i < count; i++)
        nn_launch(chain_kernel, dim3(1), dim3(32), 0, cuda_stream, m->memory, rounds);
}

static void report(const Micro *m, const char *name, const char *unit, bool higher, double *values)
{
    m->row(m->context, name, unit, higher, values, m->samples);
}

static void measure_launches(const Micro *m)
{
    enum { CALLS = 100 };
    double async[SAMPLES_MAX], rate[SAMPLES_MAX], sync[SAMPLES_MAX];
    launch_empty(2 * CALLS);
    wait();
    for (int i = 0; i < m->samples; i++) {
        const double began = now();
        launch_empty(CALLS);
        async[i] = 1e6 * (now() - began) / CALLS;
        wait();
        rate[i] = 1e-3 * CALLS / (now() - began);
        const double alone = now();
        for (int j = 0; j < CALLS / 10; j++) {
            launch_empty(1);
            wait();
        }
        sync[i] = 1e6 * (now() - alone) / (CALLS / 10);
    }
    report(m, "launch_async", "us", false, async);
    report(m, "launch_rate", "k/s", true, rate);
    report(m, "launch_sync", "us", false, sync);
}

static void measure_waits(const Micro *m)
{
    enum { CALLS = 100 };
    double idle[SAMPLES_MAX], event_wait[SAMPLES_MAX];
    cudaEvent_t event;
    CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    for (int i = 0; i < m->samples; i++) {
        double began = now();
        for (int j = 0; j < CALLS; j++) wait();
        idle[i] = 1e6 * (now() - began) / CALLS;
        began = now();
        for (int j = 0; j < CALLS; j++) {
            CUDA_CHECK(cudaEventRecord(event, cuda_stream));
            CUDA_CHECK(cudaEventSynchronize(event));
        }
        event_wait[i] = 1e6 * (now() - began) / CALLS;
    }
    CUDA_CHECK(cudaEventDestroy(event));
    report(m, "stream_sync_idle", "us", false, idle);
    report(m, "event_sync", "us", false, event_wait);
}

// Host time of launching a graph of `nodes` empty kernels, and wall time with the wait.
static void measure_graph(const Micro *m, int nodes)
{
    double launch[SAMPLES_MAX], whole[SAMPLES_MAX], instantiate[1];
    char name[32];
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CUDA_CHECK(cudaStreamBeginCapture(cuda_stream, cudaStreamCaptureModeThreadLocal));
    launch_empty(nodes);
    CUDA_CHECK(cudaStreamEndCapture(cuda_stream, &graph));
    const double before = now();
    CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
    instantiate[0] = 1e6 * (now() - before);
    for (int i = -2; i < m->samples; i++) {
        const double began = now();
        CUDA_CHECK(cudaGraphLaunch(exec, cuda_stream));
        const double launched = now();
        wait();
        if (i < 0) continue;
        launch[i] = 1e6 * (launched - began);
        whole[i] = 1e6 * (now() - began);
    }
    CUDA_CHECK(cudaGraphExecDestroy(exec));
    CUDA_CHECK(cudaGraphDestroy(graph));
    snprintf(name, sizeof name, "graph_launch_%d", nodes);
    report(m, name, "us", false, launch);
    snprintf(name, sizeof name, "graph_run_%d", nodes);
    report(m, name, "us", false, whole);
    snprintf(name, sizeof name, "graph_make_%d", nodes);
    m->row(m->context, name, "us", false, instantiate, 1);
}

// The device's time for `count` chain kernels in a row, in seconds.
static double device_seconds(const Micro *m, int count, int rounds, double *wall)
{
    float ms;
    cudaEvent_t begin, end;
    CUDA_CHECK(cudaEventCreate(&begin));
    CUDA_CHECK(cudaEventCreate(&end));
    const double began = now();
    CUDA_CHECK(cudaEventRecord(begin, cuda_stream));
    launch_chain(m, count, rounds);
    CUDA_CHECK(cudaEventRecord(end, cuda_stream));
    wait();
    *wall = now() - began;
    CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
    CUDA_CHECK(cudaEventDestroy(begin));
    CUDA_CHECK(cudaEventDestroy(end));
    return 1e-3 * (double)ms;
}

// Busy time over wall time of 200 kernels that take `us` each when one follows another without a
// gap: how long that is, is taken from one kernel of 200 times the rounds.
static void measure_short_kernels(const Micro *m, double rounds_a_us)
{
    enum { KERNELS = 200 };
    static const int lengths[] = {2, 5, 10, 50, 200};
    double share[SAMPLES_MAX], gap[SAMPLES_MAX], wall;
    char name[32];
    for (int i = 0; i < 5; i++) {
        const int rounds = (int)(rounds_a_us * lengths[i]) + 1;
        for (int j = 0; j < m->samples; j++) {
            const double busy = device_seconds(m, 1, KERNELS * rounds, &wall);
            device_seconds(m, KERNELS, rounds, &wall);
            share[j] = 100 * busy / wall;
            gap[j] = 1e6 * (wall - busy) / KERNELS;
        }
        snprintf(name, sizeof name, "short_kernel_%dus", lengths[i]);
        report(m, name, "%", true, share);
        if (lengths[i] == 5) report(m, "kernel_gap", "us", false, gap);
    }
}

// Rounds of the chain in a microsecond, from two lengths, so that the launch drops out.
static double measure_rounds(const Micro *m)
{
    enum { FEW = 2000, MANY = 22000 };
    double wall;
    device_seconds(m, 1, MANY, &wall);
    const double few = device_seconds(m, 1, FEW, &wall), many = device_seconds(m, 1, MANY, &wall);
    const double us = 1e6 * (many - few);
    return us > 1 ? (MANY - FEW) / us : 1;
}

static void measure_copies(const Micro *m, const char *kind, unsigned char *host,
                           unsigned char *device, size_t largest)
{
    double to[SAMPLES_MAX], from[SAMPLES_MAX];
    char name[32];
    for (size_t bytes = 4; bytes <= largest; bytes *= 16) {
        const bool rate = bytes >= 256 << 10;
        const double scale = rate ? 1e-9 * (double)bytes : 1e6;
        for (int i = -1; i < m->samples; i++) {
            double began = now();
            CUDA_CHECK(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cuda_stream));
            wait();
            const double up = now() - began;
            began = now();
            CUDA_CHECK(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, cuda_stream));
            wait();
            const double down = now() - began;
            if (i < 0) continue;
            to[i] = rate ? scale / up : scale * up;
            from[i] = rate ? scale / down : scale * down;
        }
        snprintf(name, sizeof name, "h2d_%s_%zu", kind, bytes);
        report(m, name, rate ? "GB/s" : "us", rate, to);
        snprintf(name, sizeof name, "d2h_%s_%zu", kind, bytes);
        report(m, name, rate ? "GB/s" : "us", rate, from);
    }
}

// What runs at once of a copy to the device and a kernel as long, of the shorter's time.
static void measure_overlap(const Micro *m, const unsigned char *pinned, unsigned char *device,
                            size_t bytes, double rounds_a_us)
{
    double share[SAMPLES_MAX];
    cudaStream_t copies;
    CUDA_CHECK(cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking));
    for (int i = -1; i < m->samples; i++) {
        double began = now();
        CUDA_CHECK(cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, copies));
        CUDA_CHECK(cudaStreamSynchronize(copies));
        const double copy = now() - began;
        const int rounds = (int)(rounds_a_us * 1e6 * copy) + 1;
        began = now();
        launch_chain(m, 1, rounds);
        wait();
        const double kernel = now() - began;
        began = now();
        launch_chain(m, 1, rounds);
        CUDA_CHECK(cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, copies));
        CUDA_CHECK(cudaStreamSynchronize(copies));
        wait();
        const double both = now() - began;
        if (i >= 0) share[i] = 100 * (copy + kernel - both) / (copy < kernel ? copy : kernel);
    }
    CUDA_CHECK(cudaStreamDestroy(copies));
    report(m, "copy_overlap", "%", true, share);
}

static void measure_transfers(const Micro *m, double rounds_a_us)
{
    const size_t largest = 64 << 20;
    unsigned char *pinned, *pageable = (unsigned char *)calloc(1, largest), *device;
    if (cudaMalloc((void **)&device, largest) != cudaSuccess) {
        cudaGetLastError(); // forget it: no rows
        free(pageable);
        return;
    }
    if (pageable) measure_copies(m, "pageable", pageable, device, largest);
    if (cudaHostAlloc((void **)&pinned, largest, cudaHostAllocDefault) == cudaSuccess) {
        measure_copies(m, "pinned", pinned, device, largest);
        measure_overlap(m, pinned, device, 16 << 20, rounds_a_us);
        CUDA_CHECK(cudaFreeHost(pinned));
    }
    cudaGetLastError(); // of a pin that failed
    CUDA_CHECK(cudaFree(device));
    free(pageable);
}

// Both ways to allocate and release; no rows where the memory is not there.
static void measure_malloc(const Micro *m, const char *size, size_t bytes)
{
    double plain[SAMPLES_MAX], ordered[SAMPLES_MAX];
    char name[32];
    int pools, device;
    void *p;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, device));
    for (int i = 0; i < m->samples; i++) {
        double began = now();
        if (cudaMalloc(&p, bytes) != cudaSuccess) {
            cudaGetLastError(); // forget it
            return;
        }
        CUDA_CHECK(cudaFree(p));
        plain[i] = 1e6 * (now() - began);
        began = now();
        if (!pools) continue;
        CUDA_CHECK(cudaMallocAsync(&p, bytes, cuda_stream));
        CUDA_CHECK(cudaFreeAsync(p, cuda_stream));
        wait();
        ordered[i] = 1e6 * (now() - began);
    }
    snprintf(name, sizeof name, "malloc_free_%s", size);
    report(m, name, "us", false, plain);
    snprintf(name, sizeof name, "malloc_async_%s", size);
    if (pools) report(m, name, "us", false, ordered);
}

// How much host memory can be pinned, up to 2 GiB. The last row, since a pin that failed can spoil
// what comes after it.
static void measure_pin_limit(const Micro *m)
{
    enum { STEP = 64, BLOCKS = 2048 / STEP }; // MiB
    void *blocks[BLOCKS];
    int count = 0;
    while (count < BLOCKS &&
           cudaHostAlloc(&blocks[count], (size_t)STEP << 20, cudaHostAllocDefault) == cudaSuccess)
        count++;
    double mib[1] = {(double)STEP * count};
    for (int i = 0; i < count; i++) cudaFreeHost(blocks[i]);
    cudaGetLastError(); // of the pin that failed
    m->row(m->context, "pin_limit", "MiB", true, mib, 1);
}

static void micro(MicroRow *row, void *context, int samples)
{
    Micro m = {row, context, samples < SAMPLES_MAX ? samples : SAMPLES_MAX, NULL};
    CUDA_CHECK(cudaMalloc((void **)&m.memory, 64 * sizeof(float)));
    CUDA_CHECK(cudaMemsetAsync(m.memory, 0, 64 * sizeof(float), cuda_stream));
    measure_launches(&m);
    measure_waits(&m);
    measure_graph(&m, 1);
    measure_graph(&m, 32);
    measure_graph(&m, 256);
    const double rounds_a_us = measure_rounds(&m);
    measure_short_kernels(&m, rounds_a_us);
    measure_transfers(&m, rounds_a_us);
    measure_malloc(&m, "1mb", 1 << 20);
    measure_malloc(&m, "64mb", 64 << 20);
    wait();
    CUDA_CHECK(cudaFree(m.memory));
    measure_pin_limit(&m);
}

void cuda_bench_ops(Kernels *k)
{
    k->micro = micro;
    k->launches = &cuda_launches;
}
