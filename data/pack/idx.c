// idx, the format of MNIST: big-endian u32 0x00000803, n, rows, columns, then n * rows * columns
// bytes of pixels; and 0x00000801, n, then n bytes of labels. A file may be compressed by gzip.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

#include "data/pack/source.h"

enum { CHUNK = 1 << 16, CLASSES = 10 };
enum { MAX_RATIO = 1032 }; // of what deflate can pack into a byte (zlib's technical details)

static char *digit_names[CLASSES] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};

// A file that is read from front to back, unpacked on the way if it is gzip.
typedef struct Stream {
    char path[4200];
    int fd;
    int64_t most;     // bytes that it can hold
    bool gzip, ended; // ended: the gzip member's end was seen, its checksum was right
    z_stream zip;
    uint8_t input[CHUNK]; // zip.next_in and zip.avail_in say what is left of it
} Stream;

typedef struct Idx {
    Stream images[2], labels[2];
    int64_t done[2];
} Idx;

static int refill(Stream *s, Error *e)
{
    const ssize_t n = read(s->fd, s->input, sizeof s->input);
    if (n < 0) return fail_errno(e, STATUS_IO, "%s: cannot read", s->path);
    s->zip.next_in = s->input;
    s->zip.avail_in = (unsigned)n;
    return 0;
}

// Sets *got to the bytes that there were, less than `size` only at the end.
static int stream_read(Stream *s, uint8_t *bytes, size_t size, size_t *got, Error *e)
{
    *got = 0;
    while (*got < size && !s->ended) {
        if (s->zip.avail_in == 0) {
            const int status = refill(s, e);
            if (status) return status;
            if (s->zip.avail_in == 0 && s->gzip)
                return fail(e, STATUS_DATA, "%s: the gzip data ends early; get the file again",
                            s->path);
            if (s->zip.avail_in == 0) return 0;
        }
        const size_t want = size - *got < CHUNK ? size - *got : CHUNK;
        size_t part = want < s->zip.avail_in ? want : s->zip.avail_in;
        if (s->gzip) {
            s->zip.next_out = bytes + *got;
            s->zip.avail_out = (unsigned)want;
            const int code = inflate(&s->zip, Z_NO_FLUSH);
            if (code == Z_MEM_ERROR)
                return fail(e, STATUS_IO, "%s: no memory to unpack it", s->path);
            if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
                return fail(e, STATUS_DATA, "%s: damaged gzip data (%s); get the file again",
                            s->path, s->zip.msg ? s->zip.msg : "no reason given");
            s->ended = code == Z_STREAM_END;
            part = want - s->zip.avail_out;
        } else {
            memcpy(bytes + *got, s->zip.next_in, part);
            s->zip.next_in += part;
            s->zip.avail_in -= (unsigned)part;
        }
        *got += part;
    }
    return 0;
}

static int stream_read_exactly(Stream *s, uint8_t *bytes, size_t size, Error *e)
{
    size_t got;
    const int status = stream_read(s, bytes, size, &got, e);
    if (status || got == size) return status;
    return fail(e, STATUS_DATA, "%s: ends early: its header promises more; get the file again",
                s->path);
}

// Nothing may follow what the header promised: no more data, no second gzip member, no junk.
static int stream_expect_end(Stream *s, Error *e)
{
    uint8_t more;
    size_t got;
    int status = stream_read(s, &more, 1, &got, e);
    if (!status && got > 0)
        status = fail(e, STATUS_DATA, "%s: holds more than its header promises", s->path);
    if (!status && s->gzip && s->zip.avail_in == 0) status = refill(s, e);
    if (!status && s->gzip && s->zip.avail_in > 0)
        status = fail(e, STATUS_DATA, "%s: bytes follow the end of the gzip data", s->path);
    return status;
}

