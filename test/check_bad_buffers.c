/* check_bad_buffers.c - the part of the matrix for single buffers and pairs of them: missing, given
 * twice, misaligned, overlapping another, tied. */
#include "bad_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

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
    if (!bad_row(&row, _i))
        return;
    for (enum field f = PARAMS; f < FIELDS; f++) {
        struct defect d = { "missing", f, f, 1, invalid, { "", "" } };
        if (!bad_row_needs(&row, f))
            continue;
        name_buffer(&d, fields[f].pointers_name);
        bad_row_refuses(&row, &d, take_away);
        d.what = "both forms";
        bad_row_refuses(&row, &d, give_both);
        d.what = "misaligned";
        if (row.mode->pointers)
            name_pointer(&d, "aligned");
        else
            name_buffer(&d, "aligned");
        bad_row_refuses(&row, &d, misalign);
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
        return !begins_a_step(row->call) && row->call != REUSE;
    return true;
}

START_TEST(a_null_pointer_is_refused_where_it_is_needed)
{
    struct row row;
    if (!bad_row(&row, _i) || !row.mode->pointers)
        return;
    for (enum field f = PARAMS; f < FIELDS; f++) {
        struct defect d = { "NULL", f, f, 1, invalid, { "", "" } };
        if (!bad_row_needs(&row, f) || !null_is_refused(&row, f))
            continue;
        name_pointer(&d, "NULL");
        bad_row_refuses(&row, &d, take_one_away);
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
    if (!bad_row(&row, _i))
        return;
    const size_t shifts[] = { 0, 1, 8, CALLER_ELEMENTS - 1 };
    for (int k = 0; k < FIELDS * FIELDS * 4; k++) {
        struct defect d = { "overlap",
                            (enum field)(k / 4 / FIELDS),
                            (enum field)(k / 4 % FIELDS),
                            shifts[k % 4],
                            invalid,
                            { "", "" } };
        if (d.field == d.other || !bad_row_needs(&row, d.field) ||
            !bad_row_needs(&row, d.other) || (row.mode->pointers && k % 4 != 0))
            continue;
        name_buffer(&d, "");
        (void)snprintf(d.words[1], sizeof(d.words[1]), "buffers.%s", fields[d.other].name);
        if (row.mode->pointers) {
            (void)snprintf(d.words[0], sizeof(d.words[0]), "buffers.%s of segments[2]",
                           fields[d.field].pointers_name);
            (void)snprintf(d.words[1], sizeof(d.words[1]), "buffers.%s of segments[2]",
                           fields[d.other].pointers_name);
        }
        bad_row_refuses(&row, &d, lay_over);
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
    if (!bad_row(&row, _i) || !row.mode->pointers)
        return;
    for (int k = 0; k < FIELDS * FIELDS; k++) {
        struct defect d = {
            "tied", (enum field)(k / FIELDS), (enum field)(k % FIELDS), 2, invalid, { "", "" }
        };
        if (!bad_row_needs(&row, d.field) || !bad_row_needs(&row, d.other) ||
            (!is_written(d.field) && !is_written(d.other)))
            continue;
        (void)snprintf(d.words[0], sizeof(d.words[0]), "buffers.%s of segments[2]",
                       fields[d.field].pointers_name);
        (void)snprintf(d.words[1], sizeof(d.words[1]), "buffers.%s of segments[1]",
                       fields[d.other].pointers_name);
        bad_row_refuses(&row, &d, tie);
    }
}
END_TEST

TCase *bad_buffers_case(void)
{
    TCase *tests = tcase_create("buffers");

    tcase_set_timeout(tests, 60);
    add_loop_test(tests, each_buffer_is_given_once_and_aligned, 0, BAD_ROWS);
    add_loop_test(tests, a_null_pointer_is_refused_where_it_is_needed, 0, BAD_ROWS);
    add_loop_test(tests, buffers_must_not_overlap, 0, BAD_ROWS);
    add_loop_test(tests, what_is_written_belongs_to_one_segment, 0, BAD_ROWS);
    return tests;
}
