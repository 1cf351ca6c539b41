// A map (rows,channels) seen as one run of floats, for any number of channels.
//
// Values of a channel are repeated until they fill cache lines: a `period`. Float i of the map then
// belongs to place i % period, and no vector straddles two periods. Threads share out `blocks`,
// whole periods that fit the L2 cache; their number depends on the shape alone, so that sums over
// rows have the same bits for any number of threads.
#ifndef KERNELS_CPU_MAP_H
#define KERNELS_CPU_MAP_H

#include "kernels/cpu/integer.h"
#include "kernels/kernels.h"

enum { LINE = 16, MAP_BLOCK = 16384, MAP_LEAST_PERIOD = 8 * LINE };

typedef struct Map {
    int64_t size; // floats
    int64_t period, block, blocks;
    int channels;
} Map;

static inline Map map_of(MapDims d)
{
    int64_t period = d.channels;
    while (period % LINE != 0) period *= 2;
    if (period < MAP_LEAST_PERIOD) period *= div_up(MAP_LEAST_PERIOD, period);
    const int64_t size = d.rows * d.channels;
    const int64_t block = period * (period < MAP_BLOCK ? MAP_BLOCK / period : 1);
    return (Map){size, period, block, div_up(size, block), d.channels};
}

// The end of the block that starts at `first`.
static inline int64_t map_block_end(const Map *m, int64_t first)
{
    return min_int64(first + m->block, m->size);
}

// The first `channels` floats of a period become all of it.
static inline void map_repeat(const Map *m, float *values)
{
    for (int64_t i = m->channels; i < m->period; i++) values[i] = values[i - m->channels];
}

// sums (channels) = those of a period of sums, in order.
static inline void map_fold(const Map *m, double *sums, const float *period)
{
    for (int c = 0; c < m->channels; c++) {
        sums[c] = 0;
        for (int64_t i = c; i < m->period; i += m->channels) sums[c] += (double)period[i];
    }
}

// total (channels) = the sum of partial (blocks,channels) in order, `step` doubles from one block
// to the next.
static inline void map_add_blocks(const Map *m, double *total, const double *partial, int64_t step)
{
    for (int c = 0; c < m->channels; c++) total[c] = 0;
    for (int64_t b = 0; b < m->blocks; b++)
        for (int c = 0; c < m->channels; c++) total[c] += partial[b * step + c];
}

#endif
