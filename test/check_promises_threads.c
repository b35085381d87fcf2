/* check_promises_threads.c - the part of the promises for threads: how much stack they need, whose
 * affinity and what name workers have, a handle that a fork leaves busy, and calls of the system that
 * a pool needs, failing.
 *
 * Bodies run on threads that Check does not know: they leave marks, which the test looks at. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* affinity, names of threads, MAP_STACK */
#endif
#include "promises.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "context.h"
#include "regions.h"
#include "rig.h"

/* ---- the system's calls, by --wrap ------------------------------------------------- */

enum system_call { MUTEX_INIT, COND_INIT, SIGMASK, AFFINITY, PROCESSORS, SYSTEM_CALLS };
static _Atomic int fail_at[SYSTEM_CALLS], /* the how many-th; -1: all */
    calls[SYSTEM_CALLS];

static bool shall_fail(enum system_call call)
{
    const int nth = atomic_fetch_add(&calls[call], 1) + 1;
    const int failing = atomic_load(&fail_at[call]);
    return failing == -1 || nth == failing;
}

static void make_fail(enum system_call call, int which)
{
    for (int i = 0; i < SYSTEM_CALLS; i++) {
        atomic_store(&calls[i], 0);
        atomic_store(&fail_at[i], i == (int)call ? which : 0);
    }
}

int __real_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __real_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attributes);
int __real_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);
int __real_sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *set);
long __real_sysconf(int name);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attributes);
int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);
int __wrap_sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *set);
long __wrap_sysconf(int name);

int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes)
{
    return shall_fail(MUTEX_INIT) ? ENOMEM : __real_pthread_mutex_init(mutex, attributes);
}

int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attributes)
{
    return shall_fail(COND_INIT) ? ENOMEM : __real_pthread_cond_init(cond, attributes);
}

int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    return shall_fail(SIGMASK) ? EINVAL : __real_pthread_sigmask(how, set, old);
}

int __wrap_sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *set)
{
    if (!shall_fail(AFFINITY))
        return __real_sched_getaffinity(process, bytes, set);
    errno = EINVAL;
    return -1;
}

long __wrap_sysconf(int name)
{
    return shall_fail(PROCESSORS) ? -1 : __real_sysconf(name);
}

/* Each call that a pool needs, in turn: the work is done on the calling thread, and the log says so. */
static const struct pool_need {
    enum system_call call;
    int which;
} pool_needs[] = { { MUTEX_INIT, 1 }, { COND_INIT, 1 }, { COND_INIT, 2 }, { SIGMASK, 1 } };
enum { POOL_NEEDS = sizeof(pool_needs) / sizeof(pool_needs[0]) };

START_TEST(a_pool_that_cannot_be_made_leaves_the_work_to_the_caller)
{
    static struct marks marks;
    log_collector log = { 0 };
    gradreg_context *context = open_pool(3, &log);

    make_fail(pool_needs[_i].call, pool_needs[_i].which);
    for (int repeat = 0; repeat < 3; repeat++) {
        ck_assert_int_eq(run_and_compare(context, 100, &marks), 0);
        ck_assert_int_eq(atomic_load(&marks.elsewhere), 0);
    }
    ck_assert_int_eq(calls[pool_needs[_i].call], pool_needs[_i].which); /* not tried again */
    ck_assert_int_eq(threads_of(context), 1);
    ck_assert_uint_eq(log.count, 1);
    ck_assert(log_has(&log, "only 1 of 3 threads"));
    assert_ok(gradreg_context_destroy(context));
    make_fail(MUTEX_INIT, 0);
}
END_TEST

/* Where affinity cannot be had, processors are counted; where neither is known, one. */
START_TEST(the_number_of_threads_has_a_second_and_a_last_resort)
{
    make_fail(AFFINITY, -1);
    const int counted = gradreg_i_usable_threads();
    ck_assert_int_eq(calls[PROCESSORS], 1);
    ck_assert_int_ge(counted, 1);
    ck_assert_int_eq(counted, (int)sysconf(_SC_NPROCESSORS_ONLN));
    fail_at[PROCESSORS] = -1;
    ck_assert_int_eq(gradreg_i_usable_threads(), 1);
    gradreg_context *context = open_pool(0, NULL);
    ck_assert_int_eq(threads_of(context), 1);
    assert_ok(gradreg_context_destroy(context));
    make_fail(MUTEX_INIT, 0);
}
END_TEST

