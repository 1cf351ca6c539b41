// What the convolution's operations share: how the batch is cut, and the zero padded copy.
#ifndef KERNELS_CPU_CONV2D_H
#define KERNELS_CPU_CONV2D_H

#include "kernels/cpu/activation.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/memory.h"

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
enum { CONV_PIXELS = CPU_BF16 ? 150 : 208, CONV_L2_ELEMENTS = 768 * 1024 / sizeof(Element) };
ConvUnit conv_unit(const ConvUnits *u, int64_t index);

// Elements of a unit's padded copy, which conv_pad sets: (images, padded rows, width, c), and zeros
// behind it: one pixel and GEMM_STEP elements or more.
int64_t conv_padded_size(const ConvUnits *u, const ConvMap *map);
// Row `row` of image `image` of the padded map: (width,c).
void conv_pad_row(Element *to, const ConvMap *map, int64_t image, int row);
void conv_pad(Element *padded, const ConvUnits *u, const ConvUnit *unit, const ConvMap *map);
// offset[i]: where the window of a unit's pixel i starts in its padded copy; max_pixels of them.
void conv_offsets(int32_t *offset, const ConvUnits *u, const ConvMap *map);

// What becomes of the values v, (pixels,channels) of the whole batch each:
// z = (v - mean) * scale + bias, y = act(z). What a channel has one of may be NULL: not done.
typedef struct ConvOutput {
    Element *y, *z; // z NULL: not stored
    bool pool;
    uint8_t *argmax;           // of the pooled map; NULL: not stored
    float *stats;              // (3,channels), of z; NULL: none
    const float *mean, *scale; // (channels) both or none
    const float *bias;         // (channels)
    Activation act;
    int channels;
} ConvOutput;

// The block (pixels,GEMM_NR) of a unit on its way to memory.
typedef struct ConvTarget {
    const ConvOutput *o;
    int64_t row;          // of the block's first pixel, or window, in y
    int channel;          // the block's first
    const int64_t *place; // of the block's pixel or window i in y, behind `row`; NULL: i
    int pixel; // a window's four are so many rows of the block apart; 0: they follow each other
} ConvTarget;

// A GemmFinish with a ConvTarget: stores rows first..end-1 of a block, which are its values before
// pooling, norm and bias. For the statistics the block keeps what is pooled and has its bias.
void conv_finish(void *target, float *block, int first, int end);
// mean and m2 (GEMM_NR) of a block's rows and of `count` values before them.
void conv_add_stats(float *mean, float *m2, int64_t count, const float *block, int rows);
// The output's statistics from those of its units, (units,2,channels rounded up to GEMM_NR), and
// their counts. Called by all threads.
void conv_merge_stats(const ConvOutput *o, int64_t units, const int32_t *counts,
                      const float *unit_stats);

// w (cout,kernel,kernel,cin) as the panel of output channels from `channel` on, in `segments` (rows
// of the kernel, or its taps): forward, or flipped and with the channels' parts exchanged.
void conv_pack_weights(Element *panel, const Element *w, bool flipped, ConvDims d, int segments,
                       int channel);
// The sliding of conv2d.c by AMX, conv2d_amx_bf16.c. False: not for this shape or processor.
bool conv_slide_amx(const ConvOutput *o, const ConvMap *map, const Element *w, bool flipped,
                    int stride, int rows, int width, bool pool, ConvDims d);

// Without argmax, dy is the gradient of the convolution's output; with it, of the pooled map.
void conv_backward_data(Element *dx, const Element *dy, const uint8_t *argmax, const Element *w,
                        ConvDims d);
void conv_pool_backward_data(void *dx, const void *dy, const uint8_t *argmax, const void *w,
                             ConvDims d); // conv2d_pool_backward_f32.c, _bf16.c
void conv_backward_weight(float *dw, const Element *dy, const uint8_t *argmax, const Element *x,
                          GradMode mode, ConvDims d); // conv2d_weight_f32.c, _bf16.c
// conv2d_weight_amx_bf16.c: the same through the matrix unit. False: not for this shape or this
// processor.
bool conv_backward_weight_amx(float *dw, const Element *dy, const uint8_t *argmax, const Element *x,
                              GradMode mode, ConvDims d);
// conv2d_pool_grey_f32.c: fp32 with pooling where x has one channel, forward and the weight
// gradient. False: not for this shape or this processor.
bool conv_pool_forward_grey(const ConvOutput *o, const float *x, const float *w, ConvDims d);
bool conv_pool_backward_weight_grey(float *dw, const float *dy, const uint8_t *argmax,
                                    const float *x, GradMode mode, ConvDims d);
// Parts to cut the units into, each with its own sums of `size` floats, when the sums are already
// cut into `chunks` and there should be `items` of both.
int64_t conv_parts(int64_t items, int64_t units, int64_t chunks, int64_t size);

#endif
