// The tile registers of AMX: 16 rows of 64 bytes at most, each with its own number of rows.
#ifndef KERNELS_CPU_AMX_H
#define KERNELS_CPU_AMX_H

#if defined(__AMX_BF16__)

#include <immintrin.h>
#include <stdint.h>

enum { AMX_ROWS = 16, AMX_BYTES = 64, AMX_TILES = 8 };

// The registers lose their contents. They stay the thread's until _tile_release().
static inline void amx_set_rows(const int rows[AMX_TILES])
{
    struct {
        uint8_t palette, start_row, unused[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < AMX_TILES; i++) {
        config.row_bytes[i] = AMX_BYTES;
        config.rows[i] = (uint8_t)rows[i];
    }
    _tile_loadconfig(&config);
}

// The intrinsics do not tell the compiler which memory they read.
#define AMX_MEMORY_IS_READ __asm__ volatile("" ::: "memory")

#endif
#endif
