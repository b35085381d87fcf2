/* check_bad_params.c - the part of the matrix for the parameters of a regularizer.
 *
 * Each row goes to create and to workspace_bytes. The regularizer that the caller has already must
 * not notice: it makes its step afterwards. */
#include "bad_input.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;
static const gradreg_status unsupported = GRADREG_ERROR_UNSUPPORTED;

static void still_works(struct caller *c)
{
    caller_describe(c, &plain_mode);
    assert_accepted(gradreg_regularizer_workspace_bytes(
        &c->own.size, c->context, c->own.segments, CALLER_SEGMENTS, &c->own.params));
    caller_lead_to(c, COMBINE);
    ck_assert_uint_eq(caller_go_on(c), caller_undisturbed(&plain_mode, COMBINE));
}

/* ---- fields by themselves ---------------------------------------------------------- */

#define P gradreg_regularizer_params
#define UNKNOWN(field, next) \
    BAD_INTEGER(P, field, -1), BAD_INTEGER(P, field, next), BAD_INTEGER(P, field, 2147483647)
#define NOT_FINITE(field)                                                                \
    BAD_REAL(P, field, (double)NAN, "nan"), BAD_REAL(P, field, (double)INFINITY, "inf"), \
        BAD_REAL(P, field, -(double)INFINITY, "-inf")
#define NOT_NEGATIVE(field) NOT_FINITE(field), BAD_REAL(P, field, -0.5, "-0.5")
static const struct spoilt bad_fields[] = {
    UNKNOWN(param_type, 4),
    UNKNOWN(grad_type, 4),
    UNKNOWN(compute_type, 4),
    UNKNOWN(update_type, 4),
    UNKNOWN(layer_count, 65537),
    BAD_INTEGER(P, layer_count, 0),
    UNKNOWN(step, 4),
    UNKNOWN(difference, 4),
    UNKNOWN(penalty, 3),
    UNKNOWN(depth, 3),
    UNKNOWN(direction, 5),
    UNKNOWN(output, 4),
    UNKNOWN(common_clip, 2),
    UNKNOWN(first_gradient, 4),
    UNKNOWN(second_gradient, 3),
    UNKNOWN(second_pass, 3),
    UNKNOWN(placement, 3),
    UNKNOWN(restore, 3),
    UNKNOWN(perturb_from_master, 2),
    UNKNOWN(rounding, 3),
    UNKNOWN(non_finite_first, 4),
    BAD_INTEGER(P, non_finite_first, 3), /* KEEP_FIRST: there is nothing else to keep */
    UNKNOWN(non_finite_second, 4),
    BAD_INTEGER(P, non_finite_second, 2), /* PROPAGATE */
    UNKNOWN(realised_step, 2),
    UNKNOWN(warmup, 3),
    UNKNOWN(decay, 4),
    UNKNOWN(noise.rule, 5),
    UNKNOWN(schedule.curve, 6),
    BAD_INTEGER(P, interval, -1),
    BAD_INTEGER(P, rank, -1),
    BAD_INTEGER(P, rank, 1),
    BAD_INTEGER(P, world, -1),
    BAD_INTEGER(P, world, 1048577),
    LATER(P, update_type, 1),
    LATER(P, update_type, 2),
    LATER(P, update_type, 3),
    LATER(P, difference, 2),
    LATER(P, output, 3),
    LATER(P, first_gradient, 3),
    LATER(P, perturb_from_master, 1),
    LATER(P, realised_step, 1),
    NOT_NEGATIVE(strength),
    NOT_NEGATIVE(epsilon),
    BAD_REAL(P, epsilon, 0.0, "0"),
    NOT_NEGATIVE(clip_first),
    NOT_NEGATIVE(clip_second),
    NOT_NEGATIVE(min_fidelity),
    BAD_REAL(P, min_fidelity, 1.5, "1.5"),
    NOT_NEGATIVE(strength_end),
    NOT_NEGATIVE(adaptive.a_min),
    NOT_NEGATIVE(adaptive.a_max),
    NOT_FINITE(adaptive.power),
    NOT_NEGATIVE(adaptive.ema),
    BAD_REAL(P, adaptive.ema, 1.0, "1"),
    NOT_FINITE(noise.scale),
    NOT_NEGATIVE(schedule.outside_multiplier),
    BAD_RESERVED(P, schedule.reserved0, 32),
    BAD_RESERVED(P, schedule.reserved1[0], 64),
    BAD_RESERVED(P, schedule.reserved1[1], 64),
    BAD_RESERVED(P, schedule.reserved1[2], 64),
    BAD_RESERVED(P, noise.reserved[0], 64),
    BAD_RESERVED(P, noise.reserved[1], 64),
    BAD_RESERVED(P, noise.reserved[2], 64),
    BAD_RESERVED(P, noise.reserved[3], 64),
    BAD_RESERVED(P, noise.reserved[4], 64),
    BAD_RESERVED(P, all_reduce.reserved0, 32),
    BAD_RESERVED(P, all_reduce.reserved1, 64),
    { "regularized_roles", offsetof(P, regularized_roles), INTEGER_32, 64, 0,
      GRADREG_ERROR_INVALID_ARGUMENT, "0x40" },
    { "perturbed_roles", offsetof(P, perturbed_roles), INTEGER_32, INT32_MIN, 0,
      GRADREG_ERROR_INVALID_ARGUMENT, "0x80000000" },
    { "noise.roles", offsetof(P, noise.roles), INTEGER_32, -1, 0,
      GRADREG_ERROR_INVALID_ARGUMENT, "0xffffffff" },
};
enum { BAD_FIELDS = sizeof(bad_fields) / sizeof(bad_fields[0]) };

