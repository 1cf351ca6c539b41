// Muon. Floor: 3 r^2 (n/r) + r^3 FLOP an iteration, r the shorter side, at the rate of the tensor
// cores. Not measured yet.
//
// The matrices are held in the element type, as the recipe does, with r rows: where a weight is
// tall, its transpose. A list of tensors takes three launches, then three for each iteration
// (muon_product.cu), then one.
#include "kernels/cuda/muon.cuh"

enum { RUN = 2048 }; // elements of one tensor that a block has

struct Matrix {
    void *value;
    float *master, *grad, *state1;
    void *x, *next; // (r,width) element
    void *a, *aa;   // (r,padded r) element: A = XX' and bA + cAA
    int64_t n;
    int rows, columns; // of the weight
    int width;         // padded n/r
    int lr;
    float decay;
    int first_block; // of the runs of x
};

struct Matrices {
    int count, blocks;
    Matrix entry[MUON_LIST];
};

__host__ __device__ static inline int shorter_side(const Matrix &m)
{
    return m.rows < m.columns ? m.rows : m.columns;
}

__host__ __device__ static inline int64_t padded_size(const Matrix &m)
{
    return (int64_t)shorter_side(m) * m.width;
}

// The block's elements of x; the weight, whose padding is not counted, has no more.
__device__ __forceinline__ const Matrix &find_run(const Matrices &list, int64_t *first,
                                                  int64_t *last)
{
    int i = 0;
    while (i + 1 < list.count && (int)blockIdx.x >= list.entry[i + 1].first_block) i++;
    const Matrix &m = list.entry[i];
    const int64_t n = padded_size(m);
    *first = (int64_t)((int)blockIdx.x - m.first_block) * RUN;
    *last = *first + RUN < n ? *first + RUN : n;
    return m;
}

// ---- before and after the iterations -----------------------------------------------------------

// v = momentum * v + g; sums (blocks,2): of (g + momentum * v)^2 and of w^2.
static __global__ void __launch_bounds__(THREADS)
    momentum_kernel(float *sums, float momentum, const __grid_constant__ Matrices list)
{
    int64_t first, last;
    const Matrix &m = find_run(list, &first, &last);
    float update = 0, weight = 0;
    for (int64_t i = first + 4 * threadIdx.x; i < last && i < m.n; i += 4 * THREADS) {
        float g[4], v[4], w[4];
        load_up_to<4>(g, m.grad, i, m.n);
        load_up_to<4>(v, m.state1, i, m.n);
        load_up_to<4>(w, m.master, i, m.n);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            v[j] = momentum * v[j] + g[j];
            const float u = g[j] + momentum * v[j];
            update += u * u;
            weight += w[j] * w[j];
        }
        store_up_to<4>(m.state1, v, i, m.n);
    }
    update = block_sum(update);
    weight = block_sum(weight);
    if (threadIdx.x != 0) return;
    sums[2 * blockIdx.x] = update;
    sums[2 * blockIdx.x + 1] = weight;
}

// factors (count,2) of tensor blockIdx.x: 1 / (|g + momentum * v| + 1e-7), and what scales its
// weights to a norm of sqrt(rows), or 1.
static __global__ void __launch_bounds__(THREADS)
    factors_kernel(float *factors, const float *sums, bool renormalize,
                   const __grid_constant__ Matrices list)
{
    const Matrix &m = list.entry[blockIdx.x];
    const int blocks = (int)((padded_size(m) + RUN - 1) / RUN);
    float update = 0, weight = 0;
    for (int i = (int)threadIdx.x; i < blocks; i += THREADS) {
        update += sums[2 * (m.first_block + i)];
        weight += sums[2 * (m.first_block + i) + 1];
    }
    update = block_sum(update);
    weight = block_sum(weight);
    if (threadIdx.x != 0) return;
    factors[2 * blockIdx.x] = 1.0f / (sqrtf(update) + 1e-7f);
    factors[2 * blockIdx.x + 1] = renormalize ? sqrtf((float)m.rows) / sqrtf(weight) : 1.0f;
}

// Four neighbouring elements of x: the first `count` are those of the weight from `at` on, `step`
// apart; the others are padding.
struct Four {
    int64_t at;
    int step, count;
};

// From i on, a multiple of four, as m.width is.
__device__ __forceinline__ Four four_of_x(const Matrix &m, int64_t i)
{
    const int64_t row = i / m.width, column = i - row * m.width;
    if (m.rows > m.columns) return {column * m.columns + row, m.columns, m.rows - (int)column};
    return {row * m.columns + column, 1, m.columns - (int)column};
}

// x = (g + momentum * v) * factor, and zeros in the padding
template <class T>
static __global__ void __launch_bounds__(THREADS)
    start_kernel(const float *factors, float momentum, const __grid_constant__ Matrices list)
{
    int64_t first, last;
    const Matrix &m = find_run(list, &first, &last);
    const float factor = factors[2 * (&m - list.entry)];
    for (int64_t i = first + 4 * threadIdx.x; i < last; i += 4 * THREADS) {
        const Four four = four_of_x(m, i);
        float x[4] = {};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int64_t at = four.at + (int64_t)j * four.step;
            if (j < four.count) x[j] = (m.grad[at] + momentum * m.state1[at]) * factor;
        }
        store_up_to<4>((T *)m.x, x, i, last);
    }
}

