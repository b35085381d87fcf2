/* check_promises_cuda.cpp - what docs/cuda.md and the header say of the CUDA backend in passing, and the
 * comparison of backends cannot show: how many kernels a step is, what a segment costs, targets that
 * only the device sees.
 *
 * In: GRADREG_CUDA_MODULE, the module in the emulated runtime. */
#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "emulated_cuda.h"
#include "gradreg.h"

#include "../suite.h"

namespace
{

void must(gradreg_status status)
{
    ck_assert_msg(status == GRADREG_OK, "%s: %s", gradreg_status_name(status),
                  gradreg_last_error());
}

void must(cudaError_t error)
{
    ck_assert_msg(error == cudaSuccess, "%s", cudaGetErrorName(error));
}

template <class T> T *on_device(const std::vector<T> &values)
{
    T *memory = nullptr;
    must(cudaMalloc(&memory, values.size() * sizeof(T)));
    must(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    return memory;
}

template <class T> std::vector<T> on_host(const T *memory, std::size_t count)
{
    std::vector<T> values(count);
    must(cudaMemcpy(values.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
}

gradreg_context *open()
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context = nullptr;
    params.backend = GRADREG_BACKEND_CUDA;
    must(gradreg_context_create(&context, &params));
    return context;
}

/* `segments` of `count` elements, in four layers. */
std::vector<gradreg_segment> table_of(std::size_t segments, std::size_t count)
{
    const gradreg_segment empty = GRADREG_SEGMENT_INIT;
    std::vector<gradreg_segment> table(segments, empty);
    for (std::size_t i = 0; i < segments; i++) {
        table[i].offset = i * count;
        table[i].count = count;
        table[i].layer = static_cast<int32_t>(i % 4);
        table[i].role = GRADREG_ROLE_MLP;
    }
    return table;
}

/* Fewer where everything is slow. */
std::size_t many(std::size_t segments)
{
    return std::getenv("GRADREG_TEST_SMALL") != nullptr ? 12 : segments;
}

/* ---- launches ------------------------------------------------------------------------ */

struct Step {
    gradreg_regularizer *reg;
    gradreg_buffers buffers;
    uint64_t perturbing, combining; /* kernels */

    void take()
    {
        const uint64_t before = emulated_cuda_launches();
        must(gradreg_regularizer_perturb(reg, &buffers));
        must(cudaDeviceSynchronize());
        const uint64_t between = emulated_cuda_launches();
        must(gradreg_regularizer_combine(reg, &buffers));
        must(cudaDeviceSynchronize());
        perturbing = between - before;
        combining = emulated_cuda_launches() - between;
    }
};

START_TEST(a_step_is_five_kernels_whatever_the_number_of_segments)
{
    const std::size_t segments = _i == 0 ? 1 : many(300), count = 70;
    const std::vector<gradreg_segment> table = table_of(segments, count);
    gradreg_context *context = open();
    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
    Step step = { nullptr, GRADREG_BUFFERS_INIT, 0, 0 };
    params.layer_count = 4;
    step.buffers.params = on_device(std::vector<float>(segments * count, 1.5f));
    step.buffers.grads = on_device(std::vector<float>(segments * count, 0.25f));
    step.buffers.count = segments * count;
    must(gradreg_regularizer_create(&step.reg, context, table.data(), segments, &params));
    step.take(); /* writes pointers */
    step.take();
    ck_assert_uint_eq(step.perturbing,
                      2); /* squares of g1, ending with the decision; perturb */
    ck_assert_uint_eq(step.combining,
                      3); /* squares of g2, ending with it; combine; the report */
    must(gradreg_regularizer_destroy(step.reg));
    must(gradreg_context_destroy(context));
    cudaFree(step.buffers.params);
    cudaFree(step.buffers.grads);
}
END_TEST

/* Nodes of a graph that `call` makes. */
template <class Function> std::size_t nodes_of(cudaStream_t stream, Function call)
{
    cudaGraph_t graph = nullptr;
    std::size_t nodes = 0;
    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    call();
    must(cudaStreamEndCapture(stream, &graph));
    must(cudaGraphGetNodes(graph, nullptr, &nodes));
    must(cudaGraphDestroy(graph));
    return nodes;
}

/* Beside the kernels a captured call of a step clears two counters and writes its pointers. */
START_TEST(a_captured_step_also_clears_counters_and_writes_its_pointers)
{
    const std::size_t segments = _i == 0 ? 8 : many(600);
    const std::vector<gradreg_segment> table = table_of(segments, 16);
    gradreg_context *context = open();
    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    gradreg_regularizer *reg = nullptr;
    cudaStream_t stream = nullptr;
    params.layer_count = 4;
    buffers.params = on_device(std::vector<float>(segments * 16, 1.5f));
    buffers.grads = on_device(std::vector<float>(segments * 16, 0.25f));
    buffers.count = segments * 16;
    must(cudaStreamCreate(&stream));
    must(gradreg_context_set_stream(context, stream));
    must(gradreg_regularizer_create(&reg, context, table.data(), table.size(), &params));
    for (int step = 0; step < 2; step++) {
        must(gradreg_regularizer_perturb(reg, &buffers));
        must(gradreg_regularizer_combine(reg, &buffers));
    }
    const std::size_t words = (8 * segments + 3999) / 4000; /* kernels that write them */
    const std::size_t nodes = nodes_of(stream, [&] {
        must(gradreg_regularizer_perturb(reg, &buffers));
        must(gradreg_regularizer_combine(reg, &buffers));
    });
    ck_assert_uint_eq(nodes, 5 + 2 + words);
    must(cudaDeviceSynchronize());
    const uint64_t before = emulated_cuda_launches();
    must(gradreg_regularizer_perturb(reg, &buffers));
    must(gradreg_regularizer_combine(reg, &buffers));
    must(cudaDeviceSynchronize());
    ck_assert_uint_eq(emulated_cuda_launches() - before, 5 + 2 * words);
    must(gradreg_regularizer_destroy(reg));
    must(gradreg_context_destroy(context));
    must(cudaStreamDestroy(stream));
    cudaFree(buffers.params);
    cudaFree(buffers.grads);
}
END_TEST

START_TEST(a_stream_of_another_device_is_refused)
{
    gradreg_context *context = open();
    cudaStream_t own = nullptr, foreign = nullptr;
    must(cudaSetDevice(1));
    must(cudaStreamCreateWithFlags(&foreign, cudaStreamNonBlocking));
    must(cudaSetDevice(0));
    must(cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking));
    must(gradreg_context_set_stream(context, own));
    ck_assert_int_eq(gradreg_context_set_stream(context, foreign),
                     GRADREG_ERROR_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(std::strstr(gradreg_last_error(),
                                      "is one of CUDA device 1, the context is on device 0"));

    /* The stream before is in force. */
    const gradreg_segment segment = table_of(1, 16)[0];
    double *norms = nullptr;
    float *weights = on_device(std::vector<float>(16, 1.5f));
    must(cudaMalloc(&norms, sizeof(double)));
    must(cudaDeviceSynchronize());
    emulated_cuda_set_schedule(0);
    must(gradreg_weight_delta(context, norms, weights, weights, GRADREG_TYPE_F32, &segment, 1));
    ck_assert_int_eq(cudaStreamQuery(own), cudaErrorNotReady);
    must(gradreg_context_set_stream(context, nullptr));
    must(gradreg_context_set_stream(context, own));
    must(cudaStreamSynchronize(own));
    must(gradreg_context_destroy(context));
    must(cudaStreamDestroy(own));
    must(cudaStreamDestroy(foreign));
    cudaFree(norms);
    cudaFree(weights);
}
END_TEST

/* ---- memory -------------------------------------------------------------------------- */

struct Held {
    double host, device;
};

void *allocate(void *user, std::size_t bytes, std::size_t alignment, gradreg_memory memory)
{
    void *pointer = nullptr;
    if (memory == GRADREG_MEMORY_HOST) {
        static_cast<Held *>(user)->host += static_cast<double>(bytes);
        return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    }
    static_cast<Held *>(user)->device += static_cast<double>(bytes);
    return cudaMalloc(&pointer, bytes) == cudaSuccess ? pointer : nullptr;
}

void release(void *, void *pointer, std::size_t, gradreg_memory memory)
{
    if (memory == GRADREG_MEMORY_HOST)
        std::free(pointer);
    else
        cudaFree(pointer);
}

/* What a regularizer holds that needs no copies: the caller keeps g1, and theta' goes elsewhere. */
Held held(std::size_t segments, std::size_t count)
{
    const std::vector<gradreg_segment> table = table_of(segments, count);
    Held now = { 0, 0 };
    gradreg_context_params where = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context = nullptr;
    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
    gradreg_regularizer *reg = nullptr;
    std::size_t bytes = 0;
    where.backend = GRADREG_BACKEND_CUDA;
    where.allocator.allocate = allocate;
    where.allocator.release = release;
    where.allocator.user = &now;
    must(gradreg_context_create(&context, &where));
    params.layer_count = 4;
    params.first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS;
    params.placement = GRADREG_PLACEMENT_OUT_OF_PLACE;
    must(gradreg_regularizer_workspace_bytes(&bytes, context, table.data(), segments, &params));
    const Held before = now;
    must(gradreg_regularizer_create(&reg, context, table.data(), segments, &params));
    const Held own = { now.host - before.host, now.device - before.device };
    ck_assert(own.host + own.device == static_cast<double>(bytes)); /* all of it, beforehand */
    must(gradreg_regularizer_destroy(reg));
    must(gradreg_context_destroy(context));
    return own;
}

START_TEST(segments_and_elements_cost_what_the_page_says)
{
    const Held few = held(1000, 64), many = held(9000, 64);
    const Held small = held(4, std::size_t(65536) * 1000),
               large = held(4, std::size_t(65536) * 5000);
    const double segment[] = { (many.host - few.host) / 8000,
                               (many.device - few.device) / 8000 };
    const double elements[] = { (large.host - small.host) / 16000,
                                (large.device - small.device) / 16000 };
    std::printf(
        "held: %.0f + %.0f bytes a segment, %.1f + %.1f per 65,536 elements, host + device\n",
        segment[0], segment[1], elements[0], elements[1]);
    ck_assert(std::fabs(segment[0] - 480) <= 1 && std::fabs(segment[1] - 264) <= 1);
    ck_assert(std::fabs(elements[0] - 32) <= 1 && std::fabs(elements[1] - 56) <= 1);
}
END_TEST

/* ---- targets ------------------------------------------------------------------------- */

/* "on CUDA the row's numbers are NaN and its gradient is zeros", and other rows are what they were. */
START_TEST(a_target_outside_the_vocabulary_is_nan_and_has_no_gradient)
{
    enum { ROWS = 4, VOCABULARY = 50 };
    const int32_t bad = _i == 0 ? VOCABULARY : _i == 1 ? -2 : INT32_MAX;
    gradreg_context *context = open();
    gradreg_logits_params params = GRADREG_LOGITS_PARAMS_INIT;
    std::vector<float> logits(ROWS * VOCABULARY), gradient(logits);
    for (std::size_t i = 0; i < logits.size(); i++)
        logits[i] = static_cast<float>(i * 37 % 11) / 4;
    params.rows = ROWS;
    params.vocabulary = VOCABULARY;
    std::vector<float> numbers[2], gradients[2];
    for (int which = 0; which < 2; which++) { /* all good; then one bad */
        float *x = on_device(logits), *dx = on_device(logits);
        int32_t *targets = on_device(std::vector<int32_t>{ 1, which == 0 ? 5 : bad, 7, 0 });
        float *out = on_device(std::vector<float>(3 * ROWS, -1.0f));
        float *ones = on_device(std::vector<float>(ROWS, 1.0f));
        must(gradreg_logprobs_forward(context, out, out + ROWS, out + 2 * ROWS, x, targets,
                                      &params));
        must(gradreg_logprobs_backward(context, dx, x, targets, out + 2 * ROWS, out + ROWS,
                                       ones, nullptr, &params));
        must(gradreg_context_synchronize(context));
        numbers[which] = on_host(out, 3 * ROWS);
        gradients[which] = on_host(dx, logits.size());
        for (void *memory :
             { static_cast<void *>(x), static_cast<void *>(dx), static_cast<void *>(targets),
               static_cast<void *>(out), static_cast<void *>(ones) })
            cudaFree(memory);
    }
    for (int which = 0; which < 3; which++)
        for (int row = 0; row < ROWS; row++) {
            const float got = numbers[1][static_cast<std::size_t>(which * ROWS + row)];
            ck_assert_msg(row == 1 ? std::isnan(got) : std::isfinite(got),
                          "number %d of row %d is %g", which, row, static_cast<double>(got));
        }
    for (std::size_t i = 0; i < logits.size(); i++) {
        const bool is_bad = i / VOCABULARY == 1;
        ck_assert_msg(gradients[1][i] == (is_bad ? 0.0f : gradients[0][i]),
                      "the gradient at %zu is %g", i, static_cast<double>(gradients[1][i]));
    }
    must(gradreg_context_destroy(context));
}
END_TEST

/* ---- what is not there ----------------------------------------------------------------- */

gradreg_status linear(gradreg_context *context, float *memory, const int32_t *targets)
{
    gradreg_linear_params params = GRADREG_LINEAR_PARAMS_INIT;
    params.rows = 2;
    params.width = 8;
    params.vocabulary = 10;
    return gradreg_linear_logprobs_forward(context, memory, nullptr, nullptr, memory + 8,
                                           memory + 100, targets, &params);
}

gradreg_status logprobs(gradreg_context *context, float *memory, const int32_t *targets)
{
    gradreg_logits_params params = GRADREG_LOGITS_PARAMS_INIT;
    params.rows = 2;
    params.vocabulary = 10;
    return gradreg_logprobs_forward(context, memory, nullptr, nullptr, memory + 100, targets,
                                    &params);
}

/* "without it UNSUPPORTED, and the rest works": no file, a relative path, a library of something else. */
START_TEST(without_cublas_its_calls_are_refused_and_the_rest_works)
{
    const std::string good = std::getenv("GRADREG_CUBLAS");
    Dl_info cudart;
    ck_assert_int_ne(dladdr(reinterpret_cast<void *>(&emulated_cuda_launches), &cudart), 0);
    const struct {
        const char *path, *words;
    } bad[] = { { "/nowhere/libcublas.so", "/nowhere/libcublas.so: cannot open" },
                { "libcublas.so", "GRADREG_CUBLAS is no absolute path" },
                { cudart.dli_fname, "lacks functions of version 13" } };
    gradreg_context *context = open();
    float *memory = on_device(std::vector<float>(200, 0.5f));
    int32_t *targets = on_device(std::vector<int32_t>{ 1, 2 });
    for (const auto &one : bad) {
        setenv("GRADREG_CUBLAS", one.path, 1);
        ck_assert_int_eq(linear(context, memory, targets), GRADREG_ERROR_UNSUPPORTED);
        ck_assert_msg(std::strstr(gradreg_last_error(), one.words) != nullptr,
                      "the sentence is \"%s\"", gradreg_last_error());
        must(logprobs(context, memory, targets));
    }
    setenv("GRADREG_CUBLAS", good.c_str(), 1);
    must(linear(context, memory, targets)); /* as soon as it is there */
    must(gradreg_context_destroy(context));
    cudaFree(memory);
    cudaFree(targets);
}
END_TEST

START_TEST(without_a_driver_or_a_device_the_sentence_says_which)
{
    const struct {
        int driver;
        const char *words;
    } machines[] = { { 0, "no NVIDIA driver" },
                     { 12080, "knows CUDA 12.8, the module needs CUDA 13" },
                     { 13000, "there is a driver but no device" } };
    for (const auto &machine : machines) {
        gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
        gradreg_context *context = nullptr;
        params.backend = GRADREG_BACKEND_CUDA;
        emulated_cuda_set_devices(0);
        emulated_cuda_set_driver(machine.driver);
        const gradreg_status status = gradreg_context_create(&context, &params);
        const std::string sentence = gradreg_last_error();
        const int32_t available = gradreg_backend_available(GRADREG_BACKEND_CUDA);
        emulated_cuda_set_devices(2);
        emulated_cuda_set_driver(13000);
        ck_assert_int_eq(status, GRADREG_ERROR_UNSUPPORTED);
        ck_assert_ptr_null(context);
        ck_assert_int_eq(available, 0);
        ck_assert_msg(sentence.find(machine.words) != std::string::npos,
                      "the sentence is \"%s\"", sentence.c_str());
    }
    must(gradreg_context_destroy(open()));
}
END_TEST

} // namespace

/* "On the CPU no call gives GRADREG_ERROR_DEVICE": not with pointers that are new to it either. */
START_TEST(a_crashed_device_leaves_the_cpu_alone)
{
    const gradreg_regularizer_params defaults = GRADREG_REGULARIZER_PARAMS_INIT;
    const gradreg_logits_params logits = GRADREG_LOGITS_PARAMS_INIT;
    gradreg_regularizer_params params = defaults;
    gradreg_logits_params rows = logits;
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    gradreg_context *device = open(), *host = nullptr;
    gradreg_regularizer *reg = nullptr;
    const std::vector<gradreg_segment> table = table_of(4, 8);
    std::vector<float> weights(32, 1.0f), grads(32, 0.5f), out(4);
    const int32_t targets[4] = { 0, 1, 2, 3 };
    must(gradreg_context_create(&host, nullptr));
    params.layer_count = 4;
    rows.rows = 4;
    rows.vocabulary = 8;
    buffers.params = weights.data();
    buffers.grads = grads.data();
    buffers.count = weights.size();
    must(gradreg_regularizer_create(&reg, host, table.data(), table.size(), &params));
    emulated_cuda_crash(0);
    must(gradreg_logprobs_forward(host, out.data(), nullptr, nullptr, weights.data(), targets,
                                  &rows));
    must(gradreg_js_divergence(host, out.data(), weights.data(), grads.data(), 4, 8));
    must(gradreg_regularizer_perturb(reg, &buffers));
    must(gradreg_regularizer_combine(reg, &buffers));
    ck_assert_int_eq(gradreg_context_synchronize(device), GRADREG_ERROR_DEVICE);
    emulated_cuda_reset_errors();
    must(gradreg_regularizer_destroy(reg));
    must(gradreg_context_destroy(host));
    must(gradreg_context_destroy(device));
}
END_TEST

int main()
{
    Suite *suite = suite_create("promises-cuda");
    TCase *cases = tcase_create("device");
    tcase_set_timeout(cases, 60);
    /* Before the module is open, where Check does not fork. */
    tcase_add_test(cases, without_a_driver_or_a_device_the_sentence_says_which);
    tcase_add_loop_test(cases, a_step_is_five_kernels_whatever_the_number_of_segments, 0, 2);
    tcase_add_loop_test(cases, a_captured_step_also_clears_counters_and_writes_its_pointers, 0,
                        2);
    tcase_add_test(cases, a_stream_of_another_device_is_refused);
    tcase_add_test(cases, segments_and_elements_cost_what_the_page_says);
    tcase_add_loop_test(cases, a_target_outside_the_vocabulary_is_nan_and_has_no_gradient, 0,
                        3);
    tcase_add_test(cases, without_cublas_its_calls_are_refused_and_the_rest_works);
    tcase_add_test(cases, a_crashed_device_leaves_the_cpu_alone);
    suite_add_tcase(suite, cases);
    return run_plainly(suite, CK_FORK_GETENV);
}
