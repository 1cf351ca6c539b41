#include "base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096 };

static double clock_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double os_seconds(void)
{
    return clock_seconds(CLOCK_MONOTONIC);
}

double os_others_seconds(void)
{
    return clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - clock_seconds(CLOCK_THREAD_CPUTIME_ID);
}

void os_sleep(double seconds)
{
    const struct timespec t = {(time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds))};
    nanosleep(&t, NULL);
}

void os_yield(void)
{
    sched_yield();
}

static void timestamp_of(time_t t, char text[static OS_TIMESTAMP_SIZE])
{
    struct tm local;
    if (!localtime_r(&t, &local) ||
        strftime(text, OS_TIMESTAMP_SIZE, "%Y-%m-%d-%H%M%S", &local) == 0)
        snprintf(text, OS_TIMESTAMP_SIZE, "unknown-time");
}

void os_timestamp(char text[static OS_TIMESTAMP_SIZE])
{
    timestamp_of(time(NULL), text);
}

void os_file_timestamp(const char *path, char text[static OS_TIMESTAMP_SIZE])
{
    struct stat s;
    if (stat(path, &s) == 0)
        timestamp_of(s.st_mtime, text);
    else
        snprintf(text, OS_TIMESTAMP_SIZE, "unknown-time");
}

// So that names in it survive a power loss. Some file systems cannot, and say EINVAL.
static int sync_dir(const char *dir)
{
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -1;
    int status = fsync(fd);
    if (status != 0 && errno == EINVAL) status = 0;
    const int saved = errno;
    close(fd);
    errno = saved;
    return status;
}

int os_sync_parent(const char *path)
{
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    return sync_dir(dirname(copy));
}

int os_make_dir(const char *path, bool *existed, Error *e)
{
    *existed = false;
    if (mkdir(path, 0777) == 0) return 0;
    if (errno != EEXIST) return fail_errno(e, STATUS_IO, "cannot create directory %s", path);
    *existed = true;
    return 0;
}

int os_make_dirs(const char *path, Error *e)
{
    char part[PATH_MAX];
    if (strlen(path) >= sizeof part) return fail(e, STATUS_IO, "path is too long: %.80s...", path);
    if (path[0] == '\0') return fail(e, STATUS_IO, "the directory's name is empty");
    for (size_t i = 1, n = strlen(path); i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        bool existed;
        struct stat s;
        if (os_make_dir(part, &existed, e)) return e->status;
        if (!existed && os_sync_parent(part) != 0)
            return fail_errno(e, STATUS_IO, "cannot create directory %s", part);
        if (existed && (stat(part, &s) != 0 || !S_ISDIR(s.st_mode)))
            return fail(e, STATUS_IO, "%s exists and is not a directory", part);
    }
    return 0;
}

void os_open_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)!open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY);
    signal(SIGXFSZ, SIG_IGN);
}

static void check_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return;
    report_error("cannot write the output"); // errno may be of something else by now
    _exit(STATUS_IO);
}

void os_check_output_at_exit(void)
{
    atexit(check_output);
}

bool os_exists(const char *path)
{
    struct stat s;
    return lstat(path, &s) == 0;
}

int os_list(const char *dir, void (*visit)(const char *name, void *context), void *context,
            Error *e)
{
    DIR *d = opendir(dir);
    if (!d)
        return fail_errno(e, errno == ENOENT || errno == ENOTDIR ? STATUS_DATA : STATUS_IO,
                          "cannot open %s", dir);
    errno = 0;
    for (const struct dirent *entry; (entry = readdir(d)); errno = 0)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            visit(entry->d_name, context);
    const int status = errno ? fail_errno(e, STATUS_IO, "cannot read %s", dir) : STATUS_OK;
    closedir(d);
    return status;
}

static void unlink_inside(const char *name, void *dir)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", (const char *)dir, name) < PATH_MAX) unlink(path);
}

void os_remove(const char *path)
{
    Error ignored;
    if (unlink(path) == 0 || (errno != EISDIR && errno != EPERM)) return;
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s", path);
    os_list(dir, unlink_inside, dir, &ignored);
    rmdir(dir);
}

