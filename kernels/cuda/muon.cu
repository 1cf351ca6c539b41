// Muon. Floor: 4 r^2 (n/r) + 2 r^3 FLOP an iteration, r the shorter side, at the rate of the tensor
// cores. Not measured yet.
//
// The matrices are held in the element type, as the recipe does, with r rows: where a weight is
// tall, its transpose. What is element-wise takes one launch for all tensors; the three products of
// an iteration are linear.cu's.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/elements.cuh"

// A list of tensors as a kernel's argument, which is at most 4 KB. A block has RUN elements of one.
enum { RUN = 2048, LIST = 36 };

struct Matrix {
    void *value;
    float *master, *grad, *state1;
    void *x, *next; // (r,n/r) element
    void *a, *aa;   // (r,r) element: A = XX' and bA + cAA
    int64_t n;
    int rows, columns; // of the weight
    int lr;
    float decay;
    int first_block, first_square; // of all elements, and of the squares a
};

struct Matrices {
    int count, blocks, squares;
    Matrix entry[LIST];
};

static const Kernels *table; // for the products

__host__ __device__ static inline int shorter_side(const Matrix &m)
{
    return m.rows < m.columns ? m.rows : m.columns;
}

__device__ __forceinline__ const Matrix &find_run(const Matrices &list, int64_t *first,
                                                  int64_t *last)
{
    int i = 0;
    while (i + 1 < list.count && (int)blockIdx.x >= list.entry[i + 1].first_block) i++;
    const Matrix &m = list.entry[i];
    *first = (int64_t)((int)blockIdx.x - m.first_block) * RUN;
    *last = *first + RUN < m.n ? *first + RUN : m.n;
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
    for (int64_t i = first + 4 * threadIdx.x; i < last; i += 4 * THREADS) {
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
    const int blocks = (int)((m.n + RUN - 1) / RUN);
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

// Where element i of the weight is in x.
__device__ __forceinline__ int64_t place_in_x(const Matrix &m, int64_t i)
{
    if (m.rows <= m.columns) return i;
    const int64_t row = i / m.columns;
    return (i - row * m.columns) * m.rows + row;
}

// x = (g + momentum * v) * factor
template <class T>
static __global__ void __launch_bounds__(THREADS)
    start_kernel(const float *factors, float momentum, const __grid_constant__ Matrices list)
{
    int64_t first, last;
    const Matrix &m = find_run(list, &first, &last);
    const float factor = factors[2 * (&m - list.entry)];
    for (int64_t i = first + threadIdx.x; i < last; i += THREADS)
        ((T *)m.x)[place_in_x(m, i)] = to_element<T>((m.grad[i] + momentum * m.state1[i]) * factor);
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
    for (int64_t i = first + threadIdx.x; i < last; i += THREADS) {
        const float scaled = scale * m.master[i];
        const float x = from_element(((const T *)m.x)[place_in_x(m, i)]);
        const float w = scaled - lr * (x + m.decay * scaled);
        m.master[i] = w;
        if (m.value) ((T *)m.value)[i] = to_element<T>(w);
    }
}

// ---- iterations --------------------------------------------------------------------------------

// aa = b * a + c * aa
template <class T>
static __global__ void __launch_bounds__(THREADS)
    polynomial_kernel(float b, float c, const __grid_constant__ Matrices list)
{
    int k = 0;
    while (k + 1 < list.count && (int)blockIdx.x >= list.entry[k + 1].first_square) k++;
    const Matrix &m = list.entry[k];
    const int r = shorter_side(m);
    const int64_t n = (int64_t)r * r, first = (int64_t)((int)blockIdx.x - m.first_square) * RUN;
    const int64_t last = first + RUN < n ? first + RUN : n;
    for (int64_t i = first + 4 * threadIdx.x; i < last; i += 4 * THREADS) {
        float a[4], aa[4];
        load_up_to<4>(a, (const T *)m.a, i, n);
        load_up_to<4>(aa, (const T *)m.aa, i, n);
#pragma unroll
        for (int j = 0; j < 4; j++) aa[j] = b * a[j] + c * aa[j];
        store_up_to<4>((T *)m.aa, aa, i, n);
    }
}

// next += a * x
template <class T>
static __global__ void __launch_bounds__(THREADS)
    add_kernel(float a, const __grid_constant__ Matrices list)
{
    int64_t first, last;
    const Matrix &m = find_run(list, &first, &last);
    for (int64_t i = first + 4 * threadIdx.x; i < last; i += 4 * THREADS) {
        float x[4], next[4];
        load_up_to<4>(x, (const T *)m.x, i, m.n);
        load_up_to<4>(next, (const T *)m.next, i, m.n);
#pragma unroll
        for (int j = 0; j < 4; j++) next[j] += a * x[j];
        store_up_to<4>((T *)m.next, next, i, m.n);
    }
}

static LinearDims product_dims(const Matrix &m, bool square)
{
    const int64_t r = shorter_side(m);
    return {r, square ? r : m.n / r, r};
}

// X = aX + (bA + cAA)X, A = XX', of every matrix.
static void iterate(Matrices *list, Muon c)
{
    for (int i = 0; i < list->count; i++) {
        const Matrix &m = list->entry[i];
        table->linear_forward(m.a, NULL, m.x, m.x, NULL, ACT_NONE, product_dims(m, false));
        table->linear_forward(m.aa, NULL, m.a, m.a, NULL, ACT_NONE,
                              product_dims(m, true)); // A = A'
    }
    if (!cuda_planning())
        BY_ELEMENT(nn_launch(polynomial_kernel<T>, (unsigned)list->squares, THREADS, 0, cuda_stream,
                             c.b, c.c, *list));
    for (int i = 0; i < list->count; i++) {
        const Matrix &m = list->entry[i];
        table->linear_backward_data(m.next, m.aa, m.x, NULL, ACT_NONE, product_dims(m, false));
    }
    if (cuda_planning()) return;
    BY_ELEMENT(
        nn_launch(add_kernel<T>, (unsigned)list->blocks, THREADS, 0, cuda_stream, c.a, *list));
    for (int i = 0; i < list->count; i++) {
        Matrix *m = &list->entry[i];
        void *const x = m->x;
        m->x = m->next;
        m->next = x;
    }
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
static size_t matrices_of(Matrices *list, const Param *p, unsigned char *scratch)
{
    const size_t each = cuda_device.element == BF16 ? sizeof(bf16) : sizeof(float);
    size_t used = 0;
    list->blocks = list->squares = 0;
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
        m->first_square = list->squares;
        const int64_t square = (int64_t)shorter_side(*m) * shorter_side(*m);
        list->blocks += (int)((m->n + RUN - 1) / RUN);
        list->squares += (int)((square + RUN - 1) / RUN);
        m->x = carve(scratch, &used, (size_t)m->n * each);
        m->next = carve(scratch, &used, (size_t)m->n * each);
        m->a = carve(scratch, &used, (size_t)square * each);
        m->aa = carve(scratch, &used, (size_t)square * each);
    }
    return used;
}

static void update_list(const Param *p, int count, Muon c)
{
    Matrices list;
    list.count = count;
    size_t used = matrices_of(&list, p, NULL);
    const size_t at_factors = used;
    carve(NULL, &used, (size_t)(2 * list.count) * sizeof(float));
    const size_t at_sums = used;
    carve(NULL, &used, (size_t)(2 * list.blocks) * sizeof(float));
    unsigned char *scratch = (unsigned char *)cuda_scratch(used);
    if (scratch) {
        float *factors = (float *)(scratch + at_factors), *sums = (float *)(scratch + at_sums);
        const unsigned blocks = (unsigned)list.blocks;
        matrices_of(&list, p, scratch);
        nn_launch(momentum_kernel, blocks, THREADS, 0, cuda_stream, sums, c.momentum, list);
        nn_launch(factors_kernel, (unsigned)count, THREADS, 0, cuda_stream, factors, sums,
                  c.renormalize, list);
        BY_ELEMENT(
            nn_launch(start_kernel<T>, blocks, THREADS, 0, cuda_stream, factors, c.momentum, list));
    }
    cuda_nested(true);
    for (int i = 0; i < c.iterations; i++) iterate(&list, c);
    cuda_nested(false);
    if (scratch)
        BY_ELEMENT(nn_launch(apply_kernel<T>, (unsigned)list.blocks, THREADS, 0, cuda_stream,
                             (float *)(scratch + at_factors), cuda_step, list));
}

// On the branch, from the end of the list, where the backward pass begins: each tensor whose update
// may begin early alone, the others together.
static void muon_update(const Param *p, int count, Muon c)
{
    cuda_branch_begin();
    for (int last = count, first; last > 0; last = first) {
        first = last - 1;
        if (!cuda_branch_knows(p[first].grad))
            while (first > 0 && last - first < LIST && !cuda_branch_knows(p[first - 1].grad))
                first--;
        cuda_branch_wait(p[first].grad);
        update_list(p + first, last - first, c);
    }
    cuda_branch_end();
}

void cuda_muon_ops(Kernels *k)
{
    table = k;
    k->muon_update = muon_update;
}
