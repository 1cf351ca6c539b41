// safetensors files (https://github.com/huggingface/safetensors): u64 little-endian header size,
// JSON header {"__metadata__": {...}, name: {dtype, shape, data_offsets}, ...}, data.
#ifndef BASE_SAFETENSORS_H
#define BASE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { SAFETENSORS_MAX_RANK = 8 };

typedef struct SafeTensor {
    const char *name;
    const char *dtype; // "F64" "F32" "F16" "BF16" "I64" "I32" "I16" "I8" "U64" ... "U8" "BOOL"
    int rank;          // 0: a scalar
    int64_t shape[SAFETENSORS_MAX_RANK];
    const void *data; // little-endian, dense, the last dimension fastest
    size_t bytes;     // set by the reader; the writer derives it
} SafeTensor;

typedef struct SafeMetadata {
    const char *key;
    const char *value;
} SafeMetadata;

// Writes the file atomically. Tensors keep the given order within one element size, larger elements
// first, so that every tensor is aligned as PyTorch requires. The header is padded with spaces so
// that data starts at a multiple of 4096, and metadata, UTF-8, gain "nn.checksum": eight hex digits
// over names, types, shapes and data of the tensors and all metadata "nn.*", whatever their order.
// The same input gives the same bytes. STATUS_IO.
int safetensors_write(const char *path, const SafeTensor *tensors, size_t count,
                      const SafeMetadata *metadata, size_t metadata_count, Error *e);

typedef struct SafeFile {
    SafeTensor *tensors; // in the order of their data
    size_t count;
    SafeMetadata *metadata;
    size_t metadata_count;
    struct SafeStorage *storage; // what the pointers above point into
} SafeFile;

// Reads the whole file and checks it: STATUS_DATA names the file, what is wrong and what was
// expected. A tensor's data is aligned to its element if it is in the file.
int safetensors_open(SafeFile *f, const char *path, Error *e);
void safetensors_close(SafeFile *f);

// NULL if there is none.
const SafeTensor *safetensors_get(const SafeFile *f, const char *name);
const char *safetensors_metadata(const SafeFile *f, const char *key);

#endif
