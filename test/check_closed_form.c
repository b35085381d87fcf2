/* check_closed_form.c - every variant of a step, on a loss whose gradient and Hessian are known.
 *
 * Through the public interface, in f32: theta', g_hat and the terms of each variant lie within the
 * oracle's slack, which is derived from the arithmetic that the header promises (one rounding per
 * operation):
 *
 *      theta'  begin + delta, |error of delta| <= |delta| (6 u + 3 s), then the storage rounding
 *      g_hat   a + k D, |error| <= e|a| + |k| (e (|b| + |a|) + u |D|) + |k D| (2 u + 4 s), then
 *              the rounding of the sum; u = 2^-24, s = what reduce.h states for a norm, and
 *              e = 2 u + s where a clip is active, otherwise 0
 *
 * The oracle itself is held to the closed form in check_oracle.c; what f32 lets through of it is
 * measured here too. Then: exactly the combinations that the page names are refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "support.h"
#include "trainer.h"

#define ALL_ROLES 63u

/* ---------------------------------------------------------------------------- variants */

/* The step's length, about the same whatever the rule. */
static double epsilon_for(const gradreg_regularizer_params *p, double length)
{
    return p->step == GRADREG_STEP_NORMALIZED ? length
           : p->step == GRADREG_STEP_RELATIVE ? length / 10.0
                                              : length / 20.0;
}

enum clips { NO_CLIP, COMMON_CLIP, SEPARATE_CLIPS };

static void set_clips(gradreg_regularizer_params *p, enum clips clips)
{
    if (clips == NO_CLIP)
        return;
    p->clip_first = 9.0; /* the model's gradient is longer at every point of these tests */
    p->clip_second = 8.0;
    p->common_clip = clips == COMMON_CLIP;
}

enum { FORMS = LAST_STEP * 2 * 2 * 2, VARIANTS = FORMS * 3 * 3 * 2 * 2 };

static gradreg_regularizer_params form(int *i)
{
    gradreg_regularizer_params p = model_params();

    p.step = GRADREG_STEP_RAW + take(i, LAST_STEP);
    p.difference = take(i, 2) != 0 ? GRADREG_DIFFERENCE_CENTRAL : GRADREG_DIFFERENCE_FORWARD;
    p.penalty = GRADREG_PENALTY_SQUARED_NORM + take(i, 2);
    p.depth = GRADREG_DEPTH_ON_UPDATE + take(i, 2);
    p.epsilon = epsilon_for(&p, 0x1p-5);
    return p;
}

static gradreg_regularizer_params variant(int i)
{
    gradreg_regularizer_params p = form(&i);

    set_clips(&p, (enum clips)take(&i, 3));
    switch (take(&i, 3)) {
    case 0: p.first_gradient = GRADREG_FIRST_GRADIENT_COPIED; break;
    case 1: p.first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS; break;
    default: p.interval = 2; break;
    }
    p.placement = GRADREG_PLACEMENT_IN_PLACE + take(&i, 2);
    p.second_gradient = GRADREG_SECOND_GRADIENT_OVERWRITES + take(&i, 2);
    return p;
}

static const char *describe(const gradreg_regularizer_params *p)
{
    static char text[160];

    snprintf(text, sizeof(text),
             "step %d difference %d penalty %d depth %d direction %d output %d noise %d clips "
             "%g %g %d "
             "first %d second %d pass %d placement %d interval %d types %d %d",
             p->step, p->difference, p->penalty, p->depth, p->direction, p->output,
             p->noise.rule, p->clip_first, p->clip_second, p->common_clip, p->first_gradient,
             p->second_gradient, p->second_pass, p->placement, p->interval, p->param_type,
             p->grad_type);
    return text;
}

/* ---------------------------------------------------------------------------- running them */

static void gradient(void *user, double *out, const double *theta)
{
    model_gradient(user, out, theta);
}

/* A step of plain descent: the next one begins elsewhere. */
static void descend(trainer *t)
{
    const size_t n = oracle_size(t->oracle);

    trainer_read(t, TRAINER_PARAMS, t->theta);
    for (size_t i = 0; i < n; i++)
        t->theta[i] -= 1e-3 * t->stored[i];
    trainer_write(t, TRAINER_PARAMS, t->theta);
}

static trainer *open_trainer(const gradreg_regularizer_params *p,
                             const gradreg_segment *segments, const trainer_setup *setup)
{
    trainer *t = trainer_open(segments, MODEL_SEGMENTS, p, setup);
    double values[MODEL_ELEMENTS];

    model_fill(values, MODEL_ELEMENTS, 2.0, 5);
    trainer_write(t, TRAINER_PARAMS, values);
    model_fill(values, MODEL_ELEMENTS, 3.0, 17);
    if (p->direction == GRADREG_DIRECTION_CALLER)
        trainer_write(t, TRAINER_DIRECTION, values);
    return t;
}

