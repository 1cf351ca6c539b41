// Convolution on tensor cores, forward and data gradient: an implicit GEMM whose main loop is
// gemm_tensor.cuh; what becomes of the results is finish_tile() of conv2d.cuh.
//
//     N channels             k = (tap, channel), 64 bytes of it a stage
//    +----------+           +------------------+
//    | warps of |   M    =  | windows (M)      |  *  weights (N) ^T
//    |  64x64   | windows   |                  |
//    +----------+           +------------------+
//   M x N is 128x128, 256x64 (128x64 for a spread gradient) or 128x32: width_of().
//   A thread looks up the windows of its rows (32 apart) once; each stage it copies 16 bytes of
//   channels of one tap of each: cp.async with zeros in the padding, so the channels must be a
//   multiple of 16 bytes.
//
// Floor: 2 windows channels k FLOP over the tensor cores' rate. Predicted on sm_90, where mma.sync
// reaches about 62% of wgmma's rate: 40 to 50% of the latter at 256 channels, where shared memory
// and L2 (64 FLOP a byte) take as long as the products; 30 to 40% at 64 channels. On sm_80 55 to
// 65% of its rate. tf32: half of these rates. Not measured yet.
#include "kernels/cuda/conv2d.cuh"
#include "kernels/cuda/gemm_tensor.cuh"

// Stages of windows and weights.
template <class C_> struct WindowLoader {
    typedef C_ C;
    typedef typename C::T T;
    static constexpr int A_ROWS = C::M / 32, B_ROWS = C::N / 32; // of a thread
    const Windows *s;
    const T *w; // at the thread's first row and current k
    Window window[A_ROWS];
    int free_channels; // rows of B from the thread's first on that exist
    int k, terms;
    Tap tap;
    int to; // where the thread's first piece lies in a stage
    Spread<C> spread[C::SPREAD ? A_ROWS : 1];

    __device__ __forceinline__ WindowLoader(const Windows *windows, const T *weights, int channels,
                                            int tile, int first_channel)
    {
        const int row = (int)threadIdx.x / 4, piece = (int)threadIdx.x % 4,
                  channel = first_channel + channel_of_row(row);
        s = windows;
        terms = s->kernel * s->kernel * s->c;
        k = piece * C::PIECE;
        tap = tap_at(*s, (uint32_t)k);
        to = piece_of_row(row, piece);
        free_channels = channels - channel;
        w = weights + (int64_t)channel * terms + k;
#pragma unroll
        for (int i = 0; i < A_ROWS; i++) {
            const int in_tile = row + 32 * i;
            const uint32_t index =
                (uint32_t)tile * C::M + (uint32_t)(s->by_four ? pooled_row(in_tile) : in_tile);
            window[i] = index < s->count ? window_at(*s, index) : no_window();
        }
    }

    __device__ __forceinline__ void advance()
    {
        k += C::K;
        w += C::K;
        tap.channel += C::K;
        while (tap.channel >= s->c) {
            tap.channel -= s->c;
            if (++tap.column == s->kernel) {
                tap.column = 0;
                tap.row++;
            }
        }
    }

    __device__ __forceinline__ void fetch(uint8_t *a, uint8_t *b)
    {
        const T *const map = (const T *)s->map;
        const bool inside = k < terms;
#pragma unroll
        for (int i = 0; i < A_ROWS; i++) {
            int64_t pixel;
            int place;
            const bool valid = locate(*s, window[i], tap.row, tap.column, &pixel, &place) && inside;
            const int64_t at = pixel * s->c + tap.channel;
            if constexpr (C::SPREAD)
                spread[i].fetch(map, s->argmax, at, place, valid);
            else
                nn_cp_async_zfill<16>(a + to + i * 32 * 64, valid ? map + at : map, valid);
        }
#pragma unroll
        for (int i = 0; i < B_ROWS; i++) {
            const bool valid = inside && i * 32 < free_channels;
            nn_cp_async_zfill<16>(b + to + i * 32 * 64,
                                  valid ? w + (int64_t)(i * 32) * terms : (const T *)s->map, valid);
        }
        advance();
    }

    __device__ __forceinline__ void put(uint8_t *a)
    {
        if constexpr (C::SPREAD) {
#pragma unroll
            for (int i = 0; i < A_ROWS; i++)
                *reinterpret_cast<uint4 *>(a + to + i * 32 * 64) = spread[i].spread();
        }
    }
};

template <class C>
__global__ void __launch_bounds__(C::THREADS, C::BLOCKS)
    conv_tensor_kernel(const Windows s, const void *w, const ConvOutput o)
{
    NN_SHARED_DYN(uint8_t, shared);
    const int channel_tiles = (o.channels + C::N - 1) / C::N;
    const int tile = (int)blockIdx.x / channel_tiles;
    const int first_channel = (int)blockIdx.x % channel_tiles * C::N;
    float value[C::ROWS][C::COLUMNS] = {};
    WindowLoader<C> loader(&s, (const typename C::T *)w, o.channels, tile, first_channel);
    multiply_tiles(value, loader, shared, (loader.terms + C::K - 1) / C::K);
    finish_tile<C>(value, o, tile, first_channel, (float *)shared);
}

template <class C> static void launch(const Windows &s, const void *w, const ConvOutput &o)
{
    static bool allowed = false;
    if (!allowed) nn_allow_shared(conv_tensor_kernel<C>, C::SHARED_BYTES);
    allowed = true;
    const int64_t blocks = tiles_of(s.count, C::M) * tiles_of(o.channels, C::N);
    assert(blocks <= INT32_MAX);
    nn_launch(conv_tensor_kernel<C>, (unsigned)blocks, C::THREADS, C::SHARED_BYTES, cuda_stream, s,
              w, o);
}

// A spread gradient has fewer rows, since it takes registers on its way.
static int rows_of(const Windows &s, int width)
{
    return width == MIDDLE && !s.argmax ? 256 : 128;
}

// The widest tile that the channels fill, or a narrower one where there would be fewer tiles than
// multiprocessors.
static int width_of(const Windows &s, int channels)
{
    if (conv_tensor_width) return conv_tensor_width;
    int width = channels > MIDDLE ? WIDE : channels > NARROW ? MIDDLE : NARROW;
    while (width > NARROW && tiles_of(s.count, rows_of(s, width)) * tiles_of(channels, width) <
                                 cuda_device.processors)
        width /= 2;
    return width;
}

int conv_tensor_rows(const Windows &s, int channels)
{
    if (conv_wgmma_takes(s, channels)) return conv_wgmma_rows(s, channels);
    return rows_of(s, width_of(s, channels));
}

template <class T> static void launch_for(const Windows &s, const void *w, const ConvOutput &o)
{
    const int width = width_of(s, o.channels);
    if (width == WIDE)
        s.argmax ? launch<TensorTile<T, 128, WIDE, false, true>>(s, w, o)
                 : launch<TensorTile<T, 128, WIDE, false, false>>(s, w, o);
    else if (width == MIDDLE)
        s.argmax ? launch<TensorTile<T, 128, MIDDLE, false, true>>(s, w, o)
                 : launch<TensorTile<T, 256, MIDDLE, false, false>>(s, w, o);
    else
        s.argmax ? launch<TensorTile<T, 128, NARROW, false, true>>(s, w, o)
                 : launch<TensorTile<T, 128, NARROW, false, false>>(s, w, o);
}

void conv_tensor(const Windows &s, const void *w, const ConvOutput &o)
{
    if (conv_wgmma_takes(s, o.channels))
        conv_wgmma(s, w, o);
    else
        BY_ELEMENT(launch_for<T>(s, w, o));
}
