/* check_policy_logits.c - a policy loss straight from logits.
 *
 * In: batches, compositions, logits. Out: the bits of the three calls; a batch's gradient whichever way
 * it comes; what is masked neither read nor moved; and central differences of the oracle's loss. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "logits_rig.h"
#include "policy_rig.h"

enum { SEQUENCES = 6, LENGTH = 9, VOCABULARY = 300, TRIES = 120 };

/* ---- a batch and its logits ------------------------------------------------------ */

typedef struct both {
    policy_rig *policy;
    logits_rig *logits;
    gradreg_policy_metrics metrics;
} both;

static int32_t draw_of(uint64_t *state, int32_t last)
{
    return (int32_t)(1 + next_word(state) % (uint64_t)last);
}

/* Any composition that is known token by token. */
static void draw_policy(gradreg_policy *p, uint64_t *state)
{
    do
        p->surrogate = draw_of(state, LAST_SURROGATE);
    while (p->surrogate == GRADREG_SURROGATE_GEOMETRIC_MEAN);
    p->kl = draw_of(state, LAST_KL);
    p->aggregation = draw_of(state, LAST_AGGREGATION);
    p->rollout_mode = draw_of(state, LAST_ROLLOUT_MODE);
    p->kl_ratio_weighted = (int32_t)(next_word(state) % 2);
    p->count_empty_rows = (int32_t)(next_word(state) % 2);
    p->dual_clip = next_word(state) % 2 ? 2.5 : 0.0;
    p->kl_coefficient = 0.2;
    p->entropy_coefficient = next_word(state) % 2 ? 0.03 : 0.0;
    p->token_total = next_word(state) % 3 ? 0.0 : 50.0;
    p->sequence_total = next_word(state) % 3 ? 0.0 : 5.0;
}

/* Old log-probs and the others lie near what the logits give. */
static void place_near(both *b, gradreg_context *context, uint64_t *state)
{
    logits_rig_run(b->logits, context);
    float *const near[] = { b->policy->old_logp, b->policy->ref_logp, b->policy->rollout_logp };
    for (int k = 0; k < 3; k++)
        for (size_t i = 0; i < b->policy->tokens; i++)
            near[k][i] = b->logits->logp[i] + (float)next_signed(state, 0.4);
}

static both draw(gradreg_context *context, gradreg_type type, bool packed, uint64_t *state)
{
    both b;
    b.policy = policy_rig_new(SEQUENCES, LENGTH, packed, next_word(state) % 2, state);
    draw_policy(&b.policy->policy, state);
    b.logits = logits_rig_new(b.policy->tokens, VOCABULARY, type, next_word(state) % 2 * 3, 0,
                              4.0, state);
    for (size_t i = 0; i < b.policy->tokens; i++)
        if (next_word(state) % 11 == 0) {
            b.logits->targets[i] = -1;
            b.policy->mask[i] = (uint8_t)(next_word(state) % 2);
        }
    place_near(&b, context, state);
    if (next_word(state) % 4 == 0 &&
        b.policy->policy.rollout_mode <= GRADREG_ROLLOUT_TOKEN_MASK)
        b.policy->batch.old_logp = NULL;
    return b;
}

static void drop(both *b)
{
    policy_rig_free(b->policy);
    logits_rig_free(b->logits);
}

/* The three calls: policy->dlogp and dentropy, logits->dlogits, metrics. */
static void three_calls(both *b, gradreg_context *context)
{
    policy_rig *p = b->policy;
    logits_rig *x = b->logits;
    assert_ok(gradreg_logprobs_forward(context, x->logp, x->entropy, x->log_sum_exp, x->logits,
                                       x->targets, &x->params));
    for (size_t i = 0; i < p->tokens; i++) /* the fused call says 0 of what it does not read */
        if (p->mask[i] == 0)
            x->logp[i] = x->entropy[i] = 0.0f;
    memcpy(p->logp, x->logp, p->tokens * sizeof(float));
    memcpy(p->entropy, x->entropy, p->tokens * sizeof(float));
    policy_rig_run(p, context);
    b->metrics = p->metrics;
    memset(x->dlogits, 0xa5, x->bytes);
    assert_ok(gradreg_logprobs_backward(context, x->dlogits, x->logits, x->targets,
                                        x->log_sum_exp, x->entropy, p->dlogp, p->dentropy,
                                        &x->params));
}

