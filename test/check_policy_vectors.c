/* check_policy_vectors.c - losses, KL estimates and advantages that public implementations have
 * computed in float64.
 *
 * In: vectors/policy_loss.json, kl.json, advantages.json (their folder is the first argument), and
 * the preset that each case is. Out:
 *
 *   - the oracle, given the published doubles, gives the published loss and gradient: to 1e-12 for
 *     TRL, to 1e-8 for verl, which adds 1e-8 to what it divides by;
 *   - the library, given them rounded to f32, gives what those roundings imply. With u = 2^-24, an
 *     input x is off by u |x|; a log ratio by u (|l| + |l'|), of which the surrogates make at most
 *     four times as much; A by u |A|; and the result is rounded once. See gradient_slack(). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy_rig.h"
#include "vectors.h"

#define U 0x1p-24

static const char *folder = "test/vectors";
static cJSON *losses, *kls, *advantages;

enum { LOSSES = 31, KLS = 4, ADVANTAGES = 15 };

/* ---- reading --------------------------------------------------------------------- */

/* ---- which preset a case is ------------------------------------------------------ */

static void trl_name(char *name, size_t size, const cJSON *config)
{
    const char *type = vectors_string(config, "loss_type");
    const bool gspo = strcmp(type, "grpo") == 0 && vectors_has(config, "ratio_level");
    (void)snprintf(name, size, "%s@trl", gspo ? "gspo" : type);
}

static void verl_name(char *name, size_t size, const cJSON *config)
{
    const char *policy = vectors_string(config, "policy");
    const bool constant =
        strcmp(vectors_string(config, "aggregation"), "seq-mean-token-sum-norm") == 0;
    const char *ours = strcmp(policy, "vanilla") == 0    ? constant ? "dr_grpo" : "ppo"
                       : strcmp(policy, "geo_mean") == 0 ? "gmpo"
                                                         : policy;
    (void)snprintf(name, size, "%s@verl", ours);
}

/* verl's aggregation is a setting of its own. GMPO does not read it, and the constant one divides by
 * no rows in the version that was run: B = 1. */
static void aggregate_as_verl(gradreg_policy *p, const char *aggregation)
{
    if (p->surrogate == GRADREG_SURROGATE_GEOMETRIC_MEAN)
        return;
    if (strcmp(aggregation, "token-mean") == 0)
        p->aggregation = GRADREG_AGGREGATE_TOKEN_MEAN;
    else if (strcmp(aggregation, "seq-mean-token-mean") == 0)
        p->aggregation = GRADREG_AGGREGATE_SEQUENCE_MEAN;
    else if (strcmp(aggregation, "seq-mean-token-sum") == 0)
        p->aggregation = GRADREG_AGGREGATE_SEQUENCE_SUM;
    else
        p->sequence_total = 1.0;
}

static void set_if(double *field, const cJSON *config, const char *name)
{
    if (vectors_has(config, name))
        *field = vectors_number(config, name);
}

static void read_policy(gradreg_policy *p, const cJSON *item)
{
    const cJSON *config = vectors_member(item, "config");
    const bool trl = strcmp(vectors_string(item, "source"), "trl") == 0;
    char name[64];
    (trl ? trl_name : verl_name)(name, sizeof(name), config);
    assert_ok(gradreg_policy_preset(p, name));
    set_if(&p->clip_low, config, "eps_low");
    set_if(&p->clip_high, config, "eps_high");
    if (strcmp(name, "cispo@trl") == 0) /* its epsilon_high is the bound itself */
        p->clip_high -= 1.0;
    set_if(&p->cap, config, "delta");
    set_if(&p->dual_clip, config, "dual_clip");
    set_if(&p->gate_positive, config, "tau_pos");
    set_if(&p->gate_negative, config, "tau_neg");
    set_if(&p->entropy_coefficient, config, "entropy_coef");
    set_if(&p->off_policy_threshold, config, "off_policy_threshold");
    set_if(&p->max_length, config, "max_len");
    set_if(&p->kl_coefficient, config, "beta");
    if (vectors_has(config, "beta"))
        p->kl = GRADREG_KL_K3;
    p->kl_ratio_weighted = vectors_has(config, "kl_bias_correction");
    if (!trl)
        aggregate_as_verl(p, vectors_string(config, "aggregation"));
}

/* ---- one case of policy_loss.json ------------------------------------------------ */

