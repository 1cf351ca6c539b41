#include "train/bench.h"

#include <stdio.h>
#include <stdlib.h>

#include "train/evaluate.h"
#include "base/os.h"
#include "train/run.h"
#include "kernels/launch_counts.h"
#include "train/bench_environment.h"
#include "train/bench_micro.h"
#include "base/timing_rows.h"

enum { STEPS_MIN = 30, STEPS_MAX = 2000, LEARNING_STEPS = 10, CHUNK = 8, SLICES = 4 };

// Steps that follow each other without a wait, in slices between the other rows, so that a moment
// in which the machine is slow spoils a part of them only.
typedef struct Pipelined {
    double values[STEPS_MAX]; // ms a step, of a chunk each
    int count, slices;
    int64_t steps;
    Counts counts;
    double seconds, loader_wait, processor; // of all steps
} Pipelined;

typedef struct Bench {
    Setup *s;
    Run run;
    Rows rows;
    double step_seconds;  // of each row about steps
    double epoch_seconds; // an epoch that would take longer is left out
    double loss;          // mean of the first steps: equal where the arithmetic is
    bool missed;          // --target-accuracy
    int threads;
    int64_t steps;  // made so far
    bool measuring; // else learning
    Pipelined pipelined;
    // Of one of those steps; `uploaded` in bytes. idle: of a thread, on average.
    double mean_ms, launches, uploaded, loader_wait_ms, processor_ms, idle_ms;
    double others; // processors that others used meanwhile
} Bench;

// One training step of `images` images, 0: of the whole batch. While it measures, that is step 0
// again and again with a learning rate of 0: the weights stay, and so does the work.
static void one_step(Bench *r, int64_t images)
{
    Setup *s = r->s;
    if (os_stop_signal()) exit(128 + os_stop_signal());
    const bool past_the_end = !r->measuring && r->steps >= s->steps; // the last batch stays
    if (!past_the_end) feed_next(&s->feed);
    if (images > 0) s->feed.n = images;
    s->trainer->step(r->measuring ? 0 : past_the_end ? s->steps - 1 : r->steps);
    r->steps++;
}

static Row macro(const char *name, int64_t number, const char *unit)
{
    Row row = {.kind = ROW_MACRO};
    snprintf(row.unit, sizeof row.unit, "%s", unit);
    if (number > 0)
        snprintf(row.name, sizeof row.name, "%s_%lld", name, (long long)number);
    else
        snprintf(row.name, sizeof row.name, "%s", name);
    return row;
}

// Each step with a wait after it.
static void time_steps(Bench *r, Row row, int64_t images)
{
    static double values[STEPS_MAX];
    const double start = os_seconds(), warm = start + 0.1 * r->step_seconds;
    do one_step(r, images);
    while (os_seconds() < warm);
    for (int i = 0; i < 2; i++) one_step(r, images); // a captured graph is replayed from here on
    r->s->kernels->synchronize();
    int count = 0;
    while (count < STEPS_MAX && (count < STEPS_MIN || os_seconds() - start < r->step_seconds)) {
        const double began = os_seconds();
        one_step(r, images);
        r->s->kernels->synchronize();
        values[count++] = 1e3 * (os_seconds() - began);
    }
    rows_add(&r->rows, row, values, count);
}

// The first steps of training, whose loss tells whether two programs compute the same.
static void learn(Bench *r)
{
    Setup *s = r->s;
    float metrics[METRICS];
    double first[1];
    one_step(r, 0);
    s->kernels->synchronize();
    first[0] = 1e3 * (os_seconds() - s->started);
    rows_add(&r->rows, macro("start_to_first_step", 0, "ms"), first, 1);
    for (int i = 1; i < LEARNING_STEPS; i++) one_step(r, 0);
    s->kernels->download(metrics, s->net.metrics->value, sizeof metrics);
    r->loss =
        (double)metrics[METRIC_LOSS] / ((double)LEARNING_STEPS * (double)s->options->batch_size);
}

