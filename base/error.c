#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/utf8.h"

// File names and class names come from outside: a terminal must not obey what is inside them.
static void format_message(char *text, size_t size, const char *format, va_list arguments)
{
    char raw[sizeof((Error *)0)->message];
    vsnprintf(raw, sizeof raw, format, arguments);
    utf8_escape(text, size, raw, 0);
}

int(fail)(Error *e, int status, const char *format, ...) // a macro for clang-tidy
{
    va_list arguments;
    va_start(arguments, format);
    format_message(e->message, sizeof e->message, format, arguments);
    va_end(arguments);
    e->status = status;
    return status;
}

int fail_errno(Error *e, int status, const char *format, ...)
{
    const int saved = errno;
    va_list arguments;
    va_start(arguments, format);
    format_message(e->message, sizeof e->message, format, arguments);
    va_end(arguments);
    const size_t used = strlen(e->message);
    snprintf(e->message + used, sizeof e->message - used, ": %s", strerror(saved));
    e->status = status;
    return status;
}

static void (*before_message)(void);

void error_before_message(void (*clear)(void))
{
    before_message = clear;
}

// One write a line: messages of several processes do not mix.
static void print_line(const char *kind, const char *message)
{
    char line[sizeof((Error *)0)->message + 32];
    if (before_message) before_message();
    const int n = snprintf(line, sizeof line, "%s: %s\n", kind, message);
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0) return; // nobody left to tell
}

static int rank;

void error_set_rank(int r)
{
    rank = r;
}

// What all ranks meet is told once, by rank 0, with which all end: the others give it time.
enum { RANK_PATIENCE = 5 }; // seconds

void die_error(const Error *e)
{
    char kind[32] = "error";
    fflush(stdout);
    if (rank > 0) snprintf(kind, sizeof kind, "error: rank %d", rank);
    const int ended = rank > 0 && sleep(RANK_PATIENCE) > 0; // by a signal
    if (!ended) print_line(kind, e->message);
    exit(e->status);
}

void report_error(const char *format, ...)
{
    char message[sizeof((Error *)0)->message];
    va_list arguments;
    va_start(arguments, format);
    format_message(message, sizeof message, format, arguments);
    va_end(arguments);
    print_line("error", message);
}

void die(int status, const char *format, ...)
{
    Error e = {.status = status};
    va_list arguments;
    va_start(arguments, format);
    format_message(e.message, sizeof e.message, format, arguments);
    va_end(arguments);
    die_error(&e);
}

void warn(const char *format, ...)
{
    if (rank > 0) return;
    char message[sizeof((Error *)0)->message];
    va_list arguments;
    va_start(arguments, format);
    format_message(message, sizeof message, format, arguments);
    va_end(arguments);
    print_line("warning", message);
}

void check(int status, const Error *e)
{
    if (status != STATUS_OK) die_error(e);
}
