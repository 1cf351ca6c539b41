// All that the CUDA files take from CUDA: this is the one header they include for it.
//
// The same files are compiled by nvcc for a GPU and, with NN_EMU defined, by g++ to be executed on
// a CPU under sanitizers (tests/cuda_on_cpu/, docs/cuda.md). So they launch with nn_launch(),
// declare shared memory with the two macros here, and leave inline PTX to the functions here.
#ifndef KERNELS_CUDA_COMMON_CUH
#define KERNELS_CUDA_COMMON_CUH

#define CUDA_NO_HALF // no fp16 here: `half` is a name like any other
#ifdef NN_EMU
#include "tests/cuda_on_cpu/emulate.h"
#else
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#endif
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#define _Noreturn [[noreturn]] // these headers are C
#include "kernels/kernels.h"
#include "base/error.h"
#undef _Noreturn
}

typedef __nv_bfloat16 bf16;

constexpr int WARP = 32;
constexpr unsigned FULL_MASK = 0xffffffffu;

// What the code is compiled for: 750, 800, ... in device code, 0 in host code.
#ifdef NN_EMU
#define NN_ARCH 800
#elif defined(__CUDA_ARCH__)
#define NN_ARCH __CUDA_ARCH__
#else
#define NN_ARCH 0
#endif

// ---- errors (error.cu) -------------------------------------------------------------------------

// What to do about an error code, for a person; "" when there is nothing to add to its name.
const char *cuda_hint(cudaError_t code);

// fail(e, STATUS_DEVICE, "WHAT: error N (name): text; hint").
int cuda_fail(Error *e, cudaError_t code, const char *what);

// The same through die(). Out of memory ends with STATUS_DEVICE as well.
[[noreturn]] void cuda_die(cudaError_t code, const char *expression, const char *file, int line);

inline void cuda_check(cudaError_t code, const char *expression, const char *file, int line)
{
    if (code != cudaSuccess) cuda_die(code, expression, file, line);
}
#define CUDA_CHECK(expression) cuda_check((expression), #expression, __FILE__, __LINE__)

// ---- launch and shared memory ------------------------------------------------------------------

// nn_launch(kernel, grid, block, shared_bytes, stream, arguments...) is kernel<<<...>>>(...) with a
// check. A grid must not be empty. nn_allow_shared() once before it for more than 48 KB of dynamic
// shared memory.
#define nn_launch(...)                                                                             \
    (cuda_launches++, nn_launch_at(__FILE__, __LINE__, __VA_ARGS__),                               \
     cuda_check(cudaGetLastError(), "kernel launch", __FILE__, __LINE__))
extern int64_t cuda_launches; // so far; cuda.cu adds the launches of graphs

template <class Kernel> inline void nn_allow_shared(Kernel *kernel, size_t bytes)
{
    CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
}

#ifndef NN_EMU
template <class... P, class... A>
inline void nn_launch_at(const char *, int, void (*kernel)(P...), dim3 grid, dim3 block,
                         size_t shared_bytes, cudaStream_t stream, A &&...arguments)
{
    static_assert(sizeof...(P) == sizeof...(A), "the kernel takes another number of arguments");
    static_assert((sizeof(P) + ... + 0) <= 4096, "kernel arguments are at most 4 KB");
    kernel<<<grid, block, shared_bytes, stream>>>(static_cast<P>(arguments)...);
}

// NN_SHARED(float, tile, [2][16][68]); declares a shared array of a fixed size.
#define NN_SHARED(T, name, ...) __shared__ T name __VA_ARGS__

// NN_SHARED_DYN(float, tile); names the shared memory given to nn_launch(), 128-byte aligned.
#define NN_SHARED_DYN(T, name)                                                                     \
    extern __shared__ __align__(128) unsigned char nn_dynamic_shared[];                            \
    T *name = reinterpret_cast<T *>(nn_dynamic_shared)
#endif

// ---- 16 bytes at a time ------------------------------------------------------------------------

// 16 bytes as elements: 4 floats, 8 bf16, 16 bytes.
template <class T> struct alignas(16) Vec16 {
    static constexpr int N = 16 / (int)sizeof(T);
    T v[N];
};

// `p` must be 16-byte aligned.
template <class T> __device__ __forceinline__ Vec16<T> nn_load16(const T *p)
{
    const uint4 bits = *reinterpret_cast<const uint4 *>(p);
    Vec16<T> x;
    memcpy(&x, &bits, 16);
    return x;
}

template <class T> __device__ __forceinline__ void nn_store16(T *p, const Vec16<T> &x)
{
    uint4 bits;
    memcpy(&bits, &x, 16);
    *reinterpret_cast<uint4 *>(p) = bits;
}

// ---- warps -------------------------------------------------------------------------------------

// Over all 32 lanes, in a fixed order; every lane gets the result.
template <class T> __device__ __forceinline__ T nn_warp_sum(T x)
{
    for (int offset = WARP / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(FULL_MASK, x, offset);
    return x;
}

template <class T> __device__ __forceinline__ T nn_warp_max(T x)
{
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        const T other = __shfl_xor_sync(FULL_MASK, x, offset);
        x = other > x ? other : x;
    }
    return x;
}

