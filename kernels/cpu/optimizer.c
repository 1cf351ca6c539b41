// Optimizers. Floor: the bytes of parameters, gradients and state, in one pass over all tensors;
// for Muon 4 r^2 (n/r) + 2 r^3 FLOP an iteration, r the shorter side. Measured, two threads of a
// Xeon (AMX generation), 670,000 weights, which only the L3 cache holds: SGD and AdamW 105 GB/s,
// with or without AdamW's root and division.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/reduce.h"

enum { PART = 16384 }; // elements that a thread takes at a time

static const Kernels *table; // for Muon's products

// ---- SGD, AdamW --------------------------------------------------------------------------------

// Moments of weights whose gradient is 0 (those of a dead ReLU) decay until they are denormal
// numbers, on which arithmetic is a hundred times slower. Updates take and leave them as 0.
// Returns what restore_denormals() takes.
static unsigned flush_denormals(void)
{
#if defined(__SSE__)
    enum { INPUTS = 0x40, RESULTS = 0x8000 };
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | INPUTS | RESULTS);
    return before;
#else
    return 0;
#endif
}

static void restore_denormals(unsigned before)
{
#if defined(__SSE__)
    _mm_setcsr(before);
#else
    (void)before;
#endif
}

// Updates elements first .. last - 1 of one tensor.
typedef void Update(const Param *p, int64_t first, int64_t last, const void *settings);

// Threads share the elements of all tensors equally, wherever tensors begin and end.
static void update_all(const Param *p, int count, Update *update, const void *settings)
{
    int64_t total = 0;
    for (int j = 0; j < count; j++) total += p[j].n;
    const int64_t parts = total / PART + 1;
#pragma omp parallel for schedule(static) num_threads(cpu_threads)
    for (int64_t part = 0; part < parts; part++) {
        int64_t begin = part_start(total, part, parts), end = part_start(total, part + 1, parts);
        const unsigned before = flush_denormals();
        for (int j = 0; j < count; j++) {
            const int64_t first = begin > 0 ? begin : 0, last = end < p[j].n ? end : p[j].n;
            if (first < last) update(&p[j], first, last, settings);
            begin -= p[j].n;
            end -= p[j].n;
        }
        restore_denormals(before);
    }
}

// The new weights of one vector, and their working copy.
INLINE void store_weights(const Param *p, int64_t i, Vec w, int64_t count)
{
    vec_store_up_to(p->master + i, w, count);
    if (p->value) elem_store_up_to((Element *)p->value + i, w, count);
}

typedef struct SgdStep {
    Sgd c;
    float lr, decay, on_g, on_v; // the step is on_g * g + on_v * v
} SgdStep;

// One vector, or its first `count` places.
INLINE void sgd_vector(const Param *p, int64_t i, int64_t count, SgdStep s)
{
    const Vec w = vec_load_up_to(p->master + i, count), v1 = vec_load_up_to(p->state1 + i, count);
    const Vec g = vec_load_up_to(p->grad + i, count) + s.decay * w, v = s.c.momentum * v1 + g;
    vec_store_up_to(p->state1 + i, v, count);
    store_weights(p, i, w - s.lr * (s.on_g * g + s.on_v * v), count);
}

static void sgd_range(const Param *p, int64_t first, int64_t last, const void *settings)
{
    const Sgd c = *(const Sgd *)settings;
    const SgdStep s = {c, cpu_step.hyper[p->lr], p->decay, c.nesterov ? 1.0f : 0.0f,
                       c.nesterov ? c.momentum : 1.0f};
    int64_t i = first;
    for (; i + VEC <= last; i += VEC) sgd_vector(p, i, VEC, s);
    if (i < last) sgd_vector(p, i, last - i, s);
}

static void sgd_update(const Param *p, int count, Sgd c)
{
    update_all(p, count, sgd_range, &c);
}

typedef struct AdamWStep {
    AdamW c;
    float correction1, correction2; // 1 / (1 - beta^t)
    float lr, shrink;               // shrink = lr * decay
} AdamWStep;

// One vector, or its first `count` places.
INLINE void adamw_vector(const Param *p, int64_t i, int64_t count, AdamWStep s)
{
    const Vec g = vec_load_up_to(p->grad + i, count), w = vec_load_up_to(p->master + i, count);
    const Vec m1 = vec_load_up_to(p->state1 + i, count), v1 = vec_load_up_to(p->state2 + i, count);
    const Vec m = s.c.beta1 * m1 + (1 - s.c.beta1) * g;
    const Vec v = s.c.beta2 * v1 + (1 - s.c.beta2) * (g * g);
    const Vec direction = m * s.correction1 / (vec_sqrt(v * s.correction2) + s.c.eps);
    vec_store_up_to(p->state1 + i, m, count);
    vec_store_up_to(p->state2 + i, v, count);
    store_weights(p, i, w - s.shrink * w - s.lr * direction, count);
}

