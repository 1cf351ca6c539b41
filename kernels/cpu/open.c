// Opens the CPU backend: the processor's instructions, the threads, and the table of operations.
#include <omp.h>
#include <stdio.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/element.h"
#include "kernels/cpu/gemm.h"
#include "base/os.h"

enum { MOST_THREADS = 4096 };

// What x86-64-v3 and -v4 let the compiler use; F16C, LZCNT and MOVBE come with the first four.
// gcc 11 and clang 14 know no levels by name.
#define LEVEL_V3                                                                                   \
    (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&                            \
     __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
#define LEVEL_V4                                                                                   \
    (LEVEL_V3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&        \
     __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&                   \
     __builtin_cpu_supports("avx512vl"))

#if defined(__AVX512BF16__)
#define INSTRUCTIONS "AVX-512 with bf16"
#define INSTRUCTIONS_PRESENT (LEVEL_V4 && __builtin_cpu_supports("avx512bf16"))
#elif defined(__AVX512VL__)
#define INSTRUCTIONS "AVX-512"
#define INSTRUCTIONS_PRESENT LEVEL_V4
#elif defined(__AVX2__) && defined(__FMA__)
#define INSTRUCTIONS "AVX2"
#define INSTRUCTIONS_PRESENT LEVEL_V3
#else
#define INSTRUCTIONS "no AVX2"
#define INSTRUCTIONS_PRESENT true
#endif

static void set_operations(Kernels *k)
{
    cpu_memory_ops(k);
    cpu_control_ops(k);
    cpu_gather_ops(k);
    cpu_linear_ops(k);
    cpu_conv2d_ops(k);
    cpu_conv2d_pool_backward_ops(k);
    cpu_activation_ops(k);
    cpu_norm_ops(k);
    cpu_pool_ops(k);
    cpu_loss_ops(k);
    cpu_optimizer_ops(k);
    cpu_vector_ops(k);
}

int CPU_OPEN(const Kernels **k, int threads, Error *e)
{
    static Kernels cpu = {
        .device = "cpu", .element = CPU_BF16 ? BF16 : F32, .element_size = sizeof(Element)};
    if (!INSTRUCTIONS_PRESENT)
        return fail(e, STATUS_DEVICE,
                    "this program was built for " INSTRUCTIONS
                    ", which this processor lacks: rebuild it here, or with make PORTABLE=1");
    if (threads < 0 || threads > MOST_THREADS)
        return fail(e, STATUS_USAGE, "--threads %d: expected 1 to %d, or 0 for all processors",
                    threads, MOST_THREADS);
    const bool matrix_unit = gemm_open_matrix_unit();
    cpu_threads = threads ? threads : os_cpu_count();
    omp_set_dynamic(0);
    omp_set_num_threads(cpu_threads);
    snprintf(cpu.description, sizeof cpu.description, "%.80s, %d thread%s, %s%s", os_cpu_model(),
             cpu_threads, cpu_threads == 1 ? "" : "s", INSTRUCTIONS, matrix_unit ? " and AMX" : "");
    set_operations(&cpu);
    *k = &cpu;
    return STATUS_OK;
}
