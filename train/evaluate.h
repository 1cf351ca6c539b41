// An evaluation over the test images. With --ema the moving average stands in the place of the
// weights meanwhile.
#ifndef TRAIN_EVALUATE_H
#define TRAIN_EVALUATE_H

#include "train/setup.h"

// Calls infer(views) for each batch of this rank's test images, which adds to the network's metrics
// and leaves its logits. Returns the means over all ranks' images; not complete if a signal came to
// any rank.
Evaluation evaluate(Setup *s, Infer *infer, Views views);

#endif
