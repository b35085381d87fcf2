/* check_hooks.c - a context's memory and remarks, the hooks behind them, and callbacks that use the
 * handle which called them. The parallel_for hook is in check_parallel_for.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "support.h"

static gradreg_context *open_context(const gradreg_context_params *params)
{
    gradreg_context *context = NULL;
    assert_ok(gradreg_context_create(&context, params));
    ck_assert_ptr_nonnull(context);
    return context;
}

/* ---- memory ----------------------------------------------------------------------- */

START_TEST(all_memory_comes_from_the_hook)
{
    counting_allocator allocator = { 0 };
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;

    params.allocator = counting_hook(&allocator);
    gradreg_context *context = open_context(&params);
    ck_assert_uint_eq(allocator.live_bytes, info_of(context).bytes_held);
    assert_ok(gradreg_context_reserve(context, 1000));
    ck_assert_uint_eq(allocator.live_bytes, sizeof(*context) + 1000);
    ck_assert_uint_eq(info_of(context).bytes_held, sizeof(*context) + 1000);
    ck_assert_uint_eq(info_of(context).allocations, allocator.calls);
    assert_ok(gradreg_context_destroy(context));
    counting_check(&allocator);
}
END_TEST

START_TEST(reserve_grows_and_never_shrinks)
{
    gradreg_context *context = open_context(NULL);
    const uint64_t own = info_of(context).bytes_held;
    const size_t wanted[] = { 0, 100, 50, 100, 0, 4000, 3999 };
    const size_t held[] = { 0, 100, 100, 100, 100, 4000, 4000 };

    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        assert_ok(gradreg_context_reserve(context, wanted[i]));
        ck_assert_uint_eq(info_of(context).bytes_held, own + held[i]);
    }
    ck_assert_uint_eq(info_of(context).allocations, 3);
    assert_fails(gradreg_context_reserve(context, SIZE_MAX), GRADREG_ERROR_OUT_OF_MEMORY,
                 "18446744073709551615 bytes");
    assert_fails(gradreg_context_reserve(context, SIZE_MAX / 2), GRADREG_ERROR_OUT_OF_MEMORY,
                 "9223372036854775807 bytes");
    ck_assert_uint_eq(info_of(context).bytes_held, own + 4000);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* Everything of a context that allocates. */
static gradreg_status life(counting_allocator *allocator)
{
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context = (gradreg_context *)allocator;
    gradreg_status status;

    params.allocator = counting_hook(allocator);
    status = gradreg_context_create(&context, &params);
    if (status != GRADREG_OK) {
        ck_assert_ptr_null(context);
        return status;
    }
    for (size_t bytes = 64; bytes <= 256 && status == GRADREG_OK; bytes *= 2) {
        const uint64_t before = info_of(context).bytes_held;
        status = gradreg_context_reserve(context, bytes);
        if (status != GRADREG_OK) /* what was reserved before stays */
            ck_assert_uint_eq(info_of(context).bytes_held, before);
    }
    assert_ok(gradreg_context_destroy(context));
    return status;
}

START_TEST(allocation_may_fail_at_every_point)
{
    counting_allocator all = { 0 };
    size_t failed = 0;

    assert_ok(life(&all));
    counting_check(&all);
    for (size_t at = 1; at <= all.calls; at++) {
        counting_allocator allocator = { .fail_at = at, .fail_onwards = _i == 1 };
        assert_fails(life(&allocator), GRADREG_ERROR_OUT_OF_MEMORY, "gradreg_context_",
                     "allocator.allocate gave NULL");
        failed += allocator.failed;
        counting_check(&allocator);
    }
    printf("context: %zu allocations failed %s\n", failed, _i == 1 ? "for good" : "once");
    ck_assert_uint_eq(failed, 4); /* the context, three growths */
}
END_TEST

