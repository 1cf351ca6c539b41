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
// evaluate, train, main. To change the network edit it and run
// `make train_cnn && ./train_cnn --selftest`.

#include <math.h>
#include <stdio.h>

#include "kernels/kernels.h"
#include "runtime/evaluate.h"
#include "runtime/init.h"
#include "runtime/modes.h"
#include "runtime/run.h"

static const Kernels *k; // the operations of the device; setup_plan() sets it
// What main() has opened: options, data, processes. (lr is a factor on the rates below.)
static Setup s = {
    .line.options = {.device = "auto", .lr = 1, .augment = "auto", .shuffle = true, .seed = 1}};

// ---- config -------------------------------------------------------------------------------------

typedef enum { NET_AIRBENCH, NET_SIMPLE } Net;
static const char *const net_names[] = {"airbench", "simple", NULL};

typedef struct Config {
    int net;
    double width; // factor on the channels
    int64_t tta;  // test-time augmentation: 0 none, 1 mirror, 2 mirror and shifts
} Config;
static Config config = {.net = NET_AIRBENCH, .width = 1.0, .tta = -1};

// Optimizer groups, and the slots of their learning rates in a step's values; slot 0 is always 1.
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
static Model m;

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
    Stage stage = {.h = h, .w = w, .cin = cin, .cout = cout};
    const Shape map = SHAPE(n, h / 2, w / 2, cout);
    stage.conv = parameter(t, SHAPE(cout, 3, 3, cin), FILTERS, UNIFORM, "%s.weight", name);
    stage.bias = parameter(t, SHAPE(cout), NORM_BIASES, uniform_fan_in(9 * cin), "%s.bias", name);
    stage.y = activation(t, map, "%s.y", name);
    stage.argmax = workspace(t, map, sizeof(uint8_t), "%s.argmax", name);
    return stage;
}

static void declare_airbench(Tensors *t, int64_t n)
{
    const Dataset *d = &s.data;
    const int h = d->h - 1, w = d->w - 1, c = 2 * 4 * d->c;
    m.whiten = buffer(t, "whiten.weight", SHAPE(c, 2, 2, d->c), 0);
    m.whiten_bias = parameter(t, SHAPE(c), WHITENING_BIAS, uniform_fan_in(4 * d->c), "whiten.bias");
    m.whiten_z = activation(t, SHAPE(n, h, w, c), "whiten.z");
    m.whiten_act = activation(t, SHAPE(n, h, w, c), "whiten.act");
    const int c1 = channels(64), c2 = channels(256), c3 = channels(256);
    m.block1 = declare_block(t, 1, n, h, w, c, c1);
    m.block2 = declare_block(t, 2, n, h / 2, w / 2, c1, c2);
    m.block3 = declare_block(t, 3, n, h / 4, w / 4, c2, c3);
    m.features = activation(t, SHAPE(n, c3), "features.max");
    m.features_argmax = workspace(t, SHAPE(n, c3), sizeof(uint8_t), "features.argmax");
    m.head = parameter(t, SHAPE(d->classes, c3), HEAD, UNIFORM, "head.weight");
    m.logit_scale = 1.0f / sqrtf(256.0f * (float)c3); // the recipe's 1/256 at full width
}

static void declare_simple(Tensors *t, int64_t n)
{
    const Dataset *d = &s.data;
    const int c1 = channels(32), c2 = channels(64);
    m.stage1 = declare_stage(t, "conv1", n, d->h, d->w, d->c, c1);
    m.stage2 = declare_stage(t, "conv2", n, d->h / 2, d->w / 2, c1, c2);
    m.last = &m.stage2;
    const Shape head = SHAPE(d->classes, m.last->h / 2, m.last->w / 2, m.last->cout);
    m.head = parameter(t, head, HEAD, UNIFORM, "head.weight");
    m.head->flatten = true;
    m.logit_scale = 1.0f;
}

