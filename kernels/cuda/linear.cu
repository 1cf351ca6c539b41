// Fully connected layers: y = x w^T, dx = dy w, dw = dy^T x, and what surrounds them.
//
//   small        linear_small.cu: everything in one launch on tensor cores, where the product has
//                few tiles and not many terms.
//   cuBLASLt     larger ones where its epilogues do what is asked for: products without bias, or
//                with an fp32 bias and an fp32 result (its bias has the type of the result); in and
//                out multiples of 16 bytes. Activations then follow in place.
//   convolution  the rest, as 1x1 convolutions of 1x1 maps: on tensor cores with everything in the
//                epilogue where the terms are a multiple of 16 bytes, else the plain kernel.
//
// The library is opened when a layer first needs it, and where it is missing the convolutions do
// its work. Its algorithm is the first that its heuristic names for the shape, and parts of a sum
// are kept in fp32: the same bits every time.
// Floor: 2 rows in out FLOP over the tensor cores' rate, or the matrices over the bandwidth. Not
// measured yet.
#include <cublasLt.h>
#include <dlfcn.h>

#include "kernels/cuda/conv2d.cuh"
#include "kernels/cuda/linear.cuh"

static const Kernels *table; // for the operations that surround products

// ---- the library -------------------------------------------------------------------------------

#define LT_FUNCTIONS(X)                                                                            \
    X(Create)                                                                                      \
    X(Destroy)                                                                                     \
    X(MatmulDescCreate)                                                                            \
    X(MatmulDescDestroy)                                                                           \
    X(MatmulDescSetAttribute)                                                                      \
    X(MatrixLayoutCreate)                                                                          \
    X(MatrixLayoutDestroy)                                                                         \
    X(MatmulPreferenceCreate)                                                                      \
    X(MatmulPreferenceDestroy)                                                                     \
    X(MatmulPreferenceSetAttribute)                                                                \
    X(MatmulAlgoGetHeuristic)                                                                      \
    X(Matmul)

#define LT_POINTER(name) decltype(&cublasLt##name) name;
static struct {
    bool tried;
    void *library;
    cublasLtHandle_t handle;
    LT_FUNCTIONS(LT_POINTER)
} lt;

#ifdef NN_EMU
static bool find_functions()
{
#define LT_LINKED(name) lt.name = cublasLt##name;
    LT_FUNCTIONS(LT_LINKED)
    return true;
}
#else
#define LT_TEXT(x) #x
#define LT_VERSION(x) LT_TEXT(x)
static bool find_functions()
{
    bool found = true;
    lt.library = dlopen("libcublasLt.so." LT_VERSION(CUBLAS_VER_MAJOR), RTLD_NOW | RTLD_LOCAL);
    if (!lt.library) return false;
#define LT_FIND(name)                                                                              \
    *(void **)&lt.name = dlsym(lt.library, "cublasLt" #name);                                      \
    found = found && lt.name;
    LT_FUNCTIONS(LT_FIND)
    return found;
}
#endif

static bool library_works()
{
    if (!lt.tried && (!find_functions() || lt.Create(&lt.handle) != CUBLAS_STATUS_SUCCESS))
        lt.handle = NULL;
    lt.tried = true;
    return lt.handle != NULL;
}

// ---- plans -------------------------------------------------------------------------------------

// D (m,n) = op(A) op(B) + beta D with sums of k products, column-major as the library has it: our
// (rows,columns) matrix is its (columns,rows). A is (m,k), transposed (k,m); B is (k,n) or (n,k).
struct Product {
    int64_t m, n, k;
    bool a_transposed, b_transposed, float_result;
    cublasLtEpilogue_t epilogue;
};

struct ProductPlan {
    Product product;
    bool found;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
};

enum { PLANS = 128 }; // more shapes take the places of the oldest
constexpr size_t MOST_WORKSPACE = 32 << 20;
static ProductPlan plans[PLANS];
static int plan_count;

static bool same_product(const Product &a, const Product &b)
{
    return a.m == b.m && a.n == b.n && a.k == b.k && a.a_transposed == b.a_transposed &&
           a.b_transposed == b.b_transposed && a.float_result == b.float_result &&
           a.epilogue == b.epilogue;
}

static void lt_check(cublasStatus_t status, const char *call)
{
    if (status != CUBLAS_STATUS_SUCCESS)
        die(STATUS_DEVICE, "cuBLASLt: %s failed with status %d; hint: --device cpu works without",
            call, (int)status);
}
#define LT_CHECK(call) lt_check((call), #call)

static void free_plan(ProductPlan *p)
{
    LT_CHECK(lt.MatrixLayoutDestroy(p->a));
    LT_CHECK(lt.MatrixLayoutDestroy(p->b));
    LT_CHECK(lt.MatrixLayoutDestroy(p->d));
    LT_CHECK(lt.MatmulDescDestroy(p->desc));
}

static void choose_algorithm(ProductPlan *p)
{
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    int count = 0;
    LT_CHECK(lt.MatmulPreferenceCreate(&preference));
    LT_CHECK(lt.MatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &MOST_WORKSPACE, sizeof MOST_WORKSPACE));
    LT_CHECK(lt.MatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                             &schemes, sizeof schemes));
    const cublasStatus_t status = lt.MatmulAlgoGetHeuristic(lt.handle, p->desc, p->a, p->b, p->d,
                                                            p->d, preference, 1, &result, &count);
    p->found = status == CUBLAS_STATUS_SUCCESS && count == 1;
    p->algorithm = result.algo;
    p->workspace = result.workspaceSize;
    LT_CHECK(lt.MatmulPreferenceDestroy(preference));
}

