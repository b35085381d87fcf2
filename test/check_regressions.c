/* check_regressions.c - bugs that others shipped; those that were found here are in
 * check_regressions_here.c.
 *
 * A regularizer and gradient clipping look simple, and training goes on when they are wrong. Each
 * test is named after what must not happen again; public bugs are named with their numbers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "small_trainer.h"

TCase *regressions_here_case(void);

/* ---- clips ------------------------------------------------------------------------- */

enum ending { NO_STRENGTH, FALLBACK, SECOND_UNUSABLE, DROPPED, REUSED_NOTHING, ENDINGS };

static gradreg_regularizer_params params_for(enum ending ending)
{
    gradreg_regularizer_params p = plain();

    p.clip_first = p.clip_second = 0.25;
    if (ending == NO_STRENGTH)
        p.strength = 0.0;
    if (ending == DROPPED) { /* weights around 2^20 swallow a step of 2^-12 */
        p.min_fidelity = 0.9;
        p.epsilon = 0x1p-12;
    }
    if (ending == REUSED_NOTHING)
        p.interval = 2;
    return p;
}

static void end_step(struct trainer *t, enum ending ending)
{
    if (ending == DROPPED)
        for (size_t i = 0; i < ELEMENTS; i++)
            t->theta[i] += 0x1p20f;
    assert_ok(gradreg_regularizer_perturb(t->reg, &t->buffers));
    fill(t->grads, 9);
    if (ending == SECOND_UNUSABLE)
        t->grads[3] = (float)NAN;
    if (ending == FALLBACK || ending == REUSED_NOTHING)
        assert_ok(gradreg_regularizer_fallback(t->reg, &t->buffers));
    else
        assert_ok(gradreg_regularizer_combine(t->reg, &t->buffers));
    if (ending != REUSED_NOTHING)
        return;
    fill(t->grads, 4); /* the step that would reuse a correction finds none */
    assert_ok(gradreg_regularizer_combine(t->reg, &t->buffers));
}

/* transformers#46113: the norm was right, the gradients were never scaled. */
START_TEST(a_clip_scales_whatever_ends_the_step)
{
    const gradreg_regularizer_params p = params_for((enum ending)_i);
    struct trainer *t = open_trainer(small_table, &p);
    double squares = 0.0;

    fill(t->grads, 4);
    end_step(t, (enum ending)_i);
    const gradreg_terms terms = terms_of(t);
    const float c = (float)terms.clip_first;
    ck_assert_double_eq_tol(terms.clip_first, 0.25 / (terms.first_norm + 1e-6), 1e-15);
    ck_assert_double_lt(terms.clip_first, 0.5);
    for (size_t i = 0; i < ELEMENTS; i++) {
        ck_assert_float_eq(t->grads[i], c * number(i, 4));
        squares += (double)t->grads[i] * (double)t->grads[i];
    }
    ck_assert_double_eq_tol(sqrt(squares), 0.25, 1e-6);
    ck_assert_double_eq_tol(terms.update_norm, 0.25, 1e-6);
    close_trainer(t);
}
END_TEST

/* Micro-batches add into grads: the second clip is that of their sum, not of the first of them, and
 * the sum is that of a backward pass which overwrites. */
START_TEST(a_clip_waits_for_the_last_micro_batch)
{
    gradreg_regularizer_params p = plain();
    float result[2][ELEMENTS], first[ELEMENTS], second[ELEMENTS];

    p.clip_first = p.clip_second = 0.25;
    p.second_gradient = GRADREG_SECOND_GRADIENT_ADDS;
    for (int parts = 1; parts <= 4; parts += 3) {
        struct trainer *t = open_trainer(small_table, &p);
        fill(t->grads, 4);
        assert_ok(gradreg_regularizer_perturb(t->reg, &t->buffers));
        for (int part = 0; part < parts; part++)
            for (size_t i = 0; i < ELEMENTS; i++) /* quarters add up exactly */
                t->grads[i] += number(i, 9) / (float)parts;
        assert_ok(gradreg_regularizer_combine(t->reg, &t->buffers));
        memcpy(result[parts / 4], t->grads, sizeof(t->grads));
        close_trainer(t);
    }
    assert_bits(result[1], result[0], "four micro-batches");
    p.second_gradient = GRADREG_SECOND_GRADIENT_OVERWRITES;
    struct trainer *t = open_trainer(small_table, &p);
    fill(first, 4);
    fill(second, 9);
    step_with(t, first, second);
    assert_bits(t->grads, result[0], "overwritten");
    close_trainer(t);
}
END_TEST

