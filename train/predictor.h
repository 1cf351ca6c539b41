// --predict: the network's classes for pictures that the user names, as text or JSON. The trainer
// infers them as it infers test images; decoding and resizing are those of data/prepare.
#ifndef TRAIN_PREDICTOR_H
#define TRAIN_PREDICTOR_H

#include "train/setup.h"

// Prints what the trainer's network makes of each of s->pictures, and of folders a table with their
// accuracy. Returns the exit status: STATUS_DATA if a picture could not be read.
int predict(Setup *s);

#endif
