// The reader of safetensors on the file as it is, and what that says of a model; byte 0 chooses
// whether the length of the header, the first 8 bytes, is made right.
#include "train/model_info.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    Input rest = {bytes, size};
    const unsigned how = take_byte(&rest);
    uint8_t *copy = malloc(rest.size + 1);
    memcpy(copy, rest.bytes, rest.size);
    if (how & 1 && rest.size > 8) {
        const uint8_t *end = memchr(copy + 8, '\n', rest.size - 8);
        const uint64_t length = end ? (uint64_t)(end - copy - 8) : rest.size - 8;
        memcpy(copy, &length, 8);
    }
    SafeFile f;
    Error e = {0};
    const char *path = file_in_memory(copy, rest.size);
    const int status = safetensors_open(&f, path, &e);
    check_failure(status, &e);
    if (!status) {
        volatile char sum = 0;
        for (size_t i = 0; i < f.count; i++) {
            assert(safetensors_get(&f, f.tensors[i].name) == &f.tensors[i]);
            for (size_t k = 0; k < f.tensors[i].bytes; k++)
                sum = (char)(sum ^ ((const char *)f.tensors[i].data)[k]);
        }
        for (size_t i = 0; i < f.metadata_count; i++)
            assert(safetensors_metadata(&f, f.metadata[i].key));
        safetensors_close(&f);
        ModelInfo m;
        check_failure(model_info_read(&m, path, &e), &e);
        for (int k = 0; m.described && k < m.data.classes; k++) assert(m.data.class_names[k][0]);
        model_info_free(&m);
    }
    free(copy);
    return 0;
}
