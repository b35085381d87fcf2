/* check_random.c - random.h: published answers, layout, independence of batching, statistics.
 *
 * Statistics run on fixed seeds, so that they pass or fail for good; their limits are those of
 * a one in a million event under the hypothesis. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "draws.h"
#include "numbers.h"
#include "suite.h"

enum { DRAWS = 1 << 20 };
static const uint64_t seed = UINT64_C(0x0123456789abcdef);

static uint32_t bits_of(uint64_t element)
{
    return draw_bits(seed, 3, 5, GR_RANDOM_DIRECTION, element);
}

/* ---- the generator ---------------------------------------------------------------------- */

/* From the known-answer file of the authors' Random123 library. */
START_TEST(philox_gives_the_published_answers)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff },
          { 0xffffffff, 0xffffffff },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        uint32_t out[4];
        gr_philox(known[i].counter, known[i].key[0], known[i].key[1], out);
        ck_assert_mem_eq(out, known[i].out, sizeof(out));
    }
}
END_TEST

START_TEST(counter_and_key_are_laid_out_as_stated)
{
    const uint32_t counter[4] = { 0x55667788, 0x11223344 | 3u << 30, 0xcafe, 0xddeeff00 };
    uint32_t want[4], got[4];
    gr_philox(counter, 0x89abcdef, 0x01234567 ^ 0x99aabbcc, want);
    gr_random4(seed, UINT64_C(0x99aabbccddeeff00), 0xcafe, GR_RANDOM_ROUND_NOISE,
               UINT64_C(0x1122334455667788), got);
    ck_assert_mem_eq(got, want, sizeof(want));
}
END_TEST

/* Each argument, each purpose and each half of a 64-bit number reaches the output. */
START_TEST(everything_that_should_matter_does)
{
    uint32_t out[13][4];
    const uint64_t high = UINT64_C(1) << 32;
    gr_random4(0, 0, 0, 0, 0, out[0]);
    gr_random4(1, 0, 0, 0, 0, out[1]);
    gr_random4(high, 0, 0, 0, 0, out[2]);
    gr_random4(0, 1, 0, 0, 0, out[3]);
    gr_random4(0, high << 3, 0, 0, 0, out[4]);
    gr_random4(0, 0, 1, 0, 0, out[5]);
    gr_random4(0, 0, 0x80000000u, 0, 0, out[6]);
    gr_random4(0, 0, 0, GR_RANDOM_ROUND_PERTURB, 0, out[7]);
    gr_random4(0, 0, 0, GR_RANDOM_ROUND_MIRROR, 0, out[8]);
    gr_random4(0, 0, 0, GR_RANDOM_ROUND_NOISE, 0, out[9]);
    gr_random4(0, 0, 0, 0, 1, out[10]);
    gr_random4(0, 0, 0, 0, high, out[11]);
    gr_random4(0, 0, 0, 0, high << 29, out[12]);
    for (int i = 0; i < 13; i++)
        for (int k = 0; k < i; k++)
            for (int word = 0; word < 4; word++)
                ck_assert_msg(out[i][word] != out[k][word], "%d and %d", i, k);
}
END_TEST

START_TEST(batching_does_not_change_a_draw)
{
    static const uint64_t starts[] = { 0, 4000, UINT64_C(0xfffffff0), UINT64_C(0x3fffffff0) };
    for (int s = 0; s < 4; s++)
        for (uint64_t element = starts[s]; element < starts[s] + 64; element++) {
            uint32_t words[4];
            float normal[4];
            gr_random4(seed, 9, 2, GR_RANDOM_DIRECTION, element / 4, words);
            gr_gaussian4(seed, 9, 2, GR_RANDOM_DIRECTION, element / 4, normal);
            const uint32_t word = draw_bits(seed, 9, 2, GR_RANDOM_DIRECTION, element);
            const float one = draw_gaussian(seed, 9, 2, GR_RANDOM_DIRECTION, element);
            const float sign = draw_sign(seed, 9, 2, GR_RANDOM_DIRECTION, element);
            ck_assert_uint_eq(word, words[element % 4]);
            ck_assert_uint_eq(gr_f32_bits(one), gr_f32_bits(normal[element % 4]));
            ck_assert(sign == (words[element % 4] >> 31 ? -1.0f : 1.0f));
        }
}
END_TEST

/* ---- statistics of the bits ------------------------------------------------------------- */

/* chi^2 with k degrees of freedom is about normal in (chi^2/k)^(1/3) (Wilson and Hilferty). */
static double chi_square_deviation(double chi_square, double freedom)
{
    const double spread = 2.0 / (9.0 * freedom);
    return (cbrt(chi_square / freedom) - (1.0 - spread)) / sqrt(spread);
}

