/* check_reduce.c - the summation tree of reduce.h against a scalar warp and exact sums.
 *
 * The warp here is 32 threads of 4 lanes in plain arrays, written from the head of reduce.h:
 * every thread adds its partner's value, as a shuffle does. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "numbers.h"
#include "reduce.h"
#include "suite.h"

enum { THREADS = 32 };

/* A butterfly over the warp: what __shfl_xor_sync gives each thread, added. */
static double warp_butterfly(const double value[THREADS])
{
    double now[THREADS], next[THREADS];
    memcpy(now, value, sizeof(now));
    for (int offset = 16; offset > 0; offset >>= 1) {
        for (int t = 0; t < THREADS; t++)
            next[t] = now[t] + now[t ^ offset];
        memcpy(now, next, sizeof(now));
    }
    for (int t = 1; t < THREADS; t++)
        ck_assert(memcmp(&now[t], &now[0], sizeof(now[0])) == 0);
    return now[0];
}

static double warp_tree(const float lanes[GR_LANES])
{
    double component[4], thread[THREADS];
    for (int c = 0; c < 4; c++) {
        for (int t = 0; t < THREADS; t++)
            thread[t] = lanes[4 * t + c];
        component[c] = warp_butterfly(thread);
    }
    return (component[0] + component[1]) + (component[2] + component[3]);
}

static double spread(uint64_t *state, int binades)
{
    const double unit = 2.0 * next_unit(state) - 1.0;
    return ldexp(unit, (int)(next_word(state) % (unsigned)binades) - binades / 2);
}

/* ---- within a block ------------------------------------------------------------------ */

START_TEST(lanes_fold_like_a_warp)
{
    static const int binades[] = { 1, 20, 240 };
    uint64_t state = 1;
    for (int i = 0; i < 3000; i++) {
        float lanes[GR_LANES];
        for (int k = 0; k < GR_LANES; k++)
            lanes[k] = k % 7 == i % 9 ? -0.0f : (float)spread(&state, binades[i % 3]);
        ck_assert_uint_eq(gr_f64_bits(gr_tree_lanes(lanes)), gr_f64_bits(warp_tree(lanes)));
    }
}
END_TEST

START_TEST(doubles_fold_like_a_warp)
{
    uint64_t state = 2;
    for (int i = 0; i < 3000; i++) {
        double acc[GR_ACCUMULATORS];
        for (int k = 0; k < GR_ACCUMULATORS; k++)
            acc[k] = spread(&state, i % 2 == 0 ? 2 : 500);
        ck_assert_uint_eq(gr_f64_bits(gr_tree_doubles(acc)), gr_f64_bits(warp_butterfly(acc)));
    }
}
END_TEST

/* Small integers add exactly in any order, so that every lane must come in just once. */
START_TEST(every_lane_counts_once)
{
    for (int k = 0; k < GR_LANES; k++) {
        float lanes[GR_LANES] = { 0 };
        double acc[GR_ACCUMULATORS] = { 0 };
        lanes[k] = 3.0f;
        acc[k % GR_ACCUMULATORS] = 5.0;
        ck_assert(gr_tree_lanes(lanes) == 3.0 && gr_tree_doubles(acc) == 5.0);
    }
}
END_TEST

START_TEST(range_is_decided_by_the_largest_lane)
{
    const struct {
        float largest;
        int in_range;
    } cases[] = {
        { 0.0f, 0 },       { -0.0f, 0 },    { 0x1p-149f, 0 },  { 0x1.fffffep-101f, 0 },
        { 0x1p-100f, 1 },  { 1.0f, 1 },     { 0x1p+100f, 1 },  { 0x1.000002p+100f, 0 },
        { FLT_MAX, 0 },    { INFINITY, 0 }, { -INFINITY, 0 },  { NAN, 0 },
        { -0x1p-100f, 1 }, { -1.0f, 1 },    { -0x1p+100f, 1 }, { -0x1.000002p+100f, 0 },
    };
    for (size_t c = 0; c < sizeof(cases) / sizeof(*cases); c++)
        for (int k = 0; k < GR_LANES; k++) {
            float lanes[GR_LANES] = { 0 };
            lanes[(k + 64) % GR_LANES] = -0x1p-140f;
            lanes[k] = cases[c].largest;
            ck_assert_int_eq(gr_lanes_in_range(lanes), cases[c].in_range);
            lanes[(k + 1) % GR_LANES] = NAN;
            ck_assert(!gr_lanes_in_range(lanes));
        }
}
END_TEST

