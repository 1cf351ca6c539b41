// Elementary functions on vectors, and the activations made of them. A NaN goes in and comes out.
// Maximal errors, over all floats: vec_exp 1.1 units in the last place, vec_erf 5e-7.
#ifndef KERNELS_CPU_ACTIVATION_H
#define KERNELS_CPU_ACTIVATION_H

#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

#define VEC_INLINE static inline __attribute__((always_inline))

VEC_INLINE Vec vec_set(float a)
{
    return a - (Vec){0};
}

// The first `count` < VEC floats; the others are 0.
VEC_INLINE Vec vec_load_part(const float *p, int64_t count)
{
    Vec v = {0};
    memcpy(&v, p, (size_t)count * sizeof(float));
    return v;
}

VEC_INLINE void vec_store_part(float *p, Vec v, int64_t count)
{
    memcpy(p, &v, (size_t)count * sizeof(float));
}

// where ? a : b, `where` made by a comparison
VEC_INLINE Vec vec_select(VecInt where, Vec a, Vec b)
{
    return (Vec)(((VecInt)a & where) | ((VecInt)b & ~where));
}

VEC_INLINE Vec vec_clamp(Vec x, float low, float high)
{
    x = vec_select(x < low, vec_set(low), x);
    return vec_select(x > high, vec_set(high), x);
}

// x = n ln2 + r, |r| <= ln2 / 2; e^r by a polynomial; the scale 2^n in two factors, since 2^n alone
// cannot reach the denormal results.
VEC_INLINE Vec vec_exp(Vec x)
{
    const float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer
    x = vec_clamp(x, -104.0f, 89.0f);
    const Vec shifted = x * 1.44269504f + magic, n = shifted - magic;
    const Vec r = x - n * 0.693359375f - n * -2.12194440e-4f;
    Vec p = 1.395171106e-03f * r + 8.369599016e-03f;
    p = p * r + 4.166618737e-02f;
    p = p * r + 1.666651288e-01f;
    p = p * r + 0.5f;
    p = p * (r * r) + r + 1.0f;
    const VecInt whole = (VecInt)shifted - 0x4b400000, half = whole >> 1;
    return p * (Vec)((half + 127) << 23) * (Vec)((whole - half + 127) << 23);
}

// x P(x^2) on |x| <= 3.92, where erf rounds to 1; P is a polynomial of s = x^2 / (3.92^2 / 2) - 1,
// minimax with the weight |x|, its even and odd powers apart.
VEC_INLINE Vec vec_erf(Vec x)
{
    const Vec inside = vec_clamp(x, -3.92f, 3.92f);
    const Vec s = inside * inside * 1.3015410245e-01f - 1.0f, s2 = s * s;
    Vec odd = -7.976119001e-04f * s2 - 1.548956371e-03f;
    Vec even = 2.065094018e-03f * s2 + 2.028016470e-03f;
    odd = odd * s2 - 7.458000578e-03f;
    even = even * s2 + 1.407520494e-02f;
    odd = odd * s2 - 2.012756457e-02f;
    even = even * s2 + 2.977982952e-02f;
    odd = odd * s2 - 4.339158676e-02f;
    even = even * s2 + 5.837060805e-02f;
    odd = odd * s2 - 7.402750002e-02f;
    even = even * s2 + 9.060063478e-02f;
    odd = odd * s2 - 1.091786750e-01f;
    even = even * s2 + 1.340843613e-01f;
    odd = odd * s2 - 1.801086389e-01f;
    even = even * s2 + 3.607368130e-01f;
    const Vec y = inside * (odd * s + even);
    return vec_clamp(vec_select((x >= 3.92f) | (x <= -3.92f), x, y), -1.0f, 1.0f);
}

// The bounds keep infinity times 0 away; what they cut off rounds to the same result.
VEC_INLINE Vec vec_act(Activation act, Vec x)
{
    switch (act) {
    case ACT_RELU:
        return vec_select(x < 0.0f, vec_set(0.0f), x);
    case ACT_GELU:
        x = vec_select(x < -14.0f, vec_set(-14.0f), x);
        return 0.5f * x * (1.0f + vec_erf(x * 0.707106781f));
    case ACT_SILU:
        x = vec_select(x < -104.0f, vec_set(-104.0f), x);
        return x / (1.0f + vec_exp(-x));
    case ACT_NONE:
        break;
    }
    return x;
}

// act'(x); for ReLU `saved` may be y as well.
VEC_INLINE Vec vec_act_grad(Activation act, Vec saved)
{
    switch (act) {
    case ACT_RELU:
        return vec_select(saved <= 0.0f, vec_set(0.0f), vec_set(1.0f));
    case ACT_GELU: {
        const Vec x = vec_clamp(saved, -14.0f, 14.0f);
        return 0.5f + 0.5f * vec_erf(x * 0.707106781f) +
               x * (0.398942280f * vec_exp(-0.5f * x * x));
    }
    case ACT_SILU: {
        const Vec x = vec_clamp(saved, -104.0f, 104.0f);
        const Vec sigmoid = 1.0f / (1.0f + vec_exp(-x));
        return sigmoid * (1.0f + x * (1.0f - sigmoid));
    }
    case ACT_NONE:
        break;
    }
    return vec_set(1.0f);
}

#endif
