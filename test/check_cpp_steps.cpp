/* check_cpp_steps.cpp - steps, their buffers, ranks and threads in C++: a part of check_cpp.cpp. */
#include <cmath>
#include <stdexcept>
#include <thread>

#include "cpp_rig.h"

namespace
{

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

} // namespace

void add_step_tests(TCase *all)
{
    tcase_add_test(all, regularize_gives_the_bits_of_the_c_calls);
    tcase_add_test(all, a_step_that_an_exception_leaves_is_cancelled);
    tcase_add_test(all, calls_out_of_order_name_the_state);
    tcase_add_test(all, a_saved_state_continues);
    tcase_add_test(all, wrong_types_and_lengths_are_refused);
    tcase_add_test(all, a_gradient_that_vanished_between_the_passes_is_refused);
    tcase_add_test(all, what_all_reduce_throws_comes_out_of_the_call);
    tcase_add_test(all, a_second_thread_on_a_handle_is_refused);
}
