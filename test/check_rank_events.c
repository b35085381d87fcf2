/* check_rank_events.c - what happens on several processes at once: a gradient that is not finite on
 * one of them, segments without gradients, copies, slices that move, and a callback that fails. */
#define _DEFAULT_SOURCE /* barriers */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rank_plan.h"
#include "suite.h"

/* One element on one rank, and all ranks treat the step alike. */
START_TEST(ranks_decide_alike_about_gradients_that_are_not_finite)
{
    world *w = world_new(sizeof(struct result));
    struct result *alone = new_result();
    struct plan plan;
    uint64_t state = test_seed() + 70 + (uint64_t)_i;

    common_plan(&plan, false);
    plan.params.clip_first = plan.params.clip_second = 0;
    plan.params.difference = GRADREG_DIFFERENCE_CENTRAL;
    plan.params.non_finite_first =
        _i / 3 == 0 ? GRADREG_NON_FINITE_ZERO : GRADREG_NON_FINITE_PROPAGATE;
    plan.params.non_finite_second =
        _i / 3 == 0 ? GRADREG_NON_FINITE_KEEP_FIRST : GRADREG_NON_FINITE_ZERO;
    plan.bad_step = 1;
    plan.bad_pass = _i % 3;
    plan.bad_segment = 4;
    plan.bad_element = 4321;
    run_alone(&plan, alone);
    for (int k = LAYOUTS; k < WORLDS * LAYOUTS; k++) {
        const struct result *got = run_cut(w, &plan, k, &state);
        assert_same_snapshots(&plan, got, alone);
        for (int step = 0; step < STEPS; step++)
            ck_assert(got->found_inf[0][step] == (step == 1 ? 1.0f : 0.0f));
        const double *total = got->rows[0][1];
        ck_assert(total[23] + total[24] == 1.0);
        ck_assert_int_eq((int)total[27], plan.bad_pass == 0 ? GRADREG_FLAG_NON_FINITE_FIRST
                                                            : GRADREG_FLAG_NON_FINITE_SECOND);
    }
    free(alone);
    world_free(w);
}
END_TEST

START_TEST(segments_without_gradients_are_left_out_on_every_rank)
{
    static const bool absent[SEGMENTS] = { false, true,  false, false, true,
                                           false, false, true,  false };
    world *w = world_new(sizeof(struct result));
    struct result *alone = new_result();
    struct plan plan;

    common_plan(&plan, true);
    norms_plan(&plan, _i);
    plan.absent = absent;
    plan.layout = SHARDS;
    run_alone(&plan, alone);
    for (int k = LAYOUTS + SHARDS; k < WORLDS * LAYOUTS; k += LAYOUTS) {
        const struct result *got = run_cut(w, &plan, k, NULL);
        assert_same_snapshots(&plan, got, alone);
        ck_assert_int_ne((int)got->rows[0][0][27] & GRADREG_FLAG_ABSENT_GRADIENT, 0);
    }
    free(alone);
    world_free(w);
}
END_TEST

START_TEST(replicas_count_once_and_move_like_the_original)
{
    world *w = world_new(sizeof(struct result));
    struct result *alone = new_result();
    struct plan plan;

    common_plan(&plan, true);
    norms_plan(&plan, _i);
    plan.replicas = true;
    plan.layout = SHARDS;
    run_alone(&plan, alone);
    for (int k = LAYOUTS + SHARDS; k < WORLDS * LAYOUTS; k += LAYOUTS) {
        const struct result *got = run_cut(w, &plan, k, NULL);
        assert_same_snapshots(&plan, got, alone);
        for (int rank = 0; rank < plan.world; rank++)
            for (int step = 0; step < STEPS; step++)
                for (int which = 0; which < SNAPSHOTS; which++)
                    ck_assert_msg(
                        got->replicas[rank][step][which] == alone->replicas[0][step][which],
                        "rank %d: another %s of its replicas", rank, snapshot_names[which]);
        for (int step = 0; step < STEPS; step++)
            assert_same_rows(&plan, got->rows[0][step], alone->rows[0][step],
                             "terms are not those of one process");
    }
    free(alone);
    world_free(w);
}
END_TEST

