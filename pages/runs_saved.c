#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "pages/runs.h"

const char *const run_state_names[] = {"finished", "running", "stopped", "cut off"};

static bool has(const char *dir, const char *name, char path[static PATH_MAX])
{
    return snprintf(path, PATH_MAX, "%s/%s", dir, name) < PATH_MAX && os_exists(path);
}

int saved_run_json(JsonDocument *d, const char *dir, const char *name, Error *e)
{
    char path[PATH_MAX];
    void *text;
    size_t size;
    Error why;
    *d = (JsonDocument){0};
    if (!has(dir, name, path)) return STATUS_OK;
    if (os_read_file(path, &text, &size, e)) return e->status;
    const int status = json_parse(d, text, size, &why);
    free(text);
    return status ? fail(e, status, "%s: %s", path, why.message) : STATUS_OK;
}

static bool is_on(const JsonNode *options, const char *name)
{
    const JsonNode *option = options ? json_get(options, name) : NULL;
    return option && option->type == JSON_BOOL && option->boolean;
}

// What is damaged is a run: saved_run_open() says what is wrong.
bool saved_run_is(const char *dir)
{
    char path[PATH_MAX];
    JsonDocument start;
    Error ignored;
    if (!has(dir, "log.jsonl", path)) return false;
    if (saved_run_json(&start, dir, "run.json", &ignored)) return true;
    const JsonNode *options = start.root ? json_get(start.root, "options") : NULL;
    const bool other = is_on(options, "bench") || is_on(options, "speedrun");
    json_document_free(&start);
    return !other;
}

static double last_step(const LogFile *l)
{
    return l->count > 0 ? json_number(json_get(l->records[l->count - 1].root, "step")) : 0;
}

// The summary of a run that was stopped and continued since is no longer about it.
static RunState find_state(const SavedRun *r)
{
    const JsonNode *summary = r->summary.root;
    if (os_locked(r->path)) return RUN_RUNNING;
    if (!summary || last_step(&r->log) > json_number(json_get(summary, "steps")))
        return RUN_CUT_OFF;
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
        status = log_file_read(&r->log, path, e);
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
    log_file_free(&r->log);
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
    return isnan(final) ? json_number(json_get(log_file_last(&r->log, key), key)) : final;
}

double *saved_run_seconds(const SavedRun *r, const char *kind, size_t *count)
{
    double *seconds = calloc(r->log.count + 1, sizeof *seconds);
    double total = 0, before = 0;
    *count = 0;
    for (size_t i = 0; seconds && i < r->log.count; i++) {
        const JsonNode *record = r->log.records[i].root;
        if (json_get(record, "step_ms")) {
            const double step = json_number(json_get(record, "step"));
            total += 1e-3 * json_number(json_get(record, "step_ms")) * (step - before);
            before = step;
        }
        if (json_get(record, kind)) seconds[(*count)++] = total;
    }
    return seconds;
}
