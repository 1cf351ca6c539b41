// Finds in which step and tensor a NaN or infinity began.
#ifndef TRAIN_DIVERGED_H
#define TRAIN_DIVERGED_H

#include "train/setup.h"

// Where the loss or a weight was not finite.
typedef struct Divergence {
    int64_t step;   // steps done when it was seen; 0: it was not
    char what[384]; // what was not finite, as the message says it: the same on all ranks
} Divergence;

// Whether a weight or running statistic of any rank is NaN or infinite: such a state is not worth
// saving. Ranks may differ: in the statistics of --bn local, or where memory is short.
bool diverged_weights(const Setup *s);

// Looks at the tensors after `step` steps, in a search for what was seen after d->step of them.
// Returns false where a value is not finite, which *d then names, and at the search's last step.
bool diverged_look(Divergence *d, const Setup *s, int64_t step);

// Sets *d after a final evaluation whose loss is not finite.
void diverged_evaluation(Divergence *d, const Setup *s, double loss);

#endif
