// What the shim tells the sanitizers. The shim itself is compiled without them, with NN_EMU_ASAN or
// NN_EMU_TSAN defined where the kernels are compiled with one.
#ifndef TESTS_CUDA_ON_CPU_SANITIZER_H
#define TESTS_CUDA_ON_CPU_SANITIZER_H

#include <stddef.h>

#ifdef NN_EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef NN_EMU_TSAN
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/tsan_interface.h>
#endif

namespace emu
{
// ---- AddressSanitizer --------------------------------------------------------------------------

#ifdef NN_EMU_ASAN
inline void poison(const void *p, size_t bytes)
{
    __asan_poison_memory_region(p, bytes);
}
inline void unpoison(const void *p, size_t bytes)
{
    __asan_unpoison_memory_region(p, bytes);
}
inline const void *first_poisoned(const void *p, size_t bytes)
{
    return __asan_region_is_poisoned((void *)p, bytes);
}
#else
inline void poison(const void *, size_t)
{
}
inline void unpoison(const void *, size_t)
{
}
inline const void *first_poisoned(const void *, size_t)
{
    return nullptr;
}
#endif

// ---- ThreadSanitizer ---------------------------------------------------------------------------
// A clock is any address: what a thread did before release(p) happens before what another does
// after acquire(p). Memory that is freed forgets its clocks.

#ifdef NN_EMU_TSAN
constexpr bool TSAN = true;
inline void *tsan_fiber_current()
{
    return __tsan_get_current_fiber();
}
inline void *tsan_fiber_create()
{
    return __tsan_create_fiber(0);
}
inline void tsan_fiber_switch(void *fiber) // orders nothing
{
    __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync);
}
inline void acquire(void *clock)
{
    __tsan_acquire(clock);
}
inline void release(void *clock)
{
    __tsan_release(clock);
}
#else
constexpr bool TSAN = false;
inline void *tsan_fiber_current()
{
    return nullptr;
}
inline void *tsan_fiber_create()
{
    return nullptr;
}
inline void tsan_fiber_switch(void *)
{
}
inline void acquire(void *)
{
}
inline void release(void *)
{
}
#endif

inline void print_stack()
{
#if defined(NN_EMU_ASAN) || defined(NN_EMU_TSAN)
    __sanitizer_print_stack_trace();
#endif
}
} // namespace emu

#endif
