#include "base/json.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

static void append(Json *j, const char *text, size_t size)
{
    if (j->out_of_memory) return;
    if (j->capacity - j->size < size + 1) {
        const size_t capacity = 2 * j->capacity + size + 256;
        char *bigger = realloc(j->text, capacity);
        if (!bigger) {
            j->out_of_memory = true;
            return;
        }
        j->text = bigger;
        j->capacity = capacity;
    }
    memcpy(j->text + j->size, text, size);
    j->size += size;
    j->text[j->size] = '\0';
}

static void append_string(Json *j, const char *value)
{
    append(j, "\"", 1);
    const unsigned char *s = (const unsigned char *)value;
    for (size_t left = strlen(value); left > 0;) {
        const size_t n = utf8_length((const char *)s, (const char *)s + left);
        char escape[8];
        if (n == 0)
            append(j, "\xef\xbf\xbd", 3);
        else if (*s == '"' || *s == '\\')
            append(j, (char[]){'\\', (char)*s}, 2);
        else if (*s < 0x20 || *s == 0x7f)
            append(j, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", *s));
        else
            append(j, (const char *)s, n);
        s += n ? n : 1;
        left -= n ? n : 1;
    }
    append(j, "\"", 1);
}

// The comma before a value that is not its parent's first, and its key.
static void begin_value(Json *j, const char *key)
{
    const char last = (char)(j->size ? j->text[j->size - 1] : '[');
    if (last != '{' && last != '[') append(j, ",", 1);
    assert(j->depth == 0 || (key != NULL) == (j->closers[j->depth - 1] == '}'));
    if (!key) return;
    append_string(j, key);
    append(j, ":", 1);
}

static void open_value(Json *j, const char *key, const char *bracket, char closer)
{
    assert(j->depth < JSON_MAX_DEPTH);
    begin_value(j, key);
    append(j, bracket, 1);
    j->closers[j->depth++] = closer;
}

void json_object(Json *j, const char *key)
{
    open_value(j, key, "{", '}');
}

void json_array(Json *j, const char *key)
{
    open_value(j, key, "[", ']');
}

void json_end(Json *j)
{
    assert(j->depth > 0);
    append(j, &j->closers[--j->depth], 1);
}

void json_string(Json *j, const char *key, const char *value)
{
    begin_value(j, key);
    if (value)
        append_string(j, value);
    else
        append(j, "null", 4);
}

void json_int(Json *j, const char *key, int64_t value)
{
    char text[32];
    begin_value(j, key);
    append(j, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)value));
}

void json_bool(Json *j, const char *key, bool value)
{
    begin_value(j, key);
    append(j, value ? "true" : "false", value ? 4 : 5);
}

void json_rounded(Json *j, const char *key, double value, int digits)
{
    char text[40];
    begin_value(j, key);
    if (isfinite(value))
        append(j, text, (size_t)snprintf(text, sizeof text, "%.*g", digits, value));
    else
        append(j, "null", 4);
}

int json_digits(double value)
{
    char text[40];
    int digits = 15;
    for (; digits < 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    return digits;
}

void json_double(Json *j, const char *key, double value)
{
    json_rounded(j, key, value, json_digits(value));
}

void json_members(Json *j, const Json *object)
{
    if (j->size && j->text[j->size - 1] != '{') append(j, ",", 1);
    append(j, object->text + 1, object->size - 2);
}

int json_finish(Json *j, Error *e)
{
    assert(j->depth == 0);
    if (j->out_of_memory) return fail(e, STATUS_IO, "not enough memory for %zu bytes", j->capacity);
    return 0;
}

void json_free(Json *j)
{
    free(j->text);
    *j = (Json){0};
}

// Bounds what a hostile file can make us allocate: 160 MB.
enum { MAX_NODES = 4 << 20 };

typedef struct Parser {
    char *start, *at, *end; // the copy of the text; *end is 0
    JsonNode *nodes;
    size_t count, capacity;
    Error *e;
} Parser;

static int syntax(Parser *p, const char *expected)
{
    return fail(p->e, STATUS_DATA, "JSON byte %zu: %s", (size_t)(p->at - p->start), expected);
}

static void skip_space(Parser *p)
{
    while (p->at < p->end && strchr(" \t\n\r", *p->at) && *p->at) p->at++;
}

static bool take(Parser *p, char c)
{
    if (p->at == p->end || *p->at != c) return false;
    p->at++;
    return true;
}

static int add_node(Parser *p, const char *key)
{
    if (p->count == MAX_NODES) return syntax(p, "more values than are accepted (4194304)");
    if (p->count == p->capacity) {
        p->capacity = 2 * p->capacity + 16;
        JsonNode *bigger = realloc(p->nodes, p->capacity * sizeof *bigger);
        if (!bigger) return fail(p->e, STATUS_IO, "not enough memory for a JSON document");
        p->nodes = bigger;
    }
    p->nodes[p->count++] = (JsonNode){.key = key, .span = 1};
    return 0;
}

// Four hex digits after "\u"; -1 if they are not.
static long parse_hex4(const Parser *p, const char *s)
{
    long value = 0;
    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *d = s + i < p->end && s[i] ? strchr(digits, s[i]) : NULL;
        if (!d) return -1;
        value = 16 * value + (d - digits) % 16;
    }
    return value;
}

