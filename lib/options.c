/* options.c - one pass over the parameters: defaults, ranges, refusals.
 *
 * In: the caller's struct. Out: a complete one, or a sentence that names the field. */
#include "options.h"

#include <math.h>
#include <stddef.h>

#include "context.h"
#include "params.h"
#include "schedule.h"
#include "status.h"
#include "types.h"

static const uint32_t all_roles = GRADREG_ROLE_ATTENTION | GRADREG_ROLE_MLP |
                                  GRADREG_ROLE_NORM | GRADREG_ROLE_EMBEDDING |
                                  GRADREG_ROLE_HEAD | GRADREG_ROLE_OTHER;
static const uint32_t block_roles =
    GRADREG_ROLE_ATTENTION | GRADREG_ROLE_MLP | GRADREG_ROLE_NORM;

/* An enumeration field: its default for 0, its legal range, and constants of later versions. */
typedef struct choice {
    const char *name;
    size_t at;
    int32_t value_for_zero, first, last;
    uint32_t later; /* bit per constant that this version refuses */
} choice;

#define CHOICE(field, default_value, first, last, later)                                       \
    {                                                                                          \
#field, offsetof(gradreg_regularizer_params, field), default_value, first, last, later \
    }

static const choice choices[] = {
    CHOICE(param_type, GRADREG_TYPE_F32, 1, GR_TYPES - 1, 0),
    CHOICE(grad_type, GRADREG_TYPE_F32, 1, GR_TYPES - 1, 0),
    CHOICE(compute_type, 0, 0, GR_TYPES - 1, 0),
    CHOICE(update_type, 0, 0, GR_TYPES - 1, (1u << GR_TYPES) - 2),
    CHOICE(step, GRADREG_STEP_RAW, 1, 3, 0),
    CHOICE(difference, GRADREG_DIFFERENCE_FORWARD, 1, 3, 1u << GRADREG_DIFFERENCE_BACKWARD),
    CHOICE(penalty, GRADREG_PENALTY_SQUARED_NORM, 1, 2, 0),
    CHOICE(depth, GRADREG_DEPTH_ON_UPDATE, 1, 2, 0),
    CHOICE(direction, GRADREG_DIRECTION_GRADIENT, 1, 4, 0),
    CHOICE(output, GRADREG_OUTPUT_REGULARIZED, 1, 3, 1u << GRADREG_OUTPUT_SECOND),
    CHOICE(common_clip, 0, 0, 1, 0),
    CHOICE(first_gradient, GRADREG_FIRST_GRADIENT_COPIED, 1, 3,
           1u << GRADREG_FIRST_GRADIENT_ACCUMULATED),
    CHOICE(second_gradient, GRADREG_SECOND_GRADIENT_OVERWRITES, 1, 2, 0),
    CHOICE(second_pass, GRADREG_SECOND_PASS_FULL, 1, 2, 0),
    CHOICE(placement, GRADREG_PLACEMENT_IN_PLACE, 1, 2, 0),
    CHOICE(restore, GRADREG_RESTORE_COPY, 1, 2, 0),
    CHOICE(perturb_from_master, 0, 0, 1, 1u << 1),
    CHOICE(rounding, GRADREG_ROUNDING_NEAREST, 1, 2, 0),
    CHOICE(non_finite_first, GRADREG_NON_FINITE_ZERO, 1, 2, 0),
    CHOICE(realised_step, 0, 0, 1, 1u << 1),
    CHOICE(warmup, GRADREG_WARMUP_ZERO, 1, 2, 0),
    CHOICE(decay, GRADREG_DECAY_CONSTANT, 1, 3, 0),
    CHOICE(noise.rule, GRADREG_NOISE_OFF, 1, 4, 0),
};

static gradreg_status read_choices(gradreg_regularizer_params *p)
{
    for (size_t i = 0; i < sizeof(choices) / sizeof(*choices); i++) {
        const choice *c = &choices[i];
        int32_t *field = (int32_t *)(void *)((char *)p + c->at);
        if (*field == 0)
            *field = c->value_for_zero;
        GR_REQUIRE(*field == c->value_for_zero || (*field >= c->first && *field <= c->last),
                   "params.%s is %d, must be 0 or %d to %d", c->name, *field, c->first,
                   c->last);
        if (c->later >> *field & 1u)
            return GR_FAIL(GRADREG_ERROR_UNSUPPORTED,
                           "params.%s = %d is not part of version 0.1", c->name, *field);
    }
    /* Here 0 and the constants do not form one range. */
    if (p->non_finite_second == 0)
        p->non_finite_second = GRADREG_NON_FINITE_KEEP_FIRST;
    GR_REQUIRE(p->non_finite_second == GRADREG_NON_FINITE_KEEP_FIRST ||
                   p->non_finite_second == GRADREG_NON_FINITE_ZERO,
               "params.non_finite_second is %d, must be KEEP_FIRST (%d) or ZERO (%d)",
               p->non_finite_second, GRADREG_NON_FINITE_KEEP_FIRST, GRADREG_NON_FINITE_ZERO);
    return GRADREG_OK;
}

