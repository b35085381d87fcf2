/* oracle_policy.c - see oracle_policy.h. One function per idea of the papers; nothing is fast. */
#include "oracle_policy.h"

#include <math.h>
#include <stdlib.h>

/* A batch in which one log-prob and one entropy have been moved. What losses hold constant is taken
 * from the batch as it was. */
typedef struct place {
    const oracle_policy *o;
    size_t row, begin, end;
    size_t moved;
    double logp_by, entropy_by;
} place;

size_t oracle_policy_row_begin(const oracle_policy_batch *b, size_t row)
{
    return b->row_offsets != NULL ? (size_t)b->row_offsets[row] : row * b->length;
}

size_t oracle_policy_row_length(const oracle_policy_batch *b, size_t row)
{
    return b->row_offsets != NULL ? (size_t)(b->row_offsets[row + 1] - b->row_offsets[row])
                                  : b->length;
}

/* ---- inputs ---------------------------------------------------------------------- */

static place place_of(const oracle_policy *o, size_t row)
{
    const size_t begin = oracle_policy_row_begin(o->batch, row);
    const place p = { o,        row, begin, begin + oracle_policy_row_length(o->batch, row),
                      SIZE_MAX, 0.0, 0.0 };
    return p;
}

static double logp_at(const place *p, size_t i)
{
    return p->o->batch->logp[i] + (i == p->moved ? p->logp_by : 0.0);
}

/* Without old log-probs they are the log-probs, held constant. */
static double old_at(const place *p, size_t i)
{
    const oracle_policy_batch *b = p->o->batch;
    return b->old_logp != NULL ? b->old_logp[i] : b->logp[i];
}

static double advantage_at(const oracle_policy_batch *b, size_t row, size_t i)
{
    return b->advantages[b->advantages_per_token ? i : row];
}

static bool uses_rollout(const oracle_policy *o)
{
    return o->batch->rollout_logp != NULL && (o->policy.rollout_mode != GRADREG_ROLLOUT_OFF ||
                                              o->policy.off_policy_threshold > 0.0);
}

static bool token_counts(const oracle_policy *o, size_t row, size_t i)
{
    const oracle_policy_batch *b = o->batch;
    return isfinite(b->logp[i]) && (b->old_logp == NULL || isfinite(b->old_logp[i])) &&
           (o->policy.kl == GRADREG_KL_NONE || isfinite(b->ref_logp[i])) &&
           (!uses_rollout(o) || isfinite(b->rollout_logp[i])) &&
           (b->token_weight == NULL || isfinite(b->token_weight[i])) &&
           (b->entropy == NULL || isfinite(b->entropy[i])) && isfinite(advantage_at(b, row, i));
}

/* ---- ratios ---------------------------------------------------------------------- */

/* GMPO clips the log ratio itself, on the side that A drives it to. */
static double gmpo_log_ratio(const gradreg_policy *p, double d, double a)
{
    return a > 0.0 ? fmin(d, p->clip_high) : a < 0.0 ? fmax(d, -p->clip_low) : d;
}

static double limit(const gradreg_policy *p, double x)
{
    return p->log_ratio_limit > 0.0 ? fmax(-p->log_ratio_limit, fmin(p->log_ratio_limit, x))
                                    : x;
}

/* Mean over the row of what its tokens contribute. */
static double sequence_log_ratio(const place *p)
{
    const gradreg_policy *policy = &p->o->policy;
    double sum = 0.0, n = 0.0;
    for (size_t i = p->begin; i < p->end; i++) {
        const double d = logp_at(p, i) - old_at(p, i);
        if (!p->o->counts[i])
            continue;
        sum += policy->surrogate == GRADREG_SURROGATE_GEOMETRIC_MEAN
                   ? gmpo_log_ratio(policy, d, advantage_at(p->o->batch, p->row, i))
                   : d;
        n += 1.0;
    }
    return n > 0.0 ? sum / n : 0.0;
}

static place unmoved(const place *p)
{
    place at = *p;
    at.moved = SIZE_MAX;
    return at;
}

