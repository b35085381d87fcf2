/* lessons.h - supervised training: from random weights to the partial skill that reinforcement
 * learning starts from. */
#ifndef STUDY_LESSONS_H
#define STUDY_LESSONS_H

#include <gradreg.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#include "model.h"

struct lessons {
    size_t steps, problems; /* steps of the schedule; problems a step */
    size_t end;             /* steps that are taken: partial skill lies in the middle */
    double rate;
    uint64_t seed;
    const volatile sig_atomic_t *stop; /* set: end early */
};

/* The loss of the last step: nats a token of the answers. */
double lessons_learn(struct model *model, gradreg_context *context,
                     const struct lessons *lessons);

#endif