/* ---- over blocks --------------------------------------------------------------------- */

/* The rule of step 5 as it reads, without doing it in place. */
static double levels(const double *x, size_t n)
{
    if (n <= 1)
        return n == 0 ? 0.0 : x[0];
    double *half = malloc((n + 1) / 2 * sizeof(*half));
    ck_assert_ptr_nonnull(half);
    for (size_t i = 0; i < (n + 1) / 2; i++)
        half[i] = 2 * i + 1 < n ? x[2 * i] + x[2 * i + 1] : x[2 * i];
    const double sum = levels(half, (n + 1) / 2);
    free(half);
    return sum;
}

static double in_place(const double *x, size_t n)
{
    double *copy = malloc((n + 1) * sizeof(*copy));
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, x, n * sizeof(*copy));
    copy[n] = 12345.0;
    const double sum = gr_tree_blocks(copy, n);
    ck_assert(copy[n] == 12345.0);
    free(copy);
    return sum;
}

static double *new_blocks(size_t n, uint64_t seed)
{
    double *x = calloc(n + 1, sizeof(*x));
    ck_assert_ptr_nonnull(x);
    for (size_t i = 0; i < n; i++)
        x[i] = spread(&seed, 40);
    return x;
}

static void check_blocks(size_t n)
{
    double *x = new_blocks(7 * n, n);
    const uint64_t want = gr_f64_bits(levels(x, n));
    ck_assert_uint_eq(gr_f64_bits(in_place(x, n)), want);
    ck_assert_uint_eq(gr_f64_bits(gr_tree_blocks_strided(x, n, 1)), want);
    for (size_t i = n; i-- > 1;)
        x[7 * i] = x[i];
    ck_assert_uint_eq(gr_f64_bits(gr_tree_blocks_strided(x, n, 7)), want);
    free(x);
}

START_TEST(forms_of_the_block_tree_agree)
{
    static const size_t large[] = {
        1023, 1024, 1025, 24414, 65535, 65536, 65537, 131071, 100003
    };
    for (size_t n = 0; n <= 300; n++)
        check_blocks(n);
    for (size_t i = 0; i < sizeof(large) / sizeof(*large); i++)
        check_blocks(large[i]);
}
END_TEST

/* How threads share the work: runs of 2^k blocks first, then their results. */
START_TEST(runs_of_a_power_of_two_change_nothing)
{
    for (size_t n = 1; n <= 1030; n += n < 70 ? 1 : 37) {
        double *x = new_blocks(n, n), runs[1030];
        for (size_t run = 2; run <= 64; run *= 2) {
            size_t count = 0;
            for (size_t begin = 0; begin < n; begin += run) {
                const size_t length = n - begin < run ? n - begin : run;
                runs[count++] = gr_tree_blocks_strided(x + begin, length, 1);
            }
            ck_assert_uint_eq(gr_f64_bits(gr_tree_blocks(runs, count)),
                              gr_f64_bits(gr_tree_blocks_strided(x, n, 1)));
        }
        free(x);
    }
}
END_TEST

START_TEST(sum_of_no_block_and_of_one)
{
    double x = -0.0;
    ck_assert(gr_f64_bits(gr_tree_blocks(&x, 0)) == 0);
    ck_assert(gr_f64_bits(gr_tree_blocks_strided(&x, 0, 1)) == 0);
    ck_assert(signbit(gr_tree_blocks(&x, 1)) && signbit(gr_tree_blocks_strided(&x, 1, 5)));
}
END_TEST

