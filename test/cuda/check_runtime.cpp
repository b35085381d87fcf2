/* check_runtime.cpp - the emulated CUDA runtime itself: it does what CUDA does, as late as CUDA
 * may, and every kind of planted fault is caught and named.
 *
 *   check_runtime                 all of it
 *   check_runtime PTX             launches run from this file of planted.cu's PTX too
 *
 * In: planted.cu. Out: exit status 0 and a count, or the expectations that failed. */
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "emulated_cuda.h"
#include "planted.h"

#include "../device/expect.h"

namespace
{

void ok(cudaError_t error, const char *what)
{
    expect(error == cudaSuccess, std::string(what) + ": " + cudaGetErrorName(error));
}
#define OK(call) ok(call, #call)

/* ---- memory on a device, read back with a copy ---------------------------------------- */

bool faulty; /* kernels may have written beside it, which shows when it is freed */

class Words
{
  public:
    explicit Words(size_t count) : count_(count)
    {
        OK(cudaMalloc(&data, count * sizeof(unsigned)));
    }
    ~Words()
    {
        const cudaError_t error = cudaFree(data);
        if (!faulty)
            ok(error, "cudaFree(data)");
    }
    std::vector<unsigned> read() const
    {
        std::vector<unsigned> host(count_);
        OK(cudaMemcpy(host.data(), data, count_ * sizeof(unsigned), cudaMemcpyDeviceToHost));
        return host;
    }
    void zero() const
    {
        OK(cudaMemset(data, 0, count_ * sizeof(unsigned)));
    }
    unsigned *data = nullptr;

