// train_cnn: a convolutional network for small pictures, trained from plain C.
//
//   ./train_cnn                                 embedded drawings: above 95% in half a minute
//   ./train_cnn --data data/cifar10             the CIFAR-10 speedrun network, 8 epochs
//   ./train_cnn --data data/mnist --net simple  two convolutions and a linear layer
//
// --net airbench is the network and recipe ("version B") of Keller Jordan's airbench94_muon
// (github.com/KellerJordan/cifar10-airbench, arXiv 2404.00498): whitened 2x2 patches, three blocks
// of two convolutions, Muon for the filters. It reaches 94% on the original CIFAR-10 files.
//
// The file reads top to bottom: config, tensors, init, schedule, forward, backward, update,
// evaluate, main. To change the network edit it and run `make train_cnn && ./train_cnn --selftest`.

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "runtime/init.h"
#include "runtime/selftest.h"
#include "runtime/session.h"

static const Kernels *k; // the device

// ---- config -------------------------------------------------------------------------------------

typedef enum { NET_AIRBENCH, NET_SIMPLE } Net;
static const char *const net_names[] = {"airbench", "simple", NULL};

typedef struct Config {
    int net;
    double width; // factor on the channels
    int64_t tta;  // test-time augmentation: 0 none, 1 mirror, 2 mirror and shifts
} Config;
static Config config = {.net = NET_AIRBENCH, .width = 1.0, .tta = -1};

// Optimizer groups; also the slots of their learning rates in a step's values.
enum { FILTERS = 1, NORM_BIASES, WHITENING_BIAS, HEAD, GROUPS };

// Rates per group. Those of SGD are for the gradient of the mean loss of 2000 images, times 2000:
// the sum over the batch that the recipe was tuned with.
static const double MUON_LR = 0.24, SGD_LR[GROUPS] = {0, 0.067, 0.053, 0.053, 0.67};
static const double ADAMW_LR = 2e-3;
static const double RECIPE_BATCH = 2000;
static const double WHITENING_EPOCHS = 3; // its bias trains no longer, by the recipe
static const Muon MUON = {
    .momentum = 0.6f,
    .iterations = 3,
    .a = 3.4445f,
    .b = -4.775f,
    .c = 2.0315f,
    .renormalize = true,
};
static const float NORM_EPS = 1e-12f, NORM_MOMENTUM = 0.4f;

static void defaults(CommandLine *line)
{
    Options *o = &line->options;
    const bool simple = config.net == NET_SIMPLE, embedded = o->data == NULL;
#define DEFAULT(variable, value)                                                                   \
    if (!options_given(line, &(variable))) (variable) = (value)
    DEFAULT(config.width, embedded && !simple ? 0.25 : 1.0);
    DEFAULT(config.tta, simple ? 0 : 2);
    DEFAULT(o->epochs, simple ? 3 : embedded ? 4 : 8);
    DEFAULT(o->batch_size, simple ? 128 : embedded ? 250 : 2000);
    DEFAULT(o->optimizer, simple ? OPTIMIZER_ADAMW : OPTIMIZER_MUON);
    DEFAULT(o->schedule, SCHEDULE_LINEAR);
    DEFAULT(o->momentum, o->optimizer == OPTIMIZER_ADAMW ? 0.9 : 0.85);
    DEFAULT(o->weight_decay, o->optimizer == OPTIMIZER_ADAMW ? 0.01 : 4e-3);
    DEFAULT(o->label_smoothing, simple ? 0.0 : 0.2);
#undef DEFAULT
}

// ---- tensors ------------------------------------------------------------------------------------

// conv1, 2x2 max-pool, norm, GELU, conv2, norm, GELU: (h,w,cin) -> (h/2,w/2,cout)
typedef struct Block {
    int h, w, cin, cout;
    Tensor *conv1, *conv2; // weights
    NormTensors norm1, norm2;
    Tensor *pool, *argmax, *act1, *conv, *act2; // (n,h/2,w/2,cout)
} Block;

