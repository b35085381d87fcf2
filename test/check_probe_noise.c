/* check_probe_noise.c - what the probe adds to rows: noise that is noise, as long as each row says.
 *
 * In: rows with known RMS, rows of any numbers. Out: moved rows held against an oracle in double
 * (oracle_probe.h), the noise's distribution and independence measured, and that neither threads,
 * vector paths, alignment, strides nor batching decide over a bit. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oracle_probe.h"
#include "probe_rig.h"

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

/* ---- the noise itself -------------------------------------------------------------- */

/* A row with one large element and zeros has RMS 1: what becomes of the zeros is the noise, in f32 to
 * the last bit. element 0 is left out. */
enum { DRAWS = 65536 };

static float *draw(gradreg_probe *probe, int32_t layer, int32_t trial)
{
    float *row = calloc(DRAWS, sizeof(float));
    ck_assert_ptr_nonnull(row);
    row[0] = 256.0f;
    assert_ok(gradreg_probe_inject(probe, row, GRADREG_TYPE_F32, 1, DRAWS, 0, layer, trial));
    row[0] = row[1];
    return row;
}

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Kolmogorov and Smirnov's distance from the normal distribution, times sqrt(n): above 1.95 once in
 * a thousand samples. */
static double kolmogorov(const float *x, size_t n)
{
    float *sorted = malloc(n * sizeof(float));
    double most = 0;
    ck_assert_ptr_nonnull(sorted);
    memcpy(sorted, x, n * sizeof(float));
    qsort(sorted, n, sizeof(float), ascending);
    for (size_t i = 0; i < n; i++) {
        const double below = 0.5 * erfc(-(double)sorted[i] / sqrt(2.0));
        most = fmax(most, fabs(below - (double)i / (double)n));
        most = fmax(most, fabs(below - (double)(i + 1) / (double)n));
    }
    free(sorted);
    return most * sqrt((double)n);
}

static double mean_power(const float *x, size_t n, int power)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += pow((double)x[i], power);
    return sum / (double)n;
}

START_TEST(noise_is_standard_normal)
{
    /* E x^k and the standard deviation of x^k */
    static const double moments[7] = { 1, 0, 1, 0, 3, 0, 15 };
    static const double deviations[7] = { 0,
                                          1,
                                          1.4142135623730951,
                                          3.872983346207417,
                                          9.797958971132712,
                                          30.740852297878796,
                                          100.7968253395 };
    gradreg_context *context = context_on(NULL, 1);
    gradreg_probe *probe = probe_with(context, TRIALS, 1.0);
    for (int32_t layer = 0; layer < LAYERS; layer += 4)
        for (int32_t trial = 0; trial < TRIALS; trial += 11) {
            float *n = draw(probe, layer, trial);
            for (int k = 1; k <= 6; k++) {
                const double off = mean_power(n, DRAWS, k) - moments[k];
                ck_assert_msg(fabs(off) < 4.5 * deviations[k] / sqrt(DRAWS),
                              "layer %d trial %d: moment %d is %g off", layer, trial, k, off);
            }
            const double distance = kolmogorov(n, DRAWS);
            ck_assert_msg(distance < 1.95, "layer %d trial %d: distance %g", layer, trial,
                          distance);
            free(n);
        }
    close_both(probe, context);
}
END_TEST

/* Of n independent pairs it has standard deviation 1 / sqrt(n). */
static void assert_unrelated(const float *x, const float *y, size_t n, const char *what)
{
    double sum = 0, of_squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)y[i];
        of_squares += ((double)x[i] * (double)x[i] - 1.0) * ((double)y[i] * (double)y[i] - 1.0);
    }
    const double limit = 4.5 / sqrt((double)n);
    ck_assert_msg(fabs(sum / (double)n) < limit, "%s: correlation %g", what, sum / (double)n);
    ck_assert_msg(fabs(of_squares / (double)n) < 2.0 * limit, "%s: squares %g", what,
                  of_squares / (double)n);
}

