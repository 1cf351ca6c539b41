// train/checkpoint: what is written comes back, the newest whole one is taken, old ones go.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "train/checkpoint.h"
#include "base/os.h"

#include <cmocka.h> // last: it defines a macro fail()

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static char scratch[] = "/tmp/nn-test-checkpoint-XXXXXX";
static const Kernels *k;
static Tensors tensors;
static Snapshot snapshot;
static Tensor *weight, *mean;
static float *ema;

static int set_up(void **state)
{
    (void)state;
    Error e;
    char note[256];
    const KernelsConfig config = {.device = "cpu", .dtype = "fp32", .threads = 1};
    if (!mkdtemp(scratch) || chdir(scratch) != 0 || kernels_open(&k, &config, note, &e)) return -1;
    weight = parameter(&tensors, SHAPE(2, 3), 1, zeros(), "fc.weight");
    mean = buffer(&tensors, "norm.running_mean", SHAPE(2), 0);
    if (tensors_allocate(&tensors, k, 1, 0, &e)) return -1;
    ema = k->alloc(tensors.parameter_bytes);
    return ema ? snapshot_allocate(&snapshot, &tensors, true, &e) : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[sizeof scratch + 16];
    snprintf(command, sizeof command, "rm -rf %s", scratch);
    snapshot_free(&snapshot);
    k->release(ema);
    tensors_release(&tensors, k);
    k->close();
    return chdir("/") == 0 ? system(command) : -1;
}

static const float values[6] = {1, 2, 3, 4, 5, 6}, moments[6] = {7, 8, 9, 10, 11, 12};
static const float squares[6] = {13, 14, 15, 16, 17, 18}, means[2] = {19, 20},
                   averages[2] = {21, 22};

static void fill_device(void)
{
    tensor_upload(weight, k, values);
    tensor_upload(mean, k, means);
    k->upload(weight->state1, moments, sizeof moments);
    k->upload(weight->state2, squares, sizeof squares);
    k->upload(ema + (mean->master - tensors.master), averages, sizeof averages);
    snapshot_take(&snapshot, &tensors, k, ema);
}

static void clear_device(void)
{
    k->zero(tensors.master, tensors.parameter_bytes);
    k->zero(tensors.state1, tensors.parameter_bytes);
    k->zero(tensors.state2, tensors.parameter_bytes);
    k->zero(ema, tensors.parameter_bytes);
}

static void assert_device_filled(void)
{
    float found[6];
    k->download(found, weight->master, sizeof values);
    assert_memory_equal(found, values, sizeof values);
    k->download(found, weight->state1, sizeof moments);
    assert_memory_equal(found, moments, sizeof moments);
    k->download(found, weight->state2, sizeof squares);
    assert_memory_equal(found, squares, sizeof squares);
    k->download(found, mean->master, sizeof means);
    assert_memory_equal(found, means, sizeof means);
    k->download(found, ema + (mean->master - tensors.master), sizeof averages);
    assert_memory_equal(found, averages, sizeof averages);
}

// A checkpoint of `step` with this record in RUN/checkpoints.
static void save(const char *run, int64_t step, const char *record)
{
    Error e;
    Json j = {0};
    char text[64];
    snprintf(text, sizeof text, "{\"step\":%lld}", (long long)step);
    j.text = (char *)(record ? record : text);
    j.size = strlen(j.text);
    const CheckpointParts parts = {
        .tensors = &tensors, .kernels = k, .snapshot = &snapshot, .record = &j};
    check(checkpoint_write(&parts, run, step, 2, &e), &e);
}

