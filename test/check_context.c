/* check_context.c - contexts: what they accept and what they are.
 * Memory, remarks and hooks are in check_hooks.c, threads in check_threads.c. */
#include "context.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

static gradreg_context *open_context(const gradreg_context_params *params)
{
    gradreg_context *context = NULL;
    assert_ok(gradreg_context_create(&context, params));
    ck_assert_ptr_nonnull(context);
    return context;
}

/* ---- what a context is ------------------------------------------------------------ */

START_TEST(defaults_are_the_cpu_with_all_its_threads)
{
    gradreg_context *context = open_context(NULL);
    const struct gradreg_context_info info = info_of(context);

    ck_assert_uint_eq(info.struct_size, sizeof(info));
    ck_assert_int_eq(info.backend, GRADREG_BACKEND_CPU);
    ck_assert_int_eq(info.device, 0);
    ck_assert_int_eq(info.threads, gradreg_i_usable_threads());
    ck_assert_int_ge(info.threads, 1);
    ck_assert_uint_eq(info.bytes_held, sizeof(*context));
    ck_assert_uint_eq(info.allocations, 1);
    ck_assert_uint_gt(strlen(info.device_name), 0);
    ck_assert_uint_gt(strlen(info.vector_path), 0);
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(info.reserved[i], 0);
    assert_ok(gradreg_context_synchronize(context));
    assert_ok(gradreg_context_set_stream(context, NULL));
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(cpu_may_be_asked_for_by_name)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    params.backend = _i == 0 ? GRADREG_BACKEND_AUTO : GRADREG_BACKEND_CPU;
    params.threads = 3;
    gradreg_context *context = open_context(&params);
    const struct gradreg_context_info info = info_of(context);

    ck_assert_int_eq(info.backend, GRADREG_BACKEND_CPU);
    ck_assert_int_eq(info.threads, 3);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(only_the_cpu_is_available)
{
    ck_assert_int_eq(gradreg_backend_available(GRADREG_BACKEND_AUTO), 1);
    ck_assert_int_eq(gradreg_backend_available(GRADREG_BACKEND_CPU), 1);
    ck_assert_int_eq(gradreg_backend_available(GRADREG_BACKEND_CUDA), 0);
    ck_assert_int_eq(gradreg_backend_available(3), 0);
    ck_assert_int_eq(gradreg_backend_available(-1), 0);
    ck_assert_int_eq(gradreg_backend_available(INT32_MIN), 0);
    ck_assert_int_eq(gradreg_backend_available(INT32_MAX), 0);
}
END_TEST

/* ---- bad input -------------------------------------------------------------------- */

START_TEST(null_is_refused_where_it_is_not_allowed)
{
    gradreg_context *context = open_context(NULL);
    struct gradreg_context_info info = GRADREG_CONTEXT_INFO_INIT;
    const gradreg_status invalid = GRADREG_ERROR_INVALID_ARGUMENT;

    assert_fails(gradreg_context_create(NULL, NULL), invalid, "'out'", "NULL");
    assert_fails(gradreg_context_set_stream(NULL, NULL), invalid, "'context'", "NULL");
    assert_fails(gradreg_context_synchronize(NULL), invalid, "'context'", "NULL");
    assert_fails(gradreg_context_info(NULL, &info), invalid, "'context'", "NULL");
    assert_fails(gradreg_context_info(context, NULL), invalid, "'out'", "NULL");
    assert_fails(gradreg_context_reserve(NULL, 1), invalid, "'context'", "NULL");
    assert_ok(gradreg_context_destroy(NULL));
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

static void *never_allocate(void *user, size_t bytes, size_t alignment, gradreg_memory memory)
{
    (void)user, (void)bytes, (void)alignment, (void)memory;
    return NULL;
}

static void never_release(void *user, void *pointer, size_t bytes, gradreg_memory memory)
{
    (void)user, (void)pointer, (void)bytes, (void)memory;
}

static gradreg_context_params bad_params(int which)
{
    gradreg_context_params p = GRADREG_CONTEXT_PARAMS_INIT;
    static int somewhere;

    switch (which) {
    case 0: p.backend = 3; break;
    case 1: p.backend = -1; break;
    case 2: p.device = 1; break;
    case 3: p.device = -7; break;
    case 4: p.threads = -1; break;
    case 5: p.threads = GR_THREADS_LIMIT + 1; break;
    case 6: p.allocator.allocate = never_allocate; break;
    case 7: p.allocator.release = never_release; break;
    case 8: p.allocator.reserved = &somewhere; break;
    case 9: p.parallel_for.reserved[1] = &somewhere; break;
    case 10: p.log.level = 4; break;
    case 11: p.log.level = -2; break;
    case 12: p.log.reserved0 = 1; break;
    case 13: p.log.reserved1 = &somewhere; break;
    case 14: p.struct_size = 0; break;
    case 15: p.struct_size = sizeof(p) - 1; break;
    case 16: p.struct_size = UINT32_MAX; break;
    case 17: p.parallel_for.reserved[0] = &somewhere; break;
    default: ck_abort();
    }
    return p;
}

static const char *const bad_words[][2] = {
    { "params.backend", "3" },
    { "params.backend", "-1" },
    { "params.device", "1" },
    { "params.device", "-7" },
    { "params.threads", "-1" },
    { "params.threads", "1025" },
    { "params.allocator.release", "NULL" },
    { "params.allocator.allocate", "NULL" },
    { "params.allocator.reserved", "NULL" },
    { "params.parallel_for.reserved", "NULL" },
    { "params.log.level", "4" },
    { "params.log.level", "-2" },
    { "params.log.reserved0", "zero" },
    { "params.log.reserved0", "zero" },
    { "params.struct_size", "0" },
    { "params.struct_size", "at least" },
    { "params.struct_size", "4294967295" },
    { "params.parallel_for.reserved", "NULL" },
};
enum { BAD = sizeof(bad_words) / sizeof(bad_words[0]) };

START_TEST(bad_params_are_named)
{
    const gradreg_context_params params = bad_params(_i);
    gradreg_context *context = (gradreg_context *)&bad_words; /* to be overwritten */

    assert_fails(gradreg_context_create(&context, &params), GRADREG_ERROR_INVALID_ARGUMENT,
                 bad_words[_i][0], bad_words[_i][1]);
    ck_assert_ptr_null(context);
}
END_TEST

START_TEST(cuda_is_unsupported_and_leaves_nothing)
{
    counting_allocator allocator = { 0 };
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context = (gradreg_context *)&allocator;

    params.backend = GRADREG_BACKEND_CUDA;
    params.device = 5;
    params.allocator = counting_hook(&allocator);
    assert_fails(gradreg_context_create(&context, &params), GRADREG_ERROR_UNSUPPORTED,
                 "params.backend", "CUDA", "GRADREG_CUDA_MODULE");
    ck_assert_ptr_null(context);
    counting_check(&allocator);
}
END_TEST

START_TEST(the_cpu_has_no_stream)
{
    gradreg_context *context = open_context(NULL);
    assert_fails(gradreg_context_set_stream(context, context), GRADREG_ERROR_INVALID_ARGUMENT,
                 "'stream'", "expected NULL");
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- callers of another age ------------------------------------------------------- */

START_TEST(params_of_a_newer_caller)
{
    struct {
        gradreg_context_params known;
        uint64_t later;
    } newer = { GRADREG_CONTEXT_PARAMS_INIT, 0 };
    gradreg_context *context = NULL;
    char byte[32];

    newer.known.struct_size = sizeof(newer);
    assert_ok(gradreg_context_create(&context, &newer.known));
    assert_ok(gradreg_context_destroy(context));
    newer.later = 1;
    (void)snprintf(byte, sizeof(byte), "at byte %zu ", sizeof(newer.known));
    assert_fails(gradreg_context_create(&context, &newer.known), GRADREG_ERROR_UNSUPPORTED,
                 "params", byte);
    ck_assert_ptr_null(context);
}
END_TEST

START_TEST(info_for_callers_of_every_age)
{
    gradreg_context *context = open_context(NULL);
    struct {
        struct gradreg_context_info known;
        uint64_t later;
    } newer = { GRADREG_CONTEXT_INFO_INIT, 77 };
    struct gradreg_context_info before, older = GRADREG_CONTEXT_INFO_INIT;

    newer.known.struct_size = sizeof(newer);
    assert_ok(gradreg_context_info(context, &newer.known));
    ck_assert_uint_eq(newer.known.struct_size, sizeof(newer));
    ck_assert_int_eq(newer.known.backend, GRADREG_BACKEND_CPU);
    ck_assert_uint_eq(newer.later, 77);

    older.struct_size = sizeof(older) - 1; /* no version had that */
    before = older;
    assert_fails(gradreg_context_info(context, &older), GRADREG_ERROR_INVALID_ARGUMENT,
                 "out.struct_size");
    ck_assert_mem_eq(&older, &before, sizeof(older));
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("context");
    TCase *core = tcase_create("core");

    tcase_add_test(core, defaults_are_the_cpu_with_all_its_threads);
    tcase_add_loop_test(core, cpu_may_be_asked_for_by_name, 0, 2);
    tcase_add_test(core, only_the_cpu_is_available);
    tcase_add_test(core, null_is_refused_where_it_is_not_allowed);
    tcase_add_loop_test(core, bad_params_are_named, 0, BAD);
    tcase_add_test(core, cuda_is_unsupported_and_leaves_nothing);
    tcase_add_test(core, the_cpu_has_no_stream);
    tcase_add_test(core, params_of_a_newer_caller);
    tcase_add_test(core, info_for_callers_of_every_age);
    suite_add_tcase(suite, core);
    return run_suite(suite);
}
