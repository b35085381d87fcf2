/* monitors.c - the monitors' front: validate, find scratch, dispatch.
 *
 * In: tokens, entropies, distributions, weights. Out: figures; those of host arrays are computed in
 * monitors_host.c, those of buffers by the backend. */
#include <stdint.h>

#include "backend.h"
#include "fpenv.h"
#include "monitors_host.h"
#include "overlap.h"
#include "probe_data.h"
#include "status.h"
#include "types.h"

/* ---- host ------------------------------------------------------------------------ */

gradreg_status gradreg_distinct_ngrams(double *out, const int32_t *tokens, size_t count,
                                       int32_t order)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(out);
    GR_REQUIRE(count == 0 || tokens != NULL, "argument 'tokens' must not be NULL");
    GR_REQUIRE(count <= INT32_MAX, "count is %zu, must be at most 2^31 - 1", count);
    GR_REQUIRE((uintptr_t)tokens % sizeof(*tokens) == 0,
               "tokens = %p is not aligned to 4 bytes", (const void *)tokens);
    GR_REQUIRE(order >= 1, "order is %d, must be at least 1", order);
    return gradreg_i_distinct_ngrams(out, tokens, count, (size_t)order);
}

gradreg_status gradreg_moving_average(double *out, const float *values, size_t count,
                                      size_t window)
{
    gr_fpenv host;
    GR_ENTER();
    GR_REQUIRE(count <= (size_t)1 << 40, "count is %zu, must be at most 2^40", count);
    GR_REQUIRE(window >= 1, "window is 0, must be at least 1");
    GR_REQUIRE(count == 0 || out != NULL, "argument 'out' must not be NULL");
    GR_REQUIRE(count == 0 || values != NULL, "argument 'values' must not be NULL");
    GR_REQUIRE((uintptr_t)out % sizeof(*out) == 0, "out = %p is not aligned to 8 bytes",
               (void *)out);
    GR_REQUIRE((uintptr_t)values % sizeof(*values) == 0,
               "values = %p is not aligned to 4 bytes", (const void *)values);
    GR_REQUIRE(!gr_overlap(out, count * sizeof(*out), values, count * sizeof(*values)),
               "out = %p overlaps values = %p", (void *)out, (const void *)values);
    gradreg_i_fp_enter(&host);
    gradreg_i_moving_average(out, values, count, window);
    gradreg_i_fp_leave(&host);
    return GRADREG_OK;
}

/* ---- divergence ------------------------------------------------------------------ */

static gradreg_status check_divergence(const gr_divergence_task *t)
{
    GR_REQUIRE(t->columns >= 1 && t->columns <= INT32_MAX,
               "columns is %zu, must be 1 to 2^31 - 1", t->columns);
    GR_REQUIRE(t->rows <= PTRDIFF_MAX / sizeof(float) / t->columns,
               "rows = %zu of columns = %zu end past the address space", t->rows, t->columns);
    const size_t out_bytes = t->rows * sizeof(float), bytes = out_bytes * t->columns;
    GR_REQUIRE(t->rows == 0 || t->out != NULL, "argument 'out' must not be NULL");
    GR_REQUIRE(t->rows == 0 || t->p != NULL, "argument 'p' must not be NULL");
    GR_REQUIRE(t->rows == 0 || t->q != NULL, "argument 'q' must not be NULL");
    GR_REQUIRE((uintptr_t)t->out % 4 == 0, "out = %p is not aligned to 4 bytes",
               (void *)t->out);
    GR_REQUIRE((uintptr_t)t->p % 4 == 0, "p = %p is not aligned to 4 bytes",
               (const void *)t->p);
    GR_REQUIRE((uintptr_t)t->q % 4 == 0, "q = %p is not aligned to 4 bytes",
               (const void *)t->q);
    GR_REQUIRE(!gr_overlap(t->out, out_bytes, t->p, bytes), "out = %p overlaps p = %p",
               (void *)t->out, (const void *)t->p);
    GR_REQUIRE(!gr_overlap(t->out, out_bytes, t->q, bytes), "out = %p overlaps q = %p",
               (void *)t->out, (const void *)t->q);
    return GRADREG_OK;
}

static gradreg_status run_divergence(gradreg_context *context, const gr_divergence_task *t)
{
    const gr_pointer pointers[] = { { "", "out", t->out, -1 },
                                    { "", "p", t->p, -1 },
                                    { "", "q", t->q, -1 } };
    gr_fpenv host;
    GR_TRY(gradreg_i_check_places(context, pointers, t->rows > 0 ? 3 : 0));
    gradreg_i_fp_enter(&host);
    const gradreg_status status = gradreg_i_backend_monitors(context)->divergence(context, t);
    gradreg_i_fp_leave(&host);
    return status;
}

gradreg_status gradreg_js_divergence(gradreg_context *context, float *out, const float *p,
                                     const float *q, size_t rows, size_t columns)
{
    const gr_divergence_task task = { out, p, q, rows, columns };
    GR_ENTER();
    GR_REQUIRE_POINTER(context);
    GR_TRY(check_divergence(&task));
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    const gradreg_status status = run_divergence(context, &task);
    gradreg_i_busy_leave(&context->busy);
    return status;
}

