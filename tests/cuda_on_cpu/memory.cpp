// Device memory and pinned host memory.
//
// Device memory is one range of addresses that the host cannot touch while no operation runs, as
// on a GPU. It comes filled with NaN (0xFF), surrounded by gaps that AddressSanitizer watches, and
// an address is never given twice.
#include <errno.h>
#include <map>
#include <stdlib.h>
#include <sys/mman.h>
#include <vector>

#include "tests/cuda_on_cpu/internal.h"
#include "tests/cuda_on_cpu/sanitizer.h"

namespace emu
{
namespace
{
constexpr size_t ALIGNMENT = 256, GAP = 256, PAGE = 4096, HUGE = 2 << 20;
constexpr size_t RANGE = (size_t)1 << 36, DEVICE_MEMORY = (size_t)1 << 30; // addresses; bytes

struct Block {
    size_t bytes;
    int kind;
};
std::map<uintptr_t, Block> blocks; // by their first address

char *range;
size_t range_used, device_bytes; // addresses given; bytes in use
int accesses;                    // DeviceAccess objects that live

size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

void protect(bool open)
{
    const int mode = open ? PROT_READ | PROT_WRITE : PROT_NONE;
    if (range_used && mprotect(range, round_up(range_used, HUGE), mode))
        fail("mprotect of device memory: %s", strerror(errno));
}

std::map<uintptr_t, Block>::iterator block_of(const void *p) // that `p` lies in; end(): none
{
    auto it = blocks.upper_bound((uintptr_t)p);
    if (it == blocks.begin()) return blocks.end();
    --it;
    const size_t bytes = it->second.bytes ? it->second.bytes : 1;
    return (uintptr_t)p < it->first + bytes ? it : blocks.end();
}

void *device_alloc(size_t bytes)
{
    if (!range) {
        void *p =
            mmap(nullptr, RANGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) fail("no addresses for device memory");
        range = (char *)round_up((uintptr_t)p, HUGE);
        // Each operation protects and opens the range: quick where its pages are few.
        madvise(range, RANGE - HUGE, MADV_HUGEPAGE);
    }
    const size_t end = range_used + round_up(bytes, ALIGNMENT) + GAP;
    if (end > RANGE - HUGE || bytes > DEVICE_MEMORY - device_bytes) return nullptr;
    char *p = range + range_used;
    range_used = end;
    device_bytes += bytes;
    const DeviceAccess access;
    unpoison(p, bytes);
    memset(p, 0xff, bytes);
    poison(p + bytes, (size_t)(range + end - (p + bytes)));
    return p;
}

void device_free(void *p, size_t bytes)
{
    poison(p, bytes);
    device_bytes -= bytes;
    char *first = range + round_up((size_t)((char *)p - range), PAGE), *end = (char *)p + bytes;
    if (end > first + PAGE) madvise(first, (size_t)(end - first) / PAGE * PAGE, MADV_DONTNEED);
}

void release_block(void *p, int kind)
{
    const auto it = blocks.find((uintptr_t)p);
    if (it == blocks.end() || it->second.kind != kind)
        fail("free of %p, which is not the start of a block", p);
    if (kind == DEVICE)
        device_free(p, it->second.bytes);
    else
        free(p);
    blocks.erase(it);
}

cudaError_t release_memory(void *p, int kind)
{
    if (!p) return cudaSuccess;
    streams_finish();
    release_block(p, kind);
    return cudaSuccess;
}
} // namespace

DeviceAccess::DeviceAccess()
{
    if (accesses++ == 0) protect(true);
}

DeviceAccess::~DeviceAccess()
{
    if (--accesses == 0) protect(false);
}

int memory_kind(const void *p)
{
    const auto it = block_of(p);
    return it == blocks.end() ? 0 : it->second.kind;
}

void memory_check(const void *p, size_t bytes, int kinds, const char *what)
{
    const auto it = block_of(p);
    if (it == blocks.end() || !(it->second.kind & kinds))
        fail("%s %p, which is not in %s memory that is in use", what, p,
             kinds == DEVICE ? "device" : "device or pinned");
    if ((uintptr_t)p + bytes > it->first + it->second.bytes)
        fail("%s %zu bytes at %p, beyond the end of the block of %zu bytes at %p", what, bytes, p,
             it->second.bytes, (void *)it->first);
}
} // namespace emu

