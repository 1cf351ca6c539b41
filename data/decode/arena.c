#include "data/decode/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 16 };

// Bytes [0, used) of the block are given out, [used, size) are zero, [0, most) may not be.
static struct {
    uint8_t *block, *newest;
    size_t size, used, most;
} arena;

void arena_use(void *block, size_t size)
{
    arena.block = block;
    arena.newest = NULL;
    arena.size = size;
    arena.used = arena.most = 0;
}

void *arena_alloc(size_t size)
{
    if (!arena.block) return calloc(1, size ? size : 1);
    if (size > arena.size - arena.used) return NULL;
    const size_t left = arena.size - arena.used;
    size_t rounded = (size / ALIGNMENT + 1) * ALIGNMENT; // at least one byte more
    if (rounded > left) rounded = left;
    arena.newest = arena.block + arena.used;
    arena.used += rounded;
    if (arena.used > arena.most) arena.most = arena.used;
    return arena.newest;
}

void arena_free(void *piece)
{
    if (!arena.block) {
        free(piece);
    } else if (piece && piece == arena.newest) {
        const size_t start = (size_t)(arena.newest - arena.block);
        memset(piece, 0, arena.used - start);
        arena.used = start;
        arena.newest = NULL;
    }
}

void *arena_realloc(void *old, size_t old_size, size_t size)
{
    const size_t kept = old_size < size ? old_size : size;
    if (arena.block && old && old == arena.newest && size >= old_size) {
        // It grows where it is: the bytes behind it are zero.
        const size_t used = arena.used;
        arena.used = (size_t)(arena.newest - arena.block);
        void *grown = arena_alloc(size);
        if (!grown) arena.used = used;
        return grown;
    }
    void *moved = arena_alloc(size);
    if (!moved) return NULL;
    if (old) memcpy(moved, old, kept);
    arena_free(old);
    return moved;
}

size_t arena_most(void)
{
    return arena.most;
}

void arena_reset(void)
{
    memset(arena.block, 0, arena.most);
    arena.newest = NULL;
    arena.used = arena.most = 0;
}
