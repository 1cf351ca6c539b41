#include "data/order.h"

#include <math.h>

#include "kernels/philox.h"

enum { ROUNDS = 6 };

static OrderGrid grid(int64_t n)
{
    if (n <= 0) return (OrderGrid){0};
    const uint32_t rows = (uint32_t)ceil(sqrt((double)n));
    return (OrderGrid){n, rows, (uint32_t)((n + rows - 1) / rows)};
}

// A Feistel network on (row, column): each round adds a random function of one to the other, which
// is a bijection of the grid whatever the function is (Black and Rogaway, "Ciphers with arbitrary
// finite domains", 2002). A cell outside 0 .. n-1 is sent through again until it is inside: the
// cycle it is on contains the starting point, so this ends.
static int64_t permute(const Order *o, uint32_t domain, const OrderGrid *g, int64_t x)
{
    do {
        uint32_t row = (uint32_t)(x / g->columns), column = (uint32_t)(x % g->columns);
        for (uint32_t round = 0; round < ROUNDS; round += 2) {
            const uint64_t where = (uint64_t)(domain * 8 + round) << 32;
            Philox r = philox(o->seed, STREAM_ORDER, where | column, o->epoch);
            row = (uint32_t)(((uint64_t)row + philox_below(r.v[0], g->rows)) % g->rows);
            r = philox(o->seed, STREAM_ORDER, (where + (1ull << 32)) | row, o->epoch);
            column = (uint32_t)(((uint64_t)column + philox_below(r.v[0], g->columns)) % g->columns);
        }
        x = (int64_t)row * g->columns + column;
    } while (x >= g->n);
    return x;
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

int64_t order_at(const Order *o, int64_t position)
{
    if (!o->shuffle) return position;
    const int64_t window = position / o->window, start = window * o->window;
    const OrderGrid *inside = o->n - start >= o->window ? &o->inside : &o->last;
    const int64_t x = start + permute(o, (uint32_t)window + 1, inside, position - start);
    return (order_block(o, x) + x % o->block) % o->n;
}

int64_t order_block(const Order *o, int64_t position)
{
    int64_t block = position / o->block;
    if (block < o->blocks.n) block = permute(o, 0, &o->blocks, block);
    return (block * o->block + o->shift) % o->n;
}
