// What is right must not be reported, and the emulated instructions compute what they should: warp
// operations, asynchronous copies, fragments of the tensor cores, products of warpgroups, graphs.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/wgmma.cuh"

static cudaStream_t stream, other_stream;
static int failures;

static void expect(bool right, const char *what)
{
    printf("%-6s %s\n", right ? "ok" : "FAILED", what);
    failures += !right;
}

static float *device_floats(int n, const float *values)
{
    float *p;
    CUDA_CHECK(cudaMalloc(&p, (size_t)n * sizeof *p));
    if (values) CUDA_CHECK(cudaMemcpy(p, values, (size_t)n * sizeof *p, cudaMemcpyHostToDevice));
    return p;
}

static void fetch(float *host, const float *device, int n)
{
    CUDA_CHECK(
        cudaMemcpyAsync(host, device, (size_t)n * sizeof *host, cudaMemcpyDeviceToHost, stream));
    CUDA_CHECK(cudaStreamSynchronize(stream));
}

// ---- warp operations ---------------------------------------------------------------------------

static __global__ void warp_operations(float *y)
{
    const int lane = threadIdx.x % WARP;
    const float up = __shfl_up_sync(FULL_MASK, (float)lane, 3);
    const float down = __shfl_down_sync(FULL_MASK, (float)lane, 5);
    const float in_half = __shfl_sync(FULL_MASK, (float)lane, 2, 16);
    const unsigned odd = __ballot_sync(FULL_MASK, lane % 2);
    const float sum = nn_warp_sum((float)lane), most = nn_warp_max((float)lane);
    y[threadIdx.x] =
        up == (float)(lane < 3 ? lane : lane - 3) && down == (float)(lane > 26 ? lane : lane + 5) &&
        in_half == (float)(lane / 16 * 16 + 2) && odd == 0xaaaaaaaau && sum == 496 && most == 31;
}

static void test_warp_operations()
{
    float host[64], *y = device_floats(64, nullptr);
    nn_launch(warp_operations, 1, 64, 0, stream, y);
    fetch(host, y, 64);
    bool right = true;
    for (const float value : host) right = right && value == 1;
    expect(right, "shuffle, ballot and sums of a warp");
}

// ---- a pipeline of asynchronous copies ---------------------------------------------------------

static constexpr int STAGES = 3, TILE = 64, TILES = 7;

// y[i] = the sum over all tiles of x[tile][i ^ 1]
static __global__ void pipeline(float *y, const float *x)
{
    NN_SHARED(float, tiles, [STAGES][TILE]);
    const int t = threadIdx.x;
    float sum = 0;
    for (int k = 0; k < STAGES - 1; k++) {
        nn_cp_async<4>(&tiles[k][t], &x[k * TILE + t]);
        nn_cp_async_commit();
    }
    for (int k = 0; k < TILES; k++) {
        nn_cp_async_wait<STAGES - 2>();
        __syncthreads();
        const int next = k + STAGES - 1;
        const bool valid = next < TILES;
        nn_cp_async_zfill<4>(&tiles[next % STAGES][t], valid ? &x[next * TILE + t] : x, valid);
        nn_cp_async_commit();
        sum += tiles[k % STAGES][t ^ 1];
    }
    y[t] = sum;
}

static void test_pipeline()
{
    float host[TILES * TILE], sums[TILE] = {};
    for (int i = 0; i < TILES * TILE; i++) {
        host[i] = (float)(i % 97);
        sums[i % TILE ^ 1] += host[i];
    }
    float *x = device_floats(TILES * TILE, host), *y = device_floats(TILE, nullptr);
    nn_launch(pipeline, 1, TILE, 0, stream, y, x);
    fetch(host, y, TILE);
    expect(!memcmp(host, sums, sizeof sums), "a pipeline of asynchronous copies");
}

// ---- tensor cores ------------------------------------------------------------------------------

