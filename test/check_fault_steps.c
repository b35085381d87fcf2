/* check_fault_steps.c - the part of the faults for the caller's all_reduce, at each of its calls in
 * every call of a step: nothing has changed, or the step is complete but for its report. */
#include <stdlib.h>
#include <string.h>

#include "bad_input.h"
#include "faults.h"

/* ---- all_reduce -------------------------------------------------------------------- */

#define RANKS(...)              \
    {                           \
        .world = 2, __VA_ARGS__ \
    }
static const struct mode reducing[] = {
    RANKS(.name = "forward"),
    RANKS(.name = "central, adds", .difference = GRADREG_DIFFERENCE_CENTRAL,
          .second_gradient = GRADREG_SECOND_GRADIENT_ADDS),
    RANKS(.name = "keeps, elsewhere", .first_gradient = GRADREG_FIRST_GRADIENT_CALLER_KEEPS,
          .placement = GRADREG_PLACEMENT_OUT_OF_PLACE),
    RANKS(.name = "central, master, caller's direction",
          .difference = GRADREG_DIFFERENCE_CENTRAL, .restore = GRADREG_RESTORE_MASTER,
          .direction = GRADREG_DIRECTION_CALLER),
    RANKS(.name = "random direction, pointers", .pointers = true,
          .direction = GRADREG_DIRECTION_RADEMACHER),
    RANKS(.name = "interval", .interval = 2),
};
enum { REDUCING = sizeof(reducing) / sizeof(reducing[0]) };

/* The second reduction of combine and fallback comes when everything is written. */
static bool is_complete(void)
{
    return strstr(gradreg_last_error(), "the step is complete") != NULL;
}

static void check_lost_report(struct caller *c)
{
    double epsilon;

    assert_ok(
        gradreg_regularizer_terms(c->regularizer, &c->own.total, c->own.layers, CALLER_LAYERS));
    ck_assert(c->own.total.first_norm != c->own.total.first_norm);
    ck_assert(c->own.layers[1].update_norm != c->own.layers[1].update_norm);
    ck_assert_mem_eq(c->own.elements[PARAMS], c->own.elements[MASTER_PARAMS],
                     CALLER_ELEMENTS * sizeof(float));
    /* The handle is idle: another step may begin. */
    ck_assert_int_ne(
        gradreg_regularizer_suggest_epsilon(c->regularizer, &epsilon, &c->own.buffers, 0.5),
        GRADREG_ERROR_STATE);
}

/* Makes reduction `which` of this call fail; then all is as it was, or the step is complete and
 * its gradients are those of a step in which nothing failed. */
static void fail_reduction(const struct mode *mode, enum call call, size_t which,
                           const struct belongings *good, uint64_t digest)
{
    struct caller *c = caller_open(mode);

    caller_lead_to(c, call);
    c->fail_reduce_at = c->reduce_calls + which;
    c->reduce_result = 1 + (int32_t)which;
    memcpy(&c->before, &c->own, sizeof(c->own));
    assert_status(caller_do(c, call), GRADREG_ERROR_COMMUNICATION);
    c->fail_reduce_at = SIZE_MAX;
    if (is_complete()) {
        ck_assert(which == 2 && (call == COMBINE || call == REUSE || call == FALLBACK));
        ck_assert_mem_eq(c->own.elements[GRADS], good->elements[GRADS],
                         sizeof(good->elements[GRADS]));
        check_lost_report(c);
    } else {
        ck_assert_mem_eq(&c->before, &c->own, sizeof(c->own));
        ck_assert_uint_eq(caller_go_on(c), digest);
    }
    caller_close(c);
    provoked->reduce++;
}

/* For ever: the step can still be left, with theta as it was. */
static void leave_without_ranks(const struct mode *mode, enum call call)
{
    struct caller *c = caller_open(mode);

    caller_lead_to(c, call);
    c->fail_reduce_at = 0;
    c->reduce_result = -1;
    assert_status(caller_do(c, call), GRADREG_ERROR_COMMUNICATION);
    assert_status(caller_do(c, call), GRADREG_ERROR_COMMUNICATION);
    assert_ok(gradreg_regularizer_cancel(c->regularizer, &c->own.buffers));
    ck_assert_mem_eq(c->own.elements[PARAMS], c->own.elements[MASTER_PARAMS],
                     CALLER_ELEMENTS * sizeof(float));
    caller_close(c);
    provoked->reduce += 2;
}

START_TEST(all_reduce_may_fail_at_every_call)
{
    const struct mode *mode = &reducing[_i / CALLS];
    const enum call call = (enum call)(_i % CALLS);
    static struct belongings good;

    if (!caller_can(mode, call))
        return;
    const uint64_t digest = caller_undisturbed(mode, call);
    struct caller *c = caller_open(mode);
    caller_lead_to(c, call);
    const size_t before = c->reduce_calls;
    assert_ok(caller_do(c, call));
    const size_t calls = c->reduce_calls - before;
    memcpy(&good, &c->own, sizeof(good));
    assert_ok(gradreg_regularizer_cancel(c->regularizer, &c->own.buffers));
    caller_close(c);

    for (size_t which = 1; which <= calls; which++)
        fail_reduction(mode, call, which, &good, digest);
    if (calls > 0)
        leave_without_ranks(mode, call);
}
END_TEST

TCase *step_faults_case(void)
{
    TCase *tests = tcase_create("all_reduce");

    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, all_reduce_may_fail_at_every_call, 0, REDUCING * CALLS);
    return tests;
}
