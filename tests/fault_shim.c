// Preloaded into a program: makes the n-th call of one function fail.
//     FAULT_CALL=write FAULT_AT=3 FAULT_ERRNO=28 LD_PRELOAD=build/native/tests/fault_shim.so
// PROGRAM
//   FAULT_CALL    alloc, open, read, write, fsync, rename, unlink, flock, close, mkdir, fork, mmap,
//                 socketpair: each with its relatives, as pread, openat and posix_memalign;
//                 file: all of them but alloc; seccomp, always and in all processes
//   FAULT_AT      the call that fails, from 1; with FAULT_ON=1 all later ones too
//   FAULT_ERRNO   the errno it sets, as a number
//   FAULT_DO      a shell command that runs there, in place of a failure; "kill": SIGKILL
//   FAULT_PLAIN_RENAME  renames with flags fail with EINVAL, as on a file system without them
//   FAULT_REPORT  a file that is created when a call was made to fail
// Calls are counted from the start of main(), and not in processes that the program forks.
//
// Not one with faults.c: that counts calls on files of one directory, whose content it follows to
// know what a power loss leaves; this one counts by the kind of call, wherever it goes.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool armed, from_then_on;
static long at;
static int error = EIO;
static const char *call = "", *report, *command;
static atomic_long count;

static long number(const char *name)
{
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : 0;
}

static void do_command(void)
{
    const int saved = errno;
    if (strcmp(command, "kill") == 0) raise(SIGKILL);
    armed = false;
    unsetenv("LD_PRELOAD");
    if (system(command)) _exit(99);
    armed = true;
    errno = saved;
}

static bool fails(const char *name)
{
    const bool file = strcmp(call, "file") == 0 && strcmp(name, "alloc") != 0;
    if (!armed || !*name || (strcmp(name, call) != 0 && !file)) return false;
    const long now = atomic_fetch_add(&count, 1) + 1;
    if (now != at && !(from_then_on && now > at)) return false;
    if (report) syscall(SYS_close, syscall(SYS_openat, AT_FDCWD, report, O_CREAT | O_WRONLY, 0600));
    if (command) {
        do_command();
        return false;
    }
    errno = error;
    return true;
}

// ---- arming, at the start of main() -------------------------------------------------------------

typedef int Main(int, char **, char **);
static Main *real_main;

static int counted_main(int argc, char **argv, char **environment)
{
    if (getenv("FAULT_CALL")) call = getenv("FAULT_CALL");
    at = number("FAULT_AT");
    from_then_on = number("FAULT_ON");
    if (getenv("FAULT_ERRNO")) error = (int)number("FAULT_ERRNO");
    report = getenv("FAULT_REPORT");
    command = getenv("FAULT_DO");
    armed = true;
    return real_main(argc, argv, environment);
}

int __libc_start_main(Main *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end);

int __libc_start_main(Main *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end)
{
    int (*real)(Main *, int, char **, void (*)(void), void (*)(void), void (*)(void), void *);
    *(void **)&real = dlsym(RTLD_NEXT, "__libc_start_main");
    real_main = main;
    return real(counted_main, argc, argv, init, fini, rtld_fini, stack_end);
}

// ---- memory: under glibc's other names, as dlsym() itself allocates -----------------------------

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size)
{
    return fails("alloc") ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return fails("alloc") ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
    return fails("alloc") ? NULL : __libc_realloc(p, size);
}

int posix_memalign(void **p, size_t alignment, size_t size)
{
    if (fails("alloc")) return ENOMEM;
    *p = __libc_memalign(alignment, size);
    return *p ? 0 : ENOMEM;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return fails("alloc") ? NULL : __libc_memalign(alignment, size);
}

// ---- files and processes ------------------------------------------------------------------------

#define WRAP(kind, type, name, failed, parameters, arguments)                                      \
    type name parameters                                                                           \
    {                                                                                              \
        static type(*real) parameters;                                                             \
        if (fails(kind)) return failed;                                                            \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);                                      \
        return real arguments;                                                                     \
    }

// What open() has for a mode where it takes none does not matter.
#define WRAP_OPEN(name, parameters, flags, arguments)                                              \
    int name parameters                                                                            \
    {                                                                                              \
        static int(*real) parameters;                                                              \
        va_list list;                                                                              \
        va_start(list, flags);                                                                     \
        const mode_t mode = va_arg(list, mode_t);                                                  \
        va_end(list);                                                                              \
        if (fails("open")) return -1;                                                              \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);                                      \
        return real arguments;                                                                     \
    }