static void comes_back(void **state)
{
    (void)state;
    Error e;
    Checkpoint c;
    fill_device();
    for (int64_t step = 8; step <= 10; step++) save("back", step, NULL);
    assert_false(os_exists("back/checkpoints/step_00000008"));
    assert_true(os_exists("back/checkpoints/step_00000009"));
    clear_device();
    assert_int_equal(checkpoint_open(&c, "back", &e), 0);
    assert_int_equal(c.step, 10);
    assert_string_equal(c.path, "back/checkpoints/step_00000010");
    assert_int_equal(checkpoint_read(&c, &snapshot, &tensors, k, ema, &e), 0);
    assert_device_filled();
    clear_device();
    snapshot_restore(&snapshot, &tensors, k, ema);
    assert_device_filled();
    checkpoint_close(&c);
}

static void cut_model(void)
{
    assert_int_equal(truncate("fall/checkpoints/step_00000002/model.safetensors", 4100), 0);
}

static void remove_state(void)
{
    assert_int_equal(unlink("fall/checkpoints/step_00000002/state-r000-of-001.safetensors"), 0);
}

static void make_file(void)
{
    Error e;
    os_remove("fall/checkpoints/step_00000002");
    assert_int_equal(os_write_atomic("fall/checkpoints/step_00000002", "x", 1, &e), 0);
}

static void falls_back(void **state)
{
    (void)state;
    static const struct {
        const char *record;
        void (*damage)(void);
    } cases[] = {
        {NULL, cut_model}, {NULL, remove_state},   {NULL, make_file},
        {"", NULL},        {"{\"step\":2", NULL},  {"[]", NULL},
        {"{}", NULL},      {"{\"step\":3}", NULL}, {"{\"step\":\"2\"}", NULL},
    };
    Error e;
    Checkpoint c;
    for (size_t i = 0; i < COUNT(cases); i++) {
        save("fall", 1, NULL);
        save("fall", 2, cases[i].record);
        if (cases[i].damage) cases[i].damage();
        assert_int_equal(checkpoint_open(&c, "fall", &e), 0);
        assert_int_equal(c.step, 1);
        checkpoint_close(&c);
        assert_int_equal(system("rm -rf fall"), 0);
    }
    save("fall", 2, "{}");
    assert_int_equal(checkpoint_open(&c, "fall", &e), STATUS_DATA);
    assert_string_equal(e.message, "none of the 1 checkpoints in fall/checkpoints is whole");
    assert_int_equal(checkpoint_open(&c, "absent", &e), STATUS_DATA);
}

static void refuses_another_network(void **state)
{
    (void)state;
    Error e;
    Checkpoint c;
    Snapshot without = snapshot;
    without.ema = NULL;
    save("other", 1, NULL);
    assert_int_equal(checkpoint_open(&c, "other", &e), 0);
    assert_int_equal(checkpoint_read(&c, &without, &tensors, k, NULL, &e), STATUS_DATA);
    assert_non_null(strstr(e.message, "5 entries in the state, but this network has 3"));
    weight->shape[0] = 3;
    weight->shape[1] = 2;
    assert_int_equal(checkpoint_read(&c, &snapshot, &tensors, k, ema, &e), STATUS_DATA);
    assert_non_null(strstr(e.message, "fc.weight is F32(2,3) for F32(3,2)"));
    weight->shape[0] = 2;
    weight->shape[1] = 3;
    checkpoint_close(&c);
}

static void cleans_before_going_on(void **state)
{
    (void)state;
    save("clean", 1, NULL);
    save("clean", 2, NULL);
    assert_int_equal(system("mkdir clean/checkpoints/.tmp-3-1; "
                            "touch clean/checkpoints/.tmp-3-1/x clean/.tmp-summary.json-1-0"),
                     0);
    checkpoint_clean("clean", 1);
    assert_true(os_exists("clean/checkpoints/step_00000001"));
    assert_true(os_exists("clean/checkpoints/damaged_00000002/model.safetensors"));
    assert_false(os_exists("clean/checkpoints/step_00000002"));
    assert_false(os_exists("clean/checkpoints/.tmp-3-1"));
    assert_false(os_exists("clean/.tmp-summary.json-1-0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back),
        cmocka_unit_test(refuses_another_network),
        cmocka_unit_test(cleans_before_going_on),
        cmocka_unit_test(falls_back),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
