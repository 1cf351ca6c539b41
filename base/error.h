// Errors: a message for a person and an exit status for a script.
//
// Functions that can fail on a user's files or machine take an `Error *`, return 0 or the status,
// and leave one line in it that says what, where, what was expected and what to do. They never
// print and never exit, so that tests and fuzzers can call them. A broken invariant of the program
// itself is an assert.
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

// The exit statuses of every program here. 128 + n means: stopped by signal n after saving.
enum {
    STATUS_OK = 0,
    STATUS_FAILED = 1,   // internal error, missed target, a rank lost
    STATUS_USAGE = 2,    // an option or its value
    STATUS_DATA = 3,     // data or checkpoint
    STATUS_IO = 4,       // input/output or host memory
    STATUS_DEVICE = 5,   // no such device, or the device failed
    STATUS_DIVERGED = 6, // the loss is NaN or infinite
};

typedef struct Error {
    int status;
    char message[1024]; // one line without the newline; what is not printable is shown as \xNN
} Error;

// Writes the message and returns `status`, so that a caller can `return fail(e, STATUS_DATA, ...)`.
int fail(Error *e, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));

#ifdef __clang_analyzer__ // which cannot know that
#define fail(e, status, ...) ((fail)((e), (status), __VA_ARGS__), (status))
#endif

// As fail(), with ": " and the text of errno at the end.
int fail_errno(Error *e, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));

// Prints "error: MESSAGE" to stderr and exits with the status.
_Noreturn void die(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void die_error(const Error *e);

// Prints "error: MESSAGE" to stderr, for who ends the process in another way.
void report_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Of several processes with the same task: those above rank 0 put it before their messages, do not
// warn, and give rank 0 five seconds to tell what all of them met, and to end them.
void error_set_rank(int rank);

// Prints "warning: MESSAGE" to stderr.
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

// `clear` is called before each message, to remove what is not meant to last; NULL: nothing.
void error_before_message(void (*clear)(void));

// die_error(&e) if `status` (what the call returned) is not 0:
//     check(shard_open(&s, path, &e), &e);
void check(int status, const Error *e);

#endif
