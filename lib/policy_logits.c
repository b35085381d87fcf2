/* policy_logits.c - a policy loss straight from logits, the front: validate, find scratch, dispatch.
 *
 * In: a batch without log-probs, logits, a composition. Out: a task that the backend can run without a
 * question, or a sentence that names the argument. */
#include <string.h>

#include "backend.h"
#include "fpenv.h"
#include "logits_check.h"
#include "params.h"
#include "policy.h"
#include "policy_math.h"
#include "status.h"
#include "types.h"

/* ---- which losses ---------------------------------------------------------------- */

#define THREE_CALLS                                                                          \
    "needs a sequence's log-probs before its first gradient: use gradreg_logprobs_forward, " \
    "gradreg_policy_loss and gradreg_logprobs_backward"

#define REQUIRE_TOKEN_LEVEL(condition, ...)                         \
    do {                                                            \
        if (!(condition))                                           \
            return GR_FAIL(GRADREG_ERROR_UNSUPPORTED, __VA_ARGS__); \
    } while (0)

static gradreg_status check_token_level(const gradreg_policy *p,
                                        const gradreg_policy_batch *batch)
{
    REQUIRE_TOKEN_LEVEL(p->ratio_level == GRADREG_RATIO_TOKEN,
                        "policy.ratio_level is %d, which " THREE_CALLS, p->ratio_level);
    REQUIRE_TOKEN_LEVEL(
        p->surrogate != GRADREG_SURROGATE_GEOMETRIC_MEAN,
        "policy.surrogate is GRADREG_SURROGATE_GEOMETRIC_MEAN, which " THREE_CALLS);
    REQUIRE_TOKEN_LEVEL(p->off_policy_threshold == 0.0,
                        "policy.off_policy_threshold is %g, which " THREE_CALLS,
                        p->off_policy_threshold);
    REQUIRE_TOKEN_LEVEL(!gr_rollout_by_sequence(p) || batch->old_logp != NULL,
                        "policy.rollout_mode is %d without batch.old_logp, which " THREE_CALLS,
                        p->rollout_mode);
    return GRADREG_OK;
}

/* ---- what is read and written ---------------------------------------------------- */

static gradreg_status check_all(gradreg_context *context, const gr_policy_logits_task *t,
                                const float *logp, const float *entropy)
{
    const gradreg_policy_batch *b = &t->policy.batch;
    const size_t n = t->view.rows * sizeof(float), rows = b->sequences;
    const size_t bytes = gradreg_i_logits_bytes(&t->view);
    const size_t size = gr_type_bytes(t->view.type);
    static const char logits[] = "logits";
    const gr_buffer buffers[] = {
        { "dlogits", t->dlogits, bytes, size, 0, GR_BUFFER_WRITTEN, logits },
        { "logp", logp, n, 4, 1, GR_BUFFER_WRITTEN, NULL },
        { "entropy", entropy, n, 4, 1, GR_BUFFER_WRITTEN, NULL },
        { "metrics", t->policy.metrics, sizeof(*t->policy.metrics), 8, 1, GR_BUFFER_WRITTEN,
          NULL },
        { logits, t->logits, bytes, size, 0, GR_BUFFER_READ, NULL },
        { "targets", t->targets, n, 4, 0, GR_BUFFER_READ, NULL },
        { "batch.old_logp", b->old_logp, n, 4, 1, GR_BUFFER_READ, NULL },
        { "batch.ref_logp", b->ref_logp, n, 4, 1, GR_BUFFER_READ, NULL },
        { "batch.rollout_logp", b->rollout_logp, n, 4, 1, GR_BUFFER_READ, NULL },
        { "batch.token_weight", b->token_weight, n, 4, 1, GR_BUFFER_READ, NULL },
        { "batch.mask", b->mask, t->view.rows, 1, 1, GR_BUFFER_READ, NULL },
        { "batch.advantages", b->advantages, b->advantages_per_token ? n : rows * sizeof(float),
          4, 1, GR_BUFFER_READ, NULL },
        { "batch.group", b->group, rows * sizeof(int32_t), 4, 1, GR_BUFFER_HOST, NULL },
        { "batch.row_offsets", b->row_offsets, (rows + 1) * sizeof(int64_t), 8, 1,
          GR_BUFFER_HOST, NULL },
    };
    return gradreg_i_check_buffers(context, buffers, sizeof(buffers) / sizeof(*buffers));
}

/* Whether one factor per row makes right what was written before a row was found to have no
 * distribution: the loss and the entropy bonus must change by the same. */
static int one_factor_mends(const gradreg_policy *p)
{
    const int constant = p->token_total > 0.0 && p->sequence_total > 0.0;
    if (gr_rollout_by_sequence(p))
        return 0;
    switch (p->aggregation) {
    case GRADREG_AGGREGATE_TOKEN_MEAN: return 1;
    case GRADREG_AGGREGATE_CONSTANT:
    case GRADREG_AGGREGATE_SEQUENCE_SUM:
    case GRADREG_AGGREGATE_LENGTH_WEIGHTED: return constant || p->entropy_coefficient == 0.0;
    default: return p->entropy_coefficient == 0.0;
    }
}

