// The device's time for parts of a step, by events, and the same parts as ranges for NVIDIA's
// profilers. NVTX is headers alone: a range costs a branch unless a profiler is attached.
#include "kernels/cuda/cuda.h"

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#else
static void nvtxRangePushA(const char *)
{
}
static void nvtxRangePop()
{
}
#endif

static struct {
    cudaEvent_t events[2 * TIMES_MAX]; // begin and end of each, made when first used
    int made, count;
} timer;

static void record(int event)
{
    assert(event < 2 * TIMES_MAX);
    if (event == timer.made) CUDA_CHECK(cudaEventCreate(&timer.events[timer.made++]));
    CUDA_CHECK(cudaEventRecord(timer.events[event], cuda_stream));
}

static void time_begin(const char *range)
{
    nvtxRangePushA(range);
    record(2 * timer.count);
}

static void time_end()
{
    record(2 * timer.count++ + 1);
    nvtxRangePop();
}

static void times(double *seconds, int count)
{
    assert(count == timer.count);
    CUDA_CHECK(cudaStreamSynchronize(cuda_stream));
    for (int i = 0; i < count; i++) {
        float ms;
        CUDA_CHECK(cudaEventElapsedTime(&ms, timer.events[2 * i], timer.events[2 * i + 1]));
        seconds[i] = 1e-3 * (double)ms;
    }
    timer.count = 0;
}

void cuda_timer_close()
{
    while (timer.made > 0) CUDA_CHECK(cudaEventDestroy(timer.events[--timer.made]));
}

void cuda_timer_ops(Kernels *k)
{
    k->time_begin = time_begin;
    k->time_end = time_end;
    k->times = times;
}
