/* train.h - mini-batch training until the loss on the whole training set reaches a target, with or
 * without the regularizer. Equal loss is what makes two runs comparable.
 *
 * Loss and end point are those of a running mean of the parameters: mini-batches make the latest
 * ones jump about, and where they happen to be would be measured instead of where they are going. */
#ifndef FLATNESS_TRAIN_H
#define FLATNESS_TRAIN_H

#include <gradreg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "network.h"

/* The same for every seed. */
struct training {
    double learning_rate, momentum;
    size_t batch_size, step_limit;
    double target_loss; /* training ends when a check finds the loss at or below it */
    double strength;    /* lambda; 0: the library is not called at all */
    double epsilon;
    uint64_t warmup_steps; /* the strength grows linearly over these */
    bool even; /* all blocks at full strength, instead of the default schedule by depth */
};

/* Means over the last (up to 100) steps of a regularized run; see gradreg_terms. */
struct layer_terms {
    double strength, first_norm, hvp_norm, curvature, correction_share, applied_cosine;
};

struct trained {
    size_t steps;
    size_t backward_examples;   /* examples that went through a backward pass */
    double loss;                /* mean over the training set, at the end */
    bool reached;               /* false: step_limit came first */
    struct layer_terms *layers; /* [blocks + 1], the last: total; NULL: not regularized */
};

/* Called now and then; `loss` is a running mean over batches. */
struct training_watch {
    void (*function)(void *user, size_t step, double loss);
    void *user;
};

/* params: where to start on entry, the running mean at the end on return. context: unused for a
 * strength of 0. */
void train(struct trained *out, struct network *network, float *params,
           gradreg_context *context, const struct examples *examples,
           const struct training *settings, uint64_t seed, const struct training_watch *watch);
void trained_free(struct trained *trained);

#endif
