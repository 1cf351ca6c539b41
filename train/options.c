#include "train/options.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/os.h"

const char *const dtype_names[] = {"auto", "fp32", "tf32", "bf16", NULL};
static const char *const schedule_names[] = {"constant", "linear", "triangle", "cosine", NULL};
static const char *const optimizer_names[] = {"sgd", "adamw", "muon", NULL};

static const char *const bn_names[] = {"sync", "local", NULL};

static void add_args(CommandLine *line, const Arg *args, size_t count)
{
    assert(line->count + count <= ARGS_MAX);
    memcpy(line->table + line->count, args, count * sizeof *args);
    line->count += count;
}

static void add_shared(CommandLine *line)
{
    Options *o = &line->options;
    o->keep = 2;
    o->seeds = 3;
    const Arg shared[] = {
        ARG_HEADING("Data and device"),
        ARG_STRING("data", &o->data, "DIR",
                   "shards made by data/prepare; without it: embedded set"),
        ARG_FLAG("verify", &o->verify, "check every block of the shards first"),
        ARG_STRING("device", &o->device, "NAME", "auto, cpu, cuda or cuda:N"),
        ARG_CHOICE("dtype", &o->dtype, dtype_names, "of activations and working weights"),
        ARG_INT("threads", &o->threads, 0, 1024, "CPU threads; 0: all; never changes a result"),
        ARG_ONOFF("graph", &o->graph, "cuda: replay a step as one graph"),
        ARG_ONOFF("resident", &o->resident,
                  "read images in place, on the GPU if half its memory suffices"),
        ARG_HEADING("Training"),
        ARG_DOUBLE("epochs", &o->epochs, 0.001, 1e6, "passes over the training images"),
        ARG_INT("steps", &o->steps, 0, 1e9, "optimizer steps instead; 0: by epochs"),
        ARG_INT("batch-size", &o->batch_size, 1, 1 << 20, "images a step"),
        ARG_DOUBLE("lr", &o->lr, 0, 1e6, "factor on every learning rate"),
        ARG_CHOICE("schedule", &o->schedule, schedule_names, "of the learning rate"),
        ARG_CHOICE("optimizer", &o->optimizer, optimizer_names, "muon: matrices; the rest by sgd"),
        ARG_DOUBLE("momentum", &o->momentum, 0, 0.9999, "of sgd, and beta1 of adamw"),
        ARG_DOUBLE("weight-decay", &o->weight_decay, 0, 10,
                   "adamw: times the rate; sgd: share of a weight a step takes"),
        ARG_DOUBLE("clip-norm", &o->clip_norm, 0, 1e9,
                   "largest norm of the mean loss's gradient; 0: any"),
        ARG_CHOICE("bn", &o->bn, bn_names, "several processes: batch norm over all or each"),
        ARG_ONOFF("ema", &o->ema, "evaluate a moving average of the weights"),
        ARG_DOUBLE("label-smoothing", &o->label_smoothing, 0, 0.99, "share of the target spread"),
        ARG_STRING("augment", &o->augment, "SPEC",
                   "auto, none, or such as flip=alternate,translate=2"),
        ARG_ONOFF("shuffle", &o->shuffle, "a new order each epoch"),
        ARG_INT("seed", &o->seed, 0, INT64_MAX, "of every random decision"),
        ARG_HEADING("Run"),
        ARG_STRING("out", &o->out, "DIR", "run directory; default runs/<time>-<trainer>"),
        ARG_INT("save-every", &o->save_every, 0, 1e9, "steps between checkpoints; 0: each epoch"),
        ARG_INT("keep", &o->keep, 2, 1e6, "newest checkpoints to keep"),
        ARG_STRING("resume", &o->resume, "DIR", "continue the run in DIR with its own options"),
        ARG_STRING("init", &o->init, "FILE", "start from these weights (safetensors)"),
        ARG_FLAG("eval-only", &o->eval_only, "test the weights of --init and leave"),
        ARG_FLAG("predict", &o->predict,
                 "classify PICTURE... (files, folders, -) with the weights of --init"),
        ARG_REST("PICTURE...", &o->pictures, NULL),
        ARG_FLAG("json", &o->json, "with --predict: a JSON object for each picture"),
        ARG_DOUBLE("target-accuracy", &o->target_accuracy, 0, 1, "exit status 1 below it"),
        ARG_FLAG("selftest", &o->selftest, "check kernels and every gradient of the network"),
        ARG_FLAG("profile", &o->profile,
                 "print the time of each operation and layer of a step at the end"),
        ARG_ONOFF("report", &o->report, "write report.html in the run directory"),
        ARG_FLAG("bench", &o->bench, "measure machine, device and steps; docs/timing.md"),
        ARG_FLAG("speedrun", &o->speedrun, "train from several seeds; mean, sigma and time"),
        ARG_INT("seeds", &o->seeds, 1, 1000, "of --speedrun: --seed and those after it"),
        ARG_FLAG("quick", &o->quick, "with --bench: in under two minutes"),
        ARG_FLAG("quiet", &o->quiet, "print the result and where the weights are, no more"),
    };
    add_args(line, shared, sizeof shared / sizeof *shared);
}

