/* check_schedule.c - multipliers per layer: default, curves, edges, refusals.
 *
 * The reference is rational arithmetic where the curve has exact values, and libm in long double
 * elsewhere, with bounds in last places of a double. */
#include <check.h>
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gradreg.h"
#include "schedule.h"
#include "status.h"
#include "support.h"

enum { DEEPEST = 65536 };

/* Valid until the next call. Exactly layer_count doubles are written, or the guard says so. */
static const double *multipliers(const gradreg_schedule *schedule, int32_t layer_count)
{
    static double kept[DEEPEST];
    double *out = guarded_new((size_t)layer_count * sizeof(*out), 0);
    assert_ok(gradreg_schedule_multipliers(out, schedule, layer_count));
    memcpy(kept, out, (size_t)layer_count * sizeof(*out));
    guarded_free(out);
    return kept;
}

static gradreg_schedule schedule_of(gradreg_curve curve, int32_t first, int32_t full)
{
    gradreg_schedule schedule = GRADREG_SCHEDULE_INIT;
    schedule.curve = curve;
    schedule.first_layer = first;
    schedule.full_layer = full;
    return schedule;
}

/* The distance in last places of a double as large as the reference. */
static double ulps(double got, long double want)
{
    if (want == 0.0L)
        return got == 0.0 ? 0.0 : INFINITY;
    return (double)ldexpl(fabsl((long double)got - want), 52 - ilogbl(want));
}

/* ---- default --------------------------------------------------------------------- */

START_TEST(article_has_36_layers)
{
    gradreg_schedule schedule;
    assert_ok(gradreg_schedule_for_depth(&schedule, 36));
    ck_assert_int_eq(schedule.curve, GRADREG_CURVE_LINEAR);
    ck_assert_int_eq(schedule.first_layer, 6);
    ck_assert_int_eq(schedule.full_layer, 22);

    const double *m = multipliers(&schedule, 36);
    for (int l = 0; l < 36; l++) {
        const double want = l < 6 ? 0.0 : l < 22 ? (l - 5) / 17.0 : 1.0;
        ck_assert_msg(m[l] == want, "m(%d) = %.17g, want %.17g", l, m[l], want);
    }
    ck_assert(m[5] == 0.0 && m[6] == 1.0 / 17.0 && m[21] == 16.0 / 17.0 && m[22] == 1.0);
}
END_TEST

START_TEST(one_two_and_three_layers)
{
    static const double want[3][3] = { { 1.0 }, { 0.5, 1.0 }, { 0.0, 0.5, 1.0 } };
    for (int32_t n = 1; n <= 3; n++) {
        gradreg_schedule schedule;
        assert_ok(gradreg_schedule_for_depth(&schedule, n));
        const double *m = multipliers(&schedule, n);
        for (int l = 0; l < n; l++)
            ck_assert_msg(m[l] == want[n - 1][l], "n = %d: m(%d) = %g", n, l, m[l]);
    }
}
END_TEST

/* n/6 and 11n/18 rounded to the nearest integer, halves up: by search, without division. */
static int32_t nearest(int32_t numerator, int32_t denominator)
{
    int32_t k = 0;
    while (2 * denominator * (k + 1) <= 2 * numerator + denominator)
        k++;
    return k;
}

START_TEST(default_of_every_depth)
{
    int32_t first_before = 0, full_before = 0;
    for (int32_t n = 1; n <= 200; n++) {
        const int32_t first = nearest(n, 6), full = nearest(11 * n, 18);
        gradreg_schedule schedule;
        assert_ok(gradreg_schedule_for_depth(&schedule, n));
        ck_assert_int_eq(schedule.first_layer, first);
        ck_assert_int_eq(schedule.full_layer, full < n - 1 ? full : n - 1);
        ck_assert_int_ge(schedule.first_layer, first_before);
        ck_assert_int_ge(schedule.full_layer, full_before);
        first_before = schedule.first_layer;
        full_before = schedule.full_layer;

        const double *m = multipliers(&schedule, n);
        for (int32_t l = 1; l < n; l++)
            ck_assert_msg(m[l - 1] < m[l] || m[l] == 0.0 || m[l - 1] == 1.0,
                          "n = %d: m(%d) = %g, then %g", n, l - 1, m[l - 1], m[l]);
        ck_assert(m[0] >= 0.0 && m[n - 1] == 1.0);
    }
}
END_TEST

