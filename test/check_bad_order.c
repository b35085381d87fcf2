/* check_bad_order.c - the part of the matrix for calls at the wrong time.
 *
 * Every function in every state of a step, on a reused step, from inside the handle's own
 * callback, and with an all_reduce that fails. */
#include "bad_input.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct mode central_mode = { .name = "central",
                                          .difference = GRADREG_DIFFERENCE_CENTRAL };
static const struct mode ranks_mode = { .name = "two ranks", .world = 2 };
static const struct mode interval_mode = { .name = "interval", .interval = 2 };

/* ---- every function, with good arguments ------------------------------------------- */

#define CALL(name) gradreg_regularizer_##name
static gradreg_status do_inject(struct caller *c)
{
    return CALL(inject_noise)(c->regularizer, &c->own.buffers);
}

static gradreg_status do_remove(struct caller *c)
{
    return CALL(remove_noise)(c->regularizer, &c->own.buffers);
}

static gradreg_status do_perturb(struct caller *c)
{
    return CALL(perturb)(c->regularizer, &c->own.buffers);
}

static gradreg_status do_mirror(struct caller *c)
{
    return CALL(mirror)(c->regularizer, &c->own.buffers);
}

static gradreg_status do_combine(struct caller *c)
{
    return CALL(combine)(c->regularizer, &c->own.buffers);
}

static gradreg_status do_fallback(struct caller *c)
{
    return CALL(fallback)(c->regularizer, &c->own.buffers);
}

static gradreg_status do_cancel(struct caller *c)
{
    return CALL(cancel)(c->regularizer, &c->own.buffers);
}

static gradreg_status do_extra_passes(struct caller *c)
{
    return CALL(extra_passes)(c->regularizer, &c->own.integer);
}

static gradreg_status do_set_strength(struct caller *c)
{
    return CALL(set_strength)(c->regularizer, 0.5);
}

static gradreg_status do_set_epsilon(struct caller *c)
{
    return CALL(set_epsilon)(c->regularizer, 0.5);
}

static gradreg_status do_set_step(struct caller *c)
{
    return CALL(set_step)(c->regularizer, 5);
}

static gradreg_status do_observe_layers(struct caller *c)
{
    return CALL(observe_layers)(c->regularizer, c->own.signals, CALLER_LAYERS);
}

static gradreg_status do_observe_losses(struct caller *c)
{
    return CALL(observe_losses)(c->regularizer, &c->own.losses[0], &c->own.losses[1]);
}

static gradreg_status do_suggest(struct caller *c)
{
    return CALL(suggest_epsilon)(c->regularizer, &c->own.number, &c->own.buffers, 0.5);
}

static gradreg_status do_terms(struct caller *c)
{
    return CALL(terms)(c->regularizer, &c->own.total, c->own.layers, CALLER_LAYERS);
}

static gradreg_status do_terms_enqueue(struct caller *c)
{
    return CALL(terms_enqueue)(c->regularizer, c->own.rows);
}

static gradreg_status do_state_save(struct caller *c)
{
    return CALL(state_save)(c->regularizer, c->own.state, caller_state_bytes(c));
}

static gradreg_status do_state_load(struct caller *c)
{
    return CALL(state_load)(c->regularizer, c->own.state, caller_state_bytes(c));
}

static gradreg_status do_destroy(struct caller *c)
{
    return CALL(destroy)(c->regularizer);
}
#undef CALL

enum { IDLE = 1, NOISY = 2, PERTURBED = 4, MIRRORED = 8, ANY = 15 };

