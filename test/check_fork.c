/* check_fork.c - a pool after fork(): the child has its memory and none of its threads. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* fork */
#endif
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "regions.h"
#include "support.h"

/* ---- a system that gives no notice of forks, by --wrap ---------------------------- */

int __real_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

static bool atfork_fails;
static gradreg_context
    *forks_first; /* a child of its own works with this before it is noticed */
static int child_of_its_own = -1;

static int work_in_a_child(gradreg_context *context);

/* A sanitizer that is linked statically calls this before it is ready to watch anybody. */
#if defined(__has_attribute)
#if __has_attribute(disable_sanitizer_instrumentation)
__attribute__((disable_sanitizer_instrumentation))
#endif
#endif
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    if (forks_first != NULL)
        child_of_its_own = work_in_a_child(forks_first);
    return atfork_fails ? ENOMEM : __real_pthread_atfork(prepare, parent, child);
}

/* ---- children --------------------------------------------------------------------- */

/* Runs `child` in a child process, which has some minutes; 0 when it returned 0. */
static int in_child(int (*child)(gradreg_context *context), gradreg_context *context)
{
    int status = -1;

    (void)fflush(NULL);
    const pid_t process = fork();
    if (process == 0) {
        (void)alarm(4 * MEETING_SECONDS);
        _exit(child(context));
    }
    if (process < 0 || waitpid(process, &status, 0) != process)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int child_uses(gradreg_context *context)
{
    static struct marks marks;
    return meet_on(context, 3) != 0 || run_and_compare(context, 500, &marks) != 0;
}

static int child_uses_and_destroys(gradreg_context *context)
{
    return child_uses(context) != 0 || gradreg_context_destroy(context) != GRADREG_OK;
}

static int child_destroys(gradreg_context *context)
{
    return gradreg_context_destroy(context) != GRADREG_OK;
}

static int child_has_a_child(gradreg_context *context)
{
    return child_uses(context) != 0 || in_child(child_uses_and_destroys, context) != 0 ||
           child_uses_and_destroys(context) != 0;
}

static int child_exits(gradreg_context *context)
{
    (void)context;
    return 0;
}

static int child_opens_its_own(gradreg_context *context)
{
    gradreg_context *own = NULL;
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;

    (void)context;
    params.threads = 3;
    return gradreg_context_create(&own, &params) != GRADREG_OK || child_uses_and_destroys(own);
}

/* Those that start no thread first: the others are left out under ThreadSanitizer. */
static int (*const children[])(gradreg_context *context) = {
    child_exits,       child_destroys,      child_uses, child_uses_and_destroys,
    child_has_a_child, child_opens_its_own,
};
enum { CHILDREN = TEST_UNDER_TSAN ? 2 : sizeof(children) / sizeof(children[0]) };

/* What a child does in the middle of things. */
static int (*const child_works)(gradreg_context *context) = TEST_UNDER_TSAN
                                                                ? child_destroys
                                                                : child_uses_and_destroys;

START_TEST(a_forked_child_starts_its_own_threads)
{
    gradreg_context *context = open_pool(3, NULL);

    ck_assert_int_eq(in_child(children[_i], context), 0); /* before the pool has started */
    ck_assert_int_eq(meet_on(context, 3), 0);
    for (int repeat = 0; repeat < 5; repeat++) {
        ck_assert_int_eq(in_child(children[_i], context), 0);
        ck_assert_int_eq(meet_on(context, 3), 0); /* the parent's are still there */
    }
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

struct hammer {
    gradreg_context *context;
    _Atomic bool stop;
    int wrong;
};

static void *hammer(void *argument)
{
    struct hammer *self = argument;
    static struct marks marks;
    while (!atomic_load(&self->stop))
        self->wrong += run_and_compare(self->context, 4, &marks);
    return NULL;
}

/* The fork copies a pool whose locks may be held and whose region belongs to a thread that the
 * child does not have. */
START_TEST(fork_while_another_thread_is_in_the_pool)
{
    struct hammer hammering = { open_pool(3, NULL), false, 0 };
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, hammer, &hammering), 0);
    for (int repeat = 0; repeat < 40; repeat++)
        ck_assert_int_eq(in_child(child_works, hammering.context), 0);
    atomic_store(&hammering.stop, true);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(hammering.wrong, 0);
    assert_ok(gradreg_context_destroy(hammering.context));
}
END_TEST

static int child_is_not_asked_again(gradreg_context *context)
{
    forks_first = NULL;
    return child_uses_and_destroys(context);
}

static int work_in_a_child(gradreg_context *context)
{
    return in_child(child_is_not_asked_again, context);
}

/* Another thread may fork while this one's first region asks for notice of forks. */
START_TEST(a_fork_before_the_first_notice_finds_the_pool_free)
{
    if (TEST_UNDER_TSAN)
        return;
    gradreg_context *context = open_pool(3, NULL);

    forks_first = context;
    ck_assert_int_eq(meet_on(context, 3), 0);
    forks_first = NULL;
    ck_assert_int_eq(child_of_its_own, 0);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

/* In a process that has not asked for notice of forks yet. */
static int child_without_atfork(gradreg_context *context)
{
    static struct marks marks;
    atfork_fails = true;
    return run_and_compare(context, 100, &marks) != 0 || atomic_load(&marks.elsewhere) != 0 ||
           threads_of(context) != 1 || gradreg_context_destroy(context) != GRADREG_OK;
}

START_TEST(without_notice_of_forks_there_is_no_pool)
{
    log_collector log = { 0 };
    gradreg_context *context = open_pool(3, &log);

    ck_assert_int_eq(in_child(child_without_atfork, context), 0);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fork");
    TCase *core = tcase_create("core");

    tcase_set_timeout(core, 60);
    tcase_add_test(core, without_notice_of_forks_there_is_no_pool); /* first: see there */
    tcase_add_test(core, a_fork_before_the_first_notice_finds_the_pool_free); /* likewise */
    tcase_add_loop_test(core, a_forked_child_starts_its_own_threads, 0, CHILDREN);
    tcase_add_test(core, fork_while_another_thread_is_in_the_pool);
    suite_add_tcase(suite, core);
    return run_suite(suite);
}
