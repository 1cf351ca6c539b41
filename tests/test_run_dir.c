// train/run and base/os: directories, locks, logs, what the user sees, files that appear whole
// or not at all.
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "train/run_dir.h"

#include <cmocka.h> // last: it defines a macro fail()

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static char scratch[] = "/tmp/nn-test-run-XXXXXX";

// Tests run in a directory of their own.
static int enter(void **state)
{
    (void)state;
    return mkdtemp(scratch) && chdir(scratch) == 0 ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    char command[sizeof scratch + 16];
    snprintf(command, sizeof command, "rm -rf %s", scratch);
    return chdir("/") == 0 ? system(command) : -1;
}

static int count_entries(const char *dir)
{
    DIR *d = opendir(dir);
    assert_non_null(d);
    int n = -2; // . and ..
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void assert_contents(const char *path, const char *expected)
{
    void *data;
    size_t size;
    Error e;
    assert_int_equal(os_read_file(path, &data, &size, &e), 0);
    assert_int_equal(size, strlen(expected));
    assert_memory_equal(data, expected, size);
    free(data);
}

// Runs `body` in a child; returns its exit status, 128 + n for signal n.
static int in_child(void (*body)(void))
{
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        body();
        exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Files may not grow beyond `bytes`: a full disk for the tests.
static void limit_files(rlim_t bytes)
{
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){bytes, bytes});
}

static void makes_directories(void **state)
{
    (void)state;
    Error e;
    assert_int_equal(os_make_dirs("a/b//c/", &e), 0);
    assert_int_equal(os_make_dirs("a/b/c", &e), 0);
    assert_int_equal(os_make_dirs("/tmp", &e), 0);
    assert_int_equal(os_write_atomic("a/file", "x", 1, &e), 0);
    assert_int_equal(os_make_dirs("a/file", &e), STATUS_IO);
    assert_string_equal(e.message, "a/file exists and is not a directory");
    assert_int_equal(os_make_dirs("a/file/b", &e), STATUS_IO);
    assert_int_equal(os_make_dirs("", &e), STATUS_IO);
}

static void reads_only_regular_files(void **state)
{
    (void)state;
    void *data;
    size_t size;
    Error e;
    assert_int_equal(os_write_atomic("empty", "", 0, &e), 0);
    assert_contents("empty", "");
    assert_int_equal(mkfifo("fifo", 0600), 0);
    assert_int_equal(os_read_file("fifo", &data, &size, &e), STATUS_DATA);
    assert_int_equal(os_read_file(".", &data, &size, &e), STATUS_DATA);
    assert_int_equal(os_read_file("absent", &data, &size, &e), STATUS_DATA);
    assert_string_equal(e.message, "cannot open absent: No such file or directory");
}

static void replaces_a_file_whole(void **state)
{
    (void)state;
    Error e;
    const Bytes pieces[] = {{"new", 3}, {"", 0}, {"er", 2}};
    assert_int_equal(os_make_dirs("whole", &e), 0);
    assert_int_equal(os_write_atomic("whole/x", "old", 3, &e), 0);
    assert_contents("whole/x", "old");
    assert_int_equal(os_write_pieces("whole/x", pieces, COUNT(pieces), &e), 0);
    assert_contents("whole/x", "newer");
    assert_int_equal(count_entries("whole"), 1);
    assert_int_equal(os_write_atomic("absent/x", "x", 1, &e), STATUS_IO);
    assert_int_equal(os_write_atomic("", "x", 1, &e), STATUS_IO);
    assert_int_equal(mkdir("whole/d", 0777), 0);
    assert_int_equal(os_write_atomic("whole/d", "x", 1, &e), STATUS_IO); // a directory
    assert_int_equal(count_entries("whole"), 2);
}

// Writes more than fits into full/x: the system calls `middle` when half of it is there.
static void write_too_much(void (*middle)(int))
{
    static char big[100000];
    Error e;
    limit_files(5000);
    signal(SIGXFSZ, middle);
    if (os_write_atomic("full/x", big, sizeof big, &e) != STATUS_IO) exit(9);
    if (!strstr(e.message, "it needs 100000 bytes")) exit(8);
}

static void full_disk(void)
{
    write_too_much(SIG_IGN);
}

static void die_in_handler(int signal_number)
{
    (void)signal_number;
    assert_contents("full/x", "kept");
    assert_int_equal(count_entries("full"), 2);
    if (!freopen("/dev/null", "w", stderr)) exit(9);
    die(STATUS_DIVERGED, "the loss is NaN");
}

