// Products of plain matrices with few tiles and many terms each: a block has several slices of
// threads, blockDim (C::THREADS,slices), each of which sums a part of the terms with stages of its
// own; their sums are added in the slices' order through shared memory.
#ifndef KERNELS_CUDA_GEMM_SLICES_CUH
#define KERNELS_CUDA_GEMM_SLICES_CUH

#include "kernels/cuda/gemm_tensor.cuh"

// Brings SIDE rows or, TRANSPOSED, columns of a matrix (lines,width), C::K terms a stage, and zeros
// beyond its ends.
template <class C, int SIDE, bool TRANSPOSED> struct SideLoader {
    typedef typename C::T T;
    static constexpr int PIECES = (TRANSPOSED ? SIDE : C::K) / C::PIECE; // of a line
    static constexpr int LINES = TRANSPOSED ? C::K : SIDE, STEP = C::THREADS / PIECES;
    const T *from;                  // of the thread's first piece of the next stage
    int line, column, lines, width; // its place, which may be beyond the ends

    __device__ __forceinline__ SideLoader(const void *matrix, int lines_, int width_, int first,
                                          int term)
    {
        line = (TRANSPOSED ? term : first) + (int)threadIdx.x / PIECES;
        column = (TRANSPOSED ? first : term) + (int)threadIdx.x % PIECES * C::PIECE;
        lines = lines_;
        width = width_;
        from = (const T *)matrix + (int64_t)line * width + column;
    }

    // whole: lines are multiples of 16 bytes; else they come element by element.
    __device__ __forceinline__ void fetch(uint8_t *stage, bool whole)
    {
        const int piece = (int)threadIdx.x % PIECES;
#pragma unroll
        for (int i = 0; i < LINES; i += STEP) {
            const int in_stage = (int)threadIdx.x / PIECES + i;
            uint8_t *const to = stage + (TRANSPOSED ? piece_of_column<C>(in_stage, piece, SIDE)
                                                    : piece_of_row(in_stage, piece));
            const T *const at = from + (int64_t)i * width;
            const int left = line + i < lines ? width - column : 0;
            if (whole) {
                nn_cp_async_zfill<16>(to, at, left > 0);
            } else {
                Vec16<T> x;
#pragma unroll
                for (int j = 0; j < C::PIECE; j++) x.v[j] = j < left ? at[j] : to_element<T>(0.0f);
                nn_store16((T *)to, x);
            }
        }
        (TRANSPOSED ? line : column) += C::K;
        from += TRANSPOSED ? (int64_t)C::K * width : C::K;
    }
};

// Puts a slice's sums to those of the others: sums (slices,PAIRS,C::THREADS), PAIRS of a thread.
template <class C>
__device__ __forceinline__ void share_sums(float2 *sums, const float (&value)[C::ROWS][C::COLUMNS],
                                           int slice)
{
    constexpr int PAIRS = C::ROWS * C::COLUMNS / 2;
    __syncthreads(); // the stages, which lie there too, have been read
#pragma unroll
    for (int pair = 0; pair < PAIRS; pair++) {
        const int i = pair * 2 / C::COLUMNS, j = pair * 2 % C::COLUMNS;
        sums[(slice * PAIRS + pair) * C::THREADS + (int)threadIdx.x] =
            make_float2(value[i][j], value[i][j + 1]);
    }
    __syncthreads();
}

// The slices' sums of a pair, added in their order.
template <class C, int SLICES>
__device__ __forceinline__ float2 add_slices(const float2 *sums, int pair)
{
    constexpr int PAIRS = C::ROWS * C::COLUMNS / 2;
    float2 sum = sums[pair * C::THREADS + (int)threadIdx.x];
#pragma unroll
    for (int slice = 1; slice < SLICES; slice++) {
        const float2 other = sums[(slice * PAIRS + pair) * C::THREADS + (int)threadIdx.x];
        sum.x += other.x;
        sum.y += other.y;
    }
    return sum;
}

#endif
