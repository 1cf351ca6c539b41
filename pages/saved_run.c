#include "pages/saved_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "pages/members.h"

// ---- log.jsonl ----------------------------------------------------------------------------------

static const int64_t STEPS_MAX = 1000000000000; // doubles hold them exactly

static size_t count_lines(const char *text, size_t size)
{
    size_t lines = 0;
    for (size_t i = 0; i < size; i++) lines += text[i] == '\n';
    return lines;
}

// Whether a record has a number of steps that a run can have.
static bool has_step(const JsonDocument *d)
{
    const JsonNode *step = json_get(d->root, "step");
    return step && step->type == JSON_INT && step->integer >= 0 && step->integer <= STEPS_MAX;
}

int saved_log_read(SavedLog *l, const char *path, Error *e)
{
    void *data;
    size_t size;
    Error ignored;
    *l = (SavedLog){0};
    if (os_read_file(path, &data, &size, e)) return e->status;
    const char *text = data, *const end = text + size;
    l->records = calloc(count_lines(text, size) + 1, sizeof *l->records);
    for (const char *newline; l->records && text < end; text = newline + 1) {
        newline = memchr(text, '\n', (size_t)(end - text));
        if (!newline) break;
        l->damaged =
            json_parse(&l->records[l->count], text, (size_t)(newline - text), &ignored) != 0;
        if (!l->damaged && !has_step(&l->records[l->count])) {
            json_document_free(&l->records[l->count]);
            l->damaged = true;
        }
        if (l->damaged) break;
        l->count++;
    }
    free(data);
    return l->records ? STATUS_OK : fail(e, STATUS_IO, "not enough memory for %s", path);
}

// Values, at most one a record.
typedef struct LogColumn {
    struct LogColumn *next;
    double values[];
} LogColumn;

