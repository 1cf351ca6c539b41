// Chooses the device by its name, and the CPU backend by what the processor can do.
#include <string.h>

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

int kernels_open(const Kernels **k, const KernelsConfig *c, char note[256], Error *e)
{
    note[0] = '\0';
    if (is_cuda(c->device))
        return fail(e, STATUS_DEVICE,
                    "--device %s: this build has no CUDA backend; use --device cpu", c->device);
    if (strcmp(c->device, "cpu") != 0 && strcmp(c->device, "auto") != 0)
        return fail(e, STATUS_USAGE, "unknown --device '%s': expected auto, cpu, cuda or cuda:N",
                    c->device);
    return open_cpu(k, c, e);
}
