// The embedded data set: pure in (seed, i), balanced, the same bytes on every build.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "data/synth.h"

#include <math.h>
#include <string.h>

enum { LARGEST = SYNTH_MAX_SIZE * SYNTH_MAX_SIZE * 3 };

static void every_ten_images_hold_every_class(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        for (int64_t first = 0; first < 1000; first += SYNTH_CLASSES) {
            int seen = 0;
            for (int64_t i = first; i < first + SYNTH_CLASSES; i++)
                seen |= 1 << synth_label(seed, i);
            assert_int_equal(seen, (1 << SYNTH_CLASSES) - 1);
        }
    }
}

// FNV-1a over 2,000 images of each shape. Another compiler, optimisation level or instruction set
// must not change them; whoever changes the pictures changes these, and synth_mean_std.
static void bytes_are_the_same_on_every_build(void **state)
{
    (void)state;
    static const struct {
        int h, w, c;
        uint64_t hash;
    } cases[] = {
        {32, 32, 3, 0xe33a883b8672441b},
        {28, 28, 1, 0xb6b3e2d5eaaab028},
        {16, 96, 3, 0xf89f7eeee03fd6f9},
        {96, 96, 1, 0x252cca9d954bbbbf},
    };
    static uint8_t image[LARGEST];
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        uint64_t hash = 14695981039346656037u;
        for (int64_t i = 0; i < 2000; i++) {
            synth_image(image, 42, i, cases[n].h, cases[n].w, cases[n].c);
            for (int j = 0; j < cases[n].h * cases[n].w * cases[n].c; j++) {
                hash = (hash ^ image[j]) * 1099511628211u;
            }
        }
        assert_int_equal(hash, cases[n].hash);
    }
}

static void images_differ_by_seed_and_index(void **state)
{
    (void)state;
    static uint8_t a[LARGEST], b[LARGEST];
    const size_t bytes = 32 * 32 * 3;
    const int64_t far = INT64_C(1) << 40;
    synth_image(a, 7, far + 3, 32, 32, 3);
    synth_image(b, 7, 3, 32, 32, 3);
    assert_memory_not_equal(a, b, bytes);
    synth_image(b, 8, far + 3, 32, 32, 3);
    assert_memory_not_equal(a, b, bytes);
    synth_image(b, 7, far + 3, 32, 32, 3);
    assert_memory_equal(a, b, bytes);
}

// Drawn on top of zeros and on top of 0xff, with a guard before and after.
static void an_image_sets_its_bytes_and_no_others(void **state)
{
    (void)state;
    static const int sizes[][3] = {{16, 16, 1}, {96, 96, 3}, {17, 61, 3}, {96, 16, 1}};
    static uint8_t a[LARGEST + 2], b[LARGEST + 2];
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++) {
        const int h = sizes[n][0], w = sizes[n][1], c = sizes[n][2];
        const size_t bytes = (size_t)(h * w * c);
        for (int64_t i = 0; i < 50; i++) {
            memset(a, 0, sizeof a);
            memset(b, 0xff, sizeof b);
            synth_image(a + 1, 1, i, h, w, c);
            synth_image(b + 1, 1, i, h, w, c);
            assert_memory_equal(a + 1, b + 1, bytes);
            assert_true(a[0] == 0 && a[bytes + 1] == 0 && b[0] == 0xff && b[bytes + 1] == 0xff);
        }
    }
}

static void stated_mean_and_std_are_those_of_the_pictures(void **state)
{
    (void)state;
    static uint8_t image[LARGEST];
    for (int c = 1; c <= 3; c += 2) {
        const int size = c == 1 ? 28 : 32, images = 4000;
        double sum[3] = {0}, squares[3] = {0};
        for (int64_t i = 0; i < images; i++) {
            synth_image(image, 3, i, size, size, c);
            for (int j = 0; j < size * size * c; j++) {
                sum[j % c] += image[j] / 255.0;
                squares[j % c] += image[j] * image[j] / (255.0 * 255.0);
            }
        }
        float mean[4], std[4];
        synth_mean_std(c, mean, std);
        for (int k = 0; k < c; k++) {
            const double n = (double)images * size * size, m = sum[k] / n;
            assert_float_equal(mean[k], m, 0.01);
            assert_float_equal(std[k], sqrt(squares[k] / n - m * m), 0.01);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_ten_images_hold_every_class),
        cmocka_unit_test(bytes_are_the_same_on_every_build),
        cmocka_unit_test(images_differ_by_seed_and_index),
        cmocka_unit_test(an_image_sets_its_bytes_and_no_others),
        cmocka_unit_test(stated_mean_and_std_are_those_of_the_pictures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
