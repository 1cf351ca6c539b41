// JSON: a writer into memory and a strict reader (RFC 8259).
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

// The writer. Start from `Json j = {0}`. `key` is the member's name inside an object, NULL inside
// an array and at the top. Running out of memory is remembered and reported by json_finish().
//     Json j = {0};
//     json_object(&j, NULL);
//     json_int(&j, "step", 12);
//     json_end(&j);
//     check(json_finish(&j, &e), &e);     // j.text, j.size
//     json_free(&j);
enum { JSON_MAX_DEPTH = 64 };
typedef struct Json {
    char *text; // zero-terminated after json_finish()
    size_t size;
    size_t capacity;
    int depth;
    char closers[JSON_MAX_DEPTH]; // the bracket that ends each open object or array
    bool out_of_memory;
} Json;

void json_object(Json *j, const char *key);
void json_array(Json *j, const char *key);
void json_end(Json *j); // of the innermost open object or array
// Bytes that are not UTF-8 become U+FFFD; NULL becomes null.
void json_string(Json *j, const char *key, const char *value);
void json_int(Json *j, const char *key, int64_t value);
void json_bool(Json *j, const char *key, bool value);
// NaN and infinities become null.
void json_double(Json *j, const char *key, double value);
int json_digits(double value); // that it takes: the fewest of 15 to 17 that give the same double
// `digits` significant digits, for what was measured and has no more.
void json_rounded(Json *j, const char *key, double value, int digits);
void json_members(Json *j, const Json *object); // those of a finished object that has some

int json_finish(Json *j, Error *e); // STATUS_IO if memory was short
void json_free(Json *j);

// The reader. Strings are valid UTF-8 with escapes resolved; a zero character inside one is
// refused, as is a key twice in one object, nesting beyond JSON_MAX_DEPTH and anything but white
// space after the value.
typedef enum JsonType {
    JSON_NULL,
    JSON_BOOL,
    JSON_INT, // digits only, and within int64_t
    JSON_DOUBLE,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
} JsonType;

typedef struct JsonNode {
    JsonType type;
    const char *key; // NULL unless a member of an object
    union {
        bool boolean;
        int64_t integer;
        double number;
        const char *string;
        size_t count; // of an array's or object's direct children
    };
    size_t span; // nodes of this value with everything inside: the next sibling is `node + span`
} JsonNode;

typedef struct JsonDocument {
    JsonNode *root; // all nodes in the order of the text
    size_t count;
    char *text; // what the strings point into
} JsonDocument;

// Parses a copy of text[0..size). STATUS_DATA with the byte's position, or STATUS_IO if memory is
// short; nothing is left to free then.
int json_parse(JsonDocument *d, const char *text, size_t size, Error *e);
void json_document_free(JsonDocument *d);

// The member of that name, or NULL; also NULL if `object` is NULL or no object.
const JsonNode *json_get(const JsonNode *object, const char *key);

// The value as a number, NAN if it is NULL or none; as a string, "" if it is NULL or none.
double json_number(const JsonNode *value);
const char *json_text(const JsonNode *value);

// Children of an array or object in order:
//     const JsonNode *c = json_first(a);
//     for (size_t i = 0; i < a->count; i++, c = json_next(c))
static inline const JsonNode *json_first(const JsonNode *parent)
{
    return parent + 1;
}
static inline const JsonNode *json_next(const JsonNode *child)
{
    return child + child->span;
}

#endif
