// Vector operations, conversion and dropout. Floor: the bytes of the vectors.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/reduce.h"
#include "kernels/random.h"

enum { RUN = 16384 }; // elements that a thread takes at a time

// Loops with `simd` hold in place too: element i depends on elements i alone. Runs of a fixed size
// keep the split into vectors and remainder, and so the bits, the same for any number of threads.

static void to_f32(float *y, const void *x_, int64_t n)
{
    const Element *x = x_;
#pragma omp parallel for schedule(static, RUN / VEC) num_threads(cpu_threads) if (n > RUN)
    for (int64_t i = 0; i < n; i += VEC)
        vec_store_up_to(y + i, elem_load_up_to(x + i, n - i), n - i);
}

static void from_f32(void *y_, const float *x, int64_t n)
{
    Element *y = y_;
#pragma omp parallel for schedule(static, RUN / VEC) num_threads(cpu_threads) if (n > RUN)
    for (int64_t i = 0; i < n; i += VEC)
        elem_store_up_to(y + i, vec_load_up_to(x + i, n - i), n - i);
}

static void add(void *y_, const void *a_, const void *b_, int64_t n)
{
    Element *y = y_;
    const Element *a = a_, *b = b_;
#pragma omp parallel for schedule(static, RUN / VEC) num_threads(cpu_threads) if (n > RUN)
    for (int64_t i = 0; i < n; i += VEC)
        elem_store_up_to(y + i, elem_load_up_to(a + i, n - i) + elem_load_up_to(b + i, n - i),
                         n - i);
}

static void axpy(float *y, float a, int s, const float *x, int64_t n)
{
    const float factor = a * cpu_step.hyper[s];
#pragma omp parallel for simd schedule(static, RUN) num_threads(cpu_threads) if (parallel : n > RUN)
    for (int64_t i = 0; i < n; i++) y[i] += factor * x[i];
}

static void scale(float *y, float a, int s, const float *x, int64_t n)
{
    const float factor = a * cpu_step.hyper[s];
#pragma omp parallel for simd schedule(static, RUN) num_threads(cpu_threads) if (parallel : n > RUN)
    for (int64_t i = 0; i < n; i++) y[i] = factor * x[i];
}

static void multiply(float *y, const float *a, const float *b, int64_t n)
{
#pragma omp parallel for simd schedule(static, RUN) num_threads(cpu_threads) if (parallel : n > RUN)
    for (int64_t i = 0; i < n; i++) y[i] = a[i] * b[i];
}

static void sqrt_divide(float *y, const float *a, const float *b, float eps, int64_t n)
{
#pragma omp parallel for schedule(static, RUN / VEC) num_threads(cpu_threads) if (n > RUN)
    for (int64_t i = 0; i < n; i += VEC) {
        const Vec root = vec_sqrt(vec_load_up_to(b + i, n - i));
        vec_store_up_to(y + i, vec_load_up_to(a + i, n - i) / (root + eps), n - i);
    }
}

static void dot(float *result, const float *a, const float *b, int64_t n)
{
    double *partial = cpu_scratch((size_t)reduce_blocks(n) * sizeof *partial);
    if (partial) *result = (float)reduce_dot(partial, a, b, n);
}

// ---- dropout -----------------------------------------------------------------------------------

// Factors of 4*VEC elements, from VEC counters at once so that the generator runs in vectors.
static void keep_groups(float *factor, uint32_t id, float rate, int layer, uint32_t group)
{
    const float kept = 1.0f / (1.0f - rate);
#pragma omp simd
    for (uint32_t i = 0; i < VEC; i++) {
        const Philox p = draw_dropout(cpu_step.seed, cpu_step.epoch, id, layer, group + i);
        for (uint32_t j = 0; j < 4; j++)
            factor[4 * i + j] = philox_unit(p.v[j]) >= rate ? kept : 0.0f;
    }
}

static void dropout(void *y_, const void *x_, const uint32_t *ids, float rate, int layer, int64_t n,
                    int64_t per_sample)
{
    const int64_t pieces = (per_sample + 4 * VEC - 1) / (4 * VEC);
#pragma omp parallel for schedule(static) num_threads(cpu_threads)
    for (int64_t piece = 0; piece < n * pieces; piece++) {
        const int64_t sample = piece / pieces, first = piece % pieces * (4 * VEC);
        const int64_t rest = per_sample - first, count = rest < 4 * VEC ? rest : 4 * VEC;
        const Element *x = (const Element *)x_ + sample * per_sample + first;
        Element *y = (Element *)y_ + sample * per_sample + first;
        float factor[4 * VEC];
        keep_groups(factor, ids[sample], rate, layer, (uint32_t)(first / 4));
        for (int64_t i = 0; i < count; i += VEC) { // also where x is infinite, 0 is 0
            const Vec f = vec_load(factor + i), v = elem_load_up_to(x + i, count - i);
            elem_store_up_to(y + i, vec_select(f == 0.0f, f, v * f), count - i);
        }
    }
}

void cpu_vector_ops(Kernels *k)
{
    k->from_f32 = from_f32;
    k->to_f32 = to_f32;
    k->add = add;
    k->axpy = axpy;
    k->scale = scale;
    k->multiply = multiply;
    k->sqrt_divide = sqrt_divide;
    k->dot = dot;
    k->dropout = dropout;
}
