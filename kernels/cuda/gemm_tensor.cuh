// A tile of a matrix product on tensor cores, the main loop of all tensor-core kernels:
//
//   C (M,N) += A (M,K) B (N,K)^T     bf16 or tf32 factors, fp32 sums, mma.sync
//
//                     K: 64 bytes a stage (32 bf16 or 16 fp32), 4 stages under way
//          +------+   +--+--+--+--+
//      M   |  C   | = |A |  |  |  |  x  B (N) the same
//          +------+   +--+--+--+--+
//   128 threads; each of the four warps has WARP_M x WARP_N of C in registers.
//
// A factor's stages lie in shared memory in one of two ways:
//   rows of K    (M,64 bytes): 16-byte piece p of row r at p ^ (r / 2 % 4), so that the eight rows
//                an ldmatrix reads lie in different banks; fragments of bf16 and tf32 are then the
//                same bytes.
//   rows of M    TRANSPOSED, (K,M): what is contiguous in memory is not what is summed over.
//                bf16: piece p of row k at p ^ (k % 8), of 64-byte rows at p ^ (k / 2 % 4), for
//                ldmatrix.trans. tf32, which ldmatrix cannot transpose: at p ^ (k % 4 * 2), for
//                loads of single values.
// Where rows are of K, columns of C are exchanged within 32 (channel_of_row): a thread then has 8
// neighbouring columns, and stores 16 bytes.
//
// A kernel brings a Loader, which fills stage after stage:
//   fetch(a, b)  starts to copy the next K of both factors; put(a) finishes what went through
//   registers (a gradient spread over pooling windows)
#ifndef KERNELS_CUDA_GEMM_TENSOR_CUH
#define KERNELS_CUDA_GEMM_TENSOR_CUH

#include "kernels/cuda/elements.cuh"

// The sizes of a tile. SPREAD: A is a pooled map's gradient.
template <class Element, int M_, int N_, bool A_TRANSPOSED_, bool SPREAD_,
          bool B_TRANSPOSED_ = A_TRANSPOSED_>
struct TensorTile {
    typedef Element T;
    static constexpr int M = M_, N = N_, K = 64 / (int)sizeof(T), STAGES = 4, THREADS = 128;
    static constexpr bool A_TRANSPOSED = A_TRANSPOSED_, B_TRANSPOSED = B_TRANSPOSED_;
    static constexpr bool SPREAD = SPREAD_, IS_BF16 = sizeof(T) == 2;
    static constexpr int PIECE = 16 / (int)sizeof(T); // elements of 16 bytes
    static constexpr int WARPS_N = N > 64 || M < 64 ? 2 : 1, WARPS_M = 4 / WARPS_N;
    static constexpr int WARP_M = M / WARPS_M, WARP_N = N / WARPS_N;
    static constexpr int A_BYTES = M * 64, STAGE_BYTES = (M + N) * 64;
    static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES;
    static constexpr int BLOCKS = SHARED_BYTES > 48 * 1024 ? 2 : 3; // that registers shall allow
    // What a thread has: rows g and g + 8 of each 16, two columns of each 8 (g, t: common.cuh).
    static constexpr int ROWS = WARP_M / 8, COLUMNS = WARP_N / 4, GROUP = 8;
    static constexpr int ROW_LANES = 4;  // lanes l and l + 4 have the same columns
    static constexpr bool PLAIN = false; // multiply-adds, not tensor cores

    static __device__ __forceinline__ int lane()
    {
        return (int)threadIdx.x % WARP;
    }
    static __device__ __forceinline__ int warp_m()
    {
        return (int)threadIdx.x / WARP / WARPS_N;
    }
    static __device__ __forceinline__ int warp_n()
    {
        return (int)threadIdx.x / WARP % WARPS_N;
    }
    // Row i of the thread in the tile; `pool`: pooling window i, of rows 4i to 4i+3.
    static __device__ __forceinline__ int row(int i, bool pool)
    {
        return warp_m() * (pool ? WARP_M / 4 : WARP_M) + lane() / 4 + 8 * i;
    }
    // Column j of the thread in the tile, where columns are exchanged.
    static __device__ __forceinline__ int column(int j)
    {
        return warp_n() * WARP_N + j / 8 * 32 + lane() % 4 * 8 + j % 8;
    }
    // The same where columns are not exchanged; j + 1 is beside an even j.
    static __device__ __forceinline__ int pair(int j)
    {
        return warp_n() * WARP_N + j / 2 * 8 + lane() % 4 * 2 + j % 2;
    }
    static __device__ __forceinline__ void sync()
    {
        __syncthreads();
    }
};

