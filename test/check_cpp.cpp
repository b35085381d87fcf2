/* check_cpp.cpp - examples/cpp/gradreg.hpp: handles, exceptions, steps and losses in C++. */
#include <check.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "gradreg.hpp"

namespace
{

/* L = 1/2 sum c_i w_i^2 over two layers of four weights. */
struct quadratic {
    std::vector<float> weights{ 1, -2, 3, 0.5f, -1, 2, 0.25f, 4 };
    std::vector<float> grads = std::vector<float>(8);

    float backward()
    {
        float loss = 0;
        for (std::size_t i = 0; i < 8; i++) {
            const float c = static_cast<float>(i + 1) * 0.25f;
            grads[i] = c * weights[i];
            loss += 0.5f * c * weights[i] * weights[i];
        }
        return loss;
    }
};

std::vector<gradreg_segment> table()
{
    return { gradreg::segment("model.layers.0.mlp.up_proj.weight", 0, 4),
             gradreg::segment("model.layers.1.mlp.up_proj.weight", 4, 4) };
}

gradreg_regularizer_params two_layers()
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;
    p.layer_count = 2;
    p.strength = 0.1;
    return p;
}

gradreg::context quiet()
{
    gradreg_context_params p = GRADREG_CONTEXT_PARAMS_INIT;
    p.threads = 1;
    return gradreg::context(p);
}

/* What kind of exception `call` throws, its status and its sentence; "" for none. */
template <class Exception, class Call> std::string thrown(gradreg_status status, Call &&call)
{
    try {
        call();
    } catch (const Exception &e) {
        ck_assert_int_eq(e.status(), status);
        ck_assert_str_eq(e.status_name(), gradreg_status_name(status));
        return e.what();
    }
    return "";
}

bool same_bits(const std::vector<float> &a, const std::vector<float> &b)
{
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

void ck_assert_has(const std::string &sentence, const char *word)
{
    ck_assert_msg(sentence.find(word) != std::string::npos, "\"%s\" lacks \"%s\"",
                  sentence.c_str(), word);
}

/* ---- errors --------------------------------------------------------------------------- */

START_TEST(a_failure_carries_the_librarys_sentence)
{
    gradreg_context_params p = GRADREG_CONTEXT_PARAMS_INIT;
    p.threads = -3;
    const std::string sentence = thrown<gradreg::usage_error>(
        GRADREG_ERROR_INVALID_ARGUMENT, [&] { gradreg::context wrong(p); });
    ck_assert_str_eq(sentence.c_str(), gradreg_last_error());
    ck_assert_has(sentence, "threads");
    ck_assert_has(sentence, "-3");
}
END_TEST

void *nothing(void *, size_t, size_t, gradreg_memory)
{
    return nullptr;
}
void release(void *, void *, size_t, gradreg_memory)
{
}

START_TEST(without_a_module_the_cuda_backend_is_refused)
{
    setenv("GRADREG_CUDA_MODULE", "/nonexistent/libgradreg-cuda.so", 1);
    gradreg_context_params p = GRADREG_CONTEXT_PARAMS_INIT;
    p.backend = GRADREG_BACKEND_CUDA;
    const std::string said = thrown<gradreg::usage_error>(GRADREG_ERROR_UNSUPPORTED,
                                                          [&] { gradreg::context refused(p); });
    ck_assert_has(said, "gradreg_context_create");
    ck_assert_has(said, "/nonexistent/libgradreg-cuda.so");
}
END_TEST

START_TEST(the_class_of_an_exception_says_what_to_do)
{
    gradreg_context_params p = GRADREG_CONTEXT_PARAMS_INIT;
    p.allocator.allocate = nothing;
    p.allocator.release = release;
    ck_assert_has(thrown<gradreg::machine_error>(GRADREG_ERROR_OUT_OF_MEMORY,
                                                 [&] { gradreg::context none(p); }),
                  "gradreg_context_create");

    quadratic q;
    gradreg::context context = quiet();
    gradreg::regularizer r(context, table(), two_layers());
    auto buffers = gradreg::buffers::flat(q.weights, q.grads);
    q.backward();
    ck_assert(std::isfinite(r.suggest_epsilon(buffers, 0.9)));
    q.grads[3] = std::numeric_limits<float>::quiet_NaN();
    ck_assert_has(thrown<gradreg::numbers_error>(GRADREG_ERROR_NON_FINITE,
                                                 [&] { r.suggest_epsilon(buffers, 0.9); }),
                  "gradreg_regularizer_suggest_epsilon");
}
END_TEST

/* ---- handles -------------------------------------------------------------------------- */

START_TEST(handles_move_and_what_was_moved_from_is_refused)
{
    quadratic q;
    gradreg::context first = quiet();
    gradreg::context context = std::move(first);
    ck_assert_ptr_null(first.get());
    ck_assert_has(
        thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT, [&] { first.info(); }),
        "NULL");
    gradreg::regularizer old(context, table(), two_layers());
    gradreg::regularizer r = std::move(old);
    auto buffers = gradreg::buffers::flat(q.weights, q.grads);
    q.backward();
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                               [&] { old.perturb(buffers); }),
                  "gradreg_regularizer_perturb");
    thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT, [&] { old.terms(); });
    r.perturb(buffers);
    r.cancel(buffers);
    old = std::move(r);
    old.perturb(buffers);
    old.cancel(buffers);
    static_assert(!std::is_copy_constructible_v<gradreg::context>);
    static_assert(!std::is_copy_constructible_v<gradreg::regularizer>);
    static_assert(std::is_nothrow_move_assignable_v<gradreg::regularizer>);
}
END_TEST

