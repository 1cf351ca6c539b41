#include "train/model_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Between the device's (out,h,w,in) and PyTorch's (out,in,h,w); other ranks are alike in both.
static void reorder(float *dst, const float *src, const Tensor *t, bool to_pytorch)
{
    if (t->rank != 4) {
        memcpy(dst, src, (size_t)t->n * sizeof(float));
        return;
    }
    const int64_t hw = t->shape[1] * t->shape[2], in = t->shape[3];
    for (int64_t o = 0; o < t->shape[0]; o++)
        for (int64_t p = 0; p < hw; p++)
            for (int64_t i = 0; i < in; i++) {
                const int64_t device = (o * hw + p) * in + i, pytorch = (o * in + i) * hw + p;
                dst[to_pytorch ? pytorch : device] = src[to_pytorch ? device : pytorch];
            }
}

static bool is_loaded(const Tensor *t)
{
    return t->kind == PARAMETER || t->kind == BUFFER;
}

// Name, type and shape of a tensor's entry, without data.
static SafeTensor entry_of(const Tensor *t)
{
    SafeTensor s = {.name = t->name, .dtype = t->kind == COUNTER ? "I64" : "F32", .rank = t->rank};
    if (t->rank == 4 && t->flatten) {
        s.rank = 2;
        s.shape[0] = t->shape[0];
        s.shape[1] = t->shape[1] * t->shape[2] * t->shape[3];
    } else if (t->rank == 4) {
        const int64_t shape[4] = {t->shape[0], t->shape[3], t->shape[1], t->shape[2]};
        memcpy(s.shape, shape, sizeof shape);
    } else {
        memcpy(s.shape, t->shape, sizeof t->shape);
    }
    return s;
}

// The tensor's host copy in PyTorch's layout, to be freed; NULL if memory is short.
static void *host_copy(const Tensor *t, const Kernels *k)
{
    if (t->kind == COUNTER) return calloc(1, sizeof(int64_t));
    float *device_layout = malloc((size_t)t->n * sizeof(float));
    float *saved = malloc((size_t)t->n * sizeof(float));
    if (device_layout && saved) {
        if (t->kind == CONSTANT)
            for (int64_t i = 0; i < t->n; i++) device_layout[i] = t->fill;
        else
            k->download(device_layout, t->master, (size_t)t->n * sizeof(float));
        reorder(saved, device_layout, t, true);
    } else {
        free(saved);
        saved = NULL;
    }
    free(device_layout);
    return saved;
}

int model_save(const Tensors *t, const Kernels *k, const char *path, const SafeMetadata *metadata,
               size_t metadata_count, Error *e)
{
    SafeTensor entries[TENSORS_MAX];
    void *copies[TENSORS_MAX];
    size_t n = 0;
    int status = STATUS_OK;
    for (int i = 0; i < t->count && status == STATUS_OK; i++) {
        if (t->list[i].kind == ACTIVATION) continue;
        entries[n] = entry_of(&t->list[i]);
        copies[n] = host_copy(&t->list[i], k);
        entries[n].data = copies[n];
        if (!copies[n++]) status = fail(e, STATUS_IO, "out of memory while saving %s", path);
    }
    if (status == STATUS_OK)
        status = safetensors_write(path, entries, n, metadata, metadata_count, e);
    for (size_t i = 0; i < n; i++) free(copies[i]);
    return status;
}

static void shape_text(const SafeTensor *s, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "%s(", s->dtype);
    for (int i = 0; i < s->rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, i ? ",%lld" : "%lld",
                                 (long long)s->shape[i]);
    if (used < size) snprintf(text + used, size - used, ")");
}

static bool same_entry(const SafeTensor *found, const SafeTensor *want)
{
    bool same = found->rank == want->rank && strcmp(found->dtype, want->dtype) == 0;
    for (int i = 0; same && i < want->rank; i++) same = found->shape[i] == want->shape[i];
    return same;
}

static const Tensor *find_saved(const Tensors *t, const char *name)
{
    for (int i = 0; i < t->count; i++)
        if (t->list[i].kind != ACTIVATION && strcmp(t->list[i].name, name) == 0) return &t->list[i];
    return NULL;
}

typedef struct List {
    int count;
    char text[240]; // "a, b, c"; "..." at the end if there are more
} List;

