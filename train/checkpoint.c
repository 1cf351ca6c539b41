#include "train/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/model_file.h"
#include "base/os.h"

static const char MODEL[] = "model.safetensors", STATE[] = "state-r000-of-001.safetensors";
static const char RECORD[] = "record";

// ---- host copies --------------------------------------------------------------------------------

int snapshot_allocate(Snapshot *s, const Tensors *t, bool ema, Error *e)
{
    float **const arenas[] = {&s->master, &s->state1, &s->state2, &s->ema};
    *s = (Snapshot){0};
    for (int i = 0; i < (ema ? 4 : 3); i++) {
        *arenas[i] = calloc(1, t->parameter_bytes);
        if (*arenas[i]) continue;
        snapshot_free(s);
        return fail(e, STATUS_IO, "not enough memory for checkpoints: they need %zu bytes",
                    t->parameter_bytes * (ema ? 4 : 3));
    }
    return STATUS_OK;
}

void snapshot_take(const Snapshot *s, const Tensors *t, const Kernels *k, const float *ema)
{
    k->download(s->master, t->master, t->parameter_bytes);
    k->download(s->state1, t->state1, t->parameter_bytes);
    k->download(s->state2, t->state2, t->parameter_bytes);
    if (s->ema) k->download(s->ema, ema, t->parameter_bytes);
}

static void restore_state(const Snapshot *s, const Tensors *t, const Kernels *k, float *ema)
{
    k->upload(t->state1, s->state1, t->parameter_bytes);
    k->upload(t->state2, s->state2, t->parameter_bytes);
    if (s->ema) k->upload(ema, s->ema, t->parameter_bytes);
}

void snapshot_restore(const Snapshot *s, const Tensors *t, const Kernels *k, float *ema)
{
    k->upload(t->master, s->master, t->parameter_bytes);
    tensors_refresh(t, k);
    restore_state(s, t, k, ema);
}

void snapshot_free(Snapshot *s)
{
    free(s->master);
    free(s->state1);
    free(s->state2);
    free(s->ema);
    *s = (Snapshot){0};
}

// ---- the state file's entries -------------------------------------------------------------------

enum { ENTRY_NAME_MAX = TENSOR_NAME_MAX + 8, ENTRIES_MAX = 3 * TENSORS_MAX + 1 };

typedef struct Entries {
    size_t count;
    SafeTensor list[ENTRIES_MAX]; // `data` is the place in the snapshot
    char names[ENTRIES_MAX][ENTRY_NAME_MAX];
} Entries;

static void add_entry(Entries *x, const char *prefix, const Tensor *t, const float *data)
{
    char *name = x->names[x->count];
    snprintf(name, ENTRY_NAME_MAX, "%s.%s", prefix, t->name);
    SafeTensor *entry = &x->list[x->count++];
    *entry = (SafeTensor){.name = name,
                          .dtype = "F32",
                          .rank = t->rank,
                          .data = data,
                          .bytes = (size_t)t->n * sizeof(float)};
    memcpy(entry->shape, t->shape, sizeof t->shape);
}

// NULL if memory is short.
static Entries *list_entries(const Tensors *t, const Snapshot *s)
{
    Entries *x = calloc(1, sizeof *x);
    for (int i = 0; x && i < t->count; i++) {
        const Tensor *tensor = &t->list[i];
        if (tensor->kind != PARAMETER && tensor->kind != BUFFER) continue;
        const size_t at = (size_t)(tensor->master - t->master);
        if (s->ema) add_entry(x, "ema", tensor, s->ema + at);
        if (tensor->kind != PARAMETER) continue;
        add_entry(x, "state1", tensor, s->state1 + at);
        add_entry(x, "state2", tensor, s->state2 + at);
    }
    return x;
}

// ---- directories --------------------------------------------------------------------------------

static int checkpoints_path(char path[static PATH_MAX], const char *dir, Error *e)
{
    // Room for the names inside.
    if (snprintf(path, PATH_MAX, "%s/checkpoints", dir) < PATH_MAX - 128) return STATUS_OK;
    return fail(e, STATUS_IO, "path is too long: %.80s...", dir);
}

// `parent`/`name`, which fits.
static void join(char path[static PATH_MAX], const char *parent, const char *name)
{
    snprintf(path, PATH_MAX, "%.*s/%s", PATH_MAX - 128, parent, name);
}

