/* check_cpp.cpp - examples/cpp/gradreg.hpp: handles, exceptions, steps and losses in C++. */
#include <check.h>

#include <cmath>
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

} // namespace

int main()
{
    Suite *suite = suite_create("cpp");
    TCase *all = tcase_create("cpp");
    tcase_add_test(all, a_failure_carries_the_librarys_sentence);
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
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
