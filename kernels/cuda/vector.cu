// Vector operations, conversion, addition and dropout. Floor: the bytes of the vectors over the
// memory bandwidth. Not measured yet.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/elements.cuh"
#include "kernels/random.h"

// ---- conversion --------------------------------------------------------------------------------

// A thread has 4 floats.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    from_f32_kernel(T *__restrict__ y, const float *__restrict__ x, int64_t n)
{
    const int64_t i = 4 * thread_index();
    if (i >= n) return;
    float v[4];
    load_up_to<4>(v, x, i, n);
    store_up_to<4>(y, v, i, n);
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    to_f32_kernel(float *__restrict__ y, const T *__restrict__ x, int64_t n)
{
    const int64_t i = 4 * thread_index();
    if (i >= n) return;
    float v[4];
    load_up_to<4>(v, x, i, n);
    store_up_to<4>(y, v, i, n);
}

static void from_f32(void *y, const float *x, int64_t n)
{
    BY_ELEMENT(
        nn_launch(from_f32_kernel<T>, blocks_of(n, 4), THREADS, 0, cuda_stream, (T *)y, x, n));
}

static void to_f32(float *y, const void *x, int64_t n)
{
    BY_ELEMENT(
        nn_launch(to_f32_kernel<T>, blocks_of(n, 4), THREADS, 0, cuda_stream, y, (const T *)x, n));
}

// ---- addition ----------------------------------------------------------------------------------

// In place: y may be a or b, since a thread reads what it writes before it writes.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    add_kernel(T *y, const T *a, const T *b, int64_t n)
{
    constexpr int N = Vec16<T>::N;
    const int64_t i = N * thread_index();
    if (i >= n) return;
    float u[N], v[N];
    load_up_to<N>(u, a, i, n);
    load_up_to<N>(v, b, i, n);
    for (int j = 0; j < N; j++) u[j] += v[j];
    store_up_to<N>(y, u, i, n);
}

static void add(void *y, const void *a, const void *b, int64_t n)
{
    BY_ELEMENT(nn_launch(add_kernel<T>, blocks_of(n, Vec16<T>::N), THREADS, 0, cuda_stream, (T *)y,
                         (const T *)a, (const T *)b, n));
}

// ---- fp32 vectors ------------------------------------------------------------------------------

enum VectorOp { AXPY, SCALE, MULTIPLY, SQRT_DIVIDE, EMA };

// y of a and b (y itself for AXPY and EMA); `factor` is the host's part, hyper[slot] the step's.
template <int OP>
static __global__ void __launch_bounds__(THREADS)
    vector_kernel(float *y, const float *a, const float *b, float factor, int slot,
                  const StepValues *step, int64_t n)
{
    const int64_t i = 4 * thread_index();
    if (i >= n) return;
    const float s = step->hyper[slot];
    float u[4], v[4];
    load_up_to<4>(u, a, i, n);
    if (OP == SCALE)
        for (int j = 0; j < 4; j++) v[j] = 0;
    else
        load_up_to<4>(v, b, i, n);
    for (int j = 0; j < 4; j++) {
        if (OP == AXPY) u[j] = v[j] + factor * s * u[j];
        if (OP == SCALE) u[j] = factor * s * u[j];
        if (OP == MULTIPLY) u[j] = u[j] * v[j];
        if (OP == SQRT_DIVIDE) u[j] = u[j] / (sqrtf(v[j]) + factor);
        if (OP == EMA) u[j] = s * v[j] + (1 - s) * u[j];
    }
    store_up_to<4>(y, u, i, n);
}

template <int OP>
static void vector_op(float *y, const float *a, const float *b, float factor, int slot, int64_t n)
{
    nn_launch(vector_kernel<OP>, blocks_of(n, 4), THREADS, 0, cuda_stream, y, a, b, factor, slot,
              cuda_step, n);
}

static void axpy(float *y, float a, int s, const float *x, int64_t n)
{
    vector_op<AXPY>(y, x, y, a, s, n);
}

static void scale(float *y, float a, int s, const float *x, int64_t n)
{
    vector_op<SCALE>(y, x, x, a, s, n);
}

static void multiply(float *y, const float *a, const float *b, int64_t n)
{
    vector_op<MULTIPLY>(y, a, b, 0, HYPER_ONE, n);
}

static void sqrt_divide(float *y, const float *a, const float *b, float eps, int64_t n)
{
    vector_op<SQRT_DIVIDE>(y, a, b, eps, HYPER_ONE, n);
}

static void ema_update(float *ema, const float *x, int decay_slot, int64_t n)
{
    vector_op<EMA>(ema, x, ema, 0, decay_slot, n);
}

// ---- dot ---------------------------------------------------------------------------------------

enum { DOT_RUN = 16384 }; // elements of a block: the shape of the sum depends on n alone

static __global__ void __launch_bounds__(THREADS)
    dot_kernel(float *partial, const float *a, const float *b, int64_t n)
{
    const int64_t first = (int64_t)blockIdx.x * DOT_RUN;
    const int64_t last = first + DOT_RUN < n ? first + DOT_RUN : n;
    float sum = 0;
    for (int64_t i = first + 4 * threadIdx.x; i < last; i += 4 * THREADS) {
        float u[4], v[4];
        load_up_to<4>(u, a, i, n);
        load_up_to<4>(v, b, i, n);
        for (int j = 0; j < 4; j++) sum += u[j] * v[j];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

static void dot(float *result, const float *a, const float *b, int64_t n)
{
    const int64_t blocks = (n + DOT_RUN - 1) / DOT_RUN;
    float *partial = (float *)cuda_scratch((size_t)blocks * sizeof *partial);
    if (!partial) return;
    nn_launch(dot_kernel, (unsigned)blocks, THREADS, 0, cuda_stream, partial, a, b, n);
    cuda_sum_parts(result, partial, blocks, 1, SET);
}

// ---- dropout -----------------------------------------------------------------------------------

// A thread has the four elements of one counter: element 4*group of sample blockIdx.y.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    dropout_kernel(T *y, const T *x, const uint32_t *ids, float rate, int layer,
                   const StepValues *step, int64_t n, int64_t per_sample)
{
    const int64_t first = 4 * thread_index();
    if (first >= per_sample) return;
    const float kept = 1.0f / (1.0f - rate);
    for (int64_t sample = blockIdx.y; sample < n; sample += gridDim.y) {
        const Philox p =
            draw_dropout(step->seed, step->epoch, ids[sample], layer, (uint32_t)(first / 4));
        const T *from = x + sample * per_sample;
        T *to = y + sample * per_sample;
        if (per_sample % 4 == 0) {
            float v[4];
            load_up_to<4>(v, from, first, per_sample);
#pragma unroll
            for (int j = 0; j < 4; j++) v[j] = philox_unit(p.v[j]) >= rate ? kept * v[j] : 0.0f;
            store_up_to<4>(to, v, first, per_sample);
            continue;
        }
        for (int j = 0; j < 4 && first + j < per_sample; j++)
            to[first + j] = to_element<T>(
                philox_unit(p.v[j]) >= rate ? kept * from_element(from[first + j]) : 0.0f);
    }
}

static void dropout(void *y, const void *x, const uint32_t *ids, float rate, int layer, int64_t n,
                    int64_t per_sample)
{
    const dim3 grid(blocks_of(per_sample, 4), (unsigned)(n < 65535 ? n : 65535));
    BY_ELEMENT(nn_launch(dropout_kernel<T>, grid, THREADS, 0, cuda_stream, (T *)y, (const T *)x,
                         ids, rate, layer, cuda_step, n, per_sample));
}

void cuda_vector_ops(Kernels *k)
{
    k->from_f32 = from_f32;
    k->to_f32 = to_f32;
    k->add = add;
    k->axpy = axpy;
    k->scale = scale;
    k->multiply = multiply;
    k->sqrt_divide = sqrt_divide;
    k->ema_update = ema_update;
    k->dot = dot;
    k->dropout = dropout;
}
