/* check_oracle.c - the oracle itself, against closed forms.
 *
 * No library is involved: what the other suites compare with has to stand on its own. Gradients
 * come from the model in double, taken at the exact theta + delta, so that only the difference
 * quotient's own error is left. Rounding, schedules and refusals: check_oracle_rules.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "choices.h"
#include "model.h"
#include "oracle.h"
#include "support.h"

#define ALL_ROLES 63u

struct scene {
    model *m;
    oracle *o;
    oracle_step *step;
    double theta[MODEL_ELEMENTS], first[MODEL_ELEMENTS], plus[MODEL_ELEMENTS];
    double second[MODEL_ELEMENTS];
};

static gradreg_regularizer_params everything(void)
{
    gradreg_regularizer_params p = model_params();

    p.regularized_roles = p.perturbed_roles = ALL_ROLES;
    p.schedule.outside_multiplier = 0.7;
    return p;
}

static struct scene *open_scene(const gradreg_regularizer_params *p)
{
    struct scene *c = calloc(1, sizeof(*c));

    c->m = model_new(MODEL_ELEMENTS, 3);
    c->o = oracle_new(model_segments, MODEL_SEGMENTS, p);
    c->step = oracle_step_new(c->o);
    model_fill(c->theta, MODEL_ELEMENTS, 2.0, 5);
    return c;
}

static void close_scene(struct scene *c)
{
    model_free(c->m);
    oracle_free(c->o);
    oracle_step_free(c->step);
    free(c);
}

static void gradient_beside(struct scene *c, double *out, double side)
{
    double there[MODEL_ELEMENTS];

    for (size_t i = 0; i < MODEL_ELEMENTS; i++)
        there[i] = c->theta[i] + side * c->step->delta[i];
    model_gradient(c->m, out, there);
}

static void run(struct scene *c)
{
    const bool central = c->o->params.difference == GRADREG_DIFFERENCE_CENTRAL;

    oracle_step_free(c->step);
    c->step = oracle_step_new(c->o);
    c->step->theta = c->theta;
    c->step->first = c->first;
    c->step->plus = c->plus;
    c->step->second = c->second;
    model_gradient(c->m, c->first, c->theta);
    oracle_inject(c->o, c->step);
    if (oracle_extra_passes(c->o) > 0) {
        oracle_perturb(c->o, c->step);
        gradient_beside(c, c->plus, 1.0);
        gradient_beside(c, c->second, central ? -1.0 : 1.0);
    }
    oracle_combine(c->o, c->step);
}

static double distance(const double *x, const double *y)
{
    double sum = 0.0;

    for (size_t i = 0; i < MODEL_ELEMENTS; i++)
        sum += (x[i] - y[i]) * (x[i] - y[i]);
    return sqrt(sum);
}

static double length_of(const double *x)
{
    const double zeros[MODEL_ELEMENTS] = { 0.0 };
    return distance(x, zeros);
}

/* ---------------------------------------------------------------------------- the product */

/* step x difference x penalty x depth, and two choices of roles. */
enum { FORMS = 3 * 2 * 2 * 2 * 2 };

static gradreg_regularizer_params form(int i)
{
    gradreg_regularizer_params p = i / 24 != 0 ? everything() : model_params();

    p.step = GRADREG_STEP_RAW + i % LAST_STEP;
    p.difference = i / 3 % 2 != 0 ? GRADREG_DIFFERENCE_CENTRAL : GRADREG_DIFFERENCE_FORWARD;
    p.penalty = GRADREG_PENALTY_SQUARED_NORM + i / 6 % 2;
    p.depth = GRADREG_DEPTH_ON_UPDATE + i / 12 % 2;
    return p;
}

/* An epsilon that makes the step about as long for every rule. */
static double epsilon_for(const gradreg_regularizer_params *p, double length)
{
    return p->step == GRADREG_STEP_RAW          ? length / 20.0
           : p->step == GRADREG_STEP_NORMALIZED ? length
                                                : length / 10.0;
}