typedef struct Model {
    Session *s;
    Tensor *x, *labels;            // input (n,h,w,c) and its labels (n)
    Tensor *whiten, *whiten_bias;  // weights
    Tensor *whiten_z, *whiten_act; // (n,h-1,w-1,2*4*c) before and after GELU
    Block block[3];
    Tensor *conv1, *bias1, *conv2, *bias2; // weights of --net simple
    Tensor *pool1, *argmax1, *pool2, *argmax2;
    Tensor *head, *features, *features_argmax; // weight; (n,channels) of the last map
    Tensor *logits, *tta_logits, *dlogits;     // (n,classes), the first two fp32
    Tensor *da, *db; // gradients flowing back: each layer reads one and writes the other
    float logit_scale;
    float decay[GROUPS];
    bool train_whitening;
} Model;

static int channels(double full)
{
    const int c = (int)(full * config.width / 8 + 0.5) * 8; // multiples of 8
    return c < 8 ? 8 : c;
}

static void declare_block(Block *b, Tensors *t, int number, int64_t batch, int h, int w, int cin,
                          int cout)
{
    char name[TENSOR_NAME_MAX];
#define NAMED(part) (snprintf(name, sizeof name, "block%d." part, number), name)
    *b = (Block){.h = h, .w = w, .cin = cin, .cout = cout};
    b->conv1 = parameter(t, NAMED("conv1.weight"), SHAPE(cout, 3, 3, cin), FILTERS);
    b->norm1 = norm_tensors(t, NAMED("norm1"), cout, NORM_BIASES);
    b->conv2 = parameter(t, NAMED("conv2.weight"), SHAPE(cout, 3, 3, cout), FILTERS);
    b->norm2 = norm_tensors(t, NAMED("norm2"), cout, NORM_BIASES);
#undef NAMED
    b->pool = activation(t, SHAPE(batch, h / 2, w / 2, cout));
    b->argmax = workspace(t, SHAPE(batch, h / 2, w / 2, cout), sizeof(uint8_t));
    b->act1 = activation(t, SHAPE(batch, h / 2, w / 2, cout));
    b->conv = activation(t, SHAPE(batch, h / 2, w / 2, cout));
    b->act2 = activation(t, SHAPE(batch, h / 2, w / 2, cout));
}

static void declare_airbench(Model *m, Tensors *t, int64_t batch)
{
    const Dataset *d = &m->s->data;
    int h = d->h - 1, w = d->w - 1, c = 2 * 4 * d->c;
    m->whiten = buffer(t, "whiten.weight", SHAPE(c, 2, 2, d->c), 0);
    m->whiten_bias = parameter(t, "whiten.bias", SHAPE(c), WHITENING_BIAS);
    m->whiten_z = activation(t, SHAPE(batch, h, w, c));
    m->whiten_act = activation(t, SHAPE(batch, h, w, c));
    int64_t largest = (int64_t)h * w * c;
    const int widths[3] = {channels(64), channels(256), channels(256)};
    for (int i = 0; i < 3; i++) {
        declare_block(&m->block[i], t, i + 1, batch, h, w, c, widths[i]);
        h /= 2, w /= 2, c = widths[i];
        if ((int64_t)h * w * c > largest) largest = (int64_t)h * w * c;
    }
    m->da = activation(t, SHAPE(batch, largest));
    m->db = activation(t, SHAPE(batch, largest));
    m->features = activation(t, SHAPE(batch, c));
    m->features_argmax = workspace(t, SHAPE(batch, c), sizeof(uint8_t));
    m->head = parameter(t, "head.weight", SHAPE(d->classes, c), HEAD);
    m->logit_scale = 1.0f / (16.0f * sqrtf((float)c)); // 1/256 at full width
}