static double log_ratio_at(const place *p, size_t i)
{
    const gradreg_policy *policy = &p->o->policy;
    const place before = unmoved(p);
    if (policy->surrogate == GRADREG_SURROGATE_GEOMETRIC_MEAN)
        return sequence_log_ratio(p);
    if (policy->ratio_level == GRADREG_RATIO_TOKEN)
        return logp_at(p, i) - old_at(p, i);
    return sequence_log_ratio(policy->ratio_level == GRADREG_RATIO_SEQUENCE ? p : &before);
}

/* GSPO-token: the sequence's ratio, times a 1 that moves with the token. */
static double ratio_at(const place *p, size_t i)
{
    const gradreg_policy *policy = &p->o->policy;
    const double x = log_ratio_at(p, i), limited = limit(policy, x);
    const bool own = policy->ratio_level == GRADREG_RATIO_SEQUENCE_TOKEN &&
                     policy->surrogate != GRADREG_SURROGATE_GEOMETRIC_MEAN;
    return exp(limited) *
           (own && limited == x ? exp(logp_at(p, i) - p->o->batch->logp[i]) : 1.0);
}

/* ---- surrogates ------------------------------------------------------------------ */

static double clip(const gradreg_policy *p, double r)
{
    return fmin(fmax(r, 1.0 - p->clip_low), 1.0 + p->clip_high);
}

/* The smaller gain of two, a gain of A < 0 being no worse than dual_clip A. */
static double clipped_objective(const gradreg_policy *p, double r, double a)
{
    const double capped = p->cap > 0.0 ? fmin(r, p->cap) : r;
    const double least = fmin(capped * a, clip(p, r) * a);
    if (a == 0.0)
        return 0.0;
    return p->dual_clip > 0.0 && a < 0.0 ? fmax(least, p->dual_clip * a) : least;
}

static double surrogate_at(const place *p, size_t i)
{
    const gradreg_policy *policy = &p->o->policy;
    const place before = unmoved(p);
    const double a = advantage_at(p->o->batch, p->row, i), r = ratio_at(p, i);
    const double tau = a > 0.0 ? policy->gate_positive : policy->gate_negative;
    switch (policy->surrogate) {
    case GRADREG_SURROGATE_CLIPPED: return -clipped_objective(policy, r, a);
    case GRADREG_SURROGATE_CLIPPED_WEIGHT:
        return -clip(policy, ratio_at(&before, i)) * a * logp_at(p, i);
    case GRADREG_SURROGATE_SOFT_GATE: return -4.0 / tau / (1.0 + exp(-tau * (r - 1.0))) * a;
    case GRADREG_SURROGATE_GEOMETRIC_MEAN: return -a * r;
    default: return -a * logp_at(p, i);
    }
}

/* ---- KL -------------------------------------------------------------------------- */

static double plain_kl(const gradreg_policy *p, double u)
{
    switch (p->kl) {
    case GRADREG_KL_K1: return -u;
    case GRADREG_KL_K2: return 0.5 * u * u;
    case GRADREG_KL_K3: return expm1(u) - u;
    case GRADREG_KL_ABS: return fabs(u);
    default: return 0.0;
    }
}

static double kl_at(const place *p, size_t i)
{
    const gradreg_policy *policy = &p->o->policy;
    if (policy->kl == GRADREG_KL_NONE)
        return 0.0;
    double k = plain_kl(policy, p->o->batch->ref_logp[i] - logp_at(p, i));
    if (policy->kl_limit > 0.0)
        k = fmax(-policy->kl_limit, fmin(policy->kl_limit, k));
    return policy->kl_ratio_weighted ? k * ratio_at(p, i) : k;
}

/* ---- weights: constants ---------------------------------------------------------- */

static double rollout_log_weight(const place *before, size_t i)
{
    const gradreg_policy *p = &before->o->policy;
    const double *rollout = before->o->batch->rollout_logp;
    double sum = 0.0;
    if (p->rollout_mode == GRADREG_ROLLOUT_TOKEN_TRUNCATE ||
        p->rollout_mode == GRADREG_ROLLOUT_TOKEN_MASK)
        return old_at(before, i) - rollout[i];
    for (size_t k = before->begin; k < before->end; k++)
        sum += before->o->counts[k] ? old_at(before, k) - rollout[k] : 0.0;
    return sum;
}

