/* queue.cpp - the runtime's functions for streams, events and graphs.
 *
 * In: calls. Out: operations in streams.h's queues, or a capture's list that can be run again. */
#include "streams.h"

using namespace emulated;

namespace
{

unsigned long long next_capture_id = 100;

/* A capture must not be left half done by a wait. */
cudaError_t wait_for(const std::shared_ptr<Stream> &stream)
{
    if (stream->capture != nullptr) {
        stream->capture->invalid = true;
        return cudaErrorStreamCaptureUnsupported;
    }
    thread_counts.host_waits++;
    run_all(stream);
    return cudaSuccess;
}

} // namespace

/* ---- streams -------------------------------------------------------------------------- */

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    CALL(false);
    *stream = new_stream((flags & cudaStreamNonBlocking) == 0);
    return call.end(cudaSuccess);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    CALL(true);
    return call.end(forget_stream(stream) ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    CALL(true);
    const std::shared_ptr<Stream> on = stream_of(stream);
    return call.end(on == nullptr ? cudaErrorInvalidResourceHandle : wait_for(on));
}

cudaError_t cudaStreamGetDevice(cudaStream_t stream, int *device)
{
    CALL(false);
    const std::shared_ptr<Stream> on = stream_of(stream);
    if (on == nullptr)
        return call.end(cudaErrorInvalidResourceHandle);
    *device = on->device;
    return call.end(cudaSuccess);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    CALL(false);
    const std::shared_ptr<Stream> on = stream_of(stream);
    if (on == nullptr)
        return call.end(cudaErrorInvalidResourceHandle);
    return call.end(on->done == on->queued ? cudaSuccess : cudaErrorNotReady);
}

/* Within a capture an event carries the capture over to the stream that waits. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    CALL(false);
    const std::shared_ptr<Stream> on = stream_of(stream);
    if (on == nullptr || event == nullptr)
        return call.end(cudaErrorInvalidResourceHandle);
    const Event &what = event->event;
    if (what.capture != nullptr) {
        if (on->capture != nullptr && on->capture != what.capture)
            return call.end(cudaErrorStreamCaptureIsolation);
        on->capture = what.capture;
        what.capture->members.insert(on.get());
        what.capture->open.erase(what.captured_in);
        if (on.get() != what.capture->first)
            what.capture->open.insert(on.get());
        return call.end(cudaSuccess);
    }
    if (on->capture != nullptr) {
        on->capture->invalid = true;
        return call.end(cudaErrorStreamCaptureIsolation);
    }
    if (!what.recorded)
        return call.end(cudaSuccess);
    const Dependency point = what.point;
    const cudaError_t error = add(on, [] {});
    if (error == cudaSuccess && !on->queue.empty())
        on->queue.back().after.push_back(point);
    return call.end(error);
}

/* ---- events --------------------------------------------------------------------------- */

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    CALL(false);
    *event = new emulated_event;
    (*event)->event.timed = (flags & cudaEventDisableTiming) == 0;
    counts.live_handles++;
    return call.end(cudaSuccess);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    CALL(true);
    if (event == nullptr)
        return call.end(cudaErrorInvalidResourceHandle);
    delete event;
    counts.live_handles--;
    return call.end(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    CALL(false);
    const std::shared_ptr<Stream> on = stream_of(stream);
    if (on == nullptr || event == nullptr)
        return call.end(cudaErrorInvalidResourceHandle);
    event->event.capture = on->capture;
    event->event.captured_in = on.get();
    event->event.recorded = true;
    event->event.point = { on, on->queued };
    return call.end(cudaSuccess);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    CALL(true);
    if (event == nullptr)
        return call.end(cudaErrorInvalidResourceHandle);
    if (event->event.capture != nullptr) {
        event->event.capture->invalid = true;
        return call.end(cudaErrorStreamCaptureUnsupported);
    }
    thread_counts.host_waits++;
    if (event->event.recorded)
        run_until(event->event.point.stream, event->event.point.count);
    return call.end(cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    CALL(false);
    if (event == nullptr)
        return call.end(cudaErrorInvalidResourceHandle);
    return call.end(!event->event.recorded || ready(event->event.point) ? cudaSuccess
                                                                        : cudaErrorNotReady);
}

/* Operations take a millisecond each: what matters is that it can be read when it may be. */
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    CALL(false);
    if (start == nullptr || end == nullptr || !start->event.recorded || !end->event.recorded ||
        !start->event.timed || !end->event.timed)
        return call.end(cudaErrorInvalidResourceHandle);
    if (!ready(start->event.point) || !ready(end->event.point))
        return call.end(cudaErrorNotReady);
    *milliseconds = static_cast<float>(end->event.point.count - start->event.point.count);
    return call.end(cudaSuccess);
}

