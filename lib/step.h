/* step.h - what a step decides, once, for the CPU and for CUDA.
 *
 * In: sums per bin (reduced over ranks), settings, step counter. Out: one row of coefficients per
 * bin, which is all that the element kernels know. Everything lies in the memory of the backend
 * and is computed there, so that nothing in a step waits for the host.
 *
 * The variants of the method are four orthogonal choices, made here or in step_second.h:
 *   what w is        gr_weight           u, or u weighted by layer (ON_PENALTY)
 *   how long delta   gr_step_lengths     RAW, NORMALIZED, RELATIVE
 *   what D is        (the kernels' read mode: FORWARD, CENTRAL, KEPT)
 *   what k_s is      gr_kappa            lambda m t a, over epsilon_eff nu (step_second.h)
 */
#ifndef GRADREG_LIB_STEP_H
#define GRADREG_LIB_STEP_H

#include "step_data.h"

/* Sums in fp32 lanes are safe while elements lie around 1. A bin whose RMS lies outside
 * [2^low, 2^high] is summed in units of a power of two next to it: exact but for elements that
 * are nothing beside the others. */
GR_FN float gr_range_scale(double sum_of_squares, double elements, int low, int high)
{
    const double mean = sum_of_squares / (elements > 0.0 ? elements : 1.0);
    if (!(mean > 0.0) || !gr_is_finite(mean))
        return 1.0f;
    int exponent = (int)(gr_f64_bits(mean) >> 52) - 1023;
    exponent = exponent < 0 ? -((1 - exponent) / 2) : exponent / 2;
    if (exponent >= low && exponent <= high)
        return 1.0f;
    exponent = exponent < -120 ? -120 : exponent > 120 ? 120 : exponent;
    return (float)gr_power_of_two(-exponent);
}

/* ---- schedule over steps --------------------------------------------------------- */

GR_FN double gr_time_factor(const gradreg_regularizer_params *p, uint64_t step)
{
    if (step < p->warmup_steps)
        return p->warmup == GRADREG_WARMUP_LINEAR ? (double)step / (double)p->warmup_steps
                                                  : 0.0;
    if (p->decay == GRADREG_DECAY_CONSTANT)
        return 1.0;
    const uint64_t since = step - p->warmup_steps;
    const double x = since < p->decay_steps ? (double)since / (double)p->decay_steps : 1.0;
    const double share = p->decay == GRADREG_DECAY_LINEAR ? x : (1.0 - gr_cos_turn(x / 2)) / 2;
    return 1.0 + (p->strength_end - 1.0) * share;
}

/* m(layer) a(layer) */
GR_FN double gr_depth_factor(const gr_step *s, int layer)
{
    return s->multipliers[layer + 1] * s->adaptive[layer + 1];
}

/* ---- what w is ------------------------------------------------------------------- */

GR_FN double gr_weight(const gr_step *s, int layer)
{
    return s->options.depth == GRADREG_DEPTH_ON_PENALTY ? gr_depth_factor(s, layer) : 1.0;
}

/* A central product along another direction never sees g1. */
GR_FN int gr_reads_first(const gradreg_regularizer_params *p)
{
    return p->output != GRADREG_OUTPUT_PRODUCT || p->difference != GRADREG_DIFFERENCE_CENTRAL ||
           p->direction == GRADREG_DIRECTION_GRADIENT;
}

GR_FN int gr_along_gradient(const gr_step *s)
{
    return s->options.direction == GRADREG_DIRECTION_GRADIENT;
}

/* u over the direction as stored. */
GR_FN double gr_direction_factor(const gr_step *s)
{
    const gr_control *c = s->control;
    return gr_along_gradient(s) ? c->first_factor / c->grad_scale : 1.0;
}

/* ||direction as stored||^2 on a bin. */
GR_FN double gr_direction_squares(const gr_step *s, int bin)
{
    return gr_sum_row(s, gr_along_gradient(s) ? GR_SUM_FIRST : GR_SUM_DIRECTION)[bin];
}

/* Norms of u per layer, of w, and nu. */
GR_FN void gr_weigh(const gr_step *s)
{
    gr_control *c = s->control;
    const double factor = gr_direction_factor(s);
    double u = 0.0, w = 0.0, weighted = 0.0;

    for (int l = 0; l <= s->options.layer_count; l++)
        s->layer_u[l] = s->layer_weights[l] = 0.0;
    for (int b = 0; b < s->bin_count; b++)
        if (s->bins[b].flags & GR_SEGMENT_PERTURBED) {
            s->layer_u[s->bins[b].layer + 1] += gr_direction_squares(s, b) * factor * factor;
            s->layer_weights[s->bins[b].layer + 1] += gr_sum_row(s, GR_SUM_WEIGHTS)[b];
        }
    for (int l = 0; l <= s->options.layer_count; l++) {
        const double f = gr_weight(s, l - 1);
        u += s->layer_u[l];
        w += f * f * s->layer_u[l];
        weighted += f * s->layer_u[l];
    }
    const double unclip = gr_along_gradient(s) ? c->first_factor : 1.0;
    c->w_norm = sqrt(w);
    c->w_plain_norm = c->w_norm / unclip;
    c->nu = s->options.penalty == GRADREG_PENALTY_NORM
                ? sqrt(s->options.depth == GRADREG_DEPTH_ON_PENALTY ? weighted : u)
                : 1.0;
}

