// What a trainer's program can do in place of training: --selftest, --eval-only, --predict, --bench
// and --speedrun.
#ifndef RUNTIME_MODES_H
#define RUNTIME_MODES_H

#include "runtime/setup.h"

// Does what one of these options asks for and sets *status, the exit status; false without one. The
// network has its initial weights. STATUS_USAGE in one line where the trainer lacks what the mode
// needs.
bool other_mode(Setup *s, int *status);

#endif
