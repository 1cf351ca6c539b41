// The contract between a trainer and a device: one table of operations. Nothing else crosses it.
//
// Conventions, unless an operation says otherwise
//   element     activations, their gradients and working weights: fp32 or bf16 (Kernels.element)
//   float       statistics, losses, parameter gradients, master weights: always fp32
//   layout      NHWC, row-major: x (N,H,W,C) has x[n][h][w][c]; convolution weights
//               (Cout,KH,KW,Cin); linear weights (out,in). `rows` of a map is N*H*W.
//   pointers    256-byte aligned, inside of memory from alloc(); inputs and outputs do not overlap
//               unless "in place" is allowed
//   set / add   outputs are set; parameter gradients take a GradMode: SET, or ADD to what is there
//   order       operations run in the order they are called; only download(), synchronize()
//               and times() wait
//   bits        the same call on the same device model gives the same bits, for any number of
//               threads
//   errors      a wrong size is an assert, at the latest where a step is planned; a failing device
//               ends the process with STATUS_DEVICE
// Scalars that change from step to step (learning rates) are read from the step's values, which
// step_begin() hands to the device, so that a step can be captured once and replayed.
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef enum { F32, BF16 } ElementType;
typedef enum { SET, ADD } GradMode;

// F(activation, its name in reports, with) for each of them: docs/adding_an_activation.md. GELU is
// x * Phi(x), with erf.
#define EACH_ACTIVATION(F, with)                                                                   \
    F(ACT_NONE, "none", with)                                                                      \
    F(ACT_RELU, "relu", with)                                                                      \
    F(ACT_GELU, "gelu", with)                                                                      \
    F(ACT_SILU, "silu", with)

#define ACTIVATION_ENUMERATOR(act, name, with) act,
typedef enum { EACH_ACTIVATION(ACTIVATION_ENUMERATOR, ) } Activation;
#define ACTIVATION_COUNT(act, name, with) +1
#define ACTIVATIONS (EACH_ACTIVATION(ACTIVATION_COUNT, ))

// One step's values. hyper[0] is always 1; the other slots are the trainer's own.
enum { HYPER_ONE = 0, HYPER_SLOTS = 16 };
typedef struct StepValues {
    uint64_t seed;
    uint32_t step;  // optimizer steps done before this one
    uint32_t epoch; // with the sample ids, the key of augmentation and dropout
    float hyper[HYPER_SLOTS];
} StepValues;

// y (rows,out) = x (rows,in) w(out,in)^T
typedef struct LinearDims {
    int64_t rows, in, out;
} LinearDims;

// Square kernel of 1 to 7, stride 1 or 2, zero padding below the kernel size.
typedef struct ConvDims {
    int64_t n;
    int h, w, cin, cout;
    int kernel, stride, pad;
} ConvDims;

static inline int conv_out(int size, int kernel, int stride, int pad)
{
    return (size + 2 * pad - kernel) / stride + 1;
}

// Pooling without padding; what a window does not fill is dropped. At most 256 places a window of
// maxpool.
typedef struct PoolDims {
    int64_t n;
    int h, w, c;
    int kernel_h, kernel_w, stride;
} PoolDims;

// A map seen as (rows, channels).
typedef struct MapDims {
    int64_t rows;
    int channels;
} MapDims;

// Batch norm over all rows of a map, one set of values a channel:
//   xhat = (x - mean) / sqrt(var + eps)     y = act(xhat * weight + bias)
// Every pointer is a device tensor of (channels) fp32 but for stats and sums.
typedef struct Norm {
    float *stats;        // (3,channels) count, mean and M2 = sum (x - mean)^2 of this batch
    float *sums;         // (2,channels) of the backward pass: sum dz and sum dz * xhat
    float *running_mean; // = (1-momentum) * running + momentum * batch
    float *running_var;  // the same, of the unbiased variance M2 / max(count - 1, 1)
    const float *weight; // NULL: ones
    const float *bias;
    float *dweight; // NULL where weight is
    float *dbias;
    float eps, momentum;
} Norm;

