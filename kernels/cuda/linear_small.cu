// Fully connected layers whose products have few tiles, so that the time until a tile is done
// decides, and launches do:
//
//   forward   y  (rows,out) = act(x w^T + bias)          both factors' rows are of K
//   data      dx (rows,in)  = (dy w) * act'(saved)       w lies transposed
//   weight    dw (out,in)   = dy^T x,                    both do
//             dbias (out)   = sums of dy's columns, by further blocks of the same launch
//
//   tile of 32x32 or 64x64       terms, in four slices
//       +-----+                 +-------------+-------------+--
//       |     | = sum of slices | 128 threads | 128 threads |    *  ...
//       +-----+                 +-------------+-------------+--
//
// Small tiles bring more multiprocessors to work, slices shorten each one's sum, and what is added
// or multiplied to the result is on its way meanwhile. Lines that are no multiple of 16 bytes, as
// those of a head with ten outputs, are loaded element by element. Main loop: gemm_tensor.cuh;
// slices: gemm_slices.cuh.
//
// Floor: the launch (about 1.3 us in a graph), or (M + N) K bytes of a tile at what a
// multiprocessor gets from L2. Predicted: docs/cuda-kernels.md. Not measured yet.
#include "kernels/cuda/conv2d.cuh"
#include "kernels/cuda/gemm_slices.cuh"
#include "kernels/cuda/linear.cuh"

enum { SLICES = 4 };

// Three stages of 64x64: a block of an sm_86 has 99 KB.
template <class Element, int SIDE, bool A_TRANSPOSED, bool B_TRANSPOSED>
struct FewTile : TensorTile<Element, SIDE, SIDE, A_TRANSPOSED, false, B_TRANSPOSED> {
    typedef TensorTile<Element, SIDE, SIDE, A_TRANSPOSED, false, B_TRANSPOSED> Tile;
    static constexpr int STAGES = SIDE > NARROW ? 3 : 4, SHARED_BYTES = STAGES * Tile::STAGE_BYTES;
};

// y (rows,columns) = the product of a and b over `terms`, and what is done to it.
struct FewProduct {
    const void *a, *b;
    int rows, columns, terms;
    void *y;
    void *z;           // forward: before the activation; NULL: not stored
    const float *bias; // forward; or NULL
    const void *saved; // data; NULL without an activation
    float *dbias;      // weight; or NULL
    Activation act;
    bool y_is_float; // forward
    bool add;        // weight
};

template <class C_> struct FewLoader {
    typedef C_ C;
    SideLoader<C, C::M, C::A_TRANSPOSED> a;
    SideLoader<C, C::N, C::B_TRANSPOSED> b;

    // Of the tile at (row,column), from `term` on.
    __device__ __forceinline__ FewLoader(const FewProduct &p, int row, int column, int term)
        : a(p.a, C::A_TRANSPOSED ? p.terms : p.rows, C::A_TRANSPOSED ? p.rows : p.terms, row, term),
          b(p.b, C::B_TRANSPOSED ? p.terms : p.columns, C::B_TRANSPOSED ? p.columns : p.terms,
            column, term)
    {
    }

    __device__ __forceinline__ void fetch(uint8_t *to_a, uint8_t *to_b)
    {
        a.fetch(to_a, a.width % C::PIECE == 0);
        b.fetch(to_b, b.width % C::PIECE == 0);
    }

    __device__ __forceinline__ void put(uint8_t *)
    {
    }
};

// ---- two neighbouring results ------------------------------------------------------------------

// What they meet: the bias, or the gradient that is added to; of a data gradient, z or y.
template <class T> struct Met {
    float number[2];
    T saved[2];
};