static void run_steps(const gradreg_regularizer_params *p, const gradreg_segment *segments,
                      trainer_setup setup, int steps)
{
    model *m = model_new(MODEL_ELEMENTS, 3);

    setup.name = describe(p);
    trainer *t = open_trainer(p, segments, &setup);
    for (int step = 0; step < steps; step++) {
        trainer_run(t, gradient, m, TRAINER_COMBINE);
        descend(t);
    }
    trainer_close(t);
    model_free(m);
}

START_TEST(every_variant_agrees_with_the_oracle)
{
    const gradreg_regularizer_params p = variant(_i);
    const trainer_setup setup = { 0 };

    if (LEFT_OUT_UNDER_TSAN(_i))
        return;
    run_steps(&p, model_segments, setup, p.interval > 1 ? 4 : 2);
}
END_TEST

/* Roles that are perturbed but not regularized, and the other way round; weights outside the
 * blocks; frozen tensors and copies that another rank counts. */
START_TEST(roles_and_flags_agree_with_the_oracle)
{
    int i = _i;
    gradreg_regularizer_params p = form(&i);
    gradreg_segment segments[MODEL_SEGMENTS];
    const trainer_setup setup = { 0 };

    memcpy(segments, model_segments, sizeof(segments));
    segments[4].flags = GRADREG_SEGMENT_FROZEN;
    segments[11].flags = GRADREG_SEGMENT_REPLICA;
    segments[13].flags = GRADREG_SEGMENT_REPLICA;
    segments[15].flags = GRADREG_SEGMENT_FROZEN;
    p.perturbed_roles = ALL_ROLES & ~(uint32_t)GRADREG_ROLE_NORM;
    p.regularized_roles = GRADREG_ROLE_NORM | GRADREG_ROLE_MLP | GRADREG_ROLE_HEAD;
    p.schedule.outside_multiplier = 0.4;
    set_clips(&p, (enum clips)take(&i, 3));
    run_steps(&p, segments, setup, 2);
}
END_TEST

/* A caller's direction replaces u, and nothing else. */
START_TEST(directions_of_the_caller_agree_with_the_oracle)
{
    int i = _i;
    gradreg_regularizer_params p = form(&i);
    const trainer_setup setup = { 0 };

    p.direction = GRADREG_DIRECTION_CALLER;
    set_clips(&p, (enum clips)take(&i, 3));
    p.interval = 1 + take(&i, 2);
    run_steps(&p, model_segments, setup, 2);
}
END_TEST

/* step x difference x direction x {OVERWRITES, ADDS} x {in place, out of place}; clips, depth and
 * penalty are there and have no say. */
enum { PRODUCTS = 2 * 2 * 2 * 2 * 2 };

static gradreg_regularizer_params product(int i)
{
    gradreg_regularizer_params p = model_params();

    set_clips(&p, SEPARATE_CLIPS);
    p.output = GRADREG_OUTPUT_PRODUCT;
    p.step = GRADREG_STEP_RAW + take(&i, 2);
    p.difference = take(&i, 2) != 0 ? GRADREG_DIFFERENCE_CENTRAL : GRADREG_DIFFERENCE_FORWARD;
    p.direction = GRADREG_DIRECTION_GRADIENT + take(&i, 2);
    p.second_gradient = GRADREG_SECOND_GRADIENT_OVERWRITES + take(&i, 2);
    p.placement = GRADREG_PLACEMENT_IN_PLACE + take(&i, 2);
    p.depth = GRADREG_DEPTH_ON_PENALTY;
    p.penalty = GRADREG_PENALTY_NORM;
    p.interval = 3;
    p.perturbed_roles = ALL_ROLES;
    p.schedule.outside_multiplier = 1.0;
    p.epsilon = epsilon_for(&p, 0x1p-5);
    return p;
}

START_TEST(products_agree_with_the_oracle)
{
    const gradreg_regularizer_params p = product(_i);
    const trainer_setup setup = { 0 };

    run_steps(&p, model_segments, setup, 2);
}
END_TEST

