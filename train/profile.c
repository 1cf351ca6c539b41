#include "train/profile.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/os.h"

// ---- ceilings -----------------------------------------------------------------------------------

enum { ROUNDS = 15 };
static const double LONG_ENOUGH = 4e-3; // seconds of a call that tells a ceiling
static const double TOO_LONG = 50e-3;   // of one that the next size would make longer still

typedef struct Work {
    const Kernels *k;
    void *a, *b, *c;
    int64_t n;
} Work;

static void matrix_product(const Kernels *k, const Work *w)
{
    k->linear_forward(w->c, NULL, w->a, w->b, NULL, ACT_NONE, (LinearDims){w->n, w->n, w->n});
}

static void vector_product(const Kernels *k, const Work *w)
{
    k->multiply(w->c, w->a, w->b, w->n);
}

static void release(const Work *w)
{
    w->k->release(w->a);
    w->k->release(w->b);
    w->k->release(w->c);
}

// False if there is not enough memory for three times n elements.
static bool allocate(Work *w, int64_t n, size_t element_size)
{
    const size_t bytes = (size_t)n * element_size;
    if (3 * bytes > w->k->memory_free()) return false;
    w->a = w->k->alloc(bytes);
    w->b = w->k->alloc(bytes);
    w->c = w->k->alloc(bytes);
    if (w->a && w->b && w->c) return true;
    release(w);
    return false;
}

// Numbers as they occur, since zeros cost some devices less power: (n) fp32 in c, elements in a, b.
static int fill(const Work *w, int64_t n, Error *e)
{
    float *host = malloc((size_t)n * sizeof *host);
    if (!host) return fail(e, STATUS_IO, "out of memory for --profile");
    for (int64_t i = 0; i < n; i++) host[i] = (float)(i * 7919 % 1999) / 999.5f - 1.0f;
    w->k->upload(w->c, host, (size_t)n * sizeof *host);
    free(host);
    w->k->from_f32(w->a, w->c, n);
    w->k->from_f32(w->b, w->c, n);
    return STATUS_OK;
}

// Times `rounds` calls, one after the other; returns the fastest, in seconds.
static double fastest_call(const Work *w, void (*call)(const Kernels *, const Work *), int rounds)
{
    double seconds[ROUNDS];
    for (int i = 0; i < rounds; i++) {
        w->k->time_begin("ceiling");
        call(w->k, w);
        w->k->time_end();
    }
    w->k->times(seconds, rounds);
    for (int i = 1; i < rounds; i++)
        if (seconds[i] < seconds[0]) seconds[0] = seconds[i];
    return seconds[0];
}

// After one call that is not counted, as many as a tenth of a second has room for.
static int time_calls(double *best, const Work *w, void (*call)(const Kernels *, const Work *),
                      Error *e)
{
    Plan plan;
    call(kernels_plan_begin(w->k), w);
    if (kernels_plan_end(&plan, e)) return e->status;
    *best = fastest_call(w, call, 1);
    const double room = 0.1 / *best;
    *best = fastest_call(w, call, room < 1 ? 1 : room < ROUNDS ? (int)room : ROUNDS);
    return STATUS_OK;
}

static int measure_flop(Ceilings *c, const Kernels *k, Error *e)
{
    enum { FIRST = 64, LAST = 8192 };
    double seconds = 0;
    for (int64_t n = FIRST; n <= LAST && seconds < LONG_ENOUGH; n *= 2) {
        Work w = {.k = k, .n = n};
        if (!allocate(&w, n * n, sizeof(float))) break;
        int status = fill(&w, n * n, e);
        if (!status) status = time_calls(&seconds, &w, matrix_product, e);
        release(&w);
        if (status) return status;
        const double rate = 2.0 * (double)n * (double)n * (double)n / seconds;
        if (rate > c->flop) c->flop = rate;
    }
    return STATUS_OK;
}

