/* check_situations.c - steps in which something is missing, broken, late or interrupted.
 *
 * The oracle runs along in trainer_run(): what a step leaves behind has to agree as well as what it
 * does. The model is the one of the closed forms. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "support.h"
#include "trainer.h"

/* What spoils a pass's gradient: `value` at `element` in pass `pass`, counted from 0. */
struct source {
    model *m;
    int pass, spoilt;
    size_t element;
    double value;
};

static void gradient(void *user, double *out, const double *theta)
{
    struct source *s = user;

    model_gradient(s->m, out, theta);
    if (s->pass++ == s->spoilt)
        out[s->element] = s->value;
}

static gradreg_regularizer_params defaults(void)
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.layer_count = MODEL_LAYERS;
    p.schedule.first_layer = 1;
    p.schedule.full_layer = 3;
    p.strength = 0.1;
    p.epsilon = 1e-3;
    p.clip_first = 9.0;
    p.clip_second = 8.0;
    return p;
}

struct scene {
    trainer *t;
    struct source source;
};

static struct scene open_scene(const gradreg_regularizer_params *p, const trainer_setup *setup)
{
    struct scene scene = { .source = { .spoilt = -1 } };
    double values[MODEL_ELEMENTS];

    scene.source.m = model_new(MODEL_ELEMENTS, 3);
    scene.t = trainer_open(model_segments, MODEL_SEGMENTS, p, setup);
    model_fill(values, MODEL_ELEMENTS, 2.0, 5);
    for (size_t s = 0; s < MODEL_SEGMENTS; s++)
        for (size_t i = scene.t->oracle->start[s]; i < scene.t->oracle->start[s + 1]; i++)
            values[i] = type_round(values[i], oracle_param_type(scene.t->oracle, s));
    trainer_write(scene.t, TRAINER_PARAMS, values);
    return scene;
}

static void close_scene(struct scene *scene)
{
    trainer_close(scene->t);
    model_free(scene->source.m);
}

/* As an optimizer does between steps: the next one begins elsewhere. */
static void wander(trainer *t)
{
    const oracle *o = t->oracle;
    uint64_t state = 31 + o->calls;

    trainer_read(t, TRAINER_PARAMS, t->theta);
    for (size_t s = 0; s < o->segment_count; s++)
        for (size_t i = o->start[s]; i < o->start[s + 1]; i++)
            t->theta[i] =
                type_round(t->theta[i] + next_signed(&state, 0.1), oracle_param_type(o, s));
    trainer_write(t, TRAINER_PARAMS, t->theta);
}

static void step(struct scene *scene, enum trainer_ending ending)
{
    wander(scene->t);
    scene->source.pass = 0;
    trainer_run(scene->t, gradient, &scene->source, ending);
}

static void some_steps(struct scene *scene, int count)
{
    for (int i = 0; i < count; i++)
        step(scene, TRAINER_COMBINE);
}

static int take(int *i, int choices)
{
    const int choice = *i % choices;

    *i /= choices;
    return choice;
}

static gradreg_difference difference(int choice)
{
    return choice != 0 ? GRADREG_DIFFERENCE_CENTRAL : GRADREG_DIFFERENCE_FORWARD;
}

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

/* ---------------------------------------------------------------------------- over time */

START_TEST(strength_follows_warmup_and_decay)
{
    int i = _i;
    const trainer_setup setup = { .name = "warm-up" };
    gradreg_regularizer_params p = defaults();

    p.warmup = GRADREG_WARMUP_ZERO + take(&i, 2);
    p.warmup_steps = 3;
    p.decay = GRADREG_DECAY_CONSTANT + take(&i, 3);
    p.decay_steps = 4;
    p.strength_end = take(&i, 2) != 0 ? 0.25 : 0.0;
    p.interval = 1 + take(&i, 2);
    struct scene scene = open_scene(&p, &setup);
    some_steps(&scene, 9);
    close_scene(&scene);
}
END_TEST

