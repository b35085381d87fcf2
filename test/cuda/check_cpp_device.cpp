/* check_cpp_device.cpp - examples/cpp/gradreg.hpp on a device: the CUDA backend in the emulated runtime.
 *
 * In: GRADREG_CUDA_MODULE, the emulated module. Each result is compared with the same calls on the CPU. */
#include <cstddef>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulated_cuda.h"

#include "../cpp_rig.h"
#include "../suite.h"

/* Of the runtime, what a caller of the header needs. */
extern "C" {
int cudaMalloc(void **pointer, std::size_t bytes);
int cudaFree(void *pointer);
int cudaMemcpy(void *to, const void *from, std::size_t bytes, int kind);
int cudaStreamCreate(void **stream);
int cudaStreamDestroy(void *stream);
int cudaStreamQuery(void *stream);
}

namespace
{

constexpr int TO_DEVICE = 1, TO_HOST = 2;

/* An array of the device. */
template <class T> class array
{
  public:
    explicit array(const std::vector<T> &values) : count_(values.size())
    {
        ck_assert_int_eq(cudaMalloc(&memory_, count_ * sizeof(T)), 0);
        write(values);
    }
    array(const array &) = delete;
    ~array()
    {
        cudaFree(memory_);
    }
    void write(const std::vector<T> &values)
    {
        ck_assert_int_eq(cudaMemcpy(memory_, values.data(), count_ * sizeof(T), TO_DEVICE), 0);
    }
    std::vector<T> read() const
    {
        std::vector<T> out(count_);
        ck_assert_int_eq(cudaMemcpy(out.data(), memory_, count_ * sizeof(T), TO_HOST), 0);
        return out;
    }
    T *data() const
    {
        return static_cast<T *>(memory_);
    }
    gradreg::span<T> all() const
    {
        return { data(), count_ };
    }

  private:
    std::size_t count_;
    void *memory_ = nullptr;
};

gradreg::context on(gradreg_backend backend, void *stream = nullptr)
{
    gradreg_context_params p = GRADREG_CONTEXT_PARAMS_INIT;
    p.backend = backend;
    return gradreg::context(p, nullptr, stream);
}

gradreg::regularizer regularizer_on(const gradreg::context &where,
                                    gradreg_difference difference)
{
    gradreg_regularizer_params p = two_layers();
    p.difference = difference;
    return gradreg::regularizer(where, table(), p);
}

const std::vector<float> start = quadratic().weights;

template <class Call> std::string refused(gradreg_status status, Call &&call)
{
    return thrown<gradreg::error>(status, call);
}

START_TEST(whole_steps_have_the_bits_of_the_cpu)
{
    const gradreg_difference difference =
        _i == 0 ? GRADREG_DIFFERENCE_FORWARD : GRADREG_DIFFERENCE_CENTRAL;
    const gradreg::context cpu = on(GRADREG_BACKEND_CPU), cuda = on(GRADREG_BACKEND_CUDA);
    gradreg::regularizer here = regularizer_on(cuda, difference),
                         there = regularizer_on(cpu, difference);
    ck_assert(!here.on_host() && there.on_host());
    std::vector<float> weights = start, grads(8);
    const array<float> device_weights(start);
    array<float> device_grads(grads);
    gradreg::buffers a = gradreg::buffers::flat(device_weights.all(), device_grads.all());
    gradreg::buffers b = gradreg::buffers::flat(weights, grads);
    for (int step = 0; step < 3; step++) {
        gradreg::regularize(here, a, [&] {
            std::vector<float> g;
            const float loss = gradient(g, device_weights.read());
            device_grads.write(g);
            return loss;
        });
        gradreg::regularize(there, b, [&] { return gradient(grads, weights); });
        ck_assert(same_bits(device_weights.read(), weights));
        ck_assert(same_bits(device_grads.read(), grads));
    }
    const gradreg::report one = here.terms(), other = there.terms();
    ck_assert(one.total.correction_share > 0);
    for (std::size_t l = 0; l < 2; l++) {
        ck_assert_double_eq(one.layers[l].curvature, other.layers[l].curvature);
        ck_assert_double_eq(one.layers[l].applied_cosine, other.layers[l].applied_cosine);
    }
    ck_assert(here.state().size() == there.state().size());
}
END_TEST

START_TEST(a_step_that_an_exception_leaves_is_cancelled)
{
    const gradreg::context cuda = on(GRADREG_BACKEND_CUDA);
    gradreg::regularizer r = regularizer_on(cuda, GRADREG_DIFFERENCE_FORWARD);
    const array<float> weights(start), grads(start);
    gradreg::buffers b = gradreg::buffers::flat(weights.all(), grads.all());
    int passes = 0;
    try {
        gradreg::regularize(r, b, [&]() -> float {
            if (++passes == 2)
                throw std::runtime_error("the second pass failed");
            return 1;
        });
        ck_abort_msg("nothing was thrown");
    } catch (const std::runtime_error &e) {
        ck_assert_has(e.what(), "the second pass failed");
    }
    ck_assert(same_bits(weights.read(), start));
}
END_TEST

START_TEST(losses_observed_in_the_devices_memory_give_the_first_order_ratio)
{
    const gradreg::context cuda = on(GRADREG_BACKEND_CUDA);
    gradreg::regularizer r = regularizer_on(cuda, GRADREG_DIFFERENCE_FORWARD);
    const array<float> weights(start), grads(start), losses({ 2.0f, 2.5f });
    gradreg::buffers b = gradreg::buffers::flat(weights.all(), grads.all());
    gradreg::regularize(r, b, [] { return 0.0f; });
    ck_assert_double_nan(r.terms().total.first_order_ratio);
    const float host[2] = { 2.0f, 2.5f };
    ck_assert_has(
        refused(GRADREG_ERROR_INVALID_ARGUMENT, [&] { r.observe_losses(host, host + 1); }),
        "gradreg_regularizer_observe_losses");
    r.observe_losses(losses.data(), losses.data() + 1);
    ck_assert_double_finite(r.terms().total.first_order_ratio);
}
END_TEST

/* What both contexts compute of one batch. */
struct computed {
    std::vector<float> advantages, logp, entropy, log_sum_exp, dlogp, dlogits;
    double loss;
};

template <class Array> computed losses_of(const gradreg::context &where, Array &&make)
{
    const std::vector<float> zeros(6), matrix = [] {
        std::vector<float> out(30);
        for (std::size_t i = 0; i < out.size(); i++)
            out[i] = static_cast<float>(i * 7 % 11) * 0.5f - 2;
        return out;
    }();
    auto rewards = make(std::vector<float>{ 0, 1, 1, 0, 2, 1 });
    auto advantages = make(zeros), logp = make(zeros), entropy = make(zeros);
    auto log_sum_exp = make(zeros), old_logp = make(std::vector<float>(6, -1.5f)),
         dlogp = make(zeros);
    auto logits = make(matrix), dlogits = make(std::vector<float>(30));
    auto targets = make(std::vector<std::int32_t>{ 0, 4, 2, 1, 3, 3 });
    gradreg_policy_metrics empty = GRADREG_POLICY_METRICS_INIT;
    auto metrics = make(std::vector<gradreg_policy_metrics>{ empty });

    gradreg::logits_shape shape;
    shape.rows = 6, shape.vocabulary = 5;
    gradreg::log_probs_view view{ logp->all(), entropy->all(), log_sum_exp->all() };
    gradreg::advantages(where, advantages->all(), rewards->all(), 3);
    gradreg::logprobs_forward(where, view, logits->all(), targets->all(), shape);
    gradreg::policy_batch batch;
    batch.sequences = 6, batch.length = 1;
    batch.logp = logp->all(), batch.old_logp = old_logp->all();
    batch.advantages = advantages->all();
    gradreg::policy_loss(where, metrics->data(), batch, gradreg::policy_preset("grpo"),
                         dlogp->all());
    gradreg::logprobs_backward(where, dlogits->all(), logits->all(), targets->all(), view,
                               dlogp->all(), shape);
    const double loss = gradreg::read_metrics(where, metrics->data()).loss;
    return {
        advantages->read(), logp->read(), entropy->read(), log_sum_exp->read(), dlogp->read(),
        dlogits->read(),    loss
    };
}

/* The same shape as `array`, on the host. */
template <class T> struct on_host {
    std::vector<T> values;
    T *data()
    {
        return values.data();
    }
    gradreg::span<T> all()
    {
        return values;
    }
    std::vector<T> read() const
    {
        return values;
    }
};

START_TEST(losses_have_the_bits_of_the_cpu)
{
    const gradreg::context cpu = on(GRADREG_BACKEND_CPU), cuda = on(GRADREG_BACKEND_CUDA);
    const computed here = losses_of(cuda, [](auto values) {
        using element = typename decltype(values)::value_type;
        return std::make_unique<array<element>>(values);
    });
    const computed there = losses_of(cpu, [](auto values) {
        using element = typename decltype(values)::value_type;
        return std::make_unique<on_host<element>>(on_host<element>{ values });
    });
    ck_assert(same_bits(here.advantages, there.advantages));
    ck_assert(same_bits(here.logp, there.logp));
    ck_assert(same_bits(here.entropy, there.entropy));
    ck_assert(same_bits(here.log_sum_exp, there.log_sum_exp));
    ck_assert(same_bits(here.dlogp, there.dlogp));
    ck_assert(same_bits(here.dlogits, there.dlogits));
    ck_assert_double_eq(here.loss, there.loss);
    ck_assert_double_ne(here.loss, 0);
}
END_TEST

START_TEST(what_returns_numbers_is_refused_on_a_device)
{
    const gradreg::context cuda = on(GRADREG_BACKEND_CUDA);
    const std::vector<float> rewards{ 1, 2 };
    ck_assert_has(
        refused(GRADREG_ERROR_UNSUPPORTED, [&] { gradreg::advantages(cuda, rewards, 2); }),
        "gradreg::advantages: results of a device lie there");
    std::vector<float> dlogp(2);
    gradreg::policy_batch batch;
    batch.sequences = 2, batch.length = 1;
    batch.logp = rewards, batch.advantages = rewards;
    ck_assert_has(refused(GRADREG_ERROR_UNSUPPORTED,
                          [&] {
                              gradreg::policy_loss(cuda, batch, gradreg::policy_preset("grpo"),
                                                   dlogp);
                          }),
                  "gradreg::policy_loss");
}
END_TEST

START_TEST(memory_of_the_other_side_is_refused)
{
    const gradreg::context cpu = on(GRADREG_BACKEND_CPU), cuda = on(GRADREG_BACKEND_CUDA);
    std::vector<float> weights = start, grads(8);
    const array<float> device_weights(start), device_grads(grads);
    gradreg::buffers host = gradreg::buffers::flat(weights, grads);
    gradreg::buffers device = gradreg::buffers::flat(device_weights.all(), device_grads.all());
    gradreg::regularizer here = regularizer_on(cuda, GRADREG_DIFFERENCE_FORWARD);
    gradreg::regularizer there = regularizer_on(cpu, GRADREG_DIFFERENCE_FORWARD);
    ck_assert_has(refused(GRADREG_ERROR_INVALID_ARGUMENT, [&] { here.perturb(host); }),
                  "params");
    ck_assert_has(refused(GRADREG_ERROR_INVALID_ARGUMENT, [&] { there.perturb(device); }),
                  "params");
    ck_assert(same_bits(weights, start) && same_bits(device_weights.read(), start));
}
END_TEST

START_TEST(work_is_queued_on_the_callers_stream)
{
    void *stream = nullptr;
    ck_assert_int_eq(cudaStreamCreate(&stream), 0);
    {
        gradreg::context cuda = on(GRADREG_BACKEND_CUDA, stream);
        gradreg::regularizer r = regularizer_on(cuda, GRADREG_DIFFERENCE_FORWARD);
        const array<float> weights(start), grads(start);
        gradreg::buffers b = gradreg::buffers::flat(weights.all(), grads.all());
        r.perturb(b);
        ck_assert_int_ne(cudaStreamQuery(stream), 0); /* not run yet: nothing waited */
        cuda.synchronize();
        ck_assert_int_eq(cudaStreamQuery(stream), 0);
        ck_assert(!same_bits(weights.read(), start));
        r.combine(b);
        cuda.synchronize();
        ck_assert(same_bits(weights.read(), start));
    }
    cudaStreamDestroy(stream);
}
END_TEST

START_TEST(a_crashed_device_is_the_machines_error)
{
    const gradreg::context cuda = on(GRADREG_BACKEND_CUDA);
    gradreg::regularizer r = regularizer_on(cuda, GRADREG_DIFFERENCE_FORWARD);
    const array<float> weights(start), grads(start);
    gradreg::buffers b = gradreg::buffers::flat(weights.all(), grads.all());
    emulated_cuda_crash(0);
    try {
        r.perturb(b);
        r.combine(b);
        r.terms();
        ck_abort_msg("nothing was thrown");
    } catch (const gradreg::machine_error &e) {
        ck_assert_int_eq(e.status(), GRADREG_ERROR_DEVICE);
        ck_assert_has(e.what(), "gradreg_regularizer_");
    }
    emulated_cuda_reset_errors();
}
END_TEST

START_TEST(without_a_device_the_backend_is_refused)
{
    emulated_cuda_set_devices(0);
    ck_assert_has(refused(GRADREG_ERROR_UNSUPPORTED, [] { on(GRADREG_BACKEND_CUDA); }),
                  "gradreg_context_create");
}
END_TEST

} // namespace

int main()
{
    Suite *suite = suite_create("cpp-device");
    TCase *cases = tcase_create("device");
    tcase_set_timeout(cases, 60);
    tcase_add_loop_test(cases, whole_steps_have_the_bits_of_the_cpu, 0, 2);
    tcase_add_test(cases, a_step_that_an_exception_leaves_is_cancelled);
    tcase_add_test(cases, losses_observed_in_the_devices_memory_give_the_first_order_ratio);
    tcase_add_test(cases, losses_have_the_bits_of_the_cpu);
    tcase_add_test(cases, what_returns_numbers_is_refused_on_a_device);
    tcase_add_test(cases, memory_of_the_other_side_is_refused);
    tcase_add_test(cases, work_is_queued_on_the_callers_stream);
    tcase_add_test(cases, a_crashed_device_is_the_machines_error);
    tcase_add_test(cases, without_a_device_the_backend_is_refused);
    suite_add_tcase(suite, cases);
    return run_plainly(suite, CK_FORK_GETENV);
}
