/* check_logprobs.c - log-probs, entropies and their gradients from logits.
 *
 * In: rows of every type, size, stride and alignment, with everything in them that a model or a mask
 * produces. Out: each result within the bound that its arithmetic implies (logits_rig.h), the same bits
 * on every path and for every thread count, and nothing written or read that is not a row's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "logits_rig.h"

/* ---- numbers --------------------------------------------------------------------- */

static const size_t sizes[] = { 1,    2,    3,    15,   16,   17,    31,   32,   33,
                                127,  128,  129,  255,  256,  257,   1021, 1023, 1025,
                                4095, 4096, 4097, 8191, 8193, 12289, 70001 };
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

static void one_shape(gradreg_context *context, size_t n, gradreg_type type, int how,
                      double *worst)
{
    static const float temperatures[] = { 0.0f, 0.7f, 1.0f, 2.0f };
    static const double spreads[] = { 4.0, 0.01, 30.0, 200.0 };
    uint64_t state = test_seed() ^ n << 20 ^ (uint64_t)(how * 4 + type) << 50;
    const size_t rows = n > 5000 ? 2 : 4;
    logits_rig *rig = logits_rig_new(rows, n, type, how % 2 ? 0 : 5, (size_t)how / 2 % 2,
                                     spreads[how % 4], &state);
    char what[64];
    snprintf(what, sizeof(what), "%s, %zu logits, way %d", type_name(type), n, how);
    rig->params.temperature = temperatures[(how + (int)n) % 4];
    if (how == 3 && rows > 3)
        rig->targets[3] = -1;
    logits_rig_run(rig, context);
    *worst = fmax(*worst, logits_rig_check(rig, what));
    logits_rig_free(rig);
}

