/* logprobs.c - log-probs from logits, the front: validate, dispatch.
 *
 * In: a caller's logits and params. Out: a task that the backend can run without a question, or a
 * sentence that names the argument. */
#include "logprobs.h"

#include <math.h>
#include <stdint.h>

#include "fpenv.h"
#include "params.h"
#include "status.h"

/* ---- params ---------------------------------------------------------------------- */

gradreg_status gradreg_logits_params_init(gradreg_logits_params *out, size_t struct_size)
{
    static const gradreg_logits_params defaults = GRADREG_LOGITS_PARAMS_INIT;
    GR_ENTER();
    return gradreg_i_struct_init(out, struct_size, &defaults, sizeof(defaults), 1);
}

static gradreg_status check_type(gradreg_type type)
{
    GR_REQUIRE(type >= GRADREG_TYPE_F32 && type <= GRADREG_TYPE_F16,
               "params.type is %d, must be GRADREG_TYPE_F32, _BF16 or _F16", type);
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
    GR_REQUIRE(p.row_stride == 0 || p.rows <= SIZE_MAX / 16 / p.row_stride,
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
    const size_t size = view->type == GRADREG_TYPE_F32 ? 4 : 2;
    return view->rows == 0 ? 0
                           : ((view->rows - 1) * view->row_stride + view->vocabulary) * size;
}

static int overlap(const gr_buffer *a, const gr_buffer *b)
{
    const uintptr_t x = (uintptr_t)a->at, y = (uintptr_t)b->at;
    return x != 0 && y != 0 && x < y + b->bytes && y < x + a->bytes;
}

gradreg_status gradreg_i_check_buffers(const gr_buffer *buffers, size_t count)
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
            if (!out->written || o == i || (other->written && i < o))
                continue;
            if (out->in_place == other->name && out->at == other->at)
                continue;
            GR_REQUIRE(!overlap(out, other), "%s = %p overlaps %s = %p", out->name, out->at,
                       other->name, other->at);
        }
    return GRADREG_OK;
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

size_t gradreg_i_element_bytes(gradreg_type type)
{
    return type == GRADREG_TYPE_F32 ? 4 : 2;
}

/* ---- forward --------------------------------------------------------------------- */

static gradreg_status check_forward(const gr_logprobs_task *t, const gr_logits_ops *ops)
{
    const size_t n = t->view.rows * sizeof(float);
    const gr_buffer buffers[] = {
        { "logp", t->logp, n, 4, 0, 1, NULL },
        { "entropy", t->entropy, n, 4, 1, 1, NULL },
        { "log_sum_exp", t->log_sum_exp, n, 4, 1, 1, NULL },
        { "logits", t->logits, gradreg_i_logits_bytes(&t->view),
          gradreg_i_element_bytes(t->view.type), 0, 0, NULL },
        { "targets", t->targets, n, 4, 0, 0, NULL },
    };
    GR_TRY(gradreg_i_check_buffers(buffers, sizeof(buffers) / sizeof(*buffers)));
    return ops->host_reads
               ? gradreg_i_check_targets(t->targets, t->view.rows, t->view.vocabulary)
               : GRADREG_OK;
}

gradreg_status gradreg_logprobs_forward(gradreg_context *context, float *logp, float *entropy,
                                        float *log_sum_exp, const void *logits,
                                        const int32_t *targets,
                                        const gradreg_logits_params *params)
{
    gr_logprobs_task task = {
        { 0, 0, 0, 0, 0.0 }, logits, targets, logp, entropy, log_sum_exp
    };
    gr_fpenv host;
    GR_ENTER();
    GR_REQUIRE_POINTER(context);
    GR_REQUIRE_POINTER(params);
    const gr_logits_ops *ops = gradreg_i_backend_logits(context);
    GR_TRY(gradreg_i_read_logits(&task.view, params));
    GR_TRY(check_forward(&task, ops));
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    gradreg_i_fp_enter(&host);
    const gradreg_status status = ops->forward(context, &task);
    gradreg_i_fp_leave(&host);
    gradreg_i_busy_leave(&context->busy);
    return status;
}

/* ---- backward -------------------------------------------------------------------- */

static gradreg_status check_backward(const gr_logprobs_slope_task *t, const gr_logits_ops *ops)
{
    const size_t n = t->view.rows * sizeof(float);
    const size_t bytes = gradreg_i_logits_bytes(&t->view);
    const size_t size = gradreg_i_element_bytes(t->view.type);
    static const char logits[] = "logits";
    const gr_buffer buffers[] = {
        { "dlogits", t->dlogits, bytes, size, 0, 1, logits },
        { logits, t->logits, bytes, size, 0, 0, NULL },
        { "targets", t->targets, n, 4, 0, 0, NULL },
        { "log_sum_exp", t->log_sum_exp, n, 4, 0, 0, NULL },
        { "entropy", t->entropy, n, 4, 1, 0, NULL },
        { "dlogp", t->dlogp, n, 4, 0, 0, NULL },
        { "dentropy", t->dentropy, n, 4, 1, 0, NULL },
    };
    GR_REQUIRE(t->dentropy == NULL || t->entropy != NULL || t->view.rows == 0,
               "argument 'entropy' must not be NULL: dentropy needs it");
    GR_TRY(gradreg_i_check_buffers(buffers, sizeof(buffers) / sizeof(*buffers)));
    return ops->host_reads
               ? gradreg_i_check_targets(t->targets, t->view.rows, t->view.vocabulary)
               : GRADREG_OK;
}

gradreg_status gradreg_logprobs_backward(gradreg_context *context, void *dlogits,
                                         const void *logits, const int32_t *targets,
                                         const float *log_sum_exp, const float *entropy,
                                         const float *dlogp, const float *dentropy,
                                         const gradreg_logits_params *params)
{
    gr_logprobs_slope_task task = { { 0, 0, 0, 0, 0.0 }, logits,  dlogits, targets,
                                    log_sum_exp,         entropy, dlogp,   dentropy };
    gr_fpenv host;
    GR_ENTER();
    GR_REQUIRE_POINTER(context);
    GR_REQUIRE_POINTER(params);
    const gr_logits_ops *ops = gradreg_i_backend_logits(context);
    GR_TRY(gradreg_i_read_logits(&task.view, params));
    GR_TRY(check_backward(&task, ops));
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    gradreg_i_fp_enter(&host);
    const gradreg_status status = ops->backward(context, &task);
    gradreg_i_fp_leave(&host);
    gradreg_i_busy_leave(&context->busy);
    return status;
}
