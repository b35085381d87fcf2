/* check_probe.c - the probe: noise that is noise, statistics that are those of two passes.
 *
 * In: rows with known RMS, rows of any numbers, logits. Out: moved rows and summaries held against an
 * oracle in double (oracle_probe.h), the noise's distribution and independence measured, and that
 * neither threads, vector paths, alignment, strides nor batching decide over a bit. */
#define _POSIX_C_SOURCE 200809L /* setenv */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oracle_probe.h"
#include "support.h"

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

enum { LAYERS = 5, TRIALS = 12 };
static const uint64_t SEED = UINT64_C(0x123456789abcdef);
static gradreg_context *context_with(const char *path, int32_t threads)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context = NULL;
    params.threads = threads;
    if (path != NULL)
        setenv("GRADREG_VECTOR_PATH", path, 1);
    const gradreg_status status = gradreg_context_create(&context, &params);
    if (path != NULL)
        unsetenv("GRADREG_VECTOR_PATH");
    return status == GRADREG_OK ? context : NULL; /* a path that this processor lacks */
}

static gradreg_probe *probe_with(gradreg_context *context, int32_t trials, double noise_scale)
{
    gradreg_probe_params params = GRADREG_PROBE_PARAMS_INIT;
    gradreg_probe *probe = NULL;
    params.layer_count = LAYERS;
    params.trials = trials;
    params.noise_scale = noise_scale;
    params.seed = SEED;
    assert_ok(gradreg_probe_create(&probe, context, &params));
    return probe;
}

static void close_both(gradreg_probe *probe, gradreg_context *context)
{
    assert_ok(gradreg_probe_destroy(probe));
    assert_ok(gradreg_context_destroy(context));
}

static gradreg_probe_layer summary_of(gradreg_probe *probe, int32_t layer)
{
    gradreg_probe_layer rows[LAYERS];
    assert_ok(gradreg_probe_layer_init(rows, sizeof(rows[0])));
    assert_ok(gradreg_probe_summary(probe, rows, LAYERS));
    for (int32_t l = 0; l < LAYERS; l++)
        ck_assert_int_eq(rows[l].layer, l);
    return rows[layer];
}

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
    gradreg_context *context = context_with(NULL, 1);
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
    gradreg_context *context = context_with(NULL, 1);
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
    gradreg_context *context = context_with(NULL, 1);
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
    gradreg_context *context = context_with(NULL, 1);
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
    gradreg_context *context = context_with(NULL, 1);
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
    gradreg_context *context = context_with(NULL, 2);
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
    gradreg_context *context = context_with(NULL, 2);
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
    gradreg_context *context = context_with(NULL, 1);
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
    gradreg_context *context = context_with(NULL, 1);
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

enum { BATCH = 11, WIDTH = 4100, STRIDE = 4133, MOST_BYTES = BATCH * STRIDE * 4 + 64 };

/* The same rows, tight. */
static void fill_rows(void *tight, gradreg_type type)
{
    uint64_t state = test_seed() ^ 14;
    typed_fill(tight, type, BATCH * WIDTH, &state, 2.0);
}

static uint64_t digest_rows(const char *rows, gradreg_type type, size_t stride)
{
    uint64_t so_far = DIGEST_START;
    for (size_t r = 0; r < BATCH; r++)
        for (size_t i = 0; i < WIDTH; i++)
            so_far = digest(so_far, typed_bits(rows, type, r * stride + i));
    return so_far;
}

/* Injects everything as one batch, or row by row from the last, at an offset of `shift` elements; what
 * lies between the rows must stay. */