struct dirent;
typedef struct __dirstream Directory;

WRAP_OPEN(open, (const char *path, int flags, ...), flags, (path, flags, mode))
WRAP_OPEN(open64, (const char *path, int flags, ...), flags, (path, flags, mode))
WRAP_OPEN(openat, (int dir, const char *path, int flags, ...), flags, (dir, path, flags, mode))
WRAP_OPEN(openat64, (int dir, const char *path, int flags, ...), flags, (dir, path, flags, mode))
WRAP("open", Directory *, opendir, NULL, (const char *path), (path))
WRAP("open", FILE *, fopen, NULL, (const char *path, const char *mode), (path, mode))
WRAP("read", struct dirent *, readdir, NULL, (Directory * dir), (dir))
WRAP("read", ssize_t, read, -1, (int fd, void *p, size_t n), (fd, p, n))
WRAP("read", ssize_t, pread, -1, (int fd, void *p, size_t n, off_t o), (fd, p, n, o))
WRAP("read", ssize_t, pread64, -1, (int fd, void *p, size_t n, off_t o), (fd, p, n, o))
// Messages on stderr must arrive.
WRAP(fd == STDERR_FILENO ? "" : "write", ssize_t, write, -1, (int fd, const void *p, size_t n),
     (fd, p, n))
WRAP("write", ssize_t, pwrite, -1, (int fd, const void *p, size_t n, off_t o), (fd, p, n, o))
WRAP("write", ssize_t, pwrite64, -1, (int fd, const void *p, size_t n, off_t o), (fd, p, n, o))
WRAP("write", int, ftruncate, -1, (int fd, off_t size), (fd, size))
WRAP("write", int, ftruncate64, -1, (int fd, off_t size), (fd, size))
WRAP("fsync", int, fsync, -1, (int fd), (fd))
WRAP("fsync", int, fdatasync, -1, (int fd), (fd))
WRAP("rename", int, rename, -1, (const char *a, const char *b), (a, b))
WRAP("rename", int, renameat, -1, (int i, const char *a, int k, const char *b), (i, a, k, b))

int renameat2(int i, const char *a, int k, const char *b, unsigned flags)
{
    if (fails("rename")) return -1;
    if (flags == 0 || !getenv("FAULT_PLAIN_RENAME"))
        return (int)syscall(SYS_renameat2, i, a, k, b, flags);
    errno = EINVAL;
    return -1;
}

WRAP("unlink", int, unlinkat, -1, (int dir, const char *path, int flags), (dir, path, flags))
WRAP("unlink", int, rmdir, -1, (const char *path), (path))
WRAP("flock", int, flock, -1, (int fd, int how), (fd, how))
WRAP("mkdir", int, mkdir, -1, (const char *path, mode_t mode), (path, mode))
WRAP("mmap", void *, mmap, MAP_FAILED, (void *p, size_t n, int r, int f, int fd, off_t o),
     (p, n, r, f, fd, o))
WRAP("mmap", void *, mmap64, MAP_FAILED, (void *p, size_t n, int r, int f, int fd, off_t o),
     (p, n, r, f, fd, o))
WRAP("socketpair", int, socketpair, -1, (int d, int t, int p, int fds[2]), (d, t, p, fds))

pid_t fork(void)
{
    pid_t (*real)(void);
    if (fails("fork")) return -1;
    *(void **)&real = dlsym(RTLD_NEXT, "fork");
    const pid_t pid = real();
    if (pid == 0) armed = false;
    return pid;
}

int prctl(int option, ...)
{
    int (*real)(int, ...);
    va_list list;
    va_start(list, option);
    const unsigned long argument = va_arg(list, unsigned long);
    va_end(list);
    if (option == PR_SET_SECCOMP && strcmp(call, "seccomp") == 0) {
        errno = EINVAL;
        return -1;
    }
    *(void **)&real = dlsym(RTLD_NEXT, "prctl");
    return real(option, argument, 0, 0, 0);
}

// Linux closes the descriptor in any case.
int close(int fd)
{
    const bool failed = fails("close");
    const int saved = errno;
    const long result = syscall(SYS_close, fd);
    if (failed) errno = saved;
    return failed ? -1 : (int)result;
}
