/* check_monitors.c - n-grams, moving averages, divergences and distances against plain sums.
 *
 * In: token sequences, values, distributions, weights; exhaustively where they are small. Out: the
 * figures, held against an oracle in double (oracle_probe.h), at their edges, and with the same bits
 * for any threads, vector path and alignment. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "oracle_probe.h"
#include "support.h"

/* ---- n-grams ----------------------------------------------------------------------- */

static double distinct(const int32_t *tokens, size_t count, int32_t order)
{
    double share = -1.0;
    assert_ok(gradreg_distinct_ngrams(&share, tokens, count, order));
    return share;
}

/* NaN equals NaN here. */
static bool same(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

/* Every sequence of up to 8 tokens over 3 letters, the letters being extreme numbers. */
START_TEST(short_sequences_exhaustively)
{
    static const int32_t letters[] = { 0, -1, INT32_MIN };
    int32_t tokens[8];
    for (size_t count = 0; count <= 8; count++) {
        size_t sequences = 1;
        for (size_t i = 0; i < count; i++)
            sequences *= 3;
        for (size_t s = 0; s < sequences; s++) {
            size_t rest = s;
            for (size_t i = 0; i < count; i++, rest /= 3)
                tokens[i] = letters[rest % 3];
            for (int32_t order = 1; order <= 9; order++)
                if (!same(distinct(tokens, count, order),
                          oracle_distinct(tokens, count, (size_t)order)))
                    ck_abort_msg("sequence %zu of %zu, order %d", s, count, order);
        }
    }
}
END_TEST

START_TEST(long_sequences_of_any_order)
{
    enum { COUNT = 700 };
    static const int32_t orders[] = { 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 100, 699, 700, 701 };
    int32_t tokens[COUNT];
    uint64_t state = test_seed() ^ 21;
    for (int alphabet = 2; alphabet <= 1000; alphabet *= 5) {
        for (size_t i = 0; i < COUNT; i++) /* the second half repeats the first but for one */
            tokens[i] = i < COUNT / 2 || i == 600
                            ? (int32_t)(next_word(&state) % (uint64_t)alphabet)
                            : tokens[i - COUNT / 2];
        for (size_t k = 0; k < sizeof(orders) / sizeof(orders[0]); k++)
            if (!same(distinct(tokens, COUNT, orders[k]),
                      oracle_distinct(tokens, COUNT, (size_t)orders[k])))
                ck_abort_msg("alphabet %d, order %d", alphabet, orders[k]);
    }
}
END_TEST

START_TEST(repetition_and_its_absence_in_numbers)
{
    enum { COUNT = 100000 };
    int32_t *tokens = malloc(COUNT * sizeof(*tokens));
    ck_assert_ptr_nonnull(tokens);
    for (size_t i = 0; i < COUNT; i++)
        tokens[i] = 7;
    ck_assert(distinct(tokens, COUNT, 1) == 1.0 / COUNT);
    ck_assert(distinct(tokens, COUNT, 3) == 1.0 / (COUNT - 2));
    ck_assert(distinct(tokens, COUNT, COUNT - 1) == 0.5);
    for (size_t i = 0; i < COUNT; i++)
        tokens[i] = (int32_t)(i * 2654435761u); /* all different */
    ck_assert(distinct(tokens, COUNT, 1) == 1.0);
    ck_assert(distinct(tokens, COUNT, 2) == 1.0);
    ck_assert(distinct(tokens, COUNT, 1000) == 1.0);
    for (size_t i = 0; i < COUNT; i++)
        tokens[i] = (int32_t)(i % 10);
    ck_assert(distinct(tokens, COUNT, 2) == 10.0 / (COUNT - 1));
    ck_assert(distinct(tokens, COUNT, 37) == 10.0 / (COUNT - 36));
    ck_assert(isnan(distinct(tokens, 5, 6)));
    ck_assert(isnan(distinct(NULL, 0, 1)));
    ck_assert(isnan(distinct(tokens, 5, INT32_MAX)));
    free(tokens);
}
END_TEST

/* ---- moving average ---------------------------------------------------------------- */

START_TEST(averages_are_those_of_each_window)
{
    enum { COUNT = 300 };
    static const size_t windows[] = {
        1, 2, 3, 5, 7, 64, 149, 150, 151, 299, 300, 301, SIZE_MAX
    };
    float values[COUNT];
    double out[COUNT];
    uint64_t state = test_seed() ^ 22;
    for (size_t w = 0; w < sizeof(windows) / sizeof(windows[0]); w++)
        for (size_t count = 0; count <= COUNT; count += count < 12 ? 1 : 96) {
            for (size_t i = 0; i < count; i++)
                values[i] =
                    next_unit(&state) < 0.2 ? (float)NAN : (float)next_signed(&state, 3.0);
            assert_ok(gradreg_moving_average(out, values, count, windows[w]));
            for (size_t i = 0; i < count; i++) {
                const double want = oracle_average(values, i, windows[w]);
                if (!same(out[i], want) && !(fabs(out[i] - want) <= 1e-13))
                    ck_abort_msg("window %zu of %zu at %zu: %.17g, expected %.17g", windows[w],
                                 count, i, out[i], want);
            }
        }
}
END_TEST

START_TEST(what_leaves_the_window_leaves_nothing_behind)
{
    static const float values[] = { 1.0f, INFINITY, 1e30f, 2.0f, 3.0f, 5.0f, NAN, NAN, 7.0f };
    double out[9];
    assert_ok(gradreg_moving_average(out, values, 9, 2));
    ck_assert(out[0] == 1.0 && out[1] == (double)INFINITY && out[2] == (double)INFINITY);
    ck_assert(out[4] == 2.5 && out[5] == 4.0 && out[6] == 5.0 && isnan(out[7]));
    ck_assert(out[8] == 7.0);
    for (size_t window = 3; window < 6; window++) {
        assert_ok(gradreg_moving_average(out, values, 6, window));
        for (size_t i = window + 2; i < 6; i++)
            ck_assert(out[i] == oracle_average(values, i, window));
    }
}
END_TEST

/* A second for a million values whatever the window, or this would take hours. */
START_TEST(long_windows_cost_no_more_than_short_ones)
{
    enum { COUNT = 1000000 };
    float *values = malloc(COUNT * sizeof(*values));
    double *out = malloc(COUNT * sizeof(*out));
    ck_assert(values != NULL && out != NULL);
    for (size_t i = 0; i < COUNT; i++)
        values[i] = 0.1f;
    assert_ok(gradreg_moving_average(out, values, COUNT, COUNT / 2));
    for (size_t i = 0; i < COUNT; i++)
        ck_assert(fabs(out[i] - (double)0.1f) < 1e-12);
    free(values);
    free(out);
}
END_TEST

/* ---- divergence -------------------------------------------------------------------- */

static float divergence(const float *p, const float *q, size_t columns)
{
    gradreg_context *context = context_on(NULL, 1);
    float out = -1.0f;
    assert_ok(gradreg_js_divergence(context, &out, p, q, 1, columns));
    assert_ok(gradreg_context_destroy(context));
    return out;
}

static void fill_distribution(float *row, size_t n, uint64_t *state, int kind)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const double x = next_unit(state);
        row[i] = kind == 0   ? (float)x
                 : kind == 1 ? (float)exp(12.0 * x)
                             : (float)(i == 0 || x < 0.5);
        sum += (double)row[i];
    }
    if (kind != 1) /* probabilities as f32 has them; kind 1 stays weights */
        for (size_t i = 0; i < n; i++)
            row[i] = (float)((double)row[i] / sum);
}