static bool given(const CommandLine *line, const char *name)
{
    for (size_t i = 0; i < line->count; i++)
        if (strcmp(line->table[i].name, name) == 0) return line->table[i].given;
    return false;
}

bool options_given(const CommandLine *line, const void *value)
{
    return args_given(line->table, line->count, value);
}

static bool is_one_of(const char *name, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(name, *list) == 0) return true;
    return false;
}

uint32_t options_checksum(const CommandLine *line)
{
    static const char *const each_has[] = {"data", "verify", "device", "threads", "resident", "out",
                                           "init", "resume", "report", "quiet",   NULL};
    Error e;
    Json j = {0};
    json_object(&j, NULL);
    for (size_t i = 0; i < line->count; i++)
        if (!is_one_of(line->table[i].name, each_has)) args_json(&line->table[i], 1, &j);
    json_end(&j);
    check(json_finish(&j, &e), &e);
    const uint32_t checksum = (uint32_t)crc32(0, (const Bytef *)j.text, (uInt)j.size);
    json_free(&j);
    return checksum;
}

static ArgResume resume_kind(const char *name)
{
    static const char *const aside[] = {"verify",  "out",      "init",     "resume", "eval-only",
                                        "predict", "json",     "selftest", "bench",  "quick",
                                        "quiet",   "speedrun", "seeds",    NULL};
    // The data set is compared by what it holds; threads and devices change no result by much.
    static const char *const free_options[] = {
        "data",       "device", "threads",         "graph",  "resident", "profile",
        "save-every", "keep",   "target-accuracy", "report", NULL};
    if (is_one_of(name, aside)) return ARG_ASIDE;
    return is_one_of(name, free_options) ? ARG_FREE : ARG_FIXED;
}

// Under the run's lock: a run that is alive would move its checkpoints away meanwhile.
static int open_checkpoint(CommandLine *line, Error *e)
{
    char path[PATH_MAX];
    const char *dir = line->options.resume;
    const int length = snprintf(path, sizeof path, "%s/.lock", dir);
    const bool has_lock = length < PATH_MAX && os_exists(path);
    if (line->rank == 0 && has_lock && os_lock(&line->lock, dir, e)) return e->status;
    return checkpoint_open(&line->checkpoint, dir, e);
}

static void restore(CommandLine *line)
{
    Error e;
    char trainer[TRAINER_MAX];
    const Options *o = &line->options;
    check(open_checkpoint(line, &e), &e);
    const JsonNode *options = json_get(line->checkpoint.record.root, "options"),
                   *by = json_get(line->checkpoint.record.root, "trainer");
    if (!options) die(STATUS_DATA, "%s has no options", line->checkpoint.path);
    const char *begun_by = by && by->type == JSON_STRING ? by->string : NULL;
    if (!begun_by) die(STATUS_DATA, "%s has no trainer", line->checkpoint.path);
    check(trainer_of_today(trainer, begun_by, options, o->resume, &e), &e);
    if (strcmp(trainer, line->trainer) != 0)
        die(STATUS_DATA, "the run in %s was begun by %s, not by %s: ./%s --resume %s", o->resume,
            trainer, line->trainer, trainer, o->resume);
    check(args_restore(line->table, line->count, options, resume_kind, o->resume, &e), &e);
}

// ---- the network of --init ----------------------------------------------------------------------

static ArgResume unless_given(const char *name)
{
    (void)name;
    return ARG_FREE;
}

// Besides the program's own options, whether training mirrors decides the views of an evaluation.
static Arg *augment_option(CommandLine *line)
{
    Arg *a = line->table;
    while (a->value != &line->options.augment) a++;
    return a;
}

int options_network_json(const CommandLine *line, Json *j, Error *e)
{
    json_object(j, NULL);
    args_json(line->table, line->own_count, j);
    json_string(j, "augment", line->options.augment);
    json_end(j);
    return json_finish(j, e);
}

