#include "pages/members.h"

#include <stdlib.h>

#include "base/os.h"

int json_file_read(JsonDocument *d, const char *path, Error *e)
{
    void *text;
    size_t size;
    Error why;
    *d = (JsonDocument){0};
    if (os_read_file(path, &text, &size, e)) return e->status;
    const int status = json_parse(d, text, size, &why);
    free(text);
    return status ? fail(e, status, "%s: %s", path, why.message) : STATUS_OK;
}

double member_number(const JsonNode *object, const char *key)
{
    return json_number(json_get(object, key));
}

const char *member_text(const JsonNode *object, const char *key)
{
    return json_text(json_get(object, key));
}

bool member_is_true(const JsonNode *object, const char *key)
{
    const JsonNode *member = json_get(object, key);
    return member && member->type == JSON_BOOL && member->boolean;
}
