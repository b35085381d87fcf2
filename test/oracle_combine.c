/* oracle_combine.c - the second half of a step: g_hat from both gradients.
 *
 * In: a step that oracle.c has perturbed, or, on steps that reuse the correction, its first gradient
 * only. Out: g_hat with its slack, and what the next step finds; see oracle.h. */
#include <math.h>
#include <stdlib.h>

#include "oracle.h"

/* ---------------------------------------------------------------------------- combine */

static bool absent_somewhere(const oracle_step *step, size_t s)
{
    return (step->absent_first != NULL && step->absent_first[s]) ||
           (step->absent_plus != NULL && step->absent_plus[s]) ||
           (step->absent_second != NULL && step->absent_second[s]);
}

/* kappa_s: what k_s is before epsilon_eff and nu. */
static double kappa(const oracle *o, const oracle_step *step, size_t s)
{
    if (!o->regularized[s] || absent_somewhere(step, s))
        return 0.0;
    if (o->params.depth == GRADREG_DEPTH_ON_PENALTY)
        return step->strength;
    return step->strength * oracle_weight(o, s);
}

/* The rows that a truncated pass leaves out count with their first norm. */
static double seen_norm(const oracle *o, const oracle_step *step, const double *g)
{
    double square = 0.0;

    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = o->start[s]; o->counted[s] && i < o->start[s + 1]; i++)
            square += o->seen[s] ? g[i] * g[i] : step->g1[i] * step->g1[i];
    return sqrt(square);
}

/* Rows that are not read are not tested either. */
static bool usable(const oracle *o, const double *g)
{
    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++)
            if (o->counted[s] && o->seen[s] && !isfinite(g[i]))
                return false;
    return true;
}

static void read_second(const oracle *o, oracle_step *step)
{
    const bool central = o->params.difference == GRADREG_DIFFERENCE_CENTRAL;

    oracle_read(o, step, step->g2, step->second, step->absent_second);
    step->second_norm = seen_norm(o, step, step->g2);
    step->clip_second = oracle_clip_factor(o->params.clip_second, step->second_norm);
    step->second_bad = !usable(o, step->g2);
    step->clip_plus = 1.0;
    if (central) {
        oracle_read(o, step, step->g_plus, step->plus, step->absent_plus);
        step->plus_norm = seen_norm(o, step, step->g_plus);
        step->clip_plus = oracle_clip_factor(o->params.clip_second, step->plus_norm);
        step->second_bad = step->second_bad || !usable(o, step->g_plus);
    }
    if (step->second_bad)
        step->flags |= GRADREG_FLAG_NON_FINITE_SECOND;
}

static void choose_clips(const oracle *o, oracle_step *step)
{
    const double second = fmin(step->clip_plus, step->clip_second);

    step->clipped = step->clip_first < 1.0 || second < 1.0;
    step->clip_common = 1.0;
    if (o->params.common_clip)
        step->clip_common = fmin(step->clip_first, second);
}

static void subtract(const oracle *o, oracle_step *step)
{
    const bool central = o->params.difference == GRADREG_DIFFERENCE_CENTRAL;
    const bool common = o->params.common_clip && o->params.output != GRADREG_OUTPUT_PRODUCT;
    const double c2 = common ? step->clip_common : step->clip_second;
    const double c_plus = common ? step->clip_common : step->clip_plus;

    step->factor = common ? step->clip_common : step->clip_first;
    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++) {
            const double g1 = step->g1[i], g2 = step->g2[i], plus = step->g_plus[i];
            step->a[i] = step->factor * g1;
            step->difference[i] = step->raw_difference[i] = 0.0;
            if (!o->seen[s])
                continue;
            step->difference[i] =
                central ? (c_plus * plus - c2 * g2) / 2.0 : c2 * g2 - step->a[i];
            step->raw_difference[i] = central ? (plus - g2) / 2.0 : g2 - g1;
        }
}

/* Roundings behind D, relative to what was subtracted: the factor's and the product's where there
 * is a clip, and the subtraction's. */
