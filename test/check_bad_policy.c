/* check_bad_policy.c - the policy losses and advantages with everything that they must refuse.
 *
 * In: a batch, a composition, rewards, all in one block, with one thing wrong. Out: the documented
 * status, a sentence that names function, argument and value, and not a byte of the block changed.
 * main() holds what was called against the header (coverage.h). Rewards are a part of their own:
 * check_bad_advantages.c. */
#include <math.h>
#include <string.h>

#include "bad_policy.h"

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

/* ---- init functions --------------------------------------------------------------- */

REFUSALS_INIT(policy)
REFUSALS_INIT(policy_batch)
REFUSALS_INIT(policy_gradient)
REFUSALS_INIT(policy_metrics)
REFUSALS_INIT(advantage_params)

static const struct init_row inits[] = { REFUSALS_ROW(policy), REFUSALS_ROW(policy_batch),
                                         REFUSALS_ROW(policy_gradient),
                                         REFUSALS_ROW(policy_metrics),
                                         REFUSALS_ROW(advantage_params) };
enum { INITS = sizeof(inits) / sizeof(inits[0]) };

START_TEST(init_refuses_null_and_sizes_that_no_version_had)
{
    refusals_of_init(&inits[_i]);
}
END_TEST

/* ---- pointers and sizes of structs ------------------------------------------------ */

START_TEST(null_arguments_are_named)
{
    gradreg_policy *const p = &own.policy;
    gradreg_policy_batch *const b = &own.batch;
    assert_refused(gradreg_policy_loss(NULL, &own.metrics, &own.out, b, p), invalid,
                   "'context'");
    assert_refused(gradreg_policy_loss(context, &own.metrics, NULL, b, p), invalid, "'out'");
    assert_refused(gradreg_policy_loss(context, NULL, &own.out, NULL, p), invalid, "'batch'");
    assert_refused(gradreg_policy_loss(context, NULL, &own.out, b, NULL), invalid, "'policy'");
    assert_refused(gradreg_policy_preset(NULL, "grpo"), invalid, "'out'");
    assert_refused(gradreg_policy_preset(p, NULL), invalid, "'name'");
    assert_refused(gradreg_policy_preset(p, ""), invalid, "name", "\"\"");
    assert_refused(gradreg_policy_preset(p, "GRPO"), invalid, "name", "\"GRPO\"", "grpo@trl");
    assert_refused(gradreg_policy_scratch_bytes(NULL, 1), invalid, "'out'");
    assert_refused(gradreg_policy_scratch_bytes(&own.size, SIZE_MAX), invalid, "sequences");
    assert_refused(gradreg_policy_metrics_read(NULL, &own.read, &own.metrics), invalid,
                   "'context'");
    assert_refused(gradreg_policy_metrics_read(context, NULL, &own.metrics), invalid, "'out'");
    assert_refused(gradreg_policy_metrics_read(context, &own.read, NULL), invalid, "'metrics'");
    assert_refused(gradreg_policy_metrics_read(context, &own.read, &own.read), invalid, "out",
                   "overlaps", "metrics");
    own.read.struct_size = 8;
    assert_refused(gradreg_policy_metrics_read(context, &own.read, &own.metrics), invalid,
                   "out.struct_size", "8");
    coverage_note("gradreg_policy_preset_name", GRADREG_OK, true);
    ck_assert_ptr_null(gradreg_policy_preset_name(SIZE_MAX));
}
END_TEST

START_TEST(structs_of_other_versions)
{
    uint32_t *const sizes[] = { &own.policy.struct_size, &own.batch.struct_size,
                                &own.out.struct_size, &own.metrics.struct_size };
    static const char *const names[] = { "policy.struct_size", "batch.struct_size",
                                         "out.struct_size", "metrics.struct_size" };
    const int read_here = on_cuda() ? 3 : 4; /* metrics are on the device */
    for (int k = 0; k < read_here; k++)
        refusals_of_size(sizes[k], names[k], refuse_loss);
}
END_TEST