// Which column of C row `row` of a stage of B belongs to.
__device__ __forceinline__ int channel_of_row(int row)
{
    return (row & ~31) | (row >> 1 & 3) << 3 | (row >> 3 & 3) << 1 | (row & 1);
}

// Which output of 4 * window + place row `row` of a tile belongs to, so that a thread has the four
// outputs of a pooling window.
__device__ __forceinline__ int pooled_row(int row)
{
    return (row & ~31) | (row & 7) << 2 | (row >> 3 & 3);
}

// Where piece `piece` of row `row` lies in a stage, in bytes.
__device__ __forceinline__ int piece_of_row(int row, int piece)
{
    return row * 64 + (piece ^ (row >> 1 & 3)) * 16;
}

// The same of a TRANSPOSED stage with rows of `width` elements.
template <class C> __device__ __forceinline__ int piece_of_column(int k, int piece, int width)
{
    const int swizzle = !C::IS_BF16 ? (k & 3) << 1 : width > 32 ? k & 7 : k >> 1 & 3;
    return (k * (width / C::PIECE) + (piece ^ swizzle)) * 16;
}

template <class C> __device__ __forceinline__ void round_fragment(uint32_t &bits)
{
    if constexpr (!C::IS_BF16) bits = nn_round_tf32(__uint_as_float(bits));
}

// The fragments of half a stage, 32 bytes of K: tiles of 16 rows of A, of 8 rows of B.
template <class C> struct Fragments {
    uint32_t a[C::WARP_M / 16][4], b[C::WARP_N / 8][2];
};

template <class C>
__device__ __forceinline__ void load_rows_a(Fragments<C> &f, const uint8_t *a, int half)
{
    const int lane = C::lane(), row = C::warp_m() * C::WARP_M + lane % 16;
#pragma unroll
    for (int i = 0; i < C::WARP_M / 16; i++)
        nn_ldmatrix_x4(f.a[i], a + piece_of_row(row + i * 16, 2 * half + lane / 16));
}

template <class C>
__device__ __forceinline__ void load_rows_b(Fragments<C> &f, const uint8_t *b, int half)
{
    const int lane = C::lane(), row = C::warp_n() * C::WARP_N + lane % 8 + lane / 16 * 8;
#pragma unroll
    for (int j = 0; j < C::WARP_N / 8; j += 2) {
        uint32_t two[4];
        nn_ldmatrix_x4(two, b + piece_of_row(row + j * 8, 2 * half + lane / 8 % 2));
        f.b[j][0] = two[0], f.b[j][1] = two[1];
        f.b[j + 1][0] = two[2], f.b[j + 1][1] = two[3];
    }
}

// Value [k][column] of a TRANSPOSED stage of 4-byte elements.
template <class C>
__device__ __forceinline__ uint32_t load_value(const uint8_t *stage, int k, int column, int width)
{
    uint32_t bits;
    memcpy(&bits,
           __builtin_assume_aligned(
               stage + piece_of_column<C>(k, column / 4, width) + column % 4 * 4, 4),
           4);
    return bits;
}

