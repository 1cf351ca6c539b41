// Comm over MPI, and Collectives on host memory.
//
// One thread makes every MPI call, which any MPI allows, and goes on with what was started while
// the trainer computes. MPI only moves data (all-to-all and all-gather); sums are taken here, in
// the order of the ranks, so that bits do not depend on the algorithms that MPI chooses.
//
// The ranks watch each other in a ring: each hears from the one before it every BEAT seconds. MPI
// itself says nothing of a process that was killed or stopped. Each thread of MPI watches its own
// trainer, which may hang alone.
#include <assert.h>
#include <mpi.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/comm.h"
#include "base/mpi/reduce.h"
#include "base/os.h"

static const double BEAT = 0.2, LOST_AFTER = 30; // seconds
// Of processors' time, for which threads of MPI's and of drivers wake up meanwhile.
static const double IDLE = 0.03;
enum {
    CALL_BYTES = 1 << 28, // of one MPI call: its counts are int
    QUEUE = 2,            // calls: the one that the trainer waits for, and a vote
    GATHERED = 4096,      // floats that are summed by all ranks, to lose no time
};

// A collective on host memory.
typedef enum { BROADCAST, ALL_GATHER } CallKind;
typedef struct Call {
    CallKind kind;
    void *to;
    const void *from;
    int bytes;
    bool started, done;
    MPI_Request request;
} Call;

static struct {
    MPI_Comm calls, beats;
    int rank, ranks;
    CommLost *lost;

    pthread_t thread;
    pthread_mutex_t mutex; // for what follows
    pthread_cond_t posted, finished;
    Call *queue[QUEUE]; // posted and not yet done, in order
    int queued;
    bool opened, closing, waiting; // the trainer waits
    int status;                    // of opening
    Error error;
    atomic_int aborting; // the status to end with, plus 1

    Call vote;
    int own_vote, *votes;
    float *gathered;     // (ranks,GATHERED)
    const float **parts; // (ranks)
} mpi = {.mutex = PTHREAD_MUTEX_INITIALIZER,
         .posted = PTHREAD_COND_INITIALIZER,
         .finished = PTHREAD_COND_INITIALIZER};

// ---- the thread of MPI --------------------------------------------------------------------------

// The ring: each rank hears from the one before it. A message is 0, or says that all end: 1 + the
// status, which goes on from rank to rank.
static struct {
    int before, after; // neighbours
    int64_t process;   // of the one before if it is on this machine, else 0
    double looked, heard, beat, gone;
    double moved, used; // when this rank's trainer was last seen at work; os_others_seconds() then
    int in, out;
    MPI_Request receive, send;
} ring;

// A launcher that is told to end all drops what it has not read by then: it gets a moment for what
// this process has said, and so does the message around the ring.
static _Noreturn void end_all(int status)
{
    int sent, ending = 1 + status;
    MPI_Request request;
    os_exit_after(5, status); // if MPI hangs
    MPI_Isend(&ending, 1, MPI_INT, ring.after, 0, mpi.beats, &request);
    for (int i = 0; i < 300; i++) {
        MPI_Test(&request, &sent, MPI_STATUS_IGNORE);
        os_sleep(1e-3);
    }
    MPI_Abort(MPI_COMM_WORLD, status);
    os_exit(status);
}

static _Noreturn void end_lost(int rank, const char *how)
{
    mpi.lost(rank, mpi.ranks, how);
    end_all(STATUS_FAILED);
}

static void start_call(Call *c)
{
    const MPI_Datatype t = MPI_BYTE;
    if (c->kind == BROADCAST)
        MPI_Ibcast(c->to, c->bytes, t, 0, mpi.calls, &c->request);
    else
        MPI_Iallgather(c->from, c->bytes, t, c->to, c->bytes, t, mpi.calls, &c->request);
    c->started = true;
}

