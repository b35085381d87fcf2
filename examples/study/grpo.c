/* grpo.c - one step. */
#include "grpo.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    AT_ONCE = 32,   /* sequences a pass: as many as keep its activations in the cache */
    LEAST_ROWS = 64 /* of the decoder, which is lent to measurements */
};

const char *const time_names[TIME_PARTS] = { "rollouts",    "old log-probs", "first pass",
                                             "second pass", "regularizer",   "optimizer" };

/* ------------------------------------------------------------------ time */

static void charge(struct step_report *report, enum time_part part, struct clock *since)
{
    const struct clock now = clock_now();
    report->time[part].wall += now.wall - since->wall;
    report->time[part].processor += now.processor - since->processor;
    *since = now;
}

/* ------------------------------------------------------------------ life */

void trainer_open(struct trainer *trainer, gradreg_context *context, const struct arm *arm,
                  const struct settings *settings, struct model *model)
{
    const size_t answers = settings->prompts * settings->samples;
    const size_t places = answers * model->shape.positions;
    struct experience *experience = &trainer->experience;
    *trainer = (struct trainer){ .arm = arm, .settings = *settings, .model = model };
    trainer->context = context;
    trainer->pass = pass_new(model, AT_ONCE);
    trainer->decoder = decoder_new(model, answers < LEAST_ROWS ? LEAST_ROWS : answers);
    trainer->layers = allocate(model->shape.layers, sizeof(*trainer->layers));
    experience->tokens = allocate(answers * SEQUENCE, sizeof(int32_t));
    experience->targets = allocate(places, sizeof(int32_t));
    experience->mask = allocate(places, 1);
    experience->rewards = allocate(answers, sizeof(float));
    experience->advantages = allocate(answers, sizeof(float));
    experience->old_logp = allocate(places, sizeof(float));
    experience->logp = allocate(AT_ONCE * model->shape.positions, sizeof(float));
    experience->log_sum_exp = allocate(AT_ONCE * model->shape.positions, sizeof(float));
    /* A regularized gradient leaves the library clipped. */
    trainer->adamw =
        adamw_new(model, settings->rate, 0.0, arm->depth == PLAIN ? settings->clip : 0.0);
    if (arm->depth == PLAIN)
        return;
    const gradreg_regularizer_params params = arm_regularizer(arm, settings, model);
    must(gradreg_regularizer_create(&trainer->regularizer, context, model->segments,
                                    model->tensor_count, &params));
}

void trainer_close(struct trainer *trainer)
{
    struct experience *experience = &trainer->experience;
    must(gradreg_regularizer_destroy(trainer->regularizer));
    free(experience->tokens);
    free(experience->targets);
    free(experience->mask);
    free(experience->rewards);
    free(experience->advantages);
    free(experience->old_logp);
    free(experience->logp);
    free(experience->log_sum_exp);
    free(trainer->layers);
    decoder_free(trainer->decoder);
    pass_free(trainer->pass);
    adamw_free(trainer->adamw);
    model_free(trainer->model);
}

/* ------------------------------------------------------------------ experience */

/* The same problems for every arm of a seed, and the same random numbers for the answers. */
static void answer_prompts(struct trainer *trainer)
{
    const struct settings *settings = &trainer->settings;
    struct experience *experience = &trainer->experience;
    struct random random = random_for(settings->seed, FOR_PROMPTS, trainer->step, 0);
    const struct sampling sampling = { settings->temperature, settings->seed, trainer->step };
    for (size_t p = 0; p < settings->prompts; p++) {
        const struct problem problem = problem_prompt(&random);
        for (size_t s = 0; s < settings->samples; s++)
            problem_text(experience->tokens + (p * settings->samples + s) * SEQUENCE, &problem);
    }
    decoder_answer(trainer->decoder, experience->tokens, experience->all, SPLIT, &sampling);
}

static double reward_answers(struct experience *experience)
{
    double sum = 0.0;
    for (size_t i = 0; i < experience->all; i++) {
        const int32_t *tokens = experience->tokens + i * SEQUENCE;
        const struct problem problem = { SPLIT, text_read_number(tokens, DIGITS), 0 };
        experience->rewards[i] = problem_solved(&problem, tokens) ? 1.0F : 0.0F;
        sum += (double)experience->rewards[i];
    }
    return sum / (double)experience->all;
}

