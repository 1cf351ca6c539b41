// Writes a data set: images stream in, shards stream out, and the directory appears with all of
// them or not at all.
#ifndef DATA_PACK_PACK_H
#define DATA_PACK_PACK_H

#include <stdbool.h>
#include <stdint.h>

#include "data/shard.h"

typedef struct PackConfig {
    int h, w, c, classes;
    char *const *class_names; // (classes)
    bool crop;                // how pictures of another shape were made to fit
    int64_t most[2];          // images of each split at most; room for labels is kept by it
    int64_t shard_bytes;      // of images in a shard
    const char *options;      // what besides the images makes the data set, for its id
    bool force;               // replace an existing data set
} PackConfig;

typedef struct PackSummary {
    int64_t n[2], bytes;
    int shards;
    float mean[4], std[4];
} PackSummary;

typedef struct Packer Packer;

int packer_open(Packer **p, const char *dir, const PackConfig *c, Error *e);

// image (H, W, C).
int packer_add(Packer *p, Split split, const uint8_t *image, int label, Error *e);

// Adds another small file to the directory.
int packer_add_file(Packer *p, const char *name, const char *text, size_t size, Error *e);

// Makes the data set appear. Fails with STATUS_DATA if a split has no image.
int packer_commit(Packer *p, PackSummary *s, Error *e);

void packer_close(Packer *p); // what was not committed is removed; NULL is allowed

#endif