/* Signs of x against signs of y: 3 degrees of freedom, 16.3 once in a thousand. */
static void assert_signs_unrelated(const float *x, const float *y, size_t n, const char *what)
{
    double count[4] = { 0 }, chi = 0;
    for (size_t i = 0; i < n; i++)
        count[(x[i] > 0.0f) * 2 + (y[i] > 0.0f)] += 1;
    for (int k = 0; k < 4; k++)
        chi += pow(count[k] - (double)n / 4, 2) / ((double)n / 4);
    ck_assert_msg(chi < 16.3, "%s: chi-square %g", what, chi);
}

START_TEST(trials_layers_seeds_and_elements_have_unrelated_noise)
{
    gradreg_context *context = context_on(NULL, 1);
    gradreg_probe *probe = probe_with(context, TRIALS, 1.0), *other = NULL;
    gradreg_probe_params params = GRADREG_PROBE_PARAMS_INIT;
    params.layer_count = LAYERS;
    params.noise_scale = 1.0;
    params.seed = SEED + 1;
    assert_ok(gradreg_probe_create(&other, context, &params));
    float *x = draw(probe, 2, 5);
    float *others[] = { draw(probe, 2, 6), draw(probe, 3, 5), draw(probe, 5 - 2, 2),
                        draw(probe, 0, 0), draw(other, 2, 5) };
    static const char *const names[] = { "trial", "layer", "layer and trial exchanged", "both",
                                         "seed" };
    for (size_t k = 0; k < 5; k++) {
        assert_unrelated(x, others[k], DRAWS, names[k]);
        assert_signs_unrelated(x, others[k], DRAWS, names[k]);
        free(others[k]);
    }
    for (size_t lag = 1; lag <= 8; lag++) {
        char what[32];
        (void)snprintf(what, sizeof(what), "lag %zu", lag);
        assert_unrelated(x, x + lag, DRAWS - lag, what);
        assert_signs_unrelated(x, x + lag, DRAWS - lag, what);
    }
    free(x);
    assert_ok(gradreg_probe_destroy(other));
    close_both(probe, context);
}
END_TEST

START_TEST(noise_is_that_of_the_oracle)
{
    static double want[DRAWS];
    gradreg_context *context = context_on(NULL, 1);
    gradreg_probe *probe = probe_with(context, 100000, 1.0);
    static const int32_t at[][2] = { { 0, 0 }, { 4, 0 }, { 0, 99999 }, { 3, 65536 } };
    for (size_t k = 0; k < 4; k++) {
        float *n = draw(probe, at[k][0], at[k][1]);
        oracle_noise(want, SEED, at[k][0], at[k][1], DRAWS);
        for (size_t i = 1; i < DRAWS; i++)
            if (!(fabs((double)n[i] - want[i]) <= 0x1p-24 * fabs(want[i]) + 1e-13))
                ck_abort_msg("layer %d trial %d element %zu: %a, expected %a", at[k][0],
                             at[k][1], i, (double)n[i], want[i]);
        free(n);
    }
    close_both(probe, context);
}
END_TEST

/* ---- injection --------------------------------------------------------------------- */

/* At least half a step of the type at this value. */
static double half_step(gradreg_type type, double x)
{
    return fmax(type_half_step(type, 1.0) * fabs(x), type_half_step(type, 0.0));
}

/* Rows of any numbers, in one of the types. What the sum of squares may be off by: check_reduce.c. */
START_TEST(rows_move_by_their_own_rms)
{
    static const size_t widths[] = { 1,   2,    3,    5,    127,  128, 129,
                                     255, 1021, 4095, 4096, 4097, 9000 };
    static double x[9000], n[9000];
    const gradreg_type type = all_types[_i];
    gradreg_context *context = context_on(NULL, 1);
    gradreg_probe *probe = probe_with(context, TRIALS, 0.5);
    uint64_t state = test_seed() ^ 11;
    for (size_t w = 0; w < sizeof(widths) / sizeof(widths[0]); w++) {
        const size_t width = widths[w];
        void *row = guarded_new(width * type_bytes(type), 0);
        typed_fill(row, type, width, &state, w % 2 == 0 ? 3.0 : 1e-3);
        for (size_t i = 0; i < width; i++)
            x[i] = typed_get(row, type, i);
        assert_ok(gradreg_probe_inject(probe, row, type, 1, width, 0, 3, 7));
        oracle_noise(n, SEED, 3, 7, width);
        const double sigma = 0.5 * oracle_rms(x, width);
        for (size_t i = 0; i < width; i++) {
            const double want = x[i] + sigma * n[i], got = typed_get(row, type, i);
            const double arithmetic =
                fabs(sigma * n[i]) * (1e-6 + 0x1p-22) + 0x1p-24 * fabs(want);
            if (!(fabs(got - want) <= 1.001 * half_step(type, want) + arithmetic))
                ck_abort_msg("%s width %zu element %zu: %.9g, expected %.9g", type_name(type),
                             width, i, got, want);
        }
        guarded_free(row);
    }
    close_both(probe, context);
}
END_TEST

