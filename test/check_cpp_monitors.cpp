/* check_cpp_monitors.cpp - the probe and the monitors in C++: a part of check_cpp.cpp. */
#include <cmath>
#include <memory>

#include "cpp_rig.h"

namespace
{

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

void add_monitor_tests(TCase *all)
{
    tcase_add_test(all, a_probe_gives_the_numbers_of_the_c_calls);
    tcase_add_test(all, a_probe_moves_and_keeps_its_context_open);
    tcase_add_test(all, monitors_give_the_numbers_of_the_c_calls);
}
