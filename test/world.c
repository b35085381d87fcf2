/* world.c - see world.h. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "world.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

world *world_new(size_t shared_bytes)
{
    world *w = mmap(NULL, sizeof(world) + shared_bytes, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    ck_assert_ptr_ne(w, MAP_FAILED);
    w->shared_bytes = shared_bytes;
    return w;
}

void world_free(world *w)
{
    munmap(w, sizeof(world) + w->shared_bytes);
}

/* ---- the processes ---------------------------------------------------------------- */

static void start(world *w, int size, int fail_at)
{
    pthread_barrierattr_t shared;

    ck_assert_int_le(size, WORLD_RANKS);
    w->size = size;
    w->fail_at = fail_at;
    memset(w->calls, 0, sizeof(w->calls));
    memset(w->complaint, 0, sizeof(w->complaint));
    ck_assert_int_eq(pthread_barrierattr_init(&shared), 0);
    ck_assert_int_eq(pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED), 0);
    ck_assert_int_eq(pthread_barrier_init(&w->barrier, &shared, (unsigned)size), 0);
    pthread_barrierattr_destroy(&shared);
}

/* A rank that failed leaves the others in the barrier: end those at once. */
static void end_all(const pid_t *ranks, int size)
{
    for (int rank = 0; rank < size; rank++)
        if (ranks[rank] > 0)
            kill(ranks[rank], SIGKILL);
    while (wait(NULL) > 0) {
    }
}

static void collect(world *w, pid_t *ranks, int size)
{
    for (int left = size; left > 0; left--) {
        int status = 0, rank = 0;
        const pid_t pid = wait(&status);
        while (rank < size && ranks[rank] != pid)
            rank++;
        ck_assert_int_lt(rank, size);
        ranks[rank] = 0;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            continue;
        end_all(ranks, size);
        ck_abort_msg("rank %d of %d ended with %s %d. %s", rank, size,
                     WIFSIGNALED(status) ? "signal" : "status",
                     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
                     w->complaint[rank]);
    }
}

void world_run(world *w, int size, int fail_at, void (*body)(world *w, int rank, void *user),
               void *user)
{
    pid_t ranks[WORLD_RANKS] = { 0 };

    start(w, size, fail_at);
    fflush(stdout);
    fflush(stderr);
    for (int rank = 0; rank < size; rank++) {
        ranks[rank] = fork();
        ck_assert_int_ge(ranks[rank], 0);
        if (ranks[rank] == 0) {
            alarm(WORLD_SECONDS);
            body(w, rank, user);
            _exit(0);
        }
    }
    collect(w, ranks, size);
    pthread_barrier_destroy(&w->barrier);
}

/* ---- the callback ----------------------------------------------------------------- */

static world *here;
static int my_rank;

static void complain(const char *what, size_t i)
{
    (void)snprintf(here->complaint[my_rank], sizeof(here->complaint[0]),
                   "all_reduce, call %d: %s, entry %zu", here->calls[my_rank], what, i);
    _exit(3);
}

/* Every rank's array is zeros but for a part that no other rank has. */
static void check_rows(size_t count)
{
    for (int rank = 0; rank < here->size; rank++)
        if (here->counts[rank] != count)
            complain("ranks bring arrays of different length", count);
    for (size_t i = 0; i < count; i++) {
        int owners = 0;
        for (int rank = 0; rank < here->size; rank++)
            owners += here->values[rank][i] != 0.0; /* a NaN too */
        if (owners > 1)
            complain("nonzero on more than one rank", i);
    }
}

/* Adds in an order of its own, starting with itself. */
static void add_rows(double *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        double sum = here->values[my_rank][i];
        for (int k = 1; k < here->size; k++)
            sum += here->values[(my_rank + k) % here->size][i];
        values[i] = sum;
    }
}

static int32_t reduce(void *user, double *values, size_t count, void *stream)
{
    ck_assert_ptr_eq(user, here);
    here->calls[my_rank]++;
    if (stream != NULL || count > WORLD_DOUBLES)
        complain("a stream, or more numbers than thought", count);
    memcpy(here->values[my_rank], values, count * sizeof(double));
    here->counts[my_rank] = count;
    pthread_barrier_wait(&here->barrier);
    if (here->calls[my_rank] == here->fail_at) { /* halfway, with rubbish left behind */
        for (size_t i = 0; i < count; i += 2)
            values[i] = -1e300;
        pthread_barrier_wait(&here->barrier);
        return 7;
    }
    check_rows(count);
    add_rows(values, count);
    pthread_barrier_wait(&here->barrier);
    return 0;
}

gradreg_all_reduce world_reduce(world *w, int rank)
{
    const gradreg_all_reduce hook = { reduce, w, 0, 0, NULL };

    here = w;
    my_rank = rank;
    return hook;
}
