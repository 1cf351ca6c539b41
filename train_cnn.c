// train_cnn: a convolutional network for pictures of 16x16 to 256x256, trained from plain C.
//
//   ./train_cnn                      embedded drawings
//   ./train_cnn --data data/photos   your own pictures, packed by data/prepare, or CIFAR-10, MNIST
//
// Convolution, batch norm and ReLU, residual blocks as in ResNet (He et al., arXiv 1512.03385), the
// mean over the last map, a linear layer. Tensors have torchvision's names. Every operation is
// one call; train_airbench.c shows what fusing them looks like.
//
// The file reads top to bottom: config, tensors, init, schedule, forward, backward, inference,
// train, main. To change the network edit it and run `make train_cnn && ./train_cnn --selftest`.

#include <stdio.h>

#include "kernels/kernels.h"
#include "train/evaluate.h"
#include "train/init.h"
#include "train/modes.h"
#include "train/recipe.h"
#include "train/run.h"

static const Kernels *k; // the operations of the device; setup_plan() sets it
// What main() has opened: options, data, processes. (lr is a factor on the rates below.)
static Setup s = {
    .line.options = {.device = "auto", .lr = 1, .augment = "auto", .shuffle = true, .seed = 1}};

// ---- config -------------------------------------------------------------------------------------

enum { STEM_MAX = 4, STAGES_MAX = 4, BLOCKS_MAX = 64 };
typedef struct Conv {
    int width, kernel, stride; // width: output channels
} Conv;
typedef struct Stage {
    int width, blocks, stride; // of its first block; the others have stride 1
} Stage;
typedef struct Net {
    const char *name;
    Conv stem[STEM_MAX]; // each with its batch norm and ReLU; a row ends where the width is 0
    Stage stage[STAGES_MAX];
} Net;

enum { PLAIN_NET, SMALL_NET, MEDIUM_NET, LARGE_NET, NETS };
static const Net NET[NETS] = {
    [PLAIN_NET] = {"plain", {{32, 3, 2}, {64, 3, 2}, {128, 3, 2}, {128, 3, 1}}, {{0}}},
    [SMALL_NET] = {"small", {{32, 3, 1}}, {{64, 1, 2}, {128, 1, 2}, {256, 1, 2}}},
    [MEDIUM_NET] = {"medium", {{32, 3, 2}}, {{64, 1, 2}, {128, 1, 2}, {256, 1, 2}}},
    [LARGE_NET] = {"large", {{32, 3, 2}, {64, 3, 2}}, {{64, 1, 2}, {128, 1, 2}, {256, 1, 2}}},
};

typedef struct Config {
    int net;      // row of NET
    double width; // factor on the channels
} Config;
static Config config;

enum { FILTERS = 1, NORMS, HEAD }; // groups of parameters, and their rates in StepValues.hyper
static const Recipe RECIPE = {
    .group =
        {
            [FILTERS] =
                {.sgd = 0.1, .adamw = 2e-3, .muon = 0.05, .sgd_decays = true, .adamw_decays = true},
            [NORMS] = {.sgd = 0.1, .adamw = 2e-3},
            [HEAD] = {.sgd = 0.1, .adamw = 2e-3, .sgd_decays = true, .adamw_decays = true},
        },
    .muon = {.momentum = 0.6f, .iterations = 3, .renormalize = true, MUON_POLYNOMIAL},
};
static const float NORM_EPS = 1e-5f, NORM_MOMENTUM = 0.1f; // PyTorch's

// What suits the number and the size of the pictures.
static void defaults(CommandLine *line)
{
    Options *o = &line->options;
    const Dataset *d = &s.data;
    const int side = d->h > d->w ? d->h : d->w;
    const bool many = d->n[SPLIT_TRAIN] >= 20000, few = d->n[SPLIT_TRAIN] < 4000;
    DEFAULT(line, config.net,
            side * side * d->c <= 1024 ? PLAIN_NET
            : side <= 48               ? SMALL_NET
            : side <= 96               ? MEDIUM_NET
                                       : LARGE_NET);
    DEFAULT(line, config.width, many || config.net == PLAIN_NET ? 1.0 : 0.5);
    DEFAULT(line, o->epochs, few ? 30 : !many ? 5 : config.net == PLAIN_NET ? 2 : 8);
    DEFAULT(line, o->batch_size, many ? 500 : 250);
    DEFAULT(line, o->optimizer, OPTIMIZER_MUON);
    DEFAULT(line, o->schedule, SCHEDULE_LINEAR);
    DEFAULT(line, o->momentum, 0.9);
    DEFAULT(line, o->weight_decay, o->optimizer == OPTIMIZER_ADAMW ? 0.05 : 5e-5);
    DEFAULT(line, o->label_smoothing, 0.1);
}

