// train_airbench: the network of the CIFAR-10 speedrun and its recipe, trained from plain C.
//
//   ./train_airbench --data data/cifar10                         8 epochs
//   ./train_airbench --data data/cifar10 --speedrun --seeds 20   mean accuracy, sigma and time
//
// Both are "version B" of airbench94_muon (Keller Jordan, github.com/KellerJordan/cifar10-airbench,
// arXiv 2404.00498): whitened 2x2 patches, three blocks of two convolutions, Muon for the filters,
// six views. Its author reports 94% on the original files. Operations are fused where they can be.
//
// The file reads top to bottom: config, tensors, init, schedule, forward, backward, inference,
// train, main. To change it, edit and run `make train_airbench && ./train_airbench --selftest`.

#include <math.h>
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

static struct {
    double width; // factor on the channels
    int64_t tta;  // test-time augmentation: 0 none, 1 mirror, 2 mirror and shifts
} config;

// The rates are for the sum of 2000 images' losses, whatever the batch size, but those of adamw,
// which are for the mean.
enum { FILTERS = 1, NORM_BIASES, WHITENING_BIAS, HEAD }; // groups; slots of their rates
static const double SUMMED_IMAGES = 2000;
static const Recipe RECIPE = {
    .group =
        {
            [FILTERS] = {.sgd = 7.5e-4, .adamw = 2e-3, .muon = 0.24, .adamw_decays = true},
            [NORM_BIASES] = {.sgd = 0.053, .adamw = 2e-3, .sgd_decays = true},
            [WHITENING_BIAS] = {.sgd = 0.053, .adamw = 2e-3, .sgd_decays = true},
            [HEAD] = {.sgd = 0.67, .adamw = 2e-3, .sgd_decays = true, .adamw_decays = true},
        },
    .muon = {.momentum = 0.6f, .iterations = 3, .renormalize = true, MUON_POLYNOMIAL},
};
static const double WHITENING_EPS = 5e-4, WHITENING_EPOCHS = 3;          // in which its bias trains
static const int64_t WHITENING_IMAGES = 5000, WHITENING_DRAWINGS = 1000; // of the embedded set
static const float NORM_MOMENTUM = 0.4f;
// With the recipe's 1e-12 a channel that is nearly constant over a batch, as on MNIST's black
// borders, has slopes of 1e6, which finite differences cannot follow: --selftest uses its own, and
// so do pictures of one colour, where all channels are constant.
static const float NORM_EPS = 1e-12f, LARGE_NORM_EPS = 0.1f;

static void defaults(CommandLine *line)
{
    Options *o = &line->options;
    DEFAULT(line, config.width, o->data ? 1.0 : 0.25);
    DEFAULT(line, config.tta, 2);
    DEFAULT(line, o->epochs, o->data ? 8 : 4);
    DEFAULT(line, o->batch_size, o->data ? 2000 : 250);
    DEFAULT(line, o->optimizer, OPTIMIZER_MUON);
    DEFAULT(line, o->schedule, SCHEDULE_LINEAR);
    DEFAULT(line, o->momentum, o->optimizer == OPTIMIZER_ADAMW ? 0.9 : 0.85);
    DEFAULT(line, o->weight_decay, o->optimizer == OPTIMIZER_ADAMW ? 0.01 : 4e-3);
    DEFAULT(line, o->label_smoothing, 0.2);
}

// ---- tensors ------------------------------------------------------------------------------------

// conv1, 2x2 max-pool, norm, GELU, conv2, norm, GELU: (h,w,cin) -> (h/2,w/2,cout)
typedef struct Block {
    ConvDims dims1, dims2; // of conv1 and conv2; batch() fills in n
    Tensor *conv1, *conv2; // weights
    NormTensors norm1, norm2;
    Tensor *pool, *argmax, *act1, *conv, *act2; // (n,h/2,w/2,cout)
} Block;

typedef struct Model {
    Tensor *x, *labels;                 // input (n,h,w,c) and its labels (n)
    ConvDims whiten_dims;               // of the convolution with
    Tensor *whiten, *whiten_bias;       // these weights
    Tensor *whiten_z, *whiten_act;      // (n,h-1,w-1,2*4*c) before and after GELU
    Block block1, block2, block3;       // each reads what the one before it made
    Tensor *features, *features_argmax; // (n,cout): the maxima of the last map
    Tensor *head;                       // weight
    Tensor *logits, *view_logits;       // (n,classes) fp32
    Tensor *dlogits;                    // (n,classes)
    Tensor *grad, *spare; // the gradient flowing back, and where the next layer writes it
    float norm_eps;
    bool train_whitening;
} Model;
static Model m = {.train_whitening = true};

