/* experiment.h - one run: data and weights of a seed, training of one arm to the target loss, and
 * what its end point looks like. */
#ifndef FLATNESS_EXPERIMENT_H
#define FLATNESS_EXPERIMENT_H

#include <gradreg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "curvature.h"
#include "network.h"
#include "train.h"

/* Two arms, equal in everything but the strength. */
enum { PLAIN, REGULARIZED, ARMS };

/* What is done; the same for every seed and, but for the strength, for both arms. */
struct experiment {
    size_t seeds;
    size_t training_pictures, held_out_pictures;
    double label_noise; /* share of wrong labels in the training set; held-out ones are right */
    struct network_shape shape;
    struct training training;
    struct curvature_params curvature;
};

/* How it came out. All but the accuracy is measured on the whole training set. */
struct run {
    struct trained trained;
    struct curvature curvature;
    double gradient_norm;
    double held_out_accuracy;
};

/* The default experiment, or one of a few seconds. */
struct experiment experiment_default(bool quick);

void experiment_run(struct run *out, gradreg_context *context,
                    const struct experiment *experiment, int arm, uint64_t seed,
                    const struct training_watch *watch);

#endif
