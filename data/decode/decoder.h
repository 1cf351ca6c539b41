// Pictures from files to pixels, in the order of a list. This process reads the files; what looks
// at their contents are the processes of data/decode/sandbox.h.
#ifndef DATA_DECODE_DECODER_H
#define DATA_DECODE_DECODER_H

#include <stdbool.h>

#include "data/decode/sandbox.h"
#include "data/decode/scan.h"

// What becomes of a picture.
typedef struct Wanted {
    int h, w, c;    // h = 0: its size is asked for, no pixels
    bool crop;      // cut to the shape h:w, in place of stretching
    bool exact;     // no other size will do
    bool as_stored; // EXIF's orientation is not applied
} Wanted;

typedef struct Decoder {
    Wanted wanted;
    Sandbox *sandbox;
    const char *notice; // what the user should know, or NULL
} Decoder;

// A list on its way through the decoder; put and taken start at 0.
typedef struct DecoderQueue {
    const char
        *dir; // that the list's paths are in; NULL: they are the user's own, see image_read_named()
    ScanList *list;
    int64_t put, taken; // pictures that went into the sandbox, and came out
} DecoderQueue;

// With at most `workers` processes, fewer for few `images`. `d` must stay where it is.
int decoder_open(Decoder *d, const Wanted *wanted, int64_t images, int workers, Error *e);

// Sets *entry to the list's next picture, NULL after the last one, and *r to what became of it;
// *image (h, w, c) is valid until the next call. Only STATUS_IO fails.
int decoder_next(Decoder *d, DecoderQueue *q, ScanImage **entry, const uint8_t **image,
                 SandboxResult *r, Error *e);

void decoder_close(Decoder *d);

#endif
