// What becomes of a convolution's values on their way to memory, whichever way they are computed.
#ifndef KERNELS_CPU_CONV2D_OUTPUT_H
#define KERNELS_CPU_CONV2D_OUTPUT_H

#include "kernels/cpu/element.h"
#include "kernels/kernels.h"

// Of the values v, (pixels,channels) of the whole batch each:
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

#endif