static void adamw_range(const Param *p, int64_t first, int64_t last, const void *settings)
{
    AdamWStep s = *(const AdamWStep *)settings;
    s.lr = cpu_step.hyper[p->lr];
    s.shrink = s.lr * p->decay;
    int64_t i = first;
    for (; i + VEC <= last; i += VEC) {
        __builtin_prefetch(p->master + i + 1024);
        __builtin_prefetch(p->grad + i + 1024);
        __builtin_prefetch(p->state1 + i + 1024);
        __builtin_prefetch(p->state2 + i + 1024);
        adamw_vector(p, i, VEC, s);
    }
    if (i < last) adamw_vector(p, i, last - i, s);
}

static void adamw_update(const Param *p, int count, AdamW c)
{
    const double t = cpu_step.step + 1.0;
    const AdamWStep s = {.c = c,
                         .correction1 = (float)(1 / (1 - pow((double)c.beta1, t))),
                         .correction2 = (float)(1 / (1 - pow((double)c.beta2, t)))};
    update_all(p, count, adamw_range, &s);
}

// ---- Muon --------------------------------------------------------------------------------------

// x is (r,n/r), r the shorter side: where the matrix is tall, its transpose. The products are those
// of the element type, as Jordan's are.
typedef struct MuonWork {
    Element *x, *next; // (largest n); next has room for floats
    Element *a, *aa;   // (largest r, r): A = XX' and bA + cAA
    double *partial;
} MuonWork;

static int64_t shorter_side(const Param *p)
{
    const int64_t columns = p->n / p->rows;
    return p->rows < columns ? p->rows : columns;
}

// The scratch memory; work->x is NULL while planning.
static void muon_work(MuonWork *work, const Param *p, int count)
{
    int64_t n = 0, r = 0;
    for (int j = 0; j < count; j++) {
        if (p[j].n > n) n = p[j].n;
        if (shorter_side(&p[j]) > r) r = shorter_side(&p[j]);
    }
    const int64_t size = div_up(n, 16) * 16, square = div_up(r * r, 16) * 16;
    float *scratch = cpu_scratch((size_t)(2 * size + 2 * square) * sizeof(float) +
                                 (size_t)reduce_blocks(n) * sizeof(double));
    *work = (MuonWork){0};
    if (!scratch) return;
    work->x = (Element *)carve(&scratch, n);
    work->next = (Element *)carve(&scratch, n);
    work->a = (Element *)carve(&scratch, r * r);
    work->aa = (Element *)carve(&scratch, r * r);
    work->partial = (double *)scratch;
}

static void transpose(Element *y, const Element *x, int64_t rows, int64_t columns)
{
#pragma omp parallel for schedule(static) num_threads(cpu_threads)
    for (int64_t first = 0; first < columns; first += 16)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = first; j < first + 16 && j < columns; j++)
                y[j * rows + i] = x[i * columns + j];
}

// v = momentum * v + g; x = (g + momentum * v) / (|g + momentum * v| + 1e-7)
static void muon_momentum(const MuonWork *work, const Param *p, float momentum)
{
    float *v = p->state1, *direction = (float *)work->next;
    const float *g = p->grad;
#pragma omp parallel for simd schedule(static, PART) num_threads(cpu_threads)
    for (int64_t i = 0; i < p->n; i++) {
        v[i] = momentum * v[i] + g[i];
        direction[i] = g[i] + momentum * v[i];
    }
    const float factor =
        (float)(1 / (sqrt(reduce_dot(work->partial, direction, direction, p->n)) + 1e-7));
#pragma omp parallel for schedule(static, PART / VEC) num_threads(cpu_threads)
    for (int64_t i = 0; i < p->n; i += VEC)
        elem_store_up_to(work->x + i, vec_load_up_to(direction + i, p->n - i) * factor, p->n - i);
}

// y = a * x + b * y
static void combine(Element *y, float a, const Element *x, float b, int64_t n)
{
#pragma omp parallel for schedule(static, PART / VEC) num_threads(cpu_threads)
    for (int64_t i = 0; i < n; i += VEC)
        elem_store_up_to(
            y + i, a * elem_load_up_to(x + i, n - i) + b * elem_load_up_to(y + i, n - i), n - i);
}

