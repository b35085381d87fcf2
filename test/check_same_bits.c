/* check_same_bits.c - what may not decide over a step's bits, and what has to.
 *
 * Threads, vector paths, alignment and layout may not; random numbers follow from seed, step and
 * place alone. */
#define _POSIX_C_SOURCE 200809L /* setenv */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "support.h"
#include "trainer.h"

/* ---------------------------------------------------------------------------- same bits */

struct gradients {
    const trainer *t;
    uint64_t calls;
};

/* A pass's gradients: some of it new each time. */
static void make_gradient(void *user, double *out, const double *theta)
{
    struct gradients *g = user;
    const size_t n = oracle_size(g->t->oracle);
    uint64_t state = ++g->calls, base = 1000;

    for (size_t i = 0; i < n; i++)
        out[i] = next_signed(&base, 1.0) + next_signed(&state, 0.1) + 0.01 * theta[i];
}

enum { FORMS = 8, STEPS = 3 };

static gradreg_regularizer_params form(int i)
{
    gradreg_regularizer_params p = large_params(&type_pairs[i % TYPE_PAIRS]);

    p.step = GRADREG_STEP_RAW + i % LAST_STEP;
    p.difference = i % 2 != 0 ? GRADREG_DIFFERENCE_CENTRAL : GRADREG_DIFFERENCE_FORWARD;
    p.penalty = GRADREG_PENALTY_SQUARED_NORM + i / 2 % 2;
    p.depth = GRADREG_DEPTH_ON_UPDATE + i / 4 % 2;
    p.epsilon = 0.01;
    p.strength = 0.1;
    p.clip_first = p.clip_second = 1.0;
    p.common_clip = i / 3 % 2;
    p.interval = 1 + i / 3 % 2;
    p.rounding = GRADREG_ROUNDING_NEAREST + (i == 1 || i == 6);
    p.direction = i == 2   ? GRADREG_DIRECTION_RADEMACHER
                  : i == 5 ? GRADREG_DIRECTION_GAUSSIAN
                           : GRADREG_DIRECTION_GRADIENT;
    p.seed = 42;
    if (p.direction == GRADREG_DIRECTION_GRADIENT) {
        p.noise.rule = GRADREG_NOISE_RELATIVE;
        p.noise.first_layer = 0;
        p.noise.last_layer = 1;
    }
    return p;
}

struct record {
    double *there, *stored;
    gradreg_terms rows[STEPS][1 + LARGE_LAYERS];
};

static void free_record(struct record *r)
{
    free(r->there);
    free(r->stored);
    free(r);
}

static void read_terms(const trainer *t, gradreg_terms *rows)
{
    for (int l = 0; l <= LARGE_LAYERS; l++)
        rows[l].struct_size = (uint32_t)sizeof(*rows);
    assert_ok(gradreg_regularizer_terms(t->regularizer, &rows[0], &rows[1], LARGE_LAYERS));
}

/* The calls of some steps, with nothing in between but gradients that do not look at theta. */
static void play_step(trainer *t, struct gradients *g, double *values, struct record *r,
                      int step)
{
    const size_t n = oracle_size(t->oracle);
    int32_t passes = 0;

    if (t->oracle->params.noise.rule != GRADREG_NOISE_OFF)
        assert_ok(gradreg_regularizer_inject_noise(t->regularizer, &t->buffers));
    make_gradient(g, values, t->direction);
    trainer_write(t, TRAINER_GRADS, values);
    assert_ok(gradreg_regularizer_extra_passes(t->regularizer, &passes));
    for (int32_t pass = 0; pass < passes; pass++) {
        assert_ok(pass == 0 ? gradreg_regularizer_perturb(t->regularizer, &t->buffers)
                            : gradreg_regularizer_mirror(t->regularizer, &t->buffers));
        trainer_read(t, TRAINER_PARAMS, r->there + (size_t)(2 * step + pass) * n);
        make_gradient(g, values, t->direction);
        trainer_write(t, TRAINER_GRADS, values);
    }
    assert_ok(gradreg_regularizer_combine(t->regularizer, &t->buffers));
    trainer_read(t, TRAINER_GRADS, r->stored + (size_t)step * n);
    read_terms(t, r->rows[step]);
}

