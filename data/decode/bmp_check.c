// BMP: headers of seven sizes, of which the decoder reads five, and not all of these right. It gets
// one header for every file, in which the palette is whole and pixels follow at once.
#include <stdlib.h>
#include <string.h>

#include "data/decode/arena.h"
#include "data/decode/formats.h"
#include "data/decode/image.h"

enum { FILE_HEADER = 14, HEADER = 40, OS2_1 = 12, OS2_2 = 64, MASKS_AT = FILE_HEADER + HEADER };
enum { RGB, RLE8, RLE4, BITFIELDS, JPEG, PNG, ALPHA_BITFIELDS };

typedef struct Bmp {
    int64_t w, h; // h < 0: from the top down
    uint32_t bits, compression;
    size_t header, palette_at, colors, pixels_at, row, pixel_bytes;
    uint32_t masks[3]; // red, green, blue
} Bmp;

static bool is_run_of_ones(uint32_t mask)
{
    const uint32_t low = mask & -mask;
    return mask && !((mask / low) & (mask / low + 1));
}

static int check_masks(Bmp *f, const uint8_t *b, size_t size, Error *e)
{
    if (f->bits != 16 && f->bits != 32) return 0;
    for (int k = 0; k < 3; k++)
        f->masks[k] = f->bits == 16 ? 31u << (10 - 5 * k) : 0xff0000u >> 8 * k;
    if (f->compression == RGB) return 0;
    if (size < MASKS_AT + 12) return fail(e, STATUS_DATA, "BMP ends inside its header");
    for (int k = 0; k < 3; k++) {
        f->masks[k] = little32(b + MASKS_AT + (size_t)4 * (size_t)k);
        if (!is_run_of_ones(f->masks[k]) || __builtin_popcount(f->masks[k]) > 8)
            return fail(e, STATUS_DATA,
                        "BMP with a mask of 0x%08x, expected up to 8 bits side by side",
                        f->masks[k]);
    }
    return 0;
}

static int check_compression(const Bmp *f, Error *e)
{
    const bool masked = f->compression == BITFIELDS || f->compression == ALPHA_BITFIELDS;
    if (f->compression == RGB) return 0;
    if (f->compression == RLE8 || f->compression == RLE4 ||
        (f->header == OS2_2 && f->compression == 4))
        return fail(e, STATUS_DATA, "run-length coded BMP is not read");
    if (f->header == OS2_2 || (!masked && f->compression != JPEG && f->compression != PNG))
        return fail(e, STATUS_DATA, "BMP with compression %u is not read", f->compression);
    if (!masked) return fail(e, STATUS_DATA, "BMP that holds a JPEG or PNG is not read");
    if (f->bits == 16 || f->bits == 32) return 0;
    return fail(e, STATUS_DATA, "BMP with masks for pixels of %u bits", f->bits);
}

static int check_layout(Bmp *f, const uint8_t *b, size_t size, Error *e)
{
    const uint32_t used = f->header == OS2_1 ? 0 : little32(b + 46);
    const size_t entry = f->header == OS2_1 ? 3 : 4;
    f->palette_at = FILE_HEADER + f->header;
    if (f->header == HEADER && f->compression != RGB)
        f->palette_at += f->compression == ALPHA_BITFIELDS ? 16 : 12;
    f->pixels_at = little32(b + 10);
    if (f->pixels_at < f->palette_at)
        return fail(e, STATUS_DATA, "BMP with pixels at byte %zu, inside its header", f->pixels_at);
    if (f->bits <= 8) {
        f->colors = used && used < 1u << f->bits ? used : 1u << f->bits;
        // Some offsets forget the palette.
        if (f->pixels_at == f->palette_at) f->pixels_at += entry * f->colors;
        const size_t room = (f->pixels_at - f->palette_at) / entry;
        if (f->colors > room) f->colors = room;
        if (f->colors == 0) return fail(e, STATUS_DATA, "BMP without its palette");
    }
    f->row = ((size_t)f->w * f->bits + 31) / 32 * 4;
    // Some files lack what fills up the last row.
    f->pixel_bytes = f->row * ((size_t)llabs(f->h) - 1) + ((size_t)f->w * f->bits + 7) / 8;
    if (f->pixels_at > size || f->pixel_bytes > size - f->pixels_at)
        return fail(e, STATUS_DATA, "BMP ends before its last pixel");
    return 0;
}

