// What sm_90a adds for matrix products: barriers in shared memory, products of whole warpgroups
// that read their factors there, and registers that warpgroups hand over. Beside common.cuh the
// only place of inline PTX; bits and layouts are those of the PTX ISA, chapter "Asynchronous
// Warpgroup Level Matrix Multiply-Accumulate Instructions".
#ifndef KERNELS_CUDA_WGMMA_CUH
#define KERNELS_CUDA_WGMMA_CUH

#include "kernels/cuda/common.cuh"

// Whether device code is compiled for sm_90a. Kernels are empty elsewhere, and never launched.
#if defined(NN_EMU) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool NN_SM90A = true;
#else
constexpr bool NN_SM90A = false;
#endif

constexpr int WARPGROUP = 4 * WARP;

// ---- barriers ----------------------------------------------------------------------------------

// `threads` threads, whole warps, wait for each other; id 1 .. 15 (0 is that of __syncthreads()).
__device__ __forceinline__ void nn_barrier(int id, int threads)
{
#ifdef NN_EMU
    emu::named_barrier(id, threads);
#else
    asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
#endif
}

// A barrier in shared memory, which counts `arrivals` and then enters its next phase, from phase 0
// on. One thread sets it up; a __syncthreads() follows.
__device__ __forceinline__ void nn_mbarrier_init(uint64_t *barrier, int arrivals)
{
#ifdef NN_EMU
    emu::mbarrier_init(barrier, arrivals);
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(nn_shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
#endif
}

// What the thread did before is seen by those that wait for this phase.
__device__ __forceinline__ void nn_mbarrier_arrive(uint64_t *barrier)
{
#ifdef NN_EMU
    emu::mbarrier_arrive(barrier);
#else
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(nn_shared_address(barrier))
                 : "memory");
#endif
}

// Until the barrier has left the phase of this parity, the current one or that before.
__device__ __forceinline__ void nn_mbarrier_wait(uint64_t *barrier, uint32_t parity)
{
#ifdef NN_EMU
    emu::mbarrier_wait(barrier, parity);
#else
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}\n" ::"r"(nn_shared_address(barrier)),
                 "r"(parity)
                 : "memory");
#endif
}

// What the thread wrote to shared memory, its copies that it waited for included, can be read by
// wgmma, once those who issue it have synchronized with the thread.
__device__ __forceinline__ void nn_fence_async_proxy()
{
#ifdef NN_EMU
    emu::fence_async_proxy();
#else
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
#endif
}

// ---- bytes -------------------------------------------------------------------------------------

// Of bytes FIRST and FIRST + 1 of x, the first in the low half: 0xffff where the highest bit is
// set.
template <int FIRST> __device__ __forceinline__ uint32_t nn_sign_pairs(uint32_t x)
{
#ifdef NN_EMU
    const uint32_t bytes = x >> 8 * FIRST;
    return ((bytes >> 7 & 1) | (bytes >> 15 & 1) << 16) * 0xffff;
#else
    uint32_t pairs; // 8 + i: the sign of byte i eight times
    asm("prmt.b32 %0, %1, 0, %2;\n" : "=r"(pairs) : "r"(x), "n"(0x9988 + 0x1111 * FIRST));
    return pairs;
#endif
}

// ---- registers ---------------------------------------------------------------------------------

// The registers of each thread of the warpgroup become N (24 .. 256, a multiple of 8): fewer, or
// more, after others have given some away.
template <int N> __device__ __forceinline__ void nn_fewer_registers()
{
#ifndef NN_EMU
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(N));
#endif
}

template <int N> __device__ __forceinline__ void nn_more_registers()
{
#ifndef NN_EMU
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(N));
#endif
}

// ---- products of a warpgroup -------------------------------------------------------------------
// They are asynchronous: registers of d must not be touched, and shared memory not be written
// again, before a wait for their group. A fence precedes the first, and any after d was touched.

__device__ __forceinline__ void nn_wgmma_fence()
{
#ifdef NN_EMU
    emu::wgmma_fence();
#else
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#endif
}

__device__ __forceinline__ void nn_wgmma_commit()
{
#ifdef NN_EMU
    emu::wgmma_commit();
#else
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
#endif
}

// Until all groups but the newest N are done.
template <int N> __device__ __forceinline__ void nn_wgmma_wait()
{
#ifdef NN_EMU
    emu::wgmma_wait(N);
#else
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory");
#endif
}

