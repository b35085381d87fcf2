/* check_policy_gradients.c - every composition of the policy losses, against differences of its own
 * loss.
 *
 * In: the whole product of ratio level, surrogate, cap and dual clip, KL, its weighting, aggregation,
 * rollout mode, entropy, off-policy mask, layout and kind of advantages; each on a batch of its own,
 * with limits, totals, scale, mask, weights and old log-probs drawn at random. Out: metrics equal the
 * oracle's in double, and both gradients are its slopes, rounded once. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy_rig.h"

enum { ROWS = 3, LENGTH = 5 };

/* What the loops choose; the rest is drawn. */
typedef struct choice {
    int ratio_level, surrogate, limits, kl, weighted, aggregation, rollout, entropy, off_policy;
    int packed, per_token;
} choice;

static double pick(uint64_t *state, double probability, double value)
{
    return next_unit(state) < probability ? value : 0.0;
}

static void choose(policy_rig *rig, const choice *c)
{
    gradreg_policy *p = &rig->policy;
    p->ratio_level = c->ratio_level;
    p->surrogate = c->surrogate;
    p->kl = c->kl;
    p->kl_ratio_weighted = c->weighted;
    p->aggregation = c->aggregation;
    p->rollout_mode = c->rollout;
    p->rollout_low = 0.6;
    p->rollout_high = 1.6;
    p->cap = c->limits & 1 ? 1.55 : 0.0;
    p->dual_clip = c->limits & 2 ? 2.2 : 0.0;
    p->kl_coefficient = c->kl == GRADREG_KL_NONE ? 0.0 : 0.3;
    p->entropy_coefficient = c->entropy ? 0.07 : 0.0;
    p->off_policy_threshold = c->off_policy ? 0.051 : 0.0;
}

static void draw(policy_rig *rig, uint64_t *state)
{
    gradreg_policy *p = &rig->policy;
    p->clip_low = next_unit(state) < 0.1 ? (double)INFINITY : 0.1 + 0.3 * next_unit(state);
    p->clip_high = 0.1 + 0.5 * next_unit(state); /* at times above a cap */
    p->gate_positive = 0.5 + next_unit(state);
    p->gate_negative = 0.5 + next_unit(state);
    p->log_ratio_limit = pick(state, 0.3, 0.83);
    p->kl_limit = pick(state, 0.3, 0.4);
    p->count_empty_rows = next_unit(state) < 0.5;
    p->token_total = pick(state, 0.3, 37.0);
    p->sequence_total = pick(state, 0.3, 11.0);
    p->prompt_total = pick(state, 0.3, 5.0);
    p->max_length = pick(state, 0.3, 23.0);
    p->loss_scale = pick(state, 0.5, -1.75);
    if (next_unit(state) < 0.15)
        rig->batch.mask = NULL;
    if (next_unit(state) < 0.3)
        rig->batch.token_weight = NULL;
    if (next_unit(state) < 0.1)
        rig->batch.old_logp = NULL;
    if (next_unit(state) < 0.3 && p->entropy_coefficient == 0.0) {
        rig->batch.entropy = NULL;
        rig->out.dentropy = NULL;
    }
    if (next_unit(state) < 0.3 && p->rollout_mode == GRADREG_ROLLOUT_OFF)
        rig->batch.rollout_logp = NULL;
}

/* Some batches have an input that is not finite. */
static void spoil_one(policy_rig *rig, uint64_t *state)
{
    float *const arrays[] = { rig->logp,         rig->old_logp,     rig->ref_logp,
                              rig->rollout_logp, rig->token_weight, rig->entropy };
    static const float values[] = { (float)NAN, (float)INFINITY, (float)-INFINITY };
    if (rig->tokens > 0 && next_unit(state) < 0.2)
        arrays[next_word(state) % 6][next_word(state) % rig->tokens] =
            values[next_word(state) % 3];
}

static void describe(char *text, size_t size, const choice *c)
{
    (void)snprintf(
        text, size,
        "ratio %d surrogate %d limits %d kl %d weighted %d aggregation %d rollout %d "
        "entropy %d off-policy %d packed %d per token %d",
        c->ratio_level, c->surrogate, c->limits, c->kl, c->weighted, c->aggregation, c->rollout,
        c->entropy, c->off_policy, c->packed, c->per_token);
}

