/* probe_math.h - formulas of the probe and the monitors, once, for the CPU and for CUDA.
 *
 * In: sums over rows, single probabilities, single weights. Out: what becomes of them. Sums over a row
 * or a segment are those of reduce.h, elements counted from the row's or segment's start: with squares
 * by steps 1 to 5; in double alone (GR_ACCUMULATE of step 4, whatever the range) where noted.
 *
 *   noise        sigma, and the numbers of a trial
 *   probability  of one logit of a row: largest logit first, then the sum of exp in double alone
 *   statistics   Welford's, one observation at a time, in the order of rows
 *   divergence   Jensen and Shannon's, two elements at a time; sums in double alone */
#ifndef GRADREG_LIB_PROBE_MATH_H
#define GRADREG_LIB_PROBE_MATH_H

#include "random.h"
#include "reduce.h"

/* ---- noise ----------------------------------------------------------------------- */

/* Segments of a regularizer are fewer than 2^31: no draw is shared with one. */
#define GR_PROBE_SEGMENT 0x80000000u

/* Of elements 4 group to 4 group + 3. */
GR_FN void gr_probe_gaussian4(uint64_t seed, int32_t layer, int32_t trial, uint64_t group,
                              float out[4])
{
    gr_gaussian4(seed, (uint64_t)(uint32_t)trial, GR_PROBE_SEGMENT | (uint32_t)layer,
                 GR_RANDOM_DIRECTION, group, out);
}

/* The element is GR_MOVE(x, sigma, n), then rounded to its type. */
GR_FN float gr_probe_sigma(double noise_scale, double squares, double width)
{
    return (float)(noise_scale * sqrt(squares / width));
}

/* ---- probability ----------------------------------------------------------------- */

/* One term of the sum, and its numerator: logits less the row's largest. A row without a distribution
 * has a NaN among them: of a NaN itself, of inf - inf for +inf, of -inf + inf where nothing is larger. */
GR_FN double gr_probe_term(float logit, float largest)
{
    return gr_exp((double)logit - (double)largest);
}

/* The largest so far, from -inf on: a NaN is passed over. */
GR_FN float gr_probe_larger(float largest, float logit)
{
    return logit > largest ? logit : largest;
}

/* ---- statistics ------------------------------------------------------------------ */

typedef struct gr_probe_statistics {
    double mean, squares; /* squares: of deviations from the mean */
    double min, max;
    uint64_t trials, non_finite, not_injected, saturated;
} gr_probe_statistics;

/* NaN: the row had no probability. */
GR_FN void gr_probe_note(gr_probe_statistics *s, double probability)
{
    if (probability != probability) {
        s->non_finite++;
        return;
    }
    s->min = s->trials == 0 || probability < s->min ? probability : s->min;
    s->max = s->trials == 0 || probability > s->max ? probability : s->max;
    s->trials++;
    const double from_old = probability - s->mean;
    s->mean = s->mean + from_old / (double)s->trials;
    s->squares = s->squares + from_old * (probability - s->mean);
}

GR_FN double gr_probe_deviation(const gr_probe_statistics *s)
{
    return s->trials > 1 ? sqrt(s->squares / (double)(s->trials - 1)) : 0.0;
}

/* ---- divergence ------------------------------------------------------------------ */

/* (1 + d) ln(1 + d) + (1 - d) ln(1 - d) for |d| <= 1/4: sum of d^2k / (k (2k - 1)). Every term is
 * positive, so that nothing cancels; what is left out is below 2^-54 of the result. */
GR_FN double gr_js_series(double d)
{
    const double z = d * d;
    double r = 1.0 / 276.0;
    r = 1.0 / 231.0 + z * r;
    r = 1.0 / 190.0 + z * r;
    r = 1.0 / 153.0 + z * r;
    r = 1.0 / 120.0 + z * r;
    r = 1.0 / 91.0 + z * r;
    r = 1.0 / 66.0 + z * r;
    r = 1.0 / 45.0 + z * r;
    r = 1.0 / 28.0 + z * r;
    r = 1.0 / 15.0 + z * r;
    r = 1.0 / 6.0 + z * r;
    r = 1.0 + z * r;
    return z * r;
}

/* p ln(p/m)/2 + q ln(q/m)/2 with m = (p + q)/2, for p, q >= 0: with d = (p - q)/(p + q) it is (p + q)/4
 * times the series. Written so, equal p and q give 0 and nearly equal ones lose nothing. */
GR_FN double gr_js_term(double p, double q)
{
    const double sum = p + q;
    if (!(sum > 0.0))
        return 0.0;
    const double d = (p - q) / sum;
    if (d >= -0.25 && d <= 0.25)
        return 0.25 * sum * gr_js_series(d);
    const double a = (p + p) / sum, b = (q + q) / sum;
    const double left = a > 0.0 ? a * gr_log(a) : 0.0;
    const double right = b > 0.0 ? b * gr_log(b) : 0.0;
    return 0.25 * sum * (left + right);
}

/* The sum of terms as returned: rounding must not carry it past ln 2. */
GR_FN float gr_js_result(double sum)
{
    const double most = 0x1.62e42fefa39efp-1;
    return (float)(sum > most ? most : sum);
}

/* Divergence is for elements that are finite and not negative; -0 is 0. */
GR_FN int gr_js_usable(float x)
{
    const uint32_t bits = gr_f32_bits(x);
    return bits < 0x7f800000u || bits == 0x80000000u;
}

#endif
