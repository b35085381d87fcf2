/* check_situations.c - steps in which something is missing, broken, swallowed or late.
 *
 * The oracle runs along in trainer_run(): what a step leaves behind has to agree as well as what it
 * does. The model is the one of the closed forms. Steps that only follow each other: check_series.c. */
#include <math.h>
#include <stdlib.h>

#include "scene.h"

/* ---------------------------------------------------------------------------- broken */

static const double spoils[] = { NAN, INFINITY, -INFINITY };
/* In the head, which is neither perturbed nor regularized, and in an attention matrix. */
static const size_t places[] = { 3, 60 };

enum { SPOILT_STEPS = 3 * 2 * 3 * 2 * 2 * 2 * 2 };

static gradreg_regularizer_params spoilt(int i, struct source *s)
{
    gradreg_regularizer_params p = defaults();

    s->value = spoils[take(&i, 3)];
    s->element = places[take(&i, 2)];
    s->spoilt = take(&i, 3);
    p.difference = difference(take(&i, 2));
    p.non_finite_first = GRADREG_NON_FINITE_ZERO + take(&i, 2);
    p.non_finite_second =
        take(&i, 2) != 0 ? GRADREG_NON_FINITE_ZERO : GRADREG_NON_FINITE_KEEP_FIRST;
    p.second_gradient = GRADREG_SECOND_GRADIENT_OVERWRITES + take(&i, 2);
    return p;
}

/* One bad step between good ones: theta is clean, the policy holds, the next step knows nothing. */
START_TEST(bad_gradients_end_as_the_policy_says)
{
    const trainer_setup setup = { .name = "bad gradient" };
    struct source s = { 0 };
    const gradreg_regularizer_params p = spoilt(_i, &s);
    float found_inf = 0.0f;
    struct scene scene = open_scene(&p, &setup);
    const bool reached = s.spoilt < (p.difference == GRADREG_DIFFERENCE_CENTRAL ? 3 : 2);

    scene.t->buffers.found_inf = &found_inf;
    step(&scene, TRAINER_COMBINE);
    ck_assert_float_eq(found_inf, 0.0f);
    scene.source.value = s.value;
    scene.source.element = s.element;
    scene.source.spoilt = s.spoilt;
    step(&scene, TRAINER_COMBINE);
    ck_assert_float_eq(found_inf, reached ? 1.0f : 0.0f);
    scene.source.spoilt = -1;
    step(&scene, TRAINER_COMBINE);
    close_scene(&scene);
}
END_TEST

START_TEST(bad_gradients_leave_a_product_of_zeros)
{
    const trainer_setup setup = { .name = "bad product" };
    struct source s = { 0 };
    gradreg_regularizer_params p = spoilt(_i, &s);

    p.output = GRADREG_OUTPUT_PRODUCT;
    struct scene scene = open_scene(&p, &setup);
    scene.source.value = s.value;
    scene.source.element = s.element;
    scene.source.spoilt = s.spoilt;
    step(&scene, TRAINER_COMBINE);
    close_scene(&scene);
}
END_TEST

/* Steps 0, 3, 6 recompute; 3 is spoilt or falls back: 4 and 5 go on with what 0 found. */
START_TEST(a_lost_recomputation_keeps_the_old_correction)
{
    const trainer_setup setup = { .name = "lost recomputation" };
    gradreg_regularizer_params p = defaults();

    p.interval = 3;
    p.difference = difference(_i % 2);
    struct scene scene = open_scene(&p, &setup);
    some_steps(&scene, 3);
    scene.source.value = NAN;
    scene.source.spoilt = _i / 2 == 0 ? 1 : _i / 2 == 1 ? 0 : -1;
    step(&scene, _i / 2 == 2 ? TRAINER_FALLBACK : TRAINER_COMBINE);
    scene.source.spoilt = -1;
    some_steps(&scene, 2);
    ck_assert_double_gt(
        oracle_norm(scene.t->oracle, scene.t->step->correction, NULL, ORACLE_EVERYTHING), 0.0);
    some_steps(&scene, 2);
    close_scene(&scene);
}
END_TEST

