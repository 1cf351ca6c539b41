// A directory that appears whole or not at all: it is filled under a temporary name beside its
// place, `.NAME.tmp`, and renamed at the end. What a killed program left there is removed by the
// next one that writes to the same place.
//
// Only files with names of ours are ever removed, and only a directory that holds nothing else is
// ever replaced. Both are looked at when they happen, not only when the program starts.
#ifndef DATA_PACK_OUTDIR_H
#define DATA_PACK_OUTDIR_H

#include <stdbool.h>

#include "base/error.h"

typedef struct Outdir {
    char *path;      // its place
    char *temporary; // where to write until then
    char *old;       // where a directory that is replaced waits if the two cannot be exchanged
    bool (*ours)(const char *name);
    bool replace;
    bool existed; // there was an empty directory at its place
    int fd;       // of the temporary directory, locked; -1 if there is none
} Outdir;

// `ours(name)` says which files may be removed: those of the finished directory and those that are
// made on the way. A place with others is refused, and one with some of ours too unless `replace`.
int outdir_open(Outdir *o, const char *path, bool (*ours)(const char *name), bool replace,
                Error *e);

// Opens a new file in it for writing; returns the descriptor or -1.
int outdir_create(const Outdir *o, const char *name, Error *e);

// Opens a file of it again; returns the descriptor or -1.
int outdir_reopen(const Outdir *o, const char *name, Error *e);

int outdir_rename(const Outdir *o, const char *from, const char *to, Error *e);

// Moves the directory to its place, for good once this returns 0. What came there meanwhile is
// refused as outdir_open() would. If only the last step fails, to sync its parent, the directory
// stays in its place.
int outdir_commit(Outdir *o, Error *e);

// Removes the directory if it was not committed, and frees what `o` holds.
void outdir_close(Outdir *o);

#endif
