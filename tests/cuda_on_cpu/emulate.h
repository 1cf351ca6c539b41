// What nvcc gives to CUDA sources and g++ does not: built-in variables, barriers, warp operations,
// atomics, intrinsics, shared memory and launches. With it kernels/cuda/*.cu compile as C++17 and
// run on a CPU; types, enums and prototypes come from the toolkit's own headers.
//
// Each CUDA thread is a fiber (fiber.h); block.cpp runs the blocks of a grid one after the other.
#ifndef TESTS_CUDA_ON_CPU_EMULATE_H
#define TESTS_CUDA_ON_CPU_EMULATE_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <math.h>
#include <memory>
#include <stdint.h>
#include <string.h>
#include <tuple>
#include <type_traits>

#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __shared__
#define __shared__ shared_memory_is_declared_with_NN_SHARED_only

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

// The place of a call, for reports: as the last parameters of a function.
#define EMU_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace emu
{
// Prints the message and the running kernel, block and thread, and aborts.
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

// ---- launch ------------------------------------------------------------------------------------

struct Body {               // a kernel with its arguments
    virtual void run() = 0; // one CUDA thread
    virtual ~Body()
    {
    }
};

template <class... P> struct BodyOf final : Body {
    void (*kernel)(P...);
    std::tuple<P...> arguments;
    BodyOf(void (*k)(P...), const std::tuple<P...> &a) : kernel(k), arguments(a)
    {
    }
    void run() override
    {
        std::apply(kernel, arguments);
    }
};

struct Grid {
    dim3 grid, block;
    size_t shared_bytes; // dynamic
    const void *kernel;
    std::shared_ptr<Body> body;
    const char *file; // of the launch
    int line;
};

// `pointers`: the kernel's pointer arguments, which must be NULL or in device memory.
cudaError_t launch(const Grid &g, cudaStream_t stream, const void *const *pointers, int count);

template <class T> inline const void *pointer_or_null(const T &argument)
{
    if constexpr (std::is_pointer_v<T>)
        return (const void *)argument;
    else
        return nullptr;
}

// ---- inside a kernel ---------------------------------------------------------------------------

struct SharedArray { // one declaration of shared memory
    size_t bytes, alignment;
    const char *name, *file;
    int line;
    uint64_t launch; // for which `address` was given
    void *address;
};
void *shared_array(SharedArray *a);
void *shared_dynamic();
uint32_t shared_address(const void *p);

void barrier(const char *file, int line);
int barrier_count(bool predicate, const char *file, int line); // threads for which it holds
void sync_warp(unsigned mask, const char *file, int line);
unsigned ballot(unsigned mask, bool predicate, const char *file, int line);
enum Shuffle { SHUFFLE_INDEX, SHUFFLE_UP, SHUFFLE_DOWN, SHUFFLE_XOR };
uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t value, int operand, int width,
                 const char *file, int line);
void fence();
void after_atomic(); // where another thread may run

// `read` of `bytes` are copied, the rest is set to 0.
void cp_async(void *shared, const void *global, int bytes, int read);
void cp_async_commit();
void cp_async_wait(int groups);

// Whole warps; fragments as in kernels/cuda/common.cuh.
void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void ldmatrix(uint32_t (&r)[4], const uint16_t (&row)[8], bool trans);

// Of sm_90a, as in kernels/cuda/wgmma.cuh (wgmma.cpp).
void named_barrier(int id, int threads, EMU_PLACE);
void mbarrier_init(uint64_t *barrier, int arrivals);
void mbarrier_arrive(uint64_t *barrier);
void mbarrier_wait(uint64_t *barrier, uint32_t parity, EMU_PLACE);
void fence_async_proxy();
void wgmma_fence();
// d (2,n/4) of a thread; transposed: both factors are "MN-major", else "K-major".
void wgmma_bf16(float *d, int n, uint64_t a, uint64_t b, bool transposed);
void wgmma_commit();
void wgmma_wait(int groups);

