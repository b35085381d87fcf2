/* world.h - several real processes with one all-reduce between them.
 *
 * In: how many ranks, what each does. Out: memory that all of them and the test share, filled by
 * them; the test ends where a rank failed or did not come back in time. The callback adds the ranks'
 * rows in an order of the rank's own, and checks what the header promises about them. */
#ifndef GRADREG_TEST_WORLD_H
#define GRADREG_TEST_WORLD_H

#include <pthread.h>
#include <stddef.h>

#include "gradreg.h"

enum { WORLD_RANKS = 8, WORLD_DOUBLES = 32768, WORLD_SECONDS = 300 };

typedef struct world {
    int size;    /* ranks of the present run */
    int fail_at; /* this call of the callback fails, 1 is the first, on every rank; 0 none */
    int calls[WORLD_RANKS];
    char complaint[WORLD_RANKS][256]; /* what a rank died of, if it could say */
    pthread_barrier_t barrier;
    size_t counts[WORLD_RANKS];
    double values[WORLD_RANKS][WORLD_DOUBLES];
    size_t shared_bytes;
    char shared[]; /* the test's own */
} world;

/* Lies in shared memory, zeroed. */
world *world_new(size_t shared_bytes);
void world_free(world *w);

/* Runs body in `size` processes forked from this one, which has no threads. */
void world_run(world *w, int size, int fail_at, void (*body)(world *w, int rank, void *user),
               void *user);

/* For params.all_reduce of this rank; once per process. */
gradreg_all_reduce world_reduce(world *w, int rank);

#endif
