/* gradreg.hpp - libgradreg for C++17: copy this header next to gradreg.h, link the library.
 * SPDX-License-Identifier: MIT
 *
 *      context ──► regularizer ──► step            handles, move-only, closed by their destructors
 *      buffers                                     what a call works on, with types and lengths
 *      regularize(regularizer, buffers, backward)  one whole step with the caller's backward pass
 *      logprobs_forward, policy_loss, logprobs_backward, advantages    the losses
 *      policy_logits, linear_logprobs_forward, linear_logprobs_backward    the same in fewer visits
 *      probe, distinct_ngrams, moving_average, js_divergence, weight_delta    what to watch
 *
 * What gradreg.h says about a function holds here. Beyond it:
 *  - A failure is an exception derived from gradreg::error, whose what() is the library's sentence.
 *    Its class says what to do: usage_error (the calling code is wrong), machine_error (retry, fall
 *    back or stop), numbers_error (skip this step).
 *  - A regularizer keeps its context open: they may be destroyed in any order.
 *  - A step that an exception leaves is cancelled: theta is clean again.
 *  - Callbacks may throw: what all_reduce throws comes out of the call that needed it.
 *  - What returns numbers wants a context of the CPU and says so. On a device use the form that is
 *    given its results' memory: spans are of backend memory there, and the call is queued.
 *  - Settings and reports are the structs of gradreg.h themselves. */
#ifndef GRADREG_HPP
#define GRADREG_HPP

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "gradreg.h"

namespace gradreg
{

/* ---- errors --------------------------------------------------------------------------- */

class error : public std::runtime_error
{
  public:
    error(gradreg_status status, const std::string &sentence)
        : std::runtime_error(sentence), status_(status)
    {
    }
    gradreg_status status() const noexcept
    {
        return status_;
    }
    const char *status_name() const noexcept
    {
        return gradreg_status_name(status_);
    }

  private:
    gradreg_status status_;
};

/** -1 .. -19: the calling code is wrong. */
struct usage_error : error {
    using error::error;
};
/** -20 .. -39: memory, device, communication. */
struct machine_error : error {
    using error::error;
};
/** -40 .. -59: a value that must be finite is not. */
struct numbers_error : error {
    using error::error;
};

[[noreturn]] inline void raise(gradreg_status status, const std::string &sentence)
{
    if (status <= -40)
        throw numbers_error(status, sentence);
    if (status <= -20)
        throw machine_error(status, sentence);
    throw usage_error(status, sentence);
}

inline void check(gradreg_status status)
{
    if (status != GRADREG_OK)
        raise(status, gradreg_last_error());
}

/* ---- lengths and types ---------------------------------------------------------------- */

/** A view of `size` elements; made from anything that has data() and size(). */
template <class T> class span
{
  public:
    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size)
    {
    }
    template <std::size_t N> constexpr span(T (&array)[N]) noexcept : data_(array), size_(N)
    {
    }
    template <class Container, class = std::enable_if_t<std::is_convertible_v<
                                   decltype(std::declval<Container &>().data()), T *>>>
    constexpr span(Container &&container) : data_(container.data()), size_(container.size())
    {
    }
    constexpr T *data() const noexcept
    {
        return data_;
    }
    constexpr std::size_t size() const noexcept
    {
        return size_;
    }
    constexpr bool empty() const noexcept
    {
        return size_ == 0;
    }
    constexpr T *begin() const noexcept
    {
        return data_;
    }
    constexpr T *end() const noexcept
    {
        return data_ + size_;
    }
    constexpr T &operator[](std::size_t i) const
    {
        return data_[i];
    }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/** 16-bit elements as bits. A type of your own: specialise element<> for it. */
struct bf16 {
    std::uint16_t bits;
};
struct f16 {
    std::uint16_t bits;
};

template <class T> struct element;
template <> struct element<float> {
    static constexpr gradreg_type type = GRADREG_TYPE_F32;
};
template <> struct element<bf16> {
    static constexpr gradreg_type type = GRADREG_TYPE_BF16;
};
template <> struct element<f16> {
    static constexpr gradreg_type type = GRADREG_TYPE_F16;
};

inline const char *type_name(gradreg_type type) noexcept
{
    return type == GRADREG_TYPE_BF16 ? "bf16" : type == GRADREG_TYPE_F16 ? "f16" : "f32";
}

/* ---- context -------------------------------------------------------------------------- */

/** Where remarks go. */
using log_function = std::function<void(gradreg_log_level, const char *message)>;

class context
{
  public:
    /** Any backend and device of `params`; the stream is the backend's, nullptr for its default. */
    explicit context(const gradreg_context_params &params = GRADREG_CONTEXT_PARAMS_INIT,
                     log_function log = nullptr, void *stream = nullptr)
    {
        gradreg_context_params wanted = params;
        auto held = std::make_shared<holder>();
        if (log) {
            held->log = std::move(log);
            wanted.log.function = &holder::say;
            wanted.log.user = held.get();
        }
        check(gradreg_context_create(&held->handle, &wanted));
        if (stream != nullptr)
            check(gradreg_context_set_stream(held->handle, stream));
        holder_ = std::move(held);
    }
    context(context &&) noexcept = default;
    context &operator=(context &&) noexcept = default;

