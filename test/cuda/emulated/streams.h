/* streams.h - work in queues, and what has to run before what.
 *
 * In: operations for a stream, events, captures. Out: the operations, run as late as a wait allows
 * or at random, never before what they have to wait for. */
#ifndef GRADREG_TEST_CUDA_STREAMS_H
#define GRADREG_TEST_CUDA_STREAMS_H

#include <deque>
#include <map>
#include <memory>

#include "state.h"

struct emulated_graph {
    std::vector<std::function<void()>> operations;
};

struct emulated_graph_exec {
    std::vector<std::function<void()>> operations;
};

namespace emulated
{

struct Stream;

/* That the stream's first `count` operations have run. */
struct Dependency {
    std::shared_ptr<Stream> stream;
    uint64_t count;
};

struct Operation {
    std::function<void()> run;
    std::vector<Dependency> after;
};

/* Streams whose work is recorded together; `open` has those that the first one has not waited
 * for since their latest operation. */
struct Capture {
    unsigned long long id = 0;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    Stream *first = nullptr;
    std::set<Stream *> members, open;
    std::vector<std::function<void()>> operations;
    bool invalid = false;
};

struct Stream {
    int device = 0;
    bool blocking = true; /* the default stream waits for it, and it for the default stream */
    bool is_default = false;
    uint64_t queued = 0, done = 0;
    std::deque<Operation> queue;
    std::shared_ptr<Capture> capture;
};

struct Event {
    Dependency point = {};
    std::shared_ptr<Capture> capture; /* recorded in one */
    Stream *captured_in = nullptr;
    bool recorded = false, timed = true;
};

/* The stream of a handle; NULL: no such stream. */
std::shared_ptr<Stream> stream_of(cudaStream_t handle);
cudaStream_t new_stream(bool blocking);
bool forget_stream(cudaStream_t handle);
std::vector<std::shared_ptr<Stream>> streams_of_device(int device);

/* The capture that the default stream would have to wait for; NULL: none, and for other streams. */
Capture *captured_before(const Stream &stream);
/* Queues or records. The error, if the stream's capture does not allow it. */
cudaError_t add(const std::shared_ptr<Stream> &stream, std::function<void()> run);
/* Runs until the stream's first `count` operations are done. */
void run_until(const std::shared_ptr<Stream> &stream, uint64_t count);
void run_all(const std::shared_ptr<Stream> &stream);
/* Some operation of some stream, perhaps. */
void run_something();
bool ready(const Dependency &point);

/* A capture that forbids waits, allocations and the like is going on: it is invalid from now on. */
cudaError_t refuse_in_capture();

} // namespace emulated

struct emulated_event {
    emulated::Event event;
};

#endif
