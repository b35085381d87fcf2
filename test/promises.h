/* promises.h - the parts of the suite of promises. */
#ifndef GRADREG_TEST_PROMISES_H
#define GRADREG_TEST_PROMISES_H

#include <check.h>

TCase *promises_about_threads(void);

#endif
