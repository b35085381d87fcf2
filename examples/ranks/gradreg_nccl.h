/* gradreg_nccl.h - sums over ranks with NCCL: copy this header, link with -lnccl.
 * SPDX-License-Identifier: MIT
 *
 *      gradreg_nccl_ranks(&params, &communicator);    rank, world and all_reduce
 *      gradreg_regularizer_create(&regularizer, context, segments, count, &params);
 *
 * For contexts of the CUDA backend: the sums lie in device memory, and the all-reduce is queued on the
 * context's stream, so nothing waits and it may be recorded in a CUDA graph. `communicator` is read at
 * every call: it must live as long as the regularizer. As with every use of a communicator, the order
 * of its operations must be the same on all ranks: where the trainer uses it on another stream at the
 * same time, give the regularizer one of its own (ncclCommSplit). */
#ifndef GRADREG_NCCL_H
#define GRADREG_NCCL_H

#include <nccl.h>

#include "gradreg.h"

static inline int32_t gradreg_nccl_sum(void *user, double *values, size_t count, void *stream)
{
    const ncclComm_t communicator = *(const ncclComm_t *)user;
    return (int32_t)ncclAllReduce(values, values, count, ncclDouble, ncclSum, communicator,
                                  (cudaStream_t)stream);
}

/* Every rank of `communicator` holds a part of the table. */
static inline ncclResult_t gradreg_nccl_ranks(gradreg_regularizer_params *params,
                                              ncclComm_t *communicator)
{
    int rank = 0, world = 0;
    ncclResult_t failed = ncclCommUserRank(*communicator, &rank);
    if (failed == ncclSuccess)
        failed = ncclCommCount(*communicator, &world);
    if (failed != ncclSuccess)
        return failed;
    params->rank = rank;
    params->world = world;
    params->all_reduce.function = gradreg_nccl_sum;
    params->all_reduce.user = communicator;
    params->all_reduce.capturable = 1;
    return ncclSuccess;
}

#endif /* GRADREG_NCCL_H */
