#include "data/shard.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

#include "base/utf8.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "shards are read as they lie in the file");
_Static_assert(sizeof(ShardHeader) == 4096, "no padding");
_Static_assert(offsetof(ShardHeader, images) == 96, "as in data/README.md");
_Static_assert(offsetof(ShardHeader, id) == 224, "as in data/README.md");
_Static_assert(offsetof(ShardHeader, sections_crc) == 4088, "as in data/README.md");

const char *const split_names[2] = {"train", "test"};

ShardHeader shard_header(void)
{
    ShardHeader h = {.byte_order = 0x01020304,
                     .major = 1,
                     .header_bytes = sizeof h,
                     .layout = 1,
                     .dtype = 1,
                     .label_type = 1,
                     .sum_kind = 1,
                     .block = SHARD_BLOCK,
                     .std = {1, 1, 1, 1}};
    memcpy(h.magic, shard_magic, sizeof h.magic);
    return h;
}

static uint64_t round_up(uint64_t x, uint64_t unit)
{
    return (x + unit - 1) / unit * unit;
}

void shard_layout(ShardHeader *h, int64_t n, uint64_t names_bytes)
{
    h->n = (uint64_t)n;
    h->stride = h->h * h->w * h->c;
    h->images.bytes = h->n * h->stride;
    h->labels.bytes = h->n * sizeof(uint16_t);
    h->names.bytes = names_bytes;
    h->counts.bytes = h->classes * sizeof(uint64_t);
    h->sums.bytes = (uint64_t)shard_blocks(h->images.bytes) * sizeof(uint32_t);

    h->labels.offset = sizeof *h;
    h->names.offset = round_up(h->labels.offset + h->labels.bytes, SHARD_ALIGN);
    h->counts.offset = round_up(h->names.offset + h->names.bytes, SHARD_ALIGN);
    h->sums.offset = round_up(h->counts.offset + h->counts.bytes, SHARD_ALIGN);
    h->images.offset = round_up(h->sums.offset + h->sums.bytes, SHARD_IMAGE_ALIGN);
    h->file_bytes = h->images.offset + h->images.bytes;
}

const ShardSection *shard_section(const ShardHeader *h, int section)
{
    const ShardSection *const sections[SECTIONS] = {&h->labels, &h->names, &h->counts, &h->sums,
                                                    &h->images};
    return sections[section];
}

int open_status(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case EACCES:
    case EPERM:
    case ELOOP:
    case ENAMETOOLONG:
    case ENXIO:
        return STATUS_DATA;
    default:
        return STATUS_IO;
    }
}

