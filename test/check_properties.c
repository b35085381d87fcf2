/* check_properties.c - what holds for every step, whatever the numbers.
 *
 * Bits in, bits out: no strength means no change, restoring means every bit, and where there is
 * nothing to do nothing is done. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "support.h"
#include "trainer.h"

/* ---------------------------------------------------------------------------- strength 0 */

/* What makes lambda t(step) zero. */
static void switch_off(gradreg_regularizer_params *p, int how)
{
    if (how == 0)
        p->strength = 0.0;
    if (how == 1)
        p->warmup_steps = 3;
    if (how == 2) {
        p->schedule.curve = GRADREG_CURVE_STEP;
        p->schedule.full_layer = LARGE_LAYERS;
    }
}

static trainer *two_passes(const gradreg_regularizer_params *p, double largest)
{
    const trainer_setup setup = { .name = "two passes" };
    trainer *t = trainer_open(large_table, LARGE_TENSORS, p, &setup);

    trainer_fill_numbers(t, TRAINER_PARAMS, 1, 0.02);
    trainer_fill_patterns(t, TRAINER_GRADS, 2);
    trainer_limit(t, TRAINER_GRADS, largest);
    return t;
}

/* Whether the correction is only counted out or, with an interval, made, kept and multiplied by 0. */
START_TEST(without_strength_the_gradient_keeps_every_bit)
{
    int i = _i;
    gradreg_regularizer_params p = large_params(&type_pairs[i % TYPE_PAIRS]);

    if (LEFT_OUT_UNDER_TSAN(_i))
        return;
    i /= TYPE_PAIRS;
    switch_off(&p, i % 3);
    p.interval = 1 + i / 3;
    trainer *t = two_passes(&p, 1e30);
    char *first = trainer_copy(t, TRAINER_GRADS);
    assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
    trainer_fill_numbers(t, TRAINER_GRADS, 3, 2.0);
    assert_ok(gradreg_regularizer_combine(t->regularizer, &t->buffers));
    trainer_assert_same(t, TRAINER_GRADS, first, "g1 without strength");
    if (p.interval > 1) {
        assert_ok(gradreg_regularizer_combine(t->regularizer, &t->buffers));
        trainer_assert_same(t, TRAINER_GRADS, first, "g1 without strength, reused");
    }
    free(first);
    trainer_close(t);
}
END_TEST

/* Elements are fl(c g), c being the float that the terms tell. */
static void assert_clipped(const trainer *t, const char *first, const gradreg_terms *terms,
                           size_t s)
{
    const oracle *o = t->oracle;
    const gradreg_type type = oracle_grad_type(o, s);
    const float c = (float)terms->clip_first;
    const char *g = first + (size_t)o->segments[s].offset * type_bytes(type);

    for (size_t i = 0; i < o->segments[s].count; i++) {
        const float product = c * (float)typed_get(g, type, i);
        assert_that(typed_get(t->piece[TRAINER_GRADS][s], type, i) ==
                        type_round((double)product, type),
                    "element %zu of segment %zu is not the product with %a", i, s, (double)c);
    }
}

START_TEST(excluded_weights_get_the_clipped_gradient)
{
    gradreg_regularizer_params p = large_params(&type_pairs[_i % TYPE_PAIRS]);
    gradreg_terms terms = GRADREG_TERMS_INIT;

    p.clip_first = 1.0;
    p.regularized_roles = p.perturbed_roles = GRADREG_ROLE_ATTENTION;
    if (_i / TYPE_PAIRS == 1)
        p.strength = 0.0; /* then all of them */
    trainer *t = two_passes(&p, 100.0);
    char *first = trainer_copy(t, TRAINER_GRADS);
    assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
    trainer_fill_numbers(t, TRAINER_GRADS, 3, 2.0);
    assert_ok(gradreg_regularizer_combine(t->regularizer, &t->buffers));
    assert_ok(gradreg_regularizer_terms(t->regularizer, &terms, NULL, 0));
    ck_assert_double_lt(terms.clip_first, 0.01);
    for (size_t s = 0; s < LARGE_TENSORS; s++)
        if (p.strength == 0.0 || large_table[s].role != GRADREG_ROLE_ATTENTION)
            assert_clipped(t, first, &terms, s);
    free(first);
    trainer_close(t);
}
END_TEST