START_TEST(default_sets_every_field)
{
    static const gradreg_schedule defaults = GRADREG_SCHEDULE_INIT;
    gradreg_schedule schedule;
    memset(&schedule, 0xa5, sizeof(schedule));
    assert_ok(gradreg_schedule_for_depth(&schedule, DEEPEST));
    ck_assert_int_eq(schedule.first_layer, 10923);
    ck_assert_int_eq(schedule.full_layer, 40050);
    schedule.first_layer = schedule.full_layer = -1;
    ck_assert_mem_eq(&schedule, &defaults, sizeof(schedule));
}
END_TEST

START_TEST(minus_one_twice_is_the_default)
{
    for (int32_t n = 1; n <= 200; n++) {
        gradreg_schedule left_open = GRADREG_SCHEDULE_INIT, for_depth;
        double want[200];
        assert_ok(gradreg_schedule_for_depth(&for_depth, n));
        memcpy(want, multipliers(&for_depth, n), (size_t)n * sizeof(*want));
        ck_assert_mem_eq(multipliers(&left_open, n), want, (size_t)n * sizeof(*want));

        assert_ok(gradreg_i_schedule_resolve(&left_open, n, "schedule"));
        ck_assert_mem_eq(&left_open, &for_depth, sizeof(left_open));
    }
}
END_TEST

/* ---- curves ---------------------------------------------------------------------- */

static long double pi_times(long double x)
{
    return 3.14159265358979323846264338327950288L * x;
}

static long double curve(gradreg_curve which, long double x, double power)
{
    switch (which) {
    case GRADREG_CURVE_LINEAR: return x;
    case GRADREG_CURVE_COSINE: return sinl(pi_times(x) / 2.0L) * sinl(pi_times(x) / 2.0L);
    case GRADREG_CURVE_POWER: return powl(x, (long double)power);
    default: return 0.0L;
    }
}

/* The quotient x is rounded once, to half a place. The cosine's square doubles that and the two
 * roundings of a sine. A power multiplies the errors of x and of its logarithm by the exponent:
 * ln x is off by one place, the product by half, and the exponential by one and a half. */
static double places(gradreg_curve which, long double x, double power)
{
    if (which == GRADREG_CURVE_LINEAR)
        return 0.5;
    if (which == GRADREG_CURVE_COSINE)
        return 5.0;
    return 2.0 + power + 3.0 * fabs(power * (double)logl(x));
}

static void check_ramp(const gradreg_schedule *schedule, int32_t n, double *worst)
{
    const int32_t first = schedule->first_layer, full = schedule->full_layer;
    const double *m = multipliers(schedule, n);
    for (int32_t l = 0; l < n; l++) {
        if (l < first || l >= full) {
            ck_assert(m[l] == (l < first ? 0.0 : 1.0));
            continue;
        }
        const long double x = (long double)(l - first + 1) / (long double)(full - first + 1);
        const long double want = curve(schedule->curve, x, schedule->power);
        const double error = ulps(m[l], want);
        ck_assert_msg(error <= places(schedule->curve, x, schedule->power),
                      "curve %d, power %g, x = %Lg: %.17g is %g places from %.20Lg",
                      schedule->curve, schedule->power, x, m[l], error, want);
        *worst = fmax(*worst, error);
    }
}

/* Every ramp up to 400 layers long, some starting late, and the longest there is. */
static double check_curve(gradreg_curve which, double power)
{
    double worst = 0.0;
    gradreg_schedule schedule = schedule_of(which, 0, DEEPEST);
    schedule.power = power;
    check_ramp(&schedule, DEEPEST, &worst);
    for (int32_t length = 0; length <= 400; length++) {
        schedule.first_layer = length % 7;
        schedule.full_layer = schedule.first_layer + length;
        check_ramp(&schedule, schedule.full_layer + length % 3 + 1, &worst);
    }
    printf("curve %d, power %g: at most %.2f places\n", which, power, worst);
    return worst;
}

