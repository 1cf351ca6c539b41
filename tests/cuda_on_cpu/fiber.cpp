#include "tests/cuda_on_cpu/fiber.h"

#include <string.h>
#include <sys/mman.h>

#include "tests/cuda_on_cpu/internal.h"
#include "tests/cuda_on_cpu/sanitizer.h"

// Saves the registers that a call preserves and the stack pointer to *save, and takes up `load`.
extern "C" void emu_switch(void **save, void *load);
#ifdef __x86_64__
asm(R"(
.text
.type emu_switch,@function
emu_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size emu_switch, .-emu_switch
)");
#else
#error "the switch between fibers is written for x86-64 only"
#endif

namespace emu
{
Fiber *current_fiber;

namespace
{
constexpr size_t STACK = 256 << 10, GUARD = 4096;
constexpr int SAVED_REGISTERS = 6;

Fiber host;
Fiber *previous;
int created;
void (*entry_function)();

// ASan wants to know where a switch arrives; it tells the stack of where it came from.
void arrived([[maybe_unused]] Fiber *here)
{
#ifdef NN_EMU_ASAN
    const void *stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(here->asan_stack, &stack, &bytes);
    if (previous == &host) {
        host.stack = (char *)stack;
        host.bytes = bytes;
    }
#endif
}

void first_entry()
{
    arrived(current_fiber);
    entry_function();
}
} // namespace

void fiber_enter_host()
{
    host.tsan = tsan_fiber_current();
    current_fiber = &host;
}

Fiber *fiber_host()
{
    return &host;
}

Fiber *fiber_create(void (*entry)())
{
    Fiber *f = new Fiber();
    char *memory = (char *)mmap(nullptr, GUARD + STACK, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for the stack of a CUDA thread");
    mprotect(memory, GUARD, PROT_NONE);
    entry_function = entry;
    f->stack = memory + GUARD;
    // Stacks that end at the same place of a page would all fall into one set of the cache.
    f->bytes = STACK - ((size_t)created++ * 1088 & 0x7fc0);
    // As emu_switch leaves it: registers, then where to return to; aligned as after a call.
    void **top = (void **)(f->stack + f->bytes) - 2;
    top[0] = (void *)first_entry;
    top[1] = nullptr;
    f->stack_pointer = memset(top - SAVED_REGISTERS, 0, SAVED_REGISTERS * sizeof *top);
    f->tsan = tsan_fiber_create();
    return f;
}

void fiber_switch(Fiber *to)
{
    Fiber *from = current_fiber;
    previous = from;
    current_fiber = to;
    tsan_fiber_switch(to->tsan);
#ifdef NN_EMU_ASAN
    __sanitizer_start_switch_fiber(&from->asan_stack, to->stack, to->bytes);
#endif
    emu_switch(&from->stack_pointer, to->stack_pointer);
    arrived(from);
}
} // namespace emu