using namespace emu;

// ---- allocation --------------------------------------------------------------------------------

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    EMU_CALL("memory");
    if (const cudaError_t spoiled = capture_spoiled()) return spoiled;
    *p = device_alloc(bytes);
    if (!*p) return remember(cudaErrorMemoryAllocation);
    blocks[(uintptr_t)*p] = {bytes, DEVICE};
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    EMU_CALL("stream");
    return release_memory(p, DEVICE);
}

// The block is there at once, and is watched until the stream comes to its release.
cudaError_t cudaMallocAsync(void **p, size_t bytes, cudaStream_t)
{
    return cudaMalloc(p, bytes);
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t stream)
{
    EMU_CALL("stream");
    stream_push(stream, [=] {
        release_block(p, DEVICE);
        return true;
    });
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
{
    EMU_CALL("memory");
    if (const cudaError_t spoiled = capture_spoiled()) return spoiled;
    if (posix_memalign(p, PAGE, bytes ? bytes : 1)) return remember(cudaErrorMemoryAllocation);
    memset(*p, 0xff, bytes);
    blocks[(uintptr_t)*p] = {bytes, PINNED};
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    return cudaHostAlloc(p, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *p)
{
    EMU_CALL("stream");
    return release_memory(p, PINNED);
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    EMU_CALL("device");
    *total = DEVICE_MEMORY;
    *free = DEVICE_MEMORY - device_bytes;
    return cudaSuccess;
}

// ---- copies ------------------------------------------------------------------------------------

static void check_copy(const void *dst, const void *src, size_t bytes, cudaMemcpyKind kind)
{
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind == cudaMemcpyDefault || kind == cudaMemcpyHostToHost)
        fail("cudaMemcpy: say where from and where to");
    if (to_device)
        memory_check(dst, bytes, DEVICE, "cudaMemcpy writes to");
    else if (memory_kind(dst) == DEVICE)
        fail("cudaMemcpy: the destination %p is device memory", dst);
    if (from_device)
        memory_check(src, bytes, DEVICE, "cudaMemcpy reads from");
    else if (memory_kind(src) == DEVICE)
        fail("cudaMemcpy: the source %p is device memory", src);
}

// The sanitizers' interceptor sees these.
static void *(*volatile watched_memcpy)(void *, const void *, size_t) = memcpy;
static void *(*volatile watched_memset)(void *, int, size_t) = memset;

// Those without a stream use the default one, which streams made with cudaStreamNonBlocking do not
// wait for, nor it for them.
cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind)
{
    EMU_CALL("copy");
    if (const cudaError_t spoiled = capture_spoiled()) return spoiled;
    check_copy(dst, src, bytes, kind);
    const DeviceAccess access;
    watched_memcpy(dst, src, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *p, int value, size_t bytes)
{
    EMU_CALL("copy");
    if (const cudaError_t spoiled = capture_spoiled()) return spoiled;
    memory_check(p, bytes, DEVICE, "cudaMemset writes to");
    const DeviceAccess access;
    watched_memset(p, value, bytes);
    return cudaSuccess;
}

// Pageable memory is read before the call returns, or written; pinned memory when the stream gets
// there.
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    EMU_CALL("copy");
    check_copy(dst, src, bytes, kind);
    const bool upload = kind == cudaMemcpyHostToDevice, download = kind == cudaMemcpyDeviceToHost;
    const bool pageable = (upload && !memory_kind(src)) || (download && !memory_kind(dst));
    if (pageable && stream_capturing(stream))
        fail("cudaMemcpyAsync: a graph would copy pageable memory at each replay");
    if (pageable && upload) {
        const auto staged =
            std::make_shared<std::vector<char>>((const char *)src, (const char *)src + bytes);
        stream_push(stream, [=] {
            watched_memcpy(dst, staged->data(), bytes);
            return true;
        });
        return cudaSuccess;
    }
    stream_push(stream, [=] {
        watched_memcpy(dst, src, bytes);
        return true;
    });
    if (pageable) stream_finish(stream);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    EMU_CALL("copy");
    memory_check(p, bytes, DEVICE, "cudaMemsetAsync writes to");
    stream_push(stream, [=] {
        watched_memset(p, value, bytes);
        return true;
    });
    return cudaSuccess;
}
