// Data that stays on a device: a pretended one, whose memory is the host's.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "train/device_data.h"

#include <cmocka.h> // last: it defines a macro fail()

enum { N = 700, SIDE = 96, STRIDE = SIDE * SIDE * 3 }; // more than one piece of 4 MiB

static size_t memory; // that the device has

static size_t memory_free(void)
{
    return memory;
}

static void *alloc(size_t bytes)
{
    return calloc(1, bytes);
}

static void upload(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

static Kernels device(bool own_memory)
{
    return (Kernels){.own_memory = own_memory,
                     .alloc = alloc,
                     .release = free,
                     .memory_free = memory_free,
                     .upload = upload};
}

static void test_has_every_image(void **state)
{
    (void)state;
    Dataset d;
    Error e = {0};
    DeviceData s = {0};
    const Kernels k = device(true);
    assert_int_equal(dataset_open_embedded(&d, SIDE, SIDE, 3, N, 10, 1, &e), 0);
    memory = (size_t)1 << 30;
    assert_int_equal(device_data_load(&s, &k, &d, SPLIT_TRAIN, &e), 0);
    assert_non_null(s.images);
    uint8_t *images = malloc((size_t)N * STRIDE);
    uint16_t labels[N];
    assert_int_equal(dataset_read(&d, SPLIT_TRAIN, 0, N, images, labels, &e), 0);
    assert_memory_equal(s.images, images, (size_t)N * STRIDE);
    for (int i = 0; i < N; i++) assert_int_equal(s.labels[i], labels[i]);
    free(images);
    device_data_release(&s, &k);
    assert_null(s.images);
    dataset_close(&d);
}

static void test_is_too_large(void **state)
{
    (void)state;
    Dataset d;
    Error e = {0};
    DeviceData s = {0};
    const Kernels k = device(true);
    assert_int_equal(dataset_open_embedded(&d, SIDE, SIDE, 3, N, 10, 1, &e), 0);
    memory = (size_t)N * STRIDE * 2; // the labels are too much
    assert_int_equal(device_data_load(&s, &k, &d, SPLIT_TRAIN, &e), 0);
    assert_null(s.images);
    dataset_close(&d);
}

// In the host's memory nothing is copied: images appear where they are when they are asked for.
static void test_shares_the_cache(void **state)
{
    (void)state;
    Dataset d;
    Error e = {0};
    DeviceData s = {0};
    const Kernels k = device(false);
    const uint32_t index = N - 1;
    uint8_t image[STRIDE];
    int32_t label;
    assert_int_equal(dataset_open_embedded(&d, SIDE, SIDE, 3, N, 10, 1, &e), 0);
    assert_int_equal(device_data_load(&s, &k, &d, SPLIT_TRAIN, &e), 0);
    assert_non_null(s.images);
    assert_int_equal(dataset_touch(&d, SPLIT_TRAIN, &index, 1, &e), 0);
    memcpy(image, s.images + (size_t)index * STRIDE, STRIDE);
    device_data_release(&s, &k);
    dataset_close(&d);

    uint8_t expected[STRIDE];
    assert_int_equal(dataset_open_embedded(&d, SIDE, SIDE, 3, N, 10, 1, &e), 0);
    assert_int_equal(dataset_gather(&d, SPLIT_TRAIN, &index, 1, expected, &label, &e), 0);
    assert_memory_equal(image, expected, STRIDE);
    dataset_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_has_every_image),
        cmocka_unit_test(test_is_too_large),
        cmocka_unit_test(test_shares_the_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
