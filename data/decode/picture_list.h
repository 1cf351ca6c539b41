// The pictures that a user names: files, folders and standard input.
#ifndef DATA_DECODE_PICTURE_LIST_H
#define DATA_DECODE_PICTURE_LIST_H

#include "data/dataset.h"
#include "data/decode/decoder.h"

typedef struct NamedPictures {
    ScanList list;
    bool folders;       // whether one was named
    Decoder decoder;    // to images as the network takes them
    DecoderQueue queue; // of the list
} NamedPictures;

// Lists files as they are named, "-" for standard input, and for a folder every .jpg, .jpeg, .png
// and .bmp in it and in the folders below, in the order of their names. Links inside a folder are
// not followed, and names that start with a dot are passed over. A picture of a folder has as its
// label the class of `d` that is called like the folder it lies in; without one, and if it was
// named itself, -1. STATUS_DATA for a folder without pictures.
//
// Then starts the decoder, with at most `workers` processes, for images as those of `d`. `p` must
// stay where it is.
int named_open(NamedPictures *p, char *const *paths, int count, const Dataset *d, int workers,
               Error *e);
void named_close(NamedPictures *p); // also without named_open()

#endif
