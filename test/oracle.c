/* oracle.c - the first half of a step: where theta goes, formula by formula.
 *
 * In: theta, the first gradient or a direction. Out: noise, delta with the slack that fp32 needs,
 * theta'; see oracle.h. oracle_combine.c goes on from here. */
#include "oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEP_ARRAYS = 18 };

/* ---------------------------------------------------------------------------- sums */

bool oracle_in_scope(const oracle *o, size_t segment, int32_t scope)
{
    return scope == ORACLE_EVERYTHING || o->segments[segment].layer == scope;
}

double oracle_dot(const oracle *o, const double *x, const double *y, const bool *mask,
                  int32_t scope)
{
    double sum = 0.0;

    for (size_t s = 0; s < o->segment_count; s++)
        if ((mask == NULL || mask[s]) && oracle_in_scope(o, s, scope))
            for (size_t i = o->start[s]; i < o->start[s + 1]; i++)
                sum += x[i] * y[i];
    return sum;
}

double oracle_dot_magnitude(const oracle *o, const double *x, const double *y, const bool *mask,
                            int32_t scope)
{
    double sum = 0.0;

    for (size_t s = 0; s < o->segment_count; s++)
        if ((mask == NULL || mask[s]) && oracle_in_scope(o, s, scope))
            for (size_t i = o->start[s]; i < o->start[s + 1]; i++)
                sum += fabs(x[i] * y[i]);
    return sum;
}

double oracle_norm(const oracle *o, const double *x, const bool *mask, int32_t scope)
{
    return sqrt(oracle_dot(o, x, x, mask, scope));
}

/* ---------------------------------------------------------------------------- a step's life */

oracle_step *oracle_step_new(const oracle *o)
{
    oracle_step *step = calloc(1, sizeof(*step));
    const size_t n = oracle_size(o) + 1;
    double **const arrays[STEP_ARRAYS] = {
        &step->noise,       &step->begin,      &step->g1,
        &step->g_plus,      &step->g2,         &step->u,
        &step->w,           &step->raw,        &step->delta,
        &step->delta_slack, &step->theta_plus, &step->theta_minus,
        &step->a,           &step->difference, &step->raw_difference,
        &step->correction,  &step->update,     &step->update_slack,
    };

    step->storage = calloc(STEP_ARRAYS * n, sizeof(double));
    for (size_t k = 0; k < STEP_ARRAYS; k++)
        *arrays[k] = step->storage + k * n;
    return step;
}

void oracle_step_free(oracle_step *step)
{
    if (step != NULL)
        free(step->storage);
    free(step);
}

int32_t oracle_extra_passes(const oracle *o)
{
    if (o->calls % (uint64_t)o->params.interval != 0)
        return 0;
    return o->params.difference == GRADREG_DIFFERENCE_CENTRAL ? 2 : 1;
}

/* ---------------------------------------------------------------------------- noise */

static double noise_length(const oracle *o, size_t s, const double *theta)
{
    double weights = 0.0, direction = 0.0;

    for (size_t i = o->start[s]; i < o->start[s + 1]; i++) {
        weights += theta[i] * theta[i];
        direction += o->noise_direction[i] * o->noise_direction[i];
    }
    if (direction == 0.0)
        return 0.0;
    if (o->params.noise.rule == GRADREG_NOISE_RELATIVE)
        return o->params.noise.scale * sqrt(weights / direction);
    return o->params.noise.scale / sqrt(3.0) / sqrt(direction);
}

void oracle_inject(const oracle *o, oracle_step *step)
{
    bool moves = false;
    for (size_t s = 0; s < o->segment_count; s++) {
        const bool noised = step->with_noise && o->noised[s] && o->has_noise;
        const bool as_step = o->params.noise.rule == GRADREG_NOISE_STEP;
        const double length = noised && !as_step ? noise_length(o, s, step->theta) : 0.0;

        for (size_t i = o->start[s]; i < o->start[s + 1]; i++) {
            step->noise[i] = length * o->noise_direction[i];
            if (noised && as_step)
                step->noise[i] = o->params.noise.scale * o->noise_step[i];
            moves = moves || step->noise[i] != 0.0;
            step->begin[i] = step->theta[i];
            if (noised)
                step->begin[i] =
                    oracle_store(oracle_param_type(o, s), step->theta[i] + step->noise[i]);
        }
    }
    if (step->with_noise && !moves)
        step->flags |= GRADREG_FLAG_NO_DIRECTION;
}

/* ---------------------------------------------------------------------------- perturb */

double oracle_clip_factor(double limit, double norm)
{
    return limit > 0.0 ? fmin(1.0, limit / (norm + 1e-6)) : 1.0;
}

/* Unscaled, with zeros where nothing is read. */
void oracle_read(const oracle *o, const oracle_step *step, double *out, const double *buffer,
                 const bool *absent)
{
    const double scale = step->grad_scale != 0.0 ? step->grad_scale : 1.0;

    for (size_t s = 0; s < o->segment_count; s++) {
        const bool skip = buffer == NULL || (absent != NULL && absent[s]) ||
                          (o->segments[s].flags & GRADREG_SEGMENT_FROZEN);
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++)
            out[i] = skip ? 0.0 : buffer[i] / scale;
    }
}

