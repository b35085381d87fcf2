/* policy.c - the policy losses' front: validate, find scratch, dispatch.
 *
 * In: a batch and a composition. Out: a gr_policy_task that the backend can run without a question,
 * or a sentence that names the field. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "backend.h"
#include "fpenv.h"
#include "overlap.h"
#include "params.h"
#include "policy.h"
#include "status.h"

/* ---- the composition ------------------------------------------------------------- */

static gradreg_status read_choice(int32_t *field, int32_t value_for_zero, int32_t last,
                                  const char *name)
{
    if (*field == 0)
        *field = value_for_zero;
    GR_REQUIRE(*field >= 1 && *field <= last, "policy.%s is %d, must be 0 to %d", name, *field,
               last);
    return GRADREG_OK;
}

typedef struct range {
    const char *name;
    double value, least;
    int above, infinite, zero_is_off;
} range;

static gradreg_status check_ranges(const gradreg_policy *p)
{
    const range ranges[] = {
        { "clip_low", p->clip_low, 0, 0, 1, 0 },
        { "clip_high", p->clip_high, 0, 0, 1, 0 },
        { "cap", p->cap, 1, 1, 0, 1 },
        { "dual_clip", p->dual_clip, 1, 1, 0, 1 },
        { "gate_positive", p->gate_positive, 0, 1, 0, 0 },
        { "gate_negative", p->gate_negative, 0, 1, 0, 0 },
        { "log_ratio_limit", p->log_ratio_limit, 0, 1, 0, 1 },
        { "kl_coefficient", p->kl_coefficient, -HUGE_VAL, 0, 0, 0 },
        { "kl_limit", p->kl_limit, 0, 1, 0, 1 },
        { "entropy_coefficient", p->entropy_coefficient, -HUGE_VAL, 0, 0, 0 },
        { "off_policy_threshold", p->off_policy_threshold, 0, 1, 0, 1 },
        { "rollout_low", p->rollout_low, 0, 0, 0, 0 },
        { "rollout_high", p->rollout_high, p->rollout_low, 1, 1, 0 },
        { "token_total", p->token_total, 0, 1, 0, 1 },
        { "sequence_total", p->sequence_total, 0, 1, 0, 1 },
        { "prompt_total", p->prompt_total, 0, 1, 0, 1 },
        { "max_length", p->max_length, 0, 1, 0, 1 },
        { "loss_scale", p->loss_scale, -HUGE_VAL, 0, 0, 1 },
    };
    for (size_t i = 0; i < sizeof(ranges) / sizeof(*ranges); i++) {
        const range *r = &ranges[i];
        const int fits = (r->zero_is_off && r->value == 0) ||
                         ((r->infinite || isfinite(r->value)) && !isnan(r->value) &&
                          (r->above ? r->value > r->least : r->value >= r->least));
        GR_REQUIRE(fits, "policy.%s is %g, must be %s%s %g%s", r->name, r->value,
                   r->infinite ? "" : "finite and ", r->above ? ">" : ">=", r->least,
                   r->zero_is_off ? ", or 0 for off" : "");
    }
    return GRADREG_OK;
}

gradreg_status gradreg_i_policy_read(gradreg_policy *p, const gradreg_policy *caller)
{
    const gradreg_policy defaults = GRADREG_POLICY_INIT;
    *p = defaults;
    GR_TRY(gradreg_i_struct_read(p, sizeof(*p), sizeof(*p), caller, "policy"));
    GR_TRY(read_choice(&p->ratio_level, GRADREG_RATIO_TOKEN, 3, "ratio_level"));
    GR_TRY(read_choice(&p->surrogate, GRADREG_SURROGATE_CLIPPED, 5, "surrogate"));
    GR_TRY(read_choice(&p->kl, GRADREG_KL_NONE, 5, "kl"));
    GR_TRY(read_choice(&p->aggregation, GRADREG_AGGREGATE_SEQUENCE_MEAN, 6, "aggregation"));
    GR_TRY(read_choice(&p->rollout_mode, GRADREG_ROLLOUT_OFF, 5, "rollout_mode"));
    GR_REQUIRE(p->kl_ratio_weighted == 0 || p->kl_ratio_weighted == 1,
               "policy.kl_ratio_weighted is %d, must be 0 or 1", p->kl_ratio_weighted);
    GR_REQUIRE(p->count_empty_rows == 0 || p->count_empty_rows == 1,
               "policy.count_empty_rows is %d, must be 0 or 1", p->count_empty_rows);
    for (int i = 0; i < 10; i++)
        GR_REQUIRE(p->reserved[i] == 0, "policy.reserved[%d] must be 0", i);
    GR_TRY(check_ranges(p));
    if (p->loss_scale == 0)
        p->loss_scale = 1;
    return GRADREG_OK;
}

