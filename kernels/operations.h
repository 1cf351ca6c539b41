// Every operation of the table, with what a call costs. Include it after defining
//     OPERATION(name, parameters, arguments, tensor, shape, flop, bytes)
// and SCRATCH_OPERATION, the same for those that some backend needs scratch memory for; both are
// undefined at the end. `tensor` is one whose name tells the layer, NULL in the update.
// clang-format off
OPERATION(from_f32,
    (void *y, const float *x, int64_t n),
    (y, x, n), NULL, shape_vector(n),
    0, (double)n * 4 + elements((double)n))
OPERATION(to_f32,
    (float *y, const void *x, int64_t n),
    (y, x, n), NULL, shape_vector(n),
    0, (double)n * 4 + elements((double)n))
SCRATCH_OPERATION(gather,
    (void *x, int32_t *labels_out, const uint8_t *images, const int32_t *labels,
     const uint32_t *ids, const uint32_t *rows, GatherDims d, Augment a),
    (x, labels_out, images, labels, ids, rows, d, a), x, shape_gather(d),
    0, (double)d.n * d.h * d.w * d.c + elements((double)d.n * d.h * d.w * d.c))

SCRATCH_OPERATION(linear_forward,
    (void *y, void *z, const void *x, const void *w, const float *bias, Activation act,
     LinearDims d),
    (y, z, x, w, bias, act, d), w, shape_linear(d, act),
    linear_flop(d), linear_bytes(d) + (z ? elements((double)(d.rows * d.out)) : 0))
SCRATCH_OPERATION(linear_forward_f32,
    (float *y, const void *x, const void *w, const float *bias, LinearDims d),
    (y, x, w, bias, d), w, shape_linear(d, ACT_NONE),
    linear_flop(d), linear_bytes(d))
SCRATCH_OPERATION(linear_backward_data,
    (void *dx, const void *dy, const void *w, const void *saved, Activation act, LinearDims d),
    (dx, dy, w, saved, act, d), w, shape_linear(d, act),
    linear_flop(d), linear_bytes(d) + (act ? elements((double)(d.rows * d.in)) : 0))
SCRATCH_OPERATION(linear_backward_weight,
    (float *dw, float *dbias, const void *dy, const void *x, GradMode mode, LinearDims d),
    (dw, dbias, dy, x, mode, d), dw, shape_linear(d, ACT_NONE),
    linear_flop(d), linear_weight_bytes(d))

SCRATCH_OPERATION(conv2d_forward,
    (void *y, void *z, float *stats, const void *x, const void *w, const float *bias,
     Activation act, ConvDims d),
    (y, z, stats, x, w, bias, act, d), w, shape_conv(d, act),
    conv_flop(d, false), conv_bytes(d, false) + elements(conv_weights(d)) +
       (z ? elements(conv_outputs(d, false)) : 0))
SCRATCH_OPERATION(conv2d_pool_forward,
    (void *y, uint8_t *argmax, float *stats, const void *x, const void *w, const float *bias,
     Activation act, ConvDims d),
    (y, argmax, stats, x, w, bias, act, d), w, shape_conv(d, act),
    conv_flop(d, true), conv_bytes(d, true) + elements(conv_weights(d)))
SCRATCH_OPERATION(conv2d_backward_data,
    (void *dx, const void *dy, const void *w, ConvDims d),
    (dx, dy, w, d), w, shape_conv(d, ACT_NONE),
    conv_flop(d, false), conv_bytes(d, false) + elements(conv_weights(d)))
SCRATCH_OPERATION(conv2d_backward_weight,
    (float *dw, const void *dy, const void *x, GradMode mode, ConvDims d),
    (dw, dy, x, mode, d), dw, shape_conv(d, ACT_NONE),
    conv_flop(d, false), conv_bytes(d, false) + 4 * conv_weights(d))
SCRATCH_OPERATION(conv2d_pool_backward_data,
    (void *dx, const void *dy, const uint8_t *argmax, const void *w, ConvDims d),
    (dx, dy, argmax, w, d), w, shape_conv(d, ACT_NONE),
    conv_flop(d, true), conv_bytes(d, true) + elements(conv_weights(d)))