typedef struct LossDims {
    int64_t rows;
    int classes;
    float smoothing;   // the target is (1-smoothing) one-hot + smoothing/classes
    float logit_scale; // the loss is that of logit_scale * logits
    float grad_scale;  // 1 for the gradient of the sum over rows, 1/rows for that of the mean
} LossDims;
enum { METRIC_LOSS = 0, METRIC_CORRECT = 1, METRICS = 4 }; // floats of a metrics tensor

typedef enum { FLIP_NONE, FLIP_RANDOM, FLIP_ALTERNATE } Flip;

// How a stored picture becomes an input: (x/255 - mean) / std of a moved, mirrored, cut copy.
// Random choices are keyed by seed, sample id and epoch; the moved window reflects at the border
// (without repeating the edge). FLIP_ALTERNATE: a random side in epoch 0, the other in the next.
typedef struct Augment {
    Flip flip;
    int translate;    // dy and dx each uniform in [-translate, translate]
    int cutout;       // side of a square set to the mean, its centre uniform in the image; 0: none
    float brightness; // x = (x + u1) * u2, u1 uniform in +-brightness,
    float contrast;   // u2 uniform in 1 +- contrast, on x/255, one pair an image
    int dy, dx;       // fixed: added to the random shift
    bool mirror;      // fixed: flips every image once more
} Augment;

typedef struct GatherDims {
    int64_t n; // images of the batch
    int h, w, c;
    float mean[4], std[4];
} GatherDims;

// One parameter tensor, as the optimizers see it.
typedef struct Param {
    void *value;   // (n) element: the working copy, set from master; NULL where it is master itself
    float *master; // (n) updated
    float *grad;   // (n)
    float *state1; // (n) momentum, first moment; zeroed before step 0
    float *state2; // (n) second moment; of the updates here only AdamW uses it
    int64_t n, rows; // as a matrix (rows, n/rows), rows = output channels
    int lr;          // slot of its learning rate in StepValues.hyper
    float decay;     // weight decay coefficient
} Param;

typedef struct Sgd {
    float momentum;
    bool nesterov;
} Sgd;

typedef struct AdamW {
    float beta1, beta2, eps;
} AdamW;

// Muon: momentum, then the matrix is replaced by a nearly orthogonal one of the same row and column
// space by `iterations` of X = aX + (bA + cAA)X, A = XX' (Jordan, 2024, "Muon").
typedef struct Muon {
    float momentum; // Nesterov form
    int iterations;
    float a, b, c;
    bool renormalize; // first scale every weight to a Frobenius norm of sqrt(rows)
} Muon;

enum { TIMES_MAX = 1024 };

// Takes a row of a backend's own micro-benchmarks; it may sort the values.
typedef void MicroRow(void *context, const char *name, const char *unit, bool higher_is_better,
                      double *values, int count);
struct Collectives; // base/comm.h
struct Comm;