START_TEST(a_regularizer_keeps_its_context_open)
{
    quadratic q;
    auto context = std::make_unique<gradreg::context>(quiet());
    gradreg::regularizer r(*context, table(), two_layers());
    context.reset();
    auto buffers = gradreg::buffers::flat(q.weights, q.grads);
    gradreg::regularize(r, buffers, [&] { return q.backward(); });
    ck_assert_uint_eq(r.terms().total.step, 1);
}
END_TEST

START_TEST(remarks_arrive_and_a_log_that_throws_is_survived)
{
    std::vector<std::string> said;
    gradreg_context_params p = GRADREG_CONTEXT_PARAMS_INIT;
    p.threads = 1;
    gradreg::context context(p, [&](gradreg_log_level level, const char *message) {
        ck_assert_int_le(level, GRADREG_LOG_WARNING);
        said.push_back(message);
        throw 1;
    });
    gradreg_regularizer_params odd = two_layers();
    odd.clip_second = 0; /* one clip alone is worth a remark */
    gradreg::regularizer r(context, table(), odd);
    ck_assert_uint_gt(said.size(), 0);
}
END_TEST

/* ---- steps ---------------------------------------------------------------------------- */

START_TEST(regularize_gives_the_bits_of_the_c_calls)
{
    for (const gradreg_difference difference :
         { GRADREG_DIFFERENCE_FORWARD, GRADREG_DIFFERENCE_CENTRAL }) {
        quadratic a, b;
        gradreg_regularizer_params p = two_layers();
        p.difference = difference;
        p.noise.rule = GRADREG_NOISE_RELATIVE;
        p.noise.roles = GRADREG_ROLE_MLP;
        p.noise.first_layer = p.noise.last_layer = 0;
        gradreg::context context = quiet();
        gradreg::regularizer r(context, table(), p);
        auto buffers = gradreg::buffers::flat(a.weights, a.grads);

        gradreg_regularizer *c = nullptr;
        const auto segments = table();
        ck_assert_int_eq(gradreg_regularizer_create(&c, context.get(), segments.data(), 2, &p),
                         GRADREG_OK);
        gradreg_buffers raw = GRADREG_BUFFERS_INIT;
        raw.params = b.weights.data(), raw.grads = b.grads.data(), raw.count = 8;
        for (int step = 0; step < 3; step++) {
            gradreg::regularize(r, buffers, [&] { return a.backward(); });
            ck_assert_int_eq(gradreg_regularizer_inject_noise(c, &raw), GRADREG_OK);
            b.backward();
            ck_assert_int_eq(gradreg_regularizer_perturb(c, &raw), GRADREG_OK);
            b.backward();
            if (difference == GRADREG_DIFFERENCE_CENTRAL) {
                ck_assert_int_eq(gradreg_regularizer_mirror(c, &raw), GRADREG_OK);
                b.backward();
            }
            ck_assert_int_eq(gradreg_regularizer_combine(c, &raw), GRADREG_OK);
            ck_assert(same_bits(a.grads, b.grads));
            ck_assert(same_bits(a.weights, b.weights));
            for (std::size_t i = 0; i < 8; i++)
                b.weights[i] = a.weights[i] -= 0.1f * a.grads[i];
        }
        const gradreg::report report = r.terms();
        ck_assert_uint_eq(report.layers.size(), 2);
        ck_assert_uint_eq(report.total.step, 3);
        ck_assert(std::isfinite(report.total.first_order_ratio));
        gradreg_regularizer_destroy(c);
    }
}
END_TEST

START_TEST(a_step_that_an_exception_leaves_is_cancelled)
{
    quadratic q;
    const std::vector<float> clean = q.weights;
    gradreg::context context = quiet();
    gradreg::regularizer r(context, table(), two_layers());
    auto buffers = gradreg::buffers::flat(q.weights, q.grads);
    int passes = 0;
    bool moved = false;
    try {
        gradreg::regularize(r, buffers, [&]() -> float {
            if (++passes == 2) {
                moved = !same_bits(q.weights, clean);
                throw std::runtime_error("the worker died");
            }
            return q.backward();
        });
        ck_abort_msg("the exception was lost");
    } catch (const std::runtime_error &e) {
        ck_assert_str_eq(e.what(), "the worker died");
    }
    ck_assert(moved);
    ck_assert(same_bits(q.weights, clean));
    gradreg::regularize(r, buffers, [&] { return q.backward(); });
    ck_assert_uint_eq(r.terms().total.step, 1);
    {
        gradreg::step open(r, buffers); /* left by a return */
        q.backward();
        open.perturb();
    }
    ck_assert(same_bits(q.weights, clean));
    {
        gradreg::step open(r, buffers);
        q.backward();
        open.perturb();
        open.fallback();
    }
    ck_assert_uint_eq(r.terms().total.step, 2);
}
END_TEST

