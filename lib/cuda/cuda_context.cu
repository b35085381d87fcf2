/* cuda_context.cu - the device behind a context: opening it, its stream, its memory, its errors.
 *
 * In: a device's number, the caller's stream. Out: gr_device's functions. The caller's current
 * device is the same after every call as before it. */
#include "cuda_context.h"

#include "cuda_blas.h"
#include "cuda_policy_logits.h"

#include <stdio.h>
#include <stdlib.h>

const gr_core *gradreg_cuda_core;

/* ---- errors ---------------------------------------------------------------------- */

gradreg_status gradreg_cuda_report(const char *call, cudaError_t error)
{
    (void)cudaGetLastError();
    return GR_CUDA_FAIL(
        error == cudaErrorMemoryAllocation ? GRADREG_ERROR_OUT_OF_MEMORY : GRADREG_ERROR_DEVICE,
        "%.60s: %s (%s)", call, cudaGetErrorString(error), cudaGetErrorName(error));
}

/* Errors that others left: named, not swallowed, and nothing is queued behind them. */
static gradreg_status check_quiet(cudaStream_t stream)
{
    cudaStreamCaptureStatus capture;
    cudaError_t error = cudaPeekAtLastError();
    if (error == cudaSuccess)
        error = cudaStreamGetCaptureInfo(stream, &capture, NULL, NULL, NULL, NULL, NULL);
    if (error == cudaSuccess)
        return GRADREG_OK;
    if (error == cudaErrorStreamCaptureImplicit) { /* nothing is broken */
        (void)cudaGetLastError();
        return GR_CUDA_FAIL(
            GRADREG_ERROR_STATE,
            "the context is on the default stream, which must not be used while "
            "another stream is captured that waits for it");
    }
    return GR_CUDA_FAIL(
        GRADREG_ERROR_DEVICE,
        "the device was in error before this call: %s (%s), left by earlier work "
        "of this process. Nothing was queued; after a fault of the device only "
        "destroying helps",
        cudaGetErrorString(error), cudaGetErrorName(error));
}