static struct record *play(int form_index, const trainer_setup *setup)
{
    const gradreg_regularizer_params p = form(form_index);
    trainer *t = trainer_open(large_table, LARGE_TENSORS, &p, setup);
    const size_t n = oracle_size(t->oracle);
    struct record *r = calloc(1, sizeof(*r));
    struct gradients g = { t, 0 };
    double *values = calloc(n, sizeof(double));

    r->there = calloc(2 * STEPS * n, sizeof(double));
    r->stored = calloc(STEPS * n, sizeof(double));
    trainer_fill_numbers(t, TRAINER_PARAMS, 1, 0.02);
    for (size_t s = 0; s < LARGE_TENSORS; s++)
        t->passed[s] = t->piece[TRAINER_GRADS][s];
    for (int step = 0; step < STEPS; step++)
        play_step(t, &g, values, r, step);
    free(values);
    trainer_close(t);
    return r;
}

static void assert_equal_records(const struct record *r, const struct record *other,
                                 const char *what)
{
    size_t n = 0;

    for (size_t s = 0; s < LARGE_TENSORS; s++)
        n += (size_t)large_table[s].count;
    assert_that(memcmp(r->there, other->there, 2 * STEPS * n * sizeof(double)) == 0,
                "theta' differs with %s", what);
    assert_that(memcmp(r->stored, other->stored, STEPS * n * sizeof(double)) == 0,
                "g_hat differs with %s", what);
    assert_that(memcmp(r->rows, other->rows, sizeof(r->rows)) == 0, "terms differ with %s",
                what);
}

/* For the trainers that are opened from now on, if this processor has it. */
static bool choose_path(const char *path)
{
    return has_path(path) && setenv("GRADREG_VECTOR_PATH", path, 1) == 0;
}

/* One thread on the scalar path is what all others are held to. */
START_TEST(threads_paths_and_alignment_decide_nothing)
{
    static const int32_t threads[] = { 1, 2, 3, 7 };
    const trainer_setup plain = { .name = "scalar", .threads = 1 };
    char what[80];

    ck_assert(choose_path("scalar"));
    struct record *reference = play(_i, &plain);
    for (size_t p = 0; p < 4; p++) {
        if (!choose_path(paths[p]) || (TEST_UNDER_TSAN && (p + (size_t)_i) % 2 != 0))
            continue;
        /* Each path with two of them, in slow builds with one; all with all in turn. */
        const size_t settings = getenv("GRADREG_TEST_SMALL") != NULL ? 1 : 2;
        for (size_t k = 0; k < settings; k++) {
            const trainer_setup setup = { .name = what,
                                          .threads = threads[(p + 2 * k + (size_t)_i) % 4],
                                          .misalignment = (p + k) % 4,
                                          .scattered = (p + k) % 3 == 1 };
            snprintf(what, sizeof(what), "%s, %d threads, %zu elements off%s", paths[p],
                     threads[k], setup.misalignment, setup.scattered ? ", scattered" : "");
            struct record *other = play(_i, &setup);
            assert_equal_records(reference, other, what);
            free_record(other);
        }
    }
    free_record(reference);
}
END_TEST

