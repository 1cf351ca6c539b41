// pages/timing_comparison: verdicts of pooled reports, what makes a comparison void, and how a
// difference is explained. The reports are made here, with known distributions.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/philox.h"
#include "base/os.h"
#include "pages/timing_comparison.h"

#include <cmocka.h> // last: it defines a macro fail()

typedef struct Made {
    double step_ms, noise; // relative standard deviation between processes, about
    double control;        // GFLOP/s
    double alone_ms, epoch_s, device_clock;
    double idle_ms, loader_ms, launch_us, others;
    double launches;
    const char *binary;
} Made;
static const Made USUAL = {.step_ms = 2,
                           .noise = 0.005,
                           .control = 100,
                           .alone_ms = 2.1,
                           .epoch_s = 5,
                           .device_clock = 95,
                           .idle_ms = 0.1,
                           .loader_ms = 0.05,
                           .launch_us = 5,
                           .launches = 40,
                           .binary = "a"};

// About normal: the sum of four uniform numbers.
static double noisy(double value, double noise, uint64_t seed, uint32_t row)
{
    const Philox p = philox(seed, 7, row, 0);
    double sum = -2;
    for (int i = 0; i < 4; i++) sum += (double)philox_unit(p.v[i]);
    return value * exp(noise * sum * sqrt(3));
}

static void row(Json *j, const char *name, const char *kind, bool rate, double median)
{
    json_object(j, NULL);
    json_string(j, "name", name);
    json_string(j, "kind", kind);
    json_string(j, "unit", rate ? "GFLOP/s" : "ms");
    json_string(j, "better", rate ? "higher" : "lower");
    json_double(j, "median", median);
    json_end(j);
}

static void add(Side *side, Made m, uint64_t seed)
{
    static char path[] = "/tmp/nn-compare-XXXXXX";
    static bool made;
    Json j = {0};
    Error e;
    if (!made) close(mkstemp(path));
    made = true;
    json_object(&j, NULL);
    json_string(&j, "format", "nn.c timing 2");
    json_string(&j, "trainer", "train_mlp");
    json_object(&j, "environment");
    json_string(&j, "binary_sha256", m.binary);
    json_string(&j, "device_kind", "cpu");
    json_end(&j);
    json_double(&j, "others", m.others);
    json_object(&j, "step");
    json_double(&j, "mean_ms", noisy(m.step_ms, m.noise, seed, 0));
    json_double(&j, "launches", m.launches);
    json_double(&j, "waits", 1);
    json_double(&j, "uploaded_bytes", 1e5);
    json_double(&j, "loader_wait_ms", m.loader_ms);
    json_double(&j, "idle_ms", m.idle_ms);
    json_end(&j);
    json_array(&j, "rows");
    row(&j, "fork_join", "micro", false, m.launch_us);
    row(&j, "wait_idle", "micro", false, noisy(1, m.noise, seed, 1));
    row(&j, "upload_256kb", "micro", true, noisy(10, m.noise, seed, 2));
    row(&j, "cpu_1t", "control", true, noisy(m.control, m.noise, seed, 3));
    row(&j, "step_pipelined", "macro", false, noisy(m.step_ms, m.noise, seed, 0));
    row(&j, "step_fastest", "macro", false, noisy(m.step_ms, m.noise, seed, 0));
    row(&j, "step", "macro", false, noisy(m.alone_ms, m.noise, seed, 5));
    row(&j, "device_clock", "micro", true, noisy(m.device_clock, m.noise, seed, 6));
    row(&j, "epoch", "macro", false, noisy(m.epoch_s, m.noise, seed, 4));
    json_end(&j);
    json_end(&j);
    assert_int_equal(json_finish(&j, &e), 0);
    assert_int_equal(os_write_atomic(path, j.text, j.size, &e), 0);
    assert_int_equal(side_read(side, path, &e), 0);
    json_free(&j);
    os_remove(path);
}

static Comparison compare(Made a, int count_a, Made b, int count_b, uint64_t seed, bool commits)
{
    static Comparison c;
    Side sides[SIDES] = {0};
    Error e;
    for (int i = 0; i < count_a; i++) add(&sides[A], a, seed + (uint64_t)i);
    for (int i = 0; i < count_b; i++) add(&sides[B], b, seed + 1000 + (uint64_t)i);
    assert_int_equal(comparison_make(&c, sides, commits, &e), 0);
    for (int side = A; side < SIDES; side++) side_free(&sides[side]);
    return c;
}

static Verdict verdict_of(const Comparison *c, const char *name)
{
    for (int i = 0; i < c->count; i++)
        if (strcmp(c->rows[i].row.name, name) == 0) return c->rows[i].verdict;
    return NO_VERDICT;
}

static void test_equal_sides_are_equivalent(void **state)
{
    (void)state;
    int equivalent = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        const Comparison c = compare(USUAL, 5, USUAL, 5, 100 * seed, false);
        assert_string_equal(c.invalid, "");
        equivalent += c.verdict == EQUIVALENT;
    }
    assert_in_range(equivalent, 18, 20);
}