static char *put_utf8(char *out, long c)
{
    if (c < 0x80) {
        *out++ = (char)c;
        return out;
    }
    const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const int lead[] = {0, 0xc0, 0xe0, 0xf0};
    *out++ = (char)(lead[more] | (int)(c >> (6 * more)));
    for (int i = more - 1; i >= 0; i--) *out++ = (char)(0x80 | ((c >> (6 * i)) & 0x3f));
    return out;
}

// The escape after the backslash, written at *out. A character outside the BMP is two \u.
static int parse_escape(Parser *p, char **out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *plain = p->at < p->end && *p->at ? strchr(from, *p->at) : NULL;
    if (plain) {
        *(*out)++ = to[plain - from];
        p->at++;
        return 0;
    }
    if (!take(p, 'u')) return syntax(p, "unknown escape in a string");
    long c = parse_hex4(p, p->at);
    if (c < 0) return syntax(p, "expected four hex digits after \\u");
    if (c == 0) return syntax(p, "a zero character in a string is not accepted");
    if (c >= 0xd800 && c < 0xe000) {
        const bool pair = c < 0xdc00 && p->end - p->at >= 10 && p->at[4] == '\\' && p->at[5] == 'u';
        const long low = pair ? parse_hex4(p, p->at + 6) : -1;
        if (low < 0xdc00 || low >= 0xe000) return syntax(p, "half of a surrogate pair");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        p->at += 6;
    }
    p->at += 4;
    *out = put_utf8(*out, c);
    return 0;
}

// Resolves the string in place: it never grows, and its zero fits where the closing quote was.
static int parse_string(Parser *p, const char **string)
{
    if (!take(p, '"')) return syntax(p, "expected a string");
    char *out = p->at;
    *string = out;
    while (p->at < p->end && *p->at != '"') {
        const unsigned char c = (unsigned char)*p->at;
        if (c < 0x20) return syntax(p, "control character in a string");
        if (c == '\\') {
            p->at++;
            if (parse_escape(p, &out)) return p->e->status;
            continue;
        }
        const size_t n = utf8_length(p->at, p->end);
        if (n == 0) return syntax(p, "invalid UTF-8 in a string");
        memmove(out, p->at, n);
        out += n;
        p->at += n;
    }
    if (p->at == p->end) return syntax(p, "a string does not end");
    p->at++;
    *out = '\0';
    return 0;
}

static bool take_digits(Parser *p)
{
    const char *start = p->at;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9') p->at++;
    return p->at > start;
}