START_TEST(linear_is_rounded_once)
{
    ck_assert(check_curve(GRADREG_CURVE_LINEAR, 1.0) <= 0.5);
}
END_TEST

START_TEST(cosine_is_close)
{
    ck_assert(check_curve(GRADREG_CURVE_COSINE, 1.0) <= 5.0);
}
END_TEST

START_TEST(cosine_meets_its_exact_values)
{
    const gradreg_schedule half = schedule_of(GRADREG_CURVE_COSINE, 1, 2);
    ck_assert(multipliers(&half, 3)[1] == 0.5);
    const gradreg_schedule thirds = schedule_of(GRADREG_CURVE_COSINE, 0, 2);
    ck_assert(ulps(multipliers(&thirds, 2)[0], 0.25L) <= 1.0);
    ck_assert(ulps(multipliers(&thirds, 2)[1], 0.75L) <= 1.0);
}
END_TEST

START_TEST(cosine_is_symmetric_and_rises)
{
    const gradreg_schedule schedule = schedule_of(GRADREG_CURVE_COSINE, 0, DEEPEST);
    const double *m = multipliers(&schedule, DEEPEST);
    for (int32_t l = 1; l < DEEPEST; l++)
        ck_assert(m[l - 1] < m[l]);
    for (int32_t l = 0; l < DEEPEST; l++) /* x and 1 - x */
        ck_assert(fabs(m[l] + m[DEEPEST - 1 - l] - 1.0) <= 0x1p-51);
}
END_TEST

static const double powers[] = { 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 10.0, 1e-3 };

START_TEST(power_is_close)
{
    const double worst = check_curve(GRADREG_CURVE_POWER, powers[_i]);
    if (powers[_i] == 1.0)
        ck_assert(worst <= 0.5); /* linear, exactly */
}
END_TEST

START_TEST(power_beyond_a_double_is_zero_or_one)
{
    gradreg_schedule schedule = schedule_of(GRADREG_CURVE_POWER, 0, 1);
    schedule.power = DBL_MAX;
    ck_assert(multipliers(&schedule, 1)[0] == 0.0);
    schedule.power = DBL_MIN;
    ck_assert(multipliers(&schedule, 1)[0] == 1.0);
}
END_TEST

START_TEST(step_waits_for_the_full_layer)
{
    const gradreg_schedule schedule = schedule_of(GRADREG_CURVE_STEP, 2, 5);
    const double *m = multipliers(&schedule, 8);
    for (int l = 0; l < 8; l++)
        ck_assert(m[l] == (l < 5 ? 0.0 : 1.0));
}
END_TEST

START_TEST(table_is_taken_as_it_is)
{
    static const double table[] = { 3.5, 0.0, 0x1p-1074, DBL_MAX, 1.0, 0.1 };
    gradreg_schedule schedule = schedule_of(GRADREG_CURVE_TABLE, 2, 4);
    schedule.table = table;
    ck_assert_mem_eq(multipliers(&schedule, 6), table, sizeof(table));
    schedule.first_layer = schedule.full_layer = -1;
    ck_assert_mem_eq(multipliers(&schedule, 6), table, sizeof(table));
}
END_TEST

START_TEST(curve_zero_is_linear)
{
    gradreg_schedule schedule = schedule_of(0, 0, 1);
    ck_assert(multipliers(&schedule, 2)[0] == 0.5);
    assert_ok(gradreg_i_schedule_resolve(&schedule, 2, "schedule"));
    ck_assert_int_eq(schedule.curve, GRADREG_CURVE_LINEAR);
}
END_TEST

/* ---- edges ----------------------------------------------------------------------- */

