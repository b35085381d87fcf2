/* check_regressions_here.c - bugs that were found in this library, by its own tests and fuzzers. */
#include <fenv.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "small_trainer.h"

TCase *regressions_here_case(void);

/* Whose numbers do not matter. */
static void take_step(struct trainer *t)
{
    fill(t->grads, 4);
    assert_ok(gradreg_regularizer_perturb(t->reg, &t->buffers));
    assert_ok(gradreg_regularizer_combine(t->reg, &t->buffers));
}

/* combine read the caller's direction where it is not given: on segments that are not perturbed. */
START_TEST(a_direction_is_read_on_perturbed_segments_only)
{
    gradreg_regularizer_params p = plain();
    float first[ELEMENTS], second[ELEMENTS];
    const void *directions[SEGMENTS];

    p.direction = GRADREG_DIRECTION_CALLER;
    struct trainer *t = open_trainer(small_table, &p);
    for (size_t s = 0; s < SEGMENTS; s++)
        directions[s] = s == 3 ? NULL : t->direction + small_table[s].offset;
    t->buffers.direction_pointers = directions;
    fill(first, 4);
    fill(second, 9);
    step_with(t, first, second);
    for (size_t i = 3 * PART; i < ELEMENTS; i++)
        ck_assert_uint_eq(float_bits(t->grads[i]), float_bits(first[i]));
    const gradreg_terms terms = terms_of(t);
    ck_assert(isfinite(terms.curvature) && isfinite(terms.hvp_norm));
    close_trainer(t);
}
END_TEST

/* Weights by pointer and gradients flat: cancel, which brings the weights only, was refused. */
START_TEST(flat_buffers_and_pointers_mix_within_a_step)
{
    gradreg_regularizer_params p = plain();
    float theta[ELEMENTS];
    void *params[SEGMENTS];

    p.noise.rule = GRADREG_NOISE_NEFTUNE;
    p.noise.first_layer = p.noise.last_layer = 0;
    struct trainer *t = open_trainer(small_table, &p);
    memcpy(theta, t->theta, sizeof(theta));
    for (size_t s = 0; s < SEGMENTS; s++)
        params[s] = t->theta + small_table[s].offset;
    t->buffers.params = NULL;
    t->buffers.param_pointers = params;
    fill(t->grads, 4);
    assert_ok(gradreg_regularizer_inject_noise(t->reg, &t->buffers));
    assert_ok(gradreg_regularizer_perturb(t->reg, &t->buffers));
    assert_ok(gradreg_regularizer_cancel(t->reg, &t->buffers));
    assert_ok(gradreg_regularizer_perturb(t->reg, &t->buffers));
    assert_ok(gradreg_regularizer_combine(t->reg, &t->buffers));
    assert_bits(t->theta, theta, "theta");
    close_trainer(t);
}
END_TEST

/* With theta' elsewhere combine brings gradients only: by pointer, after flat weights. */
START_TEST(gradients_by_pointer_follow_flat_weights)
{
    gradreg_regularizer_params p = plain();
    void *grads[SEGMENTS];

    p.placement = GRADREG_PLACEMENT_OUT_OF_PLACE;
    struct trainer *t = open_trainer(small_table, &p);
    for (size_t s = 0; s < SEGMENTS; s++)
        grads[s] = t->grads + small_table[s].offset;
    t->buffers.grads = NULL;
    t->buffers.grad_pointers = grads;
    t->buffers.perturbed_params = t->elsewhere;
    take_step(t);
    close_trainer(t);
}
END_TEST

/* Bytes of a table whose counts add up to more than memory can address came out small. */
START_TEST(sizes_do_not_wrap_around)
{
    gradreg_regularizer_params p = plain();
    gradreg_segment segments[SEGMENTS];
    struct trainer *t = open_trainer(small_table, &p);
    size_t bytes = 0;

    memcpy(segments, small_table, sizeof(segments));
    for (size_t s = 0; s < SEGMENTS; s++) {
        segments[s].offset = (uint64_t)s << 60;
        segments[s].count = UINT64_C(1) << 58;
    }
    assert_fails(
        gradreg_regularizer_workspace_bytes(&bytes, t->context, segments, SEGMENTS, &p),
        GRADREG_ERROR_INVALID_ARGUMENT, "segments[1]", "288230376151711744");
    close_trainer(t);
}
END_TEST

