/* coverage.h - which public functions a suite has called, and which of their statuses it has seen.
 *
 * In: a note per call, also from the processes that Check forks. Out: that table held against the
 * header: every function that it declares was given a bad input, and every status that its
 * documentation names was produced. Nothing is listed here by hand, so that a new function cannot
 * be forgotten. */
#ifndef GRADREG_TEST_COVERAGE_H
#define GRADREG_TEST_COVERAGE_H

#include <stdbool.h>

#include "gradreg.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Before the suite runs: the table is shared with all child processes. */
void coverage_open(void);

/* `call` is a name or a whole call, "gradreg_f" or "gradreg_f(x, y)". `bad`: it was given
 * something that it had to refuse or to answer harmlessly. */
void coverage_note(const char *call, gradreg_status status, bool bad);

/* After it: prints what was covered and what is missing of the functions that `covers` says yes to;
 * the rest is another suite's. False if anything is missing. */
bool coverage_complete_of(const char *header_path, bool (*covers)(const char *name));

/* After a run in which a device and its libraries failed: prints what a function gave that neither its
 * documentation nor a rule at the head of the header names, and which of those that queue work or wait
 * for it never gave DEVICE, or BLAS where that is documented. `lets_go` says which release things, and
 * cannot fail. */
bool coverage_of_device(const char *header_path, bool (*lets_go)(const char *name));

#ifdef __cplusplus
}
#endif

#endif
