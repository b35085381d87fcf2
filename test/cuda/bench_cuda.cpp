/* bench_cuda.cpp - a step of the regularizer on a GPU, in the bandwidth of a copy of the same run.
 *
 *   bench_cuda [MILLION_PARAMETERS] [REPETITIONS]
 *
 * In: a model of 36 layers of 9 tensors. Out: a table: milliseconds (median), bytes that must move,
 * and the share of the copy's bandwidth at which they did; kernels, allocations and waits of a
 * cycle. Needs the CUDA runtime, emulated or real; only on a GPU do the times mean anything. */
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "gradreg.h"

namespace
{

void ok(gradreg_status status, const char *call)
{
    if (status != GRADREG_OK)
        throw std::runtime_error(std::string(call) + ": " + gradreg_last_error());
}

void ok(cudaError_t error, const char *call)
{
    if (error != cudaSuccess)
        throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(error));
}
#define OK(call) ok((call), #call)

cudaStream_t stream;
int repetitions = 20;

/* The median over repetitions of a call's time on the stream, after one to warm up. */
double milliseconds(const std::function<void()> &before, const std::function<void()> &call)
{
    std::vector<float> times;
    cudaEvent_t start, end;
    OK(cudaEventCreate(&start));
    OK(cudaEventCreate(&end));
    for (int i = 0; i <= repetitions; i++) {
        float time = 0;
        before();
        OK(cudaEventRecord(start, stream));
        call();
        OK(cudaEventRecord(end, stream));
        OK(cudaEventSynchronize(end));
        OK(cudaEventElapsedTime(&time, start, end));
        if (i > 0)
            times.push_back(time);
    }
    OK(cudaEventDestroy(start));
    OK(cudaEventDestroy(end));
    std::sort(times.begin(), times.end());
    return static_cast<double>(times[times.size() / 2]);
}

/* GB/s, read and written bytes counted, of a large copy on the device. */
double copy_bandwidth(size_t bytes)
{
    void *from = nullptr, *to = nullptr;
    OK(cudaMalloc(&from, bytes));
    OK(cudaMalloc(&to, bytes));
    OK(cudaMemsetAsync(from, 0x35, bytes, stream));
    const double ms = milliseconds(
        [] {}, [&] { OK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream)); });
    OK(cudaFree(from));
    OK(cudaFree(to));
    return 2.0 * static_cast<double>(bytes) / (ms * 1e6);
}

struct Pair {
    const char *name;
    gradreg_type param, grad;
    size_t param_bytes, grad_bytes;
};

const Pair pairs[] = {
    { "bf16/bf16", GRADREG_TYPE_BF16, GRADREG_TYPE_BF16, 2, 2 },
    { "bf16/f32", GRADREG_TYPE_BF16, GRADREG_TYPE_F32, 2, 4 },
    { "f32/f32", GRADREG_TYPE_F32, GRADREG_TYPE_F32, 4, 4 },
};

enum { LAYERS = 36, TENSORS = 9 };

std::vector<gradreg_segment> model(size_t parameters)
{
    static const unsigned shares[TENSORS] = { 16, 8, 8, 16, 1, 32, 32, 32, 1 };
    const gradreg_segment empty = GRADREG_SEGMENT_INIT;
    std::vector<gradreg_segment> segments;
    uint64_t offset = 0;
    for (int layer = 0; layer < LAYERS; layer++)
        for (int tensor = 0; tensor < TENSORS; tensor++) {
            gradreg_segment s = empty;
            s.offset = offset;
            s.count = std::max<uint64_t>(1, parameters / LAYERS * shares[tensor] / 146);
            s.layer = layer;
            s.role = tensor < 4                             ? GRADREG_ROLE_ATTENTION
                     : tensor == 4 || tensor == TENSORS - 1 ? GRADREG_ROLE_NORM
                                                            : GRADREG_ROLE_MLP;
            offset += s.count;
            segments.push_back(s);
        }
    return segments;
}

/* Buffers of one pair of types, with some values that are not all the same. */
class Trainer
{
  public:
    Trainer(const Pair &pair, size_t parameters)
        : pair_(pair), segments_(model(parameters)),
          count_(static_cast<size_t>(segments_.back().offset + segments_.back().count))
    {
        gradreg_context_params context_params = GRADREG_CONTEXT_PARAMS_INIT;
        gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
        const gradreg_buffers empty = GRADREG_BUFFERS_INIT;
        context_params.backend = GRADREG_BACKEND_CUDA;
        OK(gradreg_context_create(&context, &context_params));
        OK(gradreg_context_set_stream(context, stream));
        params.param_type = pair.param;
        params.grad_type = pair.grad;
        params.layer_count = LAYERS;
        params.schedule.first_layer = params.schedule.full_layer = 0;
        params.clip_first = params.clip_second = 1.0;
        OK(gradreg_regularizer_create(&reg, context, segments_.data(), segments_.size(),
                                      &params));
        fill(&params_, pair.param_bytes, 0x3c);
        fill(&grads_, pair.grad_bytes, 0x3a);
        buffers = empty;
        buffers.params = params_;
        buffers.grads = grads_;
        buffers.count = count_;
    }