    void set_stream(void *stream)
    {
        check(gradreg_context_set_stream(get(), stream));
    }
    void synchronize()
    {
        check(gradreg_context_synchronize(get()));
    }
    void reserve(std::size_t bytes)
    {
        check(gradreg_context_reserve(get(), bytes));
    }
    struct gradreg_context_info info() const
    {
        struct gradreg_context_info out = GRADREG_CONTEXT_INFO_INIT;
        check(gradreg_context_info(get(), &out));
        return out;
    }
    /** For calls that this header has no form of; nullptr after a move. */
    gradreg_context *get() const noexcept
    {
        return holder_ ? holder_->handle : nullptr;
    }

  private:
    friend class regularizer;
    friend class probe;

    struct holder {
        gradreg_context *handle = nullptr;
        log_function log;

        holder() = default;
        holder(const holder &) = delete;
        ~holder()
        {
            gradreg_context_destroy(handle);
        }
        static void say(void *user, gradreg_log_level level, const char *message)
        {
            try {
                static_cast<holder *>(user)->log(level, message);
            } catch (...) {
                /* A remark that cannot be taken is lost, as without a log. */
            }
        }
    };
    std::shared_ptr<holder> holder_;
};

/* What a call checks before the library sees addresses only. */
namespace detail
{

inline void need(const char *who, const char *name, std::size_t have, std::size_t want)
{
    if (have != want)
        raise(GRADREG_ERROR_INVALID_ARGUMENT,
              std::string("gradreg::") + who + ": " + name + " has " + std::to_string(have) +
                  " elements, expected " + std::to_string(want));
}

/* stride 0: columns. What no memory holds is SIZE_MAX. */
inline std::size_t elements(std::size_t rows, std::size_t columns, std::size_t stride)
{
    const std::size_t step = stride == 0 ? columns : stride;
    if (rows == 0)
        return 0;
    if (step != 0 && rows - 1 > (SIZE_MAX - columns) / step)
        return SIZE_MAX;
    return (rows - 1) * step + columns;
}

inline void need_rows_of(const char *who, const char *name, std::size_t have, std::size_t want)
{
    if (have < want)
        raise(GRADREG_ERROR_INVALID_ARGUMENT,
              std::string("gradreg::") + who + ": " + name + " has " + std::to_string(have) +
                  " elements, the rows need " + std::to_string(want));
}

/* Returned numbers lie on the host. */
inline void need_host(const context &where, const char *who)
{
    if (where.get() != nullptr && where.info().backend != GRADREG_BACKEND_CPU)
        raise(GRADREG_ERROR_UNSUPPORTED,
              std::string("gradreg::") + who +
                  ": results of a device lie there, call the form that is given their memory");
}

} // namespace detail

/* ---- table and schedule --------------------------------------------------------------- */

/** A segment with layer and role from the parameter's name. */
inline gradreg_segment segment(const std::string &parameter_name, std::uint64_t offset,
                               std::uint64_t count)
{
    gradreg_segment out = GRADREG_SEGMENT_INIT;
    check(gradreg_segment_classify(&out.layer, &out.role, parameter_name.c_str()));
    out.offset = offset;
    out.count = count;
    return out;
}

inline std::vector<double> multipliers(const gradreg_schedule &schedule, int layer_count)
{
    std::vector<double> out(layer_count > 0 ? static_cast<std::size_t>(layer_count) : 1);
    check(gradreg_schedule_multipliers(out.data(), &schedule, layer_count));
    return out;
}

/* ---- buffers -------------------------------------------------------------------------- */

/** One tensor where it lies: for trainers without one flat buffer. */
struct tensor {
    void *params = nullptr;
    void *grads = nullptr; /* nullptr: no gradient in this pass */
    std::size_t count = 0;
    gradreg_type param_type = GRADREG_TYPE_F32;
    gradreg_type grad_type = GRADREG_TYPE_F32;

    template <class P, class G> static tensor of(span<P> params, span<G> grads)
    {
        if (!grads.empty() && grads.size() != params.size())
            raise(GRADREG_ERROR_INVALID_ARGUMENT,
                  "gradreg::tensor: grads has " + std::to_string(grads.size()) +
                      " elements, params has " + std::to_string(params.size()));
        return { params.data(), grads.data(), params.size(), element<P>::type,
                 element<G>::type };
    }
};

/** What a step works on. The memory is the caller's and stays where it is within a step. */
class buffers
{
  public:
    template <class P, class G> static buffers flat(span<P> params, span<G> grads)
    {
        if (grads.size() != params.size())
            raise(GRADREG_ERROR_INVALID_ARGUMENT,
                  "gradreg::buffers: grads has " + std::to_string(grads.size()) +
                      " elements, params has " + std::to_string(params.size()));
        buffers out;
        out.raw.params = params.data();
        out.raw.grads = grads.data();
        out.raw.count = params.size();
        out.param_type_ = element<P>::type;
        out.grad_type_ = element<G>::type;
        return out;
    }
    template <class P, class G> static buffers flat(P &&params, G &&grads)
    {
        return flat(span<std::remove_reference_t<decltype(*params.data())>>(params),
                    span<std::remove_reference_t<decltype(*grads.data())>>(grads));
    }
    /** One entry per segment, in the table's order. */
    static buffers scattered(span<const tensor> tensors)
    {
        buffers out;
        out.tensors_.assign(tensors.begin(), tensors.end());
        for (const tensor &t : tensors) {
            out.params_.push_back(t.params);
            out.grads_.push_back(t.grads);
        }
        out.raw.param_pointers = out.params_.data();
        out.raw.grad_pointers = out.grads_.data();
        return out;
    }
    /** A gradient that came, moved or went between two passes; nullptr when there is none. */
    void set_gradient(std::size_t segment, void *grads)
    {
        grads_.at(segment) = grads;
    }