static double deviation_of_counts(const unsigned *count, int bins, double expected)
{
    double chi_square = 0;
    for (int i = 0; i < bins; i++)
        chi_square += (count[i] - expected) * (count[i] - expected) / expected;
    return chi_square_deviation(chi_square, bins - 1);
}

START_TEST(bytes_are_uniform)
{
    static unsigned count[4][256];
    double worst = 0;
    for (int i = 0; i < DRAWS; i++) {
        const uint32_t word = bits_of((uint64_t)i);
        for (int byte = 0; byte < 4; byte++)
            count[byte][word >> 8 * byte & 0xff]++;
    }
    for (int byte = 0; byte < 4; byte++)
        worst = fmax(worst, fabs(deviation_of_counts(count[byte], 256, DRAWS / 256.0)));
    printf("bytes: chi-square within %.2f standard deviations\n", worst);
    ck_assert(worst < 5);
}
END_TEST

/* The top bits (signs) of neighbours, of elements a group apart and of steps apart. */
START_TEST(neighbours_are_independent)
{
    static unsigned count[4][16];
    double worst = 0;
    for (int i = 0; i < DRAWS; i++) {
        const uint64_t element = (uint64_t)i;
        const uint32_t here = bits_of(element) >> 30;
        const uint32_t next_step = draw_bits(seed, 4, 5, GR_RANDOM_DIRECTION, element);
        const uint32_t next_segment = draw_bits(seed, 3, 6, GR_RANDOM_DIRECTION, element);
        count[0][here << 2 | bits_of(element + 1) >> 30]++;
        count[1][here << 2 | bits_of(element + 4) >> 30]++;
        count[2][here << 2 | next_step >> 30]++;
        count[3][here << 2 | next_segment >> 30]++;
    }
    for (int pair = 0; pair < 4; pair++)
        worst = fmax(worst, fabs(deviation_of_counts(count[pair], 16, DRAWS / 16.0)));
    printf("pairs: chi-square within %.2f standard deviations\n", worst);
    ck_assert(worst < 5);
}
END_TEST

START_TEST(every_bit_is_a_fair_coin)
{
    unsigned ones[32] = { 0 };
    for (int i = 0; i < DRAWS; i++)
        for (int bit = 0; bit < 32; bit++)
            ones[bit] += bits_of((uint64_t)i) >> bit & 1;
    for (int bit = 0; bit < 32; bit++)
        ck_assert_msg(fabs(ones[bit] - DRAWS / 2.0) < 5 * sqrt(DRAWS / 4.0), "bit %d", bit);
}
END_TEST

/* ---- the Gaussian ------------------------------------------------------------------------ */

START_TEST(gaussian_follows_box_and_muller)
{
    const long double two_pi = 6.28318530717958647692528676655900576839L;
    uint64_t state = 1;
    for (int i = 0; i < 200000; i++) {
        const uint32_t w0 = (uint32_t)next_word(&state), w1 = (uint32_t)next_word(&state);
        const long double radius = sqrtl(-2.0L * logl(((long double)w0 + 0.5L) * 0x1p-32L));
        const long double angle = two_pi * ((long double)w1 + 0.5L) * 0x1p-32L;
        const long double want[2] = { radius * cosl(angle), radius * sinl(angle) };
        float got[2];
        gr_gaussian_from(w0, w1, got);
        for (int k = 0; k < 2;
             k++) { /* one rounding to float; the double's errors are 1e-8 of it */
            const double place = ldexp(1.0, ilogb((double)want[k]) - 23);
            const double error = (double)fabsl((long double)got[k] - want[k]) / place;
            ck_assert_msg(error < 0.50001, "%08x %08x: %g", w0, w1, error);
        }
    }
}
END_TEST

START_TEST(gaussian_at_the_ends_of_its_words)
{
    static const uint32_t ends[] = { 0,          1,          0x3fffffff, 0x40000000, 0x7fffffff,
                                     0x80000000, 0xc0000000, 0xfffffffe, 0xffffffff };
    float out[2], farthest = 0;
    for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++)
        for (size_t k = 0; k < sizeof(ends) / sizeof(*ends); k++) {
            gr_gaussian_from(ends[i], ends[k], out);
            ck_assert(!gr_is_non_finite(out[0]) && !gr_is_non_finite(out[1]));
            farthest = fmaxf(farthest, fmaxf(fabsf(out[0]), fabsf(out[1])));
        }
    ck_assert(farthest > 6.76f && farthest < 6.77f);
    gr_gaussian_from(0xffffffffu, 0, out);
    ck_assert(out[0] > 1.5e-5f && out[0] < 1.6e-5f && out[1] > 0.0f);
}
END_TEST

