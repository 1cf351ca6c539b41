// Vectors of floats that fill a register, and elementary functions on them. They are GCC's vector
// types, so that one source serves AVX-512, AVX2 and plain C. A NaN goes in and comes out.
#ifndef KERNELS_CPU_VEC_H
#define KERNELS_CPU_VEC_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

// Floats in one vector register.
#if defined(__AVX512F__)
enum { VEC = 16 };
#elif defined(__AVX__)
enum { VEC = 8 };
#else
enum { VEC = 4 };
#endif
typedef float Vec __attribute__((vector_size(VEC * sizeof(float))));
typedef int32_t VecInt __attribute__((vector_size(VEC * sizeof(float))));
typedef Vec VecU __attribute__((aligned(4), may_alias)); // for unaligned loads and stores

static inline Vec vec_load(const float *p)
{
    return *(const VecU *)p;
}

static inline void vec_store(float *p, Vec v)
{
    *(VecU *)p = v;
}

INLINE Vec vec_set(float a)
{
    return a - (Vec){0};
}

// The first `count` < VEC floats; the others are 0.
INLINE Vec vec_load_part(const float *p, int64_t count)
{
#if defined(__AVX512F__)
    return (Vec)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p);
#else
    Vec v = {0};
    memcpy(&v, p, (size_t)count * sizeof(float));
    return v;
#endif
}

INLINE void vec_store_part(float *p, Vec v, int64_t count)
{
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), (__m512)v);
#else
    memcpy(p, &v, (size_t)count * sizeof(float));
#endif
}

// Any positive count: at most VEC floats are touched.
INLINE Vec vec_load_up_to(const float *p, int64_t count)
{
    return count >= VEC ? vec_load(p) : vec_load_part(p, count);
}

INLINE void vec_store_up_to(float *p, Vec v, int64_t count)
{
    if (count >= VEC)
        vec_store(p, v);
    else
        vec_store_part(p, v, count);
}

// where ? a : b, `where` made by a comparison
INLINE Vec vec_select(VecInt where, Vec a, Vec b)
{
    return (Vec)(((VecInt)a & where) | ((VecInt)b & ~where));
}

// sqrtf sets errno, which keeps a compiler from using vectors.
INLINE Vec vec_sqrt(Vec x)
{
#if defined(__AVX512F__)
    return (Vec)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX__)
    return (Vec)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE__)
    return (Vec)_mm_sqrt_ps((__m128)x);
#else
    for (int i = 0; i < VEC; i++) x[i] = sqrtf(x[i]);
    return x;
#endif
}

INLINE Vec vec_clamp(Vec x, float low, float high)
{
    x = vec_select(x < low, vec_set(low), x);
    return vec_select(x > high, vec_set(high), x);
}

// Bytes as integers, 0 beyond `count` of them. (A copy of variable length would be taken apart
// byte by byte.)
INLINE VecInt vec_load_bytes_up_to(const uint8_t *p, int64_t count)
{
    typedef uint8_t Bytes __attribute__((vector_size(VEC)));
    Bytes bytes = {0};
#if defined(__AVX512VL__) && defined(__AVX512BW__)
    bytes = (Bytes)_mm_maskz_loadu_epi8((__mmask16)(count >= VEC ? 0xffff : (1u << count) - 1), p);
#else
    if (count >= VEC)
        memcpy(&bytes, p, VEC);
    else
        memcpy(&bytes, p, (size_t)count);
#endif
#if defined(__AVX512F__)
    return (VecInt)_mm512_cvtepu8_epi32((__m128i)bytes); // GCC 12 would convert one by one
#else
    return __builtin_convertvector(bytes, VecInt);
#endif
}

INLINE Vec vec_abs(Vec x)
{
    return (Vec)((VecInt)x & 0x7fffffff);
}

// To 1.1 units in the last place. x = n ln2 + r, |r| <= ln2 / 2; e^r by a polynomial; the scale 2^n
// in two factors, since 2^n alone cannot reach the denormal results.
INLINE Vec vec_exp(Vec x)
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

#endif
