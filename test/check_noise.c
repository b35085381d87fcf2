/* check_noise.c - directional noise: how long it is, along what, and on which segments. Every order of
 * calls that it can be in: check_noise_orders.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "noise_rig.h"

/* ---- how long --------------------------------------------------------------------- */

/* In f32 the noise can be measured: theta is large against it, and rounding takes little. */
START_TEST(each_rule_has_its_length_and_sign)
{
    static const double scales[] = { 0.0, 0.03125, -0.5 };
    const gradreg_noise_rule rule = GRADREG_NOISE_RELATIVE + _i % 3;
    gradreg_regularizer_params p = noise_params(0, rule);
    double total = 0;

    p.noise.scale = scales[_i / 3];
    p.clip_first = p.clip_second = 1.5; /* active: it must not change the direction */
    const double scale = p.noise.scale != 0               ? p.noise.scale
                         : rule == GRADREG_NOISE_RELATIVE ? 0x1p-7
                         : rule == GRADREG_NOISE_NEFTUNE  ? 5
                                                          : 1;
    rig *r = open_rig(&p);
    char *clean = rig_gather(r, RIG_PARAMS);
    gradients(r, 11, true);
    char *g1 = rig_gather(r, RIG_GRADS);
    plain_step(r, 11);
    const double clip = rig_terms(r).clip_first;
    assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    for (int s = 0; s < SEGMENTS; s++) {
        const size_t n = table[s].count;
        double *noise = noise_on(r, clean, s), *u = segment_values(r, RIG_GRADS, g1, s);
        double *theta = segment_values(r, RIG_PARAMS, clean, s);
        const double length = !takes_noise(s)                  ? 0
                              : rule == GRADREG_NOISE_RELATIVE ? scale * norm_of(theta, n)
                              : rule == GRADREG_NOISE_NEFTUNE
                                  ? scale / sqrt(3.0)
                                  : scale * p.epsilon * clip * norm_of(u, n);
        ck_assert_double_eq_tol(norm_of(noise, n), fabs(length), 2e-5 * fabs(length) + 1e-300);
        if (length != 0)
            ck_assert_double_gt(cosine_of(noise, u, n) * (scale > 0 ? 1 : -1), 0.999999);
        total += length * length;
        free(theta);
        free(noise);
        free(u);
    }
    plain_step(r, 12); /* from the noisy point */
    const gradreg_terms terms = rig_terms(r);
    ck_assert_double_eq_tol(terms.noise_norm, sqrt(total), 1e-6 * sqrt(total));
    ck_assert_double_gt(terms.noise_applied_cosine, 0.99999);
    ck_assert_double_le(terms.noise_applied_cosine, 1.0 + 1e-6);
    ck_assert_double_lt(clip, 1.0);
    rig_assert(r, RIG_PARAMS, clean, "theta");
    free(g1);
    free(clean);
    rig_close(r);
}
END_TEST

/* Every element is one rounding of theta + c g1, with one c for the segment. */
START_TEST(noise_is_rounded_once_in_every_type)
{
    const int pair = _i % TYPE_PAIRS;
    gradreg_regularizer_params p = noise_params(
        pair, _i / TYPE_PAIRS == 0 ? GRADREG_NOISE_RELATIVE : GRADREG_NOISE_NEFTUNE);

    p.noise.scale = _i / TYPE_PAIRS == 0 ? 0.5 : -1.0;
    rig *r = open_rig(&p);
    char *clean = rig_gather(r, RIG_PARAMS);
    gradients(r, 11, true);
    char *g1 = rig_gather(r, RIG_GRADS);
    plain_step(r, 11);
    assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    char *noisy = rig_gather(r, RIG_PARAMS);
    for (int s = 0; s < SEGMENTS; s++) {
        const size_t n = table[s].count;
        double *u = segment_values(r, RIG_GRADS, g1, s),
               *to = segment_values(r, RIG_PARAMS, noisy, s);
        double *theta = segment_values(r, RIG_PARAMS, clean, s);
        const double length =
            p.noise.rule == GRADREG_NOISE_RELATIVE ? 0.5 * norm_of(theta, n) : -1.0 / sqrt(3.0);
        const double c = takes_noise(s) ? length / norm_of(u, n) : 0.0;
        size_t off = 0;
        for (size_t i = 0; i < n; i++) {
            const double low = type_round(theta[i] + c * (1 - 1e-6) * u[i], p.param_type);
            const double high = type_round(theta[i] + c * (1 + 1e-6) * u[i], p.param_type);
            const double slack = p.param_type == GRADREG_TYPE_F32 ? 0x1p-24 * fabs(to[i]) : 0;
            if (to[i] < fmin(low, high) - slack || to[i] > fmax(low, high) + slack)
                ck_abort_msg("segment %d, element %zu: %a is not round(%a + %a)", s, i, to[i],
                             theta[i], c * u[i]);
            off += to[i] != theta[i];
        }
        ck_assert_msg(takes_noise(s) ? off > n / 2 : off == 0, "segment %d: %zu moved", s, off);
        free(theta);
        free(u);
        free(to);
    }
    assert_ok(gradreg_regularizer_remove_noise(r->reg, &r->buffers));
    rig_assert(r, RIG_PARAMS, clean, "theta");
    free(noisy);
    free(g1);
    free(clean);
    rig_close(r);
}
END_TEST

