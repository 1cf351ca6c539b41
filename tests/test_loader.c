#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/stat.h>

#include "data/loader.h"
#include "data/pack/pack.h"
#include "data/synth.h"
#include "tests/shard_file.h"

#include <cmocka.h> // last: it defines a macro fail()

static char dir[] = "/tmp/test_loader.XXXXXX";
static char set[64], train_path[128];

// 1,000 images of 64x64x3 in 3 shards; an image takes 12,288 bytes, 85.3 go into a block.
enum { N_TRAIN = 1000, N_TEST = 37, SIDE = 64, STRIDE = SIDE * SIDE * 3, CLASSES = 5 };

static void make_image(uint8_t *image, Split split, int64_t i)
{
    for (uint64_t k = 0; k < STRIDE; k++)
        image[k] = shard_file_pixel((uint64_t)i + 7 * (uint64_t)split, k);
}

static void make_set(const char *path, const char *options)
{
    char *names[CLASSES] = {"a", "b", "c", "d", "e"};
    const PackConfig config = {.h = SIDE,
                               .w = SIDE,
                               .c = 3,
                               .classes = CLASSES,
                               .class_names = names,
                               .most = {N_TRAIN, N_TEST},
                               .shard_bytes = 400 * STRIDE,
                               .options = options,
                               .force = true};
    Packer *p;
    Error e = {0};
    PackSummary summary;
    uint8_t image[STRIDE];
    if (packer_open(&p, path, &config, &e)) fail_msg("%s", e.message);
    for (int split = 0; split < 2; split++)
        for (int64_t i = 0; i < config.most[split]; i++) {
            make_image(image, (Split)split, i);
            assert_int_equal(packer_add(p, (Split)split, image, (int)(i % CLASSES), &e), 0);
        }
    if (packer_commit(p, &summary, &e)) fail_msg("%s", e.message);
    assert_int_equal(summary.shards, 4);
    packer_close(p);
}

static void remove_set(const char *path)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", path);
    assert_int_equal(system(command), 0);
}

static int set_up(void **state)
{
    (void)state;
    make_set(set, "test");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    remove_set(set);
    return 0;
}

static Loader *open_loader(const Dataset *d, LoaderConfig c)
{
    Loader *l;
    Error e = {0};
    if (c.ranks == 0) c.ranks = 1;
    if (loader_open(&l, d, &c, &e)) fail_msg("%s", e.message);
    return l;
}

static void open_set(Dataset *d, bool verify)
{
    Error e = {0};
    if (dataset_open(d, set, verify, &e)) fail_msg("%s", e.message);
}

static void test_opens_what_was_packed(void **state)
{
    Dataset d;
    Error e = {0};
    (void)state;
    for (int verify = 0; verify < 2; verify++) {
        open_set(&d, verify);
        assert_int_equal(d.n[SPLIT_TRAIN], N_TRAIN);
        assert_int_equal(d.n[SPLIT_TEST], N_TEST);
        assert_string_equal(d.class_names[4], "e");
        uint8_t *images = malloc((size_t)N_TRAIN * STRIDE), expected[STRIDE];
        uint16_t labels[N_TRAIN];
        assert_int_equal(dataset_read(&d, SPLIT_TRAIN, 390, 500, images, labels, &e), 0);
        for (int64_t i = 0; i < 500; i++) {
            make_image(expected, SPLIT_TRAIN, 390 + i);
            assert_memory_equal(images + i * STRIDE, expected, STRIDE);
            assert_int_equal(labels[i], (390 + i) % CLASSES);
        }
        free(images);
        dataset_close(&d);
    }
}

static void test_statistics_are_exact(void **state)
{
    Dataset d;
    uint8_t image[STRIDE];
    double sum[3] = {0}, squares[3] = {0};
    (void)state;
    open_set(&d, false);
    for (int64_t i = 0; i < N_TRAIN; i++) {
        make_image(image, SPLIT_TRAIN, i);
        for (int k = 0; k < STRIDE; k++) {
            sum[k % 3] += image[k];
            squares[k % 3] += (double)image[k] * image[k];
        }
    }
    const double n = (double)N_TRAIN * SIDE * SIDE;
    for (int k = 0; k < 3; k++) {
        const double mean = sum[k] / n, variance = squares[k] / n - mean * mean;
        assert_float_equal(d.mean[k], mean / 255, 1e-7);
        assert_float_equal(d.std[k] * d.std[k], variance / 255 / 255, 1e-7);
    }
    assert_float_equal(d.mean[3], 0, 0);
    assert_float_equal(d.std[3], 1, 0);
    dataset_close(&d);
}

