/* check_conformance.c - the same bits whatever carries the step out, for all of its calls.
 *
 *      form of a step x type pair x backend x
 *          { vector path x threads (of the CPU) x alignment x layout x placement }
 *
 * One thread of the CPU on the scalar path, aligned, flat, in place and from a copy, is what all
 * others are held to: theta' at every call, g_hat, the terms, and theta afterwards to the last bit.
 * Every buffer is guarded, and every byte between segments must stay. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"

enum { LAYERS = 3 };

/* ---- the table -------------------------------------------------------------------- */

/* Every size at which a loop may change its mind, and one of those around a thread's share. */
static const size_t small_sizes[] = { 0,   1,   2,    31, 32,   33,   255,
                                      256, 257, 1021, 0,  4095, 4096, 4097 };
static const size_t large_sizes[] = { 65535, 65536, 65537, 70001 };
enum { SMALL = sizeof(small_sizes) / sizeof(*small_sizes), SEGMENTS = SMALL + 2 };

static void make_table(gradreg_segment *table, size_t large)
{
    static const uint32_t roles[] = { GRADREG_ROLE_ATTENTION, GRADREG_ROLE_MLP,
                                      GRADREG_ROLE_NORM };
    const gradreg_segment empty = GRADREG_SEGMENT_INIT;
    uint64_t at = 3;

    for (size_t s = 0; s < SEGMENTS; s++) {
        table[s] = empty;
        table[s].count = s < SMALL ? small_sizes[s] : s == SMALL ? large : 515;
        table[s].offset = at;
        table[s].layer = (int32_t)(s % LAYERS);
        table[s].role = roles[s / LAYERS % 3];
        at += table[s].count + s % 4; /* gaps of 0 to 3 elements */
    }
    table[9].flags = GRADREG_SEGMENT_FROZEN;
    table[SMALL + 1].layer = GRADREG_LAYER_NONE;
    table[SMALL + 1].role = GRADREG_ROLE_EMBEDDING;
}

/* ---- the forms of a step ---------------------------------------------------------- */

enum form { REUSED, CENTRAL_STOCHASTIC, PRODUCT, TRUNCATED_NOISY, ANY_WEIGHTS, FORMS };

static void common_form(gradreg_regularizer_params *p, int pair)
{
    const gradreg_regularizer_params defaults = GRADREG_REGULARIZER_PARAMS_INIT;

    *p = defaults;
    p->param_type = type_pairs[pair].param;
    p->grad_type = type_pairs[pair].grad;
    p->layer_count = LAYERS;
    p->schedule.first_layer = 1;
    p->schedule.full_layer = 2;
    p->seed = 77;
}

static void product_form(gradreg_regularizer_params *p, int pair)
{
    p->output = GRADREG_OUTPUT_PRODUCT;
    p->difference = GRADREG_DIFFERENCE_CENTRAL;
    p->direction = pair == 0 ? GRADREG_DIRECTION_GAUSSIAN : GRADREG_DIRECTION_RADEMACHER;
    p->step = GRADREG_STEP_NORMALIZED;
    p->perturbed_roles = 63;
    p->schedule.outside_multiplier = 1.0;
    p->epsilon = 2.0;
}

static void truncated_form(gradreg_regularizer_params *p, int pair)
{
    p->direction = GRADREG_DIRECTION_CALLER;
    p->step = GRADREG_STEP_RELATIVE;
    p->epsilon = 0.05;
    p->second_pass = GRADREG_SECOND_PASS_TRUNCATED;
    p->common_clip = 1;
    p->compute_type = all_types[1 + pair % (LAST_TYPE - 1)];
    p->second_gradient = GRADREG_SECOND_GRADIENT_ADDS;
    p->noise.rule = GRADREG_NOISE_NEFTUNE;
    p->noise.scale = -1.0;
}

static gradreg_regularizer_params form_params(enum form form, int pair)
{
    gradreg_regularizer_params p;

    common_form(&p, pair);
    switch (form) {
    case REUSED:
        p.second_gradient = GRADREG_SECOND_GRADIENT_ADDS;
        p.interval = 2;
        p.common_clip = 1;
        p.epsilon = 0.25;
        p.noise.rule = GRADREG_NOISE_RELATIVE;
        break;
    case CENTRAL_STOCHASTIC:
        p.difference = GRADREG_DIFFERENCE_CENTRAL;
        p.step = GRADREG_STEP_NORMALIZED;
        p.penalty = GRADREG_PENALTY_NORM;
        p.depth = GRADREG_DEPTH_ON_PENALTY;
        p.rounding = GRADREG_ROUNDING_STOCHASTIC;
        p.first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS;
        p.epsilon = 1.0;
        p.noise.rule = GRADREG_NOISE_RELATIVE;
        break;
    case PRODUCT: product_form(&p, pair); break;
    case TRUNCATED_NOISY: truncated_form(&p, pair); break;
    default: p.epsilon = 0.5; break;
    }
    return p;
}