static void check_size(void)
{
    if (s.data.h < 16 || s.data.w < 16 || s.data.h > 96 || s.data.w > 96)
        die(STATUS_DATA,
            "%s holds images of %dx%d; this network takes 16x16 to 96x96: prepare "
            "them with --size 32x32",
            s.data.source, s.data.h, s.data.w);
}

static void declare(void)
{
    Tensors *t = &s.net.tensors;
    const int64_t n = s.batch;
    const int classes = s.data.classes;
    m.x = activation(t, SHAPE(n, s.data.h, s.data.w, s.data.c), "input.x");
    m.labels = workspace(t, SHAPE(n), sizeof(int32_t), "input.labels");
    if (config.net == NET_AIRBENCH)
        declare_airbench(t, n);
    else
        declare_simple(t, n);
    m.logits = workspace(t, SHAPE(n, classes), sizeof(float), "head.logits");
    m.view_logits = workspace(t, SHAPE(n, classes), sizeof(float), "head.view_logits");
    m.dlogits = activation(t, SHAPE(n, classes), "loss.dlogits");
    const int64_t largest = tensors_largest_activation(t);
    m.grad = activation(t, SHAPE(largest), "backward.grad");
    m.spare = activation(t, SHAPE(largest), "backward.spare");
    m.train_whitening = true;
    m.norm_eps = s.options->selftest ? SELFTEST_NORM_EPS : NORM_EPS;
    const bool mean = s.options->optimizer == OPTIMIZER_ADAMW;
    const double images = mean ? 1 : RECIPES[config.net].images;
    s.net.input = m.x;
    s.net.logits = m.view_logits;
    s.net.logit_scale = m.logit_scale;
    s.net.grad_scale = (float)(images / (double)s.options->batch_size);
    snprintf(s.net.name, sizeof s.net.name, "cnn-%s width=%g", net_names[config.net], config.width);
}

// ---- init ---------------------------------------------------------------------------------------

// What the declarations do not say: the whitening filters come from the data, or with --init from
// there.
static void init(void)
{
    init_parameters(&s.net.tensors, k, (uint64_t)s.options->seed);
    if (config.net == NET_SIMPLE || s.options->init) return;
    Error e;
    const int64_t images = s.data.embedded ? WHITENING_DRAWINGS : WHITENING_IMAGES;
    check(init_whitening(m.whiten, k, &s.data, images, WHITENING_EPS, &e), &e);
    init_unit_std(m.head, k);
}

// ---- schedule -----------------------------------------------------------------------------------

static double base_lr(int group)
{
    const Options *o = s.options;
    const Recipe *r = &RECIPES[config.net];
    if (o->optimizer == OPTIMIZER_ADAMW) return o->lr * r->adamw_lr;
    if (o->optimizer == OPTIMIZER_MUON && group == FILTERS) return o->lr * r->muon_lr;
    return o->lr * r->sgd_lr[group];
}

// AdamW leaves biases alone; the recipe's SGD does not, and leaves the filters, whose scale the
// norms undo. Muon has no decay.
static void set_decay(void)
{
    const Options *o = s.options;
    for (int g = FILTERS; g < GROUPS; g++) {
        const bool bias = g == NORM_BIASES || g == WHITENING_BIAS;
        const bool decays = o->optimizer == OPTIMIZER_ADAMW ? !bias : g != FILTERS;
        m.decay[g] = decays ? options_decay(o, base_lr(g)) : 0.0f;
    }
}

// Steps in which the whitening bias trains.
static int64_t whitening_steps(void)
{
    if (config.net != NET_AIRBENCH) return 0;
    const int64_t steps = (int64_t)(WHITENING_EPOCHS * (double)s.steps_per_epoch);
    return steps < s.steps ? steps : s.steps;
}