// Reads one epoch and checks every image against its id. Returns the images; `seen` counts ids.
static int64_t read_epoch(const Dataset *d, const LoaderConfig *c, int *seen)
{
    Loader *l = open_loader(d, *c);
    Error e = {0};
    int64_t total = 0, index = 0;
    uint8_t expected[STRIDE];
    for (Batch b; loader_next(l, &b, &e) == 0 && b.n > 0; index++) {
        assert_int_equal(b.index, index);
        for (int64_t i = 0; i < b.n; i++) {
            seen[b.ids[i]]++;
            make_image(expected, c->split, b.ids[i]);
            assert_memory_equal(b.images + i * STRIDE, expected, STRIDE);
            assert_int_equal(b.labels[i], b.ids[i] % CLASSES);
        }
        total += b.n;
    }
    const int64_t incomplete = c->drop_last ? 0 : c->batch - 1;
    assert_int_equal(index, (d->n[c->split] + incomplete) / c->batch);
    loader_close(l);
    return total;
}

static void test_an_epoch_has_every_image_once(void **state)
{
    Dataset d;
    (void)state;
    open_set(&d, false);
    for (int shuffle = 0; shuffle < 2; shuffle++)
        for (int split = 0; split < 2; split++) {
            int seen[N_TRAIN] = {0};
            const LoaderConfig c = {
                .split = (Split)split, .batch = 33, .shuffle = shuffle, .seed = 1, .ranks = 1};
            assert_int_equal(read_epoch(&d, &c, seen), d.n[split]);
            for (int64_t i = 0; i < d.n[split]; i++) assert_int_equal(seen[i], 1);
        }
    dataset_close(&d);
}

static void test_drop_last(void **state)
{
    Dataset d;
    int seen[N_TRAIN] = {0};
    (void)state;
    open_set(&d, false);
    const LoaderConfig c = {.batch = 33, .shuffle = true, .drop_last = true, .ranks = 1};
    assert_int_equal(read_epoch(&d, &c, seen), 990);
    dataset_close(&d);
}

// Who has the images asks for the ids alone: they are the same.
static void test_ids_only(void **state)
{
    Dataset d;
    Error e = {0};
    Batch a, b;
    (void)state;
    open_set(&d, false);
    LoaderConfig c = {.batch = 300, .shuffle = true, .seed = 2};
    Loader *whole = open_loader(&d, c);
    c.ids_only = true;
    Loader *ids = open_loader(&d, c);
    do {
        assert_int_equal(loader_next(whole, &a, &e), 0);
        assert_int_equal(loader_next(ids, &b, &e), 0);
        assert_int_equal(a.n, b.n);
        assert_null(b.images);
        assert_null(b.labels);
        if (a.n > 0) assert_memory_equal(a.ids, b.ids, (size_t)a.n * sizeof *a.ids);
    } while (a.n > 0);
    loader_close(whole);
    loader_close(ids);
    dataset_close(&d);
}

// The ranks together have each batch's images, whatever their number.
static void test_ranks_share_the_epoch(void **state)
{
    Dataset d;
    (void)state;
    open_set(&d, false);
    for (int ranks = 1; ranks <= 5; ranks++) {
        int seen[N_TRAIN] = {0};
        int64_t total = 0;
        for (int rank = 0; rank < ranks; rank++) {
            const LoaderConfig c = {
                .batch = 33, .shuffle = true, .seed = 4, .rank = rank, .ranks = ranks};
            total += read_epoch(&d, &c, seen);
        }
        assert_int_equal(total, N_TRAIN);
        for (int i = 0; i < N_TRAIN; i++) assert_int_equal(seen[i], 1);
    }
    dataset_close(&d);
}

static void test_resumes_inside_an_epoch(void **state)
{
    Dataset d;
    Error e = {0};
    Batch a, b;
    (void)state;
    open_set(&d, false);
    LoaderConfig c = {.batch = 300, .shuffle = true, .repeat = true, .seed = 2, .first_epoch = 6};
    Loader *straight = open_loader(&d, c);
    for (int64_t step = 0; step < 12; step++) {
        c.first_epoch = 6 + step / 4;
        c.first_batch = step % 4;
        if (c.first_batch == 0 && step > 0) { // the end of an epoch is the start of the next
            c.first_epoch--;
            c.first_batch = 4;
        }
        Loader *resumed = open_loader(&d, c);
        assert_int_equal(loader_next(straight, &a, &e), 0);
        assert_int_equal(loader_next(resumed, &b, &e), 0);
        assert_int_equal(a.epoch, b.epoch);
        assert_int_equal(a.index, b.index);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.ids, b.ids, (size_t)a.n * sizeof *a.ids);
        assert_memory_equal(a.images, b.images, (size_t)a.n * STRIDE);
        loader_close(resumed);
    }
    loader_close(straight);
    dataset_close(&d);
}

