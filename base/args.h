// Command-line options from one table: parsing, --help and the record in summary.json follow from
// it, so none of them can be forgotten.
//     static Options o = {.batch_size = 128, .lr = 0.1};
//     static Arg table[] = {
//         ARG_HEADING("Training"),
//         ARG_INT("batch-size", &o.batch_size, 1, 1 << 20, "images a step"),
//         ARG_DOUBLE("lr", &o.lr, 0, INFINITY, "factor on every learning rate"),
//     };
#ifndef BASE_ARGS_H
#define BASE_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/json.h"

typedef enum ArgType {
    ARG_TYPE_HEADING, // a line of --help
    ARG_TYPE_FLAG,    // --name: true
    ARG_TYPE_ONOFF,   // --name on|off
    ARG_TYPE_INT,
    ARG_TYPE_DOUBLE,
    ARG_TYPE_STRING,
    ARG_TYPE_CHOICE,     // one of a list of words; the value is its index
    ARG_TYPE_POSITIONAL, // an argument without --name; several are filled in the table's order
    ARG_TYPE_REST,       // all further arguments without --name
} ArgType;

// Arguments that stay in argv, where they are moved to the front.
typedef struct ArgList {
    char **item; // (count)
    int count;
} ArgList;

typedef struct Arg {
    ArgType type;
    const char *name; // without the dashes
    const char *help; // what it sets, in a few words; the default is added. NULL: not listed
    union {
        const void *value;
        bool *flag;
        int64_t *integer;
        double *real;
        const char **string; // points into argv once given
        int *choice;
        ArgList *list;
    };
    double min, max;            // of numbers, inclusive; the largest int64_t or double: INFINITY
    const char *const *choices; // ends with NULL
    const char *meta;           // what a string stands for, as "DIR"
    bool given;                 // set by args_parse()
} Arg;

#define ARG_HEADING(text)                                                                          \
    {                                                                                              \
        .type = ARG_TYPE_HEADING, .name = (text)                                                   \
    }
#define ARG_FLAG(n, bool_ptr, text)                                                                \
    {                                                                                              \
        .type = ARG_TYPE_FLAG, .name = (n), .flag = (bool_ptr), .help = (text)                     \
    }
#define ARG_ONOFF(n, bool_ptr, text)                                                               \
    {                                                                                              \
        .type = ARG_TYPE_ONOFF, .name = (n), .flag = (bool_ptr), .help = (text)                    \
    }
#define ARG_INT(n, int64_ptr, lo, hi, text)                                                        \
    {                                                                                              \
        .type = ARG_TYPE_INT, .name = (n), .integer = (int64_ptr), .min = (double)(lo),            \
        .max = (double)(hi), .help = (text)                                                        \
    }
#define ARG_DOUBLE(n, double_ptr, lo, hi, text)                                                    \
    {                                                                                              \
        .type = ARG_TYPE_DOUBLE, .name = (n), .real = (double_ptr), .min = (double)(lo),           \
        .max = (double)(hi), .help = (text)                                                        \
    }
#define ARG_STRING(n, string_ptr, what, text)                                                      \
    {                                                                                              \
        .type = ARG_TYPE_STRING, .name = (n), .string = (string_ptr), .meta = (what),              \
        .help = (text)                                                                             \
    }
#define ARG_CHOICE(n, int_ptr, words, text)                                                        \
    {                                                                                              \
        .type = ARG_TYPE_CHOICE, .name = (n), .choice = (int_ptr), .choices = (words),             \
        .help = (text)                                                                             \
    }
#define ARG_POSITIONAL(what, string_ptr, text)                                                     \
    {                                                                                              \
        .type = ARG_TYPE_POSITIONAL, .name = (what), .meta = (what), .string = (string_ptr),       \
        .help = (text)                                                                             \
    }
#define ARG_REST(what, list_ptr, text)                                                             \
    {                                                                                              \
        .type = ARG_TYPE_REST, .name = (what), .meta = (what), .list = (list_ptr), .help = (text)  \
    }

// True if -h or --help is among the arguments: print args_help() to stdout and exit 0.
bool args_help_asked(int argc, char **argv);

// Reads `--name value` and `--name=value` into the variables; the last one wins. A value that
// starts with "--" needs the "=" form. STATUS_USAGE names the option, the value and what was
// expected, with the nearest name for a misspelt one.
int args_parse(Arg *table, size_t n, int argc, char **argv, Error *e);

// Whether the user gave the option that sets this variable:
//     if (!args_given(table, n, &o.batch_size)) o.batch_size = 1024;
bool args_given(const Arg *table, size_t n, const void *value);

// Whether `text` is a decimal number from min to max, as of options; sets *number only then.
bool args_decimal(const char *text, double min, double max, double *number);

// Reads the value of the option `name`: "512,256" as whole numbers from min to max, at most `room`
// of them, or "none". Returns how many; ends the program with STATUS_USAGE if it is something else.
int args_numbers(const char *name, const char *text, int64_t min, int64_t max, int64_t *number,
                 int room);

// What an option is to a run that is continued.
typedef enum ArgResume {
    ARG_FIXED, // decides numbers: the run's value holds, and another is refused
    ARG_FREE,  // the run's value holds unless one is given
    ARG_ASIDE, // has nothing to do with the run
} ArgResume;

// Takes the values of a run that is continued from `run`, an object that args_json() wrote.
// What it sets counts as given. Strings point into `run`. STATUS_DATA lists every fixed option that
// was given another value; `source` is what to call the run.
int args_restore(Arg *table, size_t n, const JsonNode *run, ArgResume (*kind)(const char *name),
                 const char *source, Error *e);

// `usage`, then one line an option with the value its variable has now.
void args_help(const Arg *table, size_t n, FILE *out, const char *usage);

// Adds every option with its value to the object that is open in `j`; "batch-size" is written as
// "batch_size".
void args_json(const Arg *table, size_t n, Json *j);

#endif
