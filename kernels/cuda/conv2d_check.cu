// The check at start: each tensor-core kernel against the plain one on small ragged maps of small
// integers, whose products and sums both hold exactly, so that the results are equal bit for bit.
// A kernel that differs is switched off for the run: a wrong instruction, compiler or driver then
// does not train a wrong network. Layers of few rows are compared with 1x1 convolutions. Channel
// statistics are left to --selftest. Muon's products have a check of their own (muon_product.cu).
#include <math.h>
#include <stdio.h>

#include "kernels/cuda/conv2d.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/muon.cuh"

bool conv_tensor_ok[CONV_TENSOR_KERNELS] = {true, true, true, true, true, true, true};
int conv_tensor_width;

// More steps of every product than stages, of 32 values of k and with wgmma of 64, and nothing a
// multiple of a tile.
static const ConvDims mma_shape = {3, 9, 8, 40, 72, 2, 1, 1},
                      wgmma_shape = {3, 9, 8, 40, 72, 3, 1, 2},
                      wide_shape = {3, 9, 8, 24, 72, 3, 1, 2}; // weights by wgmma in other tiles
// n rows, cin and cout of a layer: more terms than the stages of all slices have.
static const ConvDims few_shapes[] = {
    {40, 1, 1, 520, 48, 1, 1, 0}, {40, 1, 1, 48, 520, 1, 1, 0}, {520, 1, 1, 48, 40, 1, 1, 0}};
static ConvDims shape;
constexpr int64_t MOST = 72 * 3 * 3 * 40; // values of a tensor: those of w
constexpr int CHANNELS = 72;              // the most

typedef enum {
    FORWARD,
    POOL,
    DATA,
    POOL_DATA,
    NORM,
    POOL_NORM,
    NORM_DATA,
    POOL_NORM_DATA,
    WEIGHT,
    POOL_WEIGHT,
    OPERATIONS,
    LINEAR = OPERATIONS,
    LINEAR_DATA,
    LINEAR_WEIGHT,
    ALL_OPERATIONS
} Operation;
// By mma.sync, and by wgmma.
static const ConvTensorKernel kernel_of[ALL_OPERATIONS][2] = {
    {CONV_TENSOR_WINDOWS, CONV_WGMMA},
    {CONV_TENSOR_WINDOWS, CONV_WGMMA},
    {CONV_TENSOR_WINDOWS, CONV_WGMMA},
    {CONV_TENSOR_SPREAD, CONV_WGMMA_SPREAD},
    {CONV_TENSOR_WINDOWS, CONV_WGMMA},
    {CONV_TENSOR_WINDOWS, CONV_WGMMA},
    {CONV_TENSOR_WINDOWS, CONV_WGMMA},
    {CONV_TENSOR_SPREAD, CONV_WGMMA_SPREAD},
    {CONV_TENSOR_WEIGHT, CONV_WGMMA_WEIGHT},
    {CONV_TENSOR_WEIGHT, CONV_WGMMA_WEIGHT},
    {LINEAR_SMALL, LINEAR_SMALL},
    {LINEAR_SMALL, LINEAR_SMALL},
    {LINEAR_SMALL, LINEAR_SMALL},
};
static const char *const names[CONV_TENSOR_KERNELS + 1] = {
    "convolution",           "spread gradient",       "weight gradient", "wgmma convolution",
    "wgmma spread gradient", "wgmma weight gradient", "linear layers",   "Muon's products"};

struct CheckTensors {
    void *x, *w, *dy; // element
    uint8_t *argmax;
    void *out;           // of any operation
    uint8_t *out_argmax; // of POOL
    float *sums;         // of a norm
    float *ones;         // all else of a norm: xhat = x - 1 and z = x, exactly
    float *numbers;      // what is read, in fp32
};

