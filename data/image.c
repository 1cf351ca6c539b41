#include "data/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

#include "data/arena.h"
#include "data/shard.h"

// Debian's stb_image 2.27 has known memory faults that depend on what freed memory held before, so
// every allocation is zeroed (fuzzing: 7 crashes in 9 minutes without, none in 3.1 million images
// with).
#define STBI_MALLOC(size) arena_alloc(size)
#define STBI_REALLOC_SIZED(old, old_size, size) arena_realloc(old, old_size, size)
#define STBI_FREE(p) arena_free(p)
#define STBI_MAX_DIMENSIONS IMAGE_MAX_SIDE
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#pragma GCC diagnostic ignored "-Wunused-function"     // most of stb_image
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" // members used with callbacks only
#include <stb/stb_image.h>

// ---- reading and checking a file ----------------------------------------------------------------

int image_read(const char *path, uint8_t *bytes, size_t *size, Error *e)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0) return fail_errno(e, open_status(errno), "cannot open");
    struct stat st;
    int status = 0;
    if (fstat(fd, &st))
        status = fail_errno(e, STATUS_IO, "cannot stat");
    else if (!S_ISREG(st.st_mode))
        status = fail(e, STATUS_DATA, "not a regular file");
    else if (st.st_size == 0)
        status = fail(e, STATUS_DATA, "empty file");
    else if (st.st_size > IMAGE_MAX_BYTES)
        status = fail(e, STATUS_DATA, "larger than 64 MiB");
    else
        status = read_exactly(fd, "file", bytes, (size_t)st.st_size, 0, e);
    if (!status) *size = (size_t)st.st_size;
    close(fd);
    return status;
}

