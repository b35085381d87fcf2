/* advantages.c - rewards to advantages: the front.
 *
 * In: rewards, groups. Out: a checked gr_advantage_task for the backend. */
#include <math.h>
#include <stdint.h>

#include "backend.h"
#include "fpenv.h"
#include "overlap.h"
#include "params.h"
#include "status.h"

static gradreg_status read_params(gradreg_advantage_params *p,
                                  const gradreg_advantage_params *caller)
{
    const gradreg_advantage_params defaults = GRADREG_ADVANTAGE_PARAMS_INIT;
    *p = defaults;
    GR_TRY(gradreg_i_struct_read(p, sizeof(*p), sizeof(*p), caller, "params"));
    p->baseline = p->baseline != 0 ? p->baseline : GRADREG_BASELINE_GROUP_MEAN;
    p->scale = p->scale != 0 ? p->scale : GRADREG_SCALE_NONE;
    p->singleton = p->singleton != 0 ? p->singleton : GRADREG_SINGLETON_ZERO;
    GR_REQUIRE(p->baseline >= 1 && p->baseline <= 3, "params.baseline is %d, must be 0 to 3",
               p->baseline);
    GR_REQUIRE(p->scale >= 1 && p->scale <= 3, "params.scale is %d, must be 0 to 3", p->scale);
    GR_REQUIRE(p->singleton >= 1 && p->singleton <= 2, "params.singleton is %d, must be 0 to 2",
               p->singleton);
    GR_REQUIRE(isfinite(p->epsilon) && p->epsilon >= 0,
               "params.epsilon is %g, must be finite and >= 0", p->epsilon);
    return GRADREG_OK;
}

static gradreg_status check_buffers(const gr_advantage_task *t)
{
    const int32_t *ids = t->params.group;
    const size_t bytes = t->count * sizeof(float);
    GR_REQUIRE(t->count <= (size_t)1 << 40, "count is %zu, must be at most 2^40", t->count);
    if (t->params.group == NULL) {
        GR_REQUIRE(t->group_size >= 1, "group_size is 0, must be at least 1");
        GR_REQUIRE(t->count % t->group_size == 0,
                   "count is %zu, must be a multiple of group_size = %zu", t->count,
                   t->group_size);
    }
    GR_REQUIRE(t->count == 0 || t->out != NULL, "argument 'out' must not be NULL");
    GR_REQUIRE(t->count == 0 || t->rewards != NULL, "argument 'rewards' must not be NULL");
    GR_REQUIRE((uintptr_t)t->out % 4 == 0 && (uintptr_t)t->rewards % 4 == 0,
               "out or rewards is not aligned to 4 bytes");
    GR_REQUIRE(t->out == t->rewards || !gr_overlap(t->out, bytes, t->rewards, bytes),
               "out overlaps rewards without being the same");
    GR_REQUIRE((uintptr_t)ids % 4 == 0, "params.group = %p is not aligned to 4 bytes",
               (const void *)ids);
    GR_REQUIRE(!gr_overlap(t->out, bytes, ids, bytes), "out overlaps params.group");
    return GRADREG_OK;
}

static gradreg_status run(gradreg_context *context, gr_advantage_task *t)
{
    const gr_pointer pointers[] = { { "argument ", "out", t->out, -1 },
                                    { "argument ", "rewards", t->rewards, -1 } };
    gr_fpenv host;
    GR_TRY(gradreg_i_check_places(context, pointers, 2));
    const size_t ids = t->params.group != NULL ? t->count * sizeof(int64_t) : 0;
    const size_t spare = context->device_ops != NULL ? GR_ADVANTAGE_SPARE : 0;
    if (ids + spare > 0) {
        GR_TRY(gradreg_i_scratch(context, ids + spare));
        t->order = context->scratch;
        t->spare = (char *)context->scratch + ids;
    }
    gradreg_i_fp_enter(&host);
    const gradreg_status status = gradreg_i_backend_losses(context)->advantages(context, t);
    gradreg_i_fp_leave(&host);
    return status;
}

gradreg_status gradreg_advantages(gradreg_context *context, float *out, const float *rewards,
                                  size_t count, size_t group_size,
                                  const gradreg_advantage_params *params)
{
    gr_advantage_task task = {
        GRADREG_ADVANTAGE_PARAMS_INIT, out, rewards, count, group_size, NULL, NULL
    };
    GR_ENTER();
    GR_REQUIRE_POINTER(context);
    GR_REQUIRE_POINTER(params);
    GR_TRY(read_params(&task.params, params));
    GR_TRY(check_buffers(&task));
    GR_TRY(gradreg_i_busy_enter(&context->busy, "context"));
    const gradreg_status status = run(context, &task);
    gradreg_i_busy_leave(&context->busy);
    return status;
}