/* ---- stacks ------------------------------------------------------------------------- */

/* A sanitizer's frames are wider: there the work is done, and nothing measured. */
#if TEST_UNDER_TSAN || defined(__SANITIZE_ADDRESS__)
#define MEASURE_STACKS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEASURE_STACKS 0
#endif
#endif
#ifndef MEASURE_STACKS
#define MEASURE_STACKS 1
#endif

enum { STACK_BYTES = 1 << 20, PROMISED_BYTES = 256 * 1024, HELPERS = 2 };

struct helper {
    char *stack;
    size_t count, begin;
    void (*body)(void *task, size_t index);
    void *task;
};
static struct helper helpers[HELPERS];
static size_t deepest; /* bytes of a helper's stack that were written */

static void *help(void *argument)
{
    const struct helper *self = argument;
    for (size_t i = self->begin; i < self->count; i += HELPERS)
        self->body(self->task, i);
    return NULL;
}

/* All of the work on threads whose stacks were painted before. */
static void on_painted_stacks(void *user, size_t count, void (*body)(void *task, size_t index),
                              void *task)
{
    pthread_t threads[HELPERS];
    int *failed = user;

    for (size_t h = 0; h < HELPERS; h++) {
        struct helper *self = &helpers[h];
        pthread_attr_t attributes;
        *self = (struct helper){ self->stack, count, h, body, task };
        *failed |= pthread_attr_init(&attributes);
        if (MEASURE_STACKS)
            *failed |= pthread_attr_setstack(&attributes, self->stack, STACK_BYTES);
        *failed |= pthread_create(&threads[h], &attributes, help, self);
        (void)pthread_attr_destroy(&attributes);
    }
    for (size_t h = 0; h < HELPERS; h++) {
        size_t untouched = 0;
        *failed |= pthread_join(threads[h], NULL);
        while (MEASURE_STACKS && untouched < STACK_BYTES && helpers[h].stack[untouched] == 0x5a)
            untouched++;
        if (MEASURE_STACKS && STACK_BYTES - untouched > deepest)
            deepest = STACK_BYTES - untouched;
    }
}

enum { ROWS = 6, WIDTH = 9000, WIDE = 150000 };

static void logits_and_losses(gradreg_context *context)
{
    static float logits[ROWS * WIDTH], again[ROWS * WIDTH], numbers[4][ROWS],
        probabilities[ROWS];
    static const int32_t targets[ROWS] = { 1, 2, 3, 4, 5, 6 };
    gradreg_logits_params p = GRADREG_LOGITS_PARAMS_INIT;
    gradreg_policy_batch batch = GRADREG_POLICY_BATCH_INIT;
    gradreg_policy_gradient out = GRADREG_POLICY_GRADIENT_INIT;
    gradreg_advantage_params advantages = GRADREG_ADVANTAGE_PARAMS_INIT;
    gradreg_policy policy;
    gradreg_policy_metrics metrics = GRADREG_POLICY_METRICS_INIT;
    uint64_t state = 7;

    typed_fill(logits, GRADREG_TYPE_F32, ROWS * WIDTH, &state, 4.0);
    p.rows = ROWS, p.vocabulary = WIDTH;
    assert_ok(gradreg_logprobs_forward(context, numbers[0], numbers[1], numbers[2], logits,
                                       targets, &p));
    assert_ok(gradreg_advantages(context, numbers[3], numbers[0], ROWS, 2, &advantages));
    batch.sequences = ROWS, batch.length = 1;
    batch.logp = numbers[0], batch.advantages = numbers[3];
    out.dlogp = probabilities;
    for (size_t i = 0; gradreg_policy_preset_name(i) != NULL; i++) {
        assert_ok(gradreg_policy_preset(&policy, gradreg_policy_preset_name(i)));
        assert_ok(gradreg_policy_loss(context, &metrics, &out, &batch, &policy));
    }
    assert_ok(gradreg_logprobs_backward(context, again, logits, targets, numbers[2], numbers[1],
                                        probabilities, NULL, &p));
    assert_ok(gradreg_policy_preset(&policy, "grpo"));
    batch.logp = NULL;
    assert_ok(gradreg_policy_logits(context, &metrics, again, NULL, NULL, logits, targets,
                                    &batch, &policy, &p));
    for (int i = 0; i < ROWS * WIDTH; i++)
        again[i] = logits[i] * logits[i] + 1;
    assert_ok(gradreg_js_divergence(context, numbers[0], again, again, ROWS, WIDTH));
}

