// Small pictures in a page, as PNG inside it.
#ifndef PAGES_PICTURES_H
#define PAGES_PICTURES_H

#include <stdint.h>

#include "pages/html.h"

typedef struct Pictures {
    int count, h, w, c; // c: 1 grey, 3 colours
    uint8_t *pixels;    // (count,h,w,c)
} Pictures;

// Pictures of images (count,h,w,c), at most 64 pixels wide and high: larger ones are shrunk by a
// whole number. Of two or more than three channels only the first, or the first three, are shown.
// None if memory is short.
Pictures pictures_of(const uint8_t *images, int count, int h, int w, int c);
void pictures_free(Pictures *p);

// The <img> of one picture; `text` says what it is to who cannot see it.
void picture_write(Html *h, const Pictures *p, int i, const char *text);

// All in one <img>, `columns` in a row with a gap between them.
void pictures_write(Html *h, const Pictures *p, int columns, const char *text);

#endif
