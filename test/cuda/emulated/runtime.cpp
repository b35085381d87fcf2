/* runtime.cpp - the runtime's functions, except for streams and launches.
 *
 * In: calls. Out: devices, memory, copies and errors as CUDA gives them. */
#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "emulated_cuda.h"
#include "races.h"
#include "streams.h"

using namespace emulated;

namespace
{

enum : size_t { TOTAL_MEMORY = size_t(4) << 30 };

bool is_device(int device)
{
    return device >= 0 && device < settings().devices;
}

/* ---- copies --------------------------------------------------------------------------- */

enum class Place { PAGEABLE, PINNED, DEVICE };

/* False: the bytes leave their allocation. */
bool place_of(const void *address, size_t bytes, Place *place)
{
    const Allocation *one = find(address);
    *place = one == nullptr                      ? Place::PAGEABLE
             : one->type == cudaMemoryTypeDevice ? Place::DEVICE
                                                 : Place::PINNED;
    return one == nullptr || is_known(address, bytes);
}

bool kind_fits(Place to, Place from, cudaMemcpyKind kind)
{
    const bool to_device = to == Place::DEVICE, from_device = from == Place::DEVICE;
    switch (kind) {
    case cudaMemcpyHostToHost: return !to_device && !from_device;
    case cudaMemcpyHostToDevice: return !from_device;
    case cudaMemcpyDeviceToHost: return !to_device;
    default: return true;
    }
}

/* Both may be another device's than the stream's. */
void copy_now(void *to, const void *from, size_t bytes)
{
    const Allocation *target = find(to), *source = find(from);
    const Window first(target != nullptr ? target->device : current_device);
    const Window second(source != nullptr ? source->device : current_device);
    std::memmove(to, from, bytes);
    races::copied(to, from, bytes);
}

/* Pageable memory is read before the call returns, and written before it returns: that waits. */
cudaError_t copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                 const std::shared_ptr<Stream> &stream, bool wait)
{
    Place target, source;
    if (bytes == 0)
        return cudaSuccess;
    if (to == nullptr || from == nullptr || stream == nullptr ||
        !place_of(to, bytes, &target) || !place_of(from, bytes, &source) ||
        !kind_fits(target, source, kind))
        return cudaErrorInvalidValue;
    if (stream->capture != nullptr &&
        (target == Place::PAGEABLE || source == Place::PAGEABLE)) {
        stream->capture->invalid = true;
        return cudaErrorStreamCaptureUnsupported;
    }
    cudaError_t error;
    if (source == Place::PAGEABLE && settings().pageable)
        run_all(stream); /* kernels may write there: the copy comes after them */
    if (source == Place::PAGEABLE) {
        const unsigned char *begin = static_cast<const unsigned char *>(from);
        const std::vector<unsigned char> staged(begin, begin + bytes);
        error = add(stream, [=] { copy_now(to, staged.data(), staged.size()); });
    } else {
        error = add(stream, [=] { copy_now(to, from, bytes); });
    }
    if (error == cudaSuccess && (wait || target == Place::PAGEABLE)) {
        thread_counts.host_waits++;
        run_all(stream);
    }
    return error;
}

cudaError_t set(void *to, int value, size_t bytes, const std::shared_ptr<Stream> &stream)
{
    Place place;
    if (bytes == 0)
        return cudaSuccess;
    if (stream == nullptr || !place_of(to, bytes, &place) ||
        (place == Place::PAGEABLE && !settings().pageable))
        return cudaErrorInvalidValue;
    return add(stream, [=] {
        const Allocation *target = find(to); /* maybe on another device than the stream */
        const Window window(target != nullptr ? target->device : current_device);
        std::memset(to, value, bytes);
        races::copied(to, nullptr, bytes);
    });
}

cudaError_t take(void **pointer, size_t bytes, cudaMemoryType type)
{
    if (pointer == nullptr)
        return cudaErrorInvalidValue;
    bind_context();
    *pointer = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    *pointer = allocate(bytes, type, current_device);
    if (*pointer == nullptr)
        return cudaErrorMemoryAllocation;
    thread_counts.allocations++;
    races::allocated(*pointer, bytes);
    if (type != cudaMemoryTypeDevice)
        races::copied(*pointer, nullptr, bytes); /* the host may write there, unseen */
    return cudaSuccess;
}