static double rollout_weight_at(const place *before, size_t i)
{
    const gradreg_policy *p = &before->o->policy;
    if (p->rollout_mode == GRADREG_ROLLOUT_OFF)
        return 1.0;
    const double w = exp(rollout_log_weight(before, i));
    if (p->rollout_mode == GRADREG_ROLLOUT_TOKEN_TRUNCATE ||
        p->rollout_mode == GRADREG_ROLLOUT_SEQUENCE_TRUNCATE)
        return fmax(p->rollout_low, fmin(p->rollout_high, w));
    return w >= p->rollout_low && w <= p->rollout_high ? w : 0.0;
}

/* Has the policy moved off what sampled this sequence? */
static bool is_off_policy(const place *before)
{
    const oracle_policy *o = before->o;
    double sum = 0.0;
    if (o->policy.off_policy_threshold == 0.0)
        return false;
    for (size_t i = before->begin; i < before->end; i++)
        if (o->counts[i])
            sum += (uses_rollout(o) ? o->batch->rollout_logp[i] : old_at(before, i)) -
                   o->batch->logp[i];
    return sum / fmax(o->row_tokens[before->row], 1.0) > o->policy.off_policy_threshold;
}

static double weight_at(const place *p, size_t i)
{
    const place before = unmoved(p);
    const oracle_policy_batch *b = p->o->batch;
    if (advantage_at(b, p->row, i) < 0.0 && is_off_policy(&before))
        return 0.0;
    return (b->token_weight != NULL ? b->token_weight[i] : 1.0) * rollout_weight_at(&before, i);
}

/* ---- a row's loss ---------------------------------------------------------------- */

typedef struct parts {
    double policy, kl, entropy;
} parts;

static parts row_parts(const place *p)
{
    const oracle_policy *o = p->o;
    parts sum = { 0.0, 0.0, 0.0 };
    for (size_t i = p->begin; i < p->end; i++) {
        if (!o->counts[i])
            continue;
        const double w = weight_at(p, i);
        sum.policy += w == 0.0 ? 0.0 : w * surrogate_at(p, i);
        sum.kl += kl_at(p, i);
        if (o->batch->entropy != NULL)
            sum.entropy += o->batch->entropy[i] + (i == p->moved ? p->entropy_by : 0.0);
    }
    return sum;
}

static double row_loss(const place *p)
{
    const oracle_policy *o = p->o;
    const parts sum = row_parts(p);
    return o->row_weights[p->row] * (sum.policy + o->policy.kl_coefficient * sum.kl) -
           o->policy.entropy_coefficient * o->entropy_weight * sum.entropy;
}

static double row_loss_at(const oracle_policy *o, size_t row, size_t token, double logp_by,
                          double entropy_by)
{
    place p = place_of(o, row);
    p.moved = token;
    p.logp_by = logp_by;
    p.entropy_by = entropy_by;
    return row_loss(&p);
}

/* Two differences of different reach, so that the third derivative leaves too. */
double oracle_policy_slope(const oracle_policy *o, size_t row, size_t token)
{
    const double h = ORACLE_POLICY_REACH;
    if (!o->counts[token])
        return 0.0;
    const double near =
        row_loss_at(o, row, token, h, 0.0) - row_loss_at(o, row, token, -h, 0.0);
    const double far =
        row_loss_at(o, row, token, 2 * h, 0.0) - row_loss_at(o, row, token, -2 * h, 0.0);
    return (8.0 * near - far) / (12.0 * h);
}

double oracle_policy_entropy_slope(const oracle_policy *o, size_t row, size_t token)
{
    if (!o->counts[token])
        return 0.0;
    return (row_loss_at(o, row, token, 0.0, 1.0) - row_loss_at(o, row, token, 0.0, -1.0)) / 2.0;
}

/* ---- denominators ---------------------------------------------------------------- */

static double given_or(double given, double own)
{
    const double total = given > 0.0 ? given : own;
    return total > 0.0 ? total : 1.0;
}