/* ---- a whole segment ----------------------------------------------------------------- */

/* Steps 1 to 4 as they read. */
static double sum_block(const float *x, const float *y, size_t n)
{
    float lanes[GR_LANES] = { 0 };
    double acc[GR_ACCUMULATORS] = { 0 };
    for (size_t i = 0; i < n; i++)
        lanes[GR_LANE_OF(i)] = GR_ACCUMULATE(lanes[GR_LANE_OF(i)], x[i], y[i]);
    if (gr_lanes_in_range(lanes))
        return gr_tree_lanes(lanes);
    for (size_t i = 0; i < n; i++)
        acc[GR_ACCUMULATOR_OF(i)] =
            GR_ACCUMULATE(acc[GR_ACCUMULATOR_OF(i)], (double)x[i], (double)y[i]);
    return gr_tree_doubles(acc);
}

static double sum_segment(const float *x, const float *y, size_t n)
{
    const size_t blocks = (n + GR_BLOCK - 1) / GR_BLOCK;
    double *results = malloc((blocks + 1) * sizeof(*results));
    ck_assert_ptr_nonnull(results);
    for (size_t b = 0; b < blocks; b++) {
        const size_t begin = b * GR_BLOCK, rest = n - begin;
        results[b] = sum_block(x + begin, y + begin, rest < GR_BLOCK ? rest : GR_BLOCK);
    }
    const double sum = gr_tree_blocks(results, blocks);
    free(results);
    return sum;
}

static double relative_error(const float *x, const float *y, size_t n)
{
    long double exact = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        const long double product = (long double)x[i] * (long double)y[i];
        exact += product;
        size += fabsl(product);
    }
    const double got = sum_segment(x, y, n);
    return size > 0 ? (double)(fabsl((long double)got - exact) / size) : fabs(got);
}

/* What the elements are, and the share of the sum of |x y| that the error may reach: in any
 * segment, in one of a block or more, in one of 2^20 elements or more. Roundings of unrelated
 * elements cancel; those of equal elements do not; and 1 followed by numbers that round up at
 * every addition comes as close to the bound of 32 roundings as one can. */
enum kind { UNIFORM, BELL, ONE_SIGN, WIDE, EQUAL, ROUNDING_UP, TINY, KINDS };
static const double any_sum = 32.0 / (1 << 24);
static const struct {
    const char *name;
    double any, block, large;
} kinds[KINDS] = {
    { "uniform", 6e-8, 2e-8, 2e-9 },       { "bell", 6e-8, 2e-8, 2e-9 },
    { "one sign", 6e-8, 2e-8, 2e-9 },      { "spread over 2^30", 6e-8, 3e-8, 3e-8 },
    { "all 0.1", 6e-8, 6e-8, 6e-8 },       { "rounding up", any_sum, any_sum, any_sum },
    { "2^-90 bell", 1e-14, 1e-14, 1e-14 },
};

static float next_element(enum kind kind, size_t i, uint64_t *state)
{
    double bell = -6.0;
    for (int k = 0; k < 12; k++)
        bell += next_unit(state);
    switch (kind) {
    case UNIFORM: return (float)(2 * next_unit(state) - 1);
    case BELL: return (float)(0.02 * bell);
    case ONE_SIGN: return (float)next_unit(state);
    case WIDE: return (float)spread(state, 30);
    case EQUAL: return 0.1f;
    case ROUNDING_UP: return i % GR_BLOCK < GR_LANES ? 1.0f : 0x1.0004p-12f;
    default: return (float)(0x1p-90 * bell);
    }
}

