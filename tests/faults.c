// A library to preload under a program, for tests: its n-th file call or allocation fails, or the
// program is killed there, as by kill -9 or by a power loss.
//
//   FAULT_ROOT=DIR    file calls under DIR (as the program spells it) count; needed
//   FAULT_AT=N        which call; none without it
//   FAULT_WHAT        file: open, opendir, read, write, fsync, close, ftruncate, rename, mkdir,
//                     unlink and rmdir count. memory: the program's own allocations count
//   FAULT_MODE        once: that call fails; always: and all after it; kill: the process dies
//                     there; full: as always, but only write, mkdir and creating a file count
//   FAULT_ERRNO=N     of file calls that fail; default ENOSPC
//   FAULT_MARK=FILE   is created when the fault comes: the test ends when it does not any more
//   FAULT_DISK=DIR    keeps what fsync() made safe: with "kill", DIR/all gets what of FAULT_ROOT
//                     survives if everything that was not synced is lost, and DIR/data the same if
//                     names survive and only the contents of files are lost
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES = 1024, INODES = 8192 };

static struct {
    const char *root, *mark, *disk;
    long at;
    bool memory, always, kill, full;
    int error;
    uintptr_t begin, end; // of the program's code
} fault;
static long count;
static bool ours[FILES]; // open files under the root
static bool inside;      // this library's own calls do not count

// The real function of that name.
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void store_tree(const char *path);

static int find_program(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X)) continue;
        fault.begin = info->dlpi_addr + p->p_vaddr;
        fault.end = fault.begin + p->p_memsz;
    }
    return 1; // the first one is the program
}

__attribute__((constructor)) static void start(void)
{
    const char *at = getenv("FAULT_AT"), *what = getenv("FAULT_WHAT"), *mode = getenv("FAULT_MODE");
    const char *error = getenv("FAULT_ERRNO");
    fault.root = getenv("FAULT_ROOT");
    fault.mark = getenv("FAULT_MARK");
    fault.disk = getenv("FAULT_DISK");
    fault.memory = what && strcmp(what, "memory") == 0;
    fault.always = mode && strcmp(mode, "always") == 0;
    fault.full = mode && strcmp(mode, "full") == 0;
    fault.kill = mode && strcmp(mode, "kill") == 0;
    fault.error = error ? atoi(error) : ENOSPC;
    dl_iterate_phdr(find_program, NULL);
    if (fault.disk && fault.root) store_tree(fault.root); // what was there is safe
    fault.at = at && fault.root ? atol(at) : 0;           // last: it arms the rest
}

// ---- what a power loss leaves -------------------------------------------------------------------

// Inode numbers are used again: a name in the store is "NUMBER.GENERATION".
static struct {
    ino_t number;
    int generation;
} inodes[INODES];

static int *generation(ino_t number)
{
    int i = (int)(number % INODES);
    while (inodes[i].number && inodes[i].number != number) i = (i + 1) % INODES;
    inodes[i].number = number;
    return &inodes[i].generation;
}

static void stored_name(char *path, ino_t number)
{
    snprintf(path, PATH_MAX, "%s/store/%lu.%d", fault.disk, (unsigned long)number,
             *generation(number));
}

static void copy_file(const char *from, const char *to)
{
    char block[65536];
    FILE *in = fopen(from, "r"), *out = fopen(to, "w");
    size_t n;
    while (in && out && (n = fread(block, 1, sizeof block, in)) > 0) fwrite(block, 1, n, out);
    if (in) fclose(in);
    if (out) fclose(out);
}

