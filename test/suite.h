/* suite.h - a Check suite as a program, where support.h's run_suite() will not do.
 *
 * In: a suite, and whether its tests may share a process. Out: what main() returns. */
#ifndef GRADREG_TEST_SUITE_H
#define GRADREG_TEST_SUITE_H

#include <check.h>
#include <stdlib.h>

/* CK_FORK_GETENV: as the environment says. */
static inline int run_plainly(Suite *suite, enum fork_status forks)
{
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, forks);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