    buffers(buffers &&) noexcept = default;
    buffers &operator=(buffers &&) noexcept = default;
    buffers(const buffers &) = delete;

    /** The other fields: grad_scale, found_inf, direction, ... */
    gradreg_buffers raw = GRADREG_BUFFERS_INIT;

  private:
    friend class regularizer;
    buffers() = default;

    gradreg_type param_type_ = 0, grad_type_ = 0; /* of flat ones */
    std::vector<tensor> tensors_;
    std::vector<void *> params_, grads_;
};

/* ---- regularizer ---------------------------------------------------------------------- */

/** Sum over ranks, in place; `values` is in the context's memory. */
using all_reduce_function = std::function<void(span<double> values, void *stream)>;

struct report {
    gradreg_terms total;
    std::vector<gradreg_terms> layers;
};

class regularizer
{
  public:
    regularizer(const context &where, span<const gradreg_segment> segments,
                const gradreg_regularizer_params &params,
                all_reduce_function all_reduce = nullptr)
        : context_(where.holder_), params_(params), segments_(segments.begin(), segments.end())
    {
        if (all_reduce) {
            hook_ = std::make_unique<hook>();
            hook_->function = std::move(all_reduce);
            params_.all_reduce.function = &hook::call;
            params_.all_reduce.user = hook_.get();
        }
        check(gradreg_regularizer_create(&handle_, where.get(), segments_.data(),
                                         segments_.size(), &params_));
    }
    regularizer(regularizer &&other) noexcept
        : context_(std::move(other.context_)), hook_(std::move(other.hook_)),
          params_(other.params_), segments_(std::move(other.segments_)),
          handle_(std::exchange(other.handle_, nullptr))
    {
    }
    regularizer &operator=(regularizer &&other) noexcept
    {
        if (this != &other) {
            gradreg_regularizer_destroy(handle_);
            context_ = std::move(other.context_);
            hook_ = std::move(other.hook_);
            params_ = other.params_;
            segments_ = std::move(other.segments_);
            handle_ = std::exchange(other.handle_, nullptr);
        }
        return *this;
    }
    ~regularizer()
    {
        gradreg_regularizer_destroy(handle_);
    }

    static std::size_t workspace_bytes(const context &where,
                                       span<const gradreg_segment> segments,
                                       const gradreg_regularizer_params &params)
    {
        std::size_t out = 0;
        check(gradreg_regularizer_workspace_bytes(&out, where.get(), segments.data(),
                                                  segments.size(), &params));
        return out;
    }

    void inject_noise(buffers &b)
    {
        call(&gradreg_regularizer_inject_noise, b);
    }
    void remove_noise(buffers &b)
    {
        call(&gradreg_regularizer_remove_noise, b);
    }
    void perturb(buffers &b)
    {
        call(&gradreg_regularizer_perturb, b);
    }
    void mirror(buffers &b)
    {
        call(&gradreg_regularizer_mirror, b);
    }
    void combine(buffers &b)
    {
        call(&gradreg_regularizer_combine, b);
    }
    void fallback(buffers &b)
    {
        call(&gradreg_regularizer_fallback, b);
    }
    void cancel(buffers &b)
    {
        call(&gradreg_regularizer_cancel, b);
    }

    /** Whether what it works on is the host's memory: a context of the CPU. */
    bool on_host() const
    {
        struct gradreg_context_info out = GRADREG_CONTEXT_INFO_INIT;
        check(gradreg_context_info(context_ ? context_->handle : nullptr, &out));
        return out.backend == GRADREG_BACKEND_CPU;
    }
    /** Backward passes wanted beyond the first: 0, 1 or 2. */
    int extra_passes() const
    {
        std::int32_t out = 0;
        check(gradreg_regularizer_extra_passes(handle_, &out));
        return out;
    }
    int first_needed_layer() const
    {
        std::int32_t out = 0;
        check(gradreg_regularizer_first_needed_layer(handle_, &out));
        return out;
    }
    void set_strength(double strength)
    {
        check(gradreg_regularizer_set_strength(handle_, strength));
    }
    void set_epsilon(double epsilon)
    {
        check(gradreg_regularizer_set_epsilon(handle_, epsilon));
    }
    void set_step(std::uint64_t step)
    {
        check(gradreg_regularizer_set_step(handle_, step));
    }
    void observe_layers(span<const double> signals)
    {
        check(gradreg_regularizer_observe_layers(handle_, signals.data(), signals.size()));
    }
    /** Of the step just combined; in the context's memory. */
    void observe_losses(const float *first, const float *second)
    {
        check(gradreg_regularizer_observe_losses(handle_, first, second));
    }
    double suggest_epsilon(buffers &b, double target_cosine)
    {
        double out = 0;
        fit(b);
        result(gradreg_regularizer_suggest_epsilon(handle_, &out, &b.raw, target_cosine));
        return out;
    }
    report terms() const
    {
        const auto rows = handle_ ? static_cast<std::size_t>(params_.layer_count) : 0;
        report out{ GRADREG_TERMS_INIT, std::vector<gradreg_terms>(rows, GRADREG_TERMS_INIT) };
        check(gradreg_regularizer_terms(handle_, &out.total, out.layers.data(), rows));
        return out;
    }
    std::vector<std::uint8_t> state() const
    {
        std::size_t bytes = 0;
        check(gradreg_regularizer_state_bytes(handle_, &bytes));
        std::vector<std::uint8_t> out(bytes);
        check(gradreg_regularizer_state_save(handle_, out.data(), bytes));
        return out;
    }
    void load_state(span<const std::uint8_t> state)
    {
        check(gradreg_regularizer_state_load(handle_, state.data(), state.size()));
    }

