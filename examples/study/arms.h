/* arms.h - what is compared: one line of a table an arm. */
#ifndef STUDY_ARMS_H
#define STUDY_ARMS_H

#include <gradreg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model.h"

enum arm_depth { PLAIN, EVEN, EVEN_MEAN, DEPTH };
enum arm_noise {
    NO_NOISE,
    STEP_NOISE,    /* as long as the step of the Hessian estimate: the article's */
    RELATIVE_NOISE /* RMS 2^-7 of that of the weights: the library's default */
};

struct arm {
    const char *name, *title;
    enum arm_depth depth; /* PLAIN: no regularizer. EVEN_MEAN: even, at the mean of DEPTH */
    enum arm_noise noise; /* directional, in early attention weights */
    bool bf16;            /* passes and rollouts see weights rounded to bf16 */
    bool shorthand;       /* second pass without old log-probs: another function's Hessian */
    bool truncated;       /* second pass stops at the first layer that needs it */
    int32_t interval;     /* the correction is computed anew every so many steps */
    double steps;         /* times the steps of the others */
    double times;         /* the strength of the others; 0: once */
};

extern const struct arm arms[];
extern const size_t arm_count;
/* NULL for a name that is not in the table. */
const struct arm *arm_named(const char *name);

/* The same for all arms. */
struct settings {
    uint64_t steps, prompts, samples; /* samples of each prompt */
    double rate, clip, temperature;
    double strength, epsilon; /* lambda; the length of the finite-difference step */
    double noise_scale;       /* of STEP_NOISE: times the step */
    uint64_t seed, base;      /* base: hash of the parameters at the start */
};
struct settings settings_default(void);

/* What the library is told. */
gradreg_regularizer_params arm_regularizer(const struct arm *arm,
                                           const struct settings *settings,
                                           const struct model *model);
uint64_t arm_steps(const struct arm *arm, const struct settings *settings);

#endif