/* g + kappa/nu H (delta ||w||/||delta||), every piece made again from the model's gradient. */
static void limit_of(const struct scene *c, double *out)
{
    const gradreg_regularizer_params *p = &c->o->params;
    double g[MODEL_ELEMENTS], w[MODEL_ELEMENTS], shape[MODEL_ELEMENTS], product[MODEL_ELEMENTS];
    double group_theta[MODEL_LAYERS + 1] = { 0 }, group_g[MODEL_LAYERS + 1] = { 0 };
    double weighted = 0.0, moved = 0.0;
    size_t i = 0;

    model_gradient(c->m, g, c->theta);
    for (size_t s = 0; s < MODEL_SEGMENTS; s++)
        for (size_t e = 0; e < model_segments[s].count; e++, i++) {
            const int32_t layer = model_segments[s].layer;
            const double m = layer < 0 ? p->schedule.outside_multiplier : layer / 3.0;
            const bool moves = (model_segments[s].role & p->perturbed_roles) &&
                               (layer >= 0 || p->schedule.outside_multiplier > 0);
            const double scale = p->depth == GRADREG_DEPTH_ON_PENALTY ? m : 1.0;
            w[i] = moves ? scale * g[i] : 0.0;
            weighted += moves ? scale * g[i] * g[i] : 0.0;
            moved += moves ? g[i] * g[i] : 0.0;
            group_theta[layer + 1] += moves ? c->theta[i] * c->theta[i] : 0.0;
            group_g[layer + 1] += moves ? g[i] * g[i] : 0.0;
        }
    i = 0;
    for (size_t s = 0; s < MODEL_SEGMENTS; s++)
        for (size_t e = 0; e < model_segments[s].count; e++, i++) {
            const int32_t group = model_segments[s].layer + 1;
            shape[i] = w[i];
            if (p->step == GRADREG_STEP_RELATIVE && group_g[group] > 0.0)
                shape[i] *= sqrt(group_theta[group] / group_g[group]);
        }
    const double stretch = length_of(w) / length_of(shape);
    for (i = 0; i < MODEL_ELEMENTS; i++)
        shape[i] *= stretch;
    model_hessian_times(c->m, product, c->theta, shape);
    const double nu = p->penalty == GRADREG_PENALTY_SQUARED_NORM ? 1.0
                      : p->depth == GRADREG_DEPTH_ON_PENALTY     ? sqrt(weighted)
                                                                 : sqrt(moved);
    i = 0;
    for (size_t s = 0; s < MODEL_SEGMENTS; s++)
        for (size_t e = 0; e < model_segments[s].count; e++, i++) {
            const int32_t layer = model_segments[s].layer;
            const double m = layer < 0 ? p->schedule.outside_multiplier : layer / 3.0;
            const double strength = p->depth == GRADREG_DEPTH_ON_PENALTY ? 1.0 : m;
            const bool penalized = model_segments[s].role & p->regularized_roles;
            out[i] = g[i] + (penalized ? p->strength * strength / nu * product[i] : 0.0);
        }
}

static double error_at(gradreg_regularizer_params p, double length)
{
    double limit[MODEL_ELEMENTS];

    p.epsilon = epsilon_for(&p, length);
    struct scene *c = open_scene(&p);
    run(c);
    limit_of(c, limit);
    const double error = distance(c->step->update, limit);
    close_scene(c);
    return error;
}

/* Halving epsilon halves the error of forward differences and quarters that of central ones. */
START_TEST(differences_converge_at_their_order)
{
    const gradreg_regularizer_params p = form(_i);
    const double order = p.difference == GRADREG_DIFFERENCE_CENTRAL ? 2.0 : 1.0;
    const double length = order > 1.5 ? 0x1p-5 : 0x1p-12;
    double error = error_at(p, length);

    for (int halvings = 1; halvings <= 3; halvings++) {
        const double next = error_at(p, length / exp2(halvings));
        ck_assert_msg(fabs(log2(error / next) - order) < 0.02, "form %d: %g then %g", _i, error,
                      next);
        error = next;
    }
}
END_TEST

