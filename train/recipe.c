#include "train/recipe.h"

double recipe_rate(const Recipe *r, const Options *o, int group)
{
    const Group *g = &r->group[group];
    if (o->optimizer == OPTIMIZER_ADAMW) return o->lr * g->adamw;
    if (o->optimizer == OPTIMIZER_MUON && g->muon > 0) return o->lr * g->muon;
    return o->lr * g->sgd;
}

void recipe_set_rates(const Recipe *r, const Options *o, double factor, StepValues *v)
{
    for (int g = 1; g < RECIPE_GROUPS; g++) v->hyper[g] = (float)(recipe_rate(r, o, g) * factor);
}

// decay[group]: the coefficient of the group in this optimizer's step.
static void set_decay(const Recipe *r, const Options *o, float decay[static RECIPE_GROUPS])
{
    for (int g = 0; g < RECIPE_GROUPS; g++) {
        const Group *group = &r->group[g];
        const bool decays =
            o->optimizer == OPTIMIZER_ADAMW ? group->adamw_decays : group->sgd_decays;
        decay[g] = decays ? options_decay(o, recipe_rate(r, o, g)) : 0.0f;
    }
}

// The bit set of the groups that muon trains.
static unsigned muon_groups(const Recipe *r)
{
    unsigned groups = 0;
    for (int g = 1; g < RECIPE_GROUPS; g++)
        if (r->group[g].muon > 0) groups |= 1u << g;
    return groups;
}

void recipe_update(const Recipe *r, const Setup *s, const Kernels *k)
{
    const Options *o = s->options;
    const Tensors *t = &s->net.tensors;
    const unsigned trained = s->net.trained_groups, muon = trained & muon_groups(r);
    Param all[TENSORS_MAX], matrices[TENSORS_MAX];
    float decay[RECIPE_GROUPS];
    set_decay(r, o, decay);

    int n = tensors_params(t, trained, decay, all);
    // --clip-norm is in units of the mean loss's gradient
    const float clip = (float)(o->clip_norm * (double)s->net.grad_scale * (double)o->batch_size);
    if (clip > 0) k->clip_gradients(s->net.grad_norm->value, all, n, clip);
    switch ((Optimizer)o->optimizer) {
    case OPTIMIZER_SGD:
        k->sgd_update(all, n, options_sgd(o));
        break;
    case OPTIMIZER_ADAMW:
        k->adamw_update(all, n, options_adamw(o));
        break;
    case OPTIMIZER_MUON:
        k->muon_update(matrices, tensors_params(t, muon, NULL, matrices), r->muon);
        n = tensors_params(t, trained & ~muon, decay, all);
        k->sgd_update(all, n, options_sgd(o));
        break;
    }
    network_update_average(&s->net, k);
}
