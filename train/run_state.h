// What a run has in hand, for run.c and the parts of it that resume.c, report.c and summary.c are.
#ifndef TRAIN_RUN_STATE_H
#define TRAIN_RUN_STATE_H

#include "train/diverged.h"
#include "train/run_dir.h"
#include "train/setup.h"

typedef struct Report Report; // of report.c

typedef enum RunKind {
    RUN_TRAINING,
    RUN_TIMED,  // of --speedrun and --bench: nothing is logged, tested or saved
    RUN_SEARCH, // steps that are made again to find where the network diverged
} RunKind;

// Seconds; log_at is a time of os_seconds().
typedef struct RunTimes {
    double log_at;         // of the last line of the log, moved by what is not training
    double log_wait;       // Feed.wait_seconds then
    double start;          // until the first step began
    double first_step;     // until it was done; 0: not yet
    double train, resumed; // of training in all; the part of it before this process
    double evaluate, save; // of this process
    double reported;       // report_seconds() before the last evaluation began
} RunTimes;

// Texts that the run writes again and again. They are made once.
typedef struct RunTexts {
    ModelText model;  // metadata of the files with weights
    Json about, data; // finished objects: the program, its network and options; the data set
} RunTexts;

struct Run {
    Setup *s;
    RunDir *dir; // of rank 0; NULL on the others
    RunKind kind;
    Report *report; // NULL: none

    int64_t first_step;       // done when this process began
    int64_t images_since_log; // whose loss is in the metrics
    bool evaluated;           // after the last step
    Evaluation last;
    Evaluation best;   // of best.safetensors
    int64_t best_step; // 0: none yet

    Snapshot snapshot;  // what the last checkpoint holds, or the start
    int64_t saved_step; // of the snapshot; -1: the start
    Divergence diverged;

    double device_bytes; // of all arenas
    RunTexts texts;
    RunTimes times;
    Progress progress;
};

#endif
