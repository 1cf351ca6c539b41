#include "train/run_dir.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

struct RunDir {
    char dir[PATH_MAX];
    int lock, log;
    int64_t log_size;
    bool log_failed; // and the user knows
    Json line;       // reused by every record
    Display display;
    Progress last;                   // what rundir_progress() was told last
    Progress epoch_end;              // the first step past an epoch's end, not shown yet
    bool epoch_end_waits;            // for an evaluation of that epoch, which shows it better
    double test_loss, test_accuracy; // of the last evaluation; NAN before the first
};

static int name_directory(RunDir *r, const char *trainer, Error *e)
{
    char time[OS_TIMESTAMP_SIZE];
    os_timestamp(time);
    if (os_make_dirs("runs", e)) return e->status;
    for (int i = 1; i < 1000; i++) {
        char suffix[16] = "";
        if (i > 1) snprintf(suffix, sizeof suffix, "-%d", i);
        snprintf(r->dir, sizeof r->dir, "runs/%s-%s%s", time, trainer, suffix);
        bool existed;
        if (os_make_dir(r->dir, &existed, e)) return e->status;
        if (!existed) return 0;
    }
    return fail(e, STATUS_IO, "%s and 999 like it exist; name a directory with --out", r->dir);
}

static int open_directory(RunDir *r, const char *dir, const char *trainer, Error *e)
{
    if (!dir) return name_directory(r, trainer, e);
    // Room for the names of the files inside.
    if (strlen(dir) + 64 > sizeof r->dir)
        return fail(e, STATUS_IO, "path is too long: %.80s...", dir);
    strcpy(r->dir, dir);
    return os_make_dirs(dir, e);
}

static int open_log(RunDir *r, Error *e)
{
    char path[PATH_MAX], checkpoints[PATH_MAX];
    rundir_path(r, "log.jsonl", path);
    rundir_path(r, "checkpoints", checkpoints);
    if (os_exists(path))
        return fail(e, STATUS_USAGE,
                    os_exists(checkpoints)
                        ? "%s holds a run already; continue it with --resume %s, or choose another "
                          "directory with --out"
                        : "%s holds a run without checkpoints; choose another directory with "
                          "--out, or remove %s",
                    r->dir, r->dir);
    return os_append_open(&r->log, path, e);
}

// Bytes of the whole records up to `step`, with the evaluation there if `evaluated`: what follows
// was written after the checkpoint, or was never synced.
static int64_t records_until(const char *text, size_t size, int64_t step, bool evaluated)
{
    size_t kept = 0;
    while (kept < size) {
        const char *line = text + kept, *end = memchr(line, '\n', size - kept);
        JsonDocument d;
        Error ignored;
        if (!end || json_parse(&d, line, (size_t)(end - line), &ignored)) break;
        const JsonNode *at = json_get(d.root, "step");
        const int64_t last = !evaluated && json_get(d.root, "test_loss") ? step - 1 : step;
        const bool keep = at && at->type == JSON_INT && at->integer <= last;
        json_document_free(&d);
        if (!keep) break;
        kept = (size_t)(end + 1 - text);
    }
    return (int64_t)kept;
}

static int reopen_log(RunDir *r, int64_t step, bool evaluated, Error *e)
{
    char path[PATH_MAX];
    void *text;
    size_t size;
    rundir_path(r, "log.jsonl", path);
    if (!os_exists(path)) return os_append_open(&r->log, path, e);
    if (os_read_file(path, &text, &size, e)) return e->status;
    r->log_size = records_until(text, size, step, evaluated);
    free(text);
    return os_append_reopen(&r->log, path, r->log_size, e);
}

static RunDir *new_run(bool quiet, Error *e)
{
    RunDir *r = calloc(1, sizeof *r);
    if (!r) {
        fail(e, STATUS_IO, "not enough memory for a run");
        return NULL;
    }
    display_open(&r->display, quiet);
    r->test_loss = r->test_accuracy = NAN;
    return r;
}

// Frees r after a failure; `locked` says whether the lock was taken.
static int give_up(RunDir *r, bool locked, const Error *e)
{
    if (locked) os_close(r->lock);
    display_close(&r->display);
    free(r);
    return e->status;
}

