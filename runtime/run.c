#include "runtime/run.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/os.h"

enum { STDOUT = 1, MAX_LINE = 256 };
static const double REDRAW_SECONDS = 0.1;

struct Run {
    char dir[PATH_MAX];
    int lock, log;
    int64_t log_size;
    bool log_failed; // and the user knows
    Json line;       // reused by every record
    bool quiet, terminal;
    bool live;            // the cursor is at the end of a live line
    double drawn_at;      // os_seconds() of the last redraw
    Progress last;        // what run_progress() was told last
    Progress epoch_end;   // the first step past an epoch's end, not shown yet
    bool epoch_end_waits; // for an evaluation of that epoch, which shows it better
    double test_accuracy; // of the last evaluation; NAN before the first
};

static int name_directory(Run *r, const char *trainer, Error *e)
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

static int open_directory(Run *r, const char *dir, const char *trainer, Error *e)
{
    if (!dir) return name_directory(r, trainer, e);
    // Room for the names of the files inside.
    if (strlen(dir) + 64 > sizeof r->dir)
        return fail(e, STATUS_IO, "path is too long: %.80s...", dir);
    strcpy(r->dir, dir);
    return os_make_dirs(dir, e);
}

static int open_log(Run *r, Error *e)
{
    char path[PATH_MAX];
    run_path(r, "log.jsonl", path);
    if (os_exists(path))
        return fail(e, STATUS_USAGE,
                    "%s holds a run already; continue it with --resume %s, or choose another "
                    "directory with --out",
                    r->dir, r->dir);
    return os_append_open(&r->log, path, e);
}

// Bytes of the whole records up to `step`: what follows was written after the checkpoint, or was
// never synced.
static int64_t records_until(const char *text, size_t size, int64_t step)
{
    size_t kept = 0;
    while (kept < size) {
        const char *line = text + kept, *end = memchr(line, '\n', size - kept);
        JsonDocument d;
        Error ignored;
        if (!end || json_parse(&d, line, (size_t)(end - line), &ignored)) break;
        const JsonNode *at = json_get(d.root, "step");
        const bool keep = at && at->type == JSON_INT && at->integer <= step;
        json_document_free(&d);
        if (!keep) break;
        kept = (size_t)(end + 1 - text);
    }
    return (int64_t)kept;
}

static int reopen_log(Run *r, int64_t step, Error *e)
{
    char path[PATH_MAX];
    void *text;
    size_t size;
    run_path(r, "log.jsonl", path);
    if (!os_exists(path)) return os_append_open(&r->log, path, e);
    if (os_read_file(path, &text, &size, e)) return e->status;
    r->log_size = records_until(text, size, step);
    free(text);
    return os_append_reopen(&r->log, path, r->log_size, e);
}

static Run *new_run(bool quiet, Error *e)
{
    Run *r = calloc(1, sizeof *r);
    if (!r) {
        fail(e, STATUS_IO, "not enough memory for a run");
        return NULL;
    }
    r->quiet = quiet;
    r->terminal = os_is_terminal(STDOUT);
    r->test_accuracy = NAN;
    return r;
}

// Frees r after a failure; `locked` says whether the lock was taken.
static int give_up(Run *r, bool locked, const Error *e)
{
    if (locked) os_close(r->lock);
    free(r);
    return e->status;
}

int run_open(Run **run, const char *dir, const char *trainer, bool quiet, Error *e)
{
    Run *r = new_run(quiet, e);
    if (!r) return e->status;
    if (open_directory(r, dir, trainer, e) || os_lock(&r->lock, r->dir, e))
        return give_up(r, false, e);
    if (open_log(r, e)) return give_up(r, true, e);
    *run = r;
    return 0;
}

int run_reopen(Run **run, const char *dir, int64_t step, bool quiet, Error *e)
{
    Run *r = new_run(quiet, e);
    if (!r) return e->status;
    if (open_directory(r, dir, NULL, e) || os_lock(&r->lock, r->dir, e))
        return give_up(r, false, e);
    if (reopen_log(r, step, e)) return give_up(r, true, e);
    *run = r;
    return 0;
}

const char *run_dir(const Run *r)
{
    return r->dir;
}

void run_path(const Run *r, const char *name, char path[static PATH_MAX])
{
    const int n = snprintf(path, PATH_MAX, "%s/%s", r->dir, name);
    assert(n > 0 && n < PATH_MAX); // run_open() left room
    (void)n;
}

static void begin_record(Run *r, int64_t step, double epoch)
{
    r->line.size = 0;
    json_object(&r->line, NULL);
    json_int(&r->line, "step", step);
    json_rounded(&r->line, "epoch", epoch, 9);
}

static void end_record(Run *r)
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

void run_sync(Run *r)
{
    if (!r) return;
    os_sync(r->log);
}

