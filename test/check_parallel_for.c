/* check_parallel_for.c - the caller's own threads, and the floating-point environment that bodies
 * run in on every kind of thread.
 *
 * Bodies leave marks; assertions come afterwards, on the test's thread. Between setting a strange
 * environment and taking it back, tests compute with integers only. */
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "context.h"
#include "fpenv.h"
#include "support.h"

enum { COUNT = 50 };

/* ---- strange environments --------------------------------------------------------- */

#if defined(__SSE2__)
/* Each with an unmasked exception or a sticky flag to lose. */
static const uint32_t strange[] = {
    0x1f80 | 0x8040,              /* FTZ, DAZ */
    0x1f80 | 0x6000 | 0x0020,     /* towards zero, inexact is sticky */
    0x1f80 | 0x4000,              /* up */
    0x1f80 & ~0x0280u,            /* division by zero and invalid trap */
    (0x1f80 & ~0x0200u) | 0x803b, /* FTZ, all flags but the one that traps */
};

static uint32_t environment(void)
{
    return _mm_getcsr();
}

static void set_environment(uint32_t value)
{
    _mm_setcsr(value);
}

static uint32_t control_bits(uint32_t value)
{
    return value & ~0x3fu;
}

static const uint32_t wanted_control = 0x1f80;
#else
static const uint32_t strange[] = { FE_TOWARDZERO, FE_UPWARD, FE_DOWNWARD };

static uint32_t environment(void)
{
    return (uint32_t)fegetround();
}

static void set_environment(uint32_t value)
{
    (void)fesetround((int)value);
}

static uint32_t control_bits(uint32_t value)
{
    return value;
}

static const uint32_t wanted_control = FE_TONEAREST;
#endif
enum { STRANGE = sizeof(strange) / sizeof(strange[0]) };

/* What arithmetic does where it runs. */
struct sample {
    _Atomic int ran;
    uint32_t control, third, denormal, infinite;
};

static volatile float one = 1.0f, three = 3.0f, zero = 0.0f, smallest_normal = FLT_MIN;

static void compute(void *task, size_t index)
{
    struct sample *sample = (struct sample *)task + index;

    sample->control = control_bits(environment());
    sample->third = float_bits(one / three);
    sample->denormal = float_bits(smallest_normal / three); /* also raises underflow */
    sample->infinite = float_bits(one / zero); /* ends the process where it traps */
    atomic_fetch_add(&sample->ran, 1);
}

static void check_samples(const struct sample *samples)
{
    for (int i = 0; i < COUNT; i++) {
        ck_assert_int_eq(atomic_load(&samples[i].ran), 1);
        ck_assert_uint_eq(samples[i].control, wanted_control);
        ck_assert_uint_eq(samples[i].third, 0x3eaaaaab);
        ck_assert_uint_eq(samples[i].denormal, 0x002aaaab);
        ck_assert_uint_eq(samples[i].infinite, 0x7f800000);
    }
}

static gradreg_context *open_context(int threads, const gradreg_parallel_for *hook,
                                     log_collector *log)
{
    gradreg_context *context = NULL;
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;

    params.threads = threads;
    if (hook != NULL)
        params.parallel_for = *hook;
    if (log != NULL)
        params.log = log_hook(log, GRADREG_LOG_INFO);
    assert_ok(gradreg_context_create(&context, &params));
    return context;
}

static void check_environment(gradreg_context *context, uint32_t host)
{
    static struct sample samples[COUNT];

    memset(samples, 0, sizeof(samples));
    set_environment(host);
    gradreg_i_parallel(context, COUNT, compute, samples);
    const uint32_t after = environment();
    set_environment(wanted_control);
    check_samples(samples);
    ck_assert_uint_eq(after, host);
}

/* ---- the caller's threads --------------------------------------------------------- */

struct hook_call {
    size_t count;
    void (*body)(void *task, size_t index);
    void *task;
    size_t begin;
    uint32_t environment;
    int calls;
};

static void run_backwards(void *user, size_t count, void (*body)(void *task, size_t index),
                          void *task)
{
    ((struct hook_call *)user)->calls++;
    while (count > 0)
        body(task, --count);
}

/* Every third index, in this thread's own environment. */
static void *run_part(void *argument)
{
    const struct hook_call *call = argument;

    set_environment(call->environment);
    for (size_t i = call->begin; i < call->count; i += 3)
        call->body(call->task, i);
    return environment() == call->environment ? NULL : argument;
}

static void run_on_own_threads(void *user, size_t count, void (*body)(void *task, size_t index),
                               void *task)
{
    struct hook_call *self = user, calls[3];
    pthread_t threads[3];
    void *changed;

    self->calls++;
    for (size_t i = 0; i < 3; i++) {
        calls[i] = (struct hook_call){ count, body, task, i, self->environment, 0 };
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_part, &calls[i]), 0);
    }
    for (size_t i = 0; i < 3; i++) {
        ck_assert_int_eq(pthread_join(threads[i], &changed), 0);
        ck_assert_ptr_null(changed);
    }
}

static void count_once(void *task, size_t index)
{
    atomic_fetch_add((_Atomic int *)task + index, 1);
}

static gradreg_parallel_for hook_of(int which, struct hook_call *call)
{
    gradreg_parallel_for hook = { which == 0 ? run_backwards : run_on_own_threads,
                                  call,
                                  { NULL, NULL } };
    return hook;
}

