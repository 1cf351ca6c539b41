// Chooses the device by its name, and the CPU backend by what the processor can do.
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cuda_open.h"
#include "kernels/kernels.h"
#include "base/os.h"

static bool is_cuda(const char *device)
{
    if (strncmp(device, "cuda", 4) != 0) return false;
    const char *rest = device + 4;
    return *rest == '\0' || (*rest == ':' && rest[1] && !rest[1 + strspn(rest + 1, "0123456789")]);
}

typedef int Open(const Kernels **k, int threads, Error *e);

// The variants of the CPU backend that the Makefile built, best first.
#define DECLARE(set) Open cpu_open_##set##_f32, cpu_open_##set##_bf16;
#define ENTRY(set) {#set, {cpu_open_##set##_f32, cpu_open_##set##_bf16}},
#define NAME(set) " " #set
CPU_SETS(DECLARE)
static const struct {
    const char *set;
    Open *open[2]; // by element type
} cpu_variants[] = {CPU_SETS(ENTRY)};
enum { CPU_VARIANTS = sizeof cpu_variants / sizeof *cpu_variants };

// The best that the processor can run.
static int open_best(const Kernels **k, int element, int threads, Error *e)
{
    int status = STATUS_DEVICE;
    for (int i = 0; i < CPU_VARIANTS && status == STATUS_DEVICE; i++)
        status = cpu_variants[i].open[element](k, threads, e);
    return status;
}

// The one that NN_CPU in the environment names, so that one machine can test all that it has.
static int open_set(const Kernels **k, const char *set, int element, int threads, Error *e)
{
    for (int i = 0; i < CPU_VARIANTS; i++) {
        if (strcmp(cpu_variants[i].set, set) != 0) continue;
        const int status = cpu_variants[i].open[element](k, threads, e);
        if (status != STATUS_DEVICE) return status;
        return fail(e, STATUS_USAGE,
                    "the environment has NN_CPU=%s, which this processor lacks: unset it", set);
    }
    return fail(e, STATUS_USAGE,
                "the environment has NN_CPU=%.20s: unset it or take one of" CPU_SETS(NAME), set);
}

static int open_cpu(const Kernels **k, const KernelsConfig *c, Error *e)
{
    const char *const set = getenv("NN_CPU");
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
    return set ? open_set(k, set, element, c->threads, e) : open_best(k, element, c->threads, e);
}

// The CUDA backend is a shared object beside the program, opened only when it may be of use: it and
// what it needs are not on every machine.
static int open_cuda(const Kernels **k, const KernelsConfig *c, char note[256], Error *e)
{
    char path[PATH_MAX + sizeof "libnn_cuda.so"];
    os_program(path);
    char *slash = strrchr(path, '/');
    strcpy(slash ? slash + 1 : path, "libnn_cuda.so");
    if (access(path, F_OK) != 0)
        return fail(e, STATUS_DEVICE,
                    "this build has no CUDA backend: install the CUDA toolkit and a driver "
                    "(scripts/doctor.sh says how) and run make again, or use --device cpu");
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    __typeof__(&cuda_open) open = NULL;
    if (library) *(void **)&open = dlsym(library, "cuda_open");
    if (!open) return fail(e, STATUS_DEVICE, "%s; run make again, or use --device cpu", dlerror());
    return open(k, c, note, e);
}

// What start_driver() says; a sanitized process ends with 1 where it faults.
enum { DRIVER_STARTS = 0, NO_DRIVER = 3, DRIVER_SECONDS = 10 };

static int start_driver(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    unsigned (*init)(unsigned) = NULL;
    if (!driver) return NO_DRIVER;
    *(void **)&init = dlsym(driver, "cuInit");
    if (init) init(0); // cuda_open() asks again, and says what is wrong
    return DRIVER_STARTS;
}

// Uses a GPU where there is one. STATUS_DEVICE, and why in `note`, when only something is missing
// for it; without an NVIDIA driver there is nothing to say. Another process starts the driver
// first, because it may fault or hang.
static int open_gpu(const Kernels **k, const KernelsConfig *c, char note[256], Error *e)
{
    const int driver = os_try(start_driver, DRIVER_SECONDS);
    if (driver == NO_DRIVER) return STATUS_DEVICE;
    if (driver != DRIVER_STARTS) {
        snprintf(note, 256,
                 "on the CPU, since the NVIDIA driver (libcuda.so.1) does not start: status %d "
                 "(scripts/doctor.sh)",
                 driver);
        return STATUS_DEVICE;
    }
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
