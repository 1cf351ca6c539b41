// Convolution on the tensor cores of sm_90a, forward and data gradient in bf16: the implicit GEMM
// of conv2d_tensor.cu with wgmma, and with warps that only fetch (gemm_wgmma.cuh). What becomes of
// the results is finish_tile() of conv2d.cuh. No GPU has run it yet: NN_WGMMA=1 in the environment
// turns it on.
//
//     N channels           k, 64 values a stage (128 bytes a row), 4 stages
//    +----------+         +-----+-----+-----+-----+
//    | group 0  |  256    |     |     |     |     |
//    |----------| windows |     |     |     |     |  *  weights (N) ^T, N is 128 or 64
//    | group 1  |         |     |     |     |     |
//    +----------+         +-----+-----+-----+-----+
//
// k goes through the taps for 64 channels before the next 64: the nine taps of a 3x3 kernel read
// the same 256 windows' pixels, 32 KB and a border, which then stay in the first-level cache.
//
// Floor: 2 windows channels k FLOP over the tensor cores' rate. Predictions: docs/cuda-kernels.md.
#include "kernels/cuda/conv2d.cuh"
#include "kernels/cuda/gemm_tensor.cuh"
#include "kernels/cuda/gemm_wgmma.cuh"

template <int N_> struct WgmmaTile : WgmmaSizes {
    typedef bf16 T;
    static constexpr int M = 256, N = N_;
    static constexpr int WARPS_M = M / 32; // a warp has 32 windows
    static constexpr int A_BYTES = M * 128, STAGE_BYTES = (M + N) * 128;
    static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES + ALIGN;
    static constexpr int ROWS = 4, COLUMNS = N / 4, GROUP = 8;
    static constexpr int ROW_LANES = 4;

    static __device__ __forceinline__ int warp_m()
    {
        return (int)threadIdx.x / WARP;
    }
    static __device__ __forceinline__ int row(int i, bool pool)
    {
        return warp_m() * (pool ? 8 : 32) + (int)threadIdx.x % WARP / 4 + 8 * i;
    }
    static __device__ __forceinline__ int column(int j)
    {
        return j / 8 * 32 + (int)threadIdx.x % 4 * 8 + j % 8;
    }
    static __device__ __forceinline__ void sync() // of those that multiply
    {
        nn_barrier(1, CONSUMERS);
    }
    static __device__ __forceinline__ void multiply(float (&value)[ROWS][COLUMNS], uint32_t stage,
                                                    uint32_t group)
    {
        const uint32_t first = stage + group * 128 * 128;
#pragma unroll
        for (uint32_t k = 0; k < 128; k += 32) {
            const uint64_t weights = nn_wgmma_rows(stage + A_BYTES + k);
            nn_wgmma_bf16(value, nn_wgmma_rows(first + k), weights);
            nn_wgmma_bf16(value + 2, nn_wgmma_rows(first + 64 * 128 + k), weights);
        }
    }
};

// The window of row `row` of a stage. Of the 64 rows of a product, warp w gets 16 w .. 16 w + 15;
// it shall have 32 windows that follow each other.
__device__ __forceinline__ int window_of_row(int row, bool by_four)
{
    const int in_order = (row & ~127) | (row >> 4 & 3) << 5 | (row >> 6 & 1) << 4 | (row & 15);
    return by_four ? pooled_row(in_order) : in_order;
}