/* A sum of signals next to the largest double was infinite, and every multiplier a_min. */
START_TEST(signals_of_any_size_have_a_mean)
{
    static const double sizes[] = { 1.0, 0x1p1023, 0x1.8p+1023, 0x1p-1074, 0x1p-1030 };
    gradreg_regularizer_params p = plain();
    double signals[LAYERS];

    p.adaptive.a_min = 0x1p-7;
    p.adaptive.a_max = 8.0;
    struct trainer *t = open_trainer(small_table, &p);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        gradreg_terms layers[LAYERS] = { GRADREG_TERMS_INIT };
        for (size_t l = 0; l < LAYERS; l++)
            signals[l] = sizes[i];
        assert_ok(gradreg_regularizer_observe_layers(t->reg, signals, LAYERS));
        take_step(t);
        assert_ok(gradreg_regularizer_terms(t->reg, NULL, layers, LAYERS));
        for (size_t l = 0; l < LAYERS; l++)
            ck_assert_double_eq_tol(layers[l].strength, p.strength, 1e-15);
    }
    close_trainer(t);
}
END_TEST

/* set_step takes 2^53; what was saved one step later was refused. */
START_TEST(a_state_after_the_last_step_that_can_be_set_loads)
{
    const gradreg_regularizer_params p = plain();
    struct trainer *t = open_trainer(small_table, &p);
    size_t bytes = 0;

    assert_ok(gradreg_regularizer_set_step(t->reg, UINT64_C(1) << 53));
    take_step(t);
    assert_ok(gradreg_regularizer_state_bytes(t->reg, &bytes));
    void *state = calloc(1, bytes);
    ck_assert_ptr_nonnull(state);
    assert_ok(gradreg_regularizer_state_save(t->reg, state, bytes));
    assert_ok(gradreg_regularizer_state_load(t->reg, state, bytes));
    free(state);
    close_trainer(t);
}
END_TEST

/* A NaN was compared before it was looked for, in the host's environment, where that may trap. */
START_TEST(a_bad_number_raises_no_exception)
{
    gradreg_regularizer_params p = plain();
    struct trainer *t = open_trainer(small_table, &p);
    double epsilon = 7.0;
    size_t bytes;

    fill(t->grads, 4);
    (void)feclearexcept(FE_ALL_EXCEPT);
    assert_fails(
        gradreg_regularizer_suggest_epsilon(t->reg, &epsilon, &t->buffers, (double)NAN),
        GRADREG_ERROR_INVALID_ARGUMENT, "target_cosine is nan");
    ck_assert_double_eq(epsilon, 7.0);
    double *const numbers[] = { &p.strength,     &p.epsilon,      &p.clip_second,
                                &p.min_fidelity, &p.adaptive.ema, &p.noise.scale };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        const double before = *numbers[i];
        *numbers[i] = (double)NAN;
        assert_fails(
            gradreg_regularizer_workspace_bytes(&bytes, t->context, small_table, SEGMENTS, &p),
            GRADREG_ERROR_INVALID_ARGUMENT, "is nan, must be finite");
        *numbers[i] = before;
    }
    ck_assert_int_eq(fetestexcept(FE_INVALID), 0);
    close_trainer(t);
}
END_TEST

/* 1 / epsilon beyond f32: H u was infinity times zero, which vector paths took for different numbers. */
START_TEST(a_product_beyond_its_coefficient_is_zeros)
{
    gradreg_regularizer_params p = plain();
    float first[ELEMENTS], second[ELEMENTS];
    static const float zeros[ELEMENTS];

    p.output = GRADREG_OUTPUT_PRODUCT;
    p.epsilon = 1e-40;
    struct trainer *t = open_trainer(small_table, &p);
    fill(first, 4);
    fill(second, 9);
    step_with(t, first, second);
    assert_bits(t->grads, zeros, "H u");
    ck_assert_uint_eq(terms_of(t).flags, GRADREG_FLAG_NO_DIRECTION);
    ck_assert_double_eq(terms_of(t).update_norm, 0.0);
    close_trainer(t);
}
END_TEST

static int32_t reduce_and_round_up(void *user, double *values, size_t count, void *stream)
{
    (void)values, (void)count, (void)stream;
    (void)fesetround(*(const int *)user);
    return 0;
}

/* What all_reduce left in the floating-point environment was in the rest of the call. */
START_TEST(all_reduce_does_not_decide_how_the_step_rounds)
{
    LEAVE_OUT_ON_CUDA("the device has an environment of its own");
    float grads[2][ELEMENTS];
    gradreg_terms terms[2];

    for (int k = 0; k < 2; k++) {
        gradreg_regularizer_params p = plain();
        int rounding = k == 0 ? FE_TONEAREST : FE_UPWARD;
        p.world = 2;
        p.clip_first = p.clip_second = 0.3;
        p.all_reduce.function = reduce_and_round_up;
        p.all_reduce.user = &rounding;
        struct trainer *t = open_trainer(small_table, &p);
        float first[ELEMENTS], second[ELEMENTS];
        fill(first, 4);
        fill(second, 9);
        step_with(t, first, second);
        (void)fesetround(FE_TONEAREST);
        memcpy(grads[k], t->grads, sizeof(grads[k]));
        terms[k] = terms_of(t);
        close_trainer(t);
    }
    assert_bits(grads[1], grads[0], "g_hat");
    ck_assert_mem_eq(&terms[0], &terms[1], sizeof(terms[0]));
}
END_TEST