START_TEST(calls_out_of_order_name_the_state)
{
    quadratic q;
    gradreg::context context = quiet();
    gradreg::regularizer r(context, table(), two_layers());
    auto buffers = gradreg::buffers::flat(q.weights, q.grads);
    const std::string sentence =
        thrown<gradreg::usage_error>(GRADREG_ERROR_STATE, [&] { r.combine(buffers); });
    ck_assert_has(sentence, "gradreg_regularizer_combine");
}
END_TEST

START_TEST(a_saved_state_continues)
{
    quadratic q;
    gradreg::context context = quiet();
    gradreg::regularizer r(context, table(), two_layers()), s(context, table(), two_layers());
    auto buffers = gradreg::buffers::flat(q.weights, q.grads);
    for (int i = 0; i < 5; i++)
        gradreg::regularize(r, buffers, [&] { return q.backward(); });
    std::vector<std::uint8_t> state = r.state();
    s.load_state(state);
    gradreg::regularize(s, buffers, [&] { return q.backward(); });
    ck_assert_uint_eq(s.terms().total.step, 6);
    state.back() ^= 1;
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                               [&] { s.load_state(state); }),
                  "gradreg_regularizer_state_load");
}
END_TEST

/* ---- wrong buffers -------------------------------------------------------------------- */

START_TEST(wrong_types_and_lengths_are_refused)
{
    quadratic q;
    gradreg::context context = quiet();
    gradreg::regularizer r(context, table(), two_layers());
    std::vector<gradreg::bf16> halves(8);
    auto wrong = gradreg::buffers::flat(halves, q.grads);
    const std::string type =
        thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT, [&] { r.perturb(wrong); });
    ck_assert_has(type, "params are bf16");
    std::vector<float> few(7), both(7);
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                               [&] { gradreg::buffers::flat(q.weights, few); }),
                  "grads has 7 elements, params has 8");
    auto too_short = gradreg::buffers::flat(few, both);
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                               [&] { r.perturb(too_short); }),
                  "buffers.count is 7");
    std::vector<gradreg::tensor> tensors(2);
    tensors[0] = gradreg::tensor::of(gradreg::span<float>(q.weights.data(), 4),
                                     gradreg::span<float>(q.grads.data(), 4));
    tensors[1] = gradreg::tensor::of(gradreg::span<float>(q.weights.data() + 4, 3),
                                     gradreg::span<float>(q.grads.data() + 4, 3));
    auto scattered = gradreg::buffers::scattered(tensors);
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                               [&] { r.perturb(scattered); }),
                  "tensor 1 has 3 elements, its segment 4");
    tensors.pop_back();
    auto one = gradreg::buffers::scattered(tensors);
    ck_assert_has(
        thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT, [&] { r.perturb(one); }),
        "1 tensors, the table has 2 segments");
}
END_TEST

START_TEST(a_gradient_that_vanished_between_the_passes_is_refused)
{
    quadratic q;
    const std::vector<float> clean = q.weights;
    gradreg::context context = quiet();
    gradreg::regularizer r(context, table(), two_layers());
    std::vector<gradreg::tensor> tensors;
    for (std::size_t i = 0; i < 2; i++)
        tensors.push_back(gradreg::tensor::of(gradreg::span<float>(q.weights.data() + 4 * i, 4),
                                              gradreg::span<float>(q.grads.data() + 4 * i, 4)));
    auto buffers = gradreg::buffers::scattered(tensors);
    {
        gradreg::step open(r, buffers);
        q.backward();
        open.perturb();
        buffers.set_gradient(1, nullptr);
        const std::string sentence = thrown<gradreg::usage_error>(
            GRADREG_ERROR_INVALID_ARGUMENT, [&] { open.combine(); });
        ck_assert_has(sentence, "grad_pointers[1]");
    }
    ck_assert(same_bits(q.weights, clean));
    buffers.set_gradient(1, q.grads.data() + 4);
    gradreg::regularize(r, buffers, [&] { return q.backward(); });
    ck_assert_uint_eq(r.terms().total.step, 1);
}
END_TEST

/* ---- ranks and threads ---------------------------------------------------------------- */

gradreg_regularizer_params rank_of_two()
{
    gradreg_regularizer_params p = two_layers();
    p.world = 2;
    p.parameter_count = 8;
    return p;
}

START_TEST(what_all_reduce_throws_comes_out_of_the_call)
{
    quadratic q;
    gradreg::context context = quiet();
    gradreg::regularizer r(
        context, table(), rank_of_two(),
        [](gradreg::span<double>, void *) -> void { throw std::runtime_error("link down"); });
    auto buffers = gradreg::buffers::flat(q.weights, q.grads);
    const std::vector<float> clean = q.weights;
    q.backward();
    try {
        r.perturb(buffers);
        ck_abort_msg("the exception was lost");
    } catch (const std::runtime_error &e) {
        ck_assert_str_eq(e.what(), "link down");
    }
    ck_assert(same_bits(q.weights, clean));
}
END_TEST

START_TEST(a_second_thread_on_a_handle_is_refused)
{
    quadratic q;
    gradreg::context context = quiet();
    std::string sentence;
    gradreg::regularizer *inside = nullptr;
    gradreg::regularizer r(context, table(), rank_of_two(),
                           [&](gradreg::span<double> values, void *) {
                               ck_assert_uint_gt(values.size(), 0);
                               std::thread([&] {
                                   sentence = thrown<gradreg::usage_error>(
                                       GRADREG_ERROR_STATE, [&] { inside->set_strength(0.5); });
                               }).join();
                           });
    inside = &r;
    auto buffers = gradreg::buffers::flat(q.weights, q.grads);
    q.backward();
    r.perturb(buffers);
    ck_assert_has(sentence, "gradreg_regularizer_set_strength");
    r.cancel(buffers);
}
END_TEST

