// Checkpoints: RUN/checkpoints/step_00001234/ with
//     model.safetensors              the weights, as train/model_file.h writes them
//     state-r000-of-001.safetensors  what else training needs to go on with the same bits
// A checkpoint appears whole or not at all: it is written and synced under a temporary name, and
// renamed. The state file has, in fp32 and the device's layout, `state1.NAME` and `state2.NAME` of
// each parameter and `ema.NAME` of each weight, and the caller's record, a JSON object, as the
// bytes `record`: data have a checksum, metadata have not.
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include <limits.h>

#include "base/json.h"
#include "base/safetensors.h"
#include "train/tensor.h"

// Host copies of the arenas that training changes, (arena_floats) each.
typedef struct Snapshot {
    float *master, *state1, *state2;
    float *ema; // NULL without --ema
} Snapshot;
int snapshot_allocate(Snapshot *s, const Tensors *t, bool ema, Error *e); // STATUS_IO
void snapshot_take(const Snapshot *s, const Tensors *t, const Kernels *k, const float *ema);
void snapshot_restore(const Snapshot *s, const Tensors *t, const Kernels *k, float *ema);
void snapshot_free(Snapshot *s);

// One that was opened: both files passed every check.
typedef struct Checkpoint {
    char path[PATH_MAX];
    int64_t step;
    SafeFile model, state;
    JsonDocument record;
} Checkpoint;

// Opens the newest checkpoint of the run in `dir` that is whole, with a warning for each newer one
// that is not. STATUS_DATA if there is none, STATUS_IO if one cannot be read.
int checkpoint_open(Checkpoint *c, const char *dir, Error *e);

// Copies everything to the device and to `s`. STATUS_DATA if names or shapes are not this
// network's.
int checkpoint_read(const Checkpoint *c, const Snapshot *s, const Tensors *t, const Kernels *k,
                    float *ema, Error *e);

void checkpoint_close_tensors(Checkpoint *c); // what is large; the record stays
void checkpoint_close(Checkpoint *c);

// What one is written of.
typedef struct CheckpointParts {
    const Tensors *tensors;
    const Kernels *kernels;
    const Snapshot *snapshot;
    const SafeMetadata *metadata; // of model.safetensors, (metadata_count)
    size_t metadata_count;
    const Json *record;
} CheckpointParts;

// Writes the checkpoint of `step` and removes all but the newest `keep`. A failure leaves those
// that were there and nothing of the new one. STATUS_IO.
int checkpoint_write(const CheckpointParts *c, const char *dir, int64_t step, int64_t keep,
                     Error *e);

// Before a run goes on from `step`: removes what a killed process left half-written, and renames
// later checkpoints, which did not load, to damaged_XXXXXXXX.
void checkpoint_clean(const char *dir, int64_t step);

#endif
