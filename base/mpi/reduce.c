// A sum in pieces: each rank gets its chunk of a piece from all (all-to-all), adds them up in the
// order of the ranks, and sends the sum to all (all-gather). That moves 2 (ranks-1)/ranks of the
// bytes in and out of each rank, the least possible. Several pieces are on their way at once.
#include "base/mpi/reduce.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

enum { PIECE = 1 << 18, PIECES = 4, BLOCK = 1024, ALIGN = 16 }; // floats, but for PIECES

typedef struct Reduction {
    float *x;
    int64_t n, begun, ended; // floats whose pieces were started, and are summed
    CommSpan *span;
} Reduction;

typedef enum { SPREADING, SUMMED, COLLECTING, WHOLE } Stage;

typedef struct Piece {
    Stage stage;
    Reduction *of;
    float *x;
    int n;
    float *received; // (ranks,chunk)
    // (ranks) each, floats of x and of received: everyone's chunk, what of it is sent there, where
    // it is; how much of this rank's chunk comes from there, and to where.
    int *chunk, *sent, *chunk_at, *copy, *copy_at;
    const float **parts; // (ranks) this rank's chunk as each has it
    MPI_Request request;
} Piece;

// A ring each. Counters only grow: place i is [i % size].
static struct {
    MPI_Comm spread, collect; // each stage starts in the order of the pieces, but the two mix
    int rank, ranks;
    Reduction list[REDUCTIONS];
    atomic_uint posted, finished;
    unsigned begun; // reductions all of whose pieces were started
    Piece pieces[PIECES];
    unsigned first, next; // pieces on their way
} reduce;

void add_parts(float *sum, const float *const *parts, int count, int64_t n)
{
    float block[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        const int64_t size = n - at < BLOCK ? n - at : BLOCK;
        memcpy(block, parts[0] + at, (size_t)size * sizeof *block);
        for (int p = 1; p < count; p++)
            for (int64_t i = 0; i < size; i++) block[i] += parts[p][at + i];
        memcpy(sum + at, block, (size_t)size * sizeof *block);
    }
}

void reduce_post(float *x, int64_t n, CommSpan *span)
{
    const unsigned i = atomic_load(&reduce.posted);
    assert(n > 0 && i - atomic_load(&reduce.finished) < REDUCTIONS);
    reduce.list[i % REDUCTIONS] = (Reduction){.x = x, .n = n, .span = span};
    atomic_store(&reduce.posted, i + 1);
}

bool reduce_finished(void)
{
    return atomic_load(&reduce.finished) == atomic_load(&reduce.posted);
}

// Whole vectors a rank; the last ranks may have less, or nothing.
static void cut(Piece *p)
{
    const int each = (p->n / reduce.ranks + ALIGN) / ALIGN * ALIGN, own = reduce.rank;
    for (int r = 0; r < reduce.ranks; r++) {
        const int left = p->n - r * each;
        p->chunk[r] = left <= 0 ? 0 : left < each ? left : each;
        p->chunk_at[r] = left <= 0 ? 0 : r * each;
        p->sent[r] = r == own ? 0 : p->chunk[r];
    }
    for (int r = 0; r < reduce.ranks; r++) {
        p->copy[r] = r == own ? 0 : p->chunk[own];
        p->copy_at[r] = r * p->chunk[own];
        p->parts[r] = r == own ? p->x + p->chunk_at[own] : p->received + p->copy_at[r];
    }
}

static void spread(Piece *p, Reduction *of)
{
    const int64_t left = of->n - of->begun;
    p->stage = SPREADING;
    p->of = of;
    p->x = of->x + of->begun;
    p->n = (int)(left < PIECE ? left : PIECE);
    cut(p);
    if (of->span && of->begun == 0) of->span->began = os_seconds();
    of->begun += p->n;
    MPI_Ialltoallv(p->x, p->sent, p->chunk_at, MPI_FLOAT, p->received, p->copy, p->copy_at,
                   MPI_FLOAT, reduce.spread, &p->request);
}

static void start_pieces(void)
{
    while (reduce.next - reduce.first < PIECES && reduce.begun != atomic_load(&reduce.posted)) {
        Reduction *r = &reduce.list[reduce.begun % REDUCTIONS];
        spread(&reduce.pieces[reduce.next++ % PIECES], r);
        if (r->begun == r->n) reduce.begun++;
    }
}

static bool arrived(Piece *p)
{
    int done;
    MPI_Test(&p->request, &done, MPI_STATUS_IGNORE);
    return done;
}

// `may_collect`: all pieces before it do so already.
static void go_on(Piece *p, bool may_collect)
{
    const int own = reduce.rank;
    if (p->stage == SPREADING && arrived(p)) {
        add_parts(p->x + p->chunk_at[own], p->parts, reduce.ranks, p->chunk[own]);
        p->stage = SUMMED;
    }
    if (p->stage == SUMMED && may_collect) {
        MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_FLOAT, p->x, p->chunk, p->chunk_at, MPI_FLOAT,
                        reduce.collect, &p->request);
        p->stage = COLLECTING;
    }
    if (p->stage == COLLECTING && arrived(p)) p->stage = WHOLE;
}

static void finish(const Piece *p)
{
    Reduction *of = p->of;
    of->ended += p->n;
    if (of->ended < of->n) return;
    if (of->span) of->span->ended = os_seconds();
    atomic_fetch_add(&reduce.finished, 1);
}

bool reduce_progress(void)
{
    start_pieces();
    bool may_collect = true;
    for (unsigned i = reduce.first; i != reduce.next; i++) {
        Piece *p = &reduce.pieces[i % PIECES];
        go_on(p, may_collect);
        may_collect = may_collect && p->stage >= COLLECTING;
    }
    while (reduce.first != reduce.next && reduce.pieces[reduce.first % PIECES].stage == WHOLE)
        finish(&reduce.pieces[reduce.first++ % PIECES]);
    return !reduce_finished();
}

int reduce_open(Error *e)
{
    MPI_Comm_dup(MPI_COMM_WORLD, &reduce.spread);
    MPI_Comm_dup(MPI_COMM_WORLD, &reduce.collect);
    MPI_Comm_rank(MPI_COMM_WORLD, &reduce.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &reduce.ranks);
    const size_t ranks = (size_t)reduce.ranks;
    for (int i = 0; i < PIECES; i++) {
        Piece *p = &reduce.pieces[i];
        p->received = malloc((PIECE + ALIGN * ranks) * sizeof *p->received);
        p->chunk = malloc(5 * ranks * sizeof *p->chunk);
        p->parts = malloc(ranks * sizeof *p->parts);
        if (!p->received || !p->chunk || !p->parts)
            return fail(e, STATUS_IO, "no memory to sum over %zu processes", ranks);
        p->sent = p->chunk + ranks;
        p->chunk_at = p->sent + ranks;
        p->copy = p->chunk_at + ranks;
        p->copy_at = p->copy + ranks;
    }
    return STATUS_OK;
}

void reduce_close(void)
{
    for (int i = 0; i < PIECES; i++) {
        free(reduce.pieces[i].received);
        free(reduce.pieces[i].chunk);
        free(reduce.pieces[i].parts);
    }
    MPI_Comm_free(&reduce.spread);
    MPI_Comm_free(&reduce.collect);
}
