// Compares a device's operations with the fp64 reference: plain C, for a machine that has only a
// compiler. Exit status 0: all are right, and nothing was switched off when the device was opened.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"
#include "kernels/kernels.h"

int main(int count, char **arguments)
{
    if (count < 4 || count > 5) {
        fprintf(stderr, "usage: check_kernels DEVICE DTYPE quick|full [PART OF A NAME]\n");
        return STATUS_USAGE;
    }
    const KernelsConfig config = {.device = arguments[1], .dtype = arguments[2]};
    const Kernels *k;
    char note[256];
    Error e;
    check(kernels_open(&k, &config, note, &e), &e);
    printf("%s: %s\n%s%s", k->device, k->description, note, note[0] ? "\n" : "");
    const int failed = kernels_check(k, strcmp(arguments[3], "full") == 0, stdout,
                                     count == 5 ? arguments[4] : NULL);
    k->close();
    printf("%d operations failed%s\n", failed, note[0] ? ", not all were checked" : "");
    return failed || note[0] ? EXIT_FAILURE : EXIT_SUCCESS;
}
