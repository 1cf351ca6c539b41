// The one function that libnn_mpi.so gives to base/comm.c.
#ifndef BASE_MPI_MPI_OPEN_H
#define BASE_MPI_MPI_OPEN_H

#include "base/comm.h"

// Called once a rank is lost, from another thread than the trainer's; every process ends after it.
typedef void CommLost(int rank, int ranks, const char *how);

// As comm_open() for one of `ranks` processes, the number that the launcher says it started.
__attribute__((visibility("default"))) int mpi_open(Comm *c, int ranks, CommLost *lost, Error *e);

#endif
