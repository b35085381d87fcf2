/* check_functions.c - log, exp, pow, and cos and sin of turns in element.h.
 *
 * The reference is libm in long double (64 bits of significand or more), with arguments
 * reduced exactly before it sees them; errors are counted in last places of a double. */
#include <float.h>
#include <math.h>
#include <stdio.h>

#include "element.h"
#include "numbers.h"
#include "suite.h"

static const long double two_pi = 6.28318530717958647692528676655900576839L;

/* The distance in last places of a double as large as the reference. */
static double ulps(double got, long double want)
{
    const int exponent = want == 0.0L ? -1022 : ilogbl(want);
    const int place = (exponent < -1022 ? -1022 : exponent) - 52;
    return (double)ldexpl(fabsl((long double)got - want), -place);
}

struct worst {
    double error, at;
};

static void keep_worst(struct worst *worst, double error, double at)
{
    if (!(error <= worst->error)) {
        worst->error = error;
        worst->at = at;
    }
}

/* Any normal number: all exponents and fractions alike. */
static double next_normal(uint64_t *state)
{
    const uint64_t first = UINT64_C(0x0010000000000000), end = UINT64_C(0x7ff0000000000000);
    return gr_bits_f64(first + next_word(state) % (end - first));
}

enum { SAMPLES = 1000000 };

START_TEST(reference_is_more_precise_than_a_double)
{
    ck_assert_int_ge(LDBL_MANT_DIG, 64);
}
END_TEST

START_TEST(log_is_below_one_ulp)
{
    struct worst anywhere = { 0, 0 }, near_one = { 0, 0 };
    uint64_t state = 1;
    for (int i = 0; i < SAMPLES; i++) {
        const double x = next_normal(&state), y = 0.5 + 1.5 * next_unit(&state);
        const double z = 1.0 + ldexp(next_unit(&state) - 0.5, -(i % 52));
        keep_worst(&anywhere, ulps(gr_log(x), logl((long double)x)), x);
        keep_worst(&near_one, ulps(gr_log(y), logl((long double)y)), y);
        keep_worst(&near_one, ulps(gr_log(z), logl((long double)z)), z);
    }
    printf("log: %.3f ulp at %a; near 1 %.3f ulp at %a\n", anywhere.error, anywhere.at,
           near_one.error, near_one.at);
    ck_assert(anywhere.error < 1.0 && near_one.error < 1.0);
    ck_assert(gr_log(1.0) == 0.0);
    ck_assert(gr_log(DBL_MIN) < -708.39 && gr_log(DBL_MAX) < 709.79);
}
END_TEST

START_TEST(exp_is_below_one_ulp)
{
    struct worst normal = { 0, 0 }, denormal = { 0, 0 };
    uint64_t state = 2;
    for (int i = 0; i < SAMPLES; i++) {
        const double x = -708.0 + 1417.7 * next_unit(&state), y = 2 * next_unit(&state) - 1;
        const double z = -708.4 - 36.7 * next_unit(&state);
        keep_worst(&normal, ulps(gr_exp(x), expl((long double)x)), x);
        keep_worst(&normal, ulps(gr_exp(y), expl((long double)y)), y);
        keep_worst(&denormal, ulps(gr_exp(z), expl((long double)z)), z);
    }
    printf("exp: %.3f ulp at %a; denormal results %.3f ulp at %a\n", normal.error, normal.at,
           denormal.error, denormal.at);
    ck_assert(normal.error < 1.0 && denormal.error < 1.5);
    ck_assert(gr_exp(0.0) == 1.0 && gr_exp(-0.0) == 1.0);
}
END_TEST

START_TEST(exp_at_its_ends)
{
    const double largest = 0x1.62e42fefa39efp+9; /* ln of the largest double, cut off */
    ck_assert(isfinite(gr_exp(largest)) && isinf(gr_exp(largest + 0x1p-40)));
    ck_assert(isinf(gr_exp(1e300)) && isinf(gr_exp((double)INFINITY)));
    ck_assert(gr_exp(-745.1) == 0x1p-1074 && gr_exp(-745.2) == 0.0);
    ck_assert(gr_exp(-1e300) == 0.0 && gr_exp(-(double)INFINITY) == 0.0);
    ck_assert(isnan(gr_exp((double)NAN)));
}
END_TEST

START_TEST(pow_keeps_its_bound)
{
    struct worst small = { 0, 0 }, any = { 0, 0 };
    uint64_t state = 3;
    for (int i = 0; i < SAMPLES; i++) {
        const double x = next_normal(&state), y = next_unit(&state) + 0x1p-60;
        const double p = 200.0 * (next_unit(&state) - 0.5) / fabs(gr_log(x));
        const double q = 4.0 * next_unit(&state); /* a schedule's power */
        const long double want = powl((long double)x, (long double)p);
        const long double small_want = powl((long double)y, (long double)q);
        keep_worst(&any, (double)(fabsl((long double)gr_pow(x, p) - want) / want), x);
        if (small_want > 1e-20L)
            keep_worst(&small,
                       (double)(fabsl((long double)gr_pow(y, q) - small_want) / small_want), y);
    }
    printf("pow: relative error %.3g for |p log x| <= 100, %.3g for x < 1 and 0 < p < 4\n",
           any.error, small.error);
    ck_assert(any.error < 1e-13 && small.error < 2e-14);
}
END_TEST