static int measure_bandwidth(Ceilings *c, const Kernels *k, Error *e)
{
    double seconds = 0;
    for (int i = 0; i < BANDWIDTHS && seconds < TOO_LONG; i++) {
        const double bytes = (double)(1 << (18 + 2 * i)); // 256 KiB to 256 MiB
        Work w = {.k = k, .n = (int64_t)(bytes / 3) / (int64_t)sizeof(float)};
        if (!allocate(&w, w.n, sizeof(float))) break;
        const int status = time_calls(&seconds, &w, vector_product, e);
        release(&w);
        if (status) return status;
        c->bandwidth[c->bandwidths].bytes = bytes;
        c->bandwidth[c->bandwidths++].rate = bytes / seconds;
    }
    return STATUS_OK;
}

int profile_report(ProfileReport *r, const Kernels *k, Error *e)
{
    *r = (ProfileReport){
        .profile = kernels_profile_read(),
        .device = k->description,
        .dtype = kernels_dtype(k),
    };
    if (r->profile.steps == 0) return STATUS_OK;
    if (measure_flop(&r->ceilings, k, e)) return e->status;
    return measure_bandwidth(&r->ceilings, k, e);
}

double profile_floor(const ProfileReport *r, const ProfileEntry *entry, bool *arithmetic)
{
    const Ceilings *c = &r->ceilings;
    int i = 0;
    while (i < c->bandwidths - 1 && c->bandwidth[i].bytes < entry->bytes) i++;
    const double of_bytes = c->bandwidths ? entry->bytes / c->bandwidth[i].rate : 0;
    const double of_flop = c->flop > 0 ? entry->flop / c->flop : 0;
    *arithmetic = of_flop > of_bytes;
    return *arithmetic ? of_flop : of_bytes;
}

// Seconds of a step in one layer, and profile_floor() of its calls.
typedef struct LayerTime {
    const char *layer;
    double seconds, least;
} LayerTime;

// In the order in which a step first comes to them; returns how many.
static int layer_times(const ProfileReport *r, LayerTime times[static PROFILE_ENTRIES_MAX])
{
    int count = 0;
    for (int i = 0; i < r->profile.count; i++) {
        const ProfileEntry *e = &r->profile.entries[i];
        bool arithmetic;
        int t = 0;
        while (t < count && strcmp(times[t].layer, e->layer) != 0) t++;
        if (t == count) times[count++] = (LayerTime){.layer = e->layer};
        times[t].seconds += e->seconds / (double)r->profile.steps;
        times[t].least +=
            profile_floor(r, e, &arithmetic) * (double)e->calls / (double)r->profile.steps;
    }
    return count;
}

// ---- the tables ---------------------------------------------------------------------------------

enum { NARROWEST = 80, NARROW_COLUMNS = 41, WIDE_COLUMNS = 70, RATE_TEXT = 24 };

typedef struct Layout {
    int operation, layer, shape; // widths; shape 0: left out
    bool wide;
} Layout;

static int larger(int a, int b)
{
    return a > b ? a : b;
}

// The wide table has the shape, the fastest calls and both rates.
static Layout layout_for(const Profile *p, int width)
{
    Layout l = {.operation = (int)strlen("all operations"), .layer = (int)strlen("layer")};
    for (int i = 0; i < p->count; i++) {
        const ProfileEntry *e = &p->entries[i];
        l.operation = larger(l.operation, (int)strlen(e->operation));
        l.layer = larger(l.layer, (int)strlen(e->layer));
        l.shape = larger(l.shape, (int)strlen(e->shape));
    }
    l.wide = l.operation + l.layer + l.shape + WIDE_COLUMNS <= width;
    const int room = larger(width, NARROWEST) - l.operation - NARROW_COLUMNS;
    if (!l.wide && l.layer > room) l.layer = larger(room, (int)strlen("layer"));
    return l;
}

