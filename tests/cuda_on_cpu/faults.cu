// Planted faults, to show that the emulation reports them: faults NAME runs one.
//
// But for its fault each kernel sets y[i] = x[i ^ 1] for i < n, in blocks of 128 of which the last
// is not full. Exit status 0: the result is right and nothing was reported.
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/wgmma.cuh"

static constexpr int BLOCK = 128, N = BLOCK + 100;

#define KERNEL(name) static __global__ void name(float *y, const float *x, int n)
#define INDEX const int t = threadIdx.x, i = blockIdx.x * BLOCK + t

KERNEL(none)
{
    NN_SHARED(float, tile, [BLOCK]);
    INDEX;
    tile[t] = i < n ? x[i] : 0;
    __syncthreads();
    if (i < n) y[i] = tile[t ^ 1];
}

KERNEL(global_overrun)
{
    INDEX;
    if (i <= n) y[i] = i < n ? x[i ^ 1] : 0;
}

KERNEL(shared_overrun)
{
    NN_SHARED(float, tile, [BLOCK]);
    INDEX;
    float *shifted = tile + 1;
    shifted[t] = i < n ? x[i] : 0;
    __syncthreads();
    if (i < n) y[i] = shifted[t ^ 1];
}

KERNEL(dynamic_shared_overrun)
{
    NN_SHARED_DYN(float, tile);
    INDEX;
    tile[t + 1] = i < n ? x[i] : 0;
    __syncthreads();
    if (i < n) y[i] = tile[(t ^ 1) + 1];
}

KERNEL(row_overrun) // within the array, but not within its row
{
    NN_SHARED(float, tile, [2][BLOCK / 2]);
    INDEX;
    tile[0][t] = i < n ? x[i] : 0;
    __syncthreads();
    if (i < n) y[i] = tile[0][t ^ 1];
}

KERNEL(uninitialized_shared)
{
    NN_SHARED(float, tile, [BLOCK]);
    INDEX;
    if (t) tile[t] = i < n ? x[i] : 0;
    __syncthreads();
    if (i < n) y[i] = tile[t ^ 1];
}

KERNEL(misaligned)
{
    INDEX;
    const Vec16<float> v = nn_load16(x + 1);
    if (i < n) y[i] = i ? x[i ^ 1] : v.v[0];
}

KERNEL(missing_barrier)
{
    NN_SHARED(float, tile, [BLOCK]);
    INDEX;
    tile[t] = i < n ? x[i] : 0;
    if (i < n) y[i] = tile[t ^ 1];
}

KERNEL(missing_second_barrier) // a tile is written again while others still read it
{
    NN_SHARED(float, tile, [BLOCK]);
    INDEX;
    for (int round = 0; round < 3; round++) {
        tile[t] = i < n ? x[i] + (float)(2 - round) : 0;
        __syncthreads();
        if (i < n) y[i] = tile[t ^ 1];
    }
}

KERNEL(divergent_barrier)
{
    INDEX;
    if (t < BLOCK / 2)
        __syncthreads();
    else {
        if (i < n) y[i] = 0;
        __syncthreads();
    }
    if (i < n) y[i] = x[i ^ 1];
}

KERNEL(exit_before_barrier)
{
    INDEX;
    if (i >= n) return;
    __syncthreads();
    y[i] = x[i ^ 1];
}

KERNEL(divergent_shuffle)
{
    INDEX;
    const float own = i < n ? x[i] : 0;
    float other = own;
    if (t % 4 < 2) other = __shfl_xor_sync(FULL_MASK, own, 1);
    if (i < n) y[i] = t % 4 < 2 ? other : x[i ^ 1];
}

KERNEL(missing_wait)
{
    NN_SHARED(float, tile, [BLOCK]);
    INDEX;
    nn_cp_async_zfill<4>(&tile[t], i < n ? &x[i] : x, i < n);
    nn_cp_async_commit();
    __syncthreads();
    if (i < n) y[i] = tile[t ^ 1];
}

KERNEL(blocks_race) // both set y[0], and the same value
{
    INDEX;
    if (i < n) y[i] = x[i ^ 1];
    if (t == 0) y[0] = x[1];
}

// ---- products of a warpgroup -------------------------------------------------------------------

typedef enum { PROXY_FENCE, BARRIER_WAIT, PRODUCT_WAIT, DESCRIPTOR } Missing;

