// Memory for decoding bytes from outside. It is always zero when it is given out, and in a process
// that may not ask the system for memory any more it comes from one block.
#ifndef DATA_DECODE_ARENA_H
#define DATA_DECODE_ARENA_H

#include <stddef.h>

// From now on memory comes from `block`, which is all zero. Without this call it is the heap's.
void arena_use(void *block, size_t size);

// As calloc(1, size), with a new block of at least one byte; NULL if there is no room.
void *arena_alloc(size_t size);
// As realloc() of a block of `old_size`; what is added is zero.
void *arena_realloc(void *old, size_t old_size, size_t size);
// In a block of arena_use() only the newest piece becomes free at once.
void arena_free(void *piece);

// Bytes of the block that were given out at one time since the last reset.
size_t arena_most(void);

// Makes the whole block free and zero again. What was used before leaves no trace.
void arena_reset(void);

#endif
