// Several processes (ranks) that train one model, each with a device and its share of every batch.
//
// Comm is the processes and what they tell each other from host memory, always over MPI.
// Collectives are operations on device tensors, which the backend of the device brings: the CPU's,
// whose tensors are host memory, are MPI's too (Comm.collectives); CUDA's are NCCL's.
//
// All ranks make the same calls in the same order, each from the thread that trains. A call that
// fails, or waits for a rank that is lost, does not return: the process ends with STATUS_FAILED,
// after one line of one rank that names the lost one. The processes watch each other from
// comm_open() to close(), whatever the device does, so that Collectives need not.
#ifndef BASE_COMM_H
#define BASE_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

// When a reduction was on its way, in os_seconds(). Both 0: not measured.
typedef struct CommSpan {
    double began, ended;
} CommSpan;

// On device tensors of fp32. Sums are taken in an order that depends on the number of ranks alone
// (the CPU: ((x0 + x1) + x2) + ...), so that all ranks get the same bits, and get them again.
typedef struct Collectives {
    // Operations like those of the table: in the order of the calls, on what the operations before
    // have written and for those after; a captured step has them in its graph.
    void (*all_reduce)(float *x, int64_t n);                   // x (n) = its sum over the ranks
    void (*all_gather)(float *all, const float *x, int64_t n); // all (ranks,n), set from x (n)

    // Sums x (n) in place beside the operations that follow, once those before have written it;
    // they must not touch it until all_reduce_wait(), which orders what follows after all sums that
    // were started. Any number may be on their way, with operations and the two calls above between
    // them. `span` may be NULL; else it is set, and complete after the wait and a synchronize().
    // n is any positive number, more than 2^31 too.
    void (*all_reduce_start)(float *x, int64_t n, CommSpan *span);
    void (*all_reduce_wait)(void);

    void (*close)(void); // before the device is closed
} Collectives;

typedef struct Comm {
    int rank, ranks;             // 0 .. ranks-1
    int local_rank, local_ranks; // among the processes of this machine
    int node;                    // the rank of this machine's first process
    int stop; // the signal by which all ranks stop; 0: none yet. comm_stop_agreed()

    // Host memory. Each waits for all ranks.
    void (*broadcast)(void *data, size_t bytes);                  // rank 0's to all
    void (*all_gather)(void *all, const void *own, size_t bytes); // all (ranks,bytes)
    void (*barrier)(void);

    // The largest value of the ranks in the vote before this one, 0 in the first: the same answer
    // on all ranks without waiting for the slowest.
    int (*vote)(int value);

    const Collectives *collectives; // for tensors in host memory
    void (*abort)(int status);      // ends the processes of all ranks; does not return
    void (*close)(void);            // waits for all ranks to come here
} Comm;

// Joins the other processes of an mpirun or srun. Alone, that is without a launcher or with one
// process, MPI is not loaded: ranks is 1, the functions are those of one rank (its own vote is the
// answer), and there are no collectives. STATUS_FAILED with the fix when the launcher's environment
// shows several processes and this build has no MPI, or MPI does not connect them.
//
// After comm_open() rank 0 alone writes to stdout, and a process that exits before comm_close()
// ends all, with its status.
int comm_open(Comm *c, Error *e);
void comm_close(Comm *c);

// Called once a rank is lost, from another thread than the trainer's; every process ends after it.
typedef void CommLost(int rank, int ranks, const char *how);

// The one function of libnn_mpi.so (base/mpi/), which comm_open() loads: the same for one of
// `ranks` processes, the number that the launcher says it started.
__attribute__((visibility("default"))) int mpi_open(Comm *c, int ranks, CommLost *lost, Error *e);

// Whether a signal to stop (os_stop_signal()) has come to any rank: the same answer on all, which
// stays. With several ranks it comes one call later, by vote().
bool comm_stop_agreed(Comm *c);

// How many threads this process should use: the processors that the processes of this machine may
// use, divided among them. Waits for all ranks.
int comm_threads(const Comm *c);

#endif
