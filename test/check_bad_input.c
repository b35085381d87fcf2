/* check_bad_input.c - every function with everything that it must refuse.
 *
 * The matrix lies in several files: contexts and small functions here, schedules, parameters and
 * segments, single buffers, counts and slices, the order of calls, settings and reports in the
 * check_bad_*.c of these names. main() holds what they called against the header (coverage.h). */
#define _POSIX_C_SOURCE 200809L /* setenv */

#include "bad_input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

/* ---- init functions ---------------------------------------------------------------- */

/* One type for all: calling through another one is undefined. */
#define INIT(name, type)                                             \
    static gradreg_status init_##name(void *out, size_t struct_size) \
    {                                                                \
        return gradreg_##name##_init((type *)out, struct_size);      \
    }
INIT(context_params, gradreg_context_params)
INIT(context_info, struct gradreg_context_info)
INIT(allocator, gradreg_allocator)
INIT(parallel_for, gradreg_parallel_for)
INIT(log, gradreg_log)
INIT(segment, gradreg_segment)
INIT(schedule, gradreg_schedule)
INIT(noise, gradreg_noise)
INIT(adaptive, gradreg_adaptive)
INIT(all_reduce, gradreg_all_reduce)
INIT(regularizer_params, gradreg_regularizer_params)
INIT(buffers, gradreg_buffers)
INIT(terms, gradreg_terms)

#define INIT_ROW(name, type)                                \
    {                                                       \
        "gradreg_" #name "_init", init_##name, sizeof(type) \
    }
static const struct init_row {
    const char *name;
    gradreg_status (*function)(void *out, size_t struct_size);
    size_t size;
} inits[] = {
    INIT_ROW(context_params, gradreg_context_params),
    INIT_ROW(context_info, struct gradreg_context_info),
    INIT_ROW(allocator, gradreg_allocator),
    INIT_ROW(parallel_for, gradreg_parallel_for),
    INIT_ROW(log, gradreg_log),
    INIT_ROW(segment, gradreg_segment),
    INIT_ROW(schedule, gradreg_schedule),
    INIT_ROW(noise, gradreg_noise),
    INIT_ROW(adaptive, gradreg_adaptive),
    INIT_ROW(all_reduce, gradreg_all_reduce),
    INIT_ROW(regularizer_params, gradreg_regularizer_params),
    INIT_ROW(buffers, gradreg_buffers),
    INIT_ROW(terms, gradreg_terms),
};
enum { INITS = sizeof(inits) / sizeof(inits[0]) };

START_TEST(init_refuses_null_and_sizes_that_no_version_had)
{
    const struct init_row *row = &inits[_i];
    const size_t sizes[] = { 0, 1, row->size - 1, 4097, SIZE_MAX };
    struct caller *c = caller_open(&plain_mode);

    assert_refused(c, row->name, "NULL", row->function(NULL, row->size), invalid, "'out'",
                   "NULL");
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char value[32];
        (void)snprintf(value, sizeof(value), "%zu", sizes[i]);
        assert_refused(c, row->name, value, row->function(c->own.state, sizes[i]), invalid,
                       "struct_size", value);
    }
    assert_ok(row->function(c->own.state, row->size));
    coverage_note(row->name, GRADREG_OK, false);
    caller_close(c);
}
END_TEST

/* ---- contexts ---------------------------------------------------------------------- */

static void *give_nothing(void *user, size_t bytes, size_t alignment, gradreg_memory memory)
{
    (void)user, (void)bytes, (void)alignment, (void)memory;
    return NULL;
}

static void take_nothing(void *user, void *pointer, size_t bytes, gradreg_memory memory)
{
    (void)user, (void)pointer, (void)bytes, (void)memory;
}

#define CONTEXT(field, number)        BAD_INTEGER(gradreg_context_params, field, number)
#define CONTEXT_RESERVED(field, bits) BAD_RESERVED(gradreg_context_params, field, bits)
static const struct spoilt bad_contexts[] = {
    CONTEXT(backend, -1),
    CONTEXT(backend, 3),
    CONTEXT(backend, 2147483647),
    LATER(gradreg_context_params, backend, GRADREG_BACKEND_CUDA),
    CONTEXT(device, 1),
    CONTEXT(device, -1),
    CONTEXT(device, 2147483647),
    CONTEXT(threads, -1),
    CONTEXT(threads, 1025),
    CONTEXT(threads, 2147483647),
    CONTEXT(log.level, -2),
    CONTEXT(log.level, 4),
    CONTEXT(log.level, 2147483647),
    CONTEXT_RESERVED(allocator.reserved, 64),
    CONTEXT_RESERVED(parallel_for.reserved[0], 64),
    CONTEXT_RESERVED(parallel_for.reserved[1], 64),
    CONTEXT_RESERVED(log.reserved0, 32),
    CONTEXT_RESERVED(log.reserved1, 64),
};
enum { BAD_CONTEXTS = sizeof(bad_contexts) / sizeof(bad_contexts[0]) };

static void refuse_context(struct caller *c, const char *what, gradreg_status want,
                           const char *word, const char *value)
{
    assert_refused(c, "gradreg_context_create", what,
                   gradreg_context_create(&c->own.context_out, &c->own.context_params), want,
                   word, value);
}

