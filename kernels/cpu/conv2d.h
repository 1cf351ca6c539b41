// What the convolution's operations share: how the batch is cut, and the zero padded copy.
#ifndef KERNELS_CPU_CONV2D_H
#define KERNELS_CPU_CONV2D_H

#include "kernels/cpu/gemm.h"

// A map under a sliding kernel. Padded with zeros a piece at a time, in scratch memory, a kernel's
// window is one run of memory for each of its rows.
typedef struct ConvMap {
    const float *x;        // (n,h,w,c)
    const uint8_t *argmax; // the same shape: x is the gradient of a map pooled by 2x2 windows, and
                           // each value belongs to this place of its window. NULL: x is the map
    int h, w, c;
    int dilation; // place of x[i][j] in the padded map: before + dilation * i, the same for j
    int before;   //   (with argmax: of the window)
    int width;    // of the padded map
} ConvMap;

// How the batch is cut into units of work, by the shape alone: whole images, or strips of rows of
// one. rows and width are of the map whose pixels are visited, the convolution's output; with pool
// only those in its 2x2 windows, a window's four in a row.
typedef struct ConvUnits {
    int64_t n, count;
    int rows, width, pool; // pool: 0 or 1
    int strips;            // of an image
    int images;            // of a unit, at most
    int kernel, stride;
    int padded_rows, max_pixels; // of a unit, at most
} ConvUnits;

typedef struct ConvUnit {
    int64_t image, pixel; // the first ones; `pixel` counts through the batch
    int images, row, rows, pixels;
} ConvUnit;

// rows, width: of the convolution's output.
ConvUnits conv_units(const ConvMap *map, int64_t n, int rows, int width, int kernel, int stride,
                     bool pool);
ConvUnit conv_unit(const ConvUnits *u, int64_t index);

// Floats of a unit's padded copy, which conv_pad sets: (images, padded rows, width, c).
int64_t conv_padded_size(const ConvUnits *u, const ConvMap *map);
void conv_pad(float *padded, const ConvUnits *u, const ConvUnit *unit, const ConvMap *map);
// offset[i]: where the window of a unit's pixel i starts in its padded copy; max_pixels of them.
void conv_offsets(int32_t *offset, const ConvUnits *u, const ConvMap *map);

// conv2d_weight.c
void cpu_conv2d_weight_ops(Kernels *k);

#endif
