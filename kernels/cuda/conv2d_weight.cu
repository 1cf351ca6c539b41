// The weight gradient of a convolution:
//   dw (cout,k) = dy (pixels,cout)^T * windows of x (pixels,k)
//
// The pixels, of which there are up to millions, are cut into parts; each part's sum goes to
// scratch memory, and a second kernel adds the parts in their order: the same bits every time.
//
//      k = (tap, channel)          pixels of one part
//     +-----------+               +------------+
//     |  tile     |  cout      =  | dy^T       |  *  windows of x
//     +-----------+               +------------+
//
//   tensor cores  128 or 64 output channels x 128 places k; main loop: gemm_tensor.cuh,
//                 TRANSPOSED; cin and cout a multiple of 16 bytes
//   sm_90a        conv2d_weight_wgmma.cu, on request
//   plain         128 places k x 32 output channels, 8x4 a thread; any shape and element type
//
// Floor: 2 pixels cout k FLOP over the tensor cores' (fp32 units') rate; parts cost
// 8 parts cout k bytes. Predicted: that of conv2d_tensor.cu, less 10% for the parts. Not measured
// yet.
#include "kernels/cuda/conv2d.cuh"
#include "kernels/cuda/gemm_tensor.cuh"

enum { FEWEST_PIXELS = 128, BLOCKS = 4 }; // of a part; a multiprocessor: two waves of two

// ---- tensor cores ------------------------------------------------------------------------------

// Stages of dy (K pixels, M channels) and windows (K pixels, N places of k).
template <class C_> struct PixelLoader {
    typedef C_ C;
    typedef typename C::T T;
    static constexpr int A_PIECES = C::M / C::PIECE, B_PIECES = C::N / C::PIECE; // of a row
    static constexpr int A_STEP = C::THREADS / A_PIECES, B_STEP = C::THREADS / B_PIECES;
    static constexpr int A_ROWS = C::K / A_STEP, B_ROWS = C::K / B_STEP; // of a thread
    const WeightWork *work;
    uint32_t pixel, end; // the stage's first, the part's end
    int channel, place;  // the thread's column of dy; of k
    Tap tap;
    Spread<C> spread[C::SPREAD ? A_ROWS : 1];

    __device__ __forceinline__ PixelLoader(const WeightWork *w, uint32_t first_pixel,
                                           uint32_t end_pixel, int first_channel, int first_place)
    {
        work = w;
        pixel = first_pixel;
        end = end_pixel;
        channel = first_channel + (int)threadIdx.x % A_PIECES * C::PIECE;
        place = first_place + (int)threadIdx.x % B_PIECES * C::PIECE;
        tap = tap_at(work->x, (uint32_t)place);
    }

    __device__ __forceinline__ void fetch(uint8_t *a, uint8_t *b)
    {
        const T *const dy = (const T *)work->dy, *const x = (const T *)work->x.map;
#pragma unroll
        for (int i = 0; i < A_ROWS; i++) {
            const int row = (int)threadIdx.x / A_PIECES + i * A_STEP;
            const uint32_t p = pixel + (uint32_t)row;
            const bool valid = p < end && channel < work->cout;
            if constexpr (C::SPREAD) {
                spread[i].fetch(dy, work->argmax, (int64_t)(p >> 2) * work->cout + channel,
                                (int)(p & 3), valid);
            } else {
                uint8_t *const to = a + piece_of_column<C>(row, (int)threadIdx.x % A_PIECES, C::M);
                nn_cp_async_zfill<16>(to, valid ? dy + (int64_t)p * work->cout + channel : dy,
                                      valid);
            }
        }
#pragma unroll
        for (int i = 0; i < B_ROWS; i++) {
            const int row = (int)threadIdx.x / B_PIECES + i * B_STEP;
            const uint32_t p = pixel + (uint32_t)row;
            const Window window = p < end ? window_at(work->x, p) : no_window();
            int64_t from;
            int unused;
            const bool valid =
                locate(work->x, window, tap.row, tap.column, &from, &unused) && place < work->terms;
            nn_cp_async_zfill<16>(b + piece_of_column<C>(row, (int)threadIdx.x % B_PIECES, C::N),
                                  valid ? x + from * work->x.c + tap.channel : x, valid);
        }
        pixel += C::K;
    }

    __device__ __forceinline__ void put(uint8_t *a)
    {
        if constexpr (C::SPREAD) {
#pragma unroll
            for (int i = 0; i < A_ROWS; i++) {
                const int row = (int)threadIdx.x / A_PIECES + i * A_STEP;
                *reinterpret_cast<uint4 *>(a + piece_of_column<C>(row, (int)threadIdx.x % A_PIECES,
                                                                  C::M)) = spread[i].spread();
            }
        }
    }
};

