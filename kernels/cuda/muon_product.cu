// The products of Muon's iterations, of every matrix of a list in one launch:
//   squares  A = X X' and AA = b A + c A A: symmetric, so only tiles on and above the diagonal are
//            computed, and what lies above it is stored twice
//   others   X = a X + AA X, where AA = AA' lies as the main loop's transposed factor
//
//   tile of a square, 64x32                     terms (up to thousands), in four slices
//       +-----+                    +-----------------+-----------------+--
//       |     | = sum of slices of | 128 threads     | 128 threads     |    *  the same ^T
//       +-----+                    +-----------------+-----------------+--
//
//   There are few tiles (20 for 256 rows) and many terms: so a block has four slices of threads,
//   each with stages of its own, and adds their sums in their order. The others have few terms and
//   many tiles: 64x64, one slice.
//
// Main loop: gemm_tensor.cuh, on tensor cores or with plain multiply-adds (--dtype fp32); slices:
// gemm_slices.cuh.
// Floor: 2 rows width terms FLOP, half of it for squares, over the tensor cores' rate. Predicted:
// docs/cuda-kernels.md. Not measured yet.
#include "kernels/cuda/gemm_slices.cuh"
#include "kernels/cuda/muon.cuh"

static bool tensor_ok = true; // cleared by the check at start

enum { SLICES = 4 };
template <class T> using SquareTile = TensorTile<T, 64, 32, false, false>;
template <class T> using OtherTile = TensorTile<T, 64, 64, true, false>;

// The same tile by plain multiply-adds. Two stages: an sm_75 has 64 KB of shared memory.
template <class Tile> struct PlainTile : Tile {
    static constexpr bool PLAIN = true;
    static constexpr int STAGES = 2, SHARED_BYTES = STAGES * Tile::STAGE_BYTES;
};

__host__ __device__ static inline int tiles_of(int n, int size)
{
    return (n + size - 1) / size;
}

// ---- stages ------------------------------------------------------------------------------------

template <class C_> struct MatrixLoader {
    typedef C_ C;
    static constexpr bool TRANSPOSED = C::A_TRANSPOSED;
    SideLoader<C, C::M, TRANSPOSED> a;
    SideLoader<C, C::N, TRANSPOSED> b;

    // Of the tile at (row,column), from `term` on.
    __device__ __forceinline__ MatrixLoader(const MuonProduct &p, int row, int column, int term)
        : a(p.a, TRANSPOSED ? p.terms : p.rows,
            TRANSPOSED ? padded_width<typename C::T>(p.rows) : p.terms, row, term),
          b(p.b, TRANSPOSED ? p.terms : p.rows, TRANSPOSED ? p.width : p.terms, column, term)
    {
    }

    __device__ __forceinline__ void fetch(uint8_t *to_a, uint8_t *to_b)
    {
        a.fetch(to_a, true);
        b.fetch(to_b, true);
    }

    __device__ __forceinline__ void put(uint8_t *)
    {
    }
};

// ---- tiles -------------------------------------------------------------------------------------

// Tiles of a square that lie left of the diagonal in each further row of tiles.
template <class C> constexpr int SKIPPED = C::A_TRANSPOSED ? 0 : C::M / C::N;

template <class C> static int count_tiles(const MuonProduct &p)
{
    const int columns = tiles_of(p.width, C::N);
    int tiles = 0;
    for (int i = 0; i < tiles_of(p.rows, C::M); i++) tiles += columns - i * SKIPPED<C>;
    return tiles;
}

// The block's product, and where its tile begins in it.
template <class C>
__device__ __forceinline__ const MuonProduct &find_tile(const MuonProducts &list, int *row,
                                                        int *column)
{
    int i = 0;
    while (i + 1 < list.count && (int)blockIdx.x >= list.entry[i + 1].first_block) i++;
    const MuonProduct &p = list.entry[i];
    const int columns = tiles_of(p.width, C::N);
    int tile = (int)blockIdx.x - p.first_block, in_row = columns;
    *row = 0;
    while (tile >= in_row) {
        tile -= in_row;
        in_row -= SKIPPED<C>;
        *row += C::M;
    }
    *column = (columns - in_row + tile) * C::N;
    return p;
}

