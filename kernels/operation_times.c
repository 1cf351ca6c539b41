#include "kernels/operation_times.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "base/os.h"

static const Kernels *device;

#include "kernels/cost.h"

static struct {
    ProfileLayer *layer;
    const void *context;
    bool in_step, evaluated; // since the last step ended
    int64_t begun;           // steps
    int64_t gaps;            // between steps, without an evaluation
    double time;             // when the last step began or ended
    double step_seconds, gap_seconds;
    ProfileEntry entries[PROFILE_ENTRIES_MAX];
    int count;
    ProfileEntry *calls[TIMES_MAX]; // of this step
    int call_count;
} profile;

static ProfileEntry *find(const ProfileEntry *wanted)
{
    for (int i = 0; i < profile.count; i++) {
        ProfileEntry *e = &profile.entries[i];
        if (e->operation == wanted->operation && e->flop == wanted->flop &&
            e->bytes == wanted->bytes && strcmp(e->shape, wanted->shape) == 0 &&
            strcmp(e->layer, wanted->layer) == 0)
            return e;
    }
    assert(profile.count < PROFILE_ENTRIES_MAX);
    profile.entries[profile.count] = *wanted;
    return &profile.entries[profile.count++];
}

static void begin(const char *operation, const void *tensor, CallShape shape, double flop,
                  double bytes)
{
    char range[PROFILE_LAYER_MAX + 32];
    ProfileEntry e = {.operation = operation, .flop = flop, .bytes = bytes, .fastest = 1e30};
    memcpy(e.shape, shape.text, sizeof e.shape);
    profile.layer(profile.context, tensor, e.layer);
    snprintf(range, sizeof range, "%s %s", e.layer, operation);
    assert(profile.call_count < TIMES_MAX);
    profile.calls[profile.call_count++] = find(&e);
    device->time_begin(range);
}

#define OPERATION(name, parameters, arguments, tensor, shape, flop, bytes)                         \
    static void profile_##name parameters                                                          \
    {                                                                                              \
        if (!profile.in_step) {                                                                    \
            profile.evaluated = true;                                                              \
            device->name arguments;                                                                \
            return;                                                                                \
        }                                                                                          \
        begin(#name, tensor, shape, flop, bytes);                                                  \
        device->name arguments;                                                                    \
        device->time_end();                                                                        \
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

// Not passed on: an operation's time is its own where none runs beside it.
static void update_may_begin(const float *grad)
{
    (void)grad;
}

static void add_times(void)
{
    double seconds[TIMES_MAX];
    device->times(seconds, profile.call_count);
    for (int i = 0; i < profile.call_count; i++) {
        ProfileEntry *e = profile.calls[i];
        e->calls++;
        e->seconds += seconds[i];
        if (seconds[i] < e->fastest) e->fastest = seconds[i];
    }
    profile.call_count = 0;
}

static void step_end(void)
{
    device->step_end();
    add_times();
    const double now = os_seconds();
    profile.step_seconds += now - profile.time;
    profile.time = now;
    profile.in_step = profile.evaluated = false;
}

const Kernels *kernels_profile(const Kernels *k, ProfileLayer *layer, const void *context)
{
    static Kernels table;
    device = k;
    profile.layer = layer;
    profile.context = context;
    table = *k;
    table.step_begin = step_begin;
    table.step_end = step_end;
    table.update_may_begin = update_may_begin;
#define OPERATION(name, ...) table.name = profile_##name;
#define SCRATCH_OPERATION OPERATION
#include "kernels/operations.h"
    return &table;
}

Profile kernels_profile_read(void)
{
    const int64_t steps = profile.begun > 1 ? profile.begun - 1 : 0;
    if (steps == 0) return (Profile){0};
    const double gap = profile.gaps ? profile.gap_seconds / (double)profile.gaps : 0;
    return (Profile){
        .steps = steps,
        .step_seconds = profile.step_seconds / (double)steps + gap,
        .entries = profile.entries,
        .count = profile.count,
    };
}
