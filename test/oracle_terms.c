/* oracle_terms.c - the terms of a step, each from its own sums.
 *
 * In: a step that combine or fallback has ended. Out: 23 values with their slack, counts, flags;
 * see oracle.h. Where the specification leaves a value open its slack is infinite. */
#include <math.h>
#include <stdlib.h>

#include "oracle.h"

/* What one call reports on. */
struct view {
    const oracle *o;
    const oracle_step *step;
    int32_t scope;
    oracle_terms *out;
};

/* value within relative slack; NaN where the quotient behind it has no value. */
static void say(const struct view *v, enum oracle_term term, double value, double relative)
{
    v->out->value[term] = value;
    v->out->slack[term] = isfinite(value) ? fabs(value) * relative + 1e-300 : 0.0;
}

static void leave_open(const struct view *v, enum oracle_term term)
{
    v->out->slack[term] = INFINITY;
}

static double norm(const struct view *v, const double *x, const bool *mask)
{
    return oracle_norm(v->o, x, mask, v->scope);
}

static double dot(const struct view *v, const double *x, const double *y, const bool *mask)
{
    return oracle_dot(v->o, x, y, mask, v->scope);
}

/* How far the library's sum of x y may be off when x and y are off by some roundings each. */
static double dot_slack(const struct view *v, const double *x, const double *y,
                        const bool *mask, double roundings)
{
    return oracle_dot_magnitude(v->o, x, y, mask, v->scope) *
           (v->o->sum_error + roundings * ORACLE_ROUNDING);
}

static double quotient(double x, double y)
{
    return y == 0.0 ? NAN : x / y;
}

static bool is_product(const struct view *v)
{
    return v->o->params.output == GRADREG_OUTPUT_PRODUCT;
}

static bool is_central(const struct view *v)
{
    return v->o->params.difference == GRADREG_DIFFERENCE_CENTRAL;
}

/* ---------------------------------------------------------------------------- strength */

static double layer_weight(const struct view *v)
{
    const oracle *o = v->o;

    if (v->scope == ORACLE_EVERYTHING)
        return 1.0;
    return o->multiplier[v->scope] * o->adaptive[v->scope];
}

static double penalty(const struct view *v)
{
    const oracle *o = v->o;
    double sum = 0.0;

    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++)
            if (o->counted[s] && o->regularized[s] && oracle_in_scope(o, s, v->scope))
                sum += v->step->strength * oracle_weight(o, s) / 2.0 * v->step->g1[i] *
                       v->step->g1[i];
    return sum;
}

static void report_strength(const struct view *v)
{
    const oracle_step *step = v->step;
    const double strength = step->strength * layer_weight(v);
    const bool none = step->outcome != ORACLE_CORRECTED || !step->moved;
    const bool separate = step->clipped && !v->o->params.common_clip;

    say(v, ORACLE_STRENGTH, strength, 1e-12);
    say(v, ORACLE_EFFECTIVE_STRENGTH, none || separate ? NAN : strength * step->clip_common,
        2.0 * ORACLE_ROUNDING + v->o->norm_error);
    say(v, ORACLE_PENALTY, penalty(v), v->o->sum_error + 1e-12);
    if (is_product(v)) {
        leave_open(v, ORACLE_STRENGTH);
        leave_open(v, ORACLE_PENALTY);
    }
    if (is_product(v) || step->reuses)
        leave_open(v, ORACLE_EFFECTIVE_STRENGTH);
}

/* ---------------------------------------------------------------------------- gradients */

