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
    // The intrinsic would tell the compiler that its first eight bytes are read.
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
}

// The intrinsics do not tell the compiler which memory they read.
#define AMX_MEMORY_IS_READ __asm__ volatile("" ::: "memory")

// Some work for the vector units in each round of a loop of tile products: where they had none for
// 0.7 us, the store of a tile takes 250 ns more (an Intel Xeon, 2026-11-21).
#define AMX_KEEP_AWAKE(vector) __asm__ volatile("vaddps %0, %0, %0" : "+v"(vector))

#endif
#endif
