/* check_bad_logits.c - the calls over logits with everything that they must refuse.
 *
 * In: logits, targets, gradients, params, all in one block, with one thing wrong. Out: the documented
 * status, a sentence that names function, argument and value, and not a byte of the block changed.
 * main() holds what was called against the header (coverage.h). The fused call and those from hidden
 * states are parts of their own: check_bad_policy_logits.c, check_bad_linear.c. */
#include <math.h>
#include <string.h>

#include "bad_logits.h"

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

/* ---- init functions --------------------------------------------------------------- */

REFUSALS_INIT(logits_params)
REFUSALS_INIT(linear_params)

static const struct init_row inits[] = { REFUSALS_ROW(logits_params),
                                         REFUSALS_ROW(linear_params) };
enum { INITS = sizeof(inits) / sizeof(inits[0]) };

START_TEST(init_refuses_null_and_sizes_that_no_version_had)
{
    refusals_of_init(&inits[_i]);
}
END_TEST

/* ---- pointers and sizes of structs ------------------------------------------------ */

START_TEST(null_arguments_are_named)
{
    float *const *a = (float *const[]){ own.arrays[0], own.arrays[1], own.arrays[2],
                                        own.arrays[3], own.arrays[4] };
    float *const x = own.logits, *const g = own.dlogits;
    int32_t *const t = own.targets;
    const gradreg_logits_params *const p = &own.params;
    gradreg_context *const c = context;
    assert_refused(gradreg_logprobs_forward(NULL, a[LOGP], a[ENTROPY], a[LSE], x, t, p),
                   invalid, "'context'");
    assert_refused(gradreg_logprobs_forward(c, a[LOGP], a[ENTROPY], a[LSE], x, t, NULL),
                   invalid, "'params'");
    assert_refused(gradreg_logprobs_forward(c, NULL, a[ENTROPY], a[LSE], x, t, p), invalid,
                   "'logp'");
    assert_refused(gradreg_logprobs_forward(c, a[LOGP], NULL, NULL, NULL, t, p), invalid,
                   "'logits'");
    assert_refused(gradreg_logprobs_forward(c, a[LOGP], NULL, NULL, x, NULL, p), invalid,
                   "'targets'");
#define BACKWARD(dx, x, t, lse, h, dl, dh) \
    gradreg_logprobs_backward(c, dx, x, t, lse, h, dl, dh, p)
    assert_refused(
        gradreg_logprobs_backward(NULL, g, x, t, a[LSE], a[ENTROPY], a[DLOGP], a[DENTROPY], p),
        invalid, "'context'");
    assert_refused(
        gradreg_logprobs_backward(c, g, x, t, a[LSE], a[ENTROPY], a[DLOGP], a[DENTROPY], NULL),
        invalid, "'params'");
    assert_fails(BACKWARD(NULL, x, t, a[LSE], NULL, a[DLOGP], NULL), invalid, "'dlogits'");
    assert_fails(BACKWARD(g, NULL, t, a[LSE], NULL, a[DLOGP], NULL), invalid, "'logits'");
    assert_fails(BACKWARD(g, x, NULL, a[LSE], NULL, a[DLOGP], NULL), invalid, "'targets'");
    assert_fails(BACKWARD(g, x, t, NULL, NULL, a[DLOGP], NULL), invalid, "'log_sum_exp'");
    assert_fails(BACKWARD(g, x, t, a[LSE], NULL, NULL, NULL), invalid, "'dlogp'");
    assert_fails(BACKWARD(g, x, t, a[LSE], NULL, a[DLOGP], a[DENTROPY]), invalid, "'entropy'",
                 "dentropy");
#undef BACKWARD
}
END_TEST

START_TEST(params_of_other_versions)
{
    refusals_of_size(&own.params.struct_size, "params.struct_size", refuse_both);
    own.params.struct_size += TAIL;
    accept_both();
    own.params_tail[TAIL - 1] = 1;
    refuse_both(GRADREG_ERROR_UNSUPPORTED, "params", gradreg_version());
}
END_TEST

/* ---- fields ----------------------------------------------------------------------- */

