/* check_bad_order.c - the part of the matrix for calls at the wrong time, and for the entries that
 * take no buffers.
 *
 * Every function in every state of a step, on a reused step, from inside the handle's own
 * callback, and with an all_reduce that fails. */
#include "bad_input.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

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

static size_t state_size(const struct caller *c)
{
    size_t bytes = 0;
    assert_accepted(gradreg_regularizer_state_bytes(c->regularizer, &bytes));
    ck_assert_uint_le(bytes, CALLER_STATE);
    return bytes;
}

static gradreg_status do_state_save(struct caller *c)
{
    return CALL(state_save)(c->regularizer, c->own.state, state_size(c));
}

static gradreg_status do_state_load(struct caller *c)
{
    return CALL(state_load)(c->regularizer, c->own.state, state_size(c));
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

/* ---- questions and settings -------------------------------------------------------- */

#define REFUSED(name, what, want, call, ...)                                               \
    assert_refused(c, "gradreg_regularizer_" #name, what, gradreg_regularizer_##name call, \
                   want, __VA_ARGS__)

START_TEST(null_handles_and_outputs)
{
    struct caller *c = caller_open(&plain_mode);
    struct belongings *own = &c->own;
    gradreg_regularizer *reg = c->regularizer;
    const char *handle = "'regularizer'", *null = "NULL", *out = "'out'";

    REFUSED(extra_passes, "handle", invalid, (NULL, &own->integer), handle, null);
    REFUSED(extra_passes, "out", invalid, (reg, NULL), out, null);
    REFUSED(first_needed_layer, "handle", invalid, (NULL, &own->integer), handle, null);
    REFUSED(first_needed_layer, "out", invalid, (reg, NULL), out, null);
    REFUSED(set_strength, "handle", invalid, (NULL, 1.0), handle, null);
    REFUSED(set_epsilon, "handle", invalid, (NULL, 1.0), handle, null);
    REFUSED(set_step, "handle", invalid, (NULL, 1), handle, null);
    REFUSED(set_step, "beyond doubles", invalid, (reg, (UINT64_C(1) << 53) + 1), "step",
            "9007199254740993");
    REFUSED(observe_layers, "handle", invalid, (NULL, own->signals, CALLER_LAYERS), handle,
            null);
    REFUSED(observe_layers, "signals", invalid, (reg, NULL, CALLER_LAYERS), "'signals'", null);
    REFUSED(observe_losses, "handle", invalid, (NULL, own->losses, own->losses + 1), handle,
            null);
    REFUSED(observe_losses, "first", invalid, (reg, NULL, own->losses), "'first'", null);
    REFUSED(observe_losses, "second", invalid, (reg, own->losses, NULL), "'second'", null);
    REFUSED(suggest_epsilon, "out", invalid, (reg, NULL, &own->buffers, 0.5), out, null);
    REFUSED(terms, "handle", invalid, (NULL, &own->total, own->layers, CALLER_LAYERS), handle,
            null);
    REFUSED(terms, "layers", invalid, (reg, &own->total, NULL, CALLER_LAYERS), "'layers'",
            null);
    REFUSED(terms_enqueue, "handle", invalid, (NULL, own->rows), handle, null);
    REFUSED(terms_enqueue, "out", invalid, (reg, NULL), out, null);
    REFUSED(state_bytes, "handle", invalid, (NULL, &own->size), handle, null);
    REFUSED(state_bytes, "out", invalid, (reg, NULL), out, null);
    REFUSED(state_save, "handle", invalid, (NULL, own->state, 8), handle, null);
    REFUSED(state_save, "state", invalid, (reg, NULL, 8), "'state'", null);
    REFUSED(state_load, "handle", invalid, (NULL, own->state, 8), handle, null);
    REFUSED(state_load, "state", invalid, (reg, NULL, 8), "'state'", null);
    assert_accepted(gradreg_regularizer_destroy(NULL));
    assert_accepted(gradreg_regularizer_first_needed_layer(reg, &own->integer));
    caller_close(c);
}
END_TEST

/* What a step makes of the handle is what it would have made. */
static void go_on_as(struct caller *c)
{
    caller_lead_to(c, COMBINE);
    ck_assert_uint_eq(caller_go_on(c), caller_undisturbed(c->mode, COMBINE));
    caller_close(c);
}

static const struct {
    double value;
    const char *shown;
} bad_numbers[] = {
    { (double)NAN, "nan" }, { (double)INFINITY, "inf" }, { -(double)INFINITY, "-inf" },
    { -1.0, "-1" },         { -0x1p-1074, "-4.94" },
};

START_TEST(settings_are_finite_and_in_range)
{
    struct caller *c = caller_open(&plain_mode);
    gradreg_regularizer *reg = c->regularizer;
    const char *shown = bad_numbers[_i].shown;
    const double value = bad_numbers[_i].value;

    REFUSED(set_strength, shown, invalid, (reg, value), "strength", shown);
    REFUSED(set_epsilon, shown, invalid, (reg, value), "epsilon", shown);
    REFUSED(set_epsilon, "0", invalid, (reg, 0.0), "epsilon", "0");
    REFUSED(suggest_epsilon, shown, invalid, (reg, &c->own.number, &c->own.buffers, value),
            "target_cosine", shown);
    REFUSED(suggest_epsilon, "0", invalid, (reg, &c->own.number, &c->own.buffers, 0.0),
            "target_cosine", "0");
    REFUSED(suggest_epsilon, "1", invalid, (reg, &c->own.number, &c->own.buffers, 1.0),
            "target_cosine", "1");
    c->own.signals[2] = value;
    REFUSED(observe_layers, shown, invalid, (reg, c->own.signals, CALLER_LAYERS), "signals[2]",
            shown);
    go_on_as(c);
}
END_TEST

START_TEST(signals_are_one_per_layer)
{
    static const size_t counts[] = { 0, CALLER_LAYERS - 1, CALLER_LAYERS + 1, SIZE_MAX };
    struct caller *c = caller_open(&plain_mode);
    gradreg_regularizer *reg = c->regularizer;

    for (int i = 0; i < 4; i++) {
        char value[32];
        (void)snprintf(value, sizeof(value), "%zu", counts[i]);
        REFUSED(observe_layers, value, invalid, (reg, c->own.signals, counts[i]), "count",
                value);
    }
    go_on_as(c);
}
END_TEST

START_TEST(numbers_lie_where_they_can_be_read)
{
    struct caller *c = caller_open(&plain_mode);
    gradreg_regularizer *reg = c->regularizer;
    const float *losses = c->own.losses;
    const float *odd = (const float *)(const void *)((const char *)losses + 1);
    double *signals = (double *)(void *)((char *)c->own.signals + 4);
    double *rows = (double *)(void *)((char *)c->own.rows + 1);

    caller_lead_to(c, PERTURB); /* a step has been combined */
    REFUSED(observe_losses, "odd first", invalid, (reg, odd, losses), "'first'", "aligned");
    REFUSED(observe_losses, "odd second", invalid, (reg, losses, odd), "'second'", "aligned");
    REFUSED(observe_layers, "odd", invalid, (reg, signals, CALLER_LAYERS), "'signals'",
            "aligned");
    REFUSED(terms_enqueue, "odd", invalid, (reg, rows), "'out'", "aligned");
    ck_assert_uint_eq(caller_go_on(c), caller_undisturbed(&plain_mode, PERTURB));
    caller_close(c);
}
END_TEST

/* Opens a second regularizer in place of the caller's own. */
static void recreate(struct caller *c)
{
    assert_accepted(gradreg_regularizer_destroy(c->regularizer));
    assert_accepted(gradreg_regularizer_create(&c->regularizer, c->context, c->own.segments,
                                               CALLER_SEGMENTS, &c->own.params));
}

START_TEST(what_was_not_asked_for_is_not_there)
{
    struct caller *c = caller_open(&plain_mode);

    c->own.params.adaptive.a_max = 0.0;
    c->own.params.noise.rule = GRADREG_NOISE_OFF;
    recreate(c);
    assert_refused(c, "gradreg_regularizer_observe_layers", "off", do_observe_layers(c),
                   GRADREG_ERROR_UNSUPPORTED, "params.adaptive.a_max", "0");
    assert_refused(c, "gradreg_regularizer_inject_noise", "off", do_inject(c),
                   GRADREG_ERROR_UNSUPPORTED, "params.noise.rule", "GRADREG_NOISE_OFF");
    caller_close(c);
}
END_TEST

START_TEST(no_epsilon_without_a_direction)
{
    struct caller *c = caller_open(&plain_mode);
    float *grads = c->own.elements[GRADS];

    caller_lead_to(c, PERTURB);
    grads[7] = (float)NAN;
    assert_refused(c, "gradreg_regularizer_suggest_epsilon", "NaN", do_suggest(c),
                   GRADREG_ERROR_NON_FINITE, "gradient", "1");
    grads[7] = -(float)INFINITY;
    assert_refused(c, "gradreg_regularizer_suggest_epsilon", "inf", do_suggest(c),
                   GRADREG_ERROR_NON_FINITE, "gradient", "1");
    memset(grads, 0, CALLER_ELEMENTS * sizeof(*grads));
    assert_refused(c, "gradreg_regularizer_suggest_epsilon", "zero", do_suggest(c),
                   GRADREG_ERROR_NON_FINITE, "direction");
    caller_close(c);
}
END_TEST

/* ---- terms ------------------------------------------------------------------------- */

START_TEST(terms_come_in_known_sizes_and_counts)
{
    static const size_t counts[] = { 1, CALLER_LAYERS - 1, CALLER_LAYERS + 1, SIZE_MAX };
    struct caller *c = caller_open(&plain_mode);
    gradreg_regularizer *reg = c->regularizer;
    struct belongings *own = &c->own;

    for (int i = 0; i < 4; i++) {
        char value[32];
        (void)snprintf(value, sizeof(value), "%zu", counts[i]);
        REFUSED(terms, value, invalid, (reg, &own->total, own->layers, counts[i]),
                "layer_count", value);
    }
    for (int i = 0; i < BAD_SIZES; i++) {
        own->total.struct_size = bad_size(sizeof(own->total), i);
        REFUSED(terms, "total", invalid, (reg, &own->total, own->layers, CALLER_LAYERS),
                "total.struct_size");
        own->total.struct_size = sizeof(own->total);
        own->layers[0].struct_size = bad_size(sizeof(own->total), i);
        REFUSED(terms, "layers", invalid, (reg, &own->total, own->layers, CALLER_LAYERS),
                "layers[0].struct_size");
        own->layers[0].struct_size = sizeof(own->total);
    }
    go_on_as(c);
}
END_TEST

/* The stride of an array is what its first element says. */
START_TEST(terms_of_a_newer_caller_keep_their_stride)
{
    const uint32_t stride = sizeof(gradreg_terms) + 8;
    struct caller *c = caller_open(&plain_mode);
    unsigned char *layers = guarded_new(CALLER_LAYERS * stride, 0);

    caller_lead_to(c, PERTURB);
    c->own.layers[0].struct_size = stride - 4;
    assert_refused(
        c, "gradreg_regularizer_terms", "odd stride",
        gradreg_regularizer_terms(c->regularizer, NULL, c->own.layers, CALLER_LAYERS), invalid,
        "layers[0].struct_size", "260");
    memcpy(layers, &stride, sizeof(stride));
    assert_accepted(gradreg_regularizer_terms(c->regularizer, &c->own.total, NULL, 0));
    assert_accepted(gradreg_regularizer_terms(c->regularizer, NULL,
                                              (gradreg_terms *)(void *)layers, CALLER_LAYERS));
    for (size_t l = 0; l < CALLER_LAYERS; l++) {
        gradreg_terms terms;
        memcpy(&terms, layers + l * stride, sizeof(terms));
        ck_assert_uint_eq(terms.struct_size, stride);
        ck_assert_uint_eq(terms.step, 1);
        for (size_t i = sizeof(terms); i < stride; i++)
            ck_assert_uint_eq(layers[l * stride + i], 0xa5);
    }
    guarded_free(layers);
    caller_close(c);
}
END_TEST

/* ---- saved states ------------------------------------------------------------------ */

static void refuse_load(struct caller *c, const char *what, const char *word)
{
    const size_t bytes = state_size(c);
    unsigned char *before = malloc(bytes), *after = malloc(bytes);

    ck_assert(before != NULL && after != NULL);
    assert_accepted(gradreg_regularizer_state_save(c->regularizer, before, bytes));
    assert_refused(c, "gradreg_regularizer_state_load", what,
                   gradreg_regularizer_state_load(c->regularizer, c->own.state, bytes), invalid,
                   "state", word);
    assert_accepted(gradreg_regularizer_state_save(c->regularizer, after, bytes));
    ck_assert_mem_eq(before, after, bytes);
    free(before);
    free(after);
}

START_TEST(states_have_one_size)
{
    struct caller *c = caller_open(&plain_mode);
    gradreg_regularizer *reg = c->regularizer;
    const size_t bytes = state_size(c);
    const size_t wrong[] = { 0, 8, bytes - 1, bytes + 1, SIZE_MAX };

    for (int i = 0; i < 5; i++) {
        char value[32];
        (void)snprintf(value, sizeof(value), "%zu", wrong[i]);
        REFUSED(state_save, value, invalid, (reg, c->own.state, wrong[i]), "bytes", value);
        REFUSED(state_load, value, invalid, (reg, c->own.state, wrong[i]), "bytes", value);
    }
    caller_close(c);
}
END_TEST

/* Every byte of a saved state counts, wherever it is. */
START_TEST(a_damaged_state_is_refused)
{
    struct caller *c = caller_open(&plain_mode);
    const size_t bytes = state_size(c);

    caller_lead_to(c, PERTURB);
    assert_accepted(gradreg_regularizer_state_save(c->regularizer, c->own.state, bytes));
    for (size_t i = 0; i < bytes; i++) {
        c->own.state[i] ^= (unsigned char)(1u << i % 8);
        refuse_load(c, "one bit", "");
        c->own.state[i] ^= (unsigned char)(1u << i % 8);
    }
    assert_accepted(gradreg_regularizer_state_load(c->regularizer, c->own.state, bytes));
    caller_close(c);
}
END_TEST

static void other_count(struct caller *c)
{
    c->own.segments[1].count = 7;
    c->own.segments[2].count = 9;
    c->own.segments[2].offset = 15;
}

static void other_layer(struct caller *c)
{
    c->own.segments[1].layer = 2;
}

static void other_role(struct caller *c)
{
    c->own.segments[1].role = GRADREG_ROLE_NORM;
}

static void other_flags(struct caller *c)
{
    c->own.segments[1].flags = GRADREG_SEGMENT_FROZEN;
}

static void other_rank(struct caller *c)
{
    c->own.params.world = 2;
    c->own.params.rank = 1;
}

static void other_noise(struct caller *c)
{
    c->own.params.noise.rule = GRADREG_NOISE_RELATIVE;
}

static void other_interval(struct caller *c)
{
    c->own.params.interval = 3;
    c->own.params.regularized_roles = GRADREG_ROLE_EMBEDDING; /* nothing kept: the same size */
}

static void (*const others[])(struct caller *c) = { other_count,   other_layer, other_role,
                                                    other_flags,   other_rank,  other_noise,
                                                    other_interval };
enum { OTHERS = sizeof(others) / sizeof(others[0]) };

START_TEST(a_state_belongs_to_its_table_and_parameters)
{
    struct caller *c = caller_open(&plain_mode);
    const size_t bytes = state_size(c);

    assert_ok(do_state_save(c));
    others[_i](c);
    recreate(c);
    ck_assert_uint_eq(state_size(c), bytes);
    refuse_load(c, "another description", "another table");
    caller_close(c);
}
END_TEST

TCase *bad_order_case(void)
{
    TCase *tests = tcase_create("order of calls, settings, reports");

    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, each_function_knows_its_states, 0, MOMENTS * FUNCTIONS);
    tcase_add_test(tests, a_step_that_reuses_wants_no_second_pass);
    tcase_add_test(tests, losses_belong_to_a_step);
    tcase_add_loop_test(tests, a_handle_is_busy_during_its_callback, 0, REDUCING);
    tcase_add_loop_test(tests, a_failing_all_reduce_changes_nothing, 0, REDUCING);
    tcase_add_test(tests, null_handles_and_outputs);
    tcase_add_loop_test(tests, settings_are_finite_and_in_range, 0, 5);
    tcase_add_test(tests, signals_are_one_per_layer);
    tcase_add_test(tests, numbers_lie_where_they_can_be_read);
    tcase_add_test(tests, what_was_not_asked_for_is_not_there);
    tcase_add_test(tests, no_epsilon_without_a_direction);
    tcase_add_test(tests, terms_come_in_known_sizes_and_counts);
    tcase_add_test(tests, terms_of_a_newer_caller_keep_their_stride);
    tcase_add_test(tests, states_have_one_size);
    tcase_add_test(tests, a_damaged_state_is_refused);
    tcase_add_loop_test(tests, a_state_belongs_to_its_table_and_parameters, 0, OTHERS);
    return tests;
}