// Opens the file in one of the forms that programs leave it in: its own name, the dotted one that
// 7-Zip finds inside the .gz, either as .gz, or in a folder that is called like the file (Kaggle).
// -1 with errno set if it is there in none.
static int open_form(Stream *s, const char *dir, const char *name)
{
    const char *idx = strstr(name, "-idx");
    char dotted[64], *names[2] = {(char *)(uintptr_t)name, dotted};
    struct stat st;
    snprintf(dotted, sizeof dotted, "%.*s.%s", (int)(idx - name), name, idx + 1);
    for (int form = 0; form < 8; form++) {
        const char *file = names[form & 1];
        if (form < 4)
            snprintf(s->path, sizeof s->path, "%s/%s%s", dir, file, form & 2 ? ".gz" : "");
        else
            snprintf(s->path, sizeof s->path, "%s/%s/%s", dir, names[form >> 1 & 1], file);
        const int fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0 && errno != ENOENT && errno != ENOTDIR) return -1;
        if (fd >= 0 && (fstat(fd, &st) || !S_ISDIR(st.st_mode))) return fd;
        if (fd >= 0) close(fd);
    }
    errno = ENOENT;
    return -1;
}

static int stream_open(Stream *s, const char *dir, const char *name, Error *e)
{
    struct stat st;
    s->fd = open_form(s, dir, name);
    if (s->fd < 0 && errno != ENOENT)
        return fail_errno(e, open_status(errno), "%s: cannot open", s->path);
    if (s->fd < 0)
        return fail(e, STATUS_DATA,
                    "%s/%s: not found, nor with .gz; idx needs the four MNIST files", dir, name);
    if (fstat(s->fd, &st) || !S_ISREG(st.st_mode))
        return fail(e, STATUS_DATA, "%s: not a regular file", s->path);
    const int status = refill(s, e);
    if (status) return status;
    s->gzip = s->zip.avail_in >= 2 && s->input[0] == 0x1f && s->input[1] == 0x8b;
    s->most = s->gzip ? st.st_size * MAX_RATIO : st.st_size;
    if (s->gzip && inflateInit2(&s->zip, 16 + MAX_WBITS) != Z_OK)
        return fail(e, STATUS_IO, "%s: no memory to unpack it", s->path);
    return 0;
}

static void stream_close(Stream *s)
{
    if (s->gzip) inflateEnd(&s->zip);
    if (s->fd >= 0) close(s->fd);
}

// Reads the magic number and `n` sizes.
static int read_header(Stream *s, uint32_t magic, uint32_t *sizes, size_t n, Error *e)
{
    uint8_t bytes[16];
    int status = stream_read_exactly(s, bytes, 4 + 4 * n, e);
    for (size_t i = 0; i <= n && !status; i++) {
        uint32_t word;
        memcpy(&word, bytes + 4 * i, 4);
        word = __builtin_bswap32(word);
        if (i > 0)
            sizes[i - 1] = word;
        else if (word != magic)
            status = fail(e, STATUS_DATA, "%s: begins with 0x%08x, idx %s with 0x%08x", s->path,
                          word, n == 3 ? "images" : "labels", magic);
    }
    return status;
}

