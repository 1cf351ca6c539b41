// What sm_90a adds: named barriers, barriers in shared memory, and products of warpgroups whose
// factors lie there, found by decoding their descriptors as the PTX ISA has them ("Asynchronous
// Warpgroup Level Matrix Shared Memory Layout").
#include <deque>
#include <string.h>
#include <vector>

#include "tests/cuda_on_cpu/internal.h"
#include "tests/cuda_on_cpu/sanitizer.h"

namespace emu
{
namespace
{
constexpr int LANES = 32, WARPS = 32, NAMED = 16, K = 16;
constexpr uint32_t ALL = 0xffffffffu;

// ---- barriers ----------------------------------------------------------------------------------

struct NamedBarrier {
    int arrived;
    unsigned generation;
    char clocks[4][8]; // of generations, as in block.cpp
};
NamedBarrier named[NAMED];

struct Mbarrier { // in shared memory, which is 0xff before it is set up
    uint16_t arrivals, pending;
    uint32_t phase;
};

Mbarrier *mbarrier_at(uint64_t *barrier)
{
    Mbarrier *b = (Mbarrier *)shared_at(shared_address(barrier), sizeof *b, "an mbarrier");
    if ((uintptr_t)b % sizeof *b) fail("the mbarrier at %p is not 8-byte aligned", (void *)b);
    return b;
}

Mbarrier *mbarrier_ready(uint64_t *barrier)
{
    Mbarrier *b = mbarrier_at(barrier);
    if (b->arrivals == 0xffff) fail("the mbarrier at %p was not set up", (void *)b);
    return b;
}

// Phases alternate: who arrives for the next must not seem seen by who waited for the last.
void *clock_of(Mbarrier *b, uint32_t phase)
{
    return (char *)b + phase % 2 * 4;
}

// ---- factors in shared memory ------------------------------------------------------------------

// A matrix descriptor: of "K-major" factors, in which values of k follow each other, or of
// "MN-major" ones, in which rows of A (columns of B) do.
struct Factor {
    uint32_t start;           // address
    uint32_t leading, stride; // bytes, see address_of()
    uint32_t row;             // bytes that follow each other, what a swizzle mode repeats over
    bool swizzled;
};

Factor decode(uint64_t descriptor)
{
    static const uint32_t row_bytes[] = {16, 128, 64, 32}; // by swizzle mode, bits 62 and 63
    const auto bits = [&](int first, int count) {
        return (uint32_t)(descriptor >> first & ((1u << count) - 1));
    };
    const uint32_t known[][2] = {{0, 14}, {16, 14}, {32, 14}, {62, 2}}; // the others are 0
    uint64_t rest = descriptor;
    for (const auto &field : known) rest &= ~(((1ull << field[1]) - 1) << field[0]);
    if (rest)
        fail("wgmma: descriptor %016llx has a base offset or reserved bits",
             (unsigned long long)descriptor);
    return {bits(0, 14) << 4, bits(16, 14) << 4, bits(32, 14) << 4, row_bytes[bits(62, 2)],
            bits(62, 2) != 0};
}

// Where the 8 values lie that follow each other from (row, k) on: 8 of k, or 8 rows if transposed.
// Eight pieces of f.row bytes are 8 rows (or 8 of k). The offsets are
//                           leading                      stride
//   K-major                 not used                     to the next 8 rows
//   K-major, no swizzle     to the next 8 of k           to the next 8 rows
//   MN-major                to the next f.row of rows    to the next 8 of k
//   MN-major, no swizzle    to the next 8 of k           to the next 8 rows
// The swizzle exchanges 16-byte pieces within 128, 64 or 32 bytes by the address' bits from 7 on.
uint32_t address_of(const Factor &f, bool transposed, uint32_t row, uint32_t k)
{
    const uint32_t pieces = f.row / 16; // of 8 values
    uint32_t linear = f.start;
    if (!transposed)
        linear += row / 8 * f.stride + row % 8 * f.row + k / 8 * (f.swizzled ? 16 : f.leading);
    else if (f.swizzled)
        linear +=
            row / 8 / pieces * f.leading + row / 8 % pieces * 16 + k / 8 * f.stride + k % 8 * f.row;
    else
        linear += row / 8 * f.stride + k / 8 * f.leading + k % 8 * f.row;
    return linear ^ ((linear >> 7 & (pieces - 1)) << 4);
}

void read_8(float (&to)[8], uint32_t address, int thread, unsigned group)
{
    uint16_t values[8];
    const void *p = shared_at(address, sizeof values, "wgmma");
    const int writer = unfenced_writer(address);
    if (writer >= 0)
        fail("wgmma reads %p, which thread %d wrote without fence.proxy.async after it", p, writer);
    asynchronous_read(thread, p, sizeof values, group);
    memcpy(values, p, sizeof values);
    for (int i = 0; i < 8; i++) to[i] = __uint_as_float((uint32_t)values[i] << 16);
}

void read_rows(float (*to)[K], uint64_t descriptor, bool transposed, int first, int rows,
               int thread, unsigned group)
{
    const Factor f = decode(descriptor);
    const int row_step = transposed ? 8 : 1, k_step = transposed ? 1 : 8;
    for (int row = 0; row < rows; row += row_step)
        for (int k = 0; k < K; k += k_step) {
            float values[8];
            read_8(values, address_of(f, transposed, (uint32_t)(first + row), (uint32_t)k), thread,
                   group);
            for (int i = 0; i < 8; i++)
                to[row + (transposed ? i : 0)][k + (transposed ? 0 : i)] = values[i];
        }
}

// ---- products ----------------------------------------------------------------------------------

struct Product { // of a warp: 16 rows of a warpgroup's 64
    uint64_t a, b;
    int n;
    bool transposed;
    float *d[LANES]; // (2,n/4) of each
    unsigned group;
};

struct WarpProducts {
    std::deque<Product> pending;
    unsigned committed; // groups
    bool fenced;
    size_t issued;
};
WarpProducts warps[WARPS];

WarpProducts &own_warp()
{
    return warps[current_thread() / LANES];
}

// Sums in the order of k.
void multiply(const Product &p, int warp)
{
    static float a[LANES / 2][K], b[256][K];
    read_rows(a, p.a, p.transposed, warp % 4 * 16, 16, warp * LANES, p.group);
    read_rows(b, p.b, p.transposed, 0, p.n, warp * LANES, p.group);
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < p.n / 2; i++) {
            const int row = i / (p.n / 4) * 8 + lane / 4;
            const int column = i % (p.n / 4) / 2 * 8 + lane % 4 * 2 + i % 2;
            float sum = p.d[lane][i];
            for (int k = 0; k < K; k++) sum += a[row][k] * b[column][k];
            p.d[lane][i] = sum;
        }
}

void finish(unsigned groups) // all products of the first `groups` groups
{
    const int warp = current_thread() / LANES;
    std::deque<Product> &pending = warps[warp].pending;
    for (; !pending.empty() && pending.front().group < groups; pending.pop_front())
        multiply(pending.front(), warp);
}

void run_fence(void **, uint32_t)
{
    own_warp().fenced = true;
}

void run_commit(void **, uint32_t)
{
    own_warp().committed++;
}

void run_wait(void **arguments, uint32_t)
{
    finish(own_warp().committed - *(const unsigned *)arguments[0]);
}

struct ProductCall { // of a lane
    uint64_t a, b;
    int n;
    float *d;
    bool transposed;

