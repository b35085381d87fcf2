/* check_noise.c - directional noise: how long it is, along what, on which segments, and every order
 * of calls that it can be in, with theta back to the last bit. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"

enum { LAYERS = 4, PER_LAYER = 3, SEGMENTS = LAYERS * PER_LAYER + 2 };

static gradreg_segment table[SEGMENTS];

/* Attention, feed-forward and norm in each layer; one attention tensor is frozen, one embedding. */
static void make_table(void)
{
    static const uint32_t roles[] = { GRADREG_ROLE_ATTENTION, GRADREG_ROLE_MLP,
                                      GRADREG_ROLE_NORM };
    static const uint64_t counts[] = { 301, 211, 19 };
    const gradreg_segment empty = GRADREG_SEGMENT_INIT;
    uint64_t at = 0;

    for (int s = 0; s < SEGMENTS; s++) {
        table[s] = empty;
        table[s].offset = at;
        table[s].count = counts[s % PER_LAYER];
        table[s].layer = s / PER_LAYER;
        table[s].role = roles[s % PER_LAYER];
        at += table[s].count + 1;
    }
    table[SEGMENTS - 2].layer = 0;
    table[SEGMENTS - 2].role = GRADREG_ROLE_ATTENTION;
    table[SEGMENTS - 2].flags = GRADREG_SEGMENT_FROZEN;
    table[SEGMENTS - 1].layer = GRADREG_LAYER_NONE;
    table[SEGMENTS - 1].role = GRADREG_ROLE_EMBEDDING;
}

/* Noise on the attention of layers 0 and 1. */
static gradreg_regularizer_params noise_params(int pair, gradreg_noise_rule rule)
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.param_type = type_pairs[pair].param;
    p.grad_type = type_pairs[pair].grad;
    p.layer_count = LAYERS;
    p.schedule.first_layer = 2;
    p.schedule.full_layer = 3;
    p.clip_first = p.clip_second = 0;
    p.epsilon = 0.0625;
    p.noise.rule = rule;
    return p;
}

static rig *open_rig(const gradreg_regularizer_params *p)
{
    const rig_setup setup = { .misalignment = 1 };
    rig *r = rig_open(table, SEGMENTS, p, &setup);

    rig_numbers(r, RIG_PARAMS, 5, -3);
    if (p->restore == GRADREG_RESTORE_MASTER)
        rig_make_master(r, 6);
    return r;
}

static bool takes_noise(int s)
{
    return s == 0 || s == PER_LAYER;
}

/* ---- single values ---------------------------------------------------------------- */

static double norm_of(const double *x, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum);
}

static double cosine_of(const double *x, const double *y, size_t n)
{
    double product = 0;

    for (size_t i = 0; i < n; i++)
        product += x[i] * y[i];
    return product / (norm_of(x, n) * norm_of(y, n));
}

/* A segment of a gathered buffer, as doubles; free(). */
static double *segment_values(const rig *r, enum rig_buffer buffer, const char *gathered, int s)
{
    const gradreg_type type = rig_type(r, buffer, (size_t)s);
    double *values = calloc(table[s].count, sizeof(double));

    ck_assert_ptr_nonnull(values);
    for (int k = 0; k < s; k++)
        gathered += table[k].count * type_bytes(rig_type(r, buffer, (size_t)k));
    for (size_t i = 0; i < table[s].count; i++)
        values[i] = typed_get(gathered, type, i);
    return values;
}

/* theta_n - theta on a segment; free(). */
static double *noise_on(const rig *r, const char *clean, int s)
{
    char *noisy = rig_gather(r, rig_moved(r));
    double *noise = segment_values(r, RIG_PARAMS, noisy, s);
    double *theta = segment_values(r, RIG_PARAMS, clean, s);

    for (size_t i = 0; i < table[s].count; i++)
        noise[i] -= theta[i];
    free(theta);
    free(noisy);
    return noise;
}

/* ---- one step in all its forms ---------------------------------------------------- */

static void gradients(rig *r, uint64_t seed, bool is_first)
{
    rig_numbers(r, is_first ? rig_first(r) : RIG_GRADS, seed, -1);
}

