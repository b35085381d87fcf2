/* check_random_direction.c - what is drawn: directions and rounding depend on (seed, step, segment,
 * element) and on nothing else, have the moments they should, and give the trace of a Hessian. */
#define _DEFAULT_SOURCE /* barriers */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"
#include "suite.h"
#include "world.h"

enum { SEGMENTS = 4, LAYERS = 2, MOST = 90000 };

/* ---- drawing by stepping ---------------------------------------------------------- */

static const uint64_t counts[SEGMENTS] = { 66001, 4099, 33, 17000 };

/* Each segment has `count` elements; 0: as above. */
static void make_table(gradreg_segment *table, uint64_t count)
{
    const gradreg_segment empty = GRADREG_SEGMENT_INIT;
    uint64_t at = 0;

    for (int s = 0; s < SEGMENTS; s++) {
        table[s] = empty;
        table[s].offset = at;
        table[s].count = count != 0 ? count : counts[s];
        table[s].layer = s % LAYERS;
        table[s].role = GRADREG_ROLE_MLP;
        at += table[s].count + 2;
    }
}

static gradreg_regularizer_params draw_params(gradreg_direction direction)
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.layer_count = LAYERS;
    p.schedule.first_layer = p.schedule.full_layer = 0;
    p.direction = direction;
    p.epsilon = 1.0;
    p.seed = 42;
    return p;
}

static void zero(rig *r, enum rig_buffer buffer)
{
    for (size_t s = 0; s < r->segment_count; s++) {
        uint64_t begin;
        const size_t n = rig_part(r, s, &begin);
        if (n > 0)
            memset(r->piece[buffer][s], 0, n * type_bytes(rig_type(r, buffer, s)));
    }
}

/* With theta = 0 in f32, theta' is the direction itself. */
static void draw(rig *r, uint64_t step)
{
    zero(r, RIG_PARAMS);
    rig_numbers(r, RIG_GRADS, 2, 0);
    assert_ok(gradreg_regularizer_set_step(r->reg, step));
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
}

static float *drawn(const gradreg_regularizer_params *p, uint64_t step)
{
    const rig_setup setup = { .threads = 1 };
    gradreg_segment table[SEGMENTS];

    make_table(table, 0);
    rig *r = rig_open(table, SEGMENTS, p, &setup);
    draw(r, step);
    float *v = (float *)(void *)rig_gather(r, RIG_PARAMS);
    rig_close(r);
    return v;
}

static size_t element_count(void)
{
    size_t n = 0;

    for (int s = 0; s < SEGMENTS; s++)
        n += (size_t)counts[s];
    return n;
}

/* ---- what decides ----------------------------------------------------------------- */

static gradreg_regularizer_params cut_params(int i)
{
    gradreg_regularizer_params p =
        draw_params(i % 2 == 0 ? GRADREG_DIRECTION_RADEMACHER : GRADREG_DIRECTION_GAUSSIAN);

    if (i / 2 == 1) {
        p.rounding = GRADREG_ROUNDING_STOCHASTIC;
        p.param_type = GRADREG_TYPE_BF16;
        p.epsilon = 0.7; /* so that there is something to round */
    }
    return p;
}

START_TEST(threads_and_paths_do_not_decide)
{
    const gradreg_regularizer_params p = cut_params(_i);
    gradreg_segment table[SEGMENTS];

    make_table(table, 0);
    char *want = (char *)drawn(&p, 9);
    for (int k = 0; k < 8 && has_path(paths[k / 2]); k++) {
        const rig_setup setup = { .path = paths[k / 2],
                                  .threads = k % 2 == 0 ? 2 : 5,
                                  .scattered = k % 3 == 1,
                                  .misalignment = (size_t)k % 4 };
        rig *r = rig_open(table, SEGMENTS, &p, &setup);
        draw(r, 9);
        rig_assert(r, RIG_PARAMS, want, "direction");
        rig_close(r);
    }
    free(want);
}
END_TEST