// w = scale * w; w -= lr * (x + decay * w)
template <class T>
static __global__ void __launch_bounds__(THREADS)
    apply_kernel(const float *factors, const StepValues *step,
                 const __grid_constant__ Matrices list)
{
    int64_t first, last;
    const Matrix &m = find_run(list, &first, &last);
    const float scale = factors[2 * (&m - list.entry) + 1], lr = step->hyper[m.lr];
    for (int64_t i = first + 4 * threadIdx.x; i < last; i += 4 * THREADS) {
        const Four four = four_of_x(m, i);
        float x[4];
        load_up_to<4>(x, (const T *)m.x, i, last);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int64_t at = four.at + (int64_t)j * four.step;
            if (j >= four.count) break;
            const float scaled = scale * m.master[at];
            const float w = scaled - lr * (x[j] + m.decay * scaled);
            m.master[at] = w;
            if (m.value) ((T *)m.value)[at] = to_element<T>(w);
        }
    }
}

// ---- iterations --------------------------------------------------------------------------------

// X = aX + (bA + cAA)X, A = XX', of every matrix.
template <class T> static void iterate(Matrices *list, Muon c)
{
    MuonProducts gram, polynomial, next;
    gram.count = polynomial.count = next.count = list->count;
    for (int i = 0; i < list->count; i++) {
        Matrix *m = &list->entry[i];
        const int r = shorter_side(*m), side = padded_width<T>(r);
        gram.entry[i] = {m->x, m->x, NULL, m->a, r, side, m->width, 0};
        polynomial.entry[i] = {m->a, m->a, m->a, m->aa, r, side, side, 0};
        next.entry[i] = {m->aa, m->x, m->x, m->next, r, m->width, r, 0};
        void *const x = m->x;
        m->x = m->next;
        m->next = x;
    }
    muon_products(&gram, true, 0, 1);
    muon_products(&polynomial, true, c.b, c.c);
    muon_products(&next, false, c.a, 1);
}

// ---- the update --------------------------------------------------------------------------------

// Takes `bytes` of the scratch memory that *used counts.
static unsigned char *carve(unsigned char *scratch, size_t *used, size_t bytes)
{
    unsigned char *p = scratch ? scratch + *used : NULL;
    *used += (bytes + 255) / 256 * 256;
    return p;
}

// The list and where its matrices lie in the scratch memory, if there is any yet; returns its size.
template <class T> static size_t matrices_of(Matrices *list, const Param *p, unsigned char *scratch)
{
    size_t used = 0;
    list->blocks = 0;
    for (int i = 0; i < list->count; i++) {
        Matrix *m = &list->entry[i];
        m->value = p[i].value;
        m->master = p[i].master;
        m->grad = p[i].grad;
        m->state1 = p[i].state1;
        m->n = p[i].n;
        m->rows = (int)p[i].rows;
        m->columns = (int)(p[i].n / p[i].rows);
        m->lr = p[i].lr;
        m->decay = p[i].decay;
        m->first_block = list->blocks;
        const int r = shorter_side(*m);
        m->width = padded_width<T>((int)(m->n / r));
        list->blocks += (int)((padded_size(*m) + RUN - 1) / RUN);
        const size_t x = (size_t)padded_size(*m) * sizeof(T),
                     square = (size_t)r * (size_t)padded_width<T>(r) * sizeof(T);
        m->x = carve(scratch, &used, x);
        m->next = carve(scratch, &used, x);
        m->a = carve(scratch, &used, square);
        m->aa = carve(scratch, &used, square);
    }
    return used;
}

template <class T> static void update_list(const Param *p, int count, Muon c)
{
    Matrices list;
    list.count = count;
    size_t used = matrices_of<T>(&list, p, NULL);
    const size_t at_factors = used;
    carve(NULL, &used, (size_t)(2 * list.count) * sizeof(float));
    const size_t at_sums = used;
    carve(NULL, &used, (size_t)(2 * list.blocks) * sizeof(float));
    unsigned char *const scratch = (unsigned char *)cuda_scratch(used);
    if (!scratch) return;
    float *const factors = (float *)(scratch + at_factors);
    float *const sums = (float *)(scratch + at_sums);
    const unsigned blocks = (unsigned)list.blocks;
    matrices_of<T>(&list, p, scratch);
    nn_launch(momentum_kernel, blocks, THREADS, 0, cuda_stream, sums, c.momentum, list);
    nn_launch(factors_kernel, (unsigned)count, THREADS, 0, cuda_stream, factors, sums,
              c.renormalize, list);
    nn_launch(start_kernel<T>, blocks, THREADS, 0, cuda_stream, factors, c.momentum, list);
    for (int i = 0; i < c.iterations; i++) iterate<T>(&list, c);
    nn_launch(apply_kernel<T>, blocks, THREADS, 0, cuda_stream, factors, cuda_step, list);
}

// On the branch, from the end of the list, where the backward pass begins: each tensor whose update
// may begin early alone, the others together.
static void muon_update(const Param *p, int count, Muon c)
{
    if (count == 0) return; // a branch without launches would not be part of a captured step
    cuda_second_stream_begin();
    for (int last = count, first; last > 0; last = first) {
        first = last - 1;
        if (!cuda_second_stream_knows(p[first].grad))
            while (first > 0 && last - first < MUON_LIST &&
                   !cuda_second_stream_knows(p[first - 1].grad))
                first--;
        cuda_second_stream_wait(p[first].grad);
        BY_ELEMENT(update_list<T>(p + first, last - first, c));
    }
    cuda_second_stream_end();
}

void cuda_muon_ops(Kernels *k)
{
    k->muon_update = muon_update;
}
