#include "train/speedrun.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "train/evaluate.h"
#include "base/os.h"
#include "train/run.h"

typedef struct Result {
    int64_t seed;
    Evaluation test;
    double init, train, evaluate; // seconds
} Result;

typedef struct Speedrun {
    Setup *s;
    Run run;
    int64_t first_seed;
    Result cold;         // the first run of the process
    double cold_seconds; // from the process' start to the result of `cold`; 0: not finished
    Result *runs;        // (--seeds)
    int64_t count;       // of `runs` that are finished
} Speedrun;

typedef struct Statistics {
    double mean, sigma, min, max; // sigma of the sample: NAN for one value
} Statistics;

// ---- one run ------------------------------------------------------------------------------------

static double synchronized_seconds(const Setup *s)
{
    s->kernels->synchronize();
    return os_seconds();
}

// As a new process would find it: no optimizer state, no running statistics, new weights.
static void start_again(Speedrun *r)
{
    run_forget(&r->run);
    r->s->trainer->init();
    network_start_average(&r->s->net, r->s->kernels);
}

// The first run takes the network as the process has initialised it. False after a signal to stop.
static bool run_seed(Speedrun *r, Result *result, int64_t seed, bool first)
{
    Setup *s = r->s;
    s->options->seed = seed;
    s->kernels->zero(s->net.metrics->value, METRICS * sizeof(float));
    const double began = synchronized_seconds(s);
    if (!first) start_again(r);
    const double initialised = synchronized_seconds(s);
    if (s->trainer->train(&r->run) < s->steps) return false;
    const double trained = synchronized_seconds(s);
    result->test = evaluate(s, s->trainer->infer, VIEWS);
    const double ended = synchronized_seconds(s);
    result->seed = seed;
    result->init = initialised - began;
    result->train = trained - initialised;
    result->evaluate = ended - trained;
    if (!result->test.complete) return false;
    if (!isfinite(result->test.loss))
        die(STATUS_DIVERGED, "the run with --seed %lld diverged; lower --lr", (long long)seed);
    return true;
}

static double seconds_of(const Result *r)
{
    return r->init + r->train + r->evaluate;
}

static double accuracy_of(const Result *r)
{
    return r->test.accuracy;
}

static double loss_of(const Result *r)
{
    return r->test.loss;
}

static Statistics statistics(const Speedrun *r, double (*value)(const Result *))
{
    const double n = (double)r->count;
    Statistics s = {.min = INFINITY, .max = -INFINITY};
    for (int64_t i = 0; i < r->count; i++) {
        s.mean += value(&r->runs[i]) / n;
        s.min = fmin(s.min, value(&r->runs[i]));
        s.max = fmax(s.max, value(&r->runs[i]));
    }
    double squares = 0;
    for (int64_t i = 0; i < r->count; i++) {
        const double d = value(&r->runs[i]) - s.mean;
        squares += d * d;
    }
    s.sigma = r->count > 1 ? sqrt(squares / (n - 1)) : (double)NAN;
    return s;
}

// ---- what it tells ------------------------------------------------------------------------------

static void result_json(Json *j, const char *key, const Result *r)
{
    json_object(j, key);
    json_int(j, "seed", r->seed);
    if (!isnan(r->test.accuracy)) json_double(j, "test_accuracy", r->test.accuracy);
    json_double(j, "test_loss", r->test.loss);
    json_rounded(j, "seconds", seconds_of(r), 6);
    json_rounded(j, "init_seconds", r->init, 6);
    json_rounded(j, "train_seconds", r->train, 6);
    json_rounded(j, "evaluate_seconds", r->evaluate, 6);
    json_end(j);
}

static void summary_json(Json *j, const Speedrun *r)
{
    const Statistics accuracy = statistics(r, accuracy_of), loss = statistics(r, loss_of);
    const Statistics seconds = statistics(r, seconds_of);
    json_object(j, "summary");
    json_int(j, "runs", r->count);
    if (r->s->net.logits) {
        json_double(j, "accuracy_mean", accuracy.mean);
        json_double(j, "accuracy_sigma", accuracy.sigma);
        json_double(j, "accuracy_standard_error", accuracy.sigma / sqrt((double)r->count));
    }
    json_double(j, "loss_mean", loss.mean);
    json_double(j, "loss_sigma", loss.sigma);
    json_rounded(j, "seconds_mean", seconds.mean, 6);
    json_rounded(j, "seconds_sigma", seconds.sigma, 6);
    json_rounded(j, "seconds_min", seconds.min, 6);
    json_rounded(j, "seconds_max", seconds.max, 6);
    json_rounded(j, "cold_seconds", r->cold_seconds, 6);
    json_end(j);
}

