// Tensors: each is declared once, and its place in memory, its entry in the model file, its
// initialisation and its optimizer group follow from that declaration.
//
// Four arenas on the device: parameters (master weights and buffers, with a working copy where the
// device's element type is not fp32), gradients, optimizer state, activations.
#ifndef TRAIN_TENSOR_H
#define TRAIN_TENSOR_H

#include <math.h>

#include "kernels/kernels.h"

enum { TENSORS_MAX = 256, TENSOR_NAME_MAX = 64 };

typedef enum {
    PARAMETER,  // trained: master, value, grad and optimizer state
    BUFFER,     // saved but not trained by gradients: running statistics, frozen weights
    CONSTANT,   // saved only, `fill` everywhere: PyTorch's batch norm has weights that ours has not
    COUNTER,    // saved only, one 64-bit integer without a shape
    ACTIVATION, // (batch, ...) of the device's element type, or of `bytes_each`
} TensorKind;

// How a parameter starts. The numbers are drawn on the host, keyed by the seed and the name.
typedef enum { INIT_UNIFORM, INIT_DIRAC, INIT_ONES } InitKind;
typedef struct Init {
    InitKind kind;
    double fan_in; // the bound is 1/sqrt(fan_in), PyTorch's default; 0: elements / shape[0]
} Init;
static const Init UNIFORM = {INIT_UNIFORM, 0};
// UNIFORM, then the first min(Cin,Cout) filters of a convolution become the identity.
static const Init DIRAC = {INIT_DIRAC, 0};
static const Init ONES = {INIT_ONES, 0};
// For a bias, which has as many inputs as the weights it goes with.
static inline Init uniform_fan_in(double fan_in)
{
    return (Init){INIT_UNIFORM, fan_in};
}
// Starts at 0.
static inline Init zeros(void)
{
    return (Init){INIT_UNIFORM, (double)INFINITY};
}

typedef struct Tensor {
    char name[TENSOR_NAME_MAX]; // "layer.what"; of what is saved, as PyTorch's state_dict has it
    TensorKind kind;
    int rank;
    int64_t shape[4]; // rank 4: (out,h,w,in), saved as (out,in,h,w), or (out,in*h*w) with `flatten`
    bool flatten;     // a linear layer after a map: saved with two dimensions
    int64_t n;        // elements
    int group;        // of the optimizer: the trainer's own numbers
    Init init;        // of a parameter
    float fill;       // initial value of a buffer, value of a constant
    size_t bytes_each;

    void *value;   // device; element type. NULL before tensors_allocate()
    float *master; // device, fp32: what is trained and saved
    float *grad;
    float *state1, *state2;
} Tensor;

typedef struct Tensors {
    Tensor list[TENSORS_MAX];
    int count;
    size_t parameter_bytes, activation_bytes; // of the fp32 parameter arena; of the activations
    float *master, *grad, *state1, *state2;   // arenas
    void *value, *activations;
    int64_t arena_floats; // of each parameter arena, padding (zeros) included
} Tensors;

// Declarations. The returned tensor stays valid; its pointers are set by tensors_allocate().
// Names may have printf's conversions: "block%d.conv1.weight". Shapes are up to four sizes, the
// unused ones 0: SHAPE(cout, 3, 3, cin), SHAPE(classes, features).
typedef struct Shape {
    int64_t size[4];
} Shape;
#define SHAPE(...) ((Shape){{__VA_ARGS__}})

Tensor *parameter(Tensors *t, Shape shape, int group, Init init, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
Tensor *buffer(Tensors *t, const char *name, Shape shape, float fill);
Tensor *constant(Tensors *t, const char *name, Shape shape, float fill);
Tensor *counter(Tensors *t, const char *name);
// Of the device's element type.
Tensor *activation(Tensors *t, Shape shape, const char *name, ...)
    __attribute__((format(printf, 3, 4)));
// Of another type: argmax, labels.
Tensor *workspace(Tensors *t, Shape shape, size_t bytes_each, const char *name, ...)
    __attribute__((format(printf, 4, 5)));

// A batch norm over `channels` named like PyTorch's BatchNorm2d. Its weight, which starts at 1, and
// its bias are parameters of `group`; bias_norm_tensors() has the bias alone, its weight stays 1.
typedef struct NormTensors {
    Tensor *weight; // NULL: ones
    Tensor *bias, *running_mean, *running_var, *stats, *sums;
} NormTensors;
NormTensors norm_tensors(Tensors *t, int channels, int group, const char *name, ...)
    __attribute__((format(printf, 4, 5)));
NormTensors bias_norm_tensors(Tensors *t, int channels, int group, const char *name, ...)
    __attribute__((format(printf, 4, 5)));

// A Norm for the kernels, from the allocated tensors.
Norm norm_of(const NormTensors *n, float eps, float momentum);

// Allocates the arenas. STATUS_IO or STATUS_DEVICE with the bytes needed, and about how much of
// `batch`, the --batch-size that the activations were declared for, would fit. more: arenas of
// parameter_bytes that the caller will take from the same memory.
int tensors_allocate(Tensors *t, const Kernels *k, int64_t batch, int more, Error *e);
size_t tensors_bytes(const Tensors *t, const Kernels *k, int more); // of all arenas
void tensors_release(Tensors *t, const Kernels *k);

// Trained parameters whose group is in the bit set `groups`, in the order of declaration.
// decay[group] may be NULL. Returns how many.
int tensors_params(const Tensors *t, unsigned groups, const float *decay, Param *params);
enum { ALL_GROUPS = 0x7fffffff };

// Elements of the largest activation of the device's element type that was declared so far.
int64_t tensors_largest_activation(const Tensors *t);

// The layer of a tensor: its name without the last part.
void tensor_layer(const Tensor *t, char layer[static TENSOR_NAME_MAX]);

// The same for the tensor that a device pointer is the value, master weight or gradient of; "-" for
// another pointer, "update" for NULL. A ProfileLayer.
void tensors_layer(const void *tensors, const void *pointer, char layer[static TENSOR_NAME_MAX]);

// Elements of all parameters (without buffers).
int64_t tensors_parameter_count(const Tensors *t);

// Sets the master weights and `value` from the host, in the device's layout.
void tensor_upload(const Tensor *t, const Kernels *k, const float *host);

// After writing the master arena as a whole: refreshes the working copies.
void tensors_refresh(const Tensors *t, const Kernels *k);

// Sets every buffer to its fill value.
void tensors_fill_buffers(const Tensors *t, const Kernels *k);

#endif
