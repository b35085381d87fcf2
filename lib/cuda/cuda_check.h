/* cuda_check.h - launching, checking, and what a context is on this side.
 *
 * In: CUDA runtime calls. Out: a status and a sentence that names the call and what the runtime
 * said. Nothing here waits. The emulation in test/ supplies its own cuda_runtime.h with GR_LAUNCH
 * and the GR_SHARED macros, and compiles these files as C++. */
#ifndef GRADREG_LIB_CUDA_CHECK_H
#define GRADREG_LIB_CUDA_CHECK_H

#include <cuda_runtime.h>

#include "../module.h"
#include "../status.h"

#ifndef GR_LAUNCH
#define GR_LAUNCH(kernel, grid, block, shared, stream, ...) \
    kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
#endif
#ifndef GR_SHARED
#define GR_SHARED(type, name, count) __shared__ type name[count]
#define GR_DYNAMIC_SHARED(type, name)                                  \
    extern __shared__ __align__(16) unsigned char gr_dynamic_shared[]; \
    type *name = reinterpret_cast<type *>(gr_dynamic_shared)
#endif

/* A grid of clusters: `ranks` thread blocks that follow each other are one. */
#ifndef GR_LAUNCH_CLUSTERS
template <class Kernel, class Argument>
static inline void gr_cuda_launch_clusters(Kernel kernel, unsigned grid, unsigned ranks,
                                           unsigned block, size_t shared, cudaStream_t stream,
                                           const Argument &argument)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = ranks;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.gridDim = dim3(grid);
    config.blockDim = dim3(block);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    (void)cudaLaunchKernelEx(&config, kernel, argument); /* the last error is what it returns */
}
#define GR_LAUNCH_CLUSTERS gr_cuda_launch_clusters

/* How many of these thread blocks a cluster can have; a part of a GPU may have fewer processors side by
 * side than a whole one. */
template <class Kernel>
static inline cudaError_t gr_cuda_find_clusters(int *most, Kernel kernel, unsigned block,
                                                size_t shared)
{
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(8);
    config.blockDim = dim3(block);
    config.dynamicSmemBytes = shared;
    return cudaOccupancyMaxPotentialClusterSize(most, kernel, &config);
}
#endif

/* In front of a loop. */
#ifdef __CUDACC__
#define GR_UNROLL    _Pragma("unroll")
#define GR_UNROLL_2  _Pragma("unroll 2")
#define GR_UNROLL_4  _Pragma("unroll 4")
#define GR_NO_UNROLL _Pragma("unroll 1")
#else
#define GR_UNROLL
#define GR_UNROLL_2
#define GR_UNROLL_4
#define GR_NO_UNROLL
#endif

#define GR_DEVICE        static __device__ __forceinline__
#define GR_DEVICE_MEMBER __device__ __forceinline__

/* What the core lets this module call; set when it is loaded. */
extern const gr_core *gradreg_cuda_core;

#define GR_CUDA_FAIL(status, ...) (gradreg_cuda_core->set_error(__VA_ARGS__), (status))

#define GR_CUDA_REQUIRE(condition, status, ...)       \
    do {                                              \
        if (!(condition))                             \
            return GR_CUDA_FAIL(status, __VA_ARGS__); \
    } while (0)

/* An error that this module caused and reports is taken out of the runtime, so that nobody else is
 * blamed for it. One that sticks stays there by itself. */
gradreg_status gradreg_cuda_report(const char *call, cudaError_t error);

#define GR_CUDA_TRY(call)                                 \
    do {                                                  \
        const cudaError_t gr_error_ = (call);             \
        if (gr_error_ != cudaSuccess)                     \
            return gradreg_cuda_report(#call, gr_error_); \
    } while (0)

/* After every launch. */
#define GR_CUDA_TRY_LAUNCH(name)                                      \
    do {                                                              \
        const cudaError_t gr_error_ = cudaGetLastError();             \
        if (gr_error_ != cudaSuccess)                                 \
            return gradreg_cuda_report("launch of " name, gr_error_); \
    } while (0)

/* Brings kernels onto the current device, which the runtime otherwise does at their first launch: that
 * waits for the device, and must not happen while a stream is captured. */
template <class... KERNELS> static inline gradreg_status gr_cuda_load(KERNELS... kernels)
{
    cudaFuncAttributes attributes;
    cudaError_t error = cudaSuccess;
    (void)((error = cudaFuncGetAttributes(&attributes, kernels), error == cudaSuccess) && ...);
    return error == cudaSuccess ? GRADREG_OK
                                : gradreg_cuda_report("cudaFuncGetAttributes", error);
}

/* Behind gradreg_context.device. */
typedef struct gr_cuda_context {
    int device;
    int processors;   /* SMs */
    int major;        /* of the compute capability */
    int shared_bytes; /* a block can have at most */
    int reaches_host;
    int chip_bytes;   /* of a row of logits that a block can hold */
    int cluster_most; /* thread blocks that can hold one together; 1: no clusters */
    cudaStream_t stream;
    void *blas; /* cuda_blas.h */
} gr_cuda_context;

static inline gr_cuda_context *gr_cuda_of(const gradreg_context *context)
{
    return static_cast<gr_cuda_context *>(gradreg_cuda_core->device_of(context));
}

/* The device functions around a loss, whose front does not know about devices. */
gradreg_status gradreg_cuda_enter(void *state, gr_device_guard *guard);
void gradreg_cuda_leave(void *state, const gr_device_guard *guard);

/* Runs op(c, arguments...) with the context's device current, and queues nothing behind an error. */
template <class OP, class... ARGUMENTS>
static inline gradreg_status gr_cuda_run(gradreg_context *context, OP op,
                                         ARGUMENTS... arguments)
{
    gr_cuda_context *c = gr_cuda_of(context);
    gr_device_guard guard;
    GR_TRY(gradreg_cuda_enter(c, &guard));
    const gradreg_status status = op(c, arguments...);
    gradreg_cuda_leave(c, &guard);
    return status;
}

/* Whether the stream is being captured, and into which graph. */
gradreg_status gradreg_cuda_capture(const gr_cuda_context *c, unsigned long long *graph);

/* Device memory to the host; waits, and is refused while the stream is captured. */
gradreg_status gradreg_cuda_fetch(const gr_cuda_context *c, void *host, const void *device,
                                  size_t bytes);
/* STATE while the stream is captured. */
gradreg_status gradreg_cuda_may_wait(const gr_cuda_context *c);

/* Blocks for `wanted` pieces of work, so many per SM at most. */
static inline unsigned gr_cuda_grid(const gr_cuda_context *c, uint64_t wanted,
                                    int per_processor)
{
    const uint64_t most =
        static_cast<uint64_t>(c->processors) * static_cast<uint64_t>(per_processor);
    return static_cast<unsigned>(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

#endif
