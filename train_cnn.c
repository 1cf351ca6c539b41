// train_cnn: a convolutional network for small pictures, trained from plain C.
//
//   ./train_cnn                                 embedded drawings: above 99% in ten seconds
//   ./train_cnn --data data/cifar10             the CIFAR-10 speedrun network, 8 epochs
//   ./train_cnn --data data/mnist --net simple  two convolutions and a linear layer
//
// --net airbench is the network and recipe ("version B") of Keller Jordan's airbench94_muon
// (github.com/KellerJordan/cifar10-airbench, arXiv 2404.00498): whitened 2x2 patches, three blocks
// of two convolutions, Muon for the filters. Its author reports 94% on the original CIFAR-10 files.
//
// The file reads top to bottom: config, tensors, init, schedule, forward, backward, update,
// evaluate, main. To change the network edit it and run `make train_cnn && ./train_cnn --selftest`.

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "runtime/init.h"
#include "runtime/predict.h"
#include "runtime/selftest.h"
#include "runtime/session.h"
#include "runtime/speedrun.h"
#include "timing/report.h"

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
static unsigned group_bit(int group)
{
    return 1u << group;
}

// Learning rates. `images` is how many images' losses the gradient sums: each batch's mean
// gradient is multiplied by it, so that the rates hold for any batch size.
typedef struct Recipe {
    double images;
    double sgd_lr[GROUPS], muon_lr; // of muon: FILTERS; the other groups by sgd
    double adamw_lr;                // for the gradient of the mean
    double weight_decay;            // of sgd and muon: see --weight-decay
    double label_smoothing;
} Recipe;
static const Recipe RECIPES[] = {
    [NET_AIRBENCH] =
        {
            .images = 2000,
            .sgd_lr = {[FILTERS] = 7.5e-4,
                       [NORM_BIASES] = 0.053,
                       [WHITENING_BIAS] = 0.053,
                       [HEAD] = 0.67},
            .muon_lr = 0.24,
            .adamw_lr = 2e-3,
            .weight_decay = 4e-3,
            .label_smoothing = 0.2,
        },
    [NET_SIMPLE] =
        {
            .images = 1,
            .sgd_lr = {[FILTERS] = 0.05, [NORM_BIASES] = 0.05, [HEAD] = 0.05},
            .muon_lr = 0.02,
            .adamw_lr = 2e-3,
        },
};
static const double WHITENING_EPOCHS = 3; // its bias trains no longer, by the recipe
static const double WHITENING_EPS = 5e-4;
static const int64_t WHITENING_IMAGES = 5000, WHITENING_DRAWINGS = 1000; // of the embedded set
static const Muon MUON = {
    .momentum = 0.6f,
    .iterations = 3,
    .a = 3.4445f,
    .b = -4.775f,
    .c = 2.0315f,
    .renormalize = true,
};
static const float NORM_MOMENTUM = 0.4f;
// With the recipe's 1e-12 a channel that is nearly constant over a batch, as on MNIST's black
// borders, has slopes of 1e6, which finite differences cannot follow: --selftest uses its own.
static const float NORM_EPS = 1e-12f, SELFTEST_NORM_EPS = 0.1f;

static void defaults(CommandLine *line)
{
    Options *o = &line->options;
    const bool simple = config.net == NET_SIMPLE, embedded = o->data == NULL;
    DEFAULT(line, config.width, embedded && !simple ? 0.25 : 1.0);
    DEFAULT(line, config.tta, simple ? 0 : 2);
    DEFAULT(line, o->epochs, simple ? (embedded ? 10 : 3) : (embedded ? 4 : 8));
    DEFAULT(line, o->batch_size, simple ? 128 : embedded ? 250 : 2000);
    DEFAULT(line, o->optimizer, simple ? OPTIMIZER_ADAMW : OPTIMIZER_MUON);
    DEFAULT(line, o->schedule, SCHEDULE_LINEAR);
    DEFAULT(line, o->momentum, o->optimizer == OPTIMIZER_ADAMW ? 0.9 : 0.85);
    DEFAULT(line, o->weight_decay,
            o->optimizer == OPTIMIZER_ADAMW ? 0.01 : RECIPES[config.net].weight_decay);
    DEFAULT(line, o->label_smoothing, RECIPES[config.net].label_smoothing);
}

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

