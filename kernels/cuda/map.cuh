// How a block's threads share a map (rows,channels), so that each keeps its channels from row to
// row and what belongs to a channel stays in registers.
//
// A thread has `each` neighbouring channels: 16 bytes, or one where the channels do not divide by
// that. A block has up to 32 such columns of threads and as many rows of threads as fit; blockIdx.x
// counts runs of rows, blockIdx.y groups of columns. All of it follows from the shape alone, so
// that sums over rows have the same bits on every device.
#ifndef KERNELS_CUDA_MAP_CUH
#define KERNELS_CUDA_MAP_CUH

#include "kernels/cuda/elements.cuh"

struct Map {
    int64_t rows;
    int channels;
    int each;          // channels of a thread
    int width, height; // of a block in threads; width * height <= THREADS
    int64_t run;       // rows of a block
    int64_t runs;      // blocks along the rows
    int groups;        // and along the channels
};

template <class T> static Map map_of(MapDims d)
{
    constexpr int N = Vec16<T>::N, MOST_RUNS = 512, LEAST_ROUNDS = 8;
    Map m;
    m.rows = d.rows;
    m.channels = d.channels;
    m.each = d.channels % N == 0 ? N : 1;
    const int columns = d.channels / m.each;
    m.width = columns < WARP ? columns : WARP;
    m.height = THREADS / m.width;
    m.groups = (columns + m.width - 1) / m.width;
    const int64_t runs = MOST_RUNS / m.groups > 1 ? MOST_RUNS / m.groups : 1;
    const int64_t share = (d.rows + runs - 1) / runs;
    const int64_t rounds = (share + m.height - 1) / m.height;
    m.run = (rounds > LEAST_ROUNDS ? rounds : LEAST_ROUNDS) * m.height;
    m.runs = (d.rows + m.run - 1) / m.run;
    return m;
}

static inline dim3 map_grid(const Map &m)
{
    return dim3((unsigned)m.runs, (unsigned)m.groups);
}

// Where a thread works: rows row, row + height, ... below end, of channels channel .. channel +
// each - 1. A thread without work has row = end.
struct MapPlace {
    int column, line; // of the thread in its block
    int channel;
    int64_t row, end;
};

__device__ __forceinline__ MapPlace map_place(const Map &m)
{
    MapPlace p;
    p.column = (int)threadIdx.x % m.width;
    p.line = (int)threadIdx.x / m.width;
    p.channel = ((int)blockIdx.y * m.width + p.column) * m.each;
    p.end = ((int64_t)blockIdx.x + 1) * m.run;
    if (p.end > m.rows) p.end = m.rows;
    p.row = (int64_t)blockIdx.x * m.run + p.line;
    if (p.line >= m.height || p.channel >= m.channels || p.row > p.end) p.row = p.end;
    return p;
}

// Of a row; what `each` leaves is 0.
template <int N, class T>
__device__ __forceinline__ void map_load(float (&v)[N], const T *p, const Map &m, int channel,
                                         int64_t row)
{
    const T *at = p + row * m.channels + channel;
    if (m.each == N)
        load_up_to<N>(v, at, 0, N);
    else
        load_up_to<N>(v, at, 0, 1);
}

template <int N, class T>
__device__ __forceinline__ void map_store(T *p, const float (&v)[N], const Map &m, int channel,
                                          int64_t row)
{
    T *at = p + row * m.channels + channel;
    if (m.each == N)
        store_up_to<N>(at, v, 0, N);
    else
        store_up_to<N>(at, v, 0, 1);
}

// A float a channel; what `each` leaves, and a NULL, give `otherwise`.
template <int N>
__device__ __forceinline__ void map_channels(float (&v)[N], const float *p, const Map &m,
                                             int channel, float otherwise)
{
#pragma unroll
    for (int j = 0; j < N; j++)
        v[j] = p && j < m.each && channel < m.channels ? p[channel + j] : otherwise;
}

// The same into p; what is beyond `each` stays as it is. Indices are constants, so that v stays in
// registers.
template <int N>
__device__ __forceinline__ void map_set(float *p, const float (&v)[N], const Map &m)
{
#pragma unroll
    for (int j = 0; j < N; j++)
        if (j < m.each) p[j] = v[j];
}

// The sums over a block's rows of threads, in a fixed order: v becomes the sum in line 0. All
// threads of the block take part; what threads without work bring counts as it is.
template <int N>
__device__ __forceinline__ void map_sum_lines(float (&v)[N], const Map &m, const MapPlace &p)
{
    NN_SHARED(float, lines, [N][THREADS]);
    __syncthreads(); // of an earlier call's readers
#pragma unroll
    for (int j = 0; j < N; j++) lines[j][threadIdx.x] = v[j];
    for (int left = m.height; left > 1;) {
        const int half = (left + 1) / 2;
        __syncthreads();
        if (p.line + half < left)
#pragma unroll
            for (int j = 0; j < N; j++)
                lines[j][threadIdx.x] += lines[j][threadIdx.x + half * m.width];
        left = half;
    }
#pragma unroll
    for (int j = 0; j < N; j++) v[j] = lines[j][threadIdx.x];
}

#endif
