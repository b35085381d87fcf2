/* cpu_policy.c - policy losses on the CPU, one row at a time.
 *
 * In: a gr_policy_task. Out: gradients, metrics. Two walks over the rows: the first counts tokens and
 * takes the sequence's means, the second has the denominators and writes. A row's sums go to 32
 * accumulators, token t to t % 32, and fold as in reduce.h: one warp a row, with the same bits. */
#include <assert.h>
#include <string.h>

#include "../backend.h"
#include "../params.h"
#include "../policy_math.h"
#include "../reduce.h"
#include "../threads.h"
#include "cpu_policy.h"

/* One token's inputs. */
typedef struct token {
    double logp, old, ref, rollout, advantage, weight, entropy;
} token;

enum token_kind { TOKEN_MASKED, TOKEN_NON_FINITE, TOKEN_COUNTS };

typedef struct row_sums {
    double acc[GR_POLICY_SUMS][GR_ACCUMULATORS];
} row_sums;

static void add(row_sums *s, int sum, size_t t, double x)
{
    double *a = &s->acc[sum][t % GR_ACCUMULATORS];
    *a = *a + x;
}

static size_t row_begin(const gradreg_policy_batch *b, size_t row)
{
    return b->row_offsets != NULL ? (size_t)b->row_offsets[row] : row * b->length;
}

static size_t row_length(const gradreg_policy_batch *b, size_t row)
{
    return b->row_offsets != NULL ? (size_t)(b->row_offsets[row + 1] - b->row_offsets[row])
                                  : b->length;
}

/* Nothing but the mask is read of a masked token. */
static enum token_kind read_token(token *out, const gr_policy_task *task, size_t row, size_t i)
{
    const gradreg_policy_batch *b = &task->batch;
    const gradreg_policy *p = &task->policy;
    if (b->mask != NULL && b->mask[i] == 0)
        return TOKEN_MASKED;
    const float logp = b->logp[i];
    const float old = b->old_logp != NULL ? b->old_logp[i] : logp;
    const float ref = p->kl != GRADREG_KL_NONE ? b->ref_logp[i] : logp;
    const int drifts = p->off_policy_threshold > 0 && b->rollout_logp != NULL;
    const int rolls = p->rollout_mode != GRADREG_ROLLOUT_OFF || drifts;
    const float rollout = rolls ? b->rollout_logp[i] : old;
    const float advantage = b->advantages[b->advantages_per_token ? i : row];
    const float weight = b->token_weight != NULL ? b->token_weight[i] : 1.0f;
    const float entropy = b->entropy != NULL ? b->entropy[i] : 0.0f;
    const token t = { (double)logp,      (double)old,    (double)ref,    (double)rollout,
                      (double)advantage, (double)weight, (double)entropy };
    *out = t;
    return gr_is_non_finite(logp) || gr_is_non_finite(old) || gr_is_non_finite(ref) ||
                   gr_is_non_finite(rollout) || gr_is_non_finite(advantage) ||
                   gr_is_non_finite(weight) || gr_is_non_finite(entropy)
               ? TOKEN_NON_FINITE
               : TOKEN_COUNTS;
}

static void fold(gr_policy_row *row, const row_sums *s, int first, int end)
{
    for (int k = first; k < end; k++)
        row->sums[k] = gr_tree_doubles(s->acc[k]);
}

/* ---- first walk ------------------------------------------------------------------ */

/* What of a token's log ratio enters the sequence's mean. */
static double shared_log_ratio(const gradreg_policy *p, const token *t, int *flags)
{
    *flags = 0;
    return p->surrogate == GRADREG_SURROGATE_GEOMETRIC_MEAN
               ? gr_geometric_log_ratio(p, t->logp - t->old, t->advantage, flags)
               : t->logp - t->old;
}

static void measure_row(const gr_policy_task *task, size_t r)
{
    const gradreg_policy_batch *b = &task->batch;
    const size_t begin = row_begin(b, r), n = row_length(b, r);
    row_sums s;
    memset(&s, 0, sizeof(s));
    for (size_t t = 0; t < n; t++) {
        token tok;
        int flags;
        const enum token_kind kind = read_token(&tok, task, r, begin + t);
        if (kind == TOKEN_NON_FINITE)
            add(&s, GR_POLICY_NON_FINITE, t, 1.0);
        if (kind != TOKEN_COUNTS)
            continue;
        add(&s, GR_POLICY_TOKENS, t, 1.0);
        add(&s, GR_POLICY_LOG_RATIO, t, shared_log_ratio(&task->policy, &tok, &flags));
        add(&s, GR_POLICY_DRIFT, t, tok.rollout - tok.logp);
        add(&s, GR_POLICY_ROLLOUT, t, tok.old - tok.rollout);
    }
    fold(&task->rows[r], &s, 0, GR_POLICY_FIRST_SUMS);
}

