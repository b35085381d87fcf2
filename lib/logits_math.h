/* logits_math.h - what becomes of a row of logits, once, for the CPU and for CUDA.
 *
 * In: logits x of one token, z = x * (float)(1 / temperature) in fp32. Out: ln sum exp z, the entropy,
 * a target's log-prob, and the slope of all three; with the same bits on every vector path and GPU.
 *
 * 1. Blocks. The row is cut into blocks of GR_BLOCK elements from its start; the last may be short.
 * 2. A block's top is its largest z. Element i, d = z - top in fp32 (<= 0), goes to lane i % 128. A lane
 *    starts from +0.0f and takes its elements in increasing i:
 *        d = 0                  counted in `tops`, and left out of the lanes
 *        d > GR_EXP_LEAST       e = gr_exp_f32(d);  rest += e;  turn += d * e
 *        otherwise, -inf too    left out: e^-87 is 2^-125
 * 3. The lanes are folded by reduce.h, step 3.
 * 4. Block results are joined by gr_logits_join() in the order of reduce.h, step 5: pairs of
 *    neighbours, level by level, an odd last one carried up.
 *
 * The largest element stays outside the sums, so that `rest` is exact where the distribution is nearly
 * one-hot: ln S = log1p(rest), and H = ln S - T/S has no cancellation, since T <= 0. A lane adds at
 * most 32 roundings of fp32, 1.9e-6 of rest and of T; unrelated elements come below 1e-7. */
#ifndef GRADREG_LIB_LOGITS_MATH_H
#define GRADREG_LIB_LOGITS_MATH_H

#include "element.h"
#include "reduce.h"

/* ---- e^x in fp32 ----------------------------------------------------------------- */
/* x = k ln 2 + r, |r| <= ln(2)/2; e^r = 1 + r + r^2 q(r), q minimax of the relative error, 1.05e-7;
 * then k is added to the exponent. Written with operators alone, as in element.h. Below 2.5 ulp for
 * -87 <= x <= 88 (test/check_logits_math.c measures it); e^0 = 1. */
#define GR_EXP_LEAST      -87.0f
#define GR_EXP_ROUND      0x1.8p+23f /* x + this has no fraction left, and k in its last bits */
#define GR_EXP_TURNS(x)   ((x)*0x1.715476p+0f + GR_EXP_ROUND)
#define GR_EXP_WHOLE(t)   ((t)-GR_EXP_ROUND)
#define GR_EXP_REST(x, k) (((x) - (k)*0x1.62e4p-1f) - (k)*0x1.7f7d1cp-20f)
#define GR_EXP_NEAR_ZERO(r)              \
    (1.0f + ((r) + ((r) * (r)) *         \
                       (0x1.fffdfcp-2f + \
                        (r) * (0x1.5557bp-3f + (r) * (0x1.572a64p-5f + (r)*0x1.10625p-7f)))))

/* e^x for x <= 88; 0 below GR_EXP_LEAST and for NaN. */
GR_FN float gr_exp_f32(float x)
{
    if (!(x >= GR_EXP_LEAST))
        return 0.0f;
    const float t = GR_EXP_TURNS(x), k = GR_EXP_WHOLE(t), r = GR_EXP_REST(x, k);
    return gr_bits_f32(gr_f32_bits(GR_EXP_NEAR_ZERO(r)) + (gr_f32_bits(t) << 23));
}

/* ln(1 + x) for x >= 0; relative error below 4e-16. */
GR_FN double gr_log1p(double x)
{
    const double u = 1.0 + x;
    return gr_log(u) + (x - (u - 1.0)) / u;
}

/* ---- forward --------------------------------------------------------------------- */

/* A part of a row. top is NaN when an element is, -inf when all are: the rest is 0 then. */
typedef struct gr_logits_part {
    double tops; /* elements that equal top */
    double rest; /* sum of e^d over the others */
    double turn; /* sum of d e^d, <= 0 */
    float top;
    float reserved; /* 0: copies have no gap */
} gr_logits_part;

/* A part with another top, higher by -d. */
GR_FN void gr_logits_lower(gr_logits_part *part, double d)
{
    const double scale = gr_exp(d);
    const double sum = part->tops + part->rest;
    part->turn = scale * (part->turn + d * sum);
    part->rest = scale * sum;
    part->tops = 0.0;
}

