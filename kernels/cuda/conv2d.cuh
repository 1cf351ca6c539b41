// What the convolution kernels share. All of them are matrix products with a row for each window
// of a map (an im2col matrix that is never stored):
//
//   forward   y  (pixels,cout) = windows of x  (pixels,k)  *  w  (cout,k)^T    k = (tap, cin)
//   data      dx (pixels,cin)  = windows of dy (pixels,k)  *  w' (cin,k)^T     k = (tap, cout)
//   weight    dw (cout,k)      = dy (pixels,cout)^T        *  windows of x (pixels,k)
//
// The data gradient slides the flipped kernel over dy, with rows of zeros between those of dy where
// the stride was 2, and dy put back at the maxima where the map was pooled. Linear layers that
// cuBLASLt does not take are convolutions of 1x1 maps with a 1x1 kernel.
#ifndef KERNELS_CUDA_CONV2D_CUH
#define KERNELS_CUDA_CONV2D_CUH

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/stats.cuh"

static inline int64_t tiles_of(int64_t n, int64_t size)
{
    return (n + size - 1) / size;
}

// ---- windows -----------------------------------------------------------------------------------

// n / value for n < 2^31 by a multiplication: n * multiplier / 2^shift. multiplier * value exceeds
// 2^shift by less than value <= 2^(shift-31), too little to matter for such n (Granlund and
// Montgomery 1994, theorem 4.2).
struct Divisor {
    uint32_t value, multiplier;
    int shift;
};

static inline Divisor make_divisor(int value)
{
    int log2 = 0;
    while ((int64_t)1 << log2 < value) log2++;
    const uint64_t power = (uint64_t)1 << (31 + log2);
    const uint64_t multiplier = (power + (uint64_t)value - 1) / (uint64_t)value;
    return Divisor{(uint32_t)value, (uint32_t)multiplier, 31 + log2};
}

__device__ __forceinline__ uint32_t divide(uint32_t n, const Divisor &d)
{
    return (uint32_t)(((uint64_t)n * d.multiplier) >> d.shift);
}

// The windows of a map, in the order of the outputs. With by_four, the four outputs that a 2x2
// pooling window reads follow each other: 4 * (pooled output) + 2 * row + column.
struct Windows {
    const void *map;       // (n,h,w,c)
    const uint8_t *argmax; // NULL, or that of the 2x2 pooling whose output `map` is: the windows
                           // then lie in the map before it, which is 0 but at the maxima
    int h, w, c;
    int kernel, stride;
    int before; // rows of zeros above the map, columns of zeros on its left
    int gaps;   // rows and columns of zeros after each of the map's: 0 or 1
    bool by_four;
    uint32_t count;                        // of windows
    Divisor rows, columns, channels, taps; // outputs (of the pooling, by_four); c; kernel
};

// One window: the first pixel of its image, and its corner relative to it.
struct Window {
    int image;  // in pixels of the map
    int corner; // y * 65536 + x, either may be negative
};

__device__ __forceinline__ Window window_at(const Windows &s, uint32_t index)
{
    const uint32_t place = s.by_four ? index & 3 : 0, at = s.by_four ? index >> 2 : index;
    const uint32_t row = divide(at, s.columns), image = divide(row, s.rows);
    uint32_t y = row - image * s.rows.value, x = at - row * s.columns.value;
    if (s.by_four) {
        y = 2 * y + place / 2;
        x = 2 * x + place % 2;
    }
    const int top = (int)y * s.stride - s.before, left = (int)x * s.stride - s.before;
    return Window{(int)image * s.h * s.w, top * 65536 + left};
}

// A window that is nowhere: all its values are 0.
__device__ __forceinline__ Window no_window()
{
    return Window{0, -16384 * 65536 - 16384};
}

// Place k of a window.
struct Tap {
    int row, column, channel;
};

__device__ __forceinline__ Tap tap_at(const Windows &s, uint32_t k)
{
    const uint32_t tap = divide(k, s.channels), row = divide(tap, s.taps);
    return Tap{(int)row, (int)(tap - row * s.taps.value), (int)(k - tap * s.channels.value)};
}

// Whether the window has a value there; then `pixel` of the map, and which place of a pooling
// window the maximum must have had (with argmax).
__device__ __forceinline__ bool locate(const Windows &s, Window window, int tap_row, int tap_column,
                                       int64_t *pixel, int *place)
{
    const int left = (int)(int16_t)(window.corner & 0xffff);
    const int y = ((window.corner - left) >> 16) + tap_row, x = left + tap_column;
    const int shift = s.gaps + (s.argmax != NULL);
    *pixel = window.image + (y >> shift) * s.w + (x >> shift);
    *place = (y >> s.gaps & 1) * 2 + (x >> s.gaps & 1);
    return (unsigned)y < (unsigned)(s.h << shift) && (unsigned)x < (unsigned)(s.w << shift) &&
           ((y | x) & s.gaps) == 0;
}

