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
// The gradient of a pooled map goes through registers of the group that fetches: 16 bytes of it and
// their argmax become the 16 bytes at one tap, zeros where the maximum was at another place. That
// costs twice the instructions, so more than 128 channels take tiles of 128 windows and 256
// channels, which have half of it to do for as many products.
//
// Floor: 2 windows channels k FLOP over the tensor cores' rate. Predictions: docs/cuda-kernels.md.
#include "kernels/cuda/conv2d.cuh"
#include "kernels/cuda/gemm_tensor.cuh"
#include "kernels/cuda/gemm_wgmma.cuh"

// SPREAD: the windows are of a pooled map's gradient.
template <int M_, int N_, bool SPREAD_> struct WgmmaTile : WgmmaSizes {
    typedef bf16 T;
    static constexpr int M = M_, N = N_;
    static constexpr bool SPREAD = SPREAD_;
    static constexpr int WARPS_M = CONSUMERS / WARP, WARP_M = M / WARPS_M;
    static constexpr int A_BYTES = M * 128, STAGE_BYTES = (M + N) * 128;
    static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES + ALIGN;
    static constexpr int ROWS = M / 64, COLUMNS = N / 4, GROUP = 8;
    static constexpr int ROW_LANES = 4;
    static constexpr int FETCH_REGISTERS = SPREAD ? 88 : 40,
                         MULTIPLY_REGISTERS = SPREAD ? 208 : 232;

    static __device__ __forceinline__ int warp_m()
    {
        return (int)threadIdx.x / WARP;
    }
    static __device__ __forceinline__ int row(int i, bool pool)
    {
        return warp_m() * (pool ? WARP_M / 4 : WARP_M) + (int)threadIdx.x % WARP / 4 + 8 * i;
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
        const uint32_t first = stage + group * (A_BYTES / 2);
#pragma unroll
        for (uint32_t k = 0; k < 128; k += 32) {
            const uint64_t weights = nn_wgmma_rows(stage + A_BYTES + k);
#pragma unroll
            for (uint32_t i = 0; i < ROWS / 2; i++)
                nn_wgmma_bf16(value + 2 * i, nn_wgmma_rows(first + i * 64 * 128 + k), weights);
        }
    }
};

// The window of row `row` of a stage. Of the 64 rows of a product, warp w gets 16 w .. 16 w + 15;
// it shall have 32 windows that follow each other where there are two products.
template <class C> __device__ __forceinline__ int window_of_row(int row, bool by_four)
{
    if constexpr (C::ROWS == 2) return row;
    const int in_order = (row & ~127) | (row >> 4 & 3) << 5 | (row >> 6 & 1) << 4 | (row & 15);
    return by_four ? pooled_row(in_order) : in_order;
}

