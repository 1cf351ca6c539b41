// pages/html and pages/chart: what is escaped, and that charts show the numbers given.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pages/chart.h"
#include "base/os.h"

#include <cmocka.h> // last: it defines a macro fail()

static char path[] = "/tmp/nn-chart-XXXXXX";

static void begin(Html *h, int refresh)
{
    Error e;
    assert_int_equal(html_open(h, "A <page>", refresh, &e), 0);
}

// Ends the page; the caller frees its text.
static char *page(Html *h)
{
    Error e;
    void *data;
    size_t size;
    assert_int_equal(html_save(h, path, &e), 0);
    assert_int_equal(os_read_file(path, &data, &size, &e), 0);
    char *text = strndup(data, size);
    free(data);
    return text;
}

static int count(const char *text, const char *part)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part)) n++;
    return n;
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part)) print_message("no %s in %s\n", part, text);
    assert_non_null(strstr(text, part));
}

static void escapes_what_it_is_given(void **state)
{
    (void)state;
    Html h;
    begin(&h, 0);
    html_section(&h, "<script>");
    html_table(&h, "\"a\" & b", "", (const char *[]){"name", "<i>", NULL});
    html_row(&h, "caf\xc3\xa9 \xff\x1b");
    html_cell(&h, "%s", "<img src=x>");
    html_number(&h, "%.1f", 2.5);
    html_end_table(&h);
    char *text = page(&h);
    assert_has(text, "<title>A &lt;page&gt;</title>");
    assert_has(text, "<h2>&lt;script&gt;</h2>");
    assert_has(text, "aria-label=\"&quot;a&quot; &amp; b\"");
    assert_has(text, "caf\xc3\xa9 ?\?</th><td>&lt;img src=x&gt;</td><td class=\"number\">2.5</td>");
    assert_null(strstr(text, "http-equiv=\"refresh\""));
    assert_null(strstr(text, "://"));
    free(text);
}

static void refreshes_when_asked(void **state)
{
    (void)state;
    Html h;
    begin(&h, 7);
    char *text = page(&h);
    assert_has(text, "<meta http-equiv=\"refresh\" content=\"7\">");
    free(text);
}

static void draws_points_in_their_places(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3, 4}, y[] = {4, 1, NAN, 2};
    const Series series[] = {{"train", x, y, 4}, {"te&st", x, x, 4}};
    Html h;
    begin(&h, 0);
    chart_lines(&h, &(LineChart){"Loss", "epoch", series, 2, NAN, NAN, false});
    char *text = page(&h);
    // x: 0..4 at 52..410; y: 1..4 at 204..10; the gap starts a new stretch
    assert_has(text, "d=\"M141.5 10.0L231.0 204.0M410.0 139.3\"/>");
    assert_has(text, "te&amp;st: 3 at 3</title></circle>");
    assert_int_equal(count(text, "</circle>"), 7);
    assert_has(text, "<desc>train: first 4, last 2, lowest 1, highest 4. te&amp;st: first 1");
    free(text);
}

static void has_a_logarithmic_axis(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3, 4}, y[] = {0.01, 0, 1, 10};
    const Series series = {"norm", x, y, 4};
    Html h;
    begin(&h, 0);
    chart_lines(&h, &(LineChart){"Norm", "epoch", &series, 1, NAN, NAN, true});
    char *text = page(&h);
    // three decades over 204..10; 0 is a gap
    assert_has(text, "d=\"M141.5 204.0M320.5 74.7L410.0 10.0\"/>");
    assert_has(text, ">0.01</text>");
    assert_has(text, ">10</text>");
    free(text);
}

static void thins_out_many_points(void **state)
{
    (void)state;
    enum { N = 25000 };
    static double x[N];
    for (int i = 0; i < N; i++) x[i] = i;
    const Series series = {"many", x, x, N};
    Html h;
    begin(&h, 0);
    chart_lines(&h, &(LineChart){"Many", "step", &series, 1, NAN, NAN, false});
    char *text = page(&h);
    assert_in_range(strlen(text), 10000, 25000);
    assert_has(text, "last 2.5e+04");
    assert_has(text, ">20k</text>");
    assert_has(text, "L410.0 10.0\"/>"); // the last point
    free(text);
}

