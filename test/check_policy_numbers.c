/* check_policy_numbers.c - policy losses in numbers that can be done by hand, and at their edges.
 *
 * In: a token or two. Out: the values of the formulas, also where public code has had others (named at
 * each test); ratios that overflow without a NaN; every preset's name and constants; and that the
 * on-policy shorthand differentiates another function. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy_rig.h"

/* ---- one row ---------------------------------------------------------------------- */

/* A row of n tokens: old log-probs -1, log-probs -1 + d, everything else out of the way. */
static policy_rig *row_of(size_t n, double a)
{
    uint64_t state = 1;
    policy_rig *rig = policy_rig_new(1, n, false, false, &state);
    for (size_t i = 0; i < n; i++)
        rig->logp[i] = rig->old_logp[i] = rig->ref_logp[i] = rig->rollout_logp[i] = -1.0f;
    rig->advantages[0] = (float)a;
    rig->batch.mask = NULL;
    rig->batch.token_weight = NULL;
    rig->batch.entropy = NULL;
    return rig;
}

static void run(policy_rig *rig)
{
    gradreg_context *context = policy_context(1);
    policy_rig_run(rig, context);
    assert_ok(gradreg_context_destroy(context));
}

static void near(double got, double want, const char *what)
{
    if (!(fabs(got - want) <= 1e-6 * (1e-3 + fabs(want))))
        ck_abort_msg("%s: %.9g, expected %.9g", what, got, want);
}

/* A ratio that f32 log-probs can have. */
static double set_ratio(policy_rig *rig, size_t i, double r)
{
    rig->logp[i] = (float)((double)rig->old_logp[i] + log(r));
    return exp((double)rig->logp[i] - (double)rig->old_logp[i]);
}

/* ---- numbers ---------------------------------------------------------------------- */

/* T7. k_t = e^u - u - 1 with u = 0, -1; s = 1 and moves with both: c (1 - e^u) + (c k_1 + c k_2) / 2.
 * A public kernel leaves the second part out: (0, 0.5). */
START_TEST(a_sequence_ratio_that_weighs_the_kl_moves_with_every_token)
{
    policy_rig *rig = row_of(2, 0.0);
    rig->policy.ratio_level = GRADREG_RATIO_SEQUENCE;
    rig->policy.kl = GRADREG_KL_K3;
    rig->policy.kl_coefficient = 1.0;
    rig->policy.kl_ratio_weighted = 1;
    rig->ref_logp[1] = -2.0f;
    run(rig);
    near((double)rig->dlogp[0], 0.5 * exp(-1.0) / 2.0, "first");
    near((double)rig->dlogp[1], 0.5 * (1.0 - exp(-1.0)) + 0.5 * exp(-1.0) / 2.0, "second");
    ck_assert(fabs((double)rig->dlogp[0] - 0.0920) < 5e-5);
    ck_assert(fabs((double)rig->dlogp[1] - 0.4080) < 5e-5);
    policy_rig_free(rig);
}
END_TEST