// Starts and tests what was posted.
static void progress_calls(void)
{
    pthread_mutex_lock(&mpi.mutex);
    Call *const queue[QUEUE] = {mpi.queue[0], mpi.queue[1]};
    const int queued = mpi.queued;
    pthread_mutex_unlock(&mpi.mutex);
    assert(queued <= QUEUE);
    int done[QUEUE] = {0};
    for (int i = 0; i < queued; i++) {
        if (!queue[i]->started) start_call(queue[i]);
        MPI_Test(&queue[i]->request, &done[i], MPI_STATUS_IGNORE);
    }
    if (!done[0] && !done[1]) return;
    pthread_mutex_lock(&mpi.mutex);
    const int now = mpi.queued; // there may be one more
    mpi.queued = 0;
    for (int i = 0; i < queued; i++) queue[i]->done = done[i];
    for (int i = 0; i < now; i++)
        if (!done[i]) mpi.queue[mpi.queued++] = mpi.queue[i];
    pthread_cond_broadcast(&mpi.finished);
    pthread_mutex_unlock(&mpi.mutex);
}

static void progress_reductions(void)
{
    if (reduce_finished()) return;
    reduce_progress();
    if (!reduce_finished()) return;
    pthread_mutex_lock(&mpi.mutex);
    pthread_cond_broadcast(&mpi.finished);
    pthread_mutex_unlock(&mpi.mutex);
}

static void listen_before(void)
{
    MPI_Irecv(&ring.in, 1, MPI_INT, ring.before, 0, mpi.beats, &ring.receive);
}

static int watch_begin(const Comm *c, Error *e)
{
    const int64_t own[2] = {c->node, os_process()};
    int64_t *all = calloc(2 * (size_t)c->ranks, sizeof *all);
    if (!all) return fail(e, STATUS_IO, "no memory to watch %d processes", c->ranks);
    MPI_Allgather(own, 2, MPI_INT64_T, all, 2, MPI_INT64_T, mpi.beats);
    ring.before = (c->rank + c->ranks - 1) % c->ranks;
    ring.after = (c->rank + 1) % c->ranks;
    const int64_t node = all[2 * (size_t)ring.before], process = all[2 * (size_t)ring.before + 1];
    ring.process = node == c->node && os_process_runs(process) ? process : 0;
    free(all);
    ring.send = MPI_REQUEST_NULL;
    ring.looked = ring.heard = ring.moved = os_seconds();
    listen_before();
    return STATUS_OK;
}

// One that ends by itself tells so, and has a moment to do it.
static void look_at_process(double now)
{
    if (!ring.process || os_process_runs(ring.process))
        ring.gone = now;
    else if (now - ring.gone > 1.5 * BEAT)
        end_lost(ring.before, "is dead");
}

// A trainer computes, has its threads compute or read, or waits for the other ranks. One that does
// none of it hangs: in a driver, behind a file server.
static void look_at_trainer(double now)
{
    const double used = os_others_seconds();
    pthread_mutex_lock(&mpi.mutex);
    const bool waiting = mpi.waiting;
    pthread_mutex_unlock(&mpi.mutex);
    if (waiting || used - ring.used > IDLE) {
        ring.moved = now;
        ring.used = used;
    }
    if (now - ring.moved > LOST_AFTER) end_lost(mpi.rank, "has stood still for 30 seconds");
}

static void watch(void)
{
    int heard, sent;
    const double now = os_seconds(), since = now - ring.looked;
    ring.looked = now;
    if (since > 1) { // it was this process that was stopped
        ring.heard += since;
        ring.moved += since;
    }
    MPI_Test(&ring.receive, &heard, MPI_STATUS_IGNORE);
    if (heard) {
        if (ring.in) end_all(ring.in - 1); // it has said why
        ring.heard = now;
        listen_before();
    }
    if (now - ring.heard > LOST_AFTER) end_lost(ring.before, "was not heard of for 30 seconds");
    if (now - ring.beat < BEAT) return;
    ring.beat = now;
    look_at_process(now);
    look_at_trainer(now);
    MPI_Test(&ring.send, &sent, MPI_STATUS_IGNORE);
    if (sent) MPI_Isend(&ring.out, 1, MPI_INT, ring.after, 0, mpi.beats, &ring.send);
}

static void watch_end(void)
{
    MPI_Cancel(&ring.receive);
    MPI_Wait(&ring.receive, MPI_STATUS_IGNORE);
    MPI_Wait(&ring.send, MPI_STATUS_IGNORE);
}