struct cut {
    gradreg_regularizer_params params;
    gradreg_segment table[SEGMENTS];
    bool shards;
    int world;
    uint64_t border[WORLD_RANKS + 1];
};

static void cut_table(const struct cut *c, gradreg_segment *table, int rank)
{
    for (int s = 0; c->shards && s < SEGMENTS; s++) {
        const uint64_t offset = table[s].offset, end = offset + table[s].count;
        const uint64_t from = c->border[rank] > offset ? c->border[rank] : offset;
        const uint64_t to = c->border[rank + 1] < end ? c->border[rank + 1] : end;
        table[s].shard_begin = from < to ? from - offset : table[s].count;
        table[s].shard_count = from < to ? to - from : 0;
    }
}

static void draw_on_rank(world *w, int rank, void *user)
{
    const struct cut *c = user;
    const rig_setup setup = { .sliced = true,
                              .scattered = c->shards,
                              .begin = c->border[rank],
                              .count = (size_t)(c->border[rank + 1] - c->border[rank]) };
    gradreg_regularizer_params p = c->params;
    gradreg_segment table[SEGMENTS];
    char *to = w->shared;

    memcpy(table, c->table, sizeof(table));
    cut_table(c, table, rank);
    p.rank = rank;
    p.world = c->world;
    p.all_reduce = world_reduce(w, rank);
    rig *r = rig_open(table, SEGMENTS, &p, &setup);
    const size_t size = type_bytes(p.param_type);
    draw(r, 9);
    for (size_t s = 0; s < SEGMENTS; s++) {
        uint64_t begin;
        const size_t n = rig_part(r, s, &begin);
        if (n > 0)
            memcpy(to + begin * size, r->piece[RIG_PARAMS][s], n * size);
        to += counts[s] * size;
    }
    rig_close(r);
}

START_TEST(ranks_draw_their_part_of_one_direction)
{
    static const int worlds[] = { 2, 3, 8 };
    world *w = world_new(MOST * sizeof(float));
    uint64_t state = test_seed() + (uint64_t)_i;
    struct cut c;

    c.params = cut_params(_i);
    make_table(c.table, 0);
    char *want = (char *)drawn(&c.params, 9);
    for (int k = 0; k < 6; k++) {
        c.world = worlds[k / 2];
        c.shards = k % 2 == 1;
        c.border[0] = 0;
        for (int b = 1; b < c.world; b++) /* odd elements of a group of four, too */
            c.border[b] = c.border[b - 1] + next_word(&state) % (MOST / 10);
        c.border[c.world] = c.table[SEGMENTS - 1].offset + counts[SEGMENTS - 1];
        memset(w->shared, 0, w->shared_bytes);
        world_run(w, c.world, 0, draw_on_rank, &c);
        ck_assert_msg(
            memcmp(w->shared, want, element_count() * type_bytes(c.params.param_type)) == 0,
            "%d ranks, %s: another direction", c.world, c.shards ? "shards" : "slices");
    }
    free(want);
    world_free(w);
}
END_TEST

START_TEST(seed_step_and_segment_decide)
{
    gradreg_regularizer_params p = cut_params(_i);
    const size_t n = element_count();
    float *a = drawn(&p, 9), *same = drawn(&p, 9), *step = drawn(&p, 10);
    size_t equal[3] = { 0, 0, 0 };

    p.seed++;
    float *seed = drawn(&p, 9);
    ck_assert_int_eq(memcmp(a, same, n * sizeof(float)), 0);
    for (size_t i = 0; i < n; i++) {
        equal[0] += a[i] == step[i];
        equal[1] += a[i] == seed[i];
        equal[2] += i < 17000 && a[i] == a[66001 + 4099 + 33 + i];
    }
    /* Signs agree by half, normal numbers never. */
    for (int k = 0; k < 3; k++) {
        const double m = k < 2 ? (double)n : 17000, share = (double)equal[k] / m;
        ck_assert_double_lt(fabs(share - (_i == 0 ? 0.5 : 0.0)), 3.0 / sqrt(m));
    }
    free(a);
    free(same);
    free(step);
    free(seed);
}
END_TEST

