// An evaluation over the test images, whose loop is the trainer's:
//     TestPass t = test_begin(&s);
//     while (test_next(&t)) infer(views);  // adds to the network's metrics, leaves its logits
//     return test_end(&t);
// With --ema the moving average stands in the place of the weights between begin and end.
#ifndef RUNTIME_EVALUATE_H
#define RUNTIME_EVALUATE_H

#include "runtime/setup.h"

typedef struct TestPass {
    Setup *s;
    Loader *loader;
    int64_t batches;       // loaded so far
    float before[METRICS]; // the metrics of training steps that are not logged yet
    double sums[METRICS];
    double began;
} TestPass;

TestPass test_begin(Setup *s);

// Brings the next batch of this rank's images to the device. False after the last one, or when a
// signal asks to stop.
bool test_next(TestPass *t);

// The means over all ranks' images; not complete if a signal came to any rank.
Evaluation test_end(TestPass *t);

#endif
