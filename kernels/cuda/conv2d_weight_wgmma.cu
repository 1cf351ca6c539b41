// The weight gradient on the tensor cores of sm_90a in bf16: the product of conv2d_weight.cu, with
// wgmma and with warps that only fetch (gemm_wgmma.cuh). It writes the sums of parts, which that
// file adds. No GPU has run it yet: NN_WGMMA=1 in the environment turns it on.
//
//      k = (tap, channel)          pixels of one part, 64 a stage
//     +-----------+               +------+------+------+
//     |  tile     |  cout      =  | dy^T |      |      |  *  windows of x
//     +-----------+               +------+------+------+
//   128 or 64 output channels x 256 or 192 places of k
//
// What is summed over, pixels, are rows of both maps. Stages have them as they lie in memory: a row
// of 128 bytes for each pixel and 64 channels (places), which wgmma transposes ("MN-major").
//
//   128 channels   each of the two groups that multiply has 64 of them
//   64 channels    each has all of the tile and half of a stage's pixels; both sums are added in
//                  shared memory
//
// dy of a pooled map goes through registers of the group that fetches: a thread loads 16 bytes of
// it and their argmax once, and stores the rows of the four pixels they spread over.
//
// Floor: 2 pixels cout k FLOP over the tensor cores' rate. Predictions: docs/cuda-kernels.md.
#include "kernels/cuda/conv2d.cuh"
#include "kernels/cuda/gemm_wgmma.cuh"

enum { FEWEST_PIXELS = 512, MOST_WAVES = 4 }; // of a part; of blocks

// SPREAD: dy is that of a pooled map.
template <int M_, int N_, bool SPREAD_> struct WeightTile : WgmmaSizes {
    static constexpr int M = M_, N = N_;
    static constexpr bool SPREAD = SPREAD_;
    static constexpr int COLUMN_BYTES = K * 128; // of 64 channels (places): 64 pixels
    static constexpr int A_COLUMNS = M / 64, B_COLUMNS = N / 64;
    static constexpr int A_BYTES = A_COLUMNS * COLUMN_BYTES;
    static constexpr int STAGE_BYTES = A_BYTES + B_COLUMNS * COLUMN_BYTES;
    static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES + ALIGN;
    static constexpr bool BY_PIXELS = M == 64; // groups share the tile, not the stage
    static constexpr int FETCH_REGISTERS = 56, MULTIPLY_REGISTERS = 224;
    typedef float Value[2][N / 4];

    static __device__ __forceinline__ void multiply(Value &value, uint32_t stage, uint32_t group)
    {
        const uint32_t pixels = BY_PIXELS ? K / 2 : K, from = BY_PIXELS ? group * pixels : 0;
        const uint32_t a = stage + (BY_PIXELS ? 0 : group * COLUMN_BYTES), b = stage + A_BYTES;
#pragma unroll
        for (uint32_t k = 0; k < pixels; k += 16)
            nn_wgmma_bf16_columns(value, nn_wgmma_columns(a + (from + k) * 128, COLUMN_BYTES),
                                  nn_wgmma_columns(b + (from + k) * 128, COLUMN_BYTES));
    }
};

// Eight places of k, which lie in one tap.
struct Piece {
    int term;      // its place in a row of dw, -1: beyond the last
    uint32_t from; // in bytes of x, from a window's tap (0,0) on
    uint32_t tap;  // a bit, none beyond the last
};

__device__ __forceinline__ Piece piece_at(const Windows &s, int place)
{
    Place p = {};
    skip_channels(&p, place, place_width(s), s.kernel);
    if (p.first >= s.c) return Piece{-1, 0, 0};
    const int tap = p.row * s.kernel + p.column;
    const uint32_t values = (uint32_t)((p.row * s.w + p.column) * s.c + p.channel);
    return Piece{tap * s.c + p.channel, values * 2, 1u << tap};
}

