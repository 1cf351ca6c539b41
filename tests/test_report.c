// What a report is made of: predictions, the log read back, pictures.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/log_file.h"
#include "runtime/os.h"
#include "tools/pictures.h"
#include "runtime/predictions.h"

#include <cmocka.h> // last: it defines a macro fail()

static char path[] = "/tmp/nn-report-XXXXXX";

static bool near(double a, double b)
{
    return fabs(a - b) < 1e-6;
}

static void predicts_and_counts(void **state)
{
    (void)state;
    Prediction image[] = {{.label = 0}, {.label = 1}, {.label = 2}, {.label = 2}, {.label = 1}};
    Predictions p = {.n = 5, .classes = 3, .image = image};
    const float logits[] = {4, 0, 0, /**/ 2, 0, 0, /**/ 0, 6, 0, /**/ 0, 0, 2, /**/ 0, 0, 4};
    predictions_add(&p, logits, 2, 0.5f);
    assert_int_equal(p.done, 2);
    predictions_add(&p, logits + 6, 3, 0.5f);
    predictions_add(&p, logits, 5, 0.5f); // more than there are
    assert_int_equal(p.done, 5);

    assert_int_equal(image[2].predicted, 1);
    assert_true(near(image[2].probability, exp(3) / (exp(3) + 2))); // half of the logit 6
    assert_true(near(image[2].loss, log(exp(3) + 2)));
    assert_true(near(image[0].loss, -log(image[0].probability)));

    int64_t confusion[9];
    const int64_t expected[] = {1, 0, 0, 1, 0, 1, 0, 1, 1};
    predictions_confusion(&p, confusion);
    assert_memory_equal(confusion, expected, sizeof expected);

    uint32_t worst[5];
    assert_int_equal(predictions_worst(&p, worst, 5), 3);
    assert_true(worst[0] == 2 && worst[1] == 4 && worst[2] == 1);
    assert_int_equal(predictions_worst(&p, worst, 2), 2);
    assert_true(worst[0] == 2 && worst[1] == 4);
}

static void write_log(const char *text)
{
    Error e;
    assert_int_equal(os_write_atomic(path, text, strlen(text), &e), 0);
}

static void reads_a_log_that_grows(void **state)
{
    (void)state;
    LogFile l;
    Error e;
    size_t n;
    write_log("{\"step\":1,\"loss\":2.5}\n"
              "{\"step\":2,\"loss\":null}\n"
              "{\"step\":2,\"weight_norm\":{\"a.weight\":3,\"b.weight\":0.5}}\n"
              "{\"step\":2,\"test_loss\":1}\n"
              "{\"step\":3,\"lo"); // not yet written whole
    assert_int_equal(log_file_read(&l, path, &e), 0);
    assert_int_equal(l.count, 4);
    double *loss = log_file_column(&l, "loss", false, "loss", &n);
    assert_true(n == 2 && near(loss[0], 2.5) && isnan(loss[1]));
    double *norm = log_file_column(&l, "weight_norm", true, "b.weight", &n);
    assert_true(n == 1 && near(norm[0], 0.5));
    double *none = log_file_column(&l, "weight_norm", true, "c.weight", &n);
    assert_true(n == 1 && isnan(none[0]));
    assert_int_equal(json_get(log_file_last(&l, "loss"), "step")->integer, 2);
    assert_null(log_file_last(&l, "grad_norm"));
    free(loss);
    free(norm);
    free(none);
    log_file_free(&l);

    write_log("");
    assert_int_equal(log_file_read(&l, path, &e), 0);
    assert_int_equal(l.count, 0);
    log_file_free(&l);
    assert_int_equal(log_file_read(&l, "/tmp/absent/log.jsonl", &e), STATUS_DATA);
}

static void shrinks_large_pictures(void **state)
{
    (void)state;
    enum { H = 130, W = 70 }; // a third of each side
    Pictures p;
    Error e;
    static uint8_t image[H * W * 2];
    for (int i = 0; i < H * W; i++) image[2 * i] = i / W < 3 && i % W < 3 ? 90 : 10;
    image[2 * (W + 1)] = 99; // its mean with eight of 90 is 91
    assert_int_equal(pictures_allocate(&p, 2, H, W, 2, &e), 0);
    assert_true(p.h == 43 && p.w == 23 && p.c == 1);
    pictures_set(&p, 1, image);
    assert_int_equal(p.pixels[43 * 23], 91);
    assert_int_equal(p.pixels[43 * 23 + 1], 10);
    assert_int_equal(p.pixels[0], 0); // of the picture before
    pictures_free(&p);

    // one row or one column, and after it 0, which is not part of it
    static const int sides[][2] = {{1, 300}, {300, 1}};
    static uint8_t line[5 * 300 * 3];
    memset(line, 90, 300 * 3);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pictures_allocate(&p, 1, sides[i][0], sides[i][1], 3, &e), 0);
        assert_int_equal(p.h * p.w, 60);
        pictures_set(&p, 0, line);
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
    Pictures p;
    void *page;
    size_t size;
    const uint8_t image[2 * 2 * 3] = {255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9};
    assert_int_equal(pictures_allocate(&p, 3, 2, 2, 3, &e), 0);
    for (int i = 0; i < 3; i++) pictures_set(&p, i, image);
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
        cmocka_unit_test(predicts_and_counts),
        cmocka_unit_test(reads_a_log_that_grows),
        cmocka_unit_test(shrinks_large_pictures),
        cmocka_unit_test(shows_whole_numbers_with_all_digits),
        cmocka_unit_test(writes_png_into_the_page),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
