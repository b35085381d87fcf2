/* terms.h - the report on a step, once, for the CPU and for CUDA.
 *
 * In: the sums and decisions of a finished step (step.h). Out: one row of numbers for the total
 * and one per layer, in the order of gradreg_terms. */
#ifndef GRADREG_LIB_TERMS_H
#define GRADREG_LIB_TERMS_H

#include "step_second.h"

enum gr_term {
    GR_TERM_STRENGTH,
    GR_TERM_EFFECTIVE_STRENGTH,
    GR_TERM_EFFECTIVE_EPSILON,
    GR_TERM_PENALTY,
    GR_TERM_FIRST_NORM,
    GR_TERM_SECOND_NORM,
    GR_TERM_CLIP_FIRST,
    GR_TERM_CLIP_SECOND,
    GR_TERM_DIRECTION_NORM,
    GR_TERM_HVP_NORM,
    GR_TERM_CURVATURE,
    GR_TERM_ALIGNMENT,
    GR_TERM_CORRECTION_SHARE,
    GR_TERM_UPDATE_NORM,
    GR_TERM_PERTURBATION_NORM,
    GR_TERM_APPLIED_NORM,
    GR_TERM_APPLIED_COSINE,
    GR_TERM_CHANGED_FRACTION,
    GR_TERM_DIFFERENCE_NOISE,
    GR_TERM_STORED_SHARE,
    GR_TERM_NOISE_NORM,
    GR_TERM_NOISE_APPLIED_COSINE,
    GR_TERM_FIRST_ORDER_RATIO,
    GR_TERM_DOUBLES,
    GR_TERM_NON_FINITE_FIRST = GR_TERM_DOUBLES,
    GR_TERM_NON_FINITE_SECOND,
    GR_TERM_ABSENT,
    GR_TERM_STEP,
    GR_TERM_FLAGS
};

/* Sums over a group of bins: one layer, or all. Gradients still carry the loss scale. */
typedef struct gr_group {
    double first, seen_first, second, plus, direction; /* squared norms */
    double first_written;                              /* ||a||^2 */
    double d0, along_d0, seen_delta, correction, out, stored, cross, ulps;
    double delta, applied, changed, moved_elements;
    double noise, noise_applied, noise_along;
    double penalty;
    double non_finite_first, non_finite_second, absent;
    int seen;
} gr_group;

GR_FN void gr_group_add_gradients(const gr_step *s, int b, gr_group *g)
{
    const gr_coefficients *k = &s->coefficients[b];
    const double first = gr_sum_row(s, GR_SUM_FIRST)[b];
    const double second = gr_sum_row(s, GR_SUM_SECOND)[b], plus = gr_sum_row(s, GR_SUM_PLUS)[b];
    const double correction = (double)k->correction;
    const int central = s->options.difference == GRADREG_DIFFERENCE_CENTRAL;

    g->first += first;
    g->first_written += (double)k->first * (double)k->first * first;
    g->out += k->write == GR_WRITE_ZERO  ? 0.0
              : k->write == GR_WRITE_RAW ? first
                                         : gr_sum_row(s, GR_SUM_COMBINE + GR_COMBINE_OUT)[b];
    if (k->write == GR_WRITE_CORRECTED) {
        g->correction +=
            correction * correction * gr_sum_row(s, GR_SUM_COMBINE + GR_COMBINE_D)[b];
        g->stored += correction * gr_sum_row(s, GR_SUM_COMBINE + GR_COMBINE_STORED)[b];
    }
    if ((s->bins[b].flags & GR_SEGMENT_SEEN) == 0 || !s->control->had_second)
        return;
    g->seen = 1;
    g->seen_first += first;
    g->second += second;
    g->plus += plus;
    g->d0 += gr_sum_row(s, GR_SUM_COMBINE + GR_COMBINE_D0)[b];
    g->along_d0 += (double)k->move * gr_sum_row(s, GR_SUM_COMBINE + GR_COMBINE_ALONG)[b];
    g->seen_delta += k->move_squared;
    g->cross += gr_sum_row(s, GR_SUM_COMBINE + GR_COMBINE_CROSS)[b];
    g->ulps += s->bins[b].half_ulp_squared * ((central ? plus : first) + second);
}

