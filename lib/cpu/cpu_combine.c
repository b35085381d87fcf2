/* cpu_combine.c - the passes that end a step: the regularized gradient, and theta restored.
 *
 * In: g1, g2 (or g+ and g-, or the kept correction), coefficients, clean copies. Out: g_hat in
 * grads, the next noise direction, theta to the last bit, and the sums behind the terms. */
#include "cpu_pass.h"

#include <string.h>

enum { GR_COMBINE_ROWS = GR_COMBINE_SUMS + 1 }; /* sums, saturated */

static const float zeros[GR_BLOCK];

static const void *or_zeros(const void *gradient)
{
    return gradient != NULL ? gradient : zeros;
}

static int restores(const gr_cpu_block *b, uint32_t flags)
{
    return (b->segment->flags & flags) != 0 && (b->segment->flags & GR_SEGMENT_FROZEN) == 0;
}

/* g~ = c1 g1 in f32, before g1 is overwritten. */
static void keep_noise_direction(const gr_cpu_block *b, const void *first)
{
    const gr_control *c = b->work->step.control;
    if ((b->segment->flags & GR_SEGMENT_NOISY) == 0 || !c->noise_update)
        return;
    float *noise = (float *)(void *)gr_cpu_at(b->span->noise, b->at, GRADREG_TYPE_F32);
    const float factor = (float)(c->first_factor / c->grad_scale);
    b->kernels->widen[b->segment->grad_type](noise, first, b->n);
    for (size_t i = 0; i < b->n; i++)
        noise[i] = GR_SCALED(factor, noise[i]);
}

/* What the policies for gradients that are not finite write instead of arithmetic. */
static int writes_plainly(const gr_cpu_block *b, void *out, const void *first)
{
    const size_t bytes = b->n * gr_type_bytes(b->segment->grad_type);
    const int no_product = b->coefficients->write == GR_WRITE_PRODUCT && b->span->absent != 0;
    if (b->coefficients->write == GR_WRITE_ZERO || no_product)
        memset(out, 0, bytes);
    else if (b->coefficients->write == GR_WRITE_RAW && out != first)
        memcpy(out, first, bytes);
    return b->coefficients->write == GR_WRITE_ZERO || b->coefficients->write == GR_WRITE_RAW ||
           no_product;
}

static void fill_block(const gr_cpu_block *b, gr_combine_block *c, int read, float *direction)
{
    const gr_coefficients *k = b->coefficients;
    const int32_t type = b->segment->grad_type;
    c->first = or_zeros(gr_cpu_at(b->span->first, b->at, type));
    c->second = c->out = gr_cpu_at(b->span->grads, b->at, type);
    c->plus = or_zeros(
        (b->span->absent & GR_ABSENT_PLUS) != 0 ? NULL : gr_cpu_at(b->span->plus, b->at, type));
    c->kept = (const float *)(const void *)gr_cpu_at(b->span->kept, b->at, GRADREG_TYPE_F32);
    if (!gr_along_gradient(&b->work->step) && read != GR_READ_FIRST && read != GR_READ_KEPT)
        c->direction = (b->segment->flags & GR_SEGMENT_PERTURBED) != 0
                           ? gradreg_cpu_direction(b, direction)
                           : zeros;
    c->write = k->write;
    c->first_factor = k->first;
    c->second_factor = k->second;
    c->plus_factor = k->plus;
    c->correction = k->correction;
    c->scale = k->scale;
    c->scale_u = k->scale_direction;
    c->param_type = b->segment->param_type;
    c->streaming = b->work->streaming;
    const int differs = read == GR_READ_FORWARD || read == GR_READ_CENTRAL;
    if (differs && k->write == GR_WRITE_CORRECTED && k->keep != 0.0f) {
        c->keep = (float *)(void *)gr_cpu_at(b->span->kept, b->at, GRADREG_TYPE_F32);
        c->keep_factor = k->keep;
    }
}

/* A segment without a gradient in some pass has no difference: it keeps a. */
static int block_read(const gr_cpu_block *b, int read)
{
    if (b->span->absent != 0)
        return GR_READ_FIRST;
    if ((b->segment->flags & GR_SEGMENT_SEEN) == 0 && read != GR_READ_KEPT)
        return GR_READ_FIRST;
    if (read == GR_READ_KEPT && (b->segment->flags & GR_SEGMENT_KEEPS) == 0)
        return GR_READ_FIRST;
    return read;
}

/* The kernel puts theta back on its way, while memory is busy anyway. */
static void fill_restore(const gr_cpu_block *b, gr_combine_block *c)
{
    c->clean = gr_cpu_at(b->span->clean, b->at, b->segment->param_type);
    c->restored = gr_cpu_at(b->span->params, b->at, b->segment->param_type);
}

/* Gives whether theta is back already. */
static int combine_gradient(gr_cpu_block *b, int read, int restore)
{
    const int32_t type = b->segment->grad_type;
    _Alignas(64) float lanes[GR_COMBINE_SUMS * GR_LANES] = { 0 };
    float direction[GR_BLOCK];
    uint64_t saturated = 0;
    gr_combine_block c = { 0 };

    read = block_read(b, read);
    fill_block(b, &c, read, direction);
    if (c.out == NULL)
        return 0;
    keep_noise_direction(b, c.first);
    if (writes_plainly(b, c.out, c.first))
        return 0;
    if (restore)
        fill_restore(b, &c);
    b->kernels->combine[type][read](&c, b->n, lanes, &saturated);
    for (int k = 0; k < GR_COMBINE_SUMS; k++)
        b->sums[k] = b->kernels->fold(lanes + k * GR_LANES);
    b->sums[GR_COMBINE_SUMS] = (double)saturated;
    return c.clean != NULL;
}

/* The read mode and the flags to restore share the pass's argument. */
static void combine_body(gr_cpu_block *b)
{
    const int read = b->argument & 0xff;
    if ((b->segment->flags & GR_SEGMENT_FROZEN) != 0)
        return;
    const int restore = restores(b, (uint32_t)b->argument >> 8);
    if (!combine_gradient(b, read, restore) && restore)
        gradreg_cpu_put_back(b);
}

static double combine_unit(const gr_coefficients *k, int row)
{
    return row < GR_COMBINE_SUMS ? gr_combine_unit(k, row) : 1.0;
}

/* Segments without a gradient, once per pass of the step that missed it. */
static void count_absent(gr_work *work)
{
    const gr_table *table = work->table;
    double *row = work->step.sums + (size_t)GR_SUM_ABSENT * (size_t)work->step.bin_count;
    memset(row, 0, (size_t)work->step.bin_count * sizeof(double));
    for (size_t i = 0; i < table->segment_count; i++)
        if ((table->segments[i].flags & GR_SEGMENT_REPLICA) == 0)
            for (uint32_t bits = work->spans[i].absent; bits != 0; bits &= bits - 1)
                row[table->segments[i].bin] += 1.0;
}

gradreg_status gradreg_cpu_combine(gr_work *work, int read, uint32_t restored)
{
    count_absent(work);
    gradreg_cpu_pass(work, combine_body, read | (int)(restored << 8), GR_COMBINE_ROWS,
                     GR_SUM_COMBINE, combine_unit);
    return GRADREG_OK;
}

static void restore_body(gr_cpu_block *b)
{
    if (restores(b, (uint32_t)b->argument))
        gradreg_cpu_put_back(b);
}

gradreg_status gradreg_cpu_restore(gr_work *work, uint32_t restored)
{
    gradreg_cpu_pass(work, restore_body, (int)restored, 0, 0, NULL);
    return GRADREG_OK;
}