// ---- tensors ------------------------------------------------------------------------------------

// y = act(norm(conv(x)))
typedef struct Layer {
    ConvDims dims;   // batch() fills in n
    Activation act;  // ReLU or none
    const Tensor *x; // (n,h,w,cin): what the layer before it made
    Tensor *weight;  // (cout,kernel,kernel,cin)
    NormTensors norm;
    Tensor *conv, *y; // (n,oh,ow,cout)
} Layer;

// conv2.y = relu(conv2(conv1(x)) + shortcut), where the shortcut is x, or downsample(x) where x has
// another shape.
typedef struct Block {
    Layer conv1, conv2;
    Layer downsample; // its weight is NULL: there is none
} Block;

typedef struct Model {
    Tensor *x, *labels; // input (n,h,w,c) and its labels (n)
    Layer stem[STEM_MAX];
    Block block[BLOCKS_MAX];
    int stem_layers, blocks;
    const Tensor *last;              // map that the head reads
    Tensor *features;                // (n,c) its means
    Tensor *fc_weight, *fc_bias;     // (classes,c), (classes)
    Tensor *logits;                  // (n,classes) fp32
    Tensor *dlogits, *dfeatures;     // gradients of the above
    Tensor *grad;                    // of the map that backward() has come to
    Tensor *branch_grad, *conv_grad; // of maps beside it, in a block and in a layer
} Model;
static Model m;

static int channels(int full)
{
    const int c = (int)(full * config.width / 8 + 0.5) * 8; // multiples of 8
    return c < 8 ? 8 : c;
}

// The layer that reads x, with tensors <prefix><conv>.weight and <prefix><norm>.*.
static Layer declare_layer(Tensors *t, const Tensor *x, Conv c, Activation act, const char *prefix,
                           const char *conv, const char *norm)
{
    const int h = (int)x->shape[1], w = (int)x->shape[2], cin = (int)x->shape[3];
    const int pad = c.kernel / 2, cout = channels(c.width);
    const Shape map = SHAPE(s.batch, conv_out(h, c.kernel, c.stride, pad),
                            conv_out(w, c.kernel, c.stride, pad), cout);
    Layer l = {.x = x, .act = act, .dims = {0, h, w, cin, cout, c.kernel, c.stride, pad}};
    l.weight = parameter(t, SHAPE(cout, c.kernel, c.kernel, cin), FILTERS, UNIFORM, "%s%s.weight",
                         prefix, conv);
    l.norm = norm_tensors(t, cout, NORMS, "%s%s", prefix, norm);
    l.conv = activation(t, map, "%s%s.out", prefix, conv);
    l.y = activation(t, map, "%s%s.y", prefix, norm);
    return l;
}

static Block declare_block(Tensors *t, const Tensor *x, int width, int stride, int stage, int block)
{
    Block b = {0};
    char prefix[32];
    snprintf(prefix, sizeof prefix, "layer%d.%d.", stage, block);
    b.conv1 = declare_layer(t, x, (Conv){width, 3, stride}, ACT_RELU, prefix, "conv1", "bn1");
    b.conv2 = declare_layer(t, b.conv1.y, (Conv){width, 3, 1}, ACT_NONE, prefix, "conv2", "bn2");
    if (stride != 1 || x->shape[3] != channels(width))
        b.downsample = declare_layer(t, x, (Conv){width, 1, stride}, ACT_NONE, prefix,
                                     "downsample.0", "downsample.1");
    return b;
}

