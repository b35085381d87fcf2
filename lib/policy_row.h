/* policy_row.h - a policy loss token by token and row by row, once, for the CPU and for CUDA.
 *
 * In: a gr_policy_task, sums of a row. Out: what a token adds to the row's sums, its gradient, the
 * row's weight, the metrics. A backend walks over the rows twice: the first walk counts tokens and
 * takes the sequence's means, the second has the denominators and writes. */
#ifndef GRADREG_LIB_POLICY_ROW_H
#define GRADREG_LIB_POLICY_ROW_H

#include "policy_data.h"
#include "policy_math.h"

/* One token's inputs. */
typedef struct gr_token {
    double logp, old, ref, rollout, advantage, weight, entropy;
} gr_token;

enum gr_token_kind { GR_IS_MASKED, GR_IS_NON_FINITE, GR_IS_COUNTED };

GR_FN size_t gr_row_begin(const gradreg_policy_batch *b, size_t row)
{
    return b->row_offsets != NULL ? (size_t)b->row_offsets[row] : row * b->length;
}

GR_FN size_t gr_row_length(const gradreg_policy_batch *b, size_t row)
{
    return b->row_offsets != NULL ? (size_t)(b->row_offsets[row + 1] - b->row_offsets[row])
                                  : b->length;
}