/* ---- norms ------------------------------------------------------------------------- */

/* entrenar#311: the penalty was ||g||^4. Scaled gradients: the penalty goes with the square, norms
 * and corrections of a quadratic loss with the first power, to the last bit. */
START_TEST(a_penalty_is_a_square_and_not_more)
{
    gradreg_regularizer_params p = plain();
    float first[ELEMENTS], second[ELEMENTS], update[2][ELEMENTS];
    gradreg_terms terms[2];

    p.penalty = (gradreg_penalty)(1 + _i);
    for (int k = 0; k < 2; k++) {
        struct trainer *t = open_trainer(small_table, &p);
        fill(first, 4);
        fill(second, 9);
        for (size_t i = 0; i < ELEMENTS; i++) {
            first[i] *= k == 0 ? 1.0f : 8.0f;
            second[i] *= k == 0 ? 1.0f : 8.0f;
        }
        step_with(t, first, second);
        terms[k] = terms_of(t);
        memcpy(update[k], t->grads, sizeof(t->grads));
        close_trainer(t);
    }
    ck_assert_double_eq(terms[1].first_norm, 8.0 * terms[0].first_norm);
    ck_assert_double_eq(terms[1].penalty, 64.0 * terms[0].penalty);
    double squares = 0.0;
    for (size_t i = 0; i < 3 * PART; i++)
        squares += (double)number(i, 4) * (double)number(i, 4);
    ck_assert_double_eq_tol(terms[0].penalty, 0.5 / 2.0 * squares, 1e-12);
    /* ||g||: its gradient H g / ||g|| does not grow at all. */
    for (size_t i = 0; i < ELEMENTS; i++) {
        const double scale = p.penalty == GRADREG_PENALTY_NORM ? 1.0 : 8.0;
        const double small = (double)update[0][i] - (double)number(i, 4);
        const double large = (double)update[1][i] - 8.0 * (double)number(i, 4);
        ck_assert_double_eq_tol(large, scale * small, 1e-4 * fabs(scale * small) + 1e-4);
    }
}
END_TEST

static void assert_empty_step(const gradreg_terms *terms)
{
    ck_assert_double_eq(terms->first_norm, 0.0);
    ck_assert(!(terms->second_norm > 0.0)); /* NaN where no row was read */
    ck_assert_double_eq(terms->clip_first, 1.0);
    ck_assert_double_eq(terms->update_norm, 0.0);
    ck_assert_double_eq(terms->penalty, 0.0);
    ck_assert_uint_eq(terms->non_finite_first, 0);
    ck_assert_uint_eq(terms->flags, GRADREG_FLAG_NO_DIRECTION);
    ck_assert_uint_eq(terms->step, 1);
}

/* The norm of nothing: no elements, or none that is trained. */
START_TEST(the_norm_over_an_empty_list_is_zero)
{
    gradreg_regularizer_params p = plain();
    gradreg_segment segments[SEGMENTS];

    memcpy(segments, small_table, sizeof(segments));
    for (size_t s = 0; s < SEGMENTS; s++) {
        segments[s].count = _i == 0 ? 0 : PART;
        segments[s].flags = _i == 0 ? 0 : GRADREG_SEGMENT_FROZEN;
    }
    p.clip_first = p.clip_second = 1.0;
    p.step = _i == 0 ? GRADREG_STEP_NORMALIZED : GRADREG_STEP_RAW;
    struct trainer *t = open_trainer(segments, &p);
    float theta[ELEMENTS], grads[ELEMENTS];
    memcpy(theta, t->theta, sizeof(theta));
    fill(grads, 4);
    step_with(t, grads, grads);
    const gradreg_terms terms = terms_of(t);
    assert_empty_step(&terms);
    assert_bits(t->theta, theta, "theta");
    assert_bits(t->grads, grads, "gradients that are nobody's");
    close_trainer(t);
}
END_TEST