static void hidden_states(gradreg_context *context)
{
    static float hidden[ROWS * 16], weight[500 * 16], numbers[3][ROWS], dhidden[ROWS * 16],
        dweight[500 * 16];
    static const int32_t targets[ROWS] = { 1, 2, 3, 4, 5, 6 };
    gradreg_linear_params p = GRADREG_LINEAR_PARAMS_INIT;
    p.rows = ROWS, p.width = 16, p.vocabulary = 500;
    const gradreg_status status = gradreg_linear_logprobs_forward(
        context, numbers[0], numbers[1], numbers[2], hidden, weight, targets, &p);
    if (status == GRADREG_ERROR_UNSUPPORTED)
        return; /* no BLAS in this build */
    assert_ok(status);
    assert_ok(gradreg_linear_logprobs_backward(context, dhidden, dweight, hidden, weight,
                                               targets, numbers[2], numbers[1], numbers[0],
                                               NULL, &p));
}

static void probe_and_monitors(gradreg_context *context)
{
    static float rows[ROWS * WIDTH];
    const gradreg_segment segment = {
        0, ROWS * WIDTH, 0, 0, 0, GRADREG_ROLE_MLP, 0, 0, 0, { 0 }
    };
    gradreg_probe_params params = GRADREG_PROBE_PARAMS_INIT;
    gradreg_probe *probe = NULL;
    double norm;

    params.layer_count = 2;
    assert_ok(gradreg_probe_create(&probe, context, &params));
    assert_ok(gradreg_probe_inject(probe, rows, GRADREG_TYPE_F32, ROWS, WIDTH, 0, 0, 0));
    assert_ok(gradreg_probe_observe(probe, rows, GRADREG_TYPE_F32, ROWS, WIDTH, 0, 0, 0, 0));
    assert_ok(gradreg_probe_destroy(probe));
    assert_ok(gradreg_weight_delta(context, &norm, rows, rows, GRADREG_TYPE_F32, &segment, 1));
}

static void steps(gradreg_context *context, gradreg_direction direction)
{
    static float params[2 * WIDE], grads[2 * WIDE];
    const gradreg_segment segments[] = {
        { 0, WIDE, 0, 0, 0, GRADREG_ROLE_ATTENTION, 0, 0, 0, { 0 } },
        { WIDE, WIDE, 0, 0, 1, GRADREG_ROLE_MLP, 0, 0, 0, { 0 } },
    };
    gradreg_regularizer_params p = GRADREG_REGULARIZER_PARAMS_INIT;
    gradreg_buffers buffers = GRADREG_BUFFERS_INIT;
    gradreg_regularizer *reg = NULL;
    uint64_t state = 8;

    typed_fill(params, GRADREG_TYPE_F32, 2 * WIDE, &state, 1.0);
    typed_fill(grads, GRADREG_TYPE_F32, 2 * WIDE, &state, 1.0);
    p.layer_count = 2;
    p.direction = direction;
    p.difference = GRADREG_DIFFERENCE_CENTRAL;
    p.rounding = GRADREG_ROUNDING_STOCHASTIC;
    p.noise.rule = GRADREG_NOISE_RELATIVE;
    p.noise.first_layer = p.noise.last_layer = 0;
    buffers.params = params, buffers.grads = grads, buffers.count = 2 * WIDE;
    assert_ok(gradreg_regularizer_create(&reg, context, segments, 2, &p));
    for (int step = 0; step < 2; step++) {
        assert_ok(gradreg_regularizer_inject_noise(reg, &buffers));
        assert_ok(gradreg_regularizer_perturb(reg, &buffers));
        assert_ok(gradreg_regularizer_mirror(reg, &buffers));
        assert_ok(gradreg_regularizer_combine(reg, &buffers));
    }
    assert_ok(gradreg_regularizer_destroy(reg));
}

