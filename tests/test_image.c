#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/decode/image.h"
#include "base/philox.h"

#include <cmocka.h> // last: it defines a macro fail()

// Worked out by hand from the definition of the triangle filter.
static void test_resize_known_rows(void **state)
{
    static const struct {
        int from, to;
        uint8_t x[8], y[8];
    } cases[] = {
        {4, 4, {1, 2, 3, 4}, {1, 2, 3, 4}},
        {2, 4, {0, 100}, {0, 25, 75, 100}},       // enlarged: between the centres of two pixels
        {4, 2, {0, 0, 100, 100}, {14, 86}},       // weights 3, 3, 1 of 7
        {8, 1, {0, 0, 0, 80, 80, 0, 0, 0}, {25}}, // weights 9, 11, 13, 15, 15, 13, 11, 9 of 96
        {1, 3, {7}, {7, 7, 7}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t y[8];
        Error e = {0};
        assert_int_equal(
            image_resize(y, 1, cases[i].to, cases[i].x, 1, cases[i].from, 1, false, &e), 0);
        assert_memory_equal(y, cases[i].y, (size_t)cases[i].to);
        assert_int_equal(
            image_resize(y, cases[i].to, 1, cases[i].x, cases[i].from, 1, 1, false, &e), 0);
        assert_memory_equal(y, cases[i].y, (size_t)cases[i].to);
    }
}

static void test_crop_keeps_the_middle(void **state)
{
    static const uint8_t wide[2 * 6] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    uint8_t square[4], tall[4];
    Error e = {0};
    (void)state;
    assert_int_equal(image_resize(square, 2, 2, wide, 2, 6, 1, true, &e), 0);
    assert_memory_equal(square, ((uint8_t[]){3, 4, 9, 10}), 4);
    assert_int_equal(image_resize(tall, 2, 2, wide, 6, 2, 1, true, &e), 0);
    assert_memory_equal(tall, ((uint8_t[]){5, 6, 7, 8}), 4);
}

// Any size to any size: a flat image stays flat, and the sanitizers see every access.
static void test_resize_any_size(void **state)
{
    enum { MOST = 70 };
    uint8_t *from = malloc(MOST * MOST * 3), *to = malloc(MOST * MOST * 3);
    (void)state;
    for (uint32_t i = 0; i < 2000; i++) {
        const Philox r = philox(1, STREAM_TEST, i, 0);
        const int fh = (int)philox_below(r.v[0], MOST) + 1, fw = (int)(r.v[0] % MOST) + 1;
        const int th = (int)philox_below(r.v[1], MOST) + 1, tw = (int)(r.v[1] % MOST) + 1;
        const int c = r.v[2] & 1 ? 3 : 1;
        const uint8_t value = (uint8_t)(r.v[2] >> 8);
        Error e = {0};
        memset(from, value, (size_t)(fh * fw * c));
        assert_int_equal(image_resize(to, th, tw, from, fh, fw, c, r.v[2] & 2, &e), 0);
        for (int k = 0; k < th * tw * c; k++) assert_int_equal(to[k], value);
    }
    free(from);
    free(to);
}

static void test_grey(void **state)
{
    static const uint8_t rgb[] = {0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 255};
    uint8_t grey[5];
    (void)state;
    image_to_grey(grey, rgb, 5);
    assert_memory_equal(grey, ((uint8_t[]){0, 255, 76, 149, 28}), 5);
}

static int decode(uint8_t image[6], const uint8_t *bytes, size_t size)
{
    ImageInfo info;
    Error e = {0};
    const int status = image_info(bytes, size, true, &info, &e);
    return status ? status : image_decode(image, 1, 2, 3, false, bytes, size, &info, &e);
}

// A BMP of 2x1 pixels, then with every byte changed in several ways and cut at every place:
// refused or decoded, never anything else. The last two bytes fill up the row.
static void test_damaged_files(void **state)
{
    static const uint8_t bmp[] = {'B', 'M', 62, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0,  0, 40, 0,
                                  0,   0,   2,  0, 0, 0, 1, 0, 0, 0, 1,  0, 24, 0, 0,  0,
                                  0,   0,   0,  0, 0, 0, 0, 0, 0, 0, 0,  0, 0,  0, 0,  0,
                                  0,   0,   0,  0, 0, 0, 3, 2, 1, 6, 5,  4, 0,  0};
    uint8_t image[6];
    (void)state;
    assert_int_equal(decode(image, bmp, sizeof bmp), 0);
    assert_memory_equal(image, ((uint8_t[]){1, 2, 3, 4, 5, 6}), 6);
    for (size_t at = 0; at < sizeof bmp; at++) {
        uint8_t *cut = malloc(at + 1); // its own allocation: reading past it is seen
        memcpy(cut, bmp, at);
        assert_int_equal(decode(image, cut, at), at + 2 < sizeof bmp ? STATUS_DATA : 0);
        free(cut);
        for (int change = 1; change < 256; change++) {
            uint8_t *copy = malloc(sizeof bmp);
            memcpy(copy, bmp, sizeof bmp);
            copy[at] = (uint8_t)(copy[at] ^ change);
            const int status = decode(image, copy, sizeof bmp);
            assert_true(status == 0 || status == STATUS_DATA);
            free(copy);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resize_known_rows), cmocka_unit_test(test_crop_keeps_the_middle),
        cmocka_unit_test(test_resize_any_size),   cmocka_unit_test(test_grey),
        cmocka_unit_test(test_damaged_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
