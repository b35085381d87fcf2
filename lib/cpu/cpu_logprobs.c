/* cpu_logprobs.c - log-probs of rows of logits, and their gradient, row by row.
 *
 * In: a checked task. Out: logp, entropy, log_sum_exp; or dlogits. A row belongs to one thread from end
 * to end, so nothing depends on how many there are. */
#include "cpu_logprobs.h"

#include <string.h>

#include "../threads.h"
#include "../types.h"
#include "cpu_features.h"

/* ---- kernels --------------------------------------------------------------------- */

static const gr_cpu_logits_kernels *const tables[GR_PATH_COUNT] = {
    [GR_PATH_SCALAR] = &gradreg_cpu_logits_kernels_scalar,
#if defined(__x86_64__)
    [GR_PATH_V2] = &gradreg_cpu_logits_kernels_v2,
    [GR_PATH_V3] = &gradreg_cpu_logits_kernels_v3,
    [GR_PATH_V4] = &gradreg_cpu_logits_kernels_v4,
#endif
};

static const gr_cpu_logits_kernels *kernels_of(const gradreg_context *context)
{
    return tables[context->path];
}

/* ---- rows ------------------------------------------------------------------------ */

static float read_logit(gradreg_type type, const char *row, size_t i)
{
    uint16_t half;
    if (type == GRADREG_TYPE_F32) {
        float x;
        memcpy(&x, row + i * sizeof(x), sizeof(x));
        return x;
    }
    memcpy(&half, row + i * sizeof(half), sizeof(half));
    return gr_half_to_f32(type, half);
}

static void write_logit(gradreg_type type, char *row, size_t i, float x)
{
    if (type == GRADREG_TYPE_F32) {
        memcpy(row + i * sizeof(x), &x, sizeof(x));
        return;
    }
    const uint16_t half = gr_f32_to_half(type, x);
    memcpy(row + i * sizeof(half), &half, sizeof(half));
}

gr_cpu_logits gradreg_cpu_logits_open(const gradreg_context *context,
                                      const gr_logits_view *view)
{
    const gr_cpu_logits logits = { *view, gr_type_bytes(view->type), (float)view->inverse,
                                   kernels_of(context) };
    return logits;
}

size_t gradreg_cpu_logits_offset(const gr_cpu_logits *logits, size_t r)
{
    return r * logits->view.row_stride * logits->size;
}

gr_logits_row gradreg_cpu_logits_measure(const gr_cpu_logits *logits, const char *row,
                                         int32_t target, int turns)
{
    const gr_logits_view *v = &logits->view;
    static const gr_logits_row padding = { 0.0f, 0.0f, 0.0f };
    if (target == GR_PADDING)
        return padding;
    const gr_logits_part whole =
        logits->kernels->measure[v->type](row, v->vocabulary, logits->inverse, turns);
    return gr_logits_finish(whole, read_logit(v->type, row, (size_t)target) * logits->inverse);
}

static void fill_row(const gr_cpu_logits *logits, char *out, float x)
{
    for (size_t i = 0; i < logits->view.vocabulary; i++)
        write_logit(logits->view.type, out, i, x);
}

void gradreg_cpu_logits_slope(const gr_cpu_logits *logits, char *out, const char *row,
                              int32_t target, const gr_logits_row *values, float dlogp,
                              float dentropy, const char *next)
{
    const gr_logits_view *v = &logits->view;
    if (target == GR_PADDING || (dlogp == 0.0f && dentropy == 0.0f)) {
        memset(out, 0, v->vocabulary * logits->size);
        return;
    }
    const float at = read_logit(v->type, row, (size_t)target) * logits->inverse;
    const gr_logits_slope slope =
        gr_logits_slope_of(at, values->log_sum_exp, (double)values->entropy, (double)dlogp,
                           (double)dentropy, v->inverse);
    if (slope.kind == GR_SLOPE_NAN) {
        fill_row(logits, out, (float)NAN);
        return;
    }
    logits->kernels->slope[v->type](out, row, v->vocabulary, logits->inverse, &slope,
                                    next != NULL ? next : row);
    write_logit(v->type, out, (size_t)target, slope.target);
}

void gradreg_cpu_logits_scale(const gr_cpu_logits *logits, char *row, double factor)
{
    const gradreg_type type = logits->view.type;
    for (size_t i = 0; i < logits->view.vocabulary; i++)
        write_logit(type, row, i, (float)((double)read_logit(type, row, i) * factor));
}

/* ---- a walk over rows ------------------------------------------------------------ */

/* Enough rows that the next one is mostly this thread's too, and few enough to go round. */
size_t gradreg_cpu_rows_at_once(const gr_logits_view *view, size_t threads)
{
    size_t rows = ((size_t)1 << 20) / view->vocabulary + 1;
    const size_t share = view->rows / (4 * threads) + 1;
    return rows < share ? rows : share;
}

typedef struct walk {
    gr_cpu_logits logits;
    const gr_logprobs_task *forward;
    const gr_logprobs_slope_task *backward;
    size_t at_once;
} walk;

static void forward_row(const walk *w, size_t r)
{
    const gr_logprobs_task *t = w->forward;
    const char *row = (const char *)t->logits + gradreg_cpu_logits_offset(&w->logits, r);
    const gr_logits_row values =
        gradreg_cpu_logits_measure(&w->logits, row, t->targets[r], t->entropy != NULL);
    t->logp[r] = values.logp;
    if (t->entropy != NULL)
        t->entropy[r] = values.entropy;
    if (t->log_sum_exp != NULL)
        t->log_sum_exp[r] = values.log_sum_exp;
}

static void backward_row(const walk *w, size_t r)
{
    const gr_logprobs_slope_task *t = w->backward;
    const size_t at = gradreg_cpu_logits_offset(&w->logits, r);
    const gr_logits_row values = { 0.0f, t->entropy != NULL ? t->entropy[r] : 0.0f,
                                   t->log_sum_exp[r] };
    gradreg_cpu_logits_slope(&w->logits, (char *)t->dlogits + at, (const char *)t->logits + at,
                             t->targets[r], &values, t->dlogp[r],
                             t->dentropy != NULL ? t->dentropy[r] : 0.0f, NULL);
}

static void walk_rows(void *argument, size_t index)
{
    const walk *w = argument;
    const size_t first = index * w->at_once;
    for (size_t r = first; r < first + w->at_once && r < w->logits.view.rows; r++)
        if (w->forward != NULL)
            forward_row(w, r);
        else
            backward_row(w, r);
}

static gradreg_status run(gradreg_context *context, walk *w)
{
    const gr_logits_view *v = &w->logits.view;
    if (v->rows == 0)
        return GRADREG_OK;
    w->at_once = gradreg_cpu_rows_at_once(v, (size_t)context->params.threads);
    gradreg_i_parallel(context, (v->rows + w->at_once - 1) / w->at_once, walk_rows, w);
    return GRADREG_OK;
}

gradreg_status gradreg_cpu_logprobs_forward(gradreg_context *context,
                                            const gr_logprobs_task *task)
{
    walk w = { gradreg_cpu_logits_open(context, &task->view), task, NULL, 0 };
    return run(context, &w);
}

gradreg_status gradreg_cpu_logprobs_backward(gradreg_context *context,
                                             const gr_logprobs_slope_task *task)
{
    walk w = { gradreg_cpu_logits_open(context, &task->view), NULL, task, 0 };
    return run(context, &w);
}