    ~Trainer()
    {
        gradreg_regularizer_destroy(reg);
        gradreg_context_destroy(context);
        cudaFree(params_);
        cudaFree(grads_);
    }

    Trainer(const Trainer &) = delete;
    Trainer &operator=(const Trainer &) = delete;

    double gigabytes(size_t grads, size_t params) const
    {
        return 1e-9 * static_cast<double>(count_) *
               static_cast<double>(grads * pair_.grad_bytes + params * pair_.param_bytes);
    }

    gradreg_context *context = nullptr;
    gradreg_regularizer *reg = nullptr;
    gradreg_buffers buffers;

  private:
    /* A normal number everywhere, with noise in the low bits. */
    void fill(void **buffer, size_t element, int high)
    {
        std::vector<unsigned char> some(1 << 20);
        uint32_t random = 1;
        for (size_t i = 0; i < some.size(); i++) {
            random = random * 1664525u + 1013904223u;
            some[i] = i % element == element - 1 ? static_cast<unsigned char>(high)
                                                 : static_cast<unsigned char>(random >> 24);
        }
        const size_t bytes = count_ * element;
        OK(cudaMalloc(buffer, bytes));
        for (size_t at = 0; at < bytes; at += some.size())
            OK(cudaMemcpyAsync(static_cast<char *>(*buffer) + at, some.data(),
                               std::min(some.size(), bytes - at), cudaMemcpyHostToDevice,
                               stream));
        OK(cudaStreamSynchronize(stream));
    }

    const Pair &pair_;
    std::vector<gradreg_segment> segments_;
    size_t count_;
    void *params_ = nullptr, *grads_ = nullptr;
};

void print(const Pair &pair, const char *what, double ms, double gigabytes, double copy)
{
    const double rate = gigabytes / (ms * 1e-3);
    std::printf("| %s | %s | %.3f | %.2f | %.0f | %.1f %% |\n", pair.name, what, ms, gigabytes,
                rate, 100.0 * rate / copy);
}

uint64_t allocations(const gradreg_context *context)
{
    struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;
    OK(gradreg_context_info(context, &info));
    return info.allocations;
}

size_t nodes_of_a_cycle(Trainer *t)
{
    cudaGraph_t graph;
    size_t nodes = 0;
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    OK(gradreg_regularizer_perturb(t->reg, &t->buffers));
    OK(gradreg_regularizer_combine(t->reg, &t->buffers));
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphGetNodes(graph, nullptr, &nodes));
    OK(cudaGraphDestroy(graph));
    return nodes;
}

/* Perturb: norm G, then G + 3P. Combine: norm G, then 3G + 2P. */
void bench(const Pair &pair, size_t parameters, double copy)
{
    Trainer t(pair, parameters);
    const auto perturb = [&] { OK(gradreg_regularizer_perturb(t.reg, &t.buffers)); };
    const auto combine = [&] { OK(gradreg_regularizer_combine(t.reg, &t.buffers)); };
    const auto cancel = [&] { OK(gradreg_regularizer_cancel(t.reg, &t.buffers)); };
    print(pair, "perturb with its norm", milliseconds(cancel, perturb), t.gigabytes(2, 3),
          copy);
    cancel();
    print(pair, "combine with its norm", milliseconds(perturb, combine), t.gigabytes(4, 2),
          copy);
    const uint64_t before = allocations(t.context);
    print(pair, "cycle", milliseconds([] {}, [&] { perturb(), combine(); }), t.gigabytes(6, 5),
          copy);
    if (allocations(t.context) != before)
        throw std::runtime_error("a cycle allocates");
    std::printf("| %s | graph nodes of a cycle | %zu | | | |\n", pair.name,
                nodes_of_a_cycle(&t));
}

} // namespace

int main(int argc, char **argv)
{
    try {
        const size_t million = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 1000;
        repetitions = argc > 2 ? std::max(1, std::atoi(argv[2])) : 20;
        OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        const size_t parameters = std::max<size_t>(million * 1000000, 20000);
        const double copy = copy_bandwidth(parameters * 2);
        std::printf("copy: %.0f GB/s (%zu MB, read and write counted); %zu million parameters, "
                    "%d repetitions, medians\n\n",
                    copy, parameters * 2 / 1000000, million, repetitions);
        std::printf("| types | call | ms | GB | GB/s | of copy |\n"
                    "|---|---|---|---|---|---|\n");
        for (const Pair &pair : pairs)
            bench(pair, parameters, copy);
        OK(cudaStreamDestroy(stream));
        return 0;
    } catch (const std::exception &failure) {
        std::printf("%s\n", failure.what());
        return 1;
    }
}
