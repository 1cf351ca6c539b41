// SHA-256 (FIPS 180-4), for data set ids and keyed orders of file names: a few kilobytes at a time,
// so plain code is enough.
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct Sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64];
} Sha256;

void sha256_init(Sha256 *s);
void sha256_add(Sha256 *s, const void *data, size_t size);
void sha256_finish(Sha256 *s, uint8_t digest[32]); // digest set; `s` must be initialised again

#endif