typedef struct reference {
    const char *name;
    bool trl;
    const cJSON *metrics;
    gradreg_policy policy;
    oracle_policy_batch batch;
    size_t count;
    uint8_t *mask;
    double loss, *dlogp, *dentropy;
} reference;

static reference *read_reference(int index)
{
    const cJSON *item = cJSON_GetArrayItem(losses, index);
    const cJSON *inputs = vectors_member(item, "inputs"),
                *expect = vectors_member(item, "expect");
    reference *r = calloc(1, sizeof(*r));
    oracle_policy_batch *b = &r->batch;
    r->name = vectors_string(item, "name");
    r->trl = strcmp(vectors_string(item, "source"), "trl") == 0;
    r->metrics = vectors_member(expect, "metrics");
    read_policy(&r->policy, item);
    b->sequences = (size_t)vectors_number(item, "rows");
    b->length = (size_t)vectors_number(item, "cols");
    const size_t n = r->count = b->sequences * b->length;
    b->logp = vectors_numbers(inputs, "logp", n);
    b->old_logp = vectors_numbers(inputs, "old_logp", n);
    b->ref_logp = vectors_numbers(inputs, "ref_logp", n);
    b->entropy = vectors_numbers(inputs, "entropy", n);
    b->advantages = vectors_numbers(inputs, "advantages", b->sequences);
    if (vectors_has(inputs, "rollout_weight"))
        b->token_weight = vectors_numbers(inputs, "rollout_weight", n);
    double *mask = vectors_numbers(inputs, "mask", n);
    b->mask = r->mask = calloc(n, 1);
    for (size_t i = 0; i < n; i++)
        r->mask[i] = mask[i] != 0.0;
    free(mask);
    r->loss = vectors_number(expect, "loss");
    r->dlogp = vectors_numbers(expect, "dlogp", n);
    r->dentropy =
        vectors_has(expect, "dentropy") ? vectors_numbers(expect, "dentropy", n) : NULL;
    return r;
}

static void free_reference(reference *r)
{
    const oracle_policy_batch *b = &r->batch;
    const double *const arrays[] = { b->logp,         b->old_logp,   b->ref_logp, b->entropy,
                                     b->token_weight, b->advantages, r->dlogp,    r->dentropy };
    for (size_t k = 0; k < sizeof(arrays) / sizeof(arrays[0]); k++)
        free((void *)(uintptr_t)arrays[k]);
    free(r->mask);
    free(r);
}

static void expect_near(double got, double want, double slack, const char *name,
                        const char *what)
{
    if (!(fabs(got - want) <= slack))
        ck_abort_msg("%s: %s is %.17g, published %.17g, slack %.3g", name, what, got, want,
                     slack);
}

/* ---- the oracle ------------------------------------------------------------------ */

START_TEST(the_oracle_agrees_in_double)
{
    reference *r = read_reference(_i);
    oracle_policy *o = oracle_policy_new(&r->policy, &r->batch);
    const double relative = r->trl ? 1e-12 : 1e-8;
    expect_near(o->metrics.loss, r->loss, relative * (1.0 + fabs(r->loss)), r->name, "loss");
    for (size_t i = 0; i < r->count; i++) {
        const size_t row = i / r->batch.length;
        const double slope = oracle_policy_slope(o, row, i);
        /* 1e-10 of a token's weight is what differences leave, nothing where they cross a corner */
        if (o->margin > 2.5 * ORACLE_POLICY_REACH)
            expect_near(slope, r->dlogp[i],
                        relative * fabs(r->dlogp[i]) + 1e-10 * o->row_weights[row], r->name,
                        "dlogp");
        if (r->dentropy != NULL)
            expect_near(oracle_policy_entropy_slope(o, row, i), r->dentropy[i],
                        1e-12 * o->entropy_weight, r->name, "dentropy");
    }
    oracle_policy_free(o);
    free_reference(r);
}
END_TEST

/* ---- the library ----------------------------------------------------------------- */

static void narrow(float *out, const double *values, size_t count)
{
    for (size_t i = 0; i < count && values != NULL; i++)
        out[i] = (float)values[i];
}

