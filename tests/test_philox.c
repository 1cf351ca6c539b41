// base/philox.h: the known answers of the authors' Random123, and the ranges of what we make of
// the words.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/random.h"
#include "base/philox.h"

#include <cmocka.h> // last: it defines a macro fail()

static void gives_known_answers(void **state)
{
    (void)state;
    const uint32_t ff = 0xffffffff;
    const struct {
        uint32_t key[2], counter[4], answer[4];
    } known[] = {
        {{0, 0}, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{ff, ff}, {ff, ff, ff, ff}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0xa4093822, 0x299f31d0}, // digits of pi
         {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        const uint32_t *key = known[i].key, *c = known[i].counter;
        const Philox p = philox4(key[0], key[1], c[0], c[1], c[2], c[3]);
        assert_memory_equal(p.v, known[i].answer, sizeof p.v);
    }
}

// Every bit of seed, stream, a and b counts.
static void separates_its_arguments(void **state)
{
    (void)state;
    const Philox p = philox(1, STREAM_TEST, 1, 1);
    const Philox others[] = {
        philox(1 + (1ULL << 32), STREAM_TEST, 1, 1),
        philox(1, STREAM_SYNTH, 1, 1),
        philox(1, STREAM_TEST, 1 + (1ULL << 32), 1),
        philox(1, STREAM_TEST, 1, 2),
        philox(0, STREAM_TEST, 1, 1),
    };
    for (int i = 0; i < 5; i++) assert_memory_not_equal(p.v, others[i].v, sizeof p.v);
}

static void unit_is_below_one(void **state)
{
    (void)state;
    assert_true(philox_unit(0) == 0.0f);
    assert_true(philox_unit(0xffffffff) == 1.0f - 0x1p-24f);
    assert_true(philox_unit(0x80000000) == 0.5f);
    double sum = 0;
    for (uint64_t i = 0; i < 40000; i++)
        sum += (double)philox_unit(philox(5, STREAM_TEST, i, 0).v[i % 4]);
    assert_true(sum / 40000 > 0.5 - 0.006 && sum / 40000 < 0.5 + 0.006); // four sigma
}

static void below_covers_its_range(void **state)
{
    (void)state;
    assert_int_equal(philox_below(0xffffffff, 1), 0);
    assert_int_equal(philox_below(0xffffffff, 0xffffffff), 0xfffffffe);
    int count[7] = {0};
    for (uint64_t i = 0; i < 7000; i++) {
        const uint32_t k = philox_below(philox(5, STREAM_TEST, i, 1).v[0], 7);
        assert_true(k < 7);
        count[k]++;
    }
    for (int k = 0; k < 7; k++) assert_in_range(count[k], 880, 1120); // four sigma
}

static void reflection_does_not_repeat_the_edge(void **state)
{
    (void)state;
    const int expected[] = {1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1}; // of -5 .. 7, size 4
    for (int i = 0; i < 13; i++) assert_int_equal(draw_reflect(i - 5, 4), expected[i]);
    for (int i = -3; i < 4; i++) assert_int_equal(draw_reflect(i, 1), 0);
}

// An alternating flip shows each sample once from either side in two epochs; shifts reach all
// places of their range.
static void augmentation_has_its_range(void **state)
{
    (void)state;
    const Augment a = {.flip = FLIP_ALTERNATE, .translate = 2, .brightness = 0.1f, .cutout = 4};
    int mirrored = 0, shifts[5] = {0};
    for (uint32_t id = 0; id < 2000; id++) {
        const AugmentDraw even = draw_augment(a, 32, 32, 1, 4, id);
        const AugmentDraw odd = draw_augment(a, 32, 32, 1, 5, id);
        assert_int_not_equal(even.mirror, odd.mirror);
        assert_int_equal(even.mirror, draw_augment(a, 32, 32, 1, 0, id).mirror);
        assert_true(even.offset >= -0.1f && even.offset < 0.1f && even.factor == 1.0f);
        assert_in_range(even.cut_y + 2, 0, 31);
        assert_in_range(even.dx + 2, 0, 4);
        mirrored += even.mirror;
        shifts[even.dy + 2]++;
    }
    assert_in_range(mirrored, 910, 1090); // four sigma
    for (int i = 0; i < 5; i++) assert_in_range(shifts[i], 328, 472);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_known_answers),
        cmocka_unit_test(separates_its_arguments),
        cmocka_unit_test(unit_is_below_one),
        cmocka_unit_test(below_covers_its_range),
        cmocka_unit_test(reflection_does_not_repeat_the_edge),
        cmocka_unit_test(augmentation_has_its_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