/* ---- losses --------------------------------------------------------------------------- */

START_TEST(policy_loss_gives_the_bits_of_the_c_call)
{
    const std::vector<float> logp{ -1, -0.5f, -2, -0.1f, -3, -0.7f };
    const std::vector<float> old{ -1.1f, -0.4f, -2, -0.3f, -2.5f, -0.7f };
    const std::vector<std::uint8_t> mask{ 1, 1, 0, 1, 1, 1 };
    const std::vector<float> advantages{ 1, -0.5f };
    std::vector<float> dlogp(6), want(6);
    gradreg::context context = quiet();
    const gradreg_policy policy = gradreg::policy_preset("dapo");
    gradreg::policy_batch batch;
    batch.sequences = 2, batch.length = 3;
    batch.logp = logp, batch.old_logp = old, batch.mask = mask, batch.advantages = advantages;
    const gradreg_policy_metrics m = gradreg::policy_loss(context, batch, policy, dlogp);

    gradreg_policy_batch raw = GRADREG_POLICY_BATCH_INIT;
    raw.sequences = 2, raw.length = 3;
    raw.logp = logp.data(), raw.old_logp = old.data(), raw.mask = mask.data();
    raw.advantages = advantages.data();
    gradreg_policy_gradient out = GRADREG_POLICY_GRADIENT_INIT;
    out.dlogp = want.data();
    gradreg_policy_metrics c = GRADREG_POLICY_METRICS_INIT;
    ck_assert_int_eq(gradreg_policy_loss(context.get(), &c, &out, &raw, &policy), GRADREG_OK);
    ck_assert(same_bits(dlogp, want));
    ck_assert(std::memcmp(&m, &c, sizeof(m)) == 0);
    ck_assert_uint_eq(m.tokens, 5);

    batch.old_logp = gradreg::span<const float>(old.data(), 5);
    ck_assert_has(thrown<gradreg::usage_error>(
                      GRADREG_ERROR_INVALID_ARGUMENT,
                      [&] { gradreg::policy_loss(context, batch, policy, dlogp); }),
                  "old_logp has 5 elements, expected 6");
    const std::int64_t offsets[] = { 0, 2, 6 };
    batch.row_offsets = offsets;
    batch.old_logp = old;
    ck_assert_uint_eq(gradreg::policy_loss(context, batch, policy, dlogp).tokens, 5);
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                               [] { gradreg::policy_preset("gropo"); }),
                  "gropo");
}
END_TEST

START_TEST(advantages_come_group_by_group)
{
    gradreg::context context = quiet();
    const std::vector<float> rewards{ 1, 0, 0, 1, 3, 3 };
    const std::vector<float> a = gradreg::advantages(context, rewards, 2);
    const std::vector<float> want{ 0.5f, -0.5f, -0.5f, 0.5f, 0, 0 };
    ck_assert(same_bits(a, want));
    ck_assert_has(
        thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                     [&] { gradreg::advantages(context, rewards, 4); }),
        "gradreg_advantages");
}
END_TEST

START_TEST(log_probs_give_the_bits_of_the_c_calls)
{
    gradreg::context context = quiet();
    std::vector<float> logits{ 1, 2, 3, 0, 0, 0, -1, 4, 0.5f };
    const std::vector<std::int32_t> targets{ 2, -1, 0 };
    const std::vector<float> dlogp{ 1, 2, -0.5f };
    gradreg::logits_shape shape;
    shape.rows = 3, shape.vocabulary = 3;
    const gradreg::span<float> all(logits);
    const gradreg::log_probs made = gradreg::logprobs_forward(context, all, targets, shape);
    std::vector<float> want(9), got(9), logp(3), entropy(3), sums(3);
    const gradreg_logits_params raw = shape.raw<float>();
    ck_assert_int_eq(gradreg_logprobs_forward(context.get(), logp.data(), entropy.data(),
                                              sums.data(), logits.data(), targets.data(), &raw),
                     GRADREG_OK);
    ck_assert(same_bits(made.logp, logp) && same_bits(made.entropy, entropy));
    ck_assert_int_eq(gradreg_logprobs_backward(context.get(), want.data(), logits.data(),
                                               targets.data(), sums.data(), entropy.data(),
                                               dlogp.data(), nullptr, &raw),
                     GRADREG_OK);
    gradreg::logprobs_backward(context, gradreg::span<float>(got), all, targets, made, dlogp,
                               shape);
    ck_assert(same_bits(got, want));
    gradreg::logprobs_backward(context, all, all, targets, made, dlogp, shape); /* in place */
    ck_assert(same_bits(logits, want));
    shape.row_stride = 4;
    ck_assert_has(thrown<gradreg::usage_error>(
                      GRADREG_ERROR_INVALID_ARGUMENT,
                      [&] { gradreg::logprobs_forward(context, all, targets, shape); }),
                  "logits has 9 elements, the rows need 11");
}
END_TEST

