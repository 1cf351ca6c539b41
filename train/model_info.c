#include "train/model_info.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- writing ------------------------------------------------------------------------------------

static int classes_json(const Dataset *d, Json *j, Error *e)
{
    json_array(j, NULL);
    for (int i = 0; i < d->classes; i++) json_string(j, NULL, d->class_names[i]);
    json_end(j);
    return json_finish(j, e);
}

static int channels_json(const Dataset *d, const float *value, Json *j, Error *e)
{
    json_array(j, NULL);
    for (int i = 0; i < d->c; i++) json_rounded(j, NULL, (double)value[i], 9);
    json_end(j);
    return json_finish(j, e);
}

int model_text_make(ModelText *x, const char *trainer, const char *network, const Dataset *d,
                    Error *e)
{
    snprintf(x->input, sizeof x->input, "%dx%dx%d", d->h, d->w, d->c);
    int status = classes_json(d, &x->classes, e);
    if (status == STATUS_OK) status = channels_json(d, d->mean, &x->mean, e);
    if (status == STATUS_OK) status = channels_json(d, d->std, &x->std, e);
    const SafeMetadata metadata[MODEL_METADATA] = {
        {"format", "pt"},
        {"nn.trainer", trainer},
        {"nn.network", network},
        {"nn.options", x->options.text},
        {"nn.input", x->input},
        {"nn.fit", d->crop ? "crop" : "stretch"},
        {"nn.classes", x->classes.text},
        {"nn.mean", x->mean.text},
        {"nn.std", x->std.text},
    };
    memcpy(x->metadata, metadata, sizeof metadata);
    return status;
}

void model_text_free(ModelText *x)
{
    json_free(&x->options);
    json_free(&x->classes);
    json_free(&x->mean);
    json_free(&x->std);
}

// ---- reading ------------------------------------------------------------------------------------

static int wrong(const SafeFile *f, const char *path, const char *key, const char *expected,
                 Error *e)
{
    const char *value = safetensors_metadata(f, key);
    return fail(e, STATUS_DATA, "%s: its metadata has %.100s as %s, expected %s", path,
                value ? value : "nothing", key, expected);
}

// Absent metadata leave the document without a root.
static int read_json(JsonDocument *d, const SafeFile *f, const char *path, const char *key,
                     JsonType type, const char *expected, Error *e)
{
    Error syntax;
    const char *text = safetensors_metadata(f, key);
    *d = (JsonDocument){0};
    if (!text) return STATUS_OK;
    const int status = json_parse(d, text, strlen(text), &syntax);
    if (status == STATUS_IO) return fail(e, STATUS_IO, "%s: %s", path, syntax.message);
    if (status || d->root->type != type) return wrong(f, path, key, expected, e);
    return STATUS_OK;
}

static int read_channels(float value[static 4], const Dataset *d, const SafeFile *f,
                         const char *key, double above, Error *e)
{
    const char *expected = "a list of one number for each channel of nn.input";
    JsonDocument list;
    int status = read_json(&list, f, d->source, key, JSON_ARRAY, expected, e);
    if (status == STATUS_OK && (!list.root || list.root->count != (size_t)d->c))
        status = wrong(f, d->source, key, expected, e);
    const JsonNode *item = status ? NULL : json_first(list.root);
    for (int i = 0; i < d->c && status == STATUS_OK; i++, item = json_next(item)) {
        const double x = item->type == JSON_INT      ? (double)item->integer
                         : item->type == JSON_DOUBLE ? item->number
                                                     : -1e9;
        value[i] = (float)x;
        if (!(x > above && x < 1e3)) status = wrong(f, d->source, key, expected, e);
    }
    json_document_free(&list);
    return status;
}

static int read_classes(ModelInfo *m, const SafeFile *f, Error *e)
{
    const char *expected = "a list of the classes' names";
    Dataset *d = &m->data;
    const int status = read_json(&m->classes, f, d->source, "nn.classes", JSON_ARRAY, expected, e);
    if (status) return status;
    const size_t n = m->classes.root ? m->classes.root->count : 0;
    if (n < 1 || n > SHARD_MAX_CLASSES) return wrong(f, d->source, "nn.classes", expected, e);
    d->class_names = calloc(n, sizeof *d->class_names);
    if (!d->class_names) return fail(e, STATUS_IO, "no memory for %zu classes", n);
    const JsonNode *item = json_first(m->classes.root);
    for (size_t i = 0; i < n; i++, item = json_next(item)) {
        if (item->type != JSON_STRING || !class_name_valid(item->string, strlen(item->string)))
            return wrong(f, d->source, "nn.classes", expected, e);
        d->class_names[i] = (char *)item->string; // not written to
    }
    d->classes = (int)n;
    return STATUS_OK;
}