static int read_open_file(int fd, const char *path, void **data, size_t *size, Error *e)
{
    struct stat s;
    if (fstat(fd, &s) != 0) return fail_errno(e, STATUS_IO, "cannot read %s", path);
    if (!S_ISREG(s.st_mode)) return fail(e, STATUS_DATA, "%s is not a regular file", path);
    const size_t n = (size_t)s.st_size;
    if (posix_memalign(data, PAGE, n ? n : 1) != 0)
        return fail(e, STATUS_IO, "not enough memory for %s: needs %zu bytes", path, n);
    size_t done = 0;
    while (done < n) {
        const ssize_t got = read(fd, (char *)*data + done, n - done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            if (got == 0)
                fail(e, STATUS_DATA, "%s shrank while it was read: %zu of %zu bytes", path, done,
                     n);
            else
                fail_errno(e, STATUS_IO, "cannot read %s at byte %zu", path, done);
            free(*data);
            *data = NULL;
            return e->status;
        }
        done += (size_t)got;
    }
    *size = n;
    return 0;
}

int os_read_file(const char *path, void **data, size_t *size, Error *e)
{
    // O_NONBLOCK: a FIFO must not block the open.
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fail_errno(e, errno == ENOENT || errno == ENOTDIR ? STATUS_DATA : STATUS_IO,
                          "cannot open %s", path);
    const int status = read_open_file(fd, path, data, size, e);
    close(fd);
    return status;
}

// Returns 0 or errno.
static int write_all(int fd, Bytes bytes)
{
    const char *p = bytes.data;
    while (bytes.size > 0) {
        const ssize_t n = write(fd, p, bytes.size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        p += n;
        bytes.size -= (size_t)n;
    }
    return 0;
}

int os_commit_dir(const char *from, const char *to, Error *e)
{
    if (sync_dir(from) == 0 && rename(from, to) == 0 && os_sync_parent(to) == 0) return STATUS_OK;
    return fail_errno(e, STATUS_IO, "cannot finish %s", to);
}

// The file that is being written, which exit() removes: it may run from a signal handler meanwhile.
static char unfinished[PATH_MAX];
static volatile pid_t writer; // whose file it is: no forked child's; 0: there is none

static void remove_unfinished(void)
{
    if (writer == getpid()) unlink(unfinished);
}

// Creates DIR/.tmp-NAME-PID-I beside `path`. -1 with errno set if that fails.
static int create_temporary(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    int fd = -1;
    errno = EEXIST;
    // The name is taken only if a process of the same number, long dead or in another container,
    // left it.
    for (int i = 0; i < 100 && fd < 0 && errno == EEXIST; i++) {
        const int n = snprintf(unfinished, sizeof unfinished, "%.*s.tmp-%s-%ld-%d",
                               (int)(name - path), path, name, (long)getpid(), i);
        if (n < (int)sizeof unfinished)
            fd = open(unfinished, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        else
            errno = ENAMETOOLONG;
    }
    return fd;
}

int os_write_pieces(const char *path, const Bytes *pieces, size_t count, Error *e)
{
    static bool registered;
    if (!registered) registered = atexit(remove_unfinished) == 0;
    const int fd = create_temporary(path);
    if (fd < 0) return fail_errno(e, STATUS_IO, "cannot create %s", path);
    writer = getpid();
    size_t size = 0;
    int error = 0; // errno of the first call that failed
    for (size_t i = 0; i < count; i++) size += pieces[i].size;
    for (size_t i = 0; i < count && !error; i++) error = write_all(fd, pieces[i]);
    if (!error && fsync(fd) != 0) error = errno;
    if (close(fd) != 0 && errno != EINTR && !error) error = errno;
    if (!error && (rename(unfinished, path) != 0 || os_sync_parent(path) != 0)) error = errno;
    if (error) unlink(unfinished);
    writer = 0;
    if (!error) return STATUS_OK;
    errno = error;
    return fail_errno(e, STATUS_IO, "cannot write %s: it needs %zu bytes", path, size);
}

int os_write_atomic(const char *path, const void *data, size_t size, Error *e)
{
    return os_write_pieces(path, &(Bytes){data, size}, 1, e);
}

int os_append_open(int *fd, const char *path, Error *e)
{
    *fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    if (*fd < 0) return fail_errno(e, STATUS_IO, "cannot create %s", path);
    return 0;
}

int os_append_reopen(int *fd, const char *path, int64_t size, Error *e)
{
    *fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (*fd < 0) return fail_errno(e, STATUS_IO, "cannot open %s", path);
    if (ftruncate(*fd, size) == 0) return STATUS_OK;
    fail_errno(e, STATUS_IO, "cannot cut %s to %lld bytes", path, (long long)size);
    close(*fd);
    return e->status;
}

int os_append(int fd, const void *data, size_t size, int64_t *end)
{
    ssize_t n;
    do n = write(fd, data, size);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)size) {
        *end += n;
        return 0;
    }
    const int saved = n < 0 ? errno : ENOSPC;
    if (n > 0 && ftruncate(fd, *end) != 0) *end += n;
    errno = saved;
    return -1;
}

