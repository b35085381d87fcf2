/* cpu_squares.c - the passes that only read: squared norms, non-finite counts, master check.
 *
 * In: gradients, a direction, or weights. Out: sums of squares and counts per bin. */
#include "cpu_pass.h"

#include <string.h>

/* Blocks of zeros are common (rows that no token touched) and need no second look. */
static int all_zero(const void *x, size_t bytes)
{
    const unsigned char *p = x;
    uint64_t seen = 0, word;
    for (; bytes >= sizeof(word); p += sizeof(word), bytes -= sizeof(word)) {
        memcpy(&word, p, sizeof(word));
        seen |= word;
    }
    for (; bytes > 0; bytes--)
        seen |= *p++;
    return seen == 0;
}

/* reduce.h, step 4: fp32 may have lost this block's sum. Counts what is not finite. */
static double squares_in_double(const float *x, size_t n, double *bad)
{
    double acc[GR_ACCUMULATORS] = { 0 };
    for (size_t i = 0; i < n; i++) {
        double *a = &acc[GR_ACCUMULATOR_OF(i)];
        *a = GR_ACCUMULATE(*a, (double)x[i], (double)x[i]);
        *bad += gr_is_non_finite(x[i]);
    }
    return gr_tree_doubles(acc);
}

double gradreg_cpu_block_squares(const gr_cpu_kernels *kernels, const void *x, size_t n,
                                 int32_t type, double *bad)
{
    _Alignas(64) float lanes[GR_LANES] = { 0 }, wide[GR_BLOCK];
    kernels->squares[type](x, n, lanes);
    if (kernels->in_range(lanes))
        return kernels->fold(lanes);
    if (all_zero(x, n * gr_type_bytes(type)))
        return 0.0;
    kernels->widen[type](wide, x, n);
    return squares_in_double(wide, n, bad);
}

static void sum_block(gr_cpu_block *b, const void *x, int32_t type)
{
    b->sums[0] = gradreg_cpu_block_squares(b->kernels, x, b->n, type, &b->sums[1]);
}

static int reads(enum gr_source source, uint32_t flags)
{
    const uint32_t wanted[] = { 0, GR_SEGMENT_SEEN, GR_SEGMENT_PERTURBED, GR_SEGMENT_PERTURBED,
                                GR_SEGMENT_NOISY };
    if ((flags & GR_SEGMENT_FROZEN) != 0)
        return 0;
    return source == GR_SOURCE_FIRST || (flags & wanted[source]) != 0;
}

/* Clean theta before a step has begun: at the noisy point it is where inject put it. */
static const char *weights(const gr_cpu_block *b, void *scratch)
{
    if (b->work->noisy && (b->segment->flags & GR_SEGMENT_NOISY) != 0)
        return gradreg_cpu_clean(b, scratch);
    return gr_cpu_at(b->span->params, b->at, b->segment->param_type);
}

static void squares_body(gr_cpu_block *b)
{
    const enum gr_source source = (enum gr_source)b->argument;
    const gr_span *span = b->span;
    const int32_t grad = b->segment->grad_type;
    float scratch[GR_BLOCK];
    if (!reads(source, b->segment->flags))
        return;
    if (source == GR_SOURCE_FIRST && span->first != NULL)
        sum_block(b, gr_cpu_at(span->first, b->at, grad), grad);
    else if (source == GR_SOURCE_SECOND && span->grads != NULL)
        sum_block(b, gr_cpu_at(span->grads, b->at, grad), grad);
    else if (source == GR_SOURCE_DIRECTION)
        sum_block(b, gradreg_cpu_direction(b, scratch), GRADREG_TYPE_F32);
    else if (source == GR_SOURCE_WEIGHTS || source == GR_SOURCE_NOISE_WEIGHTS)
        sum_block(b, weights(b, scratch), b->segment->param_type);
}

gradreg_status gradreg_cpu_squares(gr_work *work, enum gr_source source, int row)
{
    const int gradient = source != GR_SOURCE_WEIGHTS && source != GR_SOURCE_NOISE_WEIGHTS;
    gradreg_cpu_pass(work, squares_body, (int)source, gradient ? 2 : 1, row, NULL);
    return GRADREG_OK;
}

/* ---- master weights -------------------------------------------------------------- */

static void verify_body(gr_cpu_block *b)
{
    const int32_t type = b->segment->param_type;
    const size_t size = gr_type_bytes(type);
    float rounded[GR_BLOCK];
    if ((b->segment->flags & (GR_SEGMENT_PERTURBED | GR_SEGMENT_NOISY)) == 0)
        return;
    const char *params = gr_cpu_at(b->span->params, b->at, type);
    b->kernels->narrow[type](rounded, (const float *)(const void *)b->span->master + b->at,
                             b->n);
    if (memcmp(rounded, params, b->n * size) == 0)
        return;
    for (size_t i = 0; i < b->n; i++)
        b->sums[0] += memcmp((char *)rounded + i * size, params + i * size, size) != 0;
}

gradreg_status gradreg_cpu_verify_master(gr_work *work, int row)
{
    gradreg_cpu_pass(work, verify_body, 0, 1, row, NULL);
    return GRADREG_OK;
}
