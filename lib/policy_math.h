/* policy_math.h - the policy losses' formulas, once, for the CPU and for CUDA.
 *
 * In: one token's log-probs, advantage and weights, in double. Out: its surrogate and KL estimate with
 * their derivatives. No loops and no memory; a loss is a composition of four choices:
 *   which ratio       gr_ratio_of        token or sequence, clamped in the log
 *   which surrogate   gr_surrogate_of    rho and its derivatives
 *   which KL          gr_kl_of           k and its derivative
 *   which weight      (policy_row.h)     the aggregation's denominators */
#ifndef GRADREG_LIB_POLICY_MATH_H
#define GRADREG_LIB_POLICY_MATH_H

#include "element.h"
#include "gradreg.h"

enum { GR_TOKEN_LOW = 1, GR_TOKEN_HIGH = 2, GR_TOKEN_LIMITED = 4 };

/* A clamped log ratio. */
typedef struct gr_ratio {
    double log_ratio, ratio;
    int passes; /* the clamp lets the gradient through */
} gr_ratio;

GR_FN gr_ratio gr_ratio_of(const gradreg_policy *p, double log_ratio)
{
    gr_ratio r = { log_ratio, 1.0, 1 };
    const double limit = p->log_ratio_limit;
    if (limit > 0.0 && (log_ratio > limit || log_ratio < -limit)) {
        r.log_ratio = log_ratio > limit ? limit : -limit;
        r.passes = 0;
    }
    r.ratio = gr_exp(r.log_ratio);
    return r;
}

/* One token's surrogate. */
typedef struct gr_surrogate {
    double rho;
    double by_log_ratio; /* d rho / d log r */
    double by_logp;      /* d rho / d l with the ratio held */
    int flags;           /* GR_TOKEN_ */
} gr_surrogate;

GR_FN double gr_clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

GR_FN gr_surrogate gr_surrogate_clipped(const gradreg_policy *p, double r, double a)
{
    gr_surrogate s = { 0.0, 0.0, 0.0, 0 };
    if (a == 0.0) /* inf * 0 is not a loss */
        return s;
    const int capped = p->cap > 0.0 && r > p->cap;
    const double inside = gr_clamp(r, 1.0 - p->clip_low, 1.0 + p->clip_high);
    const double plain = (capped ? p->cap : r) * a, clipped = inside * a;
    const int takes_plain = plain <= clipped;
    s.rho = -(takes_plain ? plain : clipped);
    /* A cap below 1 + clip_high leaves the clipped branch to ratios that nothing has clipped. */
    s.by_log_ratio = (takes_plain ? capped : inside != r) ? 0.0 : -r * a;
    s.flags = capped && (takes_plain || r * a < clipped) ? GR_TOKEN_LIMITED : 0;
    if (a < 0.0 && p->dual_clip > 0.0 && s.rho > -p->dual_clip * a) {
        s.rho = -p->dual_clip * a;
        s.by_log_ratio = 0.0;
        s.flags |= GR_TOKEN_LIMITED;
    }
    return s;
}

/* CISPO: the clipped ratio is a constant weight of -A l. */
GR_FN gr_surrogate gr_surrogate_weight(const gradreg_policy *p, double r, double a, double logp)
{
    const double low = 1.0 - p->clip_low, high = 1.0 + p->clip_high;
    const double w = a == 0.0 ? 0.0 : gr_clamp(r, low, high);
    const gr_surrogate s = { logp == 0.0 ? 0.0 : -w * a * logp, 0.0, -w * a, 0 };
    return s;
}

/* SAPO: a sigmoid instead of the clip. */
GR_FN gr_surrogate gr_surrogate_gate(const gradreg_policy *p, double r, double a)
{
    const double tau = a > 0.0 ? p->gate_positive : p->gate_negative;
    const double gate = 1.0 / (1.0 + gr_exp(-tau * (r - 1.0)));
    const double slope = gate * (1.0 - gate); /* 0 faster than any r grows */
    const gr_surrogate s = { -4.0 / tau * gate * a, slope > 0.0 ? -4.0 * slope * r * a : 0.0,
                             0.0, 0 };
    return s;
}

