#include "base/safetensors.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/json.h"
#include "base/os.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors files are little-endian, and so is this code"
#endif

enum { ALIGNMENT = 4096, MAX_HEADER = 100000000 };

// Bytes of one element; 0 for a type we do not know.
static size_t dtype_bytes(const char *dtype)
{
    static const struct {
        const char *name;
        size_t bytes;
    } types[] = {{"F64", 8}, {"I64", 8}, {"U64", 8},  {"F32", 4},     {"I32", 4},
                 {"U32", 4}, {"F16", 2}, {"BF16", 2}, {"I16", 2},     {"U16", 2},
                 {"I8", 1},  {"U8", 1},  {"BOOL", 1}, {"F8_E5M2", 1}, {"F8_E4M3", 1}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(types[i].name, dtype) == 0) return types[i].bytes;
    return 0;
}

// Bytes of the tensor; false if that overflows or an extent is negative.
static bool tensor_bytes(const SafeTensor *t, size_t *bytes)
{
    *bytes = dtype_bytes(t->dtype);
    for (int i = 0; i < t->rank; i++)
        if (t->shape[i] < 0 || __builtin_mul_overflow(*bytes, (size_t)t->shape[i], bytes))
            return false;
    return true;
}

static uLong crc_text(uLong crc, const char *text) // with its end: two texts are not one
{
    return crc32_z(crc, (const Bytef *)text, strlen(text) + 1);
}

// The exclusive or of a CRC-32 for each tensor and for each pair of metadata whose key begins with
// "nn.": another program may write the file anew with both in another order.
static void checksum(char text[static 16], const SafeFile *f)
{
    uLong sum = 0;
    for (const SafeTensor *t = f->tensors; t < f->tensors + f->count; t++) {
        uLong crc = crc_text(crc_text(0, t->name), t->dtype);
        crc = crc32_z(crc, (const Bytef *)t->shape, (size_t)t->rank * sizeof *t->shape);
        sum ^= t->bytes ? crc32_z(crc, t->data, t->bytes) : crc;
    }
    for (const SafeMetadata *m = f->metadata; m < f->metadata + f->metadata_count; m++)
        if (strncmp(m->key, "nn.", 3) == 0 && strcmp(m->key, "nn.checksum") != 0)
            sum ^= crc_text(crc_text(0, m->key), m->value);
    snprintf(text, 16, "%08lx", sum);
}

// The tensors as they will lie in the file, with their bytes: larger elements first, else in the
// given order. NULL and e set on failure.
static SafeTensor *arrange(const SafeTensor *tensors, size_t count, Error *e)
{
    size_t n = 0;
    SafeTensor *arranged = calloc(count + 1, sizeof *arranged);
    if (!arranged) {
        fail(e, STATUS_IO, "not enough memory for %zu tensors", count);
        return NULL;
    }
    for (size_t element = 8; element > 0; element /= 2)
        for (size_t i = 0; i < count; i++) {
            if (dtype_bytes(tensors[i].dtype) != element) continue;
            arranged[n] = tensors[i];
            const bool valid = tensor_bytes(&arranged[n], &arranged[n].bytes);
            assert(valid);
            (void)valid;
            n++;
        }
    assert(n == count);
    return arranged;
}

static void write_header(Json *j, const SafeFile *f)
{
    char sum[16];
    checksum(sum, f);
    json_object(j, NULL);
    json_object(j, "__metadata__");
    for (size_t i = 0; i < f->metadata_count; i++)
        json_string(j, f->metadata[i].key, f->metadata[i].value);
    json_string(j, "nn.checksum", sum);
    json_end(j);
    size_t offset = 0;
    for (const SafeTensor *t = f->tensors; t < f->tensors + f->count; t++) {
        json_object(j, t->name);
        json_string(j, "dtype", t->dtype);
        json_array(j, "shape");
        for (int d = 0; d < t->rank; d++) json_int(j, NULL, t->shape[d]);
        json_end(j);
        json_array(j, "data_offsets");
        json_int(j, NULL, (int64_t)offset);
        json_int(j, NULL, (int64_t)(offset + t->bytes));
        json_end(j);
        json_end(j);
        offset += t->bytes;
    }
    json_end(j);
}