// ---- asynchronous copies to shared memory ------------------------------------------------------
// Copies of a thread since its last commit form a group; wait<N>() returns when all but the newest
// N groups have arrived, for this thread: other threads see them after a __syncthreads(). Before
// sm_80 the copies are done at once.

__device__ __forceinline__ uint32_t nn_shared_address(const void *p)
{
#ifdef NN_EMU
    return emu::shared_address(p);
#else
    return (uint32_t)__cvta_generic_to_shared(p);
#endif
}

// BYTES (4, 8 or 16) from `global` to `shared`, both aligned to BYTES; zeros instead when not
// `valid`: `global` is then not read, and may be any aligned pointer.
template <int BYTES>
__device__ __forceinline__ void nn_cp_async_zfill(void *shared, const void *global, bool valid)
{
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
#ifdef NN_EMU
    emu::cp_async(shared, global, BYTES, valid ? BYTES : 0);
#elif NN_ARCH >= 800
    const int bytes = valid ? BYTES : 0;
    if constexpr (BYTES == 16)
        asm volatile(
            "cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(nn_shared_address(shared)),
            "l"(global), "r"(bytes)
            : "memory");
    else
        asm volatile(
            "cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(nn_shared_address(shared)),
            "l"(global), "n"(BYTES), "r"(bytes)
            : "memory");
#else
    if (valid)
        memcpy(__builtin_assume_aligned(shared, BYTES), __builtin_assume_aligned(global, BYTES),
               BYTES);
    else
        memset(__builtin_assume_aligned(shared, BYTES), 0, BYTES);
#endif
}

// 16 bytes, kept in the first-level cache for others of the block.
__device__ __forceinline__ void nn_cp_async_near(void *shared, const void *global, bool valid)
{
#if !defined(NN_EMU) && NN_ARCH >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;\n" ::"r"(nn_shared_address(shared)),
                 "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
#else
    nn_cp_async_zfill<16>(shared, global, valid);
#endif
}

template <int BYTES> __device__ __forceinline__ void nn_cp_async(void *shared, const void *global)
{
    nn_cp_async_zfill<BYTES>(shared, global, true);
}

__device__ __forceinline__ void nn_cp_async_commit()
{
#ifdef NN_EMU
    emu::cp_async_commit();
#elif NN_ARCH >= 800
    asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

template <int N> __device__ __forceinline__ void nn_cp_async_wait()
{
#ifdef NN_EMU
    emu::cp_async_wait(N);
#elif NN_ARCH >= 800
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
#endif
}

// ---- tensor cores, by whole warps --------------------------------------------------------------
// Fragments, with g = lane / 4 and t = lane % 4 (PTX ISA, "Matrix Fragments for mma"):
//   d          {[g][2t], [g][2t+1], [g+8][2t], [g+8][2t+1]} of 16x8 fp32
//   bf16 a     pairs of columns {[g][2t], [g+8][2t], [g][2t+8], [g+8][2t+8]} of 16x16
//   bf16 b     pairs of rows {[2t][g], [2t+8][g]} of 16x8
//   tf32 a     {[g][t], [g+8][t], [g][t+4], [g+8][t+4]} of 16x8
//   tf32 b     {[t][g], [t+4][g]} of 8x8
// A pair has its first value in the low half.

// Four 8x8 matrices of 2-byte elements from shared memory: lane l gives the address of row l % 8 of
// matrix l / 8, 16-byte aligned; it gets elements [g][2t] and [g][2t+1] of matrix i in r[i].
// Trans: [2t][g] and [2t+1][g].
__device__ __forceinline__ void nn_ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
#ifdef NN_EMU
    emu::ldmatrix_x4(r, row, false);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(nn_shared_address(row))
                 : "memory");
#endif
}

__device__ __forceinline__ void nn_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
#ifdef NN_EMU
    emu::ldmatrix_x4(r, row, true);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(nn_shared_address(row))
                 : "memory");
#endif
}

// d += a b, 16x8 += 16x16 * 16x8, bf16 with fp32 sums. From sm_80 on.
__device__ __forceinline__ void nn_mma_bf16(float (&d)[4], const uint32_t (&a)[4],
                                            const uint32_t (&b)[2])
{
#ifdef NN_EMU
    emu::mma_bf16(d, a, b);
#elif NN_ARCH >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    (void)d, (void)a, (void)b;
    __trap();
#endif
}

// d += a b, 16x8 += 16x8 * 8x8, of values from nn_round_tf32(), with fp32 sums. From sm_80 on.
__device__ __forceinline__ void nn_mma_tf32(float (&d)[4], const uint32_t (&a)[4],
                                            const uint32_t (&b)[2])
{
#ifdef NN_EMU
    emu::mma_tf32(d, a, b);
#elif NN_ARCH >= 800
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    (void)d, (void)a, (void)b;
    __trap();
#endif
}

// The bits of the nearest number with 10 bits of mantissa, ties away from zero.
__device__ __forceinline__ uint32_t nn_round_tf32(float x)
{
#if !defined(NN_EMU) && NN_ARCH >= 800
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(bits) : "f"(x));
    return bits;
#else
    uint32_t bits;
    memcpy(&bits, &x, 4);
    const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
    return finite ? (bits + 0x1000u) & ~0x1fffu : bits;
#endif
}

#endif
