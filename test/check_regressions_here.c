/* check_regressions_here.c - bugs that were found in this library, by its own tests and fuzzers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "small_trainer.h"

TCase *regressions_here_case(void);

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
    fill(t->grads, 4);
    assert_ok(gradreg_regularizer_perturb(t->reg, &t->buffers));
    assert_ok(gradreg_regularizer_combine(t->reg, &t->buffers));
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

TCase *regressions_here_case(void)
{
    TCase *tests = tcase_create("bugs found here");

    tcase_add_test(tests, a_direction_is_read_on_perturbed_segments_only);
    tcase_add_test(tests, flat_buffers_and_pointers_mix_within_a_step);
    tcase_add_test(tests, gradients_by_pointer_follow_flat_weights);
    tcase_add_test(tests, sizes_do_not_wrap_around);
    return tests;
}
