// Activations, and the gradient through an activation and a bias. Floor: the bytes of the maps.
#include <omp.h>

#include "kernels/cpu/map.h"

enum { BLOCK = 16384 };

static void activation_forward(void *y_, const void *x_, Activation act, int64_t n)
{
    float *y = y_;
    const float *x = x_;
#pragma omp parallel for schedule(static) num_threads(cpu_threads) if (n > BLOCK)
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t last = smaller(n, first + BLOCK), whole = last - (last - first) % VEC;
        for (int64_t i = first; i < whole; i += VEC)
            vec_store(y + i, vec_act(act, vec_load(x + i)));
        if (whole < last)
            vec_store_part(y + whole, vec_act(act, vec_load_part(x + whole, last - whole)),
                           last - whole);
    }
}

// dy * act'(saved); without an activation `saved` is not read.
VEC_INLINE Vec backward(const float *dy, const float *saved, Activation act, int64_t count)
{
    const Vec g = vec_load_up_to(dy, count);
    return act == ACT_NONE ? g : g * vec_act_grad(act, vec_load_up_to(saved, count));
}

static void activation_backward(void *dx_, const void *dy_, const void *saved_, Activation act,
                                int64_t n)
{
    float *dx = dx_;
    const float *dy = dy_, *saved = saved_;
#pragma omp parallel for schedule(static) num_threads(cpu_threads) if (n > BLOCK)
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t last = smaller(n, first + BLOCK), whole = last - (last - first) % VEC;
        for (int64_t i = first; i < whole; i += VEC)
            vec_store(dx + i, backward(dy + i, saved + i, act, VEC));
        if (whole < last)
            vec_store_part(dx + whole, backward(dy + whole, saved + whole, act, last - whole),
                           last - whole);
    }
}

// One block of the map: dz set (NULL: not), sums (period) of dz set.
static void backward_block(const Map *m, float *dz, float *sums, const float *dy,
                           const float *saved, Activation act, int64_t first)
{
    const int64_t last = map_block_end(m, first);
    memset(sums, 0, (size_t)m->period * sizeof *sums);
    for (int64_t start = first; start < last; start += m->period) {
        const int64_t size = smaller(m->period, last - start), whole = size - size % VEC;
        for (int64_t i = 0; i < whole; i += VEC) {
            const Vec g = backward(dy + start + i, saved + start + i, act, VEC);
            vec_store(sums + i, vec_load(sums + i) + g);
            if (dz) vec_store(dz + start + i, g);
        }
        if (whole < size) {
            const int64_t at = start + whole, count = size - whole;
            const Vec g = backward(dy + at, saved + at, act, count);
            vec_store(sums + whole, vec_load(sums + whole) + g);
            if (dz) vec_store_part(dz + at, g, count);
        }
    }
}

static void bias_act_backward(void *dz, float *dbias, const void *dy, const void *saved,
                              Activation act, GradMode mode, MapDims d)
{
    const Map m = map_of(d);
    double *partial = cpu_scratch((size_t)((m.blocks + 1) * m.channels) * sizeof(double) +
                                  (size_t)(cpu_threads * m.period) * sizeof(float) + 64);
    if (!partial) return;
    double *total = partial + m.blocks * m.channels;
    float *sums = (float *)(total + m.channels);
#pragma omp parallel for schedule(static) num_threads(cpu_threads)
    for (int64_t b = 0; b < m.blocks; b++) {
        float *own = sums + omp_get_thread_num() * m.period;
        backward_block(&m, dz, own, dy, saved ? saved : dy, act, b * m.block);
        map_fold(&m, partial + b * m.channels, own);
    }
    map_add_blocks(&m, total, partial, m.channels);
    for (int c = 0; c < m.channels; c++)
        dbias[c] = (float)total[c] + (mode == ADD ? dbias[c] : 0.0f);
}

void cpu_activation_ops(Kernels *k)
{
    k->activation_forward = activation_forward;
    k->activation_backward = activation_backward;
    k->bias_act_backward = bias_act_backward;
}
