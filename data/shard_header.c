// What a shard's first 4096 bytes say, before anything is allocated for it.
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include <zlib.h>

#include "data/shard.h"

static const char *const section_names[SECTIONS] = {"labels", "names", "counts", "sums", "images"};

static bool starts_with(const uint8_t *bytes, const char *prefix, size_t length)
{
    return memcmp(bytes, prefix, length) == 0;
}

// What a file without the magic looks like, for the message.
static const char *looks_like(const uint8_t *b)
{
    if (starts_with(b, "\x89NNS", 4)) return "a shard damaged by a transfer in text mode";
    if (starts_with(b, "\x1f\x8b", 2)) return "gzip";
    if (starts_with(b,
                    "\xfd"
                    "7zXZ",
                    5))
        return "xz";
    if (starts_with(b, "PK", 2)) return "a zip archive";
    if (starts_with(b, "\x89PNG", 4)) return "a PNG image";
    if (starts_with(b, "\xff\xd8\xff", 3)) return "a JPEG image";
    if (starts_with(b, "BM", 2)) return "a BMP image";
    if (starts_with(b,
                    "\x7f"
                    "ELF",
                    4))
        return "a program";
    if (starts_with(b, "\0\0\x08\x01", 4)) return "idx labels (use: prepare idx)";
    if (starts_with(b, "\0\0\x08\x03", 4)) return "idx images (use: prepare idx)";
    if (b[8] == '{') return "safetensors";
    if (starts_with(b, "\0\0\0\0\0\0\0\0", 8)) return "zeros";
    if (starts_with(b, "<", 1)) return "HTML or XML";
    for (int i = 0; i < 8; i++)
        if ((b[i] < 0x20 && !strchr("\t\n\r", b[i])) || b[i] >= 0x7f) return "unknown";
    return "text";
}

static int check_identity(const ShardHeader *h, const char *path, uint64_t size, Error *e)
{
    if (size == 0) return fail(e, STATUS_DATA, "%s: empty, has 0 bytes", path);
    if (memcmp(h->magic, shard_magic, sizeof h->magic) != 0)
        return fail(e, STATUS_DATA,
                    "%s: not a shard: the first bytes look like %s; make shards with data/prepare",
                    path, looks_like(h->magic));
    if (size < sizeof *h)
        return fail(e, STATUS_DATA, "%s: has %" PRIu64 " bytes, a shard has at least %zu", path,
                    size, sizeof *h);
    if (h->byte_order != 0x01020304)
        return fail(e, STATUS_DATA, "%s: byte_order is 0x%08x, expected 0x01020304", path,
                    h->byte_order);
    if (h->major != 1)
        return fail(e, STATUS_DATA, "%s: version is %d.%d, this program reads 1.x; update it", path,
                    h->major, h->minor);
    const uint32_t crc = (uint32_t)crc32_z(0, (const void *)h, sizeof *h - 4);
    if (crc != h->header_crc)
        return fail(e, STATUS_DATA,
                    "%s: header_crc is 0x%08x, expected 0x%08x; the file is damaged", path,
                    h->header_crc, crc);
    return 0;
}

static int check_fixed_fields(const ShardHeader *h, const char *path, Error *e)
{
    const struct {
        const char *name;
        uint32_t found, low, high;
    } fields[] = {
        {"header_bytes", h->header_bytes, sizeof *h, sizeof *h},
        {"the high half of flags", h->flags >> 16, 0, 0},
        {"layout", h->layout, 1, 1},
        {"dtype", h->dtype, 1, 1},
        {"label type", h->label_type, 1, 1},
        {"sum kind", h->sum_kind, 1, 1},
        {"block", h->block, SHARD_BLOCK, SHARD_BLOCK},
        {"split", h->split, 0, 1},
        {"the field at byte 188", h->zero, 0, 0},
        {"H", h->h, 1, SHARD_MAX_SIDE},
        {"W", h->w, 1, SHARD_MAX_SIDE},
        {"C", h->c, 1, 3},
        {"classes", h->classes, 1, SHARD_MAX_CLASSES},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (fields[i].found >= fields[i].low && fields[i].found <= fields[i].high) continue;
        return fail(e, STATUS_DATA, "%s: %s is %u, expected %u..%u", path, fields[i].name,
                    fields[i].found, fields[i].low, fields[i].high);
    }
    if (h->c == 2) return fail(e, STATUS_DATA, "%s: C is 2, expected 1 or 3", path);
    if (h->stride != h->h * h->w * h->c)
        return fail(e, STATUS_DATA, "%s: stride is %u, expected H*W*C = %u", path, h->stride,
                    h->h * h->w * h->c);
    for (size_t i = 0; i < sizeof h->reserved; i++)
        if (h->reserved[i])
            return fail(e, STATUS_DATA, "%s: byte %zu of the header is not zero", path, 256 + i);
    return 0;
}