GR_FN void gr_group_add(const gr_step *s, int b, gr_group *g)
{
    const gr_coefficients *k = &s->coefficients[b];
    const gr_control *c = s->control;
    const double factor = gr_along_gradient(s) ? 1.0 / c->grad_scale : 1.0;

    gr_group_add_gradients(s, b, g);
    if (s->bins[b].flags & GR_SEGMENT_PERTURBED)
        g->direction += gr_direction_squares(s, b) * factor * factor;
    if (s->bins[b].flags & GR_SEGMENT_REGULARIZED)
        g->penalty += c->lambda * gr_depth_factor(s, s->bins[b].layer) / 2 *
                      gr_sum_row(s, GR_SUM_FIRST)[b] / (c->grad_scale * c->grad_scale);
    if (k->move != 0.0f) {
        g->delta += k->move_squared;
        g->applied += gr_sum_row(s, GR_SUM_APPLIED)[b];
        g->changed += gr_sum_row(s, GR_SUM_CHANGED)[b];
        g->moved_elements += s->bins[b].elements;
    }
    if ((s->bins[b].flags & GR_SEGMENT_NOISY) && c->noise_in) {
        g->noise += k->noise_squared;
        g->noise_applied += gr_sum_row(s, GR_SUM_NOISE_APPLIED)[b];
        g->noise_along += (double)k->noise * gr_sum_row(s, GR_SUM_NOISE_ALONG)[b];
    }
    g->non_finite_first +=
        gr_sum_row(s, GR_SUM_FIRST_BAD)[b] + gr_sum_row(s, GR_SUM_DIRECTION_BAD)[b];
    if (c->had_second)
        g->non_finite_second +=
            gr_sum_row(s, GR_SUM_SECOND_BAD)[b] + gr_sum_row(s, GR_SUM_PLUS_BAD)[b];
    g->absent += gr_sum_row(s, GR_SUM_ABSENT)[b];
}

GR_FN double gr_ratio(double over, double under)
{
    return under > 0.0 ? over / under : gr_nan();
}

GR_FN double gr_cosine(double product, double squares_a, double squares_b)
{
    return gr_ratio(product, sqrt(squares_a) * sqrt(squares_b));
}

/* Whether combine got as far as g1 and g2 together: all bins write zeros or g1 as it is, or none. */
GR_FN int gr_compares(const gr_step *s)
{
    const int write = s->coefficients[0].write;
    return write != GR_WRITE_ZERO && write != GR_WRITE_RAW;
}

/* What the second gradient showed. */
GR_FN void gr_terms_second(const gr_step *s, const gr_group *g, double *t)
{
    const gr_control *c = s->control;
    const int central = s->options.difference == GRADREG_DIFFERENCE_CENTRAL;
    const double scale = fabs(c->grad_scale);

    t[GR_TERM_SECOND_NORM] = sqrt(g->second) / scale;
    if (!gr_compares(s))
        return;
    t[GR_TERM_ALIGNMENT] = gr_cosine(g->cross, central ? g->plus : g->seen_first, g->second);
    t[GR_TERM_DIFFERENCE_NOISE] = gr_ratio(sqrt(g->ulps), sqrt(g->d0) * (central ? 2.0 : 1.0));
    if (!c->moves)
        return;
    t[GR_TERM_HVP_NORM] = sqrt(g->d0) / scale * (c->w_plain_norm / c->delta_norm);
    t[GR_TERM_CURVATURE] = gr_ratio(g->along_d0 / c->grad_scale, g->seen_delta);
}

/* The step that the weights took. */
GR_FN void gr_terms_step(const gr_step *s, const gr_group *g, int layer, int all, double *t)
{
    t[GR_TERM_PERTURBATION_NORM] = sqrt(g->delta);
    t[GR_TERM_APPLIED_NORM] = sqrt(g->applied);
    t[GR_TERM_APPLIED_COSINE] = gr_smaller_applied_cosine(s, layer, all);
    t[GR_TERM_CHANGED_FRACTION] = gr_ratio(g->changed, g->moved_elements);
}

/* A truncated pass needs the first gradient for it. */
GR_FN int gr_knows_second_norm(const gr_step *s)
{
    return s->control->first_usable || s->options.second_pass != GRADREG_SECOND_PASS_TRUNCATED;
}

GR_FN void gr_terms_gradients(const gr_step *s, const gr_group *g, double *t)
{
    const gr_control *c = s->control;
    const double scale = fabs(c->grad_scale);
    if (gr_reads_first(&s->options))
        t[GR_TERM_FIRST_NORM] = sqrt(g->first) / scale;
    t[GR_TERM_CLIP_FIRST] = c->first_factor;
    t[GR_TERM_DIRECTION_NORM] = sqrt(g->direction);
    t[GR_TERM_UPDATE_NORM] = sqrt(g->out) / scale;
    if (c->had_second && c->second_usable && gr_knows_second_norm(s))
        t[GR_TERM_CLIP_SECOND] = gr_smaller(c->second_factor, c->plus_factor);
    if (s->options.output == GRADREG_OUTPUT_PRODUCT)
        return;
    t[GR_TERM_CORRECTION_SHARE] = gr_ratio(sqrt(g->correction), sqrt(g->first_written));
    t[GR_TERM_STORED_SHARE] = gr_ratio(g->stored, g->correction);
    t[GR_TERM_PENALTY] = g->penalty;
}

GR_FN void gr_terms_strength(const gr_step *s, int layer, int all, double *t)
{
    const gr_control *c = s->control;
    const double strength = all ? c->lambda : c->lambda * gr_depth_factor(s, layer);
    const int clipped = c->first_factor < 1.0 ||
                        (c->had_second && gr_smaller(c->second_factor, c->plus_factor) < 1.0);
    if (s->options.output == GRADREG_OUTPUT_PRODUCT)
        return;
    t[GR_TERM_STRENGTH] = strength;
    if (!c->corrects)
        return;
    if (!clipped)
        t[GR_TERM_EFFECTIVE_STRENGTH] = strength;
    else if (s->options.common_clip && c->had_second)
        t[GR_TERM_EFFECTIVE_STRENGTH] = strength * c->common_factor;
}

