/* policy_rig.c - see policy_rig.h. */
#include "policy_rig.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- numbers --------------------------------------------------------------------- */

/* A multiple of 1/1024 in [-reach, reach]. */
static float next_step(uint64_t *state, double reach)
{
    return (float)(round(next_signed(state, reach) * 1024.0) / 1024.0);
}

static bool chance(uint64_t *state, double probability)
{
    return next_unit(state) < probability;
}

static void fill_tokens(policy_rig *rig, uint64_t *state)
{
    for (size_t i = 0; i < rig->tokens; i++) {
        rig->logp[i] = (float)(-round(next_unit(state) * 12288.0) / 4096.0);
        rig->old_logp[i] = rig->logp[i] - next_step(state, 1.25);
        rig->ref_logp[i] = rig->logp[i] + next_step(state, 1.5);
        rig->rollout_logp[i] = rig->old_logp[i] - next_step(state, 0.6);
        rig->token_weight[i] = chance(state, 0.1) ? 0.0f : (float)(2.0 * next_unit(state));
        rig->entropy[i] = (float)(3.0 * next_unit(state));
        rig->mask[i] = chance(state, 0.75) ? (uint8_t)(1 + next_word(state) % 255) : 0;
    }
}

static void fill_rows(policy_rig *rig, uint64_t *state)
{
    static const int32_t ids[] = { 1000000, -7, 3 };
    const size_t advantages =
        rig->batch.advantages_per_token ? rig->tokens : rig->batch.sequences;
    for (size_t i = 0; i < advantages; i++)
        rig->advantages[i] = chance(state, 0.1) ? 0.0f : (float)next_signed(state, 2.0);
    for (size_t r = 0; r < rig->batch.sequences; r++)
        rig->group[r] = ids[next_word(state) % 3];
}

/* ---- life ------------------------------------------------------------------------ */

static float *floats(size_t count)
{
    return guarded_new(count * sizeof(float), 0);
}

static void lay_out(policy_rig *rig, size_t rows, size_t length, bool packed, uint64_t *state)
{
    rig->batch.sequences = rows;
    rig->batch.length = packed ? 0 : length;
    rig->tokens = rows * length;
    rig->row_offsets = guarded_new((rows + 1) * sizeof(int64_t), 0);
    rig->row_offsets[0] = 0;
    if (!packed)
        return;
    for (size_t r = 0; r < rows; r++)
        rig->row_offsets[r + 1] =
            rig->row_offsets[r] + (int64_t)(next_word(state) % (length + 1));
    rig->tokens = (size_t)rig->row_offsets[rows];
    rig->batch.row_offsets = rig->row_offsets;
}

static void point(policy_rig *rig)
{
    gradreg_policy_batch *b = &rig->batch;
    b->logp = rig->logp;
    b->old_logp = rig->old_logp;
    b->ref_logp = rig->ref_logp;
    b->rollout_logp = rig->rollout_logp;
    b->token_weight = rig->token_weight;
    b->entropy = rig->entropy;
    b->mask = rig->mask;
    b->advantages = rig->advantages;
    b->group = rig->group;
    rig->out.dlogp = rig->dlogp;
    rig->out.dentropy = rig->dentropy;
}

policy_rig *policy_rig_new(size_t rows, size_t length, bool packed, bool per_token,
                           uint64_t *state)
{
    const gradreg_policy policy = GRADREG_POLICY_INIT;
    const gradreg_policy_batch batch = GRADREG_POLICY_BATCH_INIT;
    const gradreg_policy_gradient out = GRADREG_POLICY_GRADIENT_INIT;
    const gradreg_policy_metrics metrics = GRADREG_POLICY_METRICS_INIT;
    policy_rig *rig = calloc(1, sizeof(*rig));
    rig->policy = policy;
    rig->batch = batch;
    rig->out = out;
    rig->metrics = metrics;
    rig->batch.advantages_per_token = per_token;
    lay_out(rig, rows, length, packed, state);
    float **const arrays[] = { &rig->logp,     &rig->old_logp,     &rig->ref_logp,
                               &rig->entropy,  &rig->rollout_logp, &rig->token_weight,
                               &rig->dentropy, &rig->dlogp };
    for (size_t k = 0; k < sizeof(arrays) / sizeof(arrays[0]); k++)
        *arrays[k] = floats(rig->tokens);
    rig->advantages = floats(per_token ? rig->tokens : rows);
    rig->mask = guarded_new(rig->tokens, 0);
    rig->group = guarded_new(rows * sizeof(int32_t), 0);
    fill_tokens(rig, state);
    fill_rows(rig, state);
    point(rig);
    return rig;
}

void policy_rig_free(policy_rig *rig)
{
    void *const arrays[] = {
        rig->logp,         rig->old_logp, rig->ref_logp, rig->rollout_logp,
        rig->token_weight, rig->entropy,  rig->dlogp,    rig->dentropy,
        rig->advantages,   rig->mask,     rig->group,    rig->row_offsets
    };
    for (size_t k = 0; k < sizeof(arrays) / sizeof(arrays[0]); k++)
        guarded_free(arrays[k]);
    free(rig);
}

