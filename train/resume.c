#include "train/resume.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/os.h"

enum { ID_TEXT = 65, DATA_TEXT = 256 };

static void data_id(const Dataset *d, char text[static ID_TEXT])
{
    for (size_t i = 0; i < sizeof d->id; i++) snprintf(text + 2 * i, 3, "%02x", d->id[i]);
}

// "60000 + 10000 images of 28x28x1, 10 classes, id 0123456789ab"
static void describe_data(const Dataset *d, char text[static DATA_TEXT])
{
    char id[ID_TEXT];
    data_id(d, id);
    snprintf(text, DATA_TEXT, "%lld + %lld images of %dx%dx%d, %d classes, id %.12s",
             (long long)d->n[SPLIT_TRAIN], (long long)d->n[SPLIT_TEST], d->h, d->w, d->c,
             d->classes, id);
}

// ---- writing the record -------------------------------------------------------------------------

int resume_data_json(const Dataset *d, Json *j, Error *e)
{
    char id[ID_TEXT], description[DATA_TEXT];
    data_id(d, id);
    describe_data(d, description);
    json_object(j, NULL);
    json_object(j, "data");
    json_string(j, "id", id);
    json_string(j, "source", d->source);
    json_string(j, "description", description);
    json_end(j);
    json_end(j);
    return json_finish(j, e);
}

// Order, augmentation and initial weights are functions of the seed, so random numbers have no
// state to save.
static int write_record(const Run *r, int64_t step, const double metrics[static METRICS], Json *j,
                        Error *e)
{
    json_object(j, NULL);
    json_int(j, "step", step);
    json_int(j, "epoch", step / r->s->steps_per_epoch);
    json_int(j, "batch", step % r->s->steps_per_epoch);
    json_bool(j, "evaluated", r->evaluated);
    json_int(j, "images_since_log", r->images_since_log);
    json_array(j, "metrics");
    for (int i = 0; i < METRICS; i++) json_double(j, NULL, metrics[i]);
    json_end(j);
    json_double(j, "seconds_since_log", os_seconds() - r->times.log_at);
    json_double(j, "train_seconds", r->times.train);
    json_double(j, "best_accuracy", r->best.accuracy);
    json_double(j, "best_loss", r->best.loss);
    json_int(j, "best_step", r->best_step);
    json_members(j, &r->texts.data);
    json_members(j, &r->texts.about);
    json_end(j);
    return json_finish(j, e);
}

// ---- saving -------------------------------------------------------------------------------------

static int save(const Run *r, int64_t step, const double metrics[static METRICS], Error *e)
{
    Json record = {0};
    const CheckpointParts parts = {
        .tensors = &r->s->net.tensors,
        .kernels = r->s->kernels,
        .snapshot = &r->snapshot,
        .metadata = r->texts.model.metadata,
        .metadata_count = MODEL_METADATA,
        .record = &record,
    };
    int status = write_record(r, step, metrics, &record, e);
    if (status == STATUS_OK)
        status = checkpoint_write(&parts, rundir_name(r->dir), step, r->s->options->keep, e);
    json_free(&record);
    return status;
}

void resume_save(Run *r, int64_t step, const double metrics[static METRICS])
{
    Error e;
    const Network *n = &r->s->net;
    const double began = os_seconds();
    snapshot_take(&r->snapshot, &n->tensors, r->s->kernels, n->ema);
    rundir_sync(r->dir); // a checkpoint's log survives with it
    if (r->dir && save(r, step, metrics, &e) && save(r, step, metrics, &e)) {
        rundir_clear(r->dir);
        die(STATUS_IO,
            "no checkpoint of step %lld: %s; it needs about %.1f MB in all; the ones "
            "before are whole",
            (long long)step, e.message,
            (double)n->tensors.parameter_bytes * (n->ema ? 4 : 3) / 1e6);
    }
    r->saved_step = step;
    r->times.save += os_seconds() - began;
    r->times.log_at += os_seconds() - began; // training time leaves saving out
}

// ---- going on -----------------------------------------------------------------------------------

static const JsonNode *member(const Setup *s, const JsonNode *object, const char *key,
                              JsonType type)
{
    const JsonNode *v = json_get(object, key);
    const bool number = v && type == JSON_DOUBLE && v->type == JSON_INT;
    if (!v || (v->type != type && !number))
        die(STATUS_DATA, "%s: the record's '%s' is missing or of another type",
            s->line.checkpoint.path, key);
    return v;
}

static void check_data(const Setup *s)
{
    const JsonNode *record = s->line.checkpoint.record.root;
    const char *dir = s->options->resume;
    char id[ID_TEXT], description[DATA_TEXT];
    data_id(&s->data, id);
    describe_data(&s->data, description);
    const JsonNode *data = member(s, record, "data", JSON_OBJECT);
    if (strcmp(member(s, data, "id", JSON_STRING)->string, id) == 0) return;
    die(STATUS_DATA, "the run in %s was begun on other data: %s (%s), not %s (%s)", dir,
        member(s, data, "source", JSON_STRING)->string,
        member(s, data, "description", JSON_STRING)->string, s->data.source, description);
}

static void load_progress(Run *r)
{
    const Setup *s = r->s;
    const JsonNode *record = s->line.checkpoint.record.root;
    r->first_step = s->line.checkpoint.step;
    r->saved_step = r->first_step;
    r->evaluated = member(s, record, "evaluated", JSON_BOOL)->boolean;
    r->images_since_log = member(s, record, "images_since_log", JSON_INT)->integer;
    r->times.train = json_number(member(s, record, "train_seconds", JSON_DOUBLE));
    r->times.log_at = -json_number(member(s, record, "seconds_since_log", JSON_DOUBLE));
    r->best.accuracy = json_number(json_get(record, "best_accuracy"));
    r->best.loss = json_number(json_get(record, "best_loss"));
    r->best_step = member(s, record, "best_step", JSON_INT)->integer;
    const JsonNode *metrics = member(s, record, "metrics", JSON_ARRAY);
    float values[METRICS] = {0};
    const JsonNode *v = json_first(metrics);
    for (size_t i = 0; i < metrics->count && i < METRICS; i++, v = json_next(v))
        values[i] = s->comm.rank == 0 ? (float)json_number(v) : 0.0f;
    s->kernels->upload(s->net.metrics->value, values, sizeof values);
}

// The same bits are promised on the same device only.
static void compare_devices(const Setup *s)
{
    const JsonNode *record = s->line.checkpoint.record.root;
    const char *device = member(s, record, "device", JSON_STRING)->string;
    const char *dtype = member(s, record, "dtype", JSON_STRING)->string;
    const char *now = kernels_dtype(s->kernels);
    if (strcmp(dtype, now) != 0)
        warn("this run was begun in %s on %s and goes on in %s: results will differ a little",
             dtype, device, now);
}

void resume_load(Run *r)
{
    Error e;
    Setup *s = r->s;
    const Network *n = &s->net;
    Checkpoint *c = &s->line.checkpoint;
    check_data(s);
    if (c->step > s->steps)
        die(STATUS_DATA, "%s is past the run's last step %lld", c->path, (long long)s->steps);
    check(snapshot_allocate(&r->snapshot, &n->tensors, n->ema != NULL, &e), &e);
    check(checkpoint_read(c, &r->snapshot, &n->tensors, s->kernels, n->ema, &e), &e);
    checkpoint_close_tensors(c);
    load_progress(r);
    compare_devices(s);
}