START_TEST(gaussian_has_the_moments_of_the_normal_distribution)
{
    double moment[5] = { 0 }, cross = 0, cross_of_squares = 0;
    for (int i = 0; i < DRAWS; i += 2) {
        const uint64_t element = (uint64_t)i;
        const double x = draw_gaussian(seed, 3, 5, GR_RANDOM_DIRECTION, element);
        const double y = draw_gaussian(seed, 3, 5, GR_RANDOM_DIRECTION, element + 1);
        for (int k = 1; k < 5; k++)
            moment[k] += (pow(x, k) + pow(y, k)) / DRAWS;
        cross += x * y / (DRAWS / 2);
        cross_of_squares += (x * x - 1) * (y * y - 1) / (DRAWS / 2);
    }
    printf(
        "gaussian: mean %.2g, variance 1 %+.2g, third %.2g, fourth 3 %+.2g, cross %.2g %.2g\n",
        moment[1], moment[2] - 1, moment[3], moment[4] - 3, cross, cross_of_squares);
    /* Five standard deviations: Var x^k is 1, 2, 15, 96; of a product 1 and 4. */
    ck_assert(fabs(moment[1]) < 5 * sqrt(1.0 / DRAWS));
    ck_assert(fabs(moment[2] - 1) < 5 * sqrt(2.0 / DRAWS));
    ck_assert(fabs(moment[3]) < 5 * sqrt(15.0 / DRAWS));
    ck_assert(fabs(moment[4] - 3) < 5 * sqrt(96.0 / DRAWS));
    ck_assert(fabs(cross) < 5 * sqrt(2.0 / DRAWS));
    ck_assert(fabs(cross_of_squares) < 5 * sqrt(8.0 / DRAWS));
}
END_TEST

/* Through the distribution function the draws must be uniform; 200 bins see both tails. */
START_TEST(gaussian_has_the_quantiles_of_the_normal_distribution)
{
    enum { BINS = 200 };
    static unsigned count[4][BINS];
    for (int i = 0; i < DRAWS; i++) {
        const double x = draw_gaussian(seed, 3, 5, GR_RANDOM_DIRECTION, (uint64_t)i);
        const int bin = (int)(BINS * 0.5 * erfc(-x / sqrt(2.0)));
        count[i % 4][bin < BINS ? bin : BINS - 1]++;
    }
    double worst = 0;
    for (int word = 0; word < 4; word++)
        worst = fmax(worst, fabs(deviation_of_counts(count[word], BINS, DRAWS / 4.0 / BINS)));
    printf("gaussian: quantiles within %.2f standard deviations\n", worst);
    ck_assert(worst < 5);
}
END_TEST

START_TEST(rademacher_is_one_or_minus_one)
{
    int sum = 0;
    for (int i = 0; i < DRAWS; i++) {
        const float x = draw_sign(seed, 3, 5, GR_RANDOM_DIRECTION, (uint64_t)i);
        ck_assert_msg(x == 1.0f || x == -1.0f, "%g", (double)x);
        sum += (int)x;
    }
    ck_assert_int_lt(abs(sum), (int)(5 * sqrt(DRAWS)));
    ck_assert(gr_rademacher_from(0x7fffffffu) == 1.0f);
    ck_assert(gr_rademacher_from(0x80000000u) == -1.0f);
}
END_TEST

START_TEST(results_have_the_same_bits_with_every_compiler)
{
    uint64_t all = DIGEST_START;
    for (uint64_t i = 0; i < 100000; i++) {
        const uint64_t element = i * UINT64_C(0x10001);
        all = digest(all, draw_bits(seed, i, 1, GR_RANDOM_ROUND_MIRROR, element));
        all = digest(all, gr_f32_bits(draw_gaussian(seed, i, 1, GR_RANDOM_DIRECTION, element)));
    }
    ck_assert_msg(all == UINT64_C(0x898f72405d50cfc9), "%016llx", (unsigned long long)all);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("random");
    TCase *core = tcase_create("core");

    tcase_set_timeout(core, 60);
    tcase_add_test(core, philox_gives_the_published_answers);
    tcase_add_test(core, counter_and_key_are_laid_out_as_stated);
    tcase_add_test(core, everything_that_should_matter_does);
    tcase_add_test(core, batching_does_not_change_a_draw);
    tcase_add_test(core, bytes_are_uniform);
    tcase_add_test(core, neighbours_are_independent);
    tcase_add_test(core, every_bit_is_a_fair_coin);
    tcase_add_test(core, gaussian_follows_box_and_muller);
    tcase_add_test(core, gaussian_at_the_ends_of_its_words);
    tcase_add_test(core, gaussian_has_the_moments_of_the_normal_distribution);
    tcase_add_test(core, gaussian_has_the_quantiles_of_the_normal_distribution);
    tcase_add_test(core, rademacher_is_one_or_minus_one);
    tcase_add_test(core, results_have_the_same_bits_with_every_compiler);
    suite_add_tcase(suite, core);
    return run_plainly(suite, CK_FORK_GETENV);
}
