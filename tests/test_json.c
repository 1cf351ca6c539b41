// base/json: what the writer writes, and what the reader takes and refuses.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#include <cmocka.h> // last: it defines a macro fail()

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void writes_nested_values(void **state)
{
    (void)state;
    Json j = {0};
    Error e;
    json_object(&j, NULL);
    json_int(&j, "min", INT64_MIN);
    json_bool(&j, "yes", true);
    json_string(&j, "none", NULL);
    json_array(&j, "list");
    json_object(&j, NULL);
    json_end(&j);
    json_double(&j, NULL, 0.1);
    json_double(&j, NULL, NAN);
    json_double(&j, NULL, -INFINITY);
    json_end(&j);
    json_rounded(&j, "speed", 31234.5678, 6);
    json_end(&j);
    assert_int_equal(json_finish(&j, &e), 0);
    assert_string_equal(j.text, "{\"min\":-9223372036854775808,\"yes\":true,\"none\":null,"
                                "\"list\":[{},0.1,null,null],\"speed\":31234.6}");
    assert_int_equal(j.size, strlen(j.text));
    json_free(&j);
}

static void escapes_strings(void **state)
{
    (void)state;
    static const struct {
        const char *value, *text;
    } cases[] = {
        {"", "\"\""},
        {"a\"b\\c", "\"a\\\"b\\\\c\""},
        {"tab\t\x1b\x7f", "\"tab\\u0009\\u001b\\u007f\""},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {"\xff", "\"\xef\xbf\xbd\""},
        {"a\xe2\x82", "\"a\xef\xbf\xbd\xef\xbf\xbd\""}, // cut off
        {"\xc0\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\""},   // overlong
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        Json j = {0};
        json_string(&j, NULL, cases[i].value);
        assert_string_equal(j.text, cases[i].text);
        json_free(&j);
    }
}

static void doubles_survive_a_round_trip(void **state)
{
    (void)state;
    static const double values[] = {0,       1.0 / 3, 0.1f, 1e308, 5e-324,
                                    -2.5e10, 1e15,    M_PI, -0.0,  123456789012345678.0};
    for (size_t i = 0; i < COUNT(values); i++) {
        Json j = {0};
        JsonDocument d;
        Error e;
        json_double(&j, NULL, values[i]);
        assert_int_equal(json_parse(&d, j.text, j.size, &e), 0);
        const double read = d.root->type == JSON_INT ? (double)d.root->integer : d.root->number;
        assert_true(read == values[i]);
        json_document_free(&d);
        json_free(&j);
    }
}

static void reads_a_document(void **state)
{
    (void)state;
    static const char text[] = " {\"a\": [1, -2.5e1, [], {\"x\": null}], "
                               "\"s\": \"\\u00e9\\ud83d\\ude00\\n\", \"t\": true, "
                               "\"big\": 9223372036854775808} ";
    JsonDocument d;
    Error e;
    assert_int_equal(json_parse(&d, text, strlen(text), &e), 0);
    const JsonNode *a = json_get(d.root, "a");
    assert_int_equal(a->type, JSON_ARRAY);
    assert_int_equal(a->count, 4);
    const JsonNode *c = json_first(a);
    assert_int_equal(c->integer, 1);
    c = json_next(c);
    assert_true(c->type == JSON_DOUBLE && c->number == -25);
    c = json_next(json_next(c));
    assert_int_equal(json_get(c, "x")->type, JSON_NULL);
    assert_string_equal(json_get(d.root, "s")->string, "\xc3\xa9\xf0\x9f\x98\x80\n");
    assert_true(json_get(d.root, "t")->boolean);
    assert_int_equal(json_get(d.root, "big")->type, JSON_DOUBLE); // beyond int64_t
    assert_null(json_get(d.root, "absent"));
    assert_null(json_get(a, "a"));
    json_document_free(&d);
}