// The windows of a forward pass over x, for the outputs of a convolution or of its pooling.
static inline Windows forward_windows(const void *x, ConvDims d, bool pool)
{
    const int rows = conv_out(d.h, d.kernel, d.stride, d.pad) >> pool,
              columns = conv_out(d.w, d.kernel, d.stride, d.pad) >> pool;
    const int64_t count = d.n * rows * columns << 2 * pool;
    assert(count < INT32_MAX && d.n * d.h * d.w < INT32_MAX && d.h < 16384 && d.w < 16384);
    Windows s = {};
    s.map = x;
    s.h = d.h, s.w = d.w, s.c = d.cin;
    s.kernel = d.kernel, s.stride = d.stride, s.before = d.pad;
    s.by_four = pool;
    s.count = (uint32_t)count;
    s.rows = make_divisor(rows > 0 ? rows : 1);
    s.columns = make_divisor(columns > 0 ? columns : 1);
    s.channels = make_divisor(d.cin);
    s.taps = make_divisor(d.kernel);
    return s;
}

// Those of the data gradient over dy, which is the pooled map's where there is an argmax.
static inline Windows backward_windows(const void *dy, const uint8_t *argmax, ConvDims d)
{
    const int pool = argmax != NULL;
    assert(d.n * d.h * d.w < INT32_MAX && d.h < 8192 && d.w < 8192);
    Windows s = {};
    s.map = dy;
    s.argmax = argmax;
    s.h = conv_out(d.h, d.kernel, d.stride, d.pad) >> pool;
    s.w = conv_out(d.w, d.kernel, d.stride, d.pad) >> pool;
    s.c = d.cout;
    s.kernel = d.kernel, s.stride = 1, s.before = d.kernel - 1 - d.pad;
    s.gaps = d.stride - 1;
    s.count = (uint32_t)(d.n * d.h * d.w);
    s.rows = make_divisor(d.h);
    s.columns = make_divisor(d.w);
    s.channels = make_divisor(d.cout);
    s.taps = make_divisor(d.kernel);
    return s;
}

// ---- results -----------------------------------------------------------------------------------

// What becomes of a product (rows,channels): (max over pooling windows) + bias, statistics, z, y.
struct ConvOutput {
    void *y, *z;       // y = act(z); z NULL: not stored
    uint8_t *argmax;   // NULL: not pooled
    float *partial;    // NULL or (tiles,3,channels): count, mean, M2 of each tile of rows
    const float *bias; // (channels) or NULL
    const void *saved; // NULL, or y = z * act'(saved)
    Activation act;
    bool y_is_float; // y is fp32 whatever the element type
    int channels;
    uint32_t rows; // of y
};

// The first `count` of C::GROUP neighbouring values; `whole`: all, and `to` is aligned.
template <class C, class T>
__device__ __forceinline__ void store_group(T *to, const float *value, int count, bool whole)
{
    constexpr int BYTES = C::GROUP * (int)sizeof(T);
    T converted[C::GROUP];
#pragma unroll
    for (int j = 0; j < C::GROUP; j++) converted[j] = to_element<T>(value[j]);
    if (!whole) {
#pragma unroll
        for (int j = 0; j < C::GROUP; j++)
            if (j < count) to[j] = converted[j];
    } else if constexpr (BYTES == 8) {
        uint2 bits;
        memcpy(&bits, converted, 8);
        *reinterpret_cast<uint2 *>(to) = bits;
    } else {
#pragma unroll
        for (int j = 0; j < C::GROUP; j += Vec16<T>::N) {
            Vec16<T> part;
            memcpy(&part, converted + j, 16);
            nn_store16(to + j, part);
        }
    }
}

// Four outputs become their maximum, the first of equals; value[i] those of window i.
template <class C>
__device__ __forceinline__ void pool_values(float (&value)[C::ROWS][C::COLUMNS],
                                            const ConvOutput &o, uint32_t first_row,
                                            int first_channel)
{
    const bool whole = o.channels % C::GROUP == 0;
#pragma unroll
    for (int i = 0; i < C::ROWS / 4; i++) {
        const uint32_t row = first_row + (uint32_t)C::row(i, true);
#pragma unroll
        for (int group = 0; group < C::COLUMNS; group += C::GROUP) {
            uint8_t place[C::GROUP];
#pragma unroll
            for (int j = 0; j < C::GROUP; j++) {
                float best = value[4 * i][group + j];
                place[j] = 0;
#pragma unroll
                for (int p = 1; p < 4; p++) {
                    const float other = value[4 * i + p][group + j];
                    if (other > best) place[j] = (uint8_t)p;
                    best = other > best ? other : best;
                }
                value[i][group + j] = best;
            }
            const int channel = first_channel + C::column(group), count = o.channels - channel;
            if (row >= o.rows || count <= 0) continue;
            uint8_t *const to = o.argmax + (int64_t)row * o.channels + channel;
            if (whole && C::GROUP == 8) {
                uint2 bits;
                memcpy(&bits, place, 8);
                *reinterpret_cast<uint2 *>(to) = bits;
            } else {
#pragma unroll
                for (int j = 0; j < C::GROUP; j++)
                    if (j < count) to[j] = place[j];
            }
        }
    }
}