/* ---- moments ---------------------------------------------------------------------- */

START_TEST(rademacher_is_a_fair_sign)
{
    const gradreg_regularizer_params p = draw_params(GRADREG_DIRECTION_RADEMACHER);
    const size_t n = element_count();
    double sum = 0, beside[8] = { 0 };
    float *v = drawn(&p, 0);

    for (size_t i = 0; i < n; i++) {
        if (v[i] != 1.0f && v[i] != -1.0f)
            ck_abort_msg("element %zu: %a", i, (double)v[i]);
        sum += (double)v[i];
        for (size_t lag = 1; lag <= 8 && lag <= i; lag++)
            beside[lag - 1] += (double)v[i] * (double)v[i - lag];
    }
    ck_assert_double_lt(fabs(sum), 5 * sqrt((double)n));
    for (int lag = 0; lag < 8; lag++)
        ck_assert_double_lt(fabs(beside[lag]), 5 * sqrt((double)n));
    free(v);
}
END_TEST

START_TEST(gaussian_has_its_moments_and_tails)
{
    static const double tails[] = { 0.317310508, 0.045500264, 0.002699796 };
    static const double moments[] = { 0, 1, 0, 3, 0, 15 };
    static const double spreads[] = { 1, 2, 15, 96, 945, 10170 }; /* variances of powers */
    const gradreg_regularizer_params p = draw_params(GRADREG_DIRECTION_GAUSSIAN);
    const double n = (double)element_count();
    double sums[6] = { 0 }, beside[8] = { 0 }, beyond[3] = { 0 };
    float *v = drawn(&p, 0);

    for (size_t i = 0; i < element_count(); i++) {
        double power = 1;
        for (int k = 0; k < 6; k++)
            sums[k] += power *= (double)v[i];
        for (int k = 0; k < 3; k++)
            beyond[k] += fabs((double)v[i]) > k + 1;
        for (size_t lag = 1; lag <= 8 && lag <= i; lag++)
            beside[lag - 1] += (double)v[i] * (double)v[i - lag];
    }
    for (int k = 0; k < 6; k++)
        ck_assert_double_lt(fabs(sums[k] / n - moments[k]), 5 * sqrt(spreads[k] / n));
    for (int k = 0; k < 3; k++)
        ck_assert_double_lt(fabs(beyond[k] / n - tails[k]),
                            5 * sqrt(tails[k] * (1 - tails[k]) / n));
    for (int lag = 0; lag < 8; lag++)
        ck_assert_double_lt(fabs(beside[lag]), 5 * sqrt(n));
    free(v);
}
END_TEST

/* The norm that decides is the norm of the direction that is taken, in every step: after a step,
 * after set_step, with noise, and in a step that begins noisy. */
START_TEST(the_measured_direction_is_the_one_taken)
{
    gradreg_regularizer_params p =
        draw_params(_i % 2 == 0 ? GRADREG_DIRECTION_GAUSSIAN : GRADREG_DIRECTION_RADEMACHER);
    const rig_setup setup = { .threads = 1 };
    gradreg_segment table[SEGMENTS];

    p.step = GRADREG_STEP_NORMALIZED;
    p.epsilon = 3.0;
    if (_i / 2 == 1) {
        p.noise.rule = GRADREG_NOISE_NEFTUNE;
        p.noise.roles = GRADREG_ROLE_MLP;
        p.noise.first_layer = p.noise.last_layer = 0;
    }
    make_table(table, 50);
    rig *r = rig_open(table, SEGMENTS, &p, &setup);
    for (int step = 0; step < 6; step++) {
        double squares = 0;
        zero(r, RIG_PARAMS);
        if (_i / 2 == 1 && step > 0)
            assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
        if (step == 3)
            assert_ok(gradreg_regularizer_set_step(r->reg, 1000));
        float *before = (float *)(void *)rig_gather(r, RIG_PARAMS);
        rig_numbers(r, RIG_GRADS, 2, 0);
        assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
        float *after = (float *)(void *)rig_gather(r, RIG_PARAMS);
        for (size_t i = 0; i < 50 * SEGMENTS; i++)
            squares += pow((double)after[i] - (double)before[i], 2);
        ck_assert_double_eq_tol(sqrt(squares), p.epsilon, 1e-5);
        rig_numbers(r, RIG_GRADS, 3, 0);
        assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
        ck_assert_double_eq_tol(rig_terms(r).perturbation_norm, p.epsilon, 1e-6);
        free(after);
        free(before);
    }
    rig_close(r);
}
END_TEST

