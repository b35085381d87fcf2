/* params.c - reading, writing and defaulting structs whose size says which version made them.
 *
 * In: a caller's struct of any age. Out: this version's struct; or the header's INIT value in a
 * caller's struct of any age. */
#include "params.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "status.h"

static uint32_t size_of(const void *caller)
{
    uint32_t size;
    memcpy(&size, caller, sizeof(size));
    return size;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

gradreg_status gradreg_i_struct_check(const void *caller, size_t minimum, const char *argument)
{
    assert(caller != NULL && minimum >= sizeof(uint32_t));
    const uint32_t size = size_of(caller);

    GR_REQUIRE(size >= minimum && size <= GR_STRUCT_SIZE_LIMIT,
               "%s.struct_size is %lu, expected sizeof the struct, at least %zu: use its _INIT "
               "macro or _init function",
               argument, (unsigned long)size, minimum);
    return GRADREG_OK;
}

gradreg_status gradreg_i_struct_read(void *out, size_t known, size_t minimum,
                                     const void *caller, const char *argument)
{
    assert(minimum <= known && known <= GR_STRUCT_SIZE_LIMIT);
    GR_TRY(gradreg_i_struct_check(caller, minimum, argument));
    const size_t given = size_of(caller);

    /* Zero is what "not asked for" looks like; anything else would be a request ignored. */
    for (size_t i = known; i < given; i++)
        if (((const unsigned char *)caller)[i] != 0)
            return GR_FAIL(
                GRADREG_ERROR_UNSUPPORTED,
                "%s has a field at byte %zu that version %s, which ends at byte %zu, "
                "does not know",
                argument, i, gradreg_version(), known);

    const uint32_t size = (uint32_t)known;
    memcpy(out, caller, smaller(given, known));
    memcpy(out, &size, sizeof(size));
    return GRADREG_OK;
}

void gradreg_i_struct_write(void *caller, const void *filled, size_t known)
{
    const size_t given = size_of(caller);

    assert(given >= sizeof(uint32_t));
    memcpy((unsigned char *)caller + sizeof(uint32_t),
           (const unsigned char *)filled + sizeof(uint32_t),
           smaller(given, known) - sizeof(uint32_t));
}

gradreg_status gradreg_i_struct_init(void *out, size_t struct_size, const void *defaults,
                                     size_t known, size_t minimum)
{
    assert(minimum <= known && known <= GR_STRUCT_SIZE_LIMIT);
    GR_REQUIRE_POINTER(out);
    if (minimum == 0) {
        GR_REQUIRE(struct_size == known, "struct_size is %zu, expected %zu", struct_size,
                   known);
        memcpy(out, defaults, known);
        return GRADREG_OK;
    }
    GR_REQUIRE(struct_size >= minimum && struct_size <= GR_STRUCT_SIZE_LIMIT,
               "struct_size is %zu, expected sizeof the struct, at least %zu", struct_size,
               minimum);
    const uint32_t size = (uint32_t)struct_size;

    memset(out, 0, struct_size);
    memcpy(out, defaults, smaller(struct_size, known));
    memcpy(out, &size, sizeof(size));
    return GRADREG_OK;
}

/* One public function: `name` writes the defaults of `type`, which had `minimum` bytes in its first
 * version; 0: it has no struct_size. */
#define GR_DEFINE_INIT(name, type, minimum, ...)                                              \
    gradreg_status name(type *out, size_t struct_size)                                        \
    {                                                                                         \
        static const type defaults = __VA_ARGS__;                                             \
        GR_ENTER();                                                                           \
        return gradreg_i_struct_init(out, struct_size, &defaults, sizeof(defaults), minimum); \
    }

GR_DEFINE_INIT(gradreg_context_params_init, gradreg_context_params,
               sizeof(gradreg_context_params), GRADREG_CONTEXT_PARAMS_INIT)
GR_DEFINE_INIT(gradreg_context_info_init, struct gradreg_context_info,
               sizeof(struct gradreg_context_info), GRADREG_CONTEXT_INFO_INIT)
GR_DEFINE_INIT(gradreg_allocator_init, gradreg_allocator, 0, { 0, 0, 0, 0 })
GR_DEFINE_INIT(gradreg_parallel_for_init, gradreg_parallel_for, 0, { 0, 0, { 0, 0 } })
GR_DEFINE_INIT(gradreg_log_init, gradreg_log, 0, { 0, 0, 0, 0, 0 })
GR_DEFINE_INIT(gradreg_segment_init, gradreg_segment, 0, GRADREG_SEGMENT_INIT)
GR_DEFINE_INIT(gradreg_schedule_init, gradreg_schedule, 0, GRADREG_SCHEDULE_INIT)
GR_DEFINE_INIT(gradreg_noise_init, gradreg_noise, 0, GRADREG_NOISE_INIT)
GR_DEFINE_INIT(gradreg_adaptive_init, gradreg_adaptive, 0, GRADREG_ADAPTIVE_INIT)
GR_DEFINE_INIT(gradreg_all_reduce_init, gradreg_all_reduce, 0, { 0, 0, 0, 0, 0 })
GR_DEFINE_INIT(gradreg_regularizer_params_init, gradreg_regularizer_params,
               sizeof(gradreg_regularizer_params), GRADREG_REGULARIZER_PARAMS_INIT)
GR_DEFINE_INIT(gradreg_buffers_init, gradreg_buffers, sizeof(gradreg_buffers),
               GRADREG_BUFFERS_INIT)
GR_DEFINE_INIT(gradreg_terms_init, gradreg_terms, sizeof(gradreg_terms), GRADREG_TERMS_INIT)
GR_DEFINE_INIT(gradreg_policy_init, gradreg_policy, sizeof(gradreg_policy), GRADREG_POLICY_INIT)
GR_DEFINE_INIT(gradreg_policy_batch_init, gradreg_policy_batch, sizeof(gradreg_policy_batch),
               GRADREG_POLICY_BATCH_INIT)
GR_DEFINE_INIT(gradreg_policy_gradient_init, gradreg_policy_gradient,
               sizeof(gradreg_policy_gradient), GRADREG_POLICY_GRADIENT_INIT)
GR_DEFINE_INIT(gradreg_policy_metrics_init, gradreg_policy_metrics,
               sizeof(gradreg_policy_metrics), GRADREG_POLICY_METRICS_INIT)
GR_DEFINE_INIT(gradreg_advantage_params_init, gradreg_advantage_params,
               sizeof(gradreg_advantage_params), GRADREG_ADVANTAGE_PARAMS_INIT)
GR_DEFINE_INIT(gradreg_probe_params_init, gradreg_probe_params, sizeof(gradreg_probe_params),
               GRADREG_PROBE_PARAMS_INIT)
GR_DEFINE_INIT(gradreg_probe_layer_init, gradreg_probe_layer, sizeof(gradreg_probe_layer),
               GRADREG_PROBE_LAYER_INIT)
