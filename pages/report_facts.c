#include "pages/report_facts.h"

#include <stdlib.h>
#include <string.h>

#include "data/shard.h"
#include "pages/members.h"

// Training processes leave fewer; what a page can show.
enum { PICTURES_MAX = 1000, CHANNELS_MAX = 4 };

// What the functions share: the file that is read, and where errors go.
typedef struct Reader {
    ReportFacts *f;
    const char *path;
    Error *e;
} Reader;

// Sets the error: what is wrong in the file.
#define wrong(r, format, ...) fail((r)->e, STATUS_DATA, "%s: " format, (r)->path, __VA_ARGS__)

// The data of a tensor that must have that type and so many dimensions; NULL sets the error.
// *shape: where they are.
static const void *tensor(const Reader *r, const char *name, const char *dtype, int rank,
                          const int64_t **shape)
{
    const SafeTensor *t = safetensors_get(&r->f->file, name);
    if (!t || strcmp(t->dtype, dtype) != 0 || t->rank != rank) {
        fail(r->e, STATUS_DATA, "%s is no file of a run's facts: it has no %s %s of %d dimensions",
             r->path, dtype, name, rank);
        return NULL;
    }
    const size_t element = strcmp(dtype, "U8") == 0 ? 1 : strcmp(dtype, "U16") == 0 ? 2 : 4;
    if ((uintptr_t)t->data % element != 0) {
        wrong(r, "%s is not aligned to its elements", name);
        return NULL;
    }
    *shape = t->shape;
    return t->data;
}

static int object(const Reader *r, const char *name, JsonDocument *d)
{
    Error why;
    const int64_t *size;
    const char *text = tensor(r, name, "U8", 1, &size);
    if (!text) return r->e->status;
    if (json_parse(d, text, (size_t)*size, &why))
        return fail(r->e, why.status, "%s: %s: %s", r->path, name, why.message);
    if (d->root->type != JSON_OBJECT) return wrong(r, "%s is not a JSON object", name);
    return STATUS_OK;
}

// A whole number of `from`, 1 to `most`.
static int whole(const Reader *r, const JsonNode *from, const char *key, int64_t most, int64_t *n)
{
    const JsonNode *value = json_get(from, key);
    if (!value || value->type != JSON_INT || value->integer < 1 || value->integer > most)
        return wrong(r, "run: %s is not a whole number from 1 to %lld", key, (long long)most);
    *n = value->integer;
    return STATUS_OK;
}

static int read_classes(const Reader *r, const JsonNode *classes)
{
    ReportFacts *f = r->f;
    if (!classes || classes->type != JSON_ARRAY || classes->count < 1 ||
        classes->count > SHARD_MAX_CLASSES)
        return wrong(r, "run: classes are not 1 to %d names", SHARD_MAX_CLASSES);
    f->classes = (int)classes->count;
    f->class_names = calloc(classes->count, sizeof *f->class_names);
    if (!f->class_names) return fail(r->e, STATUS_IO, "not enough memory for %s", r->path);
    const JsonNode *name = json_first(classes);
    for (int i = 0; i < f->classes; i++, name = json_next(name))
        f->class_names[i] = json_text(name);
    return STATUS_OK;
}

static int read_run(const Reader *r)
{
    ReportFacts *f = r->f;
    const JsonNode *run = f->run_text.root, *data = json_get(run, "data");
    int64_t h = 0, w = 0, c = 0;
    if (whole(r, data, "train", UINT32_MAX, &f->train) ||
        whole(r, data, "test", UINT32_MAX, &f->test) ||
        whole(r, data, "height", SHARD_MAX_SIDE, &h) ||
        whole(r, data, "width", SHARD_MAX_SIDE, &w) || whole(r, data, "channels", CHANNELS_MAX, &c))
        return r->e->status;
    f->h = (int)h, f->w = (int)w, f->c = (int)c;
    f->state = member_text(run, "state");
    f->live = member_is_true(run, "live");
    f->first_layer = member_text(run, "first_layer");
    f->source = member_text(data, "source");
    f->embedded = member_is_true(data, "embedded");
    return read_classes(r, json_get(data, "classes"));
}