// Returns the last map.
static const Tensor *declare_maps(Tensors *t, const Net *net)
{
    const Tensor *x = m.x;
    for (int i = 0; i < STEM_MAX && net->stem[i].width > 0; i++) {
        char conv[16], norm[16];
        snprintf(conv, sizeof conv, "conv%d", i + 1);
        snprintf(norm, sizeof norm, "bn%d", i + 1);
        Layer *l = &m.stem[m.stem_layers++];
        *l = declare_layer(t, x, net->stem[i], ACT_RELU, "", conv, norm);
        x = l->y;
    }
    for (int i = 0; i < STAGES_MAX; i++)
        for (int j = 0; j < net->stage[i].blocks; j++) {
            const Stage *g = &net->stage[i];
            Block *b = &m.block[m.blocks++];
            *b = declare_block(t, x, g->width, j == 0 ? g->stride : 1, i + 1, j);
            x = b->conv2.y;
        }
    return x;
}

static void declare(void)
{
    Tensors *t = &s.net.tensors;
    const Dataset *d = &s.data;
    const int64_t n = s.batch;
    m.x = activation(t, SHAPE(n, d->h, d->w, d->c), "input.x");
    m.labels = workspace(t, SHAPE(n), sizeof(int32_t), "input.labels");
    m.last = declare_maps(t, &NET[config.net]);
    const int64_t c = m.last->shape[3];
    m.features = activation(t, SHAPE(n, c), "avgpool.y");
    m.fc_weight = parameter(t, SHAPE(d->classes, c), HEAD, UNIFORM, "fc.weight");
    m.fc_bias = parameter(t, SHAPE(d->classes), HEAD, uniform_fan_in((double)c), "fc.bias");
    m.logits = workspace(t, SHAPE(n, d->classes), sizeof(float), "fc.logits");
    m.dlogits = activation(t, SHAPE(n, d->classes), "loss.dlogits");
    m.dfeatures = activation(t, SHAPE(n, c), "avgpool.dy");
    const Shape largest = SHAPE(tensors_largest_activation(t));
    m.grad = activation(t, largest, "backward.grad");
    m.branch_grad = activation(t, largest, "backward.branch_grad");
    m.conv_grad = activation(t, largest, "backward.conv_grad");
    s.net.input = m.x;
    s.net.logits = m.logits;
    s.net.logit_scale = 1.0f;
    s.net.grad_scale = 1.0f / (float)s.options->batch_size; // sums over ranks are means
    snprintf(s.net.name, sizeof s.net.name, "cnn-%s width=%g", NET[config.net].name, config.width);
}

// ---- init ---------------------------------------------------------------------------------------

static void init(void)
{
    init_parameters(&s.net.tensors, k, (uint64_t)s.options->seed);
}

// ---- schedule -----------------------------------------------------------------------------------

static StepValues schedule(int64_t step)
{
    StepValues v = setup_step_values(&s, step);
    recipe_set_rates(&RECIPE, s.options, schedule_factor(s.options->schedule, step, s.steps), &v);
    return v;
}

// ---- forward ------------------------------------------------------------------------------------

typedef enum { TRAIN, INFER } Mode;

static Norm batch_norm(const Layer *l)
{
    return norm_of(&l->norm, NORM_EPS, NORM_MOMENTUM);
}

static ConvDims batch(const Layer *l)
{
    ConvDims d = l->dims;
    d.n = s.feed.n;
    return d;
}

static MapDims map_dims(const Tensor *y)
{
    return (MapDims){s.feed.n * y->shape[1] * y->shape[2], (int)y->shape[3]};
}

static int64_t elements(const Tensor *y)
{
    return s.feed.n * y->shape[1] * y->shape[2] * y->shape[3];
}

static PoolDims pool_dims(void)
{
    const int h = (int)m.last->shape[1], w = (int)m.last->shape[2];
    return (PoolDims){s.feed.n, h, w, (int)m.last->shape[3], h, w, 1};
}

static LinearDims fc_dims(void)
{
    return (LinearDims){s.feed.n, m.last->shape[3], s.data.classes};
}