// Training goes on, tested after each epoch, until --target-accuracy is reached or the run ends.
static void time_to_accuracy(Bench *r)
{
    Setup *s = r->s;
    const double target = s->options->target_accuracy, began = os_seconds();
    double seconds[1];
    r->missed = target > 0;
    while (r->missed && r->steps < s->steps) {
        one_step(r, 0);
        if (epoch_ends(s, r->steps))
            r->missed = evaluate(s, s->trainer->infer, PLAIN).accuracy < target;
    }
    seconds[0] = os_seconds() - began;
    if (os_stop_signal()) exit(128 + os_stop_signal());
    if (target > 0 && !r->missed) rows_add(&r->rows, macro("time_to_accuracy", 0, "s"), seconds, 1);
}

static void time_slice(Bench *r)
{
    Setup *s = r->s;
    Pipelined *p = &r->pipelined;
    for (int i = 0; i < 2; i++) one_step(r, 0); // of which a graph may be captured
    s->kernels->synchronize();
    const Counts before = launch_counts();
    const int64_t steps = r->steps;
    const double wait = s->feed.wait_seconds, own = os_cpu_seconds();
    const double start = os_seconds();
    p->slices++;
    while (p->count < STEPS_MAX && (p->count < STEPS_MIN * p->slices / SLICES ||
                                    os_seconds() - start < r->step_seconds / SLICES)) {
        const double began = os_seconds();
        for (int i = 0; i < CHUNK; i++) one_step(r, 0);
        s->kernels->synchronize();
        p->values[p->count++] = 1e3 * (os_seconds() - began) / CHUNK;
    }
    const Counts after = launch_counts();
    p->steps += r->steps - steps;
    p->counts.launches += after.launches - before.launches;
    p->counts.uploaded += after.uploaded - before.uploaded;
    p->loader_wait += s->feed.wait_seconds - wait;
    p->processor += os_cpu_seconds() - own;
    p->seconds += os_seconds() - start;
}

static void add_pipelined(Bench *r)
{
    Pipelined *p = &r->pipelined;
    rows_add(&r->rows, macro("step_pipelined", 0, "ms"), p->values, p->count); // sorts them
    rows_add(&r->rows, macro("step_fastest", 0, "ms"), p->values, (p->count + 9) / 10);
    const double steps = (double)p->steps;
    r->launches =
        r->s->kernels->launches ? (double)p->counts.launches / steps : r->s->net.operations;
    r->uploaded = (double)p->counts.uploaded / steps;
    r->loader_wait_ms = 1e3 * p->loader_wait / steps;
    r->processor_ms = 1e3 * p->processor / steps;
    r->mean_ms = 1e3 * p->seconds / steps;
    r->idle_ms = r->mean_ms - r->processor_ms / r->threads;
}

// The device's own clock around a chunk against the host's. Not within steps that are captured.
static void compare_clocks(Bench *r)
{
    enum { CHUNKS = 20 };
    const Kernels *k = r->s->kernels;
    const Row row = {
        .name = "device_clock", .unit = "%", .kind = ROW_MICRO, .higher_is_better = true};
    double shares[CHUNKS];
    for (int i = 0; i < CHUNKS; i++) {
        double device;
        const double began = os_seconds();
        k->time_begin("steps");
        for (int j = 0; j < CHUNK; j++) one_step(r, 0);
        k->time_end();
        k->times(&device, 1);
        shares[i] = 100 * device / (os_seconds() - began);
    }
    rows_add(&r->rows, row, shares, CHUNKS);
}

static void time_epoch(Bench *r)
{
    double seconds[1];
    const int64_t steps = r->s->steps_per_epoch;
    if (1e-3 * rows_median(&r->rows, "step") * (double)steps > r->epoch_seconds) return;
    const double began = os_seconds();
    for (int64_t i = 0; i < steps; i++) one_step(r, 0);
    r->s->kernels->synchronize();
    seconds[0] = os_seconds() - began;
    rows_add(&r->rows, macro("epoch", 0, "s"), seconds, 1);
}

