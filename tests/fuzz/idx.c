// The four files of MNIST. Byte 0: whether the train images are compressed (bit 0) and the labels
// (bit 1), damaged at byte 1 of the result if that is not 0; then three lengths of 16 bits, then
// the four files.
#include <zlib.h>

#include "tests/fuzz/source.h"

static const char *const names[] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                                    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"};

static void write_compressed(const char *dir, const char *name, Input part, unsigned damage)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)part.bytes, .avail_in = (unsigned)part.size};
    uint8_t *out = malloc(part.size + 1000);
    z.next_out = out;
    z.avail_out = (unsigned)part.size + 1000;
    if (deflateInit2(&z, 1, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY)) abort();
    deflate(&z, Z_FINISH);
    if (damage) out[damage % z.total_out] ^= 0x55;
    write_file(dir, name, out, z.total_out);
    deflateEnd(&z);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    const char *dir = directory_in_memory();
    Input rest = {bytes, size};
    const unsigned how = take_byte(&rest), damage = take_byte(&rest);
    size_t length[4];
    for (int i = 0; i < 3; i++) {
        length[i] = take_byte(&rest);
        length[i] |= (size_t)take_byte(&rest) << 8;
    }
    length[3] = rest.size;
    for (int i = 0; i < 4; i++) {
        const Input part = take_bytes(&rest, length[i]);
        if (how >> i & 1)
            write_compressed(dir, names[i], part, damage);
        else
            write_file(dir, names[i], part.bytes, part.size);
    }
    Source s;
    Error e = {0};
    const int status = idx_open(&s, dir, &e);
    read_source(&s, status, &e);
    return 0;
}
