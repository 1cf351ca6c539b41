// What muon.cu asks of muon_product.cu: a product of every matrix of a list in one launch.
//
// Matrices have rows of padded_width() elements, zeros at the end, so that 16 bytes can be copied
// at a time whatever the shape.
#ifndef KERNELS_CUDA_MUON_CUH
#define KERNELS_CUDA_MUON_CUH

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/elements.cuh"

// Of tensors in a kernel's arguments, which are at most 4 KB.
enum { MUON_LIST = 36 };

template <class T> __host__ __device__ constexpr int padded_width(int columns)
{
    return (columns + 16 / (int)sizeof(T) - 1) / (16 / (int)sizeof(T)) * (16 / (int)sizeof(T));
}

// out (rows,width) = scale * add + factor * the product of a and b. What lies beyond the real
// columns of a, b and add is zero, and so it is in out.
struct MuonProduct {
    const void *a, *b;
    const void *add; // (rows,width), or NULL
    void *out;
    int rows, width; // width: padded
    int terms;       // that are summed; `squares`: padded
    int first_block; // set by muon_products()
};

struct MuonProducts {
    int count;
    MuonProduct entry[MUON_LIST];
};

// squares  a a' of a (rows,terms), b = a; add is symmetric, and so is out, exactly
// else     a b of a (terms,rows), which is symmetric, and b (terms,width)
void muon_products(MuonProducts *list, bool squares, float scale, float factor);

// Called by the check at start: whether they are exact on tensor cores for small integers. If not,
// the plain ones do it from then on.
bool muon_products_check(const Kernels *k);

#endif