static int parse_number(Parser *p, JsonNode *node)
{
    const char *start = p->at;
    take(p, '-');
    if (!take(p, '0') && !take_digits(p)) return syntax(p, "expected a value");
    bool integer = true;
    if (take(p, '.')) {
        integer = false;
        if (!take_digits(p)) return syntax(p, "expected a digit");
    }
    if (take(p, 'e') || take(p, 'E')) {
        integer = false;
        if (!take(p, '+')) take(p, '-');
        if (!take_digits(p)) return syntax(p, "expected a digit");
    }
    errno = 0;
    if (integer) {
        node->type = JSON_INT;
        node->integer = strtoll(start, NULL, 10);
        if (errno == 0) return 0;
    }
    node->type = JSON_DOUBLE;
    node->number = strtod(start, NULL);
    if (!isfinite(node->number)) return syntax(p, "a number is too large");
    return 0;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int refuse_duplicate_keys(Parser *p, size_t object)
{
    const size_t n = p->nodes[object].count;
    if (n < 2) return 0;
    const char **keys = malloc(n * sizeof *keys);
    if (!keys) return fail(p->e, STATUS_IO, "not enough memory for a JSON document");
    const JsonNode *c = json_first(&p->nodes[object]);
    for (size_t i = 0; i < n; i++, c = json_next(c)) keys[i] = c->key;
    qsort(keys, n, sizeof *keys, compare_keys);
    int status = 0;
    for (size_t i = 1; i < n && status == 0; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            status = fail(p->e, STATUS_DATA, "JSON: the key \"%s\" appears twice", keys[i]);
    free(keys);
    return status;
}

static int parse_value(Parser *p, const char *key, int depth);

static int parse_children(Parser *p, size_t parent, char closer, int depth)
{
    if (depth == JSON_MAX_DEPTH) return syntax(p, "nested too deeply");
    skip_space(p);
    if (take(p, closer)) return 0;
    do {
        const char *key = NULL;
        skip_space(p);
        if (closer == '}') {
            if (parse_string(p, &key)) return p->e->status;
            skip_space(p);
            if (!take(p, ':')) return syntax(p, "expected ':'");
        }
        if (parse_value(p, key, depth + 1)) return p->e->status;
        p->nodes[parent].count++;
        skip_space(p);
    } while (take(p, ','));
    if (!take(p, closer)) return syntax(p, closer == '}' ? "expected , or }" : "expected , or ]");
    return 0;
}

static int parse_literal(Parser *p, JsonNode *node)
{
    static const struct {
        const char *word;
        JsonType type;
        bool value;
    } literals[] = {
        {"null", JSON_NULL, false}, {"true", JSON_BOOL, true}, {"false", JSON_BOOL, false}};
    for (size_t i = 0; i < sizeof literals / sizeof literals[0]; i++) {
        const size_t n = strlen(literals[i].word);
        if ((size_t)(p->end - p->at) < n || memcmp(p->at, literals[i].word, n) != 0) continue;
        p->at += n;
        node->type = literals[i].type;
        node->boolean = literals[i].value;
        return 0;
    }
    return syntax(p, "expected a value");
}

static int parse_value(Parser *p, const char *key, int depth)
{
    const size_t index = p->count;
    if (add_node(p, key)) return p->e->status;
    skip_space(p);
    JsonNode *node = &p->nodes[index];
    int status;
    const char c = (char)(p->at < p->end ? *p->at : '\0');
    if (c == '{' || c == '[') {
        p->at++;
        node->type = c == '{' ? JSON_OBJECT : JSON_ARRAY;
        status = parse_children(p, index, c == '{' ? '}' : ']', depth);
        p->nodes[index].span = p->count - index; // `node` may have moved
        return status || c == '[' ? status : refuse_duplicate_keys(p, index);
    }
    if (c == '"') {
        node->type = JSON_STRING;
        return parse_string(p, &node->string);
    }
    if (c == '-' || (c >= '0' && c <= '9')) return parse_number(p, node);
    return parse_literal(p, node);
}

int json_parse(JsonDocument *d, const char *text, size_t size, Error *e)
{
    *d = (JsonDocument){0};
    char *copy = malloc(size + 1);
    if (!copy) return fail(e, STATUS_IO, "not enough memory for %zu bytes of JSON", size);
    memcpy(copy, text, size);
    copy[size] = '\0';
    Parser p = {.start = copy, .at = copy, .end = copy + size, .e = e};
    int status = parse_value(&p, NULL, 0);
    skip_space(&p);
    if (status == 0 && p.at != p.end) status = syntax(&p, "expected the end");
    *d = (JsonDocument){.root = p.nodes, .count = p.count, .text = copy};
    if (status) json_document_free(d);
    return status;
}

void json_document_free(JsonDocument *d)
{
    free(d->root);
    free(d->text);
    *d = (JsonDocument){0};
}

const JsonNode *json_get(const JsonNode *object, const char *key)
{
    if (!object || object->type != JSON_OBJECT) return NULL;
    const JsonNode *c = json_first(object);
    for (size_t i = 0; i < object->count; i++, c = json_next(c))
        if (strcmp(c->key, key) == 0) return c;
    return NULL;
}

double json_number(const JsonNode *value)
{
    if (!value) return NAN;
    if (value->type == JSON_INT) return (double)value->integer;
    return value->type == JSON_DOUBLE ? value->number : NAN;
}

const char *json_text(const JsonNode *value)
{
    return value && value->type == JSON_STRING ? value->string : "";
}