START_TEST(bad_fields_are_named)
{
    const gradreg_logits_params good = own.params;
    static const struct {
        int32_t type;
        const char *value;
    } bad_types[] = { { -1, "-1" }, { 4, "4" }, { INT32_MAX, "2147483647" } };
    static const struct {
        float temperature;
        const char *value;
    } bad_temperatures[] = {
        { -1.0f, "-1" },        { (float)NAN, "nan" },  { HUGE_VALF, "inf" },
        { -HUGE_VALF, "-inf" }, { 0x1p-140f, "range" },
    };
    for (int i = 0; i < 3; i++) {
        own.params.type = bad_types[i].type;
        refuse_both(invalid, "params.type", bad_types[i].value);
    }
    own.params = good;
    for (int i = 0; i < 5; i++) {
        own.params.temperature = bad_temperatures[i].temperature;
        refuse_both(invalid, "params.temperature", bad_temperatures[i].value);
    }
    own.params = good;
    own.params.reserved0 = 1;
    refuse_both(invalid, "params.reserved0", "0");
    own.params = good;
    own.params.vocabulary = 0;
    refuse_both(invalid, "params.vocabulary", "0");
    own.params.vocabulary = (size_t)1 << 31;
    refuse_both(invalid, "params.vocabulary", "2147483648");
    own.params = good;
    own.params.row_stride = VOCABULARY - 1;
    refuse_both(invalid, "params.row_stride", "6");
    own.params = good;
    own.params.rows = SIZE_MAX;
    refuse_both(invalid, "params.rows", "18446744073709551615");
    own.params = good;
    own.params.row_stride = SIZE_MAX / 4;
    refuse_both(invalid, "row_stride", "large");
    own.params = good;
    own.params.type = 0;
    own.params.row_stride = VOCABULARY + 2;
    own.params.temperature = 0.0f;
    accept_both();
}
END_TEST

START_TEST(a_bad_target_is_named_with_its_row_before_anything_is_written)
{
    LEAVE_OUT_ON_CUDA("targets are on the device: a row with a bad one becomes NaN");
    static const struct {
        int32_t target;
        const char *value;
    } bad[] = { { -2, "-2" }, { VOCABULARY, "7" }, { INT32_MAX, "2147483647" } };
    for (int i = 0; i < 3; i++) {
        own.targets[ROWS - 1] = bad[i].target;
        refuse_both(invalid, "targets[2]", bad[i].value);
    }
    own.targets[ROWS - 1] = -1;
    accept_both();
}
END_TEST

/* ---- buffers ---------------------------------------------------------------------- */

START_TEST(misaligned_buffers_are_named)
{
    float *const *a = (float *const[]){ own.arrays[0], own.arrays[1], own.arrays[2],
                                        own.arrays[3], own.arrays[4] };
    float *const x = own.logits, *const g = own.dlogits;
    int32_t *const t = own.targets;
    int32_t *const odd = (int32_t *)(void *)((char *)t + 2);
    const gradreg_logits_params *const p = &own.params;
    gradreg_context *const c = context;
#define FORWARD(l, h, s, x, t) gradreg_logprobs_forward(c, l, h, s, x, t, p)
    assert_fails(FORWARD(shifted(a[LOGP], 1), a[ENTROPY], a[LSE], x, t), invalid, "logp",
                 "aligned");
    assert_fails(FORWARD(a[LOGP], shifted(a[ENTROPY], 2), a[LSE], x, t), invalid, "entropy",
                 "aligned");
    assert_fails(FORWARD(a[LOGP], a[ENTROPY], shifted(a[LSE], 3), x, t), invalid, "log_sum_exp",
                 "aligned");
    assert_fails(FORWARD(a[LOGP], a[ENTROPY], a[LSE], shifted(x, 2), t), invalid, "logits",
                 "aligned to 4");
    assert_fails(FORWARD(a[LOGP], a[ENTROPY], a[LSE], x, odd), invalid, "targets", "aligned");
    own.params.type = GRADREG_TYPE_BF16;
    assert_fails(FORWARD(a[LOGP], a[ENTROPY], a[LSE], shifted(x, 1), t), invalid, "logits",
                 "aligned to 2");
    assert_ok(FORWARD(a[LOGP], a[ENTROPY], a[LSE], shifted(x, 2), t));
    own.params.type = GRADREG_TYPE_F32;
    assert_fails(gradreg_logprobs_backward(c, shifted(g, 1), x, t, a[LSE], a[ENTROPY], a[DLOGP],
                                           a[DENTROPY], p),
                 invalid, "dlogits", "aligned");
    assert_fails(gradreg_logprobs_backward(c, g, x, t, a[LSE], a[ENTROPY], shifted(a[DLOGP], 2),
                                           a[DENTROPY], p),
                 invalid, "dlogp", "aligned");
#undef FORWARD
}
END_TEST

