// A build of train_mlp for the test of comparisons: with NN_SLOW_STEP_US in the environment it
// sleeps so many microseconds before each step. Linked with -Wl,--wrap=feed_next.
#include <stdlib.h>
#include <unistd.h>

#include "train/feed.h"

void __real_feed_next(Feed *f);
void __wrap_feed_next(Feed *f);

void __wrap_feed_next(Feed *f)
{
    const char *sleep_us = getenv("NN_SLOW_STEP_US");
    if (sleep_us) usleep((useconds_t)atoi(sleep_us));
    __real_feed_next(f);
}