    const gradreg_regularizer_params &params() const noexcept
    {
        return params_;
    }
    gradreg_regularizer *get() const noexcept
    {
        return handle_;
    }

  private:
    struct hook {
        all_reduce_function function;
        std::exception_ptr thrown;

        static std::int32_t call(void *user, double *values, std::size_t count, void *stream)
        {
            hook *self = static_cast<hook *>(user);
            try {
                self->function(span<double>(values, count), stream);
                return 0;
            } catch (...) {
                self->thrown = std::current_exception();
                return 1;
            }
        }
    };

    void result(gradreg_status status)
    {
        if (hook_ && hook_->thrown)
            std::rethrow_exception(std::exchange(hook_->thrown, nullptr));
        check(status);
    }
    void call(gradreg_status (*function)(gradreg_regularizer *, gradreg_buffers *), buffers &b)
    {
        fit(b);
        result(function(handle_, &b.raw));
    }

    static void same_type(const std::string &what, gradreg_type have, gradreg_type want)
    {
        if (have != want)
            raise(GRADREG_ERROR_INVALID_ARGUMENT, "gradreg::regularizer: " + what + " are " +
                                                      type_name(have) + ", the table says " +
                                                      type_name(want));
    }
    /* Whether types and lengths are the table's; the library sees addresses only. */
    void fit(const buffers &b) const
    {
        if (handle_ == nullptr)
            return; /* the library says so */
        if (b.param_type_ != 0)
            for (const gradreg_segment &s : segments_) {
                same_type("params", b.param_type_,
                          s.param_type ? s.param_type : params_.param_type);
                same_type("grads", b.grad_type_, s.grad_type ? s.grad_type : params_.grad_type);
            }
        if (b.tensors_.empty())
            return;
        if (b.tensors_.size() != segments_.size())
            raise(GRADREG_ERROR_INVALID_ARGUMENT,
                  "gradreg::regularizer: " + std::to_string(b.tensors_.size()) +
                      " tensors, the table has " + std::to_string(segments_.size()) +
                      " segments");
        for (std::size_t i = 0; i < segments_.size(); i++)
            fit(i, b.tensors_[i], segments_[i]);
    }
    void fit(std::size_t i, const tensor &t, const gradreg_segment &s) const
    {
        const std::string name = "tensor " + std::to_string(i);
        const std::uint64_t here =
            s.shard_begin == 0 && s.shard_count == 0 ? s.count : s.shard_count;
        if (t.count != here)
            raise(GRADREG_ERROR_INVALID_ARGUMENT,
                  "gradreg::regularizer: " + name + " has " + std::to_string(t.count) +
                      " elements, its segment " + std::to_string(here));
        same_type(name + ": params", t.param_type,
                  s.param_type ? s.param_type : params_.param_type);
        same_type(name + ": grads", t.grad_type, s.grad_type ? s.grad_type : params_.grad_type);
    }

    std::shared_ptr<context::holder> context_;
    std::unique_ptr<hook> hook_;
    gradreg_regularizer_params params_;
    std::vector<gradreg_segment> segments_;
    gradreg_regularizer *handle_ = nullptr;
};

/* ---- a step --------------------------------------------------------------------------- */

/** One step in a scope. Left before combine() or fallback(), by an exception or a return, it is
 *  cancelled: theta is clean to the last bit and no step is counted. */
class step
{
  public:
    step(regularizer &r, buffers &b) : regularizer_(r), buffers_(b)
    {
    }
    step(const step &) = delete;
    step &operator=(const step &) = delete;
    ~step()
    {
        if (open_)
            gradreg_regularizer_cancel(regularizer_.get(), &buffers_.raw);
    }
    void inject_noise()
    {
        regularizer_.inject_noise(buffers_);
    }
    void perturb()
    {
        regularizer_.perturb(buffers_);
    }
    void mirror()
    {
        regularizer_.mirror(buffers_);
    }
    void combine()
    {
        regularizer_.combine(buffers_);
        open_ = false;
    }
    void fallback()
    {
        regularizer_.fallback(buffers_);
        open_ = false;
    }

  private:
    regularizer &regularizer_;
    buffers &buffers_;
    bool open_ = true;
};

/** A whole step. `backward` fills the gradients at the weights as they are then and returns the
 *  loss; it is called once and then as often as the regularizer wants, each time for the same
 *  function: same batch, same old log-probs. On a device the losses are not observed, since they are
 *  numbers of the host: call observe_losses() with its memory. Returns the first loss. */
template <class Backward> float regularize(regularizer &r, buffers &b, Backward &&backward)
{
    step open(r, b);
    const gradreg_noise_rule rule = r.params().noise.rule;
    if (rule != 0 && rule != GRADREG_NOISE_OFF)
        open.inject_noise();
    const float first = backward();
    const int passes = r.extra_passes();
    float second = first;
    if (passes > 0) {
        open.perturb();
        second = backward();
    }
    if (passes > 1) {
        open.mirror();
        backward();
    }
    open.combine();
    if (passes > 0 && r.on_host())
        r.observe_losses(&first, &second);
    return first;
}

/* ---- losses --------------------------------------------------------------------------- */

inline gradreg_policy policy_preset(const std::string &name)
{
    gradreg_policy out = GRADREG_POLICY_INIT;
    check(gradreg_policy_preset(&out, name.c_str()));
    return out;
}

/** gradreg_policy_batch with lengths; what stays empty is not given. */
struct policy_batch {
    std::size_t sequences = 0;
    std::size_t length = 0; /* padded rows; with row_offsets ignored */
    span<const std::int64_t> row_offsets = {};
    span<const float> logp = {}, old_logp = {}, ref_logp = {}, rollout_logp = {};
    span<const float> token_weight = {}, entropy = {};
    span<const std::uint8_t> mask = {};
    span<const float> advantages = {}; /* one a sequence, or one a token */
    span<const std::int32_t> group = {};