// Stores the sums of two neighbouring columns; of a square, those on and above the diagonal there
// and below it.
template <class C>
__device__ __forceinline__ void store_pair(const MuonProduct &p, float scale, float factor, int row,
                                           int column, float first, float second)
{
    typedef typename C::T T;
    if (row >= p.rows || column >= p.width) return;
    const int64_t at = (int64_t)row * p.width + column, n = (int64_t)p.rows * p.width;
    T *const out = (T *)p.out;
    float added[2] = {}, v[2] = {factor * first, factor * second};
    if (p.add) load_up_to<2>(added, (const T *)p.add, at, n);
#pragma unroll
    for (int j = 0; j < 2; j++) v[j] += scale * added[j];
    if constexpr (C::A_TRANSPOSED) {
        store_up_to<2>(out, v, at, n);
    } else {
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int mirror = column + j;
            if (mirror >= row) out[at + j] = to_element<T>(v[j]);
            if (mirror > row && mirror < p.rows)
                out[(int64_t)mirror * p.width + row] = to_element<T>(v[j]);
        }
    }
}

// block: (C::THREADS,PARTS), where slice y sums the y-th part of the terms
template <class C, int PARTS>
__global__ void __launch_bounds__(PARTS *C::THREADS, PARTS > 1 ? 1 : 2)
    muon_product_kernel(float scale, float factor, const __grid_constant__ MuonProducts list)
{
    NN_SHARED_DYN(uint8_t, shared);
    constexpr int PAIRS = C::ROWS * C::COLUMNS / 2; // of neighbouring columns
    static_assert(PAIRS % PARTS == 0 && PAIRS * C::THREADS * 8 <= C::SHARED_BYTES, "sums fit");
    const int slice = PARTS > 1 ? (int)threadIdx.y : 0;
    int row, column;
    const MuonProduct &p = find_tile<C>(list, &row, &column);
    const int steps = tiles_of(p.terms, C::K * PARTS);
    float value[C::ROWS][C::COLUMNS] = {};
    MatrixLoader<C> loader(p, row, column, slice * steps * C::K);
    multiply_tiles(value, loader, shared + slice * C::SHARED_BYTES, steps);
    if constexpr (PARTS > 1) share_sums<C>((float2 *)shared, value, slice);
#pragma unroll
    for (int first = 0; first < PAIRS; first += PARTS) {
        const int pair = first + slice, i = pair * 2 / C::COLUMNS, j = pair * 2 % C::COLUMNS;
        float2 sum;
        if constexpr (PARTS > 1)
            sum = add_slices<C, PARTS>((const float2 *)shared, pair);
        else
            sum = make_float2(value[i][j], value[i][j + 1]);
        store_pair<C>(p, scale, factor, row + C::row(i, false), column + C::pair(j), sum.x, sum.y);
    }
}

// ---- launch ------------------------------------------------------------------------------------

template <class C, int PARTS> static void launch(MuonProducts *list, float scale, float factor)
{
    static bool allowed = false;
    int blocks = 0;
    for (int i = 0; i < list->count; i++) {
        list->entry[i].first_block = blocks;
        blocks += count_tiles<C>(list->entry[i]);
    }
    if (!allowed) nn_allow_shared(muon_product_kernel<C, PARTS>, PARTS * C::SHARED_BYTES);
    allowed = true;
    nn_launch(muon_product_kernel<C, PARTS>, (unsigned)blocks, dim3(C::THREADS, PARTS),
              PARTS * C::SHARED_BYTES, cuda_stream, scale, factor, *list);
}

static bool on_tensor_cores()
{
    return cuda_device.capability >= 80 && cuda_device.tensor_cores_ok && tensor_ok &&
           (cuda_device.element == BF16 || cuda_device.tf32);
}

template <class T>
static void launch_for(MuonProducts *list, bool squares, float scale, float factor)
{
    if (on_tensor_cores())
        squares ? launch<SquareTile<T>, SLICES>(list, scale, factor)
                : launch<OtherTile<T>, 1>(list, scale, factor);
    else
        squares ? launch<PlainTile<SquareTile<T>>, SLICES>(list, scale, factor)
                : launch<PlainTile<OtherTile<T>>, 1>(list, scale, factor);
}