size_t policy_rig_begin(const policy_rig *rig, size_t row)
{
    return rig->batch.row_offsets != NULL ? (size_t)rig->row_offsets[row]
                                          : row * rig->batch.length;
}

size_t policy_rig_end(const policy_rig *rig, size_t row)
{
    return policy_rig_begin(rig, row + 1);
}

void policy_rig_run(policy_rig *rig, gradreg_context *context)
{
    assert_ok(
        gradreg_policy_loss(context, &rig->metrics, &rig->out, &rig->batch, &rig->policy));
    guarded_check(rig->dlogp);
    guarded_check(rig->dentropy);
    guarded_check(rig->logp);
}

gradreg_context *policy_context(int32_t threads)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context = NULL;
    params.threads = threads;
    assert_ok(test_context_create(&context, &params));
    return context;
}

/* ---- the oracle's view ----------------------------------------------------------- */

static const double *widened(const float *values, size_t count)
{
    double *out = values != NULL ? calloc(count + 1, sizeof(double)) : NULL;
    for (size_t i = 0; i < count && out != NULL; i++)
        out[i] = (double)values[i];
    return out;
}

oracle_policy_batch *policy_rig_view(const policy_rig *rig)
{
    const gradreg_policy_batch *b = &rig->batch;
    oracle_policy_batch *view = calloc(1, sizeof(*view));
    const size_t advantages = b->advantages_per_token ? rig->tokens : b->sequences;
    view->sequences = b->sequences;
    view->length = b->length;
    view->row_offsets = b->row_offsets;
    view->advantages_per_token = b->advantages_per_token != 0;
    view->logp = widened(b->logp, rig->tokens);
    view->old_logp = widened(b->old_logp, rig->tokens);
    view->ref_logp = widened(b->ref_logp, rig->tokens);
    view->rollout_logp = widened(b->rollout_logp, rig->tokens);
    view->token_weight = widened(b->token_weight, rig->tokens);
    view->entropy = widened(b->entropy, rig->tokens);
    view->advantages = widened(b->advantages, advantages);
    view->mask = b->mask;
    view->group = b->group;
    return view;
}

void policy_rig_view_free(oracle_policy_batch *view)
{
    const double *const arrays[] = { view->logp,         view->old_logp,     view->ref_logp,
                                     view->rollout_logp, view->token_weight, view->entropy,
                                     view->advantages };
    for (size_t k = 0; k < sizeof(arrays) / sizeof(arrays[0]); k++)
        free((void *)(uintptr_t)arrays[k]);
    free(view);
}

/* ---- comparison ------------------------------------------------------------------ */

static void close_to(double got, double want, const char *name, const char *what)
{
    /* Sums of some dozens of terms near 1: no metric can be further off. */
    if (!(fabs(got - want) <= 1e-12 * (1.0 + fabs(want))))
        ck_abort_msg("%s: %s is %.17g, oracle %.17g", what, name, got, want);
}

static void check_metrics(const gradreg_policy_metrics *got, const gradreg_policy_metrics *want,
                          const char *what)
{
#define CLOSE(field) close_to(got->field, want->field, #field, what)
    CLOSE(loss);
    CLOSE(policy_loss);
    CLOSE(kl);
    CLOSE(entropy);
    CLOSE(ratio_mean);
    CLOSE(ratio_min);
    CLOSE(ratio_max);
    CLOSE(clip_low_fraction);
    CLOSE(clip_high_fraction);
    CLOSE(limited_fraction);
    CLOSE(effective_sample_size);
#undef CLOSE
    if (got->tokens != want->tokens || got->sequences != want->sequences ||
        got->empty_sequences != want->empty_sequences || got->non_finite != want->non_finite)
        ck_abort_msg("%s: counts differ", what);
}

/* The bound of one gradient, and how much of it is used. */
static double used(double got, double want, double weight, const char *name, size_t i,
                   const char *what)
{
    const double bound = 0x1p-24 * fabs(want) + 0x1p-149 + 1e-10 * fabs(weight);
    const double error = fabs(got - want);
    if (!(error <= bound))
        ck_abort_msg(
            "%s: %s of token %zu is %.9g, differences say %.12g (error %.3g, bound %.3g)", what,
            name, i, got, want, error, bound);
    return error / bound;
}

double policy_rig_check(const policy_rig *rig, const oracle_policy *o, const char *what)
{
    double worst = 0.0;
    check_metrics(&rig->metrics, &o->metrics, what);
    for (size_t r = 0; r < rig->batch.sequences; r++)
        for (size_t i = policy_rig_begin(rig, r); i < policy_rig_end(rig, r); i++) {
            const double slope = oracle_policy_slope(o, r, i);
            worst = fmax(
                worst, used((double)rig->dlogp[i], slope, o->row_weights[r], "dlogp", i, what));
            if (rig->out.dentropy != NULL)
                worst = fmax(worst, used((double)rig->dentropy[i],
                                         oracle_policy_entropy_slope(o, r, i),
                                         o->entropy_weight, "dentropy", i, what));
        }
    return worst;
}