  private:
    size_t count_;
};

bool counts_up(const std::vector<unsigned> &words, unsigned first)
{
    for (size_t i = 0; i < words.size(); i++)
        if (words[i] != first + i)
            return false;
    return true;
}

/* ---- sound programs ------------------------------------------------------------------- */

void check_kernels()
{
    enum { N = 1000 };
    Words in(N), total(1), parts(8), arrived(1), pairs(64);
    arrived.zero();
    GR_LAUNCH(planted_fill, 8, 128, 0, nullptr, in.data, N, 5u);
    expect(counts_up(in.read(), 5), "a kernel fills a buffer");
    GR_LAUNCH((planted_sum<true>), 8, 128, 0, nullptr, total.data, parts.data, arrived.data,
              in.data, N);
    expect(total.read()[0] == N * 5 + N * (N - 1) / 2, "the last block sums all blocks' parts");
    expect(arrived.read()[0] == 0, "and leaves its counter at zero");
    GR_LAUNCH(planted_dynamic, 1, 64, 64 * sizeof(unsigned), nullptr, pairs.data, 64u);
    expect(pairs.read()[0] == 63 && pairs.read()[63] == 0, "dynamic shared memory is shared");
    GR_LAUNCH(planted_warp, 1, 64, 0, nullptr, pairs.data);
    const std::vector<unsigned> warp = pairs.read();
    Words of_clusters(128);
    GR_LAUNCH_CLUSTERS(planted_cluster<PLANTED_ALL>, 4, 4, 32, 0, nullptr, of_clusters.data,
                       4u);
    const std::vector<unsigned> neighbours = of_clusters.read();
    expect(neighbours[0] == 131 && neighbours[32 + 31] == 200 && neighbours[96] == 31,
           "blocks of a cluster see each other's shared memory");
    GR_LAUNCH_CLUSTERS(planted_cluster<PLANTED_ALL>, 6, 4, 32, 0, nullptr, of_clusters.data,
                       4u);
    expect(cudaGetLastError() == cudaErrorInvalidConfiguration, "a grid has whole clusters");
    emulated_cuda_set_clusters(0);
    GR_LAUNCH_CLUSTERS(planted_cluster<PLANTED_ALL>, 4, 4, 32, 0, nullptr, of_clusters.data,
                       4u);
    expect(cudaGetLastError() == cudaErrorInvalidConfiguration,
           "a device may have no clusters");
    emulated_cuda_set_clusters(8);
    /* lane 40: first 32, next 41, before 39, lane 3 of its eight 43, odd 0xaa, any 1, all 0 */
    expect(warp[40] == 32 + 3 * 41 + 5 * 39 + 7 * 43 + 0xaa + 1 + 600000,
           "shuffles and votes do what their names say");
    expect(warp[0] == 0 + 3 * 1 + 5 * 0 + 7 * 3 + 0xaa + 1 + 600000,
           "a shuffle from before the first lane keeps the own value");
}

void check_lateness()
{
    Words words(64), source(64);
    unsigned *pinned = nullptr;
    cudaStream_t stream = nullptr;
    OK(cudaMallocHost(&pinned, 64 * sizeof(unsigned)));
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    emulated_cuda_set_schedule(0);
    GR_LAUNCH(planted_fill, 1, 64, 0, stream, words.data, 64u, 1u);
    OK(cudaMemcpyAsync(pinned, words.data, 64 * sizeof(unsigned), cudaMemcpyDeviceToHost,
                       stream));
    expect(pinned[0] != 1, "a read before the synchronization sees the old bytes");
    expect(cudaStreamQuery(stream) == cudaErrorNotReady, "the stream says that it is busy");
    OK(cudaStreamSynchronize(stream));
    expect(pinned[0] == 1 && pinned[63] == 64, "after it, the new ones");
    const uint64_t waits = emulated_cuda_host_waits();
    unsigned pageable[64];
    OK(cudaMemcpyAsync(pageable, words.data, sizeof(pageable), cudaMemcpyDeviceToHost, stream));
    expect(pageable[5] == 6 && emulated_cuda_host_waits() == waits + 1,
           "a copy to pageable memory waits, and that is counted");
    /* Pinned memory is read when the copy runs, pageable when it is called. */
    pinned[0] = 100;
    pageable[1] = 200;
    OK(cudaMemcpyAsync(words.data, pinned, sizeof(unsigned), cudaMemcpyHostToDevice, stream));
    OK(cudaMemcpyAsync(words.data + 1, pageable + 1, sizeof(unsigned), cudaMemcpyHostToDevice,
                       stream));
    pinned[0] = 101;
    pageable[1] = 201;
    OK(cudaStreamSynchronize(stream));
    expect(words.read()[0] == 101, "a copy from pinned memory reads it late");
    expect(words.read()[1] == 200, "a copy from pageable memory reads it at once");
    OK(cudaStreamDestroy(stream));
    OK(cudaFreeHost(pinned));
}

void check_order()
{
    Words words(64), copy(64);
    cudaStream_t first = nullptr, second = nullptr;
    cudaEvent_t event = nullptr;
    OK(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    OK(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    OK(cudaEventCreate(&event));
    GR_LAUNCH(planted_fill, 1, 64, 0, first, words.data, 64u, 9u);
    OK(cudaEventRecord(event, first));
    OK(cudaStreamWaitEvent(second, event, 0));
    GR_LAUNCH(planted_add, 1, 64, 0, second, copy.data, words.data, 64u, 1u);
    OK(cudaStreamSynchronize(second));
    expect(counts_up(copy.read(), 10), "a stream waits for an event of another");
    expect(cudaEventQuery(event) == cudaSuccess, "and the event has happened");
    GR_LAUNCH(planted_fill, 1, 64, 0, nullptr, words.data, 64u, 20u);
    cudaStream_t blocking = nullptr;
    OK(cudaStreamCreate(&blocking));
    GR_LAUNCH(planted_add, 1, 64, 0, blocking, copy.data, words.data, 64u, 1u);
    OK(cudaStreamSynchronize(blocking));
    expect(counts_up(copy.read(), 21), "a blocking stream waits for the default stream");
    OK(cudaStreamDestroy(blocking));
    OK(cudaEventDestroy(event));
    OK(cudaStreamDestroy(first));
    OK(cudaStreamDestroy(second));
}

/* Without the event, some schedule shows the other order. */
void check_missing_event()
{
    Words words(64), copy(64);
    cudaStream_t first = nullptr, second = nullptr;
    OK(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    OK(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    int right = 0;
    for (uint64_t schedule = 0; schedule < 20; schedule++) {
        emulated_cuda_set_schedule(schedule);
        words.zero();
        OK(cudaDeviceSynchronize());
        GR_LAUNCH(planted_fill, 1, 64, 0, first, words.data, 64u, 9u);
        GR_LAUNCH(planted_add, 1, 64, 0, second, copy.data, words.data, 64u, 1u);
        OK(cudaStreamSynchronize(second));
        right += counts_up(copy.read(), 10);
        OK(cudaStreamSynchronize(first));
    }
    emulated_cuda_set_schedule(0);
    expect(right > 0 && right < 20,
           "a missing event shows in some schedules, not in all: " + std::to_string(right));
    OK(cudaStreamDestroy(first));
    OK(cudaStreamDestroy(second));
}

void check_graphs()
{
    Words words(64);
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    unsigned long long id = 0;
    unsigned pageable = 0;
    size_t nodes = 0;
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    words.zero();
    OK(cudaDeviceSynchronize());
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    OK(cudaStreamGetCaptureInfo(stream, &status, &id, nullptr, nullptr, nullptr, nullptr));
    expect(status == cudaStreamCaptureStatusActive && id != 0, "a capture has a number");
    GR_LAUNCH(planted_add, 1, 64, 0, stream, words.data, words.data, 64u, 3u);
    OK(cudaMemsetAsync(words.data, 7, 4, stream));
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphGetNodes(graph, nullptr, &nodes));
    expect(nodes == 2, "two operations were captured");
    expect(words.read()[1] == 0, "and none has run");
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphLaunch(exec, stream));
    OK(cudaGraphLaunch(exec, stream));
    OK(cudaStreamSynchronize(stream));
    expect(words.read()[1] == 6 && words.read()[0] == 0x07070707u, "a graph runs twice");
    OK(cudaGraphExecDestroy(exec));
    OK(cudaGraphDestroy(graph));
    const auto refused = [&](const char *what, cudaError_t want, auto call) {
        OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
        const cudaError_t got = call();
        expect(got == want, std::string(what) + " within a capture: " + cudaGetErrorName(got));
        expect(cudaStreamEndCapture(stream, &graph) != cudaSuccess && graph == nullptr,
               std::string(what) + " spoils the capture");
    };
    refused("a wait", cudaErrorStreamCaptureUnsupported,
            [&] { return cudaStreamSynchronize(stream); });
    refused("an allocation", cudaErrorStreamCaptureUnsupported, [] {
        void *pointer;
        return cudaMalloc(&pointer, 4);
    });
    refused("a copy to pageable memory", cudaErrorStreamCaptureUnsupported, [&] {
        return cudaMemcpyAsync(&pageable, words.data, 4, cudaMemcpyDeviceToHost, stream);
    });
    cudaGetLastError();
    OK(cudaStreamDestroy(stream));
}

void check_pointers()
{
    cudaPointerAttributes attributes;
    Words words(8);
    unsigned local = 0, *pinned = nullptr, *managed = nullptr;
    OK(cudaMallocHost(&pinned, 4));
    OK(cudaMallocManaged(&managed, 4));
    OK(cudaPointerGetAttributes(&attributes, words.data + 7));
    expect(attributes.type == cudaMemoryTypeDevice && attributes.device == 0,
           "device memory is known as such");
    OK(cudaPointerGetAttributes(&attributes, pinned));
    expect(attributes.type == cudaMemoryTypeHost, "pinned memory too");
    OK(cudaPointerGetAttributes(&attributes, managed));
    expect(attributes.type == cudaMemoryTypeManaged, "managed memory too");
    OK(cudaPointerGetAttributes(&attributes, &local));
    expect(attributes.type == cudaMemoryTypeUnregistered && attributes.devicePointer == nullptr,
           "a variable is none of them");
    OK(cudaSetDevice(1));
    {
        Words other(8);
        OK(cudaPointerGetAttributes(&attributes, other.data));
        expect(attributes.device == 1, "the other device's memory is the other device's");
    }
    OK(cudaSetDevice(0));
    OK(cudaFreeHost(pinned));
    OK(cudaFree(managed));
}

void check_errors()
{
    void *pointer = nullptr;
    Words words(4);
    expect(cudaMalloc(&pointer, size_t(1) << 60) == cudaErrorMemoryAllocation && !pointer,
           "too much memory");
    expect(cudaGetLastError() == cudaErrorMemoryAllocation, "is the last error");
    expect(cudaGetLastError() == cudaSuccess, "once");
    GR_LAUNCH(planted_fill, 1, 2000, 0, nullptr, words.data, 4u, 1u);
    expect(cudaGetLastError() == cudaErrorInvalidConfiguration, "2000 threads are too many");
    GR_LAUNCH(planted_dynamic, 1, 32, 60000, nullptr, words.data, 4u);
    expect(cudaGetLastError() == cudaErrorInvalidConfiguration, "60,000 bytes are too many");
    OK(cudaFuncSetAttribute(planted_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize,
                            60000));
    GR_LAUNCH(planted_dynamic, 1, 32, 60000, nullptr, words.data, 4u);
    expect(cudaGetLastError() == cudaSuccess, "unless they were asked for");
    expect(cudaSetDevice(5) == cudaErrorInvalidDevice, "device 5 of 2");
    cudaGetLastError();
    OK(cudaDeviceSynchronize());
    emulated_cuda_fail(2, 0);
    OK(cudaMalloc(&pointer, 8));
    expect(cudaFree(pointer) == cudaErrorUnknown, "the second call fails on purpose");
    expect(emulated_cuda_failed() == 1 && emulated_cuda_calls() == 2 &&
               std::string(emulated_cuda_failed_name()) == "cudaFree",
           "and is counted");
    emulated_cuda_fail(0, 0);
    expect(cudaPeekAtLastError() == cudaErrorUnknown && cudaGetLastError() == cudaErrorUnknown,
           "its error can be asked for");
    emulated_cuda_crash(0);
    expect(cudaStreamSynchronize(nullptr) == cudaErrorIllegalAddress &&
               cudaGetLastError() == cudaErrorIllegalAddress &&
               cudaGetLastError() == cudaErrorIllegalAddress,
           "a crash stays");
    OK(cudaSetDevice(1));
    OK(cudaDeviceSynchronize());
    emulated_cuda_reset_errors();
    OK(cudaSetDevice(0));
    OK(cudaDeviceSynchronize());
}

/* ---- planted faults ------------------------------------------------------------------- */

/* Launched with three schedules; each time the sentence has these words. */
template <class Launch> void expect_fault(const char *name, const char *words, Launch launch)
{
    for (uint64_t schedule = 0; schedule < 3; schedule++) {
        emulated_cuda_set_schedule(schedule);
        std::string said = "nothing";
        {
            Words out(256);
            out.zero();
            launch(out.data);
            cudaStreamSynchronize(nullptr);
            const char *fault = emulated_cuda_fault();
            if (fault != nullptr)
                said = fault;
            emulated_cuda_reset_errors();
        }
        expect(said.find(words) != std::string::npos,
               std::string(name) + " is told '" + words + "' but is told: " + said);
        emulated_cuda_reset_errors(); /* also what was found when the memory was freed */
    }
    emulated_cuda_set_schedule(0);
}

#define EXPECT_FAULT(kernel, words, grid, block, ...)            \
    expect_fault(#kernel, words, [&](unsigned *out) {            \
        GR_LAUNCH(kernel, grid, block, 0, nullptr, __VA_ARGS__); \
    })

#define EXPECT_CLUSTER_FAULT(what, words)                                           \
    expect_fault("planted_cluster", words, [&](unsigned *out) {                     \
        GR_LAUNCH_CLUSTERS(planted_cluster<(what)>, 4, 4, 32, 0, nullptr, out, 4u); \
    })

void check_broken_rules()
{
    emulated_cuda_keep_faults(1);
    faulty = true;
    EXPECT_FAULT(planted_divergent_barrier, "never reach", 1, 64, out);
    EXPECT_FAULT(planted_bad_mask, "past the end", 1, 40, out);
    EXPECT_CLUSTER_FAULT(PLANTED_WAITS | PLANTED_STAYS, "without having arrived");
    EXPECT_CLUSTER_FAULT(PLANTED_WAITS | PLANTED_ARRIVES, "of a block that has ended");
    emulated_cuda_keep_faults(0);
    faulty = false;
}

#ifdef PLANTED_RACES_ARE_WATCHED
void check_races()
{
    Words unwritten(64), parts(8), total(1), arrived(1), in(512);
    const unsigned *const nothing = unwritten.data;
    arrived.zero();
    in.zero();
    emulated_cuda_keep_faults(1);
    faulty = true;
    EXPECT_FAULT(planted_missing_barrier, "of a shared array of 256 bytes that", 1, 64, out);
    EXPECT_FAULT(planted_missing_warp_barrier, "race: ", 1, 32, out);
    EXPECT_FAULT(planted_shared_overflow, "outside of the device's memory", 1, 64, out);
    EXPECT_FAULT(planted_unwritten_shared, "of a shared array of 256 bytes that was never", 1,
                 64, out);
    EXPECT_FAULT(planted_block_race, "race: ", 2, 32, out);
    EXPECT_CLUSTER_FAULT(PLANTED_STAYS, "of a shared array of 128 bytes that");
    EXPECT_FAULT(planted_past_the_end, "outside of the device's memory", 2, 256, out, 1u);
    EXPECT_FAULT(planted_unwritten, "of an allocation of 256 bytes that was never", 1, 64, out,
                 nothing);
    expect_fault("planted_sum<false>", "race: ", [&](unsigned *out) {
        arrived.zero();
        GR_LAUNCH((planted_sum<false>), 4, 64, 0, nullptr, out, parts.data, arrived.data,
                  in.data, 256u);
    });
    unsigned local[64] = {};
    EXPECT_FAULT(planted_unwritten, "outside of the device's memory", 1, 64, out, local);
    faulty = false;
    /* The checker sees no write of the host's. */
    unsigned *pinned = nullptr;
    OK(cudaMallocHost(&pinned, 64 * sizeof(unsigned)));
    std::fill(pinned, pinned + 64, 5u);
    OK(cudaMemcpyAsync(unwritten.data, pinned, 64 * sizeof(unsigned), cudaMemcpyHostToDevice,
                       nullptr));
    GR_LAUNCH(planted_unwritten, 1, 64, 0, nullptr, in.data, nothing);
    OK(cudaStreamSynchronize(nullptr));
    expect(emulated_cuda_fault() == nullptr, "a copy of pinned memory is written");
    OK(cudaFreeHost(pinned));
    emulated_cuda_keep_faults(0);
    expect(emulated_cuda_watched() > 1000, "the race checker has seen accesses");
}
#else
/* Sanitizers of their own watch here. */
void check_races()
{
}
#endif

/* ---- what ends the process ------------------------------------------------------------ */

/* In a child: how it ends, and what it says. */
template <class Body> std::string end_of_child(Body body)
{
    int ends[2];
    if (pipe(ends) != 0)
        return "no pipe";
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        body();
        _exit(0);
    }
    close(ends[1]);
    std::string said;
    char some[512];
    for (ssize_t n; (n = read(ends[0], some, sizeof(some))) > 0;)
        said.append(some, static_cast<size_t>(n));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    return status == 0 ? "nothing happens" : said;
}

void check_ends()
{
    Words words(64);
    words.zero();
    OK(cudaDeviceSynchronize());
    unsigned *const data = words.data;
    const std::string touched = end_of_child([data] { data[3] = 1; });
    expect(touched.find("the host touched device memory") != std::string::npos ||
               touched.find("Sanitizer") != std::string::npos,
           "a host write to device memory ends the process: " + touched);
    const std::string read = end_of_child([data] { std::fprintf(stderr, "%u\n", data[3]); });
    expect(read.find("the host touched device memory") != std::string::npos ||
               read.find("Sanitizer") != std::string::npos,
           "a host read too: " + read);
    const std::string beside = end_of_child([] {
        Words small(60);
        GR_LAUNCH(planted_fill, 1, 64, 0, nullptr, small.data, 65u, 0u);
        cudaDeviceSynchronize();
    });
    /* Without instrumentation it is seen as well: in the bytes beside the allocation. */
    expect(beside.find("outside of the device's memory") != std::string::npos ||
               beside.find("were written") != std::string::npos ||
               beside.find("AddressSanitizer") != std::string::npos,
           "a write past the end: " + beside);
}

/* ---- what the compiler's sanitizers see ------------------------------------------------ */

#if defined(PLANTED_ADDRESSES_ARE_CHECKED) || defined(PLANTED_UNDEFINED_IS_CHECKED) || \
    defined(PLANTED_THREADS_ARE_CHECKED)
/* The kernel, in a child, ends it with these words; in its sound form it does not. */
template <class Kernel, class... Sound, class... Broken>
void expect_end(const char *name, const char *words, Kernel kernel, unsigned threads,
                const std::tuple<Sound...> &sound, const std::tuple<Broken...> &broken)
{
    const auto end_with = [=](const auto &arguments) {
        return end_of_child([=] {
            Words out(64);
            std::apply(
                [&](auto... each) {
                    GR_LAUNCH(kernel, 1, threads, 0, nullptr, out.data, each...);
                },
                arguments);
            cudaDeviceSynchronize();
        });
    };
    const std::string quiet = end_with(sound), said = end_with(broken);
    expect(quiet == "nothing happens", std::string(name) + " in its sound form: " + quiet);
    expect(said.find(words) != std::string::npos,
           std::string(name) + " ends with '" + words + "' but ends with: " + said);
}
#endif

void check_addresses()
{
#ifdef PLANTED_ADDRESSES_ARE_CHECKED
    expect_end("planted_fill", "use-after-poison", planted_fill, 65, std::make_tuple(64u, 0u),
               std::make_tuple(65u, 0u));
    expect_end("planted_local_overflow", "stack-buffer-overflow", planted_local_overflow, 1,
               std::make_tuple(8u), std::make_tuple(9u));
    const std::string shared = end_of_child([] {
        Words out(64);
        GR_LAUNCH(planted_shared_overflow, 1, 64, 0, nullptr, out.data);
        cudaDeviceSynchronize();
    });
    expect(shared.find("heap-buffer-overflow") != std::string::npos,
           "past a shared array: " + shared);
    const std::string freed = end_of_child([] {
        unsigned *data = nullptr;
        cudaMalloc(&data, 64 * sizeof(unsigned));
        cudaFree(data);
        GR_LAUNCH(planted_fill, 1, 64, 0, nullptr, data, 64u, 0u);
        cudaDeviceSynchronize();
    });
    expect(freed.find("use-after-poison") != std::string::npos, "freed memory: " + freed);
#endif
}

void check_undefined()
{
#ifdef PLANTED_UNDEFINED_IS_CHECKED
    expect_end("planted_misaligned", "misaligned address", planted_misaligned, 1,
               std::make_tuple(4u), std::make_tuple(2u));
    expect_end("planted_shift", "shift exponent 32", planted_shift, 1, std::make_tuple(31u),
               std::make_tuple(32u));
    expect_end("planted_conversion", "outside the range of representable values",
               planted_conversion, 1, std::make_tuple(4e9f), std::make_tuple(5e9f));
#endif
}

#ifdef PLANTED_THREADS_ARE_CHECKED
template <class Launch> std::string end_with(const Launch &launch)
{
    return end_of_child([=] {
        Words out(256);
        launch(out.data);
        cudaDeviceSynchronize();
    });
}

/* The last block sums up what all blocks have left. */
template <bool WITH_FENCE> std::string end_of_sum()
{
    return end_of_child([] {
        Words parts(8), total(1), arrived(1), in(256);
        arrived.zero();
        in.zero();
        GR_LAUNCH((planted_sum<WITH_FENCE>), 4, 64, 0, nullptr, total.data, parts.data,
                  arrived.data, in.data, 256u);
        cudaDeviceSynchronize();
    });
}
#endif

void check_threads()
{
#ifdef PLANTED_THREADS_ARE_CHECKED
    const auto is_race = [](const char *name, const std::string &said) {
        expect(said.find("data race") != std::string::npos,
               std::string(name) + " ends with a race but ends with: " + said);
    };
    is_race("planted_missing_barrier", end_with([](unsigned *out) {
                GR_LAUNCH(planted_missing_barrier, 1, 64, 0, nullptr, out);
            }));
    is_race("planted_missing_warp_barrier", end_with([](unsigned *out) {
                GR_LAUNCH(planted_missing_warp_barrier, 1, 32, 0, nullptr, out);
            }));
    is_race("planted_block_race", end_with([](unsigned *out) {
                GR_LAUNCH(planted_block_race, 2, 32, 0, nullptr, out);
            }));
    is_race("planted_cluster", end_with([](unsigned *out) {
                GR_LAUNCH_CLUSTERS(planted_cluster<PLANTED_STAYS>, 4, 4, 32, 0, nullptr, out,
                                   4u);
            }));
    is_race("planted_sum<false>", end_of_sum<false>());
    const std::string sound = end_of_sum<true>();
    expect(sound == "nothing happens", "planted_sum<true> has no race: " + sound);
#endif
}

void check_all()
{
    check_kernels();
    check_lateness();
    check_order();
    check_missing_event();
    check_graphs();
    check_pointers();
    check_errors();
    check_broken_rules();
    check_races();
    check_ends();
    check_addresses();
    check_undefined();
    check_threads();
}

} // namespace

int main(int argc, char **argv)
{
    if (argc > 1)
        setenv("GRADREG_EMULATED_PTX", argv[1], 1);
#ifdef PLANTED_RACES_ARE_WATCHED
    setenv("GRADREG_EMULATED_RACES", "1", 1);
#endif
    if (argc > 1)
        check_kernels();
    else
        check_all();
    expect(emulated_cuda_live() == 0, "nothing is left behind");
    if (argc > 1)
        std::printf("PTX: %llu launches of %llu kernels in %llu shapes compared\n",
                    static_cast<unsigned long long>(emulated_cuda_ptx_launches()),
                    static_cast<unsigned long long>(emulated_cuda_ptx_kernels()),
                    static_cast<unsigned long long>(emulated_cuda_ptx_shapes()));
    return told("runtime",
                ", " + std::to_string(emulated_cuda_watched()) + " accesses watched");
}
