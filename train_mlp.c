// train_mlp: a multilayer perceptron for small pictures, trained from plain C.
//
//   ./train_mlp                                embedded drawings, 28x28 grey
//   ./train_mlp --data data/mnist --epochs 5   MNIST: above 98%
//
// Linear layers with ReLU between them (--hidden 512,512), softmax cross-entropy, AdamW.
//
// The file reads top to bottom: config, tensors, schedule, forward, backward, update, evaluate,
// main. To change the network edit it and run `make train_mlp && ./train_mlp --selftest`.

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
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

enum { LAYERS_MAX = 16, WIDTH_MAX = 65536 };

typedef struct Config {
    const char *hidden; // as given: "512,512"
    int hidden_layers;
    int64_t widths[LAYERS_MAX]; // of the hidden layers
} Config;
static Config config = {.hidden = "512,512"};

// Optimizer groups; also the slots of their learning rates in a step's values.
enum { WEIGHTS = 1, HEAD, BIASES, GROUPS };

static const double ADAMW_LR = 1e-3, SGD_LR = 0.05, MUON_LR = 0.01;
static const Muon MUON = {
    .momentum = 0.95f,
    .iterations = 5,
    .a = 3.4445f,
    .b = -4.775f,
    .c = 2.0315f,
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
    DEFAULT(line, o->augment, "none");
}

static const Program program = {
    .name = "train_mlp",
    .usage = "Trains a multilayer perceptron on small pictures.\n"
             "Usage: ./train_mlp [options]",
    .defaults = defaults,
    .h = 28,
    .w = 28,
    .c = 1,
    .n_train = 20000,
    .n_test = 2000, // embedded set
};

// "512,256" -> widths; "none": a linear classifier.
static void parse_hidden(void)
{
    const char *p = config.hidden;
    if (strcmp(p, "none") == 0) return;
    while (*p) {
        char *end;
        errno = 0;
        const long width = strtol(p, &end, 10);
        if (*p < '0' || *p > '9' || errno || width < 1 || width > WIDTH_MAX ||
            (*end != '\0' && (*end != ',' || end[1] == '\0')) ||
            config.hidden_layers == LAYERS_MAX - 1)
            die(STATUS_USAGE,
                "--hidden '%s': expected up to %d widths from 1 to %d such as 512,512, or none",
                config.hidden, LAYERS_MAX - 1, WIDTH_MAX);
        config.widths[config.hidden_layers++] = width;
        p = *end ? end + 1 : end;
    }
}

// ---- tensors ------------------------------------------------------------------------------------

typedef struct Layer {
    int64_t in, out;
    Tensor *weight, *bias; // (out,in), (out)
    Tensor *act;           // (n,out) after ReLU; the last layer has logits instead
} Layer;

typedef struct Model {
    Session *s;
    Tensor *x, *labels; // input (n,h,w,c), read as (n,h*w*c), and its labels (n)
    Layer layer[LAYERS_MAX];
    int layers;
    Tensor *logits, *dlogits; // (n,classes); logits fp32
    Tensor *da, *db;          // gradients flowing back: each layer reads one and writes the other
    float decay[GROUPS];
} Model;

static void declare(Model *m, Session *s)
{
    Tensors *t = &s->tensors;
    const Dataset *d = &s->data;
    const int64_t batch = s->batch;
    m->s = s;
    m->x = activation(t, SHAPE(batch, d->h, d->w, d->c), "input.x");
    m->labels = workspace(t, SHAPE(batch), sizeof(int32_t), "input.labels");
    m->layers = config.hidden_layers + 1;
    int64_t in = (int64_t)d->h * d->w * d->c, largest = 1;
    for (int i = 0; i < m->layers; i++) {
        const bool last = i == m->layers - 1;
        Layer *l = &m->layer[i];
        *l = (Layer){.in = in, .out = last ? d->classes : config.widths[i]};
        // The first layer's inputs are a map, which PyTorch flattens channels first.
        const Shape shape = i == 0 ? SHAPE(l->out, d->h, d->w, d->c) : SHAPE(l->out, in);
        l->weight = parameter(t, shape, last ? HEAD : WEIGHTS, UNIFORM, "layers.%d.weight", i);
        l->weight->flatten = true;
        l->bias =
            parameter(t, SHAPE(l->out), BIASES, uniform_fan_in((double)in), "layers.%d.bias", i);
        if (!last) l->act = activation(t, SHAPE(batch, l->out), "layers.%d.act", i);
        if (!last && l->out > largest) largest = l->out;
        in = l->out;
    }
    m->logits =
        workspace(t, SHAPE(batch, d->classes), sizeof(float), "layers.%d.logits", m->layers - 1);
    m->dlogits = activation(t, SHAPE(batch, d->classes), "loss.dlogits");
    m->da = activation(t, SHAPE(batch, largest), "backward.da");
    m->db = activation(t, SHAPE(batch, largest), "backward.db");
    s->input = m->x;
    s->logits = m->logits;
    s->logit_scale = 1.0f;
    snprintf(s->network, sizeof s->network, "mlp hidden=%s", config.hidden);
}

// ---- init ---------------------------------------------------------------------------------------

static void init(void *model)
{
    const Model *m = model;
    init_parameters(&m->s->tensors, k, (uint64_t)m->s->options->seed);
}

// ---- schedule -----------------------------------------------------------------------------------

static double base_lr(const Options *o, int group)
{
    if (o->optimizer == OPTIMIZER_ADAMW) return o->lr * ADAMW_LR;
    if (o->optimizer == OPTIMIZER_MUON && group == WEIGHTS) return o->lr * MUON_LR;
    return o->lr * SGD_LR;
}

