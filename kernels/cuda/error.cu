// What a CUDA error code means and what to do about it.
#include "kernels/cuda/common.cuh"

#include <stdio.h>

int64_t cuda_launches; // here, with what every launch checks

// What cudaDriverGetVersion() says: 13000 for 13.0, 0 without a driver.
static int driver_version()
{
    int version = 0;
    if (cudaDriverGetVersion(&version) != cudaSuccess) version = 0;
    return version;
}

// The numbers are those of cudaError_t, which other tools print too.
const char *cuda_hint(cudaError_t code)
{
    switch ((int)code) {
    case 2:
        return "not enough GPU memory: use a smaller --batch-size, or close what else uses the GPU";
    case 34:
        return "a stub of libcuda was linked: take the CUDA toolkit's stubs folder off "
               "LD_LIBRARY_PATH";
    case 35:
        return driver_version() ? "the NVIDIA driver is too old for this build: update it"
                                : "no NVIDIA driver was found: scripts/doctor.sh says why";
    case 46:
        return "another process holds the GPU alone (nvidia-smi names it): end that process or "
               "choose another --device";
    case 100:
        return "no NVIDIA GPU is visible: look at CUDA_VISIBLE_DEVICES, then run scripts/doctor.sh";
    case 101:
        return "there is no GPU of that number: nvidia-smi -L lists them";
    case 209:
        return "this build has no code for the GPU's architecture: run make clean, then make, on "
               "this machine, or make CUDA_ARCHS=all";
    case 222:
        return "the driver is older than the toolkit of this build: update the driver, or build "
               "for this GPU with make CUDA_ARCHS";
    case 600:
        return "a kernel ran too long or GPU memory could not be kept resident: use a smaller "
               "--batch-size, close what else uses the GPU";
    case 700:
    case 716:
        return "a kernel used a wrong address: this is a fault of the program, please report it";
    case 702:
        return "the display driver's watchdog stopped a kernel: use a smaller --batch-size, or a "
               "GPU without a display";
    case 803:
        return "the driver's kernel module and its libraries have different versions: restart the "
               "machine, or install the driver again";
    case 999:
        return "under WSL run `wsl --shutdown` in Windows and try again, or --graph off; else "
               "scripts/doctor.sh";
    default:
        return "";
    }
}

int cuda_fail(Error *e, cudaError_t code, const char *what)
{
    const char *hint = cuda_hint(code);
    return fail(e, STATUS_DEVICE, "%s: CUDA error %d (%s): %s%s%s; CUDA driver %d", what, (int)code,
                cudaGetErrorName(code), cudaGetErrorString(code), *hint ? "; " : "", hint,
                driver_version());
}

void cuda_die(cudaError_t code, const char *expression, const char *file, int line)
{
    Error e;
    char what[512];
    snprintf(what, sizeof what, "%s:%d: %s", file, line, expression);
    cuda_fail(&e, code, what);
    die_error(&e);
}
