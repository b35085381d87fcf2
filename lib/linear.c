/* linear.c - log-probs from hidden states and a head weight, the front: validate, find scratch, dispatch.
 *
 * In: a caller's matrices and params. Out: a task that the backend can run without a question, or a
 * sentence that names the argument. */
#include <string.h>

#include "backend.h"
#include "fpenv.h"
#include "logits_check.h"
#include "params.h"
#include "status.h"
#include "types.h"

/* ---- params ---------------------------------------------------------------------- */

gradreg_status gradreg_linear_params_init(gradreg_linear_params *out, size_t struct_size)
{
    static const gradreg_linear_params defaults = GRADREG_LINEAR_PARAMS_INIT;
    GR_ENTER();
    return gradreg_i_struct_init(out, struct_size, &defaults, sizeof(defaults), sizeof(*out));
}

static gradreg_status read_type(gradreg_type *type, gradreg_type otherwise, const char *name)
{
    if (*type == 0)
        *type = otherwise;
    GR_REQUIRE(gr_type_is_known(*type), "params.%s is %d, must be a GRADREG_TYPE_ constant",
               name, *type);
    return GRADREG_OK;
}

static gradreg_status read_stride(size_t *stride, size_t width, const char *name)
{
    GR_REQUIRE(*stride == 0 || *stride >= width,
               "params.%s is %zu, must be at least width = %zu, or 0 for that", name, *stride,
               width);
    if (*stride == 0)
        *stride = width;
    GR_REQUIRE(*stride <= INT32_MAX, "params.%s is %zu, must be at most 2^31 - 1", name,
               *stride);
    return GRADREG_OK;
}

static gradreg_status check_sizes(const gradreg_linear_params *p)
{
    GR_REQUIRE(p->vocabulary > 0 || p->rows == 0,
               "params.vocabulary is 0 with rows = %zu, must be set", p->rows);
    GR_REQUIRE(p->width > 0 || p->rows == 0, "params.width is 0 with rows = %zu, must be set",
               p->rows);
    GR_REQUIRE(p->vocabulary <= INT32_MAX, "params.vocabulary is %zu, must be at most 2^31 - 1",
               p->vocabulary);
    GR_REQUIRE(p->width <= INT32_MAX, "params.width is %zu, must be at most 2^31 - 1",
               p->width);
    GR_REQUIRE(p->chunk_rows <= INT32_MAX, "params.chunk_rows is %zu, must be at most 2^31 - 1",
               p->chunk_rows);
    GR_REQUIRE(p->rows <= SIZE_MAX / 16 / ((size_t)1 << 31),
               "params.rows is %zu, which is too large", p->rows);
    GR_REQUIRE(p->add_weight_gradient == 0 || p->add_weight_gradient == 1,
               "params.add_weight_gradient is %d, must be 0 or 1", p->add_weight_gradient);
    GR_REQUIRE(p->reserved0 == 0, "params.reserved0 must be 0");
    return GRADREG_OK;
}

enum { CHUNK_LOGITS = 1 << 26, PANEL_ELEMENTS = 1 << 22 };

/* About 256 MiB of logits, and 16 of converted weights. */
static void choose_sizes(gr_linear_task *t, size_t chunk_rows)
{
    const size_t panel = t->width == 0 ? 0 : PANEL_ELEMENTS / t->width;
    t->chunk = chunk_rows;
    if (t->chunk == 0)
        t->chunk = t->vocabulary == 0 ? 1 : CHUNK_LOGITS / t->vocabulary;
    t->chunk = t->chunk > t->rows ? t->rows : t->chunk;
    t->chunk = t->chunk < 1 ? 1 : t->chunk;
    t->panel = t->type == GRADREG_TYPE_F32 ? 0 : panel < 64 ? 64 : panel;
    t->panel = t->panel > t->vocabulary ? t->vocabulary : t->panel;
}

