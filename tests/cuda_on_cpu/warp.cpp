// Operations of whole warps, done by the last lane to arrive for all.
#include "tests/cuda_on_cpu/internal.h"

namespace emu
{
namespace
{
constexpr int LANES = 32;
constexpr uint32_t ALL = 0xffffffffu;

bool has(uint32_t mask, int lane)
{
    return mask >> lane & 1;
}

void nothing(void **, uint32_t)
{
}

// ---- shuffle, ballot ---------------------------------------------------------------------------

struct ShuffleCall {
    Shuffle kind;
    int operand, width;
    uint64_t in, out;
};

int source_lane(const ShuffleCall &c, int lane)
{
    const int first = lane & ~(c.width - 1), end = first + c.width;
    int source = lane;
    switch (c.kind) {
    case SHUFFLE_INDEX:
        return first + (c.operand & (c.width - 1));
    case SHUFFLE_UP:
        source = lane - c.operand;
        break;
    case SHUFFLE_DOWN:
        source = lane + c.operand;
        break;
    case SHUFFLE_XOR:
        source = lane ^ c.operand;
        return source < end ? source : lane;
    }
    return source >= first && source < end ? source : lane;
}

void run_shuffle(void **arguments, uint32_t mask)
{
    for (int lane = 0; lane < LANES; lane++) {
        if (!has(mask, lane)) continue;
        ShuffleCall *c = (ShuffleCall *)arguments[lane];
        const int source = source_lane(*c, lane);
        c->out = has(mask, source) ? ((ShuffleCall *)arguments[source])->in : ~0ull; // NaN
    }
}

struct BallotCall {
    bool predicate;
    unsigned result;
};

void run_ballot(void **arguments, uint32_t mask)
{
    unsigned result = 0;
    for (int lane = 0; lane < LANES; lane++)
        if (has(mask, lane) && ((BallotCall *)arguments[lane])->predicate) result |= 1u << lane;
    for (int lane = 0; lane < LANES; lane++)
        if (has(mask, lane)) ((BallotCall *)arguments[lane])->result = result;
}

// ---- tensor cores ------------------------------------------------------------------------------
// g = lane / 4 and t = lane % 4, as in kernels/cuda/common.cuh.

struct MmaCall {
    float *d;
    const uint32_t *a, *b;
};

float bf16_value(uint32_t pair, int high)
{
    return __uint_as_float(high ? pair & 0xffff0000u : pair << 16);
}

float tf32_value(uint32_t bits) // the hardware ignores the low bits
{
    return __uint_as_float(bits & ~0x1fffu);
}

// d (16,8) += a (16,K) b (K,8), fp32 sums in the order of k.
template <int K> void multiply(void **arguments, const float (&a)[16][K], const float (&b)[K][8])
{
    for (int lane = 0; lane < LANES; lane++) {
        float *d = ((MmaCall *)arguments[lane])->d;
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            float sum = d[i];
            for (int k = 0; k < K; k++) sum += a[row][k] * b[k][column];
            d[i] = sum;
        }
    }
}

void run_mma_bf16(void **arguments, uint32_t)
{
    float a[16][16], b[16][8];
    for (int lane = 0; lane < LANES; lane++) {
        const MmaCall *c = (MmaCall *)arguments[lane];
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++)
            for (int half = 0; half < 2; half++)
                a[g + i % 2 * 8][2 * t + half + i / 2 * 8] = bf16_value(c->a[i], half);
        for (int i = 0; i < 2; i++)
            for (int half = 0; half < 2; half++)
                b[2 * t + half + i * 8][g] = bf16_value(c->b[i], half);
    }
    multiply(arguments, a, b);
}

void run_mma_tf32(void **arguments, uint32_t)
{
    float a[16][8], b[8][8];
    for (int lane = 0; lane < LANES; lane++) {
        const MmaCall *c = (MmaCall *)arguments[lane];
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) a[g + i % 2 * 8][t + i / 2 * 4] = tf32_value(c->a[i]);
        for (int i = 0; i < 2; i++) b[t + i * 4][g] = tf32_value(c->b[i]);
    }
    multiply(arguments, a, b);
}

struct LdmatrixCall {
    uint32_t *r;
    const uint16_t *row;
    bool trans;
};

void run_ldmatrix(void **arguments, uint32_t)
{
    for (int lane = 0; lane < LANES; lane++) {
        const LdmatrixCall *c = (LdmatrixCall *)arguments[lane];
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            const auto at = [&](int row, int column) -> uint32_t {
                return ((LdmatrixCall *)arguments[8 * i + row])->row[column];
            };
            c->r[i] = c->trans ? at(2 * t, g) | at(2 * t + 1, g) << 16
                               : at(g, 2 * t) | at(g, 2 * t + 1) << 16;
        }
    }
}
} // namespace

void sync_warp(unsigned mask, const char *file, int line)
{
    collective({mask, nothing, nullptr, true, file, line});
}

unsigned ballot(unsigned mask, bool predicate, const char *file, int line)
{
    BallotCall c = {predicate, 0};
    collective({mask, run_ballot, &c, false, file, line});
    return c.result;
}

uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t value, int operand, int width,
                 const char *file, int line)
{
    ShuffleCall c = {kind, operand, width, value, 0};
    collective({mask, run_shuffle, &c, false, file, line});
    return c.out;
}

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    MmaCall c = {d, a, b};
    collective({ALL, run_mma_bf16, &c, false, "mma", 0});
}

void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    MmaCall c = {d, a, b};
    collective({ALL, run_mma_tf32, &c, false, "mma", 0});
}

void ldmatrix(uint32_t (&r)[4], const uint16_t (&row)[8], bool trans)
{
    LdmatrixCall c = {r, row, trans};
    collective({ALL, run_ldmatrix, &c, false, "ldmatrix", 0});
}
} // namespace emu
