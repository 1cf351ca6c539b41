#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>

#include "data/order.h"

#include <cmocka.h> // last: it defines a macro fail()

static void expect_permutation(const Order *o)
{
    uint8_t *seen = calloc(1, (size_t)o->n);
    for (int64_t p = 0; p < o->n; p++) {
        const int64_t x = order_at(o, p);
        assert_in_range(x, 0, o->n - 1);
        assert_int_equal(seen[x]++, 0);
    }
    free(seen);
}

// The loader's way: every third position from the second on, across windows.
static void expect_filled(const Order *o)
{
    const int64_t count = (o->n + 1) / 3;
    uint32_t *index = calloc((size_t)count + 1, sizeof *index);
    order_fill(o, 1, 3, count, index);
    for (int64_t i = 0; i < count; i++) assert_int_equal(index[i], order_at(o, 1 + 3 * i));
    assert_int_equal(index[count], 0);
    free(index);
}

static void test_every_image_once(void **state)
{
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 63, 64, 65, 1000, 50000, 65537};
    Order o;
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            order_init(&o, sizes[i], true, 0, 0, seed, 5);
            expect_permutation(&o);
            expect_filled(&o);
            order_init(&o, sizes[i], true, 3, 4, seed, 5); // blocks of 3, windows of 4 blocks
            expect_permutation(&o);
            expect_filled(&o);
        }
}

// Every permutation of three images should be as frequent as the others: chi-square with 5 degrees
// of freedom is above 20.5 once in a thousand times.
static void test_small_permutations_are_uniform(void **state)
{
    enum { DRAWS = 60000 };
    double count[9] = {0}, chi_square = 0;
    (void)state;
    for (uint64_t seed = 0; seed < DRAWS; seed++) {
        Order o;
        order_init(&o, 3, true, 0, 0, seed, 0);
        count[3 * order_at(&o, 0) + order_at(&o, 1)]++;
    }
    for (int i = 0; i < 9; i++) {
        if (i % 4 == 0) continue; // the same image twice
        const double off = count[i] - DRAWS / 6.0;
        chi_square += off * off / (DRAWS / 6.0);
    }
    assert_true(chi_square < 20.5);
}

// Where an image goes says nothing about where its neighbour goes: the mean distance of two random
// positions is n/3.
static void test_neighbours_are_far_apart(void **state)
{
    enum { SIZE = 10000 };
    Order o;
    int64_t sum = 0;
    (void)state;
    order_init(&o, SIZE, true, 0, 0, 1, 0);
    for (int64_t p = 0; p + 1 < SIZE; p++) sum += llabs(order_at(&o, p + 1) - order_at(&o, p));
    assert_in_range(sum / SIZE, SIZE / 3 - 100, SIZE / 3 + 100);
}

static int64_t places_in_common(const Order *a, const Order *b)
{
    int64_t same = 0;
    for (int64_t p = 0; p < a->n; p++) same += order_at(a, p) == order_at(b, p);
    return same;
}

static void test_depends_on_seed_and_epoch(void **state)
{
    Order a, b;
    (void)state;
    order_init(&a, 1000, true, 0, 0, 1, 1);
    order_init(&b, 1000, true, 0, 0, 1, 1);
    assert_int_equal(places_in_common(&a, &b), 1000);
    order_init(&b, 1000, true, 0, 0, 1, 2);
    assert_in_range(places_in_common(&a, &b), 0, 10);
    order_init(&b, 1000, true, 0, 0, 2, 1);
    assert_in_range(places_in_common(&a, &b), 0, 10);
    order_init(&b, 1000, true, 0, 0, 1ull << 32 | 1, 1);
    assert_in_range(places_in_common(&a, &b), 0, 10);
}

// A run that is resumed by a later version must find the same order.
static void test_order_is_pinned(void **state)
{
    static const int64_t expected[] = {34840, 2649, 19853, 21862, 42432, 3049, 21739, 14151};
    Order o;
    (void)state;
    order_init(&o, 50000, true, 0, 0, 42, 3);
    for (int64_t p = 0; p < 8; p++) assert_int_equal(order_at(&o, p), expected[p]);
}

static void test_without_shuffling(void **state)
{
    Order o;
    (void)state;
    order_init(&o, 100, false, 3, 4, 1, 1);
    for (int64_t p = 0; p < 100; p++) assert_int_equal(order_at(&o, p), p);
    expect_filled(&o);
}

// 10,000 images in blocks of 16 and windows of 8 blocks: a window must touch only what its blocks
// hold, and over the epochs the rest behind the last whole block must change.
static void test_windows_stay_inside_their_blocks(void **state)
{
    enum { SIZE = 10003, IN_BLOCK = 16, BLOCKS = 8, WINDOW = IN_BLOCK * BLOCKS };
    int64_t last = -1, changes = 0;
    (void)state;
    for (int64_t epoch = 0; epoch < 4; epoch++) {
        Order o;
        order_init(&o, SIZE, true, IN_BLOCK, BLOCKS, 7, epoch);
        for (int64_t p = 0; p < SIZE; p++) {
            const int64_t x = order_at(&o, p), window = p / WINDOW * WINDOW;
            bool inside = false;
            for (int64_t b = window; b < window + WINDOW && b < SIZE; b += IN_BLOCK) {
                const int64_t begin = order_block(&o, b);
                inside |= (x - begin + SIZE) % SIZE < IN_BLOCK;
            }
            assert_true(inside);
        }
        changes += order_block(&o, SIZE - 1) != last;
        last = order_block(&o, SIZE - 1);
    }
    assert_int_equal(changes, 4);
}

// Positions and images past 2^31 and 2^32.
static void test_large_sets(void **state)
{
    const int64_t n = (1LL << 40) + 12345;
    Order o;
    int64_t largest = 0;
    (void)state;
    for (int blocks = 0; blocks < 2; blocks++) {
        order_init(&o, n, true, blocks ? 2730 : 0, 32, 9, 1);
        for (int64_t p = 0; p < n; p += n / 1000) {
            const int64_t x = order_at(&o, p);
            assert_true(x >= 0 && x < n);
            if (x > largest) largest = x;
        }
        assert_true(largest > n / 10 * 9);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_image_once),
        cmocka_unit_test(test_small_permutations_are_uniform),
        cmocka_unit_test(test_neighbours_are_far_apart),
        cmocka_unit_test(test_depends_on_seed_and_epoch),
        cmocka_unit_test(test_order_is_pinned),
        cmocka_unit_test(test_without_shuffling),
        cmocka_unit_test(test_windows_stay_inside_their_blocks),
        cmocka_unit_test(test_large_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