static gradreg_status read_params(gr_linear_task *t, const gradreg_linear_params *caller)
{
    gradreg_linear_params p = GRADREG_LINEAR_PARAMS_INIT;
    memset(t, 0, sizeof(*t));
    GR_TRY(gradreg_i_struct_read(&p, sizeof(p), sizeof(p), caller, "params"));
    GR_TRY(read_type(&p.type, GRADREG_TYPE_F32, "type"));
    GR_TRY(read_type(&p.gradient_type, p.type, "gradient_type"));
    GR_TRY(check_sizes(&p));
    GR_TRY(read_stride(&p.hidden_stride, p.width, "hidden_stride"));
    GR_TRY(read_stride(&p.weight_stride, p.width, "weight_stride"));
    GR_TRY(gradreg_i_read_temperature(&t->inverse, p.temperature));
    t->type = p.type;
    t->gradient_type = p.gradient_type;
    t->add_weight_gradient = p.add_weight_gradient;
    t->rows = p.rows;
    t->width = p.width;
    t->vocabulary = p.vocabulary;
    t->hidden_stride = p.hidden_stride;
    t->weight_stride = p.weight_stride;
    choose_sizes(t, p.chunk_rows);
    GR_REQUIRE(t->chunk <= SIZE_MAX / 64 / (t->vocabulary + 2 * t->width + 1),
               "params.chunk_rows %zu x vocabulary %zu is too large", t->chunk, t->vocabulary);
    return GRADREG_OK;
}

/* ---- buffers --------------------------------------------------------------------- */

static size_t matrix_bytes(size_t rows, size_t columns, size_t stride, gradreg_type type)
{
    return rows == 0 ? 0 : ((rows - 1) * stride + columns) * gr_type_bytes(type);
}

static gradreg_status check_forward(gradreg_context *context, const gr_linear_task *t)
{
    const size_t n = t->rows * sizeof(float), size = gr_type_bytes(t->type);
    const size_t vocabulary = t->rows == 0 ? 0 : t->vocabulary;
    const gr_buffer buffers[] = {
        { "logp", t->logp, n, 4, 0, GR_BUFFER_WRITTEN, NULL },
        { "entropy", t->entropy, n, 4, 1, GR_BUFFER_WRITTEN, NULL },
        { "log_sum_exp", t->log_sum_exp, n, 4, 1, GR_BUFFER_WRITTEN, NULL },
        { "hidden", t->hidden, matrix_bytes(t->rows, t->width, t->hidden_stride, t->type), size,
          0, GR_BUFFER_READ, NULL },
        { "weight", t->weight, matrix_bytes(vocabulary, t->width, t->weight_stride, t->type),
          size, 0, GR_BUFFER_READ, NULL },
        { "targets", t->targets, n, 4, 0, GR_BUFFER_READ, NULL },
    };
    return gradreg_i_check_buffers(context, buffers, sizeof(buffers) / sizeof(*buffers));
}

static gradreg_status check_backward(gradreg_context *context, const gr_linear_task *t)
{
    const size_t n = t->rows * sizeof(float), size = gr_type_bytes(t->type);
    const size_t vocabulary = t->rows == 0 ? 0 : t->vocabulary;
    const gr_buffer buffers[] = {
        { "dhidden", t->dhidden,
          matrix_bytes(t->rows, t->width, t->hidden_stride, t->gradient_type),
          gr_type_bytes(t->gradient_type), 1, GR_BUFFER_WRITTEN, NULL },
        { "dweight", t->dweight, vocabulary * t->width * sizeof(float), 4, 1, GR_BUFFER_WRITTEN,
          NULL },
        { "hidden", t->hidden, matrix_bytes(t->rows, t->width, t->hidden_stride, t->type), size,
          0, GR_BUFFER_READ, NULL },
        { "weight", t->weight, matrix_bytes(vocabulary, t->width, t->weight_stride, t->type),
          size, 0, GR_BUFFER_READ, NULL },
        { "targets", t->targets, n, 4, 0, GR_BUFFER_READ, NULL },
        { "log_sum_exp", t->given_log_sum_exp, n, 4, 0, GR_BUFFER_READ, NULL },
        { "entropy", t->given_entropy, n, 4, 1, GR_BUFFER_READ, NULL },
        { "dlogp", t->dlogp, n, 4, 0, GR_BUFFER_READ, NULL },
        { "dentropy", t->dentropy, n, 4, 1, GR_BUFFER_READ, NULL },
    };
    GR_REQUIRE(t->dhidden != NULL || t->dweight != NULL || t->rows == 0,
               "dhidden and dweight are both NULL, one of them must be wanted");
    GR_REQUIRE(t->dentropy == NULL || t->given_entropy != NULL || t->rows == 0,
               "argument 'entropy' must not be NULL: dentropy needs it");
    return gradreg_i_check_buffers(context, buffers, sizeof(buffers) / sizeof(*buffers));
}

