/* check_states.c - the state table of the regularizer: every call in every state, on every kind of
 * step. What lasts from one step to the next: check_between_steps.c. */
#include <stdlib.h>

#include "state_rig.h"

/* 0: refused. Otherwise the next state plus 1. */
static int outcome(enum state from, enum call call, bool central, bool reuses)
{
    const bool rests = from == IDLE || from == NOISY;
    const bool has_all = from == (central ? MIRRORED : PERTURBED);

    switch (call) {
    case INJECT: return from == IDLE ? NOISY + 1 : 0;
    case REMOVE: return from == NOISY ? IDLE + 1 : 0;
    case PERTURB: return rests && !reuses ? PERTURBED + 1 : 0;
    case MIRROR: return from == PERTURBED && central ? MIRRORED + 1 : 0;
    case COMBINE: return has_all || (rests && reuses) ? IDLE + 1 : 0;
    case FALLBACK: return rests ? 0 : IDLE + 1;
    case CANCEL: return IDLE + 1;
    case SET_STRENGTH:
    case SET_EPSILON:
    case SET_STEP:
    case OBSERVE_LAYERS:
    case SUGGEST: return rests ? (int)from + 1 : 0;
    case OBSERVE_LOSSES: /* the step before had a second pass, and none has begun since */
    case SAVE:
    case LOAD: return from == IDLE ? (int)from + 1 : 0;
    default: return (int)from + 1;
    }
}

static void lead_to(rig *r, enum state state, bool noisy)
{
    if (noisy || state == NOISY)
        assert_ok(make_call(r, INJECT));
    rig_numbers(r, rig_first(r), 30, -1);
    if (state >= PERTURBED)
        assert_ok(make_call(r, PERTURB));
    if (state == MIRRORED)
        assert_ok(make_call(r, MIRROR));
}

static rig *open_for_matrix(bool central, bool reuses)
{
    gradreg_regularizer_params p = plain_params();

    p.difference = central ? GRADREG_DIFFERENCE_CENTRAL : GRADREG_DIFFERENCE_FORWARD;
    p.interval = reuses ? 2 : 1;
    p.noise.rule = GRADREG_NOISE_RELATIVE;
    p.adaptive.a_max = 2;
    rig *r = open_rig(&p);
    rig_numbers(r, RIG_GRADS, 29, -1);
    assert_ok(make_call(r, PERTURB));
    if (central)
        assert_ok(make_call(r, MIRROR));
    assert_ok(make_call(r, COMBINE));
    assert_ok(make_call(r, SAVE));
    ck_assert_int_eq(rig_passes(r), reuses ? 0 : central ? 2 : 1);
    return r;
}

START_TEST(every_call_in_every_state)
{
    const enum call call = (enum call)(_i / 2);
    const bool central = _i % 2 == 1;

    for (int k = 0; k < 12; k++) {
        const enum state from = (enum state)(k % 4);
        const bool noisy = k / 4 == 1, reuses = k / 4 == 2;
        if ((from == MIRRORED && !central) || (from >= PERTURBED && reuses))
            continue;
        rig *r = open_for_matrix(central, reuses);
        char *clean = rig_gather(r, RIG_PARAMS);
        lead_to(r, from, noisy && from >= PERTURBED);
        char *theta = rig_gather(r, RIG_PARAMS), *grads = rig_gather(r, RIG_GRADS);
        const int next = outcome(from, call, central, reuses);
        ck_assert_int_eq(state_of(r), from);
        make_sentence_stale();
        const gradreg_status status = make_call(r, call);
        if (next != 0 && status != GRADREG_OK)
            ck_abort_msg("call %d when %s: %s", call, state_names[from], gradreg_last_error());
        if (next == 0) {
            ck_assert_msg(status == GRADREG_ERROR_STATE, "call %d when %s: %s", call,
                          state_names[from], gradreg_status_name(status));
            check_sentence(__FILE__, __LINE__, "", (const char *const[]){ NULL });
            rig_assert(r, RIG_PARAMS, theta, "theta after a refused call");
            rig_assert(r, RIG_GRADS, grads, "grads after a refused call");
        }
        ck_assert_int_eq((int)state_of(r), next == 0 ? (int)from : next - 1);
        assert_ok(make_call(r, CANCEL));
        rig_assert(r, RIG_PARAMS, clean, "theta");
        free(grads);
        free(theta);
        free(clean);
        rig_close(r);
    }
}
END_TEST

START_TEST(sentences_name_the_state_and_what_was_expected)
{
    rig *r = open_for_matrix(true, false);
    gradreg_regularizer *reg = r->reg;
    gradreg_buffers *b = &r->buffers;

    assert_fails(gradreg_regularizer_remove_noise(reg, b), GRADREG_ERROR_STATE, "is idle",
                 "must be noisy: call inject_noise first");
    assert_fails(gradreg_regularizer_fallback(reg, b), GRADREG_ERROR_STATE, "is idle",
                 "must be perturbed or mirrored: call perturb first");
    assert_fails(gradreg_regularizer_combine(reg, b), GRADREG_ERROR_STATE, "is idle",
                 "must be mirrored: call perturb and mirror first");
    lead_to(r, PERTURBED, false);
    assert_fails(gradreg_regularizer_perturb(reg, b), GRADREG_ERROR_STATE, "is perturbed",
                 "idle or noisy: end the step first, with combine, fallback or cancel");
    assert_fails(gradreg_regularizer_combine(reg, b), GRADREG_ERROR_STATE, "is perturbed",
                 "must be mirrored: call mirror first");
    assert_fails(gradreg_regularizer_set_epsilon(reg, 1.0), GRADREG_ERROR_STATE,
                 "is perturbed");
    assert_ok(gradreg_regularizer_mirror(reg, b));
    assert_fails(gradreg_regularizer_mirror(reg, b), GRADREG_ERROR_STATE, "is mirrored",
                 "must be perturbed: combine is next");
    assert_fails(gradreg_regularizer_inject_noise(reg, b), GRADREG_ERROR_STATE, "is mirrored",
                 "end the step first");
    assert_ok(gradreg_regularizer_cancel(reg, b));
    lead_to(r, NOISY, false);
    assert_fails(gradreg_regularizer_inject_noise(reg, b), GRADREG_ERROR_STATE, "is noisy",
                 "must be idle: call remove_noise or end the step first");
    assert_ok(gradreg_regularizer_cancel(reg, b));
    rig_close(r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("states");
    TCase *table_case = tcase_create("table");

    add_loop_test(table_case, every_call_in_every_state, 0, 2 * CALLS);
    tcase_add_test(table_case, sentences_name_the_state_and_what_was_expected);
    suite_add_tcase(suite, table_case);
    return run_suite(suite);
}