static void test_refuses_impossible_batches(void **state)
{
    static const struct {
        int64_t batch, first_batch;
        int ranks;
        bool drop_last;
        const char *message;
    } cases[] = {{0, 0, 1, false, "too small"},
                 {3, 0, 4, false, "4 processes"},
                 {N_TRAIN + 1, 0, 1, true, "--batch-size 1000"},
                 {500, 3, 1, true, "cannot start at batch 3"}};
    Dataset d;
    (void)state;
    open_set(&d, false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const LoaderConfig c = {.batch = cases[i].batch,
                                .first_batch = cases[i].first_batch,
                                .ranks = cases[i].ranks,
                                .drop_last = cases[i].drop_last};
        Loader *l;
        Error e = {0};
        assert_int_equal(loader_open(&l, &d, &c, &e), STATUS_USAGE);
        assert_null(l);
        assert_non_null(strstr(e.message, cases[i].message));
    }
    dataset_close(&d);
}

static void damage(const char *path, off_t from_end)
{
    const int fd = open(path, O_WRONLY);
    const off_t size = lseek(fd, 0, SEEK_END);
    assert_int_equal(pwrite(fd, "?", 1, size - from_end), 1);
    close(fd);
}

// The batches before the damaged block arrive; then its error does, again and again.
static void test_damage_is_met_during_the_run(void **state)
{
    Dataset d;
    Batch b;
    Error e = {0};
    (void)state;
    damage(train_path, 1);
    open_set(&d, false);
    Loader *l = open_loader(&d, (LoaderConfig){.batch = 100});
    for (int i = 0; i < 3; i++) assert_int_equal(loader_next(l, &b, &e), 0);
    assert_int_equal(b.n, 100);
    int status = 0;
    for (int i = 0; i < 2 && !status; i++) status = loader_next(l, &b, &e);
    assert_int_equal(status, STATUS_DATA);
    assert_non_null(strstr(e.message, "damaged"));
    assert_int_equal(b.n, 0);
    assert_int_equal(loader_next(l, &b, &e), STATUS_DATA);
    loader_close(l);
    dataset_close(&d);
    assert_int_equal(dataset_open(&d, set, true, &e), STATUS_DATA);
}

static void test_file_cut_short_during_the_run(void **state)
{
    Dataset d;
    Batch b;
    Error e = {0};
    (void)state;
    open_set(&d, false);
    assert_int_equal(truncate(train_path, (2 << 20) + 100), 0);
    Loader *l = open_loader(&d, (LoaderConfig){.batch = 10});
    assert_int_equal(loader_next(l, &b, &e), STATUS_DATA);
    assert_non_null(strstr(e.message, "cut short"));
    loader_close(l);
    dataset_close(&d);
}

static void expect_no_set(const char *message)
{
    Dataset d;
    Error e = {0};
    assert_int_equal(dataset_open(&d, set, false, &e), STATUS_DATA);
    if (!strstr(e.message, message)) fail_msg("\"%s\" lacks \"%s\"", e.message, message);
}

static void test_refuses_incomplete_or_mixed_sets(void **state)
{
    char other[64], from[128], to[128];
    (void)state;
    snprintf(other, sizeof other, "%s/other", dir);
    make_set(other, "other options");
    snprintf(from, sizeof from, "%s/x-train-00001-of-00003.nns", other);
    snprintf(to, sizeof to, "%s/x-train-00001-of-00003.nns", set);
    unlink(to);
    expect_no_set("has 2 train shards, expected 3");
    assert_int_equal(rename(from, to), 0);
    expect_no_set("another data set");
    snprintf(from, sizeof from, "%s/x-train-00002-of-00003.nns", set);
    unlink(to);
    assert_int_equal(link(from, to), 0);
    expect_no_set("renamed or copied");
    snprintf(to, sizeof to, "%s/x-train-00000-of-00004.nns", set);
    assert_int_equal(link(from, to), 0);
    expect_no_set("two data sets");
    unlink(to);
    make_set(set, "test");
    snprintf(to, sizeof to, "%s/x-test-00000-of-00001.nns", set);
    unlink(to);
    expect_no_set("no x-test-");
    remove_set(other);
}