START_TEST(divergences_are_those_of_the_formula)
{
    enum { ROWS = 9, MOST = 9001 };
    static const size_t sizes[] = { 2, 3, 33, 255, 4096, 4097, MOST };
    static float p[ROWS * MOST], q[ROWS * MOST];
    gradreg_context *context = context_on(NULL, 2);
    uint64_t state = test_seed() ^ 23;
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        const size_t n = sizes[k];
        float out[ROWS];
        for (size_t r = 0; r < ROWS; r++) {
            fill_distribution(p + r * n, n, &state, (int)r % 3);
            fill_distribution(q + r * n, n, &state, (int)r / 3);
            p[r * n] = q[r * n + 1] = 0.25f; /* some mass in any case */
        }
        assert_ok(gradreg_js_divergence(context, out, p, q, ROWS, n));
        for (size_t r = 0; r < ROWS; r++) {
            const double want = oracle_divergence(p + r * n, q + r * n, n);
            if (!(fabs((double)out[r] - want) <= 0x1p-24 * want + 1e-15))
                ck_abort_msg("columns %zu row %zu: %.9g, expected %.17g", n, r, (double)out[r],
                             want);
        }
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(equal_rows_do_not_diverge_and_disjoint_ones_by_ln_2)
{
    enum { N = 5000 };
    static float p[N], q[N];
    uint64_t state = test_seed() ^ 24;
    for (int kind = 0; kind < 3; kind++) {
        fill_distribution(p, N, &state, kind);
        memcpy(q, p, sizeof(p));
        ck_assert(divergence(p, q, N) == 0.0f);
        ck_assert(divergence(p, p, N) == 0.0f);
        for (size_t i = 0; i < N; i++)
            q[i] = 4.0f * p[i]; /* another sum, the same distribution */
        ck_assert(divergence(p, q, N) == 0.0f);
        for (size_t i = 0; i < N; i++) {
            q[i] = i % 2 == 0 ? 0.0f : p[i] + 1e-6f;
            p[i] = i % 2 == 0 ? p[i] + 1e-6f : -0.0f;
        }
        ck_assert_uint_eq(float_bits(divergence(p, q, N)), float_bits((float)log(2.0)));
    }
    static const float one[] = { 3.0f };
    ck_assert(divergence(one, one, 1) == 0.0f);
}
END_TEST

/* p = 1/2 (1 + d), 1/2 (1 - d) against 1/2, 1/2: d^2 / 8 in first order, below what the formula with
 * logarithms of quotients can see in double. */
START_TEST(nearly_equal_rows_keep_their_digits)
{
    static const double distances[] = { 0x1p-3, 0x1p-6, 0x1p-10, 0x1p-15, 0x1p-23 };
    for (size_t k = 0; k < 5; k++) {
        const double d = distances[k];
        const float p[] = { (float)(1.0 + d), (float)(1.0 - d) }, q[] = { 1.0f, 1.0f };
        const long double e = (long double)d / 2; /* from the mean of the two */
        long double want = 0;
        for (int term = 20; term >= 1; term--) /* of each side about (1 + e)/2, (1 - e)/2 */
            want += (powl((long double)d / (2 + (long double)d), 2 * term) *
                         (1 + (long double)d / 2) / 4 +
                     powl((long double)d / (2 - (long double)d), 2 * term) *
                         (1 - (long double)d / 2) / 4) /
                    (term * (2 * term - 1));
        ck_assert_msg(fabs((double)divergence(p, q, 2) / (double)want - 1.0) < 2e-7,
                      "d = %g: %.9g, expected %.17g", d, (double)divergence(p, q, 2),
                      (double)want);
        ck_assert(fabsl(want / (e * e / 2) - 1) < d);
    }
}
END_TEST

START_TEST(rows_that_are_no_distribution_give_nan)
{
    static const float inf = INFINITY, nan = NAN;
    static const float bad[][3] = { { 0.0f, 0.0f, 0.0f },         { 1.0f, -0.5f, 1.0f },
                                    { 1.0f, inf, 0.0f },          { nan, 1.0f, 1.0f },
                                    { 1.0f, -inf, 2.0f },         { -0.0f, 0.0f, 0.0f },
                                    { 1.0f, -FLT_TRUE_MIN, 0.0f } };
    static const float good[] = { 0.5f, 0.25f, 0.25f };
    for (size_t k = 0; k < 7; k++) {
        ck_assert(isnan(divergence(bad[k], good, 3)));
        ck_assert(isnan(divergence(good, bad[k], 3)));
        ck_assert(isnan(divergence(bad[k], bad[k], 3)));
    }
    static const float large[] = { FLT_MAX, FLT_MAX, 0.0f }, small[] = { 1e-45f, 0.0f, 1e-45f };
    const float got = divergence(large, small, 3);
    ck_assert(fabs((double)got - oracle_divergence(large, small, 3)) < 1e-7);
    ck_assert(isnan(divergence(good, bad[0], 3)));
}
END_TEST

static uint64_t digest_divergences(gradreg_context *context, size_t shift)
{
    enum { ROWS = 40, N = 4133 };
    float *p = guarded_new((ROWS * N + 1) * sizeof(float), 0);
    float *q = guarded_new((ROWS * N + 1) * sizeof(float), 0), out[ROWS];
    uint64_t state = test_seed() ^ 25, so_far = DIGEST_START;
    for (size_t r = 0; r < ROWS; r++) {
        fill_distribution(p + shift + r * N, N, &state, (int)r % 3);
        fill_distribution(q + shift + r * N, N, &state, (int)r % 2);
    }
    assert_ok(gradreg_js_divergence(context, out, p + shift, q + shift, ROWS, N));
    for (size_t r = 0; r < ROWS; r++)
        so_far = digest(so_far, float_bits(out[r]));
    guarded_free(p);
    guarded_free(q);
    return so_far;
}

/* ---- distances --------------------------------------------------------------------- */

enum { ELEMENTS = 210000, SEGMENTS = 7 };

static void describe(gradreg_segment *segments)
{
    static const uint64_t offsets[SEGMENTS] = { 100, 0, 101, 5000, 70000, 209999, 17 };
    static const uint64_t counts[SEGMENTS] = { 4096, 1, 4097, 65537, 140000, 1, 0 };
    for (size_t i = 0; i < SEGMENTS; i++) {
        const gradreg_segment segment = GRADREG_SEGMENT_INIT;
        segments[i] = segment;
        segments[i].offset = offsets[i];
        segments[i].count = counts[i];
    }
}

static void fill_weights(void *before, void *after, gradreg_type type, double scale)
{
    uint64_t state = test_seed() ^ 26;
    typed_fill(before, type, ELEMENTS, &state, scale);
    for (size_t i = 0; i < ELEMENTS; i++)
        typed_set(after, type, i,
                  i / 8192 % 2 == 0 ? typed_get(before, type, i)
                                    : typed_get(before, type, i) + next_signed(&state, scale));
}

static void widen(double *to, const void *from, gradreg_type type, uint64_t offset,
                  uint64_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] = typed_get(from, type, offset + i);
}