START_TEST(fields_of_a_newer_version_are_refused_unless_zero)
{
    uint32_t *const sizes[] = { &own.policy.struct_size, &own.batch.struct_size,
                                &own.out.struct_size };
    unsigned char *const tails[] = { own.policy_tail, own.batch_tail, own.out_tail };
    static const char *const names[] = { "policy", "batch", "out" };
    for (int k = 0; k < 3; k++) {
        *sizes[k] += TAIL;
        accept_loss();
        tails[k][TAIL - 1] = 1;
        refuse_loss(GRADREG_ERROR_UNSUPPORTED, names[k], gradreg_version());
        tails[k][TAIL - 1] = 0;
        *sizes[k] -= TAIL;
    }
    own.params.struct_size += TAIL;
    own.params_tail[0] = 1;
    assert_refused(gradreg_advantages(context, own.arrays[DLOGP], own.arrays[ADVANTAGES], 4, 2,
                                      &own.params),
                   GRADREG_ERROR_UNSUPPORTED, "params");
}
END_TEST

/* ---- fields ----------------------------------------------------------------------- */

typedef struct spoilt {
    const char *name; /* in sentences */
    size_t at;        /* in the struct */
    bool real;
    int32_t integer;
    double number;
    const char *value; /* in sentences */
} spoilt;

#define INTEGER(field, number)                                                         \
    {                                                                                  \
        "policy." #field, offsetof(gradreg_policy, field), false, number, 0.0, #number \
    }
#define REAL(field, number, shown)                                                \
    {                                                                             \
        "policy." #field, offsetof(gradreg_policy, field), true, 0, number, shown \
    }
#define NOT_A_NUMBER(field) REAL(field, (double)NAN, "nan")
#define INFINITE(field)     REAL(field, (double)INFINITY, "inf")
static const spoilt bad_policies[] = {
    INTEGER(ratio_level, -1),
    INTEGER(ratio_level, 4),
    INTEGER(surrogate, -1),
    INTEGER(surrogate, 6),
    INTEGER(kl, -1),
    INTEGER(kl, 6),
    INTEGER(aggregation, -1),
    INTEGER(aggregation, 7),
    INTEGER(rollout_mode, -1),
    INTEGER(rollout_mode, 6),
    INTEGER(rollout_mode, 2147483647),
    INTEGER(kl_ratio_weighted, 2),
    INTEGER(kl_ratio_weighted, -1),
    INTEGER(count_empty_rows, 2),
    INTEGER(count_empty_rows, -1),
    REAL(clip_low, -0.1, "-0.1"),
    NOT_A_NUMBER(clip_low),
    REAL(clip_high, -1e-300, "-1e-300"),
    NOT_A_NUMBER(clip_high),
    REAL(cap, 1.0, "1"),
    REAL(cap, -2.0, "-2"),
    NOT_A_NUMBER(cap),
    INFINITE(cap),
    REAL(dual_clip, 0.5, "0.5"),
    REAL(dual_clip, 1.0, "1"),
    NOT_A_NUMBER(dual_clip),
    INFINITE(dual_clip),
    REAL(gate_positive, 0.0, "0"),
    REAL(gate_positive, -1.0, "-1"),
    NOT_A_NUMBER(gate_positive),
    INFINITE(gate_positive),
    REAL(gate_negative, 0.0, "0"),
    NOT_A_NUMBER(gate_negative),
    INFINITE(gate_negative),
    REAL(log_ratio_limit, -20.0, "-20"),
    NOT_A_NUMBER(log_ratio_limit),
    INFINITE(log_ratio_limit),
    NOT_A_NUMBER(kl_coefficient),
    INFINITE(kl_coefficient),
    REAL(kl_limit, -1.0, "-1"),
    NOT_A_NUMBER(kl_limit),
    INFINITE(kl_limit),
    NOT_A_NUMBER(entropy_coefficient),
    REAL(entropy_coefficient, (double)-INFINITY, "-inf"),
    REAL(off_policy_threshold, -0.5, "-0.5"),
    NOT_A_NUMBER(off_policy_threshold),
    INFINITE(off_policy_threshold),
    REAL(rollout_low, -1.0, "-1"),
    NOT_A_NUMBER(rollout_low),
    INFINITE(rollout_low),
    REAL(rollout_high, 0.0, "0"),
    NOT_A_NUMBER(rollout_high),
    REAL(token_total, -1.0, "-1"),
    NOT_A_NUMBER(token_total),
    INFINITE(token_total),
    REAL(sequence_total, -1.0, "-1"),
    NOT_A_NUMBER(sequence_total),
    INFINITE(sequence_total),
    REAL(prompt_total, -1.0, "-1"),
    NOT_A_NUMBER(prompt_total),
    INFINITE(prompt_total),
    REAL(max_length, -1.0, "-1"),
    NOT_A_NUMBER(max_length),
    INFINITE(max_length),
    NOT_A_NUMBER(loss_scale),
    INFINITE(loss_scale),
    INTEGER(reserved[0], 1),
    INTEGER(reserved[9], 1),
};
enum { BAD_POLICIES = sizeof(bad_policies) / sizeof(bad_policies[0]) };