/* ---- Hutchinson ------------------------------------------------------------------- */

enum { SIZE = 48, DRAWS = 400 };

struct quadratic {
    double a[SIZE][SIZE], trace, off_diagonal, squares;
};

static void make_quadratic(struct quadratic *q, bool diagonal)
{
    uint64_t state = 31;

    memset(q, 0, sizeof(*q));
    for (int i = 0; i < SIZE; i++)
        for (int k = 0; k <= i; k++)
            if (i == k || !diagonal)
                q->a[i][k] = q->a[k][i] = next_signed(&state, 1.0) + (i == k ? 1.0 : 0.0);
    for (int i = 0; i < SIZE; i++) {
        q->trace += q->a[i][i];
        for (int k = 0; k < SIZE; k++) {
            q->squares += q->a[i][k] * q->a[i][k];
            q->off_diagonal += i != k ? q->a[i][k] * q->a[i][k] : 0;
        }
    }
}

/* g = A theta' over the whole table, every role. */
static void quadratic_gradient(const struct quadratic *q, rig *r)
{
    double theta[SIZE];
    size_t at = 0;

    for (size_t s = 0; s < r->segment_count; s++)
        for (size_t i = 0; i < r->segments[s].count; i++)
            theta[at++] = typed_get(r->piece[RIG_PARAMS][s], GRADREG_TYPE_F32, i);
    at = 0;
    for (size_t s = 0; s < r->segment_count; s++)
        for (size_t i = 0; i < r->segments[s].count; i++, at++) {
            double g = 0;
            for (int k = 0; k < SIZE; k++)
                g += q->a[at][k] * theta[k];
            typed_set(r->piece[RIG_GRADS][s], GRADREG_TYPE_F32, i, g);
        }
}

static rig *open_product(int i, gradreg_segment *table)
{
    const rig_setup setup = { .threads = 1 };
    gradreg_regularizer_params p =
        draw_params(i % 2 == 0 ? GRADREG_DIRECTION_RADEMACHER : GRADREG_DIRECTION_GAUSSIAN);

    make_table(table, SIZE / SEGMENTS);
    table[1].role = GRADREG_ROLE_EMBEDDING;
    table[1].layer = GRADREG_LAYER_NONE;
    p.output = GRADREG_OUTPUT_PRODUCT;
    p.difference = i / 2 % 2 == 0 ? GRADREG_DIFFERENCE_FORWARD : GRADREG_DIFFERENCE_CENTRAL;
    p.step = i / 4 % 2 == 0 ? GRADREG_STEP_RAW : GRADREG_STEP_NORMALIZED;
    p.perturbed_roles = 63;
    p.schedule.outside_multiplier = 1.0;
    p.epsilon = 0.125;
    return rig_open(table, SEGMENTS, &p, &setup);
}

/* One draw of v^T A v, from the report. */
static double draw_trace(const struct quadratic *q, rig *r)
{
    if (r->params.difference == GRADREG_DIFFERENCE_FORWARD)
        quadratic_gradient(q, r);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    quadratic_gradient(q, r);
    if (r->params.difference == GRADREG_DIFFERENCE_CENTRAL) {
        assert_ok(gradreg_regularizer_mirror(r->reg, &r->buffers));
        quadratic_gradient(q, r);
    }
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    const gradreg_terms t = rig_terms(r);
    return t.curvature * t.direction_norm * t.direction_norm;
}