static void declare_simple(Model *m, Tensors *t, int64_t batch)
{
    const Dataset *d = &m->s->data;
    const int c1 = channels(32), c2 = channels(64);
    const int h1 = d->h / 2, w1 = d->w / 2, h2 = h1 / 2, w2 = w1 / 2;
    m->conv1 = parameter(t, "conv1.weight", SHAPE(c1, 3, 3, d->c), FILTERS);
    m->bias1 = parameter(t, "conv1.bias", SHAPE(c1), NORM_BIASES);
    m->conv2 = parameter(t, "conv2.weight", SHAPE(c2, 3, 3, c1), FILTERS);
    m->bias2 = parameter(t, "conv2.bias", SHAPE(c2), NORM_BIASES);
    m->pool1 = activation(t, SHAPE(batch, h1, w1, c1));
    m->argmax1 = workspace(t, SHAPE(batch, h1, w1, c1), sizeof(uint8_t));
    m->pool2 = activation(t, SHAPE(batch, h2, w2, c2));
    m->argmax2 = workspace(t, SHAPE(batch, h2, w2, c2), sizeof(uint8_t));
    m->da = activation(t, SHAPE(batch, h1, w1, c1));
    m->db = activation(t, SHAPE(batch, h2, w2, c2));
    m->head = parameter(t, "head.weight", SHAPE(d->classes, h2, w2, c2), HEAD);
    m->head->flatten = true;
    m->logit_scale = 1.0f;
}

static void declare(Model *m, Session *s)
{
    Tensors *t = &s->tensors;
    const int64_t batch = s->options->batch_size;
    const int classes = s->data.classes;
    m->s = s;
    m->x = activation(t, SHAPE(batch, s->data.h, s->data.w, s->data.c));
    m->labels = workspace(t, SHAPE(batch), sizeof(int32_t));
    m->logits = workspace(t, SHAPE(batch, classes), sizeof(float));
    m->tta_logits = workspace(t, SHAPE(batch, classes), sizeof(float));
    m->dlogits = activation(t, SHAPE(batch, classes));
    if (config.net == NET_AIRBENCH)
        declare_airbench(m, t, batch);
    else
        declare_simple(m, t, batch);
    m->train_whitening = true;
    snprintf(s->network, sizeof s->network, "cnn-%s width=%g", net_names[config.net], config.width);
}

// ---- init ---------------------------------------------------------------------------------------

static void init(Model *m)
{
    const uint64_t seed = (uint64_t)m->s->options->seed;
    Error e;
    if (config.net == NET_SIMPLE) {
        const Tensor *weights[] = {m->conv1, m->conv2, m->head};
        for (int i = 0; i < 3; i++) init_fan_in(weights[i], k, seed);
        init_uniform(m->bias1, k, 1.0 / sqrt((double)fan_in(m->conv1)), seed);
        init_uniform(m->bias2, k, 1.0 / sqrt((double)fan_in(m->conv2)), seed);
        return;
    }
    const int64_t images = m->s->data.embedded ? 1000 : 5000;
    check(init_whitening(m->whiten, k, &m->s->data, images, 5e-4, &e), &e);
    init_uniform(m->whiten_bias, k, 1.0 / sqrt((double)fan_in(m->whiten)), seed);
    for (int i = 0; i < 3; i++) {
        init_dirac(m->block[i].conv1, k, seed);
        init_dirac(m->block[i].conv2, k, seed);
    }
    init_fan_in(m->head, k, seed);
    init_unit_std(m->head, k);
}

// ---- schedule -----------------------------------------------------------------------------------

static double base_lr(const Options *o, int group)
{
    if (o->optimizer == OPTIMIZER_ADAMW) return o->lr * ADAMW_LR;
    if (o->optimizer == OPTIMIZER_MUON && group == FILTERS) return o->lr * MUON_LR;
    return o->lr * SGD_LR[group];
}

// The decay coefficient of a group: AdamW multiplies it by the rate itself; the recipe's SGD
// divides by the rate, so that a step decays by the same share in each group; Muon uses none.
static void set_decay(Model *m)
{
    const Options *o = m->s->options;
    for (int g = FILTERS; g < GROUPS; g++) {
        const double lr = base_lr(o, g);
        const bool adamw = o->optimizer == OPTIMIZER_ADAMW;
        m->decay[g] = (float)(adamw ? o->weight_decay : lr > 0 ? o->weight_decay / lr : 0);
    }
}

