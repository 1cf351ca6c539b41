// Inputs that crash, hang or reach for the system on purpose: each costs itself and nothing else.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/decode/arena.h"
#include "data/decode/sandbox.h"

#include <cmocka.h> // last: it defines a macro fail()

#ifdef __SANITIZE_ADDRESS__
static const bool sanitized = true; // no seccomp and no limit on memory then
#else
static const bool sanitized = false;
#endif

// The first byte says what to do, the second is the result.
enum { WORK, REFUSE, CRASH, SPIN, ALLOCATE, LEAVE, UNENDED, OPEN };
enum { N = 1000, OUT = 100 };

static void work(const void *context, const uint8_t *bytes, size_t size, uint8_t *out,
                 SandboxResult *r)
{
    uint8_t *piece = arena_alloc(5000);
    for (int i = 0; i < 5000; i++)
        if (piece[i]) strcpy(r->reason, "memory is not zero");
    memset(piece, 0xff, 5000);
    switch (bytes[0]) {
    case CRASH:
        *(volatile int *)(uintptr_t)(8 * size) = 1;
        break;
    case SPIN:
        for (volatile int forever = 1; forever;) continue;
        break;
    case OPEN:
        open("/dev/null", O_RDONLY);
        break;
    case ALLOCATE:
        while (arena_alloc(1 << 30)) continue;
        break;
    case LEAVE:
        _exit(0);
    case UNENDED:
        memset(r->reason, 'x', sizeof r->reason);
        break;
    }
    r->h = (int)size;
    r->status = bytes[0] == REFUSE ? STATUS_DATA : 0;
    memset(out, bytes[1], OUT);
    out[1] = *(const uint8_t *)context;
    if (piece) arena_free(piece);
}

static Sandbox *open_sandbox(int workers)
{
    static const uint8_t context = 77;
    const SandboxConfig c = {.work = work,
                             .context = &context,
                             .out_bytes = OUT,
                             .max_input = 4,
                             .workers = workers,
                             .cpu_seconds = 0,
                             .stall_seconds = 1};
    Sandbox *s;
    Error e = {0};
    if (sandbox_open(&s, &c, &e)) fail_msg("%s", e.message);
    return s;
}

// Runs N inputs of which `kinds` says what they do, and checks all that should be good. Returns how
// many were refused; *reason is the last one's.
static int run(Sandbox *s, uint8_t (*kind)(int i), char reason[200])
{
    int put = 0, bad = 0;
    for (int i = 0; i < N; i++) {
        for (uint8_t *input; put < N && (input = sandbox_input(s)); put++) {
            input[0] = kind(put);
            input[1] = (uint8_t)put;
            sandbox_put(s, 2 + (size_t)put % 3);
        }
        const uint8_t *out;
        SandboxResult r;
        Error e = {0};
        if (sandbox_take(s, &out, &r, &e)) fail_msg("%s", e.message);
        assert_null(memchr(r.reason, '\n', strlen(r.reason)));
        if (r.status) {
            assert_int_not_equal(kind(i), WORK);
            strcpy(reason, r.reason);
            bad++;
            continue;
        }
        if (kind(i) == WORK) assert_string_equal(r.reason, "");
        assert_int_equal(r.h, 2 + i % 3);
        assert_int_equal(out[0], (uint8_t)i);
        assert_int_equal(out[1], 77);
        assert_int_equal(out[OUT - 1], (uint8_t)i);
    }
    return bad;
}

static uint8_t all_work(int i)
{
    (void)i;
    return WORK;
}

static uint8_t planted;

static uint8_t some_planted(int i)
{
    return i == 499 || (planted != SPIN && (i == 0 || i == N - 1)) ? planted : WORK;
}