// Calls the products only, when planning.
static void muon_iterate(MuonWork *work, Muon c, int64_t r, int64_t columns)
{
    const LinearDims square = {.rows = r, .in = r, .out = r};
    const LinearDims across = {.rows = r, .in = columns, .out = r};
    const bool running = work->x != NULL;
    Element *x = work->x, *next = work->next, *a = work->a, *aa = work->aa;
    table->linear_forward(a, NULL, x, x, NULL, ACT_NONE, across);
    table->linear_forward(aa, NULL, a, a, NULL, ACT_NONE, square); // A is symmetric
    if (running) combine(aa, c.b, a, c.c, r * r);
    table->linear_backward_data(next, aa, x, NULL, ACT_NONE, across);
    if (running) combine(next, c.a, x, 1, r * columns);
    work->x = next;
    work->next = x;
}

// w = scale * w; w -= lr * (x + decay * w)
static void muon_apply(const MuonWork *work, const Param *p, bool renormalize)
{
    const int64_t n = p->n;
    double norm = 0, target = 0;
    if (renormalize) {
        norm = sqrt(reduce_dot(work->partial, p->master, p->master, n));
        target = sqrt((double)p->rows);
    }
    const float scale = renormalize ? (float)(target / norm) : 1.0f;
    const float lr = cpu_step.hyper[p->lr], decay = p->decay;
#pragma omp parallel for schedule(static, PART / VEC) num_threads(cpu_threads)
    for (int64_t i = 0; i < n; i += VEC) {
        const Vec scaled = scale * vec_load_up_to(p->master + i, n - i);
        const Vec x = elem_load_up_to(work->x + i, n - i);
        store_weights(p, i, scaled - lr * (x + decay * scaled), n - i);
    }
}

static void muon_one(MuonWork work, const Param *p, Muon c)
{
    const int64_t r = shorter_side(p), columns = p->n / r;
    const bool tall = p->rows > p->n / p->rows, running = work.x != NULL;
    if (running) muon_momentum(&work, p, c.momentum);
    if (running && tall) {
        transpose(work.next, work.x, p->rows, r);
        Element *const other = work.x;
        work.x = work.next;
        work.next = other;
    }
    for (int i = 0; i < c.iterations; i++) muon_iterate(&work, c, r, columns);
    if (running && tall) {
        transpose(work.next, work.x, r, columns);
        work.x = work.next;
    }
    if (running) muon_apply(&work, p, c.renormalize);
}

static void muon_update(const Param *p, int count, Muon c)
{
    MuonWork work;
    muon_work(&work, p, count);
    cpu_nested(true);
    for (int j = 0; j < count; j++) muon_one(work, &p[j], c);
    cpu_nested(false);
}

// ---- clipping, averaging -----------------------------------------------------------------------

static void scale_range(const Param *p, int64_t first, int64_t last, const void *settings)
{
    const float factor = *(const float *)settings;
#pragma omp simd
    for (int64_t i = first; i < last; i++) p->grad[i] *= factor;
}

static void clip_gradients(float *norm, const Param *p, int count, float max_norm)
{
    int64_t largest = 0;
    for (int j = 0; j < count; j++)
        if (p[j].n > largest) largest = p[j].n;
    double *partial = cpu_scratch((size_t)reduce_blocks(largest) * sizeof *partial), sum = 0;
    if (!partial) return;
    for (int j = 0; j < count; j++) sum += reduce_dot(partial, p[j].grad, p[j].grad, p[j].n);
    *norm = (float)sqrt(sum);
    const float factor = (float)((double)max_norm / sqrt(sum));
    if (sqrt(sum) > (double)max_norm) update_all(p, count, scale_range, &factor);
}

static void ema_update(float *ema, const float *x, int decay_slot, int64_t n)
{
    const float decay = cpu_step.hyper[decay_slot];
#pragma omp parallel for simd schedule(static, PART) num_threads(cpu_threads)
    for (int64_t i = 0; i < n; i++) ema[i] = decay * ema[i] + (1 - decay) * x[i];
}

void cpu_optimizer_ops(Kernels *k)
{
    table = k;
    k->sgd_update = sgd_update;
    k->adamw_update = adamw_update;
    k->muon_update = muon_update;
    k->clip_gradients = clip_gradients;
    k->ema_update = ema_update;
}