int safetensors_write(const char *path, const SafeTensor *tensors, size_t count,
                      const SafeMetadata *metadata, size_t metadata_count, Error *e)
{
    static const char spaces[ALIGNMENT] = {[0 ... ALIGNMENT - 1] = ' '};
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(tensors[k].name, tensors[i].name) == 0)
                return fail(e, STATUS_FAILED, "two tensors are named %s", tensors[i].name);
    SafeTensor *arranged = arrange(tensors, count, e);
    if (!arranged) return e->status;
    const SafeFile f = {.tensors = arranged,
                        .count = count,
                        .metadata = (SafeMetadata *)metadata, // not written to
                        .metadata_count = metadata_count};
    Json header = {0};
    Bytes *pieces = calloc(count + 3, sizeof *pieces);
    write_header(&header, &f);
    int status = json_finish(&header, e);
    if (!pieces) status = fail(e, STATUS_IO, "not enough memory to write %s", path);
    if (status == 0) {
        const size_t padding = (ALIGNMENT - (8 + header.size) % ALIGNMENT) % ALIGNMENT;
        const uint64_t header_bytes = header.size + padding;
        pieces[0] = (Bytes){&header_bytes, sizeof header_bytes};
        pieces[1] = (Bytes){header.text, header.size};
        pieces[2] = (Bytes){spaces, padding};
        for (size_t i = 0; i < count; i++)
            pieces[3 + i] = (Bytes){arranged[i].data, arranged[i].bytes};
        status = os_write_pieces(path, pieces, count + 3, e);
    }
    json_free(&header);
    free(pieces);
    free(arranged);
    return status;
}

struct SafeStorage {
    void *file;
    JsonDocument header;
};

// What the reader's functions share: the file being read, and where its errors go.
typedef struct Reader {
    SafeFile *f;
    const char *path;
    const char *data; // after the header
    size_t data_bytes;
    Error *e;
} Reader;

static int read_metadata(Reader *r, const JsonNode *object)
{
    if (object->type != JSON_OBJECT)
        return fail(r->e, STATUS_DATA, "%s: __metadata__ is not an object", r->path);
    SafeFile *f = r->f;
    f->metadata = calloc(object->count + 1, sizeof *f->metadata);
    if (!f->metadata) return fail(r->e, STATUS_IO, "not enough memory for %s", r->path);
    const JsonNode *c = json_first(object);
    for (size_t i = 0; i < object->count; i++, c = json_next(c)) {
        if (c->type != JSON_STRING)
            return fail(r->e, STATUS_DATA, "%s: metadata %s is not a string", r->path, c->key);
        f->metadata[f->metadata_count++] = (SafeMetadata){.key = c->key, .value = c->string};
    }
    return 0;
}

static int read_shape(Reader *r, SafeTensor *t, const JsonNode *shape)
{
    if (!shape || shape->type != JSON_ARRAY)
        return fail(r->e, STATUS_DATA, "%s: tensor %s has no shape", r->path, t->name);
    if (shape->count > SAFETENSORS_MAX_RANK)
        return fail(r->e, STATUS_DATA, "%s: tensor %s has %zu dimensions; at most %d are read",
                    r->path, t->name, shape->count, SAFETENSORS_MAX_RANK);
    const JsonNode *c = json_first(shape);
    for (size_t i = 0; i < shape->count; i++, c = json_next(c)) {
        if (c->type != JSON_INT || c->integer < 0)
            return fail(r->e, STATUS_DATA,
                        "%s: tensor %s: dimension %zu is not a whole number of 0 or more", r->path,
                        t->name, i);
        t->shape[t->rank++] = c->integer;
    }
    return 0;
}

static int read_offsets(Reader *r, SafeTensor *t, const JsonNode *offsets)
{
    if (!offsets || offsets->type != JSON_ARRAY || offsets->count != 2 ||
        offsets[1].type != JSON_INT || offsets[2].type != JSON_INT || offsets[1].integer < 0)
        return fail(r->e, STATUS_DATA, "%s: tensor %s: data_offsets are not two whole numbers",
                    r->path, t->name);
    const int64_t begin = offsets[1].integer, end = offsets[2].integer;
    if (end < begin || (uint64_t)end > r->data_bytes)
        return fail(r->e, STATUS_DATA,
                    "%s: tensor %s: data_offsets [%" PRId64 ", %" PRId64
                    "] are not inside the %zu bytes of data",
                    r->path, t->name, begin, end, r->data_bytes);
    size_t expected;
    if (!tensor_bytes(t, &expected))
        return fail(r->e, STATUS_DATA, "%s: the shape of tensor %s is too large", r->path, t->name);
    t->data = r->data + begin;
    t->bytes = (size_t)(end - begin);
    if (t->bytes != expected)
        return fail(r->e, STATUS_DATA,
                    "%s: tensor %s has %zu bytes; its shape and dtype %s make %zu", r->path,
                    t->name, t->bytes, t->dtype, expected);
    return 0;
}

static int read_tensor(Reader *r, const JsonNode *object)
{
    SafeTensor *t = &r->f->tensors[r->f->count++];
    t->name = object->key;
    const JsonNode *dtype = json_get(object, "dtype");
    if (!dtype || dtype->type != JSON_STRING)
        return fail(r->e, STATUS_DATA, "%s: tensor %s has no dtype", r->path, t->name);
    t->dtype = dtype->string;
    if (dtype_bytes(t->dtype) == 0)
        return fail(r->e, STATUS_DATA, "%s: tensor %s has unknown dtype %s", r->path, t->name,
                    t->dtype);
    if (read_shape(r, t, json_get(object, "shape"))) return r->e->status;
    return read_offsets(r, t, json_get(object, "data_offsets"));
}