/* ---- denominators ---------------------------------------------------------------- */

static double fold_rows(const gr_policy_task *task, int sum)
{
    const size_t stride = sizeof(gr_policy_row) / sizeof(double);
    return gr_tree_blocks_strided(&task->rows[0].sums[sum], task->batch.sequences, stride);
}

static int group_before(const int32_t *group, int64_t a, int64_t b)
{
    return group[a] != group[b] ? group[a] < group[b] : a < b;
}

static void sift_down(int64_t *heap, size_t root, size_t count, const int32_t *group)
{
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && group_before(group, heap[child], heap[child + 1]))
            child++;
        if (!group_before(group, heap[root], heap[child]))
            return;
        const int64_t swap = heap[root];
        heap[root] = heap[child];
        heap[child] = swap;
    }
}

void gradreg_cpu_order_by_group(int64_t *order, const int32_t *group, size_t count)
{
    for (size_t i = 0; i < count; i++)
        order[i] = (int64_t)i;
    for (size_t i = count / 2; i-- > 0;)
        sift_down(order, i, count, group);
    for (size_t end = count; end-- > 1;) {
        const int64_t swap = order[0];
        order[0] = order[end];
        order[end] = swap;
        sift_down(order, 0, end, group);
    }
}

/* Tokens of every row's prompt; gives the number of prompts that have one. */
static double count_prompts(const gr_policy_task *task)
{
    const int32_t *group = task->batch.group;
    const size_t rows = task->batch.sequences;
    double prompts = 0.0;
    gradreg_cpu_order_by_group(task->order, group, rows);
    for (size_t first = 0, end; first < rows; first = end) {
        double tokens = 0.0;
        for (end = first; end < rows && group[task->order[end]] == group[task->order[first]];
             end++)
            tokens += task->rows[task->order[end]].sums[GR_POLICY_TOKENS];
        for (size_t k = first; k < end; k++)
            task->rows[task->order[k]].prompt_tokens = tokens;
        prompts += tokens > 0.0;
    }
    return prompts;
}

static double or_one(double x)
{
    return x > 0.0 ? x : 1.0;
}

static gr_policy_totals count_totals(const gr_policy_task *task)
{
    const gradreg_policy *p = &task->policy;
    gr_policy_totals totals = { 1.0, 1.0, 1.0, 0.0, 0.0 };
    double prompts = 0.0;
    for (size_t r = 0; r < task->batch.sequences; r++)
        totals.own_rows += task->rows[r].sums[GR_POLICY_TOKENS] > 0.0;
    totals.own_tokens = fold_rows(task, GR_POLICY_TOKENS);
    if (p->aggregation == GRADREG_AGGREGATE_PROMPT_MEAN)
        prompts = count_prompts(task);
    const double rows = p->count_empty_rows ? (double)task->batch.sequences : totals.own_rows;
    totals.tokens = or_one(p->token_total > 0.0 ? p->token_total : totals.own_tokens);
    totals.sequences = or_one(p->sequence_total > 0.0 ? p->sequence_total : rows);
    totals.prompts = or_one(p->prompt_total > 0.0 ? p->prompt_total : prompts);
    return totals;
}

/* The aggregation's weight of every token of a row. */
static double row_weight(const gr_policy_task *task, const gr_policy_totals *totals,
                         const gr_policy_row *row)
{
    const gradreg_policy *p = &task->policy;
    const double scale = p->loss_scale;
    switch (p->aggregation) {
    case GRADREG_AGGREGATE_TOKEN_MEAN: return scale / totals->tokens;
    case GRADREG_AGGREGATE_CONSTANT:
        return scale / (totals->sequences *
                        or_one(p->max_length > 0.0 ? p->max_length : task->longest));
    case GRADREG_AGGREGATE_SEQUENCE_SUM:
    case GRADREG_AGGREGATE_LENGTH_WEIGHTED: return scale / totals->sequences;
    case GRADREG_AGGREGATE_PROMPT_MEAN:
        return scale / (totals->prompts * or_one(row->prompt_tokens));
    default: return scale / (totals->sequences * or_one(row->sums[GR_POLICY_TOKENS]));
    }
}