static void time_training(Bench *r)
{
    Setup *s = r->s;
    const Kernels *k = s->kernels;
    learn(r);
    time_to_accuracy(r);
    s->options->lr = 0;
    r->measuring = true;
    time_steps(r, macro("step", 0, "ms"), 0);
    time_slice(r);
    compare_clocks(r);
    if (k->launches && s->options->graph) {
        launch_graphs(-1);
        time_steps(r, macro("step_no_graph", 0, "ms"), 0);
    }
    for (int i = 0; i < BENCH_BATCHES; i++) {
        launch_graphs(i + 1);
        if (bench_batches[i] < s->options->batch_size)
            time_steps(r, macro("step_batch", bench_batches[i], "ms"), bench_batches[i]);
    }
    launch_graphs(0);
    time_epoch(r);
    time_slice(r);
}

static void step_json(const Bench *r, Json *j)
{
    json_object(j, "step");
    json_rounded(j, "mean_ms", r->mean_ms, 6);
    json_rounded(j, "launches", r->launches, 6);
    json_rounded(j, "waits", 1.0 / CHUNK, 6);
    json_rounded(j, "uploaded_bytes", r->uploaded, 9);
    json_rounded(j, "loader_wait_ms", r->loader_wait_ms, 4);
    json_rounded(j, "processor_ms", r->processor_ms, 6);
    json_rounded(j, "idle_ms", r->idle_ms, 6);
    json_end(j);
}

static int write_report(const Bench *r, const char *path, Error *e)
{
    const Setup *s = r->s;
    Json j = {0};
    char id[65] = "embedded";
    if (!s->data.embedded) bench_hex(s->data.id, id);
    json_object(&j, NULL);
    json_string(&j, "format", "nn.c timing 2");
    json_string(&j, "trainer", s->trainer->name);
    json_bool(&j, "quick", s->options->quick);
    if (bench_environment(&j, s->kernels, r->threads, e)) return e->status;
    json_object(&j, "work");
    json_string(&j, "network", s->net.name);
    json_string(&j, "data", id);
    json_int(&j, "batch_size", s->options->batch_size);
    json_bool(&j, "graph", s->options->graph);
    json_double(&j, "loss", r->loss);
    json_end(&j);
    json_rounded(&j, "others", r->others, 4);
    step_json(r, &j);
    rows_json(&r->rows, &j);
    json_end(&j);
    int status = json_finish(&j, e);
    if (status == STATUS_OK) status = os_write_atomic(path, j.text, j.size, e);
    json_free(&j);
    return status;
}

static void print_report(const Bench *r, const char *path)
{
    printf("\n");
    rows_print(&r->rows);
    printf("\na step    %.4g launches, %.4g bytes to the device, %.3g ms waiting for data,\n"
           "          %.4g ms of processors, idle %.3g ms of its %.4g ms\n",
           r->launches, r->uploaded, r->loader_wait_ms, r->processor_ms, r->idle_ms, r->mean_ms);
    printf("machine   others used %.2f processors meanwhile\n", r->others);
    printf("report    %s (docs/timing.md explains each row)\n", path);
}

int bench(Setup *s)
{
    Error e;
    char path[PATH_MAX];
    static Bench r;
    const bool quick = s->options->quick;
    r = (Bench){
        .s = s,
        .threads = s->options->threads > 0 ? (int)s->options->threads : os_cpu_count(),
        .step_seconds = quick ? 5 : 15,
        .epoch_seconds = quick ? 5 : 60,
        .rows = {.batches = quick ? 30 : 100,
                 .batch_seconds = quick ? 2e-3 : 1e-2,
                 .row_seconds = quick ? 1 : 5,
                 .warmup_seconds = quick ? 0.05 : 0.5},
    };
    run_open(&r.run, s, RUN_TIMED);
    const Busy busy = bench_busy();
    time_training(&r);
    rundir_path(r.run.dir, "file.tmp", path);
    check(bench_host(&r.rows, path, r.threads, &e), &e);
    time_slice(&r);
    check(bench_device(&r.rows, s->kernels, &e), &e);
    time_slice(&r);
    add_pipelined(&r);
    r.others = bench_others(&busy);
    rundir_path(r.run.dir, "bench.json", path);
    check(write_report(&r, path, &e), &e);
    print_report(&r, path);
    run_close(&r.run);
    if (!r.missed) return STATUS_OK;
    report_error("--target-accuracy %g was not reached in %lld steps", s->options->target_accuracy,
                 (long long)s->steps);
    return STATUS_FAILED;
}
