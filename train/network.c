#include "train/network.h"

#include <math.h>

void network_declare(Network *n)
{
    n->metrics = workspace(&n->tensors, SHAPE(METRICS), sizeof(float), "loss.metrics");
    n->grad_norm = workspace(&n->tensors, SHAPE(1), sizeof(float), "update.grad_norm");
    n->trained_groups = ALL_GROUPS;
}

void network_start_average(const Network *n, const Kernels *k)
{
    if (n->ema) k->copy(n->ema, n->tensors.master, n->tensors.parameter_bytes);
}

void network_update_average(const Network *n, const Kernels *k)
{
    if (n->average) k->ema_update(n->ema, n->tensors.master, EMA_SLOT, n->tensors.arena_floats);
}

void network_use_average(const Network *n, const Kernels *k)
{
    if (!n->ema) return;
    k->copy(n->ema_backup, n->tensors.master, n->tensors.parameter_bytes);
    k->copy(n->tensors.master, n->ema, n->tensors.parameter_bytes);
    tensors_refresh(&n->tensors, k);
}

void network_use_weights(const Network *n, const Kernels *k)
{
    if (!n->ema) return;
    k->copy(n->tensors.master, n->ema_backup, n->tensors.parameter_bytes);
    tensors_refresh(&n->tensors, k);
}

void network_metrics(const Network *n, const Kernels *k, const Comm *c, double m[static METRICS])
{
    float own[METRICS], all[c->ranks][METRICS];
    k->download(own, n->metrics->value, sizeof own);
    c->all_gather(all, own, sizeof own);
    for (int i = 0; i < METRICS; i++) m[i] = 0;
    for (int r = 0; r < c->ranks; r++)
        for (int i = 0; i < METRICS; i++) m[i] += (double)all[r][i];
}

double network_accuracy(const Network *n, double correct, double images)
{
    return n->logits ? correct / images : (double)NAN;
}

double network_bytes(const Network *n, const Kernels *k)
{
    return (double)tensors_bytes(&n->tensors, k, n->ema ? 2 : 0);
}