static int channels(double full) // multiples of 8
{
    const int c = (int)(full * config.width / 8 + 0.5) * 8;
    return c < 8 ? 8 : c;
}

static Block declare_block(Tensors *t, int number, int64_t n, int h, int w, int cin, int cout)
{
    Block b = {.dims1 = {0, h, w, cin, cout, 3, 1, 1},
               .dims2 = {0, h / 2, w / 2, cout, cout, 3, 1, 1}};
    const Shape map = SHAPE(n, h / 2, w / 2, cout);
    b.conv1 = parameter(t, SHAPE(cout, 3, 3, cin), FILTERS, DIRAC, "block%d.conv1.weight", number);
    b.norm1 = bias_norm_tensors(t, cout, NORM_BIASES, "block%d.norm1", number);
    b.conv2 = parameter(t, SHAPE(cout, 3, 3, cout), FILTERS, DIRAC, "block%d.conv2.weight", number);
    b.norm2 = bias_norm_tensors(t, cout, NORM_BIASES, "block%d.norm2", number);
    b.pool = activation(t, map, "block%d.conv1.pooled", number);
    b.argmax = workspace(t, map, sizeof(uint8_t), "block%d.conv1.argmax", number);
    b.act1 = activation(t, map, "block%d.norm1.act", number);
    b.conv = activation(t, map, "block%d.conv2.out", number);
    b.act2 = activation(t, map, "block%d.norm2.act", number);
    return b;
}

static void declare(void)
{
    Tensors *t = &s.net.tensors;
    const Dataset *d = &s.data;
    const int64_t n = s.batch;
    m.x = activation(t, SHAPE(n, d->h, d->w, d->c), "input.x");
    m.labels = workspace(t, SHAPE(n), sizeof(int32_t), "input.labels");
    const int h = d->h - 1, w = d->w - 1, c = 2 * 4 * d->c;
    m.whiten_dims = (ConvDims){n, d->h, d->w, d->c, c, 2, 1, 0};
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
    m.logits = workspace(t, SHAPE(n, d->classes), sizeof(float), "head.logits");
    m.view_logits = workspace(t, SHAPE(n, d->classes), sizeof(float), "head.view_logits");
    m.dlogits = activation(t, SHAPE(n, d->classes), "loss.dlogits");
    const int64_t largest = tensors_largest_activation(t);
    m.grad = activation(t, SHAPE(largest), "backward.grad");
    m.spare = activation(t, SHAPE(largest), "backward.spare");
    const bool flat =
        fminf(d->std[0], fminf(d->std[1], d->std[2])) == 1; // of what varies below 0.5
    m.norm_eps = s.options->selftest || flat ? LARGE_NORM_EPS : NORM_EPS;
    const double images = s.options->optimizer == OPTIMIZER_ADAMW ? 1 : SUMMED_IMAGES;
    s.net.input = m.x;
    s.net.logits = m.view_logits;
    s.net.logit_scale = 1.0f / sqrtf(256.0f * (float)c3); // the recipe's 1/256 at full width
    s.net.grad_scale = (float)(images / (double)s.options->batch_size);
    snprintf(s.net.name, sizeof s.net.name, "cnn-airbench width=%g", config.width);
}

// ---- init ---------------------------------------------------------------------------------------

// The whitening filters come from the data, or with --init from there.
static void init(void)
{
    Error e;
    init_parameters(&s.net.tensors, k, (uint64_t)s.options->seed);
    if (s.options->init) return;
    const int64_t images = s.data.embedded ? WHITENING_DRAWINGS : WHITENING_IMAGES;
    check(init_whitening(m.whiten, k, &s.data, images, WHITENING_EPS, &e), &e);
    init_unit_std(m.head, k);
}

// ---- schedule -----------------------------------------------------------------------------------

static StepValues schedule(int64_t step)
{
    StepValues v = setup_step_values(&s, step);
    const Schedule shape = (Schedule)s.options->schedule;
    recipe_set_rates(&RECIPE, s.options, schedule_factor(shape, step, s.steps), &v);
    const int64_t epochs = (int64_t)(WHITENING_EPOCHS * (double)s.steps_per_epoch);
    const int64_t n = epochs < s.steps ? epochs : s.steps; // steps in which its bias trains
    m.train_whitening = step < n;
    s.net.trained_groups = ALL_GROUPS;
    if (m.train_whitening)
        v.hyper[WHITENING_BIAS] = (float)(recipe_rate(&RECIPE, s.options, WHITENING_BIAS) *
                                          schedule_factor(shape, step, n));
    else
        s.net.trained_groups &= ~(1u << WHITENING_BIAS);
    return v;
}