static int64_t whitening_steps(const Session *s)
{
    const int64_t steps = (int64_t)(WHITENING_EPOCHS * (double)s->steps_per_epoch);
    return steps < s->steps ? steps : s->steps;
}

static StepValues schedule(Model *m)
{
    const Session *s = m->s;
    StepValues v = session_values(s);
    const double factor = schedule_factor(s->options->schedule, s->step, s->steps);
    for (int g = FILTERS; g < GROUPS; g++) v.hyper[g] = (float)(base_lr(s->options, g) * factor);
    const int64_t n = whitening_steps(s);
    m->train_whitening = s->step < n;
    v.hyper[WHITENING_BIAS] = (float)(base_lr(s->options, WHITENING_BIAS) *
                                      schedule_factor(s->options->schedule, s->step, n));
    return v;
}

// ---- forward ------------------------------------------------------------------------------------

typedef enum { TRAIN, INFER } Mode;

static void norm_gelu(const Tensor *y, const NormTensors *norm, const Tensor *x, MapDims d,
                      Mode mode)
{
    const Norm n = norm_of(norm, NORM_EPS, NORM_MOMENTUM);
    if (mode == TRAIN)
        k->norm_act_forward(y->value, &n, x->value, ACT_GELU, d);
    else
        k->norm_act_inference(y->value, &n, x->value, ACT_GELU, d);
}

static ConvDims conv1_dims(const Block *b, int64_t n)
{
    return (ConvDims){n, b->h, b->w, b->cin, b->cout, 3, 1, 1};
}

static ConvDims conv2_dims(const Block *b, int64_t n)
{
    return (ConvDims){n, b->h / 2, b->w / 2, b->cout, b->cout, 3, 1, 1};
}

static MapDims map_dims(const Block *b, int64_t n)
{
    return (MapDims){n * (b->h / 2) * (b->w / 2), b->cout};
}

static void block_forward(const Block *b, const Tensor *x, int64_t n, Mode mode)
{
    const MapDims map = map_dims(b, n);
    float *const stats1 = mode == TRAIN ? b->norm1.stats->value : NULL;
    float *const stats2 = mode == TRAIN ? b->norm2.stats->value : NULL;
    // conv1 stores only the pooled map
    k->conv2d_pool_forward(b->pool->value, b->argmax->value, stats1, x->value, b->conv1->value,
                           NULL, ACT_NONE, conv1_dims(b, n));
    norm_gelu(b->act1, &b->norm1, b->pool, map, mode);
    k->conv2d_forward(b->conv->value, NULL, stats2, b->act1->value, b->conv2->value, NULL, ACT_NONE,
                      conv2_dims(b, n));
    norm_gelu(b->act2, &b->norm2, b->conv, map, mode);
}

static ConvDims whiten_dims(const Model *m, int64_t n)
{
    const Dataset *d = &m->s->data;
    return (ConvDims){n, d->h, d->w, d->c, 2 * 4 * d->c, 2, 1, 0};
}

static PoolDims features_dims(const Model *m, int64_t n)
{
    const Block *b = &m->block[2];
    return (PoolDims){n, b->h / 2, b->w / 2, b->cout, b->h / 2, b->w / 2, 1};
}

static LinearDims head_dims(const Model *m, int64_t n)
{
    return (LinearDims){n, fan_in(m->head), m->s->data.classes};
}

static void airbench_forward(Model *m, int64_t n, Mode mode)
{
    k->conv2d_forward(m->whiten_act->value, m->whiten_z->value, NULL, m->x->value, m->whiten->value,
                      m->whiten_bias->master, ACT_GELU, whiten_dims(m, n));
    block_forward(&m->block[0], m->whiten_act, n, mode);
    block_forward(&m->block[1], m->block[0].act2, n, mode);
    block_forward(&m->block[2], m->block[1].act2, n, mode);
    k->maxpool_forward(m->features->value, m->features_argmax->value, m->block[2].act2->value,
                       features_dims(m, n));
    k->linear_forward_f32(m->logits->value, m->features->value, m->head->value, NULL,
                          head_dims(m, n));
}

