/* monitors_host.h - the monitors of host arrays, on any backend.
 *
 * In: checked tokens or values in host memory. Out: a share, or means. */
#ifndef GRADREG_LIB_MONITORS_HOST_H
#define GRADREG_LIB_MONITORS_HOST_H

#include <stddef.h>

#include "gradreg.h"

/* Different runs of `order` tokens over all of them, or NaN. OUT_OF_MEMORY, with a sentence. */
gradreg_status gradreg_i_distinct_ngrams(double *out, const int32_t *tokens, size_t count,
                                         size_t order);

/* The trailing mean over `window` values without the NaN among them. */
void gradreg_i_moving_average(double *out, const float *values, size_t count, size_t window);

#endif