static void die_while_writing(void)
{
    write_too_much(die_in_handler);
}

static void exit_in_handler(int signal_number)
{
    exit(128 + signal_number);
}

static void signal_while_writing(void)
{
    write_too_much(exit_in_handler);
}

// A worker forked in the middle of a write ends; the file is still its parent's.
static void child_exits(void)
{
}

static void fork_in_handler(int signal_number)
{
    (void)signal_number;
    if (in_child(child_exits) != 0 || count_entries("full") != 2) exit(7);
}

static void fork_while_writing(void)
{
    write_too_much(fork_in_handler);
}

static void leaves_no_temporaries(void **state)
{
    (void)state;
    Error e;
    assert_int_equal(os_make_dirs("full", &e), 0);
    assert_int_equal(os_write_atomic("full/x", "kept", 4, &e), 0);
    assert_int_equal(in_child(full_disk), 0);
    assert_int_equal(in_child(die_while_writing), STATUS_DIVERGED);
    assert_int_equal(in_child(signal_while_writing), 128 + SIGXFSZ);
    assert_int_equal(in_child(fork_while_writing), 0);
    assert_int_equal(count_entries("full"), 1);
    assert_contents("full/x", "kept");
    assert_int_equal(os_write_atomic("full/x", "", 0, &e), 0);
    assert_contents("full/x", "");
}

static void append_to_full_disk(void)
{
    int fd;
    int64_t end = 0;
    Error e;
    check(os_append_open(&fd, "log", &e), &e);
    limit_files(10);
    if (os_append(fd, "123456\n", 7, &end) != 0) exit(9);
    if (os_append(fd, "123456\n", 7, &end) != -1 || end != 7) exit(8);
    if (os_append(fd, "12\n", 3, &end) != 0 || end != 10) exit(7);
}

static void log_holds_whole_lines(void **state)
{
    (void)state;
    int fd;
    Error e;
    assert_int_equal(in_child(append_to_full_disk), 0);
    assert_contents("log", "123456\n12\n");
    assert_int_equal(os_append_open(&fd, "log", &e), STATUS_IO);
}