// "38.1 GB/s": three digits, in the unit that is the bound.
static void rate_text(char text[static RATE_TEXT], double per_second, bool arithmetic)
{
    const bool tera = per_second >= 1e13;
    const double rate = per_second * (tera ? 1e-12 : 1e-9);
    snprintf(text, RATE_TEXT, "%.*f %s%s",
             rate < 9.995   ? 2
             : rate < 99.95 ? 1
                            : 0,
             rate, tera ? "T" : "G", arithmetic ? "FLOP/s" : "B/s");
}

// The end of a layer's name tells it from others.
static void print_names(FILE *f, const Layout *l, const char *operation, const char *layer,
                        const char *shape)
{
    const int length = (int)strlen(layer);
    if (length > l->layer)
        fprintf(f, "%-*s ~%s", l->operation, operation, layer + length - l->layer + 1);
    else
        fprintf(f, "%-*s %-*s", l->operation, operation, l->layer, layer);
    if (l->wide) fprintf(f, " %-*s", l->shape, shape);
}

static void print_entry(const ProfileReport *r, FILE *f, const Layout *l, const ProfileEntry *e)
{
    bool arithmetic;
    char rate[RATE_TEXT];
    const Profile *p = &r->profile;
    const double least = profile_floor(r, e, &arithmetic), mean = e->seconds / (double)e->calls;
    const double calls = (double)e->calls / (double)p->steps, seconds = calls * mean;
    print_names(f, l, e->operation, e->layer, e->shape);
    fprintf(f, " %5.3g %7.3f", calls, 1e3 * seconds);
    if (l->wide) fprintf(f, " %7.3f", 1e3 * calls * e->fastest);
    fprintf(f, " %4.1f%%", 100 * seconds / p->step_seconds);
    if (l->wide) {
        rate_text(rate, e->flop / mean, true);
        fprintf(f, " %12s", e->flop > 0 ? rate : "-");
        rate_text(rate, e->bytes / mean, false);
    } else {
        rate_text(rate, (arithmetic ? e->flop : e->bytes) / mean, arithmetic);
    }
    fprintf(f, " %*s", l->wide ? 9 : 12, rate);
    if (l->wide) fprintf(f, " %-5s", arithmetic ? "flop" : "bytes");
    fprintf(f, " %*.0f%%\n", l->wide ? 6 : 5, 100 * least / mean);
}

static void print_head(FILE *f, const Layout *l)
{
    print_names(f, l, "operation", "layer", "shape");
    if (l->wide)
        fprintf(f, " %5s %7s %7s %5s %12s %9s %-5s %7s\n", "calls", "ms/step", "fastest", "share",
                "arithmetic", "memory", "bound", "ceiling");
    else
        fprintf(f, " %5s %7s %5s %12s %6s\n", "calls", "ms/step", "share", "rate", "ceil.");
}

static void print_layers(const ProfileReport *r, FILE *f, const Layout *l)
{
    LayerTime times[PROFILE_ENTRIES_MAX];
    const int count = layer_times(r, times);
    fprintf(f, "\n%-*s %7s %5s %6s\n", l->layer, "layer", "ms/step", "share", "ceil.");
    for (int i = 0; i < count; i++)
        fprintf(f, "%-*s %7.3f %4.1f%% %5.0f%%\n", l->layer, times[i].layer, 1e3 * times[i].seconds,
                100 * times[i].seconds / r->profile.step_seconds,
                100 * times[i].least / times[i].seconds);
}

static void print_sum(FILE *f, const Layout *l, const char *name, double seconds, double step)
{
    print_names(f, l, name, "", "");
    fprintf(f, " %5s %7.3f", "", 1e3 * seconds);
    if (l->wide) fprintf(f, " %7s", "");
    fprintf(f, " %4.1f%%\n", 100 * seconds / step);
}

