/* cpu_policy_logits.c - a policy loss straight from logits, in one visit of each row.
 *
 * In: a checked task. Out: dlogits, per-token log-probs and entropies, metrics.
 *
 *      count ──► per row: sums ─► logp, H ─► dlogp, dH ─► gradient ──► the loss over the arrays, metrics
 *                                                                 └──► rows whose weight has changed
 *
 * Denominators are counted before any row is read, from mask and inputs. A row that turns out to have no
 * distribution leaves them; what other rows were given is made right at the end. */
#include "cpu_logprobs.h"
#include "cpu_policy.h"

#include <string.h>

#include "../policy_math.h"
#include "../threads.h"

enum visit { VISIT_MEASURE, VISIT_SLOPE, VISIT_BOTH, VISIT_MEND };

typedef struct walk {
    const gr_policy_logits_task *task;
    gr_cpu_logits logits;
    gr_policy_totals totals; /* VISIT_MEND: the final ones */
    double tokens_before;
    enum visit visit;
    size_t at_once;
} walk;

static int is_masked(const walk *w, size_t i)
{
    const uint8_t *mask = w->task->policy.batch.mask;
    return mask != NULL && mask[i] == 0;
}

static const char *row_at(const walk *w, size_t i)
{
    return (const char *)w->task->logits + gradreg_cpu_logits_offset(&w->logits, i);
}

static void measure(const walk *w, size_t i)
{
    const gr_policy_logits_task *t = w->task;
    const gr_logits_row row =
        gradreg_cpu_logits_measure(&w->logits, row_at(w, i), t->targets[i], 1);
    t->logp[i] = row.logp;
    t->entropy[i] = row.entropy;
    t->log_sum_exp[i] = row.log_sum_exp;
}

static void slope(const walk *w, size_t row, size_t i, const char *next)
{
    const gr_policy_logits_task *t = w->task;
    const gr_logits_row values = { t->logp[i], t->entropy[i], t->log_sum_exp[i] };
    const gr_token_slope s = gradreg_cpu_policy_token(&t->policy, &w->totals, row, i);
    gradreg_cpu_logits_slope(&w->logits,
                             (char *)t->dlogits + gradreg_cpu_logits_offset(&w->logits, i),
                             row_at(w, i), t->targets[i], &values, s.dlogp, s.dentropy, next);
}

static void clear(const walk *w, size_t i)
{
    memset((char *)w->task->dlogits + gradreg_cpu_logits_offset(&w->logits, i), 0,
           w->logits.view.vocabulary * w->logits.size);
}

/* A row that was written for another weight: from its logits again, or, where its gradient has taken
 * their place, by a factor. */
static void mend(const walk *w, size_t row, size_t i)
{
    const gr_policy_logits_task *t = w->task;
    const double weight = gradreg_cpu_policy_weight(&t->policy, &w->totals, row);
    const int rolls = gr_rollout_by_sequence(&t->policy.policy); /* its weight has moved, too */
    if (!rolls && weight == t->weights[row] && w->totals.tokens == w->tokens_before)
        return;
    if (t->dlogits != t->logits)
        slope(w, row, i, NULL);
    else
        gradreg_cpu_logits_scale(&w->logits,
                                 (char *)t->dlogits + gradreg_cpu_logits_offset(&w->logits, i),
                                 weight / t->weights[row]);
}

static void visit(const walk *w, size_t row, size_t i, const char *next)
{
    if (is_masked(w, i)) {
        if (w->visit == VISIT_SLOPE || w->visit == VISIT_BOTH)
            clear(w, i);
        return;
    }
    if (w->visit == VISIT_MEASURE || w->visit == VISIT_BOTH)
        measure(w, i);
    if (w->visit == VISIT_SLOPE || w->visit == VISIT_BOTH)
        slope(w, row, i, next);
    if (w->visit == VISIT_MEND)
        mend(w, row, i);
}

static void walk_rows(void *argument, size_t index)
{
    const walk *w = argument;
    const gradreg_policy_batch *b = &w->task->policy.batch;
    const size_t first = index * w->at_once;
    const size_t rows = w->logits.view.rows;
    const size_t end = first + w->at_once < rows ? first + w->at_once : rows;
    size_t row = gr_row_of_token(b, first);
    for (size_t i = first; i < end; i++) {
        while (i >= gradreg_cpu_policy_row_end(b, row))
            row++;
        visit(w, row, i, i + 1 < end && !is_masked(w, i + 1) ? row_at(w, i + 1) : NULL);
    }
}

static void run_walk(gradreg_context *context, walk *w, enum visit visit)
{
    w->visit = visit;
    gradreg_i_parallel(context, (w->logits.view.rows + w->at_once - 1) / w->at_once, walk_rows,
                       w);
}

/* Numbers of rows that are not read, and finite ones of the others for the count. */
static void clear_numbers(const gr_policy_logits_task *t)
{
    const size_t bytes = t->view.rows * sizeof(float);
    memset(t->logp, 0, bytes);
    memset(t->entropy, 0, bytes);
    memset(t->log_sum_exp, 0, bytes);
}

static int any_is_lost(const gr_policy_logits_task *t)
{
    for (size_t i = 0; i < t->view.rows; i++)
        if (gr_is_non_finite(t->logp[i]) || gr_is_non_finite(t->entropy[i]))
            return 1;
    return 0;
}

static void keep_weights(const gr_policy_logits_task *t, const gr_policy_totals *totals)
{
    for (size_t r = 0; r < t->policy.batch.sequences; r++)
        t->weights[r] = gradreg_cpu_policy_weight(&t->policy, totals, r);
}

gradreg_status gradreg_cpu_policy_logits(gradreg_context *context,
                                         const gr_policy_logits_task *task)
{
    walk w;
    if (task->view.rows == 0)
        return gradreg_cpu_policy_loss(context, &task->policy);
    memset(&w, 0, sizeof(w));
    w.task = task;
    w.logits = gradreg_cpu_logits_open(context, &task->view);
    w.at_once = gradreg_cpu_rows_at_once(&task->view, (size_t)context->params.threads);
    clear_numbers(task);
    if (task->twice) {
        run_walk(context, &w, VISIT_MEASURE);
        w.totals = gradreg_cpu_policy_totals(context, &task->policy);
        run_walk(context, &w, VISIT_SLOPE);
        return gradreg_cpu_policy_loss(context, &task->policy);
    }
    w.totals = gradreg_cpu_policy_totals(context, &task->policy);
    w.tokens_before = w.totals.tokens;
    keep_weights(task, &w.totals);
    run_walk(context, &w, VISIT_BOTH);
    const int lost = any_is_lost(task);
    if (lost) {
        w.totals = gradreg_cpu_policy_totals(context, &task->policy);
        run_walk(context, &w, VISIT_MEND);
    }
    return gradreg_cpu_policy_loss(context, &task->policy);
}