static ConvDims simple1_dims(const Model *m, int64_t n)
{
    const Dataset *d = &m->s->data;
    return (ConvDims){n, d->h, d->w, d->c, (int)m->conv1->shape[0], 3, 1, 1};
}

static ConvDims simple2_dims(const Model *m, int64_t n)
{
    const ConvDims d = simple1_dims(m, n);
    return (ConvDims){n, d.h / 2, d.w / 2, d.cout, (int)m->conv2->shape[0], 3, 1, 1};
}

static void simple_forward(Model *m, int64_t n)
{
    k->conv2d_pool_forward(m->pool1->value, m->argmax1->value, NULL, m->x->value, m->conv1->value,
                           m->bias1->master, ACT_RELU, simple1_dims(m, n));
    k->conv2d_pool_forward(m->pool2->value, m->argmax2->value, NULL, m->pool1->value,
                           m->conv2->value, m->bias2->master, ACT_RELU, simple2_dims(m, n));
    k->linear_forward_f32(m->logits->value, m->pool2->value, m->head->value, NULL, head_dims(m, n));
}

static void forward(Model *m, int64_t n, Mode mode)
{
    if (config.net == NET_AIRBENCH)
        airbench_forward(m, n, mode);
    else
        simple_forward(m, n);
}

static float grad_scale(const Session *s)
{
    const double batch = (double)s->options->batch_size;
    return (float)((s->options->optimizer == OPTIMIZER_ADAMW ? 1 : RECIPE_BATCH) / batch);
}

// The gradient too unless dlogits is NULL.
static void loss(const Model *m, const Tensor *logits, const Tensor *dlogits, float smoothing,
                 int64_t n)
{
    const LossDims d = {n, m->s->data.classes, smoothing, m->logit_scale, grad_scale(m->s)};
    k->softmax_cross_entropy(m->s->metrics->value, dlogits ? dlogits->value : NULL, logits->value,
                             m->labels->value, d);
}

// ---- backward -----------------------------------------------------------------------------------

// d (n,h,w,c) becomes the gradient before the norm and its GELU, in place.
static void norm_gelu_backward(const Tensor *d, const NormTensors *norm, const Tensor *x,
                               MapDims dims)
{
    const Norm n = norm_of(norm, NORM_EPS, NORM_MOMENTUM);
    k->norm_act_backward_sums(&n, d->value, x->value, ACT_GELU, dims);
    k->norm_act_backward(d->value, &n, d->value, x->value, ACT_GELU, SET, dims);
}

// From the gradient of act2 in `da` to that of x, in `da` again; `dx`: whether x's is wanted.
static void block_backward(const Block *b, const Tensor *x, const Tensor *da, const Tensor *db,
                           bool dx, int64_t n)
{
    const MapDims map = map_dims(b, n);
    norm_gelu_backward(da, &b->norm2, b->conv, map);
    k->conv2d_backward_weight(b->conv2->grad, da->value, b->act1->value, SET, conv2_dims(b, n));
    k->conv2d_backward_data(db->value, da->value, b->conv2->value, conv2_dims(b, n));
    norm_gelu_backward(db, &b->norm1, b->pool, map);
    k->conv2d_pool_backward_weight(b->conv1->grad, db->value, b->argmax->value, x->value, SET,
                                   conv1_dims(b, n));
    if (dx)
        k->conv2d_pool_backward_data(da->value, db->value, b->argmax->value, b->conv1->value,
                                     conv1_dims(b, n));
}

