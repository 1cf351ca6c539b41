// Optimizers: one launch for a list of parameters. Floor: the bytes of parameters, gradients and
// state over the memory bandwidth. Not measured yet. Muon is in muon.cu.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/elements.cuh"

// A list of tensors as a kernel's argument, which is at most 4 KB; longer lists take more launches.
// A block has RUN elements of one tensor.
enum { RUN = 2048, LIST = 60 };

struct ListEntry {
    void *value;
    float *master, *grad, *state1, *state2;
    int64_t n;
    int lr;
    float decay;
    int first_block;
};

struct List {
    int count, blocks;
    ListEntry entry[LIST];
};

static int runs_of(int64_t n)
{
    return (int)((n + RUN - 1) / RUN);
}

// The first tensors of p (count), as many as fit.
static List list_of(const Param *p, int count)
{
    List list;
    list.count = count < LIST ? count : LIST;
    list.blocks = 0;
    for (int i = 0; i < list.count; i++) {
        list.entry[i] = {p[i].value, p[i].master, p[i].grad,  p[i].state1, p[i].state2,
                         p[i].n,     p[i].lr,     p[i].decay, list.blocks};
        list.blocks += runs_of(p[i].n);
    }
    return list;
}

// The entry that a block works on, and its elements first .. last - 1.
__device__ __forceinline__ int find_run(const List &list, int64_t *first, int64_t *last)
{
    int i = 0;
    while (i + 1 < list.count && (int)blockIdx.x >= list.entry[i + 1].first_block) i++;
    *first = (int64_t)((int)blockIdx.x - list.entry[i].first_block) * RUN;
    *last = *first + RUN < list.entry[i].n ? *first + RUN : list.entry[i].n;
    return i;
}

// ---- SGD ---------------------------------------------------------------------------------------

template <class T>
static __global__ void __launch_bounds__(THREADS)
    sgd_kernel(const __grid_constant__ List list, Sgd c, const StepValues *step)
{
    int64_t first, last;
    const ListEntry &p = list.entry[find_run(list, &first, &last)];
    const float lr = step->hyper[p.lr];
    const float on_g = c.nesterov ? 1.0f : 0.0f, on_v = c.nesterov ? c.momentum : 1.0f;
    for (int64_t i = first + 4 * threadIdx.x; i < last; i += 4 * THREADS) {
        float w[4], g[4], v[4];
        load_up_to<4>(w, p.master, i, p.n);
        load_up_to<4>(g, p.grad, i, p.n);
        load_up_to<4>(v, p.state1, i, p.n);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            g[j] += p.decay * w[j];
            v[j] = c.momentum * v[j] + g[j];
            w[j] -= lr * (on_g * g[j] + on_v * v[j]);
        }
        store_up_to<4>(p.state1, v, i, p.n);
        store_up_to<4>(p.master, w, i, p.n);
        if (p.value) store_up_to<4>((T *)p.value, w, i, p.n);
    }
}

static void sgd_update(const Param *p, int count, Sgd c)
{
    for (int done = 0; done < count; done += LIST) {
        const List list = list_of(p + done, count - done);
        BY_ELEMENT(nn_launch(sgd_kernel<T>, (unsigned)list.blocks, THREADS, 0, cuda_stream, list, c,
                             cuda_step));
    }
}

// ---- AdamW -------------------------------------------------------------------------------------