static void list_add(List *l, const char *item)
{
    const size_t used = strlen(l->text);
    const bool fits = used + strlen(item) + sizeof ", ..." < sizeof l->text;
    const bool full = used >= 3 && strcmp(l->text + used - 3, "...") == 0;
    if (!full)
        snprintf(l->text + used, sizeof l->text - used, "%s%s", used ? ", " : "",
                 fits ? item : "...");
    l->count++;
}

// A constant is part of the network's arithmetic here: a file with other values is of another one.
static bool is_filled(const SafeTensor *found, const Tensor *t)
{
    for (int64_t i = 0; i < t->n; i++) {
        float value; // which may not be aligned
        memcpy(&value, (const char *)found->data + (size_t)i * sizeof value, sizeof value);
        if (value != t->fill) return false;
    }
    return true;
}

static void compare_constants(const SafeFile *f, const Tensors *t, List *different)
{
    for (int i = 0; i < t->count; i++) {
        const Tensor *x = &t->list[i];
        const SafeTensor want = entry_of(x), *found = safetensors_get(f, want.name);
        if (x->kind != CONSTANT || !found) continue;
        if (same_entry(found, &want) && is_filled(found, x)) continue;
        char item[240];
        snprintf(item, sizeof item, "%s is not %g everywhere", want.name, (double)x->fill);
        list_add(different, item);
    }
}

static void compare_entries(const SafeFile *f, const Tensors *t, List *missing, List *different)
{
    for (int i = 0; i < t->count; i++) {
        if (!is_loaded(&t->list[i])) continue;
        const SafeTensor want = entry_of(&t->list[i]), *found = safetensors_get(f, want.name);
        if (!found) list_add(missing, want.name);
        if (!found || same_entry(found, &want)) continue;
        char is[64], should[64], item[240];
        shape_text(found, is, sizeof is);
        shape_text(&want, should, sizeof should);
        snprintf(item, sizeof item, "%s is %s for %s", want.name, is, should);
        list_add(different, item);
    }
}

// Everything is checked before the first weight is touched.
static int check_names(const SafeFile *f, const Tensors *t, const char *path, Error *e)
{
    List missing = {0}, different = {0}, unexpected = {0};
    compare_entries(f, t, &missing, &different);
    compare_constants(f, t, &different);
    for (size_t i = 0; i < f->count; i++)
        if (!find_saved(t, f->tensors[i].name)) list_add(&unexpected, f->tensors[i].name);
    if (missing.count + different.count + unexpected.count == 0) return STATUS_OK;
    char text[800] = "";
    size_t used = 0;
    const struct {
        const List *list;
        const char *name;
    } parts[] = {{&missing, "missing"}, {&unexpected, "unexpected"}, {&different, "different"}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i].list->count)
            used += (size_t)snprintf(text + used, sizeof text - used, "%d %s: %s; ",
                                     parts[i].list->count, parts[i].name, parts[i].list->text);
    return fail(e, STATUS_DATA,
                "%s does not fit this network: %sis it another trainer, --net, --width, --hidden "
                "or data set?",
                path, text);
}

int model_read(const Tensors *t, const Kernels *k, const SafeFile *f, const char *path, Error *e)
{
    int status = check_names(f, t, path, e);
    for (int i = 0; i < t->count && status == STATUS_OK; i++) {
        const Tensor *x = &t->list[i];
        if (!is_loaded(x)) continue;
        const size_t bytes = (size_t)x->n * sizeof(float);
        float *saved = malloc(bytes), *host = malloc(bytes);
        if (saved && host) {
            memcpy(saved, safetensors_get(f, x->name)->data, bytes); // which may not be aligned
            reorder(host, saved, x, false);
            tensor_upload(x, k, host);
        } else {
            status = fail(e, STATUS_IO, "out of memory while loading %s", path);
        }
        free(saved);
        free(host);
    }
    return status;
}

int model_check(const Tensors *t, const char *path, Error *e)
{
    SafeFile f;
    if (safetensors_open(&f, path, e)) return e->status;
    const int status = check_names(&f, t, path, e);
    safetensors_close(&f);
    return status;
}

int model_load(const Tensors *t, const Kernels *k, const char *path, Error *e)
{
    SafeFile f;
    if (safetensors_open(&f, path, e)) return e->status;
    const int status = model_read(t, k, &f, path, e);
    safetensors_close(&f);
    return status;
}
