/* experiment.c - the settings, and one run from the seed to the numbers. */
#include "experiment.h"

#include <stdlib.h>

#include "support.h"

struct experiment experiment_default(bool quick)
{
    struct experiment experiment = {
        .seeds = 5,
        .training_pictures = 512,
        .held_out_pictures = 1000,
        .label_noise = 0.1,
        .shape = { .blocks = 8,
                   .tokens = PICTURE_SIDE,
                   .pixels = PICTURE_SIDE,
                   .width = 16,
                   .hidden = 32,
                   .classes = DIGITS },
        .training = { .learning_rate = 0.005,
                      .momentum = 0.9,
                      .batch_size = 16,
                      .step_limit = 4000,
                      .target_loss = 0.35,
                      .strength = 0.05,
                      .epsilon = 1e-3,
                      .warmup_steps = 300 },
        .curvature = { .epsilon = 1e-3,
                       .iteration_limit = 100,
                       .tolerance = 5e-4,
                       .draws = 16,
                       .seed = 1 },
    };
    if (quick) {
        experiment.seeds = 2;
        experiment.training_pictures = 128;
        experiment.held_out_pictures = 300;
        experiment.training.target_loss = 0.8;
        experiment.training.warmup_steps = 100;
        experiment.shape.blocks = 6;
        experiment.curvature.draws = 4;
        experiment.curvature.tolerance = 1e-2;
    }
    return experiment;
}

static double gradient_norm(struct network *network, const float *params,
                            const struct batch *batch)
{
    float *grads = must_allocate(network->parameter_count, sizeof(float));
    network_gradient(network, grads, params, batch);
    const double norm = norm_of(grads, network->parameter_count);
    free(grads);
    return norm;
}

static double accuracy(struct network *network, const float *params,
                       const struct examples *examples)
{
    const struct batch all = { examples, NULL, examples->count };
    network_loss(network, params, &all);
    return (double)network->correct / (double)examples->count;
}

void experiment_run(struct run *out, gradreg_context *context,
                    const struct experiment *experiment, int arm, uint64_t seed,
                    const struct training_watch *watch)
{
    struct training training = experiment->training;
    if (arm == PLAIN)
        training.strength = 0.0;

    struct examples *pictures =
        must_have(digits_draw(experiment->training_pictures, experiment->label_noise, seed));
    struct examples *held_out =
        must_have(digits_draw(experiment->held_out_pictures, 0.0, seed + 1000));
    struct network *network = must_have(network_new(&experiment->shape));
    float *params = must_allocate(network->parameter_count, sizeof(float));
    network_initialize(network, params, seed);

    const struct batch all = { pictures, NULL, pictures->count };
    train(&out->trained, network, params, context, pictures, &training, seed, watch);
    out->gradient_norm = gradient_norm(network, params, &all);
    curvature_measure(&out->curvature, context, network, params, &all, &experiment->curvature);
    out->held_out_accuracy = accuracy(network, params, held_out);

    free(params);
    network_free(network);
    examples_free(held_out);
    examples_free(pictures);
}
