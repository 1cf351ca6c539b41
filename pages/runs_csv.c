#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pages/runs.h"

// A member of the records, or of an object in them: its column is then named object.member.
typedef struct Column {
    const char *object; // NULL: of the record itself
    const char *key;
} Column;

typedef struct Columns {
    Column *list;
    size_t count;
} Columns;

static bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool add(Columns *c, const char *object, const char *key)
{
    for (size_t i = 0; i < c->count; i++)
        if (same(c->list[i].object, object) && strcmp(c->list[i].key, key) == 0) return true;
    Column *more = realloc(c->list, (c->count + 1) * sizeof *more);
    if (!more) return false;
    c->list = more;
    c->list[c->count++] = (Column){object, key};
    return true;
}

// In the order in which they occur first.
static bool collect(Columns *c, const JsonNode *value, const char *object)
{
    if (value->type != JSON_OBJECT) return true;
    const JsonNode *member = json_first(value);
    for (size_t i = 0; i < value->count; i++, member = json_next(member)) {
        const bool group = member->type == JSON_OBJECT && !object;
        if (!(group ? collect(c, member, member->key) : add(c, object, member->key))) return false;
    }
    return true;
}

static void print_text(const char *text)
{
    const bool quoted = strpbrk(text, "\",\r\n");
    if (quoted) putchar('"');
    for (; *text; text++) {
        if (*text == '"') putchar('"');
        putchar(*text);
    }
    if (quoted) putchar('"');
}

static void print_value(const JsonNode *value)
{
    if (!value) return;
    if (value->type == JSON_STRING)
        print_text(value->string);
    else if (value->type == JSON_BOOL)
        fputs(value->boolean ? "true" : "false", stdout);
    else if (value->type == JSON_INT)
        printf("%lld", (long long)value->integer);
    else if (value->type == JSON_DOUBLE)
        printf("%.*g", json_digits(value->number), value->number);
}

int runs_csv(const SavedRun *r, Error *e)
{
    Columns c = {0};
    bool complete = true;
    for (size_t i = 0; i < r->log.count; i++)
        complete = complete && collect(&c, r->log.records[i].root, NULL);
    for (size_t i = 0; i < c.count; i++) {
        char name[512];
        snprintf(name, sizeof name, "%s%s%s", c.list[i].object ? c.list[i].object : "",
                 c.list[i].object ? "." : "", c.list[i].key);
        if (i > 0) putchar(',');
        print_text(name);
    }
    if (c.count > 0) fputs("\r\n", stdout);
    for (size_t row = 0; row < r->log.count; row++) {
        const JsonNode *record = r->log.records[row].root;
        for (size_t i = 0; i < c.count; i++) {
            const Column *column = &c.list[i];
            if (i > 0) putchar(',');
            print_value(
                json_get(column->object ? json_get(record, column->object) : record, column->key));
        }
        fputs("\r\n", stdout);
    }
    free(c.list);
    if (!complete) return fail(e, STATUS_IO, "not enough memory for the columns of %s", r->path);
    return STATUS_OK;
}