/* ---- weights --------------------------------------------------------------------- */

static gradreg_status check_segment(const gr_delta_task *t, size_t i)
{
    const gradreg_segment *s = &t->segments[i];
    const uint64_t limit = PTRDIFF_MAX / sizeof(float);
    GR_REQUIRE(s->offset <= limit && s->count <= limit - s->offset,
               "segments[%zu]: offset %llu + count %llu ends past the address space", i,
               (unsigned long long)s->offset, (unsigned long long)s->count);
    GR_REQUIRE(s->param_type == 0 || s->param_type == t->type,
               "segments[%zu]: param_type is %d, must be 0 or type = %d", i, s->param_type,
               t->type);
    GR_REQUIRE(s->shard_begin == 0 && s->shard_count == 0,
               "segments[%zu]: shard_begin %llu and shard_count %llu must be 0 with flat "
               "buffers",
               i, (unsigned long long)s->shard_begin, (unsigned long long)s->shard_count);
    GR_REQUIRE(s->reserved[0] == 0 && s->reserved[1] == 0 && s->reserved[2] == 0,
               "segments[%zu]: reserved must be 0", i);
    return GRADREG_OK;
}

/* Elements that before and after must have. */
static uint64_t extent_of(const gr_delta_task *t)
{
    uint64_t end = 0;
    for (size_t i = 0; i < t->segment_count; i++) {
        const gradreg_segment *s = &t->segments[i];
        if (s->count > 0 && s->offset + s->count > end)
            end = s->offset + s->count;
    }
    return end;
}

static gradreg_status check_weights(const gr_delta_task *t)
{
    const size_t size = gr_type_bytes(t->type);
    const size_t elements = (size_t)extent_of(t), bytes = elements * size;
    const size_t norms = t->segment_count * sizeof(*t->norms);
    GR_REQUIRE(elements == 0 || t->before != NULL, "argument 'before' must not be NULL");
    GR_REQUIRE(elements == 0 || t->after != NULL, "argument 'after' must not be NULL");
    GR_REQUIRE((uintptr_t)t->norms % sizeof(*t->norms) == 0,
               "norms = %p is not aligned to 8 bytes", (void *)t->norms);
    GR_REQUIRE((uintptr_t)t->before % size == 0, "before = %p is not aligned to %zu bytes",
               t->before, size);
    GR_REQUIRE((uintptr_t)t->after % size == 0, "after = %p is not aligned to %zu bytes",
               t->after, size);
    GR_REQUIRE(!gr_overlap(t->norms, norms, t->before, bytes),
               "norms = %p overlaps before = %p", (void *)t->norms, t->before);
    GR_REQUIRE(!gr_overlap(t->norms, norms, t->after, bytes), "norms = %p overlaps after = %p",
               (void *)t->norms, t->after);
    return GRADREG_OK;
}

static gradreg_status check_delta(const gr_delta_task *t)
{
    GR_REQUIRE(gr_type_is_known(t->type), "type is %d, must be a GRADREG_TYPE_ constant",
               t->type);
    GR_REQUIRE(t->segment_count <= INT32_MAX, "segment_count is %zu, must be at most 2^31 - 1",
               t->segment_count);
    GR_REQUIRE(t->segment_count == 0 || t->segments != NULL,
               "argument 'segments' must not be NULL");
    GR_REQUIRE(t->segment_count == 0 || t->norms != NULL, "argument 'norms' must not be NULL");
    for (size_t i = 0; i < t->segment_count; i++)
        GR_TRY(check_segment(t, i));
    return check_weights(t);
}

static gradreg_status run_delta(gradreg_context *context, gr_delta_task *t)
{
    const int moves = extent_of(t) > 0;
    const gr_pointer pointers[] = { { "", "norms", t->segment_count > 0 ? t->norms : NULL, -1 },
                                    { "", "before", moves ? t->before : NULL, -1 },
                                    { "", "after", moves ? t->after : NULL, -1 } };
    gr_fpenv host;
    GR_TRY(gradreg_i_check_places(context, pointers, 3));
    GR_TRY(gradreg_i_scratch(context, GR_DELTA_RUNS * sizeof(*t->runs)));
    t->runs = context->scratch;
    gradreg_i_fp_enter(&host);
    const gradreg_status status = gradreg_i_backend_monitors(context)->delta(context, t);
    gradreg_i_fp_leave(&host);
    return status;
}

gradreg_status gradreg_weight_delta(gradreg_context *context, double *norms, const void *before,
                                    const void *after, gradreg_type type,
                                    const gradreg_segment *segments, size_t segment_count)
{
    gr_delta_task task = { norms, before, after, type, segments, segment_count, NULL };
    GR_ENTER();
    GR_REQUIRE_POINTER(context);
    GR_TRY(check_delta(&task));
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    const gradreg_status status = run_delta(context, &task);
    gradreg_i_busy_leave(&context->busy);
    return status;
}
