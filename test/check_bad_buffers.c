/* check_bad_buffers.c - the part of the matrix for buffers.
 *
 * Every call of a step, in modes that together use every buffer, flat and by pointer, gets each
 * buffer missing, given twice, misaligned, overlapping another, tied, of the wrong length, or
 * another one than the call before. After each refusal the step goes on to the bits that it has
 * without. */
#include "bad_input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

#define BOTH_FORMS(...)                 \
    { .pointers = false, __VA_ARGS__ }, \
    {                                   \
        .pointers = true, __VA_ARGS__   \
    }
static const struct mode modes[] = {
    BOTH_FORMS(.name = "plain"),
    BOTH_FORMS(.name = "central, adds", .difference = GRADREG_DIFFERENCE_CENTRAL,
               .second_gradient = GRADREG_SECOND_GRADIENT_ADDS),
    BOTH_FORMS(.name = "keeps, elsewhere, caller's direction",
               .first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS,
               .placement = GRADREG_PLACEMENT_OUT_OF_PLACE,
               .direction = GRADREG_DIRECTION_CALLER),
    BOTH_FORMS(.name = "central, keeps, master, adds", .difference = GRADREG_DIFFERENCE_CENTRAL,
               .first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS,
               .second_gradient = GRADREG_SECOND_GRADIENT_ADDS,
               .restore = GRADREG_RESTORE_MASTER, .direction = GRADREG_DIRECTION_CALLER),
    BOTH_FORMS(.name = "interval", .interval = 2),
    BOTH_FORMS(.name = "interval, keeps", .interval = 2,
               .first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS),
    { .name = "declared slice", .slice_begin = 8, .slice_count = CALLER_ELEMENTS },
};
enum { MODES = sizeof(modes) / sizeof(modes[0]), ROWS = MODES * CALLS };

/* ---- one refusal ------------------------------------------------------------------- */

/* What is done to the buffers, and what the sentence then names. */
struct defect {
    const char *what;
    enum field field, other;
    size_t segment;
    gradreg_status want;
    char words[2][64];
};

struct row {
    const struct mode *mode;
    enum call call;
    uint64_t undisturbed;
};

static struct caller *before_call(const struct row *row)
{
    struct caller *c = caller_open(row->mode);
    caller_lead_to(c, row->call);
    return c;
}

static void refuse(struct caller *c, const struct row *row, const char *what,
                   gradreg_status want, const char *word, const char *other_word)
{
    assert_refused(c, call_name(row->call), what, caller_do(c, row->call), want, word,
                   other_word);
}

/* Everything good again: the step ends as it would have. */
static void go_on(struct caller *c, const struct row *row, const struct belongings *good)
{
    memcpy(&c->own, good, sizeof(c->own));
    ck_assert_msg(caller_go_on(c) == row->undisturbed, "%s, %s: other bits after %s",
                  row->mode->name, call_name(row->call), c->what);
    caller_close(c);
}

static void refuse_and_go_on(const struct row *row, const struct defect *defect,
                             void (*spoil_buffers)(struct caller *c, const struct defect *d))
{
    static struct belongings good;
    struct caller *c = before_call(row);

    memcpy(&good, &c->own, sizeof(good));
    spoil_buffers(c, defect);
    refuse(c, row, defect->what, defect->want, defect->words[0], defect->words[1]);
    go_on(c, row, &good);
}

/* False where a row has nothing to show: the call does not belong to the mode. */
static bool row_of(struct row *row, int i)
{
    row->mode = &modes[i / CALLS];
    row->call = (enum call)(i % CALLS);
    if (!caller_can(row->mode, row->call))
        return false;
    row->undisturbed = caller_undisturbed(row->mode, row->call);
    return true;
}

static bool needs(const struct row *row, enum field field)
{
    return (caller_needs(row->mode, row->call) >> field & 1) != 0;
}

static bool is_first_call(enum call call)
{
    return call == INJECT_NOISE || call == PERTURB || call == SUGGEST_EPSILON;
}

/* ---- a buffer by itself ------------------------------------------------------------ */

static void name_buffer(struct defect *d, const char *second)
{
    (void)snprintf(d->words[0], sizeof(d->words[0]), "buffers.%s", fields[d->field].name);
    (void)snprintf(d->words[1], sizeof(d->words[1]), "%s", second);
}

static void take_away(struct caller *c, const struct defect *d)
{
    *caller_flat(c, d->field) = NULL;
    *caller_pointers(c, d->field) = NULL;
}

static void give_both(struct caller *c, const struct defect *d)
{
    *caller_flat(c, d->field) = c->own.elements[d->field];
    *caller_pointers(c, d->field) = c->own.pointers[d->field];
}

static void misalign(struct caller *c, const struct defect *d)
{
    if (c->mode->pointers)
        *caller_pointer(c, d->field, d->segment) =
            (char *)*caller_pointer(c, d->field, d->segment) + 2;
    else
        *caller_flat(c, d->field) = (char *)*caller_flat(c, d->field) + 1;
}