static gradreg_policy_batch without_numbers(const policy_rig *p)
{
    gradreg_policy_batch batch = p->batch;
    batch.logp = batch.entropy = NULL;
    return batch;
}

typedef struct results {
    void *dlogits;
    float *logp, *entropy;
    gradreg_policy_metrics metrics;
} results;

/* In place: on a copy of the logits. */
static results fused(const both *b, gradreg_context *context, bool in_place)
{
    const gradreg_policy_metrics none = GRADREG_POLICY_METRICS_INIT;
    const gradreg_policy_batch batch = without_numbers(b->policy);
    const logits_rig *x = b->logits;
    results r = { guarded_new(x->bytes, 0), guarded_new(b->policy->tokens * sizeof(float), 0),
                  guarded_new(b->policy->tokens * sizeof(float), 0), none };
    if (in_place)
        memcpy(r.dlogits, x->logits, x->bytes);
    assert_ok(gradreg_policy_logits(context, &r.metrics, r.dlogits, r.logp, r.entropy,
                                    in_place ? r.dlogits : x->logits, x->targets, &batch,
                                    &b->policy->policy, &x->params));
    guarded_check(x->logits);
    return r;
}

static void free_results(results *r)
{
    guarded_free(r->dlogits);
    guarded_free(r->logp);
    guarded_free(r->entropy);
}

static void same_floats(const float *got, const float *want, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (float_bits(got[i]) != float_bits(want[i]) && !(isnan(got[i]) && isnan(want[i])))
            ck_abort_msg("%s[%zu] is %a, expected %a", what, i, (double)got[i],
                         (double)want[i]);
}

/* rounding: in units of the type's last place of `want`. */
static void same_gradient(const results *r, const both *b, double rounding)
{
    const logits_rig *x = b->logits;
    const double unit = x->params.type == GRADREG_TYPE_F32 ? 0x1p-23 : 0x1p-7;
    for (size_t i = 0; i < b->policy->tokens; i++)
        for (size_t j = 0; j < VOCABULARY; j++) {
            const size_t at = i * x->stride + j;
            const double got = typed_get(r->dlogits, x->params.type, at);
            const double want = typed_get(x->dlogits, x->params.type, at);
            const bool same = typed_bits(r->dlogits, x->params.type, at) ==
                              typed_bits(x->dlogits, x->params.type, at);
            /* its two terms may cancel: what is rounded is their size */
            const double l =
                typed_get(x->logits, x->params.type, at) - (double)x->log_sum_exp[i];
            const double size = exp(l) * (fabs((double)b->policy->dlogp[i]) +
                                          fabs((double)b->policy->dentropy[i]) *
                                              ((double)x->entropy[i] + fabs(l)));
            if (!same && !(fabs(got - want) <=
                           rounding * (unit * fabs(want) + 0x1p-23 * size + 0x1p-149)))
                ck_abort_msg("token %zu, logit %zu: %a, expected %a", i, j, got, want);
        }
}

static void check_same(const results *r, const both *b, double rounding)
{
    same_floats(r->logp, b->logits->logp, b->policy->tokens, "logp");
    same_floats(r->entropy, b->logits->entropy, b->policy->tokens, "entropy");
    same_gradient(r, b, rounding);
    if (memcmp(&r->metrics, &b->metrics, sizeof(r->metrics)) != 0)
        ck_abort_msg("metrics: loss %.17g, expected %.17g", r->metrics.loss, b->metrics.loss);
}

/* ---- the three calls ------------------------------------------------------------- */

START_TEST(it_has_the_bits_of_the_three_calls)
{
    gradreg_context *contexts[] = { logits_context(1, NULL), logits_context(3, NULL) };
    uint64_t state = test_seed() ^ 1;
    for (int i = 0; i < TRIES; i++) {
        both b = draw(contexts[0], (gradreg_type)(1 + i % 2), i % 3 == 0, &state);
        three_calls(&b, contexts[0]);
        for (int k = 0; k < 4; k++) {
            results r = fused(&b, contexts[k % 2], k / 2);
            check_same(&r, &b, 0.0);
            free_results(&r);
        }
        drop(&b);
    }
    for (int k = 0; k < 2; k++)
        assert_ok(gradreg_context_destroy(contexts[k]));
}
END_TEST

