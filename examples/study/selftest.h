/* selftest.h - is what the study computes right? */
#ifndef STUDY_SELFTEST_H
#define STUDY_SELFTEST_H

#include <gradreg.h>
#include <stdbool.h>

/* base: a checkpoint to run from. */
bool selftest(gradreg_context *context, const char *base);

#endif