static gradreg_status read_all(const gradreg_context *context, gr_policy_logits_task *t,
                               const gradreg_policy_batch *batch, const gradreg_policy *policy,
                               const gradreg_logits_params *params)
{
    GR_TRY(gradreg_i_policy_read(&t->policy.policy, policy));
    GR_TRY(gradreg_i_read_logits(&t->view, params));
    if (t->policy.metrics != NULL && context->device_ops == NULL)
        GR_TRY(
            gradreg_i_struct_check(t->policy.metrics, sizeof(*t->policy.metrics), "metrics"));
    GR_TRY(gradreg_i_policy_read_batch(&t->policy, batch));
    GR_REQUIRE(t->policy.batch.logp == NULL && t->policy.batch.entropy == NULL,
               "batch.logp and batch.entropy must be NULL: they come from the logits");
    GR_REQUIRE(t->view.rows == t->policy.tokens,
               "params.rows is %zu, must be the batch's tokens, %zu", t->view.rows,
               t->policy.tokens);
    return check_token_level(&t->policy.policy, &t->policy.batch);
}

/* ---- scratch and dispatch -------------------------------------------------------- */

/* policy rows and order | weights | logp | entropy | log_sum_exp | dlogp | dentropy */
static size_t scratch_bytes(size_t sequences, size_t tokens)
{
    return gradreg_i_policy_scratch(sequences) + sequences * sizeof(double) +
           5 * tokens * sizeof(float);
}

gradreg_status gradreg_policy_logits_scratch_bytes(size_t *out, size_t sequences,
                                                   const gradreg_logits_params *params)
{
    gr_logits_view view;
    GR_ENTER();
    GR_REQUIRE_POINTER(out);
    GR_REQUIRE_POINTER(params);
    GR_REQUIRE(sequences <= (size_t)1 << 40, "sequences is %zu, must be at most 2^40",
               sequences);
    GR_TRY(gradreg_i_read_logits(&view, params));
    *out = scratch_bytes(sequences, view.rows);
    return GRADREG_OK;
}

static void place(gr_policy_logits_task *t, char *scratch, float *logp, float *entropy)
{
    const size_t sequences = t->policy.batch.sequences, tokens = t->view.rows;
    gradreg_i_policy_place(&t->policy, scratch);
    t->weights = (double *)(void *)(scratch + gradreg_i_policy_scratch(sequences));
    float *floats = (float *)(void *)(t->weights + sequences);
    t->logp = logp != NULL ? logp : floats;
    t->entropy = entropy != NULL ? entropy : floats + tokens;
    t->log_sum_exp = floats + 2 * tokens;
    t->policy.dlogp = floats + 3 * tokens;
    t->policy.dentropy = floats + 4 * tokens;
    t->policy.batch.logp = t->logp;
    t->policy.batch.entropy = t->entropy;
}

static gradreg_status run(gradreg_context *context, gr_policy_logits_task *t, float *logp,
                          float *entropy)
{
    gr_fpenv host;
    GR_TRY(gradreg_i_scratch(context, scratch_bytes(t->policy.batch.sequences, t->view.rows)));
    place(t, context->scratch, logp, entropy);
    t->twice = t->dlogits == t->logits && !one_factor_mends(&t->policy.policy);
    gradreg_i_fp_enter(&host);
    const gradreg_status status = gradreg_i_backend_logits(context)->policy(context, t);
    gradreg_i_fp_leave(&host);
    return status;
}

gradreg_status gradreg_policy_logits(gradreg_context *context, gradreg_policy_metrics *metrics,
                                     void *dlogits, float *logp, float *entropy,
                                     const void *logits, const int32_t *targets,
                                     const gradreg_policy_batch *batch,
                                     const gradreg_policy *policy,
                                     const gradreg_logits_params *params)
{
    gr_policy_logits_task task;
    GR_ENTER();
    memset(&task, 0, sizeof(task));
    GR_REQUIRE_POINTER(context);
    GR_REQUIRE_POINTER(batch);
    GR_REQUIRE_POINTER(policy);
    GR_REQUIRE_POINTER(params);
    task.logits = logits;
    task.dlogits = dlogits;
    task.targets = targets;
    task.policy.metrics = metrics;
    task.policy.from_logits = 1;
    GR_TRY(read_all(context, &task, batch, policy, params));
    GR_TRY(check_all(context, &task, logp, entropy));
    if (gradreg_i_backend_logits(context)->host_reads)
        GR_TRY(gradreg_i_check_targets(targets, task.view.rows, task.view.vocabulary));
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    const gradreg_status status = run(context, &task, logp, entropy);
    gradreg_i_busy_leave(&context->busy);
    return status;
}