void saved_log_free(SavedLog *l)
{
    for (size_t i = 0; i < l->count; i++) json_document_free(&l->records[i]);
    free(l->records);
    for (LogColumn *c = l->columns, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    *l = (SavedLog){0};
}

static double *new_column(SavedLog *l)
{
    LogColumn *c = malloc(sizeof *c + (l->count + 1) * sizeof *c->values);
    if (!c) return NULL;
    c->next = l->columns;
    l->columns = c;
    return c->values;
}

double *saved_log_column(SavedLog *l, const char *kind, const char *key, size_t *count)
{
    double *values = new_column(l);
    *count = 0;
    for (size_t i = 0; values && i < l->count; i++) {
        const JsonNode *record = l->records[i].root, *member = json_get(record, kind);
        if (!member) continue;
        const JsonNode *value = json_get(member, key);
        values[(*count)++] = json_number(value ? value : json_get(record, key));
    }
    return values;
}

double *saved_log_seconds(SavedLog *l, const char *kind, size_t *count)
{
    double *seconds = new_column(l);
    double total = 0, before = 0;
    *count = 0;
    for (size_t i = 0; seconds && i < l->count; i++) {
        const JsonNode *record = l->records[i].root;
        if (json_get(record, "step_ms")) {
            const double step = member_number(record, "step");
            total += 1e-3 * member_number(record, "step_ms") * (step - before);
            before = step;
        }
        if (json_get(record, kind)) seconds[(*count)++] = total;
    }
    return seconds;
}

const JsonNode *saved_log_last(const SavedLog *l, const char *kind)
{
    for (size_t i = l->count; i-- > 0;)
        if (json_get(l->records[i].root, kind)) return l->records[i].root;
    return NULL;
}

// ---- the run ------------------------------------------------------------------------------------

const char *const run_state_names[] = {"finished", "running", "stopped", "cut off"};

bool saved_run_file(char path[static PATH_MAX], const char *dir, const char *name)
{
    return snprintf(path, PATH_MAX, "%s/%s", dir, name) < PATH_MAX;
}

static bool has(const char *dir, const char *name, char path[static PATH_MAX])
{
    return saved_run_file(path, dir, name) && os_exists(path);
}

int saved_run_json(JsonDocument *d, const char *dir, const char *name, Error *e)
{
    char path[PATH_MAX];
    *d = (JsonDocument){0};
    return has(dir, name, path) ? json_file_read(d, path, e) : STATUS_OK;
}

// What is damaged is a run: saved_run_open() says what is wrong.
bool saved_run_is(const char *dir)
{
    char path[PATH_MAX];
    JsonDocument start;
    Error ignored;
    if (!has(dir, "log.jsonl", path)) return false;
    if (saved_run_json(&start, dir, "run.json", &ignored)) return true;
    const JsonNode *options = json_get(start.root, "options");
    const bool other = member_is_true(options, "bench") || member_is_true(options, "speedrun");
    json_document_free(&start);
    return !other;
}

static double last_step(const SavedLog *l)
{
    return l->count > 0 ? member_number(l->records[l->count - 1].root, "step") : 0;
}

// The summary of a run that was stopped and continued since is no longer about it.
static RunState find_state(const SavedRun *r)
{
    const JsonNode *summary = r->summary.root;
    if (os_locked(r->path)) return RUN_RUNNING;
    if (!summary || last_step(&r->log) > member_number(summary, "steps")) return RUN_CUT_OFF;
    return json_get(summary, "stopped_by_signal") ? RUN_STOPPED : RUN_FINISHED;
}

static int find_directory(SavedRun *r, const char *dir, Error *e)
{
    size_t length = strlen(dir);
    while (length > 1 && dir[length - 1] == '/') length--;
    if (length + sizeof "runs/" + 64 > sizeof r->path)
        return fail(e, STATUS_DATA, "path is too long: %.80s...", dir);
    snprintf(r->path, sizeof r->path, "%.*s", (int)length, dir);
    if (!saved_run_is(r->path)) snprintf(r->path, sizeof r->path, "runs/%.*s", (int)length, dir);
    if (!saved_run_is(r->path))
        return fail(e, STATUS_DATA,
                    "%s is no run: there is no log.jsonl in it, or it is a timing report (--bench) "
                    "or a speedrun; scripts/runs.sh lists those in runs/",
                    dir);
    r->name = r->path + (strncmp(r->path, "runs/", 5) == 0 ? 5 : 0);
    return STATUS_OK;
}

int saved_run_open(SavedRun *r, const char *dir, bool with_log, Error *e)
{
    char path[PATH_MAX];
    *r = (SavedRun){0};
    if (find_directory(r, dir, e)) return e->status;
    int status = saved_run_json(&r->start, r->path, "run.json", e);
    if (status == STATUS_OK) status = saved_run_json(&r->summary, r->path, "summary.json", e);
    const JsonNode *summary = r->summary.root;
    const bool finished = summary && !json_get(summary, "stopped_by_signal");
    if (status == STATUS_OK && (with_log || !finished) && has(r->path, "log.jsonl", path))
        status = saved_log_read(&r->log, path, e);
    if (status) {
        saved_run_close(r);
        return status;
    }
    r->state = find_state(r);
    if (r->state == RUN_RUNNING || r->state == RUN_CUT_OFF) json_document_free(&r->summary);
    return STATUS_OK;
}

void saved_run_close(SavedRun *r)
{
    json_document_free(&r->start);
    json_document_free(&r->summary);
    saved_log_free(&r->log);
}

const JsonNode *saved_run_get(const SavedRun *r, const char *key)
{
    const JsonNode *value = json_get(r->summary.root, key);
    return value ? value : json_get(r->start.root, key);
}

void saved_run_date(const SavedRun *r, char date[static RUN_DATE_SIZE])
{
    char path[PATH_MAX];
    const char *started = json_text(saved_run_get(r, "started"));
    if (strlen(started) == RUN_DATE_SIZE - 1)
        memcpy(date, started, RUN_DATE_SIZE);
    else if (has(r->path, "log.jsonl", path))
        os_file_timestamp(path, date);
}

double saved_run_result(const SavedRun *r, const char *key)
{
    const double final = json_number(saved_run_get(r, key));
    return isnan(final) ? member_number(saved_log_last(&r->log, key), key) : final;
}