// grid: (tiles of k, tiles of cout, parts)
template <class C>
__global__ void __launch_bounds__(C::THREADS, 2) weight_tensor_kernel(const WeightWork work)
{
    NN_SHARED_DYN(uint8_t, shared);
    const int first_place = (int)blockIdx.x * C::N, first_channel = (int)blockIdx.y * C::M;
    const uint32_t first = blockIdx.z * work.part, left = work.x.count - first;
    const uint32_t count = left < work.part ? left : work.part;
    float value[C::ROWS][C::COLUMNS] = {};
    PixelLoader<C> loader(&work, first, first + count, first_channel, first_place);
    multiply_tiles(value, loader, shared, (int)((count + C::K - 1) / C::K));

    float *const sums = work.partial + (int64_t)blockIdx.z * work.cout * work.terms;
#pragma unroll
    for (int i = 0; i < C::ROWS; i++) {
        const int channel = first_channel + C::row(i, false);
#pragma unroll
        for (int j = 0; j < C::COLUMNS; j += 2) {
            const int k = first_place + C::pair(j);
            if (channel < work.cout && k < work.terms) // an even number of terms
                *reinterpret_cast<float2 *>(sums + (int64_t)channel * work.terms + k) =
                    make_float2(value[i][j], value[i][j + 1]);
        }
    }
}

// ---- plain -------------------------------------------------------------------------------------

enum { PLAIN_M = 128, PLAIN_N = 32, PLAIN_K = 16, PLAIN_ROWS = 8, PLAIN_COLUMNS = 4 };

struct WeightShared {
    float a[PLAIN_K][PLAIN_M], b[PLAIN_K][PLAIN_N];
    Window windows[PLAIN_K];
};

// Pixels from `pixel` on: values of x at place k of their windows, and dy.
template <class T>
__device__ __forceinline__ void load_pixels(WeightShared *shared, const WeightWork &work,
                                            uint32_t pixel, uint32_t end, int place,
                                            int first_channel)
{
    const T *const x = (const T *)work.x.map, *const dy = (const T *)work.dy;
    const Tap tap = tap_at(work.x, (uint32_t)place);
#pragma unroll 4
    for (int k = 0; k < PLAIN_K; k++) {
        int64_t from;
        int unused;
        const bool valid =
            locate(work.x, shared->windows[k], tap.row, tap.column, &from, &unused) &&
            place < work.terms;
        shared->a[k][threadIdx.x] = valid ? from_element(x[from * work.x.c + tap.channel]) : 0.0f;
    }
    const int column = (int)threadIdx.x % PLAIN_N, channel = first_channel + column;
    for (int k = (int)threadIdx.x / PLAIN_N; k < PLAIN_K; k += PLAIN_M / PLAIN_N) {
        const uint32_t p = pixel + (uint32_t)k;
        float value = 0;
        if (p < end && channel < work.cout) {
            const int64_t at = (int64_t)(work.argmax ? p >> 2 : p) * work.cout + channel;
            if (!work.argmax || work.argmax[at] == (p & 3)) value = from_element(dy[at]);
        }
        shared->b[k][column] = value;
    }
}

// grid: (tiles of k, tiles of cout, parts)
template <class T>
__global__ void __launch_bounds__(PLAIN_M) weight_plain_kernel(const WeightWork work)
{
    NN_SHARED(WeightShared, shared, [1]);
    const int first_place = (int)blockIdx.x * PLAIN_M, first_channel = (int)blockIdx.y * PLAIN_N;
    const uint32_t first = blockIdx.z * work.part, left = work.x.count - first;
    const uint32_t end = first + (left < work.part ? left : work.part);
    const int row = (int)threadIdx.x / 8 * PLAIN_ROWS,
              column = (int)threadIdx.x % 8 * PLAIN_COLUMNS;
    float value[PLAIN_ROWS][PLAIN_COLUMNS] = {};
    for (uint32_t pixel = first; pixel < end; pixel += PLAIN_K) {
        const uint32_t p = pixel + threadIdx.x;
        if (threadIdx.x < PLAIN_K)
            shared[0].windows[threadIdx.x] = p < end ? window_at(work.x, p) : no_window();
        __syncthreads(); // also: the values of the step before have been read
        load_pixels<T>(shared, work, pixel, end, first_place + (int)threadIdx.x, first_channel);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < PLAIN_K; k++)
#pragma unroll
            for (int i = 0; i < PLAIN_ROWS; i++)
#pragma unroll
                for (int j = 0; j < PLAIN_COLUMNS; j++)
                    value[i][j] += shared[0].a[k][row + i] * shared[0].b[k][column + j];
    }
    float *const sums = work.partial + (int64_t)blockIdx.z * work.cout * work.terms;
#pragma unroll
    for (int i = 0; i < PLAIN_ROWS; i++)
#pragma unroll
        for (int j = 0; j < PLAIN_COLUMNS; j++) {
            const int k = first_place + row + i, channel = first_channel + column + j;
            if (k < work.terms && channel < work.cout)
                sums[(int64_t)channel * work.terms + k] = value[i][j];
        }
}

// ---- parts -------------------------------------------------------------------------------------

