// Runs a fuzz target on the files of its corpus:  build/native/tests/fuzz/shard FILE...
#include "tests/fuzz/fuzz.h"

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        uint8_t *bytes = malloc(1 << 20);
        const size_t size = file && bytes ? fread(bytes, 1, 1 << 20, file) : 0;
        if (!file || !bytes || ferror(file)) return 1;
        fclose(file);
        printf("%s\n", argv[i]);
        fflush(stdout);
        LLVMFuzzerTestOneInput(bytes, size);
        free(bytes);
    }
    return 0;
}
