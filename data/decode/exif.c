#include <stdbool.h>
#include <string.h>

#include "data/decode/formats.h"

enum { ORIENTATION = 0x112, SHORT = 3, LONG = 4, ENTRY_BYTES = 12 };

int exif_orientation(const uint8_t *b, size_t size)
{
    if (size < 8) return 1;
    const bool big = memcmp(b, "MM\0*", 4) == 0;
    if (!big && memcmp(b, "II*\0", 4) != 0) return 1;
    uint32_t (*u16)(const uint8_t *) = big ? big16 : little16;
    uint32_t (*u32)(const uint8_t *) = big ? big32 : little32;
    const size_t directory = u32(b + 4);
    if (directory > size - 2) return 1;
    const size_t room = (size - directory - 2) / ENTRY_BYTES, said = u16(b + directory);
    for (size_t i = 0; i < said && i < room; i++) {
        const uint8_t *entry = b + directory + 2 + i * ENTRY_BYTES;
        if (u16(entry) != ORIENTATION || u32(entry + 4) != 1) continue;
        const uint32_t type = u16(entry + 2);
        const uint32_t value = type == SHORT ? u16(entry + 8) : type == LONG ? u32(entry + 8) : 1;
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}