/* H Lambda g, numerically: the penalty's own gradient by fourth-order differences. */
static double penalty_at(const struct scene *c, const double *theta)
{
    const gradreg_regularizer_params *p = &c->o->params;
    double g[MODEL_ELEMENTS], sum = 0.0;
    size_t i = 0;

    model_gradient(c->m, g, theta);
    for (size_t s = 0; s < MODEL_SEGMENTS; s++)
        for (size_t e = 0; e < model_segments[s].count; e++, i++) {
            const int32_t layer = model_segments[s].layer;
            const double m = layer < 0 ? p->schedule.outside_multiplier : layer / 3.0;
            sum += m * g[i] * g[i];
        }
    return p->penalty == GRADREG_PENALTY_NORM ? p->strength * sqrt(sum) : p->strength / 2 * sum;
}

static void penalty_gradient(const struct scene *c, double *out)
{
    const double h = 2e-3;
    double theta[MODEL_ELEMENTS];

    memcpy(theta, c->theta, sizeof(theta));
    for (size_t i = 0; i < MODEL_ELEMENTS; i++) {
        double at[4];
        const double away[4] = { -2 * h, -h, h, 2 * h };
        for (int k = 0; k < 4; k++) {
            theta[i] = c->theta[i] + away[k];
            at[k] = penalty_at(c, theta);
        }
        theta[i] = c->theta[i];
        out[i] = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h);
    }
}

START_TEST(on_penalty_is_the_gradient_of_the_penalty)
{
    gradreg_regularizer_params p = everything();
    double numeric[MODEL_ELEMENTS], correction[MODEL_ELEMENTS];

    p.depth = GRADREG_DEPTH_ON_PENALTY;
    p.difference = GRADREG_DIFFERENCE_CENTRAL;
    p.penalty = GRADREG_PENALTY_SQUARED_NORM + _i;
    p.step = GRADREG_STEP_NORMALIZED;
    p.epsilon = 1e-4;
    struct scene *c = open_scene(&p);
    run(c);
    for (size_t i = 0; i < MODEL_ELEMENTS; i++)
        correction[i] = c->step->update[i] - c->first[i];
    penalty_gradient(c, numeric);
    ck_assert_double_le(distance(correction, numeric), 4e-9 * length_of(numeric));
    close_scene(c);
}
END_TEST

/* kappa = epsilon, nu = ||g||, epsilon_eff = epsilon/||g||: k is 1 and nothing of g1 stays. */
START_TEST(norm_penalty_as_long_as_the_step_is_sam)
{
    gradreg_regularizer_params p = everything();

    p.schedule.first_layer = p.schedule.full_layer = 0;
    p.schedule.outside_multiplier = 1.0;
    p.step = GRADREG_STEP_NORMALIZED;
    p.penalty = GRADREG_PENALTY_NORM;
    p.depth = GRADREG_DEPTH_ON_UPDATE + _i;
    p.strength = p.epsilon = 0.05;
    struct scene *c = open_scene(&p);
    run(c);
    ck_assert_double_gt(distance(c->first, c->second), 0.01);
    ck_assert_double_le(distance(c->step->update, c->second), 1e-14 * length_of(c->second));
    close_scene(c);
}
END_TEST

/* ---------------------------------------------------------------------------- clips */

static gradreg_regularizer_params clipped(double first, double second)
{
    gradreg_regularizer_params p = everything();

    p.clip_first = first;
    p.clip_second = second;
    p.epsilon = 1e-6;
    p.schedule.first_layer = p.schedule.full_layer = 0;
    p.schedule.outside_multiplier = 1.0;
    return p;
}

static double inner(const double *x, const double *y)
{
    double sum = 0.0;

    for (size_t i = 0; i < MODEL_ELEMENTS; i++)
        sum += x[i] * y[i];
    return sum;
}