/* ---- the first gradient ---------------------------------------------------------- */

GR_FN double gr_clip_factor(double clip, double norm)
{
    if (!(clip > 0.0))
        return 1.0;
    const double factor = clip / (norm + 1e-6);
    return factor < 1.0 ? factor : 1.0;
}

GR_FN void gr_decide_first(const gr_step *s, const float *grad_scale)
{
    gr_control *c = s->control;
    c->grad_scale = grad_scale != NULL ? (double)*grad_scale : 1.0;
    c->lambda = c->strength * gr_time_factor(&s->options, c->step);
    c->epsilon_used = c->epsilon;
    c->non_finite_first =
        gr_sum_total(s, GR_SUM_FIRST_BAD) + gr_sum_total(s, GR_SUM_DIRECTION_BAD);
    c->first_norm = sqrt(gr_sum_total(s, GR_SUM_FIRST)) / fabs(c->grad_scale);
    c->first_usable = c->non_finite_first == 0.0 && gr_is_finite(c->first_norm) &&
                      gr_is_finite(c->grad_scale) && c->grad_scale != 0.0;
    c->first_factor =
        c->first_usable ? gr_clip_factor(s->options.clip_first, c->first_norm) : 1.0;
    c->flags = c->first_usable ? 0 : GRADREG_FLAG_NON_FINITE_FIRST;
    c->had_second = c->mirrored = c->dropped = c->noise_update = c->reuses = c->corrects = 0;
    c->second_usable = 1;
    c->non_finite_second = 0.0;
    c->slope = c->applied_cosine = gr_nan();
    gr_weigh(s);
}

/* ---- how long delta is ----------------------------------------------------------- */

/* delta over u on a layer; ||u|| there must be known. */
GR_FN double gr_step_length(const gr_step *s, int layer)
{
    const gr_control *c = s->control;
    const double f = gr_weight(s, layer);
    const double u = s->layer_u[layer + 1];
    if (s->options.step == GRADREG_STEP_NORMALIZED)
        return c->w_norm > 0.0 ? c->epsilon_used * f / c->w_norm : 0.0;
    if (s->options.step == GRADREG_STEP_RELATIVE)
        return u > 0.0 ? c->epsilon_used * f * sqrt(s->layer_weights[layer + 1] / u) : 0.0;
    return c->epsilon_used * f;
}

GR_FN void gr_stand_still(const gr_step *s)
{
    gr_control *c = s->control;
    c->moves = 0;
    c->delta_norm = 0.0;
    for (int b = 0; b < s->bin_count; b++) {
        gr_coefficients *k = &s->coefficients[b];
        k->move = 0.0f;
        k->move_squared = 0.0;
        k->scale_applied = k->scale_u = k->scale_slope = 1.0f;
    }
}

GR_FN void gr_step_lengths(const gr_step *s)
{
    gr_control *c = s->control;
    const double factor = gr_direction_factor(s);
    double squares = 0.0;
    int finite = 1;

    for (int b = 0; b < s->bin_count; b++) {
        gr_coefficients *k = &s->coefficients[b];
        const double raw = gr_direction_squares(s, b), elements = s->bins[b].elements;
        const int moves = (s->bins[b].flags & GR_SEGMENT_PERTURBED) != 0;
        k->move = moves ? (float)(gr_step_length(s, s->bins[b].layer) * factor) : 0.0f;
        k->move_squared = moves ? (double)k->move * (double)k->move * raw : 0.0;
        k->scale_u = gr_range_scale(raw, elements, -30, 30);
        k->scale_slope = gr_range_scale(gr_sum_row(s, GR_SUM_FIRST)[b], elements, -30, 30);
        k->scale_applied = gr_range_scale(k->move_squared, elements, -40, 20);
        squares += k->move_squared;
        finite = finite && !gr_is_non_finite(k->move) && gr_is_finite(k->move_squared);
    }
    c->delta_norm = sqrt(squares);
    c->epsilon_effective = s->options.step == GRADREG_STEP_RAW ? c->epsilon_used
                           : s->options.step == GRADREG_STEP_NORMALIZED
                               ? c->epsilon_used / c->w_norm
                               : c->delta_norm / c->w_norm;
    c->moves = finite && c->delta_norm > 0.0;
}