/* ---- second walk ----------------------------------------------------------------- */

/* A row, as its tokens see it. */
typedef struct row_view {
    const gr_policy_task *task;
    size_t row, begin, length;
    double tokens, weight;
    gr_ratio shared; /* of the sequence */
    double drift;    /* mean of l_s - l */
    double rollout;  /* weight of the sequence */
} row_view;

/* One token, worked out. */
typedef struct outcome {
    gr_surrogate surrogate;
    gr_kl kl;
    double ratio, weight, rollout; /* W, and the part of it that the rollout correction is */
    int own_passes;                /* its own log-prob moves the ratio */
    int shared_passes;             /* it moves the sequence's */
    int flags;
} outcome;

static double token_rollout(const row_view *v, const token *t)
{
    const gradreg_policy *p = &v->task->policy;
    if (p->rollout_mode == GRADREG_ROLLOUT_OFF)
        return 1.0;
    return gr_rollout_by_sequence(p) ? v->rollout : gr_rollout_weight(p, t->old - t->rollout);
}

static outcome work_out(const row_view *v, const token *t)
{
    const gradreg_policy *p = &v->task->policy;
    const int shares = gr_shares_ratio(p);
    const int by_sequence = shares || p->ratio_level == GRADREG_RATIO_SEQUENCE_TOKEN;
    outcome o;
    memset(&o, 0, sizeof(o));
    const gr_ratio ratio = by_sequence ? v->shared : gr_ratio_of(p, t->logp - t->old);
    shared_log_ratio(p, t, &o.flags);
    o.shared_passes = shares && ratio.passes && o.flags == 0;
    o.own_passes = !shares && ratio.passes;
    o.ratio = ratio.ratio;
    o.surrogate = gr_surrogate_of(p, ratio.ratio, t->advantage, t->logp);
    o.kl = gr_kl_of(p, t->logp, t->ref);
    o.flags |= o.surrogate.flags | o.kl.flags | (ratio.passes ? 0 : GR_TOKEN_LIMITED);
    o.rollout = token_rollout(v, t);
    o.weight = t->weight * o.rollout;
    if (p->off_policy_threshold > 0.0 && t->advantage < 0.0 &&
        v->drift > p->off_policy_threshold)
        o.weight = 0.0;
    return o;
}

/* A weight of 0 leaves a token out, however large what it weighs. */
static double weighted(double weight, double x)
{
    return weight == 0.0 ? 0.0 : weight * x;
}

static double times_kl_ratio(const gradreg_policy *p, const outcome *o, double x)
{
    return p->kl_ratio_weighted ? weighted(o->ratio, x) : x;
}

/* d loss / d log s, over the row's tokens. */
static double shared_slope(const row_view *v)
{
    const gradreg_policy *p = &v->task->policy;
    double acc[GR_ACCUMULATORS] = { 0 };
    for (size_t t = 0; t < v->length; t++) {
        token tok;
        if (read_token(&tok, v->task, v->row, v->begin + t) != TOKEN_COUNTS)
            continue;
        const outcome o = work_out(v, &tok);
        double slope = weighted(o.weight, o.surrogate.by_log_ratio);
        if (p->kl_ratio_weighted)
            slope += weighted(p->kl_coefficient, times_kl_ratio(p, &o, o.kl.k));
        acc[t % GR_ACCUMULATORS] = acc[t % GR_ACCUMULATORS] + v->weight * slope;
    }
    return gr_tree_doubles(acc);
}

static double token_gradient(const row_view *v, const outcome *o, double slope)
{
    const gradreg_policy *p = &v->task->policy;
    double g = weighted(o->weight, o->surrogate.by_logp +
                                       (o->own_passes ? o->surrogate.by_log_ratio : 0.0));
    if (p->kl != GRADREG_KL_NONE) {
        double k = times_kl_ratio(p, o, o->kl.by_logp);
        if (p->kl_ratio_weighted && o->own_passes)
            k += times_kl_ratio(p, o, o->kl.k);
        g += weighted(p->kl_coefficient, k);
    }
    g *= v->weight;
    return o->shared_passes ? g + slope / v->tokens : g;
}

