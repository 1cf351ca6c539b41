// Convolution, NHWC, forward and data gradient: both slide a kernel over a map (conv2d.cuh), and
// differ in the map, the weights' order and what becomes of the results. Two kernels do it:
//
//   tensor cores  conv2d_tensor.cu: 16 bytes of channels at a time, bf16 or tf32
//   plain         here: one value at a time, fp32 multiply-adds; any shape and element type
//
//   The plain kernel's block of 128 threads:
//
//        32 channels                     k, 16 at a time
//       +-----------+                   +----------------+
//       | 8x4 each  |   128 windows  =  | windows (128)  |  *  weights (32 channels) ^T
//       |           |                   |                |
//       +-----------+                   +----------------+
//
// Floor: 2 n oh ow cout kernel^2 cin FLOP over the fp32 rate, or the maps over the bandwidth where
// that is longer (the whitening layer: 12 terms a value). Predicted: 40 to 50% of the fp32 rate,
// since 16 windows are looked up and 3 loads of shared memory are made for 32 multiply-adds. Not
// measured yet.
#include "kernels/cuda/conv2d.cuh"

// ---- plain --------------------------------------------------------------------------------------

template <class Element> struct PlainTile {
    typedef Element T;
    static constexpr int M = 128, N = 32, K = 16; // windows, channels, terms
    static constexpr int ROWS = 8, COLUMNS = 4, GROUP = 4;
    static constexpr int ROW_LANES = 8, WARPS_M = 4;
    static constexpr int THREADS = 128;

    static __device__ __forceinline__ int row(int i, bool pool)
    {
        return (int)threadIdx.x / 8 * (pool ? 2 : 8) + i;
    }
    static __device__ __forceinline__ int column(int j)
    {
        return (int)threadIdx.x % 8 * 4 + j;
    }
    static __device__ __forceinline__ int warp_m()
    {
        return (int)threadIdx.x / WARP;
    }
    static __device__ __forceinline__ void sync()
    {
        __syncthreads();
    }
};

template <class C> struct PlainShared {
    float a[C::K][C::M + 4], b[C::K][C::N + 4]; // + 4: stores of a column go to different banks
    Window windows[C::M];
};

template <class C>
__device__ __forceinline__ void load_windows(PlainShared<C> *shared, const Windows &s, uint32_t k,
                                             uint32_t terms)
{
    const typename C::T *const map = (const typename C::T *)s.map;
    const int at = (int)threadIdx.x % C::K;
    const Tap tap = tap_at(s, k + at);
#pragma unroll 4
    for (int row = (int)threadIdx.x / C::K; row < C::M; row += C::THREADS / C::K) {
        int64_t pixel;
        int place;
        float value = 0;
        if (locate(s, shared->windows[row], tap.row, tap.column, &pixel, &place) &&
            k + at < terms) {
            const int64_t i = pixel * s.c + tap.channel;
            if (!s.argmax || s.argmax[i] == place) value = from_element(map[i]);
        }
        shared->a[at][row] = value;
    }
}

template <class C>
__device__ __forceinline__ void load_weights(PlainShared<C> *shared, const typename C::T *w,
                                             int first_channel, int channels, uint32_t k,
                                             uint32_t terms)
{
    const int at = (int)threadIdx.x % C::K;
    for (int n = (int)threadIdx.x / C::K; n < C::N; n += C::THREADS / C::K) {
        const bool inside = first_channel + n < channels && k + at < terms;
        shared->b[at][n] =
            inside ? from_element(w[(int64_t)(first_channel + n) * terms + k + at]) : 0.0f;
    }
}

// value[i][j] += a[k][row + i] * b[k][column + j] over one step of k.
template <class C>
__device__ __forceinline__ void multiply_add(float (&value)[C::ROWS][C::COLUMNS],
                                             const PlainShared<C> *shared)
{
    const int row = (int)threadIdx.x / 8 * C::ROWS, column = C::column(0);
#pragma unroll
    for (int k = 0; k < C::K; k++) {
        float a[C::ROWS], b[C::COLUMNS];
#pragma unroll
        for (int i = 0; i < C::ROWS; i++) a[i] = shared->a[k][row + i];
#pragma unroll
        for (int j = 0; j < C::COLUMNS; j++) b[j] = shared->b[k][column + j];
#pragma unroll
        for (int i = 0; i < C::ROWS; i++)
#pragma unroll
            for (int j = 0; j < C::COLUMNS; j++) value[i][j] += a[i] * b[j];
    }
}

