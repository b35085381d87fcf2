/* check_ranks.c - one table on several processes: slices of the flat buffer and shards of tensors,
 * cut anywhere, next to the same steps in one process. What must hold is said in rank_plan.h. */
#define _DEFAULT_SOURCE /* barriers */

#include <stdlib.h>
#include <string.h>

#include "rank_plan.h"
#include "suite.h"

START_TEST(cuts_mean_nothing_where_no_norm_decides)
{
    world *w = world_new(sizeof(struct result));
    struct result *alone = new_result();
    struct plan plan;
    uint64_t state = test_seed() + (uint64_t)_i;

    common_plan(&plan, false);
    set_pair(&plan, _i);
    plan.params.clip_first = plan.params.clip_second = 0;
    plan.params.difference =
        _i % 2 == 0 ? GRADREG_DIFFERENCE_FORWARD : GRADREG_DIFFERENCE_CENTRAL;
    plan.params.rounding = _i == 3 ? GRADREG_ROUNDING_STOCHASTIC : GRADREG_ROUNDING_NEAREST;
    plan.params.second_gradient = GRADREG_SECOND_GRADIENT_ADDS;
    plan.fallback_step = 1;
    run_alone(&plan, alone);
    for (int k = 0; k < WORLDS * LAYOUTS; k++) {
        const struct result *got = run_cut(w, &plan, k, &state);
        assert_same_snapshots(&plan, got, alone);
        for (int step = 0; step < STEPS; step++)
            assert_close_rows(&plan, got->rows[0][step], alone->rows[0][step]);
    }
    free(alone);
    world_free(w);
}
END_TEST

START_TEST(cuts_at_runs_of_blocks_give_the_bits_of_one_process)
{
    world *w = world_new(sizeof(struct result));
    struct result *alone = new_result();
    struct plan plan;

    common_plan(&plan, true);
    norms_plan(&plan, _i % 4);
    set_pair(&plan, (_i / 4 + _i) % TYPE_PAIRS);
    plan.uneven = true;
    run_alone(&plan, alone);
    for (int k = LAYOUTS; k < WORLDS * LAYOUTS; k++) {
        const struct result *got = run_cut(w, &plan, k, NULL);
        assert_same_snapshots(&plan, got, alone);
        for (int step = 0; step < STEPS; step++)
            assert_same_rows(&plan, got->rows[0][step], alone->rows[0][step],
                             "terms are not those of one process");
    }
    free(alone);
    world_free(w);
}
END_TEST

/* |a| + |k| (|a| + |b|) with k from the report; each pass's gradient is the same numbers. */
static double *update_sizes(const struct plan *plan, const struct result *alone, int step)
{
    const double *total = alone->rows[0][step];
    const double epsilon = total[2], k = total[0] / epsilon;
    double *size = calloc(elements(plan), sizeof(double));

    ck_assert_ptr_nonnull(size);
    for (size_t i = 0; i < elements(plan); i++)
        size[i] = 1.0 + (isnan(k) ? 4.0 : 4.0 * k); /* numbers are below 1 */
    return size;
}

START_TEST(cuts_anywhere_stay_within_an_ulp_of_coefficients)
{
    world *w = world_new(sizeof(struct result));
    struct result *alone = new_result(), *again = new_result();
    struct plan plan;
    uint64_t state = test_seed() + 50 + (uint64_t)_i;

    common_plan(&plan, false);
    norms_plan(&plan, _i % 4);
    plan.params.penalty = GRADREG_PENALTY_SQUARED_NORM; /* so that k is in the report */
    plan.fixed_gradients = true;
    set_pair(&plan, (_i / 4 + _i) % TYPE_PAIRS);
    run_alone(&plan, alone);
    for (int k = LAYOUTS; k < WORLDS * LAYOUTS; k++) {
        const struct result *got = run_cut(w, &plan, k, &state);
        for (int step = 0; step < STEPS; step++) {
            double *size = update_sizes(&plan, alone, step);
            for (int which = 0; which < SNAPSHOTS; which++)
                assert_close(&plan, got, alone, step, which, size);
            free(size);
        }
        memcpy(again, got, sizeof(*again));
        run_ranks(w, &plan, 0);
        ck_assert_msg(memcmp(again, w->shared, sizeof(*again)) == 0,
                      "%s: another run gives other bits", describe(&plan));
    }
    free(again);
    free(alone);
    world_free(w);
}
END_TEST

/* ---- suite ------------------------------------------------------------------------ */

int main(void)
{
    Suite *suite = suite_create("ranks");
    TCase *tcase = tcase_create("cuts");
    const int pairs_tried = rig_is_small() ? 2 - TEST_UNDER_TSAN : TYPE_PAIRS;
    const int variants = rig_is_small() ? 4 - 2 * TEST_UNDER_TSAN : 8;

    tcase_set_timeout(tcase, WORLD_SECONDS + 30.0);
    add_loop_test(tcase, cuts_mean_nothing_where_no_norm_decides, 0, pairs_tried);
    add_loop_test(tcase, cuts_at_runs_of_blocks_give_the_bits_of_one_process, 0, variants);
    add_loop_test(tcase, cuts_anywhere_stay_within_an_ulp_of_coefficients, 0, variants);
    suite_add_tcase(suite, tcase);
    /* Always in a process of its own: a rank that fails must not go on as the suite. */
    return run_plainly(suite, CK_FORK);
}