START_TEST(bad_fields_of_a_policy_are_named)
{
    const spoilt *bad = &bad_policies[_i];
    unsigned char *at = (unsigned char *)&own.policy + bad->at;
    if (bad->real)
        memcpy(at, &bad->number, sizeof(bad->number));
    else
        memcpy(at, &bad->integer, sizeof(bad->integer));
    refuse_loss(invalid, bad->name, strstr(bad->name, "reserved") != NULL ? "0" : bad->value);
    memset(&own.arrays[DLOGP], 0, sizeof(own.arrays[DLOGP]));
    assert_ok(gradreg_policy_init(&own.policy, sizeof(own.policy)));
    accept_loss();
    for (size_t i = 0; i < TOKENS; i++)
        ck_assert(own.arrays[DLOGP][i] != 0.0f || own.arrays[WEIGHT][i] == 0.0f);
}
END_TEST

START_TEST(edges_of_ranges_are_accepted)
{
    own.policy.clip_low = own.policy.clip_high = (double)INFINITY;
    own.policy.cap = own.policy.dual_clip = 1.0000001;
    own.policy.rollout_low = 0.0;
    own.policy.rollout_high = (double)INFINITY;
    own.policy.loss_scale = -2.0;
    own.policy.kl_coefficient = -1.0;
    accept_loss();
    own.policy.rollout_low = 2.0;
    own.policy.rollout_high = 2.0;
    refuse_loss(invalid, "policy.rollout_high", "2");
}
END_TEST

/* ---- arrays ----------------------------------------------------------------------- */

static const struct needed {
    const char *name;
    size_t at;
} needed[] = {
    { "batch.logp", offsetof(gradreg_policy_batch, logp) },
    { "batch.advantages", offsetof(gradreg_policy_batch, advantages) },
    { "batch.ref_logp", offsetof(gradreg_policy_batch, ref_logp) },
    { "batch.rollout_logp", offsetof(gradreg_policy_batch, rollout_logp) },
    { "batch.entropy", offsetof(gradreg_policy_batch, entropy) },
    { "batch.group", offsetof(gradreg_policy_batch, group) },
};
enum { NEEDED = sizeof(needed) / sizeof(needed[0]) };

static void need_everything(void)
{
    own.policy.kl = GRADREG_KL_K3;
    own.policy.kl_coefficient = 0.1;
    own.policy.rollout_mode = GRADREG_ROLLOUT_TOKEN_TRUNCATE;
    own.policy.entropy_coefficient = 0.1;
    own.policy.aggregation = GRADREG_AGGREGATE_PROMPT_MEAN;
}

START_TEST(a_missing_array_is_named)
{
    need_everything();
    memset((unsigned char *)&own.batch + needed[_i].at, 0, sizeof(void *));
    refuse_loss(invalid, needed[_i].name, "NULL");
    own.batch.length = 0; /* without tokens only groups are looked at */
    if (_i == NEEDED - 1)
        refuse_loss(invalid, "batch.group", "NULL");
    else
        accept_loss();
}
END_TEST

START_TEST(a_missing_gradient_is_named)
{
    own.out.dlogp = NULL;
    refuse_loss(invalid, "out.dlogp", "NULL");
    own.out.dlogp = own.arrays[DLOGP];
    own.out.dentropy = NULL;
    accept_loss();
    own.policy.entropy_coefficient = 0.1;
    refuse_loss(invalid, "out.dentropy", "NULL");
    own.out.reserved0 = 1;
    refuse_loss(invalid, "out.reserved0", "0");
}
END_TEST

