// Initial weights, drawn on the host and uploaded, so that every device starts alike. A tensor's
// numbers are keyed by the seed and its name: adding a layer leaves the others as they were.
#ifndef TRAIN_INIT_H
#define TRAIN_INIT_H

#include "data/dataset.h"
#include "train/tensor.h"

// Inputs of one output: elements / shape[0].
int64_t fan_in(const Tensor *t);

// Every parameter as its declaration says.
void init_parameters(const Tensors *t, const Kernels *k, uint64_t seed);

// Divides the tensor by its standard deviation (n - 1 in the denominator, as torch.std).
void init_unit_std(const Tensor *t, const Kernels *k);

// Whitening filters for `weight` (2*size*size*C, size, size, C) from the first `images` training
// images: the eigenvectors of the patches' second moments, largest eigenvalue first, each divided
// by sqrt(eigenvalue + eps), then their negatives. In the place of directions without variance (an
// eigenvalue below eps / 1000) stand copies of the others. The sums are exact integers and an
// eigenvector's largest component is positive, so the filters do not depend on the order of
// anything.
int init_whitening(const Tensor *weight, const Kernels *k, const Dataset *d, int64_t images,
                   double eps, Error *e);

#endif
