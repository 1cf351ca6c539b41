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

// What becomes of a product (rows,channels): the maxima of its pooling windows, then
//   saved NULL   z = product + bias, or norm(product) by the running statistics; y = act(z)
//   else         y = product * act'(z), z = saved or norm(saved) by the batch's statistics
struct ConvOutput {
    void *y, *z; // z NULL: not stored; nor with a norm
    bool pool;
    uint8_t *argmax;   // of the pooling; NULL: not stored
    float *partial;    // of each tile of rows, NULL: (tiles,3,channels) count, mean and M2 of z;
                       // with `saved` (tiles,2,channels) sums of y and y * xhat
    const float *bias; // (channels) or NULL
    const void *saved; // (rows,channels)
    bool normed;
    Norm norm;
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
                    const bool larger = !(other <= best) && best == best; // a NaN is the largest
                    if (larger) place[j] = (uint8_t)p;
                    best = larger ? other : best;
                }
                value[i][group + j] = best;
            }
            const int channel = first_channel + C::column(group), count = o.channels - channel;
            if (row >= o.rows || count <= 0 || !o.argmax) continue;
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
    const bool pool = o.pool;
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

// ---- results by way of shared memory -----------------------------------------------------------
// Unrolled for all values of a tensor-core tile, activations and norms would be tens of thousands
// of instructions. So the tile goes to shared memory, and then each thread takes 16 bytes of
// neighbouring channels from row to row: accesses to memory are whole lines, and what belongs to a
// channel stays in registers.

// Where four columns of a row lie. Eight threads that store or load at the same time, every other
// piece of one row or of two that follow each other, or every piece of one, touch all banks once.
template <class C> __device__ __forceinline__ int piece_of_tile(int row, int column)
{
    const int piece = column / 4;
    return row * (C::N / 4) + (piece ^ (piece >> 3 & 1) ^ (row & 1));
}

template <class C>
__device__ __forceinline__ void put_tile(const float (&value)[C::ROWS][C::COLUMNS], bool pool,
                                         float4 *shared)
{
    C::sync(); // what lies there has been read
#pragma unroll
    for (int i = 0; i < C::ROWS; i++) {
        if (i >= (pool ? C::ROWS / 4 : C::ROWS)) continue;
#pragma unroll
        for (int j = 0; j < C::COLUMNS; j += 4)
            shared[piece_of_tile<C>(C::row(i, pool), C::column(j))] =
                make_float4(value[i][j], value[i][j + 1], value[i][j + 2], value[i][j + 3]);
    }
    C::sync();
}

// The threads that have a tile's values as they go over it in shared memory.
template <class C> struct TilePass {
    typedef typename C::T T;
    static constexpr int N = Vec16<T>::N; // channels of a thread
    static constexpr int THREADS = C::M * C::N / (C::ROWS * C::COLUMNS);
    static constexpr int WIDTH = C::N / N, HEIGHT = THREADS / WIDTH; // columns, rows of threads
};

template <class C>
__device__ __forceinline__ void get_row(float (&v)[TilePass<C>::N], const float4 *shared, int row,
                                        int column)
{
#pragma unroll
    for (int j = 0; j < TilePass<C>::N; j += 4) {
        const float4 four = shared[piece_of_tile<C>(row, column + j)];
        v[j] = four.x, v[j + 1] = four.y, v[j + 2] = four.z, v[j + 3] = four.w;
    }
}

// The first `count` elements of 16 bytes, zeros behind them; `whole`: all, and `from` is aligned.
template <class T>
__device__ __forceinline__ Vec16<T> load_some(const T *from, int count, bool whole)
{
    if (whole) return nn_load16(from);
    Vec16<T> x;
#pragma unroll
    for (int j = 0; j < Vec16<T>::N; j++) x.v[j] = j < count ? from[j] : to_element<T>(0.0f);
    return x;
}

template <class T>
__device__ __forceinline__ void store_some(T *to, const Vec16<T> &x, int count, bool whole)
{
    if (whole) return nn_store16(to, x);
#pragma unroll
    for (int j = 0; j < Vec16<T>::N; j++)
        if (j < count) to[j] = x.v[j];
}

__device__ __forceinline__ float inverse_sigma(const ConvOutput &o, int channel)
{
    const float *const stats = o.norm.stats;
    const float variance =
        o.saved ? stats[2 * o.channels + channel] / stats[0] : o.norm.running_var[channel];
    return 1.0f / sqrtf(variance + o.norm.eps);
}