START_TEST(threads_of_the_caller_need_256_kib_of_stack)
{
    gradreg_context *context = NULL;
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    int failed = 0;

    for (size_t h = 0; h < HELPERS; h++) {
        helpers[h].stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        ck_assert(helpers[h].stack != MAP_FAILED);
        memset(helpers[h].stack, 0x5a, STACK_BYTES);
    }
    params.parallel_for.function = on_painted_stacks;
    params.parallel_for.user = &failed;
    assert_ok(gradreg_context_create(&context, &params));
    logits_and_losses(context);
    hidden_states(context);
    probe_and_monitors(context);
    steps(context, GRADREG_DIRECTION_GRADIENT);
    steps(context, GRADREG_DIRECTION_GAUSSIAN);
    assert_ok(gradreg_context_destroy(context));
    ck_assert_int_eq(failed, 0);
    printf("stack of a thread: %zu bytes used of %d\n", deepest, +PROMISED_BYTES);
    ck_assert(!MEASURE_STACKS || (deepest > 1000 && deepest <= PROMISED_BYTES));
    for (size_t h = 0; h < HELPERS; h++)
        (void)munmap(helpers[h].stack, STACK_BYTES);
}
END_TEST

/* ---- workers ------------------------------------------------------------------------ */

#if defined(__linux__)
struct look {
    struct meeting meeting; /* so that both threads take part */
    cpu_set_t allowed[2];
    char name[2][16];
    bool worker[2];
    pthread_t caller;
};

static void look_around(void *task, size_t index)
{
    struct look *look = task;
    meet(&look->meeting, index);
    (void)sched_getaffinity(0, sizeof(look->allowed[index]), &look->allowed[index]);
    (void)pthread_getname_np(pthread_self(), look->name[index], sizeof(look->name[index]));
    look->worker[index] = pthread_equal(pthread_self(), look->caller) == 0;
}

