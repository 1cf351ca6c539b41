#include "data/outdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/os.h"

// Removes the files of a directory. This works where there is neither memory nor a free descriptor,
// as when the program cleans up after the lack of them; opendir() needs both.
static void empty_directory(int fd)
{
    struct {
        uint64_t inode, offset;
        uint16_t length;
        uint8_t type;
        char name[];
    } * entry; // as the kernel writes it
    _Alignas(uint64_t) char list[4096];
    for (bool removed = true; removed;) {
        removed = false;
        lseek(fd, 0, SEEK_SET);
        for (long n; (n = syscall(SYS_getdents64, fd, list, sizeof list)) > 0;)
            for (long at = 0; at < n; at += entry->length) {
                entry = (void *)(list + at);
                if (entry->name[0] != '.' && unlinkat(fd, entry->name, 0) == 0) removed = true;
            }
    }
}

static bool is_current_directory(int fd)
{
    struct stat place, here;
    return fstat(fd, &place) == 0 && stat(".", &here) == 0 && place.st_dev == here.st_dev &&
           place.st_ino == here.st_ino;
}

// An existing place may be replaced if it is a directory with nothing in it but our files. Whoever
// stands in it would stand in a deleted one.
static int check_place(const char *path, bool (*ours)(const char *name), bool replace, Error *e)
{
    DIR *list = opendir(path);
    if (!list && errno == ENOENT) return 0;
    if (!list) return fail_errno(e, STATUS_IO, "%s: cannot write there", path);
    int status = 0;
    if (is_current_directory(dirfd(list)))
        status =
            fail(e, STATUS_USAGE,
                 "%s: is the current directory, which cannot be replaced: name a new one", path);
    for (struct dirent *entry; !status && (entry = readdir(list));) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
        if (!ours(name))
            status =
                fail(e, STATUS_USAGE, "%s: holds other files (%s): choose a new or empty directory",
                     path, name);
        else if (!replace)
            status =
                fail(e, STATUS_USAGE, "%s: already holds a data set; --force replaces it", path);
    }
    closedir(list);
    return status;
}

static int name_temporary(Outdir *o, const char *path, Error *e)
{
    // An existing place by its real name: "." and a symbolic link have no usable parent.
    o->path = realpath(path, NULL);
    if (!o->path) o->path = strdup(path);
    if (!o->path) return fail(e, STATUS_IO, "no memory");
    for (size_t n = strlen(o->path); n > 1 && o->path[n - 1] == '/'; n--) o->path[n - 1] = '\0';
    const char *slash = strrchr(o->path, '/');
    const char *name = slash ? slash + 1 : o->path;
    if (*name == '\0') return fail(e, STATUS_USAGE, "\"%s\" is not a place for a data set", path);
    const int parent = (int)(name - o->path);
    if (asprintf(&o->temporary, "%.*s.%s.tmp", parent, o->path, name) < 0)
        return fail(e, STATUS_IO, "no memory");
    return 0;
}

static int lock_temporary(Outdir *o, Error *e)
{
    const bool made = mkdir(o->temporary, 0777) == 0;
    if (!made && errno != EEXIST)
        return fail_errno(e, STATUS_IO, "%s: cannot create (its parent directory must exist)",
                          o->path);
    o->fd = open(o->temporary, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (o->fd < 0) {
        const int status = fail_errno(e, STATUS_IO, "%s: cannot open", o->temporary);
        if (made) rmdir(o->temporary);
        return status;
    }
    if (flock(o->fd, LOCK_EX | LOCK_NB) == 0) return 0;
    const int status = fail(e, STATUS_IO, "%s: another program is writing this data set", o->path);
    close(o->fd);
    o->fd = -1;
    return status;
}

int outdir_open(Outdir *o, const char *path, bool (*ours)(const char *name), bool replace, Error *e)
{
    *o = (Outdir){.fd = -1};
    int status = name_temporary(o, path, e);
    if (!status) status = check_place(o->path, ours, replace, e);
    if (!status) status = lock_temporary(o, e);
    if (status) {
        outdir_close(o);
        return status;
    }
    empty_directory(o->fd); // what a killed program left
    return 0;
}

int outdir_create(const Outdir *o, const char *name, Error *e)
{
    const int fd = openat(o->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) fail_errno(e, STATUS_IO, "%s/%s: cannot create", o->temporary, name);
    return fd;
}

int outdir_reopen(const Outdir *o, const char *name, Error *e)
{
    const int fd = openat(o->fd, name, O_RDWR | O_CLOEXEC);
    if (fd < 0) fail_errno(e, STATUS_IO, "%s/%s: cannot open", o->temporary, name);
    return fd;
}

int outdir_rename(const Outdir *o, const char *from, const char *to, Error *e)
{
    if (renameat(o->fd, from, o->fd, to) == 0) return 0;
    return fail_errno(e, STATUS_IO, "%s/%s: cannot rename to %s", o->temporary, from, to);
}

static int move_away_and_in(const Outdir *o, char **old, Error *e)
{
    if (asprintf(old, "%s.old", o->temporary) < 0) {
        *old = NULL;
        return fail(e, STATUS_IO, "no memory");
    }
    if (rename(o->path, *old))
        return fail_errno(e, STATUS_IO, "%s: cannot move the old data set away", o->path);
    if (rename(o->temporary, o->path) == 0) return 0;
    const int status = fail_errno(e, STATUS_IO, "%s: cannot move the data set there", o->path);
    rename(*old, o->path);
    return status;
}

// Puts the temporary directory in place of an old data set and removes that.
static int exchange(const Outdir *o, Error *e)
{
    char *old = NULL;
    int status = 0;
    const int fd = open(o->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return fail_errno(e, STATUS_IO, "%s: cannot open", o->path);
    // Some file systems (9p under WSL) cannot exchange: between two renames nothing is there.
    if (renameat2(AT_FDCWD, o->temporary, AT_FDCWD, o->path, RENAME_EXCHANGE) != 0)
        status = move_away_and_in(o, &old, e);
    if (!status) {
        empty_directory(fd);
        rmdir(old ? old : o->temporary);
    }
    close(fd);
    free(old);
    return status;
}

// The place keeps the mode that it has.
static int keep_mode(const Outdir *o, Error *e)
{
    struct stat old, new;
    if (stat(o->path, &old) != 0 || fstat(o->fd, &new) != 0 || old.st_mode == new.st_mode ||
        fchmod(o->fd, old.st_mode & 07777) == 0)
        return 0;
    return fail_errno(e, STATUS_IO, "%s: cannot set the mode of %s", o->temporary, o->path);
}

int outdir_commit(Outdir *o, Error *e)
{
    const int mode = keep_mode(o, e);
    if (mode) return mode;
    if (fsync(o->fd)) return fail_errno(e, STATUS_IO, "%s: cannot sync", o->temporary);
    if (rename(o->temporary, o->path) != 0) {
        if (errno != ENOTEMPTY && errno != EEXIST)
            return fail_errno(e, STATUS_IO, "%s: cannot move the data set there", o->path);
        const int status = exchange(o, e);
        if (status) return status;
    }
    close(o->fd);
    o->fd = -1;
    if (os_sync_parent(o->path) == 0) return 0;
    return fail_errno(e, STATUS_IO, "%s: is complete, but its directory cannot be synced", o->path);
}

void outdir_close(Outdir *o)
{
    if (o->fd >= 0) {
        empty_directory(o->fd);
        rmdir(o->temporary);
        close(o->fd);
    }
    free(o->path);
    free(o->temporary);
    *o = (Outdir){.fd = -1};
}