static const struct function {
    const char *name;
    gradreg_status (*call)(struct caller *c);
    unsigned forward, central; /* states in which it is legal */
} functions[] = {
#define FUNCTION(name, call, forward, central)               \
    {                                                        \
        "gradreg_regularizer_" #name, call, forward, central \
    }
    FUNCTION(inject_noise, do_inject, IDLE, IDLE),
    FUNCTION(remove_noise, do_remove, NOISY, NOISY),
    FUNCTION(perturb, do_perturb, IDLE | NOISY, IDLE | NOISY),
    FUNCTION(mirror, do_mirror, 0, PERTURBED),
    FUNCTION(combine, do_combine, PERTURBED, MIRRORED),
    FUNCTION(fallback, do_fallback, PERTURBED, PERTURBED | MIRRORED),
    FUNCTION(cancel, do_cancel, ANY, ANY),
    FUNCTION(extra_passes, do_extra_passes, ANY, ANY),
    FUNCTION(set_strength, do_set_strength, IDLE | NOISY, IDLE | NOISY),
    FUNCTION(set_epsilon, do_set_epsilon, IDLE | NOISY, IDLE | NOISY),
    FUNCTION(set_step, do_set_step, IDLE | NOISY, IDLE | NOISY),
    FUNCTION(observe_layers, do_observe_layers, IDLE | NOISY, IDLE | NOISY),
    FUNCTION(observe_losses, do_observe_losses, IDLE, IDLE),
    FUNCTION(suggest_epsilon, do_suggest, IDLE | NOISY, IDLE | NOISY),
    FUNCTION(terms, do_terms, ANY, ANY),
    FUNCTION(terms_enqueue, do_terms_enqueue, ANY, ANY),
    FUNCTION(state_save, do_state_save, IDLE, IDLE),
    FUNCTION(state_load, do_state_load, IDLE, IDLE),
};
enum { FUNCTIONS = sizeof(functions) / sizeof(functions[0]) };

/* Right before `next` the step is in this state. */
static const struct moment {
    const struct mode *mode;
    enum call next;
    unsigned state;
    const char *name;
} moments[] = {
    { &plain_mode, PERTURB, IDLE, "idle" },
    { &plain_mode, REMOVE_NOISE, NOISY, "noisy" },
    { &plain_mode, COMBINE, PERTURBED, "perturbed" },
    { &central_mode, PERTURB, IDLE, "idle" },
    { &central_mode, REMOVE_NOISE, NOISY, "noisy" },
    { &central_mode, MIRROR, PERTURBED, "perturbed" },
    { &central_mode, COMBINE, MIRRORED, "mirrored" },
};
enum { MOMENTS = sizeof(moments) / sizeof(moments[0]) };

START_TEST(each_function_knows_its_states)
{
    const struct moment *moment = &moments[_i / FUNCTIONS];
    const struct function *function = &functions[_i % FUNCTIONS];
    struct caller *c = caller_open(moment->mode);
    const bool central = moment->mode == &central_mode;
    const unsigned legal = central ? function->central : function->forward;

    assert_ok(do_state_save(c)); /* something that state_load could load */
    caller_lead_to(c, moment->next);
    if ((legal & moment->state) != 0) {
        assert_ok(function->call(c));
        coverage_note(function->name, GRADREG_OK, false);
    } else {
        /* mirror without CENTRAL is wrong in all of them */
        assert_refused(c, function->name, moment->name, function->call(c), GRADREG_ERROR_STATE,
                       legal == 0 ? "CENTRAL" : moment->name);
        ck_assert_uint_eq(caller_go_on(c), caller_undisturbed(moment->mode, moment->next));
    }
    caller_close(c);
}
END_TEST

START_TEST(a_step_that_reuses_wants_no_second_pass)
{
    struct caller *c = caller_open(&interval_mode);

    caller_lead_to(c, REUSE); /* noisy */
    assert_refused(c, "gradreg_regularizer_perturb", "reuse", do_perturb(c),
                   GRADREG_ERROR_STATE, "interval 2", "combine");
    assert_refused(c, "gradreg_regularizer_mirror", "reuse", do_mirror(c), GRADREG_ERROR_STATE,
                   "CENTRAL");
    assert_refused(c, "gradreg_regularizer_fallback", "reuse", do_fallback(c),
                   GRADREG_ERROR_STATE, "noisy", "perturbed");
    ck_assert_uint_eq(caller_go_on(c), caller_undisturbed(&interval_mode, REUSE));
    assert_refused(c, "gradreg_regularizer_observe_losses", "no second pass",
                   do_observe_losses(c), GRADREG_ERROR_STATE, "second pass");
    caller_close(c);
}
END_TEST

START_TEST(losses_belong_to_a_step)
{
    struct caller *c = caller_open(&plain_mode);

    assert_refused(c, "gradreg_regularizer_observe_losses", "no step", do_observe_losses(c),
                   GRADREG_ERROR_STATE, "second pass");
    caller_lead_to(c, FALLBACK);
    (void)caller_go_on(c);
    assert_refused(c, "gradreg_regularizer_observe_losses", "fallback", do_observe_losses(c),
                   GRADREG_ERROR_STATE, "second pass");
    caller_close(c);
}
END_TEST