// Stages of windows (M rows) and weights (N rows). A thread copies piece `piece` of every 16th row
// from `row` on.
template <class C> struct WindowLoader {
    const Windows &s;
    const TapRow *rows;
    const bf16 *w;     // at the channel of the first row
    int free_channels; // from there on
    int row, piece;
    Place p;

    __device__ __forceinline__ WindowLoader(const Windows &windows, const TapRow *tap_rows,
                                            const void *weights, int channels, int first_channel)
        : s(windows), rows(tap_rows)
    {
        row = ((int)threadIdx.x - C::CONSUMERS) / 8, piece = (int)threadIdx.x % 8;
        const int channel = first_channel + channel_of_row(row);
        w = (const bf16 *)weights + (int64_t)channel * s.kernel * s.kernel * s.c;
        free_channels = channels - channel;
        p = {};
        skip_channels(&p, piece * 8, place_width(s), s.kernel);
    }

    __device__ __forceinline__ void fetch(uint8_t *stage)
    {
        const bf16 *const map = (const bf16 *)s.map;
        const bool inside = p.first < s.c;
        const int tap = p.row * s.kernel + p.column, pixel = p.row * s.w + p.column;
        uint8_t *const to = stage + row * 128 + (piece ^ row % 8) * 16;
#pragma unroll
        for (int i = 0; i < C::M / 16; i++) {
            const TapRow from = rows[row + 16 * i];
            const bool valid = inside && (from.taps >> tap & 1);
            const int64_t at = (int64_t)(from.pixel + pixel) * s.c + p.channel;
            nn_cp_async_near(to + i * 16 * 128, valid ? map + at : map, valid);
        }
#pragma unroll
        for (int i = 0; i < C::N / 16; i++) {
            const bool valid = inside && channel_of_row(16 * i) < free_channels;
            const int64_t at =
                (int64_t)(channel_of_row(16 * i) * s.kernel * s.kernel + tap) * s.c + p.channel;
            nn_cp_async_zfill<16>(to + C::A_BYTES + i * 16 * 128, valid ? w + at : map, valid);
        }
        skip_channels(&p, C::K, place_width(s), s.kernel);
    }

    __device__ __forceinline__ void look_ahead()
    {
    }
};

template <class C>
__global__ void __launch_bounds__(C::THREADS, 1)
    conv_wgmma_kernel(const Windows s, const void *w, const ConvOutput o)
{
    if constexpr (NN_SM90A) {
        NN_SHARED_DYN(uint8_t, dynamic);
        NN_SHARED(TapRow, rows, [C::M]);
        NN_SHARED(Barriers, barriers, [1]);
        uint8_t *const stages = align_stages(dynamic);
        const int channel_tiles = (o.channels + C::N - 1) / C::N;
        const int tile = (int)blockIdx.x / channel_tiles;
        const int first_channel = (int)blockIdx.x % channel_tiles * C::N;
        const int thread = (int)threadIdx.x, steps = (s.kernel * s.kernel * s.c + 63) / 64;
        if (thread < C::M)
            rows[thread] = tap_row(
                s, (uint32_t)tile * C::M + (uint32_t)window_of_row(thread, s.by_four), s.count);
        init_barriers(barriers);
        __syncthreads();
        if (thread >= C::CONSUMERS) {
            nn_fewer_registers<40>();
            WindowLoader<C> loader(s, rows, w, o.channels, first_channel);
            fetch_stages<C>(stages, barriers, loader, steps);
        } else {
            nn_more_registers<232>();
            float value[C::ROWS][C::COLUMNS] = {};
            multiply_stages<C>(value, stages, barriers, steps);
            finish_tile<C>(value, o, tile, first_channel, (float *)stages);
        }
    }
}

// ---- launch ------------------------------------------------------------------------------------

template <class C> static void launch(const Windows &s, const void *w, const ConvOutput &o)
{
    static bool allowed = false;
    if (!allowed) nn_allow_shared(conv_wgmma_kernel<C>, C::SHARED_BYTES);
    allowed = true;
    const int64_t blocks = tiles_of(s.count, C::M) * tiles_of(o.channels, C::N);
    assert(blocks <= INT32_MAX);
    nn_launch(conv_wgmma_kernel<C>, (unsigned)blocks, C::THREADS, C::SHARED_BYTES, cuda_stream, s,
              w, o);
}

static int width_of(int channels)
{
    if (conv_tensor_width) return conv_tensor_width;
    return channels > MIDDLE ? WIDE : MIDDLE;
}

int conv_wgmma_rows()
{
    return WgmmaTile<WIDE>::M;
}

// Where the channels of the result fill a tile and the tiles half of the multiprocessors (the check
// at start tries less), the map has no zeros between its values, and the taps fit into 32 bits.
bool conv_wgmma_takes(const Windows &s, int channels)
{
    const int64_t tiles =
        tiles_of(s.count, conv_wgmma_rows()) * tiles_of(channels, width_of(channels));
    const bool filled = channels > NARROW && tiles >= cuda_device.processors / 2;
    return cuda_device.wgmma && conv_tensor_ok[CONV_WGMMA] && cuda_device.element == BF16 &&
           (conv_tensor_width || filled) && !s.argmax && !s.gaps && s.kernel * s.kernel <= 32;
}

void conv_wgmma(const Windows &s, const void *w, const ConvOutput &o)
{
    if (width_of(o.channels) == WIDE)
        launch<WgmmaTile<WIDE>>(s, w, o);
    else
        launch<WgmmaTile<MIDDLE>>(s, w, o);
}