template <class C>
__global__ void __launch_bounds__(C::THREADS)
    conv_plain_kernel(const Windows s, const void *w, const ConvOutput o)
{
    NN_SHARED(float4, tile_values, [C::M * C::N / 4]); // of finish_tile(), after the product
    static_assert(sizeof(PlainShared<C>) <= sizeof tile_values, "both lie there");
    PlainShared<C> *const shared = reinterpret_cast<PlainShared<C> *>(tile_values);
    const int channel_tiles = (o.channels + C::N - 1) / C::N;
    const int tile = (int)blockIdx.x / channel_tiles;
    const int first_channel = (int)blockIdx.x % channel_tiles * C::N;
    const uint32_t terms = (uint32_t)(s.kernel * s.kernel * s.c);
    const uint32_t window = (uint32_t)tile * C::M + threadIdx.x;
    static_assert(C::M == C::THREADS, "a thread looks up one window");
    shared[0].windows[threadIdx.x] = window < s.count ? window_at(s, window) : no_window();

    float value[C::ROWS][C::COLUMNS] = {};
    for (uint32_t k = 0; k < terms; k += C::K) {
        __syncthreads();
        load_windows<C>(shared, s, k, terms);
        load_weights<C>(shared, (const typename C::T *)w, first_channel, o.channels, k, terms);
        __syncthreads();
        multiply_add<C>(value, shared);
    }
    finish_tile<C>(value, o, tile, first_channel, (float *)tile_values);
}

// ---- weights in the data gradient's order -------------------------------------------------------

// w' (cin,kernel,kernel,cout), both axes of the kernel backwards, from w (cout,kernel,kernel,cin).
template <class T>
__global__ void __launch_bounds__(THREADS)
    flip_weights_kernel(T *flipped, const T *w, int taps, int cin, int cout)
{
    const int64_t i = thread_index();
    if (i >= (int64_t)cin * taps * cout) return;
    const int64_t o = i % cout, tap = i / cout % taps, c = i / cout / taps;
    flipped[i] = w[(o * taps + taps - 1 - tap) * cin + c];
}

// ---- launch -------------------------------------------------------------------------------------

template <class C> static void launch_plain(const Windows &s, const void *w, const ConvOutput &o)
{
    const int64_t blocks = tiles_of(s.count, C::M) * tiles_of(o.channels, C::N);
    assert(blocks <= INT32_MAX);
    nn_launch(conv_plain_kernel<C>, (unsigned)blocks, C::THREADS, 0, cuda_stream, s, w, o);
}

static bool on_tensor_cores(const Windows &s)
{
    return conv_on_tensor_cores(s.argmax ? CONV_TENSOR_SPREAD : CONV_TENSOR_WINDOWS, s.c);
}

// Rows of a tile of the kernel that takes these windows.
static int tile_rows(const Windows &s, int channels)
{
    return on_tensor_cores(s) ? conv_tensor_rows(s, channels) : PlainTile<float>::M;
}

// The product of windows and weights (channels,k), with the kernel for its shape.
static void multiply(const Windows &s, const void *w, const ConvOutput &o)
{
    if (s.count == 0) return;
    if (on_tensor_cores(s))
        conv_tensor(s, w, o);
    else
        BY_ELEMENT(launch_plain<PlainTile<T>>(s, w, o));
}

// ---- operations ---------------------------------------------------------------------------------

void conv_forward(ConvOutput o, float *stats, const void *x, const void *w, ConvDims d)
{
    const Windows s = forward_windows(x, d, o.pool);
    const int64_t tiles = tiles_of(s.count, tile_rows(s, d.cout));
    float *const scratch =
        (float *)cuda_scratch((size_t)(stats ? tiles * 3 * d.cout : 1) * sizeof(float));
    if (!scratch) return;
    o.channels = d.cout;
    o.rows = s.count >> 2 * o.pool;
    o.partial = stats ? scratch : NULL;
    multiply(s, w, o);
    if (stats) cuda_merge_stats(stats, scratch, tiles, d.cout);
}

static void conv2d_forward(void *y, void *z, float *stats, const void *x, const void *w,
                           const float *bias, Activation act, ConvDims d)
{
    ConvOutput o = {};
    o.y = y, o.z = z, o.bias = bias, o.act = act;
    conv_forward(o, stats, x, w, d);
}