// -2 .. 2, or 0 .. 3 for an argmax: the highest bits of a multiple of the place.
static uint32_t draw(int64_t i, uint32_t below)
{
    return (uint32_t)((uint64_t)((uint32_t)i * 2654435761u) * below >> 32);
}

static void fill(const Kernels *k, const CheckTensors &t, void *tensor)
{
    static float host[MOST];
    for (int64_t i = 0; i < MOST; i++) host[i] = (float)draw(i, 5) - 2;
    k->upload(t.numbers, host, sizeof host);
    k->from_f32(tensor, t.numbers, MOST);
}

static void run_few(const CheckTensors &t, Operation operation)
{
    const LinearDims d = {shape.n, shape.cin, shape.cout};
    if (operation == LINEAR)
        linear_small_forward(t.out, NULL, t.x, t.w, t.ones, ACT_RELU, false, d);
    else if (operation == LINEAR_DATA)
        linear_small_backward_data(t.out, t.dy, t.w, t.x, ACT_RELU, d);
    else
        linear_small_backward_weight((float *)t.out, t.sums, t.dy, t.x, SET, d);
}

static void run_as_convolution(const Kernels *k, const CheckTensors &t, Operation operation)
{
    const ConvDims d = shape;
    if (operation == LINEAR) {
        k->conv2d_forward(t.out, NULL, NULL, t.x, t.w, t.ones, ACT_RELU, d);
    } else if (operation == LINEAR_DATA) {
        k->conv2d_backward_data(t.out, t.dy, t.w, d);
        k->activation_backward(t.out, t.out, t.x, ACT_RELU, d.n * d.cin);
    } else {
        k->conv2d_backward_weight((float *)t.out, t.dy, t.x, SET, d);
        k->bias_act_backward(NULL, t.sums, t.dy, t.dy, ACT_NONE, SET, MapDims{d.n, d.cout});
    }
}

static void run(const Kernels *k, const CheckTensors &t, Operation operation)
{
    const ConvDims d = shape;
    const Norm n = {t.ones, t.sums, t.ones, t.ones, t.ones, t.ones, NULL, NULL, 0, 0};
    switch (operation) {
    case FORWARD:
        return k->conv2d_forward(t.out, NULL, NULL, t.x, t.w, NULL, ACT_NONE, d);
    case POOL:
        return k->conv2d_pool_forward(t.out, t.out_argmax, NULL, t.x, t.w, NULL, ACT_NONE, d);
    case DATA:
        return k->conv2d_backward_data(t.out, t.dy, t.w, d);
    case POOL_DATA:
        return k->conv2d_pool_backward_data(t.out, t.dy, t.argmax, t.w, d);
    case NORM:
        return k->conv2d_norm_inference(t.out, &n, t.x, t.w, ACT_RELU, d);
    case POOL_NORM:
        return k->conv2d_pool_norm_inference(t.out, &n, t.x, t.w, ACT_RELU, d);
    case NORM_DATA:
        return k->conv2d_norm_backward_data(t.out, &n, t.dy, t.w, t.x, ACT_RELU, d);
    case POOL_NORM_DATA:
        return k->conv2d_pool_norm_backward_data(t.out, &n, t.dy, t.argmax, t.w, t.x, ACT_RELU, d);
    case WEIGHT:
        return k->conv2d_backward_weight((float *)t.out, t.dy, t.x, SET, d);
    case POOL_WEIGHT:
        return k->conv2d_pool_backward_weight((float *)t.out, t.dy, t.argmax, t.x, SET, d);
    default:
        return cuda_device.tensor_cores_ok ? run_few(t, operation)
                                           : run_as_convolution(k, t, operation);
    }
}

// What an operation wrote, and a place for it on the host.
struct Result {
    float out[MOST];
    uint8_t argmax[MOST];
    float sums[2 * CHANNELS];
};