// Stages of dy (A) and windows (B). A warp has 16 pixels of each: for every 64 channels (places), a
// thread copies piece lane % 8 of the four pixels lane / 8 + 4 i, or of the pixels 4 (lane / 8) + i
// which its piece of a pooled map spreads over. What is known of a pixel's window, lanes find out
// for two stages at once.
template <class C> struct ColumnLoader {
    const WeightWork &work;
    uint32_t pixel, end;      // the stage's first of the warp; the part's end
    int warp_row, row, piece; // of a stage: the warp's and the thread's first row
    int channel;              // the thread's first
    uint32_t from[C::B_COLUMNS], taps[C::B_COLUMNS]; // Piece.from and Piece.tap
    TapRow window;               // of pixel lane % 16, this stage's or the next one's
    bool second;                 // the lanes from 16 on have this stage's
    Pooled pooled[C::A_COLUMNS]; // of this stage

    __device__ __forceinline__ ColumnLoader(const WeightWork &w, const Piece *pieces,
                                            uint32_t first, uint32_t part_end, int first_channel)
        : work(w)
    {
        const int thread = (int)threadIdx.x - C::CONSUMERS;
        warp_row = thread / WARP * 16, row = thread % WARP / 8, piece = thread % 8;
        pixel = first + (uint32_t)warp_row, end = part_end;
        channel = first_channel + piece * 8;
        second = false, window = {0, 0};
#pragma unroll
        for (int j = 0; j < C::B_COLUMNS; j++)
            from[j] = pieces[8 * j + piece].from, taps[j] = pieces[8 * j + piece].tap;
        look_ahead();
    }

    __device__ __forceinline__ static uint8_t *place_of(uint8_t *stage, int r, int p)
    {
        return stage + r * 128 + (p ^ r % 8) * 16;
    }

    __device__ __forceinline__ void look_ahead()
    {
        if constexpr (!C::SPREAD) return;
        const uint32_t p = pixel / 4 + (uint32_t)row;
        const int64_t at = (int64_t)p * work.cout + channel;
        const bf16 *const dy = (const bf16 *)work.dy + at;
        const uint8_t *const argmax = work.argmax + at;
#pragma unroll
        for (int j = 0; j < C::A_COLUMNS; j++) {
            pooled[j] = {make_uint4(0, 0, 0, 0), make_uint2(0, 0)};
            if (p < end / 4 && channel + j * 64 < work.cout) {
                pooled[j].values = *reinterpret_cast<const uint4 *>(dy + j * 64);
                pooled[j].argmax = *reinterpret_cast<const uint2 *>(argmax + j * 64);
            }
        }
    }

    __device__ __forceinline__ void put_pooled(uint8_t *stage)
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < C::A_COLUMNS; j++)
                *reinterpret_cast<uint4 *>(
                    place_of(stage + j * C::COLUMN_BYTES, warp_row + 4 * row + i, piece)) =
                    spread_to(pooled[j], (uint32_t)i * 0x01010101u);
    }

    // Of pixel 4 i + row of the warp's. Addresses of what is not valid may lie anywhere.
    __device__ __forceinline__ void copy_dense(uint8_t *to, int i)
    {
        const uint32_t p = pixel + (uint32_t)(4 * i + row);
        const bf16 *const dy = (const bf16 *)work.dy + ((int64_t)p * work.cout + channel);
#pragma unroll
        for (int j = 0; j < C::A_COLUMNS; j++)
            nn_cp_async_zfill<16>(to + j * C::COLUMN_BYTES, dy + j * 64,
                                  p < end && channel + j * 64 < work.cout);
    }

    __device__ __forceinline__ void fetch(uint8_t *stage)
    {
        const int lane = (int)threadIdx.x % WARP;
        if (!second)
            window = tap_row<false>(work.x, pixel + (uint32_t)(lane / 16 * C::K + lane % 16), end);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int source = second * 16 + 4 * i + row;
            const int at = __shfl_sync(FULL_MASK, window.pixel, source);
            const uint32_t has = __shfl_sync(FULL_MASK, window.taps, source);
            uint8_t *const to = place_of(stage, warp_row + 4 * i + row, piece);
            const uint8_t *const x =
                (const uint8_t *)((const bf16 *)work.x.map + (int64_t)at * work.x.c);
#pragma unroll
            for (int j = 0; j < C::B_COLUMNS; j++)
                nn_cp_async_near(to + C::A_BYTES + j * C::COLUMN_BYTES, x + from[j], has & taps[j]);
            if constexpr (!C::SPREAD) copy_dense(to, i);
        }
        if constexpr (C::SPREAD) put_pooled(stage);
        second = !second;
        pixel += C::K;
    }
};

// The second group's sums are added to the first's, by way of the stages' shared memory.
template <class C>
__device__ __forceinline__ void add_groups(typename C::Value &value, float *shared)
{
    constexpr int COLUMNS = C::N / 4;
    const bool second = threadIdx.x >= WARPGROUP;
    float *const own = shared + threadIdx.x % WARPGROUP;
    nn_barrier(1, C::CONSUMERS); // both have read all stages
    if (second) {
#pragma unroll
        for (int i = 0; i < 2 * COLUMNS; i++) own[i * WARPGROUP] = value[i / COLUMNS][i % COLUMNS];
    }
    nn_barrier(1, C::CONSUMERS);
    if (!second) {
#pragma unroll
        for (int i = 0; i < 2 * COLUMNS; i++) value[i / COLUMNS][i % COLUMNS] += own[i * WARPGROUP];
    }
}

// sums: (cout,terms)
template <class C>
__device__ __forceinline__ void store_sums(float *sums, const typename C::Value &value,
                                           const WeightWork &work, const Piece *pieces,
                                           int first_channel)
{
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int channel = first_channel + 16 * warp + lane / 4, live = work.cout - channel;
    float *const row = sums + (int64_t)channel * work.terms + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < C::N / 8; j++) {
        const int term = pieces[j].term;
#pragma unroll
        for (int h = 0; h < 2; h++)
            if (term >= 0 && 8 * h < live)
                *reinterpret_cast<float2 *>(row + 8 * h * work.terms + term) =
                    make_float2(value[h][2 * j], value[h][2 * j + 1]);
    }
}

