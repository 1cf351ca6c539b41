// A loss or weight that is NaN or infinite: in which step and tensor that began.
#ifndef RUNTIME_DIVERGED_H
#define RUNTIME_DIVERGED_H

#include "runtime/run.h"

// Whether a weight or running statistic is NaN or infinite: such a state is not worth saving.
bool diverged_weights(const Setup *s);

// After a step of RUN_SEARCH: false where a value is not finite, which r->diverged then names, and
// in the step that the search is for.
bool diverged_look(Run *r, int64_t step);

// After an evaluation whose loss is not finite: sets r->diverged.
void diverged_evaluation(Run *r, double loss);

#endif
