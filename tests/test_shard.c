#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/stat.h>

#include "base/sha256.h"
#include "data/shard.h"
#include "tests/shard_file.h"

#include <cmocka.h> // last: it defines a macro fail()

static char dir[] = "/tmp/test_shard.XXXXXX";
static char path[64];

// Three images of 512x512x3: 2.25 blocks, and no image begins at a block but the first.
enum { N = 3, SIDE = 512, STRIDE = SIDE * SIDE * 3, CLASSES = 2 };

static int set_up(void **state)
{
    ShardFile *f = malloc(sizeof *f);
    shard_file_init(f, N, SIDE, SIDE, 3, CLASSES, 1);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    ShardFile *f = *state;
    free(f->head);
    free(f);
    unlink(path);
    return 0;
}

static void write_sealed(ShardFile *f)
{
    shard_file_seal(f);
    assert_true(shard_file_write(f, path, 1));
}

static void expect_refused(const char *message)
{
    Shard s;
    Error e = {0};
    assert_int_equal(shard_open(&s, path, &e), STATUS_DATA);
    if (!strstr(e.message, message)) fail_msg("\"%s\" lacks \"%s\"", e.message, message);
    assert_non_null(strstr(e.message, path));
    assert_null(strchr(e.message, '\n'));
}

static void test_reads_what_the_format_says(void **state)
{
    write_sealed(*state);
    Shard s;
    Error e = {0};
    if (shard_open(&s, path, &e)) fail_msg("%s", e.message);
    assert_int_equal(s.header.n, N);
    assert_int_equal(s.header.w, SIDE);
    assert_string_equal(s.names[1], "b");
    assert_int_equal(s.labels[1], 1);
    assert_int_equal(s.counts[0], 2);
    assert_int_equal(s.blocks, 3);
    uint8_t *images = malloc((size_t)N * STRIDE);
    for (int first = 0; first < N; first++)
        for (int n = 1; n <= N - first; n++) {
            assert_int_equal(shard_read(&s, first, n, images, &e), 0);
            for (int i = 0; i < n; i++)
                for (uint64_t k = 0; k < STRIDE; k += 1021)
                    assert_int_equal(images[(uint64_t)i * STRIDE + k],
                                     shard_file_pixel((uint64_t)(first + i), k));
        }
    assert_int_equal(shard_verify(&s, &e), 0);
    free(images);
    shard_close(&s);
}

