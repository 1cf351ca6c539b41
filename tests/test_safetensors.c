// base/safetensors: what is written is read; one malformed file for every rule of the format.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "base/safetensors.h"

#include <cmocka.h> // last: it defines a macro fail()

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static char path[] = "/tmp/nn-test-safetensors-XXXXXX";

static int make_path(void **state)
{
    (void)state;
    const int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

static const float weight[2][3] = {{1, 2, 3}, {4, 5, 6}};
static const int64_t tracked[1] = {7};
static const uint8_t labels[5] = {9, 8, 7, 6, 5};

static const SafeTensor tensors[] = {
    {.name = "conv.weight", .dtype = "F32", .rank = 2, .shape = {2, 3}, .data = weight},
    {.name = "labels", .dtype = "U8", .rank = 1, .shape = {5}, .data = labels},
    {.name = "num_batches_tracked", .dtype = "I64", .rank = 0, .data = tracked},
    {.name = "nothing", .dtype = "F32", .rank = 2, .shape = {0, 4}, .data = weight},
};
static const SafeMetadata metadata[] = {
    {"format", "pt"}, {"nn.classes", "cat,\"dog\",\xc3\xa9"}, {"nn.net", "mlp"}};

static void write_valid(void)
{
    Error e;
    const int status =
        safetensors_write(path, tensors, COUNT(tensors), metadata, COUNT(metadata), &e);
    assert_int_equal(status, 0);
}

static void reads_what_was_written(void **state)
{
    (void)state;
    SafeFile f;
    Error e;
    write_valid();
    assert_int_equal(safetensors_open(&f, path, &e), 0);
    assert_int_equal(f.count, COUNT(tensors));
    const SafeTensor *w = safetensors_get(&f, "conv.weight");
    assert_string_equal(w->dtype, "F32");
    assert_true(w->rank == 2 && w->shape[0] == 2 && w->shape[1] == 3);
    assert_int_equal(w->bytes, sizeof weight);
    assert_memory_equal(w->data, weight, sizeof weight);
    const SafeTensor *t = safetensors_get(&f, "num_batches_tracked");
    assert_int_equal(t->rank, 0);
    assert_int_equal(*(const int64_t *)t->data, 7); // 8-byte elements lie first, hence aligned
    assert_ptr_equal(f.tensors[0].data, t->data);
    assert_int_equal((uintptr_t)t->data % 4096, 0);
    assert_memory_equal(safetensors_get(&f, "labels")->data, labels, sizeof labels);
    assert_int_equal(safetensors_get(&f, "nothing")->bytes, 0);
    assert_null(safetensors_get(&f, "absent"));
    assert_string_equal(safetensors_metadata(&f, "nn.classes"), metadata[1].value);
    assert_int_equal(strlen(safetensors_metadata(&f, "nn.checksum")), 8);
    assert_null(safetensors_metadata(&f, "absent"));
    safetensors_close(&f);
}

static void same_input_same_bytes(void **state)
{
    (void)state;
    void *first, *second;
    size_t size, again;
    Error e;
    write_valid();
    assert_int_equal(os_read_file(path, &first, &size, &e), 0);
    write_valid();
    assert_int_equal(os_read_file(path, &second, &again, &e), 0);
    assert_int_equal(size, again);
    assert_int_equal(size, 4096 + sizeof weight + sizeof labels + sizeof tracked);
    assert_memory_equal(first, second, size);
    free(first);
    free(second);
}

static void refuses_two_tensors_of_one_name(void **state)
{
    (void)state;
    const SafeTensor twice[] = {tensors[0], tensors[0]};
    Error e;
    assert_int_equal(safetensors_write(path, twice, 2, NULL, 0, &e), STATUS_FAILED);
    assert_string_equal(e.message, "two tensors are named conv.weight");
}

// A file of this header and `data_bytes` zeros; the header's size is stated as `stated`, or truly
// if that is negative.
static void write_raw(const char *header, int64_t stated, size_t data_bytes)
{
    static char file[4096];
    Error e;
    const uint64_t length = stated < 0 ? strlen(header) : (uint64_t)stated;
    memset(file, 0, sizeof file);
    memcpy(file, &length, sizeof length);
    memcpy(file + 8, header, strlen(header));
    assert_int_equal(os_write_atomic(path, file, 8 + strlen(header) + data_bytes, &e), 0);
}

static void assert_refused(const char *what, const char *message)
{
    SafeFile f;
    Error e = {0};
    assert_int_equal(safetensors_open(&f, path, &e), STATUS_DATA);
    if (!strstr(e.message, message) || !strstr(e.message, path))
        fail_msg("%s: got \"%s\", expected \"%s\"", what, e.message, message);
}

#define T(name, dtype, shape, offsets)                                                             \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void refuses_malformed_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *message;
    } cases[] = {
        {"", 0, "does not start with {"},
        {" {}", 0, "does not start with {"},
        {"[]", 0, "does not start with {"},
        {"{}x", 0, "header: JSON byte 2: expected the end"},
        {"{\"a\":1}", 0, "tensor a has no dtype"},
        {"{" T("a", "F31", "[1]", "[0,4]") "}", 4, "unknown dtype F31"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "has no shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets are not two"},
        {"{" T("a", "F32", "[1]", "[0]") "}", 4, "data_offsets are not two"},
        {"{" T("a", "F32", "[1]", "[0,4,4]") "}", 4, "data_offsets are not two"},
        {"{" T("a", "F32", "[1]", "[[1,2],4]") "}", 4, "data_offsets are not two"},
        {"{" T("a", "F32", "[1]", "[-4,0]") "}", 4, "data_offsets are not two"},
        {"{" T("a", "F32", "[1]", "[0,4.0]") "}", 4, "data_offsets are not two"},
        {"{" T("a", "F32", "[-1]", "[0,4]") "}", 4, "dimension 0 is not a whole number"},
        {"{" T("a", "F32", "[1,1.5]", "[0,4]") "}", 4, "dimension 1 is not a whole number"},
        {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "has 9 dimensions"},
        {"{" T("a", "F32", "[2]", "[0,4]") "}", 4, "has 4 bytes; its shape and dtype F32 make 8"},
        {"{" T("a", "F32", "[1]", "[4,0]") "}", 4, "are not inside the 4 bytes"},
        {"{" T("a", "F32", "[2]", "[0,8]") "}", 4, "[0, 8] are not inside the 4 bytes"},
        {"{" T("a", "U8", "[4294967296,4294967296]", "[0,4]") "}", 4, "is too large"},
        {"{" T("a", "F64", "[2305843009213693952]", "[0,0]") "}", 0, "is too large"},
        {"{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[1]", "[8,12]") "}", 12,
         "tensor b starts at byte 8 of the data, not 4"},
        {"{" T("a", "F32", "[1]", "[4,8]") "}", 8, "tensor a starts at byte 4 of the data, not 0"},
        {"{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[1]", "[4,8]") "}", 8,
         "tensor b starts at byte 4 of the data, not 8"},
        {"{" T("a", "F32", "[1]", "[0,4]") "}", 5, "5 bytes of data, but the tensors make 4"},
        {"{}", 1, "1 bytes of data, but the tensors make 0"},
        {"{" T("a", "U8", "[1]", "[0,1]") "," T("a", "U8", "[1]", "[1,2]") "}", 2,
         "the key \"a\" appears twice"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "metadata k is not a string"},
        {"{\"__metadata__\":{\"nn.crc32\":\"00000001\"}}", 0, "nn.crc32 says 00000001"},
        {"{\"__metadata__\":{\"nn.checksum\":\"00000001\"}}", 0, "nn.checksum says 00000001"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        write_raw(cases[i].header, -1, cases[i].data_bytes);
        assert_refused(cases[i].header, cases[i].message);
    }
}

