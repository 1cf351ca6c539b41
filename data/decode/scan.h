// The images below a directory, one directory a class: DIR/CLASS/*.{jpg,jpeg,png,bmp}, or
// DIR/train/CLASS/* and DIR/test/CLASS/*. Nothing is opened but directories, links are not
// followed, and names are not trusted.
//
// Images come in an order keyed by the hash of their path, not class by class: whoever looks at the
// first few thousand images sees all classes.
#ifndef DATA_DECODE_SCAN_H
#define DATA_DECODE_SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "data/shard.h"

typedef struct ScanImage {
    char *path;   // below the directory
    uint64_t key; // the order
    int label;
    char *bad; // why the file cannot be read, or NULL; set by others, freed here
} ScanImage;

typedef struct ScanList {
    ScanImage *list;
    int64_t n, capacity;
} ScanList;

// Adds a picture. STATUS_IO, as for no memory.
int scan_list_add(ScanList *l, const char *path, uint64_t key, int label, Error *e);
void scan_list_free(ScanList *l);

bool scan_is_image_name(const char *name); // *.jpg, .jpeg, .png or .bmp

typedef struct LeftOut {
    char *path, *reason;
    bool folder; // or a link to one
} LeftOut;

typedef struct Scan {
    const char *dir;
    double test_fraction;
    bool split;     // the directory holds train/ and test/
    char **classes; // sorted by their bytes
    int class_count;
    ScanList images[2];
    LeftOut *left_out;
    int64_t left_out_count, left_out_capacity;
} Scan;

// test_fraction: of a directory that is not split; 0: a tenth. STATUS_DATA for what is wrong with
// the directory, as an empty class: then, too, `s` has what was left out, and must be closed. `dir`
// must stay.
int scan_open(Scan *s, const char *dir, double test_fraction, Error *e);

int scan_leave_out(Scan *s, const char *path, const char *reason, Error *e);

// How many folders were left out, and the first of them by its path.
int64_t scan_folders_left_out(const Scan *s, const LeftOut **first);

// "path<tab>reason" a line, sorted, control characters and what is not UTF-8 as \xNN; to be freed.
// NULL if there is no memory.
char *scan_left_out(Scan *s, Error *e);

void scan_close(Scan *s);

#endif