// Up to the end.
static int read_stream(int fd, uint8_t *bytes, size_t *size, Error *e)
{
    for (*size = 0; *size < IMAGE_MAX_BYTES;) {
        const ssize_t n = read(fd, bytes + *size, IMAGE_MAX_BYTES - *size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno(e, open_status(errno), "cannot read");
        if (n == 0) break;
        *size += (size_t)n;
    }
    if (*size == 0) return fail(e, STATUS_DATA, "empty file");
    if (*size == IMAGE_MAX_BYTES) return fail(e, STATUS_DATA, "64 MiB or larger");
    return 0;
}

int image_read_named(const char *path, uint8_t *bytes, size_t *size, Error *e)
{
    if (strcmp(path, "-") == 0) return read_stream(STDIN_FILENO, bytes, size, e);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_errno(e, open_status(errno), "cannot open");
    const int status = read_stream(fd, bytes, size, e);
    close(fd);
    return status;
}

static uint32_t big32(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static uint32_t little32(const uint8_t *b)
{
    return (uint32_t)b[3] << 24 | (uint32_t)b[2] << 16 | (uint32_t)b[1] << 8 | b[0];
}

// Every chunk with its checksum, up to IEND.
static int check_png(const uint8_t *b, size_t size, Error *e)
{
    for (size_t at = 8; size - at >= 12;) {
        const uint32_t length = big32(b + at);
        if (length > size - at - 12) return fail(e, STATUS_DATA, "PNG ends inside a chunk");
        if (crc32_z(0, b + at + 4, 4 + (size_t)length) != big32(b + at + 8 + length))
            return fail(e, STATUS_DATA, "PNG chunk with a wrong checksum");
        if (memcmp(b + at + 4, "IEND", 4) == 0) return 0;
        at += 12 + (size_t)length;
    }
    return fail(e, STATUS_DATA, "PNG ends without IEND");
}

// A table of Huffman codes has at most 256 symbols.
static int check_huffman_tables(const uint8_t *b, size_t size, Error *e)
{
    while (size > 0) {
        size_t symbols = 0;
        for (size_t i = 1; i <= 16 && size >= 17; i++) symbols += b[i];
        if (size < 17 || symbols > 256 || 17 + symbols > size)
            return fail(e, STATUS_DATA, "JPEG with a bad Huffman table");
        b += 17 + symbols;
        size -= 17 + symbols;
    }
    return 0;
}

// Every segment, up to the EOI marker.
static int check_jpeg(const uint8_t *b, size_t size, Error *e)
{
    size_t at = 2;
    while (at + 1 < size) {
        const uint8_t marker = b[at + 1];
        // Between scans: coded bytes, where 0xff is followed by 0 or a restart marker, and filling.
        if (b[at] != 0xff || marker == 0 || (marker >= 0xd0 && marker <= 0xd7) || marker == 0xff) {
            at++;
            continue;
        }
        at += 2;
        if (marker == 0xd9) return 0;
        if (marker == 0x01 || marker == 0xd8) continue;
        const size_t length = size - at < 2 ? 0 : (size_t)b[at] << 8 | b[at + 1];
        if (length < 2 || length > size - at) break;
        const int status = marker == 0xc4 ? check_huffman_tables(b + at + 2, length - 2, e) : 0;
        if (status) return status;
        at += length;
    }
    return fail(e, STATUS_DATA, "JPEG ends early (no EOI marker)");
}

// The decoder fills what a short BMP lacks with zeros, so its pixels must be there.
static int check_bmp(const uint8_t *b, size_t size, Error *e)
{
    if (size < 30) return fail(e, STATUS_DATA, "BMP ends inside its header");
    const bool old = little32(b + 14) == 12; // sizes of 16 bits
    const uint64_t w = old ? little32(b + 18) & 0xffff : little32(b + 18);
    const int32_t rows = (int32_t)(old ? little32(b + 18) >> 16 : little32(b + 22));
    const uint64_t bits = old ? little32(b + 22) >> 16 : little32(b + 26) >> 16;
    const uint64_t h = (uint64_t)llabs(rows);
    if (w > IMAGE_MAX_SIDE || h > IMAGE_MAX_SIDE || bits > 32)
        return fail(e, STATUS_DATA, "BMP with sides over %d or over 32 bits", IMAGE_MAX_SIDE);
    if (little32(b + 10) + (w * bits + 31) / 32 * 4 * h > size)
        return fail(e, STATUS_DATA, "BMP ends before its last pixel");
    return 0;
}

int image_info(const uint8_t *b, size_t size, int *h, int *w, Error *e)
{
    int status, channels;
    if (size > 8 && memcmp(b, "\x89PNG\r\n\x1a\n", 8) == 0)
        status = check_png(b, size, e);
    else if (size > 2 && b[0] == 0xff && b[1] == 0xd8)
        status = check_jpeg(b, size, e);
    else if (size > 2 && b[0] == 'B' && b[1] == 'M')
        status = check_bmp(b, size, e);
    else
        status = fail(e, STATUS_DATA, "neither JPEG nor PNG nor BMP");
    if (status) return status;
    if (!stbi_info_from_memory(b, (int)size, w, h, &channels))
        return fail(e, STATUS_DATA, "cannot be decoded: %s", stbi_failure_reason());
    if (*w < 1 || *h < 1 || *w > IMAGE_MAX_SIDE || *h > IMAGE_MAX_SIDE ||
        (int64_t)*w * *h > IMAGE_MAX_PIXELS)
        return fail(e, STATUS_DATA,
                    "image of %dx%d, expected sides of 1..%d and at most 64 Mi pixels", *h, *w,
                    IMAGE_MAX_SIDE);
    return 0;
}

int image_decode(uint8_t *image, int h, int w, int c, bool crop, const uint8_t *bytes, size_t size,
                 int from_h, int from_w, Error *e)
{
    int decoded_h, decoded_w, channels, status = 0;
    uint8_t *pixels = stbi_load_from_memory(bytes, (int)size, &decoded_w, &decoded_h, &channels, c);
    if (!pixels) return fail(e, STATUS_DATA, "cannot be decoded: %s", stbi_failure_reason());
    if (decoded_h != from_h || decoded_w != from_w)
        status = fail(e, STATUS_DATA, "its size changed while it was decoded");
    else
        status = image_resize(image, h, w, pixels, from_h, from_w, c, crop, e);
    arena_free(pixels);
    return status;
}

// ---- resizing -----------------------------------------------------------------------------------

enum { WEIGHT_BITS = 22 }; // a sum of weights times 255 fits in 32 bits

// The pixels of one side that make one output pixel, and their weights, which sum to
// 1 << WEIGHT_BITS.
typedef struct Taps {
    int first, n;
    uint32_t *weight;
} Taps;

// Output pixel i of n_to covers [i, i+1) * from / to. The triangle is centred on it and as wide as
// two output pixels, or two input pixels where the picture grows. Distances are exact integers in
// units of 1 / (2 to) pixels.
static void compute_taps(Taps *t, int i, int to, int from)
{
    const int64_t center = (2 * (int64_t)i + 1) * from,
                  reach = 2 * (int64_t)(from > to ? from : to);
    int64_t first = (center - reach) / (2 * (int64_t)to) - 1, total = 0;
    if (first < 0) first = 0;
    t->first = (int)first;
    t->n = 0;
    for (int64_t x = first; x < from && (2 * x + 1) * to < center + reach; x++) {
        const int64_t away = llabs((2 * x + 1) * to - center);
        total += away < reach ? reach - away : 0;
    }
    uint32_t rest = 1u << WEIGHT_BITS;
    int largest = 0;
    for (int64_t x = first; x < from && (2 * x + 1) * to < center + reach; x++) {
        const int64_t away = llabs((2 * x + 1) * to - center);
        const int64_t height = away < reach ? reach - away : 0;
        t->weight[t->n] = (uint32_t)((height << WEIGHT_BITS) / total);
        rest -= t->weight[t->n];
        if (t->weight[t->n] > t->weight[largest]) largest = t->n;
        t->n++;
    }
    t->weight[largest] += rest;
}

// row (w*c) = the weighted sum of rows, with 8 bits of fraction.
static void sum_rows(uint32_t *row, const Taps *t, const uint8_t *from, size_t pitch, size_t width)
{
    memset(row, 0, width * sizeof *row);
    for (int k = 0; k < t->n; k++) {
        const uint8_t *x = from + (size_t)(t->first + k) * pitch;
        const uint32_t weight = t->weight[k];
        for (size_t i = 0; i < width; i++) row[i] += weight * x[i];
    }
    for (size_t i = 0; i < width; i++)
        row[i] = (row[i] + (1u << (WEIGHT_BITS - 9))) >> (WEIGHT_BITS - 8);
}

static void sum_columns(uint8_t *to, const Taps *t, const uint32_t *row, int c)
{
    for (int k = 0; k < c; k++) {
        uint64_t sum = 1ull << (WEIGHT_BITS + 7);
        for (int i = 0; i < t->n; i++) sum += (uint64_t)t->weight[i] * row[(t->first + i) * c + k];
        to[k] = (uint8_t)(sum >> (WEIGHT_BITS + 8));
    }
}

static int resize_part(uint8_t *to, int to_h, int to_w, const uint8_t *from, size_t pitch,
                       int from_h, int from_w, int c, Error *e)
{
    const size_t width = (size_t)from_w * (size_t)c;
    uint32_t *row = arena_alloc(width * sizeof *row);
    uint32_t *weights = arena_alloc((size_t)from_h * sizeof *weights);
    // A tap list of every column: none has more than the pixels of two output or input pixels.
    const size_t most = 2 * ((size_t)(from_w / to_w) + 1) + 4;
    uint32_t *column_weights = arena_alloc((size_t)to_w * most * sizeof *column_weights);
    Taps *columns = arena_alloc((size_t)to_w * sizeof *columns);
    int status = 0;
    if (!row || !weights || !column_weights || !columns)
        status = fail(e, STATUS_IO, "no memory to resize an image");
    for (int x = 0; x < to_w && !status; x++) {
        columns[x].weight = column_weights + (size_t)x * most;
        compute_taps(&columns[x], x, to_w, from_w);
    }
    for (int y = 0; y < to_h && !status; y++) {
        Taps rows = {.weight = weights};
        compute_taps(&rows, y, to_h, from_h);
        sum_rows(row, &rows, from, pitch, width);
        for (int x = 0; x < to_w; x++, to += c) sum_columns(to, &columns[x], row, c);
    }
    arena_free(row);
    arena_free(weights);
    arena_free(column_weights);
    arena_free(columns);
    return status;
}

int image_resize(uint8_t *to, int to_h, int to_w, const uint8_t *from, int from_h, int from_w,
                 int c, bool crop, Error *e)
{
    const size_t pitch = (size_t)from_w * (size_t)c;
    if (to_h == from_h && to_w == from_w) {
        memcpy(to, from, (size_t)to_h * pitch);
        return 0;
    }
    int part_h = from_h, part_w = from_w;
    if (crop && (int64_t)from_w * to_h > (int64_t)from_h * to_w)
        part_w = (int)(((int64_t)from_h * to_w + to_h / 2) / to_h);
    else if (crop)
        part_h = (int)(((int64_t)from_w * to_h + to_w / 2) / to_w);
    if (part_w < 1) part_w = 1;
    if (part_h < 1) part_h = 1;
    from += (size_t)((from_h - part_h) / 2) * pitch + (size_t)((from_w - part_w) / 2 * c);
    return resize_part(to, to_h, to_w, from, pitch, part_h, part_w, c, e);
}

void image_to_grey(uint8_t *grey, const uint8_t *rgb, size_t n)
{
    for (size_t i = 0; i < n; i++)
        grey[i] = (uint8_t)((77 * rgb[3 * i] + 150 * rgb[3 * i + 1] + 29 * rgb[3 * i + 2]) >> 8);
}
