// Losses and their gradients: softmax cross-entropy with the count of correct rows, a warp to a
// row, and the mean squared error. Floor: the bytes of what is read and of the gradient over the
// memory bandwidth, in practice the launch. Not measured yet.
#include <math.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/elements.cuh"

enum { WARPS = 16, ROUNDS = 8, ROWS = WARPS * ROUNDS }; // of a block

// The largest logit of a row and the first class that has it, in every lane.
__device__ __forceinline__ float first_largest(const float *row, int classes, int lane, int *where)
{
    float largest = -INFINITY;
    int at = 0;
    for (int c = lane; c < classes; c += WARP)
        if (row[c] > largest) {
            largest = row[c];
            at = c;
        }
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        const float other = __shfl_xor_sync(FULL_MASK, largest, offset);
        const int other_at = __shfl_xor_sync(FULL_MASK, at, offset);
        if (other > largest || (other == largest && other_at < at)) {
            largest = other;
            at = other_at;
        }
    }
    *where = at;
    return largest;
}

// loss = log sum exp - (1 - smoothing) * that of the label - smoothing * the mean of all, each of
// the scaled logits less the largest one. Sets dlogits unless NULL.
template <class T>
__device__ __forceinline__ float row_loss(T *dlogits, const float *row, int label, float largest,
                                          const LossDims &d, int lane)
{
    const float top = d.logit_scale * largest;
    float sum = 0, all = 0;
    for (int c = lane; c < d.classes; c += WARP) {
        const float s = d.logit_scale * row[c] - top;
        sum += expf(s);
        all += s;
    }
    sum = nn_warp_sum(sum);
    all = nn_warp_sum(all);
    if (dlogits) {
        const float scale = d.grad_scale * d.logit_scale, share = __fdividef(1.0f, sum);
        const float smooth = __fdividef(d.smoothing, (float)d.classes);
        for (int c = lane; c < d.classes; c += WARP) {
            float p = expf(d.logit_scale * row[c] - top) * share - smooth;
            if (c == label) p -= 1 - d.smoothing;
            dlogits[c] = to_element<T>(p * scale);
        }
    }
    return logf(sum) - (1 - d.smoothing) * (d.logit_scale * row[label] - top) -
           d.smoothing * __fdividef(all, (float)d.classes);
}

// Sets sums (blocks,METRICS) from what a block's threads have; where there is one block, sums are
// the metrics and are added to.
__device__ __forceinline__ void block_metrics(float *sums, float loss, float correct)
{
    loss = block_sum(loss);
    correct = block_sum(correct);
    if (threadIdx.x != 0) return;
    float *to = sums + (int64_t)blockIdx.x * METRICS;
    const bool whole = gridDim.x == 1;
    to[METRIC_LOSS] = loss + (whole ? to[METRIC_LOSS] : 0.0f);
    to[METRIC_CORRECT] = correct + (whole ? to[METRIC_CORRECT] : 0.0f);
    for (int i = METRIC_CORRECT + 1; i < METRICS && !whole; i++) to[i] = 0;
}

template <class T>
static __global__ void __launch_bounds__(WARPS *WARP)
    loss_kernel(float *sums, T *dlogits, const float *logits, const int32_t *labels, LossDims d)
{
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    float loss = 0, correct = 0;
    for (int round = 0; round < ROUNDS; round++) {
        const int64_t r = (int64_t)blockIdx.x * ROWS + round * WARPS + warp;
        if (r >= d.rows) break; // the whole warp
        const float *row = logits + r * d.classes;
        int at;
        const float largest = first_largest(row, d.classes, lane, &at);
        T *const to = dlogits ? dlogits + r * d.classes : (T *)NULL;
        loss += row_loss<T>(to, row, labels[r], largest, d, lane);
        correct += at == labels[r];
    }
    block_metrics(sums, lane == 0 ? loss : 0.0f, lane == 0 ? correct : 0.0f);
}

static void softmax_cross_entropy(float *metrics, void *dlogits, const float *logits,
                                  const int32_t *labels, LossDims d)
{
    const int64_t blocks = (d.rows + ROWS - 1) / ROWS;
    float *partial = (float *)cuda_scratch((size_t)(blocks * METRICS) * sizeof *partial);
    if (!partial) return;
    BY_ELEMENT(nn_launch(loss_kernel<T>, (unsigned)blocks, WARPS * WARP, 0, cuda_stream,
                         blocks == 1 ? metrics : partial, (T *)dlogits, logits, labels, d));
    if (blocks > 1) cuda_sum_parts(metrics, partial, blocks, METRICS, ADD);
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    squares_kernel(float *sums, T *dy, const float *y, const T *target, float scale, float share,
                   int64_t n)
{
    float squares = 0;
    for (int round = 0; round < ROUNDS; round++) {
        const int64_t i = (((int64_t)blockIdx.x * ROUNDS + round) * THREADS + threadIdx.x) * 4;
        if (i >= n) break;
        float difference[4], to[4];
        load_up_to(difference, y, i, n);
        load_up_to(to, target, i, n);
        for (int j = 0; j < 4; j++) {
            difference[j] -= to[j];
            squares += difference[j] * difference[j];
            difference[j] *= scale;
        }
        if (dy) store_up_to(dy, difference, i, n);
    }
    block_metrics(sums, squares * share, 0);
}

static void mean_squared_error(float *metrics, void *dy, const float *y, const void *target,
                               float grad_scale, MapDims d)
{
    const int64_t n = d.rows * d.channels;
    const unsigned blocks = blocks_of(n, 4 * ROUNDS);
    const float share = 1 / (float)d.channels;
    float *partial = (float *)cuda_scratch((size_t)blocks * METRICS * sizeof *partial);
    if (!partial) return;
    BY_ELEMENT(nn_launch(squares_kernel<T>, blocks, THREADS, 0, cuda_stream,
                         blocks == 1 ? metrics : partial, (T *)dy, y, (const T *)target,
                         grad_scale * 2 * share, share, n));
    if (blocks > 1) cuda_sum_parts(metrics, partial, blocks, METRICS, ADD);
}

void cuda_loss_ops(Kernels *k)
{
    k->mean_squared_error = mean_squared_error;
    k->softmax_cross_entropy = softmax_cross_entropy;
}