static void result_of(const Kernels *k, const CheckTensors &t, Operation operation, Result *result)
{
    k->zero(t.out, sizeof result->out);
    k->zero(t.out_argmax, sizeof result->argmax);
    k->zero(t.sums, sizeof result->sums);
    run(k, t, operation);
    k->download(result->out, t.out, sizeof result->out);
    k->download(result->argmax, t.out_argmax, sizeof result->argmax);
    k->download(result->sums, t.sums, sizeof result->sums);
}

// The operations from `first` to before `end`, with all widths of tiles.
static void check_shape(const Kernels *k, const CheckTensors &t, bool wgmma, ConvDims dims,
                        int first, int end)
{
    static Result plain, tensor;
    shape = dims;
    for (int i = first; i < end; i++) {
        const ConvTensorKernel kernel = kernel_of[i][wgmma];
        const int widest = kernel == CONV_WGMMA_SPREAD ? WIDEST
                           : kernel == LINEAR_SMALL    ? MIDDLE
                                                       : WIDE;
        cuda_device.tensor_cores_ok = false;
        result_of(k, t, (Operation)i, &plain);
        cuda_device.tensor_cores_ok = true;
        cuda_device.wgmma = wgmma;
        for (int width = wgmma ? MIDDLE : NARROW; width <= widest; width *= 2) {
            conv_tensor_width = width;
            result_of(k, t, (Operation)i, &tensor);
            if (memcmp(&plain, &tensor, sizeof plain) != 0) conv_tensor_ok[kernel] = false;
        }
        conv_tensor_width = 0;
    }
}

static void check_shapes(const Kernels *k, const CheckTensors &t)
{
    static uint8_t places[MOST];
    static float ones[3 * CHANNELS];
    for (int64_t i = 0; i < MOST; i++) places[i] = (uint8_t)draw(i, 4);
    for (float &one : ones) one = 1;
    for (void *tensor : {t.x, t.w, t.dy}) fill(k, t, tensor);
    k->upload(t.argmax, places, sizeof places);
    k->upload(t.ones, ones, sizeof ones);
    const bool wgmma = cuda_device.wgmma;
    check_shape(k, t, false, mma_shape, FORWARD, OPERATIONS);
    for (int i = LINEAR; i < ALL_OPERATIONS; i++)
        check_shape(k, t, false, few_shapes[i - LINEAR], i, i + 1);
    if (wgmma) {
        check_shape(k, t, true, wgmma_shape, FORWARD, OPERATIONS);
        check_shape(k, t, true, wide_shape, WEIGHT, OPERATIONS);
    }
    cuda_device.wgmma = wgmma;
}

static void report(char line[256], bool muon_ok)
{
    int length = 0;
    for (int i = 0; i <= CONV_TENSOR_KERNELS; i++)
        if (i < CONV_TENSOR_KERNELS ? !conv_tensor_ok[i] : !muon_ok)
            length += snprintf(line + length, (size_t)(256 - length), "%s%s",
                               length ? ", " : "wrong on this GPU's tensor cores: ", names[i]);
    if (length)
        snprintf(line + length, (size_t)(256 - length),
                 "; other kernels do it in this run (please report GPU and driver)");
}

void cuda_matmul_self_check(const Kernels *k, char line[256])
{
    line[0] = '\0';
    for (bool &ok : conv_tensor_ok) ok = true;
    if (!cuda_device.tensor_cores_ok || !conv_on_tensor_cores(CONV_TENSOR_WINDOWS, 8)) return;
    CheckTensors t;
    void **const all[] = {&t.x,
                          &t.w,
                          &t.dy,
                          (void **)&t.argmax,
                          &t.out,
                          (void **)&t.out_argmax,
                          (void **)&t.sums,
                          (void **)&t.ones,
                          (void **)&t.numbers};
    bool enough = true;
    for (void **tensor : all) enough = (*tensor = k->alloc(MOST * sizeof(float))) && enough;
    if (enough) check_shapes(k, t);
    for (void **tensor : all)
        if (*tensor) k->release(*tensor);
    report(line, muon_products_check(k));
}