static void layer_forward(const Layer *l, Mode mode)
{
    const Norm norm = batch_norm(l);
    k->conv2d_forward(l->conv->value, NULL, mode == TRAIN ? norm.stats : NULL, l->x->value,
                      l->weight->value, NULL, ACT_NONE, batch(l));
    if (mode == TRAIN)
        k->norm_act_forward(l->y->value, &norm, l->conv->value, l->act, map_dims(l->y));
    else
        k->norm_act_inference(l->y->value, &norm, l->conv->value, l->act, map_dims(l->y));
}

static void block_forward(const Block *b, Mode mode)
{
    const Tensor *y = b->conv2.y, *shortcut = b->conv1.x;
    layer_forward(&b->conv1, mode);
    layer_forward(&b->conv2, mode);
    if (b->downsample.weight) {
        layer_forward(&b->downsample, mode);
        shortcut = b->downsample.y;
    }
    k->add(y->value, y->value, shortcut->value, elements(y));
    k->activation_forward(y->value, y->value, ACT_RELU, elements(y));
}

static void forward(Mode mode)
{
    for (int i = 0; i < m.stem_layers; i++) layer_forward(&m.stem[i], mode);
    for (int i = 0; i < m.blocks; i++) block_forward(&m.block[i], mode);
    k->avgpool_forward(m.features->value, m.last->value, pool_dims());
    k->linear_forward_f32(m.logits->value, m.features->value, m.fc_weight->value, m.fc_bias->master,
                          fc_dims());
}

// Forward and loss of the loaded batch, as a step trains on it; sets the gradient of the logits.
static void loss(void)
{
    feed_gather(&s.feed, k, m.x, m.labels, s.augment);
    forward(TRAIN);
    cross_entropy(&s, k, m.logits, m.labels, m.dlogits, s.options->label_smoothing);
}

// ---- backward -----------------------------------------------------------------------------------

// dy: the gradient of the layer's output. Sets dx, that of its input, which may be dy, and the
// gradients of its parameters. After the last use of a weight its update may begin.
static void layer_backward(const Layer *l, const Tensor *dx, const Tensor *dy)
{
    const Norm norm = batch_norm(l);
    const MapDims map = map_dims(l->y);
    const Tensor *dz = m.conv_grad; // of the convolution's output
    k->norm_act_backward_sums(&norm, dy->value, l->conv->value, l->act, map);
    k->norm_act_backward(dz->value, &norm, dy->value, l->conv->value, l->act, SET, map);
    k->conv2d_backward_weight(l->weight->grad, dz->value, l->x->value, SET, batch(l));
    if (l->x == m.x) return; // nothing learns from the gradient of the pictures
    k->conv2d_backward_data(dx->value, dz->value, l->weight->value, batch(l));
    k->update_may_begin(l->weight->grad);
}

// Finds in m.grad the gradient of the block's output, and leaves that of its input there.
static void block_backward(const Block *b)
{
    const Tensor *y = b->conv2.y, *branch = m.branch_grad;
    k->activation_backward(m.grad->value, m.grad->value, y->value, ACT_RELU, elements(y));
    layer_backward(&b->conv2, branch, m.grad);
    layer_backward(&b->conv1, branch, branch);
    if (b->downsample.weight) layer_backward(&b->downsample, m.grad, m.grad);
    k->add(m.grad->value, m.grad->value, branch->value, elements(b->conv1.x));
}

static void backward(void)
{
    k->linear_backward_weight(m.fc_weight->grad, m.fc_bias->grad, m.dlogits->value,
                              m.features->value, SET, fc_dims());
    k->linear_backward_data(m.dfeatures->value, m.dlogits->value, m.fc_weight->value, NULL,
                            ACT_NONE, fc_dims());
    k->avgpool_backward(m.grad->value, m.dfeatures->value, pool_dims());
    for (int i = m.blocks - 1; i >= 0; i--) block_backward(&m.block[i]);
    for (int i = m.stem_layers - 1; i >= 0; i--) layer_backward(&m.stem[i], m.grad, m.grad);
}

static void gradient(void)
{
    loss();
    backward();
}

// ---- inference ----------------------------------------------------------------------------------

