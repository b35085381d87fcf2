/* check_bad_logits.c - the calls over logits with everything that they must refuse.
 *
 * In: logits, targets, gradients, params, all in one block, with one thing wrong. Out: the documented
 * status, a sentence that names function, argument and value, and not a byte of the block changed.
 * main() holds what was called against the header (coverage.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "refusals.h"

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

enum {
    ROWS = 3,
    WIDTH = 5,
    VOCABULARY = 7,
    SPARE = 16,
    TAIL = 64,
    MATRIX = ROWS * (VOCABULARY + 2)
};

enum array { LOGP, ENTROPY, LSE, DLOGP, DENTROPY, ARRAYS };

/* All that is the caller's. */
typedef struct belongings {
    gradreg_logits_params params;
    unsigned char params_tail[TAIL];
    float logits[MATRIX + SPARE], dlogits[MATRIX + SPARE];
    int32_t targets[ROWS + SPARE];
    float arrays[ARRAYS][ROWS + SPARE];
    gradreg_linear_params linear;
    unsigned char linear_tail[TAIL];
    float hidden[ROWS * WIDTH + SPARE], weight[VOCABULARY * WIDTH + SPARE];
    float dhidden[ROWS * WIDTH + SPARE], dweight[VOCABULARY * WIDTH + SPARE];
    gradreg_policy policy;
    gradreg_policy_batch batch;
    gradreg_policy_metrics metrics;
    size_t size;
} belongings;

static belongings own;
static gradreg_context *context;
static counting_allocator allocator;

static void set_up(void)
{
    const gradreg_logits_params params = GRADREG_LOGITS_PARAMS_INIT;
    const gradreg_linear_params linear = GRADREG_LINEAR_PARAMS_INIT;
    const gradreg_policy policy = GRADREG_POLICY_INIT;
    const gradreg_policy_batch batch = GRADREG_POLICY_BATCH_INIT;
    const gradreg_policy_metrics metrics = GRADREG_POLICY_METRICS_INIT;
    gradreg_context_params how = GRADREG_CONTEXT_PARAMS_INIT;
    memset(&own, 0, sizeof(own));
    refusals_watch(&own, sizeof(own));
    memset(&allocator, 0, sizeof(allocator));
    own.params = params;
    own.params.rows = ROWS;
    own.params.vocabulary = VOCABULARY;
    for (size_t i = 0; i < MATRIX + SPARE; i++)
        own.logits[i] = (float)(i % 5);
    for (size_t k = 0; k < ARRAYS; k++)
        for (size_t i = 0; i < ROWS + SPARE; i++)
            own.arrays[k][i] = 1.0f + (float)k;
    own.linear = linear;
    own.linear.rows = ROWS;
    own.linear.width = WIDTH;
    own.linear.vocabulary = VOCABULARY;
    own.policy = policy;
    own.batch = batch;
    own.metrics = metrics;
    own.batch.sequences = 1;
    own.batch.length = ROWS;
    own.batch.advantages = own.arrays[LOGP] + ROWS + 4;
    how.allocator = counting_hook(&allocator);
    how.threads = 1;
    assert_ok(gradreg_context_create(&context, &how));
}

static void tear_down(void)
{
    assert_ok(gradreg_context_destroy(context));
    counting_check(&allocator);
}

/* ---- refusals --------------------------------------------------------------------- */

static void refuse_both(gradreg_status want, const char *word, const char *value)
{
    float *const *a = (float *const[]){ own.arrays[0], own.arrays[1], own.arrays[2],
                                        own.arrays[3], own.arrays[4] };
    assert_refused(gradreg_logprobs_forward(context, a[LOGP], a[ENTROPY], a[LSE], own.logits,
                                            own.targets, &own.params),
                   want, word, value);
    assert_refused(gradreg_logprobs_backward(context, own.dlogits, own.logits, own.targets,
                                             a[LSE], a[ENTROPY], a[DLOGP], a[DENTROPY],
                                             &own.params),
                   want, word, value);
}

static void accept_both(void)
{
    assert_accepted(gradreg_logprobs_forward(context, own.arrays[LOGP], own.arrays[ENTROPY],
                                             own.arrays[LSE], own.logits, own.targets,
                                             &own.params));
    assert_accepted(gradreg_logprobs_backward(
        context, own.dlogits, own.logits, own.targets, own.arrays[LSE], own.arrays[ENTROPY],
        own.arrays[DLOGP], own.arrays[DENTROPY], &own.params));
}

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
    const uint32_t good = own.params.struct_size;
    const uint32_t bad[] = { 0, 4, good - 1, 4097, UINT32_MAX };
    for (int i = 0; i < 5; i++) {
        char value[32];
        (void)snprintf(value, sizeof(value), "%lu", (unsigned long)bad[i]);
        own.params.struct_size = bad[i];
        refuse_both(invalid, "params.struct_size", value);
    }
    own.params.struct_size = good + TAIL;
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

static float *shifted(float *at, size_t bytes)
{
    return (float *)(void *)((char *)at + bytes);
}

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

/* ---- the fused call --------------------------------------------------------------- */