/* The counter decides, and it can be set; the interval goes by calls and does not care. */
START_TEST(settings_count_from_the_next_step)
{
    const trainer_setup setup = { .name = "settings" };
    gradreg_regularizer_params p = defaults();

    p.warmup = GRADREG_WARMUP_LINEAR;
    p.warmup_steps = 10;
    p.interval = 2;
    struct scene scene = open_scene(&p, &setup);
    oracle *o = scene.t->oracle;
    some_steps(&scene, 1);
    assert_ok(gradreg_regularizer_set_step(scene.t->regularizer, 7));
    o->step = 7;
    some_steps(&scene, 1);
    assert_ok(gradreg_regularizer_set_strength(scene.t->regularizer, 0.5));
    o->params.strength = 0.5;
    some_steps(&scene, 1);
    assert_ok(gradreg_regularizer_set_epsilon(scene.t->regularizer, 0.01));
    o->params.epsilon = 0.01;
    some_steps(&scene, 2);
    close_scene(&scene);
}
END_TEST

START_TEST(observed_layers_weigh_the_correction)
{
    int i = _i;
    const trainer_setup setup = { .name = "adaptive" };
    const double signals[3][MODEL_LAYERS] = { { 1, 2, 3, 4 }, { 5, 0, 1, 1 }, { 0, 0, 8, 0 } };
    gradreg_regularizer_params p = defaults();

    p.adaptive.a_min = 0.25;
    p.adaptive.a_max = 2.0;
    p.adaptive.power = take(&i, 2) != 0 ? -0.5 : 1.5;
    p.depth = GRADREG_DEPTH_ON_UPDATE + take(&i, 2);
    p.penalty = GRADREG_PENALTY_SQUARED_NORM + take(&i, 2);
    p.interval = 1 + take(&i, 2);
    struct scene scene = open_scene(&p, &setup);
    step(&scene, TRAINER_COMBINE);
    for (size_t k = 0; k < 3; k++) {
        if (p.adaptive.power < 0.0 && k == 2)
            break; /* zero to a negative power is nobody's signal */
        assert_ok(
            gradreg_regularizer_observe_layers(scene.t->regularizer, signals[k], MODEL_LAYERS));
        oracle_observe_layers(scene.t->oracle, signals[k]);
        step(&scene, TRAINER_COMBINE);
    }
    close_scene(&scene);
}
END_TEST

/* A step given up in the middle has not been: counters, correction and noise are as before. */
START_TEST(a_cancelled_step_leaves_no_trace)
{
    int i = _i;
    const trainer_setup setup = { .name = "cancelled" };
    gradreg_regularizer_params p = defaults();

    p.difference = difference(take(&i, 2));
    p.second_gradient = GRADREG_SECOND_GRADIENT_OVERWRITES + take(&i, 2);
    p.placement = GRADREG_PLACEMENT_IN_PLACE + take(&i, 2);
    p.interval = 2;
    p.noise.rule = GRADREG_NOISE_RELATIVE;
    struct scene scene = open_scene(&p, &setup);
    trainer *t = scene.t;
    t->with_noise = true;
    some_steps(&scene, 2);
    char *clean = trainer_copy(t, TRAINER_PARAMS);
    for (int depth = 0; depth <= (p.difference == GRADREG_DIFFERENCE_CENTRAL ? 2 : 1);
         depth++) {
        assert_ok(gradreg_regularizer_inject_noise(t->regularizer, &t->buffers));
        trainer_fill_numbers(t, TRAINER_GRADS, 3, 1.0);
        if (depth > 0)
            assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
        if (depth > 1)
            assert_ok(gradreg_regularizer_mirror(t->regularizer, &t->buffers));
        assert_ok(gradreg_regularizer_cancel(t->regularizer, &t->buffers));
        trainer_assert_same(t, TRAINER_PARAMS, clean, "theta");
    }
    some_steps(&scene, 2);
    free(clean);
    close_scene(&scene);
}
END_TEST

/* ---------------------------------------------------------------------------- noise */

