/* check_between_steps.c - what lasts from one step of the regularizer to the next: the interval's count,
 * the correction that is reused, settings, losses; and suggestions, after which nothing has changed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "state_rig.h"

/* ---- what a step is --------------------------------------------------------------- */

enum ending { COMBINED, FELL_BACK, CANCELLED, BAD_SECOND };

static void gradients(rig *r, uint64_t seed, bool is_first)
{
    rig_gradient(r, seed, is_first);
}

/* Returns whether it counts as a step. */
static int run_step(rig *r, uint64_t seed, enum ending ending)
{
    const int32_t passes = rig_passes(r);

    gradients(r, seed, true);
    for (int32_t pass = 0; pass < passes; pass++) {
        assert_ok(make_call(r, pass == 0 ? PERTURB : MIRROR));
        gradients(r, seed + 1 + (uint64_t)pass, false);
    }
    if (ending == BAD_SECOND)
        typed_set(r->piece[RIG_GRADS][1], r->params.grad_type, 3, (double)INFINITY);
    if (ending == CANCELLED || (ending == FELL_BACK && passes == 0)) {
        assert_ok(make_call(r, CANCEL));
        return 0;
    }
    assert_ok(make_call(r, ending == FELL_BACK ? FALLBACK : COMBINE));
    return 1;
}

static void plain_step(rig *r, uint64_t seed)
{
    ck_assert_int_eq(run_step(r, seed, COMBINED), 1);
}

/* Multiples of the interval are asked for, whatever becomes of them. */
START_TEST(passes_are_a_function_of_the_count)
{
    gradreg_regularizer_params p = plain_params();
    uint64_t state = test_seed() + (uint64_t)_i, count = 0;

    p.interval = 1 + _i % 4;
    p.difference = _i / 4 == 0 ? GRADREG_DIFFERENCE_FORWARD : GRADREG_DIFFERENCE_CENTRAL;
    p.min_fidelity = _i % 2 == 0 ? 0 : 1.0; /* never reached: every correction is dropped */
    rig *r = open_rig(&p);
    for (int k = 0; k < 60; k++) {
        const bool asks = count % (uint64_t)p.interval == 0;
        ck_assert_int_eq(rig_passes(r), asks ? _i / 4 + 1 : 0);
        if (k % 7 == 3)
            assert_ok(gradreg_regularizer_set_step(r->reg, next_word(&state) % 1000));
        count += (uint64_t)run_step(r, 10 * (uint64_t)k, (enum ending)(next_word(&state) % 4));
    }
    ck_assert_uint_gt(count, 20);
    rig_close(r);
}
END_TEST

START_TEST(steps_are_counted_and_cancelled_ones_are_not)
{
    gradreg_regularizer_params p = plain_params();
    rig *r = open_rig(&p);

    ck_assert_uint_eq(rig_terms(r).step, 0);
    ck_assert(isnan(rig_terms(r).first_norm));
    plain_step(r, 1);
    ck_assert_uint_eq(rig_terms(r).step, 1);
    (void)run_step(r, 4, CANCELLED);
    ck_assert_uint_eq(rig_terms(r).step, 1);
    (void)run_step(r, 7, FELL_BACK);
    ck_assert_uint_eq(rig_terms(r).step, 2);
    assert_ok(gradreg_regularizer_set_step(r->reg, 70));
    ck_assert_uint_eq(rig_terms(r).step, 2); /* still the report on that step */
    plain_step(r, 9);
    ck_assert_uint_eq(rig_terms(r).step, 71);
    rig_close(r);
}
END_TEST

/* ---- reuse ------------------------------------------------------------------------ */

static double *values(const rig *r, enum rig_buffer buffer)
{
    const gradreg_type type = rig_type(r, buffer, 0);
    const size_t n = rig_bytes(r, buffer) / type_bytes(type);
    char *all = rig_gather(r, buffer);
    double *out = calloc(n, sizeof(double));

    ck_assert_ptr_nonnull(out);
    for (size_t i = 0; i < n; i++)
        out[i] = typed_get(all, type, i);
    free(all);
    return out;
}

enum { PERTURBED_ELEMENTS = 535, REGULARIZED_FROM = 300, ELEMENTS = 575 };

static double norm(const double *x, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum);
}

/* h = (g2 - g1) / ||delta|| of the last good recomputation; then g1 + kappa ||u|| / nu h with the
 * strength and the gradient of the step that reuses it. */