/* torchrec#4421: the norm came from a copy that other threads were still filling. Sums of ones are
 * exact, whatever the threads do, and each step's are its own. */
START_TEST(a_norm_is_of_the_gradient_that_is_there)
{
    enum { MANY = 400000 };
    gradreg_context *context;
    gradreg_regularizer *reg;
    gradreg_context_params context_params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;
    gradreg_segment segment = GRADREG_SEGMENT_INIT;
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    float *theta = calloc(MANY, sizeof(*theta)), *grads = calloc(MANY, sizeof(*grads));

    ck_assert(theta != NULL && grads != NULL);
    context_params.threads = 4;
    p.layer_count = 1;
    segment.count = MANY;
    segment.layer = 0;
    segment.role = GRADREG_ROLE_MLP;
    assert_ok(test_context_create(&context, &context_params));
    assert_ok(gradreg_regularizer_create(&reg, context, &segment, 1, &p));
    buffers.params = theta;
    buffers.grads = grads;
    buffers.count = MANY;
    for (int step = 1; step <= 12; step++) {
        gradreg_terms terms = GRADREG_TERMS_INIT;
        for (size_t i = 0; i < MANY; i++)
            grads[i] = (float)step;
        assert_ok(gradreg_regularizer_perturb(reg, &buffers));
        for (size_t i = 0; i < MANY; i++)
            grads[i] = -(float)step;
        assert_ok(gradreg_regularizer_combine(reg, &buffers));
        assert_ok(gradreg_regularizer_terms(reg, &terms, NULL, 0));
        ck_assert_double_eq(terms.first_norm, sqrt((double)MANY * step * step));
        ck_assert_double_eq(terms.second_norm, terms.first_norm);
        ck_assert_double_eq_tol(terms.alignment, -1.0, 1e-15);
    }
    assert_ok(gradreg_regularizer_destroy(reg));
    assert_ok(gradreg_context_destroy(context));
    free(theta);
    free(grads);
}
END_TEST

/* ---- restoring --------------------------------------------------------------------- */

/* Subtracting delta again leaves a part of the weights elsewhere; a copy does not. */
START_TEST(theta_is_not_restored_by_subtraction)
{
    gradreg_regularizer_params p = plain();
    float theta[ELEMENTS], grads[ELEMENTS];
    int differ = 0;

    p.epsilon = 0.01;
    struct trainer *t = open_trainer(small_table, &p);
    for (size_t i = 0; i < ELEMENTS; i++) {
        t->theta[i] = theta[i] = 0.37f * number(i, 1) + 1e-3f;
        grads[i] = 1.7f * number(i, 4) + 0.013f;
    }
    step_with(t, grads, grads);
    assert_bits(t->theta, theta, "theta");
    for (size_t i = 0; i < 3 * PART; i++) {
        const volatile float moved = theta[i] + 0.01f * grads[i];
        const volatile float back = moved - 0.01f * grads[i];
        differ += float_bits(back) != float_bits(theta[i]);
    }
    ck_assert_int_gt(differ, 0); /* or this test would show nothing */
    close_trainer(t);
}
END_TEST

static const uint32_t patterns[] = { 0x80000000, 0x7fc01234, 0xffc0beef, 0x7f800001,
                                     0x00000001, 0x807fffff, 0x7f800000, 0x00000000 };

