// A model as a file: safetensors with PyTorch's names and layouts, so that
// model.load_state_dict(load_file("model.safetensors")) works there.
#ifndef TRAIN_MODEL_FILE_H
#define TRAIN_MODEL_FILE_H

#include "base/safetensors.h"
#include "train/tensor.h"

// Writes every declared parameter, buffer, constant and counter, fp32 masters. Metadata says what
// the network is and how its inputs are prepared; it never holds times, paths or thread counts, so
// that equal runs give equal bytes.
int model_save(const Tensors *t, const Kernels *k, const char *path, const SafeMetadata *metadata,
               size_t metadata_count, Error *e);

// Reads the weights back. Every parameter and buffer must be there with its shape, and nothing
// else but constants and counters: STATUS_DATA lists what is missing, unexpected or different, and
// no weight was touched. model_read() takes an open file; `path` is for its messages.
// model_check() reads no weight: before memory is taken for a network of the size that a file says.
int model_check(const Tensors *t, const char *path, Error *e);
int model_load(const Tensors *t, const Kernels *k, const char *path, Error *e);
int model_read(const Tensors *t, const Kernels *k, const SafeFile *f, const char *path, Error *e);

#endif