int os_lock(int *fd, const char *dir, Error *e)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/.lock", dir) >= (int)sizeof path)
        return fail(e, STATUS_IO, "path is too long: %.80s...", dir);
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0) return fail_errno(e, STATUS_IO, "cannot create %s", path);
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0) return 0;
    os_sleep(0.01); // os_locked() holds it for a moment
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0) return 0;
    if (errno == EWOULDBLOCK)
        fail(e, STATUS_IO, "another run is using %s; choose another directory", dir);
    else
        fail_errno(e, STATUS_IO, "cannot lock %s", path);
    close(*fd);
    return e->status;
}

bool os_locked(const char *dir)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/.lock", dir) >= (int)sizeof path) return false;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const bool locked = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return locked;
}

int64_t os_process(void)
{
    return getpid();
}

int os_start(int64_t *process, const char *const *arguments, Error *e)
{
    posix_spawn_file_actions_t streams;
    posix_spawnattr_t group;
    pid_t started = 0;
    int error = 0;
    unsetenv("LD_PRELOAD"); // which is of no more use to this process
    posix_spawn_file_actions_init(&streams);
    posix_spawnattr_init(&group); // whose number is the process', unless that is set
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO && error == 0; fd++)
        error = posix_spawn_file_actions_addopen(&streams, fd, "/dev/null", O_RDWR, 0);
    if (error == 0) error = posix_spawnattr_setflags(&group, POSIX_SPAWN_SETPGROUP);
    if (error == 0)
        error = posix_spawn(&started, arguments[0], &streams, &group, (char *const *)arguments,
                            environ);
    posix_spawnattr_destroy(&group);
    posix_spawn_file_actions_destroy(&streams);
    *process = started;
    errno = error;
    return error ? fail_errno(e, STATUS_IO, "cannot start %s", arguments[0]) : STATUS_OK;
}

int os_try(int (*function)(void), unsigned seconds)
{
    int how = 0;
    struct sigaction before; // where it ignores SIGCHLD, a process leaves no status
    sigaction(SIGCHLD, &(struct sigaction){.sa_handler = SIG_DFL}, &before);
    const pid_t child = fork();
    if (child == 0) {
        const int nowhere = open("/dev/null", O_RDWR);
        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) dup2(nowhere, fd);
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGALRM, SIG_DFL);
        alarm(seconds);
        _exit(function());
    }
    while (child > 0 && waitpid(child, &how, 0) < 0 && errno == EINTR) continue;
    sigaction(SIGCHLD, &before, NULL);
    return WIFSIGNALED(how) ? 128 + WTERMSIG(how) : WEXITSTATUS(how);
}

bool os_ended(int64_t process, int *status, double *seconds)
{
    struct rusage used = {0};
    int how = 0;
    if (wait4((pid_t)process, &how, WNOHANG, &used) == 0) return false;
    // -1 where SIGCHLD is ignored: nothing is known of it then
    const struct timeval user = used.ru_utime, system = used.ru_stime;
    *status = WIFSIGNALED(how) ? 128 + WTERMSIG(how) : WEXITSTATUS(how);
    *seconds =
        (double)(user.tv_sec + system.tv_sec) + 1e-6 * (double)(user.tv_usec + system.tv_usec);
    return true;
}