// z = (x - mean) * scale + bias, without a norm z = x.
template <int N> struct TileNorm {
    float mean[N], scale[N], bias[N];

    __device__ __forceinline__ TileNorm(const ConvOutput &o, int channel)
    {
        const float *const means = o.saved ? o.norm.stats + o.channels : o.norm.running_mean;
#pragma unroll
        for (int j = 0; j < N; j++) {
            mean[j] = bias[j] = 0, scale[j] = 1;
            const int c = channel + j;
            if (!o.normed || c >= o.channels) continue;
            mean[j] = means[c];
            scale[j] = inverse_sigma(o, c) * (o.norm.weight ? o.norm.weight[c] : 1.0f);
            bias[j] = o.norm.bias[c];
        }
    }
    __device__ __forceinline__ float operator()(float x, int j) const
    {
        return (x - mean[j]) * scale[j] + bias[j];
    }
};

// partial = the sums over the rows of threads, in their order; those of y * (x - mean) times
// 1 / sigma. `lines` (2,HEIGHT,C::N).
template <class C>
__device__ __forceinline__ void store_tile_sums(const float (&sums)[2][TilePass<C>::N],
                                                const ConvOutput &o, int tile, int first_channel,
                                                float *lines)
{
    typedef TilePass<C> P;
    const int thread = (int)threadIdx.x;
    C::sync(); // the tile, which lies there too, has been read
#pragma unroll
    for (int s = 0; s < 2; s++)
#pragma unroll
        for (int j = 0; j < P::N; j++)
            lines[(s * P::HEIGHT + thread / P::WIDTH) * C::N + thread % P::WIDTH * P::N + j] =
                sums[s][j];
    C::sync();
    for (int i = thread; i < 2 * C::N; i += P::THREADS) {
        const int column = i % C::N, s = i / C::N, channel = first_channel + column;
        if (channel >= o.channels) continue;
        float total = 0;
        for (int line = 0; line < P::HEIGHT; line++)
            total += lines[(s * P::HEIGHT + line) * C::N + column];
        o.partial[((int64_t)tile * 2 + s) * o.channels + channel] =
            s ? total * inverse_sigma(o, channel) : total;
    }
}

// y = act(z).
template <class C>
__device__ __forceinline__ void activate_tile(const ConvOutput &o, uint32_t first_row, int rows,
                                              int first_channel, const float4 *shared)
{
    typedef TilePass<C> P;
    typedef typename P::T T;
    const int column = (int)threadIdx.x % P::WIDTH * P::N, channel = first_channel + column,
              count = o.channels - channel;
    const bool whole = o.channels % P::N == 0;
    const TileNorm<P::N> norm(o, channel);
    if (count <= 0) return;
#pragma unroll 1
    for (int row = (int)threadIdx.x / P::WIDTH; row < rows; row += P::HEIGHT) {
        const int64_t at = (int64_t)(first_row + (uint32_t)row) * o.channels + channel;
        float v[P::N];
        Vec16<T> z, y;
        get_row<C>(v, shared, row, column);
#pragma unroll
        for (int j = 0; j < P::N; j++) {
            z.v[j] = to_element<T>(v[j]);
            y.v[j] = to_element<T>(nn_act(o.act, norm(v[j], j)));
        }
        if (o.z) store_some((T *)o.z + at, z, count, whole);
        store_some((T *)o.y + at, y, count, whole);
    }
}

// y = value * act'(z), and its sums as it is stored. The next row's x is on its way meanwhile.
template <class C>
__device__ __forceinline__ void differentiate_tile(const ConvOutput &o, uint32_t first_row,
                                                   int rows, int tile, int first_channel,
                                                   float4 *shared)
{
    typedef TilePass<C> P;
    typedef typename P::T T;
    const int column = (int)threadIdx.x % P::WIDTH * P::N, channel = first_channel + column,
              count = o.channels - channel, end = count > 0 ? rows : 0;
    const bool whole = o.channels % P::N == 0;
    const T *const saved = (const T *)o.saved;
    const TileNorm<P::N> norm(o, channel);
    float sums[2][P::N] = {};
    int row = (int)threadIdx.x / P::WIDTH;
    int64_t at = (int64_t)(first_row + (uint32_t)row) * o.channels + channel;
    Vec16<T> next = {};
    if (row < end) next = load_some(saved + at, count, whole);
#pragma unroll 1
    for (; row < end; row += P::HEIGHT) {
        const Vec16<T> x = next;
        const int64_t to = at;
        at += (int64_t)P::HEIGHT * o.channels;
        if (row + P::HEIGHT < end) next = load_some(saved + at, count, whole);
        float v[P::N];
        Vec16<T> y;
        get_row<C>(v, shared, row, column);
#pragma unroll
        for (int j = 0; j < P::N; j++) {
            const float from = from_element(x.v[j]);
            y.v[j] = to_element<T>(v[j] * nn_act_grad(o.act, norm(from, j)));
            sums[0][j] += from_element(y.v[j]);
            sums[1][j] += from_element(y.v[j]) * (from - norm.mean[j]);
        }
        store_some((T *)o.y + to, y, count, whole);
    }
    if (o.partial) store_tile_sums<C>(sums, o, tile, first_channel, (float *)shared);
}