/* ---- one run ---------------------------------------------------------------------- */

enum { MARKS = 24 };

struct record {
    int count;
    uint64_t mark[MARKS];
    const char *name[MARKS];
};

static void mark(struct record *r, const char *name, uint64_t value)
{
    ck_assert_int_lt(r->count, MARKS);
    r->name[r->count] = name;
    r->mark[r->count++] = value;
}

/* Terms bit for bit, all NaN alike. */
static uint64_t rows_digest(rig *r)
{
    const size_t count = rig_rows_bytes(r) / sizeof(double);
    double *rows = rig_rows(r);
    uint64_t sum = DIGEST_START;

    for (size_t i = 0; i < count; i++)
        sum = digest(sum, rows[i] == rows[i] ? double_bits(rows[i]) : 1);
    free(rows);
    return sum;
}

static void assert_zeroed(const rig *r, const char *what)
{
    char *grads = rig_gather(r, RIG_GRADS);
    const size_t bytes = rig_bytes(r, RIG_GRADS);
    size_t at = 0;

    for (size_t s = 0; s < r->segment_count; s++) {
        uint64_t begin;
        const size_t end = at + rig_part(r, s, &begin) * type_bytes(rig_type(r, RIG_GRADS, s));
        for (; at < end; at++)
            if (grads[at] != 0 && (r->segments[s].flags & GRADREG_SEGMENT_FROZEN) == 0)
                ck_abort_msg("%s leaves grads of segment %zu not zero", what, s);
    }
    ck_assert_uint_eq(at, bytes);
    free(grads);
}

static void after_move(rig *r, struct record *record, const char *name)
{
    mark(record, name, rig_digest(r, rig_moved(r)));
    if (r->params.second_gradient == GRADREG_SECOND_GRADIENT_ADDS)
        assert_zeroed(r, name);
}

/* A truncated pass leaves rows that nobody may read. */
static void second_gradient(rig *r, uint64_t seed)
{
    rig_numbers(r, RIG_GRADS, seed, 0);
    for (size_t s = 0; s < r->segment_count; s++) {
        uint64_t begin;
        const gradreg_segment *segment = &r->segments[s];
        const bool unseen = segment->layer < 1 || segment->role == GRADREG_ROLE_EMBEDDING;
        for (size_t i = 0; unseen && i < rig_part(r, s, &begin) &&
                           r->params.second_pass == GRADREG_SECOND_PASS_TRUNCATED;
             i++)
            typed_set(r->piece[RIG_GRADS][s], rig_type(r, RIG_GRADS, s), i, (double)NAN);
    }
}

enum ending { COMBINE, FALLBACK, CANCEL };

static void run_step(rig *r, struct record *record, uint64_t step, enum ending ending)
{
    if (r->params.noise.rule > GRADREG_NOISE_OFF) {
        assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
        mark(record, "theta after inject", rig_digest(r, rig_moved(r)));
    }
    rig_numbers(r, rig_first(r), 10 * step + 1, 0);
    const int32_t passes = rig_passes(r);
    for (int32_t pass = 0; pass < passes; pass++) {
        assert_ok(pass == 0 ? gradreg_regularizer_perturb(r->reg, &r->buffers)
                            : gradreg_regularizer_mirror(r->reg, &r->buffers));
        after_move(r, record, pass == 0 ? "theta after perturb" : "theta after mirror");
        second_gradient(r, 10 * step + 2 + (uint64_t)pass);
    }
    if (ending == CANCEL) {
        assert_ok(gradreg_regularizer_cancel(r->reg, &r->buffers));
        return;
    }
    assert_ok(ending == COMBINE ? gradreg_regularizer_combine(r->reg, &r->buffers)
                                : gradreg_regularizer_fallback(r->reg, &r->buffers));
    mark(record, "g_hat", rig_digest(r, RIG_GRADS));
    mark(record, "terms", rows_digest(r));
}