START_TEST(edges_of_the_ramp)
{
    for (gradreg_curve which = GRADREG_CURVE_LINEAR; which <= GRADREG_CURVE_STEP; which++) {
        const gradreg_schedule even = schedule_of(which, 0, 0);
        const gradreg_schedule jump = schedule_of(which, 2, 2);
        const gradreg_schedule never = schedule_of(which, 4, 4);
        const gradreg_schedule never_full = schedule_of(which, 0, 4);
        for (int l = 0; l < 4; l++) {
            ck_assert(multipliers(&even, 4)[l] == 1.0);
            ck_assert(multipliers(&jump, 4)[l] == (l < 2 ? 0.0 : 1.0));
            ck_assert(multipliers(&never, 4)[l] == 0.0);
            const double m = multipliers(&never_full, 4)[l];
            ck_assert(which == GRADREG_CURVE_STEP ? m == 0.0 : m > 0.0 && m < 1.0);
        }
    }
}
END_TEST

START_TEST(environment_of_the_host_does_not_count)
{
    static const int directions[] = { FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO };
    for (gradreg_curve which = GRADREG_CURVE_LINEAR; which <= GRADREG_CURVE_POWER; which++) {
        gradreg_schedule schedule = schedule_of(which, 3, 90);
        double want[100];
        schedule.power = 1.7;
        memcpy(want, multipliers(&schedule, 100), sizeof(want));
        for (int i = 0; i < 3; i++) {
            ck_assert_int_eq(fesetround(directions[i]), 0);
            const double *m = multipliers(&schedule, 100);
            ck_assert_int_eq(fegetround(), directions[i]);
            ck_assert_int_eq(fesetround(FE_TONEAREST), 0);
            ck_assert_mem_eq(m, want, sizeof(want));
        }
    }
}
END_TEST

/* ---- refusals -------------------------------------------------------------------- */

static const double good_table[8], nan_table[8] = { 0, 0, 0, 0, 0, 0, 0, NAN },
                                   inf_table[8] = { 0, INFINITY },
                                   negative_table[8] = { -0x1p-1074 };

#define RESERVED(curve, first, full, power, outside, table, zero, ...) \
    {                                                                  \
        curve, first, full, zero, power, outside, table, __VA_ARGS__   \
    }
#define SCHEDULE(curve, first, full, power, outside, table) \
    RESERVED(curve, first, full, power, outside, table, 0, { 0, 0, 0 })
#define CURVE(curve)          SCHEDULE(curve, 2, 5, 1.0, 0.0, NULL)
#define LAYERS(first, full)   SCHEDULE(GRADREG_CURVE_LINEAR, first, full, 1.0, 0.0, NULL)
#define POWER(power)          SCHEDULE(GRADREG_CURVE_POWER, 2, 5, power, 0.0, NULL)
#define OUTSIDE(outside)      SCHEDULE(GRADREG_CURVE_LINEAR, 2, 5, 1.0, outside, NULL)
#define TABLE(table, outside) SCHEDULE(GRADREG_CURVE_TABLE, 2, 5, 1.0, outside, table)
#define ZEROS(zero, ...)      RESERVED(GRADREG_CURVE_LINEAR, 2, 5, 1.0, 0.0, NULL, zero, __VA_ARGS__)