/* A step without noise; its g1 is numbers(seed). */
static void plain_step(rig *r, uint64_t seed)
{
    gradients(r, seed, true);
    for (int32_t pass = 0, passes = rig_passes(r); pass < passes; pass++) {
        assert_ok(pass == 0 ? gradreg_regularizer_perturb(r->reg, &r->buffers)
                            : gradreg_regularizer_mirror(r->reg, &r->buffers));
        gradients(r, seed + 1000, false);
    }
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
}

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

/* ---- every order of calls --------------------------------------------------------- */

enum call { INJECT, REMOVE, PERTURB, MIRROR, COMBINE, FALLBACK, CANCEL, SUGGEST, END };

static const enum call orders[][6] = {
    { INJECT, REMOVE, END },
    { INJECT, CANCEL, END },
    { INJECT, PERTURB, COMBINE, END },
    { INJECT, PERTURB, FALLBACK, END },
    { INJECT, PERTURB, CANCEL, END },
    { INJECT, SUGGEST, PERTURB, COMBINE, END },
    { INJECT, SUGGEST, REMOVE, END },
    { PERTURB, CANCEL, INJECT, REMOVE, END },
    { INJECT, PERTURB, MIRROR, COMBINE, END }, /* CENTRAL from here on */
    { INJECT, PERTURB, MIRROR, FALLBACK, END },
    { INJECT, PERTURB, MIRROR, CANCEL, END },
    { INJECT, PERTURB, FALLBACK, END },
    { INJECT, PERTURB, CANCEL, END },
    { INJECT, COMBINE, END }, /* the second step of an interval */
    { INJECT, REMOVE, COMBINE, END },
};
enum { ORDERS = sizeof(orders) / sizeof(*orders), CENTRAL_FROM = 8, REUSE_FROM = 13 };

static void make_call(rig *r, enum call call, uint64_t seed)
{
    double epsilon = 0;

    switch (call) {
    case INJECT: assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers)); break;
    case REMOVE: assert_ok(gradreg_regularizer_remove_noise(r->reg, &r->buffers)); break;
    case PERTURB: assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers)); break;
    case MIRROR: assert_ok(gradreg_regularizer_mirror(r->reg, &r->buffers)); break;
    case COMBINE: assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers)); break;
    case FALLBACK: assert_ok(gradreg_regularizer_fallback(r->reg, &r->buffers)); break;
    case CANCEL: assert_ok(gradreg_regularizer_cancel(r->reg, &r->buffers)); break;
    default:
        assert_ok(gradreg_regularizer_suggest_epsilon(r->reg, &epsilon, &r->buffers, 0.5));
        break;
    }
    gradients(r, seed, call == INJECT || call == REMOVE || call == CANCEL || call == SUGGEST);
}

/* What must not have changed does not change, and theta ends as it began: any pattern of the type,
 * NaN with payloads and -0 among them. */
static void play_order(rig *r, const enum call *order, const char *clean)
{
    const bool outside = r->params.placement == GRADREG_PLACEMENT_OUT_OF_PLACE;

    gradients(r, 20, true);
    for (uint64_t k = 0; order[k] != END; k++) {
        char *before = rig_gather(r, rig_moved(r));
        make_call(r, order[k], 30 + k);
        char *after = rig_gather(r, rig_moved(r));
        const bool same = memcmp(before, after, rig_bytes(r, RIG_PARAMS)) == 0;
        const bool moves = order[k] == INJECT || order[k] == PERTURB || order[k] == MIRROR;
        ck_assert_msg(moves                            ? !same
                      : order[k] == SUGGEST || outside ? same
                                                       : true,
                      "call %llu of this order: theta' %s", (unsigned long long)k,
                      same ? "stays" : "changes");
        if (outside)
            rig_assert(r, RIG_PARAMS, clean, "params out of place");
        free(before);
        free(after);
    }
    rig_assert(r, RIG_PARAMS, clean, "theta at the end");
}