/* A step that ended before its gradients were compared reported a curvature of 0. */
enum spoilt {
    FIRST_IS_ZEROED,
    FIRST_IS_KEPT,
    SECOND_IS_ZEROED,
    PRODUCT_WITHOUT_DIRECTION,
    SPOILT
};

START_TEST(a_spoilt_step_compares_nothing)
{
    gradreg_regularizer_params p = plain();
    float first[ELEMENTS], second[ELEMENTS];

    p.non_finite_second = GRADREG_NON_FINITE_ZERO;
    if (_i == FIRST_IS_KEPT)
        p.non_finite_first = GRADREG_NON_FINITE_PROPAGATE;
    if (_i == PRODUCT_WITHOUT_DIRECTION)
        p.output = GRADREG_OUTPUT_PRODUCT;
    struct trainer *t = open_trainer(small_table, &p);
    fill(first, 4);
    fill(second, 9);
    if (_i == FIRST_IS_ZEROED || _i == FIRST_IS_KEPT)
        first[3] = (float)NAN;
    if (_i == SECOND_IS_ZEROED)
        second[3] = (float)NAN;
    if (_i == PRODUCT_WITHOUT_DIRECTION)
        memset(first, 0, sizeof(first));
    step_with(t, first, second);
    const gradreg_terms terms = terms_of(t);
    ck_assert(isnan(terms.alignment) && isnan(terms.difference_noise));
    ck_assert(isnan(terms.curvature) && isnan(terms.hvp_norm));
    ck_assert(isnan(terms.effective_strength));
    close_trainer(t);
}
END_TEST

/* A truncated pass takes norms that it did not see from the first gradient, and its faults with them. */
START_TEST(a_bad_first_gradient_is_not_the_seconds_fault)
{
    gradreg_regularizer_params p = plain();
    float first[ELEMENTS], second[ELEMENTS];

    p.second_pass = GRADREG_SECOND_PASS_TRUNCATED;
    p.common_clip = 1;
    p.clip_first = p.clip_second = 10.0;
    p.schedule.first_layer = p.schedule.full_layer = 1;
    struct trainer *t = open_trainer(small_table, &p);
    fill(first, 4);
    fill(second, 9);
    first[0] = (float)NAN; /* layer 0 is not seen */
    step_with(t, first, second);
    const gradreg_terms terms = terms_of(t);
    ck_assert_uint_eq(terms.flags, GRADREG_FLAG_NON_FINITE_FIRST);
    ck_assert_uint_eq(terms.non_finite_first, 1);
    ck_assert_uint_eq(terms.non_finite_second, 0);
    ck_assert(isfinite(terms.second_norm) && isnan(terms.clip_second));
    close_trainer(t);
}
END_TEST

/* lambda was called effective where nothing had been corrected. */
enum uncorrected { FELL_BACK, WAS_DROPPED, HAD_NO_DIRECTION, HAD_NOTHING_KEPT, UNCORRECTED };

START_TEST(a_strength_takes_effect_in_a_correction_only)
{
    gradreg_regularizer_params p = plain();

    p.min_fidelity = _i == WAS_DROPPED ? 0.9 : 0.0;
    p.epsilon = 0x1p-12;
    p.interval = _i == HAD_NOTHING_KEPT ? 2 : 1;
    struct trainer *t = open_trainer(small_table, &p);
    for (size_t i = 0; i < ELEMENTS; i++)
        t->theta[i] += _i == WAS_DROPPED ? 0x1p20f : 0.0f;
    fill(t->grads, 4);
    if (_i == HAD_NO_DIRECTION)
        memset(t->grads, 0, sizeof(t->grads));
    assert_ok(gradreg_regularizer_perturb(t->reg, &t->buffers));
    if (_i == FELL_BACK || _i == HAD_NOTHING_KEPT)
        assert_ok(gradreg_regularizer_fallback(t->reg, &t->buffers));
    else
        assert_ok(gradreg_regularizer_combine(t->reg, &t->buffers));
    if (_i == HAD_NOTHING_KEPT) {
        fill(t->grads, 4);
        assert_ok(gradreg_regularizer_combine(t->reg, &t->buffers));
    }
    const gradreg_terms terms = terms_of(t);
    ck_assert_double_eq(terms.strength, p.strength);
    ck_assert(isnan(terms.effective_strength));
    close_trainer(t);
}
END_TEST

