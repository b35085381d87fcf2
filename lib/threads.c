/* threads.c - the pool behind gradreg_i_parallel().
 *
 * In: a region (body, task, count) on the calling thread's stack. Out: every index has run once.
 * Workers join a region under the mutex and take indices from an atomic counter; the caller takes
 * indices too, then closes the region and waits for the workers that are inside. One that wakes
 * too late finds it closed, so a busy machine costs no more than the threads that came.
 *
 * fork(): memory is copied, workers are not, and a lock may be copied while held. So processes
 * have generations. What an older generation owned or started counts as free and never started,
 * and locks are made anew by the first owner of the new generation. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity, pthread_setname_np */
#endif
#include "threads.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "context.h"
#include "fpenv.h"

typedef struct gr_region {
    void (*body)(void *task, size_t index);
    void *task;
    size_t count;
    _Atomic size_t next; /* index that nobody has taken */
    _Atomic size_t ran;  /* counted for the caller's parallel_for only */
} gr_region;

/* ---- generations of processes ---------------------------------------------------- */

static _Atomic unsigned generation = 1;
static pthread_once_t watch_once = PTHREAD_ONCE_INIT;
static bool watching;

static void count_fork(void)
{
    unsigned next = atomic_load(&generation) + 1;
    atomic_store(&generation, next != 0 ? next : 1); /* 0 means nobody */
}

static void watch_forks(void)
{
    watching = pthread_atfork(NULL, NULL, count_fork) == 0;
}

/* Without notice of forks a child would wait for threads that it does not have: no pool then. */
static bool forks_are_watched(void)
{
    return pthread_once(&watch_once, watch_forks) == 0 && watching;
}

/* ---- running indices ------------------------------------------------------------- */

static void run_inline(size_t count, void (*body)(void *task, size_t index), void *task)
{
    gr_fpenv host;

    gradreg_i_fp_enter(&host);
    for (size_t i = 0; i < count; i++)
        body(task, i);
    gradreg_i_fp_leave(&host);
}

static void run_share(gr_region *region)
{
    gr_fpenv host;
    size_t i;

    gradreg_i_fp_enter(&host);
    while ((i = atomic_fetch_add_explicit(&region->next, 1, memory_order_relaxed)) <
           region->count)
        region->body(region->task, i);
    gradreg_i_fp_leave(&host);
}

