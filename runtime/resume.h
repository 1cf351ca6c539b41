// A session's checkpoints: what is saved besides the tensors, and how a run goes on from it with
// the same bits as if it had never stopped.
#ifndef RUNTIME_RESUME_H
#define RUNTIME_RESUME_H

#include "runtime/session.h"

// Once options and data are open: ends the program with STATUS_DATA and the difference if the run
// of --resume is another trainer's or was on other data.
void resume_check(const Session *s);

// Weights, optimizer state, moving average and counters from the checkpoint of --resume.
void resume_load(Session *s);

// Writes a checkpoint after step s->step. A failure is tried once more, then ends the program with
// STATUS_IO; the checkpoints that were there stay.
void resume_save(Session *s, const double metrics[static METRICS]);

#endif
