#include "kernels/profile.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "runtime/os.h"

static const Kernels *device;

#include "kernels/cost.h"

enum { ENTRIES_MAX = 512 };

// Calls of one operation on one shape.
typedef struct Entry {
    const char *name;
    CallShape shape;
    double flop, bytes; // of one call
    int64_t calls;
    double seconds, least; // of all calls, of the fastest
} Entry;

static struct {
    bool in_step, evaluated; // since the last step ended
    int64_t begun;           // steps; the first is forgotten
    int64_t gaps;            // between steps, without an evaluation
    double time;             // when the last step began or ended
    double step_seconds, gap_seconds;
    Entry entries[ENTRIES_MAX];
    int count;
} profile;

static Entry *find(const char *name, const CallShape *shape, double flop, double bytes)
{
    for (int i = 0; i < profile.count; i++) {
        Entry *e = &profile.entries[i];
        if (e->name == name && e->flop == flop && e->bytes == bytes &&
            strcmp(e->shape.text, shape->text) == 0)
            return e;
    }
    assert(profile.count < ENTRIES_MAX);
    Entry *e = &profile.entries[profile.count++];
    *e = (Entry){.name = name, .shape = *shape, .flop = flop, .bytes = bytes, .least = 1e30};
    return e;
}

static void record(const char *name, CallShape shape, double flop, double bytes, double seconds)
{
    Entry *e = find(name, &shape, flop, bytes);
    e->calls++;
    e->seconds += seconds;
    if (seconds < e->least) e->least = seconds;
}

#define OPERATION(name, parameters, arguments, shape, flop, bytes)                                 \
    static void profile_##name parameters                                                          \
    {                                                                                              \
        if (!profile.in_step) {                                                                    \
            profile.evaluated = true;                                                              \
            device->name arguments;                                                                \
            return;                                                                                \
        }                                                                                          \
        device->synchronize();                                                                     \
        const double start = os_seconds();                                                         \
        device->name arguments;                                                                    \
        device->synchronize();                                                                     \
        const double seconds = os_seconds() - start;                                               \
        record(#name, shape, flop, bytes, seconds);                                                \
    }
#define SCRATCH_OPERATION OPERATION
#include "kernels/operations.h"

static bool step_begin(int variant, const StepValues *values)
{
    (void)variant;
    const double now = os_seconds();
    if (profile.begun == 1) {
        profile.count = 0;
        profile.step_seconds = 0;
    }
    if (profile.begun > 0 && !profile.evaluated) {
        profile.gap_seconds += now - profile.time;
        profile.gaps++;
    }
    profile.begun++;
    profile.time = now;
    profile.in_step = true;
    return device->step_begin(-1, values);
}

static void step_end(void)
{
    device->step_end();
    const double now = os_seconds();
    profile.step_seconds += now - profile.time;
    profile.time = now;
    profile.in_step = profile.evaluated = false;
}

const Kernels *kernels_profile(const Kernels *k)
{
    static Kernels table;
    device = k;
    table = *k;
    table.step_begin = step_begin;
    table.step_end = step_end;
#define OPERATION(name, ...) table.name = profile_##name;
#define SCRATCH_OPERATION OPERATION
#include "kernels/operations.h"
    return &table;
}

static void print_entry(FILE *f, const Entry *e, double steps, double step_seconds)
{
    const double calls = (double)e->calls / steps, seconds = e->seconds / steps;
    const double rate = 1e-9 * (double)e->calls / e->seconds;
    fprintf(f, "%-27s %-27s %5.3g %9.4f %9.4f %5.1f%% %8.4g %7.4g\n", e->name, e->shape.text, calls,
            1e3 * seconds, 1e3 * calls * e->least, 100 * seconds / step_seconds, rate * e->flop,
            rate * e->bytes);
}

void kernels_profile_print(FILE *f)
{
    const double steps = (double)(profile.begun - 1);
    if (steps < 1) {
        fprintf(f, "profile  no step but the first, which warms up; use --steps 10\n");
        return;
    }
    double seconds = 0, least = 0;
    for (int i = 0; i < profile.count; i++) {
        seconds += profile.entries[i].seconds / steps;
        least += profile.entries[i].least * (double)profile.entries[i].calls / steps;
    }
    const double gap = profile.gaps ? profile.gap_seconds / (double)profile.gaps : 0;
    const double step = profile.step_seconds / steps + gap;
    fprintf(f, "profile  %.0f steps of %.4f ms\n", steps, 1e3 * step);
    fprintf(f, "%-27s %-27s %5s %9s %9s %6s %8s %7s\n", "operation", "shape", "calls", "ms/step",
            "fastest", "share", "GFLOP/s", "GB/s");
    for (int i = 0; i < profile.count; i++) print_entry(f, &profile.entries[i], steps, step);
    fprintf(f, "%-27s %-27s %5s %9.4f %9.4f %5.1f%%\n", "all operations", "-", "-", 1e3 * seconds,
            1e3 * least, 100 * seconds / step);
    fprintf(f, "%-27s %-27s %5s %9.4f %9s %5.1f%%\n", "outside of them", "-", "-",
            1e3 * (step - seconds), "-", 100 * (step - seconds) / step);
}
