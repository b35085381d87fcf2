/* selftest.h - is what this program measures right? Each check prints one line. */
#ifndef FLATNESS_SELFTEST_H
#define FLATNESS_SELFTEST_H

#include <gradreg.h>
#include <stdbool.h>

/* false if any check failed. */
bool selftest(gradreg_context *context);

#endif
