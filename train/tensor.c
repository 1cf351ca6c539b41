#include "train/tensor.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 256 };

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static Tensor *declare(Tensors *t, TensorKind kind, const char *name, Shape shape)
{
    assert(t->count < TENSORS_MAX && strlen(name) < TENSOR_NAME_MAX);
    Tensor *x = &t->list[t->count++];
    *x = (Tensor){.kind = kind, .n = 1, .group = -1};
    snprintf(x->name, sizeof x->name, "%s", name);
    while (x->rank < 4 && shape.size[x->rank] > 0) {
        x->shape[x->rank] = shape.size[x->rank];
        x->n *= shape.size[x->rank++];
    }
    return x;
}

Tensor *parameter(Tensors *t, Shape shape, int group, Init init, const char *name, ...)
{
    char full[TENSOR_NAME_MAX];
    va_list arguments;
    va_start(arguments, name);
    vsnprintf(full, sizeof full, name, arguments);
    va_end(arguments);
    Tensor *x = declare(t, PARAMETER, full, shape);
    x->group = group;
    x->init = init;
    return x;
}

Tensor *buffer(Tensors *t, const char *name, Shape shape, float fill)
{
    Tensor *x = declare(t, BUFFER, name, shape);
    x->fill = fill;
    return x;
}

Tensor *constant(Tensors *t, const char *name, Shape shape, float fill)
{
    Tensor *x = declare(t, CONSTANT, name, shape);
    x->fill = fill;
    return x;
}

Tensor *counter(Tensors *t, const char *name)
{
    return declare(t, COUNTER, name, SHAPE(0));
}

Tensor *activation(Tensors *t, Shape shape, const char *name, ...)
{
    char full[TENSOR_NAME_MAX];
    va_list arguments;
    va_start(arguments, name);
    vsnprintf(full, sizeof full, name, arguments);
    va_end(arguments);
    return declare(t, ACTIVATION, full, shape);
}

Tensor *workspace(Tensors *t, Shape shape, size_t bytes_each, const char *name, ...)
{
    char full[TENSOR_NAME_MAX];
    va_list arguments;
    va_start(arguments, name);
    vsnprintf(full, sizeof full, name, arguments);
    va_end(arguments);
    Tensor *x = declare(t, ACTIVATION, full, shape);
    x->bytes_each = bytes_each;
    return x;
}

static NormTensors declare_norm(Tensors *t, int channels, int group, bool weight, const char *name,
                                va_list arguments)
{
    char prefix[TENSOR_NAME_MAX], full[TENSOR_NAME_MAX + 32];
    NormTensors n = {0};
    vsnprintf(prefix, sizeof prefix, name, arguments);
    snprintf(full, sizeof full, "%s.weight", prefix);
    if (weight)
        n.weight = parameter(t, SHAPE(channels), group, ONES, "%s", full);
    else
        constant(t, full, SHAPE(channels), 1.0f);
    n.bias = parameter(t, SHAPE(channels), group, zeros(), "%s.bias", prefix);
    snprintf(full, sizeof full, "%s.running_mean", prefix);
    n.running_mean = buffer(t, full, SHAPE(channels), 0.0f);
    snprintf(full, sizeof full, "%s.running_var", prefix);
    n.running_var = buffer(t, full, SHAPE(channels), 1.0f);
    snprintf(full, sizeof full, "%s.num_batches_tracked", prefix);
    counter(t, full);
    n.stats = workspace(t, SHAPE(3, channels), sizeof(float), "%s.stats", prefix);
    n.sums = workspace(t, SHAPE(2, channels), sizeof(float), "%s.sums", prefix);
    return n;
}

NormTensors norm_tensors(Tensors *t, int channels, int group, const char *name, ...)
{
    va_list arguments;
    va_start(arguments, name);
    const NormTensors n = declare_norm(t, channels, group, true, name, arguments);
    va_end(arguments);
    return n;
}