/* ---- slices that move ------------------------------------------------------------- */

/* Buffers of the whole table, of which only [begin, end) is shown. */
static void show_slice(rig *r, uint64_t begin, uint64_t end)
{
    r->buffers.params = r->flat[RIG_PARAMS] + begin * sizeof(float);
    r->buffers.grads = r->flat[RIG_GRADS] + begin * sizeof(float);
    r->buffers.slice_begin = begin;
    r->buffers.count = (size_t)(end - begin);
}

struct moving {
    struct plan plan;
    uint64_t first[WORLD_RANKS + 1], second[WORLD_RANKS + 1];
};

static void move_slice(world *w, int rank, void *user)
{
    const struct moving *m = user;
    const uint64_t *a = m->first + rank, *b = m->second + rank;
    const rig_setup setup = { .threads = 1 };
    gradreg_regularizer_params p = m->plan.params;

    p.rank = rank;
    p.world = m->plan.world;
    p.all_reduce = world_reduce(w, rank);
    rig *r = rig_open(m->plan.table, SEGMENTS, &p, &setup);
    const float *theta = (const float *)(void *)r->flat[RIG_PARAMS];
    rig_numbers(r, RIG_PARAMS, 5, -4);
    rig_numbers(r, RIG_GRADS, 6, 0);
    float *g1 = (float *)(void *)rig_gather(r, RIG_GRADS);
    float *clean = (float *)(void *)rig_gather(r, RIG_PARAMS);
    show_slice(r, a[0], a[1]);
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    show_slice(r, b[0], b[1]);
    assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    for (size_t i = 0; i < m->plan.table[0].count; i++) {
        const float noise = (float)p.epsilon * g1[i];
        const bool moves = i >= a[0] && i < a[1] && i >= b[0] && i < b[1];
        const float want = moves ? clean[i] + noise : clean[i];
        if (float_bits(theta[i]) != float_bits(want))
            ck_abort_msg("rank %d, element %zu: %a, want %a", rank, i, (double)theta[i],
                         (double)want);
    }
    assert_ok(gradreg_regularizer_cancel(r->reg, &r->buffers));
    rig_assert(r, RIG_PARAMS, (const char *)clean, "theta after cancel");
    rig_close(r);
    free(clean);
    free(g1);
}

/* Without params.slice_begin any slice may come, and another one in the next step. What is kept of
 * the last step belongs to its element: theta + noise is theta + epsilon g1 where this rank saw g1,
 * and theta elsewhere. */
START_TEST(what_is_kept_follows_its_element_when_slices_move)
{
    static const uint64_t second[] = { 5000, 5001, 4000, 9100, 20 };
    world *w = world_new(1);
    struct moving m;

    common_plan(&m.plan, true);
    m.plan.world = 2;
    m.plan.params.clip_first = m.plan.params.clip_second = 0;
    m.plan.params.noise.rule = GRADREG_NOISE_STEP;
    m.plan.params.noise.first_layer = 0;
    m.plan.params.noise.last_layer = 0;
    m.first[0] = m.second[0] = 0;
    m.first[1] = 5000;
    m.second[1] = second[_i];
    m.first[2] = m.second[2] = table_end(m.plan.table);
    world_run(w, 2, 0, move_slice, &m);
    world_free(w);
}
END_TEST

/* ---- a cut inside a block --------------------------------------------------------- */

enum {
    CUT = 32 * BLOCK,
    REST = 7,
    LONG = 50 * BLOCK + 100,
    LONG_BYTES = LONG * sizeof(float) + sizeof(double)
};