static bool all_finite(const oracle *o, const double *x, const bool *mask)
{
    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = o->start[s]; mask[s] && i < o->start[s + 1]; i++)
            if (!isfinite(x[i]))
                return false;
    return true;
}

/* A central product along somebody else's direction has no use for g1. */
bool oracle_needs_first(const oracle *o)
{
    return o->params.output != GRADREG_OUTPUT_PRODUCT ||
           o->params.difference != GRADREG_DIFFERENCE_CENTRAL ||
           o->params.direction == GRADREG_DIRECTION_GRADIENT;
}

static void read_first(const oracle *o, oracle_step *step)
{
    oracle_read(o, step, step->g1, oracle_needs_first(o) ? step->first : NULL,
                step->absent_first);
    step->first_norm = oracle_norm(o, step->g1, o->counted, ORACLE_EVERYTHING);
    step->clip_first = oracle_clip_factor(o->params.clip_first, step->first_norm);
    step->clip_plus = step->clip_second = 1.0;
    step->first_bad = !all_finite(o, step->g1, o->counted) ||
                      (o->params.direction == GRADREG_DIRECTION_CALLER &&
                       !all_finite(o, step->direction, o->measured));
    if (step->first_bad)
        step->flags |= GRADREG_FLAG_NON_FINITE_FIRST;
    step->strength = o->params.strength * oracle_strength_factor(&o->params, o->step);
}

static void choose_direction(const oracle *o, oracle_step *step)
{
    const bool along_gradient = o->params.direction == GRADREG_DIRECTION_GRADIENT;
    const bool on_penalty = o->params.depth == GRADREG_DEPTH_ON_PENALTY;
    double weighted = 0.0;

    for (size_t s = 0; s < o->segment_count; s++) {
        const double weight = on_penalty ? oracle_weight(o, s) : 1.0;
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++) {
            const double v = along_gradient ? step->g1[i] : step->direction[i];
            step->raw[i] = o->perturbed[s] ? weight * v : 0.0;
            step->u[i] = o->perturbed[s] ? (along_gradient ? step->clip_first * v : v) : 0.0;
            step->w[i] = weight * step->u[i];
            if (o->measured[s])
                weighted += weight * step->u[i] * step->u[i];
        }
    }
    step->u_norm = oracle_norm(o, step->u, o->measured, ORACLE_EVERYTHING);
    step->w_norm = oracle_norm(o, step->w, o->measured, ORACLE_EVERYTHING);
    step->raw_norm = oracle_norm(o, step->raw, o->measured, ORACLE_EVERYTHING);
    step->nu = o->params.penalty != GRADREG_PENALTY_NORM ? 1.0
               : on_penalty                              ? sqrt(weighted)
                                                         : step->u_norm;
    step->aimless = step->w_norm == 0.0 || step->nu == 0.0;
    if (!step->first_bad && step->aimless)
        step->flags |= GRADREG_FLAG_NO_DIRECTION;
}

/* delta = length times w. */
static double step_length(const oracle *o, const oracle_step *step, size_t s)
{
    const int32_t layer = o->segments[s].layer;

    if (o->params.step == GRADREG_STEP_NORMALIZED)
        return o->params.epsilon / step->w_norm;
    if (o->params.step == GRADREG_STEP_RELATIVE) {
        const double u = oracle_norm(o, step->u, o->measured, layer);
        return u > 0.0 ? o->params.epsilon * oracle_norm(o, step->theta, o->measured, layer) / u
                       : 0.0;
    }
    return o->params.epsilon;
}

static void choose_delta(const oracle *o, oracle_step *step)
{
    step->moved = !step->aimless && !step->first_bad;
    for (size_t s = 0; s < o->segment_count; s++) {
        const double length = step->moved && o->perturbed[s] ? step_length(o, step, s) : 0.0;
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++) {
            step->delta[i] = length * step->w[i];
            /* Roundings of the coefficient and the product, of the clip and its product, of the
             * loss scale and its product; three norms. */
            step->delta_slack[i] =
                step->moved
                    ? fabs(step->delta[i]) * (6.0 * ORACLE_ROUNDING + 3.0 * o->norm_error) +
                          0x1p-148
                    : 0.0;
        }
    }
    step->delta_norm = oracle_norm(o, step->delta, o->measured, ORACLE_EVERYTHING);
    step->effective_epsilon = o->params.step == GRADREG_STEP_RAW
                                  ? o->params.epsilon
                                  : step->delta_norm / step->w_norm;
}

static void move(const oracle *o, oracle_step *step)
{
    for (size_t s = 0; s < o->segment_count; s++) {
        const gradreg_type type = oracle_param_type(o, s);
        const bool still = !step->moved || !o->perturbed[s];
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++) {
            const double here = step->begin[i], delta = step->delta[i];
            step->theta_plus[i] = still ? here : oracle_store(type, here + delta);
            step->theta_minus[i] = still ? here : oracle_store(type, here - delta);
        }
    }
}

void oracle_read_first(const oracle *o, oracle_step *step)
{
    read_first(o, step);
    choose_direction(o, step);
}

void oracle_perturb(const oracle *o, oracle_step *step)
{
    oracle_read_first(o, step);
    choose_delta(o, step);
    move(o, step);
}
