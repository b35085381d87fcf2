/* launch.cpp - kernels: what a launch must satisfy, and how one runs.
 *
 * In: a launch. Out: an operation that runs the kernel in fibers and, when PTX was given, a second
 * time from the same bytes in the PTX machine, which has to end with the same bytes. */
#include <cstdlib>
#include <dlfcn.h>
#include <fstream>
#include <iterator>

#include "../../device/ptx_machine.h"
#include "races.h"
#include "streams.h"

namespace emulated
{

namespace
{

enum : size_t {
    SHARED_BYTES = 48 * 1024,
    ARGUMENT_BYTES = 32764 /* since CUDA 12.1 */
};

std::map<const void *, size_t> &dynamic_shared_limits()
{
    static std::map<const void *, size_t> limits;
    return limits;
}

/* Kernels that a device has: others are brought there by their first launch. */
std::set<std::pair<int, const void *>> &loaded_functions()
{
    static std::set<std::pair<int, const void *>> loaded;
    return loaded;
}

/* That waits for the device, and is nothing for a stream that is captured. */
cudaError_t load(const void *function, const Stream &stream)
{
    if (!loaded_functions().insert({ current_device, function }).second)
        return cudaSuccess;
    if (stream.capture != nullptr) {
        stream.capture->invalid = true;
        return cudaErrorStreamCaptureUnsupported;
    }
    thread_counts.host_waits++;
    return cudaSuccess;
}

cudaError_t check(const Launch &launch)
{
    const size_t threads = size_t(launch.block.x) * launch.block.y * launch.block.z;
    const auto &limits = dynamic_shared_limits();
    const auto own = limits.find(launch.function);
    if (threads == 0 || threads > 1024 || launch.block.z > 64 || launch.grid.x == 0 ||
        launch.grid.x > 0x7fffffffu || launch.grid.y == 0 || launch.grid.y > 65535 ||
        launch.grid.z == 0 || launch.grid.z > 65535 || launch.ranks == 0 ||
        launch.grid.x % launch.ranks != 0 ||
        (launch.ranks > 1 && int(launch.ranks) > settings().cluster_most) ||
        launch.dynamic_shared_bytes > (own == limits.end() ? SHARED_BYTES : own->second))
        return cudaErrorInvalidConfiguration;
    size_t bytes = 0;
    for (const std::vector<unsigned char> &argument : launch.arguments)
        bytes += argument.size();
    return bytes > ARGUMENT_BYTES ? cudaErrorInvalidValue : cudaSuccess;
}

/* ---- the same from PTX ------------------------------------------------------------------ */

using Memory = std::map<uintptr_t, std::vector<unsigned char>>;

Memory all_bytes()
{
    Memory copies;
    for (const auto &entry : allocations()) {
        const Allocation &one = entry.second;
        if (one.type != cudaMemoryTypeDevice || one.device == current_device)
            copies[entry.first].assign(one.begin, one.begin + one.bytes);
    }
    return copies;
}

void put_back(const Memory &copies)
{
    for (const auto &entry : copies)
        std::memcpy(reinterpret_cast<void *>(entry.first), entry.second.data(),
                    entry.second.size());
}

std::vector<ptx::Source> read_sources(const std::string &files)
{
    std::vector<ptx::Source> all;
    for (size_t begin = 0; begin < files.size();) {
        const size_t end = std::min(files.find(':', begin), files.size());
        std::ifstream stream(files.substr(begin, end - begin));
        if (!stream)
            fault("cannot read " + files.substr(begin, end - begin));
        all.emplace_back(std::string(std::istreambuf_iterator<char>(stream), {}));
        begin = end + 1;
    }
    return all;
}

const ptx::Kernel &kernel_named(const std::string &name)
{
    static const std::vector<ptx::Source> sources = read_sources(settings().ptx_files);
    static std::map<std::string, ptx::Kernel> kernels;
    const auto known = kernels.find(name);
    if (known != kernels.end())
        return known->second;
    for (const ptx::Source &source : sources)
        if (source.has(name))
            return kernels[name] = source.kernel(name).at(name);
    throw ptx::Error(0, "no kernel " + name);
}

std::string symbol_of(const Launch &launch)
{
    Dl_info info = {};
    if (dladdr(launch.function, &info) == 0 || info.dli_sname == nullptr ||
        info.dli_saddr != launch.function)
        return "";
    return info.dli_sname;
}

void run_ptx(const Launch &launch, const std::string &symbol)
{
    static const ptx::Module none;
    static ptx::Machine machine(none); /* its threads are costly to make */
    const uint64_t before = machine.executed;
    machine.forbid_all();
    for (const auto &entry : allocations())
        machine.allow(entry.second.begin, entry.second.bytes);
    const dim3 &grid = launch.grid, &block = launch.block;
    machine.launch(kernel_named(symbol), { grid.x, grid.y, grid.z },
                   { block.x, block.y, block.z }, launch.dynamic_shared_bytes,
                   settings().schedule, launch.arguments, launch.ranks);
    counts.ptx_instructions += machine.executed - before;
}

void compare_with_ptx(const Launch &launch, const Memory &before)
{
    const std::string symbol = symbol_of(launch);
    if (symbol.empty())
        fault(std::string(launch.name) + " has no exported symbol");
    const Memory after = all_bytes();
    put_back(before);
    try {
        run_ptx(launch, symbol);
    } catch (const ptx::Error &error) {
        fault(symbol + ": " + error.what());
        return;
    }
    for (const auto &entry : after) {
        const unsigned char *got = reinterpret_cast<const unsigned char *>(entry.first);
        for (size_t i = 0; i < entry.second.size(); i++)
            if (got[i] != entry.second[i]) {
                fault(symbol + ": byte " + std::to_string(i) + " of an allocation of " +
                      std::to_string(entry.second.size()) + " bytes differs after PTX");
                return;
            }
    }
    counts.ptx_launches++;
    counts.ptx_kernels.insert(symbol);
    if (launch.ranks > 1)
        counts.ptx_kernels.insert(symbol + " in clusters");
    counts.ptx_shapes.insert(symbol + " " + std::to_string(launch.grid.x) + " " +
                             std::to_string(launch.ranks) + " " +
                             std::to_string(launch.block.x) + " " +
                             std::to_string(launch.dynamic_shared_bytes));
}

void run(const Launch &launch)
{
    const bool with_ptx = !settings().ptx_files.empty();
    const Memory before = with_ptx ? all_bytes() : Memory();
    emulator::watcher = settings().races ? races::watcher() : nullptr;
    counts.launches++;
    try {
        races::parameters(launch.values.get(), launch.values_bytes);
        emulator::launch(
            launch.grid, launch.block, settings().schedule,
            [&launch] { launch.invoke(launch.values.get()); }, launch.dynamic_shared_bytes,
            launch.ranks);
    } catch (const emulator::Fault &broken) {
        fault(std::string(launch.name) + ": " + broken.what());
        return;
    }
    if (with_ptx)
        compare_with_ptx(launch, before);
}

} // namespace

cudaError_t enqueue(Launch launch, cudaStream_t stream)
{
    Call call("a launch");
    if (call.early() != cudaSuccess)
        return call.early();
    const std::shared_ptr<Stream> on = stream_of(stream);
    cudaError_t error = on == nullptr ? cudaErrorInvalidResourceHandle : check(launch);
    if (error == cudaSuccess && on->device != current_device)
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess)
        error = load(launch.function, *on);
    if (error == cudaSuccess)
        error = add(on, [launch = std::move(launch)] { run(launch); });
    return call.end(error);
}

