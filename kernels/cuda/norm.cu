// Batch norm over the rows of a map, with the activation that follows. Floor: the bytes of the maps
// over the memory bandwidth; each operation passes over them once. Not measured yet.
#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/map.cuh"
#include "kernels/cuda/stats.cuh"

// ---- statistics --------------------------------------------------------------------------------

// Sums of the differences to the thread's own first value, which stats_of_sums() turns into a mean
// and an M2 that a large mean does not spoil; then merged over the block's rows of threads.
template <class T>
static __global__ void __launch_bounds__(THREADS) stats_kernel(float *partial, const T *x, Map m)
{
    constexpr int N = Vec16<T>::N;
    NN_SHARED(Stats, lines, [N][THREADS]);
    const MapPlace p = map_place(m);
    float shift[N] = {}, sum[N] = {}, squares[N] = {};
    if (p.row < p.end) map_load<N>(shift, x, m, p.channel, p.row);
    float count = 0;
    for (int64_t row = p.row; row < p.end; row += m.height) {
        float v[N];
        map_load<N>(v, x, m, p.channel, row);
#pragma unroll
        for (int j = 0; j < N; j++) {
            const float off = v[j] - shift[j];
            sum[j] += off;
            squares[j] += off * off;
        }
        count++;
    }
#pragma unroll
    for (int j = 0; j < N; j++)
        lines[j][threadIdx.x] = stats_of_sums(count, shift[j], sum[j], squares[j]);
    for (int left = m.height; left > 1;) {
        const int half = (left + 1) / 2;
        __syncthreads();
        if (p.line + half < left)
            for (int j = 0; j < m.each; j++)
                stats_merge(&lines[j][threadIdx.x], lines[j][threadIdx.x + half * m.width]);
        left = half;
    }
    if (p.line > 0 || p.channel >= m.channels) return;
    float *to = partial + (int64_t)blockIdx.x * 3 * m.channels + p.channel;
    for (int j = 0; j < m.each; j++) {
        to[j] = lines[j][threadIdx.x].count;
        to[m.channels + j] = lines[j][threadIdx.x].mean;
        to[2 * m.channels + j] = lines[j][threadIdx.x].m2;
    }
}

template <class T> static void stats_of(float *stats, const T *x, MapDims d)
{
    const Map m = map_of<T>(d);
    float *partial = (float *)cuda_scratch((size_t)(m.runs * 3 * m.channels) * sizeof *partial);
    if (!partial) return;
    const bool whole = m.runs == 1;
    nn_launch(stats_kernel<T>, map_grid(m), THREADS, 0, cuda_stream, whole ? stats : partial, x, m);
    if (!whole) cuda_merge_stats(stats, partial, m.runs, m.channels);
}

static void norm_stats(float *stats, const void *x, MapDims d)
{
    BY_ELEMENT(stats_of<T>(stats, (const T *)x, d));
}

static void norm_merge(float *stats, const float *all, int parts, int channels)
{
    cuda_merge_stats(stats, all, parts, channels);
}

// ---- what belongs to a channel -----------------------------------------------------------------

// z = (x - mean) * scale + bias. The mean is not folded into the bias: with a small sigma their
// difference would lose all digits.
template <int N> struct Affine {
    float mean[N], scale[N], bias[N];
    float inverse_sigma[N];
};

template <int N>
__device__ __forceinline__ void affine_of(Affine<N> &a, const Norm &n, const float *mean,
                                          const float (&variance)[N], const Map &m, int channel)
{
    map_channels<N>(a.mean, mean, m, channel, 0.0f);
    map_channels<N>(a.scale, n.weight, m, channel, 1.0f);
    map_channels<N>(a.bias, n.bias, m, channel, 0.0f);
#pragma unroll
    for (int j = 0; j < N; j++) {
        a.inverse_sigma[j] = 1.0f / sqrtf(variance[j] + n.eps);
        a.scale[j] *= a.inverse_sigma[j];
    }
}