static uint64_t injected(gradreg_context *context, gradreg_type type, size_t stride,
                         size_t shift, bool one_by_one)
{
    const size_t size = type_bytes(type);
    char *tight = malloc(BATCH * WIDTH * size);
    char *memory = guarded_new(MOST_BYTES, 0), *rows = memory + shift * size;
    gradreg_probe *probe = probe_with(context, TRIALS, 0.5);
    ck_assert_ptr_nonnull(tight);
    fill_rows(tight, type);
    for (size_t r = 0; r < BATCH; r++)
        memcpy(rows + r * stride * size, tight + r * WIDTH * size, WIDTH * size);
    if (!one_by_one)
        assert_ok(gradreg_probe_inject(probe, rows, type, BATCH, WIDTH, stride, 2, 1));
    for (size_t r = BATCH; one_by_one && r-- > 0;)
        assert_ok(gradreg_probe_inject(probe, rows + r * stride * size, type, 1, WIDTH, 0, 2,
                                       1 + (int32_t)r));
    for (size_t r = 0; r + 1 < BATCH; r++)
        for (size_t i = WIDTH * size; i < stride * size; i++)
            ck_assert_uint_eq((unsigned char)rows[r * stride * size + i], 0xa5);
    const uint64_t result = digest_rows(rows, type, stride);
    assert_ok(gradreg_probe_destroy(probe));
    guarded_free(memory);
    free(tight);
    return result;
}

static const char *const paths[] = { "scalar", "x86-64-v2", "x86-64-v3", "x86-64-v4" };

START_TEST(batching_threads_paths_and_alignment_decide_nothing_about_noise)
{
    const gradreg_type type = all_types[_i];
    gradreg_context *context = context_with("scalar", 1);
    const uint64_t want = injected(context, type, WIDTH, 0, false);
    ck_assert_uint_eq(injected(context, type, WIDTH, 0, true), want);
    assert_ok(gradreg_context_destroy(context));
    for (size_t p = 0; p < 4; p++)
        for (int32_t threads = 1; threads <= 5; threads += 2) {
            context = context_with(paths[p], threads);
            if (context == NULL)
                continue;
            ck_assert_uint_eq(injected(context, type, STRIDE, 0, false), want);
            ck_assert_uint_eq(injected(context, type, STRIDE, 3, true), want);
            ck_assert_uint_eq(injected(context, type, WIDTH, 1, false), want);
            assert_ok(gradreg_context_destroy(context));
        }
}
END_TEST

static uint64_t digest_summary(gradreg_probe *probe)
{
    gradreg_probe_layer rows[LAYERS];
    uint64_t so_far = DIGEST_START;
    assert_ok(gradreg_probe_layer_init(rows, sizeof(rows[0])));
    assert_ok(gradreg_probe_summary(probe, rows, LAYERS));
    for (int32_t l = 0; l < LAYERS; l++) {
        const double figures[] = { rows[l].mean, rows[l].std, rows[l].min, rows[l].max,
                                   rows[l].baseline };
        for (size_t k = 0; k < 5; k++)
            so_far = digest(so_far, isnan(figures[k]) ? 1 : double_bits(figures[k]));
        so_far = digest(digest(so_far, rows[l].trials), rows[l].non_finite);
    }
    return so_far;
}

static uint64_t observed(gradreg_context *context, gradreg_type type, size_t stride,
                         size_t shift, size_t at_a_time)
{
    const size_t size = type_bytes(type);
    char *tight = malloc(BATCH * WIDTH * size);
    char *memory = guarded_new(MOST_BYTES, 0), *rows = memory + shift * size;
    gradreg_probe *probe = probe_with(context, TRIALS, 0.5);
    ck_assert_ptr_nonnull(tight);
    fill_rows(tight, type);
    typed_set(tight, type, 3 * WIDTH + 4099, (double)NAN);
    for (size_t r = 0; r < BATCH; r++)
        memcpy(rows + r * stride * size, tight + r * WIDTH * size, WIDTH * size);
    for (size_t r = 0; r < BATCH; r += at_a_time) {
        const size_t n = BATCH - r < at_a_time ? BATCH - r : at_a_time;
        assert_ok(gradreg_probe_observe(probe, rows + r * stride * size, type, n, WIDTH, stride,
                                        4097, 1, (int32_t)r));
    }
    assert_ok(
        gradreg_probe_observe(probe, rows, type, 1, WIDTH, stride, 5, GRADREG_LAYER_NONE, -7));
    const uint64_t result = digest_summary(probe);
    assert_ok(gradreg_probe_destroy(probe));
    guarded_free(memory);
    free(tight);
    return result;
}