static int read_predictions(const Reader *r)
{
    ReportFacts *f = r->f;
    const int64_t *labels, *predicted, *probabilities;
    f->label = tensor(r, "test.label", "U16", 1, &labels);
    f->predicted = f->label ? tensor(r, "test.predicted", "U16", 1, &predicted) : NULL;
    f->probability = f->predicted ? tensor(r, "test.probability", "F32", 1, &probabilities) : NULL;
    if (!f->probability) return r->e->status;
    f->tested = *labels;
    if (*predicted != f->tested || *probabilities != f->tested || f->tested > f->test)
        return wrong(r, "not a label, prediction and probability each for at most %lld test images",
                     (long long)f->test);
    for (int64_t i = 0; i < f->tested; i++)
        if (f->label[i] >= f->classes || f->predicted[i] >= f->classes)
            return wrong(r, "test image %lld has a class above %d", (long long)i, f->classes - 1);
    return STATUS_OK;
}

// The pixels (count,h,w,c) of pictures of the data.
static const uint8_t *pixels(const Reader *r, const char *name, int *count)
{
    const ReportFacts *f = r->f;
    const int64_t *shape;
    const uint8_t *data = tensor(r, name, "U8", 4, &shape);
    if (!data) return NULL;
    if (shape[0] > PICTURES_MAX || shape[1] != f->h || shape[2] != f->w || shape[3] != f->c) {
        wrong(r, "%s are not at most %d pictures of %dx%dx%d", name, PICTURES_MAX, f->h, f->w,
              f->c);
        return NULL;
    }
    *count = (int)shape[0];
    return data;
}

static int read_pictures(const Reader *r)
{
    ReportFacts *f = r->f;
    const int64_t *ids;
    f->mistake = tensor(r, "mistakes.image", "U32", 1, &ids);
    f->mistake_pixels = f->mistake ? pixels(r, "mistakes.pixels", &f->mistakes) : NULL;
    f->input_pixels = f->mistake_pixels ? pixels(r, "inputs", &f->inputs) : NULL;
    if (!f->input_pixels) return r->e->status;
    bool tested = *ids == f->mistakes;
    for (int i = 0; tested && i < f->mistakes; i++) tested = f->mistake[i] < f->tested;
    return tested ? STATUS_OK
                  : wrong(r, "mistakes.image are not a tested image for each of the %d pictures",
                          f->mistakes);
}

static int read_filters(const Reader *r)
{
    ReportFacts *f = r->f;
    const int64_t *shape;
    f->filter_weights = tensor(r, "filters", "F32", 4, &shape);
    if (!f->filter_weights) return r->e->status;
    const bool sides = shape[1] >= 1 && shape[1] <= SHARD_MAX_SIDE && shape[2] >= 1 &&
                       shape[2] <= SHARD_MAX_SIDE && shape[3] >= 1 && shape[3] <= CHANNELS_MAX;
    if (shape[0] > PICTURES_MAX || (shape[0] > 0 && !sides))
        return wrong(r, "filters are not at most %d of up to %dx%dx%d", PICTURES_MAX,
                     SHARD_MAX_SIDE, SHARD_MAX_SIDE, CHANNELS_MAX);
    f->filters = (int)shape[0];
    if (f->filters > 0)
        f->filter_h = (int)shape[1], f->filter_w = (int)shape[2], f->filter_c = (int)shape[3];
    return STATUS_OK;
}

int report_facts_read(ReportFacts *f, const char *path, Error *e)
{
    *f = (ReportFacts){0};
    const Reader r = {f, path, e};
    int status = safetensors_open(&f->file, path, e);
    if (status == STATUS_OK) status = object(&r, "summary", &f->summary_text);
    if (status == STATUS_OK) status = object(&r, "run", &f->run_text);
    if (status == STATUS_OK) status = read_run(&r);
    if (status == STATUS_OK) status = read_predictions(&r);
    if (status == STATUS_OK) status = read_pictures(&r);
    if (status == STATUS_OK) status = read_filters(&r);
    f->summary = f->summary_text.root;
    if (status) report_facts_free(f);
    return status;
}

void report_facts_free(ReportFacts *f)
{
    free(f->class_names);
    json_document_free(&f->summary_text);
    json_document_free(&f->run_text);
    safetensors_close(&f->file);
    *f = (ReportFacts){0};
}
