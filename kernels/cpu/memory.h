// Scratch memory of the operations.
#ifndef KERNELS_CPU_MEMORY_H
#define KERNELS_CPU_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/cpu/element.h"
#include "kernels/cpu/integer.h"

// Scratch memory of one operation: 64-byte aligned, contents undefined, valid until the operation
// returns. An operation asks once, before it touches anything, and returns at once when the answer
// is NULL: then the device is being planned, and only the size mattered.
void *cpu_scratch(size_t bytes);

// Between cpu_nested(true) and cpu_nested(false), the operations that an operation calls have
// scratch memory of their own. Not nested further.
void cpu_nested(bool on);

// The floats that carve() takes for n of them: whole cache lines.
static inline int64_t carved(int64_t n)
{
    return div_up(n, 16) * 16;
}

// The same for n elements.
static inline int64_t carved_elements(int64_t n)
{
    return carved(div_up(n * (int64_t)sizeof(Element), sizeof(float)));
}

// Cuts n floats off the scratch memory at *p.
static inline float *carve(float **p, int64_t n)
{
    float *start = *p;
    *p += carved(n);
    return start;
}

#endif
