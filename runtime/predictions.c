#include "runtime/predictions.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int predictions_open(Predictions *p, const Dataset *d, Error *e)
{
    const int64_t n = d->n[SPLIT_TEST];
    *p = (Predictions){.n = n, .classes = d->classes};
    p->image = calloc((size_t)n, sizeof *p->image);
    uint16_t *labels = calloc((size_t)n, sizeof *labels);
    int status = STATUS_OK;
    if (!p->image || !labels)
        status = fail(e, STATUS_IO, "not enough memory for %lld predictions", (long long)n);
    else
        status = dataset_read(d, SPLIT_TEST, 0, n, NULL, labels, e);
    for (int64_t i = 0; status == STATUS_OK && i < n; i++) p->image[i].label = labels[i];
    free(labels);
    if (status) predictions_close(p);
    return status;
}

void predictions_close(Predictions *p)
{
    free(p->image);
    *p = (Predictions){0};
}

static void predict(Prediction *image, const float *logits, int classes, float scale)
{
    int best = 0;
    double sum = 0;
    for (int c = 1; c < classes; c++)
        if (logits[c] > logits[best]) best = c;
    for (int c = 0; c < classes; c++) sum += exp((double)(scale * (logits[c] - logits[best])));
    image->predicted = (uint16_t)best;
    image->probability = (float)(1 / sum);
    image->loss = (float)(log(sum) + (double)(scale * (logits[best] - logits[image->label])));
}

void predictions_add(Predictions *p, const float *logits, int64_t count, float scale)
{
    for (int64_t i = 0; i < count && p->done < p->n; i++)
        predict(&p->image[p->done++], logits + i * p->classes, p->classes, scale);
}

void predictions_confusion(const Predictions *p, int64_t *confusion)
{
    memset(confusion, 0, (size_t)p->classes * (size_t)p->classes * sizeof *confusion);
    for (int64_t i = 0; i < p->done; i++)
        confusion[p->image[i].label * p->classes + p->image[i].predicted]++;
}

int predictions_worst(const Predictions *p, uint32_t *worst, int most)
{
    int count = 0;
    for (int64_t i = 0; i < p->done; i++) {
        const Prediction *image = &p->image[i];
        if (image->predicted == image->label) continue;
        int place = count;
        while (place > 0 && p->image[worst[place - 1]].loss < image->loss) place--;
        if (place == most) continue;
        if (count < most) count++;
        memmove(worst + place + 1, worst + place, (size_t)(count - 1 - place) * sizeof *worst);
        worst[place] = (uint32_t)i;
    }
    return count;
}
