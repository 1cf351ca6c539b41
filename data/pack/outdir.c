#include "data/pack/outdir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/os.h"

// Renames to a name that is free: EEXIST otherwise. `from` and `to` lie in directory `fd`.
static int rename_new(int fd, const char *from, const char *to)
{
    struct stat st;
    if (renameat2(fd, from, fd, to, RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return -1;
    // A file system that cannot (9p under WSL): rename() still replaces no directory with files.
    if (fstatat(fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        errno = EEXIST;
        return -1;
    }
    return renameat(fd, from, fd, to);
}

// ---- what a directory holds ---------------------------------------------------------------------

// Names of a directory, as the kernel writes them. This works where there is neither memory nor a
// free descriptor, as when the program cleans up after the lack of them; opendir() needs both.
typedef struct Names {
    _Alignas(uint64_t) char list[4096];
    long size, at;
} Names;

static void names_start(Names *n, int fd)
{
    lseek(fd, 0, SEEK_SET);
    n->size = n->at = 0;
}

// NULL at the end, with errno set if it came early.
static const char *names_next(Names *n, int fd)
{
    struct {
        uint64_t inode, offset;
        uint16_t length;
        uint8_t type;
        char name[];
    } * entry;
    for (;;) {
        if (n->at == n->size) {
            errno = 0;
            n->at = 0;
            n->size = syscall(SYS_getdents64, fd, n->list, sizeof n->list);
            if (n->size <= 0) return n->size = 0, NULL;
        }
        entry = (void *)(n->list + n->at);
        n->at += entry->length;
        if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0) return entry->name;
    }
}

static void remove_ours(int fd, bool (*ours)(const char *name))
{
    Names n;
    for (bool removed = true; removed;) {
        removed = false;
        names_start(&n, fd);
        for (const char *name; (name = names_next(&n, fd));)
            if (ours(name) && unlinkat(fd, name, 0) == 0) removed = true;
    }
}

// Fails with STATUS_USAGE for a directory that holds files of others. `*any`: it holds ours.
static int expect_ours(int fd, const char *path, bool (*ours)(const char *name), bool *any,
                       Error *e)
{
    Names n;
    *any = false;
    names_start(&n, fd);
    for (const char *name; (name = names_next(&n, fd)); *any = true)
        if (!ours(name))
            return fail(e, STATUS_USAGE,
                        "%s: holds other files (%s), which stay: choose another place", path, name);
    return errno ? fail_errno(e, STATUS_IO, "%s: cannot read", path) : 0;
}

// ---- opening ------------------------------------------------------------------------------------

static bool is_current_directory(int fd)
{
    struct stat place, here;
    return fstat(fd, &place) == 0 && stat(".", &here) == 0 && place.st_dev == here.st_dev &&
           place.st_ino == here.st_ino;
}

static int open_directory(const char *path)
{
    return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

// An existing place may be replaced if it is a directory with nothing in it but our files. Whoever
// stands in it would stand in a deleted one.
static int check_place(Outdir *o, Error *e)
{
    bool any = false;
    const int fd = open_directory(o->path);
    if (fd < 0 && errno == ENOENT) return 0;
    if (fd < 0) return fail_errno(e, STATUS_IO, "%s: cannot write there", o->path);
    int status = expect_ours(fd, o->path, o->ours, &any, e);
    if (is_current_directory(fd))
        status =
            fail(e, STATUS_USAGE,
                 "%s: is the current directory, which cannot be replaced: name a new one", o->path);
    else if (!status && any && !o->replace)
        status =
            fail(e, STATUS_USAGE, "%s: already holds a data set; --force replaces it", o->path);
    o->existed = !any;
    close(fd);
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
    if (asprintf(&o->temporary, "%.*s.%s.tmp", parent, o->path, name) < 0) o->temporary = NULL;
    if (!o->temporary || asprintf(&o->old, "%s.old", o->temporary) < 0) o->old = NULL;
    return o->old ? 0 : fail(e, STATUS_IO, "no memory");
}

// Whether the path still leads to the directory that was opened by it.
static bool still_there(const char *path, int fd)
{
    struct stat there, here;
    return lstat(path, &there) == 0 && fstat(fd, &here) == 0 && there.st_dev == here.st_dev &&
           there.st_ino == here.st_ino;
}

static int lock_temporary(Outdir *o, Error *e)
{
    const bool made = mkdir(o->temporary, 0777) == 0;
    if (!made && errno != EEXIST)
        return fail_errno(e, STATUS_IO, "%s: cannot create (its parent directory must exist)",
                          o->path);
    o->fd = open_directory(o->temporary);
    if (o->fd < 0) {
        const int status = fail_errno(e, STATUS_IO, "%s: cannot open", o->temporary);
        if (made) rmdir(o->temporary);
        return status;
    }
    // Whoever had the lock may have moved the directory to its place since it was opened here.
    if (flock(o->fd, LOCK_EX | LOCK_NB) == 0 && still_there(o->temporary, o->fd)) return 0;
    const int status = fail(e, STATUS_IO, "%s: another program is writing this data set", o->path);
    close(o->fd);
    o->fd = -1;
    return status;
}

static bool holds_data_set(const Outdir *o)
{
    Error ignored;
    bool any = false;
    const int fd = open_directory(o->path);
    const bool ours = fd >= 0 && expect_ours(fd, o->path, o->ours, &any, &ignored) == 0;
    if (fd >= 0) close(fd);
    return ours && any;
}

// Where the file system cannot exchange two directories, a killed program may have left the one it
// wanted to replace under its other name: it goes back, or away if the new one came to its place.
static int settle_old(const Outdir *o, Error *e)
{
    bool any;
    const int fd = open_directory(o->old);
    if (fd < 0) return errno == ENOENT ? 0 : fail_errno(e, STATUS_IO, "%s: cannot open", o->old);
    int status = expect_ours(fd, o->old, o->ours, &any, e);
    if (!status && rename_new(AT_FDCWD, o->old, o->path) != 0) {
        if (errno != EEXIST) {
            status = fail_errno(e, STATUS_IO, "%s: cannot move the data set back", o->path);
        } else if (holds_data_set(o)) {
            remove_ours(fd, o->ours);
            rmdir(o->old);
        } else {
            status = fail(e, STATUS_USAGE,
                          "%s: holds no data set; the one that was there is %s: move it back",
                          o->path, o->old);
        }
    }
    close(fd);
    return status;
}

int outdir_open(Outdir *o, const char *path, bool (*ours)(const char *name), bool replace, Error *e)
{
    bool any;
    *o = (Outdir){.ours = ours, .replace = replace, .fd = -1};
    int status = name_temporary(o, path, e);
    if (!status) status = lock_temporary(o, e);
    if (!status) status = expect_ours(o->fd, o->temporary, ours, &any, e);
    if (!status) status = settle_old(o, e);
    if (!status) status = check_place(o, e);
    if (status)
        outdir_close(o);
    else
        remove_ours(o->fd, ours); // what a killed program left
    return status;
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
    if (rename_new(o->fd, from, to) == 0) return 0;
    return fail_errno(e, STATUS_IO, "%s/%s: cannot rename to %s", o->temporary, from, to);
}

// ---- committing ---------------------------------------------------------------------------------

// Sets *holder to where the directory is that was at the place.
static int swap(const Outdir *o, const char **holder, Error *e)
{
    *holder = o->temporary;
    if (renameat2(AT_FDCWD, o->temporary, AT_FDCWD, o->path, RENAME_EXCHANGE) == 0) return 0;
    // Some file systems (9p under WSL) cannot exchange: between two renames nothing is there.
    *holder = o->old;
    if (rename_new(AT_FDCWD, o->path, o->old))
        return fail_errno(e, STATUS_IO, "%s: cannot move the old data set away", o->path);
    if (rename_new(AT_FDCWD, o->temporary, o->path) == 0) return 0;
    const int status = fail_errno(e, STATUS_IO, "%s: cannot move the data set there", o->path);
    rename_new(AT_FDCWD, o->old, o->path);
    return status;
}

static void swap_back(const Outdir *o, const char *holder)
{
    if (holder == o->temporary)
        renameat2(AT_FDCWD, o->temporary, AT_FDCWD, o->path, RENAME_EXCHANGE);
    else if (rename_new(AT_FDCWD, o->path, o->temporary) == 0)
        rename_new(AT_FDCWD, o->old, o->path);
}

// Puts the temporary directory in place of an old data set, which stays open as *fd. Files of
// others that came into the old one are seen before, or after, when no path leads there any more.
static int exchange(const Outdir *o, int *fd, const char **holder, Error *e)
{
    bool any;
    *fd = open_directory(o->path);
    if (*fd < 0) return fail_errno(e, STATUS_IO, "%s: cannot open", o->path);
    int status = expect_ours(*fd, o->path, o->ours, &any, e);
    if (!status) status = swap(o, holder, e);
    if (status) return status;
    status = expect_ours(*fd, o->path, o->ours, &any, e);
    if (status) swap_back(o, *holder);
    return status;
}

static int move_in(const Outdir *o, int *old, const char **holder, Error *e)
{
    // rename() itself replaces a directory only if it is empty.
    if ((o->existed ? rename(o->temporary, o->path)
                    : rename_new(AT_FDCWD, o->temporary, o->path)) == 0)
        return 0;
    if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR)
        return fail_errno(e, STATUS_IO, "%s: cannot move the data set there", o->path);
    if (o->replace) return exchange(o, old, holder, e);
    return fail(e, STATUS_USAGE,
                "%s: something came there while the data set was made, and stays: choose another "
                "place",
                o->path);
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
    int old = -1;
    const char *holder = NULL;
    int status = keep_mode(o, e);
    if (!status && fsync(o->fd)) status = fail_errno(e, STATUS_IO, "%s: cannot sync", o->temporary);
    if (!status) status = move_in(o, &old, &holder, e);
    if (!status) {
        close(o->fd);
        o->fd = -1;
        if (os_sync_parent(o->path))
            status = fail_errno(e, STATUS_IO, "%s: is complete, but its directory cannot be synced",
                                o->path);
        if (old >= 0) {
            remove_ours(old, o->ours);
            rmdir(holder);
        }
    }
    if (old >= 0) close(old);
    return status;
}

void outdir_close(Outdir *o)
{
    if (o->fd >= 0 && o->temporary) {
        remove_ours(o->fd, o->ours);
        rmdir(o->temporary);
        close(o->fd);
    }
    free(o->path);
    free(o->temporary);
    free(o->old);
    *o = (Outdir){.fd = -1};
}