/* A kept correction beyond f32 was left out without a word. */
START_TEST(a_kept_correction_that_is_too_large_is_told)
{
    gradreg_regularizer_params p = plain();
    float first[ELEMENTS], second[ELEMENTS];

    p.interval = 3;
    struct trainer *t = open_trainer(small_table, &p);
    fill(first, 4);
    fill(second, 9);
    step_with(t, first, second);
    for (int large = 0; large < 2; large++) {
        assert_ok(gradreg_regularizer_set_strength(t->reg, large ? 1e300 : p.strength));
        memcpy(t->grads, first, sizeof(first));
        assert_ok(gradreg_regularizer_combine(t->reg, &t->buffers));
        const gradreg_terms terms = terms_of(t);
        ck_assert_uint_eq(terms.flags, large ? GRADREG_FLAG_NO_DIRECTION : 0);
        ck_assert_int_eq(isnan(terms.effective_strength) != 0, large);
    }
    assert_bits(t->grads, first, "grads");
    close_trainer(t);
}
END_TEST

/* create compared each segment with every bin, and combine looked at every bin for each layer: half a
 * minute for this table, whose layers have three bins each. Now it is a fraction of a second. */
enum { MANY_LAYERS = 65536, MANY = 3 * MANY_LAYERS, MANY_SECONDS = 10 };

START_TEST(time_grows_with_layers_and_segments_not_with_their_product)
{
    static float theta[MANY], grads[MANY];
    static gradreg_segment table[MANY];
    const gradreg_segment segment = GRADREG_SEGMENT_INIT;
    const gradreg_terms empty = GRADREG_TERMS_INIT;
    gradreg_regularizer_params p = plain();
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    gradreg_terms *layers = malloc(MANY_LAYERS * sizeof(*layers)), total = empty;
    gradreg_context *context;
    gradreg_regularizer *reg;

    ck_assert_ptr_nonnull(layers);
    for (size_t i = 0; i < MANY; i++) {
        table[i] = segment;
        table[i].offset = i;
        table[i].count = 1;
        table[i].layer = (int32_t)(i / 3);
        table[i].role = i % 3 == 0 ? GRADREG_ROLE_OTHER : GRADREG_ROLE_MLP;
        table[i].flags = i % 3 == 1 ? GRADREG_SEGMENT_FROZEN : 0;
        grads[i] = i % 3 == 1 ? 0.0f : (float)(1 + i / 3);
        layers[i / 3] = empty;
    }
    p.layer_count = MANY_LAYERS;
    assert_ok(
        gradreg_context_create(&context, NULL)); /* on the CPU, whatever the suite runs on */
    assert_ok(gradreg_regularizer_create(&reg, context, table, MANY, &p));
    buffers.params = theta;
    buffers.grads = grads;
    buffers.count = MANY;
    assert_ok(gradreg_regularizer_perturb(reg, &buffers));
    assert_ok(gradreg_regularizer_combine(reg, &buffers));
    assert_ok(gradreg_regularizer_terms(reg, &total, layers, MANY_LAYERS));
    for (size_t l = 0; l < MANY_LAYERS; l++) {
        const double g = (double)(l + 1);
        ck_assert_double_eq_tol(layers[l].first_norm, sqrt(2.0) * g, 1e-6 * g);
        ck_assert_double_eq_tol(layers[l].direction_norm, g, 1e-6 * g);
        ck_assert_double_eq_tol(layers[l].perturbation_norm, p.epsilon * g, 1e-6 * g);
    }
    assert_ok(gradreg_regularizer_destroy(reg));
    assert_ok(gradreg_context_destroy(context));
    free(layers);
}
END_TEST

TCase *regressions_here_case(void)
{
    TCase *tests = tcase_create("bugs found here");

    tcase_set_timeout(tests, MANY_SECONDS);
    tcase_add_test(tests, a_direction_is_read_on_perturbed_segments_only);
    tcase_add_test(tests, flat_buffers_and_pointers_mix_within_a_step);
    tcase_add_test(tests, gradients_by_pointer_follow_flat_weights);
    tcase_add_test(tests, sizes_do_not_wrap_around);
    tcase_add_test(tests, signals_of_any_size_have_a_mean);
    tcase_add_test(tests, a_state_after_the_last_step_that_can_be_set_loads);
    tcase_add_test(tests, a_bad_number_raises_no_exception);
    tcase_add_test(tests, a_product_beyond_its_coefficient_is_zeros);
    tcase_add_test(tests, all_reduce_does_not_decide_how_the_step_rounds);
    tcase_add_loop_test(tests, a_spoilt_step_compares_nothing, 0, SPOILT);
    tcase_add_test(tests, a_bad_first_gradient_is_not_the_seconds_fault);
    tcase_add_loop_test(tests, a_strength_takes_effect_in_a_correction_only, 0, UNCORRECTED);
    tcase_add_test(tests, a_kept_correction_that_is_too_large_is_told);
    tcase_add_test(tests, time_grows_with_layers_and_segments_not_with_their_product);
    return tests;
}