// ---- tensors ------------------------------------------------------------------------------------

// conv1, 2x2 max-pool, norm, GELU, conv2, norm, GELU: (h,w,cin) -> (h/2,w/2,cout)
typedef struct Block {
    int h, w, cin, cout;
    Tensor *conv1, *conv2; // weights
    NormTensors norm1, norm2;
    Tensor *pool, *argmax, *act1, *conv, *act2; // (n,h/2,w/2,cout)
} Block;

// 3x3 convolution, 2x2 max-pool, bias, ReLU: (h,w,cin) -> (h/2,w/2,cout)
typedef struct Stage {
    int h, w, cin, cout;
    Tensor *conv, *bias; // weights
    Tensor *y, *argmax;  // (n,h/2,w/2,cout)
} Stage;

typedef struct Model {
    Session *s;
    Tensor *x, *labels;            // input (n,h,w,c) and its labels (n)
    Tensor *whiten, *whiten_bias;  // --net airbench
    Tensor *whiten_z, *whiten_act; // (n,h-1,w-1,2*4*c) before and after GELU
    Block block1, block2, block3;
    Tensor *features, *features_argmax; // (n,cout): the maxima of the last map
    Stage stage1, stage2;               // --net simple
    const Stage *last;                  // whose map the head reads
    Tensor *head;                       // weight
    Tensor *logits, *view_logits;       // (n,classes) fp32
    Tensor *dlogits;                    // (n,classes)
    Tensor *grad, *spare; // the gradient flowing back, and where the next layer writes it
    float logit_scale, norm_eps;
    float decay[GROUPS];
    bool train_whitening;
} Model;

static int channels(double full)
{
    const int c = (int)(full * config.width / 8 + 0.5) * 8; // multiples of 8
    return c < 8 ? 8 : c;
}

static Block declare_block(Tensors *t, int number, int64_t n, int h, int w, int cin, int cout)
{
    Block b = {.h = h, .w = w, .cin = cin, .cout = cout};
    const Shape map = SHAPE(n, h / 2, w / 2, cout);
    b.conv1 = parameter(t, SHAPE(cout, 3, 3, cin), FILTERS, DIRAC, "block%d.conv1.weight", number);
    b.norm1 = norm_tensors(t, cout, NORM_BIASES, "block%d.norm1", number);
    b.conv2 = parameter(t, SHAPE(cout, 3, 3, cout), FILTERS, DIRAC, "block%d.conv2.weight", number);
    b.norm2 = norm_tensors(t, cout, NORM_BIASES, "block%d.norm2", number);
    b.pool = activation(t, map, "block%d.conv1.pooled", number);
    b.argmax = workspace(t, map, sizeof(uint8_t), "block%d.conv1.argmax", number);
    b.act1 = activation(t, map, "block%d.norm1.act", number);
    b.conv = activation(t, map, "block%d.conv2.out", number);
    b.act2 = activation(t, map, "block%d.norm2.act", number);
    return b;
}

static Stage declare_stage(Tensors *t, const char *name, int64_t n, int h, int w, int cin, int cout)
{
    Stage s = {.h = h, .w = w, .cin = cin, .cout = cout};
    const Shape map = SHAPE(n, h / 2, w / 2, cout);
    s.conv = parameter(t, SHAPE(cout, 3, 3, cin), FILTERS, UNIFORM, "%s.weight", name);
    s.bias = parameter(t, SHAPE(cout), NORM_BIASES, uniform_fan_in(9 * cin), "%s.bias", name);
    s.y = activation(t, map, "%s.y", name);
    s.argmax = workspace(t, map, sizeof(uint8_t), "%s.argmax", name);
    return s;
}