// Over the lanes of a warp that hold the same columns: they differ in the bits from ROW_LANES on.
template <class C> __device__ __forceinline__ float sum_row_lanes(float x)
{
#pragma unroll
    for (int offset = C::ROW_LANES; offset < WARP; offset *= 2)
        x += __shfl_xor_sync(FULL_MASK, x, offset);
    return x;
}

// count, mean and M2 of a tile's columns: each warp those of its rows, in two passes over its
// registers, then Chan's formula over the warps in their order.
template <class C>
__device__ __forceinline__ void tile_stats(const float (&value)[C::ROWS][C::COLUMNS],
                                           const ConvOutput &o, uint32_t first_row, int tile,
                                           int first_channel, float *shared)
{
    float *const means = shared, *const m2s = shared + C::WARPS_M * C::N;
    float *const counts = m2s + C::WARPS_M * C::N;
    const bool pool = o.argmax != NULL;
    const int live = pool ? C::ROWS / 4 : C::ROWS;
    float own = 0;
#pragma unroll
    for (int i = 0; i < C::ROWS; i++)
        own += i < live && first_row + (uint32_t)C::row(i, pool) < o.rows ? 1.0f : 0.0f;
    const float count = sum_row_lanes<C>(own), inverse = count > 0 ? 1 / count : 0;
    C::sync(); // the tiles of the product, which lie there too, have been read
#pragma unroll
    for (int j = 0; j < C::COLUMNS; j++) {
        float sum = 0, squares = 0;
#pragma unroll
        for (int i = 0; i < C::ROWS; i++)
            if (i < live && first_row + (uint32_t)C::row(i, pool) < o.rows) sum += value[i][j];
        const float mean = sum_row_lanes<C>(sum) * inverse;
#pragma unroll
        for (int i = 0; i < C::ROWS; i++) {
            const float delta = value[i][j] - mean;
            if (i < live && first_row + (uint32_t)C::row(i, pool) < o.rows)
                squares += delta * delta;
        }
        const float m2 = sum_row_lanes<C>(squares);
        if (threadIdx.x % WARP < C::ROW_LANES) {
            const int at = C::warp_m() * C::N + C::column(j);
            means[at] = mean;
            m2s[at] = m2;
            if (at % C::N == 0) counts[C::warp_m()] = count;
        }
    }
    C::sync();
    const int column = (int)threadIdx.x, channel = first_channel + column;
    if (column >= C::N || channel >= o.channels) return;
    Stats total = {counts[0], means[column], m2s[column]};
    for (int i = 1; i < C::WARPS_M; i++)
        stats_merge(&total, {counts[i], means[i * C::N + column], m2s[i * C::N + column]});
    float *const to = o.partial + (int64_t)tile * 3 * o.channels + channel;
    to[0] = total.count;
    to[o.channels] = total.mean;
    to[2 * o.channels] = total.m2;
}

// y of C::GROUP values of z. Unrolled for all values of a tensor-core tile, the slower activations
// would be tens of thousands of instructions: a launch of their own follows there (conv2d.cu).
template <class C>
__device__ __forceinline__ void finish_group(float *v, const ConvOutput &o, int64_t at, int count)
{
    typedef typename C::T T;
    if constexpr (C::ALL_ACTIVATIONS) {
        const T *const saved = (const T *)o.saved;
#pragma unroll
        for (int j = 0; j < C::GROUP; j++) {
            if (!saved)
                v[j] = nn_act(o.act, v[j]);
            else if (j < count)
                v[j] *= nn_act_grad(o.act, from_element(saved[at + j]));
        }
    } else if (o.act == ACT_RELU) {
#pragma unroll
        for (int j = 0; j < C::GROUP; j++) v[j] = nn_act(ACT_RELU, v[j]);
    }
}

