// The CUDA backend: memory and control. The operations are in the other files of this directory.
//
// Operations run on one stream, so they are in order and can share scratch memory;
// second_stream.cu is the exception. The host waits for the stream in download(), synchronize() and
// release(), and where it has run far ahead: it writes to pinned slots in turn, and waits for the
// slot that it used longest ago. A slot is sent to the device, large ones by another stream so that
// this overlaps with computing, and then moved to its place in the order of the first stream.
// graphs.cu sends what each step brings.
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>

extern "C" {
#include "kernels/cuda_open.h"
}

CudaDevice cuda_device;
const StepValues *cuda_step;

// ---- errors that open() reports ----------------------------------------------------------------

// For functions that return a status and have an `Error *e`.
#define TRY(call)                                                                                  \
    do {                                                                                           \
        const cudaError_t code = (call);                                                           \
        if (code != cudaSuccess) return cuda_fail(e, code, #call);                                 \
    } while (0)

// ---- host to device ----------------------------------------------------------------------------

// Pinned memory is scarce under WSL 2: 17 MiB in all.
constexpr size_t LARGE_BYTES = 4 << 20, SMALL_BYTES = 32 << 10;
enum { LARGE_SLOTS = 4, SMALL_SLOTS = 8 };

typedef struct Slot {
    unsigned char *host;
    unsigned char *device; // large slots only
    cudaEvent_t sent;      // the host's copy may be written again
    cudaEvent_t taken;     // the device's copy may; large slots only
} Slot;

static struct {
    cudaStream_t stream; // of large slots
    Slot large[LARGE_SLOTS], small[SMALL_SLOTS];
    unsigned next_large, next_small;
    unsigned char *host, *device; // of all slots
    unsigned char *back;          // (SMALL_BYTES) of download()
    bool pinned;
} transfer;

constexpr size_t TRANSFER_HOST =
    LARGE_SLOTS * LARGE_BYTES + (SMALL_SLOTS + 1) * SMALL_BYTES + CUDA_GROUPS * CUDA_GROUP_BYTES;

static int open_slot(Slot *s, unsigned char **host, size_t bytes, Error *e)
{
    s->host = *host;
    *host += bytes;
    TRY(cudaEventCreateWithFlags(&s->sent, cudaEventDisableTiming));
    return STATUS_OK;
}

// Pageable memory serves as well, only slower: then the driver makes the copies.
static int open_transfer(Error *e)
{
    unsigned char *host;
    transfer.pinned =
        cudaHostAlloc((void **)&host, TRANSFER_HOST, cudaHostAllocDefault) == cudaSuccess;
    if (!transfer.pinned) {
        cudaGetLastError(); // forget it
        host = (unsigned char *)malloc(TRANSFER_HOST);
        if (!host) return fail(e, STATUS_IO, "no %zu bytes of host memory", TRANSFER_HOST);
    }
    transfer.host = host;
    TRY(cudaMalloc((void **)&transfer.device, LARGE_SLOTS * LARGE_BYTES));
    TRY(cudaStreamCreateWithFlags(&transfer.stream, cudaStreamNonBlocking));
    for (int i = 0; i < LARGE_SLOTS; i++) {
        Slot *s = &transfer.large[i];
        if (open_slot(s, &host, LARGE_BYTES, e)) return e->status;
        s->device = transfer.device + i * LARGE_BYTES;
        TRY(cudaEventCreateWithFlags(&s->taken, cudaEventDisableTiming));
    }
    for (int i = 0; i < SMALL_SLOTS; i++)
        if (open_slot(&transfer.small[i], &host, SMALL_BYTES, e)) return e->status;
    transfer.back = host;
    return cuda_graphs_open(host + SMALL_BYTES, e);
}

static void close_transfer()
{
    for (int i = 0; i < LARGE_SLOTS + SMALL_SLOTS; i++) {
        Slot *s = i < LARGE_SLOTS ? &transfer.large[i] : &transfer.small[i - LARGE_SLOTS];
        if (s->sent) CUDA_CHECK(cudaEventDestroy(s->sent));
        if (s->taken) CUDA_CHECK(cudaEventDestroy(s->taken));
    }
    if (transfer.stream) CUDA_CHECK(cudaStreamDestroy(transfer.stream));
    if (transfer.device) CUDA_CHECK(cudaFree(transfer.device));
    if (transfer.pinned)
        CUDA_CHECK(cudaFreeHost(transfer.host));
    else
        free(transfer.host);
    memset(&transfer, 0, sizeof transfer);
}

// Beside other processes: has an eye on them until the device has done what is asked for.
template <class Query> static void watch_until(Query done)
{
    while (cuda_collectives_open() && done() == cudaErrorNotReady) cuda_collectives_check();
}

void cuda_wait_event(cudaEvent_t event)
{
    watch_until([=] { return cudaEventQuery(event); });
    CUDA_CHECK(cudaEventSynchronize(event)); // at once for one that was never recorded
}

// The next slot of a ring, free to be written.
static Slot *take_slot(Slot *ring, unsigned *next, unsigned slots)
{
    Slot *s = &ring[(*next)++ % slots];
    cuda_wait_event(s->sent);
    return s;
}

static void upload_small(void *to, const void *from, size_t bytes)
{
    Slot *s = take_slot(transfer.small, &transfer.next_small, SMALL_SLOTS);
    memcpy(s->host, from, bytes);
    CUDA_CHECK(cudaMemcpyAsync(to, s->host, bytes, cudaMemcpyHostToDevice, cuda_stream));
    CUDA_CHECK(cudaEventRecord(s->sent, cuda_stream));
}

static void upload_large(void *to, const void *from, size_t bytes)
{
    Slot *s = take_slot(transfer.large, &transfer.next_large, LARGE_SLOTS);
    memcpy(s->host, from, bytes);
    CUDA_CHECK(cudaStreamWaitEvent(transfer.stream, s->taken, 0));
    CUDA_CHECK(cudaMemcpyAsync(s->device, s->host, bytes, cudaMemcpyHostToDevice, transfer.stream));
    CUDA_CHECK(cudaEventRecord(s->sent, transfer.stream));
    CUDA_CHECK(cudaStreamWaitEvent(cuda_stream, s->sent, 0));
    CUDA_CHECK(cudaMemcpyAsync(to, s->device, bytes, cudaMemcpyDeviceToDevice, cuda_stream));
    CUDA_CHECK(cudaEventRecord(s->taken, cuda_stream));
}

void cuda_upload(void *device_dst, const void *host_src, size_t bytes)
{
    unsigned char *to = (unsigned char *)device_dst;
    const unsigned char *from = (const unsigned char *)host_src;
    for (size_t piece; bytes > 0; to += piece, from += piece, bytes -= piece) {
        piece = bytes < LARGE_BYTES ? bytes : LARGE_BYTES;
        if (piece <= SMALL_BYTES)
            upload_small(to, from, piece);
        else
            upload_large(to, from, piece);
    }
}

static void synchronize()
{
    watch_until([] { return cudaStreamQuery(cuda_stream); });
    CUDA_CHECK(cudaStreamSynchronize(cuda_stream));
}

static void download(void *host_dst, const void *device_src, size_t bytes)
{
    void *const to = bytes <= SMALL_BYTES ? transfer.back : host_dst;
    if (to == host_dst) synchronize(); // the copy would wait, and watch nothing
    CUDA_CHECK(cudaMemcpyAsync(to, device_src, bytes, cudaMemcpyDeviceToHost, cuda_stream));
    synchronize();
    if (to != host_dst) memcpy(host_dst, to, bytes);
}

static void copy(void *dst, const void *src, size_t bytes)
{
    CUDA_CHECK(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, cuda_stream));
}

