// Steps: what the host tells the device before each, and several of them by one launch.
//
// A step's values and step_upload()'s data are packed into a slot of pinned memory; a group of
// slots travels in one copy. Each step begins with a kernel that takes the next slot of the group
// and puts its parts where they belong. So steps differ in nothing but memory, and a graph of
// several is one step's graph several times in a row.
//
// A step that is replayed waits until STEPS do, or until something else is asked of the device:
// whoever takes cuda_stream runs what waits first. It does not wait if something was asked since
// the step before it: then the device may be idle, or the host slow to send pictures.
#include "kernels/cuda/cuda.h"

enum { LEVELS = 5, STEPS = CUDA_GRAPH_STEPS }; // graphs of 1, 2, 4, ... STEPS steps
static_assert(1 << (LEVELS - 1) == STEPS);
enum { VARIANTS = 64, PARTS = 4, THREADS = 512 };
constexpr uint32_t ALIGNMENT = 16;

// A variant's first step makes its calls on the stream, which also loads what kernels and libraries
// load on first use; the second is captured; from the third on the graph is replayed.
typedef enum { PLAIN, CAPTURING, REPLAYING } StepMode;

static struct {
    bool on;
    int most; // steps a launch
    bool seen[VARIANTS];
    cudaGraph_t step[VARIANTS];
    cudaGraphExec_t exec[VARIANTS][LEVELS]; // of 1 << level steps, made when first used
    int variant;                            // of the step that is running
    StepMode mode;
} graphs;

// A group, on the host and on the device: the offset of the slot that is taken next, then slots,
// each followed by its parts' data.
typedef struct Part {
    void *to;
    uint32_t from, bytes; // from: an offset
} Part;
typedef struct Slot {
    uint32_t next, parts;
    Part part[PARTS];
} Slot;

static struct {
    unsigned char *host[CUDA_GROUPS];
    cudaEvent_t sent[CUDA_GROUPS]; // the host's copy may be written again
    unsigned group;                // that is being filled, modulo CUDA_GROUPS
    uint32_t used;                 // bytes of it; 0: not begun
    Slot *slot;                    // that is being filled; NULL: none
    int variants[STEPS], count;    // of the steps that wait
    unsigned char *device;
} queue;

CudaStreams cuda_streams;

// ---- slots --------------------------------------------------------------------------------------

static __global__ void unpack_kernel(unsigned char *group)
{
    uint32_t *const next = (uint32_t *)group;
    const Slot *const slot = (const Slot *)(group + *next);
    for (uint32_t p = 0; p < slot->parts; p++) {
        const uint32_t *const from = (const uint32_t *)(group + slot->part[p].from);
        uint32_t *const to = (uint32_t *)slot->part[p].to;
        for (uint32_t i = threadIdx.x; i < slot->part[p].bytes / 4; i += THREADS) to[i] = from[i];
    }
    __syncthreads(); // all have read *next
    if (threadIdx.x == 0) *next = slot->next;
}

static void launch_unpack()
{
    nn_launch(unpack_kernel, 1u, THREADS, 0, cuda_streams.present, queue.device);
}