// ---- forward ------------------------------------------------------------------------------------

typedef enum { TRAIN, INFER } Mode;

static Norm batch_norm(const NormTensors *norm)
{
    return norm_of(norm, m.norm_eps, NORM_MOMENTUM);
}

// With the loaded batch's size.
static ConvDims batch(ConvDims d)
{
    d.n = s.feed.n;
    return d;
}

static MapDims map_dims(const Block *b)
{
    return (MapDims){s.feed.n * b->dims2.h * b->dims2.w, b->dims2.cout};
}

static PoolDims features_dims(const Block *b)
{
    return (PoolDims){s.feed.n, b->dims2.h, b->dims2.w, b->dims2.cout, b->dims2.h, b->dims2.w, 1};
}

static LinearDims head_dims(void)
{
    return (LinearDims){s.feed.n, fan_in(m.head), s.data.classes};
}

static void block_forward(const Block *b, const Tensor *x, Mode mode)
{
    const Norm norm1 = batch_norm(&b->norm1), norm2 = batch_norm(&b->norm2);
    if (mode == INFER) {
        k->conv2d_pool_norm_inference(b->act1->value, &norm1, x->value, b->conv1->value, ACT_GELU,
                                      batch(b->dims1));
        k->conv2d_norm_inference(b->act2->value, &norm2, b->act1->value, b->conv2->value, ACT_GELU,
                                 batch(b->dims2));
        return;
    }
    // conv1 stores only the pooled map
    k->conv2d_pool_forward(b->pool->value, b->argmax->value, norm1.stats, x->value, b->conv1->value,
                           NULL, ACT_NONE, batch(b->dims1));
    k->norm_act_forward(b->act1->value, &norm1, b->pool->value, ACT_GELU, map_dims(b));
    k->conv2d_forward(b->conv->value, NULL, norm2.stats, b->act1->value, b->conv2->value, NULL,
                      ACT_NONE, batch(b->dims2));
    k->norm_act_forward(b->act2->value, &norm2, b->conv->value, ACT_GELU, map_dims(b));
}

static void forward(Mode mode)
{
    k->conv2d_forward(m.whiten_act->value, m.whiten_z->value, NULL, m.x->value, m.whiten->value,
                      m.whiten_bias->master, ACT_GELU, batch(m.whiten_dims));
    block_forward(&m.block1, m.whiten_act, mode);
    block_forward(&m.block2, m.block1.act2, mode);
    block_forward(&m.block3, m.block2.act2, mode);
    k->maxpool_forward(m.features->value, m.features_argmax->value, m.block3.act2->value,
                       features_dims(&m.block3));
    k->linear_forward_f32(m.logits->value, m.features->value, m.head->value, NULL, head_dims());
}

// Forward and loss of the loaded batch, as a step trains on it; sets the gradient of the logits.
static void loss(void)
{
    feed_gather(&s.feed, k, m.x, m.labels, s.augment);
    forward(TRAIN);
    cross_entropy(&s, k, m.logits, m.labels, m.dlogits, s.options->label_smoothing);
}

// ---- backward -----------------------------------------------------------------------------------

// Each layer finds the gradient of its output in m.grad and leaves that of its input there, what
// cannot be done in place by way of m.spare.
static void swap_gradients(void)
{
    Tensor *const written = m.spare;
    m.spare = m.grad;
    m.grad = written;
}

// Finds the sums of norm2 set and in m.grad the gradient of the block's output, or with ACT_NONE
// that of norm2's. Leaves that of conv1's pooled map.
static void block_backward(const Block *b, Activation act, const Tensor *x)
{
    const Norm norm1 = batch_norm(&b->norm1), norm2 = batch_norm(&b->norm2);
    const MapDims map = map_dims(b);
    k->norm_act_backward(m.grad->value, &norm2, m.grad->value, b->conv->value, act, SET, map);
    k->conv2d_backward_weight(b->conv2->grad, m.grad->value, b->act1->value, SET, batch(b->dims2));
    k->conv2d_norm_backward_data(m.spare->value, &norm1, m.grad->value, b->conv2->value,
                                 b->pool->value, ACT_GELU, batch(b->dims2));
    k->update_may_begin(b->conv2->grad);
    swap_gradients();
    k->norm_act_backward(m.grad->value, &norm1, m.grad->value, b->pool->value, ACT_NONE, SET, map);
    k->conv2d_pool_backward_weight(b->conv1->grad, m.grad->value, b->argmax->value, x->value, SET,
                                   batch(b->dims1));
}