    gradreg_policy_batch raw(std::size_t dlogp, std::size_t dentropy) const
    {
        const std::size_t tokens = count();
        need("logp", logp.size(), tokens, false);
        need("dlogp", dlogp, tokens, false);
        need("dentropy", dentropy, tokens, true);
        return raw(tokens);
    }
    /** Of so many tokens; for policy_logits(), logp and entropy stay empty. */
    gradreg_policy_batch raw(std::size_t tokens) const
    {
        need("logp", logp.size(), tokens, true);
        need("old_logp", old_logp.size(), tokens, true);
        need("ref_logp", ref_logp.size(), tokens, true);
        need("rollout_logp", rollout_logp.size(), tokens, true);
        need("token_weight", token_weight.size(), tokens, true);
        need("entropy", entropy.size(), tokens, true);
        need("mask", mask.size(), tokens, true);
        need("group", group.size(), sequences, true);
        const bool per_token = advantages.size() == tokens && tokens != sequences;
        need("advantages", advantages.size(), per_token ? tokens : sequences, false);
        gradreg_policy_batch out = GRADREG_POLICY_BATCH_INIT;
        out.advantages_per_token = per_token;
        out.sequences = sequences;
        out.length = length;
        out.row_offsets = row_offsets.data();
        out.logp = logp.data();
        out.old_logp = old_logp.data();
        out.ref_logp = ref_logp.data();
        out.rollout_logp = rollout_logp.data();
        out.token_weight = token_weight.data();
        out.entropy = entropy.data();
        out.mask = mask.data();
        out.advantages = advantages.data();
        out.group = group.data();
        return out;
    }

    std::size_t count() const
    {
        if (row_offsets.empty())
            return sequences * length;
        need("row_offsets", row_offsets.size(), sequences + 1, false);
        return static_cast<std::size_t>(row_offsets[sequences]);
    }

  private:
    static void need(const char *name, std::size_t have, std::size_t want, bool may_be_empty)
    {
        if (have != want && !(may_be_empty && have == 0))
            raise(GRADREG_ERROR_INVALID_ARGUMENT,
                  std::string("gradreg::policy_batch: ") + name + " has " +
                      std::to_string(have) + " elements, expected " + std::to_string(want));
    }
};

/** Loss and gradient on any context. `metrics` is in the context's memory with struct_size set, or
 *  nullptr; read_metrics() fetches it. */
inline void policy_loss(const context &where, gradreg_policy_metrics *metrics,
                        const policy_batch &batch, const gradreg_policy &policy,
                        span<float> dlogp, span<float> dentropy = {})
{
    const gradreg_policy_batch raw = batch.raw(dlogp.size(), dentropy.size());
    gradreg_policy_gradient out = GRADREG_POLICY_GRADIENT_INIT;
    out.dlogp = dlogp.data();
    out.dentropy = dentropy.data();
    check(gradreg_policy_loss(where.get(), metrics, &out, &raw, &policy));
}

/** Loss, gradient and metrics, on a context of the CPU. */
inline gradreg_policy_metrics policy_loss(const context &where, const policy_batch &batch,
                                          const gradreg_policy &policy, span<float> dlogp,
                                          span<float> dentropy = {})
{
    detail::need_host(where, "policy_loss");
    gradreg_policy_metrics metrics = GRADREG_POLICY_METRICS_INIT;
    policy_loss(where, &metrics, batch, policy, dlogp, dentropy);
    return metrics;
}

/** From the context's memory to the host; waits. */
inline gradreg_policy_metrics read_metrics(const context &where,
                                           const gradreg_policy_metrics *metrics)
{
    gradreg_policy_metrics out = GRADREG_POLICY_METRICS_INIT;
    check(gradreg_policy_metrics_read(where.get(), &out, metrics));
    return out;
}

/** Advantages of rewards, group by group; on any context. */
inline void advantages(const context &where, span<float> out, span<const float> rewards,
                       std::size_t group_size,
                       const gradreg_advantage_params &params = GRADREG_ADVANTAGE_PARAMS_INIT)
{
    detail::need("advantages", "out", out.size(), rewards.size());
    check(gradreg_advantages(where.get(), out.data(), rewards.data(), rewards.size(),
                             group_size, &params));
}

/** The same on a context of the CPU. */
inline std::vector<float>
advantages(const context &where, span<const float> rewards, std::size_t group_size,
           const gradreg_advantage_params &params = GRADREG_ADVANTAGE_PARAMS_INIT)
{
    detail::need_host(where, "advantages");
    std::vector<float> out(rewards.size());
    advantages(where, out, rewards, group_size, params);
    return out;
}

/* ---- log-probs ------------------------------------------------------------------------ */

/** One number a row each. */
struct log_probs {
    std::vector<float> logp, entropy, log_sum_exp;
};

/** The same in the caller's memory; what stays empty is not wanted, logp must be. */
struct log_probs_view {
    span<float> logp = {}, entropy = {}, log_sum_exp = {};
};

/** rows x vocabulary logits, row_stride elements apart (0: vocabulary). */
struct logits_shape {
    std::size_t rows = 0, vocabulary = 0, row_stride = 0;
    float temperature = 1.0f;