static void step_path(char path[static PATH_MAX], const char *parent, const char *kind,
                      int64_t step)
{
    char name[64];
    snprintf(name, sizeof name, "%s_%08" PRId64, kind, step);
    join(path, parent, name);
}

typedef struct Steps {
    int64_t *list; // in rising order once sorted
    size_t count;
    bool out_of_memory;
} Steps;

static void add_step(const char *name, void *context)
{
    Steps *s = context;
    int64_t step;
    int end = 0;
    if (sscanf(name, "step_%" SCNd64 "%n", &step, &end) != 1 || name[end] || step < 0) return;
    int64_t *more = realloc(s->list, (s->count + 1) * sizeof *more);
    if (!more) {
        s->out_of_memory = true;
        return;
    }
    s->list = more;
    s->list[s->count++] = step;
}

static int compare_steps(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static int list_steps(Steps *s, const char *parent, Error *e)
{
    *s = (Steps){0};
    int status = os_list(parent, add_step, s, e);
    if (status == STATUS_OK && s->out_of_memory)
        status = fail(e, STATUS_IO, "not enough memory to list %s", parent);
    if (status)
        free(s->list);
    else if (s->count)
        qsort(s->list, s->count, sizeof *s->list, compare_steps);
    return status;
}

// ---- reading ------------------------------------------------------------------------------------

static int read_record(Checkpoint *c, const char *path, Error *e)
{
    const SafeTensor *record = safetensors_get(&c->state, RECORD);
    if (!record || strcmp(record->dtype, "U8") != 0)
        return fail(e, STATUS_DATA, "%s has no bytes '%s'", path, RECORD);
    Error json;
    if (json_parse(&c->record, record->data, record->bytes, &json))
        return fail(e, json.status, "%s: %s: %s", path, RECORD, json.message);
    const JsonNode *step = json_get(c->record.root, "step");
    if (step && step->type == JSON_INT && step->integer == c->step) return STATUS_OK;
    return fail(e, STATUS_DATA, "%s is of another step than its directory's name", path);
}

static int open_step(Checkpoint *c, const char *parent, int64_t step, Error *e)
{
    char path[PATH_MAX];
    *c = (Checkpoint){.step = step};
    step_path(c->path, parent, "step", step);
    join(path, c->path, MODEL);
    int status = safetensors_open(&c->model, path, e);
    join(path, c->path, STATE);
    if (status == STATUS_OK) status = safetensors_open(&c->state, path, e);
    if (status == STATUS_OK) status = read_record(c, path, e);
    if (status) checkpoint_close(c);
    return status;
}

int checkpoint_open(Checkpoint *c, const char *dir, Error *e)
{
    char parent[PATH_MAX];
    Steps steps;
    if (checkpoints_path(parent, dir, e)) return e->status;
    if (os_exists(dir) && !os_exists(parent))
        return fail(e, STATUS_DATA,
                    "%s has no checkpoint to continue from: it is no run, or one that ended before "
                    "its first; train again, in another directory",
                    dir);
    if (list_steps(&steps, parent, e)) return e->status;
    int status = fail(e, STATUS_DATA, "%s holds no checkpoint", parent);
    for (size_t i = steps.count; i-- > 0 && status == STATUS_DATA;) {
        status = open_step(c, parent, steps.list[i], e);
        if (status == STATUS_DATA) warn("skipping a damaged checkpoint: %s", e->message);
    }
    if (status == STATUS_DATA && steps.count)
        fail(e, STATUS_DATA, "none of the %zu checkpoints in %s is whole", steps.count, parent);
    free(steps.list);
    return status;
}

static int check_entries(const Checkpoint *c, const Entries *entries, Error *e)
{
    for (const SafeTensor *want = entries->list; want < entries->list + entries->count; want++) {
        const SafeTensor *found = safetensors_get(&c->state, want->name);
        bool same = found && strcmp(found->dtype, want->dtype) == 0 && found->rank == want->rank;
        for (int i = 0; same && i < want->rank; i++) same = found->shape[i] == want->shape[i];
        if (!same)
            return fail(e, STATUS_DATA, "%s: the state of this network has another %s", c->path,
                        want->name);
    }
    if (c->state.count == entries->count + 1) return STATUS_OK; // and the record
    return fail(e, STATUS_DATA, "%s: %zu entries in the state, but this network has %zu", c->path,
                c->state.count, entries->count + 1);
}

int checkpoint_read(const Checkpoint *c, const Snapshot *s, const Tensors *t, const Kernels *k,
                    float *ema, Error *e)
{
    Entries *entries = list_entries(t, s);
    if (!entries) return fail(e, STATUS_IO, "not enough memory to load %s", c->path);
    // The model first: its message is the clearer one, and it touches nothing that does not fit.
    int status = model_read(t, k, &c->model, c->path, e);
    if (status == STATUS_OK) status = check_entries(c, entries, e);
    for (size_t i = 0; i < entries->count && status == STATUS_OK; i++) {
        const SafeTensor *entry = &entries->list[i];
        memcpy((void *)entry->data, safetensors_get(&c->state, entry->name)->data, entry->bytes);
    }
    free(entries);
    if (status) return status;
    k->download(s->master, t->master, t->parameter_bytes);
    restore_state(s, t, k, ema);
    return STATUS_OK;
}

void checkpoint_close_tensors(Checkpoint *c)
{
    safetensors_close(&c->model);
    safetensors_close(&c->state);
}

void checkpoint_close(Checkpoint *c)
{
    checkpoint_close_tensors(c);
    json_document_free(&c->record);
    *c = (Checkpoint){0};
}

// ---- writing ------------------------------------------------------------------------------------

static int write_state(const CheckpointParts *c, const char *path, Error *e)
{
    Entries *entries = list_entries(c->tensors, c->snapshot);
    if (!entries) return fail(e, STATUS_IO, "not enough memory to write %s", path);
    entries->list[entries->count++] = (SafeTensor){.name = RECORD,
                                                   .dtype = "U8",
                                                   .rank = 1,
                                                   .shape = {(int64_t)c->record->size},
                                                   .data = c->record->text};
    const int status = safetensors_write(path, entries->list, entries->count, NULL, 0, e);
    free(entries);
    return status;
}

static void prune(const char *parent, int64_t keep)
{
    Steps steps;
    Error ignored; // what is left over is tried again next time
    if (list_steps(&steps, parent, &ignored)) return;
    for (size_t i = 0; i + (size_t)keep < steps.count; i++) {
        char path[PATH_MAX];
        step_path(path, parent, "step", steps.list[i]);
        os_remove(path);
    }
    free(steps.list);
}

int checkpoint_write(const CheckpointParts *c, const char *dir, int64_t step, int64_t keep,
                     Error *e)
{
    char parent[PATH_MAX], unfinished[PATH_MAX], path[PATH_MAX];
    bool existed;
    if (checkpoints_path(parent, dir, e) || os_make_dirs(parent, e)) return e->status;
    step_path(unfinished, parent, ".tmp-step", step);
    os_remove(unfinished); // of a killed process: the run is locked
    if (os_make_dir(unfinished, &existed, e)) return e->status;
    if (existed) return fail(e, STATUS_IO, "cannot remove %s", unfinished);
    join(path, unfinished, MODEL);
    int status = model_save(c->tensors, c->kernels, path, c->metadata, c->metadata_count, e);
    join(path, unfinished, STATE);
    if (status == STATUS_OK) status = write_state(c, path, e);
    step_path(path, parent, "step", step);
    if (status == STATUS_OK) status = os_commit_dir(unfinished, path, e);
    if (status == STATUS_OK)
        prune(parent, keep);
    else
        os_remove(unfinished);
    return status;
}

// ---- the next start -----------------------------------------------------------------------------

static void remove_temporary(const char *name, void *parent)
{
    char path[PATH_MAX];
    if (strncmp(name, ".tmp-", 5) != 0) return;
    join(path, parent, name);
    os_remove(path);
}

void checkpoint_clean(const char *dir, int64_t step)
{
    char run[PATH_MAX], parent[PATH_MAX];
    Error ignored;
    Steps steps;
    snprintf(run, sizeof run, "%s", dir);
    os_list(run, remove_temporary, run, &ignored);
    if (checkpoints_path(parent, dir, &ignored)) return;
    os_list(parent, remove_temporary, parent, &ignored);
    if (list_steps(&steps, parent, &ignored)) return;
    for (size_t i = 0; i < steps.count; i++) {
        char from[PATH_MAX], to[PATH_MAX];
        if (steps.list[i] <= step) continue;
        step_path(from, parent, "step", steps.list[i]);
        step_path(to, parent, "damaged", steps.list[i]);
        os_remove(to);
        os_commit_dir(from, to, &ignored);
    }
    free(steps.list);
}
