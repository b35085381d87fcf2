/* schedule.h - how strongly each layer is regularized, for the stages that ask.
 *
 * In: a caller's schedule, in which -1, -1 may stand for the default. Out: the schedule with every
 * field decided and checked, then a multiplier per layer. */
#ifndef GRADREG_LIB_SCHEDULE_H
#define GRADREG_LIB_SCHEDULE_H

#include "gradreg.h"

/* Deepest model. */
#define GR_LAYER_COUNT_LIMIT 65536

/* Replaces first_layer = full_layer = -1 by the default for this depth and checks every field, a
 * table's values included. INVALID_ARGUMENT with a sentence in which the struct is `argument`;
 * then *inout is unchanged. */
gradreg_status gradreg_i_schedule_resolve(gradreg_schedule *inout, int32_t layer_count,
                                          const char *argument);

/* m(l) of a resolved schedule for 0 <= l < layer_count. out may be the schedule's table. */
void gradreg_i_schedule_fill(double *out, const gradreg_schedule *resolved,
                             int32_t layer_count);

#endif