static void declare_airbench(Model *m, Tensors *t, int64_t n)
{
    const Dataset *d = &m->s->data;
    const int h = d->h - 1, w = d->w - 1, c = 2 * 4 * d->c;
    m->whiten = buffer(t, "whiten.weight", SHAPE(c, 2, 2, d->c), 0);
    m->whiten_bias =
        parameter(t, SHAPE(c), WHITENING_BIAS, uniform_fan_in(4 * d->c), "whiten.bias");
    m->whiten_z = activation(t, SHAPE(n, h, w, c), "whiten.z");
    m->whiten_act = activation(t, SHAPE(n, h, w, c), "whiten.act");
    const int c1 = channels(64), c2 = channels(256), c3 = channels(256);
    m->block1 = declare_block(t, 1, n, h, w, c, c1);
    m->block2 = declare_block(t, 2, n, h / 2, w / 2, c1, c2);
    m->block3 = declare_block(t, 3, n, h / 4, w / 4, c2, c3);
    m->features = activation(t, SHAPE(n, c3), "features.max");
    m->features_argmax = workspace(t, SHAPE(n, c3), sizeof(uint8_t), "features.argmax");
    m->head = parameter(t, SHAPE(d->classes, c3), HEAD, UNIFORM, "head.weight");
    m->logit_scale = 1.0f / sqrtf(256.0f * (float)c3); // the recipe's 1/256 at full width
}

static void declare_simple(Model *m, Tensors *t, int64_t n)
{
    const Dataset *d = &m->s->data;
    const int c1 = channels(32), c2 = channels(64);
    m->stage1 = declare_stage(t, "conv1", n, d->h, d->w, d->c, c1);
    m->stage2 = declare_stage(t, "conv2", n, d->h / 2, d->w / 2, c1, c2);
    m->last = &m->stage2;
    const Shape head = SHAPE(d->classes, m->last->h / 2, m->last->w / 2, m->last->cout);
    m->head = parameter(t, head, HEAD, UNIFORM, "head.weight");
    m->head->flatten = true;
    m->logit_scale = 1.0f;
}

static void declare(Model *m, Session *s)
{
    Tensors *t = &s->tensors;
    const int64_t n = s->batch;
    const int classes = s->data.classes;
    m->s = s;
    m->x = activation(t, SHAPE(n, s->data.h, s->data.w, s->data.c), "input.x");
    m->labels = workspace(t, SHAPE(n), sizeof(int32_t), "input.labels");
    if (config.net == NET_AIRBENCH)
        declare_airbench(m, t, n);
    else
        declare_simple(m, t, n);
    m->logits = workspace(t, SHAPE(n, classes), sizeof(float), "head.logits");
    m->view_logits = workspace(t, SHAPE(n, classes), sizeof(float), "head.view_logits");
    m->dlogits = activation(t, SHAPE(n, classes), "loss.dlogits");
    const int64_t largest = tensors_largest_activation(t);
    m->grad = activation(t, SHAPE(largest), "backward.grad");
    m->spare = activation(t, SHAPE(largest), "backward.spare");
    s->input = m->x;
    s->logits = m->view_logits;
    s->logit_scale = m->logit_scale;
    m->train_whitening = true;
    m->norm_eps = s->options->selftest ? SELFTEST_NORM_EPS : NORM_EPS;
    snprintf(s->network, sizeof s->network, "cnn-%s width=%g", net_names[config.net], config.width);
}

// ---- init ---------------------------------------------------------------------------------------

// What the declarations do not say: the whitening filters come from the data, or with --init from
// there.
static void init(void *model)
{
    Model *m = model;
    const uint64_t seed = (uint64_t)m->s->options->seed;
    init_parameters(&m->s->tensors, k, seed);
    if (config.net == NET_SIMPLE || m->s->options->init) return;
    Error e;
    const int64_t images = m->s->data.embedded ? WHITENING_DRAWINGS : WHITENING_IMAGES;
    check(init_whitening(m->whiten, k, &m->s->data, images, WHITENING_EPS, &e), &e);
    init_unit_std(m->head, k);
}

