#include "train/predictor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/decode/decoder.h"
#include "base/os.h"
#include "base/utf8.h"

enum { STDOUT = 1, TOP = 5, PATH_COLUMNS = 48, BAR = 40 };

typedef struct Tally {
    int64_t pictures, right;
} Tally;

typedef struct Predictor {
    Setup *s;
    bool terminal, colors; // of stdout
    uint8_t *images;       // (batch,h,w,c)
    int32_t *labels;       // (batch) 0: nobody looks at the loss
    uint32_t *ids;         // (batch) 0
    float *logits;         // (batch,classes)
    double *share;         // (classes) the probabilities of one picture
    Tally *tally;          // (classes) of the pictures that have a class
    Tally all;
    int64_t bad;                     // pictures that could not be read
    int path_columns, class_columns; // of the table, which has a line a picture of folders
} Predictor;

// ---- beginning ----------------------------------------------------------------------------------

// Columns on a terminal, but for characters that are wide or have none.
static int columns_of(const char *text)
{
    int n = 0;
    for (; *text; text++) n += (*text & 0xc0) != 0x80;
    return n;
}

static void escape(char text[static PATH_MAX], const char *path)
{
    utf8_escape(text, PATH_MAX, path, 0);
}

static void measure(Predictor *p)
{
    char path[PATH_MAX];
    const Dataset *d = &p->s->data;
    const ScanList *l = &p->s->pictures.list;
    for (int64_t i = 0; i < l->n; i++) {
        escape(path, l->list[i].path);
        const int n = columns_of(path);
        if (n > p->path_columns && n <= PATH_COLUMNS) p->path_columns = n;
    }
    for (int k = 0; k < d->classes; k++)
        if (columns_of(d->class_names[k]) > p->class_columns)
            p->class_columns = columns_of(d->class_names[k]);
}

static void allocate(Predictor *p)
{
    const Setup *s = p->s;
    const size_t n = (size_t)s->batch, classes = (size_t)s->data.classes;
    p->images = calloc(n, (size_t)s->data.image_bytes);
    p->labels = calloc(n, sizeof *p->labels);
    p->ids = calloc(n, sizeof *p->ids);
    p->logits = calloc(n * classes, sizeof *p->logits);
    p->share = calloc(classes, sizeof *p->share);
    p->tally = calloc(classes, sizeof *p->tally);
    if (!p->images || !p->labels || !p->ids || !p->logits || !p->share || !p->tally)
        die(STATUS_IO, "not enough memory for %zu pictures at once", n);
}

static void release(Predictor *p)
{
    free(p->images);
    free(p->labels);
    free(p->ids);
    free(p->logits);
    free(p->share);
    free(p->tally);
}

// ---- a picture ----------------------------------------------------------------------------------

// Sets p->share to the softmax of the logits, and `top` to the classes with the largest; returns
// how many.
static int rank_classes(const Predictor *p, const float *logits, int top[static TOP])
{
    const Setup *s = p->s;
    const int classes = s->data.classes;
    double sum = 0;
    int count = 0;
    for (int k = 0; k < classes; k++) {
        int place = count < TOP ? count : TOP;
        while (place > 0 && logits[top[place - 1]] < logits[k]) place--;
        if (place == TOP) continue;
        if (count < TOP) count++;
        memmove(top + place + 1, top + place, (size_t)(count - 1 - place) * sizeof *top);
        top[place] = k;
    }
    for (int k = 0; k < classes; k++)
        sum += p->share[k] = exp((double)(s->net.logit_scale * (logits[k] - logits[top[0]])));
    for (int k = 0; k < classes; k++) p->share[k] /= sum;
    if (!isfinite(sum))
        die(STATUS_DIVERGED, "the network's output is not finite: %s", s->options->init);
    return count;
}

static void print_json(const Predictor *p, const ScanImage *picture, const int *top, int count)
{
    Error e;
    Json j = {0};
    char *const *names = p->s->data.class_names;
    json_object(&j, NULL);
    json_string(&j, "picture", picture->path);
    if (picture->bad) {
        json_string(&j, "error", picture->bad);
    } else {
        json_string(&j, "class", names[top[0]]);
        json_rounded(&j, "probability", p->share[top[0]], 6);
        if (picture->label >= 0) {
            json_string(&j, "label", names[picture->label]);
            json_bool(&j, "right", picture->label == top[0]);
        }
        json_array(&j, "top");
        for (int i = 0; i < count; i++) {
            json_object(&j, NULL);
            json_string(&j, "class", names[top[i]]);
            json_rounded(&j, "probability", p->share[top[i]], 6);
            json_end(&j);
        }
        json_end(&j);
    }
    json_end(&j);
    check(json_finish(&j, &e), &e);
    puts(j.text);
    json_free(&j);
}

static void print_padded(const char *text, int columns)
{
    const int missing = columns - columns_of(text);
    printf("%s%*s", text, missing > 0 ? missing : 0, "");
}

// "photos/cat/1.jpg  dog  51.2%  is cat"
static void print_row(const Predictor *p, const ScanImage *picture, const char *path, int class)
{
    char *const *names = p->s->data.class_names;
    print_padded(path, p->path_columns);
    fputs("  ", stdout);
    print_padded(names[class], p->class_columns);
    printf("  %5.1f%%", 100 * p->share[class]);
    if (picture->label >= 0 && picture->label != class)
        printf(p->colors ? "  \033[31mis %s\033[0m" : "  is %s", names[picture->label]);
    putchar('\n');
}