/* A suggestion tries steps; what it tries is not the step that losses are compared with. */
START_TEST(a_suggestion_leaves_the_report_alone)
{
    double ratio[2];

    for (int suggested = 0; suggested < 2; suggested++) {
        struct caller *c = caller_open(&plain_mode);
        caller_lead_to(c, COMBINE);
        (void)caller_go_on(c);
        for (size_t i = 0; i < CALLER_ELEMENTS; i++)
            c->own.elements[GRADS][i] = -2.0f;
        if (suggested)
            assert_accepted(gradreg_regularizer_suggest_epsilon(c->regularizer, &c->own.number,
                                                                &c->own.buffers, 0.5));
        assert_accepted(gradreg_regularizer_observe_losses(c->regularizer, &c->own.losses[0],
                                                           &c->own.losses[1]));
        assert_ok(do_terms(c));
        ratio[suggested] = c->own.total.first_order_ratio;
        caller_close(c);
    }
    ck_assert_uint_eq(double_bits(ratio[1]), double_bits(ratio[0]));
}
END_TEST

/* ---- two at once ------------------------------------------------------------------- */

static struct caller *inside;

static void use_the_busy_handle(void)
{
    struct caller *c = inside;

    for (int i = 0; i < FUNCTIONS; i++) {
        if (functions[i].call == do_state_save || functions[i].call == do_state_load)
            continue; /* state_bytes first, which any thread may ask */
        assert_refused(c, functions[i].name, "in use", functions[i].call(c),
                       GRADREG_ERROR_STATE, "'regularizer'", "in use");
    }
    assert_refused(c, "gradreg_regularizer_destroy", "in use", do_destroy(c),
                   GRADREG_ERROR_STATE, "'regularizer'", "in use");
    assert_refused(c, "gradreg_regularizer_state_save", "in use",
                   gradreg_regularizer_state_save(c->regularizer, c->own.state, 8),
                   GRADREG_ERROR_STATE, "'regularizer'", "in use");
    assert_refused(c, "gradreg_regularizer_state_load", "in use",
                   gradreg_regularizer_state_load(c->regularizer, c->own.state, 8),
                   GRADREG_ERROR_STATE, "'regularizer'", "in use");
    assert_ok(gradreg_regularizer_first_needed_layer(c->regularizer, &c->own.integer));
}

static const enum call reducing[] = { INJECT_NOISE, PERTURB, SUGGEST_EPSILON, COMBINE,
                                      FALLBACK };
enum { REDUCING = sizeof(reducing) / sizeof(reducing[0]) };

START_TEST(a_handle_is_busy_during_its_callback)
{
    struct caller *c = caller_open(&ranks_mode);

    caller_lead_to(c, reducing[_i]);
    inside = c;
    c->during_reduce = use_the_busy_handle;
    ck_assert_uint_eq(caller_go_on(c), caller_undisturbed(&ranks_mode, reducing[_i]));
    caller_close(c);
}
END_TEST

START_TEST(a_failing_all_reduce_changes_nothing)
{
    struct caller *c = caller_open(&ranks_mode);

    caller_lead_to(c, reducing[_i]);
    c->reduce_result = -77;
    assert_refused(c, call_name(reducing[_i]), "all_reduce", caller_do(c, reducing[_i]),
                   GRADREG_ERROR_COMMUNICATION, "all_reduce", "-77");
    c->reduce_result = 0;
    ck_assert_uint_eq(caller_go_on(c), caller_undisturbed(&ranks_mode, reducing[_i]));
    caller_close(c);
}
END_TEST

TCase *bad_order_case(void)
{
    TCase *tests = tcase_create("order of calls");

    tcase_set_timeout(tests, 60);
    add_loop_test(tests, each_function_knows_its_states, 0, MOMENTS * FUNCTIONS);
    tcase_add_test(tests, a_step_that_reuses_wants_no_second_pass);
    tcase_add_test(tests, losses_belong_to_a_step);
    tcase_add_test(tests, a_suggestion_leaves_the_report_alone);
    add_loop_test(tests, a_handle_is_busy_during_its_callback, 0, REDUCING);
    add_loop_test(tests, a_failing_all_reduce_changes_nothing, 0, REDUCING);
    return tests;
}