void os_exit(int status)
{
    _exit(status);
}

static volatile sig_atomic_t exit_status;

static void exit_now(int number)
{
    (void)number;
    _exit(exit_status);
}

void os_exit_after(unsigned seconds, int status)
{
    exit_status = status;
    signal(SIGALRM, exit_now);
    alarm(seconds);
}

void os_sync(int fd)
{
    fsync(fd);
}

void os_close(int fd)
{
    close(fd);
}

bool os_is_terminal(int fd)
{
    const char *term = getenv("TERM");
    return term && *term && strcmp(term, "dumb") != 0 && isatty(fd);
}

bool os_wants_colors(void)
{
    const char *no_color = getenv("NO_COLOR");
    return !no_color || !no_color[0];
}

int os_terminal_width(int fd)
{
    struct winsize w;
    return ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

// The start of a small file, zero-terminated; empty if it cannot be read.
void os_read_text(const char *path, char *text, size_t size)
{
    text[0] = '\0';
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    size_t done = 0;
    ssize_t n;
    while (done < size - 1 && (n = read(fd, text + done, size - 1 - done)) > 0) done += (size_t)n;
    text[done] = '\0';
    close(fd);
}

bool os_process_runs(int64_t process)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)process);
    os_read_text(path, text, sizeof text);
    const char *state = strrchr(text, ')'); // after the name
    return state && state[1] && state[2] != 'Z' && state[2] != 'X';
}

double os_process_seconds(void)
{
    char text[1024];
    os_read_text("/proc/self/stat", text, sizeof text);
    const char *field = strrchr(text, ')'); // ends the second one
    for (int i = 2; field && i < 22; i++) field = strchr(field + 1, ' ');
    struct timespec now;
    if (!field || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return (double)NAN;
    const double started = strtod(field, NULL) / os_ticks_a_second();
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec - started;
}

const char *os_platform_from(const char *proc_version, bool container)
{
    // The first WSL 2 kernels said "microsoft-standard" alone; WSL 1 says "Microsoft".
    if (strstr(proc_version, "microsoft-standard") || strstr(proc_version, "WSL2")) return "wsl2";
    if (strstr(proc_version, "Microsoft")) return "wsl1";
    return container ? "container" : "linux";
}

static bool in_container(void)
{
    if (os_exists("/.dockerenv") || os_exists("/run/.containerenv")) return true;
    static const char *const names[] = {"docker", "containerd", "kubepods", "libpod", "/lxc"};
    char text[4096];
    os_read_text("/proc/1/cgroup", text, sizeof text);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strstr(text, names[i])) return true;
    return false;
}

const char *os_platform(void)
{
    char version[1024];
    os_read_text("/proc/version", version, sizeof version);
    return os_platform_from(version, in_container());
}

const char *os_cpu_model(void)
{
    static char model[128];
    if (model[0]) return model;
    char text[4096];
    os_read_text("/proc/cpuinfo", text, sizeof text);
    const char *line = strstr(text, "model name");
    const char *colon = line ? strchr(line, ':') : NULL;
    if (colon) {
        const char *name = colon + 1 + strspn(colon + 1, " \t");
        snprintf(model, sizeof model, "%.*s", (int)strcspn(name, "\n"), name);
    }
    if (!model[0]) strcpy(model, "unknown");
    return model;
}

// Calls visit() with the text of `file` in this process's cgroup (version 2) and in each parent:
// the lowest limit counts. Inside a container the own group is the root of /sys/fs/cgroup.
static void visit_cgroups(const char *file, void (*visit)(const char *text, double *limit),
                          double *limit)
{
    char membership[4096];
    os_read_text("/proc/self/cgroup", membership, sizeof membership);
    const char *line =
        strncmp(membership, "0::", 3) == 0 ? membership : strstr(membership, "\n0::");
    if (!line) return;
    const char *start = strchr(line, '/');
    char group[2048] = "";
    if (start) snprintf(group, sizeof group, "%.*s", (int)strcspn(start, "\n"), start);
    for (char *slash = group + strlen(group); slash; slash = strrchr(group, '/')) {
        *slash = '\0';
        char path[PATH_MAX], text[128];
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", group, file);
        os_read_text(path, text, sizeof text);
        visit(text, limit);
    }
}

