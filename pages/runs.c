// Lists runs, compares them, writes a log as CSV, and draws the page of a run: docs/runs.md.
// Started by scripts/runs.sh, and for the page by the process that trains (train/report.c).
#include <stdio.h>
#include <string.h>

#include "base/args.h"
#include "base/os.h"
#include "pages/runs.h"

static const char *const USAGE =
    "Lists runs, compares them, writes a log for spreadsheets, and draws a run's page.\n"
    "Usage: scripts/runs.sh [--wide] [DIR...]         the runs in each DIR, default runs/;\n"
    "                                                 the newest is the last\n"
    "       scripts/runs.sh compare [--out FILE] RUN...   a page of up to 8 runs' curves\n"
    "       scripts/runs.sh csv RUN                   log.jsonl as CSV, to stdout\n"
    "       scripts/runs.sh page RUN                  report.html anew, of a run that lives too\n"
    "RUN is a run's directory, or its name in runs/.\n"
    "Exit status: 0 done, 2 wrong usage, 3 no run or a damaged one, 4 input/output.";

enum { STDOUT = 1, OPTIONS = 2 };

typedef struct CommandLine {
    const char *command; // "list", "compare", "csv" or "page"
    const char **names;  // of directories or runs
    size_t count;
    bool wide;
    const char *page;
} CommandLine;

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

static bool of_one_run(const char *command)
{
    return is(command, "csv") || is(command, "page");
}

// Options may stand anywhere. `options` and c->names have room for all arguments.
static void divide(int argc, char **argv, CommandLine *c, char **options, int *n)
{
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            if (i == 1 && (is(argv[i], "compare") || of_one_run(argv[i])))
                c->command = argv[i];
            else
                c->names[c->count++] = argv[i];
            continue;
        }
        options[(*n)++] = argv[i];
        if (is(argv[i], "--out") && i + 1 < argc) options[(*n)++] = argv[++i];
    }
}

static int check_usage(const CommandLine *c, const Arg *table, size_t n, Error *e)
{
    if (c->wide && !is(c->command, "list"))
        return fail(e, STATUS_USAGE, "--wide belongs to the list of runs, not to %s", c->command);
    if (args_given(table, n, &c->page) && !is(c->command, "compare"))
        return fail(e, STATUS_USAGE, "--out belongs to compare: scripts/runs.sh compare RUN...");
    if (of_one_run(c->command) && c->count != 1)
        return fail(e, STATUS_USAGE, "%s writes one run, but %zu are given", c->command, c->count);
    if (is(c->command, "compare") && (c->count < 1 || c->count > RUNS_COMPARED_MAX))
        return fail(e, STATUS_USAGE, "compare takes 1 to %d runs, but %zu are given",
                    RUNS_COMPARED_MAX, c->count);
    return STATUS_OK;
}

static void open_runs(SavedRun *runs, const CommandLine *c)
{
    Error e;
    for (size_t i = 0; i < c->count; i++) {
        check(saved_run_open(&runs[i], c->names[i], true, &e), &e);
        if (runs[i].log.damaged)
            warn("%s/log.jsonl is damaged in line %zu; what follows is left out", runs[i].path,
                 runs[i].log.count + 1);
    }
}

static void write_file(const SavedRun *runs, const CommandLine *c)
{
    Error e;
    char path[PATH_MAX];
    if (is(c->command, "csv")) {
        check(runs_csv(&runs[0], &e), &e);
        return;
    }
    if (is(c->command, "page"))
        check(runs_report(&runs[0], path, &e), &e);
    else
        check(runs_page(runs, c->count, c->page, &e), &e);
    printf("page     %s\n", is(c->command, "page") ? path : c->page);
}

int main(int argc, char **argv)
{
    static SavedRun runs[RUNS_COMPARED_MAX];
    const char *names[argc];
    char *options[argc + 1];
    int n = 0;
    Error e;
    CommandLine c = {.command = "list", .names = names, .page = "runs.html"};
    Arg table[OPTIONS] = {
        ARG_FLAG("wide", &c.wide, "list: nothing is cut to fit the terminal or 80 columns"),
        ARG_STRING("out", &c.page, "FILE", "compare: the page that is written"),
    };
    os_open_streams();
    os_check_output_at_exit();
    if (args_help_asked(argc, argv)) {
        args_help(table, OPTIONS, stdout, USAGE);
        return STATUS_OK;
    }
    options[n++] = argv[0];
    divide(argc, argv, &c, options, &n);
    check(args_parse(table, OPTIONS, n, options, &e), &e);
    check(check_usage(&c, table, OPTIONS, &e), &e);
    if (is(c.command, "list")) {
        check(runs_list(c.names, c.count, c.wide ? INT_MAX : os_terminal_width(STDOUT), &e), &e);
        return STATUS_OK;
    }
    open_runs(runs, &c);
    write_file(runs, &c);
    for (size_t i = 0; i < c.count; i++) saved_run_close(&runs[i]);
    return STATUS_OK;
}
