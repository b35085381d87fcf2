/* check_bad_reports.c - the part of the matrix for the entries that take no buffers: settings,
 * observations, terms, saved states. */
#include "bad_input.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

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

START_TEST(what_was_not_asked_for_is_not_there)
{
    struct caller *c = caller_open(&plain_mode);

    c->own.params.adaptive.a_max = 0.0;
    c->own.params.noise.rule = GRADREG_NOISE_OFF;
    caller_recreate(c);
    assert_refused(
        c, "gradreg_regularizer_observe_layers", "off",
        gradreg_regularizer_observe_layers(c->regularizer, c->own.signals, CALLER_LAYERS),
        GRADREG_ERROR_UNSUPPORTED, "params.adaptive.a_max", "0");
    assert_refused(c, "gradreg_regularizer_inject_noise", "off", caller_do(c, INJECT_NOISE),
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
    assert_refused(c, "gradreg_regularizer_suggest_epsilon", "NaN",
                   caller_do(c, SUGGEST_EPSILON), GRADREG_ERROR_NON_FINITE, "gradient", "1");
    grads[7] = -(float)INFINITY;
    assert_refused(c, "gradreg_regularizer_suggest_epsilon", "inf",
                   caller_do(c, SUGGEST_EPSILON), GRADREG_ERROR_NON_FINITE, "gradient", "1");
    memset(grads, 0, CALLER_ELEMENTS * sizeof(*grads));
    assert_refused(c, "gradreg_regularizer_suggest_epsilon", "zero",
                   caller_do(c, SUGGEST_EPSILON), GRADREG_ERROR_NON_FINITE, "direction");
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
    const size_t bytes = caller_state_bytes(c);
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
    const size_t bytes = caller_state_bytes(c);
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
    const size_t bytes = caller_state_bytes(c);

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
    const size_t bytes = caller_state_bytes(c);

    assert_ok(
        gradreg_regularizer_state_save(c->regularizer, c->own.state, caller_state_bytes(c)));
    others[_i](c);
    caller_recreate(c);
    ck_assert_uint_eq(caller_state_bytes(c), bytes);
    refuse_load(c, "another description", "another table");
    caller_close(c);
}
END_TEST

TCase *bad_reports_case(void)
{
    TCase *tests = tcase_create("settings and reports");

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, null_handles_and_outputs);
    add_loop_test(tests, settings_are_finite_and_in_range, 0, 5);
    tcase_add_test(tests, signals_are_one_per_layer);
    tcase_add_test(tests, numbers_lie_where_they_can_be_read);
    tcase_add_test(tests, what_was_not_asked_for_is_not_there);
    tcase_add_test(tests, no_epsilon_without_a_direction);
    tcase_add_test(tests, terms_come_in_known_sizes_and_counts);
    tcase_add_test(tests, terms_of_a_newer_caller_keep_their_stride);
    tcase_add_test(tests, states_have_one_size);
    tcase_add_test(tests, a_damaged_state_is_refused);
    add_loop_test(tests, a_state_belongs_to_its_table_and_parameters, 0, OTHERS);
    return tests;
}