static StepValues schedule(const Session *s)
{
    StepValues v = session_values(s);
    const double factor = schedule_factor(s->options->schedule, s->step, s->steps);
    for (int g = WEIGHTS; g < GROUPS; g++) v.hyper[g] = (float)(base_lr(s->options, g) * factor);
    return v;
}

// ---- forward ------------------------------------------------------------------------------------

static LinearDims layer_dims(const Layer *l, int64_t n)
{
    return (LinearDims){n, l->in, l->out};
}

static void forward(Model *m, int64_t n)
{
    const Tensor *x = m->x;
    for (int i = 0; i < m->layers - 1; i++) {
        const Layer *l = &m->layer[i];
        k->linear_forward(l->act->value, NULL, x->value, l->weight->value, l->bias->master,
                          ACT_RELU, layer_dims(l, n));
        x = l->act;
    }
    const Layer *head = &m->layer[m->layers - 1];
    k->linear_forward_f32(m->logits->value, x->value, head->weight->value, head->bias->master,
                          layer_dims(head, n));
}

// The gradient too unless dlogits is NULL.
static void loss(const Model *m, const Tensor *dlogits, float smoothing, int64_t n)
{
    const float mean = 1.0f / (float)m->s->options->batch_size;
    const LossDims d = {n, m->s->data.classes, smoothing, 1.0f, mean};
    k->softmax_cross_entropy(m->s->metrics->value, dlogits ? dlogits->value : NULL,
                             m->logits->value, m->labels->value, d);
}

// ---- backward -----------------------------------------------------------------------------------

static void backward(Model *m, int64_t n)
{
    const Tensor *dy = m->dlogits;
    for (int i = m->layers - 1; i >= 0; i--) {
        const Layer *l = &m->layer[i];
        const Tensor *x = i > 0 ? m->layer[i - 1].act : m->x;
        k->linear_backward_weight(l->weight->grad, l->bias->grad, dy->value, x->value, SET,
                                  layer_dims(l, n));
        if (i == 0) break;
        const Tensor *dx = dy == m->da ? m->db : m->da;
        k->linear_backward_data(dx->value, dy->value, l->weight->value, x->value, ACT_RELU,
                                layer_dims(l, n));
        k->update_may_begin(l->weight->grad);
        dy = dx;
    }
}

// ---- update -------------------------------------------------------------------------------------

static void update(const Model *m)
{
    const Options *o = m->s->options;
    const Tensors *t = &m->s->tensors;
    const unsigned matrices = 1u << WEIGHTS;
    Param all[TENSORS_MAX], hidden[TENSORS_MAX];
    int n = tensors_params(t, ALL_GROUPS, m->decay, all);
    if (o->clip_norm > 0) k->clip_gradients(m->s->grad_norm->value, all, n, (float)o->clip_norm);
    switch ((Optimizer)o->optimizer) {
    case OPTIMIZER_SGD:
        k->sgd_update(all, n, options_sgd(o));
        break;
    case OPTIMIZER_ADAMW:
        k->adamw_update(all, n, options_adamw(o));
        break;
    case OPTIMIZER_MUON:
        k->muon_update(hidden, tensors_params(t, matrices, NULL, hidden), MUON);
        n = tensors_params(t, ALL_GROUPS & ~matrices, m->decay, all);
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
    forward(m, m->s->feed.n);
    loss(m, m->dlogits, (float)m->s->options->label_smoothing, m->s->feed.n);
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
    const Model *m = model;
    const StepValues values = schedule(m->s);
    if (k->step_begin(0, &values)) train_step(model);
    k->step_end();
    return (double)values.hyper[WEIGHTS];
}

// ---- evaluate -----------------------------------------------------------------------------------

static void infer(void *model)
{
    Model *m = model;
    feed_gather(&m->s->feed, k, &m->s->data, m->x, m->labels, (Augment){0});
    forward(m, m->s->feed.n);
    loss(m, NULL, 0.0f, m->s->feed.n);
}

// ---- main ---------------------------------------------------------------------------------------

int main(int argc, char **argv)
{
    static Session s = {.line.options = {.device = "auto", .lr = 1, .shuffle = true, .seed = 1}};
    const Arg own[] = {
        ARG_HEADING("Network"),
        ARG_STRING("hidden", &config.hidden, "N,N", "widths of the hidden layers, or none"),
    };
    static Model m;
    session_open(&s, &program, own, sizeof own / sizeof *own, argc, argv);
    parse_hidden();
    declare(&m, &s);
    for (int g = WEIGHTS; g < BIASES; g++) // biases do not decay
        m.decay[g] = options_decay(s.options, base_lr(s.options, g));
    session_plan(&s, &k, gradient, train_step, infer, &m);
    init(&m);
    session_load_init(&s);

    int status;
    if (s.options->selftest) {
        status = selftest(&s, forward_loss, gradient, &m, 1.0 / (double)s.options->batch_size);
    } else if (s.options->eval_only) {
        status = session_eval_only(&s, infer, &m);
    } else if (s.options->predict) {
        status = predict(&s, infer, &m);
    } else if (s.options->bench) {
        status = timing_report(&s, run_step, &m);
    } else if (s.options->speedrun) {
        status = speedrun(&s, init, run_step, infer, &m);
    } else {
        session_begin(&s);
        while (session_next(&s)) {
            session_step_done(&s, run_step(&m));
            if (session_epoch_done(&s)) session_test(&s, infer, &m);
        }
        status = session_end(&s, infer, &m);
    }
    session_close(&s);
    return status;
}