// 1 / (1 - beta^t), without the digits that 1 - beta^t loses where beta^t is near 1.
__device__ __forceinline__ float bias_correction(float beta, float t)
{
    return -1.0f / expm1f(t * logf(beta));
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    adamw_kernel(const __grid_constant__ List list, AdamW c, const StepValues *step)
{
    int64_t first, last;
    const ListEntry &p = list.entry[find_run(list, &first, &last)];
    const float lr = step->hyper[p.lr], shrink = lr * p.decay, t = (float)step->step + 1.0f;
    const float correction1 = bias_correction(c.beta1, t),
                correction2 = bias_correction(c.beta2, t);
    for (int64_t i = first + 4 * threadIdx.x; i < last; i += 4 * THREADS) {
        float w[4], g[4], m[4], v[4];
        load_up_to<4>(w, p.master, i, p.n);
        load_up_to<4>(g, p.grad, i, p.n);
        load_up_to<4>(m, p.state1, i, p.n);
        load_up_to<4>(v, p.state2, i, p.n);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            m[j] = c.beta1 * m[j] + (1 - c.beta1) * g[j];
            v[j] = c.beta2 * v[j] + (1 - c.beta2) * (g[j] * g[j]);
            const float direction = m[j] * correction1 / (sqrtf(v[j] * correction2) + c.eps);
            w[j] = w[j] - shrink * w[j] - lr * direction;
        }
        store_up_to<4>(p.state1, m, i, p.n);
        store_up_to<4>(p.state2, v, i, p.n);
        store_up_to<4>(p.master, w, i, p.n);
        if (p.value) store_up_to<4>((T *)p.value, w, i, p.n);
    }
}

static void adamw_update(const Param *p, int count, AdamW c)
{
    for (int done = 0; done < count; done += LIST) {
        const List list = list_of(p + done, count - done);
        BY_ELEMENT(nn_launch(adamw_kernel<T>, (unsigned)list.blocks, THREADS, 0, cuda_stream, list,
                             c, cuda_step));
    }
}

// ---- clipping ----------------------------------------------------------------------------------

// partial (blocks): the sum of squares of a block's gradients.
static __global__ void __launch_bounds__(THREADS)
    squares_kernel(float *partial, const __grid_constant__ List list)
{
    int64_t first, last;
    const ListEntry &p = list.entry[find_run(list, &first, &last)];
    float sum = 0;
    for (int64_t i = first + 4 * threadIdx.x; i < last; i += 4 * THREADS) {
        float g[4];
        load_up_to<4>(g, p.grad, i, p.n);
#pragma unroll
        for (int j = 0; j < 4; j++) sum += g[j] * g[j];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// root (1) = sqrt of the sum of partial (n); one block.
static __global__ void __launch_bounds__(THREADS)
    root_kernel(float *root, const float *partial, int n)
{
    float sum = 0;
    for (int i = (int)threadIdx.x; i < n; i += THREADS) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *root = sqrtf(sum);
}

static __global__ void __launch_bounds__(THREADS)
    clip_kernel(const float *norm, float max_norm, const __grid_constant__ List list)
{
    int64_t first, last;
    const ListEntry &p = list.entry[find_run(list, &first, &last)];
    if (!(*norm > max_norm)) return;
    const float factor = max_norm / *norm;
    for (int64_t i = first + 4 * threadIdx.x; i < last; i += 4 * THREADS) {
        float g[4];
        load_up_to<4>(g, p.grad, i, p.n);
#pragma unroll
        for (int j = 0; j < 4; j++) g[j] *= factor;
        store_up_to<4>(p.grad, g, i, p.n);
    }
}

static void clip_gradients(float *norm, const Param *p, int count, float max_norm)
{
    int blocks = 0, first = 0;
    for (int i = 0; i < count; i++) blocks += runs_of(p[i].n);
    float *partial = (float *)cuda_scratch((size_t)blocks * sizeof *partial);
    if (!partial) return;
    cuda_second_stream_forget(); // an update needs the scaled gradients
    for (int done = 0; done < count; done += LIST) {
        const List list = list_of(p + done, count - done);
        nn_launch(squares_kernel, (unsigned)list.blocks, THREADS, 0, cuda_stream, partial + first,
                  list);
        first += list.blocks;
    }
    nn_launch(root_kernel, 1u, THREADS, 0, cuda_stream, norm, partial, blocks);
    for (int done = 0; done < count; done += LIST) {
        const List list = list_of(p + done, count - done);
        nn_launch(clip_kernel, (unsigned)list.blocks, THREADS, 0, cuda_stream, norm, max_norm,
                  list);
    }
}

void cuda_optimizer_ops(Kernels *k)
{
    k->sgd_update = sgd_update;
    k->adamw_update = adamw_update;
    k->clip_gradients = clip_gradients;
}