START_TEST(losses_write_into_the_callers_memory)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    params.backend = GRADREG_BACKEND_CPU;
    params.threads = 1;
    gradreg::context context(params);
    int stream = 0;
    ck_assert_has(
        thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                     [&] { gradreg::context wrong(params, nullptr, &stream); }),
        "stream");
    params.device = 7; /* the settings arrive as they are */
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                               [&] { gradreg::context wrong(params); }),
                  "device");

    const std::vector<float> rewards{ 1, 0, 0, 1 };
    std::vector<float> out(4);
    gradreg::advantages(context, out, rewards, 2);
    ck_assert(same_bits(out, gradreg::advantages(context, rewards, 2)));
    std::vector<float> few(3);
    ck_assert_has(
        thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                     [&] { gradreg::advantages(context, few, rewards, 2); }),
        "out has 3 elements, expected 4");

    gradreg::policy_batch batch;
    batch.sequences = 4, batch.length = 1;
    const std::vector<float> logp{ -1, -0.5f, -2, -0.1f };
    batch.logp = logp, batch.advantages = out;
    std::vector<float> dlogp(4), want(4);
    const gradreg_policy policy = gradreg::policy_preset("dapo");
    gradreg_policy_metrics there = GRADREG_POLICY_METRICS_INIT;
    gradreg::policy_loss(context, &there, batch, policy, dlogp);
    const gradreg_policy_metrics m = gradreg::policy_loss(context, batch, policy, want);
    const gradreg_policy_metrics read = gradreg::read_metrics(context, &there);
    ck_assert(same_bits(dlogp, want));
    ck_assert(std::memcmp(&read, &m, sizeof(m)) == 0);
    ck_assert_uint_eq(read.tokens, 4);
    ck_assert_has(
        thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                     [&] { gradreg::read_metrics(context, nullptr); }),
        "gradreg_policy_metrics_read");

    const std::vector<float> logits{ 1, 2, 3, 0, 0, 0 };
    const std::vector<std::int32_t> targets{ 2, 0 };
    const gradreg::span<const float> all(logits);
    gradreg::logits_shape shape;
    shape.rows = 2, shape.vocabulary = 3;
    const gradreg::log_probs made = gradreg::logprobs_forward(context, all, targets, shape);
    std::vector<float> alone(2), sums(2), got(6), expected(6);
    gradreg::log_probs_view view;
    view.logp = alone, view.log_sum_exp = sums;
    gradreg::logprobs_forward(context, view, all, targets, shape);
    ck_assert(same_bits(alone, made.logp) && same_bits(sums, made.log_sum_exp));
    const gradreg::span<const float> ones(rewards.data(), 2);
    gradreg::logprobs_backward(context, gradreg::span<float>(got), all, targets, view, ones,
                               shape);
    gradreg::logprobs_backward(context, gradreg::span<float>(expected), all, targets, made,
                               ones, shape);
    ck_assert(same_bits(got, expected));
    ck_assert(got[2] > 0);
    const auto with_entropy = [&] {
        gradreg::logprobs_backward(context, gradreg::span<float>(got), all, targets, view, ones,
                                   shape, ones);
    };
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT, with_entropy),
                  "entropy has 0 elements, expected 2");
    view.logp = few;
    ck_assert_has(thrown<gradreg::usage_error>(
                      GRADREG_ERROR_INVALID_ARGUMENT,
                      [&] { gradreg::logprobs_forward(context, view, all, targets, shape); }),
                  "logp has 3 elements, expected 2");
    shape.rows = SIZE_MAX / 2; /* no product wraps around */
    ck_assert_has(thrown<gradreg::usage_error>(
                      GRADREG_ERROR_INVALID_ARGUMENT,
                      [&] { gradreg::logprobs_forward(context, view, all, targets, shape); }),
                  "logits has 6 elements");
}
END_TEST