static void test_refuses_a_wrong_field(void **state)
{
    static const struct {
        size_t offset, size;
        uint64_t value;
        const char *message;
    } cases[] = {
        {0, 1, 'x', "not a shard"},
        {8, 4, 0x04030201, "byte_order"},
        {12, 2, 2, "version"},
        {16, 4, 8192, "header_bytes"},
        {20, 4, 1u << 16, "flags"},
        {24, 8, 4096, "file_bytes"},
        {32, 8, 0, "n is 0"},
        {32, 8, UINT64_MAX / 2, "expected at most 67108864 images"},
        {32, 8, (1 << 26) + 1, "expected at most 67108864 images"},
        {32, 8, 4, "dataset_n"},
        {40, 8, 1, "first_index"},
        {40, 8, UINT64_MAX, "first_index"},
        {48, 8, 1ull << 32, "dataset_n"},
        {56, 4, 1, "shard is 1 of 1"},
        {64, 4, 0, "H is 0"},
        {64, 4, 16385, "H is 16385"},
        {68, 4, 0, "W is 0"},
        {72, 4, 2, "C is 2"},
        {72, 4, 4, "C is 4"},
        {76, 4, 2, "layout"},
        {80, 4, 2, "dtype"},
        {84, 4, STRIDE - 1, "stride"},
        {88, 4, 0, "label type"},
        {92, 4, 0, "classes is 0"},
        {92, 4, 65536, "classes is 65536"},
        {92, 4, 1, "counts has 16 bytes"},
        {96, 8, IMAGES_AT + 4096, "images is at byte"},
        {104, 8, 1, "images has 1 bytes"},
        {112, 8, LABELS_AT + 8, "labels is at byte"},
        {112, 8, NAMES_AT, "labels begins at 8192, too far"},
        {112, 8, 0, "labels begins at"},
        {120, 8, 8, "labels has 8 bytes"},
        {128, 8, UINT64_MAX - 4095, "names ends behind"},
        {136, 8, 512, "longer than its 2 names"},
        {136, 8, 513, "at most 256 a class"},
        {136, 8, 3, "names holds 1 names"},
        {136, 8, 5, "longer than its 2 names"},
        {144, 8, 1ull << 40, "counts ends behind"},
        {168, 8, 8, "sums has 8 bytes"},
        {176, 4, 2, "sum kind"},
        {180, 4, 4096, "block"},
        {184, 4, 2, "split"},
        {188, 4, 1, "byte 188"},
        {204, 4, 0x3f000000, "mean[3]"},
        {208, 4, 0, "std > 0"},
        {208, 4, 0x7fc00000, "std > 0"},
        {220, 4, 0, "std[3]"},
        {256, 1, 1, "byte 256"},
        {4087, 1, 1, "byte 4087"},
        {LABELS_AT, 2, CLASSES, "label 0 is 2"},
        {LABELS_AT, 2, 1, "count of class 0"},
        {LABELS_AT + 2 * N, 1, 1, "padding at byte 4102"},
        {IMAGES_AT - 1, 1, 1, "padding"},
        {NAMES_AT, 1, 0, "class 0 is \"\""},
        {NAMES_AT, 1, '\n', "control characters"},
        {NAMES_AT, 1, 0xff, "UTF-8"},
        {NAMES_AT, 1, 'b', "two classes"},
    };
    ShardFile *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const uint64_t before = get(f, cases[i].offset, cases[i].size);
        put(f, cases[i].offset, cases[i].value, cases[i].size);
        write_sealed(f);
        expect_refused(cases[i].message);
        put(f, cases[i].offset, before, cases[i].size);
    }
}

// A file of 8 GiB that is nearly all hole, with right sums in its header: refused before memory is
// taken for it, or time to read the hole.
static void test_refuses_holes(void **state)
{
    enum { NAMES_BYTES = 136 };
    static const size_t offsets[] = {112, 128, 144, 160, 96}; // in the order of the file
    static const char *const messages[] = {"section labels begins at 8589938688, too far",
                                           "section names begins at 8589942784, too far",
                                           "section counts begins at 8589946880, too far",
                                           "section sums begins at 8589950976, too far",
                                           "section images begins at 8592031744, too far",
                                           "section names has 8589934596 bytes"};
    ShardFile *f = *state;
    for (size_t i = 0; i < 6; i++) {
        const uint64_t hole = 8ull << 30, file_bytes = get(f, 24, 8) + hole;
        uint8_t before[256];
        memcpy(before, f->head, sizeof before);
        put(f, 24, file_bytes, 8);
        if (i == 5) put(f, NAMES_BYTES, get(f, NAMES_BYTES, 8) + hole, 8);
        for (size_t k = i == 5 ? 2 : i; k < 5; k++)
            put(f, offsets[k], get(f, offsets[k], 8) + hole, 8);
        write_sealed(f);
        assert_int_equal(truncate(path, (off_t)file_bytes), 0);
        expect_refused(messages[i]);
        memcpy(f->head, before, sizeof before);
    }
}

static void test_refuses_wrong_sums(void **state)
{
    ShardFile *f = *state;
    shard_file_seal(f);
    put(f, 40, 1, 1);
    assert_true(shard_file_write(f, path, 1));
    expect_refused("header_crc");
    put(f, 40, 0, 1);
    put(f, LABELS_AT, 1, 2);
    assert_true(shard_file_write(f, path, 1));
    expect_refused("have crc");
}