static void add_outcome(row_sums *s, size_t t, const row_view *v, const outcome *o,
                        const token *tok)
{
    const gradreg_policy *p = &v->task->policy;
    const double k = times_kl_ratio(p, o, o->kl.k);
    add(s, GR_POLICY_RHO, t, v->weight * weighted(o->weight, o->surrogate.rho));
    add(s, GR_POLICY_WEIGHTED_KL, t, v->weight * k);
    add(s, GR_POLICY_KL, t, k);
    add(s, GR_POLICY_ENTROPY, t, tok->entropy);
    add(s, GR_POLICY_RATIO, t, o->ratio);
    add(s, GR_POLICY_LOW, t, (o->flags & GR_TOKEN_LOW) != 0);
    add(s, GR_POLICY_HIGH, t, (o->flags & GR_TOKEN_HIGH) != 0);
    add(s, GR_POLICY_LIMITED, t, (o->flags & GR_TOKEN_LIMITED) != 0);
    add(s, GR_POLICY_WEIGHT, t, o->rollout);
    add(s, GR_POLICY_WEIGHT_SQUARES, t, o->rollout * o->rollout);
}

static void note_ratio(gr_policy_row *row, double ratio, int first)
{
    row->ratio_min = first || ratio < row->ratio_min ? ratio : row->ratio_min;
    row->ratio_max = first || ratio > row->ratio_max ? ratio : row->ratio_max;
}

static void write_row(const row_view *v, double entropy_gradient)
{
    const gr_policy_task *task = v->task;
    gr_policy_row *row = &task->rows[v->row];
    const double slope = gr_shares_ratio(&task->policy) ? shared_slope(v) : 0.0;
    int first = 1;
    row_sums s;
    memset(&s, 0, sizeof(s));
    for (size_t t = 0; t < v->length; t++) {
        const size_t i = v->begin + t;
        token tok;
        const int counts = read_token(&tok, task, v->row, i) == TOKEN_COUNTS;
        if (task->dentropy != NULL)
            task->dentropy[i] = counts ? (float)entropy_gradient : 0.0f;
        task->dlogp[i] = 0.0f;
        if (!counts)
            continue;
        const outcome o = work_out(v, &tok);
        add_outcome(&s, t, v, &o, &tok);
        note_ratio(row, o.ratio, first);
        first = 0;
        task->dlogp[i] = (float)token_gradient(v, &o, slope);
    }
    fold(row, &s, GR_POLICY_FIRST_SUMS, GR_POLICY_SUMS);
}

static row_view view_row(const gr_policy_task *task, const gr_policy_totals *totals, size_t r)
{
    const gr_policy_row *row = &task->rows[r];
    const gradreg_policy *p = &task->policy;
    const double n = or_one(row->sums[GR_POLICY_TOKENS]);
    row_view v = { task,
                   r,
                   row_begin(&task->batch, r),
                   row_length(&task->batch, r),
                   n,
                   row_weight(task, totals, row),
                   gr_ratio_of(p, row->sums[GR_POLICY_LOG_RATIO] / n),
                   row->sums[GR_POLICY_DRIFT] / n,
                   1.0 };
    if (gr_rollout_by_sequence(p))
        v.rollout = gr_rollout_weight(p, row->sums[GR_POLICY_ROLLOUT]);
    return v;
}

static double entropy_slope(const gradreg_policy *p, const gr_policy_totals *totals)
{
    return -p->entropy_coefficient * p->loss_scale / totals->tokens;
}

gr_token_slope gradreg_cpu_policy_token(const gr_policy_task *task,
                                        const gr_policy_totals *totals, size_t row, size_t i)
{
    gr_token_slope s = { 0.0f, 0.0f };
    token tok;
    assert(!gr_shares_ratio(&task->policy));
    if (read_token(&tok, task, row, i) != TOKEN_COUNTS)
        return s;
    const row_view v = view_row(task, totals, row);
    const outcome o = work_out(&v, &tok);
    s.dlogp = (float)token_gradient(&v, &o, 0.0);
    s.dentropy = (float)entropy_slope(&task->policy, totals);
    return s;
}

double gradreg_cpu_policy_weight(const gr_policy_task *task, const gr_policy_totals *totals,
                                 size_t row)
{
    return row_weight(task, totals, &task->rows[row]);
}

size_t gradreg_cpu_policy_row_end(const gradreg_policy_batch *batch, size_t row)
{
    return row_begin(batch, row) + row_length(batch, row);
}

/* ---- metrics --------------------------------------------------------------------- */

/* Mean over rows of a row's mean. */
static double row_mean(const gr_policy_task *task, int sum, double own_rows)
{
    double total = 0.0;
    for (size_t r = 0; r < task->batch.sequences; r++)
        if (task->rows[r].sums[GR_POLICY_TOKENS] > 0.0)
            total += task->rows[r].sums[sum] / task->rows[r].sums[GR_POLICY_TOKENS];
    return own_rows > 0.0 ? total / own_rows : 0.0;
}