/* Of ones RMS and sigma are exact, so that every rounding can be said beforehand. */
START_TEST(the_store_rounds_to_nearest_even)
{
    enum { WIDTH = 8192 };
    const gradreg_type type = all_types[_i];
    gradreg_context *context = context_on(NULL, 1);
    gradreg_probe *probe = probe_with(context, TRIALS, 0.5),
                  *plain = probe_with(context, TRIALS, 1);
    float *row = guarded_new(WIDTH * sizeof(float), 0), *draws = draw(plain, 1, 2);
    for (size_t i = 0; i < WIDTH; i++)
        typed_set(row, type, i, i % 2 == 0 ? 1.0 : -1.0);
    assert_ok(gradreg_probe_inject(probe, row, type, 1, WIDTH, WIDTH, 1, 2));
    for (size_t i = 1; i < WIDTH; i++) { /* draw() has no element 0 */
        const float moved = (i % 2 == 0 ? 1.0f : -1.0f) + 0.5f * draws[i];
        ck_assert(typed_get(row, type, i) == type_round((double)moved, type));
    }
    guarded_free(row);
    free(draws);
    assert_ok(gradreg_probe_destroy(plain));
    close_both(probe, context);
}
END_TEST

START_TEST(f16_saturates_and_is_counted)
{
    enum { WIDTH = 1000, ROWS = 3 };
    gradreg_context *context = context_on(NULL, 2);
    gradreg_probe *probe = probe_with(context, TRIALS, 0.5);
    uint16_t *rows = guarded_new(ROWS * WIDTH * sizeof(*rows), 0);
    uint64_t clipped = 0;
    for (size_t i = 0; i < ROWS * WIDTH; i++)
        typed_set(rows, GRADREG_TYPE_F16, i, i % 2 == 0 ? 60000.0 : -60000.0);
    assert_ok(gradreg_probe_inject(probe, rows, GRADREG_TYPE_F16, ROWS, WIDTH, 0, 2, 1));
    for (size_t i = 0; i < ROWS * WIDTH; i++) {
        const double value = typed_get(rows, GRADREG_TYPE_F16, i);
        ck_assert(fabs(value) <= 65504.0);
        clipped += fabs(value) == 65504.0;
    }
    ck_assert_uint_gt(clipped, ROWS * WIDTH / 4);
    const gradreg_probe_layer layer = summary_of(probe, 2);
    /* values in [65488, 65520) round to 65504 without being clipped: rare */
    ck_assert_uint_le(layer.saturated, clipped);
    ck_assert_uint_ge(layer.saturated + 10, clipped);
    ck_assert_uint_eq(summary_of(probe, 1).saturated, 0);
    guarded_free(rows);
    close_both(probe, context);
}
END_TEST

START_TEST(rows_that_are_not_finite_are_left_alone_and_counted)
{
    enum { WIDTH = 5000, ROWS = 6 };
    const gradreg_type type = all_types[_i];
    static const double strange[] = { (double)NAN, (double)INFINITY, -(double)INFINITY };
    gradreg_context *context = context_on(NULL, 2);
    gradreg_probe *probe = probe_with(context, TRIALS, 0.5);
    const size_t bytes = WIDTH * type_bytes(type);
    char *rows = guarded_new(ROWS * bytes, 0), *before = malloc(ROWS * bytes);
    uint64_t state = test_seed() ^ 12;
    ck_assert_ptr_nonnull(before);
    typed_fill(rows, type, ROWS * WIDTH, &state, 1.0);
    for (size_t k = 0; k < 3; k++)
        typed_set(rows, type,
                  2 * k * WIDTH + (k == 0   ? 0
                                   : k == 1 ? WIDTH - 1
                                            : 4096),
                  strange[k]);
    memcpy(before, rows, ROWS * bytes);
    assert_ok(gradreg_probe_inject(probe, rows, type, ROWS, WIDTH, 0, 4, 0));
    for (size_t r = 0; r < ROWS; r++)
        ck_assert_int_eq(memcmp(rows + r * bytes, before + r * bytes, bytes) == 0, r % 2 == 0);
    ck_assert_uint_eq(summary_of(probe, 4).not_injected, 3);
    ck_assert_uint_eq(summary_of(probe, 4).trials, 0);
    ck_assert_uint_eq(summary_of(probe, 3).not_injected, 0);
    free(before);
    guarded_free(rows);
    close_both(probe, context);
}
END_TEST