// A wait of the trainer is worth the processor; a reduction beside its work is not.
static void rest(void)
{
    pthread_mutex_lock(&mpi.mutex);
    const bool waiting = mpi.waiting, idle = mpi.queued == 0 && reduce_finished();
    if (idle && !waiting && !mpi.closing) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += (long)(BEAT / 2 * 1e9);
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&mpi.posted, &mpi.mutex, &until);
    }
    pthread_mutex_unlock(&mpi.mutex);
    if (waiting)
        os_yield();
    else if (!idle)
        os_sleep(20e-6);
}

// Where this process is among the others.
static void find_place(Comm *c)
{
    MPI_Comm local;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, mpi.rank, MPI_INFO_NULL, &local);
    MPI_Comm_rank(local, &c->local_rank);
    MPI_Comm_size(local, &c->local_ranks);
    c->rank = c->node = mpi.rank;
    c->ranks = mpi.ranks;
    MPI_Bcast(&c->node, 1, MPI_INT, 0, local);
    MPI_Comm_free(&local);
}

static int join(Comm *c, Error *e)
{
    int level, started = c->ranks;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &mpi.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &mpi.ranks);
    if (mpi.ranks != started) {
        char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
        int length;
        MPI_Get_library_version(version, &length);
        return fail(e, STATUS_FAILED,
                    "the launcher started %d processes, but MPI connects %d of them: this program "
                    "was built with %s; use the mpirun that belongs to it, or srun --mpi",
                    started, mpi.ranks,
                    strncmp(version, "Open MPI", 8) == 0 ? "Open MPI" : "MPICH");
    }
    if (level < MPI_THREAD_FUNNELED)
        return fail(e, STATUS_FAILED, "this MPI cannot be called from a thread");
    find_place(c);
    MPI_Comm_dup(MPI_COMM_WORLD, &mpi.calls);
    MPI_Comm_dup(MPI_COMM_WORLD, &mpi.beats);
    mpi.votes = calloc((size_t)mpi.ranks, sizeof *mpi.votes);
    mpi.gathered = malloc((size_t)mpi.ranks * GATHERED * sizeof *mpi.gathered);
    mpi.parts = malloc((size_t)mpi.ranks * sizeof *mpi.parts);
    if (!mpi.votes || !mpi.gathered || !mpi.parts)
        return fail(e, STATUS_IO, "no memory to speak with %d processes", mpi.ranks);
    return reduce_open(e) ? e->status : watch_begin(c, e);
}

static void leave(void)
{
    reduce_close();
    MPI_Comm_free(&mpi.calls);
    MPI_Comm_free(&mpi.beats);
    MPI_Finalize();
    free(mpi.votes);
    free(mpi.gathered);
    free(mpi.parts);
}

static void *communicate(void *comm)
{
    Error e;
    const int status = join(comm, &e);
    pthread_mutex_lock(&mpi.mutex);
    mpi.opened = true;
    mpi.status = status;
    mpi.error = e;
    bool closing = status != STATUS_OK;
    pthread_cond_broadcast(&mpi.finished);
    pthread_mutex_unlock(&mpi.mutex);
    if (status) return NULL;
    while (!closing) {
        progress_calls();
        progress_reductions();
        watch();
        const int abort = atomic_load(&mpi.aborting);
        if (abort) end_all(abort - 1);
        rest();
        pthread_mutex_lock(&mpi.mutex);
        closing = mpi.closing;
        pthread_mutex_unlock(&mpi.mutex);
    }
    watch_end();
    leave();
    return NULL;
}

// ---- the trainer --------------------------------------------------------------------------------

static void post(Call *c)
{
    c->started = c->done = false;
    pthread_mutex_lock(&mpi.mutex);
    assert(mpi.queued < QUEUE);
    mpi.queue[mpi.queued++] = c;
    pthread_cond_signal(&mpi.posted);
    pthread_mutex_unlock(&mpi.mutex);
}

static void wait_call(const Call *c)
{
    pthread_mutex_lock(&mpi.mutex);
    mpi.waiting = true;
    pthread_cond_signal(&mpi.posted);
    while (!c->done) pthread_cond_wait(&mpi.finished, &mpi.mutex);
    mpi.waiting = false;
    pthread_mutex_unlock(&mpi.mutex);
}

static void call(CallKind kind, void *to, const void *from, size_t bytes)
{
    assert(bytes <= CALL_BYTES);
    Call c = {.kind = kind, .to = to, .from = from, .bytes = (int)bytes};
    post(&c);
    wait_call(&c);
}

