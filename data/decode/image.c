#include "data/decode/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/decode/arena.h"
#include "data/decode/formats.h"
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

// ---- reading a file -----------------------------------------------------------------------------

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

// ---- checking and decoding ----------------------------------------------------------------------

static bool is_png(const uint8_t *b, size_t size)
{
    return size > 8 && memcmp(b, "\x89PNG\r\n\x1a\n", 8) == 0;
}

static bool is_bmp(const uint8_t *b, size_t size)
{
    return size > 2 && b[0] == 'B' && b[1] == 'M';
}

static bool turned(const ImageInfo *i)
{
    return i->orientation >= 5;
}

int image_info(const uint8_t *b, size_t size, bool exif, ImageInfo *i, Error *e)
{
    int status;
    *i = (ImageInfo){.orientation = 1};
    if (is_png(b, size))
        status = png_check(b, size, i, e);
    else if (is_bmp(b, size))
        status = bmp_check(b, size, i, e);
    else if (size > 2 && b[0] == 0xff && b[1] == 0xd8)
        status = jpeg_check(b, size, i, e);
    else
        status = fail(e, STATUS_DATA, "neither JPEG nor PNG nor BMP");
    if (status) return status;
    if (i->w < 1 || i->h < 1 || i->w > IMAGE_MAX_SIDE || i->h > IMAGE_MAX_SIDE ||
        (int64_t)i->w * i->h > IMAGE_MAX_PIXELS)
        return fail(e, STATUS_DATA,
                    "image of %dx%d, expected sides of 1..%d and at most 64 Mi pixels", i->h, i->w,
                    IMAGE_MAX_SIDE);
    if (!exif) i->orientation = 1;
    if (turned(i)) {
        const int h = i->h;
        i->h = i->w;
        i->w = h;
    }
    return 0;
}

enum { TILE = 64 };

// to (h, w, c), set: the picture as it is to be seen, from how it is stored.
static void turn(uint8_t *to, const uint8_t *from, const ImageInfo *i, int c)
{
    const int o = i->orientation;
    const bool from_bottom = o == 3 || o == 4 || o == 6 || o == 7;
    const bool from_right = o == 2 || o == 3 || o == 7 || o == 8;
    const int stored_h = turned(i) ? i->w : i->h, stored_w = turned(i) ? i->h : i->w;
    const ptrdiff_t down = (from_bottom ? -1 : 1) * (ptrdiff_t)stored_w * c;
    const ptrdiff_t right = from_right ? -c : c;
    if (from_bottom) from += (ptrdiff_t)(stored_h - 1) * stored_w * c;
    if (from_right) from += (ptrdiff_t)(stored_w - 1) * c;
    const ptrdiff_t next_row = turned(i) ? right : down, next = turned(i) ? down : right;
    // By tiles: the cache has lines of one side only.
    for (int part = 0; part < i->w; part += TILE)
        for (int y = 0; y < i->h; y++) {
            const uint8_t *pixel = from + y * next_row + part * next;
            uint8_t *row = to + ((size_t)y * (size_t)i->w + (size_t)part) * (size_t)c;
            for (int x = part; x < i->w && x < part + TILE; x++, pixel += next)
                for (int k = 0; k < c; k++) *row++ = pixel[k];
        }
}

// The picture as it is to be seen, to be freed by arena_free(); NULL on failure.
static uint8_t *decode(const uint8_t *bytes, size_t size, const ImageInfo *i, int c, Error *e)
{
    int w, h, channels, status = 0;
    uint8_t *copy = NULL;
    if (is_png(bytes, size)) status = png_repair(bytes, &size, &copy, e);
    if (is_bmp(bytes, size)) status = bmp_repair(bytes, &size, &copy, e);
    if (status) return NULL;
    // Apple's PNG files have blue before red, and colours multiplied by their opacity.
    stbi_convert_iphone_png_to_rgb(1);
    stbi_set_unpremultiply_on_load(1);
    uint8_t *pixels = stbi_load_from_memory(copy ? copy : bytes, (int)size, &w, &h, &channels, c);
    arena_free(copy);
    if (!pixels) {
        fail(e, STATUS_DATA, "cannot be decoded: %s", stbi_failure_reason());
        return NULL;
    }
    uint8_t *seen = i->orientation == 1 ? pixels : NULL;
    if (h != (turned(i) ? i->w : i->h) || w != (turned(i) ? i->h : i->w))
        status = fail(e, STATUS_DATA, "its size changed while it was decoded");
    else if (!seen && !(seen = arena_alloc((size_t)h * (size_t)w * (size_t)c)))
        status = fail(e, STATUS_DATA, "no memory to turn it");
    if (!status && seen != pixels) turn(seen, pixels, i, c);
    if (status || seen != pixels) arena_free(pixels);
    return status ? NULL : seen;
}

int image_decode(uint8_t *image, int h, int w, int c, bool crop, const uint8_t *bytes, size_t size,
                 const ImageInfo *info, Error *e)
{
    uint8_t *pixels = decode(bytes, size, info, c, e);
    if (!pixels) return e->status;
    const int status = image_resize(image, h, w, pixels, info->h, info->w, c, crop, e);
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