static void name_pointer(struct defect *d, const char *second)
{
    (void)snprintf(d->words[0], sizeof(d->words[0]), "buffers.%s[%zu]",
                   fields[d->field].pointers_name, d->segment);
    (void)snprintf(d->words[1], sizeof(d->words[1]), "%s", second);
}

START_TEST(each_buffer_is_given_once_and_aligned)
{
    struct row row;
    if (!row_of(&row, _i))
        return;
    for (enum field f = PARAMS; f < FIELDS; f++) {
        struct defect d = { "missing", f, f, 1, invalid, { "", "" } };
        if (!needs(&row, f))
            continue;
        name_buffer(&d, fields[f].pointers_name);
        refuse_and_go_on(&row, &d, take_away);
        d.what = "both forms";
        refuse_and_go_on(&row, &d, give_both);
        d.what = "misaligned";
        if (row.mode->pointers)
            name_pointer(&d, "aligned");
        else
            name_buffer(&d, "aligned");
        refuse_and_go_on(&row, &d, misalign);
    }
}
END_TEST

/* ---- a pointer that is NULL -------------------------------------------------------- */

static void take_one_away(struct caller *c, const struct defect *d)
{
    *caller_pointer(c, d->field, d->segment) = NULL;
}

/* Segment 1 is perturbed. A gradient may be missing, but not where g_hat is to go, and not g1 when
 * perturb had it. */
static bool null_is_refused(const struct row *row, enum field field)
{
    const bool keeps = row->mode->first_gradient == GRADREG_FIRST_GRADIENT_CALLER_KEEPS;
    if (field == GRADS)
        return row->call == COMBINE || row->call == FALLBACK || (row->call == REUSE && keeps);
    if (field == FIRST_GRADS)
        return !is_first_call(row->call) && row->call != REUSE;
    return true;
}

START_TEST(a_null_pointer_is_refused_where_it_is_needed)
{
    struct row row;
    if (!row_of(&row, _i) || !row.mode->pointers)
        return;
    for (enum field f = PARAMS; f < FIELDS; f++) {
        struct defect d = { "NULL", f, f, 1, invalid, { "", "" } };
        if (!needs(&row, f) || !null_is_refused(&row, f))
            continue;
        name_pointer(&d, "NULL");
        refuse_and_go_on(&row, &d, take_one_away);
    }
}
END_TEST

/* ---- two buffers ------------------------------------------------------------------- */

static void lay_over(struct caller *c, const struct defect *d)
{
    float *from = c->own.elements[d->other] + d->segment;
    if (c->mode->pointers)
        *caller_pointer(c, d->field, 2) = (float *)*caller_pointer(c, d->other, 2) + 1;
    else
        *caller_flat(c, d->field) = from;
}

/* The last shift brings only one element of one segment upon one of another. */
START_TEST(buffers_must_not_overlap)
{
    struct row row;
    if (!row_of(&row, _i))
        return;
    const size_t shifts[] = { 0, 1, 8, CALLER_ELEMENTS - 1 };
    for (int k = 0; k < FIELDS * FIELDS * 4; k++) {
        struct defect d = { "overlap",
                            (enum field)(k / 4 / FIELDS),
                            (enum field)(k / 4 % FIELDS),
                            shifts[k % 4],
                            invalid,
                            { "", "" } };
        if (d.field == d.other || !needs(&row, d.field) || !needs(&row, d.other) ||
            (row.mode->pointers && k % 4 != 0))
            continue;
        name_buffer(&d, "");
        (void)snprintf(d.words[1], sizeof(d.words[1]), "buffers.%s", fields[d.other].name);
        if (row.mode->pointers) {
            (void)snprintf(d.words[0], sizeof(d.words[0]), "buffers.%s of segments[2]",
                           fields[d.field].pointers_name);
            (void)snprintf(d.words[1], sizeof(d.words[1]), "buffers.%s of segments[2]",
                           fields[d.other].pointers_name);
        }
        refuse_and_go_on(&row, &d, lay_over);
    }
}
END_TEST

static bool is_written(enum field field)
{
    return field == PARAMS || field == GRADS || field == PERTURBED_PARAMS;
}

static void tie(struct caller *c, const struct defect *d)
{
    *caller_pointer(c, d->field, 2) = (float *)*caller_pointer(c, d->other, 1) + 7;
}

