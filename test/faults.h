/* faults.h - what the suite of faults shares: the C library's allocation functions and
 * pthread_create, watched and made to fail, and counts of what was made to fail.
 *
 * In: which call fails. Out: counts, also from the processes that tests run in. */
#ifndef GRADREG_TEST_FAULTS_H
#define GRADREG_TEST_FAULTS_H

#include <check.h>
#include <stddef.h>

extern struct provoked {
    unsigned hook, library, reduce, threads;
} * provoked;

/* From here on calls of the C library's allocation functions are counted, on any thread; the one
 * numbered fail_which (1 is the first, 0 none) fails. Assertions of Check allocate: none before
 * stop_watching(). */
void watch(size_t fail_which);
/* Calls seen since watch(). */
size_t stop_watching(void);
/* Blocks taken and not given back between the two. */
long blocks_left(void);

/* So many threads can still be started. */
void allow_threads(int count);

TCase *memory_faults_case(void);
TCase *step_faults_case(void);
TCase *quiet_case(void);

#endif
