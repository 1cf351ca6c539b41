// A build of train_mlp for the test of comparisons: with NN_SLOW_STEP_US in the environment it
// sleeps so many microseconds before each step. Linked with -Wl,--wrap=session_next.
#include <stdlib.h>
#include <unistd.h>

#include "runtime/session.h"

bool __real_session_next(Session *s);
bool __wrap_session_next(Session *s);

bool __wrap_session_next(Session *s)
{
    const char *sleep_us = getenv("NN_SLOW_STEP_US");
    if (sleep_us) usleep((useconds_t)atoi(sleep_us));
    return __real_session_next(s);
}