    template <class T> gradreg_logits_params raw() const
    {
        gradreg_logits_params out = GRADREG_LOGITS_PARAMS_INIT;
        out.type = element<T>::type;
        out.rows = rows;
        out.vocabulary = vocabulary;
        out.row_stride = row_stride;
        out.temperature = temperature;
        return out;
    }
    void need_matrix(const char *name, std::size_t have) const
    {
        detail::need_rows_of("logits_shape", name, have,
                             detail::elements(rows, vocabulary, row_stride));
    }
    void need_rows(const char *name, std::size_t have) const
    {
        detail::need("logits_shape", name, have, rows);
    }
};

/** hidden states rows x width, head weight vocabulary x width; a stride of 0 is width. */
struct linear_shape {
    std::size_t rows = 0, width = 0, vocabulary = 0;
    std::size_t hidden_stride = 0, weight_stride = 0;
    std::size_t chunk_rows = 0;       /* 0: chosen by the library */
    bool add_weight_gradient = false; /* dweight += */
    float temperature = 1.0f;

    template <class T, class Gradient = T> gradreg_linear_params raw() const
    {
        gradreg_linear_params out = GRADREG_LINEAR_PARAMS_INIT;
        out.type = element<T>::type;
        out.gradient_type = element<Gradient>::type;
        out.add_weight_gradient = add_weight_gradient;
        out.rows = rows;
        out.width = width;
        out.vocabulary = vocabulary;
        out.hidden_stride = hidden_stride;
        out.weight_stride = weight_stride;
        out.chunk_rows = chunk_rows;
        out.temperature = temperature;
        return out;
    }
    void need_hidden(const char *name, std::size_t have) const
    {
        detail::need_rows_of("linear_shape", name, have,
                             detail::elements(rows, width, hidden_stride));
    }
    void need_weight(const char *name, std::size_t have) const
    {
        detail::need_rows_of("linear_shape", name, have,
                             detail::elements(vocabulary, width, weight_stride));
    }
    void need_rows(const char *name, std::size_t have) const
    {
        detail::need("linear_shape", name, have, rows);
    }
};

namespace detail
{

template <class Shape>
void need_forward(const Shape &shape, const log_probs_view &out, std::size_t targets)
{
    shape.need_rows("targets", targets);
    shape.need_rows("logp", out.logp.size());
    if (!out.entropy.empty())
        shape.need_rows("entropy", out.entropy.size());
    if (!out.log_sum_exp.empty())
        shape.need_rows("log_sum_exp", out.log_sum_exp.size());
}

template <class Shape, class Forward>
void need_backward(const Shape &shape, const Forward &forward, std::size_t targets,
                   std::size_t dlogp, std::size_t dentropy)
{
    shape.need_rows("targets", targets);
    shape.need_rows("log_sum_exp", forward.log_sum_exp.size());
    if (forward.entropy.size() != 0 || dentropy != 0)
        shape.need_rows("entropy", forward.entropy.size());
    shape.need_rows("dlogp", dlogp);
    if (dentropy != 0)
        shape.need_rows("dentropy", dentropy);
}

inline log_probs rows_of(std::size_t rows)
{
    return { std::vector<float>(rows), std::vector<float>(rows), std::vector<float>(rows) };
}

} // namespace detail

/** Log-prob of each row's target, entropy, log of the sum of exponentials; on any context. */
template <class T>
void logprobs_forward(const context &where, const log_probs_view &out, span<T> logits,
                      span<const std::int32_t> targets, const logits_shape &shape)
{
    shape.need_matrix("logits", logits.size());
    detail::need_forward(shape, out, targets.size());
    const gradreg_logits_params raw = shape.raw<std::remove_const_t<T>>();
    check(gradreg_logprobs_forward(where.get(), out.logp.data(), out.entropy.data(),
                                   out.log_sum_exp.data(), logits.data(), targets.data(),
                                   &raw));
}

/** The same on a context of the CPU. */
template <class T>
log_probs logprobs_forward(const context &where, span<T> logits,
                           span<const std::int32_t> targets, const logits_shape &shape)
{
    detail::need_host(where, "logprobs_forward");
    shape.need_matrix("logits", logits.size());
    log_probs out = detail::rows_of(shape.rows);
    logprobs_forward(where, { out.logp, out.entropy, out.log_sum_exp }, logits, targets, shape);
    return out;
}

/** The gradient with respect to the logits; dlogits may be the logits themselves. `forward` is a
 *  log_probs or a log_probs_view. */
template <class T, class L, class Forward = log_probs>
void logprobs_backward(const context &where, span<T> dlogits, span<L> logits,
                       span<const std::int32_t> targets, const Forward &forward,
                       span<const float> dlogp, const logits_shape &shape,
                       span<const float> dentropy = {})
{
    static_assert(std::is_same_v<T, std::remove_const_t<L>>, "one element type");
    shape.need_matrix("dlogits", dlogits.size());
    shape.need_matrix("logits", logits.size());
    detail::need_backward(shape, forward, targets.size(), dlogp.size(), dentropy.size());
    const gradreg_logits_params raw = shape.raw<T>();
    check(gradreg_logprobs_backward(where.get(), dlogits.data(), logits.data(), targets.data(),
                                    forward.log_sum_exp.data(), forward.entropy.data(),
                                    dlogp.data(), dentropy.data(), &raw));
}

/** For context::reserve(). T: the logits' elements. */
template <class T>
std::size_t policy_logits_scratch_bytes(std::size_t sequences, const logits_shape &shape)
{
    std::size_t out = 0;
    const gradreg_logits_params raw = shape.raw<T>();
    check(gradreg_policy_logits_scratch_bytes(&out, sequences, &raw));
    return out;
}

/** Policy loss straight from logits, one visit a row; on any context. `metrics` as for policy_loss();
 *  dlogits may be the logits; logp and entropy of the batch stay empty. */
template <class T, class L>
void policy_logits(const context &where, gradreg_policy_metrics *metrics, span<T> dlogits,
                   span<L> logits, span<const std::int32_t> targets, const policy_batch &batch,
                   const gradreg_policy &policy, const logits_shape &shape,
                   span<float> logp = {}, span<float> entropy = {})
{
    static_assert(std::is_same_v<T, std::remove_const_t<L>>, "one element type");
    shape.need_matrix("dlogits", dlogits.size());
    shape.need_matrix("logits", logits.size());
    shape.need_rows("targets", targets.size());
    if (!logp.empty())
        shape.need_rows("logp", logp.size());
    if (!entropy.empty())
        shape.need_rows("entropy", entropy.size());
    detail::need("policy_logits", "batch", batch.count(), shape.rows);
    const gradreg_policy_batch raw_batch = batch.raw(shape.rows);
    const gradreg_logits_params raw = shape.raw<T>();
    check(gradreg_policy_logits(where.get(), metrics, dlogits.data(), logp.data(),
                                entropy.data(), logits.data(), targets.data(), &raw_batch,
                                &policy, &raw));
}

/** The same with the metrics, on a context of the CPU. */
template <class T, class L>
gradreg_policy_metrics policy_logits(const context &where, span<T> dlogits, span<L> logits,
                                     span<const std::int32_t> targets,
                                     const policy_batch &batch, const gradreg_policy &policy,
                                     const logits_shape &shape, span<float> logp = {},
                                     span<float> entropy = {})
{
    detail::need_host(where, "policy_logits");
    gradreg_policy_metrics metrics = GRADREG_POLICY_METRICS_INIT;
    policy_logits(where, &metrics, dlogits, logits, targets, batch, policy, shape, logp,
                  entropy);
    return metrics;
}

/** For context::reserve(). T: the elements of hidden and weight. */
template <class T> std::size_t linear_logprobs_scratch_bytes(const linear_shape &shape)
{
    std::size_t out = 0;
    const gradreg_linear_params raw = shape.raw<T>();
    check(gradreg_linear_logprobs_scratch_bytes(&out, &raw));
    return out;
}

/** logprobs_forward() from hidden states and head weight; on any context. */
template <class H, class W>
void linear_logprobs_forward(const context &where, const log_probs_view &out, span<H> hidden,
                             span<W> weight, span<const std::int32_t> targets,
                             const linear_shape &shape)
{
    static_assert(std::is_same_v<std::remove_const_t<H>, std::remove_const_t<W>>,
                  "one element type");
    shape.need_hidden("hidden", hidden.size());
    shape.need_weight("weight", weight.size());
    detail::need_forward(shape, out, targets.size());
    const gradreg_linear_params raw = shape.raw<std::remove_const_t<H>>();
    check(gradreg_linear_logprobs_forward(where.get(), out.logp.data(), out.entropy.data(),
                                          out.log_sum_exp.data(), hidden.data(), weight.data(),
                                          targets.data(), &raw));
}

/** The same on a context of the CPU. */
template <class H, class W>
log_probs linear_logprobs_forward(const context &where, span<H> hidden, span<W> weight,
                                  span<const std::int32_t> targets, const linear_shape &shape)
{
    detail::need_host(where, "linear_logprobs_forward");
    shape.need_hidden("hidden", hidden.size());
    log_probs out = detail::rows_of(shape.rows);
    linear_logprobs_forward(where, { out.logp, out.entropy, out.log_sum_exp }, hidden, weight,
                            targets, shape);
    return out;
}

/** The gradients with respect to hidden states and weight; one of them may be empty. */
template <class D, class H, class W, class Forward = log_probs>
void linear_logprobs_backward(const context &where, span<D> dhidden, span<float> dweight,
                              span<H> hidden, span<W> weight, span<const std::int32_t> targets,
                              const Forward &forward, span<const float> dlogp,
                              const linear_shape &shape, span<const float> dentropy = {})
{
    static_assert(std::is_same_v<std::remove_const_t<H>, std::remove_const_t<W>>,
                  "one element type");
    if (!dhidden.empty())
        shape.need_hidden("dhidden", dhidden.size());
    if (!dweight.empty())
        detail::need("linear_shape", "dweight", dweight.size(),
                     detail::elements(shape.vocabulary, shape.width, 0));
    shape.need_hidden("hidden", hidden.size());
    shape.need_weight("weight", weight.size());
    detail::need_backward(shape, forward, targets.size(), dlogp.size(), dentropy.size());
    const gradreg_linear_params raw = shape.raw<std::remove_const_t<H>, D>();
    check(gradreg_linear_logprobs_backward(where.get(), dhidden.data(), dweight.data(),
                                           hidden.data(), weight.data(), targets.data(),
                                           forward.log_sum_exp.data(), forward.entropy.data(),
                                           dlogp.data(), dentropy.data(), &raw));
}

/* ---- probe ---------------------------------------------------------------------------- */

/** A layer-wise causal trace in the caller's forward pass. Rows are trials. */
class probe
{
  public:
    probe(const context &where, const gradreg_probe_params &params)
        : context_(where.holder_), layer_count_(params.layer_count)
    {
        check(gradreg_probe_create(&handle_, where.get(), &params));
    }
    probe(probe &&other) noexcept
        : context_(std::move(other.context_)), layer_count_(other.layer_count_),
          handle_(std::exchange(other.handle_, nullptr))
    {
    }
    probe &operator=(probe &&other) noexcept
    {
        if (this != &other) {
            gradreg_probe_destroy(handle_);
            context_ = std::move(other.context_);
            layer_count_ = other.layer_count_;
            handle_ = std::exchange(other.handle_, nullptr);
        }
        return *this;
    }
    ~probe()
    {
        gradreg_probe_destroy(handle_);
    }