/* The norm is the clip's, not only reported: what others once forgot. */
START_TEST(a_clip_really_scales_the_gradient)
{
    gradreg_regularizer_params p = large_params(&type_pairs[0]);
    double square = 0.0;

    p.strength = 0.0;
    p.clip_first = 0.25;
    trainer *t = two_passes(&p, 10.0);
    assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
    assert_ok(gradreg_regularizer_combine(t->regularizer, &t->buffers));
    trainer_read(t, TRAINER_GRADS, t->stored);
    for (size_t i = 0; i < oracle_size(t->oracle); i++)
        square += t->stored[i] * t->stored[i];
    ck_assert_double_eq_tol(sqrt(square), 0.25, 0.25 * 1e-6);
    trainer_close(t);
}
END_TEST

START_TEST(equal_gradients_leave_nothing_to_correct)
{
    gradreg_regularizer_params p = large_params(&type_pairs[_i]);

    p.clip_first = p.clip_second = 0.5;
    p.common_clip = 1;
    p.strength = 1e3;
    trainer *t = two_passes(&p, 100.0);
    char *first = trainer_copy(t, TRAINER_GRADS);
    gradreg_terms terms = GRADREG_TERMS_INIT;

    assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
    assert_ok(gradreg_regularizer_combine(t->regularizer, &t->buffers)); /* g2 is g1 */
    assert_ok(gradreg_regularizer_terms(t->regularizer, &terms, NULL, 0));
    for (size_t s = 0; s < LARGE_TENSORS; s++)
        assert_clipped(t, first, &terms, s);
    ck_assert_double_eq(terms.correction_share, 0.0);
    ck_assert_double_eq_tol(terms.alignment, 1.0, 1e-6);
    free(first);
    trainer_close(t);
}
END_TEST

/* ---------------------------------------------------------------------------- restoring */

enum ending { BY_COMBINE, BY_FALLBACK, BY_CANCEL, BY_CANCEL_MIRRORED, ENDINGS };

static void leave(trainer *t, enum ending ending)
{
    const bool central = t->oracle->params.difference == GRADREG_DIFFERENCE_CENTRAL;

    if (central && ending != BY_CANCEL) {
        assert_ok(gradreg_regularizer_mirror(t->regularizer, &t->buffers));
        trainer_fill_numbers(t, TRAINER_GRADS, 4, 1.0);
    }
    if (ending == BY_COMBINE)
        assert_ok(gradreg_regularizer_combine(t->regularizer, &t->buffers));
    else if (ending == BY_FALLBACK)
        assert_ok(gradreg_regularizer_fallback(t->regularizer, &t->buffers));
    else
        assert_ok(gradreg_regularizer_cancel(t->regularizer, &t->buffers));
}

static size_t differing_bytes(const trainer *t, enum trainer_buffer buffer, const char *copy)
{
    char *now = trainer_copy(t, buffer);
    const size_t end = (size_t)(large_table[4].offset + large_table[4].count) *
                       type_bytes(trainer_type(t, buffer, 0));
    size_t count = 0;

    for (size_t i = 0; i < end; i++)
        count += now[i] != copy[i];
    free(now);
    return count;
}

/* Every pattern of the type, NaN with payloads and both zeros among them. */
START_TEST(theta_comes_back_to_the_last_bit)
{
    int i = _i;
    gradreg_regularizer_params p = large_params(&type_pairs[i % TYPE_PAIRS]);
    const trainer_setup setup = { .name = "restore" };

    if (LEFT_OUT_UNDER_TSAN(_i))
        return;
    i /= TYPE_PAIRS;
    const enum ending ending = (enum ending)(i % ENDINGS);
    i /= ENDINGS;
    p.difference = i % 2 != 0 ? GRADREG_DIFFERENCE_CENTRAL : GRADREG_DIFFERENCE_FORWARD;
    p.placement = GRADREG_PLACEMENT_IN_PLACE + i / 2;
    p.rounding = GRADREG_ROUNDING_NEAREST + i / 2;
    p.epsilon = 0.5;
    trainer *t = trainer_open(large_table, LARGE_TENSORS, &p, &setup);
    trainer_fill_patterns(t, TRAINER_PARAMS, 6);
    trainer_fill_numbers(t, TRAINER_GRADS, 8, 1.0);
    char *clean = trainer_copy(t, TRAINER_PARAMS);
    assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
    ck_assert_uint_gt(differing_bytes(t, trainer_moved(t), clean), LARGE_PATTERNS / 4);
    trainer_fill_numbers(t, TRAINER_GRADS, 9, 1.0);
    leave(t, ending);
    trainer_assert_same(t, TRAINER_PARAMS, clean, "theta");
    free(clean);
    trainer_close(t);
}
END_TEST

