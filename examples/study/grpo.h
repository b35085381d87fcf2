/* grpo.h - reinforcement learning by Dr. GRPO, with or without the regularizer.
 *
 *      prompts ──► answers ──► rewards ──► advantages          at clean weights
 *                     └──────► old log-probs                   at clean weights, once
 *      (noise in) ──► g1 ──► perturb ──► g2 ──► combine ──► AdamW
 *
 * Answers, passes and optimizer are the study's own; advantages, log-probs, loss, regularization and
 * noise are calls of the library. */
#ifndef STUDY_GRPO_H
#define STUDY_GRPO_H

#include <gradreg.h>
#include <stddef.h>
#include <stdint.h>

#include "adamw.h"
#include "arms.h"
#include "decoder.h"
#include "model.h"
#include "pass.h"
#include "problems.h"
#include "support.h"

/* Where a step's time goes. */
enum time_part {
    ROLLOUTS,
    OLD_LOGP,
    FIRST_PASS,
    SECOND_PASS,
    REGULARIZER,
    OPTIMIZER,
    TIME_PARTS
};
extern const char *const time_names[TIME_PARTS];

/* What a step tells. */
struct step_report {
    double reward, loss, second_loss; /* reward: mean over all answers */
    double used;                      /* share of the answers that have an advantage */
    struct clock time[TIME_PARTS], whole;
};

/* The answers of a step that have an advantage, first to last. */
struct experience {
    int32_t *tokens,
        *targets; /* [sequences x SEQUENCE], [sequences x positions]; -1: no target */
    uint8_t *mask;
    float *rewards, *advantages, *old_logp;
    float *logp, *log_sum_exp; /* of the sequences of one pass */
    size_t sequences, all;     /* all: also those without */
};

struct trainer {
    const struct arm *arm;
    struct settings settings;
    struct model *model;
    struct adamw *adamw;
    struct pass *pass;
    struct decoder *decoder;
    gradreg_context *context;
    gradreg_regularizer *regularizer; /* NULL: plain */
    struct experience experience;
    gradreg_terms *layers; /* of the last regularized step */
    gradreg_terms total;
    uint64_t step; /* taken so far */
};

/* Takes the model. */
void trainer_open(struct trainer *trainer, gradreg_context *context, const struct arm *arm,
                  const struct settings *settings, struct model *model);
void trainer_close(struct trainer *trainer);

void trainer_step(struct trainer *trainer, struct step_report *report);

/* The pieces of a step, for tests and timing. trainer_gradient leaves g_hat, or g1, in grads. */
void trainer_experience(struct trainer *trainer, struct step_report *report);
void trainer_gradient(struct trainer *trainer, struct step_report *report);

#endif