/* ---- the batch ------------------------------------------------------------------- */

static gradreg_status check_offsets(const gradreg_policy_batch *b)
{
    GR_REQUIRE((uintptr_t)b->row_offsets % 8 == 0,
               "batch.row_offsets = %p is not aligned to 8 bytes",
               (const void *)b->row_offsets);
    GR_REQUIRE(b->row_offsets[0] == 0, "batch.row_offsets[0] is %lld, must be 0",
               (long long)b->row_offsets[0]);
    for (size_t i = 0; i < b->sequences; i++)
        GR_REQUIRE(b->row_offsets[i] <= b->row_offsets[i + 1],
                   "batch.row_offsets[%zu] = %lld is above row_offsets[%zu] = %lld", i,
                   (long long)b->row_offsets[i], i + 1, (long long)b->row_offsets[i + 1]);
    return GRADREG_OK;
}

static gradreg_status count_tokens(size_t *out, const gradreg_policy_batch *b)
{
    GR_REQUIRE(b->sequences <= (size_t)1 << 40, "batch.sequences is %zu, must be at most 2^40",
               b->sequences);
    if (b->row_offsets != NULL) {
        GR_TRY(check_offsets(b));
        *out = (size_t)b->row_offsets[b->sequences];
        GR_REQUIRE(*out <= SIZE_MAX / 16, "batch.row_offsets[%zu] = %zu is too large",
                   b->sequences, *out);
        return GRADREG_OK;
    }
    GR_REQUIRE(b->length == 0 || b->sequences <= SIZE_MAX / 16 / b->length,
               "batch.sequences %zu x length %zu is too large", b->sequences, b->length);
    *out = b->sequences * b->length;
    return GRADREG_OK;
}

typedef struct token_array {
    const char *name;
    const void *at;
    int needed;
    size_t alignment;
} token_array;

/* Without tokens only the groups are looked at. */
static gradreg_status check_arrays(const gr_policy_task *t, int some)
{
    const gradreg_policy_batch *b = &t->batch;
    const gradreg_policy *p = &t->policy;
    const int rolls = p->rollout_mode != GRADREG_ROLLOUT_OFF;
    const int by_prompt = p->aggregation == GRADREG_AGGREGATE_PROMPT_MEAN;
    const token_array arrays[] = {
        { "logp", b->logp, some && !t->from_logits, 4 },
        { "old_logp", b->old_logp, 0, 4 },
        { "ref_logp", b->ref_logp, some && p->kl != GRADREG_KL_NONE, 4 },
        { "rollout_logp", b->rollout_logp, some && rolls, 4 },
        { "token_weight", b->token_weight, 0, 4 },
        { "entropy", b->entropy, some && p->entropy_coefficient != 0 && !t->from_logits, 4 },
        { "mask", b->mask, 0, 1 },
        { "advantages", b->advantages, some, 4 },
        { "group", b->group, by_prompt && b->sequences > 0, 4 },
    };
    for (size_t i = 0; i < sizeof(arrays) / sizeof(*arrays); i++) {
        GR_REQUIRE(arrays[i].at != NULL || !arrays[i].needed,
                   "batch.%s is NULL, this policy needs it", arrays[i].name);
        GR_REQUIRE((uintptr_t)arrays[i].at % arrays[i].alignment == 0,
                   "batch.%s = %p is not aligned to %zu bytes", arrays[i].name, arrays[i].at,
                   arrays[i].alignment);
    }
    return GRADREG_OK;
}

/* ---- what is written ------------------------------------------------------------- */

typedef struct span {
    const char *name;
    const void *at;
    size_t bytes;
} span;

static int overlap(const span *a, const span *b)
{
    return gr_overlap(a->at, a->bytes, b->at, b->bytes);
}