// Stages of windows (M rows) and weights (N rows), in pieces of 8 channels, 16 bytes. A thread has
// piece `piece` of every 16th row from `row` on. It copies them, from addresses that may lie
// anywhere where they are not valid; where the map is pooled, loads run AHEAD rows before the
// stores.
template <class C> struct WindowLoader {
    static constexpr int OWN_ROWS = C::M / 16, AHEAD = C::SPREAD ? 8 : 1;
    const Windows &s;
    const TapRow *rows; // at the thread's first
    const uint4 *w;     // at the channel of the first row
    int free_channels;  // from there on
    int row, piece;
    Place p;
    Pooled pooled[AHEAD];  // of row i in i % AHEAD
    uint32_t place[AHEAD]; // what its argmax has to be

    __device__ __forceinline__ WindowLoader(const Windows &windows, const TapRow *tap_rows,
                                            const void *weights, int channels, int first_channel)
        : s(windows)
    {
        row = ((int)threadIdx.x - C::CONSUMERS) / 8, piece = (int)threadIdx.x % 8;
        rows = tap_rows + row;
        const int channel = first_channel + channel_of_row(row);
        w = (const uint4 *)weights + (int64_t)channel * s.kernel * s.kernel * pieces();
        free_channels = channels - channel;
        p = {};
        skip_channels(&p, piece * 8, place_width(s), s.kernel);
        look_ahead();
    }

    __device__ __forceinline__ int pieces() const // of a pixel
    {
        return s.c / 8;
    }
    __device__ __forceinline__ int tap() const
    {
        return p.row * s.kernel + p.column;
    }
    __device__ __forceinline__ uint32_t tap_bit() const
    {
        return p.first < s.c ? 1u << tap() : 0;
    }

    __device__ __forceinline__ void copy_windows(uint8_t *to)
    {
        const int first = (p.row * s.w + p.column) * pieces() + (p.channel >> 3);
#pragma unroll
        for (int i = 0; i < OWN_ROWS; i++) {
            const TapRow from = rows[16 * i];
            nn_cp_async_near(to + i * 16 * 128,
                             (const uint4 *)s.map + (from.pixel * pieces() + first),
                             from.taps & tap_bit());
        }
    }

    __device__ __forceinline__ void copy_weights(uint8_t *to)
    {
        const int terms = s.kernel * s.kernel * pieces();
        const int first = tap() * pieces() + (p.channel >> 3);
        const int channels = p.first < s.c ? free_channels : 0;
#pragma unroll
        for (int i = 0; i < C::N / 16; i++)
            nn_cp_async_zfill<16>(to + i * 16 * 128, w + (channel_of_row(16 * i) * terms + first),
                                  channel_of_row(16 * i) < channels);
    }

    // Row i at the current tap. Of a window that begins at an odd row (column), odd taps are in the
    // next row (column) of the pooled map. What is not valid loads the map's first piece.
    __device__ __forceinline__ void load(int i)
    {
        const TapRow from = rows[16 * i];
        const uint32_t place_of_window = from.taps >> 30;
        const uint32_t place_of_tap = (uint32_t)((p.row & 1) << 1 | (p.column & 1));
        const int down = place_of_tap & 2 ? s.w * pieces() : 0;
        const int right = place_of_tap & 1 ? pieces() : 0;
        const int at = (from.pixel + (p.row >> 1) * s.w + (p.column >> 1)) * pieces() +
                       (p.channel >> 3) + (int)(place_of_window >> 1) * down +
                       (int)(place_of_window & 1) * right;
        const bool valid = from.taps & tap_bit();
        pooled[i % AHEAD].values = ((const uint4 *)s.map)[valid ? at : 0];
        pooled[i % AHEAD].argmax = ((const uint2 *)s.argmax)[valid ? at : 0];
        place[i % AHEAD] = valid ? (place_of_window ^ place_of_tap) * 0x01010101u : NO_PLACE;
    }

    __device__ __forceinline__ void spread_windows(uint8_t *to)
    {
#pragma unroll
        for (int i = 0; i < OWN_ROWS; i++) {
            *reinterpret_cast<uint4 *>(to + i * 16 * 128) =
                spread_to(pooled[i % AHEAD], place[i % AHEAD]);
            if (i + AHEAD < OWN_ROWS) load(i + AHEAD);
        }
    }

    __device__ __forceinline__ void fetch(uint8_t *stage)
    {
        uint8_t *const to = stage + row * 128 + (piece ^ row % 8) * 16;
        if constexpr (!C::SPREAD) copy_windows(to);
        copy_weights(to + C::A_BYTES);
        if constexpr (C::SPREAD) spread_windows(to);
        skip_channels(&p, C::K, place_width(s), s.kernel);
    }

    __device__ __forceinline__ void look_ahead()
    {
        if constexpr (C::SPREAD)
#pragma unroll
            for (int i = 0; i < AHEAD; i++) load(i);
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
            rows[thread] = tap_row<C::SPREAD>(
                s, (uint32_t)tile * C::M + (uint32_t)window_of_row<C>(thread, s.by_four), s.count);
        init_barriers(barriers);
        __syncthreads();
        if (thread >= C::CONSUMERS) {
            nn_fewer_registers<C::FETCH_REGISTERS>();
            WindowLoader<C> loader(s, rows, w, o.channels, first_channel);
            fetch_stages<C>(stages, barriers, loader, steps);
        } else {
            nn_more_registers<C::MULTIPLY_REGISTERS>();
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

static int width_of(const Windows &s, int channels)
{
    if (conv_tensor_width) return conv_tensor_width;
    return channels <= MIDDLE ? MIDDLE : channels <= WIDE || !s.argmax ? WIDE : WIDEST;
}

// The widest tile has fewer rows, since it is for windows that take registers on their way.
static int rows_of(int width)
{
    return width == WIDEST ? 128 : 256;
}

int conv_wgmma_rows(const Windows &s, int channels)
{
    return rows_of(width_of(s, channels));
}

// Where the channels of the result fill a tile and the tiles half of the multiprocessors (the check
// at start tries less), the map has no zeros between its values and is below 16 GB, and the taps
// fit into 30 bits.
bool conv_wgmma_takes(const Windows &s, int channels)
{
    const int width = width_of(s, channels);
    const int64_t tiles = tiles_of(s.count, rows_of(width)) * tiles_of(channels, width);
    const bool filled = channels > NARROW && tiles >= cuda_device.processors / 2;
    const int64_t images = s.count / (s.rows.value * s.columns.value) >> 2 * s.by_four;
    const int64_t pieces = images * s.h * s.w * (s.c / 8);
    return cuda_device.wgmma && conv_tensor_ok[s.argmax ? CONV_WGMMA_SPREAD : CONV_WGMMA] &&
           cuda_device.element == BF16 && (conv_tensor_width || filled) && !s.gaps && pieces > 0 &&
           pieces < INT32_MAX / 2 && s.kernel * s.kernel <= 30;
}

void conv_wgmma(const Windows &s, const void *w, const ConvOutput &o)
{
    const int width = width_of(s, o.channels);
    if (width == WIDEST)
        launch<WgmmaTile<128, WIDEST, true>>(s, w, o);
    else if (width == WIDE)
        s.argmax ? launch<WgmmaTile<256, WIDE, true>>(s, w, o)
                 : launch<WgmmaTile<256, WIDE, false>>(s, w, o);
    else
        s.argmax ? launch<WgmmaTile<256, MIDDLE, true>>(s, w, o)
                 : launch<WgmmaTile<256, MIDDLE, false>>(s, w, o);
}