START_TEST(noise_agrees_with_the_oracle)
{
    int i = _i;
    const trainer_setup setup = { .name = "noise", .scattered = _i % 3 == 0 };
    gradreg_regularizer_params p = defaults();

    p.noise.rule = GRADREG_NOISE_RELATIVE + take(&i, 3);
    p.difference = difference(take(&i, 2));
    p.placement = GRADREG_PLACEMENT_IN_PLACE + take(&i, 2);
    p.step = GRADREG_STEP_RAW + take(&i, LAST_STEP);
    p.noise.scale = take(&i, 2) != 0 ? -0.05 : 0.0;
    p.param_type =
        p.noise.rule == GRADREG_NOISE_STEP ? GRADREG_TYPE_F32 : all_types[_i % LAST_TYPE];
    p.noise.roles = GRADREG_ROLE_ATTENTION | GRADREG_ROLE_MLP;
    p.noise.first_layer = 0;
    p.noise.last_layer = 1;
    struct scene scene = open_scene(&p, &setup);
    scene.t->with_noise = true;
    some_steps(&scene, 3); /* the first finds no direction, and says so */
    scene.t->with_noise = false;
    step(&scene, TRAINER_COMBINE);
    close_scene(&scene);
}
END_TEST

/* Noise goes along g1, whatever delta goes along. */
START_TEST(noise_beside_another_direction)
{
    const trainer_setup setup = { .name = "noise beside a direction" };
    gradreg_regularizer_params p = defaults();

    p.noise.rule = GRADREG_NOISE_RELATIVE + _i;
    p.direction = GRADREG_DIRECTION_CALLER;
    struct scene scene = open_scene(&p, &setup);
    trainer_fill_numbers(scene.t, TRAINER_DIRECTION, 4, 3.0);
    scene.t->with_noise = true;
    some_steps(&scene, 3);
    close_scene(&scene);
}
END_TEST

/* Which steps leave a direction: reuse does, a spoilt gradient and a fallback do not. */
START_TEST(noise_follows_the_last_usable_step)
{
    const trainer_setup setup = { .name = "noise direction" };
    gradreg_regularizer_params p = defaults();

    p.noise.rule = GRADREG_NOISE_RELATIVE;
    p.interval = 2;
    struct scene scene = open_scene(&p, &setup);
    scene.t->with_noise = true;
    step(&scene, TRAINER_FALLBACK);
    some_steps(&scene, 3);
    scene.source.value = INFINITY;
    scene.source.spoilt = _i;
    step(&scene, TRAINER_COMBINE);
    scene.source.spoilt = -1;
    some_steps(&scene, 3);
    step(&scene, TRAINER_FALLBACK);
    some_steps(&scene, 2);
    close_scene(&scene);
}
END_TEST

/* ---------------------------------------------------------------------------- the rest */

/* Scaled gradients in, scaled g_hat out, norms and clips of what is behind them. */
START_TEST(a_loss_scale_passes_through)
{
    static const float scales[] = { 1024.0f, 24.0f, 0.7f, -3.0f };
    int i = _i;
    const trainer_setup setup = { .name = "loss scale", .grad_scale = scales[take(&i, 4)] };
    gradreg_regularizer_params p = defaults();

    p.difference = difference(take(&i, 2));
    p.common_clip = take(&i, 2);
    p.step = GRADREG_STEP_RAW + take(&i, LAST_STEP);
    p.depth = GRADREG_DEPTH_ON_UPDATE + take(&i, 2);
    p.interval = 2;
    struct scene scene = open_scene(&p, &setup);
    some_steps(&scene, 3);
    close_scene(&scene);
}
END_TEST

/* (L2 - L1) / <g1, theta' - theta>, in double from what the library was told and did. */
START_TEST(observed_losses_give_the_first_order_ratio)
{
    const trainer_setup setup = { .name = "losses" };
    gradreg_regularizer_params p = defaults();
    gradreg_terms terms = GRADREG_TERMS_INIT;
    double along = 0.0, magnitude = 0.0;

    p.clip_first = p.clip_second = 0.0;
    struct scene scene = open_scene(&p, &setup);
    trainer *t = scene.t;
    step(&scene, TRAINER_COMBINE);
    const float first = (float)model_loss(scene.source.m, t->theta);
    const float second = (float)model_loss(scene.source.m, t->there);
    for (size_t s = 0; s < MODEL_SEGMENTS; s++)
        for (size_t i = t->oracle->start[s]; i < t->oracle->start[s + 1]; i++) {
            along += t->first[i] * (t->there[i] - t->theta[i]);
            magnitude += fabs(t->first[i] * (t->there[i] - t->theta[i]));
        }
    assert_ok(gradreg_regularizer_observe_losses(t->regularizer, &first, &second));
    assert_ok(gradreg_regularizer_terms(t->regularizer, &terms, NULL, 0));
    const double want = ((double)second - (double)first) / along;
    ck_assert_double_eq_tol(terms.first_order_ratio, want,
                            fabs(want) * 1e-6 * magnitude / along);
    ck_assert_double_eq_tol(terms.first_order_ratio, 1.0, 0.05);
    close_scene(&scene);
}
END_TEST

