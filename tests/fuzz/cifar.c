// The binary CIFAR files. Byte 0: CIFAR-100 (bit 0). For each of the six files three bytes: how
// many
// records, how many bytes too many, the labels of all; then the text of the class names.
#include "tests/fuzz/source.h"

static const char *const names[2][6] = {
    {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
     "data_batch_5.bin", "test_batch.bin"},
    {"train.bin", "test.bin", "unused1", "unused2", "unused3", "unused4"},
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static uint8_t file[4 * 3074 + 256];
    const char *dir = directory_in_memory();
    Input rest = {bytes, size};
    const unsigned fine = take_byte(&rest) & 1;
    const size_t record = 3073 + fine;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, names[!fine][0]);
    unlink(path); // the other variant's
    for (int i = 0; i < 6; i++) {
        const size_t records = take_byte(&rest) & 3, more = take_byte(&rest);
        const uint8_t label = (uint8_t)take_byte(&rest);
        for (size_t k = 0; k < records; k++) memset(file + k * record, label, record);
        write_file(dir, names[fine][i], file, records * record + more);
    }
    write_file(dir, fine ? "fine_label_names.txt" : "batches.meta.txt", rest.bytes, rest.size);
    Source s;
    Error e = {0};
    const int status = cifar_open(&s, dir, &e);
    read_source(&s, status, &e);
    return 0;
}