/* Sums follow the table; where no sum is in play its order means nothing. */
START_TEST(the_order_of_segments_means_nothing_without_norms)
{
    const gradreg_segment shuffled[LARGE_TENSORS] = { large_table[3], large_table[4],
                                                      large_table[0], large_table[2],
                                                      large_table[1] };
    const gradreg_segment *const orders[2] = { large_table, shuffled };
    const trainer_setup setup = { .name = "order" };
    gradreg_regularizer_params p = large_params(&type_pairs[_i]);
    char *moved = NULL, *updated = NULL;

    p.epsilon = 0.5;
    for (int k = 0; k < 2; k++) {
        trainer *t = trainer_open(orders[k], LARGE_TENSORS, &p, &setup);
        trainer_fill_numbers(t, TRAINER_PARAMS, 1, 0.02);
        trainer_fill_numbers(t, TRAINER_GRADS, 2, 1.0);
        assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
        if (k == 0)
            moved = trainer_copy(t, TRAINER_PARAMS);
        trainer_assert_same(t, TRAINER_PARAMS, moved, "theta' in this order");
        trainer_fill_numbers(t, TRAINER_GRADS, 3, 1.0);
        assert_ok(gradreg_regularizer_combine(t->regularizer, &t->buffers));
        if (k == 0)
            updated = trainer_copy(t, TRAINER_GRADS);
        trainer_assert_same(t, TRAINER_GRADS, updated, "g_hat in this order");
        trainer_close(t);
    }
    free(moved);
    free(updated);
}
END_TEST

/* 1 and eight times 2^-54: from the left they leave 1, in any other grouping they do not. */
static double norm_of_layer(bool largest_first)
{
    enum { SMALL = 8, SEGMENTS = SMALL + 1 };
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;
    gradreg_segment segments[SEGMENTS];
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    gradreg_terms terms = GRADREG_TERMS_INIT;
    gradreg_context *context = context_on(NULL, 1);
    gradreg_regularizer *regularizer;
    float *params = guarded_new(SEGMENTS * sizeof(float), 0);
    float *grads = guarded_new(SEGMENTS * sizeof(float), 0);

    for (int i = 0; i < SEGMENTS; i++) {
        const bool large = largest_first ? i == 0 : i == SMALL;
        segments[i] = (gradreg_segment)GRADREG_SEGMENT_INIT;
        segments[i].offset = (uint64_t)i;
        segments[i].count = 1;
        segments[i].layer = 0;
        segments[i].role = GRADREG_ROLE_MLP;
        params[i] = 0;
        grads[i] = large ? 1.0f : 0x1p-27f;
    }
    p.layer_count = 1;
    buffers.params = params;
    buffers.grads = grads;
    buffers.count = SEGMENTS;
    assert_ok(gradreg_regularizer_create(&regularizer, context, segments, SEGMENTS, &p));
    assert_ok(gradreg_regularizer_perturb(regularizer, &buffers));
    assert_ok(gradreg_regularizer_fallback(regularizer, &buffers));
    assert_ok(gradreg_regularizer_terms(regularizer, &terms, NULL, 0));
    assert_ok(gradreg_regularizer_destroy(regularizer));
    assert_ok(gradreg_context_destroy(context));
    guarded_free(params);
    guarded_free(grads);
    return terms.first_norm;
}

START_TEST(segments_of_a_layer_are_added_in_the_tables_order)
{
    ck_assert_double_eq(norm_of_layer(true), 1.0);
    ck_assert_double_eq(norm_of_layer(false), 1.0 + 0x1p-52);
}
END_TEST

/* ---------------------------------------------------------------------------- random numbers */

/* With weights of zero, in f32, theta' is delta: epsilon times the direction. */
static void draw(const gradreg_regularizer_params *p, const gradreg_segment *segments,
                 size_t count, uint64_t step, double *out)
{
    const trainer_setup setup = { .name = "draw" };
    trainer *t = trainer_open(segments, count, p, &setup);

    trainer_fill_numbers(t, TRAINER_PARAMS, 1, 0.0);
    trainer_fill_numbers(t, TRAINER_GRADS, 2, 1.0);
    assert_ok(gradreg_regularizer_set_step(t->regularizer, step));
    assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
    trainer_read(t, TRAINER_PARAMS, out);
    assert_ok(gradreg_regularizer_cancel(t->regularizer, &t->buffers));
    trainer_close(t);
}