START_TEST(the_first_needed_layer_is_told)
{
    gradreg_regularizer_params p = defaults();
    const trainer_setup setup = { .name = "needed layer" };
    int32_t layer = -5;

    p.common_clip = 1;
    p.second_pass = _i != 0 ? GRADREG_SECOND_PASS_TRUNCATED : GRADREG_SECOND_PASS_FULL;
    p.schedule.first_layer = p.schedule.full_layer = _i == 2 ? MODEL_LAYERS : 2;
    p.schedule.outside_multiplier = _i == 3 ? 0.5 : 0.0;
    struct scene scene = open_scene(&p, &setup);
    assert_ok(gradreg_regularizer_first_needed_layer(scene.t->regularizer, &layer));
    ck_assert_int_eq(layer, oracle_first_needed_layer(scene.t->oracle));
    ck_assert_int_eq(layer, _i == 1 ? 2 : _i == 2 ? MODEL_LAYERS : GRADREG_LAYER_NONE);
    step(&scene, TRAINER_COMBINE);
    close_scene(&scene);
}
END_TEST

/* ---------------------------------------------------------------------------- suite */

int main(void)
{
    Suite *suite = suite_create("situations");
    TCase *broken = tcase_create("broken"), *missing = tcase_create("missing"),
          *swallowed = tcase_create("swallowed"), *over_time = tcase_create("over time"),
          *noise = tcase_create("noise"), *rest = tcase_create("the rest");
    TCase *const all[] = { broken, missing, swallowed, over_time, noise, rest };

    tcase_add_loop_test(broken, bad_gradients_end_as_the_policy_says, 0, SPOILT_STEPS);
    tcase_add_loop_test(broken, bad_gradients_leave_a_product_of_zeros, 0, 3 * 2 * 3 * 2);
    tcase_add_loop_test(broken, a_lost_recomputation_keeps_the_old_correction, 0, 6);
    tcase_add_test(broken, without_a_correction_reuse_adds_nothing);
    tcase_add_loop_test(broken, a_fallback_leaves_the_clipped_gradient, 0, 32);
    tcase_add_loop_test(missing, absent_gradients_are_left_out, 0,
                        ABSENCES * 2 * LAST_STEP * 2 * 2);
    tcase_add_test(missing, a_gradient_that_vanishes_for_combine_is_refused);
    tcase_add_loop_test(swallowed, an_unfaithful_step_is_dropped, 0, 4);
    tcase_add_loop_test(swallowed, a_suggested_epsilon_is_the_smallest_that_works, 0,
                        3 * 2 * LAST_STEP);
    tcase_add_loop_test(over_time, strength_follows_warmup_and_decay, 0, 2 * 3 * 2 * 2);
    tcase_add_test(over_time, settings_count_from_the_next_step);
    tcase_add_loop_test(over_time, observed_layers_weigh_the_correction, 0, 16);
    tcase_add_loop_test(over_time, a_cancelled_step_leaves_no_trace, 0, 8);
    tcase_add_loop_test(noise, noise_agrees_with_the_oracle, 0, 3 * 2 * 2 * LAST_STEP * 2);
    tcase_add_loop_test(noise, noise_beside_another_direction, 0, 2);
    tcase_add_loop_test(noise, noise_follows_the_last_usable_step, 0, 2);
    tcase_add_loop_test(rest, a_loss_scale_passes_through, 0, 4 * 2 * 2 * LAST_STEP * 2);
    tcase_add_test(rest, observed_losses_give_the_first_order_ratio);
    tcase_add_loop_test(rest, the_first_needed_layer_is_told, 0, 4);
    for (size_t k = 0; k < sizeof(all) / sizeof(*all); k++)
        suite_add_tcase(suite, all[k]);
    return run_suite(suite);
}
