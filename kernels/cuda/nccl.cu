// Sums over several processes with a GPU each, by NCCL (base/comm.h: Collectives).
//
// All calls go to one communicator on one stream of their own, so that every process makes them in
// the same order. That stream waits for what the operations' stream has written by then; the
// operations' stream waits for it at once, or in all_reduce_wait(). A step that is captured has
// both streams, and NCCL's kernels, in its graph.
//
// NCCL is 218 MB and not on every machine, so it is opened when there are several processes.
#include "kernels/cuda/cuda.h"

extern "C" {
#include "base/comm.h"
}

#ifdef NN_NCCL
#include <dlfcn.h>
#include <nccl.h>
#include <stdlib.h>
#include <time.h>

// ---- the library -------------------------------------------------------------------------------

#define NCCL_FUNCTIONS(X)                                                                          \
    X(GetVersion)                                                                                  \
    X(GetUniqueId)                                                                                 \
    X(GetErrorString)                                                                              \
    X(CommInitRank)                                                                                \
    X(CommGetAsyncError)                                                                           \
    X(CommDestroy)                                                                                 \
    X(AllReduce)                                                                                   \
    X(AllGather)

#define NCCL_POINTER(name) decltype(&nccl##name) name;
static struct {
    ncclComm_t communicator; // NULL: closed
    Comm comm;
    cudaStream_t stream;
    cudaEvent_t written, summed; // what is to be summed; what was started
    NCCL_FUNCTIONS(NCCL_POINTER)
} nccl;