static void test_results_come_in_order(void **state)
{
    char reason[200];
    (void)state;
    for (int workers = 1; workers < 6; workers += 2) {
        Sandbox *s = open_sandbox(workers);
        assert_int_equal(run(s, all_work, reason), 0);
        assert_int_equal(run(s, all_work, reason), 0);
        sandbox_close(s);
    }
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); // no process is left
}

static void test_a_bad_input_costs_itself(void **state)
{
    static const struct {
        uint8_t kind;
        int bad;
        const char *reason;
    } cases[] = {
        {REFUSE, 3, ""},
        {CRASH, 3, "crashed with signal 11"},
        {SPIN, 1, "took more than 0 s"},
        {OPEN, 3, "a forbidden system call"},
        {LEAVE, 3, "a forbidden system call"}, // exit_group()
        {ALLOCATE, 0, ""},                     // refused, and there is room for the next input
        {UNENDED, 0, ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (sanitized && (cases[i].kind == OPEN || cases[i].kind == ALLOCATE)) continue;
        Sandbox *s = open_sandbox(2);
        char reason[200] = "";
        planted = cases[i].kind;
        assert_int_equal(run(s, some_planted, reason), cases[i].bad);
        if (!sanitized && sandbox_strict(s) && !strstr(reason, cases[i].reason))
            fail_msg("kind %d: \"%s\"", planted, reason);
        sandbox_close(s);
    }
}

static pid_t a_worker(void)
{
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *f = fopen(path, "r");
    if (f && !fgets(text, sizeof text, f)) text[0] = '\0';
    if (f) fclose(f);
    return (pid_t)strtol(text, NULL, 10);
}

// A worker that is killed or stopped from outside while it has nothing to do costs nothing.
static void test_workers_that_others_end(void **state)
{
    static const int signals[] = {SIGSEGV, SIGKILL, SIGTERM, SIGSTOP};
    (void)state;
    if (access("/proc/thread-self/children", F_OK) != 0) {
        puts("skip workers that others end: no lists of children in /proc here");
        skip();
    }
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        Sandbox *s = open_sandbox(2);
        char reason[200];
        for (int k = 0; k < 2; k++) {
            const pid_t victim = a_worker();
            assert_true(victim > 0);
            kill(victim, signals[i]);
            assert_int_equal(run(s, all_work, reason), 0);
        }
        sandbox_close(s);
    }
    sandbox_close(NULL);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void test_arena(void **state)
{
    enum { SIZE = 1 << 16 };
    (void)state;
    uint8_t *block = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    arena_use(block, SIZE);
    uint8_t *a = arena_alloc(100), *b = arena_alloc(0);
    assert_non_null(b);
    assert_true(b >= a + 100);
    memset(a, 1, 100);
    uint8_t *grown = arena_realloc(a, 100, 200); // not the newest: moved
    assert_true(grown != a && grown[99] == 1 && grown[100] == 0);
    memset(grown, 2, 200);
    assert_ptr_equal(arena_realloc(grown, 200, 40000), grown);
    assert_true(grown[199] == 2 && grown[200] == 0 && grown[39999] == 0);
    assert_null(arena_alloc(SIZE));
    assert_null(arena_alloc(SIZE_MAX));
    assert_null(arena_realloc(grown, 40000, SIZE_MAX));
    arena_free(grown);
    uint8_t *again = arena_alloc(40000);
    assert_ptr_equal(again, grown);
    for (int i = 0; i < 40000; i++) assert_int_equal(again[i], 0);
    memset(again, 3, 40000);
    assert_in_range(arena_most(), 40000 + 100, 40000 + 300);
    arena_reset();
    assert_int_equal(arena_most(), 0);
    for (int i = 0; i < SIZE; i++) assert_int_equal(block[i], 0);
    assert_non_null(arena_alloc(SIZE));
    arena_use(NULL, 0);
    munmap(block, SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results_come_in_order),
        cmocka_unit_test(test_a_bad_input_costs_itself),
        cmocka_unit_test(test_workers_that_others_end),
        cmocka_unit_test(test_arena),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