START_TEST(policy_logits_gives_the_bits_of_the_c_call)
{
    gradreg::context context = quiet();
    std::vector<float> logits{ 1, 2, 3, 0, 0, 0, -1, 4, 0.5f, 2, 1, 0 };
    const std::vector<std::int32_t> targets{ 2, 1, 0, 1 };
    const std::vector<float> old{ -0.5f, -1, -5, -1.25f }, advantages{ 1, -0.5f };
    const std::vector<std::uint8_t> mask{ 1, 1, 0, 1 };
    gradreg::policy_batch batch;
    batch.sequences = 2, batch.length = 2;
    batch.old_logp = old, batch.mask = mask, batch.advantages = advantages;
    gradreg_policy policy = gradreg::policy_preset("dapo");
    gradreg::logits_shape shape;
    shape.rows = 4, shape.vocabulary = 3;
    const gradreg::span<float> all(logits);
    std::vector<float> got(12), want(12), logp(4), entropy(4), c_logp(4), c_entropy(4);
    const gradreg::span<float> out(got);
    const gradreg_policy_metrics m =
        gradreg::policy_logits(context, out, all, targets, batch, policy, shape, logp, entropy);

    gradreg_policy_batch raw = GRADREG_POLICY_BATCH_INIT;
    raw.sequences = 2, raw.length = 2;
    raw.old_logp = old.data(), raw.mask = mask.data(), raw.advantages = advantages.data();
    gradreg_logits_params params = GRADREG_LOGITS_PARAMS_INIT;
    params.rows = 4, params.vocabulary = 3;
    gradreg_policy_metrics c = GRADREG_POLICY_METRICS_INIT;
    ck_assert_int_eq(gradreg_policy_logits(context.get(), &c, want.data(), c_logp.data(),
                                           c_entropy.data(), logits.data(), targets.data(),
                                           &raw, &policy, &params),
                     GRADREG_OK);
    ck_assert(same_bits(got, want) && same_bits(logp, c_logp) && same_bits(entropy, c_entropy));
    ck_assert(std::memcmp(&m, &c, sizeof(m)) == 0);
    ck_assert_uint_eq(m.tokens, 3);
    std::size_t bytes = 0;
    ck_assert_int_eq(gradreg_policy_logits_scratch_bytes(&bytes, 2, &params), GRADREG_OK);
    ck_assert_uint_eq(gradreg::policy_logits_scratch_bytes<float>(2, shape), bytes);

    const auto again = [&] {
        gradreg::policy_logits(context, nullptr, out, all, targets, batch, policy, shape, logp);
    };
    const auto refused = [&] {
        return thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT, again);
    };
    batch.length = 3;
    ck_assert_has(refused(), "batch has 6 elements, expected 4");
    batch.length = 2;
    batch.mask = gradreg::span<const std::uint8_t>(mask.data(), 3);
    ck_assert_has(refused(), "mask has 3 elements, expected 4");
    batch.mask = mask;
    batch.logp = old; /* the call makes its own */
    ck_assert_has(refused(), "gradreg_policy_logits");
    batch.logp = {};
    shape.row_stride = 5;
    ck_assert_has(refused(), "dlogits has 12 elements, the rows need 18");
    shape.row_stride = 0;
    policy.ratio_level = GRADREG_RATIO_SEQUENCE;
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_UNSUPPORTED, again),
                  "gradreg_policy_logits");
    policy.ratio_level = GRADREG_RATIO_TOKEN;
    shape.vocabulary = 0;
    ck_assert_has(thrown<gradreg::usage_error>(
                      GRADREG_ERROR_INVALID_ARGUMENT,
                      [&] { gradreg::policy_logits_scratch_bytes<float>(2, shape); }),
                  "vocabulary");
    shape.vocabulary = 3;
    gradreg::policy_logits(context, nullptr, all, all, targets, batch, policy, shape);
    ck_assert(same_bits(logits, want)); /* in place */
}
END_TEST

START_TEST(linear_log_probs_give_the_numbers_of_the_c_calls)
{
    gradreg::context context = quiet();
    const std::vector<float> hidden{ 1, -1, 0.5f, 2, 0, 1 };       /* 3 x 2 */
    const std::vector<float> weight{ 1, 0, 0, 1, -1, 0.5f, 2, 1 }; /* 4 x 2 */
    const std::vector<std::int32_t> targets{ 3, -1, 0 };
    const std::vector<float> dlogp{ 1, 2, -0.5f };
    const gradreg::span<const float> h(hidden), w(weight);
    gradreg::linear_shape shape;
    shape.rows = 3, shape.width = 2, shape.vocabulary = 4;
    gradreg_linear_params raw = GRADREG_LINEAR_PARAMS_INIT;
    raw.rows = 3, raw.width = 2, raw.vocabulary = 4;
    std::size_t bytes = 0;
    ck_assert_int_eq(gradreg_linear_logprobs_scratch_bytes(&bytes, &raw), GRADREG_OK);
    ck_assert_uint_eq(gradreg::linear_logprobs_scratch_bytes<float>(shape), bytes);

    std::vector<float> logp(3), entropy(3), sums(3), dh(6), dw(8, 1), want_h(6), want_w(8, 1);
    const gradreg_status status =
        gradreg_linear_logprobs_forward(context.get(), logp.data(), entropy.data(), sums.data(),
                                        hidden.data(), weight.data(), targets.data(), &raw);
    if (status == GRADREG_ERROR_UNSUPPORTED) { /* a build without BLAS says so here too */
        ck_assert_has(
            thrown<gradreg::usage_error>(
                status,
                [&] { gradreg::linear_logprobs_forward(context, h, w, targets, shape); }),
            "gradreg_linear_logprobs_forward");
        return;
    }
    ck_assert_int_eq(status, GRADREG_OK);
    const gradreg::log_probs made =
        gradreg::linear_logprobs_forward(context, h, w, targets, shape);
    ck_assert(same_bits(made.logp, logp) && same_bits(made.entropy, entropy) &&
              same_bits(made.log_sum_exp, sums));
    ck_assert(made.logp[0] < 0);
    shape.add_weight_gradient = true;
    raw.add_weight_gradient = 1;
    ck_assert_int_eq(gradreg_linear_logprobs_backward(
                         context.get(), want_h.data(), want_w.data(), hidden.data(),
                         weight.data(), targets.data(), sums.data(), entropy.data(),
                         dlogp.data(), dlogp.data(), &raw),
                     GRADREG_OK);
    const gradreg::span<float> out(dh);
    gradreg::linear_logprobs_backward(context, out, dw, h, w, targets, made, dlogp, shape,
                                      dlogp);
    ck_assert(same_bits(dh, want_h) && same_bits(dw, want_w));
    std::vector<float> only(8, 1);
    gradreg::linear_logprobs_backward(context, gradreg::span<float>(), only, h, w, targets,
                                      made, dlogp, shape, dlogp);
    ck_assert(same_bits(only, want_w));

    const auto backward = [&] {
        gradreg::linear_logprobs_backward(context, out, dw, h, w, targets, made, dlogp, shape);
    };
    const auto refused = [&] {
        return thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT, backward);
    };
    shape.hidden_stride = 3;
    ck_assert_has(refused(), "dhidden has 6 elements, the rows need 8");
    shape.hidden_stride = 0, shape.weight_stride = 3;
    ck_assert_has(refused(), "weight has 8 elements, the rows need 11");
    shape.weight_stride = 0, shape.vocabulary = 3;
    ck_assert_has(refused(), "dweight has 8 elements, expected 6");
    shape.vocabulary = 4, shape.temperature = -1;
    ck_assert_has(refused(), "gradreg_linear_logprobs_backward");
    ck_assert_has(thrown<gradreg::usage_error>(
                      GRADREG_ERROR_INVALID_ARGUMENT,
                      [&] { gradreg::linear_logprobs_scratch_bytes<float>(shape); }),
                  "temperature");
}
END_TEST

