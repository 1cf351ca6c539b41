// Where `prepare` takes images from: one small interface, and a file for each format.
#ifndef DATA_PACK_SOURCE_H
#define DATA_PACK_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "data/shard.h"

// What the user wants to get out of an image folder.
typedef struct FolderOptions {
    int h, w;             // 0: the size of the first image, which all must have
    int c;                // 1 or 3
    bool crop;            // cut to the shape h:w, in place of stretching
    bool as_stored;       // EXIF's orientation is not applied
    bool skip_bad;        // however many files cannot be used
    double test_fraction; // of a folder that is not split; 0: the default of 0.1
    int workers;          // processes that decode; at least 1
} FolderOptions;

typedef struct Source Source;
struct Source {
    int h, w, c, classes; // of every image
    char **class_names;   // (classes)
    int64_t count[2];     // images of each split at most; bad ones are left out
    const char *notice;   // what the user should know, or NULL
    const char *missing;  // the same of folders that are left out

    // Sets image (H, W, C) and label to the next image of the split; label -1 after the last one.
    int (*next)(Source *s, Split split, uint8_t *image, int *label, Error *e);
    // The list of what was left out as text, to be freed, and its lines; NULL on failure. The
    // function is NULL where nothing can be left out. It may be called after any failure.
    char *(*left_out)(Source *s, int64_t *files, Error *e);
    void (*close)(Source *s); // to be called after a failure of opening, too
    void *state;
};

// DIR, or raw or MNIST/raw in it, holds train-images-idx3-ubyte, train-labels-idx1-ubyte,
// t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each as it is, as .gz, with a dot before idx,
// or in a folder of its name.
int idx_open(Source *s, const char *dir, Error *e);

// DIR holds data_batch_1.bin .. data_batch_5.bin, test_batch.bin and batches.meta.txt (CIFAR-10) or
// train.bin, test.bin and fine_label_names.txt (CIFAR-100).
int cifar_open(Source *s, const char *dir, Error *e);

// DIR/CLASS/*.{jpg,jpeg,png,bmp}, or DIR/train/CLASS/* and DIR/test/CLASS/*.
int folder_open(Source *s, const char *dir, const FolderOptions *o, Error *e);

#endif
