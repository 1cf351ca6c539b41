// What an evaluation predicted for each test image.
#ifndef TRAIN_PREDICTIONS_H
#define TRAIN_PREDICTIONS_H

#include <stdint.h>

#include "data/dataset.h"
#include "base/error.h"

typedef struct Predictions {
    int64_t n, done; // test images; of which predicted
    int classes;
    uint16_t *label, *predicted; // (n) in stored order, as those below
    float *probability;          // of the predicted class
    float *loss;                 // -log of the label's probability
    float *logits;               // (batch,classes) room for those of a batch
    double seconds;              // spent on copying logits and on predictions
} Predictions;

// Reads the labels of the test split. What fails leaves nothing to close.
int predictions_open(Predictions *p, const Dataset *d, int64_t batch, Error *e);
void predictions_close(Predictions *p);

// The next images in stored order from their logits (count,classes), each times `scale`.
void predictions_add(Predictions *p, const float *logits, int64_t count, float scale);

// Sets `worst` to the wrong predictions of highest loss, worst first; returns how many, at most
// `most`.
int predictions_worst(const Predictions *p, uint32_t *worst, int most);

#endif