START_TEST(sums_are_as_close_as_stated)
{
    static const size_t sizes[] = { 1, 2, 128, 129, 4095, 4096, 4097, 70001, 1 << 20, 1 << 21 };
    enum { SIZES = sizeof(sizes) / sizeof(*sizes) };
    float *x = malloc(sizes[SIZES - 1] * sizeof(*x)),
          *y = malloc(sizes[SIZES - 1] * sizeof(*y));
    double largest[3] = { 0 };
    uint64_t state = 3;

    ck_assert(x != NULL && y != NULL);
    for (size_t i = 0; i < sizes[SIZES - 1]; i++) {
        x[i] = next_element((enum kind)_i, i, &state);
        y[i] = next_element((enum kind)_i, i, &state);
    }
    for (int s = 0; s < SIZES; s++) {
        const int reach = sizes[s] >= 1 << 20 ? 2 : sizes[s] >= GR_BLOCK ? 1 : 0;
        largest[reach] = fmax(largest[reach], relative_error(x, x, sizes[s]));
        largest[reach] = fmax(largest[reach], relative_error(x, y, sizes[s]));
    }
    printf("sums, %s: relative error %.1e, from a block on %.1e, from 2^20 on %.1e\n",
           kinds[_i].name, largest[0], largest[1], largest[2]);
    ck_assert(largest[0] < kinds[_i].any && largest[1] < kinds[_i].block);
    ck_assert(largest[2] < kinds[_i].large);
    if (_i == ROUNDING_UP)
        ck_assert_msg(largest[1] > 0.9 * any_sum, "the bound is not the smallest possible");
    free(x);
    free(y);
}
END_TEST

/* fp32 lanes cannot hold these; the double form must. */
START_TEST(blocks_out_of_range_are_summed_in_double)
{
    static const float sizes[] = { 0x1p-149f, 0x1p-60f, 0x1p+60f, 0x1.fffffep+127f };
    for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
        float x[4100];
        for (size_t i = 0; i < 4100; i++)
            x[i] = i % 3 == 0 ? -sizes[s] : sizes[s];
        const double square = (double)sizes[s] * (double)sizes[s];
        ck_assert(fabs(sum_segment(x, x, 4100) / (4100 * square) - 1) < 1e-14);
    }
    float zero[130] = { 0 }, bad[130] = { 0 };
    bad[129] = NAN;
    ck_assert(gr_f64_bits(sum_segment(zero, zero, 130)) == 0);
    ck_assert(isnan(sum_segment(bad, bad, 130)));
    bad[129] = INFINITY;
    ck_assert(isinf(sum_segment(bad, bad, 130)));
}
END_TEST

START_TEST(results_have_the_same_bits_with_every_compiler)
{
    uint64_t state = 4, all = DIGEST_START;
    float *x = malloc(70001 * sizeof(*x));
    ck_assert_ptr_nonnull(x);
    for (int kind = 0; kind < KINDS; kind++) {
        for (size_t i = 0; i < 70001; i++)
            x[i] = next_element((enum kind)kind, i, &state);
        for (size_t n = 70001; n > 0; n /= 3)
            all = digest(all, gr_f64_bits(sum_segment(x, x + 70001 - n, n)));
    }
    free(x);
    ck_assert_msg(all == UINT64_C(0xbf2493a95818a8e1), "%016llx", (unsigned long long)all);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reduce");
    TCase *core = tcase_create("core");

    tcase_set_timeout(core, 60);
    tcase_add_test(core, lanes_fold_like_a_warp);
    tcase_add_test(core, doubles_fold_like_a_warp);
    tcase_add_test(core, every_lane_counts_once);
    tcase_add_test(core, range_is_decided_by_the_largest_lane);
    tcase_add_test(core, forms_of_the_block_tree_agree);
    tcase_add_test(core, runs_of_a_power_of_two_change_nothing);
    tcase_add_test(core, sum_of_no_block_and_of_one);
    tcase_add_loop_test(core, sums_are_as_close_as_stated, 0, KINDS);
    tcase_add_test(core, blocks_out_of_range_are_summed_in_double);
    tcase_add_test(core, results_have_the_same_bits_with_every_compiler);
    suite_add_tcase(suite, core);
    return run_plainly(suite, CK_FORK_GETENV);
}
