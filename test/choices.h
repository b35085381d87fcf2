/* choices.h - what tests walk through: the last constant of enumerations that grow, and the types.
 *
 * A new constant comes in here, and every walk has it. check_choices.py holds this file, the ranges in
 * lib/ and the walks against the header. */
#ifndef GRADREG_TEST_CHOICES_H
#define GRADREG_TEST_CHOICES_H

#include "gradreg.h"

enum {
    LAST_TYPE = GRADREG_TYPE_F16,
    LAST_STEP = GRADREG_STEP_RELATIVE,
    LAST_RATIO_LEVEL = GRADREG_RATIO_SEQUENCE_TOKEN,
    LAST_SURROGATE = GRADREG_SURROGATE_PLAIN,
    LAST_KL = GRADREG_KL_ABS,
    LAST_AGGREGATION = GRADREG_AGGREGATE_PROMPT_MEAN,
    LAST_ROLLOUT_MODE = GRADREG_ROLLOUT_SEQUENCE_MASK
};

static const gradreg_type all_types[LAST_TYPE] = { GRADREG_TYPE_F32, GRADREG_TYPE_BF16,
                                                   GRADREG_TYPE_F16 };

/* Every type of weights, with f32 gradients and with its own. */
enum { TYPE_PAIRS = 2 * LAST_TYPE - 1 };
static const struct type_pair {
    gradreg_type param, grad;
} type_pairs[TYPE_PAIRS] = {
    { GRADREG_TYPE_F32, GRADREG_TYPE_F32 },   { GRADREG_TYPE_BF16, GRADREG_TYPE_F32 },
    { GRADREG_TYPE_BF16, GRADREG_TYPE_BF16 }, { GRADREG_TYPE_F16, GRADREG_TYPE_F32 },
    { GRADREG_TYPE_F16, GRADREG_TYPE_F16 },
};

#endif
