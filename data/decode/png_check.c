// PNG: every chunk with its checksum, up to IEND.
#include <string.h>

#include <zlib.h>

#include "data/decode/arena.h"
#include "data/decode/formats.h"
#include "data/decode/image.h"

enum { SIGNATURE = 8, AROUND = 12, PALETTE = 3, MAX_PALETTE = 3 * 256 };

static bool is_chunk(const uint8_t *chunk, const char *type)
{
    return memcmp(chunk + 4, type, 4) == 0;
}

static int check_header(const uint8_t *chunk, bool apple, ImageInfo *i, Error *e)
{
    if (!is_chunk(chunk, "IHDR") || big32(chunk) != 13)
        return fail(e, STATUS_DATA, "PNG does not begin with a header");
    const int depth = chunk[16], color = chunk[17];
    const uint32_t w = big32(chunk + 8), h = big32(chunk + 12);
    i->w = w > INT32_MAX ? INT32_MAX : (int)w; // over every limit
    i->h = h > INT32_MAX ? INT32_MAX : (int)h;
    // The decoder turns round the colours of these alone.
    if (apple && (depth != 8 || (color != 2 && color != 6)))
        return fail(e, STATUS_DATA,
                    "PNG of Apple's kind (CgBI) with colour type %d of %d bits, expected 2 or 6 of "
                    "8",
                    color, depth);
    return 0;
}

static int png_exif(const uint8_t *data, size_t size)
{
    const size_t prefix = size > 6 && memcmp(data, "Exif\0", 6) == 0 ? 6 : 0;
    return exif_orientation(data + prefix, size - prefix);
}

int png_check(const uint8_t *b, size_t size, ImageInfo *i, Error *e)
{
    bool first = true, apple = false;
    for (size_t at = SIGNATURE; size - at >= AROUND;) {
        const uint8_t *chunk = b + at;
        const uint32_t length = big32(chunk);
        if (length > size - at - AROUND) return fail(e, STATUS_DATA, "PNG ends inside a chunk");
        if (crc32_z(0, chunk + 4, 4 + (size_t)length) != big32(chunk + 8 + length))
            return fail(e, STATUS_DATA, "PNG chunk with a wrong checksum");
        at += AROUND + (size_t)length;
        if (first && is_chunk(chunk, "CgBI")) {
            apple = true;
        } else if (first) {
            const int status = check_header(chunk, apple, i, e);
            if (status) return status;
            first = false;
        } else if (is_chunk(chunk, "eXIf")) {
            i->orientation = png_exif(chunk + 8, length);
        } else if (is_chunk(chunk, "IEND")) {
            return 0;
        }
    }
    return fail(e, STATUS_DATA, "PNG ends without IEND");
}

// The decoder reads colours behind a short palette's end from its stack: they become black.
int png_repair(const uint8_t *b, size_t *size, uint8_t **copy, Error *e)
{
    static const uint8_t head[8] = {0, 0, MAX_PALETTE >> 8, MAX_PALETTE & 255, 'P', 'L', 'T', 'E'};
    bool paletted = false;
    *copy = NULL;
    for (size_t at = SIGNATURE;; at += AROUND + (size_t)big32(b + at)) {
        const uint8_t *chunk = b + at;
        const uint32_t length = big32(chunk);
        if (is_chunk(chunk, "IHDR")) paletted = chunk[17] == PALETTE;
        if (is_chunk(chunk, "IEND") || is_chunk(chunk, "IDAT")) return 0;
        if (!paletted || !is_chunk(chunk, "PLTE") || length >= MAX_PALETTE || length % 3) continue;
        *copy = arena_alloc(*size + MAX_PALETTE);
        if (!*copy) return fail(e, STATUS_IO, "no memory for a palette");
        memcpy(*copy, b, at);
        memcpy(*copy + at, head, sizeof head);
        memcpy(*copy + at + sizeof head, chunk + sizeof head, length);
        // The decoder does not look at checksums.
        const size_t rest = at + AROUND + length, to = at + AROUND + MAX_PALETTE;
        memcpy(*copy + to, b + rest, *size - rest);
        *size += MAX_PALETTE - length;
        return 0;
    }
}
