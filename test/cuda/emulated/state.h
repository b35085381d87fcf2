/* state.h - what the parts of the emulated runtime share: settings, counts, errors, the one lock.
 *
 * In: the environment, the switches of emulated_cuda.h. Out: how calls are to behave, and what they
 * have noted down. */
#ifndef GRADREG_TEST_CUDA_STATE_H
#define GRADREG_TEST_CUDA_STATE_H

#include <mutex>
#include <set>
#include <string>

#include "memory.h"

namespace emulated
{

struct Settings {
    uint64_t schedule = 0;
    int devices = 2, multiprocessors = 3;
    size_t shared_bytes = 227 * 1024; /* that a block can ask for */
    /* thread blocks of a cluster (0: there are none), and what it can be set to at most */
    int cluster_most = 8, cluster_limit = 8;
    bool pageable = false, races = false, report = false, keep_faults = false;
    size_t memory_limit = 0;
    std::string ptx_files;
};
Settings &settings(); /* from the environment at the first call */

struct Counts {
    uint64_t launches = 0;
    size_t live_handles = 0; /* streams, events, graphs */
    uint64_t ptx_launches = 0, ptx_instructions = 0;
    std::set<std::string> ptx_kernels, ptx_shapes;
};
extern Counts counts;

/* Per host thread: what a call of one rank does is not what the others do meanwhile. */
struct ThreadCounts {
    uint64_t allocations = 0, host_waits = 0, f32_products = 0;
};
extern thread_local ThreadCounts thread_counts;

struct Injection {
    uint64_t nth = 0, calls = 0, failed = 0;
    bool onwards = false;
    const char *first = "";
};
extern Injection injection;

/* A device that has crashed answers everything with this. */
extern cudaError_t sticky[DEVICES_MAXIMUM];
/* CUDA's own are per host thread. */
extern thread_local cudaError_t last_error;
extern thread_local int current_device;

/* Whether somebody has made a context on the device, and whether the thread has the current one's. */
extern bool has_context[DEVICES_MAXIMUM];
extern thread_local bool bound;
/* What a call that needs a context does first. */
void bind_context();

/* A rule of CUDA was broken: the process ends with the sentence, or, with keep_faults, the current
 * device has crashed. */
void fault(const std::string &sentence);

/* 0 .. n - 1, from the schedule's own random numbers. */
uint32_t next_random(uint32_t n);

/* One call of the runtime: holds the lock; may fail on purpose, or because the device crashed. */
class Call
{
  public:
    /* `late`: the work is done although the call is to fail. */
    explicit Call(const char *name, bool late = false, bool allocates = false);
    /* What to return at once, or cudaSuccess. */
    cudaError_t early() const
    {
        return early_;
    }
    /* Notes the error, if it is one, and returns it; or the failure on purpose. */
    cudaError_t end(cudaError_t error);

  private:
    std::lock_guard<std::recursive_mutex> lock_;
    cudaError_t early_ = cudaSuccess, at_end_ = cudaSuccess;
};

} // namespace emulated

/* Opens a function of the runtime: its words are Call's after the name. */
#define CALL(...)                               \
    emulated::Call call(__func__, __VA_ARGS__); \
    if (call.early() != cudaSuccess)            \
    return call.early()

#endif
