/* check_bad_policy_logits.c - what gradreg_policy_logits must refuse: a part of check_bad_logits.c. */
#include "bad_logits.h"

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

START_TEST(null_arguments_of_the_fused_call_are_named)
{
    float *const l = own.arrays[LOGP], *const h = own.arrays[ENTROPY];
    float *const x = own.logits, *const g = own.dlogits;
    int32_t *const t = own.targets;
    gradreg_context *const c = context;
#define FUSED(c, g, x, t, b, p, q) gradreg_policy_logits(c, NULL, g, l, h, x, t, b, p, q)
    assert_fails(FUSED(NULL, g, x, t, &own.batch, &own.policy, &own.params), invalid,
                 "'context'");
    assert_fails(FUSED(c, g, x, t, NULL, &own.policy, &own.params), invalid, "'batch'");
    assert_fails(FUSED(c, g, x, t, &own.batch, NULL, &own.params), invalid, "'policy'");
    assert_fails(FUSED(c, g, x, t, &own.batch, &own.policy, NULL), invalid, "'params'");
    assert_fails(FUSED(c, NULL, x, t, &own.batch, &own.policy, &own.params), invalid,
                 "'dlogits'");
    assert_fails(FUSED(c, g, NULL, t, &own.batch, &own.policy, &own.params), invalid,
                 "'logits'");
    assert_fails(FUSED(c, g, x, NULL, &own.batch, &own.policy, &own.params), invalid,
                 "'targets'");
#undef FUSED
    assert_refused(gradreg_policy_logits_scratch_bytes(NULL, 1, &own.params), invalid, "'out'");
    assert_refused(gradreg_policy_logits_scratch_bytes(&own.size, 1, NULL), invalid,
                   "'params'");
    assert_refused(gradreg_policy_logits_scratch_bytes(&own.size, SIZE_MAX, &own.params),
                   invalid, "sequences");
    const gradreg_logits_params good = own.params;
    own.params.vocabulary = own.params.row_stride = 1;
    own.params.rows = SIZE_MAX / 16; /* of which scratch has five f32 each */
    assert_refused(gradreg_policy_logits_scratch_bytes(&own.size, 1, &own.params), invalid,
                   "params.rows", "large");
    own.params = good;
    own.params.struct_size += TAIL;
    own.params_tail[0] = 1;
    assert_refused(gradreg_policy_logits_scratch_bytes(&own.size, 1, &own.params),
                   GRADREG_ERROR_UNSUPPORTED, "params");
}
END_TEST

START_TEST(what_needs_a_whole_sequence_is_unsupported_and_names_the_three_calls)
{
    const gradreg_status unsupported = GRADREG_ERROR_UNSUPPORTED;
    const gradreg_policy good = own.policy;
    own.policy.ratio_level = GRADREG_RATIO_SEQUENCE;
    refuse_fused(unsupported, "policy.ratio_level", "gradreg_logprobs_backward");
    own.policy.ratio_level = GRADREG_RATIO_SEQUENCE_TOKEN;
    refuse_fused(unsupported, "policy.ratio_level", "gradreg_policy_loss");
    own.policy = good;
    own.policy.surrogate = GRADREG_SURROGATE_GEOMETRIC_MEAN;
    refuse_fused(unsupported, "policy.surrogate", "gradreg_logprobs_forward");
    own.policy = good;
    own.policy.off_policy_threshold = 0.5;
    refuse_fused(unsupported, "policy.off_policy_threshold", "0.5");
    own.policy = good;
    own.policy.rollout_mode = GRADREG_ROLLOUT_SEQUENCE_MASK;
    own.batch.rollout_logp = own.arrays[LSE];
    refuse_fused(unsupported, "policy.rollout_mode", "old_logp");
    own.batch.old_logp = own.arrays[DLOGP];
    accept_fused();
}
END_TEST

