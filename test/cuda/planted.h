/* planted.h - the kernels of planted.cu. */
#ifndef GRADREG_TEST_CUDA_PLANTED_H
#define GRADREG_TEST_CUDA_PLANTED_H

#include <cuda_runtime.h>

#ifdef __CUDACC__
#define GR_SHARED(type, name, count) __shared__ type name[count]
#define GR_DYNAMIC_SHARED(type, name)                 \
    extern __shared__ uint4 planted_dynamic_shared[]; \
    type *const name = reinterpret_cast<type *>(planted_dynamic_shared)
#endif

__global__ void planted_fill(unsigned *out, unsigned n, unsigned first);
__global__ void planted_add(unsigned *out, const unsigned *in, unsigned n, unsigned by);
template <bool WITH_FENCE>
__global__ void planted_sum(unsigned *total, unsigned *parts, unsigned *arrived,
                            const unsigned *in, unsigned n);
__global__ void planted_dynamic(unsigned *out, unsigned n);
__global__ void planted_warp(unsigned *out);
__global__ void planted_missing_barrier(unsigned *out);
__global__ void planted_missing_warp_barrier(unsigned *out);
__global__ void planted_shared_overflow(unsigned *out);
__global__ void planted_divergent_barrier(unsigned *out);
__global__ void planted_unwritten_shared(unsigned *out);
__global__ void planted_bad_mask(unsigned *out);
__global__ void planted_block_race(unsigned *out);
__global__ void planted_past_the_end(unsigned *out, unsigned n);
__global__ void planted_unwritten(unsigned *out, const unsigned *in);
/* Past its array if n is over 8; misaligned unless words is a multiple of 4; over 31; over 4e9. */
__global__ void planted_local_overflow(unsigned *out, unsigned n);
__global__ void planted_misaligned(unsigned *out, unsigned words);
__global__ void planted_shift(unsigned *out, unsigned by);
__global__ void planted_conversion(unsigned *out, float x);
/* Clusters: each block reads what its neighbour has put into shared memory. */
enum { PLANTED_WAITS = 1, PLANTED_STAYS = 2, PLANTED_ARRIVES = 4, PLANTED_ALL = 7 };
template <int WHAT> __global__ void planted_cluster(unsigned *out, unsigned ranks);

#endif