static void recognises_platforms(void **state)
{
    (void)state;
    static const struct {
        const char *version;
        bool container;
        const char *platform;
    } cases[] = {
        {"Linux version 5.15.153.1-microsoft-standard-WSL2 (root@x)", false, "wsl2"},
        {"Linux version 4.19.43-microsoft-standard (root@x)", false, "wsl2"},
        {"Linux version 6.6.36.3-microsoft-standard-WSL2", true, "wsl2"},
        {"Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com)", false, "wsl1"},
        {"Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org)", false, "linux"},
        {"Linux version 6.1.0-18-amd64", true, "container"},
        {"", false, "linux"},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_string_equal(os_platform_from(cases[i].version, cases[i].container),
                            cases[i].platform);
    assert_true(os_cpu_count() >= 1);
    assert_true(os_memory_total() > os_memory_peak() && os_memory_peak() > 0);
    assert_true(os_cpu_model()[0] != '\0');
}

static const Progress step4 = {.step = 4,
                               .steps = 8,
                               .epoch = 1,
                               .epochs = 2,
                               .loss = 1.5,
                               .train_accuracy = 0.25,
                               .images_per_s = 1000,
                               .data_wait = 0.02,
                               .memory_bytes = 130e6,
                               .seconds_left = 75};

static void log_step(RunDir *r, int64_t step, double epoch, const double values[6])
{
    static const char *const keys[] = {"loss",    "lr",           "train_accuracy",
                                       "step_ms", "images_per_s", "data_wait_ms"};
    Json *j = rundir_log_begin(r, step, epoch);
    for (size_t i = 0; i < COUNT(keys); i++) json_rounded(j, keys[i], values[i], 6);
    rundir_log_end(r);
}

// Of the fourth step, which ends the first epoch.
static void log_eval(RunDir *r, double loss)
{
    Json *j = rundir_log_begin(r, 4, 1);
    json_double(j, "test_loss", loss);
    json_double(j, "test_accuracy", 0.5);
    rundir_log_end(r);
    rundir_show_test(r, loss, 0.5);
}

static void writes_log_and_summary(void **state)
{
    (void)state;
    RunDir *r;
    Error e;
    assert_int_equal(rundir_open(&r, "out/run", "train_mlp", true, &e), 0);
    assert_string_equal(rundir_name(r), "out/run");
    log_step(r, 1, 0.25, (const double[]){2.5, 0.1, 0.125, 1.25, 1e5, 0.5});
    log_step(r, 2, 0.5, (const double[]){NAN, 0, 0, 0, 0, 0});
    rundir_progress(r, &step4);
    log_eval(r, 2);
    Json j = {0};
    json_object(&j, NULL);
    json_double(&j, "test_accuracy", 0.5);
    json_end(&j);
    assert_int_equal(rundir_finish(r, &j, &e), 0);
    json_free(&j);
    assert_contents("out/run/log.jsonl",
                    "{\"step\":1,\"epoch\":0.25,\"loss\":2.5,\"lr\":0.1,\"train_accuracy\":0.125,"
                    "\"step_ms\":1.25,\"images_per_s\":100000,\"data_wait_ms\":0.5}\n"
                    "{\"step\":2,\"epoch\":0.5,\"loss\":null,\"lr\":0,\"train_accuracy\":0,"
                    "\"step_ms\":0,\"images_per_s\":0,\"data_wait_ms\":0}\n"
                    "{\"step\":4,\"epoch\":1,\"test_loss\":2,\"test_accuracy\":0.5}\n");
    assert_contents("out/run/summary.json", "{\"test_accuracy\":0.5}\n");
    assert_int_equal(count_entries("out/run"), 3); // and the lock

    assert_int_equal(rundir_open(&r, "out/run", "train_mlp", true, &e), STATUS_USAGE);
    assert_non_null(strstr(e.message, "out/run holds a run without checkpoints"));
    assert_int_equal(mkdir("out/run/checkpoints", 0777), 0);
    assert_int_equal(rundir_open(&r, "out/run", "train_mlp", true, &e), STATUS_USAGE);
    assert_non_null(strstr(e.message, "out/run holds a run already"));
    assert_int_equal(rundir_open(&r, "out/run/log.jsonl", "train_mlp", true, &e), STATUS_IO);
    assert_int_equal(rundir_open(&r, "/dev/null/run", "train_mlp", true, &e), STATUS_IO);
}

static void finish(RunDir *r)
{
    Json j = {0};
    Error e;
    json_object(&j, NULL);
    json_end(&j);
    assert_int_equal(rundir_finish(r, &j, &e), 0);
    json_free(&j);
}

// A checkpoint before an evaluation: it comes again, and its record with it.
static void logs_an_evaluation_once(void **state)
{
    (void)state;
    static const char text[] = "{\"step\":4,\"epoch\":1,\"test_loss\":2,\"test_accuracy\":0.5}\n";
    RunDir *r;
    Error e;
    check(rundir_open(&r, "once", "train_mlp", true, &e), &e);
    for (int evaluated = 0; evaluated < 2; evaluated++) {
        if (!evaluated) log_eval(r, 2);
        finish(r);
        check(rundir_reopen(&r, "once", 0, 4, evaluated, true, &e), &e);
        assert_contents("once/log.jsonl", evaluated ? text : "");
        if (!evaluated) log_eval(r, 2);
    }
    finish(r);
    assert_contents("once/log.jsonl", text);
}

static void names_and_locks_directories(void **state)
{
    (void)state;
    RunDir *first, *second, *third;
    Error e;
    assert_int_equal(rundir_open(&first, NULL, "train_cnn", true, &e), 0);
    assert_int_equal(rundir_open(&second, NULL, "train_cnn", true, &e), 0);
    assert_int_equal(strncmp(rundir_name(first), "runs/20", 7), 0);
    assert_non_null(strstr(rundir_name(first), "-train_cnn"));
    assert_string_not_equal(rundir_name(first), rundir_name(second));
    assert_int_equal(rundir_open(&third, rundir_name(first), "train_cnn", true, &e), STATUS_IO);
    assert_non_null(strstr(e.message, "another run is using runs/20"));
    finish(first);
    finish(second);
}

static double epochs = 2;

// Eight steps; the fourth is evaluated.
static void train(const char *dir, bool quiet)
{
    RunDir *r;
    Error e;
    check(rundir_open(&r, dir, "train_mlp", quiet, &e), &e);
    for (int64_t step = 1; step <= 8; step++) {
        Progress p = step4;
        p.step = step;
        p.epoch = epochs / 8 * (double)step;
        p.epochs = epochs;
        rundir_progress(r, &p);
        if (step == 4) log_eval(r, 1);
    }
    finish(r);
}

static void train_piped(void)
{
    if (!freopen("piped.txt", "w", stdout)) exit(9);
    train("piped", false);
}

static void train_quiet(void)
{
    if (!freopen("quiet.txt", "w", stdout)) exit(9);
    train("quiet", true);
}

static void prints_a_line_an_epoch(void **state)
{
    (void)state;
    assert_int_equal(in_child(train_piped), 0);
    assert_contents("piped.txt",
                    "epoch 1.0/2  step 4/8  loss 1.500  train 25.0%  test 50.00%  1000 img/s\n"
                    "epoch 2.0/2  step 8/8  loss 1.500  train 25.0%  1000 img/s\n");
    assert_int_equal(in_child(train_quiet), 0);
    assert_contents("quiet.txt", "");
}

static char terminal_name[64];

static void train_on_terminal(void)
{
    const int fd = open(terminal_name, O_RDWR | O_NOCTTY);
    if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0) exit(9);
    train("terminal", false);
}