void run_log_step(Run *r, const StepLog *s)
{
    if (!r) return;
    begin_record(r, s->step, s->epoch);
    json_double(&r->line, "loss", s->loss);
    json_double(&r->line, "lr", s->lr);
    json_rounded(&r->line, "step_ms", s->step_ms, 6);
    json_rounded(&r->line, "images_per_s", s->images_per_s, 6);
    end_record(r);
}

static void format_seconds(double seconds, char *text, size_t size)
{
    const int64_t s = (int64_t)(seconds + 0.5);
    const int m = (int)(s / 60 % 60), h = (int)(s / 3600 % 10000);
    if (s < 60)
        snprintf(text, size, "%ds", (int)s);
    else if (s < 3600)
        snprintf(text, size, "%dm%02ds", m, (int)(s % 60));
    else
        snprintf(text, size, "%dh%02dm", h, m);
}

// "epoch 2.0/8  step 240/960  loss 1.235  train 54.1%  test 56.71%  31200 img/s", or for the live
// line "epoch 2.4/8  loss 1.235  train 54.1%  test 56.71%  31200 img/s  left 12s": 80 columns do.
static void format_line(char line[static MAX_LINE], const Progress *p, double test, double left)
{
    char total[24], step[64] = "", train[24] = "", accuracy[24] = "", remaining[32] = "";
    snprintf(total, sizeof total, "%.6g", p->epochs);
    const int whole = (int)strcspn(total, ".");
    if (isfinite(p->train_accuracy))
        snprintf(train, sizeof train, "  train %4.1f%%", 100 * p->train_accuracy);
    if (isfinite(test)) snprintf(accuracy, sizeof accuracy, "  test %5.2f%%", 100 * test);
    if (isfinite(left) && left >= 0) {
        char text[16];
        format_seconds(left, text, sizeof text);
        snprintf(remaining, sizeof remaining, "  left %s", text);
    } else {
        const int digits = snprintf(NULL, 0, "%lld", (long long)p->steps);
        snprintf(step, sizeof step, "  step %*lld/%lld", digits, (long long)p->step,
                 (long long)p->steps);
    }
    snprintf(line, MAX_LINE, "epoch %*.1f/%s%s  loss %.3f%s%s  %.0f img/s%s", whole + 2, p->epoch,
             total, step, p->loss, train, accuracy, p->images_per_s, remaining);
}

void run_clear(Run *r)
{
    if (!r) return;
    if (!r->live) return;
    fputs("\r\033[K", stdout);
    fflush(stdout);
    r->live = false;
}

static void print_lasting(Run *r, const Progress *p, double test)
{
    if (r->quiet) return;
    char line[MAX_LINE];
    format_line(line, p, test, NAN);
    run_clear(r);
    puts(line);
    fflush(stdout);
}

static void draw_live(Run *r, const Progress *p)
{
    const double now = os_seconds();
    if (r->live && now - r->drawn_at < REDRAW_SECONDS) return;
    char line[MAX_LINE];
    format_line(line, p, r->test_accuracy, p->seconds_left);
    // One column stays free: a full line would make some terminals scroll.
    printf("\r%.*s\033[K", os_terminal_width(STDOUT) - 1, line);
    fflush(stdout);
    r->live = true;
    r->drawn_at = now;
}

// An epoch that ended without an evaluation gets its line when the next step is there.
static void show_waiting_epoch(Run *r)
{
    if (r->epoch_end_waits) print_lasting(r, &r->epoch_end, NAN);
    r->epoch_end_waits = false;
}

void run_progress(Run *r, const Progress *p)
{
    if (!r) return;
    show_waiting_epoch(r);
    if (!r->terminal && floor(p->epoch) > floor(r->last.epoch)) {
        r->epoch_end = *p;
        r->epoch_end_waits = true;
    }
    r->last = *p;
    if (r->terminal && !r->quiet) draw_live(r, p);
}

void run_log_eval(Run *r, const EvalLog *s)
{
    if (!r) return;
    begin_record(r, s->step, s->epoch);
    json_double(&r->line, "test_loss", s->test_loss);
    json_double(&r->line, "test_accuracy", s->test_accuracy);
    end_record(r);
    r->epoch_end_waits = false;
    r->test_accuracy = s->test_accuracy;
    print_lasting(r, &r->last, s->test_accuracy);
}

int run_finish(Run *r, Json *summary, Error *e)
{
    show_waiting_epoch(r);
    run_clear(r);
    char path[PATH_MAX];
    run_path(r, "summary.json", path);
    int status = json_finish(summary, e);
    if (status == 0) {
        summary->text[summary->size] = '\n';
        status = os_write_atomic(path, summary->text, summary->size + 1, e);
        summary->text[summary->size] = '\0';
    }
    os_close(r->log);
    os_close(r->lock);
    json_free(&r->line);
    free(r);
    return status;
}