static void report_first(const struct view *v)
{
    const oracle *o = v->o;
    const oracle_step *step = v->step;
    const bool along_gradient = o->params.direction == GRADREG_DIRECTION_GRADIENT;
    const double *direction = along_gradient ? step->g1 : step->direction;

    say(v, ORACLE_FIRST_NORM, oracle_needs_first(o) ? norm(v, step->g1, o->counted) : NAN,
        o->norm_error);
    say(v, ORACLE_CLIP_FIRST, step->clip_first, ORACLE_ROUNDING + o->norm_error);
    say(v, ORACLE_DIRECTION_NORM, norm(v, direction, o->measured), o->norm_error);
    if (step->first_bad) {
        leave_open(v, ORACLE_FIRST_NORM);
        leave_open(v, ORACLE_CLIP_FIRST);
        leave_open(v, ORACLE_DIRECTION_NORM);
        leave_open(v, ORACLE_PENALTY);
    }
}

/* Layers of which a truncated pass sees nothing, or only a part. */
static void count_seen(const struct view *v, size_t *seen, size_t *unseen)
{
    const oracle *o = v->o;

    *seen = *unseen = 0;
    for (size_t s = 0; s < o->segment_count; s++)
        if (oracle_in_scope(o, s, v->scope) && o->counted[s])
            *(o->seen[s] ? seen : unseen) += o->start[s + 1] - o->start[s];
}

static const bool *rows_read(const struct view *v, bool *storage)
{
    for (size_t s = 0; s < v->o->segment_count; s++)
        storage[s] = v->o->counted[s] && v->o->seen[s];
    return storage;
}

static void report_alignment(const struct view *v, const bool *rows)
{
    const oracle_step *step = v->step;
    const double *x = is_central(v) ? step->g_plus : step->g1;
    const double product = norm(v, x, rows) * norm(v, step->g2, rows);
    const double cosine = quotient(dot(v, x, step->g2, rows), product);

    say(v, ORACLE_ALIGNMENT, cosine, v->o->sum_error + 1e-12);
    if (!isnan(cosine))
        v->out->slack[ORACLE_ALIGNMENT] += dot_slack(v, x, step->g2, rows, 1.0) / product;
}

static double unit(const struct view *v)
{
    double least = 1.0, most = 0.0;

    for (size_t s = 0; s < v->o->segment_count; s++)
        if (oracle_in_scope(v->o, s, v->scope)) {
            const double u = oracle_half_ulp(oracle_grad_type(v->o, s));
            least = fmin(least, u);
            most = fmax(most, u);
        }
    return least == most ? most : NAN;
}

static void report_difference(const struct view *v, const bool *rows)
{
    const oracle *o = v->o;
    const oracle_step *step = v->step;
    const double *x = is_central(v) ? step->g_plus : step->g1;
    const double both = sqrt(dot(v, x, x, rows) + dot(v, step->g2, step->g2, rows));
    const double apart = norm(v, step->raw_difference, rows) * (is_central(v) ? 2.0 : 1.0);
    const double length = norm(v, step->delta, o->measured);
    const double rayleigh =
        quotient(dot(v, step->delta, step->raw_difference, o->measured), length * length);

    say(v, ORACLE_DIFFERENCE_NOISE, quotient(unit(v) * both, apart),
        2.0 * o->norm_error + 2.0 * ORACLE_ROUNDING);
    if (isnan(unit(v)))
        leave_open(v, ORACLE_DIFFERENCE_NOISE);
    say(v, ORACLE_HVP_NORM,
        quotient(norm(v, step->raw_difference, rows) * step->raw_norm, step->delta_norm),
        3.0 * o->norm_error + 4.0 * ORACLE_ROUNDING);
    say(v, ORACLE_CURVATURE, rayleigh, o->sum_error + 8.0 * ORACLE_ROUNDING);
    if (!isnan(rayleigh))
        v->out->slack[ORACLE_CURVATURE] +=
            dot_slack(v, step->delta, step->raw_difference, o->measured, 8.0) /
            (length * length);
}