// Each lane reads its own row, in code that sanitizers see.
inline void ldmatrix_x4(uint32_t (&r)[4], const void *row, bool trans)
{
    uint16_t values[8];
    if ((uintptr_t)row % 16) fail("ldmatrix: the row at %p is not 16-byte aligned", row);
    memcpy(values, row, 16);
    ldmatrix(r, values, trans);
}

template <class T>
inline T shuffle_as(Shuffle kind, unsigned mask, T value, int operand, int width, const char *file,
                    int line)
{
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "what a shuffle can move");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = shuffle(kind, mask, bits, operand, width, file, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Fibers run until they wait, so a plain change is atomic; TSan must see one that says so.
template <class T, class Change> inline T atomic(T *p, Change change)
{
#ifdef __SANITIZE_THREAD__
    T old, changed;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do changed = change(old);
    while (
        !__atomic_compare_exchange(p, &old, &changed, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
#else
    const T old = *p;
    *p = change(old);
#endif
    after_atomic();
    return old;
}
} // namespace emu

#define nn_launch_at emu_launch_at
template <class... P, class... A>
inline void emu_launch_at(const char *file, int line, void (*kernel)(P...), dim3 grid, dim3 block,
                          size_t shared_bytes, cudaStream_t stream, A &&...arguments)
{
    static_assert(sizeof...(P) == sizeof...(A), "the kernel takes another number of arguments");
    static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments are copied as bytes");
    static_assert((sizeof(P) + ... + 0) <= 4096, "kernel arguments are at most 4 KB");
    const std::tuple<P...> copies(static_cast<P>(arguments)...);
    const void *pointers[sizeof...(P) + 1];
    int count = 0;
    std::apply([&](const P &...p) { ((pointers[count++] = emu::pointer_or_null(p)), ...); },
               copies);
    emu::launch({grid, block, shared_bytes, (const void *)kernel,
                 std::make_shared<emu::BodyOf<P...>>(kernel, copies), file, line},
                stream, pointers, count);
}

#define NN_SHARED(T, name, ...)                                                                    \
    using name##_type = T __VA_ARGS__;                                                             \
    static emu::SharedArray name##_array{                                                          \
        sizeof(name##_type), alignof(name##_type), #name, __FILE__, __LINE__, 0, nullptr};         \
    name##_type &name = *(name##_type *)emu::shared_array(&name##_array)
#define NN_SHARED_DYN(T, name) T *name = (T *)emu::shared_dynamic()

// ---- barriers and warp operations --------------------------------------------------------------

inline void __syncthreads(EMU_PLACE)
{
    emu::barrier(file, line);
}

inline int __syncthreads_count(int predicate, EMU_PLACE)
{
    return emu::barrier_count(predicate != 0, file, line);
}

inline int __syncthreads_or(int predicate, EMU_PLACE)
{
    return emu::barrier_count(predicate != 0, file, line) != 0;
}

inline int __syncthreads_and(int predicate, EMU_PLACE)
{
    return emu::barrier_count(predicate == 0, file, line) == 0;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_PLACE)
{
    emu::sync_warp(mask, file, line);
}

template <class T> inline T __shfl_sync(unsigned mask, T x, int lane, int width = 32, EMU_PLACE)
{
    return emu::shuffle_as(emu::SHUFFLE_INDEX, mask, x, lane, width, file, line);
}

template <class T>
inline T __shfl_up_sync(unsigned mask, T x, unsigned delta, int width = 32, EMU_PLACE)
{
    return emu::shuffle_as(emu::SHUFFLE_UP, mask, x, (int)delta, width, file, line);
}

template <class T>
inline T __shfl_down_sync(unsigned mask, T x, unsigned delta, int width = 32, EMU_PLACE)
{
    return emu::shuffle_as(emu::SHUFFLE_DOWN, mask, x, (int)delta, width, file, line);
}

template <class T> inline T __shfl_xor_sync(unsigned mask, T x, int with, int width = 32, EMU_PLACE)
{
    return emu::shuffle_as(emu::SHUFFLE_XOR, mask, x, with, width, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, EMU_PLACE)
{
    return emu::ballot(mask, predicate != 0, file, line);
}

inline int __any_sync(unsigned mask, int predicate, EMU_PLACE)
{
    return emu::ballot(mask, predicate != 0, file, line) != 0;
}

inline int __all_sync(unsigned mask, int predicate, EMU_PLACE)
{
    return emu::ballot(mask, predicate != 0, file, line) == mask;
}

inline void __threadfence()
{
    emu::fence();
}

inline void __threadfence_block()
{
    emu::fence();
}

[[noreturn]] inline void __trap()
{
    emu::fail("__trap()");
}

// ---- atomics -----------------------------------------------------------------------------------

template <class T> inline T atomicAdd(T *p, std::common_type_t<T> x)
{
    return emu::atomic(p, [=](T old) { return (T)(old + x); });
}

template <class T> inline T atomicMax(T *p, std::common_type_t<T> x)
{
    return emu::atomic(p, [=](T old) { return old > x ? old : x; });
}

template <class T> inline T atomicMin(T *p, std::common_type_t<T> x)
{
    return emu::atomic(p, [=](T old) { return old < x ? old : x; });
}

template <class T> inline T atomicOr(T *p, std::common_type_t<T> x)
{
    return emu::atomic(p, [=](T old) { return (T)(old | x); });
}

template <class T> inline T atomicExch(T *p, std::common_type_t<T> x)
{
    return emu::atomic(p, [=](T) { return x; });
}

template <class T> inline T atomicCAS(T *p, std::common_type_t<T> expected, std::common_type_t<T> x)
{
    return emu::atomic(p, [=](T old) { return old == expected ? x : old; });
}

inline unsigned atomicInc(unsigned *p, unsigned last)
{
    return emu::atomic(p, [=](unsigned old) { return old >= last ? 0 : old + 1; });
}

// ---- loads and stores with a hint for the cache ------------------------------------------------

template <class T> inline T __ldg(const T *p)
{
    return *p;
}

template <class T> inline T __ldcs(const T *p)
{
    return *p;
}

template <class T> inline T __ldcg(const T *p)
{
    return *p;
}

template <class T> inline void __stcs(T *p, std::common_type_t<T> x)
{
    *p = x;
}

template <class T> inline void __stcg(T *p, std::common_type_t<T> x)
{
    *p = x;
}

// ---- arithmetic --------------------------------------------------------------------------------
// Macros where glibc declares the same name.

#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)

inline float rsqrtf(float x)
{
    return 1 / sqrtf(x);
}

inline float normcdff(float x)
{
    return 0.5f * erfcf(x * -0.70710678f);
}

inline float __fdividef(float a, float b)
{
    return a / b;
}

inline float __frcp_rn(float x)
{
    return 1 / x;
}

inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}

inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}

inline float __fadd_rn(float a, float b)
{
    return a + b;
}

inline float __fmul_rn(float a, float b)
{
    return a * b;
}

// Byte i of the result is that of b:a which digit i of `digits` names.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned digits)
{
    const uint64_t bytes = (uint64_t)b << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; i++)
        result |= (unsigned)(bytes >> (digits >> 4 * i & 7) * 8 & 0xff) << 8 * i;
    return result;
}

inline unsigned __float_as_uint(float x)
{
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}

inline int __float_as_int(float x)
{
    return (int)__float_as_uint(x);
}

inline float __uint_as_float(unsigned bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

inline float __int_as_float(int bits)
{
    return __uint_as_float((unsigned)bits);
}

inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}

inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}

inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

#define EMU_MIN_MAX(T)                                                                             \
    inline T min(T a, T b)                                                                         \
    {                                                                                              \
        return b < a ? b : a;                                                                      \
    }                                                                                              \
    inline T max(T a, T b)                                                                         \
    {                                                                                              \
        return a < b ? b : a;                                                                      \
    }
EMU_MIN_MAX(int)
EMU_MIN_MAX(unsigned)
EMU_MIN_MAX(long)
EMU_MIN_MAX(unsigned long)
EMU_MIN_MAX(long long)
EMU_MIN_MAX(unsigned long long)
#undef EMU_MIN_MAX

inline float min(float a, float b) // the number where one is NaN
{
    return fminf(a, b);
}

inline float max(float a, float b)
{
    return fmaxf(a, b);
}

#endif