static void test_embedded_set(void **state)
{
    Dataset d;
    Error e = {0};
    Batch b;
    int seen[300] = {0};
    uint8_t expected[28 * 28];
    (void)state;
    assert_int_equal(dataset_open_embedded(&d, 28, 28, 1, 300, 20, 5, &e), 0);
    Loader *l = open_loader(&d, (LoaderConfig){.batch = 64, .shuffle = true});
    while (loader_next(l, &b, &e) == 0 && b.n > 0)
        for (int64_t i = 0; i < b.n; i++) {
            seen[b.ids[i]]++;
            synth_image(expected, 5, b.ids[i], 28, 28, 1);
            assert_memory_equal(b.images + i * 28 * 28, expected, sizeof expected);
            assert_int_equal(b.labels[i], synth_label(5, b.ids[i]));
        }
    for (int i = 0; i < 300; i++) assert_int_equal(seen[i], 1);
    loader_close(l);
    uint8_t test_images[20 * 28 * 28];
    assert_int_equal(dataset_read(&d, SPLIT_TEST, 0, 20, test_images, NULL, &e), 0);
    synth_image(expected, 5, 300 + 19, 28, 28, 1);
    assert_memory_equal(test_images + 19 * 28 * 28, expected, sizeof expected);
    dataset_close(&d);
}

// A loader that is closed while its thread waits or reads must end at once.
static void test_closes_at_any_time(void **state)
{
    Dataset d;
    Error e = {0};
    Batch b;
    (void)state;
    open_set(&d, false);
    for (int batches = 0; batches < 12; batches++) {
        Loader *l = open_loader(&d, (LoaderConfig){.batch = 100, .shuffle = true, .repeat = true});
        for (int i = 0; i < batches; i++) assert_int_equal(loader_next(l, &b, &e), 0);
        loader_close(l);
    }
    dataset_close(&d);
}

// A train split of 4.5 GB, nearly all of it a hole in the file: read block by block, never kept,
// with file positions past 2^32.
static void test_split_larger_than_the_cache(void **state)
{
    enum { N = 1500, BIG = 1024 };
    ShardFile train, test;
    Dataset d;
    Batch b;
    Error e = {0};
    char path[128];
    (void)state;
    remove_set(set);
    assert_int_equal(mkdir(set, 0777), 0);
    shard_file_init(&train, N, BIG, BIG, 3, 2, 0);
    shard_file_init(&test, 1, BIG, BIG, 3, 2, 0);
    put(&test, 184, SPLIT_TEST, 4);
    // The last byte of the last image is 9: its block is a whole one.
    uint8_t *block = calloc(1, BLOCK);
    block[BLOCK - 1] = 9;
    put(&train, SUMS_AT + 4 * (shard_file_blocks(&train) - 1), crc32(0, block, BLOCK), 4);
    free(block);
    shard_file_seal(&train);
    shard_file_seal(&test);
    snprintf(path, sizeof path, "%s/x-test-00000-of-00001.nns", set);
    assert_true(shard_file_write(&test, path, 0));
    snprintf(path, sizeof path, "%s/x-train-00000-of-00001.nns", set);
    const bool room = shard_file_write(&train, path, 0);
    free(train.head);
    free(test.head);
    if (!room) skip(); // the file system has no holes, or not that many bytes
    const int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "\t", 1, IMAGES_AT + (off_t)N * BIG * BIG * 3 - 1), 1);
    close(fd);

    open_set(&d, false);
    assert_int_equal(dataset_shuffle_block(&d, SPLIT_TRAIN), 2);
    assert_int_equal(dataset_shuffle_block(&d, SPLIT_TEST), 0);
    uint8_t *image = malloc(BIG * BIG * 3);
    assert_int_equal(dataset_read(&d, SPLIT_TRAIN, N - 1, 1, image, NULL, &e), 0);
    assert_int_equal(image[BIG * BIG * 3 - 1], 9);
    free(image);
    Loader *l = open_loader(&d, (LoaderConfig){.batch = 8, .shuffle = true, .repeat = true});
    for (int i = 0; i < 10; i++) assert_int_equal(loader_next(l, &b, &e), 0);
    loader_close(l);
    dataset_close(&d);
}

int main(void)
{
    if (!mkdtemp(dir)) return 1;
    snprintf(set, sizeof set, "%s/set", dir);
    snprintf(train_path, sizeof train_path, "%s/x-train-00000-of-00003.nns", set);
#define WITH_SET(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_SET(test_opens_what_was_packed),
        WITH_SET(test_statistics_are_exact),
        WITH_SET(test_an_epoch_has_every_image_once),
        WITH_SET(test_drop_last),
        WITH_SET(test_ids_only),
        WITH_SET(test_ranks_share_the_epoch),
        WITH_SET(test_resumes_inside_an_epoch),
        WITH_SET(test_refuses_impossible_batches),
        WITH_SET(test_damage_is_met_during_the_run),
        WITH_SET(test_file_cut_short_during_the_run),
        WITH_SET(test_refuses_incomplete_or_mixed_sets),
        WITH_SET(test_closes_at_any_time),
        WITH_SET(test_split_larger_than_the_cache),
        cmocka_unit_test(test_embedded_set),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return failed;
}