START_TEST(bad_fields_are_named)
{
    const struct spoilt *bad = &bad_fields[_i];
    struct caller *c = caller_open(&plain_mode);

    spoil(&c->own.params, bad);
    caller_refuse_description(c, bad->field, bad->want, spoilt_name(bad), bad->value);
    still_works(c);
    caller_close(c);
}
END_TEST

/* ---- fields together --------------------------------------------------------------- */

static void product(P *p)
{
    p->output = GRADREG_OUTPUT_PRODUCT;
}

static void product_relative(P *p)
{
    product(p);
    p->step = GRADREG_STEP_RELATIVE;
}

static void truncated(P *p)
{
    p->second_pass = GRADREG_SECOND_PASS_TRUNCATED;
    p->common_clip = 1;
}

static void product_truncated(P *p)
{
    product(p);
    truncated(p);
}

static void truncated_on_penalty(P *p)
{
    truncated(p);
    p->depth = GRADREG_DEPTH_ON_PENALTY;
}

static void truncated_with_clip(P *p)
{
    truncated(p);
    p->common_clip = 0;
}

static void master_elsewhere(P *p)
{
    p->placement = GRADREG_PLACEMENT_OUT_OF_PLACE;
    p->restore = GRADREG_RESTORE_MASTER;
}

static void f32_weights_bf16_gradients(P *p)
{
    p->grad_type = GRADREG_TYPE_BF16;
}

static void bf16_weights_f16_gradients(P *p)
{
    p->param_type = GRADREG_TYPE_BF16;
    p->grad_type = GRADREG_TYPE_F16;
}

static void step_noise(P *p)
{
    p->noise.rule = GRADREG_NOISE_STEP;
}

static void step_noise_bf16(P *p)
{
    step_noise(p);
    p->param_type = GRADREG_TYPE_BF16;
}

static void step_noise_bf16_compute(P *p)
{
    step_noise(p);
    p->compute_type = GRADREG_TYPE_BF16;
}

static void step_noise_other_direction(P *p)
{
    step_noise(p);
    p->direction = GRADREG_DIRECTION_GAUSSIAN;
}

static void step_noise_not_perturbed(P *p)
{
    step_noise(p);
    p->perturbed_roles = GRADREG_ROLE_MLP;
}

static void step_noise_zero_weight(P *p)
{
    step_noise(p);
    p->depth = GRADREG_DEPTH_ON_PENALTY;
}

static void noise_before_layer_0(P *p)
{
    p->schedule.first_layer = p->schedule.full_layer = 0;
}

static void noise_backwards(P *p)
{
    p->noise.first_layer = 2;
    p->noise.last_layer = 1;
}

static void noise_past_the_end(P *p)
{
    p->noise.first_layer = 0;
    p->noise.last_layer = CALLER_LAYERS;
}

static void noise_half_default(P *p)
{
    p->noise.last_layer = 2;
}

static void noise_nowhere(P *p)
{
    p->noise.roles = GRADREG_ROLE_EMBEDDING;
}

static void adaptive_empty(P *p)
{
    p->adaptive.a_min = 3.0;
}

static void linear_without_end(P *p)
{
    p->decay = GRADREG_DECAY_LINEAR;
}

static void cosine_without_end(P *p)
{
    p->decay = GRADREG_DECAY_COSINE;
}

static void ranks_without_reduce(P *p)
{
    p->world = 2;
    p->all_reduce.function = NULL;
}

static void rank_past_world(P *p)
{
    p->world = 2;
    p->rank = 2;
}

static void slice_past_the_end(P *p)
{
    p->slice_begin = 33;
    p->slice_count = 8;
}