static void refuses_malformed_text(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "expected a value"},
        {"{", "expected a string"},
        {"[1,]", "expected a value"},
        {"[1 2]", "expected , or ]"},
        {"{\"a\":1,}", "expected a string"},
        {"{\"a\" 1}", "expected ':'"},
        {"{a:1}", "expected a string"},
        {"{\"a\":1,\"b\":2,\"a\":3}", "appears twice"},
        {"{\"a\":1,\"\\u0061\":3}", "appears twice"},
        {"01", "expected the end"},
        {"+1", "expected a value"},
        {"1.", "expected a digit"},
        {"1e", "expected a digit"},
        {"-", "expected a value"},
        {".5", "expected a value"},
        {"1e999", "too large"},
        {"NaN", "expected a value"},
        {"tru", "expected a value"},
        {"true false", "expected the end"},
        {"\"abc", "does not end"},
        {"\"\\x\"", "unknown escape"},
        {"\"\\u12g4\"", "four hex digits"},
        {"\"\\u12", "four hex digits"},
        {"\"\\ud800\"", "surrogate"},
        {"\"\\udc00\\ud800\"", "surrogate"},
        {"\"\\ud800\\u0041\"", "surrogate"},
        {"\"\\u0000\"", "zero character"},
        {"\"a\nb\"", "control character"},
        {"\"\xff\"", "invalid UTF-8"},
        {"\"\xed\xa0\x80\"", "invalid UTF-8"}, // an encoded surrogate
        {"\"\xf4\x90\x80\x80\"", "invalid UTF-8"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        JsonDocument d;
        Error e;
        assert_int_equal(json_parse(&d, cases[i].text, strlen(cases[i].text), &e), STATUS_DATA);
        if (!strstr(e.message, cases[i].message))
            fail_msg("%s: got \"%s\", expected \"%s\"", cases[i].text, e.message, cases[i].message);
    }
}

static void refuses_deep_nesting_and_zero_bytes(void **state)
{
    (void)state;
    char text[2 * JSON_MAX_DEPTH + 2];
    JsonDocument d;
    Error e;
    memset(text, '[', JSON_MAX_DEPTH);
    memset(text + JSON_MAX_DEPTH, ']', JSON_MAX_DEPTH);
    assert_int_equal(json_parse(&d, text, 2 * JSON_MAX_DEPTH, &e), 0);
    json_document_free(&d);
    memset(text, '[', JSON_MAX_DEPTH + 1);
    memset(text + JSON_MAX_DEPTH + 1, ']', JSON_MAX_DEPTH + 1);
    assert_int_equal(json_parse(&d, text, sizeof text, &e), STATUS_DATA);
    assert_int_equal(json_parse(&d, "[1]\0", 4, &e), STATUS_DATA);
    assert_int_equal(json_parse(&d, "\"\\\0\"", 4, &e), STATUS_DATA);
}

// Every prefix and every one-byte change of a valid text ends in a document or in an error.
static void survives_damage(void **state)
{
    (void)state;
    static const char valid[] =
        "{\"k\\u00e9\":[1.5e3,-2,true,null,{\"\xc3\xa9\":\"\\n\"}],\"b\":{}}";
    const size_t n = sizeof valid - 1;
    for (size_t cut = 0; cut <= n; cut++)
        for (int c = -1; c < 256; c++) {
            char *text = malloc(n + 1); // exact, so that AddressSanitizer sees an overrun
            memcpy(text, valid, n);
            if (c >= 0 && cut < n) text[cut] = (char)c;
            JsonDocument d;
            Error e;
            if (json_parse(&d, text, c < 0 ? cut : n, &e) == 0) json_document_free(&d);
            free(text);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_nested_values),
        cmocka_unit_test(escapes_strings),
        cmocka_unit_test(doubles_survive_a_round_trip),
        cmocka_unit_test(reads_a_document),
        cmocka_unit_test(refuses_malformed_text),
        cmocka_unit_test(refuses_deep_nesting_and_zero_bytes),
        cmocka_unit_test(survives_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
