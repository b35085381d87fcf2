/* state_rig.c - the small regularizer whose states suites look at, see state_rig.h. */
#include "state_rig.h"

#include <stdlib.h>
#include <string.h>

const gradreg_segment table[SEGMENTS] = {
    { .offset = 0, .count = 300, .layer = 0, .role = GRADREG_ROLE_ATTENTION },
    { .offset = 300, .count = 150, .layer = 1, .role = GRADREG_ROLE_MLP },
    { .offset = 450, .count = 75, .layer = 2, .role = GRADREG_ROLE_ATTENTION },
    { .offset = 525, .count = 10, .layer = 2, .role = GRADREG_ROLE_NORM },
    { .offset = 535, .count = 40, .layer = GRADREG_LAYER_NONE, .role = GRADREG_ROLE_HEAD },
};

gradreg_regularizer_params plain_params(void)
{
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;

    p.layer_count = LAYERS;
    p.schedule.first_layer = 1;
    p.schedule.full_layer = 1;
    p.epsilon = 0.03125;
    p.strength = 0.25;
    p.clip_first = p.clip_second = 0;
    return p;
}

rig *open_rig(const gradreg_regularizer_params *p)
{
    const rig_setup setup = { .threads = 1 };
    rig *r = rig_open(table, SEGMENTS, p, &setup);

    rig_numbers(r, RIG_PARAMS, 5, -3);
    return r;
}

/* ---- calls by number -------------------------------------------------------------- */

const char *const state_names[MIRRORED + 1] = { "idle", "noisy", "perturbed", "mirrored" };

static gradreg_status make_step_call(rig *r, enum call call)
{
    switch (call) {
    case INJECT: return gradreg_regularizer_inject_noise(r->reg, &r->buffers);
    case REMOVE: return gradreg_regularizer_remove_noise(r->reg, &r->buffers);
    case PERTURB: return gradreg_regularizer_perturb(r->reg, &r->buffers);
    case MIRROR: return gradreg_regularizer_mirror(r->reg, &r->buffers);
    case COMBINE: return gradreg_regularizer_combine(r->reg, &r->buffers);
    case FALLBACK: return gradreg_regularizer_fallback(r->reg, &r->buffers);
    default: return gradreg_regularizer_cancel(r->reg, &r->buffers);
    }
}

static gradreg_status make_setting(rig *r, enum call call)
{
    static const double signals[LAYERS] = { 1, 1, 1 };
    static const float losses[2] = { 1.0f, 2.0f };

    switch (call) {
    case SET_STRENGTH: return gradreg_regularizer_set_strength(r->reg, 0.25);
    case SET_EPSILON: return gradreg_regularizer_set_epsilon(r->reg, 0.03125);
    case SET_STEP: return gradreg_regularizer_set_step(r->reg, 3);
    case OBSERVE_LAYERS: return gradreg_regularizer_observe_layers(r->reg, signals, LAYERS);
    default: return gradreg_regularizer_observe_losses(r->reg, &losses[0], &losses[1]);
    }
}

static char saved[65536];

static gradreg_status make_question(rig *r, enum call call)
{
    gradreg_terms total = GRADREG_TERMS_INIT;
    double rows[(LAYERS + 1) * GRADREG_TERMS_COLUMNS], epsilon;
    int32_t number;
    size_t bytes;

    switch (call) {
    case SUGGEST:
        return gradreg_regularizer_suggest_epsilon(r->reg, &epsilon, &r->buffers, 0.9);
    case TERMS: return gradreg_regularizer_terms(r->reg, &total, NULL, 0);
    case ENQUEUE: return gradreg_regularizer_terms_enqueue(r->reg, rows);
    case EXTRA_PASSES: return gradreg_regularizer_extra_passes(r->reg, &number);
    case FIRST_NEEDED: return gradreg_regularizer_first_needed_layer(r->reg, &number);
    default: break;
    }
    assert_ok(gradreg_regularizer_state_bytes(r->reg, &bytes));
    ck_assert_uint_le(bytes, sizeof(saved));
    if (call == STATE_BYTES)
        return GRADREG_OK;
    return call == SAVE ? gradreg_regularizer_state_save(r->reg, saved, bytes)
                        : gradreg_regularizer_state_load(r->reg, saved, bytes);
}

gradreg_status make_call(rig *r, enum call call)
{
    return call <= CANCEL           ? make_step_call(r, call)
           : call <= OBSERVE_LOSSES ? make_setting(r, call)
                                    : make_question(r, call);
}

/* state_save works at rest only, and its sentence names any other state. */
enum state state_of(rig *r)
{
    char *bytes = malloc(sizeof(saved));
    size_t count;
    int state = IDLE;

    ck_assert_ptr_nonnull(bytes);
    assert_ok(gradreg_regularizer_state_bytes(r->reg, &count));
    const gradreg_status status = gradreg_regularizer_state_save(r->reg, bytes, count);
    free(bytes);
    if (status == GRADREG_OK)
        return IDLE;
    ck_assert_int_eq(status, GRADREG_ERROR_STATE);
    for (state = NOISY; state <= MIRRORED; state++)
        if (strstr(gradreg_last_error(), state_names[state]) != NULL)
            break;
    ck_assert_int_le(state, MIRRORED);
    return (enum state)state;
}