static int parse(Bmp *f, const uint8_t *b, size_t size, Error *e)
{
    *f = (Bmp){.header = size < 18 ? 0 : little32(b + FILE_HEADER)};
    const bool old = f->header == OS2_1; // sides of 16 bits, a palette of three bytes a colour
    if (size < 18 || size < FILE_HEADER + f->header)
        return fail(e, STATUS_DATA, "BMP ends inside its header");
    if (!old && f->header != 52 && f->header != 56 && f->header != OS2_2 && f->header != HEADER &&
        f->header != 108 && f->header != 124)
        return fail(e, STATUS_DATA, "BMP with a header of %zu bytes is not read", f->header);
    f->w = old ? (int32_t)little16(b + 18) : (int32_t)little32(b + 18);
    f->h = old ? (int32_t)little16(b + 20) : (int32_t)little32(b + 22);
    const uint8_t *planes = b + (old ? 22 : 26);
    f->bits = little16(planes + 2);
    f->compression = old ? RGB : little32(b + 30);
    if (f->w < 1 || f->h == 0 || f->w > IMAGE_MAX_SIDE || llabs(f->h) > IMAGE_MAX_SIDE)
        return fail(e, STATUS_DATA, "BMP of %lldx%lld, expected sides of 1..%d", llabs(f->h),
                    (long long)f->w, IMAGE_MAX_SIDE);
    if (little16(planes) != 1)
        return fail(e, STATUS_DATA, "BMP with %u planes, expected 1", little16(planes));
    int status = check_compression(f, e);
    if (!status && f->bits != 1 && f->bits != 4 && f->bits != 8 && f->bits != 16 && f->bits != 24 &&
        f->bits != 32)
        status = fail(e, STATUS_DATA, "BMP with %u bits a pixel is not read", f->bits);
    if (!status) status = check_masks(f, b, size, e);
    return status ? status : check_layout(f, b, size, e);
}

int bmp_check(const uint8_t *b, size_t size, ImageInfo *i, Error *e)
{
    Bmp f;
    const int status = parse(&f, b, size, e);
    i->h = (int)llabs(f.h);
    i->w = (int)f.w;
    return status;
}

static uint8_t *put32(uint8_t *to, uint32_t value)
{
    for (int k = 0; k < 4; k++) *to++ = (uint8_t)(value >> 8 * k);
    return to;
}

int bmp_repair(const uint8_t *b, size_t *size, uint8_t **copy, Error *e)
{
    Bmp f;
    const int status = parse(&f, b, *size, e);
    if (status) return status;
    const bool masked = f.bits == 16 || f.bits == 32;
    const size_t extra = masked ? 12 : f.bits == 24 ? 0 : 4 * 256;
    const size_t head = FILE_HEADER + HEADER + extra;
    *size = head + f.row * (size_t)llabs(f.h);
    uint8_t *to = *copy = arena_alloc(*size); // zeros
    if (!to) return fail(e, STATUS_IO, "no memory for a BMP");
    to[0] = 'B';
    to[1] = 'M';
    put32(to + 10, (uint32_t)head);
    put32(to + 14, HEADER);
    put32(to + 18, (uint32_t)f.w);
    put32(to + 22, (uint32_t)f.h);
    put32(to + 26, f.bits << 16 | 1);
    put32(to + 30, masked ? BITFIELDS : RGB);
    to += MASKS_AT;
    for (int k = 0; k < 3 && masked; k++) to = put32(to, f.masks[k]);
    const size_t entry = f.header == OS2_1 ? 3 : 4;
    for (size_t k = 0; k < f.colors; k++) memcpy(to + 4 * k, b + f.palette_at + entry * k, 3);
    memcpy(*copy + head, b + f.pixels_at, f.pixel_bytes);
    return 0;
}