static int read_input(ModelInfo *m, const SafeFile *f, Error *e)
{
    Dataset *d = &m->data;
    const char *input = safetensors_metadata(f, "nn.input"),
               *fit = safetensors_metadata(f, "nn.fit");
    char rest;
    if (!input) return STATUS_OK;
    if (sscanf(input, "%5dx%5dx%1d%c", &d->h, &d->w, &d->c, &rest) != 3 || d->h < 1 || d->w < 1 ||
        d->h > SHARD_MAX_SIDE || d->w > SHARD_MAX_SIDE || (d->c != 1 && d->c != 3))
        return wrong(f, d->source, "nn.input", "height x width x channels as 32x32x3", e);
    d->image_bytes = (int64_t)d->h * d->w * d->c;
    d->crop = fit && strcmp(fit, "crop") == 0;
    if (fit && !d->crop && strcmp(fit, "stretch") != 0)
        return wrong(f, d->source, "nn.fit", "crop or stretch", e);
    int status = read_classes(m, f, e);
    if (status == STATUS_OK) status = read_channels(d->mean, d, f, "nn.mean", -1e3, e);
    if (status == STATUS_OK) status = read_channels(d->std, d, f, "nn.std", 0, e);
    m->described = status == STATUS_OK;
    return status;
}

int trainer_of_today(char today[static TRAINER_MAX], const char *trainer, const JsonNode *options,
                     const char *path, Error *e)
{
    const JsonNode *net = options ? json_get(options, "net") : NULL;
    const char *name = net && net->type == JSON_STRING ? net->string : "";
    const bool former = strcmp(trainer, "train_cnn") == 0;
    snprintf(today, TRAINER_MAX, "%s", trainer);
    if (former && strcmp(name, "airbench") == 0) snprintf(today, TRAINER_MAX, "train_airbench");
    if (!former || strcmp(name, "simple") != 0) return STATUS_OK;
    return fail(e, STATUS_DATA,
                "%s is of the former train_cnn --net simple, which no program takes today; train "
                "anew: ./train_cnn --net plain",
                path);
}

int model_info_read(ModelInfo *m, const char *path, Error *e)
{
    SafeFile f;
    *m = (ModelInfo){.data.std = {1, 1, 1, 1}};
    if ((size_t)snprintf(m->data.source, sizeof m->data.source, "%s", path) >=
        sizeof m->data.source)
        return fail(e, STATUS_USAGE, "the name of the model's file is too long");
    int status = safetensors_open(&f, path, e);
    if (status) return status;
    const char *trainer = safetensors_metadata(&f, "nn.trainer");
    status = read_json(&m->options, &f, path, "nn.options", JSON_OBJECT,
                       "an object such as {\"net\":\"plain\",\"width\":1}", e);
    if (status == STATUS_OK)
        status = trainer_of_today(m->trainer, trainer ? trainer : "", m->options.root, path, e);
    if (status == STATUS_OK) status = read_input(m, &f, e);
    safetensors_close(&f);
    if (status) model_info_free(m);
    return status;
}

void model_info_free(ModelInfo *m)
{
    free(m->data.class_names);
    json_document_free(&m->classes);
    json_document_free(&m->options);
    *m = (ModelInfo){0};
}

int model_info_apply(const ModelInfo *m, Dataset *d, Error *e)
{
    if (!m->described) return STATUS_OK;
    bool same = m->data.classes == d->classes;
    for (int k = 0; same && k < d->classes; k++)
        same = strcmp(m->data.class_names[k], d->class_names[k]) == 0;
    if (!same) {
        Json of_model = {0}, of_data = {0};
        int status = classes_json(&m->data, &of_model, e);
        if (status == STATUS_OK) status = classes_json(d, &of_data, e);
        if (status == STATUS_OK)
            status = fail(e, STATUS_DATA, "%s was trained on the classes %.200s, but %s has %.200s",
                          m->data.source, of_model.text, d->source, of_data.text);
        json_free(&of_model);
        json_free(&of_data);
        return status;
    }
    memcpy(d->mean, m->data.mean, sizeof d->mean);
    memcpy(d->std, m->data.std, sizeof d->std);
    return STATUS_OK;
}

int model_info_same_input(const ModelInfo *m, const Dataset *d, Error *e)
{
    const Dataset *of = &m->data;
    if (!m->described || (of->h == d->h && of->w == d->w && of->c == d->c)) return STATUS_OK;
    return fail(e, STATUS_DATA,
                "%s was trained on pictures of %dx%dx%d, but %s has %dx%dx%d: prepare them with "
                "--size %dx%d",
                of->source, of->h, of->w, of->c, d->source, d->h, d->w, d->c, of->h, of->w);
}