static double difference_slack(const oracle *o, const oracle_step *step, size_t i)
{
    const double clip = 2.0 * ORACLE_ROUNDING + o->norm_error;
    const bool central = o->params.difference == GRADREG_DIFFERENCE_CENTRAL;
    const double first = central ? step->clip_plus * fabs(step->g_plus[i]) / 2.0
                                 : step->clip_first * fabs(step->g1[i]);
    const double second = step->clip_second * fabs(step->g2[i]) / (central ? 2.0 : 1.0);
    const double clipped = step->clipped ? clip * (first + second) : 0.0;

    return clipped + ORACLE_ROUNDING * (fabs(step->difference[i]) + clipped) + 0x1p-147;
}

/* Of a = c g1 before its own rounding: that of c, and the norm in it. */
static double first_slack(const oracle *o, const oracle_step *step, size_t i)
{
    return step->factor < 1.0 ? fabs(step->a[i]) * (ORACLE_ROUNDING + o->norm_error) : 0.0;
}

/* Of a product with k, before its own rounding: that of k, and the norms in epsilon_eff and nu. */
static double product_slack(const oracle *o)
{
    return ORACLE_ROUNDING + 4.0 * o->norm_error;
}

/* g_hat = a + x, x = k D with slack before its rounding; the sum's own is left to oracle_store. */
static void add_correction(const oracle *o, oracle_step *step, size_t i, double x, double slack)
{
    const double a_slack = first_slack(o, step, i);
    const double roundings = step->factor < 1.0 ? fabs(step->a[i]) + fabs(x) : fabs(x);

    step->correction[i] = x;
    step->update[i] = step->a[i] + x;
    step->update_slack[i] =
        a_slack + slack + ORACLE_ROUNDING * (roundings + a_slack + slack) + 0x1p-148;
}

static void only_first(const oracle *o, oracle_step *step, size_t i)
{
    step->correction[i] = 0.0;
    step->update[i] = step->a[i];
    step->update_slack[i] = first_slack(o, step, i);
}

static void correct(const oracle *o, oracle_step *step, size_t s)
{
    const double k =
        step->moved ? kappa(o, step, s) / (step->effective_epsilon * step->nu) : 0.0;

    for (size_t i = o->start[s]; i < o->start[s + 1]; i++) {
        const double x = k * step->difference[i];
        if (k == 0.0 || !o->seen[s])
            only_first(o, step, i);
        else
            add_correction(o, step, i, x,
                           fabs(x) * product_slack(o) + fabs(k) * difference_slack(o, step, i));
    }
}

/* With the correction kept from an earlier step: kappa ||w|| / nu times h. */
static void correct_again(const oracle *o, oracle_step *step, size_t s)
{
    const bool possible = o->has_correction && step->w_norm > 0.0 && step->nu > 0.0;
    const double k = possible ? kappa(o, step, s) * step->w_norm / step->nu : 0.0;

    for (size_t i = o->start[s]; i < o->start[s + 1]; i++) {
        const double x = k * o->correction[i];
        if (k == 0.0)
            only_first(o, step, i);
        else
            add_correction(o, step, i, x,
                           fabs(x) * product_slack(o) + fabs(k) * o->correction_slack[i]);
    }
}

/* H u: no clip, no strength, every segment. */
static void multiply(const oracle *o, oracle_step *step, size_t s)
{
    for (size_t i = o->start[s]; i < o->start[s + 1]; i++) {
        const double k = step->moved ? 1.0 / step->effective_epsilon : 0.0;
        const double x = k * step->raw_difference[i];
        step->correction[i] = step->update[i] = x;
        step->update_slack[i] =
            fabs(x) * product_slack(o) + fabs(k) * difference_slack(o, step, i);
    }
}

static enum oracle_outcome decide(const oracle *o, oracle_step *step)
{
    const bool product = o->params.output == GRADREG_OUTPUT_PRODUCT;

    if (step->first_bad && !product &&
        o->params.non_finite_first == GRADREG_NON_FINITE_PROPAGATE)
        return ORACLE_UNTOUCHED;
    if (step->first_bad)
        return ORACLE_ZEROS;
    if (step->falls_back)
        return product ? ORACLE_ZEROS : ORACLE_FIRST_ONLY;
    if (step->second_bad)
        return product || o->params.non_finite_second == GRADREG_NON_FINITE_ZERO
                   ? ORACLE_ZEROS
                   : ORACLE_FIRST_ONLY;
    if (!step->reuses && step->moved && o->params.min_fidelity > 0.0 &&
        !(oracle_applied_cosine(o, step) >= o->params.min_fidelity)) {
        step->flags |= GRADREG_FLAG_DROPPED;
        return product ? ORACLE_ZEROS : ORACLE_FIRST_ONLY;
    }
    return ORACLE_CORRECTED;
}