static double prompt_tokens(const oracle_policy *o, size_t row)
{
    double n = 0.0;
    for (size_t r = 0; r < o->batch->sequences; r++)
        n += o->batch->group[r] == o->batch->group[row] ? o->row_tokens[r] : 0.0;
    return n;
}

/* Each prompt is counted at its first row. */
static double prompts(const oracle_policy *o)
{
    double n = 0.0;
    for (size_t r = 0; r < o->batch->sequences; r++) {
        bool first = prompt_tokens(o, r) > 0.0;
        for (size_t k = 0; k < r; k++)
            first = first && o->batch->group[k] != o->batch->group[r];
        n += first;
    }
    return n;
}

static double longest_row(const oracle_policy_batch *b)
{
    size_t longest = 0;
    for (size_t r = 0; r < b->sequences; r++)
        if (oracle_policy_row_length(b, r) > longest)
            longest = oracle_policy_row_length(b, r);
    return b->row_offsets != NULL ? (double)longest : (double)b->length;
}

static double row_weight(const oracle_policy *o, size_t row, double tokens, double sequences)
{
    const gradreg_policy *p = &o->policy;
    switch (p->aggregation) {
    case GRADREG_AGGREGATE_TOKEN_MEAN: return 1.0 / tokens;
    case GRADREG_AGGREGATE_CONSTANT:
        return 1.0 / (sequences * given_or(p->max_length, longest_row(o->batch)));
    case GRADREG_AGGREGATE_SEQUENCE_SUM: return 1.0 / sequences;
    case GRADREG_AGGREGATE_LENGTH_WEIGHTED: return 1.0 / sequences;
    case GRADREG_AGGREGATE_PROMPT_MEAN:
        return 1.0 / (given_or(p->prompt_total, prompts(o)) * fmax(prompt_tokens(o, row), 1.0));
    default: return 1.0 / (sequences * fmax(o->row_tokens[row], 1.0));
    }
}

static void count_tokens(oracle_policy *o)
{
    const oracle_policy_batch *b = o->batch;
    for (size_t r = 0; r < b->sequences; r++) {
        const place p = place_of(o, r);
        for (size_t i = p.begin; i < p.end; i++) {
            if (b->mask != NULL && b->mask[i] == 0)
                continue;
            o->counts[i] = token_counts(o, r, i);
            o->row_tokens[r] += o->counts[i];
            o->metrics.tokens += o->counts[i];
            o->metrics.non_finite += !o->counts[i];
        }
        o->metrics.sequences++;
        o->metrics.empty_sequences += o->row_tokens[r] == 0.0;
    }
}

static void find_weights(oracle_policy *o)
{
    const gradreg_policy *p = &o->policy;
    const double filled = (double)(o->metrics.sequences - o->metrics.empty_sequences);
    const double rows = p->count_empty_rows ? (double)o->metrics.sequences : filled;
    const double tokens = given_or(p->token_total, (double)o->metrics.tokens);
    const double sequences = given_or(p->sequence_total, rows);
    for (size_t r = 0; r < o->batch->sequences; r++)
        o->row_weights[r] = p->loss_scale * row_weight(o, r, tokens, sequences);
    o->entropy_weight = p->loss_scale / tokens;
}

/* ---- metrics --------------------------------------------------------------------- */

static bool cap_holds(const gradreg_policy *p, double r, double a)
{
    return p->surrogate == GRADREG_SURROGATE_CLIPPED && a != 0.0 && p->cap > 0.0 &&
           r > p->cap && (p->cap * a <= clip(p, r) * a || r * a < clip(p, r) * a);
}

static bool dual_clip_holds(const gradreg_policy *p, double r, double a)
{
    gradreg_policy without = *p;
    without.dual_clip = 0.0;
    return p->surrogate == GRADREG_SURROGATE_CLIPPED && a < 0.0 && p->dual_clip > 0.0 &&
           clipped_objective(&without, r, a) < p->dual_clip * a;
}

