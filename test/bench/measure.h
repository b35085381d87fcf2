/* measure.h - what the benchmark programs share: the clock, and an end where there is nothing to measure.
 *
 * In: a status, a number of bytes. Out: the time since some moment; zeroed memory; exit status 2 and a
 * sentence where something failed. Needs clock_gettime(). */
#ifndef GRADREG_TEST_BENCH_MEASURE_H
#define GRADREG_TEST_BENCH_MEASURE_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "gradreg.h"

static inline double nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline double milliseconds(void)
{
    return nanoseconds() * 1e-6;
}

static inline void require(gradreg_status status)
{
    if (status == GRADREG_OK)
        return;
    fprintf(stderr, "%s\n", gradreg_last_error());
    exit(2);
}

static inline void *allocate(size_t bytes)
{
    void *memory = calloc(1, bytes + 1);
    if (memory == NULL)
        exit(2);
    return memory;
}

#endif
