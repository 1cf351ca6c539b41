// Builds shards byte by byte from data/README.md, without the code under test.
#ifndef TESTS_SHARD_FILE_H
#define TESTS_SHARD_FILE_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

enum { BLOCK = 1 << 20 };

// Where the sections of a test shard begin.
enum { LABELS_AT = 4096, NAMES_AT = 8192, COUNTS_AT = 12288, SUMS_AT = 16384, IMAGES_AT = 2 << 20 };

// All bytes before the images (2 MiB), for n images of h x w x c; `name` is one letter a class.
typedef struct ShardFile {
    uint8_t *head;
    uint64_t n, first, total, stride;
    uint32_t classes;
} ShardFile;

static inline void put(ShardFile *f, size_t offset, uint64_t value, size_t size)
{
    memcpy(f->head + offset, &value, size); // little-endian, as the machine
}

static inline uint64_t get(const ShardFile *f, size_t offset, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, f->head + offset, size);
    return value;
}

static inline uint64_t shard_file_blocks(const ShardFile *f)
{
    return (f->n * f->stride + BLOCK - 1) / BLOCK;
}

// Image i is filled with pixel(i) if `filled`, else all images are zero. Label i is i % classes.
static inline uint8_t shard_file_pixel(uint64_t i, uint64_t byte)
{
    return (uint8_t)(31 * i + byte % 251 + 1);
}

static inline void shard_file_sums(ShardFile *f, int filled)
{
    uint8_t *block = calloc(1, BLOCK);
    const uint64_t total = f->n * f->stride, zeros = crc32(0, block, BLOCK);
    for (uint64_t b = 0; b < shard_file_blocks(f); b++) {
        const uint64_t size = total - b * BLOCK < BLOCK ? total - b * BLOCK : BLOCK;
        for (uint64_t i = 0; i < size && filled; i++) {
            const uint64_t at = b * BLOCK + i;
            block[i] = shard_file_pixel(f->first + at / f->stride, at % f->stride);
        }
        const uint64_t crc = !filled && size == BLOCK ? zeros : crc32(0, block, (unsigned)size);
        put(f, SUMS_AT + 4 * b, crc, 4);
    }
    free(block);
}

static inline void shard_file_init(ShardFile *f, uint64_t n, uint32_t h, uint32_t w, uint32_t c,
                                   uint32_t classes, int filled)
{
    *f = (ShardFile){.head = calloc(1, IMAGES_AT),
                     .n = n,
                     .total = n,
                     .classes = classes,
                     .stride = (uint64_t)h * w * c};
    memcpy(f->head, "\x89NNS\r\n\x1a\n", 8);
    const uint64_t blocks = shard_file_blocks(f), images = n * f->stride;
    const uint64_t u32[][2] = {{8, 0x01020304}, {12, 1},       {16, 4096}, {60, 1},     {64, h},
                               {68, w},         {72, c},       {76, 1},    {80, 1},     {88, 1},
                               {84, f->stride}, {92, classes}, {176, 1},   {180, BLOCK}};
    for (size_t i = 0; i < sizeof u32 / sizeof *u32; i++) put(f, u32[i][0], u32[i][1], 4);
    const uint64_t u64[][2] = {{24, IMAGES_AT + images},
                               {32, n},
                               {48, n},
                               {96, IMAGES_AT},
                               {104, images},
                               {112, LABELS_AT},
                               {120, 2 * n},
                               {128, NAMES_AT},
                               {136, 2 * classes},
                               {144, COUNTS_AT},
                               {152, 8 * classes},
                               {160, SUMS_AT},
                               {168, 4 * blocks}};
    for (size_t i = 0; i < sizeof u64 / sizeof *u64; i++) put(f, u64[i][0], u64[i][1], 8);
    for (size_t k = 0; k < 4; k++) {
        const float mean = k < c ? 0.5f : 0, std = k < c ? 0.25f : 1;
        memcpy(f->head + 192 + 4 * k, &mean, 4);
        memcpy(f->head + 208 + 4 * k, &std, 4);
    }
    memcpy(f->head + 224, "the id of the test's data set...", 32);
    for (uint64_t i = 0; i < n; i++) put(f, LABELS_AT + 2 * i, i % classes, 2);
    for (uint64_t k = 0; k < classes; k++) {
        f->head[NAMES_AT + 2 * k] = (uint8_t)('a' + k);
        put(f, COUNTS_AT + 8 * k, n / classes + (k < n % classes), 8);
    }
    shard_file_sums(f, filled);
}

// The crc of labels, names, counts and sums, then that of the header.
static inline void shard_file_seal(ShardFile *f)
{
    uLong crc = 0;
    for (size_t section = 112; section <= 160; section += 16) {
        const uint64_t offset = get(f, section, 8), bytes = get(f, section + 8, 8);
        if (offset < IMAGES_AT && bytes <= IMAGES_AT - offset)
            crc = crc32(crc, f->head + offset, (unsigned)bytes);
    }
    put(f, 4088, crc, 4);
    put(f, 4092, crc32(0, f->head, 4092), 4);
}

// Writes the file; images that are not filled are a hole. Returns 0 if the system has no room.
static inline int shard_file_write(const ShardFile *f, const char *path, int filled)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    int fine = fd >= 0 && write(fd, f->head, IMAGES_AT) == IMAGES_AT;
    uint8_t *image = malloc(f->stride);
    for (uint64_t i = 0; i < f->n && filled && fine; i++) {
        for (uint64_t k = 0; k < f->stride; k++) image[k] = shard_file_pixel(f->first + i, k);
        fine = write(fd, image, f->stride) == (ssize_t)f->stride;
    }
    fine = fine && ftruncate(fd, (off_t)(IMAGES_AT + f->n * f->stride)) == 0;
    free(image);
    close(fd);
    return fine;
}

#endif