SCRATCH_OPERATION(conv2d_pool_backward_weight,
    (float *dw, const void *dy, const uint8_t *argmax, const void *x, GradMode mode,
     ConvDims d),
    (dw, dy, argmax, x, mode, d), dw, shape_conv(d, ACT_NONE),
    conv_flop(d, true), conv_bytes(d, true) + 4 * conv_weights(d))

SCRATCH_OPERATION(conv2d_norm_backward_data,
    (void *dz, const Norm *n, const void *dy, const void *w, const void *x, Activation act,
     ConvDims d),
    (dz, n, dy, w, x, act, d), w, shape_conv(d, act),
    conv_flop(d, false), conv_bytes(d, false) + elements(conv_weights(d) + conv_inputs(d)))
SCRATCH_OPERATION(conv2d_pool_norm_backward_data,
    (void *dz, const Norm *n, const void *dy, const uint8_t *argmax, const void *w, const void *x,
     Activation act, ConvDims d),
    (dz, n, dy, argmax, w, x, act, d), w, shape_conv(d, act),
    conv_flop(d, true), conv_bytes(d, true) + elements(conv_weights(d) + conv_inputs(d)))
SCRATCH_OPERATION(conv2d_norm_inference,
    (void *y, const Norm *n, const void *x, const void *w, Activation act, ConvDims d),
    (y, n, x, w, act, d), w, shape_conv(d, act),
    conv_flop(d, false), conv_bytes(d, false) + elements(conv_weights(d)))
SCRATCH_OPERATION(conv2d_pool_norm_inference,
    (void *y, const Norm *n, const void *x, const void *w, Activation act, ConvDims d),
    (y, n, x, w, act, d), w, shape_conv(d, act),
    conv_flop(d, true),
    elements(conv_inputs(d) + conv_weights(d) + conv_outputs(d, true) / 4))

OPERATION(activation_forward,
    (void *y, const void *x, Activation act, int64_t n),
    (y, x, act, n), y, shape_activation(n, act),
    0, elements(2.0 * (double)n))
OPERATION(activation_backward,
    (void *dx, const void *dy, const void *saved, Activation act, int64_t n),
    (dx, dy, saved, act, n), saved, shape_activation(n, act),
    0, elements(3.0 * (double)n))
SCRATCH_OPERATION(bias_act_backward,
    (void *dz, float *dbias, const void *dy, const void *saved, Activation act, GradMode mode,
     MapDims d),
    (dz, dbias, dy, saved, act, mode, d), dbias ? (const void *)dbias : saved, shape_map(d, act),
    0, map_bytes(d, 1 + (act != ACT_NONE) + (dz != NULL)))

SCRATCH_OPERATION(norm_stats,
    (float *stats, const void *x, MapDims d),
    (stats, x, d), stats, shape_map(d, ACT_NONE),
    0, map_bytes(d, 1))
OPERATION(norm_merge,
    (float *stats, const float *all, int parts, int channels),
    (stats, all, parts, channels), stats, shape_vector(channels),
    0, 12.0 * (parts + 1) * channels)
SCRATCH_OPERATION(norm_act_forward,
    (void *y, const Norm *n, const void *x, Activation act, MapDims d),
    (y, n, x, act, d), n->stats, shape_map(d, act),
    0, map_bytes(d, 2))
SCRATCH_OPERATION(norm_act_inference,
    (void *y, const Norm *n, const void *x, Activation act, MapDims d),
    (y, n, x, act, d), n->stats, shape_map(d, act),
    0, map_bytes(d, 2))
SCRATCH_OPERATION(norm_act_backward_sums,
    (const Norm *n, const void *dy, const void *x, Activation act, MapDims d),
    (n, dy, x, act, d), n->stats, shape_map(d, act),
    0, map_bytes(d, 2))
SCRATCH_OPERATION(norm_act_backward,
    (void *dx, const Norm *n, const void *dy, const void *x, Activation act, GradMode mode,
     MapDims d),
    (dx, n, dy, x, act, mode, d), n->stats, shape_map(d, act),
    0, map_bytes(d, 3))

