// The second halves of sums over many blocks: partial results in a fixed order, so that the same
// shape gives the same bits. Floor: the launch; a thread's parts follow one another, which takes
// latencies, so many parts (a convolution's tiles, thousands) get more threads.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/stats.cuh"

// Channels of a block, whose rows of threads share out the parts: 32 rows, or 128.
enum { GROUP = 8, MOST_THREADS = 1024, MOST_ROWS = MOST_THREADS / GROUP };

static unsigned threads_for(int64_t parts)
{
    return parts > 2 * THREADS / GROUP ? MOST_THREADS : THREADS;
}

// Sums over parts of column blockIdx.x * GROUP + threadIdx.x % GROUP.
static __global__ void __launch_bounds__(MOST_THREADS)
    sum_parts_kernel(float *sum, const float *partial, int64_t parts, int64_t n, bool add)
{
    NN_SHARED(float, rows, [MOST_ROWS][GROUP]);
    const int column = (int)threadIdx.x % GROUP, row = (int)threadIdx.x / GROUP,
              height = (int)blockDim.x / GROUP;
    const int64_t i = (int64_t)blockIdx.x * GROUP + column;
    float total = 0;
    if (i < n)
        for (int64_t p = row; p < parts; p += height) total += partial[p * n + i];
    rows[row][column] = total;
    for (int half = height / 2; half > 0; half /= 2) {
        __syncthreads();
        if (row < half) rows[row][column] += rows[row + half][column];
    }
    if (row == 0 && i < n) sum[i] = rows[0][column] + (add ? sum[i] : 0.0f);
}

void cuda_sum_parts(float *sum, const float *partial, int64_t parts, int64_t n, GradMode mode)
{
    const int64_t blocks = (n + GROUP - 1) / GROUP;
    nn_launch(sum_parts_kernel, (unsigned)blocks, threads_for(parts), 0, cuda_stream, sum, partial,
              parts, n, mode == ADD);
}

static __global__ void __launch_bounds__(MOST_THREADS)
    merge_stats_kernel(float *stats, const float *partial, int64_t tiles, int channels)
{
    NN_SHARED(Stats, rows, [MOST_ROWS][GROUP]);
    const int column = (int)threadIdx.x % GROUP, row = (int)threadIdx.x / GROUP,
              height = (int)blockDim.x / GROUP;
    const int c = (int)blockIdx.x * GROUP + column;
    Stats total = {0, 0, 0};
    if (c < channels)
        for (int64_t t = row; t < tiles; t += height) {
            const float *tile = partial + t * 3 * channels + c;
            stats_merge(&total, {tile[0], tile[channels], tile[2 * channels]});
        }
    rows[row][column] = total;
    for (int half = height / 2; half > 0; half /= 2) {
        __syncthreads();
        if (row < half) stats_merge(&rows[row][column], rows[row + half][column]);
    }
    if (row > 0 || c >= channels) return;
    stats[c] = rows[0][column].count;
    stats[channels + c] = rows[0][column].mean;
    stats[2 * channels + c] = rows[0][column].m2;
}

void cuda_merge_stats(float *stats, const float *partial, int64_t tiles, int channels)
{
    nn_launch(merge_stats_kernel, (unsigned)((channels + GROUP - 1) / GROUP), threads_for(tiles), 0,
              cuda_stream, stats, partial, tiles, channels);
}
