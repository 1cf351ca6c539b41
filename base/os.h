// What needs POSIX or Linux: time, directories, files that appear whole or not at all, locks, the
// terminal, and facts about the machine. No other file of base/ makes such calls.
#ifndef BASE_OS_H
#define BASE_OS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

// Seconds of a clock that only goes forward; only differences mean something.
double os_seconds(void);
double os_others_seconds(void); // of processors' time that this process's other threads have had

// Since this process was started, to 0.01 s: what ran before main() and before an exec counts. NAN
// if the system does not tell.
double os_process_seconds(void);

void os_sleep(double seconds); // or until a signal comes
void os_yield(void);           // to another thread that wants this processor

// Local wall-clock time as "2026-11-20-235901".
enum { OS_TIMESTAMP_SIZE = 18 };
void os_timestamp(char text[static OS_TIMESTAMP_SIZE]);

// The same of a file's last change.
void os_file_timestamp(const char *path, char text[static OS_TIMESTAMP_SIZE]);

// Creates the directory and its missing parents, for good: names are synced. One that exists is
// fine. Fails with STATUS_IO.
int os_make_dirs(const char *path, Error *e);

// Creates one directory whose parent exists. `*existed` says that the name was taken, which is not
// an error: the directory is then somebody else's.
int os_make_dir(const char *path, bool *existed, Error *e);

bool os_exists(const char *path);

// Calls visit() with each name in a directory but . and .., in no order.
int os_list(const char *dir, void (*visit)(const char *name, void *context), void *context,
            Error *e);

// Removes a file, or a directory with the files in it, as far as possible.
void os_remove(const char *path);

// Makes a finished directory appear under its name for good: syncs it, renames it, syncs the
// parent. `to` must not exist, or be empty.
int os_commit_dir(const char *from, const char *to, Error *e);

// Makes the name of a file or directory last. -1 with errno set if that fails; a file system that
// syncs no directories is fine.
int os_sync_parent(const char *path);

// Reads a regular file whole into page-aligned memory, which the caller frees with free(). A path
// that is missing or no regular file fails with STATUS_DATA, everything else with STATUS_IO.
int os_read_file(const char *path, void **data, size_t *size, Error *e);

// Makes a file appear under `path` whole or not at all: it is written beside it under a temporary
// name, synced, then renamed over it. An unfinished one is removed after a failure and when the
// process exits, also through die() or exit() in a signal handler. One thread at a time. STATUS_IO.
int os_write_atomic(const char *path, const void *data, size_t size, Error *e);

// The same for contents that lie in several places.
typedef struct Bytes {
    const void *data;
    size_t size;
} Bytes;
int os_write_pieces(const char *path, const Bytes *pieces, size_t count, Error *e);

// A file that only grows, created new: STATUS_IO if it exists. os_append_reopen() takes one that
// exists and cuts it to `size` bytes.
int os_append_open(int *fd, const char *path, Error *e);
int os_append_reopen(int *fd, const char *path, int64_t size, Error *e);

// Appends by one write(). On failure the file is cut back to `*end`, so that it holds whole records
// only, and -1 is returned with errno set; on success `*end` moves on.
int os_append(int fd, const void *data, size_t size, int64_t *end);

// Takes the lock DIR/.lock, held until os_close() or the end of the process. STATUS_IO if another
// process holds it.
int os_lock(int *fd, const char *dir, Error *e);

// Whether a process holds it now.
bool os_locked(const char *dir);

int64_t os_process(void);              // its number
bool os_process_runs(int64_t process); // false once it has ended, waited for or not

// Calls `function` in a process of its own, where a fault ends nothing else, and which is killed
// after so many seconds. Returns what that returns, 0 to 127, or 128 + n where signal n ended it; 0
// where there can be no process.
int os_try(int (*function)(void), unsigned seconds);

// Starts a program in the background: arguments[0] is its path, and NULL ends them. It has a
// process group of its own, so that Ctrl-C does not end it, no standard streams, and nothing that
// is preloaded into this process. STATUS_IO.
int os_start(int64_t *process, const char *const *arguments, Error *e);

// Whether that program has ended; then sets its exit status, 128 + n where signal n ended it, and
// the processor seconds it took. Call it until it says so.
bool os_ended(int64_t process, int *status, double *seconds);

// Ends the process without any tidying up: now, or in some seconds whatever it does until then.
_Noreturn void os_exit(int status);
void os_exit_after(unsigned seconds, int status);

void os_sync(int fd); // as far as the file system can
void os_close(int fd);

// Makes SIGINT, SIGTERM, SIGHUP (a closed terminal) and SIGPIPE a request to stop, which
// os_stop_signal() returns (0: none). A SIGINT or SIGTERM after it ends the process at once. A
// SIGHUP or SIGPIPE that the process was started to ignore, as by nohup, stays ignored.
void os_catch_stop_signals(void);
int os_stop_signal(void);
int os_check_stop(Error *e); // 128 + n with a line, where it asks to stop by signal n

// Call it first in main(): a file that is opened takes no closed standard stream's place, and
// writing to closed stdout fails. A write beyond the limit on a file's size fails with EFBIG.
void os_open_streams(void);

// For a program whose answer is its output: it ends with STATUS_IO where that cannot be written.
void os_check_output_at_exit(void);

// A terminal that understands cursor movement: a TTY, and TERM is neither unset nor "dumb".
bool os_is_terminal(int fd);

bool os_wants_colors(void); // NO_COLOR is not set: https://no-color.org

// Columns of the terminal, 80 if unknown.
int os_terminal_width(int fd);

// Where this process runs: "wsl2", "wsl1", "container" or "linux". A container inside WSL is WSL:
// that is what decides the timing.
const char *os_platform(void);

// os_platform() from what it looks at: the text of /proc/version, and whether this is a container.
const char *os_platform_from(const char *proc_version, bool container);

// The processor's name from /proc/cpuinfo, "unknown" without one.
const char *os_cpu_model(void);

// Starts this program again with a limit on how long OpenMP's threads spin while they wait for each
// other, unless the environment has one: by default they hold the processor for many milliseconds,
// and where other programs want it too, training was 10 to 40 times slower. libgomp reads the limit
// as it is loaded, so it cannot be set later.
void os_limit_spinning(char *const *argv);

// Asks the kernel to let this process use AMX's tile registers. False: it does not.
bool os_allow_amx(void);

// Processors this process may use: the affinity mask and the cgroup's quota, rounded up; >= 1.
int os_cpu_count(void);

// The processors of the affinity mask, as bits of `set`; those that do not fit are left out.
void os_cpu_set(uint64_t *set, size_t words);

// Bytes of memory: the machine's or the cgroup's limit, whichever is lower; and the most this
// process has held so far.
int64_t os_memory_total(void);
int64_t os_memory_peak(void);

// Processor seconds that all threads of this process have used, and the ticks of /proc's times.
double os_cpu_seconds(void);
double os_ticks_a_second(void);

// The file of this program.
void os_program(char path[static PATH_MAX]);

// As much of a file of /proc or /sys as there is room for; empty if it cannot be read.
void os_read_text(const char *path, char *text, size_t size);

#endif