// The picture's name, then a line a class, with a bar on a terminal.
static void print_classes(const Predictor *p, const char *path, const int *top, int count)
{
    char *const *names = p->s->data.class_names;
    const int room = os_terminal_width(STDOUT) - p->class_columns - 14;
    puts(path);
    for (int i = 0; i < count; i++) {
        const double share = p->share[top[i]];
        const int bar = (int)(share * (room < BAR ? room : BAR) + 0.5);
        printf("  %5.1f%%  ", 100 * share);
        if (p->terminal && bar > 0) {
            print_padded(names[top[i]], p->class_columns);
            fputs(p->colors ? "  \033[32m" : "  ", stdout);
            for (int j = 0; j < bar; j++) putchar('=');
            puts(p->colors ? "\033[0m" : "");
        } else
            puts(names[top[i]]);
    }
}

static void count_picture(Predictor *p, int label, int class)
{
    if (label < 0) return;
    Tally *const tallies[] = {&p->all, &p->tally[label]};
    for (int i = 0; i < 2; i++) {
        tallies[i]->pictures++;
        tallies[i]->right += label == class;
    }
}

// `logits` (classes), NULL for one that could not be read.
static void print_picture(Predictor *p, const ScanImage *picture, const float *logits)
{
    const Setup *s = p->s;
    char path[PATH_MAX];
    int top[TOP] = {0}, count = 0;
    escape(path, picture->path);
    if (logits) {
        count = rank_classes(p, logits, top);
        count_picture(p, picture->label, top[0]);
    } else {
        p->bad++;
    }
    if (s->options->json) {
        print_json(p, picture, top, count);
    } else if (!logits) {
        fflush(stdout);
        report_error("%s: %s", path, picture->bad);
    } else if (s->pictures.folders) {
        print_row(p, picture, path, top[0]);
    } else {
        print_classes(p, path, top, count);
    }
}

// ---- all pictures -------------------------------------------------------------------------------

// Decodes the next pictures, at most a batch that can be read; returns how many.
static int64_t decode_batch(Predictor *p)
{
    Error e;
    NamedPictures *all = &p->s->pictures;
    const size_t each = (size_t)p->s->data.image_bytes;
    int64_t n = 0;
    while (n < p->s->batch) {
        ScanImage *picture;
        const uint8_t *pixels;
        SandboxResult r;
        check(decoder_next(&all->decoder, &all->queue, &picture, &pixels, &r, &e), &e);
        if (!picture) break;
        if (r.status == STATUS_OK) {
            memcpy(p->images + (size_t)n++ * each, pixels, each);
        } else if (!picture->bad && !(picture->bad = strdup(r.reason))) {
            die(STATUS_IO, "out of memory");
        }
    }
    return n;
}

static void infer_batch(Predictor *p)
{
    Setup *s = p->s;
    // Always whole, as planned: what stands in the last one's other rows does not matter.
    const Batch batch = {.images = p->images, .labels = p->labels, .ids = p->ids, .n = s->batch};
    feed_load(&s->feed, SPLIT_TEST, &batch);
    s->trainer->infer(VIEWS);
    s->kernels->download(p->logits, s->net.logits->value,
                         (size_t)(s->batch * s->data.classes) * sizeof *p->logits);
}

// Of a class, or of all: "cat  100  93  93.00%".
static void print_tally(const Predictor *p, const char *name, Tally t)
{
    print_padded(name, p->class_columns);
    printf("  %8lld  %8lld  %7.2f%%\n", (long long)t.pictures, (long long)t.right,
           100 * (double)t.right / (double)t.pictures);
}

static void print_accuracy(const Predictor *p, double seconds)
{
    const Setup *s = p->s;
    const int64_t read = s->pictures.list.n - p->bad;
    putchar('\n');
    if (p->all.pictures > 0) {
        print_padded("class", p->class_columns);
        puts("  pictures     right  accuracy");
        for (int k = 0; k < s->data.classes; k++)
            if (p->tally[k].pictures > 0) print_tally(p, s->data.class_names[k], p->tally[k]);
        print_tally(p, "all", p->all);
        putchar('\n');
    }
    printf("%lld pictures in %.2f s, %.0f/s", (long long)read, seconds, (double)read / seconds);
    if (p->bad > 0) printf("; %lld could not be read", (long long)p->bad);
    if (p->all.pictures > 0 && p->all.pictures < read)
        printf("; %lld in folders that are no class", (long long)(read - p->all.pictures));
    putchar('\n');
}

int predict(Setup *s)
{
    Predictor p = {.s = s, .terminal = os_is_terminal(STDOUT)};
    NamedPictures *all = &s->pictures;
    p.colors = p.terminal && os_wants_colors();
    allocate(&p);
    measure(&p);
    const double began = os_seconds();
    for (int64_t shown = 0; shown < all->list.n;) {
        int64_t row = 0;
        const int64_t n = decode_batch(&p);
        if (n > 0) infer_batch(&p);
        for (; shown < all->queue.taken; shown++) {
            const ScanImage *picture = &all->list.list[shown];
            const float *logits = p.logits + row * s->data.classes;
            print_picture(&p, picture, picture->bad ? NULL : logits);
            row += !picture->bad;
        }
    }
    if (all->folders && !s->options->json) print_accuracy(&p, os_seconds() - began);
    release(&p);
    if (fflush(stdout) || ferror(stdout)) die(STATUS_IO, "cannot write the answers");
    return p.bad > 0 ? STATUS_DATA : STATUS_OK;
}