static gradreg_regularizer_params random_params(int gaussian, uint64_t seed)
{
    gradreg_regularizer_params p = large_params(&type_pairs[0]);

    p.direction = gaussian ? GRADREG_DIRECTION_GAUSSIAN : GRADREG_DIRECTION_RADEMACHER;
    p.epsilon = 1.0;
    p.seed = seed;
    p.perturbed_roles = 63;
    p.schedule.outside_multiplier = 1.0;
    return p;
}

static size_t table_elements(void)
{
    size_t n = 0;

    for (size_t s = 0; s < LARGE_TENSORS; s++)
        n += (size_t)large_table[s].count;
    return n;
}

/* Mean, variance, fourth moment, and what neighbours share: n = 136591, so 6 / sqrt(n) = 0.016. */
START_TEST(random_directions_have_their_moments)
{
    const gradreg_regularizer_params p = random_params(_i, 42);
    const size_t n = table_elements();
    double *v = calloc(n, sizeof(double)), mean = 0, square = 0, fourth = 0, beside = 0;

    draw(&p, large_table, LARGE_TENSORS, 7, v);
    for (size_t i = 0; i < n; i++) {
        mean += v[i] / (double)n;
        square += v[i] * v[i] / (double)n;
        fourth += pow(v[i], 4.0) / (double)n;
        beside += i > 0 ? v[i] * v[i - 1] / (double)n : 0.0;
        if (_i == 0)
            assert_that(fabs(v[i]) == 1.0, "element %zu is %a", i, v[i]);
    }
    ck_assert_double_lt(fabs(mean), 0.017);
    ck_assert_double_lt(fabs(beside), 0.017);
    ck_assert_double_lt(fabs(square - 1.0), _i == 0 ? 1e-9 : 0.024);
    ck_assert_double_lt(fabs(fourth - (_i == 0 ? 1.0 : 3.0)), _i == 0 ? 1e-9 : 0.17);
    free(v);
}
END_TEST

static double agreement(const double *x, const double *y, size_t n)
{
    double product = 0.0;

    for (size_t i = 0; i < n; i++)
        product += x[i] * y[i] / (double)n;
    return product;
}

START_TEST(random_directions_depend_on_seed_step_and_place_only)
{
    const gradreg_regularizer_params p = random_params(_i, 42), other = random_params(_i, 43);
    const size_t n = table_elements();
    double *v = calloc(n, sizeof(double)), *w = calloc(n, sizeof(double));

    draw(&p, large_table, LARGE_TENSORS, 7, v);
    draw(&p, large_table, LARGE_TENSORS, 7, w);
    ck_assert_int_eq(memcmp(v, w, n * sizeof(double)), 0);
    draw(&p, large_table, LARGE_TENSORS, 8, w);
    ck_assert_double_lt(fabs(agreement(v, w, n)), 0.017);
    draw(&other, large_table, LARGE_TENSORS, 7, w);
    ck_assert_double_lt(fabs(agreement(v, w, n)), 0.017);
    /* Two segments' numbers are not each other's. */
    ck_assert_double_lt(fabs(agreement(v + 33, v + 33 + 70001, LARGE_PATTERNS)), 0.024);
    /* A shorter segment gets the first of the longer one's. */
    gradreg_segment cut[LARGE_TENSORS];
    memcpy(cut, large_table, sizeof(cut));
    cut[1].count = 4099;
    draw(&p, cut, LARGE_TENSORS, 7, w);
    ck_assert_int_eq(memcmp(v, w, (33 + 4099) * sizeof(double)), 0);
    free(v);
    free(w);
}
END_TEST