/* What a truncated backward pass does not make is never read: here it is NaN. */
START_TEST(truncated_passes_agree_with_the_oracle)
{
    int i = _i;
    gradreg_regularizer_params p = model_params();
    trainer_setup setup = { 0 };

    p.step = GRADREG_STEP_RAW + take(&i, LAST_STEP);
    p.difference = take(&i, 2) != 0 ? GRADREG_DIFFERENCE_CENTRAL : GRADREG_DIFFERENCE_FORWARD;
    p.penalty = GRADREG_PENALTY_SQUARED_NORM + take(&i, 2);
    p.epsilon = epsilon_for(&p, 0x1p-5);
    p.second_pass = GRADREG_SECOND_PASS_TRUNCATED;
    set_clips(&p, (enum clips)take(&i, 2));
    p.interval = 1 + take(&i, 2);
    setup.poison = true;
    run_steps(&p, model_segments, setup, 2);
}
END_TEST

/* ---------------------------------------------------------------------------- types */

/* Every pair, and f32 that the forward pass casts to each other type. */
enum { CASTS = LAST_TYPE - 1, TYPINGS = TYPE_PAIRS + CASTS };

START_TEST(every_type_pair_agrees_with_the_oracle)
{
    int i = _i;
    gradreg_regularizer_params p = form(&i);
    trainer_setup setup = { 0 };
    const int typing = take(&i, TYPINGS);

    p.param_type = typing < TYPE_PAIRS ? type_pairs[typing].param : GRADREG_TYPE_F32;
    p.grad_type = typing < TYPE_PAIRS ? type_pairs[typing].grad : GRADREG_TYPE_F32;
    if (typing >= TYPE_PAIRS)
        p.compute_type = all_types[1 + typing - TYPE_PAIRS];
    p.epsilon = epsilon_for(&p, 0.5); /* long enough to move bf16 weights */
    p.interval = 1 + _i % 2;
    set_clips(&p, (enum clips)(_i / FORMS % 3));
    setup.scattered = _i % 2 != 0;
    setup.misalignment = (size_t)(_i % 3);
    setup.grad_scale = _i % 5 == 0 ? 24.0f : 0.0f;
    run_steps(&p, model_segments, setup, 2);
}
END_TEST

/* Adapters in f32 on bf16 layers, a head in f16: every pair in one table. */
START_TEST(mixed_types_agree_with_the_oracle)
{
    int i = _i;
    gradreg_regularizer_params p = form(&i);
    gradreg_segment segments[MODEL_SEGMENTS];
    trainer_setup setup = { 0 };

    memcpy(segments, model_segments, sizeof(segments));
    for (size_t s = 0; s < MODEL_SEGMENTS; s++) {
        segments[s].param_type = type_pairs[s % TYPE_PAIRS].param;
        segments[s].grad_type = type_pairs[s % TYPE_PAIRS].grad;
    }
    segments[5].param_type = segments[5].grad_type = 0;
    p.epsilon = epsilon_for(&p, 0.5);
    set_clips(&p, (enum clips)take(&i, 3));
    setup.scattered = true;
    run_steps(&p, segments, setup, 2);
}
END_TEST

/* ---------------------------------------------------------------------------- the closed form */

/* |library's correction - kappa/nu H w| for a step of this length, and the correction's norm. */
static double correction_error(gradreg_regularizer_params p, double length, double *size)
{
    model *m = model_new(MODEL_ELEMENTS, 3);
    double exact[MODEL_ELEMENTS], error = 0.0, sum = 0.0;
    const trainer_setup setup = { .name = describe(&p) };

    p.epsilon = epsilon_for(&p, length);
    trainer *t = open_trainer(&p, model_segments, &setup);
    trainer_run(t, gradient, m, TRAINER_COMBINE);
    /* The oracle's delta says along what; how long it is falls out. */
    model_hessian_times(m, exact, t->theta, t->step->delta);
    for (size_t s = 0; s < MODEL_SEGMENTS; s++)
        for (size_t i = t->oracle->start[s]; i < t->oracle->start[s + 1]; i++) {
            const double weight =
                p.depth == GRADREG_DEPTH_ON_PENALTY ? 1.0 : oracle_weight(t->oracle, s);
            const double k =
                t->oracle->regularized[s]
                    ? p.strength * weight / (t->step->effective_epsilon * t->step->nu)
                    : 0.0;
            const double off = t->stored[i] - t->first[i] - k * exact[i];
            error += off * off;
            sum += k * exact[i] * k * exact[i];
        }
    *size = sqrt(sum);
    trainer_close(t);
    model_free(m);
    return sqrt(error);
}

/* As far as f32 carries: its noise is about u ||g|| / ||delta||, 2^-18 or less at these lengths,
 * and central differences are good to that at shorter ones. */