// A factor in shared memory, in rows of 128 bytes, eight of them 1024 bytes: the 16-byte piece at
// an address a lies where bits 4 to 6 of a are exchanged for those xor bits 7 to 9 ("128-byte
// swizzle"), so the first row is 1024-byte aligned.
__device__ __forceinline__ uint64_t nn_wgmma_descriptor(uint32_t address, uint32_t leading)
{
    const uint64_t start = (address & 0x3ffff) >> 4, eight_rows = 1024 >> 4, swizzle_128 = 1;
    return start | (uint64_t)(leading >> 4) << 16 | eight_rows << 32 | swizzle_128 << 62;
}

// A row has 64 values of k ("K-major"); the next 16 of k begin 32 bytes further.
__device__ __forceinline__ uint64_t nn_wgmma_rows(uint32_t address)
{
    const uint32_t unused = 16; // in this layout
    return nn_wgmma_descriptor(address, unused);
}

// A row is of one k and has 64 values of m (or n), "MN-major": the next 64 of m (or n) begin `next`
// bytes further, the next 16 of k 2048 bytes.
__device__ __forceinline__ uint64_t nn_wgmma_columns(uint32_t address, uint32_t next)
{
    return nn_wgmma_descriptor(address, next);
}

// d += a b^T: 64xN += 64x16 * (Nx16)^T, bf16 with fp32 sums. Of warp w = 0 .. 3 of the warpgroup,
// d[h][2j + i] is in row 16 w + 8 h + lane / 4, column 8 j + lane % 4 * 2 + i.

// Factors of nn_wgmma_rows(); N is 64 or 128.
#define NN_4(d, j) "+f"(d[0][j]), "+f"(d[0][j + 1]), "+f"(d[1][j]), "+f"(d[1][j + 1])
#define NN_16(d, j) NN_4(d, j), NN_4(d, j + 2), NN_4(d, j + 4), NN_4(d, j + 6)
__device__ __forceinline__ void nn_wgmma_bf16(float (*d)[16], uint64_t a, uint64_t b)
{
#ifdef NN_EMU
    emu::wgmma_bf16(d[0], 64, a, b, false);
#else
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, 1, 1, 1, 0, 0;\n"
                 : NN_16(d, 0), NN_16(d, 8)
                 : "l"(a), "l"(b));
#endif
}

__device__ __forceinline__ void nn_wgmma_bf16(float (*d)[32], uint64_t a, uint64_t b)
{
#ifdef NN_EMU
    emu::wgmma_bf16(d[0], 128, a, b, false);
#else
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, 1, 1, 1, 0, 0;\n"
                 : NN_16(d, 0), NN_16(d, 8), NN_16(d, 16), NN_16(d, 24)
                 : "l"(a), "l"(b));
#endif
}

// Factors of nn_wgmma_columns(); N is 192.
__device__ __forceinline__ void nn_wgmma_bf16_columns(float (*d)[48], uint64_t a, uint64_t b)
{
#ifdef NN_EMU
    emu::wgmma_bf16(d[0], 192, a, b, true);
#else
    asm volatile("wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "
                 "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, "
                 "%33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, "
                 "%49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, "
                 "%65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, "
                 "%81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}, "
                 "%96, %97, 1, 1, 1, 1, 1;\n"
                 : NN_16(d, 0), NN_16(d, 8), NN_16(d, 16), NN_16(d, 24), NN_16(d, 32), NN_16(d, 40)
                 : "l"(a), "l"(b));
#endif
}

// N is 256, factors of either.
template <bool COLUMNS>
__device__ __forceinline__ void nn_wgmma_bf16_256(float (*d)[64], uint64_t a, uint64_t b)
{
#ifdef NN_EMU
    emu::wgmma_bf16(d[0], 256, a, b, COLUMNS);
#else
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "
                 "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, "
                 "%33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, "
                 "%49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, "
                 "%65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, "
                 "%81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, "
                 "%97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "
                 "%110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, "
                 "%123, %124, %125, %126, %127}, "
                 "%128, %129, 1, 1, 1, %130, %130;\n"
                 : NN_16(d, 0), NN_16(d, 8), NN_16(d, 16), NN_16(d, 24), NN_16(d, 32), NN_16(d, 40),
                   NN_16(d, 48), NN_16(d, 56)
                 : "l"(a), "l"(b), "n"(COLUMNS ? 1 : 0));
#endif
}

__device__ __forceinline__ void nn_wgmma_bf16(float (*d)[64], uint64_t a, uint64_t b)
{
    nn_wgmma_bf16_256<false>(d, a, b);
}

__device__ __forceinline__ void nn_wgmma_bf16_columns(float (*d)[64], uint64_t a, uint64_t b)
{
    nn_wgmma_bf16_256<true>(d, a, b);
}
#undef NN_16
#undef NN_4

#endif
