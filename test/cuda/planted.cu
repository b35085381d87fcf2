/* planted.cu - small kernels for check_runtime.cpp, most of them with a planted fault. */
#include "planted.h"

#include <stdint.h>

namespace
{

__device__ unsigned block_sum(unsigned value)
{
    GR_SHARED(unsigned, part, 32);
    for (int offset = 16; offset >= 1; offset /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = value;
    __syncthreads();
    unsigned sum = 0;
    for (unsigned i = 0; i < blockDim.x / 32; i++)
        sum += part[i];
    __syncthreads();
    return sum;
}

} // namespace

/* ---- sound ---------------------------------------------------------------------------- */

__global__ void planted_fill(unsigned *out, unsigned n, unsigned first)
{
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = first + i;
}

__global__ void planted_add(unsigned *out, const unsigned *in, unsigned n, unsigned by)
{
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = in[i] + by;
}

/* The last block of the grid sums what all have left: fence, counter, read. */
template <bool WITH_FENCE>
__global__ void planted_sum(unsigned *total, unsigned *parts, unsigned *arrived,
                            const unsigned *in, unsigned n)
{
    GR_SHARED(unsigned, is_last, 1);
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned sum = block_sum(i < n ? in[i] : 0);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = sum;
        if (WITH_FENCE)
            __threadfence();
        is_last[0] = atomicAdd(arrived, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (is_last[0] == 0)
        return;
    unsigned all = 0;
    for (unsigned k = threadIdx.x; k < gridDim.x; k += blockDim.x)
        all += const_cast<const volatile unsigned *>(parts)[k];
    all = block_sum(all);
    if (threadIdx.x == 0) {
        *total = all;
        *arrived = 0;
    }
}
template __global__ void planted_sum<true>(unsigned *, unsigned *, unsigned *, const unsigned *,
                                           unsigned);
template __global__ void planted_sum<false>(unsigned *, unsigned *, unsigned *,
                                            const unsigned *, unsigned);

__global__ void planted_dynamic(unsigned *out, unsigned n)
{
    GR_DYNAMIC_SHARED(unsigned, kept);
    kept[threadIdx.x] = threadIdx.x;
    __syncthreads();
    if (threadIdx.x < n)
        out[threadIdx.x] = kept[blockDim.x - 1 - threadIdx.x];
}

__global__ void planted_warp(unsigned *out)
{
    const unsigned lane = threadIdx.x % 32;
    const unsigned first = __shfl_sync(0xffffffffu, threadIdx.x, 0);
    const unsigned next = __shfl_down_sync(0xffffffffu, threadIdx.x, 1);
    const unsigned before = __shfl_up_sync(0xffffffffu, threadIdx.x, 1);
    const unsigned quarter = __shfl_sync(0xffffffffu, threadIdx.x, 3, 8);
    const unsigned odd = __ballot_sync(0xffffffffu, threadIdx.x & 1);
    const unsigned any = static_cast<unsigned>(__any_sync(0xffffffffu, lane == 7));
    const unsigned all = static_cast<unsigned>(__all_sync(0xffffffffu, lane < 31));
    const unsigned many = static_cast<unsigned>(__syncthreads_count(lane < 3));
    out[threadIdx.x] =
        first + 3 * next + 5 * before + 7 * quarter + (odd & 0xff) + any + all + 100000 * many;
}

/* Compute capability 9.0 has clusters. */
template <int WHAT> __global__ void planted_cluster(unsigned *out, unsigned ranks)
{
#if !defined(__CUDACC__) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
    GR_SHARED(unsigned, kept, 32);
    const unsigned rank = blockIdx.x % ranks, next = (rank + 1) % ranks;
    kept[threadIdx.x] = 100 * rank + threadIdx.x;
    if (WHAT & PLANTED_WAITS) {
        if (WHAT & PLANTED_ARRIVES)
            __cluster_barrier_arrive();
        __cluster_barrier_wait();
    } else {
        __syncthreads();
    }
    if (!(WHAT & PLANTED_STAYS) && rank == 0)
        return;
    __syncthreads();
    const unsigned *other =
        static_cast<const unsigned *>(__cluster_map_shared_rank(kept, next));
    out[32 * rank + threadIdx.x] = other[31 - threadIdx.x];
    if (WHAT & PLANTED_WAITS && WHAT & PLANTED_STAYS) {
        __cluster_barrier_arrive();
        __cluster_barrier_wait();
    }
#else
    (void)out, (void)ranks;
#endif
}
template __global__ void planted_cluster<PLANTED_ALL>(unsigned *, unsigned);
template __global__ void planted_cluster<PLANTED_STAYS>(unsigned *, unsigned);
template __global__ void planted_cluster<PLANTED_WAITS | PLANTED_STAYS>(unsigned *, unsigned);
template __global__ void planted_cluster<PLANTED_WAITS | PLANTED_ARRIVES>(unsigned *, unsigned);

/* ---- planted -------------------------------------------------------------------------- */

__global__ void planted_missing_barrier(unsigned *out)
{
    GR_SHARED(unsigned, kept, 64);
    kept[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = kept[(threadIdx.x + 1) % blockDim.x];
}

__global__ void planted_missing_warp_barrier(unsigned *out)
{
    GR_SHARED(unsigned, kept, 32);
    kept[threadIdx.x] = threadIdx.x;
    __syncwarp(threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u); /* halves, not the warp */
    out[threadIdx.x] = kept[31 - threadIdx.x];
}

__global__ void planted_shared_overflow(unsigned *out)
{
    GR_SHARED(unsigned, kept, 63);
    kept[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = kept[threadIdx.x];
}

__global__ void planted_divergent_barrier(unsigned *out)
{
    if (threadIdx.x < 32)
        __syncthreads();
    out[threadIdx.x] = 1;
}

__global__ void planted_unwritten_shared(unsigned *out)
{
    GR_SHARED(unsigned, kept, 64);
    if (threadIdx.x > 0)
        kept[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = kept[threadIdx.x];
}

__global__ void planted_bad_mask(unsigned *out)
{
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, threadIdx.x, 1); /* 40 threads */
}

__global__ void planted_block_race(unsigned *out)
{
    if (threadIdx.x == 0)
        out[0] = out[0] + 1;
}

__global__ void planted_past_the_end(unsigned *out, unsigned n)
{
    out[blockIdx.x * blockDim.x + threadIdx.x] = n; /* and no comparison with n */
}

__global__ void planted_unwritten(unsigned *out, const unsigned *in)
{
    out[threadIdx.x] = in[threadIdx.x];
}

/* ---- what the compiler's sanitizers see ------------------------------------------------ */

__global__ void planted_local_overflow(unsigned *out, unsigned n)
{
    unsigned own[8] = {};
    unsigned *volatile at = own; /* the compiler is not to know where it points */
    for (unsigned i = 0; i < n; i++)
        at[i] = i;
    out[threadIdx.x] = own[threadIdx.x % 8];
}

__global__ void planted_misaligned(unsigned *out, unsigned words)
{
    const uint4 four = { 1, 2, 3, 4 };
    reinterpret_cast<uint4 *>(out + words)[threadIdx.x] = four;
}

__global__ void planted_shift(unsigned *out, unsigned by)
{
    out[threadIdx.x] = 1u << by;
}

__global__ void planted_conversion(unsigned *out, float x)
{
    out[threadIdx.x] = static_cast<unsigned>(x);
}