START_TEST(the_library_converges_at_its_order)
{
    int i = _i;
    gradreg_regularizer_params p = form(&i);
    const double order = p.difference == GRADREG_DIFFERENCE_CENTRAL ? 2.0 : 1.0;
    double length = order > 1.5 ? 1.0 : 0.25, size = 0.0;

    p.strength = 10.0;
    double error = correction_error(p, length, &size);
    for (int halvings = 0; halvings < 3; halvings++) {
        length /= 2.0;
        const double next = correction_error(p, length, &size);
        assert_that(fabs(log2(error / next) - order) < 0.15, "%s: %g then %g of %g",
                    describe(&p), error, next, size);
        error = next;
    }
    ck_assert_double_lt(error, 0.02 * size);
}
END_TEST

/* lambda = epsilon, NORMALIZED, NORM, m = 1, all roles: g_hat is g2. */
START_TEST(the_library_does_sam)
{
    gradreg_regularizer_params p = model_params();
    const trainer_setup setup = { .name = "SAM" };
    model *m = model_new(MODEL_ELEMENTS, 3);

    p.step = GRADREG_STEP_NORMALIZED;
    p.penalty = GRADREG_PENALTY_NORM;
    p.depth = GRADREG_DEPTH_ON_UPDATE + _i;
    p.schedule.first_layer = p.schedule.full_layer = 0;
    p.schedule.outside_multiplier = 1.0;
    p.perturbed_roles = p.regularized_roles = ALL_ROLES;
    p.strength = p.epsilon = 0.05;
    trainer *t = open_trainer(&p, model_segments, &setup);
    trainer_run(t, gradient, m, TRAINER_COMBINE);
    for (size_t i = 0; i < MODEL_ELEMENTS; i++) {
        const double bound =
            ORACLE_ROUNDING * (4.0 * fabs(t->second[i] - t->first[i]) + fabs(t->second[i]));
        assert_that(fabs(t->stored[i] - t->second[i]) <= bound, "element %zu: %a, g2 is %a", i,
                    t->stored[i], t->second[i]);
    }
    trainer_close(t);
    model_free(m);
}
END_TEST

/* ---------------------------------------------------------------------------- refusals */

struct choice {
    size_t offset;
    int32_t values[4];
    int count;
};

#define FIELD(name) offsetof(gradreg_regularizer_params, name)
static const struct choice choices[] = {
    { FIELD(step), { 1, 2, 3 }, 3 },           { FIELD(difference), { 1, 2, 3 }, 3 },
    { FIELD(penalty), { 1, 2 }, 2 },           { FIELD(depth), { 1, 2 }, 2 },
    { FIELD(direction), { 1, 2, 3, 4 }, 4 },   { FIELD(output), { 1, 2, 3 }, 3 },
    { FIELD(first_gradient), { 1, 2, 3 }, 3 }, { FIELD(second_gradient), { 1, 2 }, 2 },
    { FIELD(second_pass), { 1, 2 }, 2 },       { FIELD(placement), { 1, 2 }, 2 },
    { FIELD(restore), { 1, 2 }, 2 },           { FIELD(interval), { 1, 5 }, 2 },
    { FIELD(rounding), { 1, 2 }, 2 },
};
enum { CHOICES = sizeof(choices) / sizeof(*choices), CLIP_CHOICES = 5 };

static gradreg_regularizer_params choose(int i)
{
    static const double clips[CLIP_CHOICES][3] = {
        { 0, 0, 0 }, { 1, 0, 0 }, { 0, 1, 0 }, { 1, 1, 0 }, { 1, 1, 1 }
    };
    gradreg_regularizer_params p = model_params();
    const double *clip = clips[take(&i, CLIP_CHOICES)];

    p.clip_first = clip[0];
    p.clip_second = clip[1];
    p.common_clip = (int32_t)clip[2];
    for (size_t c = 0; c < CHOICES; c++)
        memcpy((char *)&p + choices[c].offset, &choices[c].values[take(&i, choices[c].count)],
               sizeof(int32_t));
    return p;
}

static int combinations(void)
{
    int n = CLIP_CHOICES;

    for (size_t c = 0; c < CHOICES; c++)
        n *= choices[c].count;
    return n;
}

static void assert_refusal(gradreg_context *context, const gradreg_segment *segments,
                           size_t count, const gradreg_regularizer_params *p)
{
    const gradreg_status want = oracle_refusal(segments, count, p);
    gradreg_regularizer *regularizer = NULL;
    size_t bytes = 0;

    const gradreg_status measured =
        gradreg_regularizer_workspace_bytes(&bytes, context, segments, count, p);
    assert_that(measured == want, "%s: workspace_bytes says %s, want %s: %s", describe(p),
                gradreg_status_name(measured), gradreg_status_name(want), gradreg_last_error());
    const gradreg_status created =
        gradreg_regularizer_create(&regularizer, context, segments, count, p);
    assert_that(created == want, "%s: create says %s, want %s: %s", describe(p),
                gradreg_status_name(created), gradreg_status_name(want), gradreg_last_error());
    assert_that((regularizer != NULL) == (want == GRADREG_OK), "%s: handle %p", describe(p),
                (void *)regularizer);
    assert_ok(gradreg_regularizer_destroy(regularizer));
}