/* An answer without an advantage has no gradient in this loss: no pass needs to see it. */
static void keep_those_with_advantage(struct experience *experience)
{
    experience->sequences = 0;
    for (size_t i = 0; i < experience->all; i++) {
        if (experience->advantages[i] == 0.0F)
            continue;
        const size_t to = experience->sequences++;
        experience->advantages[to] = experience->advantages[i];
        memmove(experience->tokens + to * SEQUENCE, experience->tokens + i * SEQUENCE,
                SEQUENCE * sizeof(int32_t));
    }
}

static void mark_targets(struct experience *experience, size_t positions)
{
    const size_t begin = problem_prompt_length(SPLIT);
    for (size_t i = 0; i < experience->sequences; i++) {
        const int32_t *tokens = experience->tokens + i * SEQUENCE;
        const size_t end = begin + answer_length(SPLIT, tokens);
        for (size_t t = 0; t < positions; t++) {
            const bool written = t + 1 >= begin && t + 1 < end;
            experience->mask[i * positions + t] = written;
            experience->targets[i * positions + t] = written ? tokens[t + 1] : -1;
        }
    }
}

void trainer_experience(struct trainer *trainer, struct step_report *report)
{
    struct clock since = clock_now();
    struct experience *experience = &trainer->experience;
    const gradreg_advantage_params params = GRADREG_ADVANTAGE_PARAMS_INIT; /* R - group mean */
    experience->all = trainer->settings.prompts * trainer->settings.samples;
    answer_prompts(trainer);
    report->reward = reward_answers(experience);
    must(gradreg_advantages(trainer->context, experience->advantages, experience->rewards,
                            experience->all, trainer->settings.samples, &params));
    keep_those_with_advantage(experience);
    mark_targets(experience, trainer->model->shape.positions);
    report->used = (double)experience->sequences / (double)experience->all;
    charge(report, ROLLOUTS, &since);
}

/* ------------------------------------------------------------------ passes */

/* Sequences of one pass, and what the library needs to know about their logits. */
struct slice {
    size_t first, count, place; /* place: of their first token */
    gradreg_logits_params params;
};

static bool next_slice(struct slice *slice, const struct trainer *trainer)
{
    const struct shape *shape = &trainer->model->shape;
    const size_t done = slice->first + slice->count, all = trainer->experience.sequences;
    if (done >= all)
        return false;
    *slice = (struct slice){ .first = done, .params = GRADREG_LOGITS_PARAMS_INIT };
    slice->count = all - done < AT_ONCE ? all - done : AT_ONCE;
    slice->place = done * shape->positions;
    slice->params.rows = slice->count * shape->positions;
    slice->params.vocabulary = shape->vocabulary;
    slice->params.temperature = (float)trainer->settings.temperature;
    return true;
}

static void forward(struct trainer *trainer, const struct slice *slice)
{
    pass_forward(trainer->pass, trainer->model,
                 trainer->experience.tokens + slice->first * SEQUENCE, SEQUENCE, slice->count);
}

static void take_old_logp(struct trainer *trainer, const struct slice *slice)
{
    must(gradreg_logprobs_forward(trainer->context, trainer->experience.old_logp + slice->place,
                                  NULL, NULL, trainer->pass->logits,
                                  trainer->experience.targets + slice->place, &slice->params));
}

/* [loss] */
/* The loss of these sequences; their logits become its gradient with respect to them. */
static double policy_loss(struct trainer *trainer, const struct slice *slice,
                          const float *old_logp)
{
    struct experience *experience = &trainer->experience;
    const int32_t *targets = experience->targets + slice->place;
    float *logits = trainer->pass->logits;
    gradreg_policy policy;
    gradreg_policy_batch batch = GRADREG_POLICY_BATCH_INIT;
    gradreg_policy_gradient gradient = GRADREG_POLICY_GRADIENT_INIT;
    gradreg_policy_metrics metrics = GRADREG_POLICY_METRICS_INIT;

    must(gradreg_policy_preset(&policy, "dr_grpo"));
    policy.sequence_total = (double)experience->all; /* of the whole step, not of this slice */
    policy.max_length = ANSWER;
    batch.sequences = slice->count;
    batch.length = trainer->model->shape.positions;
    batch.logp = gradient.dlogp = experience->logp;
    batch.old_logp = old_logp == NULL ? NULL : old_logp + slice->place;
    batch.mask = experience->mask + slice->place;
    batch.advantages = experience->advantages + slice->first;
    must(gradreg_logprobs_forward(trainer->context, experience->logp, NULL,
                                  experience->log_sum_exp, logits, targets, &slice->params));
    must(gradreg_policy_loss(trainer->context, &metrics, &gradient, &batch, &policy));
    must(gradreg_logprobs_backward(trainer->context, logits, logits, targets,
                                   experience->log_sum_exp, NULL, gradient.dlogp, NULL,
                                   &slice->params));
    return metrics.loss;
}
/* [end] */

