/* sessions.cpp - what a GPU adds to a step: graphs, several streams, devices and host threads,
 * ranks, pointers of the wrong kind, devices that have crashed. */
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "steps.h"

namespace compare
{

namespace
{

/* A variant that suits: no refusal, a given layout. */
Variant plain_variant(unsigned number, bool scattered)
{
    const gradreg_regularizer_params defaults = GRADREG_REGULARIZER_PARAMS_INIT;
    Variant v = variant(number);
    gradreg_regularizer_params p = defaults;
    p.param_type = v.params.param_type;
    p.grad_type = v.params.grad_type;
    p.step = v.params.step;
    p.difference = v.params.difference;
    p.penalty = v.params.penalty;
    p.depth = v.params.depth;
    p.layer_count = v.params.layer_count;
    p.epsilon = 0.01;
    p.strength = 0.1;
    v.params = p;
    v.scattered = scattered;
    v.begin = 0;
    v.bad_pass = -1;
    v.absent.assign(v.segments.size(), false);
    for (gradreg_segment &s : v.segments)
        s.param_type = s.grad_type = 0;
    return v;
}

/* One whole step on one side, without looking. */
void play(Stepper *one, uint64_t seed)
{
    int32_t extra = 0;
    CALL(gradreg_regularizer_extra_passes(one->reg, &extra));
    one->make_gradient(seed, 0);
    if (extra > 0)
        CALL(gradreg_regularizer_perturb(one->reg, one->buffers()));
    if (extra > 1) {
        one->make_gradient(seed, 1);
        CALL(gradreg_regularizer_mirror(one->reg, one->buffers()));
    }
    if (extra > 0)
        one->make_gradient(seed, extra == 1 ? 1 : 2);
    CALL(gradreg_regularizer_combine(one->reg, one->buffers()));
}

/* ---- graphs ------------------------------------------------------------------------------- */

/* Gradients of the passes, kept on the device: a graph copies them to where passes make them. */
class Kept
{
  public:
    Kept(Stepper *one, uint64_t seed, int passes) : one_(one)
    {
        for (int pass = 0; pass < passes; pass++) {
            one->make_gradient(seed, pass);
            const Bytes bytes = one->bytes(GRADS);
            kept_.push_back(std::make_unique<Memory>(one->side, bytes.size(), 0));
            kept_.back()->write(bytes);
        }
    }

    void copy(int pass) const
    {
        void *const grads = one_->buffers()->grads;
        const Memory &from = *kept_[static_cast<size_t>(pass)];
        if (one_->side.is_cuda)
            CUDA(cudaMemcpyAsync(grads, from.data(), from.size(), cudaMemcpyDeviceToDevice,
                                 one_->side.stream));
        else
            std::memcpy(grads, from.data(), from.size());
    }

