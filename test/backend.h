/* backend.h - which backend the suites run on: the CPU, or what GRADREG_TEST_BACKEND names.
 *
 * In: GRADREG_TEST_BACKEND=cuda, with the module that GRADREG_CUDA_MODULE names, on a device that
 * reaches the host's pageable memory (an emulated one with GRADREG_EMULATED_PAGEABLE=1, or a machine
 * with heterogeneous memory management). Out: the suites' contexts are on that device, and every
 * assertion of support.h on a call waits until what the call queued is done, so that the next line
 * may read it. Buffers are the suites' own, guarded, from malloc.
 *
 * A test that is about the CPU alone says so in its first line: LEAVE_OUT_ON_CUDA("why"). How many
 * tests opened contexts on the device, and how many were left out, is printed at the end. */
#ifndef GRADREG_TEST_BACKEND_H
#define GRADREG_TEST_BACKEND_H

#include <check.h>
#include <stdbool.h>

#include "gradreg.h"

bool on_cuda(void);

/* gradreg_context_create() on this backend, where the parameters (NULL: defaults) leave it open. */
gradreg_status test_context_create(gradreg_context **out, const gradreg_context_params *params);

/* Nothing that was queued is under way any more. On the CPU nothing ever is. */
void backend_wait(void);

/* tcase_add_loop_test(), or, with GRADREG_TEST_EVERY=N, one in N of these tests: an emulated device is
 * slow. A prime keeps combinations mixed. */
void add_loop_test(TCase *tests, const TTest *test, int begin, int end);

#define LEAVE_OUT_ON_CUDA(why)                 \
    do {                                       \
        if (backend_leaves_out(__func__, why)) \
            return;                            \
    } while (0)
bool backend_leaves_out(const char *test, const char *why);

/* Around a run of a suite; the counts are those of all processes. False: nothing ran on the device
 * although it should have. */
void backend_open(void);
bool backend_close(int tests);

#endif
