// --selftest: is every gradient of the network, as it is edited now, the derivative of its loss?
#ifndef RUNTIME_SELFTEST_H
#define RUNTIME_SELFTEST_H

#include "runtime/session.h"

// Checks the device's operations against their fp64 reference, then every parameter's gradient, in
// fp32 whatever --dtype says (session_open() has then checked the operations of that type):
// along the gradient itself and along random directions, the loss must change as the gradient
// says. `loss` runs gather, forward and loss for the batch on the device, adding to s->metrics;
// `gradient` runs the same and backward, without an update. The loss that is differentiated is
// grad_scale * the sum over the batch. Prints one line a tensor; returns the exit status.
int selftest(Session *s, ModelFunction loss, ModelFunction gradient, void *model,
             double grad_scale);

#endif
