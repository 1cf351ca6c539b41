#include "base/utf8.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

size_t utf8_length(const char *text, const char *end)
{
    const uint8_t *s = (const uint8_t *)text, c = s[0];
    const int n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (n == 0 || n > end - text) return 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    const bool overlong = (c == 0xe0 && s[1] < 0xa0) || (c == 0xf0 && s[1] < 0x90);
    const bool surrogate = c == 0xed && s[1] > 0x9f;
    const bool too_large = c == 0xf4 && s[1] > 0x8f;
    return overlong || surrogate || too_large ? 0 : (size_t)n;
}

size_t utf8_printable(const char *text, const char *end)
{
    const uint8_t *s = (const uint8_t *)text;
    const size_t n = utf8_length(text, end);
    const bool control = s[0] < 0x20 || s[0] == 0x7f || (n == 2 && s[0] == 0xc2 && s[1] < 0xa0);
    return control ? 0 : n;
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