// grid: (tiles of k, tiles of cout, parts)
template <class C>
__global__ void __launch_bounds__(C::THREADS, 1) weight_wgmma_kernel(const WeightWork work)
{
    if constexpr (NN_SM90A) {
        NN_SHARED_DYN(uint8_t, dynamic);
        NN_SHARED(Piece, pieces, [C::N / 8]);
        NN_SHARED(Barriers, barriers, [1]);
        uint8_t *const stages = align_stages(dynamic);
        const int first_place = (int)blockIdx.x * C::N, first_channel = (int)blockIdx.y * C::M;
        const uint32_t first = blockIdx.z * work.part, left = work.x.count - first;
        const uint32_t count = left < work.part ? left : work.part;
        const int thread = (int)threadIdx.x, steps = (int)((count + C::K - 1) / C::K);
        if (thread < C::N / 8) pieces[thread] = piece_at(work.x, first_place + 8 * thread);
        init_barriers(barriers);
        __syncthreads();
        if (thread >= C::CONSUMERS) {
            nn_fewer_registers<C::FETCH_REGISTERS>();
            ColumnLoader<C> loader(work, pieces, first, first + count, first_channel);
            fetch_stages<C>(stages, barriers, loader, steps);
        } else {
            nn_more_registers<C::MULTIPLY_REGISTERS>();
            typename C::Value value = {};
            multiply_stages<C>(value, stages, barriers, steps);
            if constexpr (C::BY_PIXELS) {
                add_groups<C>(value, (float *)stages);
                if (thread >= WARPGROUP) return;
            }
            store_sums<C>(work.partial + (int64_t)blockIdx.z * work.cout * work.terms, value, work,
                          pieces, first_channel);
        }
    }
}

// ---- launch ------------------------------------------------------------------------------------

// Output channels and places of a tile: 192 places where they round up to a tenth less than 256.
struct WeightTileSize {
    int channels, places;
};

static WeightTileSize tile_of(const WeightWork &work)
{
    const int width = conv_tensor_width ? conv_tensor_width : work.cout;
    const bool narrow = tiles_of(work.terms, 192) * 192 * 10 < tiles_of(work.terms, 256) * 256 * 9;
    return WeightTileSize{width > MIDDLE ? 128 : 64, narrow ? 192 : 256};
}

static int64_t tiles_of_work(const WeightWork &work)
{
    const WeightTileSize tile = tile_of(work);
    return tiles_of(work.terms, tile.places) * tiles_of(work.cout, tile.channels);
}

// As many blocks as multiprocessors, or a few times as many where that leaves 5% fewer of them
// idle.
int64_t conv_wgmma_weight_parts(const WeightWork &work)
{
    const int64_t tiles = tiles_of_work(work), most = work.x.count / FEWEST_PIXELS;
    int64_t best = 1, busiest = 0; // busiest: percent of the multiprocessors' time
    for (int waves = 1; waves <= MOST_WAVES; waves++) {
        int64_t parts = waves * cuda_device.processors / tiles;
        if (parts > most) parts = most;
        if (parts < 1) parts = 1;
        const int64_t blocks = parts * tiles, processors = cuda_device.processors;
        const int64_t busy = 100 * blocks / (tiles_of(blocks, processors) * processors);
        if (busy < busiest + 5) continue;
        best = parts, busiest = busy;
    }
    return best;
}

// Where the output channels fill a tile and the blocks half of the multiprocessors (the check at
// start tries less), and the taps fit into 32 bits.
bool conv_wgmma_weight_takes(const WeightWork &work)
{
    const int64_t blocks = tiles_of_work(work) * conv_wgmma_weight_parts(work);
    const bool filled = work.cout > NARROW && blocks >= cuda_device.processors / 2;
    return cuda_device.wgmma && conv_tensor_ok[CONV_WGMMA_WEIGHT] && cuda_device.element == BF16 &&
           (conv_tensor_width || filled) && work.x.kernel * work.x.kernel <= 32;
}

template <class C> static void launch(const WeightWork &work, dim3 grid)
{
    static bool allowed = false;
    if (!allowed) nn_allow_shared(weight_wgmma_kernel<C>, C::SHARED_BYTES);
    allowed = true;
    nn_launch(weight_wgmma_kernel<C>, grid, C::THREADS, C::SHARED_BYTES, cuda_stream, work);
}

template <int M, int N> static void launch_for(const WeightWork &work, dim3 grid)
{
    work.argmax ? launch<WeightTile<M, N, true>>(work, grid)
                : launch<WeightTile<M, N, false>>(work, grid);
}

void conv_wgmma_weight(const WeightWork &work, int parts)
{
    assert((int64_t)work.x.kernel * work.x.w * work.x.c < INT32_MAX); // Piece.from
    const WeightTileSize tile = tile_of(work);
    const dim3 grid((unsigned)tiles_of(work.terms, tile.places),
                    (unsigned)tiles_of(work.cout, tile.channels), (unsigned)parts);
    if (tile.channels == 128)
        tile.places == 256 ? launch_for<128, 256>(work, grid) : launch_for<128, 192>(work, grid);
    else
        tile.places == 256 ? launch_for<64, 256>(work, grid) : launch_for<64, 192>(work, grid);
}
