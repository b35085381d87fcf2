/* check_noise_orders.c - directional noise in every order of calls, with theta back to the last bit; and
 * the steps from the noisy point, to either side of it. */
#include <stdlib.h>
#include <string.h>

#include "noise_rig.h"

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
    Suite *suite = suite_create("noise orders");
    TCase *tcase = tcase_create("orders");

    make_table();
    add_loop_test(tcase, every_order_of_calls_ends_with_theta, 0, ORDERS * TYPE_PAIRS);
    add_loop_test(tcase, steps_start_from_the_rounded_noisy_point, 0, 3 * TYPE_PAIRS);
    add_loop_test(tcase, mirror_repeats_the_draws_of_the_noise, 0, TYPE_PAIRS);
    add_loop_test(tcase, noise_stays_in_on_segments_that_delta_leaves_alone, 0, TYPE_PAIRS);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
