// The options all trainers share. A trainer adds its own and fills in defaults that depend on the
// network and the data.
#ifndef TRAIN_OPTIONS_H
#define TRAIN_OPTIONS_H

#include "kernels/kernels.h"
#include "base/args.h"
#include "train/checkpoint.h"
#include "train/model_info.h"

typedef enum { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_TRIANGLE, SCHEDULE_COSINE } Schedule;
typedef enum { OPTIMIZER_SGD, OPTIMIZER_ADAMW, OPTIMIZER_MUON } Optimizer;

typedef enum { BN_SYNC, BN_LOCAL } BatchNorm;

typedef struct Options {
    const char *data; // directory; NULL: the embedded set
    bool verify;
    const char *device;
    int dtype; // index into dtype_names
    int64_t threads;
    bool graph;    // device CUDA: replay captured steps
    bool resident; // read images where they stay: on the device or in the data set's cache
    double epochs;
    int64_t steps; // 0: by epochs
    int64_t batch_size;
    double lr;
    int schedule, optimizer;
    int bn; // with several processes: over the batch of all, or of each
    double momentum, weight_decay, clip_norm;
    bool ema;
    double label_smoothing;
    const char *augment;
    bool shuffle;
    int64_t seed;
    const char *out, *init, *resume;
    int64_t save_every, keep; // checkpoints
    bool eval_only;
    bool predict, json; // `pictures`
    ArgList pictures;
    double target_accuracy;
    bool selftest, profile, report, bench, quick, quiet;
    bool speedrun;
    int64_t seeds; // of --speedrun
} Options;

extern const char *const dtype_names[];

// A program's whole command line: its own options, then the shared ones.
enum { ARGS_MAX = 64 };
typedef struct CommandLine {
    int rank;            // of several processes: rank 0 alone takes the lock of --resume
    const char *trainer; // the program's name
    Options options;     // set to the program's defaults before options_parse()
    Arg table[ARGS_MAX];
    size_t count, own_count; // all, and the program's own, which come first
    ModelInfo model;         // of --init, read for --eval-only and --predict
    Checkpoint checkpoint;   // of --resume, opened; the options' strings point into it
    int lock;                // of that run, held since before it was opened; 0: none
    bool help;               // options_help() is all that is asked for
} CommandLine;

// Reads the arguments. With --resume the run's own options come first; with --eval-only and
// --predict those of the network, which --init FILE names, where no others were given. Exits with
// STATUS_USAGE, or with STATUS_DATA if the run cannot be continued or the weights are another
// trainer's. With --help nothing of this can fail.
void options_parse(CommandLine *line, const Arg *own, size_t own_count, int argc, char **argv);

// For the trainer's defaults, which follow once the data are open: sets an option that was not
// given.
#define DEFAULT(line, variable, value)                                                             \
    do {                                                                                           \
        if (!options_given((line), &(variable))) (variable) = (value);                             \
    } while (0)
bool options_given(const CommandLine *line, const void *value);

// Prints all options with their values and exits.
_Noreturn void options_help(const CommandLine *line, const char *usage);

// CRC-32 of the options that all processes of a run have alike: not of paths, threads and the like.
uint32_t options_checksum(const CommandLine *line);

// Adds the options that make the network what it is in an evaluation, as a finished object.
int options_network_json(const CommandLine *line, Json *j, Error *e);

// "none", or a list such as "flip=alternate,translate=2,cutout=8,brightness=0.1,contrast=0.1".
// "auto" is translate=2 with flip=alternate for colour pictures.
int options_augment(Augment *a, const char *text, int channels, Error *e);

const char *optimizer_name(const Options *o);

// What the optimizers' operations take, from --momentum.
Sgd options_sgd(const Options *o);
AdamW options_adamw(const Options *o);

// The decay coefficient of a group with learning rate `lr`. AdamW's step takes lr * decay of a
// weight; SGD adds decay * w to the gradient, so --weight-decay is divided by the rate to mean the
// same share of the weight in every group.
float options_decay(const Options *o, double lr);

// The factor on the learning rate at `step` of `steps`, the last one's from then on: constant 1;
// linear 1 to 0; triangle 0.2 to 1 over the first 23%, then to 0.07; half a cosine from 1 to 0.
double schedule_factor(Schedule schedule, int64_t step, int64_t steps);

#endif
