/* check_bad_slices.c - the part of the matrix for what concerns all buffers of a call: the struct
 * itself, counts, slices, other buffers than in the call before, tables that flat buffers cannot
 * serve. */
#include "bad_rows.h"

#include <stdio.h>
#include <string.h>

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

/* ---- what concerns all buffers ----------------------------------------------------- */

static void spoil_by_offset(struct caller *c, const struct defect *d)
{
    memset((char *)&c->own.buffers + d->segment, 1, sizeof(void *));
}

static void ask_twice(struct caller *c, const struct defect *d)
{
    (void)d;
    c->own.buffers.verify_master = 2;
}

static void misalign_scale(struct caller *c, const struct defect *d)
{
    (void)d;
    c->own.buffers.grad_scale = (const float *)(const void *)((char *)c->own.grad_scale + 1);
}

static void misalign_found(struct caller *c, const struct defect *d)
{
    (void)d;
    c->own.buffers.found_inf = (float *)(void *)((char *)c->own.found_inf + 2);
}

static void add_later_field(struct caller *c, const struct defect *d)
{
    c->own.buffers.struct_size = (uint32_t)sizeof(gradreg_buffers) + CALLER_TAIL;
    c->own.buffers_tail[d->segment] = 1;
}

static void resize(struct caller *c, const struct defect *d)
{
    c->own.buffers.struct_size = bad_size(sizeof(gradreg_buffers), (int)d->segment);
}

