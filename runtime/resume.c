#include "runtime/resume.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/os.h"

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

static void record_data(const Session *s, Json *j)
{
    char id[ID_TEXT], description[DATA_TEXT];
    data_id(&s->data, id);
    describe_data(&s->data, description);
    json_object(j, "data");
    json_string(j, "id", id);
    json_string(j, "source", s->data.source);
    json_string(j, "description", description);
    json_end(j);
}

// The counters of a session. Order, augmentation and initial weights are functions of the seed, so
// random numbers have no state to save.
static void record_progress(const Session *s, const double metrics[static METRICS], Json *j)
{
    const int64_t done = s->step + 1;
    json_int(j, "step", done);
    json_int(j, "epoch", done / s->steps_per_epoch);
    json_int(j, "batch", done % s->steps_per_epoch);
    json_bool(j, "evaluated", s->evaluated);
    json_int(j, "images_since_log", s->images_since_log);
    json_array(j, "metrics");
    for (int i = 0; i < METRICS; i++) json_double(j, NULL, metrics[i]);
    json_end(j);
    json_double(j, "seconds_since_log", os_seconds() - s->log_time);
    json_double(j, "train_seconds", s->train_seconds);
    json_double(j, "best_accuracy", s->best_accuracy);
    json_int(j, "best_step", s->best_step);
}

static int write_record(const Session *s, const double metrics[static METRICS], Json *j, Error *e)
{
    json_object(j, NULL);
    json_string(j, "trainer", s->program->name);
    json_string(j, "network", s->network);
    json_string(j, "device", s->kernels->description);
    json_string(j, "dtype", kernels_dtype(s->kernels));
    record_progress(s, metrics, j);
    record_data(s, j);
    json_object(j, "options");
    args_json(s->line.table, s->line.count, j);
    json_end(j);
    json_end(j);
    return json_finish(j, e);
}

// ---- saving -------------------------------------------------------------------------------------

static int save(Session *s, const double metrics[static METRICS], Error *e)
{
    CheckpointWriter w;
    Json record = {0};
    char model[PATH_MAX];
    if (checkpoint_begin(&w, rundir_name(s->run), s->step + 1, e)) return e->status;
    int status = write_record(s, metrics, &record, e);
    if (snprintf(model, sizeof model, "%s/model.safetensors", w.directory) >= PATH_MAX)
        status = fail(e, STATUS_IO, "path is too long: %.80s...", w.directory);
    if (status == STATUS_OK) status = session_save_model(s, model, e);
    if (status == STATUS_OK)
        status = checkpoint_commit(&w, &s->tensors, &s->snapshot, &record, s->options->keep, e);
    json_free(&record);
    if (status) checkpoint_abort(&w);
    return status;
}

void resume_save(Session *s, const double metrics[static METRICS])
{
    Error e;
    const double began = os_seconds();
    snapshot_take(&s->snapshot, &s->tensors, s->kernels, s->ema);
    rundir_sync(s->run); // a checkpoint's log survives with it
    if (s->run && save(s, metrics, &e) != STATUS_OK && save(s, metrics, &e) != STATUS_OK) {
        rundir_clear(s->run);
        die(STATUS_IO,
            "no checkpoint of step %lld: %s; it needs about %.1f MB in all; the ones "
            "before are whole",
            (long long)s->step + 1, e.message,
            (double)s->tensors.parameter_bytes * (s->ema ? 4 : 3) / 1e6);
    }
    s->saved_step = s->step + 1;
    s->save_seconds += os_seconds() - began;
    s->log_time += os_seconds() - began; // training time leaves saving out
}

// ---- going on -----------------------------------------------------------------------------------

static const JsonNode *member(const Session *s, const JsonNode *object, const char *key,
                              JsonType type)
{
    const JsonNode *v = json_get(object, key);
    const bool number = v && type == JSON_DOUBLE && v->type == JSON_INT;
    if (!v || (v->type != type && !number))
        die(STATUS_DATA, "%s: the record's '%s' is missing or of another type",
            s->line.checkpoint.path, key);
    return v;
}

void resume_check(const Session *s)
{
    const JsonNode *record = s->line.checkpoint.record.root;
    const char *dir = s->options->resume;
    const char *trainer = member(s, record, "trainer", JSON_STRING)->string;
    if (strcmp(trainer, s->program->name) != 0)
        die(STATUS_DATA, "the run in %s was begun by %s, not by %s", dir, trainer,
            s->program->name);
    char id[ID_TEXT], description[DATA_TEXT];
    data_id(&s->data, id);
    describe_data(&s->data, description);
    const JsonNode *data = member(s, record, "data", JSON_OBJECT);
    if (strcmp(member(s, data, "id", JSON_STRING)->string, id) == 0) return;
    die(STATUS_DATA, "the run in %s was begun on other data: %s (%s), not %s (%s)", dir,
        member(s, data, "source", JSON_STRING)->string,
        member(s, data, "description", JSON_STRING)->string, s->data.source, description);
}

static void load_progress(Session *s)
{
    const JsonNode *record = s->line.checkpoint.record.root;
    s->step = s->line.checkpoint.step - 1;
    s->evaluated = member(s, record, "evaluated", JSON_BOOL)->boolean;
    s->images_since_log = member(s, record, "images_since_log", JSON_INT)->integer;
    s->train_seconds = json_number(member(s, record, "train_seconds", JSON_DOUBLE));
    s->log_time = -json_number(member(s, record, "seconds_since_log", JSON_DOUBLE));
    s->best_accuracy = json_number(member(s, record, "best_accuracy", JSON_DOUBLE));
    s->best_step = member(s, record, "best_step", JSON_INT)->integer;
    const JsonNode *metrics = member(s, record, "metrics", JSON_ARRAY);
    float values[METRICS] = {0};
    const JsonNode *v = json_first(metrics);
    for (size_t i = 0; i < metrics->count && i < METRICS; i++, v = json_next(v))
        values[i] = s->comm.rank == 0 ? (float)json_number(v) : 0.0f;
    s->kernels->upload(s->metrics->value, values, sizeof values);
}

// The same bits are promised on the same device only.
static void compare_devices(const Session *s)
{
    const JsonNode *record = s->line.checkpoint.record.root;
    const char *device = member(s, record, "device", JSON_STRING)->string;
    const char *dtype = member(s, record, "dtype", JSON_STRING)->string;
    const char *now = kernels_dtype(s->kernels);
    if (strcmp(dtype, now) != 0)
        warn("this run was begun in %s on %s and goes on in %s: results will differ a little",
             dtype, device, now);
}

void resume_load(Session *s)
{
    Error e;
    Checkpoint *c = &s->line.checkpoint;
    if (c->step > s->steps)
        die(STATUS_DATA, "%s is past the run's last step %lld", c->path, (long long)s->steps);
    check(snapshot_allocate(&s->snapshot, &s->tensors, s->ema != NULL, &e), &e);
    check(checkpoint_read(c, &s->snapshot, &s->tensors, s->kernels, s->ema, &e), &e);
    checkpoint_close_tensors(c);
    load_progress(s);
    compare_devices(s);
    s->saved_step = c->step;
}