NormTensors bias_norm_tensors(Tensors *t, int channels, int group, const char *name, ...)
{
    va_list arguments;
    va_start(arguments, name);
    const NormTensors n = declare_norm(t, channels, group, false, name, arguments);
    va_end(arguments);
    return n;
}

Norm norm_of(const NormTensors *n, float eps, float momentum)
{
    return (Norm){
        .stats = n->stats->value,
        .sums = n->sums->value,
        .running_mean = n->running_mean->master,
        .running_var = n->running_var->master,
        .weight = n->weight ? n->weight->master : NULL,
        .dweight = n->weight ? n->weight->grad : NULL,
        .bias = n->bias->master,
        .dbias = n->bias->grad,
        .eps = eps,
        .momentum = momentum,
    };
}

static bool in_parameter_arena(const Tensor *x)
{
    return x->kind == PARAMETER || x->kind == BUFFER;
}

static void place(Tensors *t, const Kernels *k)
{
    size_t parameter = 0, activation_at = 0; // floats into the parameter arenas; bytes
    for (int i = 0; i < t->count; i++) {
        Tensor *x = &t->list[i];
        if (in_parameter_arena(x)) {
            x->master = t->master + parameter;
            x->value = (char *)t->value + parameter * k->element_size;
            if (x->kind == PARAMETER) {
                x->grad = t->grad + parameter;
                x->state1 = t->state1 + parameter;
                x->state2 = t->state2 + parameter;
            }
            // 256 bytes in the arena of the smallest element, bf16
            parameter += aligned((size_t)x->n * 2) / 2;
        } else if (x->kind == ACTIVATION) {
            x->value = (char *)t->activations + activation_at;
            activation_at += aligned((size_t)x->n * x->bytes_each);
        }
    }
}

static void measure(Tensors *t, const Kernels *k)
{
    t->arena_floats = 0;
    t->activation_bytes = 0;
    for (int i = 0; i < t->count; i++) {
        Tensor *x = &t->list[i];
        if (x->bytes_each == 0) x->bytes_each = k->element_size;
        if (in_parameter_arena(x)) t->arena_floats += (int64_t)(aligned((size_t)x->n * 2) / 2);
        if (x->kind == ACTIVATION) t->activation_bytes += aligned((size_t)x->n * x->bytes_each);
    }
    t->parameter_bytes = (size_t)t->arena_floats * sizeof(float);
}

// Of the working copies; none where they are the master weights.
static size_t value_bytes(const Tensors *t, const Kernels *k)
{
    return k->element == F32 ? 0 : (size_t)t->arena_floats * k->element_size;
}

size_t tensors_bytes(const Tensors *t, const Kernels *k, int more)
{
    return t->parameter_bytes * (size_t)(4 + more) + value_bytes(t, k) + t->activation_bytes;
}

// A system that promises more memory than it has would kill the process later, without a word.
static int check_memory(const Tensors *t, const Kernels *k, int64_t batch, int more, Error *e)
{
    const size_t need = tensors_bytes(t, k, more), free = k->memory_free(),
                 fixed = need - t->activation_bytes;
    if (need <= free) return STATUS_OK;
    char advice[64] = "a smaller network";
    if (fixed < free) { // what the batch takes grows with it
        const double share = (double)(free - fixed) / (double)t->activation_bytes;
        const long long fits = (long long)((double)batch * share);
        if (fits > 0) snprintf(advice, sizeof advice, "--batch-size %lld or less", fits);
    }
    return fail(e, k->own_memory ? STATUS_DEVICE : STATUS_IO,
                "%s has %.0f MB of memory free, but this network and batch need %.0f MB; try %s",
                k->device, (double)free / 1e6, (double)need / 1e6, advice);
}

