// What a model file says besides its weights, as its metadata: which trainer and network it is for,
// its classes, and how a picture becomes its input. docs/runs.md lists the keys.
#ifndef TRAIN_MODEL_INFO_H
#define TRAIN_MODEL_INFO_H

#include "data/dataset.h"
#include "base/json.h"
#include "train/model_file.h"

enum { TRAINER_MAX = 32 };

typedef struct ModelInfo {
    char trainer[TRAINER_MAX]; // "train_cnn", as today's programs are called; empty: not said
    JsonDocument options; // of the network, an object as args_json() writes; no root: not there
    bool described;       // `data` is set
    Dataset data;         // without images: source (the path), h, w, c, classes, mean, std, crop
    JsonDocument classes; // what data.class_names point into
} ModelInfo;

// STATUS_DATA for a damaged file and for metadata that cannot be; those that are not there, as in a
// file that PyTorch wrote, are no error.
int model_info_read(ModelInfo *m, const char *path, Error *e);
void model_info_free(ModelInfo *m);

// Sets `today` to the program that takes the networks of `trainer` with these options (of which
// there may be none): until November 2026 train_cnn was two networks, which --net chose.
// STATUS_DATA, with what to do, if none does; `path` is whose trainer it is.
int trainer_of_today(char today[static TRAINER_MAX], const char *trainer, const JsonNode *options,
                     const char *path, Error *e);

// For an evaluation of the model on `d`: takes the model's mean and std. STATUS_DATA if its classes
// are others; class numbers mean something only together with their names.
int model_info_apply(const ModelInfo *m, Dataset *d, Error *e);
// STATUS_DATA if the pictures of `d` have another size than those that the model was trained on: a
// network may train on from such weights, but what it says of them unchanged means little.
int model_info_same_input(const ModelInfo *m, const Dataset *d, Error *e);

// All this as the metadata of files that are written, made once: nothing in it changes while the
// network trains.
enum { MODEL_METADATA = 9 };
typedef struct ModelText {
    Json options; // of the network, a finished object: set it before model_text_make()
    Json classes, mean, std;
    char input[64];
    SafeMetadata metadata[MODEL_METADATA];
} ModelText;
int model_text_make(ModelText *x, const char *trainer, const char *network, const Dataset *d,
                    Error *e);
void model_text_free(ModelText *x);

#endif