START_TEST(bad_context_fields_are_named)
{
    const struct spoilt *bad = &bad_contexts[_i];

    if (bad->want == GRADREG_ERROR_UNSUPPORTED)
        LEAVE_OUT_ON_CUDA("this backend is there");
    struct caller *c = caller_open(&plain_mode);
    spoil(&c->own.context_params, bad);
    refuse_context(c, bad->field, bad->want, spoilt_name(bad), bad->value);
    caller_close(c);
}
END_TEST

START_TEST(an_allocator_has_both_functions_or_none)
{
    struct caller *c = caller_open(&plain_mode);

    c->own.context_params.allocator.allocate = give_nothing;
    refuse_context(c, "no release", invalid, "params.allocator.release", "NULL");
    c->own.context_params.allocator.allocate = NULL;
    c->own.context_params.allocator.release = take_nothing;
    refuse_context(c, "no allocate", invalid, "params.allocator.allocate", "NULL");
    c->own.context_params.allocator.allocate = give_nothing;
    refuse_context(c, "no memory", GRADREG_ERROR_OUT_OF_MEMORY, "allocate", "NULL");
    caller_close(c);
}
END_TEST

START_TEST(context_params_of_other_versions)
{
    struct caller *c = caller_open(&plain_mode);
    gradreg_context_params *p = &c->own.context_params;

    for (int i = 0; i < BAD_SIZES; i++) {
        char value[32];
        p->struct_size = bad_size(sizeof(*p), i);
        (void)snprintf(value, sizeof(value), "%lu", (unsigned long)p->struct_size);
        refuse_context(c, "struct_size", invalid, "params.struct_size", value);
    }
    p->struct_size = (uint32_t)sizeof(*p) + CALLER_TAIL;
    c->own.context_params_tail[CALLER_TAIL - 1] = 1;
    refuse_context(c, "later field", GRADREG_ERROR_UNSUPPORTED, "params", "version");
    c->own.context_params_tail[CALLER_TAIL - 1] = 0;
    assert_accepted(gradreg_context_create(&c->own.context_out, p));
    assert_accepted(gradreg_context_destroy(c->own.context_out));
    caller_close(c);
}
END_TEST

START_TEST(contexts_refuse_null)
{
    struct caller *c = caller_open(&plain_mode);

    assert_refused(c, "gradreg_context_create", "NULL out", gradreg_context_create(NULL, NULL),
                   invalid, "'out'", "NULL");
    assert_refused(c, "gradreg_context_set_stream", "NULL",
                   gradreg_context_set_stream(NULL, NULL), invalid, "'context'", "NULL");
    assert_refused(c, "gradreg_context_synchronize", "NULL", gradreg_context_synchronize(NULL),
                   invalid, "'context'", "NULL");
    assert_refused(c, "gradreg_context_info", "NULL", gradreg_context_info(NULL, &c->own.info),
                   invalid, "'context'", "NULL");
    assert_refused(c, "gradreg_context_info", "NULL out",
                   gradreg_context_info(c->context, NULL), invalid, "'out'", "NULL");
    assert_refused(c, "gradreg_context_reserve", "NULL", gradreg_context_reserve(NULL, 1),
                   invalid, "'context'", "NULL");
    assert_ok(gradreg_context_destroy(NULL));
    caller_close(c);
}
END_TEST

START_TEST(an_environment_that_asks_for_no_known_path)
{
    struct caller *c = caller_open(&plain_mode);
    char *before = getenv("GRADREG_VECTOR_PATH");
    char kept[64] = "";

    if (before != NULL)
        (void)snprintf(kept, sizeof(kept), "%s", before);
    ck_assert_int_eq(setenv("GRADREG_VECTOR_PATH", "x86-64-v9", 1), 0);
    refuse_context(c, "GRADREG_VECTOR_PATH", invalid, "GRADREG_VECTOR_PATH", "x86-64-v9");
    ck_assert_int_eq(before == NULL ? unsetenv("GRADREG_VECTOR_PATH")
                                    : setenv("GRADREG_VECTOR_PATH", kept, 1),
                     0);
    caller_close(c);
}
END_TEST

START_TEST(other_context_calls_and_what_they_refuse)
{
    struct caller *c = caller_open(&plain_mode);

    for (int i = 0; i < BAD_SIZES; i++) {
        c->own.info.struct_size = bad_size(sizeof(c->own.info), i);
        assert_refused(c, "gradreg_context_info", "struct_size",
                       gradreg_context_info(c->context, &c->own.info), invalid,
                       "out.struct_size");
    }
    if (!on_cuda()) /* which cannot know what is a stream */
        assert_refused(c, "gradreg_context_set_stream", "a stream",
                       gradreg_context_set_stream(c->context, &c->own.integer), invalid,
                       "'stream'", "NULL");
    assert_refused(c, "gradreg_context_reserve", "more than there is",
                   gradreg_context_reserve(c->context, SIZE_MAX), GRADREG_ERROR_OUT_OF_MEMORY,
                   "18446744073709551615");
    assert_refused(c, "gradreg_context_destroy", "children",
                   gradreg_context_destroy(c->context), GRADREG_ERROR_STATE, "'context'",
                   "1 child");
    c->own.info.struct_size = sizeof(c->own.info);
    assert_accepted(gradreg_context_info(c->context, &c->own.info));
    assert_accepted(gradreg_context_set_stream(c->context, NULL));
    assert_accepted(gradreg_context_synchronize(c->context));
    assert_accepted(gradreg_context_reserve(c->context, 100));
    caller_lead_to(c, MIRROR + 1);
    ck_assert_uint_eq(caller_go_on(c), caller_undisturbed(&plain_mode, COMBINE));
    caller_close(c);
}
END_TEST