static void refuses_wrong_sizes(void **state)
{
    (void)state;
    Error e;
    assert_int_equal(os_write_atomic(path, "1234567", 7, &e), 0);
    assert_refused("7 bytes", "has only 7 bytes");
    write_raw("{}", 3, 0);
    assert_refused("header beyond the file", "should have 3 bytes, 2 follow");
    write_raw("{}", 100000001, 0);
    assert_refused("large header", "at most 100000000");
    write_raw("{}", INT64_MAX, 0);
    assert_refused("huge header", "at most 100000000");
}

static void takes_what_other_programs_write(void **state)
{
    (void)state;
    SafeFile f;
    Error e;
    write_raw("{}", -1, 0);
    assert_int_equal(safetensors_open(&f, path, &e), 0);
    assert_int_equal(f.count, 0);
    safetensors_close(&f);
    // Entries in another order than the data, an empty tensor between, no checksum, padding.
    write_raw("{" T("b", "BF16", "[2]", "[4,8]") "," T("c", "F32", "[0]", "[4,4]") "," T(
                  "a", "F32", "[]", "[0,4]") "}   ",
              -1, 8);
    assert_int_equal(safetensors_open(&f, path, &e), 0);
    assert_string_equal(f.tensors[0].name, "a");
    assert_string_equal(f.tensors[1].name, "c");
    assert_string_equal(f.tensors[2].name, "b");
    safetensors_close(&f);
}