static void set_attribute(ProductPlan *p, cublasLtMatmulDescAttributes_t name, const void *value,
                          size_t bytes)
{
    LT_CHECK(lt.MatmulDescSetAttribute(p->desc, name, value, bytes));
}

static void make_plan(ProductPlan *plan, const Product &p)
{
    const cudaDataType_t element = cuda_device.element == BF16 ? CUDA_R_16BF : CUDA_R_32F,
                         result = p.float_result ? CUDA_R_32F : element;
    const cublasOperation_t a = p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                            b = p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const uint64_t a_rows = (uint64_t)(p.a_transposed ? p.k : p.m),
                   b_rows = (uint64_t)(p.b_transposed ? p.n : p.k);
    memset(plan, 0, sizeof *plan);
    plan->product = p;
    LT_CHECK(lt.MatmulDescCreate(
        &plan->desc, cuda_device.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
        CUDA_R_32F));
    set_attribute(plan, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a);
    set_attribute(plan, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b);
    set_attribute(plan, CUBLASLT_MATMUL_DESC_EPILOGUE, &p.epilogue, sizeof p.epilogue);
    LT_CHECK(lt.MatrixLayoutCreate(&plan->a, element, a_rows,
                                   (uint64_t)(p.a_transposed ? p.m : p.k), (int64_t)a_rows));
    LT_CHECK(lt.MatrixLayoutCreate(&plan->b, element, b_rows,
                                   (uint64_t)(p.b_transposed ? p.k : p.n), (int64_t)b_rows));
    LT_CHECK(lt.MatrixLayoutCreate(&plan->d, result, (uint64_t)p.m, (uint64_t)p.n, p.m));
    choose_algorithm(plan);
}

static ProductPlan *plan_of(const Product &p)
{
    for (int i = 0; i < plan_count && i < PLANS; i++)
        if (same_product(plans[i].product, p)) return &plans[i];
    ProductPlan *plan = &plans[plan_count % PLANS];
    if (plan_count++ >= PLANS) free_plan(plan);
    make_plan(plan, p);
    return plan;
}

void cuda_linear_close(void)
{
    for (int i = 0; i < plan_count && i < PLANS; i++) free_plan(&plans[i]);
    plan_count = 0;
    if (lt.handle) LT_CHECK(lt.Destroy(lt.handle));
    lt.handle = NULL;
    lt.tried = false;
}

