/* check_element.c - storage types, stochastic rounding and formulas of element.h.
 *
 * The oracle knows the formats only as sorted tables of their values, built by ldexp, and
 * rounds by looking for the two neighbours in the table: no bit of element.h's way. */
#include <math.h>
#include <stdio.h>

#include "element.h"
#include "numbers.h"
#include "suite.h"

/* A 16-bit format: value[p] is the number of pattern p; value[infinity] stands for the power
 * of two that would come next, where rounding passes over to infinity. */
struct format {
    const char *name;
    int fraction, bias;
    uint32_t infinity;
    double value[0x8000];
};
static struct format bf16 = { .name = "bf16", .fraction = 7, .bias = 127, .infinity = 0x7f80 };
static struct format f16 = { .name = "f16", .fraction = 10, .bias = 15, .infinity = 0x7c00 };

static double pattern_value(uint32_t pattern, int fraction, int bias)
{
    const int exponent = (int)(pattern >> fraction);
    const double significand = (double)(pattern & ((1u << fraction) - 1));
    const double hidden = exponent > 0 ? ldexp(1.0, fraction) : 0.0;
    return ldexp(hidden + significand, (exponent > 0 ? exponent : 1) - bias - fraction);
}

static void fill_formats(void)
{
    for (uint32_t p = 0; p <= bf16.infinity; p++)
        bf16.value[p] = pattern_value(p, bf16.fraction, bf16.bias);
    for (uint32_t p = 0; p <= f16.infinity; p++)
        f16.value[p] = pattern_value(p, f16.fraction, f16.bias);
}

