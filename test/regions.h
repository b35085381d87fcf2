/* regions.h - loops whose bodies leave marks: what the suites of the thread pool share.
 *
 * Bodies run on threads that Check does not know, so they never assert: the test looks at what
 * they left when the region has ended. */
#ifndef GRADREG_TEST_REGIONS_H
#define GRADREG_TEST_REGIONS_H

#include <pthread.h>
#include <stdatomic.h>

#include "support.h"

/* A context with so many threads. log may be NULL. */
gradreg_context *open_pool(int threads, log_collector *log);
/* As gradreg_context_info() says. */
int threads_of(const gradreg_context *context);

enum { MARKS = 1000 };

/* How often each index ran, and on which threads. */
struct marks {
    _Atomic int ran[MARKS];
    _Atomic int elsewhere; /* indices that did not run on `caller` */
    pthread_t caller;
};

/* One region; 0 when every index below `count`, and no other, ran once. */
int run_and_compare(gradreg_context *context, size_t count, struct marks *marks);

/* Long beside any pause of a busy machine: who has not come by then is not coming. */
enum { MEETING_SECONDS = 40 };

/* Each index waits until all of them have come: `expected` threads are at work at once. */
struct meeting {
    pthread_mutex_t mutex;
    pthread_cond_t all_here;
    int expected, here, alone; /* alone: gave up waiting */
};

#define MEETING_OF(count)                                                \
    {                                                                    \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, count, 0, 0 \
    }

/* A body, whose task is a meeting; also to be called by threads outside the pool. */
void meet(void *meeting, size_t index);
/* One region; 0 when `count` threads of the context met. */
int meet_on(gradreg_context *context, int count);

#endif
