/* threads.h - one loop, spread over the threads of a context.
 *
 * In: a body and a count. Out: body(task, i) has run exactly once for every i in [0, count), on
 * whichever thread was free, each in the default floating-point environment (fpenv.h). Results
 * must not depend on who runs what.
 *
 *      caller ──► region ──► wake ──► workers ─┐
 *         └───── takes indices too ────────────┴──► all taken ──► done
 *
 * The pool starts at the first region that wants it, sleeps between regions, and ends with the
 * context. While one thread's region has it, another thread's region on the same context runs on
 * that other thread alone. After fork() the child has no worker: it starts its own. */
#ifndef GRADREG_LIB_THREADS_H
#define GRADREG_LIB_THREADS_H

#include "gradreg.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum { GR_THREADS_LIMIT = 1024 }; /* per context, the caller among them */

struct gr_region;

typedef struct gr_pool {
    /* Which generation of processes (see threads.c) has a region in the pool; 0: free. Everything
     * below belongs to the owner, and what stands under the mutex to its holder. */
    _Atomic unsigned owner;
    _Atomic int threads; /* that work, the caller among them; lowered when some cannot start */
    unsigned born;       /* the generation that started the workers; 0: none did */
    int worker_count;
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
    struct gr_region *region; /* open for workers to join, or NULL */
    unsigned round;           /* counts regions: a worker joins each at most once */
    int active;               /* workers inside the region */
    bool stop;
    pthread_t workers[GR_THREADS_LIMIT - 1];
} gr_pool;

/* Starts nothing. threads >= 1. */
void gradreg_i_pool_init(gr_pool *pool, int threads);

/* Ends and joins the workers, if this process has any. No region may be in it. */
void gradreg_i_pool_destroy(gr_pool *pool);

/* How many threads this process may use: at least 1, at most GR_THREADS_LIMIT. */
int gradreg_i_usable_threads(void);

/* Runs the loop. count 0 does nothing; count 1, one thread, or a busy pool: on this thread. A body
 * may itself be called from several threads at once and may call this again. Allocates nothing
 * after the context's first region. */
void gradreg_i_parallel(gradreg_context *context, size_t count,
                        void (*body)(void *task, size_t index), void *task);

#endif