/* The mean over draws is the trace: its variance is 2 sum a_ik^2 over i != k for signs, and over all
 * i, k for normal numbers. Of a diagonal matrix every sign draw is exact. */
START_TEST(random_curvatures_average_to_the_trace)
{
    const bool diagonal = _i >= 8, signs = _i % 2 == 0;
    gradreg_segment table[SEGMENTS];
    struct quadratic q;
    double sum = 0;

    make_quadratic(&q, diagonal);
    rig *r = open_product(_i, table);
    rig_numbers(r, RIG_PARAMS, 5, -2);
    for (int k = 0; k < DRAWS; k++) {
        const double one = draw_trace(&q, r);
        if (diagonal && signs)
            ck_assert_double_eq_tol(one, q.trace, 1e-4 * fabs(q.trace));
        sum += one;
    }
    const double spread = sqrt(2 * (signs ? q.off_diagonal : q.squares) / DRAWS);
    ck_assert_double_eq_tol(sum / DRAWS, q.trace, 5 * spread + 1e-4 * fabs(q.trace));
    rig_close(r);
}
END_TEST

/* ---- stochastic rounding ---------------------------------------------------------- */

enum { ROUNDINGS = 600, ROUNDED = 200 };

/* Over steps each weight is one of the two neighbours of theta + delta, and in the mean the sum. */
START_TEST(stochastic_rounding_is_unbiased_per_weight)
{
    const gradreg_type type = all_types[_i];
    const rig_setup setup = { .threads = 1 };
    gradreg_segment table[SEGMENTS];
    gradreg_regularizer_params p = draw_params(GRADREG_DIRECTION_GRADIENT);
    double mean[ROUNDED] = { 0 }, low[ROUNDED], high[ROUNDED], sum[ROUNDED], chi = 0;

    make_table(table, ROUNDED / SEGMENTS);
    p.param_type = type;
    p.rounding = GRADREG_ROUNDING_STOCHASTIC;
    p.clip_first = p.clip_second = 0;
    p.epsilon = type == GRADREG_TYPE_F32 ? 0x1p-25 : 0x1p-10;
    rig *r = rig_open(table, SEGMENTS, &p, &setup);
    rig_numbers(r, RIG_PARAMS, 5, 0);
    rig_numbers(r, RIG_GRADS, 6, 0);
    for (size_t i = 0; i < ROUNDED; i++) {
        const size_t s = i / (ROUNDED / SEGMENTS), k = i % (ROUNDED / SEGMENTS);
        sum[i] = typed_get(r->piece[RIG_PARAMS][s], type, k) +
                 p.epsilon * typed_get(r->piece[RIG_GRADS][s], GRADREG_TYPE_F32, k);
        low[i] = INFINITY;
        high[i] = -INFINITY;
    }
    for (uint64_t step = 0; step < ROUNDINGS; step++) {
        assert_ok(gradreg_regularizer_set_step(r->reg, step));
        assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
        for (size_t i = 0; i < ROUNDED; i++) {
            const size_t s = i / (ROUNDED / SEGMENTS), k = i % (ROUNDED / SEGMENTS);
            const double x = typed_get(r->piece[RIG_PARAMS][s], type, k);
            mean[i] += x / ROUNDINGS;
            low[i] = fmin(low[i], x);
            high[i] = fmax(high[i], x);
        }
        assert_ok(gradreg_regularizer_cancel(r->reg, &r->buffers));
    }
    for (size_t i = 0; i < ROUNDED; i++) {
        const double gap = high[i] - low[i];
        ck_assert_msg(low[i] <= sum[i] && sum[i] <= high[i],
                      "weight %zu: %a is not between %a and %a", i, sum[i], low[i], high[i]);
        ck_assert(gap == 0 || nextafter(type_round((low[i] + high[i]) / 2, type), low[i]) !=
                                  (low[i] + high[i]) / 2);
        const double share = gap > 0 ? (sum[i] - low[i]) / gap : 0;
        const double spread = gap * sqrt(share * (1 - share) / ROUNDINGS);
        ck_assert_double_le(fabs(mean[i] - sum[i]), 6 * spread + 1e-12);
        chi += spread > 0 ? pow((mean[i] - sum[i]) / spread, 2) : 1;
    }
    ck_assert_double_eq_tol(chi, ROUNDED, 5 * sqrt(2.0 * ROUNDED));
    rig_close(r);
}
END_TEST