// ---- results, all ------------------------------------------------------------------------------

// What z = value and no or a short activation make of it.
template <class C>
__device__ __forceinline__ void store_tile(float (&value)[C::ROWS][C::COLUMNS], const ConvOutput &o,
                                           uint32_t first_row, int first_channel)
{
    typedef typename C::T T;
    const bool whole = o.channels % C::GROUP == 0;
#pragma unroll
    for (int i = 0; i < C::ROWS; i++) {
        const uint32_t row = first_row + (uint32_t)C::row(i, o.pool);
        if (i >= (o.pool ? C::ROWS / 4 : C::ROWS) || row >= o.rows) continue;
#pragma unroll
        for (int group = 0; group < C::COLUMNS; group += C::GROUP) {
            const int channel = first_channel + C::column(group), count = o.channels - channel;
            if (count <= 0) continue;
            const int64_t at = (int64_t)row * o.channels + channel;
            float *const v = &value[i][group];
            if (o.z) store_group<C>((T *)o.z + at, v, count, whole);
#pragma unroll
            for (int j = 0; j < C::GROUP; j++) v[j] = nn_act_short(o.act, v[j]);
            if (o.y_is_float)
                store_group<C>((float *)o.y + at, v, count, whole);
            else
                store_group<C>((T *)o.y + at, v, count, whole);
        }
    }
}

// The values of a thread, value[i][j] in row C::row(i) and column C::column(j) of the tile `tile`
// and the columns from `first_channel` on. `shared`: C::M C::N floats, 16-byte aligned. All threads
// that C::sync() waits for take part.
template <class C>
__device__ __forceinline__ void finish_tile(float (&value)[C::ROWS][C::COLUMNS],
                                            const ConvOutput &o, int tile, int first_channel,
                                            float *shared)
{
    const int tile_rows = o.pool ? C::M / 4 : C::M;
    const uint32_t first_row = (uint32_t)tile * (uint32_t)tile_rows;
    if (o.pool) pool_values<C>(value, o, first_row, first_channel);
    if (o.bias) {
#pragma unroll
        for (int j = 0; j < C::COLUMNS; j++) {
            const int channel = first_channel + C::column(j);
            const float bias = channel < o.channels ? o.bias[channel] : 0.0f;
#pragma unroll
            for (int i = 0; i < C::ROWS; i++) value[i][j] += bias;
        }
    }
    if (o.partial && !o.saved) tile_stats<C>(value, o, first_row, tile, first_channel, shared);
    if (!o.saved && !o.normed && nn_act_is_short(o.act))
        return store_tile<C>(value, o, first_row, first_channel);
    const uint32_t left = o.rows - first_row;
    const int rows = left < (uint32_t)tile_rows ? (int)left : tile_rows;
    float4 *const pieces = reinterpret_cast<float4 *>(shared);
    put_tile<C>(value, o.pool, pieces);
    if (o.saved)
        differentiate_tile<C>(o, first_row, rows, tile, first_channel, pieces);
    else
        activate_tile<C>(o, first_row, rows, first_channel, pieces);
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
    LINEAR_SMALL, // linear_small.cu
    CONV_TENSOR_KERNELS
} ConvTensorKernel;
extern bool conv_tensor_ok[CONV_TENSOR_KERNELS];

// The one rule for what tensor cores do: where channels come in pieces of 16 bytes (linear_small.cu
// needs none), on devices that have bf16 and tf32 (sm_80). All else goes to the plain kernels.
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
int conv_wgmma_rows(const Windows &s, int channels);
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