static policy_rig *rig_of(const reference *r)
{
    uint64_t state = 1;
    const oracle_policy_batch *b = &r->batch;
    policy_rig *rig = policy_rig_new(b->sequences, b->length, false, false, &state);
    rig->policy = r->policy;
    narrow(rig->logp, b->logp, r->count);
    narrow(rig->old_logp, b->old_logp, r->count);
    narrow(rig->ref_logp, b->ref_logp, r->count);
    narrow(rig->entropy, b->entropy, r->count);
    narrow(rig->advantages, b->advantages, b->sequences);
    narrow(rig->token_weight, b->token_weight, r->count);
    memcpy(rig->mask, r->mask, r->count);
    if (b->token_weight == NULL)
        rig->batch.token_weight = NULL;
    rig->batch.rollout_logp = NULL; /* no case has them: drift is from the old ones */
    return rig;
}

/* How far the log ratio of a token is off. */
static double ratio_error(const reference *r, size_t i)
{
    return U * (fabs(r->batch.logp[i]) + fabs(r->batch.old_logp[i]));
}

static double row_ratio_error(const reference *r, size_t row)
{
    double worst = 0.0;
    for (size_t i = row * r->batch.length; i < (row + 1) * r->batch.length; i++)
        worst = fmax(worst, r->mask[i] ? ratio_error(r, i) : 0.0);
    return worst;
}

/* The surrogate's part is largest where the row's gradient is; the KL's may hide behind it. */
static double gradient_slack(const reference *r, const oracle_policy *o, size_t i)
{
    const size_t row = i / r->batch.length;
    const oracle_policy_batch *b = &r->batch;
    double largest = 0.0, kl = 0.0;
    for (size_t k = row * b->length; k < (row + 1) * b->length; k++)
        largest = fmax(largest, fabs(r->dlogp[k]));
    if (r->policy.kl != GRADREG_KL_NONE)
        kl = o->row_weights[row] * r->policy.kl_coefficient *
             exp(fabs(b->ref_logp[i] - b->logp[i]));
    return U * fabs(r->dlogp[i]) + (4.0 * row_ratio_error(r, row) + 3.0 * U) * (largest + kl) +
           U * (fabs(b->logp[i]) + fabs(b->ref_logp[i])) * kl + (r->trl ? 0.0 : 1e-8 * largest);
}

/* Every input's error times the loss's slope in it. */
static double loss_slack(const reference *r, const oracle_policy *o)
{
    const oracle_policy_batch *b = &r->batch;
    double slack = r->trl ? 1e-12 : 1e-8 * fabs(r->loss);
    for (size_t i = 0; i < r->count; i++) {
        const size_t row = i / b->length;
        const double weight =
            r->mask[i]
                ? o->row_weights[row] * (b->token_weight != NULL ? b->token_weight[i] : 1.0)
                : 0.0;
        const double scale = fabs(b->advantages[row]) * weight;
        const double ratio = fmin(fabs(b->logp[i] - b->old_logp[i]), 1.0);
        slack += U * scale * 4.0 * exp(ratio) *
                     (1.0 + fabs(b->logp[i]) * 2.0 + fabs(b->old_logp[i])) +
                 U * o->entropy_weight * r->policy.entropy_coefficient * fabs(b->entropy[i]) +
                 U * r->policy.kl_coefficient * weight *
                     (fabs(r->batch.ref_logp[i]) + fabs(b->logp[i])) * exp(1.0);
    }
    return slack;
}

static void check_gradients(const reference *r, const policy_rig *rig, const oracle_policy *o)
{
    for (size_t i = 0; i < r->count; i++) {
        expect_near((double)rig->dlogp[i], r->dlogp[i], gradient_slack(r, o, i), r->name,
                    "dlogp");
        if (r->dentropy != NULL)
            expect_near((double)rig->dentropy[i], r->dentropy[i], U * fabs(r->dentropy[i]),
                        r->name, "dentropy");
    }
}

static void check_metric(const reference *r, const char *published, double got, double slack)
{
    if (vectors_has(r->metrics, published))
        expect_near(got, vectors_number(r->metrics, published), slack, r->name, published);
}