/* The row that token i is in. */
GR_FN size_t gr_row_of_token(const gradreg_policy_batch *b, size_t i)
{
    size_t low = 0, high = b->sequences;
    if (b->row_offsets == NULL)
        return i / b->length;
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if ((size_t)b->row_offsets[middle] <= i)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Nothing but the mask is read of a masked token. */
GR_FN enum gr_token_kind gr_read_token(gr_token *out, const gr_policy_task *task, size_t row,
                                       size_t i)
{
    const gradreg_policy_batch *b = &task->batch;
    const gradreg_policy *p = &task->policy;
    if (b->mask != NULL && b->mask[i] == 0)
        return GR_IS_MASKED;
    const float logp = b->logp[i];
    const float old = b->old_logp != NULL ? b->old_logp[i] : logp;
    const float ref = p->kl != GRADREG_KL_NONE ? b->ref_logp[i] : logp;
    const int drifts = p->off_policy_threshold > 0 && b->rollout_logp != NULL;
    const int rolls = p->rollout_mode != GRADREG_ROLLOUT_OFF || drifts;
    const float rollout = rolls ? b->rollout_logp[i] : old;
    const float advantage = b->advantages[b->advantages_per_token ? i : row];
    const float weight = b->token_weight != NULL ? b->token_weight[i] : 1.0f;
    const float entropy = b->entropy != NULL ? b->entropy[i] : 0.0f;
    const gr_token t = { (double)logp,      (double)old,    (double)ref,    (double)rollout,
                         (double)advantage, (double)weight, (double)entropy };
    *out = t;
    return gr_is_non_finite(logp) || gr_is_non_finite(old) || gr_is_non_finite(ref) ||
                   gr_is_non_finite(rollout) || gr_is_non_finite(advantage) ||
                   gr_is_non_finite(weight) || gr_is_non_finite(entropy)
               ? GR_IS_NON_FINITE
               : GR_IS_COUNTED;
}

/* What of a token's log ratio enters the sequence's mean. */
GR_FN double gr_shared_log_ratio(const gradreg_policy *p, const gr_token *t, int *flags)
{
    *flags = 0;
    return p->surrogate == GRADREG_SURROGATE_GEOMETRIC_MEAN
               ? gr_geometric_log_ratio(p, t->logp - t->old, t->advantage, flags)
               : t->logp - t->old;
}

/* What a token that counts adds to GR_POLICY_TOKENS .. GR_POLICY_ROLLOUT. */
GR_FN void gr_first_sums(double out[GR_POLICY_FIRST_SUMS], const gradreg_policy *p,
                         const gr_token *t)
{
    int flags;
    out[GR_POLICY_TOKENS] = 1.0;
    out[GR_POLICY_NON_FINITE] = 0.0;
    out[GR_POLICY_LOG_RATIO] = gr_shared_log_ratio(p, t, &flags);
    out[GR_POLICY_DRIFT] = t->rollout - t->logp;
    out[GR_POLICY_ROLLOUT] = t->old - t->rollout;
}

/* ---- denominators ---------------------------------------------------------------- */

GR_FN double gr_or_one(double x)
{
    return x > 0.0 ? x : 1.0;
}

/* Denominators from what was counted: tokens, rows with a token, prompts with one. */
GR_FN gr_policy_totals gr_totals_of(const gr_policy_task *task, double own_tokens,
                                    double own_rows, double prompts)
{
    const gradreg_policy *p = &task->policy;
    const double rows = p->count_empty_rows ? (double)task->batch.sequences : own_rows;
    gr_policy_totals totals;
    totals.own_tokens = own_tokens;
    totals.own_rows = own_rows;
    totals.tokens = gr_or_one(p->token_total > 0.0 ? p->token_total : own_tokens);
    totals.sequences = gr_or_one(p->sequence_total > 0.0 ? p->sequence_total : rows);
    totals.prompts = gr_or_one(p->prompt_total > 0.0 ? p->prompt_total : prompts);
    return totals;
}

/* The aggregation's weight of every token of a row. */
GR_FN double gr_row_weight(const gr_policy_task *task, const gr_policy_totals *totals,
                           const gr_policy_row *row)
{
    const gradreg_policy *p = &task->policy;
    const double scale = p->loss_scale;
    switch (p->aggregation) {
    case GRADREG_AGGREGATE_TOKEN_MEAN: return scale / totals->tokens;
    case GRADREG_AGGREGATE_CONSTANT:
        return scale / (totals->sequences *
                        gr_or_one(p->max_length > 0.0 ? p->max_length : task->longest));
    case GRADREG_AGGREGATE_SEQUENCE_SUM:
    case GRADREG_AGGREGATE_LENGTH_WEIGHTED: return scale / totals->sequences;
    case GRADREG_AGGREGATE_PROMPT_MEAN:
        return scale / (totals->prompts * gr_or_one(row->prompt_tokens));
    default: return scale / (totals->sequences * gr_or_one(row->sums[GR_POLICY_TOKENS]));
    }
}

/* ---- a token in its row ---------------------------------------------------------- */

/* A row, as its tokens see it. */
typedef struct gr_row_view {
    const gr_policy_task *task;
    size_t row, begin, length;
    double tokens, weight;
    gr_ratio shared; /* of the sequence */
    double drift;    /* mean of l_s - l */
    double rollout;  /* weight of the sequence */
} gr_row_view;

/* One token, worked out. */
typedef struct gr_outcome {
    gr_surrogate surrogate;
    gr_kl kl;
    double ratio, weight, rollout; /* W, and the part of it that the rollout correction is */
    int own_passes;                /* its own log-prob moves the ratio */
    int shared_passes;             /* it moves the sequence's */
    int flags;
} gr_outcome;

/* A weight of 0 leaves a token out, however large what it weighs, and nothing stays nothing under an
 * infinite weight. */
GR_FN double gr_weighted(double weight, double x)
{
    if (weight == 0.0 || (x == 0.0 && weight - weight != 0.0))
        return 0.0;
    return weight * x;
}

GR_FN double gr_token_rollout(const gr_row_view *v, const gr_token *t)
{
    const gradreg_policy *p = &v->task->policy;
    if (p->rollout_mode == GRADREG_ROLLOUT_OFF)
        return 1.0;
    return gr_rollout_by_sequence(p) ? v->rollout : gr_rollout_weight(p, t->old - t->rollout);
}

GR_FN gr_outcome gr_work_out(const gr_row_view *v, const gr_token *t)
{
    const gradreg_policy *p = &v->task->policy;
    const int shares = gr_shares_ratio(p);
    const int by_sequence = shares || p->ratio_level == GRADREG_RATIO_SEQUENCE_TOKEN;
    gr_outcome o;
    memset(&o, 0, sizeof(o));
    const gr_ratio ratio = by_sequence ? v->shared : gr_ratio_of(p, t->logp - t->old);
    gr_shared_log_ratio(p, t, &o.flags);
    o.shared_passes = shares && ratio.passes && o.flags == 0;
    o.own_passes = !shares && ratio.passes;
    o.ratio = ratio.ratio;
    o.surrogate = gr_surrogate_of(p, ratio.ratio, t->advantage, t->logp);
    o.kl = gr_kl_of(p, t->logp, t->ref);
    o.flags |= o.surrogate.flags | o.kl.flags | (ratio.passes ? 0 : GR_TOKEN_LIMITED);
    o.rollout = gr_token_rollout(v, t);
    o.weight = gr_weighted(t->weight, o.rollout);
    if (p->off_policy_threshold > 0.0 && t->advantage < 0.0 &&
        v->drift > p->off_policy_threshold)
        o.weight = 0.0;
    return o;
}

GR_FN double gr_times_kl_ratio(const gradreg_policy *p, const gr_outcome *o, double x)
{
    return p->kl_ratio_weighted ? gr_weighted(o->ratio, x) : x;
}

/* What a token adds to d loss / d log s. */
GR_FN double gr_slope_of_token(const gr_row_view *v, const gr_outcome *o)
{
    const gradreg_policy *p = &v->task->policy;
    double slope = gr_weighted(o->weight, o->surrogate.by_log_ratio);
    if (p->kl_ratio_weighted)
        slope += gr_weighted(p->kl_coefficient, gr_times_kl_ratio(p, o, o->kl.k));
    return v->weight * slope;
}

GR_FN double gr_token_gradient(const gr_row_view *v, const gr_outcome *o, double slope)
{
    const gradreg_policy *p = &v->task->policy;
    double g = gr_weighted(o->weight, o->surrogate.by_logp +
                                          (o->own_passes ? o->surrogate.by_log_ratio : 0.0));
    if (p->kl != GRADREG_KL_NONE) {
        double k = gr_times_kl_ratio(p, o, o->kl.by_logp);
        if (p->kl_ratio_weighted && o->own_passes)
            k += gr_times_kl_ratio(p, o, o->kl.k);
        g += gr_weighted(p->kl_coefficient, k);
    }
    g *= v->weight;
    return o->shared_passes ? g + slope / v->tokens : g;
}

/* Weights may be any double, and the squares of no single unit can be held for all of them. Those up to 2^40
 * are summed in units of 2^-430, larger ones apart in units of 2^550: a weight from 2^-941 up is squared
 * without loss, and 2^37 of the largest have a sum. Powers of two round nothing. */
enum { GR_WEIGHT_UNIT = 430, GR_LARGE_WEIGHT_UNIT = -550 };

GR_FN void gr_weight_sums(double out[GR_POLICY_SUMS], double w)
{
    const int large = w > 0x1p40;
    const double scaled = w * gr_power_of_two(large ? GR_LARGE_WEIGHT_UNIT : GR_WEIGHT_UNIT);
    out[GR_POLICY_WEIGHT] = large ? 0.0 : scaled;
    out[GR_POLICY_WEIGHT_SQUARES] = large ? 0.0 : scaled * scaled;
    out[GR_POLICY_LARGE_WEIGHT] = large ? scaled : 0.0;
    out[GR_POLICY_LARGE_SQUARES] = large ? scaled * scaled : 0.0;
}

/* (sum W)^2 / (n sum W^2) */
GR_FN double gr_effective_sample_size(const double sums[GR_POLICY_SUMS], double n)
{
    double weights = sums[GR_POLICY_WEIGHT], squares = sums[GR_POLICY_WEIGHT_SQUARES];
    if (sums[GR_POLICY_LARGE_SQUARES] > 0.0) {
        const double unit = gr_power_of_two(GR_LARGE_WEIGHT_UNIT - GR_WEIGHT_UNIT);
        weights = sums[GR_POLICY_LARGE_WEIGHT] + weights * unit;
        squares = sums[GR_POLICY_LARGE_SQUARES] + squares * unit * unit;
    }
    return squares > 0.0 ? weights * weights / (n * squares) : n > 0.0 ? 0.0 : 1.0;
}

/* What a token that counts adds to GR_POLICY_RHO and the sums behind it. */
GR_FN void gr_outcome_sums(double out[GR_POLICY_SUMS], const gr_row_view *v,
                           const gr_outcome *o, const gr_token *tok)
{
    const double k = gr_times_kl_ratio(&v->task->policy, o, o->kl.k);
    out[GR_POLICY_RHO] = v->weight * gr_weighted(o->weight, o->surrogate.rho);
    out[GR_POLICY_WEIGHTED_KL] = v->weight * k;
    out[GR_POLICY_KL] = k;
    out[GR_POLICY_ENTROPY] = tok->entropy;
    out[GR_POLICY_RATIO] = o->ratio;
    out[GR_POLICY_LOW] = (double)((o->flags & GR_TOKEN_LOW) != 0);
    out[GR_POLICY_HIGH] = (double)((o->flags & GR_TOKEN_HIGH) != 0);
    out[GR_POLICY_LIMITED] = (double)((o->flags & GR_TOKEN_LIMITED) != 0);
    gr_weight_sums(out, o->rollout);
}

GR_FN gr_row_view gr_view_row(const gr_policy_task *task, const gr_policy_totals *totals,
                              size_t r)
{
    const gr_policy_row *row = &task->rows[r];
    const gradreg_policy *p = &task->policy;
    const double n = gr_or_one(row->sums[GR_POLICY_TOKENS]);
    gr_row_view v;
    v.task = task;
    v.row = r;
    v.begin = gr_row_begin(&task->batch, r);
    v.length = gr_row_length(&task->batch, r);
    v.tokens = n;
    v.weight = gr_row_weight(task, totals, row);
    v.shared = gr_ratio_of(p, row->sums[GR_POLICY_LOG_RATIO] / n);
    v.drift = row->sums[GR_POLICY_DRIFT] / n;
    v.rollout = 1.0;
    if (gr_rollout_by_sequence(p))
        v.rollout = gr_rollout_weight(p, row->sums[GR_POLICY_ROLLOUT]);
    return v;
}

/* dL/dH of a token that counts. */
GR_FN double gr_entropy_gradient(const gr_policy_task *task, const gr_policy_totals *totals)
{
    return -task->policy.entropy_coefficient * task->policy.loss_scale / totals->tokens;
}

/* d loss / d logp and / d H of one token; as the loss itself rounds them. */
typedef struct gr_token_slope {
    float dlogp, dentropy;
} gr_token_slope;

/* Of token i, which is in `row`. Not for ratios that a row shares. */
GR_FN gr_token_slope gr_slopes_of_token(const gr_policy_task *task,
                                        const gr_policy_totals *totals, size_t row, size_t i)
{
    gr_token_slope s = { 0.0f, 0.0f };
    gr_token token;
    if (gr_read_token(&token, task, row, i) != GR_IS_COUNTED)
        return s;
    const gr_row_view v = gr_view_row(task, totals, row);
    const gr_outcome o = gr_work_out(&v, &token);
    s.dlogp = (float)gr_token_gradient(&v, &o, 0.0);
    s.dentropy = (float)gr_entropy_gradient(task, totals);
    return s;
}

/* ---- metrics --------------------------------------------------------------------- */

/* Figures of a sequence's ratio are means over rows of the rows' means. */
GR_FN int gr_metrics_by_row(const gradreg_policy *p)
{
    return gr_shares_ratio(p) && p->surrogate != GRADREG_SURROGATE_GEOMETRIC_MEAN;
}

/* Rows' means, added up in the rows' order. */
GR_FN double gr_add_row_means(const gr_policy_task *task, int sum)
{
    double total = 0.0;
    for (size_t r = 0; r < task->batch.sequences; r++)
        if (task->rows[r].sums[GR_POLICY_TOKENS] > 0.0)
            total += task->rows[r].sums[sum] / task->rows[r].sums[GR_POLICY_TOKENS];
    return total;
}

GR_FN void gr_find_ratio_range(const gr_policy_task *task, double *low, double *high)
{
    int first = 1;
    *low = *high = 1.0;
    for (size_t r = 0; r < task->batch.sequences; r++) {
        const gr_policy_row *row = &task->rows[r];
        if (row->sums[GR_POLICY_TOKENS] == 0.0)
            continue;
        *low = first || row->ratio_min < *low ? row->ratio_min : *low;
        *high = first || row->ratio_max > *high ? row->ratio_max : *high;
        first = 0;
    }
}

/* sums: folded over all rows; row_means: added up over rows with a token. */
GR_FN double gr_metric_mean(const gr_policy_task *task, const gr_policy_totals *totals,
                            const double *sums, const double *row_means, int sum)
{
    if (!gr_metrics_by_row(&task->policy))
        return sums[sum] / gr_or_one(totals->own_tokens);
    return totals->own_rows > 0.0 ? row_means[sum] / totals->own_rows : 0.0;
}

/* Everything but struct_size; the ratio's range is {low, high}. */
GR_FN void gr_fill_metrics(gradreg_policy_metrics *m, const gr_policy_task *task,
                           const gr_policy_totals *totals, const double *sums,
                           const double *row_means, double low, double high)
{
    const gradreg_policy *p = &task->policy;
    const double n = totals->own_tokens;
    m->policy_loss = sums[GR_POLICY_RHO];
    m->loss = m->policy_loss + gr_weighted(p->kl_coefficient, sums[GR_POLICY_WEIGHTED_KL]) -
              p->entropy_coefficient * p->loss_scale * sums[GR_POLICY_ENTROPY] / totals->tokens;
    m->kl = sums[GR_POLICY_KL] / gr_or_one(n);
    m->entropy = sums[GR_POLICY_ENTROPY] / gr_or_one(n);
    m->ratio_mean =
        n > 0.0 ? gr_metric_mean(task, totals, sums, row_means, GR_POLICY_RATIO) : 1.0;
    m->ratio_min = low;
    m->ratio_max = high;
    m->clip_low_fraction = gr_metric_mean(task, totals, sums, row_means, GR_POLICY_LOW);
    m->clip_high_fraction = gr_metric_mean(task, totals, sums, row_means, GR_POLICY_HIGH);
    m->limited_fraction = gr_metric_mean(task, totals, sums, row_means, GR_POLICY_LIMITED);
    m->effective_sample_size = gr_effective_sample_size(sums, n);
    m->tokens = (uint64_t)n;
    m->sequences = task->batch.sequences;
    m->empty_sequences = m->sequences - (uint64_t)totals->own_rows;
    m->non_finite = (uint64_t)sums[GR_POLICY_NON_FINITE];
}

#endif
