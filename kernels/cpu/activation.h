// The activations and their derivatives on vectors. A NaN goes in and comes out.
// Maximal errors over all floats: GELU and SiLU 2e-7 of max(1, |y|), their derivatives 3e-7; GELU
// for bfloat16 5e-6 of |y|, its derivative 8e-7.
#ifndef KERNELS_CPU_ACTIVATION_H
#define KERNELS_CPU_ACTIVATION_H

#include "kernels/cpu/vec.h"
#include "kernels/kernels.h"

// Phi(-a) of the normal distribution, a >= 0; exponential gets e^(-a^2/2). Phi(-a) =
// e^(-a^2/2) u P(u), u = 1 / (1 + c a), P minimax on 0 <= a <= 13. Beyond 12.8 the value stays at
// that of 12.8, about 1e-37.
#if CPU_BF16
// 1 / x by an estimate and a step of Newton's: a division would take longer than the rest below.
INLINE Vec vec_reciprocal(Vec x)
{
#if defined(__AVX512F__)
    const Vec rough = (Vec)_mm512_rcp14_ps((__m512)x);
    return rough * (2.0f - x * rough);
#else
    return 1.0f / x;
#endif
}

// To 4e-6 of itself, a five hundredth of what rounding to bfloat16 may add.
INLINE Vec vec_normal_tail(Vec a, Vec *exponential)
{
    const float magic = 12582912.0f; // as in vec_exp()
    a = vec_select(a > 12.8f, vec_set(12.8f), a);
    const Vec u = vec_reciprocal(1.0f + 0.36f * a);
    const Vec x = a * a * -0.721347520f, shifted = x + magic, r = x - (shifted - magic);
    Vec e = 9.57010190e-03f * r + 5.59178603e-02f; // 2^r
    e = e * r + 2.40247448e-01f;
    e = e * r + 6.93121815e-01f;
    e = e * r + 9.99999261e-01f;
    *exponential = (Vec)((VecInt)e + ((VecInt)shifted << 23));
    Vec p = 4.77758457e-02f * u - 1.82226738e-01f;
    p = p * u + 1.84306917e-01f;
    p = p * u + 2.42360838e-02f;
    p = p * u + 1.40567086e-01f;
    p = p * u + 1.41616791e-01f;
    p = p * u + 1.43724184e-01f;
    return *exponential * (u * p);
}
#else
// To a few units in the last place.
INLINE Vec vec_normal_tail(Vec a, Vec *exponential)
{
    a = vec_select(a > 12.8f, vec_set(12.8f), a);
    const Vec u = 1.0f / (1.0f + 0.345f * a);
    *exponential = vec_exp(-0.5f * a * a);
    Vec p = -2.842728354e-02f * u + 1.454882997e-01f;
    p = p * u - 2.715705029e-01f;
    p = p * u + 1.876184264e-01f;
    p = p * u - 3.787051241e-02f;
    p = p * u + 1.119046643e-01f;
    p = p * u + 1.172137746e-01f;
    p = p * u + 1.380239980e-01f;
    p = p * u + 1.376191260e-01f;
    return *exponential * (u * p);
}
#endif

// x Phi(x) = max(x, 0) - |x| Phi(-|x|)
INLINE Vec vec_gelu(Vec x)
{
    const Vec a = vec_select(vec_abs(x) > 12.8f, vec_set(12.8f), vec_abs(x));
    Vec exponential;
    return vec_select(x < 0.0f, vec_set(0.0f), x) - a * vec_normal_tail(a, &exponential);
}

// Phi(x) + x phi(x)
INLINE Vec vec_gelu_grad(Vec x)
{
    x = vec_clamp(x, -12.8f, 12.8f);
    Vec exponential;
    const Vec tail = vec_normal_tail(vec_abs(x), &exponential);
    return vec_select(x < 0.0f, tail, 1.0f - tail) + x * (0.398942280f * exponential);
}

// The bounds keep infinity times 0 away; what they cut off rounds to the same result.
INLINE Vec vec_act(Activation act, Vec x)
{
    switch (act) {
    case ACT_RELU:
        return vec_select(x < 0.0f, vec_set(0.0f), x);
    case ACT_GELU:
        return vec_gelu(x);
    case ACT_SILU:
        x = vec_select(x < -104.0f, vec_set(-104.0f), x);
        return x / (1.0f + vec_exp(-x));
    case ACT_NONE:
        break;
    }
    return x;
}

// act'(x); for ReLU `saved` may be y as well.
INLINE Vec vec_act_grad(Activation act, Vec saved)
{
    switch (act) {
    case ACT_RELU:
        return vec_select(saved <= 0.0f, vec_set(0.0f), vec_set(1.0f));
    case ACT_GELU:
        return vec_gelu_grad(saved);
    case ACT_SILU: {
        const Vec x = vec_clamp(saved, -87.0f, 104.0f);
        const Vec e = vec_exp(-x), sigmoid = 1.0f / (1.0f + e);
        return sigmoid * (1.0f + x * (e * sigmoid));
    }
    case ACT_NONE:
        break;
    }
    return vec_set(1.0f);
}

// Makes `call` with a variable `fixed` = act that is a constant in each branch: the loop that is
// inlined there then holds one activation and keeps its coefficients in registers.
#define BY_ACTIVATION(act, call)                                                                   \
    switch (act) {                                                                                 \
        EACH_ACTIVATION(WITH_ACTIVATION_FIXED, call)                                               \
    }
#define WITH_ACTIVATION_FIXED(act, name, call)                                                     \
    case act: {                                                                                    \
        const Activation fixed = act;                                                              \
        call;                                                                                      \
        break;                                                                                     \
    }

#endif
