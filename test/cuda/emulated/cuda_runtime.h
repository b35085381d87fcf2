/* cuda_runtime.h - a stand-in for CUDA's, for g++ and clang++: the runtime functions that the
 * library and its tests use, kernels included, on a machine without a GPU.
 *
 * In: the calls of host code. Out: what a GPU would do, as late as CUDA allows and in an order that
 * a seed chooses; errors where CUDA would be silent: the host touching device memory, waits
 * within a capture, barriers that some threads never reach. The switches are in emulated_cuda.h. */
#ifndef GRADREG_TEST_CUDA_RUNTIME_H
#define GRADREG_TEST_CUDA_RUNTIME_H

#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "../../device/emulator.h"

#define CUDART_VERSION 13000

/* ---- types ---------------------------------------------------------------------------- */

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInitializationError = 3,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidDevicePointer = 17,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchOutOfResources = 701,
    cudaErrorLaunchFailure = 719,
    cudaErrorNotSupported = 801,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorStreamCaptureUnmatched = 903,
    cudaErrorStreamCaptureUnjoined = 904,
    cudaErrorStreamCaptureIsolation = 905,
    cudaErrorStreamCaptureImplicit = 906,
    cudaErrorUnknown = 999
};

typedef struct emulated_stream *cudaStream_t;
typedef struct emulated_event *cudaEvent_t;
typedef struct emulated_graph *cudaGraph_t;
typedef struct emulated_graph_exec *cudaGraphExec_t;
typedef struct emulated_node *cudaGraphNode_t;
#define cudaStreamLegacy (reinterpret_cast<cudaStream_t>(1))

enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};

enum cudaMemoryType {
    cudaMemoryTypeUnregistered,
    cudaMemoryTypeHost,
    cudaMemoryTypeDevice,
    cudaMemoryTypeManaged
};

struct cudaPointerAttributes {
    enum cudaMemoryType type;
    int device;
    void *devicePointer;
    void *hostPointer;
};

enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
};

enum cudaStreamCaptureStatus {
    cudaStreamCaptureStatusNone,
    cudaStreamCaptureStatusActive,
    cudaStreamCaptureStatusInvalidated
};

enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrL2CacheSize = 38,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrPageableMemoryAccess = 88,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
    cudaDevAttrClusterLaunch = 120
};

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

struct cudaFuncAttributes {
    size_t sharedSizeBytes;
    int maxThreadsPerBlock;
};

enum cudaDriverEntryPointQueryResult {
    cudaDriverEntryPointSuccess,
    cudaDriverEntryPointSymbolNotFound,
    cudaDriverEntryPointVersionNotSufficent
};
enum { cudaEnableDefault = 0 };

struct cudaUUID_t {
    char bytes[16];
};

struct cudaDeviceProp {
    char name[256];
    cudaUUID_t uuid;
    size_t totalGlobalMem;
    size_t sharedMemPerBlock;
    size_t sharedMemPerBlockOptin;
    int warpSize;
    int maxThreadsPerBlock;
    int major, minor;
    int multiProcessorCount;
    int l2CacheSize;
    int unifiedAddressing, managedMemory, pageableMemoryAccess;
};

enum {
    cudaStreamDefault = 0,
    cudaStreamNonBlocking = 1,
    cudaEventDefault = 0,
    cudaEventDisableTiming = 2,
    cudaMemAttachGlobal = 1
};

/* ---- functions ------------------------------------------------------------------------ */

extern "C" {
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function,
                                             unsigned version, unsigned long long flags,
                                             cudaDriverEntryPointQueryResult *found);
cudaError_t cudaDeviceSynchronize(void);

cudaError_t cudaMalloc(void **pointer, size_t bytes);
cudaError_t cudaFree(void *pointer);
cudaError_t cudaMallocHost(void **pointer, size_t bytes);
cudaError_t cudaFreeHost(void *pointer);
cudaError_t cudaMallocManaged(void **pointer, size_t bytes, unsigned flags);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer);
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemset(void *to, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream);

cudaError_t cudaStreamCreate(cudaStream_t *stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamGetDevice(cudaStream_t stream, int *device);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end);

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus *status,
                                     unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **dependencies, const void **edges,
                                     size_t *dependency_count);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count);

cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);
const char *cudaGetErrorName(cudaError_t error);
const char *cudaGetErrorString(cudaError_t error);
}

