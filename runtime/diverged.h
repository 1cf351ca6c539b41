// A loss or weight that is NaN or infinite: in which step and tensor that began.
#ifndef RUNTIME_DIVERGED_H
#define RUNTIME_DIVERGED_H

#include "runtime/run.h"

// Whether a weight or running statistic is NaN or infinite: such a state is not worth saving.
bool diverged_weights(const Setup *s);

// After a step of RUN_SEARCH: ends the program once a value is not finite. False when the step is
// reached after which that was seen before.
bool diverged_look(Run *r, int64_t step);

// After an evaluation whose loss is not finite.
_Noreturn void diverged_evaluation(Run *r, double loss);

// Ends the program with STATUS_DIVERGED and the message, which the report has too.
_Noreturn void diverged_end(Run *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