static int check_counts(const ShardHeader *h, const char *path, Error *e)
{
    uint64_t end;
    if (h->n == 0) return fail(e, STATUS_DATA, "%s: n is 0, expected at least one image", path);
    if (h->n > SHARD_MAX_IMAGES || h->n * h->stride > SHARD_MAX_BYTES)
        return fail(e, STATUS_DATA,
                    "%s: n is %" PRIu64 ", expected at most %d images and %lld bytes of them", path,
                    h->n, SHARD_MAX_IMAGES, SHARD_MAX_BYTES);
    if (__builtin_add_overflow(h->first_index, h->n, &end) || end > h->dataset_n)
        return fail(e, STATUS_DATA,
                    "%s: first_index %" PRIu64 " + n %" PRIu64 " is over dataset_n %" PRIu64, path,
                    h->first_index, h->n, h->dataset_n);
    if (h->dataset_n > UINT32_MAX)
        return fail(e, STATUS_DATA, "%s: dataset_n is %" PRIu64 ", expected at most 4294967295",
                    path, h->dataset_n);
    if (h->shard >= h->shards)
        return fail(e, STATUS_DATA, "%s: shard is %u of %u", path, h->shard, h->shards);
    return 0;
}

static int check_statistics(const ShardHeader *h, const char *path, Error *e)
{
    for (uint32_t i = 0; i < 4; i++) {
        const double mean = (double)h->mean[i], std = (double)h->std[i];
        if (i >= h->c && (mean < 0 || mean > 0 || std < 1 || std > 1))
            return fail(e, STATUS_DATA, "%s: mean[%u], std[%u] are %g, %g, expected 0, 1", path, i,
                        i, mean, std);
        if (!isfinite(mean) || !isfinite(std) || std <= 0)
            return fail(e, STATUS_DATA, "%s: mean[%u], std[%u] are %g, %g, expected std > 0", path,
                        i, i, mean, std);
    }
    return 0;
}

static int check_sections(const ShardHeader *h, const char *path, uint64_t size, Error *e)
{
    if (h->file_bytes != size)
        return fail(e, STATUS_DATA,
                    "%s: has %" PRIu64 " bytes, expected file_bytes = %" PRIu64
                    "; the file was cut short or extended, make it again",
                    path, size, h->file_bytes);
    if (h->names.bytes > h->classes * (SHARD_MAX_NAME + 1ull))
        return fail(e, STATUS_DATA,
                    "%s: section names has %" PRIu64 " bytes, expected at most %d a class", path,
                    h->names.bytes, SHARD_MAX_NAME + 1);
    // Zeros before each section: up to its place, and for images that did not come.
    const uint64_t most_zeros[SECTIONS] = {
        SHARD_ALIGN, SHARD_ALIGN + SHARD_MAX_IMAGES * sizeof(uint16_t), SHARD_ALIGN, SHARD_ALIGN,
        SHARD_IMAGE_ALIGN + SHARD_MAX_BYTES / SHARD_BLOCK * sizeof(uint32_t)};
    const uint64_t expected[SECTIONS] = {
        h->n * sizeof(uint16_t), h->names.bytes, h->classes * sizeof(uint64_t),
        (uint64_t)shard_blocks(h->n * h->stride) * sizeof(uint32_t), h->n * h->stride};
    uint64_t previous_end = sizeof *h;
    for (int i = 0; i < SECTIONS; i++) {
        const ShardSection *s = shard_section(h, i);
        const uint64_t align = i == SECTION_IMAGES ? SHARD_IMAGE_ALIGN : SHARD_ALIGN;
        uint64_t end;
        if (s->bytes != expected[i])
            return fail(e, STATUS_DATA, "%s: section %s has %" PRIu64 " bytes, expected %" PRIu64,
                        path, section_names[i], s->bytes, expected[i]);
        if (s->offset % align)
            return fail(e, STATUS_DATA,
                        "%s: section %s is at byte %" PRIu64 ", expected a multiple of %" PRIu64,
                        path, section_names[i], s->offset, align);
        if (__builtin_add_overflow(s->offset, s->bytes, &end) || end > size)
            return fail(e, STATUS_DATA, "%s: section %s ends behind the file's end", path,
                        section_names[i]);
        if (s->offset < previous_end)
            return fail(e, STATUS_DATA,
                        "%s: section %s begins at %" PRIu64
                        ", inside or before the one before it, which ends at %" PRIu64,
                        path, section_names[i], s->offset, previous_end);
        if (s->offset - previous_end >= most_zeros[i])
            return fail(e, STATUS_DATA,
                        "%s: section %s begins at %" PRIu64 ", too far behind byte %" PRIu64, path,
                        section_names[i], s->offset, previous_end);
        previous_end = end;
    }
    if (previous_end != size)
        return fail(e, STATUS_DATA, "%s: images end at byte %" PRIu64 ", the file at %" PRIu64,
                    path, previous_end, size);
    return 0;
}

int shard_check_header(const ShardHeader *h, const char *path, uint64_t size, Error *e)
{
    int status = check_identity(h, path, size, e);
    if (!status) status = check_fixed_fields(h, path, e);
    if (!status) status = check_counts(h, path, e);
    if (!status) status = check_statistics(h, path, e);
    return status ? status : check_sections(h, path, size, e);
}