/* theta + delta and theta - delta do not share their draws. */
START_TEST(the_mirror_image_is_rounded_with_draws_of_its_own)
{
    const rig_setup setup = { .threads = 1 };
    gradreg_segment table[SEGMENTS];
    gradreg_regularizer_params p = draw_params(GRADREG_DIRECTION_GRADIENT);
    size_t both = 0, up = 0, n = 0;

    make_table(table, 0);
    p.param_type = GRADREG_TYPE_BF16;
    p.rounding = GRADREG_ROUNDING_STOCHASTIC;
    p.difference = GRADREG_DIFFERENCE_CENTRAL;
    p.clip_first = p.clip_second = 0;
    p.epsilon = 0x1p-9;
    rig *r = rig_open(table, SEGMENTS, &p, &setup);
    for (size_t s = 0; s < SEGMENTS; s++)
        for (size_t i = 0; i < counts[s]; i++, n++) {
            typed_set(r->piece[RIG_PARAMS][s], GRADREG_TYPE_BF16, i, 1.25);
            typed_set(r->piece[RIG_GRADS][s], GRADREG_TYPE_F32, i, 2.0); /* half a step */
        }
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    char *plus = rig_gather(r, RIG_PARAMS), *at = plus;
    rig_numbers(r, RIG_GRADS, 3, 0);
    assert_ok(gradreg_regularizer_mirror(r->reg, &r->buffers));
    for (size_t s = 0; s < SEGMENTS; at += counts[s] * 2, s++)
        for (size_t i = 0; i < counts[s]; i++) {
            const bool moved = typed_get(at, GRADREG_TYPE_BF16, i) != 1.25;
            const bool mirrored =
                typed_get(r->piece[RIG_PARAMS][s], GRADREG_TYPE_BF16, i) != 1.25;
            up += moved;
            both += moved && mirrored;
        }
    ck_assert_double_eq_tol((double)up / (double)n, 0.5, 3 / sqrt((double)n));
    ck_assert_double_eq_tol((double)both / (double)n, 0.25, 3 / sqrt((double)n));
    assert_ok(gradreg_regularizer_cancel(r->reg, &r->buffers));
    free(plus);
    rig_close(r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("random direction");
    TCase *places = tcase_create("places"), *moments = tcase_create("moments");

    tcase_set_timeout(places, WORLD_SECONDS + 30.0);
    add_loop_test(places, threads_and_paths_do_not_decide, 0, 4);
    add_loop_test(places, ranks_draw_their_part_of_one_direction, 0, 4);
    add_loop_test(places, seed_step_and_segment_decide, 0, 2);
    tcase_add_test(moments, rademacher_is_a_fair_sign);
    tcase_add_test(moments, gaussian_has_its_moments_and_tails);
    add_loop_test(moments, the_measured_direction_is_the_one_taken, 0, 4);
    add_loop_test(moments, random_curvatures_average_to_the_trace, 0, 16);
    add_loop_test(moments, stochastic_rounding_is_unbiased_per_weight, 0, LAST_TYPE);
    tcase_add_test(moments, the_mirror_image_is_rounded_with_draws_of_its_own);
    suite_add_tcase(suite, places);
    suite_add_tcase(suite, moments);
    /* Always in a process of its own: a rank that fails must not go on as the suite. */
    return run_plainly(suite, CK_FORK);
}