/* ---- probe and monitors --------------------------------------------------------------- */

gradreg_probe_params two_trials()
{
    gradreg_probe_params p = GRADREG_PROBE_PARAMS_INIT;
    p.layer_count = 2, p.trials = 2, p.seed = 7;
    return p;
}

START_TEST(a_probe_gives_the_numbers_of_the_c_calls)
{
    gradreg::context context = quiet();
    gradreg::probe probe(context, two_trials());
    gradreg_probe *c = nullptr;
    const gradreg_probe_params params = two_trials();
    ck_assert_int_eq(gradreg_probe_create(&c, context.get(), &params), GRADREG_OK);
    const std::vector<float> clean{ 1, 2, -1, 9, 0.5f, 3, 1 }; /* 2 x 3, 4 apart */
    std::vector<float> a = clean, b = clean;
    probe.inject(gradreg::span<float>(a), 2, 3, 1, 0, 4);
    ck_assert_int_eq(gradreg_probe_inject(c, b.data(), GRADREG_TYPE_F32, 2, 3, 4, 1, 0),
                     GRADREG_OK);
    ck_assert(same_bits(a, b) && !same_bits(a, clean));
    const gradreg::span<const float> logits(a);
    probe.observe(logits, 2, 3, 1, 1, 0, 4);
    probe.observe(gradreg::span<const float>(clean), 1, 3, 1, GRADREG_LAYER_NONE);
    ck_assert_int_eq(gradreg_probe_observe(c, b.data(), GRADREG_TYPE_F32, 2, 3, 4, 1, 1, 0),
                     GRADREG_OK);
    ck_assert_int_eq(gradreg_probe_observe(c, clean.data(), GRADREG_TYPE_F32, 1, 3, 0, 1,
                                           GRADREG_LAYER_NONE, 0),
                     GRADREG_OK);
    const std::vector<gradreg_probe_layer> got = probe.summary();
    std::vector<gradreg_probe_layer> want(2, GRADREG_PROBE_LAYER_INIT);
    ck_assert_int_eq(gradreg_probe_summary(c, want.data(), 2), GRADREG_OK);
    ck_assert_int_eq(gradreg_probe_destroy(c), GRADREG_OK);
    ck_assert_uint_eq(got.size(), 2);
    ck_assert(std::memcmp(got.data(), want.data(), 2 * sizeof(got[0])) == 0);
    ck_assert_uint_eq(got[1].trials, 2);
    ck_assert(got[1].baseline > 0 && got[1].baseline < 1);
    probe.reset();
    ck_assert_uint_eq(probe.summary()[1].trials, 0);

    const auto inject = [&](std::size_t rows, int layer) {
        return thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT, [&] {
            probe.inject(gradreg::span<float>(a), rows, 3, layer);
        });
    };
    ck_assert_has(inject(3, 0), "hidden has 7 elements, the rows need 9");
    ck_assert_has(inject(2, 2), "gradreg_probe_inject");
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                               [&] { probe.observe(logits, 2, 4, 0, 0); }),
                  "logits has 7 elements, the rows need 8");
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                               [&] { probe.observe(logits, 2, 3, 3, 0); }),
                  "gradreg_probe_observe");
}
END_TEST

START_TEST(a_probe_moves_and_keeps_its_context_open)
{
    static_assert(!std::is_copy_constructible_v<gradreg::probe>);
    static_assert(std::is_nothrow_move_assignable_v<gradreg::probe>);
    auto context = std::make_unique<gradreg::context>(quiet());
    gradreg_probe_params wrong = two_trials();
    wrong.layer_count = 0;
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                               [&] { gradreg::probe none(*context, wrong); }),
                  "layer_count");
    gradreg::probe old(*context, two_trials()), other(*context, two_trials());
    context.reset();
    gradreg::probe probe = std::move(old);
    ck_assert_ptr_null(old.get());
    ck_assert_has(
        thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT, [&] { old.summary(); }),
        "gradreg_probe_summary");
    ck_assert_has(
        thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT, [&] { old.reset(); }),
        "gradreg_probe_reset");
    gradreg_probe *handle = probe.get();
    other = std::move(probe); /* its own is destroyed */
    ck_assert_ptr_eq(other.get(), handle);
    ck_assert_ptr_null(probe.get());
    ck_assert_uint_eq(other.summary().size(), 2);
}
END_TEST

