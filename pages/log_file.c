#include "pages/log_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/os.h"

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

int log_file_read(LogFile *l, const char *path, Error *e)
{
    void *data;
    size_t size;
    Error ignored;
    *l = (LogFile){0};
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

void log_file_free(LogFile *l)
{
    for (size_t i = 0; i < l->count; i++) json_document_free(&l->records[i]);
    free(l->records);
    *l = (LogFile){0};
}

double *log_file_column(const LogFile *l, const char *kind, bool inside, const char *key,
                        size_t *count)
{
    double *values = calloc(l->count + 1, sizeof *values);
    *count = 0;
    for (size_t i = 0; values && i < l->count; i++) {
        const JsonNode *record = l->records[i].root, *member = json_get(record, kind);
        if (!member) continue;
        values[(*count)++] = json_number(json_get(inside ? member : record, key));
    }
    return values;
}

const JsonNode *log_file_last(const LogFile *l, const char *kind)
{
    for (size_t i = l->count; i-- > 0;)
        if (json_get(l->records[i].root, kind)) return l->records[i].root;
    return NULL;
}
