// The pictures that a user names: files, folders and standard input.
#ifndef DATA_DECODE_PICTURE_LIST_H
#define DATA_DECODE_PICTURE_LIST_H

#include "data/decode/scan.h"

// Sets `l` to files as they are named, "-" for standard input, and for a folder every .jpg, .jpeg,
// .png and .bmp in it and in the folders below, in the order of their names. Links inside a folder
// are not followed, and names that start with a dot are passed over. A picture of a folder has as
// its label the class that is called like the folder it lies in; without one, and if it was named
// itself, -1. `*folders`: whether there was a folder. STATUS_DATA for one without pictures.
int named_open(ScanList *l, char *const *paths, int count, char *const *class_names, int classes,
               bool *folders, Error *e);

#endif
