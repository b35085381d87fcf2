/* check_params.c - structs of older, equal and newer callers, and every *_init function. */
#include "params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

/* ---- every *_init ----------------------------------------------------------------- */

static const gradreg_context_params context_params = GRADREG_CONTEXT_PARAMS_INIT;
static const struct gradreg_context_info context_info = GRADREG_CONTEXT_INFO_INIT;
static const gradreg_allocator allocator = { 0 };
static const gradreg_parallel_for parallel_for = { 0 };
static const gradreg_log no_log = { 0 };
static const gradreg_segment segment = GRADREG_SEGMENT_INIT;
static const gradreg_schedule schedule = GRADREG_SCHEDULE_INIT;
static const gradreg_noise noise = GRADREG_NOISE_INIT;
static const gradreg_adaptive adaptive = GRADREG_ADAPTIVE_INIT;
static const gradreg_all_reduce all_reduce = { 0 };
static const gradreg_regularizer_params regularizer_params = GRADREG_REGULARIZER_PARAMS_INIT;
static const gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
static const gradreg_terms terms = GRADREG_TERMS_INIT;

/* One type for all: calling through another one is undefined. */
#define WRAPPER(name, type)                                          \
    static gradreg_status call_##name(void *out, size_t struct_size) \
    {                                                                \
        return gradreg_##name##_init((type *)out, struct_size);      \
    }
WRAPPER(context_params, gradreg_context_params)
WRAPPER(context_info, struct gradreg_context_info)
WRAPPER(allocator, gradreg_allocator)
WRAPPER(parallel_for, gradreg_parallel_for)
WRAPPER(log, gradreg_log)
WRAPPER(segment, gradreg_segment)
WRAPPER(schedule, gradreg_schedule)
WRAPPER(noise, gradreg_noise)
WRAPPER(adaptive, gradreg_adaptive)
WRAPPER(all_reduce, gradreg_all_reduce)
WRAPPER(regularizer_params, gradreg_regularizer_params)
WRAPPER(buffers, gradreg_buffers)
WRAPPER(terms, gradreg_terms)

static const struct init_case {
    gradreg_status (*call)(void *out, size_t struct_size);
    const char *name;
    const void *defaults;
    size_t known;
    bool has_size;
} inits[] = {
#define CASE(name, value, sized)                                                \
    {                                                                           \
        call_##name, "gradreg_" #name "_init: ", &(value), sizeof(value), sized \
    }
    CASE(context_params, context_params, true),
    CASE(context_info, context_info, true),
    CASE(allocator, allocator, false),
    CASE(parallel_for, parallel_for, false),
    CASE(log, no_log, false),
    CASE(segment, segment, false),
    CASE(schedule, schedule, false),
    CASE(noise, noise, false),
    CASE(adaptive, adaptive, false),
    CASE(all_reduce, all_reduce, false),
    CASE(regularizer_params, regularizer_params, true),
    CASE(buffers, buffers, true),
    CASE(terms, terms, true),
};
enum { INITS = sizeof(inits) / sizeof(inits[0]) };

START_TEST(init_writes_the_headers_defaults)
{
    const struct init_case *c = &inits[_i];
    void *out = guarded_new(c->known, 0);

    assert_ok(c->call(out, c->known));
    ck_assert_mem_eq(out, c->defaults, c->known);
    guarded_free(out);
}
END_TEST

/* Defaults and a zeroed tail; struct_size is the caller's. */
static void check_newer(const struct init_case *c, size_t size)
{
    unsigned char *out = guarded_new(size, 0);
    uint32_t written;

    assert_ok(c->call(out, size));
    memcpy(&written, out, sizeof(written));
    ck_assert_uint_eq(written, size);
    ck_assert_mem_eq(out + 4, (const unsigned char *)c->defaults + 4, c->known - 4);
    for (size_t i = c->known; i < size; i++)
        ck_assert_uint_eq(out[i], 0);
    guarded_free(out);
}

START_TEST(init_serves_newer_callers_of_sized_structs)
{
    const struct init_case *c = &inits[_i];
    const size_t sizes[] = { c->known + 1, c->known + 8, GR_STRUCT_SIZE_LIMIT };

    for (size_t i = 0; i < 3; i++) {
        unsigned char small[1];
        if (c->has_size)
            check_newer(c, sizes[i]);
        else
            assert_fails(c->call(small, sizes[i]), GRADREG_ERROR_INVALID_ARGUMENT, c->name,
                         "struct_size");
    }
}
END_TEST

START_TEST(init_refuses_what_no_version_had)
{
    const struct init_case *c = &inits[_i];
    const size_t sizes[] = { 0, 1, 4, c->known - 1, GR_STRUCT_SIZE_LIMIT + 1, SIZE_MAX };
    unsigned char *out = guarded_new(c->known, 0);

    assert_fails(c->call(NULL, c->known), GRADREG_ERROR_INVALID_ARGUMENT, c->name, "'out'",
                 "NULL");
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char number[32];
        (void)snprintf(number, sizeof(number), "struct_size is %zu, expected", sizes[i]);
        assert_fails(c->call(out, sizes[i]), GRADREG_ERROR_INVALID_ARGUMENT, c->name, number);
    }
    for (size_t i = 0; i < c->known; i++)
        ck_assert_uint_eq(out[i], 0xa5);
    guarded_free(out);
}
END_TEST

/* ---- reading ---------------------------------------------------------------------- */

/* A struct of version 2 of something; version 1 ended after `first`. */
struct current {
    uint32_t struct_size;
    uint32_t first;
    uint64_t second;
};
struct newer {
    struct current known;
    unsigned char later[16];
};
enum { MINIMUM = offsetof(struct current, second), KNOWN = sizeof(struct current) };

