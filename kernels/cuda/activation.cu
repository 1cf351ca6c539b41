// Activations, and the gradient through an activation and a bias. Floor: the bytes of the maps over
// the memory bandwidth. Not measured yet.
#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/map.cuh"

// A thread has 16 bytes; it reads them before it writes, so y may be x.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    forward_kernel(T *y, const T *x, Activation act, int64_t n)
{
    constexpr int N = Vec16<T>::N;
    const int64_t i = N * thread_index();
    if (i >= n) return;
    float v[N];
    load_up_to<N>(v, x, i, n);
#pragma unroll
    for (int j = 0; j < N; j++) v[j] = nn_act(act, v[j]);
    store_up_to<N>(y, v, i, n);
}

static void activation_forward(void *y, const void *x, Activation act, int64_t n)
{
    BY_ELEMENT(nn_launch(forward_kernel<T>, blocks_of(n, Vec16<T>::N), THREADS, 0, cuda_stream,
                         (T *)y, (const T *)x, act, n));
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    backward_kernel(T *dx, const T *dy, const T *saved, Activation act, int64_t n)
{
    constexpr int N = Vec16<T>::N;
    const int64_t i = N * thread_index();
    if (i >= n) return;
    float g[N], s[N];
    load_up_to<N>(g, dy, i, n);
    if (act != ACT_NONE) {
        load_up_to<N>(s, saved, i, n);
#pragma unroll
        for (int j = 0; j < N; j++) g[j] *= nn_act_grad(act, s[j]);
    }
    store_up_to<N>(dx, g, i, n);
}

static void activation_backward(void *dx, const void *dy, const void *saved, Activation act,
                                int64_t n)
{
    BY_ELEMENT(nn_launch(backward_kernel<T>, blocks_of(n, Vec16<T>::N), THREADS, 0, cuda_stream,
                         (T *)dx, (const T *)dy, (const T *)saved, act, n));
}

// dz (NULL: not stored) and, a block, the sums over its rows: sums (runs,channels), set or added
// to.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    bias_backward_kernel(T *dz, float *sums, const T *dy, const T *saved, Activation act, bool add,
                         Map m)
{
    constexpr int N = Vec16<T>::N;
    const MapPlace p = map_place(m);
    float total[N] = {};
    for (int64_t row = p.row; row < p.end; row += m.height) {
        float g[N], s[N];
        map_load<N>(g, dy, m, p.channel, row);
        if (act != ACT_NONE) {
            map_load<N>(s, saved, m, p.channel, row);
#pragma unroll
            for (int j = 0; j < N; j++) g[j] *= nn_act_grad(act, s[j]);
        }
#pragma unroll
        for (int j = 0; j < N; j++) total[j] += g[j];
        if (dz) map_store<N>(dz, g, m, p.channel, row);
    }
    map_sum_lines<N>(total, m, p);
    if (p.line > 0 || p.channel >= m.channels) return;
    float *to = sums + (int64_t)blockIdx.x * m.channels + p.channel;
#pragma unroll
    for (int j = 0; j < N; j++) total[j] += add && j < m.each ? to[j] : 0.0f;
    map_set<N>(to, total, m);
}

template <class T>
static void bias_backward(T *dz, float *dbias, const T *dy, const T *saved, Activation act,
                          GradMode mode, MapDims d)
{
    const Map m = map_of<T>(d);
    float *partial = (float *)cuda_scratch((size_t)(m.runs * m.channels) * sizeof *partial);
    if (!partial) return;
    const bool whole = m.runs == 1; // then there is nothing to merge
    nn_launch(bias_backward_kernel<T>, map_grid(m), THREADS, 0, cuda_stream, dz,
              whole ? dbias : partial, dy, saved, act, whole && mode == ADD, m);
    if (!whole) cuda_sum_parts(dbias, partial, m.runs, m.channels, mode);
}

static void bias_act_backward(void *dz, float *dbias, const void *dy, const void *saved,
                              Activation act, GradMode mode, MapDims d)
{
    BY_ELEMENT(bias_backward<T>((T *)dz, dbias, (const T *)dy, (const T *)saved, act, mode, d));
}

void cuda_activation_ops(Kernels *k)
{
    k->activation_forward = activation_forward;
    k->activation_backward = activation_backward;
    k->bias_act_backward = bias_act_backward;
}