int read_exactly(int fd, const char *path, void *bytes, size_t size, int64_t offset, Error *e)
{
    size_t done = 0;
    while (done < size) {
        const ssize_t n = pread(fd, (char *)bytes + done, size - done, offset + (int64_t)done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return fail_errno(e, STATUS_IO, "%s: cannot read %zu bytes at %" PRId64, path, size,
                              offset);
        if (n == 0)
            return fail(e, STATUS_DATA,
                        "%s: ends at byte %" PRId64 ", expected at least %" PRId64
                        "; the file was cut short, make it again",
                        path, offset + (int64_t)done, offset + (int64_t)size);
        done += (size_t)n;
    }
    return 0;
}

static int check_zero(const Shard *s, uint64_t from, uint64_t to, Error *e)
{
    uint8_t bytes[16384];
    while (from < to) {
        const size_t part = to - from < sizeof bytes ? (size_t)(to - from) : sizeof bytes;
        const int status = read_exactly(s->fd, s->path, bytes, part, (int64_t)from, e);
        if (status) return status;
        for (size_t i = 0; i < part; i++)
            if (bytes[i])
                return fail(e, STATUS_DATA, "%s: the padding at byte %" PRIu64 " is not zero",
                            s->path, from + i);
        from += part;
    }
    return 0;
}

// Reads labels, names, counts and sums, checks their common crc and the zeros between them.
static int read_sections(Shard *s, Error *e)
{
    const ShardHeader *h = &s->header;
    uint64_t total = 8; // a multiple of 8: each section starts aligned for its type
    for (int i = 0; i < SECTION_IMAGES; i++) total += round_up(shard_section(h, i)->bytes, 8);
    s->sections = malloc(total);
    if (!s->sections)
        return fail(e, STATUS_IO, "%s: no memory for %" PRIu64 " bytes", s->path, total);

    uint8_t *parts[SECTIONS], *next = s->sections;
    uint32_t crc = 0;
    uint64_t end = sizeof *h;
    for (int i = 0; i < SECTIONS; i++) {
        const ShardSection *section = shard_section(h, i);
        int status = check_zero(s, end, section->offset, e);
        end = section->offset + section->bytes;
        parts[i] = next;
        if (!status && i != SECTION_IMAGES) {
            status =
                read_exactly(s->fd, s->path, next, section->bytes, (int64_t)section->offset, e);
            next += round_up(section->bytes, 8);
        }
        if (status) return status;
        if (i != SECTION_IMAGES) crc = (uint32_t)crc32_z(crc, parts[i], section->bytes);
    }
    if (crc != h->sections_crc)
        return fail(e, STATUS_DATA,
                    "%s: labels, names, counts and sums have crc 0x%08x, expected 0x%08x; the file "
                    "is damaged",
                    s->path, crc, h->sections_crc);
    s->labels = (uint16_t *)(void *)parts[SECTION_LABELS];
    s->counts = (const uint64_t *)(void *)parts[SECTION_COUNTS];
    s->sums = (const uint32_t *)(void *)parts[SECTION_SUMS];
    s->names = calloc(h->classes, sizeof *s->names);
    if (!s->names) return fail(e, STATUS_IO, "%s: no memory for the class names", s->path);
    s->names[0] = (char *)parts[SECTION_NAMES];
    return 0;
}

static int check_labels(const Shard *s, Error *e)
{
    const ShardHeader *h = &s->header;
    uint64_t *counts = calloc(h->classes, sizeof *counts);
    if (!counts) return fail(e, STATUS_IO, "%s: no memory for %u counts", s->path, h->classes);
    int status = 0;
    for (uint64_t i = 0; i < h->n && !status; i++) {
        if (s->labels[i] < h->classes)
            counts[s->labels[i]]++;
        else
            status = fail(e, STATUS_DATA, "%s: label %" PRIu64 " is %d, expected less than %u",
                          s->path, i, s->labels[i], h->classes);
    }
    for (uint32_t k = 0; k < h->classes && !status; k++)
        if (counts[k] != s->counts[k])
            status =
                fail(e, STATUS_DATA,
                     "%s: count of class %u is %" PRIu64 ", expected %" PRIu64 " from the labels",
                     s->path, k, s->counts[k], counts[k]);
    free(counts);
    return status;
}

bool class_name_valid(const char *name, size_t length)
{
    const char *s = name, *end = name + length;
    for (size_t n; s < end && (n = utf8_printable(s, end)) > 0;) s += n;
    return length > 0 && s == end;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// Splits the section of names, each ended by a zero byte, and checks every name.
static int split_section_of_names(Shard *s, Error *e)
{
    const uint32_t classes = s->header.classes;
    char *next = s->names[0], *end = next + s->header.names.bytes;
    for (uint32_t k = 0; k < classes; k++) {
        char *zero = next < end ? memchr(next, 0, (size_t)(end - next)) : NULL;
        if (!zero)
            return fail(e, STATUS_DATA, "%s: section names holds %u names, expected %u", s->path, k,
                        classes);
        if (!class_name_valid(next, (size_t)(zero - next)))
            return fail(e, STATUS_DATA,
                        "%s: the name of class %u is \"%s\", expected non-empty UTF-8 without "
                        "control characters",
                        s->path, k, next);
        s->names[k] = next;
        next = zero + 1;
    }
    if (next != end)
        return fail(e, STATUS_DATA, "%s: section names is longer than its %u names", s->path,
                    classes);
    assert(classes > 0); // the header was checked
    char **sorted = malloc(classes * sizeof *sorted);
    if (!sorted) return fail(e, STATUS_IO, "%s: no memory for the class names", s->path);
    memcpy(sorted, s->names, classes * sizeof *sorted);
    qsort(sorted, classes, sizeof *sorted, compare_names);
    int status = 0;
    for (uint32_t k = 1; k < classes && !status; k++)
        if (strcmp(sorted[k - 1], sorted[k]) == 0)
            status = fail(e, STATUS_DATA, "%s: two classes are named \"%s\"", s->path, sorted[k]);
    free(sorted);
    return status;
}

static int open_file(Shard *s, uint64_t *size, Error *e)
{
    // O_NONBLOCK: a FIFO of that name must not make us wait for a writer.
    s->fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (s->fd < 0) return fail_errno(e, open_status(errno), "%s: cannot open", s->path);
    struct stat st;
    if (fstat(s->fd, &st)) return fail_errno(e, STATUS_IO, "%s: cannot stat", s->path);
    if (!S_ISREG(st.st_mode)) return fail(e, STATUS_DATA, "%s: not a regular file", s->path);
    *size = (uint64_t)st.st_size;
    return 0;
}

static int open_and_check(Shard *s, Error *e)
{
    const ShardHeader *h = &s->header;
    uint64_t size = 0;
    int status = open_file(s, &size, e);
    const size_t header_bytes = size < sizeof *h ? (size_t)size : sizeof *h;
    if (!status) status = read_exactly(s->fd, s->path, &s->header, header_bytes, 0, e);
    if (!status) status = shard_check_header(h, s->path, size, e);
    if (!status) status = read_sections(s, e);
    if (!status) status = check_labels(s, e);
    if (!status) status = split_section_of_names(s, e);
    if (status) return status;
    s->blocks = shard_blocks(h->images.bytes);
    s->checked = calloc((size_t)s->blocks, sizeof *s->checked);
    if (!s->checked)
        return fail(e, STATUS_IO, "%s: no memory for %" PRId64 " blocks", s->path, s->blocks);
    return 0;
}

int shard_open(Shard *s, const char *path, Error *e)
{
    *s = (Shard){.fd = -1, .path = strdup(path)};
    if (!s->path) return fail(e, STATUS_IO, "%s: no memory", path);
    const int status = open_and_check(s, e);
    if (status) shard_close(s);
    return status;
}

void shard_close(Shard *s)
{
    if (s->fd >= 0) close(s->fd);
    free(s->path);
    free(s->names);
    free(s->sections);
    free(s->checked);
    *s = (Shard){.fd = -1};
}

static int64_t block_bytes(const Shard *s, int64_t block)
{
    const int64_t rest = (int64_t)s->header.images.bytes - block * SHARD_BLOCK;
    return rest < SHARD_BLOCK ? rest : SHARD_BLOCK;
}

int shard_read_block(const Shard *s, int64_t block, uint8_t *bytes, Error *e)
{
    const size_t size = (size_t)block_bytes(s, block);
    const int64_t offset = (int64_t)s->header.images.offset + block * SHARD_BLOCK;
    const int status = read_exactly(s->fd, s->path, bytes, size, offset, e);
    if (status) return status;
    const uint32_t crc = (uint32_t)crc32_z(0, bytes, size);
    if (crc != s->sums[block])
        return fail(e, STATUS_DATA,
                    "%s: block %" PRId64 " (bytes %" PRId64 "..%" PRId64
                    ") has crc 0x%08x, expected 0x%08x; the file is damaged, make it again",
                    s->path, block, offset, offset + (int64_t)size - 1, crc, s->sums[block]);
    atomic_store_explicit(&s->checked[block], 1, memory_order_release);
    return 0;
}

// Reads bytes [from, to) of the images, all inside one block that was not read before.
static int read_first_time(const Shard *s, int64_t block, int64_t from, int64_t to, uint8_t *bytes,
                           Error *e)
{
    if (to - from == block_bytes(s, block)) return shard_read_block(s, block, bytes, e);
    uint8_t *whole = malloc(SHARD_BLOCK);
    if (!whole) return fail(e, STATUS_IO, "%s: no memory for a block", s->path);
    const int status = shard_read_block(s, block, whole, e);
    if (!status) memcpy(bytes, whole + (from - block * SHARD_BLOCK), (size_t)(to - from));
    free(whole);
    return status;
}

int shard_read(const Shard *s, int64_t first, int64_t n, uint8_t *images, Error *e)
{
    int64_t from = first * s->header.stride;
    const int64_t end = (first + n) * s->header.stride;
    while (from < end) {
        const int64_t block = from / SHARD_BLOCK, block_end = (block + 1) * SHARD_BLOCK;
        const int64_t to = block_end < end ? block_end : end;
        int status;
        if (atomic_load_explicit(&s->checked[block], memory_order_acquire))
            status = read_exactly(s->fd, s->path, images, (size_t)(to - from),
                                  (int64_t)s->header.images.offset + from, e);
        else
            status = read_first_time(s, block, from, to, images, e);
        if (status) return status;
        images += to - from;
        from = to;
    }
    return 0;
}

int shard_verify(const Shard *s, Error *e)
{
    uint8_t *bytes = malloc(SHARD_BLOCK);
    if (!bytes) return fail(e, STATUS_IO, "%s: no memory for a block", s->path);
    int status = 0;
    for (int64_t b = 0; b < s->blocks && !status; b++) status = shard_read_block(s, b, bytes, e);
    free(bytes);
    return status;
}