    bool same(const ProductCall &other) const
    {
        return a == other.a && b == other.b && n == other.n && transposed == other.transposed;
    }
};
std::vector<ProductCall> issued[WARPS / 4]; // by warpgroups: their warps issue the same

void check_same(const WarpProducts &w, std::vector<ProductCall> *all, const ProductCall &c)
{
    if (w.issued == all->size()) all->push_back(c);
    if (!c.same((*all)[w.issued])) fail("wgmma: warps of a warpgroup have different descriptors");
}

// TSan sees what containers do, so with it a product is done at once, and not compared with those
// of the other warps.
void run_product(void **arguments, uint32_t)
{
    const int warp = current_thread() / LANES;
    const ProductCall &c = *(const ProductCall *)arguments[0];
    WarpProducts &w = warps[warp];
    if (!w.fenced) fail("wgmma without wgmma.fence before");
    Product p;
    p.a = c.a, p.b = c.b, p.n = c.n, p.transposed = c.transposed, p.group = w.committed;
    for (int lane = 0; lane < LANES; lane++) {
        const ProductCall &other = *(const ProductCall *)arguments[lane];
        if (!c.same(other)) fail("wgmma: lanes of a warp have different descriptors");
        p.d[lane] = other.d;
    }
    if (TSAN) return multiply(p, warp);
    check_same(w, &issued[warp / 4], c);
    w.issued++;
    w.pending.push_back(p);
    if (order == FORWARD || (order == RANDOM && random_below(2))) finish(w.committed + 1);
}
} // namespace

void wgmma_begin_block()
{
    memset(named, 0, sizeof named);
    for (WarpProducts &w : warps) {
        w.pending.clear();
        w.committed = 0;
        w.fenced = false;
        w.issued = 0;
    }
    for (std::vector<ProductCall> &all : issued) all.clear();
}

void wgmma_fence()
{
    collective({ALL, run_fence, nullptr, false, "wgmma.fence", 0});
}

void wgmma_bf16(float *d, int n, uint64_t a, uint64_t b, bool transposed)
{
    ProductCall c = {a, b, n, d, transposed};
    collective({ALL, run_product, &c, false, "wgmma", 0});
}

void wgmma_commit()
{
    collective({ALL, run_commit, nullptr, false, "wgmma.commit_group", 0});
}

void wgmma_wait(int groups)
{
    unsigned newest = (unsigned)groups;
    if (newest > own_warp().committed) newest = own_warp().committed;
    collective({ALL, run_wait, &newest, false, "wgmma.wait_group", 0});
    const int warp = current_thread() / LANES;
    if (warps[warp].committed > newest) // the last that is done ended after those before
        asynchronous_end(warp * LANES, warps[warp].committed - newest - 1);
}

void named_barrier(int id, int threads, const char *file, int line)
{
    if (id < 1 || id >= NAMED || threads % LANES)
        fail("%s:%d: bar.sync %d, %d: expected 1 .. 15 and whole warps", file, line, id, threads);
    NamedBarrier *b = &named[id];
    void *clock = b->clocks[b->generation % 4];
    release(clock);
    if (++b->arrived == threads) {
        b->arrived = 0;
        b->generation++;
        wake(b);
    } else {
        wait_for(b, "bar.sync", file, line);
    }
    acquire(clock);
}

void mbarrier_init(uint64_t *barrier, int arrivals)
{
    *mbarrier_at(barrier) = {(uint16_t)arrivals, (uint16_t)arrivals, 0};
}

void mbarrier_arrive(uint64_t *barrier)
{
    Mbarrier *b = mbarrier_ready(barrier);
    release(clock_of(b, b->phase));
    if (--b->pending == 0) {
        b->pending = b->arrivals;
        b->phase++;
        wake(b);
    }
    after_atomic();
}

void mbarrier_wait(uint64_t *barrier, uint32_t parity, const char *file, int line)
{
    Mbarrier *b = mbarrier_ready(barrier);
    while (b->phase % 2 == parity) wait_for(b, "mbarrier", file, line);
    acquire(clock_of(b, parity));
}
} // namespace emu
