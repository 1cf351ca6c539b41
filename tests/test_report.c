// What a report is made of: predictions, the facts and the log read back, pictures.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "pages/pictures.h"
#include "pages/report_facts.h"
#include "pages/saved_run.h"
#include "train/predictions.h"

#include <cmocka.h> // last: it defines a macro fail()

static char path[] = "/tmp/nn-report-XXXXXX";

static bool near(double a, double b)
{
    return fabs(a - b) < 1e-6;
}

static void predicts_and_ranks(void **state)
{
    (void)state;
    uint16_t label[] = {0, 1, 2, 2, 1}, predicted[5];
    float probability[5], loss[5];
    Predictions p = {5, 0, 3, label, predicted, probability, loss, NULL, 0};
    const float values[] = {4, 0, 0, /**/ 2, 0, 0, /**/ 0, 6, 0, /**/ 0, 0, 2, /**/ 0, 0, 4};
    predictions_add(&p, values, 2, 0.5f);
    assert_int_equal(p.done, 2);
    predictions_add(&p, values + 6, 3, 0.5f);
    predictions_add(&p, values, 5, 0.5f); // more than there are
    assert_int_equal(p.done, 5);

    const uint16_t expected[] = {0, 0, 1, 2, 2};
    assert_memory_equal(predicted, expected, sizeof expected);
    assert_true(near(probability[2], exp(3) / (exp(3) + 2))); // half of the logit 6
    assert_true(near(loss[2], log(exp(3) + 2)));
    assert_true(near(loss[0], -log(probability[0])));

    uint32_t worst[5];
    assert_int_equal(predictions_worst(&p, worst, 5), 3);
    assert_true(worst[0] == 2 && worst[1] == 4 && worst[2] == 1);
    assert_int_equal(predictions_worst(&p, worst, 2), 2);
    assert_true(worst[0] == 2 && worst[1] == 4);
}

// ---- facts --------------------------------------------------------------------------------------

static const char RUN[] =
    "{\"state\":\"Finished\",\"live\":false,\"first_layer\":\"conv\",\"data\":{\"source\":\"x\","
    "\"embedded\":false,\"train\":9,\"test\":3,\"height\":2,\"width\":1,\"channels\":1,"
    "\"classes\":[\"a\",\"b\"]}}";
enum {
    SUMMARY,
    RUN_TEXT,
    LABEL,
    PREDICTED,
    PROBABILITY,
    LOSS,
    MISTAKE,
    MISTAKES,
    IN,
    FILTERS,
    ALL
};

static uint16_t labels[] = {0, 1, 1}, guesses[] = {0, 0, 1};
static float numbers[] = {0.9f, 0.8f, 0.7f, 0.6f};
static uint32_t wrong[] = {1, 2};
static const uint8_t pixels[] = {1, 2, 3, 4};

static void good_facts(SafeTensor t[static ALL])
{
    const SafeTensor good[] = {
        {"summary", "U8", 1, {2}, "{}", 0},
        {"run", "U8", 1, {sizeof RUN - 1}, RUN, 0},
        {"test.label", "U16", 1, {3}, labels, 0},
        {"test.predicted", "U16", 1, {3}, guesses, 0},
        {"test.probability", "F32", 1, {3}, numbers, 0},
        {"test.loss", "F32", 1, {3}, numbers, 0},
        {"mistakes.image", "U32", 1, {1}, wrong, 0},
        {"mistakes.pixels", "U8", 4, {1, 2, 1, 1}, pixels, 0},
        {"inputs", "U8", 4, {2, 2, 1, 1}, pixels, 0},
        {"filters", "F32", 4, {2, 1, 2, 1}, numbers, 0},
    };
    memcpy(t, good, sizeof good);
}

static int read_facts(ReportFacts *f, const SafeTensor *tensors, Error *e)
{
    assert_int_equal(safetensors_write(path, tensors, ALL, NULL, 0, e), 0);
    return report_facts_read(f, path, e);
}

static void reads_facts(void **state)
{
    (void)state;
    Error e;
    ReportFacts f;
    SafeTensor t[ALL];
    good_facts(t);
    assert_int_equal(read_facts(&f, t, &e), 0);
    assert_true(f.classes == 2 && f.tested == 3 && f.mistakes == 1 && f.inputs == 2);
    assert_true(f.filters == 2 && f.filter_w == 2 && f.h == 2 && !f.live && f.test == 3);
    assert_string_equal(f.class_names[f.label[f.mistake[0]]], "b");
    assert_string_equal(f.first_layer, "conv");
    report_facts_free(&f);
}

