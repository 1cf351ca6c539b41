#include "tests/cuda_on_cpu/stream.h"

#include <algorithm>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

namespace emu
{
std::recursive_mutex api_mutex;
std::vector<cudaStream_t> streams;

namespace
{
void check_stream(cudaStream_t s)
{
    if (std::find(streams.begin(), streams.end(), s) == streams.end())
        fail("the default stream, or one that is no more: make streams with cudaStreamNonBlocking");
}

bool run_next(cudaStream_t s)
{
    if (s->queue.empty()) return false;
    const Operation next = s->queue.front();
    const DeviceAccess access;
    if (!next()) return false;
    s->queue.pop_front();
    return true;
}

bool run_any()
{
    const size_t n = streams.size(), first = order == RANDOM && n ? random_below((uint32_t)n) : 0;
    for (size_t i = 0; i < n; i++)
        if (run_next(streams[(first + i) % n])) return true;
    return false;
}

// Runs this stream's operations, and others' only when it cannot go on.
template <class Done> void run_until(cudaStream_t s, Done done)
{
    while (!done())
        if (!(s && run_next(s)) && !run_any())
            fail("the host waits for work that can never run: an event nobody records?");
}

void run_some() // of what a real device might have done by now
{
    for (uint32_t n = random_below(4); n > 0; n--) run_any();
}
} // namespace

void stream_push(cudaStream_t s, const Operation &operation)
{
    check_stream(s);
    if (s->capture) {
        auto &nodes = s->capture->graph->nodes;
        nodes.push_back({operation, s->after});
        s->after = {nodes.size() - 1};
        return;
    }
    s->queue.push_back(operation);
    if (order == FORWARD)
        while (run_next(s)) continue;
    else if (order == RANDOM)
        run_some();
}

void stream_push_urgent(cudaStream_t s, const Operation &operation)
{
    stream_push(s, operation);
    if (s->capture)
        s->capture->graph->urgent = true;
    else
        stream_finish(s);
}

void stream_finish(cudaStream_t s)
{
    run_until(s, [=] { return s->queue.empty(); });
}

void streams_finish()
{
    for (const cudaStream_t s : streams) stream_finish(s);
}

bool stream_capturing(cudaStream_t s)
{
    check_stream(s);
    return s->capture != nullptr;
}

cudaError_t capture_spoiled()
{
    cudaError_t result = cudaSuccess;
    for (const cudaStream_t s : streams) {
        if (!s->capture) continue;
        s->capture->spoiled = true;
        result = remember(cudaErrorStreamCaptureUnsupported);
    }
    return result;
}

// ---- launches ----------------------------------------------------------------------------------

// With NN_EMU_COUNT the number of launches, those into a graph once, is printed at the end.
static struct LaunchCount {
    long launches = 0;
    ~LaunchCount()
    {
        if (getenv("NN_EMU_COUNT")) fprintf(stderr, "cuda_on_cpu: %ld launches\n", launches);
    }
} counted;

cudaError_t launch(const Grid &g, cudaStream_t stream, const void *const *pointers, int count)
{
    EMU_CALL("launch");
    counted.launches++;
    const uint64_t block = (uint64_t)g.block.x * g.block.y * g.block.z;
    if (block == 0 || block > 1024 || g.block.z > 64 || block % 32)
        fail("%s:%d: a block of (%u,%u,%u) threads: expected whole warps, at most 1024 threads",
             g.file, g.line, g.block.x, g.block.y, g.block.z);
    if (!g.grid.x || !g.grid.y || !g.grid.z || g.grid.x > 0x7fffffffu || g.grid.y > 65535 ||
        g.grid.z > 65535)
        fail("%s:%d: a grid of (%u,%u,%u) blocks: empty or too large", g.file, g.line, g.grid.x,
             g.grid.y, g.grid.z);
    const size_t allowed = dynamic_shared_allowed(g.kernel);
    if (g.shared_bytes > allowed)
        fail("%s:%d: %zu bytes of dynamic shared memory, allowed are %zu (nn_allow_shared)", g.file,
             g.line, g.shared_bytes, allowed);
    for (int i = 0; i < count; i++)
        if (pointers[i]) memory_check(pointers[i], 0, DEVICE, "a kernel is given");
    stream_push(stream, [=] {
        run_grid(g);
        return true;
    });
    return cudaSuccess;
}
} // namespace emu

using namespace emu;

// ---- streams -----------------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    EMU_CALL("stream");
    if (flags != cudaStreamNonBlocking) fail("make streams with cudaStreamNonBlocking");
    *s = new CUstream_st();
    streams.push_back(*s);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    EMU_CALL("stream");
    check_stream(s);
    stream_finish(s);
    streams.erase(std::find(streams.begin(), streams.end(), s));
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    EMU_CALL("stream");
    if (stream_capturing(s)) return capture_spoiled();
    stream_finish(s);
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    EMU_CALL("stream");
    if (stream_capturing(s)) return capture_spoiled();
    if (!run_next(s)) run_any();
    return s->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t function, void *data)
{
    EMU_CALL("launch");
    stream_push(s, [=] {
        function(data);
        return true;
    });
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize()
{
    EMU_CALL("stream");
    if (const cudaError_t spoiled = capture_spoiled()) return spoiled;
    streams_finish();
    return cudaSuccess;
}

// ---- events ------------------------------------------------------------------------------------

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    EMU_CALL("event");
    *e = new CUevent_st();
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    return cudaEventCreateWithFlags(e, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    EMU_CALL("event");
    streams_finish();
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    EMU_CALL("event");
    e->capture = stream_capturing(s) ? s->capture : nullptr;
    e->after = s->after;
    if (e->capture) return cudaSuccess;
    const uint64_t number = ++e->recorded;
    stream_push(s, [=] {
        timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        e->milliseconds = (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
        e->done = number;
        return true;
    });
    return cudaSuccess;
}

// In a capture the stream joins that of the event, and its next operation comes after it.
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    EMU_CALL("stream");
    if (e->capture) {
        if (stream_capturing(s) && s->capture != e->capture)
            return remember(cudaErrorStreamCaptureMerge);
        s->capture = e->capture;
        s->capture->streams.insert(s);
        s->after.insert(e->after.begin(), e->after.end());
        return cudaSuccess;
    }
    if (stream_capturing(s)) return remember(cudaErrorStreamCaptureIsolation);
    const uint64_t number = e->recorded;
    stream_push(s, [=] { return e->done >= number; });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    EMU_CALL("event");
    run_until(nullptr, [=] { return e->done >= e->recorded; });
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    EMU_CALL("event");
    run_any();
    return e->done >= e->recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end)
{
    EMU_CALL("event");
    *milliseconds = (float)(end->milliseconds - begin->milliseconds);
    return cudaSuccess;
}
