// What a trainer's program can do in place of training: --selftest, --eval-only, --predict, --bench
// and --speedrun.
#ifndef TRAIN_MODES_H
#define TRAIN_MODES_H

#include "train/setup.h"

// Does what one of these options asks for and sets *status, the exit status. Returns false if none
// was asked for. The network has its initial weights. Ends the program with STATUS_USAGE if the
// trainer lacks a function that the mode needs.
bool other_mode(Setup *s, int *status);

#endif