static void airbench_backward(Model *m, int64_t n)
{
    const Block *b = m->block;
    k->linear_backward_weight(m->head->grad, NULL, m->dlogits->value, m->features->value, SET,
                              head_dims(m, n));
    k->linear_backward_data(m->db->value, m->dlogits->value, m->head->value, NULL, ACT_NONE,
                            head_dims(m, n));
    k->maxpool_backward(m->da->value, m->db->value, m->features_argmax->value, features_dims(m, n));
    block_backward(&b[2], b[1].act2, m->da, m->db, true, n);
    block_backward(&b[1], b[0].act2, m->da, m->db, true, n);
    block_backward(&b[0], m->whiten_act, m->da, m->db, m->train_whitening, n);
    if (!m->train_whitening) return;
    const ConvDims d = whiten_dims(m, n);
    const MapDims map = {n * (d.h - 1) * (d.w - 1), d.cout};
    k->bias_act_backward(NULL, m->whiten_bias->grad, m->da->value, m->whiten_z->value, ACT_GELU,
                         SET, map);
}

static void simple_backward(Model *m, int64_t n)
{
    const ConvDims d1 = simple1_dims(m, n), d2 = simple2_dims(m, n);
    const MapDims map1 = {n * d2.h * d2.w, d2.cin};
    const MapDims map2 = {n * (d2.h / 2) * (d2.w / 2), d2.cout};
    k->linear_backward_weight(m->head->grad, NULL, m->dlogits->value, m->pool2->value, SET,
                              head_dims(m, n));
    k->linear_backward_data(m->db->value, m->dlogits->value, m->head->value, NULL, ACT_NONE,
                            head_dims(m, n));
    k->bias_act_backward(m->db->value, m->bias2->grad, m->db->value, m->pool2->value, ACT_RELU, SET,
                         map2);
    k->conv2d_pool_backward_weight(m->conv2->grad, m->db->value, m->argmax2->value, m->pool1->value,
                                   SET, d2);
    k->conv2d_pool_backward_data(m->da->value, m->db->value, m->argmax2->value, m->conv2->value,
                                 d2);
    k->bias_act_backward(m->da->value, m->bias1->grad, m->da->value, m->pool1->value, ACT_RELU, SET,
                         map1);
    k->conv2d_pool_backward_weight(m->conv1->grad, m->da->value, m->argmax1->value, m->x->value,
                                   SET, d1);
}

static void backward(Model *m, int64_t n)
{
    if (config.net == NET_AIRBENCH)
        airbench_backward(m, n);
    else
        simple_backward(m, n);
}

// ---- update -------------------------------------------------------------------------------------

static unsigned group_bit(int group)
{
    return 1u << group;
}

static void update(const Model *m)
{
    const Options *o = m->s->options;
    const Tensors *t = &m->s->tensors;
    const Sgd sgd = {.momentum = (float)o->momentum, .nesterov = true};
    const AdamW adamw = {.beta1 = (float)o->momentum, .beta2 = 0.999f, .eps = 1e-8f};
    Param all[TENSORS_MAX], filters[TENSORS_MAX];
    unsigned groups = ALL_GROUPS;
    if (!m->train_whitening) groups &= ~group_bit(WHITENING_BIAS);

    int n = tensors_params(t, groups, m->decay, all);
    if (o->clip_norm > 0) k->clip_gradients(m->s->grad_norm->value, all, n, (float)o->clip_norm);
    switch ((Optimizer)o->optimizer) {
    case OPTIMIZER_SGD:
        k->sgd_update(all, n, sgd);
        break;
    case OPTIMIZER_ADAMW:
        k->adamw_update(all, n, adamw);
        break;
    case OPTIMIZER_MUON:
        k->muon_update(filters, tensors_params(t, group_bit(FILTERS), NULL, filters), MUON);
        n = tensors_params(t, groups & ~group_bit(FILTERS), m->decay, all);
        k->sgd_update(all, n, sgd);
        break;
    }
    session_ema(m->s, k);
}

static void forward_loss(void *model)
{
    Model *m = model;
    feed_gather(&m->s->feed, k, &m->s->data, m->x, m->labels, m->s->augment);
    forward(m, m->s->feed.n, TRAIN);
    loss(m, m->logits, m->dlogits, (float)m->s->options->label_smoothing, m->s->feed.n);
}