static void refuse_fused(gradreg_status want, const char *word, const char *value)
{
    assert_refused(gradreg_policy_logits(context, &own.metrics, own.dlogits, own.arrays[LOGP],
                                         own.arrays[ENTROPY], own.logits, own.targets,
                                         &own.batch, &own.policy, &own.params),
                   want, word, value);
}

static void accept_fused(void)
{
    assert_accepted(gradreg_policy_logits(context, &own.metrics, own.dlogits, own.arrays[LOGP],
                                          own.arrays[ENTROPY], own.logits, own.targets,
                                          &own.batch, &own.policy, &own.params));
}

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
    own.metrics.struct_size = 8;
    refuse_fused(invalid, "metrics.struct_size", "8");
    own.metrics.struct_size = sizeof(own.metrics);
    own.targets[1] = VOCABULARY;
    refuse_fused(invalid, "targets[1]", "7");
    own.targets[1] = -1;
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

/* ---- from hidden states ----------------------------------------------------------- */

static void refuse_linear(gradreg_status want, const char *word, const char *value)
{
    float(*const a)[ROWS + SPARE] = own.arrays;
    assert_refused(gradreg_linear_logprobs_forward(context, a[LOGP], a[ENTROPY], a[LSE],
                                                   own.hidden, own.weight, own.targets,
                                                   &own.linear),
                   want, word, value);
    assert_refused(gradreg_linear_logprobs_backward(
                       context, own.dhidden, own.dweight, own.hidden, own.weight, own.targets,
                       a[LSE], a[ENTROPY], a[DLOGP], a[DENTROPY], &own.linear),
                   want, word, value);
}

static void accept_linear(void)
{
#if GR_TEST_BLAS
    float(*const a)[ROWS + SPARE] = own.arrays;
    assert_accepted(gradreg_linear_logprobs_forward(context, a[LOGP], a[ENTROPY], a[LSE],
                                                    own.hidden, own.weight, own.targets,
                                                    &own.linear));
    assert_accepted(gradreg_linear_logprobs_backward(
        context, own.dhidden, own.dweight, own.hidden, own.weight, own.targets, a[LSE],
        a[ENTROPY], a[DLOGP], a[DENTROPY], &own.linear));
#else
    refuse_linear(GRADREG_ERROR_UNSUPPORTED, "libopenblas-dev", "blas");
#endif
}

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

/* ---- two users -------------------------------------------------------------------- */

static gradreg_context *in_use;
static int visits;

/* A host's thread pool that calls back into the library. */
static void call_from_within(void *user, size_t count, void (*body)(void *task, size_t index),
                             void *task)
{
    gradreg_context *const ours = context;
    (void)user;
    visits++;
    context = in_use;
    refuse_both(GRADREG_ERROR_STATE, "context", "use");
    refuse_fused(GRADREG_ERROR_STATE, "context", "use");
#if GR_TEST_BLAS
    refuse_linear(GRADREG_ERROR_STATE, "context", "use");
#endif
    context = ours;
    for (size_t i = 0; i < count; i++)
        body(task, i);
}

START_TEST(a_context_in_use_is_refused)
{
    gradreg_context_params how = GRADREG_CONTEXT_PARAMS_INIT;
    how.parallel_for.function = call_from_within;
    how.threads = 4;
    assert_ok(gradreg_context_create(&in_use, &how));
    assert_ok(gradreg_logprobs_forward(in_use, own.arrays[LOGP], NULL, NULL, own.logits,
                                       own.targets, &own.params));
    ck_assert_int_gt(visits, 0);
    assert_ok(gradreg_context_destroy(in_use));
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
    TCase *tc = tcase_create("core");
    tcase_add_checked_fixture(tc, set_up, tear_down);
    coverage_open();
    tcase_add_loop_test(tc, init_refuses_null_and_sizes_that_no_version_had, 0, INITS);
    tcase_add_test(tc, null_arguments_are_named);
    tcase_add_test(tc, params_of_other_versions);
    tcase_add_test(tc, bad_fields_are_named);
    tcase_add_test(tc, a_bad_target_is_named_with_its_row_before_anything_is_written);
    tcase_add_test(tc, misaligned_buffers_are_named);
    tcase_add_test(tc, what_is_written_overlaps_nothing_but_the_gradient_its_logits);
    tcase_add_test(tc, null_arguments_of_the_fused_call_are_named);
    tcase_add_test(tc, what_needs_a_whole_sequence_is_unsupported_and_names_the_three_calls);
    tcase_add_test(tc, the_batch_must_fit_the_logits);
    tcase_add_test(tc, the_fused_call_overlaps_nothing_but_the_gradient_its_logits);
    tcase_add_test(tc, scratch_is_found_or_nothing_is_written);
    tcase_add_test(tc, null_arguments_of_the_linear_calls_are_named);
    tcase_add_test(tc, bad_fields_of_linear_params_are_named);
    tcase_add_test(tc, bad_targets_and_buffers_of_the_linear_calls_are_named);
#if GR_TEST_BLAS
    tcase_add_test(tc, scratch_of_a_chunk_is_found_or_nothing_is_written);
#endif
    tcase_add_test(tc, a_context_in_use_is_refused);
    suite_add_tcase(suite, tc);
    return refusals_run(suite, is_mine);
}