static void print_ceilings(const ProfileReport *r, FILE *f)
{
    char rate[RATE_TEXT];
    const Ceilings *c = &r->ceilings;
    rate_text(rate, c->flop, true);
    fprintf(f, "\nceilings, measured now: matrix product %s; vectors of", rate);
    for (int i = 0; i < c->bandwidths; i++) {
        rate_text(rate, c->bandwidth[i].rate, false);
        fprintf(f, "%s%s %.3g MB %s", i ? "," : "", i % 3 ? "" : "\n ",
                1e-6 * c->bandwidth[i].bytes, rate);
    }
    fprintf(f, "\n");
}

void profile_print(const ProfileReport *r, FILE *f, int width)
{
    const Profile *p = &r->profile;
    if (p->steps == 0) {
        fprintf(f, "profile  no step but the first, which warms up; use --steps 10\n");
        return;
    }
    const Layout l = layout_for(p, width);
    double seconds = 0;
    fprintf(f, "profile  %lld steps of %.4g ms\n", (long long)p->steps, 1e3 * p->step_seconds);
    print_head(f, &l);
    for (int i = 0; i < p->count; i++) {
        print_entry(r, f, &l, &p->entries[i]);
        seconds += p->entries[i].seconds / (double)p->steps;
    }
    print_sum(f, &l, "all operations", seconds, p->step_seconds);
    print_sum(f, &l, "between them", p->step_seconds - seconds, p->step_seconds);
    print_layers(r, f, &l);
    print_ceilings(r, f);
}

// ---- profile.json -------------------------------------------------------------------------------

static void entry_json(const ProfileReport *r, const ProfileEntry *e, Json *j)
{
    bool arithmetic;
    const double steps = (double)r->profile.steps, calls = (double)e->calls;
    const double mean = e->seconds / calls, least = profile_floor(r, e, &arithmetic);
    json_object(j, NULL);
    json_string(j, "operation", e->operation);
    json_string(j, "layer", e->layer);
    json_string(j, "shape", e->shape);
    json_rounded(j, "calls", calls / steps, 6);
    json_rounded(j, "ms", 1e3 * e->seconds / steps, 6);
    json_rounded(j, "fastest_ms", 1e3 * calls / steps * e->fastest, 6);
    json_rounded(j, "share", e->seconds / steps / r->profile.step_seconds, 6);
    json_double(j, "flop", e->flop);
    json_double(j, "bytes", e->bytes);
    json_rounded(j, "gflop_per_s", 1e-9 * e->flop / mean, 6);
    json_rounded(j, "gb_per_s", 1e-9 * e->bytes / mean, 6);
    json_string(j, "bound", arithmetic ? "flop" : "bytes");
    json_rounded(j, "of_ceiling", least / mean, 6);
    json_end(j);
}

static void ceilings_json(const Ceilings *c, Json *j)
{
    json_object(j, "ceilings");
    json_rounded(j, "gflop_per_s", 1e-9 * c->flop, 6);
    json_array(j, "bandwidth");
    for (int i = 0; i < c->bandwidths; i++) {
        json_object(j, NULL);
        json_double(j, "bytes", c->bandwidth[i].bytes);
        json_rounded(j, "gb_per_s", 1e-9 * c->bandwidth[i].rate, 6);
        json_end(j);
    }
    json_end(j);
    json_end(j);
}

int profile_write(const ProfileReport *r, const char *path, Error *e)
{
    Json j = {0};
    json_object(&j, NULL);
    json_string(&j, "device", r->device);
    json_string(&j, "dtype", r->dtype);
    json_int(&j, "steps", r->profile.steps);
    json_rounded(&j, "step_ms", 1e3 * r->profile.step_seconds, 6);
    ceilings_json(&r->ceilings, &j);
    json_array(&j, "operations");
    for (int i = 0; i < r->profile.count; i++) entry_json(r, &r->profile.entries[i], &j);
    json_end(&j);
    json_end(&j);
    int status = json_finish(&j, e);
    if (!status) status = os_write_atomic(path, j.text, j.size, e);
    json_free(&j);
    return status;
}