/* False: a token lies at a corner of its loss; draw again. */
static bool try_once(gradreg_context *context, const choice *c, uint64_t *state, double *worst)
{
    char what[256];
    policy_rig *rig = policy_rig_new(ROWS, LENGTH, c->packed, c->per_token, state);
    choose(rig, c);
    draw(rig, state);
    spoil_one(rig, state);
    oracle_policy_batch *view = policy_rig_view(rig);
    oracle_policy *o = oracle_policy_new(&rig->policy, view);
    const bool smooth = o->margin > 2.5 * ORACLE_POLICY_REACH;
    if (smooth) {
        describe(what, sizeof(what), c);
        policy_rig_run(rig, context);
        *worst = fmax(*worst, policy_rig_check(rig, o, what));
    }
    oracle_policy_free(o);
    policy_rig_view_free(view);
    policy_rig_free(rig);
    return smooth;
}

typedef struct progress {
    gradreg_context *context;
    uint64_t state;
    size_t seen, compositions, redrawn;
    double worst;
} progress;

static void try_composition(progress *at, const choice *c)
{
    while (!try_once(at->context, c, &at->state, &at->worst))
        at->redrawn++;
    at->compositions++;
}

/* Slow builds take every eleventh composition, which still meets every value of every choice. */
static unsigned stride(void)
{
    return getenv("GRADREG_TEST_SMALL") != NULL ? 11 : 1;
}

/* Loops over the bits of the last five choices. */
static void try_switches(progress *at, choice *c)
{
    for (int bits = 0; bits < 16; bits++) {
        if (at->seen++ % stride() != 0)
            continue;
        c->entropy = bits & 1;
        c->off_policy = bits >> 1 & 1;
        c->packed = bits >> 2 & 1;
        c->per_token = bits >> 3 & 1;
        try_composition(at, c);
    }
}

static void try_kl(progress *at, choice *c)
{
    for (c->kl = GRADREG_KL_NONE; c->kl <= LAST_KL; c->kl++)
        for (c->weighted = 0; c->weighted <= (c->kl != GRADREG_KL_NONE); c->weighted++)
            for (c->aggregation = 1; c->aggregation <= LAST_AGGREGATION; c->aggregation++)
                for (c->rollout = 1; c->rollout <= LAST_ROLLOUT_MODE; c->rollout++)
                    try_switches(at, c);
}

/* One test per ratio level and surrogate. */
START_TEST(every_composition_has_the_gradient_of_its_own_loss)
{
    progress at = { policy_context(1), test_seed() ^ (uint64_t)(_i + 1) << 32, 0, 0, 0, 0.0 };
    choice c;
    memset(&c, 0, sizeof(c));
    c.ratio_level = _i / LAST_SURROGATE + 1;
    c.surrogate = _i % LAST_SURROGATE + 1;
    const int limits = c.surrogate == GRADREG_SURROGATE_CLIPPED ? 4 : 1;
    for (c.limits = 0; c.limits < limits; c.limits++)
        try_kl(&at, &c);
    printf(
        "ratio level %d, surrogate %d: %zu compositions, %zu drawn again, worst gradient %.2f "
        "of its bound\n",
        c.ratio_level, c.surrogate, at.compositions, at.redrawn, at.worst);
    fflush(stdout);
    const unsigned all =
        (unsigned)limits * (2 * LAST_KL - 1) * LAST_AGGREGATION * LAST_ROLLOUT_MODE * 16;
    ck_assert_uint_eq(at.seen, all);
    ck_assert_uint_eq(at.compositions, (all + stride() - 1) / stride());
    assert_ok(gradreg_context_destroy(at.context));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("policy gradients");
    TCase *tc = tcase_create("core");
    tcase_set_timeout(tc, 600);
    add_loop_test(tc, every_composition_has_the_gradient_of_its_own_loss, 0,
                  LAST_RATIO_LEVEL * LAST_SURROGATE);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
