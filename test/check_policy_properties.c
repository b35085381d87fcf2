/* check_policy_properties.c - what a policy loss must not depend on, and numbers that others got wrong.
 *
 * In: random batches and compositions. Out: gradients with the same bits whatever lies behind the
 * mask, however rows are ordered, packed, split over micro-batches and ranks, or shared among threads;
 * zeros where nothing counts; and no NaN from ratios that overflow. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "policy_rig.h"

enum { ROWS = 16, LENGTH = 37, TRIES = 150 };

/* ---- helpers --------------------------------------------------------------------- */

static int32_t draw_of(uint64_t *state, int32_t last)
{
    return (int32_t)(1 + next_word(state) % (uint64_t)last);
}

/* Any composition. */
static void draw_policy(gradreg_policy *p, uint64_t *state)
{
    p->ratio_level = draw_of(state, LAST_RATIO_LEVEL);
    p->surrogate = draw_of(state, LAST_SURROGATE);
    p->kl = draw_of(state, LAST_KL);
    p->aggregation = draw_of(state, LAST_AGGREGATION);
    p->rollout_mode = draw_of(state, LAST_ROLLOUT_MODE);
    p->kl_ratio_weighted = (int32_t)(next_word(state) % 2);
    p->count_empty_rows = (int32_t)(next_word(state) % 2);
    p->cap = next_word(state) % 2 ? 1.5 : 0.0;
    p->dual_clip = next_word(state) % 2 ? 2.5 : 0.0;
    p->log_ratio_limit = next_word(state) % 2 ? 1.0 : 0.0;
    p->kl_coefficient = 0.2;
    p->kl_limit = next_word(state) % 2 ? 0.5 : 0.0;
    p->entropy_coefficient = next_word(state) % 2 ? 0.03 : 0.0;
    p->off_policy_threshold = next_word(state) % 2 ? 0.01 : 0.0;
}

/* A padded batch of ROWS rows, two to a prompt; row 3 is empty. */
static policy_rig *draw_rig(uint64_t *state)
{
    policy_rig *rig = policy_rig_new(ROWS, LENGTH, false, next_word(state) % 2, state);
    draw_policy(&rig->policy, state);
    for (size_t r = 0; r < ROWS; r++)
        rig->group[r] = 1000 - 7 * (int32_t)(r / 2);
    memset(rig->mask + 3 * LENGTH, 0, LENGTH);
    return rig;
}

static float *copy_of(const float *values, size_t count)
{
    float *out = calloc(count + 1, sizeof(float));
    memcpy(out, values, count * sizeof(float));
    return out;
}

static void same_bits(const float *got, const float *want, size_t count, const char *what)
{
    for (size_t i = 0; i < count; i++)
        if (float_bits(got[i]) != float_bits(want[i]))
            ck_abort_msg("%s: element %zu is %a, was %a", what, i, (double)got[i],
                         (double)want[i]);
}

static void all_zero(const float *values, size_t count, const char *what)
{
    for (size_t i = 0; i < count; i++)
        if (values[i] != 0.0f)
            ck_abort_msg("%s: element %zu is %g, expected 0", what, i, (double)values[i]);
}

static void near(double got, double want, double slack, const char *what)
{
    if (!(fabs(got - want) <= slack))
        ck_abort_msg("%s: %.17g, expected %.17g, slack %.3g", what, got, want, slack);
}

/* Runs a test body on TRIES random batches. */
typedef void body(gradreg_context *context, policy_rig *rig, uint64_t *state);

static void many(body *test, uint64_t seed)
{
    gradreg_context *context = policy_context(1);
    uint64_t state = test_seed() ^ seed << 40;
    for (int i = 0; i < TRIES; i++) {
        policy_rig *rig = draw_rig(&state);
        test(context, rig, &state);
        policy_rig_free(rig);
    }
    assert_ok(gradreg_context_destroy(context));
}

/* ---- what is masked -------------------------------------------------------------- */

/* Behind the mask: +200 in the log ratio, or no number at all. */
static void spoil_masked(policy_rig *rig, uint64_t *state)
{
    static const float junk[] = { 200.0f, -200.0f, (float)NAN, (float)INFINITY,
                                  (float)-INFINITY };
    float *const arrays[] = { rig->logp,         rig->old_logp,     rig->ref_logp,
                              rig->rollout_logp, rig->token_weight, rig->entropy };
    for (size_t i = 0; i < rig->tokens; i++) {
        for (size_t k = 0; k < 6 && rig->mask[i] == 0; k++)
            arrays[k][i] = junk[next_word(state) % 5];
        if (rig->mask[i] == 0 && rig->batch.advantages_per_token)
            rig->advantages[i] = junk[next_word(state) % 5];
    }
}