START_TEST(what_is_written_overlaps_nothing_but_the_gradient_its_logits)
{
    float *const *a = (float *const[]){ own.arrays[0], own.arrays[1], own.arrays[2],
                                        own.arrays[3], own.arrays[4] };
    float *const x = own.logits, *const g = own.dlogits;
    int32_t *const t = own.targets;
    const gradreg_logits_params *const p = &own.params;
    gradreg_context *const c = context;
    assert_refused(gradreg_logprobs_forward(c, a[LOGP], a[LOGP] + 1, a[LSE], x, t, p), invalid,
                   "logp", "overlaps", "entropy");
    assert_refused(gradreg_logprobs_forward(c, a[LOGP], a[ENTROPY], a[ENTROPY] + 2, x, t, p),
                   invalid, "entropy", "overlaps", "log_sum_exp");
    assert_refused(gradreg_logprobs_forward(c, x, a[ENTROPY], a[LSE], x, t, p), invalid, "logp",
                   "overlaps", "logits");
    assert_refused(
        gradreg_logprobs_forward(c, a[LOGP], a[ENTROPY], (float *)(void *)t, x, t, p), invalid,
        "log_sum_exp", "overlaps", "targets");
    assert_refused(
        gradreg_logprobs_backward(c, x + 1, x, t, a[LSE], a[ENTROPY], a[DLOGP], a[DENTROPY], p),
        invalid, "dlogits", "overlaps", "logits");
    assert_refused(gradreg_logprobs_backward(c, g, x, t, a[LSE], a[ENTROPY], g + 2, NULL, p),
                   invalid, "dlogits", "overlaps", "dlogp");
    assert_refused(gradreg_logprobs_backward(c, g, x, t, g, a[ENTROPY], a[DLOGP], NULL, p),
                   invalid, "dlogits", "overlaps", "log_sum_exp");
    assert_accepted(
        gradreg_logprobs_backward(c, x, x, t, a[LSE], a[ENTROPY], a[DLOGP], a[DENTROPY], p));
}
END_TEST

/* ---- two users -------------------------------------------------------------------- */

static void use(void)
{
    assert_ok(gradreg_logprobs_forward(context, own.arrays[LOGP], NULL, NULL, own.logits,
                                       own.targets, &own.params));
}

static void call_meanwhile(void)
{
    refuse_both(GRADREG_ERROR_STATE, "context", "use");
    refuse_fused(GRADREG_ERROR_STATE, "context", "use");
#if GR_TEST_BLAS
    refuse_linear(GRADREG_ERROR_STATE, "context", "use");
#endif
}

START_TEST(a_context_in_use_is_refused)
{
    LEAVE_OUT_ON_CUDA("its calls run none of the caller's functions");
    refusals_in_use(use, call_meanwhile);
}
END_TEST

static bool is_mine(const char *name)
{
    static const char *const prefixes[] = { "gradreg_logits_", "gradreg_logprobs_",
                                            "gradreg_policy_logits", "gradreg_linear_" };
    if (!GR_TEST_BLAS && strncmp(name, "gradreg_linear_logprobs_", 24) == 0)
        return false; /* they do nothing in this build */
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

int main(void)
{
    Suite *suite = suite_create("bad logits");
    TCase *tc = tcase_create("logprobs");
    tcase_add_checked_fixture(tc, set_up, refusals_close);
    coverage_open();
    add_loop_test(tc, init_refuses_null_and_sizes_that_no_version_had, 0, INITS);
    tcase_add_test(tc, null_arguments_are_named);
    tcase_add_test(tc, params_of_other_versions);
    tcase_add_test(tc, bad_fields_are_named);
    tcase_add_test(tc, a_bad_target_is_named_with_its_row_before_anything_is_written);
    tcase_add_test(tc, misaligned_buffers_are_named);
    tcase_add_test(tc, what_is_written_overlaps_nothing_but_the_gradient_its_logits);
    tcase_add_test(tc, a_context_in_use_is_refused);
    suite_add_tcase(suite, tc);
    suite_add_tcase(suite, bad_policy_logits_case());
    suite_add_tcase(suite, bad_linear_case());
    return refusals_run(suite, is_mine);
}
