// What the convolution's operations share: how the batch is cut, and the zero padded copy.
#ifndef KERNELS_CPU_CONV2D_H
#define KERNELS_CPU_CONV2D_H

#include "kernels/cpu/element.h"
#include "kernels/cpu/gemm.h"

// A map under a sliding kernel. Padded with zeros a piece at a time, in scratch memory, a kernel's
// window is one run of memory for each of its rows.
typedef struct ConvMap {
    const Element *x;      // (n,h,w,c)
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
    int unit_rows; // of a unit, at most, as the next two
    int padded_rows, max_pixels;
} ConvUnits;

typedef struct ConvUnit {
    int64_t image, pixel; // the first ones; `pixel` counts through the batch
    int images, row, rows, pixels;
} ConvUnit;

// rows, width: of the convolution's output. A unit has about `pixels` and its padded copy about
// `elements` at most, as far as that can be: strips says whether an image may be cut.
ConvUnits conv_units(const ConvMap *map, int64_t n, int rows, int width, int kernel, int stride,
                     bool pool, int pixels, int64_t elements, bool strips);
enum { CONV_PIXELS = 150, CONV_L2_ELEMENTS = 768 * 1024 / sizeof(Element) };
ConvUnit conv_unit(const ConvUnits *u, int64_t index);

// Elements of a unit's padded copy, which conv_pad sets: (images, padded rows, width, c), and zeros
// behind it: one pixel and GEMM_STEP elements or more.
int64_t conv_padded_size(const ConvUnits *u, const ConvMap *map);
void conv_pad(Element *padded, const ConvUnits *u, const ConvUnit *unit, const ConvMap *map);
// offset[i]: where the window of a unit's pixel i starts in its padded copy; max_pixels of them.
void conv_offsets(int32_t *offset, const ConvUnits *u, const ConvMap *map);
// Without argmax, dy is the gradient of the convolution's output; with it, of the pooled map.
void conv_backward_data(Element *dx, const Element *dy, const uint8_t *argmax, const Element *w,
                        ConvDims d);
void conv_backward_weight(float *dw, const Element *dy, const uint8_t *argmax, const Element *x,
                          GradMode mode, ConvDims d); // conv2d_weight.c
// Parts to cut the units into, each with its own sums of `size` floats, when the sums are already
// cut into `chunks` and there should be `items` of both.
int64_t conv_parts(int64_t items, int64_t units, int64_t chunks, int64_t size);
void cpu_conv2d_pool_backward_ops(Kernels *k); // conv2d_pool_backward.c

#endif