static void restore_network(CommandLine *line)
{
    Error e;
    const char *path = line->options.init;
    ModelInfo *m = &line->model;
    check(model_info_read(m, path, &e), &e);
    if (m->trainer[0] && strcmp(m->trainer, line->trainer) != 0)
        die(STATUS_DATA, "%s is a network of %s; give it to ./%s", path, m->trainer, m->trainer);
    if (!line->options.eval_only && !line->options.predict) { // a start from weights takes no more
        model_info_free(m);
        return;
    }
    if (m->options.root) {
        Arg *augment = augment_option(line);
        const JsonNode *root = m->options.root;
        check(args_restore(line->table, line->own_count, root, unless_given, path, &e), &e);
        check(args_restore(augment, 1, root, unless_given, path, &e), &e);
    }
    if (line->options.predict && !line->options.data && !m->described)
        die(STATUS_USAGE,
            "%s does not say its classes and input: add --data DIR, the data set that it was "
            "trained on, or the metadata that docs/predict.md lists",
            path);
}

// ---- all together -------------------------------------------------------------------------------

// What a program does in place of training from the start, and options that have no meaning there.
static void check_modes(const CommandLine *line)
{
    static const struct Mode {
        const char *name, *does, *without[9];
    } modes[] = {
        {"speedrun",
         "trains from the start alone",
         {"resume", "init", "bench", "selftest", "profile"}},
        {"resume",
         "continues a run in its directory",
         {"out", "init", "eval-only", "predict", "selftest", "bench"}},
        {"predict",
         "classifies pictures alone",
         {"eval-only", "selftest", "bench", "profile", "out", "target-accuracy"}},
        {"bench", "measures alone", {"eval-only", "selftest", "profile"}},
        {"eval-only", "tests given weights alone", {"selftest", "profile", "out"}},
        {"selftest", "checks alone", {"profile", "out", "target-accuracy"}},
    };
    for (const struct Mode *m = modes; m < modes + sizeof modes / sizeof *modes; m++)
        for (const char *const *other = m->without; given(line, m->name) && *other; other++)
            if (given(line, *other))
                die(STATUS_USAGE, "--%s %s; leave out --%s", m->name, m->does, *other);
}

static void check_predict(const Options *o)
{
    if (o->pictures.count && !o->predict)
        die(STATUS_USAGE, "unexpected argument %s; --help lists all options", o->pictures.item[0]);
    if (o->json && !o->predict) die(STATUS_USAGE, "--json is how --predict answers; add that");
    if (!o->predict) return;
    if (!o->init) die(STATUS_USAGE, "--predict takes given weights; add --init FILE.safetensors");
    if (!o->pictures.count)
        die(STATUS_USAGE, "--predict needs pictures: files, folders, or - for standard input");
}

static void check_speedrun(const CommandLine *line)
{
    const Options *o = &line->options;
    if (!o->speedrun && options_given(line, &o->seeds))
        die(STATUS_USAGE, "--seeds is how often --speedrun trains; add that");
    if (!o->speedrun) return;
    if (o->seed > INT64_MAX - o->seeds)
        die(STATUS_USAGE, "--seed %lld leaves no room for --seeds %lld", (long long)o->seed,
            (long long)o->seeds);
}

static void check_together(const CommandLine *line)
{
    const Options *o = &line->options;
    check_modes(line);
    if (o->steps > 0 && options_given(line, &o->epochs))
        die(STATUS_USAGE, "--steps and --epochs both set the length; give one of them");
    if (o->quick && !o->bench) die(STATUS_USAGE, "--quick shortens --bench; add that");
    if (o->eval_only && !o->init)
        die(STATUS_USAGE, "--eval-only tests given weights; add --init FILE.safetensors");
    if (o->verify && !o->data && !o->resume)
        die(STATUS_USAGE, "--verify checks shards; add --data DIR");
    if (o->report && given(line, "report") &&
        (o->selftest || o->bench || o->eval_only || o->predict || o->speedrun))
        die(STATUS_USAGE, "--report is for training alone; leave it out");
    check_predict(o);
    check_speedrun(line);
}

void options_parse(CommandLine *line, const Arg *own, size_t own_count, int argc, char **argv)
{
    Error e;
    line->help = args_help_asked(argc, argv);
    line->options.graph = line->options.resident = line->options.report = true;
    add_args(line, own, own_count);
    line->own_count = own_count;
    add_shared(line);
    const int status = args_parse(line->table, line->count, argc, argv, &e);
    if (line->help) return;
    check(status, &e);
    check_together(line);
    if (line->options.resume) restore(line);
    if (line->options.init && !line->options.resume) restore_network(line);
}

