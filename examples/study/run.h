/* run.h - one run: an arm and a seed, from the base model to the last measurement, in a folder.
 *
 *      FOLDER/ARM-SEED.jsonl   records        FOLDER/ARM-SEED.ckpt   to go on from */
#ifndef STUDY_RUN_H
#define STUDY_RUN_H

#include <gradreg.h>
#include <signal.h>
#include <stddef.h>

#include "arms.h"

struct run {
    const struct arm *arm;
    struct settings settings;
    const char *base, *folder;
    size_t checkpoint_every, measure_every; /* steps */
    size_t problems;                   /* of a set, tried at the end; half of them on the way */
    const volatile sig_atomic_t *stop; /* set: save and leave after this step */
};

enum run_end { RUN_FINISHED, RUN_STOPPED };

/* Goes on where an earlier call with the same arguments left off, to the same bits. */
enum run_end run_go(struct run *run, gradreg_context *context);

#endif