static bool something_holds(const place *p, size_t i)
{
    const gradreg_policy *policy = &p->o->policy;
    const double r = ratio_at(p, i), a = advantage_at(p->o->batch, p->row, i);
    const double x = log_ratio_at(p, i);
    const bool kl = policy->kl != GRADREG_KL_NONE && policy->kl_limit > 0.0 &&
                    fabs(plain_kl(policy, p->o->batch->ref_logp[i] - p->o->batch->logp[i])) >
                        policy->kl_limit;
    return limit(policy, x) != x || kl || cap_holds(policy, r, a) ||
           dual_clip_holds(policy, r, a);
}

/* -1: below the clip range with A < 0; 1: above it with A > 0. */
static int clip_side(const place *p, size_t i)
{
    const gradreg_policy *policy = &p->o->policy;
    const double r = ratio_at(p, i), a = advantage_at(p->o->batch, p->row, i);
    const double d = p->o->batch->logp[i] - old_at(p, i);
    if (policy->surrogate == GRADREG_SURROGATE_PLAIN)
        return 0;
    if (policy->surrogate == GRADREG_SURROGATE_GEOMETRIC_MEAN)
        return a > 0.0 && d > policy->clip_high ? 1 : a < 0.0 && d < -policy->clip_low ? -1 : 0;
    return a > 0.0 && r > 1.0 + policy->clip_high  ? 1
           : a < 0.0 && r < 1.0 - policy->clip_low ? -1
                                                   : 0;
}

/* Ratio figures are means over tokens, or over the rows where a row has one ratio. */
static void add_ratio_figures(oracle_policy *o, const place *p)
{
    gradreg_policy_metrics *m = &o->metrics;
    const bool by_row = o->policy.ratio_level == GRADREG_RATIO_SEQUENCE &&
                        o->policy.surrogate != GRADREG_SURROGATE_GEOMETRIC_MEAN;
    const double rows = (double)(m->sequences - m->empty_sequences);
    const double share =
        by_row ? 1.0 / (rows * o->row_tokens[p->row]) : 1.0 / (double)m->tokens;
    for (size_t i = p->begin; i < p->end; i++) {
        if (!o->counts[i])
            continue;
        const double r = ratio_at(p, i);
        m->ratio_mean += share * r;
        m->ratio_min = fmin(m->ratio_min, r);
        m->ratio_max = fmax(m->ratio_max, r);
        m->clip_low_fraction += clip_side(p, i) < 0 ? share : 0.0;
        m->clip_high_fraction += clip_side(p, i) > 0 ? share : 0.0;
        m->limited_fraction += something_holds(p, i) ? share : 0.0;
    }
}

static void add_losses(oracle_policy *o, const place *p)
{
    gradreg_policy_metrics *m = &o->metrics;
    const parts sum = row_parts(p);
    m->loss += row_loss(p);
    m->policy_loss += o->row_weights[p->row] * sum.policy;
    m->kl += sum.kl / (double)m->tokens;
    m->entropy += sum.entropy / (double)m->tokens;
}

static void find_effective_sample_size(oracle_policy *o)
{
    long double sum = 0.0L, squares = 0.0L; /* whose range has the squares of every double */
    for (size_t r = 0; r < o->batch->sequences; r++) {
        const place p = place_of(o, r);
        for (size_t i = p.begin; i < p.end; i++) {
            const long double w = o->counts[i] ? rollout_weight_at(&p, i) : 0.0;
            sum += w;
            squares += w * w;
        }
    }
    if (o->metrics.tokens > 0)
        o->metrics.effective_sample_size =
            squares > 0.0L ? (double)(sum * sum / ((long double)o->metrics.tokens * squares))
                           : 0.0;
}

static void find_metrics(oracle_policy *o)
{
    gradreg_policy_metrics *m = &o->metrics;
    m->ratio_mean = m->ratio_min = m->ratio_max = m->effective_sample_size = 1.0;
    if (m->tokens == 0)
        return;
    m->ratio_mean = 0.0;
    m->ratio_min = (double)INFINITY;
    m->ratio_max = (double)-INFINITY;
    for (size_t r = 0; r < o->batch->sequences; r++) {
        const place p = place_of(o, r);
        if (o->row_tokens[r] == 0.0)
            continue;
        add_losses(o, &p);
        add_ratio_figures(o, &p);
    }
    find_effective_sample_size(o);
}