/* ---- graphs --------------------------------------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    CALL(false);
    const std::shared_ptr<Stream> on = stream_of(stream);
    if (on == nullptr || on->is_default)
        return call.end(cudaErrorStreamCaptureUnsupported);
    if (on->capture != nullptr)
        return call.end(cudaErrorInvalidValue);
    on->capture = std::make_shared<Capture>();
    on->capture->id = ++next_capture_id;
    on->capture->mode = mode;
    on->capture->first = on.get();
    on->capture->members.insert(on.get());
    return call.end(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    CALL(true);
    const std::shared_ptr<Stream> on = stream_of(stream);
    *graph = nullptr;
    if (on == nullptr || on->capture == nullptr || on->capture->first != on.get())
        return call.end(cudaErrorStreamCaptureUnmatched);
    const std::shared_ptr<Capture> capture = on->capture;
    for (Stream *member : capture->members)
        member->capture = nullptr;
    if (capture->invalid)
        return call.end(cudaErrorStreamCaptureInvalidated);
    if (!capture->open.empty())
        return call.end(cudaErrorStreamCaptureUnjoined);
    *graph = new emulated_graph{ capture->operations };
    counts.live_handles++;
    return call.end(cudaSuccess);
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus *status,
                                     unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **dependencies, const void **edges,
                                     size_t *dependency_count)
{
    CALL(false);
    const std::shared_ptr<Stream> on = stream_of(stream);
    if (on == nullptr)
        return call.end(cudaErrorInvalidResourceHandle);
    if (graph != nullptr || dependencies != nullptr || edges != nullptr ||
        dependency_count != nullptr)
        return call.end(cudaErrorNotSupported);
    if (captured_before(*on) != nullptr)
        return call.end(cudaErrorStreamCaptureImplicit);
    *status = on->capture == nullptr ? cudaStreamCaptureStatusNone
              : on->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                     : cudaStreamCaptureStatusActive;
    if (id != nullptr && on->capture != nullptr)
        *id = on->capture->id;
    return call.end(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    CALL(false);
    if (graph == nullptr)
        return call.end(cudaErrorInvalidValue);
    *exec = new emulated_graph_exec{ graph->operations };
    counts.live_handles++;
    return call.end(cudaSuccess);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    CALL(false);
    const std::shared_ptr<Stream> on = stream_of(stream);
    if (exec == nullptr || on == nullptr)
        return call.end(cudaErrorInvalidValue);
    for (const std::function<void()> &operation : exec->operations) {
        const cudaError_t error = add(on, operation);
        if (error != cudaSuccess)
            return call.end(error);
    }
    return call.end(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    CALL(true);
    delete graph;
    counts.live_handles--;
    return call.end(cudaSuccess);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    CALL(true);
    delete exec;
    counts.live_handles--;
    return call.end(cudaSuccess);
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    CALL(false);
    if (graph == nullptr || nodes != nullptr)
        return call.end(cudaErrorInvalidValue);
    *count = graph->operations.size();
    return call.end(cudaSuccess);
}