static void *misaligned(void *user, size_t bytes, size_t alignment, gradreg_memory memory)
{
    counting_allocator *allocator = user;
    const gradreg_allocator hook = counting_hook(allocator);
    char *pointer = hook.allocate(user, bytes + 8, alignment, memory);
    return pointer + 8;
}

static void release_misaligned(void *user, void *pointer, size_t bytes, gradreg_memory memory)
{
    const gradreg_allocator hook = counting_hook(user);
    hook.release(user, (char *)pointer - 8, bytes + 8, memory);
}

START_TEST(misaligned_memory_is_given_back)
{
    counting_allocator allocator = { 0 };
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_context *context = NULL;

    params.allocator = (gradreg_allocator){ misaligned, release_misaligned, &allocator, NULL };
    assert_fails(gradreg_context_create(&context, &params), GRADREG_ERROR_OUT_OF_MEMORY,
                 "allocator.allocate", "alignment to 64");
    ck_assert_uint_eq(allocator.releases, 1);
    counting_check(&allocator);
}
END_TEST

START_TEST(children_hold_memory_and_keep_the_context)
{
    gradreg_context *context = open_context(NULL);
    const uint64_t own = info_of(context).bytes_held;
    void *memory = gradreg_i_allocate(context, 1001, GRADREG_MEMORY_BACKEND);

    ck_assert_ptr_nonnull(memory);
    ck_assert_uint_eq((uintptr_t)memory % GR_ALIGNMENT, 0);
    ck_assert_uint_eq(info_of(context).bytes_held, own + 1001);
    ck_assert_ptr_null(gradreg_i_allocate(context, 0, GRADREG_MEMORY_HOST));
    ck_assert_uint_eq(info_of(context).allocations, 2);
    gradreg_i_release(context, NULL, 5, GRADREG_MEMORY_HOST);
    gradreg_i_release(context, memory, 1001, GRADREG_MEMORY_BACKEND);
    ck_assert_uint_eq(info_of(context).bytes_held, own);

    gradreg_i_child_add(context);
    gradreg_i_child_add(context);
    assert_fails(gradreg_context_destroy(context), GRADREG_ERROR_STATE, "'context'",
                 "2 children");
    gradreg_i_child_remove(context);
    assert_fails(gradreg_context_destroy(context), GRADREG_ERROR_STATE, "1 child,");
    assert_ok(gradreg_context_reserve(context, 10)); /* still usable */
    gradreg_i_child_remove(context);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- misuse of one handle --------------------------------------------------------- */

/* An allocator that uses the context which is allocating. */
struct intruder {
    gradreg_context *context;
    int attempts;
};

static void *intrude(void *user, size_t bytes, size_t alignment, gradreg_memory memory)
{
    struct intruder *self = user;

    (void)memory;
    if (self->context != NULL) {
        self->attempts++;
        assert_fails(gradreg_context_reserve(self->context, 1), GRADREG_ERROR_STATE,
                     "'context'", "in use");
        assert_fails(gradreg_context_destroy(self->context), GRADREG_ERROR_STATE, "in use");
        assert_fails(gradreg_context_synchronize(self->context), GRADREG_ERROR_STATE, "in use");
        assert_fails(gradreg_context_set_stream(self->context, NULL), GRADREG_ERROR_STATE,
                     "in use");
        ck_assert_int_eq(info_of(self->context).device, 0); /* any thread may ask */
        return NULL;
    }
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void release_plain(void *user, void *pointer, size_t bytes, gradreg_memory memory)
{
    (void)user, (void)bytes, (void)memory;
    free(pointer);
}

START_TEST(callbacks_cannot_use_the_handle_that_calls_them)
{
    struct intruder intruder = { NULL, 0 };
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;

    params.allocator = (gradreg_allocator){ intrude, release_plain, &intruder, NULL };
    intruder.context = NULL;
    gradreg_context *context = open_context(&params);
    intruder.context = context;
    /* The sentence is still this call's, although the callback made others fail. */
    assert_fails(gradreg_context_reserve(context, 8), GRADREG_ERROR_OUT_OF_MEMORY,
                 "allocator.allocate gave NULL for 8 bytes");
    ck_assert_int_eq(intruder.attempts, 1);
    intruder.context = NULL;
    assert_ok(gradreg_context_reserve(context, 8)); /* the flag came back */
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* An allocator that closes the context for which a child is being made. */
static void *close_and_allocate(void *user, size_t bytes, size_t alignment,
                                gradreg_memory memory)
{
    struct intruder *self = user;

    (void)memory;
    if (self->context != NULL) {
        self->attempts++;
        assert_fails(gradreg_context_destroy(self->context), GRADREG_ERROR_STATE, "1 child");
    }
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

START_TEST(a_context_stays_while_a_child_is_being_made)
{
    const gradreg_segment segment = { 0, 8, 0, 0, 0, GRADREG_ROLE_ATTENTION, 0, 0, 0, { 0 } };
    struct intruder intruder = { NULL, 0 };
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gradreg_regularizer_params r = GRADREG_REGULARIZER_PARAMS_INIT;
    gradreg_probe_params p = GRADREG_PROBE_PARAMS_INIT;
    gradreg_regularizer *reg = NULL;
    gradreg_probe *probe = NULL;
    size_t bytes = 0;

    r.layer_count = p.layer_count = 1;
    params.allocator =
        (gradreg_allocator){ close_and_allocate, release_plain, &intruder, NULL };
    gradreg_context *context = open_context(&params);
    intruder.context = context;
    assert_ok(gradreg_regularizer_workspace_bytes(&bytes, context, &segment, 1, &r));
    ck_assert_int_eq(intruder.attempts, 1);
    assert_ok(gradreg_regularizer_create(&reg, context, &segment, 1, &r));
    assert_ok(gradreg_regularizer_destroy(reg));
    assert_ok(gradreg_probe_create(&probe, context, &p));
    assert_ok(gradreg_probe_destroy(probe));
    ck_assert_int_gt(intruder.attempts, 4);
    r.layer_count = 0; /* a failure leaves no child behind */
    assert_fails(gradreg_regularizer_create(&reg, context, &segment, 1, &r),
                 GRADREG_ERROR_INVALID_ARGUMENT, "layer_count");
    r.layer_count = 1, r.parameter_count = 7;
    assert_fails(gradreg_regularizer_create(&reg, context, &segment, 1, &r),
                 GRADREG_ERROR_INVALID_ARGUMENT, "ends past 7");
    assert_fails(gradreg_regularizer_workspace_bytes(&bytes, context, &segment, 1, &r),
                 GRADREG_ERROR_INVALID_ARGUMENT, "ends past 7");
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

static void *reserve_in_thread(void *context)
{
    static gradreg_status status;
    status = gradreg_context_reserve(context, 1);
    if (strstr(gradreg_last_error(), "two threads") == NULL)
        status = GRADREG_OK;
    return &status;
}

/* An allocator during which another thread uses the context. */
static void *allocate_beside_a_thread(void *user, size_t bytes, size_t alignment,
                                      gradreg_memory memory)
{
    gradreg_context **context = user;
    pthread_t thread;
    void *status;

    (void)memory;
    if (*context != NULL) {
        ck_assert_int_eq(pthread_create(&thread, NULL, reserve_in_thread, *context), 0);
        ck_assert_int_eq(pthread_join(thread, &status), 0);
        ck_assert_int_eq(*(gradreg_status *)status, GRADREG_ERROR_STATE);
    }
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

START_TEST(two_threads_in_one_handle_are_noticed)
{
    gradreg_context *context = NULL;
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;

    params.allocator =
        (gradreg_allocator){ allocate_beside_a_thread, release_plain, &context, NULL };
    assert_ok(gradreg_context_create(&context, &params));
    assert_ok(gradreg_context_reserve(context, 8)); /* the first of the two goes on */
    ck_assert_uint_eq(info_of(context).bytes_held, sizeof(*context) + 8);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- remarks ---------------------------------------------------------------------- */

START_TEST(remarks_come_at_the_wanted_level)
{
    static const gradreg_log_level wanted[] = { GRADREG_LOG_OFF, 0, GRADREG_LOG_ERROR,
                                                GRADREG_LOG_WARNING, GRADREG_LOG_INFO };
    static const size_t expected[] = { 0, 2, 1, 2, 3 };
    log_collector collector = { 0 };
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;

    params.log = log_hook(&collector, wanted[_i]);
    gradreg_context *context = open_context(&params);
    gradreg_i_log(context, GRADREG_LOG_ERROR, "an error %d", 1);
    gradreg_i_log(context, GRADREG_LOG_WARNING, "a warning %d", 2);
    gradreg_i_log(context, GRADREG_LOG_INFO, "a note %d", 3);
    ck_assert_uint_eq(collector.count, expected[_i]);
    if (collector.count > 0) {
        ck_assert_str_eq(collector.message[0], "an error 1");
        ck_assert_int_eq(collector.level[0], GRADREG_LOG_ERROR);
        ck_assert(pthread_equal(collector.thread, pthread_self()));
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(a_remark_is_one_line_of_bounded_length)
{
    log_collector collector = { 0 };
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    char text[2000];

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    text[3] = '\n';
    text[5] = '\r';
    params.log = log_hook(&collector, GRADREG_LOG_INFO);
    gradreg_context *context = open_context(&params);
    gradreg_i_log(context, GRADREG_LOG_INFO, "%s", text);
    ck_assert_uint_eq(strlen(collector.message[0]), 511);
    ck_assert_ptr_null(strpbrk(collector.message[0], "\r\n"));
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(remarks_without_a_hook_are_lost)
{
    gradreg_context *context = open_context(NULL);
    gradreg_i_log(context, GRADREG_LOG_ERROR, "to nobody");
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

static void enter_the_library(void *user, gradreg_log_level level, const char *message)
{
    (void)level, (void)message;
    *(int *)user += gradreg_context_reserve(NULL, 1) == GRADREG_ERROR_INVALID_ARGUMENT;
}

START_TEST(a_log_callback_does_not_rename_the_call)
{
    int calls = 0;
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;

    params.log = (gradreg_log){ enter_the_library, &calls, GRADREG_LOG_INFO, 0, NULL };
    gradreg_context *context = open_context(&params);
    gradreg_i_enter("gradreg_test");
    gradreg_i_log(context, GRADREG_LOG_INFO, "remark");
    gradreg_i_set_error("done");
    ck_assert_int_eq(calls, 1);
    ck_assert_str_eq(gradreg_last_error(), "gradreg_test: done");
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hooks");
    TCase *core = tcase_create("core");

    tcase_add_test(core, all_memory_comes_from_the_hook);
    tcase_add_test(core, reserve_grows_and_never_shrinks);
    tcase_add_loop_test(core, allocation_may_fail_at_every_point, 0, 2);
    tcase_add_test(core, misaligned_memory_is_given_back);
    tcase_add_test(core, children_hold_memory_and_keep_the_context);
    tcase_add_test(core, callbacks_cannot_use_the_handle_that_calls_them);
    tcase_add_test(core, a_context_stays_while_a_child_is_being_made);
    tcase_add_test(core, two_threads_in_one_handle_are_noticed);
    tcase_add_loop_test(core, remarks_come_at_the_wanted_level, 0, 5);
    tcase_add_test(core, a_remark_is_one_line_of_bounded_length);
    tcase_add_test(core, remarks_without_a_hook_are_lost);
    tcase_add_test(core, a_log_callback_does_not_rename_the_call);
    suite_add_tcase(suite, core);
    return run_suite(suite);
}
