/* cpu_linear.c - log-probs from hidden states and a head weight, through CBLAS, a chunk of rows at a
 * time.
 *
 * In: a checked task. Out: log-probs, or gradients of hidden states and weight. The rows of a chunk that
 * take part are gathered without gaps, so padding costs nothing and never meets the arithmetic:
 *
 *      hidden rows ─► H [m x width] ─► logits = H Wt ─► rows as in cpu_logprobs.c
 *                                      slopes G      ─► dhidden = G W,  dweight += Gt H
 *
 * A weight that is not f32 is converted a panel of rows at a time. */
#include <cblas.h>
#include <string.h>

#include "../threads.h"
#include "cpu_logprobs.h"
#include "cpu_pass.h"

typedef struct chunk {
    const gr_linear_task *task;
    const gr_cpu_kernels *kernels;
    gr_cpu_logits logits;
    size_t count; /* rows that take part: task->chunk_rows */
    size_t panel; /* first row of the weight that is being converted */
} chunk;

static chunk open_chunk(const gradreg_context *context, const gr_linear_task *t)
{
    const gr_logits_view view = { GRADREG_TYPE_F32, t->chunk, t->vocabulary, t->vocabulary,
                                  t->inverse };
    const chunk c = { t, gradreg_cpu_kernels_of(context),
                      gradreg_cpu_logits_open(context, &view), 0, 0 };
    return c;
}

/* ---- matrices -------------------------------------------------------------------- */

static void widen_hidden(void *argument, size_t k)
{
    const chunk *c = argument;
    const gr_linear_task *t = c->task;
    const char *row =
        (const char *)t->hidden + t->chunk_rows[k] * t->hidden_stride * gr_type_bytes(t->type);
    c->kernels->widen[t->type](t->chunk_hidden + k * t->width, row, t->width);
}

static void widen_weight(void *argument, size_t k)
{
    const chunk *c = argument;
    const gr_linear_task *t = c->task;
    const char *row =
        (const char *)t->weight + (c->panel + k) * t->weight_stride * gr_type_bytes(t->type);
    c->kernels->widen[t->type](t->panel_weight + k * t->width, row, t->width);
}

/* The next rows of the weight as f32, from c->panel on; gives how many. */
static size_t next_panel(gradreg_context *context, chunk *c, const float **weight, int *stride)
{
    const gr_linear_task *t = c->task;
    const size_t left = t->vocabulary - c->panel;
    if (t->type == GRADREG_TYPE_F32) {
        *weight = (const float *)t->weight + c->panel * t->weight_stride;
        *stride = (int)t->weight_stride;
        return left;
    }
    const size_t rows = t->panel < left ? t->panel : left;
    gradreg_i_parallel(context, rows, widen_weight, c);
    *weight = t->panel_weight;
    *stride = (int)t->width;
    return rows;
}

static void multiply_logits(gradreg_context *context, chunk *c)
{
    const gr_linear_task *t = c->task;
    size_t rows;
    for (c->panel = 0; c->panel < t->vocabulary; c->panel += rows) {
        const float *weight;
        int stride;
        rows = next_panel(context, c, &weight, &stride);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)c->count, (int)rows,
                    (int)t->width, 1.0f, t->chunk_hidden, (int)t->width, weight, stride, 0.0f,
                    t->chunk_logits + c->panel, (int)t->vocabulary);
    }
}

static void multiply_dhidden(gradreg_context *context, chunk *c)
{
    const gr_linear_task *t = c->task;
    size_t rows;
    for (c->panel = 0; c->panel < t->vocabulary; c->panel += rows) {
        const float *weight;
        int stride;
        rows = next_panel(context, c, &weight, &stride);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)c->count, (int)t->width,
                    (int)rows, 1.0f, t->chunk_logits + c->panel, (int)t->vocabulary, weight,
                    stride, c->panel == 0 ? 0.0f : 1.0f, t->chunk_dhidden, (int)t->width);
    }
}

static void multiply_dweight(const chunk *c, int adds)
{
    const gr_linear_task *t = c->task;
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)t->vocabulary, (int)t->width,
                (int)c->count, 1.0f, t->chunk_logits, (int)t->vocabulary, t->chunk_hidden,
                (int)t->width, adds ? 1.0f : 0.0f, t->dweight, (int)t->width);
}

/* ---- forward --------------------------------------------------------------------- */