static void survives_odd_data(void **state)
{
    (void)state;
    const double x[] = {5, 5}, none[] = {NAN, INFINITY}, same[] = {3, 3}, zero[] = {0, 0};
    const double *const y[] = {none, same, zero};
    for (size_t i = 0; i < 3; i++) {
        const Series series = {"odd", x, y[i], 2};
        Html h;
        begin(&h, 0);
        chart_lines(&h, &(LineChart){"Odd", "step", &series, 1, NAN, NAN, false});
        chart_lines(&h, &(LineChart){"None", "step", NULL, 0, 0, 1, false});
        chart_bars(&h, &(BarChart){"Nothing", "", NULL, 0, NAN});
        chart_bars(&h, &(BarChart){"Zero", "", &(Bar){"0", 0, 0, 0, 0}, 1, NAN});
        char *text = page(&h);
        assert_int_equal(count(text, "no data yet"), i == 0 ? 2 : 1);
        assert_null(strstr(text, "nan"));
        assert_null(strstr(text, "inf"));
        free(text);
    }
}

static void draws_bars_with_intervals(void **state)
{
    (void)state;
    const Bar bars[] = {
        {"native", 10, 9, 12, 0},
        {"a name of more than twenty letters", 8, 0, 0, 1},
        {"missing", NAN, 0, 0, 2},
    };
    Html h;
    begin(&h, 0);
    chart_bars(&h, &(BarChart){"Time", " ms", bars, 3, 20});
    char *text = page(&h);
    assert_has(text, "native: 10 ms (9 to 12)</title>");
    assert_has(text, ">a name of more than…</text>");
    assert_int_equal(count(text, "<rect"), 2);
    assert_int_equal(count(text, "class=\"interval\""), 1);
    // 20 of the axis are 194 wide: 420 - 70 - (20 letters * 7.2 + 12)
    assert_has(text, "width=\"97.0\"");
    free(text);
}

static void ticks_are_round(void **state)
{
    (void)state;
    const struct {
        double range;
        int most;
        double tick;
    } cases[] = {{1, 5, 0.2}, {1, 10, 0.1}, {7, 5, 2}, {100, 4, 50}, {0.003, 3, 0.001}, {9, 1, 10}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_true(fabs(chart_tick(cases[i].range, cases[i].most) / cases[i].tick - 1) < 1e-9);
}

static void numbers_of_a_hostile_file_end(void **state)
{
    (void)state;
    const double tiny[] = {5e-324, 1e-322, 1e300, -1e308}, fine[] = {1, 2, 3, 4};
    Html h;
    begin(&h, 0);
    const Series series[] = {{.name = "a", .x = tiny, .y = fine, .count = 4},
                             {.name = "b", .x = fine, .y = tiny, .count = 4},
                             {.name = "c", .x = fine, .y = fine, .count = 4}};
    chart_lines(&h, &(LineChart){"Odd", "x", series, 3, NAN, NAN, false});
    chart_lines(&h, &(LineChart){"Only odd", "x", series, 2, NAN, NAN, true});
    char *text = page(&h);
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf"));
    assert_int_equal(count(text, "<circle"), 4);
    free(text);
}

int main(void)
{
    const int fd = mkstemp(path);
    if (fd < 0) return 1;
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_a_hostile_file_end),
        cmocka_unit_test(escapes_what_it_is_given),
        cmocka_unit_test(refreshes_when_asked),
        cmocka_unit_test(draws_points_in_their_places),
        cmocka_unit_test(thins_out_many_points),
        cmocka_unit_test(survives_odd_data),
        cmocka_unit_test(has_a_logarithmic_axis),
        cmocka_unit_test(draws_bars_with_intervals),
        cmocka_unit_test(ticks_are_round),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