// The values of a thread, value[i][j] in row C::row(i) and column C::column(j) of the tile `tile`
// and the columns from `first_channel` on. `shared`: (2 C::N + 1) C::WARPS_M floats for statistics.
// All threads that C::sync() waits for take part.
template <class C>
__device__ __forceinline__ void finish_tile(float (&value)[C::ROWS][C::COLUMNS],
                                            const ConvOutput &o, int tile, int first_channel,
                                            float *shared)
{
    typedef typename C::T T;
    const bool pool = o.argmax != NULL, whole = o.channels % C::GROUP == 0;
    const int live = pool ? C::ROWS / 4 : C::ROWS;
    const uint32_t first_row = (uint32_t)tile * (uint32_t)(pool ? C::M / 4 : C::M);
    if (pool) pool_values<C>(value, o, first_row, first_channel);
    if (o.bias) {
#pragma unroll
        for (int j = 0; j < C::COLUMNS; j++) {
            const int channel = first_channel + C::column(j);
            const float bias = channel < o.channels ? o.bias[channel] : 0.0f;
#pragma unroll
            for (int i = 0; i < C::ROWS; i++) value[i][j] += bias;
        }
    }
    if (o.partial) tile_stats<C>(value, o, first_row, tile, first_channel, shared);
#pragma unroll
    for (int i = 0; i < C::ROWS; i++) {
        const uint32_t row = first_row + (uint32_t)C::row(i, pool);
        if (i >= live || row >= o.rows) continue;
#pragma unroll
        for (int group = 0; group < C::COLUMNS; group += C::GROUP) {
            const int channel = first_channel + C::column(group), count = o.channels - channel;
            if (count <= 0) continue;
            const int64_t at = (int64_t)row * o.channels + channel;
            float *const v = &value[i][group];
            if (o.z) store_group<C>((T *)o.z + at, v, count, whole);
            finish_group<C>(v, o, at, count);
            if (o.y_is_float)
                store_group<C>((float *)o.y + at, v, count, whole);
            else
                store_group<C>((T *)o.y + at, v, count, whole);
        }
    }
}

// ---- between the files -------------------------------------------------------------------------

// The tensor-core kernels, which the check at start (conv2d_check.cu) switches off one by one.
typedef enum {
    CONV_TENSOR_WINDOWS, // forward and data gradient
    CONV_TENSOR_SPREAD,  // data gradient of a pooled map
    CONV_TENSOR_WEIGHT,
    CONV_WGMMA, // forward and data gradient
    CONV_WGMMA_SPREAD,
    CONV_WGMMA_WEIGHT,
    CONV_TENSOR_KERNELS
} ConvTensorKernel;
extern bool conv_tensor_ok[CONV_TENSOR_KERNELS];

// The one rule for what tensor cores do: where channels come in pieces of 16 bytes, on devices that
// have bf16 and tf32 (sm_80). All else goes to the plain kernels.
static inline bool conv_on_tensor_cores(ConvTensorKernel kernel, int channels)
{
    const int piece = cuda_device.element == BF16 ? 8 : 4;
    return cuda_device.capability >= 80 && cuda_device.tensor_cores_ok && conv_tensor_ok[kernel] &&
           (cuda_device.element == BF16 || cuda_device.tf32) && channels % piece == 0;
}

// conv2d_tensor.cu: o from windows and weights (o.channels,k), and the rows of its tiles.
void conv_tensor(const Windows &s, const void *w, const ConvOutput &o);
int conv_tensor_rows(const Windows &s, int channels);

// conv2d_wgmma.cu: the same, and the rule for what of it this kernel does.
void conv_wgmma(const Windows &s, const void *w, const ConvOutput &o);
int conv_wgmma_rows();
bool conv_wgmma_takes(const Windows &s, int channels);

// What is multiplied for a weight gradient: pixels are those of `x`'s windows.
struct WeightWork {
    Windows x;
    const void *dy;        // (pixels,cout), or of the pooled map
    const uint8_t *argmax; // NULL: not pooled
    float *partial;        // (parts,cout,terms)
    int cout, terms;
    uint32_t part; // pixels of a part, a multiple of 64
};

// conv2d_weight_wgmma.cu: work.partial, set, in how many parts, and the rule for what of it this
// kernel does.
void conv_wgmma_weight(const WeightWork &work, int parts);
int64_t conv_wgmma_weight_parts(const WeightWork &work);
bool conv_wgmma_weight_takes(const WeightWork &work);

// Columns of the tiles of all tensor-core kernels: 0 where a rule chooses, else what the check at
// start is trying.
enum { WIDEST = 256, WIDE = 128, MIDDLE = 64, NARROW = 32 };
extern int conv_tensor_width;

// conv2d.cu and conv2d_weight.cu: the operations, for linear layers as well.
void conv_forward(ConvOutput o, float *stats, const void *x, const void *w, ConvDims d);
void conv_backward_data(ConvOutput o, const void *dy, const uint8_t *argmax, const void *w,
                        ConvDims d);
void conv_backward_weight(float *dw, const void *dy, const uint8_t *argmax, const void *x,
                          GradMode mode, ConvDims d);
void cuda_conv2d_weight_ops(Kernels *k);

#endif