void muon_products(MuonProducts *list, bool squares, float scale, float factor)
{
    BY_ELEMENT(launch_for<T>(list, squares, scale, factor));
}

// ---- the check at start ------------------------------------------------------------------------

// Integers from -2 to 2, zeros in the padding; symmetric: [i][j] = [j][i].
static void draw_integers(float *matrix, int rows, int columns, int width, bool symmetric)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < width; j++) {
            const int64_t at = symmetric && i > j ? (int64_t)j * 999 + i : (int64_t)i * 999 + j;
            const uint32_t drawn = (uint32_t)((uint64_t)((uint32_t)at * 2654435761u) * 5 >> 32);
            matrix[i * width + j] = j < columns ? (float)drawn - 2 : 0.0f;
        }
}

enum { CHECK_ROWS = 133, CHECK_VALUES = 40000 };

static void upload_elements(const Kernels *k, void *to, float *numbers, const float *host)
{
    k->upload(numbers, host, CHECK_VALUES * sizeof(float));
    k->from_f32(to, numbers, CHECK_VALUES);
}

// 3 add + 2 a a' or 3 add + 2 a b on the device (values (4) of elements: a, b or add, out, what it
// should be), and here.
static bool product_is_exact(const Kernels *k, void *const *value, float *numbers, MuonProduct p,
                             bool squares)
{
    static float a[CHECK_VALUES], b[CHECK_VALUES], want[CHECK_VALUES];
    static unsigned char got[CHECK_VALUES * sizeof(float)], right[CHECK_VALUES * sizeof(float)];
    const int piece = 16 / (int)k->element_size;
    const int a_width = squares ? p.terms : tiles_of(p.rows, piece) * piece;
    assert(p.rows * a_width <= CHECK_VALUES && p.terms * p.width <= CHECK_VALUES);
    draw_integers(a, squares ? p.rows : p.terms, squares ? p.terms - 3 : p.rows, a_width, !squares);
    draw_integers(b, p.rows, squares ? p.rows : p.width - 3, p.width, squares);
    for (int i = 0; i < p.rows; i++)
        for (int j = 0; j < p.width; j++) {
            float sum = 0;
            for (int t = 0; t < p.terms && (!squares || j < p.rows); t++)
                sum += a[i * a_width + t] * (squares ? a[j * a_width + t] : b[t * p.width + j]);
            want[i * p.width + j] = 3 * b[i * p.width + j] + 2 * sum;
        }
    upload_elements(k, value[0], numbers, a);
    upload_elements(k, value[1], numbers, b);
    upload_elements(k, value[3], numbers, want);
    MuonProducts list = {};
    list.count = 1;
    list.entry[0] = p;
    list.entry[0].a = value[0];
    list.entry[0].b = squares ? value[0] : value[1];
    list.entry[0].add = value[1];
    list.entry[0].out = value[2];
    muon_products(&list, squares, 3, 2);
    const size_t bytes = (size_t)(p.rows * p.width) * k->element_size;
    k->download(got, value[2], bytes);
    k->download(right, value[3], bytes);
    return memcmp(got, right, bytes) == 0;
}

bool muon_products_check(const Kernels *k)
{
    tensor_ok = true;
    if (!on_tensor_cores()) return true;
    void *memory[5];
    bool enough = true;
    for (void *&p : memory) enough = (p = k->alloc(CHECK_VALUES * sizeof(float))) && enough;
    // more terms than the stages of all slices have, and no number of rows a multiple of a tile
    MuonProduct square = {}, other = {};
    square.rows = 70, square.width = 72, square.terms = 520;
    other.rows = other.terms = CHECK_ROWS, other.width = 72;
    if (enough)
        tensor_ok = product_is_exact(k, memory, (float *)memory[4], square, true) &&
                    product_is_exact(k, memory, (float *)memory[4], other, false);
    for (void *p : memory)
        if (p) k->release(p);
    return tensor_ok;
}
