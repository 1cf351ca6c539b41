// Chooses the device by its name, and the CPU backend by what the processor can do.
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cuda/open.h"
#include "kernels/kernels.h"

static bool is_cuda(const char *device)
{
    if (strncmp(device, "cuda", 4) != 0) return false;
    const char *rest = device + 4;
    return *rest == '\0' || (*rest == ':' && rest[1] && !rest[1 + strspn(rest + 1, "0123456789")]);
}

typedef int Open(const Kernels **k, int threads, Error *e);

// The variants of the CPU backend that the Makefile built, best first.
#define DECLARE(set) Open cpu_open_##set##_f32, cpu_open_##set##_bf16;
#define ENTRY(set) {cpu_open_##set##_f32, cpu_open_##set##_bf16},
CPU_SETS(DECLARE)
static Open *const cpu_variants[][2] = {CPU_SETS(ENTRY)};

static int open_cpu(const Kernels **k, const KernelsConfig *c, Error *e)
{
    int element;
    if (strcmp(c->dtype, "fp32") == 0 || strcmp(c->dtype, "auto") == 0)
        element = F32;
    else if (strcmp(c->dtype, "bf16") == 0)
        element = BF16;
    else if (strcmp(c->dtype, "tf32") == 0)
        return fail(e, STATUS_DEVICE, "the cpu has no --dtype tf32: use --dtype fp32 or bf16");
    else
        return fail(e, STATUS_USAGE, "unknown --dtype '%s': expected auto, fp32, tf32 or bf16",
                    c->dtype);
    int status = STATUS_DEVICE;
    for (size_t i = 0; i < sizeof cpu_variants / sizeof *cpu_variants; i++) {
        status = cpu_variants[i][element](k, c->threads, e);
        if (status != STATUS_DEVICE) break;
    }
    return status;
}

// The CUDA backend is a shared object beside the program, opened only when it may be of use: it and
// what it needs are not on every machine.
static int open_cuda(const Kernels **k, const KernelsConfig *c, char note[256], Error *e)
{
    char path[PATH_MAX + sizeof "libnn_cuda.so"];
    if (!realpath("/proc/self/exe", path)) path[0] = '\0';
    char *slash = strrchr(path, '/');
    strcpy(slash ? slash + 1 : path, "libnn_cuda.so");
    if (access(path, F_OK) != 0)
        return fail(e, STATUS_DEVICE,
                    "this build has no CUDA backend: install the CUDA toolkit (scripts/doctor.sh "
                    "says how) and run make again, or use --device cpu");
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    __typeof__(&cuda_open) open = NULL;
    if (library) *(void **)&open = dlsym(library, "cuda_open");
    if (!open) return fail(e, STATUS_DEVICE, "%s; run make again, or use --device cpu", dlerror());
    return open(k, c, note, e);
}

// Uses a GPU where there is one. STATUS_DEVICE, and why in `note`, when only something is missing
// for it; without an NVIDIA driver there is nothing to say.
static int open_gpu(const Kernels **k, const KernelsConfig *c, char note[256], Error *e)
{
    if (!dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) return STATUS_DEVICE;
    const int status = open_cuda(k, c, note, e);
    if (status) snprintf(note, 256, "on the CPU, since %.180s (scripts/doctor.sh)", e->message);
    return status;
}

int kernels_open(const Kernels **k, const KernelsConfig *c, char note[256], Error *e)
{
    note[0] = '\0';
    if (is_cuda(c->device)) return open_cuda(k, c, note, e);
    if (strcmp(c->device, "cpu") != 0 && strcmp(c->device, "auto") != 0)
        return fail(e, STATUS_USAGE, "unknown --device '%s': expected auto, cpu, cuda or cuda:N",
                    c->device);
    const int status = strcmp(c->device, "auto") == 0 ? open_gpu(k, c, note, e) : STATUS_DEVICE;
    // What a person asked for in vain is no reason to go on without the GPU.
    return status == STATUS_OK || status == STATUS_USAGE ? status : open_cpu(k, c, e);
}

const char *kernels_dtype(const Kernels *k)
{
    return k->element == BF16 ? "bf16" : k->tf32 ? "tf32" : "fp32";
}