START_TEST(every_order_of_calls_ends_with_theta)
{
    const int order = _i % ORDERS, pair = _i / ORDERS;
    for (int placing = 0; placing < 3; placing++) {
        gradreg_regularizer_params p = noise_params(pair, GRADREG_NOISE_NEFTUNE);
        p.difference = order >= CENTRAL_FROM && order < REUSE_FROM ? GRADREG_DIFFERENCE_CENTRAL
                                                                   : GRADREG_DIFFERENCE_FORWARD;
        p.interval = order >= REUSE_FROM ? 2 : 1;
        p.placement =
            placing == 2 ? GRADREG_PLACEMENT_OUT_OF_PLACE : GRADREG_PLACEMENT_IN_PLACE;
        p.restore = placing == 1 ? GRADREG_RESTORE_MASTER : GRADREG_RESTORE_COPY;
        p.perturbed_roles = order % 2 == 0 ? 0 : GRADREG_ROLE_MLP; /* noise outside delta */
        rig *r = open_rig(&p);
        plain_step(r, 3);
        if (order >= REUSE_FROM) /* suggest and inject want numbers; the restored bits do not */
            ck_assert_int_eq(rig_passes(r), 0);
        rig_patterns(r, RIG_PARAMS, 50, placing == 1);
        for (size_t i = 0; i < 40; i++) /* some that move whatever the patterns are */
            typed_set(r->piece[RIG_PARAMS][0], p.param_type, i, 0.125);
        if (placing == 1)
            rig_make_master(r, 51);
        char *clean = rig_gather(r, RIG_PARAMS);
        play_order(r, orders[order], clean);
        free(clean);
        rig_close(r);
    }
}
END_TEST

/* ---- the mirror image ------------------------------------------------------------- */

static float as_float(const void *array, gradreg_type type, size_t i)
{
    return (float)typed_get(array, type, i);
}

/* theta' = round(theta_n + c g1) and theta'' = round(theta_n - c g1), theta_n as it was stored. */
static void assert_stepped(const rig *r, const char *noisy, const char *g1, float coefficient)
{
    const gradreg_type P = r->params.param_type, G = r->params.grad_type;

    for (int s = 0; s < SEGMENTS; s++) {
        const bool moves = s < LAYERS * PER_LAYER;
        const size_t n = table[s].count;
        for (size_t i = 0; i < n; i++) {
            char want[4];
            const float step = coefficient * as_float(g1, G, i);
            const float sum = as_float(noisy, P, i) + step;
            typed_set(want, P, 0, (double)(moves ? sum : as_float(noisy, P, i)));
            if (typed_bits(want, P, 0) != typed_bits(r->piece[rig_moved(r)][s], P, i))
                ck_abort_msg("segment %d, element %zu: %a, want %a + %a", s, i,
                             typed_get(r->piece[rig_moved(r)][s], P, i), typed_get(noisy, P, i),
                             (double)step);
        }
        noisy += n * type_bytes(P);
        g1 += n * type_bytes(G);
    }
}

START_TEST(steps_start_from_the_rounded_noisy_point)
{
    const int pair = _i % TYPE_PAIRS, placing = _i / TYPE_PAIRS;
    gradreg_regularizer_params p = noise_params(pair, GRADREG_NOISE_NEFTUNE);

    p.difference = GRADREG_DIFFERENCE_CENTRAL;
    p.placement = placing == 2 ? GRADREG_PLACEMENT_OUT_OF_PLACE : GRADREG_PLACEMENT_IN_PLACE;
    p.restore = placing == 1 ? GRADREG_RESTORE_MASTER : GRADREG_RESTORE_COPY;
    p.noise.scale = 1.0;
    rig *r = open_rig(&p);
    char *clean = rig_gather(r, RIG_PARAMS);
    plain_step(r, 3);
    assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    char *noisy = rig_gather(r, rig_moved(r));
    ck_assert_int_ne(memcmp(noisy, clean, rig_bytes(r, RIG_PARAMS)), 0);
    gradients(r, 4, true);
    char *g1 = rig_gather(r, RIG_GRADS);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    assert_stepped(r, noisy, g1, (float)p.epsilon);
    gradients(r, 5, false);
    assert_ok(gradreg_regularizer_mirror(r->reg, &r->buffers));
    assert_stepped(r, noisy, g1, -(float)p.epsilon);
    gradients(r, 6, false);
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    rig_assert(r, RIG_PARAMS, clean, "theta");
    free(g1);
    free(noisy);
    free(clean);
    rig_close(r);
}
END_TEST

/* Rounded stochastically too, mirror finds the noisy point that inject made: where delta is 0 the
 * weights are the same. set_step is legal in between and must not draw anew. */