int rundir_open(RunDir **run, const char *dir, const char *trainer, bool quiet, Error *e)
{
    RunDir *r = new_run(quiet, e);
    if (!r) return e->status;
    if (open_directory(r, dir, trainer, e) || os_lock(&r->lock, r->dir, e))
        return give_up(r, false, e);
    if (open_log(r, e)) return give_up(r, true, e);
    *run = r;
    return 0;
}

int rundir_reopen(RunDir **run, const char *dir, int lock, int64_t step, bool evaluated, bool quiet,
                  Error *e)
{
    RunDir *r = new_run(quiet, e);
    if (!r) return e->status;
    r->lock = lock;
    if (open_directory(r, dir, NULL, e) || (!lock && os_lock(&r->lock, r->dir, e)))
        return give_up(r, false, e);
    if (reopen_log(r, step, evaluated, e)) return give_up(r, true, e);
    *run = r;
    return 0;
}

const char *rundir_name(const RunDir *r)
{
    return r->dir;
}

void rundir_path(const RunDir *r, const char *name, char path[static PATH_MAX])
{
    const int n = snprintf(path, PATH_MAX, "%s/%s", r->dir, name);
    assert(n > 0 && n < PATH_MAX); // rundir_open left room
    (void)n;
}

int rundir_write(const RunDir *r, const char *name, Json *j, Error *e)
{
    char path[PATH_MAX];
    rundir_path(r, name, path);
    j->text[j->size] = '\n'; // instead of the terminating zero
    const int status = os_write_atomic(path, j->text, j->size + 1, e);
    j->text[j->size] = '\0';
    return status;
}

Json *rundir_log_begin(RunDir *r, int64_t step, double epoch)
{
    r->line.size = 0;
    json_object(&r->line, NULL);
    json_int(&r->line, "step", step);
    json_rounded(&r->line, "epoch", epoch, 9);
    return &r->line;
}

void rundir_log_end(RunDir *r)
{
    Error e = {0};
    json_end(&r->line);
    bool ok = json_finish(&r->line, &e) == 0;
    if (ok) {
        r->line.text[r->line.size] = '\n'; // instead of the terminating zero
        ok = os_append(r->log, r->line.text, r->line.size + 1, &r->log_size) == 0;
        if (!ok) fail_errno(&e, STATUS_IO, "cannot write");
    }
    if (ok || r->log_failed) return;
    r->log_failed = true;
    warn("%s/log.jsonl lacks records: %s; training goes on", r->dir, e.message);
}

void rundir_sync(RunDir *r)
{
    if (!r) return;
    os_sync(r->log);
}

// An epoch that ended without an evaluation gets its line when the next step is there.
static void show_waiting_epoch(RunDir *r)
{
    if (r->epoch_end_waits) display_print(&r->display, &r->epoch_end);
    r->epoch_end_waits = false;
}

void rundir_clear(RunDir *r)
{
    if (!r) return;
    show_waiting_epoch(r);
    display_clear(&r->display);
}

void rundir_begin(RunDir *r, const Progress *p)
{
    if (r) r->last = *p;
}

void rundir_progress(RunDir *r, const Progress *p)
{
    if (!r) return;
    show_waiting_epoch(r);
    if (!r->display.terminal && floor(p->epoch) > floor(r->last.epoch)) {
        r->epoch_end = *p;
        r->epoch_end.test_loss = r->epoch_end.test_accuracy = NAN;
        r->epoch_end_waits = true;
    }
    r->last = *p;
    r->last.test_loss = r->test_loss;
    r->last.test_accuracy = r->test_accuracy;
    display_draw(&r->display, &r->last);
}

void rundir_show_test(RunDir *r, double loss, double accuracy)
{
    r->epoch_end_waits = false;
    r->last.test_loss = r->test_loss = loss;
    r->last.test_accuracy = r->test_accuracy = accuracy;
    display_print(&r->display, &r->last);
}

int rundir_finish(RunDir *r, Json *summary, Error *e)
{
    show_waiting_epoch(r);
    display_close(&r->display);
    int status = json_finish(summary, e);
    if (status == 0) status = rundir_write(r, "summary.json", summary, e);
    os_close(r->log);
    os_close(r->lock);
    json_free(&r->line);
    free(r);
    return status;
}