#define LATER_FIELD(name)                  \
    {                                      \
        { #name,                           \
          PARAMS,                          \
          PARAMS,                          \
          offsetof(gradreg_buffers, name), \
          GRADREG_ERROR_UNSUPPORTED,       \
          { "buffers." #name, "0.1" } },   \
            spoil_by_offset                \
    }
static const struct general {
    struct defect defect;
    void (*spoil_buffers)(struct caller *c, const struct defect *d);
} generals[] = {
    LATER_FIELD(update),
    LATER_FIELD(first_norm),
    LATER_FIELD(second_norm),
    { { "update_pointers",
        PARAMS,
        PARAMS,
        offsetof(gradreg_buffers, update_pointers),
        GRADREG_ERROR_UNSUPPORTED,
        { "buffers.update", "0.1" } },
      spoil_by_offset },
    { { "verify_master",
        PARAMS,
        PARAMS,
        0,
        GRADREG_ERROR_INVALID_ARGUMENT,
        { "buffers.verify_master", "2" } },
      ask_twice },
    { { "grad_scale",
        PARAMS,
        PARAMS,
        0,
        GRADREG_ERROR_INVALID_ARGUMENT,
        { "buffers.grad_scale", "aligned" } },
      misalign_scale },
    { { "found_inf",
        PARAMS,
        PARAMS,
        0,
        GRADREG_ERROR_INVALID_ARGUMENT,
        { "buffers.found_inf", "aligned" } },
      misalign_found },
    { { "first later byte",
        PARAMS,
        PARAMS,
        0,
        GRADREG_ERROR_UNSUPPORTED,
        { "buffers", "version" } },
      add_later_field },
    { { "last later byte",
        PARAMS,
        PARAMS,
        CALLER_TAIL - 1,
        GRADREG_ERROR_UNSUPPORTED,
        { "buffers", "version" } },
      add_later_field },
    { { "size 0",
        PARAMS,
        PARAMS,
        0,
        GRADREG_ERROR_INVALID_ARGUMENT,
        { "buffers.struct_size", "0" } },
      resize },
    { { "size 4",
        PARAMS,
        PARAMS,
        1,
        GRADREG_ERROR_INVALID_ARGUMENT,
        { "buffers.struct_size", "4" } },
      resize },
    { { "too small",
        PARAMS,
        PARAMS,
        2,
        GRADREG_ERROR_INVALID_ARGUMENT,
        { "buffers.struct_size", "" } },
      resize },
    { { "4097",
        PARAMS,
        PARAMS,
        3,
        GRADREG_ERROR_INVALID_ARGUMENT,
        { "buffers.struct_size", "4097" } },
      resize },
    { { "largest",
        PARAMS,
        PARAMS,
        4,
        GRADREG_ERROR_INVALID_ARGUMENT,
        { "buffers.struct_size", "4294967295" } },
      resize },
};
enum { GENERALS = sizeof(generals) / sizeof(generals[0]) };

START_TEST(fields_that_every_call_reads)
{
    struct row row;
    if (!bad_row(&row, _i))
        return;
    for (size_t i = 0; i < GENERALS; i++)
        bad_row_refuses(&row, &generals[i].defect, generals[i].spoil_buffers);
}
END_TEST

static gradreg_status call_without_buffers(struct caller *c, enum call call)
{
    double epsilon;
    switch (call) {
    case INJECT_NOISE: return gradreg_regularizer_inject_noise(c->regularizer, NULL);
    case REMOVE_NOISE: return gradreg_regularizer_remove_noise(c->regularizer, NULL);
    case PERTURB: return gradreg_regularizer_perturb(c->regularizer, NULL);
    case SUGGEST_EPSILON:
        return gradreg_regularizer_suggest_epsilon(c->regularizer, &epsilon, NULL, 0.5);
    case MIRROR: return gradreg_regularizer_mirror(c->regularizer, NULL);
    case FALLBACK: return gradreg_regularizer_fallback(c->regularizer, NULL);
    case CANCEL: return gradreg_regularizer_cancel(c->regularizer, NULL);
    default: return gradreg_regularizer_combine(c->regularizer, NULL);
    }
}

static gradreg_status call_without_handle(struct caller *c, enum call call)
{
    struct caller nobody = { .own.buffers = c->own.buffers };
    return caller_do(&nobody, call);
}

START_TEST(null_arguments)
{
    struct row row;
    if (!bad_row(&row, _i))
        return;
    struct caller *c = bad_row_begin(&row);
    assert_refused(c, call_name(row.call), "NULL buffers", call_without_buffers(c, row.call),
                   invalid, "'buffers'", "NULL");
    assert_refused(c, call_name(row.call), "NULL handle", call_without_handle(c, row.call),
                   invalid, "'regularizer'", "NULL");
    ck_assert_uint_eq(caller_go_on(c), row.undisturbed);
    caller_close(c);
}
END_TEST

/* Zeros behind a newer caller's struct ask for nothing. */
START_TEST(buffers_of_a_newer_caller)
{
    struct row row;
    if (!bad_row(&row, _i))
        return;
    struct caller *c = bad_row_begin(&row);
    c->own.buffers.struct_size += CALLER_TAIL;
    ck_assert_uint_eq(caller_go_on(c), row.undisturbed);
    caller_close(c);
}
END_TEST

/* Only clean weights can be compared with their master copies. */
START_TEST(masters_are_not_checked_under_noise)
{
    static const struct mode mode = { .name = "master", .restore = GRADREG_RESTORE_MASTER };
    struct caller *c = caller_open(&mode);

    caller_lead_to(c, REMOVE_NOISE); /* noisy */
    c->own.buffers.verify_master = 1;
    assert_refused(c, "gradreg_regularizer_perturb", "noise is in",
                   gradreg_regularizer_perturb(c->regularizer, &c->own.buffers), invalid,
                   "buffers.verify_master", "1");
    c->own.buffers.verify_master = 0;
    ck_assert_uint_eq(caller_go_on(c), caller_undisturbed(&mode, REMOVE_NOISE));
    caller_close(c);
}
END_TEST

/* ---- counts and slices ------------------------------------------------------------- */

static void shorten(struct caller *c, const struct defect *d)
{
    c->own.buffers.count = d->segment;
}

static void shift_slice(struct caller *c, const struct defect *d)
{
    c->own.buffers.slice_begin += d->segment;
}

START_TEST(flat_buffers_hold_what_was_declared)
{
    struct row row;
    if (!bad_row(&row, _i) || row.mode->pointers)
        return;
    const size_t counts[] = { 0, CALLER_ELEMENTS - 1 };
    for (int i = 0; i < 2; i++) {
        const struct defect d = { "count",   PARAMS,  PARAMS,
                                  counts[i], invalid, { "count", "slice_begin" } };
        bad_row_refuses(&row, &d, shorten);
    }
    const size_t shifts[] = { 1, CALLER_ELEMENTS + 1, SIZE_MAX / 2 };
    for (int i = 0; i < 3; i++) {
        const struct defect d = { "slice_begin", PARAMS,  PARAMS,
                                  shifts[i],     invalid, { "buffers", "slice_begin" } };
        bad_row_refuses(&row, &d, shift_slice);
    }
}
END_TEST

/* ---- other buffers than before ----------------------------------------------------- */

static void move_weights(struct caller *c, const struct defect *d)
{
    if (c->mode->pointers)
        *caller_pointer(c, d->field, 2) = c->own.elements[d->field] + CALLER_ELEMENTS;
    else
        *caller_flat(c, d->field) = c->own.elements[d->field] + 1;
}

START_TEST(weights_stay_the_same_within_a_step)
{
    struct row row;
    if (!bad_row(&row, _i) || begins_a_step(row.call))
        return;
    const bool elsewhere = row.mode->placement == GRADREG_PLACEMENT_OUT_OF_PLACE;
    const enum field moved = elsewhere ? PERTURBED_PARAMS : PARAMS;
    const struct defect d = { "other weights", moved,
                              moved,           0,
                              invalid,         { "buffers.", "changed within the step" } };
    if (bad_row_needs(&row, moved))
        bad_row_refuses(&row, &d, move_weights);
}
END_TEST

/* Without a declared slice any may come, but all calls of a step bring the same. */
START_TEST(a_slice_stays_the_same_within_a_step)
{
    static const struct mode mode = { .name = "any slice", .world = 2 };
    const struct row row = { &mode, COMBINE, caller_undisturbed(&mode, COMBINE) };
    const struct defect shorter = { "count", PARAMS,
                                    PARAMS,  CALLER_ELEMENTS - 1,
                                    invalid, { "buffers", "changed within the step" } };
    const struct defect later = { "slice_begin", PARAMS,
                                  PARAMS,        1,
                                  invalid,       { "buffers", "changed within the step" } };

    bad_row_refuses(&row, &shorter, shorten);
    bad_row_refuses(&row, &later, shift_slice);
}
END_TEST

START_TEST(a_slice_does_not_go_round_the_corner)
{
    static const struct mode mode = { .name = "any slice", .world = 2 };
    const struct row row = { &mode, PERTURB, caller_undisturbed(&mode, PERTURB) };
    const struct defect beyond = {
        "slice_begin",       PARAMS,  PARAMS,
        CALLER_ELEMENTS + 1, invalid, { "buffers.slice_begin", "41" }
    };

    bad_row_refuses(&row, &beyond, shift_slice);
}
END_TEST

/* ---- tables that flat buffers cannot serve ----------------------------------------- */

static void refuse_perturb(struct caller *c, const char *what, const char *word,
                           const char *other_word)
{
    assert_refused(c, "gradreg_regularizer_perturb", what,
                   gradreg_regularizer_perturb(c->regularizer, &c->own.buffers), invalid, word,
                   other_word);
}

START_TEST(mixed_types_need_a_pointer_per_segment)
{
    struct caller *c = caller_open(&plain_mode);

    c->own.segments[1].param_type = GRADREG_TYPE_BF16;
    caller_recreate(c);
    refuse_perturb(c, "mixed weights", "buffers.params", "buffers.param_pointers");
    c->own.segments[1].grad_type = GRADREG_TYPE_BF16;
    caller_recreate(c);
    *caller_flat(c, PARAMS) = NULL;
    *caller_pointers(c, PARAMS) = c->own.pointers[PARAMS];
    refuse_perturb(c, "mixed gradients", "buffers.grads", "buffers.grad_pointers");
    caller_close(c);
}
END_TEST

START_TEST(flat_buffers_need_offsets)
{
    struct caller *c = caller_open(&plain_mode);

    for (size_t s = 0; s < CALLER_SEGMENTS; s++)
        c->own.segments[s].offset = 0;
    caller_recreate(c);
    refuse_perturb(c, "no offsets", "offsets", "pointer per segment");
    caller_close(c);
}
END_TEST

START_TEST(memory_is_held_for_the_declared_shard_only)
{
    struct caller *c = caller_open(&plain_mode);

    c->own.segments[1].shard_begin = 2;
    c->own.segments[1].shard_count = 4;
    caller_recreate(c);
    refuse_perturb(c, "more than the shard", "8 elements of segments[1]", "for 4");
    caller_close(c);
}
END_TEST

START_TEST(flat_buffers_and_pointers_hold_the_same_part)
{
    struct caller *c = caller_open(&plain_mode);

    c->own.segments[1].shard_begin = 2;
    c->own.segments[1].shard_count = 4;
    caller_recreate(c);
    *caller_flat(c, GRADS) = NULL;
    *caller_pointers(c, GRADS) = c->own.pointers[GRADS];
    refuse_perturb(c, "two parts", "segments[1]", "pointers hold 2 to 6");
    caller_close(c);
}
END_TEST

TCase *bad_slices_case(void)
{
    TCase *tests = tcase_create("counts and slices");

    tcase_set_timeout(tests, 60);
    add_loop_test(tests, fields_that_every_call_reads, 0, BAD_ROWS);
    add_loop_test(tests, null_arguments, 0, BAD_ROWS);
    add_loop_test(tests, buffers_of_a_newer_caller, 0, BAD_ROWS);
    tcase_add_test(tests, masters_are_not_checked_under_noise);
    add_loop_test(tests, flat_buffers_hold_what_was_declared, 0, BAD_ROWS);
    add_loop_test(tests, weights_stay_the_same_within_a_step, 0, BAD_ROWS);
    tcase_add_test(tests, a_slice_stays_the_same_within_a_step);
    tcase_add_test(tests, a_slice_does_not_go_round_the_corner);
    tcase_add_test(tests, mixed_types_need_a_pointer_per_segment);
    tcase_add_test(tests, flat_buffers_need_offsets);
    tcase_add_test(tests, memory_is_held_for_the_declared_shard_only);
    tcase_add_test(tests, flat_buffers_and_pointers_hold_the_same_part);
    return tests;
}