START_TEST(reused_corrections_follow_the_formula)
{
    static const enum ending endings[] = { COMBINED, FELL_BACK, BAD_SECOND, CANCELLED };
    gradreg_regularizer_params p = plain_params();
    const enum ending spoilt = endings[_i % 4];

    p.interval = 2;
    p.penalty = _i / 4 == 0 ? GRADREG_PENALTY_SQUARED_NORM : GRADREG_PENALTY_NORM;
    rig *r = open_rig(&p);
    gradients(r, 1, true);
    double *g1 = values(r, RIG_GRADS);
    assert_ok(make_call(r, PERTURB));
    gradients(r, 2, false);
    double *g2 = values(r, RIG_GRADS);
    assert_ok(make_call(r, COMBINE));
    const double delta = p.epsilon * norm(g1, PERTURBED_ELEMENTS);
    /* A second recomputation that comes to nothing, twice two steps on. */
    if (spoilt != COMBINED) {
        plain_step(r, 5);
        (void)run_step(r, 7, spoilt);
        if (spoilt == CANCELLED)
            (void)run_step(r, 8, FELL_BACK);
    }
    assert_ok(gradreg_regularizer_set_strength(r->reg, 0.5));
    ck_assert_int_eq(rig_passes(r), 0);
    gradients(r, 9, true);
    double *today = values(r, RIG_GRADS);
    const double u = norm(today, PERTURBED_ELEMENTS);
    assert_ok(make_call(r, COMBINE));
    double *updated = values(r, RIG_GRADS);
    for (size_t i = 0; i < ELEMENTS; i++) {
        const bool corrects = i >= REGULARIZED_FROM && i < PERTURBED_ELEMENTS;
        const double nu = p.penalty == GRADREG_PENALTY_NORM ? u : 1.0;
        const double correction = corrects ? 0.5 * u / nu * (g2[i] - g1[i]) / delta : 0.0;
        ck_assert_double_eq_tol(updated[i], today[i] + correction,
                                1e-6 * (fabs(today[i]) + fabs(correction)) + 1e-12);
    }
    ck_assert_double_eq_tol(rig_terms(r).strength, 0.5, 1e-15);
    ck_assert(isnan(rig_terms(r).second_norm));
    ck_assert_double_gt(rig_terms(r).correction_share, 0.001);
    free(updated);
    free(today);
    free(g2);
    free(g1);
    rig_close(r);
}
END_TEST

START_TEST(before_any_correction_reuse_gives_the_gradient)
{
    gradreg_regularizer_params p = plain_params();

    p.interval = 3;
    rig *r = open_rig(&p);
    (void)run_step(r, 1, _i == 0 ? FELL_BACK : BAD_SECOND);
    gradients(r, 2, true);
    char *g1 = rig_gather(r, RIG_GRADS);
    assert_ok(make_call(r, COMBINE));
    rig_assert(r, RIG_GRADS, g1, "g_hat");
    free(g1);
    rig_close(r);
}
END_TEST

/* ---- settings --------------------------------------------------------------------- */

START_TEST(settings_take_effect_until_perturb)
{
    gradreg_regularizer_params p = plain_params();

    p.noise.rule = GRADREG_NOISE_RELATIVE;
    p.warmup = GRADREG_WARMUP_LINEAR;
    p.warmup_steps = 10;
    rig *r = open_rig(&p);
    assert_ok(gradreg_regularizer_set_strength(r->reg, 2.0));
    assert_ok(gradreg_regularizer_set_step(r->reg, 5));
    plain_step(r, 1);
    ck_assert_double_eq(rig_terms(r).strength, 2.0 * 5 / 10);
    ck_assert_double_eq(rig_terms(r).effective_epsilon, p.epsilon);
    assert_ok(make_call(r, INJECT)); /* noisy: still time */
    assert_ok(gradreg_regularizer_set_strength(r->reg, 4.0));
    assert_ok(gradreg_regularizer_set_epsilon(r->reg, 0.25));
    assert_ok(gradreg_regularizer_set_step(r->reg, 8));
    gradients(r, 2, true);
    assert_ok(make_call(r, PERTURB));
    assert_status(gradreg_regularizer_set_strength(r->reg, 8.0), GRADREG_ERROR_STATE);
    assert_status(gradreg_regularizer_set_epsilon(r->reg, 8.0), GRADREG_ERROR_STATE);
    assert_status(gradreg_regularizer_set_step(r->reg, 0), GRADREG_ERROR_STATE);
    gradients(r, 3, false);
    assert_ok(make_call(r, COMBINE));
    ck_assert_double_eq(rig_terms(r).strength, 4.0 * 8 / 10);
    ck_assert_double_eq(rig_terms(r).effective_epsilon, 0.25);
    ck_assert_uint_eq(rig_terms(r).step, 9);
    rig_close(r);
}
END_TEST

