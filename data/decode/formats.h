// What is looked at in a picture's file before the decoder sees it. stb_image fills what a file
// lacks with zeros and misreads some headers, so a file that it would decode to other pixels than
// its author's is refused here, or gets another header.
#ifndef DATA_DECODE_FORMATS_H
#define DATA_DECODE_FORMATS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct ImageInfo ImageInfo; // data/decode/image.h

// Each function sets `i` (h, w as stored, and the orientation) or fails with STATUS_DATA, the
// message being the reason alone.
int png_check(const uint8_t *b, size_t size, ImageInfo *i, Error *e);
int jpeg_check(const uint8_t *b, size_t size, ImageInfo *i, Error *e);
int bmp_check(const uint8_t *b, size_t size, ImageInfo *i, Error *e);

// Sets *copy to the file (which was checked) as the decoder reads it right, and *size to its
// bytes, in memory of data/decode/arena.h; to NULL if it does so as it is. STATUS_IO for no memory.
int png_repair(const uint8_t *b, size_t *size, uint8_t **copy, Error *e);
int bmp_repair(const uint8_t *b, size_t *size, uint8_t **copy, Error *e);

// The orientation, 1..8, in EXIF data, which begin with a TIFF header; 1 if it is not there.
int exif_orientation(const uint8_t *b, size_t size);

static inline uint32_t big16(const uint8_t *b)
{
    return (uint32_t)b[0] << 8 | b[1];
}

static inline uint32_t big32(const uint8_t *b)
{
    return big16(b) << 16 | big16(b + 2);
}

static inline uint32_t little16(const uint8_t *b)
{
    return (uint32_t)b[1] << 8 | b[0];
}

static inline uint32_t little32(const uint8_t *b)
{
    return little16(b + 2) << 16 | little16(b);
}

#endif
