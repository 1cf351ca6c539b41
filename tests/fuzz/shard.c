// A shard in few bytes: byte 0, the header's first 256 bytes, then 64 bytes each of labels, names,
// counts and sums at the places where a small shard has them, then images. Byte 0 says whether the
// two sums are made right, so that what lies behind them is reached.
#include <zlib.h>

#include "data/shard.h"
#include "tests/fuzz/fuzz.h"

enum { SEAL_SECTIONS = 1, SEAL_HEADER = 2, TRUST_SIZE = 4 };
enum { AREA = 64, IMAGES_AT = SHARD_IMAGE_ALIGN, MOST = IMAGES_AT + (1 << 16) };

static void seal(uint8_t *file, unsigned how)
{
    ShardHeader *h = (ShardHeader *)(void *)file;
    uint32_t crc = 0;
    for (int i = 0; i < SECTION_IMAGES; i++) {
        const ShardSection *s = shard_section(h, i);
        if (s->offset < MOST && s->bytes <= MOST - s->offset)
            crc = (uint32_t)crc32_z(crc, file + s->offset, s->bytes);
    }
    if (how & SEAL_SECTIONS) h->sections_crc = crc;
    if (how & SEAL_HEADER) h->header_crc = (uint32_t)crc32_z(0, file, sizeof *h - 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static uint8_t file[MOST];
    static const size_t at[] = {0, 4096, 8192, 12288, 16384};
    Input rest = {bytes, size};
    const unsigned how = take_byte(&rest);
    memset(file, 0, 5 * 4096);
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        const Input part = take_bytes(&rest, i == 0 ? 256 : AREA);
        memcpy(file + at[i], part.bytes, part.size);
    }
    const Input images = take_bytes(&rest, MOST - IMAGES_AT);
    memcpy(file + IMAGES_AT, images.bytes, images.size);
    seal(file, how);
    size_t file_bytes = IMAGES_AT + images.size;
    const uint64_t promised = ((const ShardHeader *)(const void *)file)->file_bytes;
    if (how & TRUST_SIZE && promised <= MOST) file_bytes = (size_t)promised;

    Shard s;
    Error e = {0};
    int status = shard_open(&s, file_in_memory(file, file_bytes), &e);
    check_failure(status, &e);
    if (status) return 0;
    uint8_t *image = malloc(s.header.stride);
    for (int64_t i = 0; i < (int64_t)s.header.n; i++) {
        assert(s.labels[i] < s.header.classes && s.names[s.labels[i]][0]);
        status = shard_read(&s, i, 1, image, &e);
        check_failure(status, &e);
    }
    check_failure(shard_verify(&s, &e), &e);
    free(image);
    shard_close(&s);
    return 0;
}