/* The largest pattern whose value is at most |x|. */
static uint32_t pattern_below(const struct format *format, double x)
{
    uint32_t low = 0, high = format->infinity + 1;
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (format->value[middle] <= x)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static uint32_t nearest_pattern(const struct format *format, double x)
{
    const uint32_t below = pattern_below(format, x);
    if (below == format->infinity)
        return below;
    const double down = x - format->value[below], up = format->value[below + 1] - x;
    return up < down || (up == down && below % 2 == 1) ? below + 1 : below;
}

/* ---- widening --------------------------------------------------------------------- */

START_TEST(every_bf16_pattern_widens_exactly)
{
    for (uint32_t p = 0; p < 0x10000; p++) {
        const uint32_t bits = gr_f32_bits(gr_bf16_to_f32((gr_bf16)p));
        if ((p & 0x7fff) < bf16.infinity) {
            const double want = bf16.value[p & 0x7fff];
            const float got = gr_bits_f32(bits);
            ck_assert_msg(fabs((double)got) == want && !signbit(got) == (p < 0x8000), "%04x",
                          p);
        } else {
            ck_assert_uint_eq(bits, p << 16);
        }
    }
}
END_TEST

START_TEST(every_f16_pattern_widens_exactly)
{
    for (uint32_t p = 0; p < 0x10000; p++) {
        const float got = gr_f16_to_f32((gr_f16)p);
        const uint32_t magnitude = p & 0x7fff;
        ck_assert_msg(!signbit(got) == (p < 0x8000), "sign of %04x", p);
        if (magnitude < f16.infinity)
            ck_assert_msg(fabs((double)got) == f16.value[magnitude], "%04x", p);
        else if (magnitude == f16.infinity)
            ck_assert(isinf(got));
        else /* quiet, and the whole payload on top of the wide one */
            ck_assert_uint_eq(gr_f32_bits(got) & 0x7fffffffu,
                              0x7f800000u | ((magnitude & 0x3ffu) | 0x200u) << 13);
    }
}
END_TEST

START_TEST(widening_and_narrowing_returns_every_pattern)
{
    for (uint32_t p = 0; p < 0x10000; p++) {
        const uint32_t quiet_bf16 = (p & 0x7fff) > bf16.infinity ? p | 0x40 : p;
        const uint32_t quiet_f16 = (p & 0x7fff) > f16.infinity ? p | 0x200 : p;
        ck_assert_uint_eq(gr_f32_to_bf16(gr_bf16_to_f32((gr_bf16)p)), quiet_bf16);
        ck_assert_uint_eq(gr_f32_to_f16_saturating(gr_f16_to_f32((gr_f16)p)), quiet_f16);
        ck_assert(!gr_f16_saturates(gr_f16_to_f32((gr_f16)p)));
    }
}
END_TEST

/* ---- narrowing -------------------------------------------------------------------- */

static uint32_t want_bf16(uint32_t bits)
{
    const uint32_t sign = bits >> 31 << 15, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return bits >> 16 | 0x40u;
    if (magnitude == 0x7f800000u)
        return sign | bf16.infinity;
    return sign | nearest_pattern(&bf16, pattern_value(magnitude, 23, 127));
}

static uint32_t want_f16(uint32_t bits, int *saturates)
{
    const uint32_t sign = bits >> 31 << 15, magnitude = bits & 0x7fffffffu;
    *saturates = 0;
    if (magnitude > 0x7f800000u)
        return sign | 0x7e00u | (magnitude >> 13 & 0x3ffu);
    if (magnitude == 0x7f800000u)
        return sign | f16.infinity;
    const uint32_t nearest = nearest_pattern(&f16, pattern_value(magnitude, 23, 127));
    *saturates = nearest == f16.infinity;
    return sign | (*saturates ? f16.infinity - 1 : nearest);
}

static void check_narrowing(uint32_t bits)
{
    const float x = gr_bits_f32(bits);
    int saturates;
    const uint32_t wanted_f16 = want_f16(bits, &saturates), wanted_bf16 = want_bf16(bits);
    const uint32_t got_f16 = gr_f32_to_f16_saturating(x), got_bf16 = gr_f32_to_bf16(x);

    /* ck_assert writes to a pipe at each call: too slow for millions. */
    if (got_bf16 != wanted_bf16)
        ck_abort_msg("bf16 of %08x: %04x, want %04x", bits, got_bf16, wanted_bf16);
    if (got_f16 != wanted_f16)
        ck_abort_msg("f16 of %08x: %04x, want %04x", bits, got_f16, wanted_f16);
    if (gr_f16_saturates(x) != saturates)
        ck_abort_msg("saturation of %08x: want %d", bits, saturates);
    if (gr_is_non_finite(x) != !isfinite(x))
        ck_abort_msg("finiteness of %08x", bits);
}

/* Each value, each midpoint to the next, and the floats around both, with both signs. */
START_TEST(narrowing_is_right_at_every_value_and_midpoint)
{
    const struct format *formats[] = { &bf16, &f16 };
    for (int f = 0; f < 2; f++)
        for (uint32_t p = 0; p < formats[f]->infinity; p++) {
            const double value = formats[f]->value[p], next = formats[f]->value[p + 1];
            const uint32_t at = gr_f32_bits((float)value);
            const uint32_t middle = gr_f32_bits((float)((value + next) / 2));
            for (uint32_t negative = 0; negative < 2; negative++) {
                const uint32_t sign = negative << 31;
                check_narrowing(sign | at);
                check_narrowing(sign | (at + 1));
                check_narrowing(sign | (middle - (middle > 0)));
                check_narrowing(sign | middle);
                check_narrowing(sign | (middle + 1));
            }
        }
}
END_TEST

START_TEST(narrowing_is_right_on_a_sweep_of_all_floats)
{
    unsigned count = 0;
    uint64_t state = 1;
    for (uint64_t bits = 0; bits < UINT64_C(1) << 32; bits += 1499, count++)
        check_narrowing((uint32_t)bits);
    for (int i = 0; i < 1000000; i++, count++)
        check_narrowing((uint32_t)next_word(&state));
    for (uint32_t payload = 1; payload < 0x800000; payload += 977, count += 2) {
        check_narrowing(0x7f800000u | payload);
        check_narrowing(0xff800000u | payload);
    }
    printf("narrowing: %u floats compared with the table of neighbours\n", count);
}
END_TEST

/* Sums of three bf16 of one float are exact in double. */
static void check_pieces(uint32_t bits)
{
    const float x = gr_bits_f32(bits);
    gr_bf16 piece[3];
    double sum = 0.0, size = 0.0;
    gr_bf16_pieces(piece, x);
    if (gr_is_non_finite(x)) {
        ck_assert_msg(piece[0] == gr_f32_to_bf16(x) && piece[1] == 0 && piece[2] == 0,
                      "%08x: %04x, %04x, %04x", bits, piece[0], piece[1], piece[2]);
        return;
    }
    for (int k = 0; k < 3; k++) {
        const double one = (double)gr_bf16_to_f32(piece[k]);
        sum += one;
        size += fabs(one);
    }
    const double slack = fabsf(x) < 0x1p-110f ? 0x1p-134 : 0.0;
    if (!(fabs(sum - (double)x) <= slack && size <= (1 + 0x1p-6) * fabs((double)x) + slack))
        ck_abort_msg("%a is %04x, %04x, %04x, which make %a", (double)x, piece[0], piece[1],
                     piece[2], sum);
}

START_TEST(three_bf16_pieces_make_the_float_they_came_from)
{
    static const uint32_t fractions[] = { 0,        1,        0x7f,     0x80,     0x7fff,
                                          0x8000,   0x8001,   0xffff,   0x10000,  0x17fff,
                                          0x18000,  0x7eff80, 0x7f0000, 0x7f7f7f, 0x7f7fff,
                                          0x7f8000, 0x7f8080, 0x7fffff };
    uint64_t state = 2;
    for (uint32_t exponent = 0; exponent < 512; exponent++) /* and the sign */
        for (size_t i = 0; i < sizeof(fractions) / sizeof(*fractions); i++)
            check_pieces(exponent << 23 | fractions[i]);
    for (uint64_t bits = 0; bits < UINT64_C(1) << 32; bits += 3001)
        check_pieces((uint32_t)bits);
    for (int i = 0; i < 1000000; i++)
        check_pieces((uint32_t)next_word(&state));
}
END_TEST

START_TEST(known_conversions)
{
    ck_assert_uint_eq(gr_f32_to_f16_saturating(65504.0f), 0x7bff);
    ck_assert_uint_eq(gr_f32_to_f16_saturating(65519.996f), 0x7bff);
    ck_assert(!gr_f16_saturates(65519.996f));
    ck_assert_uint_eq(gr_f32_to_f16_saturating(-65520.0f), 0xfbff);
    ck_assert(gr_f16_saturates(-65520.0f));
    ck_assert(!gr_f16_saturates(INFINITY) && !gr_f16_saturates(NAN));
    ck_assert_uint_eq(gr_f32_to_f16_saturating(-INFINITY), 0xfc00);
    ck_assert_uint_eq(gr_f32_to_f16_saturating(0x1p-24f), 0x0001);
    ck_assert_uint_eq(gr_f32_to_f16_saturating(0x1p-25f), 0x0000);
    ck_assert_uint_eq(gr_f32_to_f16_saturating(-0x1.8p-25f), 0x8001);
    ck_assert_uint_eq(gr_f32_to_bf16(3.4e38f), 0x7f80);
    ck_assert_uint_eq(gr_f32_to_bf16(1.00390625f), 0x3f80);
    ck_assert_uint_eq(gr_f32_to_bf16(1.01171875f), 0x3f82);
    ck_assert_uint_eq(gr_f32_to_bf16(gr_bits_f32(0xff800001u)), 0xffc0);
}
END_TEST

/* ---- stochastic rounding ----------------------------------------------------------- */

enum target { TO_F32, TO_BF16, TO_F16, TARGETS };

static uint32_t round_to(enum target target, double exact, uint32_t random)
{
    switch (target) {
    case TO_F32: return gr_f32_bits(gr_round_stochastic_f32(exact, random));
    case TO_BF16: return gr_round_stochastic_bf16(exact, random);
    default: return gr_round_stochastic_f16(exact, random);
    }
}

static const struct {
    int fraction, bias;
    uint32_t sign, infinity, largest;
} targets[TARGETS] = {
    { 23, 127, 0x80000000u, 0x7f800000u, 0x7f800000u },
    { 7, 127, 0x8000u, 0x7f80u, 0x7f80u },
    { 10, 15, 0x8000u, 0x7c00u, 0x7bffu },
};

/* The pattern at or below x >= 0: bisection over patterns, whose values grow with them. */
static uint32_t target_below(enum target target, double x)
{
    uint32_t low = 0, high = targets[target].infinity + 1;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (pattern_value(middle, targets[target].fraction, targets[target].bias) <= x)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The share of the way from the lower to the upper neighbour, in steps of 2^-32, cut off. */
static uint64_t steps_above(enum target target, double x, uint32_t below)
{
    const double low = pattern_value(below, targets[target].fraction, targets[target].bias);
    const double high =
        pattern_value(below + 1, targets[target].fraction, targets[target].bias);
    return (uint64_t)ldexp((x - low) / (high - low), 32);
}

static double edge_biased(uint64_t *state, enum target target)
{
    const uint64_t word = next_word(state);
    const int span = target == TO_F16 ? 45 : 300;
    const int middle = target == TO_F16 ? -5 : 0;
    const double significand = 1.0 + (double)(word >> 12) * 0x1p-52;
    return ldexp(significand, (int)(next_word(state) % (unsigned)span) - span / 2 + middle);
}

/* The random bits from which on the upper neighbour is taken, found on both sides of it. */
START_TEST(the_upper_neighbour_is_taken_exactly_as_often_as_stated)
{
    const enum target target = (enum target)_i;
    const uint32_t largest = targets[target].largest, sign = targets[target].sign;
    uint64_t state = 7;

    for (int i = 0; i < 40000; i++) {
        const double x = edge_biased(&state, target);
        uint32_t below = target_below(target, x);
        if (below == targets[target].infinity) {
            ck_assert_uint_eq(round_to(target, x, (uint32_t)next_word(&state)), largest);
            continue;
        }
        const uint64_t steps = steps_above(target, x, below);
        const uint32_t above = below + 1 < largest ? below + 1 : largest;
        below = below < largest ? below : largest;
        const uint32_t random[4] = { 0, (uint32_t)(UINT64_C(0xffffffff) - steps),
                                     (uint32_t)(UINT64_C(0x100000000) - steps), UINT32_MAX };
        const uint32_t want[4] = { below, below, steps > 0 ? above : below,
                                   steps > 0 ? above : below };
        for (int k = 0; k < 4; k++) {
            const uint32_t got = round_to(target, x, random[k]);
            if (got != want[k] || round_to(target, -x, random[k]) != (got | sign))
                ck_abort_msg("%a with %08x: %08x, want %08x", x, random[k], got, want[k]);
        }
    }
}
END_TEST

/* The mean over many draws: five standard deviations of a coin's count. */
START_TEST(stochastic_rounding_is_unbiased)
{
    const enum target target = (enum target)_i;
    const int draws = 1 << 18;
    uint64_t state = 11;

    for (int i = 0; i < 12; i++) {
        const double x = target == TO_F16 ? ldexp(1.0 + next_unit(&state), -18 + 3 * i / 2)
                                          : ldexp(1.0 + next_unit(&state), -132 + 22 * i);
        const uint32_t below = target_below(target, x);
        const double p = ldexp((double)steps_above(target, x, below), -32);
        int up = 0;
        for (int k = 0; k < draws; k++)
            up += round_to(target, x, (uint32_t)(next_word(&state) >> 32)) == below + 1;
        ck_assert_msg(fabs(up - draws * p) <= 5 * sqrt(draws * p * (1 - p)) + 1,
                      "%a: %d of %d up, want %g", x, up, draws, draws * p);
    }
}
END_TEST

START_TEST(stochastic_rounding_keeps_what_the_type_holds)
{
    uint64_t state = 13;
    for (uint32_t p = 0; p < 0x10000; p++) {
        const double as_bf16 = (double)gr_bf16_to_f32((gr_bf16)p);
        const double as_f16 = (double)gr_f16_to_f32((gr_f16)p);
        const uint32_t random = p % 3 == 0 ? UINT32_MAX : (uint32_t)next_word(&state);
        const uint32_t bits = (uint32_t)next_word(&state);
        if ((p & 0x7fff) <= bf16.infinity)
            ck_assert_uint_eq(gr_round_stochastic_bf16(as_bf16, random), p);
        if ((p & 0x7fff) <= f16.infinity)
            ck_assert_uint_eq(gr_round_stochastic_f16(as_f16, random), p);
        if ((bits & 0x7fffffffu) <= 0x7f800000u)
            ck_assert_uint_eq(round_to(TO_F32, (double)gr_bits_f32(bits), random), bits);
    }
}
END_TEST

START_TEST(stochastic_rounding_of_special_values)
{
    const double nan = gr_bits_f64(UINT64_C(0xfff4000000000000));
    for (uint32_t random = 0; random < 2; random++) {
        const uint32_t bits = 0u - random;
        ck_assert_uint_eq(round_to(TO_F32, nan, bits), 0xffe00000u);
        ck_assert_uint_eq(round_to(TO_BF16, nan, bits), 0xffe0u);
        ck_assert_uint_eq(round_to(TO_F16, nan, bits), 0xff00u);
        for (int t = 0; t < TARGETS; t++) {
            const uint32_t sign = targets[t].sign;
            ck_assert_uint_eq(round_to((enum target)t, -HUGE_VAL, bits),
                              sign | targets[t].infinity);
            ck_assert_uint_eq(round_to((enum target)t, 1e300, bits), targets[t].largest);
            ck_assert_uint_eq(round_to((enum target)t, -0.0, bits), sign);
            ck_assert_uint_eq(round_to((enum target)t, 0x1p-1074, bits), 0);
        }
    }
    ck_assert(gr_f16_saturates_stochastic(1e300, 0) &&
              gr_f16_saturates_stochastic(-65536.0, 0));
    ck_assert(gr_f16_saturates_stochastic(65535.0, UINT32_MAX));
    ck_assert(!gr_f16_saturates_stochastic(65535.0, 0));
    ck_assert(!gr_f16_saturates_stochastic(65504.0, UINT32_MAX));
    ck_assert(!gr_f16_saturates_stochastic(HUGE_VAL, 0) &&
              !gr_f16_saturates_stochastic(nan, 0));
}
END_TEST

/* ---- formulas ---------------------------------------------------------------------- */

/* Each is compared with its operations done one at a time and stored between them. */
START_TEST(formulas_round_after_every_operation)
{
    uint64_t state = 17;
    int contraction_would_show = 0;

    for (int i = 0; i < 100000; i++) {
        const float x = (float)(next_unit(&state) - 0.5), y = (float)(next_unit(&state) - 0.5);
        const float z = (float)(next_unit(&state) - 0.5);
        volatile float product = y * z, sum = x + product, difference = x - y;
        volatile float half = difference * 0.5f;
        ck_assert(GR_MOVE(x, y, z) == sum && GR_CORRECTED(x, y, z) == sum);
        ck_assert(GR_SCALED(y, z) == product);
        ck_assert(GR_DIFFERENCE_FORWARD(y, x) == difference);
        ck_assert(GR_DIFFERENCE_CENTRAL(x, y) == half);
        contraction_would_show += fmaf(y, z, x) != sum;
    }
    ck_assert_int_gt(contraction_would_show, 1000);
}
END_TEST

START_TEST(results_have_the_same_bits_with_every_compiler)
{
    uint64_t state = 19, all = DIGEST_START;
    for (int i = 0; i < 200000; i++) {
        const uint64_t word = next_word(&state);
        const uint32_t random = (uint32_t)next_word(&state);
        const float x = gr_bits_f32((uint32_t)word);
        const double exact = gr_bits_f64(word);
        all = digest(all, gr_f32_to_bf16(x));
        all = digest(all, gr_f32_to_f16_saturating(x));
        all = digest(all, gr_f32_bits(gr_f16_to_f32((gr_f16)random)));
        all = digest(all, gr_round_stochastic_bf16(exact, random));
        all = digest(all, gr_round_stochastic_f16(exact, random));
        all = digest(all, gr_f32_bits(gr_round_stochastic_f32(exact, random)));
    }
    ck_assert_msg(all == UINT64_C(0xfa4e4e0a6af0ea8e), "%016llx", (unsigned long long)all);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("element");
    TCase *core = tcase_create("core");

    fill_formats();
    tcase_set_timeout(core, 60);
    tcase_add_test(core, every_bf16_pattern_widens_exactly);
    tcase_add_test(core, every_f16_pattern_widens_exactly);
    tcase_add_test(core, widening_and_narrowing_returns_every_pattern);
    tcase_add_test(core, narrowing_is_right_at_every_value_and_midpoint);
    tcase_add_test(core, narrowing_is_right_on_a_sweep_of_all_floats);
    tcase_add_test(core, three_bf16_pieces_make_the_float_they_came_from);
    tcase_add_test(core, known_conversions);
    tcase_add_loop_test(core, the_upper_neighbour_is_taken_exactly_as_often_as_stated, 0,
                        TARGETS);
    tcase_add_loop_test(core, stochastic_rounding_is_unbiased, 0, TARGETS);
    tcase_add_test(core, stochastic_rounding_keeps_what_the_type_holds);
    tcase_add_test(core, stochastic_rounding_of_special_values);
    tcase_add_test(core, formulas_round_after_every_operation);
    tcase_add_test(core, results_have_the_same_bits_with_every_compiler);
    suite_add_tcase(suite, core);
    return run_plainly(suite, CK_FORK_GETENV);
}
