/* check_oracle_rules.c - the oracle's rounding, schedules and refusals, against known bits and values.
 *
 * No library is involved, as in check_oracle.c, where the oracle takes whole steps. */
#include <math.h>

#include "model.h"
#include "oracle.h"
#include "support.h"

/* ---------------------------------------------------------------------------- rounding */

struct rounding_case {
    gradreg_type type;
    double exact, rounded;
};

static const struct rounding_case roundings[] = {
    { GRADREG_TYPE_F32, 1.0 + 0x1p-24, 1.0 }, /* ties go to the even neighbour */
    { GRADREG_TYPE_F32, 1.0 + 0x3p-24, 1.0 + 0x1p-22 },
    { GRADREG_TYPE_F32, 1.0 + 0x1.8p-24, 1.0 + 0x1p-23 },
    { GRADREG_TYPE_F32, 0x1p-150, 0.0 },
    { GRADREG_TYPE_F32, 0x1.8p-150, 0x1p-149 },
    { GRADREG_TYPE_F32, 0x1.fffffefp127, 0x1.fffffep127 },
    { GRADREG_TYPE_F32, 0x1.ffffffp127, INFINITY },
    { GRADREG_TYPE_BF16, 1.0 + 0x1p-8, 1.0 },
    { GRADREG_TYPE_BF16, 1.0 + 0x3p-8, 1.0 + 0x1p-6 },
    { GRADREG_TYPE_BF16, -3.0 - 0x1.01p-7, -3.0 - 0x1p-6 },
    { GRADREG_TYPE_BF16, 0x1p-134, 0.0 },
    { GRADREG_TYPE_BF16, 0x1.ffp127, INFINITY },
    { GRADREG_TYPE_F16, 1.0 + 0x1p-11, 1.0 },
    { GRADREG_TYPE_F16, 1.0 + 0x3p-11, 1.0 + 0x1p-9 },
    { GRADREG_TYPE_F16, 0x1p-25, 0.0 },
    { GRADREG_TYPE_F16, 0x1.8p-25, 0x1p-24 },
    { GRADREG_TYPE_F16, 65519.0, 65504.0 },
    { GRADREG_TYPE_F16, 1e6, 65504.0 },
    { GRADREG_TYPE_F16, -INFINITY, -65504.0 },
};

START_TEST(rounding_agrees_with_known_bits)
{
    const struct rounding_case *c = &roundings[_i];

    ck_assert_double_eq(oracle_round(c->type, c->exact), c->rounded);
    ck_assert_double_eq(oracle_round(c->type, -c->exact), -c->rounded);
}
END_TEST

START_TEST(rounding_to_f32_agrees_with_the_processor)
{
    uint64_t state = 77;

    for (int i = 0; i < 100000; i++) {
        const double x = ldexp(model_random(&state), (int)(model_random(&state) * 160.0));
        ck_assert_double_eq(oracle_round(GRADREG_TYPE_F32, x), (double)(float)x);
    }
    ck_assert(signbit(oracle_round(GRADREG_TYPE_BF16, -0.0)));
    ck_assert_double_eq(oracle_half_ulp(GRADREG_TYPE_BF16), 0x1p-8);
}
END_TEST

/* ---------------------------------------------------------------------------- schedule */

START_TEST(schedule_of_the_article)
{
    const gradreg_schedule by_depth = GRADREG_SCHEDULE_INIT;

    ck_assert_double_eq(oracle_multiplier(&by_depth, 36, 5), 0.0);
    ck_assert_double_eq_tol(oracle_multiplier(&by_depth, 36, 6), 1.0 / 17.0, 1e-16);
    ck_assert_double_eq_tol(oracle_multiplier(&by_depth, 36, 21), 16.0 / 17.0, 1e-16);
    ck_assert_double_eq(oracle_multiplier(&by_depth, 36, 22), 1.0);
    ck_assert_double_eq(oracle_multiplier(&by_depth, 36, GRADREG_LAYER_NONE), 0.0);
    ck_assert_double_eq(oracle_multiplier(&by_depth, 1, 0), 1.0);
    ck_assert_double_eq(oracle_multiplier(&by_depth, 2, 0), 0.5);
    ck_assert_double_eq(oracle_multiplier(&by_depth, 2, 1), 1.0);
    ck_assert_double_eq(oracle_multiplier(&by_depth, 3, 0), 0.0);
    ck_assert_double_eq(oracle_multiplier(&by_depth, 3, 1), 0.5);
    ck_assert_double_eq(oracle_multiplier(&by_depth, 3, 2), 1.0);
}
END_TEST

