// Lists runs, compares them or timing reports, writes a log as CSV, and draws the page of a run:
// docs/runs.md and docs/timing.md. Started by scripts/runs.sh and scripts/compare.sh, and for the
// page by the process that trains (train/report.c).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/os.h"
#include "pages/timing_comparison.h"
#include "pages/report_page.h"
#include "pages/runs.h"

static const char *const USAGE =
    "Lists runs, compares them, writes a log for spreadsheets, and draws a run's page.\n"
    "Usage: scripts/runs.sh [--wide] [DIR...]         the runs in each DIR, default runs/;\n"
    "                                                 the newest is the last\n"
    "       scripts/runs.sh compare [--out FILE] RUN...   a page of up to 8 runs' curves\n"
    "       scripts/runs.sh csv RUN                   log.jsonl as CSV, to stdout\n"
    "       scripts/runs.sh page RUN                  report.html anew, of a run that lives too\n"
    "       scripts/runs.sh timing --help             compares timing reports of --bench\n"
    "RUN is a run's directory, or its name in runs/.\n"
    "Exit status: 0 done, 2 wrong usage, 3 no run or a damaged one, 4 input/output.";

static const char *const TIMING_USAGE =
    "Compares timing reports (bench.json) of --bench.\n"
    "Usage: scripts/compare.sh [options] A.json B.json\n"
    "       scripts/compare.sh [options] A1.json A2.json ... vs B1.json B2.json ...\n"
    "With 5 processes or more a side there is a verdict. Exit status: 0 equivalent, or figures\n"
    "without a verdict; 1 slower or faster; 2 wrong usage; 3 void, or no report;\n"
    "4 input or output; 7 undecided.";

enum { STDOUT = 1, OPTIONS = 3, STATUS_UNDECIDED = 7 };

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

static void parse(Arg table[static OPTIONS], int argc, char **argv, const char *usage)
{
    Error e;
    if (args_help_asked(argc, argv)) {
        args_help(table, OPTIONS, stdout, usage);
        exit(STATUS_OK);
    }
    check(args_parse(table, OPTIONS, argc, argv, &e), &e);
}

// ---- timing reports -----------------------------------------------------------------------------

static void read_sides(Side sides[static SIDES], const ArgList *files)
{
    Error e;
    const int n = files->count;
    int vs = 0;
    while (vs < n && !is(files->item[vs], "vs")) vs++;
    if (vs == n ? n != SIDES : vs == 0 || vs + 1 == n)
        die(STATUS_USAGE, "expected A.json B.json, or several of each with vs between them");
    const int first_of_b = vs < n ? vs : 1;
    for (int i = 0; i < n; i++)
        if (i != vs) check(side_read(&sides[i < first_of_b ? A : B], files->item[i], &e), &e);
}

static int status_of(const Comparison *c)
{
    if (c->invalid[0]) return STATUS_DATA;
    if (c->verdict == SLOWER || c->verdict == FASTER) return STATUS_FAILED;
    return c->verdict == UNDECIDED ? STATUS_UNDECIDED : STATUS_OK;
}

static int compare_timings(int argc, char **argv)
{
    static Side sides[SIDES];
    static Comparison c;
    ArgList files = {0};
    const char *html = "compare.html";
    bool commits = false;
    Error e;
    Arg table[OPTIONS] = {
        ARG_FLAG("commits", &commits, "two builds: their programs and losses may differ"),
        ARG_STRING("html", &html, "FILE", "the page that is written"),
        ARG_REST("FILE...", &files, NULL),
    };
    parse(table, argc, argv, TIMING_USAGE);
    read_sides(sides, &files);
    check(comparison_make(&c, sides, commits, &e), &e);
    comparison_print(&c);
    check(comparison_page(&c, sides, html, &e), &e);
    printf("page       %s\n", html);
    side_free(&sides[A]);
    side_free(&sides[B]);
    return status_of(&c);
}

// ---- runs ---------------------------------------------------------------------------------------

typedef struct CommandLine {
    const char *command; // "list", "compare", "csv" or "page"
    ArgList names;       // of directories or runs
    bool wide;
    const char *page;
} CommandLine;

static bool of_one_run(const char *command)
{
    return is(command, "csv") || is(command, "page");
}

static void check_usage(const CommandLine *c, bool page_given)
{
    const int n = c->names.count;
    if (c->wide && !is(c->command, "list"))
        die(STATUS_USAGE, "--wide belongs to the list of runs, not to %s", c->command);
    if (page_given && !is(c->command, "compare"))
        die(STATUS_USAGE, "--out belongs to compare: scripts/runs.sh compare RUN...");
    if (of_one_run(c->command) && n != 1)
        die(STATUS_USAGE, "%s writes one run, but %d are given", c->command, n);
    if (is(c->command, "compare") && (n < 1 || n > RUNS_COMPARED_MAX))
        die(STATUS_USAGE, "compare takes 1 to %d runs, but %d are given", RUNS_COMPARED_MAX, n);
}

static void open_runs(SavedRun *runs, const ArgList *names)
{
    Error e;
    for (int i = 0; i < names->count; i++) {
        check(saved_run_open(&runs[i], names->item[i], true, &e), &e);
        if (runs[i].log.damaged)
            warn("%s/log.jsonl is damaged in line %zu; what follows is left out", runs[i].path,
                 runs[i].log.count + 1);
    }
}

static void write_file(SavedRun *runs, const CommandLine *c)
{
    Error e;
    char path[PATH_MAX];
    if (is(c->command, "csv")) {
        check(runs_csv(&runs[0], &e), &e);
        return;
    }
    if (is(c->command, "page"))
        check(report_page_draw(&runs[0], path, &e), &e);
    else
        check(runs_compare(runs, (size_t)c->names.count, c->page, &e), &e);
    printf("page     %s\n", is(c->command, "page") ? path : c->page);
}

int main(int argc, char **argv)
{
    static SavedRun runs[RUNS_COMPARED_MAX];
    Error e;
    CommandLine c = {.command = "list", .page = "runs.html"};
    Arg table[OPTIONS] = {
        ARG_FLAG("wide", &c.wide, "list: nothing is cut to fit the terminal or 80 columns"),
        ARG_STRING("out", &c.page, "FILE", "compare: the page that is written"),
        ARG_REST("RUN...", &c.names, NULL),
    };
    os_open_streams();
    os_check_output_at_exit();
    if (argc > 1 && is(argv[1], "timing")) return compare_timings(argc - 1, argv + 1);
    if (argc > 1 && (is(argv[1], "compare") || of_one_run(argv[1]))) {
        c.command = *++argv;
        argc--;
    }
    parse(table, argc, argv, USAGE);
    check_usage(&c, args_given(table, OPTIONS, &c.page));
    if (is(c.command, "list")) {
        const int columns = c.wide ? INT_MAX : os_terminal_width(STDOUT);
        check(runs_list(c.names.item, (size_t)c.names.count, columns, &e), &e);
        return STATUS_OK;
    }
    open_runs(runs, &c.names);
    write_file(runs, &c);
    for (int i = 0; i < c.names.count; i++) saved_run_close(&runs[i]);
    return STATUS_OK;
}