static const struct current defaults = { KNOWN, 11, 22 };

START_TEST(an_older_callers_unknown_fields_keep_their_defaults)
{
    struct current *older = guarded_new(MINIMUM, 0), out = defaults;

    older->struct_size = MINIMUM;
    older->first = 7;
    assert_ok(gradreg_i_struct_read(&out, KNOWN, MINIMUM, older, "params"));
    ck_assert_uint_eq(out.struct_size, KNOWN);
    ck_assert_uint_eq(out.first, 7);
    ck_assert_uint_eq(out.second, 22);
    guarded_free(older);
}
END_TEST

START_TEST(an_older_callers_struct_gets_the_defaults_it_has_room_for)
{
    struct current *older = guarded_new(MINIMUM, 0);

    assert_ok(gradreg_i_struct_init(older, MINIMUM, &defaults, KNOWN, MINIMUM));
    ck_assert_uint_eq(older->struct_size, MINIMUM);
    ck_assert_uint_eq(older->first, 11);
    assert_fails(gradreg_i_struct_init(older, MINIMUM - 1, &defaults, KNOWN, MINIMUM),
                 GRADREG_ERROR_INVALID_ARGUMENT, "struct_size", "at least 8");
    guarded_free(older);
}
END_TEST

START_TEST(a_callers_struct_of_this_version_is_copied)
{
    const struct current caller = { KNOWN, 1, 2 };
    struct current out = defaults;

    assert_ok(gradreg_i_struct_read(&out, KNOWN, MINIMUM, &caller, "params"));
    ck_assert_mem_eq(&out, &caller, sizeof(out));
}
END_TEST

START_TEST(a_newer_caller_is_served_unless_it_asks_for_more)
{
    struct newer caller = { { sizeof(caller), 1, 2 }, { 0 } };
    struct current out = defaults;

    assert_ok(gradreg_i_struct_read(&out, KNOWN, MINIMUM, &caller.known, "params"));
    ck_assert_uint_eq(out.struct_size, KNOWN);
    ck_assert_uint_eq(out.second, 2);

    out = defaults;
    for (size_t i = 0; i < sizeof(caller.later); i++) {
        char byte[32];
        (void)snprintf(byte, sizeof(byte), "at byte %zu ", KNOWN + i);
        caller.later[i] = 0x80;
        assert_fails(gradreg_i_struct_read(&out, KNOWN, MINIMUM, &caller.known, "params"),
                     GRADREG_ERROR_UNSUPPORTED, "params", byte, gradreg_version());
        ck_assert_mem_eq(&out, &defaults, sizeof(out));
        caller.later[i] = 0;
    }
}
END_TEST

START_TEST(impossible_sizes_are_refused_before_anything_is_read)
{
    const uint32_t sizes[] = { 0, 1, MINIMUM - 1, GR_STRUCT_SIZE_LIMIT + 1, UINT32_MAX };
    struct current out = defaults;
    uint32_t *caller = guarded_new(sizeof(*caller), 0);

    *caller = sizes[_i];
    assert_fails(gradreg_i_struct_read(&out, KNOWN, MINIMUM, caller, "params"),
                 GRADREG_ERROR_INVALID_ARGUMENT, "params.struct_size", "sizeof");
    assert_fails(gradreg_i_struct_check(caller, MINIMUM, "terms"),
                 GRADREG_ERROR_INVALID_ARGUMENT, "terms.struct_size", "sizeof");
    ck_assert_mem_eq(&out, &defaults, sizeof(out));
    guarded_free(caller);
}
END_TEST

/* ---- filling ---------------------------------------------------------------------- */

START_TEST(a_filled_struct_gets_as_much_as_it_has_room_for)
{
    const struct current filled = { KNOWN, 1, 2 };
    struct current *older = guarded_new(MINIMUM, 0);
    struct newer *later = guarded_new(sizeof(*later), 0);

    older->struct_size = MINIMUM;
    assert_ok(gradreg_i_struct_check(older, MINIMUM, "out"));
    gradreg_i_struct_write(older, &filled, KNOWN);
    ck_assert_uint_eq(older->struct_size, MINIMUM);
    ck_assert_uint_eq(older->first, 1);

    later->known.struct_size = sizeof(*later);
    assert_ok(gradreg_i_struct_check(later, MINIMUM, "out"));
    gradreg_i_struct_write(later, &filled, KNOWN);
    ck_assert_uint_eq(later->known.struct_size, sizeof(*later));
    ck_assert_uint_eq(later->known.second, 2);
    ck_assert_uint_eq(later->later[0], 0xa5); /* not this version's to write */
    guarded_free(older);
    guarded_free(later);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("params");
    TCase *core = tcase_create("core");

    tcase_add_loop_test(core, init_writes_the_headers_defaults, 0, INITS);
    tcase_add_loop_test(core, init_serves_newer_callers_of_sized_structs, 0, INITS);
    tcase_add_loop_test(core, init_refuses_what_no_version_had, 0, INITS);
    tcase_add_test(core, an_older_callers_unknown_fields_keep_their_defaults);
    tcase_add_test(core, an_older_callers_struct_gets_the_defaults_it_has_room_for);
    tcase_add_test(core, a_callers_struct_of_this_version_is_copied);
    tcase_add_test(core, a_newer_caller_is_served_unless_it_asks_for_more);
    tcase_add_loop_test(core, impossible_sizes_are_refused_before_anything_is_read, 0, 5);
    tcase_add_test(core, a_filled_struct_gets_as_much_as_it_has_room_for);
    suite_add_tcase(suite, core);
    return run_suite(suite);
}
