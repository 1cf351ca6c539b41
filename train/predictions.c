#include "train/predictions.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int predictions_open(Predictions *p, const Dataset *d, int64_t batch, Error *e)
{
    const int64_t n = d->n[SPLIT_TEST];
    *p = (Predictions){.n = n, .classes = d->classes};
    p->label = calloc((size_t)n, sizeof *p->label);
    p->predicted = calloc((size_t)n, sizeof *p->predicted);
    p->probability = calloc((size_t)n, sizeof *p->probability);
    p->loss = calloc((size_t)n, sizeof *p->loss);
    p->logits = calloc((size_t)batch * (size_t)d->classes, sizeof *p->logits);
    int status = STATUS_OK;
    if (!p->label || !p->predicted || !p->probability || !p->loss || !p->logits)
        status = fail(e, STATUS_IO, "not enough memory for %lld predictions", (long long)n);
    else
        status = dataset_read(d, SPLIT_TEST, 0, n, NULL, p->label, e);
    if (status) predictions_close(p);
    return status;
}

void predictions_close(Predictions *p)
{
    free(p->label);
    free(p->predicted);
    free(p->probability);
    free(p->loss);
    free(p->logits);
    *p = (Predictions){0};
}

void predictions_add(Predictions *p, const float *logits, int64_t count, float scale)
{
    for (; count > 0 && p->done < p->n; count--, logits += p->classes) {
        const int64_t i = p->done++;
        int best = 0;
        double sum = 1; // the best one's
        for (int c = 1; c < p->classes; c++)
            if (logits[c] > logits[best]) best = c;
        for (int c = 0; c < p->classes; c++)
            if (c != best) sum += exp((double)(scale * (logits[c] - logits[best])));
        p->predicted[i] = (uint16_t)best;
        p->probability[i] = (float)(1 / sum);
        p->loss[i] = (float)(log(sum) + (double)(scale * (logits[best] - logits[p->label[i]])));
    }
}

int predictions_worst(const Predictions *p, uint32_t *worst, int most)
{
    int count = 0;
    for (int64_t i = 0; i < p->done; i++) {
        if (p->predicted[i] == p->label[i]) continue;
        int place = count;
        while (place > 0 && p->loss[worst[place - 1]] < p->loss[i]) place--;
        if (place == most) continue;
        if (count < most) count++;
        memmove(worst + place + 1, worst + place, (size_t)(count - 1 - place) * sizeof *worst);
        worst[place] = (uint32_t)i;
    }
    return count;
}
