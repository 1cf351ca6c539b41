// Pooling, NHWC. Floor: the bytes of the maps over the memory bandwidth. Not measured yet.
//
// A thread has one place of the map it writes, and 16 bytes of channels there (one channel where
// they do not divide by that). Backward is a gather as well: a place of dx reads the windows that
// hold it, in their order, so nothing is added to by two threads.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/elements.cuh"

struct Pool {
    PoolDims d;
    int oh, ow;
    int each;    // channels of a thread
    float share; // of an average: 1 / places of a window
};

template <class T> static Pool pool_of(PoolDims d)
{
    Pool p;
    p.d = d;
    p.oh = conv_out(d.h, d.kernel_h, d.stride, 0);
    p.ow = conv_out(d.w, d.kernel_w, d.stride, 0);
    p.each = d.c % Vec16<T>::N == 0 ? Vec16<T>::N : 1;
    p.share = 1.0f / (float)(d.kernel_h * d.kernel_w);
    return p;
}

// Threads for all places and channels of (n,h,w), at most 2^32: a division of 64 bits costs five of
// 32, so threads are counted in these.
static unsigned pool_blocks(const Pool &p, int h, int w)
{
    const int64_t threads = p.d.n * h * w * (p.d.c / p.each);
    assert(threads <= UINT32_MAX - THREADS);
    return blocks_of(threads, 1);
}

struct PoolPlace {
    int64_t n;
    int y, x, channel;
};

// Of this thread in a map with h rows of w places; n is past the end for threads without work.
__device__ __forceinline__ PoolPlace pool_place(const Pool &p, int h, int w)
{
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned columns = (unsigned)(p.d.c / p.each), place = i / columns;
    const unsigned row = place / (unsigned)w;
    PoolPlace r;
    r.channel = (int)(i - place * columns) * p.each;
    r.x = (int)(place - row * (unsigned)w);
    r.y = (int)(row % (unsigned)h);
    r.n = row / (unsigned)h;
    return r;
}

// Where a place starts in a map with h rows of w places.
__device__ __forceinline__ int64_t pool_offset(const Pool &p, int64_t n, int h, int w, int y, int x,
                                               int channel)
{
    return ((n * h + y) * w + x) * p.d.c + channel;
}

template <int N, class T>
__device__ __forceinline__ void pool_load(float (&v)[N], const T *p, int each)
{
    if (each == N)
        load_up_to<N>(v, p, 0, N);
    else
        load_up_to<N>(v, p, 0, 1);
}

template <int N, class T>
__device__ __forceinline__ void pool_store(T *p, const float (&v)[N], int each)
{
    if (each == N)
        store_up_to<N>(p, v, 0, N);
    else
        store_up_to<N>(p, v, 0, 1);
}

// ---- forward -----------------------------------------------------------------------------------

// A NaN is the largest of all, so that it is seen further on.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    maxpool_kernel(T *y, uint8_t *argmax, const T *x, Pool p)
{
    constexpr int N = Vec16<T>::N;
    const PoolPlace at = pool_place(p, p.oh, p.ow);
    if (at.n >= p.d.n) return;
    float largest[N], v[N];
    Elements<uint8_t, N> place = {};
    for (int row = 0; row < p.d.kernel_h; row++)
        for (int column = 0; column < p.d.kernel_w; column++) {
            const int64_t from = pool_offset(p, at.n, p.d.h, p.d.w, at.y * p.d.stride + row,
                                             at.x * p.d.stride + column, at.channel);
            pool_load<N>(v, x + from, p.each);
#pragma unroll
            for (int j = 0; j < N; j++) {
                const bool first = row == 0 && column == 0;
                if (!first && !((v[j] > largest[j] || v[j] != v[j]) && largest[j] == largest[j]))
                    continue;
                largest[j] = v[j];
                place.v[j] = (uint8_t)(row * p.d.kernel_w + column);
            }
        }
    const int64_t to = pool_offset(p, at.n, p.oh, p.ow, at.y, at.x, at.channel);
    pool_store<N>(y + to, largest, p.each);
    if (p.each == N)
        *reinterpret_cast<Elements<uint8_t, N> *>(argmax + to) = place;
    else
        argmax[to] = place.v[0];
}