// A directory is stored as lines "STORED-NAME d|f NAME".
static void store_directory(const char *path, const char *to)
{
    FILE *out = fopen(to, "w");
    DIR *d = REAL(opendir)(path);
    for (const struct dirent *entry; d && out && (entry = readdir(d));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            fprintf(out, "%lu.%d %c %s\n", (unsigned long)entry->d_ino, *generation(entry->d_ino),
                    entry->d_type == DT_DIR ? 'd' : 'f', entry->d_name);
    if (d) closedir(d);
    if (out) fclose(out);
}

static void store(int fd)
{
    char path[PATH_MAX], to[PATH_MAX];
    struct stat s;
    if (fstat(fd, &s) != 0) return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    stored_name(to, s.st_ino);
    if (S_ISDIR(s.st_mode))
        store_directory(path, to);
    else
        copy_file(path, to);
}

static void store_tree(const char *path)
{
    char child[PATH_MAX];
    const int fd = REAL(open)(path, O_RDONLY);
    DIR *d = REAL(opendir)(path);
    if (fd >= 0) store(fd);
    for (const struct dirent *entry; d && (entry = readdir(d));) {
        snprintf(child, sizeof child, "%.3000s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) store_tree(child);
    }
    if (d) closedir(d);
    if (fd >= 0) REAL(close)(fd);
}

// The inode of `path` is free to be used again.
static void forget(const char *path)
{
    struct stat s;
    if (fault.disk && lstat(path, &s) == 0 && (S_ISDIR(s.st_mode) || s.st_nlink == 1))
        ++*generation(s.st_ino);
}

// Rebuilds what was synced of the directory stored as `stored` in `to`.
static void rebuild_synced(const char *stored, const char *to)
{
    char line[PATH_MAX], inode[64], type, name[256], from[PATH_MAX], path[PATH_MAX];
    REAL(mkdir)(to, 0777);
    FILE *list = fopen(stored, "r");
    while (list && fgets(line, sizeof line, list)) {
        if (sscanf(line, "%63s %c %255s", inode, &type, name) != 3) continue;
        snprintf(from, sizeof from, "%.3000s/store/%s", fault.disk, inode);
        snprintf(path, sizeof path, "%.3000s/%s", to, name);
        if (type == 'd')
            rebuild_synced(from, path);
        else
            copy_file(from, path);
    }
    if (list) fclose(list);
}

// The names as they are, with what was synced of the contents.
static void rebuild_data(const char *from, const char *to)
{
    char path[PATH_MAX], target[PATH_MAX], stored[PATH_MAX];
    REAL(mkdir)(to, 0777);
    DIR *d = REAL(opendir)(from);
    for (const struct dirent *entry; d && (entry = readdir(d));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        snprintf(path, sizeof path, "%.3000s/%s", from, entry->d_name);
        snprintf(target, sizeof target, "%.3000s/%s", to, entry->d_name);
        struct stat s;
        if (lstat(path, &s) != 0) continue;
        stored_name(stored, s.st_ino);
        if (S_ISDIR(s.st_mode))
            rebuild_data(path, target);
        else
            copy_file(stored, target);
    }
    if (d) closedir(d);
}

static void rebuild(void)
{
    char path[PATH_MAX], stored[PATH_MAX];
    struct stat s;
    if (stat(fault.root, &s) != 0) return;
    stored_name(stored, s.st_ino);
    snprintf(path, sizeof path, "%s/all", fault.disk);
    rebuild_synced(stored, path);
    snprintf(path, sizeof path, "%s/data", fault.disk);
    rebuild_data(fault.root, path);
}

// ---- the fault ----------------------------------------------------------------------------------

typedef enum { FILE_CALL, SPACE, MEMORY } Kind; // SPACE: a file call that needs space

// Counts a call; true if it must fail.
static bool fails(Kind kind)
{
    const bool memory = kind == MEMORY;
    if (!fault.at || inside || memory != fault.memory) return false;
    if (fault.full && kind != SPACE) return false;
    const long n = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (n != fault.at && !((fault.always || fault.full) && n > fault.at)) return false;
    inside = true;
    const int fd = fault.mark ? REAL(open)(fault.mark, O_CREAT | O_WRONLY, 0666) : -1;
    if (fd >= 0) REAL(close)(fd);
    if (fault.kill && fault.disk) rebuild();
    if (fault.kill) kill(getpid(), SIGKILL);
    inside = false;
    errno = memory ? ENOMEM : fault.error;
    return true;
}

static bool in_root(const char *path)
{
    return fault.root && !inside && strncmp(path, fault.root, strlen(fault.root)) == 0;
}

static bool is_ours(int fd)
{
    return fd >= 0 && fd < FILES && ours[fd];
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    const bool counts = in_root(path);
    if (counts && fails(flags & O_CREAT ? SPACE : FILE_CALL)) return -1;
    const int fd = REAL(open)(path, flags, mode);
    if (fd >= 0 && fd < FILES) ours[fd] = counts;
    return fd;
}

DIR *opendir(const char *path)
{
    return in_root(path) && fails(FILE_CALL) ? NULL : REAL(opendir)(path);
}

ssize_t read(int fd, void *data, size_t size)
{
    return is_ours(fd) && fails(FILE_CALL) ? -1 : REAL(read)(fd, data, size);
}

ssize_t write(int fd, const void *data, size_t size)
{
    return is_ours(fd) && fails(SPACE) ? -1 : REAL(write)(fd, data, size);
}

int fsync(int fd)
{
    if (is_ours(fd) && fails(FILE_CALL)) return -1;
    const int status = REAL(fsync)(fd);
    if (status == 0 && is_ours(fd) && fault.disk) {
        inside = true;
        store(fd);
        inside = false;
    }
    return status;
}

int close(int fd)
{
    const bool failed = is_ours(fd) && fails(FILE_CALL);
    const int saved = errno;
    if (fd >= 0 && fd < FILES) ours[fd] = false;
    const int status = REAL(close)(fd);
    if (failed) errno = saved;
    return failed ? -1 : status;
}

int ftruncate(int fd, off_t size)
{
    return is_ours(fd) && fails(FILE_CALL) ? -1 : REAL(ftruncate)(fd, size);
}

int rename(const char *from, const char *to)
{
    if (in_root(to) && fails(FILE_CALL)) return -1;
    if (in_root(to)) forget(to);
    return REAL(rename)(from, to);
}

int mkdir(const char *path, mode_t mode)
{
    return in_root(path) && fails(SPACE) ? -1 : REAL(mkdir)(path, mode);
}

int unlink(const char *path)
{
    if (in_root(path) && fails(FILE_CALL)) return -1;
    struct stat s;
    if (in_root(path) && lstat(path, &s) == 0 && !S_ISDIR(s.st_mode)) forget(path);
    return REAL(unlink)(path);
}

int rmdir(const char *path)
{
    if (in_root(path) && fails(FILE_CALL)) return -1;
    if (in_root(path)) forget(path);
    return REAL(rmdir)(path);
}

// ---- memory -------------------------------------------------------------------------------------

// glibc's own names of its functions
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static bool no_memory(const void *caller)
{
    const uintptr_t at = (uintptr_t)caller;
    return at >= fault.begin && at < fault.end && fails(MEMORY);
}

void *malloc(size_t size)
{
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_realloc(p, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **p, size_t alignment, size_t size)
{
    if (no_memory(__builtin_return_address(0))) return ENOMEM;
    *p = __libc_memalign(alignment, size);
    return *p ? 0 : ENOMEM;
}