/* ---- scratch and dispatch -------------------------------------------------------- */

static size_t scratch_bytes(const gr_linear_task *t)
{
    return t->chunk * (t->vocabulary + 2 * t->width) * sizeof(float) +
           t->panel * t->width * sizeof(float) + t->chunk * sizeof(size_t) + 64;
}

static void place(gr_linear_task *t, void *scratch)
{
    t->chunk_rows = scratch;
    t->chunk_logits = (float *)(void *)(t->chunk_rows + t->chunk);
    t->chunk_hidden = t->chunk_logits + t->chunk * t->vocabulary;
    t->chunk_dhidden = t->chunk_hidden + t->chunk * t->width;
    t->panel_weight = t->chunk_dhidden + t->chunk * t->width;
}

gradreg_status gradreg_linear_logprobs_scratch_bytes(size_t *out,
                                                     const gradreg_linear_params *params)
{
    gr_linear_task task;
    GR_ENTER();
    GR_REQUIRE_POINTER(out);
    GR_REQUIRE_POINTER(params);
    GR_TRY(read_params(&task, params));
    *out = scratch_bytes(&task);
    return GRADREG_OK;
}

typedef gradreg_status linear_op(gradreg_context *context, const gr_linear_task *task);

static gradreg_status run(gradreg_context *context, gr_linear_task *t, linear_op *op)
{
    gr_fpenv host;
    GR_TRY(gradreg_i_scratch(context, scratch_bytes(t)));
    place(t, context->scratch);
    gradreg_i_fp_enter(&host);
    const gradreg_status status = op(context, t);
    gradreg_i_fp_leave(&host);
    return status;
}

/* What both calls end with. */
static gradreg_status check_and_run(gradreg_context *context, gr_linear_task *t, linear_op *op)
{
    const gr_logits_ops *ops = gradreg_i_backend_logits(context);
    if (op == NULL)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED, "%s", ops->linear_missing);
    if (ops->host_reads)
        GR_TRY(gradreg_i_check_targets(t->targets, t->rows, t->vocabulary));
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    const gradreg_status status = run(context, t, op);
    gradreg_i_busy_leave(&context->busy);
    return status;
}

gradreg_status gradreg_linear_logprobs_forward(gradreg_context *context, float *logp,
                                               float *entropy, float *log_sum_exp,
                                               const void *hidden, const void *weight,
                                               const int32_t *targets,
                                               const gradreg_linear_params *params)
{
    gr_linear_task task;
    GR_ENTER();
    GR_REQUIRE_POINTER(context);
    GR_REQUIRE_POINTER(params);
    GR_TRY(read_params(&task, params));
    task.hidden = hidden;
    task.weight = weight;
    task.targets = targets;
    task.logp = logp;
    task.entropy = entropy;
    task.log_sum_exp = log_sum_exp;
    GR_TRY(check_forward(context, &task));
    return check_and_run(context, &task, gradreg_i_backend_logits(context)->linear_forward);
}

gradreg_status gradreg_linear_logprobs_backward(gradreg_context *context, void *dhidden,
                                                float *dweight, const void *hidden,
                                                const void *weight, const int32_t *targets,
                                                const float *log_sum_exp, const float *entropy,
                                                const float *dlogp, const float *dentropy,
                                                const gradreg_linear_params *params)
{
    gr_linear_task task;
    GR_ENTER();
    GR_REQUIRE_POINTER(context);
    GR_REQUIRE_POINTER(params);
    GR_TRY(read_params(&task, params));
    task.hidden = hidden;
    task.weight = weight;
    task.targets = targets;
    task.dhidden = dhidden;
    task.dweight = dweight;
    task.given_log_sum_exp = log_sum_exp;
    task.given_entropy = entropy;
    task.dlogp = dlogp;
    task.dentropy = dentropy;
    GR_TRY(check_backward(context, &task));
    return check_and_run(context, &task, gradreg_i_backend_logits(context)->linear_backward);
}
