/* check_fault_quiet.c - the part of the faults for threads that cannot be started, and the proof
 * that nothing in a step allocates. */
#include <stdlib.h>

#include "faults.h"
#include "rig.h"
#include "support.h"

/* ---- threads ----------------------------------------------------------------------- */

/* Several pieces of 65,536 elements each, so that there is work for threads. */
static const gradreg_segment wide_table[] = {
    { 0, 150001, 0, 0, 0, GRADREG_ROLE_ATTENTION, 0, 0, 0, { 0 } },
    { 150001, 70003, 0, 0, 1, GRADREG_ROLE_MLP, 0, 0, 0, { 0 } },
    { 220004, 9, 0, 0, GRADREG_LAYER_NONE, GRADREG_ROLE_HEAD, 0, 0, 0, { 0 } },
};

static gradreg_regularizer_params wide_params(void)
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.layer_count = 2;
    p.difference = GRADREG_DIFFERENCE_CENTRAL;
    p.noise.rule = GRADREG_NOISE_RELATIVE;
    p.noise.first_layer = p.noise.last_layer = 0;
    p.rounding = GRADREG_ROUNDING_STOCHASTIC;
    return p;
}

static void whole_step(rig *r)
{
    double epsilon;
    gradreg_terms total = GRADREG_TERMS_INIT;

    assert_ok(gradreg_regularizer_inject_noise(r->reg, &r->buffers));
    rig_gradient(r, 11, true);
    assert_ok(gradreg_regularizer_suggest_epsilon(r->reg, &epsilon, &r->buffers, 0.9));
    assert_ok(gradreg_regularizer_perturb(r->reg, &r->buffers));
    rig_gradient(r, 12, false);
    assert_ok(gradreg_regularizer_mirror(r->reg, &r->buffers));
    rig_gradient(r, 13, false);
    assert_ok(gradreg_regularizer_combine(r->reg, &r->buffers));
    assert_ok(gradreg_regularizer_terms(r->reg, &total, NULL, 0));
}

static rig *open_wide(const gradreg_regularizer_params *params, int32_t threads)
{
    const rig_setup setup = { .threads = threads };
    rig *r = rig_open(wide_table, 3, params, &setup);

    rig_numbers(r, RIG_PARAMS, 1, -4);
    return r;
}

static uint64_t bits_with(int32_t threads, int may_start, int32_t *working)
{
    const gradreg_regularizer_params p = wide_params();
    rig *r = open_wide(&p, threads);

    allow_threads(may_start);
    whole_step(r);
    whole_step(r);
    allow_threads(1000);
    *working = info_of(r->context).threads;
    const uint64_t bits = rig_digest(r, RIG_GRADS);
    rig_close(r);
    return bits;
}

START_TEST(a_step_needs_no_thread_but_the_callers)
{
    int32_t working;
    const uint64_t bits = bits_with(1, 0, &working);

    for (int may_start = 0; may_start < 4; may_start++) {
        ck_assert_uint_eq(bits_with(4, may_start, &working), bits);
        ck_assert_int_eq(working, 1 + (may_start < 3 ? may_start : 3));
    }
}
END_TEST

/* ---- nothing in a step allocates --------------------------------------------------- */

static const struct {
    const char *name;
    int32_t threads;
    gradreg_difference difference;
    gradreg_step step;
    gradreg_direction direction;
    int32_t interval;
} quiet[] = {
    { "one thread", 1, GRADREG_DIFFERENCE_CENTRAL, GRADREG_STEP_RAW, 0, 1 },
    { "two threads", 2, GRADREG_DIFFERENCE_CENTRAL, GRADREG_STEP_RELATIVE, 0, 1 },
    { "random", 2, GRADREG_DIFFERENCE_CENTRAL, GRADREG_STEP_NORMALIZED,
      GRADREG_DIRECTION_GAUSSIAN, 1 },
};
enum { QUIET = sizeof(quiet) / sizeof(quiet[0]) };

static uint64_t allocations(const rig *r)
{
    return info_of(r->context).allocations;
}

/* Of the step's calls alone: the trainer's gradients may allocate. */
static void quiet_call(const rig *r, gradreg_status status, const char *call)
{
    const size_t calls = stop_watching();

    (void)r;
    ck_assert_msg(status == GRADREG_OK, "%s: %s", call, gradreg_last_error());
    ck_assert_msg(calls == 0, "%s allocated %zu times", call, calls);
}

#define QUIET_CALL(function, ...)                                                   \
    do {                                                                            \
        watch(0);                                                                   \
        const gradreg_status status_ = gradreg_regularizer_##function(__VA_ARGS__); \
        quiet_call(r, status_, #function);                                          \
    } while (0)

static void quiet_step(rig *r)
{
    static gradreg_terms total = GRADREG_TERMS_INIT;
    static double rows[3 * GRADREG_TERMS_COLUMNS];
    double epsilon;
    int32_t number;

    QUIET_CALL(extra_passes, r->reg, &number);
    QUIET_CALL(inject_noise, r->reg, &r->buffers);
    QUIET_CALL(remove_noise, r->reg, &r->buffers);
    QUIET_CALL(inject_noise, r->reg, &r->buffers);
    rig_gradient(r, 11, true);
    QUIET_CALL(suggest_epsilon, r->reg, &epsilon, &r->buffers, 0.9);
    QUIET_CALL(perturb, r->reg, &r->buffers);
    QUIET_CALL(cancel, r->reg, &r->buffers);
    rig_gradient(r, 11, true);
    QUIET_CALL(perturb, r->reg, &r->buffers);
    QUIET_CALL(fallback, r->reg, &r->buffers);
    rig_gradient(r, 11, true);
    QUIET_CALL(perturb, r->reg, &r->buffers);
    rig_gradient(r, 12, false);
    QUIET_CALL(mirror, r->reg, &r->buffers);
    rig_gradient(r, 13, false);
    QUIET_CALL(combine, r->reg, &r->buffers);
    QUIET_CALL(terms, r->reg, &total, NULL, 0);
    QUIET_CALL(terms_enqueue, r->reg, rows);
    QUIET_CALL(set_strength, r->reg, 0.5);
    QUIET_CALL(set_epsilon, r->reg, 0.5);
    QUIET_CALL(set_step, r->reg, 3);
}

START_TEST(nothing_in_a_step_allocates)
{
    gradreg_regularizer_params p = wide_params();

    p.difference = quiet[_i].difference;
    p.step = quiet[_i].step;
    p.direction = quiet[_i].direction;
    rig *r = open_wide(&p, quiet[_i].threads);
    whole_step(r); /* starts the pool */
    const uint64_t before = allocations(r);
    quiet_step(r);
    ck_assert_uint_eq(allocations(r), before);
    rig_close(r);
}
END_TEST

TCase *quiet_case(void)
{
    TCase *tests = tcase_create("threads, and nothing allocated");

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_step_needs_no_thread_but_the_callers);
    tcase_add_loop_test(tests, nothing_in_a_step_allocates, 0, QUIET);
    return tests;
}