START_TEST(a_misaligned_array_is_named)
{
    static const struct needed arrays[] = {
        { "batch.logp", offsetof(gradreg_policy_batch, logp) },
        { "batch.old_logp", offsetof(gradreg_policy_batch, old_logp) },
        { "batch.ref_logp", offsetof(gradreg_policy_batch, ref_logp) },
        { "batch.rollout_logp", offsetof(gradreg_policy_batch, rollout_logp) },
        { "batch.token_weight", offsetof(gradreg_policy_batch, token_weight) },
        { "batch.entropy", offsetof(gradreg_policy_batch, entropy) },
        { "batch.advantages", offsetof(gradreg_policy_batch, advantages) },
        { "batch.group", offsetof(gradreg_policy_batch, group) },
    };
    for (size_t k = 0; k < sizeof(arrays) / sizeof(arrays[0]); k++) {
        unsigned char *at = (unsigned char *)&own.batch + arrays[k].at, *pointer;
        memcpy(&pointer, at, sizeof(pointer));
        pointer += 2;
        memcpy(at, &pointer, sizeof(pointer));
        refuse_loss(invalid, arrays[k].name, "aligned");
        pointer -= 2;
        memcpy(at, &pointer, sizeof(pointer));
    }
    own.out.dlogp = (float *)(void *)((unsigned char *)own.arrays[DLOGP] + 1);
    refuse_loss(invalid, "out.dlogp", "aligned");
    own.out.dlogp = own.arrays[DLOGP];
    own.batch.row_offsets = (int64_t *)(void *)((unsigned char *)own.offsets + 4);
    refuse_loss(invalid, "batch.row_offsets", "aligned");
    own.batch.row_offsets = NULL;
    gradreg_policy_metrics *const aside =
        (gradreg_policy_metrics *)(void *)((unsigned char *)&own.metrics + 4);
    assert_refused(gradreg_policy_loss(context, aside, &own.out, &own.batch, &own.policy),
                   invalid, "metrics", "aligned");
}
END_TEST

START_TEST(what_is_written_overlaps_nothing_that_is_read)
{
    static const char *const names[] = { "batch.logp",         "batch.old_logp",
                                         "batch.ref_logp",     "batch.rollout_logp",
                                         "batch.token_weight", "batch.entropy" };
    for (size_t k = 0; k <= ENTROPY; k++) {
        own.out.dlogp = own.arrays[k] + 1;
        refuse_loss(invalid, "out.dlogp", names[k]);
        own.out.dlogp = own.arrays[DLOGP];
        own.out.dentropy = own.arrays[k];
        refuse_loss(invalid, "out.dentropy", names[k]);
        own.out.dentropy = own.arrays[DENTROPY];
    }
    own.out.dlogp = own.arrays[ADVANTAGES] + ROWS - 1;
    refuse_loss(invalid, "out.dlogp", "batch.advantages");
    own.out.dlogp = own.arrays[ADVANTAGES] + ROWS; /* one a row */
    accept_loss();
    own.out.dlogp = own.out.dentropy + TOKENS - 1;
    refuse_loss(invalid, "out.dlogp", "out.dentropy");
    own.out.dlogp = (float *)(void *)&own.metrics;
    refuse_loss(invalid, "out.dlogp", "metrics");
    own.out.dlogp = (float *)(void *)own.group;
    refuse_loss(invalid, "out.dlogp", "batch.group");
    own.out.dlogp = (float *)(void *)(own.mask - (uintptr_t)own.mask % 4 + 4);
    refuse_loss(invalid, "out.dlogp", "batch.mask");
    own.out.dlogp = own.arrays[LOGP]; /* in place */
    accept_loss();
}
END_TEST

START_TEST(bad_shapes_are_named)
{
    own.batch.advantages_per_token = 2;
    refuse_loss(invalid, "batch.advantages_per_token", "2");
    own.batch.advantages_per_token = 0;
    own.batch.sequences = SIZE_MAX;
    refuse_loss(invalid, "batch.sequences", "18446744073709551615");
    own.batch.sequences = (size_t)1 << 40;
    own.batch.length = (size_t)1 << 40;
    refuse_loss(invalid, "batch.sequences", "too large");
    own.batch.sequences = ROWS;
    own.batch.length = SIZE_MAX;
    refuse_loss(invalid, "length", "too large");
}
END_TEST

START_TEST(bad_offsets_are_named)
{
    own.batch.row_offsets = own.offsets;
    accept_loss();
    own.offsets[0] = 1;
    refuse_loss(invalid, "batch.row_offsets[0]", "1");
    own.offsets[0] = 0;
    own.offsets[2] = 1;
    refuse_loss(invalid, "row_offsets[1] = 4", "row_offsets[2]");
    own.offsets[2] = 2 * LENGTH;
    own.offsets[1] = -1;
    refuse_loss(invalid, "row_offsets[1]", "-1");
    own.offsets[1] = LENGTH;
    own.offsets[ROWS] = INT64_MAX;
    refuse_loss(invalid, "batch.row_offsets[3]", "too large");
}
END_TEST

/* ---- memory, and two users -------------------------------------------------------- */

