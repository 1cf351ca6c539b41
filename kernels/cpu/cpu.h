// What the files of the CPU backend share. Vectors are GCC's vector types, so that one source
// serves
// AVX-512, AVX2 and plain C. The Makefile compiles the directory once for each instruction set and
// element type, with CPU_OPEN the name of that variant's cpu_open and CPU_BF16 0 or 1.
#ifndef KERNELS_CPU_CPU_H
#define KERNELS_CPU_CPU_H

#include "kernels/kernels.h"

#if CPU_BF16
typedef uint16_t Element; // the upper half of a float
#else
typedef float Element;
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

// threads 0: all that this process may use. STATUS_DEVICE: the processor lacks the instructions.
int CPU_OPEN(const Kernels **k, int threads, Error *e);

// Each file puts its operations into the table.
void cpu_gather_ops(Kernels *k);
void cpu_linear_ops(Kernels *k);
void cpu_conv2d_ops(Kernels *k);
void cpu_activation_ops(Kernels *k);
void cpu_norm_ops(Kernels *k);
void cpu_pool_ops(Kernels *k);
void cpu_loss_ops(Kernels *k);
void cpu_optimizer_ops(Kernels *k);
void cpu_vector_ops(Kernels *k);

// The values of the step that is running, and the number of threads to use.
extern StepValues cpu_step;
extern int cpu_threads;

// Scratch memory of one operation: 64-byte aligned, contents undefined, valid until the operation
// returns. An operation asks once, before it touches anything, and returns at once when the answer
// is NULL: then the device is being planned, and only the size mattered.
void *cpu_scratch(size_t bytes);

// Between cpu_nested(true) and cpu_nested(false), the operations that an operation calls have
// scratch memory of their own. Not nested further.
void cpu_nested(bool on);

#endif
