// The main loop of the wgmma kernels (sm_90a): a tile of C (M,N) += A (M,K) B (N,K)^T in bf16 with
// fp32 sums, 64 values of k a stage, 4 stages in shared memory.
//
//   group 2 (128 threads) fetches             groups 0 and 1 (2 x 128 threads) multiply
//
//   wait for free[stage]     <-------------   arrive there once the product of the stage is done,
//   start to copy both factors                that is while the next one runs
//   wait for the copies of 2 stages ago,
//   arrive at filled[stage - 2] ---------->   wait for filled[stage]
//                                             products
//
// A kernel brings
//   C       the sizes of a tile: STAGE_BYTES, a multiple of 1024; multiply(value, stage, group)
//           issues the products of a stage, at an address of shared memory
//   Loader  of a thread: fetch(stage), called for one stage after the other, and look_ahead() to
//           load what the next of them needs, where no fence waits for it
#ifndef KERNELS_CUDA_GEMM_WGMMA_CUH
#define KERNELS_CUDA_GEMM_WGMMA_CUH

#include "kernels/cuda/conv2d.cuh"
#include "kernels/cuda/wgmma.cuh"

// What all tiles have.
struct WgmmaSizes {
    static constexpr int K = 64, STAGES = 4, LATE = 2; // stages that copies may be late
    static constexpr int CONSUMERS = 2 * WARPGROUP, THREADS = CONSUMERS + WARPGROUP;
    static constexpr int ALIGN = 1024 - 128; // bytes more, to align the stages
};

struct Barriers {
    uint64_t filled[WgmmaSizes::STAGES], free[WgmmaSizes::STAGES];
};

// Before a __syncthreads().
__device__ __forceinline__ void init_barriers(Barriers *b)
{
    if (threadIdx.x >= WgmmaSizes::STAGES) return;
    nn_mbarrier_init(&b->filled[threadIdx.x], WARPGROUP / WARP);
    nn_mbarrier_init(&b->free[threadIdx.x], WgmmaSizes::CONSUMERS / WARP);
}

__device__ __forceinline__ uint8_t *align_stages(uint8_t *dynamic)
{
    return dynamic + (-nn_shared_address(dynamic) & 1023);
}

template <class C, class Loader>
__device__ __forceinline__ void fetch_stages(uint8_t *stages, Barriers *b, Loader &loader,
                                             int steps)
{
    for (int step = 0; step < steps + C::LATE; step++) {
        if (step < steps) {
            const int stage = step % C::STAGES;
            nn_mbarrier_wait(&b->free[stage], ~(uint32_t)(step / C::STAGES) & 1);
            loader.fetch(stages + stage * C::STAGE_BYTES);
        }
        nn_cp_async_commit(); // a group for every step, so that waiting counts stages
        if (step >= C::LATE) {
            nn_cp_async_wait<C::LATE>();
            nn_fence_async_proxy();
            __syncwarp();
            if (threadIdx.x % WARP == 0)
                nn_mbarrier_arrive(&b->filled[(step - C::LATE) % C::STAGES]);
        }
        loader.look_ahead();
    }
}

template <class C, class Value>
__device__ __forceinline__ void multiply_stages(Value &value, const uint8_t *stages, Barriers *b,
                                                int steps)
{
    const int group = (int)threadIdx.x / WARPGROUP;
    for (int step = 0; step < steps; step++) {
        const int stage = step % C::STAGES;
        nn_mbarrier_wait(&b->filled[stage], (uint32_t)(step / C::STAGES) & 1);
        nn_wgmma_fence();
        C::multiply(value, nn_shared_address(stages + stage * C::STAGE_BYTES), (uint32_t)group);
        nn_wgmma_commit();
        nn_wgmma_wait<1>();
        if (step > 0 && threadIdx.x % WARP == 0)
            nn_mbarrier_arrive(&b->free[(step - 1) % C::STAGES]);
    }
    nn_wgmma_wait<0>();
}

// ---- windows -----------------------------------------------------------------------------------

// A window: where its tap (0,0) is, in pixels of the map, and which taps, row by row, have a value.
// Of a pooled map the pixel that holds tap (0,0), and in the two highest bits of `taps` its place
// there.
struct TapRow {
    int pixel;
    uint32_t taps;
};

// Of the taps from .. from + kernel - 1, in pixels of a row or column of a map, those inside of it:
// a bit each.
__device__ __forceinline__ uint32_t inside(int from, int size, int kernel)
{
    const int before = from < 0 ? -from : 0, left = size - from;
    if (left <= 0 || before >= kernel) return 0;
    return ((1u << (left < kernel ? left : kernel)) - 1) >> before << before;
}

// Of window `index`, or one without values from `end` on. The map has no zeros between its values,
// and the taps fit into 30 bits.
template <bool POOLED>
__device__ __forceinline__ TapRow tap_row(const Windows &s, uint32_t index, uint32_t end)
{
    TapRow row = {0, 0};
    if (index >= end) return row;
    const Window window = window_at(s, index);
    const int left = (int)(int16_t)(window.corner & 0xffff), top = (window.corner - left) >> 16;
    const uint32_t rows = inside(top, s.h << POOLED, s.kernel),
                   columns = inside(left, s.w << POOLED, s.kernel);
    row.pixel = window.image + (top >> POOLED) * s.w + (left >> POOLED);
    if constexpr (POOLED) row.taps = (uint32_t)((top & 1) << 1 | (left & 1)) << 30;
#pragma unroll
    for (int y = 0; y < 5; y++)
        if (rows >> y & 1) row.taps |= columns << y * s.kernel;
    return row;
}

// Eight values of a pooled map's gradient.
struct Pooled {
    uint4 values;
    uint2 argmax; // bytes, 0 .. 3
};

constexpr uint32_t NO_PLACE = 0x40404040; // is no argmax

// Those whose argmax is the place, the others 0. place: in each of four bytes.
__device__ __forceinline__ uint4 spread_to(const Pooled &p, uint32_t place)
{
    // bytes whose highest bit is set where they differ
    const uint32_t x = (p.argmax.x ^ place) + 0x7f7f7f7fu, y = (p.argmax.y ^ place) + 0x7f7f7f7fu;
    return make_uint4(p.values.x & ~nn_sign_pairs<0>(x), p.values.y & ~nn_sign_pairs<2>(x),
                      p.values.z & ~nn_sign_pairs<0>(y), p.values.w & ~nn_sign_pairs<2>(y));
}

// A place in a window, in an order in which all taps of 64 channels come before the next 64: they
// read nearly the same pixels, which then stay in the first-level cache.
struct Place {
    int channel, first; // of the channels first .. first + width - 1; first >= c: beyond the last
    int row, column;    // of the kernel
};

__device__ __forceinline__ int place_width(const Windows &s)
{
    return s.c % 64 == 0 ? 64 : s.c;
}

__device__ __forceinline__ void skip_channels(Place *p, int channels, int width, int kernel)
{
    p->channel += channels;
    while (p->channel >= p->first + width) {
        p->channel -= width;
        if (++p->column < kernel) continue;
        p->column = 0;
        if (++p->row < kernel) continue;
        p->row = 0;
        p->channel += width;
        p->first += width;
    }
}

#endif