constexpr uint32_t align_up(size_t bytes)
{
    return (uint32_t)((bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}
// Of a group: its offset; of a slot: with a step's values alone.
constexpr uint32_t HEAD = ALIGNMENT, LEAST = align_up(sizeof(Slot)) + align_up(sizeof(StepValues));

static unsigned char *group_memory()
{
    return queue.host[queue.group % CUDA_GROUPS];
}

static void begin_slot()
{
    if (queue.used + LEAST > CUDA_GROUP_BYTES) cuda_run_waiting();
    if (queue.used == 0) {
        cuda_wait_event(queue.sent[queue.group % CUDA_GROUPS]);
        queue.used = HEAD;
        memcpy(group_memory(), &queue.used, sizeof queue.used);
    }
    queue.slot = (Slot *)(group_memory() + queue.used);
    queue.slot->parts = 0;
    queue.used += align_up(sizeof(Slot));
    queue.slot->next = queue.used;
    cuda_streams.waiting = true;
}

static void add_part(void *to, const void *from, size_t bytes)
{
    assert(queue.slot->parts < PARTS && bytes % 4 == 0);
    queue.slot->part[queue.slot->parts++] = {to, queue.used, (uint32_t)bytes};
    memcpy(group_memory() + queue.used, from, bytes);
    queue.used += align_up(bytes);
    queue.slot->next = queue.used;
}

// Room is left for a step's values.
static void step_upload(void *device_dst, const void *host_src, size_t bytes)
{
    const size_t room = LEAST + align_up(bytes);
    if (bytes % 4 != 0 || HEAD + room > CUDA_GROUP_BYTES) {
        cuda_upload(device_dst, host_src, bytes);
        return;
    }
    const bool full = queue.slot && queue.slot->parts == PARTS - 1;
    if (full || queue.used + room > CUDA_GROUP_BYTES) cuda_run_waiting();
    if (!queue.slot) begin_slot();
    add_part(device_dst, host_src, bytes);
}

// ---- graphs -------------------------------------------------------------------------------------

// `steps` of the same in a row, as a graph to be destroyed.
static cudaError_t chain(cudaGraph_t *graph, cudaGraph_t step, int steps)
{
    cudaGraphNode_t node, before = NULL;
    cudaError_t code = cudaGraphCreate(graph, 0);
    for (int i = 0; i < steps && !code; i++, before = node)
        code = cudaGraphAddChildGraphNode(&node, *graph, &before, i > 0, step);
    return code;
}

// NULL where the driver has no memory for it, or cannot: then steps are launched one by one.
static cudaGraphExec_t graph_of(int variant, int level)
{
    cudaGraphExec_t *const exec = &graphs.exec[variant][level];
    cudaGraph_t graph = NULL;
    if (*exec) return *exec;
    cudaError_t code = chain(&graph, graphs.step[variant], 1 << level);
    if (!code) code = cudaGraphInstantiate(exec, graph, 0);
    if (!code) code = cudaGraphUpload(*exec, cuda_streams.present);
    if (graph) cudaGraphDestroy(graph);
    if (!code) return *exec;
    cudaGetLastError(); // forget it
    if (*exec) cudaGraphExecDestroy(*exec);
    graphs.most = 1;
    return *exec = NULL;
}

// The first of the steps that wait: as many as there is a graph for. Returns their number.
static int launch_first(const int *variants, int count)
{
    int same = 1, level = 0;
    while (same < count && variants[same] == variants[0]) same++;
    while (2 << level <= same && 2 << level <= graphs.most) level++;
    if (level > 0 && !graph_of(variants[0], level)) level = 0;
    CUDA_CHECK(cudaGraphLaunch(graphs.exec[variants[0]][level], cuda_streams.present));
    cuda_launches++;
    return 1 << level;
}

void cuda_run_waiting()
{
    const bool more = queue.slot; // data of a step that has not begun, or makes its calls
    const cudaStream_t stream = cuda_streams.present;
    assert(graphs.mode == PLAIN);
    cuda_streams.waiting = false;
    if (queue.used == 0) return;
    CUDA_CHECK(
        cudaMemcpyAsync(queue.device, group_memory(), queue.used, cudaMemcpyHostToDevice, stream));
    CUDA_CHECK(cudaEventRecord(queue.sent[queue.group % CUDA_GROUPS], stream));
    for (int i = 0; i < queue.count;) i += launch_first(queue.variants + i, queue.count - i);
    if (more) launch_unpack();
    queue.group++;
    queue.used = 0;
    queue.count = 0;
    queue.slot = NULL;
}

void cuda_forget_graphs()
{
    cuda_run_waiting();
    for (int i = 0; i < VARIANTS; i++) {
        for (int level = 0; level < LEVELS; level++) {
            if (graphs.exec[i][level]) CUDA_CHECK(cudaGraphExecDestroy(graphs.exec[i][level]));
            graphs.exec[i][level] = NULL;
        }
        if (graphs.step[i]) CUDA_CHECK(cudaGraphDestroy(graphs.step[i]));
        graphs.step[i] = NULL;
    }
}

bool cuda_capturing()
{
    return graphs.mode == CAPTURING;
}

// ---- steps --------------------------------------------------------------------------------------

static void begin_capture()
{
    cuda_streams.waiting = false; // nothing runs before this step's end
    CUDA_CHECK(cudaStreamBeginCapture(cuda_streams.present, cudaStreamCaptureModeThreadLocal));
    launch_unpack();
}

static void end_capture()
{
    const int i = graphs.variant;
    CUDA_CHECK(cudaStreamEndCapture(cuda_streams.present, &graphs.step[i]));
    CUDA_CHECK(cudaGraphInstantiate(&graphs.exec[i][0], graphs.step[i], 0));
}

static StepMode mode_of(int variant)
{
    if (!graphs.on || variant < 0 || variant >= VARIANTS) return PLAIN;
    const StepMode mode =
        graphs.step[variant] ? REPLAYING : (graphs.seen[variant] ? CAPTURING : PLAIN);
    graphs.seen[variant] = true;
    return mode;
}

static bool step_begin(int variant, const StepValues *values)
{
    const StepMode mode = mode_of(variant);
    StepValues v = *values;
    v.hyper[HYPER_ONE] = 1;
    cuda_second_stream_forget();
    if (!queue.slot) begin_slot();
    add_part((void *)cuda_step, &v, sizeof v);
    if (mode == PLAIN) cuda_run_waiting();
    if (mode == CAPTURING) begin_capture();
    graphs.mode = mode;
    graphs.variant = variant;
    return mode != REPLAYING;
}

static void step_end()
{
    const StepMode mode = graphs.mode;
    graphs.mode = PLAIN;
    if (mode == CAPTURING) end_capture();
    if (mode != PLAIN) {
        queue.slot = NULL;
        queue.variants[queue.count++] = graphs.variant;
        cuda_streams.waiting = true;
        if (cuda_streams.taken || queue.count >= graphs.most) cuda_run_waiting();
    }
    cuda_streams.taken = cuda_collectives_open(); // then no step waits
}

void cuda_graphs_begin(bool use_graphs, int most)
{
    graphs.on = use_graphs;
    graphs.most = most;
    memset(graphs.seen, 0, sizeof graphs.seen);
}

int cuda_graphs_open(unsigned char *host, Error *e)
{
    cudaError_t code = cudaMalloc((void **)&queue.device, CUDA_GROUP_BYTES);
    for (int i = 0; i < CUDA_GROUPS && !code; i++) {
        queue.host[i] = host + i * CUDA_GROUP_BYTES;
        code = cudaEventCreateWithFlags(&queue.sent[i], cudaEventDisableTiming);
    }
    return code ? cuda_fail(e, code, "memory for the values of steps") : STATUS_OK;
}

void cuda_graphs_close()
{
    for (int i = 0; i < CUDA_GROUPS; i++) CUDA_CHECK(cudaEventDestroy(queue.sent[i]));
    CUDA_CHECK(cudaFree(queue.device));
    memset(&queue, 0, sizeof queue);
}

void cuda_graph_ops(Kernels *k)
{
    k->step_upload = step_upload;
    k->step_begin = step_begin;
    k->step_end = step_end;
}