/* -0, NaN payloads, denormals, infinities: bits, not values, come back. */
START_TEST(theta_comes_back_with_signs_and_payloads)
{
    gradreg_regularizer_params p = plain();
    float theta[ELEMENTS], grads[ELEMENTS];

    p.difference = _i % 2 == 0 ? GRADREG_DIFFERENCE_FORWARD : GRADREG_DIFFERENCE_CENTRAL;
    struct trainer *t = open_trainer(small_table, &p);
    for (size_t i = 0; i < ELEMENTS; i++)
        memcpy(&theta[i], &patterns[i % 8], sizeof(float));
    memcpy(t->theta, theta, sizeof(theta));
    fill(grads, 4);
    memcpy(t->grads, grads, sizeof(grads));
    assert_ok(gradreg_regularizer_perturb(t->reg, &t->buffers));
    if (_i % 2 != 0)
        assert_ok(gradreg_regularizer_mirror(t->reg, &t->buffers));
    if (_i / 2 == 0)
        assert_ok(gradreg_regularizer_combine(t->reg, &t->buffers));
    else if (_i / 2 == 1)
        assert_ok(gradreg_regularizer_fallback(t->reg, &t->buffers));
    else
        assert_ok(gradreg_regularizer_cancel(t->reg, &t->buffers));
    assert_bits(t->theta, theta, "theta");
    close_trainer(t);
}
END_TEST

/* A tied tensor in two segments would be stepped twice, and its second clean copy would be of the
 * stepped weights. */
START_TEST(a_tied_tensor_is_moved_once_or_not_at_all)
{
    gradreg_regularizer_params p = plain();
    struct trainer *t = open_trainer(small_table, &p);
    float theta[ELEMENTS];
    void *params[SEGMENTS], *grads[SEGMENTS];

    memcpy(theta, t->theta, sizeof(theta));
    for (size_t s = 0; s < SEGMENTS; s++) {
        params[s] = t->theta + small_table[s].offset;
        grads[s] = t->grads + small_table[s].offset;
    }
    params[2] = params[1];
    t->buffers.params = t->buffers.grads = NULL;
    t->buffers.param_pointers = params;
    t->buffers.grad_pointers = grads;
    fill(t->grads, 4);
    assert_fails(gradreg_regularizer_perturb(t->reg, &t->buffers),
                 GRADREG_ERROR_INVALID_ARGUMENT, "segments[1]", "segments[2]", "tied");
    assert_bits(t->theta, theta, "theta");
    params[2] = t->theta + small_table[2].offset;
    grads[2] = grads[1]; /* g_hat of one would be clipped and corrected as g1 of the other */
    assert_fails(gradreg_regularizer_perturb(t->reg, &t->buffers),
                 GRADREG_ERROR_INVALID_ARGUMENT, "segments[1]", "segments[2]", "tied");
    close_trainer(t);
}
END_TEST

/* The second pass fails, or the loop ends: theta is where the caller wants it. */
START_TEST(a_step_that_is_broken_off_can_be_left)
{
    gradreg_regularizer_params p = plain();
    float theta[ELEMENTS], moved[ELEMENTS], grads[ELEMENTS];
    struct trainer *t = open_trainer(small_table, &p);

    memcpy(theta, t->theta, sizeof(theta));
    fill(grads, 4);
    memcpy(t->grads, grads, sizeof(grads));
    assert_ok(gradreg_regularizer_perturb(t->reg, &t->buffers));
    memcpy(moved, t->theta, sizeof(moved));
    ck_assert_mem_ne(moved, theta, sizeof(moved));
    assert_ok(gradreg_regularizer_cancel(t->reg, &t->buffers));
    assert_bits(t->theta, theta, "theta after cancel");
    assert_bits(t->grads, grads, "gradients after cancel");
    assert_ok(gradreg_regularizer_perturb(t->reg, &t->buffers));
    assert_bits(t->theta, moved, "the same step again");
    close_trainer(t); /* destroy abandons the step as it stands, and needs no buffers */
}
END_TEST

/* ---- what is left out -------------------------------------------------------------- */

/* Roles that are not regularized, frozen tensors, rows that a truncated pass does not see: not one
 * bit of the second gradient, nor arithmetic with it. */
