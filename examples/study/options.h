/* options.h - what the command line says. */
#ifndef STUDY_OPTIONS_H
#define STUDY_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "arms.h"
#include "model.h"

enum command { LEARN, RUN, TIMING, SELFTEST, LIST_ARMS };

struct options {
    enum command command;
    struct settings settings;
    struct shape shape;
    const struct arm *arm;
    const char *base, *folder;
    size_t lesson_steps, lesson_end, lesson_problems;
    double lesson_rate;
    size_t checkpoint_every, measure_every, problems;
    const char *program; /* argv[0] */
};

/* Ends the program when something is not as it should be. */
struct options options_read(int count, char **arguments);

#endif