OPERATION(maxpool_forward,
    (void *y, uint8_t *argmax, const void *x, PoolDims d),
    (y, argmax, x, d), y, shape_pool(d),
    0, elements(maxpool_inputs(d) + pool_outputs(d)) + pool_outputs(d))
OPERATION(maxpool_backward,
    (void *dx, const void *dy, const uint8_t *argmax, PoolDims d),
    (dx, dy, argmax, d), argmax, shape_pool(d),
    0, elements(maxpool_inputs(d) + pool_outputs(d)) + pool_outputs(d))
OPERATION(avgpool_forward,
    (void *y, const void *x, PoolDims d),
    (y, x, d), y, shape_pool(d),
    0, elements(pool_inputs(d) + pool_outputs(d)))
OPERATION(avgpool_backward,
    (void *dx, const void *dy, PoolDims d),
    (dx, dy, d), dx, shape_pool(d),
    0, elements(pool_inputs(d) + pool_outputs(d)))

OPERATION(dropout,
    (void *y, const void *x, const uint32_t *ids, float rate, int layer, int64_t n,
     int64_t per_sample),
    (y, x, ids, rate, layer, n, per_sample), y, shape_vector(n * per_sample),
    0, elements(2.0 * (double)(n * per_sample)))
OPERATION(add,
    (void *y, const void *a, const void *b, int64_t n),
    (y, a, b, n), y, shape_vector(n),
    0, elements(3.0 * (double)n))
SCRATCH_OPERATION(softmax_cross_entropy,
    (float *metrics, void *dlogits, const float *logits, const int32_t *labels, LossDims d),
    (metrics, dlogits, logits, labels, d), metrics, shape_vector(d.rows * d.classes),
    0, (double)d.rows * d.classes * 4 + (dlogits ? elements((double)d.rows * d.classes) : 0))
SCRATCH_OPERATION(mean_squared_error,
    (float *metrics, void *dy, const float *y, const void *target, float grad_scale, MapDims d),
    (metrics, dy, y, target, grad_scale, d), metrics, shape_map(d, ACT_NONE),
    0, (double)d.rows * d.channels * 4 + map_bytes(d, 1 + (dy != NULL)))

OPERATION(sgd_update,
    (const Param *p, int count, Sgd c),
    (p, count, c), NULL, shape_params(p, count),
    0, optimizer_bytes(p, count, 5))
OPERATION(adamw_update,
    (const Param *p, int count, AdamW c),
    (p, count, c), NULL, shape_params(p, count),
    0, optimizer_bytes(p, count, 7))
SCRATCH_OPERATION(muon_update,
    (const Param *p, int count, Muon c),
    (p, count, c), NULL, shape_params(p, count),
    muon_flop(p, count, c.iterations), optimizer_bytes(p, count, 5))
SCRATCH_OPERATION(clip_gradients,
    (float *norm, const Param *p, int count, float max_norm),
    (norm, p, count, max_norm), NULL, shape_params(p, count),
    0, optimizer_bytes(p, count, 3))
OPERATION(ema_update,
    (float *ema, const float *x, int decay_slot, int64_t n),
    (ema, x, decay_slot, n), NULL, shape_vector(n),
    0, 12.0 * (double)n)
OPERATION(axpy,
    (float *y, float a, int s, const float *x, int64_t n),
    (y, a, s, x, n), NULL, shape_vector(n),
    0, 12.0 * (double)n)
OPERATION(scale,
    (float *y, float a, int s, const float *x, int64_t n),
    (y, a, s, x, n), NULL, shape_vector(n),
    0, 8.0 * (double)n)
OPERATION(multiply,
    (float *y, const float *a, const float *b, int64_t n),
    (y, a, b, n), NULL, shape_vector(n),
    0, 12.0 * (double)n)
OPERATION(sqrt_divide,
    (float *y, const float *a, const float *b, float eps, int64_t n),
    (y, a, b, eps, n), NULL, shape_vector(n),
    0, 12.0 * (double)n)
SCRATCH_OPERATION(dot,
    (float *result, const float *a, const float *b, int64_t n),
    (result, a, b, n), NULL, shape_vector(n),
    0, 8.0 * (double)n)

#undef OPERATION
#undef SCRATCH_OPERATION