static void fill_weights(rig *r, enum form form)
{
    if (form == ANY_WEIGHTS)
        rig_patterns(r, RIG_PARAMS, 5, r->params.restore == GRADREG_RESTORE_MASTER);
    else
        rig_numbers(r, RIG_PARAMS, 5, -4);
    if (r->params.restore == GRADREG_RESTORE_MASTER)
        rig_make_master(r, 6);
    if (r->params.direction == GRADREG_DIRECTION_CALLER)
        rig_numbers(r, RIG_DIRECTION, 7, 0);
}

static void run(struct record *record, const gradreg_segment *table, size_t count,
                const gradreg_regularizer_params *params, const rig_setup *setup,
                enum form form)
{
    rig *r = rig_open(table, count, params, setup);

    record->count = 0;
    fill_weights(r, form);
    char *theta = rig_gather(r, RIG_PARAMS);
    for (uint64_t step = 0; step < 2; step++) {
        run_step(r, record, step, COMBINE);
        rig_assert(r, RIG_PARAMS, theta, "theta after combine");
    }
    if (form != REUSED) { /* whose next step has a second pass too */
        run_step(r, record, 2, CANCEL);
        rig_assert(r, RIG_PARAMS, theta, "theta after cancel");
        run_step(r, record, 3, FALLBACK);
        rig_assert(r, RIG_PARAMS, theta, "theta after fallback");
    }
    free(theta);
    rig_close(r);
}

/* ---- the grid --------------------------------------------------------------------- */

struct placing {
    const char *name;
    gradreg_placement placement;
    gradreg_restore restore;
};
static const struct placing placings[] = {
    { "in place, from a copy", GRADREG_PLACEMENT_IN_PLACE, GRADREG_RESTORE_COPY },
    { "in place, from master", GRADREG_PLACEMENT_IN_PLACE, GRADREG_RESTORE_MASTER },
    { "out of place", GRADREG_PLACEMENT_OUT_OF_PLACE, GRADREG_RESTORE_COPY },
};
static const int32_t thread_counts[] = { 1, 2, 3, 7 };

static void assert_equal(const struct record *got, const struct record *want, const char *where)
{
    ck_assert_int_eq(got->count, want->count);
    for (int i = 0; i < want->count; i++)
        if (got->mark[i] != want->mark[i])
            ck_abort_msg("%s: %s (mark %d) is not the reference's", where, want->name[i], i);
}

struct cell {
    int path, threads, off, scattered, placing;
    bool on_cpu; /* whatever backend the suite runs on */
};

/* What cells are held to. */
static struct cell reference_cell(int placing)
{
    return (struct cell){ .placing = placing, .on_cpu = true };
}

/* The form with most in it takes every cell, others every fifth, small grids every 37th: strides
 * that have no divisor in common with the counts. */
static int next_cell(struct cell *c, int *k, enum form form)
{
    const int cells = 4 * 4 * 2 * 2 * 3, i = *k;

    if (on_cuda()) { /* neither paths nor threads */
        *k += rig_is_small() ? 5 : 1;
        *c = (struct cell){ .off = i % 2, .scattered = i / 2 % 2, .placing = i / 4 % 3 };
        return i < 2 * 2 * 3;
    }
    *k += rig_is_small() ? 37 : form == REUSED ? 1 : 5;
    *c = (struct cell){ i % 4, i / 4 % 4, i / 16 % 2, i / 32 % 2, i / 64 % 3, false };
    return i < cells;
}

static void run_cell(struct record *record, const gradreg_segment *table, size_t count,
                     gradreg_regularizer_params p, const struct cell *c, enum form form)
{
    const rig_setup setup = { .on_cpu = c->on_cpu,
                              .path = paths[c->path],
                              .threads = thread_counts[c->threads],
                              .misalignment = (size_t)c->off,
                              .scattered = c->scattered };

    p.placement = placings[c->placing].placement;
    p.restore = placings[c->placing].restore;
    run(record, table, count, &p, &setup, form);
}

static const char *cell_name(const struct cell *c, enum form form)
{
    static char name[160];

    snprintf(name, sizeof(name), "form %d, %s, %d threads, %s, %s, %s", (int)form,
             on_cuda() ? "CUDA" : paths[c->path], thread_counts[c->threads],
             c->off ? "misaligned" : "aligned", c->scattered ? "scattered" : "flat",
             placings[c->placing].name);
    return name;
}

