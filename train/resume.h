// A run's checkpoints: what is saved besides the tensors, and how a run goes on from it with the
// same bits as if it had never stopped.
#ifndef TRAIN_RESUME_H
#define TRAIN_RESUME_H

#include "train/run_state.h"

// Writes what a record says of the data set: a finished object with the member `data`.
int resume_data_json(const Dataset *d, Json *j, Error *e);

// Weights, optimizer state, moving average and counters from the checkpoint of --resume. Ends the
// program with STATUS_DATA and the difference if the run was on other data.
void resume_load(Run *r);

// Writes a checkpoint after `step` steps. A failure is tried once more, then ends the program with
// STATUS_IO; the checkpoints that were there stay.
void resume_save(Run *r, int64_t step, const double metrics[static METRICS]);

#endif