// Each differs from good facts in one tensor.
static void refuses_wrong_facts(void **state)
{
    (void)state;
    static uint16_t beyond[] = {0, 2, 1};
    static uint32_t untested[] = {3};
    static float zeros[1001];
    char two[sizeof RUN];
    strcpy(two, RUN);
    *(strstr(two, "\"test\":") + strlen("\"test\":")) = '2';
    static char many[] = "{\"data\":{\"train\":1,\"test\":1,\"height\":99999,\"classes\":[]}}";
    const struct {
        int which;
        SafeTensor tensor;
        const char *says;
    } cases[] = {
        {SUMMARY, {"summary", "U8", 1, {1}, "{", 0}, "summary: JSON"},
        {SUMMARY, {"summary", "U8", 1, {2}, "[]", 0}, "not a JSON object"},
        {SUMMARY, {"other", "U8", 1, {2}, "{}", 0}, "no U8 summary"},
        {RUN_TEXT, {"run", "U8", 1, {2}, "{}", 0}, "train is not a whole number"},
        {RUN_TEXT, {"run", "U8", 1, {sizeof many - 1}, many, 0}, "height is not a whole number"},
        {RUN_TEXT, {"run", "U8", 1, {sizeof two - 1}, two, 0}, "at most 2 test images"},
        {LABEL, {"test.label", "U16", 1, {3}, beyond, 0}, "class above 1"},
        {LABEL, {"test.label", "U16", 1, {2}, labels, 0}, "not a label, prediction and"},
        {LABEL, {"test.label", "I16", 1, {3}, labels, 0}, "no U16 test.label"},
        {PREDICTED, {"test.predicted", "U16", 1, {3}, beyond, 0}, "class above 1"},
        {PROBABILITY, {"test.probability", "F32", 1, {4}, numbers, 0}, "not a label, prediction"},
        {MISTAKE, {"mistakes.image", "U32", 1, {1}, untested, 0}, "not a tested image"},
        {MISTAKE, {"mistakes.image", "U32", 1, {2}, wrong, 0}, "not a tested image"},
        {MISTAKES, {"mistakes.pixels", "U8", 4, {1, 1, 2, 1}, pixels, 0}, "pictures of 2x1x1"},
        {IN, {"inputs", "U8", 4, {1001, 2, 1, 1}, zeros, 0}, "at most 1000 pictures"},
        {FILTERS, {"filters", "F32", 4, {1001, 1, 1, 1}, zeros, 0}, "filters are not"},
        {FILTERS, {"filters", "F32", 4, {1, 0, 99999, 1}, numbers, 0}, "filters are not"},
        {FILTERS, {"filters", "F32", 3, {2, 1, 2}, numbers, 0}, "F32 filters of 4 dimensions"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error e;
        ReportFacts f;
        SafeTensor t[ALL];
        good_facts(t);
        t[cases[i].which] = cases[i].tensor;
        assert_int_equal(read_facts(&f, t, &e), STATUS_DATA);
        if (!strstr(e.message, cases[i].says)) print_message("%zu: %s\n", i, e.message);
        assert_non_null(strstr(e.message, cases[i].says));
    }
}

// ---- the log, pictures --------------------------------------------------------------------------

static void write_log(const char *text)
{
    Error e;
    assert_int_equal(os_write_atomic(path, text, strlen(text), &e), 0);
}

static void reads_a_log_that_grows(void **state)
{
    (void)state;
    SavedLog l;
    Error e;
    size_t n;
    write_log("{\"step\":1,\"loss\":2.5}\n"
              "{\"step\":2,\"loss\":null}\n"
              "{\"step\":2,\"weight_norm\":{\"a.weight\":3,\"b.weight\":0.5}}\n"
              "{\"step\":2,\"test_loss\":1}\n"
              "{\"step\":3,\"lo"); // not yet written whole
    assert_int_equal(saved_log_read(&l, path, &e), 0);
    assert_int_equal(l.count, 4);
    double *loss = saved_log_column(&l, "loss", "loss", &n);
    assert_true(n == 2 && near(loss[0], 2.5) && isnan(loss[1]));
    double *norm = saved_log_column(&l, "weight_norm", "b.weight", &n);
    assert_true(n == 1 && near(norm[0], 0.5));
    double *none = saved_log_column(&l, "weight_norm", "c.weight", &n);
    assert_true(n == 1 && isnan(none[0]));
    assert_int_equal(json_get(saved_log_last(&l, "loss"), "step")->integer, 2);
    assert_null(saved_log_last(&l, "grad_norm"));
    saved_log_free(&l);

    write_log("");
    assert_int_equal(saved_log_read(&l, path, &e), 0);
    assert_int_equal(l.count, 0);
    saved_log_free(&l);
    assert_int_equal(saved_log_read(&l, "/tmp/absent/log.jsonl", &e), STATUS_DATA);
}

static void shrinks_large_pictures(void **state)
{
    (void)state;
    enum { H = 130, W = 70 };            // a third of each side
    static uint8_t images[2][H * W * 2]; // the first one is black
    for (int i = 0; i < H * W; i++) images[1][2 * i] = i / W < 3 && i % W < 3 ? 90 : 10;
    images[1][2 * (W + 1)] = 99; // its mean with eight of 90 is 91
    Pictures p = pictures_of(images[0], 2, H, W, 2);
    assert_true(p.h == 43 && p.w == 23 && p.c == 1);
    assert_int_equal(p.pixels[43 * 23], 91);
    assert_int_equal(p.pixels[43 * 23 + 1], 10);
    assert_int_equal(p.pixels[0], 0); // of the picture before
    pictures_free(&p);

    // one row or one column, and after it 0, which is not part of it
    static const int sides[][2] = {{1, 300}, {300, 1}};
    static uint8_t line[5 * 300 * 3];
    memset(line, 90, 300 * 3);
    for (int i = 0; i < 2; i++) {
        p = pictures_of(line, 1, sides[i][0], sides[i][1], 3);
        assert_int_equal(p.h * p.w, 60);
        assert_memory_equal(p.pixels, line, 60 * 3);
        pictures_free(&p);
    }
}

static void shows_whole_numbers_with_all_digits(void **state)
{
    (void)state;
    static const char json[] = "[20261121,-9007199254740993,0.123456789]";
    Html h;
    Error e;
    JsonDocument d;
    void *page;
    size_t size;
    assert_int_equal(json_parse(&d, json, strlen(json), &e), 0);
    assert_int_equal(html_open(&h, "Values", 0, &e), 0);
    const JsonNode *value = json_first(d.root);
    for (size_t i = 0; i < d.root->count; i++, value = json_next(value)) {
        html_value(&h, value);
        html_raw(&h, ";");
    }
    assert_int_equal(html_save(&h, path, &e), 0);
    assert_int_equal(os_read_file(path, &page, &size, &e), 0);
    char *text = strndup(page, size);
    assert_non_null(strstr(text, "20261121;-9007199254740993;0.123457;"));
    free(text);
    free(page);
    json_document_free(&d);
}

static void writes_png_into_the_page(void **state)
{
    (void)state;
    Html h;
    Error e;
    void *page;
    size_t size;
    static const uint8_t images[3][2 * 2 * 3] = {{255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9}};
    Pictures p = pictures_of(images[0], 3, 2, 2, 3);
    assert_int_equal(html_open(&h, "Pictures", 0, &e), 0);
    picture_write(&h, &p, 0, "a \"cat\"");
    pictures_write(&h, &p, 2, "three");
    assert_int_equal(html_save(&h, path, &e), 0);
    assert_int_equal(os_read_file(path, &page, &size, &e), 0);
    char *text = strndup(page, size);
    assert_non_null(strstr(text, "<img width=\"2\" height=\"2\" alt=\"a &quot;cat&quot;\" "
                                 "src=\"data:image/png;base64,iVBORw0KGgo"));
    // two columns and two rows of 16, a gap of 2
    assert_non_null(strstr(text, "<img width=\"34\" height=\"34\" alt=\"three\""));
    assert_non_null(strstr(text, "rkJggg==\">")); // the end of every PNG
    free(text);
    free(page);
    pictures_free(&p);
}

int main(void)
{
    const int fd = mkstemp(path);
    if (fd < 0) return 1;
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(predicts_and_ranks),
        cmocka_unit_test(reads_facts),
        cmocka_unit_test(refuses_wrong_facts),
        cmocka_unit_test(reads_a_log_that_grows),
        cmocka_unit_test(shrinks_large_pictures),
        cmocka_unit_test(shows_whole_numbers_with_all_digits),
        cmocka_unit_test(writes_png_into_the_page),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