START_TEST(every_size_type_stride_and_alignment_stays_within_its_bound)
{
    gradreg_context *context = logits_context(2, NULL);
    const size_t n = sizes[_i];
    double worst = 0.0;
    for (int t = TEST_UNDER_TSAN ? _i % LAST_TYPE : 0; t < LAST_TYPE;
         t += TEST_UNDER_TSAN ? LAST_TYPE : 1)
        for (int how = 0; how < (n > 5000 ? 2 : 4); how++)
            one_shape(context, n, all_types[t], how, &worst);
    printf("%zu logits: worst error %.2f of its bound\n", n, worst);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(no_rows_are_no_work)
{
    gradreg_context *context = logits_context(1, NULL);
    const gradreg_logits_params none = GRADREG_LOGITS_PARAMS_INIT;
    assert_ok(gradreg_logprobs_forward(context, NULL, NULL, NULL, NULL, NULL, &none));
    assert_ok(
        gradreg_logprobs_backward(context, NULL, NULL, NULL, NULL, NULL, NULL, NULL, &none));
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- ends of the distribution ---------------------------------------------------- */

static double relative(double got, double want)
{
    return fabs(got - want) / fabs(want);
}

/* One logit `gap` above the others: H = ln(1 + (n-1) e^-gap) + gap (n-1) e^-gap / S. */
START_TEST(entropy_and_log_prob_keep_their_precision_near_one_hot)
{
    gradreg_context *context = logits_context(1, NULL);
    uint64_t state = 1;
    logits_rig *rig = logits_rig_new(1, 151936, GRADREG_TYPE_F32, 0, 0, 0.0, &state);
    float *const x = rig->logits;
    for (double gap = 1.0; gap < 80.0; gap *= 1.3) {
        for (size_t j = 0; j < 151936; j++)
            x[j] = 3.0f;
        x[77777] = 3.0f + (float)gap;
        rig->targets[0] = 77777;
        logits_rig_run(rig, context);
        const double d = (double)(x[77777] - 3.0f), others = 151935 * exp(-d);
        const double want = log1p(others) + d * others / (1 + others);
        ck_assert(relative((double)rig->entropy[0], want) < 4e-6);
        ck_assert(relative((double)rig->logp[0], -log1p(others)) < 4e-6);
    }
    logits_rig_free(rig);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(entropy_of_equal_logits_is_the_logarithm_of_their_number)
{
    gradreg_context *context = logits_context(1, NULL);
    for (int s = 0; s < SIZES; s++) {
        uint64_t state = 1;
        logits_rig *rig = logits_rig_new(1, sizes[s], GRADREG_TYPE_BF16, 0, 0, 0.0, &state);
        for (size_t j = 0; j < sizes[s]; j++)
            typed_set(rig->logits, GRADREG_TYPE_BF16, j, -1.5);
        logits_rig_run(rig, context);
        ck_assert(rig->entropy[0] == (float)log((double)sizes[s]));
        ck_assert(rig->logp[0] == (float)-log((double)sizes[s]));
        logits_rig_free(rig);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* A matrix product or a mask leaves zeros of both signs, which differ in their pattern alone. */
START_TEST(zeros_of_either_sign_are_one_logit)
{
    enum { N = 5000 };
    const gradreg_type type = all_types[_i];
    uint64_t state = 1, same = 1;
    gradreg_context *best = logits_context(1, NULL);
    const struct gradreg_context_info info = info_of(best);
    logits_rig *plain = logits_rig_new(1, N, type, 0, 0, 0.0, &state);
    logits_rig *mixed = logits_rig_new(1, N, type, 0, 0, 0.0, &same);
    plain->targets[0] = mixed->targets[0] = 33;
    for (size_t how = 0; how < 6; how++) {
        for (size_t j = 0; j < N; j++) {
            const double z = j % 11 != 0 ? -0.0625 * (double)(j % 11) : 0.0;
            typed_set(plain->logits, type, j, z);
            typed_set(mixed->logits, type, j, z == 0.0 && j % 3 == how % 3 ? -0.0 : z);
        }
        plain->params.temperature = mixed->params.temperature = how < 3 ? 1.0f : 0.7f;
        logits_rig_run(plain, best);
        logits_rig_check(plain, "zeros");
        for (int path = 0; path < 4 && strcmp(paths[path], info.vector_path) <= 0; path++) {
            gradreg_context *context = logits_context(1, paths[path]);
            logits_rig_run(mixed, context);
            logits_rig_same(mixed, plain, paths[path]);
            assert_ok(gradreg_context_destroy(context));
        }
    }
    logits_rig_free(mixed);
    logits_rig_free(plain);
    assert_ok(gradreg_context_destroy(best));
}
END_TEST

/* A constant added to all logits, exactly, changes log_sum_exp and nothing else. */
START_TEST(logits_of_ten_thousand_are_as_good_as_small_ones)
{
    static const float shifts[] = { 8192.0f, -8192.0f, 0x1p+20f };
    gradreg_context *context = logits_context(1, NULL);
    for (int s = 0; s < 3; s++) {
        uint64_t state = 5;
        logits_rig *small = logits_rig_new(3, 5000, GRADREG_TYPE_F32, 0, 0, 0.0, &state);
        logits_rig *large = logits_rig_new(3, 5000, GRADREG_TYPE_F32, 0, 0, 0.0, &state);
        for (size_t i = 0; i < 15000; i++) {
            const float x =
                (float)(next_word(&state) % 256) / 8.0f; /* exact with every shift */
            ((float *)small->logits)[i] = x;
            ((float *)large->logits)[i] = x + shifts[s];
        }
        memcpy(large->targets, small->targets, 3 * sizeof(int32_t));
        logits_rig_run(small, context);
        logits_rig_run(large, context);
        for (size_t r = 0; r < 3; r++) {
            ck_assert(small->logp[r] == large->logp[r]);
            ck_assert(small->entropy[r] == large->entropy[r]);
        }
        logits_rig_check(large, "shifted");
        logits_rig_free(small);
        logits_rig_free(large);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(logits_at_the_ends_of_the_range_give_numbers)
{
    gradreg_context *context = logits_context(1, NULL);
    uint64_t state = 6;
    logits_rig *rig = logits_rig_new(2, 300, GRADREG_TYPE_F32, 0, 0, 1.0, &state);
    float *const x = rig->logits;
    for (size_t j = 0; j < 300; j++) {
        x[j] = j % 2 ? 3.4e38f : -3.4e38f;
        x[300 + j] = j % 3 ? -1e4f : 1e4f;
    }
    rig->targets[0] = 1;
    rig->targets[1] = 3;
    logits_rig_run(rig, context);
    ck_assert(rig->entropy[0] == (float)log(150.0) && rig->logp[0] == (float)-log(150.0));
    ck_assert(rig->entropy[1] == (float)log(100.0) && rig->logp[1] == (float)-log(100.0));
    ck_assert(((float *)rig->dlogits)[0] == 0.0f && ((float *)rig->dlogits)[301] == 0.0f);
    logits_rig_free(rig);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- masks and what is no number ------------------------------------------------- */

START_TEST(a_logit_of_minus_infinity_has_no_probability_and_no_gradient) /* T14 */
{
    gradreg_context *context = logits_context(1, NULL);
    for (int t = 0; t < LAST_TYPE; t++) {
        uint64_t state = 7;
        const gradreg_type type = all_types[t];
        logits_rig *rig = logits_rig_new(3, 9001, type, 0, 1, 3.0, &state);
        for (size_t r = 0; r < 3; r++)
            for (size_t j = 0; j < 9001; j++) /* a whole block of them, too */
                if ((j < 4500 || next_word(&state) % 3 == 0) && j != (size_t)rig->targets[r])
                    typed_set(rig->logits, type, r * 9001 + j, (double)-INFINITY);
        logits_rig_run(rig, context);
        logits_rig_check(rig, "masked");
        for (size_t i = 0; i < 3 * 9001; i++)
            if (isinf(typed_get(rig->logits, type, i)) &&
                typed_get(rig->dlogits, type, i) != 0.0)
                ck_abort_msg("masked logit %zu has a gradient", i);
        logits_rig_free(rig);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(a_masked_target_has_log_prob_minus_infinity_and_still_no_gradient)
{
    gradreg_context *context = logits_context(1, NULL);
    uint64_t state = 8;
    logits_rig *rig = logits_rig_new(1, 100, GRADREG_TYPE_F32, 0, 0, 3.0, &state);
    ((float *)rig->logits)[rig->targets[0]] = -HUGE_VALF;
    logits_rig_run(rig, context);
    ck_assert(rig->logp[0] == -HUGE_VALF && isfinite(rig->entropy[0]));
    ck_assert(((float *)rig->dlogits)[rig->targets[0]] == 0.0f);
    for (size_t j = 0; j < 100; j++)
        ck_assert(isfinite(((float *)rig->dlogits)[j]));
    logits_rig_free(rig);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

static void spoil(logits_rig *rig, int how, size_t at)
{
    const gradreg_type type = rig->params.type;
    const type_format *format = type_format_of(type);
    const uint32_t quiet = 1u << (format->fraction - 1);
    if (how == 0)
        typed_set_bits(rig->logits, type, at, format->infinity | quiet | 1u);
    else if (how == 1)
        typed_set_bits(rig->logits, type, at, format->bytes == 4 ? 0xffffffffu : 0xffffu);
    else if (how == 2)
        typed_set(rig->logits, type, at, (double)INFINITY);
    else
        for (size_t j = 0; j < rig->params.vocabulary; j++)
            typed_set(rig->logits, type, rig->stride + j, (double)-INFINITY);
}

/* Row 1 of three; the others stay what they were. */
static void one_bad_row(gradreg_context *context, gradreg_type type, int how, size_t at)
{
    const size_t n = 4500;
    uint64_t state = 9;
    logits_rig *want = logits_rig_new(3, n, type, 0, 0, 3.0, &state);
    state = 9;
    logits_rig *rig = logits_rig_new(3, n, type, 0, 0, 3.0, &state);
    logits_rig_run(want, context);
    spoil(rig, how, n + at);
    logits_rig_run(rig, context);
    ck_assert(isnan(rig->logp[1]) && isnan(rig->entropy[1]) && isnan(rig->log_sum_exp[1]));
    for (size_t j = 0; j < n; j++)
        if (!isnan(typed_get(rig->dlogits, type, n + j)))
            ck_abort_msg("way %d: element %zu is a number", how, j);
    rig->dlogp[1] = rig->dentropy[1] = 0.0f;
    logits_rig_run(rig, context);
    for (size_t j = 0; j < n; j++)
        if (typed_bits(rig->dlogits, type, n + j) != 0)
            ck_abort_msg("way %d: element %zu is not 0", how, j);
    for (size_t r = 0; r < 3; r += 2) {
        ck_assert(rig->logp[r] == want->logp[r] && rig->entropy[r] == want->entropy[r]);
        ck_assert(memcmp((char *)rig->dlogits + r * n * type_bytes(type),
                         (char *)want->dlogits + r * n * type_bytes(type),
                         n * type_bytes(type)) == 0);
    }
    logits_rig_free(rig);
    logits_rig_free(want);
}

/* Half a temperature takes -3e38 out of fp32's range, downwards. */
START_TEST(a_logit_below_the_range_is_a_masked_one)
{
    gradreg_context *context = logits_context(1, NULL);
    gradreg_logits_params params = GRADREG_LOGITS_PARAMS_INIT;
    const float dlogp[2] = { 1.0f, -2.0f }, dentropy[2] = { 0.5f, 0.25f };
    const int32_t targets[2] = { 0, 1 }; /* the second row's target is the masked one */
    float numbers[2][3][2], slopes[2][2 * 5];
    params.rows = 2;
    params.vocabulary = 5;
    params.temperature = 0.5f;
    for (int k = 0; k < 2; k++) {
        const float low = k == 0 ? -3e38f : -HUGE_VALF;
        const float x[2 * 5] = { 1.0f, low, 2.0f, low, -1.0f, 0.5f, low, 0.25f, 3.0f, low };
        assert_ok(gradreg_logprobs_forward(context, numbers[k][0], numbers[k][1], numbers[k][2],
                                           x, targets, &params));
        assert_ok(gradreg_logprobs_backward(context, slopes[k], x, targets, numbers[k][2],
                                            numbers[k][1], dlogp, dentropy, &params));
    }
    ck_assert_mem_eq(numbers[0], numbers[1], sizeof(numbers[0]));
    ck_assert_mem_eq(slopes[0], slopes[1], sizeof(slopes[0]));
    ck_assert(isfinite(numbers[0][0][0]) && numbers[0][0][1] == -HUGE_VALF);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(a_row_without_a_distribution_is_nan_and_zeros_where_nothing_asks)
{
    static const size_t places[] = { 0, 1, 17, 4095, 4096, 4499 };
    for (int path = 0; path < 4; path++) {
        gradreg_context *best = logits_context(1, NULL);
        const struct gradreg_context_info info = info_of(best);
        assert_ok(gradreg_context_destroy(best));
        if (strcmp(info.vector_path, paths[path]) < 0 && path > 0)
            continue;
        gradreg_context *context = logits_context(1, paths[path]);
        for (int t = 0; t < LAST_TYPE; t++)
            for (int how = 0; how < 4; how++)
                for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
                    one_bad_row(context, all_types[t], how, places[i]);
        assert_ok(gradreg_context_destroy(context));
    }
}
END_TEST

START_TEST(padding_rows_and_gaps_are_never_read)
{
    gradreg_context *context = logits_context(1, NULL);
    for (int t = 0; t < LAST_TYPE; t++) {
        uint64_t state = 10;
        logits_rig *rig = logits_rig_new(5, 700, all_types[t], 3, 0, 3.0, &state);
        rig->targets[1] = rig->targets[4] = -1;
        for (size_t j = 0; j < 700; j++) {
            typed_set_bits(rig->logits, all_types[t], rig->stride + j, 0xffffffffu);
            typed_set_bits(rig->logits, all_types[t], 4 * rig->stride + j, 0xffffffffu);
        }
        logits_rig_run(rig, context); /* gaps are NaN, too */
        logits_rig_check(rig, "padding");
        logits_rig_free(rig);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- how the call is made -------------------------------------------------------- */

START_TEST(the_gradient_may_replace_the_logits)
{
    gradreg_context *context = logits_context(2, NULL);
    for (int s = 0; s < SIZES; s++)
        for (int t = 0; t < LAST_TYPE; t++) {
            uint64_t state = 11;
            logits_rig *rig = logits_rig_new(3, sizes[s], all_types[t], 2, 1, 3.0, &state);
            logits_rig_run(rig, context);
            assert_ok(gradreg_logprobs_backward(context, rig->logits, rig->logits, rig->targets,
                                                rig->log_sum_exp, rig->entropy, rig->dlogp,
                                                rig->dentropy, &rig->params));
            for (size_t r = 0; r < 3; r++) {
                const size_t at = r * rig->stride * type_bytes(all_types[t]);
                ck_assert(memcmp((char *)rig->logits + at, (char *)rig->dlogits + at,
                                 sizes[s] * type_bytes(all_types[t])) == 0);
            }
            logits_rig_free(rig);
        }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(what_is_not_asked_for_changes_nothing_else)
{
    gradreg_context *context = logits_context(1, NULL);
    uint64_t state = 12;
    logits_rig *rig = logits_rig_new(7, 5003, GRADREG_TYPE_F32, 0, 0, 3.0, &state);
    float logp[7], lse[7];
    logits_rig_run(rig, context);
    assert_ok(gradreg_logprobs_forward(context, logp, NULL, NULL, rig->logits, rig->targets,
                                       &rig->params));
    ck_assert(memcmp(logp, rig->logp, sizeof(logp)) == 0);
    assert_ok(gradreg_logprobs_forward(context, logp, NULL, lse, rig->logits, rig->targets,
                                       &rig->params));
    ck_assert(memcmp(lse, rig->log_sum_exp, sizeof(lse)) == 0);
    /* no dentropy is a dentropy of 0 */
    for (size_t r = 0; r < 7; r++)
        rig->dentropy[r] = 0.0f;
    logits_rig_run(rig, context);
    float *without = guarded_new(rig->bytes, 0);
    assert_ok(gradreg_logprobs_backward(context, without, rig->logits, rig->targets,
                                        rig->log_sum_exp, NULL, rig->dlogp, NULL,
                                        &rig->params));
    ck_assert(memcmp(without, rig->dlogits, rig->bytes) == 0);
    guarded_free(without);
    logits_rig_free(rig);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* Values of every kind, a row in three with -inf, one with NaN. */
static logits_rig *motley(size_t n, gradreg_type type, size_t off, uint64_t seed)
{
    uint64_t state = test_seed() ^ seed << 32;
    logits_rig *rig = logits_rig_new(6, n, type, 1, off, 6.0, &state);
    rig->params.temperature = seed % 2 ? 0.9f : 1.0f;
    for (size_t j = 0; j < n; j++)
        if (next_word(&state) % 2)
            typed_set(rig->logits, type, 2 * rig->stride + j, (double)-INFINITY);
    typed_set(rig->logits, type, 3 * rig->stride + n / 2, (double)NAN);
    for (size_t j = 0; j < n; j++) /* any pattern at all */
        typed_set_bits(rig->logits, type, 4 * rig->stride + j, next_pattern(&state, type));
    return rig;
}

/* Without entropy and its gradient, which are loops of their own: the log-probs that the whole call has,
 * and one gradient. */
static float *run_plain(logits_rig *rig, gradreg_context *context)
{
    const size_t rows = rig->params.rows;
    float *logp = guarded_new(rows * sizeof(float), 0);
    float *log_sum_exp = guarded_new(rows * sizeof(float), 0);
    float *dlogits = guarded_new(rig->bytes, 0);
    memset(dlogits, 0, rig->bytes);
    assert_ok(gradreg_logprobs_forward(context, logp, NULL, log_sum_exp, rig->logits,
                                       rig->targets, &rig->params));
    ck_assert(memcmp(logp, rig->logp, rows * sizeof(float)) == 0);
    ck_assert(memcmp(log_sum_exp, rig->log_sum_exp, rows * sizeof(float)) == 0);
    assert_ok(gradreg_logprobs_backward(context, dlogits, rig->logits, rig->targets,
                                        log_sum_exp, NULL, rig->dlogp, NULL, &rig->params));
    guarded_free(logp);
    guarded_free(log_sum_exp);
    return dlogits;
}

static void same_plain(logits_rig *got, gradreg_context *context, logits_rig *want,
                       gradreg_context *one, const char *path)
{
    float *a = run_plain(got, context), *b = run_plain(want, one);
    if (memcmp(a, b, got->bytes) != 0)
        ck_abort_msg("%s: another gradient without entropy", path);
    guarded_free(a);
    guarded_free(b);
}

START_TEST(every_path_thread_count_and_alignment_has_the_same_bits)
{
    gradreg_context *one = logits_context(1, "scalar"), *best = logits_context(1, NULL);
    const struct gradreg_context_info info = info_of(best);
    for (int path = 0; path < 4 && strcmp(paths[path], info.vector_path) <= 0; path++)
        for (int32_t threads = 1; threads <= 3; threads += 2) {
            gradreg_context *context = logits_context(threads, paths[path]);
            for (int s = _i; s < SIZES; s += 3)
                for (int t = 0; t < LAST_TYPE; t++) {
                    logits_rig *want = motley(sizes[s], all_types[t], 0, (uint64_t)s + 1);
                    logits_rig *got =
                        motley(sizes[s], all_types[t], (size_t)threads / 2, (uint64_t)s + 1);
                    logits_rig_run(want, one);
                    logits_rig_run(got, context);
                    logits_rig_same(got, want, paths[path]);
                    same_plain(got, context, want, one, paths[path]);
                    logits_rig_free(want);
                    logits_rig_free(got);
                }
            assert_ok(gradreg_context_destroy(context));
        }
    assert_ok(gradreg_context_destroy(one));
    assert_ok(gradreg_context_destroy(best));
}
END_TEST

/* ---- derivatives ----------------------------------------------------------------- */

/* dlogp logp + dentropy H as a function of the logits. */
static double value(const double *x, size_t n, double temperature, int32_t target, double dlogp,
                    double dentropy)
{
    double z[64];
    for (size_t j = 0; j < n; j++)
        z[j] = x[j] / temperature;
    const oracle_logits o = oracle_logits_row(z, n, (size_t)target);
    return dlogp * o.logp + dentropy * o.entropy;
}

START_TEST(gradients_are_central_differences_of_what_they_differentiate)
{
    enum { N = 37 };
    gradreg_context *context = logits_context(1, NULL);
    uint64_t state = test_seed() ^ 13;
    for (int i = 0; i < 200; i++) {
        logits_rig *rig = logits_rig_new(1, N, GRADREG_TYPE_F32, 0, 0, 4.0, &state);
        const double t = 0.5 + next_unit(&state), h = 1e-4;
        double x[N];
        rig->params.temperature = (float)t;
        logits_rig_run(rig, context);
        for (size_t j = 0; j < N; j++)
            x[j] = (double)((float *)rig->logits)[j];
        for (size_t j = 0; j < N; j++) {
            const double at = x[j], c = (double)rig->dlogp[0], d = (double)rig->dentropy[0];
            x[j] = at + h;
            const double above =
                value(x, N, (double)rig->params.temperature, rig->targets[0], c, d);
            x[j] = at - h;
            const double below =
                value(x, N, (double)rig->params.temperature, rig->targets[0], c, d);
            x[j] = at;
            const double want = (above - below) / (2 * h);
            const double got = (double)((float *)rig->dlogits)[j];
            if (!(fabs(got - want) < 1e-5 * (1e-2 + fabs(want))))
                ck_abort_msg("%zu: %.9g, difference %.9g", j, got, want);
        }
        logits_rig_free(rig);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(a_gradient_row_sums_to_zero)
{
    gradreg_context *context = logits_context(1, NULL);
    uint64_t state = test_seed() ^ 14;
    logits_rig *rig = logits_rig_new(6, 30011, GRADREG_TYPE_F32, 0, 0, 5.0, &state);
    logits_rig_run(rig, context);
    for (size_t r = 0; r < 6; r++) {
        double sum = 0.0;
        for (size_t j = 0; j < 30011; j++)
            sum += (double)((float *)rig->dlogits)[r * 30011 + j];
        /* the half ulp of log_sum_exp, in p of every element but in none of the target's 1 */
        ck_assert(fabs(sum) < 3e-6 * (1.0 + fabs((double)rig->log_sum_exp[r]) / 8.0));
    }
    logits_rig_free(rig);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("logprobs");
    TCase *tc = tcase_create("core");
    tcase_set_timeout(tc, 120);
    add_loop_test(tc, every_size_type_stride_and_alignment_stays_within_its_bound, 0, SIZES);
    tcase_add_test(tc, no_rows_are_no_work);
    tcase_add_test(tc, entropy_and_log_prob_keep_their_precision_near_one_hot);
    tcase_add_test(tc, entropy_of_equal_logits_is_the_logarithm_of_their_number);
    add_loop_test(tc, zeros_of_either_sign_are_one_logit, 0, LAST_TYPE);
    tcase_add_test(tc, logits_of_ten_thousand_are_as_good_as_small_ones);
    tcase_add_test(tc, logits_at_the_ends_of_the_range_give_numbers);
    tcase_add_test(tc, a_logit_of_minus_infinity_has_no_probability_and_no_gradient);
    tcase_add_test(tc, a_masked_target_has_log_prob_minus_infinity_and_still_no_gradient);
    tcase_add_test(tc, a_logit_below_the_range_is_a_masked_one);
    tcase_add_test(tc, a_row_without_a_distribution_is_nan_and_zeros_where_nothing_asks);
    tcase_add_test(tc, padding_rows_and_gaps_are_never_read);
    tcase_add_test(tc, the_gradient_may_replace_the_logits);
    tcase_add_test(tc, what_is_not_asked_for_changes_nothing_else);
    add_loop_test(tc, every_path_thread_count_and_alignment_has_the_same_bits, 0, 3);
    tcase_add_test(tc, gradients_are_central_differences_of_what_they_differentiate);
    tcase_add_test(tc, a_gradient_row_sums_to_zero);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