static int open_split(Source *source, Idx *idx, Split split, const char *dir, Error *e)
{
    const char *prefix = split == SPLIT_TRAIN ? "train" : "t10k";
    Stream *images = &idx->images[split], *labels = &idx->labels[split];
    char name[64];
    uint32_t size[3] = {0}, label_count = 0;
    snprintf(name, sizeof name, "%s-images-idx3-ubyte", prefix);
    int status = stream_open(images, dir, name, e);
    if (!status) status = read_header(images, 0x803, size, 3, e);
    snprintf(name, sizeof name, "%s-labels-idx1-ubyte", prefix);
    if (!status) status = stream_open(labels, dir, name, e);
    if (!status) status = read_header(labels, 0x801, &label_count, 1, e);
    if (status) return status;
    if (size[0] == 0) return fail(e, STATUS_DATA, "%s: holds no images", images->path);
    if (size[0] != label_count)
        return fail(e, STATUS_DATA, "%s: has %u labels, expected %u as there are images",
                    labels->path, label_count, size[0]);
    for (int i = 1; i < 3; i++)
        if (size[i] < 1 || size[i] > SHARD_MAX_SIDE)
            return fail(e, STATUS_DATA, "%s: images are %ux%u, expected sides of 1..%d",
                        images->path, size[1], size[2], SHARD_MAX_SIDE);
    // Before anything is allocated for it. Three factors of 32 bits fit in a double, roughly.
    if ((double)size[0] * size[1] * size[2] > (double)images->most ||
        label_count > (double)labels->most)
        return fail(e, STATUS_DATA, "%s: ends early: its header promises more; get the file again",
                    images->path);
    if (split == SPLIT_TEST && (source->h != (int)size[1] || source->w != (int)size[2]))
        return fail(e, STATUS_DATA, "%s: images are %ux%u, expected %dx%d as in the train split",
                    images->path, size[1], size[2], source->h, source->w);
    source->h = (int)size[1];
    source->w = (int)size[2];
    source->count[split] = size[0];
    return 0;
}

static int idx_next(Source *source, Split split, uint8_t *image, int *label, Error *e)
{
    Idx *idx = source->state;
    Stream *images = &idx->images[split], *labels = &idx->labels[split];
    int status;
    *label = -1;
    if (idx->done[split] == source->count[split]) {
        status = stream_expect_end(images, e);
        return status ? status : stream_expect_end(labels, e);
    }
    uint8_t byte = 0;
    status = stream_read_exactly(images, image, (size_t)source->h * (size_t)source->w, e);
    if (!status) status = stream_read_exactly(labels, &byte, 1, e);
    if (!status && byte >= CLASSES)
        status = fail(e, STATUS_DATA, "%s: label %" PRId64 " is %d, expected 0..%d", labels->path,
                      idx->done[split], byte, CLASSES - 1);
    idx->done[split]++;
    *label = byte;
    return status;
}

static void idx_close(Source *source)
{
    Idx *idx = source->state;
    for (int s = 0; s < 2 && idx; s++) {
        stream_close(&idx->images[s]);
        stream_close(&idx->labels[s]);
    }
    free(idx);
    source->state = NULL;
}

// Looks where others than the user put the files: torchvision has DIR/MNIST/raw.
static int find_directory(char found[4096], const char *dir, Error *e)
{
    static const char *const below[] = {"", "/raw", "/MNIST/raw", "/FashionMNIST/raw",
                                        "/KMNIST/raw"};
    char path[4096];
    int places = 0;
    snprintf(found, 4096, "%s", dir);
    Stream *s = malloc(sizeof *s);
    if (!s) return fail(e, STATUS_IO, "no memory");
    for (size_t i = 0; i < sizeof below / sizeof *below; i++) {
        snprintf(path, sizeof path, "%s%s", dir, below[i]);
        const int fd = open_form(s, path, "train-images-idx3-ubyte");
        if (fd < 0) continue;
        close(fd);
        if (places++ == 0) memcpy(found, path, sizeof path);
    }
    free(s);
    if (places < 2) return 0;
    return fail(e, STATUS_DATA, "%s: holds more than one data set: name one, such as %s", dir,
                found);
}

int idx_open(Source *source, const char *dir, Error *e)
{
    char found[4096];
    *source = (Source){.c = 1,
                       .classes = CLASSES,
                       .class_names = digit_names,
                       .next = idx_next,
                       .close = idx_close};
    Idx *idx = source->state = calloc(1, sizeof *idx);
    if (!idx) return fail(e, STATUS_IO, "no memory");
    for (int s = 0; s < 2; s++) idx->images[s].fd = idx->labels[s].fd = -1;
    int status = find_directory(found, dir, e);
    if (!status) status = open_split(source, idx, SPLIT_TRAIN, found, e);
    if (!status) status = open_split(source, idx, SPLIT_TEST, found, e);
    if (status) idx_close(source);
    return status;
}
