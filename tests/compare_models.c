// compare_models A B TOLERANCE [BEFORE]: are the tensors of A also in B, and equal?
// The error of a tensor is |A - B| / |B - BEFORE| (2-norms): relative to how far training moved
// it, or to |B| without BEFORE. Prints one line a tensor; status 1 if one is over the tolerance.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/safetensors.h"

static double distance(const SafeTensor *a, const SafeTensor *b)
{
    double sum = 0;
    for (size_t i = 0; i < a->bytes; i += sizeof(float)) {
        float x, y = 0; // data in a file may not be aligned
        memcpy(&x, (const char *)a->data + i, sizeof x);
        if (b) memcpy(&y, (const char *)b->data + i, sizeof y);
        sum += ((double)x - (double)y) * ((double)x - (double)y);
    }
    return sqrt(sum);
}

static int compare(const SafeTensor *a, const SafeTensor *b, const SafeTensor *before,
                   double tolerance)
{
    if (!b || b->bytes != a->bytes || strcmp(a->dtype, b->dtype) != 0) {
        printf("FAILED %s is missing or of another size\n", a->name);
        return 1;
    }
    if (strcmp(a->dtype, "F32") != 0) return 0; // counters
    const double off = distance(a, b), moved = distance(b, before);
    const double error = off == 0 ? 0 : off / moved;
    const int wrong = !(error <= tolerance);
    printf("%s %-28s relative error %.3g\n", wrong ? "FAILED" : "ok", a->name, error);
    return wrong;
}

int main(int argc, char **argv)
{
    if (argc < 4) die(STATUS_USAGE, "usage: compare_models A B TOLERANCE [BEFORE]");
    Error e;
    SafeFile a, b, before = {0};
    check(safetensors_open(&a, argv[1], &e), &e);
    check(safetensors_open(&b, argv[2], &e), &e);
    if (argc > 4) check(safetensors_open(&before, argv[4], &e), &e);
    int wrong = 0;
    for (size_t i = 0; i < a.count; i++) {
        const char *name = a.tensors[i].name;
        wrong += compare(&a.tensors[i], safetensors_get(&b, name),
                         argc > 4 ? safetensors_get(&before, name) : NULL, atof(argv[3]));
    }
    safetensors_close(&a);
    safetensors_close(&b);
    if (argc > 4) safetensors_close(&before);
    return wrong ? STATUS_FAILED : STATUS_OK;
}