/* c2 (H g~ - g (g.H g~) / ||g||^2): the part along g is gone. */
START_TEST(separate_clips_lose_the_part_along_the_gradient)
{
    const gradreg_regularizer_params p = clipped(0.5, 0.5);
    struct scene *c = open_scene(&p);
    double product[MODEL_ELEMENTS], want[MODEL_ELEMENTS], got[MODEL_ELEMENTS];

    run(c);
    const double square = inner(c->first, c->first), c1 = c->step->clip_first;
    model_hessian_times(c->m, product, c->theta, c->first);
    const double along = inner(c->first, product) / square;
    for (size_t i = 0; i < MODEL_ELEMENTS; i++) {
        want[i] = p.strength * c->step->clip_second * c1 * (product[i] - along * c->first[i]);
        got[i] = c->step->update[i] - c1 * c->first[i];
    }
    ck_assert_double_lt(c1, 0.5);
    ck_assert_double_gt(fabs(along), 0.1);
    ck_assert_double_le(distance(got, want), 1e-4 * length_of(want));
    close_scene(c);
}
END_TEST

START_TEST(a_common_clip_scales_the_whole_step)
{
    gradreg_regularizer_params p = clipped(0.8, 0.5);
    double product[MODEL_ELEMENTS], want[MODEL_ELEMENTS];

    p.common_clip = 1;
    struct scene *c = open_scene(&p);
    run(c);
    const double common = c->step->clip_second;
    model_hessian_times(c->m, product, c->theta, c->first);
    for (size_t i = 0; i < MODEL_ELEMENTS; i++)
        want[i] = common * (c->first[i] + p.strength * c->step->clip_first * product[i]);
    ck_assert_double_lt(common, c->step->clip_first);
    ck_assert_double_le(distance(c->step->update, want), 1e-4 * length_of(want));
    close_scene(c);
}
END_TEST

/* ---------------------------------------------------------------------------- over steps */

START_TEST(a_reused_correction_repeats_the_step_it_came_from)
{
    gradreg_regularizer_params p = form(_i);
    double before[MODEL_ELEMENTS];

    p.interval = 3;
    p.epsilon = epsilon_for(&p, 1e-3);
    struct scene *c = open_scene(&p);
    run(c);
    memcpy(before, c->step->update, sizeof(before));
    for (int again = 0; again < 2; again++) {
        ck_assert_int_eq(oracle_extra_passes(c->o), 0);
        run(c);
        ck_assert_double_le(distance(c->step->update, before), 1e-13 * length_of(before));
        ck_assert_double_gt(distance(c->step->update, c->first), 1e-4);
    }
    ck_assert_int_gt(oracle_extra_passes(c->o), 0);
    close_scene(c);
}
END_TEST

START_TEST(noise_has_the_length_of_its_rule)
{
    gradreg_regularizer_params p = model_params();
    const gradreg_noise_rule rules[] = { GRADREG_NOISE_RELATIVE, GRADREG_NOISE_NEFTUNE,
                                         GRADREG_NOISE_STEP };
    double noise = 0.0, weights = 0.0, along = 0.0, gradient = 0.0, delta = 0.0;

    p.noise.rule = rules[_i];
    struct scene *c = open_scene(&p);
    run(c);
    memcpy(c->plus, c->step->delta, sizeof(c->plus));
    oracle_step_free(c->step);
    c->step = oracle_step_new(c->o);
    c->step->theta = c->theta;
    c->step->with_noise = true;
    oracle_inject(c->o, c->step);
    for (size_t i = c->o->start[2]; i < c->o->start[3]; i++) { /* layer 0's attention */
        noise += c->step->noise[i] * c->step->noise[i];
        weights += c->theta[i] * c->theta[i];
        gradient += c->first[i] * c->first[i];
        along += c->step->noise[i] * c->first[i];
        delta += c->plus[i] * c->plus[i];
    }
    const double want = _i == 0 ? 0x1p-14 * weights : _i == 1 ? 25.0 / 3.0 : delta;
    ck_assert_double_eq_tol(noise, want, 1e-12 * want);
    ck_assert_double_eq_tol(along, sqrt(noise * gradient), 1e-12 * along);
    ck_assert_double_eq_tol(length_of(c->step->noise), sqrt(noise), 1e-12); /* nowhere else */
    close_scene(c);
}
END_TEST