/* Signalling NaN in 16 bits are no round(master): each restore has weights of its own there. */
static const struct record *reference_of(const struct record *references, const struct cell *c,
                                         enum form form)
{
    return form == ANY_WEIGHTS && placings[c->placing].restore == GRADREG_RESTORE_MASTER
               ? &references[1]
               : &references[0];
}

/* Threads share out work without regard to types: where only they are watched, each form has one pair. */
static int grid_cases(void)
{
    return TEST_UNDER_TSAN ? FORMS : FORMS * TYPE_PAIRS;
}

static enum form form_of(int i)
{
    return (enum form)(TEST_UNDER_TSAN ? i : i / TYPE_PAIRS);
}

START_TEST(nothing_but_table_and_parameters_decides_over_bits)
{
    const enum form form = form_of(_i);
    const int pair = _i % TYPE_PAIRS;
    const gradreg_regularizer_params params = form_params(form, pair);
    gradreg_segment table[SEGMENTS];
    struct record references[2], other;
    struct cell c;
    int cells = 0;

    make_table(table, large_sizes[(size_t)form % 4]);
    for (int k = 0; k < 2; k++) {
        const struct cell reference = reference_cell(k);
        run_cell(&references[k], table, SEGMENTS, params, &reference, form);
    }
    for (int k = 0; next_cell(&c, &k, form);) {
        if (!has_path(paths[c.path]))
            continue;
        run_cell(&other, table, SEGMENTS, params, &c, form);
        assert_equal(&other, reference_of(references, &c, form), cell_name(&c, form));
        cells++;
    }
    ck_assert_int_ge(cells, 2);
}
END_TEST

/* From 16 MB on, copies bypass the caches; the scalar path has no such stores. */
START_TEST(streamed_stores_change_nothing)
{
    LEAVE_OUT_ON_CUDA("there are no stores that bypass caches");
    const int pair = _i;
    const size_t count = 3;
    gradreg_segment table[SEGMENTS];
    gradreg_regularizer_params params = form_params(CENTRAL_STOCHASTIC, pair);
    struct record reference, other;

    make_table(table, 0); /* for layers and roles */
    const size_t sizes[3] = { 1200001, 300007, 4093 };
    for (size_t s = 0, at = 0; s < count; at += sizes[s] + 1, s++) {
        table[s].count = sizes[s];
        table[s].offset = at;
    }
    params.rounding = GRADREG_ROUNDING_NEAREST;
    params.noise.rule = GRADREG_NOISE_OFF;
    const struct cell first = reference_cell(0);
    run_cell(&reference, table, count, params, &first, CENTRAL_STOCHASTIC);
    for (int path = rig_is_small() ? 3 : 1; path < 4; path++)
        for (int k = 0; k < 3 && has_path(paths[path]); k++) {
            const struct cell c = { path, k, (k + path) % 2, k == 1, k, false };
            run_cell(&other, table, count, params, &c, CENTRAL_STOCHASTIC);
            assert_equal(&other, &reference, cell_name(&c, CENTRAL_STOCHASTIC));
        }
}
END_TEST

/* A table of nothing but empty segments, or of one element, is still a step. */
START_TEST(the_smallest_tables_go_through_every_form)
{
    const enum form form = form_of(_i);
    gradreg_segment table[SEGMENTS];
    struct record reference, other;
    gradreg_regularizer_params params = form_params(form, _i % TYPE_PAIRS);
    const struct cell first = reference_cell(0);

    for (size_t largest = 0; largest <= 2; largest++) {
        make_table(table, largest);
        for (size_t s = 0; s < SEGMENTS; s++)
            table[s].count = table[s].count < largest ? table[s].count : largest;
        run_cell(&reference, table, SEGMENTS, params, &first, form);
        for (int path = 0; path < 4 && has_path(paths[path]); path++) {
            const struct cell c = { path, 3, path % 2, path / 2 % 2, 0, false };
            run_cell(&other, table, SEGMENTS, params, &c, form);
            assert_equal(&other, &reference, cell_name(&c, form));
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("conformance");
    TCase *grid = tcase_create("grid");

    tcase_set_timeout(grid, 120.0);
    add_loop_test(grid, nothing_but_table_and_parameters_decides_over_bits, 0, grid_cases());
    add_loop_test(grid, streamed_stores_change_nothing, 0, rig_is_small() ? 1 : TYPE_PAIRS);
    add_loop_test(grid, the_smallest_tables_go_through_every_form, 0, grid_cases());
    suite_add_tcase(suite, grid);
    return run_suite(suite);
}