    void reset()
    {
        check(gradreg_probe_reset(handle_));
    }
    /** Noise on rows x width hidden states, row_stride elements apart (0: width). */
    template <class T>
    void inject(span<T> hidden, std::size_t rows, std::size_t width, int layer,
                int first_trial = 0, std::size_t row_stride = 0)
    {
        detail::need_rows_of("probe", "hidden", hidden.size(),
                             detail::elements(rows, width, row_stride));
        check(gradreg_probe_inject(handle_, hidden.data(), element<T>::type, rows, width,
                                   row_stride, layer, first_trial));
    }
    /** The target's probability in rows x vocabulary logits; GRADREG_LAYER_NONE: the baseline. */
    template <class T>
    void observe(span<T> logits, std::size_t rows, std::size_t vocabulary, int target,
                 int layer, int first_trial = 0, std::size_t row_stride = 0)
    {
        detail::need_rows_of("probe", "logits", logits.size(),
                             detail::elements(rows, vocabulary, row_stride));
        check(gradreg_probe_observe(handle_, logits.data(),
                                    element<std::remove_const_t<T>>::type, rows, vocabulary,
                                    row_stride, target, layer, first_trial));
    }
    /** Layer by layer, on the host; waits. */
    std::vector<gradreg_probe_layer> summary() const
    {
        const auto layers = handle_ ? static_cast<std::size_t>(layer_count_) : 0;
        std::vector<gradreg_probe_layer> out(layers, GRADREG_PROBE_LAYER_INIT);
        check(gradreg_probe_summary(handle_, out.data(), layers));
        return out;
    }
    gradreg_probe *get() const noexcept
    {
        return handle_;
    }

