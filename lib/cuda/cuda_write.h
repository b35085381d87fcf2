/* cuda_write.h - small pieces of host memory into device memory, without a wait.
 *
 * In: words on the host. Out: the same in device memory, in the order of the stream. The words
 * travel as kernel parameters, by value: the host's memory is free at once, nothing waits, and a
 * graph that is captured keeps them for its replays. A copy from pinned or pageable memory would do
 * none of that. */
#ifndef GRADREG_LIB_CUDA_WRITE_H
#define GRADREG_LIB_CUDA_WRITE_H

#include "cuda_check.h"

/* What one launch carries: kernels take 32,764 bytes of parameters, not 4 KiB, with
 * drivers of CUDA 12.1 and newer and from compute capability 7.0 on. */
enum { GR_WRITE_WORDS = 8000, GR_WRITE_FEW_WORDS = 960 };

/* bytes and `to` are multiples of 4. */
gradreg_status gradreg_cuda_write(const gr_cuda_context *c, void *to, const void *from,
                                  size_t bytes);

/* See gr_cuda_load(). */
gradreg_status gradreg_cuda_load_write(void);

#endif