/* The gradient may replace the log-probs; nothing else that is written is also read. */
static gradreg_status check_outputs(const gr_policy_task *t, size_t tokens)
{
    const gradreg_policy_batch *b = &t->batch;
    const size_t bytes = tokens * sizeof(float), rows = b->sequences;
    const span outputs[] = {
        { "out.dlogp", t->dlogp, bytes },
        { "out.dentropy", t->dentropy, bytes },
        { "metrics", t->metrics, sizeof(*t->metrics) },
    };
    const span inputs[] = {
        { "batch.logp", b->logp, bytes },
        { "batch.old_logp", b->old_logp, bytes },
        { "batch.ref_logp", b->ref_logp, bytes },
        { "batch.rollout_logp", b->rollout_logp, bytes },
        { "batch.token_weight", b->token_weight, bytes },
        { "batch.entropy", b->entropy, bytes },
        { "batch.mask", b->mask, tokens },
        { "batch.advantages", b->advantages,
          b->advantages_per_token ? bytes : rows * sizeof(float) },
        { "batch.group", b->group, rows * sizeof(int32_t) },
        { "batch.row_offsets", b->row_offsets, (rows + 1) * sizeof(int64_t) },
    };
    for (size_t o = 0; o < sizeof(outputs) / sizeof(*outputs); o++) {
        for (size_t k = o + 1; k < sizeof(outputs) / sizeof(*outputs); k++)
            GR_REQUIRE(!overlap(&outputs[o], &outputs[k]), "%s = %p overlaps %s = %p",
                       outputs[o].name, outputs[o].at, outputs[k].name, outputs[k].at);
        for (size_t i = 0; i < sizeof(inputs) / sizeof(*inputs); i++)
            GR_REQUIRE((o == 0 && i == 0 && t->dlogp == b->logp) ||
                           !overlap(&outputs[o], &inputs[i]),
                       "%s = %p overlaps %s = %p", outputs[o].name, outputs[o].at,
                       inputs[i].name, inputs[i].at);
    }
    return GRADREG_OK;
}

static double longest_row(const gradreg_policy_batch *b)
{
    int64_t longest = 0;
    if (b->row_offsets == NULL)
        return (double)b->length;
    for (size_t i = 0; i < b->sequences; i++) {
        const int64_t n = b->row_offsets[i + 1] - b->row_offsets[i];
        longest = n > longest ? n : longest;
    }
    return (double)longest;
}

/* Memory that the backend can reach. row_offsets and group are the host's. */
static gradreg_status check_memory(gradreg_context *context, const gr_policy_task *t)
{
    const gradreg_policy_batch *b = &t->batch;
    const gr_pointer pointers[] = { { "out.", "dlogp", t->dlogp, -1 },
                                    { "out.", "dentropy", t->dentropy, -1 },
                                    { "", "metrics", t->metrics, -1 },
                                    { "batch.", "logp", b->logp, -1 },
                                    { "batch.", "old_logp", b->old_logp, -1 },
                                    { "batch.", "ref_logp", b->ref_logp, -1 },
                                    { "batch.", "rollout_logp", b->rollout_logp, -1 },
                                    { "batch.", "token_weight", b->token_weight, -1 },
                                    { "batch.", "entropy", b->entropy, -1 },
                                    { "batch.", "mask", b->mask, -1 },
                                    { "batch.", "advantages", b->advantages, -1 } };
    return gradreg_i_check_places(context, pointers, sizeof(pointers) / sizeof(*pointers));
}

gradreg_status gradreg_i_policy_read_batch(gr_policy_task *t,
                                           const gradreg_policy_batch *caller)
{
    const gradreg_policy_batch defaults = GRADREG_POLICY_BATCH_INIT;
    gradreg_policy_batch *b = &t->batch;
    size_t tokens;
    *b = defaults;
    GR_TRY(gradreg_i_struct_read(b, sizeof(*b), sizeof(*b), caller, "batch"));
    GR_REQUIRE(b->advantages_per_token == 0 || b->advantages_per_token == 1,
               "batch.advantages_per_token is %d, must be 0 or 1", b->advantages_per_token);
    GR_TRY(count_tokens(&tokens, b));
    GR_TRY(check_arrays(t, tokens > 0));
    t->tokens = tokens;
    t->longest = longest_row(b);
    return tokens > 0 ? check_outputs(t, tokens) : GRADREG_OK;
}