START_TEST(excluded_parameters_keep_the_first_gradient)
{
    gradreg_regularizer_params p = plain();
    gradreg_segment segments[SEGMENTS];
    float first[ELEMENTS], second[ELEMENTS];

    memcpy(segments, small_table, sizeof(segments));
    p.regularized_roles = GRADREG_ROLE_MLP;
    p.strength = 1e6;
    p.common_clip = _i == 2;
    p.second_pass = _i == 2 ? GRADREG_SECOND_PASS_TRUNCATED : GRADREG_SECOND_PASS_FULL;
    segments[2].flags = _i == 1 ? GRADREG_SEGMENT_FROZEN : 0;
    segments[2].layer = 1; /* beside what is regularized */
    struct trainer *t = open_trainer(segments, &p);
    fill(first, 4);
    fill(second, 9);
    first[0] = -0.0f;
    first[1] = 0x1p-149f;
    for (size_t i = 0; i < PART && _i == 2; i++)
        second[i] = (float)NAN; /* the pass stopped before */
    step_with(t, first, second);
    for (size_t i = 0; i < ELEMENTS; i++) {
        const bool regularized = i >= PART && i < 2 * PART;
        const bool frozen = _i == 1 && i >= 2 * PART && i < 3 * PART;
        const float want = frozen ? second[i] : first[i];
        if (regularized)
            ck_assert_float_ne(t->grads[i], first[i]);
        else
            ck_assert_uint_eq(float_bits(t->grads[i]), float_bits(want));
    }
    close_trainer(t);
}
END_TEST

/* All rollouts of a group got the same reward: g1 is zero, and nothing at all may happen. */
START_TEST(a_zero_gradient_is_no_step_and_no_nan)
{
    gradreg_regularizer_params p = plain();
    static const float zeros[ELEMENTS];
    float theta[ELEMENTS], second[ELEMENTS];

    p.step = (gradreg_step)(1 + _i % 3);
    p.penalty = (gradreg_penalty)(1 + _i / 3 % 2);
    p.depth = (gradreg_depth)(1 + _i / 6 % 2);
    p.clip_first = p.clip_second = 1.0;
    struct trainer *t = open_trainer(small_table, &p);
    memcpy(theta, t->theta, sizeof(theta));
    memcpy(t->grads, zeros, sizeof(zeros));
    assert_ok(gradreg_regularizer_perturb(t->reg, &t->buffers));
    assert_bits(t->theta, theta, "theta'");
    memcpy(t->grads, zeros, sizeof(zeros));
    assert_ok(gradreg_regularizer_combine(t->reg, &t->buffers));
    assert_bits(t->grads, zeros, "g_hat");
    assert_bits(t->theta, theta, "theta");
    const gradreg_terms terms = terms_of(t);
    assert_empty_step(&terms);
    fill(second, 4); /* and the next step is a step */
    step_with(t, second, second);
    ck_assert_uint_eq(terms_of(t).flags, 0);
    close_trainer(t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("regressions");
    TCase *others = tcase_create("bugs that others shipped");

    add_loop_test(others, a_clip_scales_whatever_ends_the_step, 0, ENDINGS);
    tcase_add_test(others, a_clip_waits_for_the_last_micro_batch);
    add_loop_test(others, a_penalty_is_a_square_and_not_more, 0, 2);
    add_loop_test(others, the_norm_over_an_empty_list_is_zero, 0, 2);
    tcase_add_test(others, a_norm_is_of_the_gradient_that_is_there);
    tcase_add_test(others, theta_is_not_restored_by_subtraction);
    add_loop_test(others, theta_comes_back_with_signs_and_payloads, 0, 6);
    tcase_add_test(others, a_tied_tensor_is_moved_once_or_not_at_all);
    tcase_add_test(others, a_step_that_is_broken_off_can_be_left);
    add_loop_test(others, excluded_parameters_keep_the_first_gradient, 0, 3);
    add_loop_test(others, a_zero_gradient_is_no_step_and_no_nan, 0, 12);
    suite_add_tcase(suite, others);
    suite_add_tcase(suite, regressions_here_case());
    return run_suite(suite);
}