// ---- schedule -----------------------------------------------------------------------------------

static double base_lr(const Options *o, int group)
{
    const Recipe *r = &RECIPES[config.net];
    if (o->optimizer == OPTIMIZER_ADAMW) return o->lr * r->adamw_lr;
    if (o->optimizer == OPTIMIZER_MUON && group == FILTERS) return o->lr * r->muon_lr;
    return o->lr * r->sgd_lr[group];
}

// AdamW leaves biases alone; the recipe's SGD does not, and leaves the filters, whose scale the
// norms undo. Muon has no decay.
static void set_decay(Model *m)
{
    const Options *o = m->s->options;
    for (int g = FILTERS; g < GROUPS; g++) {
        const bool bias = g == NORM_BIASES || g == WHITENING_BIAS;
        const bool decays = o->optimizer == OPTIMIZER_ADAMW ? !bias : g != FILTERS;
        m->decay[g] = decays ? options_decay(o, base_lr(o, g)) : 0.0f;
    }
}

// Steps in which the whitening bias trains.
static int64_t whitening_steps(const Session *s)
{
    if (config.net != NET_AIRBENCH) return 0;
    const int64_t steps = (int64_t)(WHITENING_EPOCHS * (double)s->steps_per_epoch);
    return steps < s->steps ? steps : s->steps;
}

static StepValues schedule(Model *m)
{
    Session *s = m->s;
    StepValues v = session_values(s);
    const double factor = schedule_factor(s->options->schedule, s->step, s->steps);
    for (int g = FILTERS; g < GROUPS; g++) v.hyper[g] = (float)(base_lr(s->options, g) * factor);
    const int64_t n = whitening_steps(s);
    m->train_whitening = s->step < n;
    s->trained_groups = ALL_GROUPS;
    if (!m->train_whitening) s->trained_groups &= ~group_bit(WHITENING_BIAS);
    if (m->train_whitening)
        v.hyper[WHITENING_BIAS] = (float)(base_lr(s->options, WHITENING_BIAS) *
                                          schedule_factor(s->options->schedule, s->step, n));
    return v;
}

// ---- forward ------------------------------------------------------------------------------------

typedef enum { TRAIN, INFER } Mode;