template <class T>
static __global__ void __launch_bounds__(THREADS) avgpool_kernel(T *y, const T *x, Pool p)
{
    constexpr int N = Vec16<T>::N;
    const PoolPlace at = pool_place(p, p.oh, p.ow);
    if (at.n >= p.d.n) return;
    float sum[N] = {}, v[N];
    for (int row = 0; row < p.d.kernel_h; row++)
        for (int column = 0; column < p.d.kernel_w; column++) {
            const int64_t from = pool_offset(p, at.n, p.d.h, p.d.w, at.y * p.d.stride + row,
                                             at.x * p.d.stride + column, at.channel);
            pool_load<N>(v, x + from, p.each);
#pragma unroll
            for (int j = 0; j < N; j++) sum[j] += v[j];
        }
#pragma unroll
    for (int j = 0; j < N; j++) sum[j] *= p.share;
    pool_store<N>(y + pool_offset(p, at.n, p.oh, p.ow, at.y, at.x, at.channel), sum, p.each);
}

// ---- backward ----------------------------------------------------------------------------------

// The windows first .. last along one side that hold place i.
__device__ __forceinline__ void windows_of(int *first, int *last, int i, int kernel, int stride,
                                           int windows)
{
    *first = i < kernel ? 0 : (i - kernel) / stride + 1;
    *last = i / stride < windows - 1 ? i / stride : windows - 1;
}

// argmax NULL: an average pool's. Three blocks a multiprocessor leave enough registers: for sm_100
// ptxas
// spills two of them otherwise.
template <class T>
static __global__ void __launch_bounds__(THREADS, 3)
    pool_backward_kernel(T *dx, const T *dy, const uint8_t *argmax, Pool p)
{
    constexpr int N = Vec16<T>::N;
    const PoolPlace at = pool_place(p, p.d.h, p.d.w);
    if (at.n >= p.d.n) return;
    int first_y, last_y, first_x, last_x;
    windows_of(&first_y, &last_y, at.y, p.d.kernel_h, p.d.stride, p.oh);
    windows_of(&first_x, &last_x, at.x, p.d.kernel_w, p.d.stride, p.ow);
    float sum[N] = {}, v[N];
    for (int oy = first_y; oy <= last_y; oy++)
        for (int ox = first_x; ox <= last_x; ox++) {
            const int64_t from = pool_offset(p, at.n, p.oh, p.ow, oy, ox, at.channel);
            const int place = (at.y - oy * p.d.stride) * p.d.kernel_w + at.x - ox * p.d.stride;
            pool_load<N>(v, dy + from, p.each);
            Elements<uint8_t, N> largest = {};
            if (argmax && p.each == N)
                largest = *reinterpret_cast<const Elements<uint8_t, N> *>(argmax + from);
            else if (argmax)
                largest.v[0] = argmax[from];
#pragma unroll
            for (int j = 0; j < N; j++) {
                if (!argmax)
                    sum[j] += v[j] * p.share;
                else if (largest.v[j] == place)
                    sum[j] += v[j];
            }
        }
    pool_store<N>(dx + pool_offset(p, at.n, p.d.h, p.d.w, at.y, at.x, at.channel), sum, p.each);
}

// ---- the table ---------------------------------------------------------------------------------

static void maxpool_forward(void *y, uint8_t *argmax, const void *x, PoolDims d)
{
    BY_ELEMENT(const Pool p = pool_of<T>(d);
               nn_launch(maxpool_kernel<T>, pool_blocks(p, p.oh, p.ow), THREADS, 0, cuda_stream,
                         (T *)y, argmax, (const T *)x, p));
}

static void avgpool_forward(void *y, const void *x, PoolDims d)
{
    BY_ELEMENT(const Pool p = pool_of<T>(d);
               nn_launch(avgpool_kernel<T>, pool_blocks(p, p.oh, p.ow), THREADS, 0, cuda_stream,
                         (T *)y, (const T *)x, p));
}

static void maxpool_backward(void *dx, const void *dy, const uint8_t *argmax, PoolDims d)
{
    BY_ELEMENT(const Pool p = pool_of<T>(d);
               nn_launch(pool_backward_kernel<T>, pool_blocks(p, d.h, d.w), THREADS, 0, cuda_stream,
                         (T *)dx, (const T *)dy, argmax, p));
}

static void avgpool_backward(void *dx, const void *dy, PoolDims d)
{
    maxpool_backward(dx, dy, NULL, d);
}

void cuda_pool_ops(Kernels *k)
{
    k->maxpool_forward = maxpool_forward;
    k->maxpool_backward = maxpool_backward;
    k->avgpool_forward = avgpool_forward;
    k->avgpool_backward = avgpool_backward;
}