static void report_second(const struct view *v)
{
    static const enum oracle_term second[] = { ORACLE_SECOND_NORM, ORACLE_CLIP_SECOND,
                                               ORACLE_HVP_NORM,    ORACLE_CURVATURE,
                                               ORACLE_ALIGNMENT,   ORACLE_DIFFERENCE_NOISE };
    const oracle *o = v->o;
    const oracle_step *step = v->step;
    bool *storage = calloc(o->segment_count, sizeof(bool));
    const bool *rows = rows_read(v, storage);
    const bool none = step->reuses || step->falls_back;
    size_t seen, unseen;

    count_seen(v, &seen, &unseen);
    for (size_t k = 0; k < sizeof(second) / sizeof(*second); k++)
        say(v, second[k], NAN, 0.0);
    if (!none) {
        say(v, ORACLE_CLIP_SECOND, fmin(step->clip_plus, step->clip_second),
            ORACLE_ROUNDING + o->norm_error);
        if (seen > 0 || unseen == 0) {
            say(v, ORACLE_SECOND_NORM, norm(v, step->g2, rows), o->norm_error);
            report_alignment(v, rows);
            report_difference(v, rows);
        }
    }
    for (size_t k = 0; k < sizeof(second) / sizeof(*second); k++)
        if ((!none && (step->second_bad || step->first_bad)) ||
            (k >= 2 && seen > 0 && unseen > 0) ||
            (step->flags & GRADREG_FLAG_ABSENT_GRADIENT && k >= 2))
            leave_open(v, second[k]);
    free(storage);
}

/* ---------------------------------------------------------------------------- the update */

static const double *stored_or_own(const struct view *v, const double *stored, double *own)
{
    const oracle *o = v->o;

    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++) {
            const double scale = v->step->grad_scale != 0.0 ? v->step->grad_scale : 1.0;
            const double x = stored != NULL
                                 ? stored[i]
                                 : oracle_store(oracle_grad_type(o, s), v->step->update[i]);
            own[i] = x / scale;
        }
    return own;
}

static void report_stored(const struct view *v, const double *stored)
{
    const oracle *o = v->o;
    const oracle_step *step = v->step;
    double *kept = oracle_reals(o), *gained = oracle_reals(o);
    const size_t n = oracle_size(o);
    const double square = dot(v, step->correction, step->correction, o->counted);

    stored_or_own(v, stored, kept);
    for (size_t i = 0; i < n; i++)
        gained[i] = kept[i] - step->a[i];
    say(v, ORACLE_STORED_SHARE, quotient(dot(v, gained, step->correction, o->counted), square),
        0.0);
    /* The library's own a and correction, not these, are what it subtracts and multiplies with. */
    if (square > 0.0)
        v->out->slack[ORACLE_STORED_SHARE] =
            (dot_slack(v, gained, step->correction, o->counted, 16.0) +
             2.0 * dot_slack(v, step->update_slack, step->correction, o->counted, 1.0) +
             2.0 * oracle_dot_magnitude(o, step->update_slack, step->correction, o->counted,
                                        v->scope)) /
                square +
            64.0 * ORACLE_ROUNDING;
    free(kept);
    free(gained);
}

static void report_update(const struct view *v, const double *stored)
{
    const oracle *o = v->o;
    const oracle_step *step = v->step;
    const double scale = step->grad_scale != 0.0 ? fabs(step->grad_scale) : 1.0;
    const double a = norm(v, step->a, o->counted);
    const double slack = norm(v, step->update_slack, o->counted) / scale;

    say(v, ORACLE_UPDATE_NORM, norm(v, step->update, o->counted) / scale,
        o->norm_error + 2.0 * ORACLE_ROUNDING);
    v->out->slack[ORACLE_UPDATE_NORM] += slack;
    say(v, ORACLE_CORRECTION_SHARE, quotient(norm(v, step->correction, o->counted), a),
        2.0 * o->norm_error + 8.0 * ORACLE_ROUNDING);
    v->out->slack[ORACLE_CORRECTION_SHARE] += quotient(slack, a);
    report_stored(v, stored);
    if (step->outcome == ORACLE_ZEROS || step->outcome == ORACLE_UNTOUCHED || is_product(v)) {
        leave_open(v, ORACLE_CORRECTION_SHARE);
        leave_open(v, ORACLE_STORED_SHARE);
    }
    if (step->outcome == ORACLE_UNTOUCHED)
        leave_open(v, ORACLE_UPDATE_NORM);
}