static gradreg_status read_gradient(gr_policy_task *t, const gradreg_policy_gradient *caller)
{
    gradreg_policy_gradient g = GRADREG_POLICY_GRADIENT_INIT;
    GR_TRY(gradreg_i_struct_read(&g, sizeof(g), sizeof(g), caller, "out"));
    GR_REQUIRE(g.reserved0 == 0, "out.reserved0 must be 0");
    GR_REQUIRE(g.dlogp != NULL, "out.dlogp is NULL, the gradient needs a place");
    GR_REQUIRE(g.dentropy != NULL || t->policy.entropy_coefficient == 0,
               "out.dentropy is NULL, entropy_coefficient = %g needs it",
               t->policy.entropy_coefficient);
    GR_REQUIRE((uintptr_t)g.dlogp % 4 == 0 && (uintptr_t)g.dentropy % 4 == 0,
               "out.dlogp or out.dentropy is not aligned to 4 bytes");
    t->dlogp = g.dlogp;
    t->dentropy = g.dentropy;
    return GRADREG_OK;
}

/* ---- scratch and dispatch -------------------------------------------------------- */

size_t gradreg_i_policy_scratch(size_t sequences)
{
    return sequences * (sizeof(gr_policy_row) + sizeof(int64_t) + GR_POLICY_SPARE_EACH) +
           GR_POLICY_SPARE;
}

void gradreg_i_policy_place(gr_policy_task *t, void *scratch)
{
    t->rows = scratch;
    t->order = (int64_t *)(void *)(t->rows + t->batch.sequences);
    t->spare = t->order + t->batch.sequences;
}

gradreg_status gradreg_policy_scratch_bytes(size_t *out, size_t sequences)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(out);
    GR_REQUIRE(sequences <= (size_t)1 << 40, "sequences is %zu, must be at most 2^40",
               sequences);
    *out = gradreg_i_policy_scratch(sequences);
    return GRADREG_OK;
}

static gradreg_status run(gradreg_context *context, gr_policy_task *t)
{
    gr_fpenv host;
    GR_TRY(gradreg_i_scratch(context, gradreg_i_policy_scratch(t->batch.sequences)));
    gradreg_i_policy_place(t, context->scratch);
    gradreg_i_fp_enter(&host);
    const gradreg_status status = gradreg_i_backend_losses(context)->policy_loss(context, t);
    gradreg_i_fp_leave(&host);
    return status;
}

gradreg_status gradreg_policy_loss(gradreg_context *context, gradreg_policy_metrics *metrics,
                                   gradreg_policy_gradient *out,
                                   const gradreg_policy_batch *batch,
                                   const gradreg_policy *policy)
{
    gr_policy_task task;
    GR_ENTER();
    memset(&task, 0, sizeof(task));
    GR_REQUIRE_POINTER(context);
    GR_REQUIRE_POINTER(out);
    GR_REQUIRE_POINTER(batch);
    GR_REQUIRE_POINTER(policy);
    GR_TRY(gradreg_i_policy_read(&task.policy, policy));
    GR_TRY(read_gradient(&task, out));
    task.metrics = metrics;
    GR_REQUIRE((uintptr_t)metrics % _Alignof(gradreg_policy_metrics) == 0,
               "metrics = %p is not aligned to %zu bytes", (void *)metrics,
               _Alignof(gradreg_policy_metrics));
    if (metrics != NULL && context->device_ops == NULL)
        GR_TRY(gradreg_i_struct_check(metrics, sizeof(*metrics), "metrics"));
    GR_TRY(gradreg_i_policy_read_batch(&task, batch));
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    gradreg_status status = check_memory(context, &task);
    if (status == GRADREG_OK)
        status = run(context, &task);
    gradreg_i_busy_leave(&context->busy);
    return status;
}

gradreg_status gradreg_policy_metrics_read(gradreg_context *context,
                                           gradreg_policy_metrics *out,
                                           const gradreg_policy_metrics *metrics)
{
    GR_ENTER();
    GR_REQUIRE_POINTER(context);
    GR_REQUIRE_POINTER(out);
    GR_REQUIRE_POINTER(metrics);
    GR_TRY(gradreg_i_struct_check(out, sizeof(*out), "out"));
    const span from = { "metrics", metrics, sizeof(*metrics) };
    const span to = { "out", out, sizeof(*out) };
    GR_REQUIRE(!overlap(&from, &to), "out = %p overlaps metrics = %p", (void *)out,
               (const void *)metrics);
    const gr_pointer place = { "argument ", "metrics", metrics, -1 };
    GR_TRY(gradreg_i_check_place(context, &place));
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    const gradreg_status status =
        gradreg_i_backend_losses(context)->read_metrics(context, out, metrics);
    gradreg_i_busy_leave(&context->busy);
    return status;
}
