// base/args: every way to give an option, and one line for every way to get one wrong.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"

#include <cmocka.h> // last: it defines a macro fail()

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

typedef struct Options {
    int64_t batch_size, seed;
    double lr, smoothing;
    const char *out, *file;
    int schedule;
    bool quiet, ema;
} Options;

static const char *const schedules[] = {"constant", "triangle", "cosine", NULL};
static Options o;
static Arg table[9];

static int reset(void **state)
{
    (void)state;
    o = (Options){.batch_size = 128, .lr = 0.1, .schedule = 1, .ema = true};
    const Arg fresh[COUNT(table)] = {
        ARG_HEADING("Training"),
        ARG_INT("batch-size", &o.batch_size, 1, 1000000, "images a step"),
        ARG_INT("seed", &o.seed, 0, INFINITY, "of every random decision"),
        ARG_DOUBLE("lr", &o.lr, 0, INFINITY, "learning rate"),
        ARG_DOUBLE("label-smoothing", &o.smoothing, 0, 0.5, "share of the other classes"),
        ARG_STRING("out", &o.out, "DIR", "directory of the run"),
        ARG_CHOICE("schedule", &o.schedule, schedules, "of the learning rate"),
        ARG_FLAG("quiet", &o.quiet, "print the result alone"),
        ARG_ONOFF("ema", &o.ema, "average the weights"),
    };
    memcpy(table, fresh, sizeof table);
    return 0;
}

// Splits at spaces and parses.
static int parse(const char *line, Error *e)
{
    static char copy[512];
    char *argv[16] = {"test"};
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word && argc < 16; word = strtok(NULL, " "))
        argv[argc++] = word;
    return args_parse(table, COUNT(table), argc, argv, e);
}

static void takes_both_forms(void **state)
{
    (void)state;
    Error e;
    assert_int_equal(parse("--batch-size 64 --seed=9223372036854775807 --lr 1e-3 --out=a=b --quiet "
                           "--schedule cosine --ema off --label-smoothing .25",
                           &e),
                     0);
    assert_int_equal(o.batch_size, 64);
    assert_int_equal(o.seed, INT64_MAX);
    assert_true(o.lr == 1e-3 && o.smoothing == 0.25);
    assert_string_equal(o.out, "a=b");
    assert_int_equal(o.schedule, 2);
    assert_true(o.quiet && !o.ema);
}

static void tells_given_from_default(void **state)
{
    (void)state;
    Error e;
    assert_int_equal(parse("--lr 1 --lr 2 --quiet", &e), 0);
    assert_true(o.lr == 2); // the last one wins
    assert_true(args_given(table, COUNT(table), &o.lr));
    assert_true(args_given(table, COUNT(table), &o.quiet));
    assert_false(args_given(table, COUNT(table), &o.batch_size));
    assert_int_equal(o.batch_size, 128);
}

