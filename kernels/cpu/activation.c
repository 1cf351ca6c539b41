// Activations, and the gradient through an activation and a bias. Floor: the bytes of the maps.
// Measured, one thread of a Xeon (AMX generation), large maps: 14-16 GB/s, GELU 12-14; memcpy 14.
#include <omp.h>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/memory.h"

enum { BLOCK = 16384 };

INLINE void forward_run(Element *y, const Element *x, Activation act, int64_t n)
{
    const int64_t whole = n - n % VEC;
    for (int64_t i = 0; i < whole; i += VEC)
        elem_store(y + i, vec_act(act, elem_load_ahead(x + i)));
    if (whole < n)
        elem_store_part(y + whole, vec_act(act, elem_load_part(x + whole, n - whole)), n - whole);
}

static void activation_forward(void *y, const void *x, Activation act, int64_t n)
{
#pragma omp parallel for schedule(static) num_threads(cpu_threads) if (n > BLOCK)
    for (int64_t i = 0; i < n; i += BLOCK)
        BY_ACTIVATION(act, forward_run((Element *)y + i, (const Element *)x + i, fixed,
                                       min_int64(n - i, BLOCK)))
}

// dy * act'(saved); without an activation `saved` is not read.
INLINE Vec backward(const Element *dy, const Element *saved, Activation act)
{
    const Vec g = elem_load_ahead(dy);
    return act == ACT_NONE ? g : g * vec_act_grad(act, elem_load_ahead(saved));
}

INLINE Vec backward_part(const Element *dy, const Element *saved, Activation act, int64_t count)
{
    return elem_load_part(dy, count) * vec_act_grad(act, elem_load_part(saved, count));
}

INLINE void backward_run(Element *dx, const Element *dy, const Element *saved, Activation act,
                         int64_t n)
{
    const int64_t whole = n - n % VEC;
    for (int64_t i = 0; i < whole; i += VEC) elem_store(dx + i, backward(dy + i, saved + i, act));
    if (whole < n)
        elem_store_part(dx + whole, backward_part(dy + whole, saved + whole, act, n - whole),
                        n - whole);
}

static void activation_backward(void *dx, const void *dy, const void *saved, Activation act,
                                int64_t n)
{
#pragma omp parallel for schedule(static) num_threads(cpu_threads) if (n > BLOCK)
    for (int64_t i = 0; i < n; i += BLOCK)
        BY_ACTIVATION(act, backward_run((Element *)dx + i, (const Element *)dy + i,
                                        (const Element *)(saved ? saved : dy) + i, fixed,
                                        min_int64(n - i, BLOCK)))
}

// One block of the map: dz set (NULL: not), sums (period) of dz set.
INLINE void backward_block(const Map *m, Element *dz, float *sums, const Element *dy,
                           const Element *saved, Activation act, int64_t first)
{
    const int64_t last = map_block_end(m, first);
    memset(sums, 0, (size_t)m->period * sizeof *sums);
    for (int64_t start = first; start < last; start += m->period) {
        const int64_t size = min_int64(m->period, last - start), whole = size - size % VEC;
        for (int64_t i = 0; i < whole; i += VEC) {
            const Vec g = backward(dy + start + i, saved + start + i, act);
            vec_store(sums + i, vec_load(sums + i) + g);
            if (dz) elem_store(dz + start + i, g);
        }
        if (whole < size) {
            const int64_t at = start + whole, count = size - whole;
            const Vec g = backward_part(dy + at, saved + at, act, count);
            vec_store(sums + whole, vec_load(sums + whole) + g);
            if (dz) elem_store_part(dz + at, g, count);
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
        BY_ACTIVATION(act, backward_block(&m, dz, own, dy, saved ? saved : dy, fixed, b * m.block))
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
