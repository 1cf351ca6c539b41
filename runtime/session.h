// A training session: everything around a model that both trainers share. Options, data and device
// are opened, the model's arenas are allocated from a planned step, batches reach the device, the
// loss is logged, the network is evaluated, and the results are written.
//
//     session_open(&s, &program, own, own_count, argc, argv);
//     ... declare the model's tensors in s.tensors ...
//     session_plan(&s, &k, gradient, train_step, infer, &model); // arenas now exist
//     ... initialise ...
//     session_begin(&s);
//     while (session_next(&s)) {                            // the next batch is on the device
//         const StepValues v = ...;
//         if (k->step_begin(0, &v)) train_step(&model);
//         k->step_end();
//         session_step_done(&s, v.hyper[1]);
//         if (session_epoch_done(&s)) session_test(&s, infer, &model);
//     }
//     return session_end(&s, infer_final, &model);
//
// User and machine errors end the program with one line and the documented status.
#ifndef RUNTIME_SESSION_H
#define RUNTIME_SESSION_H

#include "data/dataset.h"
#include "data/loader.h"
#include "runtime/comm.h"
#include "runtime/device_data.h"
#include "runtime/options.h"
#include "runtime/profile.h"
#include "runtime/run_dir.h"
#include "runtime/tensor.h"

typedef struct Program {
    const char *name; // "train_cnn"
    const char *usage;
    void (*defaults)(CommandLine *line); // fills in what the user did not give
    int h, w, c;                         // of the embedded set
    int64_t n_train, n_test;
} Program;

// The current batch on the device.
typedef struct Feed {
    const DeviceData *set; // the split whose rows `ids` are; NULL: images and labels are those here
    Tensor *images;        // (batch,H,W,C) uint8
    Tensor *labels;        // (batch) int32
    Tensor *ids;           // (batch) uint32, global sample indices
    int64_t n;             // images in it now
} Feed;

typedef struct Evaluation {
    double loss, accuracy; // means over the test images
} Evaluation;

typedef struct Report Report;
typedef struct Predictor Predictor;

typedef struct Session {
    const Program *program;
    CommandLine line;
    Options *options; // of `line`
    Comm comm;     // the processes that train this model; rank 0 alone has a run and writes files
    int64_t batch; // images of a step on this device: --batch-size over the ranks
    Dataset data;
    Augment augment;
    const Kernels *kernels;
    char note[256];        // why the device is not the one hoped for
    int failed_operations; // of --selftest with another --dtype than fp32, which is checked first
    Tensors tensors;
    unsigned trained_groups; // bit set: of the optimizer's groups, those that this step trains
    Feed feed;
    DeviceData sets[2]; // the splits that the device reads where they stay
    Tensor *metrics;    // (METRICS) loss and correct count of this rank since they were last read
    Tensor *grad_norm;  // (1) of --clip-norm
    Plan plan;          // of a training step's forward and backward
    int operations;     // of a whole step
    char network[128];  // what it is, for the banner and the model file
    // For the report, set by the trainer where it declares them; NULL: not shown.
    const Tensor *input;  // (batch,h,w,c)
    const Tensor *logits; // (batch,classes) of `infer`, fp32; the network's are `logit_scale` times
    float logit_scale;
    Report *report;        // runtime/report.h; NULL: none
    Predictor *predictor;  // runtime/predict.h; NULL: none
    ProfileReport profile; // of --profile, after the last step

    int64_t steps, steps_per_epoch;
    int64_t step; // that session_next() has loaded the batch of
    double epochs;

    Loader *loader;
    Batch first;             // of the loader, read when it is opened; n is 0 once it was used
    RunDir *run;             // of rank 0
    int stop;                // the signal by which all ranks stop, or 0
    float *ema, *ema_backup; // parameter arenas of --ema
    void (*infer)(void *model);
    void *model;
    Evaluation last;
    Progress progress;
    int64_t first_step;   // of this process
    bool evaluated;       // after `step`
    double best_accuracy; // of best.safetensors; -1: none yet
    int64_t best_step;
    Snapshot snapshot;  // what the last checkpoint holds, or the start
    int64_t saved_step; // of the snapshot; -1: the start
    int64_t search_end; // while the steps up to here run again: runtime/diverged.h
    int64_t images_since_log;
    double started, log_time, train_seconds, first_step_seconds;
    double wait_at_log;                    // loader_wait_seconds() at log_time
    double start_seconds;                  // until the first step began
    double resumed_seconds;                // of train_seconds, before this process
    double evaluate_seconds, save_seconds; // of this process
} Session;

typedef void (*ModelFunction)(void *model);

// The learning-rate slot that session_ema() uses; trainers use 1 .. EMA_SLOT - 1.
enum { EMA_SLOT = HYPER_SLOTS - 1 };

void session_open(Session *s, const Program *p, const Arg *own, size_t own_count, int argc,
                  char **argv);

// Runs the functions once with *k set to the planning table, then allocates the arenas and sets *k
// to the device's. They must be callable with tensors whose pointers are NULL. `gradient` is
// forward and backward, `step` the same with the update.
void session_plan(Session *s, const Kernels **k, ModelFunction gradient, ModelFunction step,
                  ModelFunction infer, void *model);

// The current batch as the network's input: x (n,h,w,c) element and labels (n).
void feed_gather(const Feed *f, const Kernels *k, const Dataset *d, const Tensor *x,
                 const Tensor *labels, Augment augment);

// Brings a batch of the split to the device; one with images may be of another.
void feed_load(Session *s, Split split, const Batch *b);

// Loads a fixed batch of the first `n` training images, without a run: for --selftest.
void session_load_fixed(Session *s, int64_t n);

// Weights from --init, or everything from the checkpoint of --resume, if given.
void session_load_init(Session *s);

// Prints the banner, creates the run's directory and starts the loader.
void session_begin(Session *s);

// Saves a checkpoint if one is due, then loads the next batch. False after the last step, or when a
// signal asked to stop.
bool session_next(Session *s);

// The seed, step, epoch and moving-average decay of this step; the trainer adds its rates.
StepValues session_values(const Session *s);

// Call inside the step, after the update: the moving average of --ema, if asked for.
void session_ema(const Session *s, const Kernels *k);

// Logs the loss every few steps, with `lr` as the learning rate in force. A loss that is not finite
// ends the program with STATUS_DIVERGED, after the search for where that began.
void session_step_done(Session *s, double lr);
bool session_epoch_done(const Session *s); // also after the last step

// Runs `infer` over the test split: it reads the feed, computes the logits and calls
// softmax_cross_entropy with the session's metrics. NAN if a signal asks to stop meanwhile.
// session_test() also logs the result and keeps the best weights so far.
Evaluation session_evaluate(Session *s, ModelFunction infer, void *model);
void session_test(Session *s, ModelFunction infer, void *model);

// The final evaluation, model file and summary; returns the exit status.
int session_end(Session *s, ModelFunction infer, void *model);

// --eval-only: prints the accuracy and returns the exit status.
int session_eval_only(Session *s, ModelFunction infer, void *model);

void session_close(Session *s);

// For runtime/report.c: what summary.json would hold now, as a finished object; epochs done.
int session_summary(const Session *s, Json *j, Error *e);
double session_epoch(const Session *s);
// The metrics of all ranks together.
void session_metrics(const Session *s, double m[static METRICS]);

// For runtime/resume.c and runtime/diverged.c: the weights with their metadata as a file, and the
// loader at the batch of step s->step + 1.
int session_save_model(Session *s, const char *path, Error *e);
void session_open_loader(Session *s);

#endif