static void write_forward(const gr_linear_task *t, size_t r, const gr_logits_row *row)
{
    t->logp[r] = row->logp;
    if (t->entropy != NULL)
        t->entropy[r] = row->entropy;
    if (t->log_sum_exp != NULL)
        t->log_sum_exp[r] = row->log_sum_exp;
}

static void forward_row(void *argument, size_t k)
{
    const chunk *c = argument;
    const gr_linear_task *t = c->task;
    const size_t r = t->chunk_rows[k];
    const gr_logits_row row = gradreg_cpu_logits_measure(
        &c->logits, (const char *)(t->chunk_logits + k * t->vocabulary), t->targets[r],
        t->entropy != NULL);
    write_forward(t, r, &row);
}

gradreg_status gradreg_cpu_linear_forward(gradreg_context *context, const gr_linear_task *t)
{
    static const gr_logits_row padding = { 0.0f, 0.0f, 0.0f };
    chunk c = open_chunk(context, t);
    for (size_t first = 0; first < t->rows; first += t->chunk) {
        c.count = 0;
        for (size_t r = first; r < first + t->chunk && r < t->rows; r++)
            if (t->targets[r] == GR_PADDING)
                write_forward(t, r, &padding);
            else
                t->chunk_rows[c.count++] = r;
        if (c.count == 0)
            continue;
        gradreg_i_parallel(context, c.count, widen_hidden, &c);
        multiply_logits(context, &c);
        gradreg_i_parallel(context, c.count, forward_row, &c);
    }
    return GRADREG_OK;
}

/* ---- backward -------------------------------------------------------------------- */

static float dentropy_of(const gr_linear_task *t, size_t r)
{
    return t->dentropy != NULL ? t->dentropy[r] : 0.0f;
}

static void slope_row(void *argument, size_t k)
{
    const chunk *c = argument;
    const gr_linear_task *t = c->task;
    const size_t r = t->chunk_rows[k];
    char *row = (char *)(t->chunk_logits + k * t->vocabulary);
    const gr_logits_row values = { 0.0f, t->given_entropy != NULL ? t->given_entropy[r] : 0.0f,
                                   t->given_log_sum_exp[r] };
    gradreg_cpu_logits_slope(&c->logits, row, row, t->targets[r], &values, t->dlogp[r],
                             dentropy_of(t, r), NULL);
}

static char *dhidden_at(const gr_linear_task *t, size_t r)
{
    return (char *)t->dhidden + r * t->hidden_stride * gr_type_bytes(t->gradient_type);
}

static void write_dhidden(void *argument, size_t k)
{
    const chunk *c = argument;
    const gr_linear_task *t = c->task;
    c->kernels->narrow[t->gradient_type](dhidden_at(t, t->chunk_rows[k]),
                                         t->chunk_dhidden + k * t->width, t->width);
}

/* Rows that something asks of; zeros for the others. */
static size_t rows_with_a_slope(const gr_linear_task *t, size_t first)
{
    size_t count = 0;
    for (size_t r = first; r < first + t->chunk && r < t->rows; r++)
        if (t->targets[r] != GR_PADDING && (t->dlogp[r] != 0.0f || dentropy_of(t, r) != 0.0f))
            t->chunk_rows[count++] = r;
        else if (t->dhidden != NULL)
            memset(dhidden_at(t, r), 0, t->width * gr_type_bytes(t->gradient_type));
    return count;
}

gradreg_status gradreg_cpu_linear_backward(gradreg_context *context, const gr_linear_task *t)
{
    chunk c = open_chunk(context, t);
    int adds = t->add_weight_gradient;
    for (size_t first = 0; first < t->rows; first += t->chunk) {
        c.count = rows_with_a_slope(t, first);
        if (c.count == 0)
            continue;
        gradreg_i_parallel(context, c.count, widen_hidden, &c);
        multiply_logits(context, &c);
        gradreg_i_parallel(context, c.count, slope_row, &c);
        if (t->dhidden != NULL) {
            multiply_dhidden(context, &c);
            gradreg_i_parallel(context, c.count, write_dhidden, &c);
        }
        if (t->dweight != NULL) {
            multiply_dweight(&c, adds);
            adds = 1;
        }
    }
    if (t->dweight != NULL && !adds)
        memset(t->dweight, 0, t->vocabulary * t->width * sizeof(float));
    return GRADREG_OK;
}
