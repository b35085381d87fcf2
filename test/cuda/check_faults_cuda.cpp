/* check_faults_cuda.cpp - every call of the CUDA runtime fails once, and with all after it
 * (GRADREG_TEST_SMALL: every sixth once, every sixth with all after it).
 *
 * In: sessions from the opening of a context to its end. Out: exit status 0 and the number of calls
 * that were made to fail, if each gave a status and a sentence, nothing was left behind, and the
 * same session works afterwards. Fewer calls than there were once (LEAST) mean that calls have
 * gone unchecked, or that the sessions do less than they did. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "coverage.h"
#include "cuda_runtime.h"
#include "emulated_cuda.h"
#include "gradreg.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define GR_TEST_SANITIZED 1
#else
/* In front of the C library's: this many calls from now on, and the last of them fails. 0: none does. */
static int callocs_left;
extern "C" {
void *__libc_calloc(size_t count, size_t bytes);
void *calloc(size_t count, size_t bytes) noexcept
{
    return callocs_left > 0 && --callocs_left == 0 ? nullptr : __libc_calloc(count, bytes);
}
}
#endif

namespace
{

/* Calls that fail on purpose, at least; on small grids one in so many. */
enum { LEAST = 1100, SMALL_STEP = 6 };

uint64_t step_of_calls()
{
    return std::getenv("GRADREG_TEST_SMALL") != nullptr ? SMALL_STEP : 1;
}

/* What lib/cuda calls and can fail, by name. */
const char *const must_fail[] = {
    "a launch",
    "cublasCreate",
    "cublasDestroy",
    "cublasGemmEx",
    "cublasSetMathMode",
    "cublasSetStream",
    "cublasSetWorkspace",
    "cudaDeviceGetAttribute",
    "cudaFree",
    "cudaFuncSetAttribute",
    "cudaGetDevice",
    "cudaGetDeviceCount",
    "cudaGetDeviceProperties",
    "cudaMalloc",
    "cudaMemcpyAsync",
    "cudaMemsetAsync",
    "cudaPointerGetAttributes",
    "cudaSetDevice",
    "cudaStreamGetCaptureInfo",
    "cudaStreamGetDevice",
    "cudaStreamSynchronize",
};

int failures;
uint64_t failed_calls;
const char *said; /* a sentence that is waited for; NULL once it came, with OUT_OF_MEMORY */
std::set<std::string> failed_names;

void expect(bool holds, const std::string &what)
{
    if (!holds && failures++ < 20)
        std::fprintf(stderr, "not so: %s\n", what.c_str());
}

/* A failure is a status with a sentence; what was asked for afterwards may fail as well. */
class Session
{
  public:
    explicit Session(const char *name) : name_(name)
    {
    }

    bool call(const char *what, gradreg_status status)
    {
        if (emulated_cuda_failed() > failed_before_) {
            if (failed_in.empty())
                failed_in = what;
            failed_before_ = emulated_cuda_failed();
        }
        coverage_note(what, status, false);
        if (status == GRADREG_OK)
            return true;
        failed = true;
        if (said != nullptr && status == GRADREG_ERROR_OUT_OF_MEMORY &&
            std::strstr(gradreg_last_error(), said) != nullptr)
            said = nullptr;
        expect(status == GRADREG_ERROR_DEVICE || status == GRADREG_ERROR_OUT_OF_MEMORY ||
                   status == GRADREG_ERROR_UNSUPPORTED || status == GRADREG_ERROR_STATE ||
                   status == GRADREG_ERROR_BLAS,
               std::string(name_) + ": " + what + " gives " + gradreg_status_name(status) +
                   ": " + gradreg_last_error());
        expect(gradreg_last_error()[0] != '\0', std::string(what) + " has no sentence");
        return false;
    }

    bool failed = false;
    std::string failed_in; /* the call during which a runtime call first failed on purpose */

  private:
    const char *name_;
    uint64_t failed_before_ = 0;
};

#define TRY(function, ...) session->call(#function, function(__VA_ARGS__))

enum { COUNT = 3000, LAYERS = 2 };

/* Buffers are the test's own: they are made before anything fails. */
struct Buffers {
    float *params = nullptr, *grads = nullptr, *logp = nullptr, *advantages = nullptr,
          *work = nullptr; /* what logits and the probe write: the others stay what they are */
    gradreg_policy_metrics *metrics = nullptr;
    int32_t *targets = nullptr;
    double *norms = nullptr;
    cudaStream_t stream = nullptr;

