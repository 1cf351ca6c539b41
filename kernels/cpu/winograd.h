// Winograd's convolution F(4x4,3x3): 3x3 kernels of stride 1 with a quarter to a half of the
// multiplications.
//
//   A tile of 6x6 inputs d gives 4x4 outputs y of a kernel g, both ways of Lavin & Gray 2015,
//   equation 12:  y = A' [(G g G') . (B' d B)] A,  the sum over input channels taken in the middle:
//   for each of the 36 points one matrix product (tiles x cin) (cin x cout).
//   The weight gradient exchanges the parts: with dy (4x4) as the kernel, 3x3 outputs.
//
// The points are 0, +-5/8, +-3/2 and infinity: their rounding error is less than half of that of
// the usual 0, +-1, +-2, and A' and B' are exact in fp32.
#ifndef KERNELS_CPU_WINOGRAD_H
#define KERNELS_CPU_WINOGRAD_H

#include "kernels/cpu/conv2d_output.h"
#include "kernels/cpu/conv2d_units.h"

// The one rule by which convolutions go this way, for maps of `from` channels to `to`; its table is
// in winograd_f32.c.
typedef enum { WINO_SLIDE, WINO_POOL_DATA, WINO_WEIGHT } WinoUse;
bool winograd_wins(WinoUse use, ConvWindows windows, int from, int to);

void winograd_slide(const ConvOutput *o, const ConvSlide *slide);

void winograd_backward_weight(float *dw, const Element *dy, const Element *x, GradMode mode,
                              ConvDims d); // winograd_weight_f32.c

#endif