static void step_long_segment(rig *r, char *out)
{
    uint64_t begin;
    const size_t n = rig_part(r, 0, &begin);

    rig_numbers(r, RIG_PARAMS, 5, -4);
    rig_numbers(r, RIG_GRADS, 6, 0);
    for (size_t i = 0; i < n; i++) {
        float *g = (float *)r->piece[RIG_GRADS][0] + i;
        const uint64_t at = begin + i;
        *g = at >= CUT && at < CUT + REST ? 0.0f : ldexpf(*g, -13 * (int)(at / BLOCK % 3));
    }
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    memcpy(out + begin * sizeof(float), r->piece[RIG_PARAMS][0], n * sizeof(float));
    assert_ok(gradreg_regularizer_fallback(r->reg, &r->buffers));
    const double norm = rig_terms(r).first_norm; /* in double it shows every bit of the sum */
    memcpy(out + LONG * sizeof(float), &norm, sizeof(norm));
    rig_close(r);
}

static gradreg_regularizer_params long_params(void)
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.layer_count = 1;
    p.step = GRADREG_STEP_NORMALIZED;
    p.epsilon = 30.0;
    return p;
}

static gradreg_segment long_segment(void)
{
    gradreg_segment s = GRADREG_SEGMENT_INIT;

    s.count = LONG;
    s.layer = 0;
    s.role = GRADREG_ROLE_MLP;
    return s;
}

static void step_part(world *w, int rank, void *user)
{
    gradreg_regularizer_params p = long_params();
    const gradreg_segment segment = long_segment();
    const rig_setup setup = { .sliced = true,
                              .begin = rank == 0 ? 0 : CUT + REST,
                              .count = rank == 0 ? CUT + REST : LONG - CUT - REST };

    (void)user;
    p.rank = rank;
    p.world = 2;
    p.all_reduce = world_reduce(w, rank);
    p.slice_begin = setup.begin;
    p.slice_count = setup.count;
    step_long_segment(rig_open(&segment, 1, &p, &setup), w->shared);
}

/* Blocks count from the segment's start on every rank, however many threads' shares follow: what a
 * cut leaves of a block whose other elements are zeros sums up like the block, and the cut lies
 * behind 2^5 blocks, so nothing is different from one process. */
START_TEST(blocks_do_not_shift_behind_a_cut)
{
    world *w = world_new(LONG_BYTES);
    char *alone = malloc(LONG_BYTES);
    const gradreg_regularizer_params p = long_params();
    const gradreg_segment segment = long_segment();
    const rig_setup setup = { .threads = 1 };

    ck_assert_ptr_nonnull(alone);
    step_long_segment(rig_open(&segment, 1, &p, &setup), alone);
    world_run(w, 2, 0, step_part, NULL);
    ck_assert_int_eq(memcmp(alone, w->shared, LONG_BYTES), 0);
    free(alone);
    world_free(w);
}
END_TEST

static void assert_coverage_refused(rig *r, const char *first, const char *second)
{
    rig_numbers(r, RIG_PARAMS, 5, -4);
    rig_numbers(r, RIG_GRADS, 6, 0);
    char *clean = rig_gather(r, RIG_PARAMS);
    assert_fails(gradreg_regularizer_perturb(r->reg, &r->buffers),
                 GRADREG_ERROR_INVALID_ARGUMENT, first, second);
    rig_assert(r, RIG_PARAMS, clean, "theta");
    free(clean);
    rig_close(r);
}

/* Every rank with everything is data parallelism, which is no sharding: noticed, not summed up. */
static void hold_everything(world *w, int rank, void *user)
{
    const struct plan *plan = user;
    const rig_setup setup = { .threads = 1 };
    gradreg_regularizer_params p = plan->params;

    p.rank = rank;
    p.world = plan->world;
    p.all_reduce = world_reduce(w, rank);
    rig *r = rig_open(plan->table, SEGMENTS, &p, &setup);
    assert_coverage_refused(r, "ranks", "each once");
}

START_TEST(ranks_that_all_hold_everything_are_told_so)
{
    world *w = world_new(1);
    struct plan plan;

    common_plan(&plan, true);
    plan.world = 2;
    world_run(w, 2, 0, hold_everything, &plan);
    world_free(w);
}
END_TEST

/* What an all_reduce that averages, or that was left empty, makes of two ranks. */
static int32_t average_of_two(void *user, double *values, size_t count, void *stream)
{
    (void)stream;
    for (size_t i = 0; *(const int *)user && i < count; i++)
        values[i] /= 2; /* entries of the other rank aside, which are zeros here */
    return 0;
}

