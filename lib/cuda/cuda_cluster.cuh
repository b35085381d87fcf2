/* cuda_cluster.cuh - thread blocks that see each other's shared memory: the only place that knows how.
 *
 * In: a number of ranks, 1 where there are no clusters. Out: waits and addresses; with one rank those of
 * a thread block. Compute capability 9.0 has clusters; below it nothing launches one. */
#ifndef GRADREG_LIB_CUDA_CLUSTER_CUH
#define GRADREG_LIB_CUDA_CLUSTER_CUH

#include "cuda_check.h"

#if defined(GR_CUDA_EMULATED) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
#define GR_HAS_CLUSTERS 1
#else
#define GR_HAS_CLUSTERS 0
#endif

/* Blocks of a launch's grid that follow each other are one cluster. */
GR_DEVICE uint32_t gr_cluster_rank(uint32_t ranks)
{
    return blockIdx.x % ranks;
}

/* All threads of the cluster have come here, and see what the others wrote to shared memory. */
GR_DEVICE void gr_cluster_wait(uint32_t ranks)
{
#if GR_HAS_CLUSTERS
    if (ranks > 1) {
        __cluster_barrier_arrive();
        __cluster_barrier_wait();
        return;
    }
#endif
    (void)ranks;
    __syncthreads();
}

/* Where another rank has what the caller has at `own`, in shared memory. */
template <class T> GR_DEVICE const T *gr_cluster_at(const T *own, uint32_t rank, uint32_t ranks)
{
#if GR_HAS_CLUSTERS
    if (ranks > 1)
        return static_cast<const T *>(__cluster_map_shared_rank(own, rank));
#endif
    (void)rank, (void)ranks;
    return own;
}

#endif
