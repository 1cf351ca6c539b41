// The command line, one argument a line, against a table with an option of every type, and
// --augment's list.
#include <math.h>

#include "train/options.h"
#include "tests/fuzz/fuzz.h"

static const char *const words[] = {"constant", "linear", "triangle", NULL};
static bool flag, onoff;
static int64_t integer;
static double real;
static const char *string, *first, *second;
static int choice;
static ArgList rest_of_line;

static Arg table[] = {
    ARG_HEADING("Heading"),
    ARG_POSITIONAL("FIRST", &first, "one"),
    ARG_POSITIONAL("SECOND", &second, "two"),
    ARG_FLAG("flag", &flag, "a flag"),
    ARG_ONOFF("onoff", &onoff, "on or off"),
    ARG_INT("integer", &integer, -5, 1000000, "a number"),
    ARG_DOUBLE("real", &real, 0, INFINITY, "a number"),
    ARG_STRING("string", &string, "TEXT", "a text"),
    ARG_CHOICE("choice", &choice, words, "a word"),
    ARG_REST("REST...", &rest_of_line, "more"),
};
enum { TABLE = sizeof table / sizeof *table };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char *text = malloc(size + 1), *argv[64] = {(char *)(uintptr_t) "program"};
    memcpy(text, bytes, size);
    text[size] = '\0';
    int argc = 1;
    for (char *rest = text, *line; argc < 63 && (line = strsep(&rest, "\n"));) argv[argc++] = line;
    Error e = {0};
    const int status = args_parse(table, TABLE, argc, argv, &e);
    check_failure(status, &e);
    if (!status) {
        assert(integer >= -5 && integer <= 1000000 && real >= 0);
        assert(choice >= 0 && choice < 3);
        for (int i = 0; i < rest_of_line.count; i++) assert(rest_of_line.item[i][0]);
        Json json = {0};
        json_object(&json, NULL);
        args_json(table, TABLE, &json);
        json_end(&json);
        if (json_finish(&json, &e)) abort();
        json_free(&json);
    }
    Augment augment;
    check_failure(options_augment(&augment, argc > 1 ? argv[1] : "", 3, &e), &e);
    free(text);
    first = second = string = NULL;
    rest_of_line = (ArgList){0};
    for (int i = 0; i < TABLE; i++) table[i].given = false;
    return 0;
}
