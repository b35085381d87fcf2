/* state_rig.h - a small regularizer, and every call on it by number.
 *
 * In: the state or the call that a suite wants. Out: the call's status, and the state that the handle is
 * in, as its own sentences have it. */
#ifndef GRADREG_TEST_STATE_RIG_H
#define GRADREG_TEST_STATE_RIG_H

#include "rig.h"

enum { LAYERS = 3, SEGMENTS = 5 };
extern const gradreg_segment table[SEGMENTS];

gradreg_regularizer_params plain_params(void);
rig *open_rig(const gradreg_regularizer_params *p);

enum state { IDLE, NOISY, PERTURBED, MIRRORED };
extern const char *const state_names[MIRRORED + 1];

enum call {
    INJECT,
    REMOVE,
    PERTURB,
    MIRROR,
    COMBINE,
    FALLBACK,
    CANCEL,
    SET_STRENGTH,
    SET_EPSILON,
    SET_STEP,
    OBSERVE_LAYERS,
    OBSERVE_LOSSES,
    SUGGEST,
    TERMS,
    ENQUEUE,
    EXTRA_PASSES,
    FIRST_NEEDED,
    STATE_BYTES,
    SAVE,
    LOAD,
    CALLS
};

gradreg_status make_call(rig *r, enum call call);
enum state state_of(rig *r);

#endif
