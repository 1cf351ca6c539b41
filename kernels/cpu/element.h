// The element type of activations and working weights: this directory is compiled once with float
// and once with bfloat16 (CPU_BF16), which is the upper half of a float. Arithmetic is in float
// either way; a store to bfloat16 rounds to nearest, ties to even. The processor's own instruction
// (AVX512_BF16) makes denormals zero, elem_put() and the other vector code keep them.
#ifndef KERNELS_CPU_ELEMENT_H
#define KERNELS_CPU_ELEMENT_H

#include <string.h>

#include "kernels/cpu/vec.h"

#if CPU_BF16

typedef uint16_t Element; // the upper half of a float

static inline float elem_get(Element x)
{
    const uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, sizeof y);
    return y;
}

static inline Element elem_put(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return (Element)(bits >> 16 | 0x40); // NaN stays one
    return (Element)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

typedef uint16_t VecHalf __attribute__((vector_size(VEC * sizeof(uint16_t))));
typedef VecHalf VecHalfU __attribute__((aligned(2), may_alias));
typedef uint32_t VecBits __attribute__((vector_size(VEC * sizeof(float))));

INLINE Vec half_to_vec(VecHalf half)
{
    return (Vec)(__builtin_convertvector(half, VecBits) << 16);
}

INLINE VecHalf vec_to_half(Vec v)
{
#if defined(__AVX512BF16__)
    return (VecHalf)_mm512_cvtneps_pbh((__m512)v);
#else
    const VecBits bits = (VecBits)v, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const VecBits nan = (VecBits)(v != v), quiet = bits >> 16 | 0x40;
    return __builtin_convertvector((quiet & nan) | (rounded & ~nan), VecHalf);
#endif
}

INLINE Vec elem_load(const Element *p)
{
    return half_to_vec(*(const VecHalfU *)p);
}

INLINE void elem_store(Element *p, Vec v)
{
    *(VecHalfU *)p = vec_to_half(v);
}

INLINE Vec elem_round(Vec v)
{
    return half_to_vec(vec_to_half(v));
}

INLINE Vec elem_load_part(const Element *p, int64_t count)
{
#if defined(__AVX512VL__) && defined(__AVX512BW__)
    return half_to_vec((VecHalf)_mm256_maskz_loadu_epi16((__mmask16)((1u << count) - 1), p));
#else
    VecHalf half = {0};
    memcpy(&half, p, (size_t)count * sizeof *p);
    return half_to_vec(half);
#endif
}

INLINE void elem_store_part(Element *p, Vec v, int64_t count)
{
    const VecHalf half = vec_to_half(v);
#if defined(__AVX512VL__) && defined(__AVX512BW__)
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << count) - 1), (__m256i)half);
#else
    memcpy(p, &half, (size_t)count * sizeof *p);
#endif
}

#else

typedef float Element;

static inline float elem_get(Element x)
{
    return x;
}

static inline Element elem_put(float x)
{
    return x;
}

INLINE Vec elem_load(const Element *p)
{
    return vec_load(p);
}

INLINE void elem_store(Element *p, Vec v)
{
    vec_store(p, v);
}

INLINE Vec elem_round(Vec v)
{
    return v;
}

INLINE Vec elem_load_part(const Element *p, int64_t count)
{
    return vec_load_part(p, count);
}

INLINE void elem_store_part(Element *p, Vec v, int64_t count)
{
    vec_store_part(p, v, count);
}

#endif

// A load from a long run that is passed over once. The prefetch matters where much is computed
// between two loads, so that few of them are under way: it doubled the speed of a GELU over a large
// map on a virtual machine whose hardware prefetcher does little.
INLINE Vec elem_load_ahead(const Element *p)
{
    __builtin_prefetch(p + 4096 / sizeof(Element));
    return elem_load(p);
}

// Any positive count: at most VEC elements are touched.
INLINE Vec elem_load_up_to(const Element *p, int64_t count)
{
    return count >= VEC ? elem_load(p) : elem_load_part(p, count);
}

INLINE void elem_store_up_to(Element *p, Vec v, int64_t count)
{
    if (count >= VEC)
        elem_store(p, v);
    else
        elem_store_part(p, v, count);
}

#endif