// Logits and loss of the loaded batch. `views` is ignored: this network sees one view of an image.
static void infer(Views views)
{
    (void)views;
    feed_gather(&s.feed, k, m.x, m.labels, (Augment){0});
    forward(INFER);
    cross_entropy(&s, k, m.logits, m.labels, NULL, 0);
}

// ---- train --------------------------------------------------------------------------------------

// One step on the loaded batch; returns its learning rate. A GPU records the operations in braces
// once: in later steps step_begin() returns false, and step_end() replays the recording with this
// step's `values`. Its first argument numbers the recording, for trainers that have several.
static double train_step(int64_t step)
{
    const StepValues values = schedule(step);
    if (k->step_begin(0, &values)) {
        gradient();
        recipe_update(&RECIPE, &s, k);
    }
    k->step_end();
    return (double)values.hyper[FILTERS];
}

// Returns how many steps are done. The loop ends early after Ctrl-C, and where the loss or a weight
// is not finite, which sets run->diverged. Each rank runs it with its share of every batch: the
// update sums the gradients of all ranks; log, test and save sum their losses.
static int64_t train(Run *run)
{
    int64_t step = run_begin(run); // 0, or that of the checkpoint to go on from
    // If Ctrl-C interrupted the test after this step, the continued run does it now.
    if (run_test_due(run, step)) run_log_test(run, step, evaluate(&s, infer, PLAIN));
    while (step < s.steps && !comm_stop_agreed(&s.comm)) { // Ctrl-C on any rank stops all ranks
        feed_next(&s.feed);
        const double lr = train_step(step);
        step++;
        if (!run_step_done(run, step, lr)) break; // logs the loss every few steps; it is not finite
        // Tests each epoch. Saves then, or every --save-every steps instead, and after the last.
        if (run_test_due(run, step)) run_log_test(run, step, evaluate(&s, infer, PLAIN));
        if (run_save_due(run, step) && !run_save(run, step)) break; // a value is not finite
    }
    return step;
}

// ---- main ---------------------------------------------------------------------------------------

// For the modes in place of training (train/modes.h) and for setup_plan(), which calls gradient,
// step and infer with operations that only add up the memory that they need.
static const Trainer trainer = {
    .name = "train_cnn",
    .usage = "Trains a convolutional network on pictures of 16x16 to 256x256.\n"
             "Usage: ./train_cnn [options]",
    .defaults = defaults,
    .embedded = {.h = 32, .w = 32, .c = 3, .train = 8000, .test = 2000},
    .init = init,
    .loss = loss,
    .gradient = gradient, // --selftest
    .step = train_step,   // --bench
    .infer = infer,       // --eval-only, --predict
    .train = train,       // --speedrun
};

int main(int argc, char **argv)
{
    static Run run;
    const char *names[NETS + 1] = {NULL};
    for (int i = 0; i < NETS; i++) names[i] = NET[i].name;
    const Arg own[] = {
        ARG_HEADING("Network"),
        ARG_CHOICE("net", &config.net, names, "by the number and size of the pictures"),
        ARG_DOUBLE("width", &config.width, 0.01, 64, "factor on the channels"),
    };
    setup_open(&s, &trainer, own, sizeof own / sizeof *own, argc, argv);
    setup_check_size(&s, 16, 256);
    declare();
    setup_plan(&s, &k);
    init();
    setup_weights(&s);

    int status;
    if (!other_mode(&s, &status)) { // --selftest, --eval-only, --predict, --bench, --speedrun
        run_open(&run, &s, RUN_TRAINING);
        const int64_t done = train(&run);
        if (run.diverged.step > 0) {
            // Find where it began: go back to the last checkpoint, or the start, and repeat the
            // steps bit for bit, checking every tensor after each, without a test or a save.
            run_begin_search(&run);
            train(&run);
            run_end_diverged(&run); // names step and tensor; exits with status 6
        }
        if (done < s.steps)
            status = run_stopped(&run, done); // saves a checkpoint for --resume; 128 + the signal
        else
            status = run_finish(&run, evaluate(&s, infer, VIEWS)); // writes the model
        run_close(&run);
    }
    setup_close(&s);
    return status;
}