/* ---- losses ----------------------------------------------------------------------- */

static gradreg_status observe(rig *r, float first, float second)
{
    const gradreg_status status = gradreg_regularizer_observe_losses(r->reg, &first, &second);

    backend_wait(); /* they are read when the stream gets there, and live no longer than this call */
    return status;
}

START_TEST(losses_belong_to_the_step_just_combined)
{
    gradreg_regularizer_params p = plain_params();

    p.interval = 2;
    p.noise.rule = GRADREG_NOISE_RELATIVE;
    rig *r = open_rig(&p);
    assert_status(observe(r, 1, 2), GRADREG_ERROR_STATE); /* no step yet */
    plain_step(r, 1);
    ck_assert(isnan(rig_terms(r).first_order_ratio));
    assert_ok(observe(r, 1.0f, 1.5f));
    const double ratio = rig_terms(r).first_order_ratio;
    ck_assert_double_gt(ratio, 0.0);
    assert_ok(observe(r, 1.0f, 2.0f)); /* the same step once more */
    ck_assert_double_eq_tol(rig_terms(r).first_order_ratio, 2 * ratio, 1e-12 * ratio);
    assert_ok(make_call(r, CANCEL)); /* at rest: nothing happens */
    assert_ok(make_call(r, INJECT));
    assert_status(observe(r, 1, 2), GRADREG_ERROR_STATE); /* not at rest */
    assert_ok(make_call(r, REMOVE));
    assert_ok(observe(r, 1.0f, 1.5f)); /* no other step has begun */
    ck_assert_double_eq_tol(rig_terms(r).first_order_ratio, ratio, 1e-12 * ratio);
    plain_step(r, 2); /* reuses: had no second pass */
    assert_status(observe(r, 1, 2), GRADREG_ERROR_STATE);
    gradients(r, 3, true);
    assert_ok(make_call(r, PERTURB));
    assert_status(observe(r, 1, 2), GRADREG_ERROR_STATE);
    assert_ok(make_call(r, FALLBACK));
    assert_status(observe(r, 1, 2), GRADREG_ERROR_STATE);
    plain_step(r, 4);
    plain_step(r, 5);
    assert_ok(make_call(r, SAVE));
    assert_ok(observe(r, 1.0f, 1.5f));
    assert_ok(make_call(r, LOAD));
    assert_status(observe(r, 1, 2), GRADREG_ERROR_STATE); /* another past */
    rig_close(r);
}
END_TEST

/* (L2 - L1) / <g1, theta' - theta>, for three directions; undefined where nothing moved. */
START_TEST(the_first_order_ratio_has_its_value)
{
    gradreg_regularizer_params p = plain_params();
    double slope = 0;

    p.direction = _i == 0 ? GRADREG_DIRECTION_GRADIENT : GRADREG_DIRECTION_RADEMACHER + _i - 1;
    rig *r = open_rig(&p);
    double *theta = values(r, RIG_PARAMS);
    gradients(r, 1, true);
    double *g1 = values(r, RIG_GRADS);
    assert_ok(make_call(r, PERTURB));
    double *there = values(r, RIG_PARAMS);
    for (size_t i = 0; i < ELEMENTS; i++)
        slope += g1[i] * (there[i] - theta[i]);
    gradients(r, 2, false);
    assert_ok(make_call(r, COMBINE));
    assert_ok(observe(r, 3.0f, 3.25f));
    ck_assert_double_eq_tol(rig_terms(r).first_order_ratio, 0.25 / slope,
                            1e-5 * fabs(0.25 / slope));
    for (size_t s = 0; s < SEGMENTS; s++)
        for (size_t i = 0; i < table[s].count; i++)
            typed_set(r->piece[RIG_GRADS][s], GRADREG_TYPE_F32, i, 0.0);
    assert_ok(make_call(r, PERTURB));
    assert_ok(make_call(r, COMBINE));
    assert_ok(observe(r, 3.0f, 3.25f));
    ck_assert(_i > 0 || isnan(rig_terms(r).first_order_ratio));
    free(there);
    free(g1);
    free(theta);
    rig_close(r);
}
END_TEST

