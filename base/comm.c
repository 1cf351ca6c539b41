#include "base/comm.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

static const Comm *joined; // between comm_open() and comm_close(), if there are several processes

// ---- one process --------------------------------------------------------------------------------

static void broadcast_alone(void *data, size_t bytes)
{
    (void)data;
    (void)bytes;
}

static void all_gather_alone(void *all, const void *own, size_t bytes)
{
    memcpy(all, own, bytes);
}

static void nothing(void)
{
}

static int vote_alone(int value)
{
    return value;
}

static const Comm alone = {
    .ranks = 1,
    .local_ranks = 1,
    .broadcast = broadcast_alone,
    .all_gather = all_gather_alone,
    .barrier = nothing,
    .vote = vote_alone,
    .abort = exit,
    .close = nothing,
};

// ---- several ------------------------------------------------------------------------------------

// How many processes the launcher says it started, and which launcher. Inside of an sbatch script
// there is no step: a program that srun did not start is alone.
static int launched(const char **launcher)
{
    static const struct {
        const char *variable, *launcher;
    } known[] = {
        {"OMPI_COMM_WORLD_SIZE", "Open MPI's mpirun"},
        {"PMI_SIZE", "mpirun"},
        {"SLURM_STEP_NUM_TASKS", "srun"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const char *text = getenv(known[i].variable);
        *launcher = known[i].launcher;
        if (text && atoi(text) > 1) return atoi(text);
    }
    return 1;
}

static void tell_lost(int rank, int ranks, const char *how)
{
    if (os_stop_signal()) return; // the launcher ends all
    report_error("rank %d of %d %s; the others end, too. Continue from the last checkpoint with "
                 "--resume DIR",
                 rank, ranks, how);
}

static void end_others(int status, void *unused)
{
    (void)unused;
    fflush(NULL);
    if (joined && status == STATUS_OK)
        joined->close();
    else if (joined)
        joined->abort(status);
}

// Beside the program. Global, since Open MPI loads modules that look for its symbols.
static int open_library(Comm *c, int ranks, const char *launcher, Error *e)
{
    char path[PATH_MAX + sizeof "libnn_mpi.so"];
    os_program(path);
    char *slash = strrchr(path, '/');
    strcpy(slash ? slash + 1 : path, "libnn_mpi.so");
    if (!os_exists(path))
        return fail(e, STATUS_FAILED,
                    "%s started %d processes, but this build has no MPI: install libopenmpi-dev "
                    "and run make again",
                    launcher, ranks);
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    __typeof__(&mpi_open) open = NULL;
    if (library) *(void **)&open = dlsym(library, "mpi_open");
    if (!open) return fail(e, STATUS_FAILED, "%s; install MPI and run make again", dlerror());
    return open(c, ranks, tell_lost, e);
}

int comm_open(Comm *c, Error *e)
{
    const char *launcher;
    const int ranks = launched(&launcher);
    *c = alone;
    if (ranks == 1) return STATUS_OK;
    if (open_library(c, ranks, launcher, e)) return e->status;
    joined = c;
    on_exit(end_others, NULL);
    error_set_rank(c->rank);
    if (c->rank > 0 && !freopen("/dev/null", "w", stdout))
        return fail(e, STATUS_IO, "cannot open /dev/null");
    return STATUS_OK;
}

void comm_close(Comm *c)
{
    joined = NULL;
    c->close();
}

bool comm_stop_agreed(Comm *c)
{
    if (!c->stop) c->stop = c->vote(os_stop_signal());
    return c->stop != 0;
}

// ---- processors ---------------------------------------------------------------------------------

enum { WORDS = 16 }; // 1024 processors

typedef struct Share {
    int64_t node;
    uint64_t set[WORDS];
} Share;

static int count(const uint64_t *set)
{
    int n = 0;
    for (int i = 0; i < WORDS; i++) n += __builtin_popcountll(set[i]);
    return n;
}

// A launcher may have bound each process to processors of its own, or none to any.
int comm_threads(const Comm *c)
{
    uint64_t together[WORDS] = {0};
    Share own = {.node = c->node}, *all = calloc((size_t)c->ranks, sizeof *all);
    if (!all) die(STATUS_IO, "out of memory");
    os_cpu_set(own.set, WORDS);
    c->all_gather(all, &own, sizeof own);
    for (int r = 0; r < c->ranks; r++)
        for (int i = 0; i < WORDS && all[r].node == own.node; i++) together[i] |= all[r].set[i];
    free(all);
    const int mine = os_cpu_count(); // less than the mask where a cgroup has a quota for all
    const int machine = mine < count(own.set) ? mine : count(together);
    const int share = machine / c->local_ranks;
    return share < 1 ? 1 : share < mine ? share : mine;
}