GR_FN void gr_terms_row(const gr_step *s, int layer, int all, double *t)
{
    const gr_control *c = s->control;
    gr_group g;
    memset(&g, 0, sizeof(g));
    for (int i = 0; i < GRADREG_TERMS_COLUMNS; i++)
        t[i] = gr_nan();
    for (int b = gr_first_bin(s, layer, all); b >= 0; b = gr_next_bin(s, b, all))
        gr_group_add(s, b, &g);
    gr_terms_strength(s, layer, all, t);
    gr_terms_gradients(s, &g, t);
    if (c->had_second && g.seen)
        gr_terms_second(s, &g, t);
    if (!c->reuses) {
        gr_terms_step(s, &g, layer, all, t);
        if (c->moves)
            t[GR_TERM_EFFECTIVE_EPSILON] = c->epsilon_effective;
    }
    if (c->noise_in) {
        t[GR_TERM_NOISE_NORM] = sqrt(g.noise);
        t[GR_TERM_NOISE_APPLIED_COSINE] = gr_cosine(g.noise_along, g.noise, g.noise_applied);
    }
    t[GR_TERM_NON_FINITE_FIRST] = g.non_finite_first;
    t[GR_TERM_NON_FINITE_SECOND] = g.non_finite_second;
    t[GR_TERM_ABSENT] = g.absent;
}

/* Whether any noise segment was given noise: there may be no direction yet, no length of a step to repeat,
 * or a gradient that is 0 on all of them. */
GR_FN int gr_noise_moved(const gr_step *s)
{
    for (int b = 0; b < s->bin_count; b++)
        if ((s->bins[b].flags & GR_SEGMENT_NOISY) != 0 && s->coefficients[b].noise != 0.0f)
            return 1;
    return 0;
}

/* Ends the step in three parts, of which the rows in between may be written in any order: counts
 * it, writes the report, keeps what the next noise needs. */
GR_FN void gr_finish_begin(const gr_step *s)
{
    gr_control *c = s->control;
    c->step++;
    if (gr_sum_total(s, GR_SUM_MOVE_SATURATED) + gr_sum_total(s, GR_SUM_COMBINE_SATURATED) >
            0.0 ||
        (c->mirrored && gr_sum_total(s, GR_SUM_MIRROR_SATURATED) > 0.0) ||
        (c->noise_in && gr_sum_total(s, GR_SUM_NOISE_SATURATED) > 0.0))
        c->flags |= GRADREG_FLAG_SATURATED;
    if (gr_sum_total(s, GR_SUM_ABSENT) > 0.0)
        c->flags |= GRADREG_FLAG_ABSENT_GRADIENT;
    if (c->noise_in && (!c->has_noise_direction || (c->master_usable && !gr_noise_moved(s))))
        c->flags |= GRADREG_FLAG_NO_DIRECTION;
}

/* layer -1: the total */
GR_FN void gr_finish_row(const gr_step *s, int layer)
{
    double *t = s->terms + (size_t)(layer + 1) * GRADREG_TERMS_COLUMNS;
    gr_terms_row(s, layer, layer < 0, t);
    t[GR_TERM_STEP] = (double)s->control->step;
    t[GR_TERM_FLAGS] = (double)s->control->flags;
}

GR_FN void gr_finish_end(const gr_step *s)
{
    if (s->control->noise_update)
        gr_keep_noise_lengths(s);
    s->control->noise_in = 0;
}

GR_FN void gr_finish_step(const gr_step *s)
{
    gr_finish_begin(s);
    for (int l = -1; l < s->options.layer_count; l++)
        gr_finish_row(s, l);
    gr_finish_end(s);
}

/* A report that ranks failed to agree on: step and flags stay. */
GR_FN void gr_void_terms(const gr_step *s)
{
    for (int l = 0; l <= s->options.layer_count; l++)
        for (int i = 0; i < GR_TERM_DOUBLES; i++)
            s->terms[(size_t)l * GRADREG_TERMS_COLUMNS + (size_t)i] = gr_nan();
}

/* No report yet. */
GR_FN void gr_clear_terms(const gr_step *s)
{
    for (int l = 0; l <= s->options.layer_count; l++) {
        double *t = s->terms + (size_t)l * GRADREG_TERMS_COLUMNS;
        for (int i = 0; i < GR_TERM_DOUBLES; i++)
            t[i] = gr_nan();
        for (int i = GR_TERM_DOUBLES; i < GRADREG_TERMS_COLUMNS; i++)
            t[i] = 0.0;
    }
}

GR_FN void gr_note_losses(const gr_step *s, const float *first, const float *second)
{
    const double slope = s->control->slope;
    s->terms[GR_TERM_FIRST_ORDER_RATIO] =
        slope != 0.0 ? ((double)*second - (double)*first) / slope : gr_nan();
}

#endif
