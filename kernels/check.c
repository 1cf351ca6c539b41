#include "kernels/check.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/check_case.h"

void check_memory(Case *c)
{
    const size_t sizes[] = {1, 257, 1 << 20};
    for (int i = 0; i < 3; i++) {
        uint8_t host[257] = {0}, back[257];
        const size_t bytes = sizes[i] < sizeof host ? sizes[i] : sizeof host;
        case_begin(c, "%zu bytes", sizes[i]);
        uint8_t *a = c->k->alloc(sizes[i]), *b = c->k->alloc(sizes[i]);
        if (!a || !b) case_fail(c, "alloc returned NULL");
        if ((uintptr_t)a % 256 || (uintptr_t)b % 256) case_fail(c, "alloc is not aligned to 256");
        c->k->download(back, a, bytes);
        if (memcmp(back, host, bytes) != 0) case_fail(c, "alloc is not zeroed");
        for (size_t j = 0; j < sizeof host; j++) host[j] = (uint8_t)(j + 1);
        c->k->upload(a, host, bytes);
        c->k->copy(b, a, bytes);
        c->k->zero(a, bytes);
        c->k->synchronize();
        c->k->download(back, b, bytes);
        if (memcmp(back, host, bytes) != 0) case_fail(c, "upload, copy, download changed bytes");
        c->k->download(back, a, bytes);
        if (back[0] || back[bytes - 1]) case_fail(c, "zero left bytes");
        c->k->release(a);
        c->k->release(b);
        if (c->k->memory_free() == 0) case_fail(c, "memory_free is 0");
        case_end(c);
    }
}

// Exact: to the nearest, ties to even, and infinities, signed zeros, denormals.
void check_conversion(Case *c)
{
    const double special[] = {0,
                              -0.0,
                              INFINITY,
                              -INFINITY,
                              1 + 0x1p-8,
                              1 + 0x3p-8,
                              0x1p-140,
                              1 + 0x1p-8 + 0x1p-20,
                              0x1.fffffep127,
                              NAN};
    for (int i = 0; i < (c->full ? 4 : 2); i++) {
        const int64_t n = (const int64_t[]){17, 1000, 1, 70001}[i];
        case_begin(c, "%d", (int)n);
        Tensor *x = case_random(c, FLOAT, n), *y = case_output(c, ELEMENT, n);
        Tensor *back = case_output(c, FLOAT, n);
        for (int64_t j = 0; j < n && j < 10; j++) x->value[j] = special[j];
        case_upload(c, x);
        c->k->from_f32(dev(y), dev(x), n);
        c->k->to_f32(dev(back), dev(y), n);
        for (int64_t j = 0; j < n; j++)
            y->value[j] = back->value[j] = case_round(c, ELEMENT, x->value[j]);
        case_expect(c, y, "from_f32");
        case_expect(c, back, "to_f32");
        case_end(c);
    }
}

static const struct {
    const char *name;
    CheckFunction *run;
} checks[] = {
    {"alloc upload download copy zero", check_memory},
    {"from_f32 to_f32", check_conversion},
    {"gather", check_gather},
    {"linear_forward", check_linear_forward},
    {"linear_forward_f32", check_linear_forward_f32},
    {"linear_backward_data", check_linear_backward_data},
    {"linear_backward_weight", check_linear_backward_weight},
    {"conv2d_forward", check_conv2d_forward},
    {"conv2d_pool_forward", check_conv2d_pool_forward},
    {"conv2d_backward_data", check_conv2d_backward_data},
    {"conv2d_backward_weight", check_conv2d_backward_weight},
    {"conv2d_pool_backward_data", check_conv2d_pool_backward_data},
    {"conv2d_pool_backward_weight", check_conv2d_pool_backward_weight},
    {"conv2d_norm_backward_data", check_conv2d_norm_backward_data},
    {"conv2d_pool_norm_backward_data", check_conv2d_pool_norm_backward_data},
    {"conv2d_norm_inference", check_conv2d_norm_inference},
    {"conv2d_pool_norm_inference", check_conv2d_pool_norm_inference},
    {"activation_forward", check_activation_forward},
    {"activation_backward", check_activation_backward},
    {"bias_act_backward", check_bias_act_backward},
    {"norm_stats", check_norm_stats},
    {"norm_merge", check_norm_merge},
    {"norm_act_forward", check_norm_act_forward},
    {"norm_act_inference", check_norm_act_inference},
    {"norm_act_backward_sums", check_norm_act_backward_sums},
    {"norm_act_backward", check_norm_act_backward},
    {"maxpool_forward", check_maxpool_forward},
    {"maxpool_backward", check_maxpool_backward},
    {"avgpool_forward", check_avgpool_forward},
    {"avgpool_backward", check_avgpool_backward},
    {"dropout", check_dropout},
    {"add", check_add},
    {"softmax_cross_entropy", check_softmax},
    {"mean_squared_error", check_mean_squared_error},
    {"sgd_update", check_sgd_update},
    {"adamw_update", check_adamw_update},
    {"muon_update", check_muon_update},
    {"clip_gradients", check_clip_gradients},
    {"ema_update", check_ema_update},
    {"axpy", check_axpy},
    {"scale", check_scale},
    {"multiply", check_multiply},
    {"sqrt_divide", check_sqrt_divide},
    {"dot", check_dot},
};

int kernels_check(const Kernels *k, bool full, FILE *report, const char *only)
{
    int failed = 0;
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        if (only && !strstr(checks[i].name, only)) continue;
        Case c = {.k = k, .full = full, .report = report, .operation = checks[i].name};
        c.unit = k->element == BF16 ? 0x1p-8 : U32;
        checks[i].run(&c);
        if (c.failures)
            fprintf(report, "FAIL %s (%d of %d shapes)\n", c.operation, c.failures, c.cases);
        else
            fprintf(report, "ok %s (%d shapes)\n", c.operation, c.cases);
        failed += c.failures > 0;
    }
    return failed;
}
