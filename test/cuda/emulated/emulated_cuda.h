/* emulated_cuda.h - the switches of the emulated CUDA runtime, for tests in C and C++.
 *
 * In: how the "GPU" is to behave. Out: what was called, waited for and left behind. Also set by
 * the environment, once, at the first call:
 *
 *   GRADREG_EMULATED_SCHEDULE=N         0 (default): work runs as late as allowed, 1: at once,
 *                                       others: at random; threads and blocks are shuffled too
 *   GRADREG_EMULATED_DEVICES=N          default 2
 *   GRADREG_EMULATED_MULTIPROCESSORS=N  default 3
 *   GRADREG_EMULATED_CLUSTERS=N         thread blocks of a cluster at most, whatever is set later (8;
 *                                       0: no clusters)
 *   GRADREG_EMULATED_SHARED=N           bytes of shared memory that a block can ask for
 *   GRADREG_EMULATED_PAGEABLE=1         kernels may touch any host memory
 *   GRADREG_EMULATED_PTX=FILE[:FILE]    every kernel runs a second time, from nvcc's output, and
 *                                       has to leave the same bytes
 *   GRADREG_EMULATED_RACES=1            the race checker (races.h); the kernels have to be
 *                                       compiled with -fsanitize=thread
 *   GRADREG_EMULATED_REPORT=1           counts to stderr at exit, and the kernels that ran from PTX,
 *                                       with " in clusters" behind those that ran so too */
#ifndef GRADREG_TEST_EMULATED_CUDA_H
#define GRADREG_TEST_EMULATED_CUDA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void emulated_cuda_set_schedule(uint64_t schedule);
void emulated_cuda_set_devices(int count);
void emulated_cuda_set_pageable(int on);
void emulated_cuda_set_clusters(int most);
/* What cudaDriverGetVersion() says: 13000 is CUDA 13.0, 0 no driver. */
void emulated_cuda_set_driver(int version);
/* Bytes that a block can ask for. */
void emulated_cuda_set_shared(size_t bytes);
/* Bytes that cudaMalloc() may hand out; 0: no limit. */
void emulated_cuda_set_memory(size_t bytes);

/* The nth fallible call from now on fails, and with `onwards` so do all after it; 0: none. What
 * frees or waits does so, and then reports failure. */
void emulated_cuda_fail(uint64_t nth, int onwards);
uint64_t emulated_cuda_calls(void);          /* fallible ones since then */
uint64_t emulated_cuda_failed(void);         /* that failed on purpose since then */
const char *emulated_cuda_failed_name(void); /* of the first of these; "" */

/* The calling thread has no context, and nobody has made one; memory stays. */
void emulated_cuda_forget_contexts(void);
/* Whether a call has made a context on this device since then. */
int emulated_cuda_has_context(int device);

/* As if a kernel of somebody else had crashed on this device. */
void emulated_cuda_crash(int device);
/* The devices are as new; what was allocated stays. */
void emulated_cuda_reset_errors(void);

/* Broken rules (by kernels, by the host) end the process unless they are kept: then the device
 * has crashed, and the sentence is here. NULL: none since the last call. */
void emulated_cuda_keep_faults(int on);
const char *emulated_cuda_fault(void);

/* Since the process began; allocations and waits are the calling thread's. */
uint64_t emulated_cuda_launches(void);
uint64_t emulated_cuda_allocations(void);
uint64_t emulated_cuda_host_waits(void);
/* Of cuBLAS, of matrices of f32; of the calling thread. */
uint64_t emulated_cuda_f32_products(void);
/* What is not freed: allocations of any kind, streams, events, graphs. */
size_t emulated_cuda_live(void);
/* Launches compared with PTX, and different kernels and shapes among them. */
uint64_t emulated_cuda_ptx_launches(void);
uint64_t emulated_cuda_ptx_kernels(void);
uint64_t emulated_cuda_ptx_shapes(void);
uint64_t emulated_cuda_ptx_instructions(void);
/* Accesses that the race checker has seen. */
uint64_t emulated_cuda_watched(void);

#ifdef __cplusplus
}
#endif

#endif