static void conv2d_pool_forward(void *y, uint8_t *argmax, float *stats, const void *x,
                                const void *w, const float *bias, Activation act, ConvDims d)
{
    ConvOutput o = {};
    o.y = y, o.pool = true, o.argmax = argmax, o.bias = bias, o.act = act;
    conv_forward(o, stats, x, w, d);
}

static void norm_inference(void *y, const Norm *n, const void *x, const void *w, bool pool,
                           Activation act, ConvDims d)
{
    ConvOutput o = {};
    o.y = y, o.pool = pool, o.normed = true, o.norm = *n, o.act = act;
    conv_forward(o, NULL, x, w, d);
}

static void conv2d_norm_inference(void *y, const Norm *n, const void *x, const void *w,
                                  Activation act, ConvDims d)
{
    norm_inference(y, n, x, w, false, act, d);
}

static void conv2d_pool_norm_inference(void *y, const Norm *n, const void *x, const void *w,
                                       Activation act, ConvDims d)
{
    norm_inference(y, n, x, w, true, act, d);
}

void conv_backward_data(ConvOutput o, const void *dy, const uint8_t *argmax, const void *w,
                        ConvDims d)
{
    const int taps = d.kernel * d.kernel;
    const int64_t n = (int64_t)d.cout * taps * d.cin;
    const Windows s = backward_windows(dy, argmax, d);
    const int64_t tiles = tiles_of(s.count, tile_rows(s, d.cin)), sums = 2 * (int64_t)d.cin;
    const int64_t weights = tiles_of(n, 4) * 4; // keeps alignment
    float *const scratch =
        (float *)cuda_scratch((size_t)(weights + (o.normed ? tiles * sums : 0)) * sizeof(float));
    if (!scratch) return;
    void *const flipped = scratch;
    BY_ELEMENT(nn_launch(flip_weights_kernel<T>, blocks_of(n, 1), THREADS, 0, cuda_stream,
                         (T *)flipped, (const T *)w, taps, d.cin, d.cout));
    o.channels = d.cin;
    o.rows = s.count;
    o.partial = o.normed ? scratch + weights : NULL;
    multiply(s, flipped, o);
    if (o.normed) cuda_sum_parts(o.norm.sums, o.partial, tiles, sums, SET);
}

static void conv2d_backward_data(void *dx, const void *dy, const void *w, ConvDims d)
{
    ConvOutput o = {};
    o.y = dx;
    conv_backward_data(o, dy, NULL, w, d);
}

static void conv2d_pool_backward_data(void *dx, const void *dy, const uint8_t *argmax,
                                      const void *w, ConvDims d)
{
    ConvOutput o = {};
    o.y = dx;
    conv_backward_data(o, dy, argmax, w, d);
}

static void norm_backward_data(void *dz, const Norm *n, const void *dy, const uint8_t *argmax,
                               const void *w, const void *x, Activation act, ConvDims d)
{
    ConvOutput o = {};
    o.y = dz, o.saved = x, o.normed = true, o.norm = *n, o.act = act;
    conv_backward_data(o, dy, argmax, w, d);
}

static void conv2d_norm_backward_data(void *dz, const Norm *n, const void *dy, const void *w,
                                      const void *x, Activation act, ConvDims d)
{
    norm_backward_data(dz, n, dy, NULL, w, x, act, d);
}

static void conv2d_pool_norm_backward_data(void *dz, const Norm *n, const void *dy,
                                           const uint8_t *argmax, const void *w, const void *x,
                                           Activation act, ConvDims d)
{
    norm_backward_data(dz, n, dy, argmax, w, x, act, d);
}

void cuda_conv2d_ops(Kernels *k)
{
    k->conv2d_forward = conv2d_forward;
    k->conv2d_pool_forward = conv2d_pool_forward;
    k->conv2d_backward_data = conv2d_backward_data;
    k->conv2d_pool_backward_data = conv2d_pool_backward_data;
    k->conv2d_norm_backward_data = conv2d_norm_backward_data;
    k->conv2d_pool_norm_backward_data = conv2d_pool_norm_backward_data;
    k->conv2d_norm_inference = conv2d_norm_inference;
    k->conv2d_pool_norm_inference = conv2d_pool_norm_inference;
    cuda_conv2d_weight_ops(k);
}
