/* logprobs.c - log-probs from logits, the front: validate, dispatch.
 *
 * In: a caller's logits and params. Out: a task that the backend can run without a question, or a
 * sentence that names the argument. */
#include "backend.h"
#include "fpenv.h"
#include "logits_check.h"
#include "params.h"
#include "status.h"
#include "types.h"

/* ---- params ---------------------------------------------------------------------- */

gradreg_status gradreg_logits_params_init(gradreg_logits_params *out, size_t struct_size)
{
    static const gradreg_logits_params defaults = GRADREG_LOGITS_PARAMS_INIT;
    GR_ENTER();
    return gradreg_i_struct_init(out, struct_size, &defaults, sizeof(defaults), sizeof(*out));
}

/* ---- forward --------------------------------------------------------------------- */

static gradreg_status check_forward(gradreg_context *context, const gr_logprobs_task *t,
                                    const gr_logits_ops *ops)
{
    const size_t n = t->view.rows * sizeof(float);
    const gr_buffer buffers[] = {
        { "logp", t->logp, n, 4, 0, GR_BUFFER_WRITTEN, NULL },
        { "entropy", t->entropy, n, 4, 1, GR_BUFFER_WRITTEN, NULL },
        { "log_sum_exp", t->log_sum_exp, n, 4, 1, GR_BUFFER_WRITTEN, NULL },
        { "logits", t->logits, gradreg_i_logits_bytes(&t->view), gr_type_bytes(t->view.type), 0,
          GR_BUFFER_READ, NULL },
        { "targets", t->targets, n, 4, 0, GR_BUFFER_READ, NULL },
    };
    GR_TRY(gradreg_i_check_buffers(context, buffers, sizeof(buffers) / sizeof(*buffers)));
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
    GR_TRY(check_forward(context, &task, ops));
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    gradreg_i_fp_enter(&host);
    const gradreg_status status = ops->forward(context, &task);
    gradreg_i_fp_leave(&host);
    gradreg_i_busy_leave(&context->busy);
    return status;
}

/* ---- backward -------------------------------------------------------------------- */

static gradreg_status check_backward(gradreg_context *context, const gr_logprobs_slope_task *t,
                                     const gr_logits_ops *ops)
{
    const size_t n = t->view.rows * sizeof(float);
    const size_t bytes = gradreg_i_logits_bytes(&t->view);
    const size_t size = gr_type_bytes(t->view.type);
    static const char logits[] = "logits";
    const gr_buffer buffers[] = {
        { "dlogits", t->dlogits, bytes, size, 0, GR_BUFFER_WRITTEN, logits },
        { logits, t->logits, bytes, size, 0, GR_BUFFER_READ, NULL },
        { "targets", t->targets, n, 4, 0, GR_BUFFER_READ, NULL },
        { "log_sum_exp", t->log_sum_exp, n, 4, 0, GR_BUFFER_READ, NULL },
        { "entropy", t->entropy, n, 4, 1, GR_BUFFER_READ, NULL },
        { "dlogp", t->dlogp, n, 4, 0, GR_BUFFER_READ, NULL },
        { "dentropy", t->dentropy, n, 4, 1, GR_BUFFER_READ, NULL },
    };
    GR_REQUIRE(t->dentropy == NULL || t->entropy != NULL || t->view.rows == 0,
               "argument 'entropy' must not be NULL: dentropy needs it");
    GR_TRY(gradreg_i_check_buffers(context, buffers, sizeof(buffers) / sizeof(*buffers)));
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
    GR_TRY(check_backward(context, &task, ops));
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    gradreg_i_fp_enter(&host);
    const gradreg_status status = ops->backward(context, &task);
    gradreg_i_fp_leave(&host);
    gradreg_i_busy_leave(&context->busy);
    return status;
}