// dw (n) = or += the parts' sums, in their order.
__global__ void __launch_bounds__(THREADS)
    add_parts_kernel(float *dw, const float *partial, int parts, int64_t n, bool add)
{
    const int64_t i = thread_index();
    if (i >= n) return;
    float sum = partial[i];
    for (int part = 1; part < parts; part++) sum += partial[part * n + i];
    dw[i] = add ? dw[i] + sum : sum;
}

template <class C> static void launch_tensor(const WeightWork &work, dim3 grid)
{
    static bool allowed = false;
    if (!allowed) nn_allow_shared(weight_tensor_kernel<C>, C::SHARED_BYTES);
    allowed = true;
    nn_launch(weight_tensor_kernel<C>, grid, C::THREADS, C::SHARED_BYTES, cuda_stream, work);
}

// Output channels of a tile. A spread fp32 gradient takes too many registers for 128.
static int tile_channels(int cout, bool spread)
{
    const int width = conv_tensor_width ? conv_tensor_width : cout;
    return width > 64 && !(spread && cuda_device.element == F32) ? 128 : 64;
}

template <class T> static void launch_for(const WeightWork &work, dim3 grid)
{
    const bool spread = work.argmax != NULL;
    if (tile_channels(work.cout, spread) == 64) {
        spread ? launch_tensor<TensorTile<T, 64, 128, true, true>>(work, grid)
               : launch_tensor<TensorTile<T, 64, 128, true, false>>(work, grid);
    } else if (!spread) {
        launch_tensor<TensorTile<T, 128, 128, true, false>>(work, grid);
    } else {
        assert(sizeof(T) == sizeof(bf16));
        launch_tensor<TensorTile<bf16, 128, 128, true, true>>(work, grid);
    }
}

// Output channels of a tile of this file's kernels.
static int rows_of(const WeightWork &work, bool tensor)
{
    return tensor ? tile_channels(work.cout, work.argmax != NULL) : PLAIN_N;
}

static int64_t parts_of(const WeightWork &work, bool tensor)
{
    const int64_t tiles = tiles_of(work.terms, 128) * tiles_of(work.cout, rows_of(work, tensor));
    int64_t parts = BLOCKS * cuda_device.processors / tiles;
    if (parts > work.x.count / FEWEST_PIXELS) parts = work.x.count / FEWEST_PIXELS;
    return parts < 1 ? 1 : parts;
}

static void sum_parts(const WeightWork &work, bool tensor, int parts)
{
    const dim3 grid((unsigned)tiles_of(work.terms, 128),
                    (unsigned)tiles_of(work.cout, rows_of(work, tensor)), (unsigned)parts);
    if (tensor)
        BY_ELEMENT(launch_for<T>(work, grid));
    else
        BY_ELEMENT(nn_launch(weight_plain_kernel<T>, grid, PLAIN_M, 0, cuda_stream, work));
}

void conv_backward_weight(float *dw, const void *dy, const uint8_t *argmax, const void *x,
                          GradMode mode, ConvDims d)
{
    const bool tensor = conv_on_tensor_cores(CONV_TENSOR_WEIGHT, d.cin) &&
                        conv_on_tensor_cores(CONV_TENSOR_WEIGHT, d.cout);
    WeightWork work = {};
    work.x = forward_windows(x, d, argmax != NULL);
    work.dy = dy;
    work.argmax = argmax;
    work.cout = d.cout;
    work.terms = d.kernel * d.kernel * d.cin;
    const bool wgmma = tensor && conv_wgmma_weight_takes(work);
    const int64_t n = (int64_t)work.cout * work.terms, pixels = work.x.count;
    int64_t parts = wgmma ? conv_wgmma_weight_parts(work) : parts_of(work, tensor);
    work.part = (uint32_t)(tiles_of(tiles_of(pixels, parts), 64) * 64); // whole steps
    if (work.part > 0) parts = tiles_of(pixels, work.part);             // none of them empty
    work.partial = (float *)cuda_scratch((size_t)(parts * n) * sizeof(float));
    if (!work.partial) return;
    if (wgmma)
        conv_wgmma_weight(work, (int)parts);
    else
        sum_parts(work, tensor, (int)parts);
    nn_launch(add_parts_kernel, blocks_of(n, 1), THREADS, 0, cuda_stream, dw, work.partial,
              (int)parts, n, mode == ADD);
}

static void conv2d_backward_weight(float *dw, const void *dy, const void *x, GradMode mode,
                                   ConvDims d)
{
    conv_backward_weight(dw, dy, NULL, x, mode, d);
}

static void conv2d_pool_backward_weight(float *dw, const void *dy, const uint8_t *argmax,
                                        const void *x, GradMode mode, ConvDims d)
{
    conv_backward_weight(dw, dy, argmax, x, mode, d);
}

void cuda_conv2d_weight_ops(Kernels *k)
{
    k->conv2d_backward_weight = conv2d_backward_weight;
    k->conv2d_pool_backward_weight = conv2d_pool_backward_weight;
}