static void *work(void *argument)
{
    gr_pool *pool = argument;
    unsigned seen = 0; /* rounds start at 1 */

    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        while (!pool->stop && (pool->region == NULL || pool->round == seen))
            pthread_cond_wait(&pool->wake, &pool->mutex);
        if (pool->stop)
            break;
        gr_region *region = pool->region;
        seen = pool->round;
        pool->active++;
        pthread_mutex_unlock(&pool->mutex);

        run_share(region);

        pthread_mutex_lock(&pool->mutex);
        if (--pool->active == 0)
            pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

/* ---- the pool -------------------------------------------------------------------- */

void gradreg_i_pool_init(gr_pool *pool, int threads)
{
    assert(threads >= 1 && threads <= GR_THREADS_LIMIT);
    atomic_init(&pool->owner, 0);
    atomic_init(&pool->threads, threads);
    pool->born = 0;
    pool->worker_count = 0;
}

/* False when a region of this process is in the pool. */
static bool take_pool(gr_pool *pool)
{
    const unsigned now = atomic_load(&generation);
    unsigned owner = atomic_load(&pool->owner);

    return owner != now && atomic_compare_exchange_strong(&pool->owner, &owner, now);
}

enum { WORKER_STACK = 1 << 20 };

/* A body needs up to 256 KiB. Threads have what RLIMIT_STACK says by default, or 128 KiB. */
static bool give_stack(pthread_attr_t *attributes)
{
    size_t bytes;
    return pthread_attr_getstacksize(attributes, &bytes) == 0 &&
           (bytes >= WORKER_STACK || pthread_attr_setstacksize(attributes, WORKER_STACK) == 0);
}

static void start_worker(gr_pool *pool)
{
    pthread_t *worker = &pool->workers[pool->worker_count];
    pthread_attr_t attributes;

    if (pthread_attr_init(&attributes) != 0)
        return;
    const bool started =
        give_stack(&attributes) && pthread_create(worker, &attributes, work, pool) == 0;
    pthread_attr_destroy(&attributes);
    if (!started)
        return;
    pool->worker_count++;
#if defined(__linux__)
    (void)pthread_setname_np(*worker, "gradreg");
#endif
}

/* Signals belong to the host's threads: workers start with all of them blocked. */
static void start_workers(gr_pool *pool)
{
    const int wanted = atomic_load(&pool->threads) - 1;
    sigset_t all, before;

    sigfillset(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0)
        return;
    for (int i = 0; i < wanted && pool->worker_count == i; i++)
        start_worker(pool);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static bool make_locks(gr_pool *pool)
{
    if (pthread_mutex_init(&pool->mutex, NULL) != 0)
        return false;
    if (pthread_cond_init(&pool->wake, NULL) == 0) {
        if (pthread_cond_init(&pool->done, NULL) == 0)
            return true;
        pthread_cond_destroy(&pool->wake);
    }
    pthread_mutex_destroy(&pool->mutex);
    return false;
}

static void destroy_locks(gr_pool *pool)
{
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
}

/* By the owner, in a pool that this process has not started yet. */
static void start_pool(gradreg_context *context)
{
    gr_pool *pool = &context->pool;
    const int wanted = atomic_load(&pool->threads);

    pool->worker_count = 0;
    pool->region = NULL;
    pool->round = 0;
    pool->active = 0;
    pool->stop = false;
    pool->born = atomic_load(&generation);
    if (forks_are_watched() && make_locks(pool)) {
        start_workers(pool);
        if (pool->worker_count == 0)
            destroy_locks(pool);
    }
    if (pool->worker_count < wanted - 1) {
        atomic_store(&pool->threads, 1 + pool->worker_count);
        gradreg_i_log(context, GRADREG_LOG_WARNING,
                      "only %d of %d threads could be started; results are the same",
                      1 + pool->worker_count, wanted);
    }
}

/* As many as there are indices beside the caller's own. With the mutex held, so that a worker that
 * came by itself and is done already cannot swallow the call meant for another. */
static void wake_workers(gr_pool *pool, size_t count)
{
    if (count > (size_t)pool->worker_count)
        pthread_cond_broadcast(&pool->wake);
    else
        for (size_t i = 1; i < count; i++)
            pthread_cond_signal(&pool->wake);
}

/* The region is on this stack and workers are in it: a host that cancels this thread must wait. */
static void run_pooled(gr_pool *pool, gr_region *region)
{
    int cancelable;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancelable);
    pthread_mutex_lock(&pool->mutex);
    pool->region = region;
    pool->round++;
    wake_workers(pool, region->count);
    pthread_mutex_unlock(&pool->mutex);

    run_share(region);

    pthread_mutex_lock(&pool->mutex);
    pool->region = NULL;
    while (pool->active > 0)
        pthread_cond_wait(&pool->done, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
    pthread_setcancelstate(cancelable, NULL);
}

void gradreg_i_pool_destroy(gr_pool *pool)
{
    /* Another generation's threads are in another process, and its locks may be held there. */
    if (pool->born != atomic_load(&generation) || pool->worker_count == 0)
        return;
    pthread_mutex_lock(&pool->mutex);
    pool->stop = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->worker_count; i++)
        pthread_join(pool->workers[i], NULL);
    destroy_locks(pool);
    pool->worker_count = 0;
    pool->born = 0;
}

int gradreg_i_usable_threads(void)
{
    long count = 0;
#if defined(__linux__)
    cpu_set_t sets[8]; /* 8192 processors; one set alone fails on larger machines */
    if (sched_getaffinity(0, sizeof(sets), sets) == 0)
        count = CPU_COUNT_S(sizeof(sets), sets);
#endif
    if (count < 1)
        count = sysconf(_SC_NPROCESSORS_ONLN);
    if (count < 1)
        return 1;
    return count < GR_THREADS_LIMIT ? (int)count : GR_THREADS_LIMIT;
}

/* ---- the caller's own threads ---------------------------------------------------- */

static void run_hooked(void *argument, size_t index)
{
    gr_region *region = argument;
    gr_fpenv host;

    if (index >= region->count)
        return;
    gradreg_i_fp_enter(&host);
    region->body(region->task, index);
    gradreg_i_fp_leave(&host);
    atomic_fetch_add_explicit(&region->ran, 1, memory_order_relaxed);
}

static void run_with_hook(gradreg_context *context, gr_region *region)
{
    const gradreg_parallel_for *hook = &context->params.parallel_for;
    const char *function = gradreg_i_entered();
    gr_fpenv own;

    gradreg_i_fp_keep(&own);
    hook->function(hook->user, region->count, run_hooked, region);
    gradreg_i_fp_leave(&own);
    gradreg_i_enter(function);
    const size_t ran = atomic_load(&region->ran);
    if (ran != region->count)
        gradreg_i_log(context, GRADREG_LOG_ERROR,
                      "parallel_for ran %zu indices of %zu: the results are wrong", ran,
                      region->count);
}

/* ---- the entry ------------------------------------------------------------------- */

void gradreg_i_parallel(gradreg_context *context, size_t count,
                        void (*body)(void *task, size_t index), void *task)
{
    gr_pool *pool = &context->pool;

    if (count > 1 && context->params.parallel_for.function != NULL) {
        gr_region region = { body, task, count, 0, 0 };
        run_with_hook(context, &region);
        return;
    }
    if (count <= 1 || atomic_load(&pool->threads) == 1) {
        run_inline(count, body, task);
        return;
    }
    /* Before the pool is taken: a child that nobody had told of its birth would find it taken for ever. */
    (void)forks_are_watched();
    if (!take_pool(pool)) {
        run_inline(count, body, task);
        return;
    }
    if (pool->born != atomic_load(&generation))
        start_pool(context);
    if (pool->worker_count > 0) {
        gr_region region = { body, task, count, 0, 0 };
        run_pooled(pool, &region);
    } else {
        run_inline(count, body, task);
    }
    atomic_store(&pool->owner, 0);
}