START_TEST(without_scratch_nothing_is_written)
{
    allocator.fail_at = allocator.calls + 1;
    allocator.fail_onwards = true;
    refuse_loss(GRADREG_ERROR_OUT_OF_MEMORY, "allocate", "bytes");
    own.params.group = own.group;
    assert_refused(gradreg_advantages(context, own.arrays[DLOGP], own.arrays[ADVANTAGES], 6, 3,
                                      &own.params),
                   GRADREG_ERROR_OUT_OF_MEMORY, "allocate");
    ck_assert_uint_eq(allocator.failed, 2);
    own.params.group = NULL; /* groups by size need none on the CPU */
    if (!on_cuda())
        assert_accepted(gradreg_advantages(context, own.arrays[DLOGP], own.arrays[ADVANTAGES],
                                           6, 3, &own.params));
    allocator.fail_at = 0;
    allocator.fail_onwards = false;
    accept_loss();
}
END_TEST

START_TEST(scratch_reserved_ahead_is_enough)
{
    assert_accepted(gradreg_policy_scratch_bytes(&own.size, ROWS));
    assert_ok(gradreg_context_reserve(context, own.size));
    const size_t calls = allocator.calls;
    need_everything();
    accept_loss();
    accept_loss();
    ck_assert_uint_eq(allocator.calls, calls);
    assert_accepted(gradreg_policy_metrics_read(context, &own.read, &own.metrics));
    ck_assert(memcmp(&own.read, &own.metrics, sizeof(own.read)) == 0);
    assert_accepted(gradreg_policy_preset(&own.policy, "grpo"));
}
END_TEST

static void use(void)
{
    own.batch.sequences = 100; /* enough rows for more than one piece */
    own.batch.length = 0;
    assert_ok(gradreg_policy_loss(context, NULL, &own.out, &own.batch, &own.policy));
}

static void call_meanwhile(void)
{
    assert_refused(gradreg_policy_loss(context, NULL, &own.out, &own.batch, &own.policy),
                   GRADREG_ERROR_STATE, "context");
    assert_refused(gradreg_policy_metrics_read(context, &own.read, &own.metrics),
                   GRADREG_ERROR_STATE, "context");
    assert_refused(gradreg_advantages(context, own.arrays[DLOGP], own.arrays[ADVANTAGES], 6, 3,
                                      &own.params),
                   GRADREG_ERROR_STATE, "context");
}

START_TEST(a_context_in_use_is_refused)
{
    LEAVE_OUT_ON_CUDA("its calls run none of the caller's functions");
    refusals_in_use(use, call_meanwhile);
}
END_TEST

static bool is_mine(const char *name)
{
    if (strncmp(name, "gradreg_policy_logits", strlen("gradreg_policy_logits")) == 0)
        return false; /* check_bad_logits.c's */
    return strncmp(name, "gradreg_policy_", strlen("gradreg_policy_")) == 0 ||
           strncmp(name, "gradreg_advantage", strlen("gradreg_advantage")) == 0;
}

int main(void)
{
    Suite *suite = suite_create("bad policy");
    TCase *tc = tcase_create("loss");
    tcase_add_checked_fixture(tc, set_up, refusals_close);
    coverage_open();
    add_loop_test(tc, init_refuses_null_and_sizes_that_no_version_had, 0, INITS);
    tcase_add_test(tc, null_arguments_are_named);
    tcase_add_test(tc, structs_of_other_versions);
    tcase_add_test(tc, fields_of_a_newer_version_are_refused_unless_zero);
    add_loop_test(tc, bad_fields_of_a_policy_are_named, 0, BAD_POLICIES);
    tcase_add_test(tc, edges_of_ranges_are_accepted);
    add_loop_test(tc, a_missing_array_is_named, 0, NEEDED);
    tcase_add_test(tc, a_missing_gradient_is_named);
    tcase_add_test(tc, a_misaligned_array_is_named);
    tcase_add_test(tc, what_is_written_overlaps_nothing_that_is_read);
    tcase_add_test(tc, bad_shapes_are_named);
    tcase_add_test(tc, bad_offsets_are_named);
    tcase_add_test(tc, without_scratch_nothing_is_written);
    tcase_add_test(tc, scratch_reserved_ahead_is_enough);
    tcase_add_test(tc, a_context_in_use_is_refused);
    suite_add_tcase(suite, tc);
    suite_add_tcase(suite, bad_advantages_case());
    return refusals_run(suite, is_mine);
}
