// Compares two sides of timing reports: docs/timing.md. Started by scripts/compare.sh.
#include <stdio.h>
#include <string.h>

#include "base/args.h"
#include "base/os.h"
#include "pages/comparison.h"

static const char *const USAGE =
    "Compares timing reports (bench.json) of --bench.\n"
    "Usage: scripts/compare.sh [options] A.json B.json\n"
    "       scripts/compare.sh [options] A1.json A2.json ... vs B1.json B2.json ...\n"
    "With 5 processes or more a side there is a verdict. Exit status: 0 equivalent, or figures\n"
    "without a verdict; 1 slower or faster; 2 wrong usage; 3 void, or no report;\n"
    "4 input or output; 7 undecided.";

enum { STATUS_UNDECIDED = 7, FIXED_ARGS = 2 };

// Options first; the files from *first on.
static int split(int argc, char **argv, int *first, int *middle, Error *e)
{
    for (*first = 1; *first < argc && strncmp(argv[*first], "--", 2) == 0; (*first)++)
        if (strcmp(argv[*first], "--html") == 0) (*first)++;
    for (*middle = *first; *middle < argc; (*middle)++)
        if (strcmp(argv[*middle], "vs") == 0) break;
    if (*middle == argc && argc - *first == SIDES) return STATUS_OK;
    if (*middle > *first && *middle + 1 < argc) return STATUS_OK;
    return fail(e, STATUS_USAGE, "expected A.json B.json, or several of each with vs between them");
}

static int status_of(const Comparison *c)
{
    if (c->invalid[0]) return STATUS_DATA;
    if (c->verdict == SLOWER || c->verdict == FASTER) return STATUS_FAILED;
    return c->verdict == UNDECIDED ? STATUS_UNDECIDED : STATUS_OK;
}

int main(int argc, char **argv)
{
    static Side sides[SIDES];
    static Comparison c;
    const char *html = "compare.html";
    bool commits = false;
    int first, middle;
    Error e;
    Arg table[FIXED_ARGS] = {
        ARG_FLAG("commits", &commits, "two builds: their programs and losses may differ"),
        ARG_STRING("html", &html, "FILE", "the page that is written"),
    };
    os_open_streams();
    os_check_output_at_exit();
    if (args_help_asked(argc, argv)) {
        args_help(table, FIXED_ARGS, stdout, USAGE);
        return STATUS_OK;
    }
    check(split(argc, argv, &first, &middle, &e), &e);
    check(args_parse(table, FIXED_ARGS, first, argv, &e), &e);
    if (middle == argc) {
        check(side_read(&sides[A], argv[first], &e), &e);
        check(side_read(&sides[B], argv[first + 1], &e), &e);
    }
    for (int i = first; middle < argc && i < argc; i++)
        if (i != middle) check(side_read(&sides[i < middle ? A : B], argv[i], &e), &e);
    check(comparison_make(&c, sides, commits, &e), &e);
    comparison_print(&c);
    check(comparison_page(&c, sides, html, &e), &e);
    printf("page       %s\n", html);
    side_free(&sides[A]);
    side_free(&sides[B]);
    return status_of(&c);
}
