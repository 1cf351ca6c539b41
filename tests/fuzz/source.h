// Reads a source to its end, as prepare does.
#ifndef TESTS_FUZZ_SOURCE_H
#define TESTS_FUZZ_SOURCE_H

#include "data/pack/source.h"
#include "tests/fuzz/fuzz.h"

static inline void read_source(Source *s, int status, Error *e)
{
    check_failure(status, e);
    if (status) return;
    assert(s->h >= 1 && s->w >= 1 && s->h <= SHARD_MAX_SIDE && s->w <= SHARD_MAX_SIDE);
    const size_t bytes = (size_t)s->h * (size_t)s->w * (size_t)s->c;
    uint8_t *image = bytes <= 1 << 24 ? malloc(bytes) : NULL;
    for (int split = 0; split < 2 && image && !status; split++)
        for (int label = 0, n = 0; !status && label >= 0 && n < 1000; n++) {
            status = s->next(s, (Split)split, image, &label, e);
            check_failure(status, e);
            assert(status || label < s->classes);
        }
    free(image);
    s->close(s);
}

#endif