START_TEST(workers_have_the_affinity_of_their_caller_and_a_name)
{
    struct look look = { .meeting = MEETING_OF(2), .caller = pthread_self() };
    cpu_set_t before, one;
    gradreg_context *context = open_pool(2, NULL);

    CPU_ZERO(&one);
    ck_assert_int_eq(sched_getaffinity(0, sizeof(before), &before), 0);
    for (size_t cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
    gradreg_i_parallel(context, 2, look_around, &look); /* starts the worker */
    ck_assert_int_eq(sched_setaffinity(0, sizeof(before), &before), 0);
    ck_assert_int_ne(look.worker[0], look.worker[1]);
    const int worker = look.worker[1];
    ck_assert(CPU_EQUAL(&look.allowed[worker], &one));
    ck_assert_str_eq(look.name[worker], "gradreg");
    ck_assert_str_ne(look.name[1 - worker], "gradreg");
    assert_ok(gradreg_context_destroy(context));
}
END_TEST
#endif

#if defined(__GLIBC__)
struct room {
    struct meeting meeting;
    size_t stack[2];
    bool worker[2];
    pthread_t caller;
};

static void measure_room(void *task, size_t index)
{
    struct room *room = task;
    pthread_attr_t attributes;
    meet(&room->meeting, index);
    if (pthread_getattr_np(pthread_self(), &attributes) != 0)
        return;
    (void)pthread_attr_getstacksize(&attributes, &room->stack[index]);
    (void)pthread_attr_destroy(&attributes);
    room->worker[index] = pthread_equal(pthread_self(), room->caller) == 0;
}

/* ulimit -s 64, or a C library whose threads have 128 KiB. */
START_TEST(workers_have_the_stack_that_bodies_need)
{
    struct room room = { .meeting = MEETING_OF(2), .caller = pthread_self() };
    pthread_attr_t before, small;
    gradreg_context *context = open_pool(2, NULL);

    ck_assert_int_eq(pthread_getattr_default_np(&before), 0);
    ck_assert_int_eq(pthread_attr_init(&small), 0);
    ck_assert_int_eq(pthread_attr_setstacksize(&small, 1 << 16), 0);
    ck_assert_int_eq(pthread_setattr_default_np(&small), 0);
    gradreg_i_parallel(context, 2, measure_room, &room); /* starts the worker */
    ck_assert_int_eq(pthread_setattr_default_np(&before), 0);
    (void)pthread_attr_destroy(&small);
    (void)pthread_attr_destroy(&before);
    ck_assert_int_ne(room.worker[0], room.worker[1]);
    ck_assert_uint_ge(room.stack[room.worker[1]], PROMISED_BYTES);
    assert_ok(gradreg_context_destroy(context));
}
END_TEST
#endif

/* ---- fork --------------------------------------------------------------------------- */

/* A thread that is inside a call of a handle while this process forks. */
struct stay {
    gradreg_context *context;
    struct meeting arrival, departure;
    bool stays; /* not during creation */
};

static void *allocate_and_stay(void *user, size_t bytes, size_t alignment,
                               gradreg_memory memory)
{
    struct stay *stay = user;
    (void)memory;
    if (stay->stays) {
        meet(&stay->arrival, 0);
        meet(&stay->departure, 0);
    }
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void release_plain(void *user, void *pointer, size_t bytes, gradreg_memory memory)
{
    (void)user, (void)bytes, (void)memory;
    free(pointer);
}

static void *reserve(void *argument)
{
    static gradreg_status status;
    status = gradreg_context_reserve(((struct stay *)argument)->context, 1000);
    return &status;
}

static int child_finds_it_busy(const struct stay *stay)
{
    for (int repeat = 0; repeat < 3; repeat++)
        if (gradreg_context_reserve(stay->context, 0) != GRADREG_ERROR_STATE ||
            gradreg_context_destroy(stay->context) != GRADREG_ERROR_STATE)
            return 1;
    return 0;
}

START_TEST(a_handle_that_another_thread_held_stays_busy_in_the_child)
{
    struct stay stay = { NULL, MEETING_OF(2), MEETING_OF(2), false };
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;
    pthread_t thread;
    void *result;
    int ended = -1;

    params.allocator = (gradreg_allocator){ allocate_and_stay, release_plain, &stay, NULL };
    assert_ok(gradreg_context_create(&stay.context, &params));
    stay.stays = true;
    ck_assert_int_eq(pthread_create(&thread, NULL, reserve, &stay), 0);
    meet(&stay.arrival, 1);
    (void)fflush(NULL);
    const pid_t child = fork();
    if (child == 0)
        _exit(child_finds_it_busy(&stay));
    const pid_t waited = waitpid(child, &ended, 0);
    meet(&stay.departure, 1);
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    ck_assert_int_eq(waited, child);
    ck_assert_int_eq(ended, 0);
    ck_assert_int_eq(*(gradreg_status *)result, GRADREG_OK); /* the parent notices nothing */
    stay.stays = false;
    assert_ok(gradreg_context_destroy(stay.context));
}
END_TEST

TCase *promises_about_threads(void)
{
    TCase *tests = tcase_create("threads");

    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, a_pool_that_cannot_be_made_leaves_the_work_to_the_caller, 0,
                        POOL_NEEDS);
    tcase_add_test(tests, the_number_of_threads_has_a_second_and_a_last_resort);
    tcase_add_test(tests, threads_of_the_caller_need_256_kib_of_stack);
#if defined(__linux__)
    tcase_add_test(tests, workers_have_the_affinity_of_their_caller_and_a_name);
#endif
#if defined(__GLIBC__)
    tcase_add_test(tests, workers_have_the_stack_that_bodies_need);
#endif
    tcase_add_test(tests, a_handle_that_another_thread_held_stays_busy_in_the_child);
    return tests;
}
