/* cuda_fold.cuh - the last step of reduce.h's tree, by a warp.
 *
 * In: block results in device memory, which are used up. Out: their sum with the tree's bits. */
#ifndef GRADREG_LIB_CUDA_FOLD_CUH
#define GRADREG_LIB_CUDA_FOLD_CUH

#include "cuda_check.h"

/* Step 5 of reduce.h over x[0], x[stride], ..., by a warp: aligned runs of a power of two, one a thread, in
 * place; then the threads' results, an odd last one carried up. Other thread blocks wrote them, so
 * they are read past the first cache. */
GR_DEVICE double gr_fold(volatile double *x, uint32_t count, uint64_t stride)
{
    uint32_t run = 1;
    while (run * 32 < count)
        run *= 2;
    const uint32_t runs = (count + run - 1) / run, t = threadIdx.x % 32u;
    double sum = 0.0;
    if (t < runs) {
        volatile double *mine = x + (uint64_t)t * run * stride;
        uint32_t n = count - t * run < run ? count - t * run : run;
        while (n > 1) {
            for (uint32_t i = 0; i < n / 2; i++)
                mine[i * stride] = mine[2 * i * stride] + mine[(2 * i + 1) * stride];
            if (n % 2 != 0)
                mine[n / 2 * stride] = mine[(n - 1) * stride];
            n -= n / 2;
        }
        sum = mine[0];
    }
    for (uint32_t offset = 1; offset < runs; offset *= 2) {
        const double other = __shfl_xor_sync(0xffffffffu, sum, static_cast<int>(offset));
        if (t % (2 * offset) == 0 && t + offset < runs)
            sum = sum + other;
    }
    return sum; /* thread 0's counts */
}

#endif
