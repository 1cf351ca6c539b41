// A trainer's network for the rest of the program: its tensors and name, its input, answers and
// loss.
#ifndef TRAIN_NETWORK_H
#define TRAIN_NETWORK_H

#include "base/comm.h"
#include "train/tensor.h"

typedef struct Network {
    char name[128]; // what it is, for the banner and the model file
    Tensors tensors;
    const Tensor *input;  // (batch,h,w,c), for the report; NULL: not shown
    const Tensor *logits; // (batch,classes) of an inference, fp32; NULL: it knows no classes
    float logit_scale;    // the network's logits are so many times these
    float grad_scale;     // the gradients are of so many times the sum of the images' losses

    Tensor *metrics;   // (METRICS) loss and correct count of this rank since they were last read
    Tensor *grad_norm; // (1) of --clip-norm
    unsigned trained_groups; // bit set: the optimizer's groups that this step trains
    bool average;            // --ema
    float *ema, *ema_backup; // parameter arenas of --ema; NULL: none
    Plan plan;               // of a training step's forward and backward
    int operations;          // of a whole step
} Network;

// The learning-rate slot that network_update_average() uses; trainers use 1 .. EMA_SLOT - 1.
enum { EMA_SLOT = HYPER_SLOTS - 1 };

void network_declare(Network *n); // metrics and grad_norm

// The moving average of --ema, without which these do nothing. It starts as the weights;
// update_average() belongs in a step, after the optimizer. use_average() puts it in the place of
// the weights, use_weights() takes that back.
void network_start_average(const Network *n, const Kernels *k);
void network_update_average(const Network *n, const Kernels *k);
void network_use_average(const Network *n, const Kernels *k);
void network_use_weights(const Network *n, const Kernels *k);

// The metrics of all ranks together.
void network_metrics(const Network *n, const Kernels *k, const Comm *c, double m[static METRICS]);

// The share of right answers among so many images; NAN where the network knows no classes.
double network_accuracy(const Network *n, double correct, double images);

// Bytes of all arenas, averages included.
double network_bytes(const Network *n, const Kernels *k);

#endif
