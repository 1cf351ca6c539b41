// train_mlp: a multilayer perceptron for small pictures, trained from plain C.
//
//   ./train_mlp                                embedded drawings, 28x28 grey
//   ./train_mlp --data data/mnist --epochs 5   MNIST: above 98%
//
// Linear layers with ReLU between them (--hidden 512,512), softmax cross-entropy, AdamW.
//
// The file reads top to bottom: config, tensors, init, schedule, forward, backward, inference,
// train, main. To change the network edit it and run `make train_mlp && ./train_mlp --selftest`.

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
    .line.options = {.device = "auto", .lr = 1, .augment = "none", .shuffle = true, .seed = 1}};

// ---- config -------------------------------------------------------------------------------------

enum { LAYERS_MAX = 16, WIDTH_MAX = 65536 };

static const char *hidden = "512,512"; // widths of the hidden layers

enum { WEIGHTS = 1, HEAD, BIASES }; // groups of parameters, and their rates in StepValues.hyper
static const Recipe RECIPE = {
    .group =
        {
            [WEIGHTS] = {.sgd = 0.05,
                         .adamw = 1e-3,
                         .muon = 0.01,
                         .sgd_decays = true,
                         .adamw_decays = true},
            [HEAD] = {.sgd = 0.05, .adamw = 1e-3, .sgd_decays = true, .adamw_decays = true},
            [BIASES] = {.sgd = 0.05, .adamw = 1e-3},
        },
    .muon = {.momentum = 0.95f, .iterations = 5, MUON_POLYNOMIAL},
};

static void defaults(CommandLine *line)
{
    Options *o = &line->options;
    DEFAULT(line, o->epochs, o->data ? 5 : 10);
    DEFAULT(line, o->batch_size, 128);
    DEFAULT(line, o->optimizer, OPTIMIZER_ADAMW);
    DEFAULT(line, o->schedule, SCHEDULE_LINEAR);
    DEFAULT(line, o->momentum, 0.9);
    DEFAULT(line, o->weight_decay, o->optimizer == OPTIMIZER_ADAMW ? 0.01 : 0);
}

// ---- tensors ------------------------------------------------------------------------------------

typedef struct Layer {
    int64_t in, out;
    Tensor *weight; // (out,in); of the first layer (out,h,w,c)
    Tensor *bias;   // (out)
    Tensor *act;    // (n,out) after ReLU; the last layer has logits instead
} Layer;

typedef struct Model {
    Tensor *x, *labels; // input (n,h,w,c), read as (n,h*w*c), and its labels (n)
    Layer layer[LAYERS_MAX];
    int layers;
    Tensor *logits, *dlogits; // (n,classes); logits fp32
    Tensor *dact[2];          // (n,widest) gradients of activations; layers alternate
} Model;
static Model m;

static void declare(void)
{
    Tensors *t = &s.net.tensors;
    const Dataset *d = &s.data;
    m.x = activation(t, SHAPE(s.batch, d->h, d->w, d->c), "input.x");
    m.labels = workspace(t, SHAPE(s.batch), sizeof(int32_t), "input.labels");
    int64_t widths[LAYERS_MAX];
    m.layers = args_numbers("hidden", hidden, 1, WIDTH_MAX, widths, LAYERS_MAX - 1) + 1;
    widths[m.layers - 1] = d->classes;
    int64_t in = (int64_t)d->h * d->w * d->c, largest = 1;
    for (int i = 0; i < m.layers; i++) {
        const bool last = i == m.layers - 1;
        Layer *l = &m.layer[i];
        *l = (Layer){.in = in, .out = widths[i]};
        // The first layer reads images (h,w,c); saved files have PyTorch's (c,h,w).
        const Shape shape = i == 0 ? SHAPE(l->out, d->h, d->w, d->c) : SHAPE(l->out, in);
        l->weight = parameter(t, shape, last ? HEAD : WEIGHTS, UNIFORM, "layers.%d.weight", i);
        l->weight->flatten = true;
        l->bias =
            parameter(t, SHAPE(l->out), BIASES, uniform_fan_in((double)in), "layers.%d.bias", i);
        if (!last) l->act = activation(t, SHAPE(s.batch, l->out), "layers.%d.act", i);
        if (!last && l->out > largest) largest = l->out;
        in = l->out;
    }
    m.logits =
        workspace(t, SHAPE(s.batch, d->classes), sizeof(float), "layers.%d.logits", m.layers - 1);
    m.dlogits = activation(t, SHAPE(s.batch, d->classes), "loss.dlogits");
    for (int i = 0; i < 2; i++)
        m.dact[i] = activation(t, SHAPE(s.batch, largest), "backward.dact%d", i);
    s.net.input = m.x;
    s.net.logits = m.logits;
    s.net.logit_scale = 1.0f;
    s.net.grad_scale = 1.0f / (float)s.options->batch_size; // sums over ranks are means
    snprintf(s.net.name, sizeof s.net.name, "mlp hidden=%s", hidden);
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

static LinearDims layer_dims(const Layer *l)
{
    return (LinearDims){s.feed.n, l->in, l->out};
}

static void forward(void)
{
    const Tensor *x = m.x;
    for (int i = 0; i < m.layers - 1; i++) {
        const Layer *l = &m.layer[i];
        k->linear_forward(l->act->value, NULL, x->value, l->weight->value, l->bias->master,
                          ACT_RELU, layer_dims(l));
        x = l->act;
    }
    const Layer *head = &m.layer[m.layers - 1];
    k->linear_forward_f32(m.logits->value, x->value, head->weight->value, head->bias->master,
                          layer_dims(head));
}

// Forward and loss of the loaded batch, as a step trains on it; sets the gradient of the logits.
static void loss(void)
{
    feed_gather(&s.feed, k, m.x, m.labels, s.augment);
    forward();
    cross_entropy(&s, k, m.logits, m.labels, m.dlogits, s.options->label_smoothing);
}

// ---- backward -----------------------------------------------------------------------------------

static void backward(void)
{
    const Tensor *dy = m.dlogits;
    for (int i = m.layers - 1; i >= 0; i--) {
        const Layer *l = &m.layer[i];
        const Tensor *x = i > 0 ? m.layer[i - 1].act : m.x;
        k->linear_backward_weight(l->weight->grad, l->bias->grad, dy->value, x->value, SET,
                                  layer_dims(l));
        if (i == 0) break;
        const Tensor *dx = m.dact[i % 2];
        k->linear_backward_data(dx->value, dy->value, l->weight->value, x->value, ACT_RELU,
                                layer_dims(l));
        k->update_may_begin(l->weight->grad); // nothing below reads this weight
        dy = dx;
    }
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
    forward();
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
    return (double)values.hyper[WEIGHTS];
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
    .name = "train_mlp",
    .usage = "Trains a multilayer perceptron on small pictures.\n"
             "Usage: ./train_mlp [options]",
    .defaults = defaults,
    .embedded = {.h = 28, .w = 28, .c = 1, .train = 20000, .test = 2000},
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
        ARG_STRING("hidden", &hidden, "N,N", "widths of the hidden layers, or none"),
    };
    setup_open(&s, &trainer, own, sizeof own / sizeof *own, argc, argv);
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