START_TEST(sums_that_are_none_are_told_so)
{
    struct plan plan;
    int averages = _i;

    common_plan(&plan, true);
    const rig_setup setup = { /* the first rank; what the other holds never arrives */
                              .threads = 1,
                              .sliced = true,
                              .count = (size_t)plan.table[0].count
    };
    gradreg_regularizer_params p = plan.params;
    p.world = 2;
    p.all_reduce = (gradreg_all_reduce){ average_of_two, &averages, 0, 0, NULL };
    rig *r = rig_open(plan.table, SEGMENTS, &p, &setup);
    assert_coverage_refused(r, "ranks hold", "all_reduce must add");
}
END_TEST

/* ---- the callback fails ----------------------------------------------------------- */

/* Wherever it fails, going on as documented ends where nothing had failed. */
static void fail_everywhere(world *w, struct plan *plan, const struct result *unfailed,
                            int calls)
{
    for (int fail_at = 1; fail_at <= calls; fail_at++) {
        run_ranks(w, plan, fail_at);
        const struct result *got = (const void *)w->shared;
        int complete = 0;
        assert_ranks_agree(plan, got);
        assert_same_snapshots(plan, got, unfailed);
        for (int step = 0; step < STEPS; step++) {
            complete += got->completed[0][step];
            if (!got->completed[0][step])
                assert_same_rows(plan, got->rows[0][step], unfailed->rows[0][step],
                                 "terms are not those of the run without failure");
        }
        ck_assert_msg(complete + got->repeats[0] == 1, "call %d of %d: %d and %d", fail_at,
                      calls, complete, got->repeats[0]);
    }
}

START_TEST(a_failed_exchange_leaves_everything_as_it_was)
{
    world *w = world_new(sizeof(struct result));
    struct result *unfailed = new_result();
    struct plan plan;
    uint64_t state = test_seed() + 90;

    common_plan(&plan, false);
    norms_plan(&plan, _i % 4);
    plan.world = 2 + _i / 8 % 2;
    plan.after_failure = _i / 4 % 2 == 0 ? RETRY : CANCEL_AND_REPEAT;
    plan.layout = (enum layout)(_i % LAYOUTS);
    plan.fallback_step = plan.params.interval == 1 ? 1 : -1;
    random_borders(&plan, &state);
    run_ranks(w, &plan, 0);
    memcpy(unfailed, w->shared, sizeof(*unfailed));
    const int calls = w->calls[0];
    ck_assert_int_ge(calls, STEPS * 3);
    fail_everywhere(w, &plan, unfailed, calls);
    free(unfailed);
    world_free(w);
}
END_TEST

/* ---- suite ------------------------------------------------------------------------ */

int main(void)
{
    Suite *suite = suite_create("rank events");
    TCase *tcase = tcase_create("events");
    const int variants = TEST_UNDER_TSAN ? LAYOUTS : rig_is_small() ? 8 : 16;

    tcase_set_timeout(tcase, WORLD_SECONDS + 30.0);
    add_loop_test(tcase, ranks_decide_alike_about_gradients_that_are_not_finite, 0, 6);
    add_loop_test(tcase, segments_without_gradients_are_left_out_on_every_rank, 0, 4);
    add_loop_test(tcase, replicas_count_once_and_move_like_the_original, 0, 4);
    add_loop_test(tcase, what_is_kept_follows_its_element_when_slices_move, 0, 5);
    tcase_add_test(tcase, blocks_do_not_shift_behind_a_cut);
    tcase_add_test(tcase, ranks_that_all_hold_everything_are_told_so);
    tcase_add_loop_test(tcase, sums_that_are_none_are_told_so, 0, 2);
    add_loop_test(tcase, a_failed_exchange_leaves_everything_as_it_was, 0, variants);
    suite_add_tcase(suite, tcase);
    /* Always in a process of its own: a rank that fails must not go on as the suite. */
    return run_plainly(suite, CK_FORK);
}