static void visit_cpu_max(const char *text, double *limit)
{
    double quota, period; // microseconds; the quota is "max" where there is none
    if (sscanf(text, "%lf %lf", &quota, &period) == 2 && period > 0 && quota / period < *limit)
        *limit = quota / period;
}

static void visit_memory_max(const char *text, double *limit)
{
    double bytes;
    if (sscanf(text, "%lf", &bytes) == 1 && bytes < *limit) *limit = bytes;
}

static int affinity_count(void)
{
    // The kernel refuses a mask smaller than its own with EINVAL.
    for (size_t cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC(cpus);
        if (!set) break;
        const size_t size = CPU_ALLOC_SIZE(cpus);
        const bool ok = sched_getaffinity(0, size, set) == 0;
        const int count = ok ? CPU_COUNT_S(size, set) : 0;
        CPU_FREE(set);
        if (ok) return count;
    }
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

void os_cpu_set(uint64_t *set, size_t words)
{
    cpu_set_t mask;
    memset(set, 0, words * sizeof *set);
    if (sched_getaffinity(0, sizeof mask, &mask) != 0) return;
    for (size_t i = 0; i < 64 * words && i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &mask)) set[i / 64] |= (uint64_t)1 << i % 64;
}

void os_limit_spinning(char *const *argv)
{
    // about 0.1 ms: longer than the waits of a machine that is otherwise idle
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT")) return;
    char path[PATH_MAX]; // "/proc/self/exe" would show as the program's name
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0 || setenv("GOMP_SPINCOUNT", "3000", 1) != 0) return;
    path[length] = '\0';
    execv(path, argv);
}

bool os_allow_amx(void)
{
#if defined(__x86_64__)
    const long request_permission = 0x1023, tile_data = 18; // ARCH_REQ_XCOMP_PERM, XFEATURE
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}

int os_cpu_count(void)
{
    double limit = affinity_count();
    visit_cgroups("cpu.max", visit_cpu_max, &limit);
    const int count = (int)limit + (limit > (int)limit);
    return count < 1 ? 1 : count;
}

int64_t os_memory_total(void)
{
    double limit = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGE_SIZE);
    visit_cgroups("memory.max", visit_memory_max, &limit);
    return (int64_t)limit;
}

int64_t os_memory_peak(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
}

static volatile sig_atomic_t stop_signal;

// A terminal that is closed sends SIGHUP more than once, and each line that a closed pipe does not
// take sends SIGPIPE again: neither is a person's second request.
static void remember_signal(int number)
{
    stop_signal = number;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

void os_catch_stop_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
    const struct sigaction action = {.sa_handler = remember_signal, .sa_flags = SA_RESTART};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction before;
        sigaction(numbers[i], NULL, &before);
        const bool may_be_ignored = numbers[i] == SIGHUP || numbers[i] == SIGPIPE; // by nohup
        if (may_be_ignored && before.sa_handler == SIG_IGN) continue;
        sigaction(numbers[i], &action, NULL);
    }
}

int os_stop_signal(void)
{
    return stop_signal;
}

int os_check_stop(Error *e)
{
    const int number = stop_signal;
    return number ? fail(e, 128 + number, "stopped by signal %d", number) : STATUS_OK;
}

double os_cpu_seconds(void)
{
    return clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
}

double os_ticks_a_second(void)
{
    return (double)sysconf(_SC_CLK_TCK);
}

void os_program(char path[static PATH_MAX])
{
    if (realpath("/proc/self/exe", path)) return;
    // Without /proc: the name that the program was started by.
    const char *name = (const char *)getauxval(AT_EXECFN); // NOLINT(performance-no-int-to-ptr)
    if (!name || !realpath(name, path)) strcpy(path, "/proc/self/exe");
}
