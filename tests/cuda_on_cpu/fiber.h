// Fibers: threads of execution with a stack of their own, switched by hand, in nanoseconds.
#ifndef TESTS_CUDA_ON_CPU_FIBER_H
#define TESTS_CUDA_ON_CPU_FIBER_H

#include <stddef.h>

namespace emu
{
struct Fiber {
    void *stack_pointer; // while it is not running
    char *stack;         // lowest address
    size_t bytes;
    void *asan_stack; // its own, while it is not running
    void *tsan;
    int start; // the CUDA thread it begins with
};

extern Fiber *current_fiber;

// The caller becomes the context to which fibers return.
void fiber_enter_host();
Fiber *fiber_host();

// `entry` must not return.
Fiber *fiber_create(void (*entry)());

void fiber_switch(Fiber *to);
} // namespace emu

#endif
