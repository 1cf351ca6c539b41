// What a program has open before its first step: options, data, device, the other processes, and
// the memory of its network.
//
//     setup_open(&s, &trainer, own, own_count, argc, argv);
//     ... declare the network's tensors in s.net.tensors ...
//     setup_plan(&s, &k);                                     // arenas now exist
//     trainer.init();
//     setup_weights(&s);
//
// User and machine errors end the program with one line and the documented status.
#ifndef TRAIN_SETUP_H
#define TRAIN_SETUP_H

#include "data/dataset.h"
#include "data/decode/picture_list.h"
#include "base/comm.h"
#include "train/feed.h"
#include "train/network.h"
#include "train/options.h"
#include "train/predictions.h"

typedef struct Run Run; // train/run_state.h

// How an evaluation looks at an image: as it is, or in the views that the trainer averages for its
// final result.
typedef enum { PLAIN, VIEWS } Views;

typedef struct Evaluation {
    double loss, accuracy; // means over the test images; NAN if it is not complete, and accuracy
                           // where the network knows no classes
    bool complete;         // else a signal came meanwhile
    double seconds;        // that it took
} Evaluation;

typedef void Infer(Views views);

// The table that a trainer gives to the rest of its program: its name, its embedded set, and
// functions about the one network it has. A mode ends the program if a function it needs is NULL.
typedef struct Trainer {
    const char *name; // "train_cnn"
    const char *usage;
    void (*defaults)(CommandLine *line); // fills in what was not given, once the data are open
    struct {
        int h, w, c;
        int64_t train, test; // images
    } embedded;              // the set without --data

    void (*init)(void);           // initial weights from the seed
    void (*loss)(void);           // the loss of the loaded batch, as a training step has it
    void (*gradient)(void);       // that and the backward pass
    double (*step)(int64_t step); // a training step; returns its learning rate
    Infer *infer;                 // logits and loss of the loaded batch
    int64_t (*train)(Run *run);   // the loop; returns the steps that are done
} Trainer;

typedef struct Setup {
    const Trainer *trainer;
    CommandLine line;
    Options *options; // of `line`
    double started;   // os_seconds() of main()
    Comm comm;        // the processes that train this network; rank 0 alone writes files
    Dataset data;
    Augment augment;
    const Kernels *kernels;
    char note[256];        // why the device is not the one hoped for
    int failed_operations; // of --selftest with another --dtype than fp32, which is checked first
    int64_t batch;         // images of a step on this device: --batch-size over the ranks
    int64_t steps, steps_per_epoch; // a partial last batch of an epoch is dropped
    double epochs;
    Network net;
    Feed feed;
    Predictions *predictions; // of the last evaluation; NULL: nobody asks for them
    NamedPictures pictures;   // of --predict
} Setup;

void setup_open(Setup *s, const Trainer *t, const Arg *own, size_t own_count, int argc,
                char **argv);

// Runs the trainer's functions, perhaps several times, with *k set to a table that only records, so
// that they must be callable with tensors whose pointers are NULL. Then allocates the arenas and
// sets *k to the device's table.
void setup_plan(Setup *s, const Kernels **k);

// Smaller batches than --batch-size whose steps it plans, too, for --bench.
enum { BENCH_BATCHES = 3 };
extern const int64_t bench_batches[BENCH_BATCHES];

// Loads the weights of --init, if given, and starts the average of --ema at the weights.
void setup_weights(Setup *s);

// Ends the program unless the pictures are of a size that the network takes.
void setup_check_size(const Setup *s, int least, int most);

void setup_close(Setup *s);

// Adds the loss of the loaded batch and its right answers to the network's metrics, and sets the
// gradient of its logits: of their sum times s->net.grad_scale. `k` is the table that the trainer
// calls. logits (n,classes) fp32, labels (n), dlogits (n,classes); dlogits NULL: no gradient.
void cross_entropy(const Setup *s, const Kernels *k, const Tensor *logits, const Tensor *labels,
                   const Tensor *dlogits, double smoothing);

// The same of the mean squared error of y (n,...) fp32 to a target with as many values an image. A
// network that has this loss alone leaves s->net.logits NULL: it has no accuracy.
void mean_squared_error(const Setup *s, const Kernels *k, const Tensor *y, const Tensor *target,
                        const Tensor *dy);

// The seed, step, epoch and moving-average decay of a step; the trainer adds its rates.
StepValues setup_step_values(const Setup *s, int64_t step);

double epochs_done(const Setup *s, int64_t steps); // passes over the training images
bool epoch_ends(const Setup *s, int64_t steps);    // after so many steps; also after the last

#endif