// By the statistics of the batch; count gets that of the first channel, which all have.
template <int N>
__device__ __forceinline__ void batch_affine(Affine<N> &a, float (&m2)[N], float *count,
                                             const Norm &n, const Map &m, int channel)
{
    float variance[N];
    *count = n.stats[0];
    map_channels<N>(m2, n.stats + 2 * m.channels, m, channel, 1.0f);
#pragma unroll
    for (int j = 0; j < N; j++) variance[j] = m2[j] / *count;
    affine_of<N>(a, n, n.stats + m.channels, variance, m, channel);
}

// ---- forward -----------------------------------------------------------------------------------

template <int N>
__device__ __forceinline__ void move_running(const Norm &n, const Affine<N> &a,
                                             const float (&m2)[N], float count, int each,
                                             int channel)
{
#pragma unroll
    for (int j = 0; j < N; j++) {
        if (j >= each) break;
        float *mean = n.running_mean + channel + j, *variance = n.running_var + channel + j;
        const float unbiased = m2[j] / (count > 1 ? count - 1 : 1.0f);
        *mean = (1 - n.momentum) * *mean + n.momentum * a.mean[j];
        *variance = (1 - n.momentum) * *variance + n.momentum * unbiased;
    }
}

// A thread reads what it writes before it writes: y may be x.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    forward_kernel(T *y, Norm n, const T *x, Activation act, bool inference, Map m)
{
    constexpr int N = Vec16<T>::N;
    const MapPlace p = map_place(m);
    if (p.row >= p.end) return;
    Affine<N> a;
    if (inference) {
        float variance[N];
        map_channels<N>(variance, n.running_var, m, p.channel, 1.0f);
        affine_of<N>(a, n, n.running_mean, variance, m, p.channel);
    } else {
        float m2[N], count;
        batch_affine<N>(a, m2, &count, n, m, p.channel);
        if (blockIdx.x == 0 && p.line == 0) move_running<N>(n, a, m2, count, m.each, p.channel);
    }
    for (int64_t row = p.row; row < p.end; row += m.height) {
        float v[N];
        map_load<N>(v, x, m, p.channel, row);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] = nn_act(act, (v[j] - a.mean[j]) * a.scale[j] + a.bias[j]);
        map_store<N>(y, v, m, p.channel, row);
    }
}

template <class T>
static void forward(T *y, const Norm *n, const T *x, Activation act, bool inference, MapDims d)
{
    const Map m = map_of<T>(d);
    nn_launch(forward_kernel<T>, map_grid(m), THREADS, 0, cuda_stream, y, *n, x, act, inference, m);
}

static void norm_act_forward(void *y, const Norm *n, const void *x, Activation act, MapDims d)
{
    if (!cuda_planning()) BY_ELEMENT(forward<T>((T *)y, n, (const T *)x, act, false, d));
}

static void norm_act_inference(void *y, const Norm *n, const void *x, Activation act, MapDims d)
{
    if (!cuda_planning()) BY_ELEMENT(forward<T>((T *)y, n, (const T *)x, act, true, d));
}

// ---- backward ----------------------------------------------------------------------------------

// xhat and dz = dy * act'(z), z recomputed, of one value.
template <int N>
__device__ __forceinline__ float dz_of(float *xhat, const Affine<N> &a, int j, float dy, float x,
                                       Activation act)
{
    const float centred = x - a.mean[j];
    *xhat = centred * a.inverse_sigma[j];
    return act == ACT_NONE ? dy : dy * nn_act_grad(act, centred * a.scale[j] + a.bias[j]);
}

// sums (runs,2,channels) of dz and dz * xhat over a block's rows, set.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    backward_sums_kernel(float *sums, Norm n, const T *dy, const T *x, Activation act, Map m)
{
    constexpr int N = Vec16<T>::N;
    const MapPlace p = map_place(m);
    Affine<N> a;
    float m2[N], count, sum_dz[N] = {}, sum_dz_xhat[N] = {};
    batch_affine<N>(a, m2, &count, n, m, p.channel);
    for (int64_t row = p.row; row < p.end; row += m.height) {
        float g[N], v[N];
        map_load<N>(g, dy, m, p.channel, row);
        map_load<N>(v, x, m, p.channel, row);
#pragma unroll
        for (int j = 0; j < N; j++) {
            float xhat;
            const float dz = dz_of<N>(&xhat, a, j, g[j], v[j], act);
            sum_dz[j] += dz;
            sum_dz_xhat[j] += dz * xhat;
        }
    }
    map_sum_lines<N>(sum_dz, m, p);
    map_sum_lines<N>(sum_dz_xhat, m, p);
    if (p.line > 0 || p.channel >= m.channels) return;
    float *to = sums + (int64_t)blockIdx.x * 2 * m.channels + p.channel;
    map_set<N>(to, sum_dz, m);
    map_set<N>(to + m.channels, sum_dz_xhat, m);
}