/* ---------------------------------------------------------------------------- terms */

/* With a small step every term has a value that the model knows. */
START_TEST(terms_tend_to_what_they_are_called)
{
    gradreg_regularizer_params p = everything();
    double product[MODEL_ELEMENTS], zeros[MODEL_ELEMENTS] = { 0.0 };
    oracle_terms t, layer;

    p.epsilon = 1e-7;
    p.difference = _i != 0 ? GRADREG_DIFFERENCE_CENTRAL : GRADREG_DIFFERENCE_FORWARD;
    struct scene *c = open_scene(&p);
    run(c);
    model_hessian_times(c->m, product, c->theta, c->first);
    oracle_report(c->o, c->step, NULL, ORACLE_EVERYTHING, &t);
    oracle_report(c->o, c->step, NULL, 2, &layer);

    const double square = inner(c->first, c->first);
    const double curvature = inner(c->first, product) / square;
    ck_assert_double_eq_tol(t.value[ORACLE_CURVATURE], curvature, 1e-5 * curvature);
    ck_assert_double_eq_tol(t.value[ORACLE_HVP_NORM], length_of(product),
                            1e-5 * length_of(product));
    ck_assert_double_eq_tol(t.value[ORACLE_FIRST_NORM], sqrt(square), 1e-12);
    ck_assert_double_eq_tol(t.value[ORACLE_ALIGNMENT], 1.0, 1e-9);
    ck_assert_double_eq_tol(t.value[ORACLE_EFFECTIVE_EPSILON], 1e-7, 1e-20);
    ck_assert_double_eq_tol(t.value[ORACLE_UPDATE_NORM], length_of(c->step->update), 1e-12);
    ck_assert_double_eq_tol(t.value[ORACLE_CORRECTION_SHARE],
                            distance(c->step->update, c->first) / sqrt(square), 1e-12);
    ck_assert_double_eq_tol(t.value[ORACLE_PERTURBATION_NORM], 1e-7 * sqrt(square), 1e-18);
    ck_assert_double_eq(t.value[ORACLE_STRENGTH], 0.1);
    ck_assert_double_eq_tol(layer.value[ORACLE_STRENGTH], 0.1 * 2 / 3, 1e-15);
    ck_assert_double_eq_tol(layer.value[ORACLE_PENALTY],
                            0.1 * 2 / 3 / 2 * pow(layer.value[ORACLE_FIRST_NORM], 2), 1e-12);
    /* What is not in the total twice over is in one of its parts. */
    double parts = 0.0;
    for (int32_t l = GRADREG_LAYER_NONE; l < MODEL_LAYERS; l++)
        parts += oracle_dot(c->o, c->first, c->first, NULL, l);
    ck_assert_double_eq_tol(parts, square, 1e-12 * square);
    ck_assert_double_gt(distance(c->step->correction, zeros), 0.0);
    ck_assert_uint_eq(t.step, 1);
    close_scene(c);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("oracle");
    TCase *tc = tcase_create("steps");

    add_loop_test(tc, differences_converge_at_their_order, 0, FORMS);
    add_loop_test(tc, on_penalty_is_the_gradient_of_the_penalty, 0, 2);
    add_loop_test(tc, norm_penalty_as_long_as_the_step_is_sam, 0, 2);
    tcase_add_test(tc, separate_clips_lose_the_part_along_the_gradient);
    tcase_add_test(tc, a_common_clip_scales_the_whole_step);
    add_loop_test(tc, a_reused_correction_repeats_the_step_it_came_from, 0, FORMS);
    add_loop_test(tc, noise_has_the_length_of_its_rule, 0, 3);
    add_loop_test(tc, terms_tend_to_what_they_are_called, 0, 2);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