START_TEST(curves_meet_their_ends)
{
    gradreg_schedule s = GRADREG_SCHEDULE_INIT;
    const double table[4] = { 0.25, 3.0, 0.0, 1.0 };

    s.first_layer = 1;
    s.full_layer = 4;
    s.curve = GRADREG_CURVE_COSINE;
    ck_assert_double_eq_tol(oracle_multiplier(&s, 8, 2), 0.5, 1e-15);
    s.curve = GRADREG_CURVE_POWER;
    s.power = 3.0;
    ck_assert_double_eq_tol(oracle_multiplier(&s, 8, 2), 0.125, 1e-15);
    s.curve = GRADREG_CURVE_STEP;
    ck_assert_double_eq(oracle_multiplier(&s, 8, 3), 0.0);
    ck_assert_double_eq(oracle_multiplier(&s, 8, 4), 1.0);
    s.curve = GRADREG_CURVE_TABLE;
    s.table = table;
    ck_assert_double_eq(oracle_multiplier(&s, 4, 1), 3.0);
}
END_TEST

START_TEST(strength_warms_up_and_decays)
{
    gradreg_regularizer_params p = model_params();

    p.warmup_steps = 4;
    ck_assert_double_eq(oracle_strength_factor(&p, 3), 0.0);
    ck_assert_double_eq(oracle_strength_factor(&p, 4), 1.0);
    p.warmup = GRADREG_WARMUP_LINEAR;
    ck_assert_double_eq(oracle_strength_factor(&p, 1), 0.25);
    p.decay = GRADREG_DECAY_LINEAR;
    p.decay_steps = 10;
    p.strength_end = 0.5;
    ck_assert_double_eq_tol(oracle_strength_factor(&p, 9), 0.75, 1e-15);
    ck_assert_double_eq_tol(oracle_strength_factor(&p, 1000), 0.5, 1e-15);
    p.decay = GRADREG_DECAY_COSINE;
    ck_assert_double_eq_tol(oracle_strength_factor(&p, 9), 0.75, 1e-15);
    ck_assert_double_eq_tol(oracle_strength_factor(&p, 6),
                            0.5 + 0.5 * (1 + cos(0.2 * acos(-1.0))) / 2, 1e-15);
}
END_TEST

/* ---------------------------------------------------------------------------- refusals */

START_TEST(refusals_follow_the_page)
{
    const gradreg_regularizer_params fine = model_params();
    gradreg_regularizer_params p = fine;

#define REFUSAL() oracle_refusal(model_segments, MODEL_SEGMENTS, &p)
    ck_assert_int_eq(REFUSAL(), GRADREG_OK);
    p.difference = GRADREG_DIFFERENCE_BACKWARD;
    ck_assert_int_eq(REFUSAL(), GRADREG_ERROR_UNSUPPORTED);
    p = fine;
    p.step = 4;
    ck_assert_int_eq(REFUSAL(), GRADREG_ERROR_INVALID_ARGUMENT);
    p = fine;
    p.second_pass = GRADREG_SECOND_PASS_TRUNCATED;
    ck_assert_int_eq(REFUSAL(), GRADREG_OK);
    p.clip_second = 1.0;
    ck_assert_int_eq(REFUSAL(), GRADREG_ERROR_UNSUPPORTED);
    p.common_clip = 1;
    ck_assert_int_eq(REFUSAL(), GRADREG_OK);
    p = fine;
    p.noise.rule = GRADREG_NOISE_STEP;
    ck_assert_int_eq(REFUSAL(), GRADREG_OK);
    p.depth = GRADREG_DEPTH_ON_PENALTY; /* the noise layers have m = 0 */
    ck_assert_int_eq(REFUSAL(), GRADREG_ERROR_UNSUPPORTED);
    p = fine;
    p.noise.rule = GRADREG_NOISE_STEP;
    p.perturbed_roles = GRADREG_ROLE_MLP;
    ck_assert_int_eq(REFUSAL(), GRADREG_ERROR_UNSUPPORTED);
#undef REFUSAL
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("oracle rules");
    TCase *tc = tcase_create("rules");

    add_loop_test(tc, rounding_agrees_with_known_bits, 0,
                  sizeof(roundings) / sizeof(*roundings));
    tcase_add_test(tc, rounding_to_f32_agrees_with_the_processor);
    tcase_add_test(tc, schedule_of_the_article);
    tcase_add_test(tc, curves_meet_their_ends);
    tcase_add_test(tc, strength_warms_up_and_decays);
    tcase_add_test(tc, refusals_follow_the_page);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