/* What a check of the master weights found; it holds until the next check. */
GR_FN void gr_note_master(const gr_step *s, int row, int verified)
{
    if (verified)
        s->control->master_bad = gr_sum_total(s, row) != 0.0;
}

GR_FN void gr_decide_perturb(const gr_step *s, const float *grad_scale, int verified)
{
    gr_control *c = s->control;
    gr_decide_first(s, grad_scale);
    gr_note_master(s, GR_SUM_MASTER, verified);
    c->master_usable = !c->master_bad;
    if (!c->master_usable)
        c->flags |= GRADREG_FLAG_MASTER_MISMATCH;
    if (c->first_usable && c->master_usable && c->w_norm > 0.0 && c->nu > 0.0)
        gr_step_lengths(s);
    else
        c->moves = 0;
    if (c->moves)
        return;
    gr_stand_still(s);
    if (c->first_usable && c->master_usable)
        c->flags |= GRADREG_FLAG_NO_DIRECTION;
}

/* ---- noise ----------------------------------------------------------------------- */

GR_FN double gr_noise_length(const gr_step *s, int bin, int noise_index)
{
    const gradreg_noise *noise = &s->options.noise;
    const double u = s->noise_squared[noise_index];
    if (!(u > 0.0) || !s->control->has_noise_direction)
        return 0.0;
    if (noise->rule == GRADREG_NOISE_RELATIVE)
        return noise->scale * sqrt(gr_sum_row(s, GR_SUM_NOISE_WEIGHTS)[bin] / u);
    if (noise->rule == GRADREG_NOISE_NEFTUNE)
        return noise->scale / (sqrt(3.0) * sqrt(u));
    return noise->scale * s->noise_length[noise_index];
}

GR_FN void gr_decide_noise(const gr_step *s, int verified)
{
    gr_control *c = s->control;
    int noise_index = 0;
    gr_note_master(s, GR_SUM_NOISE_MASTER, verified);
    c->noise_in = 1;
    c->noise_step = c->step;
    c->master_usable = !c->master_bad;
    for (int b = 0; b < s->bin_count; b++) {
        gr_coefficients *k = &s->coefficients[b];
        k->noise = 0.0f;
        k->noise_squared = 0.0;
        k->noise_scale_applied = k->noise_scale_u = 1.0f;
        if ((s->bins[b].flags & GR_SEGMENT_NOISY) == 0)
            continue;
        const double u = s->noise_squared[noise_index];
        const double length = gr_noise_length(s, b, noise_index++);
        if (!c->master_usable || gr_is_non_finite((float)length))
            continue;
        k->noise = (float)length;
        k->noise_squared = (double)k->noise * (double)k->noise * u;
        k->noise_scale_u = gr_range_scale(u, s->bins[b].elements, -30, 30);
        k->noise_scale_applied = gr_range_scale(k->noise_squared, s->bins[b].elements, -40, 20);
    }
}

/* The direction that the next step's noise will have: g~ of this one. */
GR_FN void gr_keep_noise_lengths(const gr_step *s)
{
    const double factor = s->control->first_factor / s->control->grad_scale;
    int noise_index = 0;
    for (int b = 0; b < s->bin_count; b++)
        if (s->bins[b].flags & GR_SEGMENT_NOISY) {
            s->noise_squared[noise_index] = gr_sum_row(s, GR_SUM_FIRST)[b] * factor * factor;
            /* A reused correction reads no weights: RELATIVE keeps its last length. Where there is none,
             * noise STEP moves nothing, and the report says so. */
            if (!s->control->reuses || s->options.step != GRADREG_STEP_RELATIVE)
                s->noise_length[noise_index] = gr_step_length(s, s->bins[b].layer);
            noise_index++;
        }
    s->control->has_noise_direction = 1;
}

/* ---- undoing the sums' units ----------------------------------------------------- */

/* 1 / x for a power of two in [2^-120, 2^120], exact and without a division. */
GR_FN double gr_inverse_scale(float scale)
{
    return (double)gr_bits_f32(0x7f000000u - gr_f32_bits(scale));
}

GR_FN double gr_move_unit(const gr_coefficients *k, int sum, int noise)
{
    const float applied = noise ? k->noise_scale_applied : k->scale_applied;
    const float other = sum == GR_MOVE_APPLIED ? applied
                        : sum == GR_MOVE_ALONG ? (noise ? k->noise_scale_u : k->scale_u)
                                               : k->scale_slope;
    return gr_inverse_scale(applied) * gr_inverse_scale(other);
}

GR_FN double gr_combine_unit(const gr_coefficients *k, int sum)
{
    const float other = sum == GR_COMBINE_ALONG ? k->scale_direction : k->scale;
    return gr_inverse_scale(k->scale) * gr_inverse_scale(other);
}

#endif
