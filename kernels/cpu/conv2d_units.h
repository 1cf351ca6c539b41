// What every way to convolve works on: a map under a sliding kernel, and how the batch is cut.
#ifndef KERNELS_CPU_CONV2D_UNITS_H
#define KERNELS_CPU_CONV2D_UNITS_H

#include "kernels/cpu/element.h"
#include "kernels/kernels.h"

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

// The input x (n,h,w,cin) of the convolution.
ConvMap conv_map(const Element *x, ConvDims d);

// The windows that a kernel visits in a map, one for each of rows x width outputs of n images.
typedef struct ConvWindows {
    int64_t n;
    int rows, width;
    int kernel, stride;
    bool pool; // outputs in 2x2 windows of their own, a window's four in a row; no odd last one
} ConvWindows;

// Of the forward convolution.
ConvWindows conv_windows(ConvDims d, bool pool);

// A kernel that slides over a map: forward, or with `flipped` for the gradient of the input, when w
// is flipped and its channels' parts are exchanged.
typedef struct ConvSlide {
    ConvMap map;
    ConvWindows windows;
    const Element *w; // (cout,kernel,kernel,cin)
    bool flipped;
    ConvDims d;
} ConvSlide;

// The panel of output channels from `channel` on of the weights, in `segments`: rows of the kernel,
// or its taps.
void conv_pack_weights(Element *panel, const ConvSlide *s, int segments, int channel);

// How the batch is cut into units of work, by the shape alone: whole images, or strips of rows of
// one. rows and width are of the map whose pixels are visited, the convolution's output; with pool
// only those in its 2x2 windows.
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

// What a unit has at most, as far as that can be.
typedef struct ConvUnitSize {
    int pixels;
    int64_t elements; // of its padded copy
    bool whole_images;
} ConvUnitSize;

enum { CONV_PIXELS = CPU_BF16 ? 150 : 208, CONV_L2_ELEMENTS = 768 * 1024 / sizeof(Element) };
ConvUnits conv_units(const ConvMap *map, ConvWindows windows, ConvUnitSize size);
ConvUnit conv_unit(const ConvUnits *u, int64_t index);

// Elements of a unit's padded copy, which conv_pad sets: (images, padded rows, width, c), and zeros
// behind it: one pixel and GEMM_STEP elements or more.
int64_t conv_padded_size(const ConvUnits *u, const ConvMap *map);
// Row `row` of image `image` of the padded map: (width,c).
void conv_pad_row(Element *to, const ConvMap *map, int64_t image, int row);
void conv_pad(Element *padded, const ConvUnits *u, const ConvUnit *unit, const ConvMap *map);
// offset[i]: where the window of a unit's pixel i starts in its padded copy; max_pixels of them.
void conv_offsets(int32_t *offset, const ConvUnits *u, const ConvMap *map);

// Parts to cut the units into, each with its own sums of `size` floats, when the sums are already
// cut into `chunks` and there should be `items` of both.
int64_t conv_parts(int64_t items, int64_t units, int64_t chunks, int64_t size);

#endif
