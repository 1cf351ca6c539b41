// Finds in which step and tensor a NaN or infinity began.
#ifndef TRAIN_DIVERGED_H
#define TRAIN_DIVERGED_H

#include "train/run.h"

// Whether a weight or running statistic of any rank is NaN or infinite: such a state is not worth
// saving. Ranks may differ: in the statistics of --bn local, or where memory is short.
bool diverged_weights(const Setup *s);

// Looks at the tensors after a step of RUN_SEARCH. Returns false where a value is not finite, which
// r->diverged then names, and at the last step of the search.
bool diverged_look(Run *r, int64_t step);

// Sets r->diverged after a final evaluation whose loss is not finite.
void diverged_evaluation(Run *r);

#endif
