/* step_second.h - what a step decides once the second gradient is known, for C and CUDA alike.
 *
 * In: the decisions of perturb (step.h), sums of the second gradient and of the step as applied. Out:
 * the factors of g1 and g2, k_s, and what becomes of a gradient that cannot be used. */
#ifndef GRADREG_LIB_STEP_SECOND_H
#define GRADREG_LIB_STEP_SECOND_H

#include "step.h"

/* ---- the second gradient --------------------------------------------------------- */

GR_FN double gr_sum_seen(const gr_step *s, int row, int seen)
{
    const double *x = gr_sum_row(s, row);
    double total = 0.0;
    for (int b = 0; b < s->bin_count; b++)
        if (((s->bins[b].flags & GR_SEGMENT_SEEN) != 0) == seen)
            total += x[b];
    return total;
}

/* TRUNCATED: rows that were not seen count with their first-pass norm. */
GR_FN double gr_norm_with_unseen(const gr_step *s, int row)
{
    const int adds = s->options.second_pass == GRADREG_SECOND_PASS_TRUNCATED &&
                     s->control->first_usable; /* else the fault is the first gradient's */
    const double unseen = adds ? gr_sum_seen(s, GR_SUM_FIRST, 0) : 0.0;
    return sqrt(gr_sum_seen(s, row, 1) + unseen) / fabs(s->control->grad_scale);
}

GR_FN double gr_smaller(double a, double b)
{
    return a < b ? a : b;
}

GR_FN void gr_decide_second_norms(const gr_step *s)
{
    gr_control *c = s->control;
    const int central = s->options.difference == GRADREG_DIFFERENCE_CENTRAL;
    const double clip = s->options.clip_second;
    c->non_finite_second =
        gr_sum_total(s, GR_SUM_SECOND_BAD) + (central ? gr_sum_total(s, GR_SUM_PLUS_BAD) : 0.0);
    const double second = gr_norm_with_unseen(s, GR_SUM_SECOND);
    const double plus = central ? gr_norm_with_unseen(s, GR_SUM_PLUS) : second;
    c->second_usable =
        c->non_finite_second == 0.0 && gr_is_finite(second) && gr_is_finite(plus);
    c->second_factor = c->second_usable ? gr_clip_factor(clip, second) : 1.0;
    c->plus_factor = c->second_usable ? gr_clip_factor(clip, plus) : 1.0;
    c->common_factor =
        gr_smaller(c->first_factor, gr_smaller(c->second_factor, c->plus_factor));
    if (!c->second_usable)
        c->flags |= GRADREG_FLAG_NON_FINITE_SECOND;
}

/* cos between delta and what reached the weights; 0 when nothing of a step did. */
GR_FN double gr_applied_cosine(const gr_step *s, int applied_row, int layer, int all)
{
    const double *applied = gr_sum_row(s, applied_row);
    const double *along = gr_sum_row(s, applied_row + (GR_SUM_ALONG - GR_SUM_APPLIED));
    const double sign = applied_row == GR_SUM_MIRROR_APPLIED ? -1.0 : 1.0;
    double squares = 0.0, product = 0.0, delta = 0.0;
    for (int b = gr_first_bin(s, layer, all); b >= 0; b = gr_next_bin(s, b, all)) {
        squares += applied[b];
        product += sign * (double)s->coefficients[b].move * along[b];
        delta += s->coefficients[b].move_squared;
    }
    if (!(delta > 0.0))
        return gr_nan();
    return squares > 0.0 ? product / (sqrt(squares) * sqrt(delta)) : 0.0;
}

GR_FN double gr_smaller_applied_cosine(const gr_step *s, int layer, int all)
{
    const double forward = gr_applied_cosine(s, GR_SUM_APPLIED, layer, all);
    if (!s->control->mirrored)
        return forward;
    return gr_smaller(gr_applied_cosine(s, GR_SUM_MIRROR_APPLIED, layer, all), forward);
}

/* ---- what k_s is ----------------------------------------------------------------- */

GR_FN double gr_kappa(const gr_step *s, int bin)
{
    const gr_bin *b = &s->bins[bin];
    if ((b->flags & GR_SEGMENT_REGULARIZED) == 0)
        return 0.0;
    return s->options.depth == GRADREG_DEPTH_ON_PENALTY
               ? s->control->lambda
               : s->control->lambda * gr_depth_factor(s, b->layer);
}

/* a = factor g1 on every bin, or what the policy makes of a first gradient that is not finite. */
GR_FN void gr_write_first(const gr_step *s, double factor)
{
    const gr_control *c = s->control;
    int write = GR_WRITE_RAW;
    if (s->options.output == GRADREG_OUTPUT_PRODUCT)
        write = GR_WRITE_ZERO;
    else if (c->first_usable)
        write = GR_WRITE_FIRST;
    else if (s->options.non_finite_first == GRADREG_NON_FINITE_ZERO)
        write = GR_WRITE_ZERO;
    for (int b = 0; b < s->bin_count; b++) {
        gr_coefficients *k = &s->coefficients[b];
        k->first = (float)factor;
        k->second = k->plus = k->correction = k->keep = 0.0f;
        k->write = write;
        const double g1 = gr_sum_row(s, GR_SUM_FIRST)[b], g2 = gr_sum_row(s, GR_SUM_SECOND)[b];
        k->scale = gr_range_scale(g2 > g1 ? g2 : g1, s->bins[b].elements, -30, 30);
        k->scale_direction = gr_along_gradient(s) ? k->scale : k->scale_u;
    }
}

/* Puts `per_kappa` kappa_s in front of D wherever that is not 0. Returns 0, and changes nothing,
 * when a coefficient is beyond f32. */