/* ---- corners --------------------------------------------------------------------- */

static void corner(oracle_policy *o, double x, double at)
{
    if (isfinite(at) && fabs(x - at) < o->margin)
        o->margin = fabs(x - at);
}

static void find_ratio_corners(oracle_policy *o, const place *p, size_t i)
{
    const gradreg_policy *policy = &o->policy;
    const double x = log_ratio_at(p, i), d = o->batch->logp[i] - old_at(p, i);
    if (policy->log_ratio_limit > 0.0) {
        corner(o, x, policy->log_ratio_limit);
        corner(o, x, -policy->log_ratio_limit);
    }
    if (policy->surrogate == GRADREG_SURROGATE_GEOMETRIC_MEAN) {
        corner(o, d, policy->clip_high);
        corner(o, d, -policy->clip_low);
    }
    if (policy->surrogate != GRADREG_SURROGATE_CLIPPED)
        return;
    corner(o, x, log(fmax(1.0 - policy->clip_low, 0.0)));
    corner(o, x, log(1.0 + policy->clip_high));
    corner(o, x, log(policy->cap));
    corner(o, x, log(policy->dual_clip));
}

static void find_kl_corners(oracle_policy *o, size_t i)
{
    const gradreg_policy *policy = &o->policy;
    if (policy->kl == GRADREG_KL_NONE)
        return;
    const double u = o->batch->ref_logp[i] - o->batch->logp[i];
    if (policy->kl == GRADREG_KL_ABS)
        corner(o, u, 0.0);
    if (policy->kl_limit > 0.0) /* no estimate is steeper than this near u */
        corner(o, fabs(plain_kl(policy, u)) / (1.0 + fabs(u) + exp(u)),
               policy->kl_limit / (1.0 + fabs(u) + exp(u)));
}

static void find_corners(oracle_policy *o)
{
    o->margin = (double)INFINITY;
    for (size_t r = 0; r < o->batch->sequences; r++) {
        const place p = place_of(o, r);
        for (size_t i = p.begin; i < p.end; i++)
            if (o->counts[i]) {
                find_ratio_corners(o, &p, i);
                find_kl_corners(o, i);
            }
    }
}

/* ---- life ------------------------------------------------------------------------ */

static void resolve(gradreg_policy *p)
{
    p->ratio_level = p->ratio_level == 0 ? GRADREG_RATIO_TOKEN : p->ratio_level;
    p->surrogate = p->surrogate == 0 ? GRADREG_SURROGATE_CLIPPED : p->surrogate;
    p->kl = p->kl == 0 ? GRADREG_KL_NONE : p->kl;
    p->aggregation = p->aggregation == 0 ? GRADREG_AGGREGATE_SEQUENCE_MEAN : p->aggregation;
    p->rollout_mode = p->rollout_mode == 0 ? GRADREG_ROLLOUT_OFF : p->rollout_mode;
    p->loss_scale = p->loss_scale == 0.0 ? 1.0 : p->loss_scale;
}

oracle_policy *oracle_policy_new(const gradreg_policy *policy, const oracle_policy_batch *batch)
{
    oracle_policy *o = calloc(1, sizeof(*o));
    const size_t rows = batch->sequences;
    o->policy = *policy;
    resolve(&o->policy);
    o->batch = batch;
    o->token_count =
        batch->row_offsets != NULL ? (size_t)batch->row_offsets[rows] : rows * batch->length;
    o->counts = calloc(o->token_count + 1, sizeof(*o->counts));
    o->row_tokens = calloc(rows + 1, sizeof(*o->row_tokens));
    o->row_weights = calloc(rows + 1, sizeof(*o->row_weights));
    count_tokens(o);
    find_weights(o);
    find_metrics(o);
    find_corners(o);
    return o;
}

void oracle_policy_free(oracle_policy *o)
{
    free(o->counts);
    free(o->row_tokens);
    free(o->row_weights);
    free(o);
}
