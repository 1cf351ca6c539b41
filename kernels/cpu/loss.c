// Losses and their gradients: softmax cross-entropy with the count of correct rows, a row at a
// time, and the mean squared error.
#include <assert.h>
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/memory.h"

enum { ROWS = 64, VALUES = 4096 }; // of one partial sum

typedef struct Partial {
    double loss;
    int correct;
} Partial;

// A vector of scaled logits; what lies beyond the row is -infinity.
INLINE Vec load_scaled(const float *logits, int c, LossDims d)
{
    Vec v = vec_load_up_to(logits + c, d.classes - c) * d.logit_scale;
    for (int i = d.classes - c; i < VEC; i++) v[i] = -INFINITY;
    return v;
}

static int first_largest(const float *logits, int classes)
{
    int largest = 0;
    for (int c = 1; c < classes; c++)
        if (logits[c] > logits[largest]) largest = c;
    return largest;
}

static double sum_of_exponentials(const float *logits, float top, LossDims d)
{
    Vec sum = {0};
    for (int c = 0; c < d.classes; c += VEC) sum += vec_exp(load_scaled(logits, c, d) - top);
    double total = 0;
    for (int i = 0; i < VEC; i++) total += (double)sum[i];
    return total;
}

// loss = log sum exp - (1 - smoothing) * that of the label - smoothing * the mean of all, each of
// the scaled logits less the largest one
static double row_loss(const float *logits, int label, float top, double sum, LossDims d)
{
    const double scale = d.logit_scale;
    double mean = 0;
    for (int c = 0; c < d.classes; c++) mean += scale * logits[c] - top;
    mean /= d.classes;
    return log(sum) - (1 - (double)d.smoothing) * (scale * logits[label] - top) -
           (double)d.smoothing * mean;
}

static void row_gradient(Element *dlogits, const float *logits, int label, float top, double sum,
                         LossDims d)
{
    const float scale = d.grad_scale * d.logit_scale, share = (float)(1 / sum);
    const float smooth = d.smoothing / (float)d.classes;
    for (int c = 0; c < d.classes; c += VEC) {
        Vec gradient = (vec_exp(load_scaled(logits, c, d) - top) * share - smooth) * scale;
        if (label >= c && label < c + VEC) gradient[label - c] -= (1 - d.smoothing) * scale;
        elem_store_up_to(dlogits + c, gradient, d.classes - c);
    }
}

static void softmax_cross_entropy(float *metrics, void *dlogits, const float *logits,
                                  const int32_t *labels, LossDims d)
{
    const int64_t blocks = (d.rows + ROWS - 1) / ROWS;
    Partial *partial = cpu_scratch((size_t)blocks * sizeof *partial);
    if (!partial) return;
#pragma omp parallel for schedule(static) num_threads(cpu_threads)
    for (int64_t b = 0; b < blocks; b++) {
        Partial sum = {0, 0};
        for (int64_t r = b * ROWS; r < d.rows && r < (b + 1) * ROWS; r++) {
            const float *row = logits + r * d.classes;
            const int largest = first_largest(row, d.classes);
            assert(labels[r] >= 0 && labels[r] < d.classes);
            const float top = d.logit_scale * row[largest];
            const double total = sum_of_exponentials(row, top, d);
            sum.loss += row_loss(row, labels[r], top, total, d);
            sum.correct += largest == labels[r];
            if (dlogits)
                row_gradient((Element *)dlogits + r * d.classes, row, labels[r], top, total, d);
        }
        partial[b] = sum;
    }
    double loss = 0;
    int64_t correct = 0;
    for (int64_t b = 0; b < blocks; b++) {
        loss += partial[b].loss;
        correct += partial[b].correct;
    }
    metrics[METRIC_LOSS] += (float)loss;
    metrics[METRIC_CORRECT] += (float)correct;
}

static void mean_squared_error(float *metrics, void *dy, const float *y, const void *target,
                               float grad_scale, MapDims d)
{
    const int64_t n = d.rows * d.channels, blocks = (n + VALUES - 1) / VALUES;
    const float scale = grad_scale * 2 / (float)d.channels;
    double *partial = cpu_scratch((size_t)blocks * sizeof *partial), loss = 0;
    if (!partial) return;
#pragma omp parallel for schedule(static) num_threads(cpu_threads)
    for (int64_t b = 0; b < blocks; b++) {
        Vec squares = {0};
        for (int64_t i = b * VALUES; i < n && i < (b + 1) * VALUES; i += VEC) {
            const Vec difference =
                vec_load_up_to(y + i, n - i) - elem_load_up_to((const Element *)target + i, n - i);
            squares += difference * difference;
            if (dy) elem_store_up_to((Element *)dy + i, difference * scale, n - i);
        }
        partial[b] = 0;
        for (int i = 0; i < VEC; i++) partial[b] += (double)squares[i];
    }
    for (int64_t b = 0; b < blocks; b++) loss += partial[b];
    metrics[METRIC_LOSS] += (float)(loss / d.channels);
}

void cpu_loss_ops(Kernels *k)
{
    k->softmax_cross_entropy = softmax_cross_entropy;
    k->mean_squared_error = mean_squared_error;
}
