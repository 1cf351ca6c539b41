// The one device, its errors, and the settings of a run.
//
// A call of CUDA fails on request, as calls of the C library do with tests/faults.c:
//   FAULT_WHAT  memory, copy, launch, stream, event, graph or device: calls of that kind count;
//               cuda: all of them
//   FAULT_AT    which one, from 1
//   FAULT_MODE  once: that call alone; always: all after it too, as on a GPU that is lost, or, of
//               memory, every allocation
//   FAULT_MARK  a file that is created when the fault comes
#include <fcntl.h>
#include <map>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/cuda_on_cpu/internal.h"
#include "tests/cuda_on_cpu/sanitizer.h"

namespace emu
{
namespace
{
constexpr int SHARED_OPTIN = 227 << 10, SHARED = 48 << 10;

Order order_from_environment()
{
    const char *name = getenv("NN_EMU_ORDER");
    if (!name || !strcmp(name, "forward")) return FORWARD;
    if (!strcmp(name, "reverse")) return REVERSE;
    if (!strcmp(name, "random")) return RANDOM;
    fail("NN_EMU_ORDER=%s: expected forward, reverse or random", name);
}

uint64_t seed_from_environment()
{
    const char *seed = getenv("NN_EMU_SEED");
    return seed ? strtoull(seed, nullptr, 10) : 1;
}

int from_environment(const char *name, int otherwise)
{
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}

uint64_t random_state = seed_from_environment() * 0x9E3779B97F4A7C15u + 1;
// 80: the compute capability that the sources are compiled for; 75 for what the host does there.
const int capability = from_environment("NN_EMU_CAPABILITY", 80);
const int processors = from_environment("NN_EMU_PROCESSORS", 3); // multiprocessors
std::map<const void *, size_t> shared_allowed;                   // by kernel
thread_local cudaError_t last_error = cudaSuccess;

#ifdef NN_EMU_ASAN
struct Reporter { // AddressSanitizer's reports name the kernel too
    Reporter()
    {
        __asan_set_error_report_callback([](const char *) { print_running(stderr); });
    }
} reporter;
#endif
} // namespace

const Order order = order_from_environment();

uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 32) * n >> 32);
}

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("cuda_on_cpu: ERROR: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    print_running(stderr);
    print_stack();
    abort();
}

cudaError_t remember(cudaError_t code)
{
    if (code != cudaSuccess) last_error = code;
    return code;
}

cudaError_t planted_fault(const char *kind)
{
    static const char *const what = getenv("FAULT_WHAT"), *const mode = getenv("FAULT_MODE"),
                             *const mark = getenv("FAULT_MARK"), *const number = getenv("FAULT_AT");
    static const long at = what && number ? atol(number) : 0;
    static const bool always = mode && !strcmp(mode, "always"), all = what && !strcmp(what, "cuda");
    static long count;
    if (!at) return cudaSuccess;
    const bool memory = !strcmp(kind, "memory"), counts = all || !strcmp(kind, what);
    const bool lost = always && count >= at && strcmp(what, "memory") != 0;
    count += counts;
    if (!lost && !(counts && (count == at || (always && count > at)))) return cudaSuccess;
    const int fd = mark ? open(mark, O_CREAT | O_WRONLY, 0666) : -1;
    if (fd >= 0) close(fd);
    return remember(memory && !lost ? cudaErrorMemoryAllocation : cudaErrorLaunchFailure);
}

size_t dynamic_shared_allowed(const void *kernel)
{
    const auto it = shared_allowed.find(kernel);
    return it == shared_allowed.end() ? SHARED : it->second;
}
} // namespace emu

using namespace emu;

// ---- errors ------------------------------------------------------------------------------------

cudaError_t cudaGetLastError()
{
    const cudaError_t code = last_error;
    last_error = cudaSuccess;
    return code;
}

cudaError_t cudaPeekAtLastError()
{
    return last_error;
}

const char *cudaGetErrorName(cudaError_t code)
{
    switch (code) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidDevice:
        return "cudaErrorInvalidDevice";
    case cudaErrorInvalidValue:
        return "cudaErrorInvalidValue";
    case cudaErrorLaunchFailure:
        return "cudaErrorLaunchFailure";
    default:
        return "cudaErrorOfTheEmulation";
    }
}

const char *cudaGetErrorString(cudaError_t code)
{
    return code == cudaSuccess ? "no error" : "an emulated error";
}

// ---- device ------------------------------------------------------------------------------------

cudaError_t cudaGetDeviceCount(int *count)
{
    EMU_CALL("device");
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    EMU_CALL("device");
    return device == 0 ? cudaSuccess : remember(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceReset()
{
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    EMU_CALL("device");
    if (device != 0) return remember(cudaErrorInvalidDevice);
    size_t free;
    *p = {};
    snprintf(p->name, sizeof p->name, "emulated on the CPU");
    const char *gpu = getenv("NN_EMU_GPU"); // the same number: the same GPU
    snprintf(p->uuid.bytes, sizeof p->uuid.bytes, "%d", gpu ? atoi(gpu) : (int)getpid());
    cudaMemGetInfo(&free, &p->totalGlobalMem);
    p->major = capability / 10;
    p->minor = capability % 10;
    p->multiProcessorCount = processors;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->sharedMemPerBlock = SHARED;
    p->sharedMemPerBlockOptin = SHARED_OPTIN;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    if (device != 0) return remember(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
        *value = capability / 10;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = capability % 10;
        return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
        *value = processors;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = SHARED_OPTIN;
        return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported:
        *value = 1;
        return cudaSuccess;
    default:
        fail("cudaDeviceGetAttribute(%d) is not emulated", (int)attribute);
    }
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value)
{
    EMU_CALL("device");
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || value > SHARED_OPTIN) return remember(cudaErrorInvalidValue);
    shared_allowed[kernel] = (size_t)value;
    return cudaSuccess;
}

// Only that the kernel is there.
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *)
{
    EMU_CALL("device");
    *attributes = {};
    attributes->ptxVersion = capability;
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *, int, size_t)
{
    *blocks = 1;
    return cudaSuccess;
}