template <class C>
__device__ __forceinline__ Met<typename C::T> load_met(const FewProduct &p, int row, int column)
{
    Met<typename C::T> met = {};
#pragma unroll
    for (int j = 0; j < 2; j++) {
        if (row >= p.rows || column + j >= p.columns) continue;
        const int64_t at = (int64_t)row * p.columns + column + j;
        if constexpr (C::A_TRANSPOSED) {
            if (p.add) met.number[j] = ((const float *)p.y)[at];
        } else if constexpr (C::B_TRANSPOSED) {
            if (p.saved) met.saved[j] = ((const typename C::T *)p.saved)[at];
        } else if (p.bias) {
            met.number[j] = p.bias[column + j];
        }
    }
    return met;
}

template <class T>
__device__ __forceinline__ void store_two(T *y, const float (&v)[2], const FewProduct &p, int row,
                                          int column)
{
    const int64_t at = (int64_t)row * p.columns + column;
    if (p.columns % 2 == 0) return store_up_to<2>(y, v, at, at + 2);
    y[at] = to_element<T>(v[0]);
    if (column + 1 < p.columns) y[at + 1] = to_element<T>(v[1]);
}

template <class C>
__device__ __forceinline__ void finish_two(const FewProduct &p, float2 sum,
                                           const Met<typename C::T> &met, int row, int column)
{
    typedef typename C::T T;
    float v[2] = {sum.x, sum.y};
    if (row >= p.rows || column >= p.columns) return;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        if constexpr (C::A_TRANSPOSED || !C::B_TRANSPOSED)
            v[j] += met.number[j];
        else
            v[j] *= nn_act_grad(p.act, from_element(met.saved[j]));
    }
    if constexpr (C::A_TRANSPOSED) return store_two((float *)p.y, v, p, row, column);
    if (p.z) store_two((T *)p.z, v, p, row, column);
    if constexpr (!C::B_TRANSPOSED) {
#pragma unroll
        for (int j = 0; j < 2; j++) v[j] = nn_act(p.act, v[j]);
    }
    if (p.y_is_float)
        store_two((float *)p.y, v, p, row, column);
    else
        store_two((T *)p.y, v, p, row, column);
}

// ---- kernel ------------------------------------------------------------------------------------

// dbias of a lane's column of the 32 from `first` on. `lines`: a float of each thread.
template <class C>
__device__ __forceinline__ void sum_columns(const FewProduct &p, int first, float *lines)
{
    constexpr int WARPS = SLICES * C::THREADS / WARP;
    const int warp = ((int)threadIdx.y * C::THREADS + (int)threadIdx.x) / WARP;
    const int column = first + C::lane();
    const typename C::T *const dy = (const typename C::T *)p.a;
    float sum = 0;
#pragma unroll 8
    for (int line = warp; line < p.terms; line += WARPS)
        if (column < p.rows) sum += from_element(dy[(int64_t)line * p.rows + column]);
    lines[warp * WARP + C::lane()] = sum;
    __syncthreads();
    if (warp > 0 || column >= p.rows) return;
    for (int other = 1; other < WARPS; other++) sum += lines[other * WARP + C::lane()];
    p.dbias[column] = p.add ? p.dbias[column] + sum : sum;
}

// block: (C::THREADS,SLICES), where slice y sums the y-th part of the terms; after those of the
// tiles, blocks for dbias
template <class C>
__global__ void __launch_bounds__(SLICES *C::THREADS, 1) linear_small_kernel(const FewProduct p)
{
    NN_SHARED_DYN(uint8_t, shared);
    constexpr int PAIRS = C::ROWS * C::COLUMNS / 2, EACH = PAIRS / SLICES; // neighbouring columns
    static_assert(PAIRS % SLICES == 0 && PAIRS * C::THREADS * 8 <= C::SHARED_BYTES, "sums fit");
    const int tile = (int)blockIdx.x, column_tiles = (p.columns + C::N - 1) / C::N,
              tiles = (p.rows + C::M - 1) / C::M * column_tiles;
    if constexpr (C::A_TRANSPOSED)
        if (tile >= tiles) return sum_columns<C>(p, (tile - tiles) * WARP, (float *)shared);
    const int row = tile / column_tiles * C::M, column = tile % column_tiles * C::N,
              slice = (int)threadIdx.y;
    Met<typename C::T> met[EACH];
#pragma unroll
    for (int n = 0; n < EACH; n++) {
        const int pair = n * SLICES + slice, i = pair * 2 / C::COLUMNS, j = pair * 2 % C::COLUMNS;
        met[n] = load_met<C>(p, row + C::row(i, false), column + C::pair(j));
    }
    const int steps = (p.terms + C::K * SLICES - 1) / (C::K * SLICES);
    float value[C::ROWS][C::COLUMNS] = {};
    FewLoader<C> loader(p, row, column, slice * steps * C::K);
    multiply_tiles(value, loader, shared + slice * C::SHARED_BYTES, steps);
    share_sums<C>((float2 *)shared, value, slice);
#pragma unroll
    for (int n = 0; n < EACH; n++) {
        const int pair = n * SLICES + slice, i = pair * 2 / C::COLUMNS, j = pair * 2 % C::COLUMNS;
        finish_two<C>(p, add_slices<C, SLICES>((const float2 *)shared, pair), met[n],
                      row + C::row(i, false), column + C::pair(j));
    }
}