static void broadcast(void *data, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += CALL_BYTES)
        call(BROADCAST, (char *)data + at, NULL, bytes - at < CALL_BYTES ? bytes - at : CALL_BYTES);
}

static void all_gather(void *all, const void *own, size_t bytes)
{
    call(ALL_GATHER, all, own, bytes);
}

static void barrier(void)
{
    const char here = 0;
    call(ALL_GATHER, mpi.gathered, &here, 1);
}

static int vote(int value)
{
    int largest = 0;
    if (mpi.vote.bytes > 0) wait_call(&mpi.vote);
    for (int r = 0; r < mpi.ranks; r++)
        if (mpi.votes[r] > largest) largest = mpi.votes[r];
    mpi.own_vote = value;
    mpi.vote = (Call){ALL_GATHER, .to = mpi.votes, .from = &mpi.own_vote, .bytes = sizeof(int)};
    post(&mpi.vote);
    return largest;
}

static void all_reduce_start(float *x, int64_t n, CommSpan *span)
{
    reduce_post(x, n, span);
    pthread_mutex_lock(&mpi.mutex);
    pthread_cond_signal(&mpi.posted);
    pthread_mutex_unlock(&mpi.mutex);
    os_yield(); // where both threads share a processor, it starts now and not in milliseconds
}

static void all_reduce_wait(void)
{
    pthread_mutex_lock(&mpi.mutex);
    mpi.waiting = true;
    while (!reduce_finished()) pthread_cond_wait(&mpi.finished, &mpi.mutex);
    mpi.waiting = false;
    pthread_mutex_unlock(&mpi.mutex);
}

static void all_reduce(float *x, int64_t n)
{
    if (n > GATHERED) {
        all_reduce_start(x, n, NULL);
        all_reduce_wait();
        return;
    }
    all_gather(mpi.gathered, x, (size_t)n * sizeof *x);
    for (int r = 0; r < mpi.ranks; r++) mpi.parts[r] = mpi.gathered + r * n;
    add_parts(x, mpi.parts, mpi.ranks, n);
}

static void all_gather_floats(float *all, const float *x, int64_t n)
{
    all_gather(all, x, (size_t)n * sizeof *x);
}

static void nothing(void)
{
}

static _Noreturn void abort_all(int status)
{
    if (pthread_equal(pthread_self(), mpi.thread)) os_exit(status); // MPI ends all: it calls exit()
    os_exit_after(10, status);                                      // if the thread hangs
    atomic_store(&mpi.aborting, status + 1);
    pthread_mutex_lock(&mpi.mutex);
    pthread_cond_signal(&mpi.posted);
    pthread_mutex_unlock(&mpi.mutex);
    for (;;) os_sleep(1);
}

static void close_mpi(void)
{
    if (mpi.vote.bytes > 0) wait_call(&mpi.vote);
    barrier();
    pthread_mutex_lock(&mpi.mutex);
    mpi.closing = true;
    pthread_cond_signal(&mpi.posted);
    pthread_mutex_unlock(&mpi.mutex);
    pthread_join(mpi.thread, NULL);
}

static int start_thread(Comm *c, Error *e)
{
    // Signals are the trainer's.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int code = pthread_create(&mpi.thread, NULL, communicate, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code) return fail(e, STATUS_FAILED, "cannot start a thread for MPI (error %d)", code);
    pthread_mutex_lock(&mpi.mutex);
    while (!mpi.opened) pthread_cond_wait(&mpi.finished, &mpi.mutex);
    pthread_mutex_unlock(&mpi.mutex);
    if (mpi.status) *e = mpi.error;
    return mpi.status;
}

int mpi_open(Comm *c, int ranks, CommLost *lost, Error *e)
{
    static const Collectives collectives = {
        .all_reduce = all_reduce,
        .all_gather = all_gather_floats,
        .all_reduce_start = all_reduce_start,
        .all_reduce_wait = all_reduce_wait,
        .close = nothing,
    };
    mpi.lost = lost;
    *c = (Comm){
        .ranks = ranks,
        .broadcast = broadcast,
        .all_gather = all_gather,
        .barrier = barrier,
        .vote = vote,
        .collectives = &collectives,
        .abort = abort_all,
        .close = close_mpi,
    };
    return start_thread(c, e);
}