template <class C>
__device__ __forceinline__ void load_columns_a(Fragments<C> &f, const uint8_t *a, int half)
{
    const int lane = C::lane(), column = C::warp_m() * C::WARP_M;
    if constexpr (C::IS_BF16) {
        const int k = half * 16 + lane / 16 * 8 + lane % 8;
#pragma unroll
        for (int i = 0; i < C::WARP_M / 16; i++)
            nn_ldmatrix_x4_trans(
                f.a[i], a + piece_of_column<C>(k, column / 8 + i * 2 + lane / 8 % 2, C::M));
    } else {
        const int g = lane / 4, k = half * 8 + lane % 4;
#pragma unroll
        for (int i = 0; i < C::WARP_M / 16; i++)
#pragma unroll
            for (int r = 0; r < 4; r++)
                f.a[i][r] = load_value<C>(a, k + r / 2 * 4, column + i * 16 + r % 2 * 8 + g, C::M);
    }
}

template <class C>
__device__ __forceinline__ void load_columns_b(Fragments<C> &f, const uint8_t *b, int half)
{
    const int lane = C::lane(), column = C::warp_n() * C::WARP_N;
    if constexpr (C::IS_BF16) {
        const int k = half * 16 + lane / 8 % 2 * 8 + lane % 8;
#pragma unroll
        for (int j = 0; j < C::WARP_N / 8; j += 2) {
            uint32_t two[4];
            nn_ldmatrix_x4_trans(two, b + piece_of_column<C>(k, column / 8 + j + lane / 16, C::N));
            f.b[j][0] = two[0], f.b[j][1] = two[1];
            f.b[j + 1][0] = two[2], f.b[j + 1][1] = two[3];
        }
    } else {
        const int g = lane / 4, k = half * 8 + lane % 4;
#pragma unroll
        for (int j = 0; j < C::WARP_N / 8; j++)
#pragma unroll
            for (int r = 0; r < 2; r++)
                f.b[j][r] = load_value<C>(b, k + r * 4, column + j * 8 + g, C::N);
    }
}

// value += the products of a stage. value[2i][2j] is the first of the thread's four of tile (i,j).
template <class C>
__device__ __forceinline__ void multiply_stage(float (&value)[C::ROWS][C::COLUMNS],
                                               const uint8_t *a, const uint8_t *b)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        Fragments<C> f;
        if constexpr (C::A_TRANSPOSED)
            load_columns_a<C>(f, a, half);
        else
            load_rows_a<C>(f, a, half);
        if constexpr (C::B_TRANSPOSED)
            load_columns_b<C>(f, b, half);
        else
            load_rows_b<C>(f, b, half);
#pragma unroll
        for (int i = 0; i < C::WARP_M / 16; i++)
#pragma unroll
            for (int r = 0; r < 4; r++) round_fragment<C>(f.a[i][r]);
#pragma unroll
        for (int j = 0; j < C::WARP_N / 8; j++) {
            round_fragment<C>(f.b[j][0]);
            round_fragment<C>(f.b[j][1]);
#pragma unroll
            for (int i = 0; i < C::WARP_M / 16; i++) {
                float d[4] = {value[2 * i][2 * j], value[2 * i][2 * j + 1], value[2 * i + 1][2 * j],
                              value[2 * i + 1][2 * j + 1]};
                if constexpr (C::IS_BF16)
                    nn_mma_bf16(d, f.a[i], f.b[j]);
                else
                    nn_mma_tf32(d, f.a[i], f.b[j]);
                value[2 * i][2 * j] = d[0], value[2 * i][2 * j + 1] = d[1];
                value[2 * i + 1][2 * j] = d[2], value[2 * i + 1][2 * j + 1] = d[3];
            }
        }
    }
}

// Value of term k, in row or column `line` of a stage of `width`.
template <class C, bool TRANSPOSED>
__device__ __forceinline__ float stage_value(const uint8_t *stage, int k, int line, int width)
{
    typedef typename C::T T;
    const int column = TRANSPOSED ? line : k, piece = column / C::PIECE;
    const int at = TRANSPOSED ? piece_of_column<C>(k, piece, width) : piece_of_row(line, piece);
    return from_element(((const T *)(stage + at))[column % C::PIECE]);
}