GR_FN int gr_write_corrected(const gr_step *s, double first, double second, double plus,
                             double per_kappa, double keep)
{
    for (int b = 0; b < s->bin_count; b++)
        if (gr_is_non_finite((float)(per_kappa * gr_kappa(s, b))))
            return 0;
    for (int b = 0; b < s->bin_count; b++) {
        gr_coefficients *k = &s->coefficients[b];
        const float correction = (float)(per_kappa * gr_kappa(s, b));
        k->first = (float)first;
        k->second = (float)second;
        k->plus = (float)plus;
        if ((s->bins[b].flags & GR_SEGMENT_KEEPS) != 0 && !gr_is_non_finite((float)keep))
            k->keep = (float)keep;
        if ((correction != 0.0f || k->keep != 0.0f) &&
            (s->bins[b].flags & GR_SEGMENT_SEEN) != 0) {
            k->correction = correction;
            k->write = GR_WRITE_CORRECTED;
        }
    }
    return 1;
}

/* Returns 0, and changes nothing, when the coefficient is beyond f32. */
GR_FN int gr_write_product(const gr_step *s)
{
    const float correction = (float)(1.0 / s->control->epsilon_effective);
    if (gr_is_non_finite(correction))
        return 0;
    for (int b = 0; b < s->bin_count; b++) {
        gr_coefficients *k = &s->coefficients[b];
        k->correction = correction;
        k->write = GR_WRITE_PRODUCT;
    }
    return 1;
}

GR_FN void gr_note_no_direction(const gr_step *s)
{
    s->control->moves = 0;
    s->control->flags |= GRADREG_FLAG_NO_DIRECTION;
}

GR_FN void gr_note_slope(const gr_step *s)
{
    gr_control *c = s->control;
    const int row = gr_along_gradient(s) ? GR_SUM_ALONG : GR_SUM_SLOPE;
    c->slope = gr_sum_total(s, row) / c->grad_scale;
}

/* Whether the step the weights took is too far from the one that was meant. */
GR_FN int gr_is_dropped(const gr_step *s)
{
    return s->options.min_fidelity > 0.0 && s->control->moves &&
           !(s->control->applied_cosine >= s->options.min_fidelity);
}

GR_FN void gr_decide_combine(const gr_step *s)
{
    gr_control *c = s->control;
    c->had_second = 1;
    c->mirrored = s->options.difference == GRADREG_DIFFERENCE_CENTRAL;
    gr_decide_second_norms(s);
    c->applied_cosine = gr_smaller_applied_cosine(s, 0, 1);
    gr_note_slope(s);
    c->dropped = gr_is_dropped(s);
    gr_write_first(s, c->first_factor);
    if (c->dropped) {
        c->flags |= GRADREG_FLAG_DROPPED;
        c->dropped_steps++;
    }
    c->noise_update = c->first_usable && c->second_usable && c->master_usable &&
                      s->options.noise.rule != GRADREG_NOISE_OFF;
    if (!c->second_usable && c->first_usable &&
        s->options.non_finite_second == GRADREG_NON_FINITE_ZERO)
        for (int b = 0; b < s->bin_count; b++)
            s->coefficients[b].write = GR_WRITE_ZERO;
    if (!c->first_usable || !c->second_usable || !c->master_usable || c->dropped)
        return;
    if (s->options.output == GRADREG_OUTPUT_PRODUCT) {
        if (c->moves && !gr_write_product(s))
            gr_note_no_direction(s);
        return;
    }
    const int common = s->options.common_clip;
    const double first = common ? c->common_factor : c->first_factor;
    const double second = common ? c->common_factor : c->second_factor;
    const double plus = common ? c->common_factor : c->plus_factor;
    for (int b = 0; b < s->bin_count; b++)
        s->coefficients[b].first = (float)first;
    if (!c->moves)
        return;
    if (!gr_write_corrected(s, first, second, plus, 1.0 / (c->epsilon_effective * c->nu),
                            1.0 / (c->delta_norm * c->grad_scale))) {
        gr_note_no_direction(s);
        return;
    }
    c->corrects = 1;
    c->has_kept = s->options.interval > 1;
}

GR_FN void gr_decide_fallback(const gr_step *s, int mirrored)
{
    gr_control *c = s->control;
    c->mirrored = mirrored;
    c->applied_cosine = gr_smaller_applied_cosine(s, 0, 1);
    gr_write_first(s, c->first_factor);
}

GR_FN void gr_decide_reuse(const gr_step *s, const float *grad_scale)
{
    gr_control *c = s->control;
    gr_decide_first(s, grad_scale);
    c->master_usable = !c->noise_in || !c->master_bad;
    c->reuses = 1;
    c->delta_norm = c->epsilon_effective = gr_nan();
    c->noise_update = c->first_usable && s->options.noise.rule != GRADREG_NOISE_OFF;
    gr_stand_still(s);
    gr_write_first(s, c->first_factor);
    if (!c->master_usable)
        c->flags |= GRADREG_FLAG_MASTER_MISMATCH;
    if (!c->first_usable)
        return;
    if (!(c->w_norm > 0.0) || !(c->nu > 0.0)) {
        c->flags |= GRADREG_FLAG_NO_DIRECTION;
        return;
    }
    if (!c->has_kept || !c->master_usable)
        return;
    c->corrects = gr_write_corrected(s, c->first_factor, 0.0, 0.0,
                                     c->w_norm / c->nu * c->grad_scale, 0.0);
    if (!c->corrects)
        gr_note_no_direction(s);
    for (int b = 0; b < s->bin_count; b++)
        if ((s->bins[b].flags & GR_SEGMENT_KEEPS) == 0)
            s->coefficients[b].write = GR_WRITE_FIRST;
}

#endif