    Buffers()
    {
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        const std::vector<float> some(COUNT, 0.25f);
        const gradreg_policy_metrics empty = GRADREG_POLICY_METRICS_INIT;
        for (float **each : { &params, &grads, &logp, &advantages, &work }) {
            cudaMalloc(each, COUNT * sizeof(float));
            cudaMemcpy(*each, some.data(), COUNT * sizeof(float), cudaMemcpyHostToDevice);
        }
        cudaMalloc(&targets, 4 * sizeof(int32_t));
        cudaMemset(targets, 0, 4 * sizeof(int32_t));
        cudaMalloc(&norms, sizeof(double));
        cudaMalloc(&metrics, sizeof(empty));
        cudaMemcpy(metrics, &empty, sizeof(empty), cudaMemcpyHostToDevice);
    }
    ~Buffers()
    {
        for (float *each : { params, grads, logp, advantages, work })
            cudaFree(each);
        cudaFree(metrics);
        cudaFree(targets);
        cudaFree(norms);
        cudaStreamDestroy(stream);
    }
};

void use_regularizer(Session *session, gradreg_context *context, Buffers *memory)
{
    const gradreg_regularizer_params defaults = GRADREG_REGULARIZER_PARAMS_INIT;
    const gradreg_segment empty = GRADREG_SEGMENT_INIT;
    gradreg_segment segments[LAYERS] = { empty, empty };
    gradreg_regularizer_params params = defaults;
    gradreg_regularizer *reg = nullptr;
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    params.layer_count = LAYERS;
    params.interval = 2;
    params.noise.rule = GRADREG_NOISE_RELATIVE;
    params.noise.first_layer = params.noise.last_layer = 0;
    for (int i = 0; i < LAYERS; i++) {
        segments[i].offset = static_cast<uint64_t>(i) * COUNT / 2;
        segments[i].count = COUNT / 2;
        segments[i].layer = i;
        segments[i].role = GRADREG_ROLE_ATTENTION;
    }
    buffers.params = memory->params;
    buffers.grads = memory->grads;
    buffers.count = COUNT;
    if (!TRY(gradreg_regularizer_create, &reg, context, segments, LAYERS, &params)) {
        expect(reg == nullptr, "a failed create leaves no handle");
        return;
    }
    gradreg_terms total = GRADREG_TERMS_INIT;
    size_t bytes = 0;
    TRY(gradreg_regularizer_set_strength, reg, 0.5);
    for (int step = 0; step < 2; step++) {
        TRY(gradreg_regularizer_inject_noise, reg, &buffers);
        int32_t extra = 0;
        TRY(gradreg_regularizer_extra_passes, reg, &extra);
        if (extra > 0)
            TRY(gradreg_regularizer_perturb, reg, &buffers);
        TRY(gradreg_regularizer_combine, reg, &buffers);
        TRY(gradreg_regularizer_cancel, reg, &buffers);
    }
    double epsilon = 0;
    const gradreg_status suggested =
        gradreg_regularizer_suggest_epsilon(reg, &epsilon, &buffers, 0.5);
    if (suggested != GRADREG_ERROR_NON_FINITE)
        session->call("gradreg_regularizer_suggest_epsilon", suggested);
    TRY(gradreg_regularizer_terms, reg, &total, nullptr, 0);
    TRY(gradreg_regularizer_state_bytes, reg, &bytes);
    std::vector<unsigned char> state(bytes);
    if (TRY(gradreg_regularizer_state_save, reg, state.data(), bytes))
        TRY(gradreg_regularizer_state_load, reg, state.data(), bytes);
    TRY(gradreg_regularizer_destroy, reg);
}

void use_losses(Session *session, gradreg_context *context, Buffers *memory)
{
    gradreg_policy_batch batch = GRADREG_POLICY_BATCH_INIT;
    gradreg_policy_gradient out = GRADREG_POLICY_GRADIENT_INIT;
    gradreg_policy policy = GRADREG_POLICY_INIT;
    gradreg_policy_metrics metrics = GRADREG_POLICY_METRICS_INIT;
    const int64_t offsets[] = { 0, 10, 40 };
    const int32_t group[] = { 0, 1, 0, 1 };
    gradreg_advantage_params advantages = GRADREG_ADVANTAGE_PARAMS_INIT;
    batch.sequences = 2;
    batch.row_offsets = offsets;
    batch.group = group;
    batch.logp = memory->logp;
    batch.advantages = memory->advantages;
    policy.aggregation = GRADREG_AGGREGATE_PROMPT_MEAN;
    out.dlogp = memory->grads;
    advantages.group = group;
    TRY(gradreg_policy_loss, context, memory->metrics, &out, &batch, &policy);
    TRY(gradreg_policy_metrics_read, context, &metrics, memory->metrics);
    TRY(gradreg_advantages, context, memory->advantages, memory->logp, 4, 1, &advantages);
}

/* Four rows of logits, two of hidden states. */
void use_logits(Session *session, gradreg_context *context, Buffers *memory)
{
    enum { ROWS = 4, VOCABULARY = 40, WIDTH = 8 };
    gradreg_logits_params logits = GRADREG_LOGITS_PARAMS_INIT;
    gradreg_linear_params linear = GRADREG_LINEAR_PARAMS_INIT;
    gradreg_policy_batch batch = GRADREG_POLICY_BATCH_INIT;
    gradreg_policy policy = GRADREG_POLICY_INIT;
    float *const out = memory->work, *const rows = memory->work + 1000;
    logits.rows = linear.rows = ROWS;
    logits.vocabulary = linear.vocabulary = VOCABULARY;
    linear.width = WIDTH;
    batch.sequences = 2;
    batch.length = 2;
    batch.advantages = memory->advantages;
    policy.kl = GRADREG_KL_NONE;
    TRY(gradreg_logprobs_forward, context, rows, rows + 10, rows + 20, memory->params,
        memory->targets, &logits);
    TRY(gradreg_logprobs_backward, context, out, memory->params, memory->targets, rows + 20,
        rows + 10, rows, nullptr, &logits);
    TRY(gradreg_policy_logits, context, memory->metrics, out, nullptr, nullptr, memory->params,
        memory->targets, &batch, &policy, &logits);
    TRY(gradreg_linear_logprobs_forward, context, rows, rows + 10, rows + 20, memory->params,
        memory->params + 500, memory->targets, &linear);
    TRY(gradreg_linear_logprobs_backward, context, out, memory->work + 2000, memory->params,
        memory->params + 500, memory->targets, rows + 20, rows + 10, rows, nullptr, &linear);
    linear.type = GRADREG_TYPE_BF16;
    TRY(gradreg_linear_logprobs_backward, context, out, memory->work + 2000, memory->params,
        memory->params + 500, memory->targets, rows + 20, rows + 10, rows, nullptr, &linear);
}

void use_probe(Session *session, gradreg_context *context, Buffers *memory)
{
    gradreg_probe_params params = GRADREG_PROBE_PARAMS_INIT;
    gradreg_probe_layer layer = GRADREG_PROBE_LAYER_INIT;
    gradreg_segment segment = GRADREG_SEGMENT_INIT;
    gradreg_probe *probe = nullptr;
    params.layer_count = 1;
    params.trials = 2;
    segment.count = 1000;
    if (!TRY(gradreg_probe_create, &probe, context, &params)) {
        expect(probe == nullptr, "a failed create leaves no probe");
        return;
    }
    TRY(gradreg_probe_inject, probe, memory->work, GRADREG_TYPE_F32, 2, 100, 100, 0, 0);
    TRY(gradreg_probe_observe, probe, memory->params, GRADREG_TYPE_F32, 2, 100, 100, 5, 0, 0);
    TRY(gradreg_probe_summary, probe, &layer, 1);
    TRY(gradreg_probe_reset, probe);
    TRY(gradreg_probe_destroy, probe);
    TRY(gradreg_js_divergence, context, memory->work, memory->params, memory->logp, 2, 100);
    TRY(gradreg_weight_delta, context, memory->norms, memory->params, memory->logp,
        GRADREG_TYPE_F32, &segment, 1);
}

/* Whether everything was OK, or what failed was a release, of which nobody can say anything. */
enum Part { TRAINING, LOGITS, BOTH, LOSSES };
int callers_device = 0; /* current when a session begins */

bool play(const char *name, Buffers *memory, Part part = BOTH, std::string *failed_in = nullptr)
{
    Session one(name), *const session = &one;
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context = nullptr;
    params.backend = GRADREG_BACKEND_CUDA;
    params.threads = 1;
    if (!TRY(gradreg_context_create, &context, &params)) {
        expect(context == nullptr, "a failed create leaves no context");
        return false;
    }
    TRY(gradreg_context_set_stream, context, memory->stream);
    TRY(gradreg_context_set_stream, context, nullptr);
    TRY(gradreg_context_reserve, context, 1 << 16);
    if (part == TRAINING || part == BOTH)
        use_regularizer(session, context, memory);
    if (part != LOGITS)
        use_losses(session, context, memory);
    if (part == LOGITS || part == BOTH) {
        use_logits(session, context, memory);
        use_probe(session, context, memory);
    }
    TRY(gradreg_context_synchronize, context);
    TRY(gradreg_context_destroy, context);
    if (failed_in != nullptr)
        *failed_in = one.failed_in;
    return !one.failed;
}

void fail_each(Buffers *memory, size_t held, Part part)
{
    cudaSetDevice(callers_device);
    emulated_cuda_fail(0, 0);
    expect(play("without failures", memory, part), "the session works");
    const uint64_t calls = emulated_cuda_calls(), step = step_of_calls();
    for (int onwards = 0; onwards < 2; onwards++)
        for (uint64_t nth = onwards ? 1 + step / 2 : 1; nth <= calls; nth += step) {
            cudaSetDevice(callers_device);
            emulated_cuda_fail(nth, onwards);
            std::string during;
            const bool fine = play("with a failure", memory, part, &during);
            const std::string name = emulated_cuda_failed_name();
            failed_calls += emulated_cuda_failed() > 0;
            failed_names.insert(name);
            emulated_cuda_fail(0, 0);
            /* The caller's device could not be made current again: the runtime has the error, unless
             * destroying failed after it. */
            const bool seen = name == "cudaSetDevice" &&
                              (onwards != 0 || cudaPeekAtLastError() != cudaSuccess);
            cudaGetLastError();
            const std::string which =
                "call " + std::to_string(nth) + " (" + name + " in " + during + ")";
            const bool releases = during.find("_destroy") != std::string::npos;
            expect(!fine || releases || seen, which + " fails and nobody says so");
            expect(emulated_cuda_live() == held,
                   which + " fails and " + std::to_string(emulated_cuda_live() - held) +
                       " things are left behind");
        }
    expect(play("afterwards", memory, part), "the session works afterwards");
    std::printf("runtime calls: %llu in a session\n", static_cast<unsigned long long>(calls));
}

/* The module's own callocs, one after the other. */
void fail_host_memory(Buffers *memory, size_t held)
{
#ifndef GR_TEST_SANITIZED
    const char *const sentences[] = { "no memory for a CUDA context",
                                      "no memory for a cuBLAS handle" };
    for (const char *words : sentences) {
        bool found = false;
        for (int nth = 1; !found && nth < 20; nth++) {
            callocs_left = nth;
            said = words;
            found = !play("without host memory", memory) && said == nullptr;
            callocs_left = 0;
            expect(emulated_cuda_live() == held, "nothing is left behind without host memory");
        }
        expect(found, std::string("a calloc fails with \"") + words + "\"");
    }
    expect(play("with it again", memory), "the session works with host memory again");
#else
    (void)memory, (void)held;
#endif
}

/* A device that somebody else has crashed: a status, and destroy still works. */
void crash(Buffers *memory, size_t held)
{
    emulated_cuda_crash(0);
    expect(!play("a crashed device", memory), "a crashed device is noticed");
    emulated_cuda_reset_errors();
    expect(emulated_cuda_live() == held, "nothing is left behind on a crashed device");
    expect(play("after the crash", memory), "the session works when the device does");
}

/* An error that others left is named and stays theirs, and so does the device that was current. */
void respect_others()
{
    int device = -1;
    gradreg_context *context = nullptr;
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    params.backend = GRADREG_BACKEND_CUDA;
    params.threads = 1;
    expect(cudaSetDevice(1) == cudaSuccess, "there are two devices");
    expect(gradreg_context_create(&context, &params) == GRADREG_OK,
           "a context on another device");
    expect(gradreg_context_reserve(context, 1 << 16) == GRADREG_OK, "memory on another device");
    expect(cudaGetDevice(&device) == cudaSuccess && device == 1,
           "the caller's device is current");
    expect(cudaSetDevice(1000) == cudaErrorInvalidDevice, "an error is left behind");
    expect(gradreg_context_synchronize(context) == GRADREG_ERROR_DEVICE,
           "an error that others left is reported");
    expect(cudaGetLastError() == cudaErrorInvalidDevice, "and it is still there");
    expect(gradreg_context_synchronize(context) == GRADREG_OK, "without it all is well");
    expect(gradreg_context_destroy(context) == GRADREG_OK, "destroyed from another device");
    expect(cudaSetDevice(0) == cudaSuccess, "the first device again");
}

/* A thread that has asked for no device finds none made for it, and none but the context's is used. */
void make_no_context_elsewhere()
{
    gradreg_context *context = nullptr;
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    params.backend = GRADREG_BACKEND_CUDA;
    params.device = 1;
    params.threads = 1;
    emulated_cuda_forget_contexts();
    expect(gradreg_context_create(&context, &params) == GRADREG_OK, "a context on device 1");
    expect(gradreg_context_reserve(context, 1 << 16) == GRADREG_OK, "memory on device 1");
    expect(gradreg_context_synchronize(context) == GRADREG_OK, "a wait for device 1");
    expect(gradreg_context_destroy(context) == GRADREG_OK, "no context on device 1");
    expect(emulated_cuda_has_context(1) && !emulated_cuda_has_context(0),
           "a context on device 1 leaves device 0 alone");
    expect(cudaSetDevice(0) == cudaSuccess, "the first device again");
}

/* Not an error of the device, and nobody else is to find it. */
void keep_off_the_default_stream()
{
    gradreg_context *context = nullptr;
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    params.backend = GRADREG_BACKEND_CUDA;
    params.threads = 1;
    expect(gradreg_context_create(&context, &params) == GRADREG_OK, "the default stream");
    expect(cudaStreamCreate(&stream) == cudaSuccess &&
               cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed) == cudaSuccess,
           "a stream that is captured");
    expect(gradreg_context_synchronize(context) == GRADREG_ERROR_STATE,
           "the default stream cannot be used meanwhile");
    expect(cudaPeekAtLastError() == cudaSuccess, "and that leaves no error behind");
    expect(cudaStreamEndCapture(stream, &graph) == cudaSuccess, "the capture is as it was");
    expect(gradreg_context_synchronize(context) == GRADREG_OK, "afterwards it can");
    expect(cudaGraphDestroy(graph) == cudaSuccess && cudaStreamDestroy(stream) == cudaSuccess &&
               gradreg_context_destroy(context) == GRADREG_OK,
           "all is gone");
}