/* Segment 2's first element is segment 1's last: of the same buffer, or of another one. */
START_TEST(what_is_written_belongs_to_one_segment)
{
    struct row row;
    if (!row_of(&row, _i) || !row.mode->pointers)
        return;
    for (int k = 0; k < FIELDS * FIELDS; k++) {
        struct defect d = {
            "tied", (enum field)(k / FIELDS), (enum field)(k % FIELDS), 2, invalid, { "", "" }
        };
        if (!needs(&row, d.field) || !needs(&row, d.other) ||
            (!is_written(d.field) && !is_written(d.other)))
            continue;
        (void)snprintf(d.words[0], sizeof(d.words[0]), "buffers.%s of segments[2]",
                       fields[d.field].pointers_name);
        (void)snprintf(d.words[1], sizeof(d.words[1]), "buffers.%s of segments[1]",
                       fields[d.other].pointers_name);
        refuse_and_go_on(&row, &d, tie);
    }
}
END_TEST

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
    if (!row_of(&row, _i))
        return;
    for (size_t i = 0; i < GENERALS; i++)
        refuse_and_go_on(&row, &generals[i].defect, generals[i].spoil_buffers);
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
    if (!row_of(&row, _i))
        return;
    struct caller *c = before_call(&row);
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
    if (!row_of(&row, _i))
        return;
    struct caller *c = before_call(&row);
    c->own.buffers.struct_size += CALLER_TAIL;
    ck_assert_uint_eq(caller_go_on(c), row.undisturbed);
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
    if (!row_of(&row, _i) || row.mode->pointers)
        return;
    const size_t counts[] = { 0, CALLER_ELEMENTS - 1 };
    for (int i = 0; i < 2; i++) {
        const struct defect d = { "count",   PARAMS,  PARAMS,
                                  counts[i], invalid, { "count", "slice_begin" } };
        refuse_and_go_on(&row, &d, shorten);
    }
    const size_t shifts[] = { 1, CALLER_ELEMENTS + 1, SIZE_MAX / 2 };
    for (int i = 0; i < 3; i++) {
        const struct defect d = { "slice_begin", PARAMS,  PARAMS,
                                  shifts[i],     invalid, { "buffers", "slice_begin" } };
        refuse_and_go_on(&row, &d, shift_slice);
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
    if (!row_of(&row, _i) || is_first_call(row.call))
        return;
    const bool elsewhere = row.mode->placement == GRADREG_PLACEMENT_OUT_OF_PLACE;
    const enum field moved = elsewhere ? PERTURBED_PARAMS : PARAMS;
    const struct defect d = { "other weights", moved,
                              moved,           0,
                              invalid,         { "buffers.", "changed within the step" } };
    if (needs(&row, moved))
        refuse_and_go_on(&row, &d, move_weights);
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

    refuse_and_go_on(&row, &shorter, shorten);
    refuse_and_go_on(&row, &later, shift_slice);
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

    refuse_and_go_on(&row, &beyond, shift_slice);
}
END_TEST

/* ---- tables that flat buffers cannot serve ----------------------------------------- */

/* Opens a second regularizer in place of the caller's own. */
static void recreate(struct caller *c)
{
    assert_accepted(gradreg_regularizer_destroy(c->regularizer));
    assert_accepted(gradreg_regularizer_create(&c->regularizer, c->context, c->own.segments,
                                               CALLER_SEGMENTS, &c->own.params));
}

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
    recreate(c);
    refuse_perturb(c, "mixed weights", "buffers.params", "buffers.param_pointers");
    c->own.segments[1].grad_type = GRADREG_TYPE_BF16;
    recreate(c);
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
    recreate(c);
    refuse_perturb(c, "no offsets", "offsets", "pointer per segment");
    caller_close(c);
}
END_TEST

START_TEST(memory_is_held_for_the_declared_shard_only)
{
    struct caller *c = caller_open(&plain_mode);

    c->own.segments[1].shard_begin = 2;
    c->own.segments[1].shard_count = 4;
    recreate(c);
    refuse_perturb(c, "more than the shard", "8 elements of segments[1]", "for 4");
    caller_close(c);
}
END_TEST

START_TEST(flat_buffers_and_pointers_hold_the_same_part)
{
    struct caller *c = caller_open(&plain_mode);

    c->own.segments[1].shard_begin = 2;
    c->own.segments[1].shard_count = 4;
    recreate(c);
    *caller_flat(c, GRADS) = NULL;
    *caller_pointers(c, GRADS) = c->own.pointers[GRADS];
    refuse_perturb(c, "two parts", "segments[1]", "pointers hold 2 to 6");
    caller_close(c);
}
END_TEST

TCase *bad_buffers_case(void)
{
    TCase *tests = tcase_create("buffers");

    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, each_buffer_is_given_once_and_aligned, 0, ROWS);
    tcase_add_loop_test(tests, a_null_pointer_is_refused_where_it_is_needed, 0, ROWS);
    tcase_add_loop_test(tests, buffers_must_not_overlap, 0, ROWS);
    tcase_add_loop_test(tests, what_is_written_belongs_to_one_segment, 0, ROWS);
    tcase_add_loop_test(tests, fields_that_every_call_reads, 0, ROWS);
    tcase_add_loop_test(tests, null_arguments, 0, ROWS);
    tcase_add_loop_test(tests, buffers_of_a_newer_caller, 0, ROWS);
    tcase_add_loop_test(tests, flat_buffers_hold_what_was_declared, 0, ROWS);
    tcase_add_loop_test(tests, weights_stay_the_same_within_a_step, 0, ROWS);
    tcase_add_test(tests, a_slice_stays_the_same_within_a_step);
    tcase_add_test(tests, a_slice_does_not_go_round_the_corner);
    tcase_add_test(tests, mixed_types_need_a_pointer_per_segment);
    tcase_add_test(tests, flat_buffers_need_offsets);
    tcase_add_test(tests, memory_is_held_for_the_declared_shard_only);
    tcase_add_test(tests, flat_buffers_and_pointers_hold_the_same_part);
    return tests;
}
