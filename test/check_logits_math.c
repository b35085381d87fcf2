/* check_logits_math.c - exp and log1p of logits_math.h against long double, and how parts join. */
#include <float.h>
#include <math.h>
#include <stdio.h>

#include "logits_math.h"
#include "numbers.h"
#include "suite.h"

/* The distance in last places of a float as large as the reference. */
static double ulps(float got, long double want)
{
    return (double)ldexpl(fabsl((long double)got - want), 23 - ilogbl(want));
}

START_TEST(
    exp_is_below_two_and_a_half_ulps) /* a dense sweep: every 61st float of -87 .. -2^-40 and up */
{
    double worst = 0.0, at = 0.0, relative = 0.0;
    const uint32_t last = gr_f32_bits(88.0f);
    for (int negative = 0; negative < 2; negative++)
        for (uint32_t bits = 0x2b800000u; bits <= last; bits += 61) {
            const float x = negative ? -gr_bits_f32(bits) : gr_bits_f32(bits);
            if (x < GR_EXP_LEAST)
                break;
            const float got = gr_exp_f32(x);
            const long double want = expl((long double)x);
            const double error = ulps(got, want);
            const double part = (double)(fabsl((long double)got - want) / want);
            relative = part > relative ? part : relative;
            if (error > worst)
                worst = error, at = (double)x;
        }
    printf("exp in fp32: %.3f ulp at %a, relative error %.3g\n", worst, at, relative);
    ck_assert(worst < 2.5 && relative < 2.1e-7);
}
END_TEST

START_TEST(exp_at_its_ends)
{
    ck_assert(gr_exp_f32(0.0f) == 1.0f && gr_exp_f32(-0.0f) == 1.0f);
    ck_assert(gr_exp_f32(-0x1p-40f) == 1.0f && gr_exp_f32(0x1p-40f) == 1.0f);
    ck_assert(gr_exp_f32(-87.0f) > FLT_MIN && gr_exp_f32(-87.00001f) == 0.0f);
    ck_assert(gr_exp_f32(-1e30f) == 0.0f && gr_exp_f32(-HUGE_VALF) == 0.0f);
    ck_assert(gr_exp_f32((float)NAN) == 0.0f);
    ck_assert(isfinite(gr_exp_f32(88.0f)));
}
END_TEST

START_TEST(exp_never_falls)
{
    float before = 0.0f;
    for (int i = 0; i <= 8700000; i++) {
        const float now = gr_exp_f32(-87.0f + (float)i * 1e-5f);
        if (!(now >= before * (1.0f - 0x1p-22f)))
            ck_abort_msg("%a after %a", (double)now, (double)before);
        before = now;
    }
}
END_TEST

START_TEST(log1p_is_exact_where_log_would_lose_everything)
{
    double worst = 0.0;
    uint64_t state = 3;
    for (int i = 0; i < 1000000; i++) {
        const double x = ldexp(0.5 + next_unit(&state), -(i % 300) + 30);
        const long double want = log1pl((long double)x);
        const double error = (double)(fabsl((long double)gr_log1p(x) - want) / want);
        worst = error > worst ? error : worst;
    }
    printf("log1p: relative error %.3g\n", worst);
    ck_assert(worst < 4e-16);
    ck_assert(gr_log1p(0.0) == 0.0);
}
END_TEST

static gr_logits_part part_of(float top, double tops, double rest, double turn)
{
    const gr_logits_part part = { tops, rest, turn, top, 0.0f };
    return part;
}

