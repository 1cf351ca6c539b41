// cuBLASLt, as far as it is used: D = epilogue(alpha op(A) op(B) + beta C), fp32 sums.
#include <cublasLt.h>
#include <vector>

#include "tests/cuda_on_cpu/internal.h"
#include "tests/cuda_on_cpu/sanitizer.h"

using namespace emu;

namespace
{
struct Layout {
    int type, order;
    int64_t rows, columns, leading;
};

struct Product {
    int compute, scale, trans_a, trans_b;
    uint32_t epilogue;
    const void *bias;
    int bias_type; // -1: that of D
};

// They live in the library's own opaque structs.
static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t));
static_assert(sizeof(Product) <= sizeof(cublasLtMatmulDescOpaque_t));

struct Matrix {
    void *data;
    Layout layout;

    size_t at(int64_t row, int64_t column) const
    {
        return (size_t)(layout.order == CUBLASLT_ORDER_ROW ? row * layout.leading + column
                                                           : row + column * layout.leading);
    }
};

size_t size_of(int type)
{
    if (type == CUDA_R_32F) return 4;
    if (type == CUDA_R_16BF) return 2;
    fail("cublasLt: data type %d is not emulated", type);
}

float load(const void *p, size_t i, int type)
{
    return type == CUDA_R_32F ? ((const float *)p)[i]
                              : __bfloat162float(((const __nv_bfloat16 *)p)[i]);
}

void store(void *p, size_t i, int type, float value)
{
    if (type == CUDA_R_32F)
        ((float *)p)[i] = value;
    else
        ((__nv_bfloat16 *)p)[i] = __float2bfloat16(value);
}

void check_range(const void *p, size_t bytes, size_t alignment, const char *name)
{
    memory_check(p, bytes, DEVICE, name);
    if ((uintptr_t)p % alignment) fail("%s %p, which is not aligned", name, p);
    if (const void *bad = first_poisoned(p, bytes)) fail("%s %p, beyond its block", name, bad);
}

void check_matrix(const Matrix &m, const char *name)
{
    const Layout &l = m.layout;
    if (l.leading < (l.order == CUBLASLT_ORDER_ROW ? l.columns : l.rows))
        fail("%s a matrix with a leading dimension of %lld", name, (long long)l.leading);
    const size_t element = size_of(l.type);
    check_range(m.data, (m.at(l.rows - 1, l.columns - 1) + 1) * element, element, name);
}

// As the tensor cores take fp32 in TF32 mode.
float round_tf32(float x)
{
    const unsigned bits = __float_as_uint(x);
    return (bits & 0x7f800000u) == 0x7f800000u ? x : __uint_as_float((bits + 0x1000u) & ~0x1fffu);
}

// op(m), row by row (rows, columns).
std::vector<float> unpack(const Matrix &m, bool transpose, bool tf32)
{
    const int64_t rows = transpose ? m.layout.columns : m.layout.rows;
    const int64_t columns = transpose ? m.layout.rows : m.layout.columns;
    std::vector<float> values((size_t)(rows * columns));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            const size_t at = transpose ? m.at(j, i) : m.at(i, j);
            const float x = load(m.data, at, m.layout.type);
            values[(size_t)(i * columns + j)] = tf32 ? round_tf32(x) : x;
        }
    return values;
}

float finish(const Product &p, float value, int64_t row, int type)
{
    if (p.epilogue & CUBLASLT_EPILOGUE_BIAS)
        value += load(p.bias, (size_t)row, p.bias_type < 0 ? type : p.bias_type);
    // NaN stays.
    return (p.epilogue & CUBLASLT_EPILOGUE_RELU) && value < 0 ? 0 : value;
}

void multiply(const Product &p, float alpha, float beta, const Matrix &a, const Matrix &b,
              const Matrix &c, const Matrix &d)
{
    const bool tf32 = p.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    const std::vector<float> x = unpack(a, p.trans_a == CUBLAS_OP_T, tf32);
    const std::vector<float> y = unpack(b, p.trans_b == CUBLAS_OP_T, tf32);
    const size_t columns = (size_t)d.layout.columns, depth = x.size() / (size_t)d.layout.rows;
    std::vector<float> sums(columns);
    for (int64_t i = 0; i < d.layout.rows; i++) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (size_t k = 0; k < depth; k++)
            for (size_t j = 0; j < columns; j++)
                sums[j] += x[(size_t)i * depth + k] * y[k * columns + j];
        for (int64_t j = 0; j < d.layout.columns; j++) {
            float value = alpha * sums[(size_t)j];
            if (beta != 0) value += beta * load(c.data, c.at(i, j), c.layout.type);
            store(d.data, d.at(i, j), d.layout.type, finish(p, value, i, d.layout.type));
        }
    }
}