static void junk_behind_the_mask(gradreg_context *context, policy_rig *rig, uint64_t *state)
{
    policy_rig_run(rig, context);
    float *clean = copy_of(rig->dlogp, rig->tokens);
    const gradreg_policy_metrics before = rig->metrics;
    spoil_masked(rig, state);
    policy_rig_run(rig, context);
    same_bits(rig->dlogp, clean, rig->tokens, "dlogp");
    ck_assert(memcmp(&before, &rig->metrics, sizeof(before)) == 0);
    for (size_t i = 0; i < rig->tokens; i++)
        ck_assert(rig->mask[i] != 0 || (rig->dlogp[i] == 0.0f && rig->dentropy[i] == 0.0f));
    free(clean);
}

START_TEST(what_is_masked_is_never_read) /* T1 */
{
    many(junk_behind_the_mask, 1);
}
END_TEST

static void junk_that_counts(gradreg_context *context, policy_rig *rig, uint64_t *state)
{
    static const float junk[] = { (float)NAN, (float)INFINITY, (float)-INFINITY };
    float *const arrays[] = { rig->logp, rig->old_logp, rig->token_weight, rig->entropy };
    const size_t i = next_word(state) % rig->tokens;
    rig->mask[i] = 0;
    policy_rig_run(rig, context);
    float *want = copy_of(rig->dlogp, rig->tokens);
    const gradreg_policy_metrics before = rig->metrics;
    rig->mask[i] = 1;
    arrays[next_word(state) % 4][i] = junk[next_word(state) % 3];
    policy_rig_run(rig, context);
    same_bits(rig->dlogp, want, rig->tokens, "dlogp");
    ck_assert(double_bits(rig->metrics.loss) == double_bits(before.loss));
    ck_assert_uint_eq(rig->metrics.non_finite, 1);
    ck_assert_uint_eq(rig->metrics.tokens, before.tokens);
    free(want);
}

START_TEST(what_is_not_finite_counts_as_masked_and_is_reported) /* T14, T15 */
{
    many(junk_that_counts, 2);
}
END_TEST

/* ---- nothing ---------------------------------------------------------------------- */

static void check_nothing(const policy_rig *rig, size_t tokens)
{
    const gradreg_policy_metrics *m = &rig->metrics;
    all_zero(rig->dlogp, tokens, "dlogp");
    all_zero(rig->dentropy, tokens, "dentropy");
    const double zeros[] = { m->loss,
                             m->policy_loss,
                             m->kl,
                             m->entropy,
                             m->clip_low_fraction,
                             m->clip_high_fraction,
                             m->limited_fraction };
    const double ones[] = { m->ratio_mean, m->ratio_min, m->ratio_max,
                            m->effective_sample_size };
    for (size_t i = 0; i < sizeof(zeros) / sizeof(zeros[0]); i++)
        ck_assert(zeros[i] == 0.0);
    for (size_t i = 0; i < sizeof(ones) / sizeof(ones[0]); i++)
        ck_assert(ones[i] == 1.0);
    ck_assert_uint_eq(m->tokens, 0);
    ck_assert_uint_eq(m->empty_sequences, m->sequences);
}

static void nothing(gradreg_context *context, policy_rig *rig, uint64_t *state)
{
    static const gradreg_policy_batch none = GRADREG_POLICY_BATCH_INIT;
    (void)state;
    memset(rig->mask, 0, rig->tokens);
    policy_rig_run(rig, context);
    check_nothing(rig, rig->tokens);
    ck_assert_uint_eq(rig->metrics.sequences, ROWS);
    memset(rig->mask, 1, rig->tokens);
    for (size_t i = 0; i < rig->tokens; i++)
        rig->logp[i] = (float)-INFINITY;
    policy_rig_run(rig, context);
    check_nothing(rig, rig->tokens);
    ck_assert_uint_eq(rig->metrics.non_finite, rig->tokens);
    rig->batch.length = 0; /* rows without room */
    policy_rig_run(rig, context);
    check_nothing(rig, 0);
    rig->batch = none; /* no rows */
    policy_rig_run(rig, context);
    check_nothing(rig, 0);
}

START_TEST(where_nothing_counts_everything_is_zero) /* T4, T20 */
{
    many(nothing, 3);
}
END_TEST

