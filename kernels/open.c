// Chooses the device by its name.
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/kernels.h"

static bool is_cuda(const char *device)
{
    if (strncmp(device, "cuda", 4) != 0) return false;
    const char *rest = device + 4;
    return *rest == '\0' || (*rest == ':' && rest[1] && !rest[1 + strspn(rest + 1, "0123456789")]);
}

static int check_dtype(const KernelsConfig *c, Error *e)
{
    static const char *const known[] = {"auto", "fp32", "tf32", "bf16"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(c->dtype, known[i]) != 0) continue;
        if (i < 2) return STATUS_OK;
        return fail(e, STATUS_DEVICE, "the cpu has no --dtype %s: use --dtype fp32", c->dtype);
    }
    return fail(e, STATUS_USAGE, "unknown --dtype '%s': expected auto, fp32, tf32 or bf16",
                c->dtype);
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
    const int status = check_dtype(c, e);
    return status ? status : cpu_open(k, c->threads, e);
}
