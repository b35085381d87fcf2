/* cpu_policy.c - policy losses on the CPU, one row at a time.
 *
 * In: a gr_policy_task. Out: gradients, metrics. Two walks over the rows: the first counts tokens and
 * takes the sequence's means, the second has the denominators and writes. A row's sums go to 32
 * accumulators, token t to t % 32, and fold as in reduce.h: one warp a row, with the same bits. */
#include <assert.h>
#include <string.h>

#include "../backend.h"
#include "../order.h"
#include "../params.h"
#include "../policy_row.h"
#include "../reduce.h"
#include "../threads.h"
#include "cpu_policy.h"

typedef struct row_sums {
    double acc[GR_POLICY_SUMS][GR_ACCUMULATORS];
} row_sums;

static void add(row_sums *s, int sum, size_t t, double x)
{
    double *a = &s->acc[sum][t % GR_ACCUMULATORS];
    *a = *a + x;
}

static void fold(gr_policy_row *row, const row_sums *s, int first, int end)
{
    for (int k = first; k < end; k++)
        row->sums[k] = gr_tree_doubles(s->acc[k]);
}

/* ---- first walk ------------------------------------------------------------------ */

static void measure_row(const gr_policy_task *task, size_t r)
{
    const gradreg_policy_batch *b = &task->batch;
    const size_t begin = gr_row_begin(b, r), n = gr_row_length(b, r);
    row_sums s;
    memset(&s, 0, sizeof(s));
    for (size_t t = 0; t < n; t++) {
        gr_token tok;
        double sums[GR_POLICY_FIRST_SUMS];
        const enum gr_token_kind kind = gr_read_token(&tok, task, r, begin + t);
        if (kind == GR_IS_NON_FINITE)
            add(&s, GR_POLICY_NON_FINITE, t, 1.0);
        if (kind != GR_IS_COUNTED)
            continue;
        gr_first_sums(sums, &task->policy, &tok);
        for (int k = 0; k < GR_POLICY_FIRST_SUMS; k++)
            add(&s, k, t, sums[k]);
    }
    fold(&task->rows[r], &s, 0, GR_POLICY_FIRST_SUMS);
}

/* ---- denominators ---------------------------------------------------------------- */

static double fold_rows(const gr_policy_task *task, int sum)
{
    const size_t stride = sizeof(gr_policy_row) / sizeof(double);
    return gr_tree_blocks_strided(&task->rows[0].sums[sum], task->batch.sequences, stride);
}

static int group_before(const void *keys, uint64_t a, uint64_t b)
{
    const int32_t *group = keys;
    return group[a] != group[b] ? group[a] < group[b] : a < b;
}

void gradreg_cpu_order_by_group(int64_t *order, const int32_t *group, size_t count)
{
    gradreg_i_order((uint64_t *)order, count, group_before, group);
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

static gr_policy_totals count_totals(const gr_policy_task *task)
{
    double rows = 0.0, prompts = 0.0;
    for (size_t r = 0; r < task->batch.sequences; r++)
        rows += task->rows[r].sums[GR_POLICY_TOKENS] > 0.0;
    if (task->policy.aggregation == GRADREG_AGGREGATE_PROMPT_MEAN)
        prompts = count_prompts(task);
    return gr_totals_of(task, fold_rows(task, GR_POLICY_TOKENS), rows, prompts);
}

/* ---- second walk ----------------------------------------------------------------- */

/* d loss / d log s, over the row's tokens. */
static double shared_slope(const gr_row_view *v)
{
    double acc[GR_ACCUMULATORS] = { 0 };
    for (size_t t = 0; t < v->length; t++) {
        gr_token tok;
        if (gr_read_token(&tok, v->task, v->row, v->begin + t) != GR_IS_COUNTED)
            continue;
        const gr_outcome o = gr_work_out(v, &tok);
        acc[t % GR_ACCUMULATORS] = acc[t % GR_ACCUMULATORS] + gr_slope_of_token(v, &o);
    }
    return gr_tree_doubles(acc);
}

static void note_ratio(gr_policy_row *row, double ratio, int first)
{
    row->ratio_min = first || ratio < row->ratio_min ? ratio : row->ratio_min;
    row->ratio_max = first || ratio > row->ratio_max ? ratio : row->ratio_max;
}

static void write_row(const gr_row_view *v, double entropy_gradient)
{
    const gr_policy_task *task = v->task;
    gr_policy_row *row = &task->rows[v->row];
    const double slope = gr_shares_ratio(&task->policy) ? shared_slope(v) : 0.0;
    int first = 1;
    row_sums s;
    memset(&s, 0, sizeof(s));
    for (size_t t = 0; t < v->length; t++) {
        const size_t i = v->begin + t;
        double sums[GR_POLICY_SUMS];
        gr_token tok;
        const int counts = gr_read_token(&tok, task, v->row, i) == GR_IS_COUNTED;
        if (task->dentropy != NULL)
            task->dentropy[i] = counts ? (float)entropy_gradient : 0.0f;
        task->dlogp[i] = 0.0f;
        if (!counts)
            continue;
        const gr_outcome o = gr_work_out(v, &tok);
        gr_outcome_sums(sums, v, &o, &tok);
        for (int k = GR_POLICY_FIRST_SUMS; k < GR_POLICY_SUMS; k++)
            add(&s, k, t, sums[k]);
        note_ratio(row, o.ratio, first);
        first = 0;
        task->dlogp[i] = (float)gr_token_gradient(v, &o, slope);
    }
    fold(row, &s, GR_POLICY_FIRST_SUMS, GR_POLICY_SUMS);
}

gr_token_slope gradreg_cpu_policy_token(const gr_policy_task *task,
                                        const gr_policy_totals *totals, size_t row, size_t i)
{
    assert(!gr_shares_ratio(&task->policy));
    return gr_slopes_of_token(task, totals, row, i);
}

double gradreg_cpu_policy_weight(const gr_policy_task *task, const gr_policy_totals *totals,
                                 size_t row)
{
    return gr_row_weight(task, totals, &task->rows[row]);
}

size_t gradreg_cpu_policy_row_end(const gradreg_policy_batch *batch, size_t row)
{
    return gr_row_begin(batch, row) + gr_row_length(batch, row);
}

/* ---- metrics --------------------------------------------------------------------- */

static void write_metrics(const gr_policy_task *task, const gr_policy_totals *totals)
{
    gradreg_policy_metrics m = GRADREG_POLICY_METRICS_INIT;
    double sums[GR_POLICY_SUMS], row_means[GR_POLICY_SUMS], low, high;
    for (int k = 0; k < GR_POLICY_SUMS; k++) {
        sums[k] = fold_rows(task, k);
        row_means[k] = gr_metrics_by_row(&task->policy) ? gr_add_row_means(task, k) : 0.0;
    }
    gr_find_ratio_range(task, &low, &high);
    gr_fill_metrics(&m, task, totals, sums, row_means, low, high);
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
        const gr_row_view v = gr_view_row(task, &w->totals, r);
        write_row(&v, gr_entropy_gradient(task, &w->totals));
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
