// Memory of the CPU backend: blocks, and the scratch memory of operations.
#include "kernels/cpu/memory.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/cpu/cpu.h"
#include "base/os.h"

enum { ALIGNMENT = 256, HUGE_PAGE = 2 << 20 };

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

static void release_scratch(void)
{
    for (int i = 0; i < 2; i++) {
        free(scratch[i].memory);
        scratch[i].memory = NULL;
        scratch[i].size = 0;
    }
}

void cpu_memory_ops(Kernels *k)
{
    k->alloc = alloc_zeroed;
    k->release = free;
    k->memory_free = memory_free;
    k->planning = set_planning;
    k->close = release_scratch;
}
