/* check_bad_linear.c - what the calls from hidden states must refuse: a part of check_bad_logits.c. */
#include "bad_logits.h"

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

START_TEST(null_arguments_of_the_linear_calls_are_named)
{
    float(*const a)[ROWS + SPARE] = own.arrays;
    float *const h = own.hidden, *const w = own.weight, *const dh = own.dhidden;
    int32_t *const t = own.targets;
    gradreg_context *const c = context;
    const gradreg_linear_params *const p = &own.linear;
#define FORWARD(c, l, h, w, t, p) gradreg_linear_logprobs_forward(c, l, NULL, NULL, h, w, t, p)
    assert_fails(FORWARD(NULL, a[LOGP], h, w, t, p), invalid, "'context'");
    assert_fails(FORWARD(c, NULL, h, w, t, p), invalid, "'logp'");
    assert_fails(FORWARD(c, a[LOGP], NULL, w, t, p), invalid, "'hidden'");
    assert_fails(FORWARD(c, a[LOGP], h, NULL, t, p), invalid, "'weight'");
    assert_fails(FORWARD(c, a[LOGP], h, w, NULL, p), invalid, "'targets'");
    assert_fails(FORWARD(c, a[LOGP], h, w, t, NULL), invalid, "'params'");
#undef FORWARD
#define BACKWARD(c, dh, s, dl, e, p) \
    gradreg_linear_logprobs_backward(c, dh, NULL, h, w, t, s, NULL, dl, e, p)
    assert_fails(BACKWARD(NULL, dh, a[LSE], a[DLOGP], NULL, p), invalid, "'context'");
    assert_fails(BACKWARD(c, NULL, a[LSE], a[DLOGP], NULL, p), invalid, "dhidden", "dweight");
    assert_fails(BACKWARD(c, dh, NULL, a[DLOGP], NULL, p), invalid, "'log_sum_exp'");
    assert_fails(BACKWARD(c, dh, a[LSE], NULL, NULL, p), invalid, "'dlogp'");
    assert_fails(BACKWARD(c, dh, a[LSE], a[DLOGP], a[DENTROPY], p), invalid, "'entropy'");
    assert_fails(BACKWARD(c, dh, a[LSE], a[DLOGP], NULL, NULL), invalid, "'params'");
#undef BACKWARD
    assert_refused(gradreg_linear_logprobs_scratch_bytes(NULL, p), invalid, "'out'");
    assert_refused(gradreg_linear_logprobs_scratch_bytes(&own.size, NULL), invalid, "'params'");
}
END_TEST

START_TEST(bad_fields_of_linear_params_are_named)
{
    const gradreg_linear_params good = own.linear;
#define REFUSE(field, value, ...)            \
    do {                                     \
        own.linear.field = value;            \
        refuse_linear(invalid, __VA_ARGS__); \
        own.linear = good;                   \
    } while (0)
    REFUSE(struct_size, 4, "params.struct_size", "4");
    REFUSE(type, 4, "params.type", "4");
    REFUSE(gradient_type, -1, "params.gradient_type", "-1");
    REFUSE(add_weight_gradient, 2, "params.add_weight_gradient", "2");
    REFUSE(width, 0, "params.width", "0");
    REFUSE(width, (size_t)1 << 31, "params.width", "2147483648");
    REFUSE(vocabulary, 0, "params.vocabulary", "0");
    REFUSE(vocabulary, (size_t)1 << 31, "params.vocabulary", "2147483648");
    REFUSE(hidden_stride, WIDTH - 1, "params.hidden_stride", "4");
    REFUSE(weight_stride, WIDTH - 1, "params.weight_stride", "4");
    REFUSE(weight_stride, (size_t)1 << 31, "params.weight_stride", "2147483648");
    REFUSE(chunk_rows, (size_t)1 << 31, "params.chunk_rows", "2147483648");
    REFUSE(rows, SIZE_MAX, "params.rows", "18446744073709551615");
    REFUSE(temperature, -2.0f, "params.temperature", "-2");
    REFUSE(reserved0, 1, "params.reserved0", "0");
#undef REFUSE
    own.linear.struct_size += TAIL;
    own.linear_tail[0] = 1;
    refuse_linear(GRADREG_ERROR_UNSUPPORTED, "params", gradreg_version());
    assert_refused(gradreg_linear_logprobs_scratch_bytes(&own.size, &own.linear),
                   GRADREG_ERROR_UNSUPPORTED, "params");
    own.linear = good;
    accept_linear();
}
END_TEST

START_TEST(bad_targets_and_buffers_of_the_linear_calls_are_named)
{
    float(*const a)[ROWS + SPARE] = own.arrays;
    float *const h = own.hidden, *const w = own.weight;
    int32_t *const t = own.targets;
    gradreg_context *const c = context;
    const gradreg_linear_params *const p = &own.linear;
    assert_refused(gradreg_linear_logprobs_forward(c, h, NULL, NULL, h, w, t, p), invalid,
                   "logp", "overlaps", "hidden");
    assert_refused(
        gradreg_linear_logprobs_backward(c, h, NULL, h, w, t, a[LSE], NULL, a[DLOGP], NULL, p),
        invalid, "dhidden", "overlaps", "hidden");
    assert_refused(
        gradreg_linear_logprobs_backward(c, NULL, w, h, w, t, a[LSE], NULL, a[DLOGP], NULL, p),
        invalid, "dweight", "overlaps", "weight");
    assert_refused(gradreg_linear_logprobs_backward(c, own.dweight, own.dweight, h, w, t,
                                                    a[LSE], NULL, a[DLOGP], NULL, p),
                   invalid, "dhidden", "overlaps", "dweight");
    assert_refused(
        gradreg_linear_logprobs_forward(c, a[LOGP], NULL, NULL, shifted(h, 2), w, t, p),
        invalid, "hidden", "aligned");
#if GR_TEST_BLAS
    own.targets[2] = VOCABULARY;
    if (!on_cuda()) /* where targets are on the device: the row becomes NaN */
        refuse_linear(invalid, "targets[2]", "7");
#endif
}
END_TEST

#if GR_TEST_BLAS
START_TEST(scratch_of_a_chunk_is_found_or_nothing_is_written)
{
    allocator.fail_at = allocator.calls + 1;
    allocator.fail_onwards = true;
    refuse_linear(GRADREG_ERROR_OUT_OF_MEMORY, "allocate", "bytes");
    allocator.fail_at = 0;
    allocator.fail_onwards = false;
    assert_accepted(gradreg_linear_logprobs_scratch_bytes(&own.size, &own.linear));
    assert_ok(gradreg_context_reserve(context, own.size));
    const size_t calls = allocator.calls;
    accept_linear();
    ck_assert_uint_eq(allocator.calls, calls);
}
END_TEST
#endif

TCase *bad_linear_case(void)
{
    TCase *tc = tcase_create("linear");
    tcase_add_checked_fixture(tc, set_up, refusals_close);
    tcase_add_test(tc, null_arguments_of_the_linear_calls_are_named);
    tcase_add_test(tc, bad_fields_of_linear_params_are_named);
    tcase_add_test(tc, bad_targets_and_buffers_of_the_linear_calls_are_named);
#if GR_TEST_BLAS
    tcase_add_test(tc, scratch_of_a_chunk_is_found_or_nothing_is_written);
#endif
    return tc;
}
