// The order of an epoch: a permutation of 0 .. n-1 that is a pure function of (seed, epoch), and
// any position of it can be asked for alone. So no list is stored, every process knows the whole
// order, and a run that is resumed inside an epoch needs two integers.
#ifndef DATA_ORDER_H
#define DATA_ORDER_H

#include <stdbool.h>
#include <stdint.h>

// A grid of at least `n` cells on which the permutation works.
typedef struct OrderGrid {
    int64_t n;
    uint32_t rows, columns;
} OrderGrid;

typedef struct Order {
    bool shuffle;
    int64_t n;
    int64_t block, window; // images
    int64_t shift;
    uint64_t seed;
    uint32_t epoch;
    OrderGrid blocks, inside, last; // whole blocks; inside a window; inside the last window
} Order;

// The whole order is one permutation if block is 0. Otherwise blocks of `block` images change
// places and then images change places inside a window of `window` blocks, so that a data set
// larger than memory is read in long pieces.
void order_init(Order *o, int64_t n, bool shuffle, int64_t block, int64_t window, uint64_t seed,
                int64_t epoch);

// The index of the image at `position`, both 0 .. n-1.
int64_t order_at(const Order *o, int64_t position);

// Sets index[i] = order_at(position + i * step) for i < count, in half the time; n is at most
// 2^32.
void order_fill(const Order *o, int64_t position, int64_t step, int64_t count, uint32_t *index);

// The first index of the block whose images are at the positions of `position`'s block, before they
// change places inside their window; it may run past n and go on at 0.
int64_t order_block(const Order *o, int64_t position);

#endif