/* The direction found that way, given to the oracle: a whole step along it, both differences. */
START_TEST(steps_along_random_directions_agree_with_the_oracle)
{
    int i = _i;
    gradreg_regularizer_params p = random_params(i % 2, 5);
    const size_t n = table_elements();
    double *v = calloc(n, sizeof(double));
    const trainer_setup setup = { .name = "random direction" };

    draw(&p, large_table, LARGE_TENSORS, 0, v);
    i /= 2;
    p.difference = i % 2 != 0 ? GRADREG_DIFFERENCE_CENTRAL : GRADREG_DIFFERENCE_FORWARD;
    p.output = GRADREG_OUTPUT_REGULARIZED + i / 2 % 2;
    p.step = GRADREG_STEP_NORMALIZED;
    p.epsilon = 0.5;
    trainer *t = trainer_open(large_table, LARGE_TENSORS, &p, &setup);
    trainer_fill_numbers(t, TRAINER_PARAMS, 1, 0.02);
    struct gradients source = { t, 0 };
    t->drawn = v;
    trainer_run(t, make_gradient, &source, TRAINER_COMBINE);
    free(v);
    trainer_close(t);
}
END_TEST

/* Every theta' is one of the two neighbours of theta + delta, and their mean is the sum. */
START_TEST(stochastic_rounding_is_fair_and_tight)
{
    gradreg_regularizer_params p = large_params(&type_pairs[1 + _i]);
    const trainer_setup setup = { .name = "stochastic" };
    double error = 0.0, spread = 0.0;
    size_t up = 0;

    p.rounding = GRADREG_ROUNDING_STOCHASTIC;
    p.epsilon = 1e-4;
    trainer *t = trainer_open(large_table, LARGE_TENSORS, &p, &setup);
    const gradreg_type type = p.param_type;
    trainer_fill_numbers(t, TRAINER_PARAMS, 1, 0.02);
    trainer_fill_numbers(t, TRAINER_GRADS, 2, 1.0);
    trainer_read(t, TRAINER_PARAMS, t->theta);
    trainer_read(t, TRAINER_GRADS, t->first);
    assert_ok(gradreg_regularizer_perturb(t->regularizer, &t->buffers));
    trainer_read(t, TRAINER_PARAMS, t->there);
    for (size_t i = t->oracle->start[1]; i < t->oracle->start[2]; i++) {
        const double sum = t->theta[i] + (double)((float)p.epsilon * (float)t->first[i]);
        const double nearest = oracle_round(type, sum), off = t->there[i] - sum;
        const double step = fmax(fabs(sum), 0x1p-14) * 4.0 * oracle_half_ulp(type);
        assert_that(fabs(off) <= step, "element %zu: %a is no neighbour of %a", i, t->there[i],
                    sum);
        assert_that(oracle_round(type, t->there[i]) == t->there[i], "%a does not fit",
                    t->there[i]);
        error += off;
        spread += off * off;
        up += t->there[i] != nearest;
    }
    ck_assert_double_lt(fabs(error), 5.0 * sqrt(spread));
    ck_assert_uint_gt(up, large_table[1].count / 20);
    assert_ok(gradreg_regularizer_cancel(t->regularizer, &t->buffers));
    trainer_close(t);
}
END_TEST

/* ---------------------------------------------------------------------------- suite */

int main(void)
{
    Suite *suite = suite_create("same bits");
    TCase *bits = tcase_create("same bits"), *chance = tcase_create("random");

    add_loop_test(bits, threads_paths_and_alignment_decide_nothing, 0, FORMS);
    add_loop_test(bits, the_order_of_segments_means_nothing_without_norms, 0, TYPE_PAIRS);
    tcase_add_test(bits, segments_of_a_layer_are_added_in_the_tables_order);
    add_loop_test(chance, random_directions_have_their_moments, 0, 2);
    add_loop_test(chance, random_directions_depend_on_seed_step_and_place_only, 0, 2);
    add_loop_test(chance, steps_along_random_directions_agree_with_the_oracle, 0, 8);
    add_loop_test(chance, stochastic_rounding_is_fair_and_tight, 0, TYPE_PAIRS - 1);
    tcase_set_timeout(bits, 60.0);
    suite_add_tcase(suite, bits);
    suite_add_tcase(suite, chance);
    return run_suite(suite);
}