/* T8. A public rule compares -log w with [log 0.6, log 1.4], which turns the bounds around. */
START_TEST(rollout_bounds_are_those_of_the_weight)
{
    static const struct {
        double weight, masked, truncated;
    } rows[] = {
        { 1.5, 0.0, 1.4 }, { 0.65, 0.65, 0.65 }, { 0.55, 0.0, 0.6 }, { 1.35, 1.35, 1.35 }
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (int mode = GRADREG_ROLLOUT_TOKEN_TRUNCATE; mode <= LAST_ROLLOUT_MODE; mode++) {
            const bool masks =
                mode == GRADREG_ROLLOUT_TOKEN_MASK || mode == GRADREG_ROLLOUT_SEQUENCE_MASK;
            policy_rig *rig = row_of(1, 1.0);
            rig->policy.rollout_mode = mode;
            rig->policy.rollout_low = 0.6;
            rig->policy.rollout_high = 1.4;
            rig->rollout_logp[0] = (float)(-1.0 - log(rows[i].weight));
            run(rig);
            near((double)rig->dlogp[0], masks ? -rows[i].masked : -rows[i].truncated, "dlogp");
            policy_rig_free(rig);
        }
}
END_TEST

/* A sequence's weight is the product of its tokens', and the effective sample size falls with it. */
START_TEST(rollout_weights_of_a_sequence_multiply)
{
    uint64_t state = 1;
    policy_rig *rig = policy_rig_new(2, 2, false, false, &state);
    memset(rig->mask, 1, 4);
    rig->batch.token_weight = NULL;
    for (size_t i = 0; i < 4; i++)
        rig->logp[i] = rig->old_logp[i] = rig->rollout_logp[i] = -1.0f;
    rig->rollout_logp[0] = rig->rollout_logp[1] = (float)(-1.0 - log(1.25));
    rig->advantages[0] = rig->advantages[1] = 1.0f;
    rig->policy.rollout_mode = GRADREG_ROLLOUT_SEQUENCE_TRUNCATE;
    run(rig);
    const double w = 1.25 * 1.25;
    near((double)rig->dlogp[0], -w / 4.0, "weighted");
    near((double)rig->dlogp[3], -1.0 / 4.0, "unweighted");
    near(rig->metrics.effective_sample_size, pow(2 * w + 2, 2) / (4 * (2 * w * w + 2)), "size");
    policy_rig_free(rig);
}
END_TEST

/* Of weights whose squares no double holds, of both sides of where they are summed apart, and of a row of
 * sequences; told in logarithms, whose largest is taken out first. */
START_TEST(an_effective_sample_size_is_a_number_for_every_weight)
{
    static const float logs[][4] = {
        { 355, 355, 355, 355 },     { 356, 0, 0, 0 },           { 709, 708, 707, 1 },
        { 709.5f, 709.5f, 709, 0 }, { -400, -400, -400, -400 }, { -600, -601, -602, -900 },
        { 27.5f, 28, 27.75f, 27 },  { 27, 27.5f, 27.25f, 26 },  { 60, -300, -300, -300 },
        { -300, 28, 27, -700 },     { 1, 0, -1, 0.5f },
    };
    for (size_t k = 0; k < sizeof(logs) / sizeof(*logs); k++) {
        policy_rig *rig = row_of(4, 1.0);
        double largest = -INFINITY, sum = 0, squares = 0;
        rig->policy.rollout_mode = GRADREG_ROLLOUT_TOKEN_TRUNCATE;
        rig->policy.rollout_high = INFINITY;
        for (size_t i = 0; i < 4; i++) {
            rig->rollout_logp[i] = -1.0f - logs[k][i];
            largest = fmax(largest, -1.0 - (double)rig->rollout_logp[i]);
        }
        for (size_t i = 0; i < 4; i++) {
            const double w = exp(-1.0 - (double)rig->rollout_logp[i] - largest);
            sum += w;
            squares += w * w;
        }
        run(rig);
        ck_assert_double_eq_tol(rig->metrics.effective_sample_size, sum * sum / (4 * squares),
                                1e-11);
        policy_rig_free(rig);
    }
}
END_TEST

/* T9. LUSPO is GSPO with n_i / B instead of 1 / B: nothing of the padding, and n_i once. */
START_TEST(luspo_is_gspo_times_the_length)
{
    uint64_t state = 9;
    policy_rig *rig = policy_rig_new(3, 9, false, false, &state);
    rig->policy.ratio_level = GRADREG_RATIO_SEQUENCE;
    rig->policy.kl = GRADREG_KL_K3;
    rig->policy.kl_coefficient = 0.3;
    run(rig);
    float gspo[27];
    memcpy(gspo, rig->dlogp, sizeof(gspo));
    rig->policy.aggregation = GRADREG_AGGREGATE_LENGTH_WEIGHTED;
    run(rig);
    for (size_t i = 0; i < 27; i++) {
        double n = 0.0;
        for (size_t k = i / 9 * 9; k < i / 9 * 9 + 9; k++)
            n += rig->mask[k] != 0;
        near((double)rig->dlogp[i], n * (double)gspo[i], "dlogp");
    }
    policy_rig_free(rig);
}
END_TEST

/* T10. Public code without the stopped gradient has 0 here. */
START_TEST(a_clipped_cispo_weight_still_weighs)
{
    policy_rig *rig = row_of(1, 2.0);
    assert_ok(gradreg_policy_preset(&rig->policy, "cispo@verl"));
    set_ratio(rig, 0, 3.0);
    run(rig);
    near((double)rig->dlogp[0], -1.2 * 2.0, "dlogp");
    near(rig->metrics.loss, -1.2 * 2.0 * (double)rig->logp[0], "loss");
    near(rig->metrics.clip_high_fraction, 1.0, "clipped");
    policy_rig_free(rig);
}
END_TEST

/* T11. A cap below 1 + clip_high: min(min(r, cap) A, clip(r) A) takes the other branch for A < 0, which
 * is not clipped there. */
START_TEST(a_cap_inside_the_clip_range_does_what_the_formula_says)
{
    static const struct {
        double r, a, rho, slope, limited;
    } rows[] = { { 1.2, -1.0, 1.2, 1.2, 0 },     { 1.2, 1.0, -1.1, 0.0, 1 },
                 { 1.05, 1.0, -1.05, -1.05, 0 }, { 1.6, -1.0, 1.5, 0.0, 1 },
                 { 1.05, -1.0, 1.05, 1.05, 0 },  { 1.6, 1.0, -1.1, 0.0, 1 } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        policy_rig *rig = row_of(1, rows[i].a);
        rig->policy.cap = 1.1;
        rig->policy.clip_high = 0.5;
        set_ratio(rig, 0, rows[i].r);
        run(rig);
        near(rig->metrics.loss, rows[i].rho, "rho");
        near((double)rig->dlogp[0], rows[i].slope, "slope");
        near(rig->metrics.limited_fraction, rows[i].limited, "limited");
        policy_rig_free(rig);
    }
}
END_TEST

START_TEST(the_cap_is_on_the_unclipped_branch_and_the_dual_clip_on_all)
{
    static const struct {
        double cap, dual_clip, r, slope, rho;
    } rows[] = { { 0, 0, 5.0, 5.0, 5.0 },
                 { 2.0, 0, 5.0, 0.0, 2.0 },
                 { 0, 3.0, 5.0, 0.0, 3.0 },
                 { 2.0, 3.0, 5.0, 0.0, 2.0 },
                 { 0, 3.0, 2.5, 2.5, 2.5 } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        policy_rig *rig = row_of(1, -1.0);
        rig->policy.cap = rows[i].cap;
        rig->policy.dual_clip = rows[i].dual_clip;
        const double r = set_ratio(rig, 0, rows[i].r);
        run(rig);
        near((double)rig->dlogp[0], rows[i].slope == 0.0 ? 0.0 : r, "slope");
        near(rig->metrics.loss, rows[i].slope == 0.0 ? rows[i].rho : r, "rho");
        near(rig->metrics.limited_fraction, rows[i].slope == 0.0, "limited");
        policy_rig_free(rig);
    }
}
END_TEST

/* At the clip's edge, as on-policy with no room at all, the unclipped branch is the one taken. */
START_TEST(equality_passes_the_gradient)
{
    for (double a = -1.5; a <= 1.5; a += 3.0) {
        policy_rig *rig = row_of(2, a);
        rig->policy.clip_low = rig->policy.clip_high = 0.0;
        run(rig);
        near((double)rig->dlogp[0], -a / 2.0, "dlogp");
        policy_rig_free(rig);
    }
}
END_TEST

/* ---- edges ------------------------------------------------------------------------ */

/* T12, and log ratios that no exponent can hold. */
START_TEST(no_ratio_is_so_large_that_zero_is_not_zero)
{
    static const double ds[] = { 0.0, 30.0, -30.0, 800.0, -800.0, 1e4, -1e4 };
    for (int surrogate = 1; surrogate <= LAST_SURROGATE; surrogate++)
        for (int level = 1; level <= LAST_RATIO_LEVEL; level++)
            for (size_t k = 0; k < 2 * sizeof(ds) / sizeof(ds[0]); k++) {
                policy_rig *rig = row_of(2, k % 2 ? 0.0 : -0.0);
                rig->policy.surrogate = surrogate;
                rig->policy.ratio_level = level;
                rig->logp[0] = (float)fmin(ds[k / 2], 0.0);
                rig->old_logp[0] = (float)(fmin(ds[k / 2], 0.0) - ds[k / 2]);
                run(rig);
                for (size_t i = 0; i < 2; i++)
                    ck_assert(rig->dlogp[i] == 0.0f);
                ck_assert(rig->metrics.loss == 0.0);
                policy_rig_free(rig);
            }
}
END_TEST

/* Which of them stay finite: all but r A where nothing clips it. */
START_TEST(no_ratio_is_so_large_that_there_is_no_number)
{
    static const double ds[] = { 30.0, -30.0, 800.0, -800.0, 1e4, -1e4 };
    for (int surrogate = 1; surrogate <= LAST_SURROGATE; surrogate++)
        for (int bits = 0; bits < 24; bits++)
            for (size_t k = 0; k < sizeof(ds) / sizeof(ds[0]); k++) {
                const double a = bits & 1 ? 1.0 : -1.0;
                const bool limited = bits & 2, dual = bits & 4;
                policy_rig *rig = row_of(3, a);
                rig->policy.surrogate = surrogate;
                rig->policy.ratio_level = bits / 8 + 1;
                rig->policy.log_ratio_limit = limited ? 20.0 : 0.0;
                rig->policy.dual_clip = dual ? 3.0 : 0.0;
                rig->logp[1] = (float)fmin(ds[k], 0.0);
                rig->old_logp[1] = (float)(fmin(ds[k], 0.0) - ds[k]);
                run(rig);
                const bool bounded = limited || a > 0.0 || ds[k] < 0.0 ||
                                     surrogate == GRADREG_SURROGATE_CLIPPED_WEIGHT ||
                                     surrogate == GRADREG_SURROGATE_SOFT_GATE ||
                                     surrogate == GRADREG_SURROGATE_PLAIN ||
                                     (dual && surrogate == GRADREG_SURROGATE_CLIPPED);
                for (size_t i = 0; i < 3; i++)
                    ck_assert(bounded ? isfinite(rig->dlogp[i]) : !isnan(rig->dlogp[i]));
                ck_assert(bounded ? isfinite(rig->metrics.loss) : !isnan(rig->metrics.loss));
                policy_rig_free(rig);
            }
}
END_TEST

/* e^u overflows; its weight is a ratio or a coefficient of 0. */
START_TEST(an_infinite_kl_that_weighs_nothing_is_nothing)
{
    for (int weighted = 0; weighted < 2; weighted++)
        for (int level = 1; level <= LAST_RATIO_LEVEL; level++) {
            policy_rig *rig = row_of(1, 1.0);
            rig->policy.ratio_level = level;
            rig->policy.kl = GRADREG_KL_K3;
            rig->policy.kl_ratio_weighted = weighted;
            rig->policy.kl_coefficient = weighted ? 0.5 : 0.0;
            rig->logp[0] = -2000.0f;
            run(rig);
            ck_assert(rig->dlogp[0] == 0.0f); /* r = 0 */
            ck_assert(rig->metrics.loss == 0.0);
            policy_rig_free(rig);
        }
}
END_TEST

/* A rollout weight may be infinite, rollout_high being so by choice: a token that weighs 0, or whose
 * advantage is 0, has no part in the loss all the same. */
START_TEST(an_infinite_weight_of_nothing_is_nothing)
{
    const bool by_weight = _i % 2 == 0, by_sequence = _i / 2 == 1;
    float weights[2] = { 1.0f, 0.0f };
    policy_rig *rig = row_of(2, by_weight ? 1.0 : 0.0);
    rig->policy.rollout_mode =
        by_sequence ? GRADREG_ROLLOUT_SEQUENCE_TRUNCATE : GRADREG_ROLLOUT_TOKEN_TRUNCATE;
    rig->policy.rollout_high = HUGE_VAL;
    rig->rollout_logp[1] = -1e4f;
    if (by_weight)
        rig->batch.token_weight = weights;
    run(rig);
    ck_assert(!isnan(rig->metrics.loss));
    ck_assert_float_eq(rig->dlogp[1], 0.0f);
    if (!by_sequence || !by_weight)
        near((double)rig->dlogp[0], by_weight ? -0.5 : 0.0, "the other token");
    policy_rig_free(rig);
}
END_TEST

/* ---- presets ---------------------------------------------------------------------- */

START_TEST(every_preset_has_one_name_and_runs)
{
    static const char *const promised[] = { "grpo",     "dr_grpo",  "bnpo", "dapo",
                                            "gspo",     "cispo",    "sapo", "gmpo",
                                            "gpg",      "luspo",    "ppo",  "reinforce",
                                            "grpo@trl", "grpo@verl" };
    size_t count = 0, found = 0;
    for (; gradreg_policy_preset_name(count) != NULL; count++) {
        const char *name = gradreg_policy_preset_name(count);
        policy_rig *rig = row_of(4, -1.0);
        assert_ok(gradreg_policy_preset(&rig->policy, name));
        ck_assert_uint_eq(rig->policy.struct_size, sizeof(gradreg_policy));
        set_ratio(rig, 0, 1.5);
        run(rig);
        ck_assert(isfinite(rig->metrics.loss) && rig->dlogp[1] != 0.0f);
        for (size_t k = 0; k < count; k++)
            ck_assert_str_ne(name, gradreg_policy_preset_name(k));
        for (size_t k = 0; k < sizeof(promised) / sizeof(promised[0]); k++)
            found += strcmp(promised[k], name) == 0;
        policy_rig_free(rig);
    }
    ck_assert_uint_eq(found, sizeof(promised) / sizeof(promised[0]));
    ck_assert_ptr_null(gradreg_policy_preset_name(count + 1));
    ck_assert_ptr_null(gradreg_policy_preset_name(SIZE_MAX));
}
END_TEST

START_TEST(an_unknown_preset_lists_all_names)
{
    gradreg_policy policy = GRADREG_POLICY_INIT;
    const gradreg_policy before = policy;
    assert_fails(gradreg_policy_preset(&policy, "grpo@nobody"), GRADREG_ERROR_INVALID_ARGUMENT,
                 "name", "grpo@nobody");
    for (size_t i = 0; gradreg_policy_preset_name(i) != NULL; i++)
        if (strstr(gradreg_last_error(), gradreg_policy_preset_name(i)) == NULL)
            ck_abort_msg("\"%s\" does not name %s", gradreg_last_error(),
                         gradreg_policy_preset_name(i));
    ck_assert(memcmp(&before, &policy, sizeof(policy)) == 0);
}
END_TEST

/* ---- the same function in both passes --------------------------------------------- */

/* pi = softmax(W x): logits linear in theta, so the policy itself is all of the curvature. */
enum { FEATURES = 4, ACTIONS = 5, SAMPLES = 32, THETA = FEATURES * ACTIONS };

typedef struct bandit {
    double x[SAMPLES][FEATURES];
    int action[SAMPLES];
    float advantage[SAMPLES];
    float old_logp[SAMPLES];
} bandit;

static void softmax(double *p, const double *theta, const double *x)
{
    double sum = 0.0;
    for (size_t a = 0; a < ACTIONS; a++) {
        double z = 0.0;
        for (size_t f = 0; f < FEATURES; f++)
            z += theta[a * FEATURES + f] * x[f];
        sum += p[a] = exp(z);
    }
    for (size_t a = 0; a < ACTIONS; a++)
        p[a] /= sum;
}

/* d loss / d theta through the library's d loss / d logp. */
static void bandit_gradient(double *g, const bandit *b, const double *theta, bool with_old)
{
    gradreg_context *context = policy_context(1);
    gradreg_policy_batch batch = GRADREG_POLICY_BATCH_INIT;
    gradreg_policy_gradient out = GRADREG_POLICY_GRADIENT_INIT;
    gradreg_policy policy;
    float logp[SAMPLES], dlogp[SAMPLES];
    double p[SAMPLES][ACTIONS];
    assert_ok(gradreg_policy_preset(&policy, "grpo"));
    for (size_t i = 0; i < SAMPLES; i++) {
        softmax(p[i], theta, b->x[i]);
        logp[i] = (float)log(p[i][b->action[i]]);
    }
    batch.sequences = SAMPLES;
    batch.length = 1;
    batch.logp = logp;
    batch.old_logp = with_old ? b->old_logp : NULL;
    batch.advantages = b->advantage;
    out.dlogp = dlogp;
    assert_ok(gradreg_policy_loss(context, NULL, &out, &batch, &policy));
    assert_ok(gradreg_context_destroy(context));
    memset(g, 0, THETA * sizeof(*g));
    for (size_t i = 0; i < SAMPLES; i++)
        for (size_t a = 0; a < ACTIONS; a++)
            for (size_t f = 0; f < FEATURES; f++)
                g[a * FEATURES + f] += (double)dlogp[i] *
                                       ((int)a == b->action[i] ? 1.0 - p[i][a] : -p[i][a]) *
                                       b->x[i][f];
}

static void draw_bandit(bandit *b, double *theta, uint64_t *state)
{
    for (size_t k = 0; k < THETA; k++)
        theta[k] = next_signed(state, 0.5);
    for (size_t i = 0; i < SAMPLES; i++) {
        double p[ACTIONS], u;
        for (size_t f = 0; f < FEATURES; f++)
            b->x[i][f] = next_signed(state, 1.5);
        softmax(p, theta, b->x[i]);
        u = next_unit(state);
        for (b->action[i] = 0; b->action[i] < ACTIONS - 1 && u >= p[b->action[i]];
             b->action[i]++)
            u -= p[b->action[i]];
        b->advantage[i] = (float)next_signed(state, 1.5);
        b->old_logp[i] = (float)log(p[b->action[i]]);
    }
}

static double dot(const double *a, const double *b)
{
    double sum = 0.0;
    for (size_t k = 0; k < THETA; k++)
        sum += a[k] * b[k];
    return sum;
}

/* (g(theta + eps g) - g(theta)) / eps */
static void product(double *h, const bandit *b, const double *theta, const double *g,
                    bool with_old)
{
    const double eps = 0.01 / sqrt(dot(g, g));
    double moved[THETA], there[THETA];
    for (size_t k = 0; k < THETA; k++)
        moved[k] = theta[k] + eps * g[k];
    bandit_gradient(there, b, moved, with_old);
    for (size_t k = 0; k < THETA; k++)
        h[k] = (there[k] - g[k]) / eps;
}

/* Both passes must differentiate the same function. Without old log-probs the second pass has -A log pi
 * in place of -A pi / pi_old: the same gradient at theta, another Hessian. */
START_TEST(the_on_policy_shorthand_has_another_hessian)
{
    uint64_t state = test_seed() ^ 13;
    double mean = 0.0;
    enum { BANDITS = 20 };
    for (int i = 0; i < BANDITS; i++) {
        bandit b;
        double theta[THETA], g[THETA], g_shorthand[THETA], with_old[THETA], without[THETA];
        draw_bandit(&b, theta, &state);
        bandit_gradient(g, &b, theta, true);
        bandit_gradient(g_shorthand, &b, theta, false);
        for (size_t k = 0; k < THETA; k++)
            near(g_shorthand[k] + 1.0, g[k] + 1.0, "the gradients at theta");
        product(with_old, &b, theta, g, true);
        product(without, &b, theta, g, false);
        mean += dot(with_old, without) / sqrt(dot(with_old, with_old) * dot(without, without)) /
                BANDITS;
    }
    printf("cosine of the two H g, linear softmax policy, mean of %d: %.2f\n", BANDITS, mean);
    fflush(stdout);
    ck_assert(mean > -0.4 && mean < -0.1); /* docs/losses.md: about -0.25 */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("policy numbers");
    TCase *tc = tcase_create("core");
    tcase_add_test(tc, a_sequence_ratio_that_weighs_the_kl_moves_with_every_token);
    tcase_add_test(tc, rollout_bounds_are_those_of_the_weight);
    tcase_add_test(tc, rollout_weights_of_a_sequence_multiply);
    tcase_add_test(tc, an_effective_sample_size_is_a_number_for_every_weight);
    tcase_add_test(tc, luspo_is_gspo_times_the_length);
    tcase_add_test(tc, a_clipped_cispo_weight_still_weighs);
    tcase_add_test(tc, a_cap_inside_the_clip_range_does_what_the_formula_says);
    tcase_add_test(tc, the_cap_is_on_the_unclipped_branch_and_the_dual_clip_on_all);
    tcase_add_test(tc, equality_passes_the_gradient);
    tcase_add_test(tc, no_ratio_is_so_large_that_zero_is_not_zero);
    tcase_add_test(tc, no_ratio_is_so_large_that_there_is_no_number);
    tcase_add_test(tc, an_infinite_kl_that_weighs_nothing_is_nothing);
    tcase_add_loop_test(tc, an_infinite_weight_of_nothing_is_nothing, 0, 4);
    tcase_add_test(tc, every_preset_has_one_name_and_runs);
    tcase_add_test(tc, an_unknown_preset_lists_all_names);
    tcase_add_test(tc, the_on_policy_shorthand_has_another_hessian);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
