// The activations and their derivatives, in fp32. A NaN goes in and comes out; infinities give the
// limits. Errors are those of kernels/cpu/activation.h, whose approximation of the normal
// distribution this is: GELU and SiLU 3e-7 of max(1, |y|), their derivatives 4e-7.
#ifndef KERNELS_CUDA_ACTIVATION_CUH
#define KERNELS_CUDA_ACTIVATION_CUH

#include "kernels/cuda/common.cuh"

// Unlike fminf and fmaxf this keeps a NaN.
__device__ __forceinline__ float clamp(float x, float low, float high)
{
    x = x < low ? low : x;
    return x > high ? high : x;
}

// Phi(-a) of the normal distribution, 0 <= a <= 12.8; exponential gets e^(-a^2/2).
// Phi(-a) = e^(-a^2/2) u P(u), u = 1 / (1 + 0.345 a), P minimax.
__device__ __forceinline__ float normal_tail(float a, float *exponential)
{
    const float u = __fdividef(1.0f, 1.0f + 0.345f * a);
    *exponential = __expf(-0.5f * a * a);
    float p = -2.842728354e-02f * u + 1.454882997e-01f;
    p = p * u - 2.715705029e-01f;
    p = p * u + 1.876184264e-01f;
    p = p * u - 3.787051241e-02f;
    p = p * u + 1.119046643e-01f;
    p = p * u + 1.172137746e-01f;
    p = p * u + 1.380239980e-01f;
    p = p * u + 1.376191260e-01f;
    return *exponential * (u * p);
}

// g++ complains about a switch without a case, nvcc does not.
static_assert(ACTIVATIONS == 4, "nn_act() and nn_act_grad() have a case for each");

__device__ __forceinline__ float nn_act(Activation act, float x)
{
    switch (act) {
    case ACT_NONE:
        break;
    case ACT_RELU:
        return x < 0.0f ? 0.0f : x;
    case ACT_GELU: { // x Phi(x) = max(x, 0) - |x| Phi(-|x|)
        const float a = clamp(fabsf(x), 0.0f, 12.8f);
        float exponential;
        return (x < 0.0f ? 0.0f : x) - a * normal_tail(a, &exponential);
    }
    case ACT_SILU:
        x = x < -87.0f ? -87.0f : x; // a quotient's divisor stays below 2^126
        return __fdividef(x, 1.0f + __expf(-x));
    }
    return x;
}

// Whether act(x) is so short that conv2d.cuh computes it where its loops are unrolled.
__device__ __forceinline__ bool nn_act_is_short(Activation act)
{
    return act == ACT_NONE || act == ACT_RELU;
}

// nn_act() of a short one.
__device__ __forceinline__ float nn_act_short(Activation act, float x)
{
    return act == ACT_RELU ? nn_act(ACT_RELU, x) : x;
}

// act'(x); for ReLU `saved` may be y as well.
__device__ __forceinline__ float nn_act_grad(Activation act, float saved)
{
    switch (act) {
    case ACT_NONE:
        break;
    case ACT_RELU:
        return saved <= 0.0f ? 0.0f : 1.0f;
    case ACT_GELU: { // Phi(x) + x phi(x)
        const float x = clamp(saved, -12.8f, 12.8f);
        float exponential;
        const float tail = normal_tail(fabsf(x), &exponential);
        return (x < 0.0f ? tail : 1.0f - tail) + x * (0.398942280f * exponential);
    }
    case ACT_SILU: {
        const float x = clamp(saved, -87.0f, 87.0f), e = __expf(-x);
        const float sigmoid = __fdividef(1.0f, 1.0f + e);
        return sigmoid * (1.0f + x * (e * sigmoid));
    }
    }
    return 1.0f;
}

#endif
