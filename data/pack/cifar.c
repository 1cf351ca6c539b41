// The binary CIFAR files: records of a label (CIFAR-100: coarse, then fine) and 3072 bytes, the
// red, green and blue plane of a 32x32 image.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/pack/source.h"

enum { SIDE = 32, PLANE = SIDE * SIDE, PIXELS = 3 * PLANE, MAX_CLASSES = 100, MAX_FILES = 5 };

typedef struct Variant {
    const char *name, *directory, *class_file;
    const char *files[2][MAX_FILES];
    int classes, label_bytes;
} Variant;

static const Variant variants[2] = {
    {"CIFAR-10",
     "cifar-10-batches-bin",
     "batches.meta.txt",
     {{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
       "data_batch_5.bin"},
      {"test_batch.bin"}},
     10,
     1},
    {"CIFAR-100",
     "cifar-100-binary",
     "fine_label_names.txt",
     {{"train.bin"}, {"test.bin"}},
     100,
     2},
};

typedef struct CifarFile {
    char path[4300];
    int fd;
    int64_t records;
} CifarFile;

typedef struct Cifar {
    const Variant *variant;
    char dir[4200];
    CifarFile files[2][MAX_FILES];
    int file[2]; // the one that is read
    int64_t record[2];
    char *names[MAX_CLASSES];
    char text[8192]; // of the class file, which the names point into
} Cifar;

static bool has_file(const char *dir, const char *name)
{
    char path[4300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

// Finds out which data set lies in the directory or in its usual directory below.
static int find_variant(Cifar *c, const char *dir, Error *e)
{
    for (int i = 0; i < 4 && !c->variant; i++) {
        const Variant *v = &variants[i % 2];
        if (i < 2)
            snprintf(c->dir, sizeof c->dir, "%s", dir);
        else
            snprintf(c->dir, sizeof c->dir, "%s/%s", dir, v->directory);
        if (has_file(c->dir, v->files[0][0])) c->variant = v;
    }
    if (c->variant) return 0;
    return fail(e, STATUS_DATA,
                "%s: neither data_batch_1.bin (CIFAR-10) nor train.bin (CIFAR-100) is here; unpack "
                "the binary version of the data set",
                dir);
}

static int open_file(CifarFile *f, const char *path, size_t record_bytes, Error *e)
{
    snprintf(f->path, sizeof f->path, "%s", path);
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (f->fd < 0) return fail_errno(e, open_status(errno), "%s: cannot open", path);
    if (fstat(f->fd, &st) || !S_ISREG(st.st_mode))
        return fail(e, STATUS_DATA, "%s: not a regular file", path);
    f->records = st.st_size / (int64_t)record_bytes;
    if (st.st_size == 0 || st.st_size % (int64_t)record_bytes)
        return fail(e, STATUS_DATA,
                    "%s: has %" PRId64 " bytes, expected a multiple of %zu; get the file again",
                    path, (int64_t)st.st_size, record_bytes);
    return 0;
}

// One class name a line; empty lines at the end do not matter.
static int read_names(Cifar *c, Error *e)
{
    char path[4300];
    snprintf(path, sizeof path, "%s/%s", c->dir, c->variant->class_file);
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return fail_errno(e, open_status(errno), "%s: cannot open", path);
    const ssize_t size = read(fd, c->text, sizeof c->text);
    close(fd);
    if (size < 0) return fail_errno(e, STATUS_IO, "%s: cannot read", path);
    if ((size_t)size == sizeof c->text) return fail(e, STATUS_DATA, "%s: is too long", path);
    c->text[size] = '\0';
    int n = 0;
    char *start = c->text;
    if (strncmp(start, "\xef\xbb\xbf", 3) == 0) start += 3; // a byte order mark, from an editor
    for (char *rest = start, *line; (line = strsep(&rest, "\n"));) {
        const size_t length = strcspn(line, "\r");
        line[length] = '\0';
        if (length == 0) continue;
        if (n == c->variant->classes || length > SHARD_MAX_NAME || !class_name_valid(line, length))
            return fail(e, STATUS_DATA, "%s: line \"%s\" is no class name, or one too many", path,
                        line);
        for (int k = 0; k < n; k++)
            if (strcmp(c->names[k], line) == 0)
                return fail(e, STATUS_DATA, "%s: class \"%s\" is there twice", path, line);
        c->names[n++] = line;
    }
    if (n == c->variant->classes) return 0;
    return fail(e, STATUS_DATA, "%s: has %d class names, expected %d", path, n,
                c->variant->classes);
}

static int cifar_next(Source *source, Split split, uint8_t *image, int *label, Error *e)
{
    Cifar *c = source->state;
    *label = -1;
    if (c->file[split] < MAX_FILES && c->record[split] == c->files[split][c->file[split]].records) {
        c->file[split]++;
        c->record[split] = 0;
    }
    const int file = c->file[split];
    if (file == MAX_FILES || c->files[split][file].records == 0) return 0;
    const CifarFile *f = &c->files[split][file];
    const size_t size = (size_t)c->variant->label_bytes + PIXELS;
    uint8_t record[2 + PIXELS];
    const int status =
        read_exactly(f->fd, f->path, record, size, c->record[split] * (int64_t)size, e);
    if (status) return status;
    const uint8_t *planes = record + c->variant->label_bytes;
    const int class = planes[-1];
    if (class >= c->variant->classes || (c->variant->label_bytes == 2 && record[0] >= 20))
        return fail(e, STATUS_DATA, "%s: record %" PRId64 " has label %d, expected 0..%d", f->path,
                    c->record[split], class, c->variant->classes - 1);
    for (int i = 0; i < PLANE; i++)
        for (int k = 0; k < 3; k++) image[3 * i + k] = planes[k * PLANE + i];
    c->record[split]++;
    *label = class;
    return 0;
}

static void cifar_close(Source *source)
{
    Cifar *c = source->state;
    for (int i = 0; i < 2 * MAX_FILES && c; i++)
        if (c->files[i / MAX_FILES][i % MAX_FILES].fd >= 0)
            close(c->files[i / MAX_FILES][i % MAX_FILES].fd);
    free(c);
    source->state = NULL;
}

static int open_all(Source *source, Cifar *c, const char *dir, Error *e)
{
    int status = find_variant(c, dir, e);
    if (status) return status;
    const Variant *v = c->variant;
    for (int i = 0; i < 2 * MAX_FILES && !status; i++) {
        const int split = i / MAX_FILES, file = i % MAX_FILES;
        if (!v->files[split][file]) continue;
        char path[4300];
        snprintf(path, sizeof path, "%s/%s", c->dir, v->files[split][file]);
        status = open_file(&c->files[split][file], path, (size_t)v->label_bytes + PIXELS, e);
        source->count[split] += c->files[split][file].records;
    }
    return status ? status : read_names(c, e);
}

int cifar_open(Source *source, const char *dir, Error *e)
{
    *source = (Source){.h = SIDE, .w = SIDE, .c = 3, .next = cifar_next, .close = cifar_close};
    Cifar *c = source->state = calloc(1, sizeof *c);
    if (!c) return fail(e, STATUS_IO, "no memory");
    for (int i = 0; i < 2 * MAX_FILES; i++) c->files[i / MAX_FILES][i % MAX_FILES].fd = -1;
    const int status = open_all(source, c, dir, e);
    if (status) {
        cifar_close(source);
        return status;
    }
    source->classes = c->variant->classes;
    source->class_names = c->names;
    return 0;
}