// Row r of a (64,16) has x[2r] at k = 1 and x[2r+1] at k = 3: the upper half of these floats is
// their bf16. b (64,16) exchanges them into columns 0 and 1 of the product.
static __device__ void by_product(float *y, const float *x, int n, Missing missing)
{
    NN_SHARED_DYN(uint8_t, dynamic);
    NN_SHARED(uint64_t, filled, [1]);
    uint8_t *const a = dynamic + (-nn_shared_address(dynamic) & 1023), *const b = a + 64 * 128;
    const int t = threadIdx.x, row = t / 2, pair = (int)blockIdx.x * BLOCK + 2 * row;
    const int to = row * 128 + (t % 2 ^ row % 8) * 16;
    if (t == 0) nn_mbarrier_init(filled, BLOCK);
    __syncthreads();
    const bool valid = t % 2 == 0 && pair < n;
    nn_cp_async_zfill<8>(a + to, valid ? x + pair : x, valid);
    nn_cp_async_zfill<8>(a + to + 8, x, false);
    const uint16_t one = 0x3f80;
    memset(b + to, 0, 16);
    if (t == 0) memcpy(b + to + 3 * 2, &one, 2);
    if (t == 2) memcpy(b + to + 1 * 2, &one, 2);
    nn_cp_async_commit();
    nn_cp_async_wait<0>();
    if (missing != PROXY_FENCE) nn_fence_async_proxy();
    nn_mbarrier_arrive(filled);
    if (missing != BARRIER_WAIT) nn_mbarrier_wait(filled, 0);
    float sums[2][16] = {};
    const uint64_t swizzle_64 = 3ull << 62; // instead of that of 128 bytes
    nn_wgmma_fence();
    nn_wgmma_bf16(sums, nn_wgmma_rows(nn_shared_address(a)) ^ (missing == DESCRIPTOR) * swizzle_64,
                  nn_wgmma_rows(nn_shared_address(b)));
    nn_wgmma_commit();
    if (missing != PRODUCT_WAIT) nn_wgmma_wait<0>();
    for (int h = 0; h < 2; h++) {
        const int i = blockIdx.x * BLOCK + 2 * (t / WARP * 16 + 8 * h + t % WARP / 4);
        if (t % 4 == 0 && i < n) y[i] = sums[h][0];
        if (t % 4 == 0 && i < n) y[i + 1] = sums[h][1];
    }
}

// The same by rows of k: value m of a is x[2m] at k = 1 and x[2m+1] at k = 3, and b exchanges them
// into columns 128 and 129, `next` twice from its first.
static __device__ void by_columns(float *y, const float *x, int n, uint32_t next)
{
    NN_SHARED_DYN(uint8_t, dynamic);
    uint8_t *const a = dynamic + (-nn_shared_address(dynamic) & 1023), *const b = a + 16 * 128;
    const int t = threadIdx.x, row = t / 2, k = t % 2 ? 3 : 1, pair = (int)blockIdx.x * BLOCK;
    memset(a + t * 64, 0, 64);
    __syncthreads();
    const uint32_t bits = pair + t < n ? __float_as_uint(x[pair + t]) : 0;
    const uint16_t value = (uint16_t)(bits >> 16), one = 0x3f80;
    memcpy(a + k * 128 + (row / 8 ^ k) * 16 + row % 8 * 2, &value, 2);
    if (t < 2) memcpy(b + 2 * 16 * 128 + k * 128 + k * 16 + (1 - t) * 2, &one, 2);
    nn_fence_async_proxy();
    __syncthreads();
    float sums[2][48] = {};
    nn_wgmma_fence();
    nn_wgmma_bf16_columns(sums, nn_wgmma_columns(nn_shared_address(a), next),
                          nn_wgmma_columns(nn_shared_address(b), next));
    nn_wgmma_commit();
    nn_wgmma_wait<0>();
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < 2; i++) {
            const int to = pair + 2 * (t / WARP * 16 + 8 * h + t % WARP / 4) + i;
            if (t % 4 == 0 && to < n) y[to] = sums[h][32 + i];
        }
}

KERNEL(missing_proxy_fence)
{
    by_product(y, x, n, PROXY_FENCE);
}

KERNEL(missing_mbarrier_wait)
{
    by_product(y, x, n, BARRIER_WAIT);
}

KERNEL(missing_wgmma_wait)
{
    by_product(y, x, n, PRODUCT_WAIT);
}

KERNEL(wrong_swizzle)
{
    by_product(y, x, n, DESCRIPTOR);
}

KERNEL(wrong_offset)
{
    by_columns(y, x, n, 8 * 128); // instead of 16
}

// ---- the host's faults -------------------------------------------------------------------------

static cudaStream_t stream;
static float *x, *y; // (N) on the device

static int blocks(int n)
{
    return (n + BLOCK - 1) / BLOCK;
}

static void empty_grid()
{
    nn_launch(none, blocks(0), BLOCK, 0, stream, y, x, 0);
}

static void too_much_shared()
{
    nn_launch(none, blocks(N), BLOCK, 64 << 10, stream, y, x, N);
}

static void host_pointer()
{
    static float array[N];
    nn_launch(none, blocks(N), BLOCK, 0, stream, array, x, N);
}