// The same tensors and metadata in another order, as safetensors' save_file writes them.
static void takes_its_file_written_anew(void **state)
{
    (void)state;
    SafeFile f;
    Error e;
    char sum[16], header[1024];
    write_valid();
    assert_int_equal(safetensors_open(&f, path, &e), 0);
    snprintf(sum, sizeof sum, "%s", safetensors_metadata(&f, "nn.checksum"));
    safetensors_close(&f);
    for (int wrong = 0; wrong < 2; wrong++) {
        const int used = snprintf(
            header, sizeof header,
            "{\"__metadata__\":{\"nn.checksum\":\"%s\",\"nn.net\":\"%s\",\"more\":\"\","
            "\"nn.classes\":\"cat,\\\"dog\\\",\xc3\xa9\"}," T("labels", "U8", "[5]", "[0,5]") "," T(
                "conv.weight", "F32", "[2,3]",
                "[5,29]") "," T("nothing", "F32", "[0,4]",
                                "[29,29]") "," T("num_batches_tracked", "I64", "[]", "[29,37]") "}",
            sum, wrong ? "mlq" : "mlp");
        char file[2048];
        const uint64_t length = (uint64_t)used;
        memcpy(file, &length, 8);
        memcpy(file + 8, header, (size_t)used);
        char *data = file + 8 + used;
        memcpy(data, labels, 5);
        memcpy(data + 5, weight, 24);
        memcpy(data + 29, tracked, 8);
        assert_int_equal(os_write_atomic(path, file, (size_t)used + 8 + 37, &e), 0);
        if (wrong) {
            assert_refused("other metadata", "nn.checksum says");
        } else {
            assert_int_equal(safetensors_open(&f, path, &e), 0);
            safetensors_close(&f);
        }
    }
}

// One flipped bit is noticed, except in the names and texts of other programs' metadata and in the
// checksum's own name; a file cut anywhere is noticed everywhere.
static void notices_damage(void **state)
{
    (void)state;
    void *read;
    size_t size;
    SafeFile f;
    Error e;
    write_valid();
    assert_int_equal(os_read_file(path, &read, &size, &e), 0);
    char *const file = read, *const end = memchr(file + 8, ' ', size - 8);
    assert_non_null(end);
    *end = '\0'; // for strstr()
    const char *other = strstr(file + 8, "\"format\":\"pt\"") + 1,
               *own = strstr(file + 8, "\"nn.checksum\"") + 1;
    *end = ' ';
    for (char *c = file; c < file + size; c++) {
        if (c == end) c = file + 4096; // spaces up to there
        *c ^= 0x10;
        assert_int_equal(os_write_atomic(path, file, size, &e), 0);
        if ((c >= other && c < other + 11) || (c >= own && c < own + 11)) {
            if (safetensors_open(&f, path, &e) == 0) safetensors_close(&f);
        } else {
            assert_refused("flipped bit", c < file + 4096 ? "" : "is damaged");
        }
        *c ^= 0x10;
    }
    for (size_t n = 0; n < size; n += n < 16 || n > 4090 ? 1 : 97) {
        assert_int_equal(os_write_atomic(path, file, n, &e), 0);
        assert_refused("cut file", "");
    }
    free(read);
    unlink(path);
    assert_refused("missing file", "cannot open");
    write_valid();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_was_written),
        cmocka_unit_test(same_input_same_bytes),
        cmocka_unit_test(refuses_two_tensors_of_one_name),
        cmocka_unit_test(refuses_malformed_headers),
        cmocka_unit_test(refuses_wrong_sizes),
        cmocka_unit_test(takes_what_other_programs_write),
        cmocka_unit_test(takes_its_file_written_anew),
        cmocka_unit_test(notices_damage),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