/* Rule STEP repeats the last step's delta: where no clip or length changed, theta' bit for bit. */
START_TEST(step_noise_goes_where_the_last_step_went)
{
    gradreg_regularizer_params p = noise_params(0, GRADREG_NOISE_STEP);

    p.step = _i == 0 ? GRADREG_STEP_RAW : GRADREG_STEP_RELATIVE;
    rig *r = open_rig(&p);
    char *clean = rig_gather(r, RIG_PARAMS);
    gradients(r, 11, true);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    char *stepped = rig_gather(r, RIG_PARAMS);
    gradients(r, 12, false);
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    assert_ok(gradreg_regularizer_set_epsilon(r->reg, 7.0)); /* the last step's counts */
    assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    for (int s = 0; s < SEGMENTS; s++) {
        double *there = noise_on(r, clean, s),
               *want = segment_values(r, RIG_PARAMS, stepped, s);
        double *theta = segment_values(r, RIG_PARAMS, clean, s);
        for (size_t i = 0; i < table[s].count; i++)
            ck_assert_double_eq(theta[i] + there[i], takes_noise(s) ? want[i] : theta[i]);
        free(theta);
        free(there);
        free(want);
    }
    assert_ok(gradreg_regularizer_cancel(r->reg, &r->buffers));
    free(stepped);
    free(clean);
    rig_close(r);
}
END_TEST

/* ---- along what ------------------------------------------------------------------- */

START_TEST(before_a_direction_nothing_moves_and_the_terms_say_so)
{
    gradreg_regularizer_params p =
        noise_params(_i % TYPE_PAIRS, GRADREG_NOISE_RELATIVE + _i / TYPE_PAIRS);
    rig *r = open_rig(&p);
    char *clean = rig_gather(r, RIG_PARAMS);

    assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    rig_assert(r, RIG_PARAMS, clean, "theta after the first inject");
    assert_fails(gradreg_regularizer_inject_noise(r->reg, &r->buffers), GRADREG_ERROR_STATE,
                 "noisy");
    plain_step(r, 3);
    const gradreg_terms first = rig_terms(r);
    ck_assert_uint_eq(first.flags, GRADREG_FLAG_NO_DIRECTION);
    ck_assert_double_eq(first.noise_norm, 0.0);
    ck_assert(isnan(first.noise_applied_cosine));
    ck_assert_double_gt(first.perturbation_norm, 0.0);
    assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    plain_step(r, 4);
    ck_assert_uint_eq(rig_terms(r).flags, 0);
    ck_assert_double_gt(rig_terms(r).noise_norm, 0.0);
    rig_assert(r, RIG_PARAMS, clean, "theta");
    free(clean);
    rig_close(r);
}
END_TEST