static int compare_data(const void *a, const void *b)
{
    const SafeTensor *x = a, *y = b;
    if (x->data != y->data) return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; // empty tensors first
}

// The tensors fill the data from its start to its end, without overlaps or holes.
static int check_layout(Reader *r)
{
    const SafeFile *f = r->f;
    qsort(f->tensors, f->count, sizeof *f->tensors, compare_data);
    const char *at = r->data;
    for (const SafeTensor *t = f->tensors; t < f->tensors + f->count; t++) {
        if (t->data != at)
            return fail(r->e, STATUS_DATA, "%s: tensor %s starts at byte %zu of the data, not %zu",
                        r->path, t->name, (size_t)((const char *)t->data - r->data),
                        (size_t)(at - r->data));
        at += t->bytes;
    }
    const size_t used = (size_t)(at - r->data);
    if (used != r->data_bytes)
        return fail(r->e, STATUS_DATA, "%s: %zu bytes of data, but the tensors make %zu", r->path,
                    r->data_bytes, used);
    return 0;
}

static int check_sum(const Reader *r)
{
    // nn.crc32: files that were written before 2026-12, with a CRC-32 of the data in its order
    const char *expected = safetensors_metadata(r->f, "nn.checksum"),
               *of_data = safetensors_metadata(r->f, "nn.crc32");
    char found[16];
    if (expected)
        checksum(found, r->f);
    else if (of_data)
        snprintf(found, sizeof found, "%08lx", crc32_z(0, (const Bytef *)r->data, r->data_bytes));
    else
        return 0; // another program wrote the file
    if (strcmp(found, expected ? expected : of_data) == 0) return 0;
    return fail(r->e, STATUS_DATA, "%s is damaged: CRC-32 is %s, %s says %s", r->path, found,
                expected ? "nn.checksum" : "nn.crc32", expected ? expected : of_data);
}

static int read_header(Reader *r, const char *text, size_t size)
{
    SafeFile *f = r->f;
    if (size == 0 || text[0] != '{')
        return fail(r->e, STATUS_DATA,
                    "%s is no safetensors file: its header does not start with {", r->path);
    Error json;
    if (json_parse(&f->storage->header, text, size, &json))
        return fail(r->e, json.status, "%s: header: %s", r->path, json.message);
    const JsonNode *root = f->storage->header.root;
    f->tensors = calloc(root->count + 1, sizeof *f->tensors);
    if (!f->tensors) return fail(r->e, STATUS_IO, "not enough memory for %s", r->path);
    const JsonNode *c = json_first(root);
    for (size_t i = 0; i < root->count; i++, c = json_next(c)) {
        const bool metadata = strcmp(c->key, "__metadata__") == 0;
        if (metadata ? read_metadata(r, c) : read_tensor(r, c)) return r->e->status;
    }
    if (check_layout(r)) return r->e->status;
    return check_sum(r);
}

static int read_file(SafeFile *f, const char *path, Error *e)
{
    f->storage = calloc(1, sizeof *f->storage);
    if (!f->storage) return fail(e, STATUS_IO, "not enough memory for %s", path);
    size_t size;
    if (os_read_file(path, &f->storage->file, &size, e)) return e->status;
    const char *bytes = f->storage->file;
    uint64_t header = 0;
    if (size < sizeof header)
        return fail(e, STATUS_DATA, "%s is no safetensors file: it has only %zu bytes", path, size);
    memcpy(&header, bytes, sizeof header);
    const size_t rest = size - sizeof header;
    if (header > MAX_HEADER || header > rest)
        return fail(e, STATUS_DATA,
                    "%s is cut off or no safetensors file: its header should have %" PRIu64
                    " bytes, %zu follow and at most %d are allowed",
                    path, header, rest, MAX_HEADER);
    Reader r = {.f = f,
                .path = path,
                .data = bytes + sizeof header + header,
                .data_bytes = rest - (size_t)header,
                .e = e};
    return read_header(&r, bytes + sizeof header, (size_t)header);
}

int safetensors_open(SafeFile *f, const char *path, Error *e)
{
    *f = (SafeFile){0};
    const int status = read_file(f, path, e);
    if (status) safetensors_close(f);
    return status;
}

void safetensors_close(SafeFile *f)
{
    if (f->storage) {
        json_document_free(&f->storage->header);
        free(f->storage->file);
    }
    free(f->storage);
    free(f->tensors);
    free(f->metadata);
    *f = (SafeFile){0};
}

const SafeTensor *safetensors_get(const SafeFile *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->tensors[i].name, name) == 0) return &f->tensors[i];
    return NULL;
}

const char *safetensors_metadata(const SafeFile *f, const char *key)
{
    for (size_t i = 0; i < f->metadata_count; i++)
        if (strcmp(f->metadata[i].key, key) == 0) return f->metadata[i].value;
    return NULL;
}