static void check_metrics(const reference *r, const gradreg_policy_metrics *m, double slack)
{
    check_metric(r, "entropy", m->entropy, 3.0 * U);
    check_metric(r, "kl", m->kl, 100.0 * U);
    check_metric(r, "policy_loss", m->policy_loss, slack);
    check_metric(r, "clip_ratio/low_mean", m->clip_low_fraction, 1e-15);
    check_metric(r, "clip_ratio/high_mean", m->clip_high_fraction, 1e-15);
    check_metric(r, "clip_ratio/region_mean", m->clip_low_fraction + m->clip_high_fraction,
                 1e-15);
    check_metric(r, "cispo_clip_ratio", m->clip_high_fraction, 1e-15);
    /* verl counts CISPO's weights on both sides, GMPO's as clipped or not, SAPO's not at all */
    if (r->policy.surrogate != GRADREG_SURROGATE_CLIPPED)
        return;
    check_metric(r, "actor/pg_clipfrac", m->clip_low_fraction + m->clip_high_fraction, 1e-8);
    check_metric(r, "actor/pg_clipfrac_lower", m->limited_fraction, 1e-8);
}

START_TEST(the_library_agrees_in_f32)
{
    reference *r = read_reference(_i);
    policy_rig *rig = rig_of(r);
    gradreg_context *context = policy_context(1);
    oracle_policy *o = oracle_policy_new(&r->policy, &r->batch);
    const double slack = loss_slack(r, o);
    policy_rig_run(rig, context);
    expect_near(rig->metrics.loss, r->loss, slack, r->name, "loss");
    check_gradients(r, rig, o);
    check_metrics(r, &rig->metrics, slack);
    oracle_policy_free(o);
    policy_rig_free(rig);
    assert_ok(gradreg_context_destroy(context));
    free_reference(r);
}
END_TEST

/* ---- KL -------------------------------------------------------------------------- */

static gradreg_kl kl_named(const char *name)
{
    static const char *const names[] = { "kl/k1", "kl/k2", "kl/k3", "kl/abs" };
    for (int k = 0; k < KLS; k++)
        if (strcmp(names[k], name) == 0)
            return GRADREG_KL_K1 + k;
    ck_abort_msg("unknown estimate %s", name);
    return 0;
}

/* One token, weight 1, advantage 0: the loss is beta times the estimate. */
static void run_one_token(gradreg_context *context, policy_rig *rig, gradreg_kl kl, double logp,
                          double ref)
{
    assert_ok(gradreg_policy_init(&rig->policy, sizeof(rig->policy)));
    rig->policy.kl = kl;
    rig->policy.kl_coefficient = 1.0;
    rig->logp[0] = (float)logp;
    rig->ref_logp[0] = (float)ref;
    rig->advantages[0] = 0.0f;
    rig->mask[0] = 1;
    policy_rig_run(rig, context);
}

START_TEST(kl_estimates_agree)
{
    const cJSON *item = cJSON_GetArrayItem(kls, _i);
    const cJSON *inputs = vectors_member(item, "inputs"),
                *expect = vectors_member(item, "expect");
    const size_t count = (size_t)cJSON_GetArraySize(vectors_member(inputs, "logp"));
    double *logp = vectors_numbers(inputs, "logp", count),
           *ref = vectors_numbers(inputs, "ref_logp", count);
    double *kl = vectors_numbers(expect, "kl", count),
           *dlogp = vectors_numbers(expect, "dlogp", count);
    gradreg_context *context = policy_context(1);
    uint64_t state = 1;
    policy_rig *rig = policy_rig_new(1, 1, false, false, &state);
    ck_assert_uint_gt(count, 0);
    for (size_t i = 0; i < count; i++) {
        const char *name = vectors_string(item, "name");
        const double error = U * (fabs(logp[i]) + fabs(ref[i])); /* of u = ref - logp */
        const double steepest = 1.0 + fabs(ref[i] - logp[i]) + exp(ref[i] - logp[i]);
        run_one_token(context, rig, kl_named(name), logp[i], ref[i]);
        expect_near(rig->metrics.loss, kl[i], error * steepest + 1e-15, name, "kl");
        expect_near(rig->metrics.kl, kl[i], error * steepest + 1e-15, name, "kl");
        expect_near((double)rig->dlogp[0], dlogp[i], error * steepest + U * fabs(dlogp[i]),
                    name, "dlogp");
    }
    policy_rig_free(rig);
    assert_ok(gradreg_context_destroy(context));
    free(logp), free(ref), free(kl), free(dlogp);
}
END_TEST

/* ---- advantages ------------------------------------------------------------------ */