/* With 8 layers. What the sentence must contain: the field and its value. */
static const struct {
    gradreg_schedule schedule;
    const char *says[2];
} refusals[] = {
    { CURVE(-1), { "curve is -1", "GRADREG_CURVE_" } },
    { CURVE(6), { "curve is 6", "GRADREG_CURVE_" } },
    { CURVE(INT32_MAX), { "curve is 2147483647", "GRADREG_CURVE_" } },
    { LAYERS(-1, 5), { "first_layer is -1", "full_layer is 5" } },
    { LAYERS(2, -1), { "first_layer is 2", "full_layer is -1" } },
    { LAYERS(-2, -2), { "first_layer is -2", "0 or more" } },
    { LAYERS(-2, 5), { "first_layer is -2", "0 or more" } },
    { LAYERS(2, -2), { "first_layer is 2", "full_layer -2" } },
    { LAYERS(INT32_MIN, 5), { "first_layer is -2147483648", "0 or more" } },
    { LAYERS(6, 5), { "first_layer is 6", "full_layer 5" } },
    { LAYERS(2, 9), { "full_layer is 9", "layer_count 8" } },
    { LAYERS(2, INT32_MAX), { "full_layer is 2147483647", "layer_count 8" } },
    { POWER(0.0), { "power is 0", "> 0" } },
    { POWER(-2.0), { "power is -2", "> 0" } },
    { POWER(NAN), { "power is", "nan" } },
    { POWER(INFINITY), { "power is inf", "finite" } },
    { OUTSIDE(-0.5), { "outside_multiplier is -0.5", ">= 0" } },
    { OUTSIDE(NAN), { "outside_multiplier is", "nan" } },
    { OUTSIDE(INFINITY), { "outside_multiplier is inf", "finite" } },
    { TABLE(NULL, 0.0), { "table", "NULL" } },
    { TABLE(nan_table, 0.0), { "table[7] is", "nan" } },
    { TABLE(inf_table, 0.0), { "table[1] is", "inf" } },
    { TABLE(negative_table, 0.0), { "table[0] is -4.9", ">= 0" } },
    { TABLE(good_table, -1.0), { "outside_multiplier is -1", ">= 0" } },
    { ZEROS(7, { 0, 0, 0 }), { "reserved0 is 7", "must be 0" } },
    { ZEROS(0, { 1, 0, 0 }), { "reserved1[0] is 1", "must be 0" } },
    { ZEROS(0, { 0, 0, UINT64_MAX }), { "reserved1[2] is", "18446744073709551615" } },
};
enum { REFUSALS = sizeof(refusals) / sizeof(*refusals) };

static void check_refused(const gradreg_schedule *schedule, int32_t layer_count,
                          const char *const says[2])
{
    double *out = guarded_new(8 * sizeof(double), 0);
    uint64_t before[8];
    memcpy(before, out, sizeof(before));
    assert_fails(gradreg_schedule_multipliers(out, schedule, layer_count),
                 GRADREG_ERROR_INVALID_ARGUMENT, says[0], says[1]);
    ck_assert_mem_eq(out, before, sizeof(before));
    guarded_free(out);
}

START_TEST(bad_field_is_refused_by_name_and_value)
{
    check_refused(&refusals[_i].schedule, 8, refusals[_i].says);

    gradreg_schedule schedule = refusals[_i].schedule;
    gradreg_i_enter("caller");
    assert_status(gradreg_i_schedule_resolve(&schedule, 8, "params.schedule"),
                  GRADREG_ERROR_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(gradreg_last_error(), "caller: params.schedule."));
    ck_assert_ptr_nonnull(strstr(gradreg_last_error(), refusals[_i].says[0]));
    ck_assert_mem_eq(&schedule, &refusals[_i].schedule, sizeof(schedule));
}
END_TEST

START_TEST(fields_of_other_curves_are_ignored)
{
    gradreg_schedule schedule = schedule_of(GRADREG_CURVE_LINEAR, 0, 0);
    schedule.power = NAN;
    schedule.table = nan_table;
    ck_assert(multipliers(&schedule, 8)[0] == 1.0);
    schedule.curve = GRADREG_CURVE_TABLE;
    schedule.table = good_table;
    ck_assert(multipliers(&schedule, 8)[0] == 0.0);
}
END_TEST

static const int32_t bad_counts[] = { 0, -1, DEEPEST + 1, INT32_MAX, INT32_MIN };

START_TEST(bad_layer_count_is_refused)
{
    char value[16];
    snprintf(value, sizeof(value), "is %d,", bad_counts[_i]);
    const char *const says[2] = { "layer_count", value };
    const gradreg_schedule even = schedule_of(GRADREG_CURVE_LINEAR, 0, 0);
    check_refused(&even, bad_counts[_i], says);

    gradreg_schedule out, before;
    memset(&out, 0x5a, sizeof(out));
    before = out;
    assert_fails(gradreg_schedule_for_depth(&out, bad_counts[_i]),
                 GRADREG_ERROR_INVALID_ARGUMENT, says[0], says[1]);
    ck_assert_mem_eq(&out, &before, sizeof(out));
}
END_TEST

