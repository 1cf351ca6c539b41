// train/model_file: weights come back; what does not fit is listed, and nothing was changed then.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/model_file.h"

#include <cmocka.h> // last: it defines a macro fail()

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static char path[] = "/tmp/nn-test-model-XXXXXX";
static const Kernels *k;
static Tensors tensors;
static Tensor *conv;

static int set_up(void **state)
{
    (void)state;
    Error e;
    char note[256];
    const KernelsConfig config = {.device = "cpu", .dtype = "fp32", .threads = 1};
    const int fd = mkstemp(path);
    if (fd < 0 || close(fd) != 0 || kernels_open(&k, &config, note, &e)) return -1;
    conv = parameter(&tensors, SHAPE(2, 1, 2, 3), 1, zeros(), "conv.weight"); // (out,h,w,in)
    constant(&tensors, "norm.weight", SHAPE(2), 1.0f);
    counter(&tensors, "norm.num_batches_tracked");
    return tensors_allocate(&tensors, k, 1, 0, &e);
}

static int tear_down(void **state)
{
    (void)state;
    tensors_release(&tensors, k);
    k->close();
    return unlink(path);
}

static const float device_order[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
static const float pytorch_order[12] = {1, 4, 2, 5, 3, 6, 7, 10, 8, 11, 9, 12}; // (out,in,h,w)

static void saves_pytorchs_layout(void **state)
{
    (void)state;
    Error e;
    SafeFile f;
    float read[12];
    tensor_upload(conv, k, device_order);
    assert_int_equal(model_save(&tensors, k, path, NULL, 0, &e), 0);
    assert_int_equal(safetensors_open(&f, path, &e), 0);
    assert_int_equal(f.count, 3);
    const SafeTensor *saved = safetensors_get(&f, "conv.weight");
    assert_int_equal(saved->rank, 4);
    assert_true(saved->shape[0] == 2 && saved->shape[1] == 3 && saved->shape[2] == 1);
    assert_memory_equal(saved->data, pytorch_order, sizeof pytorch_order);
    safetensors_close(&f);
    k->zero(conv->master, sizeof device_order);
    assert_int_equal(model_load(&tensors, k, path, &e), 0);
    k->download(read, conv->master, sizeof read);
    assert_memory_equal(read, device_order, sizeof read);
}

static void lists_what_does_not_fit(void **state)
{
    (void)state;
    static const float ones[2] = {1, 1}, others[2] = {1, 2};
    const SafeTensor weight = {"conv.weight", "F32", 4, {2, 3, 1, 2}, pytorch_order, 0};
    const SafeTensor flat = {"conv.weight", "F32", 2, {2, 6}, pytorch_order, 0};
    const SafeTensor norm = {"norm.weight", "F32", 1, {2}, ones, 0};
    const SafeTensor trained = {"norm.weight", "F32", 1, {2}, others, 0};
    const SafeTensor extra = {"norm.bias", "F32", 1, {2}, ones, 0};
    const struct {
        SafeTensor entries[3];
        size_t count;
        const char *message; // NULL: fits
    } cases[] = {
        {{weight, norm}, 2, NULL},
        {{weight}, 1, NULL}, // constants are ours
        {{norm}, 1, "does not fit this network: 1 missing: conv.weight; is it"},
        {{weight, norm, extra}, 3, "1 unexpected: norm.bias; is it"},
        {{flat, norm}, 2, "1 different: conv.weight is F32(2,6) for F32(2,3,1,2); is it"},
        {{weight, trained}, 2, "1 different: norm.weight is not 1 everywhere; is it"},
        {{extra, trained}, 2, "1 missing: conv.weight; 1 unexpected: norm.bias; 1 different: "},
    };
    static const float before[12] = {5};
    float after[12];
    for (size_t i = 0; i < COUNT(cases); i++) {
        Error e;
        assert_int_equal(safetensors_write(path, cases[i].entries, cases[i].count, NULL, 0, &e), 0);
        tensor_upload(conv, k, before);
        const int status = model_load(&tensors, k, path, &e);
        assert_int_equal(status, cases[i].message ? STATUS_DATA : 0);
        if (!cases[i].message) continue;
        if (!strstr(e.message, cases[i].message)) fail_msg("case %zu: %s", i, e.message);
        k->download(after, conv->master, sizeof after);
        assert_memory_equal(after, before, sizeof after);
    }
}

static size_t one_megabyte(void)
{
    return 1000000;
}

static void tells_the_batch_that_fits(void **state)
{
    (void)state;
    Error e;
    Tensors t = {0};
    Kernels small = *k;
    small.memory_free = one_megabyte;
    activation(&t, SHAPE(1000, 512), "map"); // 2,048 bytes an image
    assert_int_equal(tensors_allocate(&t, &small, 1000, 0, &e), STATUS_IO);
    assert_non_null(strstr(e.message, "try --batch-size 488 or less"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(saves_pytorchs_layout),
        cmocka_unit_test(lists_what_does_not_fit),
        cmocka_unit_test(tells_the_batch_that_fits),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
