/* check_series.c - steps one after the other: strength over time, settings and observations in between,
 * a step given up, noise along the last direction, scaled losses.
 *
 * The oracle runs along in trainer_run(), as in check_situations.c. */
#include <math.h>
#include <stdlib.h>

#include "scene.h"

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
    Suite *suite = suite_create("series");
    TCase *over_time = tcase_create("over time"), *noise = tcase_create("noise"),
          *rest = tcase_create("the rest");
    TCase *const all[] = { over_time, noise, rest };

    add_loop_test(over_time, strength_follows_warmup_and_decay, 0, 2 * 3 * 2 * 2);
    tcase_add_test(over_time, settings_count_from_the_next_step);
    add_loop_test(over_time, observed_layers_weigh_the_correction, 0, 16);
    add_loop_test(over_time, a_cancelled_step_leaves_no_trace, 0, 8);
    add_loop_test(noise, noise_agrees_with_the_oracle, 0, 3 * 2 * 2 * LAST_STEP * 2);
    add_loop_test(noise, noise_beside_another_direction, 0, 2);
    add_loop_test(noise, noise_follows_the_last_usable_step, 0, 2);
    add_loop_test(rest, a_loss_scale_passes_through, 0, 4 * 2 * 2 * LAST_STEP * 2);
    tcase_add_test(rest, observed_losses_give_the_first_order_ratio);
    add_loop_test(rest, the_first_needed_layer_is_told, 0, 4);
    for (size_t k = 0; k < sizeof(all) / sizeof(*all); k++)
        suite_add_tcase(suite, all[k]);
    return run_suite(suite);
}