#ifdef NN_EMU
static bool find_functions()
{
#define NCCL_LINKED(name) nccl.name = nccl##name;
    NCCL_FUNCTIONS(NCCL_LINKED)
    return true;
}
#else
static bool find_functions()
{
    bool found = true;
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
#define NCCL_FIND(name)                                                                            \
    *(void **)&nccl.name = dlsym(library, "nccl" #name);                                           \
    found = found && nccl.name;
    NCCL_FUNCTIONS(NCCL_FIND)
    return found;
}
#endif

// The others cannot go on either. NCCL's kernels, which may wait for ever, end with the process.
[[noreturn]] static void nccl_die(ncclResult_t code, const char *call)
{
    report_error("rank %d: %s: %s; NCCL_DEBUG=WARN shows what NCCL knows of it", nccl.comm.rank,
                 call, nccl.GetErrorString(code));
    nccl.comm.abort(STATUS_FAILED);
    exit(STATUS_FAILED); // not reached
}

static void nccl_check(ncclResult_t code, const char *call)
{
    if (code != ncclSuccess) nccl_die(code, call);
}
#define NCCL_CHECK(call) nccl_check((call), #call)

bool cuda_collectives_open()
{
    return nccl.communicator != NULL;
}

void cuda_collectives_check()
{
    ncclResult_t code = ncclSuccess;
    NCCL_CHECK(nccl.CommGetAsyncError(nccl.communicator, &code));
    if (code != ncclSuccess) nccl_die(code, "a sum over the processes");
}

// ---- calls -------------------------------------------------------------------------------------

static void begin_call()
{
    CUDA_CHECK(cudaEventRecord(nccl.written, cuda_stream));
    CUDA_CHECK(cudaStreamWaitEvent(nccl.stream, nccl.written, 0));
}

static void all_reduce_wait()
{
    if (cuda_planning()) return;
    CUDA_CHECK(cudaEventRecord(nccl.summed, nccl.stream));
    CUDA_CHECK(cudaStreamWaitEvent(cuda_stream, nccl.summed, 0));
}

// As os_seconds() has it.
static void CUDART_CB note_time(void *seconds)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    *(double *)seconds = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void all_reduce_start(float *x, int64_t n, CommSpan *span)
{
    if (cuda_planning()) return;
    begin_call();
    if (span) CUDA_CHECK(cudaLaunchHostFunc(nccl.stream, note_time, &span->began));
    NCCL_CHECK(nccl.AllReduce(x, x, (size_t)n, ncclFloat, ncclSum, nccl.communicator, nccl.stream));
    if (span) CUDA_CHECK(cudaLaunchHostFunc(nccl.stream, note_time, &span->ended));
}

static void all_reduce(float *x, int64_t n)
{
    all_reduce_start(x, n, NULL);
    all_reduce_wait();
}

static void all_gather(float *all, const float *x, int64_t n)
{
    if (cuda_planning()) return;
    begin_call();
    NCCL_CHECK(nccl.AllGather(x, all, (size_t)n, ncclFloat, nccl.communicator, nccl.stream));
    all_reduce_wait();
}

// ---- opening -----------------------------------------------------------------------------------

// NCCL waits for its graphs to be destroyed first.
static void close_collectives()
{
    cuda_forget_graphs();
    NCCL_CHECK(nccl.CommDestroy(nccl.communicator));
    nccl.communicator = NULL;
    CUDA_CHECK(cudaEventDestroy(nccl.written));
    CUDA_CHECK(cudaEventDestroy(nccl.summed));
    CUDA_CHECK(cudaStreamDestroy(nccl.stream));
}

// What the processes tell each other before they trust NCCL with the connection.
typedef struct Member {
    int version;     // of NCCL: 22809 for 2.28.9; 0 without it
    cudaUUID_t uuid; // of the GPU
} Member;

// 2.9 was the first that can be captured in graphs.
constexpr int OLDEST = 20900;

static int check_members(const Member *all, int ranks, Error *e)
{
    for (int i = 0; i < ranks; i++) {
        if (all[i].version < OLDEST)
            return fail(e, STATUS_DEVICE,
                        "%d processes with GPUs need NCCL 2.9 or later, libnccl.so.2, which rank "
                        "%d lacks: install it there (libnccl2), or use --device cpu",
                        ranks, i);
        if (all[i].version != all[0].version)
            return fail(e, STATUS_DEVICE,
                        "rank 0 has NCCL %d, rank %d NCCL %d: install the same on all machines",
                        all[0].version, i, all[i].version);
        for (int j = 0; j < i; j++)
            if (memcmp(&all[j].uuid, &all[i].uuid, sizeof all[i].uuid) == 0)
                return fail(e, STATUS_DEVICE,
                            "ranks %d and %d have the same GPU: start as many processes on each "
                            "machine as it has GPUs, or use --device cpu",
                            j, i);
    }
    return STATUS_OK;
}

static int meet(const Comm *comm, Error *e)
{
    Member own = {};
    cudaDeviceProp p;
    CUDA_CHECK(cudaGetDeviceProperties(&p, cuda_device.index));
    own.uuid = p.uuid;
    if (!find_functions() || nccl.GetVersion(&own.version) != ncclSuccess) own.version = 0;
    Member *all = (Member *)malloc((size_t)comm->ranks * sizeof *all);
    if (!all) return fail(e, STATUS_IO, "no memory for %d processes", comm->ranks);
    comm->all_gather(all, &own, sizeof own);
    const int status = check_members(all, comm->ranks, e);
    free(all);
    return status;
}

static int connect(const Comm *comm, Error *e)
{
    ncclUniqueId id = {};
    // Sums inside NVLink switches differ from call to call: github.com/NVIDIA/nccl/issues/1497.
    setenv("NCCL_NVLS_ENABLE", "0", 0);
    ncclResult_t code = comm->rank == 0 ? nccl.GetUniqueId(&id) : ncclSuccess;
    comm->broadcast(&id, sizeof id);
    if (code == ncclSuccess)
        code = nccl.CommInitRank(&nccl.communicator, comm->ranks, id, comm->rank);
    if (code != ncclSuccess)
        return fail(e, STATUS_DEVICE, "NCCL does not connect rank %d: %s; NCCL_DEBUG=WARN says why",
                    comm->rank, nccl.GetErrorString(code));
    return STATUS_OK;
}

int cuda_open_collectives(const Collectives **c, const Comm *comm, Error *e)
{
    static const Collectives collectives = {all_reduce, all_gather, all_reduce_start,
                                            all_reduce_wait, close_collectives};
    nccl.comm = *comm;
    if (meet(comm, e) || connect(comm, e)) return e->status;
    CUDA_CHECK(cudaStreamCreateWithFlags(&nccl.stream, cudaStreamNonBlocking));
    CUDA_CHECK(cudaEventCreateWithFlags(&nccl.written, cudaEventDisableTiming));
    CUDA_CHECK(cudaEventCreateWithFlags(&nccl.summed, cudaEventDisableTiming));
    *c = &collectives;
    return STATUS_OK;
}

#else

bool cuda_collectives_open()
{
    return false;
}

void cuda_collectives_check()
{
}

int cuda_open_collectives(const Collectives **, const Comm *comm, Error *e)
{
    return fail(e, STATUS_DEVICE,
                "this build has no NCCL, which %d processes with GPUs need: install it "
                "(libnccl-dev), run make clean and make again, or use --device cpu",
                comm->ranks);
}

#endif
