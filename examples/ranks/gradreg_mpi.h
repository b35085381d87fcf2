/* gradreg_mpi.h - sums over ranks with MPI: copy this header, compile with mpicc.
 * SPDX-License-Identifier: MIT
 *
 *      MPI_Comm communicator = MPI_COMM_WORLD;
 *      gradreg_mpi_ranks(&params, &communicator);     rank, world and all_reduce
 *      gradreg_regularizer_create(&regularizer, context, segments, count, &params);
 *
 * For contexts of the CPU, whose sums lie in host memory. `communicator` is read at every call: it must
 * live as long as the regularizer. MPI ends the process on errors unless told otherwise; with
 * MPI_Comm_set_errhandler(communicator, MPI_ERRORS_RETURN) they become GRADREG_ERROR_COMMUNICATION.
 * Threads: where several regularizers work at the same time, each needs a communicator of its own
 * (MPI_Comm_dup) and MPI_THREAD_MULTIPLE. */
#ifndef GRADREG_MPI_H
#define GRADREG_MPI_H

#include <limits.h>
#include <mpi.h>

#include "gradreg.h"

static inline int32_t gradreg_mpi_sum(void *user, double *values, size_t count, void *stream)
{
    const MPI_Comm communicator = *(const MPI_Comm *)user;
    (void)stream;
    while (count > 0) { /* MPI counts in int */
        const int part = count > INT_MAX ? INT_MAX : (int)count;
        const int failed =
            MPI_Allreduce(MPI_IN_PLACE, values, part, MPI_DOUBLE, MPI_SUM, communicator);
        if (failed != MPI_SUCCESS)
            return failed;
        values += part;
        count -= (size_t)part;
    }
    return 0;
}

/* Every rank of `communicator` holds a part of the table. */
static inline int gradreg_mpi_ranks(gradreg_regularizer_params *params, MPI_Comm *communicator)
{
    int rank = 0, world = 0, failed = MPI_Comm_rank(*communicator, &rank);
    if (failed == MPI_SUCCESS)
        failed = MPI_Comm_size(*communicator, &world);
    if (failed != MPI_SUCCESS)
        return failed;
    params->rank = rank;
    params->world = world;
    params->all_reduce.function = gradreg_mpi_sum;
    params->all_reduce.user = communicator;
    params->all_reduce.capturable = 0;
    return MPI_SUCCESS;
}

#endif /* GRADREG_MPI_H */