/* The memory ends at every size. */
void run_out(Buffers *memory, size_t held)
{
    const size_t own = 5 * COUNT * sizeof(float) + sizeof(gradreg_policy_metrics) + 24;
    int refusals = 0;
    for (size_t more = 1; more < 400000; more += 1 + more / 2 * step_of_calls()) {
        emulated_cuda_set_memory(own + more);
        refusals += !play("little memory", memory);
        expect(emulated_cuda_live() == held, "nothing is left behind when memory ends");
        cudaGetLastError();
    }
    emulated_cuda_set_memory(0);
    expect(refusals > 2, "memory did end");
}

/* Of whose failures nobody can say anything; or which may not have failed, because not all did. */
bool lets_go(const char *name)
{
    return std::strstr(name, "_destroy") != nullptr || step_of_calls() > 1;
}

} // namespace

int main()
{
    coverage_open();
    {
        Buffers memory;
        const size_t held = emulated_cuda_live();
        expect(play("the first", &memory),
               "the first session works"); /* opens the module too */
        fail_each(&memory, held, TRAINING);
        fail_each(&memory, held, LOGITS);
        callers_device = 1; /* so that the context's has to be made current */
        fail_each(&memory, held, LOSSES);
        callers_device = 0;
        cudaSetDevice(0);
        fail_host_memory(&memory, held);
        respect_others();
        make_no_context_elsewhere();
        keep_off_the_default_stream();
        crash(&memory, held);
        run_out(&memory, held);
    }
    expect(emulated_cuda_live() == 0, "nothing is left behind at all");
    expect(coverage_of_device(GR_TEST_HEADER, lets_go),
           "every status is documented and was given");
    const uint64_t least = LEAST / step_of_calls();
    expect(failed_calls >= least, "only " + std::to_string(failed_calls) +
                                      " calls were made to fail, at least " +
                                      std::to_string(least) + " are known");
    for (const char *name : must_fail)
        expect(step_of_calls() > 1 || failed_names.count(name) > 0,
               std::string(name) + " was never made to fail");
    std::printf("faults: %llu runtime calls failed on purpose, %d expectations do not hold\n",
                static_cast<unsigned long long>(failed_calls), failures);
    return failures == 0 ? 0 : 1;
}
