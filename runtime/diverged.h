// A loss that is NaN or infinite: where that began. The steps since the last snapshot run again,
// which gives the same bits, and after each the tensors are looked at. Nothing of this costs
// anything until then.
#ifndef RUNTIME_DIVERGED_H
#define RUNTIME_DIVERGED_H

#include "runtime/session.h"

// Whether a weight or running statistic is NaN or infinite: such a state is not worth saving.
bool diverged_weights(const Session *s);

// Begins the search: goes back to the snapshot, so that session_next() continues from there. Ends
// the program with STATUS_DIVERGED if it was there already.
void diverged(Session *s, const char *what);

// While s->search_end is set, after each step: ends the program once a value is not finite.
void diverged_look(Session *s);

// After an evaluation whose loss is not finite.
_Noreturn void diverged_evaluation(Session *s, double loss);

#endif
