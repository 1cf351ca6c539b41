// How a trainer's parameters are trained: the learning rates of their groups, and the update of
// --optimizer.
#ifndef TRAIN_RECIPE_H
#define TRAIN_RECIPE_H

#include "train/setup.h"

// One group of parameters. Its number, from 1 on, is that of Tensor.group and of the slot of its
// learning rate in a step's values.
typedef struct Group {
    double sgd, adamw;             // learning rates at --lr 1, before the schedule
    double muon;                   // the same; 0: --optimizer muon leaves the group to sgd
    bool sgd_decays, adamw_decays; // whether --weight-decay holds for it; never where muon trains
} Group;

// The coefficients of muon's iterations, as its author chose them: Muon.a, b and c.
#define MUON_POLYNOMIAL .a = 3.4445f, .b = -4.775f, .c = 2.0315f

enum { RECIPE_GROUPS = 8 };
typedef struct Recipe {
    Group group[RECIPE_GROUPS]; // the first and those behind the last are zero
    Muon muon;
} Recipe;

// The learning rate of a group before the schedule, by --optimizer and --lr.
double recipe_rate(const Recipe *r, const Options *o, int group);

// Sets the learning rates of all groups: `factor` times the rates above.
void recipe_set_rates(const Recipe *r, const Options *o, double factor, StepValues *v);

// The last part of a training step: clips the gradients by --clip-norm, takes one step of
// --optimizer in the groups that s->net.trained_groups has, and moves the average of --ema. `k` is
// the table that the trainer calls.
void recipe_update(const Recipe *r, const Setup *s, const Kernels *k);

#endif