GR_FN gr_logits_part gr_logits_join(gr_logits_part a, gr_logits_part b)
{
    if (a.top != a.top || b.top == -HUGE_VALF)
        return a;
    if (b.top != b.top || a.top == -HUGE_VALF)
        return b;
    if (a.top < b.top)
        gr_logits_lower(&a, (double)a.top - (double)b.top);
    if (b.top < a.top)
        gr_logits_lower(&b, (double)b.top - (double)a.top);
    a.top = a.top < b.top ? b.top : a.top;
    a.tops = a.tops + b.tops;
    a.rest = a.rest + b.rest;
    a.turn = a.turn + b.turn;
    return a;
}

/* Step 4 as a binary counter: after i parts the stack holds one finished subtree per set bit of i. */
typedef struct gr_logits_stack {
    gr_logits_part subtree[33]; /* of up to 2^32 blocks */
    int held;
    uint64_t count;
} gr_logits_stack;

GR_FN void gr_logits_push(gr_logits_stack *s, gr_logits_part part)
{
    for (uint64_t carry = s->count; carry % 2 != 0; carry /= 2)
        part = gr_logits_join(s->subtree[--s->held], part);
    s->subtree[s->held++] = part;
    s->count++;
}

GR_FN gr_logits_part gr_logits_whole(gr_logits_stack *s)
{
    gr_logits_part part = s->subtree[--s->held];
    while (s->held > 0)
        part = gr_logits_join(s->subtree[--s->held], part);
    return part;
}

/* What forward gives for a row. */
typedef struct gr_logits_row {
    float logp, entropy, log_sum_exp;
} gr_logits_row;

GR_FN gr_logits_row gr_logits_finish(gr_logits_part whole, float target)
{
    gr_logits_row row = { (float)NAN, (float)NAN, (float)NAN };
    if (gr_is_non_finite(whole.top))
        return row;
    const double top = (double)whole.top, others = (whole.tops - 1.0) + whole.rest;
    const double log_sum = gr_log1p(others);
    row.log_sum_exp = (float)(top + log_sum);
    row.entropy = (float)(log_sum - whole.turn / (1.0 + others));
    row.logp = (float)(((double)target - top) - log_sum);
    return row;
}

/* ---- backward -------------------------------------------------------------------- */
/* With l = z - log_sum_exp, p = e^l:
 *
 *      d logp / d x_j = ([j is the target] - p_j) / temperature
 *      d H / d x_j    = -p_j (l_j + H) / temperature
 *
 * so that every element but the target's is p (level + tilt l). */

typedef struct gr_logits_slope {
    float log_sum_exp;
    float level, tilt;
    float target; /* the target's own gradient */
    int kind;     /* GR_SLOPE_ */
} gr_logits_slope;

enum {
    GR_SLOPE_ZERO,  /* zeros, nothing is read */
    GR_SLOPE_NAN,   /* NaN */
    GR_SLOPE_LEVEL, /* tilt is 0 */
    GR_SLOPE_TILTED
};

#define GR_LOGITS_SLOPE(p, level)           ((p) * (level))
#define GR_LOGITS_TILTED(p, level, tilt, l) ((p) * ((level) + (tilt) * (l)))

/* `target`: the target's z; `inverse`: 1 / temperature. */
GR_FN gr_logits_slope gr_logits_slope_of(float target, float log_sum_exp, double entropy,
                                         double dlogp, double dentropy, double inverse)
{
    gr_logits_slope s = { log_sum_exp, 0.0f, 0.0f, 0.0f, GR_SLOPE_ZERO };
    if (dlogp == 0.0 && dentropy == 0.0)
        return s;
    s.kind = GR_SLOPE_NAN;
    if (gr_is_non_finite(log_sum_exp))
        return s;
    s.kind = dentropy == 0.0 ? GR_SLOPE_LEVEL : GR_SLOPE_TILTED;
    const double about = dentropy == 0.0 ? 0.0 : dentropy * entropy;
    s.level = (float)(-(dlogp + about) * inverse);
    s.tilt = (float)(-dentropy * inverse);
    if (target == -HUGE_VALF) /* a masked logit moves nothing */
        return s;
    const double l = (double)target - (double)log_sum_exp, p = gr_exp(l);
    const double by_entropy = dentropy == 0.0 ? 0.0 : dentropy * p * (l + entropy);
    s.target = (float)((dlogp * (1.0 - p) - by_entropy) * inverse);
    return s;
}

#endif