static void slice_around_the_corner(P *p)
{
    p->slice_begin = UINT64_MAX;
    p->slice_count = 2;
}

static void parameter_count_too_small(P *p)
{
    p->parameter_count = 39;
}

#undef P

static const struct combination {
    const char *what;
    void (*set)(gradreg_regularizer_params *p);
    gradreg_status want;
    const char *word, *value;
} combinations[] = {
#define COMBINATION(name, want, word, value)           \
    {                                                  \
#name, name, GRADREG_ERROR_##want, word, value \
    }
    COMBINATION(product_relative, UNSUPPORTED, "params", "RELATIVE"),
    COMBINATION(product_truncated, UNSUPPORTED, "params", "TRUNCATED"),
    COMBINATION(truncated_on_penalty, UNSUPPORTED, "params", "ON_PENALTY"),
    COMBINATION(truncated_with_clip, UNSUPPORTED, "params", "clip_second"),
    COMBINATION(master_elsewhere, UNSUPPORTED, "params", "OUT_OF_PLACE"),
    COMBINATION(f32_weights_bf16_gradients, UNSUPPORTED, "segments[0]", "bf16"),
    COMBINATION(bf16_weights_f16_gradients, UNSUPPORTED, "segments[0]", "f16"),
    COMBINATION(step_noise_bf16, UNSUPPORTED, "params.noise.rule", "segments[0]"),
    COMBINATION(step_noise_bf16_compute, UNSUPPORTED, "params.noise.rule", "segments[0]"),
    COMBINATION(step_noise_other_direction, UNSUPPORTED, "params.noise.rule", "direction"),
    COMBINATION(step_noise_not_perturbed, UNSUPPORTED, "params.noise.rule", "segments[0]"),
    COMBINATION(step_noise_zero_weight, UNSUPPORTED, "params.noise.rule", "segments[0]"),
    COMBINATION(noise_before_layer_0, INVALID_ARGUMENT, "params.noise", "first_layer"),
    COMBINATION(noise_backwards, INVALID_ARGUMENT, "params.noise", "2 to 1"),
    COMBINATION(noise_past_the_end, INVALID_ARGUMENT, "params.noise", "0 to 4"),
    COMBINATION(noise_half_default, INVALID_ARGUMENT, "params.noise", "-1 to 2"),
    COMBINATION(noise_nowhere, INVALID_ARGUMENT, "params.noise", "0x8"),
    COMBINATION(adaptive_empty, INVALID_ARGUMENT, "params.adaptive.a_max", "3"),
    COMBINATION(linear_without_end, INVALID_ARGUMENT, "params.decay_steps", "0"),
    COMBINATION(cosine_without_end, INVALID_ARGUMENT, "params.decay_steps", "0"),
    COMBINATION(ranks_without_reduce, INVALID_ARGUMENT, "params.all_reduce.function", "NULL"),
    COMBINATION(rank_past_world, INVALID_ARGUMENT, "params.rank", "2"),
    COMBINATION(slice_past_the_end, INVALID_ARGUMENT, "slice_begin 33", "parameter_count"),
    COMBINATION(slice_around_the_corner, INVALID_ARGUMENT, "slice_begin", "slice_count 2"),
    COMBINATION(parameter_count_too_small, INVALID_ARGUMENT, "segments[5]", "39"),
};
enum { COMBINATIONS = sizeof(combinations) / sizeof(combinations[0]) };

START_TEST(bad_combinations_are_named)
{
    const struct combination *row = &combinations[_i];
    struct caller *c = caller_open(&plain_mode);

    row->set(&c->own.params);
    caller_refuse_description(c, row->what, row->want, row->word, row->value);
    still_works(c);
    caller_close(c);
}
END_TEST

/* A product takes no part in the regularizer's clips, noise and depth, and does not mind them. */
START_TEST(a_product_ignores_what_it_does_not_use)
{
    struct caller *c = caller_open(&plain_mode);
    gradreg_regularizer_params *p = &c->own.params;

    product(p);
    p->depth = GRADREG_DEPTH_ON_PENALTY;
    p->penalty = GRADREG_PENALTY_NORM;
    p->interval = 7;
    p->min_fidelity = 0.5;
    assert_accepted(gradreg_regularizer_create(&c->own.regularizer_out, c->context,
                                               c->own.segments, CALLER_SEGMENTS, p));
    assert_accepted(gradreg_regularizer_destroy(c->own.regularizer_out));
    caller_close(c);
}
END_TEST

/* ---- structs of other versions, NULL, counts --------------------------------------- */