/* ---- suggestions ------------------------------------------------------------------ */

static gradreg_regularizer_params suggest_params(int i)
{
    gradreg_regularizer_params p = plain_params();

    p.step = GRADREG_STEP_RAW + i % LAST_STEP;
    p.depth = i / 3 % 2 == 0 ? GRADREG_DEPTH_ON_UPDATE : GRADREG_DEPTH_ON_PENALTY;
    p.difference = i % 2 == 0 ? GRADREG_DIFFERENCE_FORWARD : GRADREG_DIFFERENCE_CENTRAL;
    p.param_type = GRADREG_TYPE_BF16;
    p.compute_type = i % 4 == 3 ? GRADREG_TYPE_F16 : 0;
    p.clip_first = p.clip_second = i % 4 == 2 ? 0.5 : 0;
    p.placement = i / 6 == 1 ? GRADREG_PLACEMENT_OUT_OF_PLACE : GRADREG_PLACEMENT_IN_PLACE;
    p.direction = i == 10 ? GRADREG_DIRECTION_GAUSSIAN : GRADREG_DIRECTION_GRADIENT;
    p.rounding = i == 7 ? GRADREG_ROUNDING_STOCHASTIC : GRADREG_ROUNDING_NEAREST;
    p.interval = i == 8 ? 2 : 1;
    p.noise.rule = GRADREG_NOISE_NEFTUNE;
    return p;
}

/* Everything that can be seen, before and after. */
struct sight {
    char *buffer[RIG_BUFFERS], *saved;
    double *rows;
    size_t saved_bytes;
    enum state state;
};

static struct sight look(rig *r)
{
    struct sight s = { { NULL }, NULL, rig_rows(r), 0, state_of(r) };

    for (int b = 0; b < RIG_BUFFERS; b++)
        s.buffer[b] = r->piece[b] != NULL ? rig_gather(r, (enum rig_buffer)b) : NULL;
    assert_ok(gradreg_regularizer_state_bytes(r->reg, &s.saved_bytes));
    s.saved = calloc(1, s.saved_bytes);
    if (s.state == IDLE)
        assert_ok(gradreg_regularizer_state_save(r->reg, s.saved, s.saved_bytes));
    return s;
}

static void compare_and_forget(rig *r, struct sight *before)
{
    struct sight now = look(r);

    ck_assert_int_eq(now.state, before->state);
    ck_assert_int_eq(memcmp(now.saved, before->saved, now.saved_bytes), 0);
    ck_assert_int_eq(memcmp(now.rows, before->rows, rig_rows_bytes(r)), 0);
    for (int b = 0; b < RIG_BUFFERS; b++) {
        if (now.buffer[b] != NULL)
            rig_assert(r, (enum rig_buffer)b, before->buffer[b], "a buffer");
        free(now.buffer[b]);
        free(before->buffer[b]);
    }
    free(now.saved);
    free(now.rows);
    free(before->saved);
    free(before->rows);
}

/* Perturbing with the answer reaches the target, and half an octave less does not. */
static void verify_answer(rig *r, double epsilon, double target)
{
    for (int k = 0; k < 2; k++) {
        const double tried = k == 0 ? epsilon : epsilon / sqrt(2.0);
        assert_ok(gradreg_regularizer_set_epsilon(r->reg, tried));
        gradients(r, 40, true);
        assert_ok(make_call(r, PERTURB));
        assert_ok(make_call(r, FALLBACK)); /* reports the step that was taken */
        const double cosine = rig_terms(r).applied_cosine;
        ck_assert_msg(k == 0 ? cosine >= target : cosine < target,
                      "epsilon %g: cosine %.17g for a target of %g", tried, cosine, target);
    }
}