// ---- launch ------------------------------------------------------------------------------------

template <class C> static void launch_tile(const FewProduct &p)
{
    static bool allowed = false;
    const int64_t tiles = tiles_of(p.rows, C::M) * tiles_of(p.columns, C::N);
    const int64_t blocks = tiles + (p.dbias ? tiles_of(p.rows, WARP) : 0);
    if (!allowed) nn_allow_shared(linear_small_kernel<C>, SLICES * C::SHARED_BYTES);
    allowed = true;
    nn_launch(linear_small_kernel<C>, (unsigned)blocks, dim3(C::THREADS, SLICES),
              SLICES * C::SHARED_BYTES, cuda_stream, p);
}

int64_t linear_small_tiles(int64_t rows, int64_t columns)
{
    return tiles_of(rows, MIDDLE) * tiles_of(columns, MIDDLE);
}

// Larger tiles read less; smaller ones where fewer than a quarter of the multiprocessors had work.
static int side_of(const FewProduct &p)
{
    if (conv_tensor_width) return conv_tensor_width;
    return 4 * linear_small_tiles(p.rows, p.columns) < cuda_device.processors ? NARROW : MIDDLE;
}

template <bool A_TRANSPOSED, bool B_TRANSPOSED> static void launch(const FewProduct &p)
{
    if (cuda_planning()) return;
    if (side_of(p) == NARROW)
        BY_ELEMENT(launch_tile<FewTile<T, NARROW, A_TRANSPOSED, B_TRANSPOSED>>(p));
    else
        BY_ELEMENT(launch_tile<FewTile<T, MIDDLE, A_TRANSPOSED, B_TRANSPOSED>>(p));
}

void linear_small_forward(void *y, void *z, const void *x, const void *w, const float *bias,
                          Activation act, bool y_is_float, LinearDims d)
{
    FewProduct p = {};
    p.a = x, p.b = w;
    p.rows = (int)d.rows, p.columns = (int)d.out, p.terms = (int)d.in;
    p.y = y, p.z = z, p.bias = bias, p.act = act, p.y_is_float = y_is_float;
    launch<false, false>(p);
}

void linear_small_backward_data(void *dx, const void *dy, const void *w, const void *saved,
                                Activation act, LinearDims d)
{
    FewProduct p = {};
    p.a = dy, p.b = w;
    p.rows = (int)d.rows, p.columns = (int)d.in, p.terms = (int)d.out;
    p.y = dx, p.saved = act == ACT_NONE ? NULL : saved, p.act = act;
    launch<false, true>(p);
}

void linear_small_backward_weight(float *dw, float *dbias, const void *dy, const void *x,
                                  GradMode mode, LinearDims d)
{
    FewProduct p = {};
    p.a = dy, p.b = x;
    p.rows = (int)d.out, p.columns = (int)d.in, p.terms = (int)d.rows;
    p.y = dw, p.dbias = dbias, p.add = mode == ADD;
    launch<true, true>(p);
}
