/* check_threads.c - gradreg_i_parallel(): who runs what, and when workers start and end.
 *
 * Bodies never use Check's assertions: they run on threads that Check does not know. They leave
 * marks, which the test looks at afterwards. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_setaffinity */
#endif
#include "threads.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "context.h"
#include "regions.h"
#include "support.h"

/* ---- faults of the system, by --wrap ---------------------------------------------- */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);

static int creations_allowed = -1; /* -1: all */
static int creations_refused;

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument)
{
    if (creations_allowed == 0) {
        creations_refused++;
        return EAGAIN;
    }
    if (creations_allowed > 0)
        creations_allowed--;
    return __real_pthread_create(thread, attributes, start, argument);
}

/* ---- every index once ------------------------------------------------------------- */

static const size_t counts[] = { 0, 1, 2, 3, 4, 5, 31, 64, 999, 1000 };
static const int thread_counts[] = { 1, 2, 3, 4, 8, 40 };
enum { COUNTS = 10, THREAD_COUNTS = 6 };

START_TEST(every_index_runs_exactly_once)
{
    static struct marks marks;
    gradreg_context *context = open_pool(thread_counts[_i], NULL);

    for (int repeat = 0; repeat < 20; repeat++)
        for (size_t c = 0; c < COUNTS; c++)
            ck_assert_int_eq(run_and_compare(context, counts[c], &marks), 0);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(as_many_threads_work_as_were_asked_for)
{
    gradreg_context *context = open_pool(_i, NULL);

    ck_assert_int_eq(threads_of(context), _i);
    for (int repeat = 0; repeat < 20; repeat++)
        for (int count = 1; count <= _i; count++)
            ck_assert_int_eq(meet_on(context, count), 0);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

START_TEST(many_short_regions)
{
    static struct marks marks;
    gradreg_context *context = open_pool(4, NULL);

    for (int repeat = 0; repeat < 3000; repeat++)
        ck_assert_int_eq(run_and_compare(context, 2 + (size_t)repeat % 5, &marks), 0);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- laziness --------------------------------------------------------------------- */

#if defined(__linux__)
static int tasks(void)
{
    DIR *directory = opendir("/proc/self/task");
    int count = -2; /* . and .. */
    while (readdir(directory) != NULL)
        count++;
    (void)closedir(directory);
    return count;
}

/* A joined thread may stay listed for a moment. */
static int tasks_settle_at(int wanted)
{
    const struct timespec moment = { 0, 2000000 };
    for (int i = 0; i < 10000 && tasks() != wanted; i++)
        (void)nanosleep(&moment, NULL);
    return tasks();
}

static void *nothing(void *argument)
{
    return argument;
}

/* A sanitizer's own thread comes with the first one. */
static void start_and_end_a_thread(void)
{
    pthread_t thread;
    ck_assert_int_eq(__real_pthread_create(&thread, NULL, nothing, NULL), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}

START_TEST(threads_start_when_they_are_needed_and_end_with_the_context)
{
    static struct marks marks;
    start_and_end_a_thread();
    const int before = tasks_settle_at(1 + TEST_UNDER_TSAN);
    gradreg_context *context = open_pool(3, NULL);

    ck_assert_int_eq(run_and_compare(context, 0, &marks), 0);
    ck_assert_int_eq(run_and_compare(context, 1, &marks), 0);
    ck_assert_int_eq(tasks(), before);
    ck_assert_int_eq(run_and_compare(context, 2, &marks), 0);
    ck_assert_int_eq(tasks(), before + 2);
    ck_assert_int_eq(run_and_compare(context, 1000, &marks), 0);
    ck_assert_int_eq(tasks(), before + 2);
    assert_ok(gradreg_context_destroy(context));
    ck_assert_int_eq(tasks_settle_at(before), before);
}
END_TEST

START_TEST(the_default_is_what_affinity_allows)
{
    cpu_set_t before, one;
    CPU_ZERO(&one);
    ck_assert_int_eq(sched_getaffinity(0, sizeof(before), &before), 0);
    ck_assert_int_eq(gradreg_i_usable_threads(), CPU_COUNT(&before));
    for (size_t cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
    gradreg_context *context = open_pool(0, NULL);
    ck_assert_int_eq(sched_setaffinity(0, sizeof(before), &before), 0);
    ck_assert_int_eq(threads_of(context), 1);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST
#endif

START_TEST(one_thread_means_the_callers)
{
    static struct marks marks;
    gradreg_context *context = open_pool(1, NULL);

    ck_assert_int_eq(run_and_compare(context, 1000, &marks), 0);
    ck_assert_int_eq(atomic_load(&marks.elsewhere), 0);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- threads that cannot be had --------------------------------------------------- */

START_TEST(fewer_threads_do_when_the_system_has_no_more)
{
    static struct marks marks;
    log_collector log = { 0 };
    gradreg_context *context = open_pool(5, &log);

    creations_allowed = _i;
    for (int repeat = 0; repeat < 20; repeat++)
        ck_assert_int_eq(run_and_compare(context, 100, &marks), 0);
    creations_allowed = -1;
    ck_assert_int_eq(creations_refused, _i < 4); /* not tried again */
    ck_assert_int_eq(threads_of(context), 1 + _i);
    ck_assert_uint_eq(log.count, _i < 4);
    if (_i < 4) {
        char remark[32];
        (void)snprintf(remark, sizeof(remark), "only %d of 5 threads", 1 + _i);
        ck_assert(log_has(&log, remark));
    }
    ck_assert_int_eq(meet_on(context, 1 + _i), 0);
    creations_refused = 0;
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* ---- several regions at once ------------------------------------------------------ */

struct nested {
    gradreg_context *context;
    struct meeting meeting; /* so that workers are in the outer region, too */
    struct marks marks[3];
    _Atomic int wrong;
};

static void nest(void *task, size_t index)
{
    struct nested *nested = task;
    meet(&nested->meeting, index);
    atomic_fetch_add(&nested->wrong,
                     run_and_compare(nested->context, 50, &nested->marks[index]) != 0);
}

START_TEST(a_body_may_start_a_region)
{
    static struct nested nested;

    nested.context = open_pool(3, NULL);
    for (int repeat = 0; repeat < 20; repeat++) {
        nested.meeting = (struct meeting)MEETING_OF(3);
        gradreg_i_parallel(nested.context, 3, nest, &nested);
        ck_assert_int_eq(nested.meeting.alone, 0);
        ck_assert_int_eq(atomic_load(&nested.wrong), 0);
    }
    assert_ok(gradreg_context_destroy(nested.context));
}
END_TEST

struct user {
    gradreg_context *context;
    struct marks marks;
    int wrong;
};

static void *use(void *argument)
{
    struct user *user = argument;
    for (int repeat = 0; repeat < 300; repeat++)
        user->wrong += run_and_compare(user->context, 20, &user->marks);
    return NULL;
}

/* _i 0: one context for all; 1: each its own. */
START_TEST(threads_of_the_host_do_not_disturb_each_other)
{
    static struct user users[3];
    pthread_t threads[3];

    users[0].context = open_pool(3, NULL);
    for (int i = 0; i < 3; i++) {
        users[i].wrong = 0;
        users[i].context = _i == 0 || i == 0 ? users[0].context : open_pool(3, NULL);
        ck_assert_int_eq(__real_pthread_create(&threads[i], NULL, use, &users[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        ck_assert_int_eq(users[i].wrong, 0);
    }
    for (int i = 0; i < (_i == 0 ? 1 : 3); i++)
        assert_ok(gradreg_context_destroy(users[i].context));
}
END_TEST

/* Two bodies that stay in the pool until another thread has been through it. */
struct occupation {
    gradreg_context *context;
    struct meeting arrival, departure; /* of the two bodies and the other thread */
};

static void occupy(void *task, size_t index)
{
    struct occupation *occupation = task;
    meet(&occupation->arrival, index);
    meet(&occupation->departure, index);
}

static void *occupy_the_pool(void *argument)
{
    gradreg_i_parallel(((struct occupation *)argument)->context, 2, occupy, argument);
    return NULL;
}

START_TEST(a_taken_pool_leaves_the_other_caller_to_itself)
{
    static struct marks marks;
    struct occupation occupation = { open_pool(2, NULL), MEETING_OF(3), MEETING_OF(3) };
    pthread_t thread;

    ck_assert_int_eq(__real_pthread_create(&thread, NULL, occupy_the_pool, &occupation), 0);
    meet(&occupation.arrival, 2);
    ck_assert_int_eq(run_and_compare(occupation.context, 100, &marks), 0);
    ck_assert_int_eq(atomic_load(&marks.elsewhere), 0);
    meet(&occupation.departure, 2);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(occupation.arrival.alone + occupation.departure.alone, 0);
    ck_assert_int_eq(meet_on(occupation.context, 2), 0);
    assert_ok(gradreg_context_destroy(occupation.context));
}
END_TEST

/* ---- cancellation ----------------------------------------------------------------- */

struct cancelled {
    gradreg_context *context;
    _Atomic int alone;
    _Atomic bool region_ended;
};

/* The request is pending from the start: the first wait inside the region would obey it. */
static void *ask_for_own_end(void *argument)
{
    struct cancelled *self = argument;

    (void)pthread_cancel(pthread_self());
    atomic_store(&self->alone, meet_on(self->context, 3));
    atomic_store(&self->region_ended, true);
    pthread_testcancel();
    return NULL;
}

START_TEST(a_cancelled_thread_ends_its_region_first)
{
    struct cancelled cancelled = { .context = open_pool(3, NULL) };
    pthread_t thread;
    void *result;

    for (int repeat = 0; repeat < 20; repeat++) {
        atomic_store(&cancelled.region_ended, false);
        ck_assert_int_eq(__real_pthread_create(&thread, NULL, ask_for_own_end, &cancelled), 0);
        ck_assert_int_eq(pthread_join(thread, &result), 0);
        ck_assert_ptr_eq(result, PTHREAD_CANCELED);
        ck_assert(atomic_load(&cancelled.region_ended));
        ck_assert_int_eq(atomic_load(&cancelled.alone), 0);
    }
    ck_assert_int_eq(meet_on(cancelled.context, 3), 0);
    assert_ok(gradreg_context_destroy(cancelled.context));
}
END_TEST

/* ---- signals ---------------------------------------------------------------------- */

struct masks {
    sigset_t of[2];
    bool own[2];
    pthread_t caller;
    struct meeting meeting;
};

static void look_at_mask(void *task, size_t index)
{
    struct masks *masks = task;
    meet(&masks->meeting, index);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &masks->of[index]);
    masks->own[index] = pthread_equal(pthread_self(), masks->caller) == 0;
}

START_TEST(workers_leave_signals_to_the_host)
{
    struct masks masks = { .meeting = MEETING_OF(2) };
    gradreg_context *context = open_pool(2, NULL);

    masks.caller = pthread_self();
    gradreg_i_parallel(context, 2, look_at_mask, &masks);
    ck_assert_int_ne(masks.own[0], masks.own[1]);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(sigismember(&masks.of[i], SIGINT), masks.own[i]);
        ck_assert_int_eq(sigismember(&masks.of[i], SIGTERM), masks.own[i]);
        ck_assert_int_eq(sigismember(&masks.of[i], SIGUSR1), masks.own[i]);
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("threads");
    TCase *core = tcase_create("core");

    tcase_set_timeout(core, 60);
    tcase_add_loop_test(core, every_index_runs_exactly_once, 0, THREAD_COUNTS);
    tcase_add_loop_test(core, as_many_threads_work_as_were_asked_for, 1, 6);
    tcase_add_test(core, many_short_regions);
#if defined(__linux__)
    tcase_add_test(core, threads_start_when_they_are_needed_and_end_with_the_context);
    tcase_add_test(core, the_default_is_what_affinity_allows);
#endif
    tcase_add_test(core, one_thread_means_the_callers);
    tcase_add_loop_test(core, fewer_threads_do_when_the_system_has_no_more, 0, 5);
    tcase_add_test(core, a_body_may_start_a_region);
    tcase_add_loop_test(core, threads_of_the_host_do_not_disturb_each_other, 0, 2);
    tcase_add_test(core, a_taken_pool_leaves_the_other_caller_to_itself);
    tcase_add_test(core, a_cancelled_thread_ends_its_region_first);
    tcase_add_test(core, workers_leave_signals_to_the_host);
    suite_add_tcase(suite, core);
    return run_suite(suite);
}
