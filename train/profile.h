// What --profile shows: each operation of a step, by layer, and how near it is to ceilings that are
// measured here.
#ifndef TRAIN_PROFILE_H
#define TRAIN_PROFILE_H

#include <stdio.h>

#include "kernels/operation_times.h"

// What the device does at best with operations of the same table: arithmetic in a large matrix
// product, bandwidth in products of vectors of several sizes, since caches are faster.
enum { BANDWIDTHS = 6 };
typedef struct Ceilings {
    double flop; // a second; 0: not measured
    struct {
        double bytes, rate; // of the three vectors together; bytes a second
    } bandwidth[BANDWIDTHS];
    int bandwidths; // measured; sizes rise
} Ceilings;

typedef struct ProfileReport {
    Profile profile;
    Ceilings ceilings;
    const char *device, *dtype;
} ProfileReport;

// Reads the profile and measures the ceilings, which takes some tenths of a second. Sizes for which
// memory is short are left out. Graphs of the device may be lost: call it after the last step.
int profile_report(ProfileReport *r, const Kernels *k, Error *e);

// The least seconds a call could take: the longer of its arithmetic and its bytes at the ceilings.
// 0 without ceilings. *arithmetic: whether it is the arithmetic.
double profile_floor(const ProfileReport *r, const ProfileEntry *entry, bool *arithmetic);

// A table of operations and one of layers, in `width` columns (80 at least).
void profile_print(const ProfileReport *r, FILE *f, int width);

// The same as a JSON file: docs/runs.md.
int profile_write(const ProfileReport *r, const char *path, Error *e);

#endif