static StepValues schedule(int64_t step)
{
    StepValues v = setup_step_values(&s, step);
    const Schedule shape = (Schedule)s.options->schedule;
    const double factor = schedule_factor(shape, step, s.steps);
    for (int g = FILTERS; g < GROUPS; g++) v.hyper[g] = (float)(base_lr(g) * factor);
    const int64_t n = whitening_steps();
    m.train_whitening = step < n;
    s.net.trained_groups = ALL_GROUPS;
    if (m.train_whitening)
        v.hyper[WHITENING_BIAS] =
            (float)(base_lr(WHITENING_BIAS) * schedule_factor(shape, step, n));
    else
        s.net.trained_groups &= ~group_bit(WHITENING_BIAS);
    return v;
}

// ---- forward ------------------------------------------------------------------------------------

typedef enum { TRAIN, INFER } Mode;

static Norm batch_norm(const NormTensors *norm)
{
    return norm_of(norm, m.norm_eps, NORM_MOMENTUM);
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
    const Norm norm1 = batch_norm(&b->norm1), norm2 = batch_norm(&b->norm2);
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

static ConvDims whiten_dims(int64_t n)
{
    const Dataset *d = &s.data;
    return (ConvDims){n, d->h, d->w, d->c, 2 * 4 * d->c, 2, 1, 0};
}

static PoolDims features_dims(const Block *b, int64_t n)
{
    return (PoolDims){n, b->h / 2, b->w / 2, b->cout, b->h / 2, b->w / 2, 1};
}

static LinearDims head_dims(int64_t n)
{
    return (LinearDims){n, fan_in(m.head), s.data.classes};
}

static void airbench_forward(int64_t n, Mode mode)
{
    k->conv2d_forward(m.whiten_act->value, m.whiten_z->value, NULL, m.x->value, m.whiten->value,
                      m.whiten_bias->master, ACT_GELU, whiten_dims(n));
    block_forward(&m.block1, m.whiten_act, n, mode);
    block_forward(&m.block2, m.block1.act2, n, mode);
    block_forward(&m.block3, m.block2.act2, n, mode);
    k->maxpool_forward(m.features->value, m.features_argmax->value, m.block3.act2->value,
                       features_dims(&m.block3, n));
    k->linear_forward_f32(m.logits->value, m.features->value, m.head->value, NULL, head_dims(n));
}

static ConvDims stage_dims(const Stage *g, int64_t n)
{
    return (ConvDims){n, g->h, g->w, g->cin, g->cout, 3, 1, 1};
}

static void stage_forward(const Stage *g, const Tensor *x, int64_t n)
{
    k->conv2d_pool_forward(g->y->value, g->argmax->value, NULL, x->value, g->conv->value,
                           g->bias->master, ACT_RELU, stage_dims(g, n));
}

static void simple_forward(int64_t n)
{
    stage_forward(&m.stage1, m.x, n);
    stage_forward(&m.stage2, m.stage1.y, n);
    k->linear_forward_f32(m.logits->value, m.last->y->value, m.head->value, NULL, head_dims(n));
}

static void forward(int64_t n, Mode mode)
{
    if (config.net == NET_AIRBENCH)
        airbench_forward(n, mode);
    else
        simple_forward(n);
}

// Also sets the gradient of the logits unless `dlogits` is NULL.
static void cross_entropy(const Tensor *logits, const Tensor *dlogits, double smoothing)
{
    const LossDims d = {s.feed.n, s.data.classes, (float)smoothing, m.logit_scale,
                        s.net.grad_scale};
    k->softmax_cross_entropy(s.net.metrics->value, dlogits ? dlogits->value : NULL, logits->value,
                             m.labels->value, d);
}

// Forward and loss of the loaded batch, as a step trains on it; sets the gradient of the logits.
static void loss(void)
{
    feed_gather(&s.feed, k, m.x, m.labels, s.augment);
    forward(s.feed.n, TRAIN);
    cross_entropy(m.logits, m.dlogits, s.options->label_smoothing);
}

// ---- backward -----------------------------------------------------------------------------------

// Each layer finds the gradient of its output in m.grad and leaves that of its input there. What
// cannot be done in place is written to m.spare, and the two change names.
static void swap_gradients(void)
{
    Tensor *const written = m.spare;
    m.spare = m.grad;
    m.grad = written;
}

// Finds the sums of norm2 set and in m.grad the gradient of the block's output, or that of norm2's
// output where `act` is ACT_NONE. Leaves that of conv1's pooled map.
static void block_backward(const Block *b, Activation act, const Tensor *x, int64_t n)
{
    const Norm norm1 = batch_norm(&b->norm1), norm2 = batch_norm(&b->norm2);
    const MapDims map = map_dims(b, n);
    k->norm_act_backward(m.grad->value, &norm2, m.grad->value, b->conv->value, act, SET, map);
    k->conv2d_backward_weight(b->conv2->grad, m.grad->value, b->act1->value, SET, conv2_dims(b, n));
    k->conv2d_norm_backward_data(m.spare->value, &norm1, m.grad->value, b->conv2->value,
                                 b->pool->value, ACT_GELU, conv2_dims(b, n));
    k->update_may_begin(b->conv2->grad);
    swap_gradients();
    k->norm_act_backward(m.grad->value, &norm1, m.grad->value, b->pool->value, ACT_NONE, SET, map);
    k->conv2d_pool_backward_weight(b->conv1->grad, m.grad->value, b->argmax->value, x->value, SET,
                                   conv1_dims(b, n));
}

// From conv1 of `b` into `before`, the block that made its input: what block_backward() finds.
static void between_blocks_backward(const Block *b, const Block *before, int64_t n)
{
    const Norm norm2 = batch_norm(&before->norm2);
    k->conv2d_pool_norm_backward_data(m.spare->value, &norm2, m.grad->value, b->argmax->value,
                                      b->conv1->value, before->conv->value, ACT_GELU,
                                      conv1_dims(b, n));
    k->update_may_begin(b->conv1->grad);
    swap_gradients();
}

static void whitening_backward(const Block *b, int64_t n)
{
    const ConvDims d = whiten_dims(n);
    const MapDims map = {n * (d.h - 1) * (d.w - 1), d.cout};
    k->conv2d_pool_backward_data(m.spare->value, m.grad->value, b->argmax->value, b->conv1->value,
                                 conv1_dims(b, n));
    k->update_may_begin(b->conv1->grad);
    swap_gradients();
    k->bias_act_backward(NULL, m.whiten_bias->grad, m.grad->value, m.whiten_z->value, ACT_GELU, SET,
                         map);
}

// `x` (n,fan_in): what the head read.
static void head_backward(const Tensor *x, int64_t n)
{
    k->linear_backward_weight(m.head->grad, NULL, m.dlogits->value, x->value, SET, head_dims(n));
    k->linear_backward_data(m.grad->value, m.dlogits->value, m.head->value, NULL, ACT_NONE,
                            head_dims(n));
}

static void airbench_backward(int64_t n)
{
    head_backward(m.features, n);
    k->maxpool_backward(m.spare->value, m.grad->value, m.features_argmax->value,
                        features_dims(&m.block3, n));
    swap_gradients();
    const Norm last = batch_norm(&m.block3.norm2);
    k->norm_act_backward_sums(&last, m.grad->value, m.block3.conv->value, ACT_GELU,
                              map_dims(&m.block3, n));
    block_backward(&m.block3, ACT_GELU, m.block2.act2, n);
    between_blocks_backward(&m.block3, &m.block2, n);
    block_backward(&m.block2, ACT_NONE, m.block1.act2, n);
    between_blocks_backward(&m.block2, &m.block1, n);
    block_backward(&m.block1, ACT_NONE, m.whiten_act, n);
    if (m.train_whitening) whitening_backward(&m.block1, n);
}

static void stage_backward(const Stage *g, const Tensor *x, bool dx, int64_t n)
{
    const MapDims map = {n * (g->h / 2) * (g->w / 2), g->cout};
    k->bias_act_backward(m.grad->value, g->bias->grad, m.grad->value, g->y->value, ACT_RELU, SET,
                         map);
    k->conv2d_pool_backward_weight(g->conv->grad, m.grad->value, g->argmax->value, x->value, SET,
                                   stage_dims(g, n));
    if (!dx) return;
    k->conv2d_pool_backward_data(m.spare->value, m.grad->value, g->argmax->value, g->conv->value,
                                 stage_dims(g, n));
    k->update_may_begin(g->conv->grad);
    swap_gradients();
}

static void simple_backward(int64_t n)
{
    head_backward(m.last->y, n);
    stage_backward(&m.stage2, m.stage1.y, true, n);
    stage_backward(&m.stage1, m.x, false, n);
}

static void backward(int64_t n)
{
    if (config.net == NET_AIRBENCH)
        airbench_backward(n);
    else
        simple_backward(n);
}

static void gradient(void)
{
    loss();
    backward(s.feed.n);
}

// ---- update -------------------------------------------------------------------------------------

static void update(void)
{
    const Options *o = s.options;
    const Tensors *t = &s.net.tensors;
    Param all[TENSORS_MAX], filters[TENSORS_MAX];
    const unsigned groups = s.net.trained_groups;

    int n = tensors_params(t, groups, m.decay, all);
    // --clip-norm is in units of the mean loss's gradient
    const float clip = (float)(o->clip_norm * (double)s.net.grad_scale * (double)o->batch_size);
    if (clip > 0) k->clip_gradients(s.net.grad_norm->value, all, n, clip);
    switch ((Optimizer)o->optimizer) {
    case OPTIMIZER_SGD:
        k->sgd_update(all, n, options_sgd(o));
        break;
    case OPTIMIZER_ADAMW:
        k->adamw_update(all, n, options_adamw(o));
        break;
    case OPTIMIZER_MUON:
        k->muon_update(filters, tensors_params(t, group_bit(FILTERS), NULL, filters), MUON);
        n = tensors_params(t, groups & ~group_bit(FILTERS), m.decay, all);
        k->sgd_update(all, n, options_sgd(o));
        break;
    default:
        die(STATUS_USAGE, "train_cnn does not know this --optimizer");
    }
    network_update_average(&s.net, k); // of --ema
}

// ---- evaluate -----------------------------------------------------------------------------------

// view_logits += weight * logits of the batch moved by (shift,shift) and mirrored or not
static void add_view(float weight, int shift, bool mirror)
{
    const Augment view = {.dy = shift, .dx = shift, .mirror = mirror};
    const int64_t n = s.feed.n;
    feed_gather(&s.feed, k, m.x, m.labels, view);
    forward(n, INFER);
    k->axpy(m.view_logits->value, weight, HYPER_ONE, m.logits->value, n * s.data.classes);
}

// Logits and loss of the loaded batch, of VIEWS by --tta.
static void infer(Views views)
{
    const int64_t tta = views == VIEWS ? config.tta : 0;
    const bool mirror = tta > 0 && s.augment.flip != FLIP_NONE;
    const bool shifts = tta > 1;
    const int64_t n = s.feed.n;
    k->zero(m.view_logits->value, (size_t)(n * s.data.classes) * sizeof(float));
    for (int side = 0; side < (mirror ? 2 : 1); side++) {
        const float share = mirror ? 0.5f : 1.0f;
        add_view(share * (shifts ? 0.5f : 1.0f), 0, side == 1);
        if (!shifts) continue;
        add_view(share * 0.25f, -1, side == 1);
        add_view(share * 0.25f, 1, side == 1);
    }
    cross_entropy(m.view_logits, NULL, 0);
}

static Evaluation evaluate(Views views)
{
    TestPass test = test_begin(&s);
    while (test_next(&test)) infer(views);
    return test_end(&test);
}

// ---- train --------------------------------------------------------------------------------------

// One step on the loaded batch; returns its learning rate. step_begin() is true where the
// operations are to be called. It is false where a GPU recorded them in an earlier step with the
// same first argument: step_end() then replays the recording with this step's `values`, and no code
// in the braces runs.
static double train_step(int64_t step)
{
    const StepValues values = schedule(step);
    if (k->step_begin(m.train_whitening, &values)) {
        gradient();
        update();
    }
    k->step_end();
    return (double)values.hyper[FILTERS];
}

// Returns the steps that are done: fewer than s.steps after Ctrl-C, and after a loss or a weight
// that is not finite, which run->diverged tells. Each rank runs this with its share of every batch:
// they sum gradients between backward() and update(), and losses where they are logged, tested or
// saved.
static int64_t train(Run *run)
{
    int64_t step = run_begin(run); // 0, or the step of the checkpoint to go on from
    // A test that Ctrl-C interrupted has no result: the run that is continued repeats it here.
    if (run_test_due(run, step)) run_log_test(run, step, evaluate(PLAIN));
    while (step < s.steps && !comm_stop_agreed(&s.comm)) { // Ctrl-C on any rank: all stop here
        feed_next(&s.feed);
        const double lr = train_step(step);
        step++;
        if (!run_step_done(run, step, lr)) break; // the loss, read every few steps, is not finite
        if (run_test_due(run, step)) run_log_test(run, step, evaluate(PLAIN)); // each epoch
        // A checkpoint: every --save-every steps, or each epoch, and at the end. None where the loss
        // or a weight of any rank is not finite.
        if (run_save_due(run, step) && !run_save(run, step)) break;
    }
    return step;
}

// ---- main ---------------------------------------------------------------------------------------

// For the modes in place of training (runtime/modes.h) and for setup_plan(), which calls gradient,
// step and infer with operations that only count.
static const Trainer trainer = {
    .name = "train_cnn",
    .usage = "Trains a convolutional network on pictures of 16x16 to 96x96.\n"
             "Usage: ./train_cnn [options]",
    .defaults = defaults,
    .h = 32,
    .w = 32,
    .c = 3,
    .n_train = 8000,
    .n_test = 2000, // embedded set
    .init = init,
    .loss = loss,
    .gradient = gradient, // --selftest
    .step = train_step,   // --bench
    .infer = infer,       // --predict
    .evaluate = evaluate, // --eval-only
    .train = train,       // --speedrun
};

int main(int argc, char **argv)
{
    static Run run;
    const Arg own[] = {
        ARG_HEADING("Network"),
        ARG_CHOICE("net", &config.net, net_names, "airbench: whitening, 3 blocks; simple: 2 convs"),
        ARG_DOUBLE("width", &config.width, 0.01, 64, "factor on the channels"),
        ARG_INT("tta", &config.tta, 0, 2,
                "views: 0 plain; 1 and mirrored, if trained so; 2 and shifted"),
    };
    setup_open(&s, &trainer, own, sizeof own / sizeof *own, argc, argv);
    check_size();
    declare();
    set_decay();
    setup_plan(&s, &k);
    init();
    setup_weights(&s);

    int status;
    if (!other_mode(&s, &status)) { // --selftest, --eval-only, --predict, --bench, --speedrun
        run_open(&run, &s, RUN_TRAINING);
        const int64_t done = train(&run);
        if (run.diverged.step > 0) {
            // Find where that began: the steps from the last checkpoint, or the start, are made
            // again with the same bits, and after each every tensor is looked at. Nothing is tested
            // or saved.
            run_begin_search(&run);
            train(&run);
            run_end_diverged(&run); // names step and tensor, with status 6
        }
        if (done < s.steps)
            status = run_stopped(&run, done); // Ctrl-C: saves a checkpoint for --resume
        else
            status = run_finish(&run, evaluate(VIEWS));
        run_close(&run);
    }
    setup_close(&s);
    return status;
}