static void old_logp_pass(struct trainer *trainer)
{
    struct slice slice = { 0 };
    while (next_slice(&slice, trainer)) {
        forward(trainer, &slice);
        take_old_logp(trainer, &slice);
    }
}

/* The loss; adds its gradient to grads, from first_layer on. taking_old: the weights are clean and
 * nobody has taken the old log-probs yet, so this pass does on its way. */
static double gradient_pass(struct trainer *trainer, const float *old_logp, bool taking_old,
                            int32_t first_layer)
{
    struct slice slice = { 0 };
    double loss = 0.0;
    while (next_slice(&slice, trainer)) {
        forward(trainer, &slice);
        if (taking_old)
            take_old_logp(trainer, &slice);
        loss += policy_loss(trainer, &slice, old_logp);
        pass_backward(trainer->pass, trainer->model, first_layer > 0 ? (size_t)first_layer : 0);
    }
    return loss;
}

/* ------------------------------------------------------------------ the regularized gradient */

/* Noise goes in after rollouts and old log-probs. */
static void inject_noise(struct trainer *trainer, gradreg_buffers *buffers,
                         struct step_report *report, struct clock *since)
{
    old_logp_pass(trainer);
    charge(report, OLD_LOGP, since);
    must(gradreg_regularizer_inject_noise(trainer->regularizer, buffers));
    model_refresh(trainer->model);
    charge(report, REGULARIZER, since);
}

/* [second] */
/* The same function as in the first pass: same answers, same advantages, same old log-probs. */
static void second_pass(struct trainer *trainer, gradreg_buffers *buffers,
                        struct step_report *report, struct clock *since)
{
    const float *old_logp = trainer->arm->shorthand ? NULL : trainer->experience.old_logp;
    int32_t first_layer = GRADREG_LAYER_NONE;
    if (trainer->arm->truncated)
        must(gradreg_regularizer_first_needed_layer(trainer->regularizer, &first_layer));
    must(gradreg_regularizer_perturb(trainer->regularizer, buffers)); /* grads are zeros now */
    model_refresh(trainer->model);
    charge(report, REGULARIZER, since);
    report->second_loss = gradient_pass(trainer, old_logp, false, first_layer);
    charge(report, SECOND_PASS, since);
}
/* [end] */

static void observe(struct trainer *trainer, const struct step_report *report, bool second)
{
    const size_t layers = trainer->model->shape.layers;
    const float losses[2] = { (float)report->loss, (float)report->second_loss };
    if (second)
        must(gradreg_regularizer_observe_losses(trainer->regularizer, &losses[0], &losses[1]));
    trainer->total = (gradreg_terms)GRADREG_TERMS_INIT;
    for (size_t l = 0; l < layers; l++)
        trainer->layers[l] = (gradreg_terms)GRADREG_TERMS_INIT;
    must(gradreg_regularizer_terms(trainer->regularizer, &trainer->total, trainer->layers,
                                   layers));
}

void trainer_gradient(struct trainer *trainer, struct step_report *report)
{
    struct model *model = trainer->model;
    const float *old_logp = trainer->experience.old_logp;
    gradreg_buffers buffers = model_buffers(model);
    struct clock since = clock_now();
    const bool noisy = trainer->arm->noise != NO_NOISE;
    int32_t passes = 0;

    memset(model->grads, 0, model->parameter_count * sizeof(float));
    if (noisy)
        inject_noise(trainer, &buffers, report, &since);
    report->loss = gradient_pass(trainer, old_logp, !noisy, GRADREG_LAYER_NONE);
    charge(report, FIRST_PASS, &since);
    if (trainer->regularizer == NULL)
        return;

    must(gradreg_regularizer_extra_passes(trainer->regularizer, &passes));
    if (passes > 0)
        second_pass(trainer, &buffers, report, &since);
    must(gradreg_regularizer_combine(trainer->regularizer,
                                     &buffers)); /* weights are clean again */
    observe(trainer, report, passes > 0);
    charge(report, REGULARIZER, &since);
}

void trainer_step(struct trainer *trainer, struct step_report *report)
{
    const struct clock began = clock_now();
    *report = (struct step_report){ .reward = 0.0 };
    trainer_experience(trainer, report);
    trainer_gradient(trainer, report);
    struct clock since = clock_now();
    adamw_step(trainer->adamw, trainer->model);
    charge(report, OPTIMIZER, &since);
    report->whole.wall = since.wall - began.wall;
    report->whole.processor = since.processor - began.processor;
    trainer->step++;
}