START_TEST(the_batch_must_fit_the_logits)
{
    own.batch.logp = own.arrays[LSE];
    refuse_fused(invalid, "batch.logp", "NULL");
    own.batch.logp = NULL;
    own.batch.entropy = own.arrays[LSE];
    refuse_fused(invalid, "batch.entropy", "NULL");
    own.batch.entropy = NULL;
    own.batch.length = ROWS + 1;
    refuse_fused(invalid, "params.rows is 3", "4");
    own.batch.length = ROWS;
    own.batch.advantages = NULL;
    refuse_fused(invalid, "batch.advantages", "NULL");
    own.batch.advantages = own.arrays[LOGP] + ROWS + 4;
    own.policy.kl = GRADREG_KL_K3;
    refuse_fused(invalid, "batch.ref_logp", "NULL");
    own.policy.kl = GRADREG_KL_NONE;
    own.policy.clip_low = -1.0;
    refuse_fused(invalid, "policy.clip_low", "-1");
    own.policy.clip_low = 0.2;
    own.params.temperature = -1.0f;
    refuse_fused(invalid, "params.temperature", "-1");
    own.params.temperature = 1.0f;
    if (!on_cuda()) { /* metrics and targets are on the device */
        own.metrics.struct_size = 8;
        refuse_fused(invalid, "metrics.struct_size", "8");
        own.metrics.struct_size = sizeof(own.metrics);
        own.targets[1] = VOCABULARY;
        refuse_fused(invalid, "targets[1]", "7");
        own.targets[1] = -1;
    }
    accept_fused();
}
END_TEST

START_TEST(the_fused_call_overlaps_nothing_but_the_gradient_its_logits)
{
    float *const l = own.arrays[LOGP], *const h = own.arrays[ENTROPY];
    float *const x = own.logits, *const g = own.dlogits;
#define FUSED(g, l, h)                                                                     \
    gradreg_policy_logits(context, NULL, g, l, h, x, own.targets, &own.batch, &own.policy, \
                          &own.params)
    own.batch.old_logp = own.arrays[DLOGP];
    assert_fails(FUSED(x + 1, l, h), invalid, "dlogits", "overlaps", "logits");
    assert_fails(FUSED(g, g, h), invalid, "dlogits", "overlaps", "logp");
    assert_fails(FUSED(g, l, l + 1), invalid, "logp", "overlaps", "entropy");
    assert_fails(FUSED(g, own.arrays[DLOGP] + 1, h), invalid, "logp", "overlaps", "old_logp");
    assert_fails(FUSED(g, shifted(l, 1), h), invalid, "logp", "aligned");
    assert_ok(FUSED(x, l, h));
#undef FUSED
}
END_TEST

START_TEST(scratch_is_found_or_nothing_is_written)
{
    allocator.fail_at = allocator.calls + 1;
    allocator.fail_onwards = true;
    refuse_fused(GRADREG_ERROR_OUT_OF_MEMORY, "allocate", "bytes");
    allocator.fail_at = 0;
    allocator.fail_onwards = false;
    assert_accepted(gradreg_policy_logits_scratch_bytes(&own.size, 1, &own.params));
    assert_ok(gradreg_context_reserve(context, own.size));
    const size_t calls = allocator.calls;
    accept_fused();
    accept_both(); /* and these need none */
    ck_assert_uint_eq(allocator.calls, calls);
}
END_TEST

TCase *bad_policy_logits_case(void)
{
    TCase *tc = tcase_create("policy logits");
    tcase_add_checked_fixture(tc, set_up, refusals_close);
    tcase_add_test(tc, null_arguments_of_the_fused_call_are_named);
    tcase_add_test(tc, what_needs_a_whole_sequence_is_unsupported_and_names_the_three_calls);
    tcase_add_test(tc, the_batch_must_fit_the_logits);
    tcase_add_test(tc, the_fused_call_overlaps_nothing_but_the_gradient_its_logits);
    tcase_add_test(tc, scratch_is_found_or_nothing_is_written);
    return tc;
}