START_TEST(null_is_refused_by_name)
{
    const gradreg_schedule schedule = schedule_of(GRADREG_CURVE_LINEAR, 0, 0);
    const char *const says[2] = { "'schedule'", "NULL" };

    assert_fails(gradreg_schedule_for_depth(NULL, 8), GRADREG_ERROR_INVALID_ARGUMENT, "'out'",
                 "NULL");
    assert_fails(gradreg_schedule_multipliers(NULL, &schedule, 8),
                 GRADREG_ERROR_INVALID_ARGUMENT, "'out'", "NULL");
    check_refused(NULL, 8, says);
}
END_TEST

START_TEST(misaligned_doubles_are_refused)
{
    double *odd = guarded_new(9 * sizeof(double), 1);
    gradreg_schedule schedule = schedule_of(GRADREG_CURVE_TABLE, 0, 0);
    const char *const says[2] = { "table is 0x", "aligned" };

    schedule.table = odd;
    check_refused(&schedule, 8, says);
    schedule.curve = GRADREG_CURVE_LINEAR;
    assert_fails(gradreg_schedule_multipliers(odd, &schedule, 8),
                 GRADREG_ERROR_INVALID_ARGUMENT, "'out' is 0x", "aligned");
    guarded_free(odd);
}
END_TEST

START_TEST(outside_multiplier_is_kept_and_changes_no_layer)
{
    static const double values[] = { 0.0, 0x1p-1074, 0.3, 1.0, 7.0, DBL_MAX };
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        gradreg_schedule schedule = schedule_of(GRADREG_CURVE_LINEAR, 0, 1);
        schedule.outside_multiplier = values[i];
        const double *m = multipliers(&schedule, 2);
        ck_assert(m[0] == 0.5 && m[1] == 1.0);
        assert_ok(gradreg_i_schedule_resolve(&schedule, 2, "schedule"));
        ck_assert(schedule.outside_multiplier == values[i]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("schedule");
    TCase *tc = tcase_create("default");
    tcase_add_test(tc, article_has_36_layers);
    tcase_add_test(tc, one_two_and_three_layers);
    tcase_add_test(tc, default_of_every_depth);
    tcase_add_test(tc, default_sets_every_field);
    tcase_add_test(tc, minus_one_twice_is_the_default);
    suite_add_tcase(suite, tc);

    tc = tcase_create("curves");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, linear_is_rounded_once);
    tcase_add_test(tc, cosine_is_close);
    tcase_add_test(tc, cosine_meets_its_exact_values);
    tcase_add_test(tc, cosine_is_symmetric_and_rises);
    tcase_add_loop_test(tc, power_is_close, 0, (int)(sizeof(powers) / sizeof(*powers)));
    tcase_add_test(tc, power_beyond_a_double_is_zero_or_one);
    tcase_add_test(tc, step_waits_for_the_full_layer);
    tcase_add_test(tc, table_is_taken_as_it_is);
    tcase_add_test(tc, curve_zero_is_linear);
    tcase_add_test(tc, edges_of_the_ramp);
    tcase_add_test(tc, environment_of_the_host_does_not_count);
    suite_add_tcase(suite, tc);

    tc = tcase_create("refusals");
    tcase_add_loop_test(tc, bad_field_is_refused_by_name_and_value, 0, REFUSALS);
    tcase_add_test(tc, fields_of_other_curves_are_ignored);
    tcase_add_loop_test(tc, bad_layer_count_is_refused, 0,
                        (int)(sizeof(bad_counts) / sizeof(*bad_counts)));
    tcase_add_test(tc, null_is_refused_by_name);
    tcase_add_test(tc, misaligned_doubles_are_refused);
    tcase_add_test(tc, outside_multiplier_is_kept_and_changes_no_layer);
    suite_add_tcase(suite, tc);

    return run_suite(suite);
}
