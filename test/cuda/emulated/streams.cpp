/* streams.cpp - see streams.h. */
#include "streams.h"

namespace emulated
{

namespace
{

/* The handle of a stream is the address of its stand-in. */
std::map<cudaStream_t, std::shared_ptr<Stream>> handles;
std::shared_ptr<Stream> defaults[DEVICES_MAXIMUM];
uintptr_t next_handle = 0x5000;
int running; /* operations that are being run: they must not start others */

const std::shared_ptr<Stream> &default_stream(int device)
{
    std::shared_ptr<Stream> &stream = defaults[device];
    if (stream == nullptr) {
        stream = std::make_shared<Stream>();
        stream->device = device;
        stream->is_default = true;
    }
    return stream;
}

/* The default stream and the blocking ones take turns. */
std::vector<Dependency> implied(const Stream &stream)
{
    std::vector<Dependency> after;
    if (!stream.blocking)
        return after;
    if (!stream.is_default) {
        const std::shared_ptr<Stream> &other = default_stream(stream.device);
        after.push_back({ other, other->queued });
        return after;
    }
    for (const auto &entry : handles)
        if (entry.second->device == stream.device && entry.second->blocking)
            after.push_back({ entry.second, entry.second->queued });
    return after;
}

void run_first(Stream &stream)
{
    const Operation next = std::move(stream.queue.front());
    stream.queue.pop_front();
    for (const Dependency &before : next.after)
        run_until(before.stream, before.count);
    const int device = current_device;
    current_device = stream.device;
    if (sticky[stream.device] == cudaSuccess) {
        const Window window(stream.device);
        running++;
        next.run();
        running--;
    }
    current_device = device;
    stream.done++;
}

} // namespace

std::shared_ptr<Stream> stream_of(cudaStream_t handle)
{
    bind_context();
    if (handle == nullptr || handle == cudaStreamLegacy)
        return default_stream(current_device);
    const auto found = handles.find(handle);
    return found == handles.end() ? nullptr : found->second;
}

cudaStream_t new_stream(bool blocking)
{
    const cudaStream_t handle = reinterpret_cast<cudaStream_t>(next_handle += 16);
    const std::shared_ptr<Stream> stream = std::make_shared<Stream>();
    stream->device = current_device;
    stream->blocking = blocking;
    handles[handle] = stream;
    counts.live_handles++;
    return handle;
}

bool forget_stream(cudaStream_t handle)
{
    const auto found = handles.find(handle);
    if (found == handles.end())
        return false;
    run_all(found->second);
    handles.erase(found);
    counts.live_handles--;
    return true;
}

std::vector<std::shared_ptr<Stream>> streams_of_device(int device)
{
    std::vector<std::shared_ptr<Stream>> all = { default_stream(device) };
    for (const auto &entry : handles)
        if (entry.second->device == device)
            all.push_back(entry.second);
    return all;
}

Capture *captured_before(const Stream &stream)
{
    for (const auto &entry : handles)
        if (stream.is_default && entry.second->device == stream.device &&
            entry.second->blocking && entry.second->capture != nullptr)
            return entry.second->capture.get();
    return nullptr;
}

cudaError_t add(const std::shared_ptr<Stream> &stream, std::function<void()> run)
{
    if (stream->capture != nullptr) {
        if (stream->capture->invalid)
            return cudaErrorStreamCaptureInvalidated;
        stream->capture->operations.push_back(std::move(run));
        if (stream.get() != stream->capture->first)
            stream->capture->open.insert(stream.get());
        return cudaSuccess;
    }
    if (Capture *capture = captured_before(*stream)) {
        capture->invalid = true;
        return cudaErrorStreamCaptureImplicit;
    }
    stream->queue.push_back({ std::move(run), implied(*stream) });
    stream->queued++;
    if (settings().schedule == 1)
        run_all(stream);
    return cudaSuccess;
}

void run_until(const std::shared_ptr<Stream> &stream, uint64_t count)
{
    while (stream->done < count && !stream->queue.empty())
        run_first(*stream);
}

void run_all(const std::shared_ptr<Stream> &stream)
{
    run_until(stream, stream->queued);
}

void run_something()
{
    if (running > 0 || next_random(4) != 0)
        return;
    std::vector<std::shared_ptr<Stream>> busy;
    for (int device = 0; device < DEVICES_MAXIMUM; device++)
        if (defaults[device] != nullptr && !defaults[device]->queue.empty())
            busy.push_back(defaults[device]);
    for (const auto &entry : handles)
        if (!entry.second->queue.empty())
            busy.push_back(entry.second);
    if (busy.empty())
        return;
    const std::shared_ptr<Stream> one = busy[next_random(static_cast<uint32_t>(busy.size()))];
    run_until(one, one->done + 1 + next_random(static_cast<uint32_t>(one->queue.size())));
}

bool ready(const Dependency &point)
{
    return point.stream == nullptr || point.stream->done >= point.count;
}

cudaError_t refuse_in_capture()
{
    for (const auto &entry : handles) {
        const std::shared_ptr<Capture> &capture = entry.second->capture;
        if (capture != nullptr && capture->mode != cudaStreamCaptureModeRelaxed) {
            capture->invalid = true;
            return cudaErrorStreamCaptureUnsupported;
        }
    }
    return cudaSuccess;
}

} // namespace emulated