/* At ordinary sizes, and where squares leave f32. */
START_TEST(distances_are_those_of_plain_sums)
{
    static const double scales[] = { 1.0, 1e-30, 1e30 };
    const gradreg_type type = all_types[_i % LAST_TYPE];
    const double scale = type == GRADREG_TYPE_F16 ? 1.0 : scales[_i / LAST_TYPE];
    gradreg_context *context = context_on(NULL, 2);
    gradreg_segment segments[SEGMENTS];
    void *before = guarded_new(ELEMENTS * type_bytes(type), 0);
    void *after = guarded_new(ELEMENTS * type_bytes(type), 0);
    static double x[ELEMENTS], y[ELEMENTS];
    double norms[SEGMENTS];
    describe(segments);
    fill_weights(before, after, type, scale);
    assert_ok(gradreg_weight_delta(context, norms, before, after, type, segments, SEGMENTS));
    for (size_t i = 0; i < SEGMENTS; i++) {
        widen(x, before, type, segments[i].offset, segments[i].count);
        widen(y, after, type, segments[i].offset, segments[i].count);
        const double want = oracle_distance(x, y, segments[i].count);
        if (!(fabs(norms[i] - want) <= 2e-7 * want))
            ck_abort_msg("%s segment %zu: %.17g, expected %.17g", type_name(type), i, norms[i],
                         want);
    }
    ck_assert(norms[0] == 0.0 && norms[6] == 0.0 && norms[4] > 0.0);
    assert_ok(gradreg_weight_delta(context, norms, before, before, type, segments, SEGMENTS));
    for (size_t i = 0; i < SEGMENTS; i++)
        ck_assert(norms[i] == 0.0);
    guarded_free(before);
    guarded_free(after);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(finite_weights_have_a_finite_distance_and_others_none)
{
    static const float from[] = { FLT_MAX, FLT_MAX, 1.0f, 1.0f, INFINITY, 0.0f, 0x1p-149f };
    static const float to[] = { -FLT_MAX, -FLT_MAX, 1.0f, NAN, INFINITY, -INFINITY, 0x1p-148f };
    gradreg_context *context = context_on(NULL, 1);
    gradreg_segment segments[5];
    double norms[5];
    static const uint64_t parts[][2] = { { 0, 3 }, { 2, 2 }, { 4, 1 }, { 4, 3 }, { 6, 1 } };
    for (size_t i = 0; i < 5; i++) {
        const gradreg_segment segment = GRADREG_SEGMENT_INIT;
        segments[i] = segment;
        segments[i].offset = parts[i][0];
        segments[i].count = parts[i][1];
        segments[i].param_type = GRADREG_TYPE_F32;
        segments[i].flags = GRADREG_SEGMENT_FROZEN | GRADREG_SEGMENT_REPLICA;
    }
    assert_ok(gradreg_weight_delta(context, norms, from, to, GRADREG_TYPE_F32, segments, 5));
    ck_assert(fabs(norms[0] / (2.0 * (double)FLT_MAX * sqrt(2.0)) - 1.0) < 1e-15);
    ck_assert(isnan(norms[1]) && isnan(norms[2]) && isnan(norms[3]));
    ck_assert(norms[4] == 0x1p-149);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

static uint64_t digest_distances(gradreg_context *context, gradreg_type type, size_t shift)
{
    const size_t size = type_bytes(type);
    char *before = guarded_new((ELEMENTS + 3) * size, 0);
    char *after = guarded_new((ELEMENTS + 3) * size, 0);
    gradreg_segment segments[SEGMENTS];
    double norms[SEGMENTS];
    uint64_t so_far = DIGEST_START;
    describe(segments);
    fill_weights(before + shift * size, after + shift * size, type, 1.0);
    assert_ok(gradreg_weight_delta(context, norms, before + shift * size, after + shift * size,
                                   type, segments, SEGMENTS));
    for (size_t i = 0; i < SEGMENTS; i++)
        so_far = digest(so_far, double_bits(norms[i]));
    guarded_free(before);
    guarded_free(after);
    return so_far;
}

START_TEST(threads_paths_and_alignment_decide_nothing)
{
    const gradreg_type type = all_types[_i];
    gradreg_context *context = context_on("scalar", 1);
    const uint64_t distances = digest_distances(context, type, 0);
    const uint64_t divergences = digest_divergences(context, 0);
    assert_ok(gradreg_context_destroy(context));
    const int32_t least = getenv("GRADREG_TEST_SMALL") != NULL ? 5 : 1; /* a slow build */
    for (size_t p = 0; p < 4; p++)
        for (int32_t threads = least; threads <= 5; threads += 2) {
            context = context_on(paths[p], threads);
            if (context == NULL)
                continue;
            ck_assert_uint_eq(digest_distances(context, type, 0), distances);
            ck_assert_uint_eq(digest_distances(context, type, 1), distances);
            if (type == GRADREG_TYPE_F32)
                ck_assert_uint_eq(digest_divergences(context, 1), divergences);
            assert_ok(gradreg_context_destroy(context));
        }
}
END_TEST

/* More than 2^31 elements, and more runs than are summed at a time. The pages are the kernel's zeros
 * but for three. GRADREG_TEST_LARGE asks for it: a minute, 9 GiB of address space. */
START_TEST(segments_may_pass_2_to_the_31)
{
    const uint64_t count = (UINT64_C(1) << 31) + 70001;
    if (getenv("GRADREG_TEST_LARGE") == NULL)
        return;
    uint16_t *before = mmap(NULL, count * 2, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint16_t *after = mmap(NULL, count * 2, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert(before != MAP_FAILED && after != MAP_FAILED);
    gradreg_segment segment = GRADREG_SEGMENT_INIT;
    gradreg_context *context = context_on(NULL, 0);
    double norm = 0;
    segment.count = count;
    typed_set(after, GRADREG_TYPE_BF16, 0, 2.0);
    typed_set(after, GRADREG_TYPE_BF16, (size_t)1 << 30, 3.0);
    typed_set(before, GRADREG_TYPE_BF16, count - 1, 6.0);
    assert_ok(
        gradreg_weight_delta(context, &norm, before, after, GRADREG_TYPE_BF16, &segment, 1));
    ck_assert(norm == 7.0);
    assert_ok(gradreg_context_destroy(context));
    munmap(before, count * 2);
    munmap(after, count * 2);
}
END_TEST

START_TEST(nothing_is_fine)
{
    gradreg_context *context = context_on(NULL, 1);
    gradreg_segment segment = GRADREG_SEGMENT_INIT;
    double norm = -1;
    assert_ok(gradreg_js_divergence(context, NULL, NULL, NULL, 0, 1));
    assert_ok(gradreg_weight_delta(context, NULL, NULL, NULL, GRADREG_TYPE_F16, NULL, 0));
    assert_ok(gradreg_weight_delta(context, &norm, NULL, NULL, GRADREG_TYPE_F16, &segment, 1));
    ck_assert(norm == 0.0);
    assert_ok(gradreg_moving_average(NULL, NULL, 0, 1));
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("monitors");
    TCase *host = tcase_create("host"), *buffers = tcase_create("buffers");
    tcase_set_timeout(host, 60);
    tcase_set_timeout(buffers, 120);
    tcase_add_test(host, short_sequences_exhaustively);
    tcase_add_test(host, long_sequences_of_any_order);
    tcase_add_test(host, repetition_and_its_absence_in_numbers);
    tcase_add_test(host, averages_are_those_of_each_window);
    tcase_add_test(host, what_leaves_the_window_leaves_nothing_behind);
    tcase_add_test(host, long_windows_cost_no_more_than_short_ones);
    tcase_add_test(buffers, divergences_are_those_of_the_formula);
    tcase_add_test(buffers, equal_rows_do_not_diverge_and_disjoint_ones_by_ln_2);
    tcase_add_test(buffers, nearly_equal_rows_keep_their_digits);
    tcase_add_test(buffers, rows_that_are_no_distribution_give_nan);
    add_loop_test(buffers, distances_are_those_of_plain_sums, 0, 3 * LAST_TYPE);
    tcase_add_test(buffers, finite_weights_have_a_finite_distance_and_others_none);
    add_loop_test(buffers, threads_paths_and_alignment_decide_nothing, 0, LAST_TYPE);
    tcase_add_test(buffers, segments_may_pass_2_to_the_31);
    tcase_add_test(buffers, nothing_is_fine);
    suite_add_tcase(suite, host);
    suite_add_tcase(suite, buffers);
    return run_suite(suite);
}