static const struct estimator {
    const char *name;
    gradreg_baseline baseline;
    gradreg_scale scale;
} estimators[] = {
    { "grpo_trl", GRADREG_BASELINE_GROUP_MEAN, GRADREG_SCALE_GROUP_STD },
    { "grpo_verl", GRADREG_BASELINE_GROUP_MEAN, GRADREG_SCALE_GROUP_STD },
    { "batch_std_trl", GRADREG_BASELINE_GROUP_MEAN, GRADREG_SCALE_BATCH_STD },
    { "dr_grpo", GRADREG_BASELINE_GROUP_MEAN, GRADREG_SCALE_NONE },
    { "rloo", GRADREG_BASELINE_LEAVE_ONE_OUT, GRADREG_SCALE_NONE },
};

static void read_estimator(gradreg_advantage_params *p, const cJSON *item)
{
    const char *name = strchr(vectors_string(item, "name"), '/') + 1;
    for (size_t k = 0; k < sizeof(estimators) / sizeof(estimators[0]); k++)
        if (strcmp(estimators[k].name, name) == 0) {
            p->baseline = estimators[k].baseline;
            p->scale = estimators[k].scale;
            if (vectors_has(item, "eps"))
                p->epsilon = vectors_number(item, "eps");
            return;
        }
    ck_abort_msg("unknown estimator %s", name);
}

static double deviation(const double *x, size_t n)
{
    double mean = 0.0, squares = 0.0;
    for (size_t i = 0; i < n; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    return sqrt(squares / (double)(n - 1));
}

/* Rewards off by at most U max|R| move reward and baseline each by that, times n / (n - 1) for the
 * leave-one-out, and a deviation by twice that. */
static double advantage_slack(const gradreg_advantage_params *p, const double *rewards,
                              size_t count, const double *group, size_t size, double want)
{
    double largest = 0.0, scale = 1.0, moves = 0.0;
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, U * fabs(rewards[i]));
    if (p->scale != GRADREG_SCALE_NONE) {
        scale = p->epsilon + (p->scale == GRADREG_SCALE_GROUP_STD ? deviation(group, size)
                                                                  : deviation(rewards, count));
        moves = 2.0 * largest * fabs(want) / scale;
    }
    return 2.0 * largest * (double)size / (double)(size - 1) / scale + moves + U * fabs(want);
}

START_TEST(advantages_agree)
{
    const cJSON *item = cJSON_GetArrayItem(advantages, _i),
                *inputs = vectors_member(item, "inputs");
    const size_t count = (size_t)cJSON_GetArraySize(vectors_member(inputs, "rewards"));
    const size_t size = (size_t)vectors_number(inputs, "group_size");
    double *rewards = vectors_numbers(inputs, "rewards", count),
           *want = vectors_numbers(item, "expect", count);
    float *values = guarded_new(count * sizeof(float), 0);
    gradreg_advantage_params params = GRADREG_ADVANTAGE_PARAMS_INIT;
    gradreg_context *context = policy_context(1);
    read_estimator(&params, item);
    narrow(values, rewards, count);
    assert_ok(gradreg_advantages(context, values, values, count, size, &params));
    for (size_t i = 0; i < count; i++)
        expect_near(
            (double)values[i], want[i],
            advantage_slack(&params, rewards, count, rewards + i / size * size, size, want[i]),
            vectors_string(item, "name"), "advantage");
    assert_ok(gradreg_context_destroy(context));
    guarded_free(values);
    free(rewards), free(want);
}
END_TEST

START_TEST(every_case_is_read)
{
    ck_assert_int_eq(cJSON_GetArraySize(losses), LOSSES);
    ck_assert_int_eq(cJSON_GetArraySize(kls), KLS);
    ck_assert_int_eq(cJSON_GetArraySize(advantages), ADVANTAGES);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("policy vectors");
    TCase *tc = tcase_create("core");
    if (argc > 1)
        folder = argv[1];
    losses = vectors_read(folder, "policy_loss");
    kls = vectors_read(folder, "kl");
    advantages = vectors_read(folder, "advantages");
    tcase_add_test(tc, every_case_is_read);
    add_loop_test(tc, the_oracle_agrees_in_double, 0, LOSSES);
    add_loop_test(tc, the_library_agrees_in_f32, 0, LOSSES);
    add_loop_test(tc, kl_estimates_agree, 0, KLS);
    add_loop_test(tc, advantages_agree, 0, ADVANTAGES);
    suite_add_tcase(suite, tc);
    const int result = run_suite(suite);
    cJSON_Delete(losses);
    cJSON_Delete(kls);
    cJSON_Delete(advantages);
    return result;
}