START_TEST(mirror_repeats_the_draws_of_the_noise)
{
    gradreg_regularizer_params p = noise_params(_i, GRADREG_NOISE_NEFTUNE);

    p.difference = GRADREG_DIFFERENCE_CENTRAL;
    p.rounding = GRADREG_ROUNDING_STOCHASTIC;
    p.seed = 99;
    rig *r = open_rig(&p);
    plain_step(r, 3);
    assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    char *noisy = rig_gather(r, RIG_PARAMS);
    assert_ok(gradreg_regularizer_set_step(r->reg, 40));
    gradients(r, 4, true);
    for (size_t s = 0; s < SEGMENTS; s++)
        for (size_t i = 0; i < table[s].count; i += 2)
            typed_set(r->piece[RIG_GRADS][s], p.grad_type, i, 0.0);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    gradients(r, 5, false);
    assert_ok(gradreg_regularizer_mirror(r->reg, &r->buffers));
    const char *at = noisy;
    size_t moved = 0;
    for (size_t s = 0; s < SEGMENTS; at += table[s].count * type_bytes(p.param_type), s++)
        for (size_t i = 0; i < table[s].count; i++) {
            const bool same = typed_bits(at, p.param_type, i) ==
                              typed_bits(r->piece[RIG_PARAMS][s], p.param_type, i);
            if (i % 2 == 0 && !same)
                ck_abort_msg("segment %zu, element %zu: not where inject put it", s, i);
            moved += !same;
        }
    ck_assert_uint_gt(moved, 100);
    assert_ok(gradreg_regularizer_cancel(r->reg, &r->buffers));
    free(noisy);
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

/* Segments that delta does not move carry noise through the whole step. */
START_TEST(noise_stays_in_on_segments_that_delta_leaves_alone)
{
    gradreg_regularizer_params p = noise_params(_i, GRADREG_NOISE_NEFTUNE);

    p.perturbed_roles = GRADREG_ROLE_MLP;
    p.difference = GRADREG_DIFFERENCE_CENTRAL;
    rig *r = open_rig(&p);
    const size_t bytes = 301 * type_bytes(p.param_type);
    char *clean = rig_gather(r, RIG_PARAMS);
    plain_step(r, 3);
    assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    char *noisy = rig_gather(r, RIG_PARAMS);
    ck_assert_int_ne(memcmp(noisy, clean, bytes), 0);
    gradients(r, 4, true);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    ck_assert_int_eq(memcmp(noisy, r->piece[RIG_PARAMS][0], bytes), 0);
    gradients(r, 5, false);
    assert_ok(gradreg_regularizer_mirror(r->reg, &r->buffers));
    ck_assert_int_eq(memcmp(noisy, r->piece[RIG_PARAMS][0], bytes), 0);
    gradients(r, 6, false);
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    rig_assert(r, RIG_PARAMS, clean, "theta");
    free(noisy);
    free(clean);
    rig_close(r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("noise");
    TCase *tcase = tcase_create("noise");

    make_table();
    tcase_add_loop_test(tcase, each_rule_has_its_length_and_sign, 0, 9);
    tcase_add_loop_test(tcase, noise_is_rounded_once_in_every_type, 0, 2 * TYPE_PAIRS);
    tcase_add_loop_test(tcase, step_noise_goes_where_the_last_step_went, 0, 2);
    tcase_add_loop_test(tcase, before_a_direction_nothing_moves_and_the_terms_say_so, 0,
                        2 * TYPE_PAIRS);
    tcase_add_test(tcase, a_step_without_noise_has_no_noise_terms);
    tcase_add_loop_test(tcase, only_usable_steps_leave_a_direction, 0, 6);
    tcase_add_loop_test(tcase, every_order_of_calls_ends_with_theta, 0, ORDERS * TYPE_PAIRS);
    tcase_add_loop_test(tcase, steps_start_from_the_rounded_noisy_point, 0, 3 * TYPE_PAIRS);
    tcase_add_loop_test(tcase, mirror_repeats_the_draws_of_the_noise, 0, TYPE_PAIRS);
    tcase_add_loop_test(tcase, roles_and_layers_select, 0, 12);
    tcase_add_loop_test(tcase, noise_stays_in_on_segments_that_delta_leaves_alone, 0,
                        TYPE_PAIRS);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