// From conv1 of `b` into `before`, the block that made its input: what block_backward() finds.
static void between_blocks_backward(const Block *b, const Block *before)
{
    const Norm norm2 = batch_norm(&before->norm2);
    k->conv2d_pool_norm_backward_data(m.spare->value, &norm2, m.grad->value, b->argmax->value,
                                      b->conv1->value, before->conv->value, ACT_GELU,
                                      batch(b->dims1));
    k->update_may_begin(b->conv1->grad);
    swap_gradients();
}

static void whitening_backward(const Block *b)
{
    const ConvDims d = batch(m.whiten_dims);
    const MapDims map = {d.n * (d.h - 1) * (d.w - 1), d.cout};
    k->conv2d_pool_backward_data(m.spare->value, m.grad->value, b->argmax->value, b->conv1->value,
                                 batch(b->dims1));
    k->update_may_begin(b->conv1->grad);
    swap_gradients();
    k->bias_act_backward(NULL, m.whiten_bias->grad, m.grad->value, m.whiten_z->value, ACT_GELU, SET,
                         map);
}

static void backward(void)
{
    const LinearDims d = head_dims();
    k->linear_backward_weight(m.head->grad, NULL, m.dlogits->value, m.features->value, SET, d);
    k->linear_backward_data(m.grad->value, m.dlogits->value, m.head->value, NULL, ACT_NONE, d);
    k->maxpool_backward(m.spare->value, m.grad->value, m.features_argmax->value,
                        features_dims(&m.block3));
    swap_gradients();
    const Norm last = batch_norm(&m.block3.norm2);
    const MapDims map = map_dims(&m.block3);
    k->norm_act_backward_sums(&last, m.grad->value, m.block3.conv->value, ACT_GELU, map);
    block_backward(&m.block3, ACT_GELU, m.block2.act2);
    between_blocks_backward(&m.block3, &m.block2);
    block_backward(&m.block2, ACT_NONE, m.block1.act2);
    between_blocks_backward(&m.block2, &m.block1);
    block_backward(&m.block1, ACT_NONE, m.whiten_act);
    if (m.train_whitening) whitening_backward(&m.block1);
}

static void gradient(void)
{
    loss();
    backward();
}

// ---- inference ----------------------------------------------------------------------------------

// view_logits += weight * logits of the batch moved by (shift,shift) and mirrored or not
static void add_view(float weight, int shift, bool mirror)
{
    const Augment view = {.dy = shift, .dx = shift, .mirror = mirror};
    feed_gather(&s.feed, k, m.x, m.labels, view);
    forward(INFER);
    k->axpy(m.view_logits->value, weight, HYPER_ONE, m.logits->value, s.feed.n * s.data.classes);
}

// Logits and loss of the loaded batch, of VIEWS by --tta.
static void infer(Views views)
{
    const int64_t tta = views == VIEWS ? config.tta : 0;
    const int sides = tta > 0 && s.augment.flip != FLIP_NONE ? 2 : 1;
    const float share = 1.0f / (float)sides;
    k->zero(m.view_logits->value, (size_t)(s.feed.n * s.data.classes) * sizeof(float));
    for (int side = 0; side < sides; side++) {
        add_view(share * (tta > 1 ? 0.5f : 1.0f), 0, side == 1);
        if (tta < 2) continue;
        add_view(share * 0.25f, -1, side == 1);
        add_view(share * 0.25f, 1, side == 1);
    }
    cross_entropy(&s, k, m.view_logits, m.labels, NULL, 0);
}

// ---- train --------------------------------------------------------------------------------------

// One step on the loaded batch; returns its learning rate. A GPU records the operations in braces
// once: in later steps step_begin() returns false, and step_end() replays the recording with this
// step's `values`. Its first argument numbers the recording, for trainers that have several.
static double train_step(int64_t step)
{
    const StepValues values = schedule(step);
    if (k->step_begin(m.train_whitening, &values)) {
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
    .name = "train_airbench",
    .usage = "Trains the network of the CIFAR-10 speedrun.\nUsage: ./train_airbench [options]",
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
    const Arg own[] = {
        ARG_HEADING("Network"),
        ARG_DOUBLE("width", &config.width, 0.01, 64, "factor on the channels"),
        ARG_INT("tta", &config.tta, 0, 2, "test-time views: 1 mirror, if trained; 2 and shifts"),
    };
    setup_open(&s, &trainer, own, sizeof own / sizeof *own, argc, argv);
    setup_check_size(&s, 16, 96);
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
