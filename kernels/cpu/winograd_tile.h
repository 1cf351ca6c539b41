// The transforms of winograd.h, one vector of channels at a time.
#ifndef KERNELS_CPU_WINOGRAD_TILE_H
#define KERNELS_CPU_WINOGRAD_TILE_H

#include "kernels/cpu/conv2d_units.h"
#include "kernels/cpu/integer.h"
#include "kernels/cpu/vec.h"

enum { WINO_OUT = 4, WINO_TILE = 6, WINO_POINTS = WINO_TILE * WINO_TILE };

// The finite points 0, +-WINO_A, +-WINO_B; WINO_A2 and WINO_B2 are their squares.
#define WINO_A 0.625f
#define WINO_B 1.5f
#define WINO_A2 (WINO_A * WINO_A)
#define WINO_B2 (WINO_B * WINO_B)

// B' x: row p holds the coefficients of the product of (t - q) over the finite points q other than
// p; the last row, for infinity, that of all.
INLINE void wino_input(Vec y[WINO_TILE], const Vec x[WINO_TILE])
{
    const Vec even_a = x[4] - WINO_B2 * x[2], odd_a = WINO_A * (x[3] - WINO_B2 * x[1]);
    const Vec even_b = x[4] - WINO_A2 * x[2], odd_b = WINO_B * (x[3] - WINO_A2 * x[1]);
    y[0] = x[4] - (WINO_A2 + WINO_B2) * x[2] + WINO_A2 * WINO_B2 * x[0];
    y[1] = even_a + odd_a;
    y[2] = even_a - odd_a;
    y[3] = even_b + odd_b;
    y[4] = even_b - odd_b;
    y[5] = x[5] - (WINO_A2 + WINO_B2) * x[3] + WINO_A2 * WINO_B2 * x[1];
}

// G x for x of `taps` values, 3 or 4: the polynomial x at each point p over the product of (p - q)
// over the other points q; at infinity its last coefficient.
INLINE void wino_kernel(Vec y[WINO_TILE], const Vec *x, const int taps)
{
    const float a = 1 / (2 * WINO_A2 * (WINO_A2 - WINO_B2)),
                b = 1 / (2 * WINO_B2 * (WINO_B2 - WINO_A2));
    Vec odd_a = x[1], odd_b = x[1];
    if (taps == 4) odd_a += WINO_A2 * x[3], odd_b += WINO_B2 * x[3];
    const Vec even_a = a * (x[0] + WINO_A2 * x[2]), even_b = b * (x[0] + WINO_B2 * x[2]);
    odd_a *= a * WINO_A;
    odd_b *= b * WINO_B;
    y[0] = 1 / (WINO_A2 * WINO_B2) * x[0];
    y[1] = even_a + odd_a;
    y[2] = even_a - odd_a;
    y[3] = even_b + odd_b;
    y[4] = even_b - odd_b;
    y[5] = x[taps - 1];
}

// A' x for `count` values of y, 3 or 4: value i sums p^i x over the finite points; the last one
// takes in infinity.
INLINE void wino_output(Vec *y, const Vec x[WINO_TILE], const int count)
{
    const Vec even_a = x[1] + x[2], odd_a = x[1] - x[2];
    const Vec even_b = x[3] + x[4], odd_b = x[3] - x[4];
    y[0] = x[0] + even_a + even_b;
    y[1] = WINO_A * odd_a + WINO_B * odd_b;
    y[2] = WINO_A2 * even_a + WINO_B2 * even_b;
    if (count == 4) y[3] = WINO_A * WINO_A2 * odd_a + WINO_B * WINO_B2 * odd_b;
    y[count - 1] += x[5];
}

// A tile of x (rows `row` floats and pixels `c` floats apart) to its 36 points, `point` floats
// apart.
INLINE void wino_input_tile(float *v, int64_t point, const float *x, int64_t row, int64_t c)
{
    Vec t[WINO_TILE][WINO_TILE];
#pragma GCC unroll 6
    for (int j = 0; j < WINO_TILE; j++) {
        Vec column[WINO_TILE], y[WINO_TILE];
#pragma GCC unroll 6
        for (int i = 0; i < WINO_TILE; i++) column[i] = vec_load(x + i * row + j * c);
        wino_input(y, column);
#pragma GCC unroll 6
        for (int i = 0; i < WINO_TILE; i++) t[i][j] = y[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < WINO_TILE; i++) {
        Vec y[WINO_TILE];
        wino_input(y, t[i]);
#pragma GCC unroll 6
        for (int j = 0; j < WINO_TILE; j++) vec_store(v + (i * WINO_TILE + j) * point, y[j]);
    }
}

// A kernel g (taps,taps) to its 36 points.
INLINE void wino_kernel_tile(float *u, int64_t point, const Vec *g, const int taps)
{
    Vec t[WINO_TILE][4];
#pragma GCC unroll 4
    for (int j = 0; j < taps; j++) {
        Vec column[4], y[WINO_TILE];
#pragma GCC unroll 4
        for (int i = 0; i < taps; i++) column[i] = g[i * taps + j];
        wino_kernel(y, column, taps);
#pragma GCC unroll 6
        for (int i = 0; i < WINO_TILE; i++) t[i][j] = y[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < WINO_TILE; i++) {
        Vec y[WINO_TILE];
        wino_kernel(y, t[i], taps);
#pragma GCC unroll 6
        for (int j = 0; j < WINO_TILE; j++) vec_store(u + (i * WINO_TILE + j) * point, y[j]);
    }
}

// The 36 points of a sum to its y (count,count).
INLINE void wino_output_tile(Vec *y, const float *m, int64_t point, const int count)
{
    Vec t[4][WINO_TILE];
#pragma GCC unroll 6
    for (int j = 0; j < WINO_TILE; j++) {
        Vec column[WINO_TILE], z[4];
#pragma GCC unroll 6
        for (int i = 0; i < WINO_TILE; i++) column[i] = vec_load(m + (i * WINO_TILE + j) * point);
        wino_output(z, column, count);
#pragma GCC unroll 4
        for (int i = 0; i < count; i++) t[i][j] = z[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) wino_output(y + i * count, t[i], count);
}

// How the tiles of a batch are counted. A row of tiles is WINO_OUT rows of outputs, fewer at the
// image's lower edge.
typedef struct WinoTiles {
    int rows, width; // of the outputs
    int tile_rows, tile_cols;
} WinoTiles;

static inline WinoTiles wino_tiles(int rows, int width)
{
    return (WinoTiles){rows, width, (int)div_up(rows, WINO_OUT), (int)div_up(width, WINO_OUT)};
}

// The first `height` rows under tile row `index` of the batch, from a padded map, into the strip
// (height,width,c).
static inline void wino_strip(float *strip, const ConvMap *map, const WinoTiles *t, int64_t index,
                              int height)
{
    const int top = (int)(index % t->tile_rows) * WINO_OUT;
    for (int i = 0; i < height; i++)
        conv_pad_row(strip + (int64_t)i * map->width * map->c, map, index / t->tile_rows, top + i);
}

#endif
