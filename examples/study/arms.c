/* arms.c - the table, and what of it the library is told. */
#include "arms.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

/* A step of GRPO is rollouts (a forward pass) and one pass forward and back, which costs three; a
 * regularized one has two of those: 7 to 4. */
#define EQUAL_COMPUTE 1.75

const struct arm arms[] = {
    { "base", "base model", PLAIN, .interval = 1, .steps = 0.0 },
    { "grpo", "GRPO", PLAIN, .interval = 1, .steps = 1.0 },
    { "even", "even GR", EVEN, .interval = 1, .steps = 1.0 },
    { "depth", "depth-scaled GR", DEPTH, .interval = 1, .steps = 1.0 },
    { "depth-noise", "depth-scaled GR, noise", DEPTH, .noise = STEP_NOISE, .interval = 1,
      .steps = 1.0 },
    { "even-mean", "even GR, mean strength", EVEN_MEAN, .interval = 1, .steps = 1.0 },
    { "grpo-compute", "GRPO, equal compute", PLAIN, .interval = 1, .steps = EQUAL_COMPUTE },
    { "even-strong", "even GR, 3 x strength", EVEN, .interval = 1, .steps = 1.0, .times = 3.0 },
    { "depth-strong", "depth-scaled GR, 3 x strength", DEPTH, .interval = 1, .steps = 1.0,
      .times = 3.0 },
    { "even-mean-strong", "even GR, mean of 3 x strength", EVEN_MEAN, .interval = 1,
      .steps = 1.0, .times = 3.0 },
    { "depth-loud", "depth-scaled GR, loud noise", DEPTH, .noise = RELATIVE_NOISE,
      .interval = 1, .steps = 1.0 },
    { "depth-interval", "depth-scaled GR, interval 4", DEPTH, .interval = 4, .steps = 1.0 },
    { "depth-shorthand", "depth-scaled GR, shorthand", DEPTH, .shorthand = true, .interval = 1,
      .steps = 1.0 },
    { "depth-bf16", "depth-scaled GR, bf16 forward", DEPTH, .bf16 = true, .interval = 1,
      .steps = 1.0 },
    { "grpo-bf16", "GRPO, bf16 forward", PLAIN, .bf16 = true, .interval = 1, .steps = 1.0 },
    { "depth-truncated", "depth-scaled GR, truncated", DEPTH, .truncated = true, .interval = 1,
      .steps = 1.0 },
};
const size_t arm_count = sizeof(arms) / sizeof(*arms);

const struct arm *arm_named(const char *name)
{
    for (size_t i = 0; i < arm_count; i++)
        if (strcmp(arms[i].name, name) == 0)
            return &arms[i];
    return NULL;
}

struct settings settings_default(void)
{
    return (struct settings){
        .steps = 80,
        .prompts = 32,
        .samples = 8,
        .rate = 2e-4,
        .clip = 1.0,
        .temperature = 1.0,
        .strength = 0.003,
        .epsilon = 0.002,
        .noise_scale = 1.0,
        .seed = 1,
    };
}

uint64_t arm_steps(const struct arm *arm, const struct settings *settings)
{
    return (uint64_t)llround(arm->steps * (double)settings->steps);
}

static double mean_multiplier(const struct model *model)
{
    const int32_t layers = (int32_t)model->shape.layers;
    double *multipliers = allocate(model->shape.layers, sizeof(double));
    gradreg_schedule schedule = GRADREG_SCHEDULE_INIT;
    double sum = 0.0;
    must(gradreg_schedule_multipliers(multipliers, &schedule, layers));
    for (int32_t l = 0; l < layers; l++)
        sum += multipliers[l];
    free(multipliers);
    return sum / layers;
}

/* [regularizer] */
gradreg_regularizer_params arm_regularizer(const struct arm *arm,
                                           const struct settings *settings,
                                           const struct model *model)
{
    gradreg_regularizer_params params = GRADREG_REGULARIZER_PARAMS_INIT;
    params.layer_count = (int32_t)model->shape.layers; /* the schedule follows from the depth */
    params.strength = settings->strength;
    params.epsilon = settings->epsilon;
    params.clip_first = params.clip_second = settings->clip;
    params.common_clip = 1;
    params.second_gradient = GRADREG_SECOND_GRADIENT_ADDS; /* the way back adds into grads */
    params.interval = arm->interval;
    params.seed = settings->seed;
    if (arm->depth != DEPTH)
        params.schedule.first_layer = params.schedule.full_layer = 0;
    if (arm->times > 0.0)
        params.strength *= arm->times;
    if (arm->depth == EVEN_MEAN)
        params.strength *= mean_multiplier(model);
    if (arm->bf16)
        params.compute_type = GRADREG_TYPE_BF16;
    if (arm->truncated)
        params.second_pass = GRADREG_SECOND_PASS_TRUNCATED;
    if (arm->noise == STEP_NOISE) {
        params.noise.rule = GRADREG_NOISE_STEP;
        params.noise.scale = settings->noise_scale;
    }
    if (arm->noise == RELATIVE_NOISE)
        params.noise.rule = GRADREG_NOISE_RELATIVE;
    return params;
}
/* [end] */