typedef struct Kernels {
    const char *device;    // "cpu", "cuda:0"
    char description[128]; // for a person: "Intel Xeon, 2 threads, AVX-512"
    ElementType element;
    size_t element_size;
    bool tf32;       // element F32: matrix products may round their factors to 11 significant bits
    bool own_memory; // not the host's

    // ---- memory and control ------------------------------------------------------------------
    void *(*alloc)(size_t bytes); // zeroed, 256-byte aligned; NULL when there is not enough
    void (*release)(void *p);
    size_t (*memory_free)(void); // bytes
    void (*upload)(void *device_dst, const void *host_src, size_t bytes);
    // The same for small data that each step has anew: it may travel with the values of the step
    // that begins next.
    void (*step_upload)(void *device_dst, const void *host_src, size_t bytes);
    void (*download)(void *host_dst, const void *device_src, size_t bytes); // waits
    void (*copy)(void *dst, const void *src, size_t bytes);
    void (*zero)(void *p, size_t bytes);
    void (*synchronize)(void);
    // While planning, operations only ask for scratch memory; turning it off allocates the largest
    // amount that was asked for. Used by kernels/plan.c.
    int (*planning)(bool on, Error *e);
    // Starts a step. A variant is a small number for each different sequence of calls (frozen
    // layers, say); a negative one is never captured. Returns true if the step's calls are to be
    // made now: they run, or are captured. Returns false if this variant is already captured:
    // step_end() then replays it. The replay may be deferred and batched with those of the next
    // steps; any other device call but step_upload() flushes it.
    bool (*step_begin)(int variant, const StepValues *values);
    void (*step_end)(void);
    // Says that in the rest of this step only an update touches the parameter of this gradient
    // (Param.grad), which is complete: a device may do muon_update()'s work on it beside the calls
    // that follow. Without it the results are the same.
    void (*update_may_begin)(const float *grad);
    // Between time_begin() and time_end() the device's own time is taken, and a range is named for
    // its profilers (CUDA: NVTX). Not in a step that may be captured, at most TIMES_MAX times
    // until times(), which waits and tells how long each of the `count` took, in seconds.
    void (*time_begin)(const char *range);
    void (*time_end)(void);
    void (*times)(double *seconds, int count);
    // For --bench (docs/timing.md): launches of kernels and graphs so far, and rows of `samples`
    // values about what this backend alone has. Both are NULL on the CPU.
    const int64_t *launches;
    void (*micro)(MicroRow *row, void *context, int samples);
    // Sums over several processes, of which `comm` are open already: sets *c, which stays valid
    // until its close(). NULL where tensors are host memory: Comm.collectives serve. STATUS_DEVICE.
    int (*open_collectives)(const struct Collectives **c, const struct Comm *comm, Error *e);
    void (*close)(void);

    // ---- conversion --------------------------------------------------------------------------
    void (*from_f32)(void *y, const float *x, int64_t n);
    void (*to_f32)(float *y, const void *x, int64_t n);

    // ---- input -------------------------------------------------------------------------------
    // x (n,h,w,c) element and labels_out (n) from a set of uint8 images (m,h,w,c) and labels (m).
    // ids (n): the global sample index of each image, which keys its randomness.
    // rows (n): where it lies in the set; NULL: image i of the batch is images[i].
    void (*gather)(void *x, int32_t *labels_out, const uint8_t *images, const int32_t *labels,
                   const uint32_t *ids, const uint32_t *rows, GatherDims d, Augment a);

    // ---- linear ------------------------------------------------------------------------------
    // z = x w^T + bias, y = act(z). bias NULL: none. z NULL: not stored (ReLU needs only y).
    void (*linear_forward)(void *y, void *z, const void *x, const void *w, const float *bias,
                           Activation act, LinearDims d);
    // y = x w^T + bias with y (rows,out) in fp32: logits.
    void (*linear_forward_f32)(float *y, const void *x, const void *w, const float *bias,
                               LinearDims d);
    // dx = (dy w) * act'(saved): `act` made x; saved (rows,in) is what activation_backward takes.
    // ACT_NONE, NULL: plain.
    void (*linear_backward_data)(void *dx, const void *dy, const void *w, const void *saved,
                                 Activation act, LinearDims d);
    // dw (out,in) fp32 = dy^T x, dbias (out) = sum over rows of dy; dbias NULL: none.
    void (*linear_backward_weight)(float *dw, float *dbias, const void *dy, const void *x,
                                   GradMode mode, LinearDims d);

    // ---- convolution, NHWC -------------------------------------------------------------------
    // z = conv(x, w) + bias, y = act(z), (n,oh,ow,cout). bias NULL: none; z NULL: not stored.
    // stats (3,cout), NULL: none: count, mean and M2 of z a channel.
    void (*conv2d_forward)(void *y, void *z, float *stats, const void *x, const void *w,
                           const float *bias, Activation act, ConvDims d);
    // y = act(maxpool(conv(x, w), 2x2 stride 2) + bias), (n,oh/2,ow/2,cout); argmax the same shape,
    // the place 2*row + column of the first maximum. stats are those of the pooled map + bias.
    // Outputs of the convolution that no window reads are not computed.
    void (*conv2d_pool_forward)(void *y, uint8_t *argmax, float *stats, const void *x,
                                const void *w, const float *bias, Activation act, ConvDims d);
    void (*conv2d_backward_data)(void *dx, const void *dy, const void *w, ConvDims d);
    void (*conv2d_backward_weight)(float *dw, const void *dy, const void *x, GradMode mode,
                                   ConvDims d);
    // As above, with dy (n,oh/2,ow/2,cout) the gradient of the pooled map before bias and act.
    void (*conv2d_pool_backward_data)(void *dx, const void *dy, const uint8_t *argmax,
                                      const void *w, ConvDims d);
    void (*conv2d_pool_backward_weight)(float *dw, const void *dy, const uint8_t *argmax,
                                        const void *x, GradMode mode, ConvDims d);

    // ---- convolution next to a batch norm ----------------------------------------------------
    // The input of the convolution was act(z), z = norm(x): dz = g * act'(z), with g its gradient
    // as conv2d_backward_data() has it and z recomputed from x. n.sums set, of dz as it is stored.
    // norm_act_backward() with ACT_NONE takes it from there. dz and x (n,h,w,cin).
    void (*conv2d_norm_backward_data)(void *dz, const Norm *n, const void *dy, const void *w,
                                      const void *x, Activation act, ConvDims d);
    void (*conv2d_pool_norm_backward_data)(void *dz, const Norm *n, const void *dy,
                                           const uint8_t *argmax, const void *w, const void *x,
                                           Activation act, ConvDims d);
    // y = act(norm(conv(x, w))) and act(norm(maxpool(conv(x, w)))), as conv2d_forward() and
    // conv2d_pool_forward(), with the running statistics, which stay.
    void (*conv2d_norm_inference)(void *y, const Norm *n, const void *x, const void *w,
                                  Activation act, ConvDims d);
    void (*conv2d_pool_norm_inference)(void *y, const Norm *n, const void *x, const void *w,
                                       Activation act, ConvDims d);

    // ---- activation and bias -----------------------------------------------------------------
    // In place allowed. `saved` is y for ReLU and the input x for all others; y may serve for
    // ACT_NONE.
    void (*activation_forward)(void *y, const void *x, Activation act, int64_t n);
    void (*activation_backward)(void *dx, const void *dy, const void *saved, Activation act,
                                int64_t n);
    // dz = dy * act'(saved) and dbias (channels) = sum over rows of dz. In place allowed; dz NULL:
    // only dbias.
    void (*bias_act_backward)(void *dz, float *dbias, const void *dy, const void *saved,
                              Activation act, GradMode mode, MapDims d);

    // ---- batch norm --------------------------------------------------------------------------
    void (*norm_stats)(float *stats, const void *x, MapDims d); // count, mean, M2: Norm.stats
    // Norm.stats of all rows from those of some parts of them, all (parts,3,channels), none empty.
    void (*norm_merge)(float *stats, const float *all, int parts, int channels);
    // y = act(norm(x)) with the statistics in n.stats, which also move the running ones.
    void (*norm_act_forward)(void *y, const Norm *n, const void *x, Activation act, MapDims d);
    // The same with the running statistics, which stay. In place allowed.
    void (*norm_act_inference)(void *y, const Norm *n, const void *x, Activation act, MapDims d);
    // dz = dy * act'(z) with z = xhat * weight + bias recomputed from x: n.sums set.
    void (*norm_act_backward_sums)(const Norm *n, const void *dy, const void *x, Activation act,
                                   MapDims d);
    // dx = weight / sigma * (dz - mean dz - xhat * mean(dz xhat)) from n.sums and the count of
    // n.stats; n.dbias and n.dweight from n.sums. dx may be dy.
    void (*norm_act_backward)(void *dx, const Norm *n, const void *dy, const void *x,
                              Activation act, GradMode mode, MapDims d);

    // ---- pooling -----------------------------------------------------------------------------
    // y (n,ph,pw,c); argmax the same shape: the first maximum's place kernel_w*row + column. A NaN
    // is larger than every number, here and in what pools together with a convolution.
    void (*maxpool_forward)(void *y, uint8_t *argmax, const void *x, PoolDims d);
    void (*maxpool_backward)(void *dx, const void *dy, const uint8_t *argmax, PoolDims d);
    void (*avgpool_forward)(void *y, const void *x, PoolDims d);
    void (*avgpool_backward)(void *dx, const void *dy, PoolDims d);

    // ---- dropout, residual -------------------------------------------------------------------
    // y (n,per_sample) = x * mask / (1 - rate); the mask is a function of the step's seed and
    // epoch, ids (n), `layer` (0 to 255) and the element (of 2^26 at most): backward is the same
    // call on dy. In place allowed.
    void (*dropout)(void *y, const void *x, const uint32_t *ids, float rate, int layer, int64_t n,
                    int64_t per_sample);
    void (*add)(void *y, const void *a, const void *b, int64_t n); // y = a + b; in place allowed

    // ---- loss --------------------------------------------------------------------------------
    // Softmax cross-entropy with label smoothing. metrics (METRICS): the sum of the losses and the
    // count of rows whose largest logit is the label's are added. dlogits (rows,classes) element,
    // NULL: none.
    void (*softmax_cross_entropy)(float *metrics, void *dlogits, const float *logits,
                                  const int32_t *labels, LossDims d);
    // Adds the sum over rows of the mean over channels of (y - target)^2 to metrics[METRIC_LOSS].
    // y fp32 and target (rows,channels); dy = grad_scale * 2/channels * (y - target), NULL: none.
    void (*mean_squared_error)(float *metrics, void *dy, const float *y, const void *target,
                               float grad_scale, MapDims d);

    // ---- optimizers: one call for a list of parameters ---------------------------------------
    // g = grad + decay*w; v = momentum*v + g; w -= lr * (nesterov ? g + momentum*v : v)
    void (*sgd_update)(const Param *p, int count, Sgd c);
    // Loshchilov & Hutter 2019: w -= lr*decay*w; w -= lr * mhat / (sqrt(vhat) + eps)
    void (*adamw_update)(const Param *p, int count, AdamW c);
    void (*muon_update)(const Param *p, int count, Muon c);
    // norm (1) = |g| over all gradients; each is scaled by min(1, max_norm / |g|).
    void (*clip_gradients)(float *norm, const Param *p, int count, float max_norm);
    // ema = d*ema + (1-d)*x, d = hyper[decay_slot]
    void (*ema_update)(float *ema, const float *x, int decay_slot, int64_t n);

    // ---- fp32 vectors, to compose an optimizer in C (docs/adding_an_optimizer.md) --------------
    // `s` names a slot of StepValues.hyper; HYPER_ONE is 1. In place allowed.
    void (*axpy)(float *y, float a, int s, const float *x, int64_t n);     // y += a*hyper[s]*x
    void (*scale)(float *y, float a, int s, const float *x, int64_t n);    // y = a*hyper[s]*x
    void (*multiply)(float *y, const float *a, const float *b, int64_t n); // y = a*b
    void (*sqrt_divide)(float *y, const float *a, const float *b, float eps, int64_t n);
    // y = a / (sqrt(b) + eps)
    void (*dot)(float *result, const float *a, const float *b, int64_t n); // result (1), set
} Kernels;

