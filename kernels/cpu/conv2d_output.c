// The last steps of a convolution, on a block of its values that is in the cache: pooling, norm,
// bias, activation, the stores, and the statistics of what was stored.
#include "kernels/cpu/conv2d_output.h"

#include "kernels/cpu/activation.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/integer.h"

// Windows first..end-1 of the block become their maxima, from the block's front on; one vector of
// channels.
static void pool_rows(const ConvTarget *t, float *c, int channel, int first, int end)
{
    typedef uint8_t Bytes __attribute__((vector_size(VEC)));
    const int64_t channels = t->o->channels, window = t->pixel ? 1 : 4,
                  pixel = t->pixel ? t->pixel : 1;
    const size_t count = (size_t)min_int(channels - channel, VEC);
    for (int i = first; i < end; i++) {
        const float *const from = c + i * window * GEMM_NR;
        Vec best = vec_load(from);
        VecInt at = {0};
        for (int j = 1; j < 4; j++) {
            const Vec v = vec_load(from + j * pixel * GEMM_NR);
            const VecInt larger = ((v > best) | (v != v)) & (best == best); // as in pool.c
            best = vec_select(larger, v, best);
            at = (larger & j) | (~larger & at);
        }
        vec_store(c + i * GEMM_NR, best);
        if (!t->o->argmax) continue;
        const Bytes bytes = __builtin_convertvector(at, Bytes);
        uint8_t *const to =
            t->o->argmax + (t->row + (t->place ? t->place[i] : i)) * channels + channel;
        if (count == VEC)
            memcpy(to, &bytes, VEC);
        else
            memcpy(to, &bytes, count);
    }
}

// Rows first..end-1, where y is the values themselves; VEC + `second` channels, or fewer than VEC.
INLINE void store_plain_rows(const ConvTarget *t, float *c, int first, int end, const int second)
{
    const ConvOutput o = *t->o;
    const bool two = second > 0;
    const int one = two ? VEC : VEC + second;
    const float *const b = o.bias ? o.bias + t->channel : NULL;
    const Vec bias0 = b ? vec_load_up_to(b, one) : (Vec){0},
              bias1 = b && two ? vec_load_up_to(b + VEC, second) : (Vec){0};
    for (int i = first; i < end; i++) {
        float *const row = c + i * GEMM_NR;
        const Vec v0 = vec_load(row) + bias0, v1 = vec_load(row + VEC) + bias1;
        Element *const to = o.y + (t->row + (t->place ? t->place[i] : i)) * o.channels + t->channel;
        if (o.stats && b) vec_store(row, v0), vec_store(row + VEC, v1);
        elem_store_up_to(to, v0, one);
        if (two) elem_store_up_to(to + VEC, v1, second);
    }
}

// One vector of channels of these rows, with any output there is.
static void store_rows(const ConvTarget *t, float *c, int channel, int first, int end)
{
    const ConvOutput o = *t->o;
    const int count = o.channels - channel;
    const Vec bias = o.bias ? vec_load_up_to(o.bias + channel, count) : (Vec){0},
              mean = o.mean ? vec_load_up_to(o.mean + channel, count) : (Vec){0},
              scale = o.mean ? vec_load_up_to(o.scale + channel, count) : vec_set(1.0f);
    for (int i = first; i < end; i++) {
        const Vec v = (vec_load(c + i * GEMM_NR) - mean) * scale + bias;
        const int64_t to = (t->row + (t->place ? t->place[i] : i)) * o.channels + channel;
        if (o.stats) vec_store(c + i * GEMM_NR, v);
        if (o.z) elem_store_up_to(o.z + to, v, count);
        elem_store_up_to(o.y + to, vec_act(o.act, v), count);
    }
}

void conv_finish(void *context, float *c, int first, int end)
{
    const ConvTarget t = *(const ConvTarget *)context; // copies stay in registers
    const ConvOutput *const o = t.o;
    const int channels = min_int(o->channels - t.channel, GEMM_NR);
    if (o->pool) {
        first /= 4, end /= 4; // the windows that are complete now
        for (int j = 0; j < channels; j += VEC) pool_rows(&t, c + j, t.channel + j, first, end);
    }
    const bool plain = !o->z && !o->mean && o->act == ACT_NONE;
    if (plain && channels == GEMM_NR)
        store_plain_rows(&t, c, first, end, VEC);
    else if (plain)
        store_plain_rows(&t, c, first, end, channels - VEC);
    for (int j = 0; j < channels && !plain; j += VEC)
        store_rows(&t, c + j, t.channel + j, first, end);
}

// Chan's formula for one vector of channels: m2 are sums of squared deviations from the mean.
INLINE void merge_stats(Vec *mean, Vec *m2, int64_t count, Vec more_mean, Vec more_m2, int64_t more)
{
    const Vec delta = more_mean - *mean;
    const float all = (float)(count + more);
    *mean += delta * ((float)more / all);
    *m2 += more_m2 + delta * delta * ((float)count * (float)more / all);
}

// In two passes since the block is in the cache. CHAINS sums run side by side because one waits for
// its last addition.
void conv_add_stats(float *mean, float *m2, int64_t count, const float *c, int rows)
{
    enum { CHAINS = 4 };
    Vec sum[2][CHAINS] = {0}, square[2][CHAINS] = {0}, average[2];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < 2; j++) sum[j][i % CHAINS] += vec_load(c + i * GEMM_NR + j * VEC);
    for (int j = 0; j < 2; j++)
        average[j] = ((sum[j][0] + sum[j][1]) + (sum[j][2] + sum[j][3])) / (float)rows;
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < 2; j++) {
            const Vec delta = vec_load(c + i * GEMM_NR + j * VEC) - average[j];
            square[j][i % CHAINS] += delta * delta;
        }
    }
    for (int j = 0; j < 2; j++, mean += VEC, m2 += VEC) {
        Vec all = count ? vec_load(mean) : (Vec){0}, squares = count ? vec_load(m2) : all;
        merge_stats(&all, &squares, count, average[j],
                    (square[j][0] + square[j][1]) + (square[j][2] + square[j][3]), rows);
        vec_store(mean, all);
        vec_store(m2, squares);
    }
}

void conv_merge_stats(const ConvOutput *o, int64_t units, const int32_t *counts,
                      const float *unit_stats)
{
    const int64_t padded = div_up(o->channels, GEMM_NR) * GEMM_NR;
#pragma omp for schedule(static)
    for (int j = 0; j < o->channels; j += VEC) {
        Vec mean = {0}, m2 = {0};
        int64_t count = 0;
        for (int64_t i = 0; i < units; i++) { // in their order
            merge_stats(&mean, &m2, count, vec_load(unit_stats + 2 * i * padded + j),
                        vec_load(unit_stats + (2 * i + 1) * padded + j), counts[i]);
            count += counts[i];
        }
        const int left = o->channels - j;
        vec_store_up_to(o->stats + j, vec_set((float)count), left);
        vec_store_up_to(o->stats + o->channels + j, mean, left);
        vec_store_up_to(o->stats + 2 * o->channels + j, m2, left);
    }
}