/* Where the first gradient alone is wanted, its own factor counts, common clip or not. */
static void first_alone(const oracle *o, oracle_step *step)
{
    const size_t n = oracle_size(o);

    step->factor = step->clip_first;
    for (size_t i = 0; i < n; i++) {
        step->a[i] = step->factor * step->g1[i];
        only_first(o, step, i);
        if (step->outcome == ORACLE_ZEROS)
            step->update[i] = step->update_slack[i] = 0.0;
        if (step->outcome == ORACLE_UNTOUCHED) {
            step->update[i] = step->g1[i];
            step->update_slack[i] = 0.0;
        }
    }
}

static void scale_again(const oracle *o, oracle_step *step)
{
    const size_t n = oracle_size(o);

    for (size_t i = 0; step->grad_scale != 0.0 && i < n; i++) {
        step->update[i] *= step->grad_scale;
        step->update_slack[i] *= fabs(step->grad_scale);
    }
}

static void build_update(const oracle *o, oracle_step *step)
{
    step->outcome = decide(o, step);
    if (step->outcome != ORACLE_CORRECTED)
        first_alone(o, step);
    for (size_t s = 0; step->outcome == ORACLE_CORRECTED && s < o->segment_count; s++) {
        if (o->params.output == GRADREG_OUTPUT_PRODUCT)
            multiply(o, step, s);
        else if (step->reuses)
            correct_again(o, step, s);
        else
            correct(o, step, s);
    }
    scale_again(o, step);
}

/* ---------------------------------------------------------------------------- what lasts */

/* Where a pass brought no gradient nothing was found: the old correction stays. */
static void keep_correction(oracle *o, const oracle_step *step)
{
    const bool found = !step->reuses && step->outcome == ORACLE_CORRECTED &&
                       step->delta_norm > 0.0 && o->params.interval > 1;

    for (size_t s = 0; found && s < o->segment_count; s++)
        for (size_t i = o->start[s]; !absent_somewhere(step, s) && i < o->start[s + 1]; i++) {
            o->correction[i] = step->difference[i] / step->delta_norm;
            o->correction_slack[i] =
                fabs(o->correction[i]) * (2.0 * ORACLE_ROUNDING + o->norm_error) +
                difference_slack(o, step, i) / step->delta_norm + 0x1p-148;
        }
    o->has_correction = o->has_correction || found;
}

static void keep_noise(oracle *o, const oracle_step *step)
{
    const bool good = !step->first_bad && !step->second_bad && !step->falls_back;

    for (size_t s = 0; good && s < o->segment_count; s++)
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++) {
            o->noise_direction[i] = o->noised[s] ? step->clip_first * step->g1[i] : 0.0;
            o->noise_step[i] = o->noised[s] ? step->delta[i] : 0.0;
        }
    o->has_noise = o->has_noise || good;
}

static void finish(oracle *o, oracle_step *step)
{
    for (size_t s = 0; s < o->segment_count; s++)
        if (!(o->segments[s].flags & GRADREG_SEGMENT_FROZEN) && absent_somewhere(step, s))
            step->flags |= GRADREG_FLAG_ABSENT_GRADIENT;
    build_update(o, step);
    keep_correction(o, step);
    keep_noise(o, step);
    o->step++;
    o->calls++;
}

void oracle_combine(oracle *o, oracle_step *step)
{
    step->reuses = oracle_extra_passes(o) == 0;
    if (step->reuses) {
        oracle_read_first(o, step);
    } else {
        read_second(o, step);
    }
    choose_clips(o, step);
    if (step->reuses) {
        const size_t n = oracle_size(o);
        step->clip_common = step->factor = step->clip_first;
        for (size_t i = 0; i < n; i++)
            step->a[i] = step->factor * step->g1[i];
    } else {
        subtract(o, step);
    }
    finish(o, step);
}

void oracle_fallback(oracle *o, oracle_step *step)
{
    step->falls_back = true;
    choose_clips(o, step);
    finish(o, step);
}
