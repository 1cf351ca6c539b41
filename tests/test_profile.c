// The profile of a step: what is counted, by layer, and that the tables fit.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/os.h"
#include "train/profile.h"
#include "pages/report_page.h"
#include "train/tensor.h"

#include <cmocka.h> // last: it defines a macro fail()

enum { ROWS = 6, IN = 5, OUT = 4, STEPS = 3 };

static const Kernels *cpu, *k; // k: with the profile
static Tensors tensors;
static Tensor *x, *y, *weight, *far, *norm_stats;

static int open_all(void **state)
{
    (void)state;
    Error e;
    char note[256];
    const KernelsConfig config = {.device = "cpu", .dtype = "fp32", .threads = 1};
    check(kernels_open(&cpu, &config, note, &e), &e);
    x = activation(&tensors, SHAPE(ROWS, IN), "input.x");
    y = activation(&tensors, SHAPE(ROWS, OUT), "layers.%d.act", 0);
    weight = parameter(&tensors, SHAPE(OUT, IN), 1, UNIFORM, "layers.%d.weight", 0);
    far = parameter(&tensors, SHAPE(OUT, IN), 1, UNIFORM, "a.layer.with.a.very.long.name.weight");
    norm_stats = workspace(&tensors, SHAPE(3, OUT), sizeof(float), "block.norm.stats");
    check(tensors_allocate(&tensors, cpu, 1, 0, &e), &e);
    k = kernels_profile(cpu, tensors_layer, &tensors);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    tensors_release(&tensors, cpu);
    cpu->close();
    return 0;
}

