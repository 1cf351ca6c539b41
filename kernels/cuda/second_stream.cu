// A second stream, for operations that need not wait for all that was called before them: Muon's
// work on a layer begins where the backward pass has left that layer, beside the rest of it.
//
// It is forked from the operations' stream and joined with it by events, also in a captured step,
// whose graph then has a parallel branch.
#include "kernels/cuda/cuda.h"

enum { KNOWN_MAX = 256 };

static struct {
    cudaStream_t stream, main;
    cudaEvent_t forked, joined;
    struct {
        const float *grad;
        cudaEvent_t left; // by all but the update
    } known[KNOWN_MAX];
    int count, made; // events are made once and used again
} branch;

static int find(const float *grad)
{
    for (int i = 0; i < branch.count; i++)
        if (branch.known[i].grad == grad) return i;
    return -1;
}

// What does not fit is updated at the end.
static void update_may_begin(const float *grad)
{
    int i = find(grad);
    if (i < 0) {
        if (branch.count == KNOWN_MAX) return;
        i = branch.count++;
        branch.known[i].grad = grad;
    }
    if (i == branch.made)
        CUDA_CHECK(
            cudaEventCreateWithFlags(&branch.known[branch.made++].left, cudaEventDisableTiming));
    CUDA_CHECK(cudaEventRecord(branch.known[i].left, cuda_stream));
}

bool cuda_second_stream_knows(const float *grad)
{
    return find(grad) >= 0;
}

void cuda_second_stream_forget()
{
    branch.count = 0;
}

void cuda_second_stream_begin()
{
    cuda_use_branch_scratch(true);
    if (cuda_planning()) return;
    CUDA_CHECK(cudaEventRecord(branch.forked, cuda_stream));
    branch.main = cuda_stream;
    cuda_streams.present = branch.stream;
}

void cuda_second_stream_wait(const float *grad)
{
    if (cuda_planning()) return;
    const int i = find(grad);
    CUDA_CHECK(cudaStreamWaitEvent(branch.stream, i < 0 ? branch.forked : branch.known[i].left, 0));
}

void cuda_second_stream_end()
{
    cuda_use_branch_scratch(false);
    if (cuda_planning()) return;
    cuda_streams.present = branch.main;
    CUDA_CHECK(cudaEventRecord(branch.joined, branch.stream));
    CUDA_CHECK(cudaStreamWaitEvent(cuda_stream, branch.joined, 0));
    cuda_second_stream_forget();
}

int cuda_second_stream_open(Error *e)
{
    cudaError_t code = cudaStreamCreateWithFlags(&branch.stream, cudaStreamNonBlocking);
    if (!code) code = cudaEventCreateWithFlags(&branch.forked, cudaEventDisableTiming);
    if (!code) code = cudaEventCreateWithFlags(&branch.joined, cudaEventDisableTiming);
    return code ? cuda_fail(e, code, "a second stream") : STATUS_OK;
}

void cuda_second_stream_close()
{
    while (branch.made > 0) CUDA_CHECK(cudaEventDestroy(branch.known[--branch.made].left));
    CUDA_CHECK(cudaEventDestroy(branch.forked));
    CUDA_CHECK(cudaEventDestroy(branch.joined));
    CUDA_CHECK(cudaStreamDestroy(branch.stream));
    cuda_second_stream_forget();
}

void cuda_second_stream_ops(Kernels *k)
{
    k->update_may_begin = update_may_begin;
}