/* ---- names, numbers, words --------------------------------------------------------- */

START_TEST(names_that_are_none)
{
    struct caller *c = caller_open(&plain_mode);
    struct belongings *own = &c->own;
    const char *name = "gradreg_segment_classify";

    assert_refused(c, name, "NULL layer", gradreg_segment_classify(NULL, &own->role, "wte"),
                   invalid, "'layer'", "NULL");
    assert_refused(c, name, "NULL role", gradreg_segment_classify(&own->integer, NULL, "wte"),
                   invalid, "'role'", "NULL");
    assert_refused(c, name, "NULL name",
                   gradreg_segment_classify(&own->integer, &own->role, NULL), invalid,
                   "'parameter_name'", "NULL");
    assert_refused(c, name, "empty", gradreg_segment_classify(&own->integer, &own->role, ""),
                   invalid, "parameter_name", "empty");
    assert_accepted(gradreg_segment_classify(&own->integer, &own->role, "no such name"));
    caller_close(c);
}
END_TEST

static const int32_t strange_numbers[] = { INT32_MIN, -1000, -1, 3, 1000, INT32_MAX };
enum { STRANGE = sizeof(strange_numbers) / sizeof(strange_numbers[0]) };

START_TEST(strange_numbers_have_harmless_answers)
{
    const int32_t number = strange_numbers[_i];

    ck_assert_int_eq(gradreg_backend_available(number), 0);
    coverage_note("gradreg_backend_available", GRADREG_OK, true);
    if (number != -1 && number != -3)
        ck_assert_str_eq(gradreg_status_name(number), "GRADREG_ERROR_UNKNOWN");
    coverage_note("gradreg_status_name", GRADREG_OK, true);
    ck_assert_ptr_nonnull(gradreg_version());
    coverage_note("gradreg_version", GRADREG_OK, false);
    ck_assert_ptr_nonnull(gradreg_last_error());
    coverage_note("gradreg_last_error", GRADREG_OK, false);
}
END_TEST

/* ---- main -------------------------------------------------------------------------- */

static TCase *context_case(void)
{
    TCase *tests = tcase_create("contexts and small functions");

    add_loop_test(tests, init_refuses_null_and_sizes_that_no_version_had, 0, INITS);
    add_loop_test(tests, bad_context_fields_are_named, 0, BAD_CONTEXTS);
    tcase_add_test(tests, an_allocator_has_both_functions_or_none);
    tcase_add_test(tests, context_params_of_other_versions);
    tcase_add_test(tests, contexts_refuse_null);
    tcase_add_test(tests, an_environment_that_asks_for_no_known_path);
    tcase_add_test(tests, other_context_calls_and_what_they_refuse);
    tcase_add_test(tests, names_that_are_none);
    add_loop_test(tests, strange_numbers_have_harmless_answers, 0, STRANGE);
    return tests;
}

/* Losses, calls over logits, the probe and the monitors have suites of their own: check_bad_policy.c,
 * check_bad_logits.c, check_bad_probe.c. */
static bool is_mine(const char *name)
{
    static const char *const others[] = { "gradreg_policy_",         "gradreg_advantage",
                                          "gradreg_logits_",         "gradreg_logprobs_",
                                          "gradreg_linear_",         "gradreg_probe_",
                                          "gradreg_distinct_ngrams", "gradreg_moving_average",
                                          "gradreg_js_divergence",   "gradreg_weight_delta" };
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (strncmp(name, others[i], strlen(others[i])) == 0)
            return false;
    return true;
}

int main(void)
{
    Suite *suite = suite_create("bad input");

    coverage_open();
    suite_add_tcase(suite, context_case());
    suite_add_tcase(suite, bad_schedules_case());
    suite_add_tcase(suite, bad_params_case());
    suite_add_tcase(suite, bad_tables_case());
    suite_add_tcase(suite, bad_buffers_case());
    suite_add_tcase(suite, bad_slices_case());
    suite_add_tcase(suite, bad_order_case());
    suite_add_tcase(suite, bad_reports_case());
    const int result = run_suite(suite);
    if (getenv("CK_RUN_CASE") != NULL || getenv("CK_RUN_SUITE") != NULL)
        return result; /* only a part was asked for */
    return coverage_complete_of(GR_TEST_DATA "/../../include/gradreg.h", is_mine) || on_cuda()
               ? result
               : EXIT_FAILURE;
}
