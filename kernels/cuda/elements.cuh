// Elements in and out of fp32 registers, and sums over a block: what memory-bound kernels share.
#ifndef KERNELS_CUDA_ELEMENTS_CUH
#define KERNELS_CUDA_ELEMENTS_CUH

#include "kernels/cuda/common.cuh"

constexpr int THREADS = 256; // of a block, where nothing else is said

// Blocks so that each thread has `each` of n elements.
static inline unsigned blocks_of(int64_t n, int each)
{
    const int64_t share = (int64_t)each * THREADS, blocks = (n + share - 1) / share;
    assert(blocks > 0 && blocks <= INT32_MAX);
    return (unsigned)blocks;
}

__device__ __forceinline__ int64_t thread_index()
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ float from_element(float x)
{
    return x;
}

__device__ __forceinline__ float from_element(bf16 x)
{
    return __bfloat162float(x);
}

template <class T> __device__ __forceinline__ T to_element(float x);

template <> __device__ __forceinline__ float to_element<float>(float x)
{
    return x;
}

template <> __device__ __forceinline__ bf16 to_element<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}

// N elements as a whole: 16, 8 or 32 bytes.
template <class T, int N> struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Elements {
    T v[N];
};

// v = elements i .. i+N-1 of p (n); what lies beyond the end is 0. p is 256-byte aligned and i a
// multiple of N.
template <int N, class T>
__device__ __forceinline__ void load_up_to(float (&v)[N], const T *p, int64_t i, int64_t n)
{
    if (i + N <= n) {
        const Elements<T, N> x = *reinterpret_cast<const Elements<T, N> *>(p + i);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] = from_element(x.v[j]);
    } else {
#pragma unroll
        for (int j = 0; j < N; j++) v[j] = i + j < n ? from_element(p[i + j]) : 0.0f;
    }
}

template <int N, class T>
__device__ __forceinline__ void store_up_to(T *p, const float (&v)[N], int64_t i, int64_t n)
{
    if (i + N <= n) {
        Elements<T, N> x;
#pragma unroll
        for (int j = 0; j < N; j++) x.v[j] = to_element<T>(v[j]);
        *reinterpret_cast<Elements<T, N> *>(p + i) = x;
    } else {
#pragma unroll
        for (int j = 0; j < N; j++)
            if (i + j < n) p[i + j] = to_element<T>(v[j]);
    }
}

// The sum over a block's threads in a fixed order, in thread 0. All threads take part.
__device__ __forceinline__ float block_sum(float x)
{
    NN_SHARED(float, warps, [WARP]);
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    __syncthreads(); // of an earlier call's readers
    x = nn_warp_sum(x);
    if (lane == 0) warps[warp] = x;
    __syncthreads();
    x = threadIdx.x < blockDim.x / WARP ? warps[lane] : 0.0f;
    return warp == 0 ? nn_warp_sum(x) : 0.0f;
}

#endif
