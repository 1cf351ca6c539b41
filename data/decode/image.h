// Image files (JPEG, PNG, BMP) become pixels of a wanted size. Bytes from outside are not trusted:
// limits and the file's structure are checked before the decoder sees them.
#ifndef DATA_DECODE_IMAGE_H
#define DATA_DECODE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    IMAGE_MAX_BYTES = 64 << 20, // of a file
    IMAGE_MAX_SIDE = 16384,
    IMAGE_MAX_PIXELS = 64 << 20,
};

// Sets bytes (IMAGE_MAX_BYTES) to the contents of a regular file. Fails with STATUS_DATA for what
// is wrong with the file. As below, the message is the reason alone, without the path.
int image_read(const char *path, uint8_t *bytes, size_t *size, Error *e);

// The same for a path that the user gave: "-" is standard input, links are followed, and a pipe
// will do.
int image_read_named(const char *path, uint8_t *bytes, size_t *size, Error *e);

typedef struct ImageInfo {
    int h, w;        // as it is to be seen
    int orientation; // how it is stored, by EXIF's number: 1 as it is to be seen, 2..8 turned
} ImageInfo;

// Checks the file's structure and sets `info`. Without `exif` a picture is seen as it is stored.
int image_info(const uint8_t *bytes, size_t size, bool exif, ImageInfo *info, Error *e);

// image (h, w, c), set: the file's picture in grey (c = 1) or RGB (c = 3), resized if it has
// another size. `info` is what image_info() said, which must have accepted the file. Transparency
// is dropped. `crop` as in image_resize().
int image_decode(uint8_t *image, int h, int w, int c, bool crop, const uint8_t *bytes, size_t size,
                 const ImageInfo *info, Error *e);

// to (to_h, to_w, c), set from `from` (from_h, from_w, c): bilinear, and as a triangle filter over
// all pixels that shrink into one. `crop` keeps the shape and cuts the longer side at both
// ends; without it the picture is stretched. Integer arithmetic: the same bytes on every machine.
int image_resize(uint8_t *to, int to_h, int to_w, const uint8_t *from, int from_h, int from_w,
                 int c, bool crop, Error *e);

// grey (n) from rgb (n, 3), with the decoder's weights.
void image_to_grey(uint8_t *grey, const uint8_t *rgb, size_t n);

#endif