cudaError_t load_function(const void *function, cudaFuncAttributes *attributes)
{
    Call call("cudaFuncGetAttributes");
    if (call.early() != cudaSuccess)
        return call.early();
    bind_context();
    *attributes = cudaFuncAttributes();
    attributes->maxThreadsPerBlock = 1024;
    loaded_functions().insert({ current_device, function });
    return call.end(cudaSuccess);
}

cudaError_t find_cluster_size(int *ranks, size_t dynamic_shared_bytes)
{
    Call call("cudaOccupancyMaxPotentialClusterSize");
    if (call.early() != cudaSuccess)
        return call.early();
    bind_context();
    if (dynamic_shared_bytes > settings().shared_bytes)
        return call.end(cudaErrorInvalidConfiguration);
    *ranks = settings().cluster_most;
    return call.end(cudaSuccess);
}

cudaError_t set_function_attribute(const void *function, cudaFuncAttribute attribute, int value)
{
    Call call("cudaFuncSetAttribute");
    if (call.early() != cudaSuccess)
        return call.early();
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (value < 0 || static_cast<size_t>(value) > settings().shared_bytes)
            return call.end(cudaErrorInvalidValue);
        dynamic_shared_limits()[function] = static_cast<size_t>(value);
    }
    return call.end(cudaSuccess);
}

} // namespace emulated