static void gradient(void *model)
{
    Model *m = model;
    forward_loss(m);
    backward(m, m->s->feed.n);
}

static void train_step(void *model)
{
    gradient(model);
    update(model);
}

// ---- evaluate -----------------------------------------------------------------------------------

// tta_logits += weight * logits of the batch moved by (dy,dx) and mirrored or not
static void add_view(Model *m, float weight, int shift, bool mirror)
{
    const Augment view = {.dy = shift, .dx = shift, .mirror = mirror};
    const int64_t n = m->s->feed.n;
    feed_gather(&m->s->feed, k, &m->s->data, m->x, m->labels, view);
    forward(m, n, INFER);
    k->axpy(m->tta_logits->value, weight, HYPER_ONE, m->logits->value, n * m->s->data.classes);
}

static void infer_views(Model *m, int64_t tta)
{
    const bool mirror = tta > 0 && m->s->augment.flip != FLIP_NONE;
    const bool shifts = tta > 1;
    const int64_t n = m->s->feed.n;
    k->zero(m->tta_logits->value, (size_t)(n * m->s->data.classes) * sizeof(float));
    for (int side = 0; side < (mirror ? 2 : 1); side++) {
        const float share = mirror ? 0.5f : 1.0f;
        add_view(m, share * (shifts ? 0.5f : 1.0f), 0, side == 1);
        if (!shifts) continue;
        add_view(m, share * 0.25f, -1, side == 1);
        add_view(m, share * 0.25f, 1, side == 1);
    }
    loss(m, m->tta_logits, NULL, 0.0f, n);
}

static void infer(void *model)
{
    infer_views(model, 0);
}

static void infer_tta(void *model)
{
    infer_views(model, config.tta);
}

// ---- main ---------------------------------------------------------------------------------------

static const Program program = {
    .name = "train_cnn",
    .usage = "Trains a convolutional network on pictures of 16x16 to 96x96.\n"
             "Usage: ./train_cnn [options]",
    .defaults = defaults,
    .h = 32,
    .w = 32,
    .c = 3,
    .n_train = 8000,
    .n_test = 2000, // embedded set
};

int main(int argc, char **argv)
{
    static Session s = {
        .line.options = {.device = "auto", .lr = 1, .augment = "auto", .shuffle = true, .seed = 1}};
    const Arg own[] = {
        ARG_HEADING("Network"),
        ARG_CHOICE("net", &config.net, net_names, "airbench: whitening, 3 blocks; simple: 2 convs"),
        ARG_DOUBLE("width", &config.width, 0.01, 64, "factor on the channels"),
        ARG_INT("tta", &config.tta, 0, 2, "test-time views: 1 mirror, 2 mirror and shifts"),
    };
    static Model m;
    session_open(&s, &program, own, sizeof own / sizeof *own, argc, argv);
    if (s.data.h < 16 || s.data.w < 16 || s.data.h > 96 || s.data.w > 96)
        die(STATUS_DATA,
            "%s holds images of %dx%d; this network takes 16x16 to 96x96: prepare "
            "them with --size 32x32",
            s.data.source, s.data.h, s.data.w);
    declare(&m, &s);
    session_plan(&s, &k, train_step, infer, &m);
    set_decay(&m);
    init(&m);
    session_load_init(&s);

    int status;
    if (s.options->selftest) {
        status = selftest(&s, forward_loss, gradient, &m, (double)grad_scale(&s));
    } else if (s.options->eval_only) {
        status = session_eval_only(&s, infer_tta, &m);
    } else {
        session_begin(&s);
        while (session_next(&s)) {
            const StepValues values = schedule(&m);
            if (k->step_begin(m.train_whitening, &values)) train_step(&m);
            k->step_end();
            session_step_done(&s, (double)values.hyper[FILTERS]);
            if (session_epoch_done(&s)) session_test(&s, infer, &m);
        }
        status = session_end(&s, infer_tta, &m);
    }
    session_close(&s);
    return status;
}