  private:
    Stepper *one_;
    std::vector<std::unique_ptr<Memory>> kept_;
};

void cycle(Stepper *one, const Kept &kept, int passes)
{
    kept.copy(0);
    CALL(gradreg_regularizer_perturb(one->reg, one->buffers()));
    if (passes == 3) {
        kept.copy(1);
        CALL(gradreg_regularizer_mirror(one->reg, one->buffers()));
    }
    kept.copy(passes - 1);
    CALL(gradreg_regularizer_combine(one->reg, one->buffers()));
}

void change_settings(Stepper *one, int replay)
{
    CALL(gradreg_regularizer_set_strength(one->reg, 0.1 + 0.2 * replay));
    CALL(gradreg_regularizer_set_epsilon(one->reg, 0.01 * (1 + replay)));
}

void run_graph(unsigned number)
{
    const Variant v = plain_variant(3 * number + 1, false);
    const int passes = v.params.difference == GRADREG_DIFFERENCE_CENTRAL ? 3 : 2;
    const Side host(GRADREG_BACKEND_CPU), device(GRADREG_BACKEND_CUDA);
    Stepper cpu(host, v), cuda(device, v);
    for (Stepper *one : { &cpu, &cuda })
        one->fill(v.seed);
    const Kept host_kept(&cpu, v.seed, passes), device_kept(&cuda, v.seed, passes);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    if (number % 2 == 1) { /* once without a graph before */
        cycle(&cuda, device_kept, passes);
        cycle(&cpu, host_kept, passes);
    }
    device.wait();
    CUDA(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal));
    cycle(&cuda, device_kept, passes);
    CUDA(cudaStreamEndCapture(device.stream, &graph));
    CUDA(cudaGraphInstantiate(&exec, graph, 0));
    for (int replay = 0; replay < 3; replay++) {
        for (Stepper *one : { &cpu, &cuda })
            change_settings(one, replay);
        CUDA(cudaGraphLaunch(exec, device.stream));
        cycle(&cpu, host_kept, passes);
        const std::string when = v.name + ", replay " + std::to_string(replay);
        require_same_buffers(cpu, cuda, when);
        require_same_doubles(cpu.terms(), cuda.terms(), when + ": terms");
    }
    CUDA(cudaGraphExecDestroy(exec));
    CUDA(cudaGraphDestroy(graph));
}

/* ---- several at once ------------------------------------------------------------------------ */

int device_count()
{
    int count = 0;
    CUDA(cudaGetDeviceCount(&count));
    return count;
}

/* Two contexts on two streams, and on two devices where there are two, in turns. */
void run_contexts(unsigned number)
{
    const Variant v = plain_variant(number, number % 2 == 0);
    const Side host(GRADREG_BACKEND_CPU), first(GRADREG_BACKEND_CUDA, 0),
        second(GRADREG_BACKEND_CUDA, device_count() > 1 ? 1 : 0);
    Stepper cpu(host, v), one(first, v), other(second, v);
    for (Stepper *each : { &cpu, &one, &other })
        each->fill(v.seed);
    for (uint64_t step = 0; step < 2; step++)
        for (Stepper *each : { &one, &cpu, &other })
            play(each, v.seed + step);
    CUDA(cudaSetDevice(0)); /* neither needs its device to be the thread's */
    require_same_buffers(cpu, one, v.name + ", first context");
    require_same_buffers(cpu, other, v.name + ", second context");
    require_same_doubles(cpu.terms(), other.terms(), v.name + ": terms");
}

void run_threads(unsigned number)
{
    const Variant v = plain_variant(number + 40, true);
    const Side host(GRADREG_BACKEND_CPU);
    Stepper cpu(host, v);
    std::string failures[2];
    cpu.fill(v.seed);
    for (uint64_t step = 0; step < 2; step++)
        play(&cpu, v.seed + step);
    std::mutex reading;
    const auto work = [&](int which) {
        try {
            const Side device(GRADREG_BACKEND_CUDA);
            Stepper cuda(device, v);
            cuda.fill(v.seed);
            for (uint64_t step = 0; step < 2; step++)
                play(&cuda, v.seed + step);
            const std::lock_guard<std::mutex> lock(reading);
            require_same_buffers(cpu, cuda, v.name + ", a thread");
        } catch (const std::exception &failure) {
            failures[which] = failure.what();
        }
    };
    std::thread other(work, 1);
    work(0);
    other.join();
    require(failures[0].empty() && failures[1].empty(), failures[0] + failures[1]);
}

/* ---- ranks ---------------------------------------------------------------------------------- */

/* Two threads that add up their numbers. */
class World
{
  public:
    struct Rank {
        World *world;
        const Side *side;
        int number;
    };

    static int32_t all_reduce(void *user, double *values, size_t count, void *stream)
    {
        const Rank *rank = static_cast<const Rank *>(user);
        return rank->world->add(*rank, values, count, stream);
    }

