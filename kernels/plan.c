// Plan mode: the trainer's own step, run once with operations that only record.
#include "kernels/kernels.h"

// What is only recorded does not look at its pointers.
#pragma GCC diagnostic ignored "-Wunused-parameter"

static const Kernels *device;
static Plan plan;

#include "kernels/cost.h"

static void record(double flop, double bytes)
{
    plan.flop += flop;
    plan.bytes += bytes;
    plan.calls++;
}

// The backend is asked for the operations that need scratch memory: it is planning, notes what it
// will need and returns.
#define OPERATION(name, parameters, arguments, tensor, shape, flop, bytes)                         \
    static void plan_##name parameters                                                             \
    {                                                                                              \
        record(flop, bytes);                                                                       \
    }
#define SCRATCH_OPERATION(name, parameters, arguments, tensor, shape, flop, bytes)                 \
    static void plan_##name parameters                                                             \
    {                                                                                              \
        record(flop, bytes);                                                                       \
        device->name arguments;                                                                    \
    }
#include "kernels/operations.h"

static void skip_transfer(void *dst, const void *src, size_t bytes)
{
}

static void skip_zero(void *p, size_t bytes)
{
}

static bool skip_begin(int variant, const StepValues *values)
{
    return true;
}

static void skip(void)
{
}

static void skip_gradient(const float *grad)
{
}

const Kernels *kernels_plan_begin(const Kernels *k)
{
    static Kernels table;
    Error ignored; // only turning it off allocates, and can fail
    device = k;
    plan = (Plan){0};
    table = *k;
    table.upload = table.step_upload = table.download = table.copy = skip_transfer;
    table.zero = skip_zero;
    table.synchronize = table.step_end = skip;
    table.step_begin = skip_begin;
    table.update_may_begin = skip_gradient;
#define OPERATION(name, ...) table.name = plan_##name;
#define SCRATCH_OPERATION OPERATION
#include "kernels/operations.h"
    k->planning(true, &ignored);
    return &table;
}

int kernels_plan_end(Plan *result, Error *e)
{
    *result = plan;
    return device->planning(false, e);
}