static Norm batch_norm(const Model *m, const NormTensors *norm)
{
    return norm_of(norm, m->norm_eps, NORM_MOMENTUM);
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

static void block_forward(const Model *m, const Block *b, const Tensor *x, int64_t n, Mode mode)
{
    const Norm norm1 = batch_norm(m, &b->norm1), norm2 = batch_norm(m, &b->norm2);
    if (mode == INFER) {
        k->conv2d_pool_norm_inference(b->act1->value, &norm1, x->value, b->conv1->value, ACT_GELU,
                                      conv1_dims(b, n));
        k->conv2d_norm_inference(b->act2->value, &norm2, b->act1->value, b->conv2->value, ACT_GELU,
                                 conv2_dims(b, n));
        return;
    }
    // conv1 stores only the pooled map
    k->conv2d_pool_forward(b->pool->value, b->argmax->value, norm1.stats, x->value, b->conv1->value,
                           NULL, ACT_NONE, conv1_dims(b, n));
    k->norm_act_forward(b->act1->value, &norm1, b->pool->value, ACT_GELU, map_dims(b, n));
    k->conv2d_forward(b->conv->value, NULL, norm2.stats, b->act1->value, b->conv2->value, NULL,
                      ACT_NONE, conv2_dims(b, n));
    k->norm_act_forward(b->act2->value, &norm2, b->conv->value, ACT_GELU, map_dims(b, n));
}

static ConvDims whiten_dims(const Model *m, int64_t n)
{
    const Dataset *d = &m->s->data;
    return (ConvDims){n, d->h, d->w, d->c, 2 * 4 * d->c, 2, 1, 0};
}

static PoolDims features_dims(const Block *b, int64_t n)
{
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
    block_forward(m, &m->block1, m->whiten_act, n, mode);
    block_forward(m, &m->block2, m->block1.act2, n, mode);
    block_forward(m, &m->block3, m->block2.act2, n, mode);
    k->maxpool_forward(m->features->value, m->features_argmax->value, m->block3.act2->value,
                       features_dims(&m->block3, n));
    k->linear_forward_f32(m->logits->value, m->features->value, m->head->value, NULL,
                          head_dims(m, n));
}

static ConvDims stage_dims(const Stage *s, int64_t n)
{
    return (ConvDims){n, s->h, s->w, s->cin, s->cout, 3, 1, 1};
}

static void stage_forward(const Stage *s, const Tensor *x, int64_t n)
{
    k->conv2d_pool_forward(s->y->value, s->argmax->value, NULL, x->value, s->conv->value,
                           s->bias->master, ACT_RELU, stage_dims(s, n));
}

static void simple_forward(Model *m, int64_t n)
{
    stage_forward(&m->stage1, m->x, n);
    stage_forward(&m->stage2, m->stage1.y, n);
    k->linear_forward_f32(m->logits->value, m->last->y->value, m->head->value, NULL,
                          head_dims(m, n));
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
    const bool mean = s->options->optimizer == OPTIMIZER_ADAMW;
    return (float)((mean ? 1 : RECIPES[config.net].images) / (double)s->options->batch_size);
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

// Each layer finds the gradient of its output in m->grad and leaves that of its input there. What
// cannot be done in place is written to m->spare, and the two change names.
static void swap_gradients(Model *m)
{
    Tensor *const written = m->spare;
    m->spare = m->grad;
    m->grad = written;
}

// Finds the sums of norm2 set and in m->grad the gradient of the block's output, or that of norm2's
// output where `act` is ACT_NONE. Leaves that of conv1's pooled map.
static void block_backward(Model *m, const Block *b, Activation act, const Tensor *x, int64_t n)
{
    const Norm norm1 = batch_norm(m, &b->norm1), norm2 = batch_norm(m, &b->norm2);
    const MapDims map = map_dims(b, n);
    k->norm_act_backward(m->grad->value, &norm2, m->grad->value, b->conv->value, act, SET, map);
    k->conv2d_backward_weight(b->conv2->grad, m->grad->value, b->act1->value, SET,
                              conv2_dims(b, n));
    k->conv2d_norm_backward_data(m->spare->value, &norm1, m->grad->value, b->conv2->value,
                                 b->pool->value, ACT_GELU, conv2_dims(b, n));
    k->update_may_begin(b->conv2->grad);
    swap_gradients(m);
    k->norm_act_backward(m->grad->value, &norm1, m->grad->value, b->pool->value, ACT_NONE, SET,
                         map);
    k->conv2d_pool_backward_weight(b->conv1->grad, m->grad->value, b->argmax->value, x->value, SET,
                                   conv1_dims(b, n));
}

// From conv1 of `b` into `before`, the block that made its input: what block_backward() finds.
static void between_blocks_backward(Model *m, const Block *b, const Block *before, int64_t n)
{
    const Norm norm2 = batch_norm(m, &before->norm2);
    k->conv2d_pool_norm_backward_data(m->spare->value, &norm2, m->grad->value, b->argmax->value,
                                      b->conv1->value, before->conv->value, ACT_GELU,
                                      conv1_dims(b, n));
    k->update_may_begin(b->conv1->grad);
    swap_gradients(m);
}

static void whitening_backward(Model *m, const Block *b, int64_t n)
{
    const ConvDims d = whiten_dims(m, n);
    const MapDims map = {n * (d.h - 1) * (d.w - 1), d.cout};
    k->conv2d_pool_backward_data(m->spare->value, m->grad->value, b->argmax->value, b->conv1->value,
                                 conv1_dims(b, n));
    k->update_may_begin(b->conv1->grad);
    swap_gradients(m);
    k->bias_act_backward(NULL, m->whiten_bias->grad, m->grad->value, m->whiten_z->value, ACT_GELU,
                         SET, map);
}

// `x` (n,fan_in): what the head read.
static void head_backward(Model *m, const Tensor *x, int64_t n)
{
    k->linear_backward_weight(m->head->grad, NULL, m->dlogits->value, x->value, SET,
                              head_dims(m, n));
    k->linear_backward_data(m->grad->value, m->dlogits->value, m->head->value, NULL, ACT_NONE,
                            head_dims(m, n));
}

static void airbench_backward(Model *m, int64_t n)
{
    head_backward(m, m->features, n);
    k->maxpool_backward(m->spare->value, m->grad->value, m->features_argmax->value,
                        features_dims(&m->block3, n));
    swap_gradients(m);
    const Norm last = batch_norm(m, &m->block3.norm2);
    k->norm_act_backward_sums(&last, m->grad->value, m->block3.conv->value, ACT_GELU,
                              map_dims(&m->block3, n));
    block_backward(m, &m->block3, ACT_GELU, m->block2.act2, n);
    between_blocks_backward(m, &m->block3, &m->block2, n);
    block_backward(m, &m->block2, ACT_NONE, m->block1.act2, n);
    between_blocks_backward(m, &m->block2, &m->block1, n);
    block_backward(m, &m->block1, ACT_NONE, m->whiten_act, n);
    if (m->train_whitening) whitening_backward(m, &m->block1, n);
}

static void stage_backward(Model *m, const Stage *s, const Tensor *x, bool dx, int64_t n)
{
    const MapDims map = {n * (s->h / 2) * (s->w / 2), s->cout};
    k->bias_act_backward(m->grad->value, s->bias->grad, m->grad->value, s->y->value, ACT_RELU, SET,
                         map);
    k->conv2d_pool_backward_weight(s->conv->grad, m->grad->value, s->argmax->value, x->value, SET,
                                   stage_dims(s, n));
    if (!dx) return;
    k->conv2d_pool_backward_data(m->spare->value, m->grad->value, s->argmax->value, s->conv->value,
                                 stage_dims(s, n));
    k->update_may_begin(s->conv->grad);
    swap_gradients(m);
}

static void simple_backward(Model *m, int64_t n)
{
    head_backward(m, m->last->y, n);
    stage_backward(m, &m->stage2, m->stage1.y, true, n);
    stage_backward(m, &m->stage1, m->x, false, n);
}

static void backward(Model *m, int64_t n)
{
    if (config.net == NET_AIRBENCH)
        airbench_backward(m, n);
    else
        simple_backward(m, n);
}

// ---- update -------------------------------------------------------------------------------------

static void update(const Model *m)
{
    const Options *o = m->s->options;
    const Tensors *t = &m->s->tensors;
    Param all[TENSORS_MAX], filters[TENSORS_MAX];
    const unsigned groups = m->s->trained_groups;

    int n = tensors_params(t, groups, m->decay, all);
    // --clip-norm is in units of the mean loss's gradient
    const float clip = (float)(o->clip_norm * (double)grad_scale(m->s) * (double)o->batch_size);
    if (clip > 0) k->clip_gradients(m->s->grad_norm->value, all, n, clip);
    switch ((Optimizer)o->optimizer) {
    case OPTIMIZER_SGD:
        k->sgd_update(all, n, options_sgd(o));
        break;
    case OPTIMIZER_ADAMW:
        k->adamw_update(all, n, options_adamw(o));
        break;
    case OPTIMIZER_MUON:
        k->muon_update(filters, tensors_params(t, group_bit(FILTERS), NULL, filters), MUON);
        n = tensors_params(t, groups & ~group_bit(FILTERS), m->decay, all);
        k->sgd_update(all, n, options_sgd(o));
        break;
    default:
        die(STATUS_USAGE, "%s does not know this --optimizer", program.name);
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

// Of the batch that is loaded; returns the learning rate in force.
static double run_step(void *model)
{
    Model *m = model;
    const StepValues values = schedule(m);
    if (k->step_begin(m->train_whitening, &values)) train_step(m);
    k->step_end();
    return (double)values.hyper[FILTERS];
}

// ---- evaluate -----------------------------------------------------------------------------------

// view_logits += weight * logits of the batch moved by (dy,dx) and mirrored or not
static void add_view(Model *m, float weight, int shift, bool mirror)
{
    const Augment view = {.dy = shift, .dx = shift, .mirror = mirror};
    const int64_t n = m->s->feed.n;
    feed_gather(&m->s->feed, k, &m->s->data, m->x, m->labels, view);
    forward(m, n, INFER);
    k->axpy(m->view_logits->value, weight, HYPER_ONE, m->logits->value, n * m->s->data.classes);
}

static void infer_views(Model *m, int64_t tta)
{
    const bool mirror = tta > 0 && m->s->augment.flip != FLIP_NONE;
    const bool shifts = tta > 1;
    const int64_t n = m->s->feed.n;
    k->zero(m->view_logits->value, (size_t)(n * m->s->data.classes) * sizeof(float));
    for (int side = 0; side < (mirror ? 2 : 1); side++) {
        const float share = mirror ? 0.5f : 1.0f;
        add_view(m, share * (shifts ? 0.5f : 1.0f), 0, side == 1);
        if (!shifts) continue;
        add_view(m, share * 0.25f, -1, side == 1);
        add_view(m, share * 0.25f, 1, side == 1);
    }
    loss(m, m->view_logits, NULL, 0.0f, n);
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

int main(int argc, char **argv)
{
    static Session s = {
        .line.options = {.device = "auto", .lr = 1, .augment = "auto", .shuffle = true, .seed = 1}};
    const Arg own[] = {
        ARG_HEADING("Network"),
        ARG_CHOICE("net", &config.net, net_names, "airbench: whitening, 3 blocks; simple: 2 convs"),
        ARG_DOUBLE("width", &config.width, 0.01, 64, "factor on the channels"),
        ARG_INT("tta", &config.tta, 0, 2,
                "test-time views: 1 mirror, if training has it; 2 and shifts"),
    };
    static Model m;
    session_open(&s, &program, own, sizeof own / sizeof *own, argc, argv);
    if (s.data.h < 16 || s.data.w < 16 || s.data.h > 96 || s.data.w > 96)
        die(STATUS_DATA,
            "%s holds images of %dx%d; this network takes 16x16 to 96x96: prepare "
            "them with --size 32x32",
            s.data.source, s.data.h, s.data.w);
    declare(&m, &s);
    session_plan(&s, &k, gradient, train_step, infer, &m);
    set_decay(&m);
    init(&m);
    session_load_init(&s);

    int status;
    if (s.options->selftest) {
        status = selftest(&s, forward_loss, gradient, &m, (double)grad_scale(&s));
    } else if (s.options->eval_only) {
        status = session_eval_only(&s, infer_tta, &m);
    } else if (s.options->predict) {
        status = predict(&s, infer_tta, &m);
    } else if (s.options->bench) {
        status = timing_report(&s, run_step, &m);
    } else if (s.options->speedrun) {
        status = speedrun(&s, init, run_step, infer_tta, &m);
    } else {
        session_begin(&s);
        while (session_next(&s)) {
            session_step_done(&s, run_step(&m));
            if (session_epoch_done(&s)) session_test(&s, infer, &m);
        }
        status = session_end(&s, infer_tta, &m);
    }
    session_close(&s);
    return status;
}