GR_FN gr_surrogate gr_surrogate_of(const gradreg_policy *p, double r, double a, double logp)
{
    gr_surrogate s = { 0.0, 0.0, 0.0, 0 };
    switch (p->surrogate) {
    case GRADREG_SURROGATE_CLIPPED_WEIGHT: s = gr_surrogate_weight(p, r, a, logp); break;
    case GRADREG_SURROGATE_SOFT_GATE: s = gr_surrogate_gate(p, r, a); break;
    case GRADREG_SURROGATE_GEOMETRIC_MEAN:
        s.rho = a == 0.0 ? 0.0 : -a * r;
        s.by_log_ratio = s.rho;
        return s; /* its clip is in the log ratio */
    case GRADREG_SURROGATE_PLAIN:
        s.rho = -a * logp;
        s.by_logp = -a;
        return s;
    default: s = gr_surrogate_clipped(p, r, a); break;
    }
    if (a < 0.0 && r < 1.0 - p->clip_low)
        s.flags |= GR_TOKEN_LOW;
    if (a > 0.0 && r > 1.0 + p->clip_high)
        s.flags |= GR_TOKEN_HIGH;
    return s;
}

/* GMPO's log ratio of a token, clipped on the side that its advantage would push it to. */
GR_FN double gr_geometric_log_ratio(const gradreg_policy *p, double d, double a, int *flags)
{
    *flags = 0;
    if (a > 0.0 && d > p->clip_high) {
        *flags = GR_TOKEN_HIGH;
        return p->clip_high;
    }
    if (a < 0.0 && d < -p->clip_low) {
        *flags = GR_TOKEN_LOW;
        return -p->clip_low;
    }
    return d;
}

/* One token's KL estimate. */
typedef struct gr_kl {
    double k;
    double by_logp; /* d k / d l */
    int flags;
} gr_kl;

/* e^u - 1 - u without cancellation: its series where u is small. */
GR_FN double gr_exp_rest(double u)
{
    if (u > 0.25 || u < -0.25)
        return gr_exp(u) - u - 1.0;
    double p = 1.0 / 6227020800.0; /* 1/13!, down to 1/2! */
    p = 1.0 / 479001600.0 + u * p;
    p = 1.0 / 39916800.0 + u * p;
    p = 1.0 / 3628800.0 + u * p;
    p = 1.0 / 362880.0 + u * p;
    p = 1.0 / 40320.0 + u * p;
    p = 1.0 / 5040.0 + u * p;
    p = 1.0 / 720.0 + u * p;
    p = 1.0 / 120.0 + u * p;
    p = 1.0 / 24.0 + u * p;
    p = 1.0 / 6.0 + u * p;
    p = 1.0 / 2.0 + u * p;
    return u * u * p;
}

GR_FN gr_kl gr_kl_of(const gradreg_policy *p, double logp, double ref)
{
    const double u = ref - logp;
    gr_kl kl = { 0.0, 0.0, 0 };
    switch (p->kl) {
    case GRADREG_KL_K1: kl.k = -u, kl.by_logp = 1.0; break;
    case GRADREG_KL_K2: kl.k = u * u / 2.0, kl.by_logp = -u; break;
    case GRADREG_KL_K3:
        kl.k = gr_exp_rest(u);
        kl.by_logp = -(kl.k + u); /* 1 - e^u */
        break;
    case GRADREG_KL_ABS:
        kl.k = fabs(u);
        kl.by_logp = u > 0.0 ? -1.0 : u < 0.0 ? 1.0 : 0.0;
        break;
    default: return kl;
    }
    if (p->kl_limit > 0.0 && (kl.k > p->kl_limit || kl.k < -p->kl_limit)) {
        kl.k = kl.k > 0.0 ? p->kl_limit : -p->kl_limit;
        kl.by_logp = 0.0;
        kl.flags = GR_TOKEN_LIMITED;
    }
    return kl;
}

/* What a rollout weight becomes. */
GR_FN double gr_rollout_weight(const gradreg_policy *p, double log_weight)
{
    const int masks = p->rollout_mode == GRADREG_ROLLOUT_TOKEN_MASK ||
                      p->rollout_mode == GRADREG_ROLLOUT_SEQUENCE_MASK;
    const double w = gr_exp(log_weight);
    if (masks)
        return w < p->rollout_low || w > p->rollout_high ? 0.0 : w;
    return gr_clamp(w, p->rollout_low, p->rollout_high);
}

GR_FN int gr_rollout_by_sequence(const gradreg_policy *p)
{
    return p->rollout_mode == GRADREG_ROLLOUT_SEQUENCE_TRUNCATE ||
           p->rollout_mode == GRADREG_ROLLOUT_SEQUENCE_MASK;
}

/* The whole sequence moves with each of its tokens. */
GR_FN int gr_shares_ratio(const gradreg_policy *p)
{
    return p->surrogate == GRADREG_SURROGATE_GEOMETRIC_MEAN ||
           p->ratio_level == GRADREG_RATIO_SEQUENCE;
}

#endif