/* Until a first recomputation works out there is nothing to add. */
START_TEST(without_a_correction_reuse_adds_nothing)
{
    const trainer_setup setup = { .name = "no correction yet" };
    gradreg_regularizer_params p = defaults();

    p.interval = 2;
    struct scene scene = open_scene(&p, &setup);
    step(&scene, TRAINER_FALLBACK);
    step(&scene, TRAINER_COMBINE);
    ck_assert_double_eq(
        oracle_norm(scene.t->oracle, scene.t->step->correction, NULL, ORACLE_EVERYTHING), 0.0);
    some_steps(&scene, 2);
    close_scene(&scene);
}
END_TEST

START_TEST(a_fallback_leaves_the_clipped_gradient)
{
    int i = _i;
    const trainer_setup setup = { .name = "fallback" };
    gradreg_regularizer_params p = defaults();

    p.difference = difference(take(&i, 2));
    p.common_clip = take(&i, 2);
    p.output = GRADREG_OUTPUT_REGULARIZED + take(&i, 2);
    p.first_gradient = GRADREG_FIRST_GRADIENT_COPIED + take(&i, 2);
    p.placement = GRADREG_PLACEMENT_IN_PLACE + take(&i, 2);
    struct scene scene = open_scene(&p, &setup);
    step(&scene, TRAINER_FALLBACK);
    step(&scene, TRAINER_COMBINE);
    step(&scene, TRAINER_FALLBACK);
    close_scene(&scene);
}
END_TEST

/* ---------------------------------------------------------------------------- missing */

enum absence { EVERYWHERE, IN_THE_FIRST, IN_THE_SECOND_OF_TWO, ABSENCES };

/* An expert that no token reached, in some pass: no correction, a if there is one, a flag. */
START_TEST(absent_gradients_are_left_out)
{
    int i = _i;
    const trainer_setup setup = { .name = "absent", .scattered = true };
    gradreg_regularizer_params p = defaults();
    bool absent[MODEL_SEGMENTS] = { false };
    const enum absence how = (enum absence)take(&i, ABSENCES);

    p.difference = difference(take(&i, 2));
    p.step = GRADREG_STEP_RAW + take(&i, LAST_STEP);
    p.interval = 1 + take(&i, 2);
    absent[9] = absent[7] = absent[0] = true; /* two matrices of the blocks, the head */
    struct scene scene = open_scene(&p, &setup);
    some_steps(&scene, take(&i, 2) != 0 ? p.interval : 0); /* a correction to forget, or none */
    scene.t->absent_first = how != IN_THE_SECOND_OF_TWO ? absent : NULL;
    if (p.difference == GRADREG_DIFFERENCE_CENTRAL)
        scene.t->absent_plus = how != IN_THE_FIRST ? absent : NULL;
    scene.t->absent_second = how == EVERYWHERE ? absent : NULL;
    step(&scene, TRAINER_COMBINE);
    scene.t->absent_first = scene.t->absent_plus = scene.t->absent_second = NULL;
    some_steps(&scene, 2);
    close_scene(&scene);
}
END_TEST

START_TEST(a_gradient_that_vanishes_for_combine_is_refused)
{
    const trainer_setup setup = { .name = "vanished", .scattered = true };
    const gradreg_regularizer_params p = defaults();
    struct scene scene = open_scene(&p, &setup);
    trainer *t = scene.t;

    trainer_fill_numbers(t, TRAINER_GRADS, 1, 1.0);
    for (size_t s = 0; s < MODEL_SEGMENTS; s++)
        t->passed[s] = t->piece[TRAINER_GRADS][s];
    assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
    char *grads = trainer_copy(t, TRAINER_GRADS), *moved = trainer_copy(t, TRAINER_PARAMS);
    t->passed[5] = NULL;
    assert_fails(gradreg_regularizer_combine(t->regularizer, &t->buffers),
                 GRADREG_ERROR_INVALID_ARGUMENT, "grad_pointers[5]");
    trainer_assert_same(t, TRAINER_GRADS, grads, "grads of a refused call");
    trainer_assert_same(t, TRAINER_PARAMS, moved, "params of a refused call");
    assert_ok(gradreg_regularizer_cancel(t->regularizer, &t->buffers));
    free(grads);
    free(moved);
    close_scene(&scene);
}
END_TEST

/* ---------------------------------------------------------------------------- swallowed */

