/* check_bad_schedules.c - the part of the matrix for schedules: by themselves, and as a
 * regularizer's parameter. */
#include "bad_input.h"

#include <math.h>
#include <stdio.h>

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

/* ---- schedules --------------------------------------------------------------------- */

#define S gradreg_schedule
static const struct spoilt bad_schedules[] = {
    BAD_INTEGER(S, curve, -1),
    BAD_INTEGER(S, curve, 6),
    BAD_INTEGER(S, curve, 2147483647),
    BAD_INTEGER(S, first_layer, -2),
    BAD_INTEGER(S, first_layer, 3),
    BAD_INTEGER(S, full_layer, 5),
    BAD_INTEGER(S, full_layer, -1),
    BAD_INTEGER(S, full_layer, 2147483647),
    BAD_REAL(S, power, (double)NAN, "nan"),
    BAD_REAL(S, power, (double)INFINITY, "inf"),
    BAD_REAL(S, power, 0.0, "0"),
    BAD_REAL(S, power, -1.0, "-1"),
    BAD_REAL(S, outside_multiplier, (double)NAN, "nan"),
    BAD_REAL(S, outside_multiplier, (double)INFINITY, "inf"),
    BAD_REAL(S, outside_multiplier, -1.0, "-1"),
    BAD_RESERVED(S, reserved0, 32),
    BAD_RESERVED(S, reserved1[0], 64),
    BAD_RESERVED(S, reserved1[1], 64),
    BAD_RESERVED(S, reserved1[2], 64),
};
#undef S
enum { BAD_SCHEDULES = sizeof(bad_schedules) / sizeof(bad_schedules[0]) };

static void refuse_schedule(struct caller *c, const char *what, const char *word,
                            const char *value)
{
    assert_refused(
        c, "gradreg_schedule_multipliers", what,
        gradreg_schedule_multipliers(c->own.multipliers, &c->own.schedule, CALLER_LAYERS),
        invalid, word, value);
    c->own.params.schedule = c->own.schedule;
    caller_refuse_description(c, what, invalid, word, value);
}

START_TEST(bad_schedules_are_named)
{
    const struct spoilt *bad = &bad_schedules[_i];
    struct caller *c = caller_open(&plain_mode);

    c->own.schedule.curve = GRADREG_CURVE_POWER;
    c->own.schedule.first_layer = 1;
    c->own.schedule.full_layer = 2;
    spoil(&c->own.schedule, bad);
    refuse_schedule(c, bad->field, spoilt_name(bad), bad->value);
    caller_close(c);
}
END_TEST

START_TEST(bad_schedule_tables_are_named)
{
    static const double values[] = { (double)NAN, (double)INFINITY, -(double)INFINITY, -0.5 };
    struct caller *c = caller_open(&plain_mode);

    c->own.schedule.curve = GRADREG_CURVE_TABLE;
    refuse_schedule(c, "no table", "schedule.table", "NULL");
    c->own.schedule.table = c->own.table;
    for (int i = 0; i < 4; i++) {
        c->own.table[3] = values[i];
        refuse_schedule(c, "table", "schedule.table[3]",
                        i == 0   ? "nan"
                        : i == 3 ? "-0.5"
                                 : "inf");
    }
    c->own.table[3] = 1.0;
    c->own.schedule.table = (const double *)(const void *)((const char *)c->own.table + 1);
    refuse_schedule(c, "misaligned table", "schedule.table", "8 bytes");
    caller_close(c);
}
END_TEST

START_TEST(schedules_refuse_null_and_counts)
{
    static const int32_t counts[] = { 0, -1, 65537, INT32_MIN, INT32_MAX };
    struct caller *c = caller_open(&plain_mode);
    struct belongings *own = &c->own;

    for (int i = 0; i < 5; i++) {
        char value[32];
        (void)snprintf(value, sizeof(value), "layer_count is %d", counts[i]);
        assert_refused(c, "gradreg_schedule_for_depth", value,
                       gradreg_schedule_for_depth(&own->schedule, counts[i]), invalid, value);
        assert_refused(
            c, "gradreg_schedule_multipliers", value,
            gradreg_schedule_multipliers(own->multipliers, &own->schedule, counts[i]), invalid,
            value);
    }
    assert_refused(c, "gradreg_schedule_for_depth", "NULL", gradreg_schedule_for_depth(NULL, 4),
                   invalid, "'out'", "NULL");
    assert_refused(c, "gradreg_schedule_multipliers", "NULL out",
                   gradreg_schedule_multipliers(NULL, &own->schedule, 4), invalid, "'out'",
                   "NULL");
    assert_refused(c, "gradreg_schedule_multipliers", "NULL schedule",
                   gradreg_schedule_multipliers(own->multipliers, NULL, 4), invalid,
                   "'schedule'", "NULL");
    double *misaligned = (double *)(void *)((char *)own->multipliers + 1);
    assert_refused(c, "gradreg_schedule_multipliers", "misaligned",
                   gradreg_schedule_multipliers(misaligned, &own->schedule, 4), invalid,
                   "'out'", "8 bytes");
    assert_accepted(gradreg_schedule_for_depth(&own->schedule, CALLER_LAYERS));
    assert_accepted(
        gradreg_schedule_multipliers(own->multipliers, &own->schedule, CALLER_LAYERS));
    caller_close(c);
}
END_TEST

TCase *bad_schedules_case(void)
{
    TCase *tests = tcase_create("schedules");

    add_loop_test(tests, bad_schedules_are_named, 0, BAD_SCHEDULES);
    tcase_add_test(tests, bad_schedule_tables_are_named);
    tcase_add_test(tests, schedules_refuse_null_and_counts);
    return tests;
}