START_TEST(the_hook_replaces_the_pool)
{
    struct hook_call call = { .environment = environment() };
    _Atomic int ran[COUNT] = { 0 };
    log_collector log = { 0 };
    const gradreg_parallel_for hook = hook_of(_i, &call);
    gradreg_context *context = open_context(4, &hook, &log);

    gradreg_i_parallel(context, COUNT, count_once, ran);
    ck_assert_int_eq(call.calls, 1);
    for (int i = 0; i < COUNT; i++)
        ck_assert_int_eq(atomic_load(&ran[i]), 1);

    gradreg_i_parallel(context, 1, count_once, ran);
    gradreg_i_parallel(context, 0, count_once, ran);
    ck_assert_int_eq(call.calls, 1); /* nothing to share out */
    ck_assert_int_eq(atomic_load(&ran[0]), 2);
    ck_assert_uint_eq(log.count, 0);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

static void run_all_but_one(void *user, size_t count, void (*body)(void *task, size_t index),
                            void *task)
{
    (void)user;
    for (size_t i = 1; i < count; i++)
        body(task, i);
    body(task, count); /* none of the indices */
}

START_TEST(a_hook_that_leaves_indices_out_is_reported)
{
    _Atomic int ran[COUNT + 1] = { 0 };
    log_collector log = { 0 };
    const gradreg_parallel_for hook = { run_all_but_one, NULL, { NULL, NULL } };
    gradreg_context *context = open_context(4, &hook, &log);

    gradreg_i_parallel(context, COUNT, count_once, ran);
    ck_assert_int_eq(atomic_load(&ran[COUNT]), 0);
    ck_assert_uint_eq(log.count, 1);
    ck_assert_int_eq(log.level[0], GRADREG_LOG_ERROR);
    ck_assert(log_has(&log, "parallel_for ran 49 indices of 50"));
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- the environment -------------------------------------------------------------- */

START_TEST(bodies_run_in_the_default_environment_on_the_librarys_threads)
{
    gradreg_context *context = open_context(_i / STRANGE + 1, NULL, NULL);
    check_environment(context, strange[_i % STRANGE]);
    check_environment(context, strange[(_i + 1) % STRANGE]); /* started under another one */
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(bodies_run_in_the_default_environment_on_the_callers_threads)
{
    struct hook_call call = { .environment = strange[_i % STRANGE] };
    const gradreg_parallel_for hook = hook_of(_i / STRANGE, &call);
    gradreg_context *context = open_context(4, &hook, NULL);
    check_environment(context, strange[_i % STRANGE]);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

static void (*volatile opaque_compute)(void *task, size_t index) = compute;

static void run_and_leave_strange(void *user, size_t count,
                                  void (*body)(void *task, size_t index), void *task)
{
    run_backwards(user, count, body, task);
    set_environment(((struct hook_call *)user)->environment);
}

static void remark_and_leave_strange(void *user, gradreg_log_level level, const char *message)
{
    (void)level, (void)message;
    set_environment(((struct hook_call *)user)->environment);
}

/* A callback that opens a library for the first time may come back with FTZ set, say. */
START_TEST(what_a_callback_leaves_behind_is_not_computed_in)
{
    struct hook_call call = { .environment = strange[_i] };
    _Atomic int ran[COUNT] = { 0 };
    gradreg_context *context = NULL;
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    gr_fpenv host;

    params.parallel_for =
        (gradreg_parallel_for){ run_and_leave_strange, &call, { NULL, NULL } };
    params.log.function = remark_and_leave_strange;
    params.log.user = &call;
    assert_ok(gradreg_context_create(&context, &params));
    gradreg_i_fp_enter(&host);
    gradreg_i_parallel(context, COUNT, count_once, ran);
    const uint32_t after_hook = environment();
    gradreg_i_log(context, GRADREG_LOG_ERROR, "a remark");
    const uint32_t after_log = environment();
    gradreg_i_fp_leave(&host);
    ck_assert_int_eq(call.calls, 1);
    ck_assert_uint_eq(control_bits(after_hook), wanted_control);
    ck_assert_uint_eq(control_bits(after_log), wanted_control);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(entering_and_leaving_gives_the_host_its_own)
{
    struct sample sample = { 0 };
    gr_fpenv host;

    set_environment(strange[_i]);
    gradreg_i_fp_enter(&host);
    opaque_compute(&sample, 0);
    gradreg_i_fp_leave(&host);
    const uint32_t after = environment();
    set_environment(wanted_control);
    ck_assert_uint_eq(after, strange[_i]);
    ck_assert_uint_eq(sample.control, wanted_control);
    ck_assert_uint_eq(sample.third, 0x3eaaaaab);
    ck_assert_uint_eq(sample.denormal, 0x002aaaab);
}
END_TEST

/* That the samples tell environments apart at all. */
START_TEST(the_samples_see_a_strange_environment)
{
    struct sample sample = { 0 };

    set_environment(strange[0]); /* FTZ; elsewhere towards zero */
    opaque_compute(&sample, 0);
    set_environment(wanted_control);
    ck_assert_uint_ne(sample.control, wanted_control);
    ck_assert_uint_ne(sample.denormal, 0x002aaaab);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("parallel_for");
    TCase *core = tcase_create("core");

    tcase_set_timeout(core, 60);
    tcase_add_loop_test(core, the_hook_replaces_the_pool, 0, 2);
    tcase_add_test(core, a_hook_that_leaves_indices_out_is_reported);
    tcase_add_loop_test(core, bodies_run_in_the_default_environment_on_the_librarys_threads, 0,
                        3 * STRANGE);
    tcase_add_loop_test(core, bodies_run_in_the_default_environment_on_the_callers_threads, 0,
                        2 * STRANGE);
    tcase_add_loop_test(core, entering_and_leaving_gives_the_host_its_own, 0, STRANGE);
    tcase_add_loop_test(core, what_a_callback_leaves_behind_is_not_computed_in, 0, STRANGE);
    tcase_add_test(core, the_samples_see_a_strange_environment);
    suite_add_tcase(suite, core);
    return run_suite(suite);
}