/* Rows without a distribution, and targets that are masked. */
static void spoil(both *b, uint64_t *state)
{
    logits_rig *x = b->logits;
    for (int k = 0; k < 3; k++) {
        const size_t i = next_word(state) % b->policy->tokens;
        if (x->targets[i] < 0)
            continue;
        const size_t at = i * x->stride + (size_t)x->targets[i];
        typed_set(x->logits, x->params.type, at,
                  k == 0   ? (double)NAN
                  : k == 1 ? (double)INFINITY
                           : (double)-INFINITY);
    }
}

START_TEST(a_row_without_a_distribution_leaves_the_denominators_too) /* T14 */
{
    gradreg_context *context = logits_context(2, NULL);
    uint64_t state = test_seed() ^ 2;
    for (int i = 0; i < TRIES; i++) {
        both b = draw(context, (gradreg_type)(1 + i % 2), i % 3 == 0, &state);
        spoil(&b, &state);
        three_calls(&b, context);
        results apart = fused(&b, context, false), in_place = fused(&b, context, true);
        check_same(&apart, &b, 0.0); /* computed again */
        /* both round dlogp, level and product; the one in place once more */
        check_same(&in_place, &b, 5.0);
        free_results(&apart);
        free_results(&in_place);
        drop(&b);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(outputs_that_are_not_wanted_change_nothing)
{
    gradreg_context *context = logits_context(1, NULL);
    uint64_t state = test_seed() ^ 3;
    both b = draw(context, GRADREG_TYPE_F32, false, &state);
    results r = fused(&b, context, false);
    const gradreg_policy_batch batch = without_numbers(b.policy);
    void *alone = guarded_new(b.logits->bytes, 0);
    memcpy(alone, r.dlogits, b.logits->bytes);
    assert_ok(gradreg_policy_logits(context, NULL, alone, NULL, NULL, b.logits->logits,
                                    b.logits->targets, &batch, &b.policy->policy,
                                    &b.logits->params));
    ck_assert(memcmp(alone, r.dlogits, b.logits->bytes) == 0);
    guarded_free(alone);
    free_results(&r);
    drop(&b);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- what is masked -------------------------------------------------------------- */

START_TEST(masked_rows_are_never_read_and_get_zeros) /* T1 */
{
    gradreg_context *context = logits_context(2, NULL);
    uint64_t state = test_seed() ^ 4;
    for (int i = 0; i < TRIES; i++) {
        both b = draw(context, (gradreg_type)(1 + i % 2), i % 3 == 0, &state);
        logits_rig *x = b.logits;
        three_calls(&b, context);
        for (size_t k = 0; k < b.policy->tokens; k++)
            for (size_t j = 0; j < VOCABULARY && b.policy->mask[k] == 0; j++)
                typed_set_bits(x->logits, x->params.type, k * x->stride + j, 0xffffffffu);
        results r = fused(&b, context, i % 2);
        check_same(&r, &b, 0.0);
        for (size_t k = 0; k < b.policy->tokens; k++)
            for (size_t j = 0; j < VOCABULARY && b.policy->mask[k] == 0; j++)
                if (typed_bits(r.dlogits, x->params.type, k * x->stride + j) != 0)
                    ck_abort_msg("masked row %zu has a gradient", k);
        free_results(&r);
        drop(&b);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(where_nothing_counts_everything_is_zero) /* T4 */
{
    gradreg_context *context = logits_context(1, NULL);
    uint64_t state = test_seed() ^ 5;
    for (int i = 0; i < 40; i++) {
        both b = draw(context, GRADREG_TYPE_F32, i % 2, &state);
        if (i % 4 < 2)
            memset(b.policy->mask, 0, b.policy->tokens);
        else
            for (size_t k = 0; k < b.policy->tokens; k++)
                ((float *)b.logits->logits)[k * b.logits->stride] = (float)NAN,
                                                b.logits->targets[k] = 1;
        results r = fused(&b, context, i % 3 == 0);
        ck_assert(r.metrics.loss == 0.0 && r.metrics.tokens == 0);
        ck_assert_uint_eq(r.metrics.empty_sequences, SEQUENCES);
        for (size_t k = 0; k < b.policy->tokens; k++)
            for (size_t j = 0; j < VOCABULARY; j++)
                if (((float *)r.dlogits)[k * b.logits->stride + j] != 0.0f)
                    ck_abort_msg("token %zu has a gradient", k);
        free_results(&r);
        drop(&b);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(no_tokens_are_no_work)
{
    gradreg_context *context = logits_context(1, NULL);
    const gradreg_policy policy = GRADREG_POLICY_INIT;
    const gradreg_policy_batch batch = GRADREG_POLICY_BATCH_INIT;
    const gradreg_logits_params params = GRADREG_LOGITS_PARAMS_INIT;
    gradreg_policy_metrics metrics = GRADREG_POLICY_METRICS_INIT;
    metrics.loss = 7.0;
    assert_ok(gradreg_policy_logits(context, &metrics, NULL, NULL, NULL, NULL, NULL, &batch,
                                    &policy, &params));
    ck_assert(metrics.loss == 0.0 && metrics.sequences == 0);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- one batch, however it comes ------------------------------------------------- */

/* A padded batch whose denominators are its own, then given. */
static both draw_whole(gradreg_context *context, uint64_t *state)
{
    both b = draw(context, GRADREG_TYPE_F32, false, state);
    gradreg_policy *p = &b.policy->policy;
    p->token_total = p->sequence_total = p->prompt_total = 0.0;
    for (size_t s = 0; s < SEQUENCES; s++)
        b.policy->group[s] = (int32_t)(s / 2);
    p->max_length = LENGTH;
    results r = fused(&b, context, false);
    double prompts = 0.0;
    for (size_t s = 0; s < SEQUENCES; s += 2) {
        int any = 0;
        for (size_t i = s * LENGTH; i < (s + 2) * LENGTH; i++)
            any |= b.policy->mask[i];
        prompts += any != 0;
    }
    p->token_total = (double)r.metrics.tokens;
    p->sequence_total =
        (double)(p->count_empty_rows ? r.metrics.sequences
                                     : r.metrics.sequences - r.metrics.empty_sequences);
    p->prompt_total = prompts;
    free_results(&r);
    three_calls(&b, context);
    return b;
}

static void run_sequences(const both *b, gradreg_context *context, size_t first, size_t count,
                          double scale, float *out)
{
    gradreg_policy_batch batch = without_numbers(b->policy);
    gradreg_policy policy = b->policy->policy;
    gradreg_logits_params params = b->logits->params;
    const size_t at = first * LENGTH;
    policy.loss_scale = scale;
    params.rows = count * LENGTH;
    batch.sequences = count;
    batch.old_logp += batch.old_logp != NULL ? at : 0;
    batch.ref_logp += at;
    batch.rollout_logp += at;
    batch.token_weight += at;
    batch.mask += at;
    batch.advantages += batch.advantages_per_token ? at : first;
    batch.group += first;
    assert_ok(gradreg_policy_logits(context, NULL, out + at * b->logits->stride, NULL, NULL,
                                    (float *)b->logits->logits + at * b->logits->stride,
                                    b->logits->targets + at, &batch, &policy, &params));
}

START_TEST(
    micro_batches_and_ranks_with_global_denominators_give_the_same_logit_gradient) /* T5 */
{
    gradreg_context *context = logits_context(2, NULL);
    uint64_t state = test_seed() ^ 6;
    for (int i = 0; i < 60; i++) {
        both b = draw_whole(context, &state);
        const size_t world = 1 + (size_t)i % 2; /* ranks average: each scales by their number */
        results r = { guarded_new(b.logits->bytes, 0), b.logits->logp, b.logits->entropy,
                      b.metrics };
        memset(r.dlogits, 0xa5, b.logits->bytes);
        for (size_t first = 0; first < SEQUENCES; first += 2)
            run_sequences(&b, context, first, 2, (double)world, r.dlogits);
        for (size_t k = 0; k < b.logits->bytes / 4 && world == 2; k++)
            ((float *)r.dlogits)[k] *= 0.5f;
        same_gradient(&r, &b, 0.0);
        guarded_free(r.dlogits);
        drop(&b);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* Tokens [order[s]] of a batch, moved: everything that a token has. */
static void move_sequence(both *to, size_t target, const both *from, size_t source,
                          size_t length, size_t at)
{
    const size_t was = source * LENGTH;
    float *const into[] = { to->policy->old_logp, to->policy->ref_logp,
                            to->policy->rollout_logp, to->policy->token_weight };
    const float *const out[] = { from->policy->old_logp, from->policy->ref_logp,
                                 from->policy->rollout_logp, from->policy->token_weight };
    for (int k = 0; k < 4; k++)
        memcpy(into[k] + at, out[k] + was, length * sizeof(float));
    memcpy(to->policy->mask + at, from->policy->mask + was, length);
    memcpy(to->logits->targets + at, from->logits->targets + was, length * sizeof(int32_t));
    for (size_t i = 0; i < length; i++)
        memcpy((float *)to->logits->logits + (at + i) * to->logits->stride,
               (float *)from->logits->logits + (was + i) * from->logits->stride,
               VOCABULARY * sizeof(float));
    to->policy->group[target] = from->policy->group[source];
    if (from->policy->batch.advantages_per_token)
        memcpy(to->policy->advantages + at, from->policy->advantages + was,
               length * sizeof(float));
    else
        to->policy->advantages[target] = from->policy->advantages[source];
}

static both empty_like(const both *from, size_t sequences)
{
    uint64_t state = 1;
    both to;
    to.policy = policy_rig_new(sequences, LENGTH, false,
                               from->policy->batch.advantages_per_token, &state);
    to.policy->policy = from->policy->policy;
    if (from->policy->batch.old_logp == NULL)
        to.policy->batch.old_logp = NULL;
    to.logits =
        logits_rig_new(sequences * LENGTH, VOCABULARY, GRADREG_TYPE_F32, 0, 0, 1.0, &state);
    to.metrics = from->metrics;
    return to;
}

static void same_sequence(const results *r, const both *to, size_t at, const both *from,
                          size_t source, size_t length, float factor)
{
    for (size_t i = 0; i < length; i++)
        for (size_t j = 0; j < VOCABULARY; j++) {
            const float got = ((float *)r->dlogits)[(at + i) * to->logits->stride + j];
            const float want =
                factor *
                ((float *)
                     from->logits->dlogits)[(source * LENGTH + i) * from->logits->stride + j];
            if (float_bits(got) != float_bits(want))
                ck_abort_msg("token %zu, logit %zu: %a, expected %a", i, j, (double)got,
                             (double)want);
        }
}

START_TEST(the_order_of_rows_and_padding_do_not_matter) /* T5 */
{
    gradreg_context *context = logits_context(2, NULL);
    uint64_t state = test_seed() ^ 7;
    for (int i = 0; i < 60; i++) {
        both b = draw_whole(context, &state), to = empty_like(&b, SEQUENCES);
        size_t at[SEQUENCES], length[SEQUENCES], next = 0;
        to.policy->row_offsets[0] = 0;
        for (size_t s = 0; s < SEQUENCES;
             s++) { /* from the last to the first, without their tails */
            const size_t source = SEQUENCES - 1 - s;
            length[s] = LENGTH;
            while (i % 2 && length[s] > 0 &&
                   b.policy->mask[source * LENGTH + length[s] - 1] == 0)
                length[s]--;
            at[s] = next;
            move_sequence(&to, s, &b, source, length[s], at[s]);
            next += length[s];
            to.policy->row_offsets[s + 1] = (int64_t)next;
        }
        if (i % 2)
            to.policy->batch.row_offsets = to.policy->row_offsets;
        to.policy->tokens = to.logits->params.rows = next;
        results r = fused(&to, context, false);
        for (size_t s = 0; s < SEQUENCES; s++)
            same_sequence(&r, &to, at[s], &b, SEQUENCES - 1 - s, length[s], 1.0f);
        free_results(&r);
        drop(&to);
        drop(&b);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(duplicated_rows_share_the_gradient) /* T6 */
{
    gradreg_context *context = logits_context(2, NULL);
    uint64_t state = test_seed() ^ 8;
    for (int i = 0; i < 30; i++) {
        both b = draw_whole(context, &state), to = empty_like(&b, 2 * SEQUENCES);
        for (size_t s = 0; s < 2 * SEQUENCES; s++)
            move_sequence(&to, s, &b, s % SEQUENCES, LENGTH, s * LENGTH);
        to.policy->policy.token_total *= 2;
        to.policy->policy.sequence_total *= 2;
        if (to.policy->policy.aggregation != GRADREG_AGGREGATE_PROMPT_MEAN)
            to.policy->policy.prompt_total *= 2; /* a prompt has its copies' tokens already */
        results r = fused(&to, context, false);
        for (size_t s = 0; s < 2 * SEQUENCES; s++)
            same_sequence(&r, &to, s * LENGTH, &b, s % SEQUENCES, LENGTH, 0.5f);
        free_results(&r);
        drop(&to);
        drop(&b);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- derivatives ----------------------------------------------------------------- */

enum { FEW = 7, ROWS = 3, TIME = 2 };

/* The oracle's loss as a function of the logits. */
static double loss_of(const policy_rig *p, const double *x, const int32_t *targets)
{
    double logp[ROWS * TIME], entropy[ROWS * TIME];
    oracle_policy_batch *view = policy_rig_view(p);
    oracle_policy_batch batch = *view;
    for (size_t i = 0; i < ROWS * TIME; i++) {
        const oracle_logits o = oracle_logits_row(x + i * FEW, FEW, (size_t)targets[i]);
        logp[i] = o.logp;
        entropy[i] = o.entropy;
    }
    batch.logp = logp;
    batch.entropy = entropy;
    oracle_policy *o = oracle_policy_new(&p->policy, &batch);
    const double loss = o->metrics.loss;
    oracle_policy_free(o);
    policy_rig_view_free(view);
    return loss;
}

START_TEST(gradients_are_central_differences_of_the_loss)
{
    static const int32_t surrogates[] = { GRADREG_SURROGATE_CLIPPED,
                                          GRADREG_SURROGATE_SOFT_GATE,
                                          GRADREG_SURROGATE_PLAIN };
    static const int32_t kls[] = { GRADREG_KL_NONE, GRADREG_KL_K1, GRADREG_KL_K2,
                                   GRADREG_KL_K3 };
    gradreg_context *context = logits_context(1, NULL);
    uint64_t state = test_seed() ^ 9;
    for (int i = 0; i < 72; i++) {
        both b;
        b.policy = policy_rig_new(ROWS, TIME, false, false, &state);
        b.logits = logits_rig_new(ROWS * TIME, FEW, GRADREG_TYPE_F32, 0, 0, 2.0, &state);
        place_near(&b, context, &state);
        gradreg_policy *p = &b.policy->policy;
        p->surrogate = surrogates[i % 3];
        p->kl = kls[i / 3 % 4];
        p->kl_coefficient = 0.3;
        p->aggregation = 1 + i / 12;
        p->entropy_coefficient = i % 2 ? 0.1 : 0.0;
        results r = fused(&b, context, i % 2);
        double x[ROWS * TIME * FEW];
        for (size_t k = 0; k < ROWS * TIME * FEW; k++)
            x[k] = (double)((float *)b.logits->logits)[k];
        for (size_t k = 0; k < ROWS * TIME * FEW; k++) {
            const double at = x[k], h = 1e-5;
            x[k] = at + h;
            const double above = loss_of(b.policy, x, b.logits->targets);
            x[k] = at - h;
            const double below = loss_of(b.policy, x, b.logits->targets);
            x[k] = at;
            const double want = (above - below) / (2 * h),
                         got = (double)((float *)r.dlogits)[k];
            if (!(fabs(got - want) < 2e-6))
                ck_abort_msg("composition %d, logit %zu: %.9g, difference %.9g", i, k, got,
                             want);
        }
        free_results(&r);
        drop(&b);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("policy logits");
    TCase *tc = tcase_create("core");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, it_has_the_bits_of_the_three_calls);
    tcase_add_test(tc, a_row_without_a_distribution_leaves_the_denominators_too);
    tcase_add_test(tc, outputs_that_are_not_wanted_change_nothing);
    tcase_add_test(tc, masked_rows_are_never_read_and_get_zeros);
    tcase_add_test(tc, where_nothing_counts_everything_is_zero);
    tcase_add_test(tc, no_tokens_are_no_work);
    tcase_add_test(
        tc, micro_batches_and_ranks_with_global_denominators_give_the_same_logit_gradient);
    tcase_add_test(tc, the_order_of_rows_and_padding_do_not_matter);
    tcase_add_test(tc, duplicated_rows_share_the_gradient);
    tcase_add_test(tc, gradients_are_central_differences_of_the_loss);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
