#include "train/modes.h"

#include <math.h>
#include <stdio.h>

#include "train/evaluate.h"
#include "train/predictor.h"
#include "train/run.h"
#include "train/selftest.h"
#include "train/speedrun.h"
#include "train/bench.h"

static int eval_only(Setup *s)
{
    const Options *o = s->options;
    feed_load_sets(&s->feed);
    const Evaluation test = evaluate(s, s->trainer->infer, VIEWS);
    if (!isfinite(test.loss)) die(STATUS_DIVERGED, "the test loss of %s is %g", o->init, test.loss);
    if (s->net.logits) printf("test accuracy %.2f%%, ", 100.0 * test.accuracy);
    printf("%sloss %.4f, %s on %s\n", s->net.logits ? "" : "test ", test.loss, o->init,
           s->data.source);
    return meets_target(s, test.accuracy);
}

static void need(const Setup *s, bool there, const char *mode, const char *function)
{
    if (there) return;
    die(STATUS_USAGE, "%s has no --%s: its table in the trainer's source lacks %s",
        s->trainer->name, mode, function);
}

bool other_mode(Setup *s, int *status)
{
    const Options *o = s->options;
    const Trainer *t = s->trainer;
    if (o->selftest) {
        need(s, t->loss && t->gradient, "selftest", "loss and gradient");
        *status = selftest(s);
    } else if (o->eval_only) {
        need(s, t->infer, "eval-only", "infer");
        *status = eval_only(s);
    } else if (o->predict) {
        need(s, t->infer, "predict", "infer");
        *status = predict(s);
    } else if (o->bench) {
        need(s, t->step && t->infer, "bench", "step and infer");
        *status = bench(s);
    } else if (o->speedrun) {
        need(s, t->init && t->train && t->infer, "speedrun", "init, train and infer");
        *status = speedrun(s);
    } else {
        return false;
    }
    return true;
}