/* ---------------------------------------------------------------------------- the move */

struct applied {
    double norm, cosine, slack, changed;
};

/* Weights that delta does not move count neither as changed nor as unchanged. */
static bool stands(const struct view *v, size_t s)
{
    return v->o->params.depth == GRADREG_DEPTH_ON_PENALTY && oracle_weight(v->o, s) == 0.0;
}

/* What rounding to the compute type leaves of the way from begin to there: if nothing, cosine 0. */
static struct applied measure(const struct view *v, const double *begin, const double *there,
                              const double *intended, double sign, const bool *mask)
{
    const oracle *o = v->o;
    double square = 0.0, product = 0.0, magnitude = 0.0, length = 0.0, changed = 0.0, all = 0.0;

    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++) {
            if (!mask[s] || !oracle_in_scope(o, s, v->scope) || stands(v, s))
                continue;
            const gradreg_type type = oracle_compute_type(o, s);
            const double moved = oracle_round(type, there[i]) - oracle_round(type, begin[i]);
            square += moved * moved;
            product += sign * moved * intended[i];
            magnitude += fabs(moved * intended[i]);
            length += intended[i] * intended[i];
            changed += moved != 0.0;
            all += 1.0;
        }
    const double norms = sqrt(square * length);
    const struct applied result = {
        sqrt(square), length > 0.0 && square == 0.0 ? 0.0 : quotient(product, norms),
        norms > 0.0 ? magnitude / norms * (o->sum_error + 8.0 * ORACLE_ROUNDING) + o->sum_error
                    : 0.0,
        quotient(changed, all)
    };
    return result;
}

static const double *or_own(const double *given, const double *own)
{
    return given != NULL ? given : own;
}

double oracle_applied_cosine(const oracle *o, const oracle_step *step)
{
    const struct view v = { o, step, ORACLE_EVERYTHING, NULL };
    const double *begin = or_own(step->applied_begin, step->begin);
    const struct applied plus = measure(&v, begin, or_own(step->applied_plus, step->theta_plus),
                                        step->delta, 1.0, o->measured);
    const struct applied minus =
        measure(&v, begin, or_own(step->applied_minus, step->theta_minus), step->delta, -1.0,
                o->measured);

    return is_central(&v) ? fmin(plus.cosine, minus.cosine) : plus.cosine;
}

static void report_move(const struct view *v)
{
    const oracle *o = v->o;
    const oracle_step *step = v->step;
    const double *begin = or_own(step->applied_begin, step->begin);
    const struct applied plus = measure(v, begin, or_own(step->applied_plus, step->theta_plus),
                                        step->delta, 1.0, o->measured);
    double cosine = plus.cosine;

    if (is_central(v) && !step->falls_back) {
        const struct applied minus =
            measure(v, begin, or_own(step->applied_minus, step->theta_minus), step->delta, -1.0,
                    o->measured);
        cosine = fmin(cosine, minus.cosine);
    }
    say(v, ORACLE_APPLIED_NORM, plus.norm, o->norm_error + 2.0 * ORACLE_ROUNDING);
    say(v, ORACLE_APPLIED_COSINE, cosine, 0.0);
    v->out->slack[ORACLE_APPLIED_COSINE] = isnan(cosine) ? 0.0 : plus.slack;
    say(v, ORACLE_CHANGED_FRACTION, plus.changed, 1e-12);
    say(v, ORACLE_PERTURBATION_NORM, norm(v, step->delta, o->measured),
        4.0 * o->norm_error + 6.0 * ORACLE_ROUNDING);
    say(v, ORACLE_EFFECTIVE_EPSILON, step->effective_epsilon, /* one for all layers */
        6.0 * o->norm_error + 6.0 * ORACLE_ROUNDING);
    /* The other copy of a replica is counted elsewhere, and there is no elsewhere here. */
    for (size_t s = 0; s < o->segment_count; s++)
        if (o->perturbed[s] && !o->counted[s] && oracle_in_scope(o, s, v->scope))
            leave_open(v, ORACLE_CHANGED_FRACTION);
}