/* The library has no copy here; the master's rounding has to give the very bits. */
START_TEST(theta_comes_back_from_the_master)
{
    gradreg_regularizer_params p = large_params(&type_pairs[_i % TYPE_PAIRS]);
    const trainer_setup setup = { .name = "master" };

    if (LEFT_OUT_UNDER_TSAN(_i))
        return;
    p.restore = GRADREG_RESTORE_MASTER;
    p.epsilon = 0.5;
    trainer *t = trainer_open(large_table, LARGE_TENSORS, &p, &setup);
    trainer_fill_numbers(t, TRAINER_MASTER, 10, 0.3);
    for (size_t s = 0; s < LARGE_TENSORS; s++)
        for (size_t e = 0; e < large_table[s].count; e++) {
            const double master = typed_get(t->piece[TRAINER_MASTER][s], GRADREG_TYPE_F32, e);
            typed_set(t->piece[TRAINER_PARAMS][s], p.param_type, e,
                      type_round(master, p.param_type));
        }
    trainer_fill_numbers(t, TRAINER_GRADS, 8, 1.0);
    char *clean = trainer_copy(t, TRAINER_PARAMS), *master = trainer_copy(t, TRAINER_MASTER);
    assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
    ck_assert_uint_gt(differing_bytes(t, TRAINER_PARAMS, clean), LARGE_PATTERNS / 4);
    leave(t, (enum ending)(_i / TYPE_PAIRS));
    trainer_assert_same(t, TRAINER_PARAMS, clean, "theta");
    trainer_assert_same(t, TRAINER_MASTER, master, "the master");
    free(clean);
    free(master);
    trainer_close(t);
}
END_TEST

/* A master that rounds to other weights: nothing moves, and the step says so. */
START_TEST(a_master_that_differs_is_noticed)
{
    gradreg_regularizer_params p = large_params(&type_pairs[1]);
    const trainer_setup setup = { .name = "mismatch" };
    gradreg_terms terms = GRADREG_TERMS_INIT;

    p.restore = GRADREG_RESTORE_MASTER;
    p.epsilon = 0.5;
    trainer *t = trainer_open(large_table, LARGE_TENSORS, &p, &setup);
    trainer_fill_numbers(t, TRAINER_PARAMS, 1, 0.02);
    trainer_read(t, TRAINER_PARAMS, t->theta);
    t->theta[50000] *= 1.0 + 0x1p-6;
    trainer_write(t, TRAINER_MASTER, t->theta);
    trainer_fill_numbers(t, TRAINER_GRADS, 8, 1.0);
    char *clean = trainer_copy(t, TRAINER_PARAMS), *first = trainer_copy(t, TRAINER_GRADS);
    assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
    trainer_assert_same(t, TRAINER_PARAMS, clean, "theta with another master");
    trainer_fill_numbers(t, TRAINER_GRADS, 9, 1.0);
    assert_ok(gradreg_regularizer_combine(t->regularizer, &t->buffers));
    trainer_assert_same(t, TRAINER_PARAMS, clean, "theta after that step");
    trainer_assert_same(t, TRAINER_GRADS, first, "g_hat of that step");
    assert_ok(gradreg_regularizer_terms(t->regularizer, &terms, NULL, 0));
    ck_assert_uint_eq(terms.flags, GRADREG_FLAG_MASTER_MISMATCH);
    free(clean);
    free(first);
    trainer_close(t);
}
END_TEST

/* fl(fl(theta + delta) - delta) is not theta where delta is the larger one. */
START_TEST(restoring_does_not_subtract)
{
    gradreg_regularizer_params p = large_params(&type_pairs[0]);
    const trainer_setup setup = { .name = "subtraction" };
    size_t off = 0;

    p.epsilon = 1.0;
    trainer *t = trainer_open(large_table, LARGE_TENSORS, &p, &setup);
    trainer_fill_numbers(t, TRAINER_PARAMS, 1, 0.02);
    trainer_fill_numbers(t, TRAINER_GRADS, 2, 1.0);
    const float *theta = t->buffers.params, *delta = t->buffers.grads;
    for (size_t i = 0; i < large_table[1].count; i++) {
        const float there = theta[i] + delta[i];
        off += there - delta[i] != theta[i];
    }
    ck_assert_uint_gt(off, large_table[1].count / 2);
    char *clean = trainer_copy(t, TRAINER_PARAMS);
    for (int step = 0; step < 3; step++) {
        assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
        assert_ok(gradreg_regularizer_combine(t->regularizer, &t->buffers));
        trainer_assert_same(t, TRAINER_PARAMS, clean, "theta");
    }
    free(clean);
    trainer_close(t);
}
END_TEST

/* ---------------------------------------------------------------------------- nothing there */

