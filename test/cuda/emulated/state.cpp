/* state.cpp - see state.h; and the switches and counts of emulated_cuda.h. */
#include "state.h"

#include <cstdio>
#include <cstdlib>

#include "emulated_cuda.h"
#include "races.h"
#include "streams.h"

namespace emulated
{

Counts counts;
thread_local ThreadCounts thread_counts;
Injection injection;
cudaError_t sticky[DEVICES_MAXIMUM];
thread_local cudaError_t last_error;
thread_local int current_device;
bool has_context[DEVICES_MAXIMUM];
thread_local bool bound;

void bind_context()
{
    bound = true;
    has_context[current_device] = true;
}

namespace
{

std::string kept_fault, told_fault;
uint64_t random_state = 1;

std::recursive_mutex &the_lock()
{
    static std::recursive_mutex lock;
    return lock;
}

uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

void report_at_exit()
{
    check_canaries();
    if (!settings().report)
        return;
    std::fprintf(stderr,
                 "emulated CUDA: %llu launches, %llu threads, %llu barriers, %llu exchanges, "
                 "%llu allocations, %llu host waits, %zu left behind\n",
                 static_cast<unsigned long long>(counts.launches),
                 static_cast<unsigned long long>(emulator::counters.threads),
                 static_cast<unsigned long long>(emulator::counters.barriers),
                 static_cast<unsigned long long>(emulator::counters.exchanges),
                 static_cast<unsigned long long>(thread_counts.allocations),
                 static_cast<unsigned long long>(thread_counts.host_waits),
                 emulated_cuda_live());
    for (const std::string &kernel : counts.ptx_kernels)
        std::fprintf(stderr, "from PTX: %s\n", kernel.c_str());
}

Settings from_environment()
{
    Settings s;
    s.schedule = number_from("GRADREG_EMULATED_SCHEDULE", s.schedule);
    s.devices = static_cast<int>(number_from("GRADREG_EMULATED_DEVICES", 2));
    s.multiprocessors = static_cast<int>(number_from("GRADREG_EMULATED_MULTIPROCESSORS", 3));
    s.cluster_most = s.cluster_limit =
        static_cast<int>(number_from("GRADREG_EMULATED_CLUSTERS", 8));
    s.shared_bytes =
        static_cast<size_t>(number_from("GRADREG_EMULATED_SHARED", s.shared_bytes));
    s.pageable = number_from("GRADREG_EMULATED_PAGEABLE", 0) != 0;
    s.races = number_from("GRADREG_EMULATED_RACES", 0) != 0;
    s.report = number_from("GRADREG_EMULATED_REPORT", 0) != 0;
    const char *files = std::getenv("GRADREG_EMULATED_PTX");
    s.ptx_files = files == nullptr ? "" : files;
    random_state = s.schedule;
    std::atexit(report_at_exit);
    return s;
}

} // namespace

Settings &settings()
{
    static Settings all = from_environment();
    return all;
}

uint32_t next_random(uint32_t n)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return static_cast<uint32_t>(random_state >> 33) % n;
}

void fault(const std::string &sentence)
{
    if (!settings().keep_faults) {
        std::fprintf(stderr, "emulated CUDA: %s\n", sentence.c_str());
        std::abort();
    }
    if (kept_fault.empty())
        kept_fault = sentence;
    sticky[current_device] = cudaErrorLaunchFailure;
}

Call::Call(const char *name, bool late, bool allocates) : lock_(the_lock())
{
    settings();
    injection.calls++;
    if (injection.nth != 0 && (injection.calls == injection.nth ||
                               (injection.onwards && injection.calls > injection.nth))) {
        if (injection.failed++ == 0)
            injection.first = name;
        (late ? at_end_ : early_) = allocates ? cudaErrorMemoryAllocation : cudaErrorUnknown;
    }
    if (sticky[current_device] != cudaSuccess)
        (late ? at_end_ : early_) = sticky[current_device];
    if (early_ != cudaSuccess)
        last_error = early_;
    if (settings().schedule > 1)
        run_something();
}

cudaError_t Call::end(cudaError_t error)
{
    if (error == cudaSuccess || error == cudaErrorNotReady)
        error = at_end_ != cudaSuccess ? at_end_ : error;
    if (error == cudaSuccess && sticky[current_device] != cudaSuccess)
        error = sticky[current_device];
    if (error != cudaSuccess && error != cudaErrorNotReady)
        last_error = error;
    return error;
}

} // namespace emulated

using namespace emulated;

/* ---- emulated_cuda.h ------------------------------------------------------------------ */

void emulated_cuda_set_schedule(uint64_t schedule)
{
    settings().schedule = schedule;
    random_state = schedule;
}

void emulated_cuda_set_devices(int count)
{
    settings().devices = count;
}

void emulated_cuda_set_pageable(int on)
{
    settings().pageable = on != 0;
}

void emulated_cuda_set_clusters(int most)
{
    settings().cluster_most = most < settings().cluster_limit ? most : settings().cluster_limit;
}

void emulated_cuda_forget_contexts(void)
{
    for (bool &one : has_context)
        one = false;
    bound = false;
    current_device = 0;
}

int emulated_cuda_has_context(int device)
{
    return has_context[device];
}

void emulated_cuda_set_shared(size_t bytes)
{
    settings().shared_bytes = bytes;
}

void emulated_cuda_set_memory(size_t bytes)
{
    settings().memory_limit = bytes;
}

void emulated_cuda_fail(uint64_t nth, int onwards)
{
    injection = Injection();
    injection.nth = nth;
    injection.onwards = onwards != 0;
}

uint64_t emulated_cuda_calls(void)
{
    return injection.calls;
}

uint64_t emulated_cuda_failed(void)
{
    return injection.failed;
}

const char *emulated_cuda_failed_name(void)
{
    return injection.first;
}

void emulated_cuda_crash(int device)
{
    sticky[device] = cudaErrorIllegalAddress;
}

void emulated_cuda_reset_errors(void)
{
    for (cudaError_t &error : sticky)
        error = cudaSuccess;
    last_error = cudaSuccess;
    kept_fault.clear();
}

void emulated_cuda_keep_faults(int on)
{
    settings().keep_faults = on != 0;
}

const char *emulated_cuda_fault(void)
{
    told_fault.swap(kept_fault);
    kept_fault.clear();
    return told_fault.empty() ? nullptr : told_fault.c_str();
}

uint64_t emulated_cuda_launches(void)
{
    return counts.launches;
}

uint64_t emulated_cuda_allocations(void)
{
    return thread_counts.allocations;
}

uint64_t emulated_cuda_host_waits(void)
{
    return thread_counts.host_waits;
}

uint64_t emulated_cuda_f32_products(void)
{
    return thread_counts.f32_products;
}

size_t emulated_cuda_live(void)
{
    return allocations().size() + counts.live_handles;
}

uint64_t emulated_cuda_ptx_launches(void)
{
    return counts.ptx_launches;
}

uint64_t emulated_cuda_ptx_kernels(void)
{
    return counts.ptx_kernels.size();
}

uint64_t emulated_cuda_ptx_shapes(void)
{
    return counts.ptx_shapes.size();
}

uint64_t emulated_cuda_ptx_instructions(void)
{
    return counts.ptx_instructions;
}

uint64_t emulated_cuda_watched(void)
{
    return races::accesses();
}
