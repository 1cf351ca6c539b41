// What the fuzz targets share. A target calls LLVMFuzzerTestOneInput() with bytes from anywhere:
// libFuzzer's under `make fuzz`, the files of corpus/NAME in the tests (main.h).
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <assert.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

// A failure must say one line and have the status of its kind.
static inline void check_failure(int status, const Error *e)
{
    if (status == 0) return;
    assert(status == STATUS_DATA || status == STATUS_USAGE);
    assert(e->status == status && e->message[0]);
    for (const char *s = e->message; *s; s++) assert((unsigned char)*s >= 0x20 && *s != 0x7f);
}

// Writes the bytes to a file in memory, the same one at every call; returns its path.
static inline const char *file_in_memory(const void *bytes, size_t size)
{
    static char path[64];
    static int fd = -1;
    if (fd < 0) fd = memfd_create("fuzz", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (ftruncate(fd, 0) || pwrite(fd, bytes, size, 0) != (ssize_t)size) abort();
    return path;
}

// A new directory, in memory unless TMPDIR says where; one a process, removed by nobody.
static inline const char *directory_in_memory(void)
{
    static char path[256];
    if (path[0]) return path;
    const char *place = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/nn-fuzz.XXXXXX", place ? place : "/dev/shm");
    if (!mkdtemp(path)) abort();
    return path;
}

static inline void write_file(const char *dir, const char *name, const void *bytes, size_t size)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size) abort();
    close(fd);
}

// The next `want` bytes of the input, or what is left.
typedef struct Input {
    const uint8_t *bytes;
    size_t size;
} Input;

static inline Input take_bytes(Input *rest, size_t want)
{
    const Input part = {rest->bytes, want < rest->size ? want : rest->size};
    rest->bytes += part.size;
    rest->size -= part.size;
    return part;
}

static inline unsigned take_byte(Input *rest)
{
    const Input byte = take_bytes(rest, 1);
    return byte.size ? byte.bytes[0] : 0;
}

#endif