START_TEST(monitors_give_the_numbers_of_the_c_calls)
{
    gradreg::context context = quiet();
    const std::vector<std::int32_t> tokens{ 1, 2, 1, 2, 3 };
    ck_assert_double_eq(gradreg::distinct_ngrams(tokens, 2), 0.75);
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                               [&] { gradreg::distinct_ngrams(tokens, 0); }),
                  "order");
    const std::vector<float> values{ 1, 3, 5, 8 };
    const std::vector<double> mean = gradreg::moving_average(values, 2);
    ck_assert(mean == (std::vector<double>{ 1, 2, 4, 6.5 }));
    ck_assert_has(thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                               [&] { gradreg::moving_average(values, 0); }),
                  "window");

    const std::vector<float> p{ 0.5f, 0.5f, 1, 0 }, q{ 0.25f, 0.75f, 0, 1 };
    std::vector<float> want(2), given(2);
    ck_assert_int_eq(
        gradreg_js_divergence(context.get(), want.data(), p.data(), q.data(), 2, 2),
        GRADREG_OK);
    ck_assert(same_bits(gradreg::js_divergence(context, p, q, 2), want));
    gradreg::js_divergence(context, given, p, q, 2);
    ck_assert(same_bits(given, want));
    ck_assert_float_eq(want[1], std::log(2.0f));
    ck_assert_has(
        thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                     [&] { gradreg::js_divergence(context, p, want, 2); }),
        "q has 2 elements, expected 4");
    ck_assert_has(
        thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                     [&] { gradreg::js_divergence(context, p, q, 3); }),
        "p has 4 elements, expected 3");
    ck_assert_has(
        thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT,
                                     [&] { gradreg::js_divergence(context, {}, {}, {}, 0); }),
        "gradreg_js_divergence");

    quadratic before, after;
    after.weights[0] += 3, after.weights[3] += 4, after.weights[5] -= 2;
    const gradreg::span<const float> b(before.weights), a(after.weights);
    auto segments = table();
    const std::vector<double> norms = gradreg::weight_delta(context, b, a, segments);
    ck_assert(norms == (std::vector<double>{ 5, 2 }));
    std::vector<double> c(2), one(1);
    ck_assert_int_eq(gradreg_weight_delta(context.get(), c.data(), b.data(), a.data(),
                                          GRADREG_TYPE_F32, segments.data(), 2),
                     GRADREG_OK);
    ck_assert(norms == c);
    const auto refused = [&](auto &&call) {
        return thrown<gradreg::usage_error>(GRADREG_ERROR_INVALID_ARGUMENT, call);
    };
    ck_assert_has(refused([&] { gradreg::weight_delta(context, one, b, a, segments); }),
                  "norms has 1 elements, expected 2");
    const gradreg::span<const float> few(a.data(), 7);
    ck_assert_has(refused([&] { gradreg::weight_delta(context, b, few, segments); }),
                  "after has 7 elements, expected 8");
    ck_assert_has(refused([&] { gradreg::weight_delta(context, few, few, segments); }),
                  "segment 1 ends behind the 7 elements");
    segments[1].param_type = GRADREG_TYPE_BF16;
    ck_assert_has(refused([&] { gradreg::weight_delta(context, b, a, segments); }),
                  "gradreg_weight_delta");
}
END_TEST

} // namespace

int main()
{
    Suite *suite = suite_create("cpp");
    TCase *all = tcase_create("cpp");
    tcase_add_test(all, a_failure_carries_the_librarys_sentence);
    tcase_add_test(all, without_a_module_the_cuda_backend_is_refused);
    tcase_add_test(all, the_class_of_an_exception_says_what_to_do);
    tcase_add_test(all, handles_move_and_what_was_moved_from_is_refused);
    tcase_add_test(all, a_regularizer_keeps_its_context_open);
    tcase_add_test(all, remarks_arrive_and_a_log_that_throws_is_survived);
    tcase_add_test(all, regularize_gives_the_bits_of_the_c_calls);
    tcase_add_test(all, a_step_that_an_exception_leaves_is_cancelled);
    tcase_add_test(all, calls_out_of_order_name_the_state);
    tcase_add_test(all, a_saved_state_continues);
    tcase_add_test(all, wrong_types_and_lengths_are_refused);
    tcase_add_test(all, a_gradient_that_vanished_between_the_passes_is_refused);
    tcase_add_test(all, what_all_reduce_throws_comes_out_of_the_call);
    tcase_add_test(all, a_second_thread_on_a_handle_is_refused);
    tcase_add_test(all, policy_loss_gives_the_bits_of_the_c_call);
    tcase_add_test(all, advantages_come_group_by_group);
    tcase_add_test(all, log_probs_give_the_bits_of_the_c_calls);
    tcase_add_test(all, losses_write_into_the_callers_memory);
    tcase_add_test(all, policy_logits_gives_the_bits_of_the_c_call);
    tcase_add_test(all, linear_log_probs_give_the_numbers_of_the_c_calls);
    tcase_add_test(all, a_probe_gives_the_numbers_of_the_c_calls);
    tcase_add_test(all, a_probe_moves_and_keeps_its_context_open);
    tcase_add_test(all, monitors_give_the_numbers_of_the_c_calls);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