static void layers_of_pointers(void **state)
{
    (void)state;
    float other;
    const struct {
        const void *pointer;
        const char *layer;
    } cases[] = {
        {x->value, "input"},
        {y->value, "layers.0"},
        {weight->value, "layers.0"},
        {weight->grad, "layers.0"},
        {weight->master, "layers.0"},
        {norm_stats->value, "block.norm"},
        {far->grad, "a.layer.with.a.very.long.name"},
        {&other, "-"},
        {NULL, "update"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char layer[TENSOR_NAME_MAX];
        tensors_layer(&tensors, cases[i].pointer, layer);
        assert_string_equal(layer, cases[i].layer);
    }
}

static void step(void)
{
    const LinearDims d = {ROWS, IN, OUT};
    const StepValues values = {0};
    assert_true(k->step_begin(0, &values));
    k->linear_forward(y->value, NULL, x->value, weight->value, NULL, ACT_RELU, d);
    k->linear_forward(y->value, NULL, x->value, far->value, NULL, ACT_RELU, d);
    k->linear_forward(y->value, NULL, x->value, far->value, NULL, ACT_RELU, d);
    k->linear_backward_weight(weight->grad, NULL, y->value, x->value, SET, d);
    k->scale(weight->state1, 1, HYPER_ONE, weight->grad, OUT * IN);
    k->step_end();
    k->scale(weight->state1, 1, HYPER_ONE, weight->grad, OUT * IN); // not in the step
}

// After two steps or more: one entry for each operation, shape and layer.
static void entries_of_a_step(void **state)
{
    (void)state;
    assert_int_equal(kernels_profile_read().steps, 0);
    step();
    assert_int_equal(kernels_profile_read().steps, 0);
    for (int i = 1; i <= STEPS; i++) step();
    const Profile p = kernels_profile_read();
    const struct {
        const char *operation, *layer;
        int calls;
    } expected[] = {
        {"linear_forward", "layers.0", STEPS},
        {"linear_forward", "a.layer.with.a.very.long.name", 2 * STEPS},
        {"linear_backward_weight", "layers.0", STEPS},
        {"scale", "update", STEPS},
    };
    assert_int_equal(p.steps, STEPS);
    assert_int_equal(p.count, 4);
    double seconds = 0;
    for (int i = 0; i < p.count; i++) {
        const ProfileEntry *e = &p.entries[i];
        assert_string_equal(e->operation, expected[i].operation);
        assert_string_equal(e->layer, expected[i].layer);
        assert_int_equal(e->calls, expected[i].calls);
        assert_true(e->fastest > 0 && e->seconds >= (double)e->calls * e->fastest);
        seconds += e->seconds;
    }
    assert_true(p.entries[0].flop == 2.0 * ROWS * IN * OUT);
    assert_string_equal(p.entries[0].shape, "6x5->4,relu");
    assert_true(seconds <= p.step_seconds * STEPS);
}

// Ceilings as a machine of 100 GFLOP/s and 10 and 5 GB/s would have.
static ProfileReport report_of(double flop)
{
    return (ProfileReport){
        .profile = kernels_profile_read(),
        .ceilings = {.flop = flop, .bandwidth = {{1e3, 1e10}, {1e6, 5e9}}, .bandwidths = 2},
        .device = "test",
        .dtype = "fp32",
    };
}

static void floors(void **state)
{
    (void)state;
    bool arithmetic;
    const ProfileReport r = report_of(1e11), none = {0};
    const ProfileEntry entry = {.flop = 1e9, .bytes = 1e6};
    const ProfileEntry small = {.flop = 10, .bytes = 1e3}, large = {.flop = 0, .bytes = 1e9};
    assert_true(profile_floor(&r, &entry, &arithmetic) == 1e9 / 1e11 && arithmetic);
    assert_true(profile_floor(&r, &small, &arithmetic) == 1e3 / 1e10 && !arithmetic);
    assert_true(profile_floor(&r, &large, &arithmetic) == 1e9 / 5e9 && !arithmetic);
    assert_true(profile_floor(&none, &entry, &arithmetic) == 0);
}

// Prints into text, and returns the longest line.
static size_t print(char *text, size_t size, const ProfileReport *r, int width)
{
    FILE *f = tmpfile();
    profile_print(r, f, width);
    rewind(f);
    text[fread(text, 1, size - 1, f)] = '\0';
    fclose(f);
    size_t longest = 0;
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
        if (strcspn(line, "\n") > longest) longest = strcspn(line, "\n");
    return longest;
}

static void tables_fit(void **state)
{
    (void)state;
    char text[8192];
    const ProfileReport r = report_of(1e11), none = {0};
    assert_in_range(print(text, sizeof text, &r, 80), 60, 80);
    assert_non_null(strstr(text, "~a.very.long.name"));
    assert_null(strstr(text, "6x5->4"));
    assert_in_range(print(text, sizeof text, &r, 200), 110, 200);
    assert_non_null(strstr(text, " a.layer.with.a.very.long.name 6x5->4,relu"));
    print(text, sizeof text, &none, 80);
    assert_non_null(strstr(text, "use --steps 10"));
}

static void json_file(void **state)
{
    (void)state;
    Error e;
    JsonDocument d;
    void *data;
    size_t size;
    char path[] = "/tmp/nn-profile-XXXXXX";
    close(mkstemp(path));
    const ProfileReport r = report_of(1e11);
    assert_int_equal(profile_write(&r, path, &e), 0);
    assert_int_equal(os_read_file(path, &data, &size, &e), 0);
    assert_int_equal(json_parse(&d, data, size, &e), 0);
    const JsonNode *operations = json_get(d.root, "operations");
    assert_int_equal(operations->count, 4);
    assert_string_equal(json_get(json_first(operations), "layer")->string, "layers.0");
    assert_int_equal(json_get(d.root, "steps")->integer, STEPS);
    json_document_free(&d);
    free(data);
    unlink(path);
}

static void page(void **state)
{
    (void)state;
    Error e;
    Html h;
    JsonDocument profile, none;
    void *data;
    size_t size;
    char path[] = "/tmp/nn-profile-XXXXXX";
    close(mkstemp(path));
    const ProfileReport r = report_of(1e11);
    assert_int_equal(profile_write(&r, path, &e), 0);
    assert_int_equal(os_read_file(path, &data, &size, &e), 0);
    assert_int_equal(json_parse(&profile, data, size, &e), 0);
    assert_int_equal(json_parse(&none, "{\"operations\":{\"a\":1}}", 22, &e), 0);
    assert_int_equal(html_open(&h, "a run", 0, &e), 0);
    report_profile(&h, none.root);
    fflush(h.out);
    assert_null(strstr(h.text, "<section>"));
    report_profile(&h, profile.root);
    fflush(h.out);
    const char *section = strstr(h.text, "Where a step goes");
    assert_non_null(section);
    assert_non_null(strstr(section, "6x5-&gt;4,relu"));
    assert_non_null(strstr(section, "a.very.long.name"));
    assert_int_equal(html_save(&h, path, &e), 0);
    json_document_free(&profile);
    json_document_free(&none);
    free(data);
    unlink(path);
}

// On this machine, whatever it is and does beside, under valgrind too: they are measured, and in
// FLOP and bytes a second.
static void ceilings(void **state)
{
    (void)state;
    Error e;
    ProfileReport r;
    assert_int_equal(profile_report(&r, k, &e), 0);
    assert_true(r.ceilings.flop > 1e5);
    assert_in_range(r.ceilings.bandwidths, 1, BANDWIDTHS);
    for (int i = 0; i < r.ceilings.bandwidths; i++)
        assert_true(r.ceilings.bandwidth[i].rate > 1e5 &&
                    r.ceilings.bandwidth[i].bytes == (double)(1 << (18 + 2 * i)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_of_pointers),
        cmocka_unit_test(entries_of_a_step),
        cmocka_unit_test(floors),
        cmocka_unit_test(tables_fit),
        cmocka_unit_test(json_file),
        cmocka_unit_test(page),
        cmocka_unit_test(ceilings),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