  private:
    /* Both put theirs in, and take the sum of both. */
    int32_t add(const Rank &rank, double *values, size_t count, void *stream)
    {
        std::vector<double> mine(count);
        if (stream != static_cast<void *>(rank.side->stream))
            return 1;
        rank.side->read(mine.data(), values, count * sizeof(double));
        std::unique_lock<std::mutex> lock(mutex_);
        given_[rank.number] = mine;
        const unsigned round = round_;
        if (++arrived_ == 2) {
            arrived_ = 0;
            round_++;
            sum_ = given_[0];
            for (size_t i = 0; i < count; i++)
                sum_[i] += given_[1].at(i);
            changed_.notify_all();
        } else {
            changed_.wait(lock, [&] { return round_ != round; });
        }
        const std::vector<double> sum = sum_;
        lock.unlock();
        rank.side->write(values, sum.data(), count * sizeof(double));
        rank.side->wait();
        return 0;
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<double> given_[2], sum_;
    unsigned arrived_ = 0, round_ = 0;
};

struct Result {
    Bytes params, grads;
    std::vector<double> terms;
    std::string failure;
};

/* The flat buffer cut in two, at a place that is nobody's border. */
void play_rank(gradreg_backend backend, const Variant &whole, World *world, int rank,
               Result *result)
{
    try {
        const Side side(backend);
        World::Rank self = { world, &side, rank };
        Variant v = whole;
        const uint64_t cut = whole.end / 3 + 1;
        v.begin = rank == 0 ? 0 : cut;
        v.end = rank == 0 ? cut : whole.end;
        v.params.slice_begin = v.begin;
        v.params.slice_count = v.end - v.begin;
        v.params.parameter_count = whole.end;
        v.params.rank = rank;
        v.params.world = 2;
        v.params.all_reduce.function = World::all_reduce;
        v.params.all_reduce.user = &self;
        Stepper stepper(side, v);
        require(stepper.created == GRADREG_OK, stepper.sentence);
        stepper.fill(v.seed + static_cast<uint64_t>(rank));
        for (uint64_t step = 0; step < 2; step++)
            play(&stepper, v.seed + step);
        result->params = stepper.bytes(PARAMS);
        result->grads = stepper.bytes(GRADS);
        result->terms = stepper.terms();
    } catch (const std::exception &failure) {
        result->failure = failure.what();
    }
}

void play_world(gradreg_backend backend, const Variant &v, Result results[2])
{
    World world;
    std::thread other(play_rank, backend, std::cref(v), &world, 1, &results[1]);
    play_rank(backend, v, &world, 0, &results[0]);
    other.join();
    for (int rank = 0; rank < 2; rank++)
        require(results[rank].failure.empty(),
                "rank " + std::to_string(rank) + ": " + results[rank].failure);
}

void run_ranks(unsigned number)
{
    const Variant v = plain_variant(number + 80, false);
    Result cpu[2], cuda[2];
    play_world(GRADREG_BACKEND_CPU, v, cpu);
    play_world(GRADREG_BACKEND_CUDA, v, cuda);
    for (int rank = 0; rank < 2; rank++) {
        const std::string who = v.name + ", rank " + std::to_string(rank);
        require_same(cpu[rank].params, cuda[rank].params, v.params.param_type,
                     who + ": params");
        require_same(cpu[rank].grads, cuda[rank].grads, v.params.grad_type, who + ": grads");
        require_same_doubles(cpu[rank].terms, cuda[rank].terms, who + ": terms");
    }
}

/* ---- pointers of the wrong kind --------------------------------------------------------------- */

bool reaches_host_memory()
{
    int value = 0;
    CUDA(cudaDeviceGetAttribute(&value, cudaDevAttrPageableMemoryAccess, 0));
    return value != 0;
}

void require_refused(gradreg_status status, const char *word, const char *what)
{
    require(status == GRADREG_ERROR_INVALID_ARGUMENT,
            std::string(what) + " gives " + gradreg_status_name(status));
    const std::string sentence = gradreg_last_error();
    require(sentence.find(word) != std::string::npos,
            std::string(what) + ": the sentence does not name " + word + ": " + sentence);
}

/* One array of each kind, in the memory of `owner`. */
struct Foreign {
    Memory array;
    explicit Foreign(const Side &owner) : array(owner, 4096, 0)
    {
        array.write(Bytes(4096, 0));
    }
    float *f32() const
    {
        return static_cast<float *>(array.data());
    }
};

/* The calls without a regularizer's buffers, each with one array that lies elsewhere. */
void require_places(const Side &side, const Side &other, gradreg_regularizer *reg)
{
    const std::string who = side.is_cuda ? "CUDA" : "CPU";
    const gradreg_probe_params defaults = GRADREG_PROBE_PARAMS_INIT;
    const gradreg_segment none = GRADREG_SEGMENT_INIT;
    const Foreign own(side), more(side), elsewhere(other);
    gradreg_policy_metrics read = GRADREG_POLICY_METRICS_INIT;
    gradreg_probe_params params = defaults;
    gradreg_segment segment = none;
    gradreg_probe *probe = nullptr;
    params.layer_count = 1;
    segment.count = 8;
    CALL(gradreg_probe_create(&probe, side.context, &params));
    const auto refused = [&](gradreg_status status, const char *word, const char *what) {
        require_refused(status, word, (who + ", " + what).c_str());
    };
    refused(gradreg_probe_inject(probe, elsewhere.f32(), GRADREG_TYPE_F32, 1, 8, 0, 0, 0),
            "hidden", "probe_inject");
    refused(gradreg_probe_observe(probe, elsewhere.f32(), GRADREG_TYPE_F32, 1, 8, 0, 0, 0, 0),
            "logits", "probe_observe");
    CALL(gradreg_probe_destroy(probe));
    float *const rows[3][3] = { { elsewhere.f32(), own.f32(), more.f32() },
                                { own.f32(), elsewhere.f32(), more.f32() },
                                { own.f32(), more.f32(), elsewhere.f32() } };
    static const char *const divergence[] = { "out", "p", "q" };
    static const char *const delta[] = { "norms", "before", "after" };
    for (int k = 0; k < 3; k++) {
        float *const *at = rows[k];
        refused(gradreg_js_divergence(side.context, at[0], at[1], at[2], 2, 4), divergence[k],
                "js_divergence");
        refused(gradreg_weight_delta(side.context, reinterpret_cast<double *>(at[0]), at[1],
                                     at[2], GRADREG_TYPE_F32, &segment, 1),
                delta[k], "weight_delta");
    }
    refused(gradreg_policy_metrics_read(
                side.context, &read,
                reinterpret_cast<const gradreg_policy_metrics *>(elsewhere.f32())),
            "metrics", "policy_metrics_read");
    refused(gradreg_regularizer_terms_enqueue(reg, reinterpret_cast<double *>(elsewhere.f32())),
            "out", "terms_enqueue");
}

void run_pointers(unsigned)
{
    const Variant v = plain_variant(0, false);
    const Side host(GRADREG_BACKEND_CPU), device(GRADREG_BACKEND_CUDA);
    Stepper cpu(host, v), cuda(device, v);
    cpu.fill(1);
    cuda.fill(1);
    cpu.make_gradient(1, 0);
    cuda.make_gradient(1, 0);
    gradreg_buffers mixed = *cuda.buffers();
    mixed.params = cpu.buffers()->params;
    if (!reaches_host_memory())
        require_refused(gradreg_regularizer_perturb(cuda.reg, &mixed), "params",
                        "host memory for a CUDA context");
    require_places(host, device, cpu.reg);
    if (!reaches_host_memory())
        require_places(device, host, cuda.reg);
    if (device_count() > 1) {
        const Side elsewhere(GRADREG_BACKEND_CUDA, 1);
        Stepper other(elsewhere, v);
        other.fill(1);
        mixed = *cuda.buffers();
        mixed.grads = other.buffers()->grads;
        require_refused(gradreg_regularizer_perturb(cuda.reg, &mixed), "grads",
                        "another device's memory");
    }
    require_same_buffers(cpu, cuda, "after the refusals");
    CALL(gradreg_regularizer_perturb(cpu.reg, cpu.buffers()));
    CALL(gradreg_regularizer_perturb(cuda.reg, cuda.buffers()));
    require_same_buffers(cpu, cuda, "after a perturb all the same");
    CALL(gradreg_regularizer_cancel(cpu.reg, cpu.buffers()));
    CALL(gradreg_regularizer_cancel(cuda.reg, cuda.buffers()));
}

} // namespace

std::vector<Case> session_cases()
{
    return { { "graphs", run_graph, 80, 8 },
             { "contexts", run_contexts, 60, 4 },
             { "threads", run_threads, 20, 2 },
             { "ranks", run_ranks, 60, 6 },
             { "pointers", run_pointers, 1, 1 } };
}

} // namespace compare
