/* regions.c - see regions.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* clock_gettime */
#endif
#include "regions.h"

#include <time.h>

#include "threads.h"

gradreg_context *open_pool(int threads, log_collector *log)
{
    gradreg_context *context = NULL;
    gradreg_context_params params = GRADREG_CONTEXT_PARAMS_INIT;

    params.threads = threads;
    if (log != NULL)
        params.log = log_hook(log, GRADREG_LOG_INFO);
    assert_ok(test_context_create(&context, &params));
    return context;
}

int threads_of(const gradreg_context *context)
{
    return info_of(context).threads;
}

static void mark(void *task, size_t index)
{
    struct marks *marks = task;
    atomic_fetch_add(&marks->ran[index], 1);
    if (!pthread_equal(pthread_self(), marks->caller))
        atomic_fetch_add(&marks->elsewhere, 1);
}

int run_and_compare(gradreg_context *context, size_t count, struct marks *marks)
{
    int wrong = 0;

    for (size_t i = 0; i < MARKS; i++)
        atomic_init(&marks->ran[i], 0);
    atomic_init(&marks->elsewhere, 0);
    marks->caller = pthread_self();
    gradreg_i_parallel(context, count, mark, marks);
    for (size_t i = 0; i < MARKS; i++)
        wrong += atomic_load(&marks->ran[i]) != (i < count);
    return wrong;
}

void meet(void *task, size_t index)
{
    struct meeting *meeting = task;
    struct timespec deadline;

    (void)index;
    (void)clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += MEETING_SECONDS;
    pthread_mutex_lock(&meeting->mutex);
    if (++meeting->here == meeting->expected)
        pthread_cond_broadcast(&meeting->all_here);
    while (meeting->here < meeting->expected && meeting->alone == 0)
        if (pthread_cond_timedwait(&meeting->all_here, &meeting->mutex, &deadline) != 0)
            meeting->alone++;
    pthread_mutex_unlock(&meeting->mutex);
}

int meet_on(gradreg_context *context, int count)
{
    struct meeting meeting = MEETING_OF(count);
    gradreg_i_parallel(context, (size_t)count, meet, &meeting);
    return meeting.alone;
}