static void write_file(const Speedrun *r)
{
    const Setup *s = r->s;
    Error e;
    Json j = {0};
    json_object(&j, NULL);
    json_string(&j, "network", s->net.name);
    json_string(&j, "device", s->kernels->description);
    json_string(&j, "dtype", kernels_dtype(s->kernels));
    json_string(&j, "data", s->data.source);
    json_int(&j, "steps", s->steps);
    json_int(&j, "batch_size", s->options->batch_size);
    json_int(&j, "seeds", s->options->seeds);
    json_bool(&j, "complete", r->count == s->options->seeds);
    if (os_stop_signal()) json_int(&j, "stopped_by_signal", os_stop_signal());
    if (r->cold_seconds != 0) result_json(&j, "cold", &r->cold);
    json_array(&j, "runs");
    for (int64_t i = 0; i < r->count; i++) result_json(&j, NULL, &r->runs[i]);
    json_end(&j);
    if (r->count > 0) summary_json(&j, r);
    json_end(&j);
    check(json_finish(&j, &e), &e);
    check(rundir_write(r->run.dir, "speedrun.json", &j, &e), &e);
    json_free(&j);
}

static void print_run(const Speedrun *r, const char *kind, const Result *result, double seconds)
{
    if (r->s->options->quiet) return;
    printf("%-8s seed %lld: test ", kind, (long long)result->seed);
    if (r->s->net.logits)
        printf("accuracy %.2f%%, %.3f s\n", 100 * result->test.accuracy, seconds);
    else
        printf("loss %.4f, %.3f s\n", result->test.loss, seconds);
    fflush(stdout);
}

static void print_summary(const Speedrun *r)
{
    const bool classes = r->s->net.logits != NULL;
    const Statistics test = statistics(r, classes ? accuracy_of : loss_of),
                     seconds = statistics(r, seconds_of);
    const double scale = classes ? 100 : 1;
    const int digits = classes ? 3 : 5;
    const char *unit = classes ? "%" : "";
    printf("%-8s mean %.*f%s", classes ? "accuracy" : "loss", digits, scale * test.mean, unit);
    if (r->count > 1)
        printf(", sigma %.*f%s, standard error %.*f%s", digits, scale * test.sigma, unit, digits,
               scale * test.sigma / sqrt((double)r->count), unit);
    printf(", of %lld seed%s\n", (long long)r->count, r->count > 1 ? "s" : "");
    printf("warm     mean %.4f s (%.4f to %.4f): initialisation, training, final evaluation\n",
           seconds.mean, seconds.min, seconds.max);
    printf("cold     %.3f s: from the start of the process to the first result\n", r->cold_seconds);
    printf("record   %s/speedrun.json\n", rundir_name(r->run.dir));
}

// ---- all runs -----------------------------------------------------------------------------------

// The cold run's seed comes first again: another result would be an error of this program.
static void check_repeated(const Speedrun *r)
{
    const Evaluation *cold = &r->cold.test, *warm = &r->runs[0].test;
    if (cold->loss == warm->loss && !islessgreater(cold->accuracy, warm->accuracy)) return;
    die(STATUS_FAILED, "--seed %lld gave a test loss of %.9g, then of %.9g: runs do not repeat",
        (long long)r->first_seed, cold->loss, warm->loss);
}

// False after a signal to stop.
static bool run_all(Speedrun *r)
{
    if (!run_seed(r, &r->cold, r->first_seed, true)) return false;
    r->cold_seconds = os_process_seconds();
    print_run(r, "cold", &r->cold, r->cold_seconds);
    write_file(r);
    for (int64_t i = 0; i < r->s->options->seeds; i++) {
        if (!run_seed(r, &r->runs[i], r->first_seed + i, false)) return false;
        r->count = i + 1;
        print_run(r, "warm", &r->runs[i], seconds_of(&r->runs[i]));
        write_file(r);
        if (i == 0) check_repeated(r);
    }
    return true;
}

int speedrun(Setup *s)
{
    static Speedrun r;
    r = (Speedrun){
        .s = s,
        .first_seed = s->options->seed,
        .runs = calloc((size_t)s->options->seeds, sizeof *r.runs),
    };
    if (!r.runs) die(STATUS_IO, "out of memory for %lld runs", (long long)s->options->seeds);
    run_open(&r.run, s, RUN_TIMED);
    int status = STATUS_OK;
    if (!run_all(&r)) {
        status = 128 + os_stop_signal();
        write_file(&r);
        printf("stopped by signal %d after %lld of %lld runs\n", os_stop_signal(),
               (long long)r.count, (long long)s->options->seeds);
    }
    if (r.count > 0) print_summary(&r);
    const double target = s->options->target_accuracy, mean = statistics(&r, accuracy_of).mean;
    if (status == STATUS_OK && mean < target) {
        report_error("mean test accuracy %.4f is below --target-accuracy %g", mean, target);
        status = STATUS_FAILED;
    }
    run_close(&r.run);
    free(r.runs);
    return status;
}
