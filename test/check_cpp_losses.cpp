/* check_cpp_losses.cpp - losses, advantages and log-probs in C++: a part of check_cpp.cpp. */
#include <cstdint>

#include "cpp_rig.h"

namespace
{

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

} // namespace

void add_loss_tests(TCase *all)
{
    tcase_add_test(all, policy_loss_gives_the_bits_of_the_c_call);
    tcase_add_test(all, advantages_come_group_by_group);
    tcase_add_test(all, log_probs_give_the_bits_of_the_c_calls);
    tcase_add_test(all, losses_write_into_the_callers_memory);
    tcase_add_test(all, policy_logits_gives_the_bits_of_the_c_call);
    tcase_add_test(all, linear_log_probs_give_the_numbers_of_the_c_calls);
}