typedef struct number {
    const char *name;
    double value, least, most;
    int above_least;   /* least itself is not allowed */
    const char *range; /* the same in words */
} number;

static gradreg_status check_numbers(const gradreg_regularizer_params *p)
{
    const number numbers[] = {
        { "strength", p->strength, 0, HUGE_VAL, 0, ">= 0" },
        { "epsilon", p->epsilon, 0, HUGE_VAL, 1, "> 0" },
        { "clip_first", p->clip_first, 0, HUGE_VAL, 0, ">= 0" },
        { "clip_second", p->clip_second, 0, HUGE_VAL, 0, ">= 0" },
        { "min_fidelity", p->min_fidelity, 0, 1, 0, ">= 0 and <= 1" },
        { "strength_end", p->strength_end, 0, HUGE_VAL, 0, ">= 0" },
        { "adaptive.a_min", p->adaptive.a_min, 0, HUGE_VAL, 0, ">= 0" },
        { "adaptive.a_max", p->adaptive.a_max, 0, HUGE_VAL, 0, ">= 0" },
        { "adaptive.power", p->adaptive.power, -HUGE_VAL, HUGE_VAL, 0, "finite" },
        { "adaptive.ema", p->adaptive.ema, 0, 0x1.fffffffffffffp-1, 0, ">= 0 and < 1" },
        { "noise.scale", p->noise.scale, -HUGE_VAL, HUGE_VAL, 0, "finite" },
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        const number *n = &numbers[i];
        GR_REQUIRE(isfinite(n->value), "params.%s is %g, must be finite", n->name, n->value);
        const int fits = n->value <= n->most &&
                         (n->above_least ? n->value > n->least : n->value >= n->least);
        GR_REQUIRE(fits, "params.%s is %g, must be %s", n->name, n->value, n->range);
    }
    GR_REQUIRE(p->adaptive.a_max == 0 || p->adaptive.a_max >= p->adaptive.a_min,
               "params.adaptive.a_max is %g, must be 0 or at least a_min = %g",
               p->adaptive.a_max, p->adaptive.a_min);
    return GRADREG_OK;
}

static gradreg_status read_roles(uint32_t *roles, uint32_t value_for_zero, const char *name)
{
    if (*roles == 0)
        *roles = value_for_zero;
    GR_REQUIRE((*roles & ~all_roles) == 0, "params.%s is 0x%x, has bits outside 0x%x", name,
               *roles, all_roles);
    return GRADREG_OK;
}

static gradreg_status read_noise(gradreg_regularizer_params *p)
{
    gradreg_noise *noise = &p->noise;
    for (int i = 0; i < 5; i++)
        GR_REQUIRE(noise->reserved[i] == 0, "params.noise.reserved[%d] must be 0", i);
    GR_TRY(read_roles(&noise->roles, GRADREG_ROLE_ATTENTION, "noise.roles"));
    if (noise->rule == GRADREG_NOISE_OFF)
        return GRADREG_OK;
    if (noise->first_layer == -1 && noise->last_layer == -1) {
        GR_REQUIRE(p->schedule.first_layer > 0,
                   "params.noise: its default layers are those before schedule.first_layer, "
                   "which is 0: set noise.first_layer and last_layer");
        noise->first_layer = 0;
        noise->last_layer = p->schedule.first_layer - 1;
    }
    GR_REQUIRE(noise->first_layer >= 0 && noise->first_layer <= noise->last_layer &&
                   noise->last_layer < p->layer_count,
               "params.noise: layers %d to %d, must be within 0 to %d", noise->first_layer,
               noise->last_layer, p->layer_count - 1);
    if (noise->scale == 0)
        noise->scale = noise->rule == GRADREG_NOISE_RELATIVE  ? 0x1p-7
                       : noise->rule == GRADREG_NOISE_NEFTUNE ? 5
                                                              : 1;
    if (noise->rule == GRADREG_NOISE_STEP && p->direction != GRADREG_DIRECTION_GRADIENT)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED,
                       "params.noise.rule = STEP follows the Hessian "
                       "step and needs direction GRADIENT");
    return GRADREG_OK;
}

static gradreg_status check_ranks(gradreg_regularizer_params *p)
{
    if (p->world == 0)
        p->world = 1;
    GR_REQUIRE(p->world >= 1 && p->world <= 1 << 20, "params.world is %d, must be 1 to 2^20",
               p->world);
    GR_REQUIRE(p->rank >= 0 && p->rank < p->world,
               "params.rank is %d, must be 0 to world - 1 = %d", p->rank, p->world - 1);
    GR_REQUIRE(p->world == 1 || p->all_reduce.function != NULL,
               "params.all_reduce.function is NULL, world = %d needs one", p->world);
    GR_REQUIRE(p->all_reduce.reserved0 == 0 && p->all_reduce.reserved1 == NULL,
               "params.all_reduce.reserved0 and reserved1 must be 0");
    return GRADREG_OK;
}

