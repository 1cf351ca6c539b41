// Pre-scan and decoder in this process, with the heap's zeroed memory: the sanitizer sees every
// block. Byte 0: channels, crop, whether a PNG's checksums are made right, and whether the picture
// is seen as it is stored; then the file.
#include <arpa/inet.h>
#include <zlib.h>

#include "data/decode/image.h"
#include "tests/fuzz/fuzz.h"

static void seal_png(uint8_t *b, size_t size)
{
    if (size < 8 || memcmp(b, "\x89PNG\r\n\x1a\n", 8) != 0) return;
    for (size_t at = 8; size - at >= 12;) {
        uint32_t length, crc;
        memcpy(&length, b + at, 4);
        length = ntohl(length);
        if (length > size - at - 12) return;
        crc = htonl((uint32_t)crc32_z(0, b + at + 4, 4 + (size_t)length));
        memcpy(b + at + 8 + length, &crc, 4);
        at += 12 + (size_t)length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    enum { H = 9, W = 7 };
    uint8_t image[H * W * 3];
    Input rest = {bytes, size};
    const unsigned how = take_byte(&rest);
    const int c = how & 1 ? 1 : 3;
    ImageInfo info;
    Error e = {0};
    uint8_t *copy = malloc(rest.size + 1); // its own allocation: reading past it is seen
    memcpy(copy, rest.bytes, rest.size);
    if (how & 4) seal_png(copy, rest.size);
    int status = image_info(copy, rest.size, !(how & 8), &info, &e);
    // Large pictures are slow, and small ones reach the same code.
    if (!status && (int64_t)info.h * info.w <= 1 << 18)
        status = image_decode(image, H, W, c, how & 2, copy, rest.size, &info, &e);
    check_failure(status, &e);
    free(copy);
    return 0;
}
