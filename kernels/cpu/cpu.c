// The CPU backend: memory and control. The operations are in the other files of this directory.
#include "kernels/cpu/gemm.h"

#include <assert.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/os.h"

enum { ALIGNMENT = 256, HUGE_PAGE = 2 << 20, MOST_THREADS = 4096 };

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

StepValues cpu_step = {.hyper = {[HYPER_ONE] = 1}};
int cpu_threads = 1;

// [1] serves the operations that an operation calls.
static struct {
    void *memory;
    size_t size, wanted;
} scratch[2];
static int level;
static bool planning;

// Big blocks get huge pages: the TLB would otherwise limit strided access. NULL without memory.
static void *allocate(size_t bytes)
{
    const bool big = bytes >= HUGE_PAGE / 8;
    if (bytes > (size_t)os_memory_total()) return NULL;
    if (big) bytes = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *p;
    if (posix_memalign(&p, big ? HUGE_PAGE : ALIGNMENT, bytes ? bytes : 1)) return NULL;
    if (big) madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

static bool grow_scratch(int i, size_t bytes)
{
#ifdef __SANITIZE_ADDRESS__ // exactly what was asked for, so that an overrun is seen
    if (bytes == scratch[i].size) return true;
#else
    if (bytes <= scratch[i].size) return true;
#endif
    free(scratch[i].memory);
    scratch[i].memory = allocate(bytes);
    scratch[i].size = scratch[i].memory ? bytes : 0;
    return scratch[i].memory != NULL;
}

// Calls that were not planned (in tests, say) enlarge the memory when they come.
void *cpu_scratch(size_t bytes)
{
    if (planning) {
        if (bytes > scratch[level].wanted) scratch[level].wanted = bytes;
        return NULL;
    }
    if (!grow_scratch(level, bytes ? bytes : 1))
        die(STATUS_IO, "no %zu bytes of scratch memory: use a smaller --batch-size", bytes);
    return scratch[level].memory;
}

void cpu_nested(bool on)
{
    assert(level == !on);
    level = on;
}

static int set_planning(bool on, Error *e)
{
    planning = on;
    for (int i = 0; i < 2; i++) {
        if (on)
            scratch[i].wanted = 0;
        else if (!grow_scratch(i, scratch[i].wanted))
            return fail(e, STATUS_IO, "no %zu bytes of scratch memory: use a smaller --batch-size",
                        scratch[i].wanted);
    }
    return STATUS_OK;
}

static void *alloc_zeroed(size_t bytes)
{
    void *p = allocate(bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

// Where there is no /proc, all memory counts as free.
static size_t memory_free(void)
{
    const size_t total = (size_t)os_memory_total();
    size_t available = total, kilobytes;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %zu", &kilobytes) == 1) available = kilobytes * 1024;
    if (f) fclose(f);
    return available < total ? available : total;
}

static void copy(void *dst, const void *src, size_t bytes)
{
    memcpy(dst, src, bytes);
}

static void zero(void *p, size_t bytes)
{
    memset(p, 0, bytes);
}

static void synchronize(void)
{
}

static bool step_begin(int variant, const StepValues *values)
{
    (void)variant;
    cpu_step = *values;
    cpu_step.hyper[HYPER_ONE] = 1;
    return true;
}

static void update_may_begin(const float *grad)
{
    (void)grad;
}

static struct {
    double began, seconds[TIMES_MAX];
    int count;
} timer;

static void time_begin(const char *range)
{
    (void)range;
    timer.began = os_seconds();
}

static void time_end(void)
{
    assert(timer.count < TIMES_MAX);
    timer.seconds[timer.count++] = os_seconds() - timer.began;
}

static void times(double *seconds, int count)
{
    assert(count == timer.count);
    memcpy(seconds, timer.seconds, (size_t)count * sizeof *seconds);
    timer.count = 0;
}

static void close_cpu(void)
{
    for (int i = 0; i < 2; i++) {
        free(scratch[i].memory);
        scratch[i].memory = NULL;
        scratch[i].size = 0;
    }
}

static void set_operations(Kernels *k)
{
    cpu_gather_ops(k);
    cpu_linear_ops(k);
    cpu_conv2d_ops(k);
    cpu_activation_ops(k);
    cpu_norm_ops(k);
    cpu_pool_ops(k);
    cpu_loss_ops(k);
    cpu_optimizer_ops(k);
    cpu_vector_ops(k);
}

int CPU_OPEN(const Kernels **k, int threads, Error *e)
{
    static Kernels cpu = {.device = "cpu",
                          .element = CPU_BF16 ? BF16 : F32,
                          .element_size = sizeof(Element),
                          .alloc = alloc_zeroed,
                          .release = free,
                          .memory_free = memory_free,
                          .upload = copy,
                          .step_upload = copy,
                          .download = copy,
                          .copy = copy,
                          .zero = zero,
                          .synchronize = synchronize,
                          .planning = set_planning,
                          .step_begin = step_begin,
                          .step_end = synchronize,
                          .update_may_begin = update_may_begin,
                          .time_begin = time_begin,
                          .time_end = time_end,
                          .times = times,
                          .close = close_cpu};
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
