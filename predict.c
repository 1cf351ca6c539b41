// predict: what a trained network sees in pictures.
//
//     ./predict runs/mine cat.jpg
//
// Finds the weights and the trainer that made them, and hands over to that: ./train_cnn --predict.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "train/checkpoint.h"
#include "train/model_info.h"
#include "base/os.h"

static const char usage[] = "usage: predict RUN [options] PICTURE...\n"
                            "\n"
                            "  RUN        a run's directory, whose best weights so far are taken; "
                            "a checkpoint's directory;\n"
                            "             or a .safetensors file\n"
                            "  PICTURE    a JPEG, PNG or BMP of any size, or - for standard input: "
                            "its five likeliest classes;\n"
                            "             or a folder: a line for each picture, and the accuracy "
                            "where its folders are classes\n"
                            "  --json     a JSON object for each picture, one a line\n"
                            "\n"
                            "Other options go to the trainer that made the weights: --device, "
                            "--dtype, --threads, --tta 0 ...\n"
                            "Status: 0, 3 if a picture or the weights cannot be read, 2 for a "
                            "wrong option; docs/predict.md";

// RUN/name if it is there.
static bool in_run(const char *run, const char *name, char path[static PATH_MAX])
{
    return snprintf(path, PATH_MAX, "%s/%s", run, name) < PATH_MAX && os_exists(path);
}

static int find_weights(const char *run, char path[static PATH_MAX], Error *e)
{
    Checkpoint c;
    if (in_run(run, "best.safetensors", path) || in_run(run, "model.safetensors", path)) return 0;
    if (in_run(run, "checkpoints", path)) {
        if (checkpoint_open(&c, run, e)) return e->status;
        const bool fits = in_run(c.path, "model.safetensors", path);
        checkpoint_close(&c);
        return fits ? 0 : fail(e, STATUS_DATA, "%s: its path is too long", run);
    }
    if (in_run(run, "", path))
        return fail(e, STATUS_DATA,
                    "%s: no best.safetensors, model.safetensors or checkpoints in it", run);
    if (snprintf(path, PATH_MAX, "%s", run) >= PATH_MAX)
        return fail(e, STATUS_DATA, "%s: the path is too long", run);
    return 0;
}

// The trainer lies beside this program. Its name comes from the file: not every program will do.
static int find_trainer(const char *weights, char path[static PATH_MAX], Error *e)
{
    ModelInfo m;
    if (model_info_read(&m, weights, e)) return e->status;
    char name[TRAINER_MAX];
    memcpy(name, m.trainer, sizeof name);
    model_info_free(&m);
    if (!name[0])
        return fail(e, STATUS_DATA,
                    "%s does not say which network it is of. Say it, and the data set it was "
                    "trained on: ./train_cnn --net plain --width 1 --data DIR --init %s --predict "
                    "PICTURE..., or ./train_mlp --hidden 512,512 ...; docs/predict.md",
                    weights, weights);
    if (strncmp(name, "train_", 6) != 0 ||
        name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")])
        return fail(e, STATUS_DATA, "%s: nn.trainer is \"%s\", expected such as train_cnn", weights,
                    name);
    os_program(path);
    char *slash = strrchr(path, '/');
    const size_t room = PATH_MAX - (size_t)(slash + 1 - path);
    if ((size_t)snprintf(slash + 1, room, "%s", name) >= room || !os_exists(path))
        return fail(e, STATUS_DATA, "%s was made by %s, which is not beside this program: make %s",
                    weights, name, name);
    return 0;
}

int main(int argc, char **argv)
{
    Error e;
    char weights[PATH_MAX], trainer[PATH_MAX];
    os_open_streams();
    os_check_output_at_exit();
    if (argc < 2 || args_help_asked(argc, argv)) {
        fprintf(argc < 2 ? stderr : stdout, "%s\n", usage);
        return argc < 2 ? STATUS_USAGE : STATUS_OK;
    }
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--init") == 0 || strncmp(argv[i], "--init=", 7) == 0)
            die(STATUS_USAGE, "leave out --init: the weights are those of RUN, which comes first");
    if (argv[1][0] == '-')
        die(STATUS_USAGE, "%s: RUN comes first: predict RUN [options] PICTURE...", argv[1]);
    check(find_weights(argv[1], weights, &e), &e);
    check(find_trainer(weights, trainer, &e), &e);
    enum { OURS = 4 };
    const char **command = calloc((size_t)argc + OURS, sizeof *command);
    if (!command) die(STATUS_IO, "out of memory");
    const char *const ours[OURS] = {trainer, "--predict", "--init", weights};
    memcpy(command, ours, sizeof ours);
    for (int i = 2; i < argc; i++) command[OURS + i - 2] = argv[i];
    execv(trainer, (char *const *)command);
    free(command);
    die(STATUS_IO, "cannot start %s", trainer);
}