/* Also huge and tiny rows, whose squares f32 cannot hold, have an RMS. */
START_TEST(zeros_stay_and_extremes_are_scaled)
{
    enum { WIDTH = 300 };
    static const double sizes[] = { 1e30, 1e-30, 1e-42 };
    gradreg_context *context = context_on(NULL, 1);
    gradreg_probe *probe = probe_with(context, TRIALS, 0.5);
    float row[WIDTH], zeros[WIDTH];
    for (size_t i = 0; i < WIDTH; i++)
        row[i] = i % 2 == 0 ? 0.0f : -0.0f;
    memcpy(zeros, row, sizeof(row));
    assert_ok(gradreg_probe_inject(probe, row, GRADREG_TYPE_F32, 1, WIDTH, 0, 0, 0));
    ck_assert_int_eq(memcmp(row, zeros, sizeof(row)), 0);
    for (size_t k = 0; k < 3; k++) {
        double n[WIDTH];
        for (size_t i = 0; i < WIDTH; i++)
            row[i] = (float)sizes[k];
        const double size = (double)row[0];
        assert_ok(gradreg_probe_inject(probe, row, GRADREG_TYPE_F32, 1, WIDTH, 0, 0, 0));
        oracle_noise(n, SEED, 0, 0, WIDTH);
        for (size_t i = 0; i < WIDTH; i++)
            ck_assert(fabs((double)row[i] - size * (1.0 + 0.5 * n[i])) <=
                      1e-6 * size * (1.0 + fabs(n[i])) + 0x1p-148 * (1.0 + fabs(n[i])));
    }
    close_both(probe, context);
}
END_TEST

START_TEST(no_noise_moves_nothing)
{
    gradreg_context *context = context_on(NULL, 1);
    gradreg_probe *probe = probe_with(context, TRIALS, 0.0);
    float row[100], before[100];
    uint64_t state = test_seed() ^ 13;
    typed_fill(row, GRADREG_TYPE_F32, 100, &state, 1.0);
    row[3] = -0.0f;
    memcpy(before, row, sizeof(row));
    assert_ok(gradreg_probe_inject(probe, row, GRADREG_TYPE_F32, 1, 100, 0, 0, 0));
    ck_assert_int_eq(memcmp(row, before, sizeof(row)), 0);
    close_both(probe, context);
}
END_TEST

/* ---- the same bits ------------------------------------------------------------------ */

static uint64_t digest_rows(const char *rows, gradreg_type type, size_t stride)
{
    uint64_t so_far = DIGEST_START;
    for (size_t r = 0; r < BATCH_ROWS; r++)
        for (size_t i = 0; i < BATCH_WIDTH; i++)
            so_far = digest(so_far, typed_bits(rows, type, r * stride + i));
    return so_far;
}

/* Injects everything as one batch, or row by row from the last, at an offset of `shift` elements; what
 * lies between the rows must stay. */