START_TEST(an_empty_row_counts_in_B_only_if_asked) /* T4 */
{
    gradreg_context *context = policy_context(1);
    uint64_t state = 4;
    policy_rig *rig = policy_rig_new(4, 5, false, false, &state);
    rig->batch.token_weight = NULL;
    rig->batch.old_logp = NULL;
    rig->policy.surrogate = GRADREG_SURROGATE_PLAIN;
    for (size_t r = 0; r < 4; r++)
        rig->advantages[r] = 1.0f;
    memset(rig->mask, 1, rig->tokens);
    memset(rig->mask + 5, 0, 5);
    policy_rig_run(rig, context);
    near((double)rig->dlogp[0], -1.0 / (3 * 5), 0x1p-24 / 15, "three rows");
    ck_assert_uint_eq(rig->metrics.empty_sequences, 1);
    rig->policy.count_empty_rows = 1;
    policy_rig_run(rig, context);
    near((double)rig->dlogp[0], -1.0 / (4 * 5), 0x1p-24 / 15, "four rows");
    policy_rig_free(rig);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- one batch, however it comes -------------------------------------------------- */

/* The whole batch's own denominators. */
static void set_totals(policy_rig *rig)
{
    const gradreg_policy_metrics *m = &rig->metrics;
    gradreg_policy *p = &rig->policy;
    double prompts = 0.0;
    for (size_t r = 0; r < ROWS; r += 2) { /* two rows to a prompt */
        int any = 0;
        for (size_t i = r * LENGTH; i < (r + 2) * LENGTH; i++)
            any |= rig->mask[i];
        prompts += any != 0;
    }
    p->token_total = (double)m->tokens;
    p->sequence_total =
        (double)(p->count_empty_rows ? m->sequences : m->sequences - m->empty_sequences);
    p->prompt_total = prompts;
    p->max_length = LENGTH;
}

static gradreg_policy_batch rows_of(const policy_rig *rig, size_t first, size_t count)
{
    gradreg_policy_batch b = rig->batch;
    const size_t at = first * LENGTH;
    b.sequences = count;
    b.logp += at;
    b.old_logp += at;
    b.ref_logp += at;
    b.rollout_logp += at;
    b.token_weight += at;
    b.entropy += at;
    b.mask += at;
    b.advantages += b.advantages_per_token ? at : first;
    b.group += first;
    return b;
}

/* Ranks average what they have, so each scales its loss by their number. */
static void run_split(gradreg_context *context, policy_rig *rig, size_t world, size_t parts)
{
    gradreg_policy policy = rig->policy;
    double loss = 0.0;
    const float share = 1.0f / (float)world;
    float *want = copy_of(rig->dlogp, rig->tokens);
    float *entropy = copy_of(rig->dentropy, rig->tokens);
    policy.loss_scale = (double)world;
    for (size_t k = 0, rows = ROWS / parts; k < parts; k++) {
        const gradreg_policy_batch b = rows_of(rig, k * rows, rows);
        gradreg_policy_gradient out = rig->out;
        gradreg_policy_metrics m = GRADREG_POLICY_METRICS_INIT;
        out.dlogp += k * rows * LENGTH;
        out.dentropy += k * rows * LENGTH;
        assert_ok(gradreg_policy_loss(context, &m, &out, &b, &policy));
        loss += m.loss / (double)world;
    }
    for (size_t i = 0; i < rig->tokens; i++) {
        rig->dlogp[i] *= share;
        rig->dentropy[i] *= share;
    }
    same_bits(rig->dlogp, want, rig->tokens, "dlogp");
    same_bits(rig->dentropy, entropy, rig->tokens, "dentropy");
    near(loss, rig->metrics.loss, 1e-13 * (1.0 + fabs(loss)), "loss");
    free(want);
    free(entropy);
}

static void however_it_is_split(gradreg_context *context, policy_rig *rig, uint64_t *state)
{
    (void)state;
    policy_rig_run(rig, context);
    set_totals(rig);
    for (size_t world = 1; world <= 2; world++)
        for (size_t steps = 1; steps <= 4; steps += 3)
            run_split(context, rig, world, world * steps);
}

START_TEST(micro_batches_and_ranks_with_global_denominators_give_the_same_gradient) /* T5 */
{
    many(however_it_is_split, 5);
}
END_TEST

/* The rows without what trails behind their last token. */
static policy_rig *packed_copy(const policy_rig *rig)
{
    uint64_t state = 1;
    policy_rig *to =
        policy_rig_new(ROWS, LENGTH, false, rig->batch.advantages_per_token, &state);
    const float *const from[] = { rig->logp,         rig->old_logp,     rig->ref_logp,
                                  rig->rollout_logp, rig->token_weight, rig->entropy };
    float *const into[] = { to->logp,         to->old_logp,     to->ref_logp,
                            to->rollout_logp, to->token_weight, to->entropy };
    to->policy = rig->policy;
    memcpy(to->group, rig->group, ROWS * sizeof(int32_t));
    for (size_t r = 0; r < ROWS; r++) {
        size_t length = LENGTH, at = (size_t)to->row_offsets[r];
        while (length > 0 && rig->mask[r * LENGTH + length - 1] == 0)
            length--;
        for (size_t k = 0; k < 6; k++)
            memcpy(into[k] + at, from[k] + r * LENGTH, length * sizeof(float));
        memcpy(to->mask + at, rig->mask + r * LENGTH, length);
        if (rig->batch.advantages_per_token)
            memcpy(to->advantages + at, rig->advantages + r * LENGTH, length * sizeof(float));
        else
            to->advantages[r] = rig->advantages[r];
        to->row_offsets[r + 1] = (int64_t)(at + length);
    }
    to->batch.row_offsets = to->row_offsets;
    to->batch.length = 0;
    return to;
}

static void packed(gradreg_context *context, policy_rig *rig, uint64_t *state)
{
    policy_rig *to;
    (void)state;
    rig->policy.max_length = LENGTH; /* else the longest row's */
    to = packed_copy(rig);
    policy_rig_run(rig, context);
    policy_rig_run(to, context);
    for (size_t r = 0; r < ROWS; r++) {
        const size_t at = (size_t)to->row_offsets[r], n = (size_t)to->row_offsets[r + 1] - at;
        same_bits(to->dlogp + at, rig->dlogp + r * LENGTH, n, "dlogp");
        same_bits(to->dentropy + at, rig->dentropy + r * LENGTH, n, "dentropy");
    }
    ck_assert(memcmp(&to->metrics, &rig->metrics, sizeof(to->metrics)) == 0);
    policy_rig_free(to);
}

START_TEST(packed_rows_are_padded_rows) /* T5 */
{
    many(packed, 6);
}
END_TEST

/* Row r becomes row order[r]. */
static void move_rows(policy_rig *to, const policy_rig *from, const size_t *order)
{
    float *const into[] = { to->logp,         to->old_logp,     to->ref_logp,
                            to->rollout_logp, to->token_weight, to->entropy };
    const float *const out[] = { from->logp,         from->old_logp,     from->ref_logp,
                                 from->rollout_logp, from->token_weight, from->entropy };
    for (size_t r = 0; r < ROWS; r++) {
        const size_t at = order[r] * LENGTH, was = r * LENGTH;
        for (size_t k = 0; k < 6; k++)
            memcpy(into[k] + at, out[k] + was, LENGTH * sizeof(float));
        memcpy(to->mask + at, from->mask + was, LENGTH);
        to->group[order[r]] = from->group[r];
        if (from->batch.advantages_per_token)
            memcpy(to->advantages + at, from->advantages + was, LENGTH * sizeof(float));
        else
            to->advantages[order[r]] = from->advantages[r];
    }
}

static void permuted(gradreg_context *context, policy_rig *rig, uint64_t *state)
{
    policy_rig *to =
        policy_rig_new(ROWS, LENGTH, false, rig->batch.advantages_per_token, state);
    size_t order[ROWS];
    to->policy = rig->policy;
    for (size_t r = 0; r < ROWS; r++) {
        const size_t k = next_word(state) % (r + 1);
        order[r] = order[k];
        order[k] = r;
    }
    move_rows(to, rig, order);
    policy_rig_run(rig, context);
    policy_rig_run(to, context);
    for (size_t r = 0; r < ROWS; r++)
        same_bits(to->dlogp + order[r] * LENGTH, rig->dlogp + r * LENGTH, LENGTH, "dlogp");
    near(to->metrics.loss, rig->metrics.loss, 1e-13 * (1.0 + fabs(rig->metrics.loss)), "loss");
    policy_rig_free(to);
}

START_TEST(the_order_of_rows_does_not_matter)
{
    many(permuted, 7);
}
END_TEST

/* Every row twice: each copy has half the gradient, wherever the copies are. */
static void duplicated(gradreg_context *context, policy_rig *rig, uint64_t *state)
{
    policy_rig *twice =
        policy_rig_new(2 * ROWS, LENGTH, false, rig->batch.advantages_per_token, state);
    size_t order[ROWS];
    twice->policy = rig->policy;
    for (size_t copy = 0; copy < 2; copy++) {
        for (size_t r = 0; r < ROWS; r++)
            order[r] = copy * ROWS + r;
        move_rows(twice, rig, order);
    }
    policy_rig_run(rig, context);
    policy_rig_run(twice, context);
    for (size_t i = 0; i < rig->tokens; i++)
        rig->dlogp[i] *= 0.5f;
    same_bits(twice->dlogp, rig->dlogp, rig->tokens, "first copy");
    same_bits(twice->dlogp + rig->tokens, rig->dlogp, rig->tokens, "second copy");
    near(twice->metrics.loss, rig->metrics.loss, 1e-13 * (1.0 + fabs(rig->metrics.loss)),
         "loss");
    policy_rig_free(twice);
}

START_TEST(duplicated_rows_change_nothing) /* T6 */
{
    many(duplicated, 8);
}
END_TEST

static void in_place(gradreg_context *context, policy_rig *rig, uint64_t *state)
{
    (void)state;
    policy_rig_run(rig, context);
    float *want = copy_of(rig->dlogp, rig->tokens);
    const gradreg_policy_metrics before = rig->metrics;
    rig->out.dlogp = rig->logp;
    policy_rig_run(rig, context);
    same_bits(rig->logp, want, rig->tokens, "dlogp in place of logp");
    ck_assert(memcmp(&before, &rig->metrics, sizeof(before)) == 0);
    free(want);
}

START_TEST(the_gradient_may_replace_the_log_probs)
{
    many(in_place, 9);
}
END_TEST

static void shorthand(gradreg_context *context, policy_rig *rig, uint64_t *state)
{
    (void)state;
    memcpy(rig->old_logp, rig->logp, rig->tokens * sizeof(float));
    policy_rig_run(rig, context);
    float *want = copy_of(rig->dlogp, rig->tokens);
    const gradreg_policy_metrics before = rig->metrics;
    rig->batch.old_logp = NULL;
    policy_rig_run(rig, context);
    same_bits(rig->dlogp, want, rig->tokens, "without old log-probs");
    ck_assert(memcmp(&before, &rig->metrics, sizeof(before)) == 0);
    free(want);
}

START_TEST(no_old_log_probs_are_the_log_probs)
{
    many(shorthand, 10);
}
END_TEST

START_TEST(threads_change_no_bit)
{
    uint64_t state = test_seed() ^ 11;
    gradreg_context *contexts[] = { policy_context(1), policy_context(2), policy_context(3),
                                    policy_context(7) };
    for (int i = 0; i < 20; i++) {
        policy_rig *rig = policy_rig_new(200, 23, i % 2, i % 3 == 0, &state);
        draw_policy(&rig->policy, &state);
        policy_rig_run(rig, contexts[0]);
        float *want = copy_of(rig->dlogp, rig->tokens);
        const gradreg_policy_metrics before = rig->metrics;
        for (int k = 1; k < 4; k++) {
            policy_rig_run(rig, contexts[k]);
            same_bits(rig->dlogp, want, rig->tokens, "dlogp");
            ck_assert(memcmp(&before, &rig->metrics, sizeof(before)) == 0);
        }
        free(want);
        policy_rig_free(rig);
    }
    for (int k = 0; k < 4; k++)
        assert_ok(gradreg_context_destroy(contexts[k]));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("policy properties");
    TCase *tc = tcase_create("core");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, what_is_masked_is_never_read);
    tcase_add_test(tc, what_is_not_finite_counts_as_masked_and_is_reported);
    tcase_add_test(tc, where_nothing_counts_everything_is_zero);
    tcase_add_test(tc, an_empty_row_counts_in_B_only_if_asked);
    tcase_add_test(tc, micro_batches_and_ranks_with_global_denominators_give_the_same_gradient);
    tcase_add_test(tc, packed_rows_are_padded_rows);
    tcase_add_test(tc, the_order_of_rows_does_not_matter);
    tcase_add_test(tc, duplicated_rows_change_nothing);
    tcase_add_test(tc, the_gradient_may_replace_the_log_probs);
    tcase_add_test(tc, no_old_log_probs_are_the_log_probs);
    tcase_add_test(tc, threads_change_no_bit);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
