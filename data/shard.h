// One shard (`.nns`): a file with a part of a data set's images, their labels and the sums that
// prove both intact. data/README.md has the format byte by byte.
//
// Shards are read with pread: a file that is cut short while it is in use gives an error, where a
// mapped file would give SIGBUS.
#ifndef DATA_SHARD_H
#define DATA_SHARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef enum { SPLIT_TRAIN, SPLIT_TEST } Split;
extern const char *const split_names[2]; // "train", "test"

enum {
    SHARD_BLOCK = 1 << 20, // bytes of images under one sum; only a shard's last block is shorter
    SHARD_ALIGN = 4096,    // of the sections
    SHARD_IMAGE_ALIGN = 2 << 20,
    SHARD_MAX_SIDE = 16384,
    SHARD_MAX_CLASSES = 65535,
    SHARD_MAX_NAME = 255, // bytes of a class's name
    SHARD_MAX_IMAGES = 1 << 26,
};

#define SHARD_MAX_BYTES (1ll << 40) // of images

enum { SHARD_CROPPED = 1 }; // a flag: pictures of another shape were cut to it, not stretched

// The order of the sections in the file.
enum { SECTION_LABELS, SECTION_NAMES, SECTION_COUNTS, SECTION_SUMS, SECTION_IMAGES, SECTIONS };

typedef struct ShardSection {
    uint64_t offset, bytes;
} ShardSection;

// The first 4096 bytes of the file, as they lie there (little-endian).
typedef struct ShardHeader {
    uint8_t magic[8];
    uint32_t byte_order; // 0x01020304
    uint16_t major, minor;
    uint32_t header_bytes;
    uint32_t flags;
    uint64_t file_bytes;
    uint64_t n, first_index, dataset_n; // images here, before here in the split, in the split
    uint32_t shard, shards;
    uint32_t h, w, c;
    uint32_t layout, dtype;
    uint32_t stride; // bytes of an image
    uint32_t label_type;
    uint32_t classes;
    ShardSection images, labels, names, counts, sums;
    uint32_t sum_kind, block;
    uint32_t split;
    uint32_t zero;
    float mean[4],
        std[4];     // of x/255 per channel of the train split; 0 and 1 if there is no channel
    uint8_t id[32]; // of the data set
    uint8_t reserved[3832];
    uint32_t sections_crc; // of labels, names, counts and sums
    uint32_t header_crc;   // of the bytes before it
} ShardHeader;

typedef struct Shard {
    char *path;
    int fd;
    ShardHeader header;
    uint16_t *labels;       // (n)
    char **names;           // (classes), unique UTF-8
    const uint64_t *counts; // (classes) images of each class in this shard
    const uint32_t *sums;   // (blocks)
    int64_t blocks;
    atomic_uchar *checked; // (blocks) 1: the block was read once and its sum was right
    uint8_t *sections;     // what labels, names' text, counts and sums point into
} Shard;

// A header with every fixed field set and the rest zero.
ShardHeader shard_header(void);
// Places the sections for at most `n` images and `names_bytes` of names; sets file_bytes.
// `h`, `w`, `c` and `classes` must be set. Sets n, stride and the sections of `header`.
void shard_layout(ShardHeader *header, int64_t n, uint64_t names_bytes);

static const uint8_t shard_magic[8] = {0x89, 'N', 'N', 'S', '\r', '\n', 0x1a, '\n'};

static inline int64_t shard_blocks(uint64_t image_bytes)
{
    return (int64_t)((image_bytes + SHARD_BLOCK - 1) / SHARD_BLOCK);
}

// Checks every field, with the file's size. `h` has what the file has of it. Afterwards the
// sections lie in the file one after the other, and none is larger than the format allows.
int shard_check_header(const ShardHeader *h, const char *path, uint64_t size, Error *e);

// The section of the given number.
const ShardSection *shard_section(const ShardHeader *header, int section);

// Opens a shard and checks everything but the images. Fails with STATUS_DATA, naming the file, the
// field, what was found and what was expected.
int shard_open(Shard *s, const char *path, Error *e);
void shard_close(Shard *s);

// Reads `n` images from `first` on in stored order: images (n, H, W, C) set. The sum of every block
// that is touched for the first time is checked. Threads may read one shard at once.
int shard_read(const Shard *s, int64_t first, int64_t n, uint8_t *images, Error *e);

// Reads one whole block and checks its sum.
int shard_read_block(const Shard *s, int64_t block, uint8_t *bytes, Error *e);

// Checks the sums of all blocks.
int shard_verify(const Shard *s, Error *e);

// Non-empty UTF-8 without control characters, as class names must be.
bool class_name_valid(const char *name, size_t length);

// The status of a file of the user's that cannot be opened: STATUS_DATA if that is the path's or
// the file's fault, STATUS_IO if the system's.
int open_status(int error);

// Reads exactly `size` bytes; a file that ends early is STATUS_DATA, what the system refuses
// STATUS_IO.
int read_exactly(int fd, const char *path, void *bytes, size_t size, int64_t offset, Error *e);

#endif