static void freed_memory()
{
    float *freed;
    CUDA_CHECK(cudaMalloc(&freed, N * sizeof *freed));
    CUDA_CHECK(cudaFree(freed));
    nn_launch(none, blocks(N), BLOCK, 0, stream, freed, x, N);
}

static void host_reads_device()
{
    nn_launch(none, blocks(N), BLOCK, 0, stream, y, x, N);
    CUDA_CHECK(cudaStreamSynchronize(stream));
    if (y[0] == 1) puts("read");
}

static void default_stream()
{
    nn_launch(none, blocks(N), BLOCK, 0, (cudaStream_t) nullptr, y, x, N);
}

static void buffer_overwritten() // while a copy from it may still wait for its turn
{
    float *pinned;
    CUDA_CHECK(cudaMallocHost(&pinned, N * sizeof *pinned));
    for (int i = 0; i < N; i++) pinned[i] = (float)i;
    CUDA_CHECK(cudaMemcpyAsync(x, pinned, N * sizeof *x, cudaMemcpyHostToDevice, stream));
    nn_launch(none, blocks(N), BLOCK, 0, stream, y, x, N);
    memset(pinned, 0, N * sizeof *pinned);
    CUDA_CHECK(cudaStreamSynchronize(stream));
    CUDA_CHECK(cudaFreeHost(pinned));
}

static void missing_event() // between two streams
{
    cudaStream_t other;
    CUDA_CHECK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    CUDA_CHECK(cudaMemsetAsync(y, 0, N * sizeof *y, other));
    nn_launch(none, blocks(N), BLOCK, 0, stream, y, x, N);
    CUDA_CHECK(cudaStreamSynchronize(stream));
    CUDA_CHECK(cudaStreamDestroy(other));
}

// ---- the table ---------------------------------------------------------------------------------

typedef void Kernel(float *, const float *, int);
static const struct {
    const char *name;
    Kernel *kernel;
    void (*host)();
} faults[] = {
#define IN_KERNEL(name)                                                                            \
    {                                                                                              \
#name, name, nullptr                                                                       \
    }
#define IN_HOST(name)                                                                              \
    {                                                                                              \
#name, nullptr, name                                                                       \
    }
    IN_KERNEL(none),
    IN_KERNEL(global_overrun),
    IN_KERNEL(shared_overrun),
    IN_KERNEL(dynamic_shared_overrun),
    IN_KERNEL(row_overrun),
    IN_KERNEL(uninitialized_shared),
    IN_KERNEL(misaligned),
    IN_KERNEL(missing_barrier),
    IN_KERNEL(missing_second_barrier),
    IN_KERNEL(divergent_barrier),
    IN_KERNEL(exit_before_barrier),
    IN_KERNEL(divergent_shuffle),
    IN_KERNEL(missing_wait),
    IN_KERNEL(blocks_race),
    IN_KERNEL(missing_proxy_fence),
    IN_KERNEL(missing_mbarrier_wait),
    IN_KERNEL(missing_wgmma_wait),
    IN_KERNEL(wrong_swizzle),
    IN_KERNEL(wrong_offset),
    IN_HOST(empty_grid),
    IN_HOST(too_much_shared),
    IN_HOST(host_pointer),
    IN_HOST(freed_memory),
    IN_HOST(host_reads_device),
    IN_HOST(default_stream),
    IN_HOST(buffer_overwritten),
    IN_HOST(missing_event),
};

static void set_up()
{
    float host[N];
    for (int i = 0; i < N; i++) host[i] = (float)i;
    CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA_CHECK(cudaMalloc(&x, N * sizeof *x));
    CUDA_CHECK(cudaMalloc(&y, N * sizeof *y));
    CUDA_CHECK(cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice));
}

static bool right_result()
{
    float host[N];
    CUDA_CHECK(cudaMemcpyAsync(host, y, sizeof host, cudaMemcpyDeviceToHost, stream));
    CUDA_CHECK(cudaStreamSynchronize(stream));
    for (int i = 0; i < N; i++)
        if (host[i] != (float)(i ^ 1)) {
            printf("wrong result: y[%d] = %g\n", i, (double)host[i]);
            return false;
        }
    return true;
}

int main(int count, char **arguments)
{
    set_up();
    for (const auto &fault : faults) {
        if (count != 2 || strcmp(arguments[1], fault.name)) continue;
        const size_t shared_bytes = fault.kernel == dynamic_shared_overrun ? BLOCK * 4 : 20 << 10;
        if (fault.kernel)
            nn_launch(fault.kernel, blocks(N), BLOCK, shared_bytes, stream, y, x, N);
        else
            fault.host();
        return right_result() ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    fprintf(stderr, "usage: faults NAME\n");
    return 2;
}