/* All rewards equal: the gradient is zero. Nothing moves, nothing becomes NaN. */
START_TEST(a_zero_gradient_does_nothing)
{
    int i = _i;
    gradreg_regularizer_params p = large_params(&type_pairs[0]);
    const trainer_setup setup = { .name = "zero gradient" };
    gradreg_terms terms = GRADREG_TERMS_INIT;

    p.step = GRADREG_STEP_RAW + i % LAST_STEP;
    p.penalty = GRADREG_PENALTY_SQUARED_NORM + i / 3 % 2;
    p.depth = GRADREG_DEPTH_ON_UPDATE + i / 6 % 2;
    p.interval = 1 + i / 12 % 2;
    p.clip_first = p.clip_second = 1.0;
    trainer *t = trainer_open(large_table, LARGE_TENSORS, &p, &setup);
    trainer_fill_numbers(t, TRAINER_PARAMS, 1, 0.02);
    trainer_fill_numbers(t, TRAINER_GRADS, 2, 0.0);
    char *clean = trainer_copy(t, TRAINER_PARAMS), *zeros = trainer_copy(t, TRAINER_GRADS);
    for (int step = 0; step < p.interval; step++) {
        if (step == 0)
            assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
        trainer_assert_same(t, TRAINER_PARAMS, clean, "theta without a direction");
        assert_ok(gradreg_regularizer_combine(t->regularizer, &t->buffers));
        trainer_assert_same(t, TRAINER_GRADS, zeros, "g_hat of zero gradients");
        assert_ok(gradreg_regularizer_terms(t->regularizer, &terms, NULL, 0));
        ck_assert_uint_eq(terms.flags, GRADREG_FLAG_NO_DIRECTION);
        ck_assert_double_eq(terms.first_norm, 0.0);
        ck_assert_double_eq(terms.clip_first, 1.0);
        ck_assert_double_eq(terms.update_norm, 0.0);
    }
    free(clean);
    free(zeros);
    trainer_close(t);
}
END_TEST

START_TEST(a_table_without_elements_has_norm_zero)
{
    const gradreg_segment nothing[2] = {
        { 0, 0, 0, 0, 0, GRADREG_ROLE_MLP, 0, 0, 0, { 0 } },
        { 5, 0, 0, 0, 2, GRADREG_ROLE_ATTENTION, 0, 0, 0, { 0 } },
    };
    gradreg_regularizer_params p = large_params(&type_pairs[0]);
    const trainer_setup setup = { .name = "no elements", .scattered = _i != 0 };
    gradreg_terms terms = GRADREG_TERMS_INIT;

    p.clip_first = p.clip_second = 1.0;
    trainer *t = trainer_open(nothing, 2, &p, &setup);
    for (size_t s = 0; s < 2; s++)
        t->passed[s] = t->piece[TRAINER_GRADS][s];
    assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
    assert_ok(gradreg_regularizer_combine(t->regularizer, &t->buffers));
    assert_ok(gradreg_regularizer_terms(t->regularizer, &terms, NULL, 0));
    ck_assert_double_eq(terms.first_norm, 0.0);
    ck_assert_double_eq(terms.second_norm, 0.0);
    ck_assert_uint_eq(terms.step, 1);
    trainer_close(t);
}
END_TEST

/* ---------------------------------------------------------------------------- suite */

int main(void)
{
    Suite *suite = suite_create("properties");
    TCase *off = tcase_create("strength"), *back = tcase_create("restore"),
          *none = tcase_create("nothing there");

    add_loop_test(off, without_strength_the_gradient_keeps_every_bit, 0, TYPE_PAIRS * 3 * 2);
    add_loop_test(off, excluded_weights_get_the_clipped_gradient, 0, TYPE_PAIRS * 2);
    tcase_add_test(off, a_clip_really_scales_the_gradient);
    add_loop_test(off, equal_gradients_leave_nothing_to_correct, 0, TYPE_PAIRS);
    add_loop_test(back, theta_comes_back_to_the_last_bit, 0, TYPE_PAIRS * ENDINGS * 2 * 2);
    add_loop_test(back, theta_comes_back_from_the_master, 0, TYPE_PAIRS * BY_CANCEL_MIRRORED);
    tcase_add_test(back, a_master_that_differs_is_noticed);
    tcase_add_test(back, restoring_does_not_subtract);
    add_loop_test(none, a_zero_gradient_does_nothing, 0, 24);
    add_loop_test(none, a_table_without_elements_has_norm_zero, 0, 2);
    suite_add_tcase(suite, off);
    suite_add_tcase(suite, back);
    suite_add_tcase(suite, none);
    return run_suite(suite);
}
