/* logits_check.c - what the calls over logits refuse.
 *
 * In: a caller's params, buffers, targets. Out: plain numbers, or a sentence that names the argument and
 * its value. */
#include "logits_check.h"

#include <math.h>
#include <stdint.h>

#include "context.h"
#include "overlap.h"
#include "params.h"
#include "status.h"
#include "types.h"

/* ---- params ---------------------------------------------------------------------- */

static gradreg_status check_type(gradreg_type type)
{
    GR_REQUIRE(gr_type_is_known(type), "params.type is %d, must be a GRADREG_TYPE_ constant",
               type);
    return GRADREG_OK;
}

gradreg_status gradreg_i_read_temperature(double *inverse, float temperature)
{
    GR_REQUIRE(isfinite(temperature) && temperature >= 0.0f,
               "params.temperature is %g, must be finite and > 0, or 0 for 1",
               (double)temperature);
    *inverse = temperature == 0.0f ? 1.0 : 1.0 / (double)temperature;
    GR_REQUIRE(*inverse <= 0x1p+126,
               "params.temperature is %g, its inverse is beyond fp32's range",
               (double)temperature);
    return GRADREG_OK;
}

gradreg_status gradreg_i_read_logits(gr_logits_view *view, const gradreg_logits_params *caller)
{
    gradreg_logits_params p = GRADREG_LOGITS_PARAMS_INIT;
    GR_TRY(gradreg_i_struct_read(&p, sizeof(p), sizeof(p), caller, "params"));
    if (p.type == 0)
        p.type = GRADREG_TYPE_F32;
    GR_TRY(check_type(p.type));
    GR_REQUIRE(p.reserved0 == 0, "params.reserved0 must be 0");
    GR_REQUIRE(p.vocabulary > 0 || p.rows == 0,
               "params.vocabulary is 0 with rows = %zu, must be set", p.rows);
    GR_REQUIRE(p.vocabulary <= INT32_MAX, "params.vocabulary is %zu, must be at most 2^31 - 1",
               p.vocabulary);
    GR_REQUIRE(p.row_stride == 0 || p.row_stride >= p.vocabulary,
               "params.row_stride is %zu, must be at least vocabulary = %zu, or 0 for that",
               p.row_stride, p.vocabulary);
    if (p.row_stride == 0)
        p.row_stride = p.vocabulary;
    /* So that no sum of bytes can overflow. */
    GR_REQUIRE(p.row_stride == 0 || p.rows <= SIZE_MAX / 32 / p.row_stride,
               "params.rows %zu x row_stride %zu is too large", p.rows, p.row_stride);
    GR_TRY(gradreg_i_read_temperature(&view->inverse, p.temperature));
    view->type = p.type;
    view->rows = p.rows;
    view->vocabulary = p.vocabulary;
    view->row_stride = p.row_stride;
    return GRADREG_OK;
}

/* ---- buffers --------------------------------------------------------------------- */

size_t gradreg_i_logits_bytes(const gr_logits_view *view)
{
    const size_t size = gr_type_bytes(view->type);
    return view->rows == 0 ? 0
                           : ((view->rows - 1) * view->row_stride + view->vocabulary) * size;
}

enum { MOST_BUFFERS = 16 };

static int overlap(const gr_buffer *a, const gr_buffer *b)
{
    return gr_overlap(a->at, a->bytes, b->at, b->bytes);
}

/* Memory of another device, or of the host for a GPU. */
static gradreg_status check_places(gradreg_context *context, const gr_buffer *buffers,
                                   size_t count)
{
    gr_pointer pointers[MOST_BUFFERS];
    size_t used = 0;
    for (size_t i = 0; i < count && i < MOST_BUFFERS; i++) {
        const gr_pointer one = { "", buffers[i].name, buffers[i].at, -1 };
        if (buffers[i].written != GR_BUFFER_HOST && buffers[i].bytes > 0)
            pointers[used++] = one;
    }
    return gradreg_i_check_places(context, pointers, used);
}

gradreg_status gradreg_i_check_buffers(gradreg_context *context, const gr_buffer *buffers,
                                       size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const gr_buffer *b = &buffers[i];
        GR_REQUIRE(b->at != NULL || b->optional || b->bytes == 0,
                   "argument '%s' must not be NULL", b->name);
        GR_REQUIRE((uintptr_t)b->at % b->alignment == 0, "%s = %p is not aligned to %zu bytes",
                   b->name, b->at, b->alignment);
    }
    for (size_t o = 0; o < count; o++)
        for (size_t i = 0; i < count; i++) {
            const gr_buffer *out = &buffers[o], *other = &buffers[i];
            if (out->written != GR_BUFFER_WRITTEN || o == i ||
                (other->written == GR_BUFFER_WRITTEN && i < o))
                continue;
            if (out->in_place == other->name && out->at == other->at)
                continue;
            GR_REQUIRE(!overlap(out, other), "%s = %p overlaps %s = %p", out->name, out->at,
                       other->name, other->at);
        }
    return check_places(context, buffers, count);
}

gradreg_status gradreg_i_check_targets(const int32_t *targets, size_t rows, size_t vocabulary)
{
    for (size_t r = 0; r < rows; r++)
        GR_REQUIRE(targets[r] == GR_PADDING ||
                       (targets[r] >= 0 && (size_t)targets[r] < vocabulary),
                   "targets[%zu] is %d, must be -1 (padding) or below vocabulary = %zu", r,
                   targets[r], vocabulary);
    return GRADREG_OK;
}