START_TEST(params_of_other_versions)
{
    struct caller *c = caller_open(&plain_mode);
    gradreg_regularizer_params *p = &c->own.params;

    for (int i = 0; i < BAD_SIZES; i++) {
        char value[32];
        p->struct_size = bad_size(sizeof(*p), i);
        (void)snprintf(value, sizeof(value), "%lu", (unsigned long)p->struct_size);
        caller_refuse_description(c, "struct_size", invalid, "params.struct_size", value);
    }
    for (int i = 0; i < CALLER_TAIL; i += CALLER_TAIL - 1) {
        p->struct_size = (uint32_t)sizeof(*p) + CALLER_TAIL;
        c->own.params_tail[i] = 1;
        caller_refuse_description(c, "later field", unsupported, "params", "version");
        c->own.params_tail[i] = 0;
    }
    assert_accepted(gradreg_regularizer_create(&c->own.regularizer_out, c->context,
                                               c->own.segments, CALLER_SEGMENTS, p));
    assert_accepted(gradreg_regularizer_destroy(c->own.regularizer_out));
    caller_close(c);
}
END_TEST

START_TEST(create_refuses_null_and_empty)
{
    struct caller *c = caller_open(&plain_mode);
    struct belongings *own = &c->own;
    const char *name = "gradreg_regularizer_create";

#define CREATE(out, context, segments, count, params) \
    gradreg_regularizer_create(out, context, segments, count, params)
    assert_refused(c, name, "NULL out",
                   CREATE(NULL, c->context, own->segments, CALLER_SEGMENTS, &own->params),
                   invalid, "'out'", "NULL");
    gradreg_regularizer **out = &own->regularizer_out;
    assert_refused(c, name, "NULL context",
                   CREATE(out, NULL, own->segments, CALLER_SEGMENTS, &own->params), invalid,
                   "'context'", "NULL");
    assert_refused(c, name, "NULL segments",
                   CREATE(out, c->context, NULL, CALLER_SEGMENTS, &own->params), invalid,
                   "'segments'", "NULL");
    assert_refused(c, name, "NULL params",
                   CREATE(out, c->context, own->segments, CALLER_SEGMENTS, NULL), invalid,
                   "'params'", "NULL");
    assert_refused(c, name, "no segment",
                   CREATE(out, c->context, own->segments, 0, &own->params), invalid,
                   "segment_count", "0");
    assert_refused(c, name, "too many segments",
                   CREATE(out, c->context, own->segments, (size_t)1 << 31, &own->params),
                   invalid, "segment_count", "2147483648");
#undef CREATE
    c->allocator.fail_at = c->allocator.calls + 1;
    c->allocator.fail_onwards = true;
    caller_refuse_description(c, "no memory", GRADREG_ERROR_OUT_OF_MEMORY, "allocate", "NULL");
    caller_close(c);
}
END_TEST

START_TEST(workspace_bytes_refuses_null_and_empty)
{
    struct caller *c = caller_open(&plain_mode);
    struct belongings *own = &c->own;
    const char *name = "gradreg_regularizer_workspace_bytes";

#define BYTES(out, context, segments, count, params) \
    gradreg_regularizer_workspace_bytes(out, context, segments, count, params)
    assert_refused(c, name, "NULL out",
                   BYTES(NULL, c->context, own->segments, CALLER_SEGMENTS, &own->params),
                   invalid, "'out'", "NULL");
    assert_refused(c, name, "NULL context",
                   BYTES(&own->size, NULL, own->segments, CALLER_SEGMENTS, &own->params),
                   invalid, "'context'", "NULL");
    assert_refused(c, name, "NULL segments",
                   BYTES(&own->size, c->context, NULL, CALLER_SEGMENTS, &own->params), invalid,
                   "'segments'", "NULL");
    assert_refused(c, name, "NULL params",
                   BYTES(&own->size, c->context, own->segments, CALLER_SEGMENTS, NULL), invalid,
                   "'params'", "NULL");
    assert_refused(c, name, "no segment",
                   BYTES(&own->size, c->context, own->segments, 0, &own->params), invalid,
                   "segment_count", "0");
#undef BYTES
    caller_close(c);
}
END_TEST

TCase *bad_params_case(void)
{
    TCase *tests = tcase_create("parameters");

    add_loop_test(tests, bad_fields_are_named, 0, BAD_FIELDS);
    add_loop_test(tests, bad_combinations_are_named, 0, COMBINATIONS);
    tcase_add_test(tests, a_product_ignores_what_it_does_not_use);
    tcase_add_test(tests, params_of_other_versions);
    tcase_add_test(tests, create_refuses_null_and_empty);
    tcase_add_test(tests, workspace_bytes_refuses_null_and_empty);
    return tests;
}