typedef struct KernelsConfig {
    const char *device; // "cpu", "cuda", "cuda:1", "auto"
    const char *dtype;  // "auto", "fp32", "tf32", "bf16"
    int threads;        // CPU; 0: all that this process may use
    bool no_graph;      // never capture a step: make its calls each time
    int local_rank;     // of several processes on this machine: "cuda" and "auto" take GPU
                        // local_rank % GPUs
} KernelsConfig;

// Opens the device. One a process. STATUS_DEVICE with the fix when it cannot be used; "auto" falls
// back to the CPU and says why in `note` (empty when there is nothing to say).
int kernels_open(const Kernels **k, const KernelsConfig *c, char note[256], Error *e);

// What --dtype came to: "fp32", "tf32" or "bf16".
const char *kernels_dtype(const Kernels *k);

// ---- plan mode (kernels/plan.c) ---------------------------------------------------------------
typedef struct Plan {
    double flop;  // arithmetic of one pass: 2 a multiply-add
    double bytes; // memory traffic, each operand read or written once
    int calls;
} Plan;

// A table whose operations touch no data: they record, and let the device size its scratch memory.
// Pointers given to it may be NULL. Between begin and end the trainer runs its own step with it.
const Kernels *kernels_plan_begin(const Kernels *k);
int kernels_plan_end(Plan *plan, Error *e);

#endif
