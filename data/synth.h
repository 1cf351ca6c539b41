// The embedded data set: ten classes of drawn shapes, so that a trainer runs without any download.
// Image i is a pure function of (seed, i): any thread may draw any image, in any order, and gets
// the same bytes.
#ifndef DATA_SYNTH_H
#define DATA_SYNTH_H

#include <stdint.h>

enum { SYNTH_CLASSES = 10, SYNTH_MIN_SIZE = 16, SYNTH_MAX_SIZE = 96 };

extern const char *const synth_class_names[SYNTH_CLASSES];

// The class of image i, 0..9. Images 10 k .. 10 k + 9 hold every class once, for every k.
int synth_label(uint64_t seed, int64_t i);

// image (h,w,c) uint8, set. h and w: SYNTH_MIN_SIZE .. SYNTH_MAX_SIZE; c: 3 is RGB, 1 the same
// scene in grey.
void synth_image(uint8_t *image, uint64_t seed, int64_t i, int h, int w, int c);

// The mean and standard deviation of each channel, of bytes scaled to [0, 1]: constants measured
// over 10,000 images, of 32x32 for c = 3 and 28x28 for c = 1. The first c elements are set.
void synth_mean_std(int c, float mean[4], float std[4]);

#endif
