/* timing.h - where a step's time goes. */
#ifndef STUDY_TIMING_H
#define STUDY_TIMING_H

#include <gradreg.h>

#include "options.h"

int timing(const struct options *options, gradreg_context *context);

#endif