START_TEST(parts_join_to_what_the_whole_has)
{
    uint64_t state = 4;
    for (int i = 0; i < 10000; i++) {
        const float a = (float)(20.0 * next_unit(&state)),
                    b = (float)(20.0 * next_unit(&state));
        const double ra = next_unit(&state), rb = next_unit(&state);
        const gr_logits_part whole =
            gr_logits_join(part_of(a, 1, ra, -ra), part_of(b, 2, rb, -2 * rb));
        const double top = (double)(a > b ? a : b), da = (double)a - top, db = (double)b - top;
        const double sum = exp(da) * (1 + ra) + exp(db) * (2 + rb);
        const double turn =
            exp(da) * (-ra + da * (1 + ra)) + exp(db) * (-2 * rb + db * (2 + rb));
        ck_assert((double)whole.top == top);
        ck_assert(fabs(whole.tops + whole.rest - sum) < 1e-14 * sum);
        ck_assert(fabs(whole.turn - turn) < 1e-14 * (1.0 - turn));
        ck_assert(whole.tops == (a > b ? 1 : a < b ? 2 : 3));
    }
}
END_TEST

START_TEST(nothing_and_not_a_number_join_as_they_should)
{
    const gr_logits_part some = part_of(2.0f, 1, 0.5, -0.25);
    const gr_logits_part none = part_of(-HUGE_VALF, 0, 0, 0),
                         nan = part_of((float)NAN, 0, 0, 0);
    ck_assert(gr_logits_join(some, none).rest == 0.5 && gr_logits_join(none, some).rest == 0.5);
    ck_assert(gr_logits_join(none, none).top == -HUGE_VALF);
    ck_assert(isnan(gr_logits_join(some, nan).top) && isnan(gr_logits_join(nan, some).top));
    ck_assert(isnan(gr_logits_join(none, nan).top) && isnan(gr_logits_join(nan, none).top));
}
END_TEST

/* Steps of a binary counter against the same tree, level by level. */
START_TEST(the_stack_joins_in_the_order_of_the_tree)
{
    enum { MOST = 70 };
    for (size_t n = 1; n <= MOST; n++) {
        gr_logits_part level[MOST];
        gr_logits_stack stack;
        uint64_t state = n;
        stack.held = 0;
        stack.count = 0;
        for (size_t i = 0; i < n; i++) {
            level[i] = part_of((float)next_unit(&state), 1, next_unit(&state), -1.0);
            gr_logits_push(&stack, level[i]);
        }
        for (size_t left = n; left > 1; left = (left + 1) / 2)
            for (size_t i = 0; i < (left + 1) / 2; i++)
                level[i] = 2 * i + 1 < left ? gr_logits_join(level[2 * i], level[2 * i + 1])
                                            : level[2 * i];
        const gr_logits_part whole = gr_logits_whole(&stack);
        ck_assert(whole.rest == level[0].rest && whole.turn == level[0].turn &&
                  whole.tops == level[0].tops && whole.top == level[0].top);
    }
}
END_TEST

START_TEST(results_have_the_same_bits_with_every_compiler)
{
    uint64_t state = 5, all = DIGEST_START;
    for (int i = 0; i < 100000; i++) {
        const float x = (float)(-100.0 * next_unit(&state));
        all = digest(all, gr_f32_bits(gr_exp_f32(x)));
        all = digest(all, gr_f64_bits(gr_log1p(next_unit(&state))));
    }
    ck_assert_msg(all == UINT64_C(0x9f14816bbd36f34d), "%016llx", (unsigned long long)all);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("logits math");
    TCase *core = tcase_create("core");
    tcase_set_timeout(core, 60);
    tcase_add_test(core, exp_is_below_two_and_a_half_ulps);
    tcase_add_test(core, exp_at_its_ends);
    tcase_add_test(core, exp_never_falls);
    tcase_add_test(core, log1p_is_exact_where_log_would_lose_everything);
    tcase_add_test(core, parts_join_to_what_the_whole_has);
    tcase_add_test(core, nothing_and_not_a_number_join_as_they_should);
    tcase_add_test(core, the_stack_joins_in_the_order_of_the_tree);
    tcase_add_test(core, results_have_the_same_bits_with_every_compiler);
    suite_add_tcase(suite, core);
    return run_plainly(suite, CK_FORK_GETENV);
}
