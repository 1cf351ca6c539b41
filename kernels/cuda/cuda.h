// What the files of the CUDA backend share. Everything of CUDA itself comes from common.cuh.
#ifndef KERNELS_CUDA_CUDA_H
#define KERNELS_CUDA_CUDA_H

#include "kernels/cuda/common.cuh"

struct Collectives; // base/comm.h
struct Comm;

// The device that is open.
typedef struct CudaDevice {
    int index;            // cuda:N
    int capability;       // 10 * major + minor: 90
    int processors;       // multiprocessors (SM)
    size_t shared_optin;  // most bytes of shared memory a block may ask for
    size_t memory;        // bytes in all
    ElementType element;  // of activations and working weights
    bool tf32;            // element F32: matrix products may round their inputs to tf32
    bool wgmma;           // NN_WGMMA=1 on sm_90: kernels that no GPU has run yet (*_wgmma.cu)
    bool tensor_cores_ok; // sm_80 or later, and not with NN_TENSOR_CORES=0; the self-check at start
                          // switches single kernels off, by switches of their own
} CudaDevice;
extern CudaDevice cuda_device;

// Where operations put their launches, copies and events; it is never the default stream, and it
// may be capturing a graph: an operation makes no call that waits or allocates. Steps that wait to
// be launched together (graphs.cu) are launched when it is taken, so that all is in order.
typedef struct CudaStreams {
    cudaStream_t present;
    bool waiting; // steps, or data for one
    bool taken;   // since the last step's end
} CudaStreams;
extern CudaStreams cuda_streams;
void cuda_run_waiting(void);

struct OperationsStream {
    operator cudaStream_t() const
    {
        cuda_streams.taken = true;
        if (cuda_streams.waiting) cuda_run_waiting();
        return cuda_streams.present;
    }
};
constexpr OperationsStream cuda_stream = {};

// The values of the step that is running, in device memory: the pointer never changes, the values
// do before each step.
extern const StepValues *cuda_step;

// Scratch memory of one operation, as in kernels/cpu/cpu.h: 256-byte aligned, contents undefined,
// valid until the operation's last launch has run. An operation asks once, before it launches
// anything, and returns at once when the answer is NULL: then the device is being planned, and only
// the size mattered.
void *cuda_scratch(size_t bytes);

// For an operation that needs none: true while the device is being planned, when it must return.
bool cuda_planning(void);

// A second stream for operations that need not wait for all that was called before them
// (second_stream.cu). Between begin and end, cuda_stream is that one, and has scratch memory of its
// own. What is called after end comes after both.
void cuda_second_stream_begin(void);
// What follows on the branch needs only what was called before update_may_begin(grad), or, where
// that was not called, before cuda_second_stream_begin().
void cuda_second_stream_wait(const float *grad);
bool cuda_second_stream_knows(const float *grad); // whether it was called in this step
void cuda_second_stream_end(void);
void cuda_second_stream_forget(void); // what was called; also done by cuda_second_stream_end()
void cuda_use_branch_scratch(bool on);

// Sums over several processes (nccl.cu): Kernels.open_collectives. While they are open, the host
// waits for the device by asking again and again, and calls the check in between: it ends the
// process with STATUS_FAILED where another process's part will not come.
int cuda_open_collectives(const Collectives **c, const Comm *comm, Error *e);
bool cuda_collectives_open(void);
void cuda_collectives_check(void);

// Steps (graphs.cu). Groups of their values and data are sent from pinned memory, `host`
// (CUDA_GROUPS * CUDA_GROUP_BYTES), in turn.
enum { CUDA_GROUPS = 5, CUDA_GROUP_BYTES = 160 << 10 };
enum { CUDA_GRAPH_STEPS = 16 }; // by one launch, at most
int cuda_graphs_open(unsigned char *host, Error *e);
void cuda_graphs_begin(bool use_graphs, int most); // most: steps by one launch, at most
void cuda_graphs_close(void);
void cuda_forget_graphs(void); // captured steps, which are then captured again
bool cuda_capturing(void);

// Transfers (cuda.cu).
void cuda_upload(void *device_dst, const void *host_src, size_t bytes); // Kernels.upload
void cuda_wait_event(cudaEvent_t event);

// Runs the statements with T = the element type: BY_ELEMENT(nn_launch(kernel<T>, ...));
#define BY_ELEMENT(...)                                                                            \
    do {                                                                                           \
        if (cuda_device.element == BF16) {                                                         \
            typedef bf16 T;                                                                        \
            __VA_ARGS__;                                                                           \
        } else {                                                                                   \
            typedef float T;                                                                       \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)

// Each file puts its operations into the table.
void cuda_gather_ops(Kernels *k);        // gather.cu
void cuda_linear_ops(Kernels *k);        // linear.cu
void cuda_conv2d_ops(Kernels *k);        // conv2d*.cu
void cuda_activation_ops(Kernels *k);    // activation.cu
void cuda_norm_ops(Kernels *k);          // norm.cu
void cuda_pool_ops(Kernels *k);          // pool.cu
void cuda_loss_ops(Kernels *k);          // loss.cu
void cuda_optimizer_ops(Kernels *k);     // optimizer.cu
void cuda_muon_ops(Kernels *k);          // muon.cu
void cuda_vector_ops(Kernels *k);        // vector.cu
void cuda_bench_ops(Kernels *k);         // bench.cu
void cuda_timer_ops(Kernels *k);         // timer.cu
void cuda_second_stream_ops(Kernels *k); // second_stream.cu
void cuda_graph_ops(Kernels *k);         // graphs.cu

// Called once by open, after the table is complete: compares the tensor-core kernels with the plain
// ones on small ragged inputs in under 0.1 s. On a mismatch it clears the kernel's switch and
// writes one line; else the line stays empty.
void cuda_matmul_self_check(const Kernels *k, char line[256]);
void cuda_timer_close(void);
int cuda_second_stream_open(Error *e);
void cuda_second_stream_close(void);
void cuda_linear_close(void); // releases what linear.cu holds: handle, workspace, plans

// Merges of partial results in a fixed order, for the epilogues of several files (reduce.cu).
// stats (3,channels): count, mean, M2 from partial (tiles,3,channels) by Chan's formula, set.
void cuda_merge_stats(float *stats, const float *partial, int64_t tiles, int channels);
// sum (n) = partial (parts,n) summed over parts; SET or ADD.
void cuda_sum_parts(float *sum, const float *partial, int64_t parts, int64_t n, GradMode mode);

#endif