// Whether the library did it, or, while the device is being planned, will do it.
static bool library_product(void *d, const void *a, const void *b, const float *bias, bool add,
                            const Product &p)
{
    if (!library_works()) return false;
    ProductPlan *plan = plan_of(p);
    if (!plan->found) return false;
    void *const workspace = cuda_scratch(plan->workspace);
    if (!workspace) return true;
    const float one = 1, beta = add ? 1 : 0;
    if (p.epilogue & CUBLASLT_EPILOGUE_BIAS)
        set_attribute(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    LT_CHECK(lt.Matmul(lt.handle, plan->desc, &one, a, plan->a, b, plan->b, &beta, d, plan->d, d,
                       plan->d, &plan->algorithm, workspace, plan->workspace, cuda_stream));
    return true;
}

// ---- operations --------------------------------------------------------------------------------

// The one rule for which products (rows,columns) go to linear_small.cu: those with at most one tile
// of 64x64 a multiprocessor, where tiles of 128x128 would leave three in four idle; and with few
// terms, since it reads each factor again for every 64 rows or columns of the result.
static bool is_small(int64_t rows, int64_t columns, int64_t terms)
{
    enum { MOST_TERMS = 1024 };
    return conv_on_tensor_cores(LINEAR_SMALL, 0) && rows > 0 && terms > 0 && terms <= MOST_TERMS &&
           linear_small_tiles(rows, columns) <= cuda_device.processors;
}

// The one rule for what the library takes of the others.
static bool for_library(LinearDims d)
{
    const int piece = cuda_device.element == BF16 ? 8 : 4;
    return d.rows > 0 && d.in % piece == 0 && d.out % piece == 0;
}

static ConvDims as_convolution(LinearDims d)
{
    assert(d.in < INT32_MAX && d.out < INT32_MAX);
    return ConvDims{d.rows, 1, 1, (int)d.in, (int)d.out, 1, 1, 0};
}

static bool library_forward(void *y, void *z, const void *x, const void *w, const float *bias,
                            Activation act, bool float_result, LinearDims d)
{
    if (!for_library(d) || (bias && !float_result)) return false;
    const bool fused = act == ACT_NONE ? !z : act == ACT_RELU && !z;
    int epilogue = bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    if (fused && act == ACT_RELU) epilogue |= CUBLASLT_EPILOGUE_RELU;
    const Product p = {
        d.out, d.rows, d.in, true, false, float_result, (cublasLtEpilogue_t)epilogue};
    if (!library_product(z ? z : y, w, x, bias, false, p)) return false;
    if (!fused && !cuda_planning()) table->activation_forward(y, z ? z : y, act, d.rows * d.out);
    return true;
}

static void linear_forward(void *y, void *z, const void *x, const void *w, const float *bias,
                           Activation act, LinearDims d)
{
    if (is_small(d.rows, d.out, d.in))
        return linear_small_forward(y, z, x, w, bias, act, cuda_device.element == F32, d);
    if (library_forward(y, z, x, w, bias, act, cuda_device.element == F32, d)) return;
    ConvOutput o = {};
    o.y = y, o.z = z, o.bias = bias, o.act = act;
    conv_forward(o, NULL, x, w, as_convolution(d));
}

static void linear_forward_f32(float *y, const void *x, const void *w, const float *bias,
                               LinearDims d)
{
    if (is_small(d.rows, d.out, d.in))
        return linear_small_forward(y, NULL, x, w, bias, ACT_NONE, true, d);
    if (library_forward(y, NULL, x, w, bias, ACT_NONE, true, d)) return;
    ConvOutput o = {};
    o.y = y, o.bias = bias, o.y_is_float = true;
    conv_forward(o, NULL, x, w, as_convolution(d));
}

static void linear_backward_data(void *dx, const void *dy, const void *w, const void *saved,
                                 Activation act, LinearDims d)
{
    if (is_small(d.rows, d.in, d.out)) return linear_small_backward_data(dx, dy, w, saved, act, d);
    const Product p = {
        d.in, d.rows, d.out, false, false, cuda_device.element == F32, CUBLASLT_EPILOGUE_DEFAULT};
    if (for_library(d) && library_product(dx, w, dy, NULL, false, p)) {
        if (act != ACT_NONE && !cuda_planning())
            table->activation_backward(dx, dx, saved, act, d.rows * d.in);
        return;
    }
    ConvOutput o = {};
    o.y = dx, o.act = act;
    o.saved = act == ACT_NONE ? NULL : saved;
    conv_backward_data(o, dy, NULL, w, as_convolution(d));
}

static void linear_backward_weight(float *dw, float *dbias, const void *dy, const void *x,
                                   GradMode mode, LinearDims d)
{
    if (is_small(d.out, d.in, d.rows))
        return linear_small_backward_weight(dw, dbias, dy, x, mode, d);
    const Product p = {d.in, d.out, d.rows, false, true, true, CUBLASLT_EPILOGUE_DEFAULT};
    if (!for_library(d) || !library_product(dw, x, dy, NULL, mode == ADD, p))
        conv_backward_weight(dw, dy, NULL, x, mode, as_convolution(d));
    if (dbias)
        table->bias_act_backward(NULL, dbias, dy, dy, ACT_NONE, mode, MapDims{d.rows, (int)d.out});
}

void cuda_linear_ops(Kernels *k)
{
    table = k;
    k->linear_forward = linear_forward;
    k->linear_forward_f32 = linear_forward_f32;
    k->linear_backward_data = linear_backward_data;
    k->linear_backward_weight = linear_backward_weight;
}