static void find_ratio_range(const gr_policy_task *task, gradreg_policy_metrics *m)
{
    int first = 1;
    for (size_t r = 0; r < task->batch.sequences; r++) {
        const gr_policy_row *row = &task->rows[r];
        if (row->sums[GR_POLICY_TOKENS] == 0.0)
            continue;
        m->ratio_min = first || row->ratio_min < m->ratio_min ? row->ratio_min : m->ratio_min;
        m->ratio_max = first || row->ratio_max > m->ratio_max ? row->ratio_max : m->ratio_max;
        first = 0;
    }
}

static void write_metrics(const gr_policy_task *task, const gr_policy_totals *totals)
{
    const gradreg_policy *p = &task->policy;
    const double n = totals->own_tokens;
    gradreg_policy_metrics m = GRADREG_POLICY_METRICS_INIT;
    const int by_row = gr_shares_ratio(p) && p->surrogate != GRADREG_SURROGATE_GEOMETRIC_MEAN;
    const double weights = fold_rows(task, GR_POLICY_WEIGHT);
    const double squares = fold_rows(task, GR_POLICY_WEIGHT_SQUARES);
#define MEAN(sum) \
    (by_row ? row_mean(task, sum, totals->own_rows) : fold_rows(task, sum) / or_one(n))
    m.policy_loss = fold_rows(task, GR_POLICY_RHO);
    m.loss = m.policy_loss +
             weighted(p->kl_coefficient, fold_rows(task, GR_POLICY_WEIGHTED_KL)) -
             p->entropy_coefficient * p->loss_scale * fold_rows(task, GR_POLICY_ENTROPY) /
                 totals->tokens;
    m.kl = fold_rows(task, GR_POLICY_KL) / or_one(n);
    m.entropy = fold_rows(task, GR_POLICY_ENTROPY) / or_one(n);
    m.ratio_mean = n > 0.0 ? MEAN(GR_POLICY_RATIO) : 1.0;
    m.ratio_min = m.ratio_max = 1.0;
    find_ratio_range(task, &m);
    m.clip_low_fraction = MEAN(GR_POLICY_LOW);
    m.clip_high_fraction = MEAN(GR_POLICY_HIGH);
    m.limited_fraction = MEAN(GR_POLICY_LIMITED);
#undef MEAN
    m.effective_sample_size = squares > 0.0 ? weights * weights / (n * squares)
                              : n > 0.0     ? 0.0
                                            : 1.0;
    m.tokens = (uint64_t)n;
    m.sequences = task->batch.sequences;
    m.empty_sequences = m.sequences - (uint64_t)totals->own_rows;
    m.non_finite = (uint64_t)fold_rows(task, GR_POLICY_NON_FINITE);
    gradreg_i_struct_write(task->metrics, &m, sizeof(m));
}

/* ---- the op ---------------------------------------------------------------------- */

enum { ROWS_AT_ONCE = 16 };

typedef struct walk {
    const gr_policy_task *task;
    gr_policy_totals totals;
    int writes;
} walk;

static void walk_rows(void *argument, size_t index)
{
    const walk *w = argument;
    const gr_policy_task *task = w->task;
    const size_t first = index * ROWS_AT_ONCE;
    for (size_t r = first; r < first + ROWS_AT_ONCE && r < task->batch.sequences; r++) {
        if (!w->writes) {
            measure_row(task, r);
            continue;
        }
        const row_view v = view_row(task, &w->totals, r);
        write_row(&v, entropy_slope(&task->policy, &w->totals));
    }
}

static void run_walk(gradreg_context *context, walk *w)
{
    const size_t chunks = (w->task->batch.sequences + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    gradreg_i_parallel(context, chunks, walk_rows, w);
}

gr_policy_totals gradreg_cpu_policy_totals(gradreg_context *context, const gr_policy_task *task)
{
    walk w = { task, { 1.0, 1.0, 1.0, 0.0, 0.0 }, 0 };
    run_walk(context, &w);
    return count_totals(task);
}

gradreg_status gradreg_cpu_policy_loss(gradreg_context *context, const gr_policy_task *task)
{
    walk w = { task, gradreg_cpu_policy_totals(context, task), 1 };
    run_walk(context, &w);
    if (task->metrics != NULL)
        write_metrics(task, &w.totals);
    return GRADREG_OK;
}