// Runs train_on_terminal() on a terminal `columns` wide and returns what it printed.
static void read_terminal(unsigned short columns, const char *term, char *text, size_t size)
{
    const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal < 0) {
        print_message("skip redraws_a_panel_on_a_terminal: no /dev/pts here\n");
        skip();
    }
    assert_true(grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    assert_int_equal(ptsname_r(terminal, terminal_name, sizeof terminal_name), 0);
    const int keep = open(terminal_name, O_RDWR | O_NOCTTY); // else the output is lost at exit
    assert_int_equal(ioctl(terminal, TIOCSWINSZ, &(struct winsize){.ws_col = columns}), 0);
    setenv("TERM", term, 1);
    assert_int_equal(in_child(train_on_terminal), 0);
    const ssize_t n = read(terminal, text, size - 1);
    assert_true(n > 0);
    text[n] = '\0';
    close(keep);
    close(terminal);
    assert_int_equal(system("rm -r terminal"), 0);
}

static void redraws_a_panel_on_a_terminal(void **state)
{
    (void)state;
    char text[4096];
    read_terminal(40, "xterm", text, sizeof text);
    // At most ten times a second: once before and once with the evaluation's lasting line, then
    // removed.
    assert_string_equal(text, "epoch 0.2/2  left 1m15s  step 1/8   12%\x1b[K\r\n"
                              "loss 1.500  train 25.0%  1000 img/s\x1b[J\r\x1b[1A\x1b[J"
                              "epoch 1.0/2  loss 1.500  train 25.0%  test 50.00%  1000 img/s\r\n"
                              "epoch 1.0/2  left 1m15s  step 4/8   50%\x1b[K\r\n"
                              "loss 1.500  train 25.0%  test 50.00%\x1b[J\r\x1b[1A\x1b[J");
    read_terminal(120, "xterm", text, sizeof text);
    assert_non_null(strstr(text, "step 1/8   12% [\x1b[32m=====                                   "
                                 "\x1b[0m]\x1b[K\r\n"));
    assert_non_null(strstr(text, "test 50.00%  1000 img/s  data wait 2%  130 MB\x1b[J"));
    setenv("NO_COLOR", "1", 1);
    read_terminal(120, "xterm", text, sizeof text);
    assert_non_null(strstr(text, "12% [=====   "));
    unsetenv("NO_COLOR");
    epochs = 0.5;
    read_terminal(120, "xterm", text, sizeof text);
    assert_non_null(strstr(text, "epoch 0.062/0.5  left"));
    epochs = 2;
    read_terminal(200, "dumb", text, sizeof text);
    assert_null(strchr(text, '\x1b'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(makes_directories),
        cmocka_unit_test(reads_only_regular_files),
        cmocka_unit_test(replaces_a_file_whole),
        cmocka_unit_test(leaves_no_temporaries),
        cmocka_unit_test(log_holds_whole_lines),
        cmocka_unit_test(recognises_platforms),
        cmocka_unit_test(writes_log_and_summary),
        cmocka_unit_test(logs_an_evaluation_once),
        cmocka_unit_test(names_and_locks_directories),
        cmocka_unit_test(prints_a_line_an_epoch),
        cmocka_unit_test(redraws_a_panel_on_a_terminal),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