template <class T>
static void backward_sums(const Norm *n, const T *dy, const T *x, Activation act, MapDims d)
{
    const Map m = map_of<T>(d);
    float *partial = (float *)cuda_scratch((size_t)(m.runs * 2 * m.channels) * sizeof *partial);
    if (!partial) return;
    const bool whole = m.runs == 1;
    nn_launch(backward_sums_kernel<T>, map_grid(m), THREADS, 0, cuda_stream,
              whole ? n->sums : partial, *n, dy, x, act, m);
    if (!whole) cuda_sum_parts(n->sums, partial, m.runs, 2 * (int64_t)m.channels, SET);
}

static void norm_act_backward_sums(const Norm *n, const void *dy, const void *x, Activation act,
                                   MapDims d)
{
    BY_ELEMENT(backward_sums<T>(n, (const T *)dy, (const T *)x, act, d));
}

__device__ __forceinline__ void parameter_gradients(const Norm &n, bool add, int channels, int c)
{
    n.dbias[c] = n.sums[c] + (add ? n.dbias[c] : 0.0f);
    if (n.dweight) n.dweight[c] = n.sums[channels + c] + (add ? n.dweight[c] : 0.0f);
}

// A thread reads what it writes before it writes: dx may be dy.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    backward_kernel(T *dx, Norm n, const T *dy, const T *x, Activation act, bool add, Map m)
{
    constexpr int N = Vec16<T>::N;
    const MapPlace p = map_place(m);
    if (p.row >= p.end) return;
    Affine<N> a;
    float m2[N], count, mean_dz[N], mean_dz_xhat[N];
    batch_affine<N>(a, m2, &count, n, m, p.channel);
    map_channels<N>(mean_dz, n.sums, m, p.channel, 0.0f);
    map_channels<N>(mean_dz_xhat, n.sums + m.channels, m, p.channel, 0.0f);
#pragma unroll
    for (int j = 0; j < N; j++) {
        mean_dz[j] /= count;
        mean_dz_xhat[j] /= count;
    }
    if (blockIdx.x == 0 && p.line == 0)
        for (int j = 0; j < m.each; j++) parameter_gradients(n, add, m.channels, p.channel + j);
    for (int64_t row = p.row; row < p.end; row += m.height) {
        float g[N], v[N];
        map_load<N>(g, dy, m, p.channel, row);
        map_load<N>(v, x, m, p.channel, row);
#pragma unroll
        for (int j = 0; j < N; j++) {
            float xhat;
            const float dz = dz_of<N>(&xhat, a, j, g[j], v[j], act);
            g[j] = (dz - mean_dz[j] - xhat * mean_dz_xhat[j]) * a.scale[j];
        }
        map_store<N>(dx, g, m, p.channel, row);
    }
}

template <class T>
static void backward(T *dx, const Norm *n, const T *dy, const T *x, Activation act, GradMode mode,
                     MapDims d)
{
    const Map m = map_of<T>(d);
    nn_launch(backward_kernel<T>, map_grid(m), THREADS, 0, cuda_stream, dx, *n, dy, x, act,
              mode == ADD, m);
}

static void norm_act_backward(void *dx, const Norm *n, const void *dy, const void *x,
                              Activation act, GradMode mode, MapDims d)
{
    if (!cuda_planning())
        BY_ELEMENT(backward<T>((T *)dx, n, (const T *)dy, (const T *)x, act, mode, d));
}

void cuda_norm_ops(Kernels *k)
{
    k->norm_stats = norm_stats;
    k->norm_merge = norm_merge;
    k->norm_act_forward = norm_act_forward;
    k->norm_act_inference = norm_act_inference;
    k->norm_act_backward_sums = norm_act_backward_sums;
    k->norm_act_backward = norm_act_backward;
}
