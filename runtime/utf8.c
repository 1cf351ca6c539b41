#include "runtime/utf8.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

size_t utf8_printable(const char *text, const char *end)
{
    const uint8_t *s = (const uint8_t *)text;
    const int more = *s < 0x80   ? 0
                     : *s < 0xc2 ? -1
                     : *s < 0xe0 ? 1
                     : *s < 0xf0 ? 2
                     : *s < 0xf5 ? 3
                                 : -1;
    if (more < 0 || end - text <= more) return 0;
    uint32_t code = more == 0 ? *s : *s & (0x3fu >> more);
    for (int i = 1; i <= more; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (s[i] & 0x3f);
    }
    const bool overlong = (more == 2 && code < 0x800) || (more == 3 && code < 0x10000);
    const bool control = code < 0x20 || (code >= 0x7f && code < 0xa0);
    const bool surrogate = code >= 0xd800 && code < 0xe000;
    return overlong || control || surrogate || code > 0x10ffff ? 0 : (size_t)more + 1;
}

size_t utf8_escape(char *to, size_t size, const char *text, char also)
{
    const char *end = text + strlen(text);
    size_t used = 0;
    while (text < end && used + 5 < size) {
        const size_t n = also && *text == also ? 0 : utf8_printable(text, end);
        if (n) {
            memcpy(to + used, text, n);
            used += n;
            text += n;
        } else
            used += (size_t)snprintf(to + used, 5, "\\x%02x", (uint8_t)*text++);
    }
    to[used] = '\0';
    return used;
}

size_t utf8_shorten(char *to, size_t size, const char *text, size_t most)
{
    const char *const end = text + strlen(text), *cut = text; // where … would stand
    size_t letters = 0;
    for (const char *at = text; at < end; letters++) {
        const size_t bytes = utf8_printable(at, end);
        if (letters == most) {
            snprintf(to, size, "%.*s…", (int)(cut - text), text);
            return most;
        }
        if (letters + 1 == most) cut = at;
        at += bytes > 0 ? bytes : 1;
    }
    snprintf(to, size, "%s", text);
    return letters;
}
