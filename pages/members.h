// A JSON file, and members of its objects.
#ifndef PAGES_MEMBERS_H
#define PAGES_MEMBERS_H

#include <stdbool.h>

#include "base/json.h"

// STATUS_DATA if the file is missing or no JSON; d->root is NULL then.
int json_file_read(JsonDocument *d, const char *path, Error *e);

// Also of no object: NAN, "" and false where there is no such member.
double member_number(const JsonNode *object, const char *key);
const char *member_text(const JsonNode *object, const char *key);
bool member_is_true(const JsonNode *object, const char *key);

#endif