/* A combine that reuses leaves a direction, but of a RELATIVE step no length. */
START_TEST(noise_that_has_no_length_yet_is_reported)
{
    gradreg_regularizer_params p = noise_params(0, GRADREG_NOISE_STEP);
    p.interval = 2;
    p.step = _i == 0 ? GRADREG_STEP_RELATIVE : GRADREG_STEP_RAW;
    rig *r = open_rig(&p);
    char *clean = rig_gather(r, RIG_PARAMS);

    gradients(r, 3, true);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    assert_ok(gradreg_regularizer_fallback(r->reg, &r->buffers));
    gradients(r, 4, true);
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    for (uint64_t step = 0; step < 3; step += 2) {
        const bool still = step == 0 && p.step == GRADREG_STEP_RELATIVE;
        assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
        if (still)
            rig_assert(r, RIG_PARAMS, clean, "theta after inject");
        plain_step(r, 5 + step);
        const gradreg_terms terms = rig_terms(r);
        ck_assert_uint_eq(terms.flags, still ? GRADREG_FLAG_NO_DIRECTION : 0);
        ck_assert_int_eq(terms.noise_norm > 0.0, !still);
        rig_assert(r, RIG_PARAMS, clean, "theta");
        gradients(r, 6 + step, true);
        assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    }
    free(clean);
    rig_close(r);
}
END_TEST

/* A direction that is 0 on every noise segment. */
START_TEST(noise_along_nothing_is_reported)
{
    gradreg_regularizer_params p = noise_params(0, GRADREG_NOISE_RELATIVE + _i);
    rig *r = open_rig(&p);
    char *clean = rig_gather(r, RIG_PARAMS);

    gradients(r, 3, true);
    for (int s = 0; s < SEGMENTS; s++)
        if (takes_noise(s))
            memset(r->piece[RIG_GRADS][s], 0, table[s].count * sizeof(float));
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    ck_assert_uint_eq(rig_terms(r).flags, 0);
    assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    rig_assert(r, RIG_PARAMS, clean, "theta after inject");
    plain_step(r, 4);
    ck_assert_uint_eq(rig_terms(r).flags, GRADREG_FLAG_NO_DIRECTION);
    free(clean);
    rig_close(r);
}
END_TEST

START_TEST(a_step_without_noise_has_no_noise_terms)
{
    gradreg_regularizer_params p = noise_params(0, GRADREG_NOISE_RELATIVE);
    rig *r = open_rig(&p);

    plain_step(r, 3);
    plain_step(r, 4);
    ck_assert(isnan(rig_terms(r).noise_norm));
    ck_assert(isnan(rig_terms(r).noise_applied_cosine));
    ck_assert_uint_eq(rig_terms(r).flags, 0);
    rig_close(r);
}
END_TEST

/* What a step may be, and whether its g1 is the next noise's direction. */
enum step_kind {
    COMBINED,
    FELL_BACK,
    CANCELLED,
    BAD_FIRST,
    BAD_SECOND,
    REUSED, /* interval 2: every second combine */
    INJECTED_ONLY,
    STEP_KINDS
};
static const char *const step_names[STEP_KINDS] = {
    "combine", "fallback",         "cancel", "bad first gradient", "bad second gradient",
    "reuse",   "inject and remove"
};

static void spoil(rig *r, bool is_first)
{
    const enum rig_buffer to = is_first ? rig_first(r) : RIG_GRADS;
    typed_set(r->piece[to][7], rig_type(r, to, 7), 5, (double)NAN);
}

/* Returns 1 if g1 must be the direction from now on. */
static int take_step(rig *r, enum step_kind kind, uint64_t seed)
{
    if (kind == INJECTED_ONLY) {
        assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
        assert_ok(gradreg_regularizer_remove_noise(r->reg, &r->buffers));
        return 0;
    }
    gradients(r, seed, true);
    if (kind == BAD_FIRST)
        spoil(r, true);
    if (rig_passes(r) == 0) {
        assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
        return kind != BAD_FIRST;
    }
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    gradients(r, seed + 500, false);
    if (kind == BAD_SECOND)
        spoil(r, false);
    if (kind == CANCELLED)
        assert_ok(gradreg_regularizer_cancel(r->reg, &r->buffers));
    else if (kind == FELL_BACK)
        assert_ok(gradreg_regularizer_fallback(r->reg, &r->buffers));
    else
        assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    return kind == COMBINED || kind == REUSED;
}

/* The noise that inject would add now lies along numbers(seed), and g~ whatever the depth mode. */
static void assert_direction(rig *r, const char *clean, uint64_t seed, const char *after)
{
    gradients(r, seed, true);
    char *g1 = rig_gather(r, rig_first(r));
    assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    for (int s = 0; s < SEGMENTS; s++) {
        if (!takes_noise(s))
            continue;
        double *noise = noise_on(r, clean, s), *u = segment_values(r, RIG_GRADS, g1, s);
        const double cosine = cosine_of(noise, u, table[s].count);
        if (!(cosine > 0.99999))
            ck_abort_msg("after %s: cosine %.4f with the step that should count", after,
                         cosine);
        free(noise);
        free(u);
    }
    assert_ok(gradreg_regularizer_remove_noise(r->reg, &r->buffers));
    rig_assert(r, RIG_PARAMS, clean, "theta");
    free(g1);
}

