// --selftest: is every gradient of the network, as it is edited now, the derivative of its loss?
#ifndef TRAIN_SELFTEST_H
#define TRAIN_SELFTEST_H

#include "train/setup.h"

// Checks the device's operations against their fp64 reference, then every parameter's gradient, in
// fp32 whatever --dtype says (setup_open() has then checked the operations of that type):
// along the gradient itself and along random directions, the loss must change as the gradient
// says. The loss that is differentiated is the network's grad_scale times the sum over the batch.
// Prints one line a tensor; returns the exit status.
int selftest(Setup *s);

#endif