/* In bf16 a step of 1e-4 is rounded away: the correction would be noise, and is dropped. */
START_TEST(an_unfaithful_step_is_dropped)
{
    const trainer_setup setup = { .name = "fidelity" };
    gradreg_regularizer_params p = defaults();

    p.param_type = GRADREG_TYPE_BF16;
    p.step = GRADREG_STEP_NORMALIZED;
    p.min_fidelity = 0.9;
    p.interval = 2;
    p.difference = difference(_i % 2);
    p.common_clip = _i / 2;
    p.epsilon = 1.0;
    struct scene scene = open_scene(&p, &setup);
    some_steps(&scene, 2);
    ck_assert_uint_eq(scene.t->step->flags, 0);
    assert_ok(gradreg_regularizer_set_epsilon(scene.t->regularizer, 1e-2));
    scene.t->oracle->params.epsilon = 1e-2;
    step(&scene, TRAINER_COMBINE);
    ck_assert_uint_eq(scene.t->step->flags, GRADREG_FLAG_DROPPED);
    step(&scene, TRAINER_COMBINE); /* with the correction of the first step */
    close_scene(&scene);
}
END_TEST

/* The smallest candidate that is faithful enough: one candidate less is not. */
START_TEST(a_suggested_epsilon_is_the_smallest_that_works)
{
    static const double targets[] = { 0.5, 0.9, 0.99 };
    const trainer_setup setup = { .name = "suggestion" };
    gradreg_regularizer_params p = defaults();
    double suggested = 0.0;

    p.param_type = _i % 2 != 0 ? GRADREG_TYPE_F16 : GRADREG_TYPE_BF16;
    p.step = GRADREG_STEP_RAW + _i / 2 % LAST_STEP;
    struct scene scene = open_scene(&p, &setup);
    trainer *t = scene.t;
    const double target = targets[_i / 2 / LAST_STEP];
    step(&scene, TRAINER_COMBINE);
    trainer_write(t, TRAINER_GRADS, t->first);
    char *params = trainer_copy(t, TRAINER_PARAMS), *grads = trainer_copy(t, TRAINER_GRADS);
    assert_ok(
        gradreg_regularizer_suggest_epsilon(t->regularizer, &suggested, &t->buffers, target));
    trainer_assert_same(t, TRAINER_PARAMS, params, "params");
    trainer_assert_same(t, TRAINER_GRADS, grads, "grads");
    for (int less = 0; less < 2; less++) {
        oracle_step *o = oracle_step_new(t->oracle);
        o->theta = t->theta;
        o->first = t->first;
        t->oracle->params.epsilon = suggested / (less != 0 ? sqrt(2.0) : 1.0);
        oracle_inject(t->oracle, o);
        oracle_perturb(t->oracle, o);
        const double cosine = oracle_applied_cosine(t->oracle, o);
        ck_assert_msg(less != 0 ? cosine < target + 1e-6 : cosine > target - 1e-6,
                      "epsilon %g: cosine %g, target %g", t->oracle->params.epsilon, cosine,
                      target);
        oracle_step_free(o);
    }
    free(params);
    free(grads);
    close_scene(&scene);
}
END_TEST

/* ---------------------------------------------------------------------------- suite */

int main(void)
{
    Suite *suite = suite_create("situations");
    TCase *broken = tcase_create("broken"), *missing = tcase_create("missing"),
          *swallowed = tcase_create("swallowed");
    TCase *const all[] = { broken, missing, swallowed };

    add_loop_test(broken, bad_gradients_end_as_the_policy_says, 0, SPOILT_STEPS);
    add_loop_test(broken, bad_gradients_leave_a_product_of_zeros, 0, 3 * 2 * 3 * 2);
    add_loop_test(broken, a_lost_recomputation_keeps_the_old_correction, 0, 6);
    tcase_add_test(broken, without_a_correction_reuse_adds_nothing);
    add_loop_test(broken, a_fallback_leaves_the_clipped_gradient, 0, 32);
    add_loop_test(missing, absent_gradients_are_left_out, 0, ABSENCES * 2 * LAST_STEP * 2 * 2);
    tcase_add_test(missing, a_gradient_that_vanishes_for_combine_is_refused);
    add_loop_test(swallowed, an_unfaithful_step_is_dropped, 0, 4);
    add_loop_test(swallowed, a_suggested_epsilon_is_the_smallest_that_works, 0,
                  3 * 2 * LAST_STEP);
    for (size_t k = 0; k < sizeof(all) / sizeof(*all); k++)
        suite_add_tcase(suite, all[k]);
    return run_suite(suite);
}