bool shapes_agree(const Product &p, const Layout &a, const Layout &b, const Layout &c,
                  const Layout &d)
{
    const bool ta = p.trans_a == CUBLAS_OP_T, tb = p.trans_b == CUBLAS_OP_T;
    return (ta ? a.columns : a.rows) == d.rows && (tb ? b.rows : b.columns) == d.columns &&
           (ta ? a.rows : a.columns) == (tb ? b.columns : b.rows) && c.rows == d.rows &&
           c.columns == d.columns;
}

template <class Field> cublasStatus_t set_field(Field *field, const void *value, size_t bytes)
{
    if (bytes != sizeof *field) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
} // namespace

// ---- handle, descriptors -----------------------------------------------------------------------

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = (cublasLtHandle_t) new int();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete (int *)handle;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS ? "CUBLAS_STATUS_SUCCESS" : "CUBLAS_STATUS_OF_EMULATION";
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return cublasLtGetStatusName(status);
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t desc, size_t,
                                               cublasComputeType_t compute, cudaDataType_t scale)
{
    const Product p = {
        (int)compute, (int)scale, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr, -1};
    memcpy(desc, &p, sizeof p);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    *desc = new cublasLtMatmulDescOpaque_t();
    return cublasLtMatmulDescInit_internal(*desc, sizeof **desc, compute, scale);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    Product *p = (Product *)desc;
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return set_field(&p->trans_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return set_field(&p->trans_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return set_field(&p->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return set_field(&p->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return set_field(&p->bias_type, value, bytes);
    default:
        fail("cublasLt: attribute %d of a product is not emulated", (int)attribute);
    }
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, size_t,
                                                 cudaDataType type, uint64_t rows, uint64_t columns,
                                                 int64_t leading)
{
    const Layout l = {(int)type, CUBLASLT_ORDER_COL, (int64_t)rows, (int64_t)columns, leading};
    memcpy(layout, &l, sizeof l);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t leading)
{
    *layout = new cublasLtMatrixLayoutOpaque_t();
    return cublasLtMatrixLayoutInit_internal(*layout, sizeof **layout, type, rows, columns,
                                             leading);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t bytes)
{
    Layout *l = (Layout *)layout;
    if (attribute != CUBLASLT_MATRIX_LAYOUT_ORDER)
        fail("cublasLt: attribute %d of a layout is not emulated", (int)attribute);
    return set_field(&l->order, value, bytes);
}

// ---- heuristic, product ------------------------------------------------------------------------

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new cublasLtMatmulPreferenceOpaque_t();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t, size_t)
{
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t,
                                                    const void *, size_t)
{
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *found)
{
    *found = wanted > 0;
    if (*found) results[0] = {};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a_data, cublasLtMatrixLayout_t a_layout,
                              const void *b_data, cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c_data, cublasLtMatrixLayout_t c_layout, void *d_data,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    EMU_LOCK;
    if (planted_fault("launch")) return CUBLAS_STATUS_EXECUTION_FAILED;
    const Product p = *(const Product *)desc;
    const Matrix a = {(void *)a_data, *(const Layout *)a_layout};
    const Matrix b = {(void *)b_data, *(const Layout *)b_layout};
    const Matrix c = {(void *)c_data, *(const Layout *)c_layout};
    const Matrix d = {d_data, *(const Layout *)d_layout};
    const float scale_ab = *(const float *)alpha, scale_c = *(const float *)beta;
    const uint32_t emulated = CUBLASLT_EPILOGUE_RELU_BIAS | CUBLASLT_EPILOGUE_DEFAULT;
    if (p.compute != CUBLAS_COMPUTE_32F && p.compute != CUBLAS_COMPUTE_32F_FAST_TF32)
        fail("cublasLt: compute type %d is not emulated", p.compute);
    if (p.epilogue & ~emulated) fail("cublasLt: epilogue %u is not emulated", p.epilogue);
    if (!shapes_agree(p, a.layout, b.layout, c.layout, d.layout))
        return CUBLAS_STATUS_INVALID_VALUE;
    check_matrix(a, "cublasLt: A is");
    check_matrix(b, "cublasLt: B is");
    check_matrix(d, "cublasLt: D is");
    if (scale_c != 0) check_matrix(c, "cublasLt: C is");
    if (p.epilogue & CUBLASLT_EPILOGUE_BIAS) {
        const size_t size = size_of(p.bias_type < 0 ? d.layout.type : p.bias_type);
        check_range(p.bias, (size_t)d.layout.rows * size, size, "cublasLt: the bias is");
    }
    if (workspace_bytes) check_range(workspace, workspace_bytes, 16, "cublasLt: the workspace is");
    stream_push(stream, [=] {
        multiply(p, scale_ab, scale_c, a, b, c, d);
        return true;
    });
    return CUBLAS_STATUS_SUCCESS;
}
