// The random decisions that operations make, defined once so that every backend makes the same.
#ifndef KERNELS_RANDOM_H
#define KERNELS_RANDOM_H

#include "kernels/kernels.h"
#include "base/philox.h"

// What happens to one picture. Pixel (y,x) of the output is that of the stored picture at
//   row reflect(y + dy, h), column reflect((mirror ? w - 1 - x : x) + dx, w)
// as (p/255 + offset) * factor, then normalised; inside the square it is 0.
typedef struct AugmentDraw {
    int dy, dx;
    bool mirror;
    int cut_y, cut_x; // top left corner of the square of side Augment.cutout, may be outside
    float offset, factor;
} AugmentDraw;

NN_INLINE int draw_reflect(int i, int size)
{
    const int period = size > 1 ? 2 * (size - 1) : 1;
    i = i < 0 ? -i : i;
    if (i >= period) i %= period; // seldom, and slow
    return i < size ? i : period - i;
}

NN_INLINE AugmentDraw draw_augment(Augment a, int h, int w, uint64_t seed, uint32_t epoch,
                                   uint32_t id)
{
    const Philox place = philox(seed, STREAM_AUGMENT, id, epoch);
    const Philox colour = philox(seed, STREAM_AUGMENT, id + ((uint64_t)1 << 32), epoch);
    const uint32_t shifts = (uint32_t)(2 * a.translate + 1);
    AugmentDraw r;
    r.dy = a.dy - a.translate + (int)philox_below(place.v[0], shifts);
    r.dx = a.dx - a.translate + (int)philox_below(place.v[1], shifts);
    uint32_t flip = 0;
    if (a.flip == FLIP_RANDOM) flip = place.v[2] >> 31;
    if (a.flip == FLIP_ALTERNATE)
        flip = (philox(seed, STREAM_FLIP, id, 0).v[0] >> 31) ^ (epoch & 1);
    r.mirror = (flip != 0) != a.mirror;
    r.cut_y = (int)philox_below(place.v[3], (uint32_t)h) - a.cutout / 2;
    r.cut_x = (int)philox_below(colour.v[0], (uint32_t)w) - a.cutout / 2;
    r.offset = a.brightness * (2.0f * philox_unit(colour.v[1]) - 1.0f);
    r.factor = 1.0f + a.contrast * (2.0f * philox_unit(colour.v[2]) - 1.0f);
    return r;
}

// Four words for elements 4*group .. 4*group + 3 of a sample in dropout layer `layer` (< 256), at
// most 2^26 elements a sample. An element is kept where philox_unit(word) >= rate.
NN_INLINE Philox draw_dropout(uint64_t seed, uint32_t epoch, uint32_t id, int layer, uint32_t group)
{
    return philox4((uint32_t)seed, (uint32_t)(seed >> 32), id, ((uint32_t)layer << 24) | group,
                   epoch, STREAM_DROPOUT);
}

#endif