gradreg_status gradreg_cuda_capture(const gr_cuda_context *c, unsigned long long *graph)
{
    cudaStreamCaptureStatus capture;
    unsigned long long id = 0;
    GR_CUDA_TRY(cudaStreamGetCaptureInfo(c->stream, &capture, &id, NULL, NULL, NULL, NULL));
    *graph = capture == cudaStreamCaptureStatusActive ? id : 0;
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_may_wait(const gr_cuda_context *c)
{
    unsigned long long graph;
    GR_TRY(gradreg_cuda_capture(c, &graph));
    GR_CUDA_REQUIRE(graph == 0, GRADREG_ERROR_STATE,
                    "the stream is being captured, and this call waits for it");
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_fetch(const gr_cuda_context *c, void *host, const void *device,
                                  size_t bytes)
{
    GR_TRY(gradreg_cuda_may_wait(c));
    GR_CUDA_TRY(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, c->stream));
    GR_CUDA_TRY(cudaStreamSynchronize(c->stream));
    return GRADREG_OK;
}

/* ---- the guard ------------------------------------------------------------------- */

/* The driver's functions for the calling thread's context. Giving back the device that the runtime names
 * would make a context on it: every rank would leave one on device 0, which it never asked for, and a
 * caller's own context would be gone. */
typedef struct gr_driver {
    int (*get)(void **context);
    int (*set)(void *context);
} gr_driver;

static gr_driver driver;

enum { DRIVER_VERSION = 4000 }; /* cuCtxGetCurrent() is as old as this */

static gradreg_status find_driver(const char *name, void **function)
{
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    GR_CUDA_TRY(cudaGetDriverEntryPointByVersion(name, function, DRIVER_VERSION,
                                                 cudaEnableDefault, &found));
    GR_CUDA_REQUIRE(found == cudaDriverEntryPointSuccess, GRADREG_ERROR_UNSUPPORTED,
                    "the NVIDIA driver has no %s", name);
    return GRADREG_OK;
}

static gradreg_status select_device(int device, gr_device_guard *guard)
{
    int now = -1;
    guard->previous = NULL;
    guard->changed = 0;
    if (driver.get(&guard->previous) == 0 && guard->previous != NULL)
        GR_CUDA_TRY(cudaGetDevice(&now));
    if (now == device)
        return GRADREG_OK;
    GR_CUDA_TRY(cudaSetDevice(device));
    guard->changed = 1;
    return GRADREG_OK;
}

void gradreg_cuda_leave(void *state, const gr_device_guard *guard)
{
    (void)state;
    if (guard->changed)
        (void)driver.set(guard->previous);
}

gradreg_status gradreg_cuda_enter(void *state, gr_device_guard *guard)
{
    const gr_cuda_context *c = static_cast<gr_cuda_context *>(state);
    GR_TRY(select_device(c->device, guard));
    const gradreg_status status = check_quiet(c->stream);
    if (status != GRADREG_OK)
        gradreg_cuda_leave(state, guard);
    return status;
}

/* ---- opening --------------------------------------------------------------------- */

static gradreg_status count_devices(int *count)
{
    int version = 0;
    const cudaError_t error = cudaGetDeviceCount(count);
    if (error == cudaSuccess && *count > 0)
        return GRADREG_OK;
    (void)cudaGetLastError();
    (void)cudaDriverGetVersion(&version);
    if (version == 0)
        return GR_CUDA_FAIL(GRADREG_ERROR_UNSUPPORTED,
                            "the CUDA module is there, but this machine has no NVIDIA driver "
                            "(libcuda.so.1 was not found)");
    if (version < CUDART_VERSION / 1000 * 1000)
        return GR_CUDA_FAIL(GRADREG_ERROR_UNSUPPORTED,
                            "the NVIDIA driver knows CUDA %d.%d, the module needs CUDA %d: "
                            "update the driver",
                            version / 1000, version % 1000 / 10, CUDART_VERSION / 1000);
    return GR_CUDA_FAIL(GRADREG_ERROR_UNSUPPORTED, "there is a driver but no device: %s",
                        error == cudaSuccess ? "it lists none" : cudaGetErrorString(error));
}

gradreg_status gradreg_cuda_load(const gr_core *core)
{
    int count = 0;
    gradreg_cuda_core = core;
    GR_TRY(count_devices(&count));
    GR_TRY(find_driver("cuCtxGetCurrent", reinterpret_cast<void **>(&driver.get)));
    return find_driver("cuCtxSetCurrent", reinterpret_cast<void **>(&driver.set));
}

static gradreg_status ask(int *out, enum cudaDeviceAttr what, int device)
{
    GR_CUDA_TRY(cudaDeviceGetAttribute(out, what, device));
    return GRADREG_OK;
}

static gradreg_status describe(gr_cuda_context *c, char *name)
{
    cudaDeviceProp properties;
    GR_CUDA_TRY(cudaGetDeviceProperties(&properties, c->device));
    (void)snprintf(name, 64, "%.63s", properties.name);
    GR_TRY(ask(&c->processors, cudaDevAttrMultiProcessorCount, c->device));
    GR_TRY(ask(&c->major, cudaDevAttrComputeCapabilityMajor, c->device));
    GR_TRY(ask(&c->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, c->device));
    GR_TRY(ask(&c->reaches_host, cudaDevAttrPageableMemoryAccess, c->device));
    GR_CUDA_REQUIRE(c->major >= 8, GRADREG_ERROR_UNSUPPORTED,
                    "device %d (%s) has compute capability %d.x, must be 8.0 or newer",
                    c->device, name, c->major);
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_open(void **state, int32_t index, char *name)
{
    int count = 0;
    gr_device_guard guard;
    GR_TRY(count_devices(&count));
    GR_CUDA_REQUIRE(index >= 0 && index < count, GRADREG_ERROR_INVALID_ARGUMENT,
                    "params.device is %d, must be 0 to %d", index, count - 1);
    gr_cuda_context *c = static_cast<gr_cuda_context *>(calloc(1, sizeof(gr_cuda_context)));
    GR_CUDA_REQUIRE(c != NULL, GRADREG_ERROR_OUT_OF_MEMORY, "no memory for a CUDA context");
    c->device = index;
    gradreg_status status = select_device(index, &guard);
    if (status == GRADREG_OK) {
        status = describe(c, name);
        if (status == GRADREG_OK)
            status = gradreg_cuda_load_kernels();
        if (status == GRADREG_OK)
            status = gradreg_cuda_policy_logits_open(c);
        if (status == GRADREG_OK)
            status = check_quiet(c->stream);
        gradreg_cuda_leave(c, &guard);
    }
    if (status != GRADREG_OK) {
        free(c);
        return status;
    }
    *state = c;
    return GRADREG_OK;
}

void gradreg_cuda_close(void *state)
{
    gr_cuda_context *c = static_cast<gr_cuda_context *>(state);
    gr_device_guard guard;
    if (c->blas != NULL) {
        const gradreg_status selected = select_device(c->device, &guard);
        gradreg_cuda_blas_close(c);
        if (selected == GRADREG_OK)
            gradreg_cuda_leave(c, &guard);
    }
    free(c);
}

/* ---- stream and memory ----------------------------------------------------------- */

/* Launches would be refused there, but not memsets and copies: those would run, and nothing would order
 * them. The stream before may be gone by now, so nothing asks it. */
gradreg_status gradreg_cuda_set_stream(void *state, void *stream)
{
    gr_cuda_context *c = static_cast<gr_cuda_context *>(state);
    const cudaStream_t asked = static_cast<cudaStream_t>(stream);
    gr_device_guard guard;
    int device = c->device;
    if (asked != NULL && asked != c->stream) {
        GR_TRY(select_device(c->device, &guard));
        const cudaError_t error = cudaStreamGetDevice(asked, &device);
        gradreg_cuda_leave(c, &guard);
        if (error != cudaSuccess)
            return gradreg_cuda_report("cudaStreamGetDevice", error);
    }
    GR_CUDA_REQUIRE(
        device == c->device, GRADREG_ERROR_INVALID_ARGUMENT,
        "argument 'stream' = %p is one of CUDA device %d, the context is on device %d", stream,
        device, c->device);
    c->stream = asked;
    return GRADREG_OK;
}

gradreg_status gradreg_cuda_synchronize(void *state)
{
    gr_cuda_context *c = static_cast<gr_cuda_context *>(state);
    gr_device_guard guard;
    GR_TRY(gradreg_cuda_enter(c, &guard));
    const cudaError_t error = cudaStreamSynchronize(c->stream);
    gradreg_cuda_leave(c, &guard);
    return error == cudaSuccess ? GRADREG_OK
                                : gradreg_cuda_report("cudaStreamSynchronize", error);
}

void *gradreg_cuda_allocate(void *state, size_t bytes)
{
    gr_cuda_context *c = static_cast<gr_cuda_context *>(state);
    gr_device_guard guard;
    void *pointer = NULL;
    if (select_device(c->device, &guard) != GRADREG_OK)
        return NULL;
    const cudaError_t error = cudaMalloc(&pointer, bytes);
    gradreg_cuda_leave(c, &guard);
    if (error == cudaSuccess)
        return pointer;
    (void)cudaGetLastError();
    gradreg_cuda_core->set_error("no memory for %llu bytes on device %d: %s",
                                 static_cast<unsigned long long>(bytes), c->device,
                                 cudaGetErrorString(error));
    return NULL;
}

void gradreg_cuda_release(void *state, void *pointer)
{
    const gr_cuda_context *c = static_cast<const gr_cuda_context *>(state);
    gr_device_guard guard;
    const gradreg_status selected = select_device(c->device, &guard);
    if (cudaFree(pointer) != cudaSuccess)
        (void)cudaGetLastError();
    if (selected == GRADREG_OK)
        gradreg_cuda_leave(state, &guard);
}

/* ---- whose memory ---------------------------------------------------------------- */

gradreg_status gradreg_cuda_look_up(gr_place *out, const void *pointer)
{
    cudaPointerAttributes attributes;
    GR_CUDA_TRY(cudaPointerGetAttributes(&attributes, pointer));
    out->device = attributes.device;
    switch (attributes.type) {
    case cudaMemoryTypeDevice: out->kind = GR_PLACE_DEVICE; break;
    case cudaMemoryTypeHost:
    case cudaMemoryTypeManaged: out->kind = GR_PLACE_SHARED; break;
    default: out->kind = GR_PLACE_HOST; break;
    }
    return GRADREG_OK;
}

int gradreg_cuda_reaches_host(void *state)
{
    return static_cast<gr_cuda_context *>(state)->reaches_host;
}