static void zero(void *p, size_t bytes)
{
    CUDA_CHECK(cudaMemsetAsync(p, 0, bytes, cuda_stream));
}

// ---- memory ------------------------------------------------------------------------------------

// A fifth is left to the context, the display and other programs: beyond that, drivers under
// Windows move memory to the host without a word.
static size_t memory_free()
{
    size_t available = 0, total = 0;
    CUDA_CHECK(cudaMemGetInfo(&available, &total));
    return available > total / 5 ? available - total / 5 : 0;
}

static void *allocate(size_t bytes)
{
    void *p = NULL;
    if (bytes > memory_free()) return NULL;
    if (cudaMalloc(&p, bytes ? bytes : 1) == cudaSuccess) return p;
    cudaGetLastError(); // forget it
    return NULL;
}

static void *alloc(size_t bytes)
{
    void *p = allocate(bytes);
    if (p && bytes > 0) zero(p, bytes);
    return p;
}

static void release(void *p)
{
    synchronize();
    CUDA_CHECK(cudaFree(p));
}

// ---- graphs ------------------------------------------------------------------------------------

// Some drivers cannot capture (RTX 50 under WSL before 2.7.0): tried on one small operation.
static bool capture_works()
{
    float *const probe = (float *)transfer.device;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    bool works =
        cudaStreamBeginCapture(cuda_stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess;
    if (works) {
        cudaMemsetAsync(probe, 0, sizeof *probe, cuda_stream);
        works = cudaStreamEndCapture(cuda_stream, &graph) == cudaSuccess && graph &&
                cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess &&
                cudaGraphLaunch(exec, cuda_stream) == cudaSuccess &&
                cudaStreamSynchronize(cuda_stream) == cudaSuccess;
    }
    if (exec) cudaGraphExecDestroy(exec);
    if (graph) cudaGraphDestroy(graph);
    if (!works) cudaGetLastError(); // forget it
    return works;
}

// ---- scratch memory ----------------------------------------------------------------------------

// [1] is the branch's.
enum { SCRATCHES = 2 };
static struct {
    void *memory;
    size_t size, wanted;
    bool planned; // some plan wanted it
} scratch[SCRATCHES];
static int current; // of the two
static bool planning;

static bool grow_scratch(int i, size_t bytes)
{
#ifdef NN_EMU // exactly what was asked for, if that was not planned, so that an overrun is seen
    if (scratch[i].planned ? bytes <= scratch[i].size : bytes == scratch[i].size) return true;
#else
    if (bytes <= scratch[i].size) return true;
#endif
    assert(!cuda_capturing()); // a step's calls were planned
    cuda_forget_graphs();      // they hold the old pointer
    if (scratch[i].memory) release(scratch[i].memory);
    scratch[i].memory = allocate(bytes);
    scratch[i].size = scratch[i].memory ? bytes : 0;
    return scratch[i].memory != NULL;
}

bool cuda_planning()
{
    return planning;
}

// Calls that were not planned (in tests, say) enlarge the memory when they come.
void *cuda_scratch(size_t bytes)
{
    if (planning) {
        if (bytes > scratch[current].wanted) scratch[current].wanted = bytes;
        scratch[current].planned = true;
        return NULL;
    }
    if (!grow_scratch(current, bytes ? bytes : 1))
        die(STATUS_DEVICE, "no %zu bytes of scratch memory on the GPU: use a smaller --batch-size",
            bytes);
    return scratch[current].memory;
}

void cuda_use_branch_scratch(bool on)
{
    assert(current == !on);
    current = on;
}

static int set_planning(bool on, Error *e)
{
    planning = on;
    for (int i = 0; i < SCRATCHES; i++) {
        if (on)
            scratch[i].wanted = 0;
        else if (scratch[i].wanted > 0 && !grow_scratch(i, scratch[i].wanted))
            return fail(e, STATUS_DEVICE,
                        "no %zu bytes of scratch memory on the GPU: use a smaller --batch-size",
                        scratch[i].wanted);
    }
    return STATUS_OK;
}

// ---- opening -----------------------------------------------------------------------------------

static void close_cuda()
{
    synchronize();
    cuda_forget_graphs();
    cuda_timer_close();
    cuda_linear_close();
    cuda_second_stream_close();
    for (int i = 0; i < SCRATCHES; i++) {
        if (scratch[i].memory) release(scratch[i].memory);
        scratch[i].memory = NULL;
        scratch[i].size = scratch[i].wanted = 0;
        scratch[i].planned = false;
    }
    cuda_graphs_close();
    close_transfer();
    release((void *)cuda_step);
    CUDA_CHECK(cudaStreamDestroy(cuda_stream));
    cuda_step = NULL;
    cuda_streams = {};
}

static int choose_element(const char *dtype, Error *e)
{
    const bool tensor_cores = cuda_device.capability >= 80;
    cuda_device.element = F32;
    cuda_device.tf32 = strcmp(dtype, "tf32") == 0;
    if (strcmp(dtype, "bf16") == 0 || (strcmp(dtype, "auto") == 0 && tensor_cores))
        cuda_device.element = BF16;
    if (!tensor_cores && (cuda_device.tf32 || cuda_device.element == BF16))
        return fail(e, STATUS_DEVICE,
                    "--dtype %s needs a GPU of compute capability 8.0 or later, this one has "
                    "%d.%d: use --dtype fp32",
                    dtype, cuda_device.capability / 10, cuda_device.capability % 10);
    return STATUS_OK;
}

// The number that an environment variable holds; without it, `number` stays.
static int from_environment(int *number, const char *name, int least, int most, Error *e)
{
    const char *const text = getenv(name);
    char *end;
    if (!text) return STATUS_OK;
    const long value = strtol(text, &end, 10);
    if (end == text || *end || value < least || value > most)
        return fail(e, STATUS_USAGE, "the environment has %s=%s: expected %d to %d, or unset it",
                    name, text, least, most);
    *number = (int)value;
    return STATUS_OK;
}

// Which matrix products the environment allows. compiled_for: 10 * major + minor of this build's
// code for the GPU; without wgmma if it was made for an older one.
static int choose_products(int compiled_for, Error *e)
{
    int tensor_cores = 1, wgmma = 0;
    if (from_environment(&tensor_cores, "NN_TENSOR_CORES", 0, 1, e)) return e->status;
    if (from_environment(&wgmma, "NN_WGMMA", 0, 1, e)) return e->status;
    if (wgmma && (cuda_device.capability != 90 || compiled_for != 90))
        return fail(e, STATUS_USAGE,
                    "the environment has NN_WGMMA=1, which needs a GPU of compute capability 9.0 "
                    "and a build for it, these have %d.%d and %d.%d: unset it",
                    cuda_device.capability / 10, cuda_device.capability % 10, compiled_for / 10,
                    compiled_for % 10);
    cuda_device.wgmma = wgmma && tensor_cores;
    cuda_device.tensor_cores_ok = tensor_cores && cuda_device.capability >= 80;
    return STATUS_OK;
}

static __global__ void probe_kernel()
{
}

// Also finds out whether this build has code for the GPU.
static int open_device(const KernelsConfig *c, char *description, size_t size, Error *e)
{
    int count;
    const char *number = strchr(c->device, ':');
    cudaDeviceProp p;
    cudaFuncAttributes attributes;
    TRY(cudaGetDeviceCount(&count));
    const long wanted = number ? strtol(number + 1, NULL, 10) : c->local_rank % count;
    if (wanted >= count)
        return fail(e, STATUS_DEVICE, "--device cuda:%ld: there %s %d GPU%s here, from cuda:0 on",
                    wanted, count == 1 ? "is" : "are", count, count == 1 ? "" : "s");
    const int index = (int)wanted;
    TRY(cudaSetDevice(index));
    TRY(cudaGetDeviceProperties(&p, index));
    cuda_device.index = index;
    cuda_device.capability = 10 * p.major + p.minor;
    cuda_device.processors = p.multiProcessorCount;
    cuda_device.shared_optin = p.sharedMemPerBlockOptin;
    cuda_device.memory = p.totalGlobalMem;
    TRY(cudaFuncGetAttributes(&attributes, (const void *)probe_kernel));
    if (choose_products(attributes.ptxVersion, e)) return e->status;
    snprintf(description, size, "%.60s, sm_%d, %d SMs, %.1f GB%s", p.name, cuda_device.capability,
             p.multiProcessorCount, (double)p.totalGlobalMem / 1e9,
             cuda_device.wgmma                                              ? ", wgmma"
             : cuda_device.capability >= 80 && !cuda_device.tensor_cores_ok ? ", plain kernels"
                                                                            : "");
    TRY(cudaStreamCreateWithFlags(&cuda_streams.present, cudaStreamNonBlocking));
    return STATUS_OK;
}

static void set_operations(Kernels *k)
{
    cuda_gather_ops(k);
    cuda_linear_ops(k);
    cuda_conv2d_ops(k);
    cuda_activation_ops(k);
    cuda_norm_ops(k);
    cuda_pool_ops(k);
    cuda_loss_ops(k);
    cuda_optimizer_ops(k);
    cuda_muon_ops(k);
    cuda_vector_ops(k);
    cuda_timer_ops(k);
    cuda_graph_ops(k);
    cuda_second_stream_ops(k);
    cuda_bench_ops(k);
}

static void set_control(Kernels *k)
{
    k->own_memory = true;
    k->alloc = alloc;
    k->release = release;
    k->memory_free = memory_free;
    k->upload = cuda_upload;
    k->download = download;
    k->copy = copy;
    k->zero = zero;
    k->synchronize = synchronize;
    k->planning = set_planning;
    k->open_collectives = cuda_open_collectives;
    k->close = close_cuda;
}

static int open_all(Kernels *k, const KernelsConfig *c, char note[256], Error *e)
{
    int graph_steps = CUDA_GRAPH_STEPS;
    if (from_environment(&graph_steps, "NN_GRAPH_STEPS", 1, CUDA_GRAPH_STEPS, e)) return e->status;
    int status = open_device(c, k->description, sizeof k->description, e);
    if (!status) status = choose_element(c->dtype, e);
    if (!status) status = open_transfer(e);
    if (!status) status = cuda_second_stream_open(e);
    if (status) return status;
    TRY(cudaMalloc((void **)&cuda_step, sizeof *cuda_step));
    const bool captures = !c->no_graph && capture_works();
    cuda_graphs_begin(captures, graph_steps);
    if (!captures && !c->no_graph)
        snprintf(note, 256,
                 "this driver cannot capture CUDA graphs (under WSL: wsl --update), so "
                 "steps run as with --graph off");
    return STATUS_OK;
}

int cuda_open(const Kernels **k, const KernelsConfig *c, char note[256], Error *e)
{
    static Kernels cuda;
    static char name[24];
    if (open_all(&cuda, c, note, e)) return e->status;
    snprintf(name, sizeof name, "cuda:%d", cuda_device.index);
    cuda.device = name;
    cuda.element = cuda_device.element;
    cuda.tf32 = cuda_device.tf32;
    cuda.element_size = cuda_device.element == BF16 ? sizeof(bf16) : sizeof(float);
    set_control(&cuda);
    set_operations(&cuda);
    const StepValues first = {};
    cuda.step_begin(-1, &first);
    char line[256] = "";
    cuda_matmul_self_check(&cuda, line);
    if (line[0]) snprintf(note, 256, "%s", line);
    *k = &cuda;
    return STATUS_OK;
}