  private:
    std::shared_ptr<context::holder> context_;
    std::int32_t layer_count_ = 0;
    gradreg_probe *handle_ = nullptr;
};

/* ---- monitors ------------------------------------------------------------------------- */

/** The share of n-grams that are distinct; NaN without one. Host memory. */
inline double distinct_ngrams(span<const std::int32_t> tokens, int order)
{
    double out = 0;
    check(gradreg_distinct_ngrams(&out, tokens.data(), tokens.size(), order));
    return out;
}

/** Trailing mean over `window` values, fewer at the start. Host memory. */
inline std::vector<double> moving_average(span<const float> values, std::size_t window)
{
    std::vector<double> out(values.size());
    check(gradreg_moving_average(out.data(), values.data(), values.size(), window));
    return out;
}

/** Jensen-Shannon divergence in nats, row by row, one number in `out` each; on any context. */
inline void js_divergence(const context &where, span<float> out, span<const float> p,
                          span<const float> q, std::size_t columns)
{
    const std::size_t elements = detail::elements(out.size(), columns, 0);
    detail::need("js_divergence", "p", p.size(), elements);
    detail::need("js_divergence", "q", q.size(), elements);
    check(gradreg_js_divergence(where.get(), out.data(), p.data(), q.data(), out.size(),
                                columns));
}

/** The same on a context of the CPU. */
inline std::vector<float> js_divergence(const context &where, span<const float> p,
                                        span<const float> q, std::size_t columns)
{
    detail::need_host(where, "js_divergence");
    std::vector<float> out(columns == 0 ? 0 : p.size() / columns);
    js_divergence(where, out, p, q, columns);
    return out;
}

/** ||after - before|| of each segment, one number in `norms` each; on any context. */
template <class B, class A>
void weight_delta(const context &where, span<double> norms, span<B> before, span<A> after,
                  span<const gradreg_segment> segments)
{
    static_assert(std::is_same_v<std::remove_const_t<A>, std::remove_const_t<B>>,
                  "one element type");
    detail::need("weight_delta", "norms", norms.size(), segments.size());
    detail::need("weight_delta", "after", after.size(), before.size());
    for (std::size_t i = 0; i < segments.size(); i++)
        if (segments[i].offset > before.size() ||
            segments[i].count > before.size() - segments[i].offset)
            raise(GRADREG_ERROR_INVALID_ARGUMENT,
                  "gradreg::weight_delta: segment " + std::to_string(i) + " ends behind the " +
                      std::to_string(before.size()) + " elements of before");
    check(gradreg_weight_delta(where.get(), norms.data(), before.data(), after.data(),
                               element<std::remove_const_t<A>>::type, segments.data(),
                               segments.size()));
}

/** The same on a context of the CPU. */
template <class B, class A>
std::vector<double> weight_delta(const context &where, span<B> before, span<A> after,
                                 span<const gradreg_segment> segments)
{
    detail::need_host(where, "weight_delta");
    std::vector<double> norms(segments.size());
    weight_delta(where, norms, before, after, segments);
    return norms;
}

} // namespace gradreg

#endif /* GRADREG_HPP */