START_TEST(batching_threads_paths_and_alignment_decide_nothing_about_statistics)
{
    const gradreg_type type = all_types[_i];
    gradreg_context *context = context_with("scalar", 1);
    const uint64_t want = observed(context, type, WIDTH, 0, BATCH);
    ck_assert_uint_eq(observed(context, type, WIDTH, 0, 1), want);
    assert_ok(gradreg_context_destroy(context));
    for (size_t p = 0; p < 4; p++)
        for (int32_t threads = 1; threads <= 5; threads += 2) {
            context = context_with(paths[p], threads);
            if (context == NULL)
                continue;
            ck_assert_uint_eq(observed(context, type, STRIDE, 3, BATCH), want);
            ck_assert_uint_eq(observed(context, type, STRIDE, 1, 4), want);
            assert_ok(gradreg_context_destroy(context));
        }
}
END_TEST

/* The host may flush denormals: the probe does not. */
START_TEST(the_hosts_floating_point_environment_decides_nothing)
{
#if defined(__SSE2__)
    enum { N = 64 };
    gradreg_context *context = context_with(NULL, 1);
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

/* ---- observation ------------------------------------------------------------------- */

START_TEST(probabilities_and_statistics_are_those_of_two_passes)
{
    enum { MOST = 9001 };
    static const size_t sizes[] = { 1, 2, 31, 33, 255, 4096, 4097, MOST };
    const gradreg_type type = all_types[_i];
    gradreg_context *context = context_with(NULL, 2);
    uint64_t state = test_seed() ^ 15;
    static double z[MOST];
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        const size_t n = sizes[k];
        gradreg_probe *probe = probe_with(context, TRIALS, 0.5);
        void *rows = guarded_new(TRIALS * n * type_bytes(type), 0);
        const size_t target = n / 2;
        double p[TRIALS];
        typed_fill(rows, type, TRIALS * n, &state, k % 3 == 0 ? 40.0 : 2.0);
        for (size_t r = 0; r < TRIALS; r++) {
            typed_set(rows, type, r * n + target, 3.0 + 0.25 * (double)r);
            for (size_t i = 0; i < n; i++)
                z[i] = typed_get(rows, type, r * n + i);
            p[r] = oracle_probability(z, n, target);
        }
        assert_ok(
            gradreg_probe_observe(probe, rows, type, TRIALS, n, 0, (int32_t)target, 3, 0));
        const gradreg_probe_layer got = summary_of(probe, 3);
        const oracle_spread want = oracle_spread_of(p, TRIALS);
        const double near = 1e-14;
        ck_assert(fabs(got.mean - want.mean) <= near * want.mean);
        ck_assert(fabs(got.min - want.min) <= near * want.min);
        ck_assert(fabs(got.max - want.max) <= near * want.max);
        ck_assert(fabs(got.std - want.std) <= 1e-12 * want.std + near * want.mean);
        ck_assert_uint_eq(got.trials, TRIALS);
        ck_assert_uint_eq(got.non_finite, 0);
        ck_assert(isnan(got.baseline));
        guarded_free(rows);
        assert_ok(gradreg_probe_destroy(probe));
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* Two logits: p = 1 / (1 + exp(-d)). Around 1 - 1e-9 a variance from sums of squares is noise. */
START_TEST(a_small_spread_of_large_probabilities_is_seen)
{
    enum { MANY = 1000 };
    gradreg_context *context = context_with(NULL, 1);
    gradreg_probe *probe = probe_with(context, MANY, 0.5);
    static float z[MANY][2];
    static double p[MANY];
    for (size_t r = 0; r < MANY; r++) {
        z[r][0] = 20.0f + (float)(r % 7) * 0.015625f;
        z[r][1] = 0.0f;
        const double row[2] = { (double)z[r][0], 0.0 };
        p[r] = oracle_probability(row, 2, 0);
    }
    assert_ok(gradreg_probe_observe(probe, z, GRADREG_TYPE_F32, MANY, 2, 0, 0, 0, 0));
    const gradreg_probe_layer got = summary_of(probe, 0);
    const oracle_spread want = oracle_spread_of(p, MANY);
    ck_assert(want.std < 1e-10 && want.std > 1e-11);
    ck_assert(fabs(got.std / want.std - 1.0) < 1e-4); /* p has 2^-53 of its own */
    ck_assert(fabs(got.mean - want.mean) <= MANY * 0x1p-54);
    close_both(probe, context);
}
END_TEST

START_TEST(huge_and_absent_logits_have_probabilities)
{
    static const float inf = INFINITY;
    static const float rows[][3] = { { 3e38f, -3e38f, 0.0f },
                                     { -inf, 0.0f, -inf },
                                     { -3e38f, -3e38f, -3e38f },
                                     { 0.0f, -inf, 0.0f },
                                     { 800.0f, 0.0f, -inf } };
    static const double want[] = { 1.0, 0.0, 1.0 / 3.0, 0.5, 1.0 };
    gradreg_context *context = context_with(NULL, 1);
    for (size_t r = 0; r < 5; r++) {
        gradreg_probe *probe = probe_with(context, TRIALS, 0.5);
        assert_ok(
            gradreg_probe_observe(probe, rows[r], GRADREG_TYPE_F32, 1, 3, 0, 0, 0, TRIALS - 1));
        const gradreg_probe_layer got = summary_of(probe, 0);
        ck_assert(got.mean == want[r] && got.std == 0.0 && got.min == want[r] &&
                  got.max == want[r]);
        assert_ok(gradreg_probe_destroy(probe));
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(rows_without_a_probability_are_counted_and_left_out)
{
    static const float inf = INFINITY, nan = NAN;
    static const float rows[][3] = { { 0.0f, 0.0f, -inf }, { 0.0f, nan, 0.0f },
                                     { inf, 0.0f, 0.0f },  { -inf, -inf, -inf },
                                     { -nan, -inf, -inf }, { 0.0f, 0.0f, -inf } };
    gradreg_context *context = context_with(NULL, 1);
    gradreg_probe *probe = probe_with(context, TRIALS, 0.5);
    assert_ok(gradreg_probe_observe(probe, rows, GRADREG_TYPE_F32, 6, 3, 0, 1, 4, 0));
    assert_ok(gradreg_probe_observe(probe, rows[1], GRADREG_TYPE_F32, 1, 3, 0, 1,
                                    GRADREG_LAYER_NONE, 0));
    gradreg_probe_layer got = summary_of(probe, 4);
    ck_assert_uint_eq(got.trials, 2);
    ck_assert_uint_eq(got.non_finite, 4);
    ck_assert(got.mean == 0.5 && got.std == 0.0 && isnan(got.baseline));
    got = summary_of(probe, 0); /* nothing seen */
    ck_assert_uint_eq(got.trials, 0);
    ck_assert(isnan(got.mean) && isnan(got.std) && isnan(got.min) && isnan(got.max));
    close_both(probe, context);
}
END_TEST

/* ---- the handle -------------------------------------------------------------------- */

START_TEST(the_baseline_is_a_mean_and_reset_forgets)
{
    static const float rows[][2] = { { 0.0f, 0.0f }, { 0.0f, -INFINITY } };
    gradreg_context *context = context_with(NULL, 1);
    gradreg_probe *probe = probe_with(context, 1, 0.5);
    assert_ok(gradreg_probe_observe(probe, rows, GRADREG_TYPE_F32, 2, 2, 0, 0,
                                    GRADREG_LAYER_NONE, 0)); /* more than trials */
    assert_ok(gradreg_probe_observe(probe, rows, GRADREG_TYPE_F32, 1, 2, 0, 0, 2, 0));
    for (int32_t l = 0; l < LAYERS; l++)
        ck_assert(summary_of(probe, l).baseline == 0.75);
    ck_assert(summary_of(probe, 2).mean == 0.5);
    ck_assert_uint_eq(summary_of(probe, 2).trials, 1);
    const uint64_t first = digest_summary(probe);
    assert_ok(gradreg_probe_reset(probe));
    ck_assert(isnan(summary_of(probe, 2).baseline) && isnan(summary_of(probe, 2).mean));
    assert_ok(gradreg_probe_observe(probe, rows, GRADREG_TYPE_F32, 2, 2, 0, 0,
                                    GRADREG_LAYER_NONE, 0));
    assert_ok(gradreg_probe_observe(probe, rows, GRADREG_TYPE_F32, 1, 2, 0, 0, 2, 0));
    ck_assert_uint_eq(digest_summary(probe), first);
    close_both(probe, context);
}
END_TEST

START_TEST(many_rows_are_taken_in_portions)
{
    enum { MANY = 1300, N = 40 };
    gradreg_context *context = context_with(NULL, 3);
    gradreg_probe *probe = probe_with(context, MANY, 0.5),
                  *single = probe_with(context, MANY, 0.5);
    static float rows[MANY][N], again[MANY][N];
    uint64_t state = test_seed() ^ 16;
    typed_fill(rows, GRADREG_TYPE_F32, MANY * N, &state, 2.0);
    memcpy(again, rows, sizeof(rows));
    assert_ok(gradreg_probe_inject(probe, rows, GRADREG_TYPE_F32, MANY, N, 0, 1, 0));
    assert_ok(gradreg_probe_observe(probe, rows, GRADREG_TYPE_F32, MANY, N, 0, 7, 1, 0));
    for (int32_t r = 0; r < MANY; r++) {
        assert_ok(gradreg_probe_inject(single, again[r], GRADREG_TYPE_F32, 1, N, 0, 1, r));
        assert_ok(gradreg_probe_observe(single, again[r], GRADREG_TYPE_F32, 1, N, 0, 7, 1, r));
    }
    ck_assert_int_eq(memcmp(rows, again, sizeof(rows)), 0);
    ck_assert_uint_eq(digest_summary(probe), digest_summary(single));
    assert_ok(gradreg_probe_destroy(single));
    close_both(probe, context);
}
END_TEST

START_TEST(a_probe_holds_its_memory_from_the_start)
{
    counting_allocator allocator = { 0 };
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context = NULL;
    static float rows[TRIALS][20000];
    params.allocator = counting_hook(&allocator);
    params.threads = 1;
    assert_ok(gradreg_context_create(&context, &params));
    gradreg_probe *probe = probe_with(context, TRIALS, 0.5);
    const size_t calls = allocator.calls;
    assert_ok(gradreg_probe_inject(probe, rows, GRADREG_TYPE_F32, TRIALS, 20000, 0, 0, 0));
    assert_ok(gradreg_probe_observe(probe, rows, GRADREG_TYPE_F32, TRIALS, 20000, 0, 0, 0, 0));
    (void)summary_of(probe, 0);
    assert_ok(gradreg_probe_reset(probe));
    ck_assert_uint_eq(allocator.calls, calls);
    close_both(probe, context);
    counting_check(&allocator);
}
END_TEST

START_TEST(a_newer_callers_longer_rows_are_filled_at_their_own_stride)
{
    struct longer {
        gradreg_probe_layer row;
        uint64_t unknown[3];
    } rows[LAYERS];
    static const float z[2] = { 0.0f, 0.0f };
    gradreg_context *context = context_with(NULL, 1);
    gradreg_probe *probe = probe_with(context, 1, 0.5);
    memset(rows, 0x5a, sizeof(rows));
    rows[0].row.struct_size = sizeof(rows[0]);
    assert_ok(gradreg_probe_observe(probe, z, GRADREG_TYPE_F32, 1, 2, 0, 0, 4, 0));
    assert_ok(gradreg_probe_summary(probe, &rows[0].row, LAYERS));
    for (int32_t l = 0; l < LAYERS; l++) {
        ck_assert_int_eq(rows[l].row.layer, l);
        ck_assert_uint_eq(rows[l].row.struct_size, sizeof(rows[0]));
        for (size_t k = 0; k < 3; k++)
            ck_assert_uint_eq(rows[l].unknown[k], UINT64_C(0x5a5a5a5a5a5a5a5a));
    }
    ck_assert(rows[4].row.mean == 0.5);
    close_both(probe, context);
}
END_TEST

START_TEST(no_rows_are_fine)
{
    gradreg_context *context = context_with(NULL, 1);
    gradreg_probe *probe = probe_with(context, TRIALS, 0.5);
    assert_ok(gradreg_probe_inject(probe, NULL, GRADREG_TYPE_BF16, 0, 1, 0, 0, TRIALS));
    assert_ok(gradreg_probe_observe(probe, NULL, GRADREG_TYPE_F16, 0, 1, 0, 0, 0, TRIALS));
    ck_assert_uint_eq(summary_of(probe, 0).trials, 0);
    close_both(probe, context);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("probe");
    TCase *noise = tcase_create("noise"), *rows = tcase_create("rows");
    TCase *figures = tcase_create("figures");
    tcase_set_timeout(noise, 60);
    tcase_set_timeout(rows, 60);
    tcase_add_test(noise, noise_is_standard_normal);
    tcase_add_test(noise, trials_layers_seeds_and_elements_have_unrelated_noise);
    tcase_add_test(noise, noise_is_that_of_the_oracle);
    tcase_add_loop_test(rows, rows_move_by_their_own_rms, 0, LAST_TYPE);
    tcase_add_loop_test(rows, the_store_rounds_to_nearest_even, 0, LAST_TYPE);
    tcase_add_test(rows, f16_saturates_and_is_counted);
    tcase_add_loop_test(rows, rows_that_are_not_finite_are_left_alone_and_counted, 0,
                        LAST_TYPE);
    tcase_add_test(rows, zeros_stay_and_extremes_are_scaled);
    tcase_add_test(rows, no_noise_moves_nothing);
    tcase_add_loop_test(rows, batching_threads_paths_and_alignment_decide_nothing_about_noise,
                        0, LAST_TYPE);
    tcase_add_loop_test(rows,
                        batching_threads_paths_and_alignment_decide_nothing_about_statistics, 0,
                        LAST_TYPE);
    tcase_add_test(rows, the_hosts_floating_point_environment_decides_nothing);
    tcase_add_loop_test(figures, probabilities_and_statistics_are_those_of_two_passes, 0,
                        LAST_TYPE);
    tcase_add_test(figures, a_small_spread_of_large_probabilities_is_seen);
    tcase_add_test(figures, huge_and_absent_logits_have_probabilities);
    tcase_add_test(figures, rows_without_a_probability_are_counted_and_left_out);
    tcase_add_test(figures, the_baseline_is_a_mean_and_reset_forgets);
    tcase_add_test(figures, many_rows_are_taken_in_portions);
    tcase_add_test(figures, a_probe_holds_its_memory_from_the_start);
    tcase_add_test(figures, a_newer_callers_longer_rows_are_filled_at_their_own_stride);
    tcase_add_test(figures, no_rows_are_fine);
    suite_add_tcase(suite, noise);
    suite_add_tcase(suite, rows);
    suite_add_tcase(suite, figures);
    return run_suite(suite);
}
