/* check_probe.c - what the probe makes of a trace: probabilities, and the statistics of two passes.
 *
 * In: rows of logits. Out: summaries held against an oracle in double (oracle_probe.h), that neither
 * threads, vector paths, alignment, strides nor batching decide over a bit, and what the handle keeps,
 * forgets and allocates. What is added to rows: check_probe_noise.c. */
#include <math.h>
#include <string.h>

#include "oracle_probe.h"
#include "probe_rig.h"

/* ---- the same bits ------------------------------------------------------------------ */

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
    char *memory = batch_new(type, stride, shift), *rows = memory + shift * size;
    gradreg_probe *probe = probe_with(context, TRIALS, 0.5);
    typed_set(rows, type, 3 * stride + 4099, (double)NAN);
    for (size_t r = 0; r < BATCH_ROWS; r += at_a_time) {
        const size_t n = BATCH_ROWS - r < at_a_time ? BATCH_ROWS - r : at_a_time;
        assert_ok(gradreg_probe_observe(probe, rows + r * stride * size, type, n, BATCH_WIDTH,
                                        stride, 4097, 1, (int32_t)r));
    }
    assert_ok(gradreg_probe_observe(probe, rows, type, 1, BATCH_WIDTH, stride, 5,
                                    GRADREG_LAYER_NONE, -7));
    const uint64_t result = digest_summary(probe);
    assert_ok(gradreg_probe_destroy(probe));
    guarded_free(memory);
    return result;
}

START_TEST(batching_threads_paths_and_alignment_decide_nothing_about_statistics)
{
    const gradreg_type type = all_types[_i];
    gradreg_context *context = context_on("scalar", 1);
    const uint64_t want = observed(context, type, BATCH_WIDTH, 0, BATCH_ROWS);
    ck_assert_uint_eq(observed(context, type, BATCH_WIDTH, 0, 1), want);
    assert_ok(gradreg_context_destroy(context));
    for (size_t p = 0; p < PATHS; p++)
        for (int32_t threads = 1; threads <= 5; threads += 2) {
            context = context_on(paths[p], threads);
            if (context == NULL)
                continue;
            ck_assert_uint_eq(observed(context, type, BATCH_STRIDE, 3, BATCH_ROWS), want);
            ck_assert_uint_eq(observed(context, type, BATCH_STRIDE, 1, 4), want);
            assert_ok(gradreg_context_destroy(context));
        }
}
END_TEST

/* ---- observation ------------------------------------------------------------------- */

START_TEST(probabilities_and_statistics_are_those_of_two_passes)
{
    enum { MOST = 9001 };
    static const size_t sizes[] = { 1, 2, 31, 33, 255, 4096, 4097, MOST };
    const gradreg_type type = all_types[_i];
    gradreg_context *context = context_on(NULL, 2);
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
    gradreg_context *context = context_on(NULL, 1);
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
    gradreg_context *context = context_on(NULL, 1);
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
    gradreg_context *context = context_on(NULL, 1);
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
    gradreg_context *context = context_on(NULL, 1);
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
    gradreg_context *context = context_on(NULL, 3);
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
    assert_ok(test_context_create(&context, &params));
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
    gradreg_context *context = context_on(NULL, 1);
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
    gradreg_context *context = context_on(NULL, 1);
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
    TCase *figures = tcase_create("figures");
    tcase_set_timeout(figures, 60);
    add_loop_test(figures, batching_threads_paths_and_alignment_decide_nothing_about_statistics,
                  0, LAST_TYPE);
    add_loop_test(figures, probabilities_and_statistics_are_those_of_two_passes, 0, LAST_TYPE);
    tcase_add_test(figures, a_small_spread_of_large_probabilities_is_seen);
    tcase_add_test(figures, huge_and_absent_logits_have_probabilities);
    tcase_add_test(figures, rows_without_a_probability_are_counted_and_left_out);
    tcase_add_test(figures, the_baseline_is_a_mean_and_reset_forgets);
    tcase_add_test(figures, many_rows_are_taken_in_portions);
    tcase_add_test(figures, a_probe_holds_its_memory_from_the_start);
    tcase_add_test(figures, a_newer_callers_longer_rows_are_filled_at_their_own_stride);
    tcase_add_test(figures, no_rows_are_fine);
    suite_add_tcase(suite, figures);
    return run_suite(suite);
}