template <class T> cudaError_t cudaMalloc(T **pointer, size_t bytes)
{
    return cudaMalloc(reinterpret_cast<void **>(pointer), bytes);
}
template <class T> cudaError_t cudaMallocHost(T **pointer, size_t bytes)
{
    return cudaMallocHost(reinterpret_cast<void **>(pointer), bytes);
}
template <class T>
cudaError_t cudaMallocManaged(T **pointer, size_t bytes, unsigned flags = cudaMemAttachGlobal)
{
    return cudaMallocManaged(reinterpret_cast<void **>(pointer), bytes, flags);
}
static inline cudaError_t cudaEventRecord(cudaEvent_t event)
{
    return cudaEventRecord(event, nullptr);
}

/* ---- launches ------------------------------------------------------------------------- */

namespace emulated
{

/* One launch: arguments are copied here and now, as a GPU's are. */
struct Launch {
    const char *name;     /* as written */
    const void *function; /* for its symbol's name */
    dim3 grid, block;
    size_t dynamic_shared_bytes;
    unsigned ranks; /* thread blocks of a cluster */
    std::vector<std::vector<unsigned char>> arguments;
    void (*invoke)(const void *values); /* calls the kernel with them */
    std::shared_ptr<const void> values;
    size_t values_bytes;
};

cudaError_t enqueue(Launch launch, cudaStream_t stream);
cudaError_t load_function(const void *function, cudaFuncAttributes *attributes);
cudaError_t find_cluster_size(int *ranks, size_t dynamic_shared_bytes);
cudaError_t set_function_attribute(const void *function, cudaFuncAttribute attribute,
                                   int value);

template <class T> std::vector<unsigned char> bytes_of(const T &value)
{
    static_assert(std::is_trivially_copyable<T>::value, "a kernel's argument is copied");
    std::vector<unsigned char> bytes(sizeof(T));
    std::memcpy(bytes.data(), &value, sizeof(T));
    return bytes;
}

template <class... Parameters> struct Values {
    void (*kernel)(Parameters...);
    std::tuple<typename std::decay<Parameters>::type...> parameters;

    static void invoke(const void *values)
    {
        const Values *self = static_cast<const Values *>(values);
        std::apply(self->kernel, self->parameters);
    }
};

template <class... Parameters, class... Arguments>
cudaError_t launch(const char *name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                   size_t dynamic_shared_bytes, unsigned ranks, cudaStream_t stream,
                   Arguments &&...arguments)
{
    using Kept = Values<Parameters...>;
    std::shared_ptr<const Kept> kept =
        std::make_shared<const Kept>(Kept{ kernel, { std::forward<Arguments>(arguments)... } });
    Launch one = { name,
                   reinterpret_cast<const void *>(kernel),
                   grid,
                   block,
                   dynamic_shared_bytes,
                   ranks,
                   {},
                   Kept::invoke,
                   nullptr,
                   sizeof(Kept) };
    std::apply([&](const auto &...each) { (one.arguments.push_back(bytes_of(each)), ...); },
               kept->parameters);
    /* Whoever runs the launch is the only one who holds them: a count that goes down here meanwhile
     * would be a race to the thread sanitizer, which does not see the other's count. */
    one.values = std::move(kept);
    return enqueue(std::move(one), stream);
}

} // namespace emulated

#define GR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                           \
    emulated::launch(#kernel, kernel, dim3(grid), dim3(block), (shared_bytes), 1, (stream), \
                     __VA_ARGS__)

#define GR_LAUNCH_CLUSTERS(kernel, grid, ranks, block, shared_bytes, stream, ...)       \
    emulated::launch(#kernel, kernel, dim3(grid), dim3(block), (shared_bytes), (ranks), \
                     (stream), __VA_ARGS__)

template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute attribute,
                                 int value)
{
    return emulated::set_function_attribute(reinterpret_cast<const void *>(kernel), attribute,
                                            value);
}

template <class... Parameters>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, void (*kernel)(Parameters...))
{
    return emulated::load_function(reinterpret_cast<const void *>(kernel), attributes);
}

template <class... Parameters>
cudaError_t gr_cuda_find_clusters(int *most, void (*)(Parameters...), unsigned, size_t shared)
{
    return emulated::find_cluster_size(most, shared);
}

#endif