// All intervals hold together in about 95 of 100 comparisons; with few processes not much less.
static void test_intervals_hold_together(void **state)
{
    (void)state;
    const int processes[] = {5, 20}, least[] = {85, 90};
    for (int i = 0; i < 2; i++) {
        int held = 0;
        Made noisy_side = USUAL;
        noisy_side.noise = 0.03;
        for (uint64_t trial = 0; trial < 100; trial++) {
            const Comparison c =
                compare(noisy_side, processes[i], noisy_side, processes[i], 5000 * trial, false);
            bool all = true;
            for (int r = 0; r < c.count; r++)
                all = all && c.rows[r].low <= 1 && c.rows[r].high >= 1;
            held += all;
        }
        assert_in_range(held, least[i], 100);
    }
}

static void test_a_slower_side_is_found(void **state)
{
    (void)state;
    Made slow = USUAL;
    slow.step_ms *= 1.2;
    slow.idle_ms += 0.4;
    const Comparison c = compare(USUAL, 5, slow, 5, 1, false);
    assert_int_equal(c.verdict, SLOWER);
    assert_int_equal(verdict_of(&c, "step_pipelined"), SLOWER);
    assert_int_equal(verdict_of(&c, "epoch"), EQUIVALENT);
    assert_non_null(c.cause);
    assert_non_null(strstr(c.cause->name, "a sleep"));
    const Comparison back = compare(slow, 5, USUAL, 5, 1, false);
    assert_int_equal(back.verdict, FASTER);
}

static void test_contradicting_rows_leave_it_undecided(void **state)
{
    (void)state;
    Made mixed = USUAL;
    mixed.alone_ms *= 1.3;
    assert_int_equal(compare(USUAL, 5, mixed, 5, 1, false).verdict, SLOWER);
    mixed.epoch_s *= 0.8;
    const Comparison c = compare(USUAL, 5, mixed, 5, 1, false);
    assert_int_equal(verdict_of(&c, "step"), SLOWER);
    assert_int_equal(verdict_of(&c, "epoch"), FASTER);
    assert_int_equal(verdict_of(&c, "step_fastest"), EQUIVALENT);
    assert_int_equal(c.verdict, UNDECIDED);
    mixed.step_ms *= 0.8;
    assert_int_equal(compare(USUAL, 5, mixed, 5, 1, false).verdict, FASTER);
}

static void test_a_waiting_device_does_not_decide(void **state)
{
    (void)state;
    Made waiting = USUAL;
    waiting.device_clock = 60;
    const Comparison c = compare(USUAL, 5, waiting, 5, 1, false);
    assert_int_equal(verdict_of(&c, "device_clock"), SLOWER);
    assert_int_equal(c.verdict, EQUIVALENT);
}

static void test_the_cause_is_named(void **state)
{
    (void)state;
    Made launches = USUAL, data = USUAL, computing = USUAL;
    launches.step_ms += 0.8, launches.launch_us += 20; // 40 launches
    data.step_ms += 0.8, data.loader_ms += 0.8, data.idle_ms += 0.8;
    computing.step_ms += 0.8;
    assert_string_equal(compare(USUAL, 5, launches, 5, 1, false).cause->name, "launches");
    assert_string_equal(compare(USUAL, 5, data, 5, 1, false).cause->name, "waiting for data");
    assert_string_equal(compare(USUAL, 5, computing, 5, 1, false).cause->name,
                        "computing and the rest");
}

static void test_noise_says_so(void **state)
{
    (void)state;
    Made wild = USUAL;
    wild.noise = 0.2;
    wild.control = 100;
    Comparison c = compare(wild, 40, wild, 40, 3, true);
    assert_int_equal(verdict_of(&c, "epoch"), TOO_NOISY);
    assert_int_not_equal(c.verdict, EQUIVALENT);
}

static void test_few_processes_give_no_verdict(void **state)
{
    (void)state;
    const Comparison c = compare(USUAL, 1, USUAL, 1, 1, false);
    assert_int_equal(c.verdict, NO_VERDICT);
    assert_true(isnan(c.rows[0].low));
    assert_int_equal(compare(USUAL, 4, USUAL, 5, 1, false).verdict, NO_VERDICT);
}

static void test_what_cannot_be_compared_is_void(void **state)
{
    (void)state;
    Made other_build = USUAL, other_clock = USUAL;
    other_build.binary = "b";
    other_clock.control = 80;
    Made busy = USUAL;
    busy.others = 1, busy.step_ms *= 2;
    const Comparison build = compare(USUAL, 5, other_build, 5, 1, false);
    assert_non_null(strstr(build.invalid, "program"));
    assert_int_equal(build.verdict, NO_VERDICT);
    assert_int_equal(verdict_of(&build, "step_pipelined"), NO_VERDICT);
    assert_int_equal(compare(USUAL, 5, other_build, 5, 1, true).verdict, EQUIVALENT);
    const Comparison clock = compare(USUAL, 5, other_clock, 5, 1, false);
    assert_non_null(strstr(clock.invalid, "control cpu_1t differs by -20%"));
    const Comparison disturbed = compare(USUAL, 1, busy, 1, 1, false);
    assert_non_null(strstr(disturbed.invalid, "other programs used 1.00 processors"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_sides_are_equivalent),
        cmocka_unit_test(test_intervals_hold_together),
        cmocka_unit_test(test_a_slower_side_is_found),
        cmocka_unit_test(test_contradicting_rows_leave_it_undecided),
        cmocka_unit_test(test_a_waiting_device_does_not_decide),
        cmocka_unit_test(test_the_cause_is_named),
        cmocka_unit_test(test_noise_says_so),
        cmocka_unit_test(test_few_processes_give_no_verdict),
        cmocka_unit_test(test_what_cannot_be_compared_is_void),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