static uint64_t injected(gradreg_context *context, gradreg_type type, size_t stride,
                         size_t shift, bool one_by_one)
{
    const size_t size = type_bytes(type);
    char *memory = batch_new(type, stride, shift), *rows = memory + shift * size;
    gradreg_probe *probe = probe_with(context, TRIALS, 0.5);
    if (!one_by_one)
        assert_ok(
            gradreg_probe_inject(probe, rows, type, BATCH_ROWS, BATCH_WIDTH, stride, 2, 1));
    for (size_t r = BATCH_ROWS; one_by_one && r-- > 0;)
        assert_ok(gradreg_probe_inject(probe, rows + r * stride * size, type, 1, BATCH_WIDTH, 0,
                                       2, 1 + (int32_t)r));
    for (size_t r = 0; r + 1 < BATCH_ROWS; r++)
        for (size_t i = BATCH_WIDTH * size; i < stride * size; i++)
            ck_assert_uint_eq((unsigned char)rows[r * stride * size + i], 0xa5);
    const uint64_t result = digest_rows(rows, type, stride);
    assert_ok(gradreg_probe_destroy(probe));
    guarded_free(memory);
    return result;
}

START_TEST(batching_threads_paths_and_alignment_decide_nothing_about_noise)
{
    const gradreg_type type = all_types[_i];
    gradreg_context *context = context_on("scalar", 1);
    const uint64_t want = injected(context, type, BATCH_WIDTH, 0, false);
    ck_assert_uint_eq(injected(context, type, BATCH_WIDTH, 0, true), want);
    assert_ok(gradreg_context_destroy(context));
    for (size_t p = 0; p < PATHS; p++)
        for (int32_t threads = 1; threads <= 5; threads += 2) {
            context = context_on(paths[p], threads);
            if (context == NULL)
                continue;
            ck_assert_uint_eq(injected(context, type, BATCH_STRIDE, 0, false), want);
            ck_assert_uint_eq(injected(context, type, BATCH_STRIDE, 3, true), want);
            ck_assert_uint_eq(injected(context, type, BATCH_WIDTH, 1, false), want);
            assert_ok(gradreg_context_destroy(context));
        }
}
END_TEST

/* The host may flush denormals: the probe does not. */
START_TEST(the_hosts_floating_point_environment_decides_nothing)
{
#if defined(__SSE2__)
    enum { N = 64 };
    gradreg_context *context = context_on(NULL, 1);
    gradreg_probe *probe = probe_with(context, TRIALS, 0.5);
    float rows[2][N];
    for (size_t i = 0; i < N; i++)
        rows[0][i] = rows[1][i] = 0x1p-140f;
    assert_ok(gradreg_probe_inject(probe, rows[0], GRADREG_TYPE_F32, 1, N, 0, 0, 0));
    const unsigned host = _mm_getcsr();
    _mm_setcsr(host | 0x8040u | 0x6000u); /* FTZ, DAZ, towards zero */
    const gradreg_status status =
        gradreg_probe_inject(probe, rows[1], GRADREG_TYPE_F32, 1, N, 0, 0, 0);
    const unsigned left = _mm_getcsr();
    _mm_setcsr(host);
    assert_ok(status);
    ck_assert_uint_eq(left & ~0x3fu, (host | 0xe040u) & ~0x3fu);
    ck_assert_int_eq(memcmp(rows[0], rows[1], sizeof(rows[0])), 0);
    ck_assert(rows[0][0] != 0x1p-140f);
    close_both(probe, context);
#endif
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("probe noise");
    TCase *noise = tcase_create("noise"), *rows = tcase_create("rows");
    tcase_set_timeout(noise, 60);
    tcase_set_timeout(rows, 60);
    tcase_add_test(noise, noise_is_standard_normal);
    tcase_add_test(noise, trials_layers_seeds_and_elements_have_unrelated_noise);
    tcase_add_test(noise, noise_is_that_of_the_oracle);
    add_loop_test(rows, rows_move_by_their_own_rms, 0, LAST_TYPE);
    add_loop_test(rows, the_store_rounds_to_nearest_even, 0, LAST_TYPE);
    tcase_add_test(rows, f16_saturates_and_is_counted);
    add_loop_test(rows, rows_that_are_not_finite_are_left_alone_and_counted, 0, LAST_TYPE);
    tcase_add_test(rows, zeros_stay_and_extremes_are_scaled);
    tcase_add_test(rows, no_noise_moves_nothing);
    add_loop_test(rows, batching_threads_paths_and_alignment_decide_nothing_about_noise, 0,
                  LAST_TYPE);
    tcase_add_test(rows, the_hosts_floating_point_environment_decides_nothing);
    suite_add_tcase(suite, noise);
    suite_add_tcase(suite, rows);
    return run_suite(suite);
}