START_TEST(exactly_the_named_combinations_are_refused)
{
    const int n = combinations();
    gradreg_context *context = NULL;
    int refused = 0;

    assert_ok(test_context_create(&context, NULL));
    for (int i = _i; i < n; i += 8) {
        const gradreg_regularizer_params p = choose(i);
        assert_refusal(context, model_segments, MODEL_SEGMENTS, &p);
        refused += oracle_refusal(model_segments, MODEL_SEGMENTS, &p) != GRADREG_OK;
    }
    ck_assert_int_gt(refused, 0);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* Noise as long as the Hessian step: not where that is zero, not where rounding eats it, not where
 * it lies along something else. */
enum { NOISES = 4 * 2 * 3 * 2 * 2 * 2 * 2 * 2 * 2 };

static gradreg_regularizer_params noisy(int i)
{
    static const struct {
        gradreg_type param, grad, compute;
    } types[] = { { 1, 1, 0 }, { 1, 1, 2 }, { 2, 1, 0 } };
    gradreg_regularizer_params p = model_params();

    p.noise.rule = GRADREG_NOISE_OFF + take(&i, 4);
    p.depth = GRADREG_DEPTH_ON_UPDATE + take(&i, 2);
    const int t = take(&i, 3);
    p.param_type = types[t].param;
    p.grad_type = types[t].grad;
    p.compute_type = types[t].compute;
    p.perturbed_roles = take(&i, 2) != 0 ? GRADREG_ROLE_MLP : 0;
    if (take(&i, 2) != 0)
        p.noise.roles = GRADREG_ROLE_MLP | GRADREG_ROLE_ATTENTION;
    if (take(&i, 2) != 0) {
        p.noise.first_layer = 2;
        p.noise.last_layer = 3;
    }
    p.output = GRADREG_OUTPUT_REGULARIZED + take(&i, 2);
    p.direction = GRADREG_DIRECTION_GRADIENT + take(&i, 2);
    p.schedule.first_layer = take(&i, 2);
    return p;
}

START_TEST(noise_that_cannot_be_is_refused)
{
    gradreg_context *context = NULL;
    int refused = 0;

    assert_ok(test_context_create(&context, NULL));
    for (int i = 0; i < NOISES; i++) {
        const gradreg_regularizer_params p = noisy(i);
        assert_refusal(context, model_segments, MODEL_SEGMENTS, &p);
        refused += oracle_refusal(model_segments, MODEL_SEGMENTS, &p) != GRADREG_OK;
    }
    ck_assert_int_gt(refused, NOISES / 16);
    ck_assert_int_lt(refused, NOISES / 2);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---------------------------------------------------------------------------- suite */

int main(void)
{
    Suite *suite = suite_create("closed form");
    TCase *product_case = tcase_create("product"), *form_case = tcase_create("closed form"),
          *refusal_case = tcase_create("refusals");

    add_loop_test(product_case, every_variant_agrees_with_the_oracle, 0, VARIANTS);
    add_loop_test(product_case, roles_and_flags_agree_with_the_oracle, 0, FORMS * 3);
    add_loop_test(product_case, directions_of_the_caller_agree_with_the_oracle, 0,
                  FORMS * 3 * 2);
    add_loop_test(product_case, products_agree_with_the_oracle, 0, PRODUCTS);
    add_loop_test(product_case, truncated_passes_agree_with_the_oracle, 0,
                  LAST_STEP * 2 * 2 * 2 * 2);
    add_loop_test(product_case, every_type_pair_agrees_with_the_oracle, 0, FORMS * TYPINGS);
    add_loop_test(product_case, mixed_types_agree_with_the_oracle, 0, FORMS * 3);
    add_loop_test(form_case, the_library_converges_at_its_order, 0, FORMS);
    add_loop_test(form_case, the_library_does_sam, 0, 2);
    add_loop_test(refusal_case, exactly_the_named_combinations_are_refused, 0, 8);
    tcase_add_test(refusal_case, noise_that_cannot_be_is_refused);
    tcase_set_timeout(refusal_case, 120.0);
    suite_add_tcase(suite, product_case);
    suite_add_tcase(suite, form_case);
    suite_add_tcase(suite, refusal_case);
    return run_suite(suite);
}