/* All orders of three steps after a first one. */
START_TEST(only_usable_steps_leave_a_direction)
{
    gradreg_regularizer_params p = noise_params(0, GRADREG_NOISE_NEFTUNE);
    uint64_t seed = 100, direction = seed;

    p.depth = _i % 2 == 0 ? GRADREG_DEPTH_ON_UPDATE : GRADREG_DEPTH_ON_PENALTY;
    p.first_gradient =
        _i % 3 == 0 ? GRADREG_FIRST_GRADIENT_CALLER_KEEPS : GRADREG_FIRST_GRADIENT_COPIED;
    p.interval = _i / 2 + 1;
    rig *r = open_rig(&p);
    char *clean = rig_gather(r, RIG_PARAMS);
    ck_assert_int_eq(take_step(r, COMBINED, seed++), 1);
    for (int k = 0; k < STEP_KINDS * STEP_KINDS; k++) {
        const enum step_kind kinds[] = { (enum step_kind)(k % STEP_KINDS),
                                         (enum step_kind)(k / STEP_KINDS) };
        for (int i = 0; i < 2; i++, seed++)
            if (take_step(r, kinds[i], seed))
                direction = seed;
        assert_direction(r, clean, direction, step_names[kinds[1]]);
    }
    free(clean);
    rig_close(r);
}
END_TEST

/* ---- on which segments ------------------------------------------------------------ */

static void assert_moved(const rig *r, const char *clean, uint32_t roles, int first, int last)
{
    for (int s = 0; s < SEGMENTS; s++) {
        double *noise = noise_on(r, clean, s);
        const bool selected = (table[s].role & roles) != 0 && table[s].layer >= first &&
                              table[s].layer <= last && table[s].flags == 0;
        ck_assert_msg((norm_of(noise, table[s].count) > 0) == selected, "segment %d %s", s,
                      selected ? "does not move" : "moves");
        free(noise);
    }
}

START_TEST(roles_and_layers_select)
{
    static const uint32_t roles[] = { 0, GRADREG_ROLE_MLP,
                                      GRADREG_ROLE_NORM | GRADREG_ROLE_ATTENTION };
    static const int32_t ranges[][2] = { { -1, -1 }, { 0, 0 }, { 1, 3 }, { 3, 3 } };
    gradreg_regularizer_params p = noise_params(0, GRADREG_NOISE_RELATIVE);
    const int32_t *range = ranges[_i % 4];

    p.noise.roles = roles[_i / 4];
    p.noise.first_layer = range[0];
    p.noise.last_layer = range[1];
    rig *r = open_rig(&p);
    char *clean = rig_gather(r, RIG_PARAMS);
    plain_step(r, 3);
    assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    assert_moved(r, clean, roles[_i / 4] != 0 ? roles[_i / 4] : GRADREG_ROLE_ATTENTION,
                 range[0] < 0 ? 0 : range[0], range[0] < 0 ? 1 : range[1]);
    assert_ok(gradreg_regularizer_remove_noise(r->reg, &r->buffers));
    rig_assert(r, RIG_PARAMS, clean, "theta");
    free(clean);
    rig_close(r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("noise");
    TCase *tcase = tcase_create("noise");

    make_table();
    add_loop_test(tcase, each_rule_has_its_length_and_sign, 0, 9);
    add_loop_test(tcase, noise_is_rounded_once_in_every_type, 0, 2 * TYPE_PAIRS);
    add_loop_test(tcase, step_noise_goes_where_the_last_step_went, 0, 2);
    add_loop_test(tcase, before_a_direction_nothing_moves_and_the_terms_say_so, 0,
                  2 * TYPE_PAIRS);
    add_loop_test(tcase, noise_that_has_no_length_yet_is_reported, 0, 2);
    add_loop_test(tcase, noise_along_nothing_is_reported, 0, 3);
    tcase_add_test(tcase, a_step_without_noise_has_no_noise_terms);
    add_loop_test(tcase, only_usable_steps_leave_a_direction, 0, 6);
    add_loop_test(tcase, roles_and_layers_select, 0, 12);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
