// The one function that libnn_cuda.so gives to kernels/open.c.
#ifndef KERNELS_CUDA_OPEN_H
#define KERNELS_CUDA_OPEN_H

#include "kernels/kernels.h"

// As kernels_open() for the device names "cuda", "cuda:N" and "auto" (the first GPU). Fails with
// STATUS_DEVICE and the fix where there is no usable GPU. `note` gets one line about what was
// switched off for this run, or stays empty. Open once; after close() it may be opened again.
__attribute__((visibility("default"))) int cuda_open(const Kernels **k, const KernelsConfig *c,
                                                     char note[256], Error *e);

#endif