START_TEST(suggestions_change_nothing_and_are_true)
{
    const gradreg_regularizer_params p = suggest_params(_i);
    rig *r = open_rig(&p);
    double epsilon = -1, again = -1;
    const double target = _i % 2 == 0 ? 0.9 : 0.99;

    (void)run_step(r, 1, COMBINED);
    for (int noisy = 0; noisy < 2; noisy++) {
        if (rig_passes(r) == 0)
            plain_step(r, 20);
        if (noisy)
            assert_ok(make_call(r, INJECT));
        gradients(r, 40, true);
        struct sight before = look(r);
        assert_ok(gradreg_regularizer_suggest_epsilon(r->reg, &epsilon, &r->buffers, target));
        compare_and_forget(r, &before);
        before = look(r);
        assert_ok(gradreg_regularizer_suggest_epsilon(r->reg, &again, &r->buffers, target));
        compare_and_forget(r, &before);
        ck_assert_double_eq(epsilon, again);
        ck_assert(isfinite(epsilon) && epsilon > 0);
        if (p.interval == 1 && !noisy)
            verify_answer(r, epsilon, target);
        assert_ok(make_call(r, CANCEL));
        assert_ok(gradreg_regularizer_set_epsilon(r->reg, p.epsilon));
    }
    rig_close(r);
}
END_TEST

/* What follows a suggestion is what would have followed. */
START_TEST(a_suggestion_leaves_the_step_as_it_was)
{
    const gradreg_regularizer_params p = suggest_params(_i);
    rig *a = open_rig(&p), *b = open_rig(&p);
    double epsilon;

    for (uint64_t step = 0; step < 4; step++) {
        for (int k = 0; k < 2; k++) {
            rig *r = k == 0 ? a : b;
            assert_ok(make_call(r, INJECT));
            gradients(r, 50 + 3 * step, true);
            const int32_t passes = rig_passes(r);
            if (k == 1)
                assert_ok(
                    gradreg_regularizer_suggest_epsilon(r->reg, &epsilon, &r->buffers, 0.95));
            for (int32_t pass = 0; pass < passes; pass++) {
                assert_ok(make_call(r, pass == 0 ? PERTURB : MIRROR));
                gradients(r, 51 + 3 * step + (uint64_t)pass, false);
            }
            assert_ok(make_call(r, COMBINE));
        }
        assert_ok(gradreg_regularizer_suggest_epsilon(b->reg, &epsilon, &b->buffers, 0.95));
        const gradreg_status status = observe(a, 1.0f, 1.25f); /* where there was a pass */
        ck_assert_int_eq(observe(b, 1.0f, 1.25f), status);
        ck_assert(status == GRADREG_OK || p.interval == 2);
        double *rows = rig_rows(a), *others = rig_rows(b);
        char *g_hat = rig_gather(a, RIG_GRADS);
        rig_assert(b, RIG_GRADS, g_hat, "g_hat after a suggestion");
        ck_assert_int_eq(memcmp(rows, others, rig_rows_bytes(a)), 0);
        free(g_hat);
        free(others);
        free(rows);
    }
    rig_close(a);
    rig_close(b);
}
END_TEST

/* An accuracy that no rounding to bf16 has. */
START_TEST(where_no_epsilon_will_do_the_answer_is_infinity)
{
    const gradreg_regularizer_params p = suggest_params(0);
    rig *r = open_rig(&p);
    double epsilon = 0;

    gradients(r, 1, true);
    assert_ok(
        gradreg_regularizer_suggest_epsilon(r->reg, &epsilon, &r->buffers, 1.0 - 0x1p-40));
    ck_assert(isinf(epsilon) && epsilon > 0);
    rig_close(r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("between steps");
    TCase *rules = tcase_create("rules");

    add_loop_test(rules, passes_are_a_function_of_the_count, 0, 8);
    tcase_add_test(rules, steps_are_counted_and_cancelled_ones_are_not);
    add_loop_test(rules, reused_corrections_follow_the_formula, 0, 8);
    add_loop_test(rules, before_any_correction_reuse_gives_the_gradient, 0, 2);
    tcase_add_test(rules, settings_take_effect_until_perturb);
    tcase_add_test(rules, losses_belong_to_the_step_just_combined);
    add_loop_test(rules, the_first_order_ratio_has_its_value, 0, 3);
    add_loop_test(rules, suggestions_change_nothing_and_are_true, 0, 12);
    add_loop_test(rules, a_suggestion_leaves_the_step_as_it_was, 0, 12);
    tcase_add_test(rules, where_no_epsilon_will_do_the_answer_is_infinity);
    suite_add_tcase(suite, rules);
    return run_suite(suite);
}