// d (16,8) = a (16,16) b (16,8) with the fragments that ldmatrix gives.
static __global__ void product_bf16(float *d, const float *a, const float *b)
{
    NN_SHARED(bf16, a_tile, [16][16]);
    NN_SHARED(bf16, b_tile, [16][16]); // its first 8 columns, twice
    const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    for (int i = lane; i < 256; i += WARP) {
        a_tile[i / 16][i % 16] = __float2bfloat16(a[i]);
        b_tile[i / 16][i % 16] = __float2bfloat16(b[i / 16 * 8 + i % 8]);
    }
    __syncthreads();
    uint32_t fa[4], fb[4];
    nn_ldmatrix_x4(fa, &a_tile[lane % 16][lane / 16 * 8]);
    nn_ldmatrix_x4_trans(fb, &b_tile[lane % 16][lane / 16 * 8]);
    const uint32_t first[2] = {fb[0], fb[1]};
    float sums[4] = {0, 0, 0, 0};
    nn_mma_bf16(sums, fa, first);
    for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

// The first 8 columns of a and rows of b.
static __global__ void product_tf32(float *d, const float *a, const float *b)
{
    const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    uint32_t fa[4], fb[2];
    for (int i = 0; i < 4; i++) fa[i] = nn_round_tf32(a[(g + i % 2 * 8) * 16 + t + i / 2 * 4]);
    for (int i = 0; i < 2; i++) fb[i] = nn_round_tf32(b[(t + i * 4) * 8 + g]);
    float sums[4] = {0, 0, 0, 0};
    nn_mma_tf32(sums, fa, fb);
    for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

// Small integers: exact in bf16 and in tf32.
static void test_product(void (*kernel)(float *, const float *, const float *), int depth,
                         const char *what)
{
    float a[16 * 16], b[16 * 8], d[16 * 8];
    for (int i = 0; i < 16 * 16; i++) a[i] = (float)(i * 7 % 13 - 6);
    for (int i = 0; i < 16 * 8; i++) b[i] = (float)(i * 5 % 11 - 5);
    float *result = device_floats(16 * 8, nullptr);
    nn_launch(kernel, 1, WARP, 0, stream, result, device_floats(16 * 16, a),
              device_floats(16 * 8, b));
    fetch(d, result, 16 * 8);
    bool right = true;
    for (int i = 0; i < 16 * 8; i++) {
        float sum = 0;
        for (int k = 0; k < depth; k++) sum += a[i / 8 * 16 + k] * b[k * 8 + i % 8];
        right = right && d[i] == sum;
    }
    expect(right, what);
}

// ---- products of a warpgroup -------------------------------------------------------------------

static constexpr int SIDE = 64, ROW_BYTES = 128; // 64 bf16

// d (64,64) = a (64,64) b (64,64)^T
static __global__ void product_warpgroup(float *d, const float *a, const float *b)
{
    NN_SHARED_DYN(uint8_t, dynamic);
    uint8_t *const tiles = dynamic + (-nn_shared_address(dynamic) & 1023);
    const int thread = threadIdx.x;
    for (int i = thread; i < 2 * SIDE * SIDE; i += WARPGROUP) {
        const int row = i / SIDE, piece = i % SIDE / 8; // rows of b follow those of a
        const bf16 x = __float2bfloat16(row < SIDE ? a[i] : b[i - SIDE * SIDE]);
        memcpy(tiles + row * ROW_BYTES + (piece ^ row % 8) * 16 + i % 8 * 2, &x, sizeof x);
    }
    nn_fence_async_proxy();
    __syncthreads();
    const uint32_t at = nn_shared_address(tiles);
    float sums[2][SIDE / 4] = {};
    nn_wgmma_fence();
    for (uint32_t k = 0; k < ROW_BYTES; k += 32)
        nn_wgmma_bf16(sums, nn_wgmma_rows(at + k), nn_wgmma_rows(at + SIDE * ROW_BYTES + k));
    nn_wgmma_commit();
    nn_wgmma_wait<0>();
    for (int h = 0; h < 2; h++)
        for (int j = 0; j < SIDE / 4; j++) {
            const int row = thread / WARP * 16 + 8 * h + thread % WARP / 4;
            d[row * SIDE + j / 2 * 8 + thread % 4 * 2 + j % 2] = sums[h][j];
        }
}

static void test_warpgroup()
{
    static float a[SIDE * SIDE], b[SIDE * SIDE], d[SIDE * SIDE];
    for (int i = 0; i < SIDE * SIDE; i++) {
        a[i] = (float)(i * 7 % 13 - 6);
        b[i] = (float)(i * 5 % 11 - 5);
    }
    float *result = device_floats(SIDE * SIDE, nullptr);
    nn_launch(product_warpgroup, 1, WARPGROUP, 2 * SIDE * ROW_BYTES + 1024, stream, result,
              device_floats(SIDE * SIDE, a), device_floats(SIDE * SIDE, b));
    fetch(d, result, SIDE * SIDE);
    bool right = true;
    for (int i = 0; i < SIDE * SIDE; i++) {
        float sum = 0;
        for (int k = 0; k < SIDE; k++) sum += a[i / SIDE * SIDE + k] * b[i % SIDE * SIDE + k];
        right = right && d[i] == sum;
    }
    expect(right, "a product of a warpgroup");
}

static constexpr int COLUMNS = 192;

// d (64,192) = a (64,64)^T b (64,192): 64 columns of a factor lie in rows of 128 bytes, one for
// each row of the factor.
static __global__ void product_columns(float *d, const float *a, const float *b)
{
    NN_SHARED_DYN(uint8_t, dynamic);
    uint8_t *const tiles = dynamic + (-nn_shared_address(dynamic) & 1023);
    const int thread = threadIdx.x, all = SIDE + COLUMNS;
    for (int i = thread; i < SIDE * all; i += WARPGROUP) {
        const int k = i / all, column = i % all; // columns of b follow those of a
        const bf16 x =
            __float2bfloat16(column < SIDE ? a[k * SIDE + column] : b[k * COLUMNS + column - SIDE]);
        const int piece = column % 64 / 8;
        memcpy(tiles + (column / 64 * SIDE + k) * ROW_BYTES + (piece ^ k % 8) * 16 + column % 8 * 2,
               &x, sizeof x);
    }
    nn_fence_async_proxy();
    __syncthreads();
    const uint32_t at = nn_shared_address(tiles), next = SIDE * ROW_BYTES;
    float sums[2][COLUMNS / 4] = {};
    nn_wgmma_fence();
    for (uint32_t k = 0; k < SIDE * ROW_BYTES; k += 16 * ROW_BYTES)
        nn_wgmma_bf16_columns(sums, nn_wgmma_columns(at + k, next),
                              nn_wgmma_columns(at + next + k, next));
    nn_wgmma_commit();
    nn_wgmma_wait<0>();
    for (int h = 0; h < 2; h++)
        for (int j = 0; j < COLUMNS / 4; j++) {
            const int row = thread / WARP * 16 + 8 * h + thread % WARP / 4;
            d[row * COLUMNS + j / 2 * 8 + thread % 4 * 2 + j % 2] = sums[h][j];
        }
}

static void test_warpgroup_columns()
{
    static float a[SIDE * SIDE], b[SIDE * COLUMNS], d[SIDE * COLUMNS];
    for (int i = 0; i < SIDE * SIDE; i++) a[i] = (float)(i * 7 % 13 - 6);
    for (int i = 0; i < SIDE * COLUMNS; i++) b[i] = (float)(i * 5 % 11 - 5);
    float *result = device_floats(SIDE * COLUMNS, nullptr);
    nn_launch(product_columns, 1, WARPGROUP, (SIDE + COLUMNS) * ROW_BYTES + 1024, stream, result,
              device_floats(SIDE * SIDE, a), device_floats(SIDE * COLUMNS, b));
    fetch(d, result, SIDE * COLUMNS);
    bool right = true;
    for (int i = 0; i < SIDE * COLUMNS; i++) {
        float sum = 0;
        for (int k = 0; k < SIDE; k++)
            sum += a[k * SIDE + i / COLUMNS] * b[k * COLUMNS + i % COLUMNS];
        right = right && d[i] == sum;
    }
    expect(right, "a product of a warpgroup from columns");
}

// ---- atomics, the last block -------------------------------------------------------------------

static __global__ void sum_of_blocks(float *total, float *partial, unsigned *arrived)
{
    NN_SHARED(bool, last, [1]);
    const float sum = nn_warp_sum((float)(blockIdx.x + 1));
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
        __threadfence();
        last[0] = atomicInc(arrived, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last[0] || threadIdx.x != 0) return;
    __threadfence();
    float all = 0;
    for (unsigned i = 0; i < gridDim.x; i++) all += __ldcg(&partial[i]);
    *total = all;
}

static void test_last_block()
{
    float *total = device_floats(1, nullptr), *partial = device_floats(10, nullptr), host;
    unsigned *arrived;
    CUDA_CHECK(cudaMalloc(&arrived, sizeof *arrived));
    CUDA_CHECK(cudaMemsetAsync(arrived, 0, sizeof *arrived, stream));
    nn_launch(sum_of_blocks, 10, WARP, 0, stream, total, partial, arrived);
    fetch(&host, total, 1);
    expect(host == 32 * 55, "the last block sums up");
}

// ---- a graph of two streams --------------------------------------------------------------------

static __global__ void affine(float *y, const float *x, float factor, float term)
{
    y[threadIdx.x] = factor * x[threadIdx.x] + term;
}

static __global__ void join(float *y, const float *a, const float *b)
{
    y[threadIdx.x] = 10 * a[threadIdx.x] + b[threadIdx.x];
}

static cudaGraphExec_t capture(float *y, float *a, float *b, const float *x)
{
    cudaEvent_t fork, done;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CUDA_CHECK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    CUDA_CHECK(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
    CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    CUDA_CHECK(cudaEventRecord(fork, stream));
    CUDA_CHECK(cudaStreamWaitEvent(other_stream, fork, 0));
    nn_launch(affine, 1, WARP, 0, stream, a, x, 2.0f, 1.0f);
    nn_launch(affine, 1, WARP, 0, other_stream, b, x, 3.0f, 2.0f);
    CUDA_CHECK(cudaEventRecord(done, other_stream));
    CUDA_CHECK(cudaStreamWaitEvent(stream, done, 0));
    nn_launch(join, 1, WARP, 0, stream, y, a, b);
    CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
    CUDA_CHECK(cudaGraphDestroy(graph));
    CUDA_CHECK(cudaEventDestroy(fork));
    CUDA_CHECK(cudaEventDestroy(done));
    return exec;
}

static void test_graph()
{
    float *y = device_floats(WARP, nullptr), *a = device_floats(WARP, nullptr);
    float *b = device_floats(WARP, nullptr), *x = device_floats(WARP, nullptr);
    const cudaGraphExec_t exec = capture(y, a, b, x);
    bool right = true;
    for (int step = 0; step < 3; step++) {
        float host[WARP];
        for (int i = 0; i < WARP; i++) host[i] = (float)(i + step);
        CUDA_CHECK(cudaMemcpyAsync(x, host, sizeof host, cudaMemcpyHostToDevice, stream));
        CUDA_CHECK(cudaGraphLaunch(exec, stream));
        fetch(host, y, WARP);
        for (int i = 0; i < WARP; i++) {
            const float value = (float)(i + step);
            right = right && host[i] == 10 * (2 * value + 1) + 3 * value + 2;
        }
    }
    CUDA_CHECK(cudaGraphExecDestroy(exec));
    expect(right, "a graph of two streams, three times");
}

int main()
{
    CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA_CHECK(cudaStreamCreateWithFlags(&other_stream, cudaStreamNonBlocking));
    test_warp_operations();
    test_pipeline();
    test_product(product_bf16, 16, "a bf16 product from ldmatrix's fragments");
    test_product(product_tf32, 8, "a tf32 product");
    test_warpgroup();
    test_warpgroup_columns();
    test_last_block();
    test_graph();
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