// The same as multiply_stage() with plain multiply-adds. Columns are not exchanged.
template <class C>
__device__ __forceinline__ void multiply_add_stage(float (&value)[C::ROWS][C::COLUMNS],
                                                   const uint8_t *a, const uint8_t *b)
{
#pragma unroll 4
    for (int k = 0; k < C::K; k++) {
        float x[C::ROWS], y[C::COLUMNS];
#pragma unroll
        for (int i = 0; i < C::ROWS; i++)
            x[i] = stage_value<C, C::A_TRANSPOSED>(a, k, C::row(i, false), C::M);
#pragma unroll
        for (int j = 0; j < C::COLUMNS; j++)
            y[j] = stage_value<C, C::B_TRANSPOSED>(b, k, C::pair(j), C::N);
#pragma unroll
        for (int i = 0; i < C::ROWS; i++)
#pragma unroll
            for (int j = 0; j < C::COLUMNS; j++) value[i][j] += x[i] * y[j];
    }
}

// value += the product over `steps` stages. `shared`: C::SHARED_BYTES, free again for other use
// after a __syncthreads().
template <class Loader>
__device__ __forceinline__ void multiply_tiles(float (&value)[Loader::C::ROWS][Loader::C::COLUMNS],
                                               Loader &loader, uint8_t *shared, int steps)
{
    typedef typename Loader::C C;
#pragma unroll
    for (int stage = 0; stage < C::STAGES - 1; stage++) {
        uint8_t *const a = shared + stage * C::STAGE_BYTES;
        if (stage < steps) {
            loader.fetch(a, a + C::A_BYTES);
            loader.put(a);
        }
        nn_cp_async_commit(); // a group for every stage, so that waiting counts stages
    }
    for (int step = 0; step < steps; step++) {
        nn_cp_async_wait<C::STAGES - 2>();
        __syncthreads(); // stage `step` has arrived for all, stage `step - 1` has been read by all
        const bool more = step + C::STAGES - 1 < steps;
        uint8_t *const next = shared + (step + C::STAGES - 1) % C::STAGES * C::STAGE_BYTES;
        const uint8_t *const a = shared + step % C::STAGES * C::STAGE_BYTES;
        if (more) loader.fetch(next, next + C::A_BYTES);
        if constexpr (C::PLAIN)
            multiply_add_stage<C>(value, a, a + C::A_BYTES);
        else
            multiply_stage<C>(value, a, a + C::A_BYTES);
        if (more) loader.put(next);
        nn_cp_async_commit();
    }
}

// ---- a gradient on its way through registers ---------------------------------------------------

// 16 bytes of a pooled map's gradient and the argmax beside them.
template <class C> struct Spread {
    uint32_t value[4], argmax[C::PIECE / 4];
    uint32_t place;

    // valid: index `at` of the maps; else zeros.
    __device__ __forceinline__ void fetch(const typename C::T *map, const uint8_t *argmaxes,
                                          int64_t at, int place_, bool valid)
    {
        const uint4 bits =
            valid ? *reinterpret_cast<const uint4 *>(map + at) : make_uint4(0, 0, 0, 0);
        value[0] = bits.x, value[1] = bits.y, value[2] = bits.z, value[3] = bits.w;
#pragma unroll
        for (int i = 0; i < C::PIECE / 4; i++)
            argmax[i] = valid ? reinterpret_cast<const uint32_t *>(argmaxes + at)[i] : 0;
        place = (uint32_t)place_ * 0x01010101u;
    }

    // Those whose argmax is the place, the others 0.
    __device__ __forceinline__ uint4 spread() const
    {
        uint32_t kept[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            // a byte of `differs` has its highest bit set where the argmax, below 4, is another
            const uint32_t word = argmax[C::IS_BF16 ? i / 2 : 0] ^ place;
            const uint32_t same = ~(word + 0x7f7f7f7fu) >> 7 & 0x01010101u;
            if constexpr (C::IS_BF16) {
                const uint32_t pair = same >> (i % 2 * 16);
                kept[i] = value[i] & ((pair & 1) | (pair & 0x100) << 8) * 0xffffu;
            } else {
                kept[i] = same >> (i * 8) & 1 ? value[i] : 0;
            }
        }
        return make_uint4(kept[0], kept[1], kept[2], kept[3]);
    }
};

#endif
