#include "data/order.h"

#include <math.h>

#include "base/philox.h"

enum { ROUNDS = 6, LANES = 64 };

static OrderGrid grid(int64_t n)
{
    if (n <= 0) return (OrderGrid){0};
    const uint32_t rows = (uint32_t)ceil(sqrt((double)n));
    return (OrderGrid){n, rows, (uint32_t)((n + rows - 1) / rows)};
}

// One of the network's random functions of all cells: to[i] plus a function of from[i], modulo
// size, which is below 2^31. The compiler makes vectors of it.
static inline void add_round(const Order *o, uint32_t round, const uint32_t *from, uint32_t *to,
                             uint32_t size, int n)
{
    const uint32_t key0 = (uint32_t)o->seed, key1 = (uint32_t)(o->seed >> 32), epoch = o->epoch;
#pragma omp simd
    for (int i = 0; i < n; i++) {
        const Philox r = philox4(key0, key1, from[i], round, epoch, STREAM_ORDER);
        const uint32_t sum = to[i] + philox_below(r.v[0], size);
        to[i] = sum >= size ? sum - size : sum;
    }
}

// A Feistel network on (row, column) of n <= LANES cells: each round adds a random function of one
// to the other, which is a bijection of the grid whatever the function is (Black and Rogaway,
// "Ciphers with arbitrary finite domains", 2002).
static void permute_once(const Order *o, uint32_t domain, const OrderGrid *g, int64_t *x, int n)
{
    uint32_t row[LANES], column[LANES];
    for (int i = 0; i < n; i++) {
        row[i] = (uint32_t)(x[i] / g->columns);
        column[i] = (uint32_t)(x[i] % g->columns);
    }
    for (uint32_t round = 0; round < ROUNDS; round += 2) {
        add_round(o, domain * 8 + round, column, row, g->rows, n);
        add_round(o, domain * 8 + round + 1, row, column, g->columns, n);
    }
    for (int i = 0; i < n; i++) x[i] = (int64_t)row[i] * g->columns + column[i];
}

// A cell outside 0 .. g->n-1 is sent through again until it is inside: the cycle it is on contains
// the starting point, so this ends.
static void permute(const Order *o, uint32_t domain, const OrderGrid *g, int64_t *x, int n)
{
    permute_once(o, domain, g, x, n);
    for (int i = 0; i < n; i++)
        while (x[i] >= g->n) permute_once(o, domain, g, &x[i], 1);
}

void order_init(Order *o, int64_t n, bool shuffle, int64_t block, int64_t window, uint64_t seed,
                int64_t epoch)
{
    *o = (Order){.shuffle = shuffle,
                 .n = n,
                 .block = n,
                 .window = n,
                 .seed = seed,
                 .epoch = (uint32_t)epoch};
    if (shuffle && block > 0 && block * window < n) {
        // The rest after the last whole block stays at the end: what it holds must differ between
        // epochs, so blocks begin at another image each time.
        const Philox r = philox(seed, STREAM_ORDER, UINT64_MAX, o->epoch);
        o->block = block;
        o->window = block * window;
        o->shift = (int64_t)(((uint64_t)r.v[0] << 32 | r.v[1]) % (uint64_t)n);
        o->blocks = grid(n / block);
    }
    o->inside = grid(o->window);
    o->last = grid(n % o->window);
}

// Of positions in one window: sets index[0..n), n <= LANES.
static void fill_in_window(const Order *o, int64_t position, int64_t step, int n, int64_t *index)
{
    const int64_t window = position / o->window, start = window * o->window;
    const OrderGrid *inside = o->n - start >= o->window ? &o->inside : &o->last;
    for (int i = 0; i < n; i++) index[i] = position + i * step - start;
    permute(o, (uint32_t)window + 1, inside, index, n);
    if (o->block == o->n) return;
    for (int i = 0; i < n; i++) {
        const int64_t x = start + index[i];
        index[i] = (order_block(o, x) + x % o->block) % o->n;
    }
}

void order_fill(const Order *o, int64_t position, int64_t step, int64_t count, uint32_t *index)
{
    int64_t few[LANES];
    for (int64_t at = position, end = position + count * step; at < end;) {
        const int64_t border = o->shuffle ? (at / o->window + 1) * o->window : end;
        const int64_t left = ((border < end ? border : end) - at + step - 1) / step;
        const int n = left < LANES ? (int)left : LANES;
        if (o->shuffle)
            fill_in_window(o, at, step, n, few);
        else
            for (int i = 0; i < n; i++) few[i] = at + i * step;
        for (int i = 0; i < n; i++) *index++ = (uint32_t)few[i];
        at += n * step;
    }
}

int64_t order_at(const Order *o, int64_t position)
{
    int64_t index = position;
    if (o->shuffle) fill_in_window(o, position, 1, 1, &index);
    return index;
}

int64_t order_block(const Order *o, int64_t position)
{
    int64_t block = position / o->block;
    if (block < o->blocks.n) permute(o, 0, &o->blocks, &block, 1);
    return (block * o->block + o->shift) % o->n;
}