static void report_displacement(const struct view *v)
{
    static const enum oracle_term terms[] = { ORACLE_APPLIED_NORM, ORACLE_APPLIED_COSINE,
                                              ORACLE_CHANGED_FRACTION, ORACLE_PERTURBATION_NORM,
                                              ORACLE_EFFECTIVE_EPSILON };

    if (!v->step->reuses)
        report_move(v);
    for (size_t k = 0; k < sizeof(terms) / sizeof(*terms); k++) {
        if (v->step->reuses)
            say(v, terms[k], NAN, 0.0);
        else if (!v->step->moved)
            leave_open(v, terms[k]);
    }
}

static void report_noise(const struct view *v)
{
    const oracle *o = v->o;
    const oracle_step *step = v->step;
    bool *mask = calloc(o->segment_count, sizeof(bool));
    bool any = false;

    for (size_t s = 0; s < o->segment_count; s++) {
        mask[s] = o->noised[s] && o->counted[s];
        any = any || (mask[s] && oracle_in_scope(o, s, v->scope));
    }
    const struct applied noise = measure(
        v, step->theta, or_own(step->applied_begin, step->begin), step->noise, 1.0, mask);
    const double length = norm(v, step->noise, mask);
    say(v, ORACLE_NOISE_NORM, length, 3.0 * o->norm_error + 4.0 * ORACLE_ROUNDING);
    say(v, ORACLE_NOISE_APPLIED_COSINE, noise.cosine, 0.0);
    v->out->slack[ORACLE_NOISE_APPLIED_COSINE] = isnan(noise.cosine) ? 0.0 : noise.slack;
    if (!any || !step->with_noise || length == 0.0) {
        leave_open(v, ORACLE_NOISE_NORM);
        leave_open(v, ORACLE_NOISE_APPLIED_COSINE);
    }
    free(mask);
}

/* ---------------------------------------------------------------------------- counts */

static uint64_t non_finite(const struct view *v, const double *g, bool second)
{
    const oracle *o = v->o;
    uint64_t count = 0;

    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++)
            if (o->counted[s] && (!second || o->seen[s]) && oracle_in_scope(o, s, v->scope))
                count += isfinite(g[i]) ? 0 : 1;
    return count;
}

static uint64_t absent(const struct view *v)
{
    const oracle *o = v->o;
    const bool *const passes[] = { v->step->absent_first, v->step->absent_plus,
                                   v->step->absent_second };
    uint64_t count = 0;

    for (size_t p = 0; p < 3; p++)
        for (size_t s = 0; passes[p] != NULL && s < o->segment_count; s++)
            count += o->counted[s] && oracle_in_scope(o, s, v->scope) && passes[p][s];
    return count;
}

static void report_counts(const struct view *v)
{
    const oracle_step *step = v->step;

    v->out->non_finite_first = non_finite(v, step->g1, false);
    v->out->non_finite_second = non_finite(v, step->g2, true);
    if (is_central(v))
        v->out->non_finite_second += non_finite(v, step->g_plus, true);
    v->out->absent = absent(v);
    v->out->step = v->o->step;
    v->out->flags = step->flags;
}

void oracle_report(const oracle *o, const oracle_step *step, const double *stored,
                   int32_t scope, oracle_terms *out)
{
    const struct view v = { o, step, scope, out };

    report_first(&v);
    report_strength(&v);
    if (step->first_bad)
        leave_open(&v, ORACLE_PENALTY);
    report_second(&v);
    report_update(&v, stored);
    report_displacement(&v);
    report_noise(&v);
    say(&v, ORACLE_FIRST_ORDER_RATIO, NAN, 0.0);
    report_counts(&v);
}
