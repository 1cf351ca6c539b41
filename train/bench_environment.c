#include "train/bench_environment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "base/os.h"
#include "base/timing_rows.h"

enum { TEXT = 256 };

// The first line of a file of /proc or /sys; empty without it.
static const char *first_line(const char *path, char text[static TEXT])
{
    os_read_text(path, text, TEXT);
    text[strcspn(text, "\n")] = '\0';
    return text;
}

static int add_hash(Sha256 *s, const char *path, Error *e)
{
    void *data;
    size_t size;
    if (os_read_file(path, &data, &size, e)) return e->status;
    sha256_add(s, data, size);
    free(data);
    return STATUS_OK;
}

void bench_hex(const uint8_t bytes[static 32], char text[static 65])
{
    for (size_t i = 0; i < 32; i++) snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

// Of the program and, with CUDA, of its library.
static int hash_programs(const Kernels *k, char hash[static 65], Error *e)
{
    char program[PATH_MAX], library[PATH_MAX + 16];
    uint8_t digest[32];
    Sha256 s;
    os_program(program);
    snprintf(library, sizeof library, "%.*s/libnn_cuda.so", (int)(strrchr(program, '/') - program),
             program);
    sha256_init(&s);
    if (add_hash(&s, program, e)) return e->status;
    if (strncmp(k->device, "cuda", 4) == 0 && add_hash(&s, library, e)) return e->status;
    sha256_finish(&s, digest);
    bench_hex(digest, hash);
    return STATUS_OK;
}

int bench_environment(Json *j, const Kernels *k, int threads, Error *e)
{
    char hash[65], text[TEXT];
    if (hash_programs(k, hash, e)) return e->status;
    json_object(j, "environment");
    json_string(j, "platform", os_platform());
    json_string(j, "binary_sha256", hash);
    json_string(j, "compiler", __VERSION__);
    json_string(j, "device_kind", k->device);
    json_string(j, "device", k->description);
    json_string(j, "dtype", kernels_dtype(k));
    json_string(j, "cpu", os_cpu_model());
    json_int(j, "threads", threads);
    json_int(j, "processors", os_cpu_count());
    json_int(j, "memory_bytes", os_memory_total());
    json_string(j, "kernel", first_line("/proc/sys/kernel/osrelease", text));
    json_string(j, "driver", first_line("/proc/driver/nvidia/version", text));
    json_string(j, "governor",
                first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", text));
    json_string(
        j, "clock_source",
        first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource", text));
    json_string(j, "load", first_line("/proc/loadavg", text));
    json_end(j);
    return STATUS_OK;
}

Busy bench_busy(void)
{
    char text[TEXT];
    double t[8] = {0}; // user nice system idle iowait irq softirq steal, in ticks
    os_read_text("/proc/stat", text, sizeof text);
    sscanf(text, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5],
           &t[6], &t[7]);
    const double tick = 1.0 / os_ticks_a_second();
    return (Busy){
        .seconds = os_seconds(),
        .own = os_cpu_seconds(),
        .machine = tick * (t[0] + t[1] + t[2] + t[5] + t[6]),
        .stolen = tick * t[7],
    };
}

double bench_others(const Busy *from)
{
    const Busy to = bench_busy();
    const double used =
        to.machine - from->machine - (to.own - from->own) + to.stolen - from->stolen;
    return used > 0 ? used / (to.seconds - from->seconds) : 0;
}
