// Control of the CPU backend: copies, the step's values and the timer.
#include "kernels/cpu/cpu.h"

#include <assert.h>
#include <string.h>

#include "base/os.h"

StepValues cpu_step = {.hyper = {[HYPER_ONE] = 1}};
int cpu_threads = 1;

static void copy(void *dst, const void *src, size_t bytes)
{
    memcpy(dst, src, bytes);
}

static void zero(void *p, size_t bytes)
{
    memset(p, 0, bytes);
}

static void synchronize(void)
{
}

static bool step_begin(int variant, const StepValues *values)
{
    (void)variant;
    cpu_step = *values;
    cpu_step.hyper[HYPER_ONE] = 1;
    return true;
}

static void update_may_begin(const float *grad)
{
    (void)grad;
}

static struct {
    double began, seconds[TIMES_MAX];
    int count;
} timer;

static void time_begin(const char *range)
{
    (void)range;
    timer.began = os_seconds();
}

static void time_end(void)
{
    assert(timer.count < TIMES_MAX);
    timer.seconds[timer.count++] = os_seconds() - timer.began;
}

static void times(double *seconds, int count)
{
    assert(count == timer.count);
    memcpy(seconds, timer.seconds, (size_t)count * sizeof *seconds);
    timer.count = 0;
}

void cpu_control_ops(Kernels *k)
{
    k->upload = copy;
    k->step_upload = copy;
    k->download = copy;
    k->copy = copy;
    k->zero = zero;
    k->synchronize = synchronize;
    k->step_begin = step_begin;
    k->step_end = synchronize;
    k->update_may_begin = update_may_begin;
    k->time_begin = time_begin;
    k->time_end = time_end;
    k->times = times;
}