static void refuses_with_one_line(void **state)
{
    (void)state;
    static const struct {
        const char *line, *message;
    } cases[] = {
        {"--batch-size 0", "--batch-size 0: expected a whole number from 1 to 1000000"},
        {"--batch-size 12abc", "--batch-size 12abc: expected a whole number"},
        {"--batch-size 1e99", "--batch-size 1e99: expected a whole number"},
        {"--batch-size 99999999999999999999", "expected a whole number from 1 to 1000000"},
        {"--batch-size -5", "--batch-size -5: expected a whole number"},
        {"--batch-size +5", "expected a whole number"},
        {"--batch-size 0x10", "expected a whole number"},
        {"--batch-size=", "expected a whole number"},
        {"--batch-size 1000001", "from 1 to 1000000"},
        {"--seed 9223372036854775808", "--seed 9223372036854775808: expected a whole number of at "
                                       "least 0"},
        {"--lr nan", "--lr nan: expected a number of at least 0"},
        {"--lr inf", "--lr inf: expected a number"},
        {"--lr 1e999", "--lr 1e999: expected a number"},
        {"--lr 0x1p3", "expected a number"},
        {"--lr 0,1", "--lr 0,1: expected a number"},
        {"--lr -1", "--lr -1: expected a number"},
        {"--lr 1.2.3", "expected a number"},
        {"--lr=", "expected a number"},
        {"--label-smoothing 0.6", "from 0 to 0.5"},
        {"--batch-size", "--batch-size needs a value: images a step"},
        {"--batch-size --quiet", "--batch-size needs a value"},
        {"--quiet=1", "--quiet takes no value"},
        {"--out=", "the value of --out is empty; expected DIR"},
        {"--ema yes", "--ema yes: expected on|off"},
        {"--schedule cosin", "expected constant|triangle|cosine; did you mean cosine?"},
        {"--schedule xyz", "--schedule xyz: expected constant|triangle|cosine"},
        {"--batchsize 1", "unknown option --batchsize; did you mean --batch-size?"},
        {"--batch_size 1", "did you mean --batch-size?"},
        {"--batch=1", "unknown option --batch; did you mean --batch-size?"},
        {"--sede 1", "did you mean --seed?"},
        {"--rl 1", "unknown option --rl"},
        {"--frobnicate", "unknown option --frobnicate; --help lists all options"},
        {"--", "unknown option --"},
        {"-q", "unknown option -q; options start with --"},
        {"pictures", "unexpected argument pictures"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        Error e = {0};
        reset(NULL);
        assert_int_equal(parse(cases[i].line, &e), STATUS_USAGE);
        if (!strstr(e.message, cases[i].message))
            fail_msg("%s: got \"%s\", expected \"%s\"", cases[i].line, e.message, cases[i].message);
    }
}

static void positionals_fill_in_order(void **state)
{
    (void)state;
    const char *from = NULL, *to = NULL;
    Arg two[] = {ARG_POSITIONAL("FROM", &from, "source"), ARG_POSITIONAL("TO", &to, "target")};
    char *argv[] = {"test", "a", "b", "c"};
    Error e;
    assert_int_equal(args_parse(two, 2, 3, argv, &e), 0);
    assert_string_equal(from, "a");
    assert_string_equal(to, "b");
    two[0].given = two[1].given = false;
    assert_int_equal(args_parse(two, 2, 4, argv, &e), STATUS_USAGE);
    assert_string_equal(e.message, "unexpected argument c; --help lists all options");
}

static void rest_takes_what_is_left(void **state)
{
    (void)state;
    const char *from = NULL;
    bool quiet = false;
    ArgList rest = {0};
    Arg list[] = {ARG_POSITIONAL("FROM", &from, "source"), ARG_REST("FILE...", &rest, "files"),
                  ARG_FLAG("quiet", &quiet, "print the result alone")};
    char *argv[] = {"test", "a", "--quiet", "b", "-", "c"};
    Error e;
    assert_int_equal(args_parse(list, 3, 6, argv, &e), 0);
    assert_true(quiet);
    assert_string_equal(from, "a");
    assert_int_equal(rest.count, 3);
    assert_string_equal(rest.item[0], "b");
    assert_string_equal(rest.item[1], "-");
    assert_string_equal(rest.item[2], "c");
    assert_int_equal(args_parse(list, 3, 3, (char *[]){"test", "b", "-c"}, &e), STATUS_USAGE);
    assert_string_equal(e.message, "unknown option -c; options start with --");
}

static void help_shows_live_values(void **state)
{
    (void)state;
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    o.batch_size = 77;
    args_help(table, COUNT(table), out, "usage: test [options]");
    fclose(out);
    assert_non_null(strstr(text, "usage: test [options]\nTraining:\n"));
    assert_non_null(strstr(text, "  --batch-size N       images a step [77]\n"));
    assert_non_null(strstr(text, "  --lr F               learning rate [0.1]\n"));
    assert_non_null(strstr(text, "  --ema on|off         average the weights [on]\n"));
    assert_non_null(strstr(text, "  --out DIR            directory of the run\n"));
    assert_non_null(strstr(text, "  --schedule constant|triangle|cosine  of the learning rate "
                                 "[triangle]\n"));
    free(text);
    assert_true(args_help_asked(2, (char *[]){"test", "-h"}));
    assert_true(args_help_asked(3, (char *[]){"test", "--quiet", "--help"}));
    assert_false(args_help_asked(2, (char *[]){"test", "--helper"}));
}

static void json_holds_every_option(void **state)
{
    (void)state;
    Json j = {0};
    json_object(&j, NULL);
    args_json(table, COUNT(table), &j);
    json_end(&j);
    assert_string_equal(j.text, "{\"batch_size\":128,\"seed\":0,\"lr\":0.1,\"label_smoothing\":0,"
                                "\"out\":null,\"schedule\":\"triangle\",\"quiet\":false,"
                                "\"ema\":true}");
    json_free(&j);
}

static ArgResume resume_kind(const char *name)
{
    if (strcmp(name, "out") == 0) return ARG_ASIDE;
    return strcmp(name, "quiet") == 0 ? ARG_FREE : ARG_FIXED;
}

// The options `line` for a run that was begun with `run`.
static int restore(const char *run, const char *line, Error *e)
{
    static JsonDocument d; // the options' strings point into it
    reset(NULL);
    json_document_free(&d);
    assert_int_equal(parse(line, e), 0);
    assert_int_equal(json_parse(&d, run, strlen(run), e), 0);
    return args_restore(table, COUNT(table), d.root, resume_kind, "runs/x", e);
}

static void continues_with_a_runs_options(void **state)
{
    (void)state;
    static const char run[] = "{\"batch_size\":7,\"seed\":9007199254740993,\"lr\":1e-05,"
                              "\"out\":\"old\",\"schedule\":\"cosine\",\"quiet\":false,"
                              "\"ema\":false}";
    Error e;
    assert_int_equal(restore(run, "--lr 0.00001 --quiet --ema off", &e), 0);
    assert_true(o.batch_size == 7 && o.seed == 9007199254740993 && o.lr == 1e-5);
    assert_true(o.schedule == 2 && o.quiet && !o.ema);
    assert_null(o.out);
    assert_true(args_given(table, COUNT(table), &o.batch_size));
    assert_false(args_given(table, COUNT(table), &o.smoothing)); // the run did not know it
    assert_int_equal(restore(run, "--batch-size 8 --lr 0.00001 --ema=on", &e), STATUS_DATA);
    assert_string_equal(e.message,
                        "runs/x was begun with --batch-size 7 --ema off: it cannot go on "
                        "with --batch-size 8 --ema on; leave that out");
}

static void refuses_a_runs_impossible_values(void **state)
{
    (void)state;
    static const char *const runs[] = {
        "{\"batch_size\":0}",      "{\"batch_size\":\"7\"}",
        "{\"batch_size\":1.5}",    "{\"lr\":-1}",
        "{\"lr\":null}",           "{\"label_smoothing\":0.6}",
        "{\"schedule\":\"step\"}", "{\"schedule\":1}",
        "{\"quiet\":1}",           "{\"ema\":null}",
    };
    Error e;
    for (size_t i = 0; i < COUNT(runs); i++) {
        assert_int_equal(restore(runs[i], "", &e), STATUS_DATA);
        assert_non_null(strstr(e.message, "is none it can have"));
    }
}

static ArgResume all_free(const char *name)
{
    (void)name;
    return ARG_FREE;
}

static void refuses_null_where_a_string_has_a_default(void **state)
{
    (void)state;
    JsonDocument d;
    Error e;
    const char *run = "{\"out\":null}";
    assert_int_equal(json_parse(&d, run, strlen(run), &e), 0);
    reset(NULL);
    o.out = "a default";
    assert_int_equal(args_restore(table, COUNT(table), d.root, all_free, "x", &e), STATUS_DATA);
    assert_string_equal(e.message, "x: the value of --out is none it can have");
    assert_string_equal(o.out, "a default");
    o.out = NULL;
    assert_int_equal(args_restore(table, COUNT(table), d.root, all_free, "x", &e), STATUS_OK);
    assert_null(o.out);
    json_document_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_null_where_a_string_has_a_default),
        cmocka_unit_test_setup(takes_both_forms, reset),
        cmocka_unit_test_setup(tells_given_from_default, reset),
        cmocka_unit_test_setup(refuses_with_one_line, reset),
        cmocka_unit_test(positionals_fill_in_order),
        cmocka_unit_test(rest_takes_what_is_left),
        cmocka_unit_test_setup(help_shows_live_values, reset),
        cmocka_unit_test_setup(json_holds_every_option, reset),
        cmocka_unit_test(continues_with_a_runs_options),
        cmocka_unit_test(refuses_a_runs_impossible_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