START_TEST(pow_of_special_values)
{
    const double infinite = (double)INFINITY;
    ck_assert(gr_pow(0.3, 0.0) == 1.0 && gr_pow(0.0, 0.0) == 1.0 &&
              gr_pow(infinite, 0.0) == 1.0);
    ck_assert(gr_pow(0.3, 1.0) == 0.3 && gr_pow(0.0, 1.0) == 0.0);
    ck_assert(gr_pow(1.0, 12345.0) == 1.0 && gr_pow(1.0, -0.5) == 1.0);
    ck_assert(gr_pow(0.0, 2.5) == 0.0 && isinf(gr_pow(0.0, -2.5)));
    ck_assert(isinf(gr_pow(infinite, 0.5)) && gr_pow(infinite, -0.5) == 0.0);
    ck_assert(isnan(gr_pow((double)NAN, 2.0)) && isnan(gr_pow(-1.0, 2.0)));
    ck_assert(isnan(gr_pow(2.0, (double)NAN)));
    ck_assert(isinf(gr_pow(2.0, 1025.0)) && gr_pow(2.0, -1080.0) == 0.0);
    for (int e = -1074; e < -1022; e++) { /* denormal x */
        const long double want = powl(ldexpl(1.0L, e), -0.25L);
        ck_assert(fabsl((long double)gr_pow(ldexp(1.0, e), -0.25) - want) < 1e-13L * want);
    }
}
END_TEST

/* ---- turns --------------------------------------------------------------------------- */

/* cos and sin of 2 pi x, the quarter turns taken off first: exact in long double. */
static void turn_reference(double x, long double *cosine, long double *sine)
{
    const long double rest = fmodl((long double)x, 1.0L);
    const long double quarters = rintl(4.0L * rest);
    const long double angle = two_pi * (rest - quarters / 4.0L);
    const long double c = cosl(angle), s = sinl(angle);
    switch ((int)quarters & 3) {
    case 0: *cosine = c, *sine = s; break;
    case 1: *cosine = -s, *sine = c; break;
    case 2: *cosine = -c, *sine = -s; break;
    default: *cosine = s, *sine = -c; break;
    }
}

static void measure_turn(struct worst worst[2], double x)
{
    long double cosine, sine;
    turn_reference(x, &cosine, &sine);
    keep_worst(&worst[0], ulps(gr_cos_turn(x), cosine), x);
    keep_worst(&worst[1], ulps(gr_sin_turn(x), sine), x);
}

START_TEST(turns_are_below_two_ulps)
{
    struct worst worst[2] = { { 0, 0 }, { 0, 0 } };
    uint64_t state = 4;
    for (int i = 0; i < SAMPLES; i++) {
        const double sign = i % 2 == 0 ? 1.0 : -1.0;
        measure_turn(worst, sign * next_unit(&state));
        measure_turn(worst, sign * ldexp(next_unit(&state), i % 54));
        measure_turn(worst, 0.125 * (i % 64 - 32) + ldexp(next_unit(&state) - 0.5, -(i % 60)));
    }
    for (int i = 0; i < 1000; i++) /* tiny, and huge: whole turns from 2^53 on */
        measure_turn(worst, next_normal(&state));
    printf("cos of turns: %.3f ulp at %a; sin of turns: %.3f ulp at %a\n", worst[0].error,
           worst[0].at, worst[1].error, worst[1].at);
    ck_assert(worst[0].error < 2.0 && worst[1].error < 2.0);
}
END_TEST

START_TEST(quarter_turns_are_exact)
{
    static const double cosine[4] = { 1, 0, -1, 0 };
    for (int q = -4000; q <= 4000; q++) {
        const double far = q < 0 ? -0x1p+50 : 0x1p+50; /* quarters are the last place there */
        for (int shifted = 0; shifted < 2; shifted++) {
            const double x = 0.25 * q + shifted * far;
            ck_assert(gr_cos_turn(x) == cosine[q & 3]);
            ck_assert(gr_sin_turn(x) == cosine[(q - 1) & 3]);
        }
    }
    ck_assert(gr_cos_turn(1e300) == 1.0 && gr_sin_turn(-1e300) == 0.0);
    ck_assert(gr_cos_turn(0x1p+53 - 1) == 1.0 && gr_cos_turn(0x1p+52 - 0.5) == -1.0);
    ck_assert(isnan(gr_cos_turn((double)INFINITY)) && isnan(gr_sin_turn((double)NAN)));
}
END_TEST

START_TEST(results_have_the_same_bits_with_every_compiler)
{
    uint64_t state = 5, all = DIGEST_START;
    for (int i = 0; i < 100000; i++) {
        const double x = next_normal(&state), y = 1400.0 * (next_unit(&state) - 0.5);
        all = digest(all, gr_f64_bits(gr_log(x)));
        all = digest(all, gr_f64_bits(gr_exp(y)));
        all = digest(all, gr_f64_bits(gr_pow(x, y / 1000.0)));
        all = digest(all, gr_f64_bits(gr_cos_turn(y)));
        all = digest(all, gr_f64_bits(gr_sin_turn(y)));
    }
    ck_assert_msg(all == UINT64_C(0x387f3b50b3708d4c), "%016llx", (unsigned long long)all);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("functions");
    TCase *core = tcase_create("core");

    tcase_set_timeout(core, 60);
    tcase_add_test(core, reference_is_more_precise_than_a_double);
    tcase_add_test(core, log_is_below_one_ulp);
    tcase_add_test(core, exp_is_below_one_ulp);
    tcase_add_test(core, exp_at_its_ends);
    tcase_add_test(core, pow_keeps_its_bound);
    tcase_add_test(core, pow_of_special_values);
    tcase_add_test(core, turns_are_below_two_ulps);
    tcase_add_test(core, quarter_turns_are_exact);
    tcase_add_test(core, results_have_the_same_bits_with_every_compiler);
    suite_add_tcase(suite, core);
    return run_plainly(suite, CK_FORK_GETENV);
}