int tensors_allocate(Tensors *t, const Kernels *k, int64_t batch, int more, Error *e)
{
    measure(t, k);
    if (check_memory(t, k, batch, more, e)) return e->status;
    float **const arenas[] = {&t->master, &t->grad, &t->state1, &t->state2};
    bool ok = true;
    for (size_t i = 0; i < 4; i++) ok = (*arenas[i] = k->alloc(t->parameter_bytes)) && ok;
    t->value = k->element == F32 ? t->master : k->alloc(value_bytes(t, k));
    t->activations = k->alloc(t->activation_bytes);
    if (!ok || !t->value || !t->activations)
        return fail(e, k->own_memory ? STATUS_DEVICE : STATUS_IO,
                    "%s could not allocate %.0f MB; try a smaller --batch-size", k->device,
                    (double)tensors_bytes(t, k, 0) / 1e6);
    place(t, k);
    return STATUS_OK;
}

void tensors_release(Tensors *t, const Kernels *k)
{
    if (t->value != t->master) k->release(t->value);
    k->release(t->master);
    k->release(t->grad);
    k->release(t->state1);
    k->release(t->state2);
    k->release(t->activations);
}

int tensors_params(const Tensors *t, unsigned groups, const float *decay, Param *params)
{
    int count = 0;
    for (int i = 0; i < t->count; i++) {
        const Tensor *x = &t->list[i];
        if (x->kind != PARAMETER || !(groups & (1u << x->group))) continue;
        params[count++] = (Param){
            .value = x->value == (void *)x->master ? NULL : x->value,
            .master = x->master,
            .grad = x->grad,
            .state1 = x->state1,
            .state2 = x->state2,
            .n = x->n,
            .rows = x->shape[0],
            .lr = x->group,
            .decay = decay ? decay[x->group] : 0.0f,
        };
    }
    return count;
}

int64_t tensors_largest_activation(const Tensors *t)
{
    int64_t largest = 1;
    for (int i = 0; i < t->count; i++) {
        const Tensor *x = &t->list[i];
        const bool element = x->kind == ACTIVATION && x->bytes_each == 0;
        if (element && x->n > largest) largest = x->n;
    }
    return largest;
}

void tensor_layer(const Tensor *t, char layer[static TENSOR_NAME_MAX])
{
    const char *dot = strrchr(t->name, '.');
    const size_t length = dot ? (size_t)(dot - t->name) : strlen(t->name);
    memcpy(layer, t->name, length);
    layer[length] = '\0';
}

void tensors_layer(const void *tensors, const void *pointer, char layer[static TENSOR_NAME_MAX])
{
    const Tensors *t = tensors;
    strcpy(layer, pointer ? "-" : "update");
    if (!pointer) return;
    for (int i = 0; i < t->count; i++) {
        const Tensor *x = &t->list[i];
        if (pointer != x->value && pointer != x->master && pointer != x->grad) continue;
        tensor_layer(x, layer);
        return;
    }
}

int64_t tensors_parameter_count(const Tensors *t)
{
    int64_t n = 0;
    for (int i = 0; i < t->count; i++)
        if (t->list[i].kind == PARAMETER) n += t->list[i].n;
    return n;
}

void tensor_upload(const Tensor *t, const Kernels *k, const float *host)
{
    k->upload(t->master, host, (size_t)t->n * sizeof(float));
    if (t->value != (void *)t->master) k->from_f32(t->value, t->master, t->n);
}

void tensors_refresh(const Tensors *t, const Kernels *k)
{
    if (t->value != (void *)t->master) k->from_f32(t->value, t->master, t->arena_floats);
}

void tensors_fill_buffers(const Tensors *t, const Kernels *k)
{
    for (int i = 0; i < t->count; i++) {
        const Tensor *x = &t->list[i];
        if (x->kind != BUFFER) continue;
        float *host = malloc((size_t)x->n * sizeof(float));
        if (!host) die(STATUS_IO, "out of memory for %s", x->name);
        for (int64_t j = 0; j < x->n; j++) host[j] = x->fill;
        tensor_upload(x, k, host);
        free(host);
    }
}