static void test_names_the_damaged_block(void **state)
{
    write_sealed(*state);
    const int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "x", 1, IMAGES_AT + BLOCK + 7), 1);
    close(fd);
    Shard s;
    Error e = {0};
    uint8_t *image = malloc(STRIDE);
    assert_int_equal(shard_open(&s, path, &e), 0);
    assert_int_equal(shard_read(&s, 0, 1, image, &e), 0);
    assert_int_equal(shard_read(&s, 1, 1, image, &e), STATUS_DATA);
    assert_non_null(strstr(e.message, "block 1"));
    assert_int_equal(shard_verify(&s, &e), STATUS_DATA);
    shard_close(&s);
    free(image);
}

static void test_file_cut_short(void **state)
{
    static const off_t sizes[] = {
        0, 100, 4096, 5000, IMAGES_AT, IMAGES_AT + N * STRIDE - 1, IMAGES_AT + N * STRIDE + 1};
    write_sealed(*state);
    Shard s;
    Error e = {0};
    uint8_t *image = malloc(STRIDE);
    assert_int_equal(shard_open(&s, path, &e), 0);
    assert_int_equal(truncate(path, IMAGES_AT + 2 * STRIDE), 0);
    assert_int_equal(shard_read(&s, 2, 1, image, &e), STATUS_DATA);
    assert_non_null(strstr(e.message, "cut short"));
    shard_close(&s);
    free(image);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        write_sealed(*state);
        assert_int_equal(truncate(path, sizes[i]), 0);
        expect_refused("bytes");
    }
}

static void test_says_what_else_it_is(void **state)
{
    static const struct {
        const char *bytes, *message;
    } cases[] = {{"\x1f\x8b\x08", "gzip"},     {"PK\3\4", "zip"},
                 {"\x89PNG\r\n\x1a\n", "PNG"}, {"\xff\xd8\xff\xe0", "JPEG"},
                 {"just some words", "text"},  {"\x89NNS\n\x1a\n", "text mode"},
                 {"\x01\x02\x03", "unknown"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char bytes[8192] = {0};
        memcpy(bytes, cases[i].bytes, strlen(cases[i].bytes));
        FILE *file = fopen(path, "w");
        fwrite(bytes, 1, sizeof bytes, file);
        fclose(file);
        expect_refused(cases[i].message);
    }
    unlink(path);
    expect_refused("cannot open");
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_refused("not a regular file");
}

static void test_class_names(void **state)
{
    static const char *const good[] = {"a", "tabby cat", "\xc3\xa9", "\xe2\x82\xac",
                                       "\xf0\x9f\x90\x88"};
    static const char *const bad[] = {
        "",         "a\tb",     "\x7f",         "\xc2\x85",         "\x80",
        "\xc0\xaf", "\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe0\x80\x80",
        "\xff"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(class_name_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(class_name_valid(bad[i], strlen(bad[i])));
}

// The examples of FIPS 180-4, and a million times "a".
static void test_sha256(void **state)
{
    static const struct {
        const char *text;
        int times;
        uint8_t digest[4];
    } cases[] = {
        {"", 1, {0xe3, 0xb0, 0xc4, 0x42}},
        {"abc", 1, {0xba, 0x78, 0x16, 0xbf}},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1, {0x24, 0x8d, 0x6a, 0x61}},
        {"a", 1000000, {0xcd, 0xc7, 0x6e, 0x5c}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Sha256 s;
        uint8_t digest[32];
        sha256_init(&s);
        for (int k = 0; k < cases[i].times; k++)
            sha256_add(&s, cases[i].text, strlen(cases[i].text));
        sha256_finish(&s, digest);
        assert_memory_equal(digest, cases[i].digest, 4);
    }
}

int main(void)
{
    if (!mkdtemp(dir)) return 1;
    snprintf(path, sizeof path, "%s/x.nns", dir);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reads_what_the_format_says, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refuses_a_wrong_field, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refuses_holes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refuses_wrong_sums, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names_the_damaged_block, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_file_cut_short, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_says_what_else_it_is, set_up, tear_down),
        cmocka_unit_test(test_class_names),
        cmocka_unit_test(test_sha256),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return failed;
}