/* The product of a Hessian and a vector knows no regularizer. */
static void read_product(gradreg_regularizer_params *p)
{
    if (p->output != GRADREG_OUTPUT_PRODUCT)
        return;
    p->clip_first = p->clip_second = 0;
    p->common_clip = 0;
    p->min_fidelity = 0;
    p->interval = 1;
    p->depth = GRADREG_DEPTH_ON_UPDATE;
    p->penalty = GRADREG_PENALTY_SQUARED_NORM;
    p->noise.rule = GRADREG_NOISE_OFF;
}

static gradreg_status refuse_combinations(const gradreg_regularizer_params *p)
{
    const int product = p->output == GRADREG_OUTPUT_PRODUCT;
    const int truncated = p->second_pass == GRADREG_SECOND_PASS_TRUNCATED;
    const char *why = NULL;
    if (product && p->step == GRADREG_STEP_RELATIVE)
        why = "output PRODUCT with step RELATIVE: the step is not along the direction";
    else if (product && truncated)
        why = "output PRODUCT with second_pass TRUNCATED: every row of H u is wanted";
    else if (truncated && p->depth == GRADREG_DEPTH_ON_PENALTY)
        why = "second_pass TRUNCATED with depth ON_PENALTY: rows of early layers are not 0";
    else if (truncated && p->clip_second > 0 && !p->common_clip)
        why =
            "second_pass TRUNCATED with clip_second: needs common_clip = 1 or clip_second = 0";
    else if (p->placement == GRADREG_PLACEMENT_OUT_OF_PLACE &&
             p->restore == GRADREG_RESTORE_MASTER)
        why =
            "placement OUT_OF_PLACE with restore MASTER: params stay clean, nothing to restore";
    if (why != NULL)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED, "params: %s", why);
    return GRADREG_OK;
}

int gradreg_i_type_pair_known(gradreg_type param_type, gradreg_type grad_type)
{
#define GR_OR_IS(P, G) || (param_type == GRADREG_TYPE_##P && grad_type == GRADREG_TYPE_##G)
    return 0 GR_EACH_PAIR(GR_OR_IS);
#undef GR_OR_IS
}

const char *gradreg_i_type_name(gradreg_type type)
{
    switch ((enum gr_type)type) {
    case GR_TYPE_F32: break;
    case GR_TYPE_BF16: return "bf16";
    case GR_TYPE_F16: return "f16";
    }
    return "f32";
}

gradreg_status gradreg_i_options_read(gradreg_regularizer_params *out,
                                      const gradreg_regularizer_params *caller)
{
    const gradreg_regularizer_params defaults = GRADREG_REGULARIZER_PARAMS_INIT;
    GR_REQUIRE(caller != NULL, "argument 'params' must not be NULL");
    *out = defaults;
    GR_TRY(gradreg_i_struct_read(out, sizeof(*out), sizeof(*out), caller, "params"));
    GR_REQUIRE(out->layer_count >= 1 && out->layer_count <= GR_LAYER_COUNT_LIMIT,
               "params.layer_count is %d, must be 1 to %d", out->layer_count,
               GR_LAYER_COUNT_LIMIT);
    GR_TRY(gradreg_i_schedule_resolve(&out->schedule, out->layer_count, "params.schedule"));
    GR_TRY(read_choices(out));
    GR_TRY(check_numbers(out));
    GR_TRY(read_roles(&out->regularized_roles, block_roles, "regularized_roles"));
    GR_TRY(read_roles(&out->perturbed_roles, block_roles, "perturbed_roles"));
    if (out->interval == 0)
        out->interval = 1;
    GR_REQUIRE(out->interval >= 1, "params.interval is %d, must be >= 1", out->interval);
    GR_REQUIRE(out->decay == GRADREG_DECAY_CONSTANT || out->decay_steps >= 1,
               "params.decay_steps is 0, decay %d needs at least 1", out->decay);
    GR_TRY(check_ranks(out));
    GR_TRY(refuse_combinations(out));
    read_product(out);
    return read_noise(out);
}

void gradreg_i_options_remark(gradreg_context *context, const gradreg_regularizer_params *p)
{
    if ((p->clip_first > 0) != (p->clip_second > 0))
        gradreg_i_log(
            context, GRADREG_LOG_WARNING,
            "params: clip_first = %g with clip_second = %g: a clip on one gradient only "
            "turns the correction into a multiple of the gradient itself",
            p->clip_first, p->clip_second);
    if (p->output == GRADREG_OUTPUT_REGULARIZED && p->strength == 0)
        gradreg_i_log(context, GRADREG_LOG_WARNING,
                      "params.strength is 0: nothing is regularized until set_strength");
    if ((p->regularized_roles & p->perturbed_roles) == 0)
        gradreg_i_log(context, GRADREG_LOG_WARNING,
                      "params: regularized_roles and perturbed_roles have nothing in common");
}
