// Text from outside, which a terminal must not obey.
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>

// Bytes of the UTF-8 character at `s`, which ends before `end`; 0 if there is none: damaged or
// overlong, or a surrogate (RFC 3629).
size_t utf8_length(const char *s, const char *end);

// The same, and 0 for a control character (also U+0080..U+009F, which some terminals obey).
size_t utf8_printable(const char *s, const char *end);

// Copies as much of `text` as fits, with everything that is not printable as \xNN, and `also` too
// if that is not 0. Returns the length.
size_t utf8_escape(char *to, size_t size, const char *text, char also);

// Copies at most `most` characters, the last of which is … where the text is longer; `size` must
// suffice: 4 bytes a character and 1. Returns how many.
size_t utf8_shorten(char *to, size_t size, const char *text, size_t most);

#endif