_Noreturn void options_help(const CommandLine *line, const char *usage)
{
    args_help(line->table, line->count, stdout, usage);
    exit(STATUS_OK);
}

// Reads "NAME=NUMBER" of an augmentation; the number must be within 0 .. max.
static int augment_number(double *number, const char *item, double max, Error *e)
{
    if (args_decimal(strchr(item, '=') + 1, 0, max, number)) return STATUS_OK;
    return fail(e, STATUS_USAGE, "--augment %s: expected a number from 0 to %g", item, max);
}

static int augment_whole(int *whole, const char *item, double max, Error *e)
{
    double number;
    if (augment_number(&number, item, max, e)) return e->status;
    if (number != floor(number))
        return fail(e, STATUS_USAGE, "--augment %s: expected a whole number", item);
    *whole = (int)number;
    return STATUS_OK;
}

static int augment_real(float *real, const char *item, double max, Error *e)
{
    double number;
    if (augment_number(&number, item, max, e)) return e->status;
    *real = (float)number;
    return STATUS_OK;
}

static int augment_item(Augment *a, const char *item, Error *e)
{
    if (strcmp(item, "flip=alternate") == 0)
        a->flip = FLIP_ALTERNATE;
    else if (strcmp(item, "flip=random") == 0)
        a->flip = FLIP_RANDOM;
    else if (strcmp(item, "flip=none") == 0)
        a->flip = FLIP_NONE;
    else if (strncmp(item, "translate=", 10) == 0)
        return augment_whole(&a->translate, item, 8, e);
    else if (strncmp(item, "cutout=", 7) == 0)
        return augment_whole(&a->cutout, item, 96, e);
    else if (strncmp(item, "brightness=", 11) == 0)
        return augment_real(&a->brightness, item, 1, e);
    else if (strncmp(item, "contrast=", 9) == 0)
        return augment_real(&a->contrast, item, 1, e);
    else
        return fail(
            e, STATUS_USAGE,
            "--augment: '%s' is not known; use none, auto, or a list of flip=alternate|random, "
            "translate=N, cutout=N, brightness=F, contrast=F",
            item);
    return STATUS_OK;
}

int options_augment(Augment *a, const char *text, int channels, Error *e)
{
    *a = (Augment){0};
    if (strcmp(text, "none") == 0) return STATUS_OK;
    if (strcmp(text, "auto") == 0) {
        *a = (Augment){.flip = channels == 3 ? FLIP_ALTERNATE : FLIP_NONE, .translate = 2};
        return STATUS_OK;
    }
    char copy[256];
    if (strlen(text) >= sizeof copy)
        return fail(e, STATUS_USAGE, "--augment: longer than %zu characters", sizeof copy - 1);
    strcpy(copy, text);
    char *rest = copy;
    for (char *item = strsep(&rest, ","); item; item = strsep(&rest, ","))
        if (augment_item(a, item, e)) return e->status;
    return STATUS_OK;
}

const char *optimizer_name(const Options *o)
{
    return optimizer_names[o->optimizer];
}

Sgd options_sgd(const Options *o)
{
    return (Sgd){.momentum = (float)o->momentum, .nesterov = true};
}

AdamW options_adamw(const Options *o)
{
    return (AdamW){.beta1 = (float)o->momentum, .beta2 = 0.999f, .eps = 1e-8f};
}

float options_decay(const Options *o, double lr)
{
    if (o->optimizer == OPTIMIZER_ADAMW) return (float)o->weight_decay;
    return lr > 0 ? (float)(o->weight_decay / lr) : 0.0f;
}

double schedule_factor(Schedule schedule, int64_t step, int64_t steps)
{
    const double t = fmin((double)step / (double)steps, 1.0);
    const double warm = 0.23, first = 0.2, last = 0.07; // of the triangle
    switch (schedule) {
    case SCHEDULE_LINEAR:
        return 1.0 - t;
    case SCHEDULE_COSINE:
        return 0.5 * (1.0 + cos(3.14159265358979323846 * t));
    case SCHEDULE_TRIANGLE:
        return t < warm ? first + (1.0 - first) * t / warm
                        : 1.0 + (last - 1.0) * (t - warm) / (1.0 - warm);
    case SCHEDULE_CONSTANT:
        break;
    }
    return 1.0;
}