void run_device(int device)
{
    for (const std::shared_ptr<Stream> &stream : streams_of_device(device))
        run_all(stream);
}

/* What is queued may still use the memory, on its device, whichever is current. */
void run_user_of(const void *pointer)
{
    const Allocation *one = find(pointer);
    run_device(one != nullptr ? one->device : current_device);
}

} // namespace

#define NO_CAPTURE()                                    \
    do {                                                \
        const cudaError_t error_ = refuse_in_capture(); \
        if (error_ != cudaSuccess)                      \
            return call.end(error_);                    \
    } while (0)

/* ---- devices -------------------------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *count)
{
    CALL(false);
    *count = settings().devices;
    return call.end(settings().devices > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int *device)
{
    CALL(false);
    *device = current_device;
    return call.end(cudaSuccess);
}

/* Works although the device that is left has crashed. */
cudaError_t cudaSetDevice(int device)
{
    Call call(__func__);
    if (call.early() != cudaSuccess && call.early() != sticky[current_device])
        return call.early();
    if (!is_device(device))
        return call.end(cudaErrorInvalidDevice);
    current_device = device;
    bind_context();
    return call.end(cudaSuccess);
}

/* ---- the driver ----------------------------------------------------------------------- */

namespace
{

/* A context is told by its device's place here. */
char contexts[DEVICES_MAXIMUM];

int driver_get_current(void **context)
{
    *context = bound ? &contexts[current_device] : nullptr;
    return 0;
}

int driver_set_current(void *context)
{
    bound = context != nullptr;
    current_device = bound ? static_cast<int>(static_cast<char *>(context) - contexts) : 0;
    return 0;
}

} // namespace

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult *found)
{
    CALL(false);
    const std::string name = symbol;
    *function = name == "cuCtxGetCurrent"   ? reinterpret_cast<void *>(driver_get_current)
                : name == "cuCtxSetCurrent" ? reinterpret_cast<void *>(driver_set_current)
                                            : nullptr;
    *found =
        *function == nullptr ? cudaDriverEntryPointSymbolNotFound : cudaDriverEntryPointSuccess;
    return call.end(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device)
{
    CALL(false);
    if (!is_device(device))
        return call.end(cudaErrorInvalidDevice);
    *properties = cudaDeviceProp();
    std::snprintf(properties->name, sizeof(properties->name), "emulated GPU %d", device);
    properties->uuid.bytes[0] = static_cast<char>(device + 1);
    properties->totalGlobalMem = TOTAL_MEMORY;
    properties->sharedMemPerBlock = 48 * 1024;
    properties->sharedMemPerBlockOptin = settings().shared_bytes;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->major = 9;
    properties->multiProcessorCount = settings().multiprocessors;
    properties->l2CacheSize = 1 << 20;
    properties->unifiedAddressing = properties->managedMemory = 1;
    properties->pageableMemoryAccess = settings().pageable;
    return call.end(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    CALL(false);
    if (!is_device(device))
        return call.end(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = static_cast<int>(settings().shared_bytes);
        break;
    case cudaDevAttrClusterLaunch: *value = settings().cluster_most > 0; break;
    case cudaDevAttrMultiProcessorCount: *value = settings().multiprocessors; break;
    case cudaDevAttrL2CacheSize: *value = 1 << 20; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrPageableMemoryAccess: *value = settings().pageable; break;
    default: return call.end(cudaErrorInvalidValue);
    }
    return call.end(cudaSuccess);
}

namespace
{
std::atomic<int> driver{ 13000 };
}

void emulated_cuda_set_driver(int version)
{
    driver = version;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    CALL(false);
    *version = driver;
    return call.end(cudaSuccess);
}

cudaError_t cudaDeviceSynchronize(void)
{
    CALL(true);
    NO_CAPTURE();
    thread_counts.host_waits++;
    run_device(current_device);
    return call.end(cudaSuccess);
}

/* ---- memory --------------------------------------------------------------------------- */

cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
    CALL(false, true);
    NO_CAPTURE();
    return call.end(take(pointer, bytes, cudaMemoryTypeDevice));
}

cudaError_t cudaFree(void *pointer)
{
    CALL(true);
    NO_CAPTURE();
    bind_context();
    run_user_of(pointer);
    if (pointer == nullptr)
        return call.end(cudaSuccess);
    return call.end(release(pointer, false) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMallocHost(void **pointer, size_t bytes)
{
    CALL(false, true);
    NO_CAPTURE();
    return call.end(take(pointer, bytes, cudaMemoryTypeHost));
}

cudaError_t cudaFreeHost(void *pointer)
{
    CALL(true);
    NO_CAPTURE();
    run_user_of(pointer);
    return call.end(pointer == nullptr || release(pointer, true) ? cudaSuccess
                                                                 : cudaErrorInvalidValue);
}

cudaError_t cudaMallocManaged(void **pointer, size_t bytes, unsigned)
{
    CALL(false, true);
    NO_CAPTURE();
    return call.end(take(pointer, bytes, cudaMemoryTypeManaged));
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer)
{
    CALL(false);
    const Allocation *one = find(pointer);
    *attributes = cudaPointerAttributes();
    attributes->type = one == nullptr ? cudaMemoryTypeUnregistered : one->type;
    attributes->device = one == nullptr ? -2 : one->device;
    if (one != nullptr || settings().pageable)
        attributes->devicePointer = const_cast<void *>(pointer);
    if (one == nullptr ? settings().pageable : one->type != cudaMemoryTypeDevice)
        attributes->hostPointer = const_cast<void *>(pointer);
    return call.end(cudaSuccess);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    CALL(true);
    NO_CAPTURE();
    return call.end(copy(to, from, bytes, kind, stream_of(nullptr), true));
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    CALL(false);
    return call.end(copy(to, from, bytes, kind, stream_of(stream), false));
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    CALL(false);
    NO_CAPTURE();
    return call.end(set(to, value, bytes, stream_of(nullptr)));
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    CALL(false);
    return call.end(set(to, value, bytes, stream_of(stream)));
}

/* ---- errors --------------------------------------------------------------------------- */

cudaError_t cudaPeekAtLastError(void)
{
    return sticky[current_device] != cudaSuccess ? sticky[current_device] : last_error;
}

cudaError_t cudaGetLastError(void)
{
    const cudaError_t error = cudaPeekAtLastError();
    last_error = cudaSuccess;
    return error;
}

namespace
{

struct Name {
    cudaError_t error;
    const char *name, *sentence;
};

const Name names[] = {
#define NAME(error, sentence)   \
    {                           \
        error, #error, sentence \
    }
    NAME(cudaSuccess, "no error"),
    NAME(cudaErrorInvalidValue, "invalid argument"),
    NAME(cudaErrorMemoryAllocation, "out of memory"),
    NAME(cudaErrorInitializationError, "initialization error"),
    NAME(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    NAME(cudaErrorInvalidDevicePointer, "invalid device pointer"),
    NAME(cudaErrorInsufficientDriver, "CUDA driver version is insufficient"),
    NAME(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    NAME(cudaErrorInvalidDevice, "invalid device ordinal"),
    NAME(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    NAME(cudaErrorNotReady, "device not ready"),
    NAME(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    NAME(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    NAME(cudaErrorLaunchFailure, "unspecified launch failure"),
    NAME(cudaErrorNotSupported, "operation not supported"),
    NAME(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    NAME(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during "
                                            "capture"),
    NAME(cudaErrorStreamCaptureUnmatched, "the capture was not initiated in this stream"),
    NAME(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    NAME(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another "
                                          "stream"),
    NAME(cudaErrorStreamCaptureImplicit, "operation would make the legacy stream depend on a "
                                         "capturing blocking stream"),
    NAME(cudaErrorUnknown, "unknown error"),
#undef NAME
};

const Name *name_of(cudaError_t error)
{
    for (const Name &name : names)
        if (name.error == error)
            return &name;
    return nullptr;
}

} // namespace

const char *cudaGetErrorName(cudaError_t error)
{
    const Name *name = name_of(error);
    return name == nullptr ? "unrecognized error code" : name->name;
}

const char *cudaGetErrorString(cudaError_t error)
{
    const Name *name = name_of(error);
    return name == nullptr ? "unrecognized error code" : name->sentence;
}
