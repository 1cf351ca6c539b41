// NCCL, as far as it is used, between processes of this machine by shared memory. Sums are taken in
// the order of the ranks.
//
// A call has two parts on its stream. The exchange gives this rank's values away and takes the
// others'; it runs as soon as the call is made (a graph with such calls, as soon as it is launched)
// and waits for all ranks, which can therefore not block each other by calls of other libraries in
// between. What came out of it is written by the second part, when the stream's order says: too
// late for whom did not wait for it.
//
// NN_EMU_NCCL_FAULT=N: the Nth exchange fails, as when a cable is cut.
#ifdef NN_NCCL
#include <atomic>
#include <errno.h>
#include <fcntl.h>
#include <nccl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <vector>

#include "tests/cuda_on_cpu/internal.h"

using namespace emu;

namespace
{
constexpr int RANKS = 16;
constexpr size_t PIECE = 64 << 10; // floats that a rank shows at a time

// What a rank shows to the others.
struct Window {
    std::atomic<int> process;       // 0: not here yet
    std::atomic<uint64_t> shown;    // pieces so far
    std::atomic<uint64_t> consumed; // pieces of every rank that this one has read
    uint64_t call;                  // which collective, of how many floats: equal on all ranks
    float values[PIECE];
};

enum Kind { ALL_REDUCE, ALL_GATHER };
} // namespace

struct ncclComm {
    Window *windows; // (ranks), shared
    int rank, ranks;
    uint64_t pieces; // exchanged
    long exchanges, fault;
    std::atomic<ncclResult_t> error;
};

namespace
{
size_t shared_bytes(int ranks)
{
    return (size_t)ranks * sizeof(Window);
}

bool gone(const Window &w)
{
    const int process = w.process;
    return process && kill(process, 0) != 0 && errno == ESRCH;
}

// Until `done` holds for every rank. False: a rank is gone, or a call before was in vain.
template <class Done> bool wait_for_all(ncclComm *c, Done done)
{
    const timespec pause = {0, 20000};
    for (int r = 0; r < c->ranks; r++) {
        const Window &w = c->windows[r];
        while (!c->error && !done(w)) {
            if (gone(w) && !done(w)) c->error = ncclRemoteError;
            nanosleep(&pause, nullptr);
        }
    }
    return !c->error;
}

void add(float *sum, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) sum[i] += x[i];
}

// One piece: x (n) of each rank into `result` (n), or (ranks, stride).
bool exchange_piece(ncclComm *c, Kind kind, float *result, size_t stride, const float *x, size_t n)
{
    const uint64_t before = c->pieces++, call = (uint64_t)kind << 60 | stride;
    Window &own = c->windows[c->rank];
    if (!wait_for_all(c, [=](const Window &w) { return w.consumed >= before; })) return false;
    own.call = call;
    memcpy(own.values, x, n * sizeof *x);
    own.shown = before + 1;
    if (!wait_for_all(c, [=](const Window &w) { return w.shown > before; })) return false;
    for (int r = 0; r < c->ranks; r++) {
        const Window &w = c->windows[r];
        if (w.call != call) fail("nccl: rank %d makes another call than rank %d", r, c->rank);
        if (kind == ALL_GATHER || r == 0)
            memcpy(result + (kind == ALL_GATHER ? (size_t)r * stride : 0), w.values, n * sizeof *x);
        else
            add(result, w.values, n);
    }
    own.consumed = before + 1;
    return true;
}

void exchange(ncclComm *c, Kind kind, float *result, const float *x, size_t n)
{
    if (++c->exchanges == c->fault) c->error = ncclSystemError;
    for (size_t i = 0; i < n; i += PIECE) {
        const size_t piece = n - i < PIECE ? n - i : PIECE;
        if (!exchange_piece(c, kind, result + i, n, x + i, piece)) return;
    }
}

ncclResult_t collective(ncclComm *c, Kind kind, const void *x, void *y, size_t n,
                        ncclDataType_t type, cudaStream_t stream)
{
    EMU_LOCK;
    const size_t results = kind == ALL_GATHER ? n * (size_t)c->ranks : n;
    if (type != ncclFloat) fail("nccl: only sums of floats are emulated");
    memory_check(x, n * sizeof(float), DEVICE, "nccl reads from");
    memory_check(y, results * sizeof(float), DEVICE, "nccl writes to");
    // What a failed exchange leaves is NaN.
    const auto result = std::make_shared<std::vector<float>>(results, __builtin_nanf(""));
    stream_push_urgent(stream, [=] {
        exchange(c, kind, result->data(), (const float *)x, n);
        return true;
    });
    stream_push(stream, [=] {
        memcpy(y, result->data(), results * sizeof(float));
        return true;
    });
    return ncclSuccess;
}

Window *map_windows(const char *name, int ranks)
{
    const int file = shm_open(name, O_RDWR | O_CREAT, 0600);
    if (file < 0 || ftruncate(file, (off_t)shared_bytes(ranks)) != 0) return nullptr;
    void *p = mmap(nullptr, shared_bytes(ranks), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return p == MAP_FAILED ? nullptr : (Window *)p;
}
} // namespace

// ---- the library -------------------------------------------------------------------------------

ncclResult_t ncclGetVersion(int *version)
{
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

// The name of the shared memory.
ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    snprintf(id->internal, sizeof id->internal, "/cuda_on_cpu-%d-%ld", (int)getpid(), t.tv_nsec);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t code)
{
    return code == ncclSuccess       ? "no error"
           : code == ncclRemoteError ? "another process is gone"
                                     : "an emulated error of the system";
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank)
{
    Window *windows = ranks <= RANKS ? map_windows(id.internal, ranks) : nullptr;
    if (!windows) return ncclSystemError;
    const char *fault = getenv("NN_EMU_NCCL_FAULT");
    ncclComm *c = *comm = new ncclComm{windows, rank, ranks, 0, 0, fault ? atol(fault) : 0, {}};
    windows[rank].process = getpid();
    if (!wait_for_all(c, [](const Window &w) { return w.process != 0; })) return c->error;
    if (rank == 0) shm_unlink(id.internal);
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *code)
{
    *code = c->error;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t c)
{
    EMU_LOCK;
    streams_finish();
    if (urgent_graphs()) fail("ncclCommDestroy: would wait for graphs with its calls");
    munmap(c->windows, shared_bytes(c->ranks));
    delete c;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *x, void *y, size_t n, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t c, cudaStream_t stream)
{
    if (op != ncclSum) fail("nccl: only sums of floats are emulated");
    return collective(c, ALL_REDUCE, x, y, n, type, stream);
}

ncclResult_t ncclAllGather(const void *x, void *y, size_t n, ncclDataType_t type, ncclComm_t c,
                           cudaStream_t stream)
{
    return collective(c, ALL_GATHER, x, y, n, type, stream);
}
#endif
